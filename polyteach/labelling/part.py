"""Work on one part of a store: its images decoded, the teachers asked about them, the answers encoded and written."""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from polyteach.ground.images import BadImage
from polyteach.ground.progress import Progress
from polyteach.labelling.asking import Asker, checked, told
from polyteach.labelling.costs import Ledger
from polyteach.labelling.options import Asking
from polyteach.loading.stream import Decoded, Stream
from polyteach.store import Answer, ImageRow, LabelSet, Store, Unfit
from polyteach.tasks.target import Target

ENCODING = 2
"""Batches whose answers may still be being encoded while the next one is asked about."""

Owed = list[tuple[Asker, dict[str, LabelSet]]]
"""The teachers whose label sets want a part, with those sets."""


@dataclass(frozen=True)
class Team:
    """All teachers, their label sets in one store, and each set's ledger by its path."""

    store: Store
    asking: Asking
    askers: list[Asker]
    ledgers: dict[str, Ledger]

    @property
    def sets(self) -> list[LabelSet]:
        """All label sets that are filled."""
        return [labels for asker in self.askers for labels in asker.sets.values()]

    def ledger(self, labels: LabelSet) -> Ledger:
        """The account of one of its sets."""
        return self.ledgers[str(labels.path)]

    def wants(self, labels: LabelSet, part: int) -> bool:
        """Whether the part has to be (re)written for this set."""
        if not labels.has(part):
            return True
        return self.asking.retry and "failed" in labels.states(part)

    def owed(self, part: int) -> Owed:
        """The teachers whose label sets want that part, with those sets."""
        work = [(a, {k: s for k, s in a.sets.items() if self.wants(s, part)}) for a in self.askers]
        return [(asker, sets) for asker, sets in work if sets]

    def chosen(self, row: ImageRow) -> bool:
        """Whether an image is of the splits that are labelled."""
        return not self.asking.split or row.split in self.asking.split

    def do(self, part: int) -> dict[str, Any]:
        """Fill what is missing of one part; returns what it has cost, by path of the label set."""
        for ledger in self.ledgers.values():
            ledger.clear()
        self.fill(part, self.owed(part), Progress("label", 0, "images"))
        return {path: ledger.total() for path, ledger in self.ledgers.items()}

    def fill(self, part: int, work: Owed, bar: Progress) -> None:
        """Ask the teachers about a part's images, and write it. Answers are encoded by threads as they come.

        So a device does not wait for the encoding, and no more than a few batches are held as they were answered: an
        image's maps in float32 are a hundred times what is kept of them.

        Raises:
            Broken: a teacher or its device works no longer; nothing of the part is written.
        """
        rows = self.store.images(part)
        sheet = _Sheet(self, part, rows, work)
        stream = Stream(
            sheet.wanted,
            lambda i: Decoded(read_image(self.store, rows[i])),
            batch_size=self.asking.batch_size,
            threads=self.asking.threads,
            pixels=lambda i: rows[i].height * rows[i].width,
        )
        encoding: deque[list[Future[dict[str, Any]]]] = deque()
        with ThreadPoolExecutor(self.asking.threads, "encode") as pool:
            for batch in stream:
                images = {i: decoded.image for i, decoded in batch}
                encoding.append([])
                for asker, sets in work:
                    encoding[-1] += sheet.fill(asker, sets, images, pool)
                if len(encoding) > ENCODING:
                    for future in encoding.popleft():
                        future.result()
                bar.advance(len(batch))
            bar.advance(len(rows) - len(sheet.wanted))
            for asker, sets in work:
                asker.check_works(sets)  # before failures are written that are not the images'
            sheet.write()


