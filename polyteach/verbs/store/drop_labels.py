"""delete label sets"""

from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from polyteach.ground.options import grouped


@grouped
def drop_labels(store: Positional[str | Path], sets: Positional[Sequence[str]], *, yes: bool = False) -> None:
    """Delete label sets. Images and other sets stay as they are.

    Args:
        store: the store's folder, or its URL (docs/guide/objects.md).
        sets: which, by NAME or TASK/NAME.
        yes: do it; without it what would go is said, and nothing is done.

    Raises:
        ValueError: there is no such set, or `yes` is missing.

    Examples:
        polyteach store drop-labels store boxes-old --yes
    """
    from polyteach.curation.drop import drop

    drop(store, sets, yes)
