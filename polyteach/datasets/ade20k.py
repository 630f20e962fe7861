"""ADE20K (Zhou et al., CVPR 2017 and IJCV 2019): classes of pixels, in two releases.

SceneParse150, the benchmark of 150 classes (http://sceneparsing.csail.mit.edu, ADEChallengeData2016.zip):

    ROOT/ADEChallengeData2016/objectInfo150.txt                     Idx Ratio Train Val Name
                              images/training/ADE_train_00000001.jpg
                              annotations/training/ADE_train_00000001.png
                              images/validation/  annotations/validation/       ROOT may be the folder itself
    ROOT/release_test/testing/ADE_test_00000001.jpg                 no annotations (release_test.zip)

- An annotation is a PNG of 8-bit indices: 0 is any other object and ignored, 1..150 are the classes.
- A class is named by all its words: "building, edifice". Copies of the list with a column Stuff before Name are read
  too, since its first line names the columns. The published one (https://github.com/CSAILVision/sceneparsing) has stray
  spaces: "22 ", "bed ".

The full release (https://github.com/CSAILVision/ADE20K, its README and utils/utils_ade20k.py), over 3,000 classes:

    ROOT/ADE20K_2021_17_01/index_ade20k.pkl                         ROOT may be the folder itself
                           images/ADE/training/urban/street/ADE_train_00016869.jpg
                                                            ADE_train_00016869_seg.png
                                                            ADE_train_00016869.json
                                                            ADE_train_00016869_parts_1.png  ADE_train_00016869/
                           images/ADE/validation/

- A pixel of a *_seg.png is the class (R div 10) * 256 + G, from 1; 0 is not labelled and ignored. B tells instances.
- Classes are those of the index, in its order; without an index, those that any object of any JSON names by `name_ndx`
  and `name`, in the order of name_ndx. All JSON files are then read at the start, which takes minutes. Class 165 is the
  index's objectnames[164] (issue 15 of that repository). The index is a pickle, which can run code: it is opened by a
  reader that makes lists, text and numbers, and keeps no array.
- Parts of objects (*_parts_*.png) and the folders of single instances are not read.

Splits are "training", "validation" and "test".
"""

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from polyteach.datasets import Dataset, Entry, Labels, Protocol, found_below, kind, options, printable
from polyteach.datasets._files import class_map, contents, json_of, lines, opened, shown
from polyteach.datasets._pickles import unpickled
from polyteach.tasks.contract import Space
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget

_CHALLENGE, _FULL = "ADEChallengeData2016", "ADE20K_2021_17_01"
_SPLITS = ("training", "validation")
_LAYOUT = (
    f"expected ROOT/{_CHALLENGE} with images/training/ and annotations/training/ (SceneParse150), "
    f"or ROOT/{_FULL} with images/ADE/training/ (the full release)"
)
_INDEX = "index_ade20k.pkl"

# METHOD.md: 20k training images, mIoU. The paper's schedule was not recovered: batch 16, 512-pixel views, 80,000
# steps and a learning rate of 0.01 are the usual ones for ADE20K with SGD (MMSegmentation's configurations).
PROTOCOLS = {
    "ade20k": Protocol(
        task="segmentation",
        train=("training",),
        validation=0.1,
        test=("validation",),
        metric="mIoU",
        size=512,
        lrs=(0.003, 0.01, 0.03, 0.1),
        steps=(20_000, 80_000),
        batch_size=16,
        few={"fraction": 0.1},
    )
}


@dataclass(frozen=True)
class _Row:
    """One image. image, labels: files; no `labels` means unlabelled. problem: why it cannot be used."""

    image: str
    labels: str | None
    split: str
    problem: str | None = None


class Ade20k(Dataset):
    """By split, training first, then by path."""

    def __init__(self, root: str, rows: list[_Row], classes: dict[int, str], full: bool) -> None:
        """`classes`: by what annotations call them. `full`: annotations are colours, not indices."""
        super().__init__([printable(os.path.relpath(row.image, root).replace(os.sep, "/")) for row in rows])
        self._rows = rows
        self._read = _colours if full else _indices
        self.spaces = {"segmentation": Space(tuple(classes.values()))}
        self._lookup = np.full(max(classes) + 1, -1, np.int64)
        self._lookup[list(classes)] = np.arange(len(classes))
        self._lookup[0] = IGNORE

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for row in self._rows[start:stop]:
            if row.problem is not None:
                yield Entry(problem=row.problem, split=row.split)
            else:
                targets = None if row.labels is None else partial(self._targets, row.labels)
                yield Entry(uri=row.image, split=row.split, targets=targets)

    def _targets(self, path: str, size: tuple[int, int]) -> Labels:
        called = self._read(path, size)
        found = np.unique(called)
        known = found < len(self._lookup)
        known[known] = self._lookup[found[known]] >= 0
        if not known.all():
            names = self.spaces["segmentation"].names
            raise ValueError(
                f"{path}: class {found[~known][0]} is out of range: none of the {len(names):,} that there are"
            )
        category = torch.from_numpy(self._lookup[called])
        return {"segmentation": SegmentationTarget(category=category, probability=(category != IGNORE).float())}


