"""How right a pool's pseudo labels are: `python runs/label_quality.py POOL ORACLE [SET ...] [--part 5] [--count 300]`.

Compares the label sets of one store with the exact labels, called "people", of the same pictures in another store, or
in the same, on the first pictures of a part. For docs/evidence/proof.md: it looks at the pool, never at a downstream
test.
"""

import argparse
import sys

import torch

from polyteach.ground.geometry import letterbox
from polyteach.store import LabelSet, Store
from polyteach.tasks import load_task

SCORE = 0.5


def told(labels: LabelSet, truth: LabelSet, part: int, count: int) -> str:
    """What a set says of the pictures, beside what is true."""
    n = range(min(count, labels.store.count(part)))
    if labels.ids(part) != truth.ids(part):
        raise SystemExit(f"{labels.path} and {truth.path} are not of the same pictures")
    task = load_task(labels.task)
    pairs = list(zip(labels.read(part, n), truth.read(part, n), strict=True))
    mine, real = labels.space.names, truth.space.names
    if labels.task == "classification":
        said = [mine[int(a.probability.argmax())] for a, _ in pairs]
        true = [real[int(t.probability.argmax())] for _, t in pairs]
        right = [a == t for a, t in zip(said, true, strict=True)]
        known = [r for r, t in zip(right, true, strict=True) if t in mine]
        sure = [r for r, (a, _) in zip(right, pairs, strict=True) if a.probability.max() >= SCORE]
        return (
            f"right on {sum(right) / len(right):.0%}, on {sum(known) / len(known):.0%} of those of a known class; "
            f"{SCORE} sure on {len(sure) / len(pairs):.0%}, right on {sum(sure) / max(len(sure), 1):.0%} of them"
        )
    if labels.task == "detection":
        kept = [sum(int((a.score >= s).sum()) for a, _ in pairs) for s in (0.5, 0.3)]
        empty = sum(not bool((a.score >= SCORE).any()) for a, _ in pairs) / len(pairs)
        boxes = sum(len(t.box) for _, t in pairs)
        return (
            f"{boxes} objects; {kept[0]} boxes at 0.5, {kept[1]} at 0.3; {empty:.0%} of the pictures empty at {SCORE}"
        )
    if labels.task == "segmentation":
        number = torch.tensor([mine.index(name) if name in mine else -1 for name in real])
        there = ignored = right = found = pixels = 0
        for a, t in pairs:
            wanted, sure = number[t.category], a.probability >= SCORE
            thing = wanted != 0
            pixels += thing.numel()
            there += int(thing.sum())
            ignored += int((thing & ~sure).sum())
            right += int((thing & sure & (a.category == wanted)).sum())
            found += int((thing & sure & (a.category != 0)).sum())
        return (
            f"{there / pixels:.0%} of the pixels are objects; of those {ignored / there:.0%} are ignored at {SCORE}, "
            f"{found / there:.1%} kept as some object, {right / there:.1%} as the right one"
        )
    metric, size = task.metric(truth.space), (64, 64)
    metric.update([task.view(a, letterbox(size, size)) for a, _ in pairs], [t for _, t in pairs])
    return ", ".join(f"{k} {float(v):.3g}" for k, v in metric.compute().items())


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool")
    parser.add_argument("oracle")
    parser.add_argument("names", metavar="SET", nargs="*", help="these alone")
    parser.add_argument("--part", type=int, default=5)
    parser.add_argument("--count", type=int, default=300, help="of its pictures")
    given = parser.parse_args()
    truth = {s.task: s for s in Store.open(given.oracle).sets() if s.name == "people"}
    for labels in Store.open(given.pool).sets():
        if labels.task in truth and labels.name != "people" and (not given.names or labels.name in given.names):
            print(f"{labels.name}: {told(labels, truth[labels.task], given.part, given.count)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
