"""Several processes that train one model: started by torchrun, which tells each its RANK, LOCAL_RANK and WORLD_SIZE.

Without torchrun there is one process, and nothing here does anything.

Shapes: B images, C channels.
"""

import math
import os
import pickle
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from jaxtyping import Float
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from polyteach.training.processes import rank as rank
from polyteach.training.processes import size as size

_J = TypeVar("_J", bound="Joint")

ANCHOR = ""
"""Key of what `Joint` adds to a model's losses."""
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others before it gives up: they may read a store, or write a checkpoint."""
ROOM = 1024
"""Bytes that a message of `all_gather` has room for, until one is longer."""

_room = ROOM


def own_device(name: str) -> str:
    """The device of this process: of "cuda" the one of its number on this machine; else as it is."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" and size() > 1 else name


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Within, the processes can talk to each other: through NCCL about tensors on GPUs, else through gloo.

    Raises:
        TimeoutError: not all of them came within `PATIENCE`; whoever waits so long later has torch's own error.
    """
    if size() == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    global _room
    _room = ROOM  # as in all others
    store, _, _ = next(dist.rendezvous("env://", timeout=PATIENCE))
    store.set_timeout(PATIENCE)
    dist.init_process_group(backend, store=_unused(store), rank=rank(), world_size=size(), timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _unused(store: dist.Store) -> dist.Store:
    """A part of `store` that these processes share and that none has ever written to.

    torchrun keeps its store when it starts processes again: they would read the addresses of dead ones, and wait for
    them (pytorch/pytorch#135712). Its count of restarts would not do as a name: each machine has its own.
    """
    mine = uuid4().hex
    if rank():
        store.set(f"asks/{rank()}", mine)
        name = store.get(f"answer/{mine}").decode()  # waits
        store.set(f"knows/{name}/{rank()}", "")
        return dist.PrefixStore(name, store)
    waiting, end = set(range(1, size())), time.monotonic() + PATIENCE.total_seconds()
    while waiting:
        if time.monotonic() > end:
            raise TimeoutError(
                f"of {size()} processes, number {', '.join(map(str, sorted(waiting)))} did not come within "
                f"{PATIENCE.total_seconds() / 60:g} minutes; see what they say, on their machines too, and start again"
            )
        for other in waiting:
            if store.check([f"asks/{other}"]):  # it may be a dead one that asked, so again and again
                store.set(f"answer/{store.get(f'asks/{other}').decode()}", mine)
        waiting = {k for k in waiting if not store.check([f"knows/{mine}/{k}"])}
        time.sleep(0.01)
    return dist.PrefixStore(mine, store)


def barrier() -> None:
    """Until all processes are here."""
    if size() > 1:
        dist.barrier()


def another_group() -> dist.ProcessGroup:
    """All processes again, so that a thread can talk beside what the others do: tensors on the CPU."""
    group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
    return group


def all_gather(value: Any) -> list[Any]:
    """What every process says, by rank; anything that pickle knows. Only among processes of one run.

    One round trip, where torch's all_gather_object takes two, of a message that has room for the longest so far; all
    see each other's lengths, so that all notice when that was not enough.
    """
    global _room
    if size() == 1:
        return [value]
    mine = pickle.dumps(value)
    while True:
        message = torch.zeros(8 + _room, dtype=torch.uint8)
        text = len(mine).to_bytes(8, "little") + mine[:_room]
        message[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        messages = [torch.empty_like(message) for _ in range(size())]
        dist.all_gather(messages, message)
        texts = [m.numpy().tobytes() for m in messages]
        lengths = [int.from_bytes(t[:8], "little") for t in texts]
        if max(lengths) <= _room:
            return [pickle.loads(t[8 : 8 + n]) for t, n in zip(texts, lengths, strict=True)]
        _room = 2 * max(lengths)


def all_reduce(
    parameters: Sequence[nn.Parameter],
    reached: Collection[int] | None = None,
    averaged: Sequence[Tensor] = (),
    flags: Sequence[bool] = (),
) -> list[bool]:
    """Replace every gradient by the sum over all processes; of what is sharded FSDP has made the mean already.

    One that only some have is 0 in the others: a head whose labels a process did not see. All sum in one order, so
    that none waits for another that has nothing to say. All of it is one message for each type of numbers.

    reached: ids of the parameters whose gradient counts here, where some have one of 0 from `Joint`; what no process
    has reached ends without a gradient. None: those that have one. averaged: tensors that are replaced by their mean.

    Returns:
        flags: of each, whether any process has set it.
    """
    if size() == 1:
        return list(flags)
    mine = [p.grad is not None if reached is None else id(p) in reached for p in parameters]
    here = torch.tensor([*mine, *flags], dtype=torch.float32, device=parameters[0].device)
    for p in parameters:
        if p.grad is None and not isinstance(p, DTensor):
            p.grad = torch.zeros_like(p)
    whole = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    _sum([*whole, *averaged, here])
    for tensor in averaged:
        tensor /= size()
    said = [count > 0 for count in here.tolist()]
    for p, wanted in zip(parameters, said, strict=False):
        if not wanted:
            p.grad = None
        elif p.grad is None:
            p.grad = torch.zeros_like(p)
        elif isinstance(p.grad, DTensor):
            p.grad.to_local().mul_(size())
    return said[len(mine) :]


def statistics(model: nn.Module) -> list[Tensor]:
    """The running statistics of batch normalisation that differ between processes."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    layers = [m for m in norms if not isinstance(m, SyncBatchNorm | nn.SyncBatchNorm)]
    return [v for m in layers for v in (m.running_mean, m.running_var) if v is not None]


@torch.no_grad()
def _sum(tensors: Sequence[Tensor]) -> None:
    """In place; tensors of one type in one message."""
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        mine = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.reshape(-1) for t in mine])
        dist.all_reduce(flat)
        for tensor, part in zip(mine, flat.split([t.numel() for t in mine]), strict=True):
            tensor.copy_(part.view_as(tensor))


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the batches of all processes, on any device; torch's own is for GPUs only.

    (B, C, ...) float -> the same shape. Without other processes, and in evaluation, it is plain batch normalisation.
    Made by `synchronise` from a layer of torch, or from one of timm with the activation in it.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # any number of dimensions will do

    def forward(self, input: Float[Tensor, "B C ..."]) -> Float[Tensor, "B C ..."]:
        together = self.training and dist.is_initialized()
        x: Tensor = self._normalised(input) if together else super().forward(input)
        for part in ("drop", "act"):  # of timm's layers, in this order
            if hasattr(self, part):
                x = getattr(self, part)(x)
        return x

    def _normalised(self, x: Tensor) -> Tensor:
        axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        values = x.float()  # whatever the precision, as torch does it
        number = values.new_full((1,), values.numel() / values.shape[1])
        total = _Summed.apply(torch.cat([values.sum(axes), number]))
        mean, count = total[:-1] / total[-1], total[-1].detach()
        centred = values - mean.view(shape)  # first the mean, then the variance: their difference would lose digits
        variance = _Summed.apply(centred.square().sum(axes)) / count
        out: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean, rate)
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), rate)
        return out.to(x.dtype)


