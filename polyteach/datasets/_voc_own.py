"""Pascal VOC's files with classes of one's own; see `voc`."""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from polyteach.datasets import Dataset, Drawn, Entry, Labels, printable, walk
from polyteach.datasets._class_lists import ClassList, given_classes, read_classes
from polyteach.datasets._class_maps import MapReader, map_reader
from polyteach.datasets._files import lines, xml
from polyteach.datasets._pairs import Kind, Pairs, paired
from polyteach.datasets._voc_xml import Reading, float_of, name_of, objects
from polyteach.ground.names import plain
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES

_XML = Kind(
    what="XML file",
    whats="XML files",
    folders=frozenset(("annotations", "annotation", "annots", "annot", "xmls", "xml", "labels", "label")),
    end=re.compile(r"(?!)"),
    option="classes",
    ending=".xml",
)
_MAPS = Kind(
    what="class map",
    whats="class maps",
    folders=frozenset(("segmentationclass",)),
    end=re.compile(r"(?!)"),
    option="classes",
)
_LABELMAP = "labelmap.txt"


@dataclass(frozen=True)
class _Row:
    """An image, its XML file and its class map, by their paths; None where there is none."""

    image: str
    split: str | None
    xml: str | None
    map: str | None
    problem: str | None = None


@dataclass
class _Names:
    """What all XML files say together. lowest: of where boxes begin."""

    names: set[str]
    lowest: float = 1.0
    objects: int = 0

    def add(self, path: str) -> None:
        """One file; a broken one says nothing here, and is its image's error."""
        try:
            tree = xml(path)
        except ValueError:
            return
        for thing in tree.findall("object"):
            self.objects += 1
            self.names.add(name_of(thing))
            for side in ("xmin", "ymin"):
                value = float_of(thing.findtext(f"bndbox/{side}"))
                self.lowest = self.lowest if value is None else min(self.lowest, value)


