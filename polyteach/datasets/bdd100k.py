"""BDD100K (Yu et al., CVPR 2020): boxes of 10 classes, and classes of pixels of streets or of where one may drive.

    ROOT/images/100k/train/0000f77c-6257be58.jpg        also val/, test/: boxes and drivable areas
    ROOT/images/10k/train/...                           classes of pixels
    ROOT/labels/det_20/det_train.json                   boxes of 2020, else of 2018:
         labels/bdd100k_labels_images_train.json
         labels/sem_seg/masks/train/NAME.png            19 classes, as Cityscapes has them; 255 is unknown
         labels/drivable/masks/train/NAME.png           direct, alternative, background

Options, as `bdd100k:ROOT?segmentation=drivable`, joined by &:

- det=2020, 2018 or none. Without it, 2020 where it is there.
- segmentation=sem_seg, drivable or none: whose classes of pixels. Without it, sem_seg where it is there.
- images=100k or 10k: those alone. Without it, both. Many pictures are in both folders, and not always in one split:
  how many is told. Whoever trains on one and tests on the other should read one alone.

The source: github.com/bdd100k/bdd100k, doc/source/format.rst and download.rst, bdd100k/configs/det.toml and
label/to_scalabel.py; scalabel's label/typing.py and transforms.py. Odd cases:

- x2, y2 of a box2d are the last pixel inside: scalabel adds 1 for the width, and so does this. The format is that of
  both years.
- The names of 2018 (person, bike, motor) and of other releases (caravan, van) are those of 2020 that det.toml says.
  "other person", "other vehicle" and "trailer" are ignored, as pedestrian, car and truck; so is what has the attribute
  crowd or ignored. Any other category with a box is an error.
- Labels without box2d (2018's lanes and drivable areas) are not read, and counted.
- A frame without labels is labelled: there is nothing. An image that no frame names is unlabelled; these are counted.
  A frame whose image is missing is an error; two frames of one image are one for both.
- The background of drivable maps, which its benchmark does not count, is a class here: of the pixels where one may
  not drive.
- The JSON is an array of frames, or an object whose `frames` is one; it is read as a stream, of any size.
- Lanes, instances, panoptic maps, poses and videos are not read; nor are the single JSON files of labels/100k/.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from polyteach.datasets import Dataset, Drawn, Entry, Labels, found_below, kind, options, printable
from polyteach.datasets._coco_outlines import numbers
from polyteach.datasets._files import class_map, opened, shown
from polyteach.datasets._json_stream import JsonStream
from polyteach.datasets._objects import Thing, drawn
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, MOST_OBJECTS
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget

_CLASSES = (
    *("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "traffic light", "traffic sign"),
)
_SAME = {
    "bike": "bicycle", "caravan": "car", "motor": "motorcycle", "person": "pedestrian", "van": "car",
}  # fmt: skip
_IGNORED = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}
_PIXELS = {
    "sem_seg": (
        *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
        *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    ),
    "drivable": ("direct", "alternative", "background"),
}
_FOLDERS = ("100k", "10k")
_SPLITS = ("train", "val", "test")
_FILES = {"2020": "labels/det_20/det_{}.json", "2018": "labels/bdd100k_labels_images_{}.json"}
_VOID = 255
_LAYOUT = (
    "expected ROOT/images/100k/train/*.jpg with ROOT/labels/det_20/det_train.json, or ROOT/images/10k/train/*.jpg with "
    "ROOT/labels/sem_seg/masks/train/*.png"
)


@dataclass
class _Frames:
    """The frames of one file: by image, its index and its place in the file.

    again: images that several frames name. others: how many labels have no box, by category.
    """

    path: str
    places: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    others: Counter[str] = field(default_factory=Counter)

    def read(self) -> None:
        """Read the file through.

        Raises:
            ValueError: it is broken, or a frame has no name.
        """
        try:
            with opened(self.path) as file:
                start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
                file.seek(0)
                stream = JsonStream(self.path, file)
                if start == b"{":
                    frames = "frames"
                    for name, index, value, begin, length in stream.fields(frozenset((frames,))):
                        if name == frames and index >= 0:
                            self._add(index, value, begin, length)
                else:
                    for index, value, begin, length in stream.items():
                        self._add(index, value, begin, length)
        except OSError as e:
            raise ValueError(f"{self.path}: cannot be read: {e.strerror}") from e
        if not self.places:
            raise ValueError(f"{self.path}: has no frame")

    def _add(self, index: int, value: Any, begin: int, length: int) -> None:
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str) or not name:
            raise ValueError(f"{self.path}: [{index}].name: must name an image; got {shown(name)}")
        if name in self.places:
            self.again.add(name)
        self.places[name] = (index, begin, length)
        labels = value.get("labels")
        for one in labels if isinstance(labels, list) else []:
            if isinstance(one, dict) and one.get("box2d") is None:
                self.others[shown(one.get("category"))] += 1

    def labels(self, name: str) -> tuple[str, list[Any]]:
        """Where the frame of an image stands, and its labels.

        Raises:
            ValueError: the file has changed, or they are no list.
        """
        index, begin, length = self.places[name]
        where = f"{self.path}: [{index}]"
        with opened(self.path) as file:
            file.seek(begin)
            try:
                value = json.loads(file.read(length))
            except ValueError as e:
                raise ValueError(f"{where}: is no JSON any more: it has changed") from e
            except RecursionError as e:  # deeper than when the file was read: there is less room here
                raise ValueError(f"{where}: is nested too deeply") from e
        labels = value.get("labels") if isinstance(value, dict) else None
        if labels is not None and not isinstance(labels, list):
            raise ValueError(f"{where}.labels: must be a list; got {shown(labels)}")
        return where, labels or []


@dataclass(frozen=True)
class _Row:
    """An image by its path within ROOT. boxes: the file that has its frame. map: its map of classes, or ""."""

    image: str
    split: str
    boxes: _Frames | None = None
    map: str = ""
    problem: str | None = None


class Bdd100k(Dataset):
    """100k, then 10k; train, val and test of each; images by name, then frames without one."""

    def __init__(self, root: str, det: str, pixels: str, folders: tuple[str, ...]) -> None:
        self._root, self._pixels = root, pixels
        files = {} if det == "none" else _det_files(root, det, folders)
        self._rows: list[_Row] = []
        left_out: Counter[str] = Counter()
        for folder in folders:
            for split in _SPLITS:
                here = os.path.join(root, "images", folder, split)
                frames = files.pop(split, None) if folder == "100k" and os.path.isdir(here) else None
                self._rows += _rows(root, folder, split, frames, pixels, left_out)
        left_out["JSON of splits without a folder of images"] += len(files)
        if not self._rows:
            raise ValueError(f"bdd100k:{root} has no image: {_LAYOUT}")
        super().__init__([printable(r.image) for r in self._rows])
        self.left_out = +left_out
        read = list({id(r.boxes): r.boxes for r in self._rows if r.boxes}.values())
        if read:
            self.spaces["detection"] = Space(_CLASSES, BOXES)
        if any(r.map for r in self._rows):
            self.spaces["segmentation"] = Space(_PIXELS[pixels])
        if not self.spaces:
            raise ValueError(f"bdd100k:{root}: no image has labels: {_LAYOUT}")
        self._note(read)

    def _note(self, read: list[_Frames]) -> None:
        self.notes += [f"boxes are those of {frames.path}" for frames in read]
        if bare := sum(r.boxes is None and not r.map and r.problem is None for r in self._rows):
            self.notes.append(f"{bare:,} images have neither a frame nor a map: they are unlabelled")
        others = sum((f.others for f in read), Counter())
        if others:
            told = ", ".join(f"{n:,} {k}" for k, n in sorted(others.items())[:10])
            self.notes.append(f"{sum(others.values()):,} labels have no box2d and were not read: {told}")
        by_name = {
            folder: {os.path.basename(r.image): r.split for r in self._rows if r.image.startswith(f"images/{folder}/")}
            for folder in _FOLDERS
        }
        both = by_name["100k"].keys() & by_name["10k"].keys()
        apart = sum(by_name["100k"][name] != by_name["10k"][name] for name in both)
        if both:
            self.notes.append(
                f"{len(both):,} images of 10k are called as images of 100k, {apart:,} of them in another split: do not "
                "train on one and test on the other; ?images=10k or ?images=100k reads one alone"
            )

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for row in self._rows[start:stop]:
            targets = partial(self._targets, row) if row.boxes or row.map else None
            yield Entry(uri=os.path.join(self._root, row.image), problem=row.problem, split=row.split, targets=targets)

    def _targets(self, row: _Row, size: tuple[int, int]) -> Labels:
        labels = Drawn()
        if row.boxes is not None:
            labels = _objects(row.boxes, os.path.basename(row.image), size)
        if row.map:
            labels["segmentation"] = _classes(os.path.join(self._root, row.map), size, len(_PIXELS[self._pixels]))
        return labels


def _det_files(root: str, det: str, folders: tuple[str, ...]) -> dict[str, _Frames]:
    """The files of boxes by split, of one year; read.

    Raises:
        ValueError: the year that was asked for is not there, or a file is broken.
    """
    found: dict[str, _Frames] = {}
    for year in (det,) if det else ("2020", "2018"):
        paths = {split: os.path.join(root, _FILES[year].format(split)) for split in _SPLITS}
        found = {split: _Frames(path) for split, path in paths.items() if os.path.isfile(path)}
        if found:
            break
    if det and not found:
        raise ValueError(f"bdd100k:{root}?det={det}: there is no {_FILES[det].format('train')}")
    for split, frames in found.items():
        if "100k" in folders and os.path.isdir(os.path.join(root, "images", "100k", split)):
            frames.read()
    return found


def _rows(
    root: str, folder: str, split: str, frames: _Frames | None, pixels: str, left_out: Counter[str]
) -> Iterator[_Row]:
    """The images of a folder, and what is wrong with frames."""
    here, within = os.path.join(root, "images", folder, split), f"images/{folder}/{split}"
    names = sorted(os.listdir(here)) if os.path.isdir(here) else []
    images = [n for n in names if kind(n) is None]
    of_maps = f"labels/{pixels}/masks/{split}"
    # the maps of one kind belong to one folder of images
    owner = {"sem_seg": "10k", "drivable": "100k"}.get(pixels)
    maps = _maps(os.path.join(root, of_maps)) if owner == folder and images else {}
    for name in images:
        own = maps.pop(os.path.splitext(name)[0], "")
        known = frames is not None and name in frames.places
        again = frames is not None and name in frames.again
        problem = f"{frames.path}: several frames are of {shown(name)}" if frames is not None and again else None
        yield _Row(f"{within}/{name}", split, frames if known else None, f"{of_maps}/{own}" if own else "", problem)
    left_out["maps without an image"] += len(maps)
    if frames is not None:
        there = set(images)
        for name, (index, _, _) in frames.places.items():
            if name not in there:
                said = f"{frames.path}: [{index}].name: {shown(name)} is no image of {here}"
                yield _Row(f"{within}/{index}: {shown(name)}", split, problem=said)


def _maps(folder: str) -> dict[str, str]:
    """PNG files by their names without ending."""
    names = sorted(f for f in os.listdir(folder) if f.endswith(".png")) if os.path.isdir(folder) else []
    return {n.removesuffix(".png"): n for n in names}


def _objects(frames: _Frames, name: str, size: tuple[int, int]) -> Drawn:
    """The boxes of a frame.

    Raises:
        ValueError: one is broken, or of no known category; says where it stands.
    """
    where, labels = frames.labels(name)
    things: list[Thing] = []
    for i, label in enumerate(labels):
        at = f"{where}.labels[{i}]"
        if not isinstance(label, dict):
            raise ValueError(f"{at}: must be an object; got {shown(label)}")
        box = label.get("box2d")
        if box is None:
            continue
        if len(things) == MOST_OBJECTS:
            raise ValueError(f"{at}: an image may have at most {MOST_OBJECTS:,} objects")
        sides = [box.get(k) for k in ("x1", "y1", "x2", "y2")] if isinstance(box, dict) else box
        if not isinstance(box, dict) or not numbers(sides):
            raise ValueError(f"{at}.box2d: must have finite numbers x1, y1, x2, y2; got {shown(sides)}")
        x1, y1, x2, y2 = map(float, sides)
        category, attributes = label.get("category"), label.get("attributes")
        called = category if isinstance(category, str) else ""
        called = _IGNORED.get(called) or _SAME.get(called, called)
        if called not in _CLASSES:
            raise ValueError(f"{at}.category: {shown(category)} is none of {', '.join(_CLASSES)}")
        marks = attributes if isinstance(attributes, dict) else {}
        ignored = category in _IGNORED or bool(marks.get("crowd")) or bool(marks.get("ignored"))
        things.append(
            Thing(at, _CLASSES.index(called), (x1, y1, x2 + 1, y2 + 1), ignore=ignored, about=f"of {category!r:.60}: ")
        )
    found = drawn(things, size, outlines=False)
    said = "are crowds, or of no class (other person, other vehicle, trailer): neither learned nor background"
    found.notes["detection"] = +(found.notes["detection"] + Counter({said: sum(t.ignore for t in things)}))
    return found


def _classes(path: str, size: tuple[int, int], count: int) -> SegmentationTarget:
    """The map at `path` of an image of (height, width) `size`.

    Raises:
        ValueError: missing, broken, of another size, or of a value that is no class.
    """
    pixels = class_map(path, size, ("L", "P"), "a PNG of 8-bit indices")
    strange = [int(v) for v in np.flatnonzero(np.bincount(pixels.reshape(-1), minlength=256)) if count <= v < _VOID]
    if strange:
        raise ValueError(f"{path}: value {strange[0]} is no class; they are 0..{count - 1}, and {_VOID} is unknown")
    category = torch.from_numpy(pixels.astype(np.int64))
    known = category != _VOID
    return SegmentationTarget(category=category.masked_fill(~known, IGNORE), probability=known.float())


def load(path: str) -> Dataset:
    """The tree at `path`, with the options above.

    Raises:
        ValueError: no such tree, an option that is wrong, a JSON that is broken, or no labels.
    """
    root, values = options(path, {"det": "", "segmentation": "", "images": ""})
    for key, allowed in (("det", ("2020", "2018", "none")), ("segmentation", (*_PIXELS, "none")), ("images", _FOLDERS)):
        if values[key] and values[key] not in allowed:
            raise ValueError(f"{key}={values[key]} in bdd100k:{root}: there are {', '.join(allowed)}")
    if not os.path.isdir(root):
        raise ValueError(f"bdd100k:{root} is no folder: {_LAYOUT}")
    root, taken = found_below(
        root, lambda folder: any(os.path.isdir(os.path.join(folder, "images", f)) for f in _FOLDERS)
    )
    folders = (values["images"],) if values["images"] else _FOLDERS
    there = [k for k in _PIXELS if os.path.isdir(os.path.join(root, "labels", k, "masks"))]
    pixels = values["segmentation"] or next(iter(there), "none")
    if pixels not in ("none", *there):
        raise ValueError(f"bdd100k:{root}?segmentation={pixels}: there is no labels/{pixels}/masks/")
    dataset = Bdd100k(root, values["det"], pixels, folders)
    left = [k for k in there if k != pixels and not values["segmentation"]]
    dataset.notes[:0] = [*taken, *(f"labels/{k}/ was not read: ?segmentation={k} does" for k in left)]
    return dataset
