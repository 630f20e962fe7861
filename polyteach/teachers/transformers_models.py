"""Hugging Face models as teachers: `transformers:FOLDER` or `transformers:OWNER/MODEL` on the hub.

Image classes, boxes, semantic and panoptic maps, depth. The library's own Auto classes load model and image
processor; weights are fp32 and cast by autocast; no code of the repository is run.
"""

from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
import transformers
from jaxtyping import UInt8
from torch import Tensor, nn
from transformers.models.auto import modeling_auto as known

from polyteach.ground.files import sha256
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.detection import FLOOR, DetectionTarget
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers._maps import map_size, most_probable, size_of
from polyteach.teachers._torch import by_shape
from polyteach.teachers._transformers_asking import PROBES, HubTeacher
from polyteach.teachers._transformers_check import folder_of
from polyteach.teachers._transformers_depth import Depth
from polyteach.teachers._transformers_files import check_folder, check_processor, fetched, licence_of, read_config, said
from polyteach.teachers._transformers_masks import Panoptic
from polyteach.teachers._transformers_places import frame_of, placed, unpadded
from polyteach.teachers._weights import digest

_PANOPTIC = ("MaskFormerForInstanceSegmentation", "Mask2FormerForUniversalSegmentation", "DetrForSegmentation")


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
            for p in self.outputs(batch).logits.softmax(-1).cpu():
                yield ClassificationTarget(probability=p)

        return [{"classification": t} for t in by_shape([self.inputs(i) for i in images], ask)]


@final
class Detector(HubTeacher):
    """Boxes with their scores. Classes called N/A are gaps in COCO's numbering and are left out."""

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision, _features(model))
        if not hasattr(processor, "post_process_object_detection"):
            raise ValueError(f"{type(processor).__name__} of {model.config.name_or_path} cannot make boxes of answers")
        real = [i for i, n in enumerate(self.names) if n != "N/A"]
        self.keep = torch.full((len(self.names),), -1, dtype=torch.long)
        self.keep[real] = torch.arange(len(real))
        names = tuple(self.names[i] for i in real)
        self.find_padding()
        if self.takes_mask:
            self._refuse_masked_padding()
        self.objectives = {"detection": Objective("detection", Space(names, "boxes"))}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            # boxes are fractions of all that the model sees: of the image as if it had padding too
            frames = [frame_of(size_of(images[i]), x) for i, x in zip(positions, batch, strict=True)]
            sizes = torch.tensor([f[:2] for f in frames], device=self.device)
            found = self.processor.post_process_object_detection(
                self.outputs(batch), threshold=FLOOR, target_sizes=sizes
            )
            return [self._target(f, frame[2:]) for f, frame in zip(found, frames, strict=True)]

        return [{"detection": t} for t in by_shape([self.inputs(i) for i in images], ask)]

    def _refuse_masked_padding(self) -> None:
        """A model that is told of the padding may answer in fractions of the image, or of all that it sees."""
        for size in PROBES:
            x = self.inputs(torch.zeros(3, *size, dtype=torch.uint8))
            if self.gives_mask and placed(x)[2:] != tuple(x.shape[-2:]):
                raise ValueError(
                    f"{type(self.processor).__name__} of {self.place} pads images, and nothing says"
                    " whether the model's boxes are fractions of the image or of the padded input; set do_pad to false "
                    "or pad_size to null in its preprocessor_config.json"
                )

    def _target(self, found: dict[str, Tensor], corner: tuple[float, float]) -> DetectionTarget:
        """corner: x and y of the image's corner in pixels of the image, from that of all that the model saw."""
        box = found["boxes"].float().cpu()
        if box.dim() != 2 or box.shape[1] != 4:
            raise ValueError(f"{type(self.processor).__name__} answers boxes of {tuple(box.shape)}, not (K, 4)")
        category = self.keep[found["labels"].cpu()]
        real = category >= 0
        return DetectionTarget(
            box=(box - torch.tensor(corner).float().repeat(2))[real],
            category=category[real],
            score=found["scores"].float().cpu()[real],
            ignore=torch.zeros(int(real.sum()), dtype=torch.bool),
        )


