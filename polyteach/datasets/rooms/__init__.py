"""Rooms: furnished rooms with exact classes, boxes, outlines, regions, depth and normals, like small photographs.

    rooms:DOMAIN?count=train:1000,val:200,test:300&seed=0&size=64&tasks=own&furniture=DIR&views=4&outlines=no

DOMAIN is one of `DOMAINS`: worlds for four teachers, a pool, and six downstream worlds. The furniture is that of
Debian's sweethome3d-furniture (docs/guide/rooms.md says how to get it and under which licences); nothing of it is here.
An image follows from (domain, seed, split, number), its size, views and the furniture alone, so that more images later
leave the first as they are. Its bytes also depend on the versions of embreex, numpy and Pillow.

count: images by split, or one number, which makes the split "train". tasks: "own" (what the domain is for), "all" (the
exact truth of every task: an oracle), "none" (an unlabelled pool), or tasks by name: "depth,normals". furniture: the
folder of .sh3f files. views: how many images are taken of a room (image n shows room n // views), since to furnish
one costs more than an image. outlines: "yes" adds the objects' outlines to their boxes.

No model is in two groups: teachers, pool and downstream have furniture of their own (see `shared`), and downstream
train, val and test too. The splits of a teacher or of the pool share their models. Names come from the models' names
by a rule (`RULE`); a domain does not name what it has too few models of.

What must not give an answer away is drawn at random: most materials are painted anew, and the camera's height, pitch
and roll say little about the depth.

Labels: the class of an image is that of the object in the middle, where the image is about one; else that of the
largest object that has a name, or there is none. Boxes are around visible pixels of objects with a name; one that
shows next to none of them is ignored. Depth and normals are the meshes' own at the centre of each pixel; the image is
the mean of four rays a pixel. Light: Lambert's, from lamps with an area and from everywhere that is not blocked.

Shapes: h w pixels, F faces, V vertices, R rays, M materials, T textures.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from polyteach.datasets import Dataset, options
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
from polyteach.datasets.rooms.cameras import camera_for, shows
from polyteach.datasets.rooms.domains import DOMAINS
from polyteach.datasets.rooms.furnishing import mains
from polyteach.datasets.rooms.kinds import DOWN, TEACHER, kind
from polyteach.datasets.rooms.props import pieces_of, stock
from polyteach.datasets.rooms.room import PARTS, SURFACES, Room, Shot, furnish
from polyteach.ground.names import unknown_name
from polyteach.ground.scene import WALL
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Space
from polyteach.tasks.segmentation import SegmentationTarget

PATHLESS = True
"""What stands after `rooms:` is no path."""

FURNITURE = "/usr/share/sweethome3d/furniture"
"""Where Debian's package puts it."""

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
    pieces, groups = pieces_of(furniture)
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
    """The exact answer to a task, or None: an image without any object that has a name has no class."""
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


_ROOMS, _PATIENCE, _CAMERAS = 60, 15, 40
"""Rooms that are tried before a domain is given up, or another object is taken; and cameras in each."""


class Rooms(Rendered):
    """Images of one domain, rendered when they are asked for: once, for the image and its labels."""

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
        """Those of the last index are kept: images are mostly asked for in their order."""
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
