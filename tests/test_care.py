"""Care for pseudo labels: held against people's labels, with numbers worked out by hand and by pycocotools' rules."""

import json

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex, MulticlassPrecision
from torchmetrics.detection import MeanAveragePrecision

from polyteach.ground.scene import random_scene, render
from polyteach.loading.held import Both, held, lines, spaced
from polyteach.loading.objectives import common
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import PEOPLE, Space
from polyteach.tasks.depth import METRIC, RELATIVE, DepthTarget
from polyteach.tasks.detection import BOXES, MASKS, DetectionTarget
from polyteach.tasks.normals import NormalsTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget
from polyteach.verbs.store.info import info
from tests.worlds import answers_of, noise, store_of

AB = ("a", "b")


def boxes(*found, ignore=()):
    """found: (x0, y0, x1, y1, class, score)."""
    value = torch.tensor(found, dtype=torch.float32).reshape(-1, 6)
    crowd = torch.zeros(len(value), dtype=torch.bool)
    crowd[list(ignore)] = True
    return DetectionTarget(value[:, :4], value[:, 4].long(), value[:, 5], crowd)


def classes(*probabilities):
    return ClassificationTarget(torch.tensor(probabilities, dtype=torch.float32))


def pixels(category, probability):
    return SegmentationTarget(torch.tensor(category), torch.tensor(probability))


def both_say(path, task, people, said, names=AB, theirs=None, kinds=("", ""), part_size=4, size=(24, 24)):
    """A store whose images people and a teacher have labelled; its label sets, people's first."""
    store = store_of(path, noise(len(said), size), part_size)
    sets = []
    given = (PEOPLE, people, names, kinds[0]), ("t", said, theirs or names, kinds[1])
    for name, answers, own, kind in given:
        labels = store.create_set(
            task, name, Space(own, kind), {"teacher": PEOPLE if name == PEOPLE else {"spec": "x:t"}}
        )
        for part in store.parts():
            labels.write(part, store.ids(part), answers[part_size * part : part_size * (part + 1)])
        sets.append(labels)
    return sets


def found_of(path, *given, score=0.5, **more):
    sets = both_say(path, *given, **more)
    [one] = held(sets[1], sets, score)
    return one


def test_boxes_by_hand(tmp_path):
    """Of a: three objects, two found, one box too many. Of b: one, found below the threshold alone, one box wrong."""
    people = [
        boxes((0, 0, 10, 10, 0, 1), (12, 12, 22, 22, 0, 1), (0, 12, 8, 20, 1, 1)),
        boxes((2, 2, 8, 8, 0, 1), (10, 0, 24, 24, 0, 1), ignore=[1]),
        boxes(),
        None,
    ]
    said = [
        # 8 x 10 of 10 x 10 + 0: 0.8; its double is false; 5 x 10 of 150: a third; b below 0.5
        boxes((0, 0, 8, 10, 0, 0.9), (0, 0, 9, 10, 0, 0.8), (17, 12, 24, 22, 0, 0.7), (0, 12, 8, 20, 1, 0.4)),
        boxes((2, 2, 8, 8, 0, 0.6), (12, 2, 20, 20, 0, 0.9)),  # the second is in the crowd: neither way
        boxes((3, 3, 9, 9, 1, 0.55)),
        boxes((3, 3, 9, 9, 1, 0.55)),  # people have not looked
    ]
    one = found_of(tmp_path / "s", "detection", people, said, kinds=(BOXES, BOXES))
    assert (one["images"], one["of"], one["counted"]) == (3, 3, {"objects": 4})
    # a: boxes 0.9 right, 0.8 and 0.7 wrong, 0.6 right; b: 0.55 wrong
    assert one["overall"] == {"recall": 50.0, "precision": 40.0}
    assert one["classes"] == {
        "a": {"objects": 3, "recall": 66.6667, "precision": 50.0},
        "b": {"objects": 1, "recall": 0.0, "precision": 0.0},
    }
    assert one["note"].startswith("2 of the 4 objects have no pseudo box")


