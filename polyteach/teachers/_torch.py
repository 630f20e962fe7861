"""A torch model as a teacher: on its device, in its precision, inputs of one shape together."""

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.transforms import v2

from polyteach.ground.devices import PRECISIONS
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.teachers._maps import refuse_thin
from polyteach.teachers.contract import Teacher


class TorchTeacher(Teacher):
    """A torch model in eval mode on a device; a subclass says in `answer` how it is asked.

    model: moved to `device`. precision: autocast for "fp16" and "bf16". lowered: the parts of the model that compute in
    it, whose answers are float32 again; None for all of it. A model that says where things are names them: half a
    fraction's bits are steps of several pixels, and make suppression take boxes of other classes for one another.
    """

    def __init__(
        self, model: nn.Module, device: str, precision: str, lowered: Sequence[nn.Module] | None = None
    ) -> None:
        self.device, dtype = torch.device(device), PRECISIONS[precision]
        self.model = model.to(self.device).eval().requires_grad_(False)
        if dtype != torch.float32:  # convolutions in half precision are quicker in this layout
            self.model = self.model.to(memory_format=torch.channels_last)
            for module in lowered or ():
                _lower(module, self.device.type, dtype)
        self._dtype = dtype if lowered is None else torch.float32

    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]], *given: Sequence[Target]) -> list[dict[str, Target]]:
        with torch.inference_mode():
            answers = self.answer(images, *given)
        return [{k: ordinary(t) for k, t in answer.items()} for answer in answers]

    @abstractmethod
    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        """What `__call__` returns; runs in inference mode."""

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output in the precision that was asked for; tensors are moved to the device."""

        def there(x: Any) -> Any:
            return [there(y) for y in x] if isinstance(x, list) else x.to(self.device)

        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            return self.model(*map(there, args), **{k: there(v) for k, v in kwargs.items()})


def _lower(module: nn.Module, device: str, dtype: torch.dtype) -> None:
    """From now on the module computes under autocast, and returns float32."""
    inner = module.forward

    @functools.wraps(inner)
    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype):
            out = inner(*args, **kwargs)
        return _floats(out)

    module.forward = forward


def _floats(found: Any) -> Any:
    """Tensors, alone or in lists, tuples and dictionaries, with floats in float32."""
    if isinstance(found, Tensor):
        return found.float() if found.is_floating_point() else found
    if isinstance(found, dict):
        for key, value in found.items():  # in place, as outputs of transformers are dictionaries with more to them
            found[key] = _floats(value)
        return found
    if type(found) in (list, tuple):
        return type(found)(map(_floats, found))
    return found


def refuse_nan(found: Any, what: str) -> None:
    """Refuse NaN among a model's outputs, alone or in lists, tuples and dictionaries, before they are post-processed.

    Post-processing drops what is below a score, which NaN is as well: it would look like no object.

    what: begins the error.

    Raises:
        ValueError: there is NaN; says under which key of a dictionary.
    """
    if isinstance(found, Tensor):
        if found.is_floating_point() and bool(found.isnan().any()):
            raise ValueError(f"{what} answers NaN")
    elif isinstance(found, dict):
        for key, value in found.items():
            if isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any()):
                raise ValueError(f"{what} answers NaN ({key})")
            if isinstance(value, list):
                refuse_nan(value, what)
    elif isinstance(found, list | tuple):
        for value in found:
            refuse_nan(value, what)


def ordinary(target: Target) -> Target:
    """The target with tensors that autograd may keep, which those born in inference mode forbid."""
    values = {f.name: getattr(target, f.name) for f in fields(target)}
    return replace(target, **{k: v.clone() for k, v in values.items() if isinstance(v, Tensor)})


def by_shape(inputs: Sequence[Tensor], ask: Callable[[Tensor, list[int]], Iterable[Any]]) -> list[Any]:
    """One result per input, in order, where inputs of the same shape are asked together.

    ask: (stacked inputs, their positions) -> one result for each.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, x in enumerate(inputs):
        groups.setdefault(tuple(x.shape), []).append(i)
    out: list[Any] = [None] * len(inputs)
    for positions in groups.values():
        for i, result in zip(positions, ask(torch.stack([inputs[i] for i in positions]), positions), strict=True):
            out[i] = result
    return out


def preprocessing(
    size: Sequence[int] | int, crop: Sequence[int], mean: Sequence[float], std: Sequence[float], interpolation: Any
) -> v2.Compose:
    """An image's bytes -> (3, h, w) float: resized with antialiasing, cropped in the middle, normalised.

    What torchvision and timm do with Pillow's images, by torch: resizing takes a sixth of the time, and gives a tenth
    of the bytes another value by one of 255, next to none by more.
    size: of the shorter side, or height and width. crop: height and width.
    """
    seen = [v2.Resize(size, interpolation, antialias=True), v2.CenterCrop(crop)]
    return v2.Compose([*seen, v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))])


@final
class Classifier(TorchTeacher):
    """Soft classes, for models with a transform of their own.

    transform: an image -> (3, h, w) float, as the weights want it (resized, centre crop).
    """

    def __init__(self, model: nn.Module, transform: Any, names: Sequence[str], device: str, precision: str) -> None:
        super().__init__(model, device, precision)
        self.transform = transform
        self.objectives = {"classification": Objective("classification", Space(tuple(names)))}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        for image in images:
            refuse_thin(image)

        def ask(batch: Float[Tensor, "B 3 h w"], positions: list[int]) -> Iterable[Tensor]:
            return self.run(batch).float().softmax(-1).cpu()

        probabilities = by_shape([self.transform(image) for image in images], ask)
        return [{"classification": ClassificationTarget(probability=p)} for p in probabilities]
