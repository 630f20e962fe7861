"""Every task file keeps the contract. A new task, and a new kind of space, is tested here without a line changed."""

import math
import re
from dataclasses import fields, replace
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from polyteach.ground.geometry import View, letterbox, random_view, whole
from polyteach.ground.scene import random_scene, render
from polyteach.tasks import all_tasks, load_task
from polyteach.tasks.contract import Column, Policy, Space
from polyteach.tasks.detection import DetectionTarget

SIZE = (64, 96)
CHANNELS = 16
BATCH = 2


class Case:
    """A task with one of the kinds of space that it knows."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.task = load_task(name)
        self.space = Space(("cat", "dog", "sky"), kind)

    def scene(self, seed: int) -> Any:
        return random_scene(seed, SIZE, len(self.space.names))

    def truth(self, seed: int) -> Any:
        return self.answer(render(self.scene(seed)), seed)

    def answer(self, seen: Any, seed: int = 0) -> Any:
        """The exact answer to what is seen; of a task that has none, what a head of random weights predicts."""
        if self.task.has_truth:
            return self.task.truth(seen, self.space)
        return self.predicted(tuple(seen.image.shape[1:]), seed)

    @lru_cache(maxsize=64)  # noqa: B019
    def predicted(self, size: tuple[int, int], seed: int) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.task.decode(self.head(seed).eval()(pyramid(1, size, seed)))[0]

    def head(self, seed: int = 0) -> torch.nn.Module:
        torch.manual_seed(seed)
        return self.task.head({"c5": CHANNELS} | {f"p{k}": CHANNELS for k in range(2, 8)}, self.space)

    @property
    def of_pixels(self) -> bool:
        """Whether every field of a view's target has the view's resolution."""
        return all(f.metadata["column"].kind == "map" for f in fields(self.task.target))

    @property
    def maps_only(self) -> bool:
        return all(f.metadata["column"].kind in ("map", "features") for f in fields(self.task.target))

    @property
    def has_cells(self) -> bool:
        """Whether it has an aspect: one vector for the whole image fits every image."""
        values = [getattr(self.truth(0), f.name) for f in fields(self.task.target)]
        return any(v is not None and v.ndim > 1 and v.shape[-2:].numel() > 1 for v in values)


CASES = [Case(name, kind) for name in all_tasks() for kind in load_task(name).kinds]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}-{c.space.kind}".strip("-"))


def pyramid(batch: int = BATCH, size: tuple[int, int] = SIZE, seed: int = 0) -> dict[str, torch.Tensor]:
    """Noise in the shape of a student's features."""
    g = torch.Generator().manual_seed(seed)
    shapes = {f"p{k}": [math.ceil(s / 2**k) for s in size] for k in range(2, 8)}
    shapes["c5"] = shapes["p5"]
    return {k: torch.randn(batch, CHANNELS, *s, generator=g) for k, s in shapes.items()}


