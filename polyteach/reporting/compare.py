"""What the scores of many transfers say: pooled over seeds, compared in pairs, put on a scale, added up.

A score's interval is about the test images: the 2.5th and 97.5th percentile of what it may have been with others
(jackknife.py). Every transfer on one test set draws that with the same random numbers, so two representations are
compared in pairs, draw by draw, and the chance that they share cancels. What differs between seeds is said apart, as
the sample standard deviation. What was not measured stays None.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from polyteach.ground.jackknife import interval
from polyteach.reporting.results import BOOTSTRAP, EVERY, MODES, PARTS, Downstream, Run, Samples, Spent, Test

Interval = tuple[float, float]

BEFORE = "some resamples are by the bootstrap of an older version"
BETTER = "better"
"""The third kind of table: for every cell the parts that did better on the validation images."""


@dataclass(frozen=True)
class Cell:
    """One representation on one downstream task: every test of every seed, pooled.

    samples: (R,) the mean over those tests of each draw; None where tests cannot be paired, and why_no_interval says
    why. drawn: how they were made. unreadable: test images that did not count.
    """

    values: tuple[float, ...]
    samples: Samples | None
    why_no_interval: str
    drawn: str
    unreadable: tuple[str, ...]
    origins: int
    parts: str
    validation: float | None
    others: dict[str, float]
    images: int

    @property
    def mean(self) -> float:
        """The mean over all tests."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """The sample standard deviation over all tests; None for one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval over test images."""
        return None if self.samples is None else interval(self.samples)

    @property
    def over(self) -> str:
        """What mean and spread are over."""
        tests = f"{len(self.values)} test{'s' if len(self.values) > 1 else ''}"
        return f"{tests} of {self.origins} pretrainings" if self.origins > 1 else tests


def pool(runs: Sequence[Run], parts: str) -> Cell | None:
    """The tests of `runs` (one representation, downstream task, budget and mode) with these parts.

    None where there is none, or the score of one is not defined.
    """
    results = [(r, x) for r in runs for x in r.results if x.parts == parts and x.tests]
    tests = [t for _, x in results for t in x.tests]
    metric = runs[0].downstream.metric
    if not tests or any(metric not in t.scores for t in tests):
        return None
    values = tuple(float(t.scores[metric]) for t in tests)
    samples, why = _together(tests, statistics.fmean(values))
    validation = [v for _, x in results if (v := x.validation()) is not None]
    every = set.intersection(*(set(t.scores) for t in tests)) - {metric}
    return Cell(
        values=values,
        samples=samples,
        why_no_interval=why,
        drawn=tests[0].drawn,
        unreadable=tests[0].unreadable,
        origins=len({r.origin for r, _ in results}),
        parts=parts,
        validation=statistics.fmean(validation) if len(validation) == len(results) else None,
        others={k: statistics.fmean(float(t.scores[k]) for t in tests) for k in tests[0].scores if k in every},
        images=max(r.budget_images for r, _ in results),
    )


def _together(tests: Sequence[Test], mean: float) -> tuple[Samples | None, str]:
    """The mean over tests of each draw, or why there is none."""
    lengths = {len(t.resamples) for t in tests}
    if 0 in lengths:
        return None, "a test has no resamples"
    if len({t.unreadable for t in tests}) > 1:
        return None, "its tests could not read different images"
    if len({t.drawn for t in tests}) > 1:
        return None, f"{BEFORE}, others by the jackknife; transfer again"
    if len(lengths) > 1:
        return None, f"its tests have {' and '.join(map(str, sorted(lengths)))} resamples, which cannot be paired"
    samples = np.stack([t.resamples for t in tests]).mean(0)
    if not np.isfinite(samples).all():
        return None, "the metric is undefined on some resamples"
    low, high = interval(samples)
    if tests[0].drawn == BOOTSTRAP and not low <= mean <= high:
        return None, (
            f"its bootstrap's, [{low:.2f}, {high:.2f}], excludes the score itself: classes that a resample lacked "
            "dropped out of its mean; transfer again"
        )
    return samples, ""


@dataclass(frozen=True)
class Difference:
    """One score minus another, positive where the first is better; verdict: win, tie or loss of the first."""

    value: float
    interval: Interval | None
    verdict: str | None


def verdict(interval: Interval | None) -> str | None:
    """A win where the whole interval lies above zero, a loss where below, else a tie; None without an interval."""
    if interval is None:
        return None
    return "win" if interval[0] > 0 else "loss" if interval[1] < 0 else "tie"


def unpaired(*cells: Cell) -> str:
    """Why the resamples of cells of one downstream task are not of the same images; "" where they are."""
    if any(c.samples is None for c in cells):
        return "no resamples to pair"
    if len({c.drawn for c in cells}) > 1:
        return f"{BEFORE}, others by the jackknife"
    if len({len(c.samples) for c in cells if c.samples is not None}) > 1:
        return "different numbers of resamples"
    return "different test images could not be read" if len({c.unreadable for c in cells}) > 1 else ""


def difference(first: Cell, second: Cell, sign: int) -> Difference:
    """The paired difference of two cells of one downstream task."""
    both = None
    if first.samples is not None and second.samples is not None and not unpaired(first, second):
        both = interval(sign * (first.samples - second.samples))
    return Difference(sign * (first.mean - second.mean), both, verdict(both))


# ---------------------------------------------------------------------------------------------------- one table


@dataclass(frozen=True)
class Grid:
    """One table: representations by downstream tasks, at one label budget, in one mode, with these parts.

    budget: a label budget, or "" for each task's main one: all labels, or the only one that was run.
    blanks: why a cell or a column is blank, where there is more to say than that nobody ran it.
    """

    mode: str
    budget: str
    parts: str
    rows: tuple[str, ...]
    columns: tuple[Downstream, ...]
    cells: dict[tuple[str, str], Cell]
    runs: dict[tuple[str, str], list[Run]]
    blanks: tuple[str, ...]

    def cell(self, row: str, column: Downstream) -> Cell | None:
        """The cell, or None where nothing was measured."""
        return self.cells.get((row, column.name))

    def best(self, column: Downstream, without: str) -> tuple[str | None, list[str]]:
        """The clear winner of a column or None, and else those that tie for the best.

        The best is clear where its paired interval against the second best excludes zero. Nobody wins, and nobody
        ties, where one of the two has no interval. The row `without` (the oracle) does not compete.
        """
        ranked = sorted(
            ((c, r) for r in self.rows if r != without and (c := self.cell(r, column)) is not None),
            key=lambda x: -column.sign * x[0].mean,
        )
        if len(ranked) < 2:
            return None, []
        (first, name), others = ranked[0], ranked[1:]
        against = [(r, difference(first, c, column.sign).verdict) for c, r in others]
        if against[0][1] == "win":
            return name, []
        ties = [r for r, v in against if v == "tie"]
        return None, [name, *ties] if ties else []


def grids(runs: Sequence[Run], first: str, last: Sequence[str]) -> list[Grid]:
    """Every table that the runs make, the main ones (fine-tuned, main budget) first; rows `first`, others, `last`."""
    names = list(dict.fromkeys(r.name for r in runs))
    rows = [n for n in names if n == first]
    rows += [n for n in names if n != first and n not in last] + [n for n in last if n in names and n != first]
    columns = list({r.downstream.name: r.downstream for r in reversed(runs)}.values())[::-1]
    out: list[Grid] = []
    modes = dict.fromkeys(r.mode for r in runs)
    for mode in sorted(modes, key=lambda m: [*MODES, *modes].index(m)):
        here = [r for r in runs if r.mode == mode]
        budgets = {c.name: list(dict.fromkeys(r.budget for r in here if r.downstream.name == c.name)) for c in columns}
        main = {c: EVERY if EVERY in b else b[0] if len(b) == 1 else None for c, b in budgets.items()}
        out += _tables(here, mode, "", rows, columns, [r for r in here if main[r.downstream.name] == r.budget])
        for budget in sorted(
            {r.budget for r in here}, key=lambda b: min(r.budget_images for r in here if r.budget == b)
        ):
            rest = [r for r in here if r.budget == budget and main[r.downstream.name] != budget]
            out += _tables(rest, mode, budget, rows, columns, rest)
    return out


def _tables(
    within: Sequence[Run], mode: str, budget: str, rows: list[str], columns: list[Downstream], runs: Sequence[Run]
) -> list[Grid]:
    """The tables of both kinds of parts, and the better of the two where there are both."""
    if not runs:
        return []
    known = [c for c in columns if any(r.downstream.name == c.name for r in within)]
    by_cell: dict[tuple[str, str], list[Run]] = {}
    for r in runs:
        by_cell.setdefault((r.name, r.downstream.name), []).append(r)
    blanks = [
        f"{c.name}: no run with {EVERY} but several other budgets, see the tables of these"
        for c in known
        if not any(r.downstream.name == c.name for r in runs)
    ]
    present = [n for n in rows if any(name == n for name, _ in by_cell)]
    out = []
    for parts in PARTS:
        if not any(x.parts == parts for r in runs for x in r.results):
            continue
        cells = {k: c for k, v in by_cell.items() if (c := pool(v, parts)) is not None}
        failed = [
            f"{n} on {d}: {_why_no_score(v, parts)}"
            for (n, d), v in by_cell.items()
            if (n, d) not in cells and any(x.parts == parts for r in v for x in r.results)
        ]
        out.append(Grid(mode, budget, parts, tuple(present), tuple(known), cells, by_cell, (*blanks, *failed)))
    if len(out) == len(PARTS):
        out.append(_better(out))
    return out


def _why_no_score(runs: Sequence[Run], parts: str) -> str:
    tests = [t for r in runs for x in r.results if x.parts == parts for t in x.tests]
    return f"{runs[0].downstream.metric} is undefined in a test" if tests else "no cell of its sweep was tested"


def _better(both: Sequence[Grid]) -> Grid:
    """For every cell the parts with the better validation score, chosen once for all seeds."""
    cells: dict[tuple[str, str], Cell] = {}
    blanks = list(dict.fromkeys(b for g in both for b in g.blanks if "no run with" in b))
    for row, column in product(both[0].rows, both[0].columns):
        found = [c for g in both if (c := g.cell(row, column)) is not None]
        if len(found) == 2 and any(c.validation is None for c in found):
            blanks.append(f"{row} on {column.name}: without both validation scores the better parts cannot be chosen")
        elif found:
            cells[row, column.name] = max(found, key=lambda c: column.sign * (c.validation or 0.0))
    return replace(both[0], parts=BETTER, cells=cells, blanks=tuple(blanks))


# ------------------------------------------------------------------------------------------- normalised scores, wins


@dataclass(frozen=True)
class Normalised:
    """A score on the scale from scratch (0) to oracle (1); value is None where it is not defined, and why says so."""

    value: float | None
    samples: Samples | None
    why: str

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval over test images."""
        return None if self.samples is None else interval(self.samples)


