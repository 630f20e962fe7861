"""CVAT's own XML, "CVAT for images 1.1" (docs.cvat.ai).

    OUT/annotations.xml     OUT/images/train/a.jpg

An object with an outline is a mask, which keeps holes and parts; with `--polygons` a polygon for each of its parts, of
one group_id. One without is a box. An image's split is its subset.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.target import Target
from polyteach.writers import About, LabelWriter, Sample
from polyteach.writers._objects import HOLES, Thing, around, outline_alone, things

_IGNORED = "ignored objects (crowds, difficult ones) were left out, which CVAT's format has not"
_SCORES = "objects had a score, which CVAT's format has not"


class Writer(LabelWriter):
    """One XML file, to which each image is appended."""

    tasks: ClassVar[tuple[str, ...]] = ("detection",)
    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {"polygons": ("detection",)}

    def __init__(self, folder: Path, about: About) -> None:
        super().__init__(folder, about)
        self._file = self.files.enter_context((folder / "annotations.xml").open("w", encoding="utf-8"))
        self._count = 0
        labels = "".join(
            f"<label><name>{escape(n)}</name><type>any</type><attributes></attributes></label>\n"
            for n in about.space.names
        )
        self._file.write(
            f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task>'
            f"<name>{escape(f'{about.task}/{about.name}')}</name><mode>annotation</mode>\n<labels>\n{labels}</labels>"
            "</task></meta>\n"
        )
        self.told.read = "cvat:{}"

    def add(self, sample: Sample, target: Target) -> None:
        assert isinstance(target, DetectionTarget)
        height, width = sample.size
        name = quoteattr(sample.file.removeprefix("images/"))
        subset = f" subset={quoteattr(sample.split)}" if sample.split else ""
        found = list(things(sample, target, self.about, self.told, _IGNORED))
        if not self.about.people:
            self.told.lost[_SCORES] += len(found)
        shapes = "".join(self._shapes(thing, i) for i, thing in enumerate(found, 1))
        self._file.write(
            f'<image id="{self._count}" name={name}{subset} width="{width}" height="{height}">\n{shapes}</image>\n'
        )
        self._count += 1

    def _shapes(self, thing: Thing, number: int) -> str:
        source = "manual" if self.about.people else "auto"
        head = f'label={quoteattr(thing.name)} source="{source}" occluded="0"'
        if thing.mask is None:
            corners = " ".join(f'{k}="{v}"' for k, v in zip(("xtl", "ytl", "xbr", "ybr"), thing.box, strict=True))
            return f'<box {head} {corners} z_order="0"></box>\n'
        outline_alone(thing, self.told)
        outer, holes = thing.rings
        if self.about.polygons:
            self.told.lost[HOLES] += bool(holes)
            group = f' group_id="{number}"' if len(outer) > 1 else ""
            lines = (";".join(f"{x},{y}" for x, y in ring) for ring in outer)
            return "".join(f'<polygon {head} points="{points}" z_order="0"{group}></polygon>\n' for points in lines)
        left, top, right, bottom = around(outer)
        flat = thing.mask[top:bottom, left:right].reshape(-1)
        ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
        rle = ", ".join(map(str, [0, *runs] if flat[0] else runs))
        size = f'left="{left}" top="{top}" width="{right - left}" height="{bottom - top}"'
        return f'<mask {head} rle="{rle}" {size} z_order="0"></mask>\n'

    def finish(self) -> None:
        self._file.write("</annotations>\n")
        self._file.close()
