"""Training: same seed, same weights; killed anywhere, same weights; weights of losses, averaging, and refusals."""

import io
import json
import math
import os
import random
import signal
import threading
import time
import weakref
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from polyteach.ground import flops
from polyteach.ground.geometry import View
from polyteach.ground.scene import random_scene, render
from polyteach.loading import transport
from polyteach.loading.plan import plan
from polyteach.loading.samples import Samples
from polyteach.loading.transport import Batch
from polyteach.loading.views import Augment
from polyteach.model.student import Student, load_student
from polyteach.store import ImageRow, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Policy, Space
from polyteach.tasks.detection import DetectionTarget, rows
from polyteach.teachers import load_teacher
from polyteach.training import checkpoints
from polyteach.training.averaging import Average
from polyteach.training.checkpoints import latest
from polyteach.training.log import logged
from polyteach.training.loop import Copies, Interrupted, NonFinite, fit
from polyteach.training.mixture import Mixture
from polyteach.training.options import StudentHardware, weight_pairs
from polyteach.training.request import check_frozen
from polyteach.training.settings import Settings, check, rate
from polyteach.training.weights import loss_weights
from polyteach.verbs.label import label
from polyteach.verbs.train import train
from tests.test_task_contract import every_case
from tests.worlds import INFO, NAMES, TRAINED, answer_to, forked, log_of, options, png, seen_tasks, weights_of, world

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- the verb ----


def test_a_run_says_what_it_has_trained(tmp_path):
    store = world(tmp_path / "store")

    def trained(run):
        return json.loads((tmp_path / run / "student.json").read_text())["trained"]

    train(store, out=str(tmp_path / "classes"), tasks=["classification"], **options())
    assert trained("classes") == ["backbone", "heads"]  # classes are read off the backbone
    train(store, out=str(tmp_path / "all"), **options())
    assert trained("all") == ["backbone", "pyramid", "heads"]
    train(store, out=str(tmp_path / "more"), tasks=["classification"], init=str(tmp_path / "all"), **options())
    assert trained("more") == ["backbone", "pyramid", "heads"]


def test_what_is_frozen_stays_as_it_was_with_its_statistics(tmp_path):
    store = world(tmp_path / "store", 4)
    first, run, more = (tmp_path / name for name in ("first", "run", "more"))
    train(store, out=str(first), **options(steps=2))
    start = load_file(first / "student.safetensors")
    for out, freeze in ((run, ("backbone",)), (more, ("backbone", "pyramid"))):
        # averages and weight decay would move what merely gets no gradient
        train(store, out=str(out), init=str(first), freeze=freeze, **options(steps=3, ema=0.5, weight_decay=0.1))
        after = load_file(out / "student.safetensors")
        moved = {k.partition(".")[0] for k, v in after.items() if not v.equal(start[k])}
        assert moved == {"backbone", "pyramid", "heads"} - set(freeze)
    # a resumed one ends in the same weights, and one that was begun before there was the option goes on too
    whole = weights_of(run)
    (run / "train.json").unlink()
    with pytest.raises(ValueError, match=r"freeze was \['backbone'\], is \[\]"):
        train(store, out=str(run), init=str(first), **options(steps=3, ema=0.5, weight_decay=0.1))
    train(store, out=str(run), init=str(first), freeze=["backbone"], **options(steps=3, ema=0.5, weight_decay=0.1))
    assert weights_of(run) == whole
    (first / "train.json").unlink()
    config = json.loads((first / "config.json").read_text())
    del config["options"]["freeze"]
    (first / "config.json").write_text(json.dumps(config))
    train(store, out=str(first), **options(steps=2))


def test_a_frozen_backbone_that_others_trained_is_one_that_the_run_brings(tmp_path):
    """As `transfer` asks: it takes over the parts that a representation says it has learned."""
    store, weights = world(tmp_path / "store", 4), tmp_path / "backbone.safetensors"
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), weights)
    out = train(store, out=tmp_path / "run", init=weights, freeze="backbone", **options(steps=1))
    assert json.loads(Path(out, "student.json").read_text())["trained"] == ["backbone", "pyramid", "heads"]
    assert json.loads(Path(out, "config.json").read_text())["options"]["freeze"] == ["backbone"]
    start, after = Student("test_resnet", {}, 8, str(weights)).backbone, load_student(out).backbone
    assert all(v.equal(after.state_dict()[k]) for k, v in start.state_dict().items())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"freeze": ["heads"]}, "freeze takes backbone, or backbone and pyramid; got heads"),
        ({"freeze": ["pyramid"]}, "freeze takes backbone, or backbone and pyramid; got pyramid"),
        ({"freeze": ["backbone"]}, "without --init nothing was"),
        ({"freeze": ["backbone", "pyramid"], "init": "pretrained"}, "has weights of a backbone alone"),
    ],
)
def test_what_cannot_be_frozen(tmp_path, wrong, said):
    store = world(tmp_path / "store", 4, ["classification"])
    with pytest.raises(ValueError, match=said):
        train(store, out=str(tmp_path / "run"), **options(**wrong))
    assert not (tmp_path / "run").exists()
    for name in ("sync_batch_norm", "shard"):
        with pytest.raises(ValueError, match=f"{name} and freeze"):
            check_frozen(("backbone",), StudentHardware(**{name: True}))


def test_the_cost_of_a_run_includes_its_teachers(tmp_path):
    store = world(tmp_path / "store", 8, ["normals"], name="people", info={"teacher": "people"})
    train(store, out=str(tmp_path / "teacher"), **options())
    own = json.loads((tmp_path / "teacher" / "train.json").read_text())["compute"]
    assert own["images"] == 6 * 4
    assert own["teachers"] == []
    pool = world(tmp_path / "pool", 6, [])
    label(pool, teachers={"angles": f"own:{tmp_path / 'teacher'}"}, device=["cpu"], progress=False)
    train(pool, out=str(tmp_path / "student"), **options())
    spent = json.loads((tmp_path / "student" / "train.json").read_text())["compute"]
    assert [(t["name"], t["images"]) for t in spent["teachers"]] == [("angles: training", 24), ("angles: labelling", 6)]
    assert spent["teachers"][0]["flops"] == own["flops"]
    # backward is about twice forward, so a labelled image costs about a third of one that is learned from
    assert 0.2 < spent["teachers"][1]["flops"] / 6 / (own["flops"] / 24) < 0.5
    # what it starts from counts too, once
    train(pool, out=str(tmp_path / "more"), init=str(tmp_path / "student"), **options())
    more = json.loads((tmp_path / "more" / "train.json").read_text())["compute"]["teachers"]
    assert [t["name"] for t in more] == ["angles: training", "angles: labelling", "start student: training"]
    assert more[2]["flops"] == spent["flops"]
    weights = tmp_path / "backbone.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), weights)
    train(pool, out=str(tmp_path / "third"), init=str(weights), **options())
    third = json.loads((tmp_path / "third" / "train.json").read_text())["compute"]["teachers"]
    assert third[2] == {
        "of": str(weights), "name": "backbone.safetensors: training", "images": None, "flops": None, "seconds": None
    }  # fmt: skip


def test_same_seed_same_weights_for_any_workers_and_another_seed_differs(tmp_path):
    store = world(tmp_path / "store")
    for run, more in {"a": {}, "b": {"workers": 2, "save_every": 100}, "c": {"seed": 1}}.items():
        assert train(store, out=str(tmp_path / run), **options(augment=5.0, **more)) == str(tmp_path / run)
    a, b, c = (weights_of(tmp_path / r) for r in "abc")
    assert a == b
    assert a != c
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")
    assert [x["step"] for x in log_of(tmp_path / "a")] == [1, 2, 3, 4, 5, 6]


