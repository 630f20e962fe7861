"""ONNX files as teachers: `onnx:FILE`, with a description beside it in FILE.json or FILE.yaml (or without .onnx).

docs/guide/onnx.md has complete examples. What the graph itself says (type and rank of the input, its size, whether it
takes batches) is taken from it, and a description that says otherwise is refused. An export of Ultralytics says all of
it in its metadata and needs no description; one that stands beside it without a task adds to that, and wins.

task: classification, detection, segmentation, depth or normals
layout: of a detector: yolov8, yolov5, end to end, rt-detr rows, rt-detr, detr or fastestdet (`_onnx_layouts.py` says
  what each is); then task need not be said, and what `input` and `output` leave out is as its authors do it
names: class names in the order of the outputs, or a file with one name per line; none for depth and normals
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
  resize: stretch (default), fit (aspect kept, padded; of a graph of any size the longer side becomes `longest`, and
    both are padded to multiples), crop (shorter side, then centre; classes only)
  shorter: side before a crop (default: no more than the crop needs)
  place: where a fitted image lies: top left (default) or centre. fill: 0..255 around it (default 0)
  interpolation: bilinear (default), bicubic or nearest. antialias: false as OpenCV has it (default true)
output: names of the graph's outputs, and what they mean
  classification: scores; values: logits (default), probabilities, or sigmoid: logits of classes that do not exclude
    each other, of which every image gets the share
  detection: boxes (N, 4), scores (N,) with classes (N,), or scores (N, K) alone; count, if only the first count.
    format: xyxy (default), yxyx, xywh or cxcywh; unit: pixels of the input (default) or fraction of it;
    first_class: what the graph calls the first class (default 0); values: probabilities (default), logits (each class
    for itself) or softmax (logits, the last of them "no object", which has no name);
    least_score: boxes below are dropped (default 0.05); overlap: intersection over union above which the worse
    box of a class is dropped, for graphs that do not (default: none is)
    masks: (N, m, n); mask_frame: image (default; they cover the input) or box (each covers its box); mask_values:
    probabilities (default) or logits
    with a layout of one output: raw, that output; prototypes (C, m, n), of which each box says its mask's coefficients;
    ignored: how many numbers of a box are not read (keypoints)
  segmentation: map (K, M, N); values: logits (default), probabilities, classes (M, N), or foreground: (M, N)
    probabilities of the last of two classes, whose names default to background, salient object
    stretch: true spreads each image's foreground over 0..1; channels: first (default), or last: (M, N, K)
  depth: map (M, N); factor: multiplies it (default 1); inverted: true for 1 / map
  normals: map (3, M, N), or by channels: last (M, N, 3); axes: where x, y and z of the map point, "right down away"
    (default) or such as "right up towards"
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import onnxruntime
import torch
from jaxtyping import UInt8
from torch import Tensor

from polyteach._moved import relocated
from polyteach.ground.devices import NoDevice
from polyteach.ground.fields import short
from polyteach.ground.files import read_text, sha256
from polyteach.ground.texts import say
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import BOXES
from polyteach.tasks.normals import NormalsTarget
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers._axes import axes_of
from polyteach.teachers._files import inside
from polyteach.teachers._maps import unit_normals
from polyteach.teachers._onnx_boxes import BoxReader
from polyteach.teachers._onnx_check import onnx_file
from polyteach.teachers._onnx_description import INPUT, OUTPUT, Description, describe
from polyteach.teachers._onnx_input import BESIDE, Placement, Preprocessing, graph_input
from polyteach.teachers._onnx_metadata import open_model
from polyteach.teachers._torch import by_shape
from polyteach.teachers.contract import Teacher

_SALIENT = ("background", "salient object")
_VALUES = {
    "classification": ("logits", "probabilities", "sigmoid"),
    "segmentation": ("logits", "probabilities", "classes", "foreground"),
    "depth": ("values",),
    "normals": ("values",),
}
"""What the values of an output may be, by task; the first where the description does not say."""


@final
class OnnxTeacher(Teacher):
    """A graph run by ONNX Runtime. Images of one input shape go together where the graph takes batches."""

    def __init__(self, file: Path, session: Any, about: Description, hashed: str) -> None:
        self.file, self.session = file, session
        self.task = about.choice("task", *OUTPUT)
        if "task" not in about:
            say(f"{about.file} names no task and no layout; {self.task} is taken")
        inputs = {i.name: i for i in session.get_inputs()}
        shapes = {o.name: tuple(o.shape or ()) for o in session.get_outputs()}
        given = Description(about.get("input", {}), about.file, "input: ", INPUT)
        self.output = Description(about.get("output", {}), about.file, "output: ", OUTPUT[self.task])
        self.boxes = BoxReader(file, self.output, shapes, about.get("layout", "")) if self.task == "detection" else None
        self.input, self.beside = self._inputs(given, inputs)
        self.graphs = graph_input(file, self.input, inputs[self.input])
        self.prepare = Preprocessing(given, self.graphs)
        if self.prepare.resize == "crop" and self.task != "classification":
            raise ValueError(f"{about.file}: input: resize crop loses part of the image; use stretch or fit")
        self.tensors = self.boxes.tensors if self.boxes else self._tensors(list(shapes))
        self.main = self.boxes.main if self.boxes else next(iter(self.tensors))
        self.values = self.boxes.values if self.boxes else self.output.choice("values", *_VALUES[self.task])
        self.inverted, self.stretch = self.output.flag("inverted", False), self.output.flag("stretch", False)
        if self.stretch and self.values != "foreground":
            raise ValueError(f"{about.file}: output: stretch is for values foreground, not {self.values}")
        self.last = self.output.choice("channels", "first", "last") == "last"
        self.axes = axes_of(self.output.get("axes", "right down away"), f"{self.output.file}: output: axes")
        self.factor = self.output.number("factor", 1)
        if self.factor <= 0:
            raise ValueError(f"{about.file}: output: factor must be above 0; got {self.factor:g}. Is it `inverted`?")
        self.names = self._names(about)
        if self.boxes:
            self.boxes.names = self.names
        self.objectives = {self.task: Objective(self.task, Space(self.names, self._kind(about)))}
        self._check_outputs(shapes)
        for key in ("origin", "licence"):
            if not isinstance(about.get(key, ""), str):
                raise ValueError(f"{about.file}: {key} must be text; got {short(about[key])}")
        self.origin, self.licence = about.get("origin", str(file)), about.get("licence")
        self.sha256 = hashed

    def _inputs(self, given: Description, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The name of the image's input, and by name the further ones that this kind of network takes."""
        beside = {n: i for n, i in inputs.items() if self.task == "detection" and n in BESIDE and len(inputs) > 1}
        images = [n for n in inputs if n not in beside]
        name = given.choice("name", *images)
        if len(images) > 1:
            raise ValueError(
                f"{self.file} has {len(inputs)} inputs ({', '.join(inputs)}); a teacher has one, the image"
            )
        return name, beside

    def _tensors(self, there: list[str]) -> dict[str, str]:
        """What is read of the graph -> its name there; of a task with one output."""
        key = "scores" if self.task == "classification" else "map"
        if key not in self.output and len(there) != 1:
            raise ValueError(f"{self.output.file}: output: {key} must name one of the outputs {', '.join(there)}")
        return {key: self.output.choice(key, *there)}

    def _kind(self, about: Description) -> str:
        if self.task == "depth":
            return about.choice("kind", "relative inverse", "metric")
        if "kind" in about:
            raise ValueError(f"{about.file}: kind is for depth, not for {self.task}")
        return self.boxes.kind if self.boxes else ""

    def _names(self, about: Description) -> tuple[str, ...]:
        names = about.get("names")
        if self.task in ("depth", "normals"):
            if names is not None:
                raise ValueError(f"{about.file}: {self.task} has no class names")
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
        main = self.main
        self.batched = self.graphs.batched and (main not in known or self._has_batch(len(known[main])) is not False)
        if self.boxes:
            self.boxes.check(known)
            return
        if main not in known:
            return
        shape, count = known[main], len(self.names)
        rows = shape[0 if self._has_batch(len(shape)) is False else 1 :]
        what = f"{self.file}: its output {self.tensors[main]} has shape {list(shape)}"
        if self.task != "classification" and len(shape) == 2 and shape[0] == self.graphs.shape[0]:
            raise ValueError(f"{what}, a number or some for each image of a batch; a map is (M, N) or (batch, M, N)")
        if self.task == "classification" and all(isinstance(n, int) for n in rows) and math.prod(rows) != count:
            raise ValueError(f"{what}, {math.prod(rows)} scores for an image; there are {count} names")
        if self.task == "segmentation" and self.values in ("logits", "probabilities"):
            if len(shape) not in (3, 4):
                raise ValueError(f"{what}; a map of {self.values} is (classes, M, N) or (batch, classes, M, N)")
            channels = rows[2 if self.last else 0]
            if isinstance(channels, int) and channels != count:
                raise ValueError(f"{what}, {channels} classes; there are {count} names")

    def _has_batch(self, rank: int) -> bool | None:
        """Whether an output of that rank has a dimension for the batch; None where rank alone does not tell.

        It is asked of the boxes of a detector, whose other outputs go with them.
        """
        if self.task == "classification":
            return rank >= 2
        if self.boxes:
            return rank == self.boxes.rank
        if self.task == "normals" or (self.task == "segmentation" and self.values in ("logits", "probabilities")):
            return rank == 4
        return None if rank == 3 else rank == 4  # (batch, M, N), or a channel of its own before or after (M, N)

    def _run(self, batch: Tensor) -> dict[str, Tensor]:
        """Every output that is read, float32, with the batch first."""
        given = batch[0] if self.graphs.single else batch
        height, width = batch.shape[1:3] if self.prepare.layout == "NHWC" else batch.shape[2:4]
        beside = {n: BESIDE[n](i, len(batch), int(height), int(width)) for n, i in self.beside.items()}
        arrays = self.session.run(list(self.tensors.values()), {self.input: given.numpy()} | beside)
        found = {k: torch.from_numpy(np.array(a)).float() for k, a in zip(self.tensors, arrays, strict=True)}
        main = found[self.main]
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
        if self.boxes:
            return self.boxes(found, seen)
        made = {"classification": self._classes, "segmentation": self._map, "normals": self._normals}
        return made.get(self.task, self._depth)(found, seen)

    def _wrong(self, key: str, value: Tensor, wanted: str) -> ValueError:
        return ValueError(
            f"output {self.tensors[key]} of {self.file} has shape {tuple(value.shape)} for an image, not {wanted}"
        )

    def _classes(self, found: dict[str, Tensor], seen: Placement) -> Target:
        scores = found["scores"].flatten()
        if len(scores) != len(self.names):
            raise self._wrong("scores", scores, f"the {len(self.names)} classes of names")
        if self.values == "sigmoid":
            scores = scores.sigmoid() / scores.sigmoid().sum().clamp(min=1e-12)
        return ClassificationTarget(probability=scores.softmax(0) if self.values == "logits" else scores)

    def _map(self, found: dict[str, Tensor], seen: Placement) -> Target:
        field, flat = self._channels_first(found["map"]), self.values in ("classes", "foreground")
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
            if self.stretch:
                field = (field - field.min()) / (field.max() - field.min()).clamp(min=1e-6)
            field = torch.stack([1 - field, field])
        field = seen.map(field)
        best = (field.softmax(0) if self.values == "logits" else field).max(0)
        return SegmentationTarget(category=best.indices, probability=best.values)

    def _depth(self, found: dict[str, Tensor], seen: Placement) -> Target:
        value = seen.map(self._plane("map", found["map"])) * self.factor
        valid = value.isfinite()
        if not bool(valid.any()):
            raise ValueError(f"{self.file} answered NaN or infinity at every cell")
        if self.inverted:
            valid &= value > 0
            value = 1 / value
        return DepthTarget(value=value.masked_fill(~valid, 0), valid=valid)

    def _normals(self, found: dict[str, Tensor], seen: Placement) -> Target:
        field = self._channels_first(found["map"])
        if field.dim() != 3 or len(field) != 3:
            raise self._wrong("map", found["map"], "(M, N, 3)" if self.last else "(3, M, N)")
        if not bool(field.isfinite().all(0).any()):
            raise ValueError(f"{self.file} answered NaN or infinity at every cell")
        normal, valid = unit_normals(seen.map(field), self.axes)
        return NormalsTarget(normal=normal, valid=valid)

    def _channels_first(self, field: Tensor) -> Tensor:
        return field.permute(2, 0, 1) if self.last and field.dim() == 3 else field

    def _plane(self, key: str, field: Tensor) -> Tensor:
        """(M, N), where a channel of its own may stand before or after it."""
        plane = field
        if plane.dim() == 3 and 1 in (plane.shape[0], plane.shape[2]):
            plane = plane[0] if plane.shape[0] == 1 else plane[..., 0]
        if plane.dim() != 2:
            raise self._wrong(key, field, "(M, N)")
        return plane


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
    teacher = OnnxTeacher(file, session, about, hashed)
    if teacher.boxes and teacher.boxes.known:
        _tried(teacher, described=about.file != file)
    return teacher


def _tried(teacher: OnnxTeacher, described: bool) -> None:
    """Ask about one grey image, so that a layout that is another's is known now; and say how the graph is read.

    Raises:
        ValueError: its outputs are not what the layout says.
    """
    side = 64
    teacher([torch.full((3, side, side), 128, dtype=torch.uint8)])
    boxes = teacher.boxes
    assert boxes
    if not described:
        seen = "x".join(map(str, teacher.prepare.size or ("any", "size")))
        about = f"layout {boxes.known!r}, {len(boxes.names)} classes{', with masks' if boxes.kind != BOXES else ''}"
        say(f"{teacher.file}: by its own metadata: {about}, images seen at {seen}")
    if boxes.ignored:
        say(f"{teacher.file}: keypoints are not read; its boxes are")


def _hashed(file: Path) -> str:
    """SHA-256 of the graph, and of the weights that it keeps in other files: they may change, and the graph stay.

    Raises:
        ValueError: one of those is not there, or the graph says that it lies elsewhere than below its folder.
    """
    model = open_model(file)
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
