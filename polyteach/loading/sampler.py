"""Sampler: the order of the images, by random access.

Images are drawn uniformly from the union of all stores: every image once per epoch, in an order that follows from
(seed, epoch) alone. Rows are shuffled in two steps so that reading stays local: row groups of 64 images over the whole
union, then images within a window of `WINDOW` groups. Unions of up to 2,048 images are shuffled perfectly; in larger
ones two images of one row group stay within 2,048 places of each other.
"""

from functools import lru_cache

import numpy as np

WINDOW = 32
"""Row groups that are shuffled together."""


class Sampler:
    """The stream of samples: place in the stream -> (epoch, image number), by random access."""

    def __init__(self, start: np.ndarray, seed: int) -> None:
        """start: first image number of each row group, and the number of images at the end."""
        self.start = start
        self.seed = seed
        # per object, so that caches go when it goes
        self._epoch = lru_cache(maxsize=2)(self._groups)
        self._window = lru_cache(maxsize=4)(self._shuffled)

    def __len__(self) -> int:
        return int(self.start[-1])

    def at(self, place: int) -> tuple[int, int]:
        """Epoch and image number at `place` of the stream."""
        epoch, offset = divmod(place, len(self))
        _, ends = self._epoch(epoch)
        window = int(np.searchsorted(ends, offset, side="right"))
        before = int(ends[window - 1]) if window else 0
        return epoch, int(self._window(epoch, window)[offset - before])

    def _groups(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Row groups in the order of this epoch, and where each window of them ends."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.start) - 1)
        sizes = (self.start[1:] - self.start[:-1])[order]
        first = np.arange(0, len(order), WINDOW)
        return order, np.cumsum(np.add.reduceat(sizes, first))

    def _shuffled(self, epoch: int, window: int) -> np.ndarray:
        groups = self._epoch(epoch)[0][window * WINDOW : (window + 1) * WINDOW]
        images = np.concatenate([np.arange(self.start[g], self.start[g + 1]) for g in groups])
        return np.random.default_rng([self.seed, epoch, window]).permutation(images)