def test_loss_goes_down_on_the_rendered_world(tmp_path, capsys):
    store = world(tmp_path / "store", 16)
    run = tmp_path / "run"
    train(
        (store,),
        out=str(run),
        **options(steps=40, optimizer="adamw", lr=3e-3, scale=(1.0, 1.0), weights="equal", save_every=100),
    )
    log = log_of(run)
    for name in log[0]["losses"]:
        first, last = (sum(x["losses"][name] for x in part) / 8 for part in (log[:8], log[-8:]))
        assert last < first, name
    assert {n.split("_")[0] for n in log[0]["losses"]} == set(seen_tasks())
    student = load_student(run)
    assert set(student.objectives) == set(log[0]["losses"])
    answer = student.answer([render(random_scene(0, (48, 64))).image], (64, 64))[0]
    assert set(answer) == set(student.objectives)
    about = json.loads((run / "student.json").read_text())
    assert (about["learning_rate"], about["batch_size"], about["size"]) == (3e-3, 4, [64, 64])
    assert "CC0" in about["licence"]
    said = capsys.readouterr().err
    assert "classification_oracle: 1 (equal); 16 images" in said


def test_finished_runs_and_other_folders_are_not_touched(tmp_path):
    store = world(tmp_path / "store", 4, ["classification"])
    run = tmp_path / "run"
    train(store, out=str(run), **options(steps=1))
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    with pytest.raises(ValueError, match="holds a finished run"):
        train(store, out=str(run), **options(steps=1))
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    with pytest.raises(ValueError, match="exists and is no run"):
        train(store, out=store, **options(steps=1))


def test_an_unfinished_run_goes_on_only_as_it_was_started(tmp_path):
    store = world(tmp_path / "store", 4, ["classification"])
    run = tmp_path / "run"
    train(store, out=str(run), **options(steps=3, lr=0.01))
    whole = weights_of(run)
    (run / "train.json").unlink()
    for changed, said in [
        ({"lr": 0.02}, "lr was 0.01, is 0.02"),
        ({"lr": 0.01, "score": 0.6}, "score was 0.5, is 0.6"),
        ({"lr": 0.01, "weights": {"classification_oracle": 2.0}}, "weights was 'rule'"),
    ]:
        with pytest.raises(ValueError, match=said):
            train(store, out=str(run), **options(steps=3, **changed))
    train(store, out=str(run), **options(steps=3, lr=0.01, save_every=50, workers=1))
    assert weights_of(run) == whole
    (run / "train.json").unlink()
    space = Space(NAMES, load_task("classification").kinds[0])
    Store.open(store).create_set("classification", "zebra", space, {}).write(0, list("0123"), [None] * 4)
    with pytest.raises(ValueError, match=r"the stores have changed since then \(sets\)"):
        train(store, out=str(run), **options(steps=3, lr=0.01))
    train(store, out=str(tmp_path / "new"), **options(steps=3, lr=0.01))
    assert weights_of(tmp_path / "new") == whole  # absent answers change nothing


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 100}, "size must be a multiple of 32; got 100"),
        ({"optimizer": "lion"}, r"unknown optimizer 'lion'; there are sgd, adamw$"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; there are fp32, fp16, bf16"),
        ({"device": "gpu"}, "device 'gpu'"),
        ({"epochs": 1.0}, "give steps or epochs, not both"),
        ({"scale": (2.0, 1.0)}, "scale must be LOW HIGH"),
        ({"weights": "best"}, "weights 'best' is neither one of rule, equal, learned"),
        ({"weights": "a=1"}, "unknown objective 'a'; weights of this training are for classification_oracle"),
        ({"weights": {"classification_oracle": -1.0}}, "must be finite and 0 or more"),
        ({"backbone": "resnet81"}, "unknown backbone"),
        ({"augment": 11.0}, "augment must be 0 to 10"),
        ({"nesterov": True, "optimizer": "adamw"}, "nesterov is for optimizer sgd"),
        ({"ema": 1.0}, "ema must be 0 or more and below 1"),
        ({"labels": ("people",)}, "unknown label set 'people'; the stores have oracle"),
        ({"init": "/nowhere"}, "init '/nowhere'"),
    ],
)
def test_wrong_options_say_what_is_allowed_and_leave_nothing(tmp_path, wrong, said):
    store = world(tmp_path / "store", 4, ["classification"])
    with pytest.raises(ValueError, match=said):
        train(store, out=str(tmp_path / "run"), **options(**wrong))
    assert not (tmp_path / "run").exists()


def test_stores_are_checked(tmp_path):
    store = world(tmp_path / "store", 4, ["classification"])
    with pytest.raises(ValueError, match="is given twice"):
        train((store, store), out=str(tmp_path / "run"), **options())
    with pytest.raises(ValueError, match="no store given"):
        train((), out=str(tmp_path / "run"), **options())
    with pytest.raises(ValueError, match="is not a store"):
        train(str(tmp_path), out=str(tmp_path / "run"), **options())


def test_two_stores_epochs_and_rejects(tmp_path):
    stores = (world(tmp_path / "1", 4, ["classification"]), world(tmp_path / "2", 6, ["classification"], first=50))
    third = Store.create(tmp_path / "3", 4)
    third.write_images(0, [ImageRow("junk", 48, 64, b"no picture")])
    space = Space(NAMES, load_task("classification").kinds[0])
    truth = load_task("classification").truth(render(random_scene(0)), space)
    third.create_set("classification", "oracle", space, {}).write(0, ["junk"], [truth])
    run = tmp_path / "run"
    train((*stores, str(tmp_path / "3")), out=str(run), **options(steps=None, epochs=2.0, batch_size=5))
    assert len(log_of(run)) == 5  # 2 epochs of 11 images in batches of 5, rounded up
    rejects = [json.loads(x) for x in (run / "rejects.jsonl").read_text().splitlines()]
    assert [(r["id"], r["part"], r["store"]) for r in rejects] == [("junk", 0, str(tmp_path / "3"))]
    config = json.loads((run / "config.json").read_text())
    assert config["data"]["labelled"] == {"classification_oracle": 11}
    assert config["options"]["lr"] == 0.32 * 5 / 256


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_train_and_resume(tmp_path, precision):
    store = world(tmp_path / "store", 8)
    more = {"precision": precision, "steps": 6, "channels_last": True, "save_every": 1}
    for run in ("a", "b"):
        train(store, out=str(tmp_path / run), **options(**more))
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
    log = log_of(tmp_path / "a")
    assert all(math.isfinite(x["loss"]) for x in log)
    assert log[-1]["gradient_norm"] is not None  # fp16's scaler has found its scale
    (tmp_path / "b" / "train.json").unlink()
    newest = latest(tmp_path / "b" / "checkpoints")
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    train(store, out=str(tmp_path / "b"), **options(**more))
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")


def test_starts_from_another_run_and_learns_a_teacher_of_one_task(tmp_path):
    store = world(tmp_path / "store", 4)
    first = tmp_path / "first"
    train(store, out=str(first), **options(steps=1))
    run = tmp_path / "run"
    train(store, out=str(run), tasks=("classification",), init=str(first), **options(steps=1, lr=1e-12, ema=0.0))
    a, b = load_file(first / "student.safetensors"), load_file(run / "student.safetensors")
    assert {k.split(".")[1] for k in b if k.startswith("heads.")} == {"classification_oracle"}
    for k in b:
        if not any(x in k for x in ("running_", "num_batches")):
            torch.testing.assert_close(a[k], b[k])
    assert json.loads((run / "config.json").read_text())["init_sha256"]


# ---- counting, and what comes after the last step ----


def test_operations_are_counted_on_two_images_and_a_run_that_died_there_goes_on(tmp_path, monkeypatch):
    store, run = world(tmp_path / "store", 8, ["classification", "depth"]), tmp_path / "run"
    sizes, real = [], flops.step_flops

    def dies(model, images, targets):
        sizes.append(len(images))
        raise MemoryError("as of a batch that is too large to be counted")

    monkeypatch.setattr(flops, "step_flops", dies)
    with pytest.raises(MemoryError):
        train(store, out=str(run), **options(batch_size=6, steps=3))
    weights, log = weights_of(run), log_of(run)
    assert not (run / "train.json").exists()
    monkeypatch.setattr(flops, "step_flops", lambda *a: sizes.append(len(a[1])) or real(*a))
    train(store, out=str(run), **options(batch_size=6, steps=3))
    assert sizes == [2, 2]
    assert weights_of(run) == weights
    assert log_of(run) == log
    done = json.loads((run / "train.json").read_text())["compute"]
    assert done["images"] == 18
    assert done["flops"] > 0


