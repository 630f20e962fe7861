"""Teachers: real loading code on tiny models made here, against the libraries' own results, image by image."""

import argparse
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import textwrap
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
import torchvision
import transformers
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms.v2 import functional as kernels

from polyteach.ground.files import sha256
from polyteach.ground.weights import state_dict
from polyteach.tasks import load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space
from polyteach.teachers import (
    by_shape,
    class_names,
    digest,
    load_teacher,
    map_size,
    timm_models,
    torchvision_models,
    transformers_models,
)
from polyteach.teachers._transformers_places import frame_of, unpadded
from polyteach.teachers.onnx_models import _hashed
from polyteach.training import checkpoints
from tests.graphs import constant, describe, graph
from tests.tiny import lively

SHAPES = [(48, 64), (64, 40), (48, 64), (30, 90)]


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    """Hubs are not asked, and nothing is cached in the home folder."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("urllib.request.urlopen", _no_network)


def _no_network(*args, **kwargs):
    raise OSError("no network in tests")


@pytest.fixture(scope="module")
def images():
    """Differently shaped pictures with some structure, so that models answer differently."""
    draw = torch.Generator().manual_seed(1)
    coarse = [torch.rand(1, 3, 3, 4, generator=draw) for _ in SHAPES]
    return [
        (nn.functional.interpolate(c, s, mode="bicubic").clamp(0, 1)[0] * 255).to(torch.uint8)
        for c, s in zip(coarse, SHAPES, strict=True)
    ]


def pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def checked(teacher, images):
    """Answers to a batch of differently shaped images, which the tasks accept and which do not depend on the batch."""
    answers = teacher(images)
    for image, answer in zip(images, answers, strict=True):
        assert set(answer) == set(teacher.objectives)
        (alone,) = teacher([image])
        for key, objective in teacher.objectives.items():
            task = load_task(objective.task)
            task.check(answer[key], tuple(image.shape[1:]), objective.space)
            for name, value in vars(answer[key]).items():
                if value is not None:
                    assert value.device.type == "cpu"
                    assert not value.is_inference()
                    torch.testing.assert_close(value, getattr(alone[key], name), rtol=1e-3, atol=1e-4)
    return answers


# --- timm


@pytest.fixture
def timm_file(tmp_path):
    model = lively(timm.create_model("test_resnet", num_classes=5))
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "net.classes.txt").write_text("ant\nbee\ncat\ndog\nelk\n")
    return model, tmp_path / "net.safetensors"


def by_hand(image, side, crop, interpolation, mean, std):
    """What a classifier sees."""
    whole = kernels.resize(image, [side], interpolation, antialias=True)
    assert whole.dtype == torch.uint8
    return kernels.normalize(kernels.center_crop(whole, list(crop)) / 255, list(mean), list(std))


def test_timm_answers_as_timm_does(timm_file, images):
    model, file = timm_file
    teacher = load_teacher(f"timm:test_resnet@{file}")
    answers = checked(teacher, images)
    config = timm.data.resolve_model_data_config(model, use_test_size=True)
    transform = timm.data.create_transform(**config)
    side = int(config["input_size"][1] / config["crop_pct"])
    for image, answer in zip(images, answers, strict=True):
        interpolation = torchvision.transforms.InterpolationMode(config["interpolation"])
        seen = by_hand(image, side, config["input_size"][1:], interpolation, config["mean"], config["std"])
        with torch.no_grad():
            exact, pillows = model(torch.stack([seen, transform(pil(image))])).softmax(-1)
        torch.testing.assert_close(answer["classification"].probability, exact)
        # resized by Pillow a tenth of the bytes is another by one
        torch.testing.assert_close(answer["classification"].probability, pillows, rtol=0, atol=2e-3)
    a, b = (x["classification"].probability for x in answers[:2])
    assert (a - b).abs().max() > 0.01  # else the comparison would say nothing
    assert teacher.objectives["classification"].space.names == ("ant", "bee", "cat", "dog", "elk")
    assert (teacher.sha256, teacher.origin, teacher.licence) == (sha256(file), str(file), None)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_timm_in_low_precision(timm_file, images, precision):
    _, file = timm_file
    exact = load_teacher(f"timm:test_resnet@{file}")(images)
    low = checked(load_teacher(f"timm:test_resnet@{file}", precision=precision), images)
    for a, b in zip(exact, low, strict=True):
        p, q = a["classification"].probability, b["classification"].probability
        assert q.dtype == torch.float32
        torch.testing.assert_close(p, q, rtol=0, atol=0.05)


ODD = (3, 211, 317)


def timm_configs():
    """One name for each way in which timm's published weights see a picture at test time, the sizes aside."""
    found = {}
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name).to_dict()
        at_test = [config.get(k) is not None for k in ("test_input_size", "test_crop_pct")]
        found.setdefault((config["interpolation"], config.get("crop_mode"), *at_test), name)
    return sorted(found.values())


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "resnet10t.c3_in1k", *timm_configs()])
def test_timm_sees_what_its_own_validation_does(name):
    """As validate.py: the test size and crop where weights have one."""
    config = timm.get_pretrained_cfg(name).to_dict()
    tested = timm.data.resolve_data_config(pretrained_cfg=config, use_test_size=True)
    reference = timm.data.create_transform(**tested, is_training=False)
    coarse = torch.rand(1, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    image = (nn.functional.interpolate(coarse, ODD[1:], mode="bicubic").clamp(0, 1)[0] * 255).to(torch.uint8)
    stub = nn.Linear(1, 1)
    stub.pretrained_cfg = config
    teacher = timm_models._teacher(stub, ("a",), "there", "cpu", "fp32")
    seen, expected = teacher.transform(image), reference(pil(image))
    assert seen.shape == expected.shape == (config.get("test_input_size") or config["input_size"])
    # a byte resized by Pillow may be another by one or two of 255
    torch.testing.assert_close(seen, expected, rtol=0, atol=2.1 / 255 / min(tested["std"]))
    at_test = config.get("test_input_size") or config.get("test_crop_pct")
    differs = tested != timm.data.resolve_data_config(pretrained_cfg=config)
    assert bool(at_test) >= differs
    assert ("seen at" in teacher.origin) == differs


def test_timm_takes_averaged_weights_as_timm_does(tmp_path, images, capsys):
    last, average, other = (lively(timm.create_model("test_resnet", num_classes=2), seed) for seed in (0, 1, 2))
    file = tmp_path / "model_best.pth.tar"
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    args = argparse.Namespace(model="test_resnet", epochs=3)
    torch.save({"args": args, "state_dict": last.state_dict(), "state_dict_ema": average.state_dict()}, file)
    teacher = load_teacher(f"timm:test_resnet@{file}")
    assert digest(teacher.model.state_dict()) == digest(average.state_dict())
    timm.models.load_checkpoint(other, str(file))
    assert digest(other.state_dict()) == digest(average.state_dict())
    assert teacher.origin.startswith(f"{file} (state_dict_ema)")
    load_teacher(f"timm:test_resnet@{file}")
    assert capsys.readouterr().err.count("'state_dict_ema' is taken, not 'state_dict'") == 1
    torch.save({"state_dict": last.state_dict(), "state_dict_ema": None}, file)
    assert digest(load_teacher(f"timm:test_resnet@{file}").model.state_dict()) == digest(last.state_dict())
    assert not capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_weights_of_compiled_and_distributed_models(tmp_path, prefix):
    weights = {"a.weight": torch.ones(2), "module.b": torch.zeros(1)}
    torch.save({"model": {prefix + k: v for k, v in weights.items()}}, tmp_path / "c.pth")
    assert set(state_dict(tmp_path / "c.pth")) == set(weights)


def test_torchvision_takes_averaged_weights(tmp_path, images):
    """As its reference scripts keep them: with a count beside, in a wrapper."""
    last, average = (lively(torchvision.models.mobilenet_v3_small(num_classes=3), seed) for seed in (0, 1))
    kept = {f"module.{k}": v for k, v in average.state_dict().items()} | {"n_averaged": torch.tensor(7)}
    torch.save({"model": last.state_dict(), "model_ema": kept}, tmp_path / "model_9.pth")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    teacher = load_teacher(f"torchvision:mobilenet_v3_small@{tmp_path / 'model_9.pth'}")
    assert digest(teacher.model.state_dict()) == digest(average.state_dict())
    assert teacher.origin == f"{tmp_path / 'model_9.pth'} (model_ema)"


def test_timm_knows_imagenet(tmp_path):
    torch.save({"state_dict": timm.create_model("test_resnet").state_dict()}, tmp_path / "checkpoint.pth")
    names = load_teacher(f"timm:test_resnet@{tmp_path / 'checkpoint.pth'}").objectives["classification"].space.names
    assert len(names) == 1000
    assert names[0].startswith("tench")


def test_timm_local_dir_with_its_own_names(tmp_path, images):
    """A folder as timm publishes models, with pretrained weights, names and licence."""
    model = lively(timm.create_model("test_resnet", num_classes=2))
    save = {"label_names": ["no", "yes"]}
    timm.models.save_for_hf(model, tmp_path / "net", model_config=save, safe_serialization=True)
    teacher = load_teacher(f"timm:local-dir:{tmp_path / 'net'}")
    assert teacher.objectives["classification"].space.names == ("no", "yes")
    assert teacher.sha256 == digest(model.state_dict())
    checked(teacher, images[:2])


def test_timm_local_dir_of_a_stranger(tmp_path):
    model = lively(timm.create_model("test_resnet", num_classes=2))
    folder = tmp_path / "net"
    timm.models.save_for_hf(model, folder, model_config={"label_names": ["no", "yes"]}, safe_serialization=False)
    (weights,) = folder.glob("*.bin")
    for name, content, _ in hostile_pickles(tmp_path):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match=r"timm has no weights at hand|model.bin is") as e:
            load_teacher(f"timm:local-dir:{folder}")
        assert "weights_only" not in str(e.value), name
    assert not (tmp_path / "ran").exists()
    os.mkfifo(folder / "more.txt")
    with pytest.raises(ValueError, match=r"more.txt is a pipe"):
        load_teacher(f"timm:local-dir:{folder}")


def test_timm_refuses(timm_file, tmp_path, images):
    _, file = timm_file
    with pytest.raises(ValueError, match=r"unknown timm model 'resnet5O'.*resnet50"):
        load_teacher("timm:resnet5O")
    with pytest.raises(ValueError, match=r"no weights at hand.*timm:test_resnet@FILE"):
        load_teacher("timm:test_resnet")
    with pytest.raises(ValueError, match=r"has other shapes"):
        load_teacher(f"timm:resnet18@{file}")
    with pytest.raises(ValueError, match=r"no weights file"):
        load_teacher(f"timm:test_resnet@{tmp_path / 'no.pth'}")
    (tmp_path / "net.classes.txt").write_text("ant\nbee\n")
    with pytest.raises(ValueError, match=r"net.classes.txt has 2 class names; .* have 5 classes"):
        load_teacher(f"timm:test_resnet@{file}")
    (tmp_path / "net.classes.txt").unlink()
    with pytest.raises(ValueError, match=r"5 classes and nothing says their names: write .*classes.txt with 5 lines"):
        load_teacher(f"timm:test_resnet@{file}")
    (tmp_path / "classes.json").write_text(json.dumps({str(i): f"class {i}" for i in range(5)}))
    teacher = load_teacher(f"timm:test_resnet@{file}")
    assert teacher.objectives["classification"].space.names[4] == "class 4"
    with pytest.raises(ValueError, match=r"too thin"):
        teacher([torch.zeros(3, 8, 4000, dtype=torch.uint8)])


