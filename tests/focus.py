"""A sixth task: where the picture's most prominent object is. `test_sixth_task.py` adds this one file to the package.

Shapes: B images, K points (one, or none where nothing is to be seen), H W pixels of the batch or image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchmetrics import Metric

from polyteach.ground.geometry import View
from polyteach.ground.layers import PixelHead, Pyramid
from polyteach.ground.scene import Render
from polyteach.tasks.contract import Policy, Space, Target, Task, column


@final
@dataclass(frozen=True)
class FocusTarget(Target):
    """At most one point (x, y) in pixels."""

    point: Float[Tensor, "K 2"] = column("rows", "float32", width=2, unit="pixels")


class FocusHead(nn.Module):
    """The expected position under a heat map (integral regression; Sun et al., ECCV 2018), in pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heat = PixelHead(channels, 1)

    def forward(self, pyramid: Pyramid) -> Float[Tensor, "B 2"]:
        heat = self.heat(pyramid)[:, 0]
        share = heat.flatten(1).softmax(1).view_as(heat)
        x = torch.arange(heat.shape[2], device=heat.device) + 0.5
        y = torch.arange(heat.shape[1], device=heat.device) + 0.5
        return torch.stack([(share.sum(1) * x).sum(1), (share.sum(2) * y).sum(1)], 1)


class Near(Metric):
    """Share of points predicted within 4 pixels of the truth, in percent."""

    full_state_update = False
    hits: Tensor
    points: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("points", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[FocusTarget], true: Sequence[FocusTarget]) -> None:
        for p, t in zip(predicted, true, strict=True):
            self.points += len(t.point)
            if len(p.point) and len(t.point):
                self.hits += (p.point[0] - t.point[0]).norm() <= 4

    def compute(self) -> dict[str, float]:
        return {"within 4 px": 100 * int(self.hits) / max(int(self.points), 1)}


@final
class Focus(Task[FocusTarget]):
    """L1 of the position, in pixels."""

    name = "focus"
    target = FocusTarget

    def check(self, target: FocusTarget, size: tuple[int, int], space: Space) -> FocusTarget:
        if target.point.ndim != 2 or target.point.shape[1] != 2 or len(target.point) > 1:
            raise ValueError(f"point has shape {tuple(target.point.shape)}, not (0, 2) or (1, 2)")
        if not target.point.isfinite().all():
            raise ValueError(f"point {target.point.tolist()} is not finite")
        inside = ((target.point >= 0) & (target.point <= target.point.new_tensor([size[1], size[0]]))).all(1)
        return FocusTarget(point=target.point[inside])

    def view(self, target: FocusTarget, view: View) -> FocusTarget:
        low = torch.tensor([view.left, view.top])
        high = low + torch.tensor([view.width, view.height])
        # one on the edge of a view comes back from another a rounding beyond it
        inside = ((target.point >= low - 1e-3) & (target.point < high + 1e-3)).all(1)
        on = target.point[inside].clamp(low, high)
        return FocusTarget(point=view.boxes(on.repeat(1, 2))[:, :2])

    def pseudo(self, target: FocusTarget, policy: Policy) -> FocusTarget:
        return target

    def head(self, widths: dict[str, int], space: Space) -> nn.Module:
        return FocusHead(widths["p2"])

    def loss(self, prediction: Float[Tensor, "B 2"], targets: Sequence[FocusTarget]) -> Float[Tensor, ""]:
        known = [i for i, t in enumerate(targets) if len(t.point)]
        if not known:
            return prediction.sum() * 0
        true = torch.cat([targets[i].point for i in known]).to(prediction)
        return (prediction[known] - true).abs().mean()

    def amounts(self, targets: Sequence[FocusTarget], space: Space) -> tuple[float, ...]:
        return (float(sum(len(t.point) for t in targets)),)

    def decode(self, prediction: Float[Tensor, "B 2"]) -> list[FocusTarget]:
        return [FocusTarget(point=p[None]) for p in prediction.detach().float().cpu()]

    def metric(self, space: Space) -> Metric:
        return Near()

    def statistics(self, target: FocusTarget, policy: Policy) -> dict[str, float]:
        return {"points": float(len(target.point))}

    def draw(self, image: UInt8[Tensor, "3 H W"], target: FocusTarget, space: Space) -> UInt8[Tensor, "3 H W"]:
        """Darker the farther from the point."""
        y, x = torch.meshgrid(*(torch.arange(s) + 0.5 for s in image.shape[1:]), indexing="ij")
        light = torch.full(image.shape[1:], 0.3)
        for px, py in target.point.tolist():
            light = (1 - ((x - px) ** 2 + (y - py) ** 2).sqrt() / max(image.shape[1:])).clamp(0.3, 1)
        return (image * light).to(torch.uint8)

    def truth(self, render: Render, space: Space) -> FocusTarget:
        seen = render.instance[render.instance >= 0]
        largest = seen.bincount(minlength=1).argmax()
        at = (render.instance == largest).nonzero().float()
        return FocusTarget(point=(at.mean(0) + 0.5).flip(0)[None] if len(at) else torch.zeros(0, 2))


TASK = Focus()
