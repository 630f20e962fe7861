"""COCO (Lin et al., ECCV 2014): boxes with outlines, and classes of pixels, as the archives of cocodataset.org unpack.

    ROOT/train2017/000000000009.jpg ...            pictures; ROOT/images/train2017/ is taken as well
    ROOT/val2017/  ROOT/test2017/  ROOT/unlabeled2017/  ROOT/train2014/COCO_train2014_000000000009.jpg ...
    ROOT/annotations/instances_train2017.json      80 classes: boxes and outlines
                     panoptic_train2017.json       133 classes of things and stuff, with panoptic_train2017/*.png
                     stuff_train2017.json          91 classes of stuff, and "other"
                     image_info_test2017.json      pictures without labels

A split is what stands between the kind and ".json": train2017. So any export `annotations/instances_NAME.json` is read,
with its pictures in ROOT/NAME/, ROOT/images/NAME/, ROOT/images/ or ROOT/; and Roboflow's form, in which each folder
ROOT/NAME/ has its pictures and `_annotations.coco.json`. `coco:ROOT?segmentation=panoptic|stuff|none` chooses whose
classes of pixels are read; without it panoptic's where there are any, else stuff's.

Formats: https://cocodataset.org/#format-data; panopticapi's `utils.py` and `panoptic2semantic_segmentation`;
cocostuffapi's `cocostuffhelper.py`. Their odd cases:

- Category ids have gaps (1..90 for 80 classes); the classes are in the order of their ids.
- An image of instances_*.json without annotations is labelled: there is nothing. One without a panoptic annotation
  is not labelled. One that only another file of its split lists has no boxes that are known.
- A crowd (`iscrowd`), or what other exports mark `ignore`, is ignored as a box. As a panoptic segment its class is
  known and kept. A stuff annotation of a crowd is left out, as in cocostuffapi.
- Outlines are polygons, run-length counts, or run-length strings. An image of which one object has no outline has
  none at all (an empty mask would say that it is nowhere). Where no file has outlines, the space is of boxes only.
- A panoptic PNG's pixel is segment R + 256 G + 65536 B; 0 is void and ignored, as is every pixel that no stuff
  annotation covers. "other" (183) of stuff is a class: the things. stuff_*_pixelmaps/ say the same as the JSON, and
  are not read.
- COCO's train2017 has two or three boxes of no width or height: `--skip-bad` leaves their images out.
- The archives have annotations of every split: a split without a folder of pictures is passed over and counted.
  Pictures of test* and unlabeled* folders are taken without labels, from image_info_*.json or, where there is none,
  as they lie. A train* or val* folder without any JSON is an error. Pictures that a split's JSON does not list are
  counted.
"""

import os
import posixpath
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image

from polyteach.datasets import Dataset, Entry, Labels, kind, options, printable
from polyteach.datasets._coco import CocoFile, flag, outline
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, MASKS
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget

_KINDS = ("instances", "panoptic", "stuff", "image_info")
_PIXELS = ("panoptic", "stuff")
_ROBOFLOW = "_annotations.coco.json"
_OFFICIAL = re.compile(r"(train|val|test|unlabeled)\d{4}")
_LAYOUT = (
    "expected ROOT/annotations/instances_SPLIT.json (or panoptic_, stuff_, image_info_) with pictures in ROOT/SPLIT/ "
    f"or ROOT/images/SPLIT/, such as train2017; or ROOT/SPLIT/{_ROBOFLOW} beside pictures"
)