# --- torchvision


def saved(tmp_path, name, classes, **options):
    model = lively(torchvision.models.get_model(name, weights=None, num_classes=classes, **options))
    if name.startswith(("faster", "mask")):  # else boxes explode and all are background
        last = (model.rpn.head.cls_logits, model.rpn.head.bbox_pred, *model.roi_heads.box_predictor.children())
        with torch.no_grad():
            for layer in last:
                layer.weight.mul_(1e-3)
    torch.save(model.state_dict(), tmp_path / f"{name}.pth")
    return model, tmp_path / f"{name}.pth"


def seen_by(preset, image):
    """What a preset of torchvision's lets a classifier see."""
    return by_hand(image, *preset.resize_size, preset.crop_size * 2, preset.interpolation, preset.mean, preset.std)


def test_torchvision_classes(tmp_path, images):
    model, file = saved(tmp_path, "mobilenet_v3_small", 3)
    (tmp_path / "mobilenet_v3_small.pth.json").write_text('["a", "b", "c"]')
    teacher = load_teacher(f"torchvision:mobilenet_v3_small@{file}")
    transform = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.transforms()
    for image, answer in zip(images, checked(teacher, images), strict=True):
        with torch.no_grad():
            exact, pillows = model(torch.stack([seen_by(transform, image), transform(pil(image))])).softmax(-1)
        torch.testing.assert_close(answer["classification"].probability, exact)
        torch.testing.assert_close(answer["classification"].probability, pillows, rtol=0, atol=2e-3)
    assert teacher.objectives["classification"] == Objective("classification", Space(("a", "b", "c")))


def test_torchvision_weights_of_a_model_that_asks_for_their_version(tmp_path, images):
    """MNASNet refuses weights that do not say their version, which files of safetensors cannot."""
    model, file = saved(tmp_path, "mnasnet0_5", 3)
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    first, second = (load_teacher(f"torchvision:mnasnet0_5@{f}") for f in (file, tmp_path / "net.safetensors"))
    seen = seen_by(torchvision.models.MNASNet0_5_Weights.DEFAULT.transforms(), images[0])
    with torch.no_grad():
        expected = model(seen[None]).softmax(-1)[0]
    for teacher in (first, second):
        torch.testing.assert_close(teacher(images[:1])[0]["classification"].probability, expected)


def test_torchvision_takes_its_own_names_for_its_own_number_of_classes(tmp_path):
    _, file = saved(tmp_path, "squeezenet1_1", 1000)
    names = load_teacher(f"torchvision:squeezenet1_1@{file}").objectives["classification"].space.names
    assert names == tuple(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.meta["categories"])


def test_torchvision_default_weights_come_from_the_cache(tmp_path, images):
    """Where torch keeps its downloads, a file of the right name is taken, as torchvision does."""
    weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    model, file = saved(tmp_path, "squeezenet1_1", 1000)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    file.rename(tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2])
    teacher = load_teacher("torchvision:squeezenet1_1")
    assert weights.url in teacher.origin
    assert teacher.sha256 == digest(model.state_dict())
    with torch.no_grad():
        expected = model(seen_by(weights.transforms(), images[0])[None]).softmax(-1)[0]
    torch.testing.assert_close(teacher(images[:1])[0]["classification"].probability, expected)


def test_torchvision_copy_of_a_published_file(tmp_path, monkeypatch):
    """Known by the hash in its name: a local copy gets the preprocessing of just those weights, not the default's."""
    weights = torchvision.models.MobileNet_V3_Large_Weights
    _, file = saved(tmp_path, "mobilenet_v3_large", 1000)
    resize = {}
    for member in weights:
        prefix = member.url.removesuffix(".pth").rpartition("-")[2]
        monkeypatch.setattr(torchvision_models, "sha256", lambda _, p=prefix: p + "0" * 56)
        resize[member.name] = load_teacher(f"torchvision:mobilenet_v3_large@{file}").transform.transforms[0].size
    assert resize == {"IMAGENET1K_V1": [256], "IMAGENET1K_V2": [232]}
    frozen = torchvision_models._build("retinanet_resnet50_fpn", "detection", 3, {}, original=True)
    assert {m.eps for m in frozen.backbone.body.modules() if isinstance(m, nn.BatchNorm2d)} == {0.0}


def test_torchvision_vision_transformer_of_another_size(tmp_path, images):
    state = torchvision.models.vit_b_16(weights=None, num_classes=7, image_size=32).state_dict()
    save_file(state, tmp_path / "vit.safetensors")
    (tmp_path / "classes.txt").write_text("\n".join("abcdefg"))
    teacher = load_teacher(f"torchvision:vit_b_16@{tmp_path / 'vit.safetensors'}")
    assert teacher.model.image_size == 32
    answers = checked(teacher, images[:2])
    assert answers[0]["classification"].probability.shape == (7,)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torchvision_maps(tmp_path, images, precision):
    model, file = saved(tmp_path, "lraspp_mobilenet_v3_large", 21, weights_backbone=None)
    teacher = load_teacher(f"torchvision:lraspp_mobilenet_v3_large@{file}", precision=precision)
    assert teacher.objectives["segmentation"].space.names[:2] == ("background", "aeroplane")
    transform = torchvision.models.segmentation.LRASPP_MobileNet_V3_Large_Weights.DEFAULT.transforms()
    if precision == "bf16":  # a CPU without it takes ten times as long
        transform.resize_size = teacher.transform.transforms[-1].resize_size = [160]
    answers = checked(teacher, images[:2])
    # in bf16 teachers run in channels_last, which rounds otherwise
    layout = torch.channels_last if precision == "bf16" else torch.contiguous_format
    model = model.to(memory_format=layout)
    for image, answer in zip(images, answers, strict=False):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(transform(pil(image))[None].contiguous(memory_format=layout))["out"].float()
        expected = nn.functional.interpolate(logits, image.shape[1:], mode="bilinear").softmax(1).max(1)
        assert (answer["segmentation"].category == expected.indices[0]).float().mean() > 0.999
        torch.testing.assert_close(answer["segmentation"].probability, expected.values[0], rtol=0, atol=1e-3)


def test_torchvision_boxes(tmp_path, images):
    """The same boxes as the model gives, and classes without background and gaps."""
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    model, file = saved(tmp_path, name, 4, weights_backbone=None)
    (tmp_path / "classes.txt").write_text("cup\nN/A\nhat\n")
    teacher = load_teacher(f"torchvision:{name}@{file}")
    assert teacher.objectives["detection"] == Objective("detection", Space(("cup", "hat"), "boxes"))
    seen = 0
    for image, answer in zip(images, checked(teacher, images), strict=True):
        with torch.no_grad():
            (expected,) = model([image / 255])
        real = expected["labels"] != 2
        target = answer["detection"]
        torch.testing.assert_close(target.box, expected["boxes"][real], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(target.score, expected["scores"][real], rtol=1e-3, atol=1e-4)
        assert torch.equal(target.category, (expected["labels"][real] == 3).long())
        seen += len(target.box)
    assert seen > 0


def test_torchvision_boxes_scale_with_the_image(tmp_path):
    """A plain grey picture of any size looks the same to a detector of one input size."""
    _, file = saved(tmp_path, "ssdlite320_mobilenet_v3_large", 3, weights_backbone=None)
    (tmp_path / "classes.txt").write_text("__background__\ncup\nhat\n")
    teacher = load_teacher(f"torchvision:ssdlite320_mobilenet_v3_large@{file}")
    small, large = (torch.full((3, h, w), 90, dtype=torch.uint8) for h, w in [(40, 60), (80, 180)])
    a, b = (x["detection"] for x in teacher([small, large]))
    assert len(a.box) > 5
    # of boxes that overlap and are as good, rounding decides which stays
    close = (a.box * torch.tensor([3, 2, 3, 2])).isclose(b.box, rtol=1e-3, atol=1e-2)
    assert close.float().mean() > 0.99
    low = load_teacher(f"torchvision:ssdlite320_mobilenet_v3_large@{file}", precision="bf16")
    checked(low, [small, large])


class Stem(nn.Module):
    """A backbone of one map of stride 8, small enough to try every kind of torchvision's detectors."""

    def __init__(self, out_channels=32):
        super().__init__()
        self.out_channels = out_channels
        self.layers = nn.Sequential(nn.Conv2d(3, 32, 5, 4, 2), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1))

    def forward(self, x):
        return {"0": self.layers(x)}


def tiny_torchvision(kind, classes):
    """A detector of that kind which gives many boxes of many classes for a picture of 200x304, unresized."""
    from torchvision.models import detection
    from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator

    sides = {"min_size": 200, "max_size": 304}
    several = AnchorGenerator(((16, 32),), ((0.5, 1.0),))
    if kind == "faster r-cnn":
        pool = torchvision.ops.MultiScaleRoIAlign(["0"], 7, 2)
        options = {"rpn_anchor_generator": several, "box_roi_pool": pool, "box_score_thresh": 0.0}
        model = lively(detection.FasterRCNN(Stem(), classes, **options, **sides))
        last = [model.rpn.head.bbox_pred, model.roi_heads.box_predictor.bbox_pred]
    elif kind == "retinanet":
        options = {"anchor_generator": several, "score_thresh": 0.0}
        model = lively(detection.RetinaNet(Stem(), classes, **options, **sides))
        last = [model.head.regression_head.bbox_reg]
    elif kind == "fcos":
        options = {"anchor_generator": AnchorGenerator(((8,),), ((1.0,),)), "score_thresh": 0.0}
        model = lively(detection.FCOS(Stem(), classes, **options, **sides))
        last = [model.head.regression_head.bbox_reg]
    else:
        options = {"score_thresh": 0.0, "nms_thresh": 0.5}
        model = lively(detection.ssd.SSD(Stem([32]), DefaultBoxGenerator([[2]]), (200, 304), classes, **options))
        last = list(model.head.regression_head.module_list)
    with torch.no_grad():  # else boxes explode
        for layer in last:
            layer.weight.mul_(0.02)
            layer.bias.fill_(0.5 if kind == "fcos" else 0)
    return model


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["faster r-cnn", "retinanet", "fcos", "ssd"])
def test_torchvision_boxes_stay_exact_in_low_precision(kind, precision):
    """No two of a class that overlap are left, those of another class are not taken for them, no steps of pixels."""
    classes = 40
    model = tiny_torchvision(kind, classes)
    keep = torch.arange(classes)
    made = torchvision_models.Detector(model, [f"class {i}" for i in range(classes)], keep, "cpu", precision)
    least = model.roi_heads.nms_thresh if kind == "faster r-cnn" else model.nms_thresh
    draw = torch.Generator().manual_seed(3)
    image = nn.functional.interpolate(torch.rand(1, 3, 20, 30, generator=draw), (200, 304), mode="bicubic")[0]
    [answer] = made([(image.clamp(0, 1) * 255).to(torch.uint8)])
    found = answer["detection"]
    assert len(found.box) > 50
    assert len(found.category.unique()) > 5
    shared = torchvision.ops.box_iou(found.box, found.box) * (found.category[:, None] == found.category)
    assert float(shared.fill_diagonal_(0).max()) <= least + 1e-4
    inside = found.box[(found.box > 1).all(1) & (found.box[:, 2] < 303) & (found.box[:, 3] < 199)]
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert (inside == inside.to(half).float()).float().mean() < 0.1
    # the same boxes as suppression in float32, class by class, would leave of them
    kept = []
    for c in found.category.unique():
        mine = (found.category == c).nonzero()[:, 0]
        kept += mine[torchvision.ops.nms(found.box[mine], found.score[mine], least)].tolist()
    assert sorted(kept) == list(range(len(found.box)))


