"""The one optimisation loop: schedule, precision, averaging, log, checkpoints, exact resume. It knows no task.

A training is a pure function of its settings and its stream of batches: killed at any moment and started again it
goes on from the last checkpoint and ends, on the CPU with as many threads, in the same weights byte for byte.

A step may have several forward passes. The loss of an objective is its mean over all that the step has labels for,
however they are spread over the passes: a pass counts in it by what it has of them (`shares`), so that 16 passes of one
image do what one of 16 does, but for batch normalisation, and an objective that one image of a step is labelled for
weighs as much as the others.

Under torchrun (`processes`) the forward passes of a step are dealt to the processes in turn, and their gradients added
up. What is random in a pass follows from its number, so that N processes do what one does with as many passes, but for
the order of sums, and the running statistics of batch normalisation, which are then means over processes; unless it is
synchronised: then N passes at a time are normalised as one.

Shapes: B images of a batch, h w their pixels.
"""

import copy
import errno
import fcntl
import json
import math
import os
import random
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from polyteach import checkpoints, processes
from polyteach.checkpoints import latest
from polyteach.devices import PRECISIONS, find_device, warn_if_slow
from polyteach.fields import Fields
from polyteach.files import replacing
from polyteach.names import unknown_name
from polyteach.progress import track
from polyteach.storage import below
from polyteach.tasks.contract import Target

OPTIMIZERS = ("sgd", "adamw")
FIRST = 10
"""Forward passes over which the size of a loss is measured, for `Mixture`'s dropping."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What stops a training after the step, with a checkpoint."""
CHECKPOINTS = "checkpoints"
"""Folder of a run."""
LOCK, LOG = "lock", "log.jsonl"
"""File of a run that is locked while a process trains there, and says which one."""


class NonFinite(ValueError):
    """A loss or its gradient is infinite or not a number; the message names its parts and the images."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; a checkpoint was written first."""


@runtime_checkable
class Seen(Protocol):
    """What the loop reads of a batch; see `batches.Batch`."""

    @property
    def images(self) -> Tensor: ...
    @property
    def targets(self) -> dict[str, list[Any]]: ...
    @property
    def ids(self) -> list[str]: ...


