"""Pyramids over a plain backbone, whose maps all have one stride: for heads of pixels and for heads of boxes.

Shapes: B images, D channels of the backbone, C of the pyramid, h w cells of the backbone, m n of a level.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from polyteach.ground.layers import Pyramid

LEVELS = (2, 3, 4, 5)
"""Of the pyramid for pixels: level k has a stride of 2^k pixels. The one for boxes begins at 3."""


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of maps (B, C, m, n), as in ViTDet's pyramid."""

    def forward(self, x: Float[Tensor, "B C m n"]) -> Float[Tensor, "B C m n"]:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Rescale(nn.Module):
    """Maps at the stride of a patch, (B, D, h, w), as (B, C, m, n) at a stride of 2^level pixels.

    By powers of two with layers that learn (transposed convolutions; a strided one), as DPT and ViTDet have them for
    patches of 16. Of patches of no power of two (14 of DINOv2) what then is missing is interpolated, where each
    cell's middle lies in the image. m n: the image's sides over the stride, rounded up.
    """

    def __init__(self, width: int, channels: int, patch: int, level: int) -> None:
        super().__init__()
        nearest = round(math.log2(patch))
        self.patch, self.stride, self.factor = patch, 2**level, patch / 2**nearest
        layers: list[nn.Module] = []
        for _ in range(level, nearest):
            if layers:
                layers += [ChannelNorm(width), nn.GELU()]
            layers.append(nn.ConvTranspose2d(width, max(width // 2, channels), 2, stride=2))
            width = max(width // 2, channels)
        for _ in range(nearest, level):
            layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 1))

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C m n"]:
        size = [-(-side * self.patch // self.stride) for side in x.shape[-2:]]
        out: Tensor = self.layers(x)
        return out if self.factor == 1 else spread(out, self.factor, (size[0], size[1]))


def spread(x: Float[Tensor, "B C h w"], factor: float, size: tuple[int, int]) -> Float[Tensor, "B C m n"]:
    """The map with `factor` cells for each of its own, each where its middle lies, cut to (height, width) `size`.

    Beyond the last cells it is as there.
    """
    more = [max(math.ceil(n / factor) - have + 1, 0) for n, have in zip(size, x.shape[-2:], strict=True)]
    padded = F.pad(x, (0, more[1], 0, more[0]), mode="replicate")
    return F.interpolate(padded, scale_factor=factor, mode="bilinear")[..., : size[0], : size[1]]


class PlainPyramid(nn.Module):
    """Levels 2 to 7 for heads of pixels, and 3 to 7 for those of boxes, from a plain backbone's maps of four depths.

    Pixels: maps of four depths reassembled at strides 4, 8, 16 and 32, from the finest, which is of the first, to the
    coarsest (DPT, Ranftl et al., ICCV 2021), and fused from the coarsest down (Lin et al., CVPR 2017). Boxes: the last
    map at strides 8, 16 and 32, each with a 1x1 and a 3x3 convolution and no way between them (the simple feature
    pyramid of ViTDet, Li et al., ECCV 2022; its finest level is left out, which no head of boxes here reads). What the
    backbone says is normalised first, since trunks differ in scale by orders of magnitude.

    width: D. extra: makes levels 6 and 7 of level 5, of either pyramid.
    """

    def __init__(self, width: int, channels: int, patch: int, extra: Sequence[ExtraFPNBlock]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in LEVELS)
        self.reassemble = nn.ModuleList(Rescale(width, channels, patch, k) for k in LEVELS)
        self.fusion = FeaturePyramidNetwork([channels] * len(LEVELS), channels, extra_blocks=extra[0])
        self.simple = nn.ModuleList(
            nn.Sequential(
                Rescale(width, channels, patch, k),
                ChannelNorm(channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                ChannelNorm(channels),
            )
            for k in LEVELS[1:]
        )
        self.coarsest = extra[1]

    def forward(self, maps: Sequence[Float[Tensor, "B D h w"]], pixels: bool, boxes: bool) -> Pyramid:
        """ "p2" .. "p7" where `pixels` wants them, "b3" .. "b7" where `boxes` does; each (B, C, m, n)."""
        normed = [norm(x) for norm, x in zip(self.norms, maps, strict=True)]
        out: Pyramid = {}
        if pixels:
            rescaled = [layer(x) for layer, x in zip(self.reassemble, normed, strict=True)]
            fused = self.fusion({f"p{k}": x for k, x in zip(LEVELS, rescaled, strict=True)})
            out |= zip((f"p{k}" for k in range(2, 8)), fused.values(), strict=True)
        if boxes:
            levels = [layer(normed[-1]) for layer in self.simple]
            levels, _ = self.coarsest(levels, levels, [])
            out |= {f"b{k}": x for k, x in enumerate(levels, 3)}
        return out


def for_boxes(pyramid: Pyramid) -> Pyramid:
    """What a head of boxes reads: the levels that are made for it, where there are any, in place of the others."""
    own = {f"p{name[1:]}": level for name, level in pyramid.items() if name.startswith("b")}
    return {**pyramid, **own} if own else pyramid
