"""Files that name classes, in the forms in which tools write them: text, CSV, JSON and YAML, with colours or without.

person                      a name on each line, the first of index 0 (YOLO's classes.txt, obj.names)
0: person                   or with its index
64 0 128 Car                red, green, blue and a name (CamVid's label_colors.txt)
car:64,0,128::              name, colour, parts, actions (CVAT's labelmap.txt); # begins a comment
name,r,g,b                  CSV with such a first line, or without one; also index,name
["person", "car"]           JSON or YAML: a list of names, or of objects with name, and id or color where known
{"0": "person"}             index -> name, or name -> index, or name -> [red, green, blue]
{"names": ...}              any of these in a field names, classes, categories or labels
"""

import csv
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from polyteach.datasets import composed, printable
from polyteach.datasets._files import contents, decoded, json_of, lines, shown
from polyteach.ground.files import once, yaml_value

Colour = tuple[int, int, int]

MOST = 65_535
"""Classes of pixels that a store can hold; a class's index is below it."""
_WITHIN = ("names", "classes", "categories", "labels")
_NAME = frozenset(("name", "label", "class", "class_name", "classname", "category"))
_INDEX = frozenset(("id", "index", "value", "idx", "class_id", "label_id"))
_RGB = (frozenset(("r", "red")), frozenset(("g", "green")), frozenset(("b", "blue")))
_LABELMAP = re.compile(r"([^:]+):(?:(\d+),(\d+),(\d+))?:[^:]*:[^:]*")
_COLOURED = re.compile(r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\S.*)")
_NUMBERED = re.compile(r"(\d+)(?:\s*[:,\t]\s*|\s+)(\S.*)")


