"""Batches: stores and their label sets -> one random view per image -> batches of targets.

Images are drawn uniformly from the union of all stores: every image once per epoch, in an order that follows from
(seed, epoch) alone. The whole training is one stream of samples, epoch after epoch; batch k is its k-th slice, so
nothing is dropped at the end of an epoch (a batch may straddle two) and resume needs only k.

Rows are shuffled in two steps so that reading stays local: row groups of 64 images over the whole union, then images
within a window of `WINDOW` groups. Unions of up to 2,048 images are shuffled perfectly; in larger ones two images of
one row group stay within 2,048 places of each other.

Shapes: B images, h w pixels of the view.
"""

import json
import os
import pickle
import random
import re
import shutil
import signal
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as kernels

from polyteach.arguments import listed
from polyteach.geometry import random_view
from polyteach.images import BadImage
from polyteach.names import did_you_mean, unknown_name
from polyteach.objectives import Table, apart, by_people, join
from polyteach.storage import below
from polyteach.store import LABELLED, ROW_GROUP, Answer, ImageRow, LabelSet, Overview, Store, several
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Policy, Target

WINDOW = 32
"""Row groups that are shuffled together."""
CACHE = 256 * 2**20
"""Bytes of encoded rows that each worker keeps."""
DECODED = 512 * 2**20
"""Bytes of decoded pictures and targets that each worker keeps, if all of its images fit into them."""
AHEAD = WINDOW * ROW_GROUP // 2
"""How many samples ahead row groups are asked of object storage."""
REJECTS = "rejects.jsonl"
"""File of a run with the images that could not be read."""
PATIENCE = 1800
"""Seconds that the trainer waits for a batch from its workers before it gives up."""
SHARED = Path("/dev/shm")
"""Where Linux keeps shared memory; docker gives it 64 MB."""
NO_ROOM = "no room in shared memory"
ATTEMPTS = 100
"""Replacements that are tried for an image that cannot be read, before giving up."""
Reject = dict[str, str | int]
"""An image that could not be read: store, part, id, reason."""
COMBINE = ("first", "best", "union")
"""How the answers of several teachers of one objective to one image are combined; see `plan`."""
LOOK = 4096
"""Images of an objective that are looked at for one that has something to be learned."""


@dataclass(frozen=True)
class Place:
    """Where an image lies: which store, part, row group of the part and row of the group; size: rows in the group."""

    store: int
    part: int
    group: int
    size: int
    row: int


@dataclass(frozen=True)
class Plan:
    """Which images are seen, and which label sets answer for them.

    objectives: name -> what its head learns. sets: name -> per store the label sets that answer it, people's first; the
    first with a target for an image wins, or the teachers' are combined (`combine`). groups: (store, part, group in the
    part, its size) of every row group. start: number of the first image of every row group, and of images at the end.
    row: position of every image in its row group. unlabelled: images left out because no chosen set labels them.
    labelled: objective -> images with a target for it. shares: as `sets`, of how many images each set's answer counts;
    where combined, of how many it is asked for. answers: as `sets`, how many images each set labels. first: objective
    -> numbers of the first images that are labelled for it. moved: (store, task, name) of a label set -> the index
    among the objective's classes of each of its own, for those whose classes are in another order. apart: sentences
    about objectives that look alike and are not one.
    """

    stores: list[Store]
    objectives: dict[str, Objective]
    sets: dict[str, list[list[LabelSet]]]
    groups: np.ndarray
    start: np.ndarray
    row: np.ndarray
    unlabelled: int
    labelled: dict[str, int]
    shares: dict[str, list[list[int]]] = field(default_factory=dict)
    answers: dict[str, list[list[int]]] = field(default_factory=dict)
    first: dict[str, np.ndarray] = field(default_factory=dict)
    moved: dict[tuple[int, str, str], Tensor] = field(default_factory=dict)
    combine: str = "first"
    apart: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.row)

    def place(self, image: int) -> Place:
        """Where image number `image` lies."""
        group = int(np.searchsorted(self.start, image, side="right")) - 1
        store, part, number, size = (int(x) for x in self.groups[group])
        return Place(store, part, number, size, int(self.row[image]))

    def ids(self) -> list[str]:
        """Of every image, by its number."""
        out: list[str] = []
        for (store, part, group, size), a, b in zip(self.groups.tolist(), self.start, self.start[1:], strict=False):
            rows = range(group * ROW_GROUP, group * ROW_GROUP + size)
            images = self.stores[store].images(part, data=False, rows=rows)
            out += [images[r].id for r in self.row[a:b].tolist()]
        return out


