"""polyteach: many specialist vision models teach one general model.

Multi-task self-training (MuST; Ghiasi et al., ICCV 2021, arXiv 2108.11353) in three steps::

    import polyteach

    polyteach.ingest("photos/", "store/")                            # images -> store
    polyteach.label("store/", teachers={"classes": "timm:resnet50",  # teachers -> pseudo labels
                                        "boxes": "torchvision:fasterrcnn_resnet50_fpn"})
    polyteach.train("store/", out="run/")                            # pseudo labels -> one student
    polyteach.predict("run/", ["cat.jpg"], out="pictures/")

`import polyteach` is light: torch is imported by the first function that needs it.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["ingest", "label", "load_student", "predict", "pretrain", "report", "train", "transfer"]

if TYPE_CHECKING:
    from polyteach.ingest import ingest
    from polyteach.label import label
    from polyteach.predict import predict
    from polyteach.pretrain import pretrain
    from polyteach.report import report
    from polyteach.student import load_student
    from polyteach.train import train
    from polyteach.transfer import transfer

_VERBS = ("ingest", "label", "train", "pretrain", "transfer", "predict", "report")
_HOME = {name: f"polyteach.{name}" for name in _VERBS}
_HOME["load_student"] = "polyteach.student"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'polyteach' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # `import polyteach.label` would put the module where the verb of the same name is wanted
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
