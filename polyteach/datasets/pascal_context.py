"""PASCAL-Context (Mottaghi et al., CVPR 2014): the class of every pixel of VOC 2010's images.

    ROOT/trainval/2008_000002.mat               LabelMap: (H, W) of 0..459, 0 is unlabelled
    ROOT/labels.txt                             459 lines "1: accordion"
    ROOT/59_labels.txt                          59 lines "1: aeroplane"
    ROOT/VOC2010/JPEGImages/2008_000002.jpg     or ROOT/VOCdevkit/VOC2010/, or ROOT/JPEGImages/
         VOC2010/ImageSets/Main/train.txt, val.txt

From https://cs.stanford.edu/~roozbeh/pascal-context/ (trainval.tar.gz, labels.txt, 59_labels.txt) and VOC 2010.
SciPy is needed: `pip install 'polyteach[datasets]'`. `pascal-context:ROOT?classes=` is

- 59 (default): the most frequent ones. Pixels of any other class are ignored.
- 60: as well, with all other pixels as class 0, "background", as FCN and MMSegmentation's first version count.
- 459: all of labels.txt; 59_labels.txt is not needed.

The splits are those of VOC's lists: 4,998 images of train and 5,105 of val. Sources: FCN's pascalcontext_layers.py and
ODISE's prepare_pascal_ctx_full_sem_seg.py. Odd cases:

- Three of the 59 names are others in labels.txt: diningtable is table, bedcloth is bedclothes, clothes is cloth. Names
  are compared without their spaces. One that is in neither form there is an error. Two values of one name are one
  class.
- An image of VOC without a .mat is not of this set, and not read; these are counted. A .mat without an image, or in no
  list, is counted too.
- A map is read by SciPy in a process of its own (what it trusts, a stranger wrote), which takes half a second or more.
- A map of another size than its image, or of a value that has no name, is an error.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Int64

from polyteach.datasets import Dataset, Entry, Labels, found_below, options, printable
from polyteach.datasets._files import contents, lines, shown
from polyteach.datasets._matlab import read_matlab
from polyteach.tasks.contract import Space
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget

_SAME = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
"""Names of 59_labels.txt, and what labels.txt calls them."""
_LINE = re.compile(r"(\d{1,5})\s*:\s*(\S.*)")
_MOST = 1 << 24
"""Bytes of a map's file."""
_NONE = -1
_SPLITS = ("train", "val")
_LAYOUT = (
    "expected ROOT/trainval/*.mat, ROOT/labels.txt, ROOT/59_labels.txt and ROOT/VOC2010/ with JPEGImages/ and "
    "ImageSets/Main/train.txt"
)


class PascalContext(Dataset):
    """train, then val, each in the order of its list."""

    def __init__(self, root: str, classes: str) -> None:
        self._root = root
        names, self._table = _classes(root, classes)
        voc = next((v for v in ("VOC2010", "VOCdevkit/VOC2010", ".") if os.path.isdir(f"{root}/{v}/JPEGImages")), None)
        if voc is None:
            raise ValueError(f"pascal-context:{root} has no folder JPEGImages of VOC 2010: {_LAYOUT}")
        self._images = os.path.normpath(os.path.join(voc, "JPEGImages"))
        maps = {f.removesuffix(".mat") for f in os.listdir(f"{root}/trainval") if f.endswith(".mat")}
        self._rows: list[tuple[str, str]] = []
        taken: set[str] = set()
        others = 0
        for split in _SPLITS:
            for id in _list(f"{root}/{voc}/ImageSets/Main/{split}.txt"):
                others += id not in maps
                if id in maps and id not in taken:
                    self._rows.append((id, split))
                    taken.add(id)
        if not self._rows:
            raise ValueError(f"pascal-context:{root}: no image of ImageSets/Main/ has a map in trainval/: {_LAYOUT}")
        super().__init__([printable(f"{self._images}/{id}.jpg") for id, _ in self._rows])
        self.spaces["segmentation"] = Space(names)
        self.left_out = +Counter({"images of VOC without a map": others, "maps in no list": len(maps - taken)})

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for id, split in self._rows[start:stop]:
            uri = os.path.join(self._root, self._images, f"{id}.jpg")
            yield Entry(uri=uri, split=split, targets=partial(self._targets, id))

    def _targets(self, id: str, size: tuple[int, int]) -> Labels:
        category = torch.from_numpy(_read(os.path.join(self._root, "trainval", f"{id}.mat"), self._table, size))
        return {"segmentation": SegmentationTarget(category=category, probability=(category != IGNORE).float())}


