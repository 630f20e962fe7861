"""A model of transformers with its image processor, asked about images: what its answers of every kind share."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from polyteach.ground.hub_models import said
from polyteach.tasks import load_task
from polyteach.teachers._maps import refuse_thin, size_of
from polyteach.teachers._torch import TorchTeacher, refuse_nan
from polyteach.teachers._transformers_places import rectangle

PROBES = ((97, 131), (131, 97))
"""Sizes (height, width) by which it is found out whether a processor pads; prime, so that none is a usual multiple."""
TRIED = ((72, 96), (110, 80))
"""Sizes (height, width) of the images of noise that every teacher is asked about when it is loaded."""
FATAL = (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)
"""Errors of the machine, which say nothing about a model."""


class HubTeacher(TorchTeacher):
    """A model with its image processor, asked about images one shape at a time."""

    whole = True
    """Whether the answer is about every pixel of the image, so that the processor must not crop it."""
    options: tuple[str, ...] = ()
    """What can be said of such a model where its files do not say it: keyword arguments of the class."""
    files: tuple[str, ...] = ()
    """Files that it reads beside the model's and the image processor's."""

    def __init__(
        self, model: Any, processor: Any, device: str, precision: str, lowered: Sequence[nn.Module] | None = None
    ) -> None:
        super().__init__(model, device, precision, lowered)
        self.processor, self.place = processor, model.config.name_or_path
        size = dict(getattr(processor, "size", None) or {})
        self.shorter = "shortest_edge" in size and "longest_edge" not in size
        self.takes_mask = "pixel_mask" in inspect.signature(model.forward).parameters
        self.gives_mask = False
        """Whether the processor gives the model a mask; known once it was asked."""
        self.names = _names(model.config)
        self.measures = False
        """Whether it is to be measured where in the model's input an image of each size lies."""
        self._places: dict[tuple[int, int], tuple[int, int, int, int]] = {}

    def inputs(self, image: UInt8[Tensor, "3 _ _"]) -> Float[Tensor, "C h w"]:
        """What the processor makes of one image; where it may have padded there is a fourth channel, 0 in the padding.

        The model sees that channel only as the mask that its own processor gives it.
        """
        if self.shorter:
            refuse_thin(image)
        made = self._processed(image)
        pixels: Tensor = made["pixel_values"][0].float()
        if "pixel_mask" in made:
            self.gives_mask = self.takes_mask
            return torch.cat([pixels, made["pixel_mask"].to(pixels)])
        if not self.measures:
            return pixels
        size = size_of(image)
        if size not in self._places:
            self._places[size] = self.measured(size)
        top, left, height, width = self._places[size]
        mask = pixels.new_zeros(1, *pixels.shape[1:])
        mask[:, top : top + height, left : left + width] = 1
        return torch.cat([pixels, mask])

    def _processed(self, image: UInt8[Tensor, "3 _ _"]) -> Any:
        """What the processor makes of one image: pixel_values (1, 3, h, w), and what it gives beside them.

        Raises:
            ValueError: it makes nothing of it, or something else.
        """
        made = self.processed(image)
        pixels = made.get("pixel_values")
        shapes = [] if pixels is None else [tuple(x.shape) for x in pixels]
        if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][0] != 3:
            shape = f"pixel_values {(len(shapes), *shapes[0])}" if shapes else ", ".join(made) or "nothing"
            raise ValueError(
                f"{type(self.processor).__name__} of {self.place} makes {shape} of an image, not pixel_values "
                "(1, 3, height, width), which are what is asked about here"
            )
        return made

    def processed(self, image: UInt8[Tensor, "3 _ _"]) -> Any:
        """All that the processor makes of one image.

        Raises:
            ValueError: it fails; says why.
        """
        more: dict[str, Any] = {}
        if self.whole and getattr(self.processor, "do_center_crop", False):
            more["do_center_crop"] = False
        takes = inspect.signature(getattr(self.processor, "preprocess", self.processor)).parameters.values()
        if any(p.name == "input_data_format" or p.kind is p.VAR_KEYWORD for p in takes):  # timm's finds it out itself
            more["input_data_format"] = "channels_first"
        try:
            return self.processor(images=[image], return_tensors="pt", **more)
        except FATAL:
            raise
        except Exception as e:  # each has its own
            size = "x".join(map(str, size_of(image)))
            what = f"{type(self.processor).__name__} of {self.place} makes nothing of an image of {size}"
            raise ValueError(f"{what} (height x width): {said(e)}") from e

    def outputs(self, batch: Float[Tensor, "B C h w"], **beside: Tensor) -> Any:
        """The model's outputs with floats in float32, as post-processing wants them. beside: further inputs."""
        mask = {"pixel_mask": batch[:, 3].long()} if self.gives_mask else {}
        found = self.run(pixel_values=batch[:, :3], **mask, **beside)
        for key, value in found.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                found[key] = value.float()
        refuse_nan(found, self.place)
        return found

    def try_out(self) -> None:
        """Ask about images of noise, so that a model or processor that fails at each image is known now.

        Raises:
            ValueError: it fails at all of them; says how.
        """
        draw, failed = torch.Generator().manual_seed(0), []
        for size in TRIED:
            image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=draw)
            try:
                (answer,) = self([image])
                for key, objective in self.objectives.items():
                    load_task(objective.task).check(answer[key], size, objective.space)
                return
            except FATAL:
                raise
            except Exception as e:  # of the model, the processor, or the answer
                failed.append(e)
        raise ValueError(
            f"{self.place} fails at every image, as when it was loaded and asked about noise: "
            f"{' '.join(said(failed[0]).split())[:400]}"
        ) from failed[0]

    def ask_anew(self, image: UInt8[Tensor, "3 _ _"]) -> None:
        """Have the model answer about an image from its weights as they are now, and nothing that was kept of them."""
        self([image])

    def find_padding(self) -> None:
        """Find out whether the processor pads an image that comes alone, and does nothing else that moves it.

        Raises:
            ValueError: it shows other than the whole image, upright and evenly scaled along each side.
        """
        if "pixel_mask" in self._processed(torch.zeros(3, *PROBES[0], dtype=torch.uint8)):
            return
        for size in PROBES:
            _, _, height, width = self.measured(size)
            made = self._processed(torch.zeros(3, *size, dtype=torch.uint8))["pixel_values"]
            self.measures |= (height, width) != tuple(made.shape[-2:])
        self.measures |= bool(getattr(self.processor, "do_pad", False))

    def measured(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Where the processor puts an image of (height, width) `size`: top, left, height, width in its output.

        Measured, as every processor has its own rule: what differs between a black and a white image is no padding, and
        ramps show which part of the image lies where.

        Raises:
            ValueError: that is no rectangle with the whole image, upright and evenly scaled along each side.
        """
        tall, wide = size
        ramps = [torch.linspace(0, 255, tall)[:, None].expand(size), torch.linspace(0, 255, wide).expand(size)]
        flat = [torch.full(size, 0.0), torch.full(size, 255.0)]
        plain, white, down, right = (
            self._processed(x.round().to(torch.uint8).expand(3, *size))["pixel_values"][0].float().mean(0)
            for x in flat + ramps
        )
        span = white - plain
        inside = span.abs() > span.abs().max() / 2
        place = rectangle(inside)
        known = place is not None and bool(inside.any())
        if known and place is not None:
            top, left, height, width = place
            part = (slice(top, top + height), slice(left, left + width))
            for ramp, cells, pixels, axis in ((down, height, tall, 0), (right, width, wide, 1)):
                found = ((ramp - plain)[part] / span[part]).movedim(axis, 0)
                centre = (torch.arange(cells) + 0.5) / cells * pixels - 0.5
                off = (found - (centre / max(pixels - 1, 1)).clamp(0, 1)[:, None]).abs().max()
                known = known and float(off) < 1.5 / min(cells, pixels) + 2 / 255
        if not known or place is None:
            raise ValueError(
                f"{type(self.processor).__name__} of {self.place} does not show the whole image of "
                f"{tall}x{wide} (height x width) in a rectangle, upright and evenly scaled, so that what the model "
                "answers cannot be put back on it; switch off in its preprocessor_config.json what crops, turns or "
                "pads by mirroring"
            )
        return place


def _names(config: Any) -> tuple[str, ...]:
    """Class names in the order of the outputs.

    Raises:
        ValueError: config.json's id2label does not number them from 0, without gaps.
    """
    numbers, count = sorted(map(int, config.id2label)), len(config.id2label)
    if numbers != list(range(count)):
        named = f"{numbers[0]} to {numbers[-1]}"
        raise ValueError(
            f"{config.name_or_path}/config.json: id2label names {count} classes by the numbers {named}; they must be "
            f"the outputs 0 to {count - 1}. Write the number of each output there, and N/A for one without a class"
        )
    return tuple(str(config.id2label[i]) for i in range(count))
