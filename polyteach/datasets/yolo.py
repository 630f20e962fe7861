"""YOLO's text files, as Ultralytics, Roboflow, CVAT, Label Studio and labelImg write them: boxes and outlines.

    ROOT/data.yaml                      path, train, val, test, names, nc; ROOT may be this file
         images/train/a.jpg             labels/train/a.txt          the usual tree
         train/images/a.jpg             train/labels/a.txt          Roboflow's
         obj_train_data/a.jpg           obj_train_data/a.txt        CVAT's, with obj.names and train.txt

A label file has a line for each object, in fractions of the image's width and height:

    class cx cy w h                     a box by its centre and size
    class x1 y1 x2 y2 x3 y3 ...         an outline of 3 points or more; its box is around them

train, val and test of data.yaml are each a folder, a .txt list of images, or a list of these; without data.yaml they
are the lists ROOT/train.txt, val.txt, test.txt where there are any, else the folders train, val, ... above or below
images/. An image's labels are where Ultralytics looks: the last images/ of its path becomes labels/, its ending .txt;
without images/ in its path they are beside it. `yolo:ROOT?data=FILE` reads a data.yaml that lies elsewhere, with ROOT
as its `path`. Names come from data.yaml, else from a file of names (classes.txt, obj.names); without one, classes are
called by their numbers, and that is said.

The source: Ultralytics' `data/utils.py` (img2label_paths, verify_image_label, check_det_dataset; at commit 00bfe34).
Odd cases:

- An image whose label file is missing or empty is labelled: there is nothing in it. So Ultralytics takes both; the
  missing ones are counted. A split in which no image has a label file is unlabelled.
- A line that comes twice in a file is read once, and counted. Ultralytics also drops an outline whose class and box
  are those of another; that one is kept here.
- Boxes and outlines may be mixed. An image with a box that has no outline is learned from by its boxes alone.
  (Ultralytics reads that box's line as an outline of two points.)
- A number is within 0..1, or at most 0.01 beyond it; boxes and points are clipped to the image. Ultralytics asks so of
  a box and of the box around an outline, not of the outline's points.
- `validation` of data.yaml stands for `val` where there is none, as in Ultralytics; which is told.
- Lines of 9 numbers are outlines of 4 points. Oriented boxes (OBB) are written so too: the outline is then that box.
- Pose files (kpt_shape in data.yaml, or a line with a number too many) are refused, and so are a box with a score
  (6 numbers), a box without width or height (Ultralytics keeps it), a class without a name, a class that is no whole
  number, and what is not a number.
- `path` of data.yaml and the paths in lists may be of another system or another place: what is below ROOT by the
  longest end of such a path is taken, and told. Nothing outside of ROOT is read.
- Label files without an image, and images of one name with different endings, which share a label file, are counted.
"""

import ntpath
import os
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from polyteach.datasets import (
    Dataset,
    Entry,
    Labels,
    composed,
    found_below,
    numbered,
    options,
    printable,
    split_of,
    walk,
)
from polyteach.datasets._class_lists import of_value, read_classes, read_yaml
from polyteach.datasets._files import lines, shown
from polyteach.datasets._objects import Thing, around, drawn
from polyteach.datasets._tree import Tree
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, MASKS, MOST_OBJECTS

_DATA = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAMES = ("classes.txt", "obj.names", "names.txt", "data/obj.names")
_SPLITS = ("train", "val", "test")
_MOST = 1 << 24
"""Bytes of a label file."""
_BEYOND = 0.01
"""How far beyond 0..1 a number may lie, as Ultralytics' verify_image_label allows of boxes."""
_LAYOUT = (
    "expected ROOT/data.yaml, or ROOT/images/ and ROOT/labels/ (or ROOT/train/images/ and ROOT/train/labels/) with a "
    "text file for each image"
)


@dataclass(frozen=True)
class _Row:
    """An image by its path within ROOT. labels: its label file's, or "" where there is none. labelled: its split is."""

    image: str
    split: str | None
    problem: str | None = None
    labels: str = ""
    labelled: bool = False


