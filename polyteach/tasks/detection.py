"""Detection: which objects there are, where, and, where labels have them, their outlines.

Shapes: B images, K objects of an image, M N cells of a mask, H W image pixels.
"""

import math
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import ImageDraw, ImageFont
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    fastrcnn_loss,
    maskrcnn_loss,
    paste_masks_in_image,
    project_masks_on_boxes,
)
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign, batched_nms, box_iou
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_segmentation_masks

from polyteach._moved import relocated
from polyteach.ground.geometry import View, area, whole
from polyteach.ground.images import caption, palette
from polyteach.ground.layers import GroupNorm, Pyramid
from polyteach.ground.scene import Render
from polyteach.tasks.contract import (
    Metric,
    Policy,
    Review,
    Space,
    Target,
    Task,
    check_map,
    column,
    weighted_mean,
    within,
)

BOXES, MASKS = "boxes", "boxes and masks"
LEVELS = ("p3", "p4", "p5", "p6", "p7")
FLOOR = 0.05
"""Least score of a box that is kept, as in torchvision's detectors; the one that matters is chosen when training."""
DRAWN = 0.3
"""Least score of a box that is drawn."""
KEPT = 0.1
"""Least share of a box's area that must stay in a view for the box to stay: less is too little to tell what it is.

As in YOLOv5's augmentation (`box_candidates`, area_thr).
"""
SAME = 0.5
"""Least IoU of two boxes of one class, by several teachers, that are taken for one object; as within an answer."""
CROWDED = 0.7
"""Least share of an anchor or proposal on an ignored box that makes it no negative (Detectron's crowd threshold)."""
OVERHANG = 2.0, 0.01
"""How far a box that a person drew may reach beyond the picture and is clipped: so many pixels, or that share of the
side where it is more. The first is for files that count from 0 or 1, and for rounding; the second for a hand that let
go late. What reaches farther was drawn on another picture, or is not what the field is for."""
ROUNDING = 0.01
"""Pixels by which a box may reach beyond the picture without that being told: COCO keeps two decimals."""
MOST_OBJECTS = 2**14
"""Objects of one image, at most: learning compares each with all anchors."""
REGIONS = 128
"""Regions per image that the box head learns from; 512 elsewhere. Pseudo labels have few boxes, and it is the dearest
head."""


@final
@dataclass(frozen=True)
class DetectionTarget(Target):
    """box: x0, y0, x1, y1 in pixels. score: 0..1, 1 for people. ignore: crowd or difficult, not learned, not counted.

    What an object counts in the loss is its score.
    mask: None where outlines are not known. No rows: labelled, and there is nothing (absent is another thing).
    """

    box: Float[Tensor, "K 4"] = column("rows", "float32", width=4, unit="pixels")
    category: Int64[Tensor, " K"] = column("vector", "uint16")
    score: Float[Tensor, " K"] = column("vector", "float32")
    ignore: Bool[Tensor, " K"] = column("vector", "bool")
    mask: Bool[Tensor, "K M N"] | None = column("masks", "bool", default=None)


def rows(target: DetectionTarget, keep: Bool[Tensor, " K"] | Int64[Tensor, " J"]) -> DetectionTarget:
    """The target with only the objects that `keep` marks or lists."""
    mask = None if target.mask is None else target.mask[keep]
    return DetectionTarget(
        box=target.box[keep],
        category=target.category[keep],
        score=target.score[keep],
        ignore=target.ignore[keep],
        mask=mask,
    )


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


class DetectionHead(nn.Module):
    """Region proposals (2 hidden convolutions) on P3..P7, box head with 4 hidden convolutions and 1 connected layer.

    In the manner of Mask R-CNN (He et al., ICCV 2017), from torchvision's parts. Anchors have one size per level, 4
    times its stride, and 3 aspects. The connected layer has 1024 units, or 4 per channel of a narrower pyramid. The
    mask branch (4 convolutions) is there where labels have masks.
    """

    def __init__(self, channels: int, classes: int, masks: bool) -> None:
        super().__init__()
        anchors = AnchorGenerator(tuple((32 * 2**k,) for k in range(5)), ((0.5, 1.0, 2.0),) * 5)
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
        height, width = (8 * int(s) for s in pyramid["p3"].shape[-2:])
        return DetectionPrediction(objectness, deltas, features, (height, width), self)


