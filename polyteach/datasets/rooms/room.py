"""A furnished room before a camera: surfaces, furnishing, lamps, and the image with everything that is true of it.

What is in it and how it looks comes from a `Domain`; the models from a `Stock`. Cameras: `cameras.py`.

A room is centred on x = z = 0 with its floor on y = 0, and y points up. The camera's coordinates, in which depth and
normals are, are those of `_raycast`: x right, y down, z away.

Shapes: h w pixels, F faces, V vertices, R rays, M materials, T textures.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from polyteach.datasets._raycast import Film, Meshes, Pair, facing, rays
from polyteach.datasets.rooms.domains import Domain
from polyteach.datasets.rooms.furnishing import Placed, about, arranged
from polyteach.datasets.rooms.meshes import TEXTURE
from polyteach.datasets.rooms.props import Prop, Stock
from polyteach.datasets.rooms.textures import LEVELS, LINEAR, Paper
from polyteach.ground.scene import WALL, Render

SURFACES = ("floor", "wall", "ceiling")
"""The room itself: pictures on a wall, windows and rugs are part of these."""

PARTS = ("background", "top", "underside", "foot", "middle", "crown")
"""The second space of regions: an object's faces that look up or down, and of the others the lowest quarter of its
height, the middle and the highest quarter."""


@dataclass(frozen=True)
class Lamp:
    """A lit square. at: its centre. u, v: (3,) its half axes. colour: (3,) its light at a metre, squarely."""

    at: np.ndarray
    u: np.ndarray
    v: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class Coat:
    """How a material is painted. texture: index into the paper. grey: of the texture only the brightness. flat: as
    wallpaper, `repeats` a metre, whatever the model's own uv is. colour: (3,) linear."""

    texture: int
    colour: np.ndarray
    grey: bool = False
    flat: bool = True
    repeats: float = 1.0


def _colour(domain: Domain, draw: np.random.Generator, value: Pair = (0.25, 0.95), calm: float = 1) -> np.ndarray:
    saturation = calm * draw.uniform(*domain.colour)
    return np.power(colorsys.hsv_to_rgb(draw.uniform(), saturation, draw.uniform(*value)), 1.8)


def _coat(domain: Domain, paper: Paper, draw: np.random.Generator, photographs: float, value: Pair) -> Coat:
    """For a wall, a floor or a rug, or a material that is painted anew."""
    repeats = float(np.exp(draw.uniform(*np.log((0.4, 2)))))
    if draw.uniform() < domain.plain:
        return Coat(0, _colour(domain, draw, value, 0.5), grey=True)
    if paper.photographs and draw.uniform() < photographs:
        texture = paper.photographs[int(draw.integers(len(paper.photographs)))]
        if draw.uniform() < 0.5:
            return Coat(texture, np.ones(3) * draw.uniform(0.8, 1.3), repeats=repeats)
    else:
        texture = paper.built[str(draw.choice(domain.surfaces))]
    return Coat(texture, _colour(domain, draw, value, 0.6), grey=True, repeats=repeats)


def _coats(one: Prop, domain: Domain, paper: Paper, draw: np.random.Generator) -> list[Coat]:
    """For all materials of a prop."""
    out = []
    for texture, colour in zip(one.texture.tolist(), one.colour, strict=True):
        if draw.uniform() < domain.own:
            tint = draw.uniform(0.8, 1.15, 3)
            out.append(Coat(texture, tint if texture else tint * colour, flat=False))
        elif draw.uniform() < domain.papered:
            out.append(_coat(domain, paper, draw, 0.5, (0.2, 0.95)))
        else:
            # its own pattern in another colour
            out.append(Coat(texture if draw.uniform() < 0.7 else 0, _colour(domain, draw), grey=True, flat=False))
    return out


@dataclass(frozen=True)
class Camera:
    """at: (3,) in the room. axes: (3, 3), its columns are right, down and away. angle: of view, degrees."""

    at: np.ndarray
    axes: np.ndarray
    angle: float


def aimed(at: np.ndarray, target: np.ndarray, roll: float, angle: float) -> Camera:
    """A camera at `at` that looks at `target`, rolled by degrees."""
    away = (target - at) / np.linalg.norm(target - at)
    right = np.cross(away, [0, 1, 0])
    right /= np.linalg.norm(right)
    down = np.cross(away, right)
    s, c = np.sin(np.radians(roll)), np.cos(np.radians(roll))
    return Camera(at, np.stack([c * right + s * down, c * down - s * right, away], 1), float(angle))


@dataclass(frozen=True)
class Shot:
    """An image of a room. surface: (h, w) index into SURFACES, or 3 for an object. part: (h, w) index into PARTS.

    kinds: of the objects. main: instance of the object that it is about, or None. The render's categories are the
    objects' own numbers.
    """

    render: Render
    surface: np.ndarray
    part: np.ndarray
    kinds: tuple[str, ...]
    main: int | None


