"""ONNX files as teachers: `onnx:FILE`, with a description beside it in FILE.json or FILE.yaml (or without .onnx).

docs/guide/onnx.md has complete examples. What the graph itself says (type and rank of the input, its size, whether it
takes batches) is taken from it, and a description that says otherwise is refused.

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
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from polyteach._moved import relocated
from polyteach.ground.devices import NoDevice
from polyteach.ground.fields import short
from polyteach.ground.files import read_text, sha256
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import FLOOR, DetectionTarget
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers._files import inside
from polyteach.teachers._onnx_check import onnx_file
from polyteach.teachers._onnx_description import INPUT, OUTPUT, Description, describe
from polyteach.teachers._onnx_input import Placement, Preprocessing, graph_input
from polyteach.teachers._torch import by_shape
from polyteach.teachers.contract import Teacher

_SALIENT = ("background", "salient object")
_ADVICE = {
    False: "Boxes and classes in one output, as YOLO exports them, are not read: split them in the graph "
    "(docs/guide/onnx.md shows how)",
    True: "A grid (batch, channels, rows, columns) holds boxes that are not decoded yet: decode them in the graph, or "
    "ask the network from a function of your own, python:FILE.py:FUNCTION (docs/guide/teachers.md)",
}
"""What to do with a detector's output that is no list of boxes; by whether it is a grid."""


_VALUES = {
    "classification": ("logits", "probabilities"),
    "detection": ("probabilities", "logits"),
    "segmentation": ("logits", "probabilities", "classes", "foreground"),
    "depth": ("values",),
}
"""What the values of an output may be, by task; the first where the description does not say."""


@final
class OnnxTeacher(Teacher):
    """A graph run by ONNX Runtime. Images of one input shape go together where the graph takes batches."""

    def __init__(self, file: Path, session: Any, about: Description, hashed: str) -> None:
        self.file, self.session = file, session
        self.task = about.choice("task", *OUTPUT)
        inputs = {i.name: i for i in session.get_inputs()}
        given = Description(about.get("input", {}), about.file, "input: ", INPUT)
        self.input = given.choice("name", *inputs)
        if len(inputs) > 1:
            raise ValueError(f"{file} has {len(inputs)} inputs ({', '.join(inputs)}); a teacher has one, the image")
        self.graphs = graph_input(file, self.input, inputs[self.input])
        self.prepare = Preprocessing(given, self.graphs)
        if self.prepare.resize == "crop" and self.task != "classification":
            raise ValueError(f"{about.file}: input: resize crop loses part of the image; use stretch or fit")
        self.output = Description(about.get("output", {}), about.file, "output: ", OUTPUT[self.task])
        self.tensors = self._tensors([o.name for o in session.get_outputs()])
        self.values = self.output.choice("values", *_VALUES[self.task])
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

    def _tensors(self, there: list[str]) -> dict[str, str]:
        """What is read of the graph -> its name there."""
        tensors: dict[str, str] = {}
        for key in ("scores", "boxes", "classes", "count", "map"):
            if key in OUTPUT[self.task] and (key in self.output or key not in ("classes", "count")):
                if key not in self.output and not (len(there) == 1 and key != "boxes"):
                    about = self.output.file
                    raise ValueError(f"{about}: output: {key} must name one of the outputs {', '.join(there)}")
                tensors[key] = self.output.choice(key, *there)
        return tensors

    def _kind(self, about: Description) -> str:
        if self.task == "depth":
            return about.choice("kind", "relative inverse", "metric")
        if "kind" in about:
            raise ValueError(f"{about.file}: kind is for depth, not for {self.task}")
        return "boxes" if self.task == "detection" else ""

    def _names(self, about: Description) -> tuple[str, ...]:
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

    def _target(self, found: dict[str, Tensor], seen: Placement) -> Target:
        made = {"classification": self._classes, "detection": self._boxes, "segmentation": self._map}
        return made.get(self.task, self._depth)(found, seen)

    def _wrong(self, key: str, value: Tensor, wanted: str) -> ValueError:
        return ValueError(
            f"output {self.tensors[key]} of {self.file} has shape {tuple(value.shape)} for an image, not {wanted}"
        )

    def _classes(self, found: dict[str, Tensor], seen: Placement) -> Target:
        scores = found["scores"].flatten()
        if len(scores) != len(self.names):
            raise self._wrong("scores", scores, f"the {len(self.names)} classes of names")
        return ClassificationTarget(probability=scores.softmax(0) if self.values == "logits" else scores)

    def _map(self, found: dict[str, Tensor], seen: Placement) -> Target:
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

    def _depth(self, found: dict[str, Tensor], seen: Placement) -> Target:
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

    def _boxes(self, found: dict[str, Tensor], seen: Placement) -> Target:
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
    file = onnx_file(name)
    if precision != "fp32":
        raise ValueError(f"{file}: an ONNX file has its own precision; give fp32 here, not {precision}")
    about = describe(file)
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


def _providers(device: str) -> list[Any]:
    wanted = torch.device(device)
    if wanted.type == "cpu":
        return ["CPUExecutionProvider"]
    there = onnxruntime.get_available_providers()
    if wanted.type != "cuda" or "CUDAExecutionProvider" not in there:
        raise NoDevice(f"ONNX Runtime here runs on {', '.join(there)}, which has no device {device!r}")
    return [("CUDAExecutionProvider", {"device_id": wanted.index or 0}), "CPUExecutionProvider"]


__getattr__ = relocated(__name__)
