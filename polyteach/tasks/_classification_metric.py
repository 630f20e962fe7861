"""The metric of classification: how often the true class is among the most probable.

A file of its own, as torchmetrics takes seconds to be imported: labelling and training do without it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from polyteach.tasks.classification import ClassificationTarget


class TopK(Metric):
    """Share of images whose true class is among the k most probable, in percent."""

    hits1: Tensor
    hits5: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        for state in ("hits1", "hits5", "images"):
            self.add_state(state, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[ClassificationTarget], true: Sequence[ClassificationTarget]) -> None:
        for p, t in zip(predicted, true, strict=True):
            best = p.probability.topk(min(5, len(p.probability))).indices
            # of classes none of which is possible none is probable: over classes of which a teacher keeps nothing
            hit = (best == t.probability.argmax()) & p.probability.any()
            self.hits1 += hit[:1].any()
            self.hits5 += hit.any()
            self.images += 1

    def compute(self) -> dict[str, float]:
        n = max(int(self.images), 1)
        return {"top-1": 100 * int(self.hits1) / n, "top-5": 100 * int(self.hits5) / n}
