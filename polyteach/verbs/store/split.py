"""divide the images into training, validation and test"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from polyteach.ground.options import by_name, grouped, numbers_by_name


def _fractions(given: Sequence[str]) -> dict[str, float]:
    words = [w for several in given for w in several.split(",") if w]
    return numbers_by_name(words, "{word} is not NAME=FRACTION, such as train=0.8", "the split {name} is given twice")


_Fractions = Annotated[Mapping[str, float], by_name(_fractions, "NAME=FRACTION ...")]


@grouped
def split(
    store: Positional[str | Path],
    *,
    fractions: _Fractions,
    seed: int = 0,
    group: str | None = None,
    groups: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, int]:
    """Divide a store into splits, such as training, validation and test, and say how many images each class has there.

    An image's split follows from its id and the seed, by a hash: images that are added later (in a store that is made
    anew, or merged) never move the others. So the fractions are met about, not exactly. Images that show the same,
    such as frames of a video or views of one object, belong in one split: say with `group` or `groups` what is kept
    together. The image parts are written anew, one by one (with the images, where those are embedded); one that was
    stopped goes on when the same command is given again.

    Args:
        store: the store's folder, or its URL (docs/guide/objects.md).
        fractions: of the images, by split: train=0.8 val=0.1 test=0.1. They add up to 1.
        seed: another one divides otherwise.
        group: a regular expression that is searched in each id; images for which what it finds in round brackets is
            the same are kept together: by '(.*)_' cat_1.jpg and cat_2.jpg, by '^([^/]*)/' what is in one folder.
        groups: a CSV or Parquet file with the columns id and group, instead.
        overwrite: replace the splits that the store has.
        progress: show a progress bar.

    Returns:
        Images by split.

    Raises:
        ValueError: the store has splits, fractions do not add up to 1, a split would be empty, or an image is in no
            group.

    Examples:
        polyteach store split store --fractions train=0.8 val=0.1 test=0.1

        polyteach store split store --fractions train=0.9 test=0.1 --group '(.*)_' --overwrite

        polyteach store split store --fractions train=0.8 test=0.2 --groups patients.csv
    """
    from polyteach.store.folder import StoreFolder

    StoreFolder.open(store, divided=False)  # a wrong folder is told before torch is imported

    from polyteach.curation.split import divide_and_tell

    return divide_and_tell(store, fractions, seed, group, groups, overwrite, progress)
