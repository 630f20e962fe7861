"""Delete label sets of a store."""

import sys
from collections.abc import Sequence
from pathlib import Path

from polyteach.ground.names import unknown_name
from polyteach.ground.storage import total
from polyteach.ground.texts import say
from polyteach.store.folder import StoreFolder
from polyteach.store.label_folder import LabelFolder, every_set


def drop(store: str | Path, sets: Sequence[str], yes: bool) -> None:
    """Delete label sets of the store at a path, by NAME or TASK/NAME; without `yes` only say which.

    Raises:
        ValueError: there is no such set, or `yes` is missing.
    """
    opened = StoreFolder.open(store)
    have = [LabelFolder(opened, task, name) for task, name in every_set(opened)]
    if not sets:
        known = ", ".join(f"{s.task}/{s.name}" for s in have) or "none"
        raise ValueError(f"no label set given; say which to delete. {store} has {known}")
    for name in sets:
        if not any(name in (s.name, f"{s.task}/{s.name}") for s in have):
            raise unknown_name("label set", name, [f"{s.task}/{s.name}" for s in have], f"{store} has")
    going = [s for s in have if {s.name, f"{s.task}/{s.name}"} & set(sets)]
    for labels in going:
        say(
            f"{labels.task}/{labels.name}: {len(labels.parts())} parts, {total(labels.path, '*'):,} bytes",
            stream=sys.stdout,
        )
    if not yes:
        raise ValueError("nothing was deleted; add --yes to delete these")
    for labels in going:
        labels.delete()
