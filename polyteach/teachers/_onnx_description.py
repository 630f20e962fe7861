"""The description beside an ONNX file, checked key by key; `onnx_models.py` says what they mean.

Nothing here needs torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyteach.ground.fields import short
from polyteach.ground.files import read_json, read_text, yaml_value

TOP = ("task", "names", "kind", "licence", "origin", "input", "output")
INPUT = (
    "name", "size", "multiple", "longest", "layout", "colour", "dtype", "range", "mean", "std", "resize", "shorter",
    "place", "fill", "interpolation",
)  # fmt: skip
OUTPUT = {
    "classification": ("scores", "values"),
    "detection": (
        "boxes", "scores", "classes", "count", "format", "unit", "first_class", "values", "least_score", "overlap",
    ),
    "segmentation": ("map", "values", "stretch"),
    "depth": ("map", "factor", "inverted"),
}  # fmt: skip


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

    def number(self, key: str, default: float) -> float:
        """A finite number.

        Raises:
            ValueError: it is none; names the file and the key.
        """
        value = self.get(key, default)
        if not _real(value):
            raise ValueError(f"{self.file}: {self.place}{key} must be a number; got {short(value)}")
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
    """The description beside a graph: FILE.json, FILE.yaml or FILE.yml, with or without the graph's own ending.

    Raises:
        ValueError: there is none, or it is not valid.
    """
    stems = [Path(str(file)), file.with_suffix("")]
    places = [Path(f"{stem}{end}") for stem in stems for end in (".json", ".yaml", ".yml")]
    found = next((p for p in places if p.exists()), None)
    if found is None:
        raise ValueError(
            f"{file} has no description beside it ({places[0].name} or {places[1].name}): task, names, input and"
            " output; docs/guide/onnx.md has examples, and the head of polyteach/teachers/onnx_models.py lists its keys"
        )
    if found.suffix == ".json":
        return Description(read_json(found), found, "", TOP)
    text = read_text(found)
    try:
        content = yaml_value(text)
    except ValueError as e:
        raise ValueError(f"{found} is not valid YAML: {e}") from e
    return Description(content, found, "", TOP)
