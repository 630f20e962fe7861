"""Mixture: the losses of a step in one, each by its weight and by what each pass has labels for."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from polyteach.training.settings import Settings

FIRST = 10
"""Forward passes over which the size of a loss is measured, for `Mixture`'s dropping."""


class Mixture(nn.Module):
    """The losses of a batch in one: L = sum_i w_i L_i over the objectives that the batch has targets for.

    learned: homoscedastic uncertainty of Kendall, Gal and Cipolla (CVPR 2018), L = sum_i exp(-s_i) w_i L_i + s_i / 2
    with one learned s_i per objective, from 0. Least at exp(s_i) = 2 w_i L_i, so every term is drawn to weigh alike.

    drop: teacher dropping of UNIC (Sariyildiz et al., ECCV 2024; its modeling/teacher_dropping.py): the objective with
    the largest loss is always kept, every other one is left out with this probability, and the terms of those kept are
    multiplied by (number there) / (number kept), so that what a pass weighs does not change. What is left out adds
    nothing to the gradient of its pass. 0: off. Where it differs from UNIC, and why:

    - UNIC draws for every image. A loss here is one number per forward pass (detectors sample their regions from the
      whole of it), so that is what is drawn for; a step of several passes has several draws.
    - UNIC compares losses as they are: they are of one kind, on standardised features. Cross-entropies and metres are
      not, so every loss is divided by its own mean over the first `FIRST` passes that had it (GradNorm, Chen et al.,
      ICML 2018, compares L(t) / L(0), and calls it the inverse training rate): the largest is the objective that has
      learned the least of what there was to learn. A running mean would not do: every ratio to it stays near 1, and
      which one is largest says only for which objective the batch was hard. A loss that cannot fall to 0, such as the
      cross-entropy with soft labels, is therefore kept more often than others; where a run starts from a trained
      student, so is what that one knew already. An objective is not left out before its mean is known. Weights play no
      part in the comparison, and objectives with a weight of 0 have none either.

    seed: of the draws. They follow from (seed, number of the forward pass, name) alone.
    """

    def __init__(self, weights: Mapping[str, float], learned: bool = False, drop: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.weights = dict(weights)
        names = self.weights if learned else {}
        self.log_variance = nn.ParameterDict({k: nn.Parameter(torch.zeros(())) for k in names})
        self.drop, self.seed = drop, seed
        self.numbers = {k: i for i, k in enumerate(self.weights)}
        if drop:  # buffers, so that a checkpoint has them; by number, as names may hold dots
            self.register_buffer("first_sum", torch.zeros(len(self.weights)))
            self.register_buffer("first_count", torch.zeros(len(self.weights), dtype=torch.long))

    def forward(
        self,
        losses: dict[str, Tensor],
        factors: Mapping[str, float] | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> Float[Tensor, ""]:
        """losses: objective -> scalar; at least one. factors: see `kept`; all 1 without it.

        shares: of a pass in the losses of a step, 0..1; all 1 without it. Learned weights too learn once from a step.
        """
        terms = []
        for name, loss in losses.items():
            if factors is not None and name not in factors:
                continue
            term = self.weights[name] * loss
            if name in self.log_variance:
                s = self.log_variance[name]
                term = torch.exp(-s) * term + s / 2
            term = term if factors is None else factors[name] * term
            terms.append(term if shares is None else shares[name] * term)
        return torch.stack(terms).sum()

    def kept(self, losses: Mapping[str, float], at: int) -> dict[str, float] | None:
        """Objectives that are not left out, and what their terms are multiplied with; None where nothing is ever.

        Takes note of the losses, so it is called once for every forward pass that has any.

        losses: of the pass, finite. at: number of the pass in the training, from 0.
        """
        if not self.drop:
            return None
        first_sum, first_count = self.get_buffer("first_sum"), self.get_buffer("first_count")
        counted = {k: v for k, v in losses.items() if self.weights[k]}
        left: dict[str, float] = {}  # share of its first size that a loss still has
        for name, loss in counted.items():
            i = self.numbers[name]
            if first_count[i] == FIRST:
                left[name] = loss / float(first_sum[i] / FIRST)
            elif loss > 0:  # 0 where nothing in the batch was valid
                first_sum[i] += loss
                first_count[i] += 1
        largest = max(left, key=lambda k: left[k], default=None)
        draw = {k: random.Random(f"drop-{self.seed}-{at}-{k}").random() for k in left if k != largest}
        out = {k for k, value in draw.items() if value < self.drop}
        scale = len(counted) / max(len(counted) - len(out), 1)
        return {k: scale if k in counted else 1.0 for k in losses if k not in out}

    def effective(self) -> dict[str, float]:
        """What each loss is multiplied with now."""
        s = {k: float(v.detach()) for k, v in self.log_variance.items()}
        return {k: w * math.exp(-s.get(k, 0.0)) for k, w in self.weights.items()}


Amounts = Mapping[str, tuple[float, ...]]
"""Objective -> what its loss, or each part of its loss, is a mean over; see `Task.amounts`."""


def labelled(targets: Mapping[str, Sequence[Any]]) -> dict[str, tuple[float, ...]]:
    """Images that have a target, by objective: the amounts of losses that are means over images."""
    counts = {k: sum(t is not None for t in answers) for k, answers in targets.items()}
    return {k: (float(n),) for k, n in counts.items() if n}


def shares(passes: Sequence[Amounts]) -> list[dict[str, tuple[float, ...]]]:
    """Of every part of every loss, which share of the step's mean is each pass's: they add up to 1 over the passes.

    Where an objective has labels that say nothing (no pixel is valid), its passes count alike: their loss is 0.
    """
    totals: dict[str, list[float]] = {}
    there: dict[str, int] = {}
    for name, parts in (item for amounts in passes for item in amounts.items()):
        totals[name] = [a + b for a, b in zip(totals.get(name, [0.0] * len(parts)), parts, strict=True)]
        there[name] = there.get(name, 0) + 1

    def share(name: str, parts: tuple[float, ...]) -> tuple[float, ...]:
        pairs = zip(parts, totals[name], strict=True)
        return tuple(mine / total if total > 0 else 1 / there[name] for mine, total in pairs)

    return [{name: share(name, parts) for name, parts in amounts.items()} for amounts in passes]


def first_share(counted: Mapping[str, tuple[float, ...]], name: str, s: Settings) -> float:
    """The share of a loss, which is that of its first part: the others are weighed against it."""
    return counted[name][0] if name in counted else 1 / s.accumulate


def weights_of_rest(counted: Mapping[str, tuple[float, ...]]) -> list[dict[str, tuple[float, ...]]]:
    """What a model is told of the parts of its losses after the first, where there are any and it matters."""
    several = {name: parts for name, parts in counted.items() if len(parts) > 1 and parts[0] > 0}
    weights = {name: tuple(part / parts[0] for part in parts[1:]) for name, parts in several.items()}
    return [weights] if any(w != 1 for each in weights.values() for w in each) else []
