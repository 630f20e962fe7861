"""Depth: how far every pixel is.

A space's kind says what the values are. "relative inverse": inverse depth up to an unknown scale and shift per image,
larger is nearer, no unit. "metric": metres, larger is farther.

Metres belong to the size in which things are seen: an image that is enlarged s times shows what a camera s times
nearer would, so a view of it has its depth divided by s (Eigen, Puhrsch, Fergus, NeurIPS 2014, section 3.4). 1 is how a
student is asked: the whole image fitted into its input (`View.zoom`).

Shapes: B images, H W pixels of the batch or image, M N cells of a map over the whole image, P valid pixels.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from polyteach._moved import relocated
from polyteach.ground.geometry import View, whole
from polyteach.ground.images import caption
from polyteach.ground.layers import PixelHead, Pyramid
from polyteach.ground.scene import Render
from polyteach.tasks.contract import Metric, Policy, Space, Target, Task, at_one_size, check_map, column, within

RELATIVE, METRIC = "relative inverse", "metric"
AGREED = 1.25
"""How many times as far as their median teachers may take a pixel to be where it counts as known: the usual bound of
accuracy (Eigen et al., 2014); of relative depth, that share of the map's mean deviation from its median."""
GRADIENT_SCALES, GRADIENT_WEIGHT = 4, 0.5  # of MiDaS
FARTHEST = 100
"""A relative map counts as far as this many times its nearest value; MiDaS too caps depth before it is compared."""
LARGEST = 65504.0
"""The largest float16, which is what the store keeps."""
FINE = 1 / 256
"""Share of a relative map's range that the store's float16 may be off by; else the map is scaled first, or moved."""
_INFERNO = (
    (0, 0, 4), (12, 8, 38), (36, 12, 79), (66, 10, 104), (93, 18, 110), (120, 28, 109), (147, 38, 103), (174, 48, 92),
    (199, 62, 76), (221, 81, 58), (237, 105, 37), (248, 133, 15), (252, 165, 10), (250, 198, 45), (242, 230, 97),
    (252, 255, 164),
)  # fmt: skip
"""Every seventeenth colour of matplotlib's perceptual map of that name (CC0), dark to bright."""


@final
@dataclass(frozen=True)
class DepthTarget(Target):
    """value: as the space's kind says. valid: whether the pixel is known; value is 0 elsewhere."""

    value: Float[Tensor, "M N"] = column("map", "float16", unit="metres (metric), or none (relative inverse)")
    valid: Bool[Tensor, "M N"] = column("map", "bool")


class DepthPrediction(NamedTuple):
    """What the head says: a tuple of tensor and flag, so that DDP and torch.export see through it.

    output: "metric": logarithm of metres. Otherwise: inverse depth up to scale and shift.
    """

    output: Float[Tensor, "B H W"]
    metric: bool


class DepthHead(nn.Module):
    """The pixel tasks' head with one output per pixel."""

    def __init__(self, channels: int, metric: bool) -> None:
        super().__init__()
        self.pixels = PixelHead(channels, 1)
        self.metric = metric

    def forward(self, pyramid: Pyramid) -> DepthPrediction:
        return DepthPrediction(self.pixels(pyramid)[:, 0], self.metric)


