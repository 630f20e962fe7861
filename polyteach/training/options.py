"""Options of `train` and `pretrain`: groups that check themselves. Nothing here imports torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from polyteach.ground.options import Hardware, Optimisation, above, at_least, listed, one_of, within
from polyteach.loading.combine import check_combine
from polyteach.model.backbones import check_size, multiple_of
from polyteach.training.settings import check_decay

RULES = ("rule", "equal", "learned")
METHODS = ("simclr", "vicreg")


def weight_pairs(words: Sequence[str]) -> str | dict[str, float]:
    """`rule`, `equal`, `learned`, or NAME=VALUE pairs apart or with commas.

    Raises:
        ValueError: one of several is no pair.
    """
    parts = [p for w in words for p in w.split(",") if p]
    if len(parts) == 1 and "=" not in parts[0]:
        return parts[0]
    out = {}
    for part in parts:
        name, equals, value = part.rpartition("=")
        try:
            out[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ValueError(f"weights: {part!r} is neither one of {', '.join(RULES)} nor NAME=NUMBER")
    return out


def known_weights(weights: str | Mapping[str, float]) -> str | Mapping[str, float]:
    """The weights with a text of pairs taken apart.

    Raises:
        ValueError: an unknown rule, or a weight that is negative or not finite.
    """
    if isinstance(weights, str) and weights not in RULES:
        weights = weight_pairs([weights])
    if isinstance(weights, str) and weights not in RULES:
        raise ValueError(f"weights {weights!r} is neither one of {', '.join(RULES)} nor NAME=VALUE")
    if not isinstance(weights, str):
        for name, value in weights.items():
            check_weight(name, float(value))
    return weights


def check_weight(name: str, value: float) -> None:
    """Refuse what cannot weigh a loss.

    Raises:
        ValueError: it is negative or not finite.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"weights: {name}={value} must be finite and 0 or more")


LossWeights = Annotated[
    str | Mapping[str, float],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="{rule,equal,learned}|NAME=VALUE ...",
        instance_from_str=weight_pairs,
        is_instance=lambda x: isinstance(x, str | Mapping),
        str_from_instance=lambda x: [x] if isinstance(x, str) else [f"{k}={v}" for k, v in x.items()],
    ),
]


def _texts(group: object, *names: str) -> None:
    """Sequences of texts as tuples, of one text too."""
    for name in names:
        object.__setattr__(group, name, listed(getattr(group, name)))


@dataclass(frozen=True)
class Labels:
    """What is learned from.

    Args:
        tasks: only label sets of these tasks.
        labels: only these label sets, by NAME or TASK/NAME; the first that labels an image wins (after people's).
        split: only images of these splits.
        combine: of several teachers' answers to one image, for one head: first (in the order of `labels`, else by
            name), best (the one that its teacher is surest of), union (boxes less those that overlap a better one of
            their class, the mean of classes' probabilities, of each pixel the more probable class), fuse (one voice,
            whose confidence is how far they agree: weighted boxes fusion, mean probabilities, votes of pixels, median
            depth, mean normals).
        map: file with a table of class names, YAML or JSON: TASK/SET: {their name: our name, ...}, or just the names,
            for label sets that name the same classes otherwise; "as they are" instead of names for sets whose classes
            are numbers that mean the same. (docs/guide/labels.md)

    Raises:
        ValueError: an unknown way to combine.
    """

    tasks: Sequence[str] = ()
    labels: Sequence[str] = ()
    split: Sequence[str] = ()
    combine: str = "first"
    map: str | Path | None = None

    def __post_init__(self) -> None:
        _texts(self, "tasks", "labels", "split")
        check_combine(self.combine)


@dataclass(frozen=True)
class Network:
    """What is trained.

    Args:
        backbone: a timm model with features at strides 4, 8, 16 and 32, or of one resolution (vision transformers); or
            transformers:FOLDER or transformers:OWNER/MODEL (docs/guide/backbones.md).
        init: weights to start from: "pretrained" (a hub's), hf-hub:ORG/NAME, local-dir:FOLDER (as timm writes them), a
            checkpoint as it was published (.safetensors, .pth, .ckpt), or the folder of another run; random without it.
            (docs/guide/training.md)
        channels: of every pyramid level.
        size: side of the square views in pixels, a multiple of 32; of a vision transformer, of its patch.

    Raises:
        ValueError: a number is out of its range.
    """

    backbone: str = "resnet50"
    init: str | Path | None = None
    channels: int = 256
    size: int = 512

    def __post_init__(self) -> None:
        at_least(1, channels=self.channels)
        check_size(self.size, multiple_of(self.backbone))
        if self.init is not None:
            object.__setattr__(self, "init", str(self.init))


