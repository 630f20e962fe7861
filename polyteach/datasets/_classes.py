"""Labels of images that people gave one class each."""

import torch

from polyteach.datasets import Labels
from polyteach.tasks.classification import ClassificationTarget


def of_class(index: int, classes: int, where: str) -> Labels:
    """The labels of an image that people gave one class of `classes`.

    Raises:
        ValueError: no such class; says `where` it stands.
    """
    if not 0 <= index < classes:
        raise ValueError(
            f"{where}: class index {index} is out of range; there are {classes:,} classes, 0..{classes - 1}"
        )
    probability = torch.zeros(classes)
    probability[index] = 1
    return {"classification": ClassificationTarget(probability=probability)}
