"""torchvision's models as teachers: `torchvision:NAME`, or `torchvision:NAME@FILE` for weights in a local file.

Image classes, boxes (Mask R-CNN: and masks; Keypoint R-CNN: boxes of persons) and semantic maps.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, final

import torch
import torchvision
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.transforms import Compose
from torchvision.transforms.v2 import functional as kernels

from polyteach.ground.files import sha256
from polyteach.ground.names import unknown_name
from polyteach.ground.weights import state_dict
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers._files import at_file, class_names, no_names
from polyteach.teachers._maps import as_pillow, map_size, most_probable, refuse_thin, size_of
from polyteach.teachers._torch import Classifier, TorchTeacher, by_shape, preprocessing, refuse_nan
from polyteach.teachers._weights import digest, load_strict, where

MASK_SIDE = 640
"""Longest side of an instance mask, in cells: one answer of 100 masks is then at most 41 MB."""
_PROBE = 7
"""Number of classes of the model that tells which weights depend on it."""
_FROZEN_WITHOUT_EPS = (
    "fasterrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
)
"""Models whose first COCO weights were trained with frozen normalisation that adds nothing to the variance."""

_HIDDEN = ("conv", "box_head", "mask_head", "keypoint_head")
"""How torchvision's detectors call the hidden layers of their heads."""


@final
class Segmenter(TorchTeacher):
    """The most probable class of every cell of a map of the whole image at the model's resolution."""

    def __init__(self, model: nn.Module, transform: Any, names: Sequence[str], device: str, precision: str) -> None:
        super().__init__(model, device, precision)
        self.transform = transform
        self.objectives = {"segmentation": Objective("segmentation", Space(tuple(names)))}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        for image in images:
            refuse_thin(image)

        def ask(batch: Float[Tensor, "B 3 h w"], positions: list[int]) -> Iterable[Target]:
            for logits, i in zip(self.run(batch)["out"], positions, strict=True):
                cells = map_size(size_of(images[i]), (logits.shape[-2], logits.shape[-1]))
                probability, category = most_probable(logits, cells)
                yield SegmentationTarget(category=category.cpu(), probability=probability.cpu())

        return [{"segmentation": t} for t in by_shape([self.transform(image) for image in images], ask)]


@final
class Detector(TorchTeacher):
    """Boxes with their scores, as many as the model keeps; its masks too, where it has any.

    keep: the model's class index -> index in the space, -1 for those that are no class (background, N/A).
    """

    def __init__(
        self, model: Any, names: Sequence[str], keep: Int64[Tensor, " K"], device: str, precision: str
    ) -> None:
        super().__init__(model, device, precision, _lowered(model))
        self.keep = keep
        for part in _answering(model):
            part.register_forward_hook(_refuse_nan)
        heads = getattr(model, "roi_heads", None)
        self.masks = heads is not None and heads.has_mask()
        kind = "boxes and masks" if self.masks else "boxes"
        self.objectives = {"detection": Objective("detection", Space(tuple(names), kind))}
        if self.masks:  # torchvision's own would paste every mask at the photograph's full size, gigabytes of it
            model.transform.postprocess = _unpasted

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: UInt8[Tensor, "B 3 h w"], positions: list[int]) -> Iterable[Target]:
            found = self.run([kernels.to_dtype(image, torch.float32, scale=True) for image in batch])
            return [self._target(f, size_of(batch[0])) for f in found]

        return [{"detection": t} for t in by_shape(images, ask)]

    def _target(self, found: dict[str, Tensor], size: tuple[int, int]) -> DetectionTarget:
        category = self.keep[found["labels"].cpu()]
        real = category >= 0
        box = found["boxes"].float().cpu()[real]
        mask = None
        if self.masks:
            box = box * (torch.tensor(size) / found["seen"]).flip(0).repeat(2)
            mask = _pasted(found["masks"].float().cpu()[real], box, size)
        return DetectionTarget(
            box=box,
            category=category[real],
            score=found["scores"].float().cpu()[real],
            ignore=torch.zeros(len(box), dtype=torch.bool),
            mask=mask,
        )


