"""Models of transformers that answer masks by queries: a semantic map, and things as boxes with masks."""

from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
import transformers
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.ops import masks_to_boxes

from polyteach.ground.hub_models import beside, fetched
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.detection import FLOOR, MASKS, DetectionTarget
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers._maps import map_size, resized, size_of
from polyteach.teachers._torch import by_shape
from polyteach.teachers._transformers_asking import HubTeacher
from polyteach.teachers._transformers_files import class_info
from polyteach.teachers._transformers_places import fitted, unpadded

_WORDS = ("tokenizer.json", "vocab.json", "tokenizer_config.json", "merges.txt", "special_tokens_map.json")
"""Files by which words become numbers."""


class _Queries(HubTeacher):
    """Masks by queries (Cheng et al., MaskFormer, NeurIPS 2021): a semantic map, and things as boxes with masks.

    The probability of a class at a pixel is sum over queries of p(class | query) * p(pixel in the query's mask), at
    most 1. Things are answered where they are known: of COCO, by name. A model of things alone gives no map.
    """

    def know(self, things: set[int] | None) -> None:
        """Say what is answered. things: numbers of the classes that can be counted; None where it is not known."""
        countable = set(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]) - {"__background__", "N/A"}
        if things is None:
            things = {i for i, n in enumerate(self.names) if n in countable}
            if len(things) < len(countable):  # not COCO, so that names tell nothing about what is countable
                things = set()
        found = sorted(things)
        self.things = torch.full((len(self.names),), -1, dtype=torch.long)
        self.things[found] = torch.arange(len(found))
        self.objectives = {}
        if len(found) < len(self.names):
            self.objectives["segmentation"] = Objective("segmentation", Space(self.names))
        if found:
            space = Space(tuple(self.names[i] for i in found), MASKS)
            self.objectives["detection"] = Objective("detection", space)

    def queries(self, found: Any) -> tuple[Float[Tensor, "B Q K"], Float[Tensor, "B Q m n"]]:
        """Probabilities of the classes without "no object", and logits of the masks, of a model's outputs.

        Raises:
            ValueError: there are other classes than config.json names, or no such outputs.
        """
        logits = found.get("class_queries_logits", found.get("logits"))
        masks = found.get("masks_queries_logits", found.get("pred_masks"))
        if logits is None or masks is None:
            raise ValueError(f"{self.place} answers {', '.join(found)}, which are no classes and masks of queries")
        if logits.shape[-1] != len(self.names) + 1:
            raise ValueError(f"{self.place} answers {logits.shape[-1]} classes, not {len(self.names)} and no object")
        return logits.softmax(-1)[..., :-1], masks

    @staticmethod
    def map_of(best: tuple[Float[Tensor, "m n"], Int64[Tensor, "m n"]]) -> SegmentationTarget:
        """best: of each pixel, what the largest of the classes' sums is, and whose."""
        return SegmentationTarget(category=best[1].cpu(), probability=best[0].clamp(max=1).cpu())

    def region(self, probability: Float[Tensor, "Q K"], inside: Float[Tensor, "Q m n"]) -> SegmentationTarget:
        """The semantic map. inside: probability of each pixel to be in the query's mask."""
        best = torch.einsum("qk,qmn->kmn", probability, inside).max(0)
        return self.map_of((best.values, best.indices))

    def boxes(
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
class Panoptic(_Queries):
    """MaskFormer, Mask2Former, DETR and EoMT (Kerssies et al., CVPR 2025).

    A processor that cuts an image into pieces (EoMT's, for semantic maps) has them put together by itself; things would
    be cut too, so that they are not answered then.
    """

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision)
        self.know(None)
        self.pieces = bool(getattr(processor, "do_split_image", False))
        if not self.pieces:
            self.find_padding()
            return
        self.objectives.pop("detection", None)
        if not self.objectives:
            raise ValueError(
                f"{type(processor).__name__} of {self.place} cuts an image into pieces, and things with it, which is "
                "all that the model knows; set do_split_image to false, do_pad to true in preprocessor_config.json"
            )

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        if self.pieces:
            return [{"segmentation": self._joined(image)} for image in images]

        def ask(batch: Tensor, positions: list[int]) -> Iterable[dict[str, Target]]:
            for i, q, m, x in zip(positions, *self.queries(self.outputs(batch)), batch, strict=True):
                size, out = size_of(images[i]), dict[str, Target]()
                inside = resized(unpadded(m, x), fitted(size)).sigmoid()
                if "segmentation" in self.objectives:
                    out["segmentation"] = self.region(q, inside)
                if "detection" in self.objectives:
                    out["detection"] = self.boxes(q.cpu(), inside.cpu(), size)
                yield out

        return by_shape([self.inputs(i) for i in images], ask)

    def _joined(self, image: UInt8[Tensor, "3 _ _"]) -> SegmentationTarget:
        """The map of an image that the processor cut into pieces, put together by it, in the resolution it sees."""
        made = self.processed(image)
        pieces, places = made["pixel_values"].float(), [tuple(map(int, p)) for p in made["patch_offsets"]]
        found = self.outputs(pieces)
        self.queries(found)  # refuses what is none
        found["patch_offsets"] = places
        size, longer = size_of(image), max(end for _, _, end in places)
        seen = (longer, pieces.shape[3]) if size[0] > size[1] else (pieces.shape[2], longer)
        (joined,) = self.processor.post_process_semantic_segmentation(
            found, target_sizes=[seen], return_segmentation_scores=True
        )
        best = resized(joined.segmentation_scores, map_size(size, seen)).max(0)
        return self.map_of((best.values, best.indices))


@final
class OneFormer(_Queries):
    """One model that is told its task in words (Jain et al., CVPR 2023).

    The map is the answer to "semantic", things are the answer to "instance": a pass of the network for each. Which
    classes are things is read of the class file beside config.json where there is one.
    """

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision)
        things, file = class_info(self.place, self.names)
        self.know(things)
        self.files = (*_WORDS, *([file] if file else []))
        self.find_padding()
        if not any(beside(self.place, name) for name in _WORDS[:2]):  # the library would make one that knows no word
            raise ValueError(
                f"{self.place} has no {' or '.join(_WORDS[:2])}, by which OneFormer is told its task; they come with "
                "the model"
            )
        words = fetched(transformers.AutoTokenizer, self.place)
        self.tokens = {
            key: self._tokens(words, f"the task is {task}", model.config.task_seq_len)
            for key, task in (("segmentation", "semantic"), ("detection", "instance"))
        }

    @staticmethod
    def _tokens(words: Any, text: str, length: int) -> Float[Tensor, "1 length"]:
        """As the library's OneFormerProcessor has them: numbers of the words, and 0 behind them."""
        made = words([text], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return (made["input_ids"] * made["attention_mask"]).float()

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[dict[str, Target]]:
            out: list[dict[str, Target]] = [{} for _ in positions]
            for key in self.objectives:
                found = self.outputs(batch, task_inputs=self.tokens[key].expand(len(batch), -1))
                for one, i, q, m, x in zip(out, positions, *self.queries(found), batch, strict=True):
                    size = size_of(images[i])
                    inside = resized(unpadded(m, x), fitted(size)).sigmoid()
                    one[key] = (
                        self.region(q, inside) if key == "segmentation" else self.boxes(q.cpu(), inside.cpu(), size)
                    )
            return out

        return by_shape([self.inputs(i) for i in images], ask)
