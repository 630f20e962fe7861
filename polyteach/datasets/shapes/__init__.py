"""Shapes: a rendered world with exact classes, boxes, outlines, regions, depth and normals, made of nothing but a seed.

    shapes:DOMAIN?count=train:1000,val:100,test:300&seed=0&size=64&tasks=own&outlines=no

DOMAIN is one of `DOMAINS`: four worlds for teachers, which look different and name different shapes; a pool that
looks like all of them and more; and six downstream worlds of compound shapes that no teacher saw, with other textures,
lights and cameras. An image follows from (domain, seed, split, number) and its size alone, so that more images later
leave the first as they are. Its bytes also depend on the versions of trimesh, embreex, numpy and Pillow.

count: images by split, or one number, which makes the split "train". tasks: "own" (what the domain is for), "all" (the
exact truth of every task: an oracle), "none" (an unlabelled pool), or tasks by name: "depth,normals". outlines: "yes"
adds the objects' outlines to their boxes.

Solids come from `trimesh.creation`, and compounds of them; they float, stand, hang or lie in piles before a floor or a
ceiling and one or two walls. The rays are embree's. What must not give an answer away is drawn at random: textures and
colours are independent of the shape, and the camera looks down at a floor as often as up at a ceiling, rolled to either
side, so that neither colour tells the class nor height in the image the depth. What tells them can be seen: light
comes from above, textures are of one period in metres, things of one kind are about as large. A scene that hides what
it is about is thrown away, and its objects are placed anew.

Labels: the class of an image is that of the object with the most visible pixels, which is the one in the middle where
there is one. Boxes are around visible pixels; an object that shows next to none of them is ignored, as what is
"difficult" in Pascal VOC. Depth and normals are the meshes' own (a ball has 1,280 faces) at the centre of each pixel;
the image is the mean of four rays a pixel.

Camera: x right, y down, z away; depth is z in metres. Light: Lambert's, from distant lights and from everywhere, with
or without shadows of the objects. Nothing is licensed: no asset is read.

Shapes: h w pixels, F faces, V vertices, R rays, L lights.
"""

from typing import Any

import torch

from polyteach.datasets import Dataset, options
from polyteach.datasets._raycast import (
    Rendered,
    View,
    answer,
    counted,
    number,
    packages,
    stream,
    tasks_named,
    with_outlines,
)
from polyteach.datasets.shapes.domains import DOMAINS, Domain
from polyteach.datasets.shapes.scenes import view
from polyteach.datasets.shapes.solids import PARTS
from polyteach.ground.names import unknown_name
from polyteach.tasks.contract import Space
from polyteach.tasks.segmentation import SegmentationTarget

PATHLESS = True
"""What stands after `shapes:` is no path."""


class Shapes(Rendered):
    """Images of one domain, rendered when they are asked for: once, for the image and its labels."""

    licence = "none: rendered from a seed"

    def view(self, split: str, index: int) -> View:
        return view(DOMAINS[self._name], stream(self._name, self._seed, split, index), self._size)

    def truth(self, task: str, seen: View) -> Any:
        return truth(task, seen, DOMAINS[self._name], self.spaces[task])


def space(task: str, domain: Domain, outlines: bool = False) -> Space:
    """What the domain's labels for a task mean."""
    if task == "classification":
        return Space(domain.shapes)
    if task == "detection":
        return Space(domain.shapes, "boxes and masks" if outlines else "boxes")
    if task == "segmentation":
        return Space(("background", *(PARTS if domain.by_part else domain.shapes)))
    return Space((), "metric" if task == "depth" else "")


def truth(task: str, seen: View, domain: Domain, space: Space) -> Any:
    """The exact answer to a task. Regions: planes are the first class, "background"."""
    r = seen.render
    if task == "segmentation":
        shape = torch.cat([r.category + 1, r.category.new_zeros(1)])  # the last one is for the instance -1, WALL
        category = torch.from_numpy(seen.part + 1) if domain.by_part else shape[r.instance]
        return SegmentationTarget(category=category, probability=torch.ones(category.shape))
    return answer(task, r, space)


def load(path: str) -> Dataset:
    """The domain that `path` names: DOMAIN?count=...&seed=...&size=...&tasks=...&outlines=...

    Raises:
        ValueError: an unknown domain or option, or a value that is none; lists what there is. A package is missing.
    """
    packages("shapes", "trimesh", "embreex")
    defaults = {"count": "train:1000", "seed": "0", "size": "64", "tasks": "own", "outlines": "no"}
    name, given = options(path, defaults)
    if name not in DOMAINS:
        raise unknown_name("domain of shapes", name, list(DOMAINS))
    domain, where = DOMAINS[name], f"shapes:{path}"
    tasks = tasks_named(where, given["tasks"], domain.task)
    outlines = with_outlines(where, given["outlines"], tasks)
    return Shapes(
        name,
        counted(where, given["count"]),
        number(where, "seed", given["seed"], 0),
        number(where, "size", given["size"], 16),
        {task: space(task, domain, outlines) for task in tasks},
    )
