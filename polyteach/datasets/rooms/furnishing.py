"""Furnishing: which props stand where in a random room.

A room is centred on x = z = 0 with its floor on y = 0, and y points up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polyteach.datasets.rooms.domains import Domain
from polyteach.datasets.rooms.props import Prop, Stock, is_small

GAP = 0.03
"""Metres between things."""


@dataclass(frozen=True)
class Placed:
    """A prop in a room. at: its base's centre. turn: radians about y. low, high: corners of its box, axes parallel.

    on: index of what it stands on, or None. main: number of the image that is about it, or None.
    """

    prop: Prop
    at: np.ndarray
    turn: float
    low: np.ndarray
    high: np.ndarray
    on: int | None = None
    main: int | None = None


def arranged(
    domain: Domain, models: Stock, mains: Sequence[int], draw: np.random.Generator
) -> tuple[np.ndarray, list[Placed]] | None:
    """The size (3,) of a random room, and the props in it.

    mains: indices of props that must be in it, the n-th for the n-th image; None if one is not.
    """
    side = draw.uniform(*domain.room, 2)
    box = np.array([side[0], draw.uniform(2.3, 3.2), side[1]])
    placed: list[Placed] = []
    large = int(draw.integers(domain.objects[0], domain.objects[1] + 1))
    small = int(draw.integers(domain.things[0], domain.things[1] + 1))
    wanted: list[tuple[Prop, int | None]] = [(models.props[i], k) for k, i in enumerate(mains)]
    wanted += [(models.props[i], None) for i in _chosen(domain, models, large, False, draw)]
    tops = [p for p in models.props if p.flat_top]
    if tops and any(is_small(p) for p, _ in wanted) and draw.uniform() < 0.8:
        wanted.append((tops[int(draw.integers(len(tops)))], None))
    wanted += [(models.props[i], None) for i in _chosen(domain, models, small, True, draw)]
    for one, main in sorted(wanted, key=lambda w: (is_small(w[0]), w[1] is None)):
        found = _place(one, main, placed, box, draw)
        if found is not None:
            placed.append(found)
        elif main is not None:
            return None
    if not placed:
        return None
    return box, placed


def mains(domain: Domain, models: Stock, count: int, draw: np.random.Generator) -> list[int]:
    """Props, of each name as often."""
    lists = models.lists(domain.names)
    out = []
    for _ in range(count):
        of = lists[int(draw.integers(len(lists)))]
        out.append(of[int(draw.integers(len(of)))])
    return out


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
    up = is_small(one) and tops and draw.uniform() < 0.75
    for _ in range(24):
        turn, on, y = float(draw.uniform(0, 2 * np.pi)), None, 0.0
        room = box / 2
        if up:
            on = int(draw.choice(tops))
            below = placed[on]
            spot = below.at + about(below.turn) @ (draw.uniform(-0.36, 0.36, 3) * below.prop.size)
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


def about(turn: float) -> np.ndarray:
    """A rotation (3, 3) about y that takes +z to (sin, 0, cos)."""
    s, c = np.sin(turn), np.cos(turn)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _half(one: Prop, turn: float) -> np.ndarray:
    """Half the size of the box around a turned prop."""
    out: np.ndarray = np.abs(about(turn)) @ one.size / 2
    return out
