"""The metric of segmentation: intersection over union, and pixel accuracy.

A file of its own, as torchmetrics takes seconds to be imported: labelling and training do without it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from polyteach.ground.geometry import whole
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget, size_of_map


class MeanIoU(Metric):
    """Intersection over union averaged over classes, and pixel accuracy, in percent.

    Counted over all images together, as Pascal VOC does. Pixels whose truth is IGNORE do not count; a prediction of
    IGNORE elsewhere is wrong. Classes absent from both prediction and truth do not count. 0 before any pixel is seen.
    """

    full_state_update = False
    hit: Tensor
    predicted: Tensor
    true: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        for state in ("hit", "predicted", "true"):
            self.add_state(state, torch.zeros(classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[SegmentationTarget], true: Sequence[SegmentationTarget]) -> None:
        for p, t in zip(predicted, true, strict=True):
            valid = t.category != IGNORE
            truth = t.category[valid]
            guess = whole(size_of_map(p), size_of_map(t)).dense(p.category, IGNORE)[valid]
            self.true += truth.bincount(minlength=self.classes)
            self.predicted += guess[guess != IGNORE].bincount(minlength=self.classes)
            self.hit += truth[truth == guess].bincount(minlength=self.classes)

    def by_class(self) -> dict[int, dict[str, float]]:
        """Intersection over union of the classes that either says."""
        union = self.predicted + self.true - self.hit
        share = 100 * self.hit.double() / union.clamp(min=1)
        return {i: {"IoU": float(share[i])} for i in union.nonzero()[:, 0].tolist()}

    def compute(self) -> dict[str, float]:
        union = self.predicted + self.true - self.hit
        seen = union > 0
        iou = self.hit[seen] / union[seen]
        accuracy = self.hit.sum() / self.true.sum().clamp(min=1)
        return {
            "mIoU": 100 * float(iou.mean()) if len(iou) else 0.0,
            "pixel accuracy": 100 * float(accuracy),
        }