@dataclass
class _Scan:
    """What all label files say together."""

    outlines: int = 0
    four: int = 0
    classes: Counter[int] = field(default_factory=Counter)

    def add(self, path: str) -> None:
        """One file; a broken line says nothing here, and is its image's error."""
        try:
            said = lines(path, _MOST)
        except ValueError:
            return
        for row in map(str.split, said):
            if len(row) >= 5 and row[0].isascii() and row[0].isdigit() and len(row[0]) < 10:
                self.classes[int(row[0])] += 1
                self.outlines += len(row) >= 7
                self.four += len(row) == 9


class Yolo(Dataset):
    """By split, in the order of data.yaml or of the lists; images of a folder sorted by path."""

    def __init__(self, root: str, data: str | None, elsewhere: bool = False) -> None:
        """data: the file that describes it. elsewhere: that file is none of the tree, and `root` is its `path`."""
        self._root, self._data, self._tree = root, data, Tree(root)
        self._about = _described(data) if data is not None else {}
        notes: list[str] = []
        if self._about.get("validation") and not self._about.get("val"):
            self._about["val"] = self._about["validation"]
            notes.append(f"{data}: validation: was taken for val")
        left_out: Counter[str] = Counter()
        base = "" if elsewhere else self._base(notes)
        rows = self._listed(base, notes, left_out)
        if not rows:
            raise ValueError(f"yolo:{root} has no images: {_LAYOUT}")
        self._rows, there = self._with_labels(rows, notes)
        super().__init__([printable(r.image) for r in self._rows])
        scan = _Scan()
        for path in dict.fromkeys(r.labels for r in self._rows if r.labels):
            scan.add(os.path.join(root, path))
        names = self._names(scan, {posixpath.dirname(f) for f in there}, notes)
        self.spaces = {"detection": Space(names, MASKS if scan.outlines else BOXES)}
        self.notes += notes
        self.notes += [f"{n:,} {how}" for how, n in self._tree.odd.items() if how and n]
        if scan.four and scan.four == scan.outlines:
            self.notes.append(f"all {scan.four:,} outlines have 4 points: oriented boxes (OBB) are read so too")
        self.left_out = left_out
        self._count(there)

    def _listed(self, base: str, notes: list[str], left_out: Counter[str]) -> list[_Row]:
        """The images by split, without what is known of their labels."""
        splits: dict[str, Any] = {k: self._about[k] for k in _SPLITS if self._about.get(k)}
        if splits:
            found = [row for k, value in splits.items() for row in self._split(k, value, base, notes, left_out)]
            if not found:
                told = ", ".join(f"{k}: {shown(v)}" for k, v in splits.items())
                raise ValueError(
                    f"{self._data}: nothing of {told} is below {self._root}; where the images lie elsewhere, give "
                    f"yolo:THEIR_FOLDER?data={self._data}"
                )
            return found
        lists = [s for s in _SPLITS if os.path.isfile(os.path.join(self._root, f"{s}.txt"))]
        if lists:
            return [row for s in lists for row in self._list(s, f"{s}.txt")]
        images, other = walk(self._root)
        left_out += other
        del left_out[".txt"]
        places = {os.path.dirname(f) for f in images if self._beside(f)}
        files = [f for f in sorted(images) if "images" in f.split("/")[:-1] or os.path.dirname(f) in places]
        left_out["images in no folder images/, without label files beside them"] += len(images) - len(files)
        return [_Row(f, split_of(posixpath.dirname(f)), images[f]) for f in files]

    def _beside(self, image: str) -> bool:
        folder, name = os.path.split(_labels_of(image))
        return name in self._tree.files(os.path.join(self._root, folder))

    def _base(self, notes: list[str]) -> str:
        """The folder within ROOT that `path` of data.yaml means; "" for ROOT."""
        value = self._about.get("path")
        if value is None:
            return ""
        if not isinstance(value, str):
            raise ValueError(f"{self._data}: path: must be a folder; got {shown(value)}")
        if posixpath.normpath(value) == "." or os.path.realpath(value) == os.path.realpath(self._root):
            return ""
        ends = _ends(value)
        found = next((e for e in ends if os.path.isdir(os.path.join(self._root, e))), "")
        if found != posixpath.normpath(value):
            notes.append(f"{self._data}: path: {shown(value)} was taken for {os.path.join(self._root, found)}")
        return found

    def _split(self, split: str, value: Any, base: str, notes: list[str], left_out: Counter[str]) -> list[_Row]:
        rows: list[_Row] = []
        for one in value if isinstance(value, list) else [value]:
            where = f"{self._data}: {split}"
            if not isinstance(one, str):
                raise ValueError(f"{where}: must be a folder, a .txt list, or a list of these; got {shown(one)}")
            place = self._place(one, base, where, notes)
            if place is None:
                notes.append(f"{where}: {shown(one)} is not below {self._root}: passed over")
            elif place.endswith(".txt"):
                rows += self._list(split, place)
            else:
                found, other = walk(os.path.join(self._root, place))
                left_out += other
                rows += [_Row(posixpath.join(place, f), split, found[f]) for f in sorted(found)]
        del left_out[".txt"]
        return rows

    def _place(self, value: str, base: str, where: str, notes: list[str]) -> str | None:
        """The folder or list within ROOT that a split of data.yaml means; "" is ROOT."""
        ends = _ends(value)
        whole = ends[0] if ends else ""
        # Roboflow's "../train/images" stands for "train/images"
        tries = dict.fromkeys((posixpath.join(base, whole), whole))
        found = next((t for t in tries if os.path.exists(os.path.join(self._root, t))), None)
        absolute = posixpath.isabs(value) or bool(ntpath.splitdrive(value)[0])
        if found is None and absolute:
            found = next((e for e in ends if os.path.exists(os.path.join(self._root, e))), None)
            if found is not None and os.path.abspath(value) != os.path.join(self._root, found):
                notes.append(f"{where}: {shown(value)} was taken for {os.path.join(self._root, found)}")
        return found

    def _list(self, split: str, path: str) -> list[_Row]:
        """The images of a list; its paths are relative to it, to ROOT, or of elsewhere."""
        home, rows = os.path.dirname(os.path.join(self._root, path)), []
        for i, line in enumerate(lines(os.path.join(self._root, path)), 1):
            name = line.strip()
            if not name:
                continue
            found = self._tree.find(home, posixpath.normpath(name) if name.startswith("./") else name, by_end=True)
            if found is None:
                where = f"{os.path.join(self._root, path)}: line {i}"
                problem = f"{where}: {shown(name)} is not below {self._root}"
                rows.append(_Row(f"{path}: line {i}", split, problem))
                continue
            within, how = found
            self._tree.odd[how] += 1
            rows.append(_Row(within, split))
        return rows

    def _with_labels(self, rows: list[_Row], notes: list[str]) -> tuple[list[_Row], set[str]]:
        """The images with their label files, and the label files there are.

        Those in whose split no image has one are unlabelled.
        """
        own = [_labels_of(r.image) if r.problem is None else "" for r in rows]
        there: dict[str, str] = {}
        for folder in dict.fromkeys(posixpath.dirname(f) for f in own if f):
            files = self._tree.files(os.path.join(self._root, folder))
            there |= {
                posixpath.join(folder, n): posixpath.join(folder, f) for n, f in files.items() if f.endswith(".txt")
            }
        labels = [there.get(f) or there.get(composed(f)) or "" for f in own]
        labelled = {r.split for r, f in zip(rows, labels, strict=True) if f}
        if not labelled:
            first = next((f for f in own if f), "")
            raise ValueError(f"yolo:{self._root}: no image has a label file, such as {first}: {_LAYOUT}")
        for split, count in Counter(r.split for r in rows if r.split not in labelled).items():
            notes.append(f"{split or 'images of no split'}: none has a label file: {count:,} images are unlabelled")
        missing = sum(r.split in labelled and bool(o) and not f for r, o, f in zip(rows, own, labels, strict=True))
        if missing:
            notes.append(f"{missing:,} images have no label file: labelled, with nothing in them, as Ultralytics does")
        if twice := len(rows) - len({r.image for r in rows}):
            notes.append(f"{twice:,} images are in a list or split again: once for each")
        known = [
            _Row(r.image, r.split, r.problem, f, r.split in labelled and bool(o))
            for r, o, f in zip(rows, own, labels, strict=True)
        ]
        return known, set(there.values())

    def _count(self, there: set[str]) -> None:
        used = {r.labels for r in self._rows}
        lists = {f"{s}.txt" for s in _SPLITS} | set(_NAMES)
        extra = [f for f in there if f not in used and posixpath.basename(f) not in lists]
        self.left_out["label files without an image"] += len(extra)
        self.left_out = +self.left_out
        images = Counter(label for label, _ in {(r.labels, r.image) for r in self._rows if r.labels})
        if shared := sum(n for n in images.values() if n > 1):
            self.notes.append(f"{shared:,} images differ in their ending alone and share a label file")

    def _names(self, scan: _Scan, folders: set[str], notes: list[str]) -> tuple[str, ...]:
        """The classes, of data.yaml, of a file of names or of none."""
        data, count = self._data, self._about.get("nc")
        if count is not None and (type(count) is not int or not 0 < count <= 1 << 16):
            raise ValueError(f"{data}: nc: must be the number of classes; got {shown(count)}")
        if self._about.get("names") is not None:
            names = of_value(str(data), self._about["names"], "names").dense()
            if count is not None and count != len(names):
                raise ValueError(f"{data}: nc is {count}, and names has {len(names)}: correct one of them")
            return names
        places = dict.fromkeys([*_NAMES, *(posixpath.join(f, "classes.txt") for f in sorted(folders))])
        lists = [read_classes(p) for n in places if os.path.isfile(p := os.path.join(self._root, n))]
        for other in lists[1:]:
            if other.names != lists[0].names:
                raise ValueError(f"{other.path}: names other classes than {lists[0].path}: keep one of them")
        if lists:
            notes += [f"the classes are those of {lists[0].path}", *lists[0].notes]
            return lists[0].dense()
        if count is None and not scan.classes:
            raise ValueError(f"yolo:{self._root}: no file names a class, and no label file has an object")
        notes.append("no file names the classes: they are called by their numbers")
        return tuple(map(str, range(count))) if count else numbered(scan.classes, f"yolo:{self._root}")

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for row in self._rows[start:stop]:
            uri = os.path.join(self._root, row.image)
            targets = partial(self._targets, row) if row.labelled else None
            split = None if row.split is None else printable(row.split)
            yield Entry(uri=uri, problem=row.problem, split=split, targets=targets)

    def _targets(self, row: _Row, size: tuple[int, int]) -> Labels:
        space = self.spaces["detection"]
        rows = _lines(os.path.join(self._root, row.labels), len(space.names)) if row.labels else []
        distinct: dict[tuple[float, ...], str] = {}
        for where, numbers in rows:
            distinct.setdefault(numbers, where)
        things = [_thing(where, numbers, size) for numbers, where in distinct.items()]
        labels = drawn(things, size, space.kind == MASKS)
        if again := len(rows) - len(distinct):
            labels.notes["detection"]["are on a second line of their file that is the same: read once"] += again
        return labels


