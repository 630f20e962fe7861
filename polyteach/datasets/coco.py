"""COCO (Lin et al., ECCV 2014): boxes with outlines, and classes of pixels, as the archives of cocodataset.org unpack.

    ROOT/train2017/000000000009.jpg ...            images; ROOT/images/train2017/ is taken as well
    ROOT/val2017/  ROOT/test2017/  ROOT/unlabeled2017/  ROOT/train2014/COCO_train2014_000000000009.jpg ...
    ROOT/annotations/instances_train2017.json      80 classes: boxes and outlines
                     panoptic_train2017.json       133 classes of things and stuff, with panoptic_train2017/*.png
                     stuff_train2017.json          91 classes of stuff, and "other"
                     image_info_test2017.json      images without labels

A split is what stands between the kind and ".json": train2017. So any export `annotations/instances_NAME.json` is read,
with its images in ROOT/NAME/, ROOT/images/NAME/, ROOT/images/ or ROOT/; and Roboflow's form, in which each folder
ROOT/NAME/ has its images and `_annotations.coco.json`. `coco:ROOT?segmentation=panoptic|stuff|none` chooses whose
classes of pixels are read; without it panoptic's where there are any, else stuff's.

Formats: https://cocodataset.org/#format-data; panopticapi's `utils.py` and `panoptic2semantic_segmentation`;
cocostuffapi's `cocostuffhelper.py`. Their odd cases:

- Category ids have gaps (1..90 for 80 classes); the classes are in the order of their ids.
- An image of instances_*.json without annotations is labelled: there is nothing. One without a panoptic annotation
  is not labelled. One that only another file of its split lists has no boxes that are known.
- A crowd (`iscrowd`), or what other exports mark `ignore`, is ignored as a box. As a panoptic segment its class is
  known and kept. A stuff annotation of a crowd is left out, as in cocostuffapi.
- Outlines are polygons, run-length counts, or run-length strings. An image of which one object has no outline has
  none at all (an empty mask would say that it is nowhere), if it is no crowd; its objects are counted. Where no file
  has outlines, the space is of boxes only. An object whose outline covers no pixel (run lengths of none, as of hidden
  objects; a polygon of two points) is ignored and counted: it is not learned and is no background, and the outlines
  of the others stay.
- A box that reaches up to 2 pixels or 1 % of the side beyond the image is clipped and counted; one that reaches
  farther, lies outside, or lies elsewhere than its outline is an error. So are boxes that are all under a pixel
  (fractions), and those of which `area` says that they are corners.
- `file_name` may have backslashes, be an absolute path whose end is in ROOT, or have its accents in another form of
  Unicode than the file's name. Two image records of one file are one image with the objects of both, if they agree
  in size. Two categories of one name are one class, if no other supercategory keeps them apart. All are told.
- A panoptic PNG's pixel is segment R + 256 G + 65536 B; 0 is void and ignored, as is every pixel that no stuff
  annotation covers. "other" (183) of stuff is a class: the things. stuff_*_pixelmaps/ say the same as the JSON, and
  are not read.
- COCO's train2017 has two or three boxes of no width or height: `--skip-bad` leaves their images out.
- The archives have annotations of every split: a split without a folder of images is passed over and counted.
  Images of test* and unlabeled* folders are taken without labels, from image_info_*.json or, where there is none,
  as they lie. A train* or val* folder without any JSON is an error. Images that a split's JSON does not list are
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

from polyteach.datasets import Dataset, Drawn, Entry, Labels, found_below, kind, options, printable
from polyteach.datasets._coco import CocoFile, flag
from polyteach.datasets._coco_outlines import covers, outline
from polyteach.datasets._files import class_map, shown
from polyteach.datasets._tree import BY_END, Tree
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, MASKS
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget

_KINDS = ("instances", "panoptic", "stuff", "image_info")
_PIXELS = ("panoptic", "stuff")
_ROBOFLOW = "_annotations.coco.json"
_BAND = 1 << 22
"""Pixels of a panoptic map that are looked at together."""
_OFFICIAL = re.compile(r"(train|val|test|unlabeled)\d{4}")
_LAYOUT = (
    "expected ROOT/annotations/instances_SPLIT.json (or panoptic_, stuff_, image_info_) with images in ROOT/SPLIT/ "
    f"or ROOT/images/SPLIT/, such as train2017; or ROOT/SPLIT/{_ROBOFLOW} beside images"
)

_AGAIN = "image records name a file that another one names: their objects were put together"


@dataclass
class _Split:
    """names: paths of the images within ROOT, then of what is wrong. files, rows: by kind, the JSON and each
    image's row or -1.

    folder: of the images. problems: by image. extra: what belongs to no image.
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

    def add(self, what: str, file: CocoFile, root: str, tree: Tree) -> None:
        """Join the images of another file to those there are, by the files that their names mean."""
        known = {name: i for i, name in enumerate(self.names)}
        rows = [-1] * len(self.names)
        by_end: set[int] = set()
        within = os.path.relpath(self.folder, root).replace(os.sep, "/")
        for row, name in enumerate(file.names):
            found = tree.find(self.folder, name)
            path, how = found or (posixpath.normpath(posixpath.join(within, name)), "")
            i = known.setdefault(path, len(self.names))
            if i == len(self.names):
                self.names.append(path)
                rows.append(-1)
            problem = file.broken.get(row)
            if found is None and (posixpath.isabs(path) or path.split("/")[0] == ".."):
                problem = f"{file.where(row)}.file_name: {name!r} lies outside of the dataset"
            elif rows[i] >= 0 and problem is None:
                other = file.names[rows[i]]
                if other != name and (how == BY_END or i in by_end):
                    problem = f"{file.where(row)}.file_name: {name!r} and {other!r} are both found as {path}"
                else:
                    problem = file.merge(rows[i], row)
                tree.odd[_AGAIN] += problem is None
            if how == BY_END:
                by_end.add(i)
            if problem is not None:
                self.problems.setdefault(i, problem)
            tree.odd[how] += 1
            rows[i] = row if rows[i] < 0 else rows[i]
        self.files[what] = file
        self.rows[what] = np.array(rows, dtype=np.int64)
        self.extra += file.problems

    def row(self, what: str, i: int) -> int:
        """The row of image `i` in the file of that kind; -1 where it is not listed."""
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
        tree = Tree(root)
        self._splits: list[_Split] = []
        for name in sorted({s for k in kinds for s in found[k]} | set(_folders(root))):
            files = {k: found[k][name] for k in kinds if name in found[k]}
            split = _split(root, name, files, tree)
            if split is None:
                left_out["JSON of splits without a folder of images"] += len(files)
            elif len(split):
                self._splits.append(split)
        if not self._splits:
            raise ValueError(f"coco:{root} has no split with images: {_LAYOUT}")
        self._firsts = np.cumsum([0] + [len(s) for s in self._splits]).tolist()
        names: list[str] = []
        for split in self._splits:
            names += split.names
            names += [f"{split.name}: {where}" for where, _ in split.extra]
        super().__init__([printable(n) for n in names])
        self.left_out = left_out
        self._count_unlisted()
        self._spaces(pixels)
        twice = len(names) - len(set(names))
        tree.odd["images are in several splits: once in each"] += twice
        self.notes += [f"{n:,} {what}" for what, n in tree.odd.items() if what and n]
        self.notes += dict.fromkeys(note for s in self._splits for file in s.files.values() for note in file.notes)

    def _count_unlisted(self) -> None:
        listed = {name for split in self._splits for name in split.names}
        for folder in dict.fromkeys(split.folder for split in self._splits):
            within = os.path.relpath(folder, self._root).replace(os.sep, "/")
            here = [posixpath.normpath(posixpath.join(within, f)) for f in os.listdir(folder) if kind(f) is None]
            if unlisted := sum(path not in listed for path in here):
                self.left_out["images that their split's JSON does not list"] += unlisted

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
            return Entry(problem=split.extra[i - len(split.names)][1], split=printable(split.name))
        if i in split.problems:
            return Entry(problem=split.problems[i], split=printable(split.name))
        licence = None
        for what, file in split.files.items():
            row = split.row(what, i)
            licence = licence or (file.licence_names[file.licences[row]] if row >= 0 else None)
        uri = os.path.join(self._root, split.names[i])
        return Entry(uri=uri, split=printable(split.name), licence=licence, targets=partial(self._targets, split, i))

    def _targets(self, split: _Split, i: int, size: tuple[int, int]) -> Labels:
        labels = Drawn()
        for what, file in split.files.items():
            row = split.row(what, i)
            if row < 0 or what == "image_info":
                continue
            if what == "instances":
                labels = file.boxes(row, size, self.spaces["detection"].kind == MASKS)
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
    """The official folders of images there are, by split."""
    found: dict[str, str] = {}
    for above in (os.path.join(root, "images"), root):
        for item in os.listdir(above) if os.path.isdir(above) else []:
            path = os.path.join(above, item)
            if _OFFICIAL.fullmatch(item) and os.path.isdir(path):
                found[item] = path
    return found


