"""Objects365 version 2 (Shao et al., ICCV 2019): boxes of 365 classes, 1.7 million images for training.

    ROOT/train/patch0/objects365_v1_00000000.jpg ... patch50/objects365_v2_*.jpg
    ROOT/val/patch0/ ... patch43/
    ROOT/annotations/zhiyuan_objv2_train.json, zhiyuan_objv2_val.json    or in ROOT/, or in ROOT/train/ and ROOT/val/

The JSON is COCO's (`polyteach/datasets/_coco.py`), with `file_name` "images/v1/patch8/objects365_v1_00420917.jpg". The
download (https://www.objects365.org, and OpenDataLab's copy) has a tar per patch, and tools unpack them differently.
For each patch the first of these folders that is there is taken, SPLIT being train or val:

    ROOT/SPLIT/patch8   ROOT/images/SPLIT/patch8   ROOT/SPLIT/images/v1/patch8   ROOT/SPLIT/v1/patch8
    ROOT/images/v1/patch8   ROOT/images/SPLIT (flat, as in Ultralytics)   ROOT/SPLIT (flat)

The layouts' sources: MMDetection's Objects365V2Dataset and its dataset page, Ultralytics' Objects365.yaml, and the
archives themselves. The format's odd cases:

- `iscrowd` boxes hold many objects: they are ignored. `isfake` (a picture or a toy of the object) and `isreflected`
  (seen in a mirror) are kept as the objects they show, as every trainer known does.
- Boxes reach beyond the image, some of them far; they are clipped and counted. One outside of it is an error.
- Three images of train are in the JSON and in no archive (patch16/objects365_v2_00908726,
  patch6/objects365_v1_00320532 and _00320534; MMDetection passes over the same): `--skip-bad` records them in the
  rejects. It does so with every image of a patch that was not downloaded.
- A split without a folder of images is passed over and counted; a folder without its JSON is an error. An image
  without annotations is labelled: there is nothing.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from polyteach.datasets import Dataset, Entry, Labels, found_below, is_folder, options, printable
from polyteach.datasets._coco import CocoFile
from polyteach.ground.geometry import area, whole
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, ROUNDING, DetectionTarget

_SPLITS = ("train", "val")
_LAYOUT = "expected ROOT/annotations/zhiyuan_objv2_train.json with ROOT/train/patch0/*.jpg, and likewise val"


class Objects365(Dataset):
    """train, then val, each in the order of its JSON; what belongs to no image is at the end of its split."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.files: list[tuple[str, CocoFile]] = []
        passed = 0
        for split in _SPLITS:
            path = _json(root, split)
            there = [p for p in (f"{root}/{split}", f"{root}/images/{split}", f"{root}/images") if _has_images(p)]
            if path is not None and there:
                self.files.append((split, CocoFile(path)))
            elif path is not None:
                passed += 1
            elif there and not there[0].endswith("/images"):
                raise ValueError(f"{there[0]} has images, and there is no zhiyuan_objv2_{split}.json: {_LAYOUT}")
        if not self.files:
            raise ValueError(f"objects365:{root} has no split with images: {_LAYOUT}")
        first = self.files[0][1]
        for _, file in self.files[1:]:
            if file.categories != first.categories:
                raise ValueError(f"{file.path}: categories: are others than in {first.path}")
        names: list[str] = []
        for split, file in self.files:
            places: dict[str, str] = {}
            placed = [_place(root, split, name.replace("\\", "/"), places) for name in file.names]
            _refuse_twice(file, placed)
            names += placed
            names += [f"{split}: {where}" for where, _ in file.problems]
        self._paths = names
        super().__init__([printable(n) for n in names])
        self.spaces = {"detection": Space(first.categories, BOXES)}
        if passed:
            self.left_out["JSON of splits without a folder of images"] += passed

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        first = 0
        for split, file in self.files:
            last = first + len(file.names) + len(file.problems)
            for at in range(max(start, first), min(stop, last)):
                yield self._entry(split, file, at - first, self._paths[at])
            first = last

    def _entry(self, split: str, file: CocoFile, row: int, path: str) -> Entry:
        if row >= len(file.names):
            return Entry(problem=file.problems[row - len(file.names)][1], split=split)
        if row in file.broken:
            return Entry(problem=file.broken[row], split=split)
        licence = file.licence_names[file.licences[row]]
        uri = os.path.join(self._root, path)
        return Entry(uri=uri, split=split, licence=licence, targets=partial(_targets, file, row))


