"""Least scores by class, said or from the share to be kept: what is learned is what a count by hand says."""

import json

import pytest
import torch

import polyteach
from polyteach.__main__ import main
from polyteach.ground.options import Policy
from polyteach.loading.plan import plan
from polyteach.loading.reader import Reader
from polyteach.loading.thresholds import thresholds, with_thresholds
from polyteach.store import Store
from polyteach.tasks import load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import PEOPLE, Space
from polyteach.tasks.detection import BOXES
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget
from polyteach.tasks.target import ByClass
from tests.test_care import boxes, classes, pixels
from tests.worlds import noise, options, store_of

NAMES = ("person", "dog", "cat")


def store_with(path, task, answers, names=NAMES, kind="", people=None, name="t", size=(24, 24)):
    store = store_of(path, noise(len(answers), size))
    for who, said in ((name, answers), (PEOPLE, people)):
        if said is None:
            continue
        labels = store.create_set(
            task, who, Space(names, kind), {"teacher": PEOPLE if who == PEOPLE else {"spec": "x:t"}}
        )
        for part in store.parts():
            labels.write(part, store.ids(part), said[4 * part : 4 * part + 4])
    return store


def learned(store, **policy):
    """The thresholds, and the pseudo labels of all images."""
    chosen, asked = plan([Store.open(store.path)]), Policy(**policy)
    found = thresholds(chosen, asked)
    reader = Reader(chosen, with_thresholds(chosen, asked, found))
    [name] = chosen.objectives
    return found.get(name), [reader.target(i, name) for i in range(len(chosen))]


BOXES_SAID = [
    boxes((0, 0, 9, 9, 0, 0.9), (9, 9, 20, 20, 0, 0.55), (0, 9, 8, 20, 1, 0.35)),
    boxes((0, 0, 9, 9, 1, 0.25), (9, 9, 20, 20, 2, 0.6), (0, 9, 8, 20, 2, 0.4)),
]


def test_boxes_by_class_as_said(tmp_path):
    store = store_with(tmp_path / "s", "detection", BOXES_SAID, kind=BOXES)
    found, targets = learned(store, class_scores={"person": 0.6, "dog": 0.3})
    assert found == {"person": 0.6, "dog": 0.3, "cat": 0.5}  # a cat's is that of all others
    kept = [[(NAMES[c], float(y)) for c, y in zip(t.category.tolist(), t.box[:, 1], strict=True)] for t in targets]
    assert kept == [[("person", 0), ("dog", 9)], [("cat", 9)]]
    assert all(bool((t.score == 1).all()) for t in targets)


def test_the_best_share_of_boxes_of_each_class(tmp_path):
    """Ten persons of 0.05 ... 0.95, four dogs of one score, no cat: the best 20 % are two persons, and all dogs."""
    said = [boxes((0, 0, 9, 9, 0, 0.05 + i / 10), (9, 9, 20, 20, 1, 0.3)) for i in range(4)]
    said += [boxes((0, 0, 9, 9, 0, 0.05 + i / 10)) for i in range(4, 10)]
    store = store_with(tmp_path / "s", "detection", said, kind=BOXES)
    found, targets = learned(store, best_share=0.2)
    assert found == pytest.approx({"person": 0.85, "dog": 0.3, "cat": 0.5})
    assert [int((t.category == 0).sum()) for t in targets] == [0] * 8 + [1, 1]
    assert sum(int((t.category == 1).sum()) for t in targets) == 4
    assert learned(store, best_share=1.0)[0] == pytest.approx({"person": 0.05, "dog": 0.3, "cat": 0.5})
    assert learned(store, best_share=0.21)[0]["person"] == pytest.approx(0.75)  # at least that share


