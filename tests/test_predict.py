"""Predict: what is printed of each answer, what the exit status says, and what pictures say of an empty answer."""

import contextlib
import json
import math
import os
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

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


def test_lists_patterns_and_folders_mean_files(run, photographs, tmp_path, capsys):
    from polyteach.labelling.inputs import files_of

    (photographs / "below").mkdir()
    (photographs / "below/film.MP4").write_bytes(b"")
    (tmp_path / "odd[1].png").write_bytes(b"")
    listing = tmp_path / "some.txt"
    listing.write_bytes(b"\xef\xbb\xbf" + f"# two\r\n\n{photographs.name}/3.png\r\n/else/where.png\n".encode())
    there = [str(photographs / f"{i}.png") for i in range(6)]
    assert files_of([str(photographs)]) == [*there, str(photographs / "below/film.MP4")]
    assert files_of([str(photographs / "[02-3].png"), there[0]]) == [there[0], there[2], there[3]]
    assert files_of([str(tmp_path / "odd[1].png")]) == [str(tmp_path / "odd[1].png")]
    assert files_of([str(tmp_path / "**/5.png")]) == [there[5]]
    assert files_of([str(listing)]) == [str(tmp_path / photographs.name / "3.png"), "/else/where.png"]
    assert files_of([str(photographs / "no*.png")]) == [str(photographs / "no*.png")]
    folder, _ = run
    assert main(["predict", folder, str(listing), str(photographs / "[0-1].png"), "--no-progress", "--json"]) == 1
    said = capsys.readouterr()
    assert [json.loads(line)["image"] for line in said.out.splitlines()] == [
        str(tmp_path / photographs.name / "3.png"), "/else/where.png", there[0], there[1]
    ]  # fmt: skip
    assert "/else/where.png: no such image or folder" in said.err
    listing.write_bytes(b"\0\1\2")
    assert main(["predict", folder, str(listing)]) == 2
    assert "some.txt is no text file: a list has one path a line" in capsys.readouterr().err


class Film:
    """Stands for torchcodec's decoder: frame i is of the grey i; a file says how many there are and promised."""

    decoded: ClassVar[list[int]] = []

    def __init__(self, path):
        self.count, self.promised, self.broken = json.loads(Path(path).read_text())
        seconds = 1.0 if self.promised is None else None  # at 10 frames a second
        self.metadata = SimpleNamespace(
            height=24, width=32, num_frames_from_header=self.promised, num_frames_from_content=self.count,
            duration_seconds_from_header=seconds, average_fps=10,
        )  # fmt: skip

    def __len__(self):
        return self.count

    def get_frame_at(self, index):
        if index >= self.broken:
            raise RuntimeError(f"Decoder, /a/b.cpp:7, could not read frame {index}\nC++ stack trace ...")
        self.decoded.append(index)
        return SimpleNamespace(data=torch.full((3, 24, 32), index, dtype=torch.uint8))


