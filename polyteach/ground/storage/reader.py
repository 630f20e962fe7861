"""An object as a file that is read in blocks, through the cache."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

from polyteach.ground.storage.cache import block_cache
from polyteach.ground.storage.requests import complete, request

BLOCK = 2**20
"""Bytes that are fetched and kept together."""
RUN = 16
"""Blocks that one request fetches at most."""


class Reader(io.RawIOBase):
    """An object as a file that is read in blocks, through the cache. bytes: how many it has."""

    def __init__(self, url: str, about: Mapping[str, Any], fresh: bool = False) -> None:
        """about: what the storage says of the object. fresh: fetched again, whatever the cache has."""
        self.url = url
        self.bytes = int(about["size"])
        self._at = 0
        self._fresh = fresh
        self._lately: dict[int, bytes] = {}  # neighbouring columns share blocks
        self._key = hashlib.sha256(f"{url}\0{self.bytes}\0{entity_tag(about)}".encode()).hexdigest()[:40]

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
        if stop - start > block_cache().limit / 8:
            return
        for first in range(start // BLOCK, -(-stop // BLOCK), RUN):
            self._blocks(first, min(first + RUN, -(-stop // BLOCK)) - 1)

    def _blocks(self, first: int, last: int) -> dict[int, bytes]:
        cache = block_cache()
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
            place = client._strip_protocol(self.url)
            return complete(client.cat_file(place, start=start, end=stop), stop - start)

        data = request(self.url, "reading", get)
        return {n: data[n * BLOCK - start : (n + 1) * BLOCK - start] for n in range(first, last + 1)}


def entity_tag(about: Mapping[str, Any]) -> str:
    """What of the storage's words is another text once the object has been written anew; "" where nothing is."""
    tags = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created")
    return next((str(about[t]) for t in tags if about.get(t)), "")
