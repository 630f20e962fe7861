"""KITTI (Geiger et al., CVPR 2012; Uhrig et al., 3DV 2017): boxes of the object benchmark, and depth maps.

    ROOT/training/image_2/000000.png        ROOT/training/label_2/000000.txt
    ROOT/testing/image_2/000000.png         no labels; any other folder with image_2/ is a split too

    ROOT/train/2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02/0000000005.png        depth, also image_03
         or ROOT/data_depth_annotated/train/..., and likewise val
    ROOT/2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005.png                     their images (KITTI raw)
         or ROOT/raw/2011_09_26/..., ROOT/kitti_raw/..., or ROOT/train/2011_09_26_drive_0001_sync/image_02/data/
    ROOT/depth_selection/val_selection_cropped/image/, groundtruth_depth/                       or in ROOT
    ROOT/depth_selection/test_depth_prediction_anonymous/image/                                 no depth

Either half may be missing. A line of a label file is an object by 15 fields: type, truncated (0..1), occluded (0..3),
alpha, left, top, right, bottom (pixels from 0), and 7 numbers of the 3D box, which are not read; nor is calib/.
Depth is a 16-bit PNG: metres are value / 256, and 0 is unknown. Options, as `kitti:ROOT?difficulty=moderate`:

- difficulty=all (default): all objects are learned. easy, moderate or hard: objects beyond the benchmark's bounds of
  that name are ignored, by least height, most occluded and most truncated: 40 pixels, 0, 0.15; 25, 1, 0.3; 25, 2, 0.5.
- classes=a,b,c or classes=FILE: other types than KITTI's Car, Van, Truck, Pedestrian, Person_sitting, Cyclist, Tram and
  Misc, as tools write that use its format.

The source: the object devkit's readme.txt and evaluate_object.cpp, and the depth devkit's readme.txt. Odd cases:

- DontCare is a region that nobody looked into, of any class. It is ignored once for each class, so that the metric
  passes over every detection in it, as the devkit's does.
- Misc is a class here: objects of other kinds, such as trailers.
- A line of 16 fields has a score: it is a detector's, and an error. So is a type that is no class, what is no finite
  number, and a box without area.
- An empty label file says that there is nothing. An image without one is unlabelled; these are counted. Label files
  and depth maps without an image are counted.
- A depth map without any depth is an error.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from polyteach.datasets import Dataset, Entry, Labels, found_below, kind, options, printable
from polyteach.datasets._class_lists import given_classes
from polyteach.datasets._files import class_map, lines, shown
from polyteach.datasets._objects import Thing, drawn
from polyteach.tasks.contract import Space
from polyteach.tasks.depth import METRIC, DepthTarget
from polyteach.tasks.detection import BOXES, MOST_OBJECTS

_CLASSES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc")
_DONT_CARE = "DontCare"
_DIFFICULTY = {
    "easy": (40.0, 0.0, 0.15),
    "moderate": (25.0, 1.0, 0.3),
    "hard": (25.0, 2.0, 0.5),
    "all": (0.0, math.inf, math.inf),
}
"""Least height in pixels, most occluded and most truncated of an object that is learned."""
_FIELDS = 15
_SCALE = 256.0
_MOST = 1 << 24
"""Bytes of a label file."""
_SELECTIONS = ("val_selection_cropped", "test_depth_prediction_anonymous")
_LAYOUT = (
    "expected ROOT/training/image_2/000000.png with ROOT/training/label_2/000000.txt, or depth in "
    "ROOT/train/DRIVE/proj_depth/groundtruth/image_02/ or ROOT/depth_selection/val_selection_cropped/"
)


@dataclass(frozen=True)
class _Row:
    """An image by its path within ROOT, and its file of labels or of depth, or ""."""

    image: str
    split: str
    labels: str = ""
    depth: str = ""
    problem: str | None = None


class Kitti(Dataset):
    """The object benchmark's splits by name, then the depth benchmark's; images by name."""

    def __init__(self, root: str, names: tuple[str, ...], difficulty: str) -> None:
        self._root, self._names, self._difficulty = root, names, difficulty
        left_out: Counter[str] = Counter()
        self._rows = [*_objects(root, left_out), *_selections(root, left_out), *_drives(root, left_out)]
        if not any(r.labels or r.depth for r in self._rows):
            raise ValueError(f"kitti:{root} has no image with a label file or a depth map: {_LAYOUT}")
        super().__init__([printable(r.image) for r in self._rows])
        self.left_out = +left_out
        if any(r.labels for r in self._rows):
            self.spaces["detection"] = Space(names, BOXES)
        if any(r.depth for r in self._rows):
            self.spaces["depth"] = Space((), METRIC)
        if bare := sum(not r.labels and not r.depth and r.problem is None for r in self._rows):
            self.notes.append(f"{bare:,} images have neither a label file nor a depth map: they are unlabelled")

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for row in self._rows[start:stop]:
            targets = partial(self._targets, row) if row.labels or row.depth else None
            uri = os.path.join(self._root, row.image)
            yield Entry(uri=uri, problem=row.problem, split=printable(row.split), targets=targets)

    def _targets(self, row: _Row, size: tuple[int, int]) -> Labels:
        if row.depth:
            return {"depth": _depth(os.path.join(self._root, row.depth), size)}
        path = os.path.join(self._root, row.labels)
        things: list[Thing] = []
        regions = hard = 0
        least, occluded, truncated = _DIFFICULTY[self._difficulty]
        for where, type, numbers in _lines(path, self._names):
            left, top, right, bottom = numbers[3:7]
            box = (left, top, right, bottom)
            if type == _DONT_CARE:
                regions += 1
                things += [Thing(where, i, box, ignore=True, about="DontCare: ") for i in range(len(self._names))]
                continue
            beyond = bottom - top < least or numbers[1] > occluded or numbers[0] > truncated
            hard += beyond
            things.append(Thing(where, self._names.index(type), box, ignore=beyond, about=f"of {type}: "))
        labels = drawn(things, size, outlines=False)
        said = f"are smaller, more occluded or more truncated than {self._difficulty}: not learned"
        labels.notes["detection"] += Counter({"are regions of DontCare, ignored for every class": regions, said: hard})
        labels.notes["detection"] = +labels.notes["detection"]
        return labels


def _lines(path: str, names: tuple[str, ...]) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """(where it stands, its type, its numbers) of each object of a label file.

    Raises:
        ValueError: a line of another form; says which, and what is wrong with it.
    """
    count = 0
    for i, line in enumerate(lines(path, _MOST), 1):
        words, where = line.split(), f"{path}: line {i}"
        if not words:
            continue
        count += 1
        if count > MOST_OBJECTS:
            raise ValueError(f"{where}: an image may have at most {MOST_OBJECTS:,} objects")
        if len(words) != _FIELDS:
            odd = ": the last is a score, which detections have and labels have not" * (len(words) == _FIELDS + 1)
            raise ValueError(f"{where}: must have {_FIELDS} fields with spaces between them; has {len(words)}{odd}")
        if words[0] != _DONT_CARE and words[0] not in names:
            raise ValueError(
                f"{where}: type {shown(words[0])} is none of {', '.join(names)[:200]}: give ?classes=a,b,c"
            )
        try:
            numbers = tuple(float(w) for w in words[1:])
        except ValueError as e:
            raise ValueError(f"{where}: must be numbers after the type; got {shown(line)}") from e
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"{where}: must be finite numbers; got {shown(line)}")
        yield where, words[0], numbers


def _depth(path: str, size: tuple[int, int]) -> DepthTarget:
    """The map at `path` of an image of (height, width) `size`.

    Raises:
        ValueError: missing, broken, not of 16 bits, of another size, or without any depth.
    """
    pixels = class_map(path, size, ("I;16", "I"), "a grey PNG of 16 bits").astype(np.float32)
    valid = pixels > 0
    if not valid.any():
        raise ValueError(f"{path}: depth is known nowhere: it is 0 throughout")
    return DepthTarget(value=torch.from_numpy(pixels / _SCALE), valid=torch.from_numpy(valid))


def _images(folder: str) -> dict[str, str]:
    """The images in a folder, by their names without endings; of two of one name, the first."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if kind(name) is None:
            found.setdefault(os.path.splitext(name)[0], name)
    return found


