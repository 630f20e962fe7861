"""Teachers that are asked with the answers of another: whose answers they are, and who comes first."""

from collections.abc import Collection, Mapping

from polyteach.ground.names import unknown_name
from polyteach.store.folder import StoreFolder
from polyteach.store.label_folder import LabelFolder

Key = tuple[str, str]
"""Task and name of a label set."""


def in_order(needs: Mapping[str, Key | None], kept: Collection[Key]) -> dict[str, str | None]:
    """The teachers in an order in which each comes after the one whose answers it needs, else as they were given.

    needs: by teacher, the label set whose answers it is asked with. kept: the store's label sets.

    Returns:
        By teacher, the one of them that answers what it needs; None where the store does, or where it needs nothing.

    Raises:
        ValueError: there is no such label set, or teachers need one another's answers.
    """
    waiting = {name: None if need is None else _maker(name, need, needs, kept) for name, need in needs.items()}
    out: dict[str, str | None] = {}
    while waiting:
        ready = [name for name, maker in waiting.items() if maker not in waiting]
        if not ready:
            circle = "; ".join(f"{name} needs {maker}" for name, maker in waiting.items())
            raise ValueError(f"teachers wait for one another's answers: {circle}. One of them has to go without")
        for name in ready:
            out[name] = waiting.pop(name)
    return out


def _maker(name: str, need: Key, teachers: Collection[str], kept: Collection[Key]) -> str | None:
    """The teacher of which `name` needs the answers; None where the store has them."""
    task, source = need
    if source in teachers:
        return source
    if need in kept:
        return None
    others = [t for t in teachers if t != name]
    # a teacher that answers one task twice has a set NAME-OBJECTIVE for each
    if makers := [t for t in others if source.startswith(f"{t}-")]:
        return makers[0]
    if wrong := sorted(t for t, n in kept if n == source):
        raise ValueError(
            f"teacher {name!r} is to be given the {task} of {source!r}, which is a label set of {', '.join(wrong)}"
        )
    raise unknown_name(
        f"source of teacher {name!r}:",
        source,
        [*others, *sorted(n for t, n in kept if t == task)],
        f"teachers of this command and label sets of {task} are",
    )


def check_whole(name: str, source: LabelFolder, store: StoreFolder) -> None:
    """Refuse a label set of the store that is not there for all parts: what it lacks would be taken for no answer.

    name: the teacher that needs it.

    Raises:
        ValueError: says how many parts it lacks.
    """
    parts = store.parts()
    lacks = len(set(parts) - set(source.parts()))
    if lacks:
        raise ValueError(
            f"teacher {name!r} is to be given {source.task}/{source.name}, which lacks {lacks} of the store's "
            f"{len(parts)} parts; label them first, or name its teacher in this command too"
        )
