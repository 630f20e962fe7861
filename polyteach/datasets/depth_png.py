"""Images beside PNG files of depth, of 8 or 16 bits: what depth cameras and most tools write.

    ROOT/images/train/a.jpg         ROOT/depth/train/a.png      or depths/, depth_png/, disparity/, ...
    ROOT/train/rgb/a.png            ROOT/train/depth/a.png
    ROOT/a.jpg                      ROOT/a_depth.png

An image and its depth have one name, save for such an ending, below folders that differ only in what they call the
two. `images=NAME&depth=NAME` are the names of the folders where they are called otherwise. A split is a folder that is
called so. Options, as 'depth-png:ROOT?scale=0.001&far=10', joined by &:

- kind=metric (default): metres are value * scale + offset, and scale= has to be given, since no file says it. 0.001:
  millimetres (most cameras, ScanNet, SUN RGB-D without its bits turned). 0.0002: TUM's 5,000 a metre. 0.00390625:
  KITTI's 256 a metre.
- kind=relative: values are inverse depth up to scale and shift, larger is nearer, as MiDaS and disparity are. scale and
  offset are then 1 and 0, unless given; the scale may not be below 0.
- offset=0 (default). unknown=0 (default): the values with commas between them that say that nothing was measured, or
  none. near= and far=: metres beyond which, and before which, depth is not known.

Odd cases:

- Depth of 0 metres or less, after scale and offset, is not known. So is more than 65,504 metres, which is more than a
  store holds.
- A map whose depth is known nowhere is an error, as is one whose metres all lie beyond 1,000: its scale is another.
- A colour PNG whose channels are equal is read as grey; one of colours, or of a palette, is an error: it is a drawing
  of depth. So is a JPEG.
- An image without depth is unlabelled; these, and depth without an image, are counted.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from polyteach.datasets import Dataset, Entry, options, printable
from polyteach.datasets._files import class_map
from polyteach.datasets._pairs import Kind, entries, paired
from polyteach.tasks.contract import Space
from polyteach.tasks.depth import LARGEST, METRIC, RELATIVE, DepthTarget

_DEPTH = Kind(
    what="depth map",
    whats="depth maps",
    folders=frozenset(
        (
            *("depth", "depths", "depthmap", "depthmaps", "depthpng", "depthpngs", "depth8", "depth16", "depthmm"),
            *(
                "depthimages",
                "depthraw",
                "rawdepth",
                "sensordepth",
                "disparity",
                "disparities",
                "disp",
                "groundtruthdepth",
            ),
        )
    ),
    end=re.compile(r"[-_](depth|depths|depthmap|disp|disparity|d)$", re.IGNORECASE),
    option="depth",
    images=frozenset(("color", "colour", "colors", "left", "image02")),
)
_FARTHEST = 1_000.0
"""Metres: a map that lies beyond it everywhere is of another unit."""
_OPTIONS = {
    "scale": "", "offset": "0", "unknown": "0", "kind": "metric", "near": "0", "far": "", "images": "", "depth": "",
}  # fmt: skip


@dataclass(frozen=True)
class _Reader:
    """How values become depth. unknown: values that say nothing."""

    metric: bool
    scale: float
    offset: float
    unknown: tuple[int, ...]
    near: float
    far: float

    def read(self, path: str, size: tuple[int, int]) -> DepthTarget:
        """The map at `path` of an image of (height, width) `size`.

        Raises:
            ValueError: missing, broken, no grey PNG, of another size, or of no value that is known.
        """
        pixels = class_map(path, size, ("L", "I;16", "I", "RGB"), "a grey PNG of 8 or 16 bits")
        if pixels.ndim == 3:
            if (pixels != pixels[..., :1]).any():
                raise ValueError(f"{path}: is a drawing of depth in colours, not a grey PNG of 8 or 16 bits")
            pixels = pixels[..., 0]
        valid = ~np.isin(pixels, self.unknown)
        value = pixels.astype(np.float64) * self.scale + self.offset
        if self.metric:
            if valid.any() and value[valid].min() > _FARTHEST:
                raise ValueError(
                    f"{path}: all depth is beyond {_FARTHEST:,.0f} metres, from {value[valid].min():,.6g} on: give "
                    "another ?scale=, such as 0.001 for millimetres"
                )
            valid &= (value > 0) & (value >= self.near) & (value <= self.far)
        valid &= np.abs(value) <= LARGEST
        if not valid.any():
            raise ValueError(
                f"{path}: depth is known nowhere: its values are {int(pixels.min())}..{int(pixels.max())}, by "
                f"scale={self.scale:g}, offset={self.offset:g} from {value.min():.6g} to {value.max():.6g}"
            )
        known = torch.from_numpy(np.where(valid, value, 0).astype(np.float32))
        return DepthTarget(value=known, valid=torch.from_numpy(valid))


class DepthPng(Dataset):
    """Sorted by the images' paths."""

    def __init__(self, root: str, reader: _Reader, images: str, depth: str) -> None:
        pairs = paired(root, _DEPTH, images, depth)
        self._root, self._rows, self._reader = root, pairs.rows, reader
        super().__init__([printable(row.image) for row in pairs.rows])
        self.spaces = {"depth": Space((), METRIC if reader.metric else RELATIVE)}
        self.left_out = pairs.left_out
        self.notes += pairs.notes
        said = f"value * {reader.scale:g} + {reader.offset:g}"
        unknown = ", ".join(map(str, reader.unknown)) or "no value"
        what = f"metres are {said}" if reader.metric else f"relative inverse depth is {said}: larger is nearer"
        self.notes.append(f"{what}; {unknown} is unknown")

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        return entries(self._rows[start:stop], self._root, "depth", self._reader.read)


