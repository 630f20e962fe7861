"""Ingest: a dataset, labelled or not, into a store of images and people's labels."""

import errno
import os
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from polyteach.arguments import listed
from polyteach.limits import MAX_PIXELS, Limits
from polyteach.texts import say

if TYPE_CHECKING:
    from polyteach.datasets import Dataset, Entry
    from polyteach.fields import Fields
    from polyteach.storage import AnyPath
    from polyteach.store import Answer, ImageRow, LabelSet, Store

_STATE = "ingest.json"
_NOTES = "notes"
"""Folder of what was found in the pictures and in people's labels, by part: a run that goes on adds them all up."""
_COMPARED = ("source", "licence", "embed", "part_size", "max_pixels", "min_side")
"""What two runs must agree on to fill one store. The number of threads changes nothing in it, and a run that stopped at
a bad label may go on without it."""

_Notes = dict[str, Counter[str]]
"""By task, and of the pictures by "": how many things there is a note about, and of how many (by "objects")."""

_AHEAD = 4, 2**29
"""Pictures per thread that are read ahead, and bytes in all of those from archives: bounds the memory."""


def ingest(
    source: Positional[str | Path],
    store: Positional[str | Path],
    *,
    embed: bool = False,
    part_size: int = 1024,
    max_pixels: int = MAX_PIXELS,
    min_side: int = 8,
    allow_remote: Sequence[str] = (),
    workers: int = 0,
    licence: str | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> "Store":
    """Make a store of a dataset's images, and of people's labels where the dataset has them.

    Every image is decoded once, so that the store holds none that cannot be used, and its height and width are
    recorded as a person sees it (EXIF orientation applied). A picture that cannot be decoded goes to the store's
    rejects with the reason, and never stops the run. A labelled dataset that contradicts itself does (a picture that
    is missing, a broken label, a box outside of its picture), unless `skip_bad` is on. What was mended in people's
    labels, and what of them is of no use, is counted, told at the end and kept in the store's ingest.json. All splits
    go into one store. The images' order is the source's (a folder's: by path), and the same source makes the same
    store byte for byte.

    Work goes part by part: what is written is whole, and a run that was stopped goes on where it was when the same
    command is given again. A finished store is never overwritten.

    Args:
        source: a folder, a .txt list (one path a line), a .tar, a .parquet, or FORMAT:PATH, where FORMAT is a file of
            polyteach/datasets, such as coco, imagenet, folder (class folders), voc.
        store: folder of the store to make, or its URL (docs/objects.md).
        embed: keep the images' bytes in the store, else only where they lie. Archives (tar, Parquet) are always kept.
        part_size: images per part. Parts are the unit of resume and of work; embedded, one is held in memory.
        max_pixels: refuse images with more pixels than this.
        min_side: refuse images with a side of fewer pixels than this.
        allow_remote: where else than from files of this machine and object storage pictures may be fetched: a protocol
            (http, https), or the beginning of URLs, also of servers in this machine's own network (docs/store.md).
        workers: threads that read and decode; 0 is one per core.
        licence: of the images, kept with each.
        skip_bad: leave out images whose labels are broken, and labelled pictures that are missing, and record them in
            the rejects; else the first of them is an error.
        progress: show a progress bar and the summary.

    Returns:
        The store, opened.

    Raises:
        ValueError: no such source, or none with images; a label is broken, and `skip_bad` is off; the store exists,
            or is an unfinished one of other arguments or of a source that has changed since.
        OSError: the disk is full; whole parts stay.

    Examples:
        polyteach ingest photographs/ store

        polyteach ingest shards.tar store --licence CC-BY-4.0

        polyteach ingest coco:/data/coco store --skip-bad

        polyteach ingest folder:/data/flowers store

        polyteach ingest 'parquet:train-00000.parquet?image=photo' store
    """
    from polyteach.datasets import load_dataset, locate
    from polyteach.storage import to_path

    source = str(source)
    for what, value, least in (
        ("part_size", part_size, 1),
        ("min_side", min_side, 1),
        ("workers", workers, 0),
    ):
        if value < least:
            raise ValueError(f"{what} must be at least {least}; got {value}")
    limits = Limits(listed(allow_remote), max_pixels)
    about: dict[str, Any] = {
        "source": ":".join(locate(source)),
        "embed": embed,
        "licence": licence,
        "part_size": part_size,
        "max_pixels": max_pixels,
        "min_side": min_side,
        "allow_remote": list(limits.allow_remote),
        "workers": workers or _cores(),
        "skip_bad": skip_bad,
    }
    path = to_path(store)
    _refuse_finished(path, about)
    dataset = load_dataset(source)
    dataset.limits = limits
    about["embed"] = embed or dataset.embed
    about["licence"] = licence or dataset.licence
    with _room(path):
        run = _Run(_started(path, dataset, about), dataset, about)
        run.go(progress)
        totals = run.finish()
    if progress:
        _say(run, totals, forced=about["embed"] and not embed)
    return run.store


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _refuse_finished(path: "AnyPath", about: dict[str, Any]) -> None:
    """Whether `path` is free, or an unfinished ingest of the same; before the source is listed, which may take long."""
    if not (path / _STATE).exists():
        return
    old = _begun(path)
    if old["finished"]:
        raise ValueError(
            f"{path} is a finished store of {old['source']} ({old.get('images') or 0:,} images); ingest never "
            "overwrites one. "
            f"Label it: polyteach label {path} --teacher NAME=SPEC; or choose another folder, or delete this one"
        )
    if old["source"] != about["source"]:
        raise ValueError(_other(path, f"source was {old['source']}, is {about['source']}"))


def _begun(path: "AnyPath") -> dict[str, Any]:
    """What ingest.json of a store says.

    Raises:
        ValueError: it is broken; names the field.
    """
    from polyteach.fields import Fields

    about = Fields.read(path / _STATE, f"Choose another folder, or delete {path}")
    if about.flag("finished"):
        if isinstance(about.value.get("source"), list):  # of a merge
            about.texts("source")
        else:
            about.text("source")
        about.count("images", null=True)
        return about.value
    for key in ("source", "names_sha256"):
        about.text(key)
    about.text("licence", null=True)
    about.flag("embed")
    for key in ("part_size", "max_pixels", "min_side", "entries"):
        about.count(key)
    return about.value


def _other(path: "AnyPath", what: str) -> str:
    return f"{path} is an unfinished ingest: {what}. Give the first run's arguments to go on, or delete {path}"


def _started(path: "AnyPath", dataset: "Dataset", about: dict[str, Any]) -> "Store":
    """A new store, or an unfinished one of the same dataset and arguments."""
    import hashlib

    import polyteach
    from polyteach.files import differences, sweep, write_json
    from polyteach.store import Store

    names = hashlib.sha256("\0".join(dataset.names).encode()).hexdigest()
    entries = len(dataset.names)
    if not entries:
        raise ValueError(f"{about['source']} has no images{_left_out(dataset)}")
    if (path / _STATE).exists():
        old = _begun(path)
        differs = differences({k: old[k] for k in _COMPARED}, {k: about[k] for k in _COMPARED})
        if differs:
            raise ValueError(_other(path, "; ".join(differs)))
        if (old["entries"], old["names_sha256"]) != (entries, names):
            change = f"{old['entries']:,} entries then, {entries:,} now"
            change = change if old["entries"] != entries else f"{entries:,} entries as then, but under other names"
            raise ValueError(
                f"{about['source']} has changed since this ingest into {path} began: {change}. "
                f"Restore it to go on, or delete {path} and begin anew"
            )
        return Store.open(path, limits=dataset.limits)
    sweep(path)
    if path.is_dir() and [p.name for p in path.iterdir()] == ["store.json"]:
        (path / "store.json").unlink()  # an ingest was killed between its first two files: nothing is in there
    try:
        store = Store.create(path, about["part_size"], dataset.limits)
        begun = {"verb": "ingest", "polyteach": polyteach.__version__} | about
        counts = {"entries": entries, "names_sha256": names, "left_out": dict(sorted(dataset.left_out.items()))}
        counts["read"] = dataset.notes
        write_json(path / _STATE, begun | counts | {"finished": False})
    except PermissionError as e:
        raise ValueError(f"{path} cannot be written: {e.strerror}") from e
    return store


def _left_out(dataset: "Dataset") -> str:
    if not dataset.left_out:
        return ""
    kinds = ", ".join(f"{n:,} {what}" for what, n in dataset.left_out.most_common(8))
    more = len(dataset.left_out) - 8
    return f"; {dataset.left_out.total():,} other files were left out: {kinds}{f' and {more} more' if more > 0 else ''}"


@dataclass(frozen=True)
class _Seen:
    """An entry after it was looked into: a row with people's answers, or a reject."""

    row: "ImageRow | None" = None
    reject: tuple[str, str | None, str] | None = None
    answers: "dict[str, Answer]" = field(default_factory=dict)
    notes: _Notes = field(default_factory=dict)


class _Run:
    """The parts of a store that are missing, and the work of filling them.

    Part k holds what is usable of entries k * part_size up to (k + 1) * part_size, so that it does not depend on
    what came before, nor on where a run was stopped.
    """

    def __init__(self, store: "Store", dataset: "Dataset", about: dict[str, Any]) -> None:
        import polyteach
        from polyteach.tasks.contract import PEOPLE

        self.store, self.dataset, self.about = store, dataset, about
        self.strict = bool(dataset.spaces) and not about["skip_bad"]
        self.ids = unique(dataset.names)
        info = {
            "teacher": PEOPLE,
            "images": {"source": about["source"], "licence": about["licence"]},
            "licence": dataset.licence,
            "polyteach": polyteach.__version__,
        }
        self.sets: dict[str, LabelSet] = {
            task: store.create_set(task, PEOPLE, space, info) for task, space in dataset.spaces.items()
        }

    def go(self, progress: bool) -> None:
        """Write the parts that are missing."""
        from polyteach.progress import track

        size, entries = self.store.part_size, len(self.ids)
        there = set(self.store.parts())
        todo = [p for p in range(-(-entries // size)) if p not in there]
        total = sum(min((p + 1) * size, entries) - p * size for p in todo)
        rejects = 0
        with track("ingest", total, "images", progress) as bar:
            # neighbouring parts in one go: an archive is read forwards, and threads need not wait for a part's end
            for _, neighbours in groupby(enumerate(todo), lambda x: x[1] - x[0]):
                parts = [p for _, p in neighbours]
                seen: list[_Seen] = []
                with closing(self._look(parts[0] * size, min((parts[-1] + 1) * size, entries))) as looked:
                    for i, one in looked:
                        seen.append(one)
                        rejects += one.reject is not None
                        bar.advance(1, f"{rejects:,} rejected" if rejects else "")
                        if (i + 1) % size == 0 or i + 1 == entries:
                            self._write(i // size, seen)
                            seen = []

    def _write(self, part: int, seen: list[_Seen]) -> None:
        """The images last: that they are there means that the rest is."""
        good = [(s.row, s.answers) for s in seen if s.row is not None]
        self.store.write_rejects(part, [s.reject for s in seen if s.reject is not None])
        self._write_notes(part, _sum(s.notes for s in seen))
        for task, labels in self.sets.items():
            labels.write(part, [row.id for row, _ in good], [answers[task] for _, answers in good])
        self.store.write_images(part, [row for row, _ in good])

    def _notes(self, part: int) -> "AnyPath":
        return self.store.own(_NOTES) / f"part-{part:05d}.json"

    def _write_notes(self, part: int, notes: _Notes) -> None:
        """As the rejects: before the images, and nothing of an earlier try stays."""
        from polyteach.files import write_json

        if notes:
            write_json(self._notes(part), notes)
        else:
            self._notes(part).unlink(missing_ok=True)

    def _look(self, start: int, stop: int) -> Generator[tuple[int, _Seen], None, None]:
        """Entries `start` up to `stop` in order, looked into by threads a bounded way ahead."""
        from concurrent.futures import Future, ThreadPoolExecutor

        workers: int = self.about["workers"]
        waiting: deque[tuple[int, Future[_Seen], int]] = deque()
        held = 0
        pool = ThreadPoolExecutor(workers, thread_name_prefix="ingest")
        try:
            i = start - 1
            for i, entry in enumerate(self.dataset.entries(start, stop), start):
                size = len(entry.data or b"")
                waiting.append((i, pool.submit(self._one, i, entry), size))
                held += size
                while len(waiting) > _AHEAD[0] * workers or (held > _AHEAD[1] and waiting):
                    at, result, size = waiting.popleft()
                    held -= size
                    yield at, result.result()
            if i != stop - 1:
                raise ValueError(f"{self.about['source']} ended at entry {i + 1:,} of {stop:,}: it has changed")
            while waiting:
                at, result, _ = waiting.popleft()
                yield at, result.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _one(self, i: int, entry: "Entry") -> _Seen:
        from polyteach.datasets import printable
        from polyteach.images import BadImage, faint, measure
        from polyteach.store import ImageRow
        from polyteach.uris import read_uri

        id, uri = self.ids[i], None if entry.uri is None else printable(entry.uri)
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
            return _Seen(reject=(id, uri, _short(printable(str(e)))))
        except MemoryError:
            return _Seen(reject=(id, uri, "there is not enough memory to decode it"))
        embed = self.about["embed"]
        if not embed and uri != entry.uri:
            return _Seen(reject=(id, uri, "its path is not UTF-8, so a store cannot name it: rename it, or use embed"))
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
        return _Seen(row=row, answers=answers, notes=notes)

    def _bad(self, id: str, uri: str | None, reason: str) -> _Seen:
        """What the dataset gets wrong: an error where it is labelled, unless it is to be skipped."""
        if self.strict:
            raise ValueError(
                f"{self.about['source']}: {id}: {reason}. Mend it and give the same command again; or give --skip-bad, "
                f"which leaves such images out and records them in {self.store.path / 'rejects'}"
            )
        return _Seen(reject=(id, uri, _short(reason)))

    def _answers(self, entry: "Entry", size: tuple[int, int], id: str) -> "tuple[dict[str, Answer], _Notes]":
        """What people say of an image, by task: a target, or None where absent; and what there is to be told about it.

        Raises:
            ValueError, OSError: a label is broken or missing.
        """
        from polyteach.datasets import Drawn
        from polyteach.tasks import load_task

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
        notes: _Notes = {}
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

    def _splits(self) -> dict[str, int]:
        """Images by split."""
        counts: dict[str, int] = {}
        for part in self.store.parts():
            for row in self.store.images(part, data=False):
                name = "none" if row.split is None else row.split
                counts[name] = counts.get(name, 0) + 1
        return dict(sorted(counts.items()))

    def finish(self) -> dict[str, Any]:
        """Record the totals: from then on the store is finished, and refuses to be overwritten.

        Raises:
            ValueError: no image is left.
        """
        from polyteach.fields import Fields
        from polyteach.files import write_json

        path = self.store.path / _STATE
        rejects = self.store.rejects()
        if len(rejects) == len(self.ids):
            id, _, reason = rejects[0]
            raise ValueError(
                f"{self.about['source']}: all {len(rejects):,} images were refused, the first ({id}) as {reason}. Mend "
                f"them, delete {self.store.path}, and begin anew"
            )
        totals: dict[str, Any] = {"images": len(self.ids) - len(rejects), "rejects": len(rejects)}
        states = {task: [s for p in labels.parts() for s in labels.states(p)] for task, labels in self.sets.items()}
        totals["people"] = {t: {s: found.count(s) for s in sorted(set(found))} for t, found in states.items()}
        totals["splits"] = self._splits()
        files = [self._notes(part) for part in self.store.parts()]
        notes = _sum(_noted(Fields.read(file)) for file in files if file.exists())
        totals["notes"] = {task: dict(sorted(found.items())) for task, found in sorted(notes.items())}
        totals["skip_bad"] = self.about["skip_bad"]  # of the run that ended it, which may be another than began it
        write_json(path, Fields.read(path).value | totals | {"finished": True})
        return totals


def _short(reason: str) -> str:
    """No longer than a person reads: what a file says may be in it."""
    return reason if len(reason) <= 1000 else f"{reason[:1000]} ..."


def _noted(said: "Fields") -> _Notes:
    """Notes of a part as a file keeps them."""
    found = [(task, said.object(task)) for task in said.value]
    return {task: Counter({k: counts.count(k) for k in counts.value}) for task, counts in found}


def _sum(notes: Iterable[_Notes]) -> _Notes:
    """Counts added up, by task."""
    total: _Notes = {}
    for one in notes:
        for task, found in one.items():
            total[task] = total.get(task, Counter()) + found
    return total


@contextmanager
def _room(path: "AnyPath") -> Iterator[None]:
    """A full disk as an error that says where, what is kept and how to go on."""
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        kept = len(list((path / "images").glob("part-*.parquet")))
        text = f"{os.strerror(e.errno)}; {kept:,} whole parts are kept, and the same command goes on"
        raise OSError(errno.ENOSPC, text, str(path)) from e


def _say(run: _Run, totals: dict[str, Any], forced: bool) -> None:
    path = run.store.path
    lines = [f"{path}: {totals['images']:,} images{_left_out(run.dataset)}", *run.dataset.notes]
    lines += [f"{n:,} images {note}" for note, n in totals["notes"].get("", {}).items()]
    if forced:
        lines.append(f"their bytes are in the store: {run.about['source'].partition(':')[0]} gives them no address")
    if list(totals["splits"]) != ["none"]:
        lines.append("splits: " + ", ".join(f"{name} {n:,}" for name, n in totals["splits"].items()))
    for task, states in totals["people"].items():
        lines.append(f"people's labels, {task}: " + ", ".join(f"{n:,} {state}" for state, n in states.items()))
        notes = dict(totals["notes"].get(task, {}))
        objects = notes.pop("objects", 0)
        lines += [f"  {n:,} of {objects:,} objects {note}" for note, n in notes.items()]
    if totals["rejects"]:
        lines.append(f"{totals['rejects']:,} rejected, see {path / 'rejects'}:")
        rejects = run.store.rejects()
        reasons = Counter(reason for _, _, reason in rejects)
        first = {reason: id for id, _, reason in reversed(rejects)}
        lines += [f"  {n:,} x {reason} ({first[reason]})" for reason, n in reasons.most_common(5)]
        if len(reasons) > 5:
            lines.append(f"  and {len(reasons) - 5:,} other reasons")
    say(*lines)


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
