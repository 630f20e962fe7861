"""Boxes of an ONNX graph: its outputs, or its one output in a known layout, become a target.

Shapes: N boxes of an image, K classes, C prototypes, m n cells of the graph's masks, h w cells of a map over the image.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import batched_nms, box_convert

from polyteach.tasks.detection import BOXES, FLOOR, MASKS, DetectionTarget
from polyteach.teachers._maps import map_size, resized
from polyteach.teachers._onnx_description import Description
from polyteach.teachers._onnx_input import Placement
from polyteach.teachers._onnx_layouts import LAYOUTS, PRESETS, Found

_ADVICE = {
    False: "Boxes and classes in one output, as YOLO exports them, have a `layout` (docs/guide/onnx.md)",
    True: "A grid (batch, channels, rows, columns) holds boxes that are not decoded yet: decode them in the graph, or "
    "ask the network from a function of your own, python:FILE.py:FUNCTION (docs/guide/teachers.md)",
}
"""What to do with a detector's output that is no list of boxes; by whether it is a grid."""
DESCRIBED: tuple[str, ...] = (
    "boxes", "scores", "classes", "count", "format", "unit", "values", "first_class", "masks",
)  # fmt: skip
"""Keys of outputs that a layout of one output has no use for."""
TOGETHER = 16
"""Masks of an image that are enlarged at once."""


def _inside(box: Float[Tensor, "N 4"], size: tuple[int, int]) -> Bool[Tensor, " N"]:
    """Which boxes have an area within an image of (height, width) `size`; those of NaN, which `check` finds, too."""
    low, high = box[:, :2].clamp(min=0), torch.minimum(box[:, 2:], torch.tensor([size[1], size[0]]))
    return (high > low).all(1) | ~box.isfinite().all(1)


