"""Transport: samples from the processes that read and decode them to the one that trains, as batches.

The whole training is one stream of samples, epoch after epoch; batch k is its k-th slice, so nothing is dropped at the
end of an epoch (a batch may straddle two) and resume needs only k.

Shapes: B images, h w pixels of the view.
"""

import json
import os
import pickle
import re
import shutil
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from polyteach.ground.storage import below
from polyteach.loading.samples import Reject, Sample, Samples
from polyteach.tasks.contract import Target

REJECTS = "rejects.jsonl"
"""File of a run with the images that could not be read."""
PATIENCE = 1800
"""Seconds that the trainer waits for a batch from its workers before it gives up."""
SHARED = Path("/dev/shm")
"""Where Linux keeps shared memory; docker gives it 64 MB."""
NO_ROOM = "no room in shared memory"


@dataclass(frozen=True)
class Batch:
    """One step's images and, per objective, one target or None per image, in pixels of the batch.

    ids: of the images. rejects: images that could not be read and were replaced.
    """

    images: UInt8[Tensor, "B 3 h w"]
    targets: dict[str, list[Any]]
    ids: list[str]
    rejects: list[Reject] = field(default_factory=list)


def batches(
    samples: Samples, batch_size: int, start: int, stop: int, workers: int = 0, pin: bool = False, every: int = 1
) -> Iterator[Batch]:
    """Batches number `start` up to, not including, `stop` of the stream; every `every`-th of them.

    workers: processes that read and decode ahead; 0 does it here. They change nothing of what comes out. pin: put
    images into page-locked memory, for a faster way to the GPU.

    Raises:
        ValueError: an image could not be read nor replaced.
        RuntimeError: a worker failed; see `explained`.
    """
    loader = DataLoader(
        samples,
        batch_sampler=_Slices(batch_size, start, stop, every),
        num_workers=workers,
        collate_fn=_packed if workers else _gathered,
        worker_init_fn=_quiet,
        pin_memory=pin,
        timeout=PATIENCE if workers else 0,
        generator=torch.Generator(),  # else the loader draws from the global one, and resume would not be exact
    )
    for images, rest in _told(loader):
        if workers and not pin:  # pinned they are copies already
            # a step holds all of its passes: out of shared memory, of which docker gives 64 MB, and of whose tensors
            # each holds a file open
            images, rest = images.clone(), rest.clone()
        yield Batch(images, *(_unpacked(rest) if workers else rest))


def _told(loader: Iterable[Any]) -> Iterator[Any]:
    """What the loader gives. A worker's ValueError is for people, and comes with its traceback around it."""
    try:
        yield from loader
    except ValueError as e:
        _, found, said = str(e).rpartition("\nValueError: ")
        raise (ValueError(said.strip()) if found else e) from e.__cause__


@contextmanager
def explained(workers: int) -> Iterator[None]:
    """Within, where batches are used: what goes wrong with the data workers is said so that one can do something.

    Not only while a batch is waited for: that a worker was killed is known at once, whatever is being done.

    Raises:
        ValueError: a worker has no shared memory for its batches, was killed, or says nothing for `PATIENCE` seconds.
    """
    try:
        yield
    except RuntimeError as e:
        said = _explained(str(e), workers)
        if said is None:
            raise
        raise ValueError(said) from e


def _explained(text: str, workers: int) -> str | None:
    """What a person can do about a data worker that failed so; None where that is not what failed."""
    fix = f"give --workers 0, or fewer than {workers}" if workers > 1 else "give --workers 0"
    if NO_ROOM in text or "Bus error" in text:
        free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0
        return (
            f"a data worker has no room for a batch in shared memory ({SHARED}, {free / 2**20:,.0f} MiB free); {fix}, "
            "or make it larger (docker run --shm-size=8g, or --ipc=host)"
        )
    if "DataLoader timed out" in text:
        return (
            f"no batch came from the {workers} data workers within {PATIENCE / 60:g} minutes: see whether the disk or "
            "the storage that holds the store still answers; --workers 0 reads in the training process itself"
        )
    if re.match(r"DataLoader worker \(pid", text):
        return f"a data worker was killed ({text.strip().rstrip('.')}), as where memory runs out; {fix}"
    return None


def noted(stream: Iterable[Batch], file: str | os.PathLike[str]) -> Iterator[Batch]:
    """The same batches; images that could not be read go to `file` as JSON lines, once each, also over restarts."""
    file = Path(file)
    below(file.parent, file.name)
    lines = set(file.read_text(encoding="utf-8").splitlines()) if file.exists() else set()
    for batch in stream:
        for reject in batch.rejects:
            line = json.dumps(reject, ensure_ascii=False)
            if line not in lines:
                lines.add(line)
                with open(file, "a", encoding="utf-8") as f:
                    f.write(line + "\n")
        yield batch


