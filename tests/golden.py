"""Losses of short seeded runs on the CPU, kept in golden.json: what is refactored must not change them.

    python -m tests.golden            shows what differs from the file
    python -m tests.golden --write    writes it anew, where a change was meant; say in the commit why

Every task has a run for each kind of space that it knows; one run more learns all of them together, and one compares
views without labels. Rates are low and steps few, so that another processor's rounding stays below `TOLERANCE`.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from polyteach.ground.scene import random_scene, render
from polyteach.store import ImageRow, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import PEOPLE, Space
from polyteach.verbs.pretrain import pretrain
from polyteach.verbs.train import train
from tests.worlds import png, seen_tasks

FILE = Path(__file__).with_suffix(".json")
TOLERANCE = 1e-3
"""Largest relative difference between processors."""
NAMES = ("red", "green", "blue")
SIZES = ((40, 72), (72, 40), (48, 64), (64, 48))
IMAGES = 8
KEPT = ("losses", "loss", "gradient_norm", "lr", "weights", "images")
"""What is kept of a line of the log."""

COMMON: dict[str, Any] = {
    "backbone": "test_resnet",
    "channels": 16,
    "size": 64,
    "steps": 3,
    "workers": 0,
    "device": "cpu",
    "progress": False,
}
TRAIN: dict[str, Any] = COMMON | {"batch_size": 4, "lr": 0.002, "warmup": 2, "scale": (0.7, 1.4), "ema": 0.5}


def _unsure(task: str, target: Any, seed: int) -> Any:
    """A teacher's answer is not as sure as the truth: each number that says how sure is drawn from 0.3 to 1."""
    draw = torch.Generator().manual_seed(seed)

    def some(like: torch.Tensor) -> torch.Tensor:
        return 0.3 + 0.7 * torch.rand(like.shape, generator=draw)

    if task == "classification":
        p = target.probability + 0.5 * torch.rand(target.probability.shape, generator=draw)
        return replace(target, probability=p / p.sum())
    known = {"detection": "score", "segmentation": "probability"}
    return replace(target, **{known[task]: some(getattr(target, known[task]))}) if task in known else target


def _store(path: Path, task: str, kind: str, *, first: int = 0, carries: Callable[[int], bool] = lambda i: True) -> str:
    """Pictures of several shapes; a teacher labels those that `carries` says, people the last of them again."""
    store = Store.open(path) if path.exists() else Store.create(path, IMAGES)
    seen = [render(random_scene(first + i, SIZES[i % 4])) for i in range(IMAGES)]
    ids = [f"{i}" for i in range(IMAGES)]
    if not store.parts():
        rows = [ImageRow(id, *r.image.shape[1:], png(r.image)) for id, r in zip(ids, seen, strict=True)]
        store.write_images(0, rows)
    about, space = load_task(task), Space(NAMES, kind)
    truths = [about.truth(r, space) if carries(i) else None for i, r in enumerate(seen)]
    guesses = [None if t is None else _unsure(task, t, i) for i, t in enumerate(truths)]
    teacher = {"spec": "x:y", "learning_rate": 0.01, "batch_size": 16, "optimizer": "sgd"}
    store.create_set(task, "teacher", space, {"teacher": teacher}).write(0, ids, guesses)
    people = [t if i == IMAGES - 1 else None for i, t in enumerate(truths)]
    store.create_set(task, PEOPLE, space, {"teacher": PEOPLE}).write(0, ids, people)
    return str(path)


def _alone(task: str, kind: str, **more: Any) -> Callable[[Path], Path]:
    def run(folder: Path) -> Path:
        train(_store(folder / "store", task, kind), out=str(folder / "run"), **TRAIN | more)
        return folder / "run"

    return run


def _together(folder: Path) -> Path:
    """All tasks, two of three pictures labelled for each, in steps of two passes."""
    for n, task in enumerate(seen_tasks()):
        _store(folder / "store", task, load_task(task).kinds[0], carries=lambda i, n=n: (i + n) % 3 > 0)
    train(str(folder / "store"), out=str(folder / "run"), accumulate=2, **TRAIN)
    return folder / "run"


def _without_labels(folder: Path) -> Path:
    store = _store(folder / "store", seen_tasks()[0], load_task(seen_tasks()[0]).kinds[0])
    pretrain(store, out=str(folder / "run"), batch_size=6, lr=0.01, **COMMON)
    return folder / "run"


def runs() -> dict[str, Callable[[Path], Path]]:
    """Name -> what trains in an empty folder and returns the run's own."""
    kinds = [(t, k) for t in seen_tasks() for k in load_task(t).kinds]
    out = {f"{t} {k}".strip(): _alone(t, k) for t, k in kinds}
    out |= {f"{t} by confidence": _alone(t, load_task(t).kinds[-1], confidence=True) for t in seen_tasks()
            if load_task(t).confidence}  # fmt: skip
    return out | {"all together": _together, "without labels": _without_labels}


def losses(name: str, folder: Path) -> list[dict[str, Any]]:
    """What the log of the run says, step by step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        log = (runs()[name](folder) / "log.jsonl").read_text(encoding="utf-8")
    finally:
        torch.set_num_threads(threads)
    return [{k: line[k] for k in KEPT if k in line} for line in map(json.loads, log.splitlines())]


def different(new: Any, old: Any, where: str = "") -> list[str]:
    """Where two such logs differ by more than `TOLERANCE`, with both values."""
    if isinstance(new, dict) and isinstance(old, dict) and set(new) == set(old):
        return [d for k in new for d in different(new[k], old[k], f"{where} {k}")]
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [d for i, (a, b) in enumerate(zip(new, old, strict=True)) for d in different(a, b, f"{where} {i + 1}")]
    numbers = all(isinstance(x, int | float) for x in (new, old))
    if numbers and abs(new - old) <= TOLERANCE * max(abs(new), abs(old)):
        return []
    return [] if new == old else [f"{where.strip()}: {new} was {old}"]


def main() -> None:
    """The command of the head of this file."""
    if set(sys.argv[1:]) - {"--write"}:
        raise SystemExit(__doc__)
    found = {}
    for name in runs():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = losses(name, Path(folder))
    old = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for name, new in found.items():
        said = different(new, old[name]) or ["as before"] if name in old else ["is new"]
        print(f"{name}:", *said, sep="\n  ")
    print(*(f"{name}:\n  is gone" for name in old.keys() - found.keys()), sep="\n")
    if "--write" in sys.argv:
        FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