def _features(model: Any) -> list[nn.Module]:
    """What comes before boxes: backbone and encoder; of a model without such parts (YOLOS) all but its heads.

    Queries, reference points and boxes stay in float32: as fractions of a side they have steps of 2^-8 in bfloat16.
    """
    base = model.base_model
    parts = [m for name, m in base.named_children() if name in ("backbone", "conv_encoder", "encoder")]
    return parts if base is model or any(n == "decoder" for n, _ in base.named_children()) else [base]


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


def load(name: str, device: str, precision: str) -> HubTeacher:
    """The model in the folder, or on the hub, called `name`.

    Raises:
        ValueError: transformers is not installed, nothing there, an architecture without a teacher here, weights
            that leave parts of the model untrained.
    """
    folder = folder_of(name)
    place = name if folder is None else str(folder)
    if folder is not None:
        check_folder(folder)
    config = read_config(place)
    architecture = (getattr(config, "architectures", None) or [None])[0]
    if architecture is None:
        raise ValueError(f"{place}/config.json names no architectures; a model of timm's is timm:hf-hub:{name}")
    made, auto = _choose(architecture, place)
    processor = fetched(transformers.AutoImageProcessor, place)
    check_processor(processor, place)
    model, missing = _weights(getattr(transformers, auto), place)
    teacher = made(model, processor, device, precision)
    if missing:
        _refuse_untrained(teacher, missing, place)
    single = None if folder is None else folder / "model.safetensors"
    teacher.origin = f"huggingface.co/{name}" if folder is None else place
    teacher.sha256 = sha256(single) if single is not None and single.is_file() else digest(model.state_dict())
    teacher.licence = licence_of(place)
    return teacher


def _choose(architecture: str, place: str) -> tuple[type[Any], str]:
    """The teacher's class and transformers' Auto class for an architecture."""
    kinds: list[tuple[type[Any], str, Any]] = [
        (Classifier, "AutoModelForImageClassification", known.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),
        (Detector, "AutoModelForObjectDetection", known.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES),
        (Segmenter, "AutoModelForSemanticSegmentation", known.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES),
        (Panoptic, "AutoModelForUniversalSegmentation", {n: n for n in _PANOPTIC}),
        (Depth, "AutoModelForDepthEstimation", known.MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES),
    ]
    for made, auto, mapping in kinds:
        for names in mapping.values():
            if architecture in ((names,) if isinstance(names, str) else names):
                return made, auto
    raise ValueError(
        f"{place} is a {architecture}; teachers are image classifiers, object detectors, semantic segmenters and"
        f" depth estimators of transformers' Auto classes, and {', '.join(_PANOPTIC)}"
    )


def _weights(auto: Any, place: str) -> tuple[Any, list[str]]:
    """The model in fp32, and the names of parameters that the weights do not have."""
    try:
        model, info = auto.from_pretrained(
            place, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    except Exception as e:  # as above, and what torch and safetensors raise of broken weights
        raise ValueError(f"transformers:{place} has no usable weights: {said(e)}") from e
    return model, sorted({*info["missing_keys"], *(k[0] for k in info["mismatched_keys"])})


def _refuse_untrained(teacher: HubTeacher, missing: list[str], place: str) -> None:
    """Refuse weights that leave parts random which the answer depends on: it turns NaN with them.

    Published MiDaS weights, for example, lack a layer that the architecture has and never runs.
    """
    holes = [p for n, p in teacher.model.state_dict().items() if n in missing and p.is_floating_point()]
    for p in holes:
        p.fill_(torch.nan)
    try:
        with torch.inference_mode():
            found = teacher.outputs(teacher.inputs(torch.full((3, 64, 64), 128, dtype=torch.uint8))[None])
        harmed = any(bool(v.isnan().any()) for v in found.values() if isinstance(v, Tensor) and v.is_floating_point())
    except (ValueError, RuntimeError):  # some models check themselves
        harmed = True
    if harmed:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"{place} has no weights for {', '.join(missing[:3])}{more}: the answers would be random")
    for p in holes:
        p.zero_()
