"""The same pictures and targets in the formats that other tools read, in those formats' usual encodings; their readers.

Pictures stay the same JPEG bytes; boxes, scores and class vectors are numbers; maps are PNG: classes and how probable
they are 8 bits, depth 16 bits of a millimetre with 0 where it is not known, normals three bytes around 128 with 128
where they are not known. Every reader is an iterator over dictionaries with the same keys; `targets` makes of each what
`polyteach.loading.reader` makes of a row of a store.
"""

import io
import json
import random
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyteach.ground.geometry import random_view
from polyteach.store import Store
from polyteach.tasks import load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Space, Target
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.normals import NormalsTarget
from polyteach.tasks.segmentation import SegmentationTarget

BATCH = 32
SCALE = (0.7, 1.5)
MAPS = ("regions", "sure", "depth", "normals")
NUMBERS = {"box": "float32", "category": "int64", "score": "float32", "ignore": "bool", "probability": "float32"}


def encoded(store: Store) -> Iterator[dict[str, Any]]:
    """Every image of a store: JPEG bytes ("jpg"), PNG bytes (`MAPS`), arrays (`NUMBERS`)."""
    sets = {s.task: s for s in store.sets()}
    for part in store.parts():
        answers = {t: s.read(part) for t, s in sets.items()}
        for i, row in enumerate(store.images(part)):
            t = {k: {n: x for n, x in vars(v[i]).items() if x is not None} for k, v in answers.items()}
            boxes, depth, normals = t["detection"], t["depth"], t["normals"]
            numbers = {k: boxes[k].numpy() for k in ("box", "category", "score", "ignore")}
            numbers["probability"] = t["classification"]["probability"].numpy()
            millimetres = torch.where(depth["valid"], depth["value"] * 1000, 0).round().clamp(0, 65535)
            vectors = torch.where(normals["valid"], normals["normal"], 0) * 127 + 128
            maps = {
                "regions": t["segmentation"]["category"].numpy().astype(np.uint8),
                "sure": (t["segmentation"]["probability"] * 255).round().numpy().astype(np.uint8),
                "depth": millimetres.numpy().astype(np.uint16),
                "normals": vectors.round().numpy().astype(np.uint8).transpose(1, 2, 0),
            }
            yield {"jpg": row.data or b"", **numbers, **{k: png(v) for k, v in maps.items()}}


