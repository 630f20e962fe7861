"""Chosen: which label sets are asked for by name. It needs no torch, so that a wrong name is told at once."""

from collections.abc import Collection, Sequence

from polyteach.ground.names import unknown_name


def check_chosen(every: Collection[tuple[str, str]], tasks: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse names that no label set has. every: task and name of each set. labels: NAME or TASK/NAME.

    Raises:
        ValueError: an unknown task or label set; lists those there are.
    """
    names = {name for _, name in every}
    _known("task", tasks, {task for task, _ in every})
    _known("label set", labels, names | {f"{task}/{name}" for task, name in every}, names)


def _known(what: str, asked: Sequence[str], known: set[str], shown: set[str] | None = None) -> None:
    unknown = [a for a in asked if a not in known]
    if unknown:
        raise unknown_name(what, unknown[0], sorted(shown or known), "the stores have")
