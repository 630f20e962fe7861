"""Open Images (Kuznetsova et al., IJCV 2020), versions 4 to 7: boxes of 600 classes.

    ROOT/train/000002b66c9c498e.jpg                     or ROOT/images/train/, ROOT/train/data/ (FiftyOne's);
                                                        likewise validation/ and test/
    ROOT/oidv6-train-annotations-bbox.csv               any version's; or in ROOT/annotations/, ROOT/csv/, or as
                                                        ROOT/train/labels/detections.csv (FiftyOne's)
    ROOT/oidv7-class-descriptions-boxable.csv           likewise, or as ROOT/train/metadata/classes.csv

A row of the boxes is ImageID, LabelName (such as /m/0k4j), XMin, XMax, YMin, YMax in fractions of the image, and
attributes; the first line names the columns. Classes are those of class-descriptions, in its order.

An image has boxes of the classes that people verified to be in it. Some others were verified to be absent; of all
others it says nothing. The labels of a store cannot say that: what no box covers is background, to the training and to
the metric. So it has to be asked for: `openimages:ROOT?unlabelled=background` takes what has no box for background, as
detectors are usually trained on it. AP is then lower than by Open Images' own metric, which passes over detections of
classes that an image says nothing of, and counts a class's parents too: a Man is no Person here.

The source: "Data Formats" of https://storage.googleapis.com/openimages/web/download_v7.html (and _v5, _v6). Odd cases:

- IsGroupOf: a box around more than five objects is ignored, as a crowd. -1 (unknown) is taken for 0. IsOccluded,
  IsTruncated, IsDepiction and IsInside are kept as objects.
- Confidence is always 1 in boxes that people drew; another value is a detector's, and an error.
- Fractions are within 0..1, or at most 0.01 beyond and then clipped. A box without area, what is no number, and a
  class that is not described are errors of their image.
- An image without a row is unlabelled: nobody may have looked. These, and rows of images that are not there, are
  counted: parts of the archives can be read by themselves.
- Two classes of one name have their LabelName added.
- The files are read as streams, of any size; an image's rows are read again with it, wherever they stand.
- Image-level labels (many for an image, of presence and of absence; a store has one class for an image), masks,
  relations, points and the rotation of images are not read.
"""

import csv
import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np

from polyteach.datasets import Dataset, Entry, Labels, composed, found_below, kind, options, printable
from polyteach.datasets._files import lines, opened, shown
from polyteach.datasets._objects import Thing, drawn
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, MOST_OBJECTS

_SPLITS = ("train", "validation", "test")
_BOXES = re.compile(r"(?:oidv\d+-)?(train|validation|val|test)-annotations-bbox\.csv")
_NAMES = re.compile(r"(?:oidv\d+-)?class-descriptions(-boxable)?\.csv")
_NEEDED = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_BEYOND = 0.01
"""How far beyond 0..1 a fraction may lie."""
_LONGEST = 1 << 12
"""Bytes of a row, at most."""
_LAYOUT = (
    "expected ROOT/train/*.jpg (or validation, test), ROOT/train-annotations-bbox.csv and "
    "ROOT/class-descriptions-boxable.csv"
)


class _Boxes:
    """The boxes of one file, by where the rows of each image stand.

    images: the images that are wanted, by id -> number. rows: how many rows they have. strangers: how many rows are of
    other images.
    """

    def __init__(self, path: str, images: dict[str, int]) -> None:
        self.path = path
        self.rows = self.strangers = 0
        owner, begin, length, first = array("i"), array("q"), array("q"), array("q")
        try:
            with opened(path) as file:
                self._columns = _head(path, file.readline(_LONGEST + 1))
                at, last, number = file.tell(), b"", -1
                row = 1
                while line := file.readline(_LONGEST + 1):
                    row += 1
                    if len(line) > _LONGEST:
                        raise ValueError(f"{path}: line {row}: is longer than {_LONGEST:,} bytes")
                    id = line.split(b",", 1)[0] if self._columns["ImageID"] == 0 else self._id(line)
                    if id != last or not owner:
                        last, number = id, images.get(id.decode("latin-1"), -1)
                        if number >= 0:
                            owner.append(number)
                            begin.append(at)
                            length.append(0)
                            first.append(row)
                    if number >= 0:
                        length[-1] += len(line)
                        self.rows += 1
                    else:
                        self.strangers += bool(line.strip())
                    at += len(line)
        except OSError as e:
            raise ValueError(f"{path}: cannot be read: {e.strerror}") from e
        number_of = np.array(owner, dtype=np.int64)
        order = number_of.argsort(kind="stable")
        self._owner = number_of[order]
        self._begin, self._length, self._row = (np.array(a, dtype=np.int64)[order] for a in (begin, length, first))

    def _id(self, line: bytes) -> bytes:
        cells = line.split(b",")
        at = self._columns["ImageID"]
        return cells[at].strip() if at < len(cells) else b""

    def has(self, number: int) -> bool:
        """Whether an image has a row."""
        at = int(np.searchsorted(self._owner, number))
        return at < len(self._owner) and int(self._owner[at]) == number

    def of(self, number: int) -> Iterator[tuple[str, dict[str, str]]]:
        """(where it stands, its cells by the columns' names) of each row of an image.

        Raises:
            ValueError: a row has fewer cells than there are columns, or is no text.
        """
        low, high = np.searchsorted(self._owner, [number, number + 1])
        with opened(self.path) as file:
            for i in range(int(low), int(high)):
                file.seek(int(self._begin[i]))
                end, row = int(self._begin[i] + self._length[i]), int(self._row[i])
                while file.tell() < end:
                    line, where, row = file.readline(_LONGEST), f"{self.path}: line {row}", row + 1
                    cells = line.decode("utf-8", "backslashreplace").strip().split(",")
                    if len(cells) <= max(self._columns.values()):
                        raise ValueError(f"{where}: has {len(cells)} cells, fewer than its first line says")
                    yield where, {name: cells[at].strip() for name, at in self._columns.items()}


