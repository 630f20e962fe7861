"""Teachers: images in, targets out. One file per family, found by its name.

`timm:resnet50` is loaded by `teachers/timm_models.py`, `own:RUN` by `teachers/own.py`. A family's file has one
function `load(name, device, precision) -> Teacher`. Below are the pieces that several families share.

An image's answer never depends on the other images of its batch: only inputs of one shape are stacked, and nothing
is padded for the batch's sake. So a retry or another batch size gives the same labels.
"""

import functools
import hashlib
import importlib
import os
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from polyteach.devices import PRECISIONS
from polyteach.files import downloading, read_json, read_text
from polyteach.names import did_you_mean, unknown_name
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.weights import AVERAGED, StateDict


class Teacher(ABC):
    """A model that answers one or more objectives about images.

    objectives: what it answers, by a short name, usually the task's. A teacher with several (an own student, a
    panoptic model) makes one label set for each.
    origin: where the weights come from (file, hub name); sha256 of the weights; licence, None where unknown.
    learning_rate, batch_size, optimizer: of its training, where recorded: the student's loss weights read them.
    optimizer: "sgd" or "adamw", or another name, with which no student's learning rate is compared.
    """

    spec: str = ""
    objectives: dict[str, Objective]
    origin: str = ""
    sha256: str | None = None
    licence: str | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    optimizer: str | None = None

    def compute(self, name: str) -> list[dict[str, Any]]:
        """What the teacher called `name` has cost to train, and its own teachers: of, name, images, flops, seconds.

        `of` tells entries of the same training apart from others. Empty where it is not known.
        """
        return []

    @abstractmethod
    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        """One answer per image and objective, on the CPU, in pixels of that image; images may differ in size.

        images: uint8 RGB on the CPU. Maps cover the whole image but may keep the model's own resolution.
        """


def families() -> dict[str, str]:
    """Family -> module in this folder."""
    return {m.name.removesuffix("_models"): m.name for m in pkgutil.iter_modules(__path__)}


def load_teacher(spec: str, device: str = "cpu", precision: str = "fp32") -> Teacher:
    """The teacher named by FAMILY:NAME, ready to answer.

    device: as torch names it, such as "cuda:0". precision: "fp32", or "fp16" and "bf16" by autocast.

    Raises:
        ValueError: unknown family, model or precision, missing weights; the message lists what there is.
    """
    family, colon, name = spec.partition(":")
    known = families()
    if not colon or not name or family not in known:
        raise _no_family(spec, family, colon)
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    module: Any = importlib.import_module(f"polyteach.teachers.{known[family]}")
    with downloading():
        teacher: Teacher = module.load(name, device, precision)
    teacher.spec = spec
    return teacher


def _no_family(spec: str, family: str, colon: str) -> ValueError:
    """The error for what is no FAMILY:NAME: what is wrong with it, the families, the closest, and what to do."""
    known = sorted(families())
    if family in known:
        wrong = "names a family and no model"
    else:
        wrong = f"is of the unknown family {family!r}" if colon else "names no family"
    return ValueError(
        f"teacher {spec!r} {wrong}; a teacher is FAMILY:NAME with FAMILY one of {', '.join(known)}"
        f"{did_you_mean(family, known) or '.'} A model of another library (YOLO, Detectron2, MMDetection): export it "
        "to ONNX and give onnx:FILE, with FILE.json beside it (docs/onnx.md), or write a function that asks it: "
        "python:FILE.py:FUNCTION"
    )


THINNEST = 20
"""Longest side over shortest, beyond which a model that resizes the shorter side would need too much memory."""


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

    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        with torch.inference_mode():
            answers = self.answer(images)
        return [{k: _ordinary(t) for k, t in answer.items()} for answer in answers]

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


def _ordinary(target: Target) -> Target:
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


def size_of(image: UInt8[Tensor, "3 _ _"]) -> tuple[int, int]:
    """(height, width) in pixels."""
    return int(image.shape[1]), int(image.shape[2])


def picture(image: UInt8[Tensor, "3 _ _"]) -> Image.Image:
    """The image as Pillow's, which models' own preprocessing was made for."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def refuse_thin(image: UInt8[Tensor, "3 _ _"]) -> None:
    """For models that resize the shorter side and would blow up a thin strip.

    Raises:
        ValueError: the longer side is more than `THINNEST` times the shorter.
    """
    h, w = size_of(image)
    if max(h, w) > THINNEST * min(h, w):
        raise ValueError(f"image of {h}x{w} (height x width) is too thin: this model takes up to 1:{THINNEST}")


def map_size(size: tuple[int, int], cells: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a map for an image of `size`, with the image's aspect, that keeps what `cells` can show.

    It has at least the rows and columns of `cells`, which may be of another aspect, but no more than the image.
    """
    scale = min(max(cells[0] / size[0], cells[1] / size[1]), 1)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def resized(field: Float[Tensor, "*C M N"], size: tuple[int, int]) -> Float[Tensor, "*C h w"]:
    """A map of scores or distances at another resolution, bilinear, in float32."""
    planes = field.reshape(1, -1, *field.shape[-2:]).float()
    if tuple(planes.shape[-2:]) != size:
        planes = F.interpolate(planes, size, mode="bilinear", align_corners=False)
    return planes.reshape(*field.shape[:-2], *size)


