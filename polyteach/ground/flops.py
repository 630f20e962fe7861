"""What computing costs: floating-point operations, counted on one batch by torch's rules."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

T = TypeVar("T")

COUNTED = 2
"""Images that `step_flops` needs. Counting keeps all that a step makes on the host, 1 GiB an image at 512 pixels."""


def counted(call: Callable[[], T]) -> tuple[T, float | None]:
    """What `call` returns, and the operations of torch's convolutions and matrix products in it.

    A multiplication and an addition are two. None where torch sees none, as when another runtime does the work.
    """
    with _Operations() as counter:
        value = call()
    return value, float(counter.total) or None


class _Operations(TorchDispatchMode):
    """As torch's FlopCounterMode, but for resizing, which is left whole.

    FlopCounterMode takes apart whatever it does not count, to count what is in it. Of resizing that is hundreds of
    operations in Python on whole maps, and no product: counting a SegFormer's answer took five times as long as the
    answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = flop_registry.get(func._overloadpacket)
        if rule is None and "upsample" not in func.name():
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if rule is not None:
            self.total += rule(*args, **kwargs, out_val=out)
        return out


def step_flops(model: nn.Module, images: Tensor, targets: dict[str, list[Any]]) -> float | None:
    """Operations per image of a forward and backward pass, counted on a copy of `model`; the random state is put back.

    model: called as model(images, targets) -> losses by objective. images: (B, 3, h, w), best `COUNTED` of them: what
    an image costs does not depend on how many there are, the memory for counting does.
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
