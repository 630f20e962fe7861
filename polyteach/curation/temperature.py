"""Temperature: what makes probabilities as large as they are often right, and how far they are from it.

Shapes: N answers, K possibilities of each.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from polyteach.store import SPAN
from polyteach.tasks.contract import Calibration, Evidence

BINS = 10
"""Of confidence, of one width, in which it is held against how often it is right."""


@dataclass(frozen=True)
class Reliability:
    """nll: mean negative log-likelihood of what is right. ece: expected calibration error, 0..1.

    bins: of each bin of confidence with answers, its number, how many there are, their mean confidence, and the share
    that is right.
    """

    nll: float
    ece: float
    bins: list[tuple[int, int, float, float]]


def joined(all_evidence: list[Evidence]) -> Evidence:
    """The answers of many images, at least one, as one."""
    log, said, right = (torch.cat([getattr(e, k) for e in all_evidence]) for k in ("log", "said", "right"))
    return Evidence(log, said, right)


def surer(evidence: Evidence, score: float) -> Evidence:
    """The answers whose confidence is at least `score`, before any calibration."""
    if not score:
        return evidence
    sure = evidence.log.softmax(1).gather(1, evidence.said[:, None])[:, 0] >= score
    return Evidence(evidence.log[sure], evidence.said[sure], evidence.right[sure])


def _scaled(evidence: Evidence, by: Calibration) -> Float[Tensor, "N K"]:
    """Log-probabilities after calibration. The shift is of possibility 1."""
    moved = evidence.log / by.temperature
    if by.shift:
        moved = moved + by.shift * torch.arange(moved.shape[1])
    return moved.log_softmax(1)


def reliability(evidence: Evidence, by: Calibration | None = None) -> Reliability:
    """How far the confidence of answers is from how often they are right (Guo et al., ICML 2017), once calibrated."""
    log = _scaled(evidence, by or Calibration(1.0))
    confidence = log.exp().gather(1, evidence.said[:, None])[:, 0]
    right = evidence.said == evidence.right
    nll = -log.gather(1, evidence.right[:, None]).mean()
    bins = [_bin(k, confidence, right) for k in range(BINS)]
    found = [b for b in bins if b[1]]
    ece = sum(n * abs(sure - share) for _, n, sure, share in found) / max(len(right), 1)
    return Reliability(float(nll), ece, found)


def _bin(k: int, confidence: Float[Tensor, " N"], right: Bool[Tensor, " N"]) -> tuple[int, int, float, float]:
    mine = (confidence * BINS).floor().clamp(0, BINS - 1) == k
    n = int(mine.sum())
    return (k, n, float(confidence[mine].mean()), float(right[mine].double().mean())) if n else (k, 0, 0.0, 0.0)


def fitted(evidence: Evidence, shift: bool) -> Calibration:
    """The calibration under which what is right is likeliest: Newton's method, as the likelihood is concave.

    shift: fit that of two possibilities too (Platt, 1999), and not the temperature alone. Where all answers are right,
    or none is, the likeliest is at the end of what is allowed (`SPAN`).
    """
    # of each possibility what its score is linear in: the log-odds (times 1 / temperature), and 1 (times the shift)
    features = [evidence.log.masked_fill(evidence.log.isneginf(), 0)]
    features += [torch.arange(2).double().expand_as(evidence.log)] if shift else []
    x = torch.stack(features, 2)
    right = x.gather(1, evidence.right[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]
    low = torch.tensor([1 / SPAN, -SPAN][: x.shape[2]], dtype=torch.float64)
    high = torch.full_like(low, SPAN)
    at = torch.tensor([1.0, 0.0][: x.shape[2]], dtype=torch.float64)

    def loss(w: Tensor) -> Tensor:
        scores = (x @ w).masked_fill(evidence.log.isneginf(), -torch.inf)
        return (scores.logsumexp(1) - right @ w).mean()

    for _ in range(100):
        p = (x @ at).masked_fill(evidence.log.isneginf(), -torch.inf).softmax(1)[..., None]
        mean = (p * x).sum(1)
        gradient = (mean - right).mean(0)
        centred = x - mean[:, None]
        curvature = torch.einsum("nki,nkj->ij", p * centred, centred) / len(x) + 1e-9 * torch.eye(len(at))
        step = torch.linalg.solve(curvature, gradient)
        now, share = loss(at), 1.0
        while share > 1e-6 and loss((at - share * step).clamp(low, high)) > now:
            share /= 2
        new = (at - share * step).clamp(low, high)
        if (new - at).abs().max() < 1e-9 or loss(new) > now:
            break
        at = new
    return Calibration(1 / float(at[0]), float(at[1]) if shift else 0.0)
