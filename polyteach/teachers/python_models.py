"""Your own code as a teacher: `python:MODULE:FUNCTION` or `python:FILE.py:FUNCTION`.

FUNCTION(device=..., precision=...) returns a `Teacher`, or anything with `objectives` (name -> Objective) that can be
called with a list of images and returns for each a dictionary name -> target.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from jaxtyping import UInt8
from torch import Tensor

from polyteach.ground.names import unknown_name
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Target
from polyteach.teachers._python_check import parsed, python_file
from polyteach.teachers.contract import Teacher

_RECORDED = ("origin", "sha256", "licence", "learning_rate", "batch_size", "optimizer")


@final
class PythonTeacher(Teacher):
    """What a function returned, with its answers looked at before they are passed on."""

    def __init__(self, model: Any, where: str) -> None:
        self.where, self.model = where, model
        self.objectives = _objectives(model, where)
        self.origin = where
        for name in _RECORDED:
            if getattr(model, name, None):
                setattr(self, name, getattr(model, name))

    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        if not images:
            return []
        answers = self.model(images)
        if not isinstance(answers, Sequence) or len(answers) != len(images):
            got = f"{len(answers)} answers" if isinstance(answers, Sequence) else f"a {type(answers).__name__}"
            raise ValueError(f"{self.where} returned {got} for {len(images)} images")
        for answer in answers:
            if not isinstance(answer, Mapping):
                raise ValueError(f"{self.where} answered with a {type(answer).__name__}, not with a dict")
            for name, target in answer.items():
                if name not in self.objectives:
                    raise ValueError(f"{self.where} answered {name!r}; its objectives are {', '.join(self.objectives)}")
                wanted = load_task(self.objectives[name].task).target
                if not isinstance(target, wanted):
                    got = type(target).__name__
                    raise ValueError(f"{self.where} answered {name!r} with a {got}, not with a {wanted.__name__}")
        return [dict(answer) for answer in answers]


def load(name: str, device: str, precision: str) -> PythonTeacher:
    """The teacher that a function makes.

    Raises:
        ValueError: not MODULE:FUNCTION, no such module, file or function, or it returned no teacher.
    """
    module_name, function_name = parsed(name)
    module = _module(module_name)
    function: Callable[..., Any] | None = getattr(module, function_name, None)
    if not callable(function):
        own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
        there = [n for n, v in own.items() if callable(v) and not n.startswith("_")]
        raise unknown_name("function", function_name, there, f"{module_name} has")
    return PythonTeacher(function(device=device, precision=precision), f"python:{name}")


def _module(name: str) -> Any:
    if (file := python_file(name)) is not None:
        key = f"polyteach_python_{file.stem}"
        spec = importlib.util.spec_from_file_location(key, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module  # dataclasses and pickle look their module up
        spec.loader.exec_module(module)
        return module
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name is None or not f"{name}.".startswith(f"{e.name}."):
            raise  # the module is there, and something that it imports is not
        raise ValueError(
            f"no module {name!r} can be imported; for a file, say python:path/to/{name}.py:FUNCTION"
        ) from e


def _objectives(model: Any, where: str) -> dict[str, Objective]:
    found = getattr(model, "objectives", None)
    if not callable(model) or not isinstance(found, Mapping) or not found:
        raise ValueError(
            f"{where} returned a {type(model).__name__}; a teacher is called with images and has objectives, a dict"
            " of name -> Objective(task, Space(names, kind))"
        )
    for name, objective in found.items():
        if not isinstance(objective, Objective):
            raise ValueError(f"{where}: objective {name!r} is a {type(objective).__name__}, not an Objective")
        kinds = load_task(objective.task).kinds
        if objective.space.kind not in kinds:
            allowed = ", ".join(map(repr, kinds))
            raise ValueError(f"{where}: objective {name!r} has kind {objective.space.kind!r}; allowed are {allowed}")
    return dict(found)
