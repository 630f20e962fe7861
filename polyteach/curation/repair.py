"""Take out of a store what is broken, and nothing else."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polyteach.curation.check import Fault, faults, opened_sets, part_file
from polyteach.ground.limits import Limits
from polyteach.ground.storage import move
from polyteach.ground.texts import say
from polyteach.store import Answer, ImageRow, LabelSet, Store, StoreFolder
from polyteach.tasks import load_task
from polyteach.tasks.target import Target

BROKEN = "broken"
"""Folder of a store into which `repair` moves what cannot be read."""
LOST = "broken on the disk"
"""Reason of a failure: the label was there, and cannot be read any more."""


def mend_store(store: str | Path, deep: bool, limits: Limits, progress: bool) -> None:
    """Take out what is broken of the store at a path, and print it. deep: images that cannot be decoded, too."""
    opened = Store.open(store, limits=limits)
    found, unread = [], 0
    for fault in faults(opened, deep, progress):
        if fault.unknown:
            say(f"{fault}. It stays as it is", stream=sys.stdout)
            unread += 1
        else:
            found.append(fault)
    by_file: dict[str, list[Fault]] = {}
    for fault in found:
        by_file.setdefault(fault.file, []).append(fault)
    parts = {part_file(opened.path / "images", part, opened): part for part in opened.parts()}
    images = {parts[file]: wrong for file, wrong in by_file.items() if file in parts}
    labels: dict[int, dict[str, list[Fault]]] = {}
    aside: list[tuple[str, list[Fault]]] = []
    there = {part_file(s.path, p, opened): p for s in opened_sets(opened)[0] for p in s.parts()}
    for file, wrong in by_file.items():
        if file in there:
            labels.setdefault(there[file], {})[file] = wrong
        elif file not in parts:
            aside.append((file, wrong))
    _refuse(opened, by_file)
    for file, wrong in aside:  # first: from here on every label set can be opened
        whole = file.startswith("labels/") and file.endswith("/set.json")
        _set_aside(opened, file.removesuffix("/set.json") if whole else file)
        say(f"{wrong[0]}; {'the whole set' if whole else 'it'} is in {BROKEN}/", stream=sys.stdout)
    for part in sorted({*images, *labels}):
        _mend(opened, part, images.get(part, []), labels.get(part, {}), deep)
    if not found and not (opened.path / BROKEN).exists():
        but = f", but for {unread} images that cannot be read from here" if unread else ""
        say(f"{store} is whole{but}; nothing was changed", stream=sys.stdout)


def _refuse(store: Store, files: Collection[str]) -> None:
    """Refuse to begin what could not be finished: nothing has been changed then.

    Raises:
        ValueError: one of the files could not be mended, since it lies behind a link, or BROKEN is none of our folders.
    """
    for file in files:
        folders = file.split("/")[:-1]
        store.own(*folders)
        store.own(BROKEN, *folders)
        if folders[:1] == ["images"]:  # with images go labels
            for labels in store.path.glob("labels/*/*"):
                store.own("labels", labels.parent.name, labels.name)
                store.own(BROKEN, "labels", labels.parent.name, labels.name)
    home = store.path / BROKEN
    if files and isinstance(home, Path) and home.exists() and not home.is_dir():
        raise ValueError(f"{home} is no folder; repair keeps there what it takes out: move it away")


def _set_aside(store: StoreFolder, file: str, keep: bool = False) -> None:
    """Move into broken/, beside what is there already; copy, where it is replaced afterwards (`keep`)."""
    *folders, name = file.split("/")
    source, home = store.own(*folders) / name, store.own(BROKEN, *folders)
    home.mkdir(parents=True, exist_ok=True)
    target, k = home / name, 1
    while target.exists() or (isinstance(target, Path) and target.is_symlink()):
        target, k = home / f"{name}.{k}", k + 1
    move(source, target, keep)


def _mend(store: Store, part: int, images: list[Fault], labels: Mapping[str, list[Fault]], deep: bool) -> None:
    """Write a part anew with what is right in it: the images, if those are wrong, and the labels that follow them.

    images: what is wrong with them. labels: by file what is wrong with a set's answers about them. deep: images that
    cannot be decoded are wrong too, of a part that could not be read before. The images come last: killed on the way,
    the same faults are found again, and the same is kept.
    """
    file, kept = part_file(store.path / "images", part, store), None
    if images:
        bad = {row for f in images for row in f.rows}
        whole = [r for i, r in _distinct(store.salvaged(part)) if i not in bad]
        if deep and any(not f.rows for f in images):
            whole = [r for r in whole if _decodes(store, r)]
        kept = whole[: store.part_size]
    there = part in store.parts()
    rows = kept if kept is not None else store.images(part, data=False) if there else []
    for fault in images:
        say(str(fault), stream=sys.stdout)
    for task, name in sorted({(s.task, s.name) for s in opened_sets(store)[0]}):
        one = LabelSet(store, task, name)
        mine = part_file(one.path, part, store)
        if one.has(part) and (images or mine in labels):
            _mend_labels(one, part, rows, labels.get(mine, []), bool(images))
    if kept is not None:
        _set_aside(store, file, keep=bool(kept))
        if kept:
            store.write_images(part, kept)
        say(f"{file}: {len(kept)} images kept; the broken part and its labels are in {BROKEN}/", stream=sys.stdout)


def _decodes(store: Store, row: ImageRow) -> bool:
    try:
        store.image(row)
    except OSError:  # nothing is known of the image then
        return True
    except ValueError:
        return False
    return True


def _distinct(found: Iterator[tuple[int, ImageRow]]) -> Iterator[tuple[int, ImageRow]]:
    """Without those whose id has come already."""
    seen: set[str] = set()
    for i, row in found:
        if row.id not in seen:
            seen.add(row.id)
            yield i, row


def _encoded(labels: LabelSet, answer: Answer, size: tuple[int, int]) -> dict[str, Any] | None:
    """An answer as its part keeps it, None where it does not fit an image of that size."""
    try:
        if isinstance(answer, Target):
            load_task(labels.task).check(answer, size, labels.space)
        return labels.encode(answer)
    except Exception:  # whatever a value out of its range makes of tensors
        return None


def _mend_labels(labels: LabelSet, part: int, rows: Sequence[ImageRow], wrong: list[Fault], moved: bool) -> None:
    """Keep the answers of the images `rows` that can be read and that fit; the others become failures.

    wrong: what is wrong with the answers. moved: the images change too, which says by itself that labels do.
    """
    store, file = labels.store, part_file(labels.path, part, labels.store)
    for fault in wrong:
        say(str(fault), stream=sys.stdout)
    sizes = {r.id: (r.height, r.width) for r in rows}
    kept: dict[str, dict[str, Any]] = {}
    for id, answer in labels.salvaged(part):
        if id in sizes and id not in kept and (row := _encoded(labels, answer, sizes[id])) is not None:
            kept[id] = row
    people = labels.by_people
    again = "ingest people's labels again" if people else "`polyteach label` makes them again"
    if not kept:
        _set_aside(store, file)
        if rows and not moved:
            say(f"{file}: nothing of it can be read; it is in {BROKEN}/, {again}", stream=sys.stdout)
        return
    _set_aside(store, file, keep=True)
    lost = labels.encode(LOST)
    labels.write_encoded(part, [r.id for r in rows], [kept.get(r.id, lost) for r in rows])
    if wrong:
        gone, how = len(rows) - len(kept), again if people else f"{again}, with --retry"
        say(f"{file}: {len(kept)} answers kept, {gone} lost ({how}); the broken one is in {BROKEN}/", stream=sys.stdout)
