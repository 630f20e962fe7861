"""Label Studio's export "JSON" (labelstud.io/guide/export): boxes, outlines, and choices of a class for the image.

    ROOT/project-1-at-2024-05-01.json   a list of tasks; ROOT may be this file. Any name, if it is the only JSON file
    ROOT/**/a.jpg                       the images, below ROOT

Of a task's annotation are read, by the type of each result:

    polygonlabels, ellipselabels        an object with an outline and the box around it
    rectanglelabels                     an object by its box; with the outline of the turned box where it is turned
    choices                             the image's class, where one is chosen
    brushlabels, keypointlabels, ...    not read, and counted

Classes are the labels, and the choices, of all tasks, sorted; `label-studio:ROOT?classes=a,b,c` or `?classes=FILE` says
which labels there are. A split is a folder that is called so. Odd cases:

- Positions are per cent of the image's sides; a rectangle is turned clockwise about its upper left corner.
- A task without an annotation, or of which all were cancelled, is unlabelled; one whose annotation is empty is
  labelled: there is nothing. Both are counted. Of several annotations the one marked as ground truth is taken, else the
  first, which is told. Predictions are not read.
- data.image is /data/local-files/?d=a/b.jpg (a path below the server's root), /data/upload/1/1a2b3c4d-a.jpg (eight
  digits before the file's name), or a path or URL. What is below ROOT by the longest end of it is taken. A URL (http,
  https, s3) of which nothing is below ROOT is an address that is read where --allow-remote allows it.
- original_width and original_height that are the image's turned by a quarter are an error: people drew on an image that
  was not upright.
- An image with an object that has no outline, such as a box among polygons, is learned from by boxes alone.
- Where several choices are marked, or several questions asked, the image has no class; these are counted.
- "JSON-MIN" and "CSV" are refused: they do not say what is a label.
"""

import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from polyteach.datasets import Dataset, Entry, Labels, composed, options, printable, split_of
from polyteach.datasets._class_lists import ClassList, given_classes
from polyteach.datasets._classes import of_class
from polyteach.datasets._coco_outlines import numbers
from polyteach.datasets._files import opened, shown
from polyteach.datasets._json_stream import JsonStream
from polyteach.datasets._objects import Thing, around, drawn, oval, rectangle
from polyteach.datasets._tree import Tree
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, MASKS

_OUTLINED = frozenset(("polygonlabels", "ellipselabels"))
_DRAWN = _OUTLINED | {"rectanglelabels"}
_UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)")
_LAYOUT = 'expected ROOT/NAME.json, exported as "JSON", and the images below ROOT'


@dataclass(frozen=True)
class _Task:
    """A task's place in the file, and its image: a path within ROOT or an address."""

    index: int
    begin: int
    length: int
    image: str
    labelled: bool
    problem: str | None


@dataclass
class _Scan:
    """What all tasks say together."""

    path: str
    root: str
    tree: Tree
    tasks: list[_Task] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    choices: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    turned: int = 0
    said: Counter[str] = field(default_factory=Counter)

    def read(self) -> None:
        """Read the file through.

        Raises:
            ValueError: it is no export of this form.
        """
        try:
            with opened(self.path) as file:
                for index, value, begin, length in JsonStream(self.path, file).items():
                    self._add(index, value, begin, length)
        except OSError as e:
            raise ValueError(f"{self.path}: cannot be read: {e.strerror}") from e
        if not self.tasks:
            raise ValueError(f"{self.path}: has no task")

    def _add(self, index: int, value: Any, begin: int, length: int) -> None:
        where = f"{self.path}: [{index}]"
        if not isinstance(value, dict) or not isinstance(value.get("data"), dict):
            raise ValueError(f'{where}: has no `data`: export the project as "JSON", not as "JSON-MIN"')
        image, problem = self._image(where, value["data"])
        taken = _annotation(value, self.said)
        self.said["tasks have no annotation: their images are unlabelled"] += taken is None
        results = taken.get("result") if taken is not None else []
        if not isinstance(results, list):
            problem, results = problem or f"{where}: annotations: result: must be a list; got {shown(results)}", []
        self.said["annotations are empty: there is nothing in their images"] += taken is not None and not results
        for one in results:
            kind, content, names = _parts(one)
            self.kinds[kind] += 1
            if kind in _DRAWN:
                self.labels.update(names)
                self.turned += kind == "rectanglelabels" and content.get("rotation") not in (None, 0)
            elif kind == "choices":
                self.choices.update(names)
        self.tasks.append(_Task(index, begin, length, image, taken is not None, problem))

    def _image(self, where: str, data: dict[str, Any]) -> tuple[str, str | None]:
        keys = [k for k in ("image", "img", "url", *sorted(data)) if isinstance(data.get(k), str)]
        if not keys:
            return where, f"{where}.data: names no image"
        text = data[keys[0]]
        for name in _paths(text):
            if (found := self.tree.find(self.root, name, by_end=True)) is not None:
                return found[0], None
        if re.match(r"(https?|s3)://[^\[\s]+$", text):
            return text, None
        return f"{where}: {text}"[:300], f"{where}.data.{keys[0]}: {shown(text)} is not below {self.root}"


