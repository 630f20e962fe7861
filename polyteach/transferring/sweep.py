"""The sweep: every learning rate with every number of steps by one seed, the best of them tested with all seeds."""

import math
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2.functional import to_pil_image

from polyteach.ground.files import replacing, write_json
from polyteach.ground.flops import COUNTED
from polyteach.ground.storage import below
from polyteach.ground.texts import say
from polyteach.model.student import Student, load_student
from polyteach.training import layers
from polyteach.training.ledger import flops_per_image
from polyteach.training.log import LOG, logged
from polyteach.training.loop import NonFinite
from polyteach.training.mixture import Mixture
from polyteach.training.recomputation import recomputed
from polyteach.training.run import Passes, Run
from polyteach.transferring.job import Job, whole_images
from polyteach.transferring.record import TRANSFER, read_test, read_trained
from polyteach.transferring.summary import as_json, result


def swept(job: Job, part: str) -> dict[str, Any]:
    """Train and score what is not done yet with one kind of parts taken over; returns what transfer.json says of it.

    Raises:
        ValueError: every cell of the sweep failed.
    """
    s, d = job.setup, job.downstream
    grid = [(lr, n) for lr in s.lrs for n in s.steps]
    first, *others = s.seeds
    names = {(lr, n, seed): f"{part}-lr{lr!r}-steps{n}-seed{seed}" for lr, n in grid for seed in s.seeds}
    total = len(grid) + len(others)
    sweep = []
    for i, (lr, n) in enumerate(grid, 1):
        sweep.append(_cell(job, names[lr, n, first], part, lr, n, first, f"{i}/{total}"))
    able = [c for c in sweep if c["validation"] is not None]
    if not able:
        raise ValueError(f"every cell of the sweep failed; the first: {sweep[0]['failed']}")
    best = job.better(able)
    lr, n = best["lr"], best["steps"]
    for cell in sweep:
        if cell is not best:
            _forget(job, names[cell["lr"], cell["steps"], first])
    tests = []
    for i, seed in enumerate(s.seeds):
        name = names[lr, n, seed]
        about = _cell(job, name, part, lr, n, seed, f"{len(grid) + i}/{total}")
        cost = {k: about[k] for k in ("curve", "seconds", "images")}
        if about["validation"] is None:  # another seed diverged: it is shown as failed, and no mean is given
            nothing = {"seed": seed, "scores": {d.metric: None}, "resamples": [], "left_out": [], "unreadable": []}
            tests.append(nothing | {"failed": about["failed"]} | cost)
        else:
            tests.append(_tested(job, name, part, seed) | cost)
        if not s.keep:
            _forget(job, name)
    return result(part, {"lr": lr, "steps": n}, sweep, tests, d.metric)


def _cell(job: Job, name: str, part: str, lr: float, steps: int, seed: int, count: str) -> dict[str, Any]:
    """Train one network and score it on validation, unless that is done; returns its cell.json."""
    s = job.setup
    run = Run(job.place(name), TRANSFER)
    if (run.folder / "cell.json").exists():
        shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)  # of one that was stopped just before it did so
        return read_trained(run.folder / "cell.json")
    if s.progress:
        say(f"{s.name} on {s.downstream}, {count}: {name}")
    about: dict[str, Any] = {"lr": lr, "steps": steps, "seed": seed, "validation": None, "failed": None}
    about["unreadable"] = []
    student = job.network(part, seed)
    settings = job.settings(lr, steps, seed)
    samples = job.samples(seed)
    each = flops_per_image(student, samples, min(COUNTED, s.batch_size))
    mixture = Mixture({job.downstream.name: 1.0}, learned=False)
    try:
        found = layers.found(student, (s.size, s.size), settings)
        passes = Passes(s.batch_size, s.workers, amounts=student.amounts, units=found)
        with recomputed(student.backbone, s.backbone) if s.grad_checkpointing else nullcontext():
            run.fit(student, mixture, samples, settings, passes)
        about |= _validated(job, student)
    except NonFinite as e:
        about["failed"] = str(e)
    about |= _spent(run.folder / LOG, each)
    trained = {"optimizer": s.optimizer, "learning_rate": lr, "batch_size": s.batch_size}
    run.save(student, {"size": [s.size] * 2} | trained)
    write_json(run.folder / "cell.json", about)
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    return about


def _validated(job: Job, student: Student) -> dict[str, Any]:
    """The score on the validation images, or why there is none."""
    found = job.score(student, job.downstream.images.validation, 0)
    score = found.scores[job.downstream.metric]
    about: dict[str, Any] = {"unreadable": [list(f) for f in found.failed]}
    if math.isfinite(score):
        return about | {"validation": score}
    return about | {"failed": f"{job.downstream.metric} is undefined on the validation images"}


def _spent(log: Path, each: float | None) -> dict[str, Any]:
    """What the training took, by its log: seconds, images, operations, and the curve of its loss."""
    # where already the first step's loss is not finite, there is none
    lines = logged(log) if log.exists() and log.stat().st_size else []
    images = sum(line.count("images", low=0) for line in lines)
    return {
        "seconds": lines[-1].number("seconds") if lines else 0.0,
        "images": images,
        "flops": None if each is None else each * images,
        "curve": _thinned([[line.count("step"), line.number("loss")] for line in lines]),
    }


def _thinned(points: list[list[Any]], most: int = 50) -> list[list[Any]]:
    """At most about `most` of the points: means over neighbours."""
    width = -(-len(points) // most)
    groups = [points[i : i + width] for i in range(0, len(points), max(width, 1))]
    return [[g[-1][0], round(sum(p[1] for p in g) / len(g), 5)] for g in groups]


def _tested(job: Job, name: str, part: str, seed: int) -> dict[str, Any]:
    """The chosen network's scores on the test images: made once, then read."""
    cell = job.place(name)
    if not (cell / "test.json").exists():
        student = load_student(cell, job.device)
        scores = job.score(student, job.downstream.images.test, job.setup.resamples)
        if seed == job.setup.seeds[0]:
            _draw(job, student, part)
        write_json(cell / "test.json", as_json(scores, seed))
    return read_test(cell / "test.json", job.downstream.metric)


def _forget(job: Job, name: str) -> None:
    """The weights of a network that nothing reads any more; its numbers stay."""
    for file in job.place(name).glob("student.*"):
        file.unlink()


def _draw(job: Job, student: Student, part: str) -> None:
    """Some test images: as they are, with the truth, and with the prediction."""
    d, size = job.downstream, job.setup.size
    n, wanted = len(d.images.test), min(job.setup.examples, len(d.images.test))
    samples = whole_images(d.images.test)
    for k in range(wanted):
        image = (2 * k + 1) * n // (2 * wanted)
        _, pixels = samples.image(image)
        if isinstance(pixels, str):
            continue
        guess = student.answer([pixels], (size, size))[0][d.name]
        targets = (samples.target(image, d.name), guess)
        views = [pixels, *(d.task.draw(pixels, t, d.objective.space) for t in targets)]
        with replacing(below(job.folder, "examples") / f"{part}-{k}.png") as temporary:
            to_pil_image(torch.cat(views, 2)).save(temporary, format="png")
