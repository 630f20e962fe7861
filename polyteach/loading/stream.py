"""Stream: images, and targets, decoded by threads ahead of what asks about them; in order, within bounds of memory."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

BATCH_PIXELS = 2**27
"""Pixels of a batch of more than one image. A batch and what is decoded of the next one are in memory, three bytes
each."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Decoded:
    """image: (3, H, W) uint8, or the reason why there is none. target: what is to be had with it, if anything."""

    image: Tensor | str
    target: Any = None

    @property
    def pixels(self) -> int:
        """How many of them are in memory."""
        return 0 if isinstance(self.image, str) else self.image.shape[-2] * self.image.shape[-1]


class Stream(Generic[Item]):
    """Batches of items with what `load` makes of them, decoded while the batch before is asked about; iterated once.

    Items are taken one ahead of those that are decoded, so that there may be any number of them.

    A batch has at most `batch_size` items and, of more than one, `BATCH_PIXELS` pixels together. What `load` raises is
    raised where its item's turn comes; what costs one image alone it returns as a reason.

    load: called by `threads` threads at once. pixels: of an item that is not decoded yet, where that is known; without
    it no more than `threads` items of unknown size are decoded ahead.
    """

    def __init__(
        self,
        items: Iterable[Item],
        load: Callable[[Item], Decoded],
        *,
        batch_size: int,
        threads: int,
        pixels: Callable[[Item], int] | None = None,
    ) -> None:
        self.load, self.batch_size, self.threads, self.pixels = load, batch_size, threads, pixels
        self._items = iter(items)
        self._next: list[Item] = []
        self._failed: Exception | None = None
        self._ahead: deque[tuple[Item, Future[Decoded]]] = deque()
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(threads, "decode")
        self._closed = False

    def __iter__(self) -> Iterator[list[tuple[Item, Decoded]]]:
        try:
            self._fill()
            while self._ahead:
                yield self._batch()
            if self._failed is not None:
                raise self._failed
        finally:
            with self._lock:
                self._closed = True
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _batch(self) -> list[tuple[Item, Decoded]]:
        batch: list[tuple[Item, Decoded]] = []
        held = 0
        while self._ahead and len(batch) < self.batch_size:
            item, future = self._ahead[0]
            decoded = future.result()
            size = self.pixels(item) if self.pixels else decoded.pixels
            if batch and held + size > BATCH_PIXELS:
                break
            with self._lock:
                self._ahead.popleft()
            batch.append((item, decoded))
            held += size
            self._fill()
        return batch

    def _fill(self) -> None:
        """Have as much decoded as there is room for; called again by each thread that is done with an item."""
        with self._lock:
            while not self._closed and self._more() and self._room(self._next[0]):
                item = self._next.pop()
                future = self._pool.submit(self.load, item)
                self._ahead.append((item, future))
                future.add_done_callback(lambda _: self._fill())

    def _more(self) -> bool:
        """Whether there is another item. What the items' iterator raises is raised when all before it were given."""
        if not self._next and self._failed is None:
            try:
                self._next = [next(self._items)]
            except StopIteration:
                return False
            except Exception as e:
                self._failed = e
        return bool(self._next)

    def _room(self, item: Item) -> bool:
        """Whether one more item may be decoded ahead: a batch of them, or one that is larger than that."""
        if not self._ahead:
            return True
        if len(self._ahead) >= self.batch_size:
            return False
        if self.pixels:
            return sum(self.pixels(i) for i, _ in self._ahead) + self.pixels(item) <= BATCH_PIXELS
        done = [f for _, f in self._ahead if f.done()]
        sizes = [f.result().pixels for f in done if not f.cancelled() and f.exception() is None]
        return len(self._ahead) - len(done) < self.threads and sum(sizes) < BATCH_PIXELS
