"""the whole method on real photographs with real packaged teachers"""

from pathlib import Path
from typing import Any

from polyteach.ground.options import grouped


@grouped
def demo(
    *,
    out: str,
    photos: str | None = None,
    debian: bool = True,
    limit: int = 400,
    steps: int = 800,
    rows: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Label photographs with real pretrained teachers, train a small student on the labels, and show what it learned.

    Nothing is downloaded but packages: the models and some photographs come with `pip install 'polyteach[demo]'`; 278
    more photographs come from the Debian package gcompris-qt-data where `apt-get download` works (no root needed).
    A fifth of the photographs is held out: the student never sees them, and is compared on them with its teachers.
    On two cores it takes less than ten minutes, most of them for the training.

    Into `out` go photos/ (copies of at most 384 pixels a side), store/ and heldout/ (label stores), student/ (the run),
    sheet.png (photograph, each teacher's label and the student's prediction, side by side) and report.json, which is
    written last. A demo that was stopped goes on when the same command is given again.

    Args:
        out: where to write. A finished demo is not overwritten.
        photos: a folder of your own photographs instead of the packaged ones.
        debian: also take the photographs of the Debian package.
        limit: at most so many photographs, spread evenly over the sources.
        steps: of the student's training.
        rows: photographs on the contact sheet.
        seed: of the student.
        progress: show progress.

    Returns:
        What report.json says.

    Raises:
        ValueError: the demo is finished already, packages are missing, or there are too few photographs.

    Examples:
        polyteach demo --out demo

        polyteach demo --out mine --photos ~/pictures --steps 1600
    """
    from polyteach.demonstration.plan import Plan

    plan = Plan(Path(out), photos, debian, limit, steps, rows, seed)
    plan.begin()

    from polyteach.demonstration.run import run

    return run(plan, progress)
