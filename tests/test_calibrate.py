"""Calibration: fitted by maximum likelihood on one half of people's images, told on the other, applied when learned."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

import polyteach
from polyteach.curation.calibrate import second_half
from polyteach.curation.check import faults
from polyteach.curation.info import described
from polyteach.curation.temperature import fitted, reliability, surer
from polyteach.ground.scene import random_scene, render
from polyteach.loading.plan import plan
from polyteach.loading.reader import Reader
from polyteach.store import Store
from polyteach.tasks import load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Calibration, Evidence, Policy, Space, two_way
from polyteach.tasks.detection import BOXES, DetectionTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget
from polyteach.verbs.store.calibrate import calibrate
from polyteach.verbs.store.info import info
from polyteach.verbs.store.merge import merge
from tests.test_care import both_say
from tests.worlds import options, seen_tasks

NAMES = ("a", "b", "c")
SURE = 3.0
"""How many times too large the teacher's log-odds are."""


def classes_of(count, seed=0):
    """People's one-hot answers, and a teacher's vectors whose logits are SURE times what people's were drawn from."""
    r = np.random.default_rng(seed)
    logits = r.normal(0, 1, (count, 3))
    true = [r.choice(3, p=np.exp(z) / np.exp(z).sum()) for z in logits]
    people = [ClassificationTarget(torch.eye(3)[t]) for t in true]
    p = torch.tensor(SURE * logits).softmax(1).float()
    return people, [ClassificationTarget(x) for x in p], true, p


def half_of(count, second):
    return [i for i in range(count) if second_half(str(i)) == second]


def nll_of(logits, true, temperature):
    z = logits / temperature
    return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), true]))


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    people, said, true, p = classes_of(400)
    path = tmp_path_factory.mktemp("calibrate") / "s"
    both_say(path, "classification", people, said, NAMES, part_size=100, size=(4, 4))
    calibrate(str(path))
    return path, np.array(true), p


def kept(path, task="classification", name="t"):
    return json.loads((path / "labels" / task / name / "calibration.json").read_text())


def test_a_temperature_is_the_likeliest_of_one_half_and_told_on_the_other(classified):
    path, true, p = classified
    log = p.half().double().log().numpy()
    first, second = half_of(400, False), half_of(400, True)
    best = minimize(lambda t: nll_of(log[first], true[first], t[0]), [1.0], bounds=[(0.1, 10)], tol=1e-12).x[0]
    about = kept(path)
    assert about["temperature"] == pytest.approx(best, rel=1e-4)
    assert about["temperature"] == pytest.approx(SURE, rel=0.3)
    assert (about["images"], about["held_out"]["images"], about["people"]) == (
        len(first), len(second), ["classification/people"],
    )  # fmt: skip
    assert about["nll"]["before"] == pytest.approx(nll_of(log[second], true[second], 1), rel=1e-6)
    assert about["nll"]["after"] == pytest.approx(nll_of(log[second], true[second], best), rel=1e-4)
    theirs = MulticlassCalibrationError(3, n_bins=10)
    for key, temperature in (("before", 1.0), ("after", about["temperature"])):
        q = torch.tensor(log[second] / temperature).softmax(1)
        assert about["ece"][key] == pytest.approx(float(theirs(q, torch.tensor(true[second]))), abs=1e-6)
    assert about["ece"]["after"] < about["ece"]["before"] / 2


def test_bins_by_hand():
    """Of two classes: confidences 0.95, 0.95, 0.55 and 0.65, of which the second and the third are wrong."""
    p = torch.tensor([[0.95, 0.05], [0.05, 0.95], [0.55, 0.45], [0.35, 0.65]], dtype=torch.float64)
    evidence = Evidence(p.log(), p.argmax(1), torch.tensor([0, 0, 1, 1]))
    found = reliability(evidence)
    assert [(k, n) for k, n, _, _ in found.bins] == [(5, 1), (6, 1), (9, 2)]
    assert [b[2] for b in found.bins] == pytest.approx([0.55, 0.65, 0.95])
    assert [b[3] for b in found.bins] == [0, 1, 0.5]
    assert found.ece == pytest.approx((0.55 + 0.35 + 2 * 0.45) / 4)
    assert found.nll == pytest.approx(-np.log([0.95, 0.05, 0.45, 0.65]).mean())


