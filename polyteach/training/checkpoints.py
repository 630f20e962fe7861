"""Checkpoints: folders that are whole or absent, written by a thread while training goes on.

CHECKPOINTS/step-000001000/ holds NAME.safetensors for every group of tensors, and state.json for all else. Where each
process has a part of the tensors, torch.distributed.checkpoint writes them instead, a file per process (shard-*), and
knows how to put them together for another number of processes. All of it is safetensors, of which torch's own format
for this would be a mixture with pickles: any program reads those, and they run no code when they are opened.
"""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor, distribute_tensor

from polyteach.ground.fields import Fields
from polyteach.ground.files import sync

_W = TypeVar("_W", bound="Writer")

STATE = "state.json"
Tensors = Mapping[str, Mapping[str, Tensor]]
"""Group -> name -> tensor."""


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in that folder."""
    return max(folder.glob("step-*"), default=None)


def snapshot(tensors: Tensors) -> Tensors:
    """A copy in the memory of the CPU, which does not change when training goes on."""
    return {g: {k: v.detach().to("cpu", copy=True) for k, v in named.items()} for g, named in tensors.items()}


def write(folder: Path, step: int, tensors: Tensors, scalars: dict[str, Any], keep: int) -> None:
    """A checkpoint of that step in `folder`; then remove those that are older than the last `keep`.

    Raises:
        OSError: the disk is full or the folder cannot be written; the checkpoints that were there stay.
    """
    with _replacing(folder, step, keep) as temporary:
        for group, named in tensors.items():
            save_file({k: v.contiguous() for k, v in named.items()}, temporary / f"{group}.safetensors")
        (temporary / STATE).write_text(json.dumps(scalars), encoding="utf-8")


def write_parts(
    folder: Path, step: int, tensors: Tensors, scalars: dict[str, Any], keep: int, group: dist.ProcessGroup
) -> None:
    """As `write`, by all processes of `group`: of DTensors each writes its part, of the others one does.

    group: one that nothing else uses while this goes on, of a kind that takes tensors on the CPU.

    Raises:
        OSError: as `write`, in all processes where it is one's own part that cannot be written.
    """
    flat = {f"{g}/{k}": v for g, named in tensors.items() for k, v in named.items()}
    leads = dist.get_rank(group) == 0
    with _replacing(folder, step, keep) if leads else nullcontext(_hidden(folder, step)) as temporary:
        dist.barrier(group)  # the folder is there
        try:
            writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
            dcp.save(flat, storage_writer=writer, process_group=group)
        except dcp.api.CheckpointException as e:
            raise next((error for error, _ in e.failures.values() if isinstance(error, OSError)), e) from e
        if leads:
            (temporary / STATE).write_text(json.dumps(scalars), encoding="utf-8")


def read(
    checkpoint: Path, like: Callable[[str, str, torch.Size], Tensor | None]
) -> tuple[dict[str, dict[str, Tensor]], Fields]:
    """The tensors and all else that `write` or `write_parts` was given, by any number of processes.

    like: group, name, shape -> a tensor of that shape which is in parts where the one that is read shall be (they are
    then read by all processes together), or None.

    Raises:
        ValueError: it is broken; says what to do.
    """
    try:
        return _read(checkpoint, like)
    except (SafetensorError, dcp.api.CheckpointException, FileNotFoundError, ValueError) as e:
        raise broken(checkpoint, e) from e


def broken(checkpoint: Path, why: object) -> ValueError:
    """The error of a checkpoint that cannot be used: says why, and what to do."""
    text = str(why).rstrip(".")
    return ValueError(
        f"{checkpoint} is broken: {text}. Move it elsewhere, and the same command goes on from the one before"
    )


def _read(
    checkpoint: Path, like: Callable[[str, str, torch.Size], Tensor | None]
) -> tuple[dict[str, dict[str, Tensor]], Fields]:
    tensors: dict[str, dict[str, Tensor]] = {}
    if not any(checkpoint.glob("shard-*")):
        for file in sorted(checkpoint.glob("*.safetensors")):
            tensors[file.stem] = {k: _divided(v, like(file.stem, k, v.shape)) for k, v in load_file(file).items()}
        return tensors, Fields.read(checkpoint / STATE)
    reader = HuggingFaceStorageReader(str(checkpoint))
    known = reader.read_metadata().state_dict_metadata
    flat: dict[str, Tensor] = {}
    for key, about in known.items():
        group, _, name = key.partition("/")
        assert isinstance(about, TensorStorageMetadata)
        flat[key] = _divided(torch.empty(about.size, dtype=about.properties.dtype), like(group, name, about.size))
        tensors.setdefault(group, {})[name] = flat[key]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # of one process: it is meant
        dcp.load(flat, storage_reader=reader, no_dist=not dist.is_initialized())
    return tensors, Fields.read(checkpoint / STATE)


def _divided(tensor: Tensor, like: Tensor | None) -> Tensor:
    """Into the same parts as `like`."""
    return distribute_tensor(tensor, like.device_mesh, like.placements) if isinstance(like, DTensor) else tensor


def _hidden(folder: Path, step: int) -> Path:
    return folder / f".step-{step:09d}.tmp"


@contextmanager
def _replacing(folder: Path, step: int, keep: int) -> Iterator[Path]:
    """A temporary folder that becomes the checkpoint of that step, or vanishes where something goes wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.tmp"):
        _remove(leftover)
    final, temporary = folder / f"step-{step:09d}", _hidden(folder, step)
    temporary.mkdir()
    try:
        yield temporary
        for path in [*temporary.iterdir(), temporary]:
            sync(path)
        os.replace(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(folder)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        os.replace(old, folder / f".{old.name}.tmp")  # first out of sight: a half-removed one must not be loaded
        _remove(folder / f".{old.name}.tmp")


def _remove(checkpoint: Path) -> None:
    """Of what is called like a checkpoint and is a link, the link alone."""
    if checkpoint.is_symlink() or not checkpoint.is_dir():
        checkpoint.unlink()
    else:
        shutil.rmtree(checkpoint)


class Writer:
    """A thread that writes one checkpoint at a time. Leaving the context waits for it, whatever happened."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] | None = None

    def __enter__(self: _W) -> _W:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        self._thread.shutdown()
        if error is None:
            self.wait()
        elif self._written is not None and (other := self._written.exception()) is not None:
            error.add_note(f"The checkpoint could not be written either: {other}")

    def start(self, work: Callable[[], None]) -> None:
        """Let the thread do it, after waiting for what it does now; raises as `wait` does."""
        self.wait()
        self._written = self._thread.submit(work)

    def look(self) -> None:
        """Raise what went wrong, if it is known already."""
        if self._written is not None and self._written.done():
            self.wait()

    def wait(self) -> None:
        """Until the thread is done.

        Raises:
            OSError, ...: what went wrong in it, once.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()
