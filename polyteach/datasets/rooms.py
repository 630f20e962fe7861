"""Rooms: furnished rooms with exact classes, boxes, outlines, regions, depth and normals, like small photographs.

    rooms:DOMAIN?count=train:1000,val:200,test:300&seed=0&size=64&tasks=own&furniture=DIR&views=4&outlines=no

DOMAIN is one of `DOMAINS`: worlds for four teachers, a pool, and six downstream worlds. The furniture is that of
Debian's sweethome3d-furniture (docs/rooms.md says how to get it and under which licences); nothing of it is here.
An image follows from (domain, seed, split, number), its size, views and the furniture alone, so that more images later
leave the first as they are. Its bytes also depend on the versions of embreex, numpy and Pillow.

count: images by split, or one number, which makes the split "train". tasks: "own" (what the domain is for), "all" (the
exact truth of every task: an oracle), "none" (an unlabelled pool), or tasks by name: "depth,normals". furniture: the
folder of .sh3f files. views: how many pictures are taken of a room (picture n shows room n // views), since to furnish
one costs more than a picture. outlines: "yes" adds the objects' outlines to their boxes.

No model is in two groups: teachers, pool and downstream have furniture of their own (see `shared`), and downstream
train, val and test too. The splits of a teacher or of the pool share their models. Names come from the models' names
by a rule (`RULE`); a domain does not name what it has too few models of.

What must not give an answer away is drawn at random: most materials are painted anew, and the camera's height, pitch
and roll say little about the depth.

Labels: the class of a picture is that of the object in the middle, where the picture is about one; else that of the
largest object that has a name, or there is none. Boxes are around visible pixels of objects with a name; one that
shows next to none of them is ignored. Depth and normals are the meshes' own at the centre of each pixel; the picture is
the mean of four rays a pixel. Light: Lambert's, from lamps with an area and from everywhere that is not blocked.

Shapes: h w pixels, F faces, V vertices, R rays, M materials, T textures.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from polyteach.datasets import Dataset, options
from polyteach.datasets._furniture import Piece, catalogue, models
from polyteach.datasets._interior import (
    PARTS,
    SURFACE,
    SURFACES,
    Domain,
    Room,
    Shot,
    Stock,
    camera_for,
    furnish,
    mains,
    papers,
    prop,
    shows,
)
from polyteach.datasets._raycast import (
    Film,
    Rendered,
    answer,
    counted,
    number,
    packages,
    stream,
    tasks_named,
    with_outlines,
)
from polyteach.names import unknown_name
from polyteach.scene import WALL
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Space
from polyteach.tasks.segmentation import SegmentationTarget

PATHLESS = True
"""What stands after `rooms:` is no path."""

FURNITURE = "/usr/share/sweethome3d/furniture"
"""Where Debian's package puts it."""

# ---------------------------------------------------------------------------------------------------------------------
# Names

