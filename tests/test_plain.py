"""Plain backbones: their maps against timm's own passes, and what stands over them against properties and by hand."""

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from polyteach.ground.layers import image_size
from polyteach.ground.scene import random_scene, render
from polyteach.model import backbones
from polyteach.model.backbones import ONE_RESOLUTION, _timm_modules, check_size, load_backbone, multiple_of
from polyteach.model.backbones._plain import taken
from polyteach.model.backbones._timm_plain import look
from polyteach.model.backbones.timm_models import _one_resolution
from polyteach.model.plain_pyramid import PlainPyramid, spread
from polyteach.model.student import Student, load_student, save_student
from polyteach.tasks import load_task
from polyteach.tasks._detection_head import propose
from polyteach.tasks.contract import Objective, Space
from polyteach.training import loop
from polyteach.verbs.train import train
from tests.test_sharded import alike, by, weights_agree
from tests.test_transfer import downstream, transfer
from tests.test_transfer import options as transfer_options
from tests.worlds import options, seen_tasks, world

pytestmark = pytest.mark.usefixtures("one_thread")

# name, (height, width), the patch: a small one of every kind of timm's
FAMILIES = [
    ("test_vit", (96, 64), 16),
    ("test_vit3", (64, 80), 16),
    ("vit_small_patch14_reg4_dinov2", (70, 126), 14),
    ("vit_xsmall_patch16_clip_224", (64, 80), 16),
    ("vit_small_patch16_dinov3", (80, 96), 16),  # rotary positions, registers
    ("eva02_tiny_patch14_224", (42, 70), 14),
    ("deit_tiny_distilled_patch16_224", (64, 80), 16),
    ("deit3_small_patch16_224", (64, 80), 16),
    ("test_vit_relpos", (64, 80), 16),
    ("convit_tiny", (64, 64), 16),
    ("cait_xxs24_224", (64, 80), 16),
    ("xcit_nano_12_p8_224", (72, 64), 8),
    ("tnt_s_patch16_224", (64, 80), 16),
    ("vit_tiny_r_s16_p8_224", (64, 96), 32),  # a hybrid
    ("vitamin_small_224", (64, 80), 16),
    ("gmixer_24_224", (64, 80), 16),
    ("convmixer_768_32", (56, 42), 7),
    ("beit_base_patch16_224", (32, 48), 16),
    ("samvit_base_patch16", (32, 48), 16),
]


def tasks_of(*wanted):
    tasks = wanted or tuple(seen_tasks())
    space = {n: Space(("a", "b", "c"), load_task(n).kinds[0]) for n in tasks}
    return {f"{n}_x": Objective(n, s) for n, s in space.items()}


@pytest.mark.parametrize(("name", "size", "patch"), FAMILIES)
def test_maps_are_what_timms_own_pass_makes(name, size, patch):
    torch.manual_seed(0)
    backbone = load_backbone(name, None, size).eval()
    assert backbone.strides == (patch,) * 5
    assert backbone.multiple == patch
    images = torch.randn(2, 3, *size)
    seen = {}
    model = backbone.model
    layers = [m for m in ([*model.blocks] if hasattr(model, "blocks") else []) if isinstance(m, nn.Module)]
    numbers = taken(len(layers))
    hooks = [
        layers[k].register_forward_hook(lambda m, i, o, k=k: seen.__setitem__(k, o)) for k in numbers if k < len(layers)
    ]
    with torch.inference_mode():
        maps = backbone(images)
        after = dict(seen)
        whole = model.forward_features(images)
    for hook in hooks:
        hook.remove()
    high, wide = size[0] // patch, size[1] // patch
    for channels, x in zip(backbone.channels, maps, strict=True):
        assert x.shape == (2, channels, high, wide)
        assert x.isfinite().all()
    if whole.ndim == 4:  # maps, as their last layer has them
        torch.testing.assert_close(maps[3], whole)
        return
    own_order = whole[:, len(whole[0]) - high * wide :]  # class token and registers come first
    if name.startswith(("cait", "xcit")):  # whose last layers, of the class alone, see and change no map
        own_order = None
    if own_order is not None:
        torch.testing.assert_close(maps[3].flatten(2).transpose(1, 2), own_order)
        if backbone.has_class:
            rest = maps[4][:, maps[3].shape[1] :]
            torch.testing.assert_close(rest[:, :, 0, 0], whole[:, 0])
            torch.testing.assert_close(rest, rest[:, :, :1, :1].expand_as(rest))
    if hasattr(model, "norm") and len(layers) > 3 and after and name.startswith(("test_vit", "vit_small", "deit")):
        for k, x in zip(numbers, maps, strict=False):
            block = after[k] if isinstance(after[k], torch.Tensor) else after[k][0]
            with torch.inference_mode():
                wanted = model.norm(block)[:, block.shape[1] - high * wide :]
            torch.testing.assert_close(x.flatten(2).transpose(1, 2), wanted)


