"""Paths on this machine and in object storage alike: where a store may lie, and what is done there."""

import os
import re
import shlex
import shutil
from fnmatch import fnmatchcase
from pathlib import Path

from polyteach.ground.storage.objects import ObjectPath
from polyteach.ground.storage.reader import entity_tag
from polyteach.ground.storage.requests import ATOMIC, WRITTEN

AnyPath = Path | ObjectPath
"""Where a store may lie."""


def to_path(path: str | os.PathLike[str] | ObjectPath) -> AnyPath:
    """A local path or a URL as an object with `pathlib`'s methods.

    Raises:
        ValueError: a URL of a protocol in which files do not appear whole; says what is allowed.
    """
    if isinstance(path, ObjectPath):
        return path
    text = os.fspath(path)
    match = re.match(r"([A-Za-z0-9+.:-]+)://(.*)", text)
    if not match:
        return Path(path)
    protocol, rest = match.groups()
    if protocol in ("file", "local"):
        return Path(rest)
    if protocol not in ATOMIC:
        raise ValueError(
            f"{text}: a store cannot be kept behind {protocol}://, only behind "
            f"{', '.join(f'{p}://' for p in ATOMIC)} or in a folder (mount it, and give the folder)"
        )
    if not rest.strip("/"):
        raise ValueError(f"{text}: say in which bucket and under which name, as {protocol}://BUCKET/NAME")
    return ObjectPath(text.rstrip("/"))


def stamps(folder: AnyPath) -> dict[str, str]:
    """Per file directly in a folder a text that is another one once the file has been written anew.

    Empty where there is no folder. Left out is what a listing may be wrong about: objects that this process wrote.
    """
    if isinstance(folder, Path):
        try:
            with os.scandir(folder) as files:
                found = [(f.name, f.stat()) for f in files if f.is_file()]
        except FileNotFoundError:
            return {}
        # replaced, not written over: the inode differs even within one tick of the file system's clock
        return {name: f"{s.st_size} {s.st_mtime_ns} {s.st_ino}" for name, s in found}
    return {
        name: f"{about['size']} {entity_tag(about)}"
        for name, about in folder.listed().items()
        if "/" not in name and f"{folder.url}/{name}" not in WRITTEN and entity_tag(about)
    }


def total(folder: AnyPath, pattern: str) -> int:
    """Bytes of the files at any depth of a folder whose name fits the pattern."""
    if isinstance(folder, Path):
        return sum(f.stat().st_size for f in folder.rglob(pattern) if f.is_file())
    found = {k: v for k, v in folder.names_below().items() if fnmatchcase(k.rpartition("/")[2], pattern)}
    return sum(int((folder / k).about()["size"]) if v is None else v for k, v in found.items())


def below(root: AnyPath, *names: str) -> AnyPath:
    """The path `names` below `root`, which is to be written, removed or written in; it need not be there yet.

    `root` itself may be a symbolic link, as somebody gave it; below it none is followed: who made the folder could
    have another place written to, or emptied. (Reading through one is allowed: a disk that was full is extended so.)
    Object storage has no links.

    Raises:
        ValueError: it is a link, or a folder above it is one; says which, and what to do.
    """
    path = root
    for name in names:
        path = path / name
        if isinstance(path, Path) and path.is_symlink():
            raise ValueError(
                f"{path} is a link to another place: nothing is written or removed through links. Put what it leads "
                f"to in its place, or remove the link alone: rm {shlex.quote(str(path))}"
            )
    return path


def move(source: AnyPath, target: AnyPath, keep: bool = False) -> None:
    """Rename a file or folder within a store; only copy it, a file, where `keep`."""
    if isinstance(source, ObjectPath) and isinstance(target, ObjectPath):
        source.copy(target) if keep else source.rename(target)
    elif keep:
        shutil.copy2(str(source), str(target))
    else:
        os.rename(str(source), str(target))
