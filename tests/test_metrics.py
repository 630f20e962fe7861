"""Metrics and losses of the pixel tasks, and top-k, against formulas and libraries that know nothing of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from polyteach.ground.scene import random_scene, render
from polyteach.tasks import load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Policy, Space
from polyteach.tasks.depth import DepthPrediction, DepthTarget, aligned
from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.normals import NormalsTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget

SEEDS = st.integers(0, 2**31)
RELATIVE, METRIC = Space(kind="relative inverse"), Space(kind="metric")
segmentation, depth, normals = load_task("segmentation"), load_task("depth"), load_task("normals")


def classes(category):
    return SegmentationTarget(category=category, probability=torch.ones(category.shape))


def distances(value, valid=None):
    value = torch.as_tensor(value, dtype=torch.float32)
    return DepthTarget(value=value, valid=torch.ones(value.shape, dtype=torch.bool) if valid is None else valid)


def directions(vectors):
    return NormalsTarget(normal=vectors, valid=torch.ones(vectors.shape[1:], dtype=torch.bool))


def score(task, space, predicted, true):
    metric = task.metric(space)
    metric.update(predicted, true)
    return metric.compute()


def merged(task, space, predicted, true):
    """The score of two processes with half of the images each, whose states were added."""
    one, two = task.metric(space), task.metric(space)
    one.update(predicted[::2], true[::2])
    two.update(predicted[1::2], true[1::2])
    one.merge_state(two)
    return one.compute()


# classes of images


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_top_k_is_torchmetrics(seed):
    g = torch.Generator().manual_seed(seed)
    p = torch.rand(30, 9, generator=g)
    p = p / p.sum(1, keepdim=True)
    t = torch.randint(9, (30,), generator=g)
    found = score(
        load_task("classification"),
        Space(tuple("abcdefghi")),
        [ClassificationTarget(probability=x) for x in p],
        [ClassificationTarget(probability=torch.eye(9)[x]) for x in t],
    )
    for k in (1, 5):
        expected = MulticlassAccuracy(9, top_k=k, average="micro")(p, t)
        assert found[f"top-{k}"] == pytest.approx(100 * float(expected), abs=1e-4)


def test_a_decoded_class_vector_is_the_softmax_over_classes():
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    found = torch.stack([t.probability for t in load_task("classification").decode(logits)]).numpy()
    expected = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_class_loss_is_the_cross_entropy_with_a_normalised_vector():
    """Float16 on disk does not add up to 1: the loss is of the distribution that it stands for."""
    logits, given = torch.tensor([[0.5, -1.0, 2.0]]), np.array([0.3, 0.5, 0.185])
    log_p = logits.numpy()[0] - np.log(np.exp(logits.numpy()[0]).sum())
    target = ClassificationTarget(probability=torch.tensor(given, dtype=torch.float32))
    loss = float(load_task("classification").loss(logits, [target]))
    assert loss == pytest.approx(-(given / given.sum() * log_p).sum(), rel=1e-5)


def test_labelling_counts_what_reaches_the_threshold():
    policy = Policy(score=0.6)
    for p, reaches in (([0.7, 0.3], 1), ([0.55, 0.45], 0)):
        said = load_task("classification").statistics(ClassificationTarget(probability=torch.tensor(p)), policy)
        assert said == {"top probability": pytest.approx(p[0]), "top probability >= 0.6": reaches}
    none = torch.zeros(3, dtype=torch.long)
    boxes = DetectionTarget(torch.zeros(3, 4), none, torch.tensor([0.9, 0.6, 0.2]), none.bool())
    said = load_task("detection").statistics(boxes, Policy(score=0.5))
    assert said == {"boxes >= 0.5": 2, "images without any": 0, "boxes below 0.5": 1}


# classes of pixels


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(2, 6), st.integers(1, 4))
def test_miou_is_torchmetrics_jaccard(seed, k, images):
    g = torch.Generator().manual_seed(seed)
    true = torch.randint(k, (images, 7, 9), generator=g)
    true[torch.rand(true.shape, generator=g) < 0.3] = IGNORE
    guess = torch.randint(k, (images, 7, 9), generator=g)
    known = true != IGNORE
    space = Space(tuple("abcdef"[:k]))
    found = score(segmentation, space, [classes(x) for x in guess], [classes(x) for x in true])
    jaccard = MulticlassJaccardIndex(k, average="none")(guess[known], true[known])
    present = [
        i for i in range(k) if (true == i).any() or ((guess == i) & known).any()
    ]  # torchmetrics gives absent classes 0
    assert found["mIoU"] == pytest.approx(100 * float(jaccard[present].mean()), abs=1e-4)
    assert found["pixel accuracy"] == pytest.approx(100 * float((guess == true)[known].float().mean()), abs=1e-4)


def test_an_absent_class_does_not_count_and_ignored_answers_are_wrong():
    space = Space(("a", "b", "c"))
    true = torch.tensor([[0, 0, 0, 1, IGNORE]])
    guess = torch.tensor([[0, 0, IGNORE, 1, 2]])
    found = score(segmentation, space, [classes(guess)], [classes(true)])
    assert found["mIoU"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert found["pixel accuracy"] == pytest.approx(75)


def test_a_class_that_only_the_prediction_shows_counts():
    """As in Pascal VOC: what is seen where it is not has an intersection of 0, and is part of the mean."""
    space = Space(("a", "b", "c"))
    true, guess = torch.tensor([[0, 0, 0, 0]]), torch.tensor([[0, 0, 0, 1]])
    assert score(segmentation, space, [classes(guess)], [classes(true)])["mIoU"] == pytest.approx(100 * (3 / 4 + 0) / 2)


def test_prediction_is_resampled_to_the_truth():
    space = Space(("a", "b"))
    true = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])
    assert score(segmentation, space, [classes(torch.tensor([[0, 1]]))], [classes(true)])["mIoU"] == 100


def test_pixels_below_the_threshold_are_ignored_and_only_those():
    target = SegmentationTarget(category=torch.tensor([[0, 1, 2]]), probability=torch.tensor([[0.49, 0.5, 0.9]]))
    assert segmentation.pseudo(target, Policy(score=0.5)).category.tolist() == [[IGNORE, 1, 2]]
    assert segmentation.statistics(target, Policy(score=0.5))["pixels ignored below 0.5"] == pytest.approx(1 / 3)


def test_pixel_loss_is_minus_log_probability_of_known_pixels():
    logits = torch.randn(2, 3, 4, 5)
    true = torch.randint(3, (2, 4, 5))
    true[0, :2] = IGNORE
    p = logits.double().softmax(1)
    terms = [
        -np.log(p[b, true[b, i, j], i, j].item())
        for b in range(2)
        for i in range(4)
        for j in range(5)
        if true[b, i, j] != IGNORE
    ]
    assert float(segmentation.loss(logits, [classes(t) for t in true])) == pytest.approx(np.mean(terms), rel=1e-5)


def test_a_decoded_map_is_the_likeliest_class_and_its_probability():
    logits = torch.randn(2, 3, 4, 5)
    for raw, found in zip(logits.double().numpy(), segmentation.decode(logits), strict=True):
        p = np.exp(raw) / np.exp(raw).sum(0)
        assert (found.category.numpy() == p.argmax(0)).all()
        assert found.probability.numpy() == pytest.approx(p.max(0), rel=1e-5)


# depth


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_metric_depth_scores_are_their_formulas(seed):
    r = np.random.default_rng(seed)
    true = r.uniform(0.5, 10, (3, 6, 8)).astype(np.float32)
    guess = true * np.exp(r.normal(0, 0.3, true.shape)).astype(np.float32)
    valid = r.random(true.shape) > 0.2
    valid[:, 0, 0] = True
    expected = []
    for p, t, v in zip(guess.astype(float), true.astype(float), valid, strict=True):
        p, t = p[v], t[v]
        ratio = np.maximum(p / t, t / p)
        errors = [np.mean(np.abs(p - t) / t), np.sqrt(np.mean((p - t) ** 2))]
        expected.append([100 * np.mean(ratio < 1.25**k) for k in (1, 2, 3)] + errors)
    predicted = [distances(p) for p in guess]
    truth = [distances(t, torch.from_numpy(v)) for t, v in zip(true, valid, strict=True)]
    found = score(depth, METRIC, predicted, truth)
    assert list(found) == ["delta<1.25", "delta<1.25^2", "delta<1.25^3", "AbsRel", "RMSE"]
    np.testing.assert_allclose(list(found.values()), np.mean(expected, 0), rtol=1e-6)
    assert merged(depth, METRIC, predicted, truth) == pytest.approx(found)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_alignment_is_numpys_least_squares(seed):
    r = np.random.default_rng(seed)
    p, t = r.normal(3, 2, 50), r.normal(-1, 4, 50)
    scale, shift = np.linalg.lstsq(np.stack([p, np.ones(50)], 1), t, rcond=None)[0]
    found = aligned(torch.from_numpy(p), torch.from_numpy(t))
    np.testing.assert_allclose(found, scale * p + shift, rtol=1e-8, atol=1e-8)


def test_a_flat_prediction_is_aligned_to_the_mean():
    assert aligned(torch.full((3,), 7.0), torch.tensor([1.0, 2.0, 6.0])).tolist() == [3, 3, 3]


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.floats(0.1, 100), st.floats(-50, 50))
def test_relative_depth_does_not_see_scale_and_shift(seed, scale, shift):
    true = depth.truth(render(random_scene(seed % 100, (24, 32))), RELATIVE)
    moved = distances(true.value * 1000 * scale + shift)
    found = score(depth, RELATIVE, [moved], [true])
    assert found["delta<1.25"] == 100
    assert found["AbsRel"] < 1e-3
    assert found["RMSE"] < 1e-2


def test_relative_depth_errors_are_those_of_the_aligned_map():
    r = np.random.default_rng(0)
    t = r.uniform(0.1, 1, (5, 6))
    p = 3 * t + 2 + r.normal(0, 0.6, t.shape)
    scale, shift = np.polyfit(p.ravel(), t.ravel(), 1)
    a = np.maximum(scale * p + shift, t.max() / 100)
    found = score(depth, RELATIVE, [distances(p)], [distances(t)])
    assert found["delta<1.25"] == pytest.approx(100 * np.mean(np.maximum(a / t, t / a) < 1.25))
    assert found["AbsRel"] == pytest.approx(np.mean(np.abs(a - t) / t), rel=1e-5)
    spread = np.mean(np.abs(t - t.mean()))
    assert found["RMSE"] == pytest.approx(np.sqrt(np.mean((a - t) ** 2)) / spread, rel=1e-5)


def test_far_or_negative_pixels_of_a_relative_truth_do_not_count():
    true = distances([[1.0, 0.5, 0.005, -1.0]])
    found = score(depth, RELATIVE, [true], [true])
    assert found["delta<1.25"] == 100
    # the last two differ wildly by ratio, and would each be a miss
    other = distances([[1.0, 0.5, 0.0, -1.01]])
    assert score(depth, RELATIVE, [other], [true])["delta<1.25"] == 100


def test_an_image_without_a_valid_pixel_does_not_count():
    none = distances([[1.0, 2.0]], torch.zeros(1, 2, dtype=torch.bool))
    true = distances([[1.0, 2.0]])
    for space in (METRIC, RELATIVE):
        assert score(depth, space, [true, true], [none, true])["delta<1.25"] == 100
        assert score(depth, space, [true], [none])["delta<1.25"] == 0


def by_hand(p, t, v):
    """MiDaS's loss of one image, pixel by pixel in float64."""

    def flat(x):
        known = np.sort(x[v])
        middle = known[(len(known) - 1) // 2]
        return (x - middle) / np.mean(np.abs(known - middle))

    residual = flat(p) - flat(t)
    loss = np.abs(residual[v]).mean() / 2
    for k in range(4):
        r, known = residual[:: 2**k, :: 2**k], v[:: 2**k, :: 2**k]
        total = 0.0
        for i in range(r.shape[0]):
            for j in range(r.shape[1]):
                for y, x in ((i + 1, j), (i, j + 1)):
                    if y < r.shape[0] and x < r.shape[1] and known[i, j] and known[y, x]:
                        total += abs(r[y, x] - r[i, j])
        loss += 0.5 * total / max(known.sum(), 1)
    return loss


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(3, 12), st.integers(3, 12))
def test_relative_loss_is_the_formula(seed, height, width):
    r = np.random.default_rng(seed)
    p, t = r.normal(0, 3, (2, 2, height, width)).astype(np.float32)
    v = r.random(p.shape) > 0.3
    v[:, :2, :2] = True
    targets = [distances(x, torch.from_numpy(k)) for x, k in zip(t, v, strict=True)]
    loss = depth.loss(DepthPrediction(torch.from_numpy(p), False), targets)
    expected = np.mean([by_hand(a, b, c) for a, b, c in zip(p.astype(float), t.astype(float), v, strict=True)])
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_relative_loss_is_zero_for_any_scale_and_shift_of_the_truth():
    true = depth.truth(render(random_scene(3, (24, 32))), RELATIVE)
    output = (40 * true.value[None] + 5).requires_grad_()
    assert float(depth.loss(DepthPrediction(output, False), [true]).detach()) < 1e-3


