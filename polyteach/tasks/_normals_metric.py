"""The metric of surface normals: angles between prediction and truth over all pixels.

A file of its own, as torchmetrics takes seconds to be imported: labelling and training do without it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from polyteach.ground.geometry import whole
from polyteach.tasks.normals import BIN, NormalsTarget, size_of_map


class Angles(Metric):
    """Shares of pixels within 11.25, 22.5 and 30 degrees of the truth (percent), mean and median angle (degrees).

    Over the pixels of all images together that are valid in both prediction and truth, as in Fouhey et al. (ICCV
    2013). The median is read from a histogram, so that it adds up over processes: rounded down to 0.01 degrees. 0
    before any pixel is seen.
    """

    full_state_update = False
    limits = (11.25, 22.5, 30)
    histogram: Tensor
    within: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("histogram", torch.zeros(round(180 / BIN) + 1, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("within", torch.zeros(len(self.limits), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[NormalsTarget], true: Sequence[NormalsTarget]) -> None:
        for p, t in zip(predicted, true, strict=True):
            resample = whole(size_of_map(p), size_of_map(t))
            valid = t.valid & resample.dense(p.valid)
            a, b = resample.dense(p.normal)[:, valid].double(), t.normal[:, valid].double()
            # the arc cosine would lose half the digits of small angles
            angle = torch.atan2(torch.linalg.cross(a, b, dim=0).norm(dim=0), (a * b).sum(0)).rad2deg()
            self.histogram += (angle / BIN).long().bincount(minlength=len(self.histogram))
            self.within += torch.stack([(angle <= limit).sum() for limit in self.limits])
            self.total += angle.sum()

    def compute(self) -> dict[str, float]:
        n = int(self.histogram.sum())
        shares = (100 * self.within.double() / max(n, 1)).tolist()
        half = torch.searchsorted(self.histogram.cumsum(0), (n + 1) // 2)
        out = {f"within {limit:g}": share for limit, share in zip(self.limits, shares, strict=True)}
        return out | {"mean angle": float(self.total) / max(n, 1), "median angle": int(half) * BIN}
