"""Predict: what is printed of each answer, what the exit status says, and what pictures say of an empty answer."""

import contextlib
import json
import math
import os
import re
import sys
from pathlib import Path

import pytest
import torch

import polyteach
from polyteach.__main__ import main
from polyteach.model.student import Student, save_student
from polyteach.store import Store
from polyteach.tasks import load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Policy, Space
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.normals import NormalsTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget
from polyteach.verbs.predict import predict
from tests.worlds import seen_tasks

NAMES = ("cat", "dog", "traffic light")


@pytest.fixture
def run(tmp_path):
    spaces = {"classification": Space(NAMES), "segmentation": Space(NAMES), "detection": Space(NAMES, "boxes")}
    objectives = {f"{t}_x": Objective(t, spaces.get(t, Space(kind=load_task(t).kinds[0]))) for t in seen_tasks()}
    save_student(Student("resnet18", objectives, 16), tmp_path / "run", {"size": [64, 64]})
    return str(tmp_path / "run"), list(objectives)


def test_every_answer_is_a_line(run, photographs, capsys):
    folder, objectives = run
    files = [str(photographs / f"{i}.png") for i in (2, 0)]
    assert main(["predict", folder, *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [[f, o] for f in files for o in objectives]
    assert all(line.split(": ", 2)[2] for line in lines)
    classes = next(line for line in lines if ": classification_x: " in line)
    answers = predict(folder, files, show=False, progress=False)
    best = int(answers[0]["classification_x"].probability.argmax())
    assert classes.startswith(f"{files[0]}: classification_x: {NAMES[best]} ")
    assert capsys.readouterr().out == ""


def test_json_is_an_object_a_line_that_says_what_the_targets_hold(run, photographs, capsys):
    folder, objectives = run
    broken = photographs / "broken.jpg"
    broken.write_bytes(b"no picture")
    answers = predict(folder, [str(photographs)], json=True, score=0.0, progress=False)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["image"] for one in said] == [*(str(photographs / f"{i}.png") for i in range(6)), str(broken)]
    assert said[-1] == {"image": str(broken), "error": "not an image, or of an unknown format"}
    for one, answer in zip(said[:-1], answers, strict=False):
        assert list(one["answers"]) == objectives
        found = answer["detection_x"]
        assert len(one["answers"]["detection_x"]["objects"]) == len(found.box)
        p = answer["classification_x"].probability.tolist()
        assert {c["class"]: c["probability"] for c in one["answers"]["classification_x"]["classes"]} == pytest.approx(
            dict(zip(NAMES, p, strict=True)), abs=1e-4
        )
        assert sum(c["share"] for c in one["answers"]["segmentation_x"]["classes"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ["/../../../escaped/pwn", "../pwn", "..", "/tmp/pwn", "x/../../pwn"])
def test_nothing_is_written_outside_of_out(run, photographs, tmp_path, monkeypatch, capsys, name):
    """By a run's names, nor, were they not looked at, by anything else that a picture is called after."""
    file = Path(run[0]) / "student.json"
    about = json.loads(file.read_text())
    about["objectives"] = {name: about["objectives"]["depth_x"]}
    file.write_text(json.dumps(about))
    (tmp_path / "safe").mkdir()
    before = sorted(tmp_path.rglob("*"))
    words = ["predict", run[0], str(photographs / "0.png"), "--out", str(tmp_path / "safe/out"), "--no-progress"]
    assert main(words) == 2
    assert "student.json: objective" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before

    from polyteach.labelling.keeper import Drawings

    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    target = DepthTarget(torch.ones(8, 8), torch.ones(8, 8, dtype=torch.bool))
    drawings = Drawings(tmp_path / "safe/out", {name: Objective("depth", Space((), "metric"))})
    with contextlib.suppress(ValueError):
        drawings.draw("0", image, {name: target})
    assert [f for f in tmp_path.rglob("*") if f not in before and tmp_path / "safe/out" not in (f, *f.parents)] == []


@pytest.mark.parametrize("bad", ["broken.jpg", "missing.jpg"])
def test_the_others_are_answered_and_the_status_is_one(run, photographs, capsys, bad):
    folder, objectives = run
    (photographs / "broken.jpg").write_bytes(b"no picture")
    words = ["predict", folder, str(photographs / bad), str(photographs / "0.png"), "--no-progress"]
    assert main(words) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == len(objectives)
    assert re.search(rf"{bad}: (not an image|no such image)", said.err)
    assert main(["predict", folder, str(photographs / bad), "--no-progress"]) == 1
    assert "none of 1 images could be read" in capsys.readouterr().err


def test_what_is_no_picture_costs_only_itself(run, photographs, tmp_path, capsys):
    """Pipes, devices, links to themselves, sparse files, and names that are none: each is told, without waiting."""
    os.mkfifo(photographs / "pipe.png")
    (photographs / "zero.png").symlink_to("/dev/zero")
    (photographs / "itself.png").symlink_to("itself.png")
    (photographs / "huge.png").touch()
    os.truncate(photographs / "huge.png", 8 * 10**12)
    bad = ["n" * 5000, "a\0b", "http://127.0.0.1/a.png", str(photographs / "pipe.png")]
    answers = predict(run[0], [photographs, *bad], out=tmp_path / "out", progress=False)
    assert [bool(a) for a in answers] == [True] * 6 + [False] * 7
    said = capsys.readouterr().err
    for text in (
        "pipe.png: cannot be read: not a regular file",
        "huge.png: cannot be read: 8,000,000,000,000 bytes, where",
        "itself.png: cannot be read: Too many levels of symbolic links",
        "nnn: cannot be read: File name too long",
        "a.png: no such image or folder",
    ):
        assert text in said
    store = Store.open(tmp_path / "out" / "store")
    assert len(store.rejects()) == 7
    assert store.picture(store.images(0)[0]) is not None
    again = predict(run[0], [photographs / "0.png"], max_pixels=48 * 64, progress=False, show=False)
    assert again[0]
    with pytest.raises(ValueError, match="is more than max_pixels=3071"):
        predict(run[0], [photographs / "0.png"], max_pixels=48 * 64 - 1, progress=False)


def test_an_empty_folder_is_an_error(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["predict", run[0], str(tmp_path / "empty")]) == 2
    assert f"no image in {tmp_path / 'empty'}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="score must be 0 to 1; got 2"):
        polyteach.predict(run[0], ["x.jpg"], score=2.0)


def test_an_empty_folder_beside_others_is_told_and_the_status_is_one(run, photographs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["predict", run[0], str(tmp_path / "empty"), str(photographs / "0.png"), "--no-progress"]) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == len(run[1])
    assert f"{tmp_path / 'empty'}: a folder without an image" in said.err


def test_paths_from_python(run, photographs, tmp_path, capsys):
    file, out = photographs / "0.png", tmp_path / "out"
    (one,) = predict(Path(run[0]), file, out=out, show=False, progress=False)
    (same,) = predict(run[0], [file], show=False, progress=False)
    assert list(one) == list(same) == run[1]
    config = json.loads((out / "predict.json").read_text())
    assert (config["run"], config["images"]) == (run[0], [str(file)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image in"):
        predict(run[0], [tmp_path / "empty"])


def test_a_name_that_is_no_utf8_stops_nothing(run, photographs, tmp_path, monkeypatch):
    import io
    import os

    odd = os.fsencode(str(photographs)) + b"/odd\xff.png"
    try:
        with open(odd, "wb") as file:
            file.write((photographs / "0.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    for words in ([], ["--json"]):
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # as a terminal, where such a text is an error
        monkeypatch.setattr(sys, "stdout", out)
        folder = str(tmp_path / f"out{len(words)}")
        assert main(["predict", run[0], str(photographs), "--no-progress", "--out", folder, *words]) == 0
        said = out.buffer.getvalue().decode().splitlines()
        assert len(said) == (7 if words else 7 * len(run[1]))
        assert sum("odd\\udcff.png" in line for line in said) == len(said) // 7
        store = Store.open(f"{folder}/store")
        assert len(store.images(0)) == 6
        (reject,) = store.rejects()
        assert reject[0].endswith("odd\\udcff.png")
        assert "its name is no UTF-8" in reject[2]


def test_json_has_null_for_what_is_no_number(run, photographs, monkeypatch, capsys):
    """As of a network that diverged."""
    monkeypatch.setattr(
        load_task("depth").__class__, "describe", lambda *_: ("", {"median": math.nan, "x": [math.inf]})
    )
    predict(run[0], [photographs / "0.png"], json=True, progress=False)

    def refused(name):
        raise AssertionError(f"{name} is no JSON")

    said = json.loads(capsys.readouterr().out, parse_constant=refused)
    assert said["answers"]["depth_x"] == {"median": None, "x": [None]}


def boxes(*scores):
    n = len(scores)
    box = torch.tensor([[1.0, 2.0, 31.0, 22.0]]).repeat(n, 1)
    category = torch.arange(n) % 3
    return DetectionTarget(box, category, torch.tensor(scores), torch.zeros(n, dtype=torch.bool), None)


def regions(*rows):
    category = torch.tensor(rows)
    return SegmentationTarget(category, torch.ones(category.shape))


def test_what_each_task_says():
    def said(task, target, kind="", score=0.5):
        return load_task(task).describe(target, Space(NAMES, kind), Policy(score=score))

    assert said("classification", ClassificationTarget(torch.tensor([0.2, 0.7, 0.1])))[0] == (
        "dog 70%, cat 20%, traffic light 10%"
    )
    assert said("detection", boxes(0.4, 0.9, 0.6))[0] == "dog 90% at 1 2 31 22; traffic light 60% at 1 2 31 22"
    assert said("detection", boxes(0.4), score=0.25)[0] == "cat 40% at 1 2 31 22"
    assert said("detection", boxes(0.4)) == ("no object of 50% or more", {"objects": []})
    assert said("segmentation", regions([2, 2, 2], [0, IGNORE, 0]))[0] == "traffic light 50%, cat 33%"
    assert said("segmentation", regions([IGNORE])) == ("all ignored", {"classes": []})
    metres = DepthTarget(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[True, True, True]]))
    assert said("depth", metres, "metric")[0] == "1 to 4, median 2 m"
    assert said("depth", metres, "relative inverse")[0].endswith("(relative, larger is nearer)")
    nowhere = DepthTarget(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool))
    assert said("depth", nowhere, "metric") == ("no depth known", {"kind": "metric", "valid": 0.0})
    # x right, y down, z away: a wall that faces the camera, three times, and a floor
    normal = torch.tensor([[0.0, 0, -1]] * 3 + [[0, -1, 0]]).T.reshape(3, 1, 4)
    assert said("normals", NormalsTarget(normal, torch.ones(1, 4, dtype=torch.bool)))[0] == "faces camera 75%, up 25%"


@pytest.mark.parametrize("name", ["background", "__background__", "Background", "void", "un-labeled", "BG"])
def test_background_is_not_painted(name):
    """The picture is red; what is background there is grey, whatever its index, and a class is its colour."""
    image = torch.zeros(3, 96, 96, dtype=torch.uint8)
    image[0] = 240
    for names in ((name, "cat"), ("cat", name)):
        at = names.index(name)
        target = regions(*[[at] * 48 + [1 - at] * 48] * 96)
        picture = load_task("segmentation").draw(image, target, Space(names)).float()
        low = picture[:, 90]  # beneath the legend
        assert (low[:, :47].max(0).values - low[:, :47].min(0).values).max() == 0
        assert low[:, :47].mean().round() == 80
        assert (low[:, 49:].max(0).values - low[:, 49:].min(0).values).min() > 30
    # an ordinary name is painted
    picture = load_task("segmentation").draw(image, regions([0] * 96), Space(("ground",))).float()
    assert (picture[:, 90].max(0).values - picture[:, 90].min(0).values).min() > 30


@pytest.mark.parametrize(
    ("task", "target", "full", "space"),
    [
        ("detection", boxes(0.1), boxes(0.1, 0.9), Space(NAMES, "boxes")),
        ("segmentation", regions([IGNORE] * 4), regions([0] * 4), Space(NAMES)),
        ("segmentation", regions([0] * 4), regions([1] * 4), Space(("background", "cat"))),
        ("depth", DepthTarget(torch.zeros(4, 4), torch.zeros(4, 4, dtype=torch.bool)), None, Space(kind="metric")),
        ("normals", NormalsTarget(torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.bool)), None, Space()),
    ],
)
def test_a_picture_of_an_empty_answer_says_so(monkeypatch, task, target, full, space):
    import importlib

    drawn_by = "_detection_drawing" if task == "detection" else task
    module = importlib.import_module(f"polyteach.tasks.{drawn_by}")
    image = torch.full((3, 96, 96), 90, dtype=torch.uint8)
    lines = []
    real = module.caption
    monkeypatch.setattr(module, "caption", lambda image, text, *rest: lines.append(text) or real(image, text, *rest))
    picture = load_task(task).draw(image, target, space)
    assert re.match(r"no object|all ignored|nothing but background|no depth|no normals", lines[0][0])
    assert (picture[:, :20] > 150).any()  # the text
    if full is not None:
        lines.clear()
        load_task(task).draw(image, full, space)
        assert not any(re.match(r"no |all |nothing", text) for line in lines for text in line)
