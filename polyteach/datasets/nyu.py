"""NYU Depth V2 (Silberman et al., ECCV 2012): depth of rooms, and classes of pixels.

    ROOT/nyu_depth_v2_labeled.mat      1,449 images with depth and labels; ROOT may be this file
    ROOT/splits.mat                    trainNdxs (795, 1) and testNdxs (654, 1), counted from 1

From https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html. The first is a MATLAB 7.3 file, which is HDF5 with a header
of 512 bytes; HDF5 sees MATLAB's axes in reverse, so that an image is (channel, column, row):

    images      (N, 3, 640, 480) uint8
    depths      (N, 640, 480) float32, metres; holes filled by colourisation (Levin et al.)
    rawDepths   (N, 640, 480) float32, metres; 0 where the sensor saw nothing
    labels      (N, 640, 480) uint16; 0 is unlabelled, 1..894 a class
    names       (1, 894) references to text, uint16 (length, 1)

Options, as nyu:ROOT?depth=raw&crop=none:

- depth=filled (default; what the field measures on) or raw.
- crop=eigen (default) or none. Eigen et al. (NeurIPS 2014) and their followers measure in rows 45..470 and columns
  41..600 of 480 x 640 only (of other sizes: in proportion); the rest is invalid, in every split: beside the window lie
  the image's white frame and depth that the filling made up.
- segmentation=none (default) or 894: the classes of `names`. Pixels of no class are ignored.
- split=file (default): "train" and "test" by splits.mat; none: images have no split, and splits.mat is not needed.

Depth is valid from 1 mm to 10 m, the sensor's range, as is usual in evaluation. Images are written as PNG, which
loses nothing. One is read at a time: the file of 2.8 GB is never in memory.
"""

import io
import math
import os
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from polyteach.datasets import Dataset, Entry, Labels, Protocol, found_below, options
from polyteach.datasets._files import contents
from polyteach.datasets._matlab import read_matlab
from polyteach.ground.limits import MAX_PIXELS
from polyteach.tasks.contract import Space
from polyteach.tasks.depth import METRIC, DepthTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget

_FILE, _SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
_NEAREST, _FARTHEST = 1e-3, 10.0
_EIGEN = ((45, 471, 480), (41, 601, 640))
"""First and end of rows and of columns, and how many there are: as in the evaluation code of BTS and AdaBins."""
_IMAGES, _LETTERS, _BLOCK = 100_000, 10_000, 2**28
"""Most images, letters of a class's name, and bytes that HDF5 unpacks together: a file may claim any number."""
_ELSEWHERE = "is a link, or made of other files, which are not opened; save the numbers themselves in it"
_DEPTHS = {"filled": "depths", "raw": "rawDepths"}
_OPTIONS = {
    "depth": ("filled", "raw"),
    "crop": ("eigen", "none"),
    "segmentation": ("none", "894"),
    "split": ("file", "none"),
}

# METHOD.md: delta < 1.25, on the official split of 795 and 654 (the 47k images of the paper's own training set are
# frames of the raw videos, which this file does not have). The paper's schedule was not recovered: batch 16 and the
# steps follow the usual 25 epochs of such small sets at most; the learning rates are those of the other pixel tasks.
PROTOCOLS = {
    "nyu": Protocol(
        task="depth",
        train=("train",),
        validation=0.1,
        test=("test",),
        metric="delta<1.25",
        size=512,
        lrs=(0.003, 0.01, 0.03, 0.1),
        steps=(1_250, 5_000),
        batch_size=16,
        few={"fraction": 0.1},
    )
}


