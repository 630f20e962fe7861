"""What training costs: floating-point operations, counted by torch on one batch."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")


def counted(call: Callable[[], T]) -> tuple[T, float | None]:
    """What `call` returns, and the operations of torch's convolutions and matrix products in it.

    A multiplication and an addition are two. None where torch sees none, as when another runtime does the work.
    """
    with FlopCounterMode(display=False) as counter:
        value = call()
    return value, float(counter.get_total_flops()) or None


def step_flops(model: nn.Module, images: Tensor, targets: dict[str, list[Any]]) -> float | None:
    """Operations per image of a forward and backward pass, counted on a copy of `model`; the random state is put back.

    model: called as model(images, targets) -> losses by objective. images: (B, 3, h, w).
    """
    twin = copy.deepcopy(model).train()  # the pass would move the statistics of batch normalisation

    def step() -> None:
        losses = twin(images, targets)
        total = torch.stack([v.float() for v in losses.values()]).sum() if losses else torch.zeros(())
        if total.requires_grad:
            total.backward()

    with torch.random.fork_rng():
        _, found = counted(step)
    return None if found is None else found / len(images)
