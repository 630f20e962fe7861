"""Options of `label` and `predict`, and what can be refused of them before torch is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from polyteach.ground.names import check_device, fit_name
from polyteach.ground.options import PRECISIONS, at_least, by_name, listed, one_of, within
from polyteach.ground.texts import say
from polyteach.tasks.target import PEOPLE

LEAST_SCALE, MOST_SCALE = 0.1, 4.0
"""Of an image that is asked about at other sizes: 16 times the pixels are more than most memory is enough for."""


def _pairs(words: list[str]) -> dict[str, str]:
    split = [w.partition("=") for w in words]
    wrong = [w for w, (name, _, spec) in zip(words, split, strict=True) if not name or not spec]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not NAME=SPEC")
    names = [name for name, _, _ in split]
    if len(set(names)) < len(names):
        raise ValueError(f"a teacher's name is given twice in {' '.join(names)}")
    return {name: spec for name, _, spec in split}


Teachers = Annotated[dict[str, str | Path], tyro.conf.arg(name="teacher"), by_name(_pairs, "NAME=SPEC [NAME=SPEC ...]")]
"""Of a verb: name -> FAMILY:NAME."""


@dataclass(frozen=True)
class Asking:
    """How teachers are asked, and about which images.

    Args:
        precision: fp32, or fp16 or bf16: autocast, faster where the device has instructions for it, and some labels
            differ (docs/evidence/performance.md says how many, and what fp32 is on CUDA). ONNX files and models that
            are not torch's have fp32 alone.
        batch_size: images per forward pass.
        threads: that decode images ahead of the teachers.
        retry: label again the images that failed before, and keep all other rows as they are.
        split: label only images of these splits; the others stay without an answer in these label sets.
        flip: ask about every image mirrored too, and put the answers together as `train --combine fuse` does. Classes
            that tell left from right ("left hand") are not renamed: leave it out for teachers that have any.
        scales: ask about every image at these multiples of its size, such as 0.75 1.0 1.5, and put the answers
            together. It changes little for teachers that bring all images to one size themselves. Metres are taken as
            the teacher says them at each size.

    Raises:
        ValueError: an unknown precision, or a number out of its range.
    """

    precision: str = "fp32"
    batch_size: int = 16
    threads: int = 2
    retry: bool = False
    split: Sequence[str] = ()
    flip: bool = False
    scales: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        one_of(PRECISIONS, precision=self.precision)
        at_least(1, batch_size=self.batch_size, threads=self.threads)
        object.__setattr__(self, "split", listed(self.split))
        scales = tuple(float(s) for s in self.scales)
        if not scales or len(set(scales)) < len(scales) or not all(LEAST_SCALE <= s <= MOST_SCALE for s in scales):
            raise ValueError(
                f"scales must be different numbers from {LEAST_SCALE} to {MOST_SCALE}, such as 0.75 1.0 1.5; got "
                f"{' '.join(f'{s:g}' for s in scales) or 'none'}"
            )
        object.__setattr__(self, "scales", scales)

    @property
    def views(self) -> dict[str, object]:
        """How an image is varied, as a label set's record has it; empty where it is asked about as it is, alone."""
        return {"flip": self.flip, "scales": list(self.scales)} if self.flip or self.scales != (1.0,) else {}


@dataclass(frozen=True)
class Cluster:
    """Labelling on a Ray cluster.

    Args:
        ray: label on a Ray cluster: its address, "auto" for the one that this machine belongs to, or "local" to start
            one here (docs/guide/cluster.md). The store has to lie where all machines see it.
        ray_workers: processes with all teachers each; 0 for one on each GPU, or, without any, on each CPU. More than
            there are GPUs share them.
        ray_tries: attempts at a part whose worker dies or raises; then its images are recorded as failed.
        ray_timeout: seconds after which a part's worker is taken for hung, and killed; 0 for no limit. Without it 20
            times as many as the slowest part that was done, at least an hour; a day before one is done.

    Raises:
        ValueError: a number is out of its range.
    """

    ray: str | None = None
    ray_workers: int = 0
    ray_tries: int = 3
    ray_timeout: float | None = None

    def __post_init__(self) -> None:
        at_least(1, ray_tries=self.ray_tries)
        for what, number in (("ray_workers", self.ray_workers), ("ray_timeout", self.ray_timeout or 0)):
            if number < 0:
                raise ValueError(f"{what} must be 0 or more; got {number}")