def test_torchvision_masks(tmp_path, images):
    name = "maskrcnn_resnet50_fpn"
    options = {"weights_backbone": None, "min_size": 64, "max_size": 96}
    model, file = saved(tmp_path, name, 3, **options)
    (tmp_path / "classes.txt").write_text("cup\nhat\n")
    teacher = load_teacher(f"torchvision:{name}@{file}")
    file.unlink()  # 170 MB
    teacher.model.transform.min_size, teacher.model.transform.max_size = (64,), 96
    model.roi_heads.detections_per_img = teacher.model.roi_heads.detections_per_img = 12  # each mask takes its time
    assert teacher.objectives["detection"].space.kind == "boxes and masks"
    for image, answer in zip(images[:2], checked(teacher, images[:2]), strict=True):
        with torch.no_grad():
            (expected,) = model([image / 255])
        assert len(expected["boxes"]) > 0
        torch.testing.assert_close(answer["detection"].box, expected["boxes"], rtol=1e-2, atol=1e-2)
        assert (answer["detection"].mask == (expected["masks"][:, 0] > 0.5)).float().mean() > 0.999


def test_torchvision_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"unknown torchvision model 'resnet51'.*resnet50"):
        load_teacher("torchvision:resnet51")
    with pytest.raises(ValueError, match=r"cannot get https://.*torchvision:resnet18@FILE"):
        load_teacher("torchvision:resnet18")
    _, file = saved(tmp_path, "squeezenet1_1", 4)
    with pytest.raises(ValueError, match=r"4 classes and nothing says their names"):
        load_teacher(f"torchvision:squeezenet1_1@{file}")
    with pytest.raises(ValueError, match=r"for torchvision's mobilenet_v3_small, lacks"):
        load_teacher(f"torchvision:mobilenet_v3_small@{file}")


# --- weights files


def test_broken_weights(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"broken.safetensors cannot be read as weights"):
        state_dict(broken)
    torch.save(torch.nn.Linear(1, 1), tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code.pth holds more than tensors"):
        state_dict(tmp_path / "code.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    with pytest.raises(ValueError, match=r"is not a state dict"):
        state_dict(tmp_path / "numbers.pth")
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ends in '.npz'"):
        state_dict(tmp_path / "weights.npz")
    torch.save({"model": {"module.a": torch.ones(1)}}, tmp_path / "ddp.pth")
    assert list(state_dict(tmp_path / "ddp.pth")) == ["a"]


def test_weights_that_do_not_fit_into_memory(tmp_path):
    """A file of zeros that take no space; reading maps all of it."""
    with open(tmp_path / "zeros.safetensors", "wb") as file:
        file.truncate(2**40)
    script = f"""if True:
        import resource
        from pathlib import Path
        from polyteach.model.student import _fits
        from polyteach.ground.weights import state_dict
        resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))
        for read in (state_dict, lambda file: _fits(file, None)):
            try:
                read(Path({str(tmp_path / "zeros.safetensors")!r}))
            except ValueError as e:
                print(e)
        """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "zeros.safetensors, of 1,099,511,627,776 bytes, does not fit into memory" in done.stdout
    assert "zeros.safetensors cannot be read as weights: Cannot allocate memory" in done.stdout


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def safetensors_of(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "header too small"),
        (safetensors_of(b"{}", length=10**18), "header too large"),
        (safetensors_of(b"{}", length=2**64 - 1), "header too large"),
        (safetensors_of(b"{}", length=200), "invalid header length"),
        (safetensors_of(b'{"a": '), "invalid JSON"),
        (safetensors_of(b"[" * 100_000), "invalid JSON"),
        (safetensors_of(b'{"\xff": 1}'), "invalid UTF-8"),
        (safetensors_of({"a": FLOATS}, b"1234"), "not fully covered"),
        (safetensors_of({"a": FLOATS, "b": FLOATS | {"data_offsets": [4, 12]}}, bytes(12)), "invalid offset"),
        (safetensors_of({"a": FLOATS | {"shape": [2**40, 2**40]}}, bytes(8)), "overflow"),
        (safetensors_of({"a": FLOATS | {"shape": [2**63, 0], "data_offsets": [0, 0]}}), "broken"),
        (safetensors_of({"a": FLOATS | {"shape": [2**62, 0], "data_offsets": [0, 0]}}), "has 0 bytes"),
    ],
)
def test_broken_safetensors_are_refused_in_one_sentence(tmp_path, content, said):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=said) as e:
        state_dict(tmp_path / "a.safetensors")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
@pytest.mark.parametrize("content", [b"", b"[" * 100_000, None])
def test_a_checkpoint_that_is_cut_short_says_so(tmp_path, file, content):
    checkpoints.write(tmp_path, 3, {"model": {"a": torch.ones(2)}}, {"step": 3}, keep=1)
    whole = tmp_path / "step-000000003"
    assert checkpoints.read(whole, lambda *_: None)[0]["model"]["a"].tolist() == [1, 1]
    if content is None and file == "state.json":
        (whole / file).unlink()
    else:
        (whole / file).write_bytes((whole / file).read_bytes()[:-1] if content is None else content)
    with pytest.raises(ValueError, match=r"step-000000003 is broken: .*the same command goes on from the one before"):
        checkpoints.read(whole, lambda *_: None)


def hostile_pickles(folder):
    """Files by name, and what is to be said of each."""
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(1000)}, whole)
    old = io.BytesIO()
    torch.save({"a": torch.zeros(1000)}, old, _use_new_zipfile_serialization=False)
    yield "cut.pth", whole.getvalue()[:2000], "cannot be read as weights"
    yield "old.pth", old.getvalue()[:1000], "cannot be read as weights"
    yield "older.pth", old.getvalue()[:30], "cannot be read as weights: broken"
    yield "empty.pth", b"", "cannot be read as weights: broken"
    yield "text.pth", b"hello world\n" * 9, "cannot be read as weights: broken"
    yield "deep.pth", b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", "cannot be read as weights"
    payload = {"a": Payload(folder / "ran")}
    yield "raw.pth", pickle.dumps(payload), "holds more than tensors"
    for new in (True, False):
        out = io.BytesIO()
        torch.save(payload, out, _use_new_zipfile_serialization=new)
        yield f"payload-{new}.bin", out.getvalue(), "holds more than tensors"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info, data = tarfile.TarInfo(name), pickle.dumps(payload)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    yield "tar.pth", out.getvalue(), r"before 2017 \(a tar\)"
    out = io.BytesIO()
    with zipfile.ZipFile(whole) as given, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for info in given.infolist():
            made.writestr(info.filename, given.read(info))
    yield "packed.pth", out.getvalue(), "is packed"
    out = io.BytesIO()
    torch.save({"a": torch.zeros(1).expand(10**9)}, out)
    yield "one-for-all.pth", out.getvalue(), r"a of shape \(1000000000,\) has 4 bytes"
    out = io.BytesIO()
    torch.save({"a": torch.eye(3).to_sparse()}, out)
    yield "sparse.pth", out.getvalue(), "save it as an ordinary tensor"
    out = io.BytesIO()
    torch.save({1: torch.zeros(1)}, out)
    yield "numbered.pth", out.getvalue(), "is not a state dict"


def test_hostile_pickles_are_refused_in_one_sentence_and_nothing_runs(tmp_path):
    for name, content, said in hostile_pickles(tmp_path):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.*{said}") as e:
            state_dict(tmp_path / name)
        assert "weights_only" not in str(e.value)
        assert "\n" not in str(e.value)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))  # elsewhere it does run
    assert (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="is no file"):
        state_dict(tmp_path)


def test_class_files(tmp_path):
    (tmp_path / "net.json").write_text('{"0": "a", "2": "b"}')
    with pytest.raises(ValueError, match=r"keys must be the class indices 0..1"):
        class_names(tmp_path / "net.pth", 2)
    (tmp_path / "net.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"must hold a list of class names"):
        class_names(tmp_path / "net.pth", 2)
    (tmp_path / "net.json").unlink()
    assert class_names(tmp_path / "net.pth", 2) is None


def test_digest_sees_name_type_and_value():
    one = {"a": torch.ones(2), "b": torch.zeros((), dtype=torch.bfloat16)}
    assert digest(one) == digest(dict(reversed(one.items())))
    others = [
        {"a": one["a"]},
        one | {"a": torch.zeros(2)},
        one | {"b": torch.zeros(())},
        {"c": one["a"], "b": one["b"]},
    ]
    assert len({digest(x) for x in [one, *others]}) == 5


def test_by_shape_and_map_size():
    inputs = [torch.full((i % 2 + 1,), i) for i in range(5)]
    calls = []

    def ask(batch, positions):
        calls.append(len(positions))
        return [int(x[0]) for x in batch]

    assert by_shape(inputs, ask) == [0, 1, 2, 3, 4]
    assert sorted(calls) == [2, 3]
    assert map_size((480, 640), (320, 320)) == (320, 427)
    assert map_size((100, 50), (320, 320)) == (100, 50)
    assert map_size((8, 2000), (2, 2)) == (2, 500)


# --- transformers


def keep(folder, model, processor, licence=None):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if licence:
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n# A model\n")
    return str(folder)


def names(n):
    return {"id2label": {i: f"class {i}" for i in range(n)}, "label2id": {f"class {i}": i for i in range(n)}}


def tiny_vit():
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**size, image_size=32, patch_size=8, **names(3))
    return lively(transformers.ViTForImageClassification(config)), transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}
    )


