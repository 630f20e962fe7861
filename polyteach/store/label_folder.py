"""A label set's folder: its records and its states; nothing here unpacks a target."""

import shutil
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from polyteach.ground.fields import Fields, cost
from polyteach.ground.storage import ObjectPath
from polyteach.ground.texts import say
from polyteach.store.folder import StoreFolder
from polyteach.store.index import Index
from polyteach.store.parts import is_linked, list_parts, part_name, prefetch_part, read_part
from polyteach.store.records import info_of, space_of
from polyteach.tasks import all_tasks, is_task
from polyteach.tasks.target import PEOPLE, Calibration, Objective

CALIBRATION = "calibration.json"
"""File of a set of how its probabilities are calibrated when they are learned."""
SPAN = 20.0
"""Temperatures are between 1 / SPAN and SPAN, shifts between -SPAN and SPAN."""

_TOLD: set[tuple[str, str, str]] = set()
"""Store, task and name of label sets that were told to be of a task that is not installed."""


def remedy(store: StoreFolder) -> str:
    """What to do about a label set that cannot be opened."""
    return f"Mend it, or take the set out: polyteach store repair {store.path}"


def every_set(store: StoreFolder) -> list[tuple[str, str]]:
    """Task and name of every label set, sorted; none of hidden folders, which are no task's."""
    found = sorted((f.parent.parent.name, f.parent.name) for f in (store.path / "labels").glob("*/*/set.json"))
    return [(task, name) for task, name in found if not task.startswith(".")]


def named_sets(store: StoreFolder) -> list[tuple[str, str]]:
    """As `every_set`, of the tasks that are installed here. What is left out is told, once."""
    found = every_set(store)
    known = {task for task in {task for task, _ in found} if is_task(task)}
    for task, name in found:
        if task not in known:
            tell_foreign(store, task, name)
    return [(task, name) for task, name in found if task in known]


def tell_foreign(store: StoreFolder, task: str, name: str) -> None:
    """Say, once, that a label set is of a task that is not installed here, and stays as it is."""
    if (str(store.path), task, name) not in _TOLD:
        _TOLD.add((str(store.path), task, name))
        say(
            f"{store.path}: label set {task}/{name} is left out and stays as it is: no task {task!r} is installed, "
            f"only {', '.join(all_tasks())}"
        )


class LabelFolder:
    """The folder of a label set, of which no target is unpacked; see `LabelSet`.

    Raises:
        ValueError: its set.json is broken, or is of another set than its folder says; names the field.
    """

    def __init__(self, store: StoreFolder, task: str, name: str) -> None:
        self.store = store
        self.task = task
        self.name = name
        self.path = store.path / "labels" / task / name
        about = Fields.read(self.path / "set.json", remedy(store))
        self.space = space_of(about, task, name)
        self.info = info_of(about)
        self._check(about)

    def _check(self, about: Fields) -> None:
        """What else set.json has to say, of a set whose targets are read."""

    @property
    def by_people(self) -> bool:
        """Whether humans made this label set."""
        return self.name == PEOPLE or self.info.get("teacher") == PEOPLE

    @property
    def given(self) -> tuple[str, str] | None:
        """Task and name of the label set whose answers this one's teacher was asked with, as masks are in boxes."""
        teacher = self.info.get("teacher")
        about = teacher.get("given") if isinstance(teacher, dict) else None
        return (str(about.get("task")), str(about.get("name"))) if isinstance(about, dict) else None

    @property
    def objective(self) -> Objective:
        """What a head that learns this set answers."""
        return Objective(self.task, self.space)

    def parts(self) -> list[int]:
        """Numbers of the parts that are labelled, ascending."""
        return list_parts(self.path, dense=True)

    def has(self, part: int) -> bool:
        """Whether that part is labelled."""
        return (self.path / part_name(part)).is_file()

    def prefetch(self, part: int, rows: Sequence[int] | None = None) -> bool:
        """As `StoreFolder.prefetch`, of the answers."""
        return prefetch_part(self.path / part_name(part), rows)

    def delete(self) -> None:
        """Delete the set, and its task's folder where it was the last one.

        Killed on the way, it leaves no set, or, in object storage, one of which parts are not labelled.

        Raises:
            ValueError: it lies behind a symbolic link.
        """
        folder = self.store.own("labels", self.task, self.name)
        if isinstance(folder, ObjectPath):
            about = folder / "set.json"
            # by name too: a part that the listing lacks would be taken for one of the next set of this name
            for file in {*folder.rglob("*"), *(folder / part_name(p) for p in self.parts())} - {about}:
                file.unlink(missing_ok=True)
            about.unlink(missing_ok=True)
            return
        gone = folder.parent.parent / f".{self.task}-{self.name}.deleted"
        if gone.is_symlink():
            gone.unlink()
        elif gone.exists():  # of one that was killed here
            shutil.rmtree(gone)
        folder.rename(gone)  # at once, so that no half-deleted set is ever seen
        shutil.rmtree(gone)  # which removes a link below, and not what that leads to
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()

    def ids(self, part: int) -> list[str]:
        """Ids of a part's images."""
        return self._texts(part, "id")

    def states(self, part: int) -> list[str]:
        """Per image "labelled", "absent" or "failed"."""
        return self._texts(part, "state")

    def _texts(self, part: int, column: str) -> list[str]:
        table = read_part(
            self.path / part_name(part), [column], None, self.store.most, pa.schema([(column, pa.string())])
        )
        texts: list[str] = table[column].to_pylist()
        return texts

    def every_state(self) -> Index:
        """The states of every image."""
        keep = not is_linked(self.store.path, "labels", self.task, self.name)
        return Index(self.path, "state", self.store.most, keep)

    def calibration(self) -> Calibration | None:
        """What training makes of the teacher's probabilities, which stay as they are kept; None where nothing.

        Raises:
            ValueError: its file is broken; names the field.
        """
        about = self.calibration_record()
        if about is None or self.by_people:
            return None
        return Calibration(float(about["temperature"]), float(about["shift"]))

    def calibration_record(self) -> dict[str, Any] | None:
        """What calibration.json says of how probabilities are calibrated, and by what; None where there is none.

        Raises:
            ValueError: it is broken; names the field.
        """
        if not (self.path / CALIBRATION).exists():
            return None
        fix = f"Take it away, or make it again: polyteach store calibrate {self.store.path} --labels {self.name}"
        about = Fields.read(self.path / CALIBRATION, fix)
        about.number("temperature", low=1 / SPAN, high=SPAN)
        about.number("shift", low=-SPAN, high=SPAN)
        about.texts("people")
        for key in ("images", "answers"):
            about.count(key, low=0)
        for key in ("nll", "ece"):
            for one in ("before", "after"):
                about.object(key).number(one, low=0)
        return about.value

    def record(self) -> dict[str, Any]:
        """What label.json says of how the set was made and what that cost; empty where there is none.

        compute: images, flops, seconds. teachers_compute: as `student.costs`. computed: what it was computed with.

        Raises:
            ValueError: it is broken; names the field.
        """
        if not (self.path / "label.json").exists():
            return {}
        about = Fields.read(self.path / "label.json", "Take it away: what the labels have cost is not known then")
        spent = about.object("compute", null=True)
        for key in spent.value:
            spent.number(key, null=key == "flops")
        for one in about.objects("teachers_compute", null=True):
            cost(one)
        for one in about.objects("computed", null=True):
            for key in one.value:
                one.text(key, null=True)
        return about.value
