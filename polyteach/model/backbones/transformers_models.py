"""transformers' vision models as backbones: `transformers:FOLDER` or `transformers:OWNER/MODEL` of the hub.

What a run has to know of the model is in `config` of the backbone; with it the model is built without its folder.
Shapes: B images of a batch, H W its pixels, D channels of a map.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers

from polyteach.ground.hub_models import located, processor_config, read_config, read_processor, untrained, weights
from polyteach.ground.texts import say
from polyteach.ground.weights import state_dict
from polyteach.model.backbones import _transformers_config as configuration
from polyteach.model.backbones import no_maps, no_stochastic_depth
from polyteach.model.backbones._transformers_towers import PlainTower, PyramidTower, Shape, fitted, look

PARTS = ("vision_model", "vision_encoder", "vision_tower")
"""What models of several kinds of input call the part that sees."""
DROPS = "drop_path_rate"
"""What configurations call stochastic depth."""
USUAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Of images of 0..1, where a folder does not say it: ImageNet's."""
MOST_SCALE = 1e4
"""The largest mean and deviation of pixels that is believed."""


@dataclass(frozen=True)
class _Seen:
    """What was found out of a model: how maps are had of it, which parameters do not matter, and how it is made.

    size: (height, width) of the images. fixed: whether it is made for images of this size alone.
    """

    shape: Shape
    idle: frozenset[str]
    size: tuple[int, int]
    fixed: bool


def load(
    name: str,
    init: str | None,
    size: tuple[int, int] | None,
    drop_path: float = 0.0,
    config: Mapping[str, Any] | None = None,
) -> PlainTower | PyramidTower:
    """The model of that folder or name on the hub, or the part of it that sees.

    config: what the backbone of a run had as its `config`; nothing else is then read. drop_path: see
    `backbones.load_backbone`; what the model's own configuration says of it is how it was trained once, and not taken.

    Raises:
        ValueError: there is no such model, it gives no maps of images of that size, `init` is no file of weights that
            fit, or it has no stochastic depth and was to have it; or `config` is none of a model.
    """
    place = ""
    if config is None:
        place, _ = located(name)
        config = _read(place)
    values, normal = _checked(config)
    drops = isinstance(values.get(DROPS), int | float)
    if drops:
        values[DROPS] = values[DROPS] if values[DROPS] == drop_path else drop_path  # some take only whole numbers
    elif drop_path:
        raise no_stochastic_depth(f"transformers:{name}")
    seen = _look(json.dumps(values, sort_keys=True), size, name)
    model = _made(values, seen)
    if init == "pretrained":
        _start(model, place, seen)
    elif init and not Path(init).is_dir():
        _start_from_file(model, Path(init), name, seen)
    for key, parameter in model.named_parameters():
        if key in seen.idle:  # no gradient reaches them, which would hold up processes that share gradients
            parameter.requires_grad_(False)
    tower = (PlainTower if seen.shape.patch else PyramidTower)(model, seen.shape, seen.size, normal)
    tower.config = {
        "model": {**values, DROPS: type(values[DROPS])(0)} if drops else values,
        **{k: list(v) for k, v in normal.items()},
    }
    return tower


def _read(place: str) -> dict[str, Any]:
    """The `config` of a model that is at hand: the values that its tower is built from, and how images are normalised.

    Raises:
        ValueError: as `ground.hub` says it, or no tower can be built from its values.
    """
    whole = read_config(place)
    try:
        values = configuration.kept(whole)
        model, _ = _tower(values)
        if hasattr(model.config, "mask_ratio"):  # all patches are seen
            model.config.mask_ratio = 0.0
        own = configuration.kept(model.config)
    except ValueError as e:
        raise ValueError(f"{place}/config.json {e}") from e
    with suppress(ValueError):  # not every part is a model of its own
        values = own if type(_tower(own)[0]) is type(model) else values
    return {"model": values, **_normal(place)}


def _normal(place: str) -> dict[str, list[float]]:
    """ "mean" and "std" of images of 0..1, of what the image processor does with them."""
    if not processor_config(place):
        say(f"{place} has no preprocessor_config.json: images are normalised by ImageNet's mean and deviation")
        return {k: list(v) for k, v in USUAL.items()}
    processor = read_processor(place)
    rescaled = getattr(processor, "do_rescale", True)
    factor = (getattr(processor, "rescale_factor", None) or 1 / 255) * 255 if rescaled else 255.0
    if not getattr(processor, "do_normalize", True):
        return {"mean": [0.0] * 3, "std": [1 / factor] * 3}
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    if not isinstance(mean, list | tuple) or not isinstance(std, list | tuple):
        mean, std = list(USUAL["mean"]), list(USUAL["std"])
        say(f"{place}/preprocessor_config.json says no image_mean and image_std: ImageNet's are taken")
    return {"mean": [x / factor for x in mean], "std": [x / factor for x in std]}


