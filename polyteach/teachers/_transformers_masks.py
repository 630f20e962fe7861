"""Models of transformers that answer masks by queries: a semantic map, and things as boxes with masks."""

from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.ops import masks_to_boxes

from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.detection import FLOOR, DetectionTarget
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers._maps import resized, size_of
from polyteach.teachers._torch import by_shape
from polyteach.teachers._transformers_asking import HubTeacher
from polyteach.teachers._transformers_places import unpadded

LARGEST_MAP = 640
"""Longest side of the maps and masks of panoptic models, which hold as many floats for each of 100 queries."""


@final
class Panoptic(HubTeacher):
    """Masks by queries (Cheng et al., MaskFormer, NeurIPS 2021): a semantic map, and things as boxes with masks.

    The probability of a class at a pixel is sum over queries of p(class | query) * p(pixel in the query's mask), at
    most 1. Things are answered where they are known: of COCO, by name. A model of things alone gives no map.
    """

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision)
        countable = set(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]) - {"__background__", "N/A"}
        things = [i for i, n in enumerate(self.names) if n in countable]
        if len(things) < len(countable):  # not COCO, so that names tell nothing about what is countable
            things = []
        self.things = torch.full((len(self.names),), -1, dtype=torch.long)
        self.things[things] = torch.arange(len(things))
        self.find_padding()
        self.objectives = {}
        if len(things) < len(self.names):
            self.objectives["segmentation"] = Objective("segmentation", Space(self.names))
        if things:
            space = Space(tuple(self.names[i] for i in things), "boxes and masks")
            self.objectives["detection"] = Objective("detection", space)

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[dict[str, Target]]:
            found = self.outputs(batch)
            queries = found["class_queries_logits"] if "class_queries_logits" in found else found["logits"]
            masks = found["masks_queries_logits"] if "masks_queries_logits" in found else found["pred_masks"]
            for i, q, m, x in zip(positions, queries, masks, batch, strict=True):
                yield self._answer(q.softmax(-1)[:, :-1], unpadded(m, x), size_of(images[i]))

        return by_shape([self.inputs(i) for i in images], ask)

    def _answer(
        self, probability: Float[Tensor, "Q K"], masks: Float[Tensor, "Q m n"], size: tuple[int, int]
    ) -> dict[str, Target]:
        scale = min(LARGEST_MAP / max(size), 1)
        cells = (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
        inside = resized(masks, cells).sigmoid()
        out: dict[str, Target] = {}
        if "segmentation" in self.objectives:
            best = torch.einsum("qk,qmn->kmn", probability, inside).max(0)
            p = best.values.clamp(max=1).cpu()
            out["segmentation"] = SegmentationTarget(category=best.indices.cpu(), probability=p)
        if "detection" in self.objectives:
            out["detection"] = self._boxes(probability.cpu(), inside.cpu(), size)
        return out

    def _boxes(
        self, probability: Float[Tensor, "Q K"], inside: Float[Tensor, "Q m n"], size: tuple[int, int]
    ) -> DetectionTarget:
        """Things with the score of MaskFormer: the class's probability times the mask's mean probability within it."""
        best = probability.max(1)
        mask = inside > 0.5
        sure = (inside * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
        score, category = best.values * sure, self.things[best.indices]
        keep = (category >= 0) & (score >= FLOOR) & mask.any(2).any(1)
        box = masks_to_boxes(mask[keep]) + torch.tensor([0, 0, 1, 1])  # of the last cell, its far side
        cell = torch.tensor([size[1] / mask.shape[2], size[0] / mask.shape[1]]).repeat(2)
        return DetectionTarget(
            box=(box * cell).float(),
            category=category[keep],
            score=score[keep],
            ignore=torch.zeros(int(keep.sum()), dtype=torch.bool),
            mask=mask[keep],
        )
