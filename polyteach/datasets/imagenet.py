"""ImageNet (ILSVRC 2012 classification), in the layouts that are about.

Class folders, as torchvision's ImageNet and the common valprep.sh leave them; the devkit, a folder or still packed, is
needed for a flat val only:

    ROOT/train/n01440764/n01440764_10026.JPEG
    ROOT/val/n01751748/ILSVRC2012_val_00000001.JPEG     or flat: ROOT/val/ILSVRC2012_val_00000001.JPEG
    ROOT/test/ILSVRC2012_test_00000001.JPEG             unlabelled
    ROOT/ILSVRC2012_devkit_t12/data/meta.mat, ILSVRC2012_validation_ground_truth.txt (or ILSVRC2012_devkit_t12.tar.gz)

ILSVRC, as the archives since 2015 and Kaggle's have it; ROOT is the folder that holds ILSVRC, or ILSVRC itself:

    ROOT/ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG
    ROOT/ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG, .../test/ILSVRC2012_test_00000001.JPEG
    ROOT/ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml
    ROOT/LOC_synset_mapping.txt                         "n01440764 tench, Tinca tinca"
    ROOT/LOC_val_solution.csv                           "ILSVRC2012_val_00048981,n03995372 85 1 499 272"
    ROOT/ILSVRC/ImageSets/CLS-LOC/{train_cls,val,test}.txt  "n01440764/n01440764_10026 1"

The class of a flat image of val is what the first of these says: the solution, the devkit's ground truth, its XML.
An image that a list names and that is not there is an entry with a problem.

Sources: the devkit's readme.txt; torchvision/datasets/imagenet.py (`parse_devkit_archive`); Kaggle's
imagenet-object-localization-challenge. Classes are sorted by WordNet id, as torchvision and timm number them. The
devkit's ILSVRC2012_ID, by which its ground truth counts, is another order; its synsets with children are no classes.
The classes are those of the devkit or of the mapping where there is one, else the folders of all splits.

Class names are the words of the mapping or of meta.mat, else of timm's copy of WordNet, else the WordNet id. Two pairs
of classes share words or begin alike (crane, maillot): names are kept as they are, so that timm's classifiers, which
have the same ones, share a head with people. Other odd cases need nothing here: n02105855_2933.JPEG is a PNG, some are
CMYK. Images may lie deeper in a class folder, and ROOT may hold the class folders itself (no split then).
"""

import csv
import os
import re
import tarfile
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from polyteach.datasets import Dataset, Entry, Labels, found_below, printable, unshared, walk
from polyteach.datasets._archive import unpacked
from polyteach.datasets._classes import of_class
from polyteach.datasets._files import contents, shown, xml
from polyteach.datasets._matlab import read_matlab
from polyteach.tasks.contract import Space

_WNID = re.compile(r"n\d{8}")
_FLAT = re.compile(r"val/(ILSVRC2012_val_\d{8})\.\w+")
_SPLITS = ("train", "val", "test")
_DEVKIT = "ILSVRC2012_devkit_t12"
_LARGEST = 2**26
"""Bytes of a file of the packed devkit, which have some 10^5."""
_META = f"{_DEVKIT}/data/meta.mat"
_TRUTH = f"{_DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt"
_MAPPING, _SOLUTION = "LOC_synset_mapping.txt", "LOC_val_solution.csv"
_LISTS = {"train": "train_cls.txt", "val": "val.txt", "test": "test.txt"}
_EXPECTED = (
    "expected ROOT/train/nXXXXXXXX/*.JPEG and ROOT/val (class folders, or flat with the devkit beside it), or "
    "ROOT/ILSVRC/Data/CLS-LOC/{train,val,test}"
)
_NONE, _ANNOTATED = -1, -2  # instead of a class: unlabelled; see its XML


@dataclass(frozen=True)
class _Truth:
    """The classes of a flat val: `file` says them, by an image's name without ending; `bad` ones with their problem."""

    file: str
    wnids: dict[str, str]
    bad: dict[str, str] = field(default_factory=dict)