def assert_same(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    assert type(a) is type(b)
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        assert (x is None) == (y is None), f.name
        if x is not None:
            message = f.name
            torch.testing.assert_close(x, y, atol=tolerance, rtol=tolerance, msg=lambda m, n=message: f"{n}: {m}")


def gradients(loss: torch.Tensor, head: torch.nn.Module) -> torch.Tensor:
    loss.backward()
    return torch.cat([p.grad.flatten() for p in head.parameters() if p.grad is not None])


@every_case
def test_file_name_is_task_name(case):
    assert type(case.task).__module__ == f"polyteach.tasks.{case.task.name}"
    assert case.task.name == case.name


@every_case
def test_classes_are_final(case):
    assert getattr(type(case.task), "__final__", False)
    assert getattr(case.task.target, "__final__", False)
    assert case.task.target.__dataclass_params__.frozen


@every_case
def test_every_field_says_how_it_is_kept(case):
    for f in fields(case.task.target):
        assert isinstance(f.metadata.get("column"), Column), f.name


@every_case
@pytest.mark.parametrize("seed", range(4))
def test_answer_of_the_mirrored_world_is_the_mirrored_answer(case, seed):
    if not case.task.has_truth:
        pytest.skip(f"a rendered world has no answer to {case.name}")
    scene = case.scene(seed)
    seen = case.task.view(case.task.truth(render(scene), case.space), View(SIZE, 0, 0, *SIZE, SIZE, mirrored=True))
    assert_same(seen, case.task.truth(render(scene.mirrored()), case.space), 1e-4)


@every_case
def test_seen_whole_nothing_changes(case):
    assert_same(case.task.view(case.truth(1), whole(SIZE)), case.truth(1))


@every_case
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), height=st.integers(16, 130), width=st.integers(16, 130))
@example(seed=5864, height=70, width=97)  # a point on the edge of the view, but for rounding
def test_what_a_view_saw_can_be_put_back_and_seen_again(case, seed, height, width):
    if any(f.metadata["column"].kind == "features" for f in fields(case.task.target)):
        pytest.skip(f"{case.name} is seen at a stride of its own: what lies between its cells is lost")
    view = random_view(SIZE, (height, width), Random(seed))
    once = case.task.view(case.truth(seed % 7), view)
    back = case.task.view(once, view.inverse())
    if isinstance(once, DetectionTarget):
        # a box of less than a pixel a side goes, and what is a pixel of an enlarged view is less of the whole
        for box in (once.box, view.inverse().boxes(once.box)):
            assume(bool((box[:, 2:] - box[:, :2] > 1 + 1e-3).all()))
    assert_same(case.task.view(back, view), once, 1e-2)
    for f in fields(once):
        if f.metadata["column"].kind == "map":
            assert getattr(once, f.name).shape[-2:] == (height, width)
            assert getattr(back, f.name).shape[-2:] == SIZE


@every_case
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_a_view_of_a_checked_target_is_a_checked_target(case, seed):
    view = random_view(SIZE, (96, 64), Random(seed))
    seen = case.task.view(case.task.check(case.truth(seed % 7), SIZE, case.space), view)
    assert_same(case.task.check(seen, (96, 64), case.space), seen, 1e-3)


@every_case
def test_truth_scores_perfectly_and_a_stranger_does_not(case):
    truth, stranger = [case.truth(i) for i in range(4)], [case.truth(i + 9) for i in range(4)]
    scores = []
    for predicted in (truth, stranger):
        metric = case.task.metric(case.space)
        metric.update(predicted, truth)
        scores.append(metric.compute())
    perfect, other = scores
    assert next(iter(perfect.values())) == pytest.approx(100, abs=1e-4)
    assert next(iter(other.values())) < 99
    assert perfect.keys() == other.keys()
    assert all(isinstance(v, float) and math.isfinite(v) for v in [*perfect.values(), *other.values()])


@every_case
def test_metric_does_not_depend_on_how_images_are_batched(case):
    predicted, true = [case.truth(i + 9) for i in range(4)], [case.truth(i) for i in range(4)]
    together, apart = case.task.metric(case.space), case.task.metric(case.space)
    together.update(predicted, true)
    for p, t in zip(predicted, true, strict=True):
        apart.update([p], [t])
    assert together.compute() == pytest.approx(apart.compute(), rel=1e-5, abs=1e-5)


