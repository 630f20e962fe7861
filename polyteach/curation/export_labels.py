"""The work behind `polyteach export-labels`: a label set of a store becomes files of another tool's format."""

import csv
import io
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from polyteach.ground.endings import readable_formats
from polyteach.ground.files import new_folder
from polyteach.ground.images import BadImage, lies_turned
from polyteach.ground.names import unknown_name
from polyteach.ground.progress import track
from polyteach.ground.texts import say, shown
from polyteach.store import ROW_GROUP, Answer, ImageRow, LabelSet, Store
from polyteach.store.label_folder import named_sets
from polyteach.tasks import load_task
from polyteach.tasks.target import Policy, Space, Target
from polyteach.writers import About, LabelWriter, Sample, load_writer
from polyteach.writers._names import FileNames, class_names, file_part

LEAST = 0.5
"""Least score of pseudo labels where nothing is said: that of training."""
_PLACES = "images.csv"
_TURNED = (
    "images lie turned in their files, and their EXIF orientation says so: labels are of the upright image, as "
    "polyteach, OpenCV and Ultralytics see it; a program that does not read EXIF has to turn them first"
)


@dataclass(frozen=True)
class Wish:
    """What is asked for; see `polyteach.verbs.export_labels`."""

    format: str
    labels: str | None = None
    splits: tuple[str, ...] = ()
    score: float | None = None
    images: str = "copy"
    polygons: bool = False
    depth_scale: float | None = None


@dataclass
class _Count:
    """Images by what became of them."""

    written: int = 0
    unlabelled: int = 0
    turned: int = 0


def write_labels(store: str | Path, out: str | Path, wish: Wish, progress: bool) -> str:
    """Write the label set; returns `out`. What the format does not carry is said at the end, and in OUT/README.md.

    Raises:
        ValueError: `out` exists, no such label set or several, no such split, options that say nothing of the label
            set, no labelled image, or an image that cannot be had.
        OSError: the disk is full, or OUT cannot be written; nothing is left.
    """
    if "://" in str(out):
        raise ValueError(f"out {str(out)!r} must be a local folder; copy it to where it is wanted")
    place = Path(out)
    if place.exists() or place.is_symlink():
        raise ValueError(f"{place} exists; choose another folder")
    opened = Store.open(store)
    kind = load_writer(wish.format)
    labels = _chosen(opened, kind, wish)
    about, notes = _about(opened, labels, wish)
    count, names = _Count(), FileNames()
    with new_folder(place) as folder:
        writer = kind(folder, about)
        with writer.files:
            with track("export", sum(map(opened.count, opened.parts())), "images", progress) as bar:
                _write(_Images(opened, folder, wish, writer, count, names), labels, about, bar.advance)
            if not count.written:
                raise ValueError(f"{labels.path} has no answer for any image that is asked for: nothing to write")
            writer.finish()
            told = [*notes, *_sentences(writer, count, names, wish)]
            (folder / "README.md").write_text(_page(place, about, writer, count, told), encoding="utf-8")
    lines = [f"{place}: {count.written:,} images with {about.task}/{about.name} as {wish.format}"]
    say(*lines, *(f"{place}: {sentence}" for sentence in told))
    return str(out)


def _chosen(store: Store, kind: type[LabelWriter], wish: Wish) -> LabelSet:
    """The label set that is meant.

    Raises:
        ValueError: there is none that the format takes, or it is not clear which.
    """
    known = {f"{task}/{name}": (task, name) for task, name in named_sets(store)}
    able = {said: one for said, one in known.items() if one[0] in kind.tasks}
    takes = f"--format {wish.format} takes label sets of {', '.join(kind.tasks)}"
    if wish.labels is not None:
        if wish.labels not in known:
            raise unknown_name("label set", wish.labels, known, fix="Say --labels TASK/NAME")
        if wish.labels not in able:
            raise ValueError(f"{takes}; {wish.labels} is none")
        return LabelSet(store, *known[wish.labels])
    sets = {said: LabelSet(store, *one) for said, one in able.items()}
    people = {said: labels for said, labels in sets.items() if labels.by_people}
    left = people or sets
    if len(left) != 1:
        there = f"{store.path} has {', '.join(left or known) or 'no label set'}"
        raise ValueError(f"{takes}; {there}: {'choose one with --labels' if left else 'there is nothing to write'}")
    return next(iter(left.values()))