def plan(
    stores: Sequence[Store],
    tasks: Sequence[str] = (),
    labels: Sequence[str] = (),
    split: Sequence[str] = (),
    only: Collection[str] | None = None,
    combine: str = "first",
    table: Table | None = None,
) -> Plan:
    """What to learn from these stores.

    Label sets of one task whose classes agree by name share one objective, across stores (`polyteach/objectives.py`);
    it is called TASK_SET after the first of them. Where several label an image, people's target wins, then the sets in
    the order of `labels` (by name without it). An image that no chosen set labels is left out.

    tasks, labels: names of the tasks and label sets to use (SET, or TASK/SET); all of them when empty.
    split: only images of these splits; all when empty. only: only images with these ids.
    combine: of several teachers' answers to one image "first" takes the first that there is, "best" the one that its
    teacher is surest of (`Task.sureness`), "union" all of them as one (`Task.united`). table: of class names, see
    `objectives.read_map`.

    Raises:
        ValueError: unknown names, a store without label sets, nothing to learn; lists what there is. `combine` where
            nothing is to be combined, or for a task that cannot.
    """
    tasks, labels = listed(tasks), listed(labels)
    found = [store.sets() for store in stores]
    for store, sets in zip(stores, found, strict=True):
        if not sets:
            raise ValueError(
                f"{store.path} has no label sets; make some with: polyteach label {store.path} --teacher ..."
            )
        if not store.parts():
            raise ValueError(f"{store.path} has no images; finish: polyteach ingest SOURCE {store.path}")
    every = [s for sets in found for s in sets]
    _known("task", tasks, {s.task for s in every})
    _known(
        "label set", labels, {s.name for s in every} | {f"{s.task}/{s.name}" for s in every}, {s.name for s in every}
    )
    chosen = [_chosen(sets, tasks, labels) for sets in found]
    for store, sets, mine in zip(stores, found, chosen, strict=True):
        if not mine:
            has = ", ".join(f"{s.task}/{s.name}" for s in sets)
            raise ValueError(f"{store.path} has none of the label sets asked for; it has {has}")
    whole = _counted(_joined(stores, chosen, combine, table), split, only)
    empty = [k for k, n in whole.labelled.items() if not n]
    if empty:
        raise ValueError(
            f"no image is labelled for {', '.join(empty)} (all absent or failed); finish `polyteach label`, or choose "
            f"other label sets: --labels {' '.join(_answering(whole)) or 'NAME'}"
        )
    return whole


def _joined(stores: Sequence[Store], chosen: Sequence[Sequence[LabelSet]], combine: str, table: Table | None) -> Plan:
    """The objectives of these sets, by store; a plan without images."""
    flat = [(i, s) for i, mine in enumerate(chosen) for s in mine]
    given = [s for _, s in flat]
    joints = join(given, table)
    if table is not None and joints == join(given):
        raise ValueError("map changes nothing: its names are those that the label sets have; leave it out")
    objectives: dict[str, Objective] = {}
    sets_of: dict[str, list[list[LabelSet]]] = {}
    moved: dict[tuple[int, str, str], Tensor] = {}
    for joint in joints:
        first = given[joint.members[0]]
        name = _unused(f"{first.task}_{first.name}", list(objectives))
        objectives[name] = joint.objective
        sets_of[name] = [[] for _ in stores]
        for m, index in zip(joint.members, joint.index, strict=True):
            i, labelset = flat[m]
            sets_of[name][i].append(labelset)
            if index is not None:
                moved[i, labelset.task, labelset.name] = torch.tensor(index)
        for mine in sets_of[name]:
            mine.sort(key=lambda s: not by_people(s))
    _combinable(combine, sets_of)
    none = np.zeros(0, dtype=np.int64)
    why = apart(given, joints, table)
    return Plan(list(stores), objectives, sets_of, none, none, none, 0, {}, moved=moved, combine=combine, apart=why)


