"""A teacher of every task, `python:teacher.py:FUNCTION`, as a user may have written it for an earlier version.

It answers by comparing, counting and dividing alone, so that its answers are the same on every machine.
"""

import torch

from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.normals import NormalsTarget
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers import Teacher

CLASSES = ("red", "green", "blue")
WALL = 3
OBJECTIVES = {
    "classification": Objective("classification", Space(CLASSES)),
    "detection": Objective("detection", Space(CLASSES, "boxes and masks")),
    "segmentation": Objective("segmentation", Space((*CLASSES, "wall"))),
    "depth": Objective("depth", Space(kind="relative inverse")),
    "normals": Objective("normals", Space()),
}


def colours(image):
    """(3, H, W) bool: where each class's colour is well above the two others. image: (3, H, W) uint8."""
    values = image.short()
    return torch.stack([values[c] > values[[d for d in range(3) if d != c]].amax(0) + 60 for c in range(3)])


def answer(image, sure):
    """The targets of one image, by objective. sure: score of the boxes and probability of the pixels, 0 to 1."""
    shown = colours(image)
    counts = shown.flatten(1).sum(1).float() + 1
    there = [c for c in range(3) if shown[c].sum() >= 4]
    boxes = []
    for c in there:
        rows, columns = (shown[c].any(d).nonzero()[:, 0] for d in (1, 0))
        boxes.append([float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1])
    category = torch.full(image.shape[1:], WALL)
    for c in range(3):
        category[shown[c]] = c
    near = category != WALL
    grey = image.float().sum(0)
    normal = torch.tensor([0.6, 0.0, -0.8]).view(3, 1, 1) * near + torch.tensor([0.0, 0.0, -1.0]).view(3, 1, 1) * ~near
    return {
        "classification": ClassificationTarget(probability=counts / counts.sum()),
        "detection": DetectionTarget(
            box=torch.tensor(boxes).reshape(-1, 4),
            category=torch.tensor(there, dtype=torch.long),
            score=torch.tensor([sure * (1 - c / 4) for c in there]),
            ignore=torch.zeros(len(there), dtype=torch.bool),
            mask=shown[there] if there else torch.zeros(0, *image.shape[1:], dtype=torch.bool),
        ),
        "segmentation": SegmentationTarget(
            category=category, probability=torch.where(near, sure, sure / 2 + 0.25) * torch.ones(image.shape[1:])
        ),
        "depth": DepthTarget(value=(grey + 256 * near) / 1024, valid=grey > 90),
        "normals": NormalsTarget(normal=normal, valid=torch.ones(image.shape[1:], dtype=torch.bool)),
    }


class All(Teacher):
    """Answers every task; fails for images that are dark at the left upper corner."""

    objectives = OBJECTIVES
    learning_rate, batch_size, optimizer, licence = 0.02, 8, "sgd", "CC0-1.0"

    def __call__(self, images):
        answers = [answer(image, 0.875) for image in images]
        for image, found in zip(images, answers, strict=True):
            if int(image[:, 0, 0].sum()) < 60:
                found["depth"] = DepthTarget(value=found["depth"].value * float("nan"), valid=found["depth"].valid)
        return answers


class Classes(Teacher):
    """Answers with the class alone."""

    objectives = {"classification": OBJECTIVES["classification"]}  # noqa: RUF012

    def __call__(self, images):
        return [{"classification": answer(image, 0.5)["classification"]} for image in images]


def everything(device, precision):
    """A teacher of five tasks."""
    return All()


def classes(device, precision):
    """A teacher of one task."""
    return Classes()