def test_a_head_that_few_images_have_labels_for_costs_as_little(tmp_path):
    """Operations per image lie between those without it and those where all images have its labels."""
    few = Store.open(world(tmp_path / "some_labelled", 16, ["classification"]))
    task, space = load_task("depth"), Space(kind=load_task("depth").kinds[0])
    labels, truth = few.create_set("depth", "oracle", space, INFO), render(random_scene(9, (48, 64)))
    for part in few.parts():
        ids = [row.id for row in few.images(part)]
        labels.write(part, ids, [task.truth(truth, space) if i == "9" else None for i in ids])
    flops = {}
    for name, path, tasks in (
        ("none", few.path, ["classification"]), ("few", few.path, ()),
        ("all", world(tmp_path / "all_labelled", 16, ["classification", "depth"]), ()),
    ):  # fmt: skip
        train(path, out=tmp_path / name, tasks=tasks, **options(steps=1))
        flops[name] = json.loads((tmp_path / name / "train.json").read_text())["compute"]["flops"]
    # of 16 images that are looked at, the whole store, one has its labels
    assert flops["few"] == pytest.approx(flops["none"] + (flops["all"] - flops["none"]) / 16, rel=0.02)


# ---- memory: its layout, and until when it is held ----


def test_batches_of_workers_do_not_stay_in_shared_memory(tmp_path):
    """A step holds all of its passes, and there may be little of it."""
    chosen = plan([Store.open(world(tmp_path / "store", 4))])
    samples = Samples(chosen, Augment((64, 64)), Policy(), 0)
    here, there = (next(transport.batches(samples, 4, 0, 1, workers)) for workers in (0, 1))
    assert there.images.equal(here.images)
    tensors = [v for ts in there.targets.values() for t in ts for v in vars(t).values() if isinstance(v, torch.Tensor)]
    assert len(tensors) > 8
    assert not any(v.untyped_storage().is_shared() for v in [there.images, *tensors])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_in_another_memory_layout_goes_on_exactly(tmp_path, optimizer):
    """Of channels_last the optimiser's state has the layout too; a file has not."""
    store = world(tmp_path / "store", 8, ["classification", "depth"])
    more = options(channels_last=True, optimizer=optimizer, lr=1e-3, save_every=3, keep=9, warmup=0)
    for run in ("one", "two"):
        train(store, out=str(tmp_path / run), **more)
    two = tmp_path / "two"
    (two / "train.json").unlink()
    for file in (two / "checkpoints" / "step-000000006").iterdir():
        file.unlink()
    (two / "checkpoints" / "step-000000006").rmdir()
    train(store, out=str(two), **more)
    assert log_of(tmp_path / "one") == log_of(two)
    assert weights_of(tmp_path / "one") == weights_of(two)


class Event:
    """Of a copy to a device, as torch.cuda.Event tells of it."""

    def __init__(self):
        self.done = False

    def query(self):
        return self.done


def test_a_batch_is_held_until_its_copy_is_done():
    copies, events, seen = Copies(), [Event() for _ in range(4)], []
    for event in events[:3]:
        batch = next(stream(2)(0))
        seen.append(weakref.ref(batch))
        copies.hold(batch, event)
        del batch
    assert all(ref() is not None for ref in seen)
    events[0].done = events[2].done = True
    copies.hold(None, events[3])
    assert [ref() is None for ref in seen] == [True, False, False]  # copies are done in their order
    events[1].done = events[3].done = True
    copies.hold(None, events[3])
    assert all(ref() is None for ref in seen)


# ---- workers ----


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_without_shared_memory_is_an_error_that_says_what_to_do(tmp_path, monkeypatch, workers):
    store = world(tmp_path / "store", 8, ["depth"])

    def full(self):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_7>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)  # the workers are forks
    fewer = ", or fewer than 2" if workers == 2 else ""
    said = (
        rf"no room for a batch in shared memory \(/dev/shm, .* MiB free\); give --workers 0{fewer}, or make it larger"
    )
    with pytest.raises(ValueError, match=said):
        train(store, out=str(tmp_path / "run"), **options(workers=workers))
    train(store, out=str(tmp_path / "run"), **options(workers=0))


def test_a_worker_that_is_killed_or_silent_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    store, trainer = world(tmp_path / "store", 8, ["depth"]), os.getpid()
    real = Samples.__getitem__

    def dies(self, place):
        if os.getpid() != trainer and place >= 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, place)

    monkeypatch.setattr(Samples, "__getitem__", dies)
    with pytest.raises(ValueError, match=r"a data worker was killed \(DataLoader .*memory runs out; give --workers 0"):
        train(store, out=str(tmp_path / "run"), **options(workers=1))

    def sleeps(self, place):
        if os.getpid() != trainer and place >= 8:
            time.sleep(600)
        return real(self, place)

    monkeypatch.setattr(Samples, "__getitem__", sleeps)
    monkeypatch.setattr(transport, "PATIENCE", 3)
    with pytest.raises(ValueError, match=r"no batch came from the 1 data workers within 0\.05 minutes"):
        train(store, out=str(tmp_path / "run"), **options(workers=1))


def detections(path, images=10):
    """Photographs with people's boxes of the first, and two detectors': the first by name finds nothing."""
    store = Store.create(path, 4)
    names = ("cat", "dog", "cow")
    rows = [ImageRow(f"{i}", 32, 48, png(render(random_scene(i, (32, 48))).image)) for i in range(images)]

    def box(category, score):
        return DetectionTarget(
            box=torch.tensor([[4.0, 4, 20, 20]]), category=torch.tensor([category]), score=torch.tensor([score]),
            ignore=torch.tensor([False]),
        )  # fmt: skip

    dead, good = {"spec": "python:dead", "licence": "CC0"}, {"spec": "python:good", "licence": "MIT"}
    sets = {
        "aaa": ({"teacher": dead}, names, lambda i: box(i % 3, 0.1)),
        "good": ({"teacher": good}, names[::-1], lambda i: box(i % 3, 0.9)),
        "people": ({"teacher": "people"}, names, lambda i: None if i else box(0, 1.0)),
    }  # fmt: skip
    for part, start in enumerate(range(0, images, 4)):
        mine = rows[start : start + 4]
        store.write_images(part, mine)
        for name, (info, classes, answer) in sets.items():
            labels = store.create_set("detection", name, Space(classes, "boxes"), info)
            labels.write(part, [r.id for r in mine], [answer(int(r.id)) for r in mine])
    return str(path)


