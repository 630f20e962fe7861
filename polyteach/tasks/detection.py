"""Detection: which objects there are, where, and, where labels have them, their outlines.

Shapes: B images, K objects of an image, M N cells of a mask, H W image pixels.
"""

import math
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from polyteach._moved import relocated
from polyteach.ground.geometry import View, area, whole
from polyteach.ground.scene import Render
from polyteach.tasks._agreement import Counting
from polyteach.tasks._average_precision import Judged, confused, judge_coco, overlap
from polyteach.tasks.contract import (
    Calibration,
    Comparison,
    Evidence,
    Metric,
    Policy,
    Review,
    Space,
    Target,
    Task,
    check_map,
    column,
    least_score,
    tempered,
    two_way,
    within,
)

BOXES, MASKS = "boxes", "boxes and masks"
LEVELS = ("p3", "p4", "p5", "p6", "p7")
FLOOR = 0.05
"""Least score of a box that is kept, as in torchvision's detectors; the one that matters is chosen when training."""
KEPT = 0.1
"""Least share of a box's area that must stay in a view for the box to stay: less is too little to tell what it is.

As in YOLOv5's augmentation (`box_candidates`, area_thr).
"""
LEAST = 1e-6
"""What a score of 0, and 1 less which a score of 1, is taken for where its odds are calibrated."""
SAME = 0.5
"""Least IoU of two boxes of one class, by several teachers, that are taken for one object; as within an answer."""
FUSED = 0.55
"""IoU above which boxes of several teachers are fused, as in weighted boxes fusion's reference code."""
OVERHANG = 2.0, 0.01
"""How far a box that a person drew may reach beyond the image and is clipped: so many pixels, or that share of the
side where it is more. The first is for files that count from 0 or 1, and for rounding; the second for a hand that let
go late. What reaches farther was drawn on another image, or is not what the field is for."""
ROUNDING = 0.01
"""Pixels by which a box may reach beyond the image without that being told: COCO keeps two decimals."""
MOST_OBJECTS = 2**14
"""Objects of one image, at most: learning compares each with all anchors."""


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


def masks_at(target: DetectionTarget, size: tuple[int, int]) -> Bool[Tensor, "K M N"]:
    """The outlines of the boxes as maps of (height, width) `size`; empty ones where the target has none."""
    if target.mask is None:
        return torch.zeros(len(target.box), *size, dtype=torch.bool)
    return whole((target.mask.shape[1], target.mask.shape[2]), size).outlines(target.mask)


def _judged(predicted: DetectionTarget, true: DetectionTarget) -> Judged:
    """By COCO's rules at an overlap of one half."""
    box, known, crowd = predicted.box.double().numpy(), true.box.double().numpy(), true.ignore.numpy()
    return judge_coco(
        overlap(box, known, crowd),
        predicted.category.numpy(),
        predicted.score.double().numpy(),
        true.category.numpy(),
        crowd,
        area(predicted.box).double().numpy(),
        [0.5],
    )


class _Found(Counting):
    """Pseudo boxes matched with people's by COCO's rules at an overlap of one half; crowds count neither way."""

    def count(
        self, predicted: DetectionTarget, true: DetectionTarget
    ) -> tuple[Int64[Tensor, " A"], Int64[Tensor, " B"], Int64[Tensor, " C"]]:
        judged = _judged(predicted, true)
        said, right = judged.category[judged.counted[0]], judged.category[judged.hit[0]]
        return torch.from_numpy(judged.known), torch.from_numpy(said), torch.from_numpy(right)

    def note(self) -> str:
        missed, there = int((self.true - self.right).sum()), int(self.true.sum())
        if not missed:
            return ""
        return f"{missed:,} of the {there:,} objects have no pseudo box: a training would take them for background"


