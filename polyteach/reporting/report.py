"""A report: the scores of many transfers as one page of tables, curves and images, as Markdown, and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polyteach.ground.files import read_json, replacing
from polyteach.ground.texts import say
from polyteach.reporting import examples, page, provenance, score_tables, sentences
from polyteach.reporting.blocks import Beside, Block, Points, Section, Text
from polyteach.reporting.charts import STYLE
from polyteach.reporting.compare import Analysis
from polyteach.reporting.curves import Curves
from polyteach.reporting.findings import Findings, find
from polyteach.reporting.formats import mode_name
from polyteach.reporting.markdown import markdown
from polyteach.reporting.numbers import numbers
from polyteach.reporting.results import PARTS, read
from polyteach.version import __version__

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
HOW = (
    "Every representation is a row, every downstream task a column. Learning rate and steps were chosen on validation "
    "images, for each representation and task alike; the test images were used once per seed. Intervals are about the "
    "test images (jackknife, paired, 95 %, not corrected for the number of comparisons; where many classes are seen in "
    "few images they are too narrow); the standard deviation is about seeds, and pretrainings where there are "
    "several."
)


@dataclass(frozen=True)
class Names:
    """Representations that a report treats in their own way: the ends of its scale, and who is compared with all."""

    scratch: str
    oracle: str
    ours: str | None


def write_report(runs: Sequence[str], folder: Path, names: Names, title: str, most: int) -> str:
    """Write report.html, report.md and report.json about every transfer.json at or below `runs`; see `verbs.report`.

    most: examples per downstream task.

    Returns:
        The path of report.html.

    Raises:
        ValueError: runs that cannot be read or compared, or a folder that is somebody else's.
    """
    _check_out(folder)
    if most < 0:
        raise ValueError(f"examples must be at least 0; got {most}")
    found = find(read(runs), names.scratch, names.oracle, names.ours)
    images, lost = examples.read_examples(found, most)
    notes = [*sentences.notes(found), *lost]
    blocks = _blocks(found, notes, images)
    about = {"verb": "report", "polyteach": __version__, "title": title, "examples": most}
    texts = {
        "report.json": json.dumps(about | numbers(found, notes), indent=1, allow_nan=False) + "\n",
        "report.md": markdown(title, blocks),
        "report.html": page.html(title, blocks, STYLE, f"polyteach {__version__}"),
    }
    for name in FILES:
        with replacing(folder / name) as temporary:
            temporary.write_text(texts[name], encoding="utf-8")
    say(f"{folder / 'report.html'}: the page; report.md and report.json say the same")
    return str(folder / "report.html")


def _check_out(folder: Path) -> None:
    """Refuse a folder that is another verb's, or that holds a report of somebody else."""
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


def _blocks(f: Findings, notes: list[str], images: examples.Examples) -> list[Block]:
    """Everything on the page, in order."""
    curves = Curves(f)
    main, rest = f.main, [t for t in f.tables if t not in f.main]
    found: list[Block] = [Text(sentences.summary(f)), Section("In short", (Points(tuple(sentences.in_short(f))),))]
    if notes:
        found.append(Section("Before you compare", (Points(tuple(notes)),)))
    results = tuple(_section(f, curves, t) for t in main) or (Text("Nothing was fine-tuned end to end."),)
    found.append(Section("Results", (Text(HOW), *results)))
    if labels := curves.labels():
        found.append(Section("Score over labels", labels))
    if training := [b for t in main for b in curves.training(t.grid)]:
        found.append(Section("Training", tuple(training)))
    if images:
        found.append(Section("Examples", examples.blocks(f, images)))
    found.append(Section("Compute", (provenance.compute(f),)))
    if rest:
        folded = tuple(_section(f, curves, t, folded=True) for t in rest)
        found.append(Section("Other modes and label budgets", folded))
    found.append(Section("How every number came about", provenance.provenance(f)))
    return found


def _section(f: Findings, curves: Curves, t: Analysis, folded: bool = False) -> Section:
    """One table and what follows from it; charts stand beside it unless it is folded, when they come last."""
    g = t.grid
    heading = PARTS.get(g.parts, "the better of the two, chosen on validation images")
    budget = f", {g.budget}" if g.budget else ""
    scores: list[Block] = [score_tables.scores(f, t)]
    if not folded:
        scores.append(curves.scores(t))
    blocks: list[Block] = [Beside(tuple(scores)), *_why("Blank", sentences.why_blank(t))]
    table = score_tables.normalised(f, t)
    scale: list[Block] = [table] if table else []
    if not folded and (average := curves.averages(t)):
        scale.append(average)
    if scale:
        blocks.append(Beside(tuple(scale)))
    blocks += _why("Blank" if table else "No normalised scores", sentences.why_not_normalised(t))
    if t.matches:
        blocks.append(score_tables.wins(f, t))
    if folded:
        blocks += curves.training(g)
    return Section(f"{mode_name(g.mode)}{budget}: {heading}".capitalize(), tuple(blocks), folded)


def _why(what: str, reasons: list[str]) -> list[Block]:
    return [Text(f"{what}: {'; '.join(dict.fromkeys(reasons))}.", quiet=True)] if reasons else []