def sampled(size: tuple[int, int]) -> int:
    """How many regions of an image of (height, width) `size` the box head learns from: one per 16x16 pixels.

    At least 16 and at most `REGIONS`. A small picture has few places that differ.
    """
    return min(max(size[0] * size[1] // 256, 16), REGIONS)


def _propose(p: DetectionPrediction) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
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


def masks_at(target: DetectionTarget, size: tuple[int, int]) -> Bool[Tensor, "K M N"]:
    """The outlines of the boxes as maps of (height, width) `size`; empty ones where the target has none."""
    if target.mask is None:
        return torch.zeros(len(target.box), *size, dtype=torch.bool)
    return whole((target.mask.shape[1], target.mask.shape[2]), size).dense(target.mask)


@final
class Detection(Task[DetectionTarget]):
    """Hard boxes above a score, as in MuST; human boxes as they are."""

    name = "detection"
    reads = ("p3", "p4", "p5", "p6", "p7")
    kinds = (BOXES, MASKS)
    target = DetectionTarget
    confidence = "score"
    combines = frozenset({"best", "union"})
    most_classes = 2**16

    def joint_kind(self, kinds: Set[str]) -> str | None:
        """Boxes with and without outlines are one thing: images without them miss the loss of the outlines alone."""
        return MASKS if len(kinds) > 1 and kinds <= set(self.kinds) else super().joint_kind(kinds)

    def classes(self, target: DetectionTarget) -> list[int]:
        """Of the objects that are learned."""
        return sorted(set(target.category[~target.ignore].tolist()))

    def check(self, target: DetectionTarget, size: tuple[int, int], space: Space) -> DetectionTarget:
        self.validate(target, size, space)
        inside = replace(target, box=whole(size).boxes(target.box))
        ordered = (inside.box[:, 2] > inside.box[:, 0]) & (inside.box[:, 3] > inside.box[:, 1])
        return inside if bool(ordered.all()) else rows(inside, ordered)

    def review(
        self, target: DetectionTarget, size: tuple[int, int], space: Space, where: Sequence[str] = ()
    ) -> Review[DetectionTarget]:
        """No box is dropped: one that has no area, lies outside or reaches far beyond the picture is an error.

        A box that reaches at most `OVERHANG` beyond the picture is clipped, and counted. So is an outline that lies
        mostly outside of its box; one that does not touch it is an error.
        """
        self.validate(target, size, space)
        names = where or [f"box {i}: {box}" for i, box in enumerate(target.box.tolist())]
        notes: Counter[str] = Counter()
        boxes = target.box.tolist()
        for name, box in zip(names, boxes, strict=True):
            notes["reached a little beyond the picture and were clipped"] += _beyond(name, box, size) > ROUNDING
            small = min(box[2] - box[0], box[3] - box[1]) < 1
            notes["are under a pixel high or wide: too small to be learned"] += small
        masks = [] if target.mask is None else [*target.mask]
        for name, box, mask in zip(names, boxes, masks, strict=False):
            share = _shared(mask, box, size)
            if not share:
                raise ValueError(f"{name} and its outline have nothing in common: they are of different places")
            notes["have outlines that lie mostly outside of their boxes"] += share < 0.5
        return Review(replace(target, box=whole(size).boxes(target.box)), len(target.box), +notes)

    def validate(self, target: DetectionTarget, size: tuple[int, int], space: Space) -> None:
        n = len(target.box)
        if target.box.dim() != 2 or target.box.shape[1] != 4:
            raise ValueError(f"box has shape {tuple(target.box.shape)}, not (K, 4)")
        if n > MOST_OBJECTS:
            raise ValueError(f"box has {n:,} rows; an image may have at most {MOST_OBJECTS:,} objects")
        for name in ("category", "score", "ignore", "mask"):
            field = getattr(target, name)
            if field is not None and len(field) != n:
                raise ValueError(f"{name} has {len(field)} rows for {n} boxes")
        if not target.box.isfinite().all():
            raise ValueError(f"box is not finite: {target.box[~target.box.isfinite().all(1)][0].tolist()}")
        if not within(target.score, 0, 1):
            raise ValueError(f"score must be 0..1; got {target.score.tolist()[:5]}")
        if not within(target.category, 0, len(space.names) - 1):
            raise ValueError(
                f"category {int(target.category.max())} (or {int(target.category.min())}) is not one of the space's "
                f"{len(space.names)} classes"
            )
        if n and target.mask is not None:
            check_map("mask", target.mask, size, channels=n)

    def view(self, target: DetectionTarget, view: View) -> DetectionTarget:
        """Boxes are clipped; those that keep less than a tenth of their area, or less than a pixel a side, go."""
        box = view.boxes(target.box)
        grown = view.size[0] / view.height * view.size[1] / view.width
        sides = torch.minimum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1])
        keep = (area(box) >= KEPT * grown * area(target.box)) & (sides >= 1)
        mask = None if target.mask is None else view.dense(target.mask, False)
        return rows(replace(target, box=box, mask=mask), keep)

    def pseudo(self, target: DetectionTarget, policy: Policy) -> DetectionTarget:
        kept = rows(target, target.score >= policy.score)
        return kept if policy.confidence else replace(kept, score=torch.ones_like(kept.score))

    def mapped(self, target: DetectionTarget, index: Int64[Tensor, " K"], classes: int) -> DetectionTarget:
        return replace(target, category=index[target.category])

    def sureness(self, target: DetectionTarget, policy: Policy) -> float:
        """The sum of the scores from the threshold up: how many objects the teacher expects to have found."""
        return float(target.score[target.score >= policy.score].sum())

    def united(self, targets: Sequence[DetectionTarget]) -> DetectionTarget:
        """All boxes, less those that a better one of their class overlaps by SAME.

        Outlines stay if all answers with boxes have them.
        """
        some = [t for t in targets if len(t.box)] or list(targets[:1])
        sizes = [(t.mask.shape[1], t.mask.shape[2]) for t in some if t.mask is not None]
        size = max(sizes, key=lambda s: s[0] * s[1]) if len(sizes) == len(some) else None
        both = DetectionTarget(
            **{k: torch.cat([getattr(t, k) for t in some]) for k in ("box", "category", "score", "ignore")},
            mask=None if size is None else torch.cat([masks_at(t, size) for t in some]),
        )
        # in float64, as the offsets that part the classes are large where there are many
        kept = batched_nms(both.box.double(), both.score.double(), both.category, SAME)
        return rows(both, kept)

    def nothing(self, target: DetectionTarget, space: Space) -> str:
        if not len(target.box):
            return "no object"
        return "nothing but crowds and other ignored objects" if bool(target.ignore.all()) else ""

    def head(self, widths: dict[str, int], space: Space) -> nn.Module:
        return DetectionHead(widths["p3"], len(space.names), _has_masks(space))

    def loss(self, prediction: DetectionPrediction, targets: Sequence[DetectionTarget]) -> Float[Tensor, ""]:
        """Sum of objectness, proposal, class, box and mask losses, each a mean. Images without masks miss the last."""
        return self.weighted_loss(prediction, targets, (1.0,))

    def amounts(self, targets: Sequence[DetectionTarget], space: Space) -> tuple[float, ...]:
        """Images, of which each has as many anchors and regions that are learned from, and those with outlines.

        Which regions show an object, of whose number the mask loss is the mean, nobody knows before the network has
        proposed them; images that have outlines to learn stand for them.
        """
        outlined = sum(t.mask is not None and not bool(t.ignore.all()) for t in targets)
        return (float(len(targets)), float(outlined))

    def weighted_loss(
        self, prediction: DetectionPrediction, targets: Sequence[DetectionTarget], weights: Sequence[float]
    ) -> Float[Tensor, ""]:
        """`loss`; weights: of the mask loss.

        Anchors, proposals and masks count by the score of their object. Background counts by 1: what the teacher
        thought of a place where it found nothing is not kept. (Soft Teacher, Xu et al., ICCV 2021, asks its teacher
        about the background too.)
        """
        device = prediction.objectness[0].device
        lower = torch.is_autocast_enabled(device.type)
        with torch.autocast(device.type, enabled=False):
            if not targets:
                return torch.stack([x.float().sum() for x in prediction.objectness + prediction.deltas]).sum() * 0
            net, regions = prediction.head.proposals, prediction.head.regions
            size = prediction.size if regions.has_mask() else None
            truth = [_for_torchvision(t, size, device) for t in targets]
            sure = all(bool((t["scores"][t["labels"] >= 0] == 1).all()) for t in truth)
            boxes, anchors, objectness, deltas = _propose(prediction)
            labels, matched = net.assign_targets_to_anchors(anchors, truth)
            wanted = net.box_coder.encode(matched, anchors)
            if sure:
                parts = list(net.compute_loss(objectness, deltas, labels, wanted))
            else:
                weight = net.weights(anchors, truth, labels)
                parts = list(net.weighted_loss(objectness, deltas, labels, torch.cat(wanted), weight))
            features = {k: v.float() for k, v in prediction.features.items()}
            sizes = [prediction.size] * len(truth)
            regions.fg_bg_sampler.batch_size_per_image = sampled(prediction.size)
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

    def decode(self, prediction: DetectionPrediction) -> list[DetectionTarget]:
        """At most 100 boxes an image, score at least 0.05, suppressed at IoU 0.5 within a class."""
        head, device = prediction.head, prediction.objectness[0].device
        was = head.training
        head.eval()
        try:
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                boxes, _, _, _ = _propose(prediction)
                features = {k: v.float() for k, v in prediction.features.items()}
                found, _ = head.regions(features, boxes, [prediction.size] * len(boxes))
        finally:
            head.train(was)
        return [_target({k: v.cpu() for k, v in f.items()}, prediction.size) for f in found]

    def metric(self, space: Space) -> Metric:
        from polyteach.tasks._detection_metric import AveragePrecision  # torchmetrics takes seconds

        return AveragePrecision(_has_masks(space))

    def statistics(self, target: DetectionTarget, policy: Policy) -> dict[str, float]:
        good = int((target.score >= policy.score).sum())
        return {
            f"boxes >= {policy.score:g}": float(good),
            "images without any": float(good == 0),
            f"boxes below {policy.score:g}": float(len(target.box) - good),
        }

    def draw(self, image: UInt8[Tensor, "3 H W"], target: DetectionTarget, space: Space) -> UInt8[Tensor, "3 H W"]:
        """Boxes and outlines with a score of at least 0.3, the best on top, each with its class and score."""
        shown = rows(target, target.score >= DRAWN)
        shown = rows(shown, shown.score.argsort())
        if not len(shown.box):
            return caption(image, [f"no object of {DRAWN:.0%} or more"])
        colours = palette(len(space.names))[shown.category]
        height, width = image.shape[1], image.shape[2]
        if shown.mask is not None and len(shown.mask):
            masks = masks_at(shown, (height, width))
            image = draw_segmentation_masks(image, masks, alpha=0.45, colors=[tuple(c) for c in colours.tolist()])
        picture = to_pil_image(image)
        pen = ImageDraw.Draw(picture)
        font = ImageFont.load_default(max(10, min(height, width) // 18))
        thick = max(1, min(height, width) // 150)
        for box, category, score, colour in zip(
            shown.box.tolist(), shown.category.tolist(), shown.score.tolist(), colours.tolist(), strict=True
        ):
            pen.rectangle(tuple(box), outline=tuple(colour), width=thick)
            text = f"{space.names[category]} {score:.0%}"
            _, _, right, bottom = pen.textbbox((0, 0), text, font=font)
            # moved in from the right and bottom edges, so that all of it shows where it fits at all
            corner = max(min(box[0] + 2, width - right - 3), 2), max(min(box[1], height - bottom - 2), 0)
            left, top, right, bottom = pen.textbbox(corner, text, font=font)
            pen.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=tuple(colour))
            bright = sum(colour) > 380
            pen.text(corner, text, font=font, fill=(0, 0, 0) if bright else (255, 255, 255))
        return pil_to_tensor(picture)

    def describe(self, target: DetectionTarget, space: Space, policy: Policy) -> tuple[str, dict[str, Any]]:
        """Objects of the policy's score and above, the best first; boxes are x0, y0, x1, y1 in pixels."""
        shown = rows(target, target.score >= policy.score)
        shown = rows(shown, shown.score.argsort(descending=True))
        found = [
            {"class": space.names[c], "score": round(s, 4), "box_xyxy": [round(x, 2) for x in box]}
            for c, s, box in zip(shown.category.tolist(), shown.score.tolist(), shown.box.tolist(), strict=True)
        ]
        said = [f"{o['class']} {o['score']:.0%} at {' '.join(f'{x:.0f}' for x in o['box_xyxy'])}" for o in found]
        return "; ".join(said) or f"no object of {policy.score:.0%} or more", {"objects": found}

    def truth(self, render: Render, space: Space) -> DetectionTarget:
        """The visible pixels of every object that shows at least one."""
        masks = render.instance == torch.arange(len(render.category))[:, None, None]
        seen = masks.flatten(1).any(1)
        boxes = [_extent(m) for m in masks[seen]]
        return DetectionTarget(
            box=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
            category=render.category[seen],
            score=torch.ones(int(seen.sum())),
            ignore=torch.zeros(int(seen.sum()), dtype=torch.bool),
            mask=masks[seen] if _has_masks(space) else None,
        )


def _beyond(name: str, box: list[float], size: tuple[int, int]) -> float:
    """By how many pixels a person's box reaches beyond the picture of (height, width) `size`; 0 where it lies inside.

    Raises:
        ValueError: the box has no area, lies outside, or reaches farther than `OVERHANG` allows.
    """
    height, width = size
    x0, y0, x1, y1 = box
    picture = f"the picture of {height} x {width} (height x width)"
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"{name} has no area: it ends where it begins, or before")
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        raise ValueError(f"{name} lies outside of {picture}")
    pixels, share = OVERHANG
    for low, high, side in ((x0, x1, width), (y0, y1, height)):
        allowed = max(pixels, share * side)
        if low < -allowed or high > side + allowed:
            raise ValueError(
                f"{name} reaches from {low:g} to {high:g}, far beyond {picture}; {allowed:g} pixels are clipped, more "
                "means that it was drawn on another picture or is written in another form"
            )
    return max(-x0, -y0, x1 - width, y1 - height, 0.0)


def _shared(mask: Bool[Tensor, "M N"], box: list[float], size: tuple[int, int]) -> float:
    """The share of an outline's pixels, 0..1, that lie in its box, to within one cell of the map; 0 without any."""
    (m, n), (height, width) = mask.shape, size
    left, right = max(math.floor(box[0] * n / width) - 1, 0), math.ceil(box[2] * n / width) + 1
    top, bottom = max(math.floor(box[1] * m / height) - 1, 0), math.ceil(box[3] * m / height) + 1
    return int(mask[top:bottom, left:right].sum()) / max(int(mask.sum()), 1)


def _has_masks(space: Space) -> bool:
    if space.kind not in Detection.kinds:
        raise ValueError(f"detection of kind {space.kind!r}; the space's kind is one of {', '.join(Detection.kinds)}")
    return space.kind == MASKS


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


def _target(found: dict[str, Tensor], size: tuple[int, int]) -> DetectionTarget:
    mask = None
    if "masks" in found:
        mask = paste_masks_in_image(found["masks"], found["boxes"], size)[:, 0] > 0.5
    return DetectionTarget(
        box=found["boxes"],
        category=found["labels"] - 1,
        score=found["scores"],
        ignore=torch.zeros(len(found["boxes"]), dtype=torch.bool),
        mask=mask,
    )


def _extent(mask: Bool[Tensor, "M N"]) -> list[int]:
    ys, xs = torch.where(mask)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


__getattr__ = relocated(__name__)
TASK = Detection()