@every_case
def test_loss_falls_and_reaches_every_parameter_of_the_head(case):
    head, features = case.head(), pyramid()
    targets = [case.truth(i) for i in range(BATCH)]
    optimiser = torch.optim.SGD(head.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        torch.manual_seed(0)  # a loss may sample
        optimiser.zero_grad()
        loss = case.task.loss(head(features), targets)
        grad = gradients(loss, head)
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert grad.isfinite().all()
        losses.append(float(loss.detach()))
        optimiser.step()
    assert all(p.grad is not None for p in head.parameters())
    assert grad.abs().sum() > 0
    assert losses[-1] < losses[0]
    assert sum(b < a for a, b in pairwise(losses)) > 10


@every_case
def test_loss_is_the_same_under_autocast_up_to_the_heads_rounding(case):
    head, features = case.head(), pyramid()
    targets = [case.truth(i) for i in range(BATCH)]
    torch.manual_seed(1)
    full = case.task.loss(head(features), targets)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        low = case.task.loss(head(features), targets)
    assert low.dtype == torch.float32
    assert float(low.detach()) == pytest.approx(float(full.detach()), rel=0.1, abs=0.02)


@every_case
def test_no_targets_give_a_loss_of_zero_with_a_gradient(case):
    head = case.head()
    loss = case.task.loss(head(pyramid()), [])
    grad = gradients(loss, head)
    assert float(loss.detach()) == 0
    assert (grad == 0).all()


@every_case
def test_where_nothing_is_known_or_there_the_loss_is_finite_and_zero_for_maps(case):
    beyond = View(SIZE, 10 * SIZE[0], 10 * SIZE[1], *SIZE, SIZE)
    head = case.head()
    loss = case.task.loss(head(pyramid()), [case.task.view(case.truth(i), beyond) for i in range(BATCH)])
    grad = gradients(loss, head)
    assert loss.isfinite()
    assert grad.isfinite().all()
    if case.maps_only:
        assert float(loss.detach()) == 0
        assert (grad == 0).all()


@every_case
def test_an_image_of_which_nothing_is_known_changes_no_gradient_of_the_others(case):
    """Only for maps: an image with no objects in it does say something."""
    if not case.maps_only:
        return
    beyond = View(SIZE, 10 * SIZE[0], 10 * SIZE[1], *SIZE, SIZE)
    grads = []
    for targets in ([case.truth(0), case.task.view(case.truth(1), beyond)], [case.truth(0)]):
        head = case.head()
        features = {k: v[: len(targets)] for k, v in pyramid().items()}
        grads.append(gradients(case.task.loss(head(features), targets), head))
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-3)


def partly(case: Case, seed: int, share: float) -> Any:
    """A target of which less is known the larger the share of the view that lies beyond the picture."""
    return case.task.view(case.truth(seed), View(SIZE, 0, int(share * SIZE[1]), *SIZE, SIZE))


@every_case
@pytest.mark.parametrize("confidence", [False, True])
def test_losses_of_parts_of_a_batch_make_the_batchs_by_their_amounts(case, confidence):
    """So that a step's loss does not depend on how its images are spread over passes."""
    targets = [partly(case, 0, 0.0), partly(case, 1, 0.6), partly(case, 2, 0.9), partly(case, 3, 20.0)]
    if confidence and case.task.confidence:
        targets = [counting(t, case.task.confidence, c) for t, c in zip(targets, (0.9, 0.2, 0.6, 0.5), strict=True)]
    head, features = case.head(), pyramid(len(targets))

    def loss(some: slice) -> torch.Tensor:
        torch.manual_seed(0)
        return case.task.loss(head({k: v[some] for k, v in features.items()}), targets[some])

    amounts = [case.task.amounts(targets[i : i + 1], case.space) for i in range(len(targets))]
    together = case.task.amounts(targets, case.space)
    assert together == pytest.approx(tuple(map(sum, zip(*amounts, strict=True))))
    assert case.task.amounts([], case.space) == (0,) * len(together)
    whole, each = loss(slice(None)), [loss(slice(i, i + 1)) for i in range(len(targets))]
    joined = sum(one * a[0] / together[0] for one, a in zip(each, amounts, strict=True))
    # a loss that samples regions has other ones in a batch; one of outlines alone has another mean, see `amounts`
    exact = len(together) == 1
    assert float(joined.detach()) == pytest.approx(float(whole.detach()), rel=1e-4 if exact else 0.3)
    if exact:
        mine = gradients(joined, head)
        head.zero_grad()
        torch.testing.assert_close(mine, gradients(loss(slice(None)), head), rtol=1e-3, atol=1e-5)
    for one, a in zip(each, amounts, strict=True):
        assert a[0] > 0 or float(one.detach()) == 0


@every_case
def test_parts_of_a_loss_count_by_their_weights(case):
    targets = [case.truth(0), case.truth(1)]
    parts = len(case.task.amounts(targets, case.space)) - 1
    head, features = case.head(), pyramid()

    def loss(weights: tuple[float, ...]) -> float:
        torch.manual_seed(0)
        return float(case.task.weighted_loss(head(features), targets, weights).detach())

    torch.manual_seed(0)
    plain = float(case.task.loss(head(features), targets).detach())
    assert loss((1.0,) * parts) == plain
    for i in range(parts):
        steps = [loss(tuple(w if k == i else 1.0 for k in range(parts))) for w in (0.0, 1.0, 3.0)]
        if case.space.kind != "boxes":  # which know no outlines
            assert steps[1] > steps[0]
        assert steps[2] - steps[0] == pytest.approx(3 * (steps[1] - steps[0]), rel=1e-4, abs=1e-6)


