"""make teachers' probabilities as large as they are often right, by people's labels"""

from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from polyteach.ground.options import at_least, grouped, within


@grouped
def calibrate(
    store: Positional[str | Path],
    *,
    labels: Sequence[str] = (),
    split: Sequence[str] = (),
    score: float = 0.0,
    most: int = 5000,
    remove: bool = False,
) -> None:
    """Fit what makes a teacher's probabilities true, on images that people have labelled too, and keep it.

    Probabilities of classes and pixels get a temperature (Guo et al., ICML 2017), scores of boxes a temperature and a
    shift of their log-odds (Platt, 1999), by whether a box finds an object at an overlap of 0.5: people must have
    labelled all objects of these images. The store keeps of a pixel the probability of its class alone, so it is its
    odds against all others that are scaled. Fitted on one half of the images, told on the other; which half an image
    is in follows from its id. It is kept only where it makes the other half likelier.

    What is stored of the answers stays as it is. The calibration is kept beside them (calibration.json), and `polyteach
    train` applies it before its thresholds (not with --no-calibrated).

    Args:
        store: the store's folder, or its URL (docs/guide/objects.md).
        labels: the label sets, by NAME or TASK/NAME; all that can be without it.
        split: only images of these splits: those that the student is not tested on.
        score: answers of lower scores (before calibration) are no evidence. Of a detector most boxes are: fitted to
            all, it may serve those near the threshold worse than those far below it.
        most: images that are looked at, spread over the store.
        remove: take the calibrations away instead.

    Raises:
        ValueError: no such label set or split, too few labels of people, or answers without probabilities.

    Examples:
        polyteach store calibrate store --split val

        polyteach store calibrate store --labels boxes --score 0.2

        polyteach store calibrate store --labels boxes --remove
    """
    at_least(1, most=most)
    within(0, 1, score=score)
    from polyteach.store.folder import StoreFolder

    StoreFolder.open(store)  # a wrong folder is told before torch is imported

    from polyteach.curation.calibrate import calibrate_sets

    calibrate_sets(store, labels, split, score, most, remove)
