"""Modules under the names that they had up to version 0.2: `from polyteach.batches import plan` keeps working."""

import importlib
import sys
from collections.abc import Callable, Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    "ingest": ("verbs.ingest", "curation.look", "curation.ingest"),
    "stores": (
        "verbs.store.check", "verbs.store.info", "verbs.store.split", "verbs.store.merge", "verbs.store.drop_labels",
        "verbs.store.repair", "curation.check", "curation.info", "curation.repair",
    ),
    "splits": ("curation.split", "curation.grouping"),
    "label": (
        "verbs.label", "labelling.label", "labelling.options", "labelling.asking", "labelling.part", "labelling.team",
        "labelling.costs", "labelling.handout", "loading.stream",
    ),
    "cluster": ("labelling.cluster",),
    "predict": ("verbs.predict", "labelling.predict", "labelling.unreadable"),
    "train": ("verbs.train", "training.train"),
    "pretrain": ("verbs.pretrain", "training.pretrain"),
    "loop": (
        "training.loop", "training.settings", "training.mixture", "training.averaging", "training.log",
        "training.alone", "training.checkpoints",
    ),
    "checkpoints": ("training.checkpoints",),
    "processes": ("training.distributed",),
    "transfer": (
        "verbs.transfer", "transferring.protocol", "transferring.options", "transferring.budget",
        "transferring.transfer",
    ),
    "evaluate": ("transferring.scoring",),
    "report": ("verbs.report", "reporting.report"),
    "compare": ("reporting.compare",),
    "charts": ("reporting.charts",),
    "page": ("reporting.page", "reporting.blocks", "reporting.markdown"),
    "scores": ("reporting.results",),
    "demo": (
        "verbs.demo", "demonstration.run", "demonstration.photographs", "demonstration.held_out",
        "demonstration.stages",
    ),
    "batches": (
        "loading.plan", "loading.sampler", "loading.views", "loading.reader", "loading.samples", "loading.transport",
        "loading.objectives",
        "loading.combine",
    ),
    "objectives": ("loading.objectives",),
    "student": ("model.student", "model.provenance"),
    "precision": ("tasks._average_precision",),
    "compute": ("ground.flops",),
    "arguments": ("ground.options",),
} | {
    name: (f"ground.{name}",)
    for name in (
        "geometry", "jackknife", "files", "images", "names", "tables", "progress", "devices", "weights", "uris",
        "storage", "limits", "texts", "fields", "scene", "layers",
    )
}  # fmt: skip
"""Old name -> where what it held lives now; the first that has an attribute gives it."""
RENAMED = {
    ("batches", "Order"): "Sampler",
    ("geometry", "fit"): "letterbox",
    ("processes", "share"): "all_reduce",
    ("processes", "gathered"): "all_gather",
    ("processes", "wait"): "barrier",
    ("store", "Overview"): "Index",
    ("store", "height"): "count_rows",
    ("page", "Pictures"): "Images",
    ("teachers", "picture"): "as_pillow",
}
"""Old module and name in it -> what that is called now."""
RELOCATED = {
    ("tasks.classification", "TopK"): "tasks._classification_metric",
    ("tasks.depth", "DepthErrors"): "tasks._depth_metric",
    ("tasks.detection", "AveragePrecision"): "tasks._detection_metric",
    ("tasks.normals", "Angles"): "tasks._normals_metric",
    ("tasks.segmentation", "MeanIoU"): "tasks._segmentation_metric",
    ("teachers.onnx_models", "LONGEST"): "teachers._onnx_input",
    ("tasks.detection", "DRAWN"): "tasks._detection_drawing",
} | {
    ("tasks.detection", name): "tasks._detection_head"
    for name in (
        "DetectionHead", "DetectionPrediction", "Proposals", "Regions", "CROWDED", "REGIONS", "sampled",
        "weighted_region_loss", "weighted_mask_loss",
    )
}  # fmt: skip
"""Module that still is where it was, and a name that it held -> the module that holds it now."""


def relocated(module: str) -> Callable[[str], Any]:
    """A `__getattr__` for the module of that name, which finds what it held before; imported when it is asked for."""

    def find(name: str) -> Any:
        home = RELOCATED.get((module.removeprefix("polyteach."), name))
        if home is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"polyteach.{home}"), name)

    return find


class _Forward(ModuleType):
    """A module whose attributes are those of others, looked up when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        if not (name.startswith("__") and name.endswith("__")):
            old = self.__name__.removeprefix("polyteach.")
            name = RENAMED.get((old, name), name)
            for home in MOVED[old]:
                module = importlib.import_module(f"polyteach.{home}")
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == "polyteach" and name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Forward(spec.name, f"Moved: see {', '.join(MOVED[spec.name.removeprefix('polyteach.')])}.")

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to be run: what it forwards to is imported when it is asked for."""


def forward() -> None:
    """Let the old names be imported; once for the process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