def test_layers_are_taken_as_dpt_takes_them():
    assert taken(12) == (2, 5, 8, 11)
    assert taken(24) == (5, 11, 17, 23)
    assert taken(1) == (0, 0, 0, 0)
    assert taken(6) == (0, 2, 3, 5)


def test_the_modules_of_one_resolution_are_those_that_timm_says():
    """All that are listed, and some that are not though their names sound like it; benchmarks/backbones.py sees all."""
    others = {"hiera", "levit", "mvitv2", "pit", "swin_transformer", "visformer"}
    shortest = {}
    for name in backbones.timm_list():
        module = _timm_modules()[name]
        if module in ONE_RESOLUTION | others:
            shortest[module] = min(shortest.get(module, name), name, key=len)
    assert {m for m, name in shortest.items() if _one_resolution(name)} == ONE_RESOLUTION


@pytest.mark.parametrize(
    ("name", "multiple"),
    [
        ("vit_small_patch14_dinov2.lvd142m", 14),
        ("vit_base_patch16_siglip_224", 16),
        ("vit_base_mci_224", 1),  # its name does not say it
        ("resnet50", 32),
        ("swin_tiny_patch4_window7_224", 32),
    ],
)
def test_which_sides_a_name_takes(name, multiple):
    assert multiple_of(name) == multiple


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("vit_small_patch14_dinov2", (128, 128), r"its patches have 14 pixels, and sides have to be multiples of that"),
        ("vit_base_mci_224", (40, 64), "of images of 40x64: "),
        ("naflexvit_base_patch16_gap", (224, 224), r"takes patches of any number instead of images .*\(NaFlex\)"),
        ("volo_d1_224", (224, 224), r"are \(192, 28, 28\), \(384, 14, 14\), at no one stride"),
        ("convit_tiny", (64, 96), "it was made for 224x224"),
    ],
)
def test_what_a_plain_one_cannot_take_is_refused_when_it_is_built(name, size, said):
    with pytest.raises(ValueError, match=said):
        load_backbone(name, None, size)


def test_a_size_that_the_patch_does_not_divide_is_refused_before_anything_is_written(tmp_path):
    store = world(tmp_path / "store", 2, tasks=("classification",))
    for size, said in ((64, "multiple of 14; got 64. Take 56 or 70"), (7, "multiple of 14; got 7. Take 14")):
        with pytest.raises(ValueError, match=said):
            train(store, out=str(tmp_path / "run"), **options(backbone="vit_small_patch14_dinov2", size=size))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("factor", [14 / 16, 10 / 8, 7 / 8, 12 / 16, 3 / 4])