@pytest.mark.parametrize("score", [0.1, 0.5, 0.8])
def test_boxes_by_pycocotools_rules(tmp_path, score):
    """A class's recall is the largest on torchmetrics' curve at 0.5; its precision follows from that and its boxes."""
    r = np.random.default_rng(3)
    people, said = [], []
    for _ in range(12):
        true = [(*(c := r.uniform(0, 12, 2)), *(c + r.uniform(3, 10, 2)), int(r.integers(2)), 1) for _ in range(4)]
        guess = [(*(np.array(t[:4]) + r.normal(0, 0.8, 4)), t[4], r.uniform()) for t in true if r.uniform() < 0.8]
        guess += [(*(c := r.uniform(0, 12, 2)), *(c + r.uniform(3, 10, 2)), int(r.integers(2)), r.uniform())]
        people.append(boxes(*true))
        said.append(boxes(*guess))
    one = found_of(tmp_path / "s", "detection", people, said, score=score, kinds=(MASKS, BOXES))
    theirs = MeanAveragePrecision(iou_thresholds=[0.5], class_metrics=True, extended_summary=True)
    for p, t in zip(said, people, strict=True):
        kept = p.score >= score
        guess = {"boxes": p.box[kept], "labels": p.category[kept], "scores": p.score[kept]}
        theirs.update([guess], [{"boxes": t.box, "labels": t.category}])
    scores = theirs.compute()
    recall = scores["recall"][0, :, 0, -1]  # T K A M
    for i, name in enumerate(AB):
        assert one["classes"][name]["recall"] == pytest.approx(100 * float(recall[i]), abs=1e-3)
        # hits of a class are its recall times its objects, so its precision follows
        kept = sum(int(((p.score >= score) & (p.category == i)).sum()) for p in said)
        hits = float(recall[i]) * one["classes"][name]["objects"]
        assert one["classes"][name]["precision"] == pytest.approx(100 * hits / kept, abs=1e-3)


def test_classes_by_hand_and_by_torchmetrics(tmp_path):
    names = ("a", "b", "c")
    r = np.random.default_rng(0)
    true = r.integers(0, 3, 40)
    p = torch.tensor(r.dirichlet((1, 1, 1), 40)).float()
    people = [classes(*torch.eye(3)[t].tolist()) for t in true]
    one = found_of(tmp_path / "s", "classification", people, [ClassificationTarget(x) for x in p], names)
    guess, truth = p.half().argmax(1), torch.tensor(true)
    assert one["overall"]["top-1"] == pytest.approx(
        100 * float(MulticlassAccuracy(3, average="micro")(guess, truth)), abs=1e-3
    )
    theirs = MulticlassPrecision(3, average=None)(guess, truth)
    for i, name in enumerate(names):
        assert one["classes"][name]["precision"] == pytest.approx(100 * float(theirs[i]), abs=1e-3)
        assert one["classes"][name]["objects"] == (true == i).sum()


def test_some_classes_in_common_are_compared_and_that_is_said(tmp_path):
    """People: cat, dog, cow. The teacher: dog, zebra, cat. Cows do not count, and zebra is no answer."""
    people = [classes(1, 0, 0), classes(1, 0, 0), classes(0, 1, 0), classes(0, 0, 1)]
    said = [classes(0.1, 0.7, 0.2), classes(0.6, 0.0, 0.4), classes(0.9, 0.0, 0.1), classes(0.9, 0.0, 0.1)]
    sets = both_say(tmp_path / "s", "classification", people, said, ("cat", "dog", "cow"), ("dog", "zebra", "cat"))
    [one] = held(sets[1], sets, 0.5)
    assert (one["shared"], one["counted"]) == (2, {"images": 3})
    assert one["overall"] == {"top-1": pytest.approx(200 / 3, abs=1e-3)}
    assert one["classes"]["cat"] == {"objects": 2, "recall": 50.0, "precision": 100.0}
    assert one["classes"]["dog"] == {"objects": 1, "recall": 100.0, "precision": 50.0}
    said = " ".join(lines(one, 300))
    assert "over the 2 classes that both have: top-1 66.7 % (the 4 images that both label, 3 images of these" in said


