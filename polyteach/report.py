"""Report: the scores of many transfers as one page of tables, curves and pictures."""

import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

import polyteach
from polyteach import charts, page
from polyteach.arguments import Paths, listed
from polyteach.compare import (
    Analysis,
    Difference,
    Grid,
    Interval,
    Match,
    Normalised,
    analyse,
    difference,
    grids,
    label_curves,
    loss_curves,
    spending,
    step_curve,
    unpaired,
)
from polyteach.compare import Cell as Pooled
from polyteach.files import read_json, replacing
from polyteach.names import unknown_name
from polyteach.page import Beside, Block, Cell, Charts, Pictures, Points, Section, Table, Text
from polyteach.scores import BOOTSTRAP, MODES, PARTS, Downstream, Number, Run, Test, read
from polyteach.texts import say

FILES = ("report.json", "report.md", "report.html")
"""In the order in which they are written: the first says whose the others are."""
OTHERS = (
    "transfer.json",
    "train.json",
    "store.json",
    "predict.json",
    "pretrain.json",
    "student.json",
    "config.json",
    "set.json",
)
"""Files by which the other verbs' folders are known."""
Shown = dict[str, dict[str, dict[str, tuple[str, bytes]]]]
"""Pictures: downstream name -> file name -> representation -> (media type, bytes)."""
KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
MOST_BYTES, MOST_WIDE = 150_000, 960
"""A larger picture is shrunk on the page; pixels for the width."""
HOW = (
    "Every representation is a row, every downstream task a column. Learning rate and steps were chosen on validation "
    "images, for each representation and task alike; the test images were used once per seed. Intervals are about the "
    "test images (jackknife, paired, 95 %, not corrected for the number of comparisons; where many classes are seen in "
    "few images they are too narrow); the standard deviation is about seeds, and pretrainings where there are "
    "several."
)


def report(
    runs: Paths,
    *,
    out: str | Path,
    scratch: str = "scratch",
    oracle: str = "oracle",
    ours: str | None = None,
    title: str = "Representations by transfer",
    examples: int = 4,
) -> str:
    """Compare representations by every transfer.json at or below some folders.

    Runs of one representation and one downstream task are pooled over pretraining seeds and seeds; label budgets, modes
    and the parts that were taken over stay apart. Representations are compared in pairs on the same test images (95 %
    intervals by the jackknife). What was not measured is blank.

    Into `out` go report.html (one page that needs neither network nor script), report.md (the same text and tables) and
    report.json (the same numbers). They may be made again over an older report; no other file is ever touched. The
    same runs give the same bytes.

    Args:
        runs: folders that `polyteach transfer` wrote, or folders of such folders.
        out: where the report goes.
        scratch: the representation that normalised scores count as 0.
        oracle: the representation that normalised scores count as 1; it does not compete for the best score.
        ours: the representation that is compared with every other; without it "student", or where there is none, in
            every table the one that is best in the most tasks.
        title: heading of the page.
        examples: pictures per downstream task.

    Returns:
        The path of report.html.

    Raises:
        ValueError: no transfer.json, a broken one, two of the same test, or scores that cannot be compared because
            their test sets differ; `out` is another verb's folder, or holds a report.html of somebody else.

    Examples:
        polyteach report transfers/ --out report

        polyteach report transfers/ more/ --out report --ours student-large --oracle ""
    """
    folder = Path(out)
    _check_out(folder)
    if examples < 0:
        raise ValueError(f"examples must be at least 0; got {examples}")
    found = read(listed(runs))
    ours = _names(found, scratch, oracle, ours)
    tables = [analyse(g, scratch, oracle, ours) for g in grids(found, scratch, [n for n in (ours, oracle) if n])]
    if not tables:
        raise ValueError(
            f"no result in any of {len(found)} transfer.json, the first: {found[0].file}: results is empty"
        )
    made = _Report(found, tables, scratch, oracle, ours, examples)
    blocks = made.blocks()
    about = {"verb": "report", "polyteach": polyteach.__version__, "title": title, "examples": examples}
    numbers = about | made.numbers()
    texts = {
        "report.json": json.dumps(numbers, indent=1, allow_nan=False) + "\n",
        "report.md": page.markdown(title, blocks),
        "report.html": page.html(title, blocks, charts.STYLE, f"polyteach {polyteach.__version__}"),
    }
    for name in FILES:
        with replacing(folder / name) as temporary:
            temporary.write_text(texts[name], encoding="utf-8")
    say(f"{folder / 'report.html'}: the page; report.md and report.json say the same")
    return str(folder / "report.html")


