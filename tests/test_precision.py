"""Average precision against pycocotools, boxes and outlines, and on resampled images."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, MASKS, TASK, DetectionTarget
from polyteach.transferring.scoring import Resampled

NAMES = ("a", "b", "c", "d")
SIZE = (60, 80)


def painted(box):
    """The box's ellipse as a mask."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    x0, y0, x1, y1 = box
    return ((x - (x0 + x1) / 2) / (x1 - x0 + 1e-9)) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0 + 1e-9)) ** 2 < 0.25


def target(box, category, score, ignore):
    box = np.asarray(box, dtype=np.float32).reshape(-1, 4)
    return DetectionTarget(
        box=torch.from_numpy(box),
        category=torch.as_tensor(category, dtype=torch.int64),
        score=torch.as_tensor(np.asarray(score, dtype=np.float32)),
        ignore=torch.as_tensor(ignore, dtype=torch.bool),
        mask=torch.from_numpy(np.array([painted(b) for b in box], dtype=bool).reshape(-1, *SIZE)),
    )


def world(seed, images=6, guesses=4):
    """Truth with crowds, and answers near it, some several for one object, some of another class."""
    r = np.random.default_rng(seed)
    true, predicted = [], []
    for _ in range(images):
        n = int(r.integers(0, 7))
        corner = r.uniform(0, 40, (n, 2))
        box = np.concatenate([corner, corner + r.uniform(6, 35, (n, 2))], 1)
        category = r.integers(0, 4, n)
        true.append(target(box, category, np.ones(n), r.random(n) < 0.25))
        near = np.repeat(np.arange(n), r.integers(0, guesses, n))
        moved = box[near] + r.normal(0, 2.5, (len(near), 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 2)
        guess = np.where(r.random(len(near)) < 0.85, category[near], r.integers(0, 4, len(near)))
        predicted.append(target(moved, guess, r.random(len(near)), np.zeros(len(near))))
    return predicted, true


def scores(predicted, true, kind=BOXES):
    metric = TASK.metric(Space(NAMES, kind))
    for p, t in zip(predicted, true, strict=True):
        metric.update([p], [t])
    return metric.compute()


def by_pycocotools(predicted, true, kind):
    """AP, AP50 and AP75 in percent; kind: "bbox" or "segm"."""

    def record(t, i, k):
        x0, y0, x1, y1 = (float(v) for v in t.box[i])
        code = rle.encode(np.asfortranarray(t.mask[i].numpy().astype(np.uint8)))
        shape = {"segmentation": code} if kind == "segm" else {"bbox": [x0, y0, x1 - x0, y1 - y0]}
        area = float(rle.area(code)) if kind == "segm" else (x1 - x0) * (y1 - y0)
        return shape | {"image_id": k + 1, "category_id": int(t.category[i]) + 1, "area": area}

    annotations, results = [], []
    for k, (p, t) in enumerate(zip(predicted, true, strict=True)):
        for i in range(len(t.box)):
            annotations.append(record(t, i, k) | {"id": len(annotations) + 1, "iscrowd": int(t.ignore[i])})
        results += [record(p, i, k) | {"score": float(p.score[i])} for i in range(len(p.box))]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": k + 1, "height": SIZE[0], "width": SIZE[1]} for k in range(len(true))],
        "categories": [{"id": i + 1, "name": n} for i, n in enumerate(NAMES)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [100 * x for x in judge.stats[:3]]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_boxes_as_pycocotools_to_a_millionth(seed):
    predicted, true = world(seed)
    if not any(len(p.box) for p in predicted) or not any((~t.ignore).any() for t in true):
        return
    found = scores(predicted, true)
    expected = by_pycocotools(predicted, true, "bbox")
    assert [found[k] for k in ("AP", "AP50", "AP75")] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_outlines_as_pycocotools_to_a_millionth(seed):
    predicted, true = world(seed)
    found = scores(predicted, true, MASKS)
    expected = by_pycocotools(predicted, true, "segm")
    assert [found[k] for k in ("mask AP", "mask AP50", "mask AP75")] == pytest.approx(expected, abs=1e-6)
    assert 5 < expected[0] < 95
    assert found["AP"] != pytest.approx(found["mask AP"], abs=0.1)


def test_more_answers_than_coco_looks_at():
    predicted, true = world(3, images=2, guesses=120)
    assert max(p.category.bincount().max() for p in predicted) > 100
    found = scores(predicted, true)
    expected = by_pycocotools(predicted, true, "bbox")
    assert [found[k] for k in ("AP", "AP50", "AP75")] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("rank", "expected"), [(1, 100.0), (80, 100 / 80), (100, 1.0), (101, 0.0)])
def test_only_the_hundred_best_answers_of_a_class_count(rank, expected):
    """One object, found by the answer of that rank: the precision is 1 / rank at every recall."""
    there, elsewhere = [10.0, 10, 20, 20], [40.0, 10, 50, 20]
    one = torch.zeros(1, dtype=torch.long)
    true = DetectionTarget(torch.tensor([there]), one, torch.ones(1), one.bool())
    others = torch.zeros(120, dtype=torch.long)
    box = torch.tensor([there if i + 1 == rank else elsewhere for i in range(120)])
    predicted = DetectionTarget(box, others, torch.linspace(0.9, 0.1, 120), others.bool())
    found = scores([predicted], [true])
    assert [found[k] for k in ("AP", "AP50")] == pytest.approx([expected] * 2)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_resampling_is_computing_on_repeated_images(seed):
    predicted, true = world(seed)
    counts = np.random.default_rng(seed).multinomial(6, [1 / 6] * 6)
    metric = TASK.metric(Space(NAMES, MASKS))
    assert isinstance(metric, Resampled)
    metric.update(predicted, true)
    chosen = [i for i, n in enumerate(counts) for _ in range(n)]
    again = scores([predicted[i] for i in chosen], [true[i] for i in chosen], MASKS)
    assert metric.resampled(counts) == pytest.approx(again, abs=1e-9, nan_ok=True)
    assert metric.resampled(np.ones(6, dtype=np.int64)) == pytest.approx(metric.compute(), abs=1e-9, nan_ok=True)


def test_resampling_leaves_out_images_without_outlines_and_sees_what_is_new():
    predicted, true = world(0)
    true[1] = replace(true[1], mask=None)
    metric = TASK.metric(Space(NAMES, MASKS))
    metric.update(predicted[:5], true[:5])
    counts = np.array([2, 1, 0, 1, 1])
    chosen = [0, 0, 1, 3, 4]
    again = scores([predicted[i] for i in chosen], [true[i] for i in chosen], MASKS)
    without = scores([predicted[i] for i in (0, 0, 3, 4)], [true[i] for i in (0, 0, 3, 4)], MASKS)
    found = metric.resampled(counts)
    assert found == pytest.approx(again, abs=1e-9)
    assert found["mask AP"] == pytest.approx(without["mask AP"], abs=1e-9)
    metric.update(predicted[5:], true[5:])
    assert metric.resampled(np.ones(6, dtype=np.int64)) == pytest.approx(scores(predicted, true, MASKS), abs=1e-9)
    metric.reset()
    metric.update(predicted[5:], true[5:])
    assert metric.resampled(np.array([1])) == pytest.approx(scores(predicted[5:], true[5:], MASKS), nan_ok=True)


def test_no_images_and_no_truth_are_not_a_number():
    metric = TASK.metric(Space(NAMES, MASKS))
    metric.update([], [])
    assert all(np.isnan(v) for v in metric.compute().values())
    predicted, _ = world(0)
    nothing = target(np.zeros((0, 4)), [], [], [])
    metric.update(predicted, [nothing] * len(predicted))
    assert all(np.isnan(v) for v in metric.compute().values())