class _Soup:
    """Collects triangles."""

    def __init__(self) -> None:
        self.rows: list[tuple[np.ndarray, ...]] = []
        self.first = 0

    def add(
        self, vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, density: np.ndarray | float, texture: Any,
        colour: np.ndarray, grey: Any, instance: int, surface: int, glow: bool = False,
    ) -> None:  # fmt: skip
        n = len(faces)
        self.rows.append((
            vertices.astype(np.float32), (faces + self.first).astype(np.int32), uv.astype(np.float32),
            np.broadcast_to(np.float32(density), n), np.broadcast_to(np.int64(texture), n),
            np.broadcast_to(np.float32(colour), (n, 3)), np.broadcast_to(np.bool_(grey), n),
            np.full(n, instance), np.full(n, surface, np.int8), np.full(n, glow),
        ))  # fmt: skip
        self.first += len(vertices)

    def quad(
        self, corner: np.ndarray, u: np.ndarray, v: np.ndarray, coat: Coat, surface: int, glow: bool = False
    ) -> None:
        """A rectangle from a corner along two sides; its texture lies on it in metres."""
        w, h = np.linalg.norm(u) * coat.repeats, np.linalg.norm(v) * coat.repeats
        at = np.array([[0, 0], [w, 0], [w, h], [0, h]])
        faces = np.array([[0, 1, 2], [0, 2, 3]])
        vertices = np.stack([corner, corner + u, corner + u + v, corner + v])
        self.add(vertices, faces, at[faces], coat.repeats, coat.texture, coat.colour, coat.grey, WALL, surface, glow)