def test_answers_below_a_score_are_no_evidence(tmp_path):
    p = torch.tensor([0.1, 0.19, 0.2, 0.9], dtype=torch.float64)
    found = surer(two_way(p, torch.tensor([True, False, True, False]), 1e-6), 0.2 - 1e-9)
    assert found.log[:, 1].sigmoid().tolist() == pytest.approx([0.2, 0.9])
    assert found.right.tolist() == [1, 0]
    people, said, _, q = classes_of(400)
    both_say(tmp_path / "s", "classification", people, said, NAMES, part_size=100, size=(4, 4))
    calibrate(str(tmp_path / "s"), score=0.6)
    sure = [i for i in range(400) if float(q[i].half().max()) / float(q[i].half().float().sum()) >= 0.6]
    assert kept(tmp_path / "s")["answers"] == len(set(sure) & set(half_of(400, False)))
    assert kept(tmp_path / "s")["score"] == 0.6


def test_temperature_and_shift_are_a_logistic_regression():
    r = np.random.default_rng(1)
    score = r.uniform(0.05, 1, 500)
    odds = np.log(score / (1 - score))
    right = r.uniform(size=500) < 1 / (1 + np.exp(-(0.5 * odds - 1.2)))
    evidence = two_way(torch.tensor(score), torch.tensor(right), 1e-6)

    def nll(w):
        z = w[0] * odds + w[1]
        return np.mean(np.log1p(np.exp(z)) - right * z)

    scale, shift = minimize(nll, [1.0, 0.0], tol=1e-12).x
    found = fitted(evidence, shift=True)
    assert (1 / found.temperature, found.shift) == pytest.approx((scale, shift), abs=1e-4)
    after = reliability(evidence, found)
    q = torch.tensor(1 / (1 + np.exp(-(scale * odds + shift))))
    assert after.ece == pytest.approx(float(BinaryCalibrationError(n_bins=10)(q, torch.tensor(right))), abs=1e-4)
    always = fitted(two_way(torch.tensor(score), torch.ones(500, dtype=torch.bool), 1e-6), shift=True)
    assert np.isfinite([always.temperature, always.shift]).all()  # nothing is likeliest: the end of what is allowed


def taught(path, task, **policy):
    chosen = plan([Store.open(path)], labels=["t"])
    reader = Reader(chosen, Policy(confidence=True, **policy))
    [name] = chosen.objectives
    return [reader.target(i, name) for i in range(len(chosen))], task


def test_what_is_learned_is_calibrated_and_what_is_stored_is_not(classified):
    path, _, p = classified
    temperature = kept(path)["temperature"]
    after, _ = taught(path, "classification")
    before, _ = taught(path, "classification", calibrated=False)
    stored = p.half().float()
    for one, other, q in zip(after, before, stored, strict=True):
        torch.testing.assert_close(other.probability, q)
        by_hand = q.double() ** (1 / temperature)
        by_hand = (by_hand / by_hand.sum()).float()
        torch.testing.assert_close(one.probability, by_hand, atol=1e-6, rtol=0)
        assert float(one.confidence) == pytest.approx(float(by_hand.max()), abs=1e-6)


def test_boxes_and_pixels_are_calibrated_by_hand():
    half = Calibration(2.0, -0.5)
    boxes = DetectionTarget(
        torch.zeros(3, 4), torch.zeros(3, dtype=torch.long), torch.tensor([0.5, 0.9, 1.0]), torch.zeros(3).bool()
    )
    found = load_task("detection").calibrated(boxes, half).score
    odds = np.log([1, 9, (1 - 1e-6) / 1e-6]) / 2 - 0.5
    assert found.tolist() == pytest.approx(list(1 / (1 + np.exp(-odds))), abs=1e-6)
    assert bool((found[1:] > found[:-1]).all())
    pixels = SegmentationTarget(torch.tensor([[0, 1], [1, IGNORE]]), torch.tensor([[0.5, 0.8], [1.0, 0.0]]))
    found = load_task("segmentation").calibrated(pixels, Calibration(2.0)).probability
    assert found.flatten().tolist() == pytest.approx([0.5, 2 / 3, 509**0.5 / (1 + 509**0.5), 0], abs=1e-6)
    some = ClassificationTarget(torch.tensor([0.8, 0.2, 0.0]))  # what was not kept stays so
    found = load_task("classification").calibrated(some, Calibration(2.0)).probability
    assert found.tolist() == pytest.approx([2 / 3, 1 / 3, 0])


