"""Things before a camera, lights, and the image with everything that is true of it.

Camera: x right, y down, z away; depth is z in metres. Light: Lambert's, from distant lights and from everywhere.

Shapes: h w pixels, F faces, V vertices, R rays, L lights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from polyteach.datasets._raycast import Film, Meshes, View, facing, rays
from polyteach.datasets.shapes.solids import named
from polyteach.datasets.shapes.textures import Skin
from polyteach.ground.scene import WALL, Render


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


def solid(name: str, category: int, turn: np.ndarray, scale: float, at: np.ndarray, skin: Skin) -> Thing:
    """An object. turn: (3, 3) rotation. scale: metres per unit of the shape, which is about 2 wide. at: its centre."""
    shape = named(name)
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
    ambient: float
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

    def truth(self, size: int, angle: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """At the pixels' centres: face (h, w), depth (h, w) in metres, normal (h, w, 3) towards the camera."""
        directions = rays(size, angle)
        face, z = self.look(directions)
        normal = facing(self.normal[face], directions)
        return face.reshape(size, size), z.reshape(size, size), normal.reshape(size, size, 3)

    def photograph(self, size: int, angle: float, light: Light, film: Film, draw: np.random.Generator) -> np.ndarray:
        """The image (h, w, 3) uint8, four rays a pixel; `draw` makes the sensor's noise."""
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

    def see(self, size: int, angle: float, light: Light, film: Film, draw: np.random.Generator) -> View:
        """The image, and everything about it."""
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
