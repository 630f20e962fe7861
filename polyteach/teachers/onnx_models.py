"""ONNX files as teachers: `onnx:FILE`, with a description beside it in FILE.json or FILE.yaml (or without .onnx).

docs/onnx.md has complete examples. What the graph itself says (type and rank of the input, its size, whether it takes
batches) is taken from it, and a description that says otherwise is refused.

task: classification, detection, segmentation or depth
names: class names in the order of the outputs, or a file with one name per line; none for depth
kind: of depth: relative inverse (default; larger is nearer) or metric (metres)
licence, origin: kept with the labels (optional)
input:
  name: of the graph's input (default: its first)
  size: [height, width]; default: the graph's own. For one that takes any size, leave it out: the image's size
  multiple: the sides are then rounded to multiples of this (default 32), at most `longest` (default 1024)
  layout: NCHW (default) or NHWC
  colour: RGB (default) or BGR
  dtype: float32, float16, float64, uint8, int8, int32 or int64; default, and only choice: the graph's own
  range: [low, high] that 0..255 becomes (default [0, 1]; of an integer input [0, 255], of int8 [-128, 127]), or "max":
    divided by the image's brightest value
  mean, std: numbers or one per channel, in units of `range` and order of `colour` (default 0, 1)
  resize: stretch (default), fit (aspect kept, padded), crop (shorter side, then centre; classes only)
  shorter: side before a crop (default: no more than the crop needs)
  place: where a fitted image lies: top left (default) or centre. fill: 0..255 around it (default 0)
  interpolation: bilinear (default), bicubic or nearest
output: names of the graph's outputs, and what they mean
  classification: scores; values: logits (default) or probabilities
  detection: boxes (N, 4), scores (N,) with classes (N,), or scores (N, K) alone; count, if only the first count.
    format: xyxy (default), yxyx or cxcywh; unit: pixels of the input (default) or fraction of it;
    first_class: what the graph calls the first class (default 0); values: probabilities (default) or logits;
    least_score: boxes below are dropped (default 0.05); overlap: intersection over union above which the worse
    box of a class is dropped, for graphs that do not (default: none is)
  segmentation: map (K, M, N); values: logits (default), probabilities, classes (M, N), or foreground: (M, N)
    probabilities of the last of two classes, whose names default to background, salient object
    stretch: true spreads each image's foreground over 0..1
  depth: map (M, N); factor: multiplies it (default 1); inverted: true for 1 / map
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.ops import batched_nms, box_convert
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as kernels

from polyteach.devices import NoDevice
from polyteach.fields import short
from polyteach.files import read_json, read_text, sha256, yaml_value
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import FLOOR, DetectionTarget
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers import Teacher, by_shape, inside, map_size, refuse_thin, resized, size_of

_TOP = ("task", "names", "kind", "licence", "origin", "input", "output")
_INPUT = (
    "name", "size", "multiple", "longest", "layout", "colour", "dtype", "range", "mean", "std", "resize", "shorter",
    "place", "fill", "interpolation",
)  # fmt: skip
_OUTPUT = {
    "classification": ("scores", "values"),
    "detection": (
        "boxes", "scores", "classes", "count", "format", "unit", "first_class", "values", "least_score", "overlap",
    ),
    "segmentation": ("map", "values", "stretch"),
    "depth": ("map", "factor", "inverted"),
}  # fmt: skip
LONGEST = 8192
"""Longest side of an input, in pixels: of a square one it takes 800 MB."""
_SALIENT = ("background", "salient object")
_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
"""ONNX Runtime's names of the types of an input that can be given."""
_ADVICE = {
    False: "Boxes and classes in one output, as YOLO exports them, are not read: split them in the graph (docs/onnx.md "
    "shows how)",
    True: "A grid (batch, channels, rows, columns) holds boxes that are not decoded yet: decode them in the graph, or "
    "ask the network from a function of your own, python:FILE.py:FUNCTION (docs/teachers.md)",
}
"""What to do with a detector's output that is no list of boxes; by whether it is a grid."""


