"""The network of detection, from torchvision's parts, its losses and how its boxes are read.

A file of its own, as torchvision takes seconds to be imported: what only reads and writes labels does without it.

Shapes: B images, A anchors, R regions, K objects of an image, M N cells of a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    expand_boxes,
    expand_masks,
    fastrcnn_loss,
    maskrcnn_loss,
    paste_mask_in_image,
    project_masks_on_boxes,
)
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign, box_iou

from polyteach.ground.geometry import area
from polyteach.ground.layers import GroupNorm, Pyramid, image_size
from polyteach.tasks.contract import weighted_mean
from polyteach.tasks.detection import FLOOR, LEVELS, DetectionTarget, masks_at

CROWDED = 0.7
"""Least share of an anchor or proposal on an ignored box that makes it no negative (Detectron's crowd threshold)."""
REGIONS = 128
"""Regions per image that the box head learns from; 512 elsewhere. Pseudo labels have few boxes, and it is the dearest
head."""


def _on_ignored(
    box: Float[Tensor, "A 4"], known: Float[Tensor, "K 4"], labels: Int64[Tensor, " K"]
) -> Bool[Tensor, " A"]:
    """Which of `box` lie mostly on one of the `known` boxes that is ignored, as its label < 0 says.

    The share is of the box's own area: what lies inside a large crowd has a small IoU with it.
    """
    ignored = known[labels < 0]
    if not len(ignored):
        return box.new_zeros(len(box), dtype=torch.bool)
    low, high = box[:, None, :2].maximum(ignored[:, :2]), box[:, None, 2:].minimum(ignored[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1).amax(1)
    return shared >= CROWDED * area(box)


class Anchors(AnchorGenerator):
    """torchvision's, but where 32 does not divide an image's sides the strides of levels 3 to 7 are 8 to 128.

    torchvision divides the image's size by the map's, which is less where the last cells reach beyond the image. Of
    sides that 32 divides it stays so: what was trained before expects it.
    """

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        if not any(side % 32 for side in image_list.tensors.shape[-2:]):
            return super().forward(image_list, feature_maps)
        grids = [list(x.shape[-2:]) for x in feature_maps]
        like = feature_maps[0]
        strides = [[torch.tensor(2 ** int(name[1:]), device=like.device)] * 2 for name in LEVELS]
        self.set_cell_anchors(like.dtype, like.device)
        each = torch.cat(self.grid_anchors(grids, strides))
        return [each for _ in image_list.image_sizes]


class Proposals(RegionProposalNetwork):
    """torchvision's, split so that `head` can be exported; anchors that lie on an ignored box are no negatives."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        learned = [{"boxes": t["boxes"][t["labels"] >= 0]} for t in targets]
        labels, matched = super().assign_targets_to_anchors(anchors, learned)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            ignored = target["boxes"][target["labels"] < 0]
            if len(ignored):
                near = box_iou(anchor, ignored).amax(1) >= 0.3  # the matcher's own bound of "background"
                near |= _on_ignored(anchor, target["boxes"], target["labels"])
                label[(label == 0) & near] = -1
        return labels, matched

    def weights(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]], labels: list[Tensor]
    ) -> Float[Tensor, " A"]:
        """What every anchor of all images counts: the score of its object; 1 where there is none."""
        out = []
        for anchor, target, label in zip(anchors, targets, labels, strict=True):
            weight = torch.ones_like(label)
            learned = target["labels"] >= 0
            if learned.any():
                match = self.proposal_matcher(self.box_similarity(target["boxes"][learned], anchor)).clamp(min=0)
                weight = target["scores"][learned][match].where(label == 1, weight)
            out.append(weight)
        return torch.cat(out)

    def weighted_loss(
        self,
        objectness: Float[Tensor, "A 1"],
        deltas: Float[Tensor, "A 4"],
        labels: list[Tensor],
        wanted: Float[Tensor, "A 4"],
        weight: Float[Tensor, " A"],
    ) -> tuple[Tensor, Tensor]:
        """`compute_loss`, with weighted means."""
        positive, negative = (torch.cat(x).bool() for x in self.fg_bg_sampler(labels))
        seen = positive | negative
        error = F.binary_cross_entropy_with_logits(objectness[seen, 0], torch.cat(labels)[seen], reduction="none")
        # background is left out of the sum: in an image without objects its wanted offset is infinite
        off = F.smooth_l1_loss(deltas[positive], wanted[positive], beta=1 / 9, reduction="none").sum(1)
        share = (off * weight[positive]).sum() / weight[seen].sum().clamp(min=1e-6)
        return weighted_mean(error, weight[seen]), share


class Regions(RoIHeads):
    """torchvision's, but proposals that lie mostly on an ignored box are no background."""

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        matched, labels = super().assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        for label, box, known, names in zip(labels, proposals, gt_boxes, gt_labels, strict=True):
            label[(label == 0) & _on_ignored(box, known, names)] = -1
        return matched, labels


def weighted_region_loss(
    logits: Float[Tensor, "R C"],
    regression: Float[Tensor, "R D"],
    classes: Int64[Tensor, " R"],
    offsets: Float[Tensor, "R 4"],
    weight: Float[Tensor, " R"],
) -> list[Tensor]:
    """torchvision's `fastrcnn_loss`, with weighted means."""
    positive = torch.where(classes > 0)[0]  # as above, background has no offset
    mine = regression.view(len(logits), -1, 4)[positive, classes[positive]]
    off = F.smooth_l1_loss(mine, offsets[positive], beta=1 / 9, reduction="none").sum(1)
    share = (off * weight[positive]).sum() / weight.sum().clamp(min=1e-6)
    return [weighted_mean(F.cross_entropy(logits, classes, reduction="none"), weight), share]


def weighted_mask_loss(
    outlines: Float[Tensor, "R C M M"],
    classes: Int64[Tensor, " R"],
    wanted: Float[Tensor, "R M M"],
    weight: Float[Tensor, " R"],
) -> Float[Tensor, ""]:
    """torchvision's `maskrcnn_loss`, with weighted means."""
    mine = outlines[torch.arange(len(outlines), device=outlines.device), classes]
    return weighted_mean(F.binary_cross_entropy_with_logits(mine, wanted, reduction="none").mean((1, 2)), weight)


@dataclass(frozen=True)
class DetectionPrediction:
    """Raw outputs of the graph, and what turns them into losses or boxes.

    objectness: per level (B, anchors, h, w) logits. deltas: per level (B, 4 anchors, h, w). size: (height, width) of
    the batch in pixels.
    """

    objectness: list[Tensor]
    deltas: list[Tensor]
    features: Pyramid
    size: tuple[int, int]
    head: "DetectionHead"

    def weighted_loss(self, targets: Sequence[DetectionTarget], weights: Sequence[float]) -> Float[Tensor, ""]:
        """Sum of objectness, proposal, class, box and mask losses, each a mean; weights: of the mask loss.

        Anchors, proposals and masks count by the score of their object. Background counts by 1: what the teacher
        thought of a place where it found nothing is not kept. (Soft Teacher, Xu et al., ICCV 2021, asks its teacher
        about the background too.)
        """
        device = self.objectness[0].device
        lower = torch.is_autocast_enabled(device.type)
        with torch.autocast(device.type, enabled=False):
            if not targets:
                return torch.stack([x.float().sum() for x in self.objectness + self.deltas]).sum() * 0
            net, regions = self.head.proposals, self.head.regions
            size = self.size if regions.has_mask() else None
            truth = [_for_torchvision(t, size, device) for t in targets]
            sure = all(bool((t["scores"][t["labels"] >= 0] == 1).all()) for t in truth)
            boxes, anchors, objectness, deltas = propose(self)
            labels, matched = net.assign_targets_to_anchors(anchors, truth)
            wanted = net.box_coder.encode(matched, anchors)
            if sure:
                parts = list(net.compute_loss(objectness, deltas, labels, wanted))
            else:
                weight = net.weights(anchors, truth, labels)
                parts = list(net.weighted_loss(objectness, deltas, labels, torch.cat(wanted), weight))
            features = {k: v.float() for k, v in self.features.items()}
            sizes = [self.size] * len(truth)
            regions.fg_bg_sampler.batch_size_per_image = sampled(self.size)
            boxes, matches, classes, offsets = regions.select_training_samples(boxes, truth)
            pooled = regions.box_roi_pool(features, boxes, sizes)
            with torch.autocast(device.type, enabled=lower):  # its convolutions cost most; losses stay in float32
                hidden = regions.box_head(pooled)
            logits, regression = regions.box_predictor(hidden.float())
            if len(logits) and sure:
                parts += fastrcnn_loss(logits, regression, classes, offsets)
            elif len(logits):
                weight = torch.cat([_counts(t, m, c) for t, m, c in zip(truth, matches, classes, strict=True)])
                parts += weighted_region_loss(logits, regression, torch.cat(classes), torch.cat(offsets), weight)
            if regions.has_mask():
                here = [
                    torch.where(c > 0)[0] if t.mask is not None else c.new_zeros(0)
                    for c, t in zip(classes, targets, strict=True)
                ]
                chosen = [b[i] for b, i in zip(boxes, here, strict=True)]
                outlines = regions.mask_predictor(regions.mask_head(regions.mask_roi_pool(features, chosen, sizes)))
                indices = [m[i] for m, i in zip(matches, here, strict=True)]
                masks, names = [t["masks"] for t in truth], [t["labels"] for t in truth]
                if sure or not len(outlines):
                    parts.append(weights[0] * maskrcnn_loss(outlines, chosen, masks, names, indices))
                else:
                    cells = outlines.shape[-1]
                    each = zip(masks, chosen, indices, strict=True)
                    true = torch.cat([project_masks_on_boxes(m, b, i, cells) for m, b, i in each])
                    shown = torch.cat([n[i] for n, i in zip(names, indices, strict=True)])
                    weight = torch.cat([t["scores"][i] for t, i in zip(truth, indices, strict=True)])
                    parts.append(weights[0] * weighted_mask_loss(outlines, shown, true, weight))
            return torch.stack(parts).sum()

    def decode(self) -> list[DetectionTarget]:
        """At most 100 boxes an image, score at least 0.05, suppressed at IoU 0.5 within a class."""
        head, device = self.head, self.objectness[0].device
        was = head.training
        head.eval()
        try:
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                boxes, _, _, _ = propose(self)
                features = {k: v.float() for k, v in self.features.items()}
                found, _ = head.regions(features, boxes, [self.size] * len(boxes))
        finally:
            head.train(was)
        return [read_boxes({k: v.cpu() for k, v in f.items()}, self.size) for f in found]


class DetectionHead(nn.Module):
    """Region proposals (2 hidden convolutions) on P3..P7, box head with 4 hidden convolutions and 1 connected layer.

    In the manner of Mask R-CNN (He et al., ICCV 2017), from torchvision's parts. Anchors have one size per level, 4
    times its stride, and 3 aspects. The connected layer has 1024 units, or 4 per channel of a narrower pyramid. The
    mask branch (4 convolutions) is there where labels have masks.
    """

    def __init__(self, channels: int, classes: int, masks: bool) -> None:
        super().__init__()
        anchors = Anchors(tuple((32 * 2**k,) for k in range(5)), ((0.5, 1.0, 2.0),) * 5)
        self.proposals = Proposals(
            anchors,
            RPNHead(channels, anchors.num_anchors_per_location()[0], conv_depth=2),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": 1000, "testing": 1000},
            nms_thresh=0.7,
        )
        width = min(1024, 4 * channels)
        branch: dict[str, Any] = {}
        if masks:
            branch = {
                "mask_roi_pool": MultiScaleRoIAlign(list(LEVELS[:4]), 14, sampling_ratio=0),
                "mask_head": MaskRCNNHeads(channels, (channels,) * 4, 1, norm_layer=GroupNorm),
                "mask_predictor": MaskRCNNPredictor(channels, channels, classes + 1),
            }
        self.regions = Regions(
            MultiScaleRoIAlign(list(LEVELS[:4]), 7, sampling_ratio=0),
            FastRCNNConvFCHead((channels, 7, 7), [channels] * 4, [width], norm_layer=GroupNorm),
            FastRCNNPredictor(width, classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=REGIONS,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=FLOOR,
            nms_thresh=0.5,
            detections_per_img=100,
            **branch,
        )

    def forward(self, pyramid: Pyramid) -> DetectionPrediction:
        features = {k: pyramid[k] for k in LEVELS}
        objectness, deltas = self.proposals.head(list(features.values()))
        return DetectionPrediction(objectness, deltas, features, image_size(pyramid, 3), self)


def sampled(size: tuple[int, int]) -> int:
    """How many regions of an image of (height, width) `size` the box head learns from: one per 16x16 pixels.

    At least 16 and at most `REGIONS`. A small image has few places that differ.
    """
    return min(max(size[0] * size[1] // 256, 16), REGIONS)


def propose(p: DetectionPrediction) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Proposals, anchors, objectness and deltas, as torchvision's forward makes them, in float32."""
    net = p.head.proposals
    shape = (len(p.objectness[0]), 1, *p.size)
    images = ImageList(p.objectness[0].new_zeros(1, 1, 1, 1).float().expand(shape), [p.size] * shape[0])
    # they take their type from the features, whose values they do not look at: in bfloat16 they would lie 2 px off
    maps = [f.new_zeros(1).float().expand(f.shape) for f in p.features.values()]
    anchors = net.anchor_generator(images, maps)
    counts = [o.shape[1] * o.shape[2] * o.shape[3] for o in p.objectness]
    objectness, deltas = concat_box_prediction_layers([o.float() for o in p.objectness], [d.float() for d in p.deltas])
    moved = net.box_coder.decode(deltas.detach(), anchors).view(shape[0], -1, 4)
    boxes, _ = net.filter_proposals(moved, objectness, images.image_sizes, counts)
    return boxes, anchors, objectness, deltas


def _for_torchvision(target: DetectionTarget, masks: tuple[int, int] | None, device: torch.device) -> dict[str, Tensor]:
    """Class 0 is background there; ignored objects get -1, which its samplers pass over.

    masks: (height, width) that a head with a mask branch wants them in; empty where the target has none, since images
    without masks are left out of the mask loss.
    """
    labels = torch.where(target.ignore, -1, target.category + 1)
    out = {"boxes": target.box.float(), "labels": labels, "scores": target.score.float()}
    if masks is not None:
        out["masks"] = masks_at(target, masks).to(torch.uint8)
    return {k: v.to(device) for k, v in out.items()}


def _counts(truth: dict[str, Tensor], match: Int64[Tensor, " R"], classes: Int64[Tensor, " R"]) -> Float[Tensor, " R"]:
    """What every region counts: the score of the object that it shows, 1 for background."""
    one = torch.ones(len(classes), device=classes.device)
    return truth["scores"][match].where(classes > 0, one) if len(truth["scores"]) else one


def read_boxes(found: dict[str, Tensor], size: tuple[int, int]) -> DetectionTarget:
    """What torchvision's heads found in one image of (height, width) `size`; class 0 is background there."""
    mask = None
    if "masks" in found:
        # as paste_masks_in_image does, which would have all of them in float32 at once, twice
        masks, scale = expand_masks(found["masks"], padding=1)
        boxes = expand_boxes(found["boxes"], scale).to(torch.int64)
        mask = torch.zeros(len(boxes), *size, dtype=torch.bool)
        for i, box in enumerate(boxes):
            mask[i] = paste_mask_in_image(masks[i, 0], box, *size) > 0.5
    return DetectionTarget(
        box=found["boxes"],
        category=found["labels"] - 1,
        score=found["scores"],
        ignore=torch.zeros(len(found["boxes"]), dtype=torch.bool),
        mask=mask,
    )
