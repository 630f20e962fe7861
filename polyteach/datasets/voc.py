"""Pascal VOC 2007 to 2012 (Everingham et al., IJCV 2010 and 2015): boxes, and classes of pixels.

    ROOT/VOC2007/JPEGImages/000005.jpg             ROOT is the VOCdevkit folder that the archives unpack to
         VOC2012/Annotations/2007_000027.xml       boxes; or ROOT is VOC2012 itself
                 ImageSets/Main/train.txt          the images of each split: train, val, test
                 ImageSets/Segmentation/train.txt
                 SegmentationClass/2007_000032.png

Splits are "2007/train", "2007/val", "2007/test", "2012/train", "2012/val", "2012/test"; trainval is their union, and
read only where neither train.txt nor val.txt is there. The format's source: the development kit
(http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, devkit_doc, VOCreadrecxml.m, VOCinit.m). Its odd cases:

- A box is in pixels counted from 1, both ends included: xmin..xmax becomes xmin - 1 .. xmax. Fractions occur. A
  box that ends where it begins would be a pixel wide; VOC has no such object, so it is taken for a mistake.
- A box from 0 on (a file that counts from 0) begins a pixel before the image: it is clipped and counted, as is
  every box that reaches up to 2 pixels or 1 % of the side beyond it. One that reaches farther or lies outside is an
  error, and so are boxes that are all within the first pixel: fractions.
- `difficult` objects are ignored; no such field means 0. Parts of people (`part`) have boxes and are no objects.
- A class map is a palette PNG whose indices are the classes: 0 background, 1..20 as for boxes, 255 void (ignored).
- An image is labelled for a task only in that task's lists, as the challenges count. One that is in one split of
  Main and another of Segmentation comes twice, once in each, so that both challenges keep their splits.
- The labels of test are public for 2007 only. Those images of later years are unlabelled, and what Annotations/ has
  of them (people, for the action challenge) is not read.
- Images in no list (those of the other challenges) are counted.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from xml.etree.ElementTree import Element

import numpy as np
import torch

from polyteach.datasets import Dataset, Drawn, Entry, Labels, Protocol, found_below, kind, options, printable
from polyteach.datasets._files import class_map, lines, shown, xml
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, DetectionTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""In the order of VOCinit.m."""
VOID = 255
"""In a class map: the border of an object, or what is hard to tell."""

_CATEGORY = np.arange(256, dtype=np.int64)
_CATEGORY[VOID] = IGNORE
"""By the index in a class map."""
_FAR = 1e9
_YEAR = re.compile(r"VOC(20\d\d)")
_LISTS = {"detection": "Main", "segmentation": "Segmentation"}
_LAYOUT = "expected ROOT/VOC2007 or ROOT/VOC2012 with JPEGImages/, Annotations/ and ImageSets/Main/train.txt"

# METHOD.md: 07+12 -> 2007 test by AP50, and 12 train -> 12 val by mIoU. The MuST paper's schedule was not recovered:
# batch 16 and the middle of the grid follow MoCo's transfers (He et al., CVPR 2020: boxes 24,000 steps at 0.02; pixels
# 0.003, 513-pixel views); the views are of the sibling configurations' 512 pixels.
PROTOCOLS = {
    "voc-detection": Protocol(
        task="detection",
        train=("2007/train", "2007/val", "2012/train", "2012/val"),
        validation=0.1,
        test=("2007/test",),
        metric="AP50",
        size=512,
        lrs=(0.005, 0.01, 0.02, 0.04),
        steps=(6_000, 24_000),
        batch_size=16,
        few={"shots": 10},
    ),
    "voc-segmentation": Protocol(
        task="segmentation",
        train=("2012/train",),
        validation=0.1,
        test=("2012/val",),
        metric="mIoU",
        size=512,
        lrs=(0.003, 0.01, 0.03, 0.1),
        steps=(2_500, 10_000),
        batch_size=16,
        few={"fraction": 0.1},
    ),
}


