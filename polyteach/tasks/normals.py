"""Surface normals: which way every pixel's surface faces.

Axes: x right, y down, z away from the camera; a surface that is seen faces the camera, so z < 0.
Shapes: B images, H W pixels of the batch or image, M N cells of a map over the whole image.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from polyteach._moved import relocated
from polyteach.ground.geometry import View, whole
from polyteach.ground.images import caption
from polyteach.ground.layers import PixelHead
from polyteach.ground.scene import Render
from polyteach.tasks.contract import Metric, Policy, Space, Target, Task, at_one_size, check_map, column, within

AGREED = 30.0
"""Degrees that teachers may be off their mean direction where it is taken for known: the widest of the usual bounds."""
BIN = 0.01
"""Width in degrees of the histogram from which the median angle is read."""


@final
@dataclass(frozen=True)
class NormalsTarget(Target):
    """normal: unit vector of the surface, towards the camera's side. valid: whether it is known; 0 elsewhere."""

    normal: Float[Tensor, "3 M N"] = column("map", "int8", scale=1 / 127, unit="unit vector, x right y down z away")
    valid: Bool[Tensor, "M N"] = column("map", "bool")


def _squares(normal: Float[Tensor, "3 M N"]) -> Float[Tensor, "M N"]:
    """Of every vector's length. For a norm over the first dimension torch takes a hundred times as long."""
    x, y, z = normal.float()
    return x.square().addcmul_(y, y).addcmul_(z, z)


