"""Hugging Face models as teachers: `transformers:FOLDER` or `transformers:OWNER/MODEL` on the hub.

Image classes, boxes, outlines, semantic and panoptic maps, depth, normals. The library's own Auto classes load model
and image processor; weights are fp32 and cast by autocast; no code of the repository is run. What the files do not say
is said behind the name: `?kind=metric` of depth, `?axes=right,up,towards` of normals. `@FILE.yaml` says what a model of
open vocabulary is to look for. docs/guide/teachers.md has a table of the classes that work.
"""

from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
import transformers
from jaxtyping import UInt8
from torch import Tensor
from transformers.models.auto import modeling_auto as known

from polyteach.ground.hub_models import located, read_config, read_processor, said, untrained, weights
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers._maps import map_size, most_probable, size_of
from polyteach.teachers._torch import by_shape
from polyteach.teachers._transformers_asking import FATAL, HubTeacher
from polyteach.teachers._transformers_boxes import Detector, Outlines
from polyteach.teachers._transformers_check import asked
from polyteach.teachers._transformers_depth import Depth, Normals
from polyteach.teachers._transformers_files import licence_of, provenance
from polyteach.teachers._transformers_masks import OneFormer, Panoptic
from polyteach.teachers._transformers_places import placed, unpadded
from polyteach.teachers._transformers_prompts import digest_with, prompted, prompts_of


@final
class Classifier(HubTeacher):
    """Soft classes."""

    whole = False

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision)
        config = model.config
        if config.problem_type == "multi_label_classification":
            raise ValueError(f"{config.name_or_path} gives several labels an image, not one of its classes")
        if config.problem_type == "regression" or config.num_labels < 2:
            outputs = f"problem_type {config.problem_type!r} and {config.num_labels} outputs"
            raise ValueError(
                f"{config.name_or_path} is no classifier: config.json says {outputs}, which are values and no classes; "
                "probabilities of a single class would be 1 for every image"
            )
        self.objectives = {"classification": Objective("classification", Space(self.names))}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            found = self.outputs(batch)
            logits = found.get("logits", found.get("last_hidden_state"))  # so PP-LCNet calls its head's answer
            if logits is None or tuple(logits.shape) != (len(batch), len(self.names)):
                shape = None if logits is None else tuple(logits.shape)
                raise ValueError(f"{self.place} answers {shape} for {len(batch)} images and {len(self.names)} classes")
            for p in logits.softmax(-1).cpu():
                yield ClassificationTarget(probability=p)

        return [{"classification": t} for t in by_shape([self.inputs(i) for i in images], ask)]


@final
class Segmenter(HubTeacher):
    """The most probable class of every cell of a map at the resolution of the model's input."""

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision)
        if len(self.names) < 2:
            raise ValueError(f"{model.config.name_or_path} has one class; a semantic teacher needs at least 2")
        self.find_padding()
        self.objectives = {"segmentation": Objective("segmentation", Space(self.names))}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            for logits, i, x in zip(self.outputs(batch).logits, positions, batch, strict=True):
                cells = map_size(size_of(images[i]), placed(x)[2:])
                probability, category = most_probable(unpadded(logits, x), cells)
                yield SegmentationTarget(category=category.cpu(), probability=probability.cpu())

        return [{"segmentation": t} for t in by_shape([self.inputs(i) for i in images], ask)]


KINDS: list[tuple[type[Any], str, str]] = [
    (Classifier, "AutoModelForImageClassification", "IMAGE_CLASSIFICATION"),
    (Detector, "AutoModelForObjectDetection", "OBJECT_DETECTION"),
    (Segmenter, "AutoModelForSemanticSegmentation", "SEMANTIC_SEGMENTATION"),
    (Panoptic, "AutoModelForUniversalSegmentation", "UNIVERSAL_SEGMENTATION"),
    (Outlines, "AutoModelForInstanceSegmentation", "INSTANCE_SEGMENTATION"),
    (Depth, "AutoModelForDepthEstimation", "DEPTH_ESTIMATION"),
    (Normals, "AutoModelForNormalEstimation", "NORMAL_ESTIMATION"),
]
"""The teacher of each of the library's Auto classes, and the name of its table of architectures."""
_OWN = {"OneFormerForUniversalSegmentation": OneFormer}
"""Architectures that are asked otherwise than the others of their Auto class."""
_FOR = {"kind": "estimators of depth", "axes": "estimators of normals"}
"""What each option of a name is for."""


