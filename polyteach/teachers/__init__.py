"""Teachers: images in, targets out. One file per family, found by its name.

`timm:resnet50` is loaded by `teachers/timm_models.py`, `own:RUN` by `teachers/own.py`. A family's file has one
function `load(name, device, precision) -> Teacher`.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from polyteach.tasks.contract import Objective, Target

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Teacher(ABC):
    """A model that answers one or more objectives about images.

    objectives: what it answers, by a short name, usually the task's. A teacher with several (an own student, a
    panoptic model) makes one label set for each.
    origin: where the weights come from (file, hub name); sha256 of the weights; licence, None where unknown.
    learning_rate, batch_size: of its training, where recorded: the student's loss weights read them.
    """

    spec: str = ""
    objectives: dict[str, Objective]
    origin: str = ""
    sha256: str | None = None
    licence: str | None = None
    learning_rate: float | None = None
    batch_size: int | None = None

    @abstractmethod
    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        """One answer per image and objective, on the CPU, in pixels of that image; images may differ in size.

        images: uint8 RGB on the CPU. Maps cover the whole image but may keep the model's own resolution.
        """


def families() -> dict[str, str]:
    """Family -> module in this folder."""
    return {m.name.removesuffix("_models"): m.name for m in pkgutil.iter_modules(__path__)}


def load_teacher(spec: str, device: str = "cpu", precision: str = "fp32") -> Teacher:
    """The teacher named by FAMILY:NAME, ready to answer.

    device: as torch names it, such as "cuda:0". precision: "fp32", or "fp16" and "bf16" by autocast.

    Raises:
        ValueError: unknown family, model or precision, missing weights; the message lists what there is.
    """
    family, colon, name = spec.partition(":")
    known = families()
    if not colon or not name or family not in known:
        raise ValueError(f"teacher {spec!r} is not FAMILY:NAME with FAMILY one of {', '.join(sorted(known))}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    module: Any = importlib.import_module(f"polyteach.teachers.{known[family]}")
    teacher: Teacher = module.load(name, device, precision)
    teacher.spec = spec
    return teacher
