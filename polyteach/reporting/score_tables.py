"""The tables that one comparison makes: scores, normalised scores, and one representation against every other."""

from dataclasses import replace

from polyteach.reporting.blocks import Cell, Table
from polyteach.reporting.compare import Analysis, Match
from polyteach.reporting.compare import Cell as Pooled
from polyteach.reporting.findings import Findings
from polyteach.reporting.formats import counted, difference_cell, head, interval_text, normalised_cell
from polyteach.reporting.results import PARTS


def scores(f: Findings, t: Analysis) -> Table:
    """Every representation on every task."""
    g = t.grid
    best = {c.name: g.best(c, f.oracle) for c in g.columns}
    rows = []
    for name in g.rows:
        cells = []
        for c in g.columns:
            x = g.cell(name, c)
            winner, ties = best[c.name]
            mark = "best" if name == winner else "tie" if name in ties else ""
            cells.append(score_cell(x, f.decimals[c.name], mark, g.parts not in PARTS) if x else Cell())
        rows.append((name, tuple(cells)))
    return Table(
        "Mean of the tests ± their standard deviation, and the 95 % interval over test images. Bold: clearly the "
        f"best of its column{f', {f.oracle} aside' if f.oracle in g.rows else ''}; =: ties for the best.",
        ("representation", *(head(c) for c in g.columns)),
        tuple(rows),
    )


def score_cell(x: Pooled, decimals: int, mark: str = "", parts: bool = False) -> Cell:
    """Mean and spread, and below them the interval, how many tests, and with `parts` what was taken over."""
    spread = "" if x.spread is None else f" ± {x.spread:.{decimals}f}"
    said = [*interval_text(x.interval, decimals), x.over, PARTS[x.parts] if parts else ""]
    return Cell(f"{x.mean:.{decimals}f}{spread}", tuple(s for s in said if s), mark)


def normalised(f: Findings, t: Analysis) -> Table | None:
    """The normalised scores, where there are any."""
    g = t.grid
    if all(x.value is None for x in t.scale.values()):
        return None
    partial = 0 < len(t.scored) < len(g.columns)
    rows = []
    for name in g.rows:
        whole = [t.averages[name], *([t.partial[name]] if partial else [])]
        each = [t.scale[name, c.name] for c in g.columns]
        rows.append((name, tuple(normalised_cell(x) for x in [*whole, *each])))
    some = (f"average over {', '.join(t.scored)} only",) if partial else ()
    average = f"average over {counted(len(g.columns), 'task')}"
    return Table(
        f"Normalised score: (score - {f.scratch}) / ({f.oracle} - {f.scratch}), 0 is {f.scratch}, 1 is {f.oracle}.",
        ("representation", average, *some, *(c.name for c in g.columns)),
        tuple(rows),
    )


def wins(f: Findings, t: Analysis) -> Table:
    """One representation minus every other, task by task."""
    g = t.grid
    undecided = ("undecided",) if any(m.count(None) for m in t.matches) else ()
    average = ("normalised average",) if any(m.average for m in t.matches) else ()
    rows = tuple((m.against, _match_cells(f, t, m, bool(undecided), bool(average))) for m in t.matches)
    hindsight = (
        " The best specialist of a task is the one with the best test score, chosen with hindsight, which favours "
        "the specialists."
    )
    chosen = f" {t.ours} is the best in the most tasks, chosen with hindsight; --ours compares another."
    return Table(
        f"{t.ours} minus every other: the difference, its paired 95 % interval, and what follows: a win or a loss "
        f"where the interval excludes zero, else a tie. Positive differences favour {t.ours}, also where less is "
        f"better.{hindsight if any(m.against not in g.rows for m in t.matches) else ''}"
        f"{'' if t.ours == f.ours else chosen}",
        ("against", "wins", "ties", "losses", *undecided, *average, *(head(c) for c in g.columns)),
        rows,
    )


def _match_cells(f: Findings, t: Analysis, m: Match, undecided: bool, average: bool) -> tuple[Cell, ...]:
    counts = [f"{m.count('win')} of {len(m.differences)}", str(m.count("tie")), str(m.count("loss"))]
    cells = [Cell(x) for x in (*counts, *([str(m.count(None))] if undecided else []))]
    if average:
        cells.append(difference_cell(m.average, 3))
    for c in t.grid.columns:
        d = difference_cell(m.differences.get(c.name), f.decimals[c.name])
        rival = m.rival.get(c.name, "")
        cells.append(d if rival == m.against or not d.text else replace(d, below=(*d.below, rival)))
    return tuple(cells)
