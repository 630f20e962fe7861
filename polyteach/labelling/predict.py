"""The work behind `polyteach predict`: a student over images, into targets, a store of them, and drawings.

Images are answered in batches; of each batch the lines are printed, the drawings drawn and the answers handed to the
store before the next, so that memory does not grow with their number. What grows is a text for each file given, and
the answers themselves where whoever calls wants them.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from polyteach.ground.devices import find_device, warn_if_slow
from polyteach.ground.files import write_json
from polyteach.ground.geometry import whole
from polyteach.ground.images import BadImage, decode
from polyteach.ground.limits import Limits
from polyteach.ground.progress import Progress, track
from polyteach.ground.texts import say
from polyteach.ground.uris import read_file
from polyteach.labelling.frames import frames
from polyteach.labelling.inputs import arriving, files_of, is_video
from polyteach.labelling.keeper import Drawings, Keeper, utf8
from polyteach.labelling.lines import lines
from polyteach.labelling.options import Coming, Predicting, Telling
from polyteach.labelling.unreadable import Counted
from polyteach.loading.stream import Decoded, Stream
from polyteach.store.codec import columns_of
from polyteach.tasks.contract import Target
from polyteach.teachers import load_teacher
from polyteach.teachers.contract import Teacher

THREADS = 2
"""That decode images ahead of the student."""
RECORD = "predict.json"
_NAMELESS = "its name is no UTF-8: it is answered, but a store cannot refer to it"


@dataclass(frozen=True)
class Wish:
    """What is asked for; see `polyteach.verbs.predict`. keep: answers are returned."""

    run: str
    images: tuple[str, ...]
    out: Path | None
    telling: Telling
    predicting: Predicting
    coming: Coming
    max_pixels: int
    pictures: bool
    progress: bool
    keep: bool

    def record(self) -> dict[str, object]:
        """What predict.json says, by which a stopped run is known again."""
        return {
            "run": self.run, "images": list(self.images), "precision": self.predicting.precision,
            "size": self.predicting.size, "every": self.coming.every, "max_pixels": self.max_pixels,
            "pictures": self.pictures,
        }  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One image to be answered. file: where it lies, or the video that it is of. frame: its pixels, or why there are
    none, where it is of a video. done: whether it was answered by an earlier run.
    """

    id: str
    file: str
    frame: Tensor | str | None = None
    done: bool = False


@dataclass
class _Work:
    """A student at work, and what becomes of its answers.

    answers: of each image in order, where they are kept; ids of images that have none are in `counted`.
    """

    wish: Wish
    teacher: Teacher
    counted: Counted
    keeper: Keeper | None
    drawings: Drawings | None
    answers: list[dict[str, Target]] = field(default_factory=list)
    before: dict[str, dict[str, Target]] = field(default_factory=dict)

    def items(self, files: Iterable[str], bar: Progress) -> Iterator[Item]:
        """What is to be answered of the files: a video's frames one by one, decoded when they are asked for."""
        done = self.keeper.done | self.keeper.failed.keys() if self.keeper is not None else set[str]()
        for file in files:
            if not is_video(file) or not os.path.isfile(file):
                yield Item(file, file, done=utf8(file) in done)
                continue
            of_it = (f"{file}#{{}}").format
            begun = {id for id in done if id.startswith(f"{utf8(file)}#")}
            for index, frame in frames(file, self.wish.coming.every, self.wish.max_pixels, begun, of_it):
                bar.total += 1
                yield Item(of_it(index), file, frame, frame is None)
            bar.total -= 1

    def answer(self, files: Sequence[str], bar: Progress) -> None:
        """Answer the files, a batch at a time, and do with the answers what is asked."""
        limits = Limits(max_pixels=self.wish.max_pixels)
        stream = Stream(
            self.items(files, bar),
            lambda item: Decoded(_pixels(item, limits)),
            batch_size=self.wish.predicting.batch_size,
            threads=THREADS,
        )
        for batch in stream:
            good = [x.image for _, x in batch if isinstance(x.image, Tensor)]
            found = iter(self.teacher(good) if good else [])
            for item, decoded in batch:
                self._one(item, decoded.image, next(found) if isinstance(decoded.image, Tensor) else {})
            bar.advance(len(batch))

    def _one(self, item: Item, image: Tensor | str, answers: dict[str, Target]) -> None:
        if self.wish.predicting.size is not None:
            answers = {k: at_most(t, self.wish.predicting.size) for k, t in answers.items()}
        title = self.drawings.title(item.id) if self.drawings is not None else ""
        if item.done:
            self._again(item)
            return
        if isinstance(image, str):
            self.counted.refuse(item.id, image)
        else:
            self.counted.answered += 1
        if self.drawings is not None and isinstance(image, Tensor):
            self.drawings.draw(title, image, answers)
        if self.keeper is not None:
            if isinstance(image, str) or utf8(item.id) != item.id:
                self.keeper.refuse(item.id, item.file, image if isinstance(image, str) else _NAMELESS)
            else:
                self.keeper.add(item.id, image, item.file if item.frame is None else None, answers)
        if self.wish.telling.show:
            bad = {item.id: image} if isinstance(image, str) else {}
            for line in lines([item.id], [answers], bad, self.teacher.objectives, self.wish.telling):
                say(line, stream=sys.stdout)
        if self.wish.keep:
            self.answers.append(answers)

    def _again(self, item: Item) -> None:
        """An image that an earlier run has answered, or refused."""
        assert self.keeper is not None
        reason = self.keeper.failed.get(utf8(item.id))
        if reason is not None and reason != _NAMELESS:
            self.counted.refuse(item.id, reason)
        else:
            self.counted.answered += 1
        if self.wish.keep:
            self.answers.append(self.before.get(item.id, {}))


