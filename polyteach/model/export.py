"""A run's backbone for other programs: a folder as timm writes it, with timm's own names, and a card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from polyteach.ground.files import new_folder, write_json
from polyteach.ground.texts import say
from polyteach.model.backbones import TIMM, load_backbone
from polyteach.model.backbones._timm_recipe import NOT_WEIGHTS, Recipe, recipe, recorded
from polyteach.model.card import card
from polyteach.model.starts import CONFIG, FILES, PRETRAINED
from polyteach.model.student import Student, describe_student, load_student

_SOURCES = ("url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict")
_OF_OTHERS = (
    *_SOURCES,
    *("tag", "custom_load", "label_names", "label_descriptions", "label_offset", "license", "description"),
    *("origin_url", "paper_name", "paper_ids", "notes", "test_input_size", "test_crop_pct", "min_input_size"),
)
"""What timm's `pretrained_cfg` says of weights that are not the run's."""


def export_timm(run: Path, out: str | Path) -> str:
    """Write the backbone of a run as `timm.create_model("local-dir:OUT")` takes it; returns `out`.

    Raises:
        ValueError: no finished run, a backbone that is not timm's or not of this timm, or `out` exists.
    """
    if "://" in str(out):
        raise ValueError(f"out {str(out)!r} must be a local folder; copy it to where it is wanted")
    place = Path(out)
    if place.exists() or place.is_symlink():
        raise ValueError(f"{place} exists; choose another folder")
    about = describe_student(run)
    student = load_student(run)
    arch = student.name.removeprefix(f"{TIMM}:").partition(".")[0]
    if not timm.is_model(arch):
        raise ValueError(f"{run} has the backbone {student.name}, which is none of timm's; it has no files of timm's")
    size = (about["size"][0], about["size"][1]) if about.get("size") else None
    made = recorded(student.name, lambda: load_backbone(student.name, PRETRAINED, size))
    whole, args = _whole(arch, made, size)
    weights, rest = _renamed(student, made, whole, run)
    with new_folder(place) as folder:
        save_file(weights, folder / FILES[0], metadata={"format": "pt"})
        write_json(folder / CONFIG, _config(student, arch, whole, args, size, about))
        text = card(run, about, arch, place.name, rest)
        (folder / "README.md").write_text(text, encoding="utf-8")
    if rest:
        say(
            f"{place}: {len(rest)} tensors of timm's {arch} are no part of the run's backbone, such as {rest[0]}; they "
            "are as timm makes them, and features do not come from them"
        )
    return str(out)


def _whole(arch: str, made: Recipe, size: tuple[int, int] | None) -> tuple[Any, dict[str, Any]]:
    """timm's model without a classifier, with weights that are the same each time, and the arguments that it needs.

    Raises:
        ValueError: it has other shapes than the run's.
    """
    plain: dict[str, Any] = {"num_classes": 0}
    if getattr(made.whole, "dynamic_img_size", False):  # positions are fitted to each image, and stay as they are here
        plain |= {"dynamic_img_size": True, "img_size": _images(made.whole)}
    fits = plain, plain | {"img_size": size}
    for args in fits if size else fits[:1]:
        try:
            other = recipe(arch, args)
        except (TypeError, RuntimeError, AssertionError):  # it takes no such argument
            continue
        same = all(other.shapes.get(k) == made.shapes[k] for k in made.needed)
        if same and _images(other.whole) == _images(made.whole):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model: Any = timm.create_model(arch, pretrained=False, **args)
            return model, args
    raise ValueError(f"timm {timm.__version__} builds no {arch} of the shapes that the run's backbone has")


def _images(model: Any) -> Any:
    """The size of images that a model is made for, where it has one."""
    return getattr(getattr(model, "patch_embed", None), "img_size", None)


def _renamed(student: Student, made: Recipe, whole: Any, run: Path) -> tuple[dict[str, Tensor], list[str]]:
    """All tensors of timm's model, those of the run in their places, and the names of those that are not the run's.

    Raises:
        ValueError: the backbone has tensors that timm's model does not.
    """
    own: Mapping[str, Tensor] = student.backbone.state_dict()
    model: Mapping[str, Tensor] = whole.state_dict()
    given = {made.names[k]: v for k, v in own.items() if k in made.names}
    missing = [k for k in model if made.same.get(k) not in given]
    lost = [k for k in own if k not in made.names or made.names[k] not in model]
    if lost:
        raise ValueError(f"{run}: {lost[0]} of its backbone is in no file of timm's; it cannot be exported")
    # copies: tensors that share their memory cannot be saved
    out = {k: given.get(made.same.get(k, ""), v).detach().cpu().clone().contiguous() for k, v in model.items()}
    return out, [k for k in missing if not k.endswith(NOT_WEIGHTS)]


def _config(
    student: Student,
    arch: str,
    whole: Any,
    args: Mapping[str, Any],
    size: tuple[int, int] | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """config.json as timm writes it."""
    known = {k: v for k, v in whole.pretrained_cfg.items() if k not in _OF_OTHERS}
    side = list(size) if size else known.get("input_size", (3, 224, 224))[1:]
    # images are fitted whole and bilinearly, as `geometry` does it
    seen: dict[str, Any] = {"input_size": [3, *side], "interpolation": "bilinear", "crop_pct": 1.0, "num_classes": 0}
    if "dynamic_img_size" in args:  # else timm would make the model for the images' size, and resample positions
        seen["fixed_input_size"] = False
    licence = {"license": about["licence"]} if about.get("licence") else {}
    more = {k: v for k, v in args.items() if k != "num_classes"}
    return {
        "architecture": arch,
        "num_classes": 0,
        "num_features": int(whole.num_features),
        "pretrained_cfg": known | seen | student.normalisation | licence,
        **({"model_args": more} if more else {}),
    }