@dataclass(frozen=True)
class Settings:
    """How to optimise. One step is one update of the weights, from `accumulate` batches over all processes.

    optimizer: "sgd" (momentum 0.9, Nesterov where `nesterov`) or "adamw" (betas 0.9 and 0.999). lr: the peak, reached
    after `warmup` steps of linear growth, then a cosine to 0. weight_decay: not on normalisation and biases. clip:
    largest norm of the whole gradient, 0 for no limit. ema: decay per step of the averaged weights, 0 for none; early
    on it is (1 + step) / (10 + step) where that is less. precision: fp32, or fp16 (with a gradient scaler) and bf16 by
    autocast. save_every, save_minutes: a checkpoint after that many steps, and after that many minutes. keep: how many
    checkpoints stay. shard: every process keeps a part of the weights, gradients and optimiser state, see
    `processes.Joint.shard`; changes nothing but the order of sums.
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
    progress: bool = True


class Mixture(nn.Module):
    """The losses of a batch in one: L = sum_i w_i L_i over the objectives that the batch has targets for.

    learned: homoscedastic uncertainty of Kendall, Gal and Cipolla (CVPR 2018), L = sum_i exp(-s_i) w_i L_i + s_i / 2
    with one learned s_i per objective, from 0. Least at exp(s_i) = 2 w_i L_i, so every term is drawn to weigh alike.

    drop: teacher dropping of UNIC (Sariyildiz et al., ECCV 2024; its modeling/teacher_dropping.py): the objective with
    the largest loss is always kept, every other one is left out with this probability, and the terms of those kept are
    multiplied by (number there) / (number kept), so that what a pass weighs does not change. What is left out adds
    nothing to the gradient of its pass. 0: off. Where it differs from UNIC, and why:

    - UNIC draws for every image. A loss here is one number per forward pass (detectors sample their regions from the
      whole of it), so that is what is drawn for; a step of several passes has several draws.
    - UNIC compares losses as they are: they are of one kind, on standardised features. Cross-entropies and metres are
      not, so every loss is divided by its own mean over the first `FIRST` passes that had it (GradNorm, Chen et al.,
      ICML 2018, compares L(t) / L(0), and calls it the inverse training rate): the largest is the objective that has
      learned the least of what there was to learn. A running mean would not do: every ratio to it stays near 1, and
      which one is largest says only for which objective the batch was hard. A loss that cannot fall to 0, such as the
      cross-entropy with soft labels, is therefore kept more often than others; where a run starts from a trained
      student, so is what that one knew already. An objective is not left out before its mean is known. Weights play no
      part in the comparison, and objectives with a weight of 0 have none either.

    seed: of the draws. They follow from (seed, number of the forward pass, name) alone.
    """

    def __init__(
        self, weights: Mapping[str, float], learned: bool = False, drop: int | float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        self.weights = dict(weights)
        names = self.weights if learned else {}
        self.log_variance = nn.ParameterDict({k: nn.Parameter(torch.zeros(())) for k in names})
        self.drop, self.seed = drop, seed
        self.numbers = {k: i for i, k in enumerate(self.weights)}
        if drop:  # buffers, so that a checkpoint has them; by number, as names may hold dots
            self.register_buffer("first_sum", torch.zeros(len(self.weights)))
            self.register_buffer("first_count", torch.zeros(len(self.weights), dtype=torch.long))

    def forward(
        self,
        losses: dict[str, Tensor],
        factors: Mapping[str, float] | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> Float[Tensor, ""]:
        """losses: objective -> scalar; at least one. factors: see `kept`; all 1 without it.

        shares: of a pass in the losses of a step, 0..1; all 1 without it. Learned weights too learn once from a step.
        """
        terms = []
        for name, loss in losses.items():
            if factors is not None and name not in factors:
                continue
            term = self.weights[name] * loss
            if name in self.log_variance:
                s = self.log_variance[name]
                term = torch.exp(-s) * term + s / 2
            term = term if factors is None else factors[name] * term
            terms.append(term if shares is None else shares[name] * term)
        return torch.stack(terms).sum()

    def kept(self, losses: Mapping[str, float], at: int) -> dict[str, float] | None:
        """Objectives that are not left out, and what their terms are multiplied with; None where nothing is ever.

        Takes note of the losses, so it is called once for every forward pass that has any.

        losses: of the pass, finite. at: number of the pass in the training, from 0.
        """
        if not self.drop:
            return None
        first_sum, first_count = self.get_buffer("first_sum"), self.get_buffer("first_count")
        counted = {k: v for k, v in losses.items() if self.weights[k]}
        left: dict[str, float] = {}  # share of its first size that a loss still has
        for name, loss in counted.items():
            i = self.numbers[name]
            if first_count[i] == FIRST:
                left[name] = loss / float(first_sum[i] / FIRST)
            elif loss > 0:  # 0 where nothing in the batch was valid
                first_sum[i] += loss
                first_count[i] += 1
        largest = max(left, key=lambda k: left[k], default=None)
        draw = {k: random.Random(f"drop-{self.seed}-{at}-{k}").random() for k in left if k != largest}
        out = {k for k, value in draw.items() if value < self.drop}
        scale = len(counted) / max(len(counted) - len(out), 1)
        return {k: scale if k in counted else 1.0 for k in losses if k not in out}

    def effective(self) -> dict[str, float]:
        """What each loss is multiplied with now."""
        s = {k: float(v.detach()) for k, v in self.log_variance.items()}
        return {k: w * math.exp(-s.get(k, 0.0)) for k, w in self.weights.items()}


Amounts = Mapping[str, tuple[float, ...]]
"""Objective -> what its loss, or each part of its loss, is a mean over; see `Task.amounts`."""


def labelled(targets: Mapping[str, Sequence[Any]]) -> dict[str, tuple[float, ...]]:
    """Images that have a target, by objective: the amounts of losses that are means over images."""
    counts = {k: sum(t is not None for t in answers) for k, answers in targets.items()}
    return {k: (float(n),) for k, n in counts.items() if n}


def shares(passes: Sequence[Amounts]) -> list[dict[str, tuple[float, ...]]]:
    """Of every part of every loss, which share of the step's mean is each pass's: they add up to 1 over the passes.

    Where an objective has labels that say nothing (no pixel is valid), its passes count alike: their loss is 0.
    """
    totals: dict[str, list[float]] = {}
    there: dict[str, int] = {}
    for name, parts in (item for amounts in passes for item in amounts.items()):
        totals[name] = [a + b for a, b in zip(totals.get(name, [0.0] * len(parts)), parts, strict=True)]
        there[name] = there.get(name, 0) + 1

    def share(name: str, parts: tuple[float, ...]) -> tuple[float, ...]:
        pairs = zip(parts, totals[name], strict=True)
        return tuple(mine / total if total > 0 else 1 / there[name] for mine, total in pairs)

    return [{name: share(name, parts) for name, parts in amounts.items()} for amounts in passes]


def rate(step: int, settings: Settings) -> float:
    """Learning rate of step number `step`, counted from 0."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.lr * (1 + math.cos(math.pi * done)) / 2