def _combinable(combine: str, sets_of: Mapping[str, list[list[LabelSet]]]) -> None:
    """Raises:
    ValueError: no such way to combine teachers, nothing to combine, or a task that cannot.
    """
    if combine not in COMBINE:
        raise ValueError(f"combine must be {', '.join(COMBINE[:-1])} or {COMBINE[-1]}; got {combine!r}")
    if combine == COMBINE[0]:
        return
    several = {
        name: teachers
        for name, by_store in sets_of.items()
        for mine in by_store
        if len(teachers := [f"{s.task}/{s.name}" for s in mine if not by_people(s)]) > 1
    }
    if not several:
        raise ValueError(
            f"combine={combine} changes nothing: no objective has two teachers in one store; leave it out, or choose "
            "other label sets"
        )
    for name, teachers in several.items():
        task = load_task(teachers[0].partition("/")[0])
        if combine not in task.combines:
            ways = ", ".join(w for w in COMBINE if w == COMBINE[0] or w in task.combines)
            raise ValueError(
                f"combine={combine}: answers of {task.name} ({name}: {', '.join(teachers)}) cannot be combined like "
                f"that, only by {ways}; choose one of the sets with labels, or another combine"
            )


def _counted(plan: Plan, split: Sequence[str], only: Collection[str] | None) -> Plan:
    """The plan with the images that are labelled, and of how many images each set's answer counts."""
    rows, sets_of = _Rows(), plan.sets
    labelled, unlabelled, images = dict.fromkeys(sets_of, 0), 0, 0
    shares, answers = ({k: [[0] * len(mine) for mine in x] for k, x in sets_of.items()} for _ in range(2))
    first: dict[str, list[np.ndarray]] = {k: [] for k in sets_of}
    for i, part, wanted, answered in _looked(plan.stores, split, only, sets_of):
        some = np.zeros(len(wanted), dtype=bool)
        mine: dict[str, np.ndarray] = {}
        for name, own in answered.items():
            taken = np.zeros(len(wanted), dtype=bool)
            for k, mask in enumerate(own):
                answers[name][i][k] += int(mask.sum())
                shares[name][i][k] += int((mask & ~taken).sum())
                if plan.combine == COMBINE[0] or by_people(sets_of[name][i][k]):
                    taken = taken | mask
            mine[name] = np.logical_or.reduce([*own, np.zeros(len(wanted), dtype=bool)])
            some = some | mine[name]
        for name, mask in mine.items():
            labelled[name] += int(mask.sum())
            if sum(map(len, first[name])) < LOOK:
                first[name].append(images + np.flatnonzero(mask[some])[:LOOK])
        unlabelled += int((wanted & ~some).sum())
        images += int(some.sum())
        rows.add(i, part, some)
    looked = {k: np.concatenate([*some, np.zeros(0, dtype=np.int64)])[:LOOK] for k, some in first.items()}
    groups, start, row = rows.arrays()
    return replace(
        plan,
        groups=groups,
        start=start,
        row=row,
        unlabelled=unlabelled,
        labelled=labelled,
        shares=shares,
        answers=answers,
        first=looked,
    )


def members(plan: Plan) -> list[tuple[str, int, LabelSet, int]]:
    """Objective, number of the store, label set, and of how many images its answer counts, of all of a plan's sets."""
    return [
        (name, i, labels, n)
        for name, by_store in plan.sets.items()
        for i, mine in enumerate(by_store)
        for labels, n in zip(mine, plan.shares[name][i], strict=True)
    ]


def idle(plan: Plan) -> dict[tuple[int, str, str], str]:
    """Of label sets whose answer counts for no image, by (store, task, name): why, and what would change it."""
    out, every = {}, members(plan)
    for name, i, labels, n in every:
        others = [s for o, j, s, m in every if o == name and j == i and m]
        if not n and plan.answers[name][i][plan.sets[name][i].index(labels)]:
            ways = ", put it first in --labels, or combine the teachers: --combine best or union"
            out[i, labels.task, labels.name] = (
                f"teaches {name} nothing: its answer counts for no image, as people's and earlier sets win "
                f"({', '.join(f'{s.task}/{s.name}' for s in others)}). Leave it out with --labels"
                f"{'' if all(map(by_people, others)) else ways}"
            )
        elif not n:
            out[i, labels.task, labels.name] = f"teaches {name} nothing: it labels none of the images"
    return out


def idle_sets(store: Store) -> dict[tuple[str, str], str]:
    """As `idle`, of a training on all label sets of a store: by task and name."""
    if not store.parts():
        return {}
    whole = _counted(_joined([store], [store.sets()], COMBINE[0], None), (), None)
    return {(task, name): why for (_, task, name), why in idle(whole).items()}


