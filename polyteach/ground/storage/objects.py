"""Objects, and prefixes of objects, with as much of `pathlib`'s methods as a store needs."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from polyteach.ground.storage.cache import block_cache
from polyteach.ground.storage.reader import RUN, Reader
from polyteach.ground.storage.requests import WRITTEN, Passing, StorageError, absent, complete, request

AHEAD = 4
"""Reads ahead at a time."""

_P = TypeVar("_P", bound="ObjectPath")

_slots = threading.BoundedSemaphore(AHEAD)


def _after_fork() -> None:
    global _slots
    _slots = threading.BoundedSemaphore(AHEAD)  # the threads that held it stayed behind


os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class ObjectPath:
    """An object, or a prefix of objects, by its URL without a slash at the end."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self: _P, name: str) -> _P:
        return type(self)(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self: _P) -> _P:
        """The prefix that it is in."""
        return type(self)(self.url.rpartition("/")[0])

    def with_name(self: _P, name: str) -> _P:
        """Its neighbour of that name."""
        return self.parent / name

    def resolve(self: _P) -> _P:
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
        return bool(self.names_below())

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
                raise absent(self.url)
            return found

        return request(self.url, "looking it up", ask)

    def glob(self: _P, pattern: str) -> Iterator[_P]:
        """Objects and prefixes at the pattern's depth (no `**`), sorted."""
        wanted = pattern.split("/")
        found = {
            "/".join(parts[: len(wanted)])
            for parts in (name.split("/") for name in self.names_below())
            if len(parts) >= len(wanted) and all(map(fnmatchcase, parts, wanted))
        }
        return iter([self / name for name in sorted(found)])

    def rglob(self: _P, pattern: str) -> Iterator[_P]:
        """Objects at any depth whose name fits the pattern, sorted."""
        return iter([self / name for name in self.names_below() if fnmatchcase(name.rpartition("/")[2], pattern)])

    def iterdir(self: _P) -> Iterator[_P]:
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
            return complete(client.cat_file(place), int(client.info(place)["size"]))

        return request(self.url, "reading", get)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object as text, past the cache."""
        return self.read_bytes().decode(encoding)

    def open(self, fresh: bool = False) -> Reader:
        """The object as a file to read, through the cache. fresh: fetched again, whatever the cache has.

        Raises:
            FileNotFoundError: there is none.
            StorageError: it cannot be had.
        """
        return Reader(self.url, self.about(), fresh)

    def ahead(self, span: Callable[[Reader], tuple[int, int]] | None = None) -> bool:
        """Fetch it into the cache in the background, unless too much is being fetched already (False).

        span: of the open file -> first byte and that after the last to fetch; all without it. Errors are left for who
        reads it to meet.
        """
        if not block_cache().limit:
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
                raise Passing("it was written, and is not there yet") from e
            if now != size:
                raise Passing(f"{now} bytes are there after {size} were written")

        try:
            request(self.url, "writing", send)
        except FileNotFoundError as e:
            raise StorageError(f"{self.url} cannot be written: {e}") from e
        WRITTEN[self.url] = True

    def copy(self: _P, target: _P) -> None:
        """Copy the object, or all below, within the storage."""
        for source, to in self._pairs(target):

            def ask(client: Any, source: str = source.url, to: str = to.url) -> None:
                client.cp_file(client._strip_protocol(source), client._strip_protocol(to))

            request(source.url, f"copying it to {to}", ask)
            WRITTEN[to.url] = True

    def rename(self: _P, target: _P) -> None:
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
                request(self.url, "removing", lambda client: client.rm_file(client._strip_protocol(self.url)))
        except FileNotFoundError:
            if not missing_ok:
                raise
        WRITTEN[self.url] = False

    def _pairs(self: _P, target: _P) -> list[tuple[_P, _P]]:
        below = self.names_below()
        return [(self / n, target / n) for n in below] if below else [(self, target)]

    def listed(self) -> dict[str, dict[str, Any]]:
        """Names below it, and what a listing says of each."""

        def ask(client: Any) -> dict[str, dict[str, Any]]:
            root = client._strip_protocol(self.url) + "/"
            found = client.find(root, detail=True)
            return {k.removeprefix(root): v for k, v in found.items() if k.startswith(root) and k != root}

        try:
            return request(self.url, "listing", ask)
        except FileNotFoundError:  # no bucket
            return {}

    def names_below(self) -> dict[str, int | None]:
        """Names below it and their bytes: the listing's, corrected by what this process knows better."""
        names: dict[str, int | None] = {k: v["size"] for k, v in self.listed().items()}
        for url, there in list(WRITTEN.items()):
            if url.startswith(f"{self.url}/"):
                name = url.removeprefix(f"{self.url}/")
                if there:
                    names.setdefault(name, None)
                else:
                    names.pop(name, None)
        return dict(sorted(names.items()))
