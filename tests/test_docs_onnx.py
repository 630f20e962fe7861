"""The page on ONNX: its descriptions and its code run as they stand."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from polyteach.tasks.contract import Objective, Space
from polyteach.teachers import _onnx_description as described_by
from polyteach.teachers import load_teacher
from polyteach.teachers._onnx_layouts import LAYOUTS, PRESETS

ONNX = (Path(__file__).parent.parent / "docs" / "guide" / "onnx.md").read_text(encoding="utf-8")


def described(name):
    """The description that the page gives for the file `name`."""
    return re.search(rf"`{re.escape(name)}`:\n\n```json\n(.*?)```", ONNX, re.S)[1]


def graph(file, inputs, outputs, nodes, constants):
    """Write a graph. inputs, outputs: name -> shape, of float32."""
    made, out = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in x.items()] for x in (inputs, outputs)
    )
    weights = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    body = helper.make_graph([helper.make_node(*n[:3], **n[3]) for n in nodes], "g", made, out, weights)
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)


def test_the_onnx_pages_classifier(tmp_path):
    """Its logits are the three means, and twice 0: seen with the page's mean and deviation."""
    nodes = [
        ("ReduceMean", ["image"], ["m"], {"axes": [2, 3], "keepdims": 0}),
        ("MatMul", ["m", "w"], ["logits"], {}),
    ]
    shapes = {"image": ["batch", 3, 224, 224]}, {"logits": ["batch", 5]}
    graph(tmp_path / "flowers.onnx", *shapes, nodes, {"w": np.eye(3, 5, dtype=np.float32)})
    (tmp_path / "flowers.onnx.json").write_text(described("flowers.onnx.json"))
    teacher = load_teacher(f"onnx:{tmp_path / 'flowers.onnx'}")
    names = ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert teacher.objectives == {"classification": Objective("classification", Space(names))}
    assert teacher.licence == "CC-BY-4.0"
    image = torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None].expand(3, 90, 70).contiguous()
    seen = (torch.tensor([200, 100, 50]) / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    expected = torch.cat([seen, torch.zeros(2)]).softmax(0)
    torch.testing.assert_close(teacher([image])[0]["classification"].probability, expected, rtol=0, atol=1e-3)


def boxes(constants):
    """Nodes that answer constants, whatever the picture."""
    flat = [("ReduceMean", ["images"], ["m"], {"keepdims": 0}), ("Mul", ["m", "0"], ["z"], {})]
    return [*flat, *(("Add", [f"{k} constant", "z"], [k], {}) for k in constants)], {
        "0": np.float32(0),
        **{f"{k} constant": v.astype(np.float32) for k, v in constants.items()},
    }


def test_the_onnx_pages_detector(tmp_path):
    """A picture of 40x80 lies in rows 80 to 240 of 320x320, four times as large."""
    found = {
        "boxes": np.array([[40, 120, 80, 200], [0, 80, 320, 240], [0, 0, 9, 9]]),
        "confidence": np.array([0.9, 0.6, 0.01]),
        "labels": np.array([2, 1, 1]),
    }
    nodes, constants = boxes(found)
    shapes = {"images": [1, 3, 320, 320]}, {"boxes": ["n", 4], "confidence": ["n"], "labels": ["n"]}
    graph(tmp_path / "things.onnx", *shapes, nodes, constants)
    (tmp_path / "things.onnx.json").write_text(described("things.onnx.json"))
    teacher = load_teacher(f"onnx:{tmp_path / 'things.onnx'}")
    assert teacher.objectives == {"detection": Objective("detection", Space(("cup", "hat"), "boxes"))}
    (answer,) = teacher([torch.zeros(3, 40, 80, dtype=torch.uint8)])
    assert answer["detection"].box.tolist() == [[10, 10, 20, 30], [0, 0, 80, 40]]
    assert answer["detection"].category.tolist() == [1, 0]
    torch.testing.assert_close(answer["detection"].score, torch.tensor([0.9, 0.6]))


def test_the_onnx_pages_depth(tmp_path):
    """The mean of the channels, from -1 to 1, of a picture of 300x700 that is seen at 224x512."""
    sides = ["batch", "height", "width"]
    nodes = [("ReduceMean", ["pixels"], ["disparity"], {"axes": [1], "keepdims": 0})]
    graph(tmp_path / "far.onnx", {"pixels": ["batch", 3, *sides[1:]]}, {"disparity": sides}, nodes, {})
    (tmp_path / "far.onnx.json").write_text(described("far.onnx.json"))
    teacher = load_teacher(f"onnx:{tmp_path / 'far.onnx'}")
    assert teacher.objectives == {"depth": Objective("depth", Space((), "relative inverse"))}
    image = torch.full((3, 300, 700), 255, dtype=torch.uint8)
    image[:, :, :350] = 0
    value = teacher([image])[0]["depth"].value
    assert value.shape == (224, 523)  # of the input's rows and columns, with the picture's aspect
    torch.testing.assert_close(value[:, [0, -1]], torch.tensor([-1.0, 1.0]).expand(224, 2))


def test_the_onnx_pages_yolo(tmp_path):
    rows = np.zeros((1, 6, 50))
    rows[0, :, 3] = (160, 160, 80, 40, 0.1, 0.9)
    rows[0, :, 4] = (161, 160, 80, 40, 0.1, 0.8)
    nodes, constants = boxes({"output0": rows})
    graph(tmp_path / "helmets.onnx", {"images": [1, 3, 320, 320]}, {"output0": [1, 6, 50]}, nodes, constants)
    (tmp_path / "helmets.onnx.json").write_text(described("helmets.onnx.json"))
    (answer,) = load_teacher(f"onnx:{tmp_path / 'helmets.onnx'}")([torch.zeros(3, 320, 320, dtype=torch.uint8)])
    assert answer["detection"].box.tolist() == [[120, 140, 200, 180]]
    assert answer["detection"].category.tolist() == [1]


def test_the_onnx_pages_normals(tmp_path):
    nodes, constants = boxes({"normal": np.tile(np.array([0, 0.6, 0.8])[None, :, None, None], (1, 1, 5, 7))})
    graph(tmp_path / "facing.onnx", {"images": [1, 3, 50, 70]}, {"normal": [1, 3, 5, 7]}, nodes, constants)
    (tmp_path / "facing.onnx.json").write_text(described("facing.onnx.json"))
    (answer,) = load_teacher(f"onnx:{tmp_path / 'facing.onnx'}")([torch.zeros(3, 50, 70, dtype=torch.uint8)])
    torch.testing.assert_close(answer["normals"].normal[:, 0, 0], torch.tensor([0, -0.6, -0.8]))


def test_the_onnx_page_names_every_layout():
    told = re.findall(
        r"^\| `([a-z0-9 -]+)` \|", ONNX.partition("## YOLO and its kin")[2].partition("## Masks")[0], re.M
    )
    assert set(told) == {"layout", *described_by.LAYOUTS} == {"layout", *LAYOUTS, *PRESETS}


def test_the_onnx_page_names_every_key():
    told = set(re.findall(r"`([a-z_]+)`", ONNX.partition("## All keys")[2]))
    keys = {*described_by.TOP, *described_by.INPUT, *(k for keys in described_by.OUTPUT.values() for k in keys)}
    assert keys - told == {"input", "output"}
    for block in re.findall(r"```json\n(.*?)```", ONNX, re.S):
        assert {"task", "layout"} & set(json.loads(block))
