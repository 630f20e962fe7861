"""timm's vision transformers, and other models of its that keep one resolution, as backbones.

Shapes: B images, H W their pixels, D channels of the trunk, h w its cells: H and W over the patch.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from polyteach.model.backbones import no_maps
from polyteach.model.backbones._plain import Plain, taken
from polyteach.model.backbones._timm_weights import created, dropping, own_size

USUAL = 224
"""Height and width of the images of a model of which timm says no size."""
FLEXIBLE = "naflexvit"
"""Of timm's module whose models take sequences of patches."""


@dataclass(frozen=True)
class _Trunk:
    """How a plain trunk is made. options: for `timm.create_model`. layers: how many maps it could give.

    normalised: whether it can normalise them all as its last.
    """

    options: dict[str, Any]
    patch: int
    width: int
    layers: int
    prefix: bool
    has_class: bool
    normalised: bool


class TimmPlain(Plain):
    """A model of timm's that gives maps of its layers by `forward_intermediates`."""

    def __init__(self, model: Any, trunk: _Trunk) -> None:
        super().__init__(model, trunk.patch, trunk.width, trunk.has_class, model.pretrained_cfg)
        self._asks = _asks(trunk.prefix, trunk.normalised)
        self._taken = taken(trunk.layers)

    def maps(self, x: Float[Tensor, "B 3 H W"]) -> tuple[list[Tensor], Tensor | None]:
        layers = sorted(set(self._taken))
        found = self.model.forward_intermediates(x, indices=layers, intermediates_only=True, **self._asks)
        pairs = [x if isinstance(x, tuple) else (x, None) for x in found]
        maps = [pairs[layers.index(k)][0] for k in self._taken]
        prefix = pairs[-1][1]
        return maps, None if prefix is None else prefix[:, 0]

    def resized(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By timm's own filter of weights, which interpolates positions; where it does not, by what it would call."""
        mine = {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
        if not mine:
            return dict(weights)
        change = getattr(sys.modules[type(self.model).__module__], "checkpoint_filter_fn", None)
        changed = dict(mine) if change is None else change(mine, self.model)
        own, grid = getattr(self.model, "pos_embed", None), getattr(self.model.patch_embed, "grid_size", None)
        given = changed.get("pos_embed")
        if own is not None and given is not None and grid is not None and own.shape != given.shape and own.ndim == 3:
            before = own.shape[1] - grid[0] * grid[1]
            changed["pos_embed"] = resample_abs_pos_embed(given, list(grid), num_prefix_tokens=before)
        return {**weights, **{f"model.{k}": v for k, v in changed.items()}}


def _asks(prefix: bool, normalised: bool) -> dict[str, Any]:
    more = {"return_prefix_tokens": True} if prefix else {}
    return {"norm": normalised, "output_fmt": "NCHW", **more}


def load(name: str, init: str | None, size: tuple[int, int] | None, drop_path: float = 0.0) -> Plain:
    """The model of that name, which keeps one resolution.

    Raises:
        ValueError: it takes no images of that size, `init` is no file of weights that fit, or it has no stochastic
            depth and was to have it.
    """
    trunk = look(name, size)
    options = dropping(name, size or own_size(name, USUAL), trunk.options, drop_path)
    return TimmPlain(created(name, init, options), trunk)


@lru_cache(maxsize=64)
def look(name: str, size: tuple[int, int] | None) -> _Trunk:
    """What the trunk is, found out on a model without memory (torch's "meta" device).

    Raises:
        ValueError: it gives no maps of its layers, or not of images of that size.
    """
    if timm.model_entrypoint(name.partition(".")[0]).__module__.endswith(FLEXIBLE):
        raise ValueError(
            f"backbone {name!r} takes patches of any number instead of images of one size (NaFlex), which has no maps. "
            "Choose a model of one size, such as vit_base_patch16_siglip_224"
        )
    own = own_size(name, USUAL)
    seen, refused = size or own, ""
    # any size by interpolating positions in every pass, so that the weights are of no size; else made for this one
    for more in ({"dynamic_img_size": True}, {"img_size": seen}, {}):
        options = {"num_classes": 0, **more}
        try:
            return _looked(name, seen, options)
        except TypeError:  # it has no such option
            continue
        except ValueError as e:
            refused = refused or str(e)
        except Exception as e:  # a model's own: assertions, and errors of shape
            refused = refused or f"{type(e).__name__}: {e}".splitlines()[0].rstrip(": .")
    raise no_maps(name, seen, refused or "its layers are not to be had one by one", own)


def _looked(name: str, size: tuple[int, int], options: dict[str, Any]) -> _Trunk:
    """What the trunk answers to an image of that size.

    Raises:
        Exception: what is the model's own.
        ValueError: the maps are of several sizes, or patches do not fill the image.
    """
    with torch.inference_mode(), torch.device("meta"):
        model: Any = timm.create_model(name, pretrained=False, **options).eval()
        patch = _patch(model)
        if patch and (size[0] % patch or size[1] % patch):
            raise ValueError(f"its patches have {patch} pixels, and sides have to be multiples of that")
        try:
            found, normalised = _intermediates(model, torch.zeros(1, 3, *size))
        except RuntimeError as e:
            if "meta" not in str(e):
                raise
            found, normalised = _by_values(name, size, options)
    maps = [x[0] if isinstance(x, tuple) else x for x in found]
    shapes = sorted({tuple(x.shape[1:]) for x in maps})
    (width, high, wide), *others = shapes
    patch = max(size[0] // high, 1)
    if others or (high * patch, wide * patch) != size:
        raise ValueError(f"its maps (channels, height, width) are {', '.join(map(str, shapes))}, at no one stride")
    prefix = isinstance(found[-1], tuple)
    has_class = prefix and getattr(model, "cls_token", None) is not None
    return _Trunk(options, patch, width, len(maps), prefix, has_class, normalised)


def _by_values(name: str, size: tuple[int, int], options: dict[str, Any]) -> tuple[list[Any], bool]:
    """`_intermediates` of a model whose way depends on what it computes, for which it needs memory."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        model: Any = timm.create_model(name, pretrained=False, **options).eval()
        return _intermediates(model, torch.zeros(1, 3, *size))


def _patch(model: Any) -> int:
    """Pixels along the side of the model's patches, 0 where it does not say it."""
    said = getattr(getattr(model, "patch_embed", None), "patch_size", 0)
    said = said[0] if isinstance(said, tuple | list) else said
    return said if isinstance(said, int) else 0


def _intermediates(model: Any, image: Tensor) -> tuple[list[Any], bool]:
    """The maps of all layers, with the tokens before them where there are any; and whether they can be normalised."""
    refused: Exception | None = None
    for normalised in (True, False):
        for prefix in (True, False):
            asks = _asks(prefix, normalised)
            try:
                return model.forward_intermediates(image, intermediates_only=True, **asks), normalised
            except Exception as e:  # some have no norm, some no tokens before, and each says so in its own way
                refused = e
    assert refused is not None
    raise refused
