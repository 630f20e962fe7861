"""Samples: the endless stream of random views of images, with their targets, by place."""

import random
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from polyteach.ground.geometry import random_view
from polyteach.loading.plan import Place, Plan
from polyteach.loading.reader import Reader
from polyteach.loading.sampler import WINDOW, Sampler
from polyteach.loading.views import Augment, photometric
from polyteach.store import ROW_GROUP, ImageRow, LabelSet, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Policy, Target

AHEAD = WINDOW * ROW_GROUP // 2
"""How many samples ahead row groups are asked of object storage."""
ATTEMPTS = 100
"""Replacements that are tried for an image that cannot be read, before giving up."""
Reject = dict[str, str | int]
"""An image that could not be read: store, part, id, reason."""


@dataclass(frozen=True)
class Sample:
    """One view of one image, its targets in the view's pixels, and what had to be replaced to get it."""

    image: Tensor
    targets: dict[str, Target | None]
    id: str
    rejects: list[Reject]


class Samples(Reader, Dataset[Sample]):
    """The stream of samples, by place. A sample follows from (seed, place) alone, whichever worker makes it."""

    def __init__(self, plan: Plan, augment: Augment, policy: Policy, seed: int) -> None:
        super().__init__(plan, policy)
        self.augment = augment
        self.seed = seed
        self.order = Sampler(plan.start, seed)
        self._remote = any(store.remote for store in plan.stores)
        self._asked: OrderedDict[tuple[int, int, int, int], None] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("plan", "augment", "policy", "seed")}

    def __getitem__(self, place: int) -> Sample:
        return self.drawn(*self.at(place))

    def at(self, place: int) -> tuple[int, int]:
        """Epoch and image number at `place` of the stream; what comes later is read ahead from object storage."""
        if self._remote:
            self._ask(self.plan.place(self.order.at(place + AHEAD)[1]))
        return self.order.at(place)

    def _ask(self, place: Place) -> None:
        """Have a row group and its labels fetched; what was asked for in the last two windows is not again."""
        files: list[Store | LabelSet] = [self.plan.stores[place.store]]
        files += [s for by_store in self.plan.sets.values() for s in by_store[place.store]]
        rows = range(place.group * ROW_GROUP, place.group * ROW_GROUP + place.size)
        for n, file in enumerate(files):
            key = (place.store, place.part, place.group, n)
            if key not in self._asked and file.prefetch(place.part, rows):
                self._asked[key] = None
        while len(self._asked) > 2 * WINDOW * len(files):
            self._asked.popitem(last=False)

    def drawn(self, epoch: int, image: int, salt: str = "") -> Sample:
        """The view of image number `image` in an epoch; `salt` makes another one of it."""
        rejects: list[Reject] = []
        draw = random.Random(f"{self.seed}-{epoch}-{image}{salt}")
        instead = random.Random(f"{self.seed}-{epoch}-{image}")  # no salt: views of one image get the same replacement
        for _ in range(ATTEMPTS):
            row, pixels = self.image(image)
            if not isinstance(pixels, str):
                return self.sample(image, row, pixels, draw, rejects)
            place = self.plan.place(image)
            store = str(self.plan.stores[place.store].path)
            rejects.append({"store": store, "part": place.part, "id": row.id, "reason": pixels})
            image = instead.randrange(len(self.plan))
        last = rejects[-1]
        raise ValueError(
            f"{ATTEMPTS} images in a row could not be read, the last, {last['id']!r} in part {last['part']} of "
            f"{last['store']}: {last['reason']}"
        )

    def sample(self, image: int, row: ImageRow, pixels: Tensor, draw: random.Random, rejects: list[Reject]) -> Sample:
        """A random view of an image that could be read, and of its targets."""
        a = self.augment
        view = random_view((row.height, row.width), a.size, draw, a.scale, a.mirror)
        seen = photometric(view.image(pixels), a.magnitude, a.operations, draw)
        targets: dict[str, Target | None] = {}
        for name, objective in self.plan.objectives.items():
            target = self.target(image, name)
            task = load_task(objective.task)
            if target is not None:
                target = task.zoomed(task.view(target, view), view.zoom, objective.space)
            targets[name] = target
        return Sample(seen, targets, row.id, rejects)