@every_case
@settings(deadline=None, max_examples=10)
@given(zoom=st.floats(0.1, 2.0), seed=st.integers(0, 5))
def test_a_zoom_is_undone_by_its_inverse_and_one_is_none(case, zoom, seed):
    target = case.truth(seed)
    assert_same(case.task.zoomed(target, 1.0, case.space), target, 0)
    once = case.task.zoomed(target, zoom, case.space)
    assert_same(case.task.zoomed(once, 1 / zoom, case.space), target, 1e-6)
    twice = case.task.zoomed(case.task.zoomed(target, zoom, case.space), 2.0, case.space)
    assert_same(case.task.zoomed(target, 2 * zoom, case.space), twice, 1e-6)


@every_case
def test_pixels_beyond_the_picture_are_not_learned(case):
    """No pixel of a map that a view shows beyond the source has a gradient, or is said to be valid; those within."""
    if not case.of_pixels:
        return
    view = View(SIZE, -20, -30, SIZE[0] + 20, SIZE[1] + 30, SIZE)
    target = case.task.view(case.truth(0), view)
    inside = view.dense(torch.ones(SIZE, dtype=torch.bool), False)
    prediction = case.head()(pyramid(1))
    output = prediction if isinstance(prediction, torch.Tensor) else prediction[0]
    output.retain_grad()
    case.task.loss(prediction, [target]).backward()
    seen = output.grad.reshape(-1, *SIZE).abs().sum(0)
    assert (seen[~inside] == 0).all()
    assert not getattr(target, "valid", inside)[~inside].any()
    assert (seen[inside] > 0).float().mean() > 0.05


@every_case
def test_predictions_become_checked_targets_of_the_original_size(case):
    head = case.head().eval()
    with torch.no_grad():
        decoded = case.task.decode(head(pyramid()))
    assert [type(t) for t in decoded] == [case.task.target] * BATCH
    for original in ((50, 60), (200, 97), SIZE):
        for target in decoded:
            case.task.check(target, SIZE, case.space)
            back = case.task.view(target, letterbox(original, SIZE).inverse())
            back = case.task.check(back, original, case.space)
            for f in fields(back):
                value = getattr(back, f.name)
                if value is not None:
                    assert value.device.type == "cpu"
                    assert not value.requires_grad
                    assert f.metadata["column"].kind != "map" or value.shape[-2:] == original


@every_case
def test_a_prediction_can_be_learned_from_and_scored(case):
    """A student teaches: its answer is a target for loss, metric, statistics and picture alike."""
    head = case.head().eval()
    with torch.no_grad():
        decoded = case.task.decode(head(pyramid()))
    labels = [case.task.pseudo(t, Policy(score=0.3)) for t in decoded]
    assert case.task.loss(case.head()(pyramid()), labels).isfinite()
    metric = case.task.metric(case.space)
    metric.update(decoded, [case.truth(i) for i in range(BATCH)])
    assert math.isfinite(next(iter(metric.compute().values())))


@every_case
def test_check_keeps_the_truth(case):
    for seed in range(3):
        assert_same(case.task.check(case.truth(seed), SIZE, case.space), case.truth(seed))


@every_case
def test_people_who_tell_the_truth_are_believed(case):
    """And who do not are told what `check` says."""
    for seed in range(3):
        review = case.task.review(case.truth(seed), SIZE, case.space)
        assert_same(review.target, case.truth(seed))
        assert not {note for note in review.notes if "pixel" not in note}
    name = next(f.name for f in fields(case.task.target) if getattr(case.truth(0), f.name).is_floating_point())
    bad = replace(case.truth(0), **{name: torch.full_like(getattr(case.truth(0), name), math.nan)})
    with pytest.raises(ValueError, match=name) as said:
        case.task.check(bad, SIZE, case.space)
    with pytest.raises(ValueError, match=re.escape(str(said.value))):
        case.task.review(bad, SIZE, case.space)