def test_a_flat_or_unknown_truth_teaches_nothing_and_breaks_nothing():
    some = depth.truth(render(random_scene(0, (16, 16))), RELATIVE)
    flat = distances(torch.full((16, 16), 0.3))
    unknown = distances(torch.full((16, 16), 0.3), torch.zeros(16, 16, dtype=torch.bool))
    output = torch.randn(3, 16, 16, requires_grad=True)
    loss = depth.loss(DepthPrediction(output, False), [some, flat, unknown])
    alone = depth.loss(DepthPrediction(output[:1], False), [some])
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert output.grad.isfinite().all()
    assert (output.grad[1:] == 0).all()
    assert output.grad[0].abs().sum() > 0
    constant = torch.zeros(1, 16, 16, requires_grad=True)
    depth.loss(DepthPrediction(constant, False), [some]).backward()
    assert constant.grad.isfinite().all()


def test_metric_loss_is_the_mean_logarithm_of_the_ratio_and_predictions_are_positive():
    metres = torch.tensor([[[1.0, 2.0, 4.0]]])
    valid = torch.tensor([[True, True, False]])
    loss = depth.loss(DepthPrediction(metres.log(), True), [distances([[2.0, 2.0, 0.0]], valid)])
    assert float(loss) == pytest.approx(np.log(2) / 2)
    (back,) = depth.decode(DepthPrediction(metres.log(), True))
    torch.testing.assert_close(back.value, metres[0])
    (extreme,) = depth.decode(DepthPrediction(torch.tensor([[[-1e4, 1e4]]]), True))
    assert (extreme.value > 0).all()
    assert extreme.value.half().isfinite().all()
    assert (extreme.value.half() > 0).all()
    torch.testing.assert_close(depth.decode(DepthPrediction(-metres, False))[0].value, -metres[0])


