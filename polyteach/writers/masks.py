"""PNG files beside images: the class of each pixel, depth, or normals.

    OUT/images/train/a.jpg      OUT/masks/train/a.png       with OUT/classes.txt; or depth/, normals/

Classes: a PNG of indices with a palette; 255 is unknown. Of more than 255 classes one of 16 bits, in which 65535 is.
Metric depth: 16 bits, metres are value * `--depth-scale`, 0 is unknown. Relative depth: each image's range as 1..65504
(it has no scale of its own), larger is nearer, 0 is unknown. Normals: 8-bit RGB, a component of -1..1 as 0..255, in the
axes of normal maps (x right, y up, z towards the camera); unknown is 128, 128, 128.

A map is written at its image's size; one that is kept at another size is brought to it by the nearest cell.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image

from polyteach.ground.geometry import View, whole
from polyteach.ground.images import palette
from polyteach.tasks.depth import METRIC, DepthTarget
from polyteach.tasks.normals import NormalsTarget
from polyteach.tasks.segmentation import IGNORE, TASK, SegmentationTarget, size_of_map
from polyteach.tasks.target import Policy, Target
from polyteach.writers import About, LabelWriter, Sample
from polyteach.writers._names import class_lines

_VOID, _DEEP = 255, 65535
_LARGEST = 65504
"""Step of the nearest pixel of relative depth: the largest float16, so that whoever keeps it as such loses nothing."""
_FOLDERS = {"segmentation": "masks", "depth": "depth", "normals": "normals"}
_SURE = "maps had probabilities, which PNG files of classes have not"
_UNSURE = "pixels have a probability below {:g} and were written as unknown (--score)"
_SIZED = "maps were of another size than their images, and were brought to it"
_FAR = "pixels are farther than the {:g} metres that 16 bits reach, and were written as unknown (--depth-scale)"
_NEAR = "pixels are nearer than the {:g} metres of one step, and were written as unknown (--depth-scale)"


class Writer(LabelWriter):
    """A PNG file for each image."""

    tasks: ClassVar[tuple[str, ...]] = tuple(_FOLDERS)
    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {"depth_scale": ("depth",)}

    def __init__(self, folder: Path, about: About) -> None:
        super().__init__(folder, about)
        self._maps = _FOLDERS[about.task]
        names = about.space.names
        self._deep = len(names) > _VOID
        if about.task == "segmentation":
            void = _DEEP if self._deep else _VOID
            self.told.read = f"masks:{{}}?void={void}"
            (folder / "classes.txt").write_text(class_lines(names), encoding="utf-8")
            self.told.notes.append(f"pixels that nobody named are {void}")
        elif about.task == "depth":
            metric = about.space.kind == METRIC
            self.told.read = f"depth-png:{{}}?scale={about.scale:g}" if metric else "depth-png:{}?kind=relative"
            how = f"metres are value * {about.scale:g}" if metric else "larger is nearer, each image by its own scale"
            self.told.notes.append(f"{how}; 0 is unknown")
            if not metric and about.scale != About.scale:
                raise ValueError(f"--depth-scale {about.scale:g}: {about.task}/{about.name} is relative and has none")
        else:
            self.told.notes.append("x is right, y up, z towards the camera; 128, 128, 128 is unknown")

    def add(self, sample: Sample, target: Target) -> None:
        within = sample.file.removeprefix("images/")
        path = self.folder / self._maps / within
        path = path.parent / f"{path.name.removesuffix(Path(within).suffix) or path.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._image(sample, target).save(path, format="PNG")

    def _image(self, sample: Sample, target: Target) -> Image.Image:
        if isinstance(target, SegmentationTarget):
            return self._classes(target, sample.size)
        if isinstance(target, DepthTarget):
            return self._depth(target, sample)
        assert isinstance(target, NormalsTarget)
        view = self._view((target.valid.shape[0], target.valid.shape[1]), sample.size)
        valid = view.dense(target.valid, False)
        normal = view.dense(target.normal, 0).float() * torch.tensor([1.0, -1.0, -1.0])[:, None, None]
        pixels = ((normal + 1) * 127.5).round().clamp(0, 255).masked_fill(~valid, 128).to(torch.uint8)
        return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())

    def _view(self, cells: tuple[int, int], size: tuple[int, int]) -> View:
        self.told.lost[_SIZED] += cells != size
        return whole(cells, size)

    def _classes(self, target: SegmentationTarget, size: tuple[int, int]) -> Image.Image:
        if not self.about.people:
            kept = TASK.pseudo(target, Policy(score=self.about.score))
            self.told.lost[_UNSURE.format(self.about.score)] += int((kept.category != target.category).sum())
            self.told.lost[_SURE] += 1
            target = kept
        category = self._view(size_of_map(target), size).dense(target.category, IGNORE)
        if self._deep:
            return Image.fromarray(category.numpy().astype(np.uint16))
        image = Image.fromarray(category.masked_fill(category == IGNORE, _VOID).to(torch.uint8).numpy(), mode="P")
        colours = torch.zeros(256, 3, dtype=torch.uint8)
        names = len(self.about.space.names)
        colours[:names], colours[_VOID] = palette(names), 255
        image.putpalette(colours.flatten().tolist())
        return image

    def _depth(self, target: DepthTarget, sample: Sample) -> Image.Image:
        view = self._view((target.value.shape[0], target.value.shape[1]), sample.size)
        value, valid = view.dense(target.value, 0).double().numpy(), view.dense(target.valid, False).numpy()
        if self.about.space.kind == METRIC:
            valid = valid & (value > 0)
            steps = np.rint(value / self.about.scale)
            far, near = valid & (steps > _DEEP), valid & (steps < 1)
            self.told.lost[_FAR.format(_DEEP * self.about.scale)] += int(far.sum())
            self.told.lost[_NEAR.format(self.about.scale)] += int(near.sum())
            return _grey(np.where(valid & ~far & ~near, steps, 0))
        known = value[valid]
        if not len(known):
            return _grey(np.zeros(sample.size))
        low, high = float(known.min()), float(known.max())
        share = (value - low) / (high - low) if high > low else np.ones_like(value)
        return _grey(np.where(valid, 1 + np.rint(share.clip(0, 1) * (_LARGEST - 1)), 0))


def _grey(values: Shaped[np.ndarray, "H W"]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint16))