def _answering(model: Any) -> list[nn.Module]:
    """The parts whose outputs say what is where."""
    heads = getattr(model, "roi_heads", None)
    parts = [getattr(model, "head", None), getattr(getattr(model, "rpn", None), "head", None)]
    parts += [getattr(heads, name, None) for name in ("box_predictor", "mask_predictor")]
    return [part for part in parts if isinstance(part, nn.Module)]


def _refuse_nan(module: nn.Module, given: Any, found: Any) -> None:
    refuse_nan(found, f"the model's {type(module).__name__}")


def _lowered(model: Any) -> list[nn.Module]:
    """Backbone and hidden layers of the heads. The layers that answer, anchors, boxes and suppression are not.

    torchvision keeps boxes of different classes apart by adding class * (largest coordinate + 1) to them, which half
    precision rounds away: objects of a class far from the first would suppress one another, and others none.
    """
    heads = [m for part in ("rpn", "roi_heads", "head") if hasattr(model, part) for m in getattr(model, part).modules()]
    hidden = [getattr(m, name) for m in heads for name in _HIDDEN if isinstance(getattr(m, name, None), nn.Module)]
    return [model.backbone, *hidden]


def _unpasted(result: list[dict[str, Tensor]], sizes: list[tuple[int, int]], original: Any) -> list[dict[str, Tensor]]:
    """The model's answers as they are, in pixels of the resized image, whose size becomes "seen"."""
    return [{**r, "seen": torch.tensor(s)} for r, s in zip(result, sizes, strict=True)]


def _pasted(masks: Float[Tensor, "N 1 m m"], box: Float[Tensor, "N 4"], size: tuple[int, int]) -> Tensor:
    """Masks within their boxes -> bool (N, M, M2) over the whole image of (height, width) `size`."""
    side = min(MASK_SIDE / max(size), 1)
    cells = (max(round(size[0] * side), 1), max(round(size[1] * side), 1))
    scale = torch.tensor([cells[1] / size[1], cells[0] / size[0]]).repeat(2)
    out = torch.zeros(len(masks), *cells, dtype=torch.bool)
    for i in range(len(masks)):  # one at a time: the floats of all would be four times the answer
        out[i] = paste_masks_in_image(masks[i : i + 1], box[i : i + 1] * scale, cells)[0, 0] > 0.5
    return out


def load(name: str, device: str, precision: str) -> TorchTeacher:
    """The model `name` with torchvision's default weights, or with those of FILE in NAME@FILE.

    Raises:
        ValueError: unknown name, weights that cannot be fetched or do not fit, classes without names.
    """
    name, file = at_file(name)
    known = [n for n in torchvision.models.list_models() if _kind(n)]
    if name not in known:
        raise unknown_name("torchvision model", name, known)
    kind = _kind(name)
    weights = torchvision.models.get_model_weights(name)
    if file is None:
        chosen = weights.DEFAULT
        model = _fetched(name, chosen)
        names: Sequence[str] = chosen.meta["categories"]
        origin, hashed, count = f"torchvision {torchvision.__version__}: {chosen.url}", "", len(names)
    else:
        state, hashed = state_dict(file), sha256(file)
        origin = where(file, state)
        # torchvision's files are named after their hash: a copy of one gets just its own preprocessing
        original = [w for w in weights if hashed.startswith(w.url.removesuffix(".pth").rpartition("-")[2])]
        chosen = original[0] if original else weights.DEFAULT
        model, count = _local(name, kind, file, state, bool(original))
        names = _names(file, kind, count, chosen.meta["categories"])
    teacher: TorchTeacher
    if kind == "detection":
        real = [i for i, n in enumerate(names) if i and n != "N/A"]
        keep = torch.full((count,), -1, dtype=torch.long)
        keep[real] = torch.arange(len(real))
        teacher = Detector(model, [names[i] for i in real], keep, device, precision)
    else:
        names = ["background" if n == "__background__" else n for n in names]
        made = Segmenter if kind == "segmentation" else Classifier
        side = getattr(model, "image_size", None)  # vision transformers take one size only
        said = chosen.transforms()
        if side is not None and said.crop_size != [side]:
            said = chosen.transforms(crop_size=side, resize_size=side)
        if kind == "classification":
            seen = preprocessing(said.resize_size, said.crop_size, said.mean, said.std, said.interpolation)
        else:  # as much work as a small part of the network, and here a byte may decide between two classes
            seen = Compose([as_pillow, said])
        teacher = made(model, seen, names, device, precision)
    teacher.origin = origin
    teacher.sha256 = hashed or digest(model.state_dict())
    return teacher


