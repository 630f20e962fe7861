"""Verify a store, part by part: checksums, row counts, ids, and that every target fits its image and its set.

Parquet pages carry checksums, which are verified whenever a part is read, in training too: what is broken on the disk
is an error that names the file, and never learned from. A check finds it before a run does.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyteach.ground.fields import Fields
from polyteach.ground.limits import Limits
from polyteach.ground.progress import track
from polyteach.ground.storage import AnyPath, StorageError
from polyteach.ground.texts import say
from polyteach.store import (
    ABSENT,
    CALIBRATION,
    FAILED,
    IMAGES,
    LABELLED,
    REJECTS,
    ImageRow,
    LabelSet,
    Store,
    StoreFolder,
    Unfit,
    part_name,
    remedy,
    shaped,
    strays,
    wrong_row,
)
from polyteach.store.label_folder import tell_foreign
from polyteach.tasks import is_task


@dataclass(frozen=True)
class Fault:
    """Something wrong. file: of the store, relative. rows: positions in the part; empty when it is the whole file.

    unknown: an image that could not be read from here, and may be whole: nothing is taken away for it.
    """

    file: str
    reason: str
    rows: tuple[int, ...] = ()
    unknown: bool = False

    def __str__(self) -> str:
        at = f", row {self.rows[0]}" + (f" and {len(self.rows) - 1} more" if self.rows[1:] else "") if self.rows else ""
        return f"{self.file}{at}: {self.reason}"


def report_faults(store: str | Path, deep: bool, limits: Limits, progress: bool) -> None:
    """Print what is wrong with the store at a path. deep: decode the images too.

    Raises:
        ValueError: something is broken, or no image can be read from here; says what to do.
    """
    found = []
    for fault in faults(Store.open(store, limits=limits), deep, progress):
        say(str(fault), stream=sys.stdout)
        found.append(fault)
    unread = sum(fault.unknown for fault in found)
    if unread == len(found) > 0:
        raise ValueError(
            f"{unread} images of {store} cannot be read from here, which no repair mends: look after the disk or the "
            "server that has them, or allow it with --allow-remote. All else is whole"
        )
    if found:
        mend = f"polyteach store repair {store}{' --deep' if deep else ''}"
        raise ValueError(f"{len(found)} faults in {store}; mend it with: {mend}")
    say(f"{store} is whole", stream=sys.stdout)


def faults(store: Store, deep: bool = False, progress: bool = False) -> Iterator[Fault]:
    """Everything that is wrong with a store, part by part. deep: decode the images too."""
    sets, wrong = opened_sets(store)
    yield from wrong
    yield from _records(store, sets)
    parts = store.parts()
    seen: dict[str, int] = {}
    with track("check", len(parts), "parts", progress) as bar:
        for part in parts:
            rows, wrong = _images(store, part, deep)
            yield from wrong
            if rows is not None:
                file = part_file(store.path / "images", part, store)
                twice = [i for i, r in enumerate(rows) if r.id and seen.setdefault(r.id, part) != part]
                if twice:
                    first = rows[twice[0]].id
                    yield Fault(file, f"id {first!r} is in part {seen[first]} too", tuple(twice))
                for labels in sets:
                    if labels.has(part):
                        yield from _labels(labels, part, rows)
            bar.advance()
    for labels in sets:
        for part in sorted(set(labels.parts()) - set(parts)):
            yield Fault(part_file(labels.path, part, store), "there are no images of that part")
    for part in store.reject_parts():
        yield from _shaped(store, store.path / "rejects", part, REJECTS)


def opened_sets(store: Store) -> tuple[list[LabelSet], list[Fault]]:
    """The label sets that can be opened, and what is wrong with the others."""
    sets, wrong = [], []
    folders: list[AnyPath] = list((store.path / "labels").glob("*/*"))
    for folder in sorted(folders, key=str):
        task, name = folder.parent.name, folder.name
        if task.startswith(".") or (isinstance(folder, Path) and not folder.is_dir()):
            continue  # what a killed `drop-labels` left, or somebody's notes
        if not is_task(task) and (folder / "set.json").is_file():
            tell_foreign(store, task, name)
            continue
        try:
            sets.append(LabelSet(store, task, name))
        except StorageError:
            raise
        except ValueError as e:
            file = f"labels/{task}/{name}/set.json"
            wrong.append(Fault(file, f"is broken: {_plain(e, store, file)}"))
    return sets, wrong


def _records(store: Store, sets: Sequence[LabelSet]) -> Iterator[Fault]:
    """What is wrong with the files beside the parts, and with what is called like a part and is none."""

    def merge() -> None:
        if (store.path / "merge.json").exists():
            about = Fields.read(store.path / "merge.json")
            about.texts("stores")
            about.flag("finished", null=True)

    said: list[tuple[str, Callable[[], Any]]] = [("ingest.json", store.ingested), ("merge.json", merge)]
    said += [(f"labels/{s.task}/{s.name}/label.json", s.record) for s in sets]
    said += [(f"labels/{s.task}/{s.name}/{CALIBRATION}", s.calibration_record) for s in sets]
    for file, read in said:
        try:
            read()
        except StorageError:
            raise
        except ValueError as e:
            yield Fault(file, f"is broken: {_plain(e, store, file)}")
    for folder in ("images", "labels", "rejects"):
        if isinstance(store.path, Path) and (store.path / folder).exists() and not (store.path / folder).is_dir():
            yield Fault(folder, "is no folder")
    for folder in ("images", "rejects", *(f"labels/{s.task}/{s.name}" for s in sets)):
        for name in strays(_below(store, folder)):
            yield Fault(f"{folder}/{name}", "is no part: those are regular files, part-00000.parquet and so on")


def _below(store: Store, file: str) -> AnyPath:
    path = store.path
    for name in file.split("/"):
        path = path / name
    return path


def _shaped(store: StoreFolder, folder: AnyPath, part: int, schema: Any) -> Iterator[Fault]:
    """What is wrong with a part by its footer; and with its pages, where it is one of rejects."""
    try:
        shaped(folder / part_name(part), schema, store.part_size)
        if schema is REJECTS:
            store.rejects([part])
    except StorageError:  # nothing is known of the part then
        raise
    except Exception as e:  # whatever broken bytes make pyarrow raise
        file = part_file(folder, part, store)
        yield Fault(file, _plain(e, store, file))


def part_file(folder: AnyPath, part: int, store: StoreFolder) -> str:
    """A part's file, as faults name it: below the store's folder."""
    return str(folder / part_name(part)).removeprefix(f"{store.path}/")


def _images(store: Store, part: int, deep: bool) -> tuple[list[ImageRow] | None, list[Fault]]:
    """The rows of a part, None where they cannot be read, and what is wrong with them."""
    file = part_file(store.path / "images", part, store)
    if odd := list(_shaped(store, store.path / "images", part, IMAGES)):
        return None, odd
    try:
        rows = store.images(part)
    except StorageError:  # nothing is known of the part then
        raise
    except Exception as e:  # whatever broken bytes make pyarrow raise
        return None, [Fault(file, _plain(e, store, file))]
    if len(rows) != store.count(part):
        return None, [Fault(file, f"its footer says {store.count(part):,} rows, and it has {len(rows):,}")]
    wrong = []
    within: set[str] = set()
    twice = tuple(i for i, r in enumerate(rows) if r.id in within or within.add(r.id))  # type: ignore[func-returns-value]
    if twice:
        wrong.append(Fault(file, f"id {rows[twice[0]].id!r} is there twice", twice))
    bad: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        bad.setdefault(wrong_row(vars(row)), []).append(i)
    for reason, at in ((r, a) for r, a in bad.items() if r):
        more = f" and {len(at) - 1:,} more" if len(at) > 1 else ""
        wrong.append(Fault(file, f"{reason}: {rows[at[0]].id!r}{more}", tuple(at)))
    for i, row in enumerate(rows) if deep else ():
        if wrong_row(vars(row)):
            continue
        try:
            store.image(row)
        except (OSError, ValueError) as e:
            wrong.append(Fault(file, f"image {row.id!r}: {e}", (i,), isinstance(e, OSError)))
    return rows, wrong


def _plain(error: Exception, store: StoreFolder, file: str) -> str:
    """What is wrong with a file of the store, without the file, which a fault names itself."""
    text = str(error).removesuffix(f". {remedy(store)}").replace(f"{store.path}/", "")
    return text.removeprefix(file).lstrip(": ") or type(error).__name__


def _labels(labels: LabelSet, part: int, rows: list[ImageRow]) -> Iterator[Fault]:
    file = part_file(labels.path, part, labels.store)
    if odd_shape := list(_shaped(labels.store, labels.path, part, labels.schema)):
        yield from odd_shape
        return
    try:
        table = labels.table(part)
        ids, states = table["id"].to_pylist(), table["state"].to_pylist()
    except StorageError:
        raise
    except Exception as e:
        yield Fault(file, _plain(e, labels.store, file))
        return
    if len(ids) != len(rows):
        yield Fault(file, f"has {len(ids)} rows for {len(rows)} images")
        return
    moved = tuple(i for i, (a, r) in enumerate(zip(ids, rows, strict=True)) if a != r.id)
    if moved:
        yield Fault(file, f"is of image {ids[moved[0]]!r}, not of {rows[moved[0]].id!r}", moved)
    odd = tuple(i for i, s in enumerate(states) if s not in (ABSENT, FAILED, LABELLED))
    if odd:
        yield Fault(file, f"state {states[odd[0]]!r} is none of {LABELLED}, {ABSENT}, {FAILED}", odd)
    for i, (row, answer) in enumerate(zip(rows, labels.fitted(table, rows), strict=True)):
        if isinstance(answer, Unfit) and i not in odd and i not in moved:
            yield Fault(file, f"target of {row.id!r}: {answer}", (i,))
