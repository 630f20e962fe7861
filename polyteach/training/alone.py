"""Alone: one process trains in a folder, and a signal stops it after the step."""

import errno
import fcntl
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What stops a training after the step, with a checkpoint."""
LOCK = "lock"
"""File of a run that is locked while a process trains there, and says which one."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process is within for the same folder: two that write one log and one checkpoint would spoil both.

    The lock is the process's own (POSIX): it ends with it however that ends, and its data workers do not inherit it.

    Raises:
        BlockingIOError: another one is.
    """
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise BlockingIOError(
                    f"{folder}: {file.read().strip() or 'another process'} trains there; wait for it or stop it, or "
                    "give another folder"
                ) from None
            # else the file system has no locks
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


@contextmanager
def signals_caught() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM enters; a second one acts as it did before."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may listen
        return
    before = {n: signal.getsignal(n) for n in SIGNALS}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        put_back()

    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        put_back()
