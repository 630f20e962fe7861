"""Fuzzing: files of every kind that this tool reads, changed at random, given to what reads them.

    python -m tests.fuzz --minutes 20                     every target; a table of what was tried and what came of it
    python -m tests.fuzz --minutes 5 --only coco voc
    python -m tests.fuzz --only coco --case 12345         one case again, with its traceback

A case is a valid file of which one thing is changed (`tests/mutations.py`). What may come of it: an answer, or a
ValueError that names the file. Whatever else comes is a failure: another error, a warning, memory of more than `MEMORY`
above what was in use, more than `SECONDS`, a crash of the process, a file that appears elsewhere. A dataset's image
whose own label is broken costs itself alone, and what is kept of the rest is a store that `faults` finds whole and that
every function opens. `tests/test_fuzz.py` runs some seconds of it.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import io
import json
import mmap
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests import mutations
from tests.worlds import seen_tasks

MEMORY = 1_500 << 20
"""Bytes of address space that a case may take above what the process has."""
SECONDS = 20
MAX_PIXELS = 1_000_000
SIZE = H, W = 20, 30
CHANGED = r"."


class Bad(AssertionError):
    """A case that should not have come out so."""


@dataclass(frozen=True)
class Target:
    """Something that reads files. make: write valid ones into a folder. read: read them; gives a digest of it.

    files: which may be changed, a pattern. alone: those that are of one image, of which it is expected that no other
    image is lost. raised: what may be raised besides a ValueError that names a file.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    files: str = CHANGED
    alone: str = r"\Z."
    raised: tuple[type[Exception], ...] = ()


TARGETS: dict[str, Target] = {}


def target(name: str, make: Callable[[Path], None], read: Callable[[Path], Any], **more: Any) -> None:
    TARGETS[name] = Target(name, make, read, **more)


# ---------------------------------------------------------------- one case


class Bench:
    """A target's valid files in a folder, of which every case changes one and puts it back."""

    def __init__(self, target: Target, place: Path) -> None:
        self.target, self.place = target, place
        self.valid, self.work = place / "valid", place / "work"
        self.valid.mkdir(parents=True)
        target.make(self.valid)
        self.files = sorted(
            str(f.relative_to(self.valid))
            for f in self.valid.rglob("*")
            if f.is_file() and re.search(target.files, str(f.relative_to(self.valid)))
        )
        shutil.copytree(self.valid, self.work)
        self.expected = target.read(self.work)
        self._again()
        self.around = self._around()

    def case(self, rng: Random) -> tuple[str, str]:
        """Change a file and read; says what was changed, and what came of it: "read", or the error.

        Raises:
            Bad: what should not have come.
        """
        name = rng.choice(self.files)
        mark = self.place / "ran"
        said = f"{name}: {mutations.change(rng, self.work / name, mark)}"
        try:
            with bounded():
                came = self._read(name)
        except Exception as e:
            raise Bad(f"{said}: {type(e).__name__}: {e}"[:2000]) from e
        finally:
            self._restore(name)
        if mark.exists() or self._around() != self.around:
            raise Bad(f"{said}: wrote {sorted(self._around() - self.around)}")
        return said, came

    def whole(self) -> None:
        """The valid files give what they gave: no case left anything behind."""
        found = self.target.read(self.work)
        if found != self.expected:
            raise Bad(f"the valid files give {found}, and gave {self.expected} before")

    def _read(self, name: str) -> str:
        try:
            found = self.target.read(self.work)
        except self.target.raised as e:
            return f"{type(e).__name__}: {e}"
        except ValueError as e:
            said = str(e)
            if isinstance(e, UnicodeError) or "MemoryError" in said:
                raise
            if str(self.place) not in said and Path(name).name not in said:
                raise Bad(f"names no file: {said}") from e
            if len(said) > 5_000:
                raise Bad(f"an error of {len(said):,} letters: {said[:300]}") from e
            return f"ValueError: {said}"
        if re.search(self.target.alone, name) and found[0] < self.expected[0] - 1:
            raise Bad(f"{self.expected[0] - found[0]} images are lost, though the file is one image's")
        return "read"

    def _restore(self, name: str) -> None:
        file, valid = self.work / name, self.valid / name
        if file.is_symlink() or not file.is_dir():
            file.unlink(missing_ok=True)
        else:
            shutil.rmtree(file)
        shutil.copy2(valid, file)
        self._again()
        now = {str(f.relative_to(self.work)) for f in self.work.rglob("*")}
        for extra in now - {str(f.relative_to(self.valid)) for f in self.valid.rglob("*")}:
            path = self.work / extra
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)

    def _again(self) -> None:
        """Put back what reading wrote anew or removed, such as what is kept for speed and had become old."""
        for valid in self.valid.rglob("*"):
            file = self.work / valid.relative_to(self.valid)
            if valid.is_file() and not (file.is_file() and _about(file) == _about(valid)):
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(valid, file)

    def _around(self) -> set[str]:
        return {p.name for p in self.place.iterdir()} | {p.name for p in self.place.parent.iterdir()}