@dataclass(frozen=True)
class _Slices:
    batch_size: int
    start: int
    stop: int
    every: int

    def __iter__(self) -> Iterator[list[int]]:
        b = self.batch_size
        return (list(range(k * b, (k + 1) * b)) for k in range(self.start, self.stop, self.every))


def _gathered(samples: list[Sample]) -> tuple[Tensor, tuple[dict[str, list[Any]], list[str], list[Reject]]]:
    """The batch's images, and its targets, ids and rejects."""
    targets: dict[str, list[Any]] = {k: [s.targets[k] for s in samples] for k in samples[0].targets}
    rejects = [r for s in samples for r in s.rejects]
    return torch.stack([s.image for s in samples]), (targets, [s.id for s in samples], rejects)


ALIGNED = 64
"""Bytes to whose multiples tensors are put in what a worker sends."""


def _packed(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """The batch's images, and all else as the bytes of one tensor, which `_unpacked` understands.

    On the way from a worker every tensor costs a file descriptor, so targets cannot travel one by one; and bytes would
    fill the pipe, where a worker whose trainer was killed would wait for ever.
    """
    images, (targets, ids, rejects) = _gathered(samples)
    _share(images)  # here, where an error reaches the trainer; on the way it would be lost, and the batch waited for
    plain = {k: [_plain(t) for t in ts] for k, ts in targets.items()}
    held: list[pickle.PickleBuffer] = []  # the arrays, which would be copied twice more within the pickle
    head = pickle.dumps((plain, ids, rejects), protocol=5, buffer_callback=held.append)
    parts: list[Any] = [head, *(buffer.raw() for buffer in held)]
    sizes = np.array([len(parts), *(len(p) for p in parts)], dtype=np.int64)
    ends = np.cumsum([_rounded(n) for n in (sizes.nbytes, *sizes[1:].tolist())])
    out = torch.empty(int(ends[-1]), dtype=torch.uint8)
    view = out.numpy()
    view[: sizes.nbytes] = sizes.view(np.uint8)
    for start, part in zip(ends, parts, strict=False):
        view[start : start + len(part)] = np.frombuffer(part, dtype=np.uint8)
    _share(out)
    return images, out


def _share(tensor: Tensor) -> None:
    """Move it into shared memory, as is done on the way to the trainer at the latest.

    Raises:
        RuntimeError: there is not enough, with `NO_ROOM` in its text.
    """
    try:
        tensor.share_memory_()
    except (RuntimeError, OSError) as e:
        raise RuntimeError(f"{NO_ROOM} for {tensor.nbytes} bytes: {e}") from e


def _unpacked(packed: Tensor) -> tuple[dict[str, list[Any]], list[str], list[Reject]]:
    """Targets, ids and rejects; the targets' tensors lie in `packed`."""
    view = packed.numpy()
    count = int(view[:8].view(np.int64)[0])
    sizes = view[: 8 * (count + 1)].view(np.int64)
    ends = np.cumsum([_rounded(n) for n in (sizes.nbytes, *sizes[1:].tolist())])
    parts: list[Any] = [view[start : start + n] for start, n in zip(ends, sizes[1:].tolist(), strict=False)]
    targets, ids, rejects = pickle.loads(parts[0], buffers=parts[1:])
    return {k: [_restored(t) for t in ts] for k, ts in targets.items()}, ids, rejects


def _rounded(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _plain(target: Target | None) -> Any:
    if target is None:
        return None
    values = {f.name: getattr(target, f.name) for f in fields(target)}
    return type(target), {k: None if v is None else v.numpy() for k, v in values.items()}


def _restored(plain: Any) -> Target | None:
    if plain is None:
        return None
    kind, values = plain
    target: Target = kind(**{k: None if v is None else torch.from_numpy(v) for k, v in values.items()})
    return target


LINGER = 60
"""Seconds that a worker goes on after SIGTERM: for the trainer's last step, and no longer where it is stuck itself."""


def _linger(number: int, frame: Any) -> None:
    """What SIGTERM does to a worker: a second one, or the alarm, ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(LINGER)


def _quiet(worker: int) -> None:
    """Signals are for the process that trains, which still needs its workers for the step before the checkpoint.

    Ctrl-C reaches workers too, and so does SIGTERM where a scheduler or `timeout` sends it to the whole group.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _linger)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
