"""Configurations of transformers' models as values of JSON, which a run keeps: it is then built without its folder.

A run may be a stranger's: its values are looked at before the library makes a configuration of them. What remains are
numbers and words; no file, no repository and no code is named by them.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from polyteach.ground.fields import short
from polyteach.ground.hub_models import LARGEST, MOST_LAYERS, check_counts
from polyteach.ground.names import unknown_name

LEFT_OUT = frozenset(
    {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "id2label", "label2id", "num_labels"}
    | {"transformers_version", "return_dict", "output_hidden_states", "output_attentions", "problem_type"}
    | {"task_specific_params", "_attn_implementation", "attn_implementation", "experts_implementation"}
)
"""Fields of a configuration that say nothing of a tower: where it came from, its classes, and how it is asked."""
ELSEWHERE = ("auto_map", "backbone", "architecture", "quantization_config", "use_timm_backbone", "name_or_path")
"""Fields that make the library look for code, or for another model."""
MOST_NUMBER, MOST_VALUES, DEEPEST = 10**9, 10_000, 6
"""The largest number in a configuration, how many values it has, and how deep they lie; more than any model's."""
_WORD = re.compile(r"[\w.+\- ]{0,100}", re.ASCII)


def kept(config: Any) -> dict[str, Any]:
    """The values of a configuration that a tower is built from.

    Raises:
        ValueError: it names another model or code, or is none that `built` takes.
    """
    values: dict[str, Any] = json.loads(json.dumps(_without(config.to_dict())))
    check_values(values)
    return values


def built(values: Mapping[str, Any]) -> Any:
    """The configuration of these values; `check_values` first.

    Raises:
        ValueError: the library has no such model, or no such configuration of it.
    """
    check_values(values)
    more = {k: v for k, v in values.items() if k != "model_type"}
    try:
        return transformers.AutoConfig.for_model(values["model_type"], **more)
    except Exception as e:  # its checks of fields raise nearly anything
        said = " ".join(str(e).split())
        raise ValueError(f"is no configuration of {values['model_type']}: {said[:200]}") from e


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse values that name code, files or other models, or numbers that no model has.

    Raises:
        ValueError: says which; what follows the place that they were read from.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str):
        raise ValueError("must say the model_type of transformers")
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"has an unknown model_type: {unknown_name('model_type', kind[:80], list(CONFIG_MAPPING))}")
    if kind.startswith("timm_"):
        raise ValueError("is of a model of timm's: give timm's own name for it, --backbone NAME")
    counted = [0]
    _check(values, "", 0, counted)
    try:
        check_counts(dict(values), "backbone_config")
    except ValueError as e:
        raise ValueError(str(e).replace("backbone_config/config.json: ", "asks for too much: ")) from e


def _check(value: Any, place: str, deep: int, counted: list[int]) -> None:
    counted[0] += 1
    if counted[0] > MOST_VALUES or deep > DEEPEST:
        raise ValueError(f"has more than {MOST_VALUES:,} values, or lists more than {DEEPEST} deep")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if (key in ELSEWHERE and inner) or (key == "model_type" and str(inner).startswith("timm_")):
                raise ValueError(f"has {short(key)}, by which the library looks for code or for another model")
            if not _WORD.fullmatch(key):
                raise ValueError(f"has {short(key)}, which is no field of a configuration")
            _check(inner, key, deep + 1, counted)
    elif isinstance(value, list):
        if "depths" in place and sum(x for x in value if isinstance(x, int)) > MOST_LAYERS:
            raise ValueError(f"has {place} of more than {MOST_LAYERS:,} layers together")
        for inner in value:
            _check(inner, place, deep + 1, counted)
    elif isinstance(value, str):
        if not _WORD.fullmatch(value):
            raise ValueError(f"has the {place} {short(value)}, which is no word of a configuration")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        most = LARGEST if "image_size" in place or "window" in place or "patch" in place else MOST_NUMBER
        if not math.isfinite(value) or abs(value) > most:
            raise ValueError(f"has the {place} {short(value)}; numbers there are at most {most:,}")


def _without(values: dict[str, Any]) -> dict[str, Any]:
    out = {k: _without(v) if isinstance(v, dict) else v for k, v in values.items() if k not in LEFT_OUT}
    return {k: v for k, v in out.items() if not (k in ELSEWHERE and not v)}
