"""The scores of many transfers, as their transfer.json say: read and checked.

Every error names file and field. Scores that cannot be compared, because their test sets differ, are not read at all.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyteach.ground.fields import Fields
from polyteach.ground.files import read_json

Samples = NDArray[np.float64]

MODES: dict[str, str] = {
    "finetune": "fine-tuned end to end",
    "frozen": "frozen",
    "linear": "linear probe",
    "knn": "nearest neighbours",
}
PARTS = {"backbone": "backbone", "pyramid": "backbone and pyramid"}
JACKKNIFE, BOOTSTRAP = "jackknife", "bootstrap"
_FIX = "Make it again with `polyteach transfer`, or leave its folder out"
EVERY = "all labels"
"""The label budget of a run that was given neither shots nor a fraction."""


@dataclass(frozen=True)
class Try:
    """One cell of a sweep; validation: the score of the validation images, None where it failed.

    at: what was tried: lr and steps, or a probe's setting.
    """

    at: dict[str, float]
    seed: int | None
    validation: float | None
    failed: str | None


@dataclass(frozen=True)
class Test:
    """One seed, trained as the sweep chose and tested once.

    scores: those that are defined. resamples: (R,) draws of the metric's, nan where undefined. drawn: how they were
    made: JACKKNIFE, or BOOTSTRAP before there was the other. curve: (step, training loss). unreadable: ids of test
    images that could not be read, and so did not count.
    """

    seed: int
    scores: dict[str, float]
    resamples: Samples
    drawn: str
    curve: tuple[tuple[float, float], ...]
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What one transfer found when it took over these parts of the network."""

    parts: str
    chosen: dict[str, Any]
    sweep: tuple[Try, ...]
    tests: tuple[Test, ...]

    def at_chosen_lr(self) -> list[tuple[float, float]]:
        """(steps, validation score) of the chosen learning rate, averaged over seeds."""
        found: dict[float, list[float]] = {}
        for t in self.sweep:
            if "steps" in t.at and t.at["lr"] == self.chosen.get("lr") and t.validation is not None:
                found.setdefault(float(t.at["steps"]), []).append(float(t.validation))
        return [(steps, statistics.fmean(v)) for steps, v in sorted(found.items())]

    def validation(self) -> float | None:
        """The validation score that the sweep chose by, averaged over seeds."""
        found = [float(t.validation) for t in self.sweep if t.at == self.chosen and t.validation is not None]
        return statistics.fmean(found) if found else None


@dataclass(frozen=True)
class Downstream:
    """A downstream task: one store, one objective, one metric, one test set."""

    name: str
    store: str
    task: str
    objective: str
    metric: str
    higher_is_better: bool
    train_images: int | None
    validation_images: int | None
    test_images: int | None
    classes: int | None
    test_sha256: str

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.higher_is_better else -1


@dataclass(frozen=True)
class Spent:
    """What something cost; None where it is not known."""

    name: str
    images: float | None
    flops: float | None
    seconds: float | None


@dataclass(frozen=True)
class Run:
    """One transfer.json."""

    file: Path
    date: str
    command: str
    version: str
    machine: str
    pretraining_command: str | None
    name: str
    init: str | None
    backbone: str
    sha256: str | None
    pretraining_seed: int | None
    downstream: Downstream
    budget: str
    budget_images: int
    mode: str
    results: tuple[Result, ...]
    transfer: Spent
    pretraining: Spent | None
    teachers: tuple[Spent, ...]
    examples: tuple[str, ...]

    @property
    def origin(self) -> tuple[int | None, str | None]:
        """Which pretraining this is: two runs of one origin differ in their transfer only."""
        return (self.pretraining_seed, self.sha256 or self.init)


