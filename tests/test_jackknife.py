"""The jackknife against textbook formulas, and its intervals' coverage on simulated test sets with rare classes."""

import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyteach.ground.jackknife import GROUPS, KEPT, draws, error, groups, interval, left_out
from polyteach.loading.plan import plan
from polyteach.store import ImageRow, Store
from polyteach.tasks.contract import PEOPLE, Space
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.transferring.scoring import evaluate
from tests.worlds import png

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=40)


@given(VALUES)
def test_the_error_of_a_mean_is_the_textbooks(values):
    x = np.array(values)
    left = [(x.sum() - v) / (len(x) - 1) for v in x]
    assert error(left) == pytest.approx(statistics.stdev(values) / len(values) ** 0.5, abs=1e-9)


def test_an_interval_leaves_out_a_fortieth_at_each_end():
    assert interval([float(i) for i in range(101)]) == pytest.approx((2.5, 97.5))


def test_of_one_group_there_is_no_error():
    assert np.isnan(error([3.0]))
    assert len(draws(3.0, [3.0], 10, 0)) == 0
    assert list(left_out(np.array([4, 4]))) == []


@given(st.integers(0, 1000))
def test_every_image_is_left_out_once_with_about_as_many(images):
    of = groups(images)
    assert len(of) == images
    if images < 2:
        return
    counts = np.stack(list(left_out(of)))
    assert len(counts) == min(images, GROUPS)
    assert ((counts == 1).sum(0) == 1).all()
    assert set(np.unique(counts)) == {1, KEPT}
    sizes = (counts == 1).sum(1)
    assert sizes.max() - sizes.min() <= 1
    assert (groups(images) == of).all()


def test_draws_are_students_t():
    left = np.array([1.0, 2.0, 4.0, 3.0, 7.0, 5.0, 2.0, 8.0, 1.0, 6.0])
    found = draws(3.0, left, 200_000, 5)
    for level, quantile in ((0.95, 1.833), (0.975, 2.262), (0.995, 3.250)):  # of a table, 9 degrees of freedom
        assert np.quantile(found, level) == pytest.approx(3 + quantile * error(left), rel=0.01)


@given(VALUES, st.integers(1, 51))
def test_no_interval_excludes_its_estimate_and_pairs_cancel(values, count):
    other = np.roll(values, 1)
    a, b = draws(10.0, values, count, 7), draws(4.0, other, count, 7)
    assert len(a) == count
    assert np.median(a) == pytest.approx(10)
    low, high = np.percentile(a, [2.5, 97.5])
    assert low <= 10 + 1e-9
    assert high >= 10 - 1e-9
    # the difference of two scores is a score: its draws are the differences of theirs
    assert a - b == pytest.approx(draws(6.0, np.array(values) - other, count, 7), abs=1e-6)
    assert a - draws(10.0, values, count, 7) == pytest.approx(0)


# one task's store: the first class is everywhere and half right; each image has a class of its own, which is missed


def _lone_classes(folder, images):
    store = Store.create(str(folder), 64)
    labels = store.create_set("segmentation", PEOPLE, Space(("all", *(f"only {i}" for i in range(images)))), {})
    truth, guesses = [], []
    for i in range(images):
        true = torch.zeros(32, 32, dtype=torch.long)
        true[:4] = i + 1
        guess = torch.zeros(32, 32, dtype=torch.long)
        guess[30:] = i + 1
        one = torch.ones(32, 32)
        truth.append(SegmentationTarget(category=true, probability=one))
        guesses.append(SegmentationTarget(category=guess, probability=one))
    ids = [f"{i:03d}" for i in range(images)]
    data = png(torch.zeros(3, 32, 32, dtype=torch.uint8))
    store.write_images(0, [ImageRow(i, 32, 32, data, split="test") for i in ids])
    labels.write(0, ids, truth)
    return plan([Store.open(str(folder))], split="test"), guesses


