"""Who answers: label sets of the store, and teachers that are asked about its images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from polyteach.evaluation.start import Request, What
from polyteach.ground.devices import NoDevice, find_device, warn_if_slow
from polyteach.ground.files import sha256
from polyteach.ground.texts import say
from polyteach.labelling.asking import KEPT, Asker, checked
from polyteach.labelling.cluster import Broken
from polyteach.labelling.options import Predicting
from polyteach.loading.objectives import Named
from polyteach.store import Answer, LabelSet, Store
from polyteach.store.label_folder import CALIBRATION
from polyteach.store.parts import part_name
from polyteach.tasks.contract import Objective, Policy, Space, Target
from polyteach.teachers import load_teacher
from polyteach.teachers.contract import Teacher


@dataclass(frozen=True)
class Side:
    """What a teacher answers, as `common` compares it with a label set."""

    task: str
    name: str
    space: Space
    info: Mapping[str, Any] = field(default_factory=dict)
    path: Any = None


@dataclass(frozen=True)
class Seen:
    """An image: its place in the store, its (height, width), and its pixels where somebody is asked about them.

    image: (3, H, W) uint8, or the reason why there is none.
    """

    id: str
    part: int
    row: int
    size: tuple[int, int]
    image: Tensor | str | None = None


class Answerer(ABC):
    """sides: what is answered, by a key of its own."""

    what: What
    sides: Mapping[str, Named]
    looks: bool
    """Whether it needs the images' pixels."""

    @abstractmethod
    def answers(self, images: Sequence[Seen]) -> list[dict[str, Answer]]:
        """By key, the answer to each image, or why there is none. The images are of one part, in its order."""

    @abstractmethod
    def about(self, parts: Sequence[int]) -> dict[str, Any]:
        """Where the answers come from, as JSON values. parts: those of the images."""


class Kept(Answerer):
    """Label sets of the store, calibrated where they are, as training takes them."""

    looks = False

    def __init__(self, what: What, store: Store) -> None:
        self.what = what
        self.sets = {f"{task}/{name}": LabelSet(store, task, name) for task, name in what.sets}
        self.sides = self.sets

    def answers(self, images: Sequence[Seen]) -> list[dict[str, Answer]]:
        out: list[dict[str, Answer]] = [{} for _ in images]
        part, rows = images[0].part, [image.row for image in images]
        for key, labels in self.sets.items():
            read = labels.read(part, rows) if labels.has(part) else [None] * len(rows)
            for said, answer in zip(out, read, strict=True):
                said[key] = labels.calibrated(answer, Policy()) if isinstance(answer, Target) else answer
        return out

    def about(self, parts: Sequence[int]) -> dict[str, Any]:
        sets = [label_set_about(labels, parts) for labels in self.sets.values()]
        return {"what": self.what.given, "kind": self.what.kind, "label_sets": sets}


class Asked(Answerer):
    """A teacher, or a trained student."""

    looks = True

    def __init__(self, what: What, predicting: Predicting) -> None:
        self.what, self.predicting = what, predicting
        teacher, self.place = _loaded(what.spec, predicting)
        self.asker = Asker(teacher, {}, self.place)
        info = {"teacher": {"sha256": teacher.sha256}} if teacher.sha256 else {}
        self.objectives: dict[str, Objective] = dict(teacher.objectives)
        self.sides = {k: Side(o.task, k, o.space, info, what.given) for k, o in self.objectives.items()}

    def answers(self, images: Sequence[Seen]) -> list[dict[str, Answer]]:
        """As `label` asks.

        Raises:
            ValueError: the device failed, or the teacher fails for every image.
        """
        good = [(i, x.image) for i, x in enumerate(images) if isinstance(x.image, Tensor)]
        out: list[dict[str, Answer]] = [dict.fromkeys(self.sides, f"image: {x.image}") for x in images]
        try:
            found = self.asker.answers([image for _, image in good]) if good else []
            for (i, image), answer in zip(good, found, strict=True):
                said = {k: checked(answer, k, images[i].size, o) for k, o in self.objectives.items()}
                out[i] = said
                self.asker.note(self.objectives, image, all(isinstance(a, str) for a in said.values()))
        except Broken as e:
            raise ValueError(str(e).replace(KEPT, "Mend the cause, then give the same command again")) from e
        return out

    def about(self, parts: Sequence[int]) -> dict[str, Any]:
        teacher = self.asker.teacher
        return {
            "what": self.what.given, "kind": self.what.kind, "spec": teacher.spec, "origin": teacher.origin,
            "sha256": teacher.sha256, "licence": teacher.licence, "device": self.place,
            "precision": self.predicting.precision,
        }  # fmt: skip


def answerers(request: Request, store: Store) -> list[Answerer]:
    """Everybody who is asked for.

    Raises:
        ValueError: a teacher cannot be loaded, or not on its device.
    """
    return [Kept(w, store) if w.sets else Asked(w, request.predicting) for w in request.what]


def _loaded(spec: str, predicting: Predicting) -> tuple[Teacher, str]:
    """The teacher, and the device that it is on: with "auto" the CPU where it runs on nothing else."""
    place = find_device(predicting.device)
    try:
        teacher = load_teacher(spec, place, predicting.precision)
    except NoDevice as e:
        if predicting.device != "auto":
            raise ValueError(f"{e}. Say --device cpu") from e
        say(f"{spec}: {e}; it runs on the CPU")
        teacher, place = load_teacher(spec, "cpu", predicting.precision), "cpu"
    warn_if_slow(torch.device(place).type, predicting.precision)
    return teacher, place


def label_set_about(labels: LabelSet, parts: Sequence[int]) -> dict[str, Any]:
    """Of a label set its name, who made it, and the digest of each file that was read; parts: the numbers of these."""
    files = ["set.json", CALIBRATION, *(part_name(p) for p in parts)]
    return {
        "set": f"{labels.task}/{labels.name}",
        "teacher": labels.info.get("teacher"),
        "calibrated": labels.calibration_record() is not None,
        "sha256": {name: sha256(labels.path / name) for name in files if (labels.path / name).is_file()},
    }