def _about(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Within, memory and seconds are limited, and warnings are errors."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    with open("/proc/self/statm", encoding="ascii") as f:
        now = int(f.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ResourceWarning)
            warnings.filterwarnings("ignore", module=r"torch|timm|torchvision")  # as in pyproject.toml
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# ---------------------------------------------------------------- datasets


SOURCES: dict[str, tuple[str, Callable[[Path], None]]] = {}
"""By target: the source of a tiny dataset, in which {} is its folder, and what makes that folder."""


def dataset(name: str, source: str, make: Callable[[Path], None], **more: Any) -> None:
    """A target that ingests `source`, in which {} is the folder."""
    SOURCES[name] = source, make

    def read(folder: Path) -> Any:
        from polyteach.curation.check import faults
        from polyteach.verbs.ingest import ingest

        with tempfile.TemporaryDirectory(dir=folder.parent) as kept:
            store = ingest(
                source.format(folder), f"{kept}/store", skip_bad=True, progress=False, workers=1, part_size=4,
                max_pixels=MAX_PIXELS,
            )  # fmt: skip
            if found := [str(f) for f in faults(store)]:
                raise Bad(f"ingest made a store that is broken: {found[0]}")
            rows = [row for part in store.parts() for row in store.images(part)]
            for row in rows:
                store.picture(row)
            sets = [(s.task, s.space.names, s.states(p)) for s in store.sets() for p in s.parts()]
            json.loads(Path(kept, "store/ingest.json").read_text(encoding="utf-8"))
            text = repr((sorted(r.id for r in rows), sets, len(store.rejects()))).replace(str(folder), "")
        return len(rows), hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    target(name, make, read, **more)


def _picture(path: Path, grey: int = 90, size: tuple[int, int] = SIZE, **how: Any) -> None:
    import numpy as np
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(path, **how)


def _map(path: Path, pixels: Any) -> None:
    import numpy as np
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _coco(folder: Path) -> None:
    import numpy as np

    images = [{"id": k, "file_name": f"{k:012}.jpg", "height": H, "width": W, "license": 4} for k in (1, 2, 3)]
    categories = [
        {"id": i, "name": n, "supercategory": s}
        for i, n, s in ((90, "car", "vehicle"), (1, "person", "person"), (13, "sign", "outdoor"))
    ]
    about = {"licenses": [{"id": 4, "name": "CC", "url": "http://by"}], "categories": categories, "images": images}

    def one(k: int, of: int, segmentation: Any, category: int = 1, **more: Any) -> dict[str, Any]:
        own = {"id": k, "image_id": of, "category_id": category, "bbox": [2, 3, 10, 8], "segmentation": segmentation}
        return own | {"area": 80, "iscrowd": 0} | more

    runs = {"size": [H, W], "counts": [H * 5 + 3, 8, H * W - H * 5 - 11]}
    flat = np.zeros(SIZE, bool)
    flat[3:11, 2:12] = True
    from pycocotools import mask

    text = {"size": [H, W], "counts": mask.encode(np.asfortranarray(flat.astype(np.uint8)))["counts"].decode()}
    square = [[2, 3, 12, 3, 12, 11, 2, 11]]
    found = [
        one(1, 1, square, 90),
        one(2, 1, text, 13),
        one(3, 2, runs, iscrowd=1, bbox=[0, 0, 30, 20]),
        one(4, 3, square),
    ]
    for k in (1, 2, 3):
        _picture(folder / f"train2017/{k:012}.jpg", 60 + k)
        ids = np.zeros((H, W, 3))
        ids[4:, :, 0] = 5
        _map(folder / f"annotations/panoptic_train2017/{k:012}.png", ids)
    _text(folder / "annotations/instances_train2017.json", json.dumps(about | {"annotations": found}))
    segments = [
        {"image_id": k, "file_name": f"{k:012}.png", "segments_info": [{"id": 5, "category_id": 13, "area": 9}]}
        for k in (1, 2, 3)
    ]
    _text(folder / "annotations/panoptic_train2017.json", json.dumps(about | {"annotations": segments}))


def _stuff(folder: Path) -> None:
    _coco(folder)
    shutil.rmtree(folder / "annotations/panoptic_train2017")
    (folder / "annotations/panoptic_train2017.json").unlink()
    about = json.loads((folder / "annotations/instances_train2017.json").read_text())
    about["annotations"] = [a for a in about["annotations"] if a["id"] != 2]
    (folder / "annotations/instances_train2017.json").unlink()
    _text(folder / "annotations/stuff_train2017.json", json.dumps(about))


def _voc(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    ids = ("2008_000001", "2008_000002", "2008_000003")
    for i, id in enumerate(ids):
        _picture(folder / f"VOC2012/JPEGImages/{id}.jpg", 60 + i)
        size = f"<size><width>{W}</width><height>{H}</height><depth>3</depth></size>"
        box = "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>10</xmax><ymax>12</ymax></bndbox>"
        thing = f"<object><name>car</name><difficult>0</difficult>{box}</object>"
        _text(folder / f"VOC2012/Annotations/{id}.xml", f"<annotation>{size}{thing}{thing}</annotation>")
        indices = np.zeros(SIZE, np.uint8)
        indices[4:10] = 7
        image = Image.fromarray(indices)
        image.putpalette(list(range(256)) * 3)
        path = folder / f"VOC2012/SegmentationClass/{id}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    for kind in ("Main", "Segmentation"):
        _text(folder / f"VOC2012/ImageSets/{kind}/train.txt", f"{ids[0]}\n{ids[1]}\n")
        _text(folder / f"VOC2012/ImageSets/{kind}/val.txt", f"{ids[2]}\n")


def _voc_own(folder: Path) -> None:
    for i in range(3):
        _picture(folder / f"train/{i}.jpg", 60 + i)
        box = "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>10</xmax><ymax>12</ymax></bndbox>"
        size = f"<size><width>{W}</width><height>{H}</height></size>"
        _text(folder / f"train/{i}.xml", f"<annotation>{size}<object><name>owl</name>{box}</object></annotation>")


def _ade_challenge(folder: Path) -> None:
    import numpy as np

    base = folder / "ADEChallengeData2016"
    pixels = np.zeros(SIZE)
    pixels[3:9] = 2
    for split, i in (("training", 1), ("training", 2), ("validation", 3)):
        _picture(base / f"images/{split}/ADE_{i:08d}.jpg", 60 + i)
        _map(base / f"annotations/{split}/ADE_{i:08d}.png", pixels)
    lines = [
        "Idx\tRatio\tTrain\tVal\tName",
        *(f"{i}\t0.15\t116\t11\t{n}" for i, n in enumerate(("wall", "a, b", "sky"), 1)),
    ]
    _text(base / "objectInfo150.txt", "\n".join(lines) + "\n")


def _ade_full(folder: Path, index: bool = True) -> None:
    import pickle

    import numpy as np

    base = folder / "ADE20K_2021_17_01"
    pixels = np.zeros((H, W, 3))
    pixels[3:, :, 1] = 2
    for i in (1, 2, 3):
        start = base / f"images/ADE/training/urban/street/ADE_train_{i:08d}"
        _picture(Path(f"{start}.jpg"), 60 + i)
        _map(Path(f"{start}_seg.png"), pixels)
        objects = [{"name_ndx": 1, "name": "door"}, {"name_ndx": 2, "name": "wall"}]
        _text(Path(f"{start}.json"), json.dumps({"annotation": {"filename": "x", "object": objects}}))
    if index:
        content = {"filename": ["a", "b"], "objectnames": ["door", "wall"], "objectPresence": np.ones((2, 2), np.int64)}
        (base / "index_ade20k.pkl").write_bytes(pickle.dumps(content, protocol=2))


def _ade_objects(folder: Path) -> None:
    _ade_full(folder, index=False)


def _cifar(folder: Path) -> None:
    import pickle

    import numpy as np

    base = folder / "cifar-10-batches-py"
    base.mkdir()
    rng = np.random.default_rng(0)
    for k, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        data = rng.integers(0, 256, (2, 3072), dtype=np.uint8)
        files = [b"x_%d_%d.png" % (k, i) for i in range(2)]
        content = {b"data": data, b"labels": [k, 3], b"filenames": files, b"batch_label": b"a batch"}
        (base / name).write_bytes(pickle.dumps(content, protocol=2))
    (base / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"c%d" % i for i in range(10)]}, protocol=2))