class ImageNet(Dataset):
    """Images of all splits, sorted by path; those that are listed and missing come last, with their problem."""

    def __init__(self, root: str) -> None:
        if not os.path.isdir(root):
            raise ValueError(f"{root} is no folder")
        self._home, base, places = _home(root)
        splits = [s for s in _SPLITS if os.path.isdir(os.path.join(self._home, s))]
        found, left_out = _images(self._home, splits)
        files = sorted(found)
        if not files:
            were = ", ".join(f"{n:,} {what}" for what, n in left_out.items()) or "nothing"
            raise ValueError(f"{root} has no images of ImageNet (but {were}); {_EXPECTED}")
        words, by_id = _described(places)
        flat = [m[1] for f in files if (m := _FLAT.fullmatch(f))]
        truth = _truth(places, by_id) if flat else None
        self._xml = os.path.join(base, "Annotations", "CLS-LOC", "val")
        annotated = truth is None and os.path.isdir(self._xml)
        if flat and truth is None and not annotated:
            raise ValueError(
                f"{self._home}/val/{flat[0]}: no class folder, and nothing says its class: put {_TRUTH} and "
                f"{_META}, or {_SOLUTION}, into {root}, or sort val into class folders (valprep.sh)"
            )
        folders = {w for f in files if (w := _wnid(f, splits))}
        wnids = sorted(words or folders | set(truth.wnids.values() if truth else ())) or (
            _ilsvrc() if annotated else []
        )
        if not wnids:
            raise ValueError(f"{root} has no class folders named by WordNet ids (n01440764); {_EXPECTED}")
        sorted_in = {s: {w for f in files if f.startswith(f"{s}/") and (w := _wnid(f, splits))} for s in splits}
        if said := unshared(sorted_in):
            raise ValueError(f"{self._home}: {said}: they are of different data sets")
        self._index = {w: i for i, w in enumerate(wnids)}
        self._labels = array("i")
        self._problems = {i: f"{f}: {found[f]}" for i, f in enumerate(files) if found[f] is not None}
        for i, file in enumerate(files):
            self._labels.append(self._label(i, file, splits, truth))
        missing = _missing(os.path.join(base, "ImageSets", "CLS-LOC"), files, splits, truth)
        for file, problem in missing.items():
            self._problems[len(files)] = problem
            self._labels.append(_NONE)
            files.append(file)
        super().__init__([printable(f) for f in files])
        self.spaces = {"classification": Space(_names(wnids, words))}
        self.left_out = left_out
        self._files, self._has_splits = files, bool(splits)

    def _label(self, i: int, file: str, splits: list[str], truth: _Truth | None) -> int:
        """Class index of an image, or a code; notes its problem."""
        if i in self._problems:
            return _NONE
        wnid, who = _wnid(file, splits), file
        if wnid is None and (flat := _FLAT.fullmatch(file)):
            if truth is None:
                return _ANNOTATED
            wnid, who = truth.wnids.get(flat[1]), f"{file}: {truth.file}"
            if wnid is None:
                self._problems[i] = f"{who}: {truth.bad.get(flat[1], 'has no such image')}"
                return _NONE
        if wnid is None:
            if not (splits and file.startswith("test/")):
                self._problems[i] = f"{file}: is in no class folder named by a WordNet id (n01440764)"
            return _NONE
        if wnid not in self._index:
            self._problems[i] = f"{who}: {wnid} is none of the {len(self._index):,} classes"
            return _NONE
        return self._index[wnid]

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for i in range(start, min(stop, len(self._files))):
            file, label = self._files[i], self._labels[i]
            known = partial(self._targets, label, file)
            yield Entry(
                uri=os.path.join(self._home, file),
                problem=self._problems.get(i),
                split=file.split("/")[0] if self._has_splits else None,
                targets=None if label == _NONE else known,
            )

    def _targets(self, label: int, file: str, size: tuple[int, int]) -> Labels:
        where = file
        if label == _ANNOTATED:
            where = os.path.join(self._xml, os.path.splitext(os.path.basename(file))[0] + ".xml")
            wnid = _annotated(where)
            if wnid not in self._index:
                raise ValueError(f"{where}: object/name: {wnid!r} is none of the {len(self._index):,} classes")
            label = self._index[wnid]
        return of_class(label, len(self._index), where)


