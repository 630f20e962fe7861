"""student + a downstream store -> scores, by one protocol for every rival"""

from pathlib import Path

import tyro

from polyteach.ground.limits import Limits
from polyteach.ground.options import Views, grouped
from polyteach.training.options import FineTuning, TrainingHardware
from polyteach.transferring.options import Budget, Downstream, Given, Representation, Scoring, Sweep, Training


@grouped
def transfer(
    store: tyro.conf.Positional[str | Path],
    *,
    out: str | Path,
    representation: Representation = Representation(),
    downstream_set: Downstream = Downstream(),
    limits: Limits = Limits(),
    sweep: Sweep = Sweep(),
    budget: Budget = Budget(),
    training: Training = Training(),
    tuning: FineTuning = FineTuning(),
    views: Views = Views(),
    scoring: Scoring = Scoring(),
    hardware: TrainingHardware = TrainingHardware(),
    progress: bool = True,
) -> str:
    """Fine-tune a representation on one labelled downstream task, and score it on images it has not seen.

    Every representation gets the same network, images and sweep. With the first seed, each learning rate is tried
    with each number of steps; the best on validation is trained with the other seeds, and each of those is scored on
    the test images once. A representation is scored with its backbone alone, and with backbone and pyramid where its
    pyramid was trained; heads are always new.

    Into `out` go cells/ (one folder per trained network), examples/ (image, truth, prediction) and at last
    transfer.json, which `polyteach report` reads. A transfer that was stopped goes on when the same command is given
    again: no finished cell is trained twice. A finished one takes up further seeds.

    Args:
        store: the downstream store, a folder or a URL (docs/guide/objects.md), with people's labels and splits.
        out: folder of the result.
        progress: show progress.

    Returns:
        The folder of the result.

    Raises:
        ValueError: what was given does not exist or does not fit, or `out` holds another transfer.
        BlockingIOError: another process works in `out`.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint.

    Examples:
        polyteach transfer voc --init run --protocol voc-detection --out scores/student-voc

        polyteach transfer voc --protocol voc-detection --out scores/scratch-voc

        polyteach transfer store --init run --out scores/few --shots 10 --seeds 0 1 2 3 4 --lrs 0.01 --steps 500 2000

        polyteach transfer store --init run --mode knn --out scores/knn
    """
    from polyteach.transferring.record import prepare

    about = (representation, downstream_set, limits, sweep, budget, training, views, scoring, hardware)
    given = Given(str(store), str(out), *about, progress, tuning)
    setup = prepare(given)  # what is wrong is said before torch is imported
    from polyteach.transferring.transfer import run

    return run(setup, given.of_training())
