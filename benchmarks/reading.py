"""Reading: images and targets decoded, viewed and collated, against bare JPEG decoding and other formats' readers."""

import io
from pathlib import Path

import numpy as np
import torch
from formats import BATCH, FORMATS, SCALE, images_a_second
from harness import Peer, Row, against, alone, interleaved, medians, rate, ready
from PIL import Image
from torchcodec.decoders import decode_jpeg
from worlds import photographs, rendered

from polyteach.loading.plan import plan
from polyteach.loading.samples import Samples
from polyteach.loading.transport import batches
from polyteach.loading.views import Augment
from polyteach.store import Store
from polyteach.tasks.contract import Policy


def samples(store: Store, size: int, tasks: tuple[str, ...]) -> Samples:
    """Training's stream of views."""
    return Samples(plan([store], tasks, (), ()), Augment((size, size), SCALE), Policy(), 0)


def ours(store: Store, size: int, tasks: tuple[str, ...], count: int) -> float:
    """Images a second through polyteach's reader, in this process."""
    stream = samples(store, size, tasks)
    return rate(count, lambda: [None for _ in batches(stream, BATCH, 0, count // BATCH)])


def bare(pictures: list[bytes]) -> float:
    """A limit: the same bytes decoded by Pillow's libjpeg-turbo, and nothing else."""
    return rate(len(pictures), lambda: [np.asarray(Image.open(io.BytesIO(x))) for x in pictures])


def bare_torchvision(pictures: list[bytes]) -> float:
    """A limit: the same bytes decoded by torchvision's libjpeg-turbo, and nothing else."""
    held = [torch.frombuffer(bytearray(x), dtype=torch.uint8) for x in pictures]
    return rate(len(held), lambda: [decode_jpeg(x) for x in held])


def compared(title: str, store: Store, size: int, turns: int) -> list[Row]:
    """One store's rows; size: of the views."""
    pictures = [r.data or b"" for p in store.parts() for r in store.images(p)]
    count = len(pictures)
    peers = [
        Peer(name, package, images_a_second, (package, str(store.path), size))
        for package, (name, *_) in FORMATS.items()
    ]
    others, missing = ready(peers)
    ways = {
        "Pillow": lambda: bare(pictures),
        "torchvision": lambda: bare_torchvision(pictures),
        "few": lambda: ours(store, size, ("classification", "detection"), count),
        "all": lambda: ours(store, size, (), count),
        **others,
    }
    m = medians(interleaved(ways, turns, others, missing))
    unit, limit = "images/s", max("Pillow", "torchvision", key=m.__getitem__)
    return [
        Row(title, f"class and boxes, against bare JPEG decoding ({limit})", m["few"], m[limit], unit, 0.9),
        Row(title, f"all five targets, against bare JPEG decoding ({limit})", m["all"], m[limit], unit, 0.6),
        Row(title, "bare JPEG decoding, Pillow against torchvision", m["Pillow"], m["torchvision"], unit),
        *against(title, "all five targets, ", m["all"], m, peers, missing, unit, 1.0),
    ]


def reading(folder: Path, quick: bool) -> list[Row]:
    """Images a second on one core: polyteach's reader against bare decoding and other formats' readers.

    All see the same views of the same pictures and targets; ours shuffles them, the others go through them in order.
    """
    torch.set_num_threads(1)
    count, turns = (128, 2) if quick else (512, 7)
    small = rendered(folder / "rendered", count, 256)
    rows = compared("reading, rendered, 256 px", small, 256, turns)
    large = rendered(folder / "photographs", count // 2, 512, instead=photographs)
    return rows + compared("reading, photographs, 512 px seen at 256", large, 256, turns)


if __name__ == "__main__":
    alone(reading, "reading")
