"""COCO's JSON annotation files of any size: read once as a stream, then kept as positions in the file.

The format: https://cocodataset.org/#format-data and pycocotools' `coco.py`. One JSON object with the fields
`images: [{id, file_name, height, width}]`, `annotations: [{id, image_id, category_id, bbox, segmentation, iscrowd}]`
and `categories: [{id, name}]`, in any order; bbox is x, y, width, height in pixels from the image's corner.

Objects365's training file is 5.6 GB with 25 million annotations: as Python objects that would be some 60 GB. Here an
annotation costs 16 bytes (where it stands; some 100 while the file is read), and is read again with its image.
"""

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from polyteach.datasets import Drawn, composed, printable
from polyteach.datasets._coco_outlines import covers, masks_of, numbers
from polyteach.datasets._files import opened, shown
from polyteach.datasets._json_stream import JsonStream
from polyteach.tasks.detection import DetectionTarget

_FAR = 1e9
SEVERAL = 10
"""Boxes of a file from which on it is told that all of them may be corners."""
_NONE = -(1 << 63)
"""Stands for an id that is missing or no whole number."""


class CocoFile:
    """One annotation file. Shapes: N images in the file's order.

    names: `file_name` of every image, as it is written. sizes: (N, 2) height and width as the file says, 0 where it
    does not. licences: (N,) index into `licence_names`. categories: names in the order of their ids, each once.
    broken: by image, what is wrong with its record. problems: (where, what) of what belongs to no image. notes:
    sentences on what was mended.
    """

    def __init__(self, path: str, *, labelled: bool = True) -> None:
        """Read the file through.

        labelled: `annotations` and `categories` are wanted too.

        Raises:
            ValueError: not JSON, or a field is missing; names both.
        """
        self.path = path
        self.file = os.path.basename(path)
        self.names: list[str] = []
        self.broken: dict[int, str] = {}
        self.problems: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.licence_names: list[str | None] = [None]
        self.outlined = False
        """Whether any annotation has a segmentation that may cover something."""
        self._rows: dict[int, int] = {}
        self._merged: dict[int, list[int]] = {}
        self._form = _Form()
        self._places = array("i")
        self._sizes, self._licences = array("q"), array("q")
        wanted = ("images", "annotations", "categories") if labelled else ("images",)
        annotations, categories, licences = _Annotations(), list[Any](), dict[int, int]()
        seen: set[str] = set()
        try:
            with opened(path) as file:
                for field, index, value, begin, length in JsonStream(path, file).fields(frozenset(wanted)):
                    if index < 0 and field in wanted and field in seen:
                        raise ValueError(f"{path}: {field}: is there twice")
                    seen.add(field)
                    if index < 0:
                        if field == "licenses":
                            licences = self._licence(value)
                    elif field == "images":
                        self._image(index, value)
                    elif field == "annotations":
                        annotations.add(value, begin, length)
                        self._form.add(value)
                        self.outlined = self.outlined or (isinstance(value, dict) and covers(value.get("segmentation")))
                    else:
                        categories.append(value)
        except OSError as e:
            raise ValueError(f"{path} cannot be read: {e.strerror}") from e
        for field in wanted:
            if field not in seen:
                there = ", ".join(shown(f) for f in sorted(seen)[:20])
                raise ValueError(f"{path}: {field}: missing; the fields are {there or 'none'}")
        self.sizes = np.array(self._sizes, dtype=np.int32).reshape(-1, 2)
        self.licences = np.array([licences.get(i, 0) for i in self._licences], dtype=np.int32)
        self._index, self.categories, same = _categories(path, categories, annotations.categories)
        self.notes += same
        self.notes += [f"{path}: {said}"] if (said := self._form.doubt()) else []
        self._settle(annotations)
        del self._sizes, self._licences, self._rows

    def _licence(self, value: Any) -> dict[int, int]:
        found: dict[int, int] = {}
        for one in value if isinstance(value, list) else []:
            if isinstance(one, dict) and isinstance(one.get("id"), int) and one.get("name"):
                found[one["id"]] = len(self.licence_names)
                said = [one[k] for k in ("name", "url") if isinstance(one.get(k), str) and one[k]]
                self.licence_names.append(printable(" ".join(said)) or None)
        return found

    def _image(self, index: int, value: Any) -> None:
        where = f"{self.file}: images[{index}]"
        if not isinstance(value, dict):
            self.problems.append((where, f"{where}: is no object but {shown(value)}"))
            return
        name = value.get("file_name")
        if not isinstance(name, str) or not name:
            self.problems.append((where, f"{where}.file_name: must name a file; got {shown(name)}"))
            return
        row, id = len(self.names), _whole(value.get("id"))
        self.names.append(name)
        self._places.append(index)
        self._licences.append(_whole(value.get("license")))
        size = [value.get("height"), value.get("width")]
        known = [0 if side is None else _whole(side) for side in size]
        if min(known) < 0 or max(known) >= 1 << 31:
            self.broken[row] = f"{where}: height, width: must be pixels; got {shown(size[0])}, {shown(size[1])}"
            known = [0, 0]
        self._sizes.extend(known)
        if id == _NONE:
            self.broken[row] = f"{where}.id: must be a whole number; got {shown(value.get('id'))}"
        elif id in self._rows:
            self.broken[row] = f"{where}.id: {id} is also the id of {self.names[self._rows[id]]}"
        else:
            self._rows[id] = row

    def _settle(self, found: "_Annotations") -> None:
        """Sort the annotations by image; note those that are of no image, and ids that come twice."""
        ids = np.fromiter(self._rows, dtype=np.int64, count=len(self._rows))
        rows = np.fromiter(self._rows.values(), dtype=np.int64, count=len(self._rows))
        sort = ids.argsort(kind="stable")
        ids, rows = ids[sort], rows[sort]
        image = np.array(found.image, dtype=np.int64)
        at = np.searchsorted(ids, image)
        known = at < len(ids)
        known[known] = ids[at[known]] == image[known]
        owner = np.full(len(image), len(self.names), dtype=np.int32)  # those of no image: behind all images
        owner[known] = rows[at[known]]
        del at, image
        self._order = owner.argsort(kind="stable").astype(np.int32)
        self._begin = np.array(found.begin, dtype=np.int64)[self._order]
        self._length = np.array(found.length, dtype=np.int32)[self._order]
        self._first = np.searchsorted(owner[self._order], np.arange(len(self.names) + 1)).astype(np.int64)
        for where, value in self._read(int(self._first[-1]), len(owner)):
            what = ".image_id" if isinstance(value, dict) else ""
            got = value.get("image_id") if isinstance(value, dict) else value
            none = f"{shown(got)} is the id of no image" if what else f"is no object but {shown(got)}"
            self.problems.append((where, f"{where}{what}: {none}"))
        own = np.array(found.own, dtype=np.int64)
        sort = own.argsort(kind="stable")
        again = np.nonzero((own[sort][1:] == own[sort][:-1]) & (own[sort][1:] != _NONE))[0]
        for a, b in zip(sort[again], sort[again + 1], strict=True):
            text = f"{self.file}: annotations[{b}].id: {own[b]} is also the id of annotations[{a}]"
            if owner[b] < len(self.names):
                self.broken.setdefault(int(owner[b]), text)

    def where(self, row: int) -> str:
        """Where the record of image `row` stands."""
        return f"{self.file}: images[{self._places[row]}]"

    def merge(self, first: int, second: int) -> str | None:
        """Take the annotations of record `second` for those of `first`, which is of the same image; or say why not."""
        a, b = ([int(s) for s in self.sizes[row]] for row in (first, second))
        broken = self.broken.get(second)
        if broken is None and any(x and y and x != y for x, y in zip(a, b, strict=True)):
            broken = (
                f"{self.where(second)}.file_name: {self.names[second]} is also that of {self.where(first)}, which says "
                f"that it is {a[0]} x {a[1]} (height x width), and not {b[0]} x {b[1]}"
            )
        if broken is not None:
            return broken
        self._merged.setdefault(first, []).append(second)
        self.sizes[first] = [x or y for x, y in zip(a, b, strict=True)]
        return None

    def annotations(self, row: int) -> list[tuple[str, dict[str, Any]]]:
        """(where it stands, the annotation) of image `row` and of those merged into it, in the file's order.

        Raises:
            ValueError, OSError: the file has changed since.
        """
        own = [row, *self._merged.get(row, [])]
        return [one for r in own for one in self._read(int(self._first[r]), int(self._first[r + 1]))]

    def _read(self, start: int, stop: int) -> Iterator[tuple[str, Any]]:
        if start == stop:
            return
        with opened(self.path) as file:
            for i in range(start, stop):
                file.seek(int(self._begin[i]))
                where = f"{self.file}: annotations[{self._order[i]}]"
                try:
                    value = json.loads(file.read(int(self._length[i])))
                except ValueError as e:
                    raise ValueError(f"{where}: is no JSON any more: {self.path} has changed") from e
                except RecursionError as e:  # deeper than when the file was read: there is less room here
                    raise ValueError(f"{where}: is nested too deeply") from e
                yield where, value

    def check_size(self, row: int, size: tuple[int, int]) -> None:
        """Compare the size in the file with the image's (height, width).

        Raises:
            ValueError: they differ.
        """
        height, width = (int(s) for s in self.sizes[row])
        if (height and height != size[0]) or (width and width != size[1]):
            turned = " (turned by its EXIF orientation?)" if (width, height) == size else ""
            raise ValueError(
                f"{self.file}: images, {self.names[row]}: height, width: {height} x {width}, but the image is "
                f"{size[0]} x {size[1]}{turned}"
            )

    def category(self, where: str, value: dict[str, Any]) -> int:
        """The index of an annotation's or segment's class.

        Raises:
            ValueError: its `category_id` is not in the file.
        """
        id = value.get("category_id")
        index = self._index.get(_whole(id))
        if index is None:
            raise ValueError(
                f"{where}.category_id: {shown(id)} is none of the file's {len(self.categories)} categories"
            )
        return index

    def boxes(self, row: int, size: tuple[int, int], outlines: bool) -> Drawn:
        """The objects of image `row`, which is (height, width) `size`.

        A crowd (`iscrowd`), or what is marked `ignore`, is ignored. outlines: give masks; they are None where an
        object that is learned has no segmentation. An object whose outline covers no pixel is ignored too, with its box
        as its mask: what it shows is not known, and the masks of the others are.

        Raises:
            ValueError: a box without a size, an unknown category, a broken outline; says which.
        """
        self.check_size(row, size)
        notes: Counter[str] = Counter()
        found = self._distinct(row, notes)
        boxes = [_box(w, a) for w, a in found]
        names = [f"{w}.bbox of id {a.get('id')}: {a['bbox']}" for w, a in found]
        if found:
            self._form.check(names[0])
        crowd, marked = ([flag(w, a, field) for w, a in found] for field in ("iscrowd", "ignore"))
        notes["are crowds (iscrowd: 1), of which no single object is learned"] += sum(crowd)
        notes["are marked `ignore`, and not learned"] += sum(m and not c for m, c in zip(marked, crowd, strict=True))
        ignored = [c or m for c, m in zip(crowd, marked, strict=True)]
        masks, blank = masks_of(found, boxes, size, ignored) if outlines else (None, [False] * len(found))
        notes["have an outline that covers no pixel (or of two points): ignored, neither object nor background"] += sum(
            b and not c and not m for b, c, m in zip(blank, crowd, marked, strict=True)
        )
        if outlines and masks is None:
            notes["have no outline, or are in an image with one that has none: only their boxes are learned"] += len(
                found
            )
        target = DetectionTarget(
            box=torch.tensor(boxes, dtype=torch.float64).view(-1, 4).float(),
            category=torch.tensor([self.category(w, a) for w, a in found], dtype=torch.int64),
            score=torch.ones(len(found)),
            ignore=torch.tensor(crowd, dtype=torch.bool)
            | torch.tensor(marked, dtype=torch.bool)
            | torch.tensor(blank, dtype=torch.bool),
            mask=None if masks is None else torch.from_numpy(masks),
        )
        out = Drawn({"detection": target})
        out.where["detection"], out.notes["detection"] = names, +notes
        out.hint = self._form.hint()
        return out

    def _distinct(self, row: int, notes: Counter[str]) -> list[tuple[str, dict[str, Any]]]:
        """The annotations of an image; what two merged records both have, once."""
        found = self.annotations(row)
        if row not in self._merged:
            return found
        seen: dict[str, tuple[str, dict[str, Any]]] = {}
        for where, one in found:
            content = _content(where, one)
            seen.setdefault(content, (where, one))
        notes["are in two image records of one file, and were taken once"] += len(found) - len(seen)
        return list(seen.values())


