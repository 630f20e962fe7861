"""Models, ready for a room, and who gets which.

Shapes: F faces, V vertices, M materials.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from polyteach.datasets.rooms.catalogue import Piece, catalogue
from polyteach.datasets.rooms.kinds import CLASSES, kind
from polyteach.datasets.rooms.meshes import Model, models
from polyteach.datasets.rooms.textures import SURFACE, Paper, papers


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
    elevation: float
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


def is_small(one: Prop) -> bool:
    """Whether it can stand on other things."""
    return bool(one.size.max() < 0.7 and one.elevation < 0.3)


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
        fits = [(i, p.kind) for i, p in enumerate(self.props) if small is None or is_small(p) == small]
        found = [[i for i, kind in fits if kind in kinds] for kinds in names.values()]
        return [here for here in found if here]


ROUND = "DCPBDRDZPDCBDRPDCBDRPDZPD"
"""Turns in which models are dealt: 9 of 25 to Downstream, 5 to the Pool, 3 each to the teachers of Classes, Boxes and
Regions, 2 to that of depth (Z)."""

TURNS = {"D": "down", "P": "pool", "C": "teach-classes", "B": "teach-boxes", "R": "teach-regions", "Z": "teach-depth"}

DOWN_ROUND = ("train", "test", "train", "val", "test", "train", "train", "test", "val", "train")
"""And the downstream models of a kind to its splits: 50, 20 and 30 %."""


def shared(pieces: Sequence[Piece]) -> dict[str, list[int]]:
    """Who gets which of the pieces: by group ("teach-classes", "pool", "down/test", ...), indices into `pieces`.

    Within a class of `CLASSES`, kind by kind, pieces are sorted by a hash of their ids and dealt in turns; those of
    one kind and one size (to the centimetre), which may be the same thing in other colours, go together. More
    furniture may change who gets what; nothing else does.
    """
    named = [(kind(p.name), p) for p in pieces]
    groups: dict[str, list[int]] = {g: [] for g in TURNS.values() if g != "down"}
    groups |= {f"down/{split}": [] for split in ("train", "test", "val")}
    for kinds in CLASSES.values():
        turn = 0
        for one in kinds:
            alike: dict[tuple[int, ...], list[int]] = {}
            for i, (k, piece) in enumerate(named):
                if k == one:
                    alike.setdefault(tuple(round(100 * x) for x in piece.size), []).append(i)
            down = 0
            for family in sorted(alike.values(), key=lambda f: min(_hash(pieces[i].id) for i in f)):
                group = TURNS[ROUND[turn % len(ROUND)]]
                turn += 1
                if group == "down":
                    group = f"down/{DOWN_ROUND[down % len(DOWN_ROUND)]}"
                    down += 1
                groups[group] += family
    return groups


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=4)
def pieces_of(furniture: str) -> tuple[list[Piece], dict[str, list[int]]]:
    """The pieces that can be used, and who gets which."""
    pieces = [p for p in catalogue(furniture) if kind(p.name)]
    usable = [p for p, m in zip(pieces, models(pieces), strict=True) if m is not None]
    return usable, shared(usable)


@lru_cache(maxsize=8)
def stock(furniture: str, group: str) -> Stock:
    """The models of a group: "pool", "teach-depth", "down/val", ..."""
    pieces, groups = pieces_of(furniture)
    mine = [pieces[i] for i in groups[group]]
    textures: list[np.ndarray] = []
    props = []
    for piece, model in zip(mine, models(mine), strict=True):
        assert model is not None  # _catalogue left those out
        props.append(prop(piece, model, kind(piece.name), 1 + len(SURFACE) + len(textures)))
        textures += [*model.textures]
    return Stock(tuple(props), papers(textures))
