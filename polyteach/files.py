"""Files that are whole or absent: written under a temporary name, synced, then renamed; or put, in object storage."""

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polyteach.storage import ObjectPath, spool, to_path

SILENCE = 60
"""Seconds that a server may say nothing while something is downloaded."""
_OWNER = socket.gethostname().replace(".", "-")


@contextmanager
def replacing(path: str | os.PathLike[str] | ObjectPath) -> Iterator[Path]:
    """A temporary path beside `path`; on success it is synced and renamed to `path`, on any error removed.

    An object's is a local file, which is put when it is complete.

    Raises:
        OSError: the disk is full, or the folder or storage cannot be written; nothing of `path` has changed then.
    """
    path = to_path(path)
    folder = path.parent if isinstance(path, Path) else spool()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{path.name}.{_OWNER}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        yield temporary
        if isinstance(path, ObjectPath):
            path.put(temporary)
            temporary.unlink()
            return
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """What differs between two JSON values, as "key.key was ..., is ..." for people; none where nothing does."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [d for k in old | new for d in differences(old.get(k), new.get(k), f"{where}.{k}" if where else k)]
    return [] if old == new else [f"{where} was {_short(old)}, is {_short(new)}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else text[:97] + "..."


def write_json(path: str | os.PathLike[str] | ObjectPath, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str] | ObjectPath) -> Any:
    """The JSON in `path`.

    Raises:
        ValueError: not JSON; the message names the file.
    """
    try:
        return json.loads(to_path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} is not valid JSON: {e}") from e


def sha256(path: str | os.PathLike[str] | ObjectPath) -> str:
    """Hex digest of a file or object, or of a local folder's files (names and contents, sorted)."""
    path = to_path(path)
    if isinstance(path, ObjectPath):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        with open(file, "rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def sweep(folder: str | os.PathLike[str] | ObjectPath) -> None:
    """Remove temporary files directly in `folder` that processes of this machine left when they were killed.

    Those of a live process, and of other machines that share the folder, stay. Objects' lie in one local folder.
    """
    folder = to_path(folder)
    for leftover in (folder if isinstance(folder, Path) else spool()).glob(f".*.{_OWNER}.*.tmp"):
        pid = int(leftover.name.split(".")[-3])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            leftover.unlink(missing_ok=True)
        except PermissionError:
            continue


@contextmanager
def downloading() -> Iterator[None]:
    """Within, a server that says nothing for `SILENCE` seconds is an error: torch.hub would wait for it for ever."""
    before = socket.getdefaulttimeout()
    if before is None:
        socket.setdefaulttimeout(SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
