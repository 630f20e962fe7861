"""Pascal VOC's average precision against a plain restatement of the development kit and figures by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, TASK, DetectionTarget

SPACE = Space(("a", "b", "c"), BOXES)


def target(rows):
    """rows: (box, class, score, ignored)."""
    return DetectionTarget(
        box=torch.tensor([r[0] for r in rows], dtype=torch.float32).view(-1, 4),
        category=torch.tensor([r[1] for r in rows], dtype=torch.int64),
        score=torch.tensor([r[2] for r in rows], dtype=torch.float32),
        ignore=torch.tensor([r[3] for r in rows], dtype=torch.bool),
    )


def scores(predicted, true, batch=1):
    metric = TASK.metric(SPACE)
    for i in range(0, len(true), batch):
        metric.update(predicted[i : i + batch], true[i : i + batch])
    return metric.compute()


def devkit(predicted, true):
    """VOCevaldet.m, and VOCap.m of 2007 and of 2010, line by line with plain numbers; boxes as whole pixels from 1."""
    eleven, area = [], []
    for c in sorted({int(k) for t in true for k, i in zip(t.category, t.ignore, strict=True) if not i}):
        objects, there = [], 0
        for t in true:
            mine = [i for i in range(len(t.box)) if int(t.category[i]) == c]
            objects.append([[t.box[i].tolist(), bool(t.ignore[i]), False] for i in mine])
            there += sum(not t.ignore[i] for i in mine)
        found = [
            (float(p.score[i]), n, p.box[i].tolist())
            for n, p in enumerate(predicted)
            for i in range(len(p.box))
            if int(p.category[i]) == c
        ]
        found.sort(key=lambda f: -f[0])
        tp, fp = [], []
        for _, n, b in found:
            most, best = float("-inf"), None
            for o in objects[n]:
                g = o[0]
                # xmin = x0 + 1 and xmax = x1: whole pixels, both ends included
                inner = [max(b[0], g[0]) + 1, max(b[1], g[1]) + 1, min(b[2], g[2]), min(b[3], g[3])]
                wide, high = inner[2] - inner[0] + 1, inner[3] - inner[1] + 1
                if wide > 0 and high > 0:
                    union = (b[2] - b[0]) * (b[3] - b[1]) + (g[2] - g[0]) * (g[3] - g[1]) - wide * high
                    if wide * high / union > most:
                        most, best = wide * high / union, o
            hit = miss = 0
            if most >= 0.5:
                if not best[1]:
                    hit, miss = (1, 0) if not best[2] else (0, 1)
                    best[2] = True
            else:
                miss = 1
            tp.append(hit + (tp[-1] if tp else 0))
            fp.append(miss + (fp[-1] if fp else 0))
        precision = [t / (t + f) if t + f else 0 for t, f in zip(tp, fp, strict=True)]
        recall = [t / there for t in tp]
        steps = [
            max([p for p, t in zip(precision, tp, strict=True) if 10 * t >= k * there], default=0) for k in range(11)
        ]
        eleven.append(sum(steps) / 11)
        r, p = [0, *recall, 1], [0, *precision, 0]
        for i in range(len(p) - 2, -1, -1):
            p[i] = max(p[i], p[i + 1])
        area.append(sum((r[i] - r[i - 1]) * p[i] for i in range(1, len(r))))
    if not eleven:
        return float("nan"), float("nan")
    return 100 * sum(eleven) / len(eleven), 100 * sum(area) / len(area)


def world(seed, images=5, noise=4):
    """Boxes of whole pixels, so that overlaps are exact; scores without ties."""
    r = np.random.default_rng(seed)
    true, predicted = [], []
    for _ in range(images):
        n = int(r.integers(0, 6))
        corner, side = r.integers(0, 60, (n, 2)), r.integers(4, 40, (n, 2))
        box = np.concatenate([corner, corner + side], 1)
        known = [
            (b, int(c), 1.0, bool(i))
            for b, c, i in zip(box.tolist(), r.integers(0, 3, n), r.random(n) < 0.3, strict=True)
        ]
        true.append(target(known))
        near = [k for k in known for _ in range(int(r.integers(0, 4)))]
        guess = []
        for b, c, _, _ in near:
            moved = np.array(b) + r.integers(-noise, noise + 1, 4)
            moved[2:] = np.maximum(moved[2:], moved[:2] + 1)
            guess.append((moved.tolist(), c if r.random() < 0.8 else int(r.integers(0, 3)), float(r.random()), False))
        predicted.append(target(guess))
    return predicted, true


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6))
def test_voc_ap_is_the_development_kits(seed):
    predicted, true = world(seed)
    found = scores(predicted, true)
    expected = devkit(predicted, true)
    assert [found["VOC07 AP"], found["VOC10 AP"]] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_the_worlds_are_neither_trivial_nor_empty():
    values = np.array([devkit(*world(seed)) for seed in range(30)])
    assert np.nanmin(values) < 40
    assert np.nanmax(values) > 60
    assert (np.abs(values[:, 0] - values[:, 1]) > 1).any()


def test_voc_ap_by_hand():
    one, two = [0, 0, 10, 10], [20, 20, 30, 30]
    true = [target([(one, 0, 1.0, False), (two, 0, 1.0, False)])]
    # hit, false, hit: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1
    guess = [target([(one, 0, 0.9, False), ([50, 50, 60, 60], 0, 0.8, False), (two, 0, 0.7, False)])]
    found = scores(guess, true)
    assert found["VOC07 AP"] == pytest.approx(100 * (6 * 1 + 5 * 2 / 3) / 11)
    assert found["VOC10 AP"] == pytest.approx(100 * (0.5 * 1 + 0.5 * 2 / 3))


def test_three_of_ten_reach_a_recall_of_three_tenths():
    rows = [([20 * i, 0, 20 * i + 10, 10], 0, 1 - 0.01 * i, False) for i in range(10)]
    found = scores([target(rows[:3])], [target(rows)])
    assert found["VOC07 AP"] == pytest.approx(100 * 4 / 11)
    assert found["VOC10 AP"] == pytest.approx(30)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # an overlap of exactly one half is enough; a little less is not
        ([([0, 0, 10, 5], 0, 0.9, False)], 100.0),
        ([([0, 0, 10, 4.9], 0, 0.9, False)], 0.0),
        # the second answer for one object is false, but comes after full recall
        ([([0, 0, 10, 10], 0, 0.9, False), ([0, 0, 10, 9], 0, 0.8, False)], 100.0),
        # the better score takes the object even where the other fits better
        ([([0, 0, 10, 6], 0, 0.9, False), ([0, 0, 10, 10], 0, 0.8, False)], 100.0),
        # of another class: false, and the object is missed
        ([([0, 0, 10, 10], 1, 0.9, False)], 0.0),
        # on the difficult object: neither; before a hit, so that a false one would halve the precision
        ([([40, 40, 60, 60], 0, 0.95, False), ([0, 0, 10, 10], 0, 0.9, False)], 100.0),
        (
            [([41, 40, 60, 60], 0, 0.95, False), ([40, 40, 60, 60], 0, 0.93, False), ([0, 0, 10, 10], 0, 0.9, False)],
            100.0,
        ),
        # beside everything: false, before a hit
        ([([80, 80, 90, 90], 0, 0.95, False), ([0, 0, 10, 10], 0, 0.9, False)], 50.0),
        ([], 0.0),
    ],
)
def test_what_counts(rows, expected):
    true = [target([([0, 0, 10, 10], 0, 1.0, False), ([40, 40, 60, 60], 0, 1.0, True)])]
    found = scores([target(rows)], true)
    assert found["VOC07 AP"] == pytest.approx(expected)
    assert found["VOC10 AP"] == pytest.approx(expected)


def test_an_answer_belongs_to_the_object_it_overlaps_most_even_a_taken_one():
    """Where COCO's rule gives the second answer the free object, VOC's calls it false."""
    true = [target([([0, 0, 10, 10], 0, 1.0, False), ([0, 3, 10, 13], 0, 1.0, False)])]
    guess = [target([([0, 0, 10, 10], 0, 0.9, False), ([0, 1, 10, 11], 0, 0.8, False)])]
    found = scores(guess, true)
    assert found["AP50"] == pytest.approx(100)
    assert found["VOC10 AP"] == pytest.approx(50)


def test_classes_with_difficult_objects_only_do_not_count_and_nothing_is_not_a_number():
    easy, hard = ([0, 0, 10, 10], 0, 1.0, False), ([20, 20, 40, 40], 1, 1.0, True)
    guess = target([([0, 0, 10, 10], 0, 0.9, False), ([60, 60, 80, 80], 1, 0.9, False)])
    assert scores([guess], [target([easy, hard])])["VOC10 AP"] == pytest.approx(100)
    for true in ([target([hard])], [target([])]):
        assert np.isnan(scores([guess], true)["VOC07 AP"])
        assert np.isnan(scores([guess], true)["VOC10 AP"])


def test_batches_add_up():
    predicted, true = world(7, images=6)
    each, together = scores(predicted, true, 1), scores(predicted, true, 4)
    assert each == pytest.approx(together, nan_ok=True)
