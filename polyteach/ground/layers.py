"""Building blocks of heads; they know no task.

Shapes: B images, C channels, h w pixels of a pyramid level.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Pyramid = dict[str, Tensor]
"""Features of a batch: "c5" (B, C5, _, _) from the backbone, "p2" .. "p7" (B, C, H/2^k, W/2^k), sizes rounded up.

`IMAGE` (B, 0, H, W) holds nothing, and its shape says how large the images are.
"""
IMAGE = "image"
"""Key of a pyramid; one without it is of images whose sides 8 divides."""


def image_size(pyramid: Pyramid, level: int) -> tuple[int, int]:
    """(height, width) of the images in pixels. level: one that the pyramid has, where it does not say the size."""
    if IMAGE in pyramid:
        return pyramid[IMAGE].shape[-2], pyramid[IMAGE].shape[-1]
    height, width = (2**level * int(s) for s in pyramid[f"p{level}"].shape[-2:])
    return height, width


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He, ECCV 2018): 32 groups of 8 or more channels; fewer groups of narrower maps.

    Heads see only the images that carry their labels, so batch statistics would drift between tasks. A group of one
    channel would be instance normalisation, after which a map no longer says how strong its channels are.
    """

    def __init__(self, channels: int) -> None:
        most = min(32, max(channels // 8, 1))
        super().__init__(max(g for g in range(1, most + 1) if channels % g == 0), channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":  # torch's kernel for channels_last takes ten times as long there (2.14)
            x = x.contiguous()
        return super().forward(x)


def tower(channels: int, depth: int) -> nn.Sequential:
    """`depth` hidden 3x3 convolutions, each normalised and rectified, keeping shape."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), GroupNorm(channels), nn.ReLU()]
    return nn.Sequential(*layers)


class Adapter(nn.Module):
    """A bottleneck beside its input: 1x1 to `hidden` channels, GELU, 1x1 back, added (Houlsby et al., ICML 2019).

    Its last layer begins at zero, so that it begins as the identity. Keeps shape: (B, channels, h, w).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, hidden, 1)
        self.up = nn.Conv2d(hidden, channels, 1)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(torch.as_tensor(self.up.bias))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        out: Tensor = x + self.up(F.gelu(self.down(x)))
        return out


def fuse(pyramid: Pyramid) -> Float[Tensor, "B C h w"]:
    """All pyramid levels rescaled to level 2 and summed, with no parameters (MuST's pixel tasks).

    Kept in the pyramid as "fused", for the other heads that want it.
    """
    if "fused" not in pyramid:
        fine = pyramid["p2"]
        levels = [level for name, level in pyramid.items() if name.startswith("p") and name != "p2"]
        every = [fine, *(F.interpolate(level, fine.shape[-2:], mode="bilinear") for level in levels)]
        pyramid["fused"] = torch.stack(every).sum(0)
    return pyramid["fused"]


class PixelHead(nn.Module):
    """Fused P2, 3 hidden convolutions and a linear one; `outputs` values per pixel of the image: (B, outputs, H, W)."""

    def __init__(self, channels: int, outputs: int, hidden: int = 3) -> None:
        super().__init__()
        self.hidden = tower(channels, hidden)
        self.out = nn.Conv2d(channels, outputs, 1)

    def forward(self, pyramid: Pyramid) -> Float[Tensor, "B outputs H W"]:
        coarse = self.out(self.hidden(fuse(pyramid)))
        fine = F.interpolate(coarse.float(), scale_factor=4, mode="bilinear")
        height, width = image_size(pyramid, 2)
        return fine[..., :height, :width]  # the last cells reach beyond an image whose sides 4 does not divide
