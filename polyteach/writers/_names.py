"""Names as files of other tools can hold them: of images, which are any text in a store, and of classes."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from polyteach.ground.endings import extensions

_UNFIT = re.compile('[\x00-\x1f\x7f<>:"|?*\\\\/\ud800-\udfff\ufffe\uffff]+')
"""Characters that Windows, or any system, allows in no file's name."""
_UNSAID = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")
"""Characters that end a line, or that no XML and no UTF-8 has."""
_READ_OTHERWISE = re.compile(r"\d|#|.*:")
"""Names that, where all begin so, readers take for an index, a colour or a comment with a name behind it."""
_LONGEST = 150
"""Bytes of a name without its ending: systems take 255, and tools add to it."""


def file_part(text: str) -> str:
    """The text as the name of a file or folder, without an ending: visible, on every system; "" stays so."""
    name = _UNFIT.sub("_", unicodedata.normalize("NFC", text)).strip(" .")
    while len(name.encode()) > _LONGEST:
        name = name[:-1]
    return name


class FileNames:
    """File names of images by their ids, each another within its split: by its letters without case, and whatever the
    ending, since label files are called as images are. An id's folders become part of the name.

    It keeps 8 bytes of each name, as a number.
    """

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self.changed = 0
        """How many images are called otherwise than the last part of their id."""

    def name(self, id: str, split: str) -> tuple[str, str]:
        """(name without an ending, ending) of an image; the ending is "" where its id has none of an image."""
        path = PurePosixPath(id.replace("\\", "/"))
        ending = path.suffix if path.suffix.lower() in extensions() else ""
        parts = [p for p in path.parts if p not in ("/", "..", ".")]
        if path.is_absolute():
            parts = parts[-1:]
        while len(parts) > 1 and parts[0] in (split, "images"):
            del parts[0]
        whole = "_".join(parts)
        own = file_part(whole[: len(whole) - len(ending)] if ending else whole) or "image"
        stem, n = own, 2
        while not self._take(split, stem):
            stem, n = f"{own}-{n}", n + 1
        self.changed += stem + ending != path.name
        return stem, ending

    def _take(self, split: str, stem: str) -> bool:
        said = f"{split}\0{stem.casefold()}".encode()
        key = int.from_bytes(hashlib.blake2b(said, digest_size=8).digest())
        if key in self._taken:
            return False
        self._taken.add(key)
        return True


def class_lines(names: Sequence[str]) -> str:
    """A text file of classes: a name on each line, the first of index 0; with its index where names alone could be read
    as something else, such as an index or a colour.
    """
    numbered = all(_READ_OTHERWISE.match(name) for name in names)
    return "".join(f"{i}: {name}\n" if numbered else f"{name}\n" for i, name in enumerate(names))


def class_names(names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The classes as files can call them, each another and of one line; and those that were changed: old -> new.

    A name that comes again gets its index behind it, as ImageNet's two cranes do.
    """
    said = [" ".join(_UNSAID.sub(" ", unicodedata.normalize("NFC", name)).split()) for name in names]
    counts = Counter(said)
    out, taken = list[str](), set(said)
    seen: set[str] = set()
    for i, name in enumerate(said):
        own = name or f"class {i}"
        if (name and counts[name] > 1 and name in seen) or (not name and own in taken):
            own = f"{own} ({i})"
            while own in taken:
                own += "'"
        seen.add(name)
        taken.add(own)
        out.append(own)
    return tuple(out), {old: new for old, new in zip(names, out, strict=True) if old != new}