class _Description(dict[str, Any]):
    """One level of a description file, whose errors name the file and the key."""

    def __init__(self, content: Any, file: Path, place: str, allowed: Sequence[str]) -> None:
        if not isinstance(content, Mapping):
            raise ValueError(f"{file}: {place or 'it'} must be keys and values; got {type(content).__name__}")
        for key in content:
            if key not in allowed:
                raise ValueError(f"{file}: unknown key {place}{short(key)}; allowed are {', '.join(allowed)}")
        super().__init__(content)
        self.file, self.place = file, place

    def choice(self, key: str, *allowed: str) -> str:
        """One of `allowed`, the first where the file says nothing."""
        value = self.get(key, allowed[0])
        if value not in allowed:
            raise ValueError(f"{self.file}: {self.place}{key} is {short(value)}; allowed are {', '.join(allowed)}")
        return str(value)

    def number(self, key: str, default: int | float) -> int | float:
        value = self.get(key, default)
        if not _real(value):
            raise ValueError(f"{self.file}: {self.place}{key} must be a number; got {short(value)}")
        return value

    def numbers(self, key: str, default: Sequence[int | float], lengths: Sequence[int]) -> list[int | float]:
        value = self.get(key, default)
        many = list(value) if isinstance(value, list | tuple) else [value]
        if len(many) not in lengths or not all(map(_real, many)):
            raise ValueError(
                f"{self.file}: {self.place}{key} must be {' or '.join(map(str, lengths))} numbers; got {short(value)}"
            )
        return many


