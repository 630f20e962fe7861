"""Semantic segmentation: which class every pixel shows.

Shapes: B images, K classes, H W pixels of the batch or image, M N cells of a map over the whole image.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from polyteach._moved import relocated
from polyteach.ground.geometry import View, whole
from polyteach.ground.images import caption, palette
from polyteach.ground.layers import PixelHead
from polyteach.ground.names import plain
from polyteach.ground.scene import WALL, Render
from polyteach.tasks._agreement import Counting
from polyteach.tasks.contract import (
    Calibration,
    Comparison,
    Evidence,
    Metric,
    Policy,
    Space,
    Target,
    Task,
    at_one_size,
    check_map,
    column,
    least_score,
    tempered,
    two_way,
    weighted_mean,
    within,
)

IGNORE = 65535
"""Category of a pixel that is neither learned nor counted."""
STEP = 1 / 510
"""Half a step of the probabilities that the store keeps."""
JUDGED = 1024
"""Pixels of an image that are judged for its calibration: more of one image say the same again."""
NOTHING = frozenset(("background", "bg", "void", "unlabeled", "unlabelled", "unknown", "ignore", "none", "nothing"))
"""Names, as `plain` leaves them, of classes that say that nothing is there."""


@final
@dataclass(frozen=True)
class SegmentationTarget(Target):
    """Class index per pixel, or IGNORE; and how probable it is, 0..1 (1 for people's labels), by which it counts."""

    category: Int64[Tensor, "M N"] = column("map", "uint16", unit="class index, 65535 = ignore")
    probability: Float[Tensor, "M N"] = column("map", "uint8", scale=1 / 255)


class _Pixels(Counting):
    """Pixels of the truth's map that people know; of them those that the pseudo label keeps, and those that are right.

    Intersection over union as the metric has it: an ignored pixel is missed.
    """

    things = "pixels"

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.known = self.kept = 0

    def count(
        self, predicted: SegmentationTarget, true: SegmentationTarget
    ) -> tuple[Int64[Tensor, " A"], Int64[Tensor, " B"], Int64[Tensor, " C"]]:
        valid = true.category < self.classes  # neither IGNORE nor a class that the labels do not have
        truth = true.category[valid]
        guess = whole(size_of_map(predicted), size_of_map(true)).dense(predicted.category, IGNORE)[valid]
        self.known += len(truth)
        self.kept += int((guess != IGNORE).sum())
        return truth, guess, truth[truth == guess]

    def overall(self) -> dict[str, float]:
        union = self.true + self.said - self.right
        iou = (self.right[union > 0] / union[union > 0]).mean() if bool(union.any()) else torch.tensor(math.nan)
        right = int(self.right.sum()) / self.kept if self.kept else math.nan
        kept = self.kept / self.known if self.known else math.nan
        return {"mIoU": 100 * float(iou), "pixels kept": 100 * kept, "of them right": 100 * right}


@final
class Segmentation(Task[SegmentationTarget]):
    """Per-pixel cross-entropy; a teacher's pixel below the score threshold is ignored (MuST, METHOD)."""

    name = "segmentation"
    target = SegmentationTarget
    confidence = "probability"
    combines = frozenset({"best", "union", "fuse"})
    by_score = True
    calibrates = ("temperature",)
    compares_some = True
    most_classes = IGNORE

    def classes(self, target: SegmentationTarget) -> list[int]:
        return [int(c) for c in target.category.unique() if c != IGNORE]

    def check(self, target: SegmentationTarget, size: tuple[int, int], space: Space) -> SegmentationTarget:
        self.validate(target, size, space)
        p = target.probability.masked_fill(target.category == IGNORE, 0)
        return SegmentationTarget(category=target.category.long(), probability=p.float().clamp(0, 1))

    def validate(self, target: SegmentationTarget, size: tuple[int, int], space: Space) -> None:
        category, p = target.category, target.probability
        check_map("category", category, size)
        if p.shape != category.shape:
            raise ValueError(f"probability has shape {tuple(p.shape)}; category has {tuple(category.shape)}")
        last = len(space.names) - 1
        if not within(category, 0, last):
            known = category[category != IGNORE]
            if not within(known, 0, last):
                raise ValueError(
                    f"category {known[~((known >= 0) & (known <= last))][0].item():g} is not in the space, which has"
                    f" {len(space.names)} classes, 0..{last}, and {IGNORE} = ignore"
                )
        if not within(p, 0, 1.001):  # half precision may round above 1
            p = p.masked_fill(category == IGNORE, 0)
            if not within(p, 0, 1.001):
                raise ValueError(f"probability must be finite and in 0..1; got {p.min():.4g}..{p.max():.4g}")

    def view(self, target: SegmentationTarget, view: View) -> SegmentationTarget:
        return SegmentationTarget(
            category=view.dense(target.category, IGNORE), probability=view.dense(target.probability, 0)
        )

    def pseudo(self, target: SegmentationTarget, policy: Policy) -> SegmentationTarget:
        p = target.probability
        category = target.category.masked_fill(p < least_score(policy, target.category), IGNORE)
        return SegmentationTarget(category=category, probability=p if policy.confidence else torch.ones_like(p))

    def mapped(self, target: SegmentationTarget, index: Int64[Tensor, " K"], classes: int) -> SegmentationTarget:
        ignored = target.category == IGNORE
        category = index[target.category.masked_fill(ignored, 0)].masked_fill(ignored, IGNORE)
        return replace(target, category=category)

    def sureness(self, target: SegmentationTarget, policy: Policy) -> float:
        """The mean probability of its pixels, 0 where they are below the threshold."""
        p = target.probability
        return float(p.masked_fill((p < policy.score) | (target.category == IGNORE), 0).mean())

    def united(self, targets: Sequence[SegmentationTarget]) -> SegmentationTarget:
        """Of every pixel the more probable class, at the resolution of the largest map."""
        seen = at_one_size(self, targets, size_of_map)
        best = torch.stack([t.probability.masked_fill(t.category == IGNORE, -1) for t in seen]).argmax(0, keepdim=True)
        category, p = (torch.stack([getattr(t, k) for t in seen]) for k in ("category", "probability"))
        return SegmentationTarget(category=category.gather(0, best)[0], probability=p.gather(0, best)[0])

    def fused(self, targets: Sequence[SegmentationTarget], space: Space) -> SegmentationTarget:
        """Of every pixel the class with the largest sum of probabilities, over the number of teachers.

        A teacher that ignores a pixel votes for no class there; one that all ignore stays ignored.
        """
        seen = at_one_size(self, targets, size_of_map)
        category = torch.stack([t.category for t in seen])
        p = torch.stack([t.probability for t in seen]).masked_fill(category == IGNORE, 0)
        votes = torch.stack([(p * (category == c)).sum(0) for c in category]) / len(targets)
        best = votes.max(0)
        chosen = category.gather(0, best.indices[None])[0]
        # of equal votes, as of two that are sure of nothing, the first with a class
        known = (category != IGNORE).int().argmax(0, keepdim=True)
        chosen = torch.where(best.values > 0, chosen, category.gather(0, known)[0])
        return SegmentationTarget(category=chosen, probability=best.values)

    def nothing(self, target: SegmentationTarget, space: Space) -> str:
        return "nothing but ignored pixels" if bool((target.category == IGNORE).all()) else ""

    def scored(self, target: SegmentationTarget) -> tuple[Int64[Tensor, " N"], Float[Tensor, " N"]]:
        known = target.category != IGNORE
        return target.category[known], target.probability[known]

    def evidence(self, target: SegmentationTarget, true: SegmentationTarget, classes: int) -> Evidence:
        """The pixels' own probabilities, as the store keeps no others: at most `JUDGED`, in even steps."""
        guess, p = (
            whole(size_of_map(target), size_of_map(true)).dense(x) for x in (target.category, target.probability)
        )
        valid = (true.category < classes) & (guess < classes)
        guess, p, truth = guess[valid], p[valid], true.category[valid]
        step = max(-(-len(truth) // JUDGED), 1)
        return two_way(p[::step], guess[::step] == truth[::step], STEP)

    def calibrated(self, target: SegmentationTarget, calibration: Calibration) -> SegmentationTarget:
        p = tempered(target.probability, calibration, STEP)
        return replace(target, probability=p.masked_fill(target.category == IGNORE, 0))

    def limited(self, target: SegmentationTarget, classes: int, true: bool) -> SegmentationTarget:
        return replace(target, category=target.category.masked_fill(target.category >= classes, IGNORE))

    def confusion(
        self, target: SegmentationTarget, true: SegmentationTarget, classes: int, policy: Policy
    ) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Of every pixel that people know, however probable: what is ignored there is none of the classes."""
        valid = true.category < classes
        guess = whole(size_of_map(target), size_of_map(true)).dense(target.category, IGNORE)[valid]
        return true.category[valid], guess.clamp(max=classes)

    def constant(self, targets: Iterable[SegmentationTarget], space: Space) -> SegmentationTarget | None:
        """The most frequent class."""
        total = torch.zeros(len(space.names), dtype=torch.long)
        for target in targets:
            known = target.category[target.category < len(total)]
            total += known.bincount(minlength=len(total))
        if not bool(total.any()):
            return None
        return SegmentationTarget(category=total.argmax().reshape(1, 1), probability=torch.ones(1, 1))

    def comparison(self, space: Space) -> Comparison:
        return _Pixels(len(space.names))

    def head(self, widths: dict[str, int], space: Space) -> nn.Module:
        return PixelHead(widths["p2"], len(space.names))

    def loss(self, prediction: Float[Tensor, "B K H W"], targets: Sequence[SegmentationTarget]) -> Float[Tensor, ""]:
        logits = prediction.float()
        if not targets:
            return logits.sum() * 0
        true = torch.stack([t.category for t in targets]).to(logits.device)
        valid = true != IGNORE
        weight = torch.stack([t.probability for t in targets]).to(logits)
        with torch.autocast(logits.device.type, enabled=False):
            if bool((weight == 1).where(valid, True).all()):
                total = F.cross_entropy(logits, true, ignore_index=IGNORE, reduction="sum")
                return total / valid.sum().clamp(min=1)
            each = F.cross_entropy(logits, true, ignore_index=IGNORE, reduction="none")
        return weighted_mean(each, weight * valid)

    def amounts(self, targets: Sequence[SegmentationTarget], space: Space) -> tuple[float, ...]:
        return (float(sum(float(t.probability[t.category != IGNORE].sum()) for t in targets)),)

    def decode(self, prediction: Float[Tensor, "B K H W"]) -> list[SegmentationTarget]:
        best = prediction.detach().float().softmax(1).max(1)
        pairs = zip(best.indices.cpu(), best.values.cpu(), strict=True)
        return [SegmentationTarget(category=c, probability=p) for c, p in pairs]

    def metric(self, space: Space) -> Metric:
        from polyteach.tasks._segmentation_metric import MeanIoU  # torchmetrics takes seconds

        return MeanIoU(len(space.names))

    def statistics(self, target: SegmentationTarget, policy: Policy) -> dict[str, float]:
        ignored = self.pseudo(target, policy).category == IGNORE
        return {
            f"pixels ignored below {policy.score:g}": float(ignored.float().mean()),
            "pixel probability": float(target.probability.mean()),
        }

    def draw(self, image: UInt8[Tensor, "3 H W"], target: SegmentationTarget, space: Space) -> UInt8[Tensor, "3 H W"]:
        """Classes as colours over the grey image, ignored pixels dark; a legend of the largest classes.

        What is called background, void or the like (`NOTHING`) stays unpainted: an image of it alone is not pink.
        """
        category = whole(size_of_map(target), (image.shape[1], image.shape[2])).dense(target.category, IGNORE)
        ignored = category == IGNORE
        colours = palette(len(space.names))
        blank = torch.tensor([plain(name) in NOTHING for name in space.names], dtype=torch.bool)
        colours[blank] = 127
        tint = colours[category.masked_fill(ignored, 0)].permute(2, 0, 1).float()
        grey = image.float().mean(0, keepdim=True)
        painted = torch.where(blank[category.masked_fill(ignored, 0)], grey, 0.35 * grey + 0.65 * tint)
        drawing = torch.where(ignored, 0.4 * grey, painted).to(torch.uint8)
        counts = category[~ignored].bincount(minlength=len(space.names))
        largest = [i for i in counts.argsort(descending=True, stable=True).tolist() if counts[i]][:5]
        if not largest:
            return caption(drawing, ["all ignored"])
        if blank[largest].all():
            return caption(drawing, [f"nothing but {' and '.join(space.names[i] for i in largest)}"])
        shares = {i: float(counts[i] / category.numel()) for i in largest}
        lines = [f"{space.names[i]} {f'{share:.0%}' if share >= 0.01 else '<1%'}" for i, share in shares.items()]
        return caption(drawing, lines, colours[largest])

    def describe(self, target: SegmentationTarget, space: Space, policy: Policy) -> tuple[str, dict[str, Any]]:
        """Classes by the share of the image that they cover, the largest first; of all pixels, however probable."""
        counts = target.category[target.category != IGNORE].bincount(minlength=len(space.names))
        ranked = [i for i in counts.argsort(descending=True, stable=True).tolist() if counts[i]]
        shares = {space.names[i]: float(counts[i] / target.category.numel()) for i in ranked}
        said = [f"{name} {f'{share:.0%}' if share >= 0.01 else '<1%'}" for name, share in shares.items()]
        more = [f"and {len(said) - 8} more"] if len(said) > 8 else []
        values = [{"class": name, "share": round(share, 4)} for name, share in shares.items()]
        return ", ".join(said[:8] + more) or "all ignored", {"classes": values}

    def truth(self, render: Render, space: Space) -> SegmentationTarget:
        """The category of the object that each pixel shows; the wall is ignored."""
        of = torch.cat([render.category, render.category.new_tensor([IGNORE])])
        wall = render.instance == WALL
        category = of[render.instance.masked_fill(wall, len(render.category))]
        return SegmentationTarget(category=category, probability=(~wall).float())


def size_of_map(target: SegmentationTarget) -> tuple[int, int]:
    """(height, width) of the map, in cells."""
    return target.category.shape[0], target.category.shape[1]


__getattr__ = relocated(__name__)
TASK = Segmentation()
