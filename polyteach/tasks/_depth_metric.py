"""The metric of depth: errors and shares of pixels near the truth, averaged over images.

A file of its own, as torchmetrics takes seconds to be imported: labelling and training do without it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from polyteach.ground.geometry import whole
from polyteach.tasks.depth import FARTHEST, DepthTarget, aligned, size_of_map


class DepthErrors(Metric):
    """Shares of pixels within ratios of the truth (percent), mean relative error and root mean square error.

    Computed per image over pixels that are valid in both, then averaged over images, as in MiDaS (Ranftl et al.,
    TPAMI 2020) and Eigen et al. (NeurIPS 2014). 0 before any pixel is seen.

    Metric depth: in metres, as it is. Relative inverse depth: the prediction is first aligned to the truth by the scale
    and shift of least squares in inverse depth, per image. What the truth's own shift is nobody knows where a teacher
    gave it, so all numbers are then of inverse depth as the truth states it: ratios only where the truth is positive
    and no farther than FARTHEST times its nearest pixel, predictions capped there; AbsRel relative to the truth's
    value; RMSE in units of the truth's mean absolute deviation.
    """

    full_state_update = False
    sums: Tensor
    images: Tensor

    def __init__(self, metric: bool) -> None:
        super().__init__()
        self.metric = metric
        self.add_state("sums", torch.zeros(5, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[DepthTarget], true: Sequence[DepthTarget]) -> None:
        for p, t in zip(predicted, true, strict=True):
            resample = whole(size_of_map(p), size_of_map(t))
            valid = t.valid & resample.dense(p.valid)
            guess, truth = resample.dense(p.value)[valid].double(), t.value[valid].double()
            spread = torch.ones((), dtype=torch.float64)
            if not self.metric and len(truth):
                guess = aligned(guess, truth)
                spread = (truth - truth.mean()).abs().mean()
                floor = truth.max() / FARTHEST
                guess = guess.clamp(min=float(floor.clamp(min=1e-12)))
                near = (truth > 0) & (truth >= floor)
                guess, truth = guess[near], truth[near]
            positive = truth > 0
            guess, truth = guess[positive].clamp(min=1e-12), truth[positive]
            if not len(truth):
                continue
            ratio = torch.maximum(guess / truth, truth / guess)
            within = [(ratio < 1.25**k).double().mean() * 100 for k in (1, 2, 3)]
            error = guess - truth
            rmse = error.square().mean().sqrt() / spread.clamp(min=1e-12)
            self.sums += torch.stack([*within, (error.abs() / truth).mean(), rmse]).to(self.sums)
            self.images += 1

    def compute(self) -> dict[str, float]:
        means = (self.sums / self.images.clamp(min=1)).tolist()
        names = ("delta<1.25", "delta<1.25^2", "delta<1.25^3", "AbsRel", "RMSE")
        return dict(zip(names, means, strict=True))