@final
class Normals(Task[NormalsTarget]):
    """Mean of 1 - cosine between predicted and true normal."""

    name = "normals"
    target = NormalsTarget
    combines = frozenset({"fuse"})
    lower_is_better = frozenset({"mean angle", "median angle"})

    def check(self, target: NormalsTarget, size: tuple[int, int], space: Space) -> NormalsTarget:
        self.validate(target, size, space)
        normal, valid = target.normal, target.valid
        return NormalsTarget(normal=(normal.float() / _squares(normal).sqrt_()).masked_fill_(~valid, 0), valid=valid)

    def validate(self, target: NormalsTarget, size: tuple[int, int], space: Space) -> None:
        normal, valid = target.normal, target.valid
        check_map("normal", normal, size, channels=3)
        if valid.shape != normal.shape[1:]:
            raise ValueError(f"valid has shape {tuple(valid.shape)}; normal has {tuple(normal.shape)}")
        squares = _squares(normal)
        least, most = 0.9**2, 1.1**2
        if within(squares, least, most) or within(squares.masked_fill_(~valid, 1), least, most):
            return
        known = squares[valid].sqrt()
        if not known.isfinite().all():
            raise ValueError(f"normal is NaN or infinite at {int((~known.isfinite()).sum())} valid pixels")
        low, high = float(known.min()), float(known.max())
        raise ValueError(f"normal must have length 1 at valid pixels; got {low:.4g}..{high:.4g}")

    def view(self, target: NormalsTarget, view: View) -> NormalsTarget:
        normal = view.dense(target.normal, 0)
        if view.mirrored:
            normal = normal * normal.new_tensor([-1, 1, 1])[:, None, None]
        return NormalsTarget(normal=normal, valid=view.dense(target.valid, 0))

    def pseudo(self, target: NormalsTarget, policy: Policy) -> NormalsTarget:
        """The teacher's map, unprocessed."""
        return target

    def fused(self, targets: Sequence[NormalsTarget], space: Space) -> NormalsTarget:
        """The direction of the mean of the vectors, where they are known and within about `AGREED` of it on average."""
        seen = at_one_size(self, targets, size_of_map)
        valid = torch.stack([t.valid for t in seen])
        vector = torch.stack([t.normal.float() for t in seen]) * valid[:, None]
        count = valid.sum(0)
        mean = vector.sum(0) / count.clamp(min=1)
        length = mean.norm(dim=0)
        agreed = (count * 2 > len(targets)) & (length >= math.cos(math.radians(AGREED)))
        return NormalsTarget(normal=(mean / length.clamp(min=1e-6)) * agreed, valid=agreed)

    def constant(self, targets: Iterable[NormalsTarget], space: Space) -> NormalsTarget | None:
        """The mean direction."""
        total = sum((t.normal[:, t.valid].double().sum(1) for t in targets), torch.zeros(3, dtype=torch.float64))
        length = total.norm()
        if not bool(length > 0):
            return None
        mean = (total / length).float()
        return NormalsTarget(normal=mean.reshape(3, 1, 1), valid=torch.ones(1, 1, dtype=torch.bool))

    def nothing(self, target: NormalsTarget, space: Space) -> str:
        return "" if bool(target.valid.any()) else "no valid pixel"

    def head(self, widths: dict[str, int], space: Space) -> nn.Module:
        return PixelHead(widths["p2"], 3)

    def loss(self, prediction: Float[Tensor, "B 3 H W"], targets: Sequence[NormalsTarget]) -> Float[Tensor, ""]:
        vector = prediction.float()
        if not targets:
            return vector.sum() * 0
        true = torch.stack([t.normal for t in targets]).to(vector)
        valid = torch.stack([t.valid for t in targets]).to(vector.device)
        with torch.autocast(vector.device.type, enabled=False):
            # F.cosine_similarity takes its norms across strides, which on a CPU costs as much as a small backbone
            squares = (vector.square().sum(1) * true.square().sum(1)).clamp(min=1e-16)
            error = 1 - (vector * true).sum(1) * squares.rsqrt()
            return (error * valid).sum() / valid.sum().clamp(min=1)

    def amounts(self, targets: Sequence[NormalsTarget], space: Space) -> tuple[float, ...]:
        return (float(sum(int(t.valid.sum()) for t in targets)),)

    def decode(self, prediction: Float[Tensor, "B 3 H W"]) -> list[NormalsTarget]:
        """Every pixel valid; a vector of no length, which has no direction, faces the camera."""
        vector = prediction.detach().float().cpu()
        length = vector.norm(dim=1, keepdim=True)
        facing = vector.new_tensor([0, 0, -1])[:, None, None]
        unit = torch.where(length > 1e-12, vector / length.clamp(min=1e-12), facing)
        return [NormalsTarget(normal=n, valid=torch.ones_like(n[0], dtype=torch.bool)) for n in unit]

    def metric(self, space: Space) -> Metric:
        from polyteach.tasks._normals_metric import Angles  # torchmetrics takes seconds

        return Angles()

    def statistics(self, target: NormalsTarget, policy: Policy) -> dict[str, float]:
        return {"valid pixels": float(target.valid.float().mean())}

    def draw(self, image: UInt8[Tensor, "3 H W"], target: NormalsTarget, space: Space) -> UInt8[Tensor, "3 H W"]:
        """Red faces right, green up, blue the camera, as is usual; unknown is black."""
        view = whole(size_of_map(target), (image.shape[1], image.shape[2]))
        normal, valid = view.dense(target.normal), view.dense(target.valid)
        shown = normal * normal.new_tensor([1, -1, -1])[:, None, None]
        if not valid.any():
            return caption(torch.zeros_like(image), ["no normals known"])
        return ((shown + 1) * 127.5).clamp(0, 255).masked_fill(~valid, 0).to(torch.uint8)

    def describe(self, target: NormalsTarget, space: Space, policy: Policy) -> tuple[str, dict[str, Any]]:
        """Shares of the known pixels by the direction that they face most: camera, up, down, left, right."""
        vectors = target.normal[:, target.valid]
        if not vectors.shape[1]:
            return "no normals known", {"valid": 0.0}
        x, y, z = vectors
        facing = torch.stack([-z, -y, y, -x, x]).argmax(0).bincount(minlength=5) / vectors.shape[1]
        shares = dict(zip(("camera", "up", "down", "left", "right"), facing.tolist(), strict=True))
        values = {"valid": round(vectors.shape[1] / target.valid.numel(), 4)}
        said = ", ".join(f"{k} {v:.0%}" for k, v in sorted(shares.items(), key=lambda kv: -kv[1]) if v >= 0.005)
        return f"faces {said}", values | {"faces": {k: round(v, 4) for k, v in shares.items()}}

    def truth(self, render: Render, space: Space) -> NormalsTarget:
        return NormalsTarget(normal=render.normal, valid=torch.ones_like(render.instance, dtype=torch.bool))


def size_of_map(target: NormalsTarget) -> tuple[int, int]:
    """(height, width) of the map, in cells."""
    return target.valid.shape[0], target.valid.shape[1]


__getattr__ = relocated(__name__)
TASK = Normals()
