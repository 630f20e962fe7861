"""Where in a model's input its image lies: processors pad.

Shapes: C channels of the input, the fourth of which is 0 in the padding; h w its pixels, m n and M N cells of maps.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from polyteach.teachers._maps import resized

LARGEST_MAP = 640
"""Longest side of the maps and masks of models that hold as many floats for each of 100 queries or more."""


def fitted(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of masks for an image of `size`: its own, or `LARGEST_MAP` along the longer side."""
    scale = min(LARGEST_MAP / max(size), 1)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def rectangle(inside: Bool[Tensor, "h w"]) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of what is marked; None where that is no filled rectangle."""
    rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    return (top, left, height, width) if bool(inside[top : top + height, left : left + width].all()) else None


def placed(x: Float[Tensor, "C h w"]) -> tuple[int, int, int, int]:
    """Top, left, height, width of the image in what `inputs` returned for it."""
    place = rectangle(x[3] > 0) if len(x) > 3 else None
    return place or (0, 0, int(x.shape[-2]), int(x.shape[-1]))


def unpadded(field: Float[Tensor, "K m n"], x: Float[Tensor, "C h w"]) -> Float[Tensor, "K M N"]:
    """The part of a map over the input `x` that shows the image, at the input's resolution; the map where all does."""
    top, left, height, width = placed(x)
    if (height, width) == (x.shape[-2], x.shape[-1]):
        return field
    return resized(field, (x.shape[-2], x.shape[-1]))[:, top : top + height, left : left + width]


def frame_of(size: tuple[int, int], x: Float[Tensor, "C h w"]) -> tuple[float, float, float, float]:
    """All that the model sees, in pixels of an image of (height, width) `size`: its height and width, and where in it
    (x, y) the image's corner lies.
    """
    top, left, height, width = placed(x)
    down, right = size[0] / height, size[1] / width
    return x.shape[-2] * down, x.shape[-1] * right, left * right, top * down
