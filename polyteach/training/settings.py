"""Settings: how to optimise, checked; and the schedule of the learning rate."""

import math
from dataclasses import dataclass

from polyteach.ground.options import OPTIMIZERS, PRECISIONS, above, at_least, one_of
from polyteach.training import processes


@dataclass(frozen=True)
class Settings:
    """How to optimise. One step is one update of the weights, from `accumulate` batches over all processes.

    optimizer: "sgd" (momentum 0.9, Nesterov where `nesterov`) or "adamw" (betas 0.9 and 0.999). lr: the peak, reached
    after `warmup` steps of linear growth, then a cosine to 0. weight_decay: not on normalisation and biases. clip:
    largest norm of the whole gradient, 0 for no limit. ema: decay per step of the averaged weights, 0 for none; early
    on it is (1 + step) / (10 + step) where that is less. precision: fp32, or fp16 (with a gradient scaler) and bf16 by
    autocast. save_every, save_minutes: a checkpoint after that many steps, and after that many minutes. keep: how many
    checkpoints stay. shard: every process keeps a part of the weights, gradients and optimiser state, see
    `distributed.Joint.shard`; changes nothing but the order of sums. layer_decay, thaw: see `layers`; 1 and 0 for none.
    recompute: the backward pass computes activations again, see `recomputation`.
    """

    steps: int
    accumulate: int = 1
    optimizer: str = "sgd"
    lr: float = 0.02
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 4e-5
    warmup: int = 0
    clip: float = 0.0
    ema: float = 0.0
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    channels_last: bool = False
    save_every: int = 1000
    save_minutes: float = 10.0
    keep: int = 2
    shard: bool = False
    layer_decay: float = 1.0
    thaw: int = 0
    recompute: bool = False
    progress: bool = True


def rate(step: int, settings: Settings) -> float:
    """Learning rate of step number `step`, counted from 0."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.lr * (1 + math.cos(math.pi * done)) / 2


def check(settings: Settings) -> None:
    """Refuse what cannot be done, before anything is.

    Raises:
        ValueError: a setting that does not exist or is out of range; says which are allowed.
    """
    one_of(OPTIMIZERS, optimizer=settings.optimizer)
    one_of(PRECISIONS, precision=settings.precision)
    least = ("steps", "accumulate", "save_every", "keep")
    at_least(1, **{name: getattr(settings, name) for name in least})
    at_least(0, **{name: getattr(settings, name) for name in ("warmup", "clip", "weight_decay", "momentum")})
    above(0, lr=settings.lr, save_minutes=settings.save_minutes)
    check_layers(settings.layer_decay, settings.thaw, settings.steps)
    for name in ("ema", "momentum"):
        if not 0 <= getattr(settings, name) < 1:
            raise ValueError(f"{name} must be 0 or more and below 1; got {getattr(settings, name)}")
    check_processes(settings.shard, settings.precision, settings.channels_last, settings.accumulate)


def check_processes(shard: bool, precision: str, channels_last: bool, accumulate: int) -> None:
    """Refuse what the processes that there are cannot do together; see `Settings`.

    Raises:
        ValueError: parts of weights that no other process could hold the rest of, or that something else does not
            know; or passes that the processes cannot share.
    """
    if shard and processes.size() == 1:
        raise ValueError(
            "shard: there is one process, with nothing to share; start several with torchrun, or leave it out (a "
            "sharded run goes on without it too)"
        )
    if shard and precision == "fp16":
        raise ValueError("shard and precision fp16: the gradient scaler does not know parts of gradients; take bf16")
    if shard and channels_last:
        raise ValueError("shard and channels_last: FSDP takes parameters in torch's usual layout alone; give one")
    if accumulate % processes.size():
        raise ValueError(
            f"accumulate: {accumulate} forward passes per step cannot be shared by {processes.size()} "
            "processes; start a number that divides it"
        )


def check_decay(decay: float) -> None:
    """Refuse what cannot be a layer-wise decay.

    Raises:
        ValueError: it is not above 0 and at most 1.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"layer_decay must be above 0 and at most 1; got {decay}")


def check_layers(decay: float, thaw: int, steps: int) -> None:
    """Refuse what cannot be meant; see `Settings`.

    Raises:
        ValueError: a number is out of its range, or the stem would never learn.
    """
    check_decay(decay)
    at_least(0, thaw=thaw)
    if thaw >= steps:
        raise ValueError(f"thaw {thaw}: in {steps} steps the stem would never learn; give fewer than the steps")
