"""Transfer: what is taken, frozen and chosen; nothing done twice; scores against hand computations."""

import inspect
import json
import math
import subprocess
import sys
import warnings
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

from polyteach import datasets
from polyteach.datasets import protocols
from polyteach.ground import jackknife
from polyteach.ground.geometry import letterbox
from polyteach.ground.protocols import stated_protocols
from polyteach.ground.scene import random_scene, render
from polyteach.loading.plan import digest, plan
from polyteach.loading.samples import Samples
from polyteach.loading.views import Augment
from polyteach.model.student import Student, load_student, save_student
from polyteach.reporting.compare import pool
from polyteach.reporting.results import read
from polyteach.store import ImageRow, Store
from polyteach.tasks import load_task
from polyteach.tasks.classification import ClassificationTarget, neighbours, regression
from polyteach.tasks.contract import Objective, Policy, Space
from polyteach.training.loop import NonFinite
from polyteach.training.run import Run
from polyteach.transferring.budget import ranked
from polyteach.transferring.job import Job, open_job
from polyteach.transferring.options import Given
from polyteach.transferring.protocol import LRS, resolve
from polyteach.transferring.scoring import evaluate, score_names
from polyteach.verbs.transfer import transfer
from tests.worlds import NAMES, SMALL, label_truly, rows_of, seen_tasks, store_of

pytestmark = pytest.mark.usefixtures("one_thread")


def downstream(path, train=12, test=6, tasks=None, size=(48, 64)):
    """A store with people's exact labels: `train` images, then `test` ones."""
    renders = [render(random_scene(100 + i, size)) for i in range(train + test)]
    rows = rows_of([r.image for r in renders], split=lambda i: "train" if i < train else "test")
    kind = lambda task: task.kinds[-1 if task.name == "depth" else 0]  # noqa: E731
    label_truly(store_of(path, rows, 5), renders, tasks, "people", {"teacher": "people"}, kind)
    return str(path)


def options(**more):
    sweep = {"lrs": (0.01, 0.03), "steps": (3,), "seeds": (0, 1), "held_out": 0.25, "resamples": 20, "examples": 2}
    return SMALL | {"size": 64} | sweep | more


def representation(path, trained=("backbone", "pyramid", "heads")):
    """A run's folder with random weights, as `train` and `pretrain` leave it."""
    torch.manual_seed(7)
    student = Student("test_resnet", {"classification_people": Objective("classification", Space(NAMES))}, 8)
    save_student(student, path, {"size": [64, 64], "trained": list(trained)})
    return str(path)


def result(out):
    return json.loads((out / "transfer.json").read_text())


# ---- the verb ----


