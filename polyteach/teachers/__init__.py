"""Teachers: images in, targets out. One file per family, found by its name.

`timm:resnet50` is loaded by `teachers/timm_models.py`, `own:RUN` by `teachers/own.py`. A family's file has one
function `load(name, device, precision) -> Teacher`. It may have a companion such as `_timm_check.py`, whose
`check(name)` refuses what can be refused without torch; importing this package imports no torch either, so that a
mistake in a command is told at once.

`contract.py` says what a teacher is. Files that begin with an underscore are no families: they hold what several share.
"""

import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING, Any

from polyteach._moved import RENAMED
from polyteach.ground.names import did_you_mean, unknown_name
from polyteach.ground.options import PRECISIONS
from polyteach.ground.plugins import Family

if TYPE_CHECKING:
    from polyteach.teachers._files import at_file, class_names, inside, no_names
    from polyteach.teachers._load import load_teacher
    from polyteach.teachers._maps import THINNEST, as_pillow, map_size, most_probable, refuse_thin, resized, size_of
    from polyteach.teachers._torch import Classifier, TorchTeacher, by_shape, preprocessing
    from polyteach.teachers._weights import digest, load_strict, where
    from polyteach.teachers.contract import Chained, Teacher

__all__ = [
    "THINNEST", "Chained", "Classifier", "Teacher", "TorchTeacher", "as_pillow", "at_file", "by_shape", "check_teacher",
    "class_names",
    "digest", "families", "inside", "load_strict", "load_teacher", "map_size", "most_probable", "needed", "no_names",
    "preprocessing", "refuse_thin", "resized", "size_of", "where",
]  # fmt: skip

_HOMES = ("contract", "_load", "_torch", "_maps", "_files", "_weights")
"""Where the names of `__all__` live; they are imported when they are asked for."""


_FAMILY = Family(__name__, "teacher family", "load")


def _own() -> dict[str, str]:
    found = (m.name for m in pkgutil.iter_modules(__path__))
    return {name.removesuffix("_models"): name for name in found if name != "contract" and not name.startswith("_")}


def families() -> list[str]:
    """The families there are: files of this folder, and what other distributions bring (`ground.plugins`); sorted."""
    return _FAMILY.names(_own())


def family_module(family: str) -> Any:
    """The module of a family, imported."""
    return _FAMILY.module(_own(), family)


def check_teacher(spec: str, precision: str = "fp32") -> tuple[str, str]:
    """Family and name of a FAMILY:NAME, of which is refused what can be refused without loading it; quick.

    Raises:
        ValueError: unknown family, model or precision, no such file; the message lists what there is.
    """
    family, colon, name = spec.partition(":")
    if not colon or not name or family not in families():
        raise _no_family(spec, family, colon)
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    companion = _companion(family)
    if companion is not None:
        companion.check(name)
    return family, name


def needed(spec: str) -> tuple[str, str] | None:
    """Task and name of the label set whose answers a teacher is asked with; None where it looks at images alone.

    Raises:
        ValueError: FAMILY:NAME does not say it, and has to.
    """
    family, _, name = spec.partition(":")
    companion = _companion(family)
    found: tuple[str, str] | None = companion.needs(name) if hasattr(companion, "needs") else None
    return found


def _companion(family: str) -> Any:
    """The module that checks names of a family without torch; None where it has none."""
    name = f"{__name__}._{family}_check"
    return None if importlib.util.find_spec(name) is None else importlib.import_module(name)


def _no_family(spec: str, family: str, colon: str) -> ValueError:
    """The error for what is no FAMILY:NAME: what is wrong with it, the families, the closest, and what to do."""
    known = families()
    if family in known:
        wrong = "names a family and no model"
    else:
        wrong = f"is of the unknown family {family!r}" if colon else "names no family"
    return ValueError(
        f"teacher {spec!r} {wrong}; a teacher is FAMILY:NAME with FAMILY one of {', '.join(known)}"
        f"{did_you_mean(family, known) or '.'} A YOLO: export it to ONNX and give onnx:FILE. A model of another "
        "library (Detectron2, MMDetection): that too, with FILE.json beside it (docs/guide/onnx.md), or write a "
        "function that asks it: python:FILE.py:FUNCTION"
    )


def __getattr__(name: str) -> Any:
    now = RENAMED.get(("teachers", name), name)
    if now in __all__:
        for home in _HOMES:
            module = importlib.import_module(f"{__name__}.{home}")
            if now in vars(module):
                return vars(module)[now]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
