"""What a teacher is: images in, one dictionary of targets per image out.

An image's answer never depends on the other images of its batch: only inputs of one shape are stacked, and nothing is
padded for the batch's sake. So a retry or another batch size gives the same labels.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from polyteach.tasks.contract import Objective, Target


class Teacher(ABC):
    """A model that answers one or more objectives about images.

    objectives: what it answers, by a short name, usually the task's. A teacher with several (an own student, a
    panoptic model) makes one label set for each.
    origin: where the weights come from (file, hub name); sha256 of the weights, and of what lies beside them and
    determines the answer; licence, None where unknown.
    learning_rate, batch_size, optimizer: of its training, where recorded: the student's loss weights read them.
    bulk: bytes that the store keeps of one image's answer, about, where that is so much that it should be known before.
    optimizer: "sgd" or "adamw", or another name, with which no student's learning rate is compared.
    """

    spec: str = ""
    objectives: dict[str, Objective]
    origin: str = ""
    sha256: str | None = None
    licence: str | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    optimizer: str | None = None
    bulk: int = 0

    def compute(self, name: str) -> list[dict[str, Any]]:
        """What the teacher called `name` has cost to train, and its own teachers: of, name, images, flops, seconds.

        `of` tells entries of the same training apart from others. Empty where it is not known.
        """
        return []

    @abstractmethod
    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        """One answer per image and objective, on the CPU, in pixels of that image; images may differ in size.

        images: uint8 RGB on the CPU. Maps cover the whole image but may keep the model's own resolution.
        """


class Chained(Teacher):
    """A teacher that is asked about images with what another answered, such as masks in that one's boxes.

    needs: task and name of the label set whose answers it is given. Before `follow` it has no objectives.
    """

    needs: tuple[str, str]

    @abstractmethod
    def follow(self, source: Objective) -> None:
        """Take over what the label set that it needs is about, so that `objectives` is known.

        Raises:
            ValueError: it can do nothing with answers of that kind.
        """

    @abstractmethod
    def example(self, size: tuple[int, int]) -> Target:
        """An answer that it could be given with an image of (height, width) `size`; shows whether it works at all."""

    @abstractmethod
    def __call__(
        self, images: Sequence[UInt8[Tensor, "3 _ _"]], given: Sequence[Target] = (), /
    ) -> list[dict[str, Target]]:
        """As of any teacher. given: for each image the answer of the set that it needs, in that image's pixels."""