class Average:
    """Exponential moving average of a module's weights and buffers; counters are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """After step number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


def fit(
    model: nn.Module,
    mixture: Mixture,
    batches: Callable[[int], Iterable[Seen]],
    settings: Settings,
    folder: Path,
    trunk: str = "",
    blocks: Sequence[str] = (),
    amounts: Callable[[Mapping[str, Sequence[Any]]], Amounts] = labelled,
) -> None:
    """Optimise `model` in place, going on from the last checkpoint in `folder` where there is one.

    At the end `model` holds the averaged weights where `settings.ema` is on, else the last. Writes
    `folder/log.jsonl`, one line per step, and `folder/checkpoints/`. The global random state of torch is put back.

    model: called as model(images, targets) -> losses by objective. batches: number of the first batch wanted -> the
    batches from there on, at least as many as the steps need; of several processes, each gets every `size`-th, from
    its `rank` on. trunk: name of the submodule with synchronised layers, "" for none; see `processes.Joint`.
    blocks: where `settings.shard` is on, what of the trunk is gathered apart; see `processes.Joint.shard`. A copy is
    trained then, and `model` stays on its device. amounts: targets of a batch -> what the losses are means over. Where
    a loss has several parts, the model is called with the weights of those after the first too, by objective.

    Memory: a process holds the batches of all of its passes of a step, on the host; on the device one at a time.

    Raises:
        NonFinite: a loss or gradient is; the last checkpoint stays.
        Interrupted: on SIGINT or SIGTERM, after a checkpoint.
        ValueError: settings that do not exist or cannot be met here; or what is to be written is a symbolic link.
        BlockingIOError: another process trains in `folder`.
    """
    check(settings)
    for name in (LOCK, LOG, CHECKPOINTS):
        below(folder, name)
    device = torch.device(settings.device)
    cuda = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda),
        _deterministic(device),
        processes.together(device),
        _alone(folder) if processes.rank() == 0 else nullcontext(),
        _signals() as caught,
    ):
        trained = copy.deepcopy(model) if settings.shard else model  # sharding cannot be undone
        trained.to(device)
        if settings.channels_last:
            trained.to(memory_format=torch.channels_last)
        with processes.Joint(trained, trunk) if trunk else nullcontext() as joint:
            if settings.shard and joint is not None:
                joint.shard(blocks, device)
            run = _Run(trained, mixture, settings, folder, device, joint, amounts)
            run.go(batches, caught)
        if settings.shard:
            state = model.state_dict()
            for name, value in trained.state_dict().items():
                state[name].copy_(processes.whole(value))