@final
class Detection(Task[DetectionTarget]):
    """Hard boxes above a score, as in MuST; human boxes as they are."""

    name = "detection"
    reads = ("p3", "p4", "p5", "p6", "p7")
    of_boxes = True
    kinds = (BOXES, MASKS)
    target = DetectionTarget
    confidence = "score"
    combines = frozenset({"best", "union", "fuse"})
    by_score = True
    calibrates = ("temperature", "shift")
    compares_some = True
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
        """No box is dropped: one that has no area, lies outside or reaches far beyond the image is an error.

        A box that reaches at most `OVERHANG` beyond the image is clipped, and counted. So is an outline that lies
        mostly outside of its box; one that does not touch it is an error.
        """
        self.validate(target, size, space)
        names = where or [f"box {i}: {box}" for i, box in enumerate(target.box.tolist())]
        notes: Counter[str] = Counter()
        boxes = target.box.tolist()
        for name, box in zip(names, boxes, strict=True):
            notes["reached a little beyond the image and were clipped"] += _beyond(name, box, size) > ROUNDING
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
        seen = replace(target, box=box)
        seen = seen if bool(keep.all()) else rows(seen, keep)
        return seen if seen.mask is None else replace(seen, mask=view.outlines(seen.mask))

    def pseudo(self, target: DetectionTarget, policy: Policy) -> DetectionTarget:
        kept = rows(target, target.score >= least_score(policy, target.category))
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
        both = _together(targets)
        from torchvision.ops import batched_nms  # torchvision takes seconds

        # in float64, as the offsets that part the classes are large where there are many
        kept = batched_nms(both.box.double(), both.score.double(), both.category, SAME)
        return rows(both, kept)

    def fused(self, targets: Sequence[DetectionTarget], space: Space) -> DetectionTarget:
        """Weighted boxes fusion (Solovyev et al., 2021): boxes of a class that overlap become their mean by score.

        The score is their mean, times the share of the teachers that found the object. Outlines are the mean by score
        too, if all answers with boxes have them. What all that found it ignore is ignored.
        """
        both = _together(targets)
        if not len(both.box):
            return targets[0]
        box, category, score, mask = both.box, both.category, both.score, both.mask
        clusters = _clusters(box.double(), category, score)
        out = []
        for members in clusters:
            weight = score[members] / score[members].sum().clamp(min=1e-12)
            share = min(len(members), len(targets)) / len(targets)
            out.append((weight @ box[members], category[members[0]], score[members].mean() * share))
        outlines = None if mask is None else torch.stack([_outline(mask[m], score[m]) for m in clusters])
        return DetectionTarget(
            box=torch.stack([b for b, _, _ in out]),
            category=torch.stack([c for _, c, _ in out]),
            score=torch.stack([s for _, _, s in out]).float(),
            ignore=torch.stack([both.ignore[m].all() for m in clusters]),
            mask=outlines,
        )

    def nothing(self, target: DetectionTarget, space: Space) -> str:
        if not len(target.box):
            return "no object"
        return "nothing but crowds and other ignored objects" if bool(target.ignore.all()) else ""

    def scored(self, target: DetectionTarget) -> tuple[Int64[Tensor, " N"], Float[Tensor, " N"]]:
        return target.category, target.score

    def evidence(self, target: DetectionTarget, true: DetectionTarget, classes: int) -> Evidence:
        """The boxes' scores, and whether each finds an object (`_Found`): people's labels have to be complete."""
        judged = _judged(target, true)
        known = judged.counted[0] & (judged.category < classes)
        return two_way(torch.from_numpy(judged.score[known]), torch.from_numpy(judged.hit[0][known]), LEAST)

    def calibrated(self, target: DetectionTarget, calibration: Calibration) -> DetectionTarget:
        return replace(target, score=tempered(target.score, calibration, LEAST))

    def limited(self, target: DetectionTarget, classes: int, true: bool) -> DetectionTarget:
        return rows(target, target.category < classes)

    def confusion(
        self, target: DetectionTarget, true: DetectionTarget, classes: int, policy: Policy
    ) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Objects that are matched at an overlap of one half, those of one class first; see `confused`."""
        said = rows(target, target.score >= policy.score)
        crowd, box, known = true.ignore.numpy(), said.box.double().numpy(), true.box.double().numpy()
        shared = overlap(box, known, crowd)
        pairs = confused(shared, said.category.numpy(), said.score.double().numpy(), true.category.numpy(), crowd)
        right, guess = (torch.from_numpy(np.where(x < 0, classes, x)) for x in pairs)
        return right, guess

    def mistakes(
        self, target: DetectionTarget, true: DetectionTarget, space: Space, policy: Policy
    ) -> tuple[float, str]:
        """Objects that are missed, and answers that are no object's; an object of another class is both."""
        none = len(space.names)
        right, said = self.confusion(target, true, none, policy)
        missed, false = int((said == none).sum()), int((right == none).sum())
        other = int(((right != said) & (right != none) & (said != none)).sum())
        words = [f"{missed} missed"] * bool(missed) + [f"{false} false"] * bool(false)
        words += [f"{other} of another class"] * bool(other)
        return float(missed + false + 2 * other), ", ".join(words)

    def comparison(self, space: Space) -> Comparison:
        return _Found(len(space.names))

    def head(self, widths: dict[str, int], space: Space) -> nn.Module:
        from polyteach.tasks._detection_head import DetectionHead  # torchvision takes seconds

        return DetectionHead(widths["p3"], len(space.names), _has_masks(space))

    def loss(self, prediction: Any, targets: Sequence[DetectionTarget]) -> Float[Tensor, ""]:
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
        self, prediction: Any, targets: Sequence[DetectionTarget], weights: Sequence[float]
    ) -> Float[Tensor, ""]:
        """`loss`; weights: of the mask loss."""
        loss: Tensor = prediction.weighted_loss(targets, weights)
        return loss

    def decode(self, prediction: Any) -> list[DetectionTarget]:
        """At most 100 boxes an image, score at least 0.05, suppressed at IoU 0.5 within a class."""
        targets: list[DetectionTarget] = prediction.decode()
        return targets

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
        from polyteach.tasks._detection_drawing import draw_boxes  # torchvision takes seconds

        return draw_boxes(image, target, space)

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
    """By how many pixels a person's box reaches beyond the image of (height, width) `size`; 0 where it lies inside.

    Raises:
        ValueError: the box has no area, lies outside, or reaches farther than `OVERHANG` allows.
    """
    height, width = size
    x0, y0, x1, y1 = box
    image = f"the image of {height} x {width} (height x width)"
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"{name} has no area: it ends where it begins, or before")
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        raise ValueError(f"{name} lies outside of {image}")
    pixels, share = OVERHANG
    for low, high, side in ((x0, x1, width), (y0, y1, height)):
        allowed = max(pixels, share * side)
        if low < -allowed or high > side + allowed:
            raise ValueError(
                f"{name} reaches from {low:g} to {high:g}, far beyond {image}; {allowed:g} pixels are clipped, more "
                "means that it was drawn on another image or is written in another form"
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


def _together(targets: Sequence[DetectionTarget]) -> DetectionTarget:
    """The objects of all answers, with outlines if all answers with boxes have them."""
    some = [t for t in targets if len(t.box)] or list(targets[:1])
    sizes = [(t.mask.shape[1], t.mask.shape[2]) for t in some if t.mask is not None]
    size = max(sizes, key=lambda s: s[0] * s[1]) if len(sizes) == len(some) else None
    return DetectionTarget(
        **{k: torch.cat([getattr(t, k) for t in some]) for k in ("box", "category", "score", "ignore")},
        mask=None if size is None else torch.cat([masks_at(t, size) for t in some]),
    )


def _clusters(box: Float[Tensor, "K 4"], category: Int64[Tensor, " K"], score: Float[Tensor, " K"]) -> list[list[int]]:
    """Positions of boxes that are taken for one object each, the best of all first.

    From the best down, a box joins the object of its class whose mean box it overlaps most, by more than `FUSED`.
    """
    from torchvision.ops import box_iou  # torchvision takes seconds

    members: list[list[int]] = []
    means: list[Tensor] = []
    for i in score.argsort(descending=True, stable=True).tolist():
        mine = [j for j, m in enumerate(members) if category[m[0]] == category[i]]
        near = box_iou(box[i : i + 1], torch.stack([means[j] for j in mine]))[0] if mine else box.new_zeros(1)
        if float(near.max()) > FUSED:
            at = mine[int(near.argmax())]
            members[at].append(i)
        else:
            at = len(members)
            members.append([i])
            means.append(box[i])
        weight = score[members[at]].double()
        means[at] = (weight[:, None] * box[members[at]]).sum(0) / weight.sum().clamp(min=1e-12)
    return members


def _outline(masks: Bool[Tensor, "K M N"], score: Float[Tensor, " K"]) -> Bool[Tensor, "M N"]:
    """The cells that are in the outlines of at least half of the scores."""
    share = (masks * score[:, None, None]).sum(0) / score.sum().clamp(min=1e-12)
    return share >= 0.5


def _extent(mask: Bool[Tensor, "M N"]) -> list[int]:
    ys, xs = torch.where(mask)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


__getattr__ = relocated(__name__)
TASK = Detection()
