"""YOLO's text files, as Ultralytics reads them: a line for each object, in fractions of the image's sides.

    OUT/data.yaml                   train, val and test: folders of images; names
    OUT/images/train/a.jpg          OUT/labels/train/a.txt

A line is a class and a box (cx cy w h) or, of label sets with outlines, a polygon. Numbers have nine decimals: a
hundred-thousandth of a pixel. An image in which there is nothing has an empty file. Splits become train, val and test
by their names; images of no split, and splits called otherwise, are trained on.
"""

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import yaml

from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.target import Target
from polyteach.writers import About, LabelWriter, Sample
from polyteach.writers._objects import Thing, outline_alone, things
from polyteach.writers._outlines import joined

_ROLES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_IGNORED = "ignored objects (crowds, difficult ones) were left out: YOLO would take them for background"
_SCORES = "boxes had a score, which YOLO's labels have not"
_JOINED = "outlines of several parts, or with holes, are one polygon that goes to each along a line of no width"


class Writer(LabelWriter):
    """A text file for each image."""

    tasks: ClassVar[tuple[str, ...]] = ("detection",)
    unsplit: ClassVar[str] = "train"

    def __init__(self, folder: Path, about: About) -> None:
        super().__init__(folder, about)
        self._counts: Counter[str] = Counter()
        self.told.read = "yolo:{}"

    def place(self, split: str) -> str:
        return f"images/{split or self.unsplit}"

    def add(self, sample: Sample, target: Target) -> None:
        assert isinstance(target, DetectionTarget)
        path = self.folder / ("labels" + sample.file.removeprefix("images")).rpartition("/")[0]
        if not self._counts[sample.split]:
            path.mkdir(parents=True, exist_ok=True)
        self._counts[sample.split] += 1
        found = list(things(sample, target, self.about, self.told, _IGNORED))
        if not self.about.people:
            self.told.lost[_SCORES] += len(found)
        lines = "".join(f"{self._line(thing, sample.size)}\n" for thing in found)
        (path / f"{_stem(sample)}.txt").write_text(lines, encoding="utf-8")

    def _line(self, thing: Thing, size: tuple[int, int]) -> str:
        outer, holes = thing.rings
        height, width = size
        if not outer:
            x0, y0, x1, y1 = (min(max(v, 0), side) for v, side in zip(thing.box, (width, height) * 2, strict=True))
            numbers = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
        else:
            outline_alone(thing, self.told)
            self.told.lost[_JOINED] += len(outer) + len(holes) > 1
            numbers = [v for x, y in joined(outer + holes) for v in (x / width, y / height)]
        return " ".join([str(thing.category), *(_decimal(n) for n in numbers)])

    def finish(self) -> None:
        folders: dict[str, list[str]] = {}
        others = []
        for split in self.about.splits:
            if not self._counts[split]:
                continue
            name = split or self.unsplit
            role = next((r for r, words in _ROLES.items() if name.casefold().rstrip("-_.0123456789") in words), "")
            others += [] if role and split else [split or "images of no split"]
            folders.setdefault(role or "train", []).append(f"images/{name}")
        if others:
            self.told.notes.append(f"data.yaml: {', '.join(others)}: taken for training")
        if missing := [r for r in ("train", "val") if r not in folders]:
            self.told.notes.append(
                f"data.yaml has no {' and no '.join(missing)}, which Ultralytics asks for: divide the store with "
                "polyteach store split, or name folders there"
            )
        said: dict[str, Any] = {r: list(dict.fromkeys(f)) for r in _ROLES if (f := folders.get(r))}
        said = {r: f[0] if len(f) == 1 else f for r, f in said.items()}
        names = dict(enumerate(self.about.space.names))
        text = yaml.safe_dump({"path": ".", **said, "names": names}, allow_unicode=True, sort_keys=False, width=1000)
        (self.folder / "data.yaml").write_text(text, encoding="utf-8")


def _stem(sample: Sample) -> str:
    name = sample.file.rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    return stem if dot and ending else name


def _decimal(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".") or "0"
