"""Shapes: a rendered world with exact classes, boxes, outlines, regions, depth and normals, made of nothing but a seed.

    shapes:DOMAIN?count=train:1000,val:100,test:300&seed=0&size=64&tasks=own&outlines=no

DOMAIN is one of `DOMAINS`: four worlds for teachers, which look different and name different shapes; a pool that
looks like all of them and more; and six downstream worlds of compound shapes that no teacher saw, with other textures,
lights and cameras. An image follows from (domain, seed, split, number) and its size alone, so that more images later
leave the first as they are. Its bytes also depend on the versions of trimesh, embreex, numpy and Pillow.

count: images by split, or one number, which makes the split "train". tasks: "own" (what the domain is for), "all" (the
exact truth of every task: an oracle), "none" (an unlabelled pool), or tasks by name: "depth,normals". outlines: "yes"
adds the objects' outlines to their boxes.

Solids come from `trimesh.creation`, and compounds of them; they float, stand, hang or lie in piles before a floor or a
ceiling and one or two walls. The rays are embree's. What must not give an answer away is drawn at random: textures and
colours are independent of the shape, and the camera looks down at a floor as often as up at a ceiling, rolled to either
side, so that neither colour tells the class nor height in the picture the depth. What tells them can be seen: light
comes from above, textures are of one period in metres, things of one kind are about as large. A scene that hides what
it is about is thrown away, and its objects are placed anew.

Labels: the class of a picture is that of the object with the most visible pixels, which is the one in the middle where
there is one. Boxes are around visible pixels; an object that shows next to none of them is ignored, as what is
"difficult" in Pascal VOC. Depth and normals are the meshes' own (a ball has 1,280 faces) at the centre of each pixel;
the picture is the mean of four rays a pixel.

Camera: x right, y down, z away; depth is z in metres. Light: Lambert's, from distant lights and from everywhere, with
or without shadows of the objects. Nothing is licensed: no asset is read.

Shapes: h w pixels, F faces, V vertices, R rays, L lights.
"""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from polyteach.datasets import Dataset, options
from polyteach.datasets._raycast import (
    Film,
    Meshes,
    Pair,
    Rendered,
    View,
    answer,
    counted,
    facing,
    number,
    packages,
    rays,
    stream,
    tasks_named,
    with_outlines,
)
from polyteach.names import unknown_name
from polyteach.scene import WALL, Render
from polyteach.tasks.contract import Space
from polyteach.tasks.segmentation import SegmentationTarget

PATHLESS = True
"""What stands after `shapes:` is no path."""

PARTS = ("slab", "ball", "rod", "spike", "ring")
"""What solids are made of: the second space of regions."""

# ---------------------------------------------------------------------------------------------------------------------
# Solids: about 2 metres wide, upright (y points down), around 0


def _trimesh() -> Any:
    import trimesh

    return trimesh.creation


def _upright(mesh: Any) -> Any:
    """trimesh's axis z to -y: up in the picture."""
    return mesh.apply_transform(np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float))


def _moved(mesh: Any, x: int | float = 0, y: int | float = 0, z: int | float = 0) -> Any:
    return mesh.apply_translation((x, y, z))


def _box(x: int | float, y: int | float, z: int | float) -> Any:
    return _trimesh().box((x, y, z))


def _ball(radius: int | float = 1) -> Any:
    return _trimesh().icosphere(3, radius)


def _rod(radius: int | float, height: int | float, sides: int = 32) -> Any:
    return _upright(_trimesh().cylinder(radius, height, sections=sides))


def _spike(radius: int | float, height: int | float, sides: int = 32) -> Any:
    """Its base at y = 0, its tip at y = -height."""
    return _upright(_trimesh().cone(radius, height, sections=sides))


def _ring(major: int | float, minor: int | float) -> Any:
    return _upright(_trimesh().torus(major, minor, major_sections=32, minor_sections=16))


def _capsule(height: int | float, radius: int | float) -> Any:
    """height: between the centres of its round ends."""
    return _upright(_trimesh().capsule(height, radius, count=(16, 16)))


def _tube(inner: float | int, outer: float | int, height: int | float) -> Any:
    return _upright(_trimesh().annulus(inner, outer, height, sections=32))


def _egg() -> Any:
    return _ball().apply_transform(np.diag([0.7, 1.1, 0.7, 1]))


