"""Backbones: one file per family, found by its name; FAMILY:NAME, and without a family one of timm's.

A backbone is a torch module (B, 3, H, W) float -> a list of maps (B, C, h, w), from the finest to the coarsest. It says
in attributes what a network over it has to know: `channels` of every map, `strides`, how many pixels of the image one
step of a map is, and `multiple`, which has to divide the sides of an image. A family's file has
`load(name, init, size)`, and nothing here imports torch: what is wrong with a name is said at once. Where there can be
stochastic depth, `load` takes `drop_path` too.

The families of `CONFIGURED` read what their models are from a folder or a hub. Their backbones have that in an
attribute `config`, values of JSON; a run keeps it, and `load` takes it in place of the folder.
"""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from polyteach.ground.hub_names import folder_of, has_library
from polyteach.ground.names import unknown_name

TIMM, TRANSFORMERS = "timm", "transformers"
"""Families; the first is that of names without one."""
CONFIGURED = frozenset({TRANSFORMERS})
"""Families whose names say nothing without what they name."""
MOST_SIDE = 8192
"""Pixels of a side of the images that a network takes."""
MULTIPLE = 32
"""Of timm's backbones with a pyramid: the stride of their last map."""
ONE_RESOLUTION = frozenset(
    {"beit", "cait", "convit", "convmixer", "deepseek_vit", "deit", "eva", "gemma4_vit", "mlp_mixer", "naflexvit"}
    | {"qwen3_vit", "tnt", "vision_transformer", "vision_transformer_hybrid", "vision_transformer_relpos"}
    | {"vision_transformer_sam", "vitamin", "volo", "xcit"}
)
"""timm's modules with models that keep one resolution: their sides have to be multiples of the patch."""


@runtime_checkable
class Backbone(Protocol):
    """What a network has to know of the backbone that it stands on; see the package."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    multiple: int


def is_plain(strides: Sequence[int]) -> bool:
    """Whether a backbone's maps have one stride, so that it has no pyramid of its own, as plain vision transformers."""
    return len(set(strides)) == 1


def load_backbone(
    name: str,
    init: str | None,
    size: tuple[int, int] | None = None,
    drop_path: float = 0.0,
    config: Mapping[str, Any] | None = None,
) -> Any:
    """The backbone of that name, a torch module that is a `Backbone`.

    size: (height, width) of the images that it will be shown; None where it is not known yet.

    init: None (random), "pretrained" (weights from a hub), hf-hub:ORG/NAME or local-dir:FOLDER (as timm writes them), a
    checkpoint as it was published (.safetensors, .pth, .ckpt), or a run's folder, whose weights are not taken here.

    config: of a run's backbone, for the families of `CONFIGURED`: what is named is then not looked for.

    drop_path: stochastic depth in training: the largest probability with which a residual branch is left out.

    Raises:
        ValueError: unknown name, one without a pyramid's maps or that takes no images of that size, weights that do not
            fit, one without stochastic depth that was to have it, or a configuration of no backbone.
    """
    if config is None:
        check_name(name)
    family, own = _divided(name)
    load = importlib.import_module(f"{__name__}.{family}_models").load
    more: dict[str, Any] = {}
    if drop_path:
        if "drop_path" not in inspect.signature(load).parameters:
            raise no_stochastic_depth(name)
        more["drop_path"] = drop_path
    if config is not None:
        if family not in CONFIGURED:
            raise ValueError(f"backbone {name!r} has no backbone_config; take it out")
        has_library("backbones")
        more["config"] = config
    return load(own, init, size, **more)


def no_stochastic_depth(name: str) -> ValueError:
    """The error of a backbone without stochastic depth that was to have it."""
    return ValueError(f"drop_path: backbone {name!r} has no stochastic depth; leave it out, or choose another backbone")


def no_maps(name: str, size: tuple[int, int], refused: str, own: tuple[int, int] | None) -> ValueError:
    """The error of a backbone that gives no maps of images of that size (height, width).

    refused: why. own: the size that it was made for, where that is worth saying.
    """
    hint = f"; it was made for {own[0]}x{own[1]}" if own and own != size else ""
    return ValueError(
        f"backbone {name!r} gives no feature maps of images of {size[0]}x{size[1]}: {refused}{hint}. "
        "Choose another size or backbone"
    )


