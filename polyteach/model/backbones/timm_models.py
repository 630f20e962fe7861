"""timm's models as backbones: those that give maps at strides 4, 8, 16 and 32.

Shapes: B images of a batch, H W its pixels, both multiples of 32.
"""

import logging
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from polyteach.ground.files import downloading
from polyteach.ground.weights import state_dict

STRIDES = (4, 8, 16, 32)


def load(name: str, init: str | None) -> Any:
    """The model of that name as a `Backbone`; see `backbones.load_backbone`.

    Raises:
        ValueError: it has no maps at those strides, or `init` is no file of weights that fit.
    """
    wanted = _features(name)
    if not init or Path(init).is_dir():
        model: Any = timm.create_model(name, pretrained=False, **wanted)
    elif init == "pretrained":
        try:
            with downloading():
                model = timm.create_model(name, pretrained=True, **wanted)
        except (OSError, RuntimeError) as e:  # no connection, not in the cache; or timm knows no weights of it
            raise ValueError(
                f"init 'pretrained': the weights of {name!r} cannot be had: {str(e).splitlines()[0]} To train without "
                "a hub give a file of them: --init FILE (.safetensors, .pth)"
            ) from e
    else:
        model = _from_file(name, Path(init), wanted)
    model.channels, model.strides = tuple(model.feature_info.channels()), STRIDES
    model.multiple = max(STRIDES)
    return model


def _features(name: str) -> dict[str, Any]:
    """What timm has to be told so that the model gives the wanted maps and nothing else."""
    try:
        probe: Any = timm.create_model(name, features_only=True, pretrained=False)
        reductions = probe.feature_info.reduction()
    except (RuntimeError, AttributeError, AssertionError) as e:
        raise ValueError(f"backbone {name!r} gives no feature maps: {e}") from e
    if not set(STRIDES) <= set(reductions):
        raise ValueError(f"backbone {name!r} has features at strides {reductions}; a pyramid needs {STRIDES}")
    last = {r: i for i, r in enumerate(reductions)}
    return {"features_only": True, "out_indices": tuple(last[s] for s in STRIDES)}


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
