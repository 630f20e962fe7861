"""Open-vocabulary detectors of transformers: boxes of classes that are given as prompts.

Shapes: B images, P prompts (of one pass), K classes, Q queries or cells that a box comes from, T tokens, h w the input.
Boxes of models are centre x and y, width and height, as fractions of all that the model sees.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
import transformers
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from polyteach.ground.hub_models import fetched
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.detection import BOXES, FLOOR, SAME, DetectionTarget
from polyteach.teachers._maps import size_of
from polyteach.teachers._prompts_file import Prompts
from polyteach.teachers._torch import by_shape, refuse_nan
from polyteach.teachers._transformers_asking import PROBES, HubTeacher
from polyteach.teachers._transformers_tokens import TOKENIZER, padded, token_ids

DIVIDERS = (101, 102, 1012, 1029)
"""Tokens by which models of Grounding DINO tell phrases apart, whatever the tokenizer: BERT's [CLS], [SEP], . and ?."""
_LOWERED = ("backbone", "conv_encoder", "encoder", "vision_backbone", "vision_model")

Found = tuple[Float[Tensor, "B Q P"], Float[Tensor, "B Q 4"]]
"""Of a pass: how probable each prompt is at each query, 0..1, and the queries' boxes."""


class PromptedDetector(HubTeacher):
    """Boxes of classes that are given as prompts.

    A query's score for a class is that of the class's best prompt. Boxes of a class that overlap by more than `SAME`
    are one object: several prompts, or several passes, find it again.
    """

    files = TOKENIZER
    several = False
    """Whether a query may be of several classes, or is of its best one."""

    def __init__(self, model: Any, processor: Any, device: str, precision: str, prompts: Prompts) -> None:
        # queries, reference points and boxes stay in float32, as in other detectors
        lowered = [m for name, m in model.base_model.named_children() if name in _LOWERED]
        super().__init__(model, processor, device, precision, lowered)
        self.prompts = prompts
        self.owners = torch.tensor(prompts.owners, device=self.device)
        self.tokenizer = fetched(transformers.AutoTokenizer, self.place)
        self.square = any(list(map(self._pads, PROBES)))  # of every one, as each may be refused
        self.objectives = {"detection": Objective("detection", Space(prompts.names, BOXES))}

    @abstractmethod
    def passes(self, batch: Float[Tensor, "B C h w"]) -> Iterator[tuple[slice, Found]]:
        """What the model finds, for some of the prompts after others; with which."""

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterator[Target]:
            found = []
            for which, made in self.passes(batch):
                refuse_nan(made, self.place)  # not each of them goes through `outputs`
                found.append(self._of_classes(self.owners[which], *made))
            for i, n in enumerate(positions):
                yield self._target([(score[i], box[i]) for score, box in found], size_of(images[n]))

        return [{"detection": t} for t in by_shape([self.inputs(i) for i in images], ask)]

    def ask_anew(self, image: UInt8[Tensor, "3 _ _"]) -> None:
        with torch.inference_mode():
            self.outputs(self.inputs(image)[None])

    def _of_classes(self, owners: Tensor, score: Float[Tensor, "B Q P"], box: Tensor) -> tuple[Tensor, Tensor]:
        """The best of each class's prompts: (B, Q, K) scores, 0 for classes of other passes."""
        best = score.new_zeros(*score.shape[:2], len(self.prompts.names))
        return best.scatter_reduce(2, owners.expand_as(score), score, "amax"), box

    def _target(
        self, found: list[tuple[Float[Tensor, "Q K"], Float[Tensor, "Q 4"]]], size: tuple[int, int]
    ) -> DetectionTarget:
        """found: of each pass, over one image of (height, width) `size`."""
        boxes, scores, categories = [], [], []
        for score, box in found:
            if self.several:
                value, place = score.flatten().topk(len(score))
                query, category = place // score.shape[1], place % score.shape[1]
            else:
                value, category = score.max(1)
                query = torch.arange(len(score), device=score.device)
            keep = value > FLOOR
            boxes.append(box[query[keep]])
            scores.append(value[keep])
            categories.append(category[keep])
        height, width = (max(size),) * 2 if self.square else size
        box = box_convert(torch.cat(boxes).float().cpu(), "cxcywh", "xyxy") * torch.tensor([width, height] * 2)
        score, category = torch.cat(scores).float().cpu(), torch.cat(categories).cpu()
        # in float64, as the offsets that part the classes are large where there are many
        kept = batched_nms(box.double(), score.double(), category, SAME)
        return DetectionTarget(
            box=box[kept],
            category=category[kept],
            score=score[kept],
            ignore=torch.zeros(len(kept), dtype=torch.bool),
        )

    def _pads(self, size: tuple[int, int]) -> bool:
        """Whether the processor pads an image of (height, width) `size`, at the right or below to a square, as OWLv2's.

        Raises:
            ValueError: it pads otherwise: nothing says what boxes are fractions of then.
        """
        made = self._processed(torch.zeros(3, *size, dtype=torch.uint8))
        seen = tuple(made["pixel_values"].shape[-2:])
        if "pixel_mask" in made:
            padded, known = not bool(made["pixel_mask"].all()), False
        else:
            top, left, height, width = self.measured(size)
            padded = (height, width) != seen
            wide = [seen[axis] * size[axis] / max(size) for axis in (0, 1)]
            known = not top + left and abs(height - wide[0]) <= 1 and abs(width - wide[1]) <= 1
        if padded and not known:
            raise ValueError(
                f"{type(self.processor).__name__} of {self.place} pads images otherwise than at the right or below to "
                "a square, and nothing says what the model's boxes are fractions of then; set do_pad to false or "
                "pad_size to null in its preprocessor_config.json"
            )
        return padded


