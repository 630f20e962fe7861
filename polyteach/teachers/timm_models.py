"""timm's classifiers as teachers: `timm:NAME`, or `timm:NAME@FILE` for weights in a local file.

NAME is what `timm.list_models()` lists, with or without a tag such as resnet50.a1_in1k, or a location that timm
knows: hf-hub:OWNER/MODEL, local-dir:FOLDER.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, final

import timm
from jaxtyping import Float, UInt8
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config
from torch import Tensor

from polyteach.files import sha256
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.teachers import (
    TorchTeacher,
    at_file,
    by_shape,
    class_names,
    digest,
    load_strict,
    no_names,
    picture,
    refuse_thin,
    state_dict,
    unknown,
)

_ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")


@final
class TimmTeacher(TorchTeacher):
    """Soft classes; the image as timm's own evaluation transform of the model sees it (usually a centre crop)."""

    def __init__(self, model: Any, names: tuple[str, ...], device: str, precision: str) -> None:
        super().__init__(model, device, precision)
        self.objectives = {"classification": Objective("classification", Space(names))}
        self.transform = create_transform(**resolve_model_data_config(model), is_training=False)

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        for image in images:
            refuse_thin(image)

        def ask(batch: Float[Tensor, "B 3 h w"], positions: list[int]) -> Iterable[Tensor]:
            return self.run(batch).float().softmax(-1).cpu()

        probabilities = by_shape([self.transform(picture(image)) for image in images], ask)
        return [{"classification": ClassificationTarget(probability=p)} for p in probabilities]


def load(name: str, device: str, precision: str) -> TimmTeacher:
    """The classifier `name` with its pretrained weights, or with those of FILE in NAME@FILE.

    Raises:
        ValueError: unknown name, weights that do not exist, cannot be fetched or do not fit, classes without names.
    """
    arch, file = at_file(name)
    if not arch.startswith(_ELSEWHERE) and not timm.is_model(arch):
        raise unknown("timm model", arch, timm.list_models())
    teacher = _pretrained(arch, device, precision) if file is None else _local(arch, file, device, precision)
    return teacher


def _pretrained(arch: str, device: str, precision: str) -> TimmTeacher:
    tip = f"give local weights as timm:{arch}@FILE"
    try:
        model: Any = timm.create_model(arch, pretrained=True)
    except Exception as e:  # timm, huggingface_hub and httpx each raise their own
        raise ValueError(f"timm has no weights at hand for {arch!r} ({type(e).__name__}: {e}); {tip}") from e
    cfg = model.pretrained_cfg
    names = _names(cfg, model.num_classes)
    if not model.num_classes:
        raise ValueError(f"timm model {arch!r} is a backbone without classes")
    if names is None:
        raise ValueError(f"timm does not name the {model.num_classes} classes of {arch!r}; {tip} and a class file")
    teacher = TimmTeacher(model, names, device, precision)
    place = cfg.get("hf_hub_id") or cfg.get("url") or arch
    teacher.origin = f"timm {timm.__version__}: {place}"
    teacher.sha256 = digest(model.state_dict())
    teacher.licence = cfg.get("license")
    return teacher


def _local(arch: str, file: Path, device: str, precision: str) -> TimmTeacher:
    state = state_dict(file)
    cfg = _config(arch)
    heads = cfg.get("classifier")
    head = heads[0] if isinstance(heads, tuple | list) else heads
    if f"{head}.weight" not in state:
        raise ValueError(f"{file} has no {head}.weight, the classifier of timm's {arch}")
    count = len(state[f"{head}.weight"])
    model: Any = timm.create_model(arch, pretrained=False, num_classes=count)
    load_strict(model, state, f"{file}, for timm's {arch},")
    names = class_names(file, count) or (_names(cfg, count) if count == cfg.get("num_classes") else None)
    if names is None:
        raise no_names(file, count)
    teacher = TimmTeacher(model, names, device, precision)
    teacher.origin, teacher.sha256 = str(file), sha256(file)
    return teacher


def _config(arch: str) -> dict[str, Any]:
    try:
        cfg = timm.get_pretrained_cfg(arch)
    except RuntimeError as e:  # an unknown tag
        raise ValueError(f"timm: {e}") from e
    return cfg.to_dict() if cfg else {}


def _names(cfg: dict[str, Any], count: int) -> tuple[str, ...] | None:
    """Class names by the weights' own description, else ImageNet's where timm knows the number of classes as such."""
    own = cfg.get("label_names")
    if own and len(own) == count:
        described = cfg.get("label_descriptions") or {}
        return tuple(str(described.get(n, n)) if isinstance(described, dict) else str(n) for n in own)
    subset = infer_imagenet_subset({"num_classes": count})
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else None