RULE: tuple[tuple[str, str], ...] = (
    # what does not stand in a room, or is so flat or fine that next to nothing is seen of it
    (
        "",
        r"plug|switch|socket|parking|^arrow|crossing|\brails?\b|railing|sidewalk|^bill |bell|speech unit|smoke|shutter",
    ),
    ("", r"\block$|pedestrian|fence|garden faucet|escalator|staircase|goal|pool$|tatami|\brug\b|carpet|mat$|^barnum"),
    ("", r"screen door|porch column|chimney|sign$|contemporary|basketball net|street light|intercom|container|^ring$"),
    ("", r"comb$|^(sun)?glasses$|keys|^ruler"),
    ("food", r"apples|bread$|butter$|cake|fries$|hamburger|hot dog|steak|roasted|sushi"),
    ("person", r"female|\bmale\b|\bboy\b|\bgirl\b"),
    ("animal", r"\bcat\b|\bdog$|bulldog|^horse|^chicken|rabbit|deer|teddy"),
    ("hanging lamp", r"ceiling lamp|hanging light|pendant|track|fluorescent|chandelier|wall (lamp|light|spot)"),
    ("hanging lamp", r"(porch|outdoor) (light|lamp)"),
    ("lamp", r"lamp|lantern|candle|park light|flashlight"),
    ("armchair", r"armchair|puff|ottoman"),
    ("sofa", r"sofa|couch"),
    ("stool", r"stool|bar chair|piano bench"),
    ("lounger", r"(deck|beach|relax) chair|lounge$|hammock"),
    ("cycle", r"wheelchair|stroller|cycle|\bbike\b|motorbike|scooter|skateboard|yamaha|barrow|mower"),
    ("desk", r"\bdesk\b|technical table|workbench"),
    ("game", r"table tennis$|football|pool table|flipper|abdominal|treadmill|fitness|punching|trampoline|swing|seesaw"),
    ("game", r"children game|sandpit|rocking horse|child hut|tent$|house$|garden hut"),
    ("bench", r"bench$|little bank|wood bank"),
    ("chair", r"chair|class seat"),
    ("car", r"sedan|peugeot|renault|\bsuv\b|seat leon|\bcar\b|beetle|\bvan\b|\bbus\b|truck|chevrolet|fork lift"),
    ("car", r"biplane|rowboat|toy train"),
    ("fan", r"\bfan\b"),
    ("bath", r"bathtub|island bath|jacuzzi|shower"),
    ("coffee table", r"coffee table|rattan table|children table"),
    ("stand", r"bedside|dressing table|changing table|tv stand|television cabinet"),
    ("toilet", r"toilets unit|urinal|bidet|potty"),
    ("tool", r"\bbat$|toilet brush"),
    ("table", r"\btable\b|^island"),
    ("bed", r"\bbed\b|\bcrib\b|futon|mattress|sleeping bag"),
    ("basin", r"washbasin|lavatory|vanity|^basin|^sink$|fountain"),
    ("shelf", r"bookcase|shelves$"),
    ("wardrobe", r"wardrobe|cupboard|clothes rack|locker|^screen$"),
    ("cabinet", r"cabinet|drawers|\bsafe\b|^chest$"),
    ("heater", r"radiator|heater|fireplace|furnace|air conditioning|boiler"),
    ("fridge", r"fridge|refrigerator|freezer|cooler|washing machine|dryer"),
    ("oven", r"oven|stove|cooktop|induction|\bhood\b|microwave"),
    ("kitchen machine", r"coffee (brewer|machine|maker|press)|toaster|mixer|blender|fryer|sandwich|cooker|squeezer"),
    ("kitchen machine", r"kettle|grill|scale$"),
    ("tree", r"tree|hedge|bush|cypress"),
    ("plant", r"plant|cactus|orchid|ficus|yucca|bamboo|tulip|lily|flower|acacia"),
    ("screen", r"\btv\b(?!.*remote)|imac|ibook|laptop|tablet|projector|white board|aquarium|printer|playstation|dvd"),
    ("sound", r"speaker|stereo|radio|mp3|headphones|guitar|piano|^keyboard|xylophone"),
    ("gadget", r"phone|camera|cctv|joystick|remote|watch|calendar|clock|thermometer"),
    ("cup", r"\bcup$|mug$|\bglass$|teapot"),
    ("bottle", r"bottle|flacon|milk|oil servers|soap|pot$|lip stick|sugar|salt|spice|jar$|creamer|pottery"),
    ("vase", r"vase"),
    ("dish", r"plate|bowl|\bpan\b|tray$"),
    ("cutlery", r"fork|knife|spoon|\btool\b|kitchen tools|chopping"),
    ("bin", r"dustbin|trash|bin$|basket$|barrel"),
    ("box", r"box$|crate$|trunck|gift|pallet|suitcase|briefcase"),
    ("clothes", r"shoes|slippers|sneakers|bootie|mocassin|\bcap\b|\bhat\b|helmet|dress$|jacket|skirt|short$|trousers"),
    ("clothes", r"suit$|glove|clothes|hanger|towel|handbag|backpack"),
    ("tool", r"\bsaw\b|hammer|drill|screwdriver|grinder|pliers|shovel|broom|brush|ladder|extinguisher|hose|\btape\b"),
    ("tool", r"scissors|stapler|hydrant|racket"),
    ("toy", r"ball$|puzzle|rubik|doll$|toy|rock$|snowman|cone$|umbrella|frame|book$"),
)
"""Kinds by what is found in a model's name, in small letters; the first line that fits counts. "" is left out."""

NONE = "thing"
"""The kind of what no line of the rule fits."""

KINDS = tuple(dict.fromkeys([k for k, _ in RULE if k] + [NONE]))

CLASSES: dict[str, tuple[str, ...]] = {
    "chair": ("chair", "stool", "bench", "lounger"),
    "sofa": ("sofa", "armchair"),
    "table": ("table", "desk", "coffee table"),
    "bed": ("bed",),
    "cabinet": ("cabinet", "shelf", "wardrobe", "stand"),
    "lamp": ("lamp", "hanging lamp"),
    "plant": ("plant", "tree"),
    "person": ("person",),
    "sanitary": ("toilet", "basin", "bath"),
    "appliance": ("fridge", "oven", "kitchen machine"),
    "electronics": ("screen", "sound", "gadget"),
    "dishes": ("bottle", "cup", "vase", "dish"),
    "tool": ("tool", "cutlery"),
    "clothes": ("clothes",),
    "vehicle": ("car", "cycle"),
    "container": ("box", "bin"),
    "other": ("heater", "game", "toy", "fan", "animal", "food", NONE),
}
"""What models are stratified by."""

