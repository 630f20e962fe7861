"""Detectors of transformers: boxes, and boxes with outlines."""

from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor, nn
from torchvision.ops import box_convert

from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.detection import BOXES, FLOOR, MASKS, DetectionTarget
from polyteach.teachers._maps import resized, size_of
from polyteach.teachers._torch import by_shape
from polyteach.teachers._transformers_asking import PROBES, HubTeacher
from polyteach.teachers._transformers_places import fitted, frame_of, placed, unpadded


class _Boxes(HubTeacher):
    """Boxes with their scores. Classes called N/A are gaps in COCO's numbering and are left out.

    kind: of the space. method: of the processor's, that makes its answers of the model's.
    """

    kind, method = BOXES, "post_process_object_detection"

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision, _features(model))
        if not hasattr(processor, self.method):
            raise ValueError(
                f"{type(processor).__name__} of {self.place} has no {self.method}, which makes boxes of answers"
            )
        if model.config.model_type.startswith("pp_ocr"):
            raise ValueError(
                f"{self.place} finds text as quadrilaterals, 4 points each at any angle, which are no boxes (x1, y1, "
                "x2, y2); teachers of detection answer upright boxes"
            )
        real = [i for i, n in enumerate(self.names) if n != "N/A"]
        self.keep = torch.full((len(self.names),), -1, dtype=torch.long)
        self.keep[real] = torch.arange(len(real))
        names = tuple(self.names[i] for i in real)
        self.find_padding()
        if self.takes_mask:
            self._refuse_masked_padding()
        self.objectives = {"detection": Objective("detection", Space(names, self.kind))}

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

    def target(
        self, found: dict[str, Tensor], corner: tuple[float, float], mask: Bool[Tensor, "K m n"] | None = None
    ) -> DetectionTarget:
        """corner: x and y of the image's corner in pixels of the image, from that of all that the model saw."""
        box = found["boxes"].float().cpu()
        if box.dim() != 2 or box.shape[1] != 4:
            points = ", quadrilaterals of 4 points each" if tuple(box.shape[1:]) == (4, 2) else ""
            raise ValueError(f"{type(self.processor).__name__} answers boxes of {tuple(box.shape)}{points}, not (K, 4)")
        category = self.keep[found["labels"].cpu()]
        real = category >= 0
        return DetectionTarget(
            box=(box - torch.tensor(corner).float().repeat(2))[real],
            category=category[real],
            score=found["scores"].float().cpu()[real],
            ignore=torch.zeros(int(real.sum()), dtype=torch.bool),
            mask=None if mask is None else mask[real],
        )


@final
class Detector(_Boxes):
    """Boxes with their scores, as the processor makes them of the model's answers."""

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            # boxes are fractions of all that the model sees: of the image as if it had padding too
            frames = [frame_of(size_of(images[i]), x) for i, x in zip(positions, batch, strict=True)]
            sizes = torch.tensor([f[:2] for f in frames], device=self.device)
            found = self.processor.post_process_object_detection(
                self.outputs(batch), threshold=FLOOR, target_sizes=sizes
            )
            return [self.target(f, frame[2:]) for f, frame in zip(found, frames, strict=True)]

        return [{"detection": t} for t in by_shape([self.inputs(i) for i in images], ask)]


@final
class Outlines(_Boxes):
    """Boxes with their scores, and a mask of each: RF-DETR (Robinson et al., 2025).

    A query may be several classes, each for itself: what is answered are the best pairs of query and class, as many as
    there are queries, with the query's own box and its own mask. A mask is cut at a probability of 0.5.
    """

    kind, method = MASKS, "post_process_instance_segmentation"

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            found = self.outputs(batch)
            for i, x, logits, boxes, masks in zip(
                positions, batch, found.logits, found.pred_boxes, found.pred_masks, strict=True
            ):
                score, pair = logits.sigmoid().flatten().topk(min(len(logits), logits.numel()))
                pair, score = pair[score > FLOOR], score[score > FLOOR]
                query, size = pair // logits.shape[1], size_of(images[i])
                height, width, *corner = frame_of(size, x)
                box = box_convert(boxes[query], "cxcywh", "xyxy") * boxes.new_tensor([width, height, width, height])
                one = {"boxes": box, "labels": pair % logits.shape[1], "scores": score}
                seen = resized(unpadded(masks[query], x), fitted(size)) > 0
                yield self.target(one, (corner[0], corner[1]), seen.cpu())

        return [{"detection": t} for t in by_shape([self.inputs(i) for i in images], ask)]


def _features(model: Any) -> list[nn.Module]:
    """What comes before boxes: backbone and encoder; of a model without such parts (YOLOS) all but its heads.

    Queries, reference points and boxes stay in float32: as fractions of a side they have steps of 2^-8 in bfloat16.
    """
    base = model.base_model
    while isinstance(getattr(base, "model", None), nn.Module):  # a model of boxes within one of outlines
        base = base.model
    parts = [m for name, m in base.named_children() if name in ("backbone", "conv_encoder", "encoder")]
    return parts if base is model or any(n == "decoder" for n, _ in base.named_children()) else [base]
