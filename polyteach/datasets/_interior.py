"""A furnished room before a camera: surfaces, furnishing, lamps, and the picture with everything that is true of it.

What is in it and how it looks comes from a `Domain`; the models from a `Stock`. See rooms.py.

A room is centred on x = z = 0 with its floor on y = 0, and y points up. The camera's coordinates, in which depth and
normals are, are those of `_raycast`: x right, y down, z away.

Shapes: h w pixels, F faces, V vertices, R rays, M materials, T textures.
"""

import colorsys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from polyteach.datasets._furniture import TEXTURE, Model, Piece
from polyteach.datasets._raycast import Film, Meshes, Pair, facing, rays
from polyteach.scene import WALL, Render

SURFACES = ("floor", "wall", "ceiling")
"""The room itself: pictures on a wall, windows and rugs are part of these."""

PARTS = ("background", "top", "underside", "foot", "middle", "crown")
"""The second space of regions: an object's faces that look up or down, and of the others the lowest quarter of its
height, the middle and the highest quarter."""

# ---------------------------------------------------------------------------------------------------------------------
# Textures

_SIDES = [TEXTURE >> k for k in range(TEXTURE.bit_length())]
_FIRST = np.cumsum([0, *(s * s for s in _SIDES)])
"""Where each of a texture's levels, each half as wide as the one before, starts in `Paper.pixels`."""

_LINEAR = ((np.arange(256) / 255) ** 1.8).astype(np.float32)
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
    light = _LINEAR[pixels[:, : TEXTURE**2, :3]].mean(2)
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


def _tiled(
    draw: np.random.Generator, rows: int, columns: int, shift: float | int, joint: int, spread: int | float
) -> np.ndarray:
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


def _waves(draw: np.random.Generator, x: int, y: int, wobble: int | float) -> np.ndarray:
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


# ---------------------------------------------------------------------------------------------------------------------
# Models, ready for a room


@dataclass(frozen=True)
class Prop:
    """A model that can be put into a room: on y = 0, its front to +z.

    vertices: (V, 3) metres. uv: (F, 3, 2). flat: the same, in metres, as wallpaper would lie on
    it. density: (F,) texture widths a metre of uv. colour: (M, 3) linear. texture: (M,) index into the stock's paper,
    0 for none. size: x, y, z. flat_top: whether things can be put on it.
    """

    id: str
    kind: str
    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    flat: np.ndarray
    density: np.ndarray
    material: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    size: np.ndarray
    elevation: int | float
    flat_top: bool


SMALLEST, LARGEST, TOY = 0.15, 3.0, 0.6
"""Metres. What is smaller is enlarged, and what is larger made smaller, so that all can be seen in a room; cars, huts
and trees stand there as toys and saplings."""

_TOYS = {"car": TOY, "game": 1.6, "tree": 1.8}