def _number(path: str, option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{option}={text} in depth-png:{path}: must be a number")
    return value


def _reader(path: str, values: dict[str, str]) -> _Reader:
    if values["kind"] not in ("metric", "relative"):
        raise ValueError(f"kind={values['kind']} in depth-png:{path}: is one of metric, relative")
    metric = values["kind"] == "metric"
    if metric and not values["scale"]:
        raise ValueError(
            f"depth-png:{path}: how far is a value? give ?scale=0.001 for millimetres (metres = value * scale + "
            "offset), or ?kind=relative where larger is nearer and the scale is unknown"
        )
    scale, offset, near = (_number(path, k, values[k] or "1") for k in ("scale", "offset", "near"))
    far = _number(path, "far", values["far"]) if values["far"] else math.inf
    if scale == 0 or (not metric and scale < 0):
        raise ValueError(f"scale={values['scale']} in depth-png:{path}: must be above 0")
    if not metric and (near or values["far"]):
        raise ValueError(f"depth-png:{path}: near= and far= are metres, which relative depth has not")
    if not 0 <= near < far:
        raise ValueError(f"near={near:g}&far={far:g} in depth-png:{path}: must be 0 <= near < far")
    words = [] if values["unknown"] == "none" else values["unknown"].split(",")
    if not all(w.strip().isascii() and w.strip().isdigit() and len(w) < 10 for w in words):
        raise ValueError(f"unknown={values['unknown']} in depth-png:{path}: must be pixel values with commas, or none")
    return _Reader(metric, scale, offset, tuple(map(int, words)), near, far)


def load(path: str) -> Dataset:
    """The tree at `path`, with the options above.

    Raises:
        ValueError: no such tree, no image with depth, no scale, or an option that is wrong; says which.
    """
    root, values = options(path, _OPTIONS)
    if not os.path.isdir(root):
        raise ValueError(
            f"depth-png:{root} is no folder; expected ROOT/images/ and ROOT/depth/ with files of equal names"
        )
    return DepthPng(root, _reader(root, values), values["images"], values["depth"])
