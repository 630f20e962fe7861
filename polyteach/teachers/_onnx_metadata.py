"""What an ONNX file says of itself: Ultralytics (YOLO) writes task, names and image size beside the graph.

It needs no torch. What it cannot know of is refused: rotated boxes, tasks that there is no reader of.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from polyteach.ground.fields import short

MOST = 2**20
"""Characters of the list of names in the metadata."""
Shapes = Mapping[str, tuple[Any, ...]]


def open_model(file: Path) -> onnx.ModelProto:
    """The graph, without the weights that it keeps in other files.

    Raises:
        ValueError: it is no ONNX file, or cut short.
    """
    try:
        return onnx.load(str(file), load_external_data=False)
    except Exception as e:  # protobuf's own
        raise ValueError(f"{file} cannot be run by ONNX Runtime: it is no ONNX file, or cut short ({e})") from e


def metadata(file: Path) -> tuple[dict[str, str], Shapes]:
    """The file's metadata, and the shapes of its outputs by name: numbers, or text or None where any will do.

    Raises:
        ValueError: as `open_model`.
    """
    model = open_model(file)
    shapes = {
        o.name: tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in o.type.tensor_type.shape.dim)
        for o in model.graph.output
    }
    return {p.key: p.value for p in model.metadata_props}, shapes


def from_metadata(file: Path) -> dict[str, Any]:
    """A description as one that stands beside a graph, from what Ultralytics wrote into it; empty where it did not.

    Raises:
        ValueError: it is of a task that cannot be read, or what it says cannot be; names the key.
    """
    said, shapes = metadata(file)
    if not {"stride", "names"} <= set(said):
        return {}
    names = _names(file, said["names"])
    task = said.get("task", "detect")
    side = _size(file, said)
    about: dict[str, Any] = {"names": names, "origin": said.get("description", str(file))}
    if said.get("license"):
        about["licence"] = said["license"]
    given: dict[str, Any] = {"size": side} if side else {}
    if task == "classify":
        given |= {"resize": "crop", "shorter": min(side or [224])}
        return about | {"task": "classification", "input": given, "output": {"values": "probabilities"}}
    if task not in ("detect", "segment", "pose"):
        fix = "export one that detects, segments or classifies, or write a function: python:FILE.py:FUNCTION"
        of = "rotated boxes" if task == "obb" else f"the task {short(task)}"
        raise ValueError(f"{file}: its metadata says that it answers {of}, which no reader here takes; {fix}")
    output, layout = _output(file, said, task, shapes, len(names))
    return about | {"task": "detection", "layout": layout, "input": given, "output": output}


def _output(file: Path, said: Mapping[str, str], task: str, shapes: Shapes, k: int) -> tuple[dict[str, Any], str]:
    """What of its outputs is what, by their ranks and widths; and the layout."""
    rows = [n for n, s in shapes.items() if len(s) == 3]
    grids = [n for n, s in shapes.items() if len(s) == 4]
    wanted = "boxes (batch, rows, columns)" + (" and prototypes of masks (batch, C, m, n)" if task == "segment" else "")
    if len(rows) != 1 or (task == "segment" and len(grids) != 1):
        there = ", ".join(f"{n} {list(s)}" for n, s in shapes.items())
        raise ValueError(f"{file}: its metadata says {task}, of which the outputs are {wanted}; it has {there}")
    shape = shapes[rows[0]]
    output: dict[str, Any] = {"raw": rows[0]}
    extra = 0
    if task == "segment":
        output["prototypes"] = grids[0]
        prototypes = shapes[grids[0]][1]
        extra = prototypes if isinstance(prototypes, int) else 32
    if task == "pose":
        points = _literal(file, "kpt_shape", said.get("kpt_shape", "[17, 3]"))
        extra = output["ignored"] = int(points[0]) * int(points[1])
    return output, _layout(file, said, shape, k, extra)


def _layout(file: Path, said: Mapping[str, str], shape: tuple[Any, ...], k: int, extra: int) -> str:
    options = _literal(file, "args", said.get("args", "{}"))
    suppressed = said.get("end2end") == "True" or bool(isinstance(options, dict) and options.get("nms"))
    if suppressed or shape[2] == 6 + extra:
        return "end to end"
    if "task" not in said or shape[2] == 5 + k + extra:
        return "yolov5"  # whose exports name no task
    if shape[1] == 4 + k + extra:
        return "yolov8"
    if shape[2] == 4 + k + extra:
        return "rt-detr rows"
    raise ValueError(
        f"{file}: its boxes are {list(shape)}, and its metadata names {k} classes: no layout of Ultralytics has that "
        "shape. Describe it in a file beside it (docs/guide/onnx.md)"
    )


def _names(file: Path, text: str) -> list[str]:
    """{0: 'person', 1: 'bicycle'} or ['person', 'bicycle']."""
    found = _literal(file, "names", text)
    if isinstance(found, dict):
        found = [found.get(i) for i in range(len(found))]
    if not isinstance(found, list) or not found or not all(isinstance(n, str) and n for n in found):
        raise ValueError(f"{file}: names in its metadata do not number classes from 0: {short(text)}")
    return found


def _size(file: Path, said: Mapping[str, str]) -> list[int]:
    """Height and width; empty where it says nothing."""
    found = _literal(file, "imgsz", said.get("imgsz", "[]"))
    sides = found if isinstance(found, list) else [found]
    if not all(type(s) is int and s > 0 for s in sides) or len(sides) > 2:
        raise ValueError(f"{file}: imgsz in its metadata is no size: {short(said['imgsz'])}")
    return [int(s) for s in (sides * 2 if len(sides) == 1 else sides)]


def _literal(file: Path, key: str, text: str) -> Any:
    """The value of a literal of Python, as Ultralytics writes it; nothing is run."""
    try:
        if len(text) > MOST:
            raise ValueError
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"{file}: {key} in its metadata cannot be read: {short(text)}") from None