def _check_out(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; name a folder")
    if found := [n for n in OTHERS if (folder / n).exists()]:
        raise ValueError(f"--out {folder} is the folder of another verb (it holds {found[0]}); choose another --out")
    if not any((folder / n).exists() for n in FILES):
        return
    old = read_json(folder / FILES[0]) if (folder / FILES[0]).is_file() else None
    if not isinstance(old, dict) or old.get("verb") != "report":
        raise ValueError(
            f"--out {folder} holds a {next(n for n in FILES if (folder / n).exists())} that `polyteach report` did not "
            "write; choose another --out"
        )


def _names(runs: list[Run], scratch: str, oracle: str, ours: str | None) -> str | None:
    """The representation whose wins are counted; the names that were given must exist."""
    names = list(dict.fromkeys(r.name for r in runs))
    for option, name, default in (("scratch", scratch, "scratch"), ("oracle", oracle, "oracle"), ("ours", ours, None)):
        if name and name != default and name not in names:
            raise unknown_name(f"representation --{option}", name, names)
    if scratch == oracle:
        raise ValueError(f"--scratch and --oracle are both {scratch!r}; a scale needs two different ends")
    if ours is None:
        return "student" if "student" in names else None
    return ours


class _Report:
    """The page and the numbers of one set of runs."""

    def __init__(
        self, runs: list[Run], tables: list[Analysis], scratch: str, oracle: str, ours: str | None, examples: int
    ) -> None:
        self.runs, self.tables = runs, tables
        self.scratch, self.oracle, self.ours = scratch, oracle, ours
        self.names = list(dict.fromkeys(n for t in tables for n in t.grid.rows))
        self.columns = list({c.name: c for t in tables for c in t.grid.columns}.values())
        first = [n for n in self.names if n == ours]
        self.index = {n: i for i, n in enumerate([*first, *(n for n in self.names if n not in first)])}
        # a share of one or an error in metres needs three decimals; per cent and degrees need two
        cells = [(c, abs(x.mean)) for t in tables for (_, c), x in t.grid.cells.items()]
        self.decimals = {c.name: 2 if any(v > 1.5 for n, v in cells if n == c.name) else 3 for c in self.columns}
        self.pictures, self.lost = self._read_pictures(examples)
        self.drawn = 0

    # ------------------------------------------------------------------------------------------------------- the page

    def blocks(self) -> list[Block]:
        """Everything on the page, in order."""
        main = [t for t in self.tables if t.grid.mode == "finetune" and not t.grid.budget]
        rest = [t for t in self.tables if t not in main]
        found: list[Block] = [Text(self._summary()), Section("In short", (Points(tuple(self.in_short())),))]
        if notes := self.notes():
            found.append(Section("Before you compare", (Points(tuple(notes)),)))
        results = tuple(self._table(t, False) for t in main) or (Text("Nothing was fine-tuned end to end."),)
        found.append(Section("Results", (Text(HOW), *results)))
        if labels := self._label_charts():
            found.append(Section("Score over labels", labels))
        if training := [b for t in main for b in self._training_charts(t.grid)]:
            found.append(Section("Training", tuple(training)))
        if self.pictures:
            found.append(Section("Examples", tuple(self._pictures())))
        found.append(Section("Compute", self._compute()))
        if rest:
            found.append(Section("Other modes and label budgets", tuple(self._table(t, True) for t in rest)))
        found.append(Section("How every number came about", tuple(self._provenance())))
        return found

    def _summary(self) -> str:
        dates = sorted({r.date[:10] for r in self.runs})
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        tests = sum(len(x.tests) for r in self.runs for x in r.results)
        return (
            f"{_n(len(self.names), 'representation')} on {_n(len(self.columns), 'downstream task')}, "
            f"{_n(len(self.runs), 'transfer')}, {_n(tests, 'test')}, {when}."
        )

    def in_short(self) -> list[str]:
        """Who won, in sentences: of the table that the page is about, the last of the main ones."""
        t = next((t for t in reversed(self.tables) if t.grid.mode == "finetune" and not t.grid.budget), self.tables[0])
        g, out = t.grid, []
        parts = PARTS.get(g.parts, "backbone or backbone and pyramid, whichever validation images favour")
        budget = f", {g.budget}" if g.budget else ""
        if t.ours is None:
            out.append(f"Only {', '.join(g.rows)} was tested, so there is nothing to compare with.")
        for m in t.matches:
            if m.against in g.rows and m.differences:
                out.append(_won(t.ours or "", m))
        out += [self._first(t, c) for c in g.columns]
        how = f"{_mode(g.mode)}{budget}, taken over: {parts}."
        return [how[:1].upper() + how[1:], *(x for x in out if x)]

    def _first(self, t: Analysis, c: Downstream) -> str:
        """Who is the best in one task, and by how much."""
        g, d = t.grid, self.decimals[c.name]
        found = [(n, x) for n in g.rows if n != self.oracle and (x := g.cell(n, c)) is not None]
        found.sort(key=lambda of: -c.sign * of[1].mean)
        if len(found) < 2:
            return ""
        (name, x), (second, y) = found[:2]
        winner, ties = g.best(c, self.oracle)
        about = f"{c.name}: {name} is at {c.metric} {x.mean:.{d}f}"
        if ties:
            others = ", ".join(n for n in ties if n != name)
            return f"{about}; the test images cannot tell it from {others}: a tie."
        apart = difference(x, y, c.sign)
        by = f"by {' '.join((f'{apart.value:z.{d}f}', *_interval(apart.interval, d)))}"
        if winner is None:
            return f"{about}, better than {second} {by}; whether that is chance cannot be said without an interval."
        return f"{about} and wins: it is better than the second, {second}, {by}."

    def notes(self) -> list[str]:
        """What a reader must know before comparing: unequal conditions, and numbers that are missing."""
        out = []
        networks = _groups((r.backbone, r.name) for r in self.runs)
        if len(networks) > 1:
            out.append("Networks differ: " + "; ".join(f"{k}: {', '.join(v)}" for k, v in networks.items()) + ".")
        for column, mode, budget in dict.fromkeys((r.downstream.name, r.mode, r.budget) for r in self.runs):
            here = [r for r in self.runs if (r.downstream.name, r.mode, r.budget) == (column, mode, budget)]
            where = f"{column}, {mode}, {budget}"
            tries = _groups((len({tuple(t.at.items()) for t in x.sweep}), r.name) for r in here for x in r.results)
            if len(tries) > 1:
                said = "; ".join(f"{k} cells: {', '.join(v)}" for k, v in sorted(tries.items()))
                out.append(f"Sweeps are not of equal size on {where}: {said}.")
            images = _groups((r.budget_images, r.name) for r in here)
            if len(images) > 1:
                said = "; ".join(f"{k}: {', '.join(v)}" for k, v in sorted(images.items()))
                out.append(f"Labelled images differ on {where}: {said}.")
        if failed := [t for r in self.runs for x in r.results for t in x.sweep if t.failed]:
            out.append(
                f"{_n(len(failed), 'cell')} of sweeps failed and could not be chosen; the reasons are listed below."
            )
        versions = sorted({r.version for r in self.runs})
        if len(versions) > 1:
            out.append(f"Made by several versions of polyteach: {', '.join(versions)}.")
        for name, role in ((self.scratch, "0"), (self.oracle, "1")):
            if name not in self.names:
                out.append(f"Normalised scores are blank: no representation {name!r} to give them their {role}.")
        tests = [(r.name, t) for r in self.runs for x in r.results for t in x.tests]
        if old := dict.fromkeys(n for n, t in tests if t.drawn == BOOTSTRAP and len(t.resamples)):
            out.append(
                f"Intervals of {', '.join(old)} are by the bootstrap of an older version: too narrow where classes are "
                "rare, and never paired with newer ones. Transfer again to have them by the jackknife."
            )
        return [*out, *self.lost]

    def _table(self, t: Analysis, folded: bool) -> Section:
        """One table and what follows from it."""
        g = t.grid
        heading = PARTS.get(g.parts, "the better of the two, chosen on validation images")
        budget = f", {g.budget}" if g.budget else ""
        scores: list[Block] = [self._scores(t)]
        if not folded:
            scores.append(self._score_charts(t))
        blocks: list[Block] = [Beside(tuple(scores)), *_why(self._blanks(t))]
        scale = self._scale(t)
        why = _why(_reasons(t), "Blank" if scale else "No normalised scores")
        if not folded and any(a.value is not None for a in t.averages.values()):
            scale.append(self._average_chart(t))
        blocks += [*([Beside(tuple(scale))] if scale else []), *why]
        if t.matches:
            blocks.append(self._wins(t))
        if folded:
            blocks += self._training_charts(g)
        return Section(f"{_mode(g.mode)}{budget}: {heading}".capitalize(), tuple(blocks), folded)

    def _scores(self, t: Analysis) -> Table:
        g = t.grid
        best = {c.name: g.best(c, self.oracle) for c in g.columns}
        rows = []
        for name in g.rows:
            cells = []
            for c in g.columns:
                x = g.cell(name, c)
                winner, ties = best[c.name]
                mark = "best" if name == winner else "tie" if name in ties else ""
                cells.append(self._score(x, c, mark, g.parts not in PARTS) if x else Cell())
            rows.append((name, tuple(cells)))
        return Table(
            "Mean of the tests ± their standard deviation, and the 95 % interval over test images. Bold: clearly the "
            f"best of its column{f', {self.oracle} aside' if self.oracle in g.rows else ''}; =: ties for the best.",
            ("representation", *(_head(c) for c in g.columns)),
            tuple(rows),
        )

    def _score(self, x: Pooled, c: Downstream, mark: str, parts: bool) -> Cell:
        d = self.decimals[c.name]
        spread = "" if x.spread is None else f" ± {x.spread:.{d}f}"
        said = [*_interval(x.interval, d), x.over, PARTS[x.parts] if parts else ""]
        return Cell(f"{x.mean:.{d}f}{spread}", tuple(s for s in said if s), mark)

    def _blanks(self, t: Analysis) -> list[str]:
        """Why cells have no score or no interval."""
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

    def _scale(self, t: Analysis) -> list[Block]:
        """The normalised scores, where there are any."""
        g = t.grid
        if all(x.value is None for x in t.scale.values()):
            return []
        partial = 0 < len(t.scored) < len(g.columns)
        rows = []
        for name in g.rows:
            whole = [t.averages[name], *([t.partial[name]] if partial else [])]
            rows.append((name, tuple(_normal(x) for x in [*whole, *(t.scale[name, c.name] for c in g.columns)])))
        some = (f"average over {', '.join(t.scored)} only",) if partial else ()
        caption = (
            f"Normalised score: (score - {self.scratch}) / ({self.oracle} - {self.scratch}), 0 is {self.scratch}, 1 is "
            f"{self.oracle}."
        )
        head = ("representation", f"average over {_n(len(g.columns), 'task')}", *some, *(c.name for c in g.columns))
        return [Table(caption, head, tuple(rows))]

    def _wins(self, t: Analysis) -> Table:
        g, rows = t.grid, []
        undecided = ("undecided",) if any(m.count(None) for m in t.matches) else ()
        average = ("normalised average",) if any(m.average for m in t.matches) else ()
        for m in t.matches:
            n = len(m.differences)
            counts = [f"{m.count('win')} of {n}", str(m.count("tie")), str(m.count("loss"))]
            cells = [Cell(x) for x in (*counts, str(m.count(None)))[: 4 if undecided else 3]]
            cells += [_difference(m.average, 3) for _ in average]
            for c in g.columns:
                d = _difference(m.differences.get(c.name), self.decimals[c.name])
                rival = m.rival.get(c.name, "")
                cells.append(d if rival == m.against or not d.text else replace(d, below=(*d.below, rival)))
            rows.append((m.against, tuple(cells)))
        hindsight = (
            " The best specialist of a task is the one with the best test score, chosen with hindsight, which favours "
            "the specialists."
        )
        chosen = f" {t.ours} is the best in the most tasks, chosen with hindsight; --ours compares another."
        return Table(
            f"{t.ours} minus every other: the difference, its paired 95 % interval, and what follows: a win or a loss "
            f"where the interval excludes zero, else a tie. Positive differences favour {t.ours}, also where less is "
            f"better.{hindsight if any(m.against not in g.rows for m in t.matches) else ''}"
            f"{'' if t.ours == self.ours else chosen}",
            ("against", "wins", "ties", "losses", *undecided, *average, *(_head(c) for c in g.columns)),
            tuple(rows),
        )

    # --------------------------------------------------------------------------------------------- charts and pictures

    def _key(self) -> str:
        self.drawn += 1
        return f"chart{self.drawn}"

    def _legend(self, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
        used = set(names)
        return tuple((charts.swatch(self.index[n]), n) for n in self.index if n in used)

    def _score_charts(self, t: Analysis) -> Charts:
        out = []
        for c in t.grid.columns:
            points = {n: _point(0, x.mean, x.interval) for n in t.grid.rows if (x := t.grid.cell(n, c)) is not None}
            rows = [charts.Series(n, self.index[n], (p,)) for n, p in points.items()]
            if rows:
                out.append((c.name, charts.intervals(f"{c.name}: {c.metric}", rows, _head(c), self._key())))
        return Charts(tuple(out))

    def _average_chart(self, t: Analysis) -> Charts:
        rows = [
            charts.Series(n, self.index[n], (_point(0, a.value, a.interval),))
            for n, a in t.averages.items()
            if a.value is not None
        ]
        title = "Normalised average"
        drawn = charts.intervals(title, rows, f"0 is {self.scratch}, 1 is {self.oracle}", self._key(), (0, 1))
        return Charts(((title, drawn),))

    def _label_charts(self) -> tuple[Block, ...]:
        out: list[tuple[str, str]] = []
        used: set[str] = set()
        tables: list[Block] = []
        for (column, mode, parts), curves in label_curves(self.runs).items():
            c = self._column(column)
            series = [
                charts.Series(n, self.index[n], tuple(_point(x.images, x.mean, x.interval) for _, x in curves[n]))
                for n in self.index
                if n in curves
            ]
            title = f"{column}, {_mode(mode)}, {PARTS[parts]}"
            out.append((title, charts.lines(title, series, "labelled images", _head(c), self._key(), log_x=True)))
            used |= set(curves)
            budgets = dict.fromkeys(b for _, b in sorted((x.images, b) for v in curves.values() for b, x in v))
            rows = []
            for n in self.names:
                here = dict(curves.get(n, []))
                if here:
                    cells = [self._score(here[b], c, "", False) if b in here else Cell() for b in budgets]
                    rows.append((n, tuple(cells)))
            tables.append(Table(f"{title}: {_head(c)}", ("representation", *budgets), tuple(rows)))
        if not out:
            return ()
        return (Charts(tuple(out), self._legend(used)), Section("The same as tables", tuple(tables), folded=True))

    def _training_charts(self, g: Grid) -> list[Block]:
        """Validation score over steps at the chosen learning rate, and training loss, of one table."""
        if g.parts not in PARTS:
            return []
        out: list[tuple[str, str]] = []
        used: set[str] = set()
        for c in g.columns:
            runs = {n: g.runs.get((n, c.name), []) for n in self.index}
            steps = {n: points for n, here in runs.items() if (points := step_curve(here, g.parts))}
            where = f"{c.name}, {PARTS[g.parts]}"
            if any(len(points) > 1 for points in steps.values()):
                series = [charts.Series(n, self.index[n], _points(p)) for n, p in steps.items()]
                title = f"{where}: validation score at the chosen learning rate"
                label = f"{_head(c)} on validation images"
                out.append((title, charts.lines(title, series, "steps of training", label, self._key(), log_x=True)))
                used |= set(steps)
            losses = {n: curves for n, here in runs.items() if (curves := loss_curves(here, g.parts))}
            if losses:
                traces = [charts.Series(n, self.index[n], _points(x)) for n, curves in losses.items() for x in curves]
                title = f"{where}: training loss of every test's training"
                out.append((title, charts.lines(title, traces, "step", "loss", self._key(), log_y=True, dots=False)))
                used |= set(losses)
        return [Charts(tuple(out), self._legend(used))] if out else []

    def _read_pictures(self, most: int) -> tuple[Shown, list[str]]:
        """The pictures of every task, those of one file name together, and remarks on what is not there.

        Transfers that drew a picture for either kind of parts show the one that did better on validation images.
        """
        out: Shown = {}
        notes = []
        for c in self.columns if most else ():
            own = {n: self._own_pictures(n, c.name) for n in self.names}
            if len({len(files) for files in own.values() if files}) > 1:
                notes.append(f"Examples of {c.name}: runs drew different numbers, so one name may be different images.")
            for e in sorted({e for files in own.values() for e in files}, key=_natural)[:most]:
                for name, files in own.items():
                    if e not in files:
                        continue
                    if files[e].is_file():
                        out.setdefault(c.name, {}).setdefault(e, {})[name] = _picture(files[e])
                    else:
                        notes.append(f"A picture is not there and left out: {files[e]}.")
        return out, notes

    def _own_pictures(self, name: str, column: str) -> dict[str, Path]:
        """Name -> file of one representation's pictures of one task, from the first table that has any."""
        for t in self.tables:
            run = next((r for r in t.grid.runs.get((name, column), []) if r.examples), None)
            if run is None:
                continue
            better = [x.grid.cells.get((name, column)) for x in self.tables if x.grid.runs is t.grid.runs]
            parts = better[-1].parts if better[-1] else ""
            found: dict[str, Path] = {}
            for e in run.examples:
                of, dash, rest = PurePosixPath(e).name.partition("-")
                key = rest if dash and of in PARTS else PurePosixPath(e).name
                if key not in found or of == parts:
                    found[key] = run.file.parent / e
            return found
        return {}

    def _pictures(self) -> list[Block]:
        out: list[Block] = [Text("Each picture: the image, the truth, the prediction, from left to right.")]
        for column, files in self.pictures.items():
            first, *more = (
                Pictures(tuple((n, f"{n}, {column}, {e}", *found[n]) for n in self.names if n in found))
                for e, found in files.items()
            )
            folded = (Section(f"More of {column}", tuple(more), folded=True),) if more else ()
            out.append(Section(column, (first, *folded)))
        return out

    # ------------------------------------------------------------------------------------------ where it all came from

    def _compute(self) -> tuple[Block, ...]:
        rows = []
        for name in self.names:
            for s in spending([r for r in self.runs if r.name == name]):
                bold = "best" if s.name == "total" else ""
                numbers = (_amount(s.images), "" if s.flops is None else f"{s.flops:.3g}", _amount(s.seconds))
                rows.append((name, (Cell(s.name, (), bold), *(Cell(x, (), bold if x else "") for x in numbers))))
        return (
            Table(
                "What every arm cost: images that passed through the network, floating point operations and seconds. "
                "Not known is blank, and so is a total of which a part is not known. A pretraining or teacher that "
                "several transfers share counts once.",
                ("representation", "what", "images", "FLOPs", "seconds"),
                tuple(rows),
                (1,),
            ),
        )

    def _provenance(self) -> list[Block]:
        out: list[Block] = []
        failed = [(r, x, t) for r in self.runs for x in r.results for t in x.sweep if t.failed]
        if failed:
            rows = tuple(
                (
                    r.name,
                    (
                        *(Cell(s) for s in (r.downstream.name, r.budget, r.mode, PARTS[x.parts])),
                        Cell(", ".join(f"{k} {_plain(v)}" for k, v in t.at.items())),
                        Cell(_plain(t.seed)),
                        Cell(t.failed or ""),
                    ),
                )
                for r, x, t in failed
            )
            head = ("representation", "task", "labels", "mode", "parts", "tried", "seed", "reason")
            out.append(Table("Cells of sweeps that failed.", head, rows, (1, 2, 3, 4, 5, 7)))
        out.append(Section("What the sweeps chose", (self._chosen(),), folded=True))
        out.append(Section("Every other metric", tuple(self._others()), folded=True))
        out.append(Section("Downstream tasks", (self._tasks(),), folded=True))
        out.append(Section("Every run", (self._every_run(),), folded=True))
        return out

    def _chosen(self) -> Table:
        rows = []
        for r in self.runs:
            for x in r.results:
                d = self.decimals[r.downstream.name]
                validation = x.validation()
                metric = r.downstream.metric
                tests = ", ".join(f"{t.scores[metric]:.{d}f} ({t.seed})" for t in x.tests if metric in t.scores)
                cells = [r.downstream.name, r.budget, r.mode, PARTS[x.parts], _plain(r.pretraining_seed)]
                cells += [f"{len(x.sweep)}", ", ".join(f"{k} {_plain(v)}" for k, v in x.chosen.items())]
                cells += ["" if validation is None else f"{validation:.{d}f}", tests]
                rows.append((r.name, tuple(Cell(s) for s in cells)))
        head = ("task", "labels", "mode", "parts", "pretraining seed", "tried", "chosen", "validation", "tests (seed)")
        caption = "The sweep of every run: how many cells it tried, what it chose on validation images, and every test."
        return Table(caption, ("representation", *head), tuple(rows), (1, 2, 3, 4, 7, 9))

    def _others(self) -> list[Block]:
        out: list[Block] = []
        for c in self.columns:
            cells = [
                (n, t.grid, x)
                for t in self.tables
                if t.grid.parts in PARTS
                for n in t.grid.rows
                if (x := t.grid.cell(n, c)) is not None
            ]
            metrics = list(dict.fromkeys(m for _, _, x in cells for m in x.others))
            rows = tuple(
                (
                    n,
                    (
                        Cell(", ".join(s for s in (_mode(g.mode), g.budget, PARTS[g.parts]) if s)),
                        *(Cell(f"{x.others[m]:.4g}" if m in x.others else "") for m in metrics),
                    ),
                )
                for n, g, x in cells
            )
            if metrics:
                out.append(Table(f"{c.name}, mean of the tests", ("representation", "how", *metrics), rows, (1,)))
        return out or [Text("No run recorded another metric.")]

    def _tasks(self) -> Table:
        rows = []
        for c in self.columns:
            cells = [c.task, c.objective, c.metric, "higher" if c.higher_is_better else "lower", c.store]
            cells += [_amount(v) for v in (c.train_images, c.validation_images, c.test_images, c.classes)]
            rows.append((c.name, tuple(Cell(s) for s in [*cells, c.test_sha256[:16]])))
        head = ("task", "objective", "metric", "better", "store", "training", "validation", "test images", "classes")
        caption = "What the representations were tried on; the last column is the hash of the test images."
        return Table(caption, ("name", *head, "test sha256"), tuple(rows), (1, 2, 3, 4, 5, 10))

    def _every_run(self) -> Table:
        rows = []
        for r in self.runs:
            seeds = ", ".join(map(str, sorted({t.seed for x in r.results for t in x.tests})))
            cells = [r.downstream.name, r.budget, r.mode, r.init or "", (r.sha256 or "")[:16], r.backbone]
            cells += [_plain(r.pretraining_seed), seeds, r.date, r.version, r.machine, str(r.file), r.command]
            cells.append(r.pretraining_command or "")
            rows.append((r.name, tuple(Cell(s) for s in cells)))
        head = ("task", "labels", "mode", "weights", "sha256", "network", "pretraining seed", "seeds", "date")
        return Table(
            "Every transfer.json of this report, and the command that made it.",
            ("representation", *head, "polyteach", "machine", "file", "command", "pretraining command"),
            tuple(rows),
            (1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14),
        )

    # ---------------------------------------------------------------------------------------------------- the numbers

    def _column(self, name: str) -> Downstream:
        return next(c for c in self.columns if c.name == name)

    def numbers(self) -> dict[str, Any]:
        """Everything on the page as JSON; null where nothing was measured."""
        names = self.names
        return {
            "scratch": self.scratch,
            "oracle": self.oracle,
            "ours": self.ours,
            "representations": names,
            "downstream": [asdict(c) for c in self.columns],
            "in_short": self.in_short(),
            "notes": self.notes(),
            "tables": [self._table_numbers(t) for t in self.tables],
            "label_curves": [
                {
                    "downstream": column,
                    "mode": mode,
                    "parts": parts,
                    "curves": {n: [{"budget": b, **_cell_numbers(x)} for b, x in v] for n, v in curves.items()},
                }
                for (column, mode, parts), curves in label_curves(self.runs).items()
            ],
            "compute": {n: [asdict(s) for s in spending([r for r in self.runs if r.name == n])] for n in names},
            "runs": [_run_numbers(r) for r in self.runs],
        }

    def _table_numbers(self, t: Analysis) -> dict[str, Any]:
        g = t.grid
        names = [c.name for c in g.columns]
        best = {c.name: g.best(c, self.oracle) for c in g.columns}
        cells = {n: {c: _cell_numbers(x) if (x := g.cells.get((n, c))) else None for c in names} for n in g.rows}
        curves = {n: {c: step_curve(g.runs.get((n, c), []), g.parts) for c in names} for n in g.rows}
        matches = [
            {
                "against": m.against,
                "rivals": m.rival,
                "wins": m.count("win"),
                "ties": m.count("tie"),
                "losses": m.count("loss"),
                "undecided": m.count(None),
                "of": len(m.differences),
                "differences": {c: asdict(d) for c, d in m.differences.items()},
                "normalised_average": asdict(m.average) if m.average else None,
            }
            for m in t.matches
        ]
        return {
            "mode": g.mode,
            "ours": t.ours,
            "budget": g.budget or "main",
            "parts": g.parts,
            "cells": cells,
            "blanks": self._blanks(t),
            "best": {c: {"winner": winner, "ties": ties} for c, (winner, ties) in best.items()},
            "normalised": {n: {c: _normal_numbers(t.scale[n, c]) for c in names} for n in g.rows},
            "normalised_average": {n: _normal_numbers(t.averages[n]) for n in g.rows},
            "normalised_average_of_scored": {"tasks": t.scored} | {n: _normal_numbers(t.partial[n]) for n in g.rows},
            "wins": matches,
            "validation_by_steps": curves if g.parts in PARTS else {},
        }


def _cell_numbers(x: Pooled) -> dict[str, Any]:
    return {
        "mean": x.mean,
        "spread": x.spread,
        "interval": x.interval,
        "tests": x.values,
        "pretrainings": x.origins,
        "parts": x.parts,
        "validation": x.validation,
        "images": x.images,
        "other_metrics": x.others,
    }


def _normal_numbers(x: Normalised) -> dict[str, Any]:
    return {"value": x.value, "interval": x.interval, "why": x.why}


def _run_numbers(r: Run) -> dict[str, Any]:
    results = [
        {
            "parts": x.parts,
            "chosen": x.chosen,
            "sweep": [asdict(t) for t in x.sweep],
            "tests": [_test_numbers(t) for t in x.tests],
        }
        for x in r.results
    ]
    plain = (
        "date",
        "command",
        "machine",
        "pretraining_command",
        "name",
        "init",
        "backbone",
        "sha256",
        "pretraining_seed",
        "budget",
        "mode",
    )
    about = {"file": str(r.file), "polyteach": r.version} | {k: getattr(r, k) for k in plain}
    return about | {"downstream": r.downstream.name, "images": r.budget_images, "results": results}


def _test_numbers(t: Test) -> dict[str, Any]:
    about = {"seed": t.seed, "scores": t.scores, "drawn": t.drawn if len(t.resamples) else None}
    return about | {"curve": t.curve, "unreadable": t.unreadable}


# ------------------------------------------------------------------------------------------------------------- small


def _groups(pairs: Iterable[tuple[Any, str]]) -> dict[Any, list[str]]:
    """Names by what they have, each once."""
    out: dict[Any, list[str]] = {}
    for key, name in pairs:
        if name not in out.setdefault(key, []):
            out[key].append(name)
    return out


def _why(reasons: list[str], what: str = "Blank") -> list[Block]:
    return [Text(f"{what}: {'; '.join(dict.fromkeys(reasons))}.", quiet=True)] if reasons else []


def _won(ours: str, m: Match) -> str:
    """One match as a sentence."""
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
        apart = " ".join((f"{m.average.value:+z.3f}", *_interval(m.average.interval, 3)))
        whole = f"; its normalised average less the other's is {apart}"
    return f"Against {m.against}, {ours} {listed} of {_n(n, 'task')}{whole}."


def _reasons(t: Analysis) -> list[str]:
    """Why normalised scores, or their intervals, are blank; what every row shares is said once."""
    return [s.why for s in t.scale.values() if s.why] + [
        a.why for a in t.averages.values() if a.why and a.value is not None
    ]


def _mode(name: str) -> str:
    return MODES.get(name, name)


def _head(c: Downstream) -> str:
    return f"{c.name}, {c.metric}\u00a0{'↑' if c.higher_is_better else '↓'}"


def _rounded(value: float, decimals: int) -> str:
    """The number with these decimals; zero has no sign."""
    return f"{value:z.{decimals}f}"


def _interval(found: Interval | None, decimals: int) -> tuple[str, ...]:
    return () if found is None else (f"[{_rounded(found[0], decimals)}, {_rounded(found[1], decimals)}]",)


def _normal(x: Normalised) -> Cell:
    return Cell() if x.value is None else Cell(_rounded(x.value, 3), _interval(x.interval, 3))


def _difference(x: Difference | None, decimals: int) -> Cell:
    if x is None:
        return Cell()
    return Cell(
        " ".join((f"{x.value:+z.{decimals}f}", *([x.verdict] if x.verdict else []))), _interval(x.interval, decimals)
    )


def _point(x: Number, y: Number, found: Interval | None) -> charts.Point:
    return charts.Point(x, y, *(found or (None, None)))


def _points(pairs: Sequence[tuple[float, float]]) -> tuple[charts.Point, ...]:
    """At most 200 of the points, evenly chosen with both ends; report.json has all."""
    n = len(pairs)
    kept = pairs if n <= 200 else [pairs[round(i * (n - 1) / 199)] for i in range(200)]
    return tuple(charts.Point(x, y) for x, y in kept)


def _amount(value: Number | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _n(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _natural(name: str) -> list[Any]:
    """A key that sorts 2.png before 10.png."""
    return [(int(x), "") if x.isdigit() else (-1, x) for x in re.split(r"(\d+)", name)]


def _picture(file: Path) -> tuple[str, bytes]:
    """A picture's media type and bytes; a large one is shrunk, so that the page stays small.

    Raises:
        ValueError: not a picture.
    """
    from PIL import Image

    data = file.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=list(KINDS)) as image:
            image.load()
            kind = KINDS[str(image.format)]
            if len(data) > MOST_BYTES or image.width > MOST_WIDE:
                small = image.convert("RGB")
                small.thumbnail((MOST_WIDE, MOST_WIDE))
                packed = io.BytesIO()
                small.save(packed, "JPEG", quality=85)
                kind, data = "image/jpeg", packed.getvalue()
    except (OSError, SyntaxError, Image.DecompressionBombError) as e:
        raise ValueError(f"{file} (in examples of its transfer.json) is not a PNG, JPEG or WebP picture: {e}") from e
    return kind, data