def test_boxes_get_the_share_that_finds_an_object(tmp_path, capsys, monkeypatch):
    """Of the boxes of one score, the calibrated score is about how many find something."""
    monkeypatch.setenv("COLUMNS", "100")
    r = np.random.default_rng(0)
    people, said = [], []
    for _ in range(120):
        there = r.uniform(size=4) < 0.6
        spots = torch.tensor([[0, 0, 8, 8], [12, 0, 20, 8], [0, 12, 8, 20], [12, 12, 20, 20]]).float()
        score = torch.tensor(np.where(there, r.beta(8, 2, 4), r.beta(5, 3, 4))).float().clamp(0.05, 1)
        none = torch.zeros(4, dtype=torch.long)
        said.append(DetectionTarget(spots, none, score, none.bool()))
        n = int(there.sum())
        people.append(DetectionTarget(spots[torch.tensor(there)], none[:n], torch.ones(n), none[:n].bool()))
    sets = both_say(tmp_path / "s", "detection", people, said, ("x",), kinds=(BOXES, BOXES), part_size=50)
    calibrate(str(tmp_path / "s"), labels=["t"])
    told = capsys.readouterr().out
    assert "temperature" in told
    assert "shift" in told
    assert "expected calibration error" in told
    about = kept(tmp_path / "s", "detection")
    assert about["ece"]["after"] < about["ece"]["before"]
    after, _ = taught(tmp_path / "s", "detection", score=0.0)
    scores, hits = torch.cat([t.score for t in after]), sum(len(p.box) for p in people)
    assert float(scores.sum()) == pytest.approx(hits, rel=0.1)
    info(str(tmp_path / "s"))
    assert f"calibrated when learned: temperature {about['temperature']:.3g}" in " ".join(
        capsys.readouterr().out.split()
    )
    [mine] = [s for s in described(sets[1].store)["sets"] if s["set"] == "detection/t"]
    assert mine["calibration"]["shift"] == about["shift"]


def test_too_few_labels_and_answers_without_probabilities_are_refused(tmp_path):
    people, said, *_ = classes_of(40)
    both_say(tmp_path / "few", "classification", people, said, NAMES)
    with pytest.raises(
        ValueError, match=r"classification/t: people's labels are too few to tell: each half .* 10 with 50"
    ):
        calibrate(str(tmp_path / "few"))
    with pytest.raises(ValueError, match=r"unknown label set 'x'"):
        calibrate(str(tmp_path / "few"), labels=["x"])
    with pytest.raises(ValueError, match="no image has split 'val'"):
        calibrate(str(tmp_path / "few"), split=["val"])
    with pytest.raises(ValueError, match="it is people's"):
        calibrate(str(tmp_path / "few"), labels=["people"])
    with pytest.raises(ValueError, match="none of these label sets has a calibration"):
        calibrate(str(tmp_path / "few"), remove=True)
    with pytest.raises(ValueError, match="calibrated=False leaves calibrations out, and none"):
        polyteach.train([str(tmp_path / "few")], out=str(tmp_path / "run"), labels=["t"], calibrated=False, **options())
    both_say(tmp_path / "other", "classification", people, said, NAMES, ("x", "y", "z"))
    with pytest.raises(ValueError, match="people have labelled none of its images, or no class of its"):
        calibrate(str(tmp_path / "other"), labels=["t"])


def test_what_is_as_good_as_it_can_be_told_to_be_stays(tmp_path):
    """All of one probability, and right as often in both halves: the fit cannot help the other half."""
    count = 160
    first, second = half_of(count, False), half_of(count, True)
    answers = [None] * count
    for n, i in enumerate(first):
        answers[i] = ClassificationTarget(torch.eye(2)[int(n % 2 == 0)])  # half of them right
    for n, i in enumerate(second):
        answers[i] = ClassificationTarget(torch.eye(2)[int(n % 10 == 0)])  # nine of ten right, as is said
    said = [ClassificationTarget(torch.tensor([0.9, 0.1]))] * count
    both_say(tmp_path / "s", "classification", answers, said, ("a", "b"))
    with pytest.raises(ValueError, match="on the other half it would make them worse"):
        calibrate(str(tmp_path / "s"))
    assert not list((tmp_path / "s").rglob("calibration.json"))