def test_some_classes_of_boxes_and_pixels(tmp_path):
    people = [boxes((0, 0, 10, 10, 0, 1), (12, 12, 22, 22, 1, 1))]
    said = [boxes((0, 0, 10, 10, 1, 0.9), (12, 12, 22, 22, 0, 0.9), (0, 12, 9, 22, 1, 0.9))]
    one = found_of(tmp_path / "d", "detection", people, said, ("cat", "cow"), ("zebra", "cat"), kinds=(BOXES, BOXES))
    assert one["classes"] == {"cat": {"objects": 1, "recall": 100.0, "precision": 50.0}}
    people = [pixels([[0, 1], [0, IGNORE]], [[1.0, 1], [1, 0]])]
    said = [pixels([[1, 1], [0, 1]], [[0.9, 0.9], [0.9, 0.9]])]
    one = found_of(tmp_path / "p", "segmentation", people, said, ("cat", "cow"), ("zebra", "cat"))
    assert one["counted"] == {"pixels": 2}  # the cow's is no pixel of a class that the teacher knows
    assert one["overall"] == {"mIoU": 50.0, "pixels kept": 100.0, "of them right": 50.0}


def test_what_cannot_be_compared_is_not(tmp_path):
    one_hot = [classes(1, 0)] * 4
    for k, theirs in enumerate((("x", "y"), ("0", "1"))):
        sets = both_say(tmp_path / str(k), "classification", one_hot, one_hot, AB, theirs)
        assert common(*sets) is None
        assert held(sets[1], sets, 0.5) == []
    sets = both_say(tmp_path / "none", "classification", [*one_hot[:2], None, None], [None, "failed", *one_hot[:2]])
    assert held(sets[1], sets, 0.5) == []
    assert held(sets[0], sets, 0.5) == []


def test_pixels_by_hand_and_by_torchmetrics(tmp_path):
    people = [pixels([[0, 0], [1, IGNORE]], [[1.0, 1], [1, 0]]), pixels([[1, 1], [1, 1]], [[1.0, 1], [1, 1]])]
    said = [pixels([[0, 1], [1, 1]], [[0.9, 0.8], [0.3, 0.9]]), pixels([[1, 1], [0, 1]], [[0.9, 0.9], [0.9, 0.9]])]
    one = found_of(tmp_path / "s", "segmentation", people, said)
    # pixels that people know: 7; one is below 0.5, so 6 are kept, of which 4 are right
    # a: 2 true, 2 said, 1 right: 1 of 3. b: 5 true, 4 said, 3 right: 3 of 6
    assert one["overall"]["pixels kept"] == pytest.approx(100 * 6 / 7, abs=1e-3)
    assert one["overall"]["of them right"] == pytest.approx(100 * 4 / 6, abs=1e-3)
    assert one["overall"]["mIoU"] == pytest.approx(100 * (1 / 3 + 3 / 6) / 2, abs=1e-3)
    assert one["classes"]["b"] == {"objects": 5, "recall": 60.0, "precision": 75.0}
    every = found_of(tmp_path / "all", "segmentation", people, said, score=0.0)
    truth = torch.stack([t.category for t in people])
    theirs = MulticlassJaccardIndex(2, ignore_index=IGNORE)(torch.stack([t.category for t in said]), truth)
    assert every["overall"]["mIoU"] == pytest.approx(100 * float(theirs), abs=1e-3)