@dataclass
class _Split:
    """names: of the pictures, then of what is wrong. files, rows: by kind, the JSON and each picture's row or -1.

    folder: of the pictures. problems: by picture. extra: what belongs to no picture.
    """

    name: str
    folder: str
    names: list[str] = field(default_factory=list)
    files: dict[str, CocoFile] = field(default_factory=dict)
    rows: dict[str, Int64[np.ndarray, " n"]] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    extra: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names) + len(self.extra)

    def add(self, what: str, file: CocoFile) -> None:
        """Join the pictures of another file to those there are, by their names."""
        known = {name: i for i, name in enumerate(self.names)}
        rows = [-1] * len(self.names)
        for row, name in enumerate(file.names):
            i = known.get(name, -1)
            if i < 0 or rows[i] >= 0:  # not there, or twice in this file: then it is two pictures
                i = len(self.names)
                self.names.append(name)
                rows.append(-1)
            rows[i] = row
            if row in file.broken:
                self.problems.setdefault(i, file.broken[row])
        self.files[what] = file
        self.rows[what] = np.array(rows, dtype=np.int64)
        self.extra += file.problems

    def row(self, what: str, i: int) -> int:
        """The row of picture `i` in the file of that kind; -1 where it is not listed."""
        rows = self.rows[what]
        return int(rows[i]) if i < len(rows) else -1


class Coco(Dataset):
    """The splits in the order of their names, each in the order of its first file."""

    def __init__(self, root: str, pixels: str) -> None:
        self._root = root
        found, left_out = _json_files(root)
        pixels = pixels or next((k for k in _PIXELS if found[k]), "none")
        if pixels != "none" and not found[pixels]:
            raise ValueError(f"coco:{root}?segmentation={pixels}: there is no annotations/{pixels}_*.json")
        left_out.update({f"{k} JSON (?segmentation={k})": len(found[k]) for k in _PIXELS if k != pixels and found[k]})
        kinds = [k for k in _KINDS if k not in _PIXELS or k == pixels]
        self._splits: list[_Split] = []
        for name in sorted({s for k in kinds for s in found[k]} | set(_folders(root))):
            files = {k: found[k][name] for k in kinds if name in found[k]}
            split = _split(root, name, files)
            if split is None:
                left_out["JSON of splits without a folder of pictures"] += len(files)
            elif len(split):
                self._splits.append(split)
        if not self._splits:
            raise ValueError(f"coco:{root} has no split with pictures: {_LAYOUT}")
        self._firsts = np.cumsum([0] + [len(s) for s in self._splits]).tolist()
        names: list[str] = []
        for split in self._splits:
            within = os.path.relpath(split.folder, root).replace(os.sep, "/")
            names += [posixpath.normpath(posixpath.join(within, n)) for n in split.names]
            names += [f"{split.name}: {where}" for where, _ in split.extra]
        super().__init__([printable(n) for n in names])
        self.left_out = left_out
        self._count_unlisted()
        self._spaces(pixels)

    def _count_unlisted(self) -> None:
        listed: dict[str, set[str]] = {}
        for split in self._splits:
            listed.setdefault(split.folder, set()).update(split.names)
        for folder, names in listed.items():
            unlisted = [f for f in os.listdir(folder) if kind(f) is None and f not in names]
            if unlisted and not any("/" in n for n in names):
                self.left_out["pictures that their split's JSON does not list"] += len(unlisted)

    def _spaces(self, pixels: str) -> None:
        """One space of a task for all splits."""
        for what, task in (("instances", "detection"), (pixels, "segmentation")):
            files = [s.files[what] for s in self._splits if what in s.files]
            for file in files[1:]:
                if file.categories != files[0].categories:
                    raise ValueError(f"{file.path}: categories: are others than in {files[0].path}")
            if files:
                outlined = any(f.outlined for f in files)
                about = "" if task == "segmentation" else MASKS if outlined else BOXES
                self.spaces[task] = Space(files[0].categories, about)

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for at in range(start, min(stop, len(self.names))):
            number = bisect_right(self._firsts, at) - 1
            split, i = self._splits[number], at - self._firsts[number]
            yield self._entry(split, i)

    def _entry(self, split: _Split, i: int) -> Entry:
        if i >= len(split.names):
            return Entry(problem=split.extra[i - len(split.names)][1], split=split.name)
        if i in split.problems:
            return Entry(problem=split.problems[i], split=split.name)
        licence = None
        for what, file in split.files.items():
            row = split.row(what, i)
            licence = licence or (file.licence_names[file.licences[row]] if row >= 0 else None)
        uri = _picture(self._root, split.folder, split.names[i])
        return Entry(uri=uri, split=split.name, licence=licence, targets=partial(self._targets, split, i))

    def _targets(self, split: _Split, i: int, size: tuple[int, int]) -> Labels:
        labels: Labels = {}
        for what, file in split.files.items():
            row = split.row(what, i)
            if row < 0 or what == "image_info":
                continue
            if what == "instances":
                labels["detection"] = file.boxes(row, size, self.spaces["detection"].kind == MASKS)
            elif what == "stuff":
                labels["segmentation"] = _stuff(file, row, size)
            else:
                labels["segmentation"] = _panoptic(file, row, size)
        return labels