@dataclass(frozen=True)
class StudentNetwork(Network):
    """What is trained.

    Args:
        freeze: backbone, or backbone and pyramid: they stay as `init` gave them, and a step costs less. For few images.
        adapters: channels of a bottleneck of its own before every head, against interference between tasks (SAK, ICLR
            2025); 0 for none. The heads keep them; `transfer` and `--init` of another network take what they share.

    Raises:
        ValueError: as `Network`; or parts that cannot be frozen, or that nothing has taught.
    """

    freeze: Sequence[str] = ()
    adapters: int = 0

    def __post_init__(self) -> None:
        _texts(self, "freeze")
        at_least(0, adapters=self.adapters)
        super().__post_init__()
        if not self.freeze:
            return
        if sorted(set(self.freeze)) not in (["backbone"], ["backbone", "pyramid"]):
            raise ValueError(f"freeze takes backbone, or backbone and pyramid; got {' '.join(self.freeze)}")
        if self.init is None:
            raise ValueError("freeze keeps what was learned before, and without --init nothing was; give --init")
        if "pyramid" in self.freeze and not Path(self.init).is_dir():
            raise ValueError(
                f"freeze pyramid: init {self.init} has weights of a backbone alone; give the folder of a run"
            )


@dataclass(frozen=True)
class StudentOptimisation(Optimisation):
    """How the weights are learned.

    Args:
        epochs: passes over the union of the images; 10 when neither is given.
        accumulate: forward passes per step, over all processes of torchrun, which share them; without it one for each
            process. The batch of the optimiser is batch_size x accumulate. A process holds its batches of a step in
            the host's memory, since what each label counts depends on the others.
        lr: peak learning rate, above 0; without it 0.32 x batch / 256 for sgd, 0.0003 for adamw.
        nesterov: Nesterov momentum, for sgd.
        weight_decay: not on normalisation and biases; without it 4e-5 for sgd, 0.05 for adamw.
        ema: decay per step of the averaged weights, below 1; 0 for none.

    Raises:
        ValueError: as `Optimisation`; or Nesterov momentum of another optimizer.
    """

    accumulate: int | None = None
    nesterov: bool = False
    ema: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, accumulate=self.accumulate)
        if self.nesterov and self.optimizer != "sgd":
            raise ValueError(f"nesterov is for optimizer sgd; got {self.optimizer}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be 0 or more and below 1; got {self.ema}")