def _split(root: str, name: str, files: dict[str, str], tree: Tree) -> _Split | None:
    """A split and its images; None where it has no folder of images."""
    folder = next((p for p in (f"{root}/{name}", f"{root}/images/{name}") if os.path.isdir(p)), None)
    shared = [p for p in (f"{root}/images", root) if folder is None and _has_images(p)]
    if folder is None and not shared:
        return None
    labelled = [k for k in files if k != "image_info"]
    if not files:
        return _unlabelled(root, name, str(folder))
    read = {k: CocoFile(files[k], labelled=k != "image_info") for k in (labelled or files)}
    if folder is None:
        first = next(iter(read.values())).names[:100]
        folder = next((p for p in shared if any(tree.find(p, n) for n in first)), None)
        if folder is None:
            return None
    split = _Split(name, folder)
    for what, file in read.items():
        split.add(what, file, root, tree)
    if "panoptic" in files and not os.path.isdir(files["panoptic"].removesuffix(".json")):
        maps = files["panoptic"].removesuffix(".json")
        raise ValueError(
            f"{files['panoptic']} has its maps in {maps}/, which is missing: unpack {maps}.zip there, or leave them "
            f"out with coco:{root}?segmentation=none"
        )
    return split


def _has_images(folder: str) -> bool:
    return os.path.isdir(folder) and any(kind(f) is None for f in os.listdir(folder))