class OwnVoc(Dataset):
    """By folder, then in the order of the lists, or sorted by path."""

    def __init__(self, root: str, folders: Sequence[str], classes: str, first: str, twenty: Sequence[str]) -> None:
        """folders: of the years, or `root`. classes, first: as the options say. twenty: VOC's own classes."""
        notes: list[str] = []
        left_out: Counter[str] = Counter()
        rows: list[_Row] = []
        self._root = root
        for folder in folders:
            rows += self._listed(folder, left_out) if _lists(folder) else self._found(folder, left_out, notes)
        if not rows:
            raise ValueError(f"voc:{root} has no images")
        said = _Names(set())
        for row in rows:
            if row.xml is not None:
                said.add(row.xml)
        listed = self._classes(classes, said, twenty, notes)
        names = [listed.names[i] for i in sorted(listed.names) if plain(listed.names[i]) != "background"]
        count_from = int(first) if first else int(said.lowest >= 1)
        if not count_from and not first:
            notes.append(f"boxes begin at {said.lowest:g}: all are counted from 0, not from 1 as VOC's (?first=1)")
        self._reading = Reading({n: i for i, n in enumerate(names)}, f"the classes {_few(names)}", count_from, False)
        super().__init__([printable(os.path.relpath(r.image, root).replace(os.sep, "/")) for r in rows])
        if any(row.xml for row in rows):
            self.spaces["detection"] = Space(tuple(names), BOXES)
        self._maps = self._segmentation(rows, listed, notes)
        if self._maps is not None:
            self.spaces["segmentation"] = Space(self._maps.names)
        if not self.spaces:
            raise ValueError(f"voc:{root} has images, and neither XML files of objects nor class maps that can be read")
        self._rows = rows
        self.left_out = +left_out
        self.notes += notes

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for row in self._rows[start:stop]:
            labelled = row.xml is not None or (row.map is not None and self._maps is not None)
            targets = partial(self._targets, row) if labelled else None
            yield Entry(uri=row.image, problem=row.problem, split=row.split, targets=targets)

    def _targets(self, row: _Row, size: tuple[int, int]) -> Labels:
        labels = Drawn()
        if row.xml is not None:
            labels = objects(row.xml, size, self._reading)
        if row.map is not None and self._maps is not None:
            labels["segmentation"] = self._maps.read(row.map, size)
        return labels

    # ---------------------------------------------------------------- which images there are

    def _listed(self, folder: str, left_out: Counter[str]) -> list[_Row]:
        """The images of ImageSets; one that is in different splits of Main and Segmentation comes twice."""
        base = os.path.join(folder, "JPEGImages")
        images = {os.path.splitext(f)[0]: f for f in sorted(walk(base)[0])} if os.path.isdir(base) else {}
        year = "" if folder == self._root else os.path.basename(folder).removeprefix("VOC") + "/"
        rows: dict[tuple[str, str], _Row] = {}
        seen: dict[tuple[str, str], str] = {}
        for kind, lists in _lists(folder).items():
            for split, (path, ids) in lists.items():
                for id in ids:
                    first = seen.setdefault((kind, id), path)
                    problem = None if first == path else f"{path}: {id}: is in {first} already"
                    old = rows.get((id, split))
                    map_file = os.path.join(folder, "SegmentationClass", f"{id}.png")
                    xml_file = os.path.join(folder, "Annotations", f"{id}.xml")
                    rows[id, split] = _Row(
                        os.path.join(base, images.get(id, f"{id}.jpg")),
                        printable(year + split),
                        xml_file if kind == "Main" or (old and old.xml) else None,
                        map_file if kind == "Segmentation" or os.path.exists(map_file) else None,
                        problem or (old.problem if old else None),
                    )
        left_out["images in no list of ImageSets"] += len(images.keys() - {id for id, _ in rows})
        return [*rows.values()]

    def _found(self, folder: str, left_out: Counter[str], notes: list[str]) -> list[_Row]:
        """The images of a tree without lists."""
        pairs = paired(folder, _XML, "", "")
        maps: dict[str, str | None] = {}
        if os.path.isdir(os.path.join(folder, "SegmentationClass")):
            found: Pairs = paired(folder, _MAPS, "", "")
            maps = {pair.image: pair.map for pair in found.rows}
        notes += pairs.notes
        if maps:  # what other folders have are the maps
            pairs.left_out = Counter({k: n for k, n in pairs.left_out.items() if not k.startswith("images in other")})
        left_out += pairs.left_out
        at = partial(os.path.join, folder)
        return [
            _Row(at(p.image), p.split, p.map and at(p.map), (m := maps.get(p.image)) and at(m), p.problem)
            for p in pairs.rows
        ]

    # ---------------------------------------------------------------- which classes there are

    def _classes(self, given: str, said: _Names, twenty: Sequence[str], notes: list[str]) -> ClassList:
        own = ClassList("the XML files")
        for name in sorted(said.names - {""}):
            own.add("the XML files", name)
        if given == "own":
            found = own
        elif given:
            found = given_classes(self._root, given)
        elif os.path.isfile(os.path.join(self._root, _LABELMAP)):
            found = read_classes(os.path.join(self._root, _LABELMAP))
            notes.append(f"the classes are those of {found.path}")
        elif said.names <= set(twenty):
            found = ClassList("VOC's classes", dict(enumerate(twenty)))
            notes.append("the classes are VOC's twenty: no other is named (?classes=own takes those that are)")
        else:
            found = own
        if found is own:
            if not own.names:
                raise ValueError(f"voc:{self._root}: no XML file names a class; give ?classes=a,b,c")
            notes.append(
                f"the classes are the {len(own.names):,} that the XML files name: {_few([*own.names.values()])}"
            )
        notes += found.notes
        return found

    def _segmentation(self, rows: list[_Row], listed: ClassList, notes: list[str]) -> MapReader | None:
        """How the class maps are read; None where there are none, or the order of the classes is not known."""
        if not any(row.map for row in rows):
            return None
        if listed.path == "the XML files":
            notes.append("SegmentationClass was not read: give the classes in the order of its indices, ?classes=a,b,c")
            return None
        first, classes = min(listed.names), listed
        if not listed.colours and plain(listed.names[first]) != "background":
            classes = ClassList(listed.path, {0: "background"} | {i + 1 - first: n for i, n in listed.names.items()})
        reader, said = map_reader(classes)
        notes += said
        return reader


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f", ... {len(names):,} in all" if len(names) > 10 else "")


def _lists(folder: str) -> dict[str, dict[str, tuple[str, list[str]]]]:
    """By kind (Main, Segmentation) and split: the path of its list, and its images' names.

    Raises:
        ValueError: a list is broken, or a name in it leads elsewhere.
    """
    found: dict[str, dict[str, tuple[str, list[str]]]] = {}
    for kind in ("Main", "Segmentation"):
        home = os.path.join(folder, "ImageSets", kind)
        names = sorted(f for f in os.listdir(home) if f.endswith(".txt")) if os.path.isdir(home) else []
        splits = {f.removesuffix(".txt") for f in names}
        if splits & {"train", "val"}:
            splits.discard("trainval")
        for split in sorted(sorted(splits), key=lambda s: ("train", "val", "test", s).index(s)):
            path = os.path.join(home, f"{split}.txt")
            words = [line.split() for line in lines(path)]
            if any(len(w) > 1 and w[-1] in ("1", "0", "-1") for w in words):
                continue  # of one class
            ids = [line.strip() for line in lines(path) if line.strip()]
            for id in ids:
                if posixpath.isabs(id) or ".." in id.split("/") or "\\" in id:
                    raise ValueError(f"{path}: {id!r} is no name of an image")
            found.setdefault(kind, {})[split] = path, list(dict.fromkeys(ids))
    return found