def prop(piece: Piece, model: Model, kind: str, first: int) -> Prop:
    """first: index of the model's first texture in the paper."""
    largest = max(piece.size)
    most = _TOYS.get(kind, LARGEST)
    scale = np.float32(max(min(1, most / largest), SMALLEST / largest))
    vertices = model.vertices * scale
    corner = vertices[model.faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    double = np.linalg.norm(normal, axis=1)
    # the two axes that lie most in the face
    axis = np.abs(normal).argmax(1)
    pairs = np.array([[2, 1], [0, 2], [0, 1]])[axis]
    flat = np.take_along_axis(corner, pairs[:, None, :].repeat(3, 1), 2)
    (a, b), (c, d) = (model.uv[:, 1] - model.uv[:, 0]).T, (model.uv[:, 2] - model.uv[:, 0]).T
    density = np.sqrt(np.abs(a * d - b * c) / np.maximum(double, 1e-12)).clip(0.01, 1e4)
    high = piece.size[1] * scale
    level = (np.abs(normal[:, 1]) > 0.9 * double) & (corner[:, :, 1].mean(1) > high - 0.04)
    footprint = piece.size[0] * piece.size[2] * scale**2
    return Prop(
        id=piece.id,
        kind=kind,
        vertices=vertices,
        faces=model.faces,
        uv=model.uv,
        flat=flat,
        density=density.astype(np.float32),
        material=model.material,
        colour=np.power(model.colour, 1.8).astype(np.float32),
        texture=np.where(model.texture >= 0, model.texture + first, 0),
        size=np.array(piece.size) * scale,
        elevation=piece.elevation,
        flat_top=bool(double[level].sum() / 2 > 0.5 * footprint) and bool(0.3 < high < 1.4),
    )


@dataclass(frozen=True)
class Stock:
    """The models of one group, and the textures."""

    props: tuple[Prop, ...]
    paper: Paper

    @property
    def kinds(self) -> dict[str, tuple[str, ...]]:
        """Every kind that there is, as a name of its own."""
        return {k: (k,) for k in sorted({p.kind for p in self.props})}

    def lists(self, names: Mapping[str, tuple[str, ...]], small: bool | None = None) -> list[list[int]]:
        """For each name that has any, indices of its props; of small or large ones only."""
        fits = [(i, p.kind) for i, p in enumerate(self.props) if small is None or _is_small(p) == small]
        found = [[i for i, kind in fits if kind in kinds] for kinds in names.values()]
        return [here for here in found if here]


# ---------------------------------------------------------------------------------------------------------------------
# Domains


@dataclass(frozen=True)
class Domain:
    """What a world looks like, and what it is for. Pairs are the least and the most.

    task: its own. group: whose models. names: what it names, each with its kinds. centric: share of the rooms whose
    pictures are about one object each. objects: large ones, beside those; things: small ones. room: metres of a side.

    own: share of the materials that look as they came. papered: share of the others that get some texture. plain: share
    of the walls, floors and papered materials that are of one colour after all. colour: saturation. surfaces: made
    textures of walls, floors and things. photographs: share of the walls and floors that get one of the models'
    textures. lamps: how many. tint: how coloured they are, 0..1. ambient: light from
    everywhere. angle: of the camera's field of view, degrees. height: of the camera above the floor, metres. roll:
    degrees, to either side. exposure, blur, noise: as in `Film`.

    by_part: regions are parts of objects, not their kinds.
    """

    task: str
    group: str
    names: Mapping[str, tuple[str, ...]]
    surfaces: tuple[str, ...]
    centric: float | int = 0
    objects: tuple[int, int] = (4, 8)
    things: tuple[int, int] = (2, 6)
    room: Pair = (3, 6)
    own: int | float = 0.25
    papered: int | float = 0.35
    plain: int | float = 0.3
    colour: Pair = (0.0, 0.8)
    photographs: int | float = 0.4
    lamps: tuple[int, int] = (1, 3)
    tint: int | float = 0.2
    ambient: Pair = (0.3, 0.6)
    angle: Pair = (50, 70)
    height: Pair = (0.5, 2.2)
    roll: float | int = 12
    exposure: Pair = (0.8, 1.25)
    blur: Pair = (0.0, 0.2)
    noise: Pair = (0, 5)
    by_part: bool = False


# ---------------------------------------------------------------------------------------------------------------------
# Furnishing

GAP = 0.03
"""Metres between things."""


@dataclass(frozen=True)
class Placed:
    """A prop in a room. at: its base's centre. turn: radians about y. low, high: corners of its box, axes parallel.

    on: index of what it stands on, or None. main: number of the picture that is about it, or None.
    """

    prop: Prop
    at: np.ndarray
    turn: int | float
    low: np.ndarray
    high: np.ndarray
    on: int | None = None
    main: int | None = None


@dataclass(frozen=True)
class Lamp:
    """A lit square. at: its centre. u, v: (3,) its half axes. colour: (3,) its light at a metre, squarely."""

    at: np.ndarray
    u: np.ndarray
    v: np.ndarray
    colour: np.ndarray


def furnish(domain: Domain, models: Stock, mains: Sequence[int], draw: np.random.Generator) -> "Room | None":
    """A random room. mains: indices of props that must be in it, the n-th for the n-th picture; None if one is not."""
    side = draw.uniform(*domain.room, 2)
    box = np.array([side[0], draw.uniform(2.3, 3.2), side[1]])
    placed: list[Placed] = []
    large = int(draw.integers(domain.objects[0], domain.objects[1] + 1))
    small = int(draw.integers(domain.things[0], domain.things[1] + 1))
    wanted: list[tuple[Prop, int | None]] = [(models.props[i], k) for k, i in enumerate(mains)]
    wanted += [(models.props[i], None) for i in _chosen(domain, models, large, False, draw)]
    tops = [p for p in models.props if p.flat_top]
    if tops and any(_is_small(p) for p, _ in wanted) and draw.uniform() < 0.8:
        wanted.append((tops[int(draw.integers(len(tops)))], None))
    wanted += [(models.props[i], None) for i in _chosen(domain, models, small, True, draw)]
    for one, main in sorted(wanted, key=lambda w: (_is_small(w[0]), w[1] is None)):
        found = _place(one, main, placed, box, draw)
        if found is not None:
            placed.append(found)
        elif main is not None:
            return None
    if not placed:
        return None
    return Room(domain, models, box, placed, draw)


def mains(domain: Domain, models: Stock, count: int, draw: np.random.Generator) -> list[int]:
    """Props, of each name as often."""
    lists = models.lists(domain.names)
    out = []
    for _ in range(count):
        of = lists[int(draw.integers(len(lists)))]
        out.append(of[int(draw.integers(len(of)))])
    return out


def _is_small(one: Prop) -> bool:
    return bool(one.size.max() < 0.7 and one.elevation < 0.3)


def _chosen(domain: Domain, models: Stock, count: int, small: bool, draw: np.random.Generator) -> list[int]:
    """Props, of what the domain names three times in four, each name as often."""
    by_name, by_kind = models.lists(domain.names, small), models.lists(models.kinds, small)
    out: list[int] = []
    for _ in range(count if by_kind else 0):
        lists = by_name if by_name and draw.uniform() < 0.75 else by_kind
        of = lists[int(draw.integers(len(lists)))]
        out.append(of[int(draw.integers(len(of)))])
    return out


def _place(
    one: Prop, main: int | None, placed: Sequence[Placed], box: np.ndarray, draw: np.random.Generator
) -> Placed | None:
    """Somewhere free: on something, at the ceiling, at a wall, or on the floor. None: no room for it."""
    tops = [k for k, p in enumerate(placed) if p.prop.flat_top and p.on is None]
    up = _is_small(one) and tops and draw.uniform() < 0.75
    for _ in range(24):
        turn, on, y = float(draw.uniform(0, 2 * np.pi)), None, 0.0
        room = box / 2
        if up:
            on = int(draw.choice(tops))
            below = placed[on]
            spot = below.at + _about(below.turn) @ (draw.uniform(-0.36, 0.36, 3) * below.prop.size)
            y = float(below.high[1])
        elif one.elevation > 1.5 and one.kind in ("hanging lamp", "lamp", "fan") and one.size[1] < box[1] - 0.4:
            spot = draw.uniform(-0.8, 0.8, 3) * room
            y = float(box[1] - one.size[1])
        elif one.elevation > 0.3 or draw.uniform() < 0.45:
            wall = int(draw.integers(4))
            turn = wall * np.pi / 2
            half = _half(one, turn)
            spot = draw.uniform(-1, 1, 3) * (room - half - GAP)
            # its back to the wall
            axis, sign = ((2, -1), (0, -1), (2, 1), (0, 1))[wall]
            spot[axis] = sign * (room[axis] - half[axis] - 0.01)
            y = min(one.elevation, max(float(box[1] - one.size[1] - 0.05), 0)) if one.elevation > 0.3 else 0.0
        else:
            spot = draw.uniform(-1, 1, 3) * (room - _half(one, turn) - GAP)
        half = _half(one, turn)
        at = np.array([spot[0], y, spot[2]])
        low, high = at - half * (1, 0, 1), at + half * (1, 2, 1)
        if (np.abs(np.stack([low, high])[:, ::2]) > room[::2]).any() or high[1] > box[1] + 1e-6:
            continue
        if all((low + GAP > p.high).any() or (high - GAP < p.low).any() for k, p in enumerate(placed) if k != on):
            return Placed(one, at, turn, low, high, on, main)
    return None


def _about(turn: int | float) -> np.ndarray:
    """A rotation (3, 3) about y that takes +z to (sin, 0, cos)."""
    s, c = np.sin(turn), np.cos(turn)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _half(one: Prop, turn: int | float) -> np.ndarray:
    """Half the size of the box around a turned prop."""
    out: np.ndarray = np.abs(_about(turn)) @ one.size / 2
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Surfaces


@dataclass(frozen=True)
class Coat:
    """How a material is painted. texture: index into the paper. grey: of the texture only the brightness. flat: as
    wallpaper, `repeats` a metre, whatever the model's own uv is. colour: (3,) linear."""

    texture: int
    colour: np.ndarray
    grey: bool = False
    flat: bool = True
    repeats: int | float = 1.0


def _colour(domain: Domain, draw: np.random.Generator, value: Pair = (0.25, 0.95), calm: int | float = 1) -> np.ndarray:
    saturation = calm * draw.uniform(*domain.colour)
    return np.power(colorsys.hsv_to_rgb(draw.uniform(), saturation, draw.uniform(*value)), 1.8)


def _coat(domain: Domain, paper: Paper, draw: np.random.Generator, photographs: int | float, value: Pair) -> Coat:
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


# ---------------------------------------------------------------------------------------------------------------------
# The room and its camera


@dataclass(frozen=True)
class Camera:
    """at: (3,) in the room. axes: (3, 3), its columns are right, down and away. angle: of view, degrees."""

    at: np.ndarray
    axes: np.ndarray
    angle: int | float


def aimed(at: np.ndarray, target: np.ndarray, roll: float | int, angle: float | int) -> Camera:
    """A camera at `at` that looks at `target`, rolled by degrees."""
    away = (target - at) / np.linalg.norm(target - at)
    right = np.cross(away, [0, 1, 0])
    right /= np.linalg.norm(right)
    down = np.cross(away, right)
    s, c = np.sin(np.radians(roll)), np.cos(np.radians(roll))
    return Camera(at, np.stack([c * right + s * down, c * down - s * right, away], 1), float(angle))


@dataclass(frozen=True)
class Shot:
    """A picture of a room. surface: (h, w) index into SURFACES, or 3 for an object. part: (h, w) index into PARTS.

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

            def at(point: np.ndarray, grown: int | float = grown, middle: np.ndarray = middle) -> np.ndarray:
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
        vertices = one.vertices @ _about(p.turn).T.astype(np.float32) + p.at.astype(np.float32)
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
        """The picture, and everything about it."""
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
            rgba[todo] = self.paper.look(self.texture[f], at, np.minimum(level, len(_SIDES) - 1))
            hole = rgba[todo, 3] < 128
            start[todo] = away + 1e-4
            todo = todo[hole]
            if not len(todo):
                break
        return directions, {"face": face, "z": z, "rgba": rgba}

    def photograph(self, camera: Camera, size: int, film: Film, draw: np.random.Generator) -> np.ndarray:
        """The picture (h, w, 3) uint8, four rays a pixel, each to a place of its own on one of the lamps."""
        directions, hit = self._look(camera, size, 2)
        face, n = hit["face"], len(directions)
        point = camera.at.astype(np.float32) + directions * hit["z"][:, None]
        normal = facing(self.normal[face], directions)
        origin = point + 2e-3 * normal
        colour = _LINEAR[hit["rgba"][:, :3]]
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


# ---------------------------------------------------------------------------------------------------------------------
# Cameras

NEAR = 0.12
"""Metres that are kept free before the camera."""


def camera_for(room: Room, main: int | None, draw: np.random.Generator) -> Camera | None:
    """A random one; None: outside of the room."""
    domain = room.domain
    angle = float(draw.uniform(*domain.angle))
    roll = float(draw.uniform(-domain.roll, domain.roll))
    half = room.box / 2
    if main is None:
        at = draw.uniform(-1, 1, 3)
        if draw.uniform() < 0.6:
            at = np.sign(at) * np.abs(at) ** 0.3  # near walls and corners one sees more
        at *= half - 0.25
        at[1] = min(draw.uniform(*domain.height), room.box[1] - 0.15)
        p = room.placed[int(draw.integers(len(room.placed)))]
        target = (p.low + p.high) / 2 + draw.normal(0, 0.3, 3)
        if np.hypot(*(target - at)[::2]) < 0.3:
            return None
        return aimed(at, target, roll, angle)
    p = room.placed[main]
    size = p.prop.size
    centre = (p.low + p.high) / 2
    thin = size[1] < 0.15 * size[[0, 2]].max()
    hangs = p.low[1] > 1.2
    least, most = (35, 80) if thin else (-50, 10) if hangs else (-5, 60)
    lift = np.radians(draw.uniform(least, most))
    # from before it rather than from behind
    side = p.turn + (draw.normal(0, 0.8) if draw.uniform() < 0.7 else draw.uniform(0, 2 * np.pi))
    away = np.array([np.cos(lift) * np.sin(side), np.sin(lift), np.cos(lift) * np.cos(side)])
    # as far as makes its box, seen from there, fill that share of the view
    corners = (np.indices((2, 2, 2)).reshape(3, -1).T - 0.5) * size @ _about(p.turn).T
    looks = aimed(away, np.zeros(3), roll, angle).axes
    wide = np.tan(np.radians(angle) / 2) * draw.uniform(0.65, 1.05)
    distance = float((np.abs(corners @ looks[:, :2]).max(1) / wide - corners @ looks[:, 2]).max())
    nearest = NEAR + float(-(corners @ looks[:, 2]).min())
    at = centre + max(distance, nearest) * away
    if (np.abs(at)[::2] > half[::2] - 0.1).any() or not 0.08 < at[1] < room.box[1] - 0.08:
        return None
    return aimed(at, centre + draw.normal(0, 0.05, 3) * size.max(), roll, angle)


def shows(room: Room, camera: Camera, main: int | None) -> bool:
    """Whether the picture shows what it is about, the object in the middle or some objects, and nothing too near."""
    side = 20
    face, z = room.cast(
        np.broadcast_to(camera.at.astype(np.float32), (side * side, 3)),
        (rays(side, camera.angle) @ camera.axes.T).astype(np.float32),
    )
    if (face < 0).any() or z.min() < NEAR:
        return False
    instance = room.instance[face]
    pixels = np.bincount(instance[instance != WALL], minlength=len(room.placed)) / side**2
    if main is None:
        return bool(pixels.sum() > 0.12 and (pixels > 0.01).sum() >= 2 and pixels.max() < 0.7)
    others = pixels.copy()
    others[main] = 0
    on = room.placed[main].on
    if on is not None:
        others[on] *= 0.4
    return bool(pixels[main] >= 0.045 and pixels[main] > others.max())