def test_check_of_depth_says_what_is_wrong_and_drops_impossible_pixels():
    with pytest.raises(ValueError, match="65504"):
        depth.check(distances([[1.0, 7e4]]), (1, 2), METRIC)
    tidy = depth.check(distances([[1.0, 0.0, -3.0]]), (1, 3), METRIC)
    assert tidy.valid.tolist() == [[True, False, False]]
    assert tidy.value.tolist() == [[1, 0, 0]]
    assert depth.check(distances([[1.0, -3.0]]), (1, 2), RELATIVE).valid.all()
    hidden = DepthTarget(value=torch.tensor([[1.0, np.nan]]), valid=torch.tensor([[True, False]]))
    assert depth.check(hidden, (1, 2), RELATIVE).value.tolist() == [[1, 0]]
    for use in (depth.metric, lambda s: depth.head({"p2": 8}, s)):
        with pytest.raises(ValueError, match="relative inverse, metric"):
            use(Space(kind="disparity"))


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0.0, 1e-6),
        (-1e-7, 1e-7),
        (1000.0, 1001.0),
        (-3.0, -2.999),
        (0.0, 1e9),
        (1e6, 1e6 + 64),
        (0.0, 1e-40),
        (2.0, 9.0),
    ],
)
def test_relative_depth_of_any_range_keeps_its_values_in_float16(low, high):
    """Of 4,096 different values at least 256 stay different, and all stay in their order: it is the same depth."""
    ramp = torch.linspace(low, high, 4096, dtype=torch.float64).view(64, 64)
    valid = torch.ones(64, 64, dtype=torch.bool)
    valid[5, 7] = False
    kept = depth.check(DepthTarget(value=ramp, valid=valid), (64, 64), RELATIVE)
    stored = kept.value.half()
    assert kept.value.dtype == torch.float32
    assert stored.isfinite().all()
    assert len(stored[valid].unique()) >= 256
    assert (stored[valid].diff() >= 0).all()
    assert float(kept.value[5, 7]) == 0
    off = stored[valid].double() - aligned(ramp[valid], stored[valid].double())
    assert float(off.abs().max()) <= float(stored[valid].max() - stored[valid].min()) / 200
    again = depth.check(DepthTarget(value=stored.float(), valid=valid), (64, 64), RELATIVE)
    assert torch.equal(again.value, stored.float())


