"""A long run: many rendered images through ingest, label and train, and the memory of every process meanwhile.

    python benchmarks/long_run.py --images 100000 --out results/long_run    # about an hour on one core

Writes long_run.json (seconds, images and memory of every stage) and long_run.svg (memory over time) into --out.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import machine

from polyteach.reporting import charts
from polyteach.store import LABELLED, Store

EVERY = 2.0
"""Seconds between two looks at the memory."""
TEACHER = 2000
"""Labelled images that the teacher learns from, in 100 steps: what it says does not matter here."""
NET = ("--backbone", "test_resnet", "--size", "64", "--device", "cpu", "--no-progress")


def resident(root: int) -> float:
    """MiB of memory of a process and all that it started; what several share counts once (PSS)."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split() if folder.name.isdigit() else []
        except OSError:  # ended meanwhile
            continue
        if fields:
            parents[int(folder.name)] = int(fields[1])
    family = {root}
    while more := {p for p, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for process in family:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def watched(words: Sequence[str], cwd: Path, began: float) -> dict[str, Any]:
    """Run `polyteach WORDS`: its seconds, those of its processors, and [seconds since `began`, MiB] at every look.

    Raises:
        RuntimeError: it failed; what it said.
    """
    start, before, samples = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN), []
    command = [sys.executable, "-m", "polyteach", *words]
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, cwd=cwd, stdout=said, stderr=said, start_new_session=True) as process:
            try:
                while process.poll() is None:
                    time.sleep(EVERY)
                    memory = resident(process.pid)
                    if memory:
                        samples.append([round(time.monotonic() - began, 1), round(memory, 1)])
            except BaseException:
                os.killpg(process.pid, signal.SIGTERM)
                raise
        said.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(words)}: {said.read().decode(errors='replace')[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = {"seconds": round(time.monotonic() - start, 1), "processor seconds": round(busy, 1)}
    return {"words": list(words), **seconds, "samples": samples}


def stages(folder: Path, images: int, batch: int) -> dict[str, dict[str, Any]]:
    """Every stage's record, by its name."""
    made = {
        "ingest": ("ingest", f"shapes:pool?count={images}&tasks=none&seed=3", "pool", "--workers", "1"),
        "label": ("label", "pool", "--teacher", "t=own:teacher", "--batch-size", "64", "--device", "cpu",
                  "--no-progress"),
        "train": ("train", "pool", "--out", "student", "--steps", str(images // batch), "--batch-size", str(batch),
                  "--optimizer", "adamw", "--lr", "0.002", "--workers", "1", "--channels", "32", *NET),
    }  # fmt: skip
    before = (
        ("ingest", f"shapes:teach-boxes?count={min(TEACHER, images)}&seed=4", "taught", "--workers", "1"),
        ("train", "taught", "--out", "teacher", "--steps", "100", "--batch-size", "16", "--optimizer", "adamw", "--lr",
         "0.002", "--channels", "32", *NET),
    )  # fmt: skip
    for words in before:
        watched(words, folder, 0.0)
    began = time.monotonic()
    out = {}
    for name, words in made.items():
        out[name] = watched(words, folder, began)
        print(f"{name}: {out[name]['seconds']} s, {images / out[name]['seconds']:.0f} images/s", flush=True)
    store = Store.open(folder / "pool")
    labelled = {s.name: sum(s.states(p).count(LABELLED) for p in s.parts()) for s in store.sets()}
    if sum(map(store.count, store.parts())) != images or set(labelled.values()) != {images}:
        raise RuntimeError(f"{images} images went in; labelled are {labelled}")
    return out


def flat(samples: Sequence[Sequence[float]]) -> float:
    """Mean memory of the last quarter of a stage against that of its second: its first is still starting."""
    n = len(samples) // 4
    early, late = [s[1] for s in samples[n : 2 * n]], [s[1] for s in samples[-n:]]
    return (sum(late) / len(late)) / (sum(early) / len(early)) if n else 1.0


def chart(found: dict[str, dict[str, Any]]) -> str:
    """Memory over time, a line for every stage, at most 150 points each: the highest of each span."""
    series = []
    for i, (name, stage) in enumerate(found.items()):
        samples = stage["samples"]
        width = max(-(-len(samples) // 150), 1)
        spans = [samples[k : k + width] for k in range(0, len(samples), width)]
        points = tuple(charts.Point(max(s)[0] / 60, max(x[1] for x in s)) for s in spans)
        series.append(charts.Series(name, i, points))
    svg = charts.lines("Memory over time", series, "minutes", "MiB, all processes of the stage", "memory", dots=False)
    return charts.standalone(svg)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--folder", type=Path, help="where the stores go; a temporary folder where it is not given")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        found = stages(folder, given.images, given.batch_size)
    given.out.mkdir(parents=True, exist_ok=True)
    table = {}
    for name, stage in found.items():
        highest = max(s[1] for s in stage["samples"])
        table[name] = {
            "seconds": stage["seconds"],
            "processor seconds": stage["processor seconds"],
            "images a processor second": round(given.images / stage["processor seconds"], 1),
            "highest MiB": highest,
            "last quarter against second": round(flat(stage["samples"]), 3),
        }
        print(f"| {name} | " + " | ".join(f"{v:,}" for v in table[name].values()) + " |")
    about = {"machine": machine(), "images": given.images, "batch_size": given.batch_size, "stages": table}
    (given.out / "long_run.json").write_text(json.dumps(about | {"records": found}) + "\n")
    (given.out / "long_run.svg").write_text(chart(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
