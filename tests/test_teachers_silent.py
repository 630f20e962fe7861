"""What a teacher cannot answer looks like no object, or like nothing known, and is told apart from both."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision

import polyteach
from polyteach.loading.plan import plan
from polyteach.loading.reader import Reader
from polyteach.store import Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import PEOPLE, Policy, Space
from polyteach.tasks.detection import DetectionTarget
from polyteach.teachers import load_teacher
from tests import tiny
from tests.graphs import constant, describe
from tests.worlds import noise, rows_of, store_of, teacher_in


def without_numbers(model):
    """Its weights NaN."""
    for p in model.parameters():
        torch.nn.init.constant_(p, float("nan"))
    return model


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("detr", "DetrForObjectDetection"),
        ("yolos", "YolosForObjectDetection"),
        ("rt_detr", "RTDetrForObjectDetection"),
    ],
)
def test_a_detector_that_answers_nan_finds_not_nothing(kind, name, tmp_path):
    model, *parts = tiny.tiny(kind, name)
    folder = tiny.kept(tmp_path / "good", model, *parts)
    teacher, images = load_teacher(f"transformers:{folder}"), noise(2, (60, 80))
    assert len(teacher(images)) == 2
    inner = teacher.model.forward

    def forward(*args, **kwargs):
        found = inner(*args, **kwargs)
        found.logits[0] = float("nan")
        return found

    teacher.model.forward = forward
    with pytest.raises(ValueError, match=r"good answers NaN \(logits\)"):
        teacher(images)
    bad = tiny.kept(tmp_path / "bad", without_numbers(model), *parts)
    with pytest.raises(ValueError, match="fails at every image"):
        load_teacher(f"transformers:{bad}")


def test_normals_of_nan_are_not_normals_that_nobody_knows(tmp_path):
    model, *parts = tiny.tiny("sapiens2", "Sapiens2ForNormalEstimation")
    bad = tiny.kept(tmp_path / "bad", without_numbers(model), *parts)
    with pytest.raises(ValueError, match=r"fails at every image.*NaN"):
        load_teacher(f"transformers:{bad}?axes=right,up,towards")


def test_an_encoder_of_nan_is_refused_when_it_is_loaded(tmp_path):
    import timm

    torch.save(without_numbers(timm.create_model("test_vit", num_classes=0)).state_dict(), tmp_path / "nan.pth")
    with pytest.raises(ValueError, match="answers NaN"):
        load_teacher(f"features:timm:test_vit@{tmp_path / 'nan.pth'}")


@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn"])
def test_torchvisions_detectors_that_answer_nan_find_not_nothing(name, tmp_path):
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=3)
    state = model.state_dict()
    for key in state:
        if "head" in key and state[key].is_floating_point():
            state[key] = torch.full_like(state[key], float("nan"))
    torch.save(state, tmp_path / "nan.pth")
    (tmp_path / "nan.classes.txt").write_text("__background__\na\nb")
    teacher = load_teacher(f"torchvision:{name}@{tmp_path / 'nan.pth'}")
    with pytest.raises(ValueError, match="answers NaN"):
        teacher(noise(1, (64, 64)))


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_maps_of_nan_alone_are_an_error_and_some_nan_is_unknown(task, tmp_path):
    shape = (1, 3, 40, 40) if task == "normals" else (1, 40, 40)
    value = np.ones(shape, np.float32)
    some = value.copy()
    some[..., 0, :] = np.nan
    kept = load_teacher(describe(constant(tmp_path / "some.onnx", {"y": some}), task=task))
    (answer,) = kept(noise(1, (40, 40)))
    assert not answer[task].valid[0].any()
    assert answer[task].valid[2:].all()
    nothing = load_teacher(describe(constant(tmp_path / "all.onnx", {"y": value * np.nan}), task=task))
    with pytest.raises(ValueError, match="answered NaN or infinity at every cell"):
        nothing(noise(1, (40, 40)))


@pytest.mark.parametrize(
    ("box", "output", "said"),
    [
        ([30, 20, 10, 5], {}, r"answered 1 boxes, and none has an area .* format \(now xyxy\)"),
        ([50, 50, 90, 90], {}, "none has an area within the image of 40x40"),
        ([5, 5, 20, 20], {"unit": "fraction"}, r"unit \(now fraction\)"),
    ],
)
def test_boxes_of_another_format_are_told(box, output, said, tmp_path):
    arrays = {"boxes": [[box]], "scores": [[[0.9]]]}
    about = {"task": "detection", "names": ["a"], "output": {"boxes": "boxes", "scores": "scores", **output}}
    teacher = load_teacher(describe(constant(tmp_path / "a.onnx", arrays), **about))
    with pytest.raises(ValueError, match=said):
        teacher(noise(1, (40, 40)))


@pytest.mark.parametrize(
    ("task", "part", "said"),
    [
        ("detection", {"output": {"overlap": 1.5}}, "output: overlap must be a number from 0 to 1; got 1.5"),
        ("detection", {"output": {"least_score": -1}}, "output: least_score must be a number from 0 to 1; got -1"),
        ("depth", {"output": {"factor": 0}}, "output: factor must be above 0; got 0"),
        ("depth", {"input": {"fill": 300, "resize": "fit"}}, "input: fill must be a number from 0 to 255; got 300"),
    ],
)
def test_numbers_of_a_description_have_a_range(task, part, said, tmp_path):
    detects = {"names": ["a"], "output": {"boxes": "boxes", "scores": "scores"}} if task == "detection" else {}
    arrays = {"boxes": [[[1, 1, 9, 9]]], "scores": [[[0.9]]]} if task == "detection" else {"y": np.ones((1, 40, 40))}
    about = {"task": task} | detects | part
    about["output"] = detects.get("output", {}) | part.get("output", {})
    with pytest.raises(ValueError, match=said):
        load_teacher(describe(constant(tmp_path / "a.onnx", arrays), **about))


def test_numbers_of_an_image_are_no_map(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 40, 40])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3])
    made = helper.make_graph([node], "g", [x], [y])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=r"shape \['b', 3\], a number or some for each image of a batch"):
        load_teacher(describe(tmp_path / "a.onnx", task="depth"))
    assert load_teacher(describe(tmp_path / "a.onnx", task="classification", names=["a", "b", "c"]))


def test_a_description_without_a_task_says_which_was_taken(tmp_path, capsys):
    load_teacher(describe(constant(tmp_path / "a.onnx", {"y": [[0.2, 0.8]]}), names=["a", "b"]))
    assert "names no task and no layout; classification is taken" in capsys.readouterr().err


# --- an answer that was made of another


def found(*box, ignore=False, mask=None):
    n = len(box)
    return DetectionTarget(
        torch.tensor(box).reshape(-1, 4).float(),
        torch.zeros(n, dtype=torch.long),
        torch.full((n,), 0.8),
        torch.full((n,), ignore),
        None if mask is None else torch.full((n, 40, 60), mask),
    )


@pytest.fixture
def chained(tmp_path):
    """A store with boxes of two teachers, and outlines in those of the first, whose name comes later."""
    store = store_of(tmp_path / "store", rows_of(noise(2, (40, 60))))
    ids, kinds = store.ids(0), {"a": "boxes", "b": "boxes", "m": "boxes and masks"}
    answers = {"a": found([1, 1, 20, 20]), "b": found([30, 5, 50, 30]), "m": found([1, 1, 20, 20], mask=True)}
    for name, kind in kinds.items():
        given = {"given": {"task": "detection", "name": "a", "teacher": None}} if name == "m" else {}
        info = {"teacher": {"spec": "x:y", **given}}
        store.create_set("detection", name, Space(("cat",), kind), info).write(0, ids, [answers[name]] * 2)
    return Store.open(store.path)


def test_outlines_come_before_the_boxes_that_they_are_in(chained):
    chosen = plan([chained])
    (name,) = chosen.objectives
    assert [s.name for s in chosen.sets[name][0]] == ["m", "a", "b"]
    assert Reader(chosen, Policy()).target(0, name).mask is not None
    asked = plan([chained], labels=["a", "m"])
    assert [s.name for s in next(iter(asked.sets.values()))[0]] == ["a", "m"]  # as was said


@pytest.mark.parametrize("combine", ["union", "fuse"])
def test_a_source_is_no_second_voice_beside_what_was_made_of_it(chained, combine):
    chosen = plan([chained], labels=["m", "a"], combine=combine)
    (name,) = chosen.objectives
    one = Reader(chosen, Policy(score=0.0, confidence=True)).target(0, name)
    assert one.mask is not None
    assert one.score.tolist() == pytest.approx([0.8])
    both = plan([chained], labels=["m", "a", "b"], combine=combine)
    target = Reader(both, Policy(score=0.0, confidence=True)).target(0, name)
    assert target.score.tolist() == pytest.approx([0.8, 0.8] if combine == "union" else [0.4, 0.4])


def test_what_all_ignore_is_ignored_by_their_one_voice():
    task, space = load_task("detection"), Space(("cat",), "boxes")
    one = found([1, 1, 20, 20], ignore=True)
    assert task.fused([one, one], space).ignore.tolist() == [True]
    assert task.fused([one, replace(one, ignore=torch.tensor([False]))], space).ignore.tolist() == [False]


# --- what is told of failures


def test_why_images_failed_is_told(tmp_path, capsys):
    store = store_of(tmp_path / "s", rows_of([*noise(3, (24, 24), low=150), *noise(2, (24, 24), high=40)]))
    polyteach.label(store.path, teachers={"a": teacher_in(tmp_path) + "crash"}, device="cpu", progress=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "classification/a: failed 2 with 'teacher: RuntimeError: no dark images', such as" in said
    assert "run again with --retry" in said


def test_a_teacher_may_be_a_path_in_python(tmp_path):
    store = store_of(tmp_path / "s", rows_of(noise(1, (24, 24))))
    with pytest.raises(ValueError, match="names no family"):
        polyteach.label(store.path, teachers={"a": tmp_path}, device="cpu", progress=False)


def test_people_win_over_what_was_made_of_their_boxes(chained):
    people = chained.create_set("detection", PEOPLE, Space(("cat",), "boxes"), {"teacher": PEOPLE})
    people.write(0, chained.ids(0), [found([2, 2, 9, 9]), None])
    chosen = plan([chained])
    (name,) = chosen.objectives
    assert [s.name for s in chosen.sets[name][0]] == [PEOPLE, "m", "a", "b"]
