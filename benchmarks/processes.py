"""Two processes on two cores against one with one thread: labelling on Ray, and training under torchrun.

The rate of labelling is that between the first and the last part that is written, that of training between two steps of
its log: starting is in neither.
"""

import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness import Row, alone, interleaved, medians
from worlds import rendered

from polyteach.store import Store, part_name

ONE = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
TRAIN = (
    "--backbone", "test_resnet", "--channels", "32", "--size", "64", "--batch-size", "16", "--workers", "0",
    "--device", "cpu", "--no-progress", "--optimizer", "sgd", "--lr", "0.01", "--seed", "1",
)  # fmt: skip


def _run(words: list[str]) -> None:
    done = subprocess.run([sys.executable, *words], env=os.environ | ONE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")


def labelled(store: Store, teacher: str, kept: Path, where: tuple[str, ...] = ()) -> float:
    """Images a second of `polyteach label`, as parts appear. The labels are moved to the folder `kept`."""
    folder = store.path / "labels"
    shutil.rmtree(folder, ignore_errors=True)
    _run(
        ["-m", "polyteach", "label", str(store.path), "--teacher", f"t=own:{teacher}", "--device", "cpu",
         "--batch-size", "16", "--threads", "1", "--no-progress", *where]
    )  # fmt: skip
    # a part is done when the last of its label sets is
    done = sorted(max(f.stat().st_mtime for f in folder.glob(f"*/*/{part_name(part)}")) for part in store.parts())
    shutil.rmtree(kept, ignore_errors=True)
    folder.rename(kept)
    first = 2 if where else 1  # the parts that were begun while others still started
    return store.count(0) * (len(done) - first) / (done[-1] - done[first - 1])


def trained(store: Store, run: Path, processes: int, passes: int) -> float:
    """Images a second of `polyteach train` with two passes a step, between two steps of its log."""
    shutil.rmtree(run, ignore_errors=True)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes == 2 else []
    steps = passes // 2
    _run(
        [*start, "-m", "polyteach", "train", str(store.path), "--out", str(run), "--steps", str(steps), "--accumulate",
         "2", *TRAIN]
    )  # fmt: skip
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rest = log[len(log) // 4 :]
    return float(sum(line["images"] for line in rest[1:]) / (rest[-1]["seconds"] - rest[0]["seconds"]))


def differ(a: Path, b: Path) -> int:
    """How many label files two folders do not have alike, byte for byte."""
    names = {str(f.relative_to(folder)) for folder in (a, b) for f in folder.rglob("part-*.parquet")}
    return len(names) - len(filecmp.cmpfiles(a, b, sorted(names), shallow=False)[0])


def apart(a: Path, b: Path) -> float:
    """The largest relative difference of two runs' losses, over all steps."""
    losses = [[json.loads(line)["loss"] for line in (f / "log.jsonl").read_text().splitlines()] for f in (a, b)]
    return max(abs(x - y) / max(abs(x), 1e-9) for x, y in zip(*losses, strict=True))


def processes(folder: Path, quick: bool) -> list[Row]:
    """Images a second of two processes against one, of labelling and of training, and whether the results agree."""
    count, turns, passes = (768, 1, 80) if quick else (4096, 5, 200)
    taught = rendered(folder / "taught", 128, 64)
    _run(["-m", "polyteach", "train", str(taught.path), "--out", str(folder / "teacher"), "--steps", "4", *TRAIN])
    store = rendered(folder / "pool", count, 64, "none", part_size=64)
    teacher, one, two = str(folder / "teacher"), folder / "one", folder / "two"
    alone_, ray = folder / "labels-one", folder / "labels-two"
    ways = {
        "label 1": lambda: labelled(store, teacher, alone_),
        "label 2": lambda: labelled(store, teacher, ray, ("--ray", "local", "--ray-workers", "2")),
        "train 1": lambda: trained(taught, one, 1, passes),
        "train 2": lambda: trained(taught, two, 2, passes),
    }
    m = medians(interleaved(ways, turns, warm=False))
    title = "two processes, 64 px"
    return [
        Row(title, "label --ray local --ray-workers 2", m["label 2"], m["label 1"], "images/s", 1.7),
        Row(title, "train under torchrun, five heads", m["train 2"], m["train 1"], "images/s", 1.7),
        Row(title, "label files that differ", differ(alone_, ray), None, "", 0.0, False),
        Row(title, "largest relative difference of a loss", apart(one, two), None, "", 0.01, False),
    ]


if __name__ == "__main__":
    alone(processes, "processes")
