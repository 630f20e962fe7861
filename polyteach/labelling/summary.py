"""What is told when a labelling ends: how much was labelled, and whether it is worth training on."""

import sys
from collections import Counter

from polyteach.ground.tables import table, width_of, wrapped
from polyteach.ground.texts import say
from polyteach.labelling.part import Team
from polyteach.loading.held import held, lines
from polyteach.loading.plan import idle_sets
from polyteach.store import FAILED, LabelSet
from polyteach.tasks.target import Policy

REASONS, LOOKED = 3, 1000
"""Of why images failed, how many reasons are told, and how many images are looked at."""


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
            empty.append(f"{name}: all {failed} images failed, the first with {next(iter(_failures(labels)[0]))!r}")
        rows.append([name, str(n), str(failed), [f"{k} {v:.3g}" for k, v in means.items()]])
    head = ("label set", "images", "failed", "mean over labelled images")
    say(*table(head, rows, width).split("\n"))
    for labels in team.sets:
        if reasons := _reasons(labels):
            say(*wrapped(f"{labels.task}/{labels.name}: {reasons}", width))
    _warn(team, score, width)
    _hold(team, score, width)
    if empty:
        raise ValueError("; ".join(empty) + ". Mend the cause, then run again with --retry")


def _failures(labels: LabelSet) -> tuple[Counter[str], dict[str, str]]:
    """Why images have no answer, in their order: how often each reason came, and its first image.

    Of at most `LOOKED` of them, so that it never takes long.
    """
    counted: Counter[str] = Counter()
    first: dict[str, str] = {}
    for part in labels.parts():
        failed = [i for i, state in enumerate(labels.states(part)) if state == FAILED][: LOOKED - counted.total()]
        ids = labels.store.ids(part) if failed else []
        for i, answer in zip(failed, labels.read(part, failed) if failed else (), strict=True):
            counted[str(answer)] += 1
            first.setdefault(str(answer), ids[i])
    return counted, first


def _reasons(labels: LabelSet) -> str:
    """Why images have no answer, the most frequent reason first, each with an image; "" where all have one."""
    counted, first = _failures(labels)
    if not counted:
        return ""
    told = "; ".join(f"{n:,} with {why!r}, such as {first[why]}" for why, n in counted.most_common(REASONS))
    more = f"; {len(counted) - REASONS:,} other reasons" if len(counted) > REASONS else ""
    return f"failed {told}{more}. Mend the cause, then run again with --retry"


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