def test_what_each_label_set_teaches_is_said_before_and_recorded(tmp_path, capsys):
    store = detections(tmp_path / "store")
    train(store, out=str(tmp_path / "run"), **options(steps=1))
    said = capsys.readouterr().err
    assert "\n    1 by detection/people\n    9 by detection/aaa\n    0 by detection/good\n" in said
    assert (
        "WARNING: detection/good teaches detection_aaa nothing: its answer counts for no image, as people's and "
        "earlier sets win (detection/people, detection/aaa). Leave it out with --labels, put it first in "
        "--labels, or combine the teachers: --combine best or union" in said
    )
    assert (
        "WARNING: detection/aaa can teach detection_aaa hardly anything: images with no object: all 10 images that "
        "were looked at" in said
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [(s["name"], s["images"]) for s in config["data"]["sets"]] == [("people", 1), ("aaa", 9), ("good", 0)]
    student = json.loads((tmp_path / "run" / "student.json").read_text())
    assert student["licence"] == "learned from labels under CC0"  # the good one's labels were never learned from

    train(store, out=str(tmp_path / "best"), combine="best", **options(steps=1))
    assert "teaches detection_aaa nothing" not in capsys.readouterr().err
    assert "CC0, MIT" in json.loads((tmp_path / "best" / "student.json").read_text())["licence"]
    assert weights_of(tmp_path / "best") != weights_of(tmp_path / "run")


def test_heads_of_classes_that_are_spelled_otherwise_are_told_and_joined_by_the_table(tmp_path, capsys):
    store = Store.open(world(tmp_path / "store", 4, ["classification"]))
    truth = load_task("classification").truth(render(random_scene(0)), Space(NAMES))
    store.create_set("classification", "people", Space(("Reds", "green", "blue")), {"teacher": "people"}).write(
        0, list("0123"), [truth, None, None, None]
    )
    train(str(store.path), out=str(tmp_path / "apart"), **options(steps=1))
    said = capsys.readouterr().err
    assert "WARNING: classification/people and classification/oracle are two heads: their classes are the same" in said
    table = tmp_path / "names.yaml"
    table.write_text(said.partition("--map FILE:\n")[2].partition("\n\n")[0])
    assert yaml.safe_load(table.read_text()) == {"classification/oracle": {"red": "Reds"}}
    train(str(store.path), out=str(tmp_path / "run"), map=str(table), **options(steps=1))
    said = capsys.readouterr().err
    assert "two heads" not in said
    assert "1 by classification/people\n    3 by classification/oracle\n" in said
    objectives = json.loads((tmp_path / "run" / "student.json").read_text())["objectives"]
    assert [o["space"]["names"] for o in objectives.values()] == [["Reds", "green", "blue"]]
    (tmp_path / "run" / "train.json").unlink()
    table.write_text("red: Reds\n")
    with pytest.raises(ValueError, match="map"):  # what the file says is part of the run, not its name
        train(str(store.path), out=str(tmp_path / "run"), map=str(table), **options(steps=1))


def test_what_is_said_before_breaks_no_word_on_a_terminal(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    store = detections(tmp_path / "store")
    for width in (80, 40):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr("sys.stderr", said := Terminal())
        train(store, out=str(tmp_path / f"run{width}"), **options(steps=1))
        lines = said.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        whole = " ".join(said.getvalue().split())
        assert "its answer counts for no image, as people's and earlier sets win (detection/people, detec" in whole


def test_an_objective_without_an_object_is_refused_and_leaves_nothing(tmp_path):
    store = Store.open(world(tmp_path / "store", 4, ["classification"]))
    crowd = DetectionTarget(
        box=torch.tensor([[4.0, 4, 20, 20]]), category=torch.tensor([0]), score=torch.ones(1),
        ignore=torch.tensor([True]),
    )  # fmt: skip
    store.create_set("detection", "people", Space(NAMES, "boxes"), {"teacher": "people"}).write(
        0, list("0123"), [crowd] * 4
    )
    with pytest.raises(
        ValueError, match=r"nothing to be learned for detection_people \(of detection/people\): 4 images wi"
    ):
        train(str(store.path), out=str(tmp_path / "run"), **options(steps=1))
    assert not (tmp_path / "run").exists()


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """It recorded neither the options that came later nor how many images each label set teaches."""
    store = world(tmp_path / "store", 4, ["classification"])
    run = tmp_path / "run"
    train(store, out=str(run), **options(steps=3))
    whole, config = weights_of(run), json.loads((run / "config.json").read_text())
    (run / "train.json").unlink()
    for option in ("combine", "map", "allow_remote", "max_pixels"):
        del config["options"][option]
    for labels in config["data"]["sets"]:
        del labels["images"]
    (run / "config.json").write_text(json.dumps(config))
    train(store, out=str(run), **options(steps=3))
    assert weights_of(run) == whole
    (run / "train.json").unlink()
    config["data"]["sets"].append(config["data"]["sets"][0] | {"objective": "classification_oracle_2"})
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="label sets shared heads otherwise"):
        train(store, out=str(run), **options(steps=3))


def test_where_images_may_come_from_makes_no_other_training(tmp_path):
    store = world(tmp_path / "store", 4, ["classification"])
    run = tmp_path / "run"
    train(store, out=str(run), **options(steps=3))
    (run / "train.json").unlink()
    train(store, out=str(run), **options(steps=3, allow_remote=("https", "http://10.0.0.5:8000/")))
    (run / "train.json").unlink()
    with pytest.raises(ValueError, match="max_pixels was 100000000, is 1000"):
        train(store, out=str(run), **options(steps=3, max_pixels=1000))
    with pytest.raises(ValueError, match="allow_remote: 's3' is"):
        train(store, out=str(run), **options(steps=3, allow_remote="s3"))


def test_paths_and_single_names_from_python(tmp_path):
    path = Path(world(tmp_path / "store", 4, ["classification", "depth"]))
    out = train(path, out=tmp_path / "a", tasks="classification", labels="oracle", **options(steps=1))
    assert out == str(tmp_path / "a")
    with pytest.raises(ValueError, match="no image has split 'train'"):
        train(path, out=tmp_path / "c", split="train", **options(steps=1))
    train([path], out=tmp_path / "b", tasks=["classification"], init=tmp_path / "a", **options(steps=1))
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["options"]["stores"] == [str(path)]
    assert config["options"]["init"] == str(tmp_path / "a")
    assert list(config["data"]["labelled"]) == ["classification_oracle"]


# ---- killed and resumed ----


def killed_until_done(tmp_path, kills, **more):
    """Train undisturbed, then again with SIGKILL at random moments; both runs."""
    store = world(tmp_path / "store")
    one, other, errors = tmp_path / "one", tmp_path / "other", tmp_path / "errors"
    start = time.monotonic()
    train(store, out=str(one), **options(**more))
    span = time.monotonic() - start
    draw = random.Random(7)
    parts = draw.sample(range(kills), kills)
    done = 0
    for tried in range(20 * kills):
        if done == kills:
            break
        pid = forked(lambda: train(store, out=str(other), **options(**more)), errors)
        # one in every part of the time: in few draws early and late moments would be missing
        time.sleep((parts[tried % kills] + draw.random()) / kills * 0.6 * span)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, errors.read_text()
        done += os.WIFSIGNALED(status)
        if (other / "train.json").exists() and done < kills:  # finished before the signal: once more from the start
            other.rename(tmp_path / f"early{time.monotonic_ns()}")
    assert done == kills
    if not (other / "train.json").exists():
        pid = forked(lambda: train(store, out=str(other), **options(**more)), errors)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, errors.read_text()
    return one, other


def compare(one, other):
    assert weights_of(one) == weights_of(other)
    assert log_of(one) == log_of(other)
    assert len(list((other / "checkpoints").glob("*"))) == 2
    assert not [p for p in other.iterdir() if p.name.endswith(".tmp")]


def test_killed_at_random_moments_ends_in_the_same_weights(tmp_path):
    compare(*killed_until_done(tmp_path, 4, steps=8, save_every=1, accumulate=2, batch_size=2, weights="learned"))


def test_a_folder_has_one_training_at_a_time(tmp_path):
    store, run = world(tmp_path / "store"), tmp_path / "run"
    more = options(steps=20, workers=1)
    pid = forked(lambda: train(store, out=str(run), **more), tmp_path / "errors")
    while not (run / "log.jsonl").exists() or not (run / "log.jsonl").read_text():
        time.sleep(0.01)
    os.kill(pid, signal.SIGSTOP)
    wrote = (run / "log.jsonl").read_text()
    with pytest.raises(BlockingIOError, match=rf"run: process {pid} on .* trains there; wait for it or stop it"):
        train(store, out=str(run), **more)
    assert (run / "log.jsonl").read_text() == wrote
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    train(store, out=str(run), **more)  # at once: what is left of the other, its data workers, holds nothing
    assert len(log_of(run)) == 20


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "workers"), [("sgd", 0), ("adamw", 2)])
def test_killed_eight_times(tmp_path, optimizer, workers):
    more = {"steps": 14, "save_every": 2, "optimizer": optimizer, "workers": workers, "augment": 5.0}
    compare(*killed_until_done(tmp_path, 8, **more))


@pytest.mark.slow
def test_workers_end_when_the_trainer_is_killed(tmp_path):
    store = world(tmp_path / "store")
    run = tmp_path / "run"
    pid = forked(lambda: train(store, out=str(run), **options(steps=10000, workers=2)), tmp_path / "errors")
    while not (run / "log.jsonl").exists() or (run / "log.jsonl").read_text().count("\n") < 20:
        time.sleep(0.01)
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        workers = f.read().split()
    assert len(workers) >= 2
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    patience = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{w}") for w in workers):
        assert time.monotonic() < patience, f"workers {workers} outlive the trainer"
        time.sleep(0.1)


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGTERM, 2)])
def test_signals_leave_a_checkpoint_and_the_same_command_goes_on(tmp_path, number, workers):
    """With workers to all processes of its group, as schedulers and `timeout` send it."""
    store = world(tmp_path / "store", 8, ["classification"])
    more = options(steps=40, save_every=1000)
    train(store, out=str(tmp_path / "one"), **more)
    run = tmp_path / "run"

    def work():
        os.setpgrp()
        train(store, out=str(run), **more | {"workers": workers})

    pid = forked(work, tmp_path / "errors")
    while not (run / "log.jsonl").exists() or (run / "log.jsonl").read_text().count("\n") < 2:
        time.sleep(0.005)
    os.killpg(pid, number)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130, (tmp_path / "errors").read_text()
    said = (tmp_path / "errors").read_text()
    assert f"{signal.Signals(number).name}: checkpoint of step" in said
    assert latest(run / "checkpoints") is not None
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(store, out=str(run), **more)
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert weights_of(run) == weights_of(tmp_path / "one")