def most_probable(
    logits: Float[Tensor, "C M N"], cells: tuple[int, int]
) -> tuple[Float[Tensor, "h w"], Int64[Tensor, "h w"]]:
    """Probability (0..1) and index of the most probable class of each of `cells`; bilinear in the logits."""
    # a cell's classes side by side: several times as fast, and these maps are larger than the network's own work. A new
    # tensor, as one image of a batch may say that it lies so already, and have a stride for which torch copies its
    # enlarged map twice
    shape, device = (1, *logits.shape), logits.device
    planes = torch.empty(shape, dtype=torch.float32, device=device, memory_format=torch.channels_last).copy_(logits)
    if tuple(logits.shape[-2:]) != cells:
        planes = F.interpolate(planes, cells, mode="bilinear", align_corners=False)
    found = []
    for rows in planes[0].permute(1, 2, 0).split(16):  # as many as stay in a processor's cache
        best = rows.max(-1)
        found.append((1 / (rows - best.values[..., None]).exp_().sum(-1), best.indices))
    probability, category = (torch.cat(parts) for parts in zip(*found, strict=True))
    return probability, category


def at_file(name: str) -> tuple[str, Path | None]:
    """NAME or NAME@FILE as the name and the file.

    Raises:
        ValueError: no such file.
    """
    name, at, file = name.partition("@")
    path = Path(file).expanduser()
    if at and not path.is_file():
        raise ValueError(f"no weights file {path}; NAME@FILE takes a .safetensors or .pth state dict")
    return name, path if at else None


def where(file: Path, state: StateDict) -> str:
    """Origin of weights from a file, for provenance: which of its weights, where it holds averaged ones too."""
    return f"{file} ({state.part})" if state.part in AVERAGED else str(file)


def preprocessing(
    size: Sequence[int] | int, crop: Sequence[int], mean: Sequence[float], std: Sequence[float], interpolation: Any
) -> v2.Compose:
    """An image's bytes -> (3, h, w) float: resized with antialiasing, cropped in the middle, normalised.

    What torchvision and timm do with Pillow's pictures, by torch: resizing takes a sixth of the time, and gives a tenth
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


def load_strict(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """All of `state` into all of `model`.

    Raises:
        ValueError: names are missing, left over or of another shape; the message says which, with `what`.
    """
    mine = model.state_dict()
    wrong = [f"{k} is {tuple(v.shape)}, not {tuple(mine[k].shape)}" for k, v in state.items()
             if k in mine and v.shape != mine[k].shape]  # fmt: skip
    # batch counters are absent from old files and from frozen normalisation; evaluation does not use them
    missing = [k for k in mine if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in mine and not k.endswith("num_batches_tracked")]
    for problem, names in (("has other shapes:", wrong), ("lacks", missing), ("has unknown", extra)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"{what} {problem} {', '.join(names[:3])}{more}")
    model.load_state_dict(state, strict=False)


def class_names(file: Path, count: int) -> tuple[str, ...] | None:
    """The `count` class names beside a weights file, or None where there is no such file.

    Looked for: FILE.json or FILE.classes.txt beside FILE, with or without its ending, then classes.json and
    classes.txt in its folder. JSON is a list of names, or index -> name; text has one name per line.

    Raises:
        ValueError: it does not have `count` names, or is no such list.
    """
    found = next((p for p in _name_files(file) if p.exists()), None)
    if found is None:
        return None
    inside(file, found.name, f"{file}: class names")
    if found.suffix == ".json":
        content = read_json(found)
        if isinstance(content, dict):
            if set(content) != {str(i) for i in range(len(content))}:
                raise ValueError(f"{found}: keys must be the class indices 0..{len(content) - 1}")
            content = [content[str(i)] for i in range(len(content))]
        if not isinstance(content, list) or not all(isinstance(n, str) for n in content):
            raise ValueError(f"{found} must hold a list of class names, or an object index -> name")
    else:
        content = [line.strip() for line in read_text(found).splitlines() if line.strip()]
    if len(content) != count:
        raise ValueError(f"{found} has {len(content)} class names; the weights in {file} have {count} classes")
    return tuple(content)


def inside(anchor: Path, name: str, what: str) -> Path:
    """The file `name` in the folder of `anchor`: both may be a stranger's, so links are followed.

    Where `anchor` is a link, it may lie beside what that leads to, as in the hub's cache, whose files are all links.
    what: begins the error.

    Raises:
        ValueError: it lies elsewhere, or is no file.
    """
    folder = anchor.parent
    try:
        path = (folder / name).resolve()
        homes = folder.resolve(), anchor.resolve().parent
        own = not os.path.isabs(name) and ".." not in Path(name).parts and any(map(path.is_relative_to, homes))
        file = own and path.is_file()
    except (OSError, ValueError, RuntimeError):  # no name of a file; a circle of links
        own, file = True, False
    if not own:
        raise ValueError(f"{what}: the file {name!r} lies outside {folder}; put the file itself there")
    if not file:
        raise ValueError(f"{what}: there is no file {name!r} in {folder}")
    return path


def _name_files(file: Path) -> list[Path]:
    stems = (file, file.with_suffix(""))
    own = [Path(f"{stem}{end}") for stem in stems for end in (".json", ".classes.txt", ".txt")]
    return [*own, file.parent / "classes.json", file.parent / "classes.txt"]


def no_names(file: Path, count: int) -> ValueError:
    """The error for weights whose classes nobody names; says how to make the class file."""
    return ValueError(
        f"{file} has {count} classes and nothing says their names: write {file}.classes.txt with {count} lines, one"
        " class name per line in the order of the model's outputs (or a list of names as .json)"
    )


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the bytes of weights, with their names and types, for those that came from no one file."""
    out = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        out.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        out.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return out.hexdigest()
