"""Paths in object storage (s3://, gs://, memory://) that speak as much of `pathlib` as a store needs.

A path on this machine, and a file:// URL, is a `pathlib.Path` as ever; `to_path` tells the two apart, and nothing above
has to. Credentials and endpoints are the usual ones of the environment (AWS_PROFILE, AWS_ENDPOINT_URL, fsspec's
configuration files).

- **Whole or absent.** An object appears at once, by a PUT or by the end of a multipart upload, and its length is
  compared afterwards. Protocols that cannot promise that are refused.
- **Retries.** Whatever may pass (timeouts, 5xx, a body that is shorter than asked for) is tried again, `TRIES` times,
  after waits that double and are drawn at random up to that, so that many machines do not come back at once.
- **Listings may be stale.** What this process wrote is in every listing that it makes, and `confirmed` asks for
  numbered files by name, so that a listing decides nothing alone.
- **Cache.** Objects are read in blocks of 1 MiB, which are kept in a folder of bounded size, least recently used out
  first, under the object's URL, size and entity tag; all processes of a machine share it, and only one of them fetches
  a block. `ahead` fetches in the background.
"""

import errno
import fcntl
import hashlib
import io
import os
import random
import re
import shlex
import shutil
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO, TypeVar

ATOMIC = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "memory": ""}
"""Protocols whose objects appear whole, with the extra of polyteach that brings their client."""
TRIES = 10
"""Attempts at a request."""
WAIT = 0.25, 20.0
"""Longest wait in seconds after the first failure, and after any."""
PATIENCE = 1800.0
"""Longest wait in seconds for what another process of this machine fetches: longer than all of its attempts take."""
BLOCK = 2**20
"""Bytes that are fetched and kept together."""
RUN = 16
"""Blocks that one request fetches at most."""
AHEAD = 4
"""Reads ahead at a time."""
CACHE_GB = 20.0
"""Size of the cache, in 10^9 bytes, unless POLYTEACH_CACHE_GB says otherwise."""

_T = TypeVar("_T")

_jitter = random.SystemRandom()  # the global generator is seeded, and not to be drawn from
_own: dict[str, bool] = {}  # by URL, whether this process wrote (True) or removed it, whatever listings say
_clients: dict[tuple[int, str], Any] = {}  # by process: a fork must not use, nor close, its parent's connections
_slots = threading.BoundedSemaphore(AHEAD)


def _after_fork() -> None:
    global _slots
    _slots = threading.BoundedSemaphore(AHEAD)  # the threads that held it stayed behind


os.register_at_fork(after_in_child=_after_fork)


class StorageError(OSError):
    """The storage could not be asked, or refused: nothing is known of what lies there."""


class _Passing(OSError):
    """An answer that is wrong and may be right the next time."""


_FINAL = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError, ImportError)
_HOPELESS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "ParamValidationError",
    "InvalidRegionError",
    "DefaultCredentialsError",
}
"""Names of clients' errors that no retry mends, and that are in no common hierarchy."""


