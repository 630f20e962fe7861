"""Textures, of models and made ones, ready to be looked up at any resolution.

Shapes: R rays, T textures, P pixels of all levels of one texture.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from polyteach.datasets.rooms.meshes import TEXTURE

LEVELS = [TEXTURE >> k for k in range(TEXTURE.bit_length())]
_FIRST = np.cumsum([0, *(s * s for s in LEVELS)])
"""Where each of a texture's levels, each half as wide as the one before, starts in `Paper.pixels`."""

LINEAR = ((np.arange(256) / 255) ** 1.8).astype(np.float32)
"""Light of a grey level; `Film` takes the root again."""


@dataclass(frozen=True)
class Paper:
    """Textures, ready to be looked up. pixels: (T x P, 4) uint8, all levels of one after another; the first is white.

    mean: (T,) float32, how bright each is. built: index of each of the made ones. photographs: indices of those that
    are good for walls and floors.
    """

    pixels: np.ndarray
    mean: np.ndarray
    built: Mapping[str, int]
    photographs: tuple[int, ...]

    def look(self, texture: np.ndarray, uv: np.ndarray, level: np.ndarray) -> np.ndarray:
        """(R, 4) uint8 at uv (R, 2), v upwards, of a level (R,)."""
        side = TEXTURE >> level
        at = np.floor(uv % 1 * side[:, None]).astype(np.int64)
        at = np.minimum(at, side[:, None] - 1)
        out: np.ndarray = self.pixels[texture * _FIRST[-1] + _FIRST[level] + (side - 1 - at[:, 1]) * side + at[:, 0]]
        return out


def papers(textures: Sequence[np.ndarray]) -> Paper:
    """Of the models' textures, each (TEXTURE, TEXTURE, 4) uint8, and of the made ones, which come first."""
    white = np.full((TEXTURE, TEXTURE, 4), 255, np.uint8)
    built = {name: k + 1 for k, name in enumerate(SURFACE)}
    made = [np.dstack([np.repeat(_surface(name)[:, :, None], 3, 2), white[:, :, :1]]) for name in SURFACE]
    every = [white, *made, *textures]
    stack = np.stack(every).astype(np.float32)
    levels = [stack.reshape(len(every), -1, 4)]
    while stack.shape[1] > 1:
        n = stack.shape[1] // 2
        stack = stack.reshape(len(every), n, 2, n, 2, 4).mean((2, 4))
        levels.append(stack.reshape(len(every), -1, 4))
    pixels = np.concatenate(levels, 1).round().astype(np.uint8)
    light = LINEAR[pixels[:, : TEXTURE**2, :3]].mean(2)
    # no cut-outs, nothing that is black or white all over, nothing that is mostly one line
    good = (
        (pixels[:, : TEXTURE**2, 3].min(1) > 250)
        & (light.std(1) > 0.02)
        & (light.std(1) < 0.2)
        & (light.mean(1) > 0.05)
    )
    photographs = tuple(int(i) for i in np.flatnonzero(good) if i > len(made))
    return Paper(pixels.reshape(-1, 4), light.mean(1).clip(0.03), built, photographs)


