"""Batch normalisation's statistics apart from what was learned: for the controls of benchmarks/strong.py.

A continued training replaces a checkpoint's means and variances within some tens of steps, at any learning rate, by
those of its own views. So a frozen backbone may be worse than before though its weights have hardly moved.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from polyteach.ground.geometry import letterbox
from polyteach.ground.weights import state_dict
from polyteach.model.student import Student
from polyteach.store import Store

PARTS = ("running_mean", "running_var", "num_batches_tracked")
BATCH = 64


def backbone_of(backbone: str, init: str, size: int) -> Student:
    """A student without heads, its backbone from a state dict or a run's folder."""
    return Student(backbone, {}, 32, init, ("backbone",), size=(size, size)).eval()


def backbone_state(student: Student) -> dict[str, Tensor]:
    """Weights and statistics of the backbone by timm's names."""
    found = student.state_dict().items()
    return {k.removeprefix("backbone."): v for k, v in found if k.startswith("backbone.")}


def mixed(weights: dict[str, Tensor], statistics: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one state dict with the statistics of another of the same network.

    Raises:
        ValueError: one of them lacks what the other has.
    """
    if odd := weights.keys() ^ statistics.keys():
        raise ValueError(f"these are of two networks: {min(odd)} is in one alone")
    return {k: statistics[k] if k.rpartition(".")[2] in PARTS else v for k, v in weights.items()}


def whole_views(store: Store, count: int, size: int) -> Iterable[Tensor]:
    """Batches (B, 3, size, size) uint8 of the first images of a store, whole and padded as a probe sees them."""
    views: list[Tensor] = []
    rows = [row for part in store.parts() for row in store.images(part)]
    for row in rows[:count]:
        image = store.image(row)
        views.append(letterbox((image.shape[1], image.shape[2]), (size, size)).image(image))
    return torch.stack(views).split(BATCH)


def measure(student: Student, batches: Iterable[Tensor]) -> Student:
    """Statistics as they are in these batches, each counting the same; the weights stay."""
    norms = [m for m in student.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # a mean over all batches
    student.backbone.train()
    with torch.no_grad():
        for batch in batches:
            student.levels(batch)
    for m, momentum in zip(norms, kept, strict=True):
        m.momentum = momentum
    return student.eval()


def completed(state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """A backbone's state with what the checkpoint's file has beside it (its classifier), as `--init` takes it."""
    return {k: v.contiguous() for k, v in (state_dict(file) | state).items()}