SEATS = (*CLASSES["chair"], *CLASSES["sofa"], "bed")
LIVING = (*CLASSES["plant"], *CLASSES["person"], "animal")
MACHINES = (*CLASSES["appliance"], *CLASSES["electronics"], "heater", "fan")

SORTS: dict[str, tuple[str, ...]] = {
    "seat": SEATS,
    "table": CLASSES["table"],
    "storage": (*CLASSES["cabinet"], *CLASSES["container"]),
    "lamp": CLASSES["lamp"],
    "living": LIVING,
    "machine": MACHINES,
    "small thing": (*CLASSES["dishes"], *CLASSES["tool"], *CLASSES["clothes"], "food", "toy"),
    "vehicle": CLASSES["vehicle"],
}
"""What "teach-classes" names. Teachers name little: of sixteen classes one that learned from a thousand pictures got
42 % right in rooms like its own, and 16 % on the pool (docs/proof.md)."""

GROUPS: dict[str, tuple[str, ...]] = {
    "seating": SEATS,
    "tables": CLASSES["table"],
    "storage": (*CLASSES["cabinet"], *CLASSES["container"], "fridge", "oven"),
    "lighting": CLASSES["lamp"],
    "living": LIVING,
}
"""What "teach-boxes" names."""

REGIONS: dict[str, tuple[str, ...]] = {
    "seat": SEATS,
    "table": CLASSES["table"],
    "cabinet": CLASSES["cabinet"],
    "machine": (*MACHINES, *CLASSES["lamp"], *CLASSES["vehicle"]),
    "living": LIVING,
}
"""What "teach-regions" names."""

THINGS: dict[str, tuple[str, ...]] = {
    "seat": ("chair", "stool", "bench"),
    "soft seat": ("sofa", "armchair", "lounger"),
    "surface": ("table", "desk", "coffee table"),
    "bed": ("bed",),
    "storage": ("cabinet", "shelf", "wardrobe", "stand", "box", "bin"),
    "light": ("lamp", "hanging lamp"),
    "living": ("person", "plant", "tree", "animal"),
    "machine": ("fridge", "oven", "kitchen machine", "heater", "screen", "sound"),
    "vessel": ("bottle", "vase", "cup", "dish"),
    "vehicle": ("car", "cycle"),
}
"""What "down-classes" names."""

PIECES: dict[str, tuple[str, ...]] = {
    "to sit or lie on": (*THINGS["seat"], *THINGS["soft seat"], "bed"),
    "surface": (*THINGS["surface"], "stand"),
    "storage": ("cabinet", "shelf", "wardrobe", "box", "bin"),
    "light": THINGS["light"],
    "living": THINGS["living"],
}
"""What "down-boxes" names: of twenty names a small network learned none from 1,000 pictures (docs/proof.md)."""

USES: dict[str, tuple[str, ...]] = {
    "to sit or lie on": PIECES["to sit or lie on"],
    "holds things": (*PIECES["surface"], *PIECES["storage"], *THINGS["vessel"]),
    "works": ("fridge", "oven", "kitchen machine", "heater", "screen", "sound", "lamp", "hanging lamp", "fan"),
    "living": THINGS["living"],
}
"""What "down-regions" names."""

TEACHER, DOWN = 3, 6
"""Models that a teacher, or a downstream domain, must have of what it names; the latter some in every split."""


def kind(name: str) -> str:
    """What a model is, by its name; "" for what is left out."""
    return next((kind for kind, words in RULE if re.search(words, name.lower())), NONE)


# ---------------------------------------------------------------------------------------------------------------------
# Who gets which models

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
def _catalogue(furniture: str) -> tuple[list[Piece], dict[str, list[int]]]:
    """The pieces that can be used, and who gets which."""
    pieces = [p for p in catalogue(furniture) if kind(p.name)]
    usable = [p for p, m in zip(pieces, models(pieces), strict=True) if m is not None]
    return usable, shared(usable)


