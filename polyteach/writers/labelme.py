"""LabelMe's JSON files (github.com/wkentaro/labelme), one beside each image.

    OUT/train/a.jpg     OUT/train/a.json

An object with an outline is a shape of the type "mask" (LabelMe 5.2 and later), which keeps holes and parts; with
`--polygons` a polygon for each of its parts, of one group_id. One without is a rectangle. Ignored objects are called
__ignore__, as LabelMe's own exporters have it. A pseudo label's score is in the field "score".
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.target import Target
from polyteach.writers import About, LabelWriter, Sample
from polyteach.writers._json_list import dumps
from polyteach.writers._names import class_lines
from polyteach.writers._objects import HOLES, Thing, around, outline_alone, things

_IGNORE = "__ignore__"
_CLASSLESS = "ignored objects are called __ignore__, and have no class"


class Writer(LabelWriter):
    """A JSON file for each image."""

    tasks: ClassVar[tuple[str, ...]] = ("detection",)
    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {"polygons": ("detection",)}

    def __init__(self, folder: Path, about: About) -> None:
        super().__init__(folder, about)
        if _IGNORE in about.space.names:
            raise ValueError(f"{about.task}/{about.name} has a class {_IGNORE!r}, which LabelMe means otherwise")
        (folder / "classes.txt").write_text(class_lines(about.space.names), encoding="utf-8")
        self.told.read = "labelme:{}?classes=classes.txt"

    def place(self, split: str) -> str:
        return split or "all"

    def add(self, sample: Sample, target: Target) -> None:
        assert isinstance(target, DetectionTarget)
        shapes = []
        for i, thing in enumerate(things(sample, target, self.about, self.told), 1):
            shapes += self._shapes(thing, i)
        folder, _, name = sample.file.rpartition("/")
        said: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": name,
            "imageData": None,
            "imageHeight": sample.size[0],
            "imageWidth": sample.size[1],
        }
        path = self.folder / folder / f"{Path(name).stem}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dumps(said), encoding="utf-8")

    def _shapes(self, thing: Thing, number: int) -> list[dict[str, Any]]:
        self.told.lost[_CLASSLESS] += thing.ignore
        label = _IGNORE if thing.ignore else thing.name
        rest: dict[str, Any] = {"group_id": None, "description": "", "flags": {}}
        rest |= {} if self.about.people else {"score": thing.score}
        x0, y0, x1, y1 = thing.box
        if thing.mask is None:
            return [{"label": label, "points": [[x0, y0], [x1, y1]], "shape_type": "rectangle", "mask": None} | rest]
        outline_alone(thing, self.told)
        outer, holes = thing.rings
        if self.about.polygons:
            self.told.lost[HOLES] += bool(holes)
            rest["group_id"] = number if len(outer) > 1 else None
            return [{"label": label, "points": r, "shape_type": "polygon", "mask": None} | rest for r in outer]
        left, top, right, bottom = around(outer)
        corners = [[left, top], [right - 1, bottom - 1]]
        mask = _png(thing.mask[top:bottom, left:right])
        return [{"label": label, "points": corners, "shape_type": "mask", "mask": mask} | rest]


def _png(mask: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode("ascii")
