"""Classification: what the image is of.

Shapes: B images, K classes, H W image pixels.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from polyteach._moved import relocated
from polyteach.ground.geometry import View
from polyteach.ground.images import caption
from polyteach.ground.layers import Pyramid
from polyteach.ground.scene import Render
from polyteach.tasks._agreement import Counting
from polyteach.tasks.contract import (
    ByClass,
    Calibration,
    Comparison,
    Evidence,
    Metric,
    Policy,
    Probe,
    Space,
    Target,
    Task,
    column,
    least_score,
    weighted_mean,
    within,
)


@final
@dataclass(frozen=True)
class ClassificationTarget(Target):
    """How probable each class is, 0..1, summing to 1; one-hot for a hard label.

    confidence: how much the image counts in the loss, 0..1; None: 1. Set by `pseudo`, so that a hard label too knows
    how sure the teacher was.
    """

    probability: Float[Tensor, " K"] = column("vector", "float16")
    confidence: Float[Tensor, ""] | None = column("none", "float32", default=None)


class ClassificationHead(nn.Module):
    """Global average pooling of C5 and one linear layer; logits."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(channels, classes)

    def forward(self, pyramid: Pyramid) -> Float[Tensor, "B K"]:
        logits: Tensor = self.out(pyramid["c5"].mean((-2, -1)))
        return logits.float()


Answers = Callable[[Tensor], list[ClassificationTarget]]

LEAST = 2.0**-24
"""The smallest float16: what the true class counts as where the store keeps 0 of it."""
TEMPERATURE = 0.07
"""Of the votes of neighbours (Wu et al., CVPR 2018)."""


def neighbours(features: Float[Tensor, "N C"], targets: Sequence[ClassificationTarget], setting: float) -> Answers:
    """Weighted nearest neighbours by cosine, as Wu et al. (CVPR 2018) and DINO (Caron et al., ICCV 2021) measure.

    setting: how many neighbours vote.
    """
    known = F.normalize(features, dim=1)
    votes = torch.stack([t.probability.float() for t in targets])
    k = min(int(setting), len(known))

    def answer(seen: Tensor) -> list[ClassificationTarget]:
        near = (F.normalize(seen, dim=1) @ known.T).topk(k, dim=1)
        weight = ((near.values - 1) / TEMPERATURE).exp()
        share = (weight[..., None] * votes[near.indices]).sum(1)
        return [ClassificationTarget(probability=p) for p in share / share.sum(1, keepdim=True)]

    return answer


