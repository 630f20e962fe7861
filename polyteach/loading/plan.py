"""Plan: which images of the stores are seen, and which label sets answer for them."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from polyteach.ground.names import did_you_mean
from polyteach.ground.options import listed
from polyteach.loading.chosen import check_chosen
from polyteach.loading.combine import COMBINE, check_combine
from polyteach.loading.objectives import Table, apart, by_people, join
from polyteach.store import LABELLED, ROW_GROUP, Index, LabelSet, Store, several
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective

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

    Label sets of one task whose classes agree by name share one objective, across stores (`objectives.py`);
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
    check_chosen([(s.task, s.name) for s in every], tasks, labels)
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
    """Refuse to combine where that would change nothing or cannot be.

    Raises:
        ValueError: no such way to combine teachers, nothing to combine, or a task that cannot.
    """
    check_combine(combine)
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


def digest(ids: Sequence[str]) -> str:
    """A hash of a set of images."""
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
    """Names of the label sets whose answers count, with their task where another task's set is called so too."""
    tasks: dict[str, set[str]] = {}
    for _, _, labels, _ in members(plan):
        tasks.setdefault(labels.name, set()).add(labels.task)
    found = {(labels.task, labels.name) for _, _, labels, n in members(plan) if n}
    return sorted(f"{task}/{name}" if len(tasks[name]) > 1 else name for task, name in found)


def _chosen(sets: list[LabelSet], tasks: Sequence[str], labels: Sequence[str]) -> list[LabelSet]:
    mine = [s for s in sets if not tasks or s.task in tasks]
    if not labels:
        return _made_first(mine)
    rank = {name: i for i, name in reversed(list(enumerate(labels)))}
    ranked = [(min((rank[n] for n in (s.name, f"{s.task}/{s.name}") if n in rank), default=-1), s) for s in mine]
    return [s for _, s in sorted((r for r in ranked if r[0] >= 0), key=lambda r: r[0])]


def _made_first(sets: Sequence[LabelSet]) -> list[LabelSet]:
    """The sets in their order, but each that was made of another's answers, as masks in its boxes, before that one."""
    out = list(sets)
    for made in [s for s in sets if s.given is not None]:
        source = next((i for i, s in enumerate(out) if (s.task, s.name) == made.given), None)
        if source is not None and source < out.index(made):
            out.remove(made)
            out.insert(source, made)
    return out


def _unused(name: str, taken: list[str]) -> str:
    """`name`, numbered where another objective has it; a head's name in the student may hold no dot."""
    base = name = name.replace(".", "-")
    n = 2
    while name in taken:
        name, n = f"{base}_{n}", n + 1
    return name


def _labelled(labels: LabelSet, states: Index, part: int, images: int) -> np.ndarray:
    if part not in states:
        return np.zeros(images, dtype=bool)
    labelled = states.among(part, (LABELLED,))
    if len(labelled) != images:
        raise ValueError(f"{labels.path} part {part} has {len(labelled)} rows; the store has {images} images there")
    return labelled