def check(settings: Settings) -> None:
    """Raises:
    ValueError: a setting that does not exist or is out of range; says which are allowed.
    """
    allowed = {"optimizer": OPTIMIZERS, "precision": tuple(PRECISIONS)}
    for name, values in allowed.items():
        if getattr(settings, name) not in values:
            raise unknown_name(name, getattr(settings, name), values)
    least = {"steps": 1, "accumulate": 1, "save_every": 1, "keep": 1}
    least |= dict.fromkeys(("warmup", "clip", "weight_decay", "momentum"), 0)
    for name, low in least.items():
        if getattr(settings, name) < low:
            raise ValueError(f"{name} must be at least {low}; got {getattr(settings, name)}")
    for name in ("lr", "save_minutes"):
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} must be above 0; got {getattr(settings, name)}")
    for name in ("ema", "momentum"):
        if not 0 <= getattr(settings, name) < 1:
            raise ValueError(f"{name} must be 0 or more and below 1; got {getattr(settings, name)}")
    find_device(settings.device)
    if settings.shard and processes.size() == 1:
        raise ValueError(
            "shard: there is one process, with nothing to share; start several with torchrun, or leave it out (a "
            "sharded run goes on without it too)"
        )
    if settings.shard and settings.precision == "fp16":
        raise ValueError("shard and precision fp16: the gradient scaler does not know parts of gradients; take bf16")
    if settings.shard and settings.channels_last:
        raise ValueError("shard and channels_last: FSDP takes parameters in torch's usual layout alone; give one")
    if settings.accumulate % processes.size():
        raise ValueError(
            f"accumulate: {settings.accumulate} forward passes per step cannot be shared by {processes.size()} "
            "processes; start a number that divides it"
        )


class Copies:
    """Batches on their way to a device: each is held until its copy is done.

    A copy from page-locked memory goes on while Python does other things, and torch keeps memory that is let go from
    being used again before its copies are done; but it knows them by where they begin, and a worker's targets lie
    within one buffer.
    """

    def __init__(self) -> None:
        self._held: deque[tuple[Any, Any]] = deque()

    def hold(self, batch: Any, event: Any) -> None:
        """Keep `batch` until `event.query()` is true, as of a `torch.cuda.Event`; let go of those that are done."""
        self._held.append((event, batch))
        while self._held and self._held[0][0].query():
            self._held.popleft()


