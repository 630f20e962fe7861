"""What rendered worlds share: rays, a camera's film, exact answers, and a dataset whose images follow from numbers.

The rays are embree's. Camera: x right, y down, z away; depth is z in metres.

Shapes: h w pixels, F faces, V vertices, R rays.
"""

import importlib.util
import io
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from polyteach.datasets import Dataset, Entry, Labels
from polyteach.ground.scene import WALL, Render
from polyteach.tasks import all_tasks, load_task
from polyteach.tasks.contract import Space

SLIVER = 1 / 400
"""Share of the image below which an object is too small to be found: 10 pixels of 64 x 64."""

Pair = tuple[float, float]
"""Least and most."""

# ---------------------------------------------------------------------------------------------------------------------
# Rays


def rays(size: int, angle: float, fine: int = 1) -> np.ndarray:
    """Directions (R, 3) float32 with z = 1, through the centres of `fine` x `fine` cells of every pixel, row by row.

    angle: of the camera's field of view, degrees.
    """
    n = size * fine
    at = (2 * (np.arange(n) + 0.5) / n - 1) * np.tan(np.radians(angle) / 2)
    x, y = np.meshgrid(at, at)
    return np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3).astype(np.float32)


def facing(normal: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The normals (R, 3), turned against the rays that see them."""
    away = np.einsum("rk,rk->r", normal, directions) > 0
    out: np.ndarray = np.where(away[:, None], -normal, normal)
    return out


class Meshes:
    """Triangles that rays hit. normal: (F, 3) float32 of the faces, unit, to either side."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        """vertices: (V, 3) float32. faces: (F, 3) int32."""
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        a, b, c = (vertices[faces[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        self.normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, vertices, faces)

    def hit(self, origin: np.ndarray, direction: np.ndarray) -> dict[str, np.ndarray]:
        """For rays (R, 3) float32: primID, the face that each hits or -1; tfar, how many `direction`s away; u, v."""
        out: dict[str, np.ndarray] = self._scene.run(
            np.ascontiguousarray(origin), np.ascontiguousarray(direction), output=True
        )
        return out

    def cast(self, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The face that each ray hits, -1 for none, and how many `direction`s away."""
        hit = self.hit(origin, direction)
        return hit["primID"], hit["tfar"]

    def blocked(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """(R,) bool: whether there is anything less than one `direction` away."""
        ends = np.full(len(origin), 1, np.float32)
        found = self._scene.run(
            np.ascontiguousarray(origin), np.ascontiguousarray(direction), dists=ends, query="OCCLUDED"
        )
        out: np.ndarray = found == 0
        return out


# ---------------------------------------------------------------------------------------------------------------------
# Images


@dataclass(frozen=True)
class Film:
    """exposure: factor on the light. blur: 0..1, share of a pixel's light that goes to its neighbours, half each way.

    noise: standard deviation in grey levels.
    """

    exposure: float = 1.0
    blur: float = 0.0
    noise: float = 0.0

    def developed(self, light: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """The image (h, w, 3) uint8 of the light (h, w, 3), 1 for white; `draw` makes the sensor's noise."""
        linear, size = light * self.exposure, len(light)
        if self.blur:
            for axis in (0, 1):
                before = np.concatenate([linear.take([0], axis), linear.take(range(size - 1), axis)], axis)
                after = np.concatenate([linear.take(range(1, size), axis), linear.take([-1], axis)], axis)
                linear = (1 - self.blur) * linear + self.blur / 2 * (before + after)
        pixels = linear.clip(0, 1) ** (1 / 1.8) * 255 + self.noise * draw.standard_normal(linear.shape)
        out: np.ndarray = pixels.clip(0, 255).round().astype(np.uint8)
        return out


@dataclass(frozen=True)
class View:
    """What the camera sees: a `Render`, and for every pixel the part that it shows, (h, w), or -1."""

    render: Render
    part: np.ndarray


# ---------------------------------------------------------------------------------------------------------------------
# Datasets


def stream(domain: str, seed: int, split: str, index: int, *more: int) -> np.random.Generator:
    """The random numbers of one image, and of no other."""
    return np.random.default_rng([zlib.crc32(domain.encode()), seed, zlib.crc32(split.encode()), index, *more])


def answer(task: str, render: Render, space: Space) -> Any:
    """The exact answer to a task; objects of which next to nothing shows are ignored, as the "difficult" of VOC."""
    found = load_task(task).truth(render, space)
    if task == "detection":
        pixels = render.instance[render.instance != WALL].bincount(minlength=len(render.category))
        return replace(found, ignore=pixels[pixels > 0] < SLIVER * render.instance.numel())
    return found


class Rendered(Dataset):
    """Images of one domain, rendered when they are asked for: once, for the image and its labels."""

    embed: ClassVar[bool] = True

    def __init__(self, name: str, counts: dict[str, int], seed: int, size: int, spaces: dict[str, Space]) -> None:
        self._name, self._seed, self._size = name, seed, size
        self._at = [(split, i) for split, count in counts.items() for i in range(count)]
        super().__init__([f"{name}-{seed}/{split}/{i:06d}.png" for split, i in self._at])
        self.spaces = spaces

    @abstractmethod
    def view(self, split: str, index: int) -> Any:
        """One image: something with a `render`."""

    @abstractmethod
    def truth(self, task: str, seen: Any) -> Any:
        """The answer to a task, or None where there is none."""

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for split, i in self._at[start:stop]:
            seen = self.view(split, i)
            buffer = io.BytesIO()
            # little is won by compressing noise hard
            Image.fromarray(seen.render.image.permute(1, 2, 0).numpy()).save(buffer, format="png", compress_level=3)
            yield Entry(data=buffer.getvalue(), split=split, targets=partial(self._targets, seen))

    def _targets(self, seen: Any, size: tuple[int, int]) -> Labels:
        return {task: self.truth(task, seen) for task in self.spaces}


# ---------------------------------------------------------------------------------------------------------------------
# Options. `where` is what the user wrote, for messages


def packages(format: str, *modules: str) -> None:
    """Raises: ValueError: one of the modules is not installed."""
    lacking = [m for m in modules if importlib.util.find_spec(m) is None]
    if lacking:
        raise ValueError(f"{format}: needs {' and '.join(lacking)}: pip install 'polyteach[worlds]'")


def tasks_named(where: str, text: str, own: str) -> list[str]:
    """The tasks of "own", "all", "none" or "NAME,NAME"."""
    known = [t for t in all_tasks() if load_task(t).has_truth]
    sets = {"own": [own], "all": known, "none": []}
    tasks: Sequence[str] = sets.get(text, text.split(","))
    if unknown := [t for t in tasks if t not in known]:
        raise ValueError(
            f"{where}: tasks must be own, all, none or names of {', '.join(known)}, with commas between "
            f"them; got {unknown[0]!r}"
        )
    return [*tasks]


def with_outlines(where: str, text: str, tasks: Sequence[str]) -> bool:
    """Whether boxes come with outlines: "yes" or "no"."""
    if text not in ("no", "yes"):
        raise ValueError(f"{where}: outlines must be yes or no; got {text!r}")
    if text == "yes" and "detection" not in tasks:
        raise ValueError(f"{where}: outlines=yes goes with boxes, and tasks has no detection")
    return text == "yes"


def counted(where: str, text: str) -> dict[str, int]:
    """Images by split, of "SPLIT:NUMBER,SPLIT:NUMBER" or of a number."""
    counts: dict[str, int] = {}
    for pair in text.split(",") if ":" in text else [f"train:{text}"]:
        split, _, count = pair.partition(":")
        if not split or split in counts or "/" in split:
            raise ValueError(
                f"{where}: count must be SPLIT:NUMBER,SPLIT:NUMBER with different splits, or NUMBER; got {text!r}"
            )
        counts[split] = number(where, f"count of {split}", count, 1)
    return counts


def number(where: str, what: str, text: str, least: int) -> int:
    """A whole number of at least `least`."""
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise ValueError(f"{where}: {what} must be a whole number of at least {least}; got {text!r}")
    return int(text)