def _indices(path: str, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W) as SceneParse150 stores them."""
    return class_map(path, size, ("L", "P"), "a PNG of 8-bit indices")


def _colours(path: str, size: tuple[int, int]) -> np.ndarray:
    """uint16 (H, W) from the full release's red and green."""
    pixels = class_map(path, size, ("RGB", "RGBA"), "an RGB PNG, whose red and green are the class")
    return pixels[..., 0].astype(np.uint16) // 10 * 256 + pixels[..., 1]


# ---------------------------------------------------------------- SceneParse150


def _challenge(root: str, base: str) -> Ade20k:
    classes = _object_info(os.path.join(base, "objectInfo150.txt"))
    rows: list[_Row] = []
    left = 0
    for split in _SPLITS:
        folders = [os.path.join(base, name, split) for name in ("images", "annotations")]
        images, others = _images(folders[0])
        annotations, strange = _images(folders[1])
        left += others + strange
        for stem in sorted(images.keys() | annotations.keys()):
            image, labels = images.get(stem), annotations.get(stem)
            problem = None
            if image is None:
                problem = f"{os.path.join(folders[0], stem)}.jpg: missing; {labels} annotates it"
            elif labels is None:
                problem = f"{os.path.join(folders[1], stem)}.png: missing"
            rows.append(_Row(image or f"{os.path.join(folders[0], stem)}.jpg", labels, split, problem))
    for folder in dict.fromkeys(
        os.path.join(x, "release_test", "testing") for x in (root, base, os.path.dirname(base))
    ):
        images, others = _images(folder)
        left += others
        rows += [_Row(images[stem], None, "test") for stem in sorted(images)]
        if images:
            break
    if not any(row.labels for row in rows):
        raise ValueError(f"ade20k:{root} has no annotations: {_LAYOUT}")
    dataset = Ade20k(root, rows, classes, full=False)
    if left:
        dataset.left_out["files that are no images, or second ones of a name"] += left
    return dataset


def _images(folder: str) -> tuple[dict[str, str], int]:
    """Files of a folder by name without ending, and how many are no images; nothing where there is no folder."""
    if not os.path.isdir(folder):
        return {}, 0
    files = os.listdir(folder)
    taken = [f for f in files if kind(f) is None]
    found = {os.path.splitext(f)[0]: os.path.join(folder, f) for f in sorted(taken)}
    return found, len(files) - len(found)


def _object_info(path: str) -> dict[int, str]:
    try:
        found = [(i, line.strip()) for i, line in enumerate(lines(path), 1) if line.strip()]
    except ValueError as e:
        raise ValueError(f"{e}; it names the classes") from e
    columns = found[0][1].split() if found else []
    if len(columns) < 2 or (columns[0], columns[-1]) != ("Idx", "Name"):
        raise ValueError(f"{path}: line 1: must name the columns: Idx Ratio Train Val Name")
    classes: dict[int, str] = {}
    for i, line in found[1:]:
        words = line.split(None, len(columns) - 1)  # only names have spaces in them
        if len(words) != len(columns) or words[0] != str(len(classes) + 1):
            raise ValueError(f"{path}: line {i}: must be {' '.join(columns)}, with Idx {len(classes) + 1}")
        classes[int(words[0])] = words[-1]
    if not classes:
        raise ValueError(f"{path}: names no class")
    return classes


# ---------------------------------------------------------------- the full release


