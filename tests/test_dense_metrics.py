"""Metrics of the pixel tasks against plain NumPy, pixel by pixel, where truths and predictions have unknown pixels."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from polyteach.datasets import protocols
from polyteach.tasks import load_task
from polyteach.tasks.contract import Space
from polyteach.tasks.depth import METRIC, DepthTarget
from polyteach.tasks.normals import NormalsTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget

SEEDS = st.integers(0, 2**31)
IMAGES, H, W = 3, 7, 9


def unknown(r):
    """bool (IMAGES, H, W), some known; the last image has no known pixel at all."""
    known = r.random((IMAGES, H, W)) > r.random()
    known[0, 0, :4] = True
    known[-1] = False
    return known


def score(task, space, predicted, true):
    metric = load_task(task).metric(space)
    metric.update([], [])
    for p, t in zip(predicted, true, strict=True):  # one image at a time: the counts must add up
        metric.update([p], [t])
    return metric.compute()


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(2, 5))
def test_miou(seed, classes):
    r = np.random.default_rng(seed)
    true, guess = r.integers(classes, size=(2, IMAGES, H, W))
    true[~unknown(r)] = IGNORE
    guess[r.random(guess.shape) < 0.2] = IGNORE
    pairs = [(t, g) for t, g in zip(true.flat, guess.flat, strict=True) if t != IGNORE]
    ious = []
    for c in range(classes):
        hit = sum(t == c and g == c for t, g in pairs)
        either = sum(t == c or g == c for t, g in pairs)
        if either:
            ious.append(hit / either)

    def target(category):
        return SegmentationTarget(category=torch.from_numpy(category), probability=torch.ones(category.shape))

    found = score("segmentation", Space(tuple("abcde"[:classes])), map(target, guess), map(target, true))
    assert found["mIoU"] == pytest.approx(100 * np.mean(ious), rel=1e-6)
    assert found["pixel accuracy"] == pytest.approx(100 * np.mean([t == g for t, g in pairs]), rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_depth(seed):
    r = np.random.default_rng(seed)
    true = r.uniform(0.3, 10, (IMAGES, H, W)).astype(np.float32)
    guess = (true * np.exp(r.normal(0, 0.35, true.shape))).astype(np.float32)
    known, answered = unknown(r), r.random(true.shape) > 0.3
    answered[0, 0, :4] = True
    # what is behind an unknown pixel must not matter
    true[~known], guess[~answered] = 1e4, 1e-4
    images = []
    for t, p, both in zip(true.astype(float), guess.astype(float), known & answered, strict=True):
        pixels = [(t[i, j], p[i, j]) for i in range(H) for j in range(W) if both[i, j]]
        if pixels:
            ratios = [max(a / b, b / a) for a, b in pixels]
            images.append(
                [
                    *(100 * sum(x < 1.25**k for x in ratios) / len(ratios) for k in (1, 2, 3)),
                    sum(abs(b - a) / a for a, b in pixels) / len(pixels),
                    (sum((b - a) ** 2 for a, b in pixels) / len(pixels)) ** 0.5,
                ]
            )
    assert len(images) < IMAGES  # the last image does not count

    def targets(values, valid):
        return [
            DepthTarget(value=torch.from_numpy(v), valid=torch.from_numpy(k))
            for v, k in zip(values, valid, strict=True)
        ]

    found = score("depth", Space((), METRIC), targets(guess, answered), targets(true, known))
    names = ("delta<1.25", "delta<1.25^2", "delta<1.25^3", "AbsRel", "RMSE")
    assert found == pytest.approx(dict(zip(names, np.mean(images, 0), strict=True)), rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_normals(seed):
    r = np.random.default_rng(seed)
    true = r.normal(size=(IMAGES, H, W, 3))
    guess = true + r.normal(size=true.shape) * r.uniform(0.1, 2)
    true, guess = ((x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32) for x in (true, guess))
    known, answered = unknown(r), r.random((IMAGES, H, W)) > 0.3
    answered[0, 0, :4] = True
    a, b = (x[known & answered].astype(float) for x in (true, guess))
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    angles = np.sort(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))
    assume(all(np.abs(angles - limit).min() > 1e-6 for limit in (11.25, 22.5, 30)))
    # what is behind an unknown pixel must not matter
    true[~known], guess[~answered] = (0, 0, 1), (0, 0, -1)

    def targets(vectors, valid):
        return [
            NormalsTarget(normal=torch.from_numpy(v.transpose(2, 0, 1)), valid=torch.from_numpy(k))
            for v, k in zip(vectors, valid, strict=True)
        ]

    found = score("normals", Space(), targets(guess, answered), targets(true, known))
    for limit in (11.25, 22.5, 30):
        assert found[f"within {limit:g}"] == pytest.approx(100 * np.mean(angles <= limit))
    assert found["mean angle"] == pytest.approx(angles.mean(), abs=1e-4)
    middle = angles[(len(angles) - 1) // 2]  # of an even number, the lower
    assert middle - 0.0101 <= found["median angle"] <= middle + 1e-4


def test_what_is_not_counted_changes_nothing():
    """A wholly unknown image leaves every score alone, and alone it scores 0 without NaN."""
    r = np.random.default_rng(0)
    none = torch.zeros(H, W, dtype=torch.bool)
    every = torch.ones(H, W, dtype=torch.bool)
    value = torch.from_numpy(r.uniform(1, 9, (2, H, W)).astype(np.float32))
    normal = torch.nn.functional.normalize(torch.from_numpy(r.normal(size=(2, 3, H, W)).astype(np.float32)), dim=1)
    ignored = torch.full((H, W), IGNORE)
    category = torch.from_numpy(r.integers(3, size=(2, H, W)))
    one = torch.ones(H, W)
    cases = {
        "depth": (Space((), METRIC), *(DepthTarget(value=v, valid=every) for v in value), DepthTarget(one, none)),
        "normals": (Space(), *(NormalsTarget(normal=n, valid=every) for n in normal), NormalsTarget(normal[0], none)),
        "segmentation": (
            Space(("a", "b", "c")),
            *(SegmentationTarget(category=c, probability=one) for c in category),
            SegmentationTarget(ignored, one),
        ),
    }
    for task, (space, guess, true, blank) in cases.items():
        assert score(task, space, [guess, guess], [true, blank]) == score(task, space, [guess], [true])
        assert set(score(task, space, [guess], [blank]).values()) == {0}


@pytest.mark.parametrize(
    ("name", "space"),
    [("ade20k", Space(("a", "b"))), ("nyu", Space((), METRIC)), ("diode-normals", Space())],
)
def test_protocols_name_a_score_that_the_task_computes(name, space):
    protocol = protocols()[name]
    assert protocol.metric in score(protocol.task, space, [], [])
