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

**The same files with classes of your own**, as labelImg, CVAT and Roboflow write them, in trees of any name:

    ROOT/JPEGImages/a.jpg      ROOT/Annotations/a.xml      ROOT/SegmentationClass/a.png, ROOT/ImageSets/Main/train.txt
    ROOT/images/a.jpg          ROOT/annotations/a.xml      or below folders of splits
    ROOT/train/a.jpg           ROOT/train/a.xml            Roboflow's

`voc:ROOT?classes=a,b,c` or `?classes=FILE` (a name on each line, or any form that masks: takes) says which there are;
`?classes=own` takes those that the XML files name, sorted. Without it, a tree that is called VOC2007 to VOC2012 has
VOC's twenty; another one has those of labelmap.txt in ROOT (CVAT's), else VOC's twenty if it names no others, else its
own. What was taken is said. In such trees:

- Splits are the lists in ImageSets/Main/ (any names; lists of one class with 1 and -1 are not read), or else folders of
  such names, or none. All splits are labelled, test too. An image without XML, in no list, is unlabelled.
- A box is counted from 1 as VOC's, unless one of the XML files has a box that begins before 1: then all are counted
  from 0, which is said; `?first=0` or `?first=1` says it. A file may say no size of its image, or 0.
- SegmentationClass is read where the order of the classes is known: from a list or a file, of which the first is index
  0 if it is called background, else 1; by colour where the file has colours. 255 is void where it is no class, and so
  is a class called void or ignore.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from polyteach.datasets import SPLITS, Dataset, Drawn, Entry, Labels, Protocol, found_below, kind, options, printable
from polyteach.datasets._files import class_map, lines
from polyteach.datasets._voc_own import OwnVoc
from polyteach.datasets._voc_xml import Reading, objects
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES
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
_TWENTY = Reading(
    {name: i for i, name in enumerate(CLASSES)},
    f"VOC's classes: {', '.join(CLASSES)}; for classes of your own give ?classes=own",
)
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
            labels = objects(os.path.join(row.folder, "Annotations", f"{row.id}.xml"), size, _TWENTY)
        if "segmentation" in row.tasks:
            labels["segmentation"] = _pixels(os.path.join(row.folder, "SegmentationClass", f"{row.id}.png"), size)
        return labels


def _years(root: str) -> list[tuple[str, str]]:
    """(folder, year) of each year there is."""
    if os.path.isdir(os.path.join(root, "ImageSets")):
        match = _YEAR.fullmatch(os.path.basename(os.path.normpath(root)))
        return [(root, match[1])] if match else []
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


def _is_own(folder: str) -> bool:
    """Whether a folder is the root of a tree of no year, or of a split of one."""
    try:
        there = os.listdir(folder) if os.path.isdir(folder) else []
    except OSError:
        return False
    return any(f in ("JPEGImages", "ImageSets") or f.lower() in ("annotations", "xmls") for f in there) or any(
        f.endswith(".xml") for f in there
    )


def _is_tree(folder: str) -> bool:
    return bool(_years(folder)) or any(
        _is_own(os.path.join(folder, f)) for f in (".", *os.listdir(folder)) if f == "." or f.lower() in SPLITS
    )


def load(path: str) -> Dataset:
    """The VOCdevkit folder at `path`, or the folder of one year, or a tree with classes of its own.

    Raises:
        ValueError: no such tree, or a list or an option that is broken; names it.
    """
    root, values = options(path, {"classes": "", "first": ""})
    if not os.path.isdir(root):
        raise ValueError(f"voc:{root} is no folder: {_LAYOUT}")
    if values["first"] not in ("", "0", "1"):
        raise ValueError(f"?first={values['first']}: is one of 0, 1")
    root, taken = found_below(root, _is_tree)
    years = _years(root)
    dataset: Dataset
    if not _is_tree(root) or (years and not values["classes"]):
        if values["first"]:
            raise ValueError(f"voc:{root}?first= is for classes of your own: give ?classes=own too")
        dataset = Voc(root)
    else:
        dataset = OwnVoc(root, [folder for folder, _ in years] or [root], values["classes"], values["first"], CLASSES)
    dataset.notes[:0] = taken
    return dataset
