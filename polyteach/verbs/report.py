"""scores of many transfers -> one page of tables, curves and images"""

from pathlib import Path

from polyteach.ground.options import Paths, grouped, listed


@grouped
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
        examples: images per downstream task.

    Returns:
        The path of report.html.

    Raises:
        ValueError: no transfer.json, a broken one, two of the same test, or scores that cannot be compared because
            their test sets differ; `out` is another verb's folder, or holds a report.html of somebody else.

    Examples:
        polyteach report transfers/ --out report

        polyteach report transfers/ more/ --out report --ours student-large --oracle ""
    """
    from polyteach.reporting.report import Names, write_report

    return write_report(listed(runs), Path(out), Names(scratch, oracle, ours), title, examples)