@final
class Depth(Task[DepthTarget]):
    """Relative inverse: MiDaS's scale-and-shift-invariant loss. Metric: L1 of the logarithm, so that ratios count.

    The relative loss of an image (Ranftl et al., TPAMI 2020) is half the mean absolute difference of both maps, each
    less its median and divided by its mean absolute deviation, plus 0.5 times the mean absolute gradient of that
    difference, summed over 4 scales.
    """

    name = "depth"
    kinds = (RELATIVE, METRIC)
    target = DepthTarget
    combines = frozenset({"fuse"})
    lower_is_better = frozenset({"AbsRel", "RMSE"})

    def check(self, target: DepthTarget, size: tuple[int, int], space: Space) -> DepthTarget:
        """As the contract says; the rest of a metric map where depth is not positive becomes invalid.

        A relative map of which float16, in which the store keeps it, would lose much is scaled, or also moved, until
        it loses little: see `storable`.

        Raises:
            ValueError: also for metres beyond float16's range.
        """
        self.validate(target, size, space)
        value, valid = target.value, target.valid
        if not _is_metric(space):
            return DepthTarget(value=storable(value, valid), valid=valid)
        valid = valid & (value > 0)
        return DepthTarget(value=value.float().masked_fill(~valid, 0), valid=valid)

    def validate(self, target: DepthTarget, size: tuple[int, int], space: Space) -> None:
        metric = _is_metric(space)
        value, valid = target.value, target.valid
        check_map("value", value, size)
        if valid.shape != value.shape:
            raise ValueError(f"valid has shape {tuple(valid.shape)}; value has {tuple(value.shape)}")
        if within(value, -LARGEST, LARGEST):  # also where it is not valid, so that nothing need be picked out
            return
        known = value[valid]
        if not known.isfinite().all():
            raise ValueError(f"value is NaN or infinite at {int((~known.isfinite()).sum())} valid pixels")
        if metric and not within(known, -LARGEST, LARGEST):
            low, high = float(known.min()), float(known.max())
            raise ValueError(f"value must be within +-{LARGEST:g} (float16); got {low:.4g}..{high:.4g}")

    def view(self, target: DepthTarget, view: View) -> DepthTarget:
        return DepthTarget(value=view.dense(target.value, 0), valid=view.dense(target.valid, 0))

    def zoomed(self, target: DepthTarget, zoom: float, space: Space) -> DepthTarget:
        """Metres are divided by it (see above); relative depth has no scale that could change."""
        return replace(target, value=target.value / zoom) if _is_metric(space) and zoom != 1 else target

    def pseudo(self, target: DepthTarget, policy: Policy) -> DepthTarget:
        """The teacher's map, unprocessed (MuST)."""
        return target

    def fused(self, targets: Sequence[DepthTarget], space: Space) -> DepthTarget:
        """The median of the maps where most know it and most are within `AGREED` of it.

        Relative maps are brought to the scale and shift of the first before, by least squares over what both know.
        """
        seen = at_one_size(self, targets, size_of_map)
        valid = torch.stack([t.valid for t in seen])
        value = torch.stack([t.value.float() for t in seen])
        if not _is_metric(space):
            both = valid & valid[0]
            each = zip(value, both, strict=True)
            value = torch.stack([aligned(v[k], value[0][k], v) if k.any() else v for v, k in each])
        middle = value.masked_fill(~valid, math.nan).nanquantile(0.5, dim=0)
        off = (value - middle).abs()
        if _is_metric(space):
            near = off <= (AGREED - 1) * middle
        else:
            first = value[0][valid[0]]
            near = off <= (AGREED - 1) * (first - first.median()).abs().mean() if len(first) else valid
        agreed = ((near & valid).sum(0) * 2 > len(targets)) & middle.isfinite()
        return DepthTarget(value=middle.nan_to_num(0).masked_fill(~agreed, 0), valid=agreed)

    def likened(self, target: DepthTarget, space: Space, kind: str) -> DepthTarget | None:
        """Metres as relative inverse depth, which has any scale and shift; not the other way."""
        if not _is_metric(space) or kind != RELATIVE:
            return None
        valid = target.valid & (target.value > 0)
        return DepthTarget(value=(1 / target.value.where(valid, 1)).masked_fill(~valid, 0), valid=valid)

    def constant(self, targets: Iterable[DepthTarget], space: Space) -> DepthTarget | None:
        """The mean over images of their mean depth; of relative depth any number, which is aligned to each image."""
        means = [float(t.value[t.valid].double().mean()) for t in targets if bool(t.valid.any())]
        if not means:
            return None
        value = sum(means) / len(means) if _is_metric(space) else 1.0
        return DepthTarget(value=torch.full((1, 1), value), valid=torch.ones(1, 1, dtype=torch.bool))

    def nothing(self, target: DepthTarget, space: Space) -> str:
        return "" if bool(target.valid.any()) else "no valid pixel"

    def head(self, widths: dict[str, int], space: Space) -> nn.Module:
        return DepthHead(widths["p2"], _is_metric(space))

    def loss(self, prediction: DepthPrediction, targets: Sequence[DepthTarget]) -> Float[Tensor, ""]:
        output = prediction.output.float()
        if not targets:
            return output.sum() * 0
        true = torch.stack([t.value for t in targets]).to(output)
        valid = torch.stack([t.valid for t in targets]).to(output.device)
        with torch.autocast(output.device.type, enabled=False):
            if not prediction.metric:
                return relative_loss(output, true, valid)
            valid = valid & (true > 0)
            error = (output - true.where(valid, true.new_ones(())).log()).abs()
            return (error * valid).sum() / valid.sum().clamp(min=1)

    def amounts(self, targets: Sequence[DepthTarget], space: Space) -> tuple[float, ...]:
        """Pixels of metric depth; images that say something of relative depth."""
        if _is_metric(space):
            return (float(sum(int((t.valid & (t.value > 0)).sum()) for t in targets)),)
        return (float(sum(int(_informative(t.value.float()[None], t.valid[None])[2]) for t in targets)),)

    def decode(self, prediction: DepthPrediction) -> list[DepthTarget]:
        """Metric depth is kept within 0.1 mm and 60 km, which float16 can hold."""
        output = prediction.output.detach().float().cpu()
        values = output.clamp(-9, 11).exp() if prediction.metric else output
        return [DepthTarget(value=v, valid=torch.ones_like(v, dtype=torch.bool)) for v in values]

    def metric(self, space: Space) -> Metric:
        from polyteach.tasks._depth_metric import DepthErrors  # torchmetrics takes seconds

        return DepthErrors(_is_metric(space))

    def statistics(self, target: DepthTarget, policy: Policy) -> dict[str, float]:
        return {"valid pixels": float(target.valid.float().mean())}

    def draw(self, image: UInt8[Tensor, "3 H W"], target: DepthTarget, space: Space) -> UInt8[Tensor, "3 H W"]:
        """Near is bright, far is dark, unknown is grey; the 2nd and 98th percentile span the colours."""
        metric = _is_metric(space)
        view = whole(size_of_map(target), (image.shape[1], image.shape[2]))
        value, valid = view.dense(target.value), view.dense(target.valid)
        if metric:
            valid = valid & (value > 0)
        grey = image.float().mean(0).mul(0.5).to(torch.uint8).expand(3, -1, -1)
        if not valid.any():
            return caption(grey.contiguous(), ["no depth known"])
        near = torch.where(valid, 1 / value, 0) if metric else value
        known = near[valid]
        low, high = (known.kthvalue(1 + round(q * (len(known) - 1))).values for q in (0.02, 0.98))
        share = ((near - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        drawing = torch.where(valid, _coloured(share.masked_fill(~valid, 0)), grey)
        return caption(drawing, [f"{1 / high:.3g} to {1 / low:.3g} m"]) if metric else drawing

    def describe(self, target: DepthTarget, space: Space, policy: Policy) -> tuple[str, dict[str, Any]]:
        """The range of 96 % of the pixels, and the median; metres, or relative inverse depth, larger is nearer."""
        metric = _is_metric(space)
        known = target.value[target.valid & (target.value > 0)] if metric else target.value[target.valid]
        if not len(known):
            return "no depth known", {"kind": space.kind, "valid": 0.0}
        low, middle, high = (float(known.kthvalue(1 + round(q * (len(known) - 1))).values) for q in (0.02, 0.5, 0.98))
        values = {"kind": space.kind, "valid": round(len(known) / target.value.numel(), 4)}
        values |= {"percentile_2": low, "median": middle, "percentile_98": high}
        unit = " m" if metric else " (relative, larger is nearer)"
        return f"{low:.3g} to {high:.3g}, median {middle:.3g}{unit}", values

    def truth(self, render: Render, space: Space) -> DepthTarget:
        """z of the rendered world, taken as metres, or its inverse."""
        value = render.depth if _is_metric(space) else 1 / render.depth
        return DepthTarget(value=value, valid=torch.ones_like(value, dtype=torch.bool))


def aligned(
    predicted: Float[Tensor, " P"], true: Float[Tensor, " P"], moved: Float[Tensor, "*S"] | None = None
) -> Float[Tensor, "*S"]:
    """scale * predicted + shift, with the two numbers that bring it closest to `true` by least squares.

    moved: what these numbers are for instead, such as a map of which only some pixels are in both.
    """
    mean = predicted.mean()
    centred = predicted - mean
    power = centred.square().sum()
    scale = (centred * (true - true.mean())).sum() / power if power > 0 else power
    return (centred if moved is None else moved - mean) * scale + true.mean()


def relative_loss(
    predicted: Float[Tensor, "B H W"], true: Float[Tensor, "B H W"], valid: Bool[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    """MiDaS's scale-and-shift-invariant loss, averaged over images that say something.

    An image whose truth has no valid pixel, or the same value everywhere, says nothing about relative depth.
    """
    median, spread, informative = _informative(true, valid)
    valid = valid & informative[:, None, None]
    flat = (true - median[:, None, None]) / spread.where(informative, spread.new_ones(()))[:, None, None]
    median, spread = _median_and_spread(predicted, valid)
    mine = (predicted - median[:, None, None]) / spread.clamp(min=1e-6)[:, None, None]
    residual = (mine - flat).masked_fill(~valid, 0)
    loss = residual.abs().sum((1, 2)) / (2 * valid.sum((1, 2)).clamp(min=1))
    for k in range(GRADIENT_SCALES):
        r, v = residual[:, :: 2**k, :: 2**k], valid[:, :: 2**k, :: 2**k]
        across = (r[:, :, 1:] - r[:, :, :-1]).abs() * (v[:, :, 1:] & v[:, :, :-1])
        down = (r[:, 1:] - r[:, :-1]).abs() * (v[:, 1:] & v[:, :-1])
        steps = across.sum((1, 2)) + down.sum((1, 2))
        loss = loss + GRADIENT_WEIGHT * steps / v.sum((1, 2)).clamp(min=1)
    return loss.sum() / informative.sum().clamp(min=1)


def storable(value: Float[Tensor, "M N"], valid: Bool[Tensor, "M N"]) -> Float[Tensor, "M N"]:
    """A relative map, in float32, that keeps its values in float16, to `FINE` of its range; 0 where it is not valid.

    The same map where float16 holds it as it is; else scaled by a power of two, so that its largest value is below 1;
    and where it varies by little around much, which no scale helps, moved and scaled to 0..1. All of these are the
    same relative inverse depth.
    """
    exact = value.double()
    known = exact[valid]
    if not len(known):
        return torch.zeros_like(exact).float()
    low, high = known.min(), known.max()
    scaled = torch.ldexp(exact, -torch.frexp(known.abs().max()).exponent)
    moved = (exact - low) / (high - low).clamp(min=torch.finfo(exact.dtype).tiny)
    for candidate in (exact, scaled):
        seen = candidate[valid]
        off = (seen - seen.half()).abs().max()
        if off <= FINE * (seen.max() - seen.min()) or (low == high and off < math.inf):  # the same everywhere
            return candidate.float().masked_fill(~valid, 0)
    return moved.float().masked_fill(~valid, 0)


def _informative(
    true: Float[Tensor, "B H W"], valid: Bool[Tensor, "B H W"]
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """`_median_and_spread`, and which images say something: have valid pixels, of more than one value."""
    median, spread = _median_and_spread(true, valid)
    return median, spread, spread > 1e-6 * median.abs() + 1e-30


def _median_and_spread(
    value: Float[Tensor, "B H W"], valid: Bool[Tensor, "B H W"]
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Median and mean absolute deviation from it over each image's valid pixels; 0 where there are none."""
    known = torch.where(valid, value, torch.nan).flatten(1)
    median = known.nanmedian(1).values
    median = torch.where(valid.flatten(1).any(1), median, 0)
    deviation = (value - median[:, None, None]).abs().masked_fill(~valid, 0)
    return median, deviation.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)


def _is_metric(space: Space) -> bool:
    if space.kind not in Depth.kinds:
        raise ValueError(f"depth of kind {space.kind!r}; the space's kind is one of {', '.join(Depth.kinds)}")
    return space.kind == METRIC


def _coloured(share: Float[Tensor, "H W"]) -> UInt8[Tensor, "3 H W"]:
    """0 dark to 1 bright, straight lines between the table's colours."""
    table = torch.tensor(_INFERNO, dtype=torch.float32)
    at = share * (len(table) - 1)
    index = at.floor().clamp(max=len(table) - 2)
    part = (at - index)[..., None]
    index = index.long()
    return ((1 - part) * table[index] + part * table[index + 1]).round().to(torch.uint8).permute(2, 0, 1)


def size_of_map(target: DepthTarget) -> tuple[int, int]:
    """(height, width) of the map, in cells."""
    return target.value.shape[0], target.value.shape[1]


__getattr__ = relocated(__name__)
TASK = Depth()
