"""The data that benchmarks run on: rendered pictures as JPEG, with exact labels of all five tasks."""

import io
from pathlib import Path

from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.store import ImageRow, Store


def jpeg(png: bytes, quality: int = 90) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(out, format="jpeg", quality=quality)
    return out.getvalue()


def rendered(path: Path, count: int, size: int, tasks: str = "all", part_size: int = 256) -> Store:
    """A store of `count` pictures of `size` x `size` pixels; tasks: as in the option of shapes."""
    data = load_dataset(f"shapes:pool?count={count}&size={size}&tasks={tasks}&seed=7")
    store = Store.create(path, part_size)
    sets = {t: store.create_set(t, "exact", s, {}) for t, s in data.spaces.items()}
    for part, start in enumerate(range(0, count, part_size)):
        entries = list(data.entries(start, min(start + part_size, count)))
        rows = [ImageRow(data.names[start + i], size, size, jpeg(e.data)) for i, e in enumerate(entries)]
        store.write_images(part, rows)
        answers = [e.targets((size, size)) for e in entries]
        for task, labels in sets.items():
            labels.write(part, [r.id for r in rows], [a[task] for a in answers])
    return store
