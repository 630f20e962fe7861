"""The cache: blocks of objects in a folder of bounded size, which all processes of a machine share."""

import fcntl
import os
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from polyteach.ground.storage.requests import StorageError

PATIENCE = 1800.0
"""Longest wait in seconds for what another process of this machine fetches: longer than all of its attempts take."""
CACHE_GB = 20.0
"""Size of the cache, in 10^9 bytes, unless POLYTEACH_CACHE_GB says otherwise."""


class Cache:
    """Blocks in a folder: never more than `limit` bytes, the least recently used out first, for all processes here.

    Every block carries a checksum, so that what a crash or a bad disk made of it is fetched again. A cache that cannot
    be written costs speed and nothing else.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        if limit:
            for name in ("blocks", "locks"):
                (folder / name).mkdir(parents=True, exist_ok=True)

    def get(self, name: str) -> bytes | None:
        """The block of that name, None where it is not kept or is not what was put there."""
        if not self.limit:
            return None
        file = self.folder / "blocks" / name
        try:
            kept = file.read_bytes()
            if zlib.crc32(kept[4:]).to_bytes(4, "big") != kept[:4]:
                file.unlink(missing_ok=True)
                return None
            os.utime(file)
        except OSError:
            return None
        return kept[4:]

    def put(self, name: str, block: bytes) -> None:
        """Keep a block; those used the longest ago make room for it."""
        if len(block) + 4 > self.limit:
            return
        temporary = self.folder / "blocks" / f"new-{uuid.uuid4().hex}"  # one that is left behind leaves by its age
        try:
            self._make_room(len(block) + 4)
            temporary.write_bytes(zlib.crc32(block).to_bytes(4, "big") + block)
            os.replace(temporary, self.folder / "blocks" / name)
        except OSError:
            temporary.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        with self.locked("size"):
            count = self.folder / "size"
            text = count.read_text() if count.exists() else ""
            total = int(text) if text.isdigit() else self.limit
            if total + size > self.limit:  # the count knows of what was written, not of what was removed: look
                files = []
                for entry in os.scandir(self.folder / "blocks"):
                    try:
                        files.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
                    except FileNotFoundError:
                        continue
                files.sort(reverse=True)
                total = sum(s for _, s, _ in files)
                while files and total + size > self.limit * 7 // 8:
                    _, gone, path = files.pop()
                    Path(path).unlink(missing_ok=True)
                    total -= gone
            count.write_text(str(total + size))

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Alone on this machine with what is called that (or, rarely, with something else).

        Raises:
            StorageError: another process has had it for `PATIENCE` seconds: it was stopped, or its storage is silent.
        """
        if not self.limit:
            yield
            return
        number = "size" if name == "size" else f"{zlib.crc32(name.encode()) % 64:02d}"
        with open(self.folder / "locks" / number, "a") as file:
            _lock(file)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # by name: a process forked meanwhile holds the same open file


def _lock(file: TextIO) -> None:
    end, pause = time.monotonic() + PATIENCE, 0.001
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise StorageError(
                    f"{file.name}: another process on this machine holds this lock for {PATIENCE / 60:g} minutes. End "
                    "it (fuser says which one it is), or say with POLYTEACH_CACHE another folder for the cache"
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def cache_folder() -> Path:
    """POLYTEACH_CACHE, or a folder of the user's cache."""
    given = os.environ.get("POLYTEACH_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(base) / "polyteach" / "objects"


def spool() -> Path:
    """The folder where files wait to be put: beside the cache, and not counted with it."""
    return cache_folder() / "spool"


def block_cache() -> Cache:
    """The cache of this process's environment.

    Raises:
        ValueError: POLYTEACH_CACHE_GB is no size, or the folder cannot be made.
    """
    text = os.environ.get("POLYTEACH_CACHE_GB", str(CACHE_GB))
    try:
        limit = int(float(text) * 1e9)
        if limit < 0:
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"POLYTEACH_CACHE_GB must be a number, 0 (no cache) or more; it is {text!r}") from None
    return _made(cache_folder(), limit)


@lru_cache(maxsize=8)
def _made(folder: Path, limit: int) -> Cache:
    try:
        return Cache(folder, limit)
    except OSError as e:
        raise ValueError(
            f"{folder} cannot be made ({e}): say with POLYTEACH_CACHE where blocks of stores may be kept, or with "
            "POLYTEACH_CACHE_GB=0 that none are"
        ) from e