def check_name(name: str, init: str | None = None) -> None:
    """Refuse a name that no backbone has.

    init: as in `load_backbone`; a run brings what the name stands for.

    Raises:
        ValueError: it is unknown; says which were perhaps meant.
    """
    family, own = _divided(name)
    if family == TRANSFORMERS:
        has_library("backbones")
        if not own:
            raise ValueError(f"backbone {name!r} names no model; give transformers:FOLDER or transformers:OWNER/MODEL")
        if init is None or not Path(init).is_dir():
            folder_of(own)
        return
    arch = own.partition(".")[0]  # what follows it says which weights are meant
    if family == TIMM and arch not in timm_names() | timm_former_names() and not _registered(own):
        raise unknown_name("backbone", name, timm_list(), fix="polyteach takes timm's names, and transformers:FOLDER")


def has_config(name: str) -> bool:
    """Whether a run of that backbone has to keep its configuration."""
    return _divided(name)[0] in CONFIGURED


def multiple_of(name: str) -> int:
    """What has to divide the sides of images, as far as it is known without loading the backbone; 1 where it is not."""
    family, own = _divided(name)
    if family != TIMM:
        return 1
    arch = own.partition(".")[0]
    module = _timm_modules().get(arch)
    if module is None:  # a former name, or a program's own
        return 1
    if module not in ONE_RESOLUTION:
        return MULTIPLE
    patch = re.search(r"_patch(\d+)", arch)
    return int(patch[1]) if patch else 1


def check_size(size: int, multiple: int) -> None:
    """Refuse a side of images that a backbone cannot take.

    Raises:
        ValueError: it is no multiple of what the backbone needs, or below it.
    """
    if not 1 <= size <= MOST_SIDE:
        raise ValueError(f"size must be {multiple} to {MOST_SIDE:,}; got {size}")
    if size < multiple or size % multiple:
        near = sorted({max(size // multiple, 1) * multiple, (size // multiple + 1) * multiple})
        raise ValueError(f"size must be a multiple of {multiple}; got {size}. Take {' or '.join(map(str, near))}")


def _divided(name: str) -> tuple[str, str]:
    """The family and the name within it; what has no file of its own is timm's."""
    family, colon, own = name.partition(":")
    known = {f.stem.removesuffix("_models") for folder in __path__ for f in Path(folder).glob("*_models.py")}
    return (family, own) if colon and family in known else (TIMM, name)


def _registered(name: str) -> bool:
    """Whether a program has given timm a model of its own of that name; then timm has been imported."""
    timm: Any = sys.modules.get(TIMM)
    return timm is not None and bool(timm.is_model(name))


@cache
def timm_names() -> frozenset[str]:
    """The names of timm's models, from the text of its files: to import it, and torch, takes seconds."""
    return frozenset(_timm_modules())


@cache
def timm_former_names() -> frozenset[str]:
    """The names that timm's models had in earlier versions, which it still takes."""
    tables = [t for text in _timm_files().values() for t in _FORMER.findall(text)]
    return frozenset(n for table in tables for n in re.findall(r"^\s*['\"](\w+)['\"]\s*:", table, re.MULTILINE))


def timm_list() -> list[str]:
    """`timm_names` in timm's own order: numbers in names by their value."""
    return sorted(timm_names(), key=lambda n: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", n.lower())])


_REGISTERED = re.compile(r"^@register_model\b[^\n]*\n(?:@[^\n]*\n)*def (\w+)\(", re.MULTILINE)
_FORMER = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)^\}\)", re.MULTILINE | re.DOTALL)


@cache
def _timm_modules() -> dict[str, str]:
    """Name of a model of timm's -> the module of timm's that it is in."""
    return {name: module for module, text in _timm_files().items() for name in _REGISTERED.findall(text)}


@cache
def _timm_files() -> dict[str, str]:
    """Module of timm's -> its text."""
    spec = importlib.util.find_spec(TIMM)
    if spec is None or spec.origin is None:
        return {}
    return {f.stem: f.read_text(encoding="utf-8") for f in sorted((Path(spec.origin).parent / "models").glob("*.py"))}