class _Run:
    """The state of a training, and what moves it on."""

    def __init__(
        self,
        model: nn.Module,
        mixture: Mixture,
        settings: Settings,
        folder: Path,
        device: torch.device,
        joint: processes.Joint | None,
        amounts: Callable[[Mapping[str, Sequence[Any]]], Amounts],
    ) -> None:
        self.settings = settings
        self.amounts = amounts
        self.folder = folder
        self.device = device
        self.model = model
        self.joint = joint
        self.reached: set[int] | None = None if joint is None else set()
        self.mixture = mixture.to(device)
        self.parameters = [p for m in (self.model, mixture) for p in m.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.parameters, settings)
        self.average = Average(self.model, settings.ema) if settings.ema else None
        self.scaler = torch.amp.GradScaler(device.type) if settings.precision == "fp16" else None
        self.step = 0
        self.seconds = 0.0
        self.caught: list[int] = []
        self.copies = Copies()
        self.saved = time.monotonic()
        self.log_file = folder / LOG
        self.writer = checkpoints.Writer()
        self.group = processes.another_group() if settings.shard else None

    def go(self, batches: Callable[[int], Iterable[Seen]], caught: list[int]) -> None:
        s, self.caught = self.settings, caught
        last = latest(self.folder / CHECKPOINTS)
        if last is not None:
            self.load(last)
        processes.wait()  # before the first one writes checkpoints of its own
        writes = processes.rank() == 0
        if writes:
            _truncate(self.log_file, self.step)
            warn_if_slow(self.device.type, s.precision)
        self.model.train()
        self.saved = time.monotonic()
        if self.step < s.steps:
            stream = iter(batches(self.step * s.accumulate))
            left = s.steps - self.step
            log_file, show = (self.log_file, s.progress) if writes else (Path(os.devnull), False)
            with (
                self.writer,
                open(log_file, "a", encoding="utf-8") as log,
                track("train", left, "steps", show) as bar,
            ):
                while self.step < s.steps:
                    line, stop, late = self.update(stream)
                    due = stop or late or self.step % s.save_every == 0 or self.step == s.steps
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    bar.advance(note=_note(line, s))
                    self.writer.look()
                    if writes and due:
                        os.fsync(log.fileno())
                    if due and (writes or s.shard):
                        self.save()
                        self.saved = time.monotonic()
                    if stop and self.step < s.steps:
                        self.writer.wait()
                        processes.wait()  # else torchrun ends them all when the first one leaves, maybe while it writes
                        name = signal.Signals(stop).name
                        raise Interrupted(f"{name}: checkpoint of step {self.step} of {s.steps} is in {self.folder}")
        if self.average is not None:
            self.model.load_state_dict(self.average.state)

    def update(self, stream: Iterator[Seen]) -> tuple[dict[str, Any], int | None, bool]:
        """One step; returns its line of the log, a signal to stop, and whether it is time for a checkpoint."""
        s, start = self.settings, time.monotonic()
        lr = rate(self.step, s)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        losses: dict[str, float] = {}
        ids: list[str] = []
        passes: dict[str, int] = {}
        kept: dict[str, int] = {}
        for first, batch, counted in self.passes(stream):
            for (parts, factors, seen), share in zip(self.backward(batch, first, counted), counted, strict=True):
                ids += seen
                for name, value in parts.items():
                    losses[name] = losses.get(name, 0.0) + _first(share, name, s) * value
                    passes[name] = passes.get(name, 0) + 1
                    kept[name] = kept.get(name, 0) + (factors is None or name in factors)
        norm, stop, late = self.apply(losses, ids)
        if self.average is not None:
            self.average.update(self.model, self.step)
        self.step += 1
        spent = time.monotonic() - start
        self.seconds += spent
        weights = self.mixture.effective()
        line: dict[str, Any] = {
            "step": self.step,
            "loss": sum(weights[k] * v for k, v in losses.items()),
            "losses": losses,
            "weights": weights,
            "lr": lr,
            "gradient_norm": norm,
            "images": len(ids),
            "images_per_second": round(len(ids) / spent, 3),
            "seconds": round(self.seconds, 3),
        }
        # the loss is of all objectives all the same, so that curves compare
        if self.mixture.drop:
            line["kept"] = {k: n / passes[k] for k, n in kept.items()}
        return line, stop, late

    def passes(self, stream: Iterator[Seen]) -> Iterator[tuple[int, Seen, list[dict[str, tuple[float, ...]]]]]:
        """This process's passes of a step: the number of those that are computed at once, its batch, all their shares.

        All batches are taken first: what each of them counts depends on the labels of the others.
        """
        s, size = self.settings, processes.size()
        taken = [next(stream) for _ in range(s.accumulate // size)]
        counted: list[dict[str, tuple[float, ...]]] = [{} for _ in range(s.accumulate)]
        if s.accumulate > 1:
            said = processes.gathered([dict(self.amounts(batch.targets)) for batch in taken])
            counted = shares([mine[i] for i in range(len(taken)) for mine in said])
        for i in range(len(taken)):
            yield self.step * s.accumulate + i * size, taken.pop(0), counted[i * size : (i + 1) * size]

    def backward(
        self, batch: Seen, first: int, counted: Sequence[Mapping[str, tuple[float, ...]]]
    ) -> list[tuple[dict[str, float], dict[str, float] | None, list[str]]]:
        """Add the gradient of this process's forward pass; they are number `first` and those after it.

        counted: of the pass of every process, see `shares`; where nothing is said of a loss, all passes count alike.

        Returns for the pass of every process its losses, what `Mixture.kept` says of them, and its images' ids.
        """
        s, rank = self.settings, processes.rank()
        torch.manual_seed(random.Random(f"pass-{s.seed}-{first + rank}").getrandbits(63))
        images = batch.images.to(self.device, non_blocking=True)
        targets = {k: [moved(t, self.device) for t in ts] for k, ts in batch.targets.items()}
        if self.device.type == "cuda":
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(self.device))
            self.copies.hold(batch, done)
        lower = s.precision != "fp32"
        with torch.autocast(self.device.type, PRECISIONS[s.precision], enabled=lower):
            losses: dict[str, Tensor] = self.model(images, targets, *_rest(counted[rank]))
        anchor = losses.pop(processes.ANCHOR, None)
        values = torch.stack([v.detach().float() for v in losses.values()]).tolist() if losses else []
        said = processes.gathered((dict(zip(losses, values, strict=True)), batch.ids))
        out = []
        for i, (parts, ids) in enumerate(said):
            if not all(map(math.isfinite, parts.values())):
                raise self.not_finite("the loss", parts, ids)
            out.append((parts, self.mixture.kept(parts, first + i) if parts else None, ids))
        mine = {name: _first(counted[rank], name, s) for name in losses}
        total = self.mixture(losses, out[rank][1], mine) if losses else None
        if self.joint is not None and self.reached is not None:
            self.reached |= self.joint.reached(total) if total is not None else set()
            total = anchor if total is None else total + anchor
        if total is not None:
            (total if self.scaler is None else self.scaler.scale(total)).backward()
        return out

    def apply(self, losses: dict[str, float], ids: list[str]) -> tuple[float | None, int | None, bool]:
        """Update the weights by the gradient that was added up.

        Returns its norm, None where it overflowed fp16; and of `update` the other two, on which all processes agree: a
        signal reaches one of them, or all at different times.
        """
        late = processes.rank() == 0 and time.monotonic() - self.saved > 60 * self.settings.save_minutes
        flags = [*(number in self.caught for number in SIGNALS), late]
        *signals, late = processes.share(self.parameters, self.reached, processes.statistics(self.model), flags)
        stop = next((number for number, there in zip(SIGNALS, signals, strict=True) if there), None)
        if self.reached is not None:
            self.reached.clear()
        return self.advance(losses, ids), stop, late

    def advance(self, losses: dict[str, float], ids: list[str]) -> float | None:
        """Let the optimiser make its step; returns the gradient's norm."""
        graded = [p for p in self.parameters if p.grad is not None]
        if not graded:
            return 0.0
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = processes.clip_gradients(graded, self.settings.clip or math.inf)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)  # skips the step where the gradient overflowed, then scales less
            self.scaler.update()
        elif math.isfinite(norm):
            self.optimizer.step()
        else:
            raise self.not_finite("the gradient", losses, ids)
        self.optimizer.zero_grad(set_to_none=True)
        return norm if math.isfinite(norm) else None

    def not_finite(self, what: str, parts: dict[str, float], ids: list[str]) -> NonFinite:
        self.writer.wait()
        processes.wait()  # as torchrun ends them all when the first one leaves
        last = latest(self.folder / CHECKPOINTS)
        return NonFinite(
            f"step {self.step + 1}: {what} is not finite: {', '.join(f'{k}={v:g}' for k, v in parts.items())}; "
            f"learning rate {rate(self.step, self.settings):g}, precision {self.settings.precision}; "
            f"images: {', '.join(ids)}. The last checkpoint is {last or 'none yet'}"
        )

    def save(self) -> None:
        """Take the whole state as it is now, and let the writer make a checkpoint of it."""
        optimizer = self.optimizer.state_dict()["state"]
        flat = {(i, k): v for i, state in optimizer.items() for k, v in state.items()}
        rest = {f"optimizer.{i}.{k}": v for (i, k), v in flat.items() if isinstance(v, Tensor)}
        rest |= {f"mixture.{k}": v for k, v in self.mixture.state_dict().items()}
        tensors = {"model": self.model.state_dict(), "rest": rest}
        if self.average is not None:
            tensors["average"] = self.average.state
        scalars = {
            "step": self.step,
            "seconds": self.seconds,
            "optimizer": [[i, k, v] for (i, k), v in flat.items() if not isinstance(v, Tensor)],
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }
        self.writer.wait()  # one at a time: two copies of the state would need twice the memory
        kept = checkpoints.snapshot(tensors)
        what = (self.folder / CHECKPOINTS, self.step, kept, scalars, self.settings.keep)
        if self.group is None:
            self.writer.start(lambda: checkpoints.write(*what))
        else:
            group = self.group
            self.writer.start(lambda: checkpoints.write_parts(*what, group))

    def load(self, checkpoint: Path) -> None:
        """Take up the whole state of a checkpoint."""
        groups = {"model": self.model.state_dict(), "average": self.average.state if self.average is not None else {}}
        trained = [p for g in self.optimizer.param_groups for p in g["params"]]

        def like(group: str, name: str, shape: torch.Size) -> Tensor | None:
            kind, _, rest = name.partition(".")
            if group in groups or kind == "mixture":
                return groups.get(group, {}).get(name)
            parameter = trained[_number(rest.partition(".")[0], trained)]
            return parameter if parameter.shape == shape else None  # else a number of steps

        tensors, scalars = checkpoints.read(checkpoint, like)
        try:
            self.take(tensors, scalars, trained)
        except ValueError as e:
            raise checkpoints.broken(checkpoint, e) from e

    def take(self, tensors: dict[str, dict[str, Tensor]], scalars: Fields, trained: Sequence[nn.Parameter]) -> None:
        """Take up what a checkpoint holds. trained: what the optimiser moves, in its order.

        Raises:
            ValueError: it is of another network or another kind of training, or says what cannot be.
        """
        step, seconds = scalars.count("step", low=0), scalars.number("seconds", low=0)
        if not self.optimizer.defaults.get("momentum", 1):  # SGD then remembers nothing
            tensors.setdefault("rest", {})
        if missing := {"model", "rest"} - tensors.keys():
            raise ValueError(f"it has no {min(missing)}.safetensors")
        _fitting(tensors["model"], self.model.state_dict(), "model")
        self.model.load_state_dict(tensors["model"])
        mixture = _under(tensors["rest"], "mixture.")
        _fitting(mixture, self.mixture.state_dict(), "mixture")
        self.mixture.load_state_dict(mixture)
        state = {
            n: {k: _laid_out(v, trained[n]) for k, v in values.items()}
            for n, values in _moments(tensors["rest"], scalars, trained).items()
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        if self.average is not None:
            average = tensors.get("average", {})
            _fitting(average, self.average.state, "average")
            for name, value in average.items():
                self.average.state[name].copy_(value)
        if self.scaler is not None and self.scaler.is_enabled():
            said = scalars.object("scaler")
            known = {"scale": said.number("scale"), "_growth_tracker": said.count("_growth_tracker")}
            known |= {k: said.number(k) for k in ("growth_factor", "backoff_factor")}
            self.scaler.load_state_dict(known | {"growth_interval": said.count("growth_interval")})
        self.step, self.seconds = step, float(seconds)


def _fitting(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], group: str) -> None:
    """Raises:
    ValueError: they have other names or shapes; tells the first of them.
    """
    if odd := sorted(found.keys() ^ wanted.keys()):
        raise ValueError(f"{group} {'lacks' if odd[0] in wanted else 'has'} {odd[0]!r}: it is of another network")
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            have, want = (tuple(t.shape) for t in (found[name], value))
            raise ValueError(f"{group}: {name!r} has shape {have}, not {want}: it is of another network")


