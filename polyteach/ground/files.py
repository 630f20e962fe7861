"""Files that are whole or absent: written under a temporary name, synced, then renamed; or put, in object storage."""

import hashlib
import json
import os
import re
import shutil
import socket
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from polyteach.ground.hub import impatient
from polyteach.ground.storage import ObjectPath, spool, to_path

SILENCE = 60
"""Seconds that a server may say nothing while something is downloaded."""
YAML_LETTERS, YAML_SCALAR, YAML_VALUES, YAML_DEEP = 2_000_000, 10_000, 200_000, 50
"""Most letters of a YAML text and of one value in it, values with aliases written out, and levels."""
LARGEST_TEXT = 2**28
"""Bytes of a file of text: more than any that is written here, and less than stops the process."""
MANY = 1000
"""Files from which on all that the system holds is written to the disk at once, which is quicker than one by one."""
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


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A folder beside `place` that takes its name when all is in it, and is gone after an error.

    Raises:
        ValueError: `place` has come to be meanwhile.
        OSError: the disk is full; nothing is left.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.parent / f".{place.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        _sync_tree(temporary)
        if place.exists():  # an empty folder would be replaced in silence
            raise ValueError(f"{place} exists; choose another folder")
        os.rename(temporary, place)
        sync(place.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_tree(top: Path) -> None:
    """Wait until a folder with all that is in it is on the disk; links are not followed."""
    folders = [(folder, files) for folder, _, files in os.walk(top)]
    if sum(len(files) for _, files in folders) > MANY:
        os.sync()
        return
    for folder, files in folders:
        for path in (os.path.join(folder, file) for file in files):
            if not os.path.islink(path):
                sync(path)
        sync(folder)


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


def read_text(path: str | os.PathLike[str] | ObjectPath) -> str:
    """The UTF-8 text in `path`, without the mark of order that some editors begin with.

    Raises:
        ValueError: it is no file, as a folder or a pipe, which could be waited for, for ever; it is no UTF-8, or has
            more than `LARGEST_TEXT` bytes. Names it.
        OSError: there is none, or it cannot be read.
    """
    place = to_path(path)
    if isinstance(place, Path) and not stat.S_ISREG(os.stat(place).st_mode):
        raise ValueError(f"{path} is {'a folder' if place.is_dir() else 'a pipe or a device'}, not a regular file")
    if isinstance(place, Path) and (size := place.stat().st_size) > LARGEST_TEXT:
        raise ValueError(f"{path} has {size:,} bytes; of a text at most {LARGEST_TEXT:,} are read")
    try:
        return place.read_text(encoding="utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path} is not UTF-8: {e}") from e


def read_json(path: str | os.PathLike[str] | ObjectPath) -> Any:
    """The JSON in `path`.

    Raises:
        ValueError: as `read_text`; or not JSON, or too deep; the message names the file.
        OSError: as `read_text`.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except RecursionError as e:
        raise ValueError(f"{path} is nested too deeply") from e
    except ValueError as e:  # also of a number with too many digits
        raise ValueError(f"{path} is not valid JSON: {_digits(e)}") from e


def _digits(error: Exception) -> str:
    """An error's text, without Python's advice where a number has too many digits."""
    return str(error).partition(" for integer string conversion")[0]


class Twice(yaml.YAMLError):
    """A key that a mapping has twice."""


def once(loader: Any) -> Any:
    """That loader of yaml's, which refuses a key that comes twice, of which the last would win in silence."""

    class Once(loader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if str(key.value) in seen:
                    raise Twice(f"line {key.start_mark.line + 1}: {key.value!r} is there twice")
                seen.add(str(key.value))
            return super().construct_mapping(node, deep)

    return Once


def yaml_value(text: str, loader: Any = None) -> Any:
    """The value of YAML that may be a stranger's. loader: of yaml's classes; SafeLoader without it.

    Raises:
        ValueError: not YAML, too deep, or too large, also once its aliases are written out; says what.
    """
    try:
        _measured(text)
        return yaml.load(text, Loader=loader or getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as e:
        raise ValueError(str(e)) from e
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as e:  # no number, no date
        raise ValueError(f"a value is not what it is said to be: {_digits(e)}") from e


def _measured(text: str) -> None:
    """Refuse what is not YAML, or more than `yaml_value` takes.

    Raises:
        yaml.YAMLError: says what is too large, or where the text is wrong.
    """
    if len(text) > YAML_LETTERS:
        raise yaml.YAMLError(f"it has {len(text):,} letters, of at most {YAML_LETTERS:,}")
    known: dict[str, int] = {}
    levels: list[tuple[str | None, int]] = [(None, 0)]  # of each collection that is open: its anchor, its values
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        size = 0
        if isinstance(event, yaml.CollectionStartEvent):
            levels.append((event.anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = levels.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
            if len(event.value) > YAML_SCALAR:
                raise yaml.YAMLError(f"a value has {len(event.value):,} letters, of at most {YAML_SCALAR:,}")
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in known:
                raise yaml.YAMLError(f"alias *{event.anchor} stands for nothing, or for itself")
            anchor, size = None, known[event.anchor]
        if size:
            if anchor:
                known[anchor] = size
            levels[-1] = levels[-1][0], levels[-1][1] + size
        if len(levels) > YAML_DEEP or levels[-1][1] > YAML_VALUES:
            raise yaml.YAMLError(f"it is deeper than {YAML_DEEP} levels or has more than {YAML_VALUES:,} values")


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
        pid = leftover.name.split(".")[-3]
        if not re.fullmatch("[1-9][0-9]{0,8}", pid) or leftover.is_dir():
            continue  # nothing that this program wrote
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            leftover.unlink(missing_ok=True)
        except PermissionError:
            continue


@contextmanager
def downloading() -> Iterator[None]:
    """Within, a server that says nothing for `SILENCE` seconds is an error: torch.hub would wait for it for ever.

    A hub that cannot be reached at all is one within seconds (`hub.impatient`).
    """
    before = socket.getdefaulttimeout()
    if before is None:
        socket.setdefaulttimeout(SILENCE)
    try:
        with impatient():
            yield
    finally:
        socket.setdefaulttimeout(before)
