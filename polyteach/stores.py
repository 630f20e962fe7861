"""Look after stores: check, info, split, merge, drop labels, repair. `polyteach store VERB ...`.

Parquet pages carry checksums, which are verified whenever a part is read, in training too: what is broken on the disk
is an error that names the file, and never learned from. `check` finds it before a run does.
"""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from polyteach.arguments import listed
from polyteach.limits import MAX_PIXELS, Limits
from polyteach.texts import say

if TYPE_CHECKING:
    from polyteach.storage import AnyPath
    from polyteach.store import Answer, ImageRow, LabelSet, Store

BROKEN = "broken"
"""Folder of a store into which `repair` moves what cannot be read."""
LOST = "broken on the disk"
"""Reason of a failure: the label was there, and cannot be read any more."""


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


def check(
    store: tyro.conf.Positional[str | Path],
    *,
    deep: bool = False,
    allow_remote: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    progress: bool = True,
) -> None:
    """Verify every part of a store, and say what is broken.

    Checked are the checksums of all pages, row counts, that ids are unique and that labels stand beside the images
    that they are of, that every target can be decoded and fits its image and its set's space.

    Args:
        store: the store's folder, or its URL (docs/objects.md).
        deep: decode every image too, those kept by reference from where they lie.
        allow_remote: where else than from files of this machine and object storage images may be fetched: a protocol
            (http, https), or the beginning of URLs, also of servers in this machine's own network (docs/store.md).
        max_pixels: refuse images with more pixels than this, whatever the store says of them.
        progress: show a progress bar.

    Raises:
        ValueError: something is broken; every fault is printed.

    Examples:
        polyteach store check store

        polyteach store check store --deep
    """
    from polyteach.store import Store

    found = []
    limits = Limits(listed(allow_remote), max_pixels)
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


def faults(store: "Store", deep: bool = False, progress: bool = False) -> Iterator[Fault]:
    """Everything that is wrong with a store, part by part. deep: decode the images too."""
    from polyteach.progress import track
    from polyteach.store import REJECTS

    sets, wrong = _sets(store)
    yield from wrong
    yield from _records(store, sets)
    parts = store.parts()
    seen: dict[str, int] = {}
    with track("check", len(parts), "parts", progress) as bar:
        for part in parts:
            rows, wrong = _images(store, part, deep)
            yield from wrong
            if rows is not None:
                file = _file(store.path / "images", part, store)
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
            yield Fault(_file(labels.path, part, store), "there are no images of that part")
    for part in store.reject_parts():
        yield from _shaped(store, store.path / "rejects", part, REJECTS)


def _sets(store: "Store") -> "tuple[list[LabelSet], list[Fault]]":
    """The label sets that can be opened, and what is wrong with the others."""
    from polyteach.storage import StorageError
    from polyteach.store import LabelSet

    sets, wrong = [], []
    folders: list[AnyPath] = list((store.path / "labels").glob("*/*"))
    for folder in sorted(folders, key=str):
        task, name = folder.parent.name, folder.name
        if task.startswith(".") or (isinstance(folder, Path) and not folder.is_dir()):
            continue  # what a killed `drop-labels` left, or somebody's notes
        try:
            sets.append(LabelSet(store, task, name))
        except StorageError:
            raise
        except ValueError as e:
            file = f"labels/{task}/{name}/set.json"
            wrong.append(Fault(file, f"is broken: {_plain(e, store, file)}"))
    return sets, wrong


def _records(store: "Store", sets: "Sequence[LabelSet]") -> Iterator[Fault]:
    """What is wrong with the files beside the parts, and with what is called like a part and is none."""
    from polyteach.fields import Fields
    from polyteach.storage import StorageError
    from polyteach.store import strays

    def merge() -> None:
        if (store.path / "merge.json").exists():
            about = Fields.read(store.path / "merge.json")
            about.texts("stores")
            about.flag("finished", null=True)

    said: list[tuple[str, Callable[[], Any]]] = [("ingest.json", store.ingested), ("merge.json", merge)]
    said += [(f"labels/{s.task}/{s.name}/label.json", s.record) for s in sets]
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


