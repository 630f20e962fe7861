"""Several processes that train one model: started by torchrun, which tells each its RANK, LOCAL_RANK and WORLD_SIZE.

Without torchrun there is one process, and nothing here does anything.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", "0"))


def own_device(name: str) -> str:
    """The device of this process: of "cuda" the one of its number on this machine; else as it is."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" and size() > 1 else name


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Within, the processes can talk to each other: through NCCL about tensors on GPUs, else through gloo."""
    if size() == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Until all processes are here."""
    if size() > 1:
        dist.barrier()


def gathered(value: Any) -> list[Any]:
    """What every process says, by rank; anything that pickle knows. Only among processes of one run."""
    if size() == 1:
        return [value]
    out: list[Any] = [None] * size()
    dist.all_gather_object(out, value)
    return out


def share_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by the sum over all processes.

    One that only some have is 0 in the others: a head whose labels a process did not see. All sum in one order, so
    that none waits for another that has nothing to say.
    """
    if size() == 1:
        return
    here = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
    dist.all_reduce(here, op=dist.ReduceOp.MAX)
    for p, wanted in zip(parameters, here.tolist(), strict=True):
        if wanted and p.grad is None:
            p.grad = torch.zeros_like(p)
    _sum([p.grad for p in parameters if p.grad is not None])


@torch.no_grad()
def share_statistics(model: nn.Module) -> None:
    """Replace the running statistics of batch normalisation by their mean over all processes."""
    if size() == 1:
        return
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    values = [v for m in layers for v in (m.running_mean, m.running_var) if v is not None]
    _sum(values)
    for value in values:
        value /= size()


@torch.no_grad()
def _sum(tensors: Sequence[Tensor]) -> None:
    """In place; tensors of one type in one message."""
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        mine = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.reshape(-1) for t in mine])
        dist.all_reduce(flat)
        for tensor, part in zip(mine, flat.split([t.numel() for t in mine]), strict=True):
            tensor.copy_(part.view_as(tensor))
