"""Devices: which precision is quick on one, and that a slow one is not taken unawares."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from polyteach.ground import devices
from polyteach.teachers import load_teacher
from polyteach.verbs.label import label
from polyteach.verbs.predict import predict
from polyteach.verbs.train import train
from tests.test_label import pictures
from tests.worlds import TEACHER, options, store_of, world


@pytest.mark.parametrize(
    ("capable", "quick"),
    [({"avx2": True}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({"avx512_bf16": False, "amx_bf16": True}, "bf16")],
)
def test_bf16_is_taken_where_the_processor_has_it(monkeypatch, capable, quick):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable, raising=False)
    assert devices.quick_precision("cpu") == quick


def test_trainings_and_teachers_say_once_where_bf16_is_slow(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    devices.warn_if_slow.cache_clear()
    store = world(tmp_path / "store", 4)
    for run in ("a", "b"):
        train(store, out=str(tmp_path / run), **options(precision="bf16", steps=1))
    assert capsys.readouterr().err.count("cpu has no instructions for bf16") == 1
    train(store, out=str(tmp_path / "c"), **options(precision="fp32", steps=1))
    assert "instructions" not in capsys.readouterr().err
    devices.warn_if_slow.cache_clear()
    teacher, picture = {"a": f"own:{tmp_path}/a"}, tmp_path / "picture.png"
    label(str(tmp_path / "store"), teachers=teacher, device=("cpu",), precision="bf16", progress=False)
    assert capsys.readouterr().err.count("cpu has no instructions for bf16") == 1
    devices.warn_if_slow.cache_clear()
    Image.new("RGB", (40, 30)).save(picture)
    predict(f"{tmp_path}/a", [str(picture)], device="cpu", precision="bf16", progress=False)
    assert capsys.readouterr().err.count("cpu has no instructions for bf16") == 1


@pytest.fixture
def cards(monkeypatch):
    """A machine that says that it has two cards; nothing can be computed on them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a card at {device}")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


def test_a_device_that_is_not_there_is_found_out_at_once(cards):
    assert devices.find_device("auto") == "cuda"
    assert [devices.find_device(n) for n in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]
    with pytest.raises(ValueError, match=r"device 'cuda:7': this machine has cuda:0 to cuda:1"):
        devices.find_device("cuda:7")
    with pytest.raises(ValueError, match="device 'gpu' is none"):
        devices.find_device("gpu")
    with pytest.raises(ValueError, match="device 'meta' cannot be used here"):  # which computes nothing
        devices.find_device("meta")


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.find_device("auto") == "cpu"
    with pytest.raises(ValueError, match="sees no CUDA device"):
        devices.find_device("cuda:0")


def test_provenance_says_what_fp32_is_on_cuda(cards, monkeypatch):
    assert devices.arithmetic("cpu", "fp32") == {"device": "cpu", "precision": "fp32", "torch": torch.__version__}
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert torch.backends.cuda.matmul.allow_tf32 is False
    about = devices.arithmetic("cuda:1", "fp32")
    assert (about["float32 convolutions"], about["float32 products"]) == ("TF32", "IEEE float32")
    assert about["card"] == "a card at cuda:1"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert devices.arithmetic("cuda", "fp32")["float32 convolutions"] == "IEEE float32"


@pytest.fixture
def asked(monkeypatch, cards):
    """Devices on which teachers are loaded, by spec; families that have only a CPU runtime refuse, as they do."""
    seen = []
    real = load_teacher

    def noted(spec, place, precision):
        seen.append((spec.rpartition(":")[2], place))
        if spec.endswith("size") and place != "cpu":
            raise devices.NoDevice(f"no {place} for this one")
        return real(spec, place, precision)

    monkeypatch.setattr("polyteach.labelling.team.load_teacher", noted)
    return seen


def test_a_teacher_that_only_the_cpu_can_run_is_put_there_by_auto(tmp_path, teacher, asked, capsys):
    store = store_of(tmp_path / "s", pictures(3))
    both = {"a": teacher + "mean", "b": teacher + "size"}
    label(str(store.path), teachers=both, progress=False)
    assert asked == [("mean", "cuda"), ("size", "cuda"), ("size", "cpu")]
    assert "b: no cuda for this one; it runs on the CPU" in capsys.readouterr().err
    said = {s.name: json.loads((s.path / "label.json").read_text())["computed"] for s in store.sets()}
    assert [(c["device"], "card" in c) for c in said["a"]] == [("cuda", True)]
    assert [(c["device"], "card" in c) for c in said["b"]] == [("cpu", False)]
    with pytest.raises(ValueError, match=r"b: no cuda:1 for this one. For this teacher say --device b=cpu"):
        label(str(store.path), teachers=both, device=("cuda:1",), progress=False)