class _Sheet:
    """The answers of one part: by label set, one for each image; a text where it is owed, or failed."""

    def __init__(self, team: Team, part: int, rows: Sequence[ImageRow], work: Owed) -> None:
        self.team, self.part, self.rows = team, part, rows
        self.sets = [labels for _, sets in work for labels in sets.values()]
        self.answers: dict[int, list[Any]] = {}
        sources = [asker.source for asker, _ in work if asker.source is not None]
        mine = {id(labels) for labels in self.sets}
        self.latest: dict[int, dict[int, Answer]] = {id(s): {} for s in sources if id(s) in mine}
        """By label set whose answers another teacher needs: those of the batch in hand, as they were given."""
        self.kept = {id(s): s.table(part) for s in sources if id(s) not in mine}
        """Of such sets that are written already: the part, still encoded."""
        fresh = ["not done" if team.chosen(r) else None for r in rows]
        for labels in self.sets:
            kept = known_answers(labels, part, rows) if labels.has(part) else fresh
            self.answers[id(labels)] = list(kept)
        owed = [any(self.owes(labels, i) for labels in self.sets) for i in range(len(rows))]
        self.wanted = [i for i, wanted in enumerate(owed) if wanted]

    def owes(self, labels: LabelSet, image: int) -> bool:
        """Whether the set has no answer to that image yet."""
        return isinstance(self.answers[id(labels)][image], str)

    def fill(
        self, asker: Asker, sets: Mapping[str, LabelSet], images: Mapping[int, Tensor | str], pool: ThreadPoolExecutor
    ) -> list[Future[dict[str, Any]]]:
        """Ask one teacher about the images that it owes: in a retry not all. Returns what is being encoded."""
        owed = {i for i in images if any(self.owes(labels, i) for labels in sets.values())}
        good = {i: image for i, image in images.items() if i in owed and not isinstance(image, str)}
        given = {} if asker.source is None else {i: self._given(asker.source, i) for i in good}
        without = {i: answer for i, answer in given.items() if not isinstance(answer, Target)}
        good = {i: image for i, image in good.items() if i not in without}
        wanted = [answer for answer in given.values() if isinstance(answer, Target)]
        found = dict(zip(good, self._asked(asker, sets, list(good.values()), wanted), strict=True))
        encoding = []
        for labels in sets.values():
            self.latest.get(id(labels), {}).clear()
        for i, image in images.items():
            refused = []
            for key, labels in sets.items():
                if not self.owes(labels, i):
                    continue
                size = (self.rows[i].height, self.rows[i].width)
                if isinstance(image, str):
                    answer: Answer = image
                else:
                    answer = without[i] if i in without else checked(found[i], key, size, labels)
                if id(labels) in self.latest:
                    self.latest[id(labels)][i] = answer
                refused.append(isinstance(answer, str))
                self.answers[id(labels)][i] = answer
                if not isinstance(answer, str):
                    self.answers[id(labels)][i] = future = pool.submit(encoded, labels, answer)
                    encoding.append(future)
            if i in found:
                asker.note(sets, image, all(refused))
        return encoding

    def _given(self, source: LabelSet, image: int) -> Answer:
        """What a label set says of an image to a teacher that needs it: just now, or where it was written before.

        Nothing where it says nothing; a failure is that teacher's too, so that a retry asks both.
        """
        if id(source) in self.kept:
            [answer] = source.fitted(self.kept[id(source)].slice(image, 1), self.rows[image : image + 1])
        else:
            answer = self.latest[id(source)].get(image, self.answers[id(source)][image])
        return f"{source.task}/{source.name}: {answer}" if isinstance(answer, str | Unfit) else answer

    def _asked(
        self, asker: Asker, sets: Mapping[str, LabelSet], images: list[Tensor], given: Sequence[Target]
    ) -> list[Any]:
        """The teacher's answers; seconds and operations are charged to the sets in equal shares."""
        if not images:
            return []
        answers, seconds = asker.timed(images, given)
        flops = None if asker.flops is None else asker.flops * len(images) / len(sets)
        for labels in sets.values():
            self.team.ledger(labels).charge(len(images), seconds / len(sets), flops)
        return answers

    def write(self) -> None:
        """Write the part of each set."""
        for labels in self.sets:
            answers = self.answers[id(labels)]
            kept = [a.result() if isinstance(a, Future) else labels.encode(a) for a in answers]
            labels.write_encoded(self.part, [r.id for r in self.rows], kept)


def read_image(store: Store, row: ImageRow) -> Tensor | str:
    """The image, (3, H, W) uint8, or the reason why there is none."""
    try:
        return store.image(row)
    except (OSError, BadImage) as e:
        return f"image: {e}"


def known_answers(labels: LabelSet, part: int, rows: Sequence[ImageRow]) -> list[Answer]:
    """What a part says of its images already; where that is broken, a reason, so that it is asked for again."""
    found = labels.fitted(labels.table(part), list(rows))
    return [f"broken on the disk: {answer}" if isinstance(answer, Unfit) else answer for answer in found]


def encoded(labels: LabelSet, answer: Answer) -> dict[str, Any]:
    """The answer as the store keeps it, or the reason why it cannot."""
    try:
        return labels.encode(answer)
    except Exception as e:
        return labels.encode(f"teacher: its answer cannot be kept: {told(e)}")
