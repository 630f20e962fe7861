"""a run, a label set or a teacher + people's labels -> scores, without training"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from polyteach.evaluation.options import Judging
from polyteach.ground.limits import Limits
from polyteach.ground.options import grouped, listed
from polyteach.labelling.options import Predicting


@grouped
def evaluate(
    what: tyro.conf.Positional[str | Path],
    store: tyro.conf.Positional[str | Path],
    *,
    rivals: Sequence[str | Path] = (),
    out: str | Path | None = None,
    judging: Judging = Judging(),
    predicting: Predicting = Predicting(),
    limits: Limits = Limits(),
    progress: bool = True,
) -> dict[str, Any]:
    """Hold the answers of a run, a label set or any teacher against people's labels of the same images.

    Nothing is trained, and nothing is written into the store. What is compared follows from tasks and class names, in
    any order; classes that only one side has are told, and left out. Every score has a 95 % interval over other images
    (by the jackknife), and what a constant answer would have scored beside it. Rivals are asked about the same images,
    and compared in pairs. Answers that look broken are warned of.

    Into `out` go evaluate.json (all numbers, and what they are of), evaluate.md (the same as tables), and worst/: the
    worst images, each with what is right in the middle and what was answered on its right.

    Args:
        what: what is evaluated: the folder of a run, TASK/NAME (or NAME) of a label set of the store, or a teacher,
            FAMILY:NAME.
        store: the store with people's labels, a folder or a URL.
        rivals: others to evaluate beside it, named as `what`.
        out: where to write; nothing is written without it. Must not exist.
        progress: show a progress bar.

    Returns:
        What evaluate.json holds.

    Raises:
        ValueError: nothing to evaluate or to hold it against, nothing in common, no image, or `out` exists.

    Examples:
        polyteach evaluate run store --split test

        polyteach evaluate detection/boxes store --out boxes-against-people

        polyteach evaluate run store --rivals timm:resnet50 classification/classes --limit 1000 --json > scores.json
    """
    from polyteach.evaluation.start import start_evaluate

    return start_evaluate([str(what), *listed(rivals)], str(store), out, judging, predicting, limits, progress)
