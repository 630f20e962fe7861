"""Training: a real run against the same steps on one resident batch."""

import json
import tempfile
from pathlib import Path

import torch
from harness import Row, alone, interleaved, medians
from worlds import rendered

from polyteach.batches import Augment, Samples, batches, plan
from polyteach.loop import Mixture, Settings, fit
from polyteach.store import Store
from polyteach.student import Student
from polyteach.tasks.contract import Policy


def speed(store: Store, size: int, batch: int, steps: int, resident: bool, workers: int) -> float:
    """Images a second of the steps after the first two."""
    chosen = plan([store], (), (), ())
    torch.manual_seed(0)
    student = Student("resnet18", chosen.objectives, 64)
    samples = Samples(chosen, Augment((size, size), (0.7, 1.5)), Policy(), 0)
    held = next(iter(batches(samples, batch, 0, 1)))

    def stream(start: int):  # type: ignore[no-untyped-def]
        return iter([held] * steps) if resident else batches(samples, batch, start, steps, workers)

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(steps=steps, lr=1e-4, optimizer="adamw", progress=False, save_every=10**6)
        fit(student, Mixture(dict.fromkeys(chosen.objectives, 1.0)), stream, settings, Path(folder))
        lines = [json.loads(x) for x in (Path(folder) / "log.jsonl").read_text().splitlines()]
    return batch * (len(lines) - 2) / (lines[-1]["seconds"] - lines[1]["seconds"])


def training(folder: Path, quick: bool) -> list[Row]:
    """A real step, reading in one other process, against the same step on one batch that stays in memory."""
    count, size, batch, steps, turns = (64, 128, 8, 10, 3) if quick else (256, 256, 16, 16, 5)
    store = rendered(folder / "training", count, size)
    torch.set_num_threads(1)
    ways = {
        "real": lambda: speed(store, size, batch, steps, False, 1),
        "resident": lambda: speed(store, size, batch, steps, True, 0),
    }
    m = medians(interleaved(ways, turns))
    name = f"training, resnet18, five heads, {size} px"
    return [Row(name, "against the same step on one resident batch", m["real"], m["resident"], "images/s", 0.97)]


if __name__ == "__main__":
    alone(training, "training")
