"""A rendered world in which every question has an exact answer: spheres before a slanted wall.

The camera has no perspective. Axes: x right, y down, z away from the camera; pixels and z share one unit.
Shapes: O objects, H W pixels.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

WALL = -1
"""Instance of a pixel that shows no object."""


@dataclass(frozen=True)
class Scene:
    """Spheres to be rendered, and the wall behind them."""

    size: tuple[int, int]
    center: Float[Tensor, "O 3"]
    radius: Float[Tensor, " O"]
    category: Int64[Tensor, " O"]
    slant: float = 0.3
    """z of the wall grows by this much per pixel of x."""

    def mirrored(self) -> "Scene":
        """The world seen in a mirror that swaps left and right: built anew, not flipped images."""
        center = self.center.clone()
        center[:, 0] = self.size[1] - center[:, 0]
        return replace(self, center=center, slant=-self.slant)


@dataclass(frozen=True)
class Render:
    """What the camera sees. instance: index of the object or WALL. depth: z. normal: unit, towards the camera (z < 0).

    category is per object, also of those that are hidden.
    """

    image: UInt8[Tensor, "3 H W"]
    instance: Int64[Tensor, "H W"]
    depth: Float[Tensor, "H W"]
    normal: Float[Tensor, "3 H W"]
    category: Int64[Tensor, " O"]


def random_scene(seed: int, size: tuple[int, int] = (64, 96), categories: int = 3, objects: int = 4) -> Scene:
    """A scene drawn from `seed`; `size` is (height, width) in pixels."""
    g = torch.Generator().manual_seed(seed)
    h, w = size
    center = torch.rand(objects, 3, generator=g) * torch.tensor([w, h, 40.0]) + torch.tensor([0, 0, 60.0])
    return Scene(
        size=size,
        center=center.round(),  # whole pixels: a mirrored sum is then exact in float32
        radius=torch.rand(objects, generator=g) * min(size) / 4 + 4,
        category=torch.randint(categories, (objects,), generator=g),
    )


def render(scene: Scene) -> Render:
    """Ray-cast the scene exactly."""
    h, w = scene.size
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    wall = 200 + scene.slant * (x - w / 2)
    offset = torch.stack([x, y])[None] - scene.center[:, :2, None, None]
    bulge = (scene.radius[:, None, None] ** 2 - (offset**2).sum(1)).clamp(min=0).sqrt()
    front = torch.where(bulge > 0, scene.center[:, 2, None, None] - bulge, torch.inf)
    depth, index = torch.cat([front, wall[None]]).min(0)
    objects = len(scene.radius)
    ball = torch.cat([offset, -bulge[:, None]], 1) / scene.radius[:, None, None, None]
    flat = torch.nn.functional.normalize(torch.tensor([scene.slant, 0.0, -1.0]), dim=0)
    normals = torch.cat([ball, flat[None, :, None, None].expand(1, 3, h, w)])
    normal = normals.gather(0, index[None, None].expand(1, 3, h, w))[0]
    hue = torch.cat([scene.category, scene.category.new_tensor([-1])])[index]
    tint = torch.stack([(hue == k) * 1.0 for k in range(3)]) * 0.6 + 0.4
    shade = (-normal[2]).clamp(0, 1) * 200 + 40
    image = (shade * tint).clamp(0, 255).to(torch.uint8)
    return Render(image, torch.where(index == objects, WALL, index), depth, normal, scene.category)
