"""Models of transformers that answer depth or normals."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from polyteach.tasks.contract import Objective, Space, Target
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.normals import NormalsTarget
from polyteach.teachers._axes import AXES, axes_of
from polyteach.teachers._maps import map_size, resized, size_of, unit_normals
from polyteach.teachers._torch import by_shape
from polyteach.teachers._transformers_asking import HubTeacher
from polyteach.teachers._transformers_check import KINDS
from polyteach.teachers._transformers_places import placed, unpadded


@final
class Depth(HubTeacher):
    """Depth of every cell of a map at the resolution of the model's output.

    kind: what it means, by whoever asks, where the model's own files do not say it.
    """

    options = ("kind",)

    def __init__(self, model: Any, processor: Any, device: str, precision: str, kind: str | None = None) -> None:
        super().__init__(model, processor, device, precision)
        if not hasattr(processor, "post_process_depth_estimation"):
            raise ValueError(f"{type(processor).__name__} of {model.config.name_or_path} cannot make maps of answers")
        wanted = inspect.signature(processor.post_process_depth_estimation).parameters
        self.unpads = "source_sizes" in wanted
        if not self.unpads:
            self.find_padding()
        self.objectives = {"depth": Objective("depth", Space((), _depth_kind(model.config, kind)))}

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


@final
class Normals(HubTeacher):
    """Normals of every cell of a map at the resolution of the model's output.

    axes: where x, y and z of the model's vectors point, as in "right up towards". The library says of none of its
    models more than "XYZ".
    """

    options = ("axes",)

    def __init__(self, model: Any, processor: Any, device: str, precision: str, axes: str | None = None) -> None:
        super().__init__(model, processor, device, precision)
        if axes is None:
            raise ValueError(
                f"nothing says where x, y and z of the normals of {self.place} point; say it, as its authors do: "
                f"transformers:{self.place}?axes=right,up,towards, each one of {', '.join(AXES)}"
            )
        self.axes = axes_of(axes, f"transformers:{self.place}: axes")
        self.find_padding()
        self.objectives = {"normals": Objective("normals", Space())}

    def answer(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        def ask(batch: Tensor, positions: list[int]) -> Iterable[Target]:
            found = self.outputs(batch).normals
            if found.dim() != 4 or found.shape[1] != 3:
                raise ValueError(f"{self.place} answers normals of {tuple(found.shape)}, not (B, 3, M, N)")
            seen = int(batch.shape[-2]), int(batch.shape[-1])
            for field, i, x in zip(F.normalize(found, dim=1), positions, batch, strict=True):
                _, _, h, w = placed(x)
                shape = round(field.shape[-2] * h / seen[0]), round(field.shape[-1] * w / seen[1])
                cells = map_size(size_of(images[i]), shape)
                normal, valid = unit_normals(resized(unpadded(field, x), cells), self.axes)
                if not bool(valid.any()):
                    raise ValueError(f"{self.place} answers no normal that has a length, at any cell")
                yield NormalsTarget(normal=normal.cpu(), valid=valid.cpu())

        return [{"normals": t} for t in by_shape([self.inputs(i) for i in images], ask)]


def _depth_kind(config: Any, said: str | None) -> str:
    """ "relative inverse" or "metric", by what the architecture was trained for, or by what is `said` of the model.

    Raises:
        ValueError: an architecture of which it is not known; or it is, and is something else.
    """
    known, why = _known_depth(config)
    wanted, place = KINDS[said] if said else None, config.name_or_path
    # a DPT is MiDaS's by habit alone: people train it in metres too
    if wanted and (wanted == known or not known or config.model_type == "dpt"):
        if config.model_type == "chmv2" and wanted == "metric":
            raise ValueError(f"kind={said} is said of {place}, but {why}; ?kind=relative is what they can be")
        return wanted
    if known and wanted:
        raise ValueError(f"kind={said} is said of {place}, whose depth is {known}: {why}")
    if known:
        return known
    metres = "" if config.model_type == "chmv2" else "?kind=metric (metres) or "
    raise ValueError(
        f"nothing says what the depth of {place} means: {why}. Say it, as its authors do: transformers:{place}, and "
        f"behind it {metres}?kind=relative (larger is nearer, in no unit)"
    )


def _known_depth(config: Any) -> tuple[str, str]:
    """What the depth of a model means, empty where that is not known, and why.

    Raises:
        ValueError: it is of neither kind.
    """
    kind = config.model_type
    if kind in ("depth_anything", "prompt_depth_anything"):
        metric, why = config.depth_estimation_type == "metric", "so says depth_estimation_type in its config.json"
        if kind == "prompt_depth_anything" and not metric:
            raise ValueError(
                f"{config.name_or_path} wants a map of depth beside each image, which teachers are not given; without "
                "it its answers are depth of no known scale, larger where farther: neither metric nor relative inverse"
            )
        return ("metric" if metric else "relative inverse"), why
    if kind in ("zoedepth", "glpn", "depth_pro", "tipsv2_dpt"):
        return "metric", f"a {kind} answers metres"
    if kind == "dpt":  # MiDaS; those on DINOv2 were trained by Oquab et al. on NYU and KITTI, in metres
        backbone = getattr(getattr(config, "backbone_config", None), "model_type", "")
        return ("metric" if backbone == "dinov2" else "relative inverse"), "so are the published ones"
    if kind == "chmv2":
        return "", "a chmv2 answers heights above the ground, larger where nearer to a camera above, and no distances"
    return "", f"it is a {kind}, of which it is not known here"