@pytest.mark.parametrize("cells", [1, 5, 37])
def test_what_is_interpolated_lies_where_it_was(factor, cells):
    """A map that says where its cells' middles lie says so of the new ones, between the first and the last."""
    place = torch.arange(cells) + 0.5
    count = -(-cells * 7 // 8) if factor < 1 else int(cells * factor)
    out = spread(place.expand(1, 1, cells, cells), factor, (count, count))[0, 0]
    assert out.shape == (count, count)
    wanted = (torch.arange(count) + 0.5) / factor
    torch.testing.assert_close(out[0], wanted.clamp(place[0], place[-1]))
    torch.testing.assert_close(out[:, 0], out[0, :1].expand(count))


@pytest.mark.parametrize(("patch", "high", "wide"), [(14, 37, 36), (16, 5, 7), (8, 9, 3), (32, 3, 1), (14, 1, 1)])
def test_levels_have_the_sizes_of_their_strides(patch, high, wide):
    student = Student("resnet18", {}, 8)
    extra = [student.pyramid.extra_blocks, Student("resnet18", {}, 8).pyramid.extra_blocks]
    pyramid = PlainPyramid(12, 8, patch, extra)
    levels = pyramid([torch.randn(2, 12, high, wide) for _ in range(4)], True, True)
    assert set(levels) == {*(f"p{k}" for k in range(2, 8)), *(f"b{k}" for k in range(3, 8))}
    for name, level in levels.items():
        stride = 2 ** int(name[1:])
        assert level.shape == (2, 8, -(-high * patch // stride), -(-wide * patch // stride))


@pytest.mark.parametrize(("name", "size"), [("vit_small_patch14_reg4_dinov2", (70, 126)), ("test_vit", (48, 80))])
def test_every_head_answers_in_the_pixels_of_the_image(name, size):
    """Of sides that neither 32 nor 8 divides."""
    student = Student(name, tasks_of(), 16, size=size).eval()
    images = torch.randint(256, (2, 3, *size), dtype=torch.uint8)
    predicted = student(images)
    assert predicted["depth_x"].output.shape == (2, *size)
    assert predicted["segmentation_x"].shape[-2:] == size
    boxes = predicted["detection_x"]
    assert boxes.size == size
    _, anchors, *_ = propose(boxes)
    at = 0
    for level, stride in zip(boxes.features.values(), (8, 16, 32, 64, 128), strict=True):
        count = level.shape[-2] * level.shape[-1] * 3
        middle = (anchors[0][at : at + count, :2] + anchors[0][at : at + count, 2:]) / 2
        assert middle.max(0).values.tolist() == [(level.shape[-1] - 1) * stride, (level.shape[-2] - 1) * stride]
        at += count
    answer = student.answer(list(images), size)[0]
    assert answer["detection_x"].box[:, 2].max() <= size[1]
    assert answer["depth_x"].value.shape == size


def test_boxes_are_found_on_levels_of_their_own():
    scenes = [render(random_scene(i, (48, 80))) for i in range(2)]
    images = torch.stack([s.image for s in scenes])
    for task, moved, kept in (("detection", "simple", "reassemble"), ("depth", "reassemble", "simple")):
        objectives = tasks_of(task)
        (name,) = objectives
        student = Student("test_vit", objectives, 16, size=(48, 80))
        space = objectives[name].space
        loss = student.losses(images, {name: [load_task(task).truth(s, space) for s in scenes]})[name]
        loss.backward()
        grads = {k: p.grad is not None and bool(p.grad.abs().sum()) for k, p in student.named_parameters()}
        assert any(v for k, v in grads.items() if f"pyramid.{moved}" in k)
        assert not any(v for k, v in grads.items() if f"pyramid.{kept}" in k)
        assert grads["backbone.model.patch_embed.proj.weight"]
        assert grads["backbone.model.pos_embed"]


@pytest.mark.parametrize(
    ("name", "size"), [(n, s) for n, s, _ in FAMILIES if not n.startswith(("beit", "samvit", "convmixer", "cait"))]
)
def test_all_heads_learn_over_each_kind_of_trunk(name, size):
    """One step of all five: finite losses, and a finite gradient for nearly all of the trunk."""
    torch.manual_seed(0)
    scenes, objectives = [render(random_scene(i, size)) for i in range(2)], tasks_of()
    student = Student(name, objectives, 8, size=size)
    targets = {k: [load_task(o.task).truth(s, o.space) for s in scenes] for k, o in objectives.items()}
    losses = student.losses(torch.stack([s.image for s in scenes]), targets)
    assert set(losses) == set(objectives)
    sum(losses.values()).backward()
    grads = [(p.numel(), p.grad) for p in student.backbone.parameters()]
    assert all(g.isfinite().all() for _, g in grads if g is not None)
    assert sum(n for n, g in grads if g is not None) > 0.85 * sum(n for n, _ in grads)


def test_size_of_images_is_told_by_levels_where_nothing_else_tells_it():
    assert image_size({"p3": torch.zeros(1, 2, 4, 6)}, 3) == (32, 48)
    assert image_size({"image": torch.zeros(1, 0, 30, 44), "p3": torch.zeros(1, 2, 4, 6)}, 3) == (30, 44)


SMALL_VIT = {"backbone": "test_vit", "size": 48, "channels": 8, "optimizer": "adamw", "lr": 1e-3, "clip": 1.0}


def test_a_stopped_training_of_all_heads_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    stores = world(tmp_path / "store", 4)
    more = options(**SMALL_VIT, batch_size=2, steps=4)
    train(stores, out=str(tmp_path / "whole"), **more)
    real = loop._Loop.update

    def dies(self, stream):
        if self.step == 3:
            raise RuntimeError("killed")
        return real(self, stream)

    with monkeypatch.context() as m:
        m.setattr(loop._Loop, "update", dies)
        with pytest.raises(RuntimeError, match="killed"):
            train(stores, out=str(tmp_path / "parts"), **more)
    train(stores, out=str(tmp_path / "parts"), **more)
    one, two = ((tmp_path / r / "student.safetensors").read_bytes() for r in ("whole", "parts"))
    assert one == two
    student = load_student(tmp_path / "whole")
    images = torch.randint(256, (1, 3, 48, 48), dtype=torch.uint8)
    assert len(student.answer(list(images), (48, 48))[0]) == len(seen_tasks())


@pytest.mark.usefixtures("ready_forks")
def test_weights_in_parts_learn_what_whole_ones_learn(stores, tmp_path):
    # by SGD: AdamW makes whole steps of the rounding errors of a gradient that is next to nothing
    more = SMALL_VIT | {"optimizer": "sgd", "lr": 0.005, "ema": 0.0}

    def run(name, **others):
        return lambda: train(stores, out=str(tmp_path / name), **options(**more, batch_size=2, accumulate=2, **others))

    by(2, run("parts", shard=True, steps=3), tmp_path)
    run("one", steps=3)()
    alike(tmp_path / "parts", tmp_path / "one")
    weights_agree(tmp_path / "parts", tmp_path / "one", atol=2e-5, unmoved=1e-2)


def test_its_backbone_alone_is_transferred(stores, tmp_path):
    train(stores, out=str(tmp_path / "run"), **options(**SMALL_VIT, batch_size=2, steps=2))
    store = downstream(tmp_path / "store", tasks=["segmentation"], size=(48, 48))
    more = transfer_options(size=64, lrs=(0.01,), steps=(2,), seeds=(0,), parts=("backbone",), keep=True)
    del more["backbone"]
    transfer(store, out=str(tmp_path / "out"), init=str(tmp_path / "run"), **more)
    said = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert "test_vit" in json.dumps(said)


@pytest.mark.parametrize("name", ["test_vit", "cait_xxs24_224", "test_vit_relpos"])
def test_a_run_of_one_size_begins_another_of_another(name, tmp_path):
    """What says where things are is interpolated; all else is as it was."""
    objectives = tasks_of("classification")
    first = Student(name, objectives, 8, size=(64, 64)).eval()
    save_student(first, tmp_path, {"size": [64, 64]})
    second = Student(name, objectives, 8, init=str(tmp_path), size=(96, 64)).eval()
    mine, theirs = first.state_dict(), second.state_dict()
    other = {k for k, v in mine.items() if k in theirs and v.shape != theirs[k].shape}
    assert all("pos" in k for k in other), other
    assert all(torch.equal(v, theirs[k]) for k, v in mine.items() if k not in other and k in theirs)
    assert second(torch.zeros(1, 3, 96, 64, dtype=torch.uint8))["classification_x"].shape == (1, 3)


def test_one_trunk_of_any_size_is_timms_own_after_interpolation(tmp_path):
    """A model that timm makes for the size, with the same weights, says the same."""
    torch.manual_seed(1)
    backbone = load_backbone("test_vit", None, (96, 64)).eval()
    whole = timm.create_model("test_vit", img_size=(96, 64), num_classes=0).eval()
    whole.load_state_dict(checkpoint_filter_fn(backbone.model.state_dict(), whole), strict=False)
    images = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        mine, theirs = backbone(images)[3], whole.forward_features(images)[:, 1:]
    torch.testing.assert_close(mine.flatten(2).transpose(1, 2), theirs, rtol=1e-4, atol=1e-4)


def test_weights_of_a_file_are_those_of_the_trunk(tmp_path):
    torch.manual_seed(2)
    model = timm.create_model("test_vit")
    file = tmp_path / "vit.pth"
    torch.save(model.state_dict(), file)
    backbone = load_backbone("test_vit", str(file), (48, 48))
    for k, v in backbone.model.state_dict().items():
        assert torch.equal(v, model.state_dict()[k])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_before_anything_is_written(tmp_path, value):
    """In a statistic too, with which losses stay finite."""
    for name, tensor in (("test_vit", "blocks.0.attn.qkv.weight"), ("test_resnet", "bn1.running_mean")):
        state = timm.create_model(name).state_dict()
        state[tensor].view(-1)[0] = value
        torch.save(state, tmp_path / "bad.pth")
        store = world(tmp_path / name, 2, tasks=("classification",))
        with pytest.raises(ValueError, match=rf"bad.pth: .*{tensor} is NaN or infinite in 1 of "):
            train(store, out=str(tmp_path / "run"), **options(backbone=name, init=str(tmp_path / "bad.pth")))
    assert not (tmp_path / "run").exists()


def test_a_run_with_weights_that_are_no_numbers_is_not_loaded(tmp_path):
    student = Student("test_vit", tasks_of("classification"), 8)
    student.backbone.model.norm.weight.data[0] = float("nan")
    save_student(student, tmp_path, {"size": [64, 64]})
    with pytest.raises(
        ValueError, match=r"student.safetensors: backbone.model.norm.weight is NaN or infinite in 1 of 64"
    ):
        load_student(tmp_path)


def test_which_of_two_networks_is_meant_is_not_guessed(tmp_path):
    one, two = (timm.create_model("test_vit").state_dict() for _ in range(2))
    torch.save(
        {f"image.{k}": v for k, v in one.items()} | {f"depth.{k}": v for k, v in two.items()}, tmp_path / "two.pth"
    )
    with pytest.raises(
        ValueError, match=r"has 2 networks that fit test_vit \('image.\*', 'depth.\*'\), and nothing says"
    ):
        load_backbone("test_vit", str(tmp_path / "two.pth"))
    torch.save(
        {f"a.{k}": v for k, v in one.items()} | {f"b.{k}": v.clone() for k, v in one.items()}, tmp_path / "same.pth"
    )
    load_backbone("test_vit", str(tmp_path / "same.pth"))


def test_weights_of_whole_numbers_are_none(tmp_path):
    state = {k: v.to(torch.int8) for k, v in timm.create_model("test_vit").state_dict().items()}
    torch.save(state, tmp_path / "int8.pth")
    with pytest.raises(ValueError, match=r"int8.pth: .* is of int8, which is no weight of test_vit"):
        load_backbone("test_vit", str(tmp_path / "int8.pth"))


@pytest.mark.parametrize("size", [0, -16, 1_000_000])
def test_sizes_that_no_image_has_are_one_line(size):
    with pytest.raises(ValueError, match=f"size must be 16 to 8,192; got {size}"):
        check_size(size, 16)


def test_what_is_looked_at_says_what_it_is():
    trunk = look("vit_small_patch14_reg4_dinov2", (70, 126))
    assert (trunk.patch, trunk.width, trunk.layers, trunk.has_class) == (14, 384, 12, True)
    assert look("vit_base_patch16_siglip_224", (64, 64)).has_class is False


def test_images_that_do_not_fit_are_refused(tmp_path):
    student = Student("test_vit", {}, 8)
    with pytest.raises(ValueError, match="images must have sides that 16 divides"):
        student.levels(torch.zeros(1, 3, 40, 48, dtype=torch.uint8))
    assert Path(tmp_path).exists()
