"""Everything that differs between tasks: one file per task, named as the task is."""

import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any

from polyteach.ground.names import fit_name, unknown_name
from polyteach.ground.plugins import Family

if TYPE_CHECKING:
    from polyteach.tasks.contract import Task

    AnyTask = Task[Any]
else:  # the names of tasks are needed before torch, which the contract imports
    AnyTask = object

NO_TASKS = ("contract", "target")
"""Modules of this folder that are no task's."""


_FAMILY = Family(__name__, "task", "TASK")


def _own() -> dict[str, str]:
    modules = (m.name for m in pkgutil.iter_modules(__path__))
    return {name: name for name in modules if name not in NO_TASKS and not name.startswith("_")}


def all_tasks() -> list[str]:
    """Names of the tasks in this folder and of those that other distributions bring (`ground.plugins`), sorted."""
    return _FAMILY.names(_own())


def is_task(name: str) -> bool:
    """Whether there is a task of that name."""
    return name in all_tasks()


def known_task(name: str) -> str:
    """The name, where there is a task of it.

    Raises:
        ValueError: there is none; the message lists the tasks there are.
    """
    if not is_task(name):
        raise unknown_name("task", name, all_tasks())
    return name


@cache  # every target of every image asks
def load_task(name: str) -> AnyTask:
    """The task defined in `tasks/<name>.py`, or in a module of another distribution.

    Raises:
        ValueError: no such task; the message lists the tasks there are. Or as `Family.module`.
    """
    task = _FAMILY.module(_own(), fit_name("task", known_task(name))).TASK
    if getattr(task, "name", None) != name:
        raise ValueError(f"TASK of the task {name!r} must be a Task whose name is {name!r}; it is {task!r}")
    known: AnyTask = task
    return known
