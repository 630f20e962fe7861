"""LabelMe's JSON files (github.com/wkentaro/labelme), one beside each image: outlines and boxes.

    ROOT/**/a.json                      imagePath, imageData, imageHeight, imageWidth, shapes
    ROOT/**/a.jpg                       or wherever imagePath says below ROOT

A shape has a label, points in pixels of the upright image, and a shape_type:

    polygon, circle, mask               an object with an outline and the box around it
    rectangle                           an object by its box
    line, linestrip, point, points, ... are not read, and counted

The classes are the labels of all files, sorted; `labelme:ROOT?classes=a,b,c` or `?classes=FILE` says which there are,
and a label that is none of them is an error. A split is a folder that is called so. Odd cases:

- A file without shapes is labelled: there is nothing. An image without a file is unlabelled; these are counted.
- imagePath may have backslashes, lead up (../images/a.jpg) or be of another place: what is below ROOT by the longest
  end of it is taken, and told. Where the image is not there, the copy in imageData is taken, and told. A file has
  at most 64 MiB.
- Shapes of one label and one group_id are parts of one object. Where one of them is a rectangle or a mask, the object
  has no outline.
- A shape called __ignore__ is neither learned nor background.
- An image with an object that has no outline, such as a rectangle among polygons, is learned from by boxes alone.
- Two files of one image are an error. Files of other JSON are counted. Flags of images are not read.
"""

import base64
import binascii
import io
import os
import posixpath
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from polyteach.datasets import Dataset, Entry, Labels, composed, options, printable, split_of, walk
from polyteach.datasets._class_lists import ClassList, given_classes
from polyteach.datasets._coco_outlines import numbers
from polyteach.datasets._files import contents, decoded, json_of, shown
from polyteach.datasets._objects import Thing, around, drawn, inside, oval, placed, united
from polyteach.datasets._pairs import files_below
from polyteach.datasets._tree import Tree
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, MASKS

_OUTLINED = frozenset(("polygon", "circle", "mask"))
_READ = _OUTLINED | {"rectangle"}
_IGNORE = "__ignore__"
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class _Row:
    """An image by its path within ROOT, and its file's; image is None where the file holds it."""

    name: str
    image: str | None
    file: str | None
    problem: str | None = None


@dataclass
class _Scan:
    """What all files say together: their images, how often each kind of shape occurs, and the labels."""

    files: list[str]
    tree: Tree
    rows: list[_Row] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    labels: set[str] = field(default_factory=set)

    def held(self) -> int:
        """How many images are in their files alone."""
        return sum(row.image is None and row.problem is None for row in self.rows)


