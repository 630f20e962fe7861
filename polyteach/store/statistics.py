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
    """Why these labels can hardly teach anything; see `Variety`.

    name: of the task. targets: no more of them are asked for than it takes to see that they vary.
    """
    variety = Variety(name, space, policy)
    for target in targets:
        variety.see(target)
        if variety.enough:
            break
    return variety.why()


class Variety:
    """Whether labels say anything, and different things of different images: seen one after the other.

    name: of the task. policy: as they are learned. enough: they vary, and need no further look.
    """

    def __init__(self, name: str, space: Space, policy: Policy) -> None:
        self.task, self.space, self.policy = load_task(name), space, policy
        self.enough = False
        self._reasons: Counter[str] = Counter()
        self._classes: set[int] = set()
        self._first: Target | None = None
        self._seen, self._same = 0, True

    def see(self, target: Target) -> None:
        """Look at the next label."""
        if self.enough:
            return
        answer = self.task.pseudo(target, self.policy)
        self._seen += 1
        self._reasons[self.task.nothing(answer, self.space)] += 1
        self._same = self._same and (self._first is None or _alike(self._first, answer))
        self._first = answer if self._first is None else self._first
        self._classes.update(self.task.classes(answer))
        self.enough = bool(self._reasons[""]) and not self._same and not self._one_class

    @property
    def _one_class(self) -> bool:
        return len(self.space.names) > 1 and len(self._classes) == 1

    def why(self) -> str:
        """All are empty, or the same, or of one class; "" where they vary."""
        all_of = f"all {self._seen:,} images that were looked at"
        if self.enough:
            return ""
        if self._seen and not self._reasons[""]:
            return f"images with {self._reasons.most_common(1)[0][0]}: {all_of}"
        if self._seen >= FEW and self._same:
            return f"images with the same answer: {all_of}"
        if self._seen >= FEW and self._one_class:
            return f"images that show {self.space.names[min(self._classes)]!r} alone: {all_of}"
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