def unlearnable(plan: Plan, policy: Policy) -> tuple[dict[str, str], dict[str, str]]:
    """Objectives of which no image has anything to be learned, by name with the reason.

    At most `LOOK` images of each are looked at, and no more than it takes to find one that has.

    Returns:
        Those of which this is known, and those of which only the first images were looked at.
    """
    samples = Samples(plan, Augment((32, 32)), policy, 0)
    known: dict[str, str] = {}
    likely: dict[str, str] = {}
    for name, objective in plan.objectives.items():
        task = load_task(objective.task)
        reasons: Counter[str] = Counter()
        for image in plan.first[name].tolist():
            target = samples.target(image, name)
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


def digest(ids: Sequence[str]) -> str:
    """A hash of a set of images."""
    import hashlib

    return hashlib.sha256("\0".join(sorted(ids)).encode("utf-8", "backslashreplace")).hexdigest()


def all_images(stores: Sequence[Store], split: Sequence[str] = ()) -> Plan:
    """A plan of the images alone, without objectives: for learning without labels.

    split: only images of these splits; all when empty.

    Raises:
        ValueError: no images, or an unknown split; lists what there is.
    """
    rows = _Rows()
    for i, part, wanted, _ in _looked(stores, split, None, {}):
        rows.add(i, part, wanted)
    if not rows:
        raise ValueError(f"no images in {', '.join(str(s.path) for s in stores)}")
    return Plan(list(stores), {}, {}, *rows.arrays(), 0, {})


