"""What all benchmarks share: interleaved repetitions, medians, ratios with targets, tables, JSON.

Absolute times of a shared machine say little; ratios of things that took turns within one run say more. Every row is
ours against something: a physical limit, or a tool that a user would take instead.
"""

import argparse
import atexit
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polyteach.__main__ import main as command
from polyteach.ground.files import write_json

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "polyteach", "torch", "torchvision", "timm", "pyarrow", "pillow", "numpy",
    "autodistill", "datasets", "lightly-train", "litdata", "mosaicml-streaming", "ray", "transformers", "webdataset",
)  # fmt: skip
ELSEWHERE = "POLYTEACH_PEERS_PYTHON"
"""Variable of the environment: a Python with polyteach and the peers that cannot be installed beside the others."""
INSTALL = "not measured: pip install -r benchmarks/requirements.txt"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that ends with the block, also for temporary files of what the block starts: torchrun's logs, locks."""
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="bench", ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before[1]
            del os.environ["TMPDIR"]
            if before[0] is not None:
                os.environ["TMPDIR"] = before[0]


@dataclass(frozen=True)
class Row:
    """One question. ours, other: medians in `unit`; other is None where the target is for `ours` itself.

    target: of ours / other, or of ours; None where the row only informs. more: whether more is better. unmeasured: why
    there is nothing to compare with.
    """

    benchmark: str
    question: str
    ours: float
    other: float | None
    unit: str
    target: float | None = None
    more: bool = True
    unmeasured: str = ""

    @property
    def value(self) -> float:
        """What the target is about."""
        return self.ours if self.other is None else self.ours / self.other

    @property
    def verdict(self) -> str:
        """ "met", "falls short", "" without a target, or why it was not measured."""
        if self.unmeasured or self.target is None:
            return self.unmeasured
        return "met" if (self.value >= self.target if self.more else self.value <= self.target) else "falls short"


def interleaved(
    ways: Mapping[str, Callable[[], float]],
    repetitions: int,
    others: Collection[str] = (),
    missing: dict[str, str] | None = None,
    once: Collection[str] = (),
    warm: bool = True,
) -> dict[str, list[float]]:
    """Each way's figures, taken in turns: A B A B. The first turn of each is thrown away: it warms up.

    warm: False where every turn is a process of its own, which nothing warms up: then none is thrown away.
    others: ways of other tools. One that fails is left out of the rest, with its reason put into `missing`.
    once: ways that take part in the last turn only: they warm up by themselves, and long.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(0 if warm else 1, repetitions + 1):
        for name, way in ways.items():
            if name not in found or (name in once and turn < repetitions):
                continue
            try:
                figure = way()
            except Exception as e:
                if name not in others or missing is None:
                    raise
                missing[name] = f"not measured: it failed with {type(e).__name__}: {' '.join(str(e).split())[:200]}"
                del found[name]
                continue
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


@dataclass(frozen=True)
class Peer:
    """A tool that a user would take instead.

    package: what has to be importable for it. measure: a function of a benchmark's module, of `given` (JSON's values),
    that returns units a second: so it can run in another Python, where this one lacks the package.
    """

    name: str
    package: str
    measure: Callable[..., float]
    given: tuple[Any, ...] = ()

    def way(self) -> Callable[[], float] | str:
        """What measures it once, or why it cannot be measured."""
        if importlib.util.find_spec(self.package) is not None:
            return self._here()
        python = os.environ.get(ELSEWHERE)
        if python is None:
            return INSTALL
        there = f"import importlib.util as u, sys; sys.exit(u.find_spec({self.package!r}) is None)"
        if subprocess.run([python, "-c", there], check=False).returncode:
            return f"{INSTALL} ({ELSEWHERE} has no {self.package} either)"
        return self._there(python)

    def _here(self) -> Callable[[], float] | str:
        try:
            importlib.import_module(self.package)
        except Exception as e:  # whatever a package raises that was installed beside something that it cannot bear
            return f"not measured: {self.package} cannot be imported ({type(e).__name__}: {e})"
        return lambda: self.measure(*self.given)

    def _there(self, python: str) -> Callable[[], float]:
        """By one process that stays for all turns, as what has just started is not warm."""
        here = Path(__file__).resolve().parent
        code = (
            f"import json, sys; sys.path[:0] = {[str(here), str(here.parent)]!r}\n"
            f"from {self.measure.__module__} import {self.measure.__name__} as measure\n"
            "given = json.loads(sys.argv[1])\n"
            "for _ in sys.stdin:\n"
            "    print(json.dumps(measure(*given)), flush=True)\n"
        )
        started: list[subprocess.Popen[str]] = []

        def go() -> float:
            if not started:
                command = [python, "-c", code, json.dumps(self.given)]
                started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
                atexit.register(started[0].kill)
            asks, answers = started[0].stdin, started[0].stdout
            assert asks is not None
            assert answers is not None
            print(file=asks, flush=True)
            for line in answers:  # between what libraries print
                with contextlib.suppress(ValueError):
                    return float(line)
            raise RuntimeError(f"{python} ended with {started[0].wait()} and no answer")

        return go


def ready(peers: Sequence[Peer]) -> tuple[dict[str, Callable[[], float]], dict[str, str]]:
    """Of those that can be measured, what measures them; of the others, why they cannot."""
    ways, missing = {}, {}
    for peer in peers:
        way = peer.way()
        if isinstance(way, str):
            missing[peer.name] = way
        else:
            ways[peer.name] = way
    return ways, missing


def against(
    benchmark: str,
    what: str,
    ours: float,
    found: Mapping[str, float],
    peers: Sequence[Peer],
    missing: Mapping[str, str],
    unit: str,
    target: float | Mapping[str, float | None],
) -> list[Row]:
    """A row for each peer, also for those that were not measured. target: of all, or by the peer's name."""
    rows = []
    for peer in peers:
        goal = target[peer.name] if isinstance(target, Mapping) else target
        question, other = f"{what}against {peer.name}", found.get(peer.name)
        rows.append(Row(benchmark, question, ours, other, unit, goal, unmeasured=missing.get(peer.name, "")))
    return rows