WNIDS = ("n01440764", "n02012849", "n02100735")


def _imagenet(folder: Path) -> None:
    """Flat val by the devkit's MATLAB file."""
    import numpy as np
    from scipy.io import savemat

    for i, wnid in enumerate(WNIDS):
        _picture(folder / f"train/{wnid}/{wnid}_{i}.JPEG", 60 + i)
    for i in (1, 2):
        _picture(folder / f"val/ILSVRC2012_val_{i:08d}.JPEG", 80 + i)
    kit = folder / "ILSVRC2012_devkit_t12/data"
    fields = [(n, object) for n in ("ILSVRC2012_ID", "WNID", "words", "num_children", "children")]
    rows = [(np.uint16(i), w, f"word {i}", np.uint8(0), np.zeros(0)) for i, w in enumerate(WNIDS, 1)]
    kit.mkdir(parents=True)
    savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)})
    _text(kit / "ILSVRC2012_validation_ground_truth.txt", "2\n1\n")


def _kaggle(folder: Path) -> None:
    """ILSVRC's tree, with classes of val in a CSV file."""
    base = folder / "ILSVRC"
    for i, wnid in enumerate(WNIDS):
        _picture(base / f"Data/CLS-LOC/train/{wnid}/{wnid}_{i}.JPEG", 60 + i)
    solution = ["ImageId,PredictionString"]
    for i in (1, 2):
        name = f"ILSVRC2012_val_{i:08d}"
        _picture(base / f"Data/CLS-LOC/val/{name}.JPEG", 80 + i)
        solution.append(f"{name},{WNIDS[i]} 1 2 3 4 {WNIDS[i]} 5 6 7 8 ")
    _text(folder / "LOC_val_solution.csv", "\n".join(solution) + "\n")
    _text(folder / "LOC_synset_mapping.txt", "".join(f"{w} word {w}\n" for w in WNIDS))
    lines = "".join(f"{w}/{w}_{i} {i}\n" for i, w in enumerate(WNIDS))
    _text(base / "ImageSets/CLS-LOC/train_cls.txt", lines)


def _annotated(folder: Path) -> None:
    """ILSVRC's tree, with classes of val in XML files."""
    _kaggle(folder)
    (folder / "LOC_val_solution.csv").unlink()
    for i in (1, 2):
        text = f"<annotation><object><name>{WNIDS[i]}</name><bndbox><xmin>1</xmin></bndbox></object></annotation>"
        _text(folder / f"ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_{i:08d}.xml", text)


def _diode(folder: Path) -> None:
    import numpy as np

    for i in range(3):
        start = f"{folder}/train/outdoor/scene_00000/scan_00000/0000{i}_00000_outdoor_000_000"
        _picture(Path(f"{start}.png"), 60 + i)
        np.save(f"{start}_depth.npy", np.linspace(1, 20, H * W, dtype=np.float32).reshape(H, W, 1))
        np.save(f"{start}_depth_mask.npy", np.ones(SIZE))
        normal = np.zeros((H, W, 3), np.float32)
        normal[..., 2] = 1
        np.save(f"{start}_normal.npy", normal)


def _nyu(folder: Path) -> None:
    import h5py
    import numpy as np
    from scipy.io import savemat

    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        file.create_dataset("images", data=np.full((3, 3, 30, 20), 90, np.uint8), chunks=(1, 3, 30, 20), compression=1)
        for name in ("depths", "rawDepths"):
            file.create_dataset(name, data=np.full((3, 30, 20), 2, np.float32), chunks=(1, 30, 20))
        file.create_dataset("labels", data=np.ones((3, 30, 20), np.uint16))
        refs = np.empty((1, 2), dtype=h5py.ref_dtype)
        for i, text in enumerate(("book", "bottle")):
            codes = np.array([[ord(c)] for c in text], np.uint16)
            refs[0, i] = file.create_dataset(f"#refs#/{i}", data=codes).ref
        file.create_dataset("names", data=refs, dtype=h5py.ref_dtype)
    savemat(folder / "splits.mat", {"trainNdxs": np.array([[1.0], [2.0]]), "testNdxs": np.array([[3.0]])})


def _objects365(folder: Path) -> None:
    names = [f"images/v1/patch8/objects365_v1_{i:08d}.jpg" for i in range(3)]
    images = [{"id": i, "file_name": n, "height": H, "width": W, "license": 5} for i, n in enumerate(names)]
    found = [
        {"id": i, "image_id": i, "category_id": 1 + i, "bbox": [1.5, 2, 10, 8], "area": 80, "iscrowd": 0, "isfake": 0}
        for i in range(3)
    ]
    about = {
        "images": images, "annotations": found, "categories": [{"id": i, "name": f"thing {i}"} for i in range(1, 6)],
        "licenses": [{"id": 5, "name": "CC BY", "url": "http://by"}],
    }  # fmt: skip
    _text(folder / "annotations/zhiyuan_objv2_train.json", json.dumps(about))
    for i, n in enumerate(names):
        _picture(folder / "train" / "patch8" / Path(n).name, 60 + i)