class _Rows:
    """The row groups that are seen, and which rows of each; nothing in Python is made for a group."""

    def __init__(self) -> None:
        self.groups: list[np.ndarray] = []
        self.counts: list[np.ndarray] = []
        self.rows: list[np.ndarray] = []

    def add(self, store: int, part: int, wanted: np.ndarray) -> None:
        """The rows of a part that `wanted`, one bool per image, marks."""
        at = np.flatnonzero(wanted)
        counts = np.bincount(at // ROW_GROUP)
        seen = np.flatnonzero(counts)
        groups = np.empty((len(seen), 4), dtype=np.int32)
        groups[:, 0], groups[:, 1], groups[:, 2] = store, part, seen
        groups[:, 3] = np.minimum(ROW_GROUP, len(wanted) - ROW_GROUP * seen)
        self.groups.append(groups)
        self.counts.append(counts[seen])
        self.rows.append((at % ROW_GROUP).astype(np.uint8))

    def __bool__(self) -> bool:
        return any(map(len, self.rows))

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """groups, start and row of a `Plan`."""
        start = np.concatenate([[0], np.cumsum(np.concatenate(self.counts))]).astype(np.int64)
        return np.concatenate(self.groups), start, np.concatenate(self.rows)


def _looked(
    stores: Sequence[Store],
    split: Sequence[str],
    only: Collection[str] | None,
    sets_of: Mapping[str, Sequence[Sequence[LabelSet]]],
) -> Iterator[tuple[int, int, np.ndarray, dict[str, list[np.ndarray]]]]:
    """Per part of every store: store number, part, a bool per image, and of those per objective and set the labelled.

    Nothing in Python is made for an image. Several parts are read at once: from object storage each takes as many
    round trips as it has files.

    Raises:
        ValueError: a split that no image has; lists what there is.
    """
    split = listed(split)
    there: set[str | None] = set()
    splits = [store.splits() for store in stores]
    states = {k: [[(s, s.every_state()) for s in sets] for sets in each] for k, each in sets_of.items()}

    def look(i: int, part: int) -> tuple[int, int, np.ndarray, dict[str, list[np.ndarray]]]:
        found = splits[i].values(part)
        mask = splits[i].among(part, split or found)
        there.update(found)
        if only is not None:
            mask &= np.array([name in only for name in stores[i].ids(part)], dtype=bool)
        labelled = {k: [_labelled(*s, part, len(mask)) & mask for s in sets[i]] for k, sets in states.items()}
        return i, part, mask, labelled

    yield from several(lambda at: look(*at), [(i, p) for i, s in enumerate(stores) for p in s.parts()])
    for overview in (*splits, *(o for each in states.values() for sets in each for _, o in sets)):
        overview.save()
    missing = [s for s in split if s not in there]
    if missing:
        raise no_split(missing[0], there)


def no_split(asked: str, there: Collection[str | None]) -> ValueError:
    """The error for a split that no image has. there: those that images have, None for images of no split."""
    known = sorted(s for s in there if s is not None)
    if not known:
        return ValueError(
            f"no image has split {asked!r}; no image has any. Divide the store: polyteach store split STORE "
            "--fractions train=0.8 val=0.1 test=0.1"
        )
    without = ", and images of none" if None in there else ""
    return ValueError(
        f"no image has split {asked!r}; there are {', '.join(known)}{without}{did_you_mean(asked, known)}"
    )


def _answering(plan: Plan) -> list[str]:
    """Names of the label sets whose answers count."""
    return sorted({labels.name for _, _, labels, n in members(plan) if n})


def _known(what: str, asked: Sequence[str], known: set[str], shown: set[str] | None = None) -> None:
    unknown = [a for a in asked if a not in known]
    if unknown:
        raise unknown_name(what, unknown[0], sorted(shown or known), "the stores have")


def _chosen(sets: list[LabelSet], tasks: Sequence[str], labels: Sequence[str]) -> list[LabelSet]:
    mine = [s for s in sets if not tasks or s.task in tasks]
    if not labels:
        return mine
    rank = {name: i for i, name in reversed(list(enumerate(labels)))}
    ranked = [(min((rank[n] for n in (s.name, f"{s.task}/{s.name}") if n in rank), default=-1), s) for s in mine]
    return [s for _, s in sorted((r for r in ranked if r[0] >= 0), key=lambda r: r[0])]


def _unused(name: str, taken: list[str]) -> str:
    """`name`, numbered where another objective has it; a head's name in the student may hold no dot."""
    base = name = name.replace(".", "-")
    n = 2
    while name in taken:
        name, n = f"{base}_{n}", n + 1
    return name


def _labelled(labels: LabelSet, states: Overview, part: int, images: int) -> np.ndarray:
    if part not in states:
        return np.zeros(images, dtype=bool)
    labelled = states.among(part, (LABELLED,))
    if len(labelled) != images:
        raise ValueError(f"{labels.path} part {part} has {len(labelled)} rows; the store has {images} images there")
    return labelled


class Order:
    """The stream of samples: place in the stream -> (epoch, image number), by random access."""

    def __init__(self, start: np.ndarray, seed: int) -> None:
        """start: first image number of each row group, and the number of images at the end."""
        self.start = start
        self.seed = seed
        # per object, so that caches go when it goes
        self._epoch = lru_cache(maxsize=2)(self._groups)
        self._window = lru_cache(maxsize=4)(self._shuffled)

    def __len__(self) -> int:
        return int(self.start[-1])

    def at(self, place: int) -> tuple[int, int]:
        """Epoch and image number at `place` of the stream."""
        epoch, offset = divmod(place, len(self))
        _, ends = self._epoch(epoch)
        window = int(np.searchsorted(ends, offset, side="right"))
        before = int(ends[window - 1]) if window else 0
        return epoch, int(self._window(epoch, window)[offset - before])

    def _groups(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Row groups in the order of this epoch, and where each window of them ends."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.start) - 1)
        sizes = (self.start[1:] - self.start[:-1])[order]
        first = np.arange(0, len(order), WINDOW)
        return order, np.cumsum(np.add.reduceat(sizes, first))

    def _shuffled(self, epoch: int, window: int) -> np.ndarray:
        groups = self._epoch(epoch)[0][window * WINDOW : (window + 1) * WINDOW]
        images = np.concatenate([np.arange(self.start[g], self.start[g + 1]) for g in groups])
        return np.random.default_rng([self.seed, epoch, window]).permutation(images)


@dataclass(frozen=True)
class Augment:
    """How an image is varied. size: (height, width) of the view; scale, mirror: see `random_view`.

    magnitude: 0 (off) to 10 of RandAugment's photometric operations, `operations` of them per image.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    mirror: float = 0.5
    magnitude: float = 0.0
    operations: int = 2


def _signed(kernel: Callable[..., Tensor]) -> Callable[[Tensor, float, random.Random], Tensor]:
    return lambda image, level, draw: kernel(image, 1 + draw.choice((-0.9, 0.9)) * level)


PHOTOMETRIC: dict[str, Callable[[Tensor, float, random.Random], Tensor]] = {
    "identity": lambda image, level, draw: image,
    "autocontrast": lambda image, level, draw: kernels.autocontrast(image),
    "equalize": lambda image, level, draw: kernels.equalize(image),
    "solarize": lambda image, level, draw: kernels.solarize(image, 255 * (1 - level)),
    "posterize": lambda image, level, draw: kernels.posterize(image, 8 - round(4 * level)),
    "saturation": _signed(kernels.adjust_saturation),
    "contrast": _signed(kernels.adjust_contrast),
    "brightness": _signed(kernels.adjust_brightness),
    "sharpness": _signed(kernels.adjust_sharpness),
}
"""Operations of RandAugment (Cubuk et al., CVPR Workshops 2020) that move no pixel: image, level 0..1 -> image."""


def photometric(
    image: UInt8[Tensor, "3 h w"], magnitude: float, operations: int, draw: random.Random
) -> UInt8[Tensor, "3 h w"]:
    """RandAugment without its geometric half, which would have to move the targets too.

    magnitude: 0..10 as in the paper; 0 changes nothing.
    """
    if magnitude:
        for name in draw.choices(list(PHOTOMETRIC), k=operations):
            image = PHOTOMETRIC[name](image, magnitude / 10, draw)
    return image


@dataclass(frozen=True)
class Batch:
    """One step's images and, per objective, one target or None per image, in pixels of the batch.

    ids: of the images. rejects: images that could not be read and were replaced.
    """

    images: UInt8[Tensor, "B 3 h w"]
    targets: dict[str, list[Any]]
    ids: list[str]
    rejects: list[Reject] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """One view of one image, its targets in the view's pixels, and what had to be replaced to get it."""

    image: Tensor
    targets: dict[str, Target | None]
    id: str
    rejects: list[Reject]


class Samples(Dataset[Sample]):
    """The stream of samples, by place. A sample follows from (seed, place) alone, whichever worker makes it.

    A target that `polyteach store check` would refuse is a ValueError that names its file and image.
    """

    def __init__(self, plan: Plan, augment: Augment, policy: Policy, seed: int) -> None:
        self.plan = plan
        self.augment = augment
        self.policy = policy
        self.seed = seed
        self.order = Order(plan.start, seed)
        self._kept: OrderedDict[Any, tuple[int, Any]] = OrderedDict()
        self._bytes = 0
        self._decoded: dict[tuple[int, str | None], Any] | None = {}
        self._decoded_bytes = 0
        self._remote = any(store.remote for store in plan.stores)
        self._asked: OrderedDict[tuple[int, int, int, int], None] = OrderedDict()
        self._last: tuple[int, Place] | None = None
        self._sizes: tuple[tuple[int, int, int], list[ImageRow]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without its caches, for workers that are spawned."""
        return {k: getattr(self, k) for k in ("plan", "augment", "policy", "seed")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

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
            if key not in self._asked and file.soon(place.part, rows):
                self._asked[key] = None
        while len(self._asked) > 2 * WINDOW * len(files):
            self._asked.popitem(last=False)

    def drawn(self, epoch: int, image: int, salt: str = "") -> Sample:
        """The view of image number `image` in an epoch; `salt` makes another one of it."""
        rejects: list[Reject] = []
        draw = random.Random(f"{self.seed}-{epoch}-{image}{salt}")
        instead = random.Random(f"{self.seed}-{epoch}-{image}")  # no salt: views of one image get the same replacement
        for _ in range(ATTEMPTS):
            row, pixels = self.picture(image)
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

    def picture(self, image: int) -> tuple[ImageRow, Tensor | str]:
        """The image's row, and its pixels or the reason why there are none."""
        found: tuple[ImageRow, Tensor | str] = self._once(image, None)
        return found

    def target(self, image: int, objective: str) -> Target | None:
        """What teaches image number `image` for an objective: people's answer, else a teacher's pseudo label."""
        found: Target | None = self._once(image, objective)
        return found

    def _once(self, image: int, objective: str | None) -> Any:
        """The picture, or the target of an objective. Small datasets, as of a fine-tuning, are decoded only once.

        Whether all of it fits is judged by the mean of what was seen. Nobody changes these tensors: a view is another.
        """
        if self._decoded is not None and (image, objective) in self._decoded:
            return self._decoded[image, objective]
        found: Any = self._picture(image) if objective is None else self._target(image, objective)
        failed = objective is None and isinstance(found[1], str)  # tried again: a storage may be back then
        if self._decoded is not None and not failed:
            self._decoded[image, objective] = found
            self._decoded_bytes += _size(found[1] if objective is None else found)
            images = max(len(self._decoded) / (1 + len(self.plan.objectives)), 1)
            if self._decoded_bytes / images * len(self.plan) > DECODED:
                self._decoded = None
        return found

    def _picture(self, image: int) -> tuple[ImageRow, Tensor | str]:
        store = self.plan.stores[self._place(image).store]
        row: ImageRow = self._encoded(image, None)
        try:
            return row, store.picture(row)
        except (OSError, BadImage) as e:
            return row, str(e)

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

    def _target(self, image: int, objective: str) -> Target | None:
        place, about = self._place(image), self.plan.objectives[objective]
        task = load_task(about.task)
        found: list[Target] = []
        for labels in self.plan.sets[objective][place.store]:
            # what is in memory was there
            if self._key(place, labels) not in self._kept and not labels.has(place.part):
                continue
            answer = self._answer(image, labels)
            if not isinstance(answer, Target):
                continue
            index = self.plan.moved.get((place.store, labels.task, labels.name))
            target: Target = answer if index is None else task.mapped(answer, index, len(about.space.names))
            if by_people(labels):
                return target
            found.append(target)
            if self.plan.combine == COMBINE[0]:
                break
        if len(found) > 1:
            united = self.plan.combine == "union"
            found = [task.united(found) if united else max(found, key=lambda a: task.sureness(a, self.policy))]
        return task.pseudo(found[0], self.policy) if found else None

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


def batches(
    samples: Samples, batch_size: int, start: int, stop: int, workers: int = 0, pin: bool = False, every: int = 1
) -> Iterator[Batch]:
    """Batches number `start` up to, not including, `stop` of the stream; every `every`-th of them.

    workers: processes that read and decode ahead; 0 does it here. They change nothing of what comes out. pin: put
    images into page-locked memory, for a faster way to the GPU.

    Raises:
        ValueError: an image could not be read nor replaced.
        RuntimeError: a worker failed; see `explained`.
    """
    loader = DataLoader(
        samples,
        batch_sampler=_Slices(batch_size, start, stop, every),
        num_workers=workers,
        collate_fn=_packed if workers else _gathered,
        worker_init_fn=_quiet,
        pin_memory=pin,
        timeout=PATIENCE if workers else 0,
        generator=torch.Generator(),  # else the loader draws from the global one, and resume would not be exact
    )
    for images, rest in _told(loader):
        if workers and not pin:  # pinned they are copies already
            # a step holds all of its passes: out of shared memory, of which docker gives 64 MB, and of whose tensors
            # each holds a file open
            images, rest = images.clone(), rest.clone()
        yield Batch(images, *(_unpacked(rest) if workers else rest))


def _told(loader: Iterable[Any]) -> Iterator[Any]:
    """What the loader gives. A worker's ValueError is for people, and comes with its traceback around it."""
    try:
        yield from loader
    except ValueError as e:
        _, found, said = str(e).rpartition("\nValueError: ")
        raise (ValueError(said.strip()) if found else e) from e.__cause__


@contextmanager
def explained(workers: int) -> Iterator[None]:
    """Within, where batches are used: what goes wrong with the data workers is said so that one can do something.

    Not only while a batch is waited for: that a worker was killed is known at once, whatever is being done.

    Raises:
        ValueError: a worker has no shared memory for its batches, was killed, or says nothing for `PATIENCE` seconds.
    """
    try:
        yield
    except RuntimeError as e:
        said = _explained(str(e), workers)
        if said is None:
            raise
        raise ValueError(said) from e


def _explained(text: str, workers: int) -> str | None:
    """What a person can do about a data worker that failed so; None where that is not what failed."""
    fix = f"give --workers 0, or fewer than {workers}" if workers > 1 else "give --workers 0"
    if NO_ROOM in text or "Bus error" in text:
        free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0
        return (
            f"a data worker has no room for a batch in shared memory ({SHARED}, {free / 2**20:,.0f} MiB free); {fix}, "
            "or make it larger (docker run --shm-size=8g, or --ipc=host)"
        )
    if "DataLoader timed out" in text:
        return (
            f"no batch came from the {workers} data workers within {PATIENCE / 60:g} minutes: see whether the disk or "
            "the storage that holds the store still answers; --workers 0 reads in the training process itself"
        )
    if re.match(r"DataLoader worker \(pid", text):
        return f"a data worker was killed ({text.strip().rstrip('.')}), as where memory runs out; {fix}"
    return None


def noted(stream: Iterable[Batch], file: str | os.PathLike[str]) -> Iterator[Batch]:
    """The same batches; images that could not be read go to `file` as JSON lines, once each, also over restarts."""
    file = Path(file)
    below(file.parent, file.name)
    lines = set(file.read_text(encoding="utf-8").splitlines()) if file.exists() else set()
    for batch in stream:
        for reject in batch.rejects:
            line = json.dumps(reject, ensure_ascii=False)
            if line not in lines:
                lines.add(line)
                with open(file, "a", encoding="utf-8") as f:
                    f.write(line + "\n")
        yield batch


@dataclass(frozen=True)
class _Slices:
    batch_size: int
    start: int
    stop: int
    every: int

    def __iter__(self) -> Iterator[list[int]]:
        b = self.batch_size
        return (list(range(k * b, (k + 1) * b)) for k in range(self.start, self.stop, self.every))


def _gathered(samples: list[Sample]) -> tuple[Tensor, tuple[dict[str, list[Any]], list[str], list[Reject]]]:
    """The batch's images, and its targets, ids and rejects."""
    targets: dict[str, list[Any]] = {k: [s.targets[k] for s in samples] for k in samples[0].targets}
    rejects = [r for s in samples for r in s.rejects]
    return torch.stack([s.image for s in samples]), (targets, [s.id for s in samples], rejects)


ALIGNED = 64
"""Bytes to whose multiples tensors are put in what a worker sends."""


def _packed(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """The batch's images, and all else as the bytes of one tensor, which `_unpacked` understands.

    On the way from a worker every tensor costs a file descriptor, so targets cannot travel one by one; and bytes would
    fill the pipe, where a worker whose trainer was killed would wait for ever.
    """
    images, (targets, ids, rejects) = _gathered(samples)
    _share(images)  # here, where an error reaches the trainer; on the way it would be lost, and the batch waited for
    plain = {k: [_plain(t) for t in ts] for k, ts in targets.items()}
    held: list[pickle.PickleBuffer] = []  # the arrays, which would be copied twice more within the pickle
    head = pickle.dumps((plain, ids, rejects), protocol=5, buffer_callback=held.append)
    parts: list[Any] = [head, *(buffer.raw() for buffer in held)]
    sizes = np.array([len(parts), *(len(p) for p in parts)], dtype=np.int64)
    ends = np.cumsum([_rounded(n) for n in (sizes.nbytes, *sizes[1:].tolist())])
    out = torch.empty(int(ends[-1]), dtype=torch.uint8)
    view = out.numpy()
    view[: sizes.nbytes] = sizes.view(np.uint8)
    for start, part in zip(ends, parts, strict=False):
        view[start : start + len(part)] = np.frombuffer(part, dtype=np.uint8)
    _share(out)
    return images, out


def _share(tensor: Tensor) -> None:
    """Move it into shared memory, as is done on the way to the trainer at the latest.

    Raises:
        RuntimeError: there is not enough, with `NO_ROOM` in its text.
    """
    try:
        tensor.share_memory_()
    except (RuntimeError, OSError) as e:
        raise RuntimeError(f"{NO_ROOM} for {tensor.nbytes} bytes: {e}") from e


def _unpacked(packed: Tensor) -> tuple[dict[str, list[Any]], list[str], list[Reject]]:
    """Targets, ids and rejects; the targets' tensors lie in `packed`."""
    view = packed.numpy()
    count = int(view[:8].view(np.int64)[0])
    sizes = view[: 8 * (count + 1)].view(np.int64)
    ends = np.cumsum([_rounded(n) for n in (sizes.nbytes, *sizes[1:].tolist())])
    parts: list[Any] = [view[start : start + n] for start, n in zip(ends, sizes[1:].tolist(), strict=False)]
    targets, ids, rejects = pickle.loads(parts[0], buffers=parts[1:])
    return {k: [_restored(t) for t in ts] for k, ts in targets.items()}, ids, rejects


def _rounded(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _plain(target: Target | None) -> Any:
    if target is None:
        return None
    values = {f.name: getattr(target, f.name) for f in fields(target)}
    return type(target), {k: None if v is None else v.numpy() for k, v in values.items()}


def _restored(plain: Any) -> Target | None:
    if plain is None:
        return None
    kind, values = plain
    target: Target = kind(**{k: None if v is None else torch.from_numpy(v) for k, v in values.items()})
    return target


def _quiet(worker: int) -> None:
    """Signals are for the process that trains: Ctrl-C reaches workers too, which it still needs for the checkpoint."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