def _home(root: str) -> tuple[str, str, list[str]]:
    """The folder that holds the splits; ILSVRC, or else ROOT; and the folders where descriptions may lie."""
    for base in (os.path.join(root, "ILSVRC"), root, os.path.dirname(os.path.dirname(root))):
        home = os.path.join(base, "Data", "CLS-LOC")
        if os.path.isdir(home) and os.path.commonpath((home, root)) in (home, root):
            return home, base, list(dict.fromkeys((root, base, os.path.dirname(base))))
    return root, root, [root]


def _images(home: str, splits: list[str]) -> tuple[dict[str, str | None], Counter[str]]:
    if not splits:
        return walk(home)
    found: dict[str, str | None] = {}
    left_out: Counter[str] = Counter()
    for split in splits:
        some, left = walk(os.path.join(home, split))
        found |= {f"{split}/{f}": problem for f, problem in some.items()}
        left_out += left
    return found, left_out


def _wnid(file: str, splits: list[str]) -> str | None:
    """The WordNet id of the class folder that an image is in."""
    parts = file.split("/")[1 if splits else 0 :]
    return parts[0] if len(parts) > 1 and _WNID.fullmatch(parts[0]) else None


def _read(places: list[str], name: str) -> tuple[str, bytes] | None:
    """A file that describes the images, from its folder or, of the devkit, still packed: (path, content)."""
    for place in places:
        path, packed = os.path.join(place, name), os.path.join(place, f"{_DEVKIT}.tar.gz")
        if os.path.lexists(path):
            return path, contents(path, _LARGEST)
        if name.startswith(_DEVKIT) and os.path.isfile(packed):
            try:
                for found, data in unpacked(packed, name.__eq__, _LARGEST):
                    return f"{packed}: {found}", data
            except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError) as e:
                raise ValueError(f"{packed} cannot be read: {e}") from e
            raise ValueError(f"{packed} cannot be read: it has no {name}")
    return None


def _text(path: str, data: bytes) -> list[str]:
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise ValueError(f"{path} is no UTF-8 text: {e}") from e


def _described(places: list[str]) -> tuple[dict[str, str], dict[int, str]]:
    """Words by WordNet id, of the mapping or else of the devkit; and the devkit's WordNet ids by ILSVRC2012_ID."""
    words: dict[str, str] = {}
    by_id: dict[int, str] = {}
    if meta := _read(places, _META):
        words, by_id = _synsets(*meta)
    if mapping := _read(places, _MAPPING):
        words = {}
        for n, line in enumerate(_text(*mapping), 1):
            wnid, _, text = line.strip().partition(" ")
            if line.strip() and not _WNID.fullmatch(wnid):
                raise ValueError(f"{mapping[0]}: line {n}: {shown(wnid)} is no WordNet id such as n01440764")
            if wnid:
                words[wnid] = text.strip() or wnid
    return words, by_id


def _synsets(path: str, data: bytes) -> tuple[dict[str, str], dict[int, str]]:
    """The leaves of meta.mat: words by WordNet id, and WordNet ids by ILSVRC2012_ID."""
    synsets = read_matlab(path, data, ["synsets"]).get("synsets")
    try:
        if not isinstance(synsets, dict):
            raise ValueError("it has no variable synsets of structures")
        rows = zip(*(synsets[k] for k in ("ILSVRC2012_ID", "WNID", "words", "num_children")), strict=True)
        leaves = [(int(id), str(wnid), str(words)) for id, wnid, words, children in rows if int(children) == 0]
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise ValueError(
            f"{path} is no devkit meta.mat with synsets of ILSVRC2012_ID, WNID, words, num_children: "
            f"{type(e).__name__}: {e}"
        ) from e
    if not leaves:
        raise ValueError(f"{path}: synsets: none is without children (num_children 0)")
    return {wnid: words for _, wnid, words in leaves}, {id: wnid for id, wnid, _ in leaves}


