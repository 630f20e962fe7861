"""Solids of the rendered world of shapes: about 2 metres wide, upright (y points down), around 0.

Shapes: F faces, V vertices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

PARTS = ("slab", "ball", "rod", "spike", "ring")
"""What solids are made of: the second space of regions."""


def _trimesh() -> Any:
    import trimesh

    return trimesh.creation


def _upright(mesh: Any) -> Any:
    """trimesh's axis z to -y: up in the image."""
    return mesh.apply_transform(np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float))


def _moved(mesh: Any, x: float = 0, y: float = 0, z: float = 0) -> Any:
    return mesh.apply_translation((x, y, z))


def _box(x: float, y: float, z: float) -> Any:
    return _trimesh().box((x, y, z))


def _ball(radius: float = 1) -> Any:
    return _trimesh().icosphere(3, radius)


def _rod(radius: float, height: float, sides: int = 32) -> Any:
    return _upright(_trimesh().cylinder(radius, height, sections=sides))


def _spike(radius: float, height: float, sides: int = 32) -> Any:
    """Its base at y = 0, its tip at y = -height."""
    return _upright(_trimesh().cone(radius, height, sections=sides))


def _ring(major: float, minor: float) -> Any:
    return _upright(_trimesh().torus(major, minor, major_sections=32, minor_sections=16))


def _capsule(height: float, radius: float) -> Any:
    """height: between the centres of its round ends."""
    return _upright(_trimesh().capsule(height, radius, count=(16, 16)))


def _tube(inner: float, outer: float, height: float) -> Any:
    return _upright(_trimesh().annulus(inner, outer, height, sections=32))


def _egg() -> Any:
    return _ball().apply_transform(np.diag([0.7, 1.1, 0.7, 1]))


def _legs(x: float, y: float, z: float, height: float) -> list[tuple[Any, str]]:
    return [(_moved(_rod(0.1, height, 12), i * x, y, j * z), "rod") for i in (-1, 1) for j in (-1, 1)]


PRIMITIVES: dict[str, Callable[[], list[tuple[Any, str]]]] = {
    "cube": lambda: [(_box(1.6, 1.6, 1.6), "slab")],
    "ball": lambda: [(_ball(), "ball")],
    "cylinder": lambda: [(_rod(0.75, 1.8), "rod")],
    "cone": lambda: [(_moved(_spike(1, 1.9), 0, 0.8), "spike")],
    "torus": lambda: [(_ring(0.9, 0.32), "ring")],
    "capsule": lambda: [(_capsule(1.5, 0.55), "rod")],
    "pyramid": lambda: [(_moved(_spike(1.2, 1.7, 4), 0, 0.7), "spike")],
    "prism": lambda: [(_rod(1, 1.7, 3), "rod")],
    "nut": lambda: [(_rod(1.1, 0.8, 6), "rod")],
    "egg": lambda: [(_egg(), "ball")],
    "disc": lambda: [(_rod(1.2, 0.3), "rod")],
    "tube": lambda: [(_tube(0.6, 1, 1.4), "ring")],
    "brick": lambda: [(_box(2.2, 0.8, 1), "slab")],
    "corner": lambda: [(_moved(_box(0.7, 2, 0.7), -0.4), "slab"), (_moved(_box(1.4, 0.7, 0.7), 0.5, 0.65), "slab")],
    "cross": lambda: [(_box(2.2, 0.6, 0.6), "slab"), (_box(0.6, 2.2, 0.6), "slab")],
    "stairs": lambda: [
        (_moved(_box(0.7, 0.6, 1), -0.7, 0.6), "slab"),
        (_moved(_box(0.7, 1.2, 1), 0, 0.3), "slab"),
        (_moved(_box(0.7, 1.8, 1), 0.7), "slab"),
    ],
}
"""What teachers name: meshes, each with the kind of part that it is."""

COMPOUNDS: dict[str, Callable[[], list[tuple[Any, str]]]] = {
    "table": lambda: [(_moved(_box(2.2, 0.2, 1.5), 0, -0.6), "slab"), *_legs(0.9, 0.15, 0.55, 1.4)],
    "chair": lambda: [
        (_box(1.2, 0.2, 1.2), "slab"),
        (_moved(_box(1.2, 1.3, 0.2), 0, -0.7, 0.5), "slab"),
        *_legs(0.5, 0.6, 0.5, 1.1),
    ],
    "lamp": lambda: [
        (_moved(_rod(0.7, 0.2), 0, 1), "rod"),
        (_rod(0.12, 2, 12), "rod"),
        (_moved(_spike(0.9, 1), 0, -0.2), "spike"),
    ],
    "dumbbell": lambda: [
        (_moved(_ball(0.55), 0, -0.75), "ball"),
        (_moved(_ball(0.55), 0, 0.75), "ball"),
        (_rod(0.2, 1.6), "rod"),
    ],
    "arch": lambda: [
        (_moved(_box(0.5, 1.7, 0.6), -0.8, 0.3), "slab"),
        (_moved(_box(0.5, 1.7, 0.6), 0.8, 0.3), "slab"),
        (_moved(_box(2.3, 0.5, 0.7), 0, -0.8), "slab"),
    ],
    "rocket": lambda: [
        (_rod(0.5, 1.5), "rod"),
        (_moved(_spike(0.5, 0.8), 0, -0.75), "spike"),
        (_moved(_box(1.7, 0.6, 0.12), 0, 0.6), "slab"),
        (_moved(_box(0.12, 0.6, 1.7), 0, 0.6), "slab"),
    ],
    "snowman": lambda: [
        (_moved(_ball(0.8), 0, 0.6), "ball"),
        (_moved(_ball(0.55), 0, -0.4), "ball"),
        (_moved(_ball(0.35), 0, -1.1), "ball"),
    ],
    "mug": lambda: [
        (_moved(_tube(0.6, 0.75, 1.6), -0.2), "rod"),
        (_moved(_rod(0.7, 0.15), -0.2, 0.72), "rod"),
        (_moved(_upright(_ring(0.45, 0.14)), 0.65), "ring"),  # once more: a handle, which stands
    ],
    "tree": lambda: [
        (_moved(_rod(0.2, 0.9, 16), 0, 0.75), "rod"),
        (_moved(_spike(0.95, 1.1), 0, 0.4), "spike"),
        (_moved(_spike(0.7, 1), 0, -0.2), "spike"),
    ],
    "wheel": lambda: [
        (_ring(0.95, 0.2), "ring"),
        (_rod(0.22, 0.8), "rod"),
        (_box(1.8, 0.15, 0.22), "slab"),
        (_box(0.22, 0.15, 1.8), "slab"),
    ],
}
"""What the downstream worlds name; no teacher's world has one of them."""


@dataclass(frozen=True)
class Solid:
    """vertices: (V, 3) float64. faces: (F, 3) of them. part: (F,) index into PARTS."""

    vertices: np.ndarray
    faces: np.ndarray
    part: np.ndarray


@cache
def named(name: str) -> Solid:
    """The solid of that name, of `PRIMITIVES` or `COMPOUNDS`."""
    pieces = (PRIMITIVES | COMPOUNDS)[name]()
    first = np.cumsum([0, *(len(m.vertices) for m, _ in pieces)])
    vertices = np.concatenate([np.asarray(m.vertices, dtype=np.float64) for m, _ in pieces])
    return Solid(
        vertices - (vertices.min(0) + vertices.max(0)) / 2,
        np.concatenate([np.asarray(m.faces) + k for (m, _), k in zip(pieces, first, strict=False)]),
        np.concatenate([np.full(len(m.faces), PARTS.index(kind)) for m, kind in pieces]),
    )
