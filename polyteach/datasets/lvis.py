"""LVIS (Gupta et al., CVPR 2019), versions 0.5 and 1: boxes and outlines of 1,203 classes on COCO's images.

    ROOT/annotations/lvis_v1_train.json        or in ROOT; also _val, _minival, and lvis_v1_image_info_test_dev.json
    ROOT/train2017/000000391895.jpg            or ROOT/images/train2017/; also val2017/, test2017/

LVIS is labelled by halves. An image says which classes it has (`annotations`), which of some others it has not
(`neg_category_ids`), and nothing of the rest; and of the classes in `not_exhaustive_category_ids` some objects are
not drawn. The labels of a store cannot say that a class was not looked for: what no box covers is background, to the
training and to the metric. So it has to be said what to do:

- `lvis:ROOT?unlabelled=background` takes what is not drawn for background, as Detectron2's Mask R-CNN does
  without its federated loss. Objects that nobody drew are then learned as background, and AP is lower than lvis-api's,
  which passes over detections of classes that an image says nothing of. How many images this is of is told.
- `&inexhaustive=absent` leaves the images out (they stay, unlabelled) of which it is known that objects are not drawn.

The source: lvis-api's `lvis.py` and `eval.py`, and Detectron2's `data/datasets/lvis.py`. Odd cases:

- An image is what the last two parts of `coco_url` name, train2017/000000391895.jpg: version 1 has no `file_name`, and
  its val has images of train2017 too. Without the address, version 0.5's COCO_val2014_000000397133.jpg stands for
  000000397133.jpg, in whichever of train2017, val2017 and test2017 it is.
- Two records of one image in a file are an error of both: each would call the other's objects background.
- A split of whose images none is there is passed over, and counted; one that is missing beside others is an error.
- An annotation of a class that `neg_category_ids` says is not there spoils its image.
- The rest is as in COCO's files (`coco:`): ids with gaps, outlines, boxes that reach beyond the image.
- Two files of one split, as of both versions, are an error: keep one.
"""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from polyteach.datasets import Dataset, Entry, Labels, found_below, options, printable
from polyteach.datasets._coco import CocoFile
from polyteach.datasets._files import shown
from polyteach.datasets._tree import Tree
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, MASKS

_FILE = re.compile(r"lvis_v[\d.]+?_(image_info_)?([a-z][a-z_]*)\.json")
_OLD = re.compile(r"COCO_[a-z]+2014_(\d{12}\.jpg)")
_FOLDERS = ("train2017", "val2017", "test2017")
_LAYOUT = (
    "expected ROOT/annotations/lvis_v1_train.json (or _val) with COCO's images in ROOT/train2017/ and ROOT/val2017/"
)


class _LvisFile(CocoFile):
    """COCO's, with what each image says of classes.

    absent: by image, ids of classes that it has not. partial: those of which some objects are not drawn.
    """

    def __init__(self, path: str, *, labelled: bool = True) -> None:
        self.absent: dict[int, frozenset[int]] = {}
        self.partial: dict[int, frozenset[int]] = {}
        super().__init__(path, labelled=labelled)

    def _image(self, index: int, value: Any) -> None:
        row = len(self.names)
        if isinstance(value, dict) and (name := _of_url(value.get("coco_url"))) is not None:
            value = value | {"file_name": name}
        super()._image(index, value)
        if len(self.names) == row:  # it names no file: a problem already
            return
        for field, kept in (("neg_category_ids", self.absent), ("not_exhaustive_category_ids", self.partial)):
            ids = value.get(field, [])
            if not isinstance(ids, list) or not all(type(i) is int for i in ids):
                self.broken.setdefault(row, f"{self.where(row)}.{field}: must be a list of ids; got {shown(ids)}")
            elif ids:
                kept[row] = frozenset(ids)

    def check_classes(self, row: int) -> None:
        """Compare the annotations of an image with the classes that it has not.

        Raises:
            ValueError: one is of such a class.
        """
        for where, annotation in self.annotations(row):
            id = annotation.get("category_id")
            if type(id) is int and id in self.absent.get(row, ()):
                raise ValueError(
                    f"{where}.category_id: {id} is in neg_category_ids of its image, which says that there is none"
                )


@dataclass(frozen=True)
class _Split:
    """One file. paths: of its images, within ROOT. labelled: it has annotations."""

    name: str
    file: _LvisFile
    paths: list[str]
    labelled: bool