@lru_cache(maxsize=8)
def stock(furniture: str, group: str) -> Stock:
    """The models of a group: "pool", "teach-depth", "down/val", ..."""
    pieces, groups = _catalogue(furniture)
    mine = [pieces[i] for i in groups[group]]
    textures: list[np.ndarray] = []
    props = []
    for piece, model in zip(mine, models(mine), strict=True):
        assert model is not None  # _catalogue left those out
        props.append(prop(piece, model, kind(piece.name), 1 + len(SURFACE) + len(textures)))
        textures += [*model.textures]
    return Stock(tuple(props), papers(textures))


# ---------------------------------------------------------------------------------------------------------------------
# Domains

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


# ---------------------------------------------------------------------------------------------------------------------
# Labels

_WORLDS = {
    "teach": ("teach-classes", "teach-boxes", "teach-regions"),
    "down": ("down-classes", "down-boxes", "down-regions"),
}


def names(domain: str, furniture: str) -> dict[str, tuple[str, ...]]:
    """What a domain names, with the kinds of each: what it has models enough of.

    Raises:
        ValueError: there is not enough of anything.
    """
    asked = DOMAINS[domain]
    pieces, groups = _catalogue(furniture)
    counts = [
        Counter(kind(pieces[i].name) for i in held) for g, held in groups.items() if g.split("/")[0] == asked.group
    ]
    least = DOWN if asked.group == "down" else TEACHER
    found = {}
    for name, kinds in asked.names.items():
        held = [sum(count[k] for k in kinds) for count in counts]
        if min(held) > 0 and sum(held) >= least:
            found[name] = kinds
    if asked.names and not found:
        raise ValueError(
            f"rooms:{domain}: {furniture} has fewer than {least} models of each of {', '.join(asked.names)} for this "
            "domain; use Debian's whole sweethome3d-furniture"
        )
    return found


def vocabulary(task: str, domain: str, furniture: str) -> dict[str, tuple[str, ...]]:
    """The classes of a domain's labels for a task: of another domain where this one is not for that task.

    The pool's are those of the teachers.
    """
    if DOMAINS[domain].task == task and DOMAINS[domain].names and not DOMAINS[domain].by_part:
        return names(domain, furniture)
    classes, boxes, regions = _WORLDS["down" if domain.startswith("down-") else "teach"]
    of = {"classification": classes, "detection": boxes, "segmentation": regions}
    return names(of[task], furniture) if task in of else {}


def space(task: str, domain: str, furniture: str, outlines: bool = False) -> Space:
    """What a domain's labels for a task mean."""
    if task == "depth":
        return Space((), "metric")
    if task == "normals":
        return Space(())
    if task == "segmentation" and DOMAINS[domain].by_part:
        return Space(PARTS)
    known = tuple(vocabulary(task, domain, furniture))
    if task == "segmentation":
        return Space((*SURFACES, *known, "other"))
    if task == "detection":
        return Space(known, "boxes and masks" if outlines else "boxes")
    return Space(known)


def truth(task: str, shot: Shot, named: Mapping[str, tuple[str, ...]], space: Space) -> Any:
    """The exact answer to a task, or None: a picture without any object that has a name has no class."""
    r = shot.render
    index = {kind: k for k, kinds in enumerate(named.values()) for kind in kinds}
    category = torch.tensor([index.get(kind, -1) for kind in shot.kinds])
    if task == "segmentation":
        surface = torch.from_numpy(shot.surface.astype(np.int64))
        if space.names == PARTS:
            regions = torch.from_numpy(shot.part.astype(np.int64))
        else:
            of = torch.where(category < 0, len(named), category) + len(SURFACES)
            regions = torch.where(r.instance == WALL, surface, torch.cat([of, of.new_zeros(1)])[r.instance])
        return SegmentationTarget(category=regions, probability=torch.ones(regions.shape))
    if task in ("depth", "normals"):
        return answer(task, r, space)
    if task == "classification":
        pixels = torch.bincount(r.instance[r.instance != WALL], minlength=len(category)) * (category >= 0)
        main = int(pixels.argmax()) if shot.main is None else shot.main
        if not pixels[main]:
            return None
        probability = torch.zeros(len(space.names))
        probability[category[main]] = 1
        return ClassificationTarget(probability=probability)
    # objects without a name are as good as wall
    kept = torch.nonzero(category >= 0)[:, 0]
    new = torch.full((len(category) + 1,), WALL)
    new[kept] = torch.arange(len(kept))
    return answer(task, replace(r, instance=new[r.instance], category=category[kept]), space)


# ---------------------------------------------------------------------------------------------------------------------
# The dataset


_ROOMS, _PATIENCE, _CAMERAS = 60, 15, 40
"""Rooms that are tried before a domain is given up, or another object is taken; and cameras in each."""