class Nyu(Dataset):
    """In the file's order, named by their number there, from 1."""

    embed: ClassVar[bool] = True

    def __init__(self, path: str, splits: str | None, values: dict[str, str]) -> None:
        """`path`: of the labelled file. `splits`: of splits.mat. `values`: of the options."""
        self._path = path
        # HDF5 is not made for threads: one reads at a time
        self._lock = threading.Lock()
        self._file = _opened(path)
        self._depth = _DEPTHS[values["depth"]]
        self._crop = values["crop"] == "eigen"
        self._labels = values["segmentation"] == "894"
        images = self._field("images", 4)
        shape = images.shape
        if shape[1] != 3 or images.dtype != np.uint8:
            raise ValueError(f"{path}: images: must be uint8 (N, 3, width, height); is {images.dtype} {shape}")
        if shape[0] > _IMAGES or shape[2] * shape[3] > MAX_PIXELS:
            raise ValueError(
                f"{path}: images: has shape {shape}; at most are {_IMAGES:,} images of {MAX_PIXELS:,} pixels each"
            )
        for name, kinds in [(self._depth, "uif"), *([("labels", "ui")] if self._labels else [])]:
            field = self._field(name, 3)
            if field.shape != (shape[0], *shape[2:]):
                raise ValueError(f"{path}: {name}: has shape {field.shape}; images has {shape}")
            if field.dtype.kind not in kinds:
                raise ValueError(f"{path}: {name}: must be {'' if 'f' in kinds else 'whole '}numbers; is {field.dtype}")
        self._split = [None] * shape[0] if splits is None else _split(splits, shape[0])
        super().__init__([f"{i:04d}" for i in range(1, shape[0] + 1)])
        self.spaces = {"depth": Space((), METRIC)}
        if self._labels:
            self.spaces["segmentation"] = Space(self._names())

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for i in range(start, min(stop, len(self.names))):
            split = self._split[i]
            try:
                image = self._read("images", i)
            except ValueError as e:
                yield Entry(problem=str(e), split=split)
                continue
            yield Entry(data=_png(image.transpose(2, 1, 0)), split=split, targets=partial(self._targets, i))

    def _targets(self, i: int, size: tuple[int, int]) -> Labels:
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are out of range
            value = self._read(self._depth, i).T.astype(np.float32)
            valid = (value >= _NEAREST) & (value <= _FARTHEST)
        if self._crop:
            inside = np.zeros_like(valid)
            inside[tuple(_scaled(*side, n) for side, n in zip(_EIGEN, valid.shape, strict=True))] = True
            valid &= inside
        found: Labels = {
            "depth": DepthTarget(value=torch.from_numpy(np.where(valid, value, 0)), valid=torch.from_numpy(valid))
        }
        if self._labels:
            found["segmentation"] = self._classes(i)
        return found

    def _classes(self, i: int) -> SegmentationTarget:
        numbers = self._read("labels", i).T.astype(np.int64)
        count = len(self.spaces["segmentation"].names)
        if numbers.max(initial=0) > count:
            raise ValueError(f"{self._path}: labels[{i}]: {numbers.max()} is no class: names has {count}")
        category = torch.from_numpy(np.where(numbers == 0, IGNORE, numbers - 1))
        return SegmentationTarget(category=category, probability=(category != IGNORE).float())

    def _names(self) -> tuple[str, ...]:
        try:
            with self._lock:
                field = self._field("names", 2)
                if field.size > np.iinfo(np.uint16).max:  # of what labels can be
                    raise ValueError(f"there are {field.size:,}")
                texts = [self._text(self._file[r]) for r in field[()].reshape(-1)]
            return tuple("".join(map(chr, t)) for t in texts)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as e:
            raise ValueError(f"{self._path}: names: must be references to text: {e}") from e

    def _text(self, found: Any) -> np.ndarray:
        """The letters in an array that a reference leads to."""
        self._own(found, "names")
        if found.size > _LETTERS:
            raise ValueError(f"one has {found.size:,} letters, of at most {_LETTERS:,}")
        return np.asarray(found[()]).reshape(-1)

    def _field(self, name: str, dimensions: int) -> Any:
        import h5py

        try:
            there = sorted(k for k in self._file if not k.startswith("#"))
            link = self._file.get(name, getlink=True) if name in there else None
            if link is not None and not isinstance(link, h5py.HardLink):
                raise ValueError(f"{self._path}: {name}: {_ELSEWHERE}")
            found = None if link is None else self._file[name]
            if found is not None and len(getattr(found, "shape", None) or ()) == dimensions:
                self._own(found, name)
                return found
        except (OSError, RuntimeError, KeyError) as e:
            raise ValueError(f"{self._path}: {name}: cannot be read: {e}") from e
        raise ValueError(
            f"{self._path}: {name}: missing, or not of {dimensions} dimensions; there are: {', '.join(there[:20])}"
        )

    def _own(self, found: Any, name: str) -> None:
        """Raises:
        ValueError: an array whose bytes lie in another file, which HDF5 would open; or in blocks of any size.
        """
        if found.is_virtual or found.external:
            raise ValueError(f"{self._path}: {name}: {_ELSEWHERE}")
        block = math.prod(found.chunks or ()) * found.dtype.itemsize
        if block > _BLOCK:
            raise ValueError(f"{self._path}: {name}: is packed in blocks of {block:,} bytes, of at most {_BLOCK:,}")

    def _read(self, name: str, i: int) -> np.ndarray:
        try:
            with self._lock:
                return np.asarray(self._file[name][i])
        except (OSError, RuntimeError, KeyError) as e:
            raise ValueError(f"{self._path}: {name}[{i}]: cannot be read: {e}") from e


