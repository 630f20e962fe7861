"""Detection: AP against pycocotools, learning to find objects, partial masks, ignored boxes, low precision."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_iou

from polyteach.ground.geometry import View, area
from polyteach.ground.images import palette
from polyteach.ground.layers import Pyramid
from polyteach.ground.scene import random_scene, render
from polyteach.tasks._detection_head import DetectionHead, propose, read_boxes
from polyteach.tasks.contract import Policy, Space
from polyteach.tasks.detection import BOXES, MASKS, TASK, DetectionTarget, rows

NAMES = ("a", "b", "c")
SIZE = (64, 96)


def boxes(seed, n, noise=0.0, base=None):
    r = np.random.default_rng(seed)
    if base is None:
        corner, side = r.uniform(0, 150, (n, 2)), r.uniform(4, 90, (n, 2))
        box = np.concatenate([corner, corner + side], 1)
        category = r.integers(0, 3, n)
    else:
        box, category = base.box.numpy() + r.normal(0, noise, (len(base.box), 4)), base.category.numpy()
    return DetectionTarget(
        box=torch.from_numpy(box.astype(np.float32)),
        category=torch.from_numpy(category.astype(np.int64)),
        score=torch.from_numpy(r.uniform(0, 1, len(box)).astype(np.float32)),  # no ties: their order is free
        ignore=torch.zeros(len(box), dtype=torch.bool),
    )


def coco_ap(predicted, true):
    """AP, AP50 and AP75 by pycocotools, in percent."""

    def xywh(b):
        return [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])]

    annotations, results = [], []
    for i, (p, t) in enumerate(zip(predicted, true, strict=True)):
        for b, c, g in zip(t.box.double(), t.category, t.ignore, strict=True):
            annotations.append({"id": len(annotations) + 1, "image_id": i, "bbox": xywh(b), "category_id": int(c)})
            annotations[-1] |= {"iscrowd": int(g), "area": xywh(b)[2] * xywh(b)[3]}
        for b, c, s in zip(p.box.double(), p.category, p.score, strict=True):
            results.append({"image_id": i, "bbox": xywh(b), "category_id": int(c), "score": float(s)})
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(len(true))],
        "categories": [{"id": i} for i in range(3)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [100 * x for x in judge.stats[:3]]


def drawn(*box, mask=None):
    n = len(box)
    return DetectionTarget(
        box=torch.tensor(box).float().view(-1, 4),
        category=torch.zeros(n, dtype=torch.int64),
        score=torch.ones(n),
        ignore=torch.zeros(n, dtype=torch.bool),
        mask=mask,
    )


def test_a_teachers_boxes_are_tidied_and_peoples_are_refused_or_counted():
    """The same boxes in both: what a network gives at its border is no mistake, what a person wrote there is one."""
    space = Space(NAMES, BOXES)
    bad = {
        "lies outside": [(100, 5, 120, 9), (5, -9, 9, 0), (-9, 5, 0, 9), (5, 64, 9, 70)],
        "has no area": [(5, 5, 5, 9), (9, 9, 5, 20), (5, 9, 9, 9)],
        r"far beyond the image of 64 x 96 \(height": [(-2.5, 5, 9, 9), (5, 5, 9, 66.5), (5, -3, 9, 9)],
    }
    for said, wrong in bad.items():
        for box in wrong:
            assert len(TASK.check(drawn(box, (1, 1, 5, 5)), SIZE, space).box) >= 1
            with pytest.raises(ValueError, match=rf"box 1: \[.*\] .*{said}"):
                TASK.review(drawn((1, 1, 5, 5), box), SIZE, space)
            with pytest.raises(ValueError, match=rf"^the second .*{said}"):
                TASK.review(drawn((1, 1, 5, 5), box), SIZE, space, ["the first", "the second"])
    review = TASK.review(drawn((-2, 5, 9, 9), (5, 5, 98, 66), (5, 5, 96.005, 9), (3, 3, 3.5, 9)), SIZE, space)
    assert review.objects == 4
    assert review.target.box.tolist() == [[0, 5, 9, 9], [5, 5, 96, 64], [5, 5, 96, 9], [3, 3, 3.5, 9]]
    assert review.notes == {
        "reached a little beyond the image and were clipped": 2,
        "are under a pixel high or wide: too small to be learned": 1,
    }
    large = TASK.review(drawn((-19, 5, 1000, 1009)), (1000, 2000), space)  # 1 % of each side: 10 high, 20 wide
    assert large.target.box.tolist() == [[0, 5, 1000, 1000]]
    with pytest.raises(ValueError, match="10 pixels are clipped"):
        TASK.review(drawn((-19, 5, 1000, 1011)), (1000, 2000), space)


@pytest.mark.parametrize("scale", [1, 4])
def test_an_outline_and_its_box_are_of_one_place(scale):
    """Masks may be coarser than the picture."""
    mask = torch.zeros(1, SIZE[0] // scale, SIZE[1] // scale, dtype=torch.bool)
    mask[0, 16 // scale : 32 // scale, 40 // scale : 80 // scale] = True
    space = Space(NAMES, MASKS)
    for box in ((40, 16, 80, 32), (38.5, 15, 81, 33), (60, 16, 80, 32)):
        assert not TASK.review(drawn(box, mask=mask), SIZE, space).notes
    partly = TASK.review(drawn((70, 16, 90, 32), mask=mask), SIZE, space)
    assert partly.notes == {"have outlines that lie mostly outside of their boxes": 1}
    for box in ((2, 16, 30, 32), (40, 40, 80, 60)):
        with pytest.raises(ValueError, match=r"box 0: .* and its outline have nothing in common"):
            TASK.review(drawn(box, mask=mask), SIZE, space)
    with pytest.raises(ValueError, match="nothing in common"):
        TASK.review(drawn((2, 16, 30, 32), mask=torch.zeros_like(mask)), SIZE, space)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crowd", [False, True])
def test_ap_agrees_with_pycocotools(seed, crowd):
    true = [boxes(100 * seed + i, 1 + i) for i in range(8)]
    if crowd:
        true = [replace(t, ignore=torch.arange(len(t.box)) % 3 == 1) for t in true]
    predicted = [boxes(7 + 100 * seed + i, 0, 6.0, t) for i, t in enumerate(true)]
    metric = TASK.metric(Space(NAMES, BOXES))
    for p, t in zip(predicted, true, strict=True):
        metric.update([p], [t])
    found = metric.compute()
    assert [found[k] for k in ("AP", "AP50", "AP75")] == pytest.approx(coco_ap(predicted, true), abs=1e-6)
    assert 5 < found["AP"] < 95


def test_ap_of_nothing_is_not_a_number():
    metric = TASK.metric(Space(NAMES, BOXES))
    metric.update([boxes(0, 0)], [boxes(0, 0)])
    assert np.isnan(metric.compute()["AP"])


def pyramid(batch, channels):
    """A pyramid that can be learned itself: nothing but the head and the loss is tested."""
    return {f"p{k}": torch.nn.Parameter(torch.randn(batch, channels, -(-SIZE[0] // 2**k), -(-SIZE[1] // 2**k)))
            for k in range(2, 8)}  # fmt: skip


def test_learns_to_find_every_object_of_an_image():
    space = Space(NAMES, MASKS)
    truth = [TASK.truth(render(random_scene(s, SIZE, objects=3)), space) for s in (3, 5)]
    levels, head = pyramid(2, 32), TASK.head({f"p{k}": 32 for k in range(2, 8)}, space)
    optimizer = torch.optim.AdamW([*head.parameters(), *levels.values()], lr=3e-3)
    for _ in range(70):
        optimizer.zero_grad()
        loss = TASK.loss(head(levels), truth)
        loss.backward()
        optimizer.step()
    metric = TASK.metric(space)
    metric.update(TASK.decode(head(levels)), truth)
    scores = metric.compute()
    assert scores["AP50"] > 80
    assert scores["mask AP50"] > 60


def test_a_head_in_training_mode_decodes_as_in_evaluation_and_stays_so():
    space = Space(NAMES, BOXES)
    levels, head = pyramid(1, 8), TASK.head({f"p{k}": 8 for k in range(2, 8)}, space)
    first = TASK.decode(head.train()(levels))[0]
    assert head.training
    second = TASK.decode(head.eval()(levels))[0]
    assert torch.equal(first.box, second.box)
    assert not head.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_anchors_do_not_depend_on_the_precision_of_the_features(dtype):
    """Positions up to 1,024 in bfloat16 are whole multiples of 4."""
    head = DetectionHead(8, 2, masks=False)
    size = (512, 1024)
    maps = {f"p{k}": torch.zeros(1, 8, size[0] >> k, size[1] >> k) for k in range(3, 8)}
    with torch.no_grad():
        whole = head(maps)
        half = replace(whole, features={k: v.to(dtype) for k, v in maps.items()})
    expected, found = (propose(p)[1][0] for p in (whole, half))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    cells = torch.stack(torch.meshgrid(torch.arange(64) * 8.0, torch.arange(128) * 8.0, indexing="ij"), -1)
    centres = (found[: 64 * 128 * 3, :2] + found[: 64 * 128 * 3, 2:]) / 2
    assert torch.equal(centres.view(64, 128, 3, 2)[:, :, 1].flip(-1), cells)


def losses(space, targets):
    torch.manual_seed(0)
    levels, head = pyramid(len(targets), 8), TASK.head({f"p{k}": 8 for k in range(2, 8)}, space)
    loss = TASK.loss(head(levels), targets)
    loss.backward()
    return loss.detach(), head


def test_images_without_masks_miss_only_the_mask_loss():
    space = Space(NAMES, MASKS)
    with_masks = TASK.truth(render(random_scene(3, SIZE)), space)
    without = replace(with_masks, mask=None)
    for targets, learned in (([with_masks, without], True), ([without, without], False)):
        loss, head = losses(space, targets)
        assert loss.isfinite()
        grads = [p.grad.abs().sum() for p in head.regions.mask_head.parameters() if p.grad is not None]
        assert bool(torch.stack(grads).sum() > 0) == learned


def test_mask_scores_are_of_the_images_whose_truth_has_masks():
    space = Space(NAMES, MASKS)
    first, second = (TASK.truth(render(random_scene(s, SIZE)), space) for s in (3, 5))
    moved = replace(second, mask=second.mask.roll(4, -1))  # its mask scores are not perfect

    def scores(predicted, true):
        metric = TASK.metric(space)
        for p, t in zip(predicted, true, strict=True):
            metric.update([p], [t])
        found = metric.compute()
        metric.reset()
        metric.update([first], [first])
        assert metric.compute()["mask AP"] == pytest.approx(100)
        return [found[k] for k in ("AP", "mask AP", "mask AP50", "mask AP75")]

    some = scores([first, moved, first], [replace(first, mask=None), second, first])
    assert some[0] == pytest.approx(100)
    assert some[1:] == pytest.approx(scores([moved, first], [second, first])[1:])
    assert 0 < some[1] < 95
    none = scores([first], [replace(first, mask=None)])
    assert none[0] == pytest.approx(100)
    assert np.isnan(none[1:]).all()
    assert scores([replace(first, mask=None)], [first])[1:] == [0, 0, 0]
    nothing = replace(rows(first, torch.zeros(0, dtype=torch.long)), mask=None)
    unsure = replace(first, score=first.score / 2)
    found = scores([unsure, first], [first, nothing])
    assert found[1] < 99  # what is seen where nothing is counts against the masks as against the boxes
    assert found[1] == pytest.approx(found[0])


@pytest.mark.parametrize("kind", [BOXES, MASKS])
def test_an_image_labelled_without_objects_teaches_background(kind):
    empty = rows(TASK.truth(render(random_scene(3, SIZE)), Space(NAMES, kind)), torch.zeros(0, dtype=torch.long))
    loss, head = losses(Space(NAMES, kind), [empty])
    assert loss > 0
    assert head.regions.box_predictor.cls_score.weight.grad.abs().sum() > 0


def test_ignored_objects_are_neither_learned_nor_background():
    space = Space(NAMES, BOXES)
    truth = TASK.truth(render(random_scene(3, SIZE)), space)
    ignored = replace(truth, ignore=torch.ones(len(truth.box), dtype=torch.bool))
    head = TASK.head({f"p{k}": 8 for k in range(2, 8)}, space)
    given = {"boxes": truth.box, "labels": torch.where(ignored.ignore, -1, truth.category + 1)}
    labels, _ = head.proposals.assign_targets_to_anchors([truth.box.clone()], [given])
    assert (labels[0] == -1).all()
    far = torch.tensor([[0.0, 0, 2, 2]]) + 400
    labels, _ = head.proposals.assign_targets_to_anchors([far], [given])
    assert (labels[0] == 0).all()
    _, classes = head.regions.assign_targets_to_proposals([truth.box], [given["boxes"]], [given["labels"]])
    assert (classes[0] == -1).all()


def test_an_image_of_ignored_objects_teaches_no_box():
    """Not to propose it, not to move a proposal on to it, and not that there is background."""
    space = Space(NAMES, BOXES)
    truth = TASK.truth(render(random_scene(3, SIZE)), space)
    for ignore in (False, True):
        _, head = losses(space, [replace(truth, ignore=torch.full((len(truth.box),), ignore))])
        grads = (head.proposals.head.bbox_pred.weight.grad, head.regions.box_predictor.bbox_pred.weight.grad)
        assert [bool(g.abs().sum() > 0) for g in grads] == [not ignore] * 2


def test_what_lies_inside_an_ignored_crowd_is_no_background():
    head = TASK.head({f"p{k}": 8 for k in range(2, 8)}, Space(NAMES, BOXES))
    known = torch.tensor([[0.0, 0, 100, 100], [20, 20, 40, 40]])
    names = torch.tensor([-1, 2])
    # inside the crowd; an eighth of it outside; half outside; outside; the object inside the crowd
    tried = torch.tensor([[60.0, 60, 80, 80], [84, 60, 102, 80], [90, 0, 110, 20], [110, 0, 130, 20], [20, 20, 40, 40]])
    labels, _ = head.proposals.assign_targets_to_anchors([tried], [{"boxes": known, "labels": names}])
    assert labels[0].tolist() == [-1, -1, 0, 0, 1]
    _, classes = head.regions.assign_targets_to_proposals([tried], [known], [names])
    assert classes[0].tolist() == [-1, -1, 0, 0, 2]


@pytest.mark.parametrize("kind", [BOXES, MASKS])
def test_an_image_that_is_all_crowd_gives_a_finite_loss(kind):
    crowd = DetectionTarget(
        box=torch.tensor([[0.0, 0, SIZE[1], SIZE[0]]]),
        category=torch.tensor([0]),
        score=torch.ones(1),
        ignore=torch.tensor([True]),
    )
    loss, head = losses(Space(NAMES, kind), [crowd])
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


def test_bf16_autocast_works_on_the_cpu():
    space = Space(NAMES, MASKS)
    truth = TASK.truth(render(random_scene(3, SIZE)), space)
    levels: Pyramid = pyramid(1, 8)
    head = TASK.head({f"p{k}": 8 for k in range(2, 8)}, space)
    with torch.autocast("cpu", torch.bfloat16):
        prediction = head({k: v.bfloat16() for k, v in levels.items()})
        loss = TASK.loss(prediction, [truth])
        found = TASK.decode(prediction)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert found[0].box.dtype == torch.float32


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(-40, 60), st.integers(-40, 60), st.integers(20, 200), st.booleans())
def test_views_keep_the_boxes_that_keep_a_tenth(seed, top, left, side, mirrored):
    target = boxes(seed, 6)
    view = View((200, 250), top, left, side, side, (64, 64), mirrored)
    seen = TASK.view(target, view)
    assert ((seen.box >= 0) & (seen.box <= 64)).all()
    assert ((seen.box[:, 2:] - seen.box[:, :2]) >= 1).all()
    # by hand: clip in pixels of the source, then scale
    low = target.box[:, :2].maximum(torch.tensor([left, top]))
    high = target.box[:, 2:].minimum(torch.tensor([left + side, top + side]))
    sides = (high - low).clamp(min=0) * 64 / side
    part = sides.prod(1) / (area(target.box) * (64 / side) ** 2)
    sure = (part > 0.101) & (sides > 1.01).all(1)
    possible = (part > 0.099) & (sides > 0.99).all(1)
    assert int(sure.sum()) <= len(seen.box) <= int(possible.sum())


def test_check_tidies_and_refuses():
    good = boxes(0, 3)
    space = Space(NAMES, BOXES)
    out = replace(good, box=torch.tensor([[-5.0, -5, 10, 10], [300, 300, 400, 400], [9, 9, 5, 20]]))
    assert TASK.check(out, (100, 100), space).box.tolist() == [[0, 0, 10, 10]]
    for wrong, said in [
        (replace(good, box=good.box * float("nan")), "box is not finite"),
        (replace(good, category=good.category + 3), "not one of the space's 3 classes"),
        (replace(good, score=good.score + 3), "score must be"),
        (replace(good, mask=torch.ones(3, 10, 90, dtype=torch.bool)), "wrong size"),
    ]:
        with pytest.raises(ValueError, match=said):
            TASK.check(wrong, (200, 200), space)


def test_threshold_keeps_whole_rows():
    target = boxes(0, 10)
    kept = TASK.pseudo(target, Policy(score=0.5, confidence=True))
    assert torch.equal(kept.score, target.score[target.score >= 0.5])
    assert torch.equal(kept.box, target.box[target.score >= 0.5])


def test_a_box_at_the_threshold_is_kept():
    target = replace(boxes(0, 3), score=torch.tensor([0.25, 0.5, 0.75]))
    assert TASK.pseudo(target, Policy(score=0.5)).box.tolist() == target.box[1:].tolist()


def test_decoded_boxes_keep_the_documented_bounds():
    """At most 100, score of at least 0.05, no two of a class that overlap by more than a half; none is lost to 0.3."""
    space = Space(NAMES, BOXES)
    shared, scores = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        levels, head = pyramid(1, 8), TASK.head({f"p{k}": 8 for k in range(2, 8)}, space).eval()
        torch.nn.init.normal_(head.regions.box_predictor.cls_score.weight, 0, 2)  # sure of some, unsure of others
        head.regions.box_predictor.cls_score.bias.data[0] = 7  # and of most that there is nothing
        (found,) = TASK.decode(head(levels))
        assert 0 < len(found.box) <= 100
        scores += found.score.tolist()
        for c in range(3):
            mine = found.box[found.category == c]
            shared += box_iou(mine, mine).triu(1).flatten().tolist()
    assert 0.05 <= min(scores) < 0.3
    assert 0.3 < max(shared) <= 0.5


def test_an_outline_is_where_it_is_likelier_than_not():
    p = torch.full((1, 1, 28, 28), 0.6)
    p[..., 14:] = 0.4
    found = {
        "boxes": torch.tensor([[8.0, 8, 48, 48]]), "labels": torch.tensor([1]), "scores": torch.ones(1), "masks": p
    }  # fmt: skip
    mask = read_boxes(found, SIZE).mask[0]
    rows_seen, columns = (mask.any(d).nonzero().flatten() for d in (1, 0))
    assert abs(int(rows_seen.min()) - 8) <= 2
    assert abs(int(rows_seen.max()) - 47) <= 2
    assert abs(int(columns.min()) - 8) <= 2
    assert abs(int(columns.max()) - 27) <= 2


@pytest.mark.parametrize("kind", [BOXES, MASKS])
def test_a_world_without_objects_has_an_empty_answer(kind):
    space = Space(NAMES, kind)
    truth = TASK.check(TASK.truth(render(random_scene(0, SIZE, objects=0)), space), SIZE, space)
    assert truth.box.shape == (0, 4)
    assert (truth.mask is not None) == (kind == MASKS)


def test_a_label_at_the_edge_of_the_picture_is_shown_whole():
    image = torch.zeros(3, 160, 240, dtype=torch.uint8)
    shapes = []
    for corner in ([40.0, 40, 55, 50], [225.0, 40, 240, 50], [225.0, 150, 240, 160], [40.0, 150, 55, 160]):
        target = replace(boxes(0, 1), box=torch.tensor([corner]), category=torch.tensor([0]), score=torch.ones(1))
        painted = TASK.draw(image, target, Space(("dining table",), BOXES)).sum(0) > 0
        shapes.append((int(painted.any(0).sum()), int(painted.any(1).sum())))  # the label covers the box
    widths, heights = zip(*shapes, strict=True)
    assert max(widths) - min(widths) <= 3
    assert max(heights) - min(heights) <= 3


def test_where_outlines_overlap_the_best_is_drawn():
    """By hand: 55 % of the image and 45 % of the colour, which there is of one object alone."""
    image = torch.full((3, 160, 240), 200, dtype=torch.uint8)
    mask = torch.zeros(3, 160, 240, dtype=torch.bool)
    mask[0, 20:120, 20:160] = mask[1, 60:140, 80:220] = mask[2, 72:152, 100:232] = True
    kept = mask.clone()
    target = DetectionTarget(
        torch.tensor([[20.0, 20, 160, 120], [80, 60, 220, 140], [100, 72, 232, 152]]), torch.tensor([0, 1, 2]),
        torch.tensor([0.5, 0.9, 0.4]), torch.zeros(3, dtype=torch.bool), mask,
    )  # fmt: skip
    painted = TASK.draw(image, target, Space(NAMES, MASKS))
    colours = palette(len(NAMES))
    for place, best in (((110, 130), 1), ((130, 150), 1), ((147, 200), 2), ((80, 50), 0)):  # of three, two, one, one
        wanted = (image[:, place[0], place[1]] * 0.55 + colours[best] * 0.45).to(torch.uint8)
        assert torch.equal(painted[:, place[0], place[1]], wanted), place
    assert torch.equal(target.mask, kept)  # what is drawn is not changed