@dataclass
class ClassList:
    """names: by index. colours: the index by colour, where the file has colours. notes: how it was read."""

    path: str
    names: dict[int, str] = field(default_factory=dict)
    colours: dict[Colour, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _called: set[str] = field(default_factory=set)

    def add(self, where: str, name: Any, index: int | None = None, colour: Any = None) -> None:
        """One more class, of the next index where none is given.

        Raises:
            ValueError: no name, a second one of its name, index or colour, or something out of range.
        """
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            quote = ": quote it" if isinstance(name, bool) else ""
            raise ValueError(f"{where}: a class's name must be text; got {shown(name)}{quote}")
        text = printable(composed(str(name).strip()))
        if not text:
            raise ValueError(f"{where}: a class has no name")
        index = len(self.names) if index is None else index
        if not 0 <= index < MOST:
            raise ValueError(f"{where}: index {shown(index)} of {shown(text)} must be in 0..{MOST - 1}")
        if index in self.names:
            raise ValueError(f"{where}: index {index} is {shown(self.names[index])} already")
        if text in self._called:
            raise ValueError(f"{where}: a class is called {shown(text)} already")
        self.names[index] = text
        self._called.add(text)
        if colour is not None:
            key = as_colour(where, colour)
            if key in self.colours:
                raise ValueError(f"{where}: colour {key} is that of {shown(self.names[self.colours[key]])} already")
            self.colours[key] = index

    def dense(self, count: int = 0) -> tuple[str, ...]:
        """The names from index 0 on.

        Raises:
            ValueError: an index has no name.
        """
        count = max(count, max(self.names, default=-1) + 1)
        if gaps := [i for i in range(count) if i not in self.names]:
            raise ValueError(f"{self.path}: index {gaps[0]} of 0..{count - 1} has no name")
        return tuple(self.names[i] for i in range(count))


def given_classes(root: str, given: str) -> ClassList:
    """The classes that an option names: a,b,c with commas, or a file, by its path or within `root`.

    Raises:
        ValueError: it is neither, or as `read_classes`.
    """
    if "," in given:
        found = ClassList(f"?classes={given}")
        for name in given.split(","):
            found.add(found.path, name)
        return found
    expanded = os.path.expanduser(given)
    for path in (os.path.join(root, expanded), os.path.abspath(expanded)):
        if os.path.isfile(path):
            return read_classes(path)
    raise ValueError(f"?classes={given}: is no file, and no names with commas between them")


def as_colour(where: str, value: Any) -> Colour:
    """Red, green and blue, 0..255, of a list of them or of text as #rrggbb.

    Raises:
        ValueError: it is neither; says `where` it stands.
    """
    if isinstance(value, str) and (parts := re.fullmatch(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", value)):
        value = [int(part, 16) for part in parts.groups()]
    listed = isinstance(value, list | tuple) and len(value) == 3
    if not listed or not all(type(v) is int and 0 <= v <= 255 for v in value):
        raise ValueError(f"{where}: a colour must be red, green, blue in 0..255, or #rrggbb; got {shown(value)}")
    red, green, blue = value
    return red, green, blue


def read_classes(path: str) -> ClassList:
    """The classes that a file names.

    Raises:
        ValueError: it is missing, broken, of no form above, or says one thing twice; names it.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending == ".json":
        found = of_value(path, json_of(path, decoded(path, contents(path), "utf-8-sig")))
    elif ending in (".yaml", ".yml"):
        found = of_value(path, read_yaml(path))
    elif ending == ".csv":
        found = _table(path)
    else:
        found = _text(path)
    if not found.names:
        raise ValueError(f"{path}: names no class")
    return found


def read_yaml(path: str) -> Any:
    """The value of a YAML file that anyone may have written.

    Raises:
        ValueError: as `contents`; it is no YAML, too large, or has a key twice. Names it.
    """
    import yaml

    text = decoded(path, contents(path), "utf-8-sig")
    try:
        return yaml_value(text, once(getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except ValueError as e:
        raise ValueError(f"{path}: is no YAML that is read: {' '.join(str(e).split())[:300]}") from e


def of_value(path: str, value: Any, where: str = "") -> ClassList:
    """The classes that a value of JSON or YAML names; `where` it stands in the file.

    Raises:
        ValueError: it is of none of the forms above.
    """
    found, at = ClassList(path), f"{path}: {where}" if where else path
    if isinstance(value, dict):
        inner = next((k for k in _WITHIN if isinstance(value.get(k), list | dict)), None)
        if inner is not None:
            return of_value(path, value[inner], inner)
        _mapping(found, at, value)
    elif isinstance(value, list):
        for i, one in enumerate(value):
            if isinstance(one, dict):
                id, colour = (next((one[k] for k in keys if k in one), None) for keys in (_INDEX, ("color", "colour")))
                _add_numbered(found, f"{at}[{i}]", next((one[k] for k in sorted(_NAME) if k in one), None), id, colour)
            else:
                found.add(f"{at}[{i}]", one)
    else:
        raise ValueError(f"{at}: must be a list of names, or index: name; got {shown(value)}")
    return found


def _mapping(found: ClassList, at: str, value: Mapping[Any, Any]) -> None:
    for key, one in value.items():
        index = _whole(key)
        if index is not None and isinstance(one, dict):
            _add_numbered(found, f"{at}[{shown(key)}]", one.get("name"), index, one.get("color"))
        elif index is not None:
            found.add(f"{at}[{shown(key)}]", one, index)
        elif isinstance(one, list):
            found.add(f"{at}[{shown(key)}]", key, None, one)
        else:
            _add_numbered(found, f"{at}[{shown(key)}]", key, one, None, needed=True)


def _add_numbered(found: ClassList, at: str, name: Any, id: Any, colour: Any, needed: bool = False) -> None:
    index = _whole(id)
    if index is None and (id is not None or needed):
        raise ValueError(f"{at}: the index of a class must be a whole number; got {shown(id)}")
    found.add(at, name, index, colour)


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}\s*", value):
        return int(value)
    return value if type(value) is int else None


def _text(path: str) -> ClassList:
    """A text file: names, or one of the forms with colours or indices where every line has it."""
    found = ClassList(path)
    rows = [(i, line.strip().removeprefix("\ufeff")) for i, line in enumerate(lines(path), 1)]
    while rows and not rows[-1][1]:
        rows.pop()
    said = [(i, line) for i, line in rows if line and not line.startswith("#")]
    for form in (_LABELMAP, _COLOURED):
        if said and all(form.fullmatch(line) for _, line in said):
            for i, line in said:
                *parts, last = [p for match in [form.fullmatch(line)] if match for p in match.groups()]
                name, rgb = (parts[0], [*parts[1:], last]) if form is _LABELMAP else (last, parts)
                found.add(f"{path}: line {i}", name, None, [int(v) for v in rgb] if rgb[0] else None)
            return found
    numbered = [match for _, line in said if (match := _NUMBERED.fullmatch(line))]
    if len(numbered) == len(said) == len(rows) and _in_order([int(m[1]) for m in numbered]):
        for (i, _), match in zip(said, numbered, strict=True):
            found.add(f"{path}: line {i}", match[2], int(match[1]))
        found.notes.append(f"{path}: each line begins with the index of its class: read as such")
        return found
    for i, line in rows:
        found.add(f"{path}: line {i}", line)
    return found


def _in_order(numbers: list[int]) -> bool:
    return len(numbers) > 0 and numbers[0] in (0, 1) and all(b == a + 1 for a, b in pairwise(numbers))


def _table(path: str) -> ClassList:
    """A CSV file, with a first line that names its columns or without one."""
    found = ClassList(path)
    text = [line.removeprefix("\ufeff") for line in lines(path)]
    try:
        rows = [(i, [cell.strip() for cell in row]) for i, row in enumerate(csv.reader(text), 1) if any(row)]
    except csv.Error as e:
        raise ValueError(f"{path}: is no CSV: {e}") from e
    heads = [cell.lower() for cell in rows[0][1]] if rows else []
    name = _column(heads, _NAME)
    if name is not None:
        del rows[0]
        columns = [_column(heads, words) for words in _RGB]
        index = _column(heads, _INDEX)
    else:
        width = len(heads)
        name, columns = (1 if width == 2 else 0), [1, 2, 3] if width == 4 else [None] * 3
        index = 0 if width == 2 else None
    rgb = [c for c in columns if c is not None]
    for i, row in rows:
        if max([name, *rgb, index or 0]) >= len(row):
            raise ValueError(f"{path}: line {i}: has {len(row)} fields, fewer than its first line says")
        numbers = [_whole(row[c]) for c in rgb]
        id = None if index is None else row[index]
        _add_numbered(found, f"{path}: line {i}", row[name], id, numbers if len(rgb) == 3 else None)
    return found


def _column(heads: Iterable[str], words: frozenset[str]) -> int | None:
    return next((i for i, head in enumerate(heads) if head in words), None)
