"""The arithmetic and the tables of benchmarks/strong.py: means over seeds, and differences that are paired by seed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as student_t


@dataclass(frozen=True)
class Found:
    """One test: what was scored, and the score in percent."""

    checkpoint: str
    arm: str
    seed: int
    test: str
    score: float


@dataclass(frozen=True)
class Mean:
    """Over seeds. low, high: Student's t, 95 %; NaN of a single value."""

    mean: float
    low: float
    high: float
    count: int


def over_seeds(values: Sequence[float]) -> Mean:
    """The mean of values that are each of one seed, and the 95 % interval of Student's t about it.

    Raises:
        ValueError: there is none.
    """
    if not values:
        raise ValueError("no values to take a mean of")
    n, mean = len(values), fmean(values)
    reach = float(student_t.ppf(0.975, n - 1)) * stdev(values) / math.sqrt(n) if n > 1 else math.nan
    return Mean(mean, mean - reach, mean + reach, n)


def scores(found: Sequence[Found], checkpoint: str, arm: str, test: str) -> dict[int, float]:
    """By seed. Raises ValueError where a seed comes twice."""
    out: dict[int, float] = {}
    for f in found:
        if (f.checkpoint, f.arm, f.test) == (checkpoint, arm, test):
            if f.seed in out:
                raise ValueError(f"two scores of {checkpoint}, {arm}, {test}, seed {f.seed}")
            out[f.seed] = f.score
    return out


def paired(first: dict[int, float], second: dict[int, float]) -> Mean | None:
    """First minus second, by seed, over the seeds that both have; None where there is none."""
    both = sorted(set(first) & set(second))
    return over_seeds([first[s] - second[s] for s in both]) if both else None


def average(found: Sequence[Found], checkpoint: str, arm: str, tests: Sequence[str]) -> dict[int, float]:
    """By seed, the mean of the scores of all tests, for seeds that have all of them."""
    each = [scores(found, checkpoint, arm, test) for test in tests]
    seeds = set(each[0]).intersection(*each[1:]) if each else set()
    return {s: fmean(e[s] for e in each) for s in sorted(seeds)}


def told(x: Mean | None, sign: bool = False) -> str:
    """A mean with its interval, for a table."""
    if x is None:
        return "-"
    form = "+.1f" if sign else ".1f"
    if x.count < 2:
        return f"{x.mean:{form}} (one seed)"
    return f"{x.mean:{form}} [{x.low:{form}}, {x.high:{form}}]"


def columns(
    found: Sequence[Found], checkpoint: str, tests: Sequence[str], arms: Sequence[str]
) -> dict[str, dict[str, dict[int, float]]]:
    """Of a checkpoint, by test and then by arm, the scores by seed; last the mean of the tests that all arms have."""
    out = {}
    for test in tests:
        by_arm = {a: scores(found, checkpoint, a, test) for a in arms}
        if any(by_arm.values()):
            out[test] = by_arm
    tuned = [t for t, by_arm in out.items() if all(by_arm.values())]
    if len(tuned) > 1:
        out["mean of what is fine-tuned"] = {a: average(found, checkpoint, a, tuned) for a in arms}
    return out


def tables(
    found: Sequence[Found],
    checkpoint: str,
    tests: Sequence[str],
    arms: Sequence[str],
    compared: Sequence[tuple[str, str]],
) -> Iterator[str]:
    """Lines of Markdown of one checkpoint: scores by arm, and differences. compared: pairs of arms, first minus second.
    Of an unfinished checkpoint there are the columns that are begun."""
    by_test = columns(found, checkpoint, tests, arms)
    if not by_test:
        return
    head, rule = " | ".join(["", *by_test]), f"| --- {'| ---: ' * len(by_test)}|"
    yield from (f"| {head} |", rule)
    for arm in arms:
        cells = [over_seeds([*v[arm].values()]) if v[arm] else None for v in by_test.values()]
        yield f"| {arm} | {' | '.join(map(told, cells))} |"
    yield from ("", f"| difference{head} |", rule)
    for arm, other in compared:
        apart = [paired(v[arm], v[other]) for v in by_test.values()]
        if any(apart):
            yield f"| {arm} - {other} | {' | '.join(told(x, sign=True) for x in apart)} |"
    yield ""


def costs(seconds: dict[str, float], arms: Sequence[str]) -> Iterator[str]:
    """Lines of Markdown: seconds of the work of each arm, means over seeds and rates; and of the rest."""
    spent: dict[tuple[str, str], dict[str, list[float]]] = {}
    rest: dict[str, float] = {}
    for what, value in seconds.items():
        c, *more = what.split(": ")
        if len(more) == 2 and more[0] in arms:
            work = more[1].partition(",")[0]
            spent.setdefault((c, more[0]), {}).setdefault(work, []).append(value)
        else:
            kind = what.partition(", rate")[0].partition(", seed")[0]
            rest[kind] = rest.get(kind, 0.0) + value
    works = [*dict.fromkeys(work for by_work in spent.values() for work in by_work)]
    works.sort(key=lambda work: work != "train")
    yield from (f"| checkpoint | arm | {' | '.join(works)} |", f"| --- | --- {'| ---: ' * len(works)}|")
    for (c, arm), by_work in spent.items():
        cells = [f"{fmean(by_work[w]):.0f}" if w in by_work else "-" for w in works]
        yield f"| {c} | {arm} | {' | '.join(cells)} |"
    yield from ("", "| other work | seconds |", "| --- | ---: |")
    for what, value in rest.items():
        yield f"| {what} | {value:.0f} |"
    yield f"| all of this page | {sum(seconds.values()):.0f} |"


def rate_lines(found: dict[str, dict[str, Any]], base: str) -> Iterator[str]:
    """Lines of Markdown of what `strong.rates` found. base: the arm that is as it is."""
    yield from (
        "| what is trained | rate: score on validation images | chosen | as it is |",
        "| --- | --- | ---: | ---: |",
    )
    for what, about in found.items():
        tried = ", ".join(f"{rate}: {score:.1f}" for rate, score in about["tried"].items())
        chosen = "-" if about["chosen"] is None else f"{about['chosen']:g}"
        yield f"| {what} | {tried} | {chosen} | {f'{about[base]:.1f}' if base in about else '-'} |"