@pytest.mark.parametrize("task", seen_tasks())
def test_every_task_is_scored_by_every_part(tmp_path, task):
    store = downstream(tmp_path / "store", tasks=[task])
    transfer(store, out=str(tmp_path / "out"), init=representation(tmp_path / "run"), **options(steps=(2,)))
    found = result(tmp_path / "out")
    assert found["downstream"]["task"] == task
    assert found["downstream"]["metric"] in score_names(Objective(task, Space(NAMES, load_task(task).kinds[0])))
    parts = ["backbone", "pyramid"] if "p5" in load_task(task).reads else ["backbone"]  # the same network twice
    assert [r["parts"] for r in found["results"]] == parts
    assert (found["budget"]["images"], found["downstream"]["validation_images"]) == (9, 3)
    for r in found["results"]:
        assert {(c["lr"], c["steps"]) for c in r["sweep"]} == {(0.01, 2), (0.03, 2)}
        assert [t["seed"] for t in r["tests"]] == [0, 1]
        best = max(c["validation"] for c in r["sweep"])
        assert next(c for c in r["sweep"] if c["lr"] == r["chosen"]["lr"])["validation"] == best
        values = [t["scores"][found["downstream"]["metric"]] for t in r["tests"]]
        assert r["mean"] == pytest.approx(sum(values) / 2)
        assert r["spread"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
        assert all(len(t["resamples"]) in (0, 20) for t in r["tests"])
    assert found["examples"] == [f"examples/{p}-{k}.png" for p in parts for k in (0, 1)]
    # parts x (2 learning rates + 1 further seed) x 2 steps x 4 images
    assert found["compute"]["transfer"]["images"] == len(parts) * 3 * 2 * 4
    assert found["compute"]["transfer"]["flops"] > 0
    assert not list((tmp_path / "out" / "cells").rglob("student.safetensors"))


def test_scratch_brings_no_pyramid_and_neither_does_a_run_that_did_not_train_one(tmp_path):
    store = downstream(tmp_path / "store", tasks=["normals"])
    transfer(store, out=str(tmp_path / "a"), **options(steps=(1,)))
    assert [r["parts"] for r in result(tmp_path / "a")["results"]] == ["backbone"]
    assert result(tmp_path / "a")["representation"]["name"] == "scratch"
    run = representation(tmp_path / "ssl", trained=["backbone"])
    transfer(store, out=str(tmp_path / "b"), init=run, **options(steps=(1,)))
    assert [r["parts"] for r in result(tmp_path / "b")["results"]] == ["backbone"]
    assert result(tmp_path / "b")["representation"]["name"] == "ssl"
    with pytest.raises(ValueError, match="has no trained pyramid"):
        transfer(store, out=str(tmp_path / "c"), init=run, **options(parts=("pyramid",)))


def test_what_is_taken_is_what_parts_say_and_heads_are_always_new(tmp_path):
    run = representation(tmp_path / "run")
    given = load_file(tmp_path / "run" / "student.safetensors")
    objectives = {"classification_people": Objective("classification", Space(NAMES))}
    for taken in (("backbone",), ("backbone", "pyramid")):
        torch.manual_seed(1)
        mine = Student("test_resnet", objectives, 8, run, taken).state_dict()
        for name in ("backbone", "pyramid", "heads"):
            weights = [k for k in mine if k.startswith(name) and k.endswith("weight") and given[k].ndim > 1]
            assert weights
            assert all(torch.equal(mine[k], given[k]) == (name in taken) for k in weights)


@pytest.mark.parametrize("part", ["backbone", "pyramid"])
def test_frozen_parts_do_not_move_and_the_rest_does(tmp_path, part):
    store = downstream(tmp_path / "store", tasks=["normals"])
    run = representation(tmp_path / "run")
    more = options(mode="frozen", parts=(part,), seeds=(0,), lrs=(0.1,), keep=True)
    transfer(store, out=str(tmp_path / "out"), init=run, **more)
    before = load_file(tmp_path / "run" / "student.safetensors")
    (file,) = (tmp_path / "out" / "cells").rglob("student.safetensors")
    after = load_file(file)
    for k, v in after.items():
        name = k.partition(".")[0]
        if name == "backbone" or (name == "pyramid" and part == "pyramid"):
            assert torch.equal(v, before[k]), k  # statistics of batch normalisation included
    learned = [k for k in after if k.startswith("heads")]
    torch.manual_seed(0)
    fresh = Student("test_resnet", {"normals_people": Objective("normals", Space(NAMES))}, 8, run, ("backbone",))
    assert any(not torch.equal(after[k], fresh.state_dict()[k]) for k in learned)


def test_nothing_is_done_twice(tmp_path, monkeypatch):
    store = downstream(tmp_path / "store", tasks=["classification"])
    whole = options(seeds=(0, 1))
    transfer(store, out=str(tmp_path / "whole"), **whole)
    trained = []
    real = Run.fit

    def counted(self, *given):
        trained.append(self.folder.name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(self, *given)

    monkeypatch.setattr(Run, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        transfer(store, out=str(tmp_path / "out"), **whole)
    assert not (tmp_path / "out" / "transfer.json").exists()
    transfer(store, out=str(tmp_path / "out"), **whole)
    # two cells of the sweep, then the second seed, which was interrupted and done again
    assert len(trained) == 4
    assert trained[2] == trained[3]
    a, b = result(tmp_path / "whole"), result(tmp_path / "out")
    assert a["results"][0]["mean"] == b["results"][0]["mean"]
    assert [t["resamples"] for t in a["results"][0]["tests"]] == [t["resamples"] for t in b["results"][0]["tests"]]
    with pytest.raises(ValueError, match="holds this transfer, finished"):
        transfer(store, out=str(tmp_path / "out"), **whole)
    transfer(store, out=str(tmp_path / "out"), **options(seeds=(0, 1, 2)))  # a further seed adds to it
    assert len(trained) == 5
    assert [t["seed"] for t in result(tmp_path / "out")["results"][0]["tests"]] == [0, 1, 2]


def test_a_folder_of_another_transfer_is_refused(tmp_path):
    store = downstream(tmp_path / "store", tasks=["classification"])
    transfer(store, out=str(tmp_path / "out"), **options(seeds=(0,), lrs=(0.01,)))
    with pytest.raises(ValueError, match=r"was started otherwise: .*lrs"):
        transfer(store, out=str(tmp_path / "out"), **options(seeds=(0,), lrs=(0.02,)))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    for option in ("allow_remote", "max_pixels"):  # which earlier versions do not record
        del config["options"][option]
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="holds this transfer, finished"):
        transfer(store, out=str(tmp_path / "out"), **options(seeds=(0,), lrs=(0.01,), allow_remote=("https",)))
    with pytest.raises(ValueError, match="the first seed, which sweeps, was 0"):
        transfer(store, out=str(tmp_path / "out"), **options(seeds=(1, 0), lrs=(0.01,)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(ValueError, match="exists and is no transfer"):
        transfer(store, out=str(tmp_path / "other"), **options())


def test_a_cell_whose_loss_is_not_finite_is_recorded_and_not_chosen(tmp_path):
    store = downstream(tmp_path / "store", tasks=["normals"])
    transfer(store, out=str(tmp_path / "out"), **options(seeds=(0,), lrs=(1e30, 0.01), clip=0.0))
    (found,) = result(tmp_path / "out")["results"]
    failed = next(c for c in found["sweep"] if c["lr"] == 1e30)
    assert failed["validation"] is None
    assert "not finite" in failed["failed"]
    assert found["chosen"]["lr"] == 0.01


def test_a_further_seed_that_diverges_is_recorded_and_stops_nothing(tmp_path, monkeypatch):
    store = downstream(tmp_path / "store", tasks=["normals"])
    real = Run.fit

    def breaks(self, student, mixture, samples, settings, passes):
        if settings.seed == 1:
            self.folder.mkdir(parents=True)
            raise NonFinite("the loss is not finite")
        real(self, student, mixture, samples, settings, passes)

    monkeypatch.setattr(Run, "fit", breaks)
    transfer(store, out=str(tmp_path / "out"), **options(seeds=(0, 1), lrs=(0.01,)))
    found = result(tmp_path / "out")
    first, second = found["results"][0]["tests"]
    assert first["scores"]["within 11.25"] is not None
    assert second["scores"] == {found["downstream"]["metric"]: None}
    assert "not finite" in second["failed"]
    assert found["results"][0]["mean"] is None
    assert read([str(tmp_path / "out")])[0].name == "scratch"


def test_a_resample_without_a_score_is_kept_as_null(tmp_path, monkeypatch):
    store = downstream(tmp_path / "store", tasks=["normals"])
    real = Job.score

    def one_undefined(self, student, plan, resamples):
        found = real(self, student, plan, resamples)
        return replace(found, resamples=[math.nan, *found.resamples[1:]]) if resamples else found

    monkeypatch.setattr(Job, "score", one_undefined)
    transfer(store, out=str(tmp_path / "out"), **options(seeds=(0, 1), lrs=(0.01,)))
    (found,) = result(tmp_path / "out")["results"]
    assert [t["resamples"].count(None) for t in found["tests"]] == [1, 1]
    assert found["mean"] is not None
    assert found["interval"] is None
    cell = pool(read([str(tmp_path / "out")]), "backbone")
    assert cell.why_no_interval == "the metric is undefined on some resamples"


def test_cost_counts_what_was_trained_and_probes_a_few_images(tmp_path, monkeypatch):
    from polyteach.ground import flops

    store = downstream(tmp_path / "store", tasks=["normals"])
    sizes = []
    real = flops.step_flops

    def noted(model, images, targets):
        sizes.append(len(images))
        return real(model, images, targets)

    monkeypatch.setattr(flops, "step_flops", noted)
    transfer(store, out=str(tmp_path / "out"), **options(seeds=(0,), lrs=(1e30, 0.01), clip=0.0))
    (found,) = result(tmp_path / "out")["results"]
    assert set(sizes) == {2}
    whole, broken = (next(c for c in found["sweep"] if c["lr"] == lr) for lr in (0.01, 1e30))
    assert whole["images"] == 12
    assert broken["images"] < 12
    assert broken["flops"] / max(broken["images"], 1) == pytest.approx(whole["flops"] / 12 if broken["images"] else 0)
    assert result(tmp_path / "out")["compute"]["transfer"]["flops"] == broken["flops"] + whole["flops"]


def answered(student, store, split, objective, ids):
    """The student's answers to these pictures, one at a time, and the truths."""
    chosen = plan([Store.open(store)], labels=["people"], split=split, only=ids)
    samples = Samples(chosen, Augment((32, 32)), Policy(), 0)
    numbers = range(len(chosen))
    guesses = [student.answer([samples.image(i)[1]], (64, 64))[0][objective] for i in numbers]
    return guesses, [samples.target(i, objective) for i in numbers]


def test_the_sweep_chooses_on_validation_the_least_of_an_error(tmp_path):
    store = downstream(tmp_path / "store", train=16, tasks=["depth"])
    more = options(seeds=(0,), lrs=(1e-6, 0.03), metric="RMSE", steps=(4,), keep=True)
    transfer(store, out=str(tmp_path / "out"), **more)
    (found,) = result(tmp_path / "out")["results"]
    assert not result(tmp_path / "out")["downstream"]["higher_is_better"]
    validation = {c["lr"]: c["validation"] for c in found["sweep"]}
    assert validation[0.03] < validation[1e-6]
    assert found["chosen"]["lr"] == 0.03
    # each score is of its own images, by networks that are not training
    (cell,) = (tmp_path / "out" / "cells").glob("*lr0.03*")
    student = load_student(cell)
    train_ids = [f"{i}" for i in range(16)]
    held = set(ranked(train_ids, "validation")[:4])
    for split, ids, said in (("train", held, validation[0.03]), ("test", None, found["tests"][0]["scores"]["RMSE"])):
        metric = load_task("depth").metric(Space(NAMES, load_task("depth").kinds[-1]))
        metric.update(*answered(student, store, split, "depth_people", ids))
        assert said == pytest.approx(metric.compute()["RMSE"], rel=1e-4), split


def test_seeds_that_were_asked_for_stay(tmp_path):
    store = downstream(tmp_path / "store", tasks=["normals"])
    transfer(store, out=str(tmp_path / "out"), **options(seeds=(0, 1), lrs=(0.01,)))
    with pytest.raises(ValueError, match=r"seeds \[1\] were asked for before; give them too"):
        transfer(store, out=str(tmp_path / "out"), **options(seeds=(0, 2), lrs=(0.01,)))


def test_a_single_part_need_not_be_a_list_nor_a_path_a_text(tmp_path):
    store = Path(downstream(tmp_path / "store", tasks=["normals"]))
    run = Path(representation(tmp_path / "run"))
    out = transfer(store, out=tmp_path / "out", init=run, **options(seeds=(0,), lrs=(0.01,), parts="backbone"))
    assert out == str(tmp_path / "out")
    assert [r["parts"] for r in result(tmp_path / "out")["results"]] == ["backbone"]
    with pytest.raises(ValueError, match="holds this transfer, finished"):  # texts are the same
        transfer(str(store), out=out, init=str(run), **options(seeds=(0,), lrs=(0.01,), parts="backbone"))


def test_rates_that_print_alike_are_two_cells(tmp_path):
    store = downstream(tmp_path / "store", tasks=["normals"])
    transfer(store, out=str(tmp_path / "out"), **options(seeds=(0,), lrs=(0.01, 0.01 + 1e-9)))
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2


def test_nothing_readable_is_an_error_that_says_why(tmp_path):
    store = Store.create(tmp_path / "store", 5)
    rows = [ImageRow(f"{i}", 8, 8, b"no picture", split="test") for i in range(3)]
    store.write_images(0, rows)
    labels = store.create_set("classification", "people", Space(NAMES), {"teacher": "people"})
    labels.write(0, [r.id for r in rows], [ClassificationTarget(torch.tensor([1.0, 0.0, 0.0]))] * 3)
    chosen = plan([store])
    with pytest.raises(ValueError, match=r"none of 3 images could be scored for classification_people; the first: 0: "):
        evaluate(lambda images: [], chosen, "classification_people")


def setup(store, **more):
    """The options, resolved, as the verb resolves them."""
    groups = {f.name: f.default for f in fields(Given) if is_dataclass(f.default)}
    for name, group in groups.items():
        mine = {k: more.pop(k) for k in list(more) if hasattr(group, k)}
        groups[name] = replace(group, **mine)
    return resolve(Given(str(store), "out", **groups, **more))


@pytest.mark.parametrize(("optimizer", "rates"), [("sgd", "protocol"), ("adamw", "own")])
def test_a_protocols_rates_are_those_of_sgd(optimizer, rates):
    name, protocol = next(iter(protocols().items()))
    found = setup("store", protocol=name, optimizer=optimizer)
    assert found.lrs == (protocol.lrs if rates == "protocol" else LRS["adamw"])
    # wins over a share that the protocol holds out
    assert setup("store", protocol=name, validation_split="mine").validation_split == ("mine",)


def test_a_protocol_says_what_nobody_gave_and_its_few_labels_are_a_budget():
    protocol = protocols()["voc-detection"]
    found = setup("store", protocol="voc-detection-few", size=64)
    assert (found.downstream, found.task, found.metric) == ("voc-detection-few", protocol.task, protocol.metric)
    assert (found.train_split, found.test_split, found.held_out) == (protocol.train, protocol.test, protocol.validation)
    assert (found.size, found.steps, found.shots, found.fraction) == (64, protocol.steps, protocol.few["shots"], None)
    assert setup("store", protocol="voc-detection-few", fraction=0.5).shots is None
    assert setup("store", protocol="voc-detection").shots is None


def test_the_record_has_every_option_of_the_verb():
    assert sorted(setup("store").options()) == sorted(inspect.signature(transfer).parameters)


def test_protocols_are_read_as_they_are_imported():
    assert stated_protocols(Path(datasets.__file__).parent) == protocols()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"task": "nothing"}, "unknown task 'nothing'"),
        ({"metric": "F1"}, "unknown metric 'F1'; classification has top-1, top-5"),
        ({"mode": "magic"}, "unknown mode 'magic'; classification has finetune, frozen, knn, linear"),
        ({"train_split": "nope"}, "no image has split 'nope'; there are test, train"),
        ({"train_split": ("train", "test")}, "images are in both the training and the test set"),
        ({"validation_split": "test", "held_out": None}, "images are in both the validation and the test set"),
        ({"shots": 1, "fraction": 0.5}, "one budget at a time"),
        ({"fraction": 2.0}, "fraction must be above 0 and at most 1; got 2.0"),
        ({"lrs": (0.1, 0.1)}, "has a value twice"),
        ({"seeds": ()}, "seeds: give at least one"),
        ({"size": 33}, "size must be a multiple of 32; got 33"),
        ({"protocol": "nope"}, "unknown protocol 'nope'; there are, each also as NAME-few, "),
        ({"parts": ("heads",)}, "parts must be backbone or pyramid"),
        ({"held_out": 1.0}, "held_out must be between 0 and 1"),
        ({"held_out": 0.99}, "leaves none to train on"),
        ({"workers": -1}, "workers must be at least 0; got -1"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; there are fp32, fp16, bf16"),
        ({"clip": -1.0}, "clip must be at least 0"),
        ({"backbone": "resnet81"}, "unknown backbone 'resnet81'"),
        ({"init": "/nowhere/run"}, "neither 'pretrained', a file"),
        ({"mode": "knn"}, "lrs is for modes finetune and frozen; mode knn trains nothing"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, wrong, why):
    store = downstream(tmp_path / "store", tasks=["classification"])
    with pytest.raises(ValueError, match=why):
        transfer(store, out=str(tmp_path / "out"), **options(**wrong))
    assert not (tmp_path / "out").exists()


def test_a_mistake_is_told_before_torch_is_imported(tmp_path):
    Store.create(tmp_path / "store", 5)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    mistakes = {
        "is not a store": {"store": str(tmp_path / "none")},
        "unknown protocol 'voc'": {"protocol": "voc"},
        "unknown optimizer 'sgdd'": {"optimizer": "sgdd"},
        "unknown backbone 'resnet81'": {"backbone": "resnet81"},
        "neither 'pretrained', a file": {"init": str(tmp_path / "none")},
        "holds no finished student": {"init": str(tmp_path / "taken")},
        "exists and is no transfer": {"out": str(tmp_path / "taken")},
        "one budget at a time": {"shots": 1, "fraction": 0.5},
    }
    code = (
        "import json, sys\nfrom polyteach.verbs.transfer import transfer\n"
        "for said, given in json.loads(sys.argv[1]).items():\n"
        "    try:\n        transfer(**given)\n"
        "    except ValueError as e:\n        assert said in str(e), e\n"
        "    else:\n        raise AssertionError(said)\n"
        "    assert 'torch' not in sys.modules, said\n"
    )
    good = {"store": str(tmp_path / "store"), "out": str(tmp_path / "out")}
    words = [sys.executable, "-c", code, json.dumps({said: good | given for said, given in mistakes.items()})]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_several_tasks_need_a_choice_and_a_task_without_classes_takes_no_shots(tmp_path):
    store = downstream(tmp_path / "store", tasks=["classification", "normals"])
    with pytest.raises(ValueError, match="for classification, normals; choose one with --task"):
        transfer(store, out=str(tmp_path / "out"), **options())
    with pytest.raises(ValueError, match="normals has no classes to count images of; give --fraction"):
        transfer(store, out=str(tmp_path / "out"), task="normals", **options(shots=2))
    with pytest.raises(ValueError, match="unknown mode 'knn'; normals has finetune, frozen"):
        transfer(store, out=str(tmp_path / "out2"), task="normals", **options(mode="knn"))


# ---- budgets ----


def test_budgets_nest_and_shots_count_classes(tmp_path):
    store = downstream(tmp_path / "store", train=40, test=4, tasks=["classification"])

    def drawn(seed=0, **budget):
        job = open_job(setup(store, **options(**budget)))
        return job, job.train(seed)

    _, five = drawn(fraction=0.2)
    _, ten = drawn(fraction=0.5)
    assert len(five) == 6
    assert set(five.ids()) < set(ten.ids())
    assert set(drawn(fraction=0.2)[1].ids()) == set(five.ids())
    assert set(drawn(1, fraction=0.2)[1].ids()) != set(five.ids())
    job, two = drawn(shots=2)
    assert not set(two.ids()) & set(job.downstream.images.validation.ids())
    labels = {id: a for part in (0, 1, 2, 3, 4, 5, 6, 7) for id, a in _answers(store, part)}
    counts = torch.stack([labels[i].probability for i in two.ids()]).sum(0)
    available = torch.stack([labels[i].probability for i in job.downstream.images.train]).sum(0)
    assert counts.tolist() == available.clamp(max=2).tolist()


def _answers(store, part):
    opened = Store.open(store)
    (labels,) = opened.sets()
    return [(r.id, a) for r, a in zip(opened.images(part, data=False), labels.read(part), strict=True)]


def test_ranked_is_a_permutation_and_a_new_id_moves_no_other():
    ids = [f"{i}" for i in range(50)]
    order = ranked(ids, "salt")
    assert sorted(order) == sorted(ids)
    assert order != ranked(ids, "other")
    assert [i for i in ranked([*ids, "new"], "salt") if i != "new"] == order
    assert digest(ids) == digest(order) != digest(ids[1:])


# ---- probes ----


def test_knn_and_linear_on_the_verb(tmp_path):
    store = downstream(tmp_path / "store", train=16, test=5, tasks=["classification"])
    run = representation(tmp_path / "run")
    for mode in ("knn", "linear"):
        plain = {k: v for k, v in options(mode=mode).items() if k not in ("lrs", "steps")}
        transfer(store, out=str(tmp_path / mode), init=run, **plain)
        found = result(tmp_path / mode)
        (r,) = found["results"]
        assert r["parts"] == "backbone"
        assert found["mode"] == mode
        assert len(r["sweep"]) == len(load_task("classification").probes[mode].settings)
        assert len(r["tests"]) == 1  # nothing is random without a budget
        assert 0 <= r["mean"] <= 100


def test_a_probe_chooses_the_best_setting_on_validation(tmp_path):
    store = downstream(tmp_path / "store", train=32, test=8, tasks=["classification"])
    run = representation(tmp_path / "run")
    plain = {k: v for k, v in options(mode="knn").items() if k not in ("lrs", "steps")}
    transfer(store, out=str(tmp_path / "out"), init=run, **plain)
    (found,) = result(tmp_path / "out")["results"]
    student = load_student(run)
    held = set(ranked([f"{i}" for i in range(32)], "validation")[:8])
    chosen = {
        "known": plan([Store.open(store)], split="train", only={f"{i}" for i in range(32)} - held),
        "validation": plan([Store.open(store)], split="train", only=held),
        "test": plan([Store.open(store)], split="test"),
    }
    features, classes = {}, {}
    for name, seen in chosen.items():
        samples = Samples(seen, Augment((32, 32)), Policy(), 0)
        views = [letterbox((48, 64), (64, 64)).image(samples.image(i)[1]) for i in range(len(seen))]
        features[name] = torch.cat([student.pooled(v[None]) for v in views]).detach()
        classes[name] = torch.stack([samples.target(i, "classification_people").probability for i in range(len(seen))])

    def hits(name, setting):
        near = cosine_similarity(features[name][:, None], features["known"][None], dim=2).topk(min(setting, 24))
        votes = ((near.values / 0.07).exp()[..., None] * classes["known"][near.indices]).sum(1)
        return 100 * float((votes.argmax(1) == classes[name].argmax(1)).float().mean())

    said = {c["setting"]: c["validation"] for c in found["sweep"]}
    assert said == {s: pytest.approx(hits("validation", s)) for s in said}
    assert len(set(said.values())) > 1
    assert any(hits("test", s) != hits("validation", s) for s in said)
    best = found["chosen"]["setting"]
    assert said[best] == max(said.values())
    assert found["mean"] == pytest.approx(hits("test", best))


def test_neighbours_vote_as_written_down():
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.6, 0.8]])
    targets = [ClassificationTarget(torch.eye(3)[i]) for i in range(3)]
    seen = torch.tensor([[2.0, 0.0]])
    assert neighbours(features, targets, 1)(seen)[0].probability.tolist() == [1, 0, 0]
    weight = np.exp(np.array([1.0, 0.0, 0.6]) / 0.07)
    three = neighbours(features, targets, 3)(seen)[0].probability
    assert np.allclose(three, weight / weight.sum(), atol=1e-6)
    two = neighbours(features, targets, 2)(seen)[0].probability
    assert np.allclose(two, [weight[0] / weight[[0, 2]].sum(), 0, weight[2] / weight[[0, 2]].sum()], atol=1e-6)