def normalised(grid: Grid, row: str, column: Downstream, scratch: str, oracle: str) -> Normalised:
    """(score - scratch) / (oracle - scratch) in one column, resample by resample."""
    x, low, high = (grid.cell(n, column) for n in (row, scratch, oracle))
    for name in (scratch, oracle):
        if name not in grid.rows:
            return Normalised(None, None, f"no {name or 'second end of the scale'} in this table")
    if x is None or low is None or high is None:
        missing = next(n for n, c in ((scratch, low), (oracle, high), (row, x)) if c is None)
        return Normalised(None, None, f"{missing} was not measured on {column.name}")
    if column.sign * (high.mean - low.mean) <= 0:
        return Normalised(None, None, f"{oracle} is not better than {scratch} on {column.name}")
    value = (x.mean - low.mean) / (high.mean - low.mean)
    why = unpaired(x, low, high)
    if why or x.samples is None or low.samples is None or high.samples is None:
        return Normalised(value, None, f"{why} on {column.name}")
    scale = high.samples - low.samples
    if (column.sign * scale <= 0).any():
        return Normalised(value, None, f"{oracle} is not better than {scratch} on every resample of {column.name}")
    return Normalised(value, (x.samples - low.samples) / scale, "")


def average(scores: Sequence[Normalised]) -> Normalised:
    """The mean over tasks; resamples are combined by position, which is fair as test sets are independent."""
    missing = list(dict.fromkeys(s.why for s in scores if s.value is None))
    if missing or not scores:
        return Normalised(None, None, "; ".join(missing))
    value = statistics.fmean(s.value for s in scores if s.value is not None)
    samples = [s.samples for s in scores if s.samples is not None]
    if len(samples) < len(scores):
        return Normalised(value, None, "; ".join(dict.fromkeys(s.why for s in scores if s.why)))
    if len({len(s) for s in samples}) > 1:
        return Normalised(value, None, "the tasks have different numbers of resamples")
    return Normalised(value, np.stack(samples).mean(0), "")