@pytest.fixture
def films(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", SimpleNamespace(VideoDecoder=Film))
    Film.decoded.clear()
    about = {"whole": (9, 9, 99), "broken": (9, 9, 5), "short": (4, 9, 99), "empty": (0, 0, 0), "less": (1, None, 99)}
    for name, one in about.items():
        (tmp_path / f"{name}.mp4").write_text(json.dumps(one))
    return {name: str(tmp_path / f"{name}.mp4") for name in about}


def test_every_nth_frame_of_videos_is_an_image(run, films, photographs, tmp_path, capsys):
    folder, _ = run
    out = tmp_path / "out"
    words = ["predict", folder, *films.values(), str(photographs / "0.png"), "--every", "3", "--json"]
    assert main([*words, "--out", str(out), "--no-progress"]) == 1
    said = capsys.readouterr()
    found = [json.loads(line) for line in said.out.splitlines()]
    ids = [f"{films['whole']}#{i}" for i in (0, 3, 6)] + [f"{films['broken']}#{i}" for i in (0, 3)]
    bad = {
        f"{films['broken']}#6": "breaks off at frame 6: could not read frame 6",
        f"{films['short']}#4": "breaks off: 4 of its 9 frames are there",
        f"{films['empty']}#0": "has no frame",
        f"{films['less']}#1": "breaks off: 1 of its 10 frames are there",
    }
    good = [*ids, f"{films['short']}#0", f"{films['short']}#3", f"{films['less']}#0", str(photographs / "0.png")]
    assert [one["image"] for one in found if "answers" in one] == good
    assert {one["image"]: one["error"] for one in found if "error" in one} == bad
    assert all(f"polyteach predict: {id}: {reason}" in said.err for id, reason in bad.items())
    store = Store.open(out / "store")
    rows = store.images(0)
    assert [row.id for row in rows] == good
    assert [int(store.image(row)[0, 0, 0]) for row in rows[:8]] == [0, 3, 6, 0, 3, 0, 3, 0]
    assert rows[-1].data is None
    assert {id: reason for id, _, reason in store.rejects()} == bad
    drawn = {p.name.split(".")[0] for p in out.glob("*.png")}
    assert drawn == {"whole#0", "whole#3", "whole#6", "broken#0", "broken#3", "short#0", "short#3", "less#0", "0"}


def test_without_ffmpeg_a_video_says_what_to_install(run, photographs, tmp_path, monkeypatch, capsys):
    def lacks(path):
        raise RuntimeError("Could not load libtorchcodec. Likely causes: ...")

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", SimpleNamespace(VideoDecoder=lacks))
    (tmp_path / "a.mp4").write_bytes(b"x")
    answers = predict(run[0], [tmp_path / "a.mp4", photographs / "0.png"], progress=False, show=False)
    assert [bool(a) for a in answers] == [False, True]
    assert "FFmpeg, which is not there: install it" in capsys.readouterr().err


def answers_in(out):
    store = Store.open(out / "store")
    found = {}
    for labels in store.sets():
        for part in store.parts():
            for id, answer in zip(store.ids(part), labels.read(part), strict=True):
                found[id, labels.name] = answer
    return found


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_a_stopped_run_goes_on(run, photographs, tmp_path, monkeypatch, capsys, how):
    """Killed: only whole parts are there. By Ctrl-C: all that was answered."""
    from polyteach.labelling import keeper
    from polyteach.labelling import predict as work

    (photographs / "2b.png").write_bytes(b"no picture")
    folder, _ = run
    words = ["predict", folder, str(photographs), "--json", "--no-progress", "--batch-size", "1"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 1
    lines = capsys.readouterr().out.splitlines()
    real, count = work._Work._one, 0
    monkeypatch.setattr(keeper, "HELD", 0)  # a part for each image

    def stop(self, *args):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt if how == "interrupted" else SystemError
        return real(self, *args)

    monkeypatch.setattr(work._Work, "_one", stop)
    words += ["--out", str(tmp_path / "out")]
    if how == "killed":
        monkeypatch.setattr(keeper.Keeper, "close", lambda self: None)
        with pytest.raises(SystemError):
            main(words)
    else:
        assert main(words) == 130
        assert "what was answered is in" in capsys.readouterr().err
    first = lines[:5]
    monkeypatch.undo()
    monkeypatch.setattr(keeper, "HELD", 0)
    capsys.readouterr()
    assert main([*words, "--score", "0.4"]) == 1
    said = capsys.readouterr()
    assert "5 images were answered before; going on with the others" in said.err
    assert "2b.png: not an image" in said.err
    assert said.out.splitlines() == lines[5:]
    assert len(first) == 5
    old, new = answers_in(tmp_path / "whole"), answers_in(tmp_path / "out")
    assert list(new) == list(old)
    assert all(
        torch.equal(getattr(new[k], f), getattr(old[k], f)) for k in old for f in ("value",) if k[1] == "depth_x"
    )
    a, b = ({p.name: p.read_bytes() for p in (tmp_path / o).glob("*.png")} for o in ("whole", "out"))
    assert a == b
    assert [r[0] for r in Store.open(tmp_path / "out/store").rejects()] == [str(photographs / "2b.png")]
    assert main(words) == 2
    assert "exists; predict does not overwrite" in capsys.readouterr().err


def test_a_run_that_was_begun_otherwise_is_not_gone_on_with(run, photographs, tmp_path, capsys):
    out = tmp_path / "out"
    predict(run[0], photographs / "0.png", out=out, show=False, progress=False)
    about = json.loads((out / "predict.json").read_text())
    assert about["finished"] is True
    (out / "predict.json").write_text(json.dumps(about | {"finished": False}))
    with pytest.raises(ValueError, match=r"was begun otherwise: images .*; size was null|was begun otherwise: images"):
        predict(run[0], photographs / "1.png", out=out, show=False, progress=False)
    [again] = predict(run[0], photographs / "0.png", out=out, show=False, progress=False)
    assert list(again) == run[1]
    assert "1 images were answered before" in capsys.readouterr().err


def test_new_files_of_a_folder_are_answered_until_ctrl_c(run, photographs, tmp_path, monkeypatch, capsys):
    from polyteach.labelling import inputs

    folder = tmp_path / "incoming"
    folder.mkdir()
    turns = iter(range(100))

    def sleep(seconds):
        turn = next(turns)
        if turn == 1:
            for i in range(3):
                (folder / f"{i}.png").write_bytes((photographs / f"{i}.png").read_bytes())
                os.utime(folder / f"{i}.png", (1, 1))
            (folder / "half.png").write_bytes(b"\x89PNG")
        if turn == 3:
            (folder / "half.png").write_bytes((photographs / "3.png").read_bytes())
            os.utime(folder / "half.png", (2, 2))
        if turn == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(inputs, "time", SimpleNamespace(sleep=sleep, time=time.time))
    words = ["predict", run[0], str(folder), "--watch", "--json", "--out", str(tmp_path / "out")]
    assert main([*words, "--no-progress"]) == 0
    said = [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()]
    assert said == [str(folder / f"{n}.png") for n in (0, 1, 2, "half")]
    assert Store.open(tmp_path / "out/store").ids(0) == said
    assert main(["predict", run[0], str(photographs / "0.png"), "--watch"]) == 2
    assert "--watch waits for files in folders" in capsys.readouterr().err


def test_maps_are_kept_at_the_size_asked_for(run, photographs):
    whole = predict(run[0], photographs, show=False, progress=False)
    small = predict(run[0], photographs, size=20, show=False, progress=False)
    for a, b in zip(whole, small, strict=True):
        assert torch.equal(a["detection_x"].box, b["detection_x"].box)
        size, less = a["depth_x"].value.shape, b["depth_x"].value.shape
        assert max(less) == 20
        assert less == (round(size[0] * 20 / max(size)), round(size[1] * 20 / max(size)))
        rows = ((torch.arange(less[0]) + 0.5) * size[0] / less[0]).long()
        columns = ((torch.arange(less[1]) + 0.5) * size[1] / less[1]).long()
        assert torch.equal(b["depth_x"].value, a["depth_x"].value[rows][:, columns])
        assert b["segmentation_x"].category.shape == less
    with pytest.raises(ValueError, match="size must be at least 1; got 0"):
        predict(run[0], photographs, size=0)


def test_the_command_holds_no_answer_of_what_it_has_told(run, photographs, monkeypatch, capsys):
    """Nor does it take more than a batch and what is decoded ahead, however many files there are."""
    import gc
    import weakref

    from polyteach.labelling import predict as work

    held, most = weakref.WeakSet(), 0
    real = work._Work._one

    def watch(self, item, image, answers):
        nonlocal most
        held.update(t.value for t in [answers["depth_x"]])
        gc.collect()
        most = max(most, len(held))
        return real(self, item, image, answers)

    monkeypatch.setattr(work._Work, "_one", watch)
    for i in range(40):
        (photographs / f"x{i}.png").write_bytes((photographs / "0.png").read_bytes())
    assert main(["predict", run[0], str(photographs), "--no-progress", "--batch-size", "4"]) == 0
    assert most <= 5
    assert len(predict(run[0], photographs, show=False, progress=False)) == 46
