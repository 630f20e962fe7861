"""What transformers' vision models answer, as maps: of one stride, or as a pyramid. Found out by asking them once.

Shapes: B images, H W their pixels, D channels, h w cells of a map, N tokens.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from polyteach.model.backbones._plain import Plain, taken

STRIDES = (4, 8, 16, 32)
PARTITION = "always_partition"
"""What Swin's encoder takes, so that maps smaller than a window are padded to one; else it fails on them."""
BEFORE = "output_hidden_states_before_downsampling"
"""What Swin's and FocalNet's encoders take, so that a stage's map is what its layers say, not what the next begins
with."""
PREFIX = ("cls_token", "class_token", "class_embedding", "distillation_token", "register_tokens")
"""What models call the tokens that stand before those of the patches."""
CLASS = PREFIX[:3]


@dataclass(frozen=True)
class Shape:
    """How maps are had of a model's answer.

    interpolates: whether it is told to interpolate positions. noise: cells of an image side, where it would mask
    patches by noise (ViTMAE) and is given one that keeps them all in order; 0 for none. partition: whether maps that
    are smaller than a window (Swin) are padded. prefix: tokens before those of
    the patches. has_class: whether the first is of the class. patch: pixels of a cell's side, of maps of one stride; 0
    of a pyramid. layers: how many. picks: of a pyramid, which maps have the first three strides. channels_last: of its
    maps. unnormed: whether its last map is one of those too. widths: channels of what is taken.
    """

    interpolates: bool
    noise: int
    partition: bool
    prefix: int = 0
    has_class: bool = False
    patch: int = 0
    layers: int = 0
    picks: tuple[int, ...] = ()
    channels_last: bool = False
    unnormed: bool = False
    widths: tuple[int, ...] = ()


