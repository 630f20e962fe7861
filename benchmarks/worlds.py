"""The data that benchmarks run on: rendered pictures or photographs as JPEG, with exact labels of all five tasks."""

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from polyteach.datasets import load_dataset
from polyteach.store import ImageRow, Store


def png(pixels: Tensor) -> bytes:
    """An image as PNG bytes; pixels (3, H, W) uint8."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).save(out, format="PNG")
    return out.getvalue()


def jpeg(png: bytes, quality: int = 90) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(out, format="jpeg", quality=quality)
    return out.getvalue()


def photographs(size: int) -> list[bytes]:
    """JPEG of the central squares of the photographs in the package interior_photos; none where it is not installed."""
    spec = importlib.util.find_spec("interior_photos")  # finds it, and runs nothing
    roots = list(spec.submodule_search_locations or ()) if spec else []
    files = sorted(f for root in roots for f in Path(root).rglob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
    found = []
    for file in files:
        with Image.open(file) as picture:
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            square = picture.convert("RGB").resize((size, size), box=(left, top, left + side, top + side))
            out = io.BytesIO()
            square.save(out, format="jpeg", quality=90)
            found.append(out.getvalue())
    return found


def rendered(
    path: Path,
    count: int,
    size: int,
    tasks: str = "all",
    part_size: int = 256,
    instead: Callable[[int], list[bytes]] | None = None,
) -> Store:
    """A store of `count` pictures of `size` x `size` pixels; tasks: as in the option of shapes.

    instead: makes pictures of that size to be shown in turn instead of the rendered ones, whose labels stay: as much to
    read as if they were the photograph's. Where it makes none, the rendered ones are kept.
    """
    others = instead(size) if instead else []
    data = load_dataset(f"shapes:pool?count={count}&size={size}&tasks={tasks}&seed=7")
    store = Store.create(path, part_size)
    sets = {t: store.create_set(t, "exact", s, {}) for t, s in data.spaces.items()}
    for part, start in enumerate(range(0, count, part_size)):
        entries = list(data.entries(start, min(start + part_size, count)))
        rows = [
            ImageRow(data.names[start + i], size, size, others[(start + i) % len(others)] if others else jpeg(e.data))
            for i, e in enumerate(entries)
        ]
        store.write_images(part, rows)
        answers = [e.targets((size, size)) for e in entries]
        for task, labels in sets.items():
            labels.write(part, [r.id for r in rows], [a[task] for a in answers])
    return store
