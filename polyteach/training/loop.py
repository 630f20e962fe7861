"""The one optimisation loop: schedule, precision, averaging, log, checkpoints, exact resume. It knows no task.

A training is a pure function of its settings and its stream of batches: killed at any moment and started again it
goes on from the last checkpoint and ends, on the CPU with as many threads, in the same weights byte for byte.

A step may have several forward passes. The loss of an objective is its mean over all that the step has labels for,
however they are spread over the passes: a pass counts in it by what it has of them (`shares`), so that 16 passes of one
image do what one of 16 does, but for batch normalisation, and an objective that one image of a step is labelled for
weighs as much as the others.

Under torchrun (`distributed`) the forward passes of a step are dealt to the processes in turn, and their gradients
added up. What is random in a pass follows from its number, so that N processes do what one does with as many passes,
but for the order of sums, and the running statistics of batch normalisation, which are then means over processes;
unless it is synchronised: then N passes at a time are normalised as one.

Shapes: B images of a batch, h w their pixels.
"""

import copy
import json
import math
import os
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from polyteach.ground.devices import PRECISIONS, find_device, warn_if_slow
from polyteach.ground.fields import Fields
from polyteach.ground.progress import track
from polyteach.ground.storage import below
from polyteach.model.units import Units
from polyteach.tasks.contract import Target
from polyteach.training import checkpoints, distributed
from polyteach.training.alone import LOCK, SIGNALS, alone, signals_caught
from polyteach.training.averaging import Average
from polyteach.training.checkpoints import latest
from polyteach.training.layers import Layers
from polyteach.training.log import LOG, summary, truncate
from polyteach.training.mixture import Amounts, Mixture, first_share, labelled, shares, weights_of_rest
from polyteach.training.recomputation import seen_once
from polyteach.training.settings import Settings, check, rate
from polyteach.training.state import check_fits, laid_out, moments, parameter_number, under

CHECKPOINTS = "checkpoints"
"""Folder of a run."""


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


def fit(
    model: nn.Module,
    mixture: Mixture,
    batches: Callable[[int], Iterable[Seen]],
    settings: Settings,
    folder: Path,
    trunk: str = "",
    blocks: Sequence[str] = (),
    amounts: Callable[[Mapping[str, Sequence[Any]]], Amounts] = labelled,
    units: Units = (),
) -> None:
    """Optimise `model` in place, going on from the last checkpoint in `folder` where there is one.

    At the end `model` holds the averaged weights where `settings.ema` is on, else the last. Writes
    `folder/log.jsonl`, one line per step, and `folder/checkpoints/`. The global random state of torch is put back.

    model: called as model(images, targets) -> losses by objective. batches: number of the first batch wanted -> the
    batches from there on, at least as many as the steps need; of several processes, each gets every `size`-th, from
    its `rank` on. trunk: name of the submodule with synchronised layers, "" for none; see `distributed.Joint`.
    blocks: where `settings.shard` is on, what of the trunk is gathered apart; see `distributed.Joint.shard`. A copy is
    trained then, and `model` stays on its device. amounts: targets of a batch -> what the losses are means over. Where
    a loss has several parts, the model is called with the weights of those after the first too, by objective.
    units: of the backbone, for `settings.layer_decay` and `settings.thaw`; see `layers`.

    Memory: a process holds the batches of all of its passes of a step, on the host; on the device one at a time.

    Raises:
        NonFinite: a loss or gradient is; the last checkpoint stays.
        Interrupted: on SIGINT or SIGTERM, after a checkpoint.
        ValueError: settings that do not exist or cannot be met here; or what is to be written is a symbolic link.
        BlockingIOError: another process trains in `folder`.
    """
    check(settings)
    find_device(settings.device)
    for name in (LOCK, LOG, CHECKPOINTS):
        below(folder, name)
    device = torch.device(settings.device)
    cuda = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda),
        _deterministic(device),
        distributed.together(device),
        alone(folder) if distributed.rank() == 0 else nullcontext(),
        signals_caught() as caught,
    ):
        trained = copy.deepcopy(model) if settings.shard else model  # sharding cannot be undone
        trained.to(device)
        if settings.channels_last:
            trained.to(memory_format=torch.channels_last)
        with distributed.Joint(trained, trunk) if trunk else nullcontext() as joint:
            if settings.shard and joint is not None:
                joint.shard(blocks, device)
            run = _Loop(trained, mixture, settings, folder, device, joint, amounts, units)
            run.go(batches, caught)
        if settings.shard:
            state = model.state_dict()
            for name, value in trained.state_dict().items():
                state[name].copy_(distributed.whole(value))


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


