"""polyteach: many specialist vision models teach one general model.

Multi-task self-training (MuST; Ghiasi et al., ICCV 2021, arXiv 2108.11353) in three steps::

    import polyteach

    polyteach.ingest("photos/", "store/")                            # images -> store
    polyteach.label("store/", teachers={"classes": "timm:resnet50",  # teachers -> pseudo labels
                                        "boxes": "torchvision:fasterrcnn_resnet50_fpn"})
    polyteach.train("store/", out="run/")                            # pseudo labels -> one student
    polyteach.predict("run/", ["cat.jpg"], out="drawings/")

`import polyteach` is light: torch is imported by the first function that needs it.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from polyteach._moved import forward
from polyteach.version import __version__ as __version__

__all__ = [
    "evaluate",
    "export",
    "ingest",
    "label",
    "load_student",
    "predict",
    "pretrain",
    "report",
    "train",
    "transfer",
]

if TYPE_CHECKING:
    from polyteach.model.student import load_student
    from polyteach.verbs.evaluate import evaluate
    from polyteach.verbs.export import export
    from polyteach.verbs.ingest import ingest
    from polyteach.verbs.label import label
    from polyteach.verbs.predict import predict
    from polyteach.verbs.pretrain import pretrain
    from polyteach.verbs.report import report
    from polyteach.verbs.train import train
    from polyteach.verbs.transfer import transfer

_HOME = {f.stem: f"polyteach.verbs.{f.stem}" for f in (Path(__file__).parent / "verbs").glob("[a-z]*.py")}
del _HOME["demo"]  # `polyteach.demo` is a module
_HOME["load_student"] = "polyteach.model.student"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'polyteach' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # `import polyteach.label`, an old name, would put the module where the verb of the same name is wanted
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
forward()
