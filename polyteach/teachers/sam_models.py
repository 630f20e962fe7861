"""Outlines in boxes: `sam:FOLDER+boxes=NAME` or `sam:OWNER/MODEL+boxes=NAME`.

A promptable model of transformers (SAM: Kirillov et al., ICCV 2023; SAM 2: Ravi et al., 2024; SAM-HQ, EdgeTAM, the
tracker of SAM 3) is shown each box of another teacher, or of a label set of the store, and says which pixels the object
in it has. Boxes, classes, scores and what is to be ignored stay as they were given.
"""

from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
import transformers
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from transformers.models.auto import modeling_auto as known

from polyteach.ground.hub_models import located, read_config, read_processor, said, untrained, weights
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.detection import MASKS, DetectionTarget
from polyteach.teachers._maps import size_of
from polyteach.teachers._sam_check import parsed
from polyteach.teachers._torch import TorchTeacher, by_shape, refuse_nan
from polyteach.teachers._transformers_asking import FATAL
from polyteach.teachers._transformers_files import licence_of, provenance
from polyteach.teachers.contract import Chained

TRIED = (96, 72)
"""Height and width of the image of noise that a model is asked about when it is loaded."""
CHUNK = 32
"""Boxes of an image that are asked about together: a mask at the model's resolution takes 4 MB on the way."""
LARGEST = 1024
"""Longest side of the masks: what these models look at. Finer ones would hold no more."""
MOST_CELLS = 2**28
"""Cells of all masks of an image together; where many boxes would take more, they are coarser."""


@final
class Sam(TorchTeacher, Chained):
    """Masks by box prompts; a box in which the model marks no pixel is ignored by whoever learns from it.

    The image is encoded once, its boxes are decoded together. The predicted IoU of the mask is not used: the score
    says how sure its giver is of the object, and thresholds of training are about that.
    """

    def __init__(self, model: Any, processor: Any, source: str, device: str, precision: str) -> None:
        super().__init__(model, device, precision, [model.vision_encoder])
        self.processor = processor
        self.needs = ("detection", source)
        self.objectives = {}

    def follow(self, source: Objective) -> None:
        if source.task != self.needs[0]:
            raise ValueError(f"{source.task} has no boxes to outline")
        self.objectives = {"detection": Objective("detection", Space(source.space.names, MASKS))}

    def example(self, size: tuple[int, int]) -> DetectionTarget:
        height, width = size
        return DetectionTarget(
            box=torch.tensor([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]]),
            category=torch.zeros(1, dtype=torch.long),
            score=torch.ones(1),
            ignore=torch.zeros(1, dtype=torch.bool),
        )

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]], given: Sequence[Target] = ()) -> list[dict[str, Target]]:
        boxes = [_boxes(target) for target in given]
        if len(boxes) != len(images):
            raise ValueError(f"{len(boxes)} answers with boxes for {len(images)} images")
        some = [i for i, target in enumerate(boxes) if len(target.box)]
        made = [
            self.processor(images=[images[i]], return_tensors="pt", input_data_format="channels_first") for i in some
        ]

        def ask(batch: Tensor, positions: list[int]) -> Iterator[Bool[Tensor, "K M N"]]:
            for at, features in zip(positions, self._encoded(batch), strict=True):
                image = images[some[at]]
                yield self._masks(features, size_of(image), boxes[some[at]].box, made[at])

        masks = dict(zip(some, by_shape([m["pixel_values"][0].float() for m in made], ask), strict=True))
        return [{"detection": _outlined(t, masks.get(i), size_of(images[i]))} for i, t in enumerate(boxes)]

    def _encoded(self, batch: Float[Tensor, "B 3 h w"]) -> Iterator[dict[str, Any]]:
        """What the decoder reads of each image of a batch, by the model's own names for it."""
        model: Any = self.model
        found = model.get_image_embeddings(batch.to(self.device))
        if isinstance(found, tuple):  # SAM-HQ reads layers of the encoder too
            names = dict(zip(("image_embeddings", "intermediate_embeddings"), found, strict=True))
        else:
            names = {"image_embeddings": found}
        for i in range(len(batch)):
            yield {
                name: value[i : i + 1] if isinstance(value, Tensor) else [level[i : i + 1] for level in value]
                for name, value in names.items()
            }

    def _masks(
        self, features: dict[str, Any], size: tuple[int, int], box: Float[Tensor, "K 4"], made: Any
    ) -> Bool[Tensor, "K M N"]:
        """The pixels of the object in each box of an image of (height, width) `size`; made: of its processor."""
        # where the image lies in the model's input, from its corner: beyond it there is padding
        inner = [int(n) for n in made.get("reshaped_input_sizes", [made["pixel_values"].shape[-2:]])[0]]
        scale = torch.tensor([inner[1] / size[1], inner[0] / size[0]]).repeat(2)
        place = {"reshaped_input_sizes": [inner]} if "reshaped_input_sizes" in made else {}
        cells = mask_size(size, len(box))
        out = []
        for chunk in (box.float() * scale).split(CHUNK):
            prompt = chunk[None].to(self.device)
            found = self.model(**features, input_boxes=prompt, multimask_output=False).pred_masks
            refuse_nan({"pred_masks": found}, "the model")
            [masks] = self.processor.post_process_masks([found[0].float()], original_sizes=[cells], **place)
            out.append(masks[:, 0].cpu())
        return torch.cat(out)