def _below(store: "Store", file: str) -> "AnyPath":
    path = store.path
    for name in file.split("/"):
        path = path / name
    return path


def _shaped(store: "Store", folder: "AnyPath", part: int, schema: Any) -> Iterator[Fault]:
    """What is wrong with a part by its footer; and with its pages, where it is one of rejects."""
    from polyteach.storage import StorageError
    from polyteach.store import REJECTS, part_name, shaped

    try:
        shaped(folder / part_name(part), schema, store.part_size)
        if schema is REJECTS:
            store.rejects([part])
    except StorageError:  # nothing is known of the part then
        raise
    except Exception as e:  # whatever broken bytes make pyarrow raise
        file = _file(folder, part, store)
        yield Fault(file, _plain(e, store, file))


def _file(folder: "AnyPath", part: int, store: "Store") -> str:
    from polyteach.store import part_name

    return str(folder / part_name(part)).removeprefix(f"{store.path}/")


def _images(store: "Store", part: int, deep: bool) -> "tuple[list[ImageRow] | None, list[Fault]]":
    """The rows of a part, None where they cannot be read, and what is wrong with them."""
    from polyteach.storage import StorageError
    from polyteach.store import IMAGES, wrong_row

    file = _file(store.path / "images", part, store)
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
            store.picture(row)
        except (OSError, ValueError) as e:
            wrong.append(Fault(file, f"image {row.id!r}: {e}", (i,), isinstance(e, OSError)))
    return rows, wrong


def _plain(error: Exception, store: "Store", file: str) -> str:
    """What is wrong with a file of the store, without the file, which a fault names itself."""
    from polyteach.store import remedy

    text = str(error).removesuffix(f". {remedy(store)}").replace(f"{store.path}/", "")
    return text.removeprefix(file).lstrip(": ") or type(error).__name__


def _labels(labels: "LabelSet", part: int, rows: "list[ImageRow]") -> Iterator[Fault]:
    from polyteach.storage import StorageError
    from polyteach.store import ABSENT, FAILED, LABELLED, Unfit

    file = _file(labels.path, part, labels.store)
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


# ---------------------------------------------------------------------------------------------------------------------


def info(store: tyro.conf.Positional[str | Path], *, score: float = 0.5, json: bool = False) -> None:
    """Say what is in a store: images by split, and what each label set says of them.

    Of every set: how many images are labelled, without an answer and failed; its statistics; how many images show each
    of its classes; and, where people labelled images with the same task, how many of those in which they found nothing
    the teacher leaves empty too. A warning where all labels are empty, the same or of one class, and where a training
    would use none of them, as people's or another teacher's win on every image.

    Args:
        store: the store's folder, or its URL (docs/objects.md).
        score: threshold of a teacher's answers.
        json: print JSON instead of tables.

    Examples:
        polyteach store info store

        polyteach store info store --json > about.json
    """
    from json import dumps

    from polyteach.store import Store

    about = described(Store.open(store), score)
    if json:
        say(*dumps(about, indent=1, ensure_ascii=False).split("\n"), stream=sys.stdout)
        return
    from polyteach.tables import width_of

    say(*_shown(str(store), about, width_of(sys.stdout)), stream=sys.stdout)


