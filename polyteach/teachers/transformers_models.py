"""Hugging Face models as teachers: `transformers:FOLDER` or `transformers:OWNER/MODEL` on the hub.

Image classes, boxes, semantic and panoptic maps, depth. The library's own Auto classes load model and image
processor; weights are fp32 and cast by autocast; no code of the repository is run.
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
import transformers
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.ops import masks_to_boxes
from transformers.models.auto import modeling_auto as known

from polyteach.ground.files import sha256
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import FLOOR, DetectionTarget
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers._maps import map_size, most_probable, refuse_thin, resized, size_of
from polyteach.teachers._torch import TorchTeacher, by_shape
from polyteach.teachers._transformers_check import folder_of
from polyteach.teachers._transformers_files import check_folder, check_processor, fetched, licence_of, read_config, said
from polyteach.teachers._transformers_places import frame_of, placed, rectangle, unpadded
from polyteach.teachers._weights import digest

LARGEST_MAP = 640
"""Longest side of the maps and masks of panoptic models, which hold as many floats for each of 100 queries."""
PROBES = ((97, 131), (131, 97))
"""Sizes (height, width) by which it is found out whether a processor pads; prime, so that none is a usual multiple."""
_PANOPTIC = ("MaskFormerForInstanceSegmentation", "Mask2FormerForUniversalSegmentation", "DetrForSegmentation")


class _HubTeacher(TorchTeacher):
    """A model with its image processor, asked about images one shape at a time."""

    whole = True
    """Whether the answer is about every pixel of the image, so that the processor must not crop it."""

    def __init__(
        self, model: Any, processor: Any, device: str, precision: str, lowered: Sequence[nn.Module] | None = None
    ) -> None:
        super().__init__(model, device, precision, lowered)
        self.processor, self.place = processor, model.config.name_or_path
        size = dict(getattr(processor, "size", None) or {})
        self.shorter = "shortest_edge" in size and "longest_edge" not in size
        self.takes_mask = "pixel_mask" in inspect.signature(model.forward).parameters
        self.gives_mask = False
        """Whether the processor gives the model a mask; known once it was asked."""
        self.names = _names(model.config)
        self.measures = False
        """Whether it is to be measured where in the model's input an image of each size lies."""
        self._places: dict[tuple[int, int], tuple[int, int, int, int]] = {}

    def inputs(self, image: UInt8[Tensor, "3 _ _"]) -> Float[Tensor, "C h w"]:
        """What the processor makes of one image; where it may have padded there is a fourth channel, 0 in the padding.

        The model sees that channel only as the mask that its own processor gives it.
        """
        if self.shorter:
            refuse_thin(image)
        made = self._processed(image)
        pixels: Tensor = made["pixel_values"][0].float()
        if "pixel_mask" in made:
            self.gives_mask = self.takes_mask
            return torch.cat([pixels, made["pixel_mask"].to(pixels)])
        if not self.measures:
            return pixels
        size = size_of(image)
        if size not in self._places:
            self._places[size] = self.measured(size)
        top, left, height, width = self._places[size]
        mask = pixels.new_zeros(1, *pixels.shape[1:])
        mask[:, top : top + height, left : left + width] = 1
        return torch.cat([pixels, mask])

    def _processed(self, image: UInt8[Tensor, "3 _ _"]) -> Any:
        uncropped = {"do_center_crop": False} if self.whole and getattr(self.processor, "do_center_crop", False) else {}
        return self.processor(images=[image], return_tensors="pt", input_data_format="channels_first", **uncropped)

    def outputs(self, batch: Float[Tensor, "B C h w"]) -> Any:
        """The model's outputs with floats in float32, as post-processing wants them."""
        mask = {"pixel_mask": batch[:, 3].long()} if self.gives_mask else {}
        found = self.run(pixel_values=batch[:, :3], **mask)
        for key, value in found.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                found[key] = value.float()
        return found

    def find_padding(self) -> None:
        """Find out whether the processor pads an image that comes alone, and does nothing else that moves it.

        Raises:
            ValueError: it shows other than the whole image, upright and evenly scaled along each side.
        """
        if "pixel_mask" in self._processed(torch.zeros(3, *PROBES[0], dtype=torch.uint8)):
            return
        for size in PROBES:
            _, _, height, width = self.measured(size)
            made = self._processed(torch.zeros(3, *size, dtype=torch.uint8))["pixel_values"]
            self.measures |= (height, width) != tuple(made.shape[-2:])
        self.measures |= bool(getattr(self.processor, "do_pad", False))

    def measured(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Where the processor puts an image of (height, width) `size`: top, left, height, width in its output.

        Measured, as every processor has its own rule: what differs between a black and a white image is no padding, and
        ramps show which part of the image lies where.

        Raises:
            ValueError: that is no rectangle with the whole image, upright and evenly scaled along each side.
        """
        tall, wide = size
        ramps = [torch.linspace(0, 255, tall)[:, None].expand(size), torch.linspace(0, 255, wide).expand(size)]
        flat = [torch.full(size, 0.0), torch.full(size, 255.0)]
        plain, white, down, right = (
            self._processed(x.round().to(torch.uint8).expand(3, *size))["pixel_values"][0].float().mean(0)
            for x in flat + ramps
        )
        span = white - plain
        inside = span.abs() > span.abs().max() / 2
        place = rectangle(inside)
        known = place is not None and bool(inside.any())
        if known and place is not None:
            top, left, height, width = place
            part = (slice(top, top + height), slice(left, left + width))
            for ramp, cells, pixels, axis in ((down, height, tall, 0), (right, width, wide, 1)):
                found = ((ramp - plain)[part] / span[part]).movedim(axis, 0)
                centre = (torch.arange(cells) + 0.5) / cells * pixels - 0.5
                off = (found - (centre / max(pixels - 1, 1)).clamp(0, 1)[:, None]).abs().max()
                known = known and float(off) < 1.5 / min(cells, pixels) + 2 / 255
        if not known or place is None:
            raise ValueError(
                f"{type(self.processor).__name__} of {self.place} does not show the whole image of "
                f"{tall}x{wide} (height x width) in a rectangle, upright and evenly scaled, so that what the model "
                "answers cannot be put back on it; switch off in its preprocessor_config.json what crops, turns or "
                "pads by mirroring"
            )
        return place


def _names(config: Any) -> tuple[str, ...]:
    """Class names in the order of the outputs.

    Raises:
        ValueError: config.json's id2label does not number them from 0, without gaps.
    """
    numbers, count = sorted(map(int, config.id2label)), len(config.id2label)
    if numbers != list(range(count)):
        named = f"{numbers[0]} to {numbers[-1]}"
        raise ValueError(
            f"{config.name_or_path}/config.json: id2label names {count} classes by the numbers {named}; they must be "
            f"the outputs 0 to {count - 1}. Write the number of each output there, and N/A for one without a class"
        )
    return tuple(str(config.id2label[i]) for i in range(count))


@final
class Classifier(_HubTeacher):
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
class Segmenter(_HubTeacher):
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
        self.find_padding()
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
                yield self._answer(q.softmax(-1)[:, :-1], unpadded(m, x), size_of(images[i]))

        return by_shape([self.inputs(i) for i in images], ask)

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
        if not self.unpads:
            self.find_padding()
        self.objectives = {"depth": Objective("depth", Space((), _depth_kind(model.config)))}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            found = self.outputs(batch)
            sizes = [size_of(images[i]) for i in positions]
            shape, seen = found.predicted_depth.shape, (int(batch.shape[-2]), int(batch.shape[-1]))
            places = [placed(x) for x in batch]
            cells = [
                map_size(size, (round(shape[-2] * h / seen[0]), round(shape[-1] * w / seen[1])))
                for size, (_, _, h, w) in zip(sizes, places, strict=True)
            ]
            source = {"source_sizes": sizes} if self.unpads else {}
            if any((h, w) != seen for _, _, h, w in places):
                depths = found.predicted_depth
                maps = [self._cut(d, seen, at, size) for d, at, size in zip(depths, places, cells, strict=True)]
            else:
                processed = self.processor.post_process_depth_estimation(found, target_sizes=cells, **source)
                maps = [m["predicted_depth"] for m in processed]
            for m, size in zip(maps, cells, strict=True):
                value = m.float().cpu().reshape(size)
                yield DepthTarget(value=value, valid=torch.ones(size, dtype=torch.bool))

        return [{"depth": t} for t in by_shape([self.inputs(i) for i in images], ask)]

    @staticmethod
    def _cut(
        field: Float[Tensor, "m n"], seen: tuple[int, int], place: tuple[int, int, int, int], cells: tuple[int, int]
    ) -> Float[Tensor, "M N"]:
        """The part at `place` of a map over an input of (height, width) `seen`; bicubic, as the processors' own way."""
        top, left, height, width = place
        whole = F.interpolate(field[None, None], seen, mode="bicubic")
        part = whole[:, :, top : top + height, left : left + width]
        return F.interpolate(part, cells, mode="bicubic")[0, 0]


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