def _legs(x: int | float, y: int | float, z: int | float, height: int | float) -> list[tuple[Any, str]]:
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
def _solid(name: str) -> Solid:
    pieces = (PRIMITIVES | COMPOUNDS)[name]()
    first = np.cumsum([0, *(len(m.vertices) for m, _ in pieces)])
    vertices = np.concatenate([np.asarray(m.vertices, dtype=np.float64) for m, _ in pieces])
    return Solid(
        vertices - (vertices.min(0) + vertices.max(0)) / 2,
        np.concatenate([np.asarray(m.faces) + k for (m, _), k in zip(pieces, first, strict=False)]),
        np.concatenate([np.full(len(m.faces), PARTS.index(kind)) for m, kind in pieces]),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Surfaces


@cache
def _lattice() -> np.ndarray:
    """Random numbers 0..1 in space, (16, 16, 16), repeated for ever; the same for every picture."""
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


# ---------------------------------------------------------------------------------------------------------------------
# The world and its camera


@dataclass(frozen=True)
class Thing:
    """Something in the world, in the camera's coordinates. A point p of it is painted as turn^T (p - at) / scale.

    vertices: (V, 3) metres. faces: (F, 3). part: (F,) index into PARTS, -1 for a plane. category: None for a plane.
    """

    vertices: np.ndarray
    faces: np.ndarray
    part: np.ndarray
    skin: Skin
    at: np.ndarray
    turn: np.ndarray
    scale: float
    category: int | None


def solid(name: str, category: int, turn: np.ndarray, scale: float | int, at: np.ndarray, skin: Skin) -> Thing:
    """An object. turn: (3, 3) rotation. scale: metres per unit of the shape, which is about 2 wide. at: its centre."""
    shape = _solid(name)
    vertices = shape.vertices @ turn.T * scale + at
    return Thing(vertices, shape.faces, shape.part, skin, at, turn, float(scale), category)


def plane(point: np.ndarray, normal: np.ndarray, skin: Skin) -> Thing:
    """A square of 400 metres about `point`."""
    across = np.cross(normal, [0.3, 1.0, 0.2])
    across /= np.linalg.norm(across)
    up = np.cross(across, normal)
    corners = np.stack([point + 200 * (i * across + j * up) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    return Thing(corners, faces, np.full(2, -1), skin, np.asarray(point, dtype=float), np.eye(3), 1.0, None)


@dataclass(frozen=True)
class Light:
    """towards: (L, 3) unit vectors to distant lights. colour: (L, 3) of each. ambient: 0..1, from everywhere.

    shadows: whether objects cast them.
    """

    towards: np.ndarray
    colour: np.ndarray
    ambient: int | float
    shadows: bool


class World(Meshes):
    """Things before the camera.

    thing: (F,) which of `things` a face belongs to. instance: (F,) index of the object, or WALL. part: (F,).
    category: of every object.
    """

    def __init__(self, things: Sequence[Thing]) -> None:
        first = np.cumsum([0, *(len(t.vertices) for t in things)])
        super().__init__(
            np.concatenate([t.vertices for t in things]).astype(np.float32),
            np.concatenate([t.faces + k for t, k in zip(things, first, strict=False)]).astype(np.int32),
        )
        self.things = things
        self.thing = np.repeat(np.arange(len(things)), [len(t.faces) for t in things])
        self.part = np.concatenate([t.part for t in things])
        self.category = [t.category for t in things if t.category is not None]
        objects = np.cumsum([t.category is not None for t in things]) - 1
        index = [k if t.category is not None else WALL for t, k in zip(things, objects, strict=True)]
        self.instance = np.array(index)[self.thing]

    def look(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`cast` from the camera.

        Raises:
            ValueError: a ray hits nothing: the world needs a wall behind it.
        """
        face, z = self.cast(np.zeros_like(directions), directions)
        if (face < 0).any():
            raise ValueError(f"{int((face < 0).sum())} rays leave the world: put a plane behind it")
        return face, z

    def truth(self, size: int, angle: int | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """At the pixels' centres: face (h, w), depth (h, w) in metres, normal (h, w, 3) towards the camera."""
        directions = rays(size, angle)
        face, z = self.look(directions)
        normal = facing(self.normal[face], directions)
        return face.reshape(size, size), z.reshape(size, size), normal.reshape(size, size, 3)

    def photograph(
        self, size: int, angle: int | float, light: Light, film: Film, draw: np.random.Generator
    ) -> np.ndarray:
        """The picture (h, w, 3) uint8, four rays a pixel; `draw` makes the sensor's noise."""
        directions = rays(size, angle, fine=2)
        face, z = self.look(directions)
        point = directions * z[:, None]
        normal = facing(self.normal[face], directions)
        bright = np.full((len(face), 3), light.ambient, dtype=np.float32)
        for towards, colour in zip(light.towards.astype(np.float32), light.colour.astype(np.float32), strict=True):
            lambert = np.maximum(normal @ towards, 0)
            lit = np.flatnonzero(lambert)
            if light.shadows and len(lit):
                # start off the surface, towards the camera's side: rays must not hit where they come from
                origin = point[lit] + 1e-3 * z[lit, None] * normal[lit]
                blocker, _ = self.cast(origin, np.broadcast_to(towards, origin.shape))
                lambert[lit] *= (blocker < 0) | (self.instance[blocker] == WALL)
            bright += lambert[:, None] * colour
        light_of_pixels = (self._paint(face, point) * bright).reshape(size, 2, size, 2, 3).mean((1, 3))
        return film.developed(light_of_pixels, draw)

    def _paint(self, face: np.ndarray, point: np.ndarray) -> np.ndarray:
        """Colours of the surfaces at points (R, 3) on their faces."""
        which, out = self.thing[face], np.zeros((len(face), 3), dtype=np.float32)
        for k, thing in enumerate(self.things):
            mine = np.flatnonzero(which == k)
            if len(mine):
                own = (point[mine] - thing.at.astype(np.float32)) @ (thing.turn / thing.scale).astype(np.float32)
                out[mine] = thing.skin.at(own)
        return out

    def see(self, size: int, angle: int | float, light: Light, film: Film, draw: np.random.Generator) -> View:
        """The picture, and everything about it."""
        image = self.photograph(size, angle, light, film, draw)
        face, depth, normal = self.truth(size, angle)
        render = Render(
            image=torch.from_numpy(image).permute(2, 0, 1).contiguous(),
            instance=torch.from_numpy(self.instance[face].astype(np.int64)),
            depth=torch.from_numpy(depth),
            normal=torch.from_numpy(normal).permute(2, 0, 1).contiguous(),
            category=torch.tensor(self.category, dtype=torch.int64),
        )
        return View(render, self.part[face])


# ---------------------------------------------------------------------------------------------------------------------
# Domains


@dataclass(frozen=True)
class Domain:
    """What a world looks like, and what it is for. Pairs are the least and the most.

    task: its own. shapes: what objects are of; their order is that of the classes. objects: how many, beside the one
    in the middle. centric: share of the scenes with one large object in the middle. resting: share of the scenes whose
    objects stand, hang and are piled up on the floor or ceiling; elsewhere they float. tilt: of floating objects,
    degrees. pitch: of the camera, down at a floor or up at a ceiling, degrees; roll: to either side at most. walls: how
    many, beside the last one.

    textures: of objects and planes. plain: share of the objects that have none, and twice the share of the planes; with
    textures everywhere a small network learns next to no shape from 1,500 images. contrast: of a texture's two colours,
    1 for any two that may be drawn. colour: saturation.

    lights: how many. tint: how coloured they are, 0..1. ambient: light from everywhere. shadows: share of the scenes
    that have them. angle: of the camera's field of view, degrees. exposure, blur, noise: as in `Film`.

    by_part: regions are kinds of parts, not of shapes.
    """

    task: str
    shapes: tuple[str, ...]
    textures: tuple[str, ...]
    objects: tuple[int, int] = (2, 6)
    centric: float | int = 0
    resting: float | int = 0.5
    tilt: Pair = (0, 40)
    pitch: Pair = (15, 50)
    roll: float | int = 25
    walls: tuple[int, int] = (0, 1)
    colour: Pair = (0.1, 0.9)
    plain: float | int = 0.6
    contrast: Pair = (0.1, 0.5)
    lights: tuple[int, int] = (1, 3)
    tint: float | int = 0.2
    ambient: Pair = (0.2, 0.4)
    shadows: float | int = 0.5
    angle: Pair = (45, 65)
    exposure: Pair = (0.8, 1.2)
    blur: Pair = (0.0, 0.2)
    noise: Pair = (0, 6)
    by_part: bool = False


_ALL = tuple(PRIMITIVES)
_POOL = Domain(
    "classification", _ALL, tuple(TEXTURES)[1:], (1, 6), 0.5, plain=0.5, contrast=(0.1, 0.7), colour=(0, 1),
    lights=(1, 4), tint=0.4, angle=(35, 70), ambient=(0.15, 0.55), exposure=(0.6, 1.4), blur=(0, 0.5), noise=(0, 12)
)  # fmt: skip
_DOWN = Domain(
    "", tuple(COMPOUNDS), ("bricks", "patches", "rings", "zigzag", "clouds"), (2, 5), colour=(0.3, 0.8),
    lights=(2, 4), tint=0.5, angle=(30, 50), exposure=(0.7, 1.1), blur=(0.1, 0.5), noise=(2, 8)
)  # fmt: skip

DOMAINS: dict[str, Domain] = {
    # four teachers: other shapes, surfaces, lights and cameras, which overlap; few classes each, since 1,000 pictures
    # do not teach twelve shapes to a network that begins at nothing
    "teach-classes": Domain(
        "classification", ("cube", "ball", "cylinder", "cone", "torus", "disc", "cross", "stairs"),
        ("checker", "stripes"), (0, 2), 1, tint=0, angle=(40, 50), noise=(0, 3)
    ),
    "teach-boxes": Domain(
        "detection", ("cube", "cone", "torus", "capsule", "corner"), ("noise", "dots"), (1, 4), lights=(1, 1),
        shadows=1, colour=(0, 0.5), noise=(4, 10)
    ),
    "teach-regions": Domain(
        "segmentation", ("ball", "cylinder", "pyramid", "tube", "torus", "cross"), ("checker", "marble", "gradient"),
        (1, 4), shadows=0, ambient=(0.35, 0.6), colour=(0.5, 1)
    ),
    "teach-depth": Domain(
        "depth", _ALL, ("stripes", "noise"), (2, 7), angle=(55, 70), tint=0.4, exposure=(0.6, 1.0)
    ),
    "pool": _POOL,
    "down-classes": replace(_DOWN, task="classification", objects=(0, 2), centric=1),
    "down-boxes": replace(_DOWN, task="detection", shapes=tuple(COMPOUNDS)[::2]),
    "down-regions": replace(_DOWN, task="segmentation", shapes=tuple(COMPOUNDS)[1::2], ambient=(0.3, 0.5)),
    "down-parts": replace(_DOWN, task="segmentation", objects=(0, 3), centric=1, by_part=True),
    "down-depth": replace(_DOWN, task="depth", objects=(2, 6), angle=(45, 65)),
    "down-normals": replace(_DOWN, task="normals", noise=(4, 10), shadows=1),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Scenes

_TRIES = 200
NEAR = 1.2
"""Metres that are kept free before the camera."""


def view(domain: Domain, draw: np.random.Generator, size: int) -> View:
    """One random picture of a world, `size` x `size` pixels."""
    centric = bool(draw.uniform() < domain.centric)
    objects = max(centric + int(draw.integers(domain.objects[0], domain.objects[1] + 1)), 1)
    # classes are drawn before placing: a shape that is often hidden is as frequent as the others
    categories = draw.integers(len(domain.shapes), size=objects).tolist()
    for _ in range(_TRIES):
        angle = float(draw.uniform(*domain.angle))
        up, floor = _up(draw, domain)
        world = World(_things(domain, draw, categories, centric, float(np.tan(np.radians(angle) / 2)), up, floor))
        if _shows(world, angle, centric):
            break
    else:
        raise RuntimeError(f"no scene of {objects} objects that shows one of them, in {_TRIES} attempts")
    lights = int(draw.integers(domain.lights[0], domain.lights[1] + 1))
    towards = draw.normal(size=(lights, 3))
    towards[:, 2] = -np.abs(towards[:, 2])  # none from behind the scene
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    towards += (0.2 + np.maximum(-towards @ up, 0))[:, None] * up  # all from above: light tells which way things face
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    colour = (1 + domain.tint * draw.uniform(-1, 1, (lights, 3))) * draw.uniform(0.7, 1.1) / lights**0.5
    light = Light(towards, colour, float(draw.uniform(*domain.ambient)), bool(draw.uniform() < domain.shadows))
    film = Film(*(float(draw.uniform(*pair)) for pair in (domain.exposure, domain.blur, domain.noise)))
    return world.see(size, angle, light, film, draw)


def _shows(world: World, angle: int | float, centric: bool) -> bool:
    """Whether the scene shows what it is about: the object in the middle more than all others, or any; nothing near."""
    side = 24
    face, z = world.look(rays(side, angle))
    if z.min() < NEAR:
        return False
    instance = world.instance[face]
    pixels = np.bincount(instance[instance != WALL], minlength=len(world.category)) / side**2
    if centric:
        return bool(pixels[0] >= 0.06 and pixels[0] > 1.2 * pixels[1:].max(initial=0))
    return bool(pixels.max() >= 0.02)


def _things(
    domain: Domain,
    draw: np.random.Generator,
    categories: list[int],
    centric: bool,
    wide: float,
    up: np.ndarray,
    floor: bool,
) -> list[Thing]:
    """Objects, the floor or ceiling, and walls. wide: half the width of the view at 1 metre."""
    resting = bool(draw.uniform() < domain.resting)
    normal = up if floor else -up
    front = 2.6
    found: list[Thing] = []
    ground = -float(draw.uniform(1.2, 2.5)) * normal  # a point of the floor
    for k, category in enumerate(categories):
        scale = float(draw.uniform(0.6, 1))  # of one size, as things are: how large it looks tells how far it is
        if main := centric and k == 0:
            front = float(scale / (wide * draw.uniform(0.38, 0.6)))
        spread, z = (0.12, front) if main else (0.85, draw.uniform(front + 0.3, front + 3.5))
        at = z * np.array([*(draw.uniform(-spread, spread, 2) * wide), 1.0])
        turn = _turned(draw, up if resting else _leaned_up(draw, domain.tilt))
        thing = solid(domain.shapes[category], category, turn, scale, at, _skin(draw, domain, (0.7, 2), domain.plain))
        if resting and not found:
            ground = at + ((thing.vertices - at) @ normal).min() * normal
        elif resting:
            below = found[int(draw.integers(k))] if draw.uniform() < 0.3 else None
            thing = _put_down(thing, below, ground, normal)
        found.append(thing)
    far = front + draw.uniform(3, 5)
    walls = int(draw.integers(domain.walls[0], domain.walls[1] + 1))
    found.append(plane(ground, normal, _skin(draw, domain, (0.5, 1), domain.plain / 2)))
    for k in range(walls + 1):
        last = k == walls
        facing = _wall(draw, up, 20 if last else 60)
        found.append(
            plane(np.array([0, 0, 1.3 * far if last else far]), facing, _skin(draw, domain, (0.5, 1), domain.plain / 2))
        )
    return found


def _put_down(thing: Thing, below: Thing | None, ground: np.ndarray, normal: np.ndarray) -> Thing:
    """A floating object, moved onto the plane, or onto another object that stands there."""
    low = ((thing.vertices - thing.at) @ normal).min()
    if below is not None:
        at = below.at + (((below.vertices - below.at) @ normal).max() - low) * normal
    else:
        # along its line of sight, to where its lowest point touches; one that would be too near or far goes on floating
        away = (ground @ normal - low) / (thing.at @ normal)
        if not 2 < away * thing.at[2] < 12:
            return thing
        at = away * thing.at
    return replace(thing, vertices=thing.vertices + (at - thing.at), at=at)


def _leaning(draw: np.random.Generator, least: float | int, most: float | int) -> np.ndarray:
    """A unit normal that leans from the camera's direction, `least` to `most` degrees, to any side."""
    lean, side = np.radians(draw.uniform(least, most)), draw.uniform(0, 2 * np.pi)
    return np.array([np.sin(lean) * np.cos(side), np.sin(lean) * np.sin(side), -np.cos(lean)])


def _leaned_up(draw: np.random.Generator, tilt: Pair) -> np.ndarray:
    """Upwards, leaned to any side by `tilt` degrees."""
    x, y, z = _leaning(draw, *tilt)
    return np.array([x, z, y])


def _up(draw: np.random.Generator, domain: Domain) -> tuple[np.ndarray, bool]:
    """What is up, to the camera, and whether it looks down at a floor, else up at a ceiling."""
    pitch, roll = np.radians(draw.uniform(*domain.pitch)), np.radians(draw.uniform(-domain.roll, domain.roll))
    floor = bool(draw.uniform() < 0.5)
    z = -np.sin(pitch) if floor else np.sin(pitch)
    return np.array([np.sin(roll) * np.cos(pitch), -np.cos(roll) * np.cos(pitch), z]), floor


def _wall(draw: np.random.Generator, up: np.ndarray, turn: float | int) -> np.ndarray:
    """The normal of an upright plane that faces the camera, turned by at most `turn` degrees to either side."""
    face = np.array([0.0, 0, -1]) + up[2] * up
    face /= np.linalg.norm(face)
    by = np.radians(draw.uniform(-turn, turn))
    out: np.ndarray = np.cos(by) * face + np.sin(by) * np.cross(up, face)
    return out


def _turned(draw: np.random.Generator, up: np.ndarray) -> np.ndarray:
    """A rotation (3, 3) that takes -y, up, to `up`, after a random turn about it."""
    turn = draw.uniform(0, 2 * np.pi)
    about = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    v, c = np.cross([0, -1, 0], up), -up[1]
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    out: np.ndarray = (np.eye(3) + k + k @ k / (1 + c)) @ about  # Rodrigues; `up` is never straight down
    return out


def _skin(draw: np.random.Generator, domain: Domain, periods: Pair, plain: float | int) -> Skin:
    """A random surface. periods: per metre, or per unit of a shape. plain: how often it has no texture."""

    def colour() -> np.ndarray:
        return np.array(colorsys.hsv_to_rgb(draw.uniform(), draw.uniform(*domain.colour), draw.uniform(0.2, 0.95)))

    axes = np.linalg.qr(draw.normal(size=(3, 3)))[0] * np.exp(draw.uniform(*np.log(periods)))
    low = colour()
    high = low + draw.uniform(*domain.contrast) * (colour() - low)
    texture = "plain" if draw.uniform() < plain else str(draw.choice(domain.textures))
    return Skin(texture, low, high, axes, draw.uniform(0, 16, 3))


# ---------------------------------------------------------------------------------------------------------------------
# The dataset


class Shapes(Rendered):
    """Pictures of one domain, rendered when they are asked for: once, for the picture and its labels."""

    licence = "none: rendered from a seed"

    def view(self, split: str, index: int) -> View:
        return view(DOMAINS[self._name], stream(self._name, self._seed, split, index), self._size)

    def truth(self, task: str, seen: View) -> Any:
        return truth(task, seen, DOMAINS[self._name], self.spaces[task])


def space(task: str, domain: Domain, outlines: bool = False) -> Space:
    """What the domain's labels for a task mean."""
    if task == "classification":
        return Space(domain.shapes)
    if task == "detection":
        return Space(domain.shapes, "boxes and masks" if outlines else "boxes")
    if task == "segmentation":
        return Space(("background", *(PARTS if domain.by_part else domain.shapes)))
    return Space((), "metric" if task == "depth" else "")


def truth(task: str, seen: View, domain: Domain, space: Space) -> Any:
    """The exact answer to a task. Regions: planes are the first class, "background"."""
    r = seen.render
    if task == "segmentation":
        shape = torch.cat([r.category + 1, r.category.new_zeros(1)])  # the last one is for the instance -1, WALL
        category = torch.from_numpy(seen.part + 1) if domain.by_part else shape[r.instance]
        return SegmentationTarget(category=category, probability=torch.ones(category.shape))
    return answer(task, r, space)


def load(path: str) -> Dataset:
    """The domain that `path` names: DOMAIN?count=...&seed=...&size=...&tasks=...&outlines=...

    Raises:
        ValueError: an unknown domain or option, or a value that is none; lists what there is. A package is missing.
    """
    packages("shapes", "trimesh", "embreex")
    defaults = {"count": "train:1000", "seed": "0", "size": "64", "tasks": "own", "outlines": "no"}
    name, given = options(path, defaults)
    if name not in DOMAINS:
        raise unknown_name("domain of shapes", name, list(DOMAINS))
    domain, where = DOMAINS[name], f"shapes:{path}"
    tasks = tasks_named(where, given["tasks"], domain.task)
    outlines = with_outlines(where, given["outlines"], tasks)
    return Shapes(
        name,
        counted(where, given["count"]),
        number(where, "seed", given["seed"], 0),
        number(where, "size", given["size"], 16),
        {task: space(task, domain, outlines) for task in tasks},
    )
