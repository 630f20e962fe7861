"""The description beside an ONNX file, checked key by key; `onnx_models.py` says what they mean.

Nothing here needs torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyteach.ground.fields import short
from polyteach.ground.files import read_json, read_text, yaml_value
from polyteach.teachers._onnx_metadata import from_metadata

TOP = ("task", "layout", "names", "kind", "licence", "origin", "input", "output")
INPUT = (
    "name", "size", "multiple", "longest", "layout", "colour", "dtype", "range", "mean", "std", "resize", "shorter",
    "place", "fill", "interpolation", "antialias",
)  # fmt: skip
OUTPUT = {
    "classification": ("scores", "values"),
    "detection": (
        "boxes", "scores", "classes", "count", "format", "unit", "first_class", "values", "least_score", "overlap",
        "raw", "prototypes", "ignored", "masks", "mask_frame", "mask_values",
    ),
    "segmentation": ("map", "values", "stretch", "channels"),
    "depth": ("map", "factor", "inverted"),
    "normals": ("map", "axes", "channels"),
}  # fmt: skip


_FITTED: Mapping[str, Any] = {"resize": "fit", "place": "centre", "fill": 114, "antialias": False}
LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "yolov8": _FITTED,
    "yolov5": _FITTED,
    "end to end": _FITTED,
    "rt-detr rows": {"antialias": False},
    "rt-detr": {},
    "detr": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "fastestdet": {"colour": "BGR", "antialias": False},
}
"""Layouts of a detector's outputs (`_onnx_layouts`), each with how its authors prepare an image."""
LAID_OUT: Mapping[str, Mapping[str, Any]] = {"detr": {"format": "cxcywh", "unit": "fraction", "values": "softmax"}}
"""What the outputs of a layout are, where those of a description without one would be something else."""


class Description(dict[str, Any]):
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

    def flag(self, key: str, default: bool) -> bool:
        """True or false.

        Raises:
            ValueError: it is neither; names the file and the key.
        """
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise ValueError(f"{self.file}: {self.place}{key} is true or false; got {short(value)}")
        return value

    def number(self, key: str, default: float, low: float | None = None, high: float | None = None) -> float:
        """A finite number, from `low` to `high` where they are given.

        Raises:
            ValueError: it is none; names the file and the key.
        """
        value = self.get(key, default)
        if not _real(value) or (low is not None and value < low) or (high is not None and value > high):
            bounds = f" from {low:g} to {high:g}" if low is not None and high is not None else ""
            raise ValueError(f"{self.file}: {self.place}{key} must be a number{bounds}; got {short(value)}")
        return value

    def numbers(self, key: str, default: Sequence[float], lengths: Sequence[int]) -> list[float]:
        """Finite numbers, as many as one of `lengths`; one stands for itself.

        Raises:
            ValueError: others; names the file and the key.
        """
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


def describe(file: Path) -> Description:
    """The description of a graph: what stands beside it, or, of what does not stand there, what its metadata say.

    Beside it lies FILE.json, FILE.yaml or FILE.yml, with or without the graph's own ending. One that names a task is
    complete, and so is one that names a layout; another adds to the file's own (`_onnx_metadata`), and wins.

    Raises:
        ValueError: there is neither, or what there is is not valid.
    """
    found = _beside(file)
    if found is not None and ("task" in found or "layout" in found):
        return _laid_out(found)
    own = from_metadata(file)
    if found is None and not own:
        places = [f"{file.name}.json", f"{file.name}.yaml"]
        raise ValueError(
            f"{file} has no description beside it ({places[0]} or {places[1]}), nor does it describe itself, as "
            "Ultralytics' exports do: task, names, input and output; docs/guide/onnx.md has examples, and the head of "
            "polyteach/teachers/onnx_models.py lists its keys"
        )
    given: Mapping[str, Any] = found or {}
    for part in ("input", "output"):
        if isinstance(own.get(part), dict) and isinstance(given.get(part, {}), Mapping):
            own[part] = own[part] | dict(given.get(part, {}))
    content = own | {k: v for k, v in given.items() if k not in ("input", "output") or k not in own}
    return _laid_out(Description(content, file if found is None else found.file, "", TOP))


def _laid_out(about: Description) -> Description:
    """The description, with what its layout says: that it detects, and how an image is prepared."""
    if "layout" not in about:
        return about
    layout = about.choice("layout", *LAYOUTS)
    if about.setdefault("task", "detection") != "detection":
        raise ValueError(f"{about.file}: layout is for detection, not for {short(about['task'])}")
    if isinstance(about.get("input", {}), Mapping):
        given = dict(about.get("input", {}))
        usual = dict(LAYOUTS[layout])
        if given.get("resize", "fit") != "fit":
            usual = {k: v for k, v in usual.items() if k not in ("place", "fill")}
        about["input"] = usual | given
    if isinstance(about.get("output", {}), Mapping):
        about["output"] = dict(LAID_OUT.get(layout, {})) | dict(about.get("output", {}))
    return about


def _beside(file: Path) -> Description | None:
    stems = [Path(str(file)), file.with_suffix("")]
    places = [Path(f"{stem}{end}") for stem in stems for end in (".json", ".yaml", ".yml")]
    found = next((p for p in places if p.exists()), None)
    if found is None:
        return None
    if found.suffix == ".json":
        return Description(read_json(found), found, "", TOP)
    text = read_text(found)
    try:
        content = yaml_value(text)
    except ValueError as e:
        raise ValueError(f"{found} is not valid YAML: {e}") from e
    return Description(content, found, "", TOP)
