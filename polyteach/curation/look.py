"""Look into one entry of a dataset: an image that can be decoded with people's answers about it, or a reject."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polyteach.datasets import Dataset, Drawn, Entry, printable
from polyteach.ground.fields import Fields
from polyteach.ground.images import BadImage, faint, measure
from polyteach.ground.uris import read_uri
from polyteach.store import Answer, ImageRow, LabelSet, Store
from polyteach.tasks import load_task

Notes = dict[str, Counter[str]]
"""By task, and of the images by "": how many things there is a note about, and of how many (by "objects")."""


@dataclass(frozen=True)
class Seen:
    """An entry after it was looked into: a row with people's answers, or a reject."""

    row: ImageRow | None = None
    reject: tuple[str, str | None, str] | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    notes: Notes = field(default_factory=dict)


class Looker:
    """What it takes to look into an entry; safe to ask from several threads.

    strict: whether what the dataset gets wrong is an error, and no reject.
    """

    def __init__(self, store: Store, dataset: Dataset, about: Mapping[str, Any], sets: Mapping[str, LabelSet]) -> None:
        self.store, self.dataset, self.about, self.sets = store, dataset, about, sets
        self.strict = bool(dataset.spaces) and not about["skip_bad"]

    def look(self, id: str, entry: Entry) -> Seen:
        """The entry, which is to be called `id`, after it was looked into.

        Raises:
            ValueError: the dataset contradicts itself, where `strict`.
        """
        uri = None if entry.uri is None else printable(entry.uri)
        if entry.problem is not None:
            return self._bad(id, uri, entry.problem)
        try:
            data = read_uri(entry.uri or "", self.dataset.limits) if entry.data is None else entry.data
        except OSError as e:
            return self._bad(id, uri, f"cannot be read: {getattr(e, 'strerror', None) or e}")
        except MemoryError:
            return self._bad(id, uri, "cannot be read: there is not enough memory")
        try:
            size = measure(data, self.about["max_pixels"], self.about["min_side"])
        except BadImage as e:
            return Seen(reject=(id, uri, _short(printable(str(e)))))
        except MemoryError:
            return Seen(reject=(id, uri, "there is not enough memory to decode it"))
        embed = self.about["embed"]
        if not embed and uri != entry.uri:
            return Seen(reject=(id, uri, "its path is not UTF-8, so a store cannot name it: rename it, or use embed"))
        row = ImageRow(
            id=id,
            height=size[0],
            width=size[1],
            data=data if embed else None,
            uri=None if embed else uri,
            split=entry.split,
            licence=entry.licence or self.about["licence"],
        )
        try:
            answers, notes = self._answers(entry, size, id)
        except (OSError, ValueError) as e:
            return self._bad(id, uri, printable(str(e)))
        if dim := faint(data, self.about["max_pixels"]):
            notes = notes | {"": Counter({dim: 1})}
        return Seen(row=row, answers=answers, notes=notes)

    def _bad(self, id: str, uri: str | None, reason: str) -> Seen:
        """What the dataset gets wrong: an error where it is labelled, unless it is to be skipped."""
        if self.strict:
            raise ValueError(
                f"{self.about['source']}: {id}: {reason}. Mend it and give the same command again; or give --skip-bad, "
                f"which leaves such images out and records them in {self.store.path / 'rejects'}"
            )
        return Seen(reject=(id, uri, _short(reason)))

    def _answers(self, entry: Entry, size: tuple[int, int], id: str) -> tuple[dict[str, Answer], Notes]:
        """What people say of an image, by task: a target, or None where absent; and what there is to be told about it.

        Raises:
            ValueError, OSError: a label is broken or missing.
        """
        answers: dict[str, Answer] = dict.fromkeys(self.sets)
        if entry.targets is None:
            return answers, {}
        try:
            given = entry.targets(size)
        except (OSError, ValueError):
            raise
        except Exception as e:
            e.add_note(f"in the people's labels of {id!r}")
            raise
        unknown = given.keys() - self.sets.keys()
        if unknown:
            raise TypeError(f"{id!r} is labelled for {sorted(unknown)}; the dataset's spaces are {sorted(self.sets)}")
        drawn = given if isinstance(given, Drawn) else Drawn(given)
        notes: Notes = {}
        for task, answer in given.items():
            if answer is not None:
                try:
                    review = load_task(task).review(answer, size, self.sets[task].space, drawn.where.get(task, ()))
                except ValueError as e:
                    raise ValueError(f"{task}: {e}{drawn.hint}") from e
                answers[task] = review.target
                found = review.notes + drawn.notes.get(task, Counter())
                if review.objects or found:
                    notes[task] = Counter({"objects": review.objects}) + found
        return answers, notes


def _short(reason: str) -> str:
    """No longer than a person reads: what a file says may be in it."""
    return reason if len(reason) <= 1000 else f"{reason[:1000]} ..."


def read_notes(said: Fields) -> Notes:
    """Notes of a part as a file keeps them."""
    found = [(task, said.object(task)) for task in said.value]
    return {task: Counter({k: counts.count(k) for k in counts.value}) for task, counts in found}


def sum_notes(notes: Iterable[Notes]) -> Notes:
    """Counts added up, by task."""
    total: Notes = {}
    for one in notes:
        for task, found in one.items():
            total[task] = total.get(task, Counter()) + found
    return total


def unique(names: Sequence[str]) -> list[str]:
    """The names, where the second of a kind becomes "name#2" and so on; never a name that another one has."""
    taken = set(names)
    seen: dict[str, int] = {}
    out = []
    for name in names:
        count = seen.get(name, 0) + 1
        own = name
        while count > 1 and (own := f"{name}#{count}") in taken:
            count += 1
        seen[name] = count
        taken.add(own)
        out.append(own)
    return out