def png(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(out, format="png")
    return out.getvalue()


def pixels(picture: bytes | Image.Image) -> np.ndarray:
    """Of a picture's bytes, or of one that the reader has opened."""
    return np.array(picture if isinstance(picture, Image.Image) else Image.open(io.BytesIO(picture)))


def targets(sample: dict[str, Any]) -> tuple[Tensor, dict[str, Target]]:
    """The picture, (3, h, w) bytes, and by task the target, as the store would give them."""
    image = torch.from_numpy(pixels(sample["jpg"])).permute(2, 0, 1).contiguous()
    numbers = {k: torch.from_numpy(np.array(sample[k], dtype=kind)) for k, kind in NUMBERS.items()}
    regions, sure, depth, normals = (torch.from_numpy(pixels(sample[k])) for k in MAPS)
    vectors = normals.permute(2, 0, 1).to(torch.int16) - 128
    millimetres = depth.to(torch.int32)  # torch can do little with 16 bits without a sign
    return image, {
        "classification": ClassificationTarget(probability=numbers["probability"]),
        "detection": DetectionTarget(
            box=numbers["box"].reshape(-1, 4),
            category=numbers["category"],
            score=numbers["score"],
            ignore=numbers["ignore"],
        ),
        "segmentation": SegmentationTarget(category=regions.long(), probability=sure.float() / 255),
        "depth": DepthTarget(value=millimetres.float() / 1000, valid=millimetres > 0),
        "normals": NormalsTarget(normal=vectors.float() / 127, valid=(vectors != 0).any(0)),
    }


def seen(sample: dict[str, Any], number: int, size: int) -> tuple[Tensor, dict[str, Target]]:
    """A random view, just as `polyteach.loading.reader` takes it of image `number`."""
    image, answers = targets(sample)
    source = (int(image.shape[1]), int(image.shape[2]))
    view = random_view(source, (size, size), random.Random(f"0-0-{number}"), SCALE, 0.5)
    space = Space(kind="metric")  # of depth, which a zoom changes; the other tasks' answers do not depend on it
    seen = {k: load_task(k).zoomed(load_task(k).view(t, view), view.zoom, space) for k, t in answers.items()}
    return view.image(image), seen


def collated(views: list[tuple[Tensor, dict[str, Target]]]) -> tuple[Tensor, dict[str, Any]]:
    """Pictures and maps stacked, what differs in number in lists."""
    out: dict[str, Any] = {}
    for task in views[0][1]:
        for name in vars(views[0][1][task]):
            values = [getattr(v[1][task], name) for v in views]
            out[f"{task}.{name}"] = torch.stack(values) if task in ("segmentation", "depth", "normals") else values
    return torch.stack([v[0] for v in views]), out


def write_webdataset(samples: Iterator[dict[str, Any]], folder: Path) -> None:
    """One tar: a .jpg, a .json and four .png a picture."""
    with tarfile.open(folder / "shard-000000.tar", "w") as tar:
        for i, sample in enumerate(samples):
            about = json.dumps({k: sample[k].tolist() for k in NUMBERS}).encode()
            files = {"jpg": sample["jpg"], "json": about} | {f"{k}.png": sample[k] for k in MAPS}
            for ending, data in files.items():
                entry = tarfile.TarInfo(f"{i:08d}.{ending}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def read_webdataset(folder: Path) -> Iterator[dict[str, Any]]:
    import webdataset

    tar = str(folder / "shard-000000.tar")
    for found in webdataset.WebDataset(tar, shardshuffle=False, empty_check=False):
        yield {"jpg": found["jpg"], **json.loads(found["json"]), **{k: found[f"{k}.png"] for k in MAPS}}


def write_datasets(samples: Iterator[dict[str, Any]], folder: Path) -> None:
    """Arrow files with the pictures and maps as `Image` features, which decode themselves."""
    import datasets

    kinds = {
        "box": datasets.List(datasets.List(datasets.Value("float32"), 4)),
        **{k: datasets.List(datasets.Value(kind)) for k, kind in NUMBERS.items() if k != "box"},
    }
    features = datasets.Features({k: datasets.Image() for k in ("jpg", *MAPS)} | kinds)
    plain = [{k: {"bytes": v, "path": None} if k in ("jpg", *MAPS) else v for k, v in s.items()} for s in samples]
    data = datasets.Dataset.from_list(plain, features=features)
    data.save_to_disk(str(folder))


def read_datasets(folder: Path) -> Iterator[dict[str, Any]]:
    import datasets

    yield from datasets.load_from_disk(str(folder))


def write_litdata(samples: Iterator[dict[str, Any]], folder: Path) -> None:
    """Chunks of 64 MB with the pictures' and maps' bytes, and arrays."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for i, sample in enumerate(samples):
        writer[i] = sample
    writer.done()
    writer.merge()


def read_litdata(folder: Path) -> Iterator[dict[str, Any]]:
    from litdata import StreamingDataset

    yield from StreamingDataset(str(folder), shuffle=False)


def write_streaming(samples: Iterator[dict[str, Any]], folder: Path) -> None:
    """MDS shards with the pictures' and maps' bytes (its own "jpeg" would encode them anew), and arrays."""
    from streaming import MDSWriter

    numbers = {k: v.replace("bool", "uint8") for k, v in NUMBERS.items()}  # its arrays are never of bool
    kinds = dict.fromkeys(("jpg", *MAPS), "bytes") | {k: f"ndarray:{v}" for k, v in numbers.items()}
    with MDSWriter(out=str(folder), columns=kinds) as writer:
        for sample in samples:
            writer.write({k: np.asarray(v, numbers[k]) if k in numbers else v for k, v in sample.items()})


def read_streaming(folder: Path) -> Iterator[dict[str, Any]]:
    from streaming import StreamingDataset

    yield from StreamingDataset(local=str(folder), shuffle=False, batch_size=1)


FORMATS: dict[str, tuple[str, Callable[[Iterator[dict[str, Any]], Path], None], Callable[[Path], Iterator[Any]]]] = {
    "webdataset": ("WebDataset", write_webdataset, read_webdataset),
    "datasets": ("Hugging Face datasets", write_datasets, read_datasets),
    "litdata": ("LitData", write_litdata, read_litdata),
    "streaming": ("MosaicML streaming", write_streaming, read_streaming),
}
"""Package -> the tool's name, and what writes and reads its format."""


def written(package: str, store: str) -> Path:
    """The folder beside `store` with its contents in that package's format, made if it is not there."""
    folder = Path(f"{store}-{package}")
    if not folder.exists():
        folder.mkdir()
        FORMATS[package][1](encoded(Store.open(store)), folder)
    return folder


def images_a_second(package: str, store: str, size: int) -> float:
    """Of a whole pass over all images, in their order: read, decoded, viewed, collated by 32."""
    torch.set_num_threads(1)
    folder = written(package, store)
    start, number, held = time.perf_counter(), 0, []
    for sample in FORMATS[package][2](folder):
        held.append(seen(sample, number, size))
        number += 1
        if len(held) == BATCH:
            collated(held)
            held = []
    return number / (time.perf_counter() - start)