def _objects(root: str, left_out: Counter[str]) -> Iterator[_Row]:
    for split in sorted(os.listdir(root)):
        folder, labels = (os.path.join(root, split, n) for n in ("image_2", "label_2"))
        if not os.path.isdir(folder):
            continue
        files = {f for f in os.listdir(labels) if f.endswith(".txt")} if os.path.isdir(labels) else set()
        images = _images(folder)
        for stem, name in images.items():
            own = f"{split}/label_2/{stem}.txt" if f"{stem}.txt" in files else ""
            yield _Row(f"{split}/image_2/{name}", split, labels=own)
        left_out["label files without an image"] += len(files - {f"{s}.txt" for s in images})
        left_out["images called as another one, save for the ending"] += sum(
            kind(n) is None for n in os.listdir(folder)
        ) - len(images)


def _selections(root: str, left_out: Counter[str]) -> Iterator[_Row]:
    for split in _SELECTIONS:
        places = (f"depth_selection/{split}", split)
        place = next((p for p in places if os.path.isdir(os.path.join(root, p, "image"))), None)
        if place is None:
            continue
        depth = _images(os.path.join(root, place, "groundtruth_depth"))
        used = 0
        for stem, name in _images(os.path.join(root, place, "image")).items():
            own = depth.get(stem.replace("_sync_image_", "_sync_groundtruth_depth_"))
            used += own is not None
            yield _Row(f"{place}/image/{name}", split, depth=f"{place}/groundtruth_depth/{own}" if own else "")
        left_out["depth maps without an image"] += len(depth) - used