def test_relative_depth_that_float16_holds_is_not_touched():
    for values in ([[0.5, 3.0, 200.0]], [[0.0, 1.0, 0.25]], [[-5.0, 2.0, 1e4]], [[7.0, 7.0, 7.0]]):
        assert torch.equal(depth.check(distances(values), (1, 3), RELATIVE).value, torch.tensor(values))
    # values that are scaled keep their ratios: where zero inverse depth is, is not lost without need
    tiny = depth.check(distances([[1e-7, 2e-7, 8e-7]]), (1, 3), RELATIVE).value
    torch.testing.assert_close(tiny / tiny[0, 0], torch.tensor([[1.0, 2.0, 8.0]]))


def test_metres_are_those_of_a_camera_as_much_nearer_as_things_look_larger():
    """A pinhole camera of focal length f sees a wall of width w at z metres f w / z pixels wide (Eigen et al. 2014)."""
    focal, wall, metres = 50.0, 2.0, 8.0
    true = distances([[metres, 0.0]], torch.tensor([[True, False]]))
    for zoom in (0.5, 1.25, 2.0):
        seen = depth.zoomed(true, zoom, METRIC)
        width = zoom * focal * wall / metres
        assert float(seen.value[0, 0]) == pytest.approx(focal * wall / width)
        assert seen.valid.tolist() == [[True, False]]
        assert float(seen.value[0, 1]) == 0
        assert depth.zoomed(true, zoom, RELATIVE) is true