def read(folders: Sequence[str]) -> list[Run]:
    """Every transfer.json at or below `folders`, each once, checked, in the order given and then of the path.

    Raises:
        ValueError: a folder is missing or holds none; a file is broken or lacks a field; two files test the same
            seed of the same representation; test sets or metrics of one downstream name differ.
    """
    files: dict[Path, Path] = {}
    for given in (folders,) if isinstance(folders, str) else folders:
        path = Path(given)
        if not path.exists():
            raise ValueError(f"no such folder: {given}")
        found = [path] if path.is_file() and path.name == "transfer.json" else sorted(path.rglob("transfer.json"))
        if not found:
            raise ValueError(f"no transfer.json below {given}; `polyteach transfer` writes one when it has finished")
        for file in found:
            files.setdefault(file.resolve(), file)
    if not files:
        raise ValueError("no folder given; name those that `polyteach transfer` wrote")
    runs = [_run(file) for file in files.values()]
    _check_alike(runs)
    _check_once(runs)
    return runs


def _run(file: Path) -> Run:
    try:
        top = Fields(file, read_json(file), fix=_FIX, whole=True)
    except OSError as e:
        raise ValueError(f"{file} cannot be read: {e.strerror}") from e
    top.one_of("verb", ("transfer",))
    about, down, budget, compute = (top.object(k) for k in ("representation", "downstream", "budget", "compute"))
    # the schema has the hash of the test images in both places
    hashes = {x.text("test_sha256") for x in (top, down) if "test_sha256" in x.value}
    if len(hashes) != 1:
        raise top.error("test_sha256", "is missing" if not hashes else "differs from downstream.test_sha256")
    machine = top.object("machine").value
    spent = {"representation": None} if compute.value.get("representation") is None else {}
    pretraining = None if spent else _spent(compute.object("representation"), "pretraining")
    return Run(
        file=file,
        date=top.text("date"),
        command=top.text("command"),
        version=top.text("polyteach"),
        machine=", ".join(f"{k} {v}" for k, v in machine.items() if v is not None),
        pretraining_command=about.text("command", null=True) if "command" in about.value else None,
        name=about.text("name"),
        init=about.text("init", null=True),
        backbone=about.text("backbone"),
        sha256=about.text("sha256", null=True),
        pretraining_seed=about.count("pretraining_seed", null=True),
        downstream=Downstream(
            **{k: down.text(k) for k in ("name", "store", "task", "objective", "metric")},
            higher_is_better=down.get("higher_is_better", (bool,), "true or false", False),
            **{k: down.count(k, True) for k in ("train_images", "validation_images", "test_images", "classes")},
            test_sha256=hashes.pop(),
        ),
        budget=_budget(budget),
        budget_images=budget.count("images"),
        mode=top.text("mode"),
        results=tuple(_result(r, down.text("metric")) for r in top.objects("results")),
        transfer=_spent(compute.object("transfer"), "transfer"),
        pretraining=pretraining,
        teachers=tuple(_spent(t, t.text("name")) for t in compute.objects("teachers")),
        examples=tuple(_examples(top)),
    )


def _spent(x: Fields, name: str) -> Spent:
    return Spent(name, *(x.number(k, null=True) for k in ("images", "flops", "seconds")))


def _budget(x: Fields) -> str:
    shots, fraction = x.count("shots", null=True), x.number("fraction", null=True)
    said = [f"{shots} shot{'' if shots == 1 else 's'}"] if shots is not None else []
    said += [f"{100 * fraction:g} %"] if fraction is not None and fraction != 1 else []
    return ", ".join(said) or EVERY


def _examples(top: Fields) -> list[str]:
    listed = top.get("examples", (list,), "a list of drawings", True) or []
    for i, name in enumerate(listed):
        if not isinstance(name, str):
            raise top.error(f"examples[{i}]", "must be text", name)
        here = Path(top.file).resolve().parent  # through a link a page would show a file of somewhere else
        if Path(name).is_absolute() or not (here / name).resolve().is_relative_to(here):
            raise top.error(f"examples[{i}]", "must lie in the folder of its transfer.json", name)
    return listed