@dataclass(frozen=True)
class ObjectPath:
    """An object, or a prefix of objects, by its URL without a slash at the end."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> "ObjectPath":
        """The prefix that it is in."""
        return ObjectPath(self.url.rpartition("/")[0])

    def with_name(self, name: str) -> "ObjectPath":
        """Its neighbour of that name."""
        return self.parent / name

    def resolve(self) -> "ObjectPath":
        """Itself: URLs are absolute."""
        return self

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a prefix needs no making."""

    def is_file(self) -> bool:
        """Whether there is an object.

        Raises:
            StorageError: it cannot be known.
        """
        try:
            self.about()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether there are objects below."""
        return bool(self._below())

    def exists(self) -> bool:
        """Whether there is an object, or there are some below."""
        return self.is_file() or self.is_dir()

    def about(self) -> dict[str, Any]:
        """What the storage says of the object: size in bytes, its entity tag or time.

        Raises:
            FileNotFoundError: there is none.
            StorageError: it cannot be known.
        """

        def ask(client: Any) -> dict[str, Any]:
            found: dict[str, Any] = client.info(client._strip_protocol(self.url))
            if found.get("type") == "directory":
                raise _absent(self.url)
            return found

        return _try(self.url, "looking it up", ask)

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """Objects and prefixes at the pattern's depth (no `**`), sorted."""
        wanted = pattern.split("/")
        found = {
            "/".join(parts[: len(wanted)])
            for parts in (name.split("/") for name in self._below())
            if len(parts) >= len(wanted) and all(map(fnmatchcase, parts, wanted))
        }
        return iter([self / name for name in sorted(found)])

    def rglob(self, pattern: str) -> Iterator["ObjectPath"]:
        """Objects at any depth whose name fits the pattern, sorted."""
        return iter([self / name for name in self._below() if fnmatchcase(name.rpartition("/")[2], pattern)])

    def iterdir(self) -> Iterator["ObjectPath"]:
        """Objects and prefixes directly below, sorted."""
        return self.glob("*")

    def confirmed(self, numbers: Iterable[int], name: Callable[[int], str]) -> list[int]:
        """`numbers` of a listing, and those that it lacks although their object `name(number)` is there.

        Asked for are the gaps, and what follows the last until there is none.
        """
        found = set(numbers)
        end = max(found, default=-1) + 1
        gaps = sorted(set(range(end)) - found)
        with ThreadPoolExecutor(RUN) as pool:
            there = pool.map(lambda n: (self / name(n)).is_file(), gaps)
            found |= {n for n, is_there in zip(gaps, there, strict=True) if is_there}
        while (self / name(end)).is_file():
            found.add(end)
            end += 1
        return sorted(found)

    def read_bytes(self) -> bytes:
        """The object as it is now, past the cache.

        Raises:
            FileNotFoundError: there is none.
            StorageError: it cannot be had.
        """

        def get(client: Any) -> bytes:
            place = client._strip_protocol(self.url)
            return _whole(client.cat_file(place), int(client.info(place)["size"]))

        return _try(self.url, "reading", get)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object as text, past the cache."""
        return self.read_bytes().decode(encoding)

    def open(self, fresh: bool = False) -> "Reader":
        """The object as a file to read, through the cache. fresh: fetched again, whatever the cache has.

        Raises:
            FileNotFoundError: there is none.
            StorageError: it cannot be had.
        """
        return Reader(self, fresh)

    def ahead(self, span: Callable[["Reader"], tuple[int, int]] | None = None) -> bool:
        """Fetch it into the cache in the background, unless too much is being fetched already (False).

        span: of the open file -> first byte and that after the last to fetch; all without it. Errors are left for who
        reads it to meet.
        """
        if not _cache().limit:
            return True
        slots = _slots
        if not slots.acquire(blocking=False):
            return False

        def fetch() -> None:
            try:
                with self.open() as file:
                    file.warm(*(span(file) if span else (0, file.bytes)))
            except Exception:
                return
            finally:
                slots.release()

        threading.Thread(target=fetch, name="ahead", daemon=True).start()
        return True

    def put(self, file: Path) -> None:
        """Make a local file the object, whole or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        size = file.stat().st_size

        def send(client: Any) -> None:
            place = client._strip_protocol(self.url)
            client.put_file(str(file), place)
            try:
                now = client.info(place)["size"]
            except FileNotFoundError as e:
                raise _Passing("it was written, and is not there yet") from e
            if now != size:
                raise _Passing(f"{now} bytes are there after {size} were written")

        try:
            _try(self.url, "writing", send)
        except FileNotFoundError as e:
            raise StorageError(f"{self.url} cannot be written: {e}") from e
        _own[self.url] = True

    def copy(self, target: "ObjectPath") -> None:
        """Copy the object, or all below, within the storage."""
        for source, to in self._pairs(target):

            def ask(client: Any, source: str = source.url, to: str = to.url) -> None:
                client.cp_file(client._strip_protocol(source), client._strip_protocol(to))

            _try(source.url, f"copying it to {to}", ask)
            _own[to.url] = True

    def rename(self, target: "ObjectPath") -> None:
        """Move the object, or all below: all is copied first, so that a kill loses nothing."""
        moved = self._pairs(target)
        self.copy(target)
        for source, _ in moved:
            source.unlink(missing_ok=True)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object.

        Raises:
            FileNotFoundError: there is none, and not `missing_ok`.
            StorageError: it cannot be removed.
        """
        try:
            if missing_ok or self.about():
                _try(self.url, "removing", lambda client: client.rm_file(client._strip_protocol(self.url)))
        except FileNotFoundError:
            if not missing_ok:
                raise
        _own[self.url] = False

    def _pairs(self, target: "ObjectPath") -> list[tuple["ObjectPath", "ObjectPath"]]:
        below = self._below()
        return [(self / n, target / n) for n in below] if below else [(self, target)]

    def _listed(self) -> dict[str, dict[str, Any]]:
        """Names below it, and what a listing says of each."""

        def ask(client: Any) -> dict[str, dict[str, Any]]:
            root = client._strip_protocol(self.url) + "/"
            found = client.find(root, detail=True)
            return {k.removeprefix(root): v for k, v in found.items() if k.startswith(root) and k != root}

        try:
            return _try(self.url, "listing", ask)
        except FileNotFoundError:  # no bucket
            return {}

    def _below(self) -> dict[str, int | None]:
        """Names below it and their bytes: the listing's, corrected by what this process knows better."""
        names: dict[str, int | None] = {k: v["size"] for k, v in self._listed().items()}
        for url, there in list(_own.items()):
            if url.startswith(f"{self.url}/"):
                name = url.removeprefix(f"{self.url}/")
                if there:
                    names.setdefault(name, None)
                else:
                    names.pop(name, None)
        return dict(sorted(names.items()))


