"""What a task must provide.

Shapes: B images of a batch, H W image pixels.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from polyteach.ground.geometry import View, whole
from polyteach.ground.scene import Render
from polyteach.tasks.target import (
    MAP,
    MOST_VALUES,
    PEOPLE,
    ByClass,
    Calibration,
    Column,
    Objective,
    Policy,
    Space,
    Target,
    column,
)

__all__ = [
    "MAP", "MOST_VALUES", "PEOPLE", "Agreement", "ByClass", "Calibration", "Column", "Comparison", "Evidence", "Metric",
    "Objective", "Policy", "Probe", "Review", "ScoredByClass", "ScoredBySize", "Space", "Target", "Task", "at_one_size",
    "check_map", "column", "least_score", "tempered", "two_way", "weighted_mean", "within",
]  # fmt: skip


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


def within(values: Tensor, low: float, high: float) -> bool:
    """Whether all values lie in low..high; none is NaN. True where there are none."""
    if not values.numel():
        return True
    least, most = torch.aminmax(values)  # NaN where any value is
    return bool(least >= low) and bool(most <= high)


def weighted_mean(loss: Float[Tensor, "*N"], weight: Float[Tensor, "*N"]) -> Float[Tensor, ""]:
    """Sum of weight * loss over the sum of the weights (each 0..1); 0 with a gradient where they are all 0."""
    return (loss * weight).sum() / weight.sum().clamp(min=1e-6)


def least_score(policy: Policy, category: Int64[Tensor, "*N"]) -> float | Float[Tensor, "*N"]:
    """The least score with which things of these classes are learned; any for what is beyond the classes."""
    if not isinstance(policy, ByClass):
        return policy.score
    return torch.tensor(policy.least)[category.clamp(max=len(policy.least) - 1)]


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

    settings: tuple[float, ...]
    fit: Callable[[Tensor, Sequence[T], float], Callable[[Tensor], list[T]]]


@runtime_checkable
class Metric(Protocol):
    """What a task's metric can do, which is one of torchmetrics': its states add up over batches and processes."""

    def update(self, predicted: Sequence[Any], true: Sequence[Any]) -> None:
        """Count a batch: one predicted and one true target per image."""

    def compute(self) -> dict[str, float]:
        """Scores of all that was counted, by name; the first is the summary."""


@runtime_checkable
class ScoredByClass(Protocol):
    """A metric that can tell its classes apart."""

    def by_class(self) -> dict[int, dict[str, float]]:
        """Scores in percent, by name, of each class that has any."""


@runtime_checkable
class ScoredBySize(Protocol):
    """A metric that can tell small things from large ones."""

    def by_size(self) -> dict[str, dict[str, float]]:
        """Scores in percent, by name, of things of each size."""


@dataclass(frozen=True)
class Evidence:
    """What a teacher found probable, and what people say was right: N answers about K possibilities each.

    log: log-probabilities, or log-odds that need not add up to 1; -inf for what was found impossible. said: the
    possibility whose probability is the answer's confidence. right: the one that is true.
    """

    log: Float[Tensor, "N K"]
    said: Int64[Tensor, " N"]
    right: Int64[Tensor, " N"]


def two_way(probability: Float[Tensor, " N"], right: Bool[Tensor, " N"], least: float) -> Evidence:
    """The evidence of answers of which only the own probability is known: right or not. least: see `tempered`."""
    odds = probability.double().clamp(least, 1 - least).logit()
    log = torch.stack([torch.zeros_like(odds), odds], 1)
    return Evidence(log, torch.ones(len(odds), dtype=torch.long), right.long())


def tempered(probability: Float[Tensor, "*N"], calibration: Calibration, least: float) -> Float[Tensor, "*N"]:
    """Probabilities of a thing against all else, calibrated, in float32.

    least: what 0, and 1 less which 1, is taken for: a store that keeps 1 may have rounded to it.
    """
    odds = probability.double().clamp(least, 1 - least).logit()
    return (odds / calibration.temperature + calibration.shift).sigmoid().float()


@dataclass(frozen=True)
class Agreement:
    """How pseudo labels hold against people's answers to the same images.

    overall: scores by name; NaN where there is nothing that one could be of. counted: what they rest on, as
    {"objects": 12}. classes: index -> scores, of classes that either names; in percent, as overall is then. objects:
    index -> how many of them people named. ranked: the score by which the worst and best classes are told. note: what
    follows for a training, in a sentence.
    """

    overall: Mapping[str, float]
    counted: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    objects: Mapping[int, int] = field(default_factory=dict)
    ranked: str = ""
    note: str = ""


@runtime_checkable
class Comparison(Protocol):
    """What counts how pseudo labels hold against people's, image by image: in memory that does not grow with them."""

    def update(self, predicted: Sequence[Any], true: Sequence[Any]) -> None:
        """Count a batch: one pseudo label and one answer of people per image."""

    def agreement(self) -> Agreement:
        """What was counted."""


