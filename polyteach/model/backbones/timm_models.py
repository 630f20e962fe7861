"""timm's models as backbones: those that give maps at strides 4, 8, 16 and 32, and those that keep one resolution.

Shapes: B images of a batch, H W its pixels, both multiples of 32; of the others, of their patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import Tensor

from polyteach.model.backbones import _timm_plain, is_plain, no_maps
from polyteach.model.backbones._timm_weights import created, dropping, own_size

STRIDES = (4, 8, 16, 32)
SIZE = 128
"""Height and width of the images by which maps are looked at where no size is known; else what a model is made for."""


@dataclass(frozen=True)
class _Maps:
    """How the maps at `STRIDES` are had of a model of timm's.

    options: for `timm.create_model`. channels: of each map. channels_last: whether it gives them so.
    """

    options: dict[str, Any]
    channels: tuple[int, ...]
    channels_last: bool


def load(name: str, init: str | None, size: tuple[int, int] | None, drop_path: float = 0.0) -> Any:
    """The model of that name as a `Backbone`; see `backbones.load_backbone`.

    Raises:
        ValueError: it has no maps at those strides, it takes no images of that size, `init` is no file of weights
            that fit, or it has no stochastic depth and was to have it.
    """
    if _one_resolution(name):
        return _timm_plain.load(name, init, size, drop_path)
    maps = _maps(name, size)
    # earlier versions looked at a model of its own, which drew its weights: with it a seed still gives the same network
    timm.create_model(name, features_only=True, pretrained=False)
    model = created(name, init, dropping(name, size or own_size(name, SIZE), maps.options, drop_path))
    if maps.channels_last:
        model.register_forward_hook(_channels_first)  # and not a module around it, which would rename its weights
    model.channels, model.strides = maps.channels, STRIDES
    model.multiple = max(STRIDES)
    return model


def _channels_first(model: Any, given: Any, maps: Sequence[Tensor]) -> list[Tensor]:
    return [x.permute(0, 3, 1, 2) for x in maps]


@lru_cache(maxsize=64)
def _maps(name: str, size: tuple[int, int] | None) -> _Maps:
    """How the wanted maps are had, found out on a model without memory (torch's "meta" device).

    What timm says of strides is held against what an image of that size gives: some models pad less, or number their
    stages otherwise. Models that are made for one size are made for this one (`img_size`), where they can be.

    Raises:
        ValueError: there are no such maps, or not of images of that size.
    """
    options = _chosen(name)
    sizes = [size] if size else [(SIZE, SIZE), own_size(name, SIZE)]
    refused = ""
    for seen, more in ((s, m) for s in sizes for m in ({}, {"img_size": s})):
        try:
            shapes, channels, last = _shapes(name, seen, options | more)
        except Exception as e:  # a model's own: assertions, and errors of shape
            refused = refused or f"{type(e).__name__}: {e}".splitlines()[0].rstrip(": ")
            continue
        wanted = [(seen[0] // stride, seen[1] // stride) for stride in STRIDES]
        if shapes == wanted:
            return _Maps({**options, **(more if size else {})}, channels, last)
        (got, want, stride) = next(x for x in zip(shapes, wanted, STRIDES, strict=True) if x[0] != x[1])
        refused = (
            f"its map of stride {stride} is {got[0]}x{got[1]} (height x width), where {want[0]}x{want[1]} is wanted"
        )
    raise no_maps(name, sizes[0], refused, own_size(name, SIZE) if size else None)


def _chosen(name: str) -> dict[str, Any]:
    """What timm has to be told so that the model gives the wanted maps and nothing else.

    Raises:
        ValueError: it has no maps at those strides, or none at all.
    """
    info = _feature_info(name)
    reductions = info.reduction()
    if not set(STRIDES) <= set(reductions):
        raise ValueError(f"backbone {name!r} has features at strides {reductions}; a pyramid needs {STRIDES}")
    # by timm's numbers of them, which need not begin at 0; of several at one stride the last
    last = dict(zip(reductions, info.out_indices, strict=True))
    return {"features_only": True, "out_indices": tuple(last[s] for s in STRIDES)}


def _one_resolution(name: str) -> bool:
    """Whether all of the model's layers give maps of one stride, as those of plain vision transformers do."""
    return is_plain(_feature_info(name).reduction())


@lru_cache(maxsize=64)
def _feature_info(name: str) -> Any:
    """What timm says of the maps that a model gives.

    Raises:
        ValueError: it gives none.
    """
    try:
        with torch.device("meta"):
            probe: Any = timm.create_model(name, features_only=True, pretrained=False)
    except (RuntimeError, AttributeError, AssertionError, NotImplementedError) as e:
        raise ValueError(f"backbone {name!r} gives no feature maps: {e}") from e
    return probe.feature_info


def _shapes(
    name: str, size: tuple[int, int], options: dict[str, Any]
) -> tuple[list[tuple[int, int]], tuple[int, ...], bool]:
    """(height, width) and channels of the maps of an image of that size, and whether channels come last."""
    with torch.device("meta"), torch.inference_mode():
        model: Any = timm.create_model(name, pretrained=False, **options).eval()
        found = [tuple(x.shape) for x in model(torch.zeros(1, 3, *size))]
    channels = tuple(model.feature_info.channels())
    last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
    if not last and any(x[1] != c for x, c in zip(found, channels, strict=True)):
        last = True  # some do not say it
    if any(len(x) != 4 or x[3 if last else 1] != c for x, c in zip(found, channels, strict=True)):
        raise ValueError(f"maps have the shapes {found}, and {channels} channels are said")
    return [(x[1], x[2]) if last else (x[2], x[3]) for x in found], channels, last