HOSTILE_JSON = [
    ("config.json", b"[" * 100_000, "nested too deeply"),
    ("config.json", b"[]", "must hold an object"),
    ("config.json", b"\xff", "is not UTF-8"),
    ("config.json", b'{"a": ' + b"1" * 10_000 + b"}", "Exceeds the limit"),
    ("config.json", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, of at most 1,000"),
    ("config.json", {"vision_config": {"depths": [2, 10**9]}}, r"depths is \[2, 1000000000\]"),
    ("config.json", {"num_labels": 10**9, "id2label": None}, "num_labels is 1000000000, of at most 100,000"),
    ("config.json", {"attn_implementation": "them/kernel"}, "attn_implementation 'them/kernel' is code of the hub"),
    ("config.json", {"architectures": {"a": 1}}, "architectures must be a list of names"),
    ("config.json", {"id2label": "abc"}, "gives no AutoConfig"),
    ("config.json", {"hidden_size": "16"}, "gives no AutoConfig"),
    ("config.json", {"num_attention_heads": 0}, "has no usable weights: ZeroDivisionError"),
    ("config.json", {"hidden_act": "curl"}, "has no usable weights: KeyError"),
    ("preprocessor_config.json", b"[", "is not valid JSON"),
    ("preprocessor_config.json", {"size": {"height": 10**6, "width": 10**6}}, "height is 1000000, of at most 8,192"),
    ("model.safetensors.index.json", b"[]", "must hold an object"),
    ("model.safetensors.index.json", {"weight_map": {"a": "../out.safetensors"}}, "lies outside"),
    ("model.safetensors.index.json", {"weight_map": {"a": "/dev/zero"}}, "lies outside"),
    ("model.safetensors.index.json", {"weight_map": [1]}, "weight_map must say the file of each tensor"),
]


@pytest.mark.parametrize(("name", "content", "said"), HOSTILE_JSON)
def test_transformers_folders_of_strangers_are_looked_at_first(tmp_path, name, content, said):
    file = Path(keep(tmp_path / "net", *tiny_vit())) / name
    if isinstance(content, dict):
        before = json.loads(file.read_text()) if file.exists() else {}
        content = json.dumps(before | content).encode()
    file.write_bytes(content)
    with pytest.raises(ValueError, match=said) as e:
        load_teacher(f"transformers:{tmp_path / 'net'}")
    assert "set_int_max" not in str(e.value)


def test_broken_and_pickled_weights_in_a_transformers_folder(tmp_path):
    folder = Path(keep(tmp_path / "net", *tiny_vit()))
    weights, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    whole = weights.read_bytes()
    for broken in (whole[:-8], whole[:100], b"", safetensors_of(b"{}", length=10**18)):
        weights.write_bytes(broken)
        with pytest.raises(ValueError, match="has no usable weights: Error while deserializing header"):
            load_teacher(f"transformers:{folder}")
    weights.unlink()
    for name, content, _ in hostile_pickles(tmp_path):
        if name not in ("numbered.pth", "sparse.pth", "one-for-all.pth"):
            pickled.write_bytes(content)
            with pytest.raises(ValueError, match=r"no usable weights|pytorch_model.bin is") as e:
                load_teacher(f"transformers:{folder}")
            assert "weights_only" not in str(e.value), name
    assert not (tmp_path / "ran").exists()
    torch.save(tiny_vit()[0].state_dict(), pickled)  # tensors alone are read
    assert load_teacher(f"transformers:{folder}").objectives
    (folder / "README.md").write_text("---\nlicense: " + "[" * 100_000 + "\n---\n")
    assert load_teacher(f"transformers:{folder}").licence is None
    os.mkfifo(folder / "more.txt")
    with pytest.raises(ValueError, match=r"more.txt is a pipe, a device or a link to nothing"):
        load_teacher(f"transformers:{folder}")


def test_transformers_classes(tmp_path, images):
    model, processor = tiny_vit()
    teacher = load_teacher(f"transformers:{keep(tmp_path, model, processor, 'mit')}")
    for image, answer in zip(images, checked(teacher, images), strict=True):
        with torch.no_grad():
            expected = model(**processor(pil(image), return_tensors="pt")).logits.softmax(-1)[0]
        torch.testing.assert_close(answer["classification"].probability, expected, rtol=1e-3, atol=1e-4)
    assert teacher.licence == "mit"
    assert len(teacher.sha256) == 64  # of all files: tests/test_transformers.py
    assert teacher.objectives["classification"].space.names == ("class 0", "class 1", "class 2")
    low = load_teacher(f"transformers:{tmp_path}", precision="bf16")
    for a, b in zip(teacher(images), checked(low, images), strict=True):
        torch.testing.assert_close(a["classification"].probability, b["classification"].probability, rtol=0, atol=0.05)


def tiny_detectors():
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    yolos = transformers.YolosConfig(**size, image_size=[64, 64], patch_size=16, num_detection_tokens=8, **names(3))
    edges = {"shortest_edge": 48, "longest_edge": 96}
    resnet = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    detr = transformers.DetrConfig(
        use_timm_backbone=False, backbone=None, use_pretrained_backbone=False, backbone_config=resnet, num_queries=6,
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, **names(3),
    )  # fmt: skip
    return {
        "yolos": lambda: (transformers.YolosForObjectDetection(yolos), transformers.YolosImageProcessor(size=edges)),
        "detr": lambda: (transformers.DetrForObjectDetection(detr), transformers.DetrImageProcessor(size=edges)),
    }


@pytest.mark.parametrize("kind", ["yolos", "detr"])
def test_transformers_boxes(tmp_path, images, kind):
    model, processor = tiny_detectors()[kind]()
    lively(model)
    model.config.id2label[1] = "N/A"
    teacher = load_teacher(f"transformers:{keep(tmp_path, model, processor)}")
    assert teacher.objectives["detection"] == Objective("detection", Space(("class 0", "class 2"), "boxes"))
    seen = 0
    for image, answer in zip(images, checked(teacher, images), strict=True):
        with torch.no_grad():
            out = model(**processor(pil(image), return_tensors="pt"))
        score, category = out.logits.softmax(-1)[0, :, :-1].max(-1)
        real = (score > 0.05) & (category != 1)
        h, w = image.shape[1:]
        cx, cy, bw, bh = out.pred_boxes[0][real].unbind(-1)
        expected = torch.stack([cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2], -1) * torch.tensor([w, h, w, h])
        torch.testing.assert_close(answer["detection"].box, expected, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(answer["detection"].score, score[real], rtol=1e-3, atol=1e-4)
        assert torch.equal(answer["detection"].category, category[real] // 2)
        seen += int(real.sum())
    assert seen > 0
    low = load_teacher(f"transformers:{tmp_path}", precision="bf16")
    checked(low, images[:1])
    with torch.inference_mode():  # an image has few boxes; bfloat16 has 8 bits for a number between 0.5 and 1
        low_boxes = torch.cat([low.outputs(low.inputs(i)[None])["pred_boxes"] for i in images])
        exact = torch.cat([teacher.outputs(teacher.inputs(i)[None])["pred_boxes"] for i in images])
    assert (low_boxes == low_boxes.bfloat16().float()).float().mean() < 0.1
    assert not torch.equal(low_boxes, exact)  # what comes before them is in bfloat16
    torch.testing.assert_close(low_boxes, exact, rtol=0, atol=0.1)


def test_transformers_semantic_maps(tmp_path, images):
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=16,
        mlp_ratios=[2, 2, 2, 2], **names(4),
    )  # fmt: skip
    model = lively(transformers.SegformerForSemanticSegmentation(config))
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})
    teacher = load_teacher(f"transformers:{keep(tmp_path, model, processor)}")
    for image, answer in zip(images, checked(teacher, images), strict=True):
        with torch.no_grad():
            out = model(**processor(pil(image), return_tensors="pt"))
        cells = tuple(answer["segmentation"].category.shape)
        (expected,) = processor.post_process_semantic_segmentation(out, target_sizes=[cells])
        assert cells == map_size(tuple(image.shape[1:]), (64, 64))
        assert (answer["segmentation"].category == expected).float().mean() > 0.995
        assert len(answer["segmentation"].category.unique()) > 1
    checked(load_teacher(f"transformers:{tmp_path}", precision="bf16"), images[:1])


COCO = [
    n
    for n in torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    if n not in ("__background__", "N/A")
]


def tiny_mask2former(labels):
    swin = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], image_size=64, window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=5,
        id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)},
    )  # fmt: skip
    return lively(transformers.Mask2FormerForUniversalSegmentation(config))


def test_transformers_panoptic(tmp_path, images):
    """The map is the library's own; things come as boxes with masks where the classes are COCO's."""
    model = tiny_mask2former([*COCO, "sky-other-merged", "grass-merged"])
    with torch.no_grad():
        model.class_predictor.weight.mul_(3)
    processor = transformers.Mask2FormerImageProcessor(size={"height": 64, "width": 64}, size_divisor=32)
    teacher = load_teacher(f"transformers:{keep(tmp_path, model, processor)}")
    assert teacher.objectives["detection"].space == Space(tuple(COCO), "boxes and masks")
    assert len(teacher.objectives["segmentation"].space.names) == 82
    large = nn.functional.interpolate(images[0][None], (384, 384))[0]  # the size at which the library decides
    answer = checked(teacher, [*images, large])[-1]
    with torch.no_grad():
        out = model(**processor(pil(large), return_tensors="pt"))
    (expected,) = processor.post_process_semantic_segmentation(out, target_sizes=[(384, 384)])
    assert (answer["segmentation"].category == expected).float().mean() > 0.99
    target = answer["detection"]
    assert len(target.box) > 0
    for box, mask in zip(target.box, target.mask, strict=True):
        ys, xs = mask.nonzero().unbind(1)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    checked(load_teacher(f"transformers:{tmp_path}", precision="bf16"), images[:1])


def test_transformers_panoptic_without_known_things(tmp_path, images):
    model = tiny_mask2former(["wall", "floor", "lamp"])
    processor = transformers.Mask2FormerImageProcessor(size={"shortest_edge": 48, "longest_edge": 96}, size_divisor=32)
    teacher = load_teacher(f"transformers:{keep(tmp_path, model, processor)}")
    assert set(teacher.objectives) == {"segmentation"}
    checked(teacher, images)


def test_transformers_panoptic_of_the_older_families(tmp_path, images):
    """MaskFormer and DETR name their outputs differently and answer alike."""
    body = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    detr = transformers.DetrConfig(
        use_timm_backbone=False, backbone=None, backbone_config=body, num_queries=6, d_model=32, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=16, decoder_ffn_dim=16,
        **names(4),
    )  # fmt: skip
    maskformer = transformers.MaskFormerConfig(
        backbone_config=body, decoder_config=detr, fpn_feature_size=32, mask_feature_size=32, **names(4)
    )
    edges = {"shortest_edge": 48, "longest_edge": 96}
    for model, processor in [
        (transformers.DetrForSegmentation(detr), transformers.DetrImageProcessor(size=edges)),
        (
            transformers.MaskFormerForInstanceSegmentation(maskformer),
            transformers.MaskFormerImageProcessor(size=edges, size_divisor=32),
        ),
    ]:
        folder = tmp_path / type(model).__name__
        teacher = load_teacher(f"transformers:{keep(folder, lively(model), processor)}")
        answers = checked(teacher, images)
        assert teacher.objectives["segmentation"].space.names == tuple(f"class {i}" for i in range(4))
        for image, answer in zip(images, answers, strict=True):
            assert answer["segmentation"].category.shape == image.shape[1:]


