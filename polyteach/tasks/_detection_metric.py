"""The metric of detection: average precision by the rules of COCO and of Pascal VOC.

A file of its own, as torchmetrics takes seconds to be imported: labelling and training do without it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from faster_coco_eval.core import mask as coco_mask
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from polyteach.tasks._average_precision import Judged, Ranking, judge_coco, judge_voc, overlap
from polyteach.tasks.detection import DetectionTarget, masks_at

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""COCO's sizes of objects: least and largest area, in pixels."""


class AveragePrecision(MeanAveragePrecision):
    """COCO's AP, AP50 and AP75 of boxes, and of masks where the space has them; Pascal VOC's AP of boxes.

    In percent; NaN without any truth. VOC's by the rules of its 2007 challenge (11 recalls) and of those from 2010 on
    (area), at an overlap of one half. Ignored boxes, which are COCO's crowds and VOC's difficult objects, count neither
    way. Mask scores are of the images whose truth has masks; a prediction without masks misses them all.

    torchmetrics keeps the answers, and its masks as run-length codes; `_average_precision.py` scores them.
    """

    outlined: list[Tensor]

    def __init__(self, masks: bool) -> None:
        kinds: tuple[Any, ...] = ("bbox", "segm") if masks else ("bbox",)
        super().__init__(
            box_format="xyxy",
            iou_type=kinds,
            # in float64: torchmetrics' own are float32, which moves a recall of exactly 0.6 across its threshold
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
            backend="faster_coco_eval",
        )
        self.warn_on_many_detections = False
        self.masks = masks
        self.add_state("outlined", default=[], dist_reduce_fx=None)  # per image, as are torchmetrics' own states
        self._rankings: dict[str, Ranking] = {}

    def update(  # type: ignore[override]
        self, predicted: Sequence[DetectionTarget], true: Sequence[DetectionTarget]
    ) -> None:
        self._rankings = {}
        guesses, truths = [], []
        for p, t in zip(predicted, true, strict=True):
            guess = {"boxes": p.box, "labels": p.category, "scores": p.score}
            truth = {"boxes": t.box, "labels": t.category, "iscrowd": t.ignore.long()}
            if self.masks:
                size = (8, 8) if t.mask is None else (t.mask.shape[1], t.mask.shape[2])
                guess["masks"], truth["masks"] = masks_at(p, size), masks_at(t, size)
            outlined = t.mask is not None or not len(t.box)  # no objects: all of their outlines are known
            self.outlined.append(torch.tensor([outlined], device=t.box.device))
            guesses.append(guess)
            truths.append(truth)
        super().update(guesses, truths)

    def reset(self) -> None:
        self._rankings = {}
        super().reset()

    def compute(self) -> dict[str, float]:
        self._rankings = {}  # the states may be those of several processes now
        return self.resampled(np.ones(len(self.outlined), dtype=np.int64))

    def resampled(self, counts: Int[np.ndarray, " N"]) -> dict[str, float]:
        """The scores as if image i had been seen counts[i] times: judged once, then a curve for each call."""
        recalls = np.asarray(self.rec_thresholds)
        out = _summary("", self._ranking("bbox").coco(counts, recalls))
        if self.masks:
            known = np.array([bool(x) for x in self.outlined], dtype=bool)
            out |= _summary("mask ", self._ranking("segm").coco(counts * known, recalls))
        eleven, area = self._ranking("voc").voc(counts)
        return out | {"VOC07 AP": _percent(eleven), "VOC10 AP": _percent(area)}

    def by_class(self) -> dict[int, dict[str, float]]:
        """COCO's AP and AP50 of the boxes of each class that the truth has, and the AP of its masks."""
        every, recalls = np.ones(len(self.outlined), dtype=np.int64), np.asarray(self.rec_thresholds)
        boxes = self._ranking("bbox")
        found = boxes.coco(every, recalls)
        out = {
            int(c): {"AP": _percent(p), "AP50": _percent(p[:1])} for c, p in zip(boxes.classes, found.T, strict=True)
        }
        if self.masks:
            known = np.array([bool(x) for x in self.outlined], dtype=bool)
            masks = self._ranking("segm")
            for c, p in zip(masks.classes, masks.coco(every * known, recalls).T, strict=True):
                out[int(c)]["mask AP"] = _percent(p)
        return out

    def by_size(self) -> dict[str, dict[str, float]]:
        """COCO's AP and AP50 of small, medium and large boxes, and how many there are; by the area of the box.

        COCO itself takes the area of the outline, which not all labels have.
        """
        every, recalls = np.ones(len(self.outlined), dtype=np.int64), np.asarray(self.rec_thresholds)
        out = {}
        for name, span in SIZES.items():
            judged = [self._judged("bbox", i, span) for i in range(len(self.outlined))]
            found = Ranking(judged, len(self.iou_thresholds)).coco(every, recalls)
            objects = sum(len(j.known) for j in judged)
            out[name] = {"objects": objects, "AP": _percent(found), "AP50": _percent(found[:1])}
        return out

    def _ranking(self, kind: str) -> Ranking:
        """The answers of all images, judged by COCO's rules for "bbox" or "segm", or by those of "voc"."""
        if kind not in self._rankings:
            rules = 1 if kind == "voc" else len(self.iou_thresholds)
            self._rankings[kind] = Ranking([self._judged(kind, i) for i in range(len(self.outlined))], rules)
        return self._rankings[kind]

    def _judged(self, kind: str, i: int, span: tuple[float, float] | None = None) -> Judged:
        """Image `i`. torchmetrics keeps its boxes as x, y, width, height, and its masks as run-length codes."""
        category, true = self.detection_labels[i].cpu().numpy(), self.groundtruth_labels[i].cpu().numpy()
        score = self.detection_scores[i].double().cpu().numpy()
        ignore = self.groundtruth_crowds[i].bool().cpu().numpy()
        shared = self._overlap(kind, i, ignore & (kind != "voc"))
        if kind == "voc":
            return judge_voc(shared, category, score, true, ignore)
        area = self.detection_box[i][:, 2:].double().prod(1).cpu().numpy() if kind == "bbox" else np.ones(len(score))
        size = None if span is None else (self.groundtruth_box[i][:, 2:].double().prod(1).cpu().numpy(), *span)
        return judge_coco(shared, category, score, true, ignore, area, self.iou_thresholds, size)

    def _overlap(self, kind: str, i: int, crowd: Bool[np.ndarray, " G"]) -> Float[np.ndarray, "D G"]:
        if kind != "segm":
            return overlap(_corners(self.detection_box[i]), _corners(self.groundtruth_box[i]), crowd)
        seen, true = (
            [{"size": list(size), "counts": counts} for size, counts in masks[i]]
            for masks in (self.detection_mask, self.groundtruth_mask)
        )
        if not seen or not true:
            return np.zeros((len(seen), len(true)))
        return np.asarray(coco_mask.iou(seen, true, crowd.astype(int).tolist()), dtype=np.float64)


def _corners(box: Tensor) -> Float[np.ndarray, "K 4"]:
    """x, y, width, height -> x0, y0, x1, y1 in float64."""
    known: Float[np.ndarray, "K 4"] = box.double().cpu().numpy().reshape(-1, 4)
    return np.concatenate([known[:, :2], known[:, :2] + known[:, 2:]], 1)


def _percent(precision: Float[np.ndarray, "*any"]) -> float:
    """The mean over the classes (and thresholds) that have any truth."""
    known = precision[~np.isnan(precision)]
    return 100 * float(known.mean()) if len(known) else float("nan")


def _summary(prefix: str, precision: Float[np.ndarray, "10 C"]) -> dict[str, float]:
    """COCO's names; the thresholds are 0.5, 0.55, ... 0.95."""
    return {
        f"{prefix}AP": _percent(precision),
        f"{prefix}AP50": _percent(precision[0]),
        f"{prefix}AP75": _percent(precision[5]),
    }