def _about(store: Store, labels: LabelSet, wish: Wish) -> tuple[About, list[str]]:
    """What the writer is told, and what there is to say of it.

    Raises:
        ValueError: no such split, or an option that says nothing of this label set.
    """
    task, notes = load_task(labels.task), list[str]()
    if wish.score is not None and (labels.by_people or not task.by_score):
        why = "people's labels have no score" if labels.by_people else f"{labels.task} has no scores to leave out by"
        raise ValueError(f"--score {wish.score:g}: {why}; leave it out")
    kind = load_writer(wish.format)
    for option, given in (("polygons", wish.polygons), ("depth_scale", wish.depth_scale is not None)):
        if given and labels.task not in kind.takes.get(option, ()):
            raise ValueError(
                f"--{option.replace('_', '-')} says nothing of {labels.task} as {wish.format}; leave it out"
            )
    if wish.images == "link" and kind.holds:
        raise ValueError(f"--images link: {wish.format} holds images in its files; give --images copy, or none")
    score = LEAST if wish.score is None else wish.score
    if not labels.by_people and task.by_score and wish.score is None:
        notes.append(f"pseudo labels of a score below {LEAST:g} are left out, as in training; --score 0 takes all")
    names, changed = class_names(labels.space.names)
    if changed:
        said = ", ".join(f"{shown(old)!r} is {new!r}" for old, new in list(changed.items())[:5])
        notes.append(f"{len(changed):,} classes are called otherwise, as files need it: {said}")
    if labels.calibration() is not None:
        notes.append("scores and probabilities are calibrated, as training takes them")
    about = About(
        task=labels.task,
        name=labels.name,
        space=Space(names, labels.space.kind),
        people=labels.by_people,
        score=score,
        polygons=wish.polygons,
        images=wish.images,
        splits=_splits(store, wish.splits),
        source=_source(labels),
    )
    return about if wish.depth_scale is None else replace(about, scale=wish.depth_scale), notes


def _splits(store: Store, wanted: Sequence[str]) -> tuple[str, ...]:
    """The names of the folders of the splits that are written, sorted; "" for that of images of none.

    Raises:
        ValueError: no such split, or two that have one name as folders.
    """
    index = store.splits()
    there = {split or "" for part in store.parts() for split in index.values(part)}
    for name in wanted:
        if name not in there:
            raise unknown_name("split", name, sorted(filter(None, there)))
    chosen = sorted(set(wanted) or there)
    folders = [file_part(name) for name in chosen]
    if len({f.casefold() for f in folders}) < len(folders):
        raise ValueError(f"splits {', '.join(map(repr, chosen))} have one name as folders: give one with --split")
    return tuple(folders)


def _source(labels: LabelSet) -> str:
    teacher, licence = labels.info.get("teacher"), labels.info.get("licence")
    who = "people" if labels.by_people else str(teacher.get("spec")) if isinstance(teacher, dict) else labels.name
    own = licence or (teacher.get("licence") if isinstance(teacher, dict) else None)
    return f"{who} (licence: {own})" if own else who


def _write(images: "_Images", labels: LabelSet, about: About, advance: Callable[[int], None]) -> None:
    """Hand every labelled image to the writer, a row group at a time."""
    store, policy = images.store, Policy(score=about.score)
    for part in store.parts():
        total, has = store.count(part), labels.has(part)
        for first in range(0, total, ROW_GROUP):
            at = range(first, min(first + ROW_GROUP, total))
            rows = store.images(part, data=False, rows=at)
            chosen = [i for i, row in zip(at, rows, strict=True) if images.asked(row)]
            answers: list[Answer] = labels.read(part, chosen) if has and chosen else [None] * len(chosen)
            good = [(i, a) for i, a in zip(chosen, answers, strict=True) if isinstance(a, Target)]
            images.count.unlabelled += len(chosen) - len(good)
            full = store.images(part, data=images.wish.images == "copy", rows=[i for i, _ in good]) if good else []
            for (i, answer), row in zip(good, full, strict=True):
                sample = images.sample(part * store.part_size + i + 1, row)
                target = answer if about.people else labels.calibrated(answer, policy)
                images.writer.add(sample, target)
                images.count.written += 1
            advance(len(at))