class Room(Meshes):
    """A furnished room, with its lamps."""

    def __init__(
        self, domain: Domain, models: Stock, box: np.ndarray, placed: Sequence[Placed], draw: np.random.Generator
    ) -> None:
        self.domain, self.paper, self.box, self.placed = domain, models.paper, box, placed
        soup = _Soup()
        glass = self._shell(soup, draw)
        for k, p in enumerate(placed):
            self._put(soup, k, p, draw)
        vertices, faces, *rest = (np.concatenate(column) for column in zip(*soup.rows, strict=True))
        super().__init__(vertices, faces)
        self.uv, self.density, self.texture, self.colour, self.grey, self.instance, self.surface, self.glow = rest
        self.lamps = self._lamps(glass, draw)
        self.ambient = float(draw.uniform(*domain.ambient))

    def _shell(self, soup: _Soup, draw: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Floor, walls, ceiling, and what lies and hangs on them; returns the windows: corner and sides."""
        domain, paper, (w, h, d) = self.domain, self.paper, self.box
        x, y, z = np.eye(3)
        floor = _coat(domain, paper, draw, domain.photographs, (0.15, 0.85))
        walls = [_coat(domain, paper, draw, domain.photographs / 2, (0.4, 1))] * 4
        if draw.uniform() < 0.3:
            walls[int(draw.integers(4))] = _coat(domain, paper, draw, domain.photographs, (0.2, 0.95))
        top = Coat(paper.built[str(draw.choice(domain.surfaces))] if draw.uniform() < 0.3 else 0,
                   _colour(domain, draw, (0.6, 1), 0.4), grey=True)  # fmt: skip
        low = np.array([-w / 2, 0, -d / 2])
        # each wall from its lower left corner, seen from inside
        sides = [(low, w * x), (low + d * z, -d * z), (low + d * z + w * x, -w * x), (low + w * x, d * z)]
        windows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for grown in (1.0, 1.004):  # the second one closes the cracks between the sides of the first
            middle = np.array([0, h / 2, 0])

            def at(point: np.ndarray, grown: float = grown, middle: np.ndarray = middle) -> np.ndarray:
                return middle + grown * (point - middle)

            soup.quad(at(low), grown * w * x, grown * d * z, floor, 0)
            soup.quad(at(low + h * y), grown * w * x, grown * d * z, top, 2)
            for coat, (corner, along) in zip(walls, sides, strict=True):
                soup.quad(at(corner), grown * along, grown * h * y, coat, 1)
        for corner, along in sides:
            length = float(np.linalg.norm(along))
            across = along / length
            inwards = np.cross(across, y)
            draws = draw.uniform(size=5)
            if draws[0] < 0.3 and length > 2 and len(windows) < 2:
                wide, high = 0.8 + draws[1] * 1.2, 0.9 + draws[2] * 0.6
                start = corner + (length - wide) * draws[3] * across + (0.5 + 0.4 * draws[4]) * y
                sky = Coat(paper.built["clouds"], np.array([0.75, 0.88, 1]) * draw.uniform(0.7, 1.3), True, repeats=0.4)
                frame = Coat(0, _colour(domain, draw, (0.1, 1), 0.3))
                soup.quad(
                    start - 0.05 * (across + y) + 0.004 * inwards, (wide + 0.1) * across, (high + 0.1) * y, frame, 1
                )
                soup.quad(start + 0.008 * inwards, wide * across, high * y, sky, 1, glow=True)
                bar = start + (wide / 2 - 0.02) * across + 0.012 * inwards
                soup.quad(bar, 0.04 * across, high * y, frame, 1)
                windows.append((start, wide * across, high * y))
            elif draws[0] < 0.6 and paper.photographs:
                wide, high = 0.3 + draws[1] * 0.7, 0.3 + draws[2] * 0.6
                start = corner + (length - wide) * draws[3] * across + (h - high - 0.2 - 0.7 * draws[4]) * y
                texture = paper.photographs[int(draw.integers(len(paper.photographs)))]
                picture = Coat(texture, np.ones(3), repeats=float(1 / wide))
                soup.quad(start - 0.03 * (across + y) + 0.004 * inwards, (wide + 0.06) * across, (high + 0.06) * y,
                          Coat(0, _colour(domain, draw, (0.05, 0.9))), 1)  # fmt: skip
                soup.quad(start + 0.008 * inwards, wide * across, high * y, picture, 1)
        if draw.uniform() < 0.5:
            wide, long = draw.uniform(0.3, 0.7, 2) * (w, d)
            start = low + draw.uniform(0, 1, 3) * (w - wide, 0, d - long) + 0.004 * y
            soup.quad(start, wide * x, long * z, _coat(domain, paper, draw, 0.6, (0.2, 0.95)), 0)
        return windows

    def _put(self, soup: _Soup, index: int, p: Placed, draw: np.random.Generator) -> None:
        one = p.prop
        coats = _coats(one, self.domain, self.paper, draw)
        flat = np.array([c.flat for c in coats])[one.material]
        repeats = np.array([c.repeats for c in coats], np.float32)[one.material]
        texture = np.array([c.texture for c in coats])[one.material]
        grey = np.array([c.grey for c in coats])[one.material]
        colour = np.stack([c.colour for c in coats]).astype(np.float32)[one.material]
        uv = np.where(flat[:, None, None], one.flat * repeats[:, None, None], one.uv)
        density = np.where(flat, repeats, one.density)
        vertices = one.vertices @ about(p.turn).T.astype(np.float32) + p.at.astype(np.float32)
        soup.add(vertices, one.faces, uv, density, texture, colour, grey, index, len(SURFACES))

    def _lamps(
        self, windows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], draw: np.random.Generator
    ) -> list[Lamp]:
        domain, out = self.domain, []

        def colour() -> np.ndarray:
            warm = draw.uniform(-1, 1)
            return 1 + domain.tint * (np.array([0.5, 0, -0.7]) * warm + 0.2 * draw.uniform(-1, 1, 3))

        for corner, u, v in windows:
            inwards = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
            out.append(Lamp(corner + (u + v) / 2 + 0.05 * inwards, u / 2, v / 2, 3 * draw.uniform(0.5, 1.5) * colour()))
        for _ in range(int(draw.integers(domain.lamps[0], domain.lamps[1] + 1))):
            at = draw.uniform(-0.45, 0.45, 3) * self.box
            at[1] = self.box[1] * draw.uniform(0.6, 0.95)
            wide = draw.uniform(0.05, 0.5)
            out.append(Lamp(at, np.array([wide, 0, 0]), np.array([0, 0, wide]), 4 * draw.uniform(0.5, 1.5) * colour()))
        return out

    def see(self, camera: Camera, size: int, film: Film, draw: np.random.Generator, main: int | None = None) -> Shot:
        """The image, and everything about it."""
        directions, hit = self._look(camera, size, 1)
        face, z = hit["face"], hit["z"]
        normal = facing(self.normal[face], directions)
        point = camera.at.astype(np.float32) + directions * z[:, None]
        shape = (size, size)
        render = Render(
            image=torch.from_numpy(self.photograph(camera, size, film, draw)).permute(2, 0, 1).contiguous(),
            instance=torch.from_numpy(self.instance[face].reshape(shape)),
            depth=torch.from_numpy(z.reshape(shape)),
            normal=torch.from_numpy((normal @ camera.axes).astype(np.float32).reshape(*shape, 3))
            .permute(2, 0, 1)
            .contiguous(),
            category=torch.arange(len(self.placed)),
        )
        return Shot(
            render,
            self.surface[face].reshape(shape),
            self._parts(face, normal, point).reshape(shape),
            tuple(p.prop.kind for p in self.placed),
            main,
        )

    def _parts(self, face: np.ndarray, normal: np.ndarray, point: np.ndarray) -> np.ndarray:
        """(R,) index into PARTS."""
        of = self.instance[face]
        low = np.array([p.low[1] for p in self.placed] + [0.0])[of]
        high = np.array([p.high[1] for p in self.placed] + [1.0])[of]
        share = (point[:, 1] - low) / (high - low)
        up = normal[:, 1]
        named = [of == WALL, up > 0.7, up < -0.7, share < 0.25, share < 0.75]
        return np.select(named, list(range(len(named))), len(named))

    def _look(self, camera: Camera, size: int, fine: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Directions (R, 3), and what rays along them hit first that can be seen: face, z, and the texture's rgba."""
        directions = (rays(size, camera.angle, fine) @ camera.axes.T).astype(np.float32)
        texel = 2 * np.tan(np.radians(camera.angle) / 2) / (size * fine) * TEXTURE
        start = np.zeros(len(directions), np.float32)
        face, rgba = np.full(len(directions), -1), np.zeros((len(directions), 4), np.uint8)
        z, todo = start.copy(), np.arange(len(directions))
        for _ in range(6):  # through the holes of a texture: leaves are cut out of squares
            origin = camera.at.astype(np.float32) + directions[todo] * start[todo, None]
            hit = self.hit(origin, directions[todo])
            if (hit["primID"] < 0).any():
                raise ValueError("a ray leaves the room: the camera must be inside of it")
            f = hit["primID"]
            away = start[todo] + hit["tfar"]
            face[todo], z[todo] = f, away
            uv = self.uv[f]
            a, b = hit["u"][:, None], hit["v"][:, None]
            at = uv[:, 0] * (1 - a - b) + uv[:, 1] * a + uv[:, 2] * b
            level = np.log2(np.maximum(texel * away * self.density[f], 1)).round().astype(np.int64)
            rgba[todo] = self.paper.look(self.texture[f], at, np.minimum(level, len(LEVELS) - 1))
            hole = rgba[todo, 3] < 128
            start[todo] = away + 1e-4
            todo = todo[hole]
            if not len(todo):
                break
        return directions, {"face": face, "z": z, "rgba": rgba}

    def photograph(self, camera: Camera, size: int, film: Film, draw: np.random.Generator) -> np.ndarray:
        """The image (h, w, 3) uint8, four rays a pixel, each to a place of its own on one of the lamps."""
        directions, hit = self._look(camera, size, 2)
        face, n = hit["face"], len(directions)
        point = camera.at.astype(np.float32) + directions * hit["z"][:, None]
        normal = facing(self.normal[face], directions)
        origin = point + 2e-3 * normal
        colour = LINEAR[hit["rgba"][:, :3]]
        texture, grey = self.texture[face], self.grey[face]
        colour[grey] = (colour[grey].mean(1) / self.paper.mean[texture[grey]].clip(0.2))[:, None]
        colour = (colour * self.colour[face]).clip(0, 1)
        # how much of what is near is in the way of the light from everywhere
        about = draw.standard_normal((n, 3), dtype=np.float32)
        about = normal + 0.99 * about / np.linalg.norm(about, axis=1, keepdims=True)
        bright = np.repeat((self.ambient * (1 - 0.8 * self.blocked(origin, 0.7 * about)))[:, None], 3, 1)
        # the four rays of a pixel go to the four quarters of a lamp
        quarter = np.indices((2 * size, 2 * size)).reshape(2, -1) % 2
        for lamp in self.lamps:
            u, v = quarter + draw.random((2, n), dtype=np.float32) - 1
            at, du, dv, shine = (x.astype(np.float32) for x in (lamp.at, lamp.u, lamp.v, lamp.colour))
            towards = (at - origin) + u[:, None].astype(np.float32) * du + v[:, None].astype(np.float32) * dv
            square = np.einsum("rk,rk->r", towards, towards)
            lambert = np.maximum(np.einsum("rk,rk->r", towards, normal), 0) / np.sqrt(square) / (0.5 + square)
            lit = np.flatnonzero(lambert)
            lambert[lit] *= ~self.blocked(origin[lit], np.float32(0.995) * towards[lit])
            bright += lambert[:, None] * shine
        bright[self.glow[face]] = 2
        light = (colour * bright).reshape(size, 2, size, 2, 3).mean((1, 3))
        # the camera's own exposure: a mean grey
        return film.developed(light * np.clip(0.22 / max(float(light.mean()), 1e-6), 0.2, 8), draw)


def furnish(domain: Domain, models: Stock, mains: Sequence[int], draw: np.random.Generator) -> Room | None:
    """A random room. mains: indices of props that must be in it, the n-th for the n-th image; None if one is not."""
    found = arranged(domain, models, mains, draw)
    return None if found is None else Room(domain, models, *found, draw)