def test_regression_finds_the_minimum_of_its_loss():
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(60, 3, generator=draw)
    true = (features @ torch.tensor([[2.0, -1], [0, 1], [1, 0]])).argmax(1)
    targets = [ClassificationTarget(torch.eye(2)[c]) for c in true]
    answer = regression(features, targets, 0.1)
    probability = torch.stack([a.probability for a in answer(features)])
    assert (probability.argmax(1) == true).float().mean() > 0.95
    # at the minimum the gradient of the mean cross-entropy by the bias is zero: mean prediction = mean label
    assert torch.allclose(probability.mean(0), torch.eye(2)[true].mean(0), atol=1e-4)
    # and by the weights it is minus the penalty's; both classes' weights then add up to zero
    standard = (features - features.mean(0)) / features.std(0, correction=0)
    gradient = standard.T @ (probability - torch.eye(2)[true]) / 60
    assert torch.allclose(gradient.sum(1), torch.zeros(3), atol=1e-5)
    logit = (probability[:, 0] / probability[:, 1]).log()
    weight = torch.linalg.lstsq(torch.cat([standard, torch.ones(60, 1)], 1), logit[:, None]).solution[:3, 0]
    assert torch.allclose(gradient[:, 0] - gradient[:, 1], -0.1 * weight, atol=1e-3)