class BoxReader:
    """What the outputs of a detector's graph say of an image.

    known: the layout that the description names, or "". names: of the classes, set before it is asked. kind: of the
    labels' space. tensors: what is read -> its name in the graph. main: the one that tells how many images there are.

    Raises:
        ValueError: the description does not fit the graph's outputs.
    """

    def __init__(self, file: Path, output: Description, there: Mapping[str, tuple[Any, ...]], known: str) -> None:
        self.file, self.output, self.known = file, output, known
        self.layout = LAYOUTS.get(known)
        self.tensors = self._tensors(known, list(there))
        self.main = "raw" if self.layout else "boxes"
        self.rank = self.layout.rank if self.layout else 3
        self.fraction = output.choice("unit", "pixels", "fraction") == "fraction"
        self.format = output.choice("format", "xyxy", "yxyx", "xywh", "cxcywh")
        self.values = output.choice("values", "probabilities", "logits", "softmax")
        self.first = int(output.number("first_class", 0))
        self.ignored = int(output.number("ignored", 0))
        self.least = output.number("least_score", FLOOR, 0, 1)
        self.overlap = output.number("overlap", self.layout.overlap if self.layout else 1, 0, 1)
        self.framed = output.choice("mask_frame", "image", "box") == "box"
        self.logits = output.choice("mask_values", "probabilities", "logits") == "logits"
        self.kind = MASKS if {"masks", "prototypes"} & set(self.tensors) else BOXES
        self.names: tuple[str, ...] = ()

    def _tensors(self, known: str, there: list[str]) -> dict[str, str]:
        if self.layout:
            wanted = ["raw"]
            useless = DESCRIBED
        else:
            wanted = ["scores", "boxes"]
            useless = ("raw", "prototypes", "ignored")
        for key in useless:
            if key in self.output:
                of = f"layout {known!r}" if known else "boxes without a layout"
                raise ValueError(f"{self.output.file}: output: {key} is not for {of}")
        optional = [k for k in ("classes", "count", "masks", "prototypes") if k in self.output]
        if known == "rt-detr" and "classes" not in optional:
            optional.append("classes")
        tensors = {}
        for key in (*wanted, *optional):
            usual = [n for n in PRESETS.get(known, {}).get(key, ()) if n in there]
            if key not in self.output and usual:
                tensors[key] = usual[0]
            elif key not in self.output and not (len(there) == 1 and key in ("scores", "raw")):
                raise ValueError(f"{self.output.file}: output: {key} must name one of the outputs {', '.join(there)}")
            else:
                tensors[key] = self.output.choice(key, *there)
        return tensors

    def check(self, shapes: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuse what can be seen of the shapes that the graph gives; those it does not know are looked at later.

        shapes: of the outputs, by what is read.

        Raises:
            ValueError: the shape of an output is none that it could have.
        """
        if self.main not in shapes:
            return
        shape = shapes[self.main]
        what = f"{self.file}: its output {self.tensors[self.main]} has shape {list(shape)}"
        if self.layout:
            if len(shape) not in (self.rank - 1, self.rank):
                raise ValueError(f"{what}; {self._wanted(0)}")
        elif len(shape) not in (2, 3) or (shape[-1] != 4 and isinstance(shape[-1], int)):
            raise ValueError(f"{what}; boxes are (N, 4) or (batch, N, 4). {_ADVICE[len(shape) == 4]}")

    def _wanted(self, extra: int) -> str:
        assert self.layout
        of = f"{len(self.names)} names" + (f" and {extra} further numbers a box" if extra else "")
        return f"layout {self.known!r} with {of} is {self.layout.shape(len(self.names), extra)} for an image"

    def __call__(self, found: Mapping[str, Tensor], seen: Placement) -> DetectionTarget:
        """found: every output that is read, of one image."""
        one = self._raw(found, seen) if self.layout else self._described(found, seen)
        order = torch.where(~(one.score < self.least))[0]  # NaN stays and is found by the task's check
        if self.overlap < 1:
            best_first = batched_nms(
                one.box[order].double(), one.score[order].double(), one.category[order], self.overlap
            )
            order = order[best_first]
        box = seen.boxes(one.box[order])
        if len(box) and not bool(_inside(box, seen.size).any()):
            raise ValueError(
                f"{self.file} answered {len(box)} boxes, and none has an area within the image of {seen.size[0]}x"
                f"{seen.size[1]} (height x width), such as x0, y0, x1, y1 = {[round(x, 1) for x in box[0].tolist()]}; "
                f"look at output: format (now {self.format}) and unit (now {'fraction' if self.fraction else 'pixels'})"
            )
        return DetectionTarget(
            box=box,
            category=one.category[order],
            score=one.score[order],
            ignore=torch.zeros(len(order), dtype=torch.bool),
            mask=self._masks(found, one, order, box, seen),
        )

    def _raw(self, found: Mapping[str, Tensor], seen: Placement) -> Found:
        assert self.layout
        value = found["raw"]
        extra = self.ignored + (len(found["prototypes"]) if "prototypes" in found else 0)
        if value.dim() != self.rank - 1 or not self.layout.fits(tuple(value.shape), len(self.names), extra):
            raise self._wrong("raw", value, self._wanted(extra))
        return self.layout.read(value, len(self.names), extra, (seen.height, seen.width))

    def _described(self, found: Mapping[str, Tensor], seen: Placement) -> Found:
        box, score = found["boxes"], found["scores"]
        if box.dim() != 2 or box.shape[1] != 4:
            raise self._wrong("boxes", box, "(N, 4)")
        if "classes" in found:
            score, category = score.flatten(), found["classes"].flatten() - self.first
            score = score.sigmoid() if self.values == "logits" else score
        else:
            score, category = self._best(score)
        if not len(box) == len(score) == len(category):
            raise ValueError(f"{self.file} answered {len(box)} boxes, {len(score)} scores, {len(category)} classes")
        count = int(found["count"].flatten()[0]) if "count" in found else len(box)
        box, score, category = box[:count], score[:count], category[:count].long()
        if self.fraction:
            width, height = (seen.height, seen.width) if self.format == "yxyx" else (seen.width, seen.height)
            box = box * torch.tensor([width, height]).repeat(2)
        if self.format == "yxyx":
            box = box[:, [1, 0, 3, 2]]
        elif self.format != "xyxy":
            box = box_convert(box, self.format, "xyxy")
        return Found(box, score, category, box[:, :0])

    def _best(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """Score and number of the most probable class of each box."""
        softmax = self.values == "softmax"
        columns = len(self.names) + self.first + softmax
        if score.dim() != 2 or score.shape[1] != columns:
            last = f", the last of them no object ({len(self.names)} names)" if softmax else ""
            raise self._wrong("scores", score, f"(N, {columns}){last}, or name an output of classes")
        if softmax:
            score = score.softmax(1)[:, :-1]
        elif self.values == "logits":
            score = score.sigmoid()
        best = score[:, self.first :].max(1)
        return best.values, best.indices

    def _masks(
        self, found: Mapping[str, Tensor], one: Found, order: Tensor, box: Tensor, seen: Placement
    ) -> Bool[Tensor, "N h w"] | None:
        """Outlines of the boxes at positions `order`. box: those boxes in pixels of the image."""
        if self.kind == BOXES:
            return None
        if "prototypes" in found:
            kernel = found["prototypes"]
            more = one.more[order][:, : len(kernel)]
            # as large as the input before they are cut: their edges lie between the prototypes' cells
            size = (seen.height, seen.width)
            cells = (
                resized((p @ kernel.flatten(1)).view(-1, *kernel.shape[1:]), size)
                for p in more.split(TOGETHER)
                if len(p)
            )
            return self._seen(cells, size, box, seen, least=0, cut=True)
        masks = found["masks"]
        masks = masks[:, 0] if masks.dim() == 4 and masks.shape[1] == 1 else masks
        if masks.dim() != 3 or len(masks) < int(order.max() + 1 if len(order) else 0):
            raise self._wrong("masks", masks, "(N, m, n), one for each box")
        masks = masks[order]
        if self.framed:
            size = map_size(seen.size, (seen.tall, seen.wide))
            scale = torch.tensor([size[1] / seen.size[1], size[0] / seen.size[0]]).repeat(2)
            shown = (masks.sigmoid() if self.logits else masks)[:, None]
            pasted: Tensor = paste_masks_in_image(shown, box * scale, size)[:, 0] > 0.5
            return pasted
        return self._seen(masks.split(TOGETHER), masks.shape[1:], box, seen, 0 if self.logits else 0.5, cut=False)

    def _seen(
        self, parts: Iterable[Tensor], cells: Sequence[int], box: Tensor, seen: Placement, least: float, cut: bool
    ) -> Bool[Tensor, "N h w"]:
        """Masks over the input -> over the image. parts: some each. cells: of one. cut: what lies beyond a box goes."""
        masks = [seen.map(part) > least for part in parts if len(part)]
        if not masks:
            return torch.zeros(0, *seen.map(torch.zeros(1, *cells)).shape[1:], dtype=torch.bool)
        out = torch.cat(masks)
        if cut:
            rows, columns = (torch.arange(n) for n in out.shape[1:])
            scale = torch.tensor([out.shape[2] / seen.size[1], out.shape[1] / seen.size[0]]).repeat(2)
            x0, y0, x1, y1 = (box * scale).T
            out &= ((rows >= y0[:, None]) & (rows < y1[:, None]))[:, :, None]
            out &= ((columns >= x0[:, None]) & (columns < x1[:, None]))[:, None]
        return out

    def _wrong(self, key: str, value: Float[Tensor, "..."], wanted: str) -> ValueError:
        return ValueError(
            f"output {self.tensors[key]} of {self.file} has shape {tuple(value.shape)} for an image, not {wanted}"
        )
