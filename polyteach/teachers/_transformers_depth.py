"""Models of transformers that answer depth."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.depth import DepthTarget
from polyteach.teachers._maps import map_size, size_of
from polyteach.teachers._torch import by_shape
from polyteach.teachers._transformers_asking import HubTeacher
from polyteach.teachers._transformers_places import placed


@final
class Depth(HubTeacher):
    """Depth of every cell of a map at the resolution of the model's output."""

    def __init__(self, model: Any, processor: Any, device: str, precision: str) -> None:
        super().__init__(model, processor, device, precision)
        if not hasattr(processor, "post_process_depth_estimation"):
            raise ValueError(f"{type(processor).__name__} of {model.config.name_or_path} cannot make maps of answers")
        wanted = inspect.signature(processor.post_process_depth_estimation).parameters
        self.unpads = "source_sizes" in wanted
        if not self.unpads:
            self.find_padding()
        self.objectives = {"depth": Objective("depth", Space((), _depth_kind(model.config)))}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            found = self.outputs(batch)
            sizes = [size_of(images[i]) for i in positions]
            shape, seen = found.predicted_depth.shape, (int(batch.shape[-2]), int(batch.shape[-1]))
            places = [placed(x) for x in batch]
            cells = [
                map_size(size, (round(shape[-2] * h / seen[0]), round(shape[-1] * w / seen[1])))
                for size, (_, _, h, w) in zip(sizes, places, strict=True)
            ]
            source = {"source_sizes": sizes} if self.unpads else {}
            if any((h, w) != seen for _, _, h, w in places):
                depths = found.predicted_depth
                maps = [self._cut(d, seen, at, size) for d, at, size in zip(depths, places, cells, strict=True)]
            else:
                processed = self.processor.post_process_depth_estimation(found, target_sizes=cells, **source)
                maps = [m["predicted_depth"] for m in processed]
            for m, size in zip(maps, cells, strict=True):
                value = m.float().cpu().reshape(size)
                yield DepthTarget(value=value, valid=torch.ones(size, dtype=torch.bool))

        return [{"depth": t} for t in by_shape([self.inputs(i) for i in images], ask)]

    @staticmethod
    def _cut(
        field: Float[Tensor, "m n"], seen: tuple[int, int], place: tuple[int, int, int, int], cells: tuple[int, int]
    ) -> Float[Tensor, "M N"]:
        """The part at `place` of a map over an input of (height, width) `seen`; bicubic, as the processors' own way."""
        top, left, height, width = place
        whole = F.interpolate(field[None, None], seen, mode="bicubic")
        part = whole[:, :, top : top + height, left : left + width]
        return F.interpolate(part, cells, mode="bicubic")[0, 0]


def _depth_kind(config: Any) -> str:
    """ "relative inverse" or "metric", by what the architecture was trained for.

    Raises:
        ValueError: an architecture of which it is not known.
    """
    kind = config.model_type
    if kind == "depth_anything":
        return "metric" if config.depth_estimation_type == "metric" else "relative inverse"
    if kind in ("zoedepth", "glpn", "depth_pro"):
        return "metric"
    if kind == "dpt":  # MiDaS; those on DINOv2 were trained by Oquab et al. on NYU and KITTI, in metres
        backbone = getattr(config, "backbone_config", None)
        return "metric" if getattr(backbone, "model_type", "") == "dinov2" else "relative inverse"
    raise ValueError(
        f"what the depth of a {kind} model means is not known here; known are dpt, depth_anything, zoedepth, glpn,"
        " depth_pro"
    )