def _moments(rest: dict[str, Tensor], scalars: Fields, trained: Sequence[nn.Parameter]) -> dict[int, dict[str, Any]]:
    """What the optimiser knows of each parameter, by its number.

    Raises:
        ValueError: a number is none of them, a tensor has another shape, or a value is no number.
    """
    state: dict[int, dict[str, Any]] = {}
    for key, value in _under(rest, "optimizer.").items():
        number, _, name = key.partition(".")
        of = _number(number, trained)
        if value.ndim:  # else a number of steps
            _fitting({name: value}, {name: trained[of]}, f"optimizer.{of}")
        state.setdefault(of, {})[name] = value
    for at, row in enumerate(scalars.get("optimizer", (list,), "a list")):
        match row:
            case [int(which), str(name), int() | float() | None as single]:
                state.setdefault(_number(str(which), trained), {})[name] = single
            case _:
                raise scalars.error(f"optimizer[{at}]", "must be a number of a parameter, a name and a number", row)
    return state


def _number(text: str, trained: Sequence[nn.Parameter]) -> int:
    """Raises:
    ValueError: it is no number of one of them.
    """
    if not text.isdecimal() or int(text) >= len(trained):
        raise ValueError(f"the optimiser's state is of parameter {text!r}, and there are {len(trained)}")
    return int(text)


