"""The target: the one currency of teachers, store, student, metric and drawing; and what is said of targets.

Nothing here needs torch, so that what only counts and lists labels starts quickly.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

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
        "map": a picture-shaped field, (M, N) or (3, M, N); Parquet binary, a lossless WebP or a PNG. float16 is kept by
            its bits.
        "masks": one bool map per entry, (K, M, N); Parquet struct of size and COCO run-length counts.
        "none": not kept at all; it follows from the rest when training. Its default must be None.
    dtype: numpy name of the number on disk. scale: value in memory = number on disk * scale. unit: of the value.
    """

    kind: Literal["vector", "rows", "map", "masks", "none"]
    dtype: str
    width: int = 0
    scale: float = 1.0
    unit: str = ""


def column(
    kind: Literal["vector", "rows", "map", "masks", "none"],
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
class Objective:
    """A task with a space: what one head of the student learns."""

    task: str
    space: Space


@dataclass(frozen=True)
class Policy:
    """How a teacher's answer becomes a pseudo label; applied when training, so that it can change later.

    soft: keep the whole probability vector (else its argmax). score: the least score of a box and the least
    probability of a pixel's class (MuST: 0.5).

    confidence: let every pseudo label count in its loss by how probable the teacher found it, 0..1: a box by its score,
    a pixel by the probability of its class, a picture by that of its most probable class. Otherwise, and for people's
    labels always, by 1; a teacher that says only a value (of depth, of normals) counts by 1 too. SoftMatch (Chen et
    al., ICLR 2023) calls this the sample weight, of which a threshold is the special case 0 or 1.

    Of a class vector it is the largest probability and not 1 - entropy / log(classes) (Iscen et al., CVPR 2019): it is
    the same quantity as a box's score and a pixel's probability, it does not depend on how many classes the vocabulary
    has, and it is what the labelling reports.

    The weighted losses are means: divided by the sum of the weights, not by the number of labels. So a weight of 0 is
    the same as a label that is ignored, which is what a threshold does; and an unsure teacher's loss keeps its size:
    confidence decides between the labels of one objective, and leaves the balance of the objectives to their weights.
    """

    soft: bool = True
    score: float = 0.5
    confidence: bool = False
