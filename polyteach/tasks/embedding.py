"""Embedding: the features that another network, such as a foundation model's encoder, makes of an image.

A space's kind is "dense, C channels, of NAME" (a vector for each cell of a map) or "global, C channels, of NAME" (one
for the image). Features of two networks are never one objective, so NAME tells them apart. There are no classes.

The head answers in standardised features, in which every channel has the same variance; how those are made of what is
stored is learned once, before training (`Embedding.prepare`), and kept with the head. It serves training alone: the
finished student is written without it.

Shapes: B images, C channels, m n cells of a feature map, h w cells of the student's, H W pixels.
"""

import bisect
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from polyteach.ground.geometry import View
from polyteach.ground.images import caption
from polyteach.ground.layers import Pyramid, tower
from polyteach.tasks.contract import Metric, Policy, Space, Target, Task, check_map, column, weighted_mean, within

DENSE, GLOBAL = "dense", "global"
STRIDE = 16
"""Pixels of a view that a cell of the student's map covers along each side."""
MOST_CELLS = 64
"""Along the longer side of an image's map; larger images are seen at a larger stride."""
COSINE, SMOOTH_L1 = 0.9, 0.1
"""Weights of the loss's two parts, of AM-RADIO (Ranzinger et al., CVPR 2024) and Theia (Shang et al., CoRL 2024)."""
SAMPLED = 64
"""Vectors per channel from which the standardisation is learned: enough to know a covariance well."""
LARGEST = 65504.0
"""The largest float16, which is what the store keeps."""
_KIND = re.compile(rf"({DENSE}|{GLOBAL}), ([1-9][0-9]{{0,4}}) channels(?:, of (.+))?", re.DOTALL)


@final
@dataclass(frozen=True)
class EmbeddingTarget(Target):
    """feature: covers the whole image at any resolution, one cell where it is global; a cell of zeros is not known."""

    feature: Float[Tensor, "C m n"] = column("features", "float16")


class EmbeddingPrediction(NamedTuple):
    """What the head says, and how it is put back into the teacher's features."""

    output: Float[Tensor, "B C h w"]
    mean: Float[Tensor, " C"]
    rotation: Float[Tensor, "C C"]
    scale: Float[Tensor, ""]


class EmbeddingHead(nn.Module):
    """Levels 3 to 5 of the pyramid at level 4's resolution, summed; a convolution and a linear one.

    A global head averages over the cells before the last. Standardised are rotation @ (feature - mean) * scale.
    """

    mean: Tensor
    rotation: Tensor
    scale: Tensor

    def __init__(self, width: int, channels: int, dense: bool) -> None:
        super().__init__()
        self.dense = dense
        self.hidden = tower(width, 1)
        self.out = nn.Conv2d(width, channels, 1)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("rotation", torch.eye(channels))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, pyramid: Pyramid) -> EmbeddingPrediction:
        middle = pyramid["p4"]
        size = (middle.shape[2], middle.shape[3])
        coarse = F.interpolate(pyramid["p5"], size, mode="bilinear")
        hidden = self.hidden(F.adaptive_avg_pool2d(pyramid["p3"], size) + middle + coarse)
        if not self.dense:
            hidden = hidden.mean((2, 3), keepdim=True)
        return EmbeddingPrediction(self.out(hidden).float(), self.mean, self.rotation, self.scale)


def kind_of(where: str, channels: int, name: str) -> str:
    """The kind of a space. where: "dense" or "global". name: what tells the network from others."""
    return f"{where}, {channels} channels, of {name}"


def parsed(space: Space) -> tuple[bool, int]:
    """Whether a space's features are dense, and how many channels they have.

    Raises:
        ValueError: its kind says neither.
    """
    found = _KIND.fullmatch(space.kind)
    if found is None:
        raise ValueError(
            f'embedding of kind {space.kind!r}; the space\'s kind is "dense, C channels, of NAME" or "global, C '
            'channels, of NAME", with C a number'
        )
    return found[1] == DENSE, int(found[2])


def known(feature: Float[Tensor, "*B C m n"]) -> Float[Tensor, "*B m n"]:
    """1 where there is a feature, else 0."""
    return (feature != 0).any(-3).float()


def at(feature: Float[Tensor, "C m n"], size: tuple[int, int]) -> Float[Tensor, "C h w"]:
    """At another resolution, by nearest neighbour: features are moved, never blended."""
    if tuple(feature.shape[1:]) == size:
        return feature
    return F.interpolate(feature[None], size, mode="nearest-exact")[0]