def _lvis(folder: Path) -> None:
    images = [
        {
            "id": 7 + i, "coco_url": f"http://images.cocodataset.org/train2017/{i:012d}.jpg", "height": H, "width": W,
            "neg_category_ids": [2], "not_exhaustive_category_ids": [3] * (i == 1), "license": 5,
        }
        for i in range(3)
    ]  # fmt: skip
    outline = [[1.5, 2, 11.5, 2, 11.5, 10, 1.5, 10]]
    found = [
        {"id": i, "image_id": 7 + i, "category_id": 3, "bbox": [1.5, 2, 10, 8], "area": 80, "segmentation": outline}
        for i in range(3)
    ]
    about = {
        "images": images, "annotations": found, "licenses": [{"id": 5, "name": "CC BY", "url": "http://by"}],
        "categories": [{"id": i, "name": f"thing_{i}", "frequency": "r"} for i in range(1, 6)],
    }  # fmt: skip
    _text(folder / "lvis_v1_train.json", json.dumps(about))
    for i in range(3):
        _picture(folder / f"train2017/{i:012d}.jpg", 60 + i)


def _cityscapes(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    for split, i in (("train", 0), ("train", 1), ("val", 2)):
        start = f"{split}/bonn/bonn_{i:06d}_000019"
        _picture(folder / f"leftImg8bit/{start}_leftImg8bit.png", 60 + i)
        pixels = np.full(SIZE, 7)
        pixels[3:9, :7], pixels[12:, 20:], pixels[:, 29] = 26, 24, 1
        _map(folder / f"gtFine/{start}_gtFine_labelIds.png", pixels)
        pixels[3:9, :7] = 26_000 + i
        Image.fromarray(pixels.astype(np.uint16)).save(folder / f"gtFine/{start}_gtFine_instanceIds.png")


def _kitti(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    for i in range(2):
        _picture(folder / f"training/image_2/{i:06d}.png", 60 + i)
        rest = "1.65 1.67 3.64 -0.65 1.71 46.70 -1.59"
        objects = f"Car 0.00 0 -1.58 2.5 3.0 12.5 11.0 {rest}\nDontCare -1 -1 -10 20.0 1.0 25.0 9.0 {rest}\n"
        _text(folder / f"training/label_2/{i:06d}.txt", objects)
    drive = "2011_09_26_drive_0001_sync"
    _picture(folder / f"2011_09_26/{drive}/image_02/data/0000000005.png", 70)
    path = folder / f"train/{drive}/proj_depth/groundtruth/image_02/0000000005.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.linspace(0, 20_000, H * W).reshape(SIZE).astype(np.uint16)).save(path)


def _bdd100k(folder: Path) -> None:
    import numpy as np

    def box(category: str, **attributes: bool) -> dict[str, Any]:
        where = {"x1": 2.5, "y1": 3, "x2": 12.25, "y2": 10}
        return {"id": "0", "category": category, "attributes": attributes, "box2d": where}

    frames = []
    for i in range(3):
        _picture(folder / f"images/100k/train/{i}.jpg", 60 + i)
        pixels = np.zeros(SIZE)
        pixels[3:9, :7], pixels[12:] = 2, 255
        _map(folder / f"labels/drivable/masks/train/{i}.png", pixels)
        labels = [box("car", crowd=False), box("other person", occluded=True), {"category": "lane", "poly2d": []}]
        frames.append({"name": f"{i}.jpg", "attributes": {"weather": "clear"}, "labels": labels})
    _text(folder / "labels/det_20/det_train.json", json.dumps(frames))


def _openimages(folder: Path) -> None:
    rows = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction\n"
    for i in range(3):
        _picture(folder / f"train/{i:016x}.jpg", 60 + i)
        rows += f"{i:016x},xclick,/m/0k4j,1,0.125,0.5,0.1,0.9,0,0,0,0\n{i:016x},xclick,/m/01yrx,1,0,1,0,1,0,0,1,0\n"
    _text(folder / "train-annotations-bbox.csv", rows)
    _text(folder / "class-descriptions-boxable.csv", "/m/0k4j,Car\n/m/01yrx,Cat\n")


def _pascal_context(folder: Path) -> None:
    import numpy as np
    from scipy.io import savemat

    ids = [f"2008_00000{i}" for i in range(3)]
    (folder / "trainval").mkdir()
    for i, id in enumerate(ids):
        _picture(folder / f"VOC2010/JPEGImages/{id}.jpg", 60 + i)
        savemat(folder / f"trainval/{id}.mat", {"LabelMap": np.full(SIZE, i + 1, np.uint16)}, do_compression=True)
    _text(folder / "VOC2010/ImageSets/Main/train.txt", f"{ids[0]}\n{ids[1]}\n")
    _text(folder / "VOC2010/ImageSets/Main/val.txt", f"{ids[2]}\n")
    _text(folder / "labels.txt", "1: accordion\n2: aeroplane\n3: table\n")
    _text(folder / "59_labels.txt", "1: aeroplane\n2: diningtable\n")


def _folder(folder: Path) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            _picture(folder / f"{split}/{name}/a.png", 60)
            _picture(folder / f"{split}/{name}/b.jpg", 70)


def _list(folder: Path) -> None:
    for i in range(3):
        _picture(folder / f"{i}.png", 60 + i)
    _text(folder / "list.txt", "# a list\n0.png\n1.png\n2.png\n")


def _bytes(grey: int) -> bytes:
    import numpy as np
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.full((*SIZE, 3), grey, np.uint8)).save(out, format="PNG")
    return out.getvalue()


def _parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    images = [{"bytes": _bytes(60 + i), "path": f"{i}.png"} for i in range(3)]
    table = pa.table({"image": images, "label": [0, 1, 1]}).replace_schema_metadata({"huggingface": json.dumps(about)})
    (folder / "data").mkdir()
    pq.write_table(table, folder / "data/train-00000-of-00001.parquet", row_group_size=2)


def _webdataset(folder: Path) -> None:
    import tarfile

    with tarfile.open(folder / "train-000000.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for i in range(3):
            label = json.dumps({"label": ["a", "b"][i % 2], "more": [1, {"x": 2}]}).encode()
            for name, data in ((f"{i}.png", _bytes(60 + i)), (f"{i}.json", label)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def _tar(folder: Path) -> None:
    _webdataset(folder)
    (folder / "train-000000.tar").rename(folder / "in.tar")


def _yolo(folder: Path) -> None:
    for split, i in (("train", 0), ("train", 1), ("val", 2)):
        _picture(folder / f"images/{split}/{i}.jpg", 60 + i)
        _text(folder / f"labels/{split}/{i}.txt", f"0 0.5 0.5 0.25 0.3\n{i} 0.1 0.1 0.9 0.1 0.9 0.8 0.1 0.8\n")
    _text(
        folder / "data.yaml", "path: .\ntrain: images/train\nval: [images/val]\nnc: 3\nnames: {0: cat, 1: dog, 2: 7}\n"
    )


def _yolo_lists(folder: Path) -> None:
    """As CVAT exports it."""
    for i in range(3):
        _picture(folder / f"obj_train_data/{i}.jpg", 60 + i)
        _text(folder / f"obj_train_data/{i}.txt", "1 0.5 0.5 0.25 0.3\n")
    _text(folder / "obj.names", "cat\ndog\n")
    _text(folder / "train.txt", "data/obj_train_data/0.jpg\ndata/obj_train_data/1.jpg\n")
    _text(folder / "val.txt", "data/obj_train_data/2.jpg\n")


def _masks(folder: Path) -> None:
    import numpy as np

    for split, i in (("train", 0), ("train", 1), ("val", 2)):
        _picture(folder / f"{split}/{i}.jpg", 60 + i)
        pixels = np.zeros(SIZE)
        pixels[3:9, :7] = i
        _map(folder / f"{split}annot/{i}.png", pixels)
    _text(folder / "classes.txt", "sky\nroad\ncar\n")


def _labelme(folder: Path) -> None:
    import base64

    for i in range(3):
        _picture(folder / f"{i}.jpg", 60 + i)
        held = base64.b64encode((folder / f"{i}.jpg").read_bytes()).decode() if i == 2 else None
        shapes = [
            {"label": "cat", "points": [[2, 3], [12.5, 3], [9, 15]], "group_id": None, "shape_type": "polygon"},
            {"label": "dog", "points": [[5, 5], [9, 9]], "group_id": 1, "shape_type": "circle"},
        ]
        about = {"imagePath": f"{i}.jpg", "imageData": held, "imageHeight": H, "imageWidth": W, "shapes": shapes}
        _text(folder / f"{i}.json", json.dumps(about))


def _cvat(folder: Path) -> None:
    images = ""
    for i in range(3):
        _picture(folder / f"images/train/{i}.jpg", 60 + i)
        images += f'''<image id="{i}" name="train/{i}.jpg" subset="train" width="{W}" height="{H}">
          <box label="cat" xtl="2" ytl="3" xbr="12.5" ybr="9" occluded="0" z_order="0" rotation="10.0"/>
          <polygon label="dog" points="2.0,3;12,3;9,15" group_id="1"/>
          <mask label="dog" rle="3, 4, 5" left="1" top="2" width="4" height="3"/><tag label="cat"/></image>'''
    labels = "".join(f"<label><name>{n}</name><attributes/></label>" for n in ("cat", "dog"))
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    _text(
        folder / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?><annotations>{meta}{images}</annotations>'
    )


def _label_studio(folder: Path) -> None:
    tasks = []
    for i in range(3):
        _picture(folder / f"images/{i}.jpg", 60 + i)
        about = {"original_width": W, "original_height": H, "from_name": "a", "to_name": "b", "id": "x"}
        box = {"x": 10, "y": 10.5, "width": 50, "height": 30, "rotation": 0, "rectanglelabels": ["cat"]}
        triangle = {"points": [[10, 10], [80, 10.5], [50, 90]], "closed": True, "polygonlabels": ["dog"]}
        results = [
            about | {"type": "rectanglelabels", "value": box},
            about | {"type": "polygonlabels", "value": triangle},
            about | {"type": "choices", "value": {"choices": ["day"]}},
        ]
        data = {"image": f"/data/local-files/?d=images/{i}.jpg"}
        tasks.append({"id": i, "data": data, "annotations": [{"id": i, "was_cancelled": False, "result": results}]})
    _text(folder / "project.json", json.dumps(tasks))


def _depth_png(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    for i in range(3):
        _picture(folder / f"train/rgb/{i}.jpg", 60 + i)
        path = folder / f"train/depth/{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.linspace(0, 9000, H * W).reshape(SIZE).astype(np.uint16)).save(path)


def _colour_masks(folder: Path) -> None:
    import numpy as np

    for i in range(3):
        _picture(folder / f"images/{i}.jpg", 60 + i)
        pixels = np.zeros((*SIZE, 3))
        pixels[3:9, :7] = (128, 64, 128)
        _map(folder / f"masks/{i}.png", pixels)
    _text(folder / "class_dict.csv", "name,r,g,b\nsky,0,0,0\nroad,128,64,128\ncar,1,2,3\n")


dataset("coco", "coco:{}", _coco, alone=r"\.(png|jpg)$")
dataset("coco stuff", "coco:{}", _stuff, files="json$")
dataset("voc", "voc:{}", _voc, alone=r"\.(png|jpg|xml)$")
dataset("ade20k challenge", "ade20k:{}", _ade_challenge, alone=r"\.(png|jpg)$")
dataset("ade20k index", "ade20k:{}", _ade_full, files=r"pkl$|_seg.png$", alone=r"\.(png|jpg)$")
dataset("ade20k objects", "ade20k:{}", _ade_objects, files=r"json$")
dataset("cifar", "cifar:{}", _cifar)
dataset("imagenet devkit", "imagenet:{}", _imagenet, files=r"mat$|txt$|val/.*JPEG$", alone=r"\.JPEG$")
dataset("imagenet kaggle", "imagenet:{}", _kaggle, files=r"txt$|csv$")
dataset("imagenet xml", "imagenet:{}", _annotated, files=r"xml$", alone=r"\.xml$")
dataset("diode", "diode:{}", _diode, alone=r".")
dataset("nyu", "nyu:{}?segmentation=894", _nyu)
dataset("objects365", "objects365:{}", _objects365, files=r"json$")
dataset("lvis", "lvis:{}?unlabelled=background", _lvis, files=r"json$")
dataset("cityscapes", "cityscapes:{}", _cityscapes, alone=r"\.png$")
dataset("kitti", "kitti:{}", _kitti, alone=r"\.(png|txt)$")
dataset("bdd100k", "bdd100k:{}", _bdd100k, alone=r"\.(png|jpg)$")
dataset("openimages", "openimages:{}?unlabelled=background", _openimages, alone=r"\.jpg$")
dataset("pascal-context", "pascal-context:{}", _pascal_context, alone=r"\.(mat|jpg)$")
dataset("folder", "folder:{}", _folder, alone=r".")
dataset("pictures", "pictures:{}", _folder, alone=r".")
dataset("list", "list:{}/list.txt", _list)
dataset("parquet", "parquet:{}", _parquet)
dataset("webdataset", "webdataset:{}?label=label", _webdataset)
dataset("tar", "tar:{}/in.tar", _tar)
dataset("masks", "masks:{}", _masks, alone=r"\.(png|jpg)$")
dataset("masks of colours", "masks:{}", _colour_masks, alone=r"\.(png|jpg)$")
dataset("depth-png", "depth-png:{}?scale=0.001", _depth_png, alone=r"\.(png|jpg)$")
dataset("voc with own classes", "voc:{}?classes=owl,cat", _voc_own, alone=r"\.(xml|jpg)$")
dataset("labelme", "labelme:{}?classes=cat,dog", _labelme, alone=r"\.(json|jpg)$")
dataset("cvat", "cvat:{}", _cvat, alone=r"\.jpg$")
dataset("label-studio", "label-studio:{}", _label_studio, alone=r"\.jpg$")
dataset("yolo", "yolo:{}", _yolo, alone=r"\.(txt|jpg)$")
dataset("yolo lists", "yolo:{}", _yolo_lists, alone=r"data/.\.(txt|jpg)$")


# ---------------------------------------------------------------- pictures


def _pictures(folder: Path) -> None:
    """One of every format that Pillow writes, and several of the common ones."""
    import numpy as np
    from PIL import Image

    grid = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    grid[4:12] = 200
    rgb = Image.fromarray(grid)
    Image.init()
    sixth = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06" + bytes(7)  # orientation
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "progressive.jpg": (rgb, {"progressive": True, "quality": 90}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "turned.jpg": (rgb, {"exif": sixth}),
        "grey.png": (rgb.convert("L"), {}),
        "palette.png": (rgb.convert("P"), {}),
        "alpha.png": (rgb.convert("RGBA"), {}),
        "bits.png": (rgb.convert("1"), {}),
        "deep.png": (Image.fromarray(grid[..., 0].astype(np.uint16) * 257), {}),
        "lossless.webp": (rgb, {"lossless": True}),
        "several.webp": (rgb, {"save_all": True, "append_images": [rgb]}),
        "lzw.tiff": (rgb, {"compression": "tiff_lzw"}),
        "jpeg.tiff": (rgb, {"compression": "jpeg"}),
        "deflate.tiff": (rgb, {"compression": "tiff_adobe_deflate"}),
        "group4.tiff": (rgb.convert("1"), {"compression": "group4"}),
        "several.gif": (rgb.convert("P"), {"save_all": True, "append_images": [rgb.convert("P")]}),
    }
    for name, (picture, how) in kinds.items():
        picture.save(folder / name, **how)
    ends = {f: e for e, f in reversed(Image.registered_extensions().items()) if f in Image.SAVE}
    for kind, end in ends.items():
        with contextlib.suppress(OSError, ValueError, KeyError):
            rgb.save(folder / f"plain{end}", format=kind)
    from polyteach.ground.images import BadImage, measure

    for file in folder.iterdir():
        try:
            measure(file.read_bytes())
        except BadImage:  # of a format that is written and not read, such as PDF
            file.unlink()


def _read_pictures(folder: Path) -> Any:
    """All of a folder: measured and decoded alike."""
    from polyteach.ground.images import BadImage, decode, faint, measure

    sizes = []
    for file in sorted(folder.iterdir()):
        if not file.is_file() or file.is_symlink() or file.stat().st_size > 1 << 24:
            continue  # reading them is not asked for here
        data, size, shape = file.read_bytes(), None, None
        if data == _read_pictures.known.get(file.name):  # type: ignore[attr-defined]
            sizes.append(_read_pictures.sizes[file.name])  # type: ignore[attr-defined]
            continue
        with contextlib.suppress(BadImage):
            size = measure(data, MAX_PIXELS)
            faint(data, MAX_PIXELS)
        with contextlib.suppress(BadImage):
            shape = tuple(decode(data, MAX_PIXELS).shape[1:])
        if size is not None and shape is not None and size != shape:
            raise Bad(f"{file.name} is measured {size} and decoded {shape}")
        sizes.append((file.name, shape))
        if len(_read_pictures.known) < 200:  # type: ignore[attr-defined]
            _read_pictures.known.setdefault(file.name, data)  # type: ignore[attr-defined]
            _read_pictures.sizes.setdefault(file.name, (file.name, shape))  # type: ignore[attr-defined]
    return sizes


_read_pictures.known = {}  # type: ignore[attr-defined]
_read_pictures.sizes = {}  # type: ignore[attr-defined]
target("images", _pictures, _read_pictures)


# ---------------------------------------------------------------- stores


def _store(folder: Path) -> None:
    """A store with people's labels of every task, and one of every kind of column."""
    from polyteach.ground.scene import random_scene, render
    from polyteach.store import ImageRow, Store
    from polyteach.tasks import load_task
    from polyteach.tasks.contract import Space

    store = Store.create(str(folder / "store"), part_size=4)
    worlds = [render(random_scene(i, (24, 32))) for i in range(3)]
    rows = [ImageRow(f"{i}.png", 24, 32, _png(w.image), None, ("a", "b")[i % 2]) for i, w in enumerate(worlds)]
    store.write_images(0, rows)
    for name in seen_tasks():
        for kind in load_task(name).kinds:
            space = Space(("cat", "dog", "sky"), kind)
            labels = store.create_set(name, f"set-{kind or 'x'}".replace(" ", "-"), space, {"teacher": "people"})
            truth = [load_task(name).truth(w, space) for w in worlds[:2]]
            labels.write(0, [r.id for r in rows], [*truth, "it failed"])
            states = labels.every_state()
            states.among(0, ("labelled",))
            states.save()
    store.write_rejects(0, [("x.png", None, "broken")])
    splits = store.splits()
    splits.values(0)
    splits.save()
    _text(folder / "store/ingest.json", json.dumps({"source": "x", "licence": "CC", "finished": True}))


def _png(pixels: Any) -> bytes:
    import numpy as np
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).save(out, format="PNG")
    return out.getvalue()


def _opened(path: Path) -> Any:
    from polyteach.ground.limits import Limits
    from polyteach.store import Store

    return Store.open(str(path), limits=Limits(max_pixels=MAX_PIXELS))


def _read_store(folder: Path) -> Any:
    """What `faults` finds; and of a whole store everything, by every function."""
    from polyteach.curation.check import faults
    from polyteach.curation.info import described

    store = _opened(folder / "store")
    wrong = [str(f) for f in faults(store, deep=True)]
    if wrong:
        _mended(folder)
        return [f"faults: {f[:100]}" for f in wrong]
    try:
        return _everything(store, described(store))
    except Exception as e:
        raise Bad(f"`faults` calls a store whole that cannot be read: {type(e).__name__}: {e}") from e


def _everything(store: Any, about: Any) -> Any:
    from polyteach.tasks import load_task
    from polyteach.tasks.contract import Policy, Target

    found = []
    for part in store.parts():
        for row in store.images(part):
            found.append(tuple(store.picture(row).shape))
    for labels in store.sets():
        task = load_task(labels.task)
        for part in labels.parts():
            for answer, row in zip(labels.read(part), store.images(part), strict=True):
                if isinstance(answer, Target):
                    task.check(answer, (row.height, row.width), labels.space)
                    task.pseudo(answer, Policy())
        labels.statistics()
    store.rejects()
    return found, len(about["sets"])


def _mended(folder: Path) -> None:
    """`repair` does all or nothing: what it has mended is whole."""
    from polyteach.curation.check import faults
    from polyteach.verbs.store.repair import repair

    with tempfile.TemporaryDirectory(dir=folder.parent) as kept, contextlib.redirect_stdout(io.StringIO()):
        copy = Path(kept, "copy")
        shutil.copytree(folder / "store", copy, symlinks=True, ignore=_pipes)
        try:
            repair(str(copy), deep=True, progress=False)
        except ValueError:
            return
        if left := [str(f) for f in faults(_opened(copy), deep=True)]:
            raise Bad(f"repair left {left[0]}")


def _pipes(folder: str, names: list[str]) -> list[str]:
    """What a copy would wait for, or never end with."""
    return [n for n in names if not os.path.isfile(p := os.path.join(folder, n)) and not os.path.isdir(p)]


target("store descriptions", _store, _read_store, files=r"json$")
target("store images", _store, _read_store, files=r"images/.*parquet$")
target("store labels", _store, _read_store, files=r"labels/.*parquet$|rejects")


# ---------------------------------------------------------------- students, teachers, tables


def _student(folder: Path) -> None:
    from polyteach.model.student import Student, save_student
    from polyteach.tasks.contract import Objective, Space

    objectives = {
        "classes": Objective("classification", Space(("a", "b"))),
        "deep": Objective("depth", Space((), "metric")),
    }
    student = Student("test_resnet.r160_in1k", objectives, channels=8)
    save_student(student, folder, {"size": [32, 32], "trained": ["backbone", "pyramid", "heads"]})


def _read_student(folder: Path) -> Any:
    from polyteach.model.student import load_student

    student = load_student(folder)
    return len(student.state_dict()), sorted(student.objectives)


target("student", _student, _read_student)


def _onnx(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, "h", "w"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3])
    body = helper.make_graph([node], "g", [x], [y])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    for name in ("a", "b"):
        onnx.save(model, folder / f"{name}.onnx")
    given = {"mean": [0.5, 0.4, 0.3], "std": 0.2, "size": [8, 8], "resize": "fit", "fill": 3, "layout": "NCHW"}
    about = {"task": "classification", "names": ["r", "g", "b"], "licence": "CC0", "input": given}
    _text(folder / "a.json", json.dumps(about | {"output": {"values": "logits"}}))
    given = {"multiple": 8, "longest": 64, "range": [0, 1], "colour": "BGR"}
    _text(folder / "b.yaml", json.dumps(about | {"input": given, "output": {"scores": "y"}}))


def _read_onnx(folder: Path) -> Any:
    import torch

    from polyteach.teachers import load_teacher

    shapes = []
    for name in ("a", "b"):
        teacher = load_teacher(f"onnx:{folder}/{name}.onnx")
        (answer,) = teacher([torch.zeros(3, 20, 30, dtype=torch.uint8)])
        shapes.append(tuple(answer["classification"].probability.shape))
    return shapes


target("onnx descriptions", _onnx, _read_onnx, files="json$|yaml$")


def _tables(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _store(folder)
    _text(folder / "map.yaml", json.dumps({"classification/set-x": {"cat": "Felis", "dog": "Canis"}}))
    _text(folder / "map.json", json.dumps({"cat": "feline"}))
    _text(folder / "prompts.yaml", json.dumps({"cat": ["a cat", "a kitten"], "dog": "a dog"}))
    _text(folder / "config.yaml", json.dumps({"score": 0.5, "store": "x", "json": True}))
    _text(folder / "groups.csv", "id,group\n0.png,a\n1.png,b\n2.png,b\n")
    pq.write_table(pa.table({"id": ["0.png", "1.png"], "group": ["a", "b"]}), folder / "groups.parquet")


def _read_tables(folder: Path) -> Any:
    from polyteach.command import _config_option
    from polyteach.curation.grouping import grouping
    from polyteach.loading.objectives import apart, join, read_map
    from polyteach.store import Store
    from polyteach.teachers._prompts_file import read_prompts

    sets = Store.open(str(folder / "store")).sets()
    found: list[Any] = [read_prompts(folder / "prompts.yaml").texts]
    for name in ("map.yaml", "map.json"):
        table = read_map(folder / name)
        try:
            joint = join(sets, table)
        except ValueError as e:
            raise ValueError(f"{name}: {e}") from e  # the verbs say which table it was
        found += [sorted(j.objective.space.names) for j in joint]
        apart(sets, joint, table)
    for name in ("groups.csv", "groups.parquet"):
        group = grouping(file=str(folder / name))
        found.append([group(id) for id in ("0.png", "1.png")])
    return [*found, _config_option(["--config", str(folder / "config.yaml")])]


target("tables", _tables, _read_tables, files=r"^(map|config|groups|prompts)")


# ---------------------------------------------------------------- the longer run


@dataclass
class Tally:
    """What came of a target's cases. peak: bytes above what the process had when it began."""

    tried: int = 0
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    peak: int = 0
    failures: list[str] = field(default_factory=list)


def longer(target: Target, seconds: float, first: int, tally: Tally) -> None:
    """Cases from number `first` on, for so many seconds, in processes of their own: a crash is one case's."""
    shared = mmap.mmap(-1, 64)
    end = time.monotonic() + seconds
    case = first
    while time.monotonic() < end:
        struct.pack_into("6q", shared, 0, case, 0, 0, 0, 0, 0)
        with tempfile.TemporaryDirectory(prefix="fuzz", dir=_shm()) as place:
            said = Path(place, "said")
            pid = os.fork()
            if not pid:
                _work(target, Path(place, "in", "bench"), case, end, shared, said)
            status = _waited(pid, shared)
            case, tried, read, refused, peak, _ = struct.unpack_from("6q", shared)
            tally.tried, tally.read, tally.refused = tally.tried + tried, tally.read + read, tally.refused + refused
            tally.peak = max(tally.peak, peak)
            if said.exists():
                tally.failures += said.read_text(encoding="utf-8", errors="replace").splitlines()
        if status:
            tally.failures.append(f"case {case}: the process ended by {status}")
            case += 1
    tally.seconds += seconds - (end - time.monotonic())


def _shm() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def _waited(pid: int, shared: mmap.mmap) -> str:
    """Wait for a process; what it ended by, where not as it should. One that stays at a case for long is killed."""
    last, since = -1, time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return f"signal {os.WTERMSIG(status)}"
            return f"exit {os.WEXITSTATUS(status)}" if os.WEXITSTATUS(status) else ""
        (now,) = struct.unpack_from("q", shared)
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 3 * SECONDS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return f"nothing for {3 * SECONDS} seconds"
        time.sleep(0.2)


def _work(target: Target, place: Path, case: int, end: float, shared: mmap.mmap, said: Path) -> None:
    """Cases until the end, in a fork; or until memory has grown for long enough."""
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        bench = Bench(target, place)
        gc.collect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tried = read = refused = 0
        while time.monotonic() < end and tried < 5_000:
            struct.pack_into("q", shared, 0, case)
            try:
                _, came = bench.case(Random(f"{target.name} {case}"))
                read, refused = read + (came == "read"), refused + (came != "read")
            except Bad as e:
                with open(said, "a", encoding="utf-8", errors="backslashreplace") as f:
                    f.write(f"case {case}: {e}".replace("\n", " ")[:600] + "\n")
            case, tried = case + 1, tried + 1
            peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
            struct.pack_into("6q", shared, 0, case, tried, read, refused, peak, 0)
        bench.whole()
        code = 0
    except BaseException as e:
        with open(said, "a", encoding="utf-8", errors="backslashreplace") as f:
            f.write(f"case {case}: {type(e).__name__}: {e}".replace("\n", " ")[:600] + "\n")
    finally:
        os._exit(code)


def _ready() -> None:
    """Import what the targets use, before there are forks: it takes longer than many a case."""
    from polyteach.datasets import formats
    from polyteach.tasks import all_tasks, load_task

    for name in formats():
        importlib.import_module(f"polyteach.datasets.{name.replace('-', '_')}")
    for name in all_tasks():
        load_task(name)


def one(target: Target, case: int) -> None:
    """One case again, with all that it says."""
    with tempfile.TemporaryDirectory(prefix="fuzz", dir=_shm()) as place:
        bench = Bench(target, Path(place, "bench"))
        try:
            print(*bench.case(Random(f"{target.name} {case}")), sep="\n")
        except Bad:
            traceback.print_exc()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--only", nargs="+", choices=sorted(TARGETS), default=list(TARGETS))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--case", type=int, help="run one case again")
    parser.add_argument("--json", type=Path, help="write the rows there")
    given = parser.parse_args()
    if given.case is not None:
        for name in given.only:
            one(TARGETS[name], given.case)
        return 0
    _ready()
    rows = {}
    print(f"{'target':20} {'tried':>8} {'read':>8} {'refused':>8} {'failed':>7} {'seconds':>8} {'peak MiB':>9}")
    for name in given.only:
        tally = Tally()
        longer(TARGETS[name], given.minutes * 60 / len(given.only), given.first, tally)
        failed, peak = len(tally.failures), tally.peak / 2**20
        print(
            f"{name:20} {tally.tried:8,} {tally.read:8,} {tally.refused:8,} {failed:7,} "
            f"{tally.seconds:8.0f} {peak:9.0f}",
            flush=True,
        )
        for line in tally.failures[:20]:
            print(f"    {line}", file=sys.stderr, flush=True)
        rows[name] = {
            "tried": tally.tried, "read": tally.read, "refused": tally.refused, "failed": failed,
            "seconds": round(tally.seconds), "peak_mib": round(peak),
        }  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(any(r["failed"] for r in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