# ---- evaluation ----


@pytest.mark.parametrize("task", seen_tasks())
def test_what_is_left_out_counts_once_and_the_others_often(tmp_path, task, monkeypatch):
    monkeypatch.setattr(jackknife, "KEPT", 3)
    store = downstream(tmp_path / "store", train=5, test=4, tasks=[task])
    seen = plan([Store.open(store)], split="test")
    (name,) = seen.objectives
    about = seen.objectives[name]
    first = load_task(task)
    # the truth of the neighbouring image: neither perfect nor hopeless
    truths = [a for part in (0, 1) for _, a in _answers(store, part)]
    it = iter([truths[i] for i in (6, 5, 8, 7)])
    found = evaluate(lambda images: [next(it) for _ in images], seen, name, resamples=3, batch_size=3)
    pairs = list(zip((truths[i] for i in (6, 5, 8, 7)), (truths[i] for i in (5, 6, 7, 8)), strict=True))
    whole = first.metric(about.space)
    whole.update([p for p, _ in pairs], [t for _, t in pairs])
    assert found.scores == pytest.approx(whole.compute(), nan_ok=True)
    expected = []
    for out in range(4):
        again = first.metric(about.space)
        chosen = [p for i, p in enumerate(pairs) for _ in range(1 if i == out else 3)]
        again.update([p for p, _ in chosen], [t for _, t in chosen])
        expected.append(next(iter(again.compute().values())))
    assert sorted(found.left_out) == pytest.approx(sorted(expected), nan_ok=True)
    assert len(found.resamples) == 3


def test_unreadable_images(tmp_path):
    store = downstream(tmp_path / "store", train=2, test=3, tasks=["classification"])
    opened = Store.open(store)
    rows = opened.images(0)
    opened.write_images(0, [*rows[:4], ImageRow("4", 48, 64, b"broken", split="test")])
    seen = plan([Store.open(store)], split="test")
    guess = ClassificationTarget(torch.tensor([1.0, 0, 0]))
    found = evaluate(lambda images: [guess] * len(images), seen, "classification_people")
    assert [id for id, _ in found.failed] == ["4"]
    with pytest.raises(ValueError, match="unknown metric 'F1'; there are top-1, top-5"):
        evaluate(lambda images: [guess] * len(images), seen, "classification_people", metric="F1")


def test_protocols_are_sane():
    known = protocols()
    for name, p in known.items():
        assert "-few" not in name
        task = load_task(p.task)
        space = Space(NAMES, task.kinds[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert p.metric in score_names(Objective(p.task, space))
        assert p.lrs
        assert p.steps
        assert p.size % 32 == 0
        assert set(p.few) <= {"shots", "fraction"}