def _kind(name: str) -> str:
    """What the model answers, by the module that torchvision keeps it in; "" for video, flow and quantised models."""
    module = torchvision.models.get_model_builder(name).__module__.removeprefix("torchvision.models.")
    folder = module.partition(".")[0] if "." in module else "classification"
    return folder if folder in ("classification", "detection", "segmentation") else ""


def _fetched(name: str, weights: Any) -> Any:
    try:
        return torchvision.models.get_model(name, weights=weights)
    except (OSError, RuntimeError) as e:
        raise ValueError(
            f"torchvision cannot get {weights.url} ({type(e).__name__}: {e}); put the file into"
            f" {torch.hub.get_dir()}/checkpoints, or give it as torchvision:{name}@FILE"
        ) from e


def _build(name: str, kind: str, classes: int, state: dict[str, Tensor], original: bool) -> Any:
    """The model for a state dict; `original`: it is torchvision's own, with what torchvision sets for those."""
    options: dict[str, Any] = {} if kind == "classification" else {"weights_backbone": None}
    if kind == "segmentation" and any(k.startswith("aux_classifier.") for k in state):
        options["aux_loss"] = True
    if name in ("googlenet", "inception_v3"):
        aux = any(k.lower().startswith("aux") for k in state)
        options |= {"init_weights": False, "aux_logits": aux, "transform_input": original}
    if name.startswith("vit_") and "encoder.pos_embedding" in state:
        options["image_size"] = _vit_side(state)
    model = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    if original and kind == "detection" and name in _FROZEN_WITHOUT_EPS:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | torchvision.ops.FrozenBatchNorm2d):
                module.eps = 0.0
    return model


def _vit_side(state: dict[str, Tensor]) -> int:
    """Height and width of the images that a vision transformer's positions are for."""
    cells = state["encoder.pos_embedding"].shape[1] - 1  # one is the class token's
    return int(round(cells**0.5) * state["conv_proj.weight"].shape[-1])


def _local(name: str, kind: str, file: Path, state: dict[str, Tensor], original: bool) -> tuple[Any, int]:
    """The model with the file's weights, and its number of classes, which the shapes tell."""
    model = _build(name, kind, _PROBE, state, original)
    counts = set()
    for key, mine in model.state_dict().items():
        given = state.get(key)
        if given is not None and given.dim() and mine.shape != given.shape and mine.shape[1:] == given.shape[1:]:
            counts.add(len(given) * _PROBE / len(mine))  # some have several rows for each class
    count = int(counts.pop()) if len(counts) == 1 else _PROBE
    if count != _PROBE:
        model = _build(name, kind, count, state, original)
    load_strict(model, state, f"{file}, for torchvision's {name},")
    return model, count


def _names(file: Path, kind: str, count: int, default: Sequence[str]) -> Sequence[str]:
    """One name per output. A class file of boxes may leave out the background, which is output 0."""
    if kind == "detection":
        try:
            found = class_names(file, count)
        except ValueError:
            found = ("__background__", *(class_names(file, count - 1) or ()))
    else:
        found = class_names(file, count)
    if found is not None:
        return found
    if count == len(default):
        return default
    raise no_names(file, count - (kind == "detection"))
