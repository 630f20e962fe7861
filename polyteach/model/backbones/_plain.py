"""Plain backbones: vision transformers and others that keep one resolution from their first layer to their last.

They have no pyramid; `model.plain_pyramid` makes one of what they give: maps from four depths, all at the stride of
their patches, and what they say last.

Shapes: B images, H W their pixels, D channels of the trunk, h w its cells: H and W over the patch.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

DEPTHS = 4
"""From how many depths maps are taken, evenly spaced, the last layer's among them; as in DPT (Ranftl et al., ICCV
2021)."""


def taken(layers: int) -> tuple[int, ...]:
    """Numbers, from 0, of the layers whose maps are taken; of a trunk of fewer than `DEPTHS` some come twice."""
    return tuple(max((k + 1) * layers // DEPTHS - 1, 0) for k in range(DEPTHS))


class Plain(nn.Module):
    """A trunk as a backbone whose maps all have the stride of its patches.

    Its forward is (B, 3, H, W) float -> five maps: (B, D, h, w) of four depths, normalised as the trunk normalises its
    last, and (B, C, h, w), the last of them with the class token, where there is one, repeated beside every cell (C =
    2 D, else D): averaged they are what DINOv2's linear probes read.

    H and W have to be multiples of the patch. channels, strides: of every map. multiple: the patch, in pixels.
    pretrained_cfg: may have the "mean" and "std" of its images, 0..1.
    """

    def __init__(self, model: Any, patch: int, width: int, has_class: bool, pretrained_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.channels = (*[width] * DEPTHS, width * (1 + has_class))
        self.strides = (patch,) * (DEPTHS + 1)
        self.multiple = patch
        self.has_class = has_class
        self.pretrained_cfg = dict(pretrained_cfg)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        maps, token = self.maps(x)
        last = maps[-1]
        if self.has_class and token is not None:
            last = torch.cat([last, token[:, :, None, None].expand_as(last)], 1)
        return [*maps, last]

    def maps(self, x: Float[Tensor, "B 3 H W"]) -> tuple[list[Tensor], Tensor | None]:
        """The maps (B, D, h, w) of four depths, and the class token (B, D) of the last."""
        raise NotImplementedError

    def resized(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of this trunk made for images of another size, for this one's: what says where things are."""
        return dict(weights)