def _read(path: str, table: Int64[np.ndarray, " V"], size: tuple[int, int]) -> Int64[np.ndarray, "H W"]:
    """The categories of a map of an image of (height, width) `size`.

    Raises:
        ValueError: missing, broken, of another size, or of a value that has no name.
    """
    found = read_matlab(path, contents(path, _MOST), ["LabelMap"])
    shape = found.get("LabelMap.shape")
    if shape is None:
        raise ValueError(f"{path}: has no variable LabelMap of numbers")
    if shape != [side for side in size if side > 1]:  # those of 1 are left out
        raise ValueError(f"{path}: LabelMap is {shape} (height, width), but the image is {size[0]} x {size[1]}")
    values = np.array(found["LabelMap"], dtype=np.float64).reshape(size)
    if not ((values >= 0) & (values < len(table)) & (values == np.floor(values))).all():
        raise ValueError(f"{path}: LabelMap holds values that are none of 0..{len(table) - 1}")
    pixels = values.astype(np.int64)
    category = table[pixels]
    if (category == _NONE).any():
        raise ValueError(f"{path}: LabelMap holds {int(pixels[category == _NONE][0])}, which labels.txt does not name")
    return category


def _classes(root: str, classes: str) -> tuple[tuple[str, ...], Int64[np.ndarray, " V"]]:
    """The names, and the category of each value of a map: IGNORE, or -1 for what has no name.

    Raises:
        ValueError: a list is missing or broken, or one of the 59 is not among all.
    """
    every = _named(f"{root}/labels.txt")
    table = np.full(max(every) + 1, _NONE, dtype=np.int64)
    if classes == "459":
        names = list(dict.fromkeys(every[i] for i in sorted(every)))
        table[0] = IGNORE
        table[list(every)] = [names.index(name) for name in every.values()]
        return tuple(names), table
    some = _named(f"{root}/59_labels.txt")
    background = classes == "60"
    table[[0, *every]] = 0 if background else IGNORE
    names = ["background"] if background else []
    for i in sorted(some):
        name = some[i].replace(" ", "")
        forms = (name, _SAME.get(name, name))
        values = [v for v, other in every.items() if other.replace(" ", "") in forms]
        if not values:
            raise ValueError(f"{root}/59_labels.txt: {some[i]!r} is none of the {len(every)} classes of labels.txt")
        table[values] = len(names)
        names.append(some[i])
    return tuple(names), table


def _named(path: str) -> dict[int, str]:
    """The names of a list by the values that pixels have, from 1 on; 0, if it is there, is left out.

    Raises:
        ValueError: a line is none of VALUE: NAME, or a value comes twice.
    """
    found: dict[int, str] = {}
    for i, line in enumerate(lines(path), 1):
        match = _LINE.fullmatch(line.strip())
        if match is None and line.strip():
            raise ValueError(f"{path}: line {i}: must be a value and a name, as 1: aeroplane; got {shown(line)}")
        if match is None:
            continue
        if int(match[1]) in found:
            raise ValueError(f"{path}: line {i}: {match[1]} is {found[int(match[1])]!r} already")
        found[int(match[1])] = printable(match[2])
    found.pop(0, None)
    if not found:
        raise ValueError(f"{path}: names no class")
    return found


def _list(path: str) -> list[str]:
    """The images of a list.

    Raises:
        ValueError: it is missing, or names what is no image.
    """
    ids = [words[0] for words in map(str.split, lines(path)) if words]
    for id in ids:
        if id != os.path.basename(id) or "\0" in id:
            raise ValueError(f"{path}: {id[:60]!r} is no name of an image")
    return ids


def load(path: str) -> Dataset:
    """The tree at `path`, which may end in ?classes=59, 60 or 459.

    Raises:
        ValueError: no such tree, an unknown option, or a list that is missing or broken.
    """
    root, values = options(path, {"classes": "59"})
    if values["classes"] not in ("59", "60", "459"):
        raise ValueError(f"classes={values['classes']} in pascal-context:{root}: there are 59, 60 and 459")
    if not os.path.isdir(root):
        raise ValueError(f"pascal-context:{root} is no folder: {_LAYOUT}")
    root, taken = found_below(root, lambda folder: os.path.isdir(os.path.join(folder, "trainval")))
    if not os.path.isdir(os.path.join(root, "trainval")):
        raise ValueError(f"pascal-context:{root} has no folder trainval: {_LAYOUT}")
    dataset = PascalContext(root, values["classes"])
    dataset.notes[:0] = taken
    return dataset
