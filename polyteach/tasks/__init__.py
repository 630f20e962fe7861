"""Everything that differs between tasks: one file per task, named as the task is."""

import importlib
import pkgutil
from functools import cache
from typing import Any

from polyteach.names import unknown_name
from polyteach.tasks.contract import Task


def all_tasks() -> list[str]:
    """Names of the tasks in this folder, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "contract")


@cache  # every target of every image asks
def load_task(name: str) -> Task[Any]:
    """The task defined in `tasks/<name>.py`.

    Raises:
        ValueError: no such file; the message lists the tasks there are.
    """
    if name not in all_tasks():
        raise unknown_name("task", name, all_tasks())
    task: Task[Any] = importlib.import_module(f"polyteach.tasks.{name}").TASK
    return task
