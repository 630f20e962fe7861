"""How far label sets lie apart that say the same in another precision.

    python runs/labels_apart.py STORE bf16 [--count 2048]

Every label set called NAME-SUFFIX is compared with the one called NAME, on the first pictures that both label. For
docs/evidence/performance.md.
"""

import argparse
import statistics
from collections.abc import Iterator
from typing import Any

from torchvision.ops import box_iou

from polyteach.store import LabelSet, Store

SCORE = 0.5


def pairs(one: LabelSet, two: LabelSet, count: int) -> Iterator[tuple[Any, Any]]:
    """Targets of the same pictures."""
    for part in one.parts():
        if two.has(part) and count > 0:
            rows = range(min(count, one.store.count(part)))
            count -= len(rows)
            found = zip(one.read(part, rows), two.read(part, rows), strict=True)
            yield from ((a, b) for a, b in found if not isinstance(a, str | None) and not isinstance(b, str | None))


def apart(task: str, both: list[tuple[Any, Any]]) -> dict[str, float]:
    """What differs, in words and numbers: means over pictures, and shares."""
    n = len(both)
    if task == "classification":
        return {
            "mean difference of the largest probability": statistics.fmean(
                float((a.probability - b.probability).abs()[a.probability.argmax()]) for a, b in both
            ),
            "pictures with another class": sum(bool(a.probability.argmax() != b.probability.argmax()) for a, b in both)
            / n,
        }
    if task == "detection":
        kept = found = 0
        for a, b in both:
            mine, theirs = a.score >= SCORE, b.score >= SCORE
            kept += int(mine.sum())
            if mine.any() and theirs.any():
                same = a.category[mine][:, None] == b.category[theirs]
                found += int(((box_iou(a.box[mine], b.box[theirs]) > 0.9) & same).any(1).sum())
        return {
            f"boxes of {SCORE} or more": kept,
            "of which the other has none with IoU above 0.9": 1 - found / max(kept, 1),
        }
    if task == "segmentation":
        pixels = sum(a.category.numel() for a, _ in both)
        return {
            "mean difference of the probability": statistics.fmean(
                float((a.probability - b.probability).abs().mean()) for a, b in both
            ),
            "pixels with another class": sum(int((a.category != b.category).sum()) for a, b in both) / pixels,
        }
    return {"mean relative difference": statistics.fmean(
        float(((a.value - b.value).abs() / a.value.abs().clamp_min(1e-6)).mean()) for a, b in both
    )}  # fmt: skip


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("suffix", help="without its hyphen")
    parser.add_argument("--count", type=int, default=2048, help="pictures")
    given = parser.parse_args()
    end = f"-{given.suffix}"
    sets = {(s.task, s.name): s for s in Store.open(given.store).sets()}
    chosen = [(k, s) for k, s in sets.items() if k[1].endswith(end)]
    if not chosen:
        parser.error(f"{given.store} has no label set that ends in {end}; it has {[k[1] for k in sets]}")
    for (task, name), other in chosen:
        base = sets.get((task, name.removesuffix(end)))
        if base is None:
            parser.error(f"{given.store} has no label set {name.removesuffix(end)} to compare with")
        both = list(pairs(base, other, given.count))
        print(f"{task}, {len(both)} pictures: {', '.join(f'{k} {v:.4g}' for k, v in apart(task, both).items())}")


if __name__ == "__main__":
    main()