def run(wish: Wish) -> list[dict[str, Target]] | int:
    """Answer the images, keep and draw the answers where `out` says, and print them.

    Returns one dictionary objective -> target per image, in order; where they are not kept, how many have none.

    Raises:
        ValueError: no image, no device of that name, no finished run; `out` was begun by another command.
        Unreadable: none of the images can be read.
    """
    files = files_of(wish.images)
    folders = [one for one in wish.images if os.path.isdir(one)]
    if (not files or all(os.path.isdir(f) for f in files)) and not wish.coming.watch:
        raise ValueError(f"no image in {', '.join(wish.images)}")
    device = find_device(wish.predicting.device)
    teacher = load_teacher(f"own:{wish.run}", device, wish.predicting.precision)
    warn_if_slow(torch.device(device).type, wish.predicting.precision)
    record = wish.record() | {"device": device, "batch_size": wish.predicting.batch_size}
    keeper = drawings = None
    if wish.out is not None:
        write_json(wish.out / RECORD, record | {"finished": False})
        keeper = Keeper(wish.out / "store", teacher)
        drawings = Drawings(wish.out, teacher.objectives) if wish.pictures else None
    work = _Work(wish, teacher, Counted(), keeper, drawings)
    if keeper is not None and (done := len(keeper.done) + len(keeper.failed)):
        say(f"{wish.out}: {done:,} images were answered before; going on with the others")
        work.before = keeper.answers() if wish.keep else {}
    try:
        with track("predict", len(files), "images", wish.progress) as bar:
            work.answer([f for f in files if not (wish.coming.watch and os.path.isdir(f))], bar)
        if wish.coming.watch:
            _watch(work, folders, set(files))
    except KeyboardInterrupt as e:
        if keeper is not None:
            keeper.close()
        raise KeyboardInterrupt(*(str(a) for a in (e.args or ("",))[:1]), _stopped(wish)) from e
    if keeper is not None and wish.out is not None:
        keeper.close()
        write_json(wish.out / RECORD, record | {"finished": True})
    if not wish.coming.watch:
        work.counted.check()
    return work.answers if wish.keep else len(work.counted.bad)


def _watch(work: _Work, folders: Sequence[str], seen: set[str]) -> None:
    """Answer what comes into the folders, until Ctrl-C."""
    if work.wish.progress:
        say(f"predict: waiting for new files in {', '.join(folders)}; Ctrl-C ends it")
    try:
        for files in arriving(folders, seen):
            if files:
                with track("predict", len(files), "images", False) as bar:
                    work.answer(files, bar)
    except KeyboardInterrupt:
        return


def _stopped(wish: Wish) -> str:
    if wish.out is None:
        return "nothing is kept. The same command begins anew."
    return f"what was answered is in {wish.out / 'store'}. The same command goes on."


def _pixels(item: Item, limits: Limits) -> Tensor | str:
    if item.done:
        return "answered before"
    return read_image(item.file, limits) if item.frame is None else item.frame


def read_image(file: str, limits: Limits) -> Tensor | str:
    """The image, (3, H, W) uint8, or the reason why there is none."""
    try:
        return decode(read_file(file, limits), limits.max_pixels)
    except FileNotFoundError:
        return "no such image or folder"
    except OSError as e:
        return "a folder without an image" if os.path.isdir(file) else f"cannot be read: {e.strerror or e}"
    except MemoryError:
        return "there is not enough memory to decode it"
    except BadImage as e:
        return str(e)


def at_most(target: Target, longest: int) -> Target:
    """The target with its maps and outlines at a longest side of so many cells, by the nearest; smaller ones stay."""
    smaller = {}
    for name, how in columns_of(type(target)).items():
        value = getattr(target, name)
        if how.kind not in ("map", "masks") or value is None or max(value.shape[-2:]) <= longest:
            continue
        m, n = int(value.shape[-2]), int(value.shape[-1])
        size = (max(round(m * longest / max(m, n)), 1), max(round(n * longest / max(m, n)), 1))
        smaller[name] = whole((m, n), size).dense(value)
    return replace(target, **smaller) if smaller else target