class _Images:
    """Puts images where the files that are written look for them."""

    def __init__(
        self, store: Store, folder: Path, wish: Wish, writer: LabelWriter, count: _Count, names: FileNames
    ) -> None:
        self.store, self.folder, self.wish, self.writer = store, folder, wish, writer
        self.count, self.names = count, names
        self._made: set[str] = set()

    def asked(self, row: ImageRow) -> bool:
        """Whether an image is of a split that is written."""
        return not self.wish.splits or row.split in self.wish.splits

    def sample(self, number: int, row: ImageRow) -> Sample:
        """The image as the writer is told of it, copied or linked.

        Raises:
            ValueError: it cannot be had, or not linked.
        """
        split, size = file_part(row.split or ""), (row.height, row.width)
        stem, ending = self.names.name(row.id, split)
        if self.wish.images == "link" and (row.uri is None or not row.uri.startswith("/")):
            raise ValueError(f"image {row.id!r} is no file of this machine that could be linked: give --images copy")
        data = None
        if self.wish.images != "none":
            try:
                data = self.store.read(row)
                self.count.turned += lies_turned(data, self.store.limits.max_pixels, size)
            except (OSError, BadImage) as e:
                raise ValueError(
                    f"image {row.id!r} cannot be read: {e}. Put it back where it lay, or give --images none"
                ) from e
        ending = ending or _ending(data)
        file = f"{self.writer.place(split)}/{stem}{ending}"
        sample = Sample(number, row.id, file, split, size, row.uri, None, row.licence)
        if self.writer.holds:
            return replace(sample, data=data)
        if self.wish.images == "none":
            self._place(sample)
        else:
            self._put(self.folder / file, data, row.uri)
        return sample

    def _put(self, path: Path, data: bytes | None, uri: str | None) -> None:
        if str(path.parent) not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(str(path.parent))
        if self.wish.images == "link":
            os.symlink(str(uri), path)
        elif data is not None:
            path.write_bytes(data)

    def _place(self, sample: Sample) -> None:
        """Say in a table where an image lies that is not written."""
        path = self.folder / _PLACES
        new = not path.exists()
        with open(path, "a", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            if new:
                rows.writerow(["file", "id", "where"])
            rows.writerow([sample.file, sample.id, sample.uri or f"in the store {self.store.path}"])


def _ending(data: bytes | None) -> str:
    """The ending of an image's file by its bytes; "" without any."""
    if data is None:
        return ""
    with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
        known: Collection[str] = [end for end, name in Image.registered_extensions().items() if name == image.format]
    return ".jpg" if ".jpg" in known else min(known, key=len, default="")


def _sentences(writer: LabelWriter, count: _Count, names: FileNames, wish: Wish) -> Iterator[str]:
    """What there is to say at the end."""
    if count.unlabelled:
        yield f"{count.unlabelled:,} images have no answer in the label set and were left out"
    if count.turned:
        yield f"{count.turned:,} {_TURNED}"
    if names.changed and not writer.holds:
        yield f"{names.changed:,} images are called otherwise than in the store, each by a name of its own"
    if wish.images == "none" and not writer.holds:
        yield f"images are not in it: {_PLACES} says where each lies, and which file it is to be"
    yield from writer.told.notes
    yield from (f"{n:,} {what}" for what, n in writer.told.lost.items() if n)


def _page(place: Path, about: About, writer: LabelWriter, count: _Count, told: Sequence[str]) -> str:
    """README.md: what was written, of what, and what it lacks."""
    whole = about.images != "none" or writer.holds
    read = writer.told.read.format(place) if whole else ""
    head = f"# {about.task}/{about.name}\n\n{count.written:,} images, labelled by {about.source}; written by polyteach."
    again = f"\n\nRead it again with: `polyteach ingest '{read}' STORE`" if read else ""
    lines = "".join(f"\n- {shown(one)}" for one in told)
    return writer.told.head + head + again + ("\n\n## What to know\n" + lines if lines else "") + "\n"
