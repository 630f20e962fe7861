"""Whether labels can teach anything, from the labels alone."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields

import torch

from polyteach.tasks import load_task
from polyteach.tasks.target import Policy, Space, Target

FEW = 8
"""Images from which on it is odd that all have one answer or one class."""


def why_useless(name: str, space: Space, policy: Policy, targets: Iterable[Target]) -> str:
    """Why these labels can hardly teach anything: all are empty, or the same, or of one class; "" where they vary.

    name: of the task. targets: no more of them are asked for than it takes to see that they vary.
    """
    task = load_task(name)
    reasons: Counter[str] = Counter()
    classes: set[int] = set()
    first: Target | None = None
    seen, same = 0, True
    for target in targets:
        answer = task.pseudo(target, policy)
        seen += 1
        reason = task.nothing(answer, space)
        reasons[reason] += 1
        same = same and (first is None or _alike(first, answer))
        first = answer if first is None else first
        classes.update(task.classes(answer))
        one = len(space.names) > 1 and len(classes) == 1
        if reasons[""] and not same and not one:
            return ""
    all_of = f"all {seen:,} images that were looked at"
    if seen and not reasons[""]:
        return f"images with {reasons.most_common(1)[0][0]}: {all_of}"
    if seen >= FEW and same:
        return f"images with the same answer: {all_of}"
    if seen >= FEW and len(space.names) > 1 and len(classes) == 1:
        return f"images that show {space.names[min(classes)]!r} alone: {all_of}"
    return ""


def _alike(a: Target, b: Target) -> bool:
    """Whether two answers say the same: numbers to a thousandth of the largest.

    Maps that hold one value are compared whatever their sizes.
    """
    for x, y in ((getattr(a, f.name), getattr(b, f.name)) for f in fields(a)):
        if x is None and y is None:
            continue
        if x is None or y is None or x.ndim != y.ndim:
            return False
        if x.shape != y.shape:
            if x.ndim < 2 or x.shape[:-2] != y.shape[:-2] or not x.numel() or not y.numel():
                return False
            one, other = x[..., :1, :1], y[..., :1, :1]
            if not bool((x == one).all() and (y == other).all()):
                return False
            x, y = one, other
        if not x.is_floating_point():
            if not torch.equal(x, y):
                return False
            continue
        # of the largest value: depth has no unit, and among many classes every probability is small
        most = max(float(v.nan_to_num(0, 0, 0).abs().max()) if v.numel() else 0.0 for v in (x.float(), y.float()))
        if not torch.allclose(x.float(), y.float(), rtol=0, atol=1e-3 * most, equal_nan=True):
            return False
    return True