def _paths(text: str) -> list[str]:
    """The paths that a task's image may have on the disk."""
    try:
        parts = urlsplit(text)
        local = parse_qs(parts.query).get("d", [])
    except ValueError:  # of brackets that are no address
        return [text]
    names = [*local, text] if not parts.scheme else [*local, unquote(parts.path)]
    for name in list(names):
        folder, file = posixpath.split(unquote(name))
        names.append(posixpath.join(folder, file))
        if match := _UPLOAD.fullmatch(file):
            names.append(posixpath.join(folder, match[1]))
    return [n for n in dict.fromkeys(names) if n and "\0" not in n]


def _annotation(task: dict[str, Any], said: Counter[str]) -> dict[str, Any] | None:
    """The annotation of a task that is taken, or None."""
    listed = task.get("annotations", task.get("completions"))
    whole = [a for a in listed if isinstance(a, dict)] if isinstance(listed, list) else []
    whole = [a for a in whole if not a.get("was_cancelled")]
    said["tasks have several annotations: that of the ground truth was read, or the first"] += len(whole) > 1
    return next((a for a in whole if a.get("ground_truth")), whole[0] if whole else None)


def _parts(result: Any) -> tuple[str, dict[str, Any], list[str]]:
    """The type, the value and the names of a result, of whatever it holds of them."""
    if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
        return "others", {}, []
    kind, value = result.get("type"), result["value"]
    kind = kind if isinstance(kind, str) else "others"
    names = value.get(kind)
    listed = [printable(composed(n.strip())) for n in names if isinstance(n, str)] if isinstance(names, list) else []
    return kind[:40], value, [n for n in listed if n]


class LabelStudio(Dataset):
    """In the order of the file."""

    def __init__(self, scan: _Scan, given: str) -> None:
        self._scan, self._root = scan, scan.root
        super().__init__([printable(task.image) for task in scan.tasks])
        if _DRAWN & scan.kinds.keys():
            classes = given_classes(scan.root, given) if given else ClassList(scan.path)
            for name in () if given else sorted(scan.labels):
                classes.add(scan.path, name)
            names = tuple(classes.names[i] for i in sorted(classes.names))
            if not names:
                raise ValueError(f"{scan.path}: no box and no outline has a label")
            kind = MASKS if scan.turned or _OUTLINED & scan.kinds.keys() else BOXES
            self.spaces["detection"] = Space(names, kind)
            self._labels = {n: i for i, n in enumerate(names)}
        if scan.choices:
            choices = tuple(sorted(scan.choices))
            self.spaces["classification"] = Space(choices)
            self._choices = {n: i for i, n in enumerate(choices)}
        if not self.spaces:
            raise ValueError(f"{scan.path}: no annotation has a box, an outline or a choice")
        if other := {k: n for k, n in scan.kinds.items() if k not in _DRAWN and k != "choices"}:
            told = ", ".join(f"{n:,} {printable(k)}" for k, n in sorted(other.items())[:10])
            scan.said[f"results of other kinds were not read: {told}"] += sum(other.values())
        self.notes += [f"{n:,} {what}" for what, n in scan.said.items() if n]

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for task in self._scan.tasks[start:stop]:
            remote = "://" in task.image and task.problem is None
            uri = task.image if remote else os.path.join(self._root, task.image)
            split = None if remote or task.problem else split_of(posixpath.dirname(task.image))
            targets = partial(self._targets, task) if task.labelled else None
            yield Entry(uri=uri, problem=task.problem, split=split and printable(split), targets=targets)

    def _targets(self, task: _Task, size: tuple[int, int]) -> Labels:
        with opened(self._scan.path) as file:
            file.seek(task.begin)
            try:
                value = json.loads(file.read(task.length))
            except ValueError as e:
                raise ValueError(f"{self._scan.path}: [{task.index}]: is no JSON any more: it has changed") from e
        taken = _annotation(value, Counter())
        results = [] if taken is None else taken["result"]
        things, chosen = [], []
        for i, one in enumerate(results):
            where = f"{self._scan.path}: [{task.index}].result[{i}]"
            kind, content, names = _parts(one)
            if kind == "choices":
                chosen.append(names)
            if kind in _DRAWN:
                _check_size(where, one, size)
                if len(names) != 1 or names[0] not in self._labels:
                    raise ValueError(
                        f"{where}.{kind}: must be one of the {len(self._labels)} labels; got {names!r:.80}"
                    )
                box, outline = _drawing(f"{where}.value", kind, content, size)
                things.append(Thing(where, self._labels[names[0]], box, outline, about=f"of {names[0]!r}: "))
        labels: Labels = {}
        if "detection" in self.spaces:
            labels = drawn(things, size, self.spaces["detection"].kind == MASKS)
        if "classification" in self.spaces and len(chosen) == 1 and len(chosen[0]) == 1:
            labels |= of_class(self._choices[chosen[0][0]], len(self._choices), self._scan.path)
        return labels


