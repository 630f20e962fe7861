"""One representation on one downstream set: its networks, the images that they train on, and how they are scored."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyteach.ground.devices import PRECISIONS, find_device
from polyteach.ground.storage import below
from polyteach.loading.plan import Plan
from polyteach.loading.reader import Reader
from polyteach.loading.samples import Samples
from polyteach.loading.views import Augment
from polyteach.model.provenance import PARTS
from polyteach.model.student import Student, describe_student
from polyteach.tasks.contract import Policy
from polyteach.training.settings import Settings, check
from polyteach.transferring.budget import few_per_class, share
from polyteach.transferring.downstream import DownstreamTask, open_downstream
from polyteach.transferring.protocol import Setup
from polyteach.transferring.scoring import Answer, Scores, evaluate


@dataclass(frozen=True)
class Job:
    """A transfer that can be done: everything that its options name is there."""

    setup: Setup
    downstream: DownstreamTask
    device: str
    _drawn: dict[int, Plan] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the result goes."""
        return Path(self.setup.out)

    def place(self, name: str) -> Path:
        """The folder of a network, in which there is to be written: not behind a link."""
        return Path(str(below(self.folder, "cells", name)))

    def train(self, seed: int) -> Plan:
        """The training images within the budget; with one, each seed draws its own, a smaller one inside a larger."""
        s = self.setup
        seed = seed if s.budgeted else -1
        if seed not in self._drawn:
            ids = self.downstream.images.train
            if s.fraction is not None:
                ids = share(ids, s.fraction, seed)
            elif s.shots is not None:
                ids = few_per_class(self._classes(), s.shots, seed)
            self._drawn[seed] = self.downstream.images.chosen(ids)
        return self._drawn[seed]

    def _classes(self) -> dict[str, list[int]]:
        """The classes that every training image shows."""
        d = self.downstream
        everything = d.images.chosen(d.images.train)
        samples = whole_images(everything)
        shown = {id: d.task.classes(samples.target(i, d.name)) for i, id in enumerate(everything.ids())}
        if not any(shown.values()):
            raise ValueError(f"shots: {d.task.name} has no classes to count images of; give --fraction")
        return shown

    def brought(self) -> list[str]:
        """Which of the wanted parts the representation has been trained to bring.

        Raises:
            ValueError: none of them.
        """
        s = self.setup
        trained = ("backbone",)
        if s.init is not None and Path(s.init).is_dir():
            trained = tuple(describe_student(s.init).get("trained", PARTS))
        wanted = [p for p in s.parts if p in trained]
        if "backbone" in wanted and not any(level.startswith("p") for level in self.downstream.task.reads):
            wanted = ["backbone"]  # the head reads no pyramid: with it the same network would be trained twice
        if not wanted:
            raise ValueError(f"parts: {s.init} has no trained {' or '.join(s.parts)}; it has {trained}")
        return wanted

    def network(self, part: str, seed: int) -> Student:
        """The network with new heads, and the representation's weights in `part`, drawn anew by the seed elsewhere."""
        s, d = self.setup, self.downstream
        taken = ("backbone", "pyramid") if part == "pyramid" else ("backbone",)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            size, heads = (s.size, s.size), {d.name: d.objective}
            student = Student(s.backbone, heads, s.channels, s.init, taken, size=size, drop_path=s.drop_path)
        if s.keep_statistics:
            student.keep_statistics()
        return student.freeze(taken) if s.mode == "frozen" else student

    def settings(self, lr: float, steps: int, seed: int) -> Settings:
        """How one network is trained.

        Raises:
            ValueError: a setting that does not exist or is out of range.
        """
        s = self.setup
        settings = Settings(
            steps=steps,
            optimizer=s.optimizer,
            lr=lr,
            weight_decay=s.weight_decay,
            warmup=min(1000, steps // 10),
            clip=s.clip,
            ema=0.0,
            seed=seed,
            device=self.device,
            precision=s.precision,
            channels_last=s.channels_last,
            layer_decay=s.layer_decay,
            thaw=s.thaw,
            recompute=s.grad_checkpointing,
            progress=s.progress,
        )
        check(settings)
        return settings

    def samples(self, seed: int) -> Samples:
        """The stream of random views that one network is trained on."""
        s = self.setup
        return Samples(self.train(seed), Augment((s.size, s.size), s.scale, s.mirror, s.augment), Policy(), seed)

    def autocast(self) -> torch.autocast:
        """The precision in which answers and features are computed."""
        precision = self.setup.precision
        return torch.autocast(torch.device(self.device).type, PRECISIONS[precision], enabled=precision != "fp32")

    def evaluated(self, answer: Answer, plan: Plan, resamples: int) -> Scores:
        """The scores of answers on the images of a plan."""
        d, size = self.downstream, self.setup.batch_size
        return evaluate(answer, plan, d.name, metric=d.metric, resamples=resamples, batch_size=size)

    def score(self, student: Student, plan: Plan, resamples: int) -> Scores:
        """The scores of a network on the images of a plan."""
        size = (self.setup.size, self.setup.size)

        def answer(images: list[Tensor]) -> list[Any]:
            with self.autocast():
                return [a[self.downstream.name] for a in student.answer(images, size)]

        return self.evaluated(answer, plan, resamples)

    def better(self, cells: list[dict[str, Any]]) -> dict[str, Any]:
        """The best cell on validation images, the first of equals."""
        return max(cells, key=lambda c: c["validation"] if self.downstream.higher else -c["validation"])


def open_job(setup: Setup) -> Job:
    """The transfer that the options describe.

    Raises:
        ValueError: something that they name does not exist, or cannot be had here.
    """
    device = find_device(setup.device)
    return Job(setup, open_downstream(setup), device)


def whole_images(plan: Plan) -> Reader:
    """The images of a plan and their targets, as they are; no views are made of them."""
    return Reader(plan, Policy())
