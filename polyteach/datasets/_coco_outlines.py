"""Outlines of objects as COCO writes them, polygons and run lengths, as masks.

The format: pycocotools' `mask.py` and `maskApi.c`. Shapes: K objects, H W pixels of the image.
"""

import math
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from jaxtyping import Bool

from polyteach.datasets._files import shown

_CELLS = 1 << 30
"""Pixels of all outlines of an image together: each takes a byte."""
_EDGES = 4_000_000
"""Pixels along the edges of an object's polygons: drawing them takes some 100 bytes for each."""
_MERGED = 32
"""Run lengths that are united at once: one by one, many take the square of their time."""
_DIGITS = 60
"""Bits of a number of a compressed run-length code, at most."""


def numbers(value: Any) -> bool:
    """A list of finite numbers; JSON's whole numbers have no bound, and a truth value is none."""
    return isinstance(value, list) and all(
        math.isfinite(x) if type(x) is float else type(x) is int and abs(x) < 1 << 53 for x in value
    )


def covers(segmentation: Any) -> bool:
    """Whether a segmentation may cover a pixel: not where it is nothing, or has polygons of one or two points only."""
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        return not (isinstance(counts, list) and len(counts) < 2)
    if not isinstance(segmentation, list):
        return False
    return any(not isinstance(p, list) or len(p) >= 6 for p in segmentation)


def masks_of(
    found: list[tuple[str, dict[str, Any]]], boxes: list[list[float]], size: tuple[int, int], ignored: list[bool]
) -> tuple[Bool[np.ndarray, "K H W"] | None, list[bool]]:
    """The masks of an image's objects, and whose outline covers no pixel: those have their box instead, to be ignored.

    So have those that are ignored anyway and have no segmentation. None where another object has none, or no outline of
    the image covers a pixel: then all boxes can be learned.

    Raises:
        ValueError: an outline is broken, or lies beside the image while its box does not.
    """
    if len(found) * size[0] * size[1] > _CELLS:
        raise ValueError(
            f"{found[0][0]}.segmentation: {len(found):,} outlines in an image of {size[0]} x {size[1]} (height x "
            f"width) have more than {_CELLS:,} pixels together: give the image in pieces"
        )
    masks = np.zeros((len(found), *size), dtype=bool)
    blank = [False] * len(found)
    whole, drawn = True, 0
    for i, ((where, annotation), (x0, y0, x1, y1)) in enumerate(zip(found, boxes, strict=True)):
        mask = outline(where, annotation, size)
        if mask is not None and mask.any():
            masks[i], drawn = mask, drawn + 1
            continue
        if annotation.get("segmentation"):
            _beside(where, annotation, (x0, y0, x1, y1))
            blank[i] = True
        elif not ignored[i]:
            whole = False
        low = [min(max(math.floor(p), 0), side - 1) for p, side in ((x0, size[1]), (y0, size[0]))]
        masks[i, low[1] : max(math.ceil(y1), low[1] + 1), low[0] : max(math.ceil(x1), low[0] + 1)] = True
    if not whole or (found and not drawn):
        return None, [False] * len(found)
    return masks, blank


def _beside(where: str, annotation: dict[str, Any], box: tuple[float, float, float, float]) -> None:
    """Refuse an outline of no pixel whose points lie more than a pixel beside the object's box."""
    polygons = annotation["segmentation"]
    points = np.array([p for one in polygons for p in one] if isinstance(polygons, list) else [], dtype=np.float64)
    if not len(points):
        return
    low, high = points.reshape(-1, 2).min(0), points.reshape(-1, 2).max(0)
    if (low > np.array(box[2:]) + 1).any() or (high < np.array(box[:2]) - 1).any():
        raise ValueError(
            f"{where}.bbox of id {annotation.get('id')}: {annotation['bbox']} and its outline have nothing in common: "
            "they are of different places"
        )


def outline(where: str, annotation: dict[str, Any], size: tuple[int, int]) -> Bool[np.ndarray, "H W"] | None:
    """An annotation's segmentation as a mask of (height, width) `size`; None where it has none.

    A list of polygons [x0, y0, x1, y1, ...], a run-length code with a list of counts, or one with a string. A polygon
    of fewer than three points covers nothing and is passed over, as Detectron does; where there are no others, the
    mask has no pixel.

    Raises:
        ValueError: it is something else, or of another size.
    """
    found, at = annotation.get("segmentation"), f"{where}.segmentation"
    if isinstance(found, dict):
        return _runs(at, found, size)
    if found is None or found == []:
        return None
    if not isinstance(found, list) or not all(numbers(p) and len(p) % 2 == 0 for p in found):
        raise ValueError(f"{at}: must be polygons [x, y, x, y, ...] or {{size, counts}}; got {shown(found)}")
    polygons = [p for p in found if len(p) >= 6]
    far = 2 * max(size)
    if any(abs(x) > far for p in polygons for x in p):  # pycocotools' drawing takes memory by a polygon's extent
        raise ValueError(f"{at}: a polygon reaches far beyond the image of {size[0]} x {size[1]}")
    if not polygons:
        return np.zeros(size, dtype=bool)
    edges = sum(abs(p[i] - p[i - 2]) for p in polygons for i in range(len(p)))
    if edges + sum(map(len, polygons)) > _EDGES:
        raise ValueError(f"{at}: the edges of its polygons are more than {_EDGES:,} pixels long together")
    codes = coco_mask.frPyObjects([[float(x) for x in p] for p in polygons], *size)
    while len(codes) > 1:
        codes = [coco_mask.merge(codes[i : i + _MERGED]) for i in range(0, len(codes), _MERGED)]
    mask: Bool[np.ndarray, "H W"] = coco_mask.decode(codes[0]).astype(bool)
    return mask


def _size(value: Any) -> str:
    """What an error shows of a field that should be a height and a width."""
    return str(value) if isinstance(value, list) and len(value) == 2 and numbers(value) else shown(value)


def _runs(where: str, code: dict[str, Any], size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """A run-length code, decoded here: compiled decoders trust the counts and write where these say."""
    if code.get("size") != list(size):
        raise ValueError(f"{where}.size: {_size(code.get('size'))}, but the image is {size[0]} x {size[1]}")
    counts = code.get("counts")
    runs = _text_runs(counts) if isinstance(counts, str) else counts
    right = isinstance(runs, list) and all(type(n) is int and n >= 0 for n in runs)
    if not isinstance(runs, list) or not right or sum(runs) != size[0] * size[1]:
        raise ValueError(f"{where}.counts: the runs must be at least 0 and add up to {size[0]} x {size[1]} pixels")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(size[1], size[0]).T)


def _text_runs(text: str) -> list[int] | None:
    """The counts of COCO's compressed form (`rleFrString` in maskApi.c); None where it is broken.

    Six bits a character, from "0" on: five of the number, the lowest first, and one that says that it goes on. From
    the fourth number on, the difference to the last but one is kept.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        if shift > _DIGITS:
            return None
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return None if shift else runs