def _check_size(where: str, result: dict[str, Any], size: tuple[int, int]) -> None:
    said = result.get("original_height"), result.get("original_width")
    if said == size[::-1] and size[0] != size[1]:
        raise ValueError(
            f"{where}: original_height, original_width: {said[0]} x {said[1]}, but the image, upright, is "
            f"{size[0]} x {size[1]}: it was drawn on before it was turned"
        )


def _drawing(
    where: str, kind: str, value: dict[str, Any], size: tuple[int, int]
) -> tuple[tuple[float, float, float, float], list[list[float]] | None]:
    """The box and the outline of a result, in pixels."""
    height, width = size
    if kind == "polygonlabels":
        points = value.get("points")
        if not isinstance(points, list) or len(points) < 3 or not all(numbers(p) and len(p) == 2 for p in points):
            raise ValueError(f"{where}.points: must be 3 or more x, y; got {shown(points)}")
        polygon = [v * side / 100 for p in points for v, side in zip(p, (width, height), strict=True)]
        return around([polygon]), [polygon]
    ellipse = kind == "ellipselabels"
    fields = ("x", "y", "radiusX", "radiusY") if ellipse else ("x", "y", "width", "height")
    found: list[Any] = [value.get(f) for f in fields] + [value.get("rotation") or 0]
    if not numbers(found):
        raise ValueError(f"{where}: {', '.join(fields)}: must be numbers; got {found!r:.100}")
    x, y, w, h = (n * side / 100 for n, side in zip(found[:4], (width, height) * 2, strict=True))
    if ellipse:
        polygon = oval(x, y, w, h, found[4])
    elif not found[4]:
        return (x, y, x + w, y + h), None
    else:
        polygon = rectangle(x, y, x + w, y + h, found[4], (x, y))
    return around([polygon]), [polygon]


def load(path: str) -> Dataset:
    """The tree at `path`, or its JSON file, which may end in ?classes=a,b,c.

    Raises:
        ValueError: no such tree, no export or several, a broken one, or an option that is wrong; says which.
    """
    root, values = options(path, {"classes": ""})
    if os.path.isfile(root):
        root, names = os.path.split(root)[0], [os.path.basename(root)]
    elif os.path.isdir(root):
        names = sorted(f for f in os.listdir(root) if f.endswith(".json") and not f.startswith("."))
    else:
        raise ValueError(f"label-studio:{root} is no folder: {_LAYOUT}")
    if len(names) != 1:
        found = f"has several JSON files, {', '.join(names[:5])}: give one" if names else f"has no JSON file: {_LAYOUT}"
        raise ValueError(f"label-studio:{root} {found}")
    scan = _Scan(os.path.join(root, names[0]), root, Tree(root))
    scan.read()
    return LabelStudio(scan, values["classes"])
