"""DIODE (Vasiljevic et al., arXiv 1908.00463): depth and surface normals, indoors and outdoors, by one laser scanner.

    ROOT/train/indoors/scene_00000/scan_00000/00000_00000_indoors_000_000.png
                                              00000_00000_indoors_000_000_depth.npy       (H, W, 1) float32, metres
                                              00000_00000_indoors_000_000_depth_mask.npy  (H, W), 1 = valid
                                              00000_00000_indoors_000_000_normal.npy      (H, W, 3) float32
    ROOT/train/outdoor/  ROOT/val/indoors/  ROOT/val/outdoor/

From https://github.com/diode-dataset/diode-devkit (README.md, diode.py): train.tar.gz, val.tar.gz, and their normals in
train_normals.tar.gz and val_normals.tar.gz, unpacked into one tree. Splits are "train/indoors", "train/outdoor",
"val/indoors" and "val/outdoor". Images are 768 x 1024; other sizes are taken. Odd cases:

- Depth is known where the mask is above 0 (as the devkit reads it), and depth is finite and above 0.
- A normal of (0, 0, 0) is invalid (README.md). So is one that is not finite.
- Where one image of train (or of val) has a normal map, all of train (of val) must: they come in one archive. Where
  none in ROOT has depth, only normals are read. Images of test may be without labels.

The normals' axes are not stated in the devkit. They are taken for x right, y up, z towards the camera, so y and z are
negated here. Two public codes agree: Metric3D (github.com/YvanYin/Metric3D, training/mono/datasets/diode_dataset.py)
negates y and z of these files for a camera with y down and z away, and Marigold (github.com/prs-eth/Marigold,
DIODENormalsDataset) compares them, without changing a sign, with predictions of x right, y up, z towards. DIODE's own
images were not at hand to check. Look at some before you mix them with other normals: drawn by `Normals.draw`, floors
are green and walls that face you blue. What is learned and measured on DIODE alone is the same with either sign of y
and z. `diode:ROOT?axes=down` takes the files for x right, y down, z away, and changes no sign.

A map of which nearly every normal would clearly face away from the camera is an error: its axes are others. "Away" is
seen along each pixel's own ray (intrinsics.txt of the devkit), not by the sign of z: images are taken at 0 to 50
degrees of pitch, and the ground before a raised camera has z > 0 where it is seen. A few such normals are left as they
are; Metric3D turns them round.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from polyteach.datasets import Dataset, Entry, Labels, Protocol, found_below, options, printable
from polyteach.datasets._arrays import read_array
from polyteach.tasks.contract import Space
from polyteach.tasks.depth import METRIC, DepthTarget
from polyteach.tasks.normals import NormalsTarget

_SPLITS = tuple((a, b) for a in ("train", "val", "test") for b in ("indoors", "outdoor"))
_DEPTH, _MASK, _NORMAL = "_depth.npy", "_depth_mask.npy", "_normal.npy"
_ENDINGS = (".png", _MASK, _DEPTH, _NORMAL)
_AXES = {"up": (1.0, -1.0, -1.0), "down": (1.0, 1.0, 1.0)}
"""Signs of x, y and z that make DIODE's axes ours."""
_AWAY = 0.9
"""Share of normals facing away that noise does not explain."""
_CLEARLY = 0.2
"""Cosine between ray and normal from which a surface clearly faces away; distant ground is seen at some 0 to -0.2."""
_FEWEST = 0.01
"""Share of the image that must be known before its normals can tell their axes."""
_SLOPES = 512 / 886.81, 384 / 927.06
"""Of the rays at the right and lower edge: half of width and height by focal length, as in intrinsics.txt."""
_LAYOUT = "expected ROOT/train/outdoor/scene_00000/scan_00000/NAME.png with NAME_depth.npy and NAME_depth_mask.npy"

# METHOD.md: the 17k outdoor images, share of pixels within 11.25 degrees. The paper's schedule was not recovered: the
# grid is that of the other pixel tasks, and the steps are 5 and 20 passes over the images.
PROTOCOLS = {
    "diode-normals": Protocol(
        task="normals",
        train=("train/outdoor",),
        validation=0.1,
        test=("val/outdoor",),
        metric="within 11.25",
        size=512,
        lrs=(0.003, 0.01, 0.03, 0.1),
        steps=(5_000, 20_000),
        batch_size=16,
        few={"fraction": 0.1},
    )
}


@dataclass(frozen=True)
class _Row:
    """start: of the files' paths. has: which of `_ENDINGS` there are."""

    start: str
    split: str
    has: frozenset[str]


