"""The objects of a target as writers of other tools' formats take them, one by one.

Shapes: H W pixels of the image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool

from polyteach.tasks.detection import DetectionTarget, masks_at
from polyteach.writers import About, Sample, Told
from polyteach.writers._outlines import Ring, rings

_BELOW = "boxes have a score below {:g} and were left out (--score)"
_FLAT = "boxes have no area and were left out"
_BLANK = "outlines cover no pixel: their objects are written by their boxes"

HOLES = "outlines have holes, which polygons have not: filled"
"""What a format of polygons loses."""


@dataclass(frozen=True)
class Thing:
    """One object. place: its row in the target, whatever was left out. box: x0, y0, x1, y1 in pixels, each the shortest
    number that is the target's as float32. mask: None where there is no outline, or one of no pixel.
    """

    place: int
    category: int
    name: str
    box: tuple[float, float, float, float]
    score: float
    ignore: bool
    mask: Bool[np.ndarray, "H W"] | None

    @cached_property
    def rings(self) -> tuple[list[Ring], list[Ring]]:
        """The edges of its outline's parts, and of the holes in them; none without an outline."""
        return rings(self.mask) if self.mask is not None else ([], [])


def short(value: float) -> float:
    """The shortest decimal number that is the same in float32."""
    return float(str(np.float32(value)))


def things(sample: Sample, target: DetectionTarget, about: About, told: Told, ignored: str = "") -> Iterator[Thing]:
    """The objects that are written of an image; what is left out, or cannot be written as it is, is counted in `told`.

    ignored: what to say of ignored objects, which are then left out; "" writes them.
    """
    masks = None if target.mask is None else masks_at(target, sample.size).numpy()
    rows = zip(
        target.box.tolist(), target.category.tolist(), target.score.tolist(), target.ignore.tolist(), strict=True
    )
    for i, (box, category, score, ignore) in enumerate(rows):
        if not about.people and score < about.score:
            told.lost[_BELOW.format(about.score)] += 1
            continue
        x0, y0, x1, y1 = map(short, box)
        if not (x1 > x0 and y1 > y0):
            told.lost[_FLAT] += 1
            continue
        if ignore and ignored:
            told.lost[ignored] += 1
            continue
        mask = None if masks is None else masks[i]
        if mask is not None and not mask.any():
            told.lost[_BLANK] += 1
            mask = None
        yield Thing(i, category, about.space.names[category], (x0, y0, x1, y1), short(score), ignore, mask)


def around(parts: list[Ring]) -> tuple[int, int, int, int]:
    """The box x0, y0, x1, y1 around all corners."""
    xs, ys = ([p[i] for ring in parts for p in ring] for i in (0, 1))
    return min(xs), min(ys), max(xs), max(ys)


def outline_alone(thing: Thing, told: Told) -> None:
    """Count an object whose format keeps its outline and no box, where the two differ by more than a pixel."""
    outer, _ = thing.rings
    if outer and max(abs(a - b) for a, b in zip(around(outer), thing.box, strict=True)) > 1:
        told.lost[
            "boxes lie more than a pixel off their outlines: with an outline the format has no box of its own"
        ] += 1