def _real(value: Any) -> bool:
    """Whether it is a number that a tensor can hold; of true, text, NaN, infinity and 10^400 none is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e30 < value < 1e30


@dataclass(frozen=True)
class _Seen:
    """Where the image lies in the model's input. size: of the image. height, width: of the input.

    top, left, tall, wide: the rectangle of the input that shows the image.
    """

    size: tuple[int, int]
    height: int
    width: int
    top: int
    left: int
    tall: int
    wide: int

    def map(self, field: Float[Tensor, "*C M N"]) -> Float[Tensor, "*C m n"]:
        """A map over the input -> over the whole image, with its aspect."""
        if (self.tall, self.wide) != (self.height, self.width):
            field = resized(field, (self.height, self.width))
            field = field[..., self.top : self.top + self.tall, self.left : self.left + self.wide]
        return resized(field, map_size(self.size, (field.shape[-2], field.shape[-1])))

    def boxes(self, xyxy: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
        """Pixels of the input -> pixels of the image."""
        corner = torch.tensor([self.left, self.top]).repeat(2)
        return (xyxy - corner) * torch.tensor([self.size[1] / self.wide, self.size[0] / self.tall]).repeat(2)


class _Preprocessing:
    """Image -> the graph's input, as the description says."""

    _MODES: ClassVar = {
        "bilinear": InterpolationMode.BILINEAR,
        "bicubic": InterpolationMode.BICUBIC,
        "nearest": InterpolationMode.NEAREST,
    }

    def __init__(self, about: _Description, graphs: "_Input") -> None:
        self.layout = about.choice("layout", "NCHW", "NHWC")
        spatial = graphs.sides(self.layout)
        graph = [int(s) for s in spatial if isinstance(s, int) and s > 0]
        fixed = graph if len(graph) == 2 else None
        size = about.get("size")
        if size is not None:
            size = [int(s) for s in about.numbers("size", (), (2,))]
            if any(isinstance(s, int) and s > 0 and s != mine for s, mine in zip(spatial, size, strict=True)):
                raise ValueError(
                    f"{about.file}: {about.place}size is {size}; the graph takes {spatial} (height, width)"
                )
        elif len(graph) == 1:
            raise ValueError(
                f"{about.file}: {about.place}size is missing: the graph takes {spatial} (height, width), of which one "
                "side is fixed; give both"
            )
        self.size = size or fixed
        self.multiple, self.longest = int(about.number("multiple", 32)), int(about.number("longest", 1024))
        self.shorter = int(about.number("shorter", 0))
        if not 1 <= min(self.multiple, self.longest) <= max(self.multiple, self.longest, self.shorter) <= LONGEST:
            raise ValueError(f"{about.file}: {about.place}multiple, longest and shorter must be 1 to {LONGEST}")
        if self.size and not 1 <= min(self.size) <= max(self.size) <= LONGEST:
            raise ValueError(f"{about.file}: {about.place}size is {self.size}; sides are 1 to {LONGEST}")
        self.bgr = about.choice("colour", "RGB", "BGR") == "BGR"
        self.dtype = getattr(torch, graphs.dtype)
        if about.choice("dtype", graphs.dtype, *_TYPES.values()) != graphs.dtype:
            raise ValueError(
                f"{about.file}: {about.place}dtype is {short(about['dtype'])}; the graph takes {graphs.dtype}. "
                "Leave it out"
            )
        self.whole = not self.dtype.is_floating_point
        self.by_maximum = about.get("range") == "max"
        usual = ((-128, 127) if self.dtype == torch.int8 else (0, 255)) if self.whole else (0, 1)
        low_high = [0, 1] if self.by_maximum else about.numbers("range", usual, (2,))
        self.low, self.high = float(low_high[0]), float(low_high[1])
        self.mean = torch.tensor(about.numbers("mean", (0,), (1, 3))).float().reshape(-1, 1, 1)
        self.std = torch.tensor(about.numbers("std", (1,), (1, 3))).float().reshape(-1, 1, 1)
        if not self.std.all():
            raise ValueError(f"{about.file}: {about.place}std is 0; it divides")
        steps = abs(self.high - self.low) / float(self.std.abs().min())
        if self.whole and steps < 2:
            raise ValueError(
                f"{about.file}: {about.place}range, of an input of {graphs.dtype}, leaves {round(steps) + 1} values of "
                "256; leave range, mean and std out for the bytes as they are"
            )
        self.resize = about.choice("resize", "stretch", "fit", "crop")
        if self.resize != "stretch" and self.size is None:
            raise ValueError(f"{about.file}: {about.place}resize {self.resize} needs {about.place}size")
        for key, used, when in (
            ("multiple", self.size is None, "a graph of any size"),
            ("longest", self.size is None, "a graph of any size"),
            ("shorter", self.resize == "crop", "resize crop"),
            ("place", self.resize == "fit", "resize fit"),
            ("fill", self.resize == "fit", "resize fit"),
        ):
            if key in about and not used:
                raise ValueError(f"{about.file}: {about.place}{key} is only for {when}")
        self.centred = about.choice("place", "top left", "centre") == "centre"
        self.fill = about.number("fill", 0)
        self.mode = self._MODES[about.choice("interpolation", *self._MODES)]

    def __call__(self, image: UInt8[Tensor, "3 H W"]) -> tuple[Tensor, _Seen]:
        size = size_of(image)
        if self.size is None:
            scale = min(1.0, self.longest / max(size))
            tall, wide = (max(round(s * scale / self.multiple), 1) * self.multiple for s in size)
            height, width, top, left = tall, wide, 0, 0
            pixels = self._resized(image, (tall, wide))
        elif self.resize == "crop":
            refuse_thin(image)
            height, width = self.size
            scale = max(self.shorter / min(size), height / size[0], width / size[1])
            tall, wide = max(round(size[0] * scale), height), max(round(size[1] * scale), width)
            top, left = -((tall - height) // 2), -((wide - width) // 2)
            pixels = kernels.center_crop(self._resized(image, (tall, wide)), [height, width])
        else:
            height, width = self.size
            scale = min(height / size[0], width / size[1])
            fitted = (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
            tall, wide = fitted if self.resize == "fit" else (height, width)
            top, left = ((height - tall) // 2, (width - wide) // 2) if self.centred else (0, 0)
            pixels = torch.full((3, height, width), float(self.fill))
            pixels[:, top : top + tall, left : left + wide] = self._resized(image, (tall, wide)).float()
        return self._values(pixels), _Seen(size, height, width, top, left, tall, wide)

    def _resized(self, image: UInt8[Tensor, "3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
        return kernels.resize(image, list(size), interpolation=self.mode, antialias=True)

    def _values(self, pixels: Tensor) -> Tensor:
        x = pixels.float().flip(0) if self.bgr else pixels.float()
        x = x / x.max().clamp(min=1e-6) if self.by_maximum else self.low + x * ((self.high - self.low) / 255)
        x = (x - self.mean) / self.std
        if self.layout == "NHWC":
            x = x.permute(1, 2, 0)
        if not self.whole:
            return x.to(self.dtype)
        limits = torch.iinfo(self.dtype)
        return x.round().clamp(limits.min, limits.max).to(self.dtype)


@dataclass(frozen=True)
class _Input:
    """What the graph says of its input. shape: numbers, or names where any size will do. dtype: torch's name."""

    file: Path
    name: str
    shape: tuple[Any, ...]
    dtype: str

    @classmethod
    def of(cls, file: Path, name: str, found: Any) -> "_Input":
        """found: of `session.get_inputs()`.

        Raises:
            ValueError: a type that cannot be given, a rank that is no picture's, batches of one size only.
        """
        shape = tuple(found.shape or ())
        if found.type not in _TYPES:
            raise ValueError(f"{file}: its input {name} is a {found.type}; known are {', '.join(_TYPES)}")
        if len(shape) not in (3, 4):
            raise ValueError(
                f"{file}: its input {name} has rank {len(shape)}, {list(shape)}; a picture's is 4, (batch, channels, "
                "height, width) or, by layout NHWC, (batch, height, width, channels), or 3 without the batch"
            )
        if len(shape) == 4 and isinstance(shape[0], int) and shape[0] > 1:
            raise ValueError(
                f"{file}: its input {name} takes batches of exactly {shape[0]} pictures; export the graph for one, or "
                "with a free first dimension (dynamic axes)"
            )
        return cls(file, name, shape, _TYPES[found.type])

    def sides(self, layout: str) -> list[Any]:
        """Height and width, as the graph says them.

        Raises:
            ValueError: the dimension of the channels, by `layout`, is no 3.
        """
        picture = list(self.shape[-3:])
        channels = picture.pop(0 if layout == "NCHW" else 2)
        if isinstance(channels, int) and channels != 3:
            other = "NHWC" if layout == "NCHW" else "NCHW"
            raise ValueError(
                f"{self.file}: its input {self.name} has shape {list(self.shape)}, by layout {layout} with {channels} "
                f"channels, not 3 of colour; layout {other} may be meant"
            )
        return picture

    @property
    def single(self) -> bool:
        """Whether it is one picture, without a batch."""
        return len(self.shape) == 3

    @property
    def batched(self) -> bool:
        """Whether it takes several pictures at once."""
        return not self.single and not isinstance(self.shape[0], int)


@final
class OnnxTeacher(Teacher):
    """A graph run by ONNX Runtime. Images of one input shape go together where the graph takes batches."""

    def __init__(self, file: Path, session: Any, about: _Description, hashed: str) -> None:
        self.file, self.session = file, session
        self.task = about.choice("task", *_OUTPUT)
        inputs = {i.name: i for i in session.get_inputs()}
        given = _Description(about.get("input", {}), about.file, "input: ", _INPUT)
        self.input = given.choice("name", *inputs)
        if len(inputs) > 1:
            raise ValueError(f"{file} has {len(inputs)} inputs ({', '.join(inputs)}); a teacher has one, the image")
        self.graphs = _Input.of(file, self.input, inputs[self.input])
        self.prepare = _Preprocessing(given, self.graphs)
        if self.prepare.resize == "crop" and self.task != "classification":
            raise ValueError(f"{about.file}: input: resize crop loses part of the image; use stretch or fit")
        self.output = _Description(about.get("output", {}), about.file, "output: ", _OUTPUT[self.task])
        there = [o.name for o in session.get_outputs()]
        self.tensors: dict[str, str] = {}
        for key in ("scores", "boxes", "classes", "count", "map"):
            if key in _OUTPUT[self.task] and (key in self.output or key not in ("classes", "count")):
                if key not in self.output and not (len(there) == 1 and key != "boxes"):
                    raise ValueError(f"{about.file}: output: {key} must name one of the outputs {', '.join(there)}")
                self.tensors[key] = self.output.choice(key, *there)
        ways = {
            "classification": ("logits", "probabilities"),
            "detection": ("probabilities", "logits"),
            "segmentation": ("logits", "probabilities", "classes", "foreground"),
            "depth": ("values",),
        }
        self.values = self.output.choice("values", *ways[self.task])
        for key in ("stretch", "inverted"):
            if not isinstance(self.output.get(key, False), bool):
                raise ValueError(f"{about.file}: output: {key} is true or false; got {short(self.output[key])}")
        if self.output.get("stretch") and self.values != "foreground":
            raise ValueError(f"{about.file}: output: stretch is for values foreground, not {self.values}")
        self.box_format = self.output.choice("format", "xyxy", "yxyx", "cxcywh")
        self.fraction = self.output.choice("unit", "pixels", "fraction") == "fraction"
        self.first = int(self.output.number("first_class", 0))
        self.least = self.output.number("least_score", FLOOR)
        self.overlap = self.output.number("overlap", 1)
        self.factor = self.output.number("factor", 1)
        self.names = self._names(about)
        self.objectives = {self.task: Objective(self.task, Space(self.names, self._kind(about)))}
        self._check_outputs({o.name: tuple(o.shape or ()) for o in session.get_outputs()})
        for key in ("origin", "licence"):
            if not isinstance(about.get(key, ""), str):
                raise ValueError(f"{about.file}: {key} must be text; got {short(about[key])}")
        self.origin, self.licence = about.get("origin", str(file)), about.get("licence")
        self.sha256 = hashed

    def _kind(self, about: _Description) -> str:
        if self.task == "depth":
            return about.choice("kind", "relative inverse", "metric")
        if "kind" in about:
            raise ValueError(f"{about.file}: kind is for depth, not for {self.task}")
        return "boxes" if self.task == "detection" else ""

    def _names(self, about: _Description) -> tuple[str, ...]:
        names = about.get("names")
        if self.task == "depth":
            if names is not None:
                raise ValueError(f"{about.file}: depth has no class names")
            return ()
        if names is None and self.values == "foreground":
            return _SALIENT
        if isinstance(names, str):
            file = inside(about.file, names, f"{about.file}: names")
            names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise ValueError(
                f"{about.file}: names must list the class names in the order of the outputs, or be a file with one"
                f" name per line; got {short(names)}"
            )
        if self.values == "foreground" and len(names) != 2:
            raise ValueError(f"{about.file}: names of a foreground map are 2, background first; got {len(names)}")
        return tuple(names)

    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        pairs = [self.prepare(image) for image in images]

        def ask(batch: Tensor, positions: list[int]) -> list[Target]:
            groups = [batch] if self.batched else list(batch.split(1))
            out: list[Target] = []
            for group in groups:
                found = self._run(group)
                for i in range(len(group)):
                    out.append(self._target({k: v[i] for k, v in found.items()}, pairs[positions[len(out)]][1]))
            return out

        return [{self.task: t} for t in by_shape([x for x, _ in pairs], ask)]

    def _check_outputs(self, shapes: Mapping[str, tuple[Any, ...]]) -> None:
        """What can be seen before any image is asked about: ranks, and sizes where the graph says them.

        shapes: of the outputs, by name; empty where the graph says none.
        """
        known = {key: shapes[name] for key, name in self.tensors.items() if shapes[name]}
        main = next(iter(self.tensors)) if self.task != "detection" else "boxes"
        self.batched = self.graphs.batched and (main not in known or self._has_batch(len(known[main])) is not False)
        if main not in known:
            return
        shape, count = known[main], len(self.names)
        rows = shape[0 if self._has_batch(len(shape)) is False else 1 :]
        what = f"{self.file}: its output {self.tensors[main]} has shape {list(shape)}"
        if self.task == "detection" and (len(shape) not in (2, 3) or (shape[-1] != 4 and isinstance(shape[-1], int))):
            raise ValueError(f"{what}; boxes are (N, 4) or (batch, N, 4). {_ADVICE[len(shape) == 4]}")
        if self.task == "classification" and all(isinstance(n, int) for n in rows) and math.prod(rows) != count:
            raise ValueError(f"{what}, {math.prod(rows)} scores for an image; there are {count} names")
        if self.task == "segmentation" and self.values in ("logits", "probabilities"):
            if len(shape) not in (3, 4):
                raise ValueError(f"{what}; a map of {self.values} is (classes, M, N) or (batch, classes, M, N)")
            if isinstance(rows[0], int) and rows[0] != count:
                raise ValueError(f"{what}, {rows[0]} classes; there are {count} names")

    def _has_batch(self, rank: int) -> bool | None:
        """Whether an output of that rank has a dimension for the batch; None where rank alone does not tell.

        It is asked of the boxes of a detector, whose other outputs go with them.
        """
        if self.task == "classification":
            return rank >= 2
        if self.task == "detection":
            return rank == 3
        if self.task == "segmentation" and self.values in ("logits", "probabilities"):
            return rank == 4
        return None if rank == 3 else rank == 4  # (batch, M, N), or a channel of its own before or after (M, N)

    def _run(self, batch: Tensor) -> dict[str, Tensor]:
        """Every output that is read, float32, with the batch first."""
        given = batch[0] if self.graphs.single else batch
        arrays = self.session.run(list(self.tensors.values()), {self.input: given.numpy()})
        found = {k: torch.from_numpy(np.array(a)).float() for k, a in zip(self.tensors, arrays, strict=True)}
        main = found["boxes"] if self.task == "detection" else next(iter(found.values()))
        has_batch = self._has_batch(main.dim())
        if has_batch is None:
            has_batch = len(main) == len(batch)
        for key, value in found.items():
            if (not has_batch and len(batch) == 1) or (not value.dim() and len(batch) == 1):
                found[key] = value[None]
            elif not has_batch or len(value) != len(batch):
                name, shape = self.tensors[key], tuple(value.shape)
                raise ValueError(f"output {name} of {self.file} has shape {shape} for {len(batch)} images")
        return found

    def _target(self, found: dict[str, Tensor], seen: _Seen) -> Target:
        made = {"classification": self._classes, "detection": self._boxes, "segmentation": self._map}
        return made.get(self.task, self._depth)(found, seen)

    def _wrong(self, key: str, value: Tensor, wanted: str) -> ValueError:
        return ValueError(
            f"output {self.tensors[key]} of {self.file} has shape {tuple(value.shape)} for an image, not {wanted}"
        )

    def _classes(self, found: dict[str, Tensor], seen: _Seen) -> Target:
        scores = found["scores"].flatten()
        if len(scores) != len(self.names):
            raise self._wrong("scores", scores, f"the {len(self.names)} classes of names")
        return ClassificationTarget(probability=scores.softmax(0) if self.values == "logits" else scores)

    def _map(self, found: dict[str, Tensor], seen: _Seen) -> Target:
        field, flat = found["map"], self.values in ("classes", "foreground")
        if flat:
            field = self._plane("map", field)
        elif field.dim() != 3 or len(field) != len(self.names):
            raise self._wrong("map", field, f"({len(self.names)}, M, N) for the classes of names")
        if self.values == "classes":
            known = torch.arange(len(self.names))[:, None, None]
            unknown = field[(field < 0) | (field >= len(self.names)) | (field != field.round())]
            if len(unknown):
                raise ValueError(f"{self.file} answered class {unknown[0].item():g}; there are {len(self.names)} names")
            field = (field == known).float()  # resized as shares, so that classes are never blended
        elif self.values == "foreground":
            if self.output.get("stretch"):
                field = (field - field.min()) / (field.max() - field.min()).clamp(min=1e-6)
            field = torch.stack([1 - field, field])
        field = seen.map(field)
        best = (field.softmax(0) if self.values == "logits" else field).max(0)
        return SegmentationTarget(category=best.indices, probability=best.values)

    def _depth(self, found: dict[str, Tensor], seen: _Seen) -> Target:
        value = seen.map(self._plane("map", found["map"])) * self.factor
        valid = value.isfinite()
        if self.output.get("inverted"):
            valid &= value > 0
            value = 1 / value
        return DepthTarget(value=value.masked_fill(~valid, 0), valid=valid)

    def _plane(self, key: str, field: Tensor) -> Tensor:
        """(M, N), where a channel of its own may stand before or after it."""
        plane = field
        if plane.dim() == 3 and 1 in (plane.shape[0], plane.shape[2]):
            plane = plane[0] if plane.shape[0] == 1 else plane[..., 0]
        if plane.dim() != 2:
            raise self._wrong(key, field, "(M, N)")
        return plane

    def _boxes(self, found: dict[str, Tensor], seen: _Seen) -> Target:
        box, score = found["boxes"], found["scores"]
        score = score.sigmoid() if self.values == "logits" else score
        if box.dim() != 2 or box.shape[1] != 4:
            raise self._wrong("boxes", box, "(N, 4)")
        if "classes" in found:
            score, category = score.flatten(), found["classes"].flatten() - self.first
        else:
            if score.dim() != 2 or score.shape[1] != len(self.names) + self.first:
                raise self._wrong("scores", score, f"(N, {len(self.names) + self.first}), or name an output of classes")
            score, best = score[:, self.first :].max(1)
            category = best.float()
        if not len(box) == len(score) == len(category):
            raise ValueError(f"{self.file} answered {len(box)} boxes, {len(score)} scores, {len(category)} classes")
        count = int(found["count"].flatten()[0]) if "count" in found else len(box)
        box, score, category = box[:count], score[:count], category[:count].long()
        keep = ~(score < self.least)  # NaN stays and is found by the task's check
        box, score, category = box[keep], score[keep], category[keep]
        if self.fraction:
            width, height = (seen.height, seen.width) if self.box_format == "yxyx" else (seen.width, seen.height)
            box = box * torch.tensor([width, height]).repeat(2)
        if self.box_format == "yxyx":
            box = box[:, [1, 0, 3, 2]]
        elif self.box_format == "cxcywh":
            box = box_convert(box, "cxcywh", "xyxy")
        if self.overlap < 1:
            best_first = batched_nms(box, score, category, self.overlap)
            box, score, category = box[best_first], score[best_first], category[best_first]
        return DetectionTarget(
            box=seen.boxes(box), category=category, score=score, ignore=torch.zeros(len(box), dtype=torch.bool)
        )


def load(name: str, device: str, precision: str) -> OnnxTeacher:
    """The graph in the file `name` with the description beside it.

    Raises:
        ValueError: no such file, no description or a wrong one, a broken graph, another precision than fp32, a device
            that ONNX Runtime cannot use.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise ValueError("teachers of onnx: need the package: pip install 'polyteach[onnx]'") from e
    file = Path(name).expanduser()
    if not file.is_file():
        raise ValueError(f"no ONNX file {file}")
    if precision != "fp32":
        raise ValueError(f"{file}: an ONNX file has its own precision; give fp32 here, not {precision}")
    about = _describe(file)
    hashed = _hashed(file)  # before ONNX Runtime opens what the graph names
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=_providers(device))
    except Exception as e:  # ONNX Runtime's own classes have no common name that is public
        raise ValueError(f"{file} cannot be run by ONNX Runtime: {e}") from e
    if torch.device(device).type != "cpu" and "CUDAExecutionProvider" not in session.get_providers():
        raise NoDevice(f"ONNX Runtime cannot use {device!r} (its CUDA libraries are not there)")
    return OnnxTeacher(file, session, about, hashed)


def _hashed(file: Path) -> str:
    """SHA-256 of the graph, and of the weights that it keeps in other files: they may change, and the graph stay.

    Raises:
        ValueError: one of those is not there, or the graph says that it lies elsewhere than below its folder.
    """
    try:
        import onnx
    except ImportError as e:
        raise ValueError("teachers of onnx: need the package: pip install 'polyteach[onnx]'") from e
    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as e:  # protobuf's own
        raise ValueError(f"{file} cannot be run by ONNX Runtime: it is no ONNX file, or cut short ({e})") from e
    constants = [*_tensors(model.graph), *(t for function in model.functions for t in _constants(function.node))]
    places = sorted({e.value for tensor in constants for e in tensor.external_data if e.key == "location"})
    if not places:
        return sha256(file)
    lines = [sha256(file)]
    for place in places:
        lines.append(f"{place} {sha256(inside(file, place, f'{file} keeps weights elsewhere'))}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _tensors(graph: Any) -> Iterator[Any]:
    """All constants of a graph, those of graphs within it too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _constants(graph.node)


def _constants(nodes: Any) -> Iterator[Any]:
    """Those that stand in operations."""
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _describe(file: Path) -> _Description:
    stems = [Path(str(file)), file.with_suffix("")]
    places = [Path(f"{stem}{end}") for stem in stems for end in (".json", ".yaml", ".yml")]
    found = next((p for p in places if p.exists()), None)
    if found is None:
        raise ValueError(
            f"{file} has no description beside it ({places[0].name} or {places[1].name}): task, names, input and"
            " output; docs/onnx.md has examples, and the head of polyteach/teachers/onnx_models.py lists its keys"
        )
    if found.suffix == ".json":
        return _Description(read_json(found), found, "", _TOP)
    text = read_text(found)
    try:
        content = yaml_value(text)
    except ValueError as e:
        raise ValueError(f"{found} is not valid YAML: {e}") from e
    return _Description(content, found, "", _TOP)


def _providers(device: str) -> list[Any]:
    import onnxruntime

    wanted = torch.device(device)
    if wanted.type == "cpu":
        return ["CPUExecutionProvider"]
    there = onnxruntime.get_available_providers()
    if wanted.type != "cuda" or "CUDAExecutionProvider" not in there:
        raise NoDevice(f"ONNX Runtime here runs on {', '.join(there)}, which has no device {device!r}")
    return [("CUDAExecutionProvider", {"device_id": wanted.index or 0}), "CPUExecutionProvider"]