def _ends(path: str) -> list[str]:
    """A path of any system without what leads to it, and its shorter and shorter ends; none of the folder itself."""
    parts = [p for p in ntpath.splitdrive(path)[1].replace("\\", "/").split("/") if p not in ("", ".", "..")]
    return ["/".join(parts[i:]) for i in range(len(parts))]


def _labels_of(image: str) -> str:
    """The path within ROOT of an image's label file, as Ultralytics' img2label_paths has it."""
    folders = posixpath.dirname(image).split("/")
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return posixpath.join("/".join(folders), posixpath.splitext(posixpath.basename(image))[0] + ".txt")


def _lines(path: str, classes: int) -> list[tuple[str, tuple[float, ...]]]:
    """(where it stands, its numbers) of each object of a label file.

    Raises:
        ValueError: a line is none of the forms above; says which line, and what is wrong with it.
    """
    found: list[tuple[str, tuple[float, ...]]] = []
    for i, line in enumerate(lines(path, _MOST), 1):
        words, where = line.split(), f"{path}: line {i}"
        if not words:
            continue
        if len(found) == MOST_OBJECTS:
            raise ValueError(f"{where}: an image may have at most {MOST_OBJECTS:,} objects")
        try:
            category, *numbers = (float(w) for w in words)
        except ValueError as e:
            raise ValueError(f"{where}: must be numbers with spaces between them; got {shown(line)}") from e
        if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
            odd = "; a box with a score, as predictions have, is no label" * (len(numbers) == 5)
            odd = odd or "; keypoints of poses are not read" * (len(numbers) > 6)
            raise ValueError(
                f"{where}: must be a class and the 4 numbers of a box, or 3 points or more of an outline; has "
                f"{len(words)} numbers{odd}"
            )
        if not category.is_integer() or not 0 <= category < classes:
            raise ValueError(f"{where}: class {shown(words[0])} must be in 0..{classes - 1}, of {classes} classes")
        wrong = next((w for w, n in zip(words[1:], numbers, strict=True) if not -_BEYOND <= n <= 1 + _BEYOND), None)
        if wrong is not None:
            raise ValueError(f"{where}: {shown(wrong)} must be in 0..1, a fraction of the image's width or height")
        if len(numbers) == 4 and not (numbers[2] > 0 and numbers[3] > 0):
            raise ValueError(f"{where}: the box's width and height must be above 0; got {words[3]}, {words[4]}")
        found.append((where, (category, *numbers)))
    return found


