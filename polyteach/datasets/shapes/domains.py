"""What each domain of the rendered world of shapes looks like, and what it is for."""

from dataclasses import dataclass, replace

from polyteach.datasets._raycast import Pair
from polyteach.datasets.shapes.solids import COMPOUNDS, PRIMITIVES
from polyteach.datasets.shapes.textures import TEXTURES


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
    centric: float = 0
    resting: float = 0.5
    tilt: Pair = (0, 40)
    pitch: Pair = (15, 50)
    roll: float = 25
    walls: tuple[int, int] = (0, 1)
    colour: Pair = (0.1, 0.9)
    plain: float = 0.6
    contrast: Pair = (0.1, 0.5)
    lights: tuple[int, int] = (1, 3)
    tint: float = 0.2
    ambient: Pair = (0.2, 0.4)
    shadows: float = 0.5
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
    # four teachers: other shapes, surfaces, lights and cameras, which overlap; few classes each, since 1,000 images
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
