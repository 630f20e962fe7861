"""Which images are looked at: those that are labelled, of some splits, all or a random sample."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from polyteach.evaluation.options import Judging
from polyteach.loading.plan import no_split
from polyteach.store import LABELLED, ROW_GROUP, LabelSet, Store


@dataclass(frozen=True)
class Chosen:
    """The images, by part. rows: their positions, ascending. labelled: of each, by number of the label set, whether it
    has an answer. of: how many there were to choose from.
    """

    rows: dict[int, Int[np.ndarray, " N"]]
    labelled: dict[int, Bool[np.ndarray, "L N"]]
    of: int

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows.values())

    def count(self, number: int) -> int:
        """How many of them that label set labels."""
        return sum(int(known[number].sum()) for known in self.labelled.values())

    def groups(self) -> Iterator[tuple[int, list[int], Bool[np.ndarray, "L N"]]]:
        """Part, positions and `labelled` of images that are read together."""
        for part, rows in self.rows.items():
            for group in np.unique(rows // ROW_GROUP):
                mine = rows // ROW_GROUP == group
                yield part, rows[mine].tolist(), self.labelled[part][:, mine]


def choose(store: Store, truths: Sequence[LabelSet], judging: Judging) -> Chosen:
    """The images that at least one of the label sets labels, of the splits that are asked for, at most `limit`.

    Raises:
        ValueError: a split that no image has, or no image that is labelled.
    """
    splits = store.splits() if judging.split else None
    if splits is not None:
        there = {s for p in store.parts() for s in splits.values(p)}
        for one in judging.split:
            if one not in there:
                raise no_split(one, there)
    states = [labels.every_state() for labels in truths]
    found = {}
    for part in store.parts():
        size = store.count(part)
        known = np.zeros((len(truths), size), dtype=bool)
        for i, labels in enumerate(truths):
            if labels.has(part):
                mine = states[i].among(part, (LABELLED,))
                if len(mine) != size:
                    raise ValueError(f"{labels.path}: part {part} has {len(mine)} rows for {size} images")
                known[i] = mine
        some = known.any(0) if splits is None else known.any(0) & splits.among(part, judging.split)
        found[part] = (np.flatnonzero(some), known)
    total = sum(len(rows) for rows, _ in found.values())
    if not total:
        names = ", ".join(f"{s.task}/{s.name}" for s in truths)
        where = f" of split {', '.join(judging.split)}" if judging.split else ""
        raise ValueError(f"{names} labels no image{where} of {store.path}")
    kept = np.ones(total, dtype=bool)
    if judging.limit is not None and judging.limit < total:
        kept[np.random.default_rng(judging.seed).permutation(total)[judging.limit :]] = False
    rows, labelled, first = {}, {}, 0
    for part, (mine, known) in found.items():
        chosen = mine[kept[first : first + len(mine)]]
        first += len(mine)
        if len(chosen):
            rows[part], labelled[part] = chosen, known[:, chosen]
    return Chosen(rows, labelled, total)