def test_transformers_crops_no_map(tmp_path, images):
    """A processor that would cut out the centre is told not to: the map covers the whole image, as it does alone."""
    config = transformers.MobileViTConfig(
        hidden_sizes=[8, 8, 8], neck_hidden_sizes=[8] * 7, num_attention_heads=2, image_size=64, patch_size=2,
        output_stride=16, aspp_out_channels=8, atrous_rates=[2, 3, 4], **names(3),
    )  # fmt: skip
    crop = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    processor = transformers.MobileViTImageProcessor(**crop)
    model = lively(transformers.MobileViTForSemanticSegmentation(config))
    with torch.no_grad():
        model.segmentation_head.classifier.convolution.weight.mul_(1e7)  # its many layers leave nearly nothing
    teacher = load_teacher(f"transformers:{keep(tmp_path, model, processor)}")
    checked(teacher, images)
    with torch.no_grad():
        inputs = processor(pil(images[1]), return_tensors="pt", do_center_crop=False)
        assert inputs["pixel_values"].shape[2] > 64  # 64x40 becomes 102x64
        (expected,) = processor.post_process_semantic_segmentation(model(**inputs), target_sizes=[(64, 40)])
    assert (teacher(images)[1]["segmentation"].category == expected).float().mean() > 0.995
    with pytest.raises(ValueError, match=r"too thin"):
        teacher([torch.zeros(3, 8, 400, dtype=torch.uint8)])


@pytest.mark.parametrize(("top", "left"), [(0, 0), (5, 9)])
def test_padding_is_cut_off(top, left):
    """Maps are over the padded input: a ramp over it begins and ends where the image does."""
    ramp = torch.arange(16).float().expand(1, 8, 16)
    x = torch.zeros(4, 32, 64)
    x[3, top : top + 20, left : left + 48] = 1
    cut = unpadded(ramp, x)
    assert cut.shape == (1, 20, 48)
    assert abs(float(cut[0, 0, -1]) - ((left + 47.5) / 4 - 0.5)) < 1e-4
    assert unpadded(ramp, x[:3]) is ramp


@pytest.mark.parametrize(("top", "left"), [(0, 0), (5, 9)])
def test_boxes_of_the_padded_input_are_counted_from_the_images_corner(top, left):
    """An image of 40x96 is seen half as large somewhere in an input of 32x64: its own frame is the box of all of it."""
    x = torch.zeros(4, 32, 64)
    x[3, top : top + 20, left : left + 48] = 1
    height, width, *corner = frame_of((40, 96), x)
    fractions = torch.tensor([left / 64, top / 32, (left + 48) / 64, (top + 20) / 32])
    found = {
        "boxes": (fractions * torch.tensor([width, height, width, height]))[None],
        "labels": torch.tensor([0]),
        "scores": torch.tensor([0.5]),
    }
    teacher = object.__new__(transformers_models.Detector)
    teacher.keep = torch.tensor([0])
    assert teacher.target(found, (corner[0], corner[1])).box.tolist() == [[0, 0, 96, 40]]


def shown_by(change):
    """A teacher of which only the processor is there: what `change` makes of (3, H, W) float, then normalised."""
    teacher = object.__new__(transformers_models.Segmenter)
    teacher.place = "here"
    teacher.processor = lambda images, **_: {"pixel_values": [change(images[0].float()) / 58 - 2]}
    return teacher


SHOWN_WHOLE = {
    "stretched": (lambda x: kernels.resize(x, [20, 60]), (0, 0, 20, 60)),
    "padded at the end": (lambda x: nn.functional.pad(x, (0, 12, 0, 5)), (0, 0, 33, 47)),
    "padded with white around": (lambda x: nn.functional.pad(x, (6, 7, 3, 2), value=255), (3, 6, 33, 47)),
    "resized and padded": (lambda x: nn.functional.pad(kernels.resize(x, [66, 94]), (1, 1, 8, 0)), (8, 1, 66, 94)),
}
SHOWN_OTHERWISE = {
    "mirrored padding": lambda x: nn.functional.pad(x, (9, 9, 9, 9), mode="reflect"),
    "cropped": lambda x: kernels.center_crop(x, [28, 40]),
    "mirrored": lambda x: x.flip(-1),
    "turned": lambda x: x.transpose(1, 2),
    "one side cut": lambda x: x[:, :, 5:],
    "blank": lambda x: torch.zeros_like(x),
}


@pytest.mark.parametrize("way", SHOWN_WHOLE)
def test_where_a_processor_puts_an_image_is_measured(way):
    change, place = SHOWN_WHOLE[way]
    assert shown_by(change).measured((33, 47)) == place


@pytest.mark.parametrize("way", SHOWN_OTHERWISE)
def test_a_processor_that_shows_another_picture_is_refused(way):
    with pytest.raises(ValueError, match=r"does not show the whole image of 33x47 .* preprocessor_config.json"):
        shown_by(SHOWN_OTHERWISE[way]).measured((33, 47))


PADS = {"do_resize": False, "do_pad": True, "size_divisor": 14}


def dpt_that_pads():
    """DPT with a processor that keeps the size and pads around to multiples of 14, as DINOv2's depth models."""
    stages = [f"stage{i}" for i in (1, 2, 3, 4)]
    dinov2 = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=42, patch_size=14, out_features=stages,
        reshape_hidden_states=False, apply_layernorm=False,
    )  # fmt: skip
    made = transformers.DPTConfig(
        backbone_config=dinov2, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, hidden_size=16,
        reassemble_factors=[4, 2, 1, 0.5], add_projection=False,
    )  # fmt: skip
    return lively(transformers.DPTForDepthEstimation(made)), transformers.DPTImageProcessor(**PADS)


def padded(processor, image):
    """The input, and which part of it shows the image, which lies in the middle."""
    x = processor(images=[image], return_tensors="pt", input_data_format="channels_first")["pixel_values"]
    (h, w), (ph, pw) = image.shape[1:], x.shape[-2:]
    top, left = (ph - h) // 2, (pw - w) // 2
    return x, (slice(None), slice(top, top + h), slice(left, left + w))


def test_transformers_depth_without_the_padding(tmp_path, images):
    model, processor = dpt_that_pads()
    teacher = load_teacher(f"transformers:{keep(tmp_path, model, processor)}")
    for image, answer in zip(images, checked(teacher, images), strict=True):
        x, part = padded(processor, image)
        assert x.shape[-2:] != image.shape[1:]
        with torch.no_grad():
            depth = model(pixel_values=x).predicted_depth
        whole = nn.functional.interpolate(depth[:, None], x.shape[-2:], mode="bicubic")[0]
        expected, value = whole[part][0], answer["depth"].value
        value = nn.functional.interpolate(value[None, None], expected.shape, mode="bicubic")[0, 0]
        torch.testing.assert_close(value, expected, rtol=0, atol=0.05 * float(expected.std()))


def test_transformers_regions_without_the_padding(tmp_path, images):
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, **names(4),
    )  # fmt: skip
    model = lively(transformers.SegformerForSemanticSegmentation(config))
    processor = transformers.DPTImageProcessor(**PADS)
    teacher = load_teacher(f"transformers:{keep(tmp_path, model, processor)}")
    for image, answer in zip(images, checked(teacher, images), strict=True):
        x, part = padded(processor, image)
        with torch.no_grad():
            logits = model(pixel_values=x).logits
        expected = nn.functional.interpolate(logits, x.shape[-2:], mode="bilinear")[0][part].softmax(0).max(0)
        target = answer["segmentation"]
        assert target.category.shape == image.shape[1:]
        assert (target.category == expected.indices).float().mean() > 0.999
        torch.testing.assert_close(target.probability, expected.values, rtol=1e-3, atol=1e-4)


def test_transformers_boxes_without_the_padding(tmp_path, images):
    """What YOLOS answers are fractions of all that it sees, of which the image may be a part."""
    model, _ = tiny_detectors()["yolos"]()
    lively(model)
    edges, canvas = {"shortest_edge": 48, "longest_edge": 96}, {"height": 112, "width": 128}
    processor = transformers.YolosImageProcessor(size=edges, pad_size=canvas)
    teacher = load_teacher(f"transformers:{keep(tmp_path, model, processor)}")
    for image, answer in zip(images, checked(teacher, images), strict=True):
        made = processor(images=[image], return_tensors="pt", input_data_format="channels_first", do_pad=False)
        seen = made["pixel_values"]
        h, w = seen.shape[-2:]
        x = nn.functional.pad(seen, (0, 128 - w, 0, 112 - h))
        with torch.no_grad():
            out = model(pixel_values=x)
        score, category = out.logits.softmax(-1)[0, :, :-1].max(-1)
        real = score > 0.05
        boxes = torchvision.ops.box_convert(out.pred_boxes[0][real], "cxcywh", "xyxy")
        scale = torch.tensor([128 * image.shape[2] / w, 112 * image.shape[1] / h]).repeat(2)
        torch.testing.assert_close(answer["detection"].box, boxes * scale, rtol=1e-3, atol=1e-2)
        assert torch.equal(answer["detection"].category, category[real])


def test_transformers_refuses_boxes_of_a_frame_that_is_not_known(tmp_path):
    model, _ = tiny_detectors()["detr"]()
    edges, canvas = {"shortest_edge": 48, "longest_edge": 96}, {"height": 112, "width": 128}
    processor = transformers.DetrImageProcessor(size=edges, pad_size=canvas)
    with pytest.raises(ValueError, match=r"pads images, and nothing says whether .* fractions of .* pad_size to null"):
        load_teacher(f"transformers:{keep(tmp_path, model, processor)}")


@pytest.mark.parametrize(
    ("labels", "said"),
    [({"num_labels": 1}, "1 outputs"), ({"num_labels": 3, "problem_type": "regression"}, "'regression' and 3 outputs")],
)
def test_transformers_refuses_values_as_classes(tmp_path, labels, said):
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        **labels,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    with pytest.raises(ValueError, match=rf"is no classifier: .*{said}"):
        load_teacher(f"transformers:{keep(tmp_path, model, transformers.ViTImageProcessor())}")


@pytest.mark.parametrize("numbers", [(1, 2, 3), (0, 1, 3)])
def test_transformers_refuses_classes_that_are_not_numbered_as_the_outputs(tmp_path, numbers):
    model, processor = tiny_vit()
    folder = keep(tmp_path, model, processor)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {str(n): f"class {n}" for n in numbers}
    config["label2id"] = {f"class {n}": n for n in numbers}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"config.json: id2label names 3 classes by .* {numbers[0]} to 3; .* 0 to 2"):
        load_teacher(f"transformers:{folder}")


