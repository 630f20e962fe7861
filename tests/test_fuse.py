"""Several teachers as one voice: weighted boxes fusion by its formula, votes, medians, and what agreement is worth."""

import math

import numpy as np
import pytest
import torch

from polyteach.tasks import load_task
from polyteach.tasks.contract import Space
from polyteach.tasks.depth import METRIC, RELATIVE, DepthTarget
from polyteach.tasks.detection import BOXES, MASKS, DetectionTarget
from polyteach.tasks.normals import NormalsTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget

NAMES = ("a", "b", "c")


def boxes(*found, mask=None):
    """found: (x0, y0, x1, y1, class, score)."""
    value = torch.tensor(found, dtype=torch.float32).reshape(-1, 6)
    return DetectionTarget(
        box=value[:, :4],
        category=value[:, 4].long(),
        score=value[:, 5],
        ignore=torch.zeros(len(value), dtype=torch.bool),
        mask=mask,
    )


def reference(teachers):
    """Weighted boxes fusion as its paper's section 3 says it, one box after the other; (box, class, score)."""
    listed = sorted((b for t in teachers for b in t), key=lambda b: -b[5])
    clusters = []
    for box in listed:
        best, where = 0.55, None
        for k, (mean, members) in enumerate(clusters):
            if members[0][4] != box[4]:
                continue
            w, h = (min(mean[i + 2], box[i + 2]) - max(mean[i], box[i]) for i in (0, 1))
            both = max(w, 0) * max(h, 0)
            size = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (mean, box))
            if both / (size - both) > best:
                best, where = both / (size - both), k
        if where is None:
            clusters.append((box[:4], [box]))
        else:
            members = [*clusters[where][1], box]
            total = sum(m[5] for m in members)
            clusters[where] = tuple(sum(m[i] * m[5] for m in members) / total for i in range(4)), members
    n = len(teachers)
    return [(m, b[0][4], sum(x[5] for x in b) / len(b) * min(len(b), n) / n) for m, b in clusters]


@pytest.mark.parametrize("seed", range(5))
def test_boxes_are_fused_as_the_paper_says(seed):
    r = np.random.default_rng(seed)
    true = [(*(c := r.uniform(0, 60, 2)), *(c + r.uniform(10, 40, 2)), int(r.integers(3))) for _ in range(8)]
    teachers = [
        [(*(np.array(t[:4]) + r.normal(0, 1.5, 4)), t[4], r.uniform(0.1, 1)) for t in true if r.uniform() < 0.8]
        for _ in range(3)
    ]
    fused = load_task("detection").fused([boxes(*t) for t in teachers], Space(NAMES, BOXES))
    wanted = sorted(reference(teachers), key=lambda w: -w[2])
    order = fused.score.argsort(descending=True)
    assert fused.category[order].tolist() == [c for _, c, _ in wanted]
    np.testing.assert_allclose(fused.score[order], [s for *_, s in wanted], rtol=1e-4)
    np.testing.assert_allclose(fused.box[order], [b for b, *_ in wanted], rtol=1e-3, atol=1e-3)


def test_what_one_of_three_teachers_found_alone_scores_a_third():
    found = [boxes((10, 10, 30, 30, 1, 0.9)), boxes((10, 10, 30, 30, 1, 0.6), (50, 50, 60, 60, 2, 0.9)), boxes()]
    fused = load_task("detection").fused(found, Space(NAMES, BOXES))
    assert fused.score.tolist() == pytest.approx([0.75 * 2 / 3, 0.3])
    assert fused.category.tolist() == [1, 2]
    nothing = load_task("detection").fused([boxes(), boxes()], Space(NAMES, BOXES))
    assert len(nothing.box) == 0