@dataclass(frozen=True)
class Match:
    """One representation against another over all tasks of a table; positive differences favour the first.

    rival: for each task, whom the first was compared with. average: difference of the normalised averages.
    """

    against: str
    differences: dict[str, Difference]
    rival: dict[str, str]
    average: Difference | None

    def count(self, verdict: str | None) -> int:
        """In how many tasks this was the verdict."""
        return sum(d.verdict == verdict for d in self.differences.values())


def match(grid: Grid, ours: str, rivals: dict[str, str], against: str, averages: dict[str, Normalised]) -> Match:
    """`ours` against `rivals` (downstream name -> representation)."""
    found = {}
    for c in grid.columns:
        mine, other = grid.cell(ours, c), grid.cell(rivals.get(c.name, ""), c)
        if mine is not None and other is not None:
            found[c.name] = difference(mine, other, c.sign)
    names = set(rivals.values())
    whole = None
    a, b = averages.get(ours), averages.get(names.pop()) if len(names) == 1 else None
    if a and b and a.value is not None and b.value is not None:
        paired = a.samples is not None and b.samples is not None and len(a.samples) == len(b.samples)
        both = interval(a.samples - b.samples) if paired and a.samples is not None and b.samples is not None else None
        whole = Difference(a.value - b.value, both, verdict(both))
    return Match(against, found, rivals, whole)