def tiny_dpt():
    config = transformers.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False,
        reassemble_factors=[4, 2, 1, 0.5],
    )  # fmt: skip
    return lively(transformers.DPTForDepthEstimation(config)), transformers.DPTImageProcessor(
        size={"height": 32, "width": 32}
    )


def test_transformers_depth(tmp_path, images):
    model, processor = tiny_dpt()
    teacher = load_teacher(f"transformers:{keep(tmp_path, model, processor)}")
    assert teacher.objectives["depth"] == Objective("depth", Space((), "relative inverse"))
    for image, answer in zip(images, checked(teacher, images), strict=True):
        with torch.no_grad():
            depth = model(**processor(pil(image), return_tensors="pt")).predicted_depth
        cells = map_size(tuple(image.shape[1:]), tuple(depth.shape[1:]))
        expected = nn.functional.interpolate(depth[:, None], cells, mode="bicubic")[0, 0]
        torch.testing.assert_close(answer["depth"].value, expected, rtol=1e-3, atol=1e-3)
        assert answer["depth"].valid.all()
    assert answer["depth"].value.std() > 0
    checked(load_teacher(f"transformers:{tmp_path}", precision="bf16"), images[:1])


def test_transformers_metric_depth(tmp_path, images):
    dino = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=dino, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        head_hidden_size=8, patch_size=14, depth_estimation_type="metric", max_depth=20,
    )  # fmt: skip
    model = lively(transformers.DepthAnythingForDepthEstimation(config))
    processor = transformers.DPTImageProcessor(
        size={"height": 42, "width": 42}, keep_aspect_ratio=True, ensure_multiple_of=14
    )
    teacher = load_teacher(f"transformers:{keep(tmp_path, model, processor)}")
    assert teacher.objectives["depth"].space.kind == "metric"
    for answer in checked(teacher, images):
        assert 1 < answer["depth"].value.mean() < 20  # a sigmoid of noise times max_depth


def test_transformers_never_random(tmp_path, images):
    """Weights that lack what the answer needs are refused; those that lack what is never run are not."""
    model, processor = tiny_dpt()
    folder = keep(tmp_path, model, processor)
    state = state_dict(tmp_path / "model.safetensors")
    unused = {k: v for k, v in state.items() if "fusion_stage.layers.0.residual_layer1" not in k}
    assert len(unused) < len(state)
    save_file(unused, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with torch.no_grad():
        expected = load_teacher(f"transformers:{folder}")(images)[0]["depth"].value
    torch.testing.assert_close(expected, _depth(model, processor, images[0]), rtol=1e-3, atol=1e-3)
    used = {k: v for k, v in state.items() if not k.startswith("head.head.2")}
    save_file(used, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"no weights for head.head.2.bias, head.head.2.weight: .*random"):
        load_teacher(f"transformers:{folder}")


def _depth(model, processor, image):
    with torch.no_grad():
        depth = model(**processor(pil(image), return_tensors="pt")).predicted_depth
    cells = map_size(tuple(image.shape[1:]), tuple(depth.shape[1:]))
    return nn.functional.interpolate(depth[:, None], cells, mode="bicubic")[0, 0]


def test_transformers_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*no/such/folder"):
        load_teacher("transformers:no/such/folder")
    with pytest.raises(ValueError, match=r"neither a folder nor.*owner/model.*gives no AutoConfig"):
        load_teacher("transformers:owner/model")
    with pytest.raises(ValueError, match=r"gives no AutoConfig"):
        load_teacher(f"transformers:{tmp_path}")
    model, processor = tiny_vit()
    keep(tmp_path, model, processor)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"gives no AutoImageProcessor"):
        load_teacher(f"transformers:{tmp_path}")
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"names no architectures; a model of timm's is timm:hf-hub:"):
        load_teacher(f"transformers:{tmp_path}")
    config["architectures"] = ["ViTModel"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"is a ViTModel; teachers are image classifiers"):
        load_teacher(f"transformers:{tmp_path}")


# --- onnx


@pytest.fixture
def means(tmp_path):
    """A graph whose logits are the means of its three input channels, of any batch."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    x, y = (TensorProto.FLOAT, ["b", 3, 8, 8]), (TensorProto.FLOAT, ["b", 3])
    return graph(tmp_path / "means.onnx", nodes, {"x": x}, {"y": y})


def test_onnx_classes(means, images):
    about = {"task": "classification", "names": ["r", "g", "b"], "licence": "CC0"}
    teacher = load_teacher(describe(means, **about, input={"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}))
    for image, answer in zip(images, checked(teacher, images), strict=True):
        mean = image.float().mean((1, 2)) / 255  # stretching keeps the mean, nearly
        expected = ((mean - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.3, 0.4])).softmax(0)
        torch.testing.assert_close(answer["classification"].probability, expected, rtol=0, atol=0.01)
    assert (teacher.licence, teacher.sha256) == ("CC0", sha256(means))


def test_onnx_colour_range_and_crop(means):
    """A picture, grey left and right of a red centre: a crop sees the red only, as channel 2 of BGR."""
    image = torch.full((3, 20, 60), 128, dtype=torch.uint8)
    image[:, :, 20:40] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    about = {"task": "classification", "names": ["b", "g", "r"]}
    ways = {"colour": "BGR", "range": [-1, 1], "resize": "crop"}
    (answer,) = load_teacher(describe(means, **about, input=ways))([image])
    expected = torch.tensor([-1.0, -1.0, 1.0]).softmax(0)
    torch.testing.assert_close(answer["classification"].probability, expected, rtol=0, atol=0.02)
    low = load_teacher(describe(means, **about, input={"range": "max"}))([image // 2])[0]["classification"]
    grey = image.float().mean((1, 2)) / 255
    torch.testing.assert_close(low.probability, grey.softmax(0), rtol=0, atol=0.01)


def boxes_graph(file, boxes, scores, classes=None):
    """A graph for one NHWC image that always answers the same."""
    values = {"boxes": boxes, "scores": scores} | ({} if classes is None else {"classes": classes})
    arrays = {k: np.asarray(v, np.float32) for k, v in values.items()}
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0), helper.make_node("Mul", ["m", "0"], ["z"])]
    nodes += [helper.make_node("Add", [f"{k} constant", "z"], [k]) for k in arrays]
    outputs = {k: (TensorProto.FLOAT, v.shape) for k, v in arrays.items()}
    constants = [("0", np.float32(0)), *((f"{k} constant", v) for k, v in arrays.items())]
    return graph(file, nodes, {"x": (TensorProto.FLOAT, [1, 40, 40, 3])}, outputs, constants)


@pytest.mark.parametrize("place", ["top left", "centre"])
def test_onnx_boxes_of_a_fitted_image(tmp_path, place):
    """A 20x80 picture fits 40x40 as 10x40; a box there is twice as large on the picture."""
    top = 15 if place == "centre" else 0
    box = [[(top + 2) / 40, 4 / 40, (top + 8) / 40, 20 / 40], [0, 0, 1, 1], [0, 0, 0.1, 0.1]]
    file = boxes_graph(tmp_path / "boxes.onnx", [box], [[0.9, 0.8, 0.01]], [[1, 2, 1]])
    spec = describe(
        file,
        task="detection",
        names=["cup", "hat"],
        input={"layout": "NHWC", "resize": "fit", "place": place, "fill": 114},
        output={"boxes": "boxes", "scores": "scores", "classes": "classes", "first_class": 1, "format": "yxyx",
                "unit": "fraction"},
    )  # fmt: skip
    teacher = load_teacher(spec)
    wide = torch.zeros(3, 20, 80, dtype=torch.uint8)
    target = checked(teacher, [wide, torch.zeros(3, 33, 20, dtype=torch.uint8)])[0]["detection"]
    torch.testing.assert_close(target.box[0], torch.tensor([8.0, 4.0, 40.0, 16.0]))
    assert target.category.tolist() == [0, 1]
    torch.testing.assert_close(target.score, torch.tensor([0.9, 0.8]))


def test_onnx_boxes_with_scores_per_class_and_overlap(tmp_path):
    box = [[20, 20, 20, 20], [21, 20, 20, 20], [20, 20, 20, 20]]
    scores = [[3, -3], [2, -3], [-3, 1]]
    file = boxes_graph(tmp_path / "boxes.onnx", [box], [scores])
    output = {"boxes": "boxes", "scores": "scores", "format": "cxcywh", "values": "logits", "overlap": 0.5}
    about = {"task": "detection", "names": ["cup", "hat"], "input": {"layout": "NHWC"}}
    target = load_teacher(describe(file, **about, output=output))([torch.zeros(3, 80, 40, dtype=torch.uint8)])[0]
    target = target["detection"]
    assert target.box.tolist() == [[10, 20, 30, 60], [10, 20, 30, 60]]
    assert target.category.tolist() == [0, 1]
    torch.testing.assert_close(target.score, torch.tensor([3.0, 1.0]).sigmoid())


@pytest.fixture
def brightness(tmp_path):
    """A graph of any size whose map is the mean of the channels, (b, 1, h, w)."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1)]
    x, y = (TensorProto.FLOAT, ["b", 3, "h", "w"]), (TensorProto.FLOAT, ["b", 1, "h", "w"])
    return graph(tmp_path / "brightness.onnx", nodes, {"x": x}, {"y": y})