def test_outlines_are_fused_by_score():
    left, right = torch.zeros(1, 4, 8, dtype=torch.bool), torch.zeros(1, 2, 4, dtype=torch.bool)
    left[:, :, :4], right[:, :, 1:3] = True, True
    found = [boxes((0, 0, 8, 4, 0, 0.9), mask=left), boxes((0, 0, 8, 4, 0, 0.3), mask=right)]
    fused = load_task("detection").fused(found, Space(NAMES, MASKS))
    assert fused.mask[0, 0].tolist() == [True] * 4 + [False] * 4  # the surer one has three quarters
    without = load_task("detection").fused([found[0], boxes((0, 0, 8, 4, 0, 0.3))], Space(NAMES, MASKS))
    assert without.mask is None


def test_pixels_vote_with_their_probabilities():
    """By columns: all agree; two against a surer one; two against a much surer one; ignored by some, and by all."""
    category = torch.tensor([[0, 1, 1, IGNORE, IGNORE], [0, 1, 1, 2, IGNORE], [0, 2, 2, IGNORE, IGNORE]])
    p = torch.tensor([[0.9, 0.5, 0.4, 1, 1], [0.6, 0.4, 0.4, 0.6, 1], [0.6, 0.7, 0.9, 1, 1]])
    found = [SegmentationTarget(category=c[None], probability=q[None]) for c, q in zip(category, p, strict=True)]
    fused = load_task("segmentation").fused(found, Space(NAMES))
    assert fused.category.tolist() == [[0, 1, 2, 2, IGNORE]]
    assert fused.probability[0, :4].tolist() == pytest.approx([0.7, 0.3, 0.3, 0.2])


def test_probabilities_are_averaged():
    task = load_task("classification")
    found = [task.target(probability=torch.tensor(p)) for p in ([0.8, 0.2, 0.0], [0.0, 0.2, 0.8])]
    assert task.fused(found, Space(NAMES)).probability.tolist() == pytest.approx([0.4, 0.2, 0.4])


def depth(*values, valid=None):
    value = torch.tensor([values], dtype=torch.float32)
    known = torch.ones_like(value, dtype=torch.bool) if valid is None else torch.tensor([valid])
    return DepthTarget(value=value.masked_fill(~known, 0), valid=known)


def test_metres_are_the_median_where_most_agree():
    found = [depth(1, 2, 4, 5), depth(1.1, 2, 9, 5, valid=[True, True, True, False]), depth(5, 2, 20, 9)]
    fused = load_task("depth").fused(found, Space(kind=METRIC))
    assert fused.value[0, :2].tolist() == pytest.approx([1.1, 2])
    assert fused.valid.tolist() == [[True, True, False, False]]
    assert fused.value[0, 2:].tolist() == [0, 0]


def test_relative_maps_have_one_scale_and_shift():
    """Two that say the same in other units agree; a third, turned round, changes nothing."""
    first = torch.linspace(0, 1, 40)
    found = [depth(*first.tolist()), depth(*(7 - 0 + 30 * first).tolist()), depth(*first.flip(0).square().tolist())]
    fused = load_task("depth").fused(found[:2], Space(kind=RELATIVE))
    torch.testing.assert_close(fused.value[0], first, rtol=0, atol=1e-5)
    assert fused.valid.all()
    several = load_task("depth").fused([found[0], found[1], found[0]], Space(kind=RELATIVE))
    torch.testing.assert_close(several.value[0], first, rtol=0, atol=1e-5)


def test_normals_are_the_mean_direction_where_they_agree():
    def at(degrees):
        return (math.sin(math.radians(degrees)), 0.0, -math.cos(math.radians(degrees)))

    def normals(*angles):
        return NormalsTarget(
            normal=torch.tensor([at(a) for a in angles]).T[:, None].float(), valid=torch.ones(1, len(angles)).bool()
        )

    fused = load_task("normals").fused([normals(10, 0, 0), normals(30, 0, 90)], Space())
    torch.testing.assert_close(fused.normal[:, 0, 0], torch.tensor(at(20)).float(), rtol=0, atol=1e-5)
    assert fused.valid.tolist() == [[True, True, False]]  # two at 90 degrees have no direction in common
    assert not fused.normal[:, 0, 2].any()