def test_a_run_records_it_and_another_calibration_is_another_training(classified, tmp_path, capsys):
    path = tmp_path / "s"
    shutil.copytree(classified[0], path)
    given = options(steps=2, save_every=1) | {"labels": ["t"]}
    polyteach.train([str(path)], out=str(tmp_path / "run"), **given)
    assert "by classification/t, calibrated (temperature" in capsys.readouterr().err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    [about] = config["data"]["sets"]
    assert about["calibration"] == {"temperature": kept(path)["temperature"], "shift": 0.0}
    (tmp_path / "run" / "train.json").unlink()
    calibrate(str(path), remove=True)
    assert "learned as they are kept again" in capsys.readouterr().out
    with pytest.raises(ValueError, match="the stores have changed since then"):
        polyteach.train([str(path)], out=str(tmp_path / "run"), **given)


def test_a_broken_one_is_found_and_a_merged_store_keeps_one(classified, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(classified[0], tmp_path / name)
    merge(str(tmp_path / "both"), [str(tmp_path / "a"), str(tmp_path / "b")], progress=False)
    assert kept(tmp_path / "both") == kept(classified[0])
    file = tmp_path / "a" / "labels" / "classification" / "t" / "calibration.json"
    file.write_text(file.read_text().replace('"temperature": ', '"temperature": -'))
    [fault] = faults(Store.open(tmp_path / "a"))
    assert fault.file == "labels/classification/t/calibration.json"
    assert "temperature must be" in fault.reason
    reader = Reader(plan([Store.open(tmp_path / "a")], labels=["t"]), Policy())
    with pytest.raises(ValueError, match=r"temperature .*store calibrate"):
        reader.target(0, "classification_t")


@pytest.mark.parametrize("task", [load_task(name) for name in seen_tasks()], ids=lambda t: t.name)
def test_a_temperature_of_one_changes_nothing_and_none_changes_the_order(task):
    space = Space(NAMES, task.kinds[0])
    target = task.truth(render(random_scene(0, (24, 24))), space)
    if not task.calibrates:
        with pytest.raises(NotImplementedError, match="no probabilities"):
            task.calibrated(target, Calibration(1.0))
        return
    name = {"confidence": "probability"}.get(task.confidence, task.confidence)
    p = torch.rand_like(getattr(target, name))
    known = getattr(target, name) > 0  # what is ignored stays so; of the classes of an image all are
    target = replace(target, **{name: p / p.sum() if task.confidence == "confidence" else p * known})
    answers = target, *(task.calibrated(target, Calibration(t)) for t in (1.0, 3.0))
    before, same, other = (getattr(t, name).flatten() for t in answers)
    torch.testing.assert_close(same, before, atol=2e-3, rtol=0)
    assert bool((other[before.argsort()].diff() >= 0).all())
    assert not torch.allclose(other, before)


def test_pixels_of_a_store(tmp_path):
    r = np.random.default_rng(2)
    people, said = [], []
    for _ in range(40):
        p = r.uniform(0.5, 1, (6, 6)).astype(np.float32)
        true = r.integers(0, 2, (6, 6))
        odds = np.log(p / (1 - p)) / SURE
        wrong = r.uniform(size=(6, 6)) > 1 / (1 + np.exp(-odds))
        people.append(SegmentationTarget(torch.tensor(true), torch.ones(6, 6)))
        said.append(SegmentationTarget(torch.tensor(np.where(wrong, 1 - true, true)), torch.tensor(p)))
    both_say(tmp_path / "s", "segmentation", people, said, ("a", "b"), size=(6, 6))
    calibrate(str(tmp_path / "s"))
    assert kept(tmp_path / "s", "segmentation")["temperature"] == pytest.approx(SURE, rel=0.2)
    assert kept(tmp_path / "s", "segmentation")["answers"] == 36 * len(half_of(40, False))


def test_classes_that_only_one_has_are_no_evidence():
    task = load_task("classification")
    other = task.evidence(ClassificationTarget(torch.tensor([0.5, 0.3, 0.2])), ClassificationTarget(torch.eye(3)[2]), 2)
    assert len(other.right) == 0
    some = task.evidence(ClassificationTarget(torch.tensor([0.5, 0.3, 0.2])), ClassificationTarget(torch.eye(3)[1]), 2)
    assert some.log.exp().tolist() == [pytest.approx([0.5, 0.3])]
    assert (some.said.tolist(), some.right.tolist()) == ([0], [1])