def _json_files(root: str) -> tuple[dict[str, dict[str, str]], Counter[str]]:
    """Paths by kind and split; and what else lies in the folder of annotations."""
    found: dict[str, dict[str, str]] = {k: {} for k in _KINDS}
    left_out: Counter[str] = Counter()
    folder = os.path.join(root, "annotations")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        stem, ending = os.path.splitext(name)
        prefix = next((k for k in _KINDS if stem.startswith(k + "_") and len(stem) > len(k) + 1), None)
        if ending == ".json" and prefix is not None:
            found[prefix][stem[len(prefix) + 1 :]] = os.path.join(folder, name)
        elif not os.path.isdir(os.path.join(folder, name)):
            left_out[ending or "no ending"] += 1
    for item in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        path = os.path.join(root, item, _ROBOFLOW)
        if os.path.isfile(path):
            if item in found["instances"]:
                raise ValueError(f"{path} and {found['instances'][item]} are both of the split {item}: keep one")
            found["instances"][item] = path
    return found, left_out


def _folders(root: str) -> dict[str, str]:
    """The official folders of pictures there are, by split."""
    found: dict[str, str] = {}
    for above in (os.path.join(root, "images"), root):
        for item in os.listdir(above) if os.path.isdir(above) else []:
            path = os.path.join(above, item)
            if _OFFICIAL.fullmatch(item) and os.path.isdir(path):
                found[item] = path
    return found


def _split(root: str, name: str, files: dict[str, str]) -> _Split | None:
    """A split and its pictures; None where it has no folder of pictures."""
    folder = next((p for p in (f"{root}/{name}", f"{root}/images/{name}") if os.path.isdir(p)), None)
    shared = [p for p in (f"{root}/images", root) if folder is None and _has_pictures(p)]
    if folder is None and not shared:
        return None
    labelled = [k for k in files if k != "image_info"]
    if not files:
        return _unlabelled(name, str(folder))
    read = {k: CocoFile(files[k], labelled=k != "image_info") for k in (labelled or files)}
    if folder is None:
        first = next(iter(read.values())).names[:100]
        folder = next((p for p in shared if any(os.path.exists(f"{p}/{n}") for n in first)), None)
        if folder is None:
            return None
    split = _Split(name, folder)
    for what, file in read.items():
        split.add(what, file)
    if "panoptic" in files and not os.path.isdir(files["panoptic"].removesuffix(".json")):
        maps = files["panoptic"].removesuffix(".json")
        raise ValueError(
            f"{files['panoptic']} has its maps in {maps}/, which is missing: unpack {maps}.zip there, or leave them "
            f"out with coco:{root}?segmentation=none"
        )
    return split


def _has_pictures(folder: str) -> bool:
    return os.path.isdir(folder) and any(kind(f) is None for f in os.listdir(folder))


def _unlabelled(name: str, folder: str) -> _Split:
    names = sorted(f for f in os.listdir(folder) if kind(f) is None)
    if names and not name.startswith(("test", "unlabeled")):
        raise ValueError(
            f"{folder} has pictures, and there is no annotations/instances_{name}.json (or panoptic_, stuff_): add it, "
            f"or move the folder elsewhere"
        )
    return _Split(name, folder, names)


def _picture(root: str, folder: str, name: str) -> str:
    """Where a picture lies: in its split's folder, or where its own folder says."""
    path = os.path.join(folder, name)
    if "/" in name and not os.path.exists(path):
        for above in (root, os.path.join(root, "images")):
            if os.path.exists(other := os.path.join(above, name)):
                return other
    return path


