"""timm's classifiers as teachers: `timm:NAME`, or `timm:NAME@FILE` for weights in a local file.

NAME is what `timm.list_models()` lists, with or without a tag such as resnet50.a1_in1k, or a location that timm
knows: hf-hub:OWNER/MODEL, local-dir:FOLDER.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_data_config
from torch import Tensor
from torchvision.transforms import Compose

from polyteach.ground.files import sha256
from polyteach.ground.names import unknown_name
from polyteach.ground.weights import reason, state_dict, unpacked
from polyteach.teachers._files import at_file, class_names, no_names
from polyteach.teachers._maps import as_pillow
from polyteach.teachers._timm_check import ELSEWHERE
from polyteach.teachers._torch import Classifier, preprocessing
from polyteach.teachers._weights import digest, load_strict, where


def _teacher(model: Any, names: tuple[str, ...], origin: str, device: str, precision: str) -> Classifier:
    """The image is seen as the published accuracy was measured (usually a centre crop), as timm's validate.py sees it.

    Of many weights that is another size and crop than their training's, which the origin then says.
    """
    trained, tested = (resolve_data_config(pretrained_cfg=model.pretrained_cfg, use_test_size=t) for t in (False, True))
    teacher = Classifier(model, transform(tested), names, device, precision)
    height, width = tested["input_size"][1:]
    seen = "" if tested == trained else f", seen at {height}x{width} with crop {tested['crop_pct']:g}"
    teacher.origin = f"{origin}{seen}"
    return teacher


def transform(config: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """timm's evaluation transform, (3, H, W) uint8 -> (3, h, w) float32; the usual kind without Pillow.

    config: of `timm.data.resolve_data_config`.
    """
    steps = create_transform(**config, is_training=False)
    usual = [type(s).__name__ for s in steps.transforms] == ["Resize", "CenterCrop", "MaybeToTensor", "Normalize"]
    if not usual or config["interpolation"] not in ("bilinear", "bicubic"):  # other ways are Pillow's alone
        return Compose([as_pillow, steps])
    resize, crop, _, normalise = steps.transforms
    mean, std = normalise.mean.tolist(), normalise.std.tolist()
    return preprocessing(resize.size, crop.size, mean, std, resize.interpolation)


def load(name: str, device: str, precision: str) -> Classifier:
    """The classifier `name` with its pretrained weights, or with those of FILE in NAME@FILE.

    Raises:
        ValueError: unknown name, weights that do not exist, cannot be fetched or do not fit, classes without names.
    """
    arch, file = at_file(name)
    if not arch.startswith(ELSEWHERE) and not timm.is_model(arch):
        raise unknown_name("timm model", arch, timm.list_models())
    return _pretrained(arch, device, precision) if file is None else _local(arch, file, device, precision)


def _pretrained(arch: str, device: str, precision: str) -> Classifier:
    prefix, _, folder = arch.partition(":")
    for path in sorted(Path(folder).glob("*")) if prefix == "local-dir" else ():
        if not path.is_file() and not path.is_dir():
            raise ValueError(f"{path} is a pipe, a device or a link to nothing, not a regular file")
        if path.suffix in (".bin", ".pt", ".pth") and path.is_file():
            unpacked(path)
    tip = f"give local weights as timm:{arch}@FILE"
    try:
        model: Any = timm.create_model(arch, pretrained=True)
    except Exception as e:  # timm, huggingface_hub and httpx each raise their own
        raise ValueError(f"timm has no weights at hand for {arch!r} ({type(e).__name__}: {_plain(e)}); {tip}") from e
    cfg = model.pretrained_cfg
    names = _names(cfg, model.num_classes)
    if not model.num_classes:
        raise ValueError(f"timm model {arch!r} is a backbone without classes")
    if names is None:
        raise ValueError(f"timm does not name the {model.num_classes} classes of {arch!r}; {tip} and a class file")
    place = cfg.get("hf_hub_id") or cfg.get("url") or arch
    teacher = _teacher(model, names, f"timm {timm.__version__}: {place}", device, precision)
    teacher.sha256 = digest(model.state_dict())
    teacher.licence = cfg.get("license")
    return teacher


def _plain(error: Exception) -> str:
    """Its text, but for advice to load where code could run."""
    return reason(error) if "weights_only" in str(error) else str(error)


def _local(arch: str, file: Path, device: str, precision: str) -> Classifier:
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
    teacher = _teacher(model, names, where(file, state), device, precision)
    teacher.sha256 = sha256(file)
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