def _thing(where: str, numbers: tuple[float, ...], size: tuple[int, int]) -> Thing:
    """The object of a line of an image of (height, width) `size`."""
    height, width = size
    if len(numbers) == 5:
        x, y, w, h = (n * side for n, side in zip(numbers[1:], (width, height) * 2, strict=True))
        return Thing(where, int(numbers[0]), (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    inside = [min(max(n, 0.0), 1.0) for n in numbers[1:]]
    polygon = [n * (height if i % 2 else width) for i, n in enumerate(inside)]
    return Thing(where, int(numbers[0]), around([polygon]), [polygon])


def _described(data: str) -> dict[str, Any]:
    """What data.yaml says.

    Raises:
        ValueError: it is broken, or describes poses.
    """
    about = read_yaml(data)
    if not isinstance(about, dict):
        raise ValueError(f"{data}: must have fields such as train, val and names; it is {shown(about)}")
    if about.get("kpt_shape") is not None:
        raise ValueError(f"{data}: kpt_shape: describes keypoints of poses, which are not read; give boxes or outlines")
    return about


def _data_file(root: str) -> str | None:
    """The data.yaml of a folder, by its usual names or as its only YAML file that has its fields."""
    for name in _DATA:
        if os.path.isfile(os.path.join(root, name)):
            return os.path.join(root, name)
    files = sorted(f for f in os.listdir(root) if f.endswith((".yaml", ".yml"))) if os.path.isdir(root) else []
    if len(files) != 1:
        return None
    about = read_yaml(os.path.join(root, files[0]))
    known = isinstance(about, dict) and "names" in about and any(s in about for s in _SPLITS)
    return os.path.join(root, files[0]) if known else None


def _is_tree(folder: str) -> bool:
    there = os.listdir(folder) if os.path.isdir(folder) else []
    return (
        "labels" in there
        or any(n in there for n in (*_DATA, "obj.names", "classes.txt"))
        or any(os.path.isdir(os.path.join(folder, n, "labels")) for n in there)
    )


def load(path: str) -> Dataset:
    """The tree at `path`, which may be its data.yaml, and may end in ?data=FILE.

    Raises:
        ValueError: no such tree, or a file that describes it is broken; says which.
    """
    root, values = options(path, {"data": ""})
    data = os.path.abspath(os.path.expanduser(values["data"])) if values["data"] else None
    if os.path.isfile(root) and data is None and root.endswith((".yaml", ".yml")):
        root, data = os.path.dirname(root), root
    if not os.path.isdir(root):
        raise ValueError(f"yolo:{root} is no folder: {_LAYOUT}")
    root, taken = found_below(root, _is_tree) if data is None else (root, [])
    dataset = Yolo(root, data or _data_file(root), elsewhere=bool(values["data"]))
    dataset.notes[:0] = taken
    return dataset
