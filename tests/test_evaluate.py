"""`polyteach evaluate`: scores of a run, a label set or a teacher against people's labels."""

import json
import math
import re

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex, MulticlassPrecision, MulticlassRecall

import polyteach
from polyteach.__main__ import main
from polyteach.ground.scene import random_scene, render
from polyteach.store import Store
from polyteach.tasks import load_task
from polyteach.tasks._average_precision import confused
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Policy, Space
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget
from tests.worlds import INFO, NAMES, label_truly, noise, options, rows_of, seen_tasks, store_of, teacher_in

PEOPLE = {"teacher": "people"}


def evaluate(what, store, **more):
    return polyteach.evaluate(what, store, progress=False, **more)


def one(result, task):
    """The only question of a task, and its only answers."""
    (question,) = [q for q in result["questions"] if q["task"] == task]
    (answers,) = question["answers"]
    return question, answers


def values(answers):
    return {k: v["value"] for k, v in answers["scores"].items()}


def one_hot(index, classes=3):
    return ClassificationTarget(probability=torch.eye(classes)[index])


def labelled(path, task, sets, images=None, split=lambda i: None, names=NAMES, kind="", spaces=None):
    """A store of noise with label sets of one task; sets: name -> answers, one per image. spaces: name -> its own."""
    count = len(next(iter(sets.values())))
    store = store_of(path, rows_of(images or noise(count), split=split))
    for name, answers in sets.items():
        space = (spaces or {}).get(name, Space(names, kind))
        labels = store.create_set(task, name, space, PEOPLE if name == "people" else INFO)
        for part in store.parts():
            ids = store.ids(part)
            first = part * store.part_size
            labels.write(part, ids, answers[first : first + len(ids)])
    return str(path)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Rendered scenes that people, and a copy of theirs, label for every task."""
    renders = [render(random_scene(i, (48, 64))) for i in range(6)]
    rows = rows_of([r.image for r in renders], split=lambda i: "val" if i % 2 else "train")
    store = store_of(tmp_path_factory.mktemp("scenes") / "store", rows)
    for name in ("people", "copy"):
        label_truly(store, renders, name=name)
    return str(store.path)


@pytest.fixture(scope="module")
def copied(scenes):
    """What evaluating that copy says."""
    return evaluate("copy", scenes)


# ---- against what is known ----


@pytest.mark.parametrize("task", seen_tasks())
def test_truth_against_itself_is_perfect(copied, task):
    question, answers = one(copied, task)
    perfect = {k: 0 if k in question["lower_is_better"] else 100 for k in answers["scores"]}
    assert values(answers) == pytest.approx(perfect, abs=1e-4)
    assert answers["images"] == 6
    assert not answers["worst"]
    assert not answers["failed"]
    assert all(s["low"] == pytest.approx(s["value"], abs=1e-4) for s in answers["scores"].values())
    if answers["confusion"]:
        matrix = np.array(answers["confusion"]["matrix"])
        assert matrix.sum() == np.trace(matrix) > 0
        assert all(v["recall"] == v["precision"] == 100 for v in answers["classes"].values() if v["count"])


def test_confusion_and_calibration_by_hand(tmp_path):
    true = [0, 0, 0, 1, 1, 2]
    said = [[0.9, 0.1, 0], [0.6, 0.4, 0], [0.2, 0.8, 0], [0.1, 0.9, 0], [0.6, 0.3, 0.1], [0, 0.6, 0.4]]
    answers = [ClassificationTarget(probability=torch.tensor(p)) for p in said]
    store = labelled(tmp_path / "s", "classification", {"people": [one_hot(i) for i in true], "soft": answers})
    _, found = one(evaluate("soft", store), "classification")
    assert values(found)["top-1"] == pytest.approx(100 * 3 / 6)
    assert found["confusion"]["matrix"] == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert found["confusion"]["names"] == [*NAMES, "(none)"]
    assert found["confusion"]["pairs"][0] == ["blue", "green", 1, 1.0] or found["confusion"]["pairs"][0][2] == 1
    assert found["classes"]["red"] == {
        "count": 2 + 1,
        "recall": pytest.approx(200 / 3),
        "precision": pytest.approx(200 / 3),
    }
    assert found["classes"]["blue"]["precision"] is None
    # 0.6 to 0.7: three answers of which one is right; 0.8 to 0.9: one that is wrong; 0.9 to 1: two that are right
    by_hand = (3 * abs(0.6 - 1 / 3) + 1 * 0.8 + 2 * (1 - 0.9)) / 6
    assert found["reliability"]["ece"] == pytest.approx(by_hand, abs=1e-3)  # kept as float16
    assert [(b["answers"], b["right"]) for b in found["reliability"]["bins"]] == [
        (3, pytest.approx(1 / 3)), (1, 0), (2, 1),
    ]  # fmt: skip
    # the most probable wrong class comes first: 0.8 against 0.2, then 0.6 against 0.3, then 0.6 against 0.4
    assert [w["id"] for w in found["worst"]] == ["2", "4", "5"]
    assert found["worst"][0]["what"] == "green 80%, is red (20%)"


def test_classes_of_pixels_are_those_of_torchmetrics(tmp_path):
    draw = torch.Generator().manual_seed(0)
    true, said = (torch.randint(0, 3, (10, 24, 24), generator=draw) for _ in range(2))
    true[:, :3] = IGNORE
    make = [[SegmentationTarget(category=c, probability=torch.ones(24, 24)) for c in maps] for maps in (true, said)]
    store = labelled(tmp_path / "s", "segmentation", {"people": make[0], "random": make[1]})
    _, found = one(evaluate("random", store), "segmentation")
    for name, metric in (
        ("IoU", MulticlassJaccardIndex(3, average="none", ignore_index=IGNORE)),
        ("recall", MulticlassRecall(3, average="none", ignore_index=IGNORE)),
        ("precision", MulticlassPrecision(3, average="none", ignore_index=IGNORE)),
    ):
        expected = (100 * metric(said, true)).tolist()
        assert [v[name] for v in found["classes"].values()] == pytest.approx(expected, abs=1e-3)
    assert [v["count"] for v in found["classes"].values()] == [int((true == c).sum()) for c in range(3)]
    assert np.array(found["confusion"]["matrix"]).sum() == int((true != IGNORE).sum())


def boxes(rows):
    """rows: (x0, y0, x1, y1, class, score, ignored)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 7)
    return DetectionTarget(
        box=table[:, :4], category=table[:, 4].long(), score=table[:, 5], ignore=table[:, 6].bool(), mask=None
    )


