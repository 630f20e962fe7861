"""Cityscapes (Cordts et al., CVPR 2016): classes of pixels of streets, and outlines of people and vehicles.

    ROOT/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    ROOT/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png       or _gtFine_labelTrainIds.png
                             aachen_000000_000019_gtFine_instanceIds.png
    ROOT/gtCoarse/train_extra/...                                           with ?labels=coarse

Pixels are of the 19 classes that the benchmark trains and scores; those of the other 15 ids are void, neither learned
nor counted. Objects are of the 8 of these classes that have instances, each with its outline and the box around it.
`cityscapes:ROOT?labels=coarse` reads gtCoarse, in which objects are drawn roughly and not all of them: it has classes
of pixels alone. The splits are the folders of leftImg8bit: train, val, test, train_extra.

The source: cityscapesScripts' README, `helpers/labels.py`, `preparation/json2instanceImg.py` and
`preparation/createPanopticImgs.py`. Odd cases:

- labelTrainIds are made by csCreateTrainIdLabelImgs and hold 0..18 and 255; labelIds hold 0..33. labelIds are read
  where both are there. A licence plate (-1) has the class of its vehicle. Any other value is an error.
- A pixel of instanceIds is class * 1000 + number, or the class alone where single objects could not be told apart.
  Such groups are ignored, each connected region of them by itself (Detectron2 takes all of a class as one).
- Caravans and trailers, which the benchmark does not count, are ignored, as cars and as trucks.
- The published maps of test show the ego vehicle and the border alone. A map without any of the 19 classes says
  nothing: the image is unlabelled.
- An image without a map is unlabelled, and counted. So are maps without an image. Polygons (JSON), colour maps,
  right images, disparity, 3D boxes and videos are not read; for disparity there is `depth-png:`.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Int64

from polyteach.datasets import Dataset, Drawn, Entry, Labels, found_below, options, printable, walk
from polyteach.datasets._files import class_map
from polyteach.datasets._pairs import files_below
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import MASKS, DetectionTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget
from polyteach.tasks.target import MOST_VALUES

_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
"""The ids of the classes in the order of their train ids."""
_NAMES = tuple(_IDS)
_THINGS = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
_OTHERS = {29: "car", 30: "truck"}
"""Caravan and trailer: they are ignored, as these."""
_MOST_ID = 33
_NONE = -1
_IMAGE = "_leftImg8bit.png"
_INSTANCES = 1000
_MOST_RUNS = 1 << 16
"""Runs of pixels along rows of the groups of one class."""
_ORDER = ("train", "val", "test", "train_extra")
_LAYOUT = (
    "expected ROOT/leftImg8bit/train/CITY/NAME_leftImg8bit.png and ROOT/gtFine/train/CITY/NAME_gtFine_labelIds.png"
)


def _by_value() -> dict[str, Int64[np.ndarray, " V"]]:
    """The category of each value of a map, by the map's kind; IGNORE for void, -1 for what is none."""
    ids = np.full(256, _NONE, dtype=np.int64)
    ids[: _MOST_ID + 1] = IGNORE
    ids[list(_IDS.values())] = range(len(_IDS))
    train = np.full(256, _NONE, dtype=np.int64)
    train[: len(_IDS)] = range(len(_IDS))
    train[255] = IGNORE
    return {"labelIds": ids, "labelTrainIds": train}


_CATEGORY = _by_value()


@dataclass(frozen=True)
class _Row:
    """An image by its path within ROOT; its maps, or "" where there is none."""

    image: str
    split: str
    problem: str | None
    map: str
    kind: str
    instances: str


