"""Reading: images and targets decoded, viewed and collated, against bare JPEG decoding and other formats' readers."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from harness import Row, alone, interleaved, medians, rate
from PIL import Image
from worlds import rendered

from polyteach.batches import Augment, Samples, batches, plan
from polyteach.store import Store
from polyteach.tasks.contract import Policy

BATCH = 32


def ours(store: Store, size: int, tasks: tuple[str, ...], count: int) -> float:
    """Images a second through polyteach's reader, in this process."""
    samples = Samples(plan([store], tasks, (), ()), Augment((size, size), (0.7, 1.5)), Policy(), 0)
    return rate(count, lambda: [None for _ in batches(samples, BATCH, 0, count // BATCH)])


def bare(pictures: list[bytes]) -> float:
    """The limit: the same bytes decoded with libjpeg-turbo (Pillow's), and nothing else."""
    return rate(len(pictures), lambda: [np.asarray(Image.open(io.BytesIO(x))) for x in pictures])


def shards(store: Store, folder: Path) -> str:
    """The same pictures, classes, boxes and maps as WebDataset users keep them."""
    path = folder / "shard-000000.tar"
    sets = {s.task: s for s in store.sets()}
    with tarfile.open(path, "w") as tar:
        for part in store.parts():
            answers = {t: s.read(part) for t, s in sets.items()}
            for i, row in enumerate(store.images(part)):

                def put(ending: str, data: bytes, key: str = f"{part}-{i}") -> None:
                    about = tarfile.TarInfo(f"{key}.{ending}")
                    about.size = len(data)
                    tar.addfile(about, io.BytesIO(data))

                put("jpg", row.data or b"")
                t = {k: vars(v[i]) for k, v in answers.items()}
                boxes = t["detection"]
                about = {
                    "box": boxes["box"].tolist(),
                    "category": boxes["category"].tolist(),
                    "class": int(t["classification"]["probability"].argmax()),
                }
                put("json", json.dumps(about).encode())
                for ending, array in (
                    ("regions.png", t["segmentation"]["category"].numpy().astype(np.uint8)),
                    ("depth.png", (t["depth"]["value"].numpy() * 1000).clip(0, 65535).astype(np.uint16)),
                    ("normals.png", ((t["normals"]["normal"].numpy() + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)),
                ):
                    out = io.BytesIO()
                    Image.fromarray(array).save(out, format="png")
                    put(ending, out.getvalue())
    return str(path)


def webdataset(path: str, count: int, size: int) -> float:
    """WebDataset with the same random view of picture and maps by torchvision's transforms, collated by 32."""
    import webdataset
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    crop = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomResizedCrop(size, (0.5, 1.0), antialias=True)])

    def sample(s: dict[str, bytes]) -> tuple[torch.Tensor, ...]:
        def picture(name: str, mode: str | None = None) -> np.ndarray:
            found = Image.open(io.BytesIO(s[name]))
            return np.asarray(found.convert(mode) if mode else found)

        about = json.loads(s["json"])
        image = tv_tensors.Image(torch.from_numpy(picture("jpg", "RGB").copy()).permute(2, 0, 1))
        box = tv_tensors.BoundingBoxes(
            torch.tensor(about["box"]).reshape(-1, 4), format="XYXY", canvas_size=image.shape[-2:]
        )
        maps = [tv_tensors.Mask(torch.from_numpy(picture(n).astype(np.int32))) for n in ("regions.png", "depth.png")]
        normals = tv_tensors.Mask(torch.from_numpy(picture("normals.png").copy()).permute(2, 0, 1))
        image, _, *maps = crop(image, box, *maps, normals)
        return torch.as_tensor(image), *map(torch.as_tensor, maps)

    data = webdataset.WebDataset(path, shardshuffle=False, empty_check=False).map(sample)

    def go() -> None:
        held = []
        for one in data:
            held.append(one[0])
            if len(held) == BATCH:
                torch.stack(held)
                held = []

    return rate(count, go)


def reading(folder: Path, quick: bool) -> list[Row]:
    """Images a second on one core: polyteach's reader against bare decoding and WebDataset."""
    torch.set_num_threads(1)
    count, size, turns = (128, 256, 3) if quick else (512, 256, 7)
    store = rendered(folder / "reading", count, size)
    pictures = [r.data or b"" for p in store.parts() for r in store.images(p)]
    path = shards(store, folder)
    ways = {
        "bare": lambda: bare(pictures),
        "few": lambda: ours(store, size, ("classification", "detection"), count),
        "all": lambda: ours(store, size, (), count),
        "webdataset": lambda: webdataset(path, count, size),
    }
    m = medians(interleaved(ways, turns))
    name, unit = f"reading, {size} px", "images/s"
    return [
        Row(name, "class and boxes, against bare JPEG decoding", m["few"], m["bare"], unit, 0.9),
        Row(name, "all five targets, against bare JPEG decoding", m["all"], m["bare"], unit, 0.6),
        Row(
            name,
            "all five targets, against WebDataset with PNG maps and torchvision's crop",
            m["all"],
            m["webdataset"],
            unit,
            1.0,
        ),
    ]


if __name__ == "__main__":
    alone(reading, "reading")