def test_what_people_labelled_is_no_pseudo_label_and_takes_no_share(tmp_path):
    said = [boxes((0, 0, 9, 9, 0, s)) for s in (0.9, 0.8, 0.7, 0.6)]
    people = [boxes((1, 1, 9, 9, 0, 1)), None, None, None]
    store = store_with(tmp_path / "s", "detection", said, kind=BOXES, people=people)
    found, targets = learned(store, best_share=0.34)
    assert found["person"] == pytest.approx(0.7)  # two of three
    assert [len(t.box) for t in targets] == [1, 1, 1, 0]
    assert float(targets[0].box[0, 0]) == 1


def test_pixels_by_class(tmp_path):
    said = [pixels([[0, 0], [1, IGNORE]], [[0.8, 0.4], [0.2, 0.0]]), pixels([[1, 1], [2, 0]], [[0.6, 0.4], [0.1, 0.2]])]
    store = store_with(tmp_path / "s", "segmentation", said, size=(2, 2))
    found, targets = learned(store, class_scores={"dog": 0.3, "cat": 0.05})
    assert found == {"person": 0.5, "dog": 0.3, "cat": 0.05}
    assert targets[0].category.tolist() == [[0, IGNORE], [IGNORE, IGNORE]]
    assert targets[1].category.tolist() == [[1, 1], [2, IGNORE]]
    found, targets = learned(store, best_share=0.5)
    # persons 0.8 0.4 0.2: two of three are at least half. dogs 0.6 0.4 0.2: two. cats: the one
    assert found == pytest.approx({"person": 102 / 255, "dog": 102 / 255, "cat": 26 / 255})
    assert [t.category.tolist() for t in targets] == [[[0, 0], [IGNORE, IGNORE]], [[1, 1], [2, IGNORE]]]


def test_images_below_their_class_are_not_learned(tmp_path):
    task = load_task("classification")
    said = [classes(0.5, 0.25, 0.25), classes(0.75, 0.25, 0.0), classes(0.25, 0.5, 0.25), classes(0.125, 0.75, 0.125)]
    store = store_with(tmp_path / "s", "classification", said)
    found, targets = learned(store, class_scores={"person": 0.6})
    assert found == {"person": 0.6, "dog": 0.0, "cat": 0.0}  # --score is not for images
    assert [None if t.confidence is None else float(t.confidence) for t in targets] == [0, None, None, None]
    torch.manual_seed(0)
    logits = torch.randn(4, 3)
    torch.testing.assert_close(task.loss(logits, targets), task.loss(logits[1:], targets[1:]))
    assert [task.nothing(t, Space(NAMES)) for t in targets] == ["a likeliest class below its least score", "", "", ""]
    found, targets = learned(store, best_share=0.5)
    assert found == {"person": 0.75, "dog": 0.75, "cat": 0.5}
    assert [None if t.confidence is None else float(t.confidence) for t in targets] == [0, None, 0, None]
    _, targets = learned(store, best_share=0.5, confidence=True)
    assert [float(t.confidence) for t in targets] == [0, 0.75, 0, 0.75]


def test_names_are_the_heads_and_their_indices_too(tmp_path):
    """People's set, in another order, names the head."""
    said = [boxes((0, 0, 9, 9, 0, 0.4), (9, 9, 20, 20, 1, 0.4))] * 2
    store = store_of(tmp_path / "s", noise(2))
    people = store.create_set("detection", PEOPLE, Space(("dog", "cat", "person"), BOXES), {"teacher": PEOPLE})
    people.write(0, store.ids(0), [boxes(), None])
    labels = store.create_set("detection", "t", Space(NAMES, BOXES), {"teacher": {"spec": "x:t"}})
    labels.write(0, store.ids(0), said)
    found, targets = learned(store, class_scores={"dog": 0.3})
    assert found == {"dog": 0.3, "cat": 0.5, "person": 0.5}
    assert (targets[1].category.tolist(), targets[1].box[:, 0].tolist()) == ([0], [9])


