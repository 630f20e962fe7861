"""Gradients of several processes: `distributed.all_reduce` against torch's DistributedDataParallel.

    python benchmarks/ddp.py [--steps 6] [--side 64] [--only CASE]

Two processes on gloo take the same steps twice, each from the same weights: two passes a process and step, of which the
last one talks. Said of every case: how far the weights are apart at the end, and seconds a step in turns (medians).
Where DDP cannot do the case at all, what it says instead, within `PATIENCE` seconds.
"""

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from polyteach.model.student import Student
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Space
from polyteach.training import distributed

PATIENCE = 20
CASES = {
    "every process has every label": [[("a", "b"), ("a", "b")], [("a", "b"), ("a", "b")]],
    "a head that one process runs": [[("a", "b"), ("a",)], [("a",), ("a",)]],
    "a head that no last pass runs": [[("a", "b"), ("a",)], [("a", "b"), ("a",)]],
    "a head that nobody runs": [[("a",), ("a",)], [("a",), ("a",)]],
    "a last pass without labels": [[("a", "b"), ("a", "b")], [("a", "b"), ()]],
    "a loss that is left out after the pass": [[("a", "b"), ("a", "b!")], [("a", "b"), ("a", "b")]],
}
"""Case -> of every process and pass, the objectives that it has labels for; with a mark, that are left out (drop)."""


def student() -> Student:
    """Of ResNet-18, with two heads of classes."""
    torch.manual_seed(0)
    space = Space(("x", "y", "z"), load_task("classification").kinds[0])
    return Student("resnet18", {name: Objective("classification", space) for name in "ab"}, 64).train()


def one_pass(model: nn.Module, labels: Sequence[str], seed: int, side: int, scale: float) -> Tensor | None:
    """The loss of a pass that is `scale` of the step; None where nothing is labelled."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (2, 3, side, side), dtype=torch.uint8, generator=draw)
    answer = load_task("classification").target(torch.tensor([0.2, 0.3, 0.5]))
    targets = {name: [answer] * 2 if name in {t.rstrip("!") for t in labels} else [None] * 2 for name in "ab"}
    losses = model(images, targets)
    kept = [losses[name] for name in losses if f"{name}!" not in labels]
    return scale * torch.stack(kept).sum() if kept else None


def by_hand(model: Student, optimizer: Any, mine: list[tuple[str, ...]], step: int, side: int) -> None:
    """A step as `loop.fit` makes it."""
    for number, labels in enumerate(mine):
        loss = one_pass(model, labels, 100 * step + 10 * dist.get_rank() + number, side, 1 / (2 * len(mine)))
        if loss is not None:
            loss.backward()
    distributed.all_reduce(list(model.parameters()), None, distributed.statistics(model))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def by_ddp(model: Any, optimizer: Any, mine: list[tuple[str, ...]], step: int, side: int) -> None:
    """The same step by DDP, which divides by the number of processes; statistics are averaged as by hand."""
    for number, labels in enumerate(mine):
        last = number == len(mine) - 1
        with contextlib.nullcontext() if last else model.no_sync():
            loss = one_pass(model, labels, 100 * step + 10 * dist.get_rank() + number, side, 1 / len(mine))
            if loss is not None:
                loss.backward()
    distributed.all_reduce([nn.Parameter(torch.zeros(1))], set(), distributed.statistics(model))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def work(rank: int, case: str, folder: str, steps: int, side: int) -> None:
    """What each process does; the first writes what was found."""
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank)}
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=PATIENCE)
    )
    hand, other = student(), student()
    # heads of classes read no pyramid, so some parameters are in no pass; statistics are ours to average
    ddp = DistributedDataParallel(other, find_unused_parameters=True, forward_sync_buffers=False)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-3) for m in (hand, other)]
    seconds: tuple[list[float], list[float]] = ([], [])
    said = ""
    try:
        for step in range(steps):
            for way, (model, go) in enumerate(((hand, by_hand), (ddp, by_ddp))):
                start = time.perf_counter()
                go(model, optimizers[way], CASES[case][rank], step, side)
                seconds[way].append(time.perf_counter() - start)
        pairs = zip(hand.state_dict().values(), other.state_dict().values(), strict=True)
        apart = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
        said = f"apart {apart:.3g}; by hand {statistics.median(seconds[0][1:]):.3f} s a step, "
        said += f"DDP {statistics.median(seconds[1][1:]):.3f}"
    except RuntimeError as e:
        said = f"DDP fails: {str(e).splitlines()[0][:160]}"
    Path(folder, f"said-{rank}").write_text(said)
    os._exit(0)  # a group of which one waits in vain is not taken down in order


def main() -> None:
    """Print a line for every case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--only", default="", help="cases with this in their name")
    given = parser.parse_args()
    for case in [c for c in CASES if given.only in c]:
        with TemporaryDirectory() as folder:
            context: Any = mp.start_processes(
                work, (case, folder, given.steps, given.side), nprocs=2, join=False, start_method="fork"
            )
            with contextlib.suppress(
                mp.ProcessExitedException
            ):  # gloo ends a process that hears what it did not expect
                while not context.join(timeout=600):
                    pass
            files = [Path(folder, f"said-{rank}") for rank in range(2)]
            texts = [f.read_text() if f.exists() else "the process is gone" for f in files]
            print(f"{case}: {' | '.join(dict.fromkeys(texts))}", flush=True)


if __name__ == "__main__":
    main()
