"""Layouts: detectors that answer boxes, scores and classes in one output, each as its authors decode it.

Shapes: K classes, N boxes of an image, E numbers a box beside them (coefficients of its mask, keypoints), h w pixels of
the graph's input, M N cells of prototypes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import box_convert


@dataclass(frozen=True)
class Found:
    """Boxes of one image. box: x0, y0, x1, y1 in pixels of the input. score: 0..1. more: what else stands in a row."""

    box: Float[Tensor, "N 4"]
    score: Float[Tensor, " N"]
    category: Int64[Tensor, " N"]
    more: Float[Tensor, "N E"]


@dataclass(frozen=True)
class Layout:
    """How one output is read.

    rank: of the output, with its batch. shape: what it has to be for an image, of K and E, in words. fits: whether an
    image's output of that shape can be it. read: the output, K, E and the input's (h, w) -> what it says. overlap:
    intersection over union above which the worse box of a class is dropped, as its authors do; 1 where the graph does.
    """

    rank: int
    shape: Callable[[int, int], str]
    fits: Callable[[tuple[int, ...], int, int], bool]
    read: Callable[[Tensor, int, int, tuple[int, int]], Found]
    overlap: float


def _rows(value: Float[Tensor, "A B"], width: int) -> Float[Tensor, "N W"]:
    """One row a box; value: boxes as columns, as they are exported, or as rows."""
    return value.T if value.shape[0] == width else value


def _yolov8(value: Tensor, k: int, extra: int, size: tuple[int, int]) -> Found:
    """Ultralytics' since v8: centre, width and height in pixels, then a probability for each class (not exclusive)."""
    rows = _rows(value, 4 + k + extra)
    best = rows[:, 4 : 4 + k].max(1)
    return Found(box_convert(rows[:, :4], "cxcywh", "xyxy"), best.values, best.indices, rows[:, 4 + k :])


def _yolov5(value: Tensor, k: int, extra: int, size: tuple[int, int]) -> Found:
    """YOLOv5's and v7's: as v8's, but rows, and before the classes how probable any object is: both are multiplied."""
    best = (value[:, 5 : 5 + k] * value[:, 4:5]).max(1)
    return Found(box_convert(value[:, :4], "cxcywh", "xyxy"), best.values, best.indices, value[:, 5 + k :])


def _end_to_end(value: Tensor, k: int, extra: int, size: tuple[int, int]) -> Found:
    """YOLOv10, YOLO26 and exports with suppression: corners in pixels, score, class."""
    return Found(value[:, :4], value[:, 4], _whole(value[:, 5]), value[:, 6:])


def _fractions(value: Tensor, k: int, extra: int, size: tuple[int, int]) -> Found:
    """Ultralytics' RT-DETR: centre, width and height as fractions of the input, then a probability for each class."""
    best = value[:, 4 : 4 + k].max(1)
    box = box_convert(value[:, :4], "cxcywh", "xyxy") * torch.tensor([size[1], size[0]]).repeat(2)
    return Found(box, best.values, best.indices, value[:, 4 + k :])


def _fastestdet(value: Tensor, k: int, extra: int, size: tuple[int, int]) -> Found:
    """FastestDet (github.com/dog-qiuqiu/FastestDet): a grid of objectness, offsets, logarithm-free sizes, classes."""
    cells = value.flatten(1).T
    down, across = torch.meshgrid(*(torch.arange(n) for n in value.shape[1:]), indexing="ij")
    corner = torch.stack([across, down], -1).reshape(-1, 2)
    grid = torch.tensor([value.shape[2], value.shape[1]])
    centre, sides = (corner + cells[:, 1:3].tanh()) / grid, cells[:, 3:5].sigmoid()
    best = cells[:, 5:].max(1)
    box = box_convert(torch.cat([centre, sides], 1), "cxcywh", "xyxy") * torch.tensor([size[1], size[0]]).repeat(2)
    return Found(box, cells[:, 0] ** 0.6 * best.values**0.4, best.indices, cells[:, :0])


def _whole(number: Float[Tensor, " N"]) -> Int64[Tensor, " N"]:
    """Class numbers; what is no whole number becomes -1, which no class has."""
    return torch.where(number == number.round(), number, -1).long()


def _wide(first: int) -> Callable[[tuple[int, ...], int, int], bool]:
    return lambda shape, k, extra: shape[1] == first + k + extra


LAYOUTS = {
    "yolov8": Layout(
        3,
        lambda k, e: f"({4 + k + e}, N)",
        lambda shape, k, e: 4 + k + e in shape,
        _yolov8,
        0.7,
    ),
    "yolov5": Layout(3, lambda k, e: f"(N, {5 + k + e})", _wide(5), _yolov5, 0.45),
    "end to end": Layout(3, lambda k, e: f"(N, {6 + e})", lambda shape, k, e: shape[1] == 6 + e, _end_to_end, 1),
    "rt-detr rows": Layout(3, lambda k, e: f"(N, {4 + k + e})", _wide(4), _fractions, 1),
    "fastestdet": Layout(
        4,
        lambda k, e: f"({5 + k}, rows, columns)",
        lambda shape, k, e: shape[0] == 5 + k,
        _fastestdet,
        0.45,
    ),
}
"""By the name that a description gives as `layout`."""
PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "rt-detr": {"boxes": ("boxes",), "scores": ("scores",), "classes": ("labels",)},
    "detr": {"boxes": ("pred_boxes",), "scores": ("logits", "pred_logits")},
}
"""Layouts of several outputs: what is read -> the names that exporters give it."""