@pytest.mark.parametrize("ways", [{}, {"size": [48, 48]}, {"size": [48, 48], "resize": "fit", "place": "centre"}])
def test_onnx_foreground(brightness, ways):
    """The right half of the picture is bright, at any input size."""
    teacher = load_teacher(
        describe(brightness, task="segmentation", input=ways, output={"values": "foreground", "stretch": True})
    )
    assert teacher.objectives["segmentation"].space.names == ("background", "salient object")
    shapes = [(32, 96), (64, 64), (96, 32)]
    pictures = [torch.full((3, h, w), 60, dtype=torch.uint8) for h, w in shapes]
    for p in pictures:
        p[:, :, p.shape[2] // 2 :] = 160
    for answer in checked(teacher, pictures):
        target = answer["segmentation"]
        half = target.category.shape[1] // 2
        assert (target.category[:, : half - 2] == 0).all()
        assert (target.category[:, half + 2 :] == 1).all()
        assert target.probability.min() >= 0.5
        if not ways.get("resize"):
            assert target.probability[:, -1].min() > 0.95


def test_onnx_depth(brightness, images):
    about = {"task": "depth", "kind": "metric", "input": {"multiple": 8}}
    spec = describe(brightness, **about, output={"map": "y", "factor": 4, "inverted": True})
    teacher = load_teacher(spec)
    assert teacher.objectives["depth"] == Objective("depth", Space((), "metric"))
    (answer,) = checked(teacher, [torch.full((3, 16, 24), 51, dtype=torch.uint8)])
    torch.testing.assert_close(answer["depth"].value, torch.full((16, 24), 1 / (4 * 0.2)))
    checked(teacher, images)


def test_onnx_semantic_classes(tmp_path):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    x = (TensorProto.FLOAT, [1, 3, 16, 16])
    file = graph(tmp_path / "same.onnx", nodes, {"x": x}, {"y": x})
    teacher = load_teacher(describe(file, task="segmentation", names=["r", "g", "b"], input={"range": [0, 20]}))
    image = torch.zeros(3, 16, 32, dtype=torch.uint8)
    image[1, :, :16], image[2, :, 16:] = 255, 255
    (answer,) = checked(teacher, [image])
    assert answer["segmentation"].category.shape == (16, 32)
    assert answer["segmentation"].category[:, [0, 31]].unique(dim=0).tolist() == [[1, 2]]


@pytest.mark.parametrize("many", [0, 1, 2, 5])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("classes", [False, True])
def test_onnx_any_number_of_boxes_with_and_without_a_batch(tmp_path, many, batch, classes):
    """One box is (1, 4) without a batch, as a batch of one without boxes' dimension would be."""
    box = np.arange(many)[:, None] + np.array([[2, 3, 20, 30]])
    score = np.full(many, 0.9) if classes else np.tile([0.1, 0.9], (many, 1))
    found = {"boxes": box, "scores": score} | ({"classes": np.ones(many)} if classes else {})
    if batch:
        found = {k: v[None] for k, v in found.items()}
    file = constant(tmp_path / "boxes.onnx", found | {"count": np.float32(many)})
    output = {k: k for k in found} | {"count": "count"}
    teacher = load_teacher(describe(file, task="detection", names=["cup", "hat"], output=output))
    for answer in checked(teacher, [torch.zeros(3, 40, 40, dtype=torch.uint8)] * 2):
        assert answer["detection"].box.tolist() == box.tolist()
        assert answer["detection"].category.tolist() == [1] * many


@pytest.mark.parametrize("shape", [(1, 1, 5, 7), (1, 5, 7), (5, 7), (5, 7, 1), (1, 5, 7, 1)])
def test_onnx_maps_with_and_without_batch_and_channel(tmp_path, shape):
    plane = np.arange(35).reshape(shape)
    teacher = load_teacher(describe(constant(tmp_path / "map.onnx", {"map": plane}), task="depth"))
    (answer,) = teacher([torch.zeros(3, 50, 70, dtype=torch.uint8)])
    assert torch.equal(answer["depth"].value, torch.arange(35.0).view(5, 7))


@pytest.mark.parametrize(
    ("kind", "given", "low"), [("UINT8", 255, 0), ("INT32", 255, 0), ("INT64", 255, 0), ("INT8", 127, -128)]
)
def test_onnx_integers_have_the_range_of_integers(tmp_path, kind, given, low):
    """Neither 0 and 1, nor bytes beyond the type."""
    kind = getattr(TensorProto, kind)
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("ReduceMean", ["f"], ["y"], axes=[2, 3], keepdims=0)]
    file = graph(tmp_path / "whole.onnx", nodes, {"x": (kind, ["b", 3, 8, 8])}, {"y": (TensorProto.FLOAT, ["b", 3])})
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[0], image[1] = 255, 100
    about = {"task": "classification", "names": ["r", "g", "b"]}
    (answer,) = load_teacher(describe(file, **about))([image])
    expected = torch.tensor([float(given), 100 + low, low]).softmax(0)
    torch.testing.assert_close(answer["classification"].probability, expected)
    with pytest.raises(ValueError, match=r"input: range, of an input of u?int\d+, leaves 2 values of 256"):
        load_teacher(describe(file, **about, input={"range": [0, 1]}))


def test_onnx_takes_half_precision_from_the_graph(tmp_path):
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    x, y = (TensorProto.FLOAT16, ["b", 3, 8, 8]), (TensorProto.FLOAT16, ["b", 3])
    file = graph(tmp_path / "half.onnx", nodes, {"x": x}, {"y": y})
    about = {"task": "classification", "names": ["r", "g", "b"]}
    (answer,) = checked(load_teacher(describe(file, **about)), [torch.full((3, 9, 9), 51, dtype=torch.uint8)])
    torch.testing.assert_close(answer["classification"].probability, torch.full((3,), 1 / 3))
    with pytest.raises(ValueError, match=r"half.json: input: dtype is 'float32'; the graph takes float16"):
        load_teacher(describe(file, **about, input={"dtype": "float32"}))


def test_onnx_input_of_one_picture_without_a_batch(tmp_path, images):
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)]
    file = graph(
        tmp_path / "one.onnx", nodes, {"x": (TensorProto.FLOAT, [3, "h", "w"])}, {"y": (TensorProto.FLOAT, [3])}
    )
    teacher = load_teacher(describe(file, task="classification", names=["r", "g", "b"]))
    for image, answer in zip(images, checked(teacher, images), strict=True):
        expected = (image.float().mean((1, 2)) / 255).softmax(0)
        torch.testing.assert_close(answer["classification"].probability, expected, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("shape", "kind", "said"),
    [
        ([8, 3, 16, 16], "FLOAT", r"its input x takes batches of exactly 8 images; export"),
        ([3, 16], "FLOAT", r"its input x has rank 2, \[3, 16\]; an image's is 4"),
        ([1, 16, 16, 3], "FLOAT", r"by layout NCHW with 16 channels, not 3 of colour; layout NHWC may be meant"),
        ([1, 3, 16, 16], "BFLOAT16", r"its input x is a tensor\(bfloat16\); known are tensor\(float\)"),
    ],
)
def test_onnx_says_at_once_what_the_graph_shows(tmp_path, shape, kind, said):
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Reshape", ["f", "flat"], ["y"])]
    x = (getattr(TensorProto, kind), shape)
    file = graph(tmp_path / "odd.onnx", nodes, {"x": x}, {"y": (TensorProto.FLOAT, ["n"])}, [("flat", np.array([-1]))])
    with pytest.raises(ValueError, match=said):
        load_teacher(describe(file, task="classification", names=["a", "b"]))


def test_onnx_says_at_once_which_output_cannot_be_what_is_said(tmp_path, brightness):
    file = constant(tmp_path / "yolo.onnx", {"output0": np.zeros((1, 6, 50))})
    output = {"boxes": "output0", "scores": "output0"}
    with pytest.raises(ValueError, match=r"output output0 has shape \[1, 6, 50\]; boxes are .* as YOLO exports them"):
        load_teacher(describe(file, task="detection", names=["a", "b"], output=output))
    grid = constant(tmp_path / "grid.onnx", {"cells": np.zeros((1, 85, 22, 22))})
    with pytest.raises(ValueError, match=r"boxes are .* A grid .* are not decoded yet: .*python:FILE\.py:FUNCTION"):
        load_teacher(describe(grid, task="detection", names=["a"], output={"boxes": "cells", "scores": "cells"}))
    with pytest.raises(ValueError, match=r"output y has shape \['b', 1, 'h', 'w'\], 1 classes; there are 2 names"):
        load_teacher(describe(brightness, task="segmentation", names=["a", "b"]))
    with pytest.raises(
        ValueError, match=r"output output0 has shape \[1, 6, 50\], 300 scores for an image; there are 6"
    ):
        load_teacher(describe(file, task="classification", names=list("abcdef")))


def test_onnx_weights_beside_the_graph_are_part_of_the_hash(tmp_path):
    """They change, and the graph stays, byte by byte."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0)]
    nodes += [helper.make_node("MatMul", ["m", "w"], ["y"])]
    x, y = (TensorProto.FLOAT, ["b", 3, 8, 8]), (TensorProto.FLOAT, ["b", 3])
    seen = []
    for weights in (np.eye(3), np.eye(3)[::-1]):
        file = graph(tmp_path / "m.onnx", nodes, {"x": x}, {"y": y}, [("w", weights.astype(np.float32))])
        inside = sha256(file)
        spec = describe(file, task="classification", names=["a", "b", "c"])
        assert load_teacher(spec).sha256 == inside
        (tmp_path / "m.data").unlink(missing_ok=True)
        beside = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0}
        onnx.save_model(onnx.load(file), file, **beside)
        seen.append((sha256(file), load_teacher(spec).sha256))
    assert seen[0][0] == seen[1][0]
    assert len({seen[0][0], seen[0][1], seen[1][1]}) == 3
    # as the hub keeps what it has loaded: a folder of links to files that are called otherwise
    cache, blobs = tmp_path / "snapshots", tmp_path / "blobs"
    cache.mkdir()
    blobs.mkdir()
    for name in ("m.onnx", "m.data"):
        (tmp_path / name).rename(blobs / name[-4:])
        (cache / name).symlink_to(blobs / name[-4:])
    linked = load_teacher(describe(cache / "m.onnx", task="classification", names=["a", "b", "c"]))
    assert linked.sha256 == seen[1][1]


@pytest.mark.parametrize("place", ["../blobs/data", "/data", "gone"])
def test_onnx_weights_elsewhere_than_below_the_graph_are_refused(tmp_path, place, monkeypatch):
    """Also where ONNX Runtime would read them."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], b"\0\0\0\0", raw=True)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=place)
    file = tmp_path / "in" / "m.onnx"
    file.parent.mkdir()
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "data").write_bytes(b"1234")
    made = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [], [tensor])
    file.write_bytes(helper.make_model(made).SerializeToString())
    said = f"there is no file '{place}' in" if place == "gone" else f"the file '{place}' lies outside"
    with pytest.raises(ValueError, match=f"m.onnx keeps weights elsewhere: {said}"):
        _hashed(file)
    (file.parent / "link").symlink_to("../blobs/data")
    del made.initializer[0].external_data[:]
    made.initializer[0].external_data.add(key="location", value="link")
    file.write_bytes(helper.make_model(made).SerializeToString())
    with pytest.raises(ValueError, match="the file 'link' lies outside"):
        _hashed(file)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (None, r"input: size is missing: the graph takes \[8, 'w'\] \(height, width\), of which one side is fixed"),
        ([16, 24], r"input: size is \[16, 24\]; the graph takes \[8, 'w'\] \(height, width\)"),
        ([8, 24], ""),
    ],
)
def test_onnx_of_which_one_side_is_fixed(tmp_path, images, size, said):
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    x, y = (TensorProto.FLOAT, ["b", 3, 8, "w"]), (TensorProto.FLOAT, ["b", 3])
    file = graph(tmp_path / "wide.onnx", nodes, {"x": x}, {"y": y})
    about = {"task": "classification", "names": ["a", "b", "c"]} | ({"input": {"size": size}} if size else {})
    if said:
        with pytest.raises(ValueError, match=said):
            load_teacher(describe(file, **about))
    else:
        checked(load_teacher(describe(file, **about)), images)