def _drives(root: str, left_out: Counter[str]) -> Iterator[_Row]:
    for split in ("train", "val"):
        for above in (split, f"data_depth_annotated/{split}"):
            folder = os.path.join(root, above)
            for drive in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                for camera in ("image_02", "image_03"):
                    yield from _drive(root, split, f"{above}/{drive}", camera, left_out)


def _drive(root: str, split: str, drive: str, camera: str, left_out: Counter[str]) -> Iterator[_Row]:
    """The images of one camera of one drive that have depth."""
    maps = f"{drive}/proj_depth/groundtruth/{camera}"
    depth = _images(os.path.join(root, maps))
    name = os.path.basename(drive)
    homes = (drive, f"{split}/{name}", *(f"{above}{name[:10]}/{name}" for above in ("", "raw/", "kitti_raw/")))
    place = next((p for h in homes if os.path.isdir(os.path.join(root, p := f"{h}/{camera}/data"))), "")
    images = _images(os.path.join(root, place)) if place else {}
    for stem, file in depth.items():
        if stem in images:
            yield _Row(f"{place}/{images[stem]}", split, depth=f"{maps}/{file}")
        else:
            left_out["depth maps without an image"] += 1


def _is_tree(folder: str) -> bool:
    there = os.listdir(folder) if os.path.isdir(folder) else []
    if any(os.path.isdir(os.path.join(folder, n, "image_2")) for n in there):
        return True
    if "data_depth_annotated" in there or "depth_selection" in there or any(n in there for n in _SELECTIONS):
        return True
    drives = (os.path.join(folder, n, d, "proj_depth") for n in ("train", "val") for d in _listed(folder, n))
    return any(map(os.path.isdir, drives))


def _listed(folder: str, name: str) -> list[str]:
    path = os.path.join(folder, name)
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def load(path: str) -> Dataset:
    """The tree at `path`, with the options above.

    Raises:
        ValueError: no such tree, an option that is wrong, or neither boxes nor depth.
    """
    root, values = options(path, {"difficulty": "all", "classes": ""})
    if values["difficulty"] not in _DIFFICULTY:
        raise ValueError(f"difficulty={values['difficulty']} in kitti:{root}: there are {', '.join(_DIFFICULTY)}")
    if not os.path.isdir(root):
        raise ValueError(f"kitti:{root} is no folder: {_LAYOUT}")
    root, taken = found_below(root, _is_tree)
    names = given_classes(root, values["classes"]).dense() if values["classes"] else _CLASSES
    if _DONT_CARE in names:
        raise ValueError(f"classes={values['classes']} in kitti:{root}: DontCare is no class: leave it out")
    dataset = Kitti(root, names, values["difficulty"])
    dataset.notes[:0] = taken
    return dataset
