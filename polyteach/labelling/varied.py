"""Varied: a teacher that is asked about an image several times, mirrored and at other sizes, for one answer.

What the field calls test-time augmentation. The answers are brought back to the image by the task's own `view`, and put
together by its `fused`, as `train --combine fuse` puts together several teachers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import product
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from polyteach.ground.geometry import View
from polyteach.labelling.options import Asking
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Target
from polyteach.teachers.contract import Teacher

HELD = 2**26
"""Pixels, in all views together, whose answers are held at a time: 800 MB of maps of classes."""


def varied(teacher: Teacher, name: str, asking: Asking) -> Teacher:
    """The teacher as `asking` says that it is to be asked: itself, or one that asks it about several views.

    Raises:
        ValueError: answers of one of its tasks cannot be put together.
    """
    if not asking.views:
        return teacher
    for objective in teacher.objectives.values():
        if "fuse" not in load_task(objective.task).combines:
            raise ValueError(
                f"{name}: flip and scales put several answers to an image together, which those of {objective.task} "
                "cannot be; label with this teacher alone, without them"
            )
    return Varied(teacher, asking.scales, asking.flip)


class Varied(Teacher):
    """Answers for the teacher it is made of, as that one in all but how it is asked."""

    def __init__(self, teacher: Teacher, scales: Sequence[float], flip: bool) -> None:
        vars(self).update(vars(teacher))  # what it says of itself, and its network, whose operations are counted
        self.teacher = teacher
        self.ways = list(product(scales, (False, True) if flip else (False,)))

    def compute(self, name: str) -> list[dict[str, Any]]:
        return self.teacher.compute(name)

    def __call__(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[dict[str, Target]]:
        return [answer for some in self._chunks(images) for answer in self._answers(some)]

    def _chunks(self, images: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """The images, as many at a time as answers may be held of."""
        chunk: list[Tensor] = []
        held = 0.0
        each = sum(scale**2 for scale, _ in self.ways)
        for image in images:
            size = each * image.shape[1] * image.shape[2]
            if chunk and held + size > HELD:
                yield chunk
                chunk, held = [], 0.0
            chunk.append(image)
            held += size
        if chunk:
            yield chunk

    def _answers(self, images: Sequence[Tensor]) -> list[dict[str, Target]]:
        found: list[dict[str, list[Target]]] = [{} for _ in images]
        for scale, mirrored in self.ways:
            views = [_view((int(i.shape[1]), int(i.shape[2])), scale, mirrored) for i in images]
            seen = [image if v is None else v.image(image) for image, v in zip(images, views, strict=True)]
            answers = self.teacher(seen)
            if len(answers) != len(images):
                raise ValueError(f"{len(answers)} answers for {len(images)} images")
            for mine, image, view, answer in zip(found, seen, views, answers, strict=True):
                for key, target in answer.items():
                    mine.setdefault(key, []).append(_back(target, self.objectives[key], view, image))
        return [{k: self._one(k, targets) for k, targets in mine.items()} for mine in found]

    def _one(self, key: str, targets: Sequence[Target]) -> Target:
        objective = self.objectives[key]
        one: Target = load_task(objective.task).fused(targets, objective.space)
        return one


def _view(size: tuple[int, int], scale: float, mirrored: bool) -> View | None:
    """How an image of (height, width) `size` is seen; None where it is seen as it is."""
    seen = max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
    return None if seen == size and not mirrored else View(size, 0, 0, *size, seen, mirrored)


def _back(target: Target, objective: Objective, view: View | None, seen: Tensor) -> Target:
    """The answer to what was seen as one to the image.

    Raises:
        ValueError: it is unfit for what was seen, as `Task.check` says: put together with others it would look fit.
    """
    task = load_task(objective.task)
    checked: Target = task.check(target, (int(seen.shape[1]), int(seen.shape[2])), objective.space)
    if view is None:
        return checked
    back = view.inverse()
    size = _cells(checked)
    if size is not None and size != back.source:  # of a resolution of its own, which it keeps
        back = View(back.source, back.top, back.left, back.height, back.width, size, back.mirrored)
    moved: Target = task.view(checked, back)
    return moved


def _cells(target: Target) -> tuple[int, int] | None:
    """(height, width) of an answer's largest map; None where something of it is in pixels of the image."""
    how = {f.name: f.metadata["column"] for f in fields(target)}
    if any(column.unit == "pixels" for column in how.values()):
        return None
    maps = [getattr(target, name) for name, column in how.items() if column.kind in ("map", "features")]
    sizes = [(int(m.shape[-2]), int(m.shape[-1])) for m in maps if m is not None]
    return max(sizes, key=lambda s: s[0] * s[1], default=None)


def told(name: str, asking: Asking) -> str:
    """What it costs, in a sentence."""
    scales = ", ".join(f"{s:g}" for s in asking.scales)
    sizes = "at its own size" if asking.scales == (1.0,) else f"at {scales} times its size"
    times = len(asking.scales) * (1 + asking.flip)
    area = sum(s**2 for s in asking.scales) * (1 + asking.flip)
    how = "as it is and mirrored, " if asking.flip else ""
    return f"{name} is asked {times} times about each image ({how}{sizes}), {area:.3g} times as many pixels in all"
