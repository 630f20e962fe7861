"""The downstream set: what is learned there, how it is scored, and which images train, choose and test."""

from collections.abc import Sequence
from dataclasses import dataclass

from polyteach.ground.limits import Limits
from polyteach.ground.names import unknown_name
from polyteach.loading.chosen import only_task
from polyteach.loading.plan import Plan, digest, plan
from polyteach.store import Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Task
from polyteach.transferring.budget import ranked
from polyteach.transferring.options import TRAINED
from polyteach.transferring.protocol import Setup
from polyteach.transferring.scoring import score_names


@dataclass(frozen=True)
class Images:
    """Images of a store by what they are for. train: ids of all that there are to train on, whatever the budget."""

    store: Store
    task: str
    labels: str
    train_split: tuple[str, ...]
    train: list[str]
    validation: Plan
    test: Plan

    def chosen(self, ids: Sequence[str]) -> Plan:
        """Some of the training images."""
        return plan([self.store], [self.task], [self.labels], self.train_split, set(ids))


@dataclass(frozen=True)
class DownstreamTask:
    """One objective of a store.

    name: of the objective. metric: the score that decides. higher: whether more of it is better.
    """

    task: Task
    name: str
    objective: Objective
    metric: str
    higher: bool
    images: Images

    def digests(self) -> dict[str, object]:
        """What it consists of, so that a change is noticed."""
        return {
            "train": digest(self.images.train),
            "validation": digest(self.images.validation.ids()),
            "test": digest(self.images.test.ids()),
            "classes": list(self.objective.space.names),
        }


def open_downstream(setup: Setup) -> DownstreamTask:
    """The downstream set that the options name.

    Raises:
        ValueError: there is no such store, label set, split, metric or mode; or an image would be used twice.
    """
    store = Store.open(setup.store, limits=Limits(setup.allow_remote, setup.max_pixels))
    task_name = setup.task or only_task(store, setup.labels)
    task = load_task(task_name)
    if task.auxiliary:
        raise ValueError(
            f"{task_name} serves training alone, and is no task to transfer to; choose another with --task"
        )
    whole = plan([store], [task_name], [setup.labels], setup.train_split)
    if len(whole.objectives) > 1:
        raise ValueError(f"labels {setup.labels!r} have several objectives: {', '.join(whole.objectives)}")
    ((name, objective),) = whole.objectives.items()
    names = score_names(objective)
    metric = setup.metric or names[0]
    if metric not in names:
        raise unknown_name("metric", metric, names, f"{task_name} has")
    if setup.mode not in (*TRAINED, *task.probes):
        raise unknown_name("mode", setup.mode, (*TRAINED, *task.probes), f"{task_name} has")
    images = _divided(setup, store, task_name, whole)
    return DownstreamTask(task, name, objective, metric, metric not in task.lower_is_better, images)


def _divided(setup: Setup, store: Store, task: str, whole: Plan) -> Images:
    """Training, validation and test images, of which no two share one."""

    def chosen(splits: Sequence[str], ids: set[str] | None = None) -> Plan:
        return plan([store], [task], [setup.labels], splits, ids)

    ids = whole.ids()
    if setup.validation_split:
        validation = chosen(setup.validation_split)
    else:
        held = set(ranked(ids, "validation")[: max(1, round((setup.held_out or 0.0) * len(ids)))])
        validation = chosen(setup.train_split, held)
        ids = [i for i in ids if i not in held]
    if not ids:
        raise ValueError(f"held_out {setup.held_out} of {len(whole)} training images leaves none to train on")
    test = chosen(setup.test_split)
    for a, b, first, second in (
        ("training", "test", set(ids), set(test.ids())),
        ("validation", "test", set(validation.ids()), set(test.ids())),
        ("training", "validation", set(ids), set(validation.ids())),
    ):
        if both := first & second:
            raise ValueError(f"{len(both)} images are in both the {a} and the {b} set, {min(both)!r} among them")
    return Images(store, task, setup.labels, setup.train_split, ids, validation, test)