def test_what_is_refused(tmp_path):
    store = store_with(tmp_path / "s", "detection", BOXES_SAID, kind=BOXES)
    with pytest.raises(
        ValueError,
        match=r"unknown class in class_scores 'Person'; the heads have person, dog, cat.*Did you mean person",
    ):
        learned(store, class_scores={"Person": 0.5})
    with pytest.raises(ValueError, match="best_share and class_scores"):
        Policy(best_share=0.2, class_scores={"dog": 0.1})
    with pytest.raises(ValueError, match=r"best_share finds the least scores itself, and score is 0\.3"):
        Policy(best_share=0.2, score=0.3)
    for bad in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="best_share must be above 0 and at most 1"):
            Policy(best_share=bad)
    with pytest.raises(ValueError, match=r"class_scores: dog: 1.2 must be a number from 0 to 1"):
        Policy(class_scores={"dog": 1.2})
    people = store_with(tmp_path / "p", "detection", BOXES_SAID, kind=BOXES, name=PEOPLE)
    with pytest.raises(ValueError, match=r"best_share chooses among teachers' labels .*detection_people"):
        learned(people, best_share=0.2)


def test_a_run_records_them_and_goes_on_with_them(tmp_path, capsys):
    said = [ClassificationTarget(p) for p in torch.rand(12, 3).softmax(1)]
    store = store_with(tmp_path / "s", "classification", said)
    given = options(steps=2, save_every=1, best_share=0.5)
    polyteach.train([str(store.path)], out=str(tmp_path / "run"), **given)
    told = capsys.readouterr().err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    found, _ = learned(store, best_share=0.5)
    assert config["thresholds"] == {"classification_t": found}
    assert config["options"]["best_share"] == 0.5
    lowest = min(found, key=found.get)
    assert f"    least scores: {lowest} {found[lowest]:.3g}, " in told
    (tmp_path / "run" / "train.json").unlink()
    with pytest.raises(ValueError, match=r"started otherwise: best_share was 0.5, is 0.4"):
        polyteach.train([str(store.path)], out=str(tmp_path / "run"), **given | {"best_share": 0.4})
    polyteach.train([str(store.path)], out=str(tmp_path / "run"), **given)
    chosen = plan([store])
    kept = {"classification_t": {"person": 0.1, "dog": 0.2, "cat": 0.3}}
    assert thresholds(chosen, Policy(best_share=0.5), kept) == kept  # with those that it began with
    assert thresholds(chosen, Policy(best_share=0.5), {"x": {}}) == {"classification_t": found}


def test_they_are_given_on_the_command_line_and_in_a_file(tmp_path, capsys):
    store = store_with(tmp_path / "s", "detection", BOXES_SAID, kind=BOXES)
    small = ["--backbone", "test_resnet", "--channels", "8", "--size", "64", "--steps", "1", "--batch-size", "2"]
    small += ["--workers", "0", "--device", "cpu", "--no-progress"]
    words = ["train", str(store.path), "--out", str(tmp_path / "a"), *small, "--class-scores", "person=0.6", "dog=0.3"]
    assert main(words) == 0
    file = tmp_path / "options.yaml"
    file.write_text("class_scores: {person: 0.6, dog: 0.3}\n")
    assert main(["train", str(store.path), "--out", str(tmp_path / "b"), *small, "--config", str(file)]) == 0
    a, b = (json.loads((tmp_path / x / "config.json").read_text()) for x in "ab")
    assert a["thresholds"] == b["thresholds"] == {"detection_t": {"person": 0.6, "dog": 0.3, "cat": 0.5}}
    assert "least scores: dog 0.3, cat 0.5, person 0.6" in capsys.readouterr().err


def test_index_of_ignored_pixels_is_no_class():
    task = load_task("segmentation")
    target = SegmentationTarget(torch.tensor([[0, IGNORE]]), torch.tensor([[0.4, 0.0]]))
    assert task.pseudo(target, ByClass(least=(0.3,))).category.tolist() == [[0, IGNORE]]
    assert task.pseudo(target, ByClass(least=(0.41,))).category.tolist() == [[IGNORE, IGNORE]]
