"""CVAT's own XML, "CVAT for images 1.1" (docs.cvat.ai): boxes, outlines and masks.

    ROOT/annotations.xml                labels, and for each image its shapes; ROOT may be this file
    ROOT/images/a.jpg                   or images/train/a.jpg, or wherever its name leads below ROOT

Of an image's shapes are read

    polygon, mask, ellipse              an object with an outline and the box around it
    box                                 an object by its box; with the outline of the turned box where it has a rotation
    polyline, points, cuboid, skeleton  not read, and counted; so are tags of the whole image

The classes are the file's labels in its order, or `cvat:ROOT?classes=a,b,c` or `?classes=FILE`. All XML files of ROOT
that are of this form are read; their labels have to be the same. A split is an image's subset, else a folder that is
called so. Odd cases:

- An image without shapes is labelled: there is nothing in it; these are counted. `?empty=unlabelled` takes them for not
  looked at yet.
- A name may have folders, backslashes, or be of another place: what is below ROOT by the longest end of it is taken,
  and told. An image that is not there is an error; images that no file names are counted.
- Shapes of one label and one group_id above 0 are parts of one object, as in CVAT's own export to COCO. Where one of
  them is a box or a mask, the object has no outline.
- An image with an object that has no outline, such as a box among polygons, is learned from by boxes alone.
- A mask's run lengths are of its own box, row by row, the background first.
- "CVAT for video" (tracks) is refused: export the task as images. So are files with a document type or entities.
- A file of any size is read as a stream; an image's shapes are read again with it.
"""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from polyteach.datasets import Dataset, Entry, Labels, composed, found_below, options, printable, split_of, walk
from polyteach.datasets._class_lists import ClassList, given_classes
from polyteach.datasets._files import opened, shown
from polyteach.datasets._objects import Thing, around, drawn, inside, oval, placed, rectangle, united
from polyteach.datasets._tree import Tree
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, MASKS

_CHUNK = 1 << 20
_MOST = 1 << 26
"""Bytes of one image's shapes."""
_OUTLINED = frozenset(("polygon", "mask", "ellipse"))
_READ = _OUTLINED | {"box"}
_KNOWN = _READ | {"polyline", "points", "cuboid", "skeleton", "tag"}
_LAYOUT = "expected ROOT/annotations.xml, of CVAT for images 1.1, and ROOT/images/"


@dataclass(frozen=True)
class _Image:
    """An image's record: its name, subset and size as they are written, where it begins, and how many shapes it has."""

    name: str
    subset: str
    begin: int
    shapes: int


