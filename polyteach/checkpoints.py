"""Checkpoints: folders that are whole or absent, written by a thread while training goes on.

CHECKPOINTS/step-000001000/ holds NAME.safetensors for every group of tensors, and state.json for all else.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from polyteach.files import read_json, sync

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


def read(checkpoint: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors and all else that `write` was given."""
    tensors = {p.stem: load_file(p) for p in sorted(checkpoint.glob("*.safetensors"))}
    return tensors, read_json(checkpoint / STATE)


@contextmanager
def _replacing(folder: Path, step: int, keep: int) -> Iterator[Path]:
    """A temporary folder that becomes the checkpoint of that step, or vanishes where something goes wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover)
    final, temporary = folder / f"step-{step:09d}", folder / f".step-{step:09d}.tmp"
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
        shutil.rmtree(folder / f".{old.name}.tmp")


class Writer:
    """A thread that writes one checkpoint at a time. Leaving the context waits for it, whatever happened."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] | None = None

    def __enter__(self) -> "Writer":
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
