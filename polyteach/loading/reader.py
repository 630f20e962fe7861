"""Reader: rows of a store and its label sets, decoded to images and targets; what was read lately stays in memory."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor

from polyteach.ground.images import BadImage
from polyteach.loading.combine import COMBINE
from polyteach.loading.objectives import by_people
from polyteach.loading.plan import Place, Plan
from polyteach.store import ROW_GROUP, Answer, ImageRow, LabelSet
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Policy, Target

CACHE = 256 * 2**20
"""Bytes of encoded rows that each worker keeps."""
DECODED = 512 * 2**20
"""Bytes of decoded images and targets that each worker keeps, if all of its images fit into them."""


class Reader:
    """Images and targets of a plan, by the number of the image.

    A target that `polyteach store check` would refuse is a ValueError that names its file and image.

    policy: how a teacher's answer becomes a pseudo label.
    """

    def __init__(self, plan: Plan, policy: Policy) -> None:
        self.plan = plan
        self.policy = policy
        self._kept: OrderedDict[Any, tuple[int, Any]] = OrderedDict()
        self._bytes = 0
        self._decoded: dict[tuple[int, str | None], Any] | None = {}
        self._decoded_bytes = 0
        self._last: tuple[int, Place] | None = None
        self._sizes: tuple[tuple[int, int, int], list[ImageRow]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without its caches, for workers that are spawned."""
        return {k: getattr(self, k) for k in ("plan", "policy")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def image(self, image: int) -> tuple[ImageRow, Tensor | str]:
        """The image's row, and its pixels or the reason why there are none."""
        found: tuple[ImageRow, Tensor | str] = self._once(image, None)
        return found

    def target(self, image: int, objective: str) -> Target | None:
        """What teaches image number `image` for an objective: people's answer, else a teacher's pseudo label."""
        found: Target | None = self._once(image, objective)
        return found

    def _once(self, image: int, objective: str | None) -> Any:
        """The image, or the target of an objective. Small datasets, as of a fine-tuning, are decoded only once.

        Whether all of it fits is judged by the mean of what was seen. Nobody changes these tensors: a view is another.
        """
        if self._decoded is not None and (image, objective) in self._decoded:
            return self._decoded[image, objective]
        found: Any = self._image(image) if objective is None else self._target(image, objective)
        failed = objective is None and isinstance(found[1], str)  # tried again: a storage may be back then
        if self._decoded is not None and not failed:
            self._decoded[image, objective] = found
            self._decoded_bytes += _size(found[1] if objective is None else found)
            images = max(len(self._decoded) / (1 + len(self.plan.objectives)), 1)
            if self._decoded_bytes / images * len(self.plan) > DECODED:
                self._decoded = None
        return found

    def _image(self, image: int) -> tuple[ImageRow, Tensor | str]:
        store = self.plan.stores[self._place(image).store]
        row: ImageRow = self._encoded(image, None)
        try:
            return row, store.image(row)
        except (OSError, BadImage) as e:
            return row, str(e)

    def _target(self, image: int, objective: str) -> Target | None:
        answer, people = self.answer(image, objective)
        if answer is None or people:
            return answer
        pseudo: Target = load_task(self.plan.objectives[objective].task).pseudo(answer, self.policy.of(objective))
        return pseudo

    def answer(self, image: int, objective: str) -> tuple[Target | None, bool]:
        """What is said of image number `image`, calibrated and combined but whatever its score; and if people do."""
        place, about = self._place(image), self.plan.objectives[objective]
        task = load_task(about.task)
        found: list[Target] = []
        sources: set[tuple[str, str] | None] = set()
        for labels in self.plan.sets[objective][place.store]:
            # what is in memory was there
            if self._key(place, labels) not in self._kept and not labels.has(place.part):
                continue
            answer = self._answer(image, labels)
            if not isinstance(answer, Target) or (labels.task, labels.name) in sources:
                continue  # a source is no second voice beside what was made of it
            sources.add(labels.given)
            answer = labels.calibrated(answer, self.policy)
            index = self.plan.moved.get((place.store, labels.task, labels.name))
            target: Target = answer if index is None else task.mapped(answer, index, len(about.space.names))
            if by_people(labels):
                return target, True
            found.append(target)
            if self.plan.combine == COMBINE[0]:
                break
        if len(found) > 1:
            found = [self._combined(found, about)]
        return (found[0] if found else None), False

    def _combined(self, found: Sequence[Target], about: Objective) -> Target:
        """One answer of several teachers, in the way that the plan says."""
        task = load_task(about.task)
        if self.plan.combine == "union":
            one: Target = task.united(found)
        elif self.plan.combine == "fuse":
            one = task.fused(found, about.space)
        else:
            one = max(found, key=lambda a: task.sureness(a, self.policy))
        return one

    def _answer(self, image: int, labels: LabelSet) -> Answer:
        """What a label set says of an image.

        Raises:
            ValueError: a target that `polyteach store check` would refuse. To go on without it would be another
                training than the one that was asked for.
        """
        place, about = self._place(image), self._about(image)
        [answer] = labels.fitted(self._encoded(image, labels), [about])
        return labels.sound(place.part, about, answer)

    def _about(self, image: int) -> ImageRow:
        """The image's row, perhaps without its bytes: its id and size."""
        place = self._place(image)
        if self._key(place, None) in self._kept:
            row: ImageRow = self._encoded(image, None)
            return row
        key = (place.store, place.part, place.group)
        if self._sizes is None or self._sizes[0] != key:
            rows = range(place.group * ROW_GROUP, place.group * ROW_GROUP + place.size)
            self._sizes = key, self.plan.stores[place.store].sizes(place.part, rows)
        return self._sizes[1][place.row]

    def _place(self, image: int) -> Place:
        """Of an image, about which every objective asks in turn."""
        if self._last is None or self._last[0] != image:
            self._last = (image, self.plan.place(image))
        return self._last[1]

    @staticmethod
    def _key(place: Place, labels: LabelSet | None) -> Any:
        return (place.store, place.part, place.group, labels and (labels.task, labels.name))

    def _encoded(self, image: int, labels: LabelSet | None) -> Any:
        """The image's row of the store, or of a label set; from memory where its row group was used lately."""
        place = self._place(image)
        key = self._key(place, labels)
        if key not in self._kept:
            rows = range(place.group * ROW_GROUP, place.group * ROW_GROUP + place.size)
            kept: Any
            if labels is None:
                kept = self.plan.stores[place.store].images(place.part, rows=rows)
                size = sum(len(r.data or b"") + 300 for r in kept)
            else:
                kept = labels.table(place.part, rows)
                size = kept.nbytes
            self._kept[key] = (size, kept)
            self._bytes += size
            while self._bytes > CACHE and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][0]
        self._kept.move_to_end(key)
        kept = self._kept[key][1]
        return kept[place.row] if labels is None else kept.slice(place.row, 1)


