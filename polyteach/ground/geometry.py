"""One view of an image, applied alike to its pixels and to every target.

Shapes: C channels, H W pixels of the source image, h w pixels of the view, M N pixels of a map of the whole
source at any resolution, K boxes.
"""

import math
import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

PADDED = 2**24
"""Pixels of a crop that may be padded with black, if more than half of them: 50 MB; larger ones are put together."""


@dataclass(frozen=True)
class View:
    """A crop of the source in pixels, resized to `size`, then mirrored if `mirrored`.

    The crop may reach beyond the source: there the view is filled. All sizes are (height, width).

    zoom: how many times as large things look as where the whole source is fitted into the view, which is how a student
    is asked (`letterbox`): what says how far things are depends on it.
    """

    source: tuple[int, int]
    top: float
    left: float
    height: float
    width: float
    size: tuple[int, int]
    mirrored: bool = False
    zoom: float = 1.0

    def image(self, image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 h w"]:
        """The image seen through the view: antialiased bilinear, black beyond the source.

        Takes memory for what is seen of the source and for the view, not for all that lies beyond: see `_resized`.
        """
        top, left = round(self.top), round(self.left)
        height, width = max(round(self.height), 1), max(round(self.width), 1)
        h, w = image.shape[-2:]
        visible = max(min(top + height, h) - max(top, 0), 0) * max(min(left + width, w) - max(left, 0), 0)
        if not visible:  # torchvision's crop would count from the other end
            return image.new_zeros(3, *self.size)
        if height * width <= max(PADDED, 2 * visible):
            out = _crop(image, (top, left), (height, width), self.size)
        else:
            out = _resized(image, (top, left), (height, width), self.size)
        return out.flip(-1) if self.mirrored else out

    def dense(self, field: Shaped[Tensor, "*C M N"], fill: float = 0) -> Shaped[Tensor, "*C h w"]:
        """A map seen through the view, by nearest neighbour: values are moved, never blended or changed.

        The map covers the whole source but may be of any resolution. Pixels beyond the source get `fill`.
        Works for every dtype, bool included.
        """
        cells, inside, everywhere = _nearest(self, (field.shape[-2], field.shape[-1]))
        # one flat index for all axes: torch gathers several times faster by it than by rows and columns
        out = field.flatten(-2).index_select(-1, cells.to(field.device))
        out = out.reshape(*field.shape[:-2], *self.size)
        if everywhere:
            return out
        return torch.where(inside.to(field.device), out, torch.as_tensor(fill, dtype=field.dtype, device=field.device))

    def outlines(self, masks: Bool[Tensor, "K M N"]) -> Bool[Tensor, "K h w"]:
        """What `dense` makes of masks with False as fill, in less time where each covers a part of the map alone."""
        m, n = masks.shape[-2:]
        cells, inside, everywhere = _nearest(self, (m, n))
        index = cells.view(self.size)
        row, column = index[:, 0] // n, index[0] % n
        out = masks.new_zeros(len(masks), *self.size)
        filled = masks.any(2).cpu().numpy(), masks.any(1).cpu().numpy()  # once each: rows, and columns, with any cell
        for k, (down, across) in enumerate(zip(*filled, strict=True)):
            if not down.any():
                continue
            # of a mirrored view columns go down; what a stretch of cells becomes is one stretch of pixels either way
            a, b = _stretch(row, np.flatnonzero(down))
            c, d = _stretch(column, np.flatnonzero(across))
            out[k, a:b, c:d] = masks[k][row[a:b]][:, column[c:d]]
        return out if everywhere else out & inside.to(out.device)

    def boxes(self, xyxy: Float[Tensor, "K 4"]) -> Float[Tensor, "K 4"]:
        """Boxes (x0, y0, x1, y1) from pixels of the source to pixels of the view, clipped to it.

        A box that leaves the view keeps its row with no area; `area(...) > 0` tells which remain.
        """
        h, w = self.size
        ky, kx = h / self.height, w / self.width
        out = (xyxy - xyxy.new_tensor([self.left, self.top, self.left, self.top])) * xyxy.new_tensor([kx, ky, kx, ky])
        if self.mirrored:
            x0, y0, x1, y1 = out.unbind(1)
            out = torch.stack([w - x1, y0, w - x0, y1], 1)
        return out.clamp(min=0).minimum(out.new_tensor([w, h, w, h]))

    def inverse(self) -> "View":
        """The view that undoes this one: what was seen in the view, put back on the source's pixels."""
        (sh, sw), (vh, vw) = self.source, self.size
        ky, kx = vh / self.height, vw / self.width
        left = -self.left * kx
        if self.mirrored:
            left = vw - (left + sw * kx)
        return View(self.size, -self.top * ky, left, sh * ky, sw * kx, self.source, self.mirrored, 1 / self.zoom)


def _crop(
    image: UInt8[Tensor, "3 H W"], at: tuple[int, int], crop: tuple[int, int], size: tuple[int, int]
) -> UInt8[Tensor, "3 h w"]:
    """torchvision's `resized_crop`; at: top and left of the crop, crop, size: its height and width before and after."""
    # torchvision takes seconds to be imported, and who counts or copies labels looks at no image
    from torchvision.transforms.v2.functional import resized_crop

    seen: Tensor = resized_crop(image, *at, *crop, list(size), antialias=True)
    return seen


def _resized(
    image: UInt8[Tensor, "3 H W"], at: tuple[int, int], crop: tuple[int, int], size: tuple[int, int]
) -> UInt8[Tensor, "3 h w"]:
    """torchvision's `resized_crop` to within one level, where the crop is much larger than what it has of the source.

    Padding to the whole crop, as torchvision does, would take 3 GiB for half of an image of 100 x 10,000 pixels.
    Resizing works along one axis after the other. Along the one of which more is seen, by torchvision, some rows at a
    time; along the other by the same weights of the same pixels, without those that are black.

    at: top and left of the crop in the source. crop, size: its height and width, before and after.
    """
    seen = [(max(a, 0), min(a + n, s)) for a, n, s in zip(at, crop, image.shape[-2:], strict=True)]
    down, across = ((b - a) / n for (a, b), n in zip(seen, crop, strict=True))
    if down > across:
        turned = _resized(image.mT, (at[1], at[0]), (crop[1], crop[0]), (size[1], size[0]))
        return turned.mT
    first, last = seen[0]
    step = max(PADDED // crop[1], 1)
    blocks = [(r, min(step, last - r)) for r in range(first, last, step)]
    along = [_crop(image, (r, at[1]), (rows, crop[1]), (rows, size[1])) for r, rows in blocks]
    weights = _triangles(crop[0], size[0], first - at[0], last - at[0])
    out = torch.einsum("hr,crw->chw", weights, torch.cat(along, 1).float())
    return out.round().clamp(0, 255).to(torch.uint8)


def _triangles(length: int, out: int, first: int, last: int) -> Float[Tensor, "h r"]:
    """What pixels `first` up to `last` of an axis count in each of the `out` pixels that its `length` becomes.

    Antialiased bilinear: a triangle as wide as two pixels of the coarser of both, as torch's interpolation has it.
    """
    scale = length / out
    support = max(scale, 1.0)
    centre = (torch.arange(out, dtype=torch.float64) + 0.5)[:, None] * scale
    touched = ((centre + support > first) & (centre - support < last))[:, 0]
    centre = centre[touched]

    def weights(at: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return (1 - ((at + 0.5 - centre) / support).abs()).clamp(min=0)

    near = (centre - support).floor() + torch.arange(2 * math.ceil(support) + 2)
    total = weights(near).where((near >= 0) & (near < length), 0).sum(1, keepdim=True)
    found = torch.zeros(out, last - first)
    found[touched] = (weights(torch.arange(first, last, dtype=torch.float64)) / total).float()
    return found


def _stretch(index: Int64[Tensor, " P"], filled: Int64[np.ndarray, " F"]) -> tuple[int, int]:
    """The first pixel, and the one behind the last, that show cells from the first to the last of those filled."""
    shown = ((index >= int(filled[0])) & (index <= int(filled[-1]))).nonzero()
    return (int(shown[0]), int(shown[-1]) + 1) if len(shown) else (0, 0)


@lru_cache(maxsize=4)
def _nearest(view: View, cells: tuple[int, int]) -> tuple[Tensor, Tensor, bool]:
    """Index into the flat (M, N) `cells` for each pixel of the view, whether it lies in the source, and whether all do.

    Kept for the other maps of the same image. Not to be written to.
    """

    def along(start: float, length: float, out: int, source: int, count: int) -> tuple[Tensor, Tensor]:
        """Index into `count` cells for each of `out` pixel centres, and whether the centre lies in the source."""
        at = start + (torch.arange(out, dtype=torch.float64) + 0.5) * (length / out)
        index = (at * (count / source)).floor().long()
        return index.clamp(0, count - 1), (at >= 0) & (at < source)

    with torch.inference_mode(False):  # else what is kept could not be used in training
        rows, in_rows = along(view.top, view.height, view.size[0], view.source[0], cells[0])
        cols, in_cols = along(view.left, view.width, view.size[1], view.source[1], cells[1])
        if view.mirrored:
            cols, in_cols = cols.flip(0), in_cols.flip(0)
        inside = in_rows[:, None] & in_cols
        return (rows[:, None] * cells[1] + cols).flatten(), inside, bool(inside.all())


def area(xyxy: Float[Tensor, "K 4"]) -> Float[Tensor, " K"]:
    """Area of boxes in square pixels."""
    return (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])


def letterbox(source: tuple[int, int], size: tuple[int, int]) -> View:
    """The whole source, as large as fits into `size` with its aspect kept, at the top left; the rest is fill."""
    scale = max(source[0] / size[0], source[1] / size[1])
    return View(source, 0, 0, size[0] * scale, size[1] * scale, size)


def whole(source: tuple[int, int], size: tuple[int, int] | None = None) -> View:
    """The whole source stretched to `size` (its own size when None)."""
    return View(source, 0, 0, source[0], source[1], size or source)


def random_view(
    source: tuple[int, int],
    size: tuple[int, int],
    draw: random.Random,
    scale: tuple[float, float] = (0.5, 2.0),
    mirror: float = 0.5,
) -> View:
    """Flip and scale jitter: the source is fitted into `size`, scaled by a factor from `scale`, then cropped or padded.

    Large-scale jittering of Ghiasi et al., "Simple Copy-Paste" (CVPR 2021). The aspect is kept. The factor is
    log-uniform, so that halving and doubling are equally likely.
    """
    low, high = scale
    factor = low * (high / low) ** draw.random()
    pixel = max(source[0] / size[0], source[1] / size[1]) / factor  # source pixels per pixel of the view
    height, width = round(size[0] * pixel), round(size[1] * pixel)
    top = round(draw.uniform(min(source[0] - height, 0), max(source[0] - height, 0)))
    left = round(draw.uniform(min(source[1] - width, 0), max(source[1] - width, 0)))
    return View(source, top, left, max(height, 1), max(width, 1), size, draw.random() < mirror, factor)
