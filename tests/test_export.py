"""A run's backbone as timm's own folder: timm gives the very features of the run from it."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import polyteach
from polyteach.__main__ import main
from polyteach.model import export as exporting
from polyteach.model.student import Student, save_student

SETS = [
    {"objective": "depth_x", "store": "s3|own\n# pwned", "task": "depth", "name": "x", "images": 12,
     "teacher": {"spec": "timm:a_b", "origin": "hub <b>", "licence": "MIT"}},
    {"objective": "classification_people", "store": "store", "task": "classification", "name": "people", "images": 3,
     "teacher": "people"},
]  # fmt: skip


def run(place, name="resnet18", size=(64, 64), **about):
    torch.manual_seed(1)
    student = Student(name, {}, 8, size=size)
    for buffer in (b for k, b in student.backbone.named_buffers() if "running" in k):
        buffer += torch.rand_like(buffer)  # as after a training
    save_student(student, place, {"size": list(size)} | about)
    return student.eval()


@pytest.mark.parametrize(
    ("name", "size", "rest"),
    [
        ("resnet18", (64, 64), 0),
        ("convnext_atto.d2_in1k", (64, 96), 2),  # stages.0 is stages_0 in its features
        ("efficientnet_b0", (64, 64), 5),
        ("swin_tiny_patch4_window7_224", (64, 96), 2),  # with tables of this size
        ("swin_tiny_patch4_window7_224", (256, 256), 2),  # with those of its own, but for other images
        ("coat_tiny", (64, 64), 8),  # whose layers share weights
        ("timm:dla34", (64, 64), 0),
    ],
)
def test_timm_gives_the_features_of_the_run(name, size, rest, tmp_path, capsys):
    student = run(tmp_path / "run", name, size)
    out = polyteach.export(tmp_path / "run", tmp_path / "out")
    assert out == str(tmp_path / "out")
    said = capsys.readouterr().err
    assert (f"{rest} tensors of timm's" in said and said.count("\n") == 1) if rest else not said
    image = torch.randn(2, 3, *size)
    made = timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=0).eval()
    with torch.inference_mode():
        wanted = student.backbone(image)
        found = made.forward_intermediates(image, intermediates_only=True, output_fmt="NCHW")[-4:]
        assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
        if not rest:
            assert torch.allclose(made(image), wanted[-1].mean((2, 3)), atol=1e-5)
    about = json.loads((Path(out) / "config.json").read_text())
    assert about["num_classes"] == 0
    assert about["num_features"] == made.num_features
    assert about["pretrained_cfg"]["input_size"] == [3, *size]
    held, has = load_file(Path(out) / "model.safetensors"), made.state_dict()
    assert held.keys() == has.keys()
    assert all(torch.equal(v, has[k]) for k, v in held.items())  # also where layers share them
    again = Student(name, {}, 8, f"local-dir:{out}", size=size).eval()  # and back
    with torch.inference_mode():
        assert torch.equal(again.backbone(image)[-1], wanted[-1])


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224"])
def test_a_vision_transformer_goes_out_and_comes_back(name, tmp_path):
    student = run(tmp_path / "run", name, (64, 96))
    out = polyteach.export(tmp_path / "run", tmp_path / "out")
    made = timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=0).state_dict()
    own = student.backbone.model.state_dict()
    assert all(torch.equal(made[k], v) for k, v in own.items())
    again = Student(name, {}, 8, f"local-dir:{out}", size=(64, 96)).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(student.backbone(image), again.backbone(image), strict=True))


def test_a_card_says_what_it_was_taught_by(tmp_path):
    data = {"images": 1234, "sets": SETS}
    run(tmp_path / "run", data=data, licence="learned from labels under MIT", steps=70, optimizer="adamw")
    (tmp_path / "run" / "train.json").write_text(
        json.dumps({"compute": {"images": 560, "flops": None, "seconds": 2.5}})
    )
    (tmp_path / "run" / "config.json").write_text(json.dumps({"options": {"init": "hf-hub:a/b"}}))
    polyteach.export(tmp_path / "run", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| depth/x | 12 | s3\\|own\\n\\# pwned | timm:a\\_b | hub \\<b\\> | MIT |".replace("\\n", "\\\\n") in card
    assert "| classification/people | 3 | store | people | not recorded | not recorded |" in card
    for line in (
        "Licence: learned from labels under MIT.",
        "1,234 images.",
        "- steps: 70",
        "- started from: hf-hub:a/b",
    ):
        assert line in card
    assert not [line for line in card.splitlines() if line.startswith("# ") and line != "# out"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["pretrained_cfg"]["license"] == "learned from labels under MIT"
    # what it says of loading works
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].replace(
        "local-dir:out", f"local-dir:{tmp_path / 'out'}"
    )
    exec(code, {})


def test_what_pixels_are_normalised_by_goes_along(tmp_path):
    student = run(tmp_path / "run")
    student.normalise((0.5, 0.4, 0.3), (0.25, 0.5, 1.0))
    save_student(student, tmp_path / "run", {"size": [64, 64]})
    polyteach.export(tmp_path / "run", tmp_path / "out")
    data = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True))
    assert (list(data["mean"]), list(data["std"])) == ([0.5, 0.4, 0.3], [0.25, 0.5, 1.0])


def test_what_cannot_be_exported_is_refused_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    run(tmp_path / "run")
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out, said in (("there", "exists; choose another"), ("link", "exists; choose another")):
        with pytest.raises(ValueError, match=said):
            polyteach.export(tmp_path / "run", tmp_path / out)
    with pytest.raises(ValueError, match="must be a local folder"):
        polyteach.export(tmp_path / "run", "s3://bucket/out")
    with pytest.raises(ValueError, match="holds no finished student"):
        polyteach.export(tmp_path / "there", tmp_path / "out")
    monkeypatch.setattr(exporting, "card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        polyteach.export(tmp_path / "run", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "run", "there"]
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--format", "onnx"]) == 2
    assert "format" in capsys.readouterr().err


def test_the_command_line_writes_it_whole(tmp_path):
    run(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "deep" / "out"), "--format", "timm"]) == 0
    assert sorted(p.name for p in (tmp_path / "deep").glob("*/*")) == ["README.md", "config.json", "model.safetensors"]