@dataclass(frozen=True)
class _Row:
    """One image of one split. tasks: that it is labelled for. problem: of its place in the lists."""

    folder: str
    split: str
    id: str
    tasks: tuple[str, ...]
    problem: str | None


class Voc(Dataset):
    """By year, then split, in the order of the lists."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._rows: list[_Row] = []
        for folder, year in _years(root):
            self._rows += _rows(folder, year)
        if not self._rows:
            raise ValueError(f"voc:{root} has no lists of images: {_LAYOUT}")
        here = [f"{os.path.relpath(r.folder, root)}/JPEGImages/{r.id}.jpg" for r in self._rows]
        super().__init__([printable(os.path.normpath(n).replace(os.sep, "/")) for n in here])
        labelled = {t for r in self._rows for t in r.tasks}
        spaces = {"detection": Space(CLASSES, BOXES), "segmentation": Space(("background", *CLASSES))}
        self.spaces = {t: s for t, s in spaces.items() if t in labelled}
        for folder, _ in _years(root):
            listed = {f"{r.id}.jpg" for r in self._rows if r.folder == folder}
            images = os.path.join(folder, "JPEGImages")
            there = os.listdir(images) if os.path.isdir(images) else []
            if unlisted := sum(kind(f) is None and f not in listed for f in there):
                self.left_out["images in no list of ImageSets"] += unlisted

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for row in self._rows[start:stop]:
            if row.problem is not None:
                yield Entry(problem=row.problem, split=row.split)
                continue
            uri = os.path.join(row.folder, "JPEGImages", f"{row.id}.jpg")
            yield Entry(uri=uri, split=row.split, targets=partial(self._targets, row))

    def _targets(self, row: _Row, size: tuple[int, int]) -> Labels:
        labels = Drawn()
        if "detection" in row.tasks:
            labels = _boxes(os.path.join(row.folder, "Annotations", f"{row.id}.xml"), size)
        if "segmentation" in row.tasks:
            labels["segmentation"] = _pixels(os.path.join(row.folder, "SegmentationClass", f"{row.id}.png"), size)
        return labels


def _years(root: str) -> list[tuple[str, str]]:
    """(folder, year) of each year there is."""
    if os.path.isdir(os.path.join(root, "ImageSets")):
        match = _YEAR.fullmatch(os.path.basename(os.path.normpath(root)))
        if match is None:
            raise ValueError(f"voc:{root} is one year by its ImageSets/, and its name tells no year: name it VOC2012")
        return [(root, match[1])]
    items = sorted(os.listdir(root))
    return [(os.path.join(root, i), m[1]) for i in items if (m := _YEAR.fullmatch(i))]


def _rows(folder: str, year: str) -> list[_Row]:
    lists = {t: _lists(os.path.join(folder, "ImageSets", name)) for t, name in _LISTS.items()}
    rows: list[_Row] = []
    seen: dict[tuple[str, str], str] = {}
    for split in ("train", "val", "trainval", "test"):
        public = split != "test" or year == "2007"
        tasks: dict[str, list[str]] = {}
        problems: dict[str, str] = {}
        for task, found in lists.items():
            for id in found.get(split, []):
                file = f"{folder}/ImageSets/{_LISTS[task]}/{split}.txt"
                if (task, id) in seen:
                    problems[id] = f"{file}: {id}: is in {seen[task, id]} already"
                seen.setdefault((task, id), file)
                tasks.setdefault(id, []).append(task)
        named = {id: tuple(dict.fromkeys(t)) if public else () for id, t in tasks.items()}
        rows += [_Row(folder, f"{year}/{split}", id, t, problems.get(id)) for id, t in named.items()]
    return rows


def _lists(folder: str) -> dict[str, list[str]]:
    """The names in each split's list; those of one class (cat_train.txt) are not read."""
    found: dict[str, list[str]] = {}
    for split in ("train", "val", "test", "trainval"):
        path = os.path.join(folder, f"{split}.txt")
        if not os.path.lexists(path) or (split == "trainval" and ("train" in found or "val" in found)):
            continue
        words = [line.split() for line in lines(path)]
        found[split] = [line[0] for line in words if line]
        for id in found[split]:
            if id != os.path.basename(id):
                raise ValueError(f"{path}: {id!r} is no name of an image")
    return found


