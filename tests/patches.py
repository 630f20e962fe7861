"""A seventh task, whose target is a feature map: what another network's features of an image's patches are.

`test_sixth_task.py` adds this one file to the package. A rendered world has no answer to it, so it has no `truth`.

Shapes: B images, C channels, m n cells of a feature map, h w cells of level 2 of the pyramid, H W pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchmetrics import Metric

from polyteach.ground.geometry import View
from polyteach.ground.layers import Pyramid, fuse, tower
from polyteach.tasks.contract import Policy, Space, Target, Task, check_map, column, weighted_mean

CHANNELS = 8
STRIDE = 4


@final
@dataclass(frozen=True)
class PatchesTarget(Target):
    """feature: covers the whole image at any resolution; a cell of zeros is not known."""

    feature: Float[Tensor, "C m n"] = column("features", "float16")


def at(feature: Float[Tensor, "C m n"], size: tuple[int, int]) -> Float[Tensor, "C h w"]:
    """At another resolution, by nearest neighbour."""
    if tuple(feature.shape[1:]) == size:
        return feature
    return F.interpolate(feature[None], size, mode="nearest-exact")[0]


def known(feature: Float[Tensor, "*B C m n"]) -> Float[Tensor, "*B m n"]:
    """1 where there is a feature, else 0."""
    return (feature != 0).any(-3).float()


class PatchesHead(nn.Module):
    """Three convolutions on the fused pyramid and a linear one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = tower(channels, 3)
        self.out = nn.Conv2d(channels, CHANNELS, 1)

    def forward(self, pyramid: Pyramid) -> Float[Tensor, "B C h w"]:
        return self.out(self.hidden(fuse(pyramid))).float()


class Cosine(Metric):
    """Mean cosine similarity of the cells that are known, in percent."""

    full_state_update = False
    total: Tensor
    cells: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("cells", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[PatchesTarget], true: Sequence[PatchesTarget]) -> None:
        for p, t in zip(predicted, true, strict=True):
            where = known(t.feature)
            guess = at(p.feature, (t.feature.shape[1], t.feature.shape[2]))
            self.total += (F.cosine_similarity(guess, t.feature, dim=0) * where).sum()
            self.cells += where.sum()

    def compute(self) -> dict[str, float]:
        return {"cosine": 100 * float(self.total / self.cells.clamp(min=1))}


@final
class Patches(Task[PatchesTarget]):
    """One less the cosine similarity, over the cells that are known."""

    name = "patches"
    target = PatchesTarget

    def check(self, target: PatchesTarget, size: tuple[int, int], space: Space) -> PatchesTarget:
        check_map("feature", target.feature, size, CHANNELS)
        if not target.feature.isfinite().all():
            raise ValueError("feature has NaN or infinity")
        return target

    def view(self, target: PatchesTarget, view: View) -> PatchesTarget:
        coarse = replace(view, size=(math.ceil(view.size[0] / STRIDE), math.ceil(view.size[1] / STRIDE)))
        return PatchesTarget(feature=coarse.dense(target.feature))

    def pseudo(self, target: PatchesTarget, policy: Policy) -> PatchesTarget:
        return target

    def head(self, widths: dict[str, int], space: Space) -> nn.Module:
        return PatchesHead(widths["p2"])

    def loss(self, prediction: Float[Tensor, "B C h w"], targets: Sequence[PatchesTarget]) -> Float[Tensor, ""]:
        if not targets:
            return prediction.sum() * 0
        size = (prediction.shape[2], prediction.shape[3])
        true = torch.stack([at(t.feature, size) for t in targets]).to(prediction)
        return weighted_mean(1 - F.cosine_similarity(prediction, true, dim=1), known(true))

    def amounts(self, targets: Sequence[PatchesTarget], space: Space) -> tuple[float, ...]:
        return (sum(float(known(t.feature).sum()) for t in targets),)

    def decode(self, prediction: Float[Tensor, "B C h w"]) -> list[PatchesTarget]:
        return [PatchesTarget(feature=p) for p in F.normalize(prediction.detach().float().cpu(), dim=1)]

    def metric(self, space: Space) -> Metric:
        return Cosine()

    def statistics(self, target: PatchesTarget, policy: Policy) -> dict[str, float]:
        return {"known": 100 * float(known(target.feature).mean())}

    def draw(self, image: UInt8[Tensor, "3 H W"], target: PatchesTarget, space: Space) -> UInt8[Tensor, "3 H W"]:
        """The first three channels as red, green and blue."""
        colour = at(target.feature[:3], (image.shape[1], image.shape[2]))
        return (127.5 + 127.5 * colour.clamp(-1, 1)).to(torch.uint8)


TASK = Patches()
