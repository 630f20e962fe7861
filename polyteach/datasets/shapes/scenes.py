"""Random scenes of a domain: objects, planes, lights and a camera."""

import colorsys
from dataclasses import replace

import numpy as np

from polyteach.datasets._raycast import Film, Pair, View, rays
from polyteach.datasets.shapes.domains import Domain
from polyteach.datasets.shapes.textures import Skin
from polyteach.datasets.shapes.world import Light, Thing, World, plane, solid
from polyteach.ground.scene import WALL

_TRIES = 200
NEAR = 1.2
"""Metres that are kept free before the camera."""


def view(domain: Domain, draw: np.random.Generator, size: int) -> View:
    """One random image of a world, `size` x `size` pixels."""
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


def _shows(world: World, angle: float, centric: bool) -> bool:
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


def _leaning(draw: np.random.Generator, least: float, most: float) -> np.ndarray:
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


def _wall(draw: np.random.Generator, up: np.ndarray, turn: float) -> np.ndarray:
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


def _skin(draw: np.random.Generator, domain: Domain, periods: Pair, plain: float) -> Skin:
    """A random surface. periods: per metre, or per unit of a shape. plain: how often it has no texture."""

    def colour() -> np.ndarray:
        return np.array(colorsys.hsv_to_rgb(draw.uniform(), draw.uniform(*domain.colour), draw.uniform(0.2, 0.95)))

    axes = np.linalg.qr(draw.normal(size=(3, 3)))[0] * np.exp(draw.uniform(*np.log(periods)))
    low = colour()
    high = low + draw.uniform(*domain.contrast) * (colour() - low)
    texture = "plain" if draw.uniform() < plain else str(draw.choice(domain.textures))
    return Skin(texture, low, high, axes, draw.uniform(0, 16, 3))
