"""The target: the one currency of teachers, store, student, metric and drawing; and what is said of targets.

Nothing here needs torch, so that what only counts and lists labels starts quickly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from polyteach.ground.options import Policy as Policy

MAP = 2**24
"""Cells that a map may have whatever its image's size: models answer small images at their own size, up to 4096x4096.
Otherwise a map has no more than its image."""
MOST_VALUES = 2**30
"""Numbers of a map, and cells of all outlines of an image together."""
PEOPLE = "people"
"""Name of the label sets that humans made; they win over every teacher's."""


@dataclass(frozen=True)
class Column:
    """How the store keeps one field of a target.

    kind:
        "vector": one number per entry, (K,); Parquet list<dtype>.
        "rows": `width` numbers per entry, (K, width); Parquet list<fixed_size_list<dtype>[width]>.
        "map": an image-shaped field, (M, N) or (3, M, N); Parquet binary, a lossless WebP or a PNG. float16 is kept by
            its bits.
        "features": a field of vectors at a resolution of its own, (C, M, N); Parquet struct of shape and bytes.
        "masks": one bool map per entry, (K, M, N); Parquet struct of size and COCO run-length counts.
        "none": not kept at all; it follows from the rest when training. Its default must be None.
    dtype: numpy name of the number on disk. scale: value in memory = number on disk * scale. unit: of the value.
    """

    kind: Literal["vector", "rows", "map", "features", "masks", "none"]
    dtype: str
    width: int = 0
    scale: float = 1.0
    unit: str = ""


def column(
    kind: Literal["vector", "rows", "map", "features", "masks", "none"],
    dtype: str,
    *,
    width: int = 0,
    scale: float = 1.0,
    unit: str = "",
    **default: Any,
) -> Any:
    """A dataclass field that says how it is kept; see `Column`. Pass `default=None` for an optional field."""
    return field(metadata={"column": Column(kind, dtype, width, scale, unit)}, **default)


@dataclass(frozen=True)
class Target:
    """One image's answer to one task. Subclasses are final, frozen, and declare every field with `column`.

    Positions are pixels of the original image, EXIF applied. Maps cover the whole image, at any resolution.
    Every target keeps its score or probability, so that thresholds can move after labelling.
    """


@dataclass(frozen=True)
class Space:
    """What the values of a label set mean. Data of the store, never of the code.

    names: the classes, by index. kind: what a task needs to know beyond names, such as "metric" for depth.
    """

    names: tuple[str, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class ByClass(Policy):
    """A policy whose least score differs between classes. least: by the index of the objective's class."""

    least: tuple[float, ...] = ()


@dataclass(frozen=True)
class ByObjective(Policy):
    """Policies of objectives whose classes have least scores of their own, by name."""

    each: Mapping[str, ByClass] = field(default_factory=dict)

    def of(self, objective: str) -> Policy:
        return self.each.get(objective, self)


@dataclass(frozen=True)
class Calibration:
    """What turns a teacher's probabilities into how often it is right: log-odds / temperature + shift.

    Of a class vector, log-probabilities / temperature, normalised again (Guo et al., ICML 2017).
    """

    temperature: float
    shift: float = 0.0


@dataclass(frozen=True)
class Objective:
    """A task with a space: what one head of the student learns."""

    task: str
    space: Space