def _content(where: str, annotation: dict[str, Any]) -> str:
    """What an annotation says, to be compared.

    Raises:
        ValueError: it is nested too deeply.
    """
    try:
        return json.dumps([annotation.get(k) for k in ("category_id", "bbox", "segmentation", "iscrowd")])
    except RecursionError as e:
        raise ValueError(f"{where}: is nested too deeply") from e


class _Form:
    """What all boxes of a file say together about how they are written."""

    def __init__(self) -> None:
        self._boxes = self._areas = 0
        self._pixel = self._fraction = self._corners = self._product = True
        self._moved = False
        """Whether a box begins elsewhere than in the image's corner, where both ways to write it say the same."""

    def add(self, annotation: Any) -> None:
        """One annotation of the file; what has no readable box says nothing."""
        if not (self._pixel or self._fraction or self._corners):
            return
        box = annotation.get("bbox") if isinstance(annotation, dict) else None
        if not isinstance(box, list) or len(box) != 4 or not numbers(box):
            return
        x, y, width, height = box
        self._boxes += 1
        self._pixel = self._pixel and max(width, height) < 1
        self._fraction = self._fraction and min(box) >= 0 and max(box) <= 1
        self._corners = self._corners and width > x >= 0 and height > y >= 0
        self._moved = self._moved or max(x, y) > 0
        area = annotation.get("area")
        if self._corners and type(area) in (int, float) and 1 < area < 1 << 53:
            between = (width - x) * (height - y)
            self._areas += abs(between - width * height) > 0.02 * area
            self._product = self._product and abs(area - between) <= 0.01 * area

    def check(self, name: str) -> None:
        """Refuse boxes that are fractions of the image, or corners by their own areas.

        Raises:
            ValueError: they are; names the first by `name`.
        """
        if self._boxes and (self._pixel or self._fraction):
            raise ValueError(
                f"{name}: all {self._boxes:,} boxes of the file are under a pixel: bbox is in pixels of the image, "
                "not in fractions of its sides"
            )
        if self._corners and self._product and self._areas > 1:
            raise ValueError(
                f"{name}: `area` says of all {self._boxes:,} boxes of the file that they are x0, y0, x1, y1; bbox is "
                "x, y, width, height"
            )

    def doubt(self) -> str:
        """What to say of boxes that are read as x, y, width, height and may be corners: among many by hand, some lie in
        the right or the lower half of their image and are smaller than their distance from its corner.
        """
        if not self._corners or self._boxes < SEVERAL or not self._moved:
            return ""
        return (
            f"every one of its {self._boxes:,} boxes would be one as x0, y0, x1, y1 too, which is rare: read as x, y, "
            "width, height, as COCO's are; look at some"
        )

    def hint(self) -> str:
        """What may be wrong with all boxes, for whoever gets an error about one."""
        return (
            ". All boxes of the file could be corners (x0, y0, x1, y1); COCO's are x, y, width, height: convert them"
            * (self._corners and self._boxes > 0)
        )


