"""Checking: what it costs that every target that training reads is checked by the rule of `polyteach store check`."""

import time
from pathlib import Path
from unittest import mock

import torch
from harness import Row, alone, interleaved
from reading import BATCH, samples
from worlds import rendered

from polyteach.loading.transport import batches
from polyteach.store import LabelSet, Store, masks
from polyteach.tasks import all_tasks


def checked(store: Store, size: int, tasks: tuple[str, ...], count: int) -> float:
    """Images a second of the processor's time, which others on the machine do not take."""
    stream = samples(store, size, tasks)
    start = time.process_time()
    for _ in batches(stream, BATCH, 0, count // BATCH):
        pass
    return count / (time.process_time() - start)


def unchecked(store: Store, size: int, tasks: tuple[str, ...], count: int) -> float:
    """As `checked`, of targets that are decoded and believed."""
    with (
        mock.patch.object(LabelSet, "fitted", lambda self, table, images: self.answers(table)),
        mock.patch.object(masks, "check_runs", return_value=None),
    ):
        return checked(store, size, tasks, count)


def checking(folder: Path, quick: bool) -> list[Row]:
    """A sample of training (picture of 512 px, its target, a view of 256 px), with the check and without."""
    torch.set_num_threads(1)
    count, turns = (BATCH, 5) if quick else (2 * BATCH, 15)
    store = rendered(folder / "rendered", count, 512)
    rows = []
    for name, tasks in [*((task, (task,)) for task in all_tasks()), ("all five", ())]:
        given = (store, 256, tasks, count)
        ways = {"checked": lambda g=given: checked(*g), "unchecked": lambda g=given: unchecked(*g)}
        # the best of each, as the difference is smaller than what other programs do to single turns
        m = {way: max(figures) for way, figures in interleaved(ways, turns).items()}
        title = "checking, rendered, 512 px seen at 256"
        rows.append(Row(title, f"{name}, checked against believed", m["checked"], m["unchecked"], "images/s", 0.97))
    return rows


if __name__ == "__main__":
    alone(checking, "checking")
