"""Ingest: a dataset, labelled or not, into a store of images and people's labels."""

import errno
import os
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from polyteach.curation.ingest_record import STATE, left_out, refuse_finished, started
from polyteach.curation.look import Looker, Notes, Seen, read_notes, sum_notes, unique
from polyteach.datasets import Dataset, load_dataset, locate
from polyteach.ground.fields import Fields
from polyteach.ground.files import write_json
from polyteach.ground.limits import Limits
from polyteach.ground.progress import track
from polyteach.ground.storage import AnyPath, to_path
from polyteach.ground.texts import say
from polyteach.store import LabelSet, Store
from polyteach.tasks.target import PEOPLE
from polyteach.version import __version__

_NOTES = "notes"
"""Folder of what was found in the images and in people's labels, by part: a run that goes on adds them all up."""
_AHEAD = 4, 2**29
"""Images per thread that are read ahead, and bytes in all of those from archives: bounds the memory."""


def fill_store(
    source: str,
    store: str | Path,
    embed: bool,
    part_size: int,
    limits: Limits,
    min_side: int,
    workers: int,
    licence: str | None,
    skip_bad: bool,
    progress: bool,
) -> Store:
    """Make a store of the dataset at `source`, or go on with it; the options are those of `polyteach ingest`.

    Raises:
        ValueError: no such source, or none with images; a label is broken, and not `skip_bad`; the store exists, or is
            an unfinished one of other arguments or of a source that has changed since.
        OSError: the disk is full; whole parts stay.
    """
    about: dict[str, Any] = {
        "source": ":".join(locate(source)),
        "embed": embed,
        "licence": licence,
        "part_size": part_size,
        "max_pixels": limits.max_pixels,
        "min_side": min_side,
        "allow_remote": list(limits.allow_remote),
        "workers": workers or _cores(),
        "skip_bad": skip_bad,
    }
    path = to_path(store)
    refuse_finished(path, about)
    dataset = load_dataset(source)
    dataset.limits = limits
    about["embed"] = embed or dataset.embed
    about["licence"] = licence or dataset.licence
    with _room(path):
        run = _Run(started(path, dataset, about), dataset, about)
        run.go(progress)
        totals = run.finish()
    if progress:
        _say(run, totals, forced=about["embed"] and not embed)
    return run.store


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Run:
    """The parts of a store that are missing, and the work of filling them.

    Part k holds what is usable of entries k * part_size up to (k + 1) * part_size, so that it does not depend on
    what came before, nor on where a run was stopped.
    """

    def __init__(self, store: Store, dataset: Dataset, about: dict[str, Any]) -> None:
        self.store, self.dataset, self.about = store, dataset, about
        self.ids = unique(dataset.names)
        info = {
            "teacher": PEOPLE,
            "images": {"source": about["source"], "licence": about["licence"]},
            "licence": dataset.licence,
            "polyteach": __version__,
        }
        self.sets: dict[str, LabelSet] = {
            task: store.create_set(task, PEOPLE, space, info) for task, space in dataset.spaces.items()
        }
        self.looker = Looker(store, dataset, about, self.sets)

    def go(self, progress: bool) -> None:
        """Write the parts that are missing."""
        size, entries = self.store.part_size, len(self.ids)
        there = set(self.store.parts())
        todo = [p for p in range(-(-entries // size)) if p not in there]
        total = sum(min((p + 1) * size, entries) - p * size for p in todo)
        rejects = 0
        with track("ingest", total, "images", progress) as bar:
            # neighbouring parts in one go: an archive is read forwards, and threads need not wait for a part's end
            for _, neighbours in groupby(enumerate(todo), lambda x: x[1] - x[0]):
                parts = [p for _, p in neighbours]
                seen: list[Seen] = []
                with closing(self._look(parts[0] * size, min((parts[-1] + 1) * size, entries))) as looked:
                    for i, one in looked:
                        seen.append(one)
                        rejects += one.reject is not None
                        bar.advance(1, f"{rejects:,} rejected" if rejects else "")
                        if (i + 1) % size == 0 or i + 1 == entries:
                            self._write(i // size, seen)
                            seen = []

    def _write(self, part: int, seen: list[Seen]) -> None:
        """The images last: that they are there means that the rest is."""
        good = [(s.row, s.answers) for s in seen if s.row is not None]
        self.store.write_rejects(part, [s.reject for s in seen if s.reject is not None])
        self._write_notes(part, sum_notes(s.notes for s in seen))
        for task, labels in self.sets.items():
            labels.write(part, [row.id for row, _ in good], [answers[task] for _, answers in good])
        self.store.write_images(part, [row for row, _ in good])

    def _notes(self, part: int) -> AnyPath:
        return self.store.own(_NOTES) / f"part-{part:05d}.json"

    def _write_notes(self, part: int, notes: Notes) -> None:
        """As the rejects: before the images, and nothing of an earlier try stays."""
        if notes:
            write_json(self._notes(part), notes)
        else:
            self._notes(part).unlink(missing_ok=True)

    def _look(self, start: int, stop: int) -> Generator[tuple[int, Seen], None, None]:
        """Entries `start` up to `stop` in order, looked into by threads a bounded way ahead."""
        workers: int = self.about["workers"]
        waiting: deque[tuple[int, Future[Seen], int]] = deque()
        held = 0
        pool = ThreadPoolExecutor(workers, thread_name_prefix="ingest")
        try:
            i = start - 1
            for i, entry in enumerate(self.dataset.entries(start, stop), start):
                size = len(entry.data or b"")
                waiting.append((i, pool.submit(self.looker.look, self.ids[i], entry), size))
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
        path = self.store.path / STATE
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
        notes = sum_notes(read_notes(Fields.read(file)) for file in files if file.exists())
        totals["notes"] = {task: dict(sorted(found.items())) for task, found in sorted(notes.items())}
        totals["skip_bad"] = self.about["skip_bad"]  # of the run that ended it, which may be another than began it
        write_json(path, Fields.read(path).value | totals | {"finished": True})
        return totals


@contextmanager
def _room(path: AnyPath) -> Iterator[None]:
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
    lines = [f"{path}: {totals['images']:,} images{left_out(run.dataset)}", *run.dataset.notes]
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
