"""Random cameras in a room, and whether what one sees is worth an image."""

import numpy as np

from polyteach.datasets._raycast import rays
from polyteach.datasets.rooms.furnishing import about
from polyteach.datasets.rooms.room import Camera, Room, aimed
from polyteach.ground.scene import WALL

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
    corners = (np.indices((2, 2, 2)).reshape(3, -1).T - 0.5) * size @ about(p.turn).T
    looks = aimed(away, np.zeros(3), roll, angle).axes
    wide = np.tan(np.radians(angle) / 2) * draw.uniform(0.65, 1.05)
    distance = float((np.abs(corners @ looks[:, :2]).max(1) / wide - corners @ looks[:, 2]).max())
    nearest = NEAR + float(-(corners @ looks[:, 2]).min())
    at = centre + max(distance, nearest) * away
    if (np.abs(at)[::2] > half[::2] - 0.1).any() or not 0.08 < at[1] < room.box[1] - 0.08:
        return None
    return aimed(at, centre + draw.normal(0, 0.05, 3) * size.max(), roll, angle)


def shows(room: Room, camera: Camera, main: int | None) -> bool:
    """Whether the image shows what it is about, the object in the middle or some objects, and nothing too near."""
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
