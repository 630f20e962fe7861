"""Datasets: files on disk in, images and people's targets out. One file per format, found by its name.

`tar:PATH` is read by `datasets/tar.py` (`label-studio:` by `label_studio.py`); a plain path picks its format by its
ending. A format's file has one function
`load(path) -> Dataset`. Nothing of this file needs torch, so that a wrong source is told at once.
"""

import os
import pkgutil
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from polyteach.ground.endings import extensions
from polyteach.ground.limits import Limits
from polyteach.ground.names import did_you_mean, unknown_name
from polyteach.ground.plugins import Family
from polyteach.ground.protocols import Protocol as Protocol
from polyteach.tasks.target import Space, Target

_ENDINGS = {
    ".txt": "list",
    ".parquet": "parquet",
    **dict.fromkeys((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"), "tar"),
}

SPLITS = frozenset(
    ("train", "training", "trainval", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation")
)
"""Words that name a split, in small letters (Hugging Face's keywords, and "trainval")."""

_MOST_CLASSES = 100_000
"""ImageNet, the largest class list there is, has 21,843."""

_OTHER_FORMAT = (
    "Labels of another form: convert them to COCO's JSON and give coco:ROOT; classes alone: a folder for each class "
    "and folder:ROOT; images without labels: the folder alone. What each looks like: "
    "docs/guide/datasets.md"
)
_JUNK = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
"""Folders that systems make and nobody means: macOS's archives, Synology's thumbnails, Windows' and Unix' own."""
_DEEP = 200
"""Folders within one another that are walked through."""

Labels = dict[str, Target | None]
"""What people say of one image: by task, a target or nothing."""


class Drawn(Labels):
    """Labels of a reader that knows where each object stands in its file.

    where: by task, what to call each object of the target in an error (`Task.review`). notes: by task, what the reader
    found or mended, in words that complete "N objects ...", and for how many objects. hint: a sentence for whoever
    gets an error about this image; or nothing.
    """

    def __init__(self, labels: Labels | None = None) -> None:
        super().__init__(labels or {})
        self.where: dict[str, Sequence[str]] = {}
        self.notes: dict[str, Counter[str]] = {}
        self.hint = ""


@dataclass(frozen=True)
class Entry:
    """One image of a dataset, not looked into yet.

    data: its bytes, where they are at hand; else `uri`, an absolute path or a URL that `read_uri` takes, says where.
    problem: why neither can be had, or why what people say of it is unusable: names file and field. An unlabelled
        dataset's entry then goes to the rejects; a labelled one stops the ingest unless it is told to skip.
    targets: people's labels, given the (height, width) of the upright image. Called in a thread, and only for a
        usable image. It raises ValueError or OSError where a label is broken or missing: the reason is recorded.
    """

    data: bytes | None = None
    uri: str | None = None
    problem: str | None = None
    split: str | None = None
    licence: str | None = None
    targets: Callable[[tuple[int, int]], Labels] | None = None


class Dataset(ABC):
    """Images in a fixed order, and what people say of them.

    names: of all entries, in order; any text, and may repeat. Listed when the dataset is loaded, before any image
        is read: a resumed ingest compares them.
    spaces: by task, the space of people's targets. Every task that an entry answers is here.
    embed: the images have no address of their own, so a store must keep their bytes.
    left_out: how many files were found and not taken, by kind (an ending, or "hidden").
    notes: sentences on how the dataset was read where it could be read in two ways, or was mended.
    licence: of the images and labels, where the dataset states it.
    limits: how far reading its images goes; to be set before they are read.
    """

    names: Sequence[str]
    spaces: dict[str, Space]
    left_out: Counter[str]
    notes: list[str]
    licence: str | None = None
    limits: Limits = Limits()
    embed: ClassVar[bool] = False

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.spaces = {}
        self.left_out = Counter()
        self.notes = []

    @abstractmethod
    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        """Entries `start` up to, without, `stop`, in the order of `names`; read while they are asked for.

        Raises:
            ValueError: the dataset itself (not one image) is broken; names the file.
        """


_FAMILY = Family(__name__, "dataset format", "load")


def _own() -> dict[str, str]:
    """Name -> module: a file's name, in which "_" stands for "-"."""
    return {m.name.replace("_", "-"): m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")}


def formats() -> list[str]:
    """The formats there are: files of this folder, and what other distributions bring (`ground.plugins`); sorted."""
    return _FAMILY.names(_own())


def _format(name: str) -> Any:
    return _FAMILY.module(_own(), name)


def locate(source: str) -> tuple[str, str]:
    """(format, absolute path) that `source` means: FORMAT:PATH, or a plain path whose kind tells the format.

    A format without files (`PATHLESS = True` in its module) gets what stands after the colon as it is.

    Raises:
        ValueError: no such file or folder, or its format cannot be told.
    """
    known = formats()
    prefix, colon, rest = source.partition(":")
    if colon and prefix in known:
        if not rest:
            raise ValueError(f"source {source!r} names a format and no path")
        if getattr(_format(prefix), "PATHLESS", False):
            return prefix, rest
        return prefix, os.path.abspath(os.path.expanduser(rest))
    path = os.path.abspath(os.path.expanduser(source))
    if os.path.isdir(path):
        return "pictures", path
    for ending, name in _ENDINGS.items():
        if path.lower().endswith(ending):
            return name, path
    if re.fullmatch(r"[A-Za-z][\w-]+", prefix) and colon and not rest.startswith("//") and not os.path.exists(path):
        raise unknown_name("dataset format", prefix, known, fix=_OTHER_FORMAT)
    ways = f"a folder, a file ending in {', '.join(_ENDINGS)}, or FORMAT:PATH with FORMAT one of {', '.join(known)}"
    if not os.path.exists(path):
        unknown = f", and there is no format {prefix!r}" if colon and prefix.isidentifier() else ""
        raise ValueError(f"source {source!r} does not exist{unknown}; give {ways}")
    raise ValueError(f"source {source!r} is of no format that its name tells; give {ways}")


def load_dataset(source: str) -> Dataset:
    """The dataset at `source`; see `locate`.

    Raises:
        ValueError: as `locate`; or the dataset is broken.
    """
    name, path = locate(source)
    dataset: Dataset = _format(name).load(path)
    return dataset


def options(path: str, defaults: dict[str, str]) -> tuple[str, dict[str, str]]:
    """`PATH?key=value&key=value` apart: the path, and a value for every key of `defaults`.

    A path that exists as it stands, question mark and all, has no options.

    Raises:
        ValueError: an option that is not in `defaults`, or one without a value; lists what there is.
    """
    where, question, text = path.partition("?")
    if not question or os.path.exists(path):
        return path, dict(defaults)
    values = dict(defaults)
    for pair in text.split("&"):
        key, equals, value = pair.partition("=")
        if key not in defaults or not equals or not value:
            known = ", ".join(f"{k}={v or '...'}" for k, v in defaults.items()) or "none"
            close = "" if key in defaults else did_you_mean(key, defaults)
            raise ValueError(f"{pair!r} in {path!r} is no option of this format; there are: {known}{close}")
        values[key] = value
    return where, values


def found_below(path: str, has_tree: Callable[[str], bool]) -> tuple[str, list[str]]:
    """The folder that is meant by `path`, and a note where it is one below: archives unpack to folders of their own.

    has_tree: whether a folder is the root of such a tree. `path` itself where it is, or where none of the folders one
    or two levels below is: the reader then says what it expects.

    Raises:
        ValueError: several folders below are; lists them.
    """
    if not os.path.isdir(path) or has_tree(path):
        return path, []
    level = [path]
    for _ in range(2):
        level = [os.path.join(above, name) for above in level for name in _subfolders(above)]
        trees = [folder for folder in level if has_tree(folder)]
        if len(trees) > 1:
            raise ValueError(f"{path} has several such trees below it; give one of {', '.join(sorted(trees)[:5])}")
        if trees:
            return trees[0], [f"{path} holds the tree in a folder below it: {trees[0]} was read"]
    return path, []


def _subfolders(path: str) -> list[str]:
    try:
        return sorted(f.name for f in os.scandir(path) if is_folder(f) and not is_junk(f.name))
    except OSError:
        return []


def is_folder(item: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; not where that cannot be known, as of a link to itself."""
    try:
        return item.is_dir()
    except OSError:
        return False


def is_junk(folder: str) -> bool:
    """Whether a folder of that name is hidden, or is one that a system makes for itself."""
    return folder.startswith(".") or folder in _JUNK


def composed(name: str) -> str:
    """A class's name in the one form of Unicode that is compared (NFC): macOS writes accents as separate letters."""
    return unicodedata.normalize("NFC", name)


def unshared(classes: Mapping[str, set[str]]) -> str | None:
    """What to say of splits of which one has no class in common with the others: its classes may be something else.

    classes: the names that each labelled split has. None where there is no such split.
    """
    named = {split: names for split, names in classes.items() if names}
    for split in sorted(named, key=lambda split: len(named[split])):
        others: set[str] = set().union(*(named[other] for other in named if other != split))
        if others and not named[split] & others:
            return (
                f"the split {split} has no class in common with the others: {_some(named[split])} here, "
                f"{_some(others)} there"
            )
    return None


def _some(names: Iterable[str]) -> str:
    shown = sorted(map(printable, names))
    return ", ".join(shown[:3]) + (f", ... {len(shown):,} in all" if len(shown) > 3 else "")


def protocols() -> dict[str, Protocol]:
    """Every dataset's protocols by name."""
    found: dict[str, Protocol] = {}
    for name in formats():
        found |= getattr(_format(name), "PROTOCOLS", {})
    return found


def kind(name: str) -> str | None:
    """Why a file of that name is not taken for an image: "hidden", "in __MACOSX", or its ending; None where it is."""
    within, _, file = name.rpartition("/")
    if file.startswith("."):
        return "hidden"
    if within and (no := next((part for part in within.split("/") if part in _JUNK), None)):
        return f"in {no}"
    ending = os.path.splitext(file)[1].lower()
    return None if ending in extensions() else ending or "no ending"


def split_of(name: str) -> str | None:
    """The split that a file's path within its dataset tells, in the file's own word, or None.

    As Hugging Face reads names (datasets/data_files.py): "data/SPLIT-00000-of-00002.parquet" names any split; else a
    word of `SPLITS` that stands alone in the file's name (the last one), else in the nearest folder's.
    """
    if sharded := re.search(r"(?:^|/)data/([\w.]+)-\d{5}-of-\d{5}[^/]*$", name):
        return sharded[1]
    for part in reversed(name.split("/")):
        words = [w for w in re.split(r"[-._ 0-9]+", part) if w.lower() in SPLITS]
        if words:
            return words[-1]
    return None


def numbered(labels: Iterable[int], where: str) -> tuple[str, ...]:
    """Names "0", "1", ... for classes that nobody named, up to the largest label.

    Raises:
        ValueError: so large a label that it is no class index; says `where` it stands.
    """
    largest = max(labels, default=-1)
    if largest >= _MOST_CLASSES:
        raise ValueError(
            f"{where}: label {largest} is no class index: without class names, they end at {_MOST_CLASSES}"
        )
    return tuple(str(i) for i in range(largest + 1))


def walk(path: str) -> tuple[dict[str, str | None], Counter[str]]:
    """The images in a folder and in all below it, links followed: path within it, with '/' -> its problem or None.

    A subfolder that cannot be listed is among them, ending in '/', with its problem. Then, by kind, how many files
    were left out (see `kind`), and how many of the folders that systems make for themselves.

    Raises:
        ValueError: `path` is no folder, or cannot be listed.
    """
    if not os.path.isdir(path):
        raise ValueError(f"{path} is no folder")
    if not os.access(path, os.R_OK | os.X_OK):
        raise ValueError(f"{path} cannot be listed: permission denied")
    found: dict[str, str | None] = {}
    left_out: Counter[str] = Counter()
    _walk(path, "", (), found, left_out)
    return found, left_out


def _walk(
    path: str,
    within: str,
    above: tuple[tuple[int, int], ...],
    found: dict[str, str | None],
    left_out: Counter[str],
) -> None:
    try:
        about = os.stat(path)
        if (about.st_dev, about.st_ino) in above:  # a link to a folder that we are in
            left_out["links in a circle"] += 1
            return
        if len(above) > _DEEP:
            found[within] = f"folder is not read: it lies {len(above)} folders deep"
            return
        items = [*os.scandir(path)]  # list(...) would be the module datasets/list.py, once that is imported
    except OSError as e:
        found[within] = f"folder cannot be listed: {e.strerror}"
        return
    for item in items:
        name = within + item.name
        folder = is_folder(item)
        if item.name.startswith("."):
            left_out["hidden"] += 1
        elif folder and item.name in _JUNK:
            left_out[f"folder {item.name}"] += 1
        elif folder:
            _walk(item.path, name + "/", (*above, (about.st_dev, about.st_ino)), found, left_out)
        elif why := kind(name):
            left_out[why] += 1
        else:
            found[name] = None


def printable(name: str) -> str:
    """A file name as text that UTF-8 can hold: bytes that are none are escaped (\\udce9)."""
    # the same object where it can be: there may be millions
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode("utf-8")


def __getattr__(name: str) -> Any:
    if name == "of_class":  # readers of other distributions may have it from here; it needs torch
        from polyteach.datasets._classes import of_class

        return of_class
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