def test_larger_is_farther_in_metres_and_nearer_in_inverse_depth():
    seen = render(random_scene(0, (24, 32)))
    assert torch.equal(depth.truth(seen, METRIC).value, seen.depth)
    torch.testing.assert_close(depth.truth(seen, RELATIVE).value * seen.depth, torch.ones(24, 32))


def test_near_is_bright_whichever_way_the_numbers_run():
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    ramp = torch.linspace(1, 10, 64).expand(64, 64)
    seen = depth.draw(image, distances(ramp), METRIC)[:, -1].float().mean(0)
    assert seen[0] > seen[-1]
    seen = depth.draw(image, distances(ramp), RELATIVE)[:, -1].float().mean(0)
    assert seen[0] < seen[-1]
    # brightness rises all the way, so that order can be read from a grey print too
    luma = depth.draw(image, distances(ramp), RELATIVE)[:, -1].float().T @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert (luma.diff() >= -0.5).all()


# normals


def turned(vectors, degrees, seed=0):
    """Each unit vector (3, H, W) turned by its angle about a random axis that is perpendicular to it."""
    g = torch.Generator().manual_seed(seed)
    v = vectors.double()
    axis = torch.linalg.cross(v, torch.randn(v.shape, generator=g, dtype=torch.float64), dim=0)
    axis = axis / axis.norm(dim=0)
    a = torch.deg2rad(degrees.double())
    return (v * a.cos() + torch.linalg.cross(axis, v, dim=0) * a.sin()).float()


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_angles_are_those_that_were_turned_by(seed):
    g = torch.Generator().manual_seed(seed)
    true = torch.nn.functional.normalize(torch.randn(4, 3, 9, 11, generator=g), dim=1)
    degrees = torch.rand(4, 9, 11, generator=g) * 60
    degrees[0, 0, 0] = 175
    predicted = [directions(turned(t, d, seed)) for t, d in zip(true, degrees, strict=True)]
    found = score(normals, Space(), predicted, [directions(t) for t in true])
    assert list(found) == ["within 11.25", "within 22.5", "within 30", "mean angle", "median angle"]
    for limit in (11.25, 22.5, 30):
        assert found[f"within {limit:g}"] == pytest.approx(100 * float((degrees <= limit).float().mean()))
    assert found["mean angle"] == pytest.approx(float(degrees.mean()), abs=1e-3)
    assert found["median angle"] == pytest.approx(float(degrees.median()), abs=0.011)
    assert merged(normals, Space(), predicted, [directions(t) for t in true]) == pytest.approx(found)


