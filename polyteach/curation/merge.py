"""Several stores become a new one."""

from collections.abc import Sequence
from pathlib import Path

from polyteach.ground.fields import Fields
from polyteach.ground.files import write_json
from polyteach.ground.progress import track
from polyteach.ground.storage import to_path
from polyteach.ground.texts import say
from polyteach.store import CALIBRATION, Answer, ImageRow, LabelSet, Store

_Where = tuple[int, int, int]
"""Store, part, row."""
_Sets = dict[tuple[str, str], dict[int, LabelSet]]
"""By task and name, the label set of each store that has it."""


def merge_stores(out: str | Path, stores: Sequence[str | Path], progress: bool) -> None:
    """Write the images and label sets of several stores into a new one, or go on with that.

    Raises:
        ValueError: two stores have different images under one id, or label sets of one name from different teachers or
            with different classes.
    """
    given = [Store.open(s) for s in stores]
    if len(given) < 2 or len({s.path.resolve() for s in given}) < len(given):
        raise ValueError("give at least two different stores to merge")
    asked = {"stores": [str(s.path.resolve()) for s in given]}
    path = to_path(out)
    record = path / "merge.json"
    if record.exists():
        begun = Fields.read(record, "Choose another folder")
        if list(begun.texts("stores")) != asked["stores"]:
            raise ValueError(f"{out} is a merge of {', '.join(begun.texts('stores'))}; choose another folder")
        if begun.flag("finished", null=True):
            raise ValueError(f"{out} is finished already; choose another folder")
        whole = Store.open(path)
    else:
        _compatible(given)
        whole = Store.create(path, max(s.part_size for s in given))
        write_json(record, asked | {"finished": False})
    home, others = _homes(given)
    sets: _Sets = {}
    for k, store in enumerate(given):
        for labels in store.sets():
            sets.setdefault((labels.task, labels.name), {})[k] = labels
    there = set(whole.parts())
    work = [(k, p) for k, s in enumerate(given) for p in s.parts()]
    with track("merge", len(work), "parts", progress) as bar:
        for number, (k, part) in enumerate(work):
            _merge_part(whole, number, number in there, given[k], k, part, sets, home, others)
            bar.advance()
    _keep_calibrations(whole, sets)
    licences = sorted({str(s.ingested().get("licence")) for s in given})
    if not (path / "ingest.json").exists():
        write_json(path / "ingest.json", {"source": asked["stores"], "licence": ", ".join(licences), "finished": True})
    write_json(record, asked | {"finished": True})


def _keep_calibrations(whole: Store, sets: _Sets) -> None:
    """Give each set the calibration that its sets had, where all had the same one; say where they had not."""
    for (task, name), by_store in sets.items():
        found = [s.calibration_record() for s in by_store.values()]
        folder = whole.own("labels", task, name)
        if found[0] is not None and found.count(found[0]) == len(found) and (folder / "set.json").exists():
            write_json(folder / CALIBRATION, found[0])
        elif any(one is not None for one in found):
            say(f"{task}/{name} is calibrated otherwise in each store, and not in the new one: calibrate it again")


def _compatible(stores: Sequence[Store]) -> None:
    first: dict[tuple[str, str], LabelSet] = {}
    for store in stores:
        for labels in store.sets():
            other = first.setdefault((labels.task, labels.name), labels)
            if other.space != labels.space:
                raise ValueError(
                    f"{other.path} and {labels.path} have one name and different classes or units; make one of them "
                    "again under another name, or drop it with: polyteach store drop-labels"
                )
            if other.info.get("teacher") != labels.info.get("teacher"):
                raise ValueError(
                    f"{other.path} and {labels.path} have one name and different teachers; make one of them again "
                    "under another name, or drop it with: polyteach store drop-labels"
                )


def _homes(stores: Sequence[Store]) -> tuple[dict[str, _Where], dict[str, list[_Where]]]:
    """Where each image is first, and where those are that come again.

    Raises:
        ValueError: different images have one id.
    """
    home: dict[str, _Where] = {}
    others: dict[str, list[_Where]] = {}
    for k, store in enumerate(stores):
        for part in store.parts():
            for i, row in enumerate(store.images(part, data=False)):
                if home.setdefault(row.id, (k, part, i)) != (k, part, i):
                    others.setdefault(row.id, []).append((k, part, i))
    for id, places in others.items():
        [first], [*rest] = _rows(stores, [home[id]]), _rows(stores, places)
        for row, (k, _, _) in zip(rest, places, strict=True):
            if (row.data, row.uri, row.height, row.width) != (first.data, first.uri, first.height, first.width):
                a, b = stores[home[id][0]].path, stores[k].path
                raise ValueError(f"image {id!r} is not the same in {a} and in {b}; ingest one of them with other ids")
    return home, others


def _rows(stores: Sequence[Store], places: Sequence[_Where]) -> list[ImageRow]:
    return [stores[k].images(part, rows=[i])[0] for k, part, i in places]


def _merge_part(
    whole: Store, number: int, written: bool, store: Store, k: int, part: int, sets: _Sets,
    home: dict[str, _Where], others: dict[str, list[_Where]],
) -> None:  # fmt: skip
    """A part of store number `k` becomes one of the whole, without what an earlier store has."""
    rows = store.images(part)
    kept = [i for i, r in enumerate(rows) if home[r.id] == (k, part, i)]
    if not kept:
        return
    ids = [rows[i].id for i in kept]
    if not written:
        whole.write_images(number, [rows[i] for i in kept])
    for (task, name), by_store in sorted(sets.items()):
        model = next(iter(by_store.values()))
        target = whole.create_set(task, name, model.space, model.info)
        if target.has(number):
            continue
        mine = by_store.get(k)
        answers = mine.read(part, kept) if mine is not None and mine.has(part) else None
        more: dict[int, Answer] = {}
        for at, id in enumerate(ids):
            for j, p, i in others.get(id, ()):
                lacks = at not in more and (answers is None or not _answered(answers[at]))
                if lacks and j in by_store and by_store[j].has(p):
                    [found] = by_store[j].read(p, [i])
                    if _answered(found):
                        more[at] = found
        if answers is None and not more:
            continue  # nobody has been asked yet
        base: list[Answer] = list(answers) if answers is not None else ["not asked yet"] * len(ids)
        target.write(number, ids, [more.get(at, a) for at, a in enumerate(base)])


def _answered(answer: Answer) -> bool:
    return answer is not None and not isinstance(answer, str)