# ---- weights of losses ----


def taught(path, teachers):
    """A plan of one objective for every teacher: its name -> what its label set says of it."""
    store = Store.create(path, 4)
    picture = png(torch.zeros(3, 16, 16, dtype=torch.uint8))
    store.write_images(0, [ImageRow("0", 16, 16, picture)])
    task = load_task("classification")
    for name, teacher in teachers.items():
        space = Space((*NAMES, name), task.kinds[0])
        truth = task.truth(render(random_scene(0)), space)
        store.create_set("classification", name, space, {"teacher": teacher}).write(0, ["0"], [truth])
    return plan([store])


def ruled(chosen, *words):
    """Weights and reasons by the teacher's name."""
    values, reasons = loss_weights(chosen, *words)
    short = {k: k.removeprefix("classification_") for k in values}
    return {short[k]: v for k, v in values.items()}, {short[k]: v for k, v in reasons.items()}


def test_rule_against_hand_computation(tmp_path):
    """w = b_s * lr_i / (b_i * lr_s): a teacher of lr 0.1 at batch 32 for a student of lr 0.4 at batch 64 gives 0.5."""
    half = {"learning_rate": 0.1, "batch_size": None, "optimizer": "sgd"}
    teachers = {"good": TRAINED, "half": half, "none": {"spec": "timm:x"}, "people": "people"}
    chosen = taught(tmp_path / "s", teachers)
    values, reasons = ruled(chosen, "rule", 0.4, 64, "sgd")
    assert values == {"good": pytest.approx(0.5), "half": 1.0, "none": 1.0, "people": 1.0}
    assert reasons["good"] == "rule: teacher good has lr 0.1, batch 32"
    c = "classification_"
    assert f"sweep it with --weights {c}none=" in reasons["none"]
    assert "people" in reasons["people"]
    # a weight that is given leaves the rule for the others
    values, reasons = ruled(chosen, f"{c}none=0.25,{c}half=2", 0.4, 64, "sgd")
    assert [values[k] for k in ("good", "half", "none")] == [pytest.approx(0.5), 2.0, 0.25]
    assert set(loss_weights(chosen, "equal", 0.4, 64, "sgd")[0].values()) == {1.0}


def test_the_rule_compares_learning_rates_of_one_optimiser_alone(tmp_path):
    adam = {"learning_rate": 3e-4, "batch_size": 64, "optimizer": "adamw"}
    unknown = {k: v for k, v in TRAINED.items() if k != "optimizer"}
    chosen = taught(
        tmp_path / "s", {"sgd": TRAINED, "adam": adam, "unknown": unknown, "quick": adam | {"batch_size": 16}}
    )
    values, reasons = ruled(chosen, "rule", 0.4, 64, "sgd")
    assert values == {"sgd": pytest.approx(0.5), "adam": 1.0, "unknown": 1.0, "quick": 1.0}
    assert "teacher adam has lr 0.0003 of adamw, which says nothing of sgd's; sweep it" in reasons["adam"]
    assert "lr 0.1 of an optimizer that it does not record, which says nothing of sgd's" in reasons["unknown"]
    # AdamW: by hand 64 * 3e-4 / (64 * 1e-3) = 0.3 and 1.2; their ratio stays, their mean is 1, as the others weigh
    values, reasons = ruled(chosen, "rule", 1e-3, 64, "adamw")
    assert values == {"sgd": 1.0, "adam": pytest.approx(0.4), "unknown": 1.0, "quick": pytest.approx(1.6)}
    assert reasons["quick"] == "rule: teacher quick has lr 0.0003, batch 16; divided by the mean of the rule's, 0.75"
    # what all losses are multiplied with does not matter to AdamW, so neither does the student's own rate or batch
    assert ruled(chosen, "rule", 1e-5, 4096, "adamw")[0] == pytest.approx(values)
    alone = taught(tmp_path / "t", {"adam": adam})
    assert ruled(alone, "rule", 1e-5, 4096, "adamw")[0] == {"adam": pytest.approx(1.0)}


def test_the_rule_does_not_ask_a_teacher_whose_answers_count_for_no_image(tmp_path):
    """Both answer the same images, so that the first alone is learned from."""
    store = Store.open(world(tmp_path / "s", 4, ["classification"], name="first", info={"teacher": {"spec": "timm:x"}}))
    (labels,) = store.sets()
    second = store.create_set("classification", "second", labels.space, {"teacher": TRAINED})
    for part in store.parts():
        second.write(part, labels.ids(part), labels.read(part))
    values, reasons = loss_weights(plan([store]), "rule", 0.4, 64, "sgd")
    assert values == {"classification_first": 1.0}
    assert "records no lr" in reasons["classification_first"]
    values, reasons = loss_weights(plan([store], labels=["second", "first"]), "rule", 0.4, 64, "sgd")
    assert values == {"classification_second": pytest.approx(0.5)}
    assert reasons["classification_second"] == "rule: teacher second has lr 0.1, batch 32"


def test_a_run_says_how_it_was_trained_and_as_a_teacher_is_compared(tmp_path, capsys):
    store = world(tmp_path / "store", 4, ["normals"], name="people", info={"teacher": "people"})
    train(store, out=str(tmp_path / "teacher"), **options(steps=1, optimizer="adamw", lr=1e-3, accumulate=2))
    assert json.loads((tmp_path / "teacher" / "student.json").read_text())["optimizer"] == "adamw"
    pool = world(tmp_path / "pool", 4, [])
    label(pool, teachers={"angles": f"own:{tmp_path / 'teacher'}"}, device=["cpu"], progress=False)
    (labels,) = Store.open(pool).sets()
    about = labels.info["teacher"]
    assert (about["optimizer"], about["batch_size"]) == ("adamw", 8)
    capsys.readouterr()
    train(pool, out=str(tmp_path / "other"), **options(steps=1))
    assert "normals_angles: 1 (teacher angles has lr 0.001 of adamw, which says nothing" in capsys.readouterr().err
    # of a run that was made before student.json said so, the options do
    description = tmp_path / "teacher" / "student.json"
    old = json.loads(description.read_text())
    del old["optimizer"]
    description.write_text(json.dumps(old))
    assert load_teacher(f"own:{tmp_path / 'teacher'}").optimizer == "adamw"


def test_weights_on_the_command_line():
    assert weight_pairs(["rule"]) == "rule"
    assert weight_pairs(["a=1,b=0.5", "c=2e-1"]) == {"a": 1.0, "b": 0.5, "c": 0.2}
    for wrong in (["a=x"], ["=1"], ["a=1", "b"]):
        with pytest.raises(ValueError, match="NAME=NUMBER"):
            weight_pairs(wrong)


@pytest.mark.parametrize(("passes", "whole"), [({}, 4), ({"accumulate": 3}, 12)])
def test_the_rule_steps_each_head_with_its_teachers_rate(tmp_path, capsys, passes, whole):
    """One plain SGD step of a head moves it by lr_i * b_s / b_i times the gradient of its own loss."""
    store = world(tmp_path / "store", 4, ["classification"])
    moved = {}
    for run, weights in {"rule": "rule", "equal": "equal"}.items():
        more = options(steps=1, lr=0.01, warmup=0, clip=0.0, ema=0.0, weight_decay=0.0, weights=weights)
        train(store, out=str(tmp_path / run), **more, **passes)
        moved[run] = load_file(tmp_path / run / "student.safetensors")["heads.classification_oracle.out.weight"]
    train(store, out=str(tmp_path / "still"), **options(steps=1, lr=1e-30, weights="equal"), **passes)
    start = load_file(tmp_path / "still" / "student.safetensors")["heads.classification_oracle.out.weight"]
    expected = whole * 0.1 / (32 * 0.01)  # 1.25 for a batch of 4
    torch.testing.assert_close(moved["rule"] - start, expected * (moved["equal"] - start), rtol=1e-3, atol=1e-7)
    assert f"classification_oracle: {expected:g} (rule: teacher oracle has lr 0.1, batch 32)" in capsys.readouterr().err