def _shown(store: str, about: dict[str, Any], width: int) -> list[str]:
    """What `described` says, as lines for a terminal of so many columns."""
    from polyteach.tables import table, wrapped

    splits = [f"{k or '(no split)'} {v:,}" for k, v in about["splits"].items()]
    lines = [f"{store}: {about['images']:,} images in {about['parts']} parts, {about['bytes']:,} bytes"]
    lines += wrapped(splits, width, "", "splits: ") if splits else []
    lines += [f"{about['rejects']:,} images were refused (rejects/)", ""]
    head = ("label set", "labelled", "absent", "failed", "parts open", "from", "mean over labelled images")
    rows: list[list[str | list[str]]] = []
    for one in about["sets"]:
        means = [f"{k} {v:.3g}" for k, v in one["statistics"].items()]
        if one["empties"]:
            means.append(f"leaves {one['empties']['left']} of {one['empties']['of']} empty images empty")
        counts = [f"{one[k]:,}" for k in ("labelled", "absent", "failed", "open")]
        rows.append([one["set"], *counts, one["teacher"], means])
    lines += table(head, rows, width).split("\n") if rows else ["no label sets yet"]
    for one in about["sets"]:
        if one["idle"]:
            lines += wrapped(f"WARNING: {one['set']} {one['idle']}", width)
        if one["doubt"]:
            lines += wrapped(f"WARNING: {one['set']} can teach hardly anything: {one['doubt']}", width)
    for one in about["sets"]:
        if one["classes"]:
            ranked = sorted(one["classes"].items(), key=lambda x: -x[1])
            shown = [f"{k} {v:,}" for k, v in ranked if v]
            none = [k for k, v in ranked if not v]
            lines += ["", f"{one['set']}, images by class they show:"]
            lines += wrapped(_ten(shown) or ["none"], width, "  ")
            lines += wrapped(_ten(none), width, "  ", "in no image: ") if none else []
    return lines


def _ten(texts: list[str]) -> list[str]:
    """The first ten, and how many there are in all."""
    return [*texts[:10], f"... ({len(texts):,} in all)"] if len(texts) > 10 else texts


def described(store: "Store", score: float = 0.5) -> dict[str, Any]:
    """What `info` prints, as JSON values.

    splits: images by split ("" for none). sets: one dictionary per label set; "open" are parts that are not labelled
    yet, "classes" images by class, "empties" how many of the images in which people found nothing are left empty,
    "doubt" why the labels can hardly teach anything ("" where they can), "idle" why they would count for no image in a
    training on all sets ("" where they count).
    """
    from collections import Counter

    from polyteach.batches import by_people, idle_sets
    from polyteach.storage import total
    from polyteach.store import ABSENT, FAILED, LABELLED
    from polyteach.tasks import load_task
    from polyteach.tasks.contract import Policy

    parts = store.parts()
    splits = Counter(r.split or "" for p in parts for r in store.images(p, data=False))
    policy, idle = Policy(score=score), idle_sets(store)
    sets = []
    nothing: dict[str, set[str]] = {}  # by task, images in which people found nothing
    for labels in sorted(store.sets(), key=lambda s: not by_people(s)):
        task, people = load_task(labels.task), by_people(labels)
        states: Counter[str] = Counter()
        shown: Counter[int] = Counter()
        empty, of, left = nothing.setdefault(labels.task, set()), 0, 0
        for part in labels.parts():
            table = labels.table(part)
            states.update(table["state"].to_pylist())
            images = store.sizes(part)
            for image, found in zip(images, labels.fitted(table, images), strict=True):
                id, answer = image.id, labels.sound(part, image, found)
                if answer is None or isinstance(answer, str):
                    continue
                classes = task.classes(answer if people else task.pseudo(answer, policy))
                shown.update(set(classes))
                if labels.space.names and people and not classes:
                    empty.add(id)
                elif id in empty:
                    of, left = of + 1, left + (not classes)
        sets.append(
            {
                "set": f"{labels.task}/{labels.name}",
                "teacher": "people" if people else str(labels.info.get("teacher", {}).get("spec", "unknown")),
                "labelled": states[LABELLED],
                "absent": states[ABSENT],
                "failed": states[FAILED],
                "open": len(set(parts) - set(labels.parts())),
                "statistics": labels.statistics(score)[2],
                "doubt": labels.doubt(policy),
                "idle": idle.get((labels.task, labels.name), ""),
                "classes": {name: shown[i] for i, name in enumerate(labels.space.names)},
                "empties": {"of": of, "left": left} if of else None,
            }
        )
    size = total(store.path, "part-*.parquet")
    return {
        "images": sum(splits.values()), "parts": len(parts), "bytes": size, "splits": dict(sorted(splits.items())),
        "rejects": len(store.rejects()), "sets": sorted(sets, key=lambda s: str(s["set"])),
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------


def _fractions(words: list[str]) -> dict[str, float]:
    out: dict[str, float] = {}
    for word in (w for given in words for w in given.split(",") if w):
        name, equals, value = word.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            equals, number = "", 0.0
        if not equals or not name:
            raise ValueError(f"{word!r} is not NAME=FRACTION, such as train=0.8")
        if name in out:
            raise ValueError(f"the split {name!r} is given twice")
        out[name] = number
    return out


_Fractions = Annotated[
    Mapping[str, float],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=FRACTION ...",
        instance_from_str=_fractions,
        is_instance=lambda x: isinstance(x, Mapping),
        str_from_instance=lambda x: [f"{k}={v}" for k, v in x.items()],
    ),
]


