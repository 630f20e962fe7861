"""The label budget: which training images are used, by a share of them or a number of each class."""

import hashlib
from collections.abc import Collection, Mapping, Sequence


def ranked(ids: Sequence[str], salt: str) -> list[str]:
    """The ids in a random order that follows from salt and id alone, so that a new image does not move the others."""
    return sorted(ids, key=lambda i: hashlib.sha256(f"{salt}\0{i}".encode("utf-8", "backslashreplace")).digest())


def share(ids: Sequence[str], fraction: float, seed: int) -> list[str]:
    """This share of the ids, at least one; with one seed a smaller share lies inside a larger one."""
    return ranked(ids, str(seed))[: max(1, round(fraction * len(ids)))]


def few_per_class(classes: Mapping[str, Collection[int]], shots: int, seed: int) -> list[str]:
    """Images in a random order, each taken if it shows a class that has fewer than `shots` images so far.

    classes: those that every image shows.
    """
    counts: dict[int, int] = {}
    taken = []
    for id in ranked(list(classes), str(seed)):
        if any(counts.get(c, 0) < shots for c in classes[id]):
            taken.append(id)
            for c in classes[id]:
                counts[c] = counts.get(c, 0) + 1
    return taken
