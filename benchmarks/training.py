"""Training: a real run against the same steps on one resident batch, and against other loops; its waits."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from harness import Peer, Row, against, alone, interleaved, medians, ready
from trainers import BACKBONE, LOOPS, WARM, by_class, per_second, steps_noted
from worlds import rendered

from polyteach.loading.plan import plan
from polyteach.loading.samples import Samples
from polyteach.loading.transport import Batch, batches
from polyteach.loading.views import Augment
from polyteach.model.student import Student
from polyteach.store import Store
from polyteach.tasks.contract import Policy
from polyteach.training.loop import fit
from polyteach.training.mixture import Mixture
from polyteach.training.settings import Settings


def run(
    store: Store, size: int, batch: int, steps: int, resident: bool, workers: int, tasks: tuple[str, ...] = ()
) -> tuple[float, float]:
    """Images a second of the steps after the first two, and the percentage of their time that was spent on waiting.

    resident: one batch again and again, which lies in memory. tasks: all when empty.
    """
    chosen = plan([store], tasks, (), ())
    torch.manual_seed(0)
    student = Student(BACKBONE, chosen.objectives, 64)
    samples = Samples(chosen, Augment((size, size), (0.7, 1.5)), Policy(), 0)
    held = next(iter(batches(samples, batch, 0, 1)))
    waits: list[float] = []

    def stream(start: int) -> Iterator[Batch]:
        source = iter([held] * steps) if resident else batches(samples, batch, start, steps, workers)
        while True:
            began = time.perf_counter()
            found = next(source, None)
            waits.append(time.perf_counter() - began)
            if found is None:
                return
            yield found

    with tempfile.TemporaryDirectory() as folder, steps_noted() as times:
        settings = Settings(steps=steps, lr=1e-4, optimizer="adamw", progress=False, save_every=10**6)
        fit(student, Mixture(dict.fromkeys(chosen.objectives, 1.0)), stream, settings, Path(folder))
    waited = sum(waits[WARM : len(times)])
    return per_second(times, batch), 100 * waited / (times[-1] - times[WARM - 1])


def training(folder: Path, quick: bool) -> list[Row]:
    """A real step, reading in one other process: against one batch that stays in memory, and against other loops."""
    count, size, batch, steps, turns = (64, 128, 8, 10, 2) if quick else (256, 256, 16, 16, 5)
    return compared(folder, count, size, batch, steps, turns)


def compared(folder: Path, count: int, size: int, batch: int, steps: int, turns: int) -> list[Row]:
    """The rows for `count` pictures of size x size pixels."""
    store = rendered(folder / "training", count, size)
    pictures = str(by_class(store, folder / "classes"))
    torch.set_num_threads(1)
    peers = [Peer(n, package, go, (pictures, size, batch, steps)) for n, (package, go) in LOOPS.items()]
    others, missing = ready(peers)
    waits: list[float] = []

    def real() -> float:
        speed, waited = run(store, size, batch, steps, False, 1)
        waits.append(waited)
        return speed

    ways = {
        "real": real,
        "resident": lambda: run(store, size, batch, steps, True, 0)[0],
        "classes": lambda: run(store, size, batch, steps, False, 1, ("classification",))[0],
        **others,
    }
    m = medians(interleaved(ways, turns, others, missing))
    waited = medians({"waits": waits[1:]})["waits"]
    name, alone_ = f"training, {BACKBONE}, five heads, {size} px", f"training, {BACKBONE}, classes, {size} px"
    return [
        Row(name, "against the same step on one resident batch", m["real"], m["resident"], "images/s", 0.97),
        Row(name, "share of the time that it waits for data", waited, None, "%", 2.0, False),
        *against(alone_, "", m["classes"], m, peers, missing, "images/s", 1.0),
    ]


if __name__ == "__main__":
    alone(training, "training")
