"""Evaluate: how well a model answers one objective over the images of a plan, with bootstrap resamples of them.

Shapes: N images, R resamples.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric

from polyteach.batches import Augment, Plan, Samples
from polyteach.names import unknown_name
from polyteach.progress import track
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Policy, Target

Answer = Callable[[list[Tensor]], list[Any]]
"""Images (3, h, w) uint8, of any sizes -> a target per image, in pixels of that image."""


@runtime_checkable
class Resampled(Protocol):
    """A metric that can score a weighted choice of its images without looking at their targets again."""

    def resampled(self, counts: "Int[np.ndarray, ' N']") -> dict[str, float]:
        """`compute()` as if image i had been seen counts[i] times."""


@dataclass(frozen=True)
class Scores:
    """scores: all that the metric says. resamples: the chosen one on each bootstrap resample of the images.

    failed: images that could not be read: (id, reason); they do not count.
    """

    scores: dict[str, float]
    resamples: list[float]
    failed: list[tuple[str, str]]


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

    metric: the score that is resampled; the task's first without it. resamples: R, how many bootstrap resamples of
    the images are scored (Efron 1979). They follow from N and R alone, so that two models on the same images are
    paired, resample by resample.

    Raises:
        ValueError: the metric has no such score; lists those it has. No image could be read; gives the first reason.
    """
    about = plan.objectives[objective]
    whole = load_task(about.task).metric(about.space)
    single = load_task(about.task).metric(about.space)
    states: list[dict[str, Any]] = []
    failed: list[tuple[str, str]] = []
    with track("evaluate", len(plan), "images", progress) as bar:
        for found in _labelled(plan, objective, batch_size):
            failed += [(id, image) for id, image, _ in found if isinstance(image, str)]
            good = [(image, target) for _, image, target in found if not isinstance(image, str) and target is not None]
            answers = answer([image for image, _ in good]) if good else []
            for guess, (_, target) in zip(answers, good, strict=True):
                whole.update([guess], [target])
                if resamples and not isinstance(whole, Resampled):
                    single.reset()
                    single.update([guess], [target])
                    states.append({k: getattr(single, k) for k in single._defaults})
            bar.advance(len(found))
    if not whole.update_count:
        first = f"; the first: {failed[0][0]}: {failed[0][1]}" if failed else ""
        raise ValueError(f"none of {len(plan)} images could be scored for {objective}{first}")
    scores = whole.compute()
    name = metric or next(iter(scores))
    if name not in scores:
        raise unknown_name("metric", name, list(scores))
    n = int(whole.update_count)
    drawn = np.random.default_rng([n, resamples]).integers(n, size=(resamples, n))
    counts = [np.bincount(d, minlength=n) for d in drawn]
    values = [resampled(whole, states, c)[name] for c in counts]
    return Scores(scores, values, failed)


def score_names(objective: Objective) -> list[str]:
    """What the objective's metric says, by name; the first is its summary."""
    metric = load_task(objective.task).metric(objective.space)
    metric._update_count = 1  # torchmetrics warns of a metric that has seen nothing
    return list(metric.compute())


def resampled(metric: Metric, states: list[dict[str, Any]], counts: "Int[np.ndarray, ' N']") -> dict[str, float]:
    """What `metric` says when image i was seen counts[i] times.

    states: of the metric after each image alone; its own are sums over images. Not needed by a `Resampled` one.
    """
    if isinstance(metric, Resampled):
        return metric.resampled(counts)
    for name, default in metric._defaults.items():
        if not isinstance(default, Tensor):
            raise TypeError(f"{type(metric).__name__}.{name} is no sum over images; give the metric a `resampled`")
        values = torch.stack([s[name] for s in states])
        weight = torch.from_numpy(counts).to(values.dtype).view(-1, *[1] * (values.ndim - 1))
        setattr(metric, name, (values * weight).sum(0))
    metric._computed = None
    found: dict[str, float] = metric.compute()
    return found


def _labelled(plan: Plan, objective: str, batch_size: int) -> Iterator[list[tuple[str, Tensor | str, Target | None]]]:
    """Batches of (id, image or the reason why there is none, target), decoded one batch ahead."""
    samples = Samples(plan, Augment((32, 32)), Policy(), 0)
    groups = [range(i, min(i + batch_size, len(plan))) for i in range(0, len(plan), batch_size)]

    def load(group: range) -> list[tuple[str, Tensor | str, Target | None]]:
        found = [samples.picture(i) for i in group]
        return [(row.id, pixels, samples.target(i, objective)) for i, (row, pixels) in zip(group, found, strict=True)]

    with ThreadPoolExecutor(1) as pool:  # one: the samples' cache is not made for more
        ahead = [pool.submit(load, g) for g in groups[:1]]
        for n in range(len(groups)):
            if n + 1 < len(groups):
                ahead.append(pool.submit(load, groups[n + 1]))
            yield ahead.pop(0).result()


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """The percentile bootstrap interval of these resampled scores; None of none."""
    if not len(values):
        return None
    low, high = np.quantile(np.asarray(values, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
