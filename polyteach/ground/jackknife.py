"""Jackknife: how far a score may lie from that of all such images, found by leaving out the test images in turn.

The delete-one jackknife (Tukey 1958; in groups where there are many images, Kott 2001). A bootstrap was here before it.
For a mean over classes it is too narrow where classes are rare: of a class that two images show it sees a third to a
half of the variance, and a class that a resample lacks has no score there at all. The jackknife's variance errs upwards
(Efron and Stein 1981). benchmarks/interval_coverage.py compares them.

Shapes: N images, G groups of them, R draws.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

GROUPS = 200
"""Most groups; with fewer images each is its own."""
KEPT = 4096
"""How often an image counts while others, which then count once, are left out. Those are as good as gone; but a class
that nobody else shows keeps its score, so that every score is a mean over the same classes."""


def groups(images: int) -> Int[np.ndarray, " N"]:
    """Which group each image is left out with: at random, but always the same for as many images."""
    return np.random.default_rng(images).permutation(images) % max(min(images, GROUPS), 1)


def left_out(of: Int[np.ndarray, " N"]) -> Iterator[Int[np.ndarray, " N"]]:
    """For each group, how often every image counts when that group is left out.

    of: the group of each image; of one group alone nothing can be left out.
    """
    found = np.unique(of)
    for group in found if len(found) > 1 else ():
        yield np.where(of == group, 1, KEPT)


def interval(drawn: Sequence[float] | Float[np.ndarray, " R"]) -> tuple[float, float]:
    """95 %: between the 2.5th and the 97.5th percentile of the draws, of which there is at least one."""
    low, high = np.percentile(np.asarray(drawn, dtype=np.float64), [2.5, 97.5])
    return float(low), float(high)


def error(left: Sequence[float] | Float[np.ndarray, " G"]) -> float:
    """The standard error, from the scores with each group left out; NaN of fewer than two."""
    values = np.asarray(left, dtype=np.float64)
    if len(values) < 2:
        return float("nan")
    return float(np.sqrt((len(values) - 1) / len(values) * np.square(values - values.mean()).sum()))


def draws(
    score: float, left: Sequence[float] | Float[np.ndarray, " G"], count: int, seed: int
) -> Float[np.ndarray, " R"]:
    """What the score may have been with other images: draws from Student's t about it, G - 1 degrees of freedom.

    Each is the score plus a sum over the groups of a random number times how much the score changes without the group.
    The numbers follow from G, count and seed alone, so that two scores of the same images are paired, draw by draw, and
    what they share cancels in their difference. Every draw has its mirror image about the score, so that the median is
    the score and no interval between two percentiles excludes it.

    left: the scores with each group left out. count: R. seed: the same for the same images.

    Returns:
        As many as asked for; none where there are fewer than two groups.
    """
    values = np.asarray(left, dtype=np.float64)
    g = len(values)
    if g < 2:
        return np.zeros(0)
    random = np.random.default_rng([seed, g, count])
    half = count // 2
    numbers = random.standard_normal((half, g)) * np.sqrt((g - 1) / random.chisquare(g - 1, (half, 1)))
    moved = numbers @ (values - values.mean()) * np.sqrt((g - 1) / g)
    return score + np.concatenate([moved, -moved, np.zeros(count % 2)])