class Labelme(Dataset):
    """Sorted by the paths of the files, then images without one."""

    def __init__(self, root: str, given: str, scan: _Scan) -> None:
        self._root = root
        images, left_out = walk(root)
        own = Counter(r.image for r in scan.rows if r.image is not None)
        bare = [_Row(f, f, None, images[f] and f"{f}: {images[f]}") for f in sorted(images) if f not in own]
        twice = "{0.file}: imagePath: {0.image} is that of another file too"
        self._rows = [
            replace(r, problem=twice.format(r)) if r.image and own[r.image] > 1 else r for r in scan.rows
        ] + bare
        super().__init__([printable(r.name) for r in self._rows])
        classes = given_classes(root, given) if given else ClassList("the labels")
        for name in () if given else sorted(scan.labels - {_IGNORE}):
            classes.add("the labels", name)
        if not classes.names:
            raise ValueError(f"labelme:{root}: no file has a polygon, a rectangle, a circle or a mask")
        names = tuple(classes.names[i] for i in sorted(classes.names))
        self._index = {n: i for i, n in enumerate(names)}
        self.spaces = {"detection": Space(names, MASKS if _OUTLINED & scan.kinds.keys() else BOXES)}
        del left_out[".json"]
        left_out["JSON files that are none of LabelMe's"] += len(scan.files) - len(scan.rows)
        self.left_out = +left_out
        self._note(scan.kinds, scan.tree, len(bare), scan.held())

    def _note(self, kinds: Counter[str], tree: Tree, bare: int, held: int) -> None:
        self.notes += [f"{n:,} {how}" for how, n in tree.odd.items() if how and n]
        if other := {k: n for k, n in kinds.items() if k not in _READ}:
            told = ", ".join(f"{n:,} {k}" for k, n in sorted(other.items())[:10])
            self.notes.append(f"{sum(other.values()):,} shapes of other kinds were not read: {told}")
        if bare:
            self.notes.append(f"{bare:,} images have no JSON file: they are unlabelled")
        if held:
            self.notes.append(f"{held:,} images are not there: taken from the imageData of their JSON files")

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for row in self._rows[start:stop]:
            split = split_of(posixpath.dirname(row.name))
            targets = None if row.file is None else partial(self._targets, row.file)
            entry = partial(Entry, split=None if split is None else printable(split), targets=targets)
            if row.image is not None:
                yield entry(uri=os.path.join(self._root, row.image), problem=row.problem)
            elif row.problem is not None:
                yield entry(problem=row.problem)
            else:
                try:
                    data = _image_data(os.path.join(self._root, str(row.file)))
                except ValueError as e:
                    yield entry(problem=str(e))
                else:
                    yield entry(data=data)

    def _targets(self, file: str, size: tuple[int, int]) -> Labels:
        path = os.path.join(self._root, file)
        content = _read(path)
        said = tuple(content.get(k) for k in ("imageHeight", "imageWidth"))
        if any(type(s) is int and s != side for s, side in zip(said, size, strict=True)):
            raise ValueError(
                f"{path}: imageHeight, imageWidth: {shown(said[0])} x {shown(said[1])}, but the image is "
                f"{size[0]} x {size[1]}"
            )
        things, groups = [], []
        for i, shape in enumerate(content["shapes"]):
            thing = self._thing(f"{path}: shapes[{i}]", shape, size)
            if thing is not None:
                number = shape.get("group_id")
                things.append(thing)
                groups.append(number if type(number) is int else None)
        return drawn(united(things, groups), size, self.spaces["detection"].kind == MASKS)

    def _thing(self, where: str, shape: Any, size: tuple[int, int]) -> Thing | None:
        """The object of a shape; None where it is of a kind that is not read."""
        if not isinstance(shape, dict):
            raise ValueError(f"{where}: must be an object; got {shown(shape)}")
        kind = _kind(shape)
        if kind not in _READ:
            return None
        name, points = _label(shape), shape.get("points")
        if name != _IGNORE and name not in self._index:
            raise ValueError(f"{where}.label: {shown(shape.get('label'))} is none of the {len(self._index)} classes")
        if not isinstance(points, list) or not all(numbers(p) and len(p) == 2 for p in points):
            raise ValueError(f"{where}.points: must be a list of x, y; got {shown(points)}")
        box, outline = _drawing(where, kind, points, shape, size)
        return Thing(where, self._index.get(name, 0), box, outline, name == _IGNORE, f"of {name!r}: ")


class HeldLabelme(Labelme):
    """Of which some images are in their JSON files alone."""

    embed: ClassVar[bool] = True


def _drawing(
    where: str, kind: str, points: list[list[float]], shape: dict[str, Any], size: tuple[int, int]
) -> tuple[tuple[float, float, float, float], list[list[float]] | dict[str, Any] | None]:
    """The box and the outline of a shape."""
    least = 3 if kind == "polygon" else 2
    if len(points) < least or (kind != "polygon" and len(points) not in (2, 4)):
        raise ValueError(
            f"{where}.points: a {kind} has {'at least 3' if least == 3 else '2'} points; got {len(points)}"
        )
    if kind == "polygon":
        polygon = [v for p in points for v in p]
        return around([polygon]), [polygon]
    if kind == "rectangle":
        return around(points), None
    (x0, y0), (x1, y1) = points[:2]
    if kind == "circle":
        radius = float(np.hypot(x1 - x0, y1 - y0))
        return (x0 - radius, y0 - radius, x0 + radius, y0 + radius), [oval(x0, y0, radius, radius)]
    left, top = int(x0), int(y0)
    height, width = int(y1) - top + 1, int(x1) - left + 1
    if not (0 <= left < left + width <= size[1] and 0 <= top < top + height <= size[0]):
        raise ValueError(f"{where}.points: the mask lies beyond the image of {size[0]} x {size[1]} (height x width)")
    mask = _mask(f"{where}.mask", shape.get("mask"), (height, width))
    box = inside(mask, left, top)
    if box is None:
        raise ValueError(f"{where}.mask: covers no pixel")
    return box, placed(mask, left, top, size)


