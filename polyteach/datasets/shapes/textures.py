"""Textures in space of the rendered world of shapes.

Shapes: R points.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np


@cache
def _lattice() -> np.ndarray:
    """Random numbers 0..1 in space, (16, 16, 16), repeated for ever; the same for every image."""
    return np.random.default_rng(0).random((16, 16, 16), dtype=np.float32)


def _cells(p: np.ndarray) -> np.ndarray:
    x, y, z = (np.floor(p).astype(np.int64) & 15).T
    out: np.ndarray = _lattice()[x, y, z]
    return out


def _smooth(p: np.ndarray) -> np.ndarray:
    """Value noise: the lattice's numbers, blended (Perlin's fade curve)."""
    low = np.floor(p)
    t = p - low
    t = t * t * (3 - 2 * t)
    i, j = low.astype(np.int64) & 15, (low.astype(np.int64) + 1) & 15
    table, out = _lattice(), np.zeros(len(p), np.float32)
    for corner in range(8):
        up = [corner & 1, corner >> 1 & 1, corner >> 2]
        at = [(j if u else i)[:, k] for k, u in enumerate(up)]
        weight = np.prod([t[:, k] if u else 1 - t[:, k] for k, u in enumerate(up)], axis=0)
        out += weight * table[at[0], at[1], at[2]]
    return out


def _wave(x: np.ndarray) -> np.ndarray:
    out: np.ndarray = 0.5 + 0.5 * np.sin(2 * np.pi * x)
    return out


def _bricks(p: np.ndarray) -> np.ndarray:
    row = np.floor(2 * p[:, 1])
    x, y = p[:, 0] + row / 2, 2 * p[:, 1] - row
    return (x - np.floor(x) > 0.12) & (y > 0.2)


TEXTURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda p: np.zeros(len(p)),
    "checker": lambda p: np.floor(p).sum(1) % 2,
    "stripes": lambda p: p[:, 0] % 1 > 0.5,
    "dots": lambda p: np.square(p - np.floor(p) - 0.5).sum(1) < 0.14,
    "noise": lambda p: 0.65 * _smooth(p) + 0.35 * _smooth(2.3 * p),
    "marble": lambda p: _wave(p[:, 0] + 1.5 * _smooth(p)),
    "gradient": lambda p: _wave(p[:, 0] / 4),
    "bricks": _bricks,
    "patches": _cells,
    "rings": lambda p: _wave(2 * np.hypot(p[:, 0], p[:, 1])) > 0.5,
    "zigzag": lambda p: (p[:, 0] + 0.6 * np.abs(p[:, 1] % 1 - 0.5)) % 1 > 0.5,
    "clouds": lambda p: np.clip(3 * _smooth(p) - 1, 0, 1),
}
"""Points (R, 3) to the share 0..1 of the second colour; about one period a unit."""


@dataclass(frozen=True)
class Skin:
    """A texture in space between two colours. axes: (3, 3), metres to periods. phase: (3,) periods."""

    texture: str
    low: np.ndarray
    high: np.ndarray
    axes: np.ndarray
    phase: np.ndarray

    def at(self, point: np.ndarray) -> np.ndarray:
        """Colours (R, 3), linear 0..1, at points (R, 3)."""
        share = TEXTURES[self.texture](point @ self.axes.T.astype(np.float32) + self.phase.astype(np.float32))
        low, high = self.low.astype(np.float32), self.high.astype(np.float32)
        out: np.ndarray = low + share.astype(np.float32)[:, None] * (high - low)
        return out