AnyPath = Path | ObjectPath
"""Where a store may lie."""


def to_path(path: "str | os.PathLike[str] | ObjectPath") -> AnyPath:
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
        name: f"{about['size']} {_tag(about)}"
        for name, about in folder._listed().items()
        if "/" not in name and f"{folder.url}/{name}" not in _own and _tag(about)
    }


def _tag(about: dict[str, Any]) -> str:
    tags = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created")
    return next((str(about[t]) for t in tags if about.get(t)), "")


def total(folder: AnyPath, pattern: str) -> int:
    """Bytes of the files at any depth of a folder whose name fits the pattern."""
    if isinstance(folder, Path):
        return sum(f.stat().st_size for f in folder.rglob(pattern) if f.is_file())
    found = {k: v for k, v in folder._below().items() if fnmatchcase(k.rpartition("/")[2], pattern)}
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


class Reader(io.RawIOBase):
    """An object as a file that is read in blocks, through the cache. bytes: how many it has."""

    def __init__(self, path: ObjectPath, fresh: bool = False) -> None:
        about = path.about()
        self.path = path
        self.bytes = int(about["size"])
        self._at = 0
        self._fresh = fresh
        self._lately: dict[int, bytes] = {}  # neighbouring columns share blocks
        self._key = hashlib.sha256(f"{path.url}\0{self.bytes}\0{_tag(about)}".encode()).hexdigest()[:40]

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place: from the start, from here or from the end."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.bytes}[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there are bytes; how many there were."""
        view = memoryview(buffer).cast("B")
        start, stop = self._at, min(self._at + len(view), self.bytes)
        if stop <= start:
            return 0
        first, last = start // BLOCK, (stop - 1) // BLOCK
        blocks = self._blocks(first, last)
        for number in range(first, last + 1):
            base = number * BLOCK
            a, b = max(start, base), min(stop, base + BLOCK)
            view[a - start : b - start] = blocks[number][a - base : b - base]
        self._lately = blocks
        self._at = stop
        return stop - start

    def warm(self, start: int, stop: int) -> None:
        """Fetch bytes `start` up to `stop` into the cache, unless they would be an eighth of it."""
        if stop - start > _cache().limit / 8:
            return
        for first in range(start // BLOCK, -(-stop // BLOCK), RUN):
            self._blocks(first, min(first + RUN, -(-stop // BLOCK)) - 1)

    def _blocks(self, first: int, last: int) -> dict[int, bytes]:
        cache = _cache()
        got = {n: b for n, b in self._lately.items() if first <= n <= last}

        def look(numbers: Iterable[int]) -> list[int]:
            """Those that the cache lacks."""
            for n in numbers:
                if n not in got and not self._fresh and (block := cache.get(f"{self._key}-{n}")) is not None:
                    got[n] = block
            return [n for n in numbers if n not in got]

        for group in range(first // RUN, last // RUN + 1):
            numbers = range(max(first, group * RUN), min(last + 1, (group + 1) * RUN))
            if look(numbers):
                with cache.locked(f"{self._key}-{group}"):
                    missing = look(numbers)  # another thread or process may have fetched them by now
                    while missing:
                        some = [n for i, n in enumerate(missing) if n == missing[0] + i]
                        got |= self._fetch(some[0], some[-1])
                        for n in some:
                            cache.put(f"{self._key}-{n}", got[n])
                        missing = missing[len(some) :]
        return got

    def _fetch(self, first: int, last: int) -> dict[int, bytes]:
        start, stop = first * BLOCK, min((last + 1) * BLOCK, self.bytes)

        def get(client: Any) -> bytes:
            place = client._strip_protocol(self.path.url)
            return _whole(client.cat_file(place, start=start, end=stop), stop - start)

        data = _try(self.path.url, "reading", get)
        return {n: data[n * BLOCK - start : (n + 1) * BLOCK - start] for n in range(first, last + 1)}


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise _Passing(f"{len(data)} bytes came of {size}")
    return data


def _client(url: str) -> Any:
    """The file system behind a URL: one for each process and protocol, without a memory of listings."""
    import fsspec

    protocol = url.partition("://")[0]
    key = (os.getpid(), protocol)
    if key not in _clients:
        try:
            _clients[key] = fsspec.filesystem(protocol, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as e:
            extra = ATOMIC[protocol]
            raise ValueError(f"{url} needs a client ({e}): pip install 'polyteach[{extra}]'") from e
    return _clients[key]


def _try(url: str, what: str, call: Callable[[Any], _T]) -> _T:
    """What `call` gives of the client, after as many attempts as it takes."""
    client = _client(url)
    for attempt in range(TRIES):
        try:
            return call(client)
        except Exception as e:
            stale = isinstance(e, FileNotFoundError) and _own.get(url, False)  # written here, and not seen yet
            if isinstance(e, FileNotFoundError) and not stale:
                raise _absent(url) from e
            text = f"{type(e).__name__}: {e}"
            if not stale and (isinstance(e, _FINAL) or type(e).__name__ in _HOPELESS):
                raise StorageError(
                    f"{url}: {what} was refused ({text}). Look after the credentials and their rights, the bucket's "
                    "name and AWS_ENDPOINT_URL"
                ) from e
            if attempt == TRIES - 1:
                if stale:
                    raise _absent(url) from e
                raise StorageError(
                    f"{url}: {what} failed {TRIES} times, at last with {text}. What is written is whole; when the "
                    "storage can be reached again, the same command goes on"
                ) from e
            time.sleep(_jitter.uniform(0, min(WAIT[0] * 2**attempt, WAIT[1])))
    raise AssertionError("the last attempt returns or raises")


def _absent(url: str) -> FileNotFoundError:
    """As of a path on this machine: clients' own have neither number nor name."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)


# ---------------------------------------------------------------------------------------------------------------------


class _Cache:
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


def _cache() -> _Cache:
    text = os.environ.get("POLYTEACH_CACHE_GB", str(CACHE_GB))
    try:
        limit = int(float(text) * 1e9)
        if limit < 0:
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"POLYTEACH_CACHE_GB must be a number, 0 (no cache) or more; it is {text!r}") from None
    return _made(cache_folder(), limit)


@lru_cache(maxsize=8)
def _made(folder: Path, limit: int) -> _Cache:
    try:
        return _Cache(folder, limit)
    except OSError as e:
        raise ValueError(
            f"{folder} cannot be made ({e}): say with POLYTEACH_CACHE where blocks of stores may be kept, or with "
            "POLYTEACH_CACHE_GB=0 that none are"
        ) from e
