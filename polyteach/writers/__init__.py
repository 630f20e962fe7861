"""Label formats of other tools: a label set of a store out, as files. One file per format, found by its name.

`--format label-studio` is written by `writers/label_studio.py`, whose class `Writer` is a `LabelWriter`. What other
tools read is counted from the upright image's corner, in its pixels, as targets are. Nothing of this file needs torch,
so that a wrong format is told at once.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from polyteach.ground.names import unknown_name
from polyteach.tasks.target import Space, Target

_NOT_HELD = {
    "coco-panoptic": "a store holds objects and classes of pixels as label sets of their own, and no panoptic "
    "segments; write them with --format coco and with --format masks"
}
"""Formats that are asked for and cannot be written, and why."""


@dataclass(frozen=True)
class About:
    """What is written.

    task, name: of the label set. space: its classes, as files may call them: distinct, of one line. people: whether
    people made it. score: the least score of pseudo labels. polygons: outlines as polygons where the format has another
    form for them too. scale: metres (or units of relative depth) of one step of a 16-bit depth map. images: "copy",
    "link" or "none". splits: of the images, in order; "" for images of none. source: who answered, for people to read.
    """

    task: str
    name: str
    space: Space
    people: bool = True
    score: float = 0.0
    polygons: bool = False
    scale: float = 0.001
    images: str = "copy"
    splits: tuple[str, ...] = ()
    source: str = "people"


@dataclass(frozen=True)
class Sample:
    """One labelled image. number: its place in the store, from 1 on, whatever else is written. file: its path within
    the folder that is written, "/" between. split: its folder's name, or "". size: (height, width), upright. uri: where
    it lies outside of the store, if it does. data: its bytes, where the format `holds` images and they are copied.
    """

    number: int
    id: str
    file: str
    split: str
    size: tuple[int, int]
    uri: str | None = None
    data: bytes | None = None
    licence: str | None = None


@dataclass
class Told:
    """What there is to say of what was written.

    lost: sentences that complete "N ...", and of how many things they are true. notes: sentences. read: how polyteach
    reads the folder again, with {} for it; "" where it does not. head: what README.md begins with, such as YAML.
    """

    lost: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    read: str = ""
    head: str = ""


class LabelWriter(ABC):
    """A label set in one format, written image by image, in the store's order.

    tasks: whose label sets the format takes. holds: images are kept in its files, and are no files of their own.
    unsplit: what a folder of images of no split is called. takes: options, and the tasks of which they say something.
    """

    tasks: ClassVar[tuple[str, ...]]
    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    holds: ClassVar[bool] = False
    unsplit: ClassVar[str] = ""

    def __init__(self, folder: Path, about: About) -> None:
        """folder: empty, and there."""
        self.folder, self.about, self.told = folder, about, Told()
        self.files = ExitStack()
        """What is open; closed when all is written, or after an error."""

    def place(self, split: str) -> str:
        """The folder of a split's images, within the one that is written."""
        return "/".join(filter(None, ("images", split or self.unsplit)))

    @abstractmethod
    def add(self, sample: Sample, target: Target) -> None:
        """Write what is said of one image.

        Raises:
            ValueError: the format cannot hold it; says the image and what to do.
            OSError: the disk is full.
        """

    def finish(self) -> None:
        """Write what is said of all images together; called once, at the end. Without more to say, it does nothing."""
        return


def formats() -> list[str]:
    """The formats there are: files of this folder, sorted."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def check_format(name: str) -> None:
    """Refuse a format that there is not.

    Raises:
        ValueError: lists those there are.
    """
    if name in _NOT_HELD:
        raise ValueError(f"format {name} cannot be written: {_NOT_HELD[name]}")
    if name not in formats():
        raise unknown_name("label format", name, formats())


def load_writer(name: str) -> type[LabelWriter]:
    """The class that writes a format.

    Raises:
        ValueError: as `check_format`.
    """
    check_format(name)
    module: Any = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    writer: type[LabelWriter] = module.Writer
    return writer