def _optimizer(parameters: list[nn.Parameter], s: Settings) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": s.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if s.optimizer == "adamw":  # fused: one pass over all that it holds, in a quarter of the time on a CPU too
        return torch.optim.AdamW(groups, lr=s.lr, fused=True)
    return torch.optim.SGD(groups, lr=s.lr, momentum=s.momentum, nesterov=s.nesterov)  # fused does not know parts


def moved(target: Target | None, device: torch.device) -> Target | None:
    """The target with its tensors on that device."""
    if target is None or device.type == "cpu":
        return target
    values = {f.name: getattr(target, f.name) for f in fields(target)}
    return replace(target, **{k: v.to(device, non_blocking=True) for k, v in values.items() if v is not None})


def _laid_out(value: Any, parameter: Tensor) -> Any:
    """What an optimiser knows of each number of a parameter, in that parameter's memory layout and on its device.

    A file has it row by row; an optimiser that goes over the memory of both at once would pair other numbers.
    """
    whole = isinstance(value, Tensor) and not isinstance(parameter, DTensor)
    if not whole or value.shape != parameter.shape or not value.ndim:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _first(counted: Mapping[str, tuple[float, ...]], name: str, s: Settings) -> float:
    """The share of a loss, which is that of its first part: the others are weighed against it."""
    return counted[name][0] if name in counted else 1 / s.accumulate