class _ByMetric:
    """The scores of a task's metric."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    def update(self, predicted: Sequence[Any], true: Sequence[Any]) -> None:
        self.metric.update(predicted, true)

    def agreement(self) -> Agreement:
        return Agreement(self.metric.compute())


class Task(ABC, Generic[T]):
    """Abstract; every subclass is final and lives in the file that bears its name, as `TASK`."""

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]] = ("",)
    """The values of `Space.kind` that the task knows; of one whose kinds have numbers or names in them, examples."""
    target: type[T]
    probes: ClassVar[Mapping[str, Probe[Any]]] = {}
    """By mode of `transfer`. Only a task that one vector can answer has any."""
    confidence: ClassVar[str] = ""
    """Name of the target's field that says how much it counts in the loss, 0..1 (`Policy.confidence`).

    One number per row or pixel, or for the whole image. Empty where teachers do not say how sure they are.
    """
    reads: ClassVar[tuple[str, ...]] = ("p2", "p3", "p4", "p5", "p6", "p7")
    """Names of the feature maps that the head reads: "c5", the backbone's last, or levels of the pyramid."""
    of_boxes: ClassVar[bool] = False
    """Whether the head asks of regions what they show. Over a plain backbone it then reads levels of its last map alone
    (ViTDet), where others read levels of maps from several depths (DPT)."""
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    """Names of the metric's scores that are errors."""
    most_classes: ClassVar[int | None] = None
    """How many classes the store can keep apart; None for any number."""
    by_score: ClassVar[bool] = False
    """Whether `pseudo` leaves out what is below the policy's score, whatever its class; else `ByClass` alone does."""
    calibrates: ClassVar[tuple[str, ...]] = ()
    """The fields of `Calibration` that are fitted; empty where teachers give no probabilities."""
    compares_some: ClassVar[bool] = False
    """Whether `comparison` leaves out classes beyond its space's: those that only one of two label sets has."""
    combines: ClassVar[frozenset[str]] = frozenset()
    """How answers of several teachers to one image can be combined: "best" (`sureness`), "union" (`united`), "fuse"
    (`fused`)."""

    auxiliary: ClassVar[bool] = False
    """Whether the head serves training alone: the finished student is written without it."""

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

    def fused(self, targets: Sequence[T], space: Space) -> T:
        """One voice of several teachers' answers to one image, for "fuse": what they agree on, and how much they do.

        Agreement is the label's confidence where the target has one; where it has none, what they do not agree on is
        not known.
        """
        raise NotImplementedError(f"{self.name} does not fuse teachers")

    def comparison(self, space: Space) -> Comparison:
        """What counts how pseudo labels hold against people's answers; by the task's metric where nothing is said.

        Where `compares_some`, targets may be of one class more than the space: of it is what only one of both names.
        """
        return _ByMetric(self.metric(space))

    def evidence(self, target: T, true: T, classes: int) -> Evidence:
        """How probable a teacher found what it said of an image, and whether people say the same: for `calibrated`.

        Classes from `classes` on are those that only one of both can say; nothing of them is evidence.
        """
        raise NotImplementedError(f"{self.name} has no probabilities to calibrate")

    def calibrated(self, target: T, calibration: Calibration) -> T:
        """A teacher's answer with the probabilities that it should have had. The order of its answers stays."""
        raise NotImplementedError(f"{self.name} has no probabilities to calibrate")

    def limited(self, target: T, classes: int, true: bool) -> T | None:
        """What is said of the first `classes` classes alone; None where an image then says nothing that is true.

        So two sides of which each has classes alone are held against each other over those that both have. true: it is
        of the side that is taken for right.
        """
        return target

    def confusion(
        self, target: T, true: T, classes: int, policy: Policy
    ) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]] | None:
        """Of each of N things of an image the true class and the one that is said; None for a task without classes.

        `classes` stands for none of them: what is said there is nothing, or what is said is not there.
        policy: its score is the least with which an object is said.
        """
        return None

    def mistakes(self, target: T, true: T, space: Space, policy: Policy) -> tuple[float, str] | None:
        """How far an answer is off (larger is worse, 0 is right), in words too; None: the metric of the image tells."""
        return None

    def constant(self, targets: Iterable[T], space: Space) -> T | None:
        """The best answer that is the same for all images, from people's answers; None where there is no obvious one.

        A map has one cell. An answer that is worse than it was better not asked for.
        """
        return None

    def likened(self, target: T, space: Space, kind: str) -> T | None:
        """People's answer in a space as one of another kind, to be compared with; None where it cannot be."""
        return None

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

        For values that say how far things are; where they are in the image, `view` says. Undone by 1 / zoom.
        """
        return target

    @abstractmethod
    def pseudo(self, target: T, policy: Policy) -> T:
        """The pseudo label made of a teacher's answer. Not applied to people's labels.

        The field named by `confidence` says how sure the teacher is where the policy asks for it, else 1 (or None).
        """

    def scored(self, target: T) -> tuple[Int64[Tensor, " N"], Float[Tensor, " N"]]:
        """The classes of what a teacher said (boxes, pixels, the image), and the scores that `ByClass` asks of them."""
        raise NotImplementedError(f"{self.name} has no scores by class")

    @property
    def has_scores(self) -> bool:
        """Whether `scored` has an answer."""
        return type(self).scored is not Task.scored

    @abstractmethod
    def head(self, widths: dict[str, int], space: Space) -> nn.Module:
        """The module: pyramid -> prediction. `widths` are the channels of each pyramid level, "c5" and "p2".."p7"."""

    def prepare(self, head: nn.Module, targets: Iterable[T]) -> None:
        """Fill the buffers of a head of random weights with what has to be known of the data before training.

        targets: pseudo labels of whole images, in a random order that a seed fixes; read as far as they are asked for.
        """

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
        """A metric of torchmetrics that has seen nothing; in a file of its own, as that library is slow to import."""

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

    @property
    def has_truth(self) -> bool:
        """Whether `truth` has an answer: not for what only a network says, such as features."""
        return type(self).truth is not Task.truth

    def truth(self, render: Render, space: Space) -> T:
        """The exact answer for a rendered world, in float64-free tensors: the oracle of tests.

        A task that has none leaves this out: rendered datasets then have no labels of it, and its contract is tested on
        what its head predicts.

        Raises:
            ValueError: the task has none.
        """
        raise ValueError(f"a rendered world has no answer to the task {self.name!r}")


def at_one_size(task: Task[T], targets: Sequence[T], size_of: Callable[[T], tuple[int, int]]) -> list[T]:
    """Maps of one image at the resolution of the largest, for `Task.united` and `fused`. size_of: a map's, in cells."""
    size = max((size_of(t) for t in targets), key=lambda s: s[0] * s[1])
    return [task.view(t, whole(size_of(t), size)) for t in targets]
