"""Views: how an image is varied from epoch to epoch.

Shapes: h w pixels of the view.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as kernels


@dataclass(frozen=True)
class Augment:
    """How an image is varied. size: (height, width) of the view; scale, mirror: see `random_view`.

    magnitude: 0 (off) to 10 of RandAugment's photometric operations, `operations` of them per image.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    mirror: float = 0.5
    magnitude: float = 0.0
    operations: int = 2


def _signed(kernel: Callable[..., Tensor]) -> Callable[[Tensor, float, random.Random], Tensor]:
    return lambda image, level, draw: kernel(image, 1 + draw.choice((-0.9, 0.9)) * level)


PHOTOMETRIC: dict[str, Callable[[Tensor, float, random.Random], Tensor]] = {
    "identity": lambda image, level, draw: image,
    "autocontrast": lambda image, level, draw: kernels.autocontrast(image),
    "equalize": lambda image, level, draw: kernels.equalize(image),
    "solarize": lambda image, level, draw: kernels.solarize(image, 255 * (1 - level)),
    "posterize": lambda image, level, draw: kernels.posterize(image, 8 - round(4 * level)),
    "saturation": _signed(kernels.adjust_saturation),
    "contrast": _signed(kernels.adjust_contrast),
    "brightness": _signed(kernels.adjust_brightness),
    "sharpness": _signed(kernels.adjust_sharpness),
}
"""Operations of RandAugment (Cubuk et al., CVPR Workshops 2020) that move no pixel: image, level 0..1 -> image."""


def photometric(
    image: UInt8[Tensor, "3 h w"], magnitude: float, operations: int, draw: random.Random
) -> UInt8[Tensor, "3 h w"]:
    """RandAugment without its geometric half, which would have to move the targets too.

    magnitude: 0..10 as in the paper; 0 changes nothing.
    """
    if magnitude:
        for name in draw.choices(list(PHOTOMETRIC), k=operations):
            image = PHOTOMETRIC[name](image, magnitude / 10, draw)
    return image
