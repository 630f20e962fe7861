"""Where every number came from: what each arm cost, what the sweeps chose, and the runs themselves."""

from polyteach.reporting.blocks import Block, Cell, Section, Table, Text
from polyteach.reporting.compare import spending
from polyteach.reporting.findings import Findings
from polyteach.reporting.formats import amount, mode_name, plain
from polyteach.reporting.results import PARTS, Downstream


def compute(f: Findings) -> Table:
    """What every representation cost."""
    rows = []
    for name in f.names:
        for s in spending([r for r in f.runs if r.name == name]):
            bold = "best" if s.name == "total" else ""
            numbers = (amount(s.images), "" if s.flops is None else f"{s.flops:.3g}", amount(s.seconds))
            rows.append((name, (Cell(s.name, (), bold), *(Cell(x, (), bold if x else "") for x in numbers))))
    return Table(
        "What every arm cost: images that passed through the network, floating point operations and seconds. "
        "Not known is blank, and so is a total of which a part is not known. A pretraining or teacher that "
        "several transfers share counts once.",
        ("representation", "what", "images", "FLOPs", "seconds"),
        tuple(rows),
        (1,),
    )


def provenance(f: Findings) -> tuple[Block, ...]:
    """How every number came about."""
    failed = _failed(f)
    return (
        *((failed,) if failed else ()),
        Section("What the sweeps chose", (_chosen(f),), folded=True),
        Section("Every other metric", _other_metrics(f), folded=True),
        Section("Downstream tasks", (_tasks(f),), folded=True),
        Section("Every run", (_runs(f),), folded=True),
    )


def _failed(f: Findings) -> Table | None:
    """The cells of sweeps that failed, where any did."""
    rows = []
    failed = [(r, x, t) for r in f.runs for x in r.results for t in x.sweep if t.failed]
    for r, x, t in failed:
        tried = ", ".join(f"{k} {plain(v)}" for k, v in t.at.items())
        cells = (r.downstream.name, r.budget, r.mode, PARTS[x.parts], tried, plain(t.seed), t.failed or "")
        rows.append((r.name, tuple(map(Cell, cells))))
    if not rows:
        return None
    head = ("representation", "task", "labels", "mode", "parts", "tried", "seed", "reason")
    return Table("Cells of sweeps that failed.", head, tuple(rows), (1, 2, 3, 4, 5, 7))


def _chosen(f: Findings) -> Table:
    rows = []
    for r in f.runs:
        for x in r.results:
            d = f.decimals[r.downstream.name]
            validation = x.validation()
            metric = r.downstream.metric
            tests = ", ".join(f"{t.scores[metric]:.{d}f} ({t.seed})" for t in x.tests if metric in t.scores)
            cells = [r.downstream.name, r.budget, r.mode, PARTS[x.parts], plain(r.pretraining_seed)]
            cells += [f"{len(x.sweep)}", ", ".join(f"{k} {plain(v)}" for k, v in x.chosen.items())]
            cells += ["" if validation is None else f"{validation:.{d}f}", tests]
            rows.append((r.name, tuple(map(Cell, cells))))
    head = ("task", "labels", "mode", "parts", "pretraining seed", "tried", "chosen", "validation", "tests (seed)")
    caption = "The sweep of every run: how many cells it tried, what it chose on validation images, and every test."
    return Table(caption, ("representation", *head), tuple(rows), (1, 2, 3, 4, 7, 9))


def _other_metrics(f: Findings) -> tuple[Block, ...]:
    tables = [table for c in f.columns if (table := _metrics_of(f, c)) is not None]
    return tuple(tables) or (Text("No run recorded another metric."),)


def _metrics_of(f: Findings, c: Downstream) -> Table | None:
    """Every metric of one task but the one that decides."""
    cells = [
        (n, t.grid, x)
        for t in f.tables
        if t.grid.parts in PARTS
        for n in t.grid.rows
        if (x := t.grid.cell(n, c)) is not None
    ]
    metrics = list(dict.fromkeys(m for _, _, x in cells for m in x.others))
    if not metrics:
        return None
    rows = []
    for n, g, x in cells:
        how = ", ".join(s for s in (mode_name(g.mode), g.budget, PARTS[g.parts]) if s)
        found = (f"{x.others[m]:.4g}" if m in x.others else "" for m in metrics)
        rows.append((n, tuple(map(Cell, (how, *found)))))
    return Table(f"{c.name}, mean of the tests", ("representation", "how", *metrics), tuple(rows), (1,))


def _tasks(f: Findings) -> Table:
    rows = []
    for c in f.columns:
        cells = [c.task, c.objective, c.metric, "higher" if c.higher_is_better else "lower", c.store]
        cells += [amount(v) for v in (c.train_images, c.validation_images, c.test_images, c.classes)]
        rows.append((c.name, tuple(map(Cell, [*cells, c.test_sha256[:16]]))))
    head = ("task", "objective", "metric", "better", "store", "training", "validation", "test images", "classes")
    caption = "What the representations were tried on; the last column is the hash of the test images."
    return Table(caption, ("name", *head, "test sha256"), tuple(rows), (1, 2, 3, 4, 5, 10))


def _runs(f: Findings) -> Table:
    rows = []
    for r in f.runs:
        seeds = ", ".join(map(str, sorted({t.seed for x in r.results for t in x.tests})))
        cells = [r.downstream.name, r.budget, r.mode, r.init or "", (r.sha256 or "")[:16], r.backbone]
        cells += [plain(r.pretraining_seed), seeds, r.date, r.version, r.machine, str(r.file), r.command]
        cells.append(r.pretraining_command or "")
        rows.append((r.name, tuple(map(Cell, cells))))
    head = ("task", "labels", "mode", "weights", "sha256", "network", "pretraining seed", "seeds", "date")
    return Table(
        "Every transfer.json of this report, and the command that made it.",
        ("representation", *head, "polyteach", "machine", "file", "command", "pretraining command"),
        tuple(rows),
        (1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14),
    )
