"""What a label file says of objects, as a target: boxes and outlines in pixels, and where each stands in its file."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from polyteach.datasets import Drawn
from polyteach.datasets._coco_outlines import masks_of
from polyteach.tasks.detection import DetectionTarget

_FAR = 1e9
_CORNERS = 64
"""Of the polygon that stands for an ellipse: it is off by a thousandth of the radius."""


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


def oval(x: float, y: float, rx: float, ry: float, degrees: float = 0) -> list[float]:
    """The polygon of an ellipse by its centre and radii, turned clockwise as it is seen."""
    at = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    return _turned(np.stack([rx * np.cos(at), ry * np.sin(at)], axis=1), (x, y), degrees)


def rectangle(x0: float, y0: float, x1: float, y1: float, degrees: float, about: tuple[float, float]) -> list[float]:
    """The polygon of a box that is turned about a point, clockwise as it is seen."""
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) - about
    return _turned(corners, about, degrees)


def _turned(points: Float[np.ndarray, "n 2"], about: tuple[float, float], degrees: float) -> list[float]:
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return [float(v) for v in (points @ matrix + about).reshape(-1)]


def placed(mask: Bool[np.ndarray, "h w"], left: int, top: int, size: tuple[int, int]) -> dict[str, Any]:
    """A mask of a part of an image of (height, width) `size`, as COCO's run lengths of the whole image."""
    whole = np.zeros(size, dtype=bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    flat = whole.T.reshape(-1)
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": list(size), "counts": [0, *runs] if flat[:1].any() else runs}


def inside(mask: Bool[np.ndarray, "h w"], left: int, top: int) -> tuple[float, float, float, float] | None:
    """The box x0, y0, x1, y1 around the pixels of a mask that begins there; None where it has none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return left + float(columns[0]), top + float(rows[0]), left + columns[-1] + 1.0, top + rows[-1] + 1.0


def united(things: Sequence[Thing], group: Sequence[Hashable | None]) -> list[Thing]:
    """Things of one group and category as one, in the place of the first: around all, with the outlines of all.

    group: of each thing; None where it is in none. A thing without an outline, or with run lengths, leaves its group
    without one: what of it is meant is not known.
    """
    whole: dict[Hashable, list[Thing]] = {}
    for i, (thing, number) in enumerate(zip(things, group, strict=True)):
        key = ("alone", i) if number is None else ("group", number, thing.category, thing.ignore)
        whole.setdefault(key, []).append(thing)
    out = []
    for parts in whole.values():
        if len(parts) == 1:
            out.append(parts[0])
            continue
        lists = [part.outline for part in parts if isinstance(part.outline, list)]
        xs, ys = ([part.box[k] for part in parts for k in (i, i + 2)] for i in (0, 1))
        outline = [polygon for one in lists for polygon in one] if len(lists) == len(parts) else None
        out.append(replace(parts[0], box=(min(xs), min(ys), max(xs), max(ys)), outline=outline))
    return out


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
