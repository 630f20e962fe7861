"""The intervals of a proof again, from the file of its resamples alone; or others, of any arm against any other.

    python runs/intervals.py DIR/proof-resamples.parquet                     # every arm's normalised average
    python runs/intervals.py FILE --ours student-hard --seeds 0              # and its differences to every other arm

A row of the file is one test: arm, task, both seeds, its score, the pictures that could not be read, the draws of what
that score may have been with other test pictures, and the scores with each group of the pictures left out, from which
they were drawn (polyteach/ground/jackknife.py). Draws of one task are paired by position.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyteach.ground.jackknife import interval

SCHEMA = pa.schema(
    [
        ("arm", pa.string()), ("task", pa.string()), ("metric", pa.string()), ("higher_is_better", pa.bool_()),
        ("pretraining_seed", pa.int64()), ("seed", pa.int64()), ("test_sha256", pa.string()), ("score", pa.float64()),
        ("unreadable", pa.list_(pa.string())), ("resamples", pa.list_(pa.float32())),
        ("left_out", pa.list_(pa.float32())),
    ]
)  # fmt: skip


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    """The tests' rows, as SCHEMA says; what a test has not is null."""
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, compression="zstd")


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of such a file."""
    found: list[dict[str, Any]] = pq.read_table(file, schema=SCHEMA).to_pylist()
    return found


class Tests:
    """The tests of some seeds, pooled: for each arm and task a mean score and the mean of its draws."""

    def __init__(self, rows: Sequence[dict[str, Any]], seeds: Sequence[int] | None = None) -> None:
        """seeds: of pretraining; what is from scratch has none and is always taken.

        Raises:
            ValueError: no test is of one of the seeds; the tests of one task have no resamples, or such as cannot be
                paired.
        """
        of: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for r in rows:
            if r["score"] is not None and (seeds is None or r["pretraining_seed"] in (None, *seeds)):
                of.setdefault((r["arm"], r["task"]), []).append(r)
        there = {r["pretraining_seed"] for r in rows} - {None}
        if lack := sorted(set(seeds or ()) - there):
            raise ValueError(f"nothing was pretrained with seed {', '.join(map(str, lack))}; there are {sorted(there)}")
        for task in {t for _, t in of}:
            here = [r for (_, t), x in of.items() if t == task for r in x]
            kinds = {
                (r["test_sha256"], tuple(r["unreadable"] or ()), len(r["resamples"] or ()), bool(r["left_out"]))
                for r in here
            }
            if len(kinds) > 1:
                raise ValueError(
                    f"the tests of {task} cannot be paired: they differ in pictures, number of resamples, or in how "
                    f"these were drawn: {sorted(map(str, kinds))}; choose those of one session with --seeds"
                )
            if not here[0]["resamples"]:
                raise ValueError(f"the tests of {task} kept no resamples")
        self.sign = {r["task"]: 1 if r["higher_is_better"] else -1 for r in rows}
        self.score = {k: statistics.fmean(r["score"] for r in x) for k, x in of.items()}
        self.drawn = {k: np.array([r["resamples"] for r in x], dtype=np.float64).mean(0) for k, x in of.items()}
        self.tasks = list(dict.fromkeys(t for _, t in of))
        self.arms = list(dict.fromkeys(a for a, _ in of))

    def average(self, arm: str, scratch: str = "scratch", oracle: str = "oracle") -> tuple[float, np.ndarray] | None:
        """The normalised average over all tasks and its draws (R,); None where a task or an end of the scale lacks."""
        ends = [(x, t) for x in (arm, scratch, oracle) for t in self.tasks]
        if not all(k in self.score for k in ends):
            return None
        values, drawn = [], []
        for t in self.tasks:
            for kept, out in ((self.score, values), (self.drawn, drawn)):
                out.append((kept[arm, t] - kept[scratch, t]) / (kept[oracle, t] - kept[scratch, t]))
        return statistics.fmean(values), np.mean(drawn, 0)

    def difference(self, ours: str, other: str, task: str) -> tuple[float, np.ndarray] | None:
        """By how much `ours` is better in one task, and the draws of that; None where one was not tested."""
        a, b = (ours, task), (other, task)
        if a not in self.score or b not in self.score:
            return None
        return tuple(self.sign[task] * (kept[a] - kept[b]) for kept in (self.score, self.drawn))  # type: ignore[return-value]


def said(found: tuple[float, np.ndarray] | None) -> str:
    """A value with its interval."""
    if found is None:
        return ""
    low, high = interval(found[1])
    return f"{found[0]:.3f} [{low:.3f}, {high:.3f}]"


def table(tests: Tests, ours: str | None) -> str:
    """Every arm's normalised average; with `ours`, by how much that is better than each. Markdown."""
    head = ["arm", "normalised average", *([f"{ours} minus it", *tests.tasks] if ours else [])]
    lines = [f"| {' | '.join(head)} |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    whole = {a: tests.average(a) for a in tests.arms}
    mine = whole.get(ours or "")
    for arm in sorted(tests.arms, key=lambda a: whole[a][0] if whole[a] else 0.0):  # type: ignore[index]
        cells, its = [arm, said(whole[arm])], whole[arm]
        if ours:
            cells.append(said((mine[0] - its[0], mine[1] - its[1]) if mine and its and arm != ours else None))
            cells += [said(tests.difference(ours, arm, t)) if arm != ours else "" for t in tests.tasks]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--ours", metavar="ARM", help="the arm whose differences to the others are wanted")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="S", help="only what was pretrained with these seeds")
    given = parser.parse_args()
    if not given.file.is_file():
        parser.error(f"there is no file {given.file}")
    try:
        tests = Tests(read(given.file), given.seeds)
    except ValueError as e:
        parser.error(str(e))
    if given.ours and given.ours not in tests.arms:
        parser.error(f"no arm is called {given.ours}; there are {', '.join(tests.arms)}")
    print(table(tests, given.ours))
    return 0


if __name__ == "__main__":
    sys.exit(main())
