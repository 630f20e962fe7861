"""Answers of `polyteach predict` on the disk, as they come: a store that grows part by part, and drawings."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor
from torchcodec.encoders import PngEncoder

from polyteach.ground.files import replacing
from polyteach.store import ImageRow, LabelSet, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Target
from polyteach.teachers.contract import Teacher
from polyteach.version import __version__

HELD = 2**28
"""Bytes of frames that are held before a part of the store is written, though it could have more images."""


@dataclass
class _Part:
    """What is to be written together: rows with their encoded answers by objective, rejects; and bytes of frames."""

    number: int
    rows: list[tuple[ImageRow, dict[str, dict[str, Any]]]] = field(default_factory=list)
    rejects: list[tuple[str, str | None, str]] = field(default_factory=list)
    held: int = 0


class Keeper:
    """A store of answers in a folder: images by reference (frames of videos by their pixels), one label set for each
    objective, rejects. A part is written when it is full, and what is whole stays where the run is stopped.

    done: ids of images and rejects that an earlier run of the same command left in whole parts.
    """

    def __init__(self, path: Path, teacher: Teacher) -> None:
        """Begin a store, or go on with one.

        Raises:
            ValueError: the store is of another student.
        """
        self.store = Store.open(path) if (path / "store.json").exists() else Store.create(path)
        info = {"teacher": {"spec": teacher.spec, "sha256": teacher.sha256}, "polyteach": __version__}
        self.sets: dict[str, LabelSet] = {
            k: self.store.create_set(o.task, k, o.space, info) for k, o in teacher.objectives.items()
        }
        whole = [all(labels.has(part) for labels in self.sets.values()) for part in self.store.parts()]
        begun = whole.index(False) if False in whole else len(whole)
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        rejected = [part for part in self.store.reject_parts() if part < begun]
        for id, _, reason in self.store.rejects(rejected):
            self.failed[id] = reason
        for part in range(begun):
            self.done.update(self.store.ids(part))
        self._before, self._next = begun, _Part(begun)

    def answers(self) -> dict[str, dict[str, Target]]:
        """What the whole parts have of an earlier run, by id."""
        out: dict[str, dict[str, Target]] = {id: {} for id in self.done}
        for part in range(self._before):
            for name, labels in self.sets.items():
                for id, answer in zip(self.store.ids(part), labels.read(part), strict=True):
                    assert isinstance(answer, Target)
                    out[id][name] = answer
        return out

    def add(self, id: str, image: UInt8[Tensor, "3 H W"], file: str | None, answers: Mapping[str, Target]) -> None:
        """One answered image. file: where it lies; None where its pixels are to be kept."""
        data = None if file is not None else encoded(image)
        uri = None if file is None else os.path.realpath(file)
        row = ImageRow(id, int(image.shape[1]), int(image.shape[2]), data, uri)
        kept = {name: labels.encode(answers[name]) for name, labels in self.sets.items()}
        self._next.rows.append((row, kept))  # at once: Ctrl-C may come between any two steps
        self._next.held += len(data or b"")
        if len(self._next.rows) >= self.store.part_size or self._next.held >= HELD:
            self._flush()

    def refuse(self, id: str, file: str, reason: str) -> None:
        """One image that has no answer, or cannot be kept."""
        self._next.rejects.append((utf8(id), utf8(os.path.abspath(file)), reason))

    def close(self) -> None:
        """Write what is left."""
        if self._next.rows or self._next.rejects:
            self._flush()

    def _flush(self) -> None:
        part = self._next
        self.store.write_rejects(part.number, part.rejects)
        if part.rows:
            self.store.write_images(part.number, [row for row, _ in part.rows])
            ids = [row.id for row, _ in part.rows]
            for name, labels in self.sets.items():
                labels.write_encoded(part.number, ids, [kept[name] for _, kept in part.rows])
        self._next = _Part(part.number + 1)


class Drawings:
    """Drawings of answers in a folder, each image's of each objective by a name of its own, the same in every run."""

    def __init__(self, out: Path, objectives: Mapping[str, Objective]) -> None:
        self._out, self._objectives = out, objectives
        self._taken: set[int] = set()

    def title(self, id: str) -> str:
        """What an image's drawings are called; to be asked for every image, also one that is not drawn."""
        video, frame, number = id.rpartition("#")
        own = f"{Path(video).stem}#{number}" if frame and number.isdigit() and not os.path.exists(id) else Path(id).stem
        name, n = own, 2
        while hash(name) in self._taken:  # two folders may hold the same file name
            name, n = f"{own}-{n}", n + 1
        self._taken.add(hash(name))
        return name

    def draw(self, title: str, image: UInt8[Tensor, "3 H W"], answers: Mapping[str, Target]) -> None:
        """Write the image with each of its answers drawn on it, as PNG files.

        Raises:
            ValueError: an objective's name leads out of the folder.
        """
        for name, target in answers.items():
            objective = self._objectives[name]
            path = self._out / f"{title}.{name}.png"
            if not path.resolve().is_relative_to(self._out.resolve()):  # of a teacher whose names nobody looked at
                raise ValueError(f"objective {name!r} would be drawn outside of {self._out}")
            drawing = load_task(objective.task).draw(image, target, objective.space)
            with replacing(path) as temporary:  # and not to_file, which takes no name that is no UTF-8
                temporary.write_bytes(encoded(drawing))


def encoded(image: UInt8[Tensor, "3 H W"]) -> bytes:
    """As PNG."""
    return bytes(PngEncoder(image).to_tensor().numpy().tobytes())


def utf8(text: str) -> str:
    """What cannot be written so, such as a file's name that is no UTF-8, as \\udcff; else it would be an error."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