def _unlabelled(root: str, name: str, folder: str) -> _Split:
    names = sorted(f for f in os.listdir(folder) if kind(f) is None)
    if names and not name.startswith(("test", "unlabeled")):
        raise ValueError(
            f"{folder} has images, and there is no annotations/instances_{name}.json (or panoptic_, stuff_): add it, "
            f"or move the folder elsewhere"
        )
    within = os.path.relpath(folder, root).replace(os.sep, "/")
    return _Split(name, folder, [posixpath.normpath(posixpath.join(within, n)) for n in names])


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
        if mask is None or not covers(annotation["segmentation"]):
            raise ValueError(f"{where}.segmentation: missing, or of no pixel")
        if flag(where, annotation, "iscrowd"):
            continue
        if (category[mask] != IGNORE).any():
            raise ValueError(f"{where}.segmentation: covers pixels that another annotation of the image covers")
        category[mask] = index
    return _target(category)


def _panoptic(file: CocoFile, row: int, size: tuple[int, int]) -> SegmentationTarget | None:
    """The class of each pixel's segment; None where the image has no annotation.

    Raises:
        ValueError: the map is missing, no RGB image or of another size, or has a segment that the JSON does not.
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
        raise ValueError(
            f"{where}.file_name: must name a file of {file.path.removesuffix('.json')}/; got {shown(name)}"
        )
    if not isinstance(segments, list):
        raise ValueError(f"{where}.segments_info: must be a list; got {shown(segments)}")
    classes: dict[int, int] = {0: IGNORE}
    for i, segment in enumerate(segments):
        at = f"{where}.segments_info[{i}]"
        id = segment.get("id") if isinstance(segment, dict) else None
        if type(id) is not int or not 0 < id < 1 << 24 or id in classes:
            raise ValueError(f"{at}.id: must be in 1..16777215, and once in the image; got {shown(id)}")
        classes[id] = file.category(at, segment)
    path = os.path.join(file.path.removesuffix(".json"), name)
    colours = class_map(path, size, ("RGB",), "an RGB image")
    category = np.empty(size, dtype=np.int64)
    rows = max(_BAND // size[1], 1)
    for top in range(0, size[0], rows):  # a number of 24 bits for each pixel takes more memory than its class
        band = colours[top : top + rows].astype(np.int64)
        ids, inverse = np.unique(band[..., 0] + 256 * band[..., 1] + 65536 * band[..., 2], return_inverse=True)
        unknown = [int(i) for i in ids if int(i) not in classes]
        if unknown:
            raise ValueError(f"{path}: shows segment {unknown[0]}, which {where}.segments_info does not list")
        known = np.array([classes[int(i)] for i in ids], dtype=np.int64)
        category[top : top + rows] = known[inverse.reshape(band.shape[:2])]
    return _target(category)


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
    root, taken = found_below(root, _is_tree)
    dataset = Coco(root, pixels)
    dataset.notes[:0] = taken
    return dataset


def _is_tree(folder: str) -> bool:
    files, _ = _json_files(folder)
    return any(files.values()) or bool(_folders(folder))
