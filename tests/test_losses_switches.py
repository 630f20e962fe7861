"""Switches of the loss: confidence as a weight, by hand; teacher dropping, its draws, its scale and its resume."""

import math
from pathlib import Path

import pytest
import torch

from polyteach.loading.plan import plan
from polyteach.store import Store
from polyteach.tasks import load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import PEOPLE, Policy
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget
from polyteach.training.loop import Interrupted
from polyteach.training.mixture import FIRST, Mixture
from polyteach.verbs.train import train
from tests.worlds import log_of, options, weights_of, world


def measured(drop, names="abc", seed=0, weights=None):
    """A mixture that knows the first size of every loss: 1, 2, 4, ..."""
    mixture = Mixture(weights or dict.fromkeys(names, 1.0), drop=drop, seed=seed)
    for at in range(FIRST):
        assert mixture.kept({k: 2.0**i for i, k in enumerate(names)}, at) == dict.fromkeys(names, 1.0)
    return mixture


def test_the_objective_that_learned_least_always_stays_and_terms_are_scaled():
    mixture = measured(1.0)
    # shares that are left: a 0.9 of 1, b 0.5 of 2, c 0.7 of 4; all but the largest go, and one term weighs for three
    assert mixture.kept({"a": 0.9, "b": 1.0, "c": 2.8}, FIRST) == {"a": 3.0}
    assert mixture.kept({"a": 0.1, "b": 1.9, "c": 2.8}, FIRST + 1) == {"b": 3.0}
    losses = {k: torch.tensor(v) for k, v in {"a": 0.1, "b": 1.9, "c": 2.8}.items()}
    assert float(mixture(losses, {"b": 3.0})) == pytest.approx(5.7)


def test_others_are_dropped_at_the_rate_and_the_expected_draws_repeat():
    draws = [measured(0.3).kept({"a": 1.0, "b": 1.0, "c": 1.0}, FIRST + k) for k in range(400)]
    again = [measured(0.3).kept({"a": 1.0, "b": 1.0, "c": 1.0}, FIRST + k) for k in range(400)]
    assert draws == again
    other = [measured(0.3, seed=1).kept({"a": 1.0, "b": 1.0, "c": 1.0}, FIRST + k) for k in range(400)]
    assert draws != other
    for name in "bc":
        dropped = sum(name not in d for d in draws) / len(draws)
        assert abs(dropped - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 400)  # four standard errors
    assert all("a" in d and set(d.values()) == {3 / len(d)} for d in draws)


def test_objectives_without_weight_are_neither_compared_nor_scaled():
    mixture = measured(1.0, weights={"a": 0.0, "b": 1.0, "c": 1.0})
    assert mixture.kept({"a": 9.0, "b": 1.0, "c": 4.0}, FIRST) == {"a": 1.0, "c": 2.0}


def test_no_dropping_is_no_factor():
    assert Mixture({"a": 1.0, "b": 1.0}).kept({"a": 1.0, "b": 2.0}, 0) is None


def test_a_pixel_counts_by_its_probability():
    task = load_task("segmentation")
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, -1.0]])[None, :, None]  # (1, 2, 1, 3): two classes, three pixels
    target = SegmentationTarget(torch.tensor([[0, 1, IGNORE]]), torch.tensor([[0.9, 0.6, 0.8]]))
    errors = [math.log(1 + math.exp(-2)), math.log(2)]
    sure = task.pseudo(target, Policy(confidence=True))
    assert float(task.loss(logits, [sure])) == pytest.approx((0.9 * errors[0] + 0.6 * errors[1]) / 1.5, rel=1e-5)
    plain = task.pseudo(target, Policy())
    assert float(task.loss(logits, [plain])) == pytest.approx(sum(errors) / 2, rel=1e-5)


def test_a_picture_counts_by_its_likeliest_class_also_when_hard():
    task = load_task("classification")
    logits = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    answers = [ClassificationTarget(torch.tensor(p)) for p in ([0.2, 0.8], [0.6, 0.4])]
    hard = [task.pseudo(a, Policy(soft=False, confidence=True)) for a in answers]
    errors = [math.log(1 + math.e), math.log(2)]  # of class 1, and of class 0
    assert float(task.loss(logits, hard)) == pytest.approx((0.8 * errors[0] + 0.6 * errors[1]) / 1.4, rel=1e-5)


def test_dropping_goes_on_exactly_where_it_stopped(tmp_path, monkeypatch):
    store = world(tmp_path / "store", tasks=("classification", "depth", "segmentation"))
    more = options(steps=FIRST + 6, drop=0.5, save_every=2)
    whole = train([store], out=str(tmp_path / "whole"), **more)
    from polyteach.training import loop

    step, done = loop._Loop.update, []

    def stops(self, *args):
        if self.step == FIRST + 3 and not done:
            done.append(True)
            raise Interrupted("stopped")
        return step(self, *args)

    monkeypatch.setattr(loop._Loop, "update", stops)
    with pytest.raises(Interrupted):
        train([store], out=str(tmp_path / "parts"), **more)
    resumed = train([store], out=str(tmp_path / "parts"), **more)
    assert done
    assert weights_of(Path(resumed)) == weights_of(Path(whole))
    log = log_of(Path(whole))
    assert log == log_of(Path(resumed))
    assert any(set(line["kept"].values()) == {0.0, 1.0} for line in log)
    assert all(line["kept"] == dict.fromkeys(line["losses"], 1.0) for line in log[:FIRST])


def test_switches_that_could_change_nothing_are_refused(tmp_path):
    store = world(tmp_path / "store", tasks=("depth",))
    with pytest.raises(ValueError, match=r"drop=0\.5 leaves objectives out, and there is one \(depth_oracle\)"):
        train([store], out=str(tmp_path / "run"), **options(drop=0.5))
    with pytest.raises(ValueError, match=r"none of the label sets \(depth/oracle\) has a teacher that says"):
        train([store], out=str(tmp_path / "run"), **options(confidence=True))
    people = world(tmp_path / "people", tasks=("classification",), name=PEOPLE)
    assert plan([Store.open(people)]).objectives
    with pytest.raises(ValueError, match="confidence=True weighs teachers' labels"):
        train([people], out=str(tmp_path / "run"), **options(confidence=True))
    assert not (tmp_path / "run").exists()
