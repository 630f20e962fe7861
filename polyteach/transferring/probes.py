"""Probes: what a task learns from the pooled features of a network that is not trained."""

import time
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polyteach.ground.files import write_json
from polyteach.ground.geometry import letterbox
from polyteach.ground.progress import track
from polyteach.loading.plan import Plan
from polyteach.model.student import Student
from polyteach.transferring.job import Job, whole_images
from polyteach.transferring.record import read_probe, read_test
from polyteach.transferring.scoring import Answer
from polyteach.transferring.summary import as_json, result


def probed(job: Job) -> dict[str, Any]:
    """Try every setting of a probe on validation, and test the best; returns what transfer.json says of it."""
    s, d = job.setup, job.downstream
    probe, first = d.task.probes[s.mode], s.seeds[0]
    features = Features(job, job.network("backbone", first).to(job.device).eval())

    def answer(setting: float, seed: int) -> Answer:
        fitted = probe.fit(*features.of_training(seed), setting)
        return lambda images: fitted(features.pooled(images))

    start = time.monotonic()
    sweep = []
    for setting in probe.settings:
        cell = job.place(f"{s.mode}-{setting!r}-seed{first}")
        if not (cell / "cell.json").exists():
            score = job.evaluated(answer(setting, first), d.images.validation, 0).scores[d.metric]
            about = {"setting": setting, "seed": first, "validation": score, "failed": None}
            write_json(cell / "cell.json", about | {"seconds": round(time.monotonic() - start, 3), "images": 0})
            start = time.monotonic()
        sweep.append(read_probe(cell / "cell.json", setting))
    best = job.better(sweep)["setting"]
    tests = []
    for seed in s.seeds if s.budgeted else s.seeds[:1]:
        file = job.place(f"{s.mode}-{best!r}-seed{seed}") / "test.json"
        if not file.exists():
            scores = job.evaluated(answer(best, seed), d.images.test, s.resamples)
            write_json(file, as_json(scores, seed) | {"curve": [], "seconds": 0.0, "images": 0})
        tests.append(read_test(file, d.metric))
    return result("backbone", {"setting": best}, sweep, tests, d.metric)


class Features:
    """Features of whole images by one network: its last backbone level, averaged. Shapes: N images, C channels."""

    def __init__(self, job: Job, student: Student) -> None:
        self.job, self.student = job, student
        self._known: dict[int, tuple[Tensor, list[Any]]] = {}

    def pooled(self, images: list[Tensor]) -> Float[Tensor, "N C"]:
        """Of images (3, h, w) uint8."""
        size = (self.job.setup.size, self.job.setup.size)
        views = [letterbox((i.shape[1], i.shape[2]), size).image(i) for i in images]
        with torch.inference_mode(), self.job.autocast():
            found = self.student.pooled(torch.stack(views).to(self.job.device))
        return found.cpu().clone()

    def of_training(self, seed: int) -> tuple[Float[Tensor, "N C"], list[Any]]:
        """Of the training images that a seed has, and their targets; computed once.

        Raises:
            ValueError: no image could be read.
        """
        seed = seed if self.job.setup.budgeted else -1
        if seed not in self._known:
            self._known[seed] = self._of(self.job.train(seed))
        return self._known[seed]

    def _of(self, plan: Plan) -> tuple[Tensor, list[Any]]:
        s, name = self.job.setup, self.job.downstream.name
        samples = whole_images(plan)
        features, targets = [], []
        with track("features", len(plan), "images", s.progress) as bar:
            for start in range(0, len(plan), s.batch_size):
                group = range(start, min(start + s.batch_size, len(plan)))
                found = [(i, samples.image(i)[1]) for i in group]
                good = [(i, x) for i, x in found if not isinstance(x, str)]
                if good:
                    features.append(self.pooled([x for _, x in good]))
                    targets += [samples.target(i, name) for i, _ in good]
                bar.advance(len(group))
        if not features:
            raise ValueError(f"none of {len(plan)} training images could be read")
        return torch.cat(features), targets