def _boxes(path: str, size: tuple[int, int]) -> Drawn:
    """The objects of an XML file.

    Raises:
        ValueError: the file is missing or broken, or of an image of another size; names the field.
    """
    tree = xml(path)
    sides = tuple(int(_number(path, tree, f"size/{side}")) for side in ("height", "width"))
    if sides != size:
        raise ValueError(
            f"{path}: size: {sides[0]} x {sides[1]} (height x width), but the image is {size[0]} x {size[1]}"
        )
    box, category, ignore, names = [], [], [], []
    for i, thing in enumerate(tree.findall("object")):
        where = f"{path}: object[{i}]"
        name = (thing.findtext("name") or "").strip()
        if name not in CLASSES:
            raise ValueError(f"{where}.name: {shown(name)} is none of VOC's classes: {', '.join(CLASSES)}")
        x0, y0, x1, y1 = (_number(where, thing, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
        if x1 <= x0 or y1 <= y0:
            raise ValueError(f"{where}.bndbox: must end after it begins; got {x0:g}, {y0:g}, {x1:g}, {y1:g}")
        difficult = (thing.findtext("difficult") or "0").strip()
        if difficult not in ("0", "1"):
            raise ValueError(f"{where}.difficult: must be 0 or 1; got {shown(difficult)}")
        if max(map(abs, (x0, y0, x1, y1))) > _FAR:
            raise ValueError(f"{where}.bndbox: lies far beyond any image; got {x0:g}, {y0:g}, {x1:g}, {y1:g}")
        names.append(f"{where}.bndbox of {name!r}: {x0:g}, {y0:g}, {x1:g}, {y1:g}")
        box.append([x0 - 1, y0 - 1, x1, y1])
        category.append(CLASSES.index(name))
        ignore.append(difficult == "1")
    if box and all(max(corners) <= 1 for corners in box):
        raise ValueError(f"{names[0]}: all boxes of the file are within a pixel: they are counted in pixels from 1")
    target = DetectionTarget(
        box=torch.tensor(box, dtype=torch.float32).view(-1, 4),
        category=torch.tensor(category, dtype=torch.int64),
        score=torch.ones(len(box)),
        ignore=torch.tensor(ignore, dtype=torch.bool),
    )
    labels = Drawn({"detection": target})
    labels.where["detection"] = names
    labels.notes["detection"] = +Counter({"are difficult, and not learned": sum(ignore)})
    return labels


def _number(where: str, above: Element, field: str) -> float:
    text = above.findtext(field)
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        got = "it is missing" if text is None else f"got {text!r:.40}"
        raise ValueError(f"{where}: {field.replace('/', '.')}: must be a number; {got}")
    return value


def _pixels(path: str, size: tuple[int, int]) -> SegmentationTarget:
    """A class map.

    Raises:
        ValueError: missing, broken, of another size, no palette PNG, or with an index that is no class.
    """
    indices = class_map(path, size, ("P", "L"), "a palette PNG, whose indices are the classes")
    wrong = indices[(indices > len(CLASSES)) & (indices != VOID)]
    if len(wrong):
        raise ValueError(f"{path}: index {wrong[0]} is no class: 0..{len(CLASSES)}, and {VOID} = void")
    category = torch.from_numpy(_CATEGORY[indices])
    return SegmentationTarget(category=category, probability=(category != IGNORE).float())


def load(path: str) -> Dataset:
    """The VOCdevkit folder at `path`, or the folder of one year.

    Raises:
        ValueError: no such tree, or a list that is broken; names it.
    """
    root, _ = options(path, {})
    if not os.path.isdir(root):
        raise ValueError(f"voc:{root} is no folder: {_LAYOUT}")
    root, taken = found_below(root, lambda folder: bool(_years(folder)))
    dataset = Voc(root)
    dataset.notes += taken
    return dataset