def test_mious_interval_holds_it_where_every_image_has_a_class_of_its_own(tmp_path):
    """The percentile bootstrap leaves out the class of an image that it lacks, which has an IoU of 0: of an mIoU of 2.0
    its interval begins at 2.7."""
    seen, guesses = _lone_classes(tmp_path / "store", 40)
    (name,) = seen.objectives
    answers = iter(guesses)
    found = evaluate(lambda images: [next(answers) for _ in images], seen, name, resamples=200)
    hit = 32 * 32 - 4 * 32 - 2 * 32
    whole = 100 * (hit / (32 * 32)) / 41
    assert found.scores["mIoU"] == pytest.approx(whole, rel=1e-5)
    low, high = np.percentile(found.resamples, [2.5, 97.5])
    assert low <= found.scores["mIoU"] <= high
    # nothing depends on which images there are: all are alike
    assert high - low < 0.01
    assert len(found.left_out) == 40
    assert found.left_out == pytest.approx([whole] * 40, rel=1e-3)
    # what the bootstrap did: the same images, drawn with repetition
    drawn = np.random.default_rng(0).integers(40, size=(100, 40))
    old = [100 * (hit / (32 * 32)) / (1 + len(set(d))) for d in drawn.tolist()]
    assert np.quantile(old, 0.025) > found.scores["mIoU"]


def test_what_is_left_out_is_left_out(tmp_path):
    """By hand: the score of the other images, up to one part in KEPT."""
    seen, guesses = _lone_classes(tmp_path / "store", 5)
    (name,) = seen.objectives
    # in two of five images everything is right
    fixed = [SegmentationTarget(torch.zeros(32, 32, dtype=torch.long), g.probability) for g in guesses]
    for i in (1, 3):
        fixed[i].category[:4] = i + 1
    answers = iter(fixed)
    found = evaluate(lambda images: [next(answers) for _ in images], seen, name, metric="pixel accuracy", resamples=10)
    bad = 1 - 4 / 32
    right = [bad, 1, bad, 1, bad]
    expected = [100 * (sum(right) - r) / 4 for r in right]
    assert sorted(found.left_out) == pytest.approx(sorted(expected), rel=1e-3)
    answers = iter(fixed)
    assert evaluate(lambda images: [next(answers) for _ in images], seen, name).left_out == []


def test_draws_of_a_test_lie_about_its_score(tmp_path):
    """Not about the mean of the scores that are left, which is another where a score is no mean over images."""
    seen, guesses = _lone_classes(tmp_path / "store", 5)
    (name,) = seen.objectives
    guesses[1].category[:4] = 2
    answers = iter(guesses)
    found = evaluate(lambda images: [next(answers) for _ in images], seen, name, resamples=101)
    score = found.scores["mIoU"]
    assert abs(np.mean(found.left_out) - score) > 1e-4
    assert np.median(found.resamples) == pytest.approx(score, abs=1e-9)
    assert max(found.resamples) - score == pytest.approx(score - min(found.resamples), abs=1e-9)


# coverage, as benchmarks/interval_coverage.py measures it at length


@pytest.fixture
def simulated(monkeypatch):
    """Rows by a short name: the score itself or the paired difference of two models."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import interval_coverage as script

    def rows(make, n, classes, sets, resamples=60):
        of = script.rows("score", getattr(script, make), n, script.Classes(*classes), (0.6, 0.5), sets, resamples)
        return {"difference" if "difference" in r.score else "score": r for r in of}

    return rows


def test_coverage_where_classes_are_rare(simulated):
    """Each class in 1 to 5 of 50 images."""
    found = simulated("mean_iou", 50, (0, 40), 40)
    for row in found.values():
        assert row.coverage["jackknife"] >= 33 / 40
        assert row.coverage["jackknife"] > row.coverage["Bayesian"]
        assert row.excludes["jackknife"] == 0
    assert found["score"].coverage["percentile"] < 32 / 40


def test_no_interval_of_classes_that_are_hardly_known_excludes_its_estimate(simulated):
    found = simulated("mean_iou", 50, (10, 100, (0.005, 0.03), 0.01), 10)["score"]
    assert found.excludes["percentile"] > 0.5  # as it was
    assert found.excludes["jackknife"] == 0
    assert found.coverage["jackknife"] > found.coverage["percentile"]


def test_coverage_of_average_precision_and_of_shares(simulated):
    for make, classes in (("precision", (0, 6)), ("top_1", ()), ("shares", ())):
        for row in simulated(make, 50, classes, 20, resamples=2).values():  # of the jackknife there are none
            assert row.coverage["jackknife"] >= 16 / 20
            assert row.excludes["jackknife"] == 0
            assert row.width["jackknife"] > 0
