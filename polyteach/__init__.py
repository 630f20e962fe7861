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
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ingest", "label", "load_student", "predict", "train"]

if TYPE_CHECKING:
    from polyteach.ingest import ingest
    from polyteach.label import label
    from polyteach.predict import predict
    from polyteach.student import load_student
    from polyteach.train import train

_HOME = {name: f"polyteach.{name}" for name in ("ingest", "label", "train", "predict")}
_HOME["load_student"] = "polyteach.student"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'polyteach' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # the submodule of the same name was bound here by its import; the verb wins
    return value
