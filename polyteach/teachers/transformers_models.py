"""Hugging Face models as teachers: `transformers:FOLDER` or `transformers:OWNER/MODEL` on the hub.

Image classes, boxes, semantic and panoptic maps, depth. The library's own Auto classes load model and image
processor; weights are fp32 and cast by autocast; no code of the repository is run.
"""

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.ops import masks_to_boxes

from polyteach.files import sha256
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import FLOOR, DetectionTarget
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers import (
    TorchTeacher,
    by_shape,
    digest,
    map_size,
    most_probable,
    refuse_thin,
    resized,
    size_of,
)

LARGEST_MAP = 640
"""Longest side of the maps and masks of panoptic models, which hold as many floats for each of 100 queries."""
_PANOPTIC = ("MaskFormerForInstanceSegmentation", "Mask2FormerForUniversalSegmentation", "DetrForSegmentation")


class _HubTeacher(TorchTeacher):
    """A model with its image processor, asked about images one shape at a time."""

    whole = True
    """Whether the answer is about every pixel of the image, so that the processor must not crop it."""

    def __init__(
        self, model: Any, processor: Any, device: str, precision: str, lowered: Sequence[nn.Module] | None = None
    ) -> None:
        super().__init__(model, device, precision, lowered)
        self.processor = processor
        size = dict(getattr(processor, "size", None) or {})
        self.shorter = "shortest_edge" in size and "longest_edge" not in size
        self.takes_mask = "pixel_mask" in inspect.signature(model.forward).parameters
        self.names = tuple(str(model.config.id2label[i]) for i in range(len(model.config.id2label)))

    def inputs(self, image: UInt8[Tensor, "3 _ _"]) -> Float[Tensor, "C h w"]:
        """What the processor makes of one image; the fourth channel is 0 where it padded, if the model looks at it."""
        if self.shorter:
            refuse_thin(image)
        uncropped = {"do_center_crop": False} if self.whole and getattr(self.processor, "do_center_crop", False) else {}
        made = self.processor(images=[image], return_tensors="pt", input_data_format="channels_first", **uncropped)
        pixels: Tensor = made["pixel_values"][0].float()
        mask = made["pixel_mask"] if self.takes_mask and "pixel_mask" in made else None
        return pixels if mask is None else torch.cat([pixels, mask.to(pixels)])

    def outputs(self, batch: Float[Tensor, "B C h w"]) -> Any:
        """The model's outputs with floats in float32, as post-processing wants them."""
        mask = {"pixel_mask": batch[:, 3].long()} if batch.shape[1] == 4 else {}
        found = self.run(pixel_values=batch[:, :3], **mask)
        for key, value in found.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                found[key] = value.float()
        return found


@final
class Classifier(_HubTeacher):
    """Soft classes."""

    whole = False

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision)
        if model.config.problem_type == "multi_label_classification":
            raise ValueError(f"{model.config.name_or_path} gives several labels an image, not one of its classes")
        self.objectives = {"classification": Objective("classification", Space(self.names))}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            for p in self.outputs(batch).logits.softmax(-1).cpu():
                yield ClassificationTarget(probability=p)

        return [{"classification": t} for t in by_shape([self.inputs(i) for i in images], ask)]


@final
class Detector(_HubTeacher):
    """Boxes with their scores. Classes called N/A are gaps in COCO's numbering and are left out."""

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision, _features(model))
        if not hasattr(processor, "post_process_object_detection"):
            raise ValueError(f"{type(processor).__name__} of {model.config.name_or_path} cannot make boxes of answers")
        real = [i for i, n in enumerate(self.names) if n != "N/A"]
        self.keep = torch.full((len(self.names),), -1, dtype=torch.long)
        self.keep[real] = torch.arange(len(real))
        names = tuple(self.names[i] for i in real)
        self.objectives = {"detection": Objective("detection", Space(names, "boxes"))}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            sizes = torch.tensor([size_of(images[i]) for i in positions], device=self.device)
            found = self.processor.post_process_object_detection(
                self.outputs(batch), threshold=FLOOR, target_sizes=sizes
            )
            return [self._target(f) for f in found]

        return [{"detection": t} for t in by_shape([self.inputs(i) for i in images], ask)]

    def _target(self, found: dict[str, Tensor]) -> DetectionTarget:
        category = self.keep[found["labels"].cpu()]
        real = category >= 0
        return DetectionTarget(
            box=found["boxes"].float().cpu()[real],
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
class Segmenter(_HubTeacher):
    """The most probable class of every cell of a map at the resolution of the model's input."""

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision)
        if len(self.names) < 2:
            raise ValueError(f"{model.config.name_or_path} has one class; a semantic teacher needs at least 2")
        self.objectives = {"segmentation": Objective("segmentation", Space(self.names))}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            for logits, i in zip(self.outputs(batch).logits, positions, strict=True):
                cells = map_size(size_of(images[i]), (batch.shape[-2], batch.shape[-1]))
                probability, category = most_probable(logits, cells)
                yield SegmentationTarget(category=category.cpu(), probability=probability.cpu())

        return [{"segmentation": t} for t in by_shape([self.inputs(i) for i in images], ask)]