class Diode(Dataset):
    """By split, then by path."""

    def __init__(self, root: str, rows: list[_Row], other: int, axes: str) -> None:
        super().__init__([printable(os.path.relpath(row.start, root).replace(os.sep, "/")) + ".png" for row in rows])
        self._rows = rows
        self._signs = np.array(_AXES[axes], np.float32)
        normals = {_part(row) for row in rows if _NORMAL in row.has}
        depth = {_part(row) for row in rows if row.has & {_DEPTH, _MASK}}
        if depth or not normals:
            depth |= {"train", "val"}
            self.spaces["depth"] = Space((), METRIC)
        if normals:
            self.spaces["normals"] = Space()
        self._needed = {
            part: (*((_DEPTH, _MASK) if part in depth else ()), *((_NORMAL,) if part in normals else ()))
            for part in ("train", "val", "test")
        }
        if other:
            self.left_out["files of no image"] += other

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for row in self._rows[start:stop]:
            needed = self._needed[_part(row)]
            absent = [ending for ending in (".png", *needed) if ending not in row.has]
            if absent:
                yield Entry(problem=f"{row.start}{absent[0]}: missing", split=row.split)
            else:
                targets = partial(self._targets, row.start, needed) if needed else None
                yield Entry(uri=f"{row.start}.png", split=row.split, targets=targets)

    def _targets(self, start: str, needed: tuple[str, ...], size: tuple[int, int]) -> Labels:
        found: Labels = {}
        if _DEPTH in needed:
            found["depth"] = _depth(start, size)
        if _NORMAL in needed:
            found["normals"] = _facing(start + _NORMAL, size, self._signs)
        return found


def _part(row: _Row) -> str:
    return row.split.partition("/")[0]


def _depth(start: str, size: tuple[int, int]) -> DepthTarget:
    value, mask = (_array(start + ending, size, 1).squeeze(-1) for ending in (_DEPTH, _MASK))
    with np.errstate(invalid="ignore", over="ignore"):  # NaN is not above 0; what float32 cannot hold is infinite
        value = value.astype(np.float32)
        valid = (mask > 0) & (value > 0) & np.isfinite(value)
    return DepthTarget(value=torch.from_numpy(np.where(valid, value, 0)), valid=torch.from_numpy(valid))


def _facing(path: str, size: tuple[int, int], signs: np.ndarray) -> NormalsTarget:
    given = _array(path, size, 3)
    with np.errstate(invalid="ignore", over="ignore"):  # of finite numbers that are too large the length is infinite
        vector = given.astype(np.float32) * signs
        length = np.linalg.norm(vector, axis=-1)
        valid = np.isfinite(given).all(-1) & (length > 0)
    wrong = valid & (np.abs(length - 1) > 0.1)
    if wrong.any():
        got = math.hypot(*given[wrong][0].astype(float))  # which does not square what is large
        raise ValueError(f"{path}: normals must have length 1, or 0 where invalid; got {got:g}")
    unit = np.where(valid[..., None], vector / np.where(valid, length, 1)[..., None], 0)
    away = valid & ((unit * _rays(*size)).sum(-1) > _CLEARLY)
    if away.sum() > _AWAY * max(valid.sum(), _FEWEST * valid.size):
        raise ValueError(f"{path}: nearly every normal faces away from the camera: its axes are others; see ?axes=")
    return NormalsTarget(
        normal=torch.from_numpy(np.ascontiguousarray(unit.transpose(2, 0, 1), np.float32)),
        valid=torch.from_numpy(valid),
    )


def _rays(height: int, width: int) -> np.ndarray:
    """Unit directions (height, width, 3) in which the pixels look: x right, y down, z away."""
    x, y = (s * ((2 * np.arange(n) + 1) / n - 1) for s, n in zip(_SLOPES, (width, height), strict=True))
    rays = np.stack([*np.meshgrid(x, y), np.ones((height, width))], -1)
    return (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).astype(np.float32)


def _array(path: str, size: tuple[int, int], channels: int) -> np.ndarray:
    """Numbers (H, W, channels) of a file; one of one channel may be (H, W)."""

    def check(shape: tuple[int, ...], dtype: np.dtype) -> None:
        if dtype.kind not in "biuf":
            raise ValueError(f"{path}: must be one array of numbers; it is of {dtype}")
        if not (shape[2:] == (channels,) or (channels == 1 and not shape[2:])) or len(shape) < 2:
            raise ValueError(f"{path}: must be (height, width, {channels}); has shape {shape}")
        if shape[:2] != size:
            raise ValueError(
                f"{path}: is {shape[0]} x {shape[1]} (height x width), but the image is {size[0]} x {size[1]}"
            )

    return read_array(path, check).reshape(*size, channels)


def _rows(root: str) -> tuple[list[_Row], int]:
    """The images of all splits, and how many files belong to none."""
    rows: list[_Row] = []
    other = 0
    for part, place in _SPLITS:
        found: dict[str, set[str]] = {}
        for folder, _, files in os.walk(os.path.join(root, part, place)):
            for file in files:
                ending = next((e for e in _ENDINGS if file.endswith(e)), None)
                if ending is None or file.startswith("."):
                    other += 1
                else:
                    found.setdefault(os.path.join(folder, file.removesuffix(ending)), set()).add(ending)
        rows += [_Row(start, f"{part}/{place}", frozenset(found[start])) for start in sorted(found)]
    return rows, other


def load(path: str) -> Dataset:
    """The tree at `path`, which may end in ?axes=down.

    Raises:
        ValueError: no such tree, or an unknown option.
    """
    root, values = options(path, {"axes": "up"})
    if values["axes"] not in _AXES:
        raise ValueError(f"axes={values['axes']} in diode:{path}: axes is one of {', '.join(_AXES)}")
    root, taken = found_below(root, lambda folder: any(os.path.isdir(os.path.join(folder, *s)) for s in _SPLITS))
    rows, other = _rows(root)
    if not any(".png" in row.has for row in rows):
        raise ValueError(f"diode:{root} has no images: {_LAYOUT}")
    dataset = Diode(root, rows, other, values["axes"])
    dataset.notes += taken
    return dataset