def _checked(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """The values of a model, and "mean" and "std", of a `config` that may be a stranger's.

    Raises:
        ValueError: they are none.
    """
    if set(config) != {"model", "mean", "std"} or not isinstance(config["model"], dict):
        raise ValueError("backbone_config must have model, an object, mean and std")
    for key in ("mean", "std"):
        found = config[key]
        good = isinstance(found, list) and len(found) == 3 and all(type(x) in (int, float) for x in found)
        if not good or not all(abs(x) <= MOST_SCALE and (key == "mean" or x > 0) for x in found):
            raise ValueError(f"backbone_config.{key} must be three numbers, as of pixels of 0..1")
    try:
        configuration.check_values(config["model"])
    except ValueError as e:
        raise ValueError(f"backbone_config.model {e}") from e
    return dict(config["model"]), {k: [float(x) for x in config[k]] for k in ("mean", "std")}


def _tower(values: Mapping[str, Any]) -> tuple[Any, str]:
    """The model without memory (torch's "meta" device) or the part of it that sees, and that part's name, "" for all.

    Raises:
        ValueError: the library makes no model of these values.
    """
    config = configuration.built(values)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            whole: Any = transformers.AutoModel.from_config(config, trust_remote_code=False).eval()
    except Exception as e:  # any model's any error
        raise ValueError(f"is none of a model: {type(e).__name__}: {' '.join(str(e).split())[:200]}") from e
    part = next((p for p in PARTS if hasattr(whole, p)), "")
    return (getattr(whole, part) if part else whole), part


@lru_cache(maxsize=64)
@torch.inference_mode(False)
@torch.enable_grad()
def _look(values: str, size: tuple[int, int] | None, name: str) -> _Seen:
    """What a model answers to images of that size.

    Raises:
        ValueError: neither a map of one stride nor a pyramid; says what it does answer.
    """
    try:
        model, _ = _tower(json.loads(values))
    except ValueError as e:
        raise ValueError(f"the configuration (backbone_config) of backbone 'transformers:{name}' {e}") from e
    own = _sides(getattr(model.config, "image_size", None))
    seen = size or own or (224, 224)
    refused = ""
    for fixed, partition in ((False, False), (False, True), (True, False)):
        try:
            made, _ = _tower(_for_size(json.loads(values), seen) if fixed else json.loads(values))
            shape, idle = look(made, seen, not fixed, partition)
            return _Seen(shape, idle, seen, fixed)
        except Exception as e:  # any model's any error
            refused = refused or f"{type(e).__name__}: {e}".removeprefix("ValueError: ").splitlines()[0].rstrip(": .")
    patch = getattr(model.config, "patch_size", None)
    if isinstance(patch, int) and patch > 0 and any(x % patch for x in seen):
        refused = f"its patches have {patch} pixels, and sides have to be multiples of that"
    raise no_maps(f"transformers:{name}", seen, refused, own)


def _sides(said: Any) -> tuple[int, int] | None:
    """(height, width) of a configuration's image_size."""
    if isinstance(said, list | tuple) and len(said) == 2:
        return int(said[0]), int(said[1])
    return (said, said) if isinstance(said, int) else None


def _for_size(values: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """The values of the same model, made for images of that size; of one with several parts for what its part sees."""
    if isinstance(values.get("vision_config"), dict):
        return {**values, "vision_config": _for_size(values["vision_config"], size)}
    one = size[0] == size[1] and not isinstance(values.get("image_size"), list)
    return {**values, "image_size": size[0] if one else list(size)}


def _made(values: dict[str, Any], seen: _Seen) -> Any:
    """The tower with random weights."""
    model, _ = _tower(_for_size(values, seen.size) if seen.fixed else values)
    return type(model)._from_config(model.config, dtype=torch.float32)


def _start(model: Any, place: str, seen: _Seen) -> None:
    """The weights of the folder or the hub.

    Raises:
        ValueError: they are broken, or lack some that maps depend on.
    """
    whole, lacking = weights(transformers.AutoModel, place)
    part = next((p for p in PARTS if hasattr(whole, p)), "")
    missing = [k.removeprefix(f"{part}.") for k in lacking if not part or k.startswith(f"{part}.")]
    if holes := [k for k in missing if k not in seen.idle and not k.endswith("num_batches_tracked")]:
        raise untrained(holes, place, "features")
    state = (getattr(whole, part) if part else whole).state_dict()
    model.load_state_dict(fitted(state, model.state_dict(), seen.size))


def _start_from_file(model: Any, file: Path, name: str, seen: _Seen) -> None:
    """The weights of a file, which has all that maps depend on, by the model's own names.

    Raises:
        ValueError: it is no such file, or does not fit.
    """
    if not file.is_file():
        raise ValueError(f"init {str(file)!r} is neither 'pretrained', a file, nor a run's folder")
    mine = model.state_dict()
    given = fitted(state_dict(file), mine, seen.size)
    odd = sorted(k for k in given if k in mine and mine[k].is_floating_point() != given[k].is_floating_point())
    if odd:
        raise ValueError(f"{file}: {odd[0]} is of {given[odd[0]].dtype}, and has to be of {mine[odd[0]].dtype}")
    lacks = sorted(k for k in mine if k not in given and k not in seen.idle)
    wrong = sorted(k for k in given if k not in mine or mine[k].shape != given[k].shape)
    if lacks or wrong:
        raise ValueError(
            f"{file} does not fit transformers:{name}: lacks {lacks[:5]}, has unknown or of another shape {wrong[:5]}"
        )
    model.load_state_dict(given, strict=False)
