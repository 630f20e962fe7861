"""Images and maps on their way into a network and out of it.

Shapes: H W pixels of an image, M N cells of a map, C channels or classes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image
from torch import Tensor

THINNEST = 20
"""Longest side over shortest, beyond which a model that resizes the shorter side would need too much memory."""


def size_of(image: UInt8[Tensor, "3 _ _"]) -> tuple[int, int]:
    """(height, width) in pixels."""
    return int(image.shape[1]), int(image.shape[2])


def as_pillow(image: UInt8[Tensor, "3 _ _"]) -> Image.Image:
    """The image as one of Pillow, which models' own preprocessing was made for."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def refuse_thin(image: UInt8[Tensor, "3 _ _"]) -> None:
    """For models that resize the shorter side and would blow up a thin strip.

    Raises:
        ValueError: the longer side is more than `THINNEST` times the shorter.
    """
    h, w = size_of(image)
    if max(h, w) > THINNEST * min(h, w):
        raise ValueError(f"image of {h}x{w} (height x width) is too thin: this model takes up to 1:{THINNEST}")


def map_size(size: tuple[int, int], cells: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a map for an image of `size`, with the image's aspect, that keeps what `cells` can show.

    It has at least the rows and columns of `cells`, which may be of another aspect, but no more than the image.
    """
    scale = min(max(cells[0] / size[0], cells[1] / size[1]), 1)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def resized(field: Float[Tensor, "*C M N"], size: tuple[int, int]) -> Float[Tensor, "*C h w"]:
    """A map of scores or distances at another resolution, bilinear, in float32."""
    planes = field.reshape(1, -1, *field.shape[-2:]).float()
    if tuple(planes.shape[-2:]) != size:
        planes = F.interpolate(planes, size, mode="bilinear", align_corners=False)
    return planes.reshape(*field.shape[:-2], *size)


def most_probable(
    logits: Float[Tensor, "C M N"], cells: tuple[int, int]
) -> tuple[Float[Tensor, "h w"], Int64[Tensor, "h w"]]:
    """Probability (0..1) and index of the most probable class of each of `cells`; bilinear in the logits."""
    # a cell's classes side by side: several times as fast, and these maps are larger than the network's own work. A new
    # tensor, as one image of a batch may say that it lies so already, and have a stride for which torch copies its
    # enlarged map twice
    shape, device = (1, *logits.shape), logits.device
    planes = torch.empty(shape, dtype=torch.float32, device=device, memory_format=torch.channels_last).copy_(logits)
    if tuple(logits.shape[-2:]) != cells:
        planes = F.interpolate(planes, cells, mode="bilinear", align_corners=False)
    found = []
    for rows in planes[0].permute(1, 2, 0).split(16):  # as many as stay in a processor's cache
        best = rows.max(-1)
        found.append((1 / (rows - best.values[..., None]).exp_().sum(-1), best.indices))
    probability, category = (torch.cat(parts) for parts in zip(*found, strict=True))
    return probability, category


def unit_normals(
    field: Float[Tensor, "3 M N"], axes: tuple[list[int], list[int]]
) -> tuple[Float[Tensor, "3 M N"], Bool[Tensor, "M N"]]:
    """A map of normals in our axes (right, down, away), of length 1, and where they are known.

    axes: for each of ours which of the map's own it is, and its sign (`_axes.axes_of`). Unknown is where the length is
    not finite, or below a thousandth.
    """
    order, sign = axes
    vector = field.float()[order] * torch.tensor(sign, device=field.device).view(3, 1, 1)
    length = vector.square().sum(0).sqrt()
    valid = length.isfinite() & (length > 1e-3)
    return (vector / length.clamp(min=1e-3)).nan_to_num(0, 0, 0) * valid, valid
