"""What a task must provide, and the target: the one currency of teachers, store, student, metric and picture.

Shapes: B images of a batch, H W image pixels.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torchmetrics import Metric

from polyteach.geometry import View
from polyteach.scene import Render

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


def check_map(name: str, field: Tensor, size: tuple[int, int], channels: int = 0) -> None:
    """Refuse a field that cannot cover an image of (height, width) `size`: for `Task.check`.

    A map is (M, N), or (channels, M, N), with the image's aspect to within one cell of the map; at any resolution up to
    the image's or `MAP` cells.

    Raises:
        ValueError: another number of dimensions or channels, no cells, too many, or another aspect; says which field
            and shape.
    """
    shape = tuple(field.shape)
    if len(shape) != (3 if channels else 2) or shape[:-2] != ((channels,) if channels else ()) or 0 in shape:
        raise ValueError(f"{name} has shape {shape}; a map is {f'({channels}, M, N)' if channels else '(M, N)'}")
    (m, n), (h, w) = shape[-2:], size
    if abs(m * w - n * h) > max(h, w):
        raise ValueError(f"{name} is {m}x{n} (height x width): the wrong size for an image of {h}x{w}, by its aspect")
    if m * n > max(h * w, MAP) or field.numel() > MOST_VALUES:
        raise ValueError(f"{name} has shape {shape}: too large for an image of {h}x{w}; give it at the image's size")


def within(values: Tensor, low: int | float, high: int | float) -> bool:
    """Whether all values lie in low..high; none is NaN. True where there are none."""
    if not values.numel():
        return True
    least, most = torch.aminmax(values)  # NaN where any value is
    return bool(least >= low) and bool(most <= high)


def weighted_mean(loss: Float[Tensor, "*N"], weight: Float[Tensor, "*N"]) -> Float[Tensor, ""]:
    """Sum of weight * loss over the sum of the weights (each 0..1); 0 with a gradient where they are all 0."""
    return (loss * weight).sum() / weight.sum().clamp(min=1e-6)


T = TypeVar("T", bound=Target)


@dataclass(frozen=True)
class Review(Generic[T]):
    """What people say of one image, looked at strictly, and what there is to tell them about it.

    target: as it may be kept. objects: how many things people marked; 0 where the task counts none. notes: what was
    found or mended, in words that complete "N objects ...", and for how many of the objects.
    """

    target: T
    objects: int = 0
    notes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Probe(Generic[T]):
    """A way to answer from an image's pooled features alone, without training the network.

    settings: what is swept, chosen on validation. fit: called as fit(features (N, C) float32, N targets, setting);
    returns features (M, C) -> M targets.
    """

    settings: tuple[int | float, ...]
    fit: Callable[[Tensor, Sequence[T], int | float], Callable[[Tensor], list[T]]]


class Task(ABC, Generic[T]):
    """Abstract; every subclass is final and lives in the file that bears its name, as `TASK`."""

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]] = ("",)
    """The values of `Space.kind` that the task knows."""
    target: type[T]
    probes: ClassVar[Mapping[str, Probe[Any]]] = {}
    """By mode of `transfer`. Only a task that one vector can answer has any."""
    confidence: ClassVar[str] = ""
    """Name of the target's field that says how much it counts in the loss, 0..1 (`Policy.confidence`).

    One number per row or pixel, or for the whole image. Empty where teachers do not say how sure they are.
    """
    reads: ClassVar[tuple[str, ...]] = ("p2", "p3", "p4", "p5", "p6", "p7")
    """Names of the feature maps that the head reads: "c5", the backbone's last, or levels of the pyramid."""
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    """Names of the metric's scores that are errors."""
    most_classes: ClassVar[int | None] = None
    """How many classes the store can keep apart; None for any number."""
    combines: ClassVar[frozenset[str]] = frozenset()
    """How answers of several teachers to one image can be combined: "best" (`sureness`), "union" (`united`)."""

    def joint_kind(self, kinds: Set[str]) -> str | None:
        """The kind of space of one head that learns from label sets of all these kinds.

        None where they are different things. Of one kind it is that one.
        """
        return next(iter(kinds)) if len(kinds) == 1 else None

    def mapped(self, target: T, index: Int64[Tensor, " K"], classes: int) -> T:
        """The target with class i as class index[i] of `classes`; several may become one. Without classes, as it is."""
        return target

    def sureness(self, target: T, policy: Policy) -> float:
        """How good a teacher thinks its answer, for "best"; compared between teachers of one image."""
        raise NotImplementedError(f"{self.name} does not combine teachers by their scores")

    def united(self, targets: Sequence[T]) -> T:
        """One answer of several teachers' to one image, for "union", before any threshold is applied."""
        raise NotImplementedError(f"{self.name} does not unite teachers")

    def nothing(self, target: T, space: Space) -> str:
        """Why a head can learn no object, class or value from this target, such as "no object"; "" where it can."""
        return ""

    def classes(self, target: T) -> list[int]:
        """Indices of the classes that the image shows, ascending: what a budget of labels per class counts.

        Empty where the task has no classes.
        """
        return []

    @abstractmethod
    def check(self, target: T, size: tuple[int, int], space: Space) -> T:
        """The target made tidy for an image of (height, width) `size`: boxes clipped, empty ones dropped.

        Raises:
            ValueError: NaN or infinity, a class index outside the space, wrong shapes; says which field and value.
        """

    def validate(self, target: T, size: tuple[int, int], space: Space) -> None:
        """Refuse what `check` refuses, and make nothing: what is read for training is asked this, every time.

        A task whose `check` takes long to tidy says here alone what it refuses.

        Raises:
            ValueError: as `check`.
        """
        self.check(target, size, space)

    def review(self, target: T, size: tuple[int, int], space: Space, where: Sequence[str] = ()) -> Review[T]:
        """People's answer looked at as strictly as it can be: what `check` would tidy away is a mistake of somebody's.

        where: how the file calls each object, such as "x.json: annotations[17].bbox of id 42: [5, 4, 3, 2]".

        Raises:
            ValueError: as `check`; or people's answer contradicts itself or the image. Names the object by `where`.
        """
        return Review(self.check(target, size, space))

    @abstractmethod
    def view(self, target: T, view: View) -> T:
        """The target of the image seen through `view`. Pixels beyond the source are ignored or invalid."""

    def zoomed(self, target: T, zoom: float, space: Space) -> T:
        """The answer where all things look `zoom` times as large, as if they were so many times nearer.

        For values that say how far things are; where they are in the picture, `view` says. Undone by 1 / zoom.
        """
        return target

    @abstractmethod
    def pseudo(self, target: T, policy: Policy) -> T:
        """The pseudo label made of a teacher's answer. Not applied to people's labels.

        The field named by `confidence` says how sure the teacher is where the policy asks for it, else 1 (or None).
        """

    @abstractmethod
    def head(self, widths: dict[str, int], space: Space) -> nn.Module:
        """The module: pyramid -> prediction. `widths` are the channels of each pyramid level, "c5" and "p2".."p7"."""

    @abstractmethod
    def loss(self, prediction: Any, targets: Sequence[T]) -> Float[Tensor, ""]:
        """Mean over what is valid, weighted by confidence; 0 with a gradient where nothing is.

        One target per image of the prediction. Targets are in pixels of the batch, maps at its resolution.
        """

    @abstractmethod
    def amounts(self, targets: Sequence[T], space: Space) -> tuple[float, ...]:
        """What the loss of these targets is a mean over, from the targets alone: images, pixels, sums of confidences.

        So that the loss of many batches can be put together as if they were one: their losses, each times its amount,
        over the sum of the amounts. One number, or one for each part of a loss whose parts are means over different
        things; see `weighted_loss`. 0 only where the loss (or that part) is 0 too.
        """

    def weighted_loss(self, prediction: Any, targets: Sequence[T], weights: Sequence[float]) -> Float[Tensor, ""]:
        """`loss`, whose parts after the first count by `weights`: as many as `amounts` has numbers after the first."""
        return self.loss(prediction, targets)

    @abstractmethod
    def decode(self, prediction: Any) -> list[T]:
        """The prediction as targets on the CPU in pixels of the batch, so that a student can teach."""

    @abstractmethod
    def metric(self, space: Space) -> Metric:
        """A metric: `update(predicted: Sequence[T], true: Sequence[T])`; `compute() -> dict[str, float]`.

        The first name of the dictionary is the summary. States add up over batches and processes.
        """

    @abstractmethod
    def statistics(self, target: T, policy: Policy) -> dict[str, float]:
        """Numbers whose mean over images tells whether a teacher's labels are worth training on."""

    @abstractmethod
    def draw(self, image: UInt8[Tensor, "3 H W"], target: T, space: Space) -> UInt8[Tensor, "3 H W"]:
        """The image with its target drawn on it, for people."""

    def describe(self, target: T, space: Space, policy: Policy) -> tuple[str, dict[str, Any]]:
        """The answer in words, on one line, and the same as JSON values: what `predict` prints.

        policy: its score is the least that an answer needs to be told.
        """
        values = self.statistics(target, policy)
        return ", ".join(f"{k} {v:.3g}" for k, v in values.items()), dict(values)

    @abstractmethod
    def truth(self, render: Render, space: Space) -> T:
        """The exact answer for a rendered world, in float64-free tensors: the oracle of tests."""