@final
class OwlDetector(PromptedDetector):
    """OWL-ViT (Minderer et al., ECCV 2022) and OWLv2 (Minderer et al., NeurIPS 2023): a box at each cell of the image.

    Texts are embedded once.
    """

    def __init__(self, model: Any, processor: Any, device: str, precision: str, prompts: Prompts) -> None:
        super().__init__(model, processor, device, precision, prompts)
        most = model.config.text_config.max_position_embeddings
        token_ids(prompts, self.tokenizer, most)
        tokens = padded(self.tokenizer, prompts.flat, most, ("input_ids", "attention_mask"))
        self.tokens = {name: value.to(self.device) for name, value in tokens.items()}
        with torch.inference_mode():
            found = model.base_model.get_text_features(**self.tokens)
        embedded = found if isinstance(found, Tensor) else found.pooler_output
        self.texts = torch.nn.functional.normalize(embedded.float(), dim=-1)

    def passes(self, batch: Float[Tensor, "B C h w"]) -> Iterator[tuple[slice, Found]]:
        model: Any = self.model
        field = model.image_embedder(batch[:, :3].to(self.device))[0]
        cells = field.flatten(1, 2)
        logits = model.class_predictor(cells, self.texts.expand(len(batch), -1, -1))[0]
        yield slice(None), (logits.sigmoid(), model.box_predictor(cells, field))

    def outputs(self, batch: Float[Tensor, "B C h w"], **beside: Tensor) -> Any:
        """The model's own answer about all prompts, texts computed anew."""
        tokens = {name: value.repeat(len(batch), 1) for name, value in self.tokens.items()}
        return super().outputs(batch, **tokens, **beside)


@final
class GroundingDetector(PromptedDetector):
    """Grounding DINO (Liu et al., ECCV 2024) and MM Grounding DINO (Zhao et al., 2024): "a cat. a dog." as one text.

    A query's score for a prompt is that of the best of the prompt's own tokens in that text. Where not all prompts fit
    into one text the image is asked about several times.
    """

    def __init__(self, model: Any, processor: Any, device: str, precision: str, prompts: Prompts) -> None:
        super().__init__(model, processor, device, precision, prompts)
        self.most = int(model.config.max_text_len)
        wanted = (DIVIDERS[0], DIVIDERS[1], DIVIDERS[2])
        had = (self.tokenizer.cls_token_id, self.tokenizer.sep_token_id, self.tokenizer.convert_tokens_to_ids("."))
        if had != wanted:
            raise ValueError(
                f"{self.place}: the tokenizer's [CLS], [SEP] and full stop are the tokens {had}; the model tells "
                f"phrases apart by {wanted}, those of BERT"
            )
        self.ids = token_ids(prompts, self.tokenizer, self.most - 1, lower=True)
        for i, ids in enumerate(self.ids):
            if set(ids) & set(DIVIDERS):
                raise prompts.wrong(i, "has a full stop or a question mark, where the model divides it; leave it out")
        self.chunks = _chunks([len(ids) + 1 for ids in self.ids], self.most - 2)

    def passes(self, batch: Float[Tensor, "B C h w"]) -> Iterator[tuple[slice, Found]]:
        for which in self.chunks:
            found = self._asked(batch, which)
            probability = found["logits"].sigmoid()
            spans, at = [], 1
            for ids in self.ids[which]:
                spans.append(probability[..., at : at + len(ids)].amax(-1))
                at += len(ids) + 1
            yield which, (torch.stack(spans, -1), found["pred_boxes"])

    def _asked(self, batch: Float[Tensor, "B C h w"], which: slice) -> Any:
        """The model's own answer about some of the prompts."""
        text = [DIVIDERS[0], *(n for ids in self.ids[which] for n in (*ids, DIVIDERS[2])), DIVIDERS[1]]
        ids = torch.tensor(text).expand(len(batch), -1)
        ones, zeros = torch.ones_like(ids), torch.zeros_like(ids)
        return super().outputs(batch, input_ids=ids, attention_mask=ones, token_type_ids=zeros)

    def outputs(self, batch: Float[Tensor, "B C h w"], **beside: Tensor) -> Any:
        """The model's own answer about the first prompts; probabilities, as beyond the text logits are infinite."""
        found = self._asked(batch, self.chunks[0])
        return {"logits": found["logits"].sigmoid(), "pred_boxes": found["pred_boxes"]}