class _Summed(torch.autograd.Function):
    """The sum over all processes; its gradient is that of all their losses together."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        out = tensor.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        out = gradient.clone()
        dist.all_reduce(out)
        return out


def synchronise(module: nn.Module, device: torch.device) -> int:
    """Replace every batch normalisation in `module` by one over all processes' batches; returns how many there are.

    Names and values of the parameters stay. On GPUs they become torch's own layers, which are quicker there. All
    processes must run `module` equally often, forwards and backwards: see `Joint`.
    """
    found = {n: m for n, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    for name, layer in found.items():
        new: nn.Module
        if device.type == "cuda":
            new = convert_sync_batchnorm(layer)
        else:
            new = SyncBatchNorm(layer.num_features)
            new.__dict__.update(layer.__dict__)  # parameters, statistics, settings and parts: those of the old one
        module.set_submodule(name, new)
    return len(found)


def _copied(module: nn.Module, given: Any, out: Any) -> Any:
    """What a module returns, as a tensor of its own where it is a view of another: FSDP warns of those."""
    return out.clone() if isinstance(out, Tensor) and out._is_view() else None


class Joint:
    """A model whose backward passes run through the same layers in all processes, whatever their losses.

    Layers that wait for the other processes in their backward pass would else wait for ever for one whose batch has no
    labels, or none that needs these layers. The losses get one more, `ANCHOR`: 0, with a gradient of 0 to all that the
    trunk returns, to be added to the total. Which parameters the other losses reach says `reached`.

    As a context: on leaving it the model is as it was, unless it was sharded.

    model: called as model(images, targets) -> losses by objective. trunk: name of the submodule that holds those
    layers and returns maps, called once in every forward pass.
    """

    def __init__(self, model: nn.Module, trunk: str) -> None:
        self.model = model
        self._returned: list[Tensor] = []
        self._kept: dict[int, int] = {}  # ids of the parameters that a pass computes with -> of those that are trained
        self._hooks = [
            model.get_submodule(trunk).register_forward_hook(self._keep),
            model.register_forward_hook(self._add),
        ]

    def __enter__(self: _J) -> _J:
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def shard(self, blocks: Sequence[str], device: torch.device) -> None:
        """Let every process keep its part alone of the parameters, by torch's `fully_shard` (FSDP2).

        A pass gathers the whole parameters: of each block while it is in use, of all else from its beginning to its
        end. Gradients, and what an optimiser makes of the parameters, are in parts too.

        blocks: names of submodules of the trunk, none within another, each called once in every forward pass.
        """
        mesh = init_device_mesh(device.type, (size(),))
        for name in [*blocks, ""]:
            module = self.model.get_submodule(name)
            trained: dict[str, nn.Parameter] = {}

            def note(module: nn.Module, *_: Any, trained: dict[str, nn.Parameter] = trained) -> None:
                self._kept |= {id(p): id(trained[n]) for n, p in module.named_parameters()}

            # before those of FSDP, which take them away, and would be lost where what is returned is changed in place
            self._hooks += [module.register_forward_hook(hook) for hook in (note, _copied)]
            fully_shard(module, mesh=mesh)
            trained.update(module.named_parameters())

    def reached(self, loss: Tensor) -> set[int]:
        """The ids of the parameters that `loss` has a gradient for."""
        found, seen, left = set(), set(), [loss.grad_fn]
        while left:
            node: Any = left.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if hasattr(node, "variable"):
                found.add(self._kept.get(id(node.variable), id(node.variable)))
            left += [n for n, _ in node.next_functions]
        return found

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._returned.extend([output] if isinstance(output, Tensor) else output)

    def _add(self, module: nn.Module, inputs: Any, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        ends = self._returned
        if isinstance(module, FSDPModule):  # what is no block's is whole now: heads, of which each process needs others
            ends = [*ends, *(p for p in module.parameters() if p.requires_grad and not isinstance(p, DTensor))]
        self._returned = []
        return losses | {ANCHOR: _Anchor.apply(*ends)}


class _Anchor(torch.autograd.Function):
    """0, with a gradient of 0 to every one of these tensors: not none, so that what made them takes part."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.like = [(t.shape, t.dtype) for t in tensors]
        return tensors[0].new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        # expanded: no memory for the zeros
        return tuple(gradient.new_zeros((), dtype=dtype).expand(shape) for shape, dtype in ctx.like)


def whole(tensor: Tensor) -> Tensor:
    """What the processes hold in parts, as one on the CPU of each; all of them must ask for it."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> float:
    """Scale the gradients, in parts or whole, to a norm of at most `largest`; returns the norm that they had."""
    parts = [p.grad.to_local() for p in parameters if isinstance(p.grad, DTensor)]
    if not parts:
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if largest < math.inf:  # else a pass over all gradients that multiplies them by 1
            nn.utils.clip_grads_with_norm_(parameters, largest, norm)
        return float(norm)
    rest = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    square = _norm(parts) ** 2
    dist.all_reduce(square)
    total = float((square + _norm(rest) ** 2).sqrt()) if rest else float(square.sqrt())
    factor = largest / (total + 1e-6)  # as torch has it
    if factor < 1:
        for gradient in parts + rest:
            gradient.mul_(factor)
    return total


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors]))
