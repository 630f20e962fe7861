"""Encoders as teachers of their features: `features:timm:NAME[@FILE]`, `features:transformers:FOLDER`.

A foundation model (DINOv3, CLIP, SigLIP, SAM's encoder, or any backbone) answers with the features of its last layer: a
map of vectors ("dense") and one vector for the image ("global"), which a student learns to predict (AM-RADIO, Ranzinger
et al., CVPR 2024; UNIC, Sariyildiz et al., ECCV 2024; Theia, Shang et al., CoRL 2024). `?only=dense` asks for one of
the two. `?grid=N` averages maps down to N cells along the longer side (24 without it), as they take much room.

The whole image is seen. Models that take any shape see it with its aspect and as many pixels as they were trained with;
those that take one shape see it in a frame of that, with nothing below or to the right of it.

Shapes: B images, C channels, h w pixels of the model's input, m n cells of its map.
"""

import importlib
import math
from collections.abc import Iterable, Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.embedding import EmbeddingTarget, kind_of
from polyteach.teachers._features_check import Asked, asked
from polyteach.teachers._features_encoder import Encoder
from polyteach.teachers._maps import refuse_thin, size_of
from polyteach.teachers._torch import TorchTeacher, by_shape, refuse_nan


@final
class FeatureTeacher(TorchTeacher):
    """The features of an encoder's last layer, at most `grid` cells along a side."""

    def __init__(self, encoder: Encoder, what: Asked, device: str, precision: str) -> None:
        super().__init__(encoder.model, device, precision)
        self.encoder, self.grid = encoder, what.grid
        self.origin, self.sha256, self.licence = encoder.origin, encoder.sha256, encoder.licence
        height, width = encoder.size
        dense, pooled = self._tried((height, width))
        self.stride = max(height // dense.shape[2], 1)
        self.any_shape = self._takes_any_shape()
        if not self.any_shape:
            self.origin += f", seen in a frame of {height}x{width}"
        name = f"{encoder.name} {str(encoder.sha256)[:8]}"
        channels = {"dense": dense.shape[1], "global": pooled.shape[1]}
        self.objectives = {p: Objective("embedding", Space((), kind_of(p, channels[p], name))) for p in what.parts}
        cells = math.prod(self._cells(dense.shape[2], dense.shape[3]))
        each = {"dense": channels["dense"] * cells, "global": channels["global"]}
        self.bulk = 2 * sum(each[p] for p in what.parts)

    def _tried(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What the model makes of an image of that size without anything on it.

        Raises:
            ValueError: it fails.
        """
        try:
            with torch.inference_mode():
                noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
                dense, pooled = self.run(noise)
        except Exception as e:  # any model's any error
            raise ValueError(
                f"{self.encoder.origin} gives no features of an image of {size[0]}x{size[1]}: {type(e).__name__}: {e}"
            ) from e
        refuse_nan((dense, pooled), self.encoder.origin)
        if dense.ndim != 4 or pooled.ndim != 2:
            raise ValueError(
                f"{self.encoder.origin} gives features of shapes {tuple(dense.shape)}, {tuple(pooled.shape)}"
            )
        return dense, pooled

    def _takes_any_shape(self) -> bool:
        s = self.stride
        height, width = (max(x // s, 1) for x in self.encoder.size)
        other = (height + 1, max(width - 2, 1))
        try:
            return tuple(self._tried((other[0] * s, other[1] * s))[0].shape[2:]) == other
        except ValueError:
            return False

    def seen(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in which an image of `size` is seen: whole cells."""
        height, width = self.encoder.size
        if self.any_shape:
            scale = math.sqrt(height * width / (size[0] * size[1]))
            most = (10**9, 10**9)
        else:
            scale = min(height / size[0], width / size[1])
            most = (height // self.stride, width // self.stride)
        cells = (min(max(round(x * scale / self.stride), 1), top) for x, top in zip(size, most, strict=True))
        tall, wide = (c * self.stride for c in cells)
        return tall, wide

    def _cells(self, m: int, n: int) -> tuple[int, int]:
        """Cells that are kept of a map of m x n."""
        scale = min(self.grid / max(m, n), 1)
        return max(round(m * scale), 1), max(round(n * scale), 1)

    def inputs(self, image: UInt8[Tensor, "3 _ _"]) -> Float[Tensor, "3 h w"]:
        """The image as the model wants it; 0, which is the mean colour, beyond it."""
        refuse_thin(image)
        size = self.seen(size_of(image))
        mode = InterpolationMode.BICUBIC if self.encoder.bicubic else InterpolationMode.BILINEAR
        small = functional.resize(image, list(size), mode, antialias=True)
        x = functional.normalize(small.float() / 255, list(self.encoder.mean), list(self.encoder.std))
        if self.any_shape:
            return x
        height, width = self.encoder.size
        return F.pad(x, (0, width - size[1], 0, height - size[0]))

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[dict[str, Target]]:
            dense, pooled = self.run(batch)
            for i, cells, vector in zip(positions, dense.float().cpu(), pooled.float().cpu(), strict=True):
                m, n = (x // self.stride for x in self.seen(size_of(images[i])))
                found: dict[str, Target] = {}
                if "dense" in self.objectives:
                    found["dense"] = EmbeddingTarget(F.adaptive_avg_pool2d(cells[:, :m, :n], self._cells(m, n)))
                if "global" in self.objectives:
                    found["global"] = EmbeddingTarget(vector[:, None, None])
                yield found

        return by_shape([self.inputs(image) for image in images], ask)


def load(name: str, device: str, precision: str) -> FeatureTeacher:
    """The encoder LIBRARY:NAME.

    Raises:
        ValueError: unknown name, weights that do not exist or do not fit, a model that gives no features.
    """
    what = asked(name)
    library = importlib.import_module(f"{__package__}._features_{what.library}")  # seconds, for those who need it
    return FeatureTeacher(library.encoder(what.name), what, device, precision)
