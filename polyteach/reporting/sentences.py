"""What a report says in sentences: who won, what to know before comparing, and why a cell is blank."""

from collections.abc import Iterable
from typing import Any

from polyteach.reporting.compare import Analysis, Match, difference, unpaired
from polyteach.reporting.findings import Findings
from polyteach.reporting.formats import counted, interval_text, mode_name
from polyteach.reporting.results import BOOTSTRAP, PARTS, Downstream, Run


def summary(f: Findings) -> str:
    """How much was compared, and when."""
    dates = sorted({r.date[:10] for r in f.runs})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    tests = sum(len(x.tests) for r in f.runs for x in r.results)
    return (
        f"{counted(len(f.names), 'representation')} on {counted(len(f.columns), 'downstream task')}, "
        f"{counted(len(f.runs), 'transfer')}, {counted(tests, 'test')}, {when}."
    )


def in_short(f: Findings) -> list[str]:
    """Who won: of the table that the page is about, the last of the main ones."""
    t = f.main[-1] if f.main else f.tables[0]
    g, out = t.grid, []
    parts = PARTS.get(g.parts, "backbone or backbone and pyramid, whichever validation images favour")
    budget = f", {g.budget}" if g.budget else ""
    if t.ours is None:
        out.append(f"Only {', '.join(g.rows)} was tested, so there is nothing to compare with.")
    for m in t.matches:
        if m.against in g.rows and m.differences:
            out.append(_won(t.ours or "", m))
    out += [_first(f, t, c) for c in g.columns]
    how = f"{mode_name(g.mode)}{budget}, taken over: {parts}."
    return [how[:1].upper() + how[1:], *(x for x in out if x)]


def _won(ours: str, m: Match) -> str:
    n = len(m.differences)
    named = (
        ("win", "wins in"),
        ("tie", "ties in"),
        ("loss", "loses in"),
        (None, "is undecided (no interval) in"),
    )
    counts = [f"{verb} {m.count(v)}" for v, verb in named if m.count(v)]
    listed = counts[0] if len(counts) == 1 else f"{', '.join(counts[:-1])} and {counts[-1]}"
    whole = ""
    if m.average is not None:
        apart = " ".join((f"{m.average.value:+z.3f}", *interval_text(m.average.interval, 3)))
        whole = f"; its normalised average less the other's is {apart}"
    return f"Against {m.against}, {ours} {listed} of {counted(n, 'task')}{whole}."


def _first(f: Findings, t: Analysis, c: Downstream) -> str:
    """Who is the best in one task, and by how much."""
    g, d = t.grid, f.decimals[c.name]
    found = [(n, x) for n in g.rows if n != f.oracle and (x := g.cell(n, c)) is not None]
    found.sort(key=lambda of: -c.sign * of[1].mean)
    if len(found) < 2:
        return ""
    (name, x), (second, y) = found[:2]
    winner, ties = g.best(c, f.oracle)
    about = f"{c.name}: {name} is at {c.metric} {x.mean:.{d}f}"
    if ties:
        others = ", ".join(n for n in ties if n != name)
        return f"{about}; the test images cannot tell it from {others}: a tie."
    apart = difference(x, y, c.sign)
    by = f"by {' '.join((f'{apart.value:z.{d}f}', *interval_text(apart.interval, d)))}"
    if winner is None:
        return f"{about}, better than {second} {by}; whether that is chance cannot be said without an interval."
    return f"{about} and wins: it is better than the second, {second}, {by}."


def notes(f: Findings) -> list[str]:
    """What a reader must know before comparing: unequal conditions, and numbers that are missing."""
    out = []
    networks = _by_value((r.backbone, r.name) for r in f.runs)
    if len(networks) > 1:
        out.append("Networks differ: " + "; ".join(f"{k}: {', '.join(v)}" for k, v in networks.items()) + ".")
    for column, mode, budget in dict.fromkeys((r.downstream.name, r.mode, r.budget) for r in f.runs):
        here = [r for r in f.runs if (r.downstream.name, r.mode, r.budget) == (column, mode, budget)]
        out += _unequal(here, f"{column}, {mode}, {budget}")
    if failed := [t for r in f.runs for x in r.results for t in x.sweep if t.failed]:
        out.append(
            f"{counted(len(failed), 'cell')} of sweeps failed and could not be chosen; the reasons are listed below."
        )
    versions = sorted({r.version for r in f.runs})
    if len(versions) > 1:
        out.append(f"Made by several versions of polyteach: {', '.join(versions)}.")
    for name, role in ((f.scratch, "0"), (f.oracle, "1")):
        if name not in f.names:
            out.append(f"Normalised scores are blank: no representation {name!r} to give them their {role}.")
    tests = [(r.name, t) for r in f.runs for x in r.results for t in x.tests]
    if old := dict.fromkeys(n for n, t in tests if t.drawn == BOOTSTRAP and len(t.resamples)):
        out.append(
            f"Intervals of {', '.join(old)} are by the bootstrap of an older version: too narrow where classes are "
            "rare, and never paired with newer ones. Transfer again to have them by the jackknife."
        )
    return out


def _unequal(runs: Iterable[Run], where: str) -> list[str]:
    """What differs between the runs that one column compares."""
    out = []
    tries = _by_value((len({tuple(t.at.items()) for t in x.sweep}), r.name) for r in runs for x in r.results)
    if len(tries) > 1:
        said = "; ".join(f"{k} cells: {', '.join(v)}" for k, v in sorted(tries.items()))
        out.append(f"Sweeps are not of equal size on {where}: {said}.")
    images = _by_value((r.budget_images, r.name) for r in runs)
    if len(images) > 1:
        said = "; ".join(f"{k}: {', '.join(v)}" for k, v in sorted(images.items()))
        out.append(f"Labelled images differ on {where}: {said}.")
    return out


def _by_value(pairs: Iterable[tuple[Any, str]]) -> dict[Any, list[str]]:
    """Names by what they have, each once."""
    out: dict[Any, list[str]] = {}
    for key, name in pairs:
        if name not in out.setdefault(key, []):
            out[key].append(name)
    return out


def why_blank(t: Analysis) -> list[str]:
    """Why cells of a table have no score or no interval."""
    g = t.grid
    out = list(g.blanks)
    for (name, column), x in g.cells.items():
        if x.why_no_interval:
            out.append(f"{name} on {column}: no interval, {x.why_no_interval}")
    for c in g.columns:
        here = [cell for n in g.rows if (cell := g.cell(n, c)) and cell.samples is not None]
        if why := unpaired(*here):
            out.append(f"{c.name}: {why}, so not every two can be compared")
    return out


def why_not_normalised(t: Analysis) -> list[str]:
    """Why normalised scores, or their intervals, are blank; what every row shares is said once."""
    return [s.why for s in t.scale.values() if s.why] + [
        a.why for a in t.averages.values() if a.why and a.value is not None
    ]
