"""Coverage: how often a 95 % interval holds what it is about, where classes are rare; on simulated test sets.

    python benchmarks/interval_coverage.py              # results/interval_coverage.md, and the same figures as JSON
    python benchmarks/interval_coverage.py --sets 20    # a quick look

Each row draws many test sets from one population, scores each with the project's own metrics, and makes three
intervals. `percentile` is what polyteach had: the test images drawn with repetition, a class that a resample lacks left
out of its mean. `Bayesian` weights the images at random instead (Rubin 1981), so that no class is ever missing.
`jackknife` is what `evaluate` does now. What they are about is the score of the population, over the classes that the
test set has: a class that nobody saw is in no score. `excludes` is how often the interval excludes its own estimate.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from polyteach.ground.jackknife import KEPT, draws, groups, left_out
from polyteach.tasks._average_precision import Judged, Ranking
from polyteach.tasks._classification_metric import TopK
from polyteach.tasks._normals_metric import Angles
from polyteach.tasks._segmentation_metric import MeanIoU

RESULTS = Path(__file__).resolve().parent / "results"
METHODS = ("percentile", "Bayesian", "jackknife")
RECALLS = np.linspace(0, 1, 101)
Score = Callable[[np.ndarray], np.ndarray]
"""How often each image counts -> the scores of two models."""


@dataclass(frozen=True)
class Found:
    """One row. coverage, excludes (shares) and width (in the score's unit) by method."""

    score: str
    images: int
    classes: str
    sets: int
    estimate: float
    coverage: dict[str, float]
    excludes: dict[str, float]
    width: dict[str, float]


# -------------------------------------------------------------------------------------------- populations


@dataclass(frozen=True)
class Classes:
    """How many classes are common, each in 40 % of the images, and rare, each in `shares` of them, least and most.

    poor: by how much the models are worse at the rare ones, and less ready to name them.
    """

    common: int = 0
    rare: int = 0
    shares: tuple[float, float] = (0.02, 0.1)
    poor: float = 1.0

    def shown(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Which of n images shows which class."""
        chance = np.r_[np.full(self.common, 0.4), np.linspace(*self.shares, self.rare)]
        return rng.random((n, len(chance))) < chance

    @property
    def known(self) -> np.ndarray:
        """By class, 1 or `poor`."""
        return np.r_[np.ones(self.common), np.full(self.rare, self.poor)]

    def logit(self, quality: float) -> np.ndarray:
        """Of how well a class is found."""
        q = quality * self.known
        return np.log(q / (1 - q))

    def __str__(self) -> str:
        low, high = (100 * s for s in self.shares)
        rare = f"{self.rare} in {low:g} to {high:g} %{', hardly known' if self.poor < 1 else ''}"
        found = [f"{self.common} in 40 %"] * bool(self.common) + [rare] * bool(self.rare)
        return " and ".join(found)


def regions(
    rng: np.random.Generator, n: int, classes: Classes, quality: tuple[float, float]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Two models' pixels (N, K) by class: right, predicted, true; both find the same images hard."""
    here = classes.shown(rng, n)
    area = np.where(here, np.exp(rng.normal(6, 1, here.shape)), 0).round()
    luck = rng.normal(0, 1, here.shape)
    out = []
    for q in quality:
        recall = 1 / (1 + np.exp(-(classes.logit(q) + luck + rng.normal(0, 1, here.shape))))
        hit = np.round(area * np.where(rng.random(here.shape) < 0.2, 0, recall))
        wrong = np.where(rng.random(here.shape) < 0.03 * classes.known, np.exp(rng.normal(4.5, 1, here.shape)), 0)
        wrong += np.where(here, area * 0.3 * rng.random(here.shape), 0)
        out.append((hit, hit + wrong.round(), area))
    return out


def boxes(rng: np.random.Generator, n: int, classes: Classes, quality: tuple[float, float]) -> list[list[Judged]]:
    """Two models' judged boxes of n images: 1 to 3 objects of each class that is there, and false answers."""
    here = classes.shown(rng, n)
    objects = np.where(here, rng.integers(1, 4, here.shape), 0)
    luck = rng.normal(0, 1, here.shape)
    out = []
    for q in quality:
        right = rng.binomial(objects, 1 / (1 + np.exp(-(classes.logit(q) + luck))))
        wrong = rng.poisson(0.1 * classes.known, here.shape)
        place = np.arange(here.size)  # image times classes plus class
        found = np.r_[np.repeat(place, right.ravel()), np.repeat(place, wrong.ravel())]
        hit = np.arange(len(found)) < right.sum()
        score = rng.normal(np.where(hit, 1.0, 0.0), 1)
        of, category = found // here.shape[1], found % here.shape[1]
        order = np.lexsort((-score, of))
        ends = np.cumsum(np.bincount(of, minlength=n))[:-1]
        known = np.split(np.repeat(place, objects.ravel()) % here.shape[1], np.cumsum(objects.sum(1))[:-1])
        parts = (np.split(x[order], ends) for x in (category, score, hit))
        out.append([Judged(c, s, h[None], np.ones_like(h[None]), k) for c, s, h, k in zip(*parts, known, strict=True)])
    return out


# ------------------------------------------------------------------------------------ test sets of each score


def summed(metric: torch.nn.Module, name: str, states: list[dict[str, np.ndarray]]) -> Score:
    """The score of two models by a metric whose states are sums over images; states: name -> (N, ...) of each."""

    states = [{key: values.astype(float) for key, values in of.items()} for of in states]

    def score(counts: np.ndarray) -> np.ndarray:
        out = []
        for of in states:
            for key, values in of.items():
                total = np.tensordot(counts.astype(float), values, 1)  # whole numbers below 2^53: exact, and quick
                setattr(metric, key, torch.from_numpy(np.asarray(total)).long())
            metric._update_count, metric._computed = 1, None
            out.append(metric.compute()[name])
        return np.array(out)

    return score


def mean_iou(classes: Classes, quality: tuple[float, float]) -> Callable[[np.random.Generator, int], tuple]:
    """Test sets scored by mIoU."""
    many = [regions(np.random.default_rng(i), 5000, classes, quality) for i in range(20)]
    iou = []
    for model in range(2):
        hit, guess, true = (sum(m[model][k].sum(0) for m in many) for k in range(3))
        iou.append(100 * hit / (guess + true - hit))

    def draw(rng: np.random.Generator, n: int) -> tuple[Score, np.ndarray]:
        found = regions(rng, n, classes, quality)
        states = [dict(zip(("hit", "predicted", "true"), f, strict=True)) for f in found]
        there = [(guess + true).sum(0) > 0 for _, guess, true in found]
        about = np.array([of[seen].mean() for of, seen in zip(iou, there, strict=True)])
        return summed(MeanIoU(classes.common + classes.rare), "mIoU", states), about

    return draw


def precision(classes: Classes, quality: tuple[float, float]) -> Callable[[np.random.Generator, int], tuple]:
    """Test sets scored by AP at an overlap of one half."""
    n = 20_000
    many = boxes(np.random.default_rng(0), n, classes, quality)
    whole = [100 * Ranking(m, 1).coco(np.ones(n, np.int64), RECALLS)[0] for m in many]

    def draw(rng: np.random.Generator, n: int) -> tuple[Score, np.ndarray]:
        found = [Ranking(m, 1) for m in boxes(rng, n, classes, quality)]
        about = np.array([of[r.classes].mean() for of, r in zip(whole, found, strict=True)])
        return (lambda counts: np.array([100 * np.nanmean(r.coco(counts, RECALLS)) for r in found])), about

    return draw


def top_1(classes: Classes, quality: tuple[float, float]) -> Callable[[np.random.Generator, int], tuple]:
    """Test sets of pictures that two models name rightly or not, both the easy ones rather."""

    def name(rng: np.random.Generator, n: int) -> list[np.ndarray]:
        luck = rng.normal(0, 1, n)
        return [rng.random(n) < 1 / (1 + np.exp(-(np.log(q / (1 - q)) + luck))) for q in quality]

    whole = np.array([100 * x.mean() for x in name(np.random.default_rng(0), 4_000_000)])

    def draw(rng: np.random.Generator, n: int) -> tuple[Score, np.ndarray]:
        one = np.ones(n, np.int64)
        states = [{"hits1": x.astype(np.int64), "hits5": 0 * one, "images": one} for x in name(rng, n)]
        return summed(TopK(), "top-1", states), whole

    return draw


def shares(classes: Classes, quality: tuple[float, float]) -> Callable[[np.random.Generator, int], tuple]:
    """Test sets scored by the share of all pixels that are near enough; pictures show more or fewer known pixels."""

    def look(rng: np.random.Generator, n: int) -> tuple[np.ndarray, list[np.ndarray]]:
        pixels, luck = rng.integers(500, 4000, n), rng.normal(0, 1, n)
        return pixels, [rng.binomial(pixels, 1 / (1 + np.exp(-(np.log(q / (1 - q)) + luck)))) for q in quality]

    pixels, near = look(np.random.default_rng(0), 1_000_000)
    whole = np.array([100 * x.sum() / pixels.sum() for x in near])

    def draw(rng: np.random.Generator, n: int) -> tuple[Score, np.ndarray]:
        pixels, near = look(rng, n)
        metric = Angles()
        bins = np.zeros((n, len(metric.histogram)), np.int64)
        bins[:, 0] = pixels
        states = [{"histogram": bins, "within": np.stack([x, x, x], 1), "total": np.zeros(n, np.int64)} for x in near]
        return summed(metric, "within 22.5", states), whole

    return draw


# -------------------------------------------------------------------------------------------------- intervals


def intervals(score: Score, n: int, rng: np.random.Generator, resamples: int) -> tuple[np.ndarray, dict]:
    """The estimate of model 1, model 2 and 1 minus 2, and by method their intervals (3, 2)."""

    def three(of: np.ndarray) -> np.ndarray:
        return np.concatenate([of, of[:1] - of[1:]])

    estimate = score(np.ones(n, np.int64))
    made = {
        "percentile": [score(np.bincount(rng.integers(n, size=n), minlength=n)) for _ in range(resamples)],
        "Bayesian": [score(np.ceil(KEPT * rng.standard_exponential(n)).astype(np.int64)) for _ in range(resamples)],
    }
    left = np.array([score(c) for c in left_out(groups(n))])
    drawn = {m: np.array(x).T for m, x in made.items()}
    drawn["jackknife"] = np.array([draws(e, x, 1000, 1) for e, x in zip(estimate, left.T, strict=True)])
    return three(estimate), {m: np.nanquantile(three(x), [0.025, 0.975], axis=1).T for m, x in drawn.items()}


def rows(
    name: str,
    make: Callable[..., Callable[[np.random.Generator, int], tuple]],
    n: int,
    classes: Classes,
    quality: tuple[float, float],
    sets: int,
    resamples: int = 100,
) -> Iterator[Found]:
    """One row for the score of the first model, one for the difference of the two."""
    rng, draw = np.random.default_rng(n), make(classes, quality)
    kept: list[tuple[np.ndarray, np.ndarray, dict]] = []
    for _ in range(sets):
        score, about = draw(rng, n)
        kept.append((np.append(about, about[0] - about[1]), *intervals(score, n, rng, resamples)))
    for which, label in ((0, name), (2, f"{name}, paired difference")):
        held: dict[str, list[list[float]]] = {m: [] for m in METHODS}
        for about, estimate, found in kept:
            for m in METHODS:
                low, high = found[m][which]
                apart = high < estimate[which] - 1e-9 or low > estimate[which] + 1e-9
                held[m].append([low <= about[which] <= high, apart, high - low])
        means = {m: np.mean(x, 0) for m, x in held.items()}
        yield Found(
            label, n, str(classes), sets, float(np.mean([e[which] for _, e, _ in kept])),
            *({m: float(means[m][k]) for m in METHODS} for k in range(3)),
        )  # fmt: skip


CASES: list[tuple] = [
    ("top-1", top_1, 50, Classes(), (0.6, 0.5)),
    ("pixels within 22.5 degrees", shares, 50, Classes(), (0.6, 0.5)),
    ("mIoU", mean_iou, 50, Classes(10, 0), (0.6, 0.5)),
    ("mIoU", mean_iou, 50, Classes(10, 20), (0.6, 0.5)),
    ("mIoU", mean_iou, 50, Classes(0, 40), (0.6, 0.5)),
    ("mIoU", mean_iou, 50, Classes(10, 100, (0.005, 0.03), 0.01), (0.6, 0.5)),
    ("mIoU", mean_iou, 300, Classes(10, 20), (0.6, 0.5)),
    ("AP50", precision, 50, Classes(5, 0), (0.6, 0.5)),
    ("AP50", precision, 50, Classes(3, 6), (0.6, 0.5)),
    ("AP50", precision, 50, Classes(0, 10), (0.6, 0.5)),
    ("AP50", precision, 300, Classes(0, 10), (0.6, 0.5)),
]


def table(found: list[Found]) -> str:
    """Markdown."""
    head = ["score", "images", "classes", "estimate", *(f"{m}: covers" for m in METHODS)]
    head += [*(f"{m}: excludes" for m in METHODS), *(f"{m}: width" for m in METHODS)]
    lines = [f"| {' | '.join(head)} |", "| --- | ---: | --- " + "| ---: " * (len(head) - 3) + "|"]
    for f in found:
        cells = [f.score, str(f.images), f.classes, f"{f.estimate:.1f}"]
        cells += [f"{100 * f.coverage[m]:.1f} %" for m in METHODS] + [f"{100 * f.excludes[m]:.1f} %" for m in METHODS]
        lines.append(f"| {' | '.join([*cells, *(f'{f.width[m]:.1f}' for m in METHODS)])} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", type=int, default=100, help="test sets of every row")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of interval_coverage.md and .json")
    given = parser.parse_args()
    found = []
    for case in CASES:
        for row in rows(*case, given.sets):
            found.append(row)
            print(table([row]).splitlines()[-1], flush=True)
    (given.out / "interval_coverage.md").write_text(
        f"By `python benchmarks/interval_coverage.py --sets {given.sets}`, whose head says what is simulated.\n\n"
        f"{table(found)}\n"
    )
    (given.out / "interval_coverage.json").write_text(json.dumps([asdict(f) for f in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
