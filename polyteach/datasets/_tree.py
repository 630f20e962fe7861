"""The files of a tree, found by what label files call them: other systems' paths, absolute ones, other accents."""

import ntpath
import os
import posixpath
from collections import Counter

from polyteach.datasets import composed

_SLASHES = "file names have backslashes: read as folders"
_INSIDE = "file names are absolute paths into ROOT"
BY_END = "file names are absolute paths of elsewhere: found in ROOT by their ends"
BY_RELATIVE_END = "file names are relative to a folder of elsewhere: found in ROOT by their ends"
_ACCENTS = "file names have their accents in another form of Unicode than the files: taken as the same"


class Tree:
    """Finds the images of a tree by what files call them."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._homes = {os.path.abspath(root).rstrip("/"), os.path.realpath(root).rstrip("/")}
        self._listed: dict[str, dict[str, str]] = {}
        self.odd: Counter[str] = Counter()
        """How many records were read otherwise than they are written, by what is to be said of them."""

    def files(self, folder: str) -> dict[str, str]:
        """What is in a folder by name, and by its name in NFC where only one is called so."""
        if folder not in self._listed:
            names = os.listdir(folder) if os.path.isdir(folder) else []
            forms = Counter(composed(n) for n in names)
            self._listed[folder] = {c: n for n in names if forms[c := composed(n)] == 1} | {n: n for n in names}
        return self._listed[folder]

    def find(self, folder: str, name: str, by_end: bool = False) -> tuple[str, str] | None:
        """An image's path within ROOT, and how its name was read where not as it is written; None where it is not.

        `name` is of a file in the split's folder, in ROOT or in ROOT/images. by_end: that of a relative name is enough,
        as it is of absolute ones.
        """
        for form in dict.fromkeys((name, name.replace("\\", "/"))):
            how = "" if form == name else _SLASHES
            found = self._in_any(folder, form)
            absolute = posixpath.isabs(form) or bool(ntpath.splitdrive(form)[0])
            if found is None and (absolute or by_end):
                found, how = self._absolute(folder, form)
                how = how if absolute else BY_RELATIVE_END
            if found is not None:
                within = os.path.relpath(found, self._root).replace(os.sep, "/")
                if not how and posixpath.basename(within) != posixpath.basename(form):
                    how = _ACCENTS
                return within, how
        return None

    def _absolute(self, folder: str, name: str) -> tuple[str | None, str]:
        """The file that an absolute path means: itself if it is in ROOT, else the one with the longest end of it."""
        for home in self._homes:
            if name.startswith(home + "/"):
                return self._below(self._root, name[len(home) + 1 :]), _INSIDE
        parts = [p for p in ntpath.splitdrive(name)[1].split("/") if p]
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        return next((p for end in ends if (p := self._in_any(folder, end))), None), BY_END

    def _in_any(self, folder: str, name: str) -> str | None:
        bases = (folder, self._root, os.path.join(self._root, "images"))
        return next((p for base in bases if (p := self._below(base, name))), None)

    def _below(self, base: str, name: str) -> str | None:
        for part in posixpath.normpath(name).split("/"):
            actual = self.files(base).get(part) or self.files(base).get(composed(part))
            if actual is None:
                return None
            base = os.path.join(base, actual)
        return base