class PlainTower(Plain):
    """A vision transformer: maps of four depths as its layers say them, the last after its last normalisation.

    config: what `transformers_models.load` builds it from again.
    """

    config: dict[str, Any]

    def __init__(self, model: Any, shape: Shape, size: tuple[int, int], pretrained_cfg: Mapping[str, Any]) -> None:
        super().__init__(model, shape.patch, shape.widths[0], shape.has_class, pretrained_cfg)
        self.shape, self.size = shape, size
        self._taken = taken(shape.layers)

    def maps(self, x: Float[Tensor, "B 3 H W"]) -> tuple[list[Tensor], Tensor | None]:
        found = ask(self.model, x, self.shape)
        hidden, last = found.hidden_states[1:], found.last_hidden_state
        tokens = [*(hidden[k] for k in self._taken[:-1]), last]
        cells = (x.shape[2] // self.shape.patch, x.shape[3] // self.shape.patch)
        return [grid(t, self.shape.prefix, cells) for t in tokens], last[:, 0] if self.shape.has_class else None

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations of layers again in the backward pass, by the library's own switch; see `recomputing`."""
        recomputing(self.model, enable)

    def resized(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tables of positions of another size, interpolated."""
        return fitted(weights, self.state_dict(), self.size)


class PyramidTower(nn.Module):
    """A model whose stages halve the resolution: their maps at strides 4, 8, 16 and 32, the last as the model's last.

    channels, strides, multiple: see `backbones.Backbone`. pretrained_cfg: "mean" and "std" of its images, 0..1. config:
    what `transformers_models.load` builds it from again.
    """

    config: dict[str, Any]

    def __init__(self, model: Any, shape: Shape, size: tuple[int, int], pretrained_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.shape, self.size = model, shape, size
        self.channels, self.strides, self.multiple = shape.widths, STRIDES, max(STRIDES)
        self.pretrained_cfg = dict(pretrained_cfg)
        whole_stages(model, shape.partition)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        return pyramid(ask(self.model, x, self.shape), x, self.shape)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations of layers again in the backward pass, by the library's own switch; see `recomputing`."""
        recomputing(self.model, enable)

    def resized(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tables of positions of another size, interpolated."""
        return fitted(weights, self.state_dict(), self.size)


def recomputing(model: Any, enable: bool) -> None:
    """Let layers of a model keep no activations for the backward pass, which computes them again, or let them.

    Raises:
        NotImplementedError: the model cannot.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise NotImplementedError
    if enable:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


def whole_stages(model: Any, partition: bool) -> None:
    """Have the encoder say what its stages say before they are made smaller, where it can. partition: see `Shape`."""
    encoder = getattr(model, "encoder", None)
    if encoder is None or BEFORE not in inspect.signature(encoder.forward).parameters:
        return
    encoder.register_forward_pre_hook(_before_and_padded if partition else _before_downsampling, with_kwargs=True)
    for stage in getattr(encoder, "stages", ()):  # FocalNet's
        stage.register_forward_hook(_both_sizes)


def _before_downsampling(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return given, {**named, BEFORE: True}


def _before_and_padded(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return given, {**named, BEFORE: True, PARTITION: True}


def _both_sizes(module: Any, given: tuple[Any, ...], said: tuple[Any, ...]) -> tuple[Any, ...]:
    """A stage's (height, width) after those that it began with: FocalNet's encoder reads both, its stages say one."""
    return said[0], said[1], (*given[1], *said[2][-2:])


def ask(model: Any, x: Float[Tensor, "B 3 H W"], shape: Shape) -> Any:
    """The model's answer with the hidden states of all layers."""
    more: dict[str, Any] = {"interpolate_pos_encoding": True} if shape.interpolates else {}
    if shape.noise:
        cells = (x.shape[2] // shape.noise) * (x.shape[3] // shape.noise)
        more["noise"] = torch.arange(cells, device=x.device, dtype=torch.float32).expand(len(x), cells)
    return model(pixel_values=x, output_hidden_states=True, **more)


def grid(tokens: Tensor, prefix: int, cells: tuple[int, int]) -> Float[Tensor, "B D h w"]:
    """Tokens (B, N, D) as a map, without those before the patches'; a map as it is."""
    if tokens.ndim == 4:
        return tokens
    return tokens[:, prefix:].transpose(1, 2).unflatten(2, cells)


def pyramid(found: Any, x: Float[Tensor, "B 3 H W"], shape: Shape) -> list[Tensor]:
    """The maps (B, D, h, w) at `STRIDES` of a model's answer."""
    given = _stages(found)
    maps = [given[k].permute(0, 3, 1, 2) if shape.channels_last else given[k] for k in shape.picks]
    if shape.unnormed:
        return maps
    last = found.last_hidden_state
    if last.ndim == 4 and shape.channels_last:
        last = last.permute(0, 3, 1, 2)
    return [*maps[:-1], grid(last, shape.prefix, (x.shape[2] // STRIDES[-1], x.shape[3] // STRIDES[-1]))]


def _stages(found: Any) -> Sequence[Tensor]:
    reshaped = getattr(found, "reshaped_hidden_states", None)
    return found.hidden_states if reshaped is None else reshaped


def look(model: Any, size: tuple[int, int], interpolates: bool, partition: bool) -> tuple[Shape, frozenset[str]]:
    """How maps of images of that size are had, and which of the model's parameters they do not depend on.

    model: without memory ("meta"), in evaluation mode. interpolates, partition: what it is told, see `Shape`, if
    it can be.

    Raises:
        Exception: what is the model's own.
        ValueError: what it answers is neither maps nor tokens that fill one.
    """
    whole_stages(model, partition)
    takes = inspect.signature(model.forward).parameters
    if {"pixel_attention_mask", "spatial_shapes"} & set(takes):
        raise ValueError("it takes patches of any number instead of images of one size (NaFlex), which have no maps")
    patch = side(getattr(model.config, "patch_size", None))
    masks = "noise" in takes and getattr(model.config, "mask_ratio", None) == 0 and model.config.model_type != "hiera"
    shape = Shape(interpolates and "interpolate_pos_encoding" in takes, patch if masks else 0, partition)
    image = torch.zeros(2, 3, *size, device="meta")
    found = ask(model, image, shape)
    hidden = getattr(found, "hidden_states", None)
    last = getattr(found, "last_hidden_state", None)
    if hidden is None or last is None or any(len(t) != 2 for t in (*hidden, last)):
        raise ValueError("it does not give the hidden states of its layers, image by image")
    one = len({tuple(t.shape) for t in (*hidden, last)}) == 1 and getattr(found, "reshaped_hidden_states", None) is None
    read = _plain(model, shape, (*hidden[:-1], last), size, patch) if one else _pyramid(model, shape, found, size)
    tower = (PlainTower if one else PyramidTower)(model, read, size, {})
    parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
    total = torch.stack([m.mean() for m in tower(image)]).sum()
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return read, frozenset(k for k, g in zip(parameters, gradients, strict=True) if g is None)


def side(said: Any) -> int:
    """Of a square that a configuration describes; 0 where it does not."""
    if isinstance(said, list | tuple) and len(set(said)) == 1:
        said = said[0]
    return said if isinstance(said, int) and said > 0 else 0


def _plain(model: Any, shape: Shape, hidden: Sequence[Tensor], size: tuple[int, int], patch: int) -> Shape:
    """Raises:
    ValueError: what stands before the tokens of the patches is not known, or there are not as many as patches.
    """
    example = hidden[-1]
    if example.ndim == 4:
        stride = size[0] // example.shape[2]
        if tuple(example.shape[2:]) != (size[0] // stride, size[1] // stride) or size[0] % stride:
            raise ValueError(f"its maps have the shape {tuple(example.shape)}")
        return _with(shape, patch=stride, layers=len(hidden) - 1, widths=(example.shape[1],))
    if not patch or size[0] % patch or size[1] % patch:
        raise ValueError(f"its patches have {patch} pixels, and sides have to be multiples of that")
    cells = size[0] // patch * (size[1] // patch)
    prefix, has_class = before(model, example)
    if example.ndim != 3 or example.shape[1] != cells + prefix:
        raise ValueError(
            f"it answers with {example.shape[1]} tokens, of which {cells} are those of its patches and {prefix} known "
            "ones stand before them"
        )
    return _with(shape, prefix=prefix, has_class=has_class, patch=patch, layers=len(hidden) - 1,
                 widths=(example.shape[2],))  # fmt: skip


def before(model: Any, tokens: Tensor) -> tuple[int, bool]:
    """How many tokens stand before those of the patches, and whether the first is of the class.

    tokens: (B, N, D), the model's answer: what it does not depend on, such as a head's own token, is none of them.
    """
    named = {k: p for k, p in model.named_parameters() if k.rpartition(".")[2] in PREFIX and p.requires_grad}
    if not named:
        return 0, False
    reach = torch.autograd.grad(tokens.mean(), list(named.values()), retain_graph=True, allow_unused=True)
    read = {k.rpartition(".")[2]: p for (k, p), g in zip(named.items(), reach, strict=True) if g is not None}
    return sum(p.shape[1] if p.ndim == 3 else 1 for p in read.values()), any(k in read for k in CLASS)


def _pyramid(model: Any, shape: Shape, found: Any, size: tuple[int, int]) -> Shape:
    """Raises:
    ValueError: there are no maps at `STRIDES`.
    """
    stages = _stages(found)
    if any(t.ndim != 4 for t in stages):
        raise ValueError(f"its layers answer with the shapes {[tuple(t.shape) for t in stages][:6]}")
    first = [_stride(tuple(t.shape[2:]), size) for t in stages]
    channels_last = not all(first)
    strides = [_stride(tuple(t.shape[1:3]), size) for t in stages] if channels_last else first
    if not set(STRIDES) <= set(strides):
        shapes = [tuple(t.shape) for t in stages]
        raise ValueError(f"its maps, of {shapes[:6]}, are not at the strides {STRIDES}")
    picks = tuple(max(k for k, s in enumerate(strides) if s == stride) for stride in STRIDES)
    last = found.last_hidden_state
    # where they are one and the same, the tokens are in the order in which the layers take them, not in the image's
    unnormed = last.ndim == 3 and found.hidden_states[-1] is last
    prefix = last.shape[1] - math.prod(x // STRIDES[-1] for x in size) if last.ndim == 3 else 0
    widths = [stages[k].shape[3 if channels_last else 1] for k in picks]
    if not unnormed:
        widths[-1] = last.shape[2] if last.ndim == 3 else last.shape[3 if channels_last else 1]
    if prefix not in (0, 1) and not unnormed:
        raise ValueError(f"its last layer answers with {last.shape[1]} tokens, which fill no map of stride 32")
    return _with(shape, prefix=prefix, picks=picks, channels_last=channels_last, unnormed=unnormed,
                 widths=tuple(widths))  # fmt: skip


def _stride(cells: tuple[int, ...], size: tuple[int, int]) -> int:
    """Pixels of the image for a step of a map, 0 where there is no such number."""
    stride = size[0] // cells[0] if cells[0] else 0
    return stride if stride and (cells[0] * stride, cells[1] * stride) == size else 0


def _with(shape: Shape, **more: Any) -> Shape:
    return Shape(**{"interpolates": shape.interpolates, "noise": shape.noise, "partition": shape.partition} | more)


def fitted(weights: Mapping[str, Tensor], mine: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """Weights of a model for images of another size, for these weights' model: tables of positions are interpolated.

    size: (height, width) of the images that `mine` is for. A table has a row (.., N, D) for each cell of an image, row
    by row; the one of `weights` is of a square.
    """
    out = dict(weights)
    for name, given in weights.items():
        wanted = mine[name].shape if name in mine else given.shape
        old = math.isqrt(given.shape[-2]) if given.ndim > 1 else 0
        if (
            wanted == given.shape
            or "position" not in name
            or old**2 != given.shape[-2]
            or wanted[-1] != given.shape[-1]
        ):
            continue
        step = math.isqrt(size[0] * size[1] // wanted[-2])
        square = given.reshape(1, old, old, -1).permute(0, 3, 1, 2).float()
        new = F.interpolate(square, (size[0] // step, size[1] // step), mode="bicubic", align_corners=False)
        out[name] = new.permute(0, 2, 3, 1).reshape(wanted).to(given.dtype)
    return out