def of_equal_variance(covariance: Float[Tensor, "C C"]) -> Float[Tensor, "C C"]:
    """An orthogonal matrix R such that the diagonal of R covariance R^T is constant, in float64.

    There is one for every covariance (Schur, 1923; Horn, 1954). PHI-S (Ranzinger et al., 2024) makes it of the
    principal axes and a Hadamard matrix, which not every number of channels has; here C - 1 rotations of two axes each
    make it, each of which gives one channel the mean variance (Bendel and Mickey, 1978).
    """
    a, r = covariance.double().clone(), torch.eye(len(covariance), dtype=torch.float64)
    mean = float(a.diagonal().mean())
    left = sorted((v, k) for k, v in enumerate(a.diagonal().tolist()))
    while len(left) > 1:
        (lowest, i), (highest, j) = left.pop(0), left.pop()
        low, high, both = lowest - mean, highest - mean, float(a[i, j])
        if high <= 1e-12 * mean:
            break
        # tangent of the angle by which axis i turns towards j until its variance is the mean
        t = (-both + math.sqrt(max(both * both - low * high, 0.0))) / high
        c = 1 / math.sqrt(1 + t * t)
        turn = torch.tensor([[c, c * t], [-c * t, c]], dtype=torch.float64)
        a[[i, j]] = turn @ a[[i, j]]
        a[:, [i, j]] = a[:, [i, j]] @ turn.T
        r[[i, j]] = turn @ r[[i, j]]
        bisect.insort(left, (lowest + highest - mean, j))
    return r