class Said:
    """What was done in the folder that is the current one, and is not done again: the processor's seconds for each
    step, commands, and what they printed. The clock's would say more of the machine's other work."""

    def __init__(self, much: dict[str, Any]) -> None:
        """much: how much of everything, as JSON; another run in the same folder must have the same."""
        self.file, self.much = Path("said.json"), much
        kept = json.loads(self.file.read_text()) if self.file.exists() else {"much": self.much}
        if kept["much"] != self.much:
            raise ValueError(f"{Path.cwd()} was begun with {kept['much']}, not {self.much}; choose another folder")
        self.seconds: dict[str, float] = kept.get("seconds", {})
        self.commands: dict[str, str] = kept.get("commands", {})
        self.printed: dict[str, str] = kept.get("printed", {})

    def step(self, what: str, work: Callable[[], Any]) -> None:
        """Do it, where it is not done yet."""
        if what in self.seconds:
            return
        start = time.process_time()
        work()
        self.seconds[what] = time.process_time() - start
        kept = {key: getattr(self, key) for key in ("much", "seconds", "commands", "printed")}
        write_json(self.file, kept)
        print(f"{what}: {self.seconds[what]:.0f} s of one core", file=sys.stderr, flush=True)

    def command(self, what: str, *words: str) -> None:
        """Give a command of polyteach's, and keep what it prints."""
        line = shlex.join(["polyteach", *words])
        out = io.StringIO()

        def give() -> None:
            print(line, file=sys.stderr, flush=True)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                status = command(list(words))
            if status:
                raise RuntimeError(f"{line} ended with {status}:\n{out.getvalue()}")
            self.commands[what], self.printed[what] = line, out.getvalue()

        self.step(what, give)


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
        ours = "" if r.unmeasured and r.other is None and not r.ours else f"{r.ours:.3g} {r.unit}"
        sign = ">=" if r.more else "<="
        target = "" if r.target is None else f"{sign} {r.target:g}"
        lines.append(f"| {r.benchmark} | {r.question} | {ours} | {other} | {ratio} | {target} | {r.verdict} |")
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