def best_specialists(grid: Grid) -> dict[str, str]:
    """Per downstream task the specialist with the best test score: the hardest rival, chosen with hindsight."""
    out = {}
    for c in grid.columns:
        found = [(c.sign * x.mean, r) for r in grid.rows if is_specialist(r) and (x := grid.cell(r, c)) is not None]
        if found:
            out[c.name] = max(found)[1]
    return out


def is_specialist(name: str) -> bool:
    """Whether a representation is one teacher's own network, by its name."""
    return name.startswith(("specialist:", "specialist-"))


# ------------------------------------------------------------------------------------------------------------ compute


def total(parts: Iterable[Spent], name: str) -> Spent:
    """The sum; None as soon as one part is not known."""
    listed = list(parts)
    sums = {}
    for field in ("images", "flops", "seconds"):
        values = [getattr(p, field) for p in listed]
        sums[field] = None if None in values else sum(values)
    return Spent(name, **sums)


def spending(runs: Sequence[Run]) -> list[Spent]:
    """What one representation's arm cost: pretraining, each teacher, all its transfers, and the total.

    Several transfers of one pretraining name its cost again; it counts once, and so does a teacher that several
    pretrainings share. An unknown pretraining makes the total unknown; a representation without weights has none.
    """
    origins: dict[Any, list[Spent]] = {}
    teachers: dict[Spent, None] = {}
    for r in runs:
        if r.init is not None or r.pretraining is not None:
            origins.setdefault(r.origin, []).append(r.pretraining or Spent("", None, None, None))
        teachers |= dict.fromkeys(r.teachers)
    lines = [_agreed(said, _numbered("pretraining", i, len(origins))) for i, said in enumerate(origins.values())]
    lines += [replace(t, name=f"teacher {t.name}") for t in teachers]
    lines.append(total((r.transfer for r in runs), f"{len(runs)} transfer{'s' if len(runs) > 1 else ''}"))
    return [*lines, total(lines, "total")]


def _agreed(said: Sequence[Spent], name: str) -> Spent:
    """What several files say about one pretraining; a number about which they disagree is not known."""
    found = {}
    for field in ("images", "flops", "seconds"):
        values = {getattr(s, field) for s in said} - {None}
        found[field] = values.pop() if len(values) == 1 else None
    return Spent(name, **found)


