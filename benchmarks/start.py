"""How long the command line takes to start: to explain itself, to refuse what is wrong, and until it works.

    python benchmarks/start.py [--repeats 3] [--only WORD ...] [--name NAME]

Every command is a process of its own, and they take turns. What is kept is its time on a processor (user and system),
which other programs of a busy machine disturb less than the time that passes: the least and the median of both are in
the table, and in results/NAME.json and results/NAME.md. What is refused is looked at: a command that ends otherwise
than it should, or says something else, is an error and no figure.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import RESULTS, Row, machine, save, scratch

ROOT = Path(__file__).resolve().parents[1]
MADE = ROOT / "tests" / "before" / "made"
"""A small store with images and labels of every task."""
POLYTEACH = ["-m", "polyteach"]
VERBS = (
    "ingest", "label", "train", "pretrain", "transfer", "predict", "report", "demo",
    "store check", "store info", "store split", "store merge", "store drop-labels", "store repair",
)  # fmt: skip
HELP, MISTAKE, WORK = 0.5, 1.0, 4.0
"""Seconds that it may take to explain, to refuse, and until a verb works."""


@dataclass(frozen=True)
class Case:
    """A command. words: behind `python`. ends: its exit status. says: a part of what it prints.

    target: seconds on a processor that it may take; None where there is none.
    """

    name: str
    words: Sequence[str]
    target: float | None = None
    ends: int = 0
    says: str = ""


@dataclass
class Spent:
    """Seconds of every turn: on a processor, and by the clock."""

    processor: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)


def polyteach(line: str, target: float | None, ends: int = 0, says: str = "") -> Case:
    """A command of ours."""
    return Case(f"polyteach {line}", [*POLYTEACH, *line.split()], target, ends, says)


def cases() -> list[Case]:
    """What is measured, in a folder with `store`, `run`, `image.png`, `other` and `a.yaml`."""
    explained = [polyteach(f"{verb} --help", HELP, says="Examples:") for verb in VERBS]
    lost, new = "missing is not a store", "--out new"
    mistakes = [
        polyteach("trian", MISTAKE, 2, "Did you mean train"),
        polyteach("ingest missing new", MISTAKE, 2, "source 'missing' does not exist"),
        polyteach("label missing --teacher a=timm:resnet18", MISTAKE, 2, lost),
        polyteach("label store --teacher a=tim:resnet18", MISTAKE, 2, "unknown family 'tim'"),
        polyteach("label store --teacher a=timm:resnet81", MISTAKE, 2, "resnet18"),
        polyteach("label store --teacher a=own:missing", MISTAKE, 2, "holds no finished student"),
        polyteach(f"train missing {new}", MISTAKE, 2, lost),
        polyteach(f"train store {new} --backbone resnet81", MISTAKE, 2, "resnet18"),
        polyteach(f"train store {new} --init missing", MISTAKE, 2, "init 'missing' is neither"),
        polyteach(f"train store {new} --labels poeple", MISTAKE, 2, "poeple"),
        polyteach(f"train store {new} --bach-size 4", MISTAKE, 2, "--batch-size"),
        polyteach(f"train store {new} --batch-size many", MISTAKE, 2, "many"),
        polyteach(f"train store {new} --batch-size 0", MISTAKE, 2, "batch_size must be at least 1"),
        polyteach(f"train store {new} --optimizer sdg", MISTAKE, 2, "Did you mean sgd?"),
        polyteach(f"train store {new} --device gpu", MISTAKE, 2, "gpu"),
        polyteach("train store --out other", MISTAKE, 2, "is no run of polyteach"),
        polyteach("train store --out run", MISTAKE, 2, "holds a finished run"),
        polyteach(f"train store {new} --config missing.yaml", MISTAKE, 2, "No such file"),
        polyteach("train --config a.yaml", MISTAKE, 2, lost),
        polyteach(f"pretrain missing {new}", MISTAKE, 2, lost),
        polyteach(f"transfer missing {new}", MISTAKE, 2, lost),
        polyteach(f"transfer store {new} --protocol voc", MISTAKE, 2, "unknown protocol 'voc'"),
        polyteach("predict missing image.png", MISTAKE, 2, "holds no finished student"),
        polyteach("predict run missing.png", MISTAKE, 1, "no such image or folder"),
        polyteach(f"report missing {new}", MISTAKE, 2, "missing"),
        polyteach("store info missing", MISTAKE, 2, lost),
    ]
    work = [
        polyteach("store info store", MISTAKE, says="images in"),
        polyteach("store check store", WORK, says="store is whole"),
        polyteach("predict run image.png --device cpu --no-progress", WORK, says="image.png: classification"),
    ]
    return [
        Case("nothing", ["-c", ""]),
        Case("import polyteach", ["-c", "import polyteach, sys; assert 'torch' not in sys.modules"], 0.3),
        polyteach("--help", HELP, says="usage: polyteach"),
        polyteach("--version", HELP, says="polyteach 0"),
        *explained,
        *mistakes,
        *work,
    ]


def prepare(folder: Path) -> None:
    """What the commands read: a copy of a small store, and a student that is trained for one step."""
    shutil.copytree(MADE / "store", folder / "store")
    shutil.copytree(MADE / "images", folder / "images")
    shutil.copy(folder / "images" / "referred" / "1.png", folder / "image.png")
    (folder / "other").mkdir()
    (folder / "other" / "notes.txt").write_text("mine\n", encoding="utf-8")
    (folder / "a.yaml").write_text("stores: [missing]\nout: new\n", encoding="utf-8")
    line = (
        "train store --out run --backbone test_efficientnet --channels 8 --size 64 --steps 1 --batch-size 2 "
        "--labels people --tasks classification depth --workers 0 --device cpu --no-progress"
    )
    once(Case(line, [*POLYTEACH, *line.split()]), folder)


def once(case: Case, folder: Path) -> tuple[float, float]:
    """Run a command in `folder`; seconds on a processor, of all that it started too, and by the clock.

    Raises:
        RuntimeError: it ended otherwise than it should, or said something else.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *case.words], cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
        clock = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)  # else it is waited for again
        said.seek(0)
        text = said.read()
    if process.returncode != case.ends or case.says not in " ".join(text.split()):
        raise RuntimeError(f"{case.name} ended with {process.returncode}, not {case.ends}, and said:\n{text}")
    return used.ru_utime + used.ru_stime, clock