class Rooms(Rendered):
    """Pictures of one domain, rendered when they are asked for: once, for the picture and its labels."""

    licence = "renders of models under CC0, CC-BY 3.0 and public domain: Debian's sweethome3d-furniture"

    def __init__(
        self, name: str, counts: dict[str, int], seed: int, size: int, spaces: dict[str, Space], furniture: str,
        views: int,
    ) -> None:  # fmt: skip
        super().__init__(name, counts, seed, size, spaces)
        self._furniture, self._views = furniture, views
        self._named = {task: vocabulary(task, name, furniture) for task in spaces}
        domain = DOMAINS[name]
        if domain.names or domain.centric:  # what rooms are furnished with: what has a name here
            domain = replace(domain, names=names(name, furniture) or vocabulary("classification", name, furniture))
        self._domain = domain
        self._held: tuple[tuple[str, int], dict[int, Room | None]] = ("", 0), {}

    def view(self, split: str, index: int) -> Shot:
        domain = self._domain
        for attempt in range(_ROOMS):
            room = self._room(split, index // self._views, attempt)
            if room is None:
                continue
            draw = stream(self._name, self._seed, split, index, self._views, attempt)
            main = next((k for k, p in enumerate(room.placed) if p.main == index % self._views), None)
            for _ in range(_CAMERAS):
                camera = camera_for(room, main, draw)
                if camera is not None and shows(room, camera, main):
                    film = Film(*(float(draw.uniform(*pair)) for pair in (domain.exposure, domain.blur, domain.noise)))
                    return room.see(camera, self._size, film, draw, main)
        raise RuntimeError(f"rooms:{self._name}: in {_ROOMS} rooms no camera shows enough")

    def _room(self, split: str, index: int, attempt: int) -> Room | None:
        """Those of the last index are kept: pictures are mostly asked for in their order."""
        if self._held[0] != (split, index):
            self._held = (split, index), {}
        held = self._held[1]
        if attempt not in held:
            domain, where = self._domain, (f"{self._name}/rooms", self._seed, split, index, self._views)
            models = stock(self._furniture, f"down/{split}" if domain.group == "down" else domain.group)
            # drawn before placing, and kept when a room is tried anew: what is hard to show is as frequent as the rest
            draw = stream(*where, attempt // _PATIENCE)
            about = mains(domain, models, self._views, draw) if draw.uniform() < domain.centric else []
            held[attempt] = furnish(domain, models, about, stream(*where, attempt // _PATIENCE, attempt))
        return held[attempt]

    def truth(self, task: str, seen: Shot) -> Any:
        return truth(task, seen, self._named[task], self.spaces[task])


def load(path: str) -> Dataset:
    """The domain that `path` names: DOMAIN?count=...&seed=...&size=...&tasks=...&furniture=...&views=...&outlines=...

    The furniture is read the first time, which takes a minute or two, and then kept in a cache folder.

    Raises:
        ValueError: an unknown domain or option, or a value that is none; lists what there is. A package or the
            furniture is missing.
    """
    packages("rooms", "embreex")
    defaults = {
        "count": "train:1000", "seed": "0", "size": "64", "tasks": "own", "furniture": FURNITURE, "views": "4",
        "outlines": "no",
    }  # fmt: skip
    name, given = options(path, defaults)
    where = f"rooms:{path}"
    if name not in DOMAINS:
        raise unknown_name("domain of rooms", name, list(DOMAINS))
    counts = counted(where, given["count"])
    if DOMAINS[name].group == "down" and (unknown := sorted(set(counts) - {"train", "val", "test"})):
        raise ValueError(
            f"{where}: count: a downstream domain's models are divided among train, val and test; got split "
            f"{unknown[0]!r}"
        )
    tasks = tasks_named(where, given["tasks"], DOMAINS[name].task)
    outlines = with_outlines(where, given["outlines"], tasks)
    furniture = os.path.abspath(os.path.expanduser(given["furniture"]))
    if not os.path.isdir(furniture):
        raise ValueError(
            f"{where}: furniture: {furniture} is no folder. Get it with `apt-get install sweethome3d-furniture`, or "
            "without root: `apt-get download sweethome3d-furniture; dpkg-deb -x sweethome3d-furniture_*.deb x`, and "
            "give furniture=x/usr/share/sweethome3d/furniture"
        )
    return Rooms(
        name,
        counts,
        number(where, "seed", given["seed"], 0),
        number(where, "size", given["size"], 16),
        {task: space(task, name, furniture, outlines) for task in tasks},
        furniture,
        number(where, "views", given["views"], 1),
    )