@pytest.mark.parametrize(
    ("device", "places"),
    [
        ("cpu", ["cpu", "cpu", "cpu"]),
        (("cuda:0", "cpu"), ["cuda:0", "cpu", "cuda:0"]),
        (("b=cpu",), ["cuda", "cpu", "cuda"]),
        (("cuda:0", "cuda:1", "a=cpu"), ["cpu", "cuda:0", "cuda:1"]),
    ],
)
def test_which_teacher_gets_which_device(tmp_path, teacher, asked, device, places):
    store = store_of(tmp_path / "s", pictures(3))
    names = dict.fromkeys("abc", teacher + "mean")
    label(str(store.path), teachers=names, device=device, progress=False)
    assert [place for _, place in asked] == places


def test_devices_for_nobody(tmp_path, teacher, asked, capsys):
    store = store_of(tmp_path / "s", pictures(3))
    run = {"teachers": {"a": teacher + "mean"}, "progress": False}
    with pytest.raises(ValueError, match=r"device 'b=cpu': there is no teacher 'b'; there are a"):
        label(str(store.path), device=("b=cpu",), **run)
    with pytest.raises(ValueError, match="teacher 'a' is given two devices, cpu and cuda:0"):
        label(str(store.path), device=("a=cpu", "a=cuda:0"), **run)
    with pytest.raises(ValueError, match="device 'cuda:2': this machine has"):
        label(str(store.path), device=("a=cuda:2",), **run)
    label(str(store.path), device=("cpu", "cuda:1"), **run)
    assert "no teacher is left for device cuda:1" in capsys.readouterr().err
    assert asked == [("mean", "cpu")]


def test_another_device_on_the_way_is_recorded(tmp_path, teacher, cards):
    store = store_of(tmp_path / "s", pictures(3))
    for device in ("cpu", "cuda:1", "cpu"):
        label(str(store.path), teachers={"a": teacher + "mean"}, device=device, progress=False)
    [labels] = store.sets()
    said = json.loads((labels.path / "label.json").read_text())
    assert [c["device"] for c in said["computed"]] == ["cpu", "cuda:1"]


def test_a_training_says_what_computed_it(tmp_path):
    train(world(tmp_path / "store", 4), out=str(tmp_path / "run"), **options(steps=1))
    assert json.loads((tmp_path / "run" / "train.json").read_text())["computed"] == devices.arithmetic("cpu", "fp32")


def test_the_least_torch_that_is_declared_is_the_one_that_is_tested():
    """`tests/run.sh` installs it; whoever has another environment has at least that."""
    declared = tomllib.loads(Path(__file__).parent.with_name("pyproject.toml").read_text())["project"]["dependencies"]
    for package, module in (("torch", torch), ("torchvision", torchvision)):
        [line] = [d for d in declared if d.startswith(f"{package}>=")]
        least = tuple(map(int, line.partition(">=")[2].split(".")))
        here = tuple(map(int, module.__version__.split(".")[: len(least)]))
        assert here == least if os.environ.get("TORCH") == "least" else here >= least


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card")
def test_a_card_that_fails_in_the_middle_stops_the_run_and_what_is_done_is_kept(tmp_path):
    """In a process of its own, as the card is of no use to it afterwards."""
    file = tmp_path / "teacher.py"
    file.write_text(
        TEACHER
        + """
class Asserts(Mean):
    seen = 0
    def __call__(self, images):
        self.seen += len(images)
        if self.seen > 25:
            torch.zeros(3, device="cuda")[torch.tensor([7], device="cuda")].cpu()
        return super().__call__(images)

def asserts(device, precision): return Asserts()
"""
    )
    store = store_of(tmp_path / "s", pictures(40), part_size=10)
    words = ["label", str(store.path), "--teacher", f"a=python:{file}:asserts", "--batch-size", "4", "--no-progress"]
    run = subprocess.run([sys.executable, "-m", "polyteach", *words], capture_output=True, text=True, timeout=250)
    assert run.returncode == 2
    assert "on cuda: the device failed" in run.stderr
    [labels] = store.sets()
    assert list(labels.parts()) == [0, 1]
    assert not [a for p in labels.parts() for a in labels.read(p) if isinstance(a, str)]