def split(
    store: tyro.conf.Positional[str | Path],
    *,
    fractions: _Fractions,
    seed: int = 0,
    group: str | None = None,
    groups: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, int]:
    """Divide a store into splits, such as training, validation and test, and say how many images each class has there.

    An image's split follows from its id and the seed, by a hash: images that are added later (in a store that is made
    anew, or merged) never move the others. So the fractions are met about, not exactly. Pictures that show the same,
    such as frames of a video or views of one object, belong in one split: say with `group` or `groups` what is kept
    together. The image parts are written anew, one by one (with the images, where those are embedded); one that was
    stopped goes on when the same command is given again.

    Args:
        store: the store's folder, or its URL (docs/objects.md).
        fractions: of the images, by split: train=0.8 val=0.1 test=0.1. They add up to 1.
        seed: another one divides otherwise.
        group: a regular expression that is searched in each id; images for which what it finds in round brackets is
            the same are kept together: by '(.*)_' cat_1.jpg and cat_2.jpg, by '^([^/]*)/' what is in one folder.
        groups: a CSV or Parquet file with the columns id and group, instead.
        overwrite: replace the splits that the store has.
        progress: show a progress bar.

    Returns:
        Images by split.

    Raises:
        ValueError: the store has splits, fractions do not add up to 1, a split would be empty, or an image is in no
            group.

    Examples:
        polyteach store split store --fractions train=0.8 val=0.1 test=0.1

        polyteach store split store --fractions train=0.9 test=0.1 --group '(.*)_' --overwrite

        polyteach store split store --fractions train=0.8 test=0.2 --groups patients.csv
    """
    from polyteach.splits import classes_by_split, divide, images_by_split
    from polyteach.tables import width_of

    opened = divide(str(store), fractions, seed, group, groups, overwrite, progress)
    counts = images_by_split(opened)
    lines = _divided(counts, list(classes_by_split(opened)), width_of(sys.stdout))
    old = [f"{s.task}/{s.name}" for s in opened.sets() if s.info.get("split")]
    if old:
        lines.append(f"made for splits as they were before, so look at them or drop them: {', '.join(old)}")
    say(*lines, stream=sys.stdout)
    return counts


def _divided(counts: dict[str, int], classes: list[tuple[str, Any]], width: int) -> list[str]:
    """What a division has come to, as lines: images by split, and of people's classes the images in each."""
    from polyteach.tables import table, wrapped

    whole = sum(counts.values())
    rows = [[name, f"{n:,}", f"{n / whole:.1%}"] for name, n in counts.items()]
    lines = table(("split", "images", "share"), rows, width).split("\n")
    for name, found in classes:
        rare = sorted((c for c in found if found[c].total()), key=lambda c: found[c].total())
        most = 20
        lines += ["", f"{name}, images by class{f': the {most} rarest of {len(rare)}' if len(rare) > most else ''}"]
        rows = [[c, *(f"{found[c][s]:,}" for s in counts)] for c in rare[:most]]
        lines += table(("class", *counts), rows, width).split("\n")
        for where in counts:
            if lacks := [c for c in rare if not found[c][where]]:
                lines += wrapped(_ten(lacks), width, "", f"no image in {where}: ")
    return lines


# ---------------------------------------------------------------------------------------------------------------------