def _head(path: str, line: bytes) -> dict[str, int]:
    """The places of the columns that are read, by name.

    Raises:
        ValueError: one is missing.
    """
    names = [n.strip() for n in line.decode("utf-8-sig", "replace").split(",")]
    for name in _NEEDED:
        if name not in names:
            raise ValueError(f"{path}: column {name}: missing in the first line; it has {shown(', '.join(names))}")
    return {n: names.index(n) for n in (*_NEEDED, "Confidence", "IsGroupOf") if n in names}


class OpenImages(Dataset):
    """train, validation and test; images by name."""

    def __init__(self, root: str) -> None:
        self._root = root
        found = _csv_files(root)
        self._names, notes = _classes(found, root)
        self._index = {label: i for i, label in enumerate(self._names)}
        self._images: list[tuple[str, str]] = []
        self._files: list[tuple[int, _Boxes | None]] = []
        passed = strangers = 0
        for split in _SPLITS:
            folder, names = _images(root, split)
            path = found.get(split)
            if not names:
                passed += path is not None
                continue
            first = len(self._images)
            self._images += [(f"{folder}/{n}", split) for n in names]
            boxes = None
            if path is not None:
                boxes = _Boxes(path, {os.path.splitext(n)[0]: first + i for i, n in enumerate(names)})
                strangers += boxes.strangers
                notes.append(f"boxes of {split} are those of {path}")
            self._files.append((first, boxes))
        if not any(boxes is not None and boxes.rows for _, boxes in self._files):
            raise ValueError(f"openimages:{root}: no image that is there has a box: {_LAYOUT}")
        super().__init__([printable(path) for path, _ in self._images])
        self.spaces["detection"] = Space(tuple(self._names.values()), BOXES)
        self.left_out = +Counter(
            {"CSV of splits without images": passed, "rows of boxes of images that are not there": strangers}
        )
        self.notes += notes
        if bare := sum(self._boxes(i) is None for i in range(len(self._images))):
            self.notes.append(f"{bare:,} images have no box in any file: they are unlabelled")

    def _boxes(self, number: int) -> _Boxes | None:
        boxes = next(b for first, b in reversed(self._files) if first <= number)
        return boxes if boxes is not None and boxes.has(number) else None

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for i in range(start, min(stop, len(self._images))):
            (path, split), boxes = self._images[i], self._boxes(i)
            targets = None if boxes is None else partial(self._targets, boxes, i)
            yield Entry(uri=os.path.join(self._root, path), split=split, targets=targets)

    def _targets(self, boxes: _Boxes, number: int, size: tuple[int, int]) -> Labels:
        things: list[Thing] = []
        for where, row in boxes.of(number):
            if len(things) == MOST_OBJECTS:
                raise ValueError(f"{where}: an image may have at most {MOST_OBJECTS:,} objects")
            things.append(self._thing(where, row, size))
        labels = drawn(things, size, outlines=False)
        groups = "are groups of objects (IsGroupOf: 1), of which no single one is learned"
        labels.notes["detection"] = +(labels.notes["detection"] + Counter({groups: sum(t.ignore for t in things)}))
        return labels

    def _thing(self, where: str, row: dict[str, str], size: tuple[int, int]) -> Thing:
        label = row["LabelName"]
        if label not in self._index:
            raise ValueError(f"{where}: LabelName: {shown(label)} is none of the {len(self._index)} described classes")
        if _number(where, "Confidence", row.get("Confidence", "1")) != 1:
            raise ValueError(f"{where}: Confidence: is {shown(row['Confidence'])}: a detector's box, and no label")
        group = row.get("IsGroupOf", "0")
        if group not in ("0", "1", "-1"):
            raise ValueError(f"{where}: IsGroupOf: must be 0, 1 or -1; got {shown(group)}")
        sides = []
        for name, side in (("XMin", size[1]), ("YMin", size[0]), ("XMax", size[1]), ("YMax", size[0])):
            value = _number(where, name, row[name])
            if not -_BEYOND <= value <= 1 + _BEYOND:
                raise ValueError(f"{where}: {name}: {shown(row[name])} must be in 0..1, a fraction of the image's side")
            sides.append(min(max(value, 0.0), 1.0) * side)
        x0, y0, x1, y1 = sides
        about = f"of {self._names[label]}: "
        return Thing(where, self._index[label], (x0, y0, x1, y1), ignore=group == "1", about=about)


