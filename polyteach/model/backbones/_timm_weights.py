"""timm's models with the weights that they start from, and with stochastic depth."""

import logging
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import DropPath
from torch import Tensor

from polyteach.ground.files import downloading
from polyteach.ground.weights import state_dict
from polyteach.model.backbones import no_stochastic_depth


def created(name: str, init: str | None, options: dict[str, Any]) -> Any:
    """The model of that name as `timm.create_model` makes it with these options, with the weights of `init`.

    init: see `backbones.load_backbone`.

    Raises:
        ValueError: `init` is no file of weights that fit, or they cannot be had.
    """
    if not init or Path(init).is_dir():
        return timm.create_model(name, pretrained=False, **options)
    if init != "pretrained":
        return _from_file(name, Path(init), options)
    try:
        with downloading():
            return timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError) as e:  # no connection, not in the cache; or timm knows no weights of it
        raise ValueError(
            f"init 'pretrained': the weights of {name!r} cannot be had: {str(e).splitlines()[0]} To train without "
            "a hub give a file of them: --init FILE (.safetensors, .pth)"
        ) from e


def _from_file(name: str, file: Path, wanted: dict[str, Any]) -> Any:
    """The model with the weights of a state dict of the whole model; its classifier need not be there."""
    if not file.is_file():
        raise ValueError(f"init {str(file)!r} is neither 'pretrained', a file, nor a run's folder")
    weights: dict[str, Tensor] = state_dict(file)
    whole: Any = timm.create_model(name, pretrained=False)
    head = whole.pretrained_cfg.get("classifier") or ()
    head = (head,) if isinstance(head, str) else tuple(head)
    weights = {k: v for k, v in weights.items() if not k.startswith(head or ("\0",))}  # its classes need not be ours
    try:
        missing, unknown = whole.load_state_dict(weights, strict=False)
    except RuntimeError as e:
        raise ValueError(f"{file} does not fit {name}: {e}") from e
    missing = [k for k in missing if not k.startswith(head or ("\0",))]
    if missing or unknown:
        raise ValueError(f"{file} does not fit {name}: lacks {missing[:5]}, has unknown {unknown[:5]}")
    # through timm, which knows how features_only renames layers
    overlay: dict[str, Any] = {"state_dict": whole.state_dict()}
    log = logging.getLogger("timm.models._builder")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of the classifier, which features have no use for; the rest is checked above
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **wanted)
    finally:
        log.setLevel(level)


def dropping(name: str, size: tuple[int, int], options: dict[str, Any], drop_path: float) -> dict[str, Any]:
    """The options of a model with stochastic depth, where it is to have it; see `backbones.load_backbone`.

    size: (height, width) of images that it takes.

    Raises:
        ValueError: no branch of it would ever be left out.
    """
    if not drop_path:
        return options
    more, used = {**options, "drop_path_rate": drop_path}, []
    with torch.device("meta"), torch.inference_mode():
        try:
            probe: Any = timm.create_model(name, pretrained=False, **more).eval()
        except TypeError as e:  # the model knows no such option
            raise no_stochastic_depth(name) from e
        for part in probe.modules():
            if isinstance(part, DropPath) and part.drop_prob:
                part.register_forward_pre_hook(lambda part, _: used.append(part))
        probe(torch.zeros(1, 3, *size))
    if not used:  # some have the layers, and no branch beside them: lcnet
        raise no_stochastic_depth(name)
    return more