def drop_labels(
    store: tyro.conf.Positional[str | Path], sets: tyro.conf.Positional[Sequence[str]], *, yes: bool = False
) -> None:
    """Delete label sets. Images and other sets stay as they are.

    Args:
        store: the store's folder, or its URL (docs/objects.md).
        sets: which, by NAME or TASK/NAME.
        yes: do it; without it what would go is said, and nothing is done.

    Raises:
        ValueError: there is no such set, or `yes` is missing.

    Examples:
        polyteach store drop-labels store boxes-old --yes
    """
    from polyteach.names import unknown_name
    from polyteach.storage import total
    from polyteach.store import Store

    opened = Store.open(store)
    have = opened.sets()
    for name in sets:
        if not any(name in (s.name, f"{s.task}/{s.name}") for s in have):
            raise unknown_name("label set", name, [f"{s.task}/{s.name}" for s in have], f"{store} has")
    going = [s for s in have if {s.name, f"{s.task}/{s.name}"} & set(sets)]
    for labels in going:
        say(
            f"{labels.task}/{labels.name}: {len(labels.parts())} parts, {total(labels.path, '*'):,} bytes",
            stream=sys.stdout,
        )
    if not yes:
        raise ValueError("nothing was deleted; add --yes to delete these")
    for labels in going:
        labels.delete()


# ---------------------------------------------------------------------------------------------------------------------


def repair(
    store: tyro.conf.Positional[str | Path],
    *,
    deep: bool = False,
    allow_remote: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    progress: bool = True,
) -> None:
    """Take what is broken out of a store, and say what.

    A part that cannot be read is rebuilt from what can be read of it (in groups of 64 rows), and its broken file is
    kept in broken/. Labels that are lost become "failed", so that `polyteach label --retry` makes them again (a part of
    which nothing can be read is missing then, and made again without --retry); those of people have to be ingested
    again. Images that are lost go with their labels.

    Args:
        store: the store's folder, or its URL (docs/objects.md).
        deep: take out images that cannot be decoded, too. Those that cannot be read from here (a disk that is not
            there, a web server that may not be asked) stay, and are named.
        allow_remote: fetch images from the web that the store keeps by reference: protocols (http, https), or the
            beginning of URLs, also of servers in this machine's own network (docs/store.md).
        max_pixels: as `store check` was given it: images and maps with more pixels are taken out.
        progress: show a progress bar.

    Examples:
        polyteach store repair store && polyteach label store --teacher boxes=... --retry
    """
    from polyteach.store import Store

    opened = Store.open(store, limits=Limits(listed(allow_remote), max_pixels))
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
    parts = {_file(opened.path / "images", part, opened): part for part in opened.parts()}
    images = {parts[file]: wrong for file, wrong in by_file.items() if file in parts}
    labels: dict[int, dict[str, list[Fault]]] = {}
    aside: list[tuple[str, list[Fault]]] = []
    there = {_file(s.path, p, opened): p for s in _sets(opened)[0] for p in s.parts()}
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