class _Annotations:
    """What is kept of annotations while a file is read."""

    def __init__(self) -> None:
        self.image, self.own, self.begin, self.length = array("q"), array("q"), array("q"), array("i")
        self.categories: set[int] = set()
        """Ids of those that there is an annotation or a segment of."""

    def add(self, value: Any, begin: int, length: int) -> None:
        """One annotation, and where it stands."""
        known = value if isinstance(value, dict) else {}
        self.image.append(_whole(known.get("image_id")))
        self.own.append(_whole(known.get("id")))
        self.begin.append(begin)
        self.length.append(length)
        segments = known.get("segments_info")
        for one in (known, *(segments if isinstance(segments, list) else [])):
            self.categories.add(_whole(one.get("category_id")) if isinstance(one, dict) else _NONE)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: Any) -> int:
    """`value` where it is a whole number of 64 bits, else `_NONE`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool) and _NONE < value < -_NONE
    return value if whole else _NONE


def _categories(path: str, found: list[Any], used: set[int]) -> tuple[dict[int, int], tuple[str, ...], list[str]]:
    """Index by id, and names, in the order of the ids; and what is to be said of those of one name, which are one.

    used: ids of the categories that something is of.
    """
    names: dict[int, str] = {}
    above: dict[int, str] = {}
    for i, value in enumerate(found):
        where = f"{path}: categories[{i}]"
        id, name = (_whole(value.get("id")), value.get("name")) if isinstance(value, dict) else (_NONE, None)
        if id == _NONE or not isinstance(name, str):
            raise ValueError(f"{where}: must have a whole number `id` and a text `name`; got {shown(value)}")
        if id in names:
            raise ValueError(f"{where}.id: {id} is also the id of {names[id]!r}")
        names[id], above[id] = printable(composed(name.strip())), _text(value.get("supercategory"))
    index: dict[int, int] = {}
    first: dict[str, int] = {}
    notes = []
    for id in sorted(names):
        other = first.setdefault(names[id], id)
        if other != id:
            if above[id] and above[other] and above[id] != above[other] and {id, other} <= used:
                raise ValueError(
                    f"{path}: categories: {names[id]!r} is the name of id {other} (of supercategory {above[other]!r}) "
                    f"and of id {id} (of {above[id]!r}): rename one, or give both one supercategory if they are one"
                )
            notes.append(f"{path}: categories: ids {other} and {id} are both called {names[id]!r}: taken as one class")
        index[id] = index[other] if other != id else len(first) - 1
    return index, tuple(first), notes


def flag(where: str, annotation: dict[str, Any], field: str) -> bool:
    """A field that is 0 or 1, and 0 where it is missing.

    Raises:
        ValueError: it is something else.
    """
    value = annotation.get(field, 0)
    if value not in (0, 1):
        raise ValueError(f"{where}.{field}: must be 0 or 1; got {shown(value)}")
    return bool(value)


def _box(where: str, annotation: dict[str, Any]) -> list[float]:
    """x0, y0, x1, y1 of an annotation's bbox."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or not numbers(box) or len(box) != 4:
        got = f"{box!r:.80}" if numbers(box) else shown(box)
        raise ValueError(f"{where}.bbox: must be 4 finite numbers x, y, width, height; got {got}")
    x, y, width, height = (float(number) for number in box)
    if width <= 0 or height <= 0:
        raise ValueError(f"{where}.bbox: width and height must be above 0; got {box}")
    if max(abs(x), abs(y), width, height) > _FAR:
        raise ValueError(f"{where}.bbox: lies far beyond any image; got {box}")
    return [x, y, x + width, y + height]