def test_the_rule_counts_the_batch_of_the_step_not_of_a_pass(tmp_path):
    """Two passes of 2 images make a step of 4, whose rate, weights and epochs are those of one pass of 4."""
    store = world(tmp_path / "store", 8, ["classification"])
    for run, more in {"two": {"batch_size": 2, "accumulate": 2}, "one": {"batch_size": 4}}.items():
        train(store, out=str(tmp_path / run), **options(steps=None, epochs=3.0, **more))
        config = json.loads((tmp_path / run / "config.json").read_text())
        lr = 0.32 * 4 / 256
        assert config["options"]["lr"] == pytest.approx(lr)
        assert config["options"]["steps"] == 6
        assert config["loss_weights"] == {"classification_oracle": pytest.approx(4 * 0.1 / (32 * lr))}
        about = json.loads((tmp_path / run / "student.json").read_text())  # what its own students will reckon with
        assert (about["batch_size"], about["learning_rate"]) == (4, pytest.approx(lr))
        assert json.loads((tmp_path / run / "train.json").read_text())["compute"]["images"] == 24
        assert [x["images"] for x in log_of(tmp_path / run)] == [4] * 6


def test_learned_weights_learn_towards_their_optimum(tmp_path):
    """With constant losses, exp(-s) L + s / 2 is least where exp(-s) = 1 / (2 L)."""
    mixture = Mixture({"a": 1.0, "b": 1.0}, learned=True)
    losses = {"a": torch.tensor(4.0), "b": torch.tensor(0.1)}
    optimizer = torch.optim.Adam(mixture.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        mixture(losses).backward()
        optimizer.step()
    assert mixture.effective() == {"a": pytest.approx(1 / 8, rel=1e-2), "b": pytest.approx(5, rel=1e-2)}
    assert float(mixture({"a": losses["a"]}).detach()) == pytest.approx(0.5 + math.log(8) / 2, rel=1e-3)
    store = world(tmp_path / "store", 4)
    train(store, out=str(tmp_path / "run"), **options(steps=5, weights="learned"))
    log = log_of(tmp_path / "run")
    assert set(log[0]["weights"]) == set(log[0]["losses"])
    assert all(w != 1 for w in log[-1]["weights"].values())
    about = json.loads((tmp_path / "run" / "student.json").read_text())
    assert about["weights"] == log[-1]["weights"]


def test_a_fixed_mixture_is_the_weighted_sum_of_what_is_there():
    mixture = Mixture({"a": 0.5, "b": 3.0})
    losses = {"a": torch.tensor(4.0), "b": torch.tensor(2.0)}
    assert float(mixture(losses)) == 8
    assert float(mixture({"b": losses["b"]})) == 6
    assert not list(mixture.parameters())


# ---- the loop, with a model small enough to compute by hand ----


class Line(nn.Module):
    """loss of "x" (and "y") per image: (w . mean colour - number)^2, averaged over the images that carry it."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[0.5, -0.25, 0.125]]))
        self.other = nn.Parameter(torch.ones(1, 1))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images, targets):
        self.count += 1
        with torch.no_grad():
            self.mean.copy_(images.float().mean())
        colour = images.float().mean((2, 3)) / 255
        out = {}
        for name, numbers in targets.items():
            here = [i for i, t in enumerate(numbers) if t is not None]
            if here:
                y = torch.tensor([float(numbers[i].probability[0]) for i in here])
                scale = self.other[0, 0] if name == "y" else 1
                out[name] = ((colour[here] @ self.w[0] * scale - y) ** 2).mean()
        return out


def stream(size, seed=0, absent=lambda k: False, poison=lambda k: False):
    """Batches of a fixed sequence of samples: number k in the sequence is the same whatever the batch size."""
    from polyteach.tasks.classification import ClassificationTarget

    def sample(k):
        g = torch.Generator().manual_seed(1000 * seed + k)
        y = torch.rand(1, generator=g) if not poison(k) else torch.tensor([math.nan])
        target = ClassificationTarget(probability=y)
        image = torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8, generator=g)
        return image, {"x": target, "y": None if absent(k) else target}

    def batches(start):
        k = start * size
        while True:
            got = [sample(i) for i in range(k, k + size)]
            targets = {n: [t[n] for _, t in got] for n in ("x", "y")}
            yield Batch(torch.stack([i for i, _ in got]), targets, [f"image{i}" for i in range(k, k + size)])
            k += size

    return batches


BOTH = Mixture({"x": 1.0, "y": 1.0})


def fitted(tmp_path, name, batches, **more):
    model = Line()
    settings = Settings(**{"steps": 6, "lr": 0.1, "progress": False, "weight_decay": 0.0} | more)
    fit(model, BOTH, batches, settings, tmp_path / name)
    return model


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_accumulation_equals_the_whole_batch(tmp_path, optimizer):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a = fitted(tmp_path, "a", stream(8), optimizer=optimizer, clip=0.05)
    b = fitted(tmp_path, "b", stream(4), optimizer=optimizer, clip=0.05, accumulate=2)
    torch.testing.assert_close(a.w, b.w, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(a.w, Line().w, atol=1e-3)
    one, two = log_of(tmp_path / "a"), log_of(tmp_path / "b")
    assert [x["losses"]["x"] for x in one] == pytest.approx([x["losses"]["x"] for x in two], rel=1e-5)
    assert {x["images"] for x in one + two} == {8}


@pytest.mark.parametrize("learned", [False, True])
def test_a_label_counts_alike_wherever_it_is(tmp_path, learned):
    """Of 16 images one, then five and no image of a pass, have a label "y": as one batch, and as passes of any size."""
    results = []
    for name, size in (("a", 16), ("b", 4), ("c", 1)):
        (tmp_path / name).mkdir()
        mixture, model = Mixture({"x": 1.0, "y": 0.5}, learned=learned), Line()
        few = stream(size, absent=lambda k: k not in (3, 16, 18, 23, 29, 30))
        more = {"steps": 3, "lr": 0.1, "progress": False, "weight_decay": 0.0, "accumulate": 16 // size}
        fit(model, mixture, few, Settings(**more), tmp_path / name)
        results.append((model, mixture, log_of(tmp_path / name)))
    (whole, weighed, log), *others = results
    assert [sorted(x["losses"]) for x in log] == [["x", "y"], ["x", "y"], ["x"]]
    assert not torch.allclose(whole.other, Line().other, atol=1e-3)
    for model, mixture, lines in others:
        torch.testing.assert_close(model.w, whole.w, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(model.other, whole.other, rtol=1e-5, atol=1e-7)
        assert mixture.effective() == pytest.approx(weighed.effective(), rel=1e-5)
        for x, y in zip(lines, log, strict=True):
            assert x["losses"] == pytest.approx(y["losses"], rel=1e-5)
            assert x["loss"] == pytest.approx(y["loss"], rel=1e-5)
            assert x["gradient_norm"] == pytest.approx(y["gradient_norm"], rel=1e-4)


@every_case
@pytest.mark.parametrize("some", [(0,), (0, 5, 6, 15)])
def test_sixteen_passes_of_one_image_are_one_of_sixteen(tmp_path, case, some):
    """For every task: a network without batch normalisation makes the same step, few images being labelled."""
    size = (64, 64)
    renders = [render(random_scene(i, size, len(case.space.names))) for i in range(16)]
    views = [View(size, 0, 7 * i, *size, size) for i in range(16)]  # of which more or less is known
    targets = [
        case.task.view(answer_to(case.task, r, case.space), v) if i in some else None
        for i, (r, v) in enumerate(zip(renders, views, strict=True))
    ]
    sampled = hasattr(targets[0], "box")
    if sampled:  # which regions are drawn depends on the pass: only of the first one they are the same
        targets = [None if t is None or i not in some[:1] else t for i, t in enumerate(targets)]

    def batches(count):
        def start(first):
            for k in range(first * count, 16, count):
                images = torch.stack([r.image for r in renders[k : k + count]])
                yield Batch(images, {"head": targets[k : k + count]}, [str(i) for i in range(k, k + count)])

        return start

    states = []
    for name, count in (("one", 16), ("many", 1)):
        (tmp_path / name).mkdir()
        torch.manual_seed(1)
        student = Student("test_convnext", {"head": Objective(case.name, case.space)}, 8)
        before = {k: v.clone() for k, v in student.state_dict().items()}
        more = Settings(steps=1, lr=1e-2, weight_decay=0.0, accumulate=16 // count, progress=False)
        fit(student, Mixture({"head": 1.0}), batches(count), more, tmp_path / name, amounts=student.amounts)
        states.append({k: v - before[k] for k, v in student.state_dict().items() if v.is_floating_point()})
    one, many = states
    assert sum(float(v.abs().sum()) for k, v in one.items() if k.startswith("heads.")) > 0
    largest = max(float(v.abs().max()) for v in one.values())
    for k, v in one.items():
        torch.testing.assert_close(many[k], v, rtol=1e-2, atol=1e-3 * largest, msg=k)
    losses = [log_of(tmp_path / n)[0]["losses"]["head"] for n in ("one", "many")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_outlines_weigh_as_much_beside_images_without_objects(tmp_path):
    """Of 16 images one has an object, with its outline; the mask loss is a mean over that one, whoever has it."""
    task, space = load_task("detection"), Space(NAMES, "boxes and masks")
    renders = [render(random_scene(i, (64, 64))) for i in range(16)]
    truths = [task.truth(r, space) for r in renders]
    targets = [truths[0], *(rows(t, torch.zeros(len(t.box), dtype=torch.bool)) for t in truths[1:])]
    moved = []
    for name, count in (("one", 16), ("many", 1)):
        (tmp_path / name).mkdir()
        torch.manual_seed(1)
        student = Student("test_convnext", {"d": Objective("detection", space)}, 8)
        masks = [p for k, p in student.named_parameters() if "mask_predictor" in k]
        before = [p.detach().clone() for p in masks]

        def batches(first, count=count):
            for k in range(first * count, 16, count):
                images = torch.stack([r.image for r in renders[k : k + count]])
                yield Batch(images, {"d": targets[k : k + count]}, [str(k)] * count)

        more = Settings(steps=1, lr=1e-2, weight_decay=0.0, accumulate=16 // count, progress=False)
        fit(student, Mixture({"d": 1.0}), batches, more, tmp_path / name, amounts=student.amounts)
        moved.append(torch.cat([(p.detach() - b).flatten() for p, b in zip(masks, before, strict=True)]).norm())
    assert 0.5 < float(moved[1] / moved[0]) < 2  # other regions are drawn; a sixteenth would be 0.06


def test_absent_labels_leave_their_parameters_alone(tmp_path):
    """Not even momentum or decay moves what no image of the run has a label for."""
    (tmp_path / "a").mkdir()
    model = fitted(tmp_path, "a", stream(4, absent=lambda k: True), weight_decay=0.1, optimizer="adamw")
    assert torch.equal(model.other, torch.ones(1, 1))
    assert all(list(x["losses"]) == ["x"] for x in log_of(tmp_path / "a"))


def test_a_batch_without_any_label_changes_nothing(tmp_path):
    (tmp_path / "a").mkdir()

    def nothing(start):
        for batch in stream(2)(start):
            yield Batch(batch.images, {"x": [None, None]}, batch.ids)

    model = fitted(tmp_path, "a", nothing)
    assert torch.equal(model.w, Line().w)


def test_momentum_and_schedule_by_hand(tmp_path):
    (tmp_path / "a").mkdir()
    model = fitted(tmp_path, "a", stream(4, absent=lambda k: True), steps=4, warmup=2, nesterov=True)
    by_hand = Line()
    optimizer = torch.optim.SGD([by_hand.w], lr=0.1, momentum=0.9, nesterov=True)
    batches = stream(4, absent=lambda k: True)(0)
    for lr in (0.05, 0.1, 0.1, 0.05):  # two of warm-up, then half a cosine sampled at 0 and pi/2
        optimizer.param_groups[0]["lr"] = lr
        batch = next(batches)
        optimizer.zero_grad()
        sum(by_hand(batch.images, batch.targets).values()).backward()
        optimizer.step()
    torch.testing.assert_close(model.w, by_hand.w)
    settings = Settings(steps=10, warmup=0, lr=2.0)
    assert [rate(i, settings) for i in (0, 5)] == [2.0, pytest.approx(1.0)]


def test_clipping_bounds_the_whole_gradient(tmp_path):
    """One plain step moves all weights together by the rate times the gradient's norm, or by the rate times `clip`."""
    moved = {}
    for clip in (0.0, 1e-3, 1e3):
        (tmp_path / f"{clip}").mkdir()
        model, start = fitted(tmp_path, f"{clip}", stream(4), steps=1, momentum=0.0, clip=clip), Line()
        pairs = zip(model.parameters(), start.parameters(), strict=True)
        moved[clip] = math.sqrt(sum(float((a - b).square().sum().detach()) for a, b in pairs))
    assert moved[1e-3] == pytest.approx(0.1 * 1e-3, rel=1e-2)
    assert moved[0.0] == moved[1e3] > 0.1 * 1e-2


def test_average_by_hand():
    model = Line()
    average = Average(model, 0.9)
    expected = 0.5
    for step in range(30):
        with torch.no_grad():
            model.w[0, 0] = float(step)
            model.count += 1
        average.update(model, step)
        d = min(0.9, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * step
    assert float(average.state["w"][0, 0]) == pytest.approx(expected, rel=1e-5)
    assert int(average.state["count"]) == 30


def test_the_averaged_weights_are_the_result(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    plain = fitted(tmp_path, "a", stream(4))
    averaged = fitted(tmp_path, "b", stream(4), ema=0.5)
    kept = load_file(latest(tmp_path / "b" / "checkpoints") / "average.safetensors")
    assert torch.equal(averaged.w, kept["w"])
    raw = load_file(latest(tmp_path / "b" / "checkpoints") / "model.safetensors")
    assert torch.equal(raw["w"], plain.w)
    assert not torch.equal(averaged.w, plain.w)


def test_a_loss_that_is_not_finite_stops_with_its_parts_and_images(tmp_path):
    (tmp_path / "a").mkdir()
    bad = stream(2, absent=lambda k: k == 9, poison=lambda k: k == 9)
    with pytest.raises(
        NonFinite, match=r"step 5: the loss is not finite: x=nan, y=0\.\d+.*images: image8, image9"
    ) as e:
        fitted(tmp_path, "a", bad, save_every=2)
    newest = latest(tmp_path / "a" / "checkpoints")
    assert newest.name == "step-000000004"
    assert str(newest) in str(e.value)
    assert all(v.isfinite().all() for v in load_file(newest / "model.safetensors").values())


def test_a_gradient_that_is_not_finite_stops(tmp_path):
    (tmp_path / "a").mkdir()

    class Root(Line):
        def forward(self, images, targets):
            return {"x": (self.w * 0).abs().sqrt().sum()}  # value 0, slope infinite times 0

    with pytest.raises(NonFinite, match="step 1: the gradient is not finite: x=0"):
        fit(Root(), BOTH, stream(2), Settings(steps=2, progress=False), tmp_path / "a")


def test_decay_spares_norms_and_biases(tmp_path):
    from polyteach.training.loop import _optimizer

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    for optimizer in ("sgd", "adamw"):
        groups = _optimizer(
            list(model.parameters()), Settings(steps=1, optimizer=optimizer, weight_decay=0.3), lambda p: 1.0
        ).param_groups
        decays = {tuple(p.shape): g["weight_decay"] for g in groups for p in g["params"]}
        assert decays == {(4, 3, 3, 3): 0.3, (4,): 0.0}


def test_two_checkpoints_stay_and_a_torn_log_is_mended(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = fitted(tmp_path, "a", stream(4), steps=9, optimizer="adamw", ema=0.9, save_every=4)
    names = sorted(p.name for p in (tmp_path / "a" / "checkpoints").iterdir())
    assert names == ["step-000000008", "step-000000009"]
    # as if killed in the midst of step 9, after its line was half written, and of a checkpoint
    fitted(tmp_path, "b", stream(4), steps=9, optimizer="adamw", ema=0.9, save_every=4)
    last = tmp_path / "b" / "checkpoints" / "step-000000009"
    last.rename(last.with_name(".step-000000009.tmp"))
    text = (tmp_path / "b" / "log.jsonl").read_text()
    (tmp_path / "b" / "log.jsonl").write_text(text[:-40])
    again = fitted(tmp_path, "b", stream(4), steps=9, optimizer="adamw", ema=0.9, save_every=4)
    assert torch.equal(whole.w, again.w)
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


def _state(**said):
    """Let state.json say something else."""
    return lambda folder: (folder / "state.json").write_text(
        json.dumps(json.loads((folder / "state.json").read_text()) | said)
    )


def _tensors(file, **said):
    """Let a file of tensors hold others. said: dots are written as __; None: without it."""

    def change(folder):
        tensors = load_file(folder / f"{file}.safetensors") | {k.replace("__", "."): v for k, v in said.items()}
        save_file({k: v for k, v in tensors.items() if v is not None}, folder / f"{file}.safetensors")

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_state(step="4"), "step must be a whole number; it is '4'"),
        (_state(step=-1), "step must be at least 0"),
        (_state(seconds=None), "seconds must be a number; it is None"),
        (_state(optimizer={}), "optimizer must be a list"),
        (_state(optimizer=[["0", "step", 1]]), r"optimizer\[0\] must be a number of a parameter, a name and a number"),
        (_state(optimizer=[[7, "step", 1]]), "state is of parameter '7', and there are 2"),
        (lambda f: (f / "state.json").write_text("[]"), "the file must be an object"),
        (_tensors("model", w=None), "model lacks 'w': it is of another network"),
        (_tensors("model", w=torch.zeros(1, 4)), r"model: 'w' has shape \(1, 4\), not \(1, 3\)"),
        (_tensors("average", more=torch.zeros(1)), "average has 'more'"),
        (_tensors("rest", optimizer__9__exp_avg=torch.zeros(1)), "state is of parameter '9'"),
        (_tensors("rest", optimizer__x__exp_avg=torch.zeros(1)), "state is of parameter 'x'"),
        (_tensors("rest", optimizer__0__exp_avg=torch.zeros(2)), r"'exp_avg' has shape \(2,\), not \(1, 3\)"),
        (lambda f: (f / "model.safetensors").unlink(), "it has no model.safetensors"),
        (lambda f: (f / "average.safetensors").unlink(), "average lacks 'count'"),
    ],
)
def test_a_checkpoint_of_something_else_says_so(tmp_path, change, said):
    (tmp_path / "a").mkdir()
    settings = {"optimizer": "adamw", "ema": 0.9, "save_every": 2}
    fitted(tmp_path, "a", stream(4), steps=2, **settings)
    change(latest(tmp_path / "a" / "checkpoints"))
    with pytest.raises(ValueError, match=rf"step-000000002 is broken: .*{said}.*goes on from the one before"):
        fitted(tmp_path, "a", stream(4), steps=4, **settings)


def test_a_log_that_is_none_is_left_or_refused(tmp_path):
    (tmp_path / "a").mkdir()
    log = tmp_path / "a" / "log.jsonl"
    fitted(tmp_path, "a", stream(4), steps=2, save_every=2)
    whole = log.read_text()
    log.write_text(whole + '[]\n{"step": "3"}\n{"step": 1e400}\n' + "[" * 100_000 + "\n")
    fitted(tmp_path, "a", stream(4), steps=2, save_every=2)
    assert log.read_text() == whole  # lines that are none are forgotten when a training goes on
    assert [line.value["step"] for line in logged(log)] == [1, 2]
    for text, said in (
        ("", "is empty"),
        (whole + "{", "line 3 is no JSON"),
        (whole + "[" * 100_000, "line 3 is no JSON"),
        (whole + "3", "line 3 must be an object; it is 3"),
        (whole + '{"step": 3}', r"line 3\.seconds is missing"),
        (whole + '{"step": 3, "seconds": NaN}', r"line 3\.seconds must be finite"),
    ):
        log.write_text(text)
        with pytest.raises(ValueError, match=rf"log\.jsonl.*{said}.*Give another --out"):
            logged(log)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    real, calls = checkpoints.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) > 3:
            raise OSError(28, "No space left on device", str(path))
        real(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        fitted(tmp_path, "a", stream(2), save_every=2)
    assert [p.name for p in (tmp_path / "a" / "checkpoints").iterdir()] == ["step-000000002"]
    monkeypatch.undo()
    (tmp_path / "b").mkdir()
    assert torch.equal(fitted(tmp_path, "a", stream(2)).w, fitted(tmp_path, "b", stream(2)).w)


def slowed(monkeypatch, before):
    """Checkpoints whose every file is written after `before(path)`; returns the steps of those being written."""
    real, now, most = checkpoints.write, [], []

    def write(folder, step, *rest):
        now.append(step)
        most.append(len(now))
        before(folder.parent, step)
        real(folder, step, *rest)
        now.remove(step)

    monkeypatch.setattr(checkpoints, "write", write)
    return most


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """And what is written is the state as it was when it was taken, of model, average, momentum and mixture alike."""
    more = {"optimizer": "adamw", "ema": 0.9, "save_every": 3, "keep": 9, "steps": 7, "accumulate": 2}
    for name in "ab":
        (tmp_path / name).mkdir()
    quick = fitted(tmp_path, "a", stream(2), **more)

    def wait(run, step):
        deadline = time.monotonic() + 20
        while step < 6 and len(log_of(run)) < step + 3:  # the next checkpoint comes after that step, and waits
            assert time.monotonic() < deadline, "training waits for the checkpoint"
            time.sleep(0.01)

    most = slowed(monkeypatch, wait)
    slow = fitted(tmp_path, "b", stream(2), **more)
    assert most == [1, 1, 1]  # one at a time
    assert torch.equal(quick.w, slow.w)
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")
    names = [p.relative_to(tmp_path / "a") for p in sorted((tmp_path / "a" / "checkpoints").glob("*/*.safetensors"))]
    assert len(names) == 9
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_what_goes_wrong_in_writing_stops_the_training(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    began = threading.active_count()

    def full(run, step):
        raise OSError(28, "No space left on device")

    slowed(monkeypatch, full)
    with pytest.raises(OSError, match="No space left"):
        fitted(tmp_path, "a", stream(2), save_every=200, steps=1000)
    assert 200 <= len(log_of(tmp_path / "a")) < 400  # not only when the next one is due
    assert not list((tmp_path / "a" / "checkpoints").glob("*"))
    assert threading.active_count() == began


def test_a_signal_waits_for_the_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    slowed(monkeypatch, lambda run, step: time.sleep(0.3))

    def poke(start):
        for i, batch in enumerate(stream(2)(start), start + 1):
            if i == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with pytest.raises(Interrupted, match="SIGTERM: checkpoint of step 5 of 9"):
        fitted(tmp_path, "a", poke, save_every=4, steps=9)
    names = sorted(p.name for p in (tmp_path / "a" / "checkpoints").iterdir())
    assert names == ["step-000000004", "step-000000005"]


def test_as_many_checkpoints_stay_as_were_asked_for(tmp_path):
    for name, keep in (("a", 1), ("b", 4)):
        (tmp_path / name).mkdir()
        fitted(tmp_path, name, stream(2), save_every=1, keep=keep)
        steps = [int(p.name[5:]) for p in sorted((tmp_path / name / "checkpoints").iterdir())]
        assert steps == list(range(7 - keep, 7))
    with pytest.raises(ValueError, match="keep must be at least 1; got 0"):
        check(Settings(steps=1, keep=0))


def test_settings_of_torch_are_put_back(tmp_path):
    (tmp_path / "a").mkdir()
    before = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    fitted(tmp_path, "a", stream(2))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == torch.are_deterministic_algorithms_enabled()


def test_settings_are_checked():
    for wrong, said in [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"clip": -1.0}, "clip"),
    ]:
        with pytest.raises(ValueError, match=said):
            check(Settings(**{"steps": 1} | wrong))