def _result(x: Fields, metric: str) -> Result:
    chosen = x.get("chosen", (dict,), "an object", True) or {}
    parts = x.one_of("parts", PARTS)
    sweep = []
    for t in x.objects("sweep"):
        at = {k: t.number(k) for k in (("setting",) if "setting" in t.value else ("lr", "steps"))}
        failed = t.text("failed", null=True) or None
        validation = None if failed else t.number("validation", null=True)
        sweep.append(Try(at, t.count("seed", null=True), validation, failed))
    tests = []
    for t in x.objects("tests"):
        scores = t.object("scores")
        scores.number(metric, null=True)
        known = {k: v for k, v in scores.value.items() if _is_number(v)}
        # (id, reason) each
        missing = t.get("unreadable", (list,), "a list", True) or [] if "unreadable" in t.value else []
        unreadable = tuple(sorted(str(m[0] if isinstance(m, list) and m else m) for m in missing))
        drawn = JACKKNIFE if "left_out" in t.value else BOOTSTRAP
        tests.append(Test(t.count("seed"), known, _resamples(t), drawn, _curve(t), unreadable))
    return Result(parts, chosen, tuple(sweep), tuple(tests))


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def _resamples(t: Fields) -> Samples:
    listed = t.get("resamples", (list,), "a list of numbers", True) or []
    for i, x in enumerate(listed):
        if x is not None and (not isinstance(x, int | float) or isinstance(x, bool)):
            raise t.error(f"resamples[{i}]", "must be a number", x)
    return np.array([math.nan if x is None else x for x in listed], dtype=np.float64)


def _curve(t: Fields) -> tuple[tuple[float, float], ...]:
    listed = t.get("curve", (list,), "a list of [step, loss]", True) or []
    for i, x in enumerate(listed):
        if not isinstance(x, list) or len(x) != 2 or not _is_number(x[0]):
            raise t.error(f"curve[{i}]", "must be [step, loss]", x)
    # a loss that overflowed was measured, but has no place on an axis
    return tuple((float(step), float(loss)) for step, loss in listed if _is_number(loss))


def _check_alike(runs: list[Run]) -> None:
    """What must agree within a downstream name, and within a representation's name."""
    for field, why in (
        ("test_sha256", "its test sets differ, so their scores cannot be compared"),
        ("metric", "its metrics differ, so their scores cannot be compared"),
        ("higher_is_better", "its files disagree about which scores are better"),
    ):
        by_name: dict[str, dict[Any, list[str]]] = {}
        for r in runs:
            value = getattr(r.downstream, field)
            by_name.setdefault(r.downstream.name, {}).setdefault(value, []).append(str(r.file))
        for name, values in by_name.items():
            if len(values) > 1:
                said = "; ".join(f"{str(v)[:16]} in {', '.join(files)}" for v, files in values.items())
                raise ValueError(
                    f"downstream.{field} of {name!r}: {why}: {said}. Transfer again on the same test images, or leave "
                    "one of them out"
                )
    backbones: dict[str, Run] = {}
    for r in runs:
        first = backbones.setdefault(r.name, r)
        if first.backbone != r.backbone:
            raise ValueError(
                f"representation.backbone of {r.name!r} is {first.backbone} in {first.file} but {r.backbone} in "
                f"{r.file}; results of one name are pooled, so give the two different names"
            )


def _check_once(runs: list[Run]) -> None:
    seen: dict[Any, Path] = {}
    for r in runs:
        for result in r.results:
            for t in result.tests:
                key = (r.name, r.downstream.name, r.budget, r.mode, result.parts, r.origin, t.seed)
                if key in seen:
                    raise ValueError(
                        f"{r.file} and {seen[key]} hold the same test twice: representation.name {r.name!r} on "
                        f"{r.downstream.name!r}, {r.budget}, {r.mode}, {result.parts}, pretraining seed "
                        f"{r.pretraining_seed}, seed {t.seed}; leave one of the folders out"
                    )
                seen[key] = r.file