@final
class OmDetector(PromptedDetector):
    """OmDet-Turbo (Zhao et al., 2024): prompts, and a task that lists them, "Detect a cat, a dog.".

    A query may be of several classes, and there are as many boxes as queries, as in the library. Where the task would
    be cut off the image is asked about several times.
    """

    several = True

    def __init__(self, model: Any, processor: Any, device: str, precision: str, prompts: Prompts) -> None:
        super().__init__(model, processor, device, precision, prompts)
        self.most = int(model.config.text_config.max_position_embeddings)
        token_ids(prompts, self.tokenizer, self.most)
        self.chunks = self._chunks()
        self.texts = [self._tokens(which) for which in self.chunks]
        with torch.inference_mode():
            self._remember()

    def _task(self, texts: Sequence[str]) -> str:
        return f"Detect {', '.join(texts)}."

    def _chunks(self) -> list[slice]:
        """As many prompts together as their task has room for."""
        flat, out, start = self.prompts.flat, [], 0
        while start < len(flat):
            stop = start
            while stop < len(flat) and self._fits(flat[start : stop + 1]):
                stop += 1
            if stop == start:
                raise self.prompts.wrong(start, f"makes a task of more than the {self.most} tokens that there may be")
            out.append(slice(start, stop))
            start = stop
        return out

    def _fits(self, texts: Sequence[str]) -> bool:
        return len(self.tokenizer(self._task(texts))["input_ids"]) <= self.most

    def _tokens(self, which: slice) -> dict[str, Tensor]:
        """Inputs of a pass for one image."""
        texts, takes = self.prompts.flat[which], ("input_ids", "attention_mask")
        classes = padded(self.tokenizer, texts, self.most, takes)
        task = padded(self.tokenizer, [self._task(texts)], self.most, takes)
        named = {f"classes_{k}": v for k, v in classes.items()} | {f"tasks_{k}": v for k, v in task.items()}
        return {k: v.to(self.device) for k, v in named.items()}

    def _remember(self) -> None:
        """Have the model keep the embeddings of all texts, which it would compute anew and in other batches."""
        model: Any = self.model
        for cache in (model.language_cache_class, model.language_cache_prompt):
            cache.cache.clear()
            cache.current_load, cache.capacity = 0, max(cache.capacity, len(self.prompts.flat))
        for tokens in self.texts:
            model.get_cached_class_embeddings(tokens["classes_input_ids"], tokens["classes_attention_mask"])
            model.get_cached_task_embeddings(tokens["tasks_input_ids"], tokens["tasks_attention_mask"])

    def passes(self, batch: Float[Tensor, "B C h w"]) -> Iterator[tuple[slice, Found]]:
        for which, tokens in zip(self.chunks, self.texts, strict=True):
            inputs = {name: value.repeat(len(batch), 1) for name, value in tokens.items()}
            inputs["classes_structure"] = torch.full((len(batch),), len(tokens["classes_input_ids"]))
            found = super().outputs(batch, **inputs)
            yield which, (found["decoder_class_logits"].sigmoid(), found["decoder_coord_logits"])

    def outputs(self, batch: Float[Tensor, "B C h w"], **beside: Tensor) -> Any:
        """The model's own answer about all prompts, texts computed anew."""
        self._remember()
        return {f"{i}": torch.cat([x.flatten() for x in made]) for i, (_, made) in enumerate(self.passes(batch))}


DETECTORS: dict[str, type[PromptedDetector]] = {
    "GroundingDinoForObjectDetection": GroundingDetector,
    "MMGroundingDinoForObjectDetection": GroundingDetector,
    "OmDetTurboForObjectDetection": OmDetector,
    "OwlViTForObjectDetection": OwlDetector,
    "Owlv2ForObjectDetection": OwlDetector,
}
"""By architecture, how it is asked."""


def _chunks(sizes: Sequence[int], room: int) -> list[slice]:
    """Neighbours together, as many as there is room for."""
    out, start, filled = [], 0, 0
    for i, size in enumerate(sizes):
        if filled + size > room:
            out.append(slice(start, i))
            start, filled = i, 0
        filled += size
    return [*out, slice(start, len(sizes))]