class Lvis(Dataset):
    """The splits in the order of their names, each in that of its file; then what belongs to no image."""

    def __init__(self, root: str, inexhaustive: str, files: dict[str, tuple[str, bool]]) -> None:
        self._root, self._inexhaustive = root, inexhaustive
        tree, passed = Tree(root), 0
        self._splits: list[_Split] = []
        for name, (path, labelled) in files.items():
            file = _LvisFile(path, labelled=labelled)
            found = [_found(tree, root, n) for n in file.names]
            if any(found):
                paths = [f or n for f, n in zip(found, file.names, strict=True)]
                for row, f in enumerate(found):
                    if f is None:
                        said = f"{file.where(row)}: {shown(file.names[row])} is not below {root}"
                        file.broken.setdefault(row, said)
                _refuse_twice(file, paths)
                self._splits.append(_Split(name, file, paths, labelled))
            else:
                passed += 1
        if not self._splits:
            raise ValueError(f"lvis:{root}: no image that a file names is there: {_LAYOUT}")
        self._rows = [(split, row) for split in self._splits for row in range(len(split.paths))]
        self._extra = [(s, where, said) for s in self._splits for where, said in s.file.problems]
        names = [split.paths[row] for split, row in self._rows] + [f"{s.name}: {where}" for s, where, _ in self._extra]
        super().__init__([printable(n) for n in names])
        self.left_out = +Counter({"JSON of splits without images": passed})
        self._spaces()
        if twice := len(names) - len(set(names)):
            self.notes.append(f"{twice:,} images are in several splits: once in each")
        self.notes += dict.fromkeys(note for s in self._splits for note in s.file.notes)

    def _spaces(self) -> None:
        labelled = [s.file for s in self._splits if s.labelled]
        for file in labelled[1:]:
            if file.categories != labelled[0].categories:
                raise ValueError(f"{file.path}: categories: are others than in {labelled[0].path}")
        if labelled:
            kind = MASKS if any(f.outlined for f in labelled) else BOXES
            self.spaces["detection"] = Space(labelled[0].categories, kind)

    def unsaid(self) -> str:
        """What the images do not say, counted; "" where none is labelled."""
        files = [s.file for s in self._splits if s.labelled]
        images = sum(len(f.names) for f in files)
        if not images:
            return ""
        absent, some = sum(len(ids) for f in files for ids in f.absent.values()), sum(len(f.partial) for f in files)
        return (
            f"each of the {images:,} images says of few of the {len(files[0].categories):,} classes whether they are "
            f"in it (those that it has, and {absent / images:.1f} others on average that it has not), and of {some:,} "
            "it is known that objects are not drawn"
        )

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for at in range(start, min(stop, len(self.names))):
            if at >= len(self._rows):
                split, _, problem = self._extra[at - len(self._rows)]
                yield Entry(problem=problem, split=split.name)
                continue
            split, row = self._rows[at]
            file = split.file
            if row in file.broken:
                yield Entry(problem=file.broken[row], split=split.name)
                continue
            left = not split.labelled or (self._inexhaustive == "absent" and row in file.partial)
            yield Entry(
                uri=os.path.join(self._root, split.paths[row]),
                split=split.name,
                licence=file.licence_names[file.licences[row]],
                targets=None if left else partial(self._targets, file, row),
            )

    def _targets(self, file: _LvisFile, row: int, size: tuple[int, int]) -> Labels:
        file.check_classes(row)
        return file.boxes(row, size, self.spaces["detection"].kind == MASKS)


def _of_url(url: Any) -> str | None:
    """The folder and the name at the end of an image's address."""
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url).path.split("/")
    except ValueError:  # a broken address of version 6
        return None
    return "/".join(parts[-2:]) or None


def _found(tree: Tree, root: str, name: str) -> str | None:
    """An image's path within ROOT."""
    plain = _OLD.sub(r"\1", posixpath.basename(name))
    tries = (name, *(f"{folder}/{plain}" for folder in _FOLDERS)) if "/" not in name else (name,)
    for one in tries:
        if (found := tree.find(root, one)) is not None:
            return found[0]
    return None


def _refuse_twice(file: CocoFile, paths: list[str]) -> None:
    first: dict[str, int] = {}
    for row, path in enumerate(paths):
        if (other := first.setdefault(path, row)) != row:
            said = f"{file.where(row)}: {shown(path)} is also the image of {file.where(other)}"
            file.broken.setdefault(row, said)
            file.broken.setdefault(other, said)


def _json_files(root: str) -> dict[str, tuple[str, bool]]:
    """Path, and whether it has annotations, by split.

    Raises:
        ValueError: two files are of one split.
    """
    found: dict[str, tuple[str, bool]] = {}
    for folder in (os.path.join(root, "annotations"), root):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if (match := _FILE.fullmatch(name)) is None:
                continue
            path = os.path.join(folder, name)
            if match[2] in found:
                raise ValueError(f"{path} and {found[match[2]][0]} are both of the split {match[2]}: keep one of them")
            found[match[2]] = path, match[1] is None
    return dict(sorted(found.items()))


def load(path: str) -> Dataset:
    """The tree at `path`, which has to end in ?unlabelled=background where it has labels.

    Raises:
        ValueError: no such tree, a file that is broken, or it was not said what to do with what is not labelled.
    """
    root, values = options(path, {"unlabelled": "", "inexhaustive": "learned"})
    if values["unlabelled"] not in ("", "background"):
        raise ValueError(f"unlabelled={values['unlabelled']} in lvis:{root}: there is background")
    if values["inexhaustive"] not in ("learned", "absent"):
        raise ValueError(f"inexhaustive={values['inexhaustive']} in lvis:{root}: there are learned and absent")
    if not os.path.isdir(root):
        raise ValueError(f"lvis:{root} is no folder: {_LAYOUT}")
    root, taken = found_below(root, lambda folder: bool(_json_files(folder)))
    files = _json_files(root)
    if not files:
        raise ValueError(f"lvis:{root} has no lvis_v1_*.json: {_LAYOUT}")
    dataset = Lvis(root, values["inexhaustive"], files)
    unsaid = dataset.unsaid()
    if unsaid and not values["unlabelled"]:
        raise ValueError(
            f"lvis:{root}: {unsaid}; a store cannot say that a class was not looked for. "
            f"lvis:{root}?unlabelled=background takes what is not drawn for background; &inexhaustive=absent leaves "
            "those images unlabelled of which it is known that objects are not drawn"
        )
    dataset.notes[:0] = taken
    if unsaid:
        left = values["inexhaustive"] == "absent"
        what = "the latter are unlabelled here, and what is not drawn in the others" if left else "what is not drawn"
        dataset.notes.append(f"{unsaid}; {what} is taken for background")
    return dataset