def measure(chosen: Sequence[Case], repeats: int, folder: Path) -> dict[str, Spent]:
    """Every command, in turns. None is thrown away: the least says what a warm disk gives."""
    found = {case.name: Spent() for case in chosen}
    for turn in range(repeats):
        for case in chosen:
            processor, clock = once(case, folder)
            found[case.name].processor.append(processor)
            found[case.name].clock.append(clock)
        print(f"turn {turn + 1} of {repeats}", file=sys.stderr, flush=True)
    return found


def rows(chosen: Sequence[Case], found: dict[str, Spent]) -> list[Row]:
    """As the other benchmarks tell it: of each command the least time on a processor."""
    return [Row("start", c.name, min(found[c.name].processor), None, "s", c.target, False) for c in chosen]


def markdown(chosen: Sequence[Case], found: dict[str, Spent]) -> str:
    """A table of seconds."""
    lines = [
        "| command | processor, least | median | clock, least | median | at most | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for case, row in zip(chosen, rows(chosen, found), strict=True):
        spent = found[case.name]
        figures = [f(t) for t in (spent.processor, spent.clock) for f in (min, statistics.median)]
        told = " | ".join(f"{x:.2f}" for x in figures)
        target = "" if case.target is None else f"{case.target:g}"
        lines.append(f"| `{case.name}` | {told} | {target} | {row.verdict} |")
    return "\n".join(lines)


def start(folder: Path, quick: bool) -> list[Row]:
    """Help, mistakes, and the verbs' start."""
    prepare(folder)
    return rows(cases(), measure(cases(), 1 if quick else 3, folder))


def main() -> int:
    """The command; 0 also where a target is missed: the table says which."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--only", nargs="*", default=(), help="commands with one of these words")
    parser.add_argument("--name", default="start", help="of the results' files")
    given = parser.parse_args()
    chosen = [c for c in cases() if not given.only or any(word in c.name for word in given.only)]
    with scratch() as folder:
        prepare(folder)
        found = measure(chosen, given.repeats, folder)
    about = {k: v for k, v in machine().items() if k != "versions"}
    table = f"Seconds, of {given.repeats} turns. {about}\n\n{markdown(chosen, found)}\n"
    print(table)
    save(rows(chosen, found), RESULTS / f"{given.name}.json")
    (RESULTS / f"{given.name}.md").write_text(table, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
