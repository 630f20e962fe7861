"""Evaluate: how well a model answers one objective over the images of a plan, and how far that depends on the images.

Shapes: N images, G groups of them, R draws.
"""

import copy
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric

from polyteach.ground.jackknife import draws, groups, left_out
from polyteach.ground.names import unknown_name
from polyteach.ground.progress import track
from polyteach.loading.plan import Plan
from polyteach.loading.reader import Reader
from polyteach.loading.stream import Decoded, Stream
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Policy, Target

Answer = Callable[[list[Tensor]], list[Any]]
"""Images (3, h, w) uint8, of any sizes -> a target per image, in pixels of that image."""


@runtime_checkable
class Resampled(Protocol):
    """A metric that can score a weighted choice of its images without looking at their targets again."""

    def resampled(self, counts: Int[np.ndarray, " N"]) -> dict[str, float]:
        """`compute()` as if image i had been seen counts[i] times."""


@dataclass(frozen=True)
class Scores:
    """scores: all that the metric says. resamples: R draws of what the chosen one may have been with other images.

    failed: images that could not be read: (id, reason); they do not count. left_out: the chosen score with each of G
    groups of the images left out, from which the draws are made (jackknife.py).
    """

    scores: dict[str, float]
    resamples: list[float]
    failed: list[tuple[str, str]]
    left_out: list[float] = field(default_factory=list)


class Tally:
    """A metric of images one after the other, and what it says without each group of them (jackknife.py).

    metric: of all images. ids: of the images, in their order. grouped: the scores without a group will be asked for.
    """

    def __init__(self, objective: Objective, grouped: bool = True) -> None:
        self.objective, self.grouped = objective, grouped
        self.metric = _metric(objective)
        self.ids: list[str] = []
        self._parts: dict[int, Metric] = {}
        self._member: list[int] = []

    def update(self, id: str, guess: Any, true: Any, group: int) -> None:
        """Count one image. group: the one that it is left out with."""
        self.ids.append(id)
        self._member.append(group)
        self.metric.update([guess], [true])
        if self.grouped and not isinstance(self.metric, Resampled):
            if group not in self._parts:
                self._parts[group] = _metric(self.objective)
            self._parts[group].update([guess], [true])

    def scores(self) -> dict[str, float]:
        """All that the metric says, by name."""
        found: dict[str, float] = self.metric.compute()
        return found

    def left_out(self) -> list[dict[str, float]]:
        """The scores with each of G groups of the images left out; none where there is one group."""
        return list(_without(self.metric, self._parts, np.array(self._member)))

    @property
    def seed(self) -> int:
        """Of the draws: the same for the same images."""
        return zlib.crc32("\0".join(self.ids).encode("utf-8", "backslashreplace"))


def evaluate(
    answer: Answer,
    plan: Plan,
    objective: str,
    *,
    metric: str | None = None,
    resamples: int = 0,
    batch_size: int = 16,
    progress: bool = False,
) -> Scores:
    """Score `answer` on every image of the plan that is labelled for `objective`, whole images, unaugmented.

    metric: the score whose uncertainty is wanted; the task's first without it. resamples: R, how many draws of it are
    made, by the jackknife over the images; none, and no image is left out. Two models on the same images are paired,
    draw by draw. There are none of a single image, or of a score that is not defined.

    Raises:
        ValueError: the metric has no such score; lists those it has. No image could be read; gives the first reason.
    """
    tally = Tally(plan.objectives[objective], bool(resamples))
    of = iter(groups(len(plan)).tolist())
    failed: list[tuple[str, str]] = []
    with track("evaluate", len(plan), "images", progress) as bar:
        for found in _labelled(plan, objective, batch_size):
            failed += [(id, image) for id, image, _ in found if isinstance(image, str)]
            placed = zip(found, of, strict=False)
            good = [(*x, g) for x, g in placed if not isinstance(x[1], str) and x[2] is not None]
            answers = answer([image for _, image, _, _ in good if isinstance(image, Tensor)]) if good else []
            for guess, (id, _, target, group) in zip(answers, good, strict=True):
                tally.update(id, guess, target, group)
            bar.advance(len(found))
    if not tally.ids:
        first = f"; the first: {failed[0][0]}: {failed[0][1]}" if failed else ""
        raise ValueError(f"none of {len(plan)} images could be scored for {objective}{first}")
    scores = tally.scores()
    name = metric or next(iter(scores))
    if name not in scores:
        raise unknown_name("metric", name, list(scores))
    if not resamples:
        return Scores(scores, [], failed)
    left = [s[name] for s in tally.left_out()]
    return Scores(scores, draws(scores[name], left, resamples, tally.seed).tolist(), failed, left)


def score_names(objective: Objective) -> list[str]:
    """What the objective's metric says, by name; the first is its summary."""
    metric = _metric(objective)
    metric._update_count = 1  # torchmetrics warns of a metric that has seen nothing
    return list(metric.compute())


def _metric(objective: Objective) -> Metric:
    metric = load_task(objective.task).metric(objective.space)
    assert isinstance(metric, Metric)
    return metric


def _without(whole: Metric, parts: dict[int, Metric], of: Int[np.ndarray, " N"]) -> Iterator[dict[str, float]]:
    """What `whole` says when each group of images in turn is left out.

    parts: the metric of each group's images, whose states are sums; not needed by a `Resampled` one. of: which group
    each image is in.
    """
    if isinstance(whole, Resampled):
        yield from (whole.resampled(counts) for counts in left_out(of))
        return
    whole, states = copy.deepcopy(whole), {}
    for name, default in whole._defaults.items():
        if not isinstance(default, Tensor):
            raise TypeError(f"{type(whole).__name__}.{name} is no sum over images; give the metric a `resampled`")
        states[name] = torch.stack([getattr(parts[g], name) for g in sorted(parts)])
    for counts in left_out(np.array(sorted(parts))):
        for name, values in states.items():
            weight = torch.from_numpy(counts).to(values.dtype).view(-1, *[1] * (values.ndim - 1))
            setattr(whole, name, (values * weight).sum(0))
        whole._computed = None
        yield whole.compute()


def _labelled(plan: Plan, objective: str, batch_size: int) -> Iterator[list[tuple[str, Tensor | str, Target | None]]]:
    """Batches of (id, image or the reason why there is none, target), decoded one batch ahead."""
    samples = Reader(plan, Policy())

    def load(image: int) -> Decoded:
        row, pixels = samples.image(image)
        return Decoded(pixels, (row.id, samples.target(image, objective)))

    # one thread: the samples' cache is not made for more
    for batch in Stream(range(len(plan)), load, batch_size=batch_size, threads=1):
        yield [(found.target[0], found.image, found.target[1]) for _, found in batch]
