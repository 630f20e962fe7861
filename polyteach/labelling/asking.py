"""Asking a teacher: in batches that its memory is enough for, and with an eye on whether it works at all."""

import gc
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from polyteach.ground.flops import counted
from polyteach.ground.texts import say
from polyteach.labelling.cluster import Broken
from polyteach.store import Answer, LabelSet
from polyteach.tasks import load_task
from polyteach.tasks.target import Objective, Target
from polyteach.teachers.contract import Chained, Teacher

SUSPECT = 8
"""Images in a row for which a teacher failed, after which it is asked about a plain image."""
KEPT = "What was labelled before is kept: mend the cause, then give the same command again"


class Asker:
    """A teacher on its device, its label sets by objective, and what was seen of how it works.

    most: images that its memory was seen to be enough for, where it was not for a batch. failures: images in a row that
    it has failed for. smallest: the smallest image that it has answered. flops: operations for an image; None where
    they cannot be counted, and before they were. source: the label set whose answers the teacher is asked with.
    """

    def __init__(
        self, teacher: Teacher, sets: Mapping[str, LabelSet], place: str, source: LabelSet | None = None
    ) -> None:
        self.teacher, self.sets, self.place, self.source = teacher, sets, place, source
        self.most: int | None = None
        self.failures = 0
        self.smallest: Tensor | None = None
        self.flops: float | None = None
        self._counted = False

    def answers(self, images: Sequence[Tensor], given: Sequence[Target] = ()) -> list[Any]:
        """An answer per image, or the reason why there is none.

        given: of a chained teacher, what it is asked with; one for each image.

        Raises:
            Broken: its device answers no more.
        """
        out: list[Any] = []
        while len(out) < len(images):
            most = len(images) if self.most is None else self.most
            batch = images[len(out) : len(out) + most]
            answers = ask(self.teacher, batch, self.place, given[len(out) : len(out) + most])
            if answers is None:
                self.most = most = max(len(batch) // 2, 1)
                say(f"{self.teacher.spec}: memory is not enough for {len(batch)} images; {most} from now on")
                continue
            out += answers
        return out

    def timed(self, images: Sequence[Tensor], given: Sequence[Target] = ()) -> tuple[list[Any], float]:
        """`answers`, and the seconds that they took; at the first ones its operations are counted."""
        start = time.monotonic()
        answers = self.answers(images, given)
        seconds = time.monotonic() - start
        if not self._counted and not isinstance(answers[0], str):
            # the first image stands for all, and is asked about again: while torch counts it computes some operations
            # otherwise, so that answers would differ in their last bits between a run and one that goes on
            networks = any(isinstance(held, Module) for held in vars(self.teacher).values())
            example = self.examples(images[:1])
            self.flops = counted(lambda: ask(self.teacher, images[:1], self.place, example))[1] if networks else None
            self._counted = True
        return answers, seconds

    def examples(self, images: Sequence[Tensor]) -> list[Target]:
        """What a chained teacher can be asked with about any image; nothing for any other."""
        if not isinstance(self.teacher, Chained):
            return []
        return [self.teacher.example((int(image.shape[1]), int(image.shape[2]))) for image in images]

    def note(self, sets: Mapping[str, LabelSet | Objective], image: Tensor | str, failed: bool) -> None:
        """Note that an image failed, or did not; after many in a row see whether the teacher works at all.

        Raises:
            Broken: it does not.
        """
        self.failures = self.failures + 1 if failed else 0
        if self.failures >= SUSPECT:
            self.check_works(sets)
        elif not failed and isinstance(image, Tensor) and self._is_smallest(image):
            self.smallest = image

    def _is_smallest(self, image: Tensor) -> bool:
        return self.smallest is None or image.numel() < self.smallest.numel()

    def check_works(self, sets: Mapping[str, LabelSet | Objective]) -> None:
        """Tell images that a teacher fails for from a teacher that works no longer, or never did.

        It is asked about an image that it has answered: a teacher may refuse images of a kind, such as those without a
        face. Before the first of those there is but a plain image.

        Raises:
            Broken: it failed for the last images, and does for that one.
        """
        many = self.failures
        if many < 2:  # one image is one image
            return
        self.failures = 0
        image = plain_image() if self.smallest is None else self.smallest
        [answer] = self.answers([image], self.examples([image]))
        size = (int(image.shape[1]), int(image.shape[2]))
        said = [checked(answer, key, size, labels) for key, labels in sets.items()]
        reasons = [reason for reason in said if isinstance(reason, str)]
        if len(reasons) == len(said):
            raise Broken(
                f"{self.teacher.spec} on {self.place} failed for the last images ({many} in a row) and for "
                f"{'a plain image' if self.smallest is None else 'one that it had answered,'} of {size[0]}x{size[1]}:"
                f" {reasons[0]}. {KEPT}"
            )


def ask(teacher: Teacher, images: Sequence[Tensor], place: str, given: Sequence[Target] = ()) -> list[Any] | None:
    """The teacher's answers; when a batch fails, image by image, so that one bad image costs no other its label.

    None where memory is not enough for that many. given: as `Asker.answers`.

    Raises:
        Broken: the device at `place` answers no more.
    """
    try:
        answers = list(teacher(images, given) if isinstance(teacher, Chained) else teacher(images))
        if len(answers) != len(images):
            raise ValueError(f"{len(answers)} answers for {len(images)} images")
        return answers
    except Exception as e:
        memory = out_of_memory(e)
        if not memory and is_dead(e, place):
            raise Broken(f"{teacher.spec} on {place}: the device failed, {told(e)}. {KEPT}") from e
        if len(images) == 1:
            return [f"teacher: {told(e)}"]
        if memory:
            return None
    return [a for i, image in enumerate(images) for a in ask(teacher, [image], place, given[i : i + 1]) or []]


def checked(answer: Any, key: str, size: tuple[int, int], labels: LabelSet | Objective) -> Answer:
    """The answer made tidy for an image of (height, width) `size`, or why it cannot be used."""
    if isinstance(answer, str):
        return answer
    try:
        if key not in answer:
            return None
        target: Answer = load_task(labels.task).check(answer[key], size, labels.space)
    except ValueError as e:
        return f"teacher: {e}"
    except Exception as e:  # an answer of another shape or type than a target's makes any operation fail
        return f"teacher: {told(e)}"
    return target


def told(error: Exception) -> str:
    """Kind and message, no longer than a person reads: some libraries' are pages."""
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= 500 else f"{text[:500]} ..."


def is_dead(error: Exception, place: str) -> bool:
    """Whether the device is of no more use to this process, rather than one image having been too much for it.

    After some errors every call of CUDA fails until the process ends; after others it works on.
    """
    kind = torch.device(place).type
    if kind == "cuda" and torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize(torch.device(place))
        except RuntimeError:
            return True
        return False
    said = re.search(r"(CUDA|HIP) (error|failure)|device-side assert", str(error))
    return isinstance(error, torch.AcceleratorError) or said is not None


def out_of_memory(error: Exception) -> bool:
    """Whether it says that memory was not enough, on a GPU or here."""
    found = isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(
        # torch on the CPU, CUDA's own, cuBLAS, ONNX Runtime
        re.search("not enough memory|out of memory|STATUS_ALLOC_FAILED|Failed to allocate memory", str(error))
    )
    if found:
        error.__traceback__ = None  # it holds what was computed so far
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return found


def plain_image() -> Tensor:
    """An image that no teacher has a reason to refuse: coloured squares, (3, 256, 256) uint8."""
    squares = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return squares.repeat_interleave(32, 1).repeat_interleave(32, 2)