@final
class Embedding(Task[EmbeddingTarget]):
    """0.9 (1 - cosine) + 0.1 smooth L1 between standardised features, a mean over the cells that are known."""

    name = "embedding"
    kinds = ("dense, 8 channels", "global, 6 channels")
    target = EmbeddingTarget
    reads = ("p3", "p4", "p5")
    auxiliary = True

    def check(self, target: EmbeddingTarget, size: tuple[int, int], space: Space) -> EmbeddingTarget:
        dense, channels = parsed(space)
        feature = target.feature
        if dense:
            check_map("feature", feature, size, channels)
        elif tuple(feature.shape) != (channels, 1, 1):
            raise ValueError(f"feature has shape {tuple(feature.shape)}; of this space it is ({channels}, 1, 1)")
        if not within(feature, -LARGEST, LARGEST):
            raise ValueError(
                f"feature must be within +-{LARGEST:g} (float16); got NaN"
                if feature.isnan().any()
                else f"feature must be within +-{LARGEST:g} (float16); got {float(feature.abs().max()):.4g}"
            )
        return EmbeddingTarget(feature=feature.float())

    def view(self, target: EmbeddingTarget, view: View) -> EmbeddingTarget:
        """At a stride of its own. What is global is so of every view that sees something of the image."""
        feature = target.feature
        if tuple(feature.shape[1:]) == (1, 1):
            sees = view.dense(torch.ones(1, 1, dtype=torch.bool), 0).any()
            return EmbeddingTarget(feature=feature * sees)
        stride = max(STRIDE, math.ceil(max(view.size) / MOST_CELLS))
        coarse = replace(view, size=(math.ceil(view.size[0] / stride), math.ceil(view.size[1] / stride)))
        return EmbeddingTarget(feature=coarse.dense(feature, 0))

    def pseudo(self, target: EmbeddingTarget, policy: Policy) -> EmbeddingTarget:
        """The teacher's features, unprocessed."""
        return target

    def constant(self, targets: Iterable[EmbeddingTarget], space: Space) -> EmbeddingTarget | None:
        """The mean feature."""
        total, cells = torch.zeros(parsed(space)[1], dtype=torch.float64), 0.0
        for target in targets:
            there = known(target.feature).bool()
            total += target.feature[:, there].double().sum(1)
            cells += float(there.sum())
        return EmbeddingTarget(feature=(total / cells).float().reshape(-1, 1, 1)) if cells else None

    def nothing(self, target: EmbeddingTarget, space: Space) -> str:
        return "" if bool((target.feature != 0).any()) else "no feature known"

    def head(self, widths: dict[str, int], space: Space) -> nn.Module:
        dense, channels = parsed(space)
        return EmbeddingHead(widths["p4"], channels, dense)

    def prepare(self, head: nn.Module, targets: Iterable[EmbeddingTarget]) -> None:
        """Learn the standardisation: the mean, a rotation to channels of one variance, and the scale that makes it 1.

        One scale for all channels, so that no direction of little variance, which is noise, is enlarged (PHI-S).
        """
        assert isinstance(head, EmbeddingHead)
        channels = len(head.mean)
        total, count = torch.zeros(channels, dtype=torch.float64), 0
        squares = torch.zeros(channels, channels, dtype=torch.float64)
        for target in targets:
            vectors = target.feature.flatten(1)[:, known(target.feature).flatten() > 0].double()
            total += vectors.sum(1)
            squares += vectors @ vectors.T
            count += vectors.shape[1]
            if count >= SAMPLED * channels:
                break
        if count < 2:
            return
        mean = total / count
        covariance = squares / count - mean.outer(mean)
        variance = float(covariance.diagonal().mean())
        if variance <= 0:
            return
        head.mean.copy_(mean)
        head.rotation.copy_(of_equal_variance(covariance))
        head.scale.fill_(variance**-0.5)

    def loss(self, prediction: EmbeddingPrediction, targets: Sequence[EmbeddingTarget]) -> Float[Tensor, ""]:
        output = prediction.output.float()
        if not targets:
            return output.sum() * 0
        size = (output.shape[2], output.shape[3])
        raw = torch.stack([at(t.feature, size) for t in targets]).to(output)
        with torch.autocast(output.device.type, enabled=False):
            true = standardised(raw, prediction)
            cosine = 1 - F.cosine_similarity(output, true, dim=1)
            smooth = F.smooth_l1_loss(output, true, reduction="none").mean(1)
            return weighted_mean(COSINE * cosine + SMOOTH_L1 * smooth, known(raw))

    def amounts(self, targets: Sequence[EmbeddingTarget], space: Space) -> tuple[float, ...]:
        return (sum(float(known(t.feature).sum()) for t in targets),)

    def decode(self, prediction: EmbeddingPrediction) -> list[EmbeddingTarget]:
        """The teacher's features, as far as the student knows them."""
        x = prediction.output.detach().float() / prediction.scale
        raw = torch.einsum("dc,bdmn->bcmn", prediction.rotation, x) + prediction.mean[:, None, None]
        return [EmbeddingTarget(feature=f.clamp(-LARGEST, LARGEST)) for f in raw.cpu()]

    def metric(self, space: Space) -> Metric:
        from polyteach.tasks._embedding_metric import Likeness  # torchmetrics takes seconds

        return Likeness(parsed(space)[1])

    def statistics(self, target: EmbeddingTarget, policy: Policy) -> dict[str, float]:
        where = known(target.feature)
        length = target.feature.norm(dim=0).sum() / where.sum().clamp(min=1)
        return {"known cells": float(where.mean()), "mean length": float(length)}

    def draw(self, image: UInt8[Tensor, "3 H W"], target: EmbeddingTarget, space: Space) -> UInt8[Tensor, "3 H W"]:
        """The three directions in which the image's own features differ most, as red, green and blue; unknown is black.

        As in the figures of DINOv2. What is global is told by its first numbers.
        """
        feature, where = target.feature, known(target.feature).bool()
        if where.sum() < 2:
            first = ", ".join(f"{x:.2g}" for x in feature[:4, 0, 0].tolist())
            return caption(image, [f"{len(feature)} features: {first}, ..." if where.any() else "no features known"])
        vectors = feature[:, where].T
        centred = vectors - vectors.mean(0)
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        axes = axes[:3] * axes[:3].gather(1, axes[:3].abs().argmax(1, keepdim=True)).sign()
        values = centred @ axes.T
        low, high = values.amin(0), values.amax(0)
        shown = torch.zeros(3, *where.shape)
        shown[: len(axes), where] = ((values - low) / (high - low).clamp(min=1e-9)).T * 215 + 40
        return at(shown, (image.shape[1], image.shape[2])).to(torch.uint8)

    def describe(self, target: EmbeddingTarget, space: Space, policy: Policy) -> tuple[str, dict[str, Any]]:
        c, m, n = target.feature.shape
        length = self.statistics(target, policy)["mean length"]
        values = {"channels": c, "cells": [m, n], "mean length": round(length, 4)}
        return f"{c} channels of {m}x{n} cells, mean length {length:.3g}", values


def standardised(raw: Float[Tensor, "B C h w"], how: EmbeddingPrediction) -> Float[Tensor, "B C h w"]:
    """A teacher's features as the head answers in."""
    return torch.einsum("dc,bcmn->bdmn", how.rotation, raw - how.mean[:, None, None]) * how.scale


TASK = Embedding()
