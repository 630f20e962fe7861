"""Vision models of transformers as encoders.

Shapes: B images, h w pixels of the model's input, m n cells of its map.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
import transformers
from jaxtyping import Float
from torch import Tensor, nn

from polyteach.ground.hub_models import located, read_config, read_processor, untrained, weights
from polyteach.teachers._features_encoder import Encoder
from polyteach.teachers._transformers_files import licence_of, provenance

STRIDES = (32, 16, 14, 8, 4)
"""Pixels that a token may stand for, where a model does not say it."""
MOST_PREFIX = 64
"""Tokens that may stand before those of the patches: of the class, and registers."""
PARTS = ("vision_model", "vision_encoder", "vision_tower")
"""What models of several kinds of input call the part that sees."""


class _Tokens(nn.Module):
    """A vision model of transformers, whose tokens or maps become one map and one vector.

    pooled: whether its pooled output is the vector; else the first token, or the mean of a map.
    """

    def __init__(self, model: Any, stride: int, prefix: int, pooled: bool) -> None:
        super().__init__()
        self.model, self.stride, self.prefix, self.pooled = model, stride, prefix, pooled

    def forward(self, x: Float[Tensor, "B 3 h w"]) -> tuple[Tensor, Tensor]:
        found = _said(self.model, x)
        tokens = found.last_hidden_state
        if tokens.ndim == 3:
            m, n = x.shape[2] // self.stride, x.shape[3] // self.stride
            dense = tokens[:, self.prefix :].transpose(1, 2).reshape(len(x), -1, m, n)
        else:
            dense = tokens
        if self.pooled:
            return dense, found.pooler_output
        return dense, tokens[:, 0] if self.prefix else dense.mean((2, 3))


def encoder(name: str) -> Encoder:
    """A vision model of transformers, or the vision part of a model that has one.

    Raises:
        ValueError: no such model, no usable weights, or one whose output is no map of features.
    """
    place, origin = located(name)
    config = read_config(place)
    processor = read_processor(place)
    whole, lacking = weights(transformers.AutoModel, place)
    part = next((p for p in PARTS if hasattr(whole, p)), "")
    model: Any = getattr(whole, part) if part else whole
    missing = [k for k in lacking if not part or k.startswith(f"{part}.")]
    if holes := [k for k in missing if "pooler" not in k]:
        raise untrained(holes, place, "features")
    about = getattr(config, "vision_config", None) or config
    size = _sides(getattr(about, "image_size", None) or dict(getattr(processor, "size", None) or {}), place)
    stride, prefix, pooled = _layout(model.eval(), about, size, place)
    size = (size[0] // stride * stride, size[1] // stride * stride)
    tokens = _Tokens(model, stride, prefix, pooled and not missing)
    normal = getattr(processor, "do_normalize", True)
    return Encoder(
        tokens,
        size,
        processor.image_mean if normal else (0.0,) * 3,
        processor.image_std if normal else (1.0,) * 3,
        Path(place).name,
        origin,
        provenance(place, model.state_dict()),
        licence_of(place),
        int(getattr(processor, "resample", 3) or 3) != 2,
    )


def _said(model: Any, x: Float[Tensor, "B 3 h w"]) -> Any:
    """The model's output, for images of another shape than its training's where it can be."""
    takes = inspect.signature(model.forward).parameters
    return model(pixel_values=x, **({"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}))


def _sides(size: Any, place: str) -> tuple[int, int]:
    """(height, width) of a model's images, of what its configuration or its processor says.

    Raises:
        ValueError: neither says it.
    """
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge") or size.get("longest_edge")
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    if not isinstance(size, int):
        raise ValueError(f"{place}/config.json: image_size says no size of images; write it there")
    return size, size


def _layout(model: Any, config: Any, size: tuple[int, int], place: str) -> tuple[int, int, bool]:
    """Pixels along the side of a token, tokens that come before those of the patches, whether there is a pooled output.

    Raises:
        ValueError: the output is neither a map nor tokens that fill one.
    """
    try:
        with torch.inference_mode():
            found = _said(model, torch.zeros(1, 3, *size))
        shape = found.last_hidden_state.shape
    except Exception as e:  # any model's any error
        raise ValueError(f"{place} gives no features of an image: {type(e).__name__}: {e}") from e
    pooler = getattr(found, "pooler_output", None)
    pooled = pooler is not None and pooler.ndim == 2
    if len(shape) == 4:
        return max(size[0] // shape[2], 1), 0, pooled
    said = getattr(config, "patch_size", None)
    for stride in (said,) if isinstance(said, int) else STRIDES:
        prefix = shape[1] - (size[0] // stride) * (size[1] // stride)
        if 0 <= prefix <= MOST_PREFIX:
            return stride, prefix, pooled
    raise ValueError(f"{place} answers an image of {size[0]}x{size[1]} with {shape[1]} tokens, which fill no map")