def random_boxes(seed, people):
    draw = np.random.default_rng(seed)
    out = []
    for _ in range(draw.integers(3, 12)):
        side = np.exp(draw.uniform(2, 5.2, 2))  # 7 to 180 pixels
        x, y = draw.uniform(0, 200, 2)
        out.append((x, y, x + side[0], y + side[1], draw.integers(3), 1 if people else draw.uniform(0.1, 1), 0))
    return out


def shaken(rows, seed):
    draw = np.random.default_rng(seed)
    kept = [r for r in rows if draw.random() < 0.8]
    moved = [(*(np.array(r[:4]) + draw.normal(0, 4, 4)), r[4], draw.uniform(0.3, 1), 0) for r in kept]
    return [r for r in moved if r[2] > r[0] + 1 and r[3] > r[1] + 1]


def test_sizes_of_boxes_are_those_of_pycocotools(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    true = [random_boxes(i, True) for i in range(20)]
    true[3][0] = (*true[3][0][:6], 1)  # a crowd
    said = [shaken(t, i) + random_boxes(100 + i, False)[:3] for i, t in enumerate(true)]
    sets = {"people": [boxes(t) for t in true], "said": [boxes(s) for s in said]}
    store = labelled(tmp_path / "s", "detection", sets, images=noise(20, (400, 400)), kind="boxes")
    _, found = one(evaluate("said", store), "detection")

    def entries(images, score):
        rows = [(i, r) for i, image in enumerate(images) for r in image]
        out = []
        for k, (i, r) in enumerate(rows, 1):
            x0, y0, x1, y1 = (float(np.float32(v)) for v in r[:4])
            about = {"id": k, "image_id": i, "category_id": int(r[4]), "bbox": [x0, y0, x1 - x0, y1 - y0]}
            about |= {"score": float(r[5])} if score else {"iscrowd": int(r[6])}
            out.append(about | {"area": (x1 - x0) * (y1 - y0)})
        return out

    coco = COCO()
    coco.dataset = {"images": [{"id": i} for i in range(20)], "annotations": entries(true, False),
                    "categories": [{"id": i} for i in range(3)], "info": {}}  # fmt: skip
    coco.createIndex()
    judge = COCOeval(coco, coco.loadRes(entries(said, True)), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    expected = dict(zip(("small", "medium", "large"), 100 * judge.stats[3:6], strict=True))
    assert {k: v["AP"] for k, v in found["sizes"].items()} == pytest.approx(expected, abs=0.02)
    assert sum(v["objects"] for v in found["sizes"].values()) == sum(map(len, true)) - 1
    assert all(v["objects"] > 5 for v in found["sizes"].values())
    precision = judge.eval["precision"][:, :, :, 0, 2]  # thresholds, recalls, classes
    assert [v["AP"] for v in found["classes"].values()] == pytest.approx(
        [100 * precision[:, :, c].mean() for c in range(3)], abs=0.02
    )


def test_boxes_that_are_confused_by_hand():
    # objects: a red one, a green one, one that nobody finds, a red crowd
    overlap = np.array(
        [
            [0.9, 0.0, 0.0, 0.0],  # green, upon the red object: of another class, unless a red one finds it
            [0.7, 0.0, 0.0, 0.0],  # red, upon the red object, and less sure
            [0.0, 0.6, 0.0, 0.0],  # blue, upon the green object
            [0.0, 0.0, 0.4, 0.0],  # red, too far away
            [0.0, 0.0, 0.0, 0.9],  # red, of the crowd
        ]
    )
    category, score = np.array([1, 0, 2, 0, 0]), np.array([0.9, 0.5, 0.8, 0.7, 0.6])
    true, crowd = np.array([0, 1, 2, 0]), np.array([False, False, False, True])
    right, said = confused(overlap, category, score, true, crowd)
    assert sorted(zip(right.tolist(), said.tolist(), strict=True)) == sorted(
        [(0, 0), (1, 2), (-1, 1), (-1, 0), (2, -1)]
    )


def test_the_diagonal_is_what_the_comparison_finds():
    """Confusion matches those of one class first, so that its hits are COCO's at an overlap of one half."""
    task, space = load_task("detection"), Space(NAMES, "boxes")
    for seed in range(30):
        true = boxes(random_boxes(seed, True))
        said = boxes(shaken(random_boxes(seed, True), seed) + random_boxes(seed + 50, False))
        counted = task.comparison(space)
        counted.update([said], [true])
        right, guess = task.confusion(said, true, 3, Policy(score=0))
        hits = [int(((right == c) & (guess == c)).sum()) for c in range(3)]
        assert hits == counted.right.tolist()
        assert [int((right == c).sum()) for c in range(3)] == counted.true.tolist()
        assert [int((guess == c).sum()) for c in range(3)] == counted.said.tolist()


def test_worst_boxes_are_missed_and_false(tmp_path):
    two = [(10, 10, 60, 60, 0, 1, 0), (100, 100, 180, 180, 1, 1, 0)]
    unsure = (*two[0][:5], 0.4, 0)
    other = (*two[1][:4], 2, 0.9, 0)
    false = (200, 10, 260, 60, 0, 0.9, 0)
    said = [two, two[:1], [*two, false], [two[0], other], [unsure, two[1]]]
    sets = {"people": [boxes(two)] * 5, "said": [boxes(s) for s in said]}
    store = labelled(tmp_path / "s", "detection", sets, images=noise(5, (300, 300)), kind="boxes")
    _, found = one(evaluate("said", store), "detection")
    assert [(w["id"], w["what"]) for w in found["worst"]] == [
        ("3", "1 of another class"), ("1", "1 missed"), ("2", "1 false"), ("4", "1 missed"),
    ]  # fmt: skip
    _, all_said = one(evaluate("said", store, score=0.3), "detection")
    assert [w["id"] for w in all_said["worst"]] == ["3", "1", "2"]
    assert all_said["classes"]["green"]["recall"] == pytest.approx(100 * 3 / 5)
    assert found["confusion"]["matrix"][3][0] == 1


# ---- intervals ----


def hits(path, **sets):
    """A store in which label sets are right (1) or wrong (0) about each image, of class 0."""
    about = {k: [None if h is None else one_hot(0 if h else 1) for h in v] for k, v in sets.items()}
    count = len(next(iter(sets.values())))
    return labelled(path, "classification", {"people": [one_hot(0)] * count, **about})


def test_intervals_by_hand(tmp_path):
    """Of a mean the jackknife's standard error is that of the textbook; Student's t with 9 degrees has 2.262."""
    a, b = [1, 1, 1, 1, 0, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 1, 0, 0, 1, 0]
    result = evaluate("a", hits(tmp_path / "s", a=a, b=b), rivals=["b"])
    (question,) = result["questions"]
    scores = [x["scores"]["top-1"] for x in question["answers"]]
    assert [s["value"] for s in scores] == [pytest.approx(70), pytest.approx(40)]
    (difference,) = question["differences"]
    assert (difference["first"], difference["second"], difference["images"]) == ("a", "b", 10)
    for found, each in ((scores[0], a), (scores[1], b), (difference["scores"]["top-1"], np.subtract(a, b))):
        error = 100 * np.std(each, ddof=1) / math.sqrt(10)
        assert found["value"] == pytest.approx(100 * np.mean(each))
        assert found["high"] - found["value"] == pytest.approx(2.262 * error, rel=0.06)
        assert found["value"] - found["low"] == pytest.approx(2.262 * error, rel=0.06)


def test_rivals_are_compared_on_what_all_answered(tmp_path):
    a, b = [1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1], [1, None, 0, 0, 0, 1, 1, None, 0, 1, 1, 1]
    (question,) = evaluate("a", hits(tmp_path / "s", a=a, b=b), rivals=["b"])["questions"]
    first, second = question["answers"]
    assert (first["images"], second["images"], second["without"]) == (12, 10, 2)
    assert first["scores"]["top-1"]["value"] == pytest.approx(100 * 9 / 12)
    (difference,) = question["differences"]
    assert difference["images"] == 10
    assert difference["scores"]["top-1"]["value"] == pytest.approx(100 * (8 - 6) / 10)


def test_equal_answers_do_not_differ(tmp_path):
    a = [1, 0, 1, 1, 0, 1]
    (question,) = evaluate("a", hits(tmp_path / "s", a=a, b=a), rivals=["b"])["questions"]
    assert question["differences"][0]["scores"]["top-1"] == {"value": 0, "low": 0, "high": 0}


def test_a_single_image_has_no_interval(tmp_path):
    (question,) = evaluate("a", hits(tmp_path / "s", a=[1]))["questions"]
    assert question["answers"][0]["scores"]["top-1"] == {"value": 100, "low": None, "high": None}


# ---- who answers ----


def test_label_set_run_and_teacher_agree(tmp_path):
    """The same answers have the same scores, whoever gives them."""
    renders = [render(random_scene(i, (48, 64))) for i in range(6)]
    store = store_of(tmp_path / "s", rows_of([r.image for r in renders]))
    label_truly(store, renders, name="people")
    path, run = str(store.path), str(tmp_path / "run")
    polyteach.train(path, out=run, **options(steps=2))
    polyteach.label(path, teachers={"mine": f"own:{run}"}, progress=False, device="cpu")
    result = evaluate(run, path, rivals=["mine", f"own:{run}"], device="cpu", batch_size=4)
    assert {q["task"] for q in result["questions"]} == set(seen_tasks())
    for question in result["questions"]:
        first, second, third = question["answers"]
        assert values(first) == values(third)
        # the store rounds: probabilities to float16, depth too
        assert values(second) == pytest.approx(values(first), rel=0.02, abs=0.5)
        assert second["confusion"] == first["confusion"]
        assert all(d["images"] == 6 for d in question["differences"])
    kinds = [a["kind"] for a in result["answerers"]]
    assert kinds == ["run", "label set", "teacher"]
    assert result["answerers"][0]["sha256"] == result["answerers"][2]["sha256"]


def coloured(path, count=8, **more):
    """Images of one colour, which people call by their channel; some grey."""
    images = []
    for i in range(count):
        image = torch.full((3, 16, 16), 190 - i, dtype=torch.uint8)
        image[i % 3] = 200
        images.append(image)
    return labelled(path, "classification", {"people": [one_hot(i % 3) for i in range(count)]}, images=images, **more)


def test_teachers_are_asked_about_images(tmp_path):
    store = coloured(tmp_path / "s")
    result = evaluate(f"{teacher_in(tmp_path)}mean", store, batch_size=3)
    _, found = one(result, "classification")
    assert values(found)["top-1"] == 100
    assert not result["warnings"]
    assert not (tmp_path / "s" / "labels" / "classification" / "mean").exists()


def test_a_broken_image_is_counted_and_told(tmp_path):
    store = Store.open(coloured(tmp_path / "s"))
    rows = store.images(0)
    rows[1] = type(rows[1])(rows[1].id, 16, 16, rows[1].data[:40])
    store.write_images(0, rows)
    result = evaluate(f"{teacher_in(tmp_path)}mean", str(store.path))
    _, found = one(result, "classification")
    assert found["images"] == 7
    ((reason, n, first),) = [tuple(f.values()) for f in found["failed"]]
    assert reason.startswith("image: ")
    assert not reason.startswith("image: image:")
    assert (n, first) == (1, "1")


def test_an_image_that_a_teacher_fails_for_is_counted(tmp_path):
    images = [torch.full((3, 16, 16), 20 if i == 2 else 200, dtype=torch.uint8) for i in range(4)]
    store = labelled(tmp_path / "s", "classification", {"people": [one_hot(0)] * 4}, images=images)
    _, found = one(evaluate(f"{teacher_in(tmp_path)}crash", store), "classification")
    assert found["images"] == 3
    assert found["failed"] == [{"reason": "teacher: RuntimeError: no dark images", "images": 1, "first": "2"}]


def test_a_teacher_that_never_answers_is_an_error(tmp_path):
    images = noise(3, high=20)
    store = labelled(tmp_path / "s", "classification", {"people": [one_hot(0)] * 3}, images=images)
    with pytest.raises(ValueError, match=r"crash has no answer .* against classification/people: 3 failed with .*dark"):
        evaluate(f"{teacher_in(tmp_path)}crash", store)


def test_a_teacher_that_does_not_work_is_not_asked_about_every_image(tmp_path):
    """After some failures in a row it is asked about a plain image, as `label` does."""
    never = """
class Never(Mean):
    def __call__(self, images):
        Never.calls += 1
        raise RuntimeError("out of order")
def never(device, precision): return Never()
"""
    store = labelled(tmp_path / "s", "classification", {"people": [one_hot(0)] * 40}, images=noise(40))
    with pytest.raises(
        ValueError, match=r"never on cpu failed for .*8 in a row.*out of order\. Mend the cause, then give"
    ):
        evaluate(f"{teacher_in(tmp_path, never)}never", store, device="cpu", batch_size=4)


def test_calibrated_answers_are_evaluated_as_they_are_learned(tmp_path):
    said = [ClassificationTarget(probability=torch.tensor([0.9, 0.1, 0]))] * 4
    store = labelled(tmp_path / "s", "classification", {"people": [one_hot(i % 2) for i in range(4)], "sure": said})
    _, before = one(evaluate("sure", store), "classification")
    fitted = {"temperature": 20.0, "shift": 0.0, "people": [], "images": 9, "answers": 9,
              "nll": {"before": 1.0, "after": 0.5}, "ece": {"before": 0.2, "after": 0.1}}  # fmt: skip
    (tmp_path / "s" / "labels" / "classification" / "sure" / "calibration.json").write_text(json.dumps(fitted))
    result = evaluate("sure", store)
    _, after = one(result, "classification")
    assert before["reliability"]["ece"] == pytest.approx(0.4, abs=1e-3)
    odds = (0.9 ** (1 / 20), 0.1 ** (1 / 20))
    assert after["reliability"]["ece"] == pytest.approx(abs(odds[0] / sum(odds) - 0.5), abs=1e-3)
    assert result["answerers"][0]["label_sets"][0]["calibrated"]


# ---- what is compared with what ----


def test_classes_in_another_order_are_the_same(tmp_path):
    other = [one_hot(2 - i % 3) for i in range(6)]
    spaces = {"turned": Space(NAMES[::-1])}
    sets = {"people": [one_hot(i % 3) for i in range(6)], "turned": other}
    _, found = one(
        evaluate("turned", labelled(tmp_path / "s", "classification", sets, spaces=spaces)), "classification"
    )
    assert values(found)["top-1"] == 100


def test_classes_of_one_side_alone_are_told_and_left_out(tmp_path, capsys):
    """Pixels: people know red, green, blue; the teacher green, sky, red."""
    true = torch.tensor([[0, 1], [2, IGNORE]])
    said = torch.tensor([[2, 1], [0, 0]])  # red, sky; green, green
    make = [SegmentationTarget(category=c, probability=torch.ones(2, 2)) for c in (true, said)]
    store = labelled(
        tmp_path / "s", "segmentation", {"people": [make[0]] * 2, "other": [make[1]] * 2}, images=noise(2, (2, 2)),
        spaces={"other": Space(("green", "sky", "red"))},
    )  # fmt: skip
    question, found = one(evaluate("other", store), "segmentation")
    assert question["classes"] == ["red", "green"]
    # of red and green there are two pixels an image: red is red, green is sky, which is none of them
    assert found["confusion"]["matrix"] == [[2, 0, 0], [0, 0, 2], [0, 0, 0]]
    assert values(found) == pytest.approx({"mIoU": 50, "pixel accuracy": 50})
    told = capsys.readouterr().err
    assert "2 classes in common; only what is right has 1 more (blue), only the answers have 1 more (sky)" in told


def test_boxes_of_classes_that_only_one_side_has_do_not_count(tmp_path):
    row = (10, 10, 60, 60)
    far = (100, 100, 180, 180)
    true = boxes([(*row, 0, 1, 0), (*far, 2, 1, 0)])  # red, blue
    said = boxes([(*row, 1, 0.9, 0), (*far, 0, 0.95, 0)])  # red, sky
    store = labelled(
        tmp_path / "s", "detection", {"people": [true] * 3, "other": [said] * 3}, images=noise(3, (200, 200)),
        kind="boxes", spaces={"other": Space(("sky", "red"), "boxes")},
    )  # fmt: skip
    _, found = one(evaluate("other", store), "detection")
    assert values(found)["AP"] == 100
    assert found["confusion"]["matrix"] == [[3, 0], [0, 0]]


def test_images_of_classes_that_the_answers_do_not_know_are_left_out(tmp_path):
    spaces = {"other": Space(("green", "sky", "red"))}
    # people: red, green, blue, red; the teacher: sky most, then red; green; red; green
    said = [[0.1, 0.6, 0.3], [1, 0, 0], [0, 0, 1], [0.8, 0, 0.2]]
    sets = {
        "people": [one_hot(i) for i in (0, 1, 2, 0)],
        "other": [ClassificationTarget(probability=torch.tensor(p, dtype=torch.float32)) for p in said],
    }
    store = labelled(tmp_path / "s", "classification", sets, spaces=spaces)
    question, found = one(evaluate("other", store), "classification")
    assert (question["skipped"], found["images"]) == (1, 3)
    assert values(found)["top-1"] == pytest.approx(200 / 3)


def test_an_answer_without_any_of_the_classes_is_wrong(tmp_path):
    spaces = {"other": Space(("sky", "red", "green"))}
    sets = {"people": [one_hot(0)] * 2, "other": [one_hot(0), one_hot(1)]}
    _, found = one(evaluate("other", labelled(tmp_path / "s", "classification", sets, spaces=spaces)), "classification")
    assert values(found) == {"top-1": 50, "top-5": 50}
    assert found["confusion"]["matrix"][0] == [1, 0, 1]


def test_numbers_that_both_list_alike_are_taken_to_mean_the_same(tmp_path, capsys):
    spaces = dict.fromkeys(("people", "run"), Space(("0", "1", "2")))
    sets = {"people": [one_hot(i % 3) for i in range(3)], "run": [one_hot(i % 3) for i in range(3)]}
    _, found = one(evaluate("run", labelled(tmp_path / "s", "classification", sets, spaces=spaces)), "classification")
    assert values(found)["top-1"] == 100
    assert "both list the same, and are taken to mean the same" in capsys.readouterr().err


def test_metres_can_be_held_against_relative_depth_one_way_only(tmp_path):
    value = torch.linspace(1, 4, 24)[None].expand(24, 24)
    valid = torch.ones(24, 24, dtype=torch.bool)
    metric = [DepthTarget(value=value * (i + 1), valid=valid) for i in range(3)]
    inverse = [DepthTarget(value=2 / value + 0.5, valid=valid)] * 3
    spaces = {"people": Space((), "metric"), "relative": Space((), "relative inverse")}
    store = labelled(tmp_path / "s", "depth", {"people": metric, "relative": inverse}, spaces=spaces)
    _, found = one(evaluate("relative", store), "depth")
    assert values(found)["delta<1.25"] == pytest.approx(100)
    with pytest.raises(ValueError, match="'metric' cannot be held against 'relative inverse'"):
        evaluate("people", store, truth="relative")


def test_another_label_set_can_be_what_is_right(tmp_path):
    """Of a teacher's boxes those that a training would learn are right."""
    rows = [(10, 10, 60, 60, 0, 0.9, 0), (100, 100, 180, 180, 1, 0.3, 0)]
    sets = {"teacher": [boxes(rows)] * 2, "mine": [boxes(rows[:1])] * 2}
    store = labelled(tmp_path / "s", "detection", sets, images=noise(2, (200, 200)), kind="boxes")
    with pytest.raises(ValueError, match="has no labels by people; it has detection/mine, detection/teacher"):
        evaluate("mine", store)
    _, found = one(evaluate("mine", store, truth="detection/teacher"), "detection")
    assert values(found)["AP"] == 100
    _, strict = one(evaluate("mine", store, truth="teacher", score=0.2), "detection")
    assert values(strict)["AP"] == pytest.approx(50)  # of two classes one is not found


# ---- which images ----


def test_splits_and_samples(tmp_path, capsys):
    true = [one_hot(0) if i % 2 else None for i in range(20)]
    store = labelled(
        tmp_path / "s", "classification", {"people": true, "a": [one_hot(i % 3) for i in range(20)]},
        split=lambda i: "val" if i < 8 else "train",
    )  # fmt: skip
    result = evaluate("a", store)
    assert result["images"] == 10
    result = evaluate("a", store, split="val")
    _, found = one(result, "classification")
    assert values(found)["top-1"] == pytest.approx(100 * sum(i % 3 == 0 for i in (1, 3, 5, 7)) / 4)
    capsys.readouterr()
    samples = [evaluate("a", store, limit=4, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert "4 of the 10 images, drawn at random (seed 0)" in capsys.readouterr().err
    assert samples[0]["questions"] == samples[1]["questions"]
    assert len({json.dumps(s["questions"]) for s in samples}) > 1
    assert all(s["questions"][0]["answers"][0]["images"] == 4 for s in samples)
    with pytest.raises(ValueError, match="no image has split 'test'"):
        evaluate("a", store, split="test")


def test_no_image_that_is_labelled(tmp_path):
    store = labelled(tmp_path / "s", "classification", {"people": [None] * 2, "a": [one_hot(0)] * 2})
    with pytest.raises(ValueError, match="classification/people labels no image of"):
        evaluate("a", store)
    with pytest.raises(ValueError, match="it has no label of the 2 images"):
        evaluate("people", store, truth="a")


# ---- what looks broken ----


def warnings_of(path, said, true=None, **more):
    count = len(said)
    task = "classification" if isinstance(said[0], ClassificationTarget) else more.pop("task")
    store = labelled(path, task, {"people": true or [one_hot(i % 3) for i in range(count)], "a": said}, **more)
    return " | ".join(evaluate("a", store)["warnings"])


def soft(index, sure):
    p = torch.full((3,), (1 - sure) / 2)
    p[index] = sure
    return ClassificationTarget(probability=p)


def test_good_answers_are_not_warned_of(tmp_path):
    assert not warnings_of(tmp_path / "s", [soft(i % 3, 0.7 + i / 100) for i in range(9)])


def test_one_class_everywhere(tmp_path):
    found = warnings_of(tmp_path / "s", [soft(1, 0.7 + i / 100) for i in range(9)])
    assert "a against classification/people: images that show 'green' alone: all 9 images" in found


def test_one_answer_everywhere_and_one_score(tmp_path):
    found = warnings_of(tmp_path / "s", [soft(1, 0.7)] * 9)
    assert "images with the same answer" in found
    assert "all scores are 0.7" in found


def test_worse_than_a_constant_answer(tmp_path):
    true = [one_hot(0)] * 6 + [one_hot(1)] * 3
    said = [soft(1 + i % 2, 0.6 + i / 50) for i in range(9)]  # right of the 7th and the 9th
    found = warnings_of(tmp_path / "s", said, true)
    assert "top-1 22.2 is worse than a constant answer's, 66.7" in found


def test_hardly_an_answer(tmp_path):
    a = [1, *[None] * 19]
    (warning,) = evaluate("a", hits(tmp_path / "s", a=a))["warnings"]
    assert "no answer to 19 of 20 images" in warning


def depth_of(values):
    return DepthTarget(value=values, valid=torch.ones(24, 24, dtype=torch.bool))


def test_constant_maps(tmp_path):
    """Each image has a value of its own, so that the answers differ, and none varies within its image."""
    ramp = torch.linspace(1, 4, 24)[None].expand(24, 24)
    true = [depth_of(ramp + i / 10) for i in range(9)]
    flat = [depth_of(torch.full((24, 24), 2.0 + i)) for i in range(9)]
    more = {"task": "depth", "kind": "metric", "names": ()}
    assert "maps that hold one value each" in warnings_of(tmp_path / "s", flat, true, **more)
    assert not warnings_of(tmp_path / "t", true, true, **more)
    # a wall that is as flat as it is said to be
    assert "one value" not in warnings_of(tmp_path / "u", flat, flat, **more)


def test_constant_answers(tmp_path):
    """By hand: the most frequent class, the mean depth, the mean direction."""
    task = load_task("segmentation")
    maps = [torch.tensor([[0, 2], [2, IGNORE]]), torch.tensor([[1, 2], [0, 0]])]
    targets = [SegmentationTarget(category=c, probability=torch.ones(2, 2)) for c in maps]
    assert task.constant(targets, Space(NAMES)).category.tolist() == [[0]]
    depth = [depth_of(torch.full((24, 24), v)) for v in (1.0, 4.0)]
    assert load_task("depth").constant(depth, Space((), "metric")).value.tolist() == [[2.5]]
    assert load_task("depth").constant([], Space((), "metric")) is None
    normals = load_task("normals")
    facing = normals.target(
        normal=torch.tensor([0.0, 0, -1])[:, None, None].expand(3, 2, 2), valid=torch.ones(2, 2).bool()
    )
    up = normals.target(normal=torch.tensor([0.0, -1, 0])[:, None, None].expand(3, 2, 2), valid=torch.ones(2, 2).bool())
    mean = normals.constant([facing, up], Space(())).normal.flatten()
    assert mean.tolist() == pytest.approx([0, -math.sqrt(0.5), -math.sqrt(0.5)])
    likely = load_task("classification").constant([one_hot(0), one_hot(2), one_hot(2)], Space(NAMES))
    assert likely.probability.tolist() == pytest.approx([1 / 3, 0, 2 / 3])
    assert load_task("detection").constant([boxes([])], Space(NAMES, "boxes")) is None


# ---- what is written and printed ----


def test_what_is_written(tmp_path):
    true = [one_hot(i % 3) for i in range(4)]
    store = labelled(tmp_path / "s", "classification", {"people": true, "a": [soft(0, 0.5 + i / 10) for i in range(4)]})
    out = tmp_path / "out"
    result = evaluate("a", store, out=str(out), worst=1)
    assert json.loads((out / "evaluate.json").read_text()) == result
    (worst,) = result["questions"][0]["answers"][0]["worst"]
    assert worst["id"] == "2"
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == [
        "evaluate.json", "evaluate.md", worst["picture"],
    ]  # fmt: skip
    text = (out / "evaluate.md").read_text()
    assert "| top-1 | 50.00 |" in text
    assert "## a against classification/people" in text
    assert result["command"] == f"polyteach evaluate a {store} --worst 1 --out {out}"
    (about,) = result["truth"]
    assert about["set"] == "classification/people"
    assert set(about["sha256"]) == {"set.json", "part-00000.parquet"}
    with pytest.raises(ValueError, match="exists; evaluate does not overwrite"):
        evaluate("a", store, out=str(out))


def test_pictures_have_image_truth_and_answer_side_by_side(tmp_path):
    from PIL import Image

    red = SegmentationTarget(category=torch.zeros(24, 24, dtype=torch.long), probability=torch.ones(24, 24))
    blue = SegmentationTarget(category=torch.full((24, 24), 2), probability=torch.ones(24, 24))
    images = noise(2, (24, 24))
    store = labelled(tmp_path / "s", "segmentation", {"people": [red] * 2, "a": [red, blue]}, images=images)
    result = evaluate("a", store, out=str(tmp_path / "out"))
    (worst,) = result["questions"][0]["answers"][0]["worst"]
    seen = np.array(Image.open(tmp_path / "out" / worst["picture"]))
    assert seen.shape == (24, 3 * 24 + 2 * 8, 3)
    image, true, said = (seen[:, i * 32 : i * 32 + 24] for i in range(3))
    assert (image == images[1].permute(1, 2, 0).numpy()).all()
    task = load_task("segmentation")
    for shown, target in ((true, red), (said, blue)):
        assert (shown == task.draw(images[1], target, Space(NAMES)).permute(1, 2, 0).numpy()).all()


def test_json_is_alone_on_stdout(tmp_path, capsys):
    store = hits(tmp_path / "s", a=[1, 0, 1], b=[1, 1, 1])
    assert main(["evaluate", "a", store, "--rivals", "b", "--json", "--limit", "2"]) == 0
    out, err = capsys.readouterr()
    assert [a["what"] for a in json.loads(out)["questions"][0]["answers"]] == ["a", "b"]
    assert "2 of the 3 images" in err


def test_what_a_terminal_shows(tmp_path, capsys):
    evaluate("a", hits(tmp_path / "s", a=[1, 0, 1, 1], b=[1, 1, 1, 1]), rivals=["b"])
    out = capsys.readouterr().out
    assert "a against classification/people" in out
    assert re.search(r"top-1 +75\.00  .* to .* 100\.00\n", out)  # and what a constant answer has
    assert "a less b, against classification/people" in out
    assert "may be chance" in out
    assert max(map(len, out.splitlines())) <= 80


def test_names_of_strangers_do_not_steer_the_terminal(tmp_path, capsys):
    names = ("red\x1b[31m", "a|b", "c")
    sets = {"people": [one_hot(i % 3) for i in range(4)], "a": [one_hot(0)] * 4}
    store = labelled(tmp_path / "s", "classification", sets, names=names)
    evaluate("a", store, out=str(tmp_path / "out"))
    out = capsys.readouterr()
    assert "\x1b" not in out.out + out.err
    text = (tmp_path / "out" / "evaluate.md").read_text()
    assert "\x1b" not in text
    assert "a\\|b" in text


def test_ctrl_c_says_what_is_lost(tmp_path, monkeypatch):
    from polyteach.evaluation import run

    def stop(*_):
        raise KeyboardInterrupt

    store = coloured(tmp_path / "s")
    monkeypatch.setattr(run, "_ask", stop)
    with pytest.raises(KeyboardInterrupt) as stopped:
        evaluate(f"{teacher_in(tmp_path)}mean", store, out=str(tmp_path / "out"))
    assert "nothing is kept; the same command begins anew. To keep answers: polyteach label" in stopped.value.args[1]
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    monkeypatch.setattr(run, "markdown", stop)
    with pytest.raises(KeyboardInterrupt) as stopped:
        evaluate(f"{teacher_in(tmp_path)}mean", store, out=str(tmp_path / "out"))
    assert "out is not whole: delete it first" in stopped.value.args[1]


# ---- bad input ----


def test_what_is_nothing(tmp_path, scenes):
    (tmp_path / "empty").mkdir()
    (tmp_path / "sam").mkdir()
    for what, said in (
        (
            "coppy",
            r"'coppy' is neither a run's folder, nor a teacher .*, nor a label set of .*, which has .*depth/copy",
        ),
        ("depth/cpy", "Did you mean depth/copy"),
        ("nobody:x", "unknown family 'nobody'"),
        (str(tmp_path / "empty"), "empty"),
        (f"sam:{tmp_path / 'sam'}+boxes=copy", "is asked with the answers of detection/copy: label the store first"),
    ):
        with pytest.raises(ValueError, match=said):
            evaluate(what, scenes)
    with pytest.raises(ValueError, match="copy is given twice"):
        evaluate("copy", scenes, rivals=["copy"])
    with pytest.raises(ValueError, match="unknown label set 'nobody'"):
        evaluate("copy", scenes, truth="nobody")
    with pytest.raises(ValueError, match="is not a store"):
        evaluate("copy", str(tmp_path / "empty"))


@pytest.mark.parametrize("bad", [{"limit": 0}, {"score": 1.5}, {"worst": -1}, {"batch_size": 0}, {"precision": "fp8"}])
def test_numbers_out_of_range(scenes, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        evaluate("copy", scenes, **bad)


def test_nothing_in_common_lists_both(tmp_path):
    spaces = {"a": Space(("dog", "cat", "cow"))}
    sets = {"people": [one_hot(0)], "a": [one_hot(0)]}
    store = labelled(tmp_path / "s", "classification", sets, spaces=spaces)
    with pytest.raises(
        ValueError, match=r"nothing to compare: a answers .*dog, cat, cow.*; what is right is .*red, green"
    ):
        evaluate("a", store)


def test_another_task_lists_both(tmp_path, scenes):
    with pytest.raises(
        ValueError, match=r"nothing to compare: depth/copy answers depth/copy .*; what is right is detect"
    ):
        evaluate("depth/copy", scenes, truth="detection/people")


def test_a_broken_part_is_refused(tmp_path):
    store = hits(tmp_path / "s", a=[1, 0, 1])
    part = tmp_path / "s" / "labels" / "classification" / "people" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"people/part-00000\.parquet"):
        evaluate("a", store)


def test_a_name_that_is_a_folder_too(tmp_path, monkeypatch, capsys):
    store = hits(tmp_path / "s", a=[1, 0])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    evaluate("a", store)
    assert "a is taken for the label set of" in capsys.readouterr().err


def test_rivals_with_other_classes_are_not_compared(tmp_path):
    """Over two classes and over three the same answers have other scores."""
    sets = {"people": [one_hot(i % 3) for i in range(6)]} | {n: [one_hot(i % 3) for i in range(6)] for n in ("a", "b")}
    spaces = {"b": Space(("red", "green", "sky"))}
    store = labelled(tmp_path / "s", "classification", sets, spaces=spaces)
    result = evaluate("a", store, rivals=["b"])
    assert [q["classes"] for q in result["questions"]] == [["red", "green", "blue"], ["red", "green"]]
    assert [q["skipped"] for q in result["questions"]] == [0, 2]
    assert not any(q["differences"] for q in result["questions"])


def test_many_classes_tell_the_most_confused_alone(tmp_path):
    names = tuple(f"kind of {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(50))
    true = [one_hot(i % 50, 50) for i in range(60)]
    said = [one_hot(7 if i < 5 else i % 50, 50) for i in range(60)]
    store = labelled(tmp_path / "s", "classification", {"people": true, "a": said}, names=names)
    _, found = one(evaluate("a", store), "classification")
    assert found["confusion"]["matrix"] is None
    assert len(found["confusion"]["pairs"]) == 5
    assert {(p[1], p[2], p[3]) for p in found["confusion"]["pairs"]} == {(names[7], 1, 0.5)}


def test_outlines_and_boxes_are_compared_as_boxes(tmp_path):
    """An answer without outlines would miss them all, though nobody asked for them."""
    renders = [render(random_scene(i, (48, 64))) for i in range(3)]
    store = store_of(tmp_path / "s", rows_of([r.image for r in renders]))
    task = load_task("detection")
    for name, kind in (("people", 1), ("boxes", 0), ("masks", 1)):
        label_truly(store, renders, ["detection"], name, kind=lambda _, kind=kind: task.kinds[kind])
    for what, rivals in (("masks", ["boxes"]), ("boxes", ["masks"])):
        (question,) = evaluate(what, str(store.path), rivals=rivals)["questions"]
        assert question["kind"] == "boxes"
        assert all(values(a) == pytest.approx(dict.fromkeys(values(a), 100)) for a in question["answers"])
        assert "mask AP" not in question["differences"][0]["scores"]
    (question,) = evaluate("masks", str(store.path))["questions"]
    assert question["answers"][0]["scores"]["mask AP"]["value"] == pytest.approx(100)
    assert question["answers"][0]["classes"]["red"]["mask AP"] == pytest.approx(100)


def test_nobody_has_an_object(tmp_path):
    sets = {"people": [boxes([])] * 2, "a": [boxes([(1, 1, 9, 9, 0, 0.9, 0)])] * 2}
    store = labelled(tmp_path / "s", "detection", sets, kind="boxes")
    _, found = one(evaluate("a", store, out=str(tmp_path / "out")), "detection")
    assert set(values(found).values()) == {None}
    assert json.loads((tmp_path / "out" / "evaluate.json").read_text(), parse_constant=pytest.fail)
    assert [w["what"] for w in found["worst"]] == ["1 false", "1 false"]


def test_a_label_set_against_itself_is_told(tmp_path, capsys):
    evaluate("people", hits(tmp_path / "s", a=[1]))
    assert "it is held against itself, which says nothing" in capsys.readouterr().err


def test_many_classes_of_pixels_are_counted_as_few_are(tmp_path, monkeypatch):
    from polyteach.evaluation import account

    draw = torch.Generator().manual_seed(1)
    maps = torch.randint(0, 3, (2, 4, 24, 24), generator=draw)
    make = [[SegmentationTarget(category=c, probability=torch.ones(24, 24)) for c in side] for side in maps]
    store = labelled(tmp_path / "s", "segmentation", {"people": make[0], "a": make[1]})
    few = one(evaluate("a", store), "segmentation")[1]["confusion"]
    monkeypatch.setattr(account, "FEW_CLASSES", 0)
    assert one(evaluate("a", store), "segmentation")[1]["confusion"] == few
    by_hand = [[int(((maps[0] == t) & (maps[1] == s)).sum()) for s in range(3)] for t in range(3)]
    assert [row[:3] for row in few["matrix"][:3]] == by_hand


def test_a_store_behind_a_url(tmp_path):
    store = hits(tmp_path / "s", a=[1, 0, 1])
    here, there = evaluate("a", store), evaluate("a", f"file://{store}")
    assert there["questions"] == here["questions"]
    assert there["truth"] == here["truth"]