def _truth(places: list[str], by_id: dict[int, str]) -> _Truth | None:
    if solution := _read(places, _SOLUTION):
        return _solution(*solution)
    if not (ids := _read(places, _TRUTH)):
        return None
    if not by_id:
        raise ValueError(f"{ids[0]} counts by ILSVRC2012_ID, which {_META} explains, and that is missing")
    truth = _Truth(ids[0], {})
    for n, line in enumerate(_text(*ids), 1):
        name = f"ILSVRC2012_val_{n:08d}"
        if not re.fullmatch(r"\s*\d{1,9}\s*", line, re.ASCII):
            raise ValueError(f"{ids[0]}: line {n}: {shown(line)} is no ILSVRC2012_ID")
        if int(line) in by_id:
            truth.wnids[name] = by_id[int(line)]
        else:
            truth.bad[name] = f"line {n}: ILSVRC2012_ID {int(line)} is no class of {_META}"
    return truth


def _solution(path: str, data: bytes) -> _Truth:
    """Kaggle's boxes: "wnid x1 y1 x2 y2", repeated; all boxes of an image are of its class."""
    rows = csv.DictReader(_text(path, data))
    if not {"ImageId", "PredictionString"} <= set(rows.fieldnames or ()):
        raise ValueError(
            f"{path}: the columns are {shown(', '.join(rows.fieldnames or ()))}, not ImageId,PredictionString"
        )
    truth = _Truth(path, {})
    for row in rows:
        wnids = set((row["PredictionString"] or "").split()[::5])
        if len(wnids) == 1:
            truth.wnids[row["ImageId"]] = wnids.pop()
        else:
            truth.bad[row["ImageId"]] = f"line {rows.line_num}: PredictionString names {len(wnids)} classes, not one"
    return truth


def _annotated(path: str) -> str:
    """The class of the objects in an annotation of the Pascal VOC kind."""
    names = {name.text or "" for name in xml(path).iterfind("object/name")}
    if len(names) != 1:
        raise ValueError(f"{path}: object/name: {len(names)} classes ({shown(sorted(names)[:3])}), not one")
    return names.pop()


def _missing(lists: str, files: list[str], splits: list[str], truth: _Truth | None) -> dict[str, str]:
    """Images that the truth or ImageSets, in folder `lists`, name and that are not there -> the problem."""
    listed: dict[str, str] = {}
    if truth:
        listed |= {f"val/{name}": truth.file for name in (*truth.wnids, *truth.bad)}
    flat = any(_FLAT.fullmatch(f) for f in files)
    for split in splits:
        if split == "val" and not flat:
            continue  # sorted into class folders, of which the lists know nothing
        if lines := _read([lists], _LISTS[split]):
            listed |= {f"{split}/{line.split()[0]}": lines[0] for line in _text(*lines) if line.strip()}
    if not listed:
        return {}
    there = {os.path.splitext(f)[0] for f in files}
    there |= {f"val/{os.path.basename(f)}" for f in there if f.startswith("val/")}  # some of val may be sorted
    absent = {f"{name}.JPEG": who for name, who in listed.items() if name not in there}
    return {name: f"{name}: is missing; {who} lists it" for name, who in absent.items()}


def _ilsvrc() -> list[str]:
    from timm.data import ImageNetInfo

    return list(ImageNetInfo("imagenet-1k").label_names())


def _names(wnids: list[str], words: dict[str, str]) -> tuple[str, ...]:
    if words:
        return tuple(words[w] for w in wnids)
    from timm.data import ImageNetInfo

    lemmas = ImageNetInfo()

    def name(wnid: str) -> str:
        try:
            return lemmas.label_name_to_description(wnid)
        except KeyError:
            return wnid

    return tuple(name(w) for w in wnids)


def load(path: str) -> Dataset:
    """The tree at `path`.

    Raises:
        ValueError: it has none of the layouts; a description is broken; a flat val has none; scipy is needed.
    """
    root, taken = found_below(path, _is_tree)
    dataset = ImageNet(root)
    dataset.notes += taken
    return dataset


def _is_tree(root: str) -> bool:
    return (
        _home(root)[0] != root
        or any(os.path.isdir(os.path.join(root, split)) for split in _SPLITS)
        or any(_WNID.fullmatch(name) for name in os.listdir(root))
    )