def _full(root: str, base: str) -> Ade20k:
    rows: list[_Row] = []
    left = 0
    index = os.path.join(base, _INDEX)
    indexed = os.path.lexists(index)
    classes = _object_names(index) if indexed else {}
    for split in _SPLITS:
        for folder, folders, files in os.walk(os.path.join(base, "images", "ADE", split)):
            there = set(files)
            stems = {f.removesuffix(".jpg") for f in files if f.endswith(".jpg")}
            marked = {f.removesuffix("_seg.png") for f in files if f.endswith("_seg.png")}
            # a folder named like an image holds a file for each of its instances
            folders[:] = sorted(f for f in folders if f not in stems | marked)
            taken = {f"{s}{ending}" for s in stems | marked for ending in (".jpg", ".json", "_seg.png")}
            left += sum(f not in taken and "_parts_" not in f for f in files)
            for stem in sorted(stems | marked):
                start = os.path.join(folder, stem)
                needed = [f"{stem}.jpg", f"{stem}_seg.png"] + ([] if indexed else [f"{stem}.json"])
                absent = [os.path.join(folder, f) for f in needed if f not in there]
                problem = f"{absent[0]}: missing" if absent else None
                if problem is None and not indexed:
                    problem = _add_names(f"{start}.json", classes)
                rows.append(_Row(f"{start}.jpg", f"{start}_seg.png", split, problem))
    if not rows:
        raise ValueError(f"ade20k:{root} has no images: {_LAYOUT}")
    if not classes:
        raise ValueError(f"ade20k:{root}: no JSON file names an object (annotation.object), and there is no {index}")
    # os.walk is by folder; names are by path
    order = sorted(rows, key=lambda row: (_SPLITS.index(row.split), row.image))
    dataset = Ade20k(root, order, dict(sorted(classes.items())), full=True)
    if left:
        dataset.left_out["files of no image"] += left
    return dataset


def _add_names(path: str, classes: dict[int, str]) -> str | None:
    """Add to `classes` what the objects of a JSON file are called; the problem if it is broken."""
    try:
        data = contents(path)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = data.decode("latin-1")  # what annotators typed; the names themselves are ASCII
        objects = json_of(path, text)
    except ValueError as e:
        return str(e)
    for key in ("annotation", "object"):
        if not isinstance(objects, dict) or key not in objects:
            return f"{path}: annotation.object: missing"
        objects = objects[key]
    if isinstance(objects, dict):
        objects = [objects]  # how MATLAB's exporter writes a list of one
    if not isinstance(objects, list):
        return f"{path}: annotation.object: must be a list"
    found: dict[int, str] = {}
    for i, thing in enumerate(objects):
        thing = thing if isinstance(thing, dict) else {}
        number, name = thing.get("name_ndx"), thing.get("name")
        if type(number) is not int or not 0 < number < IGNORE:
            return f"{path}: annotation.object[{i}].name_ndx: must be a whole number above 0; got {shown(number)}"
        if not isinstance(name, str):
            return f"{path}: annotation.object[{i}].name: must be text; got {shown(name)}"
        known = found.get(number, classes.get(number))
        name = printable(name)
        if known is not None and known != name:
            return f"{path}: annotation.object[{i}].name: {number} is {shown(name)} here and {shown(known)} elsewhere"
        found[number] = name
    classes |= found
    return None


class _Nothing:
    """Stands for a NumPy array or dtype of the index, which is not kept."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_ARRAYS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("_codecs", "encode"),
}
"""The globals that a pickle of arrays names."""


class _Unpickler(pickle.Unpickler):
    """Makes lists, dictionaries, text and numbers."""

    def find_class(self, module: str, name: str) -> type[_Nothing]:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"global '{module}.{name}' is refused")
        return _Nothing


def _object_names(path: str) -> dict[int, str]:
    """The names of the index by number, from 1."""
    with opened(path) as file:
        try:
            content = unpickled(_Unpickler, file)
        except Exception as e:  # a broken pickle raises nearly anything
            raise ValueError(f"{path} is broken or no index of ADE20K: {type(e).__name__}: {e}") from e
    names = content.get("objectnames") if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{path}: field 'objectnames' is missing or no list of text")
    return {i: printable(name) for i, name in enumerate(names, 1)}


def load(path: str) -> Dataset:
    """The tree at `path`.

    Raises:
        ValueError: no such tree, or both releases; a file that names the classes is missing or broken.
    """
    root, _ = options(path, {})
    if not os.path.isdir(root):
        raise ValueError(f"ade20k:{root} is no folder: {_LAYOUT}")
    root, taken = found_below(root, lambda folder: bool(_releases(folder)))
    found = _releases(root)
    if len(found) != 1:
        both = f"holds both releases, whose classes differ; give one, such as ade20k:{os.path.join(root, _FULL)}"
        raise ValueError(f"ade20k:{root} {both if found else f'holds neither release: {_LAYOUT}'}")
    ((name, base),) = found.items()
    dataset = _challenge(root, base) if name == _CHALLENGE else _full(root, base)
    dataset.notes += taken
    return dataset


def _releases(root: str) -> dict[str, str]:
    """The releases that are in a folder, and the folder of each: that one, or the one that its archive makes."""
    marks = {_CHALLENGE: "annotations", _FULL: os.path.join("images", "ADE")}
    found = {}
    for name, mark in marks.items():
        for base in (root, os.path.join(root, name)):
            if os.path.isdir(os.path.join(base, mark)):
                found[name] = base
    return found