@dataclass(frozen=True)
class FineTuning:
    """How a backbone that has learned much already is trained further (docs/guide/training.md).

    Args:
        layer_decay: of the learning rate from unit to unit of the backbone, from the top down, above 0 (layer-wise
            decay; ELECTRA, BEiT: 0.65 to 0.9 for a ViT); 1 for none.
        thaw: the backbone is thawed from the top down, unit by unit; its stem learns after this many steps, and at
            first heads and pyramid alone do (gradual unfreezing, ULMFiT). 0 for none.
        drop_path: stochastic depth of the backbone in training: probability with which its last residual branch is left
            out for an image, falling to 0 at the first; below 1, 0 for none.
        keep_statistics: batch normalisation of the backbone normalises by the means and variances that `init` brought,
            which stay as they are (as detectors are fine-tuned); for batches or images that are small beside those of
            the checkpoint's training.

    Raises:
        ValueError: a number is out of its range.
    """

    layer_decay: float = 1.0
    thaw: int = 0
    drop_path: float = 0.0
    keep_statistics: bool = False

    def __post_init__(self) -> None:
        check_decay(self.layer_decay)
        at_least(0, thaw=self.thaw)
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be 0 or more and below 1; got {self.drop_path}")

    def given(self) -> list[str]:
        """Names of the options that are not at their defaults."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]


def check_tuning(tuning: FineTuning, recompute: bool, frozen: str, init: str | None) -> None:
    """Refuse what could not change anything, or says two things of the backbone.

    recompute: `grad_checkpointing`. frozen: the option by which the backbone stays as it is, "" where it does not.
    init: the weights that it starts from.

    Raises:
        ValueError: names the options.
    """
    given = [*tuning.given(), *(["grad_checkpointing"] if recompute else [])]
    if frozen and given:
        raise ValueError(f"{given[0]} and {frozen}: no backbone is trained; give one of them")
    if tuning.thaw and init is None:
        raise ValueError("thaw keeps what was learned before for a while, and without --init nothing was; give --init")
    if tuning.keep_statistics and init is None:
        raise ValueError("keep_statistics keeps what was learned before, and without --init nothing was; give --init")


@dataclass(frozen=True)
class Losses:
    """How the losses are put together.

    Args:
        weights: of the losses. rule: (b * lr_teacher) / (b_teacher * lr) from what the teacher recorded, 1 where it
            recorded nothing or was trained with another optimizer; with adamw divided by their mean, as only ratios
            matter. equal: 1. learned: by uncertainty (Kendall et al. 2018). Or NAME=VALUE pairs by objective; those
            not named follow the rule.
        drop: teacher dropping (UNIC, ECCV 2024): in every forward pass the objective that has learned the least is
            kept, every other one is left out with this probability (0.5 in UNIC).

    Raises:
        ValueError: an unknown rule, or a number out of its range.
    """

    weights: LossWeights = "rule"
    drop: float = 0.0

    def __post_init__(self) -> None:
        known_weights(self.weights)
        within(0, 1, drop=self.drop)


@dataclass(frozen=True)
class TrainingHardware(Hardware):
    """Where it is computed, and how precisely.

    Args:
        grad_checkpointing: compute activations of the backbone again in the backward pass instead of keeping them: less
            memory, more time. Changes nothing of the result.

    Raises:
        ValueError: as `Hardware`.
    """

    grad_checkpointing: bool = False


@dataclass(frozen=True)
class StudentHardware(TrainingHardware):
    """Where it is computed, and how precisely.

    Args:
        compile: torch.compile of backbone and pyramid.
        sync_batch_norm: under torchrun, normalise the passes that the processes compute at the same time as one batch:
            for batches that are small on each. What is learned then depends on the number of processes.
        shard: under torchrun, every process keeps its part alone of weights, gradients and optimiser state (FSDP2), for
            models that are large for one GPU. Changes nothing of the result but the order of sums.

    Raises:
        ValueError: as `Hardware`; or options that forbid each other.
    """

    compile: bool = False
    sync_batch_norm: bool = False
    shard: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.sync_batch_norm or self.shard) and self.compile:
            name = "sync_batch_norm" if self.sync_batch_norm else "shard"
            raise ValueError(f"{name} and compile: layers that wait for other processes are not compiled; give one")
        if self.grad_checkpointing and self.compile:
            raise ValueError("grad_checkpointing and compile: torch.compile decides itself what it keeps; give one")


@dataclass(frozen=True)
class Contrast:
    """How two views of an image are compared.

    Args:
        method: simclr or vicreg.
        crop: least and largest share of the image's area that a view shows.
        temperature: of simclr's similarities.

    Raises:
        ValueError: an unknown method, or a number out of its range.
    """

    method: str = "simclr"
    crop: tuple[float, float] = (0.08, 1.0)
    temperature: float = 0.1

    def __post_init__(self) -> None:
        one_of(METHODS, method=self.method)
        if not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop must be LOW HIGH with 0 < LOW <= HIGH <= 1; got {self.crop[0]} {self.crop[1]}")
        above(0, temperature=self.temperature)


@dataclass(frozen=True)
class BackboneNetwork(Network):
    """What is trained.

    Args:
        init: weights to start from: "pretrained" (a hub's), hf-hub:ORG/NAME, local-dir:FOLDER, a checkpoint of the
            backbone, or a run's folder.
        channels: of the (untrained) pyramid, so that `train --init` and `transfer` find a student of the same kind.
    """

    size: int = 224


@dataclass(frozen=True)
class BackboneOptimisation(Optimisation):
    """How the weights are learned.

    Args:
        epochs: passes over the images; 100 when neither is given.
        batch_size: images per step; each is seen twice.
        optimizer: sgd (momentum 0.9) or adamw. The papers use LARS, which matters from batches of about 1,000 on.
        lr: peak learning rate; without it 0.3 x batch / 256 for simclr, 0.2 x batch / 256 for vicreg, 0.001 for adamw.

    Raises:
        ValueError: as `Optimisation`; or a batch of one image, which has none to be compared with.
    """

    batch_size: int = 256
    weight_decay: float | None = 1e-6

    def __post_init__(self) -> None:
        at_least(2, batch_size=self.batch_size)
        super().__post_init__()
