"""Held: how a teacher's labels hold against people's, on the images that both have labelled."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from polyteach.ground.tables import table, wrapped
from polyteach.loading.objectives import Common, Named, common
from polyteach.loading.plan import no_split
from polyteach.store import LABELLED, ROW_GROUP, LabelSet
from polyteach.tasks import load_task
from polyteach.tasks.contract import Agreement
from polyteach.tasks.target import Policy, Space, Target

MOST = 1000
"""Images that are compared, at most: some seconds of maps."""
RUN = 8
"""Images that are taken one after the other: fewer files are read, and a store that is sorted is seen all over."""
SHOWN = 4
"""Worst classes that are told, and as many of the best."""


def held(labels: LabelSet, sets: Sequence[LabelSet], score: float, most: int = MOST) -> list[dict[str, Any]]:
    """How pseudo labels of that score hold against each of people's sets of the task among `sets` of the same store.

    Nothing of those that label no image in common, or whose classes have no name in common, or whose kinds cannot be
    compared. most: images that are looked at; of more, runs of `RUN` are taken evenly from all that both label, always
    the same ones.

    Returns:
        JSON values of each: set, people (TASK/NAME), images that were compared, of how many that both label, score,
        shared (how many classes both have, null where all are), and of `Agreement` counted, overall, classes by name
        (objects and scores), ranked and note. A score of nothing is null, as is the threshold of a task without one.

    Raises:
        ValueError: a part is broken, or a target is unfit; names the file.
    """
    people = [s for s in sets if s.by_people and s.task == labels.task] if not labels.by_people else []
    found = [_held(labels, one, score, most) for one in people]
    return [one for one in found if one is not None]


def _held(labels: LabelSet, people: LabelSet, score: float, most: int) -> dict[str, Any] | None:
    task, shared = load_task(labels.task), common(people, labels)
    if shared is None or not (shared.whole or task.compares_some):
        return None
    space = Space(shared.names, labels.space.kind)
    both = Both(labels, people)
    comparison, images = task.comparison(space), 0
    for _, answer, truth in both.pairs(most):
        true: Target | None = truth
        if task.joint_kind({labels.space.kind, people.space.kind}) is None:
            true = task.likened(truth, people.space, labels.space.kind)
        if true is None:
            return None
        policy = Policy(score=score, confidence=True)  # with their scores, by which boxes are matched
        said = task.pseudo(labels.calibrated(answer, policy), policy)
        comparison.update([mapped(said, labels, shared, 1)], [mapped(true, people, shared, 0)])
        images += 1
    if not images:
        return None
    about = {
        "set": f"{labels.task}/{labels.name}", "people": f"{people.task}/{people.name}",
        "images": images, "of": both.images, "score": score if task.by_score else None,
        "shared": None if shared.whole else len(shared.names),
    }  # fmt: skip
    return about | _values(comparison.agreement(), shared.names)


def _values(found: Agreement, names: Sequence[str]) -> dict[str, Any]:
    rows = {names[i]: {"objects": found.objects[i]} | _known(s) for i, s in found.classes.items()}
    about = {"ranked": found.ranked, "note": found.note}
    return {"counted": dict(found.counted), "overall": _known(found.overall), "classes": rows} | about


def mapped(target: Target, of: Named, shared: Common, which: int) -> Target:
    """A target with the indices of the common classes; the next one for those that only one of both has."""
    index = shared.index[which]
    if index == tuple(range(len(shared.names))):
        return target
    classes = len(shared.names) + (not shared.whole)
    moved: Target = load_task(of.task).mapped(target, torch.tensor(index), classes)
    return moved


class Both:
    """The images that two label sets of a store both label.

    split: only images of these splits; all when empty. images: how many they are.

    Raises:
        ValueError: a split that no image has; lists what there is.
    """

    def __init__(self, labels: LabelSet, people: LabelSet, split: Sequence[str] = ()) -> None:
        self.sets, self.split = (labels, people), tuple(split)
        self._states = tuple(s.every_state() for s in self.sets)
        self._splits = labels.store.splits() if split else None
        there = {s for p in labels.store.parts() for s in self._splits.values(p)} if self._splits else set(split)
        for one in self.split:
            if one not in there:
                raise no_split(one, there)
        parts = sorted(set(labels.parts()) & set(people.parts()))
        self._counts = {part: len(self._rows(part)) for part in parts}
        self.images = sum(self._counts.values())

    def _rows(self, part: int) -> Int[np.ndarray, " N"]:
        one, other = (states.among(part, (LABELLED,)) for states in self._states)
        if len(one) != len(other):
            a, b = self.sets
            raise ValueError(f"part {part} has {len(one)} rows in {a.path} and {len(other)} in {b.path}")
        both = one & other
        return np.flatnonzero(both if self._splits is None else both & self._splits.among(part, self.split))

    def pairs(self, most: int) -> Iterator[tuple[str, Target, Target]]:
        """Of at most `most` images (`spaced`), in their order, the id and what both say.

        A row group of each set is in memory at a time.
        """
        wanted, first = spaced(self.images, most), 0
        for part, count in self._counts.items():
            a, b = np.searchsorted(wanted, [first, first + count])
            at = self._rows(part)[wanted[a:b] - first]
            for group in np.unique(at // ROW_GROUP).tolist():
                rows = at[at // ROW_GROUP == group].tolist()
                images = self.sets[0].store.sizes(part, rows)
                read = [s.read(part, rows) for s in self.sets]
                for image, answer, truth in zip(images, *read, strict=True):
                    assert isinstance(answer, Target)
                    assert isinstance(truth, Target)
                    yield image.id, answer, truth
            first += count


def spaced(count: int, most: int) -> Int[np.ndarray, " N"]:
    """At most `most` of the numbers 0..count - 1, ascending: all, or runs of `RUN` at even distances."""
    if count <= most:
        return np.arange(count)
    runs = max(most // RUN, 1)
    starts = np.arange(runs, dtype=np.int64) * count // runs
    found: Int[np.ndarray, " N"] = (starts[:, None] + np.arange(min(RUN, most))).flatten()
    return found


def _known(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {k: None if math.isnan(v) else round(v, 4) for k, v in scores.items()}


def lines(found: Mapping[str, Any], width: int) -> list[str]:
    """What `held` found, for a terminal of so many columns: scores, what they rest on, the worst and best classes."""
    percent = bool(found["classes"])
    scores = ", ".join(f"{k} {_number(v, percent)}{' %' if percent else ''}" for k, v in found["overall"].items())
    of = " of these classes" if found["shared"] is not None else ""
    counted = {what: n for what, n in found["counted"].items() if (what, n) != ("images", found["images"])}
    rests = [f"{n:,} {what}{of}" for what, n in counted.items()]
    seen = f"the {found['images']:,} images that both label"
    if found["images"] < found["of"]:
        seen = f"{found['images']:,} of the {found['of']:,} images that both label, taken evenly"
    some = f", over the {found['shared']:,} classes that both have" if found["shared"] is not None else ""
    at = "" if found["score"] is None else f" at a score of {found['score']:g}"
    text = f"{found['set']} against {found['people']}{at}{some}: {scores} ("
    out = wrapped(f"{text}{', '.join([seen, *rests])})", width)
    if found["note"]:
        out += wrapped(found["note"], width, "  ")
    return out + _classes(found, width)


def _classes(found: Mapping[str, Any], width: int) -> list[str]:
    by = found["ranked"]
    ranked = sorted(
        (k for k, v in found["classes"].items() if v[by] is not None), key=lambda k: found["classes"][k][by]
    )
    if len(ranked) < 2:
        return []
    few = len(ranked) <= 2 * SHOWN
    shown = ranked if few else [*ranked[:SHOWN], *ranked[-SHOWN:]]
    columns = [k for k in found["classes"][shown[0]] if k != "objects"]
    head = ["class", *found["counted"], *(f"{k} %" for k in columns)]
    rows = [
        [k, f"{v['objects']:,}", *(_number(v[c], True) for c in columns)] for k in shown if (v := found["classes"][k])
    ]
    which = "" if few else f"  the {SHOWN} worst and the {SHOWN} best of {len(ranked):,} classes by {by}:"
    return [*([which] if which else []), *(f"  {line}" for line in table(head, rows, width - 2).split("\n"))]


def _number(value: float | None, percent: bool) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if percent else f"{value:.3g}"
