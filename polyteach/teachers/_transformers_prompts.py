"""Open vocabulary: classes that are given as prompts. Here: which models take them, prompts as tokens, image classes.

Shapes: B images, P prompts, K classes, T tokens, D channels of an embedding.
"""

import hashlib
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
import transformers
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers.models.auto import modeling_auto as known

from polyteach.ground.files import sha256
from polyteach.ground.hub_models import fetched
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.teachers._prompts_file import Prompts, read_prompts, split
from polyteach.teachers._torch import by_shape
from polyteach.teachers._transformers_asking import HubTeacher
from polyteach.teachers._transformers_grounding import DETECTORS
from polyteach.teachers._transformers_tokens import TOKENIZER, padded, token_ids

CLOSE = 1e-3
"""How far logits that are computed from parts of a model may be from its own, for logits of 1; relative above it."""


def prompted(architecture: str, place: str, prompts: Prompts | None) -> tuple[type[Any], str] | None:
    """The teacher's class and transformers' Auto class for an architecture that takes prompts; None for any other.

    Raises:
        ValueError: it takes prompts and none are given, or takes none and they are; or it is asked in another way than
            the ones here.
    """
    boxes = known.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES.values()
    classes = known.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()
    if architecture not in (*boxes, *classes):
        if prompts is not None:
            raise ValueError(f"{place} is a {architecture}, which has classes of its own; leave @{prompts.file} out")
        return None
    if prompts is None:
        raise ValueError(
            f"{place} is a {architecture}, which looks for classes that it is told: say "
            f"transformers:{place}@FILE.yaml, with a list of class names, or CLASS: [prompt, prompt] "
            "(docs/guide/prompts.md)"
        )
    if architecture in classes:
        return PromptedClassifier, "AutoModelForZeroShotImageClassification"
    if architecture not in DETECTORS:
        raise ValueError(f"{place} is a {architecture}; detectors that take prompts are {', '.join(DETECTORS)}")
    return DETECTORS[architecture], "AutoModelForZeroShotObjectDetection"


def prompts_of(name: str) -> tuple[str, Prompts | None]:
    """MODEL or MODEL@FILE as the model, and what the file says.

    Raises:
        ValueError: as `read_prompts`.
    """
    model, file = split(name)
    return model, None if file is None else read_prompts(file)


def digest_with(weights: str | None, prompts: Prompts) -> str:
    """SHA-256 of weights, by theirs, together with a file of prompts."""
    return hashlib.sha256(f"{weights} {sha256(prompts.file)}".encode()).hexdigest()


@final
class PromptedClassifier(HubTeacher):
    """Image classes by how near an image is to texts (CLIP: Radford et al., ICML 2021; SigLIP: Zhai et al., ICCV 2023).

    A class with several prompts is the mean of their normalised embeddings, normalised again, as CLIP's paper does it
    (section 3.1.4). Probabilities are the softmax of the logits. For SigLIP, which is trained to say of each text by
    itself how probable it is, p = sigmoid(logit), that is the probability of each class given that exactly one of them
    is right: the product of its odds p / (1 - p) and what the others have in common. So an image of none of the classes
    is given to one of them all the same, and nothing says so.
    """

    whole = False
    files = TOKENIZER

    def __init__(self, model: Any, processor: Any, device: str, precision: str, prompts: Prompts) -> None:
        scale = "temperature" if hasattr(model, "temperature") else "logit_scale"  # ALIGN's is the inverse
        needed = ("get_text_features", "get_image_features", scale, "vision_model")
        if lacks := [name for name in needed if not hasattr(model, name)]:
            raise ValueError(
                f"{model.config.name_or_path} is a {type(model).__name__}, which is not asked as CLIP is: it has no "
                f"{', '.join(lacks)}"
            )
        if len(prompts.names) < 2:
            raise ValueError(
                f"{prompts.file} names one class; probabilities of a single class would be 1 for every image. Add what "
                "else an image can be of, such as background"
            )
        super().__init__(model, processor, device, precision, [model.vision_model])
        probe = self.inputs(torch.arange(3 * 48 * 64).reshape(3, 48, 64).remainder(251).to(torch.uint8))[None]
        tokenizer = fetched(transformers.AutoTokenizer, self.place)
        most = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        # SigLIP learned from texts that are padded to one length
        length = most if "siglip" in model.config.model_type else None
        token_ids(prompts, tokenizer, most)
        self.tokens = padded(tokenizer, prompts.flat, length, inspect.signature(model.get_text_features).parameters)
        with torch.inference_mode():
            self.texts = self._texts(prompts.owners)
            self._check_logits(probe)
        self.objectives = {"classification": Objective("classification", Space(prompts.names))}

    def _texts(self, owners: Sequence[int]) -> Float[Tensor, "K D"]:
        """The classes' embeddings. owners: of each prompt, its class."""
        each, of = self._embedded(), torch.tensor(owners, device=self.device)
        sums = each.new_zeros(max(owners) + 1, each.shape[1]).index_add(0, of, each)
        return torch.nn.functional.normalize(sums / of.bincount()[:, None], dim=-1)

    def _embedded(self) -> Float[Tensor, "P D"]:
        """The prompts' normalised embeddings."""
        model: Any = self.model
        found = model.get_text_features(**{k: v.to(self.device) for k, v in self.tokens.items()})
        return torch.nn.functional.normalize(_pooled(found), dim=-1)

    def _logits(self, batch: Float[Tensor, "B 3 h w"], texts: Float[Tensor, "K D"]) -> Float[Tensor, "B K"]:
        model: Any = self.model
        seen = torch.nn.functional.normalize(_pooled(model.get_image_features(batch.to(self.device))), dim=-1)
        bias = getattr(model, "logit_bias", None)
        scale = 1 / model.temperature if hasattr(model, "temperature") else model.logit_scale.exp()
        return seen @ texts.T * scale + (0 if bias is None else bias)

    def outputs(self, batch: Float[Tensor, "B C h w"], **beside: Tensor) -> Any:
        """The model's own answer about all prompts, texts computed anew."""
        return super().outputs(batch, **self.tokens, **beside)

    def ask_anew(self, image: UInt8[Tensor, "3 _ _"]) -> None:
        with torch.inference_mode():
            self.outputs(self.inputs(image)[None])

    def _check_logits(self, x: Float[Tensor, "B 3 h w"]) -> None:
        """Refuse a model whose logits are made otherwise than here, such as by another scale.

        Raises:
            ValueError: they are.
        """
        mine, own = self._logits(x, self._embedded()), self.outputs(x).logits_per_image
        if mine.shape != own.shape or bool(((mine - own).abs() > CLOSE * own.abs().clamp(min=1)).any()):
            raise ValueError(
                f"{self.place} is a {type(self.model).__name__}, whose logits are not the scaled cosines of image and "
                "texts: it cannot be asked as CLIP is"
            )

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            for p in self._logits(batch, self.texts).float().softmax(-1).cpu():
                yield ClassificationTarget(probability=p)

        return [{"classification": t} for t in by_shape([self.inputs(i) for i in images], ask)]


def _pooled(found: Any) -> Float[Tensor, "N D"]:
    """The embeddings in what a model returns: them alone, or, in newer releases, with more."""
    pooled: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return pooled.float()
