"""How labels with classes hold against people's: counts that give recall and precision by class.

Shapes: K classes, N things of an image (objects, pixels, the image itself).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from polyteach.tasks.contract import Agreement


class Counting(ABC):
    """Counts by class: things that people say are there, that the labels say, and of those the right ones.

    Classes from `classes` on are those that only one of both can say: they are counted neither way.
    """

    things = "objects"
    """What is counted."""
    ranked = "recall"
    """The score by which classes are told, worst and best."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.true, self.said, self.right = (torch.zeros(classes, dtype=torch.long) for _ in range(3))

    @abstractmethod
    def count(self, predicted: Any, true: Any) -> tuple[Int64[Tensor, " A"], Int64[Tensor, " B"], Int64[Tensor, " C"]]:
        """Of one image the classes of the true things, of those that were said, and of those said rightly."""

    def update(self, predicted: Sequence[Any], true: Sequence[Any]) -> None:
        """Count a batch: one pseudo label and one answer of people per image."""
        for p, t in zip(predicted, true, strict=True):
            for total, found in zip((self.true, self.said, self.right), self.count(p, t), strict=True):
                total += found[found < self.classes].bincount(minlength=self.classes)

    def overall(self) -> dict[str, float]:
        """Scores over all classes, in percent."""
        total, said, right = (float(x.sum()) for x in (self.true, self.said, self.right))
        return {"recall": _percent(right, total), "precision": _percent(right, said)}

    def note(self) -> str:
        """What follows for a training, in a sentence; "" where nothing has to be said."""
        return ""

    def agreement(self) -> Agreement:
        """What was counted; a class is told where people or the labels name it."""
        rows = {}
        each = zip(self.true.tolist(), self.said.tolist(), self.right.tolist(), strict=True)
        for i, (true, said, right) in enumerate(each):
            if true or said:
                rows[i] = {"recall": _percent(right, true), "precision": _percent(right, said)}
        objects = {i: int(self.true[i]) for i in rows}
        return Agreement(self.overall(), {self.things: int(self.true.sum())}, rows, objects, self.ranked, self.note())


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else float("nan")