def _mask(where: str, value: Any, size: tuple[int, int]) -> np.ndarray:
    """A PNG in base64 of (height, width) `size`."""
    data = _bytes(where, value)
    if not data.startswith(_PNG) or len(data) < 24 or struct.unpack(">II", data[16:24]) != size[::-1]:
        raise ValueError(f"{where}: must be a PNG of {size[0]} x {size[1]} (height x width) in base64")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            pixels = np.asarray(image) if image.mode in ("1", "L") and image.size == size[::-1] else None
    except MemoryError:
        raise
    except Exception as e:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ... of broken files
        raise ValueError(f"{where}: broken: {e}") from e
    if pixels is None or pixels.shape != size:
        raise ValueError(f"{where}: must be a grey PNG")
    return pixels > 0


def _bytes(where: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"{where}: must be text in base64; got {shown(value)}")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as e:
        raise ValueError(f"{where}: is no base64: {e}") from e


def _image_data(path: str) -> bytes:
    """The image that a file holds.

    Raises:
        ValueError: it holds none.
    """
    data = _bytes(f"{path}: imageData", _read(path).get("imageData"))
    return data


def _read(path: str) -> dict[str, Any]:
    """The object in a file of LabelMe's.

    Raises:
        ValueError: it is broken, or none.
    """
    content = _json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise ValueError(f"{path}: shapes: must be a list: it is no file of LabelMe's")
    return content


def _json(path: str) -> Any:
    return json_of(path, decoded(path, contents(path), "utf-8-sig"))


def _kind(shape: dict[str, Any]) -> str:
    kind = shape.get("shape_type") or "polygon"  # files of before 3.0 have polygons alone
    return kind if isinstance(kind, str) else shown(kind)


def _label(shape: dict[str, Any]) -> str:
    label = shape.get("label")
    return printable(composed(label.strip())) if isinstance(label, str) else ""


def _scan(root: str) -> _Scan:
    """Read all files through.

    Raises:
        ValueError: none is one of LabelMe's.
    """
    scan = _Scan(files_below(root, ".json"), Tree(root))
    for file in scan.files:
        try:
            content = _json(os.path.join(root, file))
        except ValueError as e:
            scan.rows.append(_Row(file, None, file, str(e)))
            continue
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            continue
        for shape in content["shapes"]:
            if isinstance(shape, dict):
                kind = _kind(shape)
                scan.kinds[kind] += 1
                if kind in _READ and (name := _label(shape)):
                    scan.labels.add(name)
        scan.rows.append(_row(root, file, content, scan.tree))
    if not scan.rows:
        raise ValueError(f"labelme:{root} has no JSON file of LabelMe's; expected ROOT/**/a.json beside ROOT/**/a.jpg")
    return scan


def _row(root: str, file: str, content: dict[str, Any], tree: Tree) -> _Row:
    """Where a file's image is."""
    home, called = posixpath.dirname(file), content.get("imagePath")
    where = f"{os.path.join(root, file)}: imagePath"
    if not isinstance(called, str) or not called:
        return _Row(file, None, file, f"{where}: must name the image; got {shown(called)}")
    up = posixpath.normpath(posixpath.join(home, called.replace("\\", "/")))
    found = tree.find(root, up) or tree.find(os.path.join(root, home), called, by_end=True)
    if found is not None:
        tree.odd[found[1]] += 1
        return _Row(found[0], found[0], file)
    if content.get("imageData") is None:
        return _Row(file, None, file, f"{where}: {shown(called)} is not below {root}, and imageData is empty")
    return _Row(file, None, file)


def load(path: str) -> Dataset:
    """The tree at `path`, which may end in ?classes=a,b,c.

    Raises:
        ValueError: no such tree, no file of LabelMe's, or an option that is wrong.
    """
    root, values = options(path, {"classes": ""})
    if not os.path.isdir(root):
        raise ValueError(f"labelme:{root} is no folder; expected ROOT/**/a.json beside ROOT/**/a.jpg")
    scan = _scan(root)
    return (HeldLabelme if scan.held() else Labelme)(root, values["classes"], scan)
