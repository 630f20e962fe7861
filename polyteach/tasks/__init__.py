"""Everything that differs between tasks: one file per task, named as the task is."""

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any

from polyteach.ground.names import unknown_name

if TYPE_CHECKING:
    from polyteach.tasks.contract import Task

    AnyTask = Task[Any]
else:  # the names of tasks are needed before torch, which the contract imports
    AnyTask = object

NO_TASKS = ("contract", "target")
"""Modules of this folder that are no task's."""


def all_tasks() -> list[str]:
    """Names of the tasks in this folder, sorted."""
    names = (m.name for m in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if name not in NO_TASKS and not name.startswith("_"))


def known_task(name: str) -> str:
    """The name, where there is a task of it.

    Raises:
        ValueError: there is none; the message lists the tasks there are.
    """
    if name not in all_tasks():
        raise unknown_name("task", name, all_tasks())
    return name


@cache  # every target of every image asks
def load_task(name: str) -> AnyTask:
    """The task defined in `tasks/<name>.py`.

    Raises:
        ValueError: no such file; the message lists the tasks there are.
    """
    task: AnyTask = importlib.import_module(f"polyteach.tasks.{known_task(name)}").TASK
    return task