def mask_size(size: tuple[int, int], boxes: int) -> tuple[int, int]:
    """Height and width of the masks of so many boxes of an image of (height, width) `size`: its own, or smaller."""
    scale = min(1.0, LARGEST / max(size), (MOST_CELLS / (max(boxes, 1) * size[0] * size[1])) ** 0.5)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _boxes(target: Target) -> DetectionTarget:
    assert isinstance(target, DetectionTarget)
    return target


def _outlined(target: DetectionTarget, mask: Bool[Tensor, "K M N"] | None, size: tuple[int, int]) -> DetectionTarget:
    """The target with these masks in place of its own; those without a pixel are no outlines, and are ignored."""
    if mask is None:
        mask = torch.zeros(0, *mask_size(size, 0), dtype=torch.bool)
    return DetectionTarget(
        box=target.box.float(),
        category=target.category,
        score=target.score.float(),
        ignore=target.ignore | ~mask.flatten(1).any(1),
        mask=mask,
    )


def load(name: str, device: str, precision: str) -> Sam:
    """The model of a MODEL+boxes=NAME, which is to be told by `follow` what the boxes are of.

    Raises:
        ValueError: transformers is not installed, nothing there, a model that takes no boxes, weights that leave parts
            of it untrained.
    """
    model_name, source = parsed(name)
    place, origin = located(model_name)
    config = read_config(place)
    kinds = known.MODEL_FOR_MASK_GENERATION_MAPPING_NAMES
    if config.model_type not in kinds:
        raise ValueError(f"{place} is a {config.model_type} model; outlines in boxes are made by {', '.join(kinds)}")
    processor = read_processor(place)
    if not hasattr(processor, "post_process_masks"):
        raise ValueError(f"{type(processor).__name__} of {place} cannot make masks of answers")
    model, missing = weights(transformers.AutoModelForMaskGeneration, place)
    if missing:
        raise untrained(missing, place, "masks")
    teacher = Sam(model, processor, source, device, precision)
    _try_out(teacher, place)
    teacher.origin = origin
    teacher.sha256 = provenance(place, teacher.model.state_dict())
    teacher.licence = licence_of(place)
    return teacher


def _try_out(teacher: Sam, place: str) -> None:
    """Ask about an image of noise with a box, so that a model that fails at each image is known now.

    Raises:
        ValueError: it fails; says how.
    """
    draw = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *TRIED), dtype=torch.uint8, generator=draw)
    try:
        teacher([image], [teacher.example(TRIED)])
    except FATAL:
        raise
    except Exception as e:  # of the model or the processor
        raise ValueError(
            f"{place} outlines nothing, as when it was loaded and asked about noise: {' '.join(said(e).split())[:400]}"
        ) from e
