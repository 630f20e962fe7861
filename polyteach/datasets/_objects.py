"""What a label file says of objects, as a target: boxes and outlines in pixels, and where each stands in its file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from polyteach.datasets import Drawn
from polyteach.datasets._coco_outlines import masks_of
from polyteach.tasks.detection import DetectionTarget

_FAR = 1e9


@dataclass(frozen=True)
class Thing:
    """One object that a person drew.

    where: the file and the place in it. category: the index of its class. box: x0, y0, x1, y1 in pixels from the
    image's corner. outline: polygons [x, y, x, y, ...] in pixels, or run lengths as COCO's {size, counts}; None where
    only its box was drawn. ignore: neither learned nor background. about: what an error shows of it.
    """

    where: str
    category: int
    box: tuple[float, float, float, float]
    outline: list[list[float]] | dict[str, Any] | None = None
    ignore: bool = False
    about: str = ""


def around(polygons: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """The box x0, y0, x1, y1 around all points of polygons [x, y, x, y, ...], of which there is one at least."""
    xs, ys = ([p for polygon in polygons for p in polygon[i::2]] for i in (0, 1))
    return min(xs), min(ys), max(xs), max(ys)


def drawn(things: Sequence[Thing], size: tuple[int, int], outlines: bool) -> Drawn:
    """The detection target of an image of (height, width) `size`.

    outlines: give masks. An image in which an object that is learned has no outline has none at all, since an empty
    mask would say that the object is nowhere. An object whose outline covers no pixel is ignored. Both are counted.

    Raises:
        ValueError: a box without an area, or far beyond any image; an outline that is broken. Says where it stands.
    """
    names, boxes = [], []
    for thing in things:
        x0, y0, x1, y1 = thing.box
        names.append(f"{thing.where}: box {thing.about}{x0:.6g}, {y0:.6g}, {x1:.6g}, {y1:.6g}")
        if not (x1 > x0 and y1 > y0):
            raise ValueError(f"{names[-1]} has no area")
        if max(map(abs, thing.box)) > _FAR:
            raise ValueError(f"{names[-1]} lies far beyond any image")
        boxes.append([x0, y0, x1, y1])
    notes: Counter[str] = Counter()
    ignored = [t.ignore for t in things]
    masks, blank = None, [False] * len(things)
    if outlines:
        found = [(t.where, {"segmentation": t.outline, "bbox": box}) for t, box in zip(things, boxes, strict=True)]
        masks, blank = masks_of(found, boxes, size, ignored)
        notes["have an outline that covers no pixel: ignored, neither object nor background"] += sum(
            b and not i for b, i in zip(blank, ignored, strict=True)
        )
        if masks is None:
            notes["have no outline, or are in an image with one that has none: only their boxes are learned"] += len(
                things
            )
    target = DetectionTarget(
        box=torch.tensor(boxes, dtype=torch.float64).view(-1, 4).float(),
        category=torch.tensor([t.category for t in things], dtype=torch.int64),
        score=torch.ones(len(things)),
        ignore=torch.tensor(ignored, dtype=torch.bool) | torch.tensor(blank, dtype=torch.bool),
        mask=None if masks is None else torch.from_numpy(masks),
    )
    labels = Drawn({"detection": target})
    labels.where["detection"], labels.notes["detection"] = names, +notes
    return labels
