"""timm's models with the weights that they start from, and with stochastic depth."""

from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import DropPath

from polyteach.ground.files import downloading
from polyteach.ground.hub import unavailable
from polyteach.model.backbones import no_stochastic_depth
from polyteach.model.backbones._timm_checkpoint import weights_of
from polyteach.model.backbones._timm_recipe import NOT_WEIGHTS, recipe
from polyteach.model.starts import CONFIG, FILES, FOLDER, HUB, PRETRAINED, check_place, described, files

WITHOUT = "To train without a hub give a file of them: --init FILE (.safetensors, .pth)"


def created(name: str, init: str | None, options: dict[str, Any]) -> Any:
    """The model of that name as `timm.create_model` makes it with these options, with the weights of `init`.

    init: see `backbones.load_backbone`. Where a config.json is beside the weights, the `pretrained_cfg` of the model
    has its mean and standard deviation.

    Raises:
        ValueError: `init` is no file of weights that fit, or they cannot be had.
    """
    if not init:
        return timm.create_model(name, pretrained=False, **options)
    check_place(init)
    if init == PRETRAINED:
        return _pretrained(name, options)
    if init.startswith(HUB):
        config, weights = _downloaded(init.removeprefix(HUB), name)
    elif init.startswith(FOLDER):
        config, weights = files(Path(init.removeprefix(FOLDER)))
    elif Path(init).is_dir():
        return timm.create_model(name, pretrained=False, **options)
    else:
        return _from_file(name, Path(init), options)
    about = described(config, name)
    model = _from_file(name, weights, options)
    said = {"mean": about.mean, "std": about.std}
    model.pretrained_cfg = dict(model.pretrained_cfg) | {k: v for k, v in said.items() if v is not None}
    return model


def _pretrained(name: str, options: dict[str, Any]) -> Any:
    try:
        with downloading():
            return timm.create_model(name, pretrained=True, **options)
    except Exception as e:  # timm, huggingface_hub and httpx each raise their own
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        repository = (config and config.hf_hub_id) or ""
        reason = unavailable(e, repository + name if repository.endswith("/") else repository or name)
        raise ValueError(f"init 'pretrained': the weights of {name!r} cannot be had: {reason}. {WITHOUT}") from e


def _downloaded(repository: str, name: str) -> tuple[Path, Path]:
    """config.json and the weights of ORG/NAME[@REVISION], from the cache or the hub, once it is known what they are of.

    Raises:
        ValueError: they cannot be had; or they are no backbone's of that name.
    """
    from huggingface_hub import hf_hub_download  # which is only there where timm brought it
    from huggingface_hub.errors import EntryNotFoundError

    place, _, revision = repository.partition("@")

    def had(file: str) -> Path:
        return Path(hf_hub_download(place, file, revision=revision or None))

    try:
        with downloading():
            config = had(CONFIG)
    except Exception as e:  # huggingface_hub and httpx each raise their own
        raise ValueError(f"init {HUB}{repository}: {unavailable(e, place)}. {WITHOUT}") from e
    described(config, name)
    first: Exception | None = None
    for file in FILES:
        try:
            with downloading():
                return config, had(file)
        except EntryNotFoundError as e:
            first = first or e
        except Exception as e:
            raise ValueError(f"init {HUB}{repository}: {unavailable(e, place)}. {WITHOUT}") from e
    raise ValueError(f"init {HUB}{repository}: {unavailable(first or OSError(), place)}. {WITHOUT}") from first


def _from_file(name: str, file: Path, options: dict[str, Any]) -> Any:
    """The model with the weights of a file: all that its maps need, and nothing of theirs left over."""
    if not file.is_file():
        raise ValueError(f"init {str(file)!r} is neither 'pretrained', a file, nor a run's folder")
    weights = weights_of(file, recipe(name, options))
    # earlier versions looked at a whole model, which drew its weights: with it a seed still gives the same network
    timm.create_model(name, pretrained=False)
    model: Any = timm.create_model(name, pretrained=False, **options)
    own = {k: v for k, v in model.state_dict().items() if k.endswith(NOT_WEIGHTS)}
    model.load_state_dict(own | weights)
    return model


def own_size(name: str, usual: int) -> tuple[int, int]:
    """(height, width) of the images that the model is made for, as timm says; `usual` where it does not."""
    about = timm.get_pretrained_cfg(name, allow_unregistered=True)
    height, width = (about.input_size if about else (3, usual, usual))[1:]
    return height, width


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
