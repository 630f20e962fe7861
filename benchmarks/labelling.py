"""Labelling: `polyteach label` against the same teachers' bare forward passes, and against a plain loop."""

import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

import torch
from harness import Row, alone, interleaved, medians, rate
from worlds import rendered

from polyteach.images import decode
from polyteach.label import label
from polyteach.store import Store
from polyteach.teachers import load_teacher
from polyteach.train import train

TASKS = ("classification", "detection", "segmentation", "depth")


def teachers(store: Store, folder: Path, size: int) -> dict[str, str]:
    """Four networks of one kind with a head each, hardly trained: what they say does not matter here."""
    found = {}
    for task in TASKS:
        out = folder / f"teacher-{task}"
        train(
            [str(store.path)], out=str(out), tasks=(task,), backbone="resnet18", channels=64, size=size, steps=1,
            batch_size=8, workers=0, device="cpu", progress=False,
        )  # fmt: skip
        found[task] = f"own:{out}"
    return found


def quiet(work: Any) -> None:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        work()


def labelling(folder: Path, quick: bool) -> list[Row]:
    """Images a second with one and with four teachers, against bare passes on tensors in memory, and a plain loop."""
    count, size, batch, turns = (48, 256, 16, 3) if quick else (192, 256, 16, 5)
    store = rendered(folder / "labelling", count, size, "classification,detection,segmentation,depth", part_size=64)
    specs = teachers(store, folder, size)
    rows = [r for p in store.parts() for r in store.images(p)]
    pixels = [decode(r.data or b"", max_pixels=size * size, min_side=1) for r in rows]
    loaded = {name: load_teacher(spec, "cpu", "fp32") for name, spec in specs.items()}

    def mine(names: tuple[str, ...]) -> float:
        for name in names:
            for old in store.path.glob(f"labels/*/bench-{name}"):
                shutil.rmtree(old)
        given = {f"bench-{name}": specs[name] for name in names}
        # models are loaded within it: with few images that costs more than with many
        return rate(
            count,
            lambda: quiet(
                lambda: label(str(store.path), teachers=given, device=("cpu",), batch_size=batch, progress=False)
            ),
        )

    def passes(names: tuple[str, ...]) -> float:
        def go() -> None:
            for name in names:
                for i in range(0, count, batch):
                    loaded[name](pixels[i : i + batch])

        return rate(count, go)

    def loop(names: tuple[str, ...]) -> float:
        """As scripts do it: for each model, decode each picture, ask for one at a time, keep with torch.save."""

        def go() -> None:
            for name in names:
                for i, row in enumerate(rows):
                    [answer] = loaded[name]([decode(row.data or b"", max_pixels=size * size, min_side=1)])
                    torch.save({k: vars(v) for k, v in answer.items()}, folder / f"loop-{name}-{i}.pt")

        return rate(count, go)

    out = []
    for names in (TASKS[:1], TASKS):
        ways = {"mine": lambda n=names: mine(n), "bare": lambda n=names: passes(n), "loop": lambda n=names: loop(n)}
        m = medians(interleaved(ways, turns))
        title = f"labelling, {len(names)} teacher{'s' if names[1:] else ''}, {size} px"
        out += [
            Row(title, "against bare forward passes on tensors in memory", m["mine"], m["bare"], "images/s", 0.95),
            Row(
                title,
                "against a loop over files, one image at a time",
                m["mine"],
                m["loop"],
                "images/s",
                1.2 if names[1:] else 0.95,
            ),
        ]
    return out


if __name__ == "__main__":
    alone(labelling, "labelling")
