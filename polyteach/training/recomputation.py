"""Recomputation: activations of a backbone that are computed again in the backward pass, instead of being kept.

Less memory for more time (gradient checkpointing; Chen et al. 2016, arXiv:1604.06174), and the same result: what is
random is drawn again as it was, and normalisation sees each batch once (`seen_once`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyteach.model.backbones import load_backbone


@contextmanager
def recomputed(backbone: nn.Module, name: str) -> Iterator[None]:
    """Within, passes through the backbone keep few activations.

    name: of the backbone, for the message.

    Raises:
        ValueError: the backbone cannot do so.
    """
    switch = _switch(backbone)
    try:
        if switch is None:
            raise NotImplementedError
        switch(True)
    except (AssertionError, NotImplementedError, AttributeError) as e:  # timm's models assert it
        raise _cannot(name) from e
    try:
        yield
    finally:
        switch(False)


def check_recomputable(name: str, size: tuple[int, int], config: Mapping[str, Any] | None = None) -> None:
    """Refuse a backbone that would keep as many activations, found out on one without memory (torch's "meta" device).

    size: (height, width) of images that it takes. config: see `load_backbone`.

    Raises:
        ValueError: as `recomputed`.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        backbone: nn.Module = load_backbone(name, None, size, config=config)
        images = torch.zeros(2, 3, *size)
    plain = _kept(backbone, images)
    with recomputed(backbone, name):
        if _kept(backbone, images) >= plain:  # it has the switch, and no use for it
            raise _cannot(name)


def _kept(backbone: nn.Module, images: Tensor) -> int:
    """How many numbers a pass leaves for the backward pass."""
    numbers: list[int] = []

    def note(kept: Tensor) -> Tensor:
        numbers.append(kept.numel())
        return kept

    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        backbone(images)
    return sum(numbers)


def _cannot(name: str) -> ValueError:
    """The error of a backbone that cannot compute its activations again."""
    return ValueError(
        f"grad_checkpointing: {name} cannot compute its activations again; leave it out, or choose another backbone"
    )


def _switch(backbone: nn.Module) -> Any:
    """What turns it on and off; timm's wrapper of a whole model has none of its own, and its model has."""
    whole: Any = getattr(backbone, "model", None)
    return getattr(backbone, "set_grad_checkpointing", None) or getattr(whole, "set_grad_checkpointing", None)


@contextmanager
def seen_once(model: nn.Module) -> Iterator[None]:
    """Within, where the backward pass computes activations again, batch normalisation counts no batch a second time."""
    norms: list[Any] = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(m, m.momentum, m.num_batches_tracked) for m in norms]
    for m in norms:
        m.momentum, m.num_batches_tracked = 0.0, None  # the running mean becomes 1 x itself + 0 x the batch's
    try:
        yield
    finally:
        for m, momentum, tracked in kept:
            m.momentum, m.num_batches_tracked = momentum, tracked
