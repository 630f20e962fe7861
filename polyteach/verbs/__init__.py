"""The doors: one file per verb, which holds its signature, its help and one call; a package is a verb of verbs.

A verb is found by its file's name, and the first line of its docstring is what `polyteach --help` says of it. No file
is imported for that, so that help is quick.
"""

import ast
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

ORDER = (
    *("ingest", "label", "train", "pretrain", "transfer", "predict", "evaluate", "export", "export-labels", "report"),
    *("store", "demo"),
)
"""In which order they are told: that of the method; others come after these."""
STORE = ("check", "info", "split", "merge", "drop-labels", "repair")


def verbs(group: str = "") -> dict[str, str]:
    """Name on the command line -> what it does, in one line; those of a verb of verbs where `group` names one."""
    folder = Path(__file__).parent / group
    files = {f.stem: f for f in folder.glob("*.py")} | {f.parent.name: f for f in folder.glob("*/__init__.py")}
    found = {name.replace("_", "-"): file for name, file in files.items() if not name.startswith("_")}
    order = [*ORDER, *STORE]
    told = sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))
    return {name: _summary(found[name]) for name in told}


_COMMAND: ContextVar[bool] = ContextVar("command", default=False)


@contextmanager
def command_line() -> Iterator[None]:
    """Within, verbs are called by the command line, which has no use for what they return but its exit status."""
    before = _COMMAND.set(True)
    try:
        yield
    finally:
        _COMMAND.reset(before)


def on_command_line() -> bool:
    """Whether a verb need not keep what it would return to whoever calls it from Python."""
    return _COMMAND.get()


def is_group(name: str) -> bool:
    """Whether it is a verb of verbs."""
    return (Path(__file__).parent / name / "__init__.py").is_file()


def load_verb(name: str, group: str = "") -> tuple[Callable[..., Any], Callable[[Any], int]]:
    """The verb of that name (see `verbs`), and what tells the exit status of what it returned.

    A verb whose work may be done in part has a function `status` in its file.
    """
    stem = name.replace("-", "_")
    door = importlib.import_module(".".join(filter(None, (__name__, group, stem))))
    return getattr(door, stem), getattr(door, "status", lambda result: 0)


def _summary(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".")
