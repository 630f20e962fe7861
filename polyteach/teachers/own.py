"""Own students as teachers: `own:RUN`, where RUN is a folder that `polyteach train` wrote."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from polyteach.ground.devices import PRECISIONS
from polyteach.ground.fields import Fields
from polyteach.ground.files import sha256
from polyteach.model.student import DESCRIPTION, WEIGHTS, costs, describe_student, load_student
from polyteach.tasks.contract import Target
from polyteach.teachers._torch import ordinary
from polyteach.teachers.contract import Teacher


class OwnTeacher(Teacher):
    """A trained student; answers every objective that it has a head for, at the input size of its training."""

    def __init__(self, run: str, device: str, precision: str) -> None:
        about = describe_student(run)
        if not about["objectives"]:
            raise ValueError(
                f"{run} has no heads, only a backbone; train some with: polyteach train STORE --init {run}"
            )
        if about.get("size") is None:
            raise ValueError(f"{run}/{DESCRIPTION} has no size, that of the images it was trained on; train it again")
        self.student = load_student(run, device)
        self.objectives = self.student.objectives
        self.size = (int(about["size"][0]), int(about["size"][1]))
        self.origin = run
        self.sha256 = sha256(f"{run}/{WEIGHTS}")
        self.learning_rate = about.get("learning_rate")
        self.batch_size = about.get("batch_size")
        self.optimizer = about.get("optimizer") or _optimizer(Path(run))
        self.licence = about.get("licence")
        self._device, self._dtype = torch.device(device), PRECISIONS[precision]

    def compute(self, name: str) -> list[dict[str, Any]]:
        return costs(self.origin, name)

    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        if not images:
            return []
        lower = self._dtype != torch.float32
        with torch.autocast(self._device.type, self._dtype, enabled=lower):
            answers = self.student.answer(images, self.size)
        return [{k: ordinary(t) for k, t in answer.items()} for answer in answers]


def _optimizer(run: Path) -> Any:
    """Of a run whose student.json does not say it yet: its options do."""
    file = run / "config.json"
    return Fields.read(file).object("options", null=True).text("optimizer", null=True) if file.is_file() else None


def load(name: str, device: str, precision: str) -> OwnTeacher:
    """The student in the folder `name`.

    Raises:
        ValueError: no finished run there, or one without heads.
    """
    return OwnTeacher(name, device, precision)