def _noise(draw: np.random.Generator, *cells: int) -> np.ndarray:
    """Smooth noise that repeats, (TEXTURE, TEXTURE) 0..1. cells: lumps a side, a layer each, finer ones count less."""
    out = np.zeros((TEXTURE, TEXTURE))
    for k, n in enumerate(cells):
        coarse = np.pad(draw.random((n, n)), 1, mode="wrap")
        grown = Image.fromarray(coarse.astype(np.float32)).resize(
            (TEXTURE * (n + 2) // n,) * 2, Image.Resampling.BICUBIC
        )
        edge = TEXTURE // n
        out += np.asarray(grown)[edge : edge + TEXTURE, edge : edge + TEXTURE] / 2**k
    return (out - out.min()) / np.ptp(out)


def _tiled(draw: np.random.Generator, rows: int, columns: int, shift: float, joint: int, spread: float) -> np.ndarray:
    """Bricks, tiles, planks: each of its own brightness, with darker joints of `joint` pixels."""
    y, x = np.mgrid[:TEXTURE, :TEXTURE]
    row = y * rows // TEXTURE
    across = (x + row * shift * TEXTURE / columns) % TEXTURE
    column = (across * columns // TEXTURE).astype(int)
    own = 1 - spread * draw.random((rows, columns))[row, column]
    gap = (y % (TEXTURE // rows) < joint) | (across % (TEXTURE // columns) < joint)
    return np.where(gap, 0.45, own)


def _grain(draw: np.random.Generator) -> np.ndarray:
    """Wood: noise, drawn out."""
    lines = np.repeat(_noise(draw, 32, 64)[:, :1], TEXTURE, 1) + 0.5 * _noise(draw, 4, 8)
    return 0.75 + 0.25 * (lines - lines.min()) / np.ptp(lines)


def _waves(draw: np.random.Generator, x: int, y: int, wobble: float) -> np.ndarray:
    v, u = np.mgrid[:TEXTURE, :TEXTURE] / TEXTURE
    return 0.5 + 0.5 * np.sin(2 * np.pi * (x * u + y * v + wobble * _noise(draw, 2, 4, 8)))


SURFACE: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "plaster": lambda d: 0.85 + 0.15 * _noise(d, 4, 8, 16, 32, 64),
    "concrete": lambda d: 0.55 + 0.45 * _noise(d, 2, 4, 8, 32, 64),
    "carpet": lambda d: 0.6 + 0.4 * d.random((TEXTURE, TEXTURE)),
    "planks": lambda d: _tiled(d, 4, 1, 0, 2, 0.3) * _grain(d),
    "parquet": lambda d: _tiled(d, 8, 4, 0.5, 1, 0.4) * _grain(d),
    "stripes": lambda d: 0.7 + 0.3 * (_waves(d, 4, 0, 0) > 0.5),
    "damask": lambda d: 0.7 + 0.3 * (_waves(d, 2, 2, 0.6) * _waves(d, 2, -2, 0.6) > 0.3),
    "checker": lambda d: 0.5 + 0.5 * ((_waves(d, 2, 0, 0) > 0.5) ^ (_waves(d, 0, 2, 0) > 0.5)),
    "tiles": lambda d: _tiled(d, 4, 4, 0, 3, 0.1) * (0.9 + 0.1 * _noise(d, 4, 16)),
    "slates": lambda d: _tiled(d, 2, 2, 0.5, 2, 0.4) * (0.6 + 0.4 * _noise(d, 4, 8, 16, 32)),
    "bricks": lambda d: _tiled(d, 8, 4, 0.5, 3, 0.4) * (0.8 + 0.2 * _noise(d, 16, 64)),
    "marble": lambda d: 1 - 0.5 * _waves(d, 1, 1, 3) ** 8,
    "weave": lambda d: 0.6 + 0.4 * _waves(d, 16, 0, 0) * _waves(d, 0, 16, 0) + 0.1 * d.random((TEXTURE, TEXTURE)) - 0.1,
    "terrazzo": lambda d: 0.9 - 0.5 * (_noise(d, 32, 64) > 0.75),
    "dots": lambda d: 0.65 + 0.35 * (_waves(d, 4, 4, 0) * _waves(d, 4, -4, 0) > 0.6),
    "clouds": lambda d: 0.4 + 0.6 * _noise(d, 2, 4, 8),
}  # fmt: skip
"""Made textures, grey: they are painted in a colour."""


def _surface(name: str) -> np.ndarray:
    """(TEXTURE, TEXTURE) uint8."""
    grey = SURFACE[name](np.random.default_rng([7, len(name), ord(name[0]), ord(name[-1])]))
    out: np.ndarray = (grey.clip(0, 1) * 255).round().astype(np.uint8)
    return out