def test_opposite_normals_are_180_degrees_apart_and_equal_ones_0():
    up = torch.nn.functional.normalize(torch.randn(3, 4, 4), dim=0)
    assert score(normals, Space(), [directions(up)], [directions(up)])["mean angle"] == 0
    opposite = score(normals, Space(), [directions(-up)], [directions(up)])
    assert opposite["mean angle"] == pytest.approx(180)
    assert opposite["median angle"] == pytest.approx(180, abs=0.01)


def test_loss_of_normals_is_one_minus_the_cosine_of_what_was_turned():
    true = torch.nn.functional.normalize(torch.randn(2, 3, 5, 6), dim=1)
    degrees = torch.rand(2, 5, 6) * 170
    predicted = torch.stack([7 * turned(t, d) for t, d in zip(true, degrees, strict=True)])
    expected = float((1 - degrees.deg2rad().cos()).mean())
    assert float(normals.loss(predicted, [directions(t) for t in true])) == pytest.approx(expected, rel=1e-4)


def test_unknown_normals_do_not_dilute_the_loss():
    true = torch.nn.functional.normalize(torch.randn(3, 4, 6), dim=0)
    known = torch.arange(24).view(4, 6) % 3 == 0
    predicted = torch.randn(1, 3, 4, 6)
    cosine = (predicted[0] * true).sum(0) / predicted[0].norm(dim=0)
    found = normals.loss(predicted, [NormalsTarget(normal=true * known, valid=known)])
    assert float(found) == pytest.approx(float((1 - cosine)[known].mean()), rel=1e-4)


def test_a_prediction_without_direction_gives_no_nan():
    zero = torch.zeros(1, 3, 4, 4, requires_grad=True)
    true = torch.nn.functional.normalize(torch.randn(3, 4, 4), dim=0)
    normals.loss(zero, [directions(true)]).backward()
    assert zero.grad.isfinite().all()
    (decoded,) = normals.decode(zero)
    assert (decoded.normal.norm(dim=0) == 1).all()


def test_check_of_normals_makes_unit_vectors_and_refuses_what_is_far_from_them():
    true = torch.nn.functional.normalize(torch.randn(3, 4, 4), dim=0)
    tidy = normals.check(directions(true * 1.05), (4, 4), Space())
    torch.testing.assert_close(tidy.normal, true)
    with pytest.raises(ValueError, match="length 1"):
        normals.check(directions(true * 2), (4, 4), Space())
    flat = directions(true)
    object.__setattr__(flat, "normal", true[0])  # the constructor's own shape check is there in tests only
    with pytest.raises(ValueError, match=r"\(3, M, N\)"):
        normals.check(flat, (4, 4), Space())