def regression(features: Float[Tensor, "N C"], targets: Sequence[ClassificationTarget], setting: float) -> Answers:
    """Multinomial logistic regression on standardised features by L-BFGS: the linear probe of CLIP (ICML 2021).

    setting: weight of the L2 penalty, which is setting / 2 times the squared norm, beside the mean cross-entropy.
    """
    mean, spread = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
    known = (features - mean) / spread
    true = torch.stack([t.probability.float() for t in targets])
    weight = torch.zeros(known.shape[1], true.shape[1], requires_grad=True)
    bias = torch.zeros(true.shape[1], requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=300, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = F.cross_entropy(known @ weight + bias, true) + setting / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        search.step(loss)
    weight.requires_grad_(False), bias.requires_grad_(False)

    def answer(seen: Tensor) -> list[ClassificationTarget]:
        logits = ((seen - mean) / spread) @ weight + bias
        return [ClassificationTarget(probability=p) for p in logits.softmax(1)]

    return answer


class _Likeliest(Counting):
    """Whether the likeliest of the classes that both know is the true one, as in zero-shot tests on fewer classes.

    Images of another class do not count.
    """

    things, ranked = "images", "precision"

    def count(
        self, predicted: ClassificationTarget, true: ClassificationTarget
    ) -> tuple[Int64[Tensor, " A"], Int64[Tensor, " B"], Int64[Tensor, " C"]]:
        known = true.probability.argmax().reshape(1)
        if int(known) >= self.classes:
            return known, known, known
        said = predicted.probability[: self.classes].argmax().reshape(1)
        return known, said, known[known == said]

    def overall(self) -> dict[str, float]:
        return {"top-1": super().overall()["recall"]}


@final
class Classification(Task[ClassificationTarget]):
    """Soft or hard image classes; cross-entropy against the whole vector (found better than hard, METHOD)."""

    name = "classification"
    target = ClassificationTarget
    confidence = "confidence"
    combines = frozenset({"best", "union", "fuse"})
    calibrates = ("temperature",)
    compares_some = True
    reads = ("c5",)
    probes: ClassVar[Mapping[str, Probe[Any]]] = {
        "knn": Probe((1, 5, 10, 20, 50), neighbours),
        "linear": Probe((1e-4, 1e-3, 1e-2, 1e-1, 1.0), regression),
    }

    def classes(self, target: ClassificationTarget) -> list[int]:
        return [int(target.probability.argmax())]

    def check(self, target: ClassificationTarget, size: tuple[int, int], space: Space) -> ClassificationTarget:
        p = target.probability
        if p.shape != (len(space.names),):
            raise ValueError(f"probability has shape {tuple(p.shape)}; the space has {len(space.names)} classes")
        if not within(p, 0, sys.float_info.max):
            raise ValueError(f"probability must be finite and >= 0; got {p.min():.4g}..{p.max():.4g}")
        if abs(float(p.sum()) - 1) > 0.02:
            raise ValueError(f"probability sums to {float(p.sum()):.4g}, not to 1")
        return target

    def view(self, target: ClassificationTarget, view: View) -> ClassificationTarget:
        return target

    def pseudo(self, target: ClassificationTarget, policy: Policy) -> ClassificationTarget:
        p, sure = target.probability, None
        if policy.confidence:
            sure = (p.max() / p.sum()).float() if target.confidence is None else target.confidence
        if isinstance(policy, ByClass) and bool(p.max() < least_score(policy, p.argmax())):
            sure = p.new_zeros((), dtype=torch.float32)  # not learned, as a box below its score
        if not policy.soft:
            p = F.one_hot(p.argmax(), len(p)).to(p.dtype)
        return ClassificationTarget(probability=p, confidence=sure)

    def mapped(self, target: ClassificationTarget, index: Int64[Tensor, " K"], classes: int) -> ClassificationTarget:
        p = target.probability
        return replace(target, probability=p.new_zeros(classes).index_add(0, index, p))

    def sureness(self, target: ClassificationTarget, policy: Policy) -> float:
        """The largest probability."""
        return float(target.probability.max())

    def united(self, targets: Sequence[ClassificationTarget]) -> ClassificationTarget:
        """The mean of the probabilities."""
        return ClassificationTarget(probability=torch.stack([t.probability for t in targets]).mean(0))

    def fused(self, targets: Sequence[ClassificationTarget], space: Space) -> ClassificationTarget:
        """The mean of the probabilities: where teachers disagree, none of its classes is probable."""
        return self.united(targets)

    def nothing(self, target: ClassificationTarget, space: Space) -> str:
        unsure = target.confidence is not None and not bool(target.confidence)
        return "a likeliest class below its least score" if unsure else ""

    def scored(self, target: ClassificationTarget) -> tuple[Int64[Tensor, " N"], Float[Tensor, " N"]]:
        """The likeliest class and its probability."""
        return target.probability.argmax()[None], target.probability.max()[None]

    def evidence(self, target: ClassificationTarget, true: ClassificationTarget, classes: int) -> Evidence:
        """The whole vector. Of a class that only one of both has it says nothing, nor does its image."""
        p = target.probability[:classes].double()
        right = true.probability.argmax().reshape(1)
        if int(right) >= classes or not bool(p.any()):
            none = right[:0]
            return Evidence(p.new_zeros(0, classes), none, none)
        said = p.argmax().reshape(1)
        p[right] = p[right].clamp(min=LEAST)
        return Evidence(p.log()[None], said, right)

    def calibrated(self, target: ClassificationTarget, calibration: Calibration) -> ClassificationTarget:
        """What the store keeps as 0, below half of `LEAST` or not among the classes that were kept, stays 0."""
        p = (target.probability.double().log() / calibration.temperature).softmax(0)
        return replace(target, probability=p.to(target.probability.dtype))

    def limited(self, target: ClassificationTarget, classes: int, true: bool) -> ClassificationTarget | None:
        """The probabilities of those classes as they are, as in zero-shot tests; None where another is true."""
        if true and int(target.probability.argmax()) >= classes:
            return None
        return replace(target, probability=target.probability[:classes])

    def confusion(
        self, target: ClassificationTarget, true: ClassificationTarget, classes: int, policy: Policy
    ) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Of the image the likeliest class; none where no class is possible."""
        p = target.probability
        said = p.argmax() if bool(p.any()) else p.argmax().new_tensor(classes)
        return true.probability.argmax().reshape(1), said.reshape(1)

    def mistakes(
        self, target: ClassificationTarget, true: ClassificationTarget, space: Space, policy: Policy
    ) -> tuple[float, str]:
        """By how much more probable the wrong class was."""
        p, right = target.probability.float(), int(true.probability.argmax())
        said = int(p.argmax())
        if said == right and bool(p.any()):
            return 0.0, ""
        words = f"{space.names[said]} {float(p[said]):.0%}, is {space.names[right]} ({float(p[right]):.0%})"
        return 1 + float(p[said] - p[right]), words

    def constant(self, targets: Iterable[ClassificationTarget], space: Space) -> ClassificationTarget | None:
        """How frequent each class is."""
        total = sum((t.probability.double() for t in targets), torch.zeros(len(space.names), dtype=torch.float64))
        return ClassificationTarget(probability=(total / total.sum()).float()) if bool(total.any()) else None

    def comparison(self, space: Space) -> Comparison:
        return _Likeliest(len(space.names))

    def head(self, widths: dict[str, int], space: Space) -> nn.Module:
        return ClassificationHead(widths["c5"], len(space.names))

    def loss(self, prediction: Float[Tensor, "B K"], targets: Sequence[ClassificationTarget]) -> Float[Tensor, ""]:
        if not targets:
            return prediction.sum() * 0
        soft = torch.stack([t.probability for t in targets]).to(prediction)
        soft = soft / soft.sum(1, keepdim=True)  # float16 on disk: not quite 1
        if all(t.confidence is None for t in targets):
            return F.cross_entropy(prediction, soft)
        one = prediction.new_ones(())
        weight = torch.stack([one if t.confidence is None else t.confidence.to(one) for t in targets])
        return weighted_mean(F.cross_entropy(prediction, soft, reduction="none"), weight)

    def amounts(self, targets: Sequence[ClassificationTarget], space: Space) -> tuple[float, ...]:
        return (float(sum(1.0 if t.confidence is None else float(t.confidence) for t in targets)),)

    def decode(self, prediction: Float[Tensor, "B K"]) -> list[ClassificationTarget]:
        return [ClassificationTarget(probability=p) for p in prediction.detach().float().softmax(-1).cpu()]

    def metric(self, space: Space) -> Metric:
        from polyteach.tasks._classification_metric import TopK  # torchmetrics takes seconds

        return TopK()

    def statistics(self, target: ClassificationTarget, policy: Policy) -> dict[str, float]:
        top = float(target.probability.max())
        return {"top probability": top, f"top probability >= {policy.score:g}": float(top >= policy.score)}

    def draw(self, image: UInt8[Tensor, "3 H W"], target: ClassificationTarget, space: Space) -> UInt8[Tensor, "3 H W"]:
        best = target.probability.topk(min(3, len(space.names)))
        lines = [f"{space.names[i]} {p:.0%}" for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
        return caption(image, lines)

    def describe(self, target: ClassificationTarget, space: Space, policy: Policy) -> tuple[str, dict[str, Any]]:
        """The five most probable classes, whatever the policy's score."""
        best = target.probability.topk(min(5, len(space.names)))
        pairs = [(space.names[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
        values = [{"class": name, "probability": round(p, 4)} for name, p in pairs]
        return ", ".join(f"{name} {p:.0%}" for name, p in pairs), {"classes": values}

    def truth(self, render: Render, space: Space) -> ClassificationTarget:
        size = torch.bincount(render.instance[render.instance >= 0], minlength=len(render.category))
        return ClassificationTarget(probability=F.one_hot(render.category[size.argmax()], len(space.names)).float())


__getattr__ = relocated(__name__)
TASK = Classification()