def _scaled(start: int, stop: int, of: int, count: int) -> slice:
    return slice(round(start * count / of), round(stop * count / of))


def _png(pixels: np.ndarray) -> bytes:
    """Of uint8 (H, W, 3)."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, format="PNG")
    return out.getvalue()


def _opened(path: str) -> Any:
    try:
        import h5py
    except ImportError as e:
        raise ValueError(f"nyu:{path} is HDF5, which needs h5py: pip install 'polyteach[datasets]'") from e
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError) as e:
        raise ValueError(f"{path} is broken, cut short or no MATLAB 7.3 file: {e}") from e


def _split(path: str, count: int) -> list[str | None]:
    """The split of each of `count` images."""
    if not os.path.isfile(path):
        raise ValueError(
            f"{path} is missing; it says which images are train and test. Download it from "
            "http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat, or give ?split=none"
        )
    content = read_matlab(path, contents(path), ["trainNdxs", "testNdxs"])
    found: list[str | None] = [None] * count
    for key, split in (("trainNdxs", "train"), ("testNdxs", "test")):
        listed = content.get(key)
        if not isinstance(listed, list) or not 0 < len(listed) <= count:
            listed = [None]
        numbers = np.array([n if isinstance(n, int | float) else np.nan for n in listed])
        if (numbers != np.floor(numbers)).any():
            raise ValueError(f"{path}: {key}: missing, or no list of whole numbers")
        if numbers.min() < 1 or numbers.max() > count:
            raise ValueError(f"{path}: {key}: {numbers.min():g}..{numbers.max():g}, but there are images 1..{count}")
        for i in numbers.astype(np.int64) - 1:
            if found[i] is not None:
                raise ValueError(f"{path}: {key}: image {i + 1} is in {found[i]} already")
            found[i] = split
    return found


def load(path: str) -> Dataset:
    """The files in the folder at `path`, with the options above.

    Raises:
        ValueError: no such files, a broken one, an unknown option, or h5py or SciPy is not installed.
    """
    root, values = options(path, {key: allowed[0] for key, allowed in _OPTIONS.items()})
    for key, allowed in _OPTIONS.items():
        if values[key] not in allowed:
            raise ValueError(f"{key}={values[key]} in nyu:{path}: {key} is one of {', '.join(allowed)}")
    root, taken = found_below(root, lambda folder: os.path.isfile(os.path.join(folder, _FILE)))
    file = root if os.path.isfile(root) else os.path.join(root, _FILE)
    if not os.path.isfile(file):
        raise ValueError(f"{file} is missing; expected ROOT/{_FILE} and ROOT/{_SPLITS}")
    splits = os.path.join(os.path.dirname(file), _SPLITS) if values["split"] == "file" else None
    dataset = Nyu(file, splits, values)
    dataset.notes += taken
    return dataset