def _rest(counted: Mapping[str, tuple[float, ...]]) -> list[dict[str, tuple[float, ...]]]:
    """What a model is told of the parts of its losses after the first, where there are any and it matters."""
    several = {name: parts for name, parts in counted.items() if len(parts) > 1 and parts[0] > 0}
    weights = {name: tuple(part / parts[0] for part in parts[1:]) for name, parts in several.items()}
    return [weights] if any(w != 1 for each in weights.values() for w in each) else []


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _note(line: dict[str, Any], s: Settings) -> str:
    parts = ", ".join(f"{k} {v:.4g}" for k, v in line["losses"].items())
    return f"step {line['step']}/{s.steps}, {line['images_per_second']:.1f} images/s, loss {line['loss']:.4g} ({parts})"


def _truncate(log: Path, step: int) -> None:
    """Forget what was logged after the checkpoint, and a torn last line: those steps are done again."""
    if not log.exists():
        return
    kept = []
    for text in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = Fields(log, json.loads(text))
            if line.count("step") <= step:
                kept.append(text + "\n")
        except (ValueError, RecursionError):
            continue
    with replacing(log) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def logged(log: Path) -> list[Fields]:
    """Lines of the log of a training that has ended, in their order; of each the step and the seconds are looked at.

    Raises:
        ValueError: there are none, or one is not as `fit` writes it; names it.
    """
    fix = "Give another --out, or remove this one's checkpoints, and the same command begins anew"
    lines = []
    for number, text in enumerate(log.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise ValueError(f"{log}: line {number} is no JSON. {fix}") from e
        line = Fields(log, value, f"line {number}", fix)
        line.count("step", low=1)
        line.number("seconds", low=0)
        lines.append(line)
    if not lines:
        raise ValueError(f"{log} is empty: what the steps cost is not known any more. {fix}")
    return lines


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process is within for the same folder: two that write one log and one checkpoint would spoil both.

    The lock is the process's own (POSIX): it ends with it however that ends, and its data workers do not inherit it.

    Raises:
        BlockingIOError: another one is.
    """
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise BlockingIOError(
                    f"{folder}: {file.read().strip() or 'another process'} trains there; wait for it or stop it, or "
                    "give another folder"
                ) from None
            # else the file system has no locks
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM enters; a second one acts as it did before."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may listen
        return
    before = {n: signal.getsignal(n) for n in SIGNALS}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        put_back()

    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        put_back()


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """On the CPU, where it costs little, sums in a fixed order; on a GPU it would forbid operations that are needed."""
    if device.type != "cpu":
        yield
        return
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)
        memory.fill_uninitialized_memory = filled