@dataclass
class _File:
    """One XML file, read through. labels: in its order. images: in its order. kinds: how often each occurs.

    turned: boxes with a rotation.
    """

    path: str
    labels: list[str] = field(default_factory=list)
    images: list[_Image] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    turned: int = 0
    _above: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _shapes: int = 0
    _root: str = "annotations"
    _open: tuple[str, str, int] = ("", "", 0)

    def read(self) -> bool:
        """Read it through; False where it is no file of CVAT's images.

        Raises:
            ValueError: it is broken, has a document type, or is of video.
        """
        parser = expat.ParserCreate()
        parser.StartElementHandler = partial(self._start, parser)
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._refuse
        parser.XmlDeclHandler = self._declared
        try:
            with opened(self.path) as file:
                while chunk := file.read(_CHUNK):
                    if b"\0" in chunk:
                        raise ValueError(f"{self.path}: is not UTF-8")
                    parser.Parse(chunk, False)
                    if self._root != "annotations":
                        return False
                parser.Parse(b"", True)
        except OSError as e:
            raise ValueError(f"{self.path}: cannot be read: {e.strerror}") from e
        except (expat.ExpatError, LookupError, UnicodeError) as e:
            raise ValueError(f"{self.path}: broken XML: {e}") from e
        return bool(self.images) or bool(self.labels)

    def _refuse(self, *_: Any) -> None:
        raise ValueError(f"{self.path}: has a document type, which annotations have not")

    def _declared(self, version: str, encoding: str | None, standalone: int) -> None:
        if (encoding or "utf-8").lower() not in ("utf-8", "us-ascii", "ascii"):
            raise ValueError(f"{self.path}: is {shown(encoding)}, not UTF-8")

    def _start(self, parser: expat.XMLParserType, tag: str, about: dict[str, str]) -> None:
        self._above.append(tag)
        depth = len(self._above)
        self._root = tag if depth == 1 else self._root
        self._text.clear()
        if depth > 50:
            raise ValueError(f"{self.path}: is nested too deeply")
        if depth == 2 and tag == "track":
            raise ValueError(f"{self.path}: is of CVAT for video (tracks): export the task as CVAT for images 1.1")
        if depth == 2 and tag == "image":
            self._open, self._shapes = (about.get("name", ""), about.get("subset", ""), parser.CurrentByteIndex), 0
        if depth == 3 and self._above[1] == "image":
            self.kinds[tag if tag in _KNOWN else "others"] += 1
            self._shapes += tag in _READ
            self.turned += tag == "box" and about.get("rotation", "0").strip() not in ("", "0", "0.0", "0.00")

    def _end(self, tag: str) -> None:
        if tag == "name" and self._above[1:2] == ["meta"] and self._above[-3:-1] == ["labels", "label"]:
            self.labels.append(printable(composed("".join(self._text).strip())))
        if (
            tag == "parent"
            and self.labels
            and self._above[-3:-1] == ["labels", "label"]
            and "".join(self._text).strip()
        ):
            self.labels.pop()  # a part of a skeleton
        if tag == "image" and len(self._above) == 2:
            self.images.append(_Image(*self._open, self._shapes))
        self._above.pop()
        self._text.clear()

    def element(self, image: _Image) -> ElementTree.Element:
        """An image's element, read again.

        Raises:
            ValueError: the file has changed, or the image has too many bytes.
        """
        parser: ElementTree.XMLPullParser[Any] = ElementTree.XMLPullParser(("end",))
        read = 0
        with opened(self.path) as file:
            file.seek(image.begin)
            while read < _MOST and (chunk := file.read(_CHUNK // 16)):
                read += len(chunk)
                parser.feed(chunk)
                try:  # what stands behind the image is an error of its own, which comes after it
                    events: Iterator[Any] = parser.read_events()
                    for _, element in events:
                        if isinstance(element, ElementTree.Element) and element.tag == "image":
                            return element
                except ElementTree.ParseError as e:
                    raise ValueError(f"{self.path}: {shown(image.name)}: broken XML: {e}") from e
        raise ValueError(f"{self.path}: {shown(image.name)}: has more than {_MOST:,} bytes, or the file has changed")


@dataclass(frozen=True)
class _Row:
    """An image by its path within ROOT, and its record."""

    name: str
    split: str | None
    file: _File
    image: _Image
    labelled: bool
    problem: str | None = None


class Cvat(Dataset):
    """In the order of the files, and of the images in them."""

    def __init__(self, root: str, files: list[_File], given: str, empty: str) -> None:
        self._root, tree = root, Tree(root)
        for other in files[1:]:
            if other.labels != files[0].labels and not given:
                raise ValueError(
                    f"{other.path}: has other labels than {files[0].path}: give ?classes=a,b,c, or a folder each"
                )
        classes = given_classes(root, given) if given else ClassList(files[0].path)
        for name in () if given else files[0].labels:
            classes.add(f"{files[0].path}: meta: labels", name)
        if not classes.names:
            raise ValueError(f"{files[0].path}: meta: names no label; give ?classes=a,b,c")
        names = tuple(classes.names[i] for i in sorted(classes.names))
        self._index = {n: i for i, n in enumerate(names)}
        self._rows = [_row(root, file, image, tree, empty) for file in files for image in file.images]
        if not self._rows:
            raise ValueError(f"cvat:{root}: no file names an image: {_LAYOUT}")
        self._once()
        super().__init__([printable(r.name) for r in self._rows])
        outlined = any(file.turned or _OUTLINED & file.kinds.keys() for file in files)
        self.spaces = {"detection": Space(names, MASKS if outlined else BOXES)}
        self.notes += [f"{n:,} {how}" for how, n in tree.odd.items() if how and n]
        self._note(sum((file.kinds for file in files), Counter[str]()), empty)
        images, _ = walk(root)
        if unlisted := len(images.keys() - {r.name for r in self._rows}):
            self.left_out["images that no XML file names"] += unlisted

    def _once(self) -> None:
        counts = Counter(r.name for r in self._rows)
        self._rows = [
            r
            if counts[r.name] == 1
            else _Row(r.name, r.split, r.file, r.image, False, f"{r.file.path}: {shown(r.image.name)}: is there twice")
            for r in self._rows
        ]

    def _note(self, kinds: Counter[str], empty: str) -> None:
        if other := {k: n for k, n in kinds.items() if k not in _READ}:
            told = ", ".join(f"{n:,} {k}" for k, n in sorted(other.items()))
            self.notes.append(f"{sum(other.values()):,} shapes of other kinds were not read: {told}")
        if bare := sum(not r.image.shapes for r in self._rows):
            how = "unlabelled" if empty == "unlabelled" else "labelled, with nothing in them (?empty=unlabelled)"
            self.notes.append(f"{bare:,} images have no shape that is read: they are {how}")

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for row in self._rows[start:stop]:
            targets = partial(self._targets, row) if row.labelled else None
            yield Entry(uri=os.path.join(self._root, row.name), problem=row.problem, split=row.split, targets=targets)

    def _targets(self, row: _Row, size: tuple[int, int]) -> Labels:
        element, at = row.file.element(row.image), f"{row.file.path}: {shown(row.image.name)}"
        sides = tuple(_number(at, element, side, "") for side in ("height", "width"))
        if sides != size:
            raise ValueError(
                f"{at}: height, width: {sides[0]:g} x {sides[1]:g}, but the image is {size[0]} x {size[1]}"
            )
        things, groups = [], []
        for i, shape in enumerate(element):
            if shape.tag not in _READ:
                continue
            where = f"{at}: {shape.tag} {i}"
            label = printable(composed((shape.get("label") or "").strip()))
            if label not in self._index:
                raise ValueError(f"{where}: label: {shown(label)} is none of the {len(self._index)} classes")
            box, outline = _drawing(where, shape, size)
            things.append(Thing(where, self._index[label], box, outline, about=f"of {label!r}: "))
            group = shape.get("group_id", "")
            groups.append(group if re.fullmatch(r"[1-9]\d{0,17}", group) else None)
        return drawn(united(things, groups), size, self.spaces["detection"].kind == MASKS)


def _row(root: str, file: _File, image: _Image, tree: Tree, empty: str) -> _Row:
    found = tree.find(os.path.join(root, "images"), image.name, by_end=True) if image.name else None
    labelled = bool(image.shapes) or empty != "unlabelled"
    if found is None:
        problem = f"{file.path}: {shown(image.name)} is not below {root}"
        return _Row(f"{os.path.basename(file.path)}: {image.name}", None, file, image, False, problem)
    name, how = found
    tree.odd[how] += 1
    split = image.subset or split_of(posixpath.dirname(name))
    return _Row(name, printable(split) if split else None, file, image, labelled)


def _number(where: str, shape: ElementTree.Element, field: str, without: str | None = None) -> float:
    text = shape.get(field, without) or ""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value) or abs(value) > 1e9:
        raise ValueError(f"{where}: {field}: must be a number; got {shown(text)}")
    return value


def _drawing(
    where: str, shape: ElementTree.Element, size: tuple[int, int]
) -> tuple[tuple[float, float, float, float], list[list[float]] | dict[str, Any] | None]:
    """The box and the outline of a shape."""
    degrees = _number(where, shape, "rotation", "0")
    if shape.tag == "box":
        x0, y0, x1, y1 = (_number(where, shape, field) for field in ("xtl", "ytl", "xbr", "ybr"))
        if not degrees:
            return (x0, y0, x1, y1), None
        polygon = rectangle(x0, y0, x1, y1, degrees, ((x0 + x1) / 2, (y0 + y1) / 2))
        return around([polygon]), [polygon]
    if shape.tag == "ellipse":
        x, y, rx, ry = (_number(where, shape, field) for field in ("cx", "cy", "rx", "ry"))
        polygon = oval(x, y, rx, ry, degrees)
        return around([polygon]), [polygon]
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
        try:
            polygon = [float(v) for pair in pairs for v in pair]
        except ValueError:
            polygon = []
        if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs) or not np.isfinite(polygon).all() or not polygon:
            raise ValueError(f"{where}: points: must be 3 or more as x,y;x,y;x,y; got {shown(shape.get('points'))}")
        return around([polygon]), [polygon]
    left, top, width, height = (int(_number(where, shape, field)) for field in ("left", "top", "width", "height"))
    if not (0 <= left < left + width <= size[1] and 0 <= top < top + height <= size[0]):
        raise ValueError(f"{where}: the mask lies beyond the image of {size[0]} x {size[1]} (height x width)")
    words = shape.get("rle", "").split(",")
    runs = [int(word) for word in words if re.fullmatch(r"\s*[0-9]{1,9}\s*", word)]
    if len(runs) != len(words) or sum(runs) != width * height:
        raise ValueError(f"{where}: rle: must be runs that add up to {width} x {height}; got {shown(shape.get('rle'))}")
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    box = inside(mask, left, top)
    if box is None:
        raise ValueError(f"{where}: rle: covers no pixel")
    return box, placed(mask, left, top, size)


