"""What a library's model has to be to teach its features.

Shapes: B images, C D channels, h w pixels of the model's input, m n cells of its map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Encoder:
    """A network with what is known of its input.

    model: (B, 3, h, w) normalised -> (B, C, m, n) and (B, D). size: (height, width) of its training's images. mean,
    std: by which values of 0..1 are normalised. name: what tells it from others. origin, sha256, licence: as a
    teacher's. bicubic: how images are resized; else bilinear.
    """

    model: nn.Module
    size: tuple[int, int]
    mean: Sequence[float]
    std: Sequence[float]
    name: str
    origin: str
    sha256: str
    licence: str | None = None
    bicubic: bool = True