def _size(value: Any) -> int:
    """Bytes of a tensor's or a target's values."""
    if isinstance(value, Target):
        return sum(_size(getattr(value, f.name)) for f in fields(value))
    return value.nbytes if isinstance(value, Tensor) else 0


def unlearnable(plan: Plan, policy: Policy) -> tuple[dict[str, str], dict[str, str]]:
    """Objectives of which no image has anything to be learned, by name with the reason.

    At most `LOOK` images of each are looked at, and no more than it takes to find one that has.

    Returns:
        Those of which this is known, and those of which only the first images were looked at.
    """
    reader = Reader(plan, policy)
    known: dict[str, str] = {}
    likely: dict[str, str] = {}
    for name, objective in plan.objectives.items():
        task = load_task(objective.task)
        reasons: Counter[str] = Counter()
        for image in plan.first[name].tolist():
            target = reader.target(image, name)
            reason = "no label" if target is None else task.nothing(target, objective.space)
            if not reason:
                break
            reasons[reason] += 1
        else:
            sets = dict.fromkeys(f"{s.task}/{s.name}" for mine in plan.sets[name] for s in mine)
            told = ", ".join(f"{n:,} images with {reason}" for reason, n in reasons.most_common())
            whole = len(plan.first[name]) == plan.labelled[name]
            (known if whole else likely)[name] = f"{name} (of {', '.join(sets)}): {told}"
    return known, likely