@every_case
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_check_refuses_what_is_not_finite(case, value):
    floats = [
        f.name
        for f in fields(case.task.target)
        if isinstance(getattr(case.truth(0), f.name), torch.Tensor)
        and getattr(case.truth(0), f.name).is_floating_point()
    ]
    for name in floats:
        bad = replace(case.truth(0), **{name: torch.full_like(getattr(case.truth(0), name), value)})
        with pytest.raises(ValueError, match=name):
            case.task.check(bad, SIZE, case.space)


@every_case
def test_check_refuses_a_class_outside_the_space(case):
    named = {f.name for f in fields(case.task.target)} & {"category", "probability"}
    if "category" in named:
        bad = replace(case.truth(0), category=torch.full_like(case.truth(0).category, 3))
        with pytest.raises(ValueError, match="category"):
            case.task.check(bad, SIZE, case.space)
        with pytest.raises(ValueError, match="category"):
            case.task.check(case.truth(0), SIZE, Space((), case.space.kind))


@every_case
def test_check_refuses_a_map_of_another_shape_than_the_image(case):
    turned = case.task.view(case.truth(0), whole(SIZE, (SIZE[1], SIZE[0])))
    half = case.task.view(case.truth(0), whole(SIZE, (SIZE[0] // 2, SIZE[1] // 2)))
    if case.maps_only and case.has_cells:
        with pytest.raises(ValueError, match="wrong size"):
            case.task.check(turned, SIZE, case.space)
        case.task.check(half, SIZE, case.space)


@every_case
def test_maps_of_another_resolution_are_drawn_and_scored(case):
    if not case.maps_only:
        return
    half = case.task.view(case.truth(0), whole(SIZE, (SIZE[0] // 2, SIZE[1] // 2)))
    assert case.task.draw(render(case.scene(0)).image, half, case.space).shape == (3, *SIZE)
    for predicted, true in ((half, case.truth(0)), (case.truth(0), half)):
        metric = case.task.metric(case.space)
        metric.update([predicted], [true])
        assert next(iter(metric.compute().values())) > 50


@every_case
@settings(deadline=None, max_examples=20)
@given(soft=st.booleans(), score=st.floats(0, 1), confidence=st.booleans(), seed=st.integers(0, 5))
def test_a_pseudo_label_of_a_pseudo_label_is_the_same(case, soft, score, confidence, seed):
    head = case.head().eval()
    with torch.no_grad():
        answers = [case.truth(seed), *case.task.decode(head(pyramid()))]
    policy = Policy(soft, score, confidence)
    for answer in answers:
        once = case.task.pseudo(answer, policy)
        assert_same(case.task.pseudo(once, policy), once)


def counting(target: Any, name: str, much: float) -> Any:
    """The target with that much confidence everywhere."""
    field = getattr(target, name)
    return replace(target, **{name: torch.full(() if field is None else field.shape, much)})


def otherwise(target: Any) -> Any:
    """The target with every class exchanged for the next one."""
    if hasattr(target, "category"):
        known = target.category < 3  # not IGNORE
        return replace(target, category=torch.where(known, (target.category + 1) % 3, target.category))
    return replace(target, probability=target.probability.roll(1))


def loss_and_gradient(case: Case, targets: list[Any]) -> tuple[float, torch.Tensor]:
    head = case.head()
    torch.manual_seed(0)  # a loss may sample
    loss = case.task.loss(head({k: v[: len(targets)] for k, v in pyramid().items()}), targets)
    return float(loss.detach()), gradients(loss, head)


def answers_of(case: Case) -> list[Any]:
    """A teacher's answers that are neither certain nor all alike."""
    with torch.no_grad():
        decoded = case.task.decode(case.head().eval()(pyramid()))
    name = case.task.confidence
    g = torch.Generator().manual_seed(1)
    out = []
    for truth, guess in zip([case.truth(i) for i in range(BATCH)], decoded, strict=True):
        field = getattr(truth, name)
        if field is None:
            out.append(guess)  # a softmax, from which the task reads how sure it is
        else:
            out.append(replace(truth, **{name: 0.5 + 0.49 * torch.rand(field.shape, generator=g)}))
    return out


@every_case
def test_confidence_is_a_field_of_the_target_or_the_policy_changes_nothing(case):
    name = case.task.confidence
    if name:
        assert name in {f.name for f in fields(case.task.target)}
        return
    for answer in [case.truth(0), *case.task.decode(case.head().eval()(pyramid()))]:
        assert_same(case.task.pseudo(answer, Policy(confidence=True)), case.task.pseudo(answer, Policy()), 0)


@every_case
def test_pseudo_labels_count_by_confidence_only_where_the_policy_asks(case):
    name = case.task.confidence
    if not name:
        return
    for answer in answers_of(case):
        plain, weighed = (case.task.pseudo(answer, Policy(confidence=on)) for on in (False, True))
        sure = getattr(weighed, name)
        assert sure.numel()
        assert ((sure > 0) & (sure < 1)).any()
        assert ((sure >= 0) & (sure <= 1)).all()
        ones = getattr(plain, name)
        assert ones is None or (ones == 1).all()
        assert_same(replace(weighed, **{name: ones}), plain, 0)


@every_case
def test_confidence_of_one_everywhere_is_no_weighting(case):
    name = case.task.confidence
    if not name:
        return
    plain = [case.task.pseudo(a, Policy()) for a in answers_of(case)]
    ones = [counting(case.task.pseudo(a, Policy(confidence=True)), name, 1.0) for a in answers_of(case)]
    nearly = [counting(t, name, 1 - 1e-6) for t in ones]
    loss, gradient = loss_and_gradient(case, plain)
    for targets in (ones, nearly):  # the second cannot take a short cut past the weights
        other, theirs = loss_and_gradient(case, targets)
        assert other == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(theirs, gradient, rtol=1e-3, atol=1e-5)


@every_case
def test_a_label_of_no_confidence_adds_nothing(case):
    """Nobody learns what it says: neither where it is alone, nor beside a label that counts."""
    name = case.task.confidence
    if not name:
        return
    sure, unsure = case.truth(0), counting(case.truth(1), name, 0.0)
    for targets in ([unsure], [sure, unsure]):
        loss, gradient = loss_and_gradient(case, targets)
        other, theirs = loss_and_gradient(case, [*targets[:-1], otherwise(unsure)])
        assert math.isfinite(loss)
        assert other == pytest.approx(loss, rel=1e-6, abs=1e-9)
        torch.testing.assert_close(theirs, gradient, rtol=1e-4, atol=1e-7)
        learned, changed = ([*targets[:-1], counting(t, name, 0.5)] for t in (unsure, otherwise(unsure)))
        assert loss_and_gradient(case, learned)[0] != pytest.approx(loss_and_gradient(case, changed)[0], rel=1e-4)
    alone, together = loss_and_gradient(case, [sure]), loss_and_gradient(case, [sure, unsure])
    if not hasattr(sure, "box"):  # of boxes, the background of the second image does teach
        assert loss_and_gradient(case, [unsure])[0] == 0
        assert together[0] == pytest.approx(alone[0], rel=1e-5)
        torch.testing.assert_close(together[1], alone[1], rtol=1e-3, atol=1e-6)


@every_case
def test_a_surer_label_counts_more(case):
    """Of two labels that contradict each other on the same features, the loss follows the surer one."""
    name = case.task.confidence
    if not name:
        return
    head, features = case.head(), {k: v[:1].expand(2, -1, -1, -1) for k, v in pyramid().items()}
    first, second = case.truth(0), otherwise(case.truth(0))

    def loss(a: float, b: float) -> float:
        torch.manual_seed(0)
        targets = [counting(first, name, a), counting(second, name, b)]
        return float(case.task.loss(head(features), targets).detach())

    # monotone from one label's side to the other's
    steps = [loss(*w) for w in ((0.9, 0.1), (0.7, 0.3), (0.5, 0.5), (0.3, 0.7), (0.1, 0.9))]
    falls = [b < a for a, b in pairwise(steps)]
    assert all(falls) or not any(falls)
    assert steps[0] != pytest.approx(steps[-1], rel=1e-4)


@every_case
def test_statistics_are_finite_numbers(case):
    nothing = case.task.view(case.truth(0), View(SIZE, 10 * SIZE[0], 10 * SIZE[1], *SIZE, SIZE))
    keys = set()
    for target in (case.truth(0), nothing):
        found = case.task.statistics(target, Policy())
        assert all(isinstance(v, float) and math.isfinite(v) for v in found.values())
        keys.add(tuple(found))
    assert len(keys) == 1


@every_case
def test_drawing_is_a_picture_of_the_same_size_that_shows_something(case):
    for size in (SIZE, (33, 41)):
        seen = render(random_scene(0, size, len(case.space.names)))
        before = seen.image.clone()
        picture = case.task.draw(seen.image, case.answer(seen), case.space)
        assert picture.dtype == torch.uint8
        assert picture.shape == seen.image.shape
        assert not torch.equal(picture, before)
        assert torch.equal(seen.image, before), "the given image was painted over"
    nothing = case.task.view(case.truth(0), View(SIZE, 10 * SIZE[0], 10 * SIZE[1], *SIZE, SIZE))
    assert case.task.draw(render(case.scene(0)).image, nothing, case.space).shape == (3, *SIZE)


# ---- label sets of one objective ----


@every_case
def test_classes_in_another_order_are_the_same_classes(case):
    truth, index = case.truth(1), torch.tensor([2, 0, 1])
    moved = case.task.mapped(truth, index, 3)
    assert_same(case.task.check(moved, SIZE, case.space), moved)
    assert case.task.classes(moved) == sorted(int(index[c]) for c in case.task.classes(truth))
    assert_same(case.task.mapped(moved, index.argsort(), 3), truth)


@every_case
def test_several_classes_may_become_one(case):
    one = case.task.mapped(case.truth(1), torch.zeros(3, dtype=torch.long), 1)
    case.task.check(one, SIZE, Space(("thing",), case.space.kind))
    assert case.task.classes(one) in ([0], [])


@every_case
def test_a_mapped_answer_is_mapped_in_every_way_that_it_is_seen(case):
    """First mapped, then seen through a view, is first seen, then mapped."""
    truth, index, view = case.truth(2), torch.tensor([1, 2, 0]), random_view(SIZE, (48, 48), Random(1))
    a = case.task.view(case.task.mapped(truth, index, 3), view)
    assert_same(a, case.task.mapped(case.task.view(truth, view), index, 3))


@every_case
def test_teachers_are_combined_in_the_ways_that_the_task_says(case):
    assert case.task.combines <= {"best", "union", "fuse"}
    truth = case.truth(1)
    if "best" in case.task.combines:
        assert math.isfinite(case.task.sureness(truth, Policy()))
    else:
        with pytest.raises(NotImplementedError, match=case.name):
            case.task.sureness(truth, Policy())
    if "union" in case.task.combines:
        both = case.task.united([truth, truth])
        assert case.task.classes(both) == case.task.classes(truth)
        assert_same(case.task.check(both, SIZE, case.space), both)
    else:
        with pytest.raises(NotImplementedError, match=case.name):
            case.task.united([truth, truth])
    if "fuse" in case.task.combines:
        fused = case.task.fused([truth, truth, truth], case.space)
        assert case.task.classes(fused) == case.task.classes(truth)
        assert_same(case.task.check(fused, SIZE, case.space), fused)
    else:
        with pytest.raises(NotImplementedError, match=case.name):
            case.task.fused([truth, truth], case.space)


@every_case
def test_kinds_of_one_head(case):
    """One kind is itself; of all that join, the joint kind is one of them, whatever the order."""
    assert case.task.joint_kind({case.space.kind}) == case.space.kind
    for other in case.task.kinds:
        joint = case.task.joint_kind({case.space.kind, other})
        assert joint is None or joint in (case.space.kind, other)
        assert joint is None or case.task.joint_kind({joint, other}) == joint


@every_case
def test_truth_has_something_to_be_learned(case):
    assert case.task.nothing(case.truth(1), case.space) == ""
