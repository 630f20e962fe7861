"""How alike predicted features are to a teacher's.

Shapes: C channels, m n cells.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from polyteach.tasks.embedding import EmbeddingTarget, at, known


class Likeness(Metric):
    """Percent, over the cells that the teacher knows, at its resolution.

    cosine: mean cosine similarity. explained: share of the teacher's variance about its mean that is predicted (R^2 of
    all channels together); 0 for one who always says the mean, which alone can have a high cosine.
    """

    full_state_update = False
    cosine: Tensor
    cells: Tensor
    error: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, shape in (("cosine", ()), ("cells", ()), ("error", ()), ("total", (channels,)), ("squares", ())):
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[EmbeddingTarget], true: Sequence[EmbeddingTarget]) -> None:
        """One predicted and one true target per image."""
        for p, t in zip(predicted, true, strict=True):
            where = known(t.feature).bool()
            right = t.feature[:, where].double()
            guess = at(p.feature, (t.feature.shape[1], t.feature.shape[2]))[:, where].double()
            self.cosine += F.cosine_similarity(guess, right, dim=0).sum()
            self.cells += where.sum()
            self.error += (guess - right).square().sum()
            self.total += right.sum(1)
            self.squares += right.square().sum()

    def compute(self) -> dict[str, float]:
        """cosine, then explained."""
        count = self.cells.clamp(min=1)
        spread = self.squares - self.total.square().sum() / count
        explained = 1 - float(self.error) / max(float(spread), 1e-12 * max(float(self.squares), 1e-12))
        return {"cosine": 100 * float(self.cosine / count), "explained": 100 * explained}