class Cityscapes(Dataset):
    """By split, then by city and name."""

    def __init__(self, root: str, labels: str) -> None:
        self._root = root
        found, left_out = walk(os.path.join(root, "leftImg8bit"))
        maps = set(files_below(os.path.join(root, labels), ".png")) if os.path.isdir(os.path.join(root, labels)) else ()
        taken = [f for f in found if f.endswith(_IMAGE) or f.endswith("/")]
        left_out["images that are not called *_leftImg8bit.png"] += len(found) - len(taken)
        used: set[str] = set()
        self._rows = []
        for path in sorted(taken, key=lambda f: (_rank(f.split("/")[0]), f)):
            start = f"{path.removesuffix(_IMAGE)}_{labels}_"
            kind = next((k for k in _CATEGORY if f"{start}{k}.png" in maps), "")
            own = f"{labels}/{start}{kind}.png" if kind else ""
            things = f"{start}instanceIds.png"
            used.add(start)
            self._rows.append(
                _Row(
                    f"leftImg8bit/{path}", path.split("/")[0] if "/" in path else "", found[path], own, kind,
                    f"{labels}/{things}" if things in maps and labels == "gtFine" else "",
                )
            )  # fmt: skip
        if not self._rows:
            raise ValueError(f"cityscapes:{root} has no image: {_LAYOUT}")
        if not any(r.map for r in self._rows):
            raise ValueError(f"cityscapes:{root}: no image has a map in {labels}/: {_LAYOUT}")
        super().__init__([printable(r.image) for r in self._rows])
        self.spaces["segmentation"] = Space(_NAMES)
        if any(r.instances for r in self._rows):
            self.spaces["detection"] = Space(_THINGS, MASKS)
        ends = tuple(f"_{labels}_{k}.png" for k in _CATEGORY)
        lost = [m for m in maps if m.endswith(ends) and f"{m.rpartition('_')[0]}_" not in used]
        left_out["maps without an image"] += len(lost)
        self.left_out = +left_out
        self._note()

    def _note(self) -> None:
        if bare := sum(not r.map and r.problem is None for r in self._rows):
            self.notes.append(f"{bare:,} images have no map of classes: they are unlabelled")
        if flat := sum(bool(r.map) and not r.instances for r in self._rows) * ("detection" in self.spaces):
            self.notes.append(f"{flat:,} images have no map of instances: they have classes of pixels alone")

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for row in self._rows[start:stop]:
            uri = os.path.join(self._root, row.image)
            problem = None if row.problem is None else f"{uri}: {row.problem}"
            targets = partial(self._targets, row) if row.map else None
            yield Entry(uri=uri, problem=problem, split=printable(row.split) or None, targets=targets)

    def _targets(self, row: _Row, size: tuple[int, int]) -> Labels:
        path = os.path.join(self._root, row.map)
        category = _classes(path, row.kind, size)
        if not (category != IGNORE).any():
            return Drawn()
        known = torch.from_numpy(category)
        labels = Drawn({"segmentation": SegmentationTarget(category=known, probability=(known != IGNORE).float())})
        if row.instances:
            _add_objects(labels, os.path.join(self._root, row.instances), size)
        return labels


def _rank(split: str) -> tuple[int, str]:
    return (_ORDER.index(split) if split in _ORDER else len(_ORDER), split)


def _classes(path: str, kind: str, size: tuple[int, int]) -> Int64[np.ndarray, "H W"]:
    """The train ids of a map, IGNORE where it is void.

    Raises:
        ValueError: missing, broken, of another size, or of a value that is no class.
    """
    pixels = class_map(path, size, ("L", "P"), "a PNG of 8-bit indices")
    table = _CATEGORY[kind]
    found = np.flatnonzero(np.bincount(pixels.reshape(-1), minlength=256))
    strange = [int(v) for v in found if table[v] == _NONE]
    if strange:
        allowed = f"0..{_MOST_ID}" if kind == "labelIds" else f"0..{len(_IDS) - 1} and 255"
        raise ValueError(f"{path}: value {strange[0]} is no class of {kind}, which are {allowed}")
    return table[pixels]