def test_metres_and_relative_depth_are_compared_up_to_scale_and_shift(tmp_path):
    far = [1 + 4 * torch.rand(6, 6, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    known = torch.ones(6, 6, dtype=torch.bool)
    known[0] = False
    people = [DepthTarget(d.masked_fill(~known, 0), known) for d in far]
    said = [DepthTarget(3 / d + 0.5, torch.ones(6, 6, dtype=torch.bool)) for d in far]
    one = found_of(tmp_path / "r", "depth", people, said, (), kinds=(METRIC, RELATIVE), size=(6, 6))
    assert one["overall"]["delta<1.25"] == pytest.approx(100)
    assert one["overall"]["AbsRel"] == pytest.approx(0, abs=2e-3)
    assert one["classes"] == {}
    worse = [DepthTarget(1.1 * d, torch.ones(6, 6, dtype=torch.bool)) for d in far]
    one = found_of(tmp_path / "m", "depth", people, worse, (), kinds=(METRIC, METRIC), size=(6, 6))
    assert one["overall"]["AbsRel"] == pytest.approx(0.1, abs=1e-3)
    sets = both_say(tmp_path / "x", "depth", said, people, (), kinds=(RELATIVE, METRIC), size=(6, 6))
    assert held(sets[1], sets, 0.5) == []  # nobody knows the metres of relative depth


def test_a_task_that_says_nothing_of_comparing_is_held_by_its_metric(tmp_path):
    seen = [render(random_scene(i, (24, 24))).normal for i in range(3)]
    valid = torch.ones(24, 24, dtype=torch.bool)
    people = [NormalsTarget(n, valid) for n in seen]
    turned = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # by 90 degrees about z
    said = [NormalsTarget(torch.einsum("ij,jhw->ihw", turned, n), valid) for n in seen]
    one = found_of(tmp_path / "s", "normals", people, said, ())
    angle = torch.stack([(a.normal * b.normal).sum(0) for a, b in zip(people, said, strict=True)]).clamp(-1, 1).acos()
    assert one["overall"]["mean angle"] == pytest.approx(float(angle.rad2deg().mean()), abs=0.5)


def test_of_many_images_an_even_share_is_taken_and_said(tmp_path):
    assert spaced(5, 8).tolist() == [0, 1, 2, 3, 4]
    taken = spaced(100, 24)
    assert taken.tolist() == [*range(0, 8), *range(33, 41), *range(66, 74)]
    assert len(set(spaced(1001, 1000).tolist())) == 1000
    assert spaced(1001, 1000).max() < 1001
    answers = [classes(1, 0) if i % 3 else None for i in range(60)]  # 40 that both label
    sets = both_say(tmp_path / "s", "classification", [classes(1, 0)] * 60, answers, part_size=7)
    ids = [id for id, *_ in Both(sets[1], sets[0]).pairs(16)]
    both = [str(i) for i in range(60) if i % 3]
    assert ids == [both[i] for i in [*range(0, 8), *range(20, 28)]]
    [one] = held(sets[1], sets, 0.5, most=16)
    assert (one["images"], one["of"]) == (16, 40)
    assert "16 of the 40 images that both label, taken evenly" in " ".join(lines(one, 300))


def test_labelling_and_info_tell_it(tmp_path, teacher, capsys, monkeypatch):
    import polyteach

    monkeypatch.setenv("COLUMNS", "200")
    store = store_of(tmp_path / "s", [i // 4 + 60 for i in noise(10)])
    people = store.create_set("classification", PEOPLE, Space(("green", "red", "blue")), {"teacher": PEOPLE})
    for part in store.parts():
        people.write(part, store.ids(part), [classes(1.0, 0, 0)] * len(store.ids(part)))
    command = {"teachers": {"a": teacher + "mean"}, "progress": False}
    polyteach.label(str(store.path), **command)
    greens = sum(int(a.probability.argmax()) == 1 for a in answers_of(store, "a"))  # of red, green, blue
    told = f"classification/a against classification/people: top-1 {10.0 * greens:.1f} %"
    assert told in capsys.readouterr().err
    polyteach.label(str(store.path), **command)  # nothing to do: told again
    assert capsys.readouterr().err.count("against classification/people") == 1
    info(str(store.path))
    assert told in capsys.readouterr().out
    info(str(store.path), json=True)
    about = json.loads(capsys.readouterr().out)
    [mine] = [s for s in about["sets"] if s["set"] == "classification/a"]
    assert mine["held"][0]["images"] == 10
