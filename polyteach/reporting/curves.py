"""Which charts the page has: scores with their intervals, scores over labels and over steps, and training losses."""

from collections.abc import Iterable, Sequence
from itertools import count

from polyteach.reporting.blocks import Block, Cell, Charts, Section, Table
from polyteach.reporting.charts import Point, Series, intervals, lines, swatch
from polyteach.reporting.compare import Analysis, Grid, Interval, label_curves, loss_curves, step_curve
from polyteach.reporting.compare import Cell as Pooled
from polyteach.reporting.findings import Findings
from polyteach.reporting.formats import head, mode_name
from polyteach.reporting.results import PARTS, Downstream
from polyteach.reporting.score_tables import score_cell

Drawn = list[tuple[str, str]]
"""Charts: (caption, svg) each."""


class Curves:
    """The charts of one page, each with a key of its own; a representation looks alike in all of them."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._keys = (f"chart{i}" for i in count(1))

    def scores(self, t: Analysis) -> Charts:
        """For every task, the score of every representation with its interval."""
        out = []
        for c in t.grid.columns:
            cells = {n: x for n in t.grid.rows if (x := t.grid.cell(n, c)) is not None}
            rows = [self._series(n, (_point(0, x.mean, x.interval),)) for n, x in cells.items()]
            if rows:
                out.append((c.name, intervals(f"{c.name}: {c.metric}", rows, head(c), next(self._keys))))
        return Charts(tuple(out))

    def averages(self, t: Analysis) -> Charts | None:
        """The normalised average of every representation, where there is any."""
        f = self.findings
        rows = [
            self._series(n, (_point(0, a.value, a.interval),)) for n, a in t.averages.items() if a.value is not None
        ]
        if not rows:
            return None
        title = "Normalised average"
        drawn = intervals(title, rows, f"0 is {f.scratch}, 1 is {f.oracle}", next(self._keys), (0, 1))
        return Charts(((title, drawn),))

    def labels(self) -> tuple[Block, ...]:
        """Scores over labelled images, where several label budgets were run; and the same as tables."""
        out: Drawn = []
        used: set[str] = set()
        tables: list[Block] = []
        for (column, mode, parts), curves in label_curves(self.findings.runs).items():
            c = self.findings.column(column)
            series = [
                self._series(n, tuple(_point(x.images, x.mean, x.interval) for _, x in curves[n]))
                for n in self.findings.index
                if n in curves
            ]
            title = f"{column}, {mode_name(mode)}, {PARTS[parts]}"
            out.append((title, lines(title, series, "labelled images", head(c), next(self._keys), log_x=True)))
            used |= set(curves)
            tables.append(self._budgets(title, c, curves))
        if not out:
            return ()
        return (Charts(tuple(out), self._legend(used)), Section("The same as tables", tuple(tables), folded=True))

    def _budgets(self, title: str, c: Downstream, curves: dict[str, list[tuple[str, Pooled]]]) -> Table:
        budgets = dict.fromkeys(b for _, b in sorted((x.images, b) for v in curves.values() for b, x in v))
        decimals = self.findings.decimals[c.name]
        rows = []
        for n in self.findings.names:
            here = dict(curves.get(n, []))
            if here:
                rows.append((n, tuple(score_cell(here[b], decimals) if b in here else Cell() for b in budgets)))
        return Table(f"{title}: {head(c)}", ("representation", *budgets), tuple(rows))

    def training(self, g: Grid) -> list[Block]:
        """Validation score over steps at the chosen learning rate, and training loss, of one table."""
        if g.parts not in PARTS:
            return []
        out: Drawn = []
        used: set[str] = set()
        for c in g.columns:
            runs = {n: g.runs.get((n, c.name), []) for n in self.findings.index}
            steps = {n: points for n, here in runs.items() if (points := step_curve(here, g.parts))}
            where = f"{c.name}, {PARTS[g.parts]}"
            if any(len(points) > 1 for points in steps.values()):
                series = [self._series(n, _thinned(p)) for n, p in steps.items()]
                title = f"{where}: validation score at the chosen learning rate"
                label = f"{head(c)} on validation images"
                out.append((title, lines(title, series, "steps of training", label, next(self._keys), log_x=True)))
                used |= set(steps)
            losses = {n: curves for n, here in runs.items() if (curves := loss_curves(here, g.parts))}
            if losses:
                traces = [self._series(n, _thinned(x)) for n, curves in losses.items() for x in curves]
                title = f"{where}: training loss of every test's training"
                out.append((title, lines(title, traces, "step", "loss", next(self._keys), log_y=True, dots=False)))
                used |= set(losses)
        return [Charts(tuple(out), self._legend(used))] if out else []

    def _series(self, name: str, points: tuple[Point, ...]) -> Series:
        return Series(name, self.findings.index[name], points)

    def _legend(self, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
        used = set(names)
        return tuple((swatch(i), n) for n, i in self.findings.index.items() if n in used)


def _point(x: float, y: float, found: Interval | None) -> Point:
    return Point(x, y, *(found or (None, None)))


def _thinned(pairs: Sequence[tuple[float, float]]) -> tuple[Point, ...]:
    """At most 200 of the points, evenly chosen with both ends; report.json has all."""
    n = len(pairs)
    kept = pairs if n <= 200 else [pairs[round(i * (n - 1) / 199)] for i in range(200)]
    return tuple(Point(x, y) for x, y in kept)