@final
class Panoptic(_HubTeacher):
    """Masks by queries (Cheng et al., MaskFormer, NeurIPS 2021): a semantic map, and things as boxes with masks.

    The probability of a class at a pixel is sum over queries of p(class | query) * p(pixel in the query's mask), at
    most 1. Things are answered where they are known: of COCO, by name. A model of things alone gives no map.
    """

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision)
        countable = set(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]) - {"__background__", "N/A"}
        things = [i for i, n in enumerate(self.names) if n in countable]
        if len(things) < len(countable):  # not COCO, so that names tell nothing about what is countable
            things = []
        self.things = torch.full((len(self.names),), -1, dtype=torch.long)
        self.things[things] = torch.arange(len(things))
        self.objectives = {}
        if len(things) < len(self.names):
            self.objectives["segmentation"] = Objective("segmentation", Space(self.names))
        if things:
            space = Space(tuple(self.names[i] for i in things), "boxes and masks")
            self.objectives["detection"] = Objective("detection", space)

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[dict[str, Target]]:
            found = self.outputs(batch)
            queries = found["class_queries_logits"] if "class_queries_logits" in found else found["logits"]
            masks = found["masks_queries_logits"] if "masks_queries_logits" in found else found["pred_masks"]
            for i, q, m, x in zip(positions, queries, masks, batch, strict=True):
                yield self._answer(q.softmax(-1)[:, :-1], self._unpadded(m, x), size_of(images[i]))

        return by_shape([self.inputs(i) for i in images], ask)

    @staticmethod
    def _unpadded(masks: Float[Tensor, "Q m n"], x: Float[Tensor, "C h w"]) -> Float[Tensor, "Q M N"]:
        """The part of the masks that shows the image, if the processor padded it at the bottom and on the right."""
        if len(x) < 4 or bool(x[3].all()):
            return masks
        height, width = int(x[3].any(1).sum()), int(x[3].any(0).sum())
        return resized(masks, (x.shape[-2], x.shape[-1]))[:, :height, :width]

    def _answer(
        self, probability: Float[Tensor, "Q K"], masks: Float[Tensor, "Q m n"], size: tuple[int, int]
    ) -> dict[str, Target]:
        scale = min(LARGEST_MAP / max(size), 1)
        cells = (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
        inside = resized(masks, cells).sigmoid()
        out: dict[str, Target] = {}
        if "segmentation" in self.objectives:
            best = torch.einsum("qk,qmn->kmn", probability, inside).max(0)
            p = best.values.clamp(max=1).cpu()
            out["segmentation"] = SegmentationTarget(category=best.indices.cpu(), probability=p)
        if "detection" in self.objectives:
            out["detection"] = self._boxes(probability.cpu(), inside.cpu(), size)
        return out

    def _boxes(
        self, probability: Float[Tensor, "Q K"], inside: Float[Tensor, "Q m n"], size: tuple[int, int]
    ) -> DetectionTarget:
        """Things with the score of MaskFormer: the class's probability times the mask's mean probability within it."""
        best = probability.max(1)
        mask = inside > 0.5
        sure = (inside * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
        score, category = best.values * sure, self.things[best.indices]
        keep = (category >= 0) & (score >= FLOOR) & mask.any(2).any(1)
        box = masks_to_boxes(mask[keep]) + torch.tensor([0, 0, 1, 1])  # of the last cell, its far side
        cell = torch.tensor([size[1] / mask.shape[2], size[0] / mask.shape[1]]).repeat(2)
        return DetectionTarget(
            box=(box * cell).float(),
            category=category[keep],
            score=score[keep],
            ignore=torch.zeros(int(keep.sum()), dtype=torch.bool),
            mask=mask[keep],
        )


@final
class Depth(_HubTeacher):
    """Depth of every cell of a map at the resolution of the model's output."""

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision)
        if not hasattr(processor, "post_process_depth_estimation"):
            raise ValueError(f"{type(processor).__name__} of {model.config.name_or_path} cannot make maps of answers")
        wanted = inspect.signature(processor.post_process_depth_estimation).parameters
        self.unpads = "source_sizes" in wanted
        self.objectives = {"depth": Objective("depth", Space((), _depth_kind(model.config)))}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            found = self.outputs(batch)
            sizes = [size_of(images[i]) for i in positions]
            shape = found.predicted_depth.shape
            cells = [map_size(size, (shape[-2], shape[-1])) for size in sizes]
            source = {"source_sizes": sizes} if self.unpads else {}
            maps = self.processor.post_process_depth_estimation(found, target_sizes=cells, **source)
            for m, size in zip(maps, cells, strict=True):
                value = m["predicted_depth"].float().cpu().reshape(size)
                yield DepthTarget(value=value, valid=torch.ones(size, dtype=torch.bool))

        return [{"depth": t} for t in by_shape([self.inputs(i) for i in images], ask)]


def _depth_kind(config: Any) -> str:
    """ "relative inverse" or "metric", by what the architecture was trained for.

    Raises:
        ValueError: an architecture of which it is not known.
    """
    kind = config.model_type
    if kind == "depth_anything":
        return "metric" if config.depth_estimation_type == "metric" else "relative inverse"
    if kind in ("zoedepth", "glpn", "depth_pro"):
        return "metric"
    if kind == "dpt":  # MiDaS; those on DINOv2 were trained by Oquab et al. on NYU and KITTI, in metres
        backbone = getattr(config, "backbone_config", None)
        return "metric" if getattr(backbone, "model_type", "") == "dinov2" else "relative inverse"
    raise ValueError(
        f"what the depth of a {kind} model means is not known here; known are dpt, depth_anything, zoedepth, glpn,"
        " depth_pro"
    )


def load(name: str, device: str, precision: str) -> _HubTeacher:
    """The model in the folder, or on the hub, called `name`.

    Raises:
        ValueError: transformers is not installed, nothing there, an architecture without a teacher here, weights
            that leave parts of the model untrained.
    """
    try:
        import transformers
    except ImportError as e:
        raise ValueError("teachers of transformers: need the package: pip install 'polyteach[transformers]'") from e

    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        raise ValueError(f"no folder {folder}; transformers: takes a folder that save_pretrained wrote, or OWNER/MODEL")
    place = str(folder) if folder.is_dir() else name
    config = _fetch(transformers.AutoConfig, place)
    architecture = (getattr(config, "architectures", None) or [None])[0]
    if architecture is None:
        raise ValueError(f"{place}/config.json names no architectures; a model of timm's is timm:hf-hub:{name}")
    made, auto = _choose(architecture, place)
    processor = _fetch(transformers.AutoImageProcessor, place)
    model, missing = _weights(getattr(transformers, auto), place)
    teacher = made(model, processor, device, precision)
    if missing:
        _refuse_untrained(teacher, missing, place)
    single = folder / "model.safetensors"
    teacher.origin = place if folder.is_dir() else f"huggingface.co/{name}"
    teacher.sha256 = sha256(single) if single.is_file() else digest(model.state_dict())
    teacher.licence = _licence(place)
    return teacher


def _fetch(auto: Any, place: str) -> Any:
    try:
        return auto.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as e:
        where = "the folder" if Path(place).is_dir() else "neither a folder nor, as far as can be seen, on the hub:"
        raise ValueError(f"transformers:{place} ({where} {place}) gives no {auto.__name__}: {e}") from e


def _choose(architecture: str, place: str) -> tuple[type[Any], str]:
    """The teacher's class and transformers' Auto class for an architecture."""
    from transformers.models.auto import modeling_auto as known

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
    except (OSError, ValueError, RuntimeError, ImportError) as e:
        raise ValueError(f"transformers:{place} has no usable weights: {e}") from e
    return model, sorted({*info["missing_keys"], *(k[0] for k in info["mismatched_keys"])})


def _refuse_untrained(teacher: _HubTeacher, missing: list[str], place: str) -> None:
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


def _licence(place: str) -> str | None:
    """What the model card says, if there is one at hand."""
    import yaml
    from transformers.utils import cached_file

    quiet = {
        "_raise_exceptions_for_gated_repo": False,
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    card = cached_file(place, "README.md", **quiet)
    text = Path(card).read_text(encoding="utf-8", errors="replace") if card else ""
    if not text.startswith("---"):
        return None
    try:
        head = yaml.safe_load(text.split("---")[1])
    except yaml.YAMLError:
        return None
    licence = head.get("license") if isinstance(head, dict) else None
    return str(licence) if licence else None
