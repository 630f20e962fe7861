"""Devices: which precision is quick on one, and that a slow one is not taken unawares."""

import pytest
import torch
from PIL import Image

from polyteach import devices
from polyteach.label import label
from polyteach.predict import predict
from polyteach.train import train
from tests.test_train import options, world


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