def _numbered(name: str, i: int, n: int) -> str:
    return name if n == 1 else f"{name} {i + 1}"


# ----------------------------------------------------------------------------------------------- everything of a table


@dataclass(frozen=True)
class Analysis:
    """What follows from one table.

    scored: the columns that have a scale from scratch to oracle. averages: over all columns; partial: over `scored`,
    which says less. ours: whom the matches are about; None where there is nobody to compare with.
    """

    grid: Grid
    ours: str | None
    scale: dict[tuple[str, str], Normalised]
    scored: tuple[str, ...]
    averages: dict[str, Normalised]
    partial: dict[str, Normalised]
    matches: tuple[Match, ...]


def analyse(grid: Grid, scratch: str, oracle: str, ours: str | None) -> Analysis:
    """Normalised scores of every row, and one row against every other and against the best specialists.

    The one is `ours`; where that is not in the table, the `leader`.
    """
    scale = {(r, c.name): normalised(grid, r, c, scratch, oracle) for r in grid.rows for c in grid.columns}
    scored = tuple(c.name for c in grid.columns if normalised(grid, scratch, c, scratch, oracle).value is not None)
    averages = {r: average([scale[r, c.name] for c in grid.columns]) for r in grid.rows}
    partial = {r: average([scale[r, c] for c in scored]) for r in grid.rows}
    one = ours if ours in grid.rows else leader(grid, (scratch, oracle))
    matches = []
    if one is not None:
        for other in grid.rows:
            if other != one:
                matches.append(match(grid, one, {c.name: other for c in grid.columns}, other, averages))
        best = best_specialists(grid)
        if best and not is_specialist(one):
            matches.append(match(grid, one, best, "the best specialist per task", averages))
    return Analysis(grid, one if matches else None, scale, scored, averages, partial, tuple(matches))


def leader(grid: Grid, without: Sequence[str]) -> str | None:
    """The row with the best score in the most columns, the first of equals; those in `without` only if alone."""
    rows = [r for r in grid.rows if r not in without] or list(grid.rows)
    firsts = []
    for c in grid.columns:
        found = [(c.sign * x.mean, r) for r in rows if (x := grid.cell(r, c)) is not None]
        firsts += [r for score, r in found if score == max(found)[0]]
    return max(rows, key=firsts.count, default=None)


# -------------------------------------------------------------------------------------------------------------- curves


def label_curves(runs: Sequence[Run]) -> dict[tuple[str, str, str], dict[str, list[tuple[str, Cell]]]]:
    """(downstream, mode, parts) -> representation -> (budget, cell) by images, where several budgets were run."""
    out: dict[tuple[str, str, str], dict[str, list[tuple[str, Cell]]]] = {}
    groups: dict[tuple[str, str, str], dict[str, list[Run]]] = {}
    for r in runs:
        groups.setdefault((r.downstream.name, r.mode, r.name), {}).setdefault(r.budget, []).append(r)
    for (column, mode, name), budgets in groups.items():
        for parts in PARTS:
            cells = [(b, c) for b, here in budgets.items() if (c := pool(here, parts)) is not None]
            if cells:
                out.setdefault((column, mode, parts), {})[name] = sorted(cells, key=lambda x: x[1].images)
    return {k: v for k, v in out.items() if len({b for cells in v.values() for b, _ in cells}) > 1}


def step_curve(runs: Sequence[Run], parts: str) -> list[tuple[float, float]]:
    """(steps, validation score) at each run's chosen learning rate, averaged over its runs."""
    found: dict[float, list[float]] = {}
    for r in runs:
        for x in r.results:
            for steps, score in x.at_chosen_lr() if x.parts == parts else ():
                found.setdefault(steps, []).append(score)
    return [(steps, statistics.fmean(v)) for steps, v in sorted(found.items())]


def loss_curves(runs: Sequence[Run], parts: str) -> list[tuple[tuple[float, float], ...]]:
    """(step, training loss) of every test that recorded them."""
    return [t.curve for r in runs for x in r.results if x.parts == parts for t in x.tests if len(t.curve) > 1]