def _targets(file: CocoFile, row: int, size: tuple[int, int]) -> Labels:
    labels = file.boxes(row, size, outlines=False)
    target = labels["detection"]
    assert isinstance(target, DetectionTarget)
    inside = whole(size).boxes(target.box)
    beyond = ((target.box - inside).abs().amax(1) > ROUNDING) & (area(inside) > 0)
    labels["detection"] = replace(target, box=torch.where(beyond[:, None], inside, target.box))
    labels.notes["detection"] += Counter({"reached beyond the image and were clipped": int(beyond.sum())})
    return labels


def _refuse_twice(file: CocoFile, paths: list[str]) -> None:
    """Several records of one image: each would call the others' objects background. Published files have none."""
    first: dict[str, int] = {}
    for row, path in enumerate(paths):
        if (other := first.setdefault(path, row)) != row:
            said = f"{file.where(row)}.file_name: {path} is also that of {file.where(other)}"
            file.broken.setdefault(row, said)
            file.broken.setdefault(other, said)


def _json(root: str, split: str) -> str | None:
    name = f"zhiyuan_objv2_{split}.json"
    folders = (f"{root}/annotations", root, f"{root}/{split}", f"{root}/{split}/annotations", f"{root}/labels")
    return next((path for f in folders if os.path.isfile(path := f"{f}/{name}")), None)


def _has_images(folder: str) -> bool:
    """Whether the folder has patches, or images themselves."""
    if not os.path.isdir(folder):
        return False
    known = ("patch", "v1", "v2", "images")
    with os.scandir(folder) as items:
        return any(i.name.lower().endswith(".jpg") or (is_folder(i) and i.name.startswith(known)) for i in items)


def _place(root: str, split: str, name: str, places: dict[str, str]) -> str:
    """An image's path within ROOT; `places` keeps the folder of each patch."""
    within, _, base = name.rpartition("/")
    if within not in places:
        parts = [p for p in within.split("/") if p not in ("", ".", "..")] or [""]  # nothing leads out of ROOT
        patch, version = parts[-1], "/".join(parts[-2:])
        tried = (
            f"{split}/{patch}",
            f"images/{split}/{patch}",
            f"{split}/images/{version}",
            f"{split}/{version}",
            f"images/{version}",
        )
        flat = (f"images/{split}", split)
        found = next((p for p in tried if patch and os.path.isdir(f"{root}/{p}")), None)
        found = found or next((p for p in flat if _has_files(f"{root}/{p}")), None)
        places[within] = found or tried[0]  # the patch is missing, and so each of its images is
    return f"{places[within]}/{base}"


def _has_files(folder: str) -> bool:
    if not os.path.isdir(folder):
        return False
    with os.scandir(folder) as items:
        return any(i.name.lower().endswith(".jpg") for i in items)


def load(path: str) -> Dataset:
    """The tree at `path`.

    Raises:
        ValueError: no such tree, or a JSON that is broken; says which.
    """
    root, _ = options(path, {})
    if not os.path.isdir(root):
        raise ValueError(f"objects365:{root} is no folder: {_LAYOUT}")
    root, taken = found_below(root, lambda folder: any(_json(folder, split) for split in _SPLITS))
    dataset = Objects365(root)
    dataset.notes[:0] = [*taken, *(note for _, file in dataset.files for note in file.notes)]
    return dataset