def load(name: str, device: str, precision: str) -> HubTeacher:
    """The model in the folder, or on the hub, called `name`; `?key=value` behind it says what its files do not,
    and `@FILE` what a model that takes prompts is to look for.

    Raises:
        ValueError: transformers is not installed, nothing there, an architecture without a teacher here, weights
            that leave parts of the model untrained, a model or processor that fails at every image; prompts that are
            none, or missing, or that it does not take.
    """
    name, prompts = prompts_of(name)
    name, options = asked(name)
    place, origin = located(name)
    config = read_config(place)
    architecture = (getattr(config, "architectures", None) or [None])[0]
    if architecture is None:
        raise ValueError(f"{place}/config.json names no architectures; a model of timm's is timm:hf-hub:{name}")
    made, auto = prompted(architecture, place, prompts) or _choose(architecture, place)
    for key in options:
        if key not in made.options:
            raise ValueError(f"{key} is said of {place}, a {architecture}; it is for {_FOR[key]}")
    processor = read_processor(place)
    model, missing = weights(getattr(transformers, auto), place)
    told = options if prompts is None else options | {"prompts": prompts}
    teacher = _made(made, model, processor, device, precision, told)
    if missing:
        _refuse_untrained(teacher, missing, place)
    teacher.try_out()
    teacher.origin = origin
    teacher.sha256 = provenance(place, model.state_dict(), teacher.files)
    if prompts is not None:
        teacher.sha256 = digest_with(teacher.sha256, prompts)
    teacher.licence = licence_of(place)
    return teacher


def _made(
    made: type[Any], model: Any, processor: Any, device: str, precision: str, options: dict[str, Any]
) -> HubTeacher:
    """The teacher, which looks at model and processor.

    Raises:
        ValueError: it finds that they do not fit, or fails at them.
    """
    try:
        teacher: HubTeacher = made(model, processor, device, precision, **options)
    except (ValueError, *FATAL):
        raise
    except Exception as e:  # of the library
        raise ValueError(f"{model.config.name_or_path} cannot be a teacher: {said(e)}") from e
    return teacher


def _choose(architecture: str, place: str) -> tuple[type[Any], str]:
    """The teacher's class and transformers' Auto class for an architecture.

    Raises:
        ValueError: there is none.
    """
    for made, auto, mapping in KINDS:
        for names in getattr(known, f"MODEL_FOR_{mapping}_MAPPING_NAMES", {}).values():  # new ones come with releases
            if architecture in ((names,) if isinstance(names, str) else names):
                return _OWN.get(architecture, made), auto
    raise ValueError(
        f"{place} is a {architecture}; teachers are image classifiers, object detectors, semantic, instance and "
        "panoptic segmenters, and estimators of depth or normals, of transformers' Auto classes"
    )


def _refuse_untrained(teacher: HubTeacher, missing: list[str], place: str) -> None:
    """Refuse weights that leave parts random which the answer depends on: it turns NaN with them.

    Published MiDaS weights, for example, lack a layer that the architecture has and never runs.
    """
    holes = [p for n, p in teacher.model.state_dict().items() if n in missing and p.is_floating_point()]
    for p in holes:
        p.fill_(torch.nan)
    seen: list[Tensor] = []
    listening = teacher.model.register_forward_hook(lambda _, __, out: seen.extend(_floats(out)))
    try:
        teacher.ask_anew(torch.full((3, 64, 64), 128, dtype=torch.uint8))
    except FATAL:
        raise
    except Exception:  # of what is made of the answers; a model that checks itself has given none
        pass
    finally:
        listening.remove()
    harmed = not seen or any(bool(v.isnan().any()) for v in seen)
    if harmed:
        raise untrained(missing, place, "answers")
    for p in holes:
        p.zero_()


def _floats(found: Any) -> list[Tensor]:
    """The numbers among a model's outputs."""
    return [v for v in found.values() if isinstance(v, Tensor) and v.is_floating_point()]
