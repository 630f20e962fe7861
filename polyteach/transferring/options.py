"""Options of a transfer in groups that check themselves; it imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from polyteach.ground.limits import Limits
from polyteach.ground.options import MOST_SEED, OPTIMIZERS, Views, above, at_least, one_of
from polyteach.training.options import FineTuning, TrainingHardware

TRAINED = ("finetune", "frozen")
"""Modes that train a network; the others are probes that tasks offer."""
OFF = {"layer_decay": 1.0, "thaw": 0, "drop_path": 0.0, "grad_checkpointing": False, "keep_statistics": False}
"""Options that do nothing at these values: earlier versions had none of them, and commands do not spell them out."""


def texts(value: str | Sequence[str]) -> tuple[str, ...]:
    """One text, or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


@dataclass(frozen=True)
class Representation:
    """What is transferred.

    Args:
        name: of the representation, in reports; without it the name of the run's folder, "scratch" without `init`.
        init: the representation: a run's folder, "pretrained" (a hub's), hf-hub:ORG/NAME, local-dir:FOLDER, a
            checkpoint of the backbone; none, to train from scratch.
        backbone: a timm model or transformers:FOLDER; without it the run's own, or resnet50.
        channels: of every pyramid level; without it the run's own, or 256.
    """

    name: str | None = None
    init: str | Path | None = None
    backbone: str | None = None
    channels: int | None = None


@dataclass(frozen=True)
class Downstream:
    """On what it is tried.

    Args:
        protocol: how the field measures on a known dataset: task, splits, metric, size, sweep; options given here
            win. NAME-few is its variant with few labels. An unknown name lists them.
        downstream: name of the downstream set, in reports; without it the protocol's, or the store's.
        task: what is learned, where the store has labels for several.
        labels: the label set to learn and to score by.
        train_split: splits to train on; "train" without it.
        validation_split: splits to choose on. Without it, a share of the training images.
        test_split: splits to score on; "test" without it.
        held_out: share of the training images that is held out for validation; 0.1 without it.
        metric: the score that decides, by name; the task's first without it.

    Raises:
        ValueError: a share that is none, or one beside splits to choose on.
    """

    protocol: str | None = None
    downstream: str | None = None
    task: str | None = None
    labels: str = "people"
    train_split: Sequence[str] = ()
    validation_split: Sequence[str] = ()
    test_split: Sequence[str] = ()
    held_out: float | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.held_out is not None and not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1; got {self.held_out}")
        if self.held_out is not None and self.validation_split:
            raise ValueError(f"held_out must be given without validation_split; got {self.held_out}")


@dataclass(frozen=True)
class Sweep:
    """What is trained, and which settings are tried.

    Args:
        mode: finetune (end to end), frozen (what comes from the representation stays as it is; for image classes
            this trains one linear layer), or, for image classes, knn (nearest neighbours) or linear (logistic
            regression on pooled features).
        parts: what is taken from the representation: backbone, pyramid (which means both).
        lrs: learning rates to sweep; by the optimiser without it.
        steps: numbers of steps to sweep.
        seeds: of heads, batches and, with a budget, of the choice of images; the first one sweeps.

    Raises:
        ValueError: a value is out of its range or there twice, or none where there must be one.
    """

    mode: str = "finetune"
    parts: Sequence[str] = ("backbone", "pyramid")
    lrs: Sequence[float] = ()
    steps: Sequence[int] = ()
    seeds: Sequence[int] = (0, 1, 2)

    def __post_init__(self) -> None:
        given = {"parts": texts(self.parts), "lrs": self.lrs, "steps": self.steps, "seeds": self.seeds}
        for key, values in given.items():
            if not values and key in ("seeds", "parts"):
                raise ValueError(f"{key}: give at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: {list(values)} has a value twice")
        checks = (
            ("parts", set(texts(self.parts)) <= {"backbone", "pyramid"}, "backbone or pyramid"),
            ("lrs", all(x > 0 for x in self.lrs), "above 0"),
            ("steps", all(x > 0 for x in self.steps), "above 0"),
            ("seeds", all(0 <= x <= MOST_SEED for x in self.seeds), f"0 to {MOST_SEED}"),
        )
        for key, fine, allowed in checks:
            if not fine:
                raise ValueError(f"{key} must be {allowed}; got {list(given[key])}")


@dataclass(frozen=True)
class Budget:
    """How many labelled images there are to train on: all, without either.

    Args:
        shots: train on about this many images per class.
        fraction: train on this share of the training images.

    Raises:
        ValueError: a number is out of its range, or both are given.
    """

    shots: int | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        checks = (
            ("shots", self.shots is None or self.shots > 0, "above 0"),
            ("fraction", self.fraction is None or 0 < self.fraction <= 1, "above 0 and at most 1"),
            ("shots", self.shots is None or self.fraction is None, "given without fraction: one budget at a time"),
        )
        for key, fine, allowed in checks:
            if not fine:
                raise ValueError(f"{key} must be {allowed}; got {getattr(self, key)}")


@dataclass(frozen=True)
class Training:
    """How networks are trained.

    Args:
        size: side of the square views in pixels, a multiple of 32 (of a vision transformer, of its patch); 512 without
            it.
        batch_size: images per step; 16 without it.
        optimizer: sgd (momentum 0.9) or adamw.
        weight_decay: not on normalisation and biases; without it 4e-5 for sgd, 0.05 for adamw.
        clip: largest norm of the gradient; 0 for no limit.

    Raises:
        ValueError: a number is out of its range, or an unknown optimiser.
    """

    size: int | None = None
    batch_size: int | None = None
    optimizer: str = "sgd"
    weight_decay: float | None = None
    clip: float = 10.0

    def __post_init__(self) -> None:
        one_of(OPTIMIZERS, optimizer=self.optimizer)
        above(0, batch_size=self.batch_size)
        at_least(0, weight_decay=self.weight_decay, clip=self.clip)


@dataclass(frozen=True)
class Scoring:
    """What is made of the networks that are tested.

    Args:
        resamples: draws of what each test's score may have been with other test images, by the jackknife, for
            intervals; 0 for none.
        examples: test images that are drawn.
        keep: keep the weights of the networks that were tested.

    Raises:
        ValueError: a number is below 0.
    """

    resamples: int = 1000
    examples: int = 4
    keep: bool = False

    def __post_init__(self) -> None:
        for key in ("resamples", "examples"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} must be 0 or more; got {getattr(self, key)}")


@dataclass(frozen=True)
class Given:
    """The options of one transfer as somebody gave them."""

    store: str
    out: str
    representation: Representation = Representation()
    downstream: Downstream = Downstream()
    limits: Limits = Limits()
    sweep: Sweep = Sweep()
    budget: Budget = Budget()
    training: Training = Training()
    views: Views = Views()
    scoring: Scoring = Scoring()
    hardware: TrainingHardware = TrainingHardware()
    progress: bool = True
    tuning: FineTuning = FineTuning()

    def of_training(self) -> list[str]:
        """Which options were given that a probe, which trains nothing, would not look at."""
        looked_at = {"mode", "seeds", "size", "batch_size", "resamples", "examples"}
        out = []
        for group in (self.sweep, self.training, self.tuning, self.views, self.scoring):
            plain = type(group)()
            for f in fields(group):
                given, default = (
                    tuple(v) if isinstance(v, list | tuple) else v
                    for v in (getattr(group, f.name), getattr(plain, f.name))
                )
                if f.name not in looked_at and given != default:
                    out.append(f.name)
        return out
