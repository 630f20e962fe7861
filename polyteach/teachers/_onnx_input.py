"""Images on their way into an ONNX graph: what the graph takes, and what the description makes of an image.

Shapes: H W pixels of the image, h w of the input, M N m n cells of maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as kernels

from polyteach.ground.fields import short
from polyteach.teachers._maps import map_size, refuse_thin, resized, size_of
from polyteach.teachers._onnx_description import Description

LONGEST = 8192
"""Longest side of an input, in pixels: of a square one it takes 800 MB."""
TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
"""ONNX Runtime's names of the types of an input that can be given."""


@dataclass(frozen=True)
class Placement:
    """Where the image lies in the model's input. size: of the image. height, width: of the input.

    top, left, tall, wide: the rectangle of the input that shows the image.
    """

    size: tuple[int, int]
    height: int
    width: int
    top: int
    left: int
    tall: int
    wide: int

    def map(self, field: Float[Tensor, "*C M N"]) -> Float[Tensor, "*C m n"]:
        """A map over the input -> over the whole image, with its aspect."""
        if (self.tall, self.wide) != (self.height, self.width):
            field = resized(field, (self.height, self.width))
            field = field[..., self.top : self.top + self.tall, self.left : self.left + self.wide]
        return resized(field, map_size(self.size, (field.shape[-2], field.shape[-1])))

    def boxes(self, xyxy: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
        """Pixels of the input -> pixels of the image."""
        corner = torch.tensor([self.left, self.top]).repeat(2)
        return (xyxy - corner) * torch.tensor([self.size[1] / self.wide, self.size[0] / self.tall]).repeat(2)


@dataclass(frozen=True)
class GraphInput:
    """What the graph says of its input. shape: numbers, or names where any size will do. dtype: torch's name."""

    file: Path
    name: str
    shape: tuple[Any, ...]
    dtype: str

    def sides(self, layout: str) -> list[Any]:
        """Height and width, as the graph says them.

        Raises:
            ValueError: the dimension of the channels, by `layout`, is no 3.
        """
        sides = list(self.shape[-3:])
        channels = sides.pop(0 if layout == "NCHW" else 2)
        if isinstance(channels, int) and channels != 3:
            other = "NHWC" if layout == "NCHW" else "NCHW"
            raise ValueError(
                f"{self.file}: its input {self.name} has shape {list(self.shape)}, by layout {layout} with {channels} "
                f"channels, not 3 of colour; layout {other} may be meant"
            )
        return sides

    @property
    def single(self) -> bool:
        """Whether it is one image, without a batch."""
        return len(self.shape) == 3

    @property
    def batched(self) -> bool:
        """Whether it takes several images at once."""
        return not self.single and not isinstance(self.shape[0], int)


def graph_input(file: Path, name: str, found: Any) -> GraphInput:
    """The input `name` of the graph in `file`. found: what `session.get_inputs()` says of it.

    Raises:
        ValueError: a type that cannot be given, a rank that is no image's, batches of one size only.
    """
    shape = tuple(found.shape or ())
    if found.type not in TYPES:
        raise ValueError(f"{file}: its input {name} is a {found.type}; known are {', '.join(TYPES)}")
    if len(shape) not in (3, 4):
        raise ValueError(
            f"{file}: its input {name} has rank {len(shape)}, {list(shape)}; an image's is 4, (batch, channels, "
            "height, width) or, by layout NHWC, (batch, height, width, channels), or 3 without the batch"
        )
    if len(shape) == 4 and isinstance(shape[0], int) and shape[0] > 1:
        raise ValueError(
            f"{file}: its input {name} takes batches of exactly {shape[0]} images; export the graph for one, or "
            "with a free first dimension (dynamic axes)"
        )
    return GraphInput(file, name, shape, TYPES[found.type])


def _target_sizes(found: Any, count: int, height: int, width: int) -> np.ndarray:
    """What RT-DETR, D-FINE and DEIM call so: width and height in whose pixels boxes are wanted; here the input's."""
    return np.array([[width, height]] * count, dtype=TYPES[found.type])


def _pixel_mask(found: Any, count: int, height: int, width: int) -> np.ndarray:
    """DETR's: which pixels are the image's; all. Some exports fix its size, as it is made small inside."""
    sides = [s if isinstance(s, int) else other for s, other in zip(found.shape[1:], (height, width), strict=True)]
    return np.ones((count, *sides), dtype=TYPES[found.type])


BESIDE = {"orig_target_sizes": _target_sizes, "pixel_mask": _pixel_mask}
"""Inputs that a detector may have beside the image."""


class Preprocessing:
    """Image -> the graph's input, as the description says."""

    _MODES: ClassVar = {
        "bilinear": InterpolationMode.BILINEAR,
        "bicubic": InterpolationMode.BICUBIC,
        "nearest": InterpolationMode.NEAREST,
    }

    def __init__(self, about: Description, graphs: GraphInput) -> None:
        self.layout = about.choice("layout", "NCHW", "NHWC")
        self.size = self._size(about, graphs.sides(self.layout))
        self.multiple, self.longest = int(about.number("multiple", 32)), int(about.number("longest", 1024))
        self.shorter = int(about.number("shorter", 0))
        if not 1 <= min(self.multiple, self.longest) <= max(self.multiple, self.longest, self.shorter) <= LONGEST:
            raise ValueError(f"{about.file}: {about.place}multiple, longest and shorter must be 1 to {LONGEST}")
        if self.size and not 1 <= min(self.size) <= max(self.size) <= LONGEST:
            raise ValueError(f"{about.file}: {about.place}size is {self.size}; sides are 1 to {LONGEST}")
        self.bgr = about.choice("colour", "RGB", "BGR") == "BGR"
        self.dtype = getattr(torch, graphs.dtype)
        if about.choice("dtype", graphs.dtype, *TYPES.values()) != graphs.dtype:
            raise ValueError(
                f"{about.file}: {about.place}dtype is {short(about['dtype'])}; the graph takes {graphs.dtype}. "
                "Leave it out"
            )
        self.whole = not self.dtype.is_floating_point
        self._read_values(about, graphs.dtype)
        self.resize = about.choice("resize", "stretch", "fit", "crop")
        if self.resize == "crop" and self.size is None:
            raise ValueError(f"{about.file}: {about.place}resize crop needs {about.place}size")
        for key, used, when in (
            ("multiple", self.size is None, "a graph of any size"),
            ("longest", self.size is None, "a graph of any size"),
            ("shorter", self.resize == "crop", "resize crop"),
            ("place", self.resize == "fit", "resize fit"),
            ("fill", self.resize == "fit", "resize fit"),
        ):
            if key in about and not used:
                raise ValueError(f"{about.file}: {about.place}{key} is only for {when}")
        self.centred = about.choice("place", "top left", "centre") == "centre"
        self.fill = about.number("fill", 0, 0, 255)
        self.mode = self._MODES[about.choice("interpolation", *self._MODES)]
        self.antialias = about.flag("antialias", True)

    @staticmethod
    def _size(about: Description, spatial: Sequence[Any]) -> list[int] | None:
        """Height and width of the input, None where any will do. spatial: as the graph says them."""
        graph = [int(s) for s in spatial if isinstance(s, int) and s > 0]
        fixed = graph if len(graph) == 2 else None
        size = about.get("size")
        if size is not None:
            size = [int(s) for s in about.numbers("size", (), (2,))]
            if any(isinstance(s, int) and s > 0 and s != mine for s, mine in zip(spatial, size, strict=True)):
                raise ValueError(
                    f"{about.file}: {about.place}size is {size}; the graph takes {spatial} (height, width)"
                )
        elif len(graph) == 1:
            raise ValueError(
                f"{about.file}: {about.place}size is missing: the graph takes {spatial} (height, width), of which one "
                "side is fixed; give both"
            )
        return size or fixed

    def _read_values(self, about: Description, dtype: str) -> None:
        """What becomes of a pixel's bytes."""
        self.by_maximum = about.get("range") == "max"
        usual = ((-128, 127) if self.dtype == torch.int8 else (0, 255)) if self.whole else (0, 1)
        low_high = [0, 1] if self.by_maximum else about.numbers("range", usual, (2,))
        self.low, self.high = float(low_high[0]), float(low_high[1])
        self.mean = torch.tensor(about.numbers("mean", (0,), (1, 3))).float().reshape(-1, 1, 1)
        self.std = torch.tensor(about.numbers("std", (1,), (1, 3))).float().reshape(-1, 1, 1)
        if not self.std.all():
            raise ValueError(f"{about.file}: {about.place}std is 0; it divides")
        steps = abs(self.high - self.low) / float(self.std.abs().min())
        if self.whole and steps < 2:
            raise ValueError(
                f"{about.file}: {about.place}range, of an input of {dtype}, leaves {round(steps) + 1} values of "
                "256; leave range, mean and std out for the bytes as they are"
            )

    def __call__(self, image: UInt8[Tensor, "3 H W"]) -> tuple[Tensor, Placement]:
        size = size_of(image)
        if self.size is None and self.resize == "fit":
            return self._fitted(image, self.longest / max(size), None)
        if self.size is None:
            scale = min(1.0, self.longest / max(size))
            tall, wide = (max(round(s * scale / self.multiple), 1) * self.multiple for s in size)
            height, width, top, left = tall, wide, 0, 0
            pixels = self._resized(image, (tall, wide))
        elif self.resize == "crop":
            refuse_thin(image)
            height, width = self.size
            scale = max(self.shorter / min(size), height / size[0], width / size[1])
            tall, wide = max(round(size[0] * scale), height), max(round(size[1] * scale), width)
            top, left = -((tall - height) // 2), -((wide - width) // 2)
            pixels = kernels.center_crop(self._resized(image, (tall, wide)), [height, width])
        elif self.resize == "fit":
            return self._fitted(image, min(self.size[0] / size[0], self.size[1] / size[1]), self.size)
        else:
            height, width = tall, wide = self.size
            top, left = 0, 0
            pixels = self._resized(image, (tall, wide))
        return self._values(pixels), Placement(size, height, width, top, left, tall, wide)

    def _fitted(
        self, image: UInt8[Tensor, "3 H W"], scale: float, within: Sequence[int] | None
    ) -> tuple[Tensor, Placement]:
        """The image at that scale, padded to (height, width) `within`, or else to the next multiples."""
        size = size_of(image)
        tall, wide = max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
        height, width = within or [-(-n // self.multiple) * self.multiple for n in (tall, wide)]
        top, left = ((height - tall) // 2, (width - wide) // 2) if self.centred else (0, 0)
        pixels = torch.full((3, height, width), float(self.fill))
        pixels[:, top : top + tall, left : left + wide] = self._resized(image, (tall, wide)).float()
        return self._values(pixels), Placement(size, height, width, top, left, tall, wide)

    def _resized(self, image: UInt8[Tensor, "3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
        return kernels.resize(image, list(size), interpolation=self.mode, antialias=self.antialias)

    def _values(self, pixels: Tensor) -> Tensor:
        x = pixels.float().flip(0) if self.bgr else pixels.float()
        x = x / x.max().clamp(min=1e-6) if self.by_maximum else self.low + x * ((self.high - self.low) / 255)
        x = (x - self.mean) / self.std
        if self.layout == "NHWC":
            x = x.permute(1, 2, 0)
        if not self.whole:
            return x.to(self.dtype)
        limits = torch.iinfo(self.dtype)
        return x.round().clamp(limits.min, limits.max).to(self.dtype)