def _add_objects(labels: Drawn, path: str, size: tuple[int, int]) -> None:
    """Add what a map of instances shows.

    Raises:
        ValueError: missing, broken, of another size, of a value that is no instance, or of too many.
    """
    pixels = class_map(path, size, ("I;16", "I", "L"), "a PNG of 16-bit instances").astype(np.int64)
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high >= (_MOST_ID + 1) * _INSTANCES:
        raise ValueError(f"{path}: holds values from {low} to {high}; an instance is class * 1000 + number, of 0..33")
    names: list[str] = []
    boxes: list[tuple[float, ...]] = []
    categories: list[int] = []
    ignored: list[bool] = []
    crops: list[Bool[np.ndarray, "h w"]] = []
    for value in np.flatnonzero(np.bincount(pixels.reshape(-1))).tolist():
        group = value < _INSTANCES
        name = _thing(path, value)
        if name is None:
            continue
        for x0, y0, region in _regions(path, pixels == value) if group else [_cropped(pixels == value)]:
            box = (x0, y0, x0 + region.shape[1], y0 + region.shape[0])
            names.append(f"{path}: value {value}: box {', '.join(map(str, box))}")
            boxes.append(tuple(map(float, box)))
            crops.append(region)
            categories.append(_THINGS.index(name))
            ignored.append(group or value // _INSTANCES in _OTHERS)
    if len(crops) * size[0] * size[1] > MOST_VALUES:
        raise ValueError(f"{path}: shows {len(crops):,} instances, more than are kept of an image of its size")
    masks = np.zeros((len(crops), *size), dtype=bool)
    for mask, region, (left, top, *_) in zip(masks, crops, boxes, strict=True):
        mask[int(top) : int(top) + region.shape[0], int(left) : int(left) + region.shape[1]] = region
    labels["detection"] = DetectionTarget(
        box=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        category=torch.tensor(categories, dtype=torch.int64),
        score=torch.ones(len(boxes)),
        ignore=torch.tensor(ignored, dtype=torch.bool),
        mask=torch.from_numpy(masks),
    )
    labels.where["detection"] = names
    said = "are groups, or caravans and trailers: neither learned nor background"
    labels.notes["detection"] = +Counter({said: sum(ignored)})


def _thing(path: str, value: int) -> str | None:
    """The class of an instance, or of a group of them; None where it is of a class without instances.

    Raises:
        ValueError: it has a number, which such classes have not.
    """
    id = value if value < _INSTANCES else value // _INSTANCES
    name = _OTHERS.get(id) or next((n for n in _THINGS if _IDS[n] == id), None)
    if name is None and (value >= _INSTANCES or id > _MOST_ID):
        raise ValueError(f"{path}: value {value} is of class {id}, which has no instances")
    return name


def _cropped(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int, Bool[np.ndarray, "h w"]]:
    """The left, the top and the pixels of the part of a mask that its box holds."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy()


def _regions(path: str, mask: Bool[np.ndarray, "H W"]) -> Iterator[tuple[int, int, Bool[np.ndarray, "h w"]]]:
    """The connected regions of a mask, neighbours by sides, as `_cropped`; from their runs along rows.

    Raises:
        ValueError: it has so many runs that it was not drawn.
    """
    edges = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
    begin, end = np.argwhere(edges == 1), np.argwhere(edges == -1)
    if len(begin) > _MOST_RUNS:
        raise ValueError(f"{path}: has a group in {len(begin):,} pieces, which nobody draws")
    runs = np.column_stack([begin, end[:, 1]]).tolist()  # y, first, behind the last
    owner = [*range(len(runs))]

    def root(i: int) -> int:
        while owner[i] != i:
            owner[i] = owner[owner[i]]
            i = owner[i]
        return i

    above = 0  # the first run that may touch the one at hand from above
    for i, (y, first, last) in enumerate(runs):
        while runs[above][0] < y - 1 or (runs[above][0] == y - 1 and runs[above][2] <= first):
            above += 1
        j = above
        while runs[j][0] == y - 1 and runs[j][1] < last:
            owner[root(j)] = root(i)
            j += 1
    parts: dict[int, list[int]] = {}
    for i in range(len(runs)):
        parts.setdefault(root(i), []).append(i)
    for part in parts.values():
        top, left = runs[part[0]][0], min(runs[i][1] for i in part)
        right = max(runs[i][2] for i in part)
        region = np.zeros((runs[part[-1]][0] - top + 1, right - left), dtype=bool)
        for y, first, last in (runs[i] for i in part):
            region[y - top, first - left : last - left] = True
        yield left, top, region


def load(path: str) -> Dataset:
    """The tree at `path`, which may end in ?labels=coarse.

    Raises:
        ValueError: no such tree, an unknown option, or no image with a map.
    """
    root, values = options(path, {"labels": "fine"})
    folders = {"fine": "gtFine", "coarse": "gtCoarse"}
    if values["labels"] not in folders:
        raise ValueError(f"labels={values['labels']} in cityscapes:{root}: there are fine and coarse")
    if not os.path.isdir(root):
        raise ValueError(f"cityscapes:{root} is no folder: {_LAYOUT}")
    root, taken = found_below(root, lambda folder: os.path.isdir(os.path.join(folder, "leftImg8bit")))
    if not os.path.isdir(os.path.join(root, "leftImg8bit")):
        raise ValueError(f"cityscapes:{root} has no folder leftImg8bit: {_LAYOUT}")
    dataset = Cityscapes(root, folders[values["labels"]])
    dataset.notes[:0] = taken
    return dataset