def _refuse(store: "Store", files: Collection[str]) -> None:
    """Raises:
    ValueError: one of the files could not be mended, since it lies behind a link, or BROKEN is none of our folders.
        Nothing has been changed then.
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


def _set_aside(store: "Store", file: str, keep: bool = False) -> None:
    """Move into broken/, beside what is there already; copy, where it is replaced afterwards (`keep`)."""
    from polyteach.storage import move

    *folders, name = file.split("/")
    source, home = store.own(*folders) / name, store.own(BROKEN, *folders)
    home.mkdir(parents=True, exist_ok=True)
    target, k = home / name, 1
    while target.exists() or (isinstance(target, Path) and target.is_symlink()):
        target, k = home / f"{name}.{k}", k + 1
    move(source, target, keep)


def _mend(store: "Store", part: int, images: list[Fault], labels: Mapping[str, list[Fault]], deep: bool) -> None:
    """Write a part anew with what is right in it: the images, if those are wrong, and the labels that follow them.

    images: what is wrong with them. labels: by file what is wrong with a set's answers about them. deep: images that
    cannot be decoded are wrong too, of a part that could not be read before. The images come last: killed on the way,
    the same faults are found again, and the same is kept.
    """
    from polyteach.store import LabelSet

    file, kept = _file(store.path / "images", part, store), None
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
    for task, name in sorted({(s.task, s.name) for s in _sets(store)[0]}):
        one = LabelSet(store, task, name)
        mine = _file(one.path, part, store)
        if one.has(part) and (images or mine in labels):
            _mend_labels(one, part, rows, labels.get(mine, []), bool(images))
    if kept is not None:
        _set_aside(store, file, keep=bool(kept))
        if kept:
            store.write_images(part, kept)
        say(f"{file}: {len(kept)} images kept; the broken part and its labels are in {BROKEN}/", stream=sys.stdout)


def _decodes(store: "Store", row: "ImageRow") -> bool:
    try:
        store.picture(row)
    except OSError:  # nothing is known of the image then
        return True
    except ValueError:
        return False
    return True


def _distinct(found: "Iterator[tuple[int, ImageRow]]") -> "Iterator[tuple[int, ImageRow]]":
    """Without those whose id has come already."""
    seen: set[str] = set()
    for i, row in found:
        if row.id not in seen:
            seen.add(row.id)
            yield i, row


def _encoded(labels: "LabelSet", answer: "Answer", size: tuple[int, int]) -> dict[str, Any] | None:
    """An answer as its part keeps it, None where it does not fit an image of that size."""
    from polyteach.tasks import load_task
    from polyteach.tasks.contract import Target

    try:
        if isinstance(answer, Target):
            load_task(labels.task).check(answer, size, labels.space)
        return labels.encode(answer)
    except Exception:  # whatever a value out of its range makes of tensors
        return None


def _mend_labels(labels: "LabelSet", part: int, rows: "Sequence[ImageRow]", wrong: list[Fault], moved: bool) -> None:
    """Keep the answers of the images `rows` that can be read and that fit; the others become failures.

    wrong: what is wrong with the answers. moved: the images change too, which says by itself that labels do.
    """
    from polyteach.batches import by_people

    store, file = labels.store, _file(labels.path, part, labels.store)
    for fault in wrong:
        say(str(fault), stream=sys.stdout)
    sizes = {r.id: (r.height, r.width) for r in rows}
    kept: dict[str, dict[str, Any]] = {}
    for id, answer in labels.salvaged(part):
        if id in sizes and id not in kept and (row := _encoded(labels, answer, sizes[id])) is not None:
            kept[id] = row
    people = by_people(labels)
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


# ---------------------------------------------------------------------------------------------------------------------


def merge(
    out: tyro.conf.Positional[str], stores: tyro.conf.Positional[Sequence[str]], *, progress: bool = True
) -> None:
    """Write the images and label sets of several stores into a new one.

    An image that several stores have (the same id and the same bytes or place) comes once, with the labels of all of
    them; where two have an answer to the same question, the store that is named first wins. Sets of the same task and
    name become one. A merge that was stopped goes on when the same command is given again.

    Args:
        out: folder or URL of the new store.
        stores: folders or URLs of the others, which stay as they are.
        progress: show a progress bar.

    Raises:
        ValueError: two stores have different images under one id, or label sets of one name from different teachers or
            with different classes.

    Examples:
        polyteach store merge all store1 store2 store3
    """
    from polyteach.fields import Fields
    from polyteach.files import write_json
    from polyteach.progress import track
    from polyteach.storage import to_path
    from polyteach.store import Store

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
    licences = sorted({str(s.ingested().get("licence")) for s in given})
    if not (path / "ingest.json").exists():
        write_json(path / "ingest.json", {"source": asked["stores"], "licence": ", ".join(licences), "finished": True})
    write_json(record, asked | {"finished": True})


def _compatible(stores: "Sequence[Store]") -> None:
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


_Where = tuple[int, int, int]
"""Store, part, row."""
_Sets = dict[tuple[str, str], dict[int, "LabelSet"]]
"""By task and name, the label set of each store that has it."""


def _homes(stores: "Sequence[Store]") -> tuple[dict[str, _Where], dict[str, list[_Where]]]:
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


def _rows(stores: "Sequence[Store]", places: Sequence[_Where]) -> "list[ImageRow]":
    return [stores[k].images(part, rows=[i])[0] for k, part, i in places]


def _merge_part(
    whole: "Store", number: int, written: bool, store: "Store", k: int, part: int, sets: _Sets,
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


def _answered(answer: "Answer") -> bool:
    return answer is not None and not isinstance(answer, str)