def _number(where: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: {name}: must be a number; got {shown(text)}")
    return value


def _csv_files(root: str) -> dict[str, str]:
    """The files of boxes by split, and of the classes by "".

    Raises:
        ValueError: two are of one split, or two name the classes.
    """
    found: dict[str, str] = {}
    broad = ""
    for folder in (root, *(os.path.join(root, n) for n in ("annotations", "csv", "metadata"))):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            if match := _BOXES.fullmatch(name):
                split = "validation" if match[1] == "val" else match[1]
            elif match := _NAMES.fullmatch(name):
                split = ""
                if match[1] is None:  # of all 20,000 classes of images
                    broad = path
                    continue
            else:
                continue
            if split in found:
                what = f"boxes of {split}" if split else "classes"
                raise ValueError(f"{path} and {found[split]} both have the {what}: keep one of them")
            found[split] = path
    for split in _SPLITS:
        for key, within in ((split, "labels/detections.csv"), ("", "metadata/classes.csv")):
            path = os.path.join(root, split, within)
            if os.path.isfile(path):
                found.setdefault(key, path)
    if "" not in found and broad:
        found[""] = broad
    return found


def _classes(found: dict[str, str], root: str) -> tuple[dict[str, str], list[str]]:
    """Name by label, in the file's order; and what is to be said of it.

    Raises:
        ValueError: there is no such file, or a line is none of label,name.
    """
    if "" not in found:
        raise ValueError(f"openimages:{root} has no class-descriptions-boxable.csv: {_LAYOUT}")
    path = found[""]
    labels: dict[str, str] = {}
    for i, line in enumerate(lines(path), 1):
        try:
            cells = [c.strip() for row in csv.reader([line.removeprefix("\ufeff")]) for c in row]
        except csv.Error as e:
            raise ValueError(f"{path}: line {i}: is no CSV: {e}") from e
        if not any(cells) or (i == 1 and cells in (["id", "name"], ["LabelName", "DisplayName"])):
            continue
        label, name = cells if len(cells) == 2 else ("", "")
        if not label or not name:
            raise ValueError(f"{path}: line {i}: must be a label and a name, as /m/0k4j,Car; got {shown(line)}")
        if label in labels:
            raise ValueError(f"{path}: line {i}: {shown(label)} is {shown(labels[label])} already")
        labels[label] = printable(composed(name))
    counts = Counter(labels.values())
    twice = {n for n, count in counts.items() if count > 1}
    named = {label: f"{n} ({label})" if n in twice else n for label, n in labels.items()}
    if not named:
        raise ValueError(f"{path}: names no class")
    return named, [f"classes of one name have their label added: {', '.join(sorted(twice)[:5])}"] if twice else []


def _images(root: str, split: str) -> tuple[str, list[str]]:
    """The folder of a split's images within ROOT, and their names."""
    for within in (split, f"images/{split}", f"{split}/data"):
        folder = os.path.join(root, within)
        names = sorted(n for n in os.listdir(folder) if kind(n) is None) if os.path.isdir(folder) else []
        if names:
            return within, names
    return "", []


def load(path: str) -> Dataset:
    """The tree at `path`, which has to end in ?unlabelled=background.

    Raises:
        ValueError: no such tree, a file that is broken, or it was not said what to do with what is not labelled.
    """
    root, values = options(path, {"unlabelled": ""})
    if values["unlabelled"] not in ("", "background"):
        raise ValueError(f"unlabelled={values['unlabelled']} in openimages:{root}: there is background")
    if not os.path.isdir(root):
        raise ValueError(f"openimages:{root} is no folder: {_LAYOUT}")
    root, taken = found_below(root, lambda folder: any(k for k in _csv_files(folder)))
    said = "each image has boxes of the classes that people found in it, and says nothing of most others"
    if not values["unlabelled"]:
        raise ValueError(
            f"openimages:{root}: {said}; a store cannot say that a class was not looked for. "
            f"openimages:{root}?unlabelled=background takes what has no box for background"
        )
    dataset = OpenImages(root)
    dataset.notes[:0] = taken
    dataset.notes.append(f"{said}: what has no box is taken for background")
    return dataset
