"""What is told when a labelling ends: how much was labelled, and whether it is worth training on."""

import sys

from polyteach.ground.tables import table, width_of, wrapped
from polyteach.ground.texts import say
from polyteach.labelling.part import Team
from polyteach.loading.held import held, lines
from polyteach.loading.plan import idle_sets
from polyteach.store import LabelSet
from polyteach.tasks.target import Policy


def summarise(team: Team, score: float) -> None:
    """Say how many images each label set labels, how well at that score, and what is odd about it.

    Raises:
        ValueError: a label set has no answer for any image; gives the first reason.
    """
    width = width_of(sys.stderr)
    empty = []
    rows: list[list[str | list[str]]] = []
    for labels in team.sets:
        n, failed, means = labels.statistics(score)
        name = f"{labels.task}/{labels.name}"
        if failed and not n:
            reason = next(a for p in labels.parts() for a in labels.read(p) if isinstance(a, str))
            empty.append(f"{name}: all {failed} images failed, the first with {reason!r}")
        rows.append([name, str(n), str(failed), [f"{k} {v:.3g}" for k, v in means.items()]])
    head = ("label set", "images", "failed", "mean over labelled images")
    say(*table(head, rows, width).split("\n"))
    _warn(team, score, width)
    _hold(team, score, width)
    if empty:
        raise ValueError("; ".join(empty) + ". Mend the cause, then run again with --retry")


def _warn(team: Team, score: float, width: int) -> None:
    idle: dict[tuple[str, str], str] = {}
    try:
        idle = idle_sets(team.store)
    except ValueError as e:  # another set of the store, which is not this labelling's business
        say(f"which of the store's labels would be learned cannot be told: {e}")
    for labels in team.sets:
        if lines := _doubts(labels, idle, score, width):
            say(*lines)


def _hold(team: Team, score: float, width: int) -> None:
    """Say how what was labelled holds against people's labels, where there are any of the same images."""
    try:
        every = team.store.sets()
        for labels in team.sets:
            for found in held(labels, every, score):
                say("", *lines(found, width))
    except ValueError as e:  # another set of the store, which is not this labelling's business
        say(f"how the labels hold against people's cannot be told: {e}")


def _doubts(labels: LabelSet, idle: dict[tuple[str, str], str], score: float, width: int) -> list[str]:
    name, lines = f"WARNING: {labels.task}/{labels.name}", []
    if why := idle.get((labels.task, labels.name)):
        lines += wrapped(f"{name} {why}", width)
    if doubt := labels.doubt(Policy(score=score)):
        lines += wrapped(f"{name} can teach hardly anything: {doubt}", width)
    return lines
