"""What each domain of rendered rooms looks like, and what it is for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from polyteach.datasets._raycast import Pair
from polyteach.datasets.rooms.kinds import GROUPS, PIECES, REGIONS, SORTS, THINGS, USES
from polyteach.datasets.rooms.textures import SURFACE


@dataclass(frozen=True)
class Domain:
    """What a world looks like, and what it is for. Pairs are the least and the most.

    task: its own. group: whose models. names: what it names, each with its kinds. centric: share of the rooms whose
    images are about one object each. objects: large ones, beside those; things: small ones. room: metres of a side.

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
    centric: float = 0
    objects: tuple[int, int] = (4, 8)
    things: tuple[int, int] = (2, 6)
    room: Pair = (3, 6)
    own: float = 0.25
    papered: float = 0.35
    plain: float = 0.3
    colour: Pair = (0.0, 0.8)
    photographs: float = 0.4
    lamps: tuple[int, int] = (1, 3)
    tint: float = 0.2
    ambient: Pair = (0.3, 0.6)
    angle: Pair = (50, 70)
    height: Pair = (0.5, 2.2)
    roll: float = 12
    exposure: Pair = (0.8, 1.25)
    blur: Pair = (0.0, 0.2)
    noise: Pair = (0, 5)
    by_part: bool = False


_BUILT = tuple(SURFACE)
_DOWN = Domain(
    "", "down", THINGS, ("tiles", "slates", "bricks", "marble", "weave", "terrazzo", "dots", "clouds"), own=0.35,
    colour=(0.1, 0.6), photographs=0.5, lamps=(1, 3), tint=0.4, ambient=(0.2, 0.45), angle=(42, 62), roll=18,
    exposure=(0.7, 1.1), blur=(0.1, 0.4), noise=(2, 7)
)  # fmt: skip

_FULL = replace(_DOWN, objects=(5, 9), room=(2.6, 4.2))

DOMAINS: dict[str, Domain] = {
    # four teachers: other models, surfaces, lights and cameras, which overlap
    "teach-classes": Domain(
        "classification", "teach-classes", SORTS, ("plaster", "planks", "stripes"), centric=1, objects=(1, 4), tint=0.1,
        angle=(45, 55), noise=(0, 3)
    ),
    "teach-boxes": Domain(
        "detection", "teach-boxes", GROUPS, ("plaster", "parquet", "carpet", "damask"), objects=(3, 6), room=(2.6, 4.2),
        lamps=(1, 1), ambient=(0.2, 0.4), colour=(0, 0.5), noise=(3, 8)
    ),
    "teach-regions": Domain(
        "segmentation", "teach-regions", REGIONS, ("concrete", "checker", "planks", "carpet"), objects=(5, 9),
        room=(2.6, 4.2), lamps=(1, 3), ambient=(0.5, 0.8), colour=(0.2, 1)
    ),
    "teach-depth": Domain(
        "depth", "teach-depth", {}, ("plaster", "parquet", "concrete", "stripes"), objects=(5, 10), room=(3, 9),
        angle=(60, 80), tint=0.4, exposure=(0.6, 1.0), height=(0.3, 2.4), roll=20
    ),
    "pool": Domain(
        "classification", "pool", {}, _BUILT, centric=0.5, objects=(3, 9), room=(2.6, 7), own=0.3, colour=(0, 1),
        lamps=(1, 3), tint=0.4, ambient=(0.2, 0.8), angle=(42, 80), height=(0.3, 2.4), roll=20, exposure=(0.6, 1.3),
        blur=(0, 0.4), noise=(0, 9)
    ),
    "down-classes": replace(_DOWN, task="classification", centric=1, objects=(1, 4)),
    "down-boxes": replace(_FULL, task="detection", names=PIECES, objects=(3, 6)),
    "down-regions": replace(_FULL, task="segmentation", names=USES, ambient=(0.35, 0.6)),
    "down-parts": replace(_DOWN, task="segmentation", centric=1, objects=(0, 3), by_part=True),
    "down-depth": replace(_DOWN, task="depth", objects=(5, 9), angle=(50, 75), room=(3, 8), height=(0.4, 2.3)),
    "down-normals": replace(_FULL, task="normals", noise=(4, 9)),
}  # fmt: skip