def _target(category: Int64[np.ndarray, "H W"]) -> SegmentationTarget:
    """Everywhere sure, save where it is ignored."""
    known = torch.from_numpy(category)
    return SegmentationTarget(category=known, probability=(known != IGNORE).float())


def _stuff(file: CocoFile, row: int, size: tuple[int, int]) -> SegmentationTarget:
    """The class of each pixel that an annotation covers.

    Raises:
        ValueError: an annotation without outline or of no known class, or two that cover one pixel.
    """
    file.check_size(row, size)
    category = np.full(size, IGNORE, dtype=np.int64)
    for where, annotation in file.annotations(row):
        index, mask = file.category(where, annotation), outline(where, annotation, size)
        if mask is None:
            raise ValueError(f"{where}.segmentation: missing")
        if flag(where, annotation, "iscrowd"):
            continue
        if (category[mask] != IGNORE).any():
            raise ValueError(f"{where}.segmentation: covers pixels that another annotation of the image covers")
        category[mask] = index
    return _target(category)


def _panoptic(file: CocoFile, row: int, size: tuple[int, int]) -> SegmentationTarget | None:
    """The class of each pixel's segment; None where the image has no annotation.

    Raises:
        ValueError: the map is missing, no RGB picture or of another size, or has a segment that the JSON does not.
    """
    file.check_size(row, size)
    found = file.annotations(row)
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{found[1][0]}.image_id: has an annotation already, {found[0][0]}")
    where, annotation = found[0]
    name, segments = annotation.get("file_name"), annotation.get("segments_info")
    if not isinstance(name, str) or name != os.path.basename(name):
        raise ValueError(f"{where}.file_name: must name a file of {file.path.removesuffix('.json')}/; got {name!r:.60}")
    if not isinstance(segments, list):
        raise ValueError(f"{where}.segments_info: must be a list; got {segments!r:.60}")
    classes: dict[int, int] = {0: IGNORE}
    for i, segment in enumerate(segments):
        at = f"{where}.segments_info[{i}]"
        id = segment.get("id") if isinstance(segment, dict) else None
        if type(id) is not int or not 0 < id < 1 << 24 or id in classes:
            raise ValueError(f"{at}.id: must be in 1..16777215, and once in the image; got {id!r:.40}")
        classes[id] = file.category(at, segment)
    path = os.path.join(file.path.removesuffix(".json"), name)
    colours = _map(path, size)
    ids, inverse = np.unique(colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2], return_inverse=True)
    unknown = [int(i) for i in ids if int(i) not in classes]
    if unknown:
        raise ValueError(f"{path}: shows segment {unknown[0]}, which {where}.segments_info does not list")
    return _target(np.array([classes[int(i)] for i in ids], dtype=np.int64)[inverse.reshape(size)])


def _map(path: str, size: tuple[int, int]) -> Int64[np.ndarray, "H W 3"]:
    try:
        with Image.open(path) as picture:
            if picture.mode != "RGB":
                raise ValueError(f"{path}: must be an RGB picture; it is {picture.mode}")
            colours = np.asarray(picture).astype(np.int64)
    except FileNotFoundError as e:
        raise ValueError(f"{path}: missing") from e
    except (OSError, SyntaxError) as e:
        raise ValueError(f"{path}: broken: {e}") from e
    if colours.shape[:2] != size:
        height, width = colours.shape[:2]
        raise ValueError(f"{path}: is {height} x {width} (height x width), but the picture is {size[0]} x {size[1]}")
    return colours


def load(path: str) -> Dataset:
    """The tree at `path`, which may end in ?segmentation=panoptic, stuff or none.

    Raises:
        ValueError: no such tree, an unknown option, or a file that is broken; says which.
    """
    root, values = options(path, {"segmentation": ""})
    pixels = values["segmentation"]
    if pixels not in ("", "none", *_PIXELS):
        raise ValueError(f"?segmentation={pixels}: is one of {', '.join(_PIXELS)}, none")
    if not os.path.isdir(root):
        raise ValueError(f"coco:{root} is no folder: {_LAYOUT}")
    return Coco(root, pixels)