class _Loop:
    """The state of a training, and what moves it on."""

    def __init__(
        self,
        model: nn.Module,
        mixture: Mixture,
        settings: Settings,
        folder: Path,
        device: torch.device,
        joint: distributed.Joint | None,
        amounts: Callable[[Mapping[str, Sequence[Any]]], Amounts],
        units: Units = (),
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
        self.layers = Layers(model, units, settings, stops=joint is None)
        self.optimizer = _optimizer(self.parameters, settings, self.layers.scale)
        self.average = Average(self.model, settings.ema) if settings.ema else None
        self.scaler = torch.amp.GradScaler(device.type) if settings.precision == "fp16" else None
        self.step = 0
        self.seconds = 0.0
        self.caught: list[int] = []
        self.copies = Copies()
        self.saved = time.monotonic()
        self.log_file = folder / LOG
        self.writer = checkpoints.Writer()
        self.group = distributed.another_group() if settings.shard else None

    def go(self, batches: Callable[[int], Iterable[Seen]], caught: list[int]) -> None:
        s, self.caught = self.settings, caught
        last = latest(self.folder / CHECKPOINTS)
        if last is not None:
            self.load(last)
        distributed.barrier()  # before the first one writes checkpoints of its own
        writes = distributed.rank() == 0
        if writes:
            truncate(self.log_file, self.step)
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
                    bar.advance(note=summary(line, s.steps))
                    self.writer.look()
                    if writes and due:
                        os.fsync(log.fileno())
                    if due and (writes or s.shard):
                        self.save()
                        self.saved = time.monotonic()
                    if stop and self.step < s.steps:
                        self.writer.wait()
                        distributed.barrier()  # else torchrun ends all when the first one leaves, maybe while it writes
                        name = signal.Signals(stop).name
                        raise Interrupted(f"{name}: checkpoint of step {self.step} of {s.steps} is in {self.folder}")
        if self.average is not None:
            self.model.load_state_dict(self.average.state)

    def update(self, stream: Iterator[Seen]) -> tuple[dict[str, Any], int | None, bool]:
        """One step; returns its line of the log, a signal to stop, and whether it is time for a checkpoint."""
        s, start = self.settings, time.monotonic()
        lr = rate(self.step, s)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        self.layers.at(self.step)
        losses: dict[str, float] = {}
        ids: list[str] = []
        passes: dict[str, int] = {}
        kept: dict[str, int] = {}
        for first, batch, counted in self.passes(stream):
            for (parts, factors, seen), share in zip(self.backward(batch, first, counted), counted, strict=True):
                ids += seen
                for name, value in parts.items():
                    losses[name] = losses.get(name, 0.0) + first_share(share, name, s) * value
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
        s, size = self.settings, distributed.size()
        taken = [next(stream) for _ in range(s.accumulate // size)]
        counted: list[dict[str, tuple[float, ...]]] = [{} for _ in range(s.accumulate)]
        if s.accumulate > 1:
            said = distributed.all_gather([dict(self.amounts(batch.targets)) for batch in taken])
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
        s, rank = self.settings, distributed.rank()
        torch.manual_seed(random.Random(f"pass-{s.seed}-{first + rank}").getrandbits(63))
        images = batch.images.to(self.device, non_blocking=True)
        targets = {k: [moved(t, self.device) for t in ts] for k, ts in batch.targets.items()}
        if self.device.type == "cuda":
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(self.device))
            self.copies.hold(batch, done)
        lower = s.precision != "fp32"
        with torch.autocast(self.device.type, PRECISIONS[s.precision], enabled=lower):
            losses: dict[str, Tensor] = self.model(images, targets, *weights_of_rest(counted[rank]))
        anchor = losses.pop(distributed.ANCHOR, None)
        values = torch.stack([v.detach().float() for v in losses.values()]).tolist() if losses else []
        said = distributed.all_gather((dict(zip(losses, values, strict=True)), batch.ids))
        out = []
        for i, (parts, ids) in enumerate(said):
            if not all(map(math.isfinite, parts.values())):
                raise self.not_finite("the loss", parts, ids)
            out.append((parts, self.mixture.kept(parts, first + i) if parts else None, ids))
        mine = {name: first_share(counted[rank], name, s) for name in losses}
        total = self.mixture(losses, out[rank][1], mine) if losses else None
        if self.joint is not None and self.reached is not None:
            self.reached |= self.joint.reached(total) if total is not None else set()
            total = anchor if total is None else total + anchor
        if total is not None:
            with seen_once(self.model) if s.recompute else nullcontext():
                (total if self.scaler is None else self.scaler.scale(total)).backward()
        return out

    def apply(self, losses: dict[str, float], ids: list[str]) -> tuple[float | None, int | None, bool]:
        """Update the weights by the gradient that was added up.

        Returns its norm, None where it overflowed fp16; and of `update` the other two, on which all processes agree: a
        signal reaches one of them, or all at different times.
        """
        late = distributed.rank() == 0 and time.monotonic() - self.saved > 60 * self.settings.save_minutes
        flags = [*(number in self.caught for number in SIGNALS), late]
        *signals, late = distributed.all_reduce(
            self.layers.learning(self.parameters), self.reached, distributed.statistics(self.model), flags
        )
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
        norm = distributed.clip_gradients(graded, self.settings.clip or math.inf)
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
        distributed.barrier()  # as torchrun ends them all when the first one leaves
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
            parameter = trained[parameter_number(rest.partition(".")[0], trained)]
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
        check_fits(tensors["model"], self.model.state_dict(), "model")
        self.model.load_state_dict(tensors["model"])
        mixture = under(tensors["rest"], "mixture.")
        check_fits(mixture, self.mixture.state_dict(), "mixture")
        self.mixture.load_state_dict(mixture)
        state = {
            n: {k: laid_out(v, trained[n]) for k, v in values.items()}
            for n, values in moments(tensors["rest"], scalars, trained).items()
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        if self.average is not None:
            average = tensors.get("average", {})
            check_fits(average, self.average.state, "average")
            for name, value in average.items():
                self.average.state[name].copy_(value)
        if self.scaler is not None and self.scaler.is_enabled():
            said = scalars.object("scaler")
            known = {"scale": said.number("scale"), "_growth_tracker": said.count("_growth_tracker")}
            known |= {k: said.number(k) for k in ("growth_factor", "backoff_factor")}
            self.scaler.load_state_dict(known | {"growth_interval": said.count("growth_interval")})
        self.step, self.seconds = step, float(seconds)


def _optimizer(
    parameters: list[nn.Parameter], s: Settings, scale: Callable[[nn.Parameter], float]
) -> torch.optim.Optimizer:
    """scale: of a parameter's learning rate. Checkpoints number parameters by the order of the groups and in them."""
    groups: list[dict[str, Any]] = []
    for decay, mine in (
        (s.weight_decay, [p for p in parameters if p.ndim > 1]),
        (0.0, [p for p in parameters if p.ndim <= 1]),
    ):
        for one in dict.fromkeys(map(scale, mine)):
            groups.append({"params": [p for p in mine if scale(p) == one], "weight_decay": decay, "scale": one})
    if s.optimizer == "adamw":  # fused: one pass over all that it holds, in a quarter of the time on a CPU too
        return torch.optim.AdamW(groups, lr=s.lr, fused=True)
    # fused does not know parts; of those torch plans anew at every new rate how to divide an operation: one for all
    return torch.optim.SGD(groups, lr=s.lr, momentum=s.momentum, nesterov=s.nesterov, foreach=s.shard or None)


def moved(target: Target | None, device: torch.device) -> Target | None:
    """The target with its tensors on that device."""
    if target is None or device.type == "cpu":
        return target
    values = {f.name: getattr(target, f.name) for f in fields(target)}
    return replace(target, **{k: v.to(device, non_blocking=True) for k, v in values.items() if v is not None})


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
