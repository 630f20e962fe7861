"""Protocols: how the field measures transfer to a dataset, as datasets' files state it."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """What `transfer --protocol NAME` stands for.

    A dataset's file lists its own as `PROTOCOLS = {NAME: Protocol(...)}`, of literals alone; names are unique over all
    files.

    task: the one that is measured. train, test: splits of the store. validation: splits too, or the share of the
        training images (0..1) that is held out where the dataset has none to spare. metric: the task's, by name.
    size: side of the views in pixels. lrs, steps: the grid that every representation is swept over. batch_size: per
    step. few: the few-label variant, NAME-few: {"shots": images per class} or {"fraction": share of the images}.
    """

    task: str
    train: tuple[str, ...]
    validation: tuple[str, ...] | float
    test: tuple[str, ...]
    metric: str
    size: int
    lrs: tuple[float, ...]
    steps: tuple[int, ...]
    batch_size: int
    few: dict[str, float]


def stated_protocols(folder: Path) -> dict[str, Protocol]:
    """The protocols that the Python files in a folder state, by name.

    The files are read and not imported, so that a mistyped name is told before anything slow is.
    """
    found: dict[str, Protocol] = {}
    for file in sorted([*folder.glob("[a-z]*.py"), *folder.glob("[a-z]*/__init__.py")]):
        text = file.read_text(encoding="utf-8")
        for node in ast.parse(text).body if "\nPROTOCOLS" in text else ():
            names = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            value = getattr(node, "value", None)
            if isinstance(value, ast.Dict) and any(isinstance(n, ast.Name) and n.id == "PROTOCOLS" for n in names):
                for key, call in zip(value.keys, value.values, strict=True):
                    found[_literal(key)] = _stated(call)
    return found


def _stated(call: ast.expr) -> Protocol:
    assert isinstance(call, ast.Call)
    return Protocol(**{str(k.arg): _literal(k.value) for k in call.keywords})


def _literal(node: ast.expr | None) -> Any:
    assert node is not None
    return ast.literal_eval(node)
