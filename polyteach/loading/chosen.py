"""Chosen: which label sets are asked for by name. It needs no torch, so that a wrong name is told at once."""

from collections.abc import Collection, Sequence

from polyteach.ground.names import unknown_name
from polyteach.store.folder import StoreFolder
from polyteach.store.label_folder import named_sets


def check_chosen(every: Collection[tuple[str, str]], tasks: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse names that no label set has. every: task and name of each set. labels: NAME or TASK/NAME.

    Raises:
        ValueError: an unknown task or label set; lists those there are.
    """
    names = {name for _, name in every}
    _known("task", tasks, {task for task, _ in every})
    _known("label set", labels, names | {f"{task}/{name}" for task, name in every}, names)


def only_task(store: StoreFolder, labels: str) -> str:
    """The one task whose label set is called so, by NAME or TASK/NAME.

    Raises:
        ValueError: none is, or those of several tasks are.
    """
    every = named_sets(store)
    found = [task for task, name in every if labels in (name, f"{task}/{name}")]
    if len(found) == 1:
        return found[0]
    if not found:
        raise unknown_name("label set", labels, [f"{task}/{name}" for task, name in every], f"{store.path} has")
    raise ValueError(f"{store.path} has label set {labels!r} for {', '.join(found)}; choose one with --task")


def _known(what: str, asked: Sequence[str], known: set[str], shown: set[str] | None = None) -> None:
    unknown = [a for a in asked if a not in known]
    if unknown:
        raise unknown_name(what, unknown[0], sorted(shown or known), "the stores have")