@dataclass(frozen=True)
class Telling:
    """What is told of answers.

    Args:
        score: least score of an object that is printed. The store keeps them all, and drawings show those of 0.3.
        json: print one JSON object a line for each image instead: {"image": ..., "answers": {OBJECTIVE: ...}}, or
            {"image": ..., "error": REASON}.
        show: print the answers.

    Raises:
        ValueError: a score that is none.
    """

    score: float = 0.5
    json: bool = False
    show: bool = True

    def __post_init__(self) -> None:
        within(0, 1, score=self.score)


@dataclass(frozen=True)
class Predicting:
    """Where a student is asked, and how.

    Args:
        device: auto, cpu, cuda:0, ...
        precision: fp32, fp16 or bf16.
        batch_size: images per forward pass.
        size: longest side of maps and outlines that are kept, in cells; without it they have their image's size. Boxes
            are in the image's pixels either way.

    Raises:
        ValueError: an unknown device or precision, or a number out of its range.
    """

    device: str = "auto"
    precision: str = "fp32"
    batch_size: int = 16
    size: int | None = None

    def __post_init__(self) -> None:
        check_device(self.device)
        one_of(PRECISIONS, precision=self.precision)
        at_least(1, batch_size=self.batch_size, size=self.size)


@dataclass(frozen=True)
class Coming:
    """Images that are no files yet.

    Args:
        every: of a video, answer each frame of this number: 1 is all of them. They are called VIDEO#0, VIDEO#30, ...
        watch: when all is answered, wait for new files in the folders given, and answer each when it is whole, until
            Ctrl-C.

    Raises:
        ValueError: a number out of its range.
    """

    every: int = 1
    watch: bool = False

    def __post_init__(self) -> None:
        at_least(1, every=self.every)


def check_names(teachers: Mapping[str, str]) -> None:
    """Refuse to label without a teacher, or with one called as people's labels are.

    Raises:
        ValueError: says what to give instead.
    """
    if not teachers:
        raise ValueError("no teacher given; say --teacher NAME=FAMILY:MODEL [NAME=FAMILY:MODEL ...]")
    for name, spec in teachers.items():
        fit_name("teacher's name", name)
        if not spec:
            raise ValueError(f"teacher {name!r} has no model; say --teacher {name}=FAMILY:MODEL")
    if PEOPLE in teachers:
        raise ValueError(
            f"a teacher cannot be called {PEOPLE!r}: labels of that name are people's, and win over every teacher's. "
            f"Choose another: --teacher NAME={teachers[PEOPLE]}"
        )


def places(device: Sequence[str], teachers: Mapping[str, str]) -> dict[str, str]:
    """Device by teacher. device: DEVICE, for the teachers in turn, or NAME=DEVICE, for one.

    Raises:
        ValueError: what is no device, a device for a teacher that there is not, or two for one.
    """
    shared: list[str] = []
    own: dict[str, str] = {}
    for word in listed(device):
        name, equals, place = word.partition("=")
        if not equals:
            check_device(word)
            shared.append(word)
        elif name not in teachers:
            raise ValueError(f"device {word!r}: there is no teacher {name!r}; there are {', '.join(teachers)}")
        elif name in own:
            raise ValueError(f"teacher {name!r} is given two devices, {own[name]} and {place}")
        else:
            check_device(place)
            own[name] = place
    others = [name for name in teachers if name not in own]
    if len(shared) > len(others):
        say(f"no teacher is left for device {', '.join(shared[len(others) :])}")
    shared = shared or ["auto"]
    return {n: own[n] if n in own else shared[others.index(n) % len(shared)] for n in teachers}
