"""What all benchmarks share: interleaved repetitions, medians, ratios with targets, tables, JSON.

Absolute times of a shared machine say little; ratios of things that took turns within one run say more. Every row is
ours against something: a physical limit, or a tool that a user would take instead.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("polyteach", "torch", "torchvision", "timm", "pyarrow", "pillow", "numpy")


@dataclass(frozen=True)
class Row:
    """One question. ours, other: medians in `unit`; other is None where the target is for `ours` itself.

    target: of ours / other, or of ours; None where the row only informs. more: whether more is better.
    """

    benchmark: str
    question: str
    ours: float
    other: float | None
    unit: str
    target: float | None = None
    more: bool = True

    @property
    def value(self) -> float:
        """What the target is about."""
        return self.ours if self.other is None else self.ours / self.other

    @property
    def verdict(self) -> str:
        """ "met", "falls short", or "" without a target."""
        if self.target is None:
            return ""
        return "met" if (self.value >= self.target if self.more else self.value <= self.target) else "falls short"


def interleaved(ways: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Each way's figures, taken in turns: A B A B. The first turn of each is thrown away: it warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repetitions + 1):
        for name, way in ways.items():
            figure = way()
            if turn:
                found[name].append(figure)
    return found


def medians(found: Mapping[str, list[float]]) -> dict[str, float]:
    """The middle of every list."""
    return {name: statistics.median(figures) for name, figures in found.items()}


def rate(count: int, work: Callable[[], Any]) -> float:
    """Units a second of something that handles `count` of them."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def machine() -> dict[str, Any]:
    """Where and with what this ran."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d"), "cpu": model, "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2), "python": platform.python_version(), "versions": versions,
    }  # fmt: skip


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| benchmark | question | ours | other | ratio | target | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        other = "" if r.other is None else f"{r.other:.3g}"
        ratio = "" if r.other is None else f"{r.value:.2f}"
        sign = ">=" if r.more else "<="
        target = "" if r.target is None else f"{sign} {r.target:g}"
        lines.append(
            f"| {r.benchmark} | {r.question} | {r.ours:.3g} {r.unit} | {other} | {ratio} | {target} | {r.verdict} |"
        )
    return "\n".join(lines)


def save(rows: list[Row], path: Path) -> None:
    """The rows and the machine, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine(), "rows": [asdict(r) | {"value": r.value, "verdict": r.verdict} for r in rows]}
    path.write_text(json.dumps(about, indent=1) + "\n")


def alone(benchmark: Callable[[Path, bool], list[Row]], name: str) -> None:
    """Run one benchmark as a script."""
    import tempfile

    parser = argparse.ArgumentParser(description=(benchmark.__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less to measure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = benchmark(Path(folder), given.quick)
    print(table(rows))
    save(rows, RESULTS / f"{name}.json")