def test_onnx_refuses(means, tmp_path, images):
    good = {"task": "classification", "names": ["r", "g", "b"]}
    with pytest.raises(ValueError, match=r"has no description beside it \(means.onnx.json or means.onnx.yaml\)"):
        load_teacher(f"onnx:{means}")
    for about, message in [
        (good | {"nams": 1}, r"means.json: unknown key 'nams'; allowed are task, layout, names"),
        (good | {"task": "clasification"}, r"task is 'clasification'; allowed are classification, detection"),
        (good | {"input": {"colour": "GBR"}}, r"input: colour is 'GBR'; allowed are RGB, BGR"),
        (good | {"input": {"padding": 1}}, r"unknown key input: 'padding'; allowed are name, size"),
        (good | {"input": {"size": [9, 9]}}, r"size is \[9, 9\]; the graph takes \[8, 8\]"),
        (good | {"input": {"mean": "x"}}, r"mean must be 1 or 3 numbers; got 'x'"),
        (good | {"input": {"fill": 3}}, r"fill is only for resize fit"),
        (good | {"output": {"boxes": "y"}}, r"unknown key output: 'boxes'; allowed are scores, values"),
        (good | {"output": {"scores": "z"}}, r"output: scores is 'z'; allowed are y"),
        (good | {"names": "no.txt"}, r"names: there is no file 'no.txt' in"),
        (good | {"input": {"mean": float("nan")}}, r"mean must be 1 or 3 numbers; got nan"),
        (good | {"input": {"range": [0, 10**400]}}, r"range must be 2 numbers"),
        (good | {"input": {"std": 0}}, r"std is 0"),
        (good | {"licence": ["MIT"]}, r"licence must be text"),
        (good | {"output": {"values": ["logits"]}}, r"values is a list of 1; allowed are logits"),
        (good | {"n" * 9_000: 1}, r"unknown key 'n{80}'; allowed"),
        (good | {"licence": [0] * 9_000}, r"licence must be text; got a list of 9,000$"),
        (good | {"task": "t" * 9_000}, r"task is 't{80}'; allowed"),
        (good | {"names": [0] * 9_000}, r"got a list of 9,000$"),
        (good | {"input": {"mean": [0] * 9_000}}, r"mean must be 1 or 3 numbers; got a list of 9,000$"),
        ({"task": "classification"}, r"names must list the class names"),
        (good | {"kind": "metric"}, r"kind is for depth"),
        ({"task": "detection", "names": ["a"]}, r"output: scores|output: boxes must name one of the outputs y"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_teacher(describe(means, **about))
    with pytest.raises(ValueError, match=r"own precision; give fp32 here, not bf16"):
        load_teacher(describe(means, **good), precision="bf16")
    with pytest.raises(ValueError, match=r"ONNX Runtime here runs on .*'mps'"):
        load_teacher(describe(means, **good), device="mps")
    with pytest.raises(ValueError, match=r"output y has shape \['b', 3\], 3 scores for an image; there are 2 names"):
        load_teacher(describe(means, task="classification", names=["a", "b"]))
    with pytest.raises(ValueError, match=r"no ONNX file"):
        load_teacher(f"onnx:{tmp_path / 'no.onnx'}")
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    with pytest.raises(ValueError, match=r"cannot be run by ONNX Runtime"):
        load_teacher(describe(tmp_path / "bad.onnx", **good))
    with open(means.with_suffix(".json"), "r+b") as file:
        file.truncate(2**40)  # of zeros, which take no space
    with pytest.raises(ValueError, match=r"means.json has 1,099,511,627,776 bytes; of a text at most 268,435,456"):
        load_teacher(f"onnx:{means}")
    means.with_suffix(".json").unlink()
    means.with_suffix(".yaml").write_text("task: classification\nnames: [r, g, b]\n")
    assert load_teacher(f"onnx:{means}").objectives["classification"].space.names == ("r", "g", "b")


@pytest.mark.parametrize("name", ["names.txt", "up/../../secret.txt", "../secret.txt", "{secret}", "a\0b", "", "."])
def test_onnx_names_come_from_a_file_of_the_descriptions_own_folder(means, name, tmp_path):
    """A description may be a stranger's, and the names go into the store."""
    secret = tmp_path.parent / f"{tmp_path.name}-secret.txt"
    secret.write_text("root\ndaemon\nbin\n")
    (tmp_path / "names.txt").symlink_to(secret)
    (tmp_path / "up").mkdir()
    try:
        with pytest.raises(ValueError, match=r"means.json: names: (the file .* lies outside|there is no file)"):
            load_teacher(describe(means, task="classification", names=name.replace("{secret}", str(secret))))
        (tmp_path / "up" / "own.txt").write_text("\ufeffr\ng\nb\n")
        spec = describe(means, task="classification", names="up/own.txt")
        assert load_teacher(spec).objectives["classification"].space.names == ("r", "g", "b")
        # a folder of links to one place, as the hub keeps what it has loaded
        (tmp_path / "links").mkdir()
        for file in (means, means.with_suffix(".json"), tmp_path / "up" / "own.txt"):
            (tmp_path / "links" / file.name).symlink_to(file)
        means.with_suffix(".json").write_text(json.dumps({"task": "classification", "names": "up/own.txt"}))
        with pytest.raises(ValueError, match=r"there is no file 'up/own.txt' in"):
            load_teacher(f"onnx:{tmp_path / 'links' / means.name}")
    finally:
        secret.unlink()


def test_class_names_beside_weights_are_no_link_to_another_place(tmp_path):
    for folder in ("models", "elsewhere", "links"):
        (tmp_path / folder).mkdir()
    weights, names = tmp_path / "models" / "net.pth", tmp_path / "elsewhere" / "names.txt"
    weights.write_bytes(b"")
    names.write_text("a\nb\n")
    (tmp_path / "models" / "net.txt").symlink_to(names)
    with pytest.raises(ValueError, match=r"net.pth: class names: the file 'net.txt' lies outside"):
        class_names(weights, 2)
    (tmp_path / "links" / "net.pth").symlink_to(weights)  # links to one place, both
    (tmp_path / "links" / "net.txt").symlink_to(tmp_path / "models" / "classes.txt")
    (tmp_path / "models" / "classes.txt").write_text("a\nb\n")
    assert class_names(tmp_path / "links" / "net.pth", 2) == ("a", "b")


def described_by(means, text):
    """A description in YAML, as it stands."""
    means.with_suffix(".yaml").write_bytes(text)
    return f"onnx:{means}"


ALIASES = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"task: &a [*a]", "stands for nothing, or for itself"),
        (f"l0: &l0 [x]\n{ALIASES}".encode(), "has more than 200,000 values"),
        (b"[" * 500_000, "is not valid YAML"),
        (b"task: " + b"[" * 60 + b"]" * 60, "deeper than 50 levels"),
        (b"task: " + b"1" * 5000, "Exceeds the limit"),
        (b"task: x\nnames: " + b"1" * 20_000, "20,000 letters, of at most 10,000"),
        (b"x" * 3_000_000, "3,000,000 letters"),
        (b"task: !!timestamp 1", "a value is not what it is said to be"),
        (b"task: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (b"task: \xff", "is not UTF-8"),
        (b"task: depth\noutput: {factor: .nan}", "factor must be a number; got nan"),
        (b"task: depth\ninput: {size: [1000000, 1000000]}", r"size is \[1000000, 1000000\]"),
        (b"task: depth\ninput: {size: [0, 0]}", r"size is \[0, 0\]"),
    ],
)
def test_a_hostile_description_is_refused_at_once(means, text, said):
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"means.yaml.*" + said):
        load_teacher(described_by(means, text))
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 10_000, "Exceeds the limit"),
        (b"\xff", "is not UTF-8"),
        (b"", "JSON"),
    ],
)
def test_a_hostile_description_in_json_is_refused(means, text, said):
    means.with_suffix(".json").write_bytes(text)
    with pytest.raises(ValueError, match=f"means.json.*{said}"):
        load_teacher(f"onnx:{means}")


def test_a_description_that_is_no_file_is_not_waited_for(means):
    os.mkfifo(means.with_suffix(".json"))
    with pytest.raises(ValueError, match=r"means.json is a pipe or a device, not a regular file"):
        load_teacher(f"onnx:{means}")
    means.with_suffix(".json").unlink()
    means.with_suffix(".yaml").mkdir()
    with pytest.raises(ValueError, match=r"means.yaml is a folder, not a regular file"):
        load_teacher(f"onnx:{means}")


# --- python

OWN = """
    import torch
    from polyteach.tasks.classification import ClassificationTarget
    from polyteach.tasks.contract import Objective, Space

    class Mine:
        objectives = {"mood": Objective("classification", Space(("dark", "bright")))}
        licence = "MIT"

        def __call__(self, images):
            means = [float(i.float().mean()) / 255 for i in images]
            return [{"mood": ClassificationTarget(probability=torch.tensor([1 - m, m]))} for m in means]

    def mine(device, precision):
        assert (device, precision) == ("cpu", "fp32")
        return Mine()

    def few(device, precision):
        made = Mine()
        return type("Few", (), {"objectives": made.objectives, "__call__": lambda self, images: made(images[:1])})()

    def other(device, precision):
        ask = lambda self, images: [{"mod": 1} for _ in images]
        return type("Other", (), {"objectives": Mine.objectives, "__call__": ask})()

    def none(device, precision):
        return 3

    def unkind(device, precision):
        made = Mine()
        made.objectives = {"mood": Objective("classification", Space(("a",), "metric"))}
        return made
    """


def test_python(tmp_path, images, monkeypatch):
    file = tmp_path / "my_teacher.py"
    file.write_text(textwrap.dedent(OWN))
    teacher = load_teacher(f"python:{file}:mine")
    answers = checked(teacher, images)
    assert isinstance(answers[0]["mood"], ClassificationTarget)
    assert (teacher.licence, teacher.origin) == ("MIT", f"python:{file}:mine")
    monkeypatch.syspath_prepend(str(tmp_path))
    checked(load_teacher("python:my_teacher:mine"), images)
    for name, message in [
        (f"{file}:nine", r"unknown function 'nine'; .* has .*mine"),
        (f"{file}", r"is not python:MODULE:FUNCTION"),
        (f"{tmp_path}/no.py:mine", r"no file .*no.py"),
        ("no_such_module:mine", r"no module 'no_such_module' can be imported"),
        (f"{file}:none", r"returned a int; a teacher is called with images and has objectives"),
        (f"{file}:unkind", r"has kind 'metric'; allowed are ''"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_teacher(f"python:{name}")
    with pytest.raises(ValueError, match=r"returned 1 answers for 4 images"):
        load_teacher(f"python:{file}:few")(images)
    with pytest.raises(ValueError, match=r"answered 'mod'; its objectives are mood"):
        load_teacher(f"python:{file}:other")(images)


@pytest.mark.parametrize("cells", [(7, 5), (20, 11), (3, 4)])
def test_the_most_probable_class_is_that_of_resized_logits(cells):
    from polyteach.teachers import most_probable, resized

    logits = torch.randn(12, 7, 5, generator=torch.Generator().manual_seed(0)) * 3
    probability, category = most_probable(logits, cells)
    truth = resized(logits, cells).softmax(0)
    assert torch.equal(category, truth.argmax(0))
    torch.testing.assert_close(probability, truth.amax(0))
