"""Bytes of labels: against the picture, naive formats, and the entropy of the quantised values."""

import io
import json
from pathlib import Path

import numpy as np
from harness import Row, alone
from PIL import Image
from worlds import rendered

from polyteach.store import Store


def per_image(store: Store) -> dict[str, float]:
    """Mean bytes of each label set's parts."""
    count = sum(store.count(p) for p in store.parts())
    return {s.task: sum(f.stat().st_size for f in s.path.glob("part-*.parquet")) / count for s in store.sets()}


def entropy(values: np.ndarray) -> float:
    """Bytes that an ideal coder of independent values would need, zeroth order, of one image."""
    _, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum() * values.size / 8)


def png(array: np.ndarray) -> int:
    out = io.BytesIO()
    Image.fromarray(array).save(out, format="png")
    return len(out.getvalue())


def naive(store: Store) -> dict[str, dict[str, float]]:
    """Mean bytes of one image's targets as a user would keep them: COCO's JSON, a PNG each, .npy of float32."""
    sums: dict[str, dict[str, float]] = {}
    count = 0
    for part in store.parts():
        count += store.count(part)
        for labels in store.sets():
            for t in labels.read(part):
                into = sums.setdefault(labels.task, {})

                def add(name: str, size: float, into: dict[str, float] = into) -> None:
                    into[name] = into.get(name, 0) + size

                v = vars(t)
                if labels.task == "detection":
                    rows = [
                        {
                            "image_id": 1,
                            "category_id": int(c),
                            "bbox": [round(float(x), 2) for x in b],
                            "score": float(s),
                        }
                        for b, c, s in zip(v["box"], v["category"], v["score"], strict=True)
                    ]
                    add("COCO JSON", len(json.dumps(rows)))
                elif labels.task == "segmentation":
                    add("PNG", png(v["category"].numpy().astype(np.uint8)))
                    add(".npy", v["category"].numel() * 8)
                    add("entropy", entropy(v["category"].numpy()))
                elif labels.task == "depth":
                    half = v["value"].numpy().astype(np.float16).view(np.uint16)
                    add("PNG", png((v["value"].numpy() * 1000).clip(0, 65535).astype(np.uint16)))
                    add(".npy", v["value"].numel() * 4)
                    add("entropy", entropy(half))
                elif labels.task == "normals":
                    levels = (v["normal"].numpy() * 127).round().astype(np.int8)
                    add("PNG", png((levels.astype(np.int16) + 128).astype(np.uint8).transpose(1, 2, 0)))
                    add(".npy", v["normal"].numel() * 4)
                    add("entropy", sum(entropy(x) for x in levels))
                else:
                    add(".npy", v["probability"].numel() * 4)
    return {task: {k: x / count for k, x in found.items()} for task, found in sums.items()}


def sizes(folder: Path, quick: bool) -> list[Row]:
    """Label bytes per image and task; the target is for all five together against the JPEG."""
    rows = []
    for size in (64, 256):
        store = rendered(folder / f"sizes-{size}", 32 if quick else 256, size)
        mine = per_image(store)
        pictures = [len(r.data or b"") for p in store.parts() for r in store.images(p)]
        mean = sum(pictures) / len(pictures)
        name = f"sizes, {size} px"
        rows.append(
            Row(name, "all five targets, against the JPEG (quality 90)", sum(mine.values()), mean, "bytes", 1.0, False)
        )
        for task, others in naive(store).items():
            for other, figure in others.items():
                rows.append(Row(name, f"{task}, against {other}", mine[task], figure, "bytes", None, False))
    return rows


if __name__ == "__main__":
    alone(sizes, "sizes")