def _xml_files(folder: str) -> list[str]:
    try:
        return sorted(f for f in os.listdir(folder) if f.lower().endswith(".xml") and not f.startswith("."))
    except OSError:
        return []


def load(path: str) -> Dataset:
    """The tree at `path`, or its XML file, with the options above.

    Raises:
        ValueError: no such tree, no file of CVAT's, a broken one, or an option that is wrong; says which.
    """
    root, values = options(path, {"classes": "", "empty": "nothing"})
    if values["empty"] not in ("nothing", "unlabelled"):
        raise ValueError(f"?empty={values['empty']}: is one of nothing, unlabelled")
    if os.path.isfile(root):
        root, names, taken = os.path.dirname(root), [os.path.basename(root)], list[str]()
    elif os.path.isdir(root):
        root, taken = found_below(root, lambda folder: bool(_xml_files(folder)))
        names = _xml_files(root)
    else:
        raise ValueError(f"cvat:{root} is no folder: {_LAYOUT}")
    files = [file for name in names if (file := _File(os.path.join(root, name))).read()]
    if not files:
        raise ValueError(f"cvat:{root} has no XML file of CVAT's: {_LAYOUT}")
    dataset = Cvat(root, files, values["classes"], values["empty"])
    dataset.notes[:0] = taken
    return dataset
