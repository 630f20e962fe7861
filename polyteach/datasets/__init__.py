"""Datasets: files on disk in, pictures and people's targets out. One file per format, found by its name.

`tar:PATH` is read by `datasets/tar.py`; a plain path picks its format by its ending. A format's file has one function
`load(path) -> Dataset`.
"""

import importlib
import os
import pkgutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from polyteach.images import extensions
from polyteach.tasks.contract import Space, Target

_ENDINGS = {
    ".txt": "list",
    ".parquet": "parquet",
    **dict.fromkeys((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"), "tar"),
}

Labels = dict[str, Target | None]
"""What people say of one image: by task, a target or nothing."""


@dataclass(frozen=True)
class Entry:
    """One picture of a dataset, not looked into yet.

    data: its bytes, where they are at hand; else `uri`, an absolute path or an fsspec URL, says where they lie.
    problem: why neither can be had; the entry then goes to the rejects.
    targets: people's labels, given the (height, width) of the upright picture. Called in a thread, and only for a
        usable picture. It raises ValueError or OSError where a label is broken or missing: the reason is recorded.
    """

    data: bytes | None = None
    uri: str | None = None
    problem: str | None = None
    split: str | None = None
    licence: str | None = None
    targets: Callable[[tuple[int, int]], Labels] | None = None


class Dataset(ABC):
    """Pictures in a fixed order, and what people say of them.

    names: of all entries, in order; any text, and may repeat. Listed when the dataset is loaded, before any picture
        is read: a resumed ingest compares them.
    spaces: by task, the space of people's targets. Every task that an entry answers is here.
    embed: the pictures have no address of their own, so a store must keep their bytes.
    left_out: how many files were found and not taken, by kind (an ending, or "hidden").
    licence: of the pictures and labels, where the dataset states it.
    """

    names: Sequence[str]
    spaces: dict[str, Space]
    left_out: Counter[str]
    licence: str | None = None
    embed: ClassVar[bool] = False

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.spaces = {}
        self.left_out = Counter()

    @abstractmethod
    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        """Entries `start` up to, without, `stop`, in the order of `names`; read while they are asked for.

        Raises:
            ValueError: the dataset itself (not one picture) is broken; names the file.
        """


def formats() -> list[str]:
    """The formats there are: the files in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def locate(source: str) -> tuple[str, str]:
    """(format, absolute path) that `source` means: FORMAT:PATH, or a plain path whose kind tells the format.

    Raises:
        ValueError: no such file or folder, or its format cannot be told.
    """
    known = formats()
    prefix, colon, rest = source.partition(":")
    if colon and prefix in known:
        if not rest:
            raise ValueError(f"source {source!r} names a format and no path")
        return prefix, os.path.abspath(os.path.expanduser(rest))
    path = os.path.abspath(os.path.expanduser(source))
    if os.path.isdir(path):
        return "folder", path
    for ending, name in _ENDINGS.items():
        if path.lower().endswith(ending):
            return name, path
    ways = f"a folder, a file ending in {', '.join(_ENDINGS)}, or FORMAT:PATH with FORMAT one of {', '.join(known)}"
    if not os.path.exists(path):
        raise ValueError(f"source {source!r} does not exist; give {ways}")
    raise ValueError(f"source {source!r} is of no format that its name tells; give {ways}")


def load_dataset(source: str) -> Dataset:
    """The dataset at `source`; see `locate`.

    Raises:
        ValueError: as `locate`; or the dataset is broken.
    """
    name, path = locate(source)
    module: Any = importlib.import_module(f"polyteach.datasets.{name}")
    dataset: Dataset = module.load(path)
    return dataset


def kind(name: str) -> str | None:
    """Why a file of that name is not taken for a picture: "hidden", or its ending; None where it is."""
    file = name.rpartition("/")[2]
    if file.startswith("."):
        return "hidden"
    ending = os.path.splitext(file)[1].lower()
    return None if ending in extensions() else ending or "no ending"


def printable(name: str) -> str:
    """A file name as text that UTF-8 can hold: bytes that are none are escaped (\\udce9)."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
