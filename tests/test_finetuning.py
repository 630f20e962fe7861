"""Fine-tuning: learning rates by depth, slow thawing, stochastic depth, and activations that are computed again."""

import json
import math
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import DropPath
from timm.optim import param_groups_layer_decay
from torch import nn

from polyteach.__main__ import main
from polyteach.model import backbones
from polyteach.model.backbones import load_backbone
from polyteach.model.student import Student, load_student
from polyteach.model.units import depths, units, units_of
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Space
from polyteach.training import loop, recomputation
from polyteach.training.layers import Layers, first_steps, scales
from polyteach.training.loop import fit
from polyteach.training.mixture import Mixture
from polyteach.training.options import FineTuning, StudentHardware
from polyteach.training.recomputation import check_recomputable, recomputed, seen_once
from polyteach.training.settings import Settings, check
from polyteach.verbs.train import train
from polyteach.verbs.transfer import transfer
from tests.test_transfer import downstream, representation, result
from tests.test_transfer import options as transfer_options
from tests.worlds import NAMES, log_of, options, weights_of, world

pytestmark = pytest.mark.usefixtures("one_thread")

TUNED = {"layer_decay": 0.5, "thaw": 3, "drop_path": 0.4}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return world(tmp_path_factory.mktemp("tuned") / "store", 8)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Weights of a backbone, as others left them."""
    torch.manual_seed(11)
    file = tmp_path_factory.mktemp("start") / "backbone.safetensors"
    # else a block's last normalisation is 0, and its others have no gradient at first
    save_file(timm.create_model("test_resnet", pretrained=False, zero_init_last=False).state_dict(), file)
    return str(file)


def scale_by_name(model, decay):
    found = units(model)
    by_unit = scales(len(found), decay)
    return {k: by_unit[d] for k, d in depths([k for k, _ in model.named_parameters()], found).items()}


# ---- units ----


class Wrapper(nn.Module):
    """As a plain ViT is a backbone."""

    def __init__(self, model):
        super().__init__()
        self.model = model


@pytest.mark.parametrize(("name", "blocks"), [("test_vit", 6), ("vit_tiny_patch16_224", 12)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_plain_vit_decays_as_timm_has_it(name, blocks, wrapped):
    theirs, mine = timm.create_model(name), timm.create_model(name, num_classes=0)
    names = {id(p): k for k, p in theirs.named_parameters()}
    groups = param_groups_layer_decay(theirs, layer_decay=0.75)
    expected = {names[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}
    assert {expected.pop("head.weight"), expected.pop("head.bias")} == {1.0}  # what stands on the backbone
    if wrapped:
        expected = {f"model.{k}": v for k, v in expected.items()}
    assert scale_by_name(Wrapper(mine) if wrapped else mine, 0.75) == pytest.approx(expected, rel=1e-12)
    assert len(set(expected.values())) == blocks + 1


def test_a_resnet_by_hand():
    """Stem, then eight blocks; batch normalisation goes with what is before it."""
    model = timm.create_model("resnet18", features_only=True)
    power = {"conv1": 9, "bn1": 9, "layer1.0": 8, "layer1.1": 7, "layer2.0": 6, "layer2.1": 5} | {
        "layer3.0": 4, "layer3.1": 3, "layer4.0": 2, "layer4.1": 1,
    }  # fmt: skip
    names = [k for k, _ in model.named_parameters()]
    expected = {k: 0.5**n for unit, n in power.items() for k in names if k.startswith(f"{unit}.")}
    assert scale_by_name(model, 0.5) == expected
    assert set(expected) == set(names)


@pytest.mark.parametrize(
    "name",
    ["test_resnet", "test_convnext", "test_efficientnet", "swin_tiny_patch4_window7_224", "test_vit3", "densenet121"],
)
def test_every_parameter_is_in_one_unit_and_they_come_in_order(name):
    """Checkpoints number parameters in the order of the optimiser's groups, which is as it was if depth only grows."""
    model = timm.create_model(name, features_only=True)
    found = units(model, "backbone")
    names = [f"backbone.{k}" for k, _ in model.named_parameters()]
    depth = depths(names, found)
    assert list(depth) == names
    assert list(depth.values()) == sorted(depth.values())
    assert set(depth.values()) == set(range(len(found)))
    assert len(found) > 4
    everything = [n for unit in found for n in unit]
    assert len(everything) == len(set(everything))


@pytest.mark.parametrize(
    ("name", "blocks", "unused"),
    [
        ("vit_base_patch16_siglip_224", 12, "attn_pool"),
        ("cait_xxs24_224", 24, "blocks_token_only"),
        ("test_vit", 6, ""),
    ],
)
def test_what_no_map_needs_is_no_unit(name, blocks, unused):
    """Else the last block would be the last but one."""
    found = units_of(name, (224, 224), "backbone")
    assert len(found) == blocks + 1
    assert {"backbone.model.pos_embed", "backbone.model.patch_embed"} <= set(found[0])
    assert found[-1][0] == f"backbone.model.blocks.{blocks - 1}"
    assert any(unused in n for n in found[-1][1:])
    with torch.device("meta"):
        backbone = load_backbone(name, None, (224, 224))
    names = [f"backbone.{k}" for k, _ in backbone.named_parameters()]
    assert set(depths(names, found)) == set(names)


def test_the_order_of_the_optimiser_is_that_of_before():
    student = Student("test_resnet", {}, 8)
    parameters = list(student.parameters())
    settings = Settings(steps=4, optimizer="adamw")
    plain = loop._optimizer(parameters, settings, lambda p: 1.0)
    layers = Layers(student, units(student.backbone, "backbone"), Settings(steps=4, layer_decay=0.5))
    scaled = loop._optimizer(parameters, settings, layers.scale)
    assert len(plain.param_groups) == 2
    assert len(scaled.param_groups) > 8
    one, two = ([id(p) for g in o.param_groups for p in g["params"]] for o in (plain, scaled))
    assert one == two == [id(p) for rank in (True, False) for p in parameters if (p.ndim > 1) == rank]
    assert {g["weight_decay"] for g in scaled.param_groups} == {settings.weight_decay, 0.0}


# ---- layer-wise decay ----


def moves(store, out, **more):
    """How far one step of plain SGD moves every parameter of a student."""
    given = options(steps=1, optimizer="sgd", lr=0.01, clip=0.0, weight_decay=0.0, ema=0.0, warmup=0, **more)
    real, before = loop._Loop.go, {}

    def go(self, *args):
        before.update({k: v.detach().clone() for k, v in self.model.named_parameters()})
        return real(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Loop, "go", go)
        train(store, out=str(out), **given)
    after = load_file(out / "student.safetensors")
    return {k: after[k] - v for k, v in before.items() if k in after}


def test_a_step_is_scaled_by_depth_and_the_heads_step_as_ever(store, tmp_path):
    plain = moves(store, tmp_path / "plain")
    scaled = moves(store, tmp_path / "scaled", layer_decay=0.5)
    wanted = {f"backbone.{k}": v for k, v in scale_by_name(load_student(tmp_path / "plain").backbone, 0.5).items()}
    assert len(set(wanted.values())) == 7
    for name, delta in plain.items():
        by = wanted.get(name, 1.0)
        torch.testing.assert_close(scaled[name], by * delta, rtol=1e-3, atol=1e-7, msg=name)
    assert log_of(tmp_path / "scaled")[0]["lr"] == 0.01  # the peak, as ever


# ---- thawing ----


def test_when_each_unit_joins():
    assert first_steps(4, 10) == [10, 8, 5, 3]  # 10, 7.5, 5, 2.5
    assert first_steps(3, 2) == [2, 2, 1]
    assert first_steps(3, 0) == [0, 0, 0]
    assert first_steps(1, 7) == [7]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_units_thaw_from_the_top_down(store, start, tmp_path, optimizer):
    """By its checkpoints: weights, statistics and the optimiser's moments of a unit begin to be at its step."""
    run = tmp_path / "run"
    more = {"optimizer": optimizer, "lr": 1e-3, "weight_decay": 0.1, "ema": 0.0, "warmup": 0}
    train(store, out=str(run), init=start, thaw=7, **options(steps=9, save_every=1, keep=99, **more))
    student = Student("test_resnet", {}, 8, start)
    found = units(student.backbone, "backbone")
    first = first_steps(len(found), 7)
    assert first == [7, 6, 5, 4, 3, 2, 1]
    before = {f"backbone.{k}": v for k, v in student.backbone.state_dict().items()}
    states = [load_file(run / "checkpoints" / f"step-{n:09d}" / "model.safetensors") for n in range(1, 10)]
    depth = depths(list(before), found)
    for k, v in before.items():
        moved = next(n for n, s in enumerate(states) if not s[k].equal(v))
        assert moved == first[depth[k]], k
    trained = load_student(run)
    order = [k for big in (True, False) for k, p in trained.named_parameters() if (p.ndim > 1) == big]
    for n, file in enumerate(sorted((run / "checkpoints").glob("*/rest.safetensors")), 1):
        known = {order[int(k.split(".")[1])] for k in load_file(file) if k.startswith("optimizer.")}
        mine = {k for k in order if k.startswith("backbone.")}
        assert known & mine == {k for k in mine if first[depth[k]] < n}, n
        assert known - mine
    assert len(log_of(run)) == 9


def test_frozen_units_are_in_evaluation_mode_and_cost_no_gradient():
    student = Student("test_resnet", {}, 8, None).train()
    found = units(student.backbone, "backbone")
    layers = Layers(student, found, Settings(steps=9, thaw=7))
    for step in (0, 3, 8, 2, 7):  # in whatever order: a pure function of the step
        layers.at(step)
        learns = [step >= f for f in first_steps(len(found), 7)]
        for unit, wanted in zip(found, learns, strict=True):
            parts = [student.get_submodule(n) for n in unit]
            assert {m.training for part in parts for m in part.modules()} == {wanted}
            assert {p.requires_grad for part in parts for p in part.parameters()} == {wanted}
        assert all(p.requires_grad for p in student.pyramid.parameters())
    with pytest.raises(ValueError, match="this training knows none"):
        Layers(student, (), Settings(steps=9, thaw=7))


# ---- stochastic depth ----


def test_stochastic_depth_is_timms_and_leaves_the_start_as_it_is(start):
    torch.manual_seed(0)
    plain = load_backbone("test_resnet", None)
    torch.manual_seed(0)
    dropping = load_backbone("test_resnet", None, drop_path=0.3)
    rates = [m.drop_prob for m in dropping.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1, 0.2, 0.3])
    assert not any(isinstance(m, DropPath) for m in plain.modules())
    one, two = plain.state_dict(), dropping.state_dict()
    assert list(one) == list(two)
    assert all(v.equal(two[k]) for k, v in one.items())
    one, two = (load_backbone("test_resnet", start, drop_path=d).state_dict() for d in (0.0, 0.3))
    assert all(v.equal(two[k]) for k, v in one.items())


class Plain(nn.Module):
    """A backbone of another family, without any of this."""

    channels, strides, multiple = (8, 8, 8, 8), (4, 8, 16, 32), 32

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)

    def forward(self, images):
        x = self.stem(images)
        return [x, *(nn.functional.avg_pool2d(x, k) for k in (2, 4, 8))]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    file = tmp_path / "families" / "plain_models.py"
    file.parent.mkdir()
    file.write_text("from tests.test_finetuning import Plain\n\ndef load(name, init, size):\n    return Plain()\n")
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(file.parent)])
    return "plain:any"


@pytest.mark.parametrize(
    "name", ["hrnet_w18_small", "lcnet_050", "convmixer_768_32"]
)  # the second takes the option, without use
def test_a_backbone_without_stochastic_depth_is_refused(name):
    with pytest.raises(ValueError, match=f"drop_path: backbone '{name}' has no stochastic depth; leave it out"):
        load_backbone(name, None, drop_path=0.1)


def test_what_another_family_cannot_do_is_refused_before_anything_is_written(toy, store, tmp_path):
    for more, said in (
        ({"drop_path": 0.1}, "drop_path: backbone 'plain:any' has no stochastic depth"),
        ({"grad_checkpointing": True}, "grad_checkpointing: plain:any cannot compute its activations again"),
    ):
        with pytest.raises(ValueError, match=said):
            train(store, out=str(tmp_path / "run"), **options(backbone=toy, **more))
        people = downstream(tmp_path / f"people-{len(said)}", 6, 2, ["classification"])
        with pytest.raises(ValueError, match=said):
            transfer(people, out=str(tmp_path / "run"), **transfer_options(backbone=toy, **more))
        assert not (tmp_path / "run").exists()
    train(store, out=str(tmp_path / "run"), **options(backbone=toy, layer_decay=0.5, steps=1))
    load_student(tmp_path / "run")


def test_the_student_of_a_run_with_stochastic_depth_has_none(store, tmp_path):
    plain, dropped = tmp_path / "plain", tmp_path / "dropped"
    train(store, out=str(plain), **options(steps=2))
    train(store, out=str(dropped), **options(steps=2, drop_path=0.5))
    assert log_of(plain)[0]["losses"] != log_of(dropped)[0]["losses"]
    assert not any(isinstance(m, DropPath) for m in load_student(dropped).modules())
    assert list(load_file(plain / "student.safetensors")) == list(load_file(dropped / "student.safetensors"))
    mine, theirs = (json.loads((f / "student.json").read_text()) for f in (plain, dropped))
    assert list(mine) == list(theirs)


# ---- all of it, killed and gone on with ----


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_killed_run_ends_in_the_same_weights(store, start, tmp_path, optimizer):
    more = options(optimizer=optimizer, lr=1e-3, steps=6, save_every=1, keep=99, init=start, **TUNED)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(store, out=str(whole), **more)
    for left in (1, 2, 4):  # before, while and after units thaw
        shutil.rmtree(killed, ignore_errors=True)
        train(store, out=str(killed), **more)
        (killed / "train.json").unlink()
        for n in range(left + 1, 7):
            shutil.rmtree(killed / "checkpoints" / f"step-{n:09d}")
        train(store, out=str(killed), **more)
        assert weights_of(killed) == weights_of(whole)
        assert log_of(killed) == log_of(whole)
    (killed / "train.json").unlink()
    for name, value in {"layer_decay": 0.6, "thaw": 2, "drop_path": 0.0}.items():
        with pytest.raises(ValueError, match=f"{name} was {TUNED[name]}, is {value}"):
            train(store, out=str(killed), **(more | {name: value}))


def test_a_run_of_before_goes_on(store, tmp_path):
    """Its config.json knows none of these options."""
    run = tmp_path / "run"
    train(store, out=str(run), **options(steps=3))
    whole = weights_of(run)
    (run / "train.json").unlink()
    config = json.loads((run / "config.json").read_text())
    for name in ("layer_decay", "thaw", "drop_path", "grad_checkpointing", "keep_statistics"):
        del config["options"][name]
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"layer_decay was 1\.0, is 0\.9"):
        train(store, out=str(run), **options(steps=3, layer_decay=0.9))
    train(store, out=str(run), **options(steps=3, grad_checkpointing=True))
    assert weights_of(run) == whole


# ---- activations that are computed again ----


def kept_bytes(work):
    """Bytes of the tensors that autograd keeps of what `work` does, each once; and what it returns."""
    seen = {}

    def pack(x):
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = work()
    return sum(seen.values()), out


@pytest.mark.parametrize(
    "name",
    ["resnet18", "test_convnext", "tf_efficientnet_lite0", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"],
)
def test_the_same_gradients_from_fewer_activations(name):
    size = 224 if "224" in name else 96
    images = torch.randint(256, (2, 3, size, size), dtype=torch.uint8)
    torch.manual_seed(3)
    student = Student(name, {}, 8, drop_path=0.3, size=(size, size)).train()
    start = {k: v.clone() for k, v in student.state_dict().items()}
    found = {}
    for again in (False, True):
        student.load_state_dict(start)
        student.zero_grad()
        torch.manual_seed(5)
        if again:
            with recomputed(student.backbone, name):
                count, maps = kept_bytes(lambda: student.levels(images))
                with seen_once(student):
                    sum(m.square().mean() for m in maps).backward()
        else:
            count, maps = kept_bytes(lambda: student.levels(images))
            sum(m.square().mean() for m in maps).backward()
        gradients = {k: p.grad.clone() for k, p in student.backbone.named_parameters() if p.grad is not None}
        found[again] = count, maps, gradients, {k: v.clone() for k, v in student.state_dict().items()}
    (whole, _, wanted, state), (less, _, got, other) = found[False], found[True]
    assert less < 0.75 * whole
    assert list(got) == list(wanted)
    assert all(v.equal(got[k]) for k, v in wanted.items())
    assert all(v.equal(other[k]) for k, v in state.items())  # batch normalisation has seen each batch once
    assert not getattr(student.backbone, "grad_checkpointing", False)


@pytest.mark.parametrize(
    "more", [{"drop_path": 0.4}, {"backbone": "test_efficientnet"}, {"precision": "bf16"}, {"backbone": "test_vit"}]
)
def test_a_run_is_the_same_byte_for_byte_and_may_change_its_mind(store, tmp_path, more):
    one, two, half = tmp_path / "one", tmp_path / "two", tmp_path / "half"
    more = options(steps=4, save_every=1, keep=9, **more)
    train(store, out=str(one), **more)
    train(store, out=str(two), grad_checkpointing=True, **more)
    assert weights_of(one) == weights_of(two)
    assert log_of(one) == log_of(two)
    shutil.copytree(one, half)
    (half / "train.json").unlink()
    for n in (3, 4):
        shutil.rmtree(half / "checkpoints" / f"step-{n:09d}")
    train(store, out=str(half), grad_checkpointing=True, **more)
    assert weights_of(half) == weights_of(one)


# ---- what cannot be meant ----


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and at most 1; got 0"),
        ({"layer_decay": 1.1}, "layer_decay must be above 0 and at most 1; got 1.1"),
        ({"layer_decay": math.nan}, "layer_decay must be above 0 and at most 1; got nan"),
        ({"layer_decay": "fast"}, "layer_decay must be float; got 'fast'"),
        ({"thaw": -1}, "thaw must be at least 0; got -1"),
        ({"thaw": 2.5, "init": ...}, "thaw must be int; got 2.5"),
        ({"thaw": 2}, "thaw keeps what was learned before for a while, and without --init nothing was"),
        ({"keep_statistics": True}, "keep_statistics keeps what was learned before"),
        ({"keep_statistics": True, "init": ..., "freeze": ["backbone"]}, "keep_statistics and freeze"),
        ({"thaw": 6, "init": ...}, "thaw 6: in 6 steps the stem would never learn; give fewer"),
        ({"drop_path": 1.0}, "drop_path must be 0 or more and below 1; got 1"),
        ({"drop_path": -0.1}, "drop_path must be 0 or more and below 1; got -0.1"),
        ({"drop_path": math.nan}, "drop_path must be 0 or more and below 1; got nan"),
        ({"thaw": 2, "init": ..., "freeze": ["backbone"]}, "thaw and freeze: no backbone is trained"),
        ({"layer_decay": 0.9, "init": ..., "freeze": ["backbone"]}, "layer_decay and freeze"),
        ({"drop_path": 0.1, "init": ..., "freeze": ["backbone"]}, "drop_path and freeze"),
        ({"grad_checkpointing": True, "init": ..., "freeze": ["backbone"]}, "grad_checkpointing and freeze"),
        ({"grad_checkpointing": True, "compile": True}, "grad_checkpointing and compile"),
        ({"thaw": 2, "init": ..., "compile": True}, "thaw and compile"),
    ],
)
def test_what_cannot_be_meant_is_refused(store, start, tmp_path, wrong, said):
    given = {k: start if v is ... else v for k, v in wrong.items()}
    with pytest.raises(ValueError, match=said):
        train(store, out=str(tmp_path / "run"), **options(**given))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"thaw": 1}, "thaw keeps what was learned before"),
        ({"thaw": 3, "init": ...}, "thaw 3: in 3 steps the stem would never learn"),
        ({"layer_decay": 0.5, "mode": "frozen"}, "layer_decay and mode frozen: no backbone is trained"),
        ({"drop_path": 0.5, "mode": "knn", "lrs": (), "steps": ()}, "drop_path and mode knn"),
        ({"grad_checkpointing": True, "mode": "linear", "lrs": (), "steps": ()}, "grad_checkpointing and mode linear"),
    ],
)
def test_a_transfer_refuses_what_cannot_be_meant(start, tmp_path, wrong, said):
    given = {k: start if v is ... else v for k, v in wrong.items()}
    people = downstream(tmp_path / "people", 6, 2, ["classification"])
    with pytest.raises(ValueError, match=said):
        transfer(people, out=str(tmp_path / "out"), **transfer_options(**given))
    assert not (tmp_path / "out").exists()


def test_settings_check_themselves():
    for wrong, said in (({"layer_decay": 0.0}, "layer_decay"), ({"thaw": -1}, "thaw"), ({"thaw": 4}, "thaw 4: in 4")):
        with pytest.raises(ValueError, match=said):
            check(Settings(steps=4, **wrong))
    assert FineTuning().given() == []
    assert FineTuning(thaw=1, drop_path=0.1).given() == ["thaw", "drop_path"]
    assert not StudentHardware().grad_checkpointing


def test_a_training_without_units_says_so(tmp_path):
    with pytest.raises(ValueError, match="this training knows none"):
        fit(nn.Linear(1, 1), Mixture({"a": 1.0}), lambda first: [], Settings(steps=4, layer_decay=0.5), tmp_path)


# ---- the verbs ----


def test_words_a_file_and_python_say_the_same(store, start, tmp_path, capsys):
    more = options(steps=4, init=start)
    train(store, out=str(tmp_path / "python"), grad_checkpointing=True, **(TUNED | {"thaw": 2}), **more)
    words = ["--layer-decay", "0.5", "--thaw", "2", "--drop-path", "0.4", "--grad-checkpointing"]
    plain = [w for k, v in more.items() if k != "progress" for w in (f"--{k.replace('_', '-')}", str(v))]
    main(["train", store, "--out", str(tmp_path / "words"), "--no-progress", *plain, *words])
    said = capsys.readouterr().err
    assert "backbone in 7 units, each with its learning rate and its first step:" in said
    assert "  backbone.conv1.0 (+2): 0.00781 x lr, from step 3" in said
    assert "  backbone.layer4.0: 0.5 x lr, from step 2" in said
    file = tmp_path / "options.yaml"
    file.write_text("layer-decay: 0.5\nthaw: 2\ndrop_path: 0.4\ngrad_checkpointing: true\n")
    main(["train", store, "--out", str(tmp_path / "file"), "--no-progress", *plain, "--config", str(file)])
    assert weights_of(tmp_path / "python") == weights_of(tmp_path / "words") == weights_of(tmp_path / "file")
    config = json.loads((tmp_path / "words" / "config.json").read_text())["options"]
    assert {k: config[k] for k in TUNED} == TUNED | {"thaw": 2}


def test_a_transfer_is_tuned_too(tmp_path):
    people = downstream(tmp_path / "people", 8, 2, ["segmentation"])
    more = transfer_options(
        lrs=(0.01,), steps=(3,), seeds=(0,), parts=("backbone",), resamples=0, examples=0, keep=True
    )
    init = representation(tmp_path / "run")
    before = load_file(tmp_path / "run" / "student.safetensors")
    moved = {}
    for name, tuned in (
        ("plain", {}),
        ("thaw", {"thaw": 2}),
        ("all", {**TUNED, "thaw": 2, "grad_checkpointing": True}),
    ):
        transfer(people, out=str(tmp_path / name), init=init, **more, **tuned)
        (file,) = (tmp_path / name).rglob("student.safetensors")
        after = load_file(file)
        moved[name] = (after["backbone.conv1.0.weight"] - before["backbone.conv1.0.weight"]).norm()
        config = json.loads((tmp_path / name / "config.json").read_text())["options"]
        assert {k: config[k] for k in tuned} == tuned
        said = result(tmp_path / name)["command"]
        for k, v in tuned.items():
            assert f"--{k.replace('_', '-')}" + ("" if v is True else f" {v}") in said
        assert ("--thaw" in said) == bool(tuned)
    assert 0 < moved["all"] < 0.1 * moved["thaw"] < 0.1 * moved["plain"]  # 0.5 ** 7, for one step of three
    (tmp_path / "all" / "transfer.json").unlink()
    with pytest.raises(ValueError, match=r"layer_decay was 0\.5, is 1\.0"):
        transfer(people, out=str(tmp_path / "all"), init=init, **more, **(TUNED | {"thaw": 2, "layer_decay": 1.0}))


@pytest.mark.parametrize("name", ["hrnet_w18_small", "mine"])
def test_a_backbone_that_keeps_as_much_is_refused(monkeypatch, name):
    """One cannot; the other has the switch, and no use for it."""
    monkeypatch.setattr(Plain, "set_grad_checkpointing", lambda self, enable=True: None, raising=False)
    if name == "mine":
        monkeypatch.setattr(recomputation, "load_backbone", lambda *_, **__: Plain())
    with pytest.raises(ValueError, match=f"grad_checkpointing: {name} cannot compute its activations again"):
        check_recomputable(name, (64, 64))


def test_objectives_are_built_with_stochastic_depth_as_without():
    space = Space(NAMES, load_task("classification").kinds[0])
    one, two = ({}, {"drop_path": 0.2})
    both = []
    for more in (one, two):
        torch.manual_seed(1)
        both.append(Student("test_convnext", {"c": Objective("classification", space)}, 8, **more).eval())
    images = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
    assert both[0](images)["c"].equal(both[1](images)["c"])


@pytest.mark.parametrize("more", [{}, {"thaw": 2}, {"grad_checkpointing": True}])
def test_statistics_that_are_kept_are_those_of_the_checkpoint(store, start, tmp_path, more):
    """The weights learn; a ViT has none."""
    train(store, out=str(tmp_path / "kept"), **options(init=start, steps=3, keep_statistics=True, **more))
    kept, before = (
        load_student(tmp_path / "kept").backbone.state_dict(),
        load_backbone("test_resnet", start).state_dict(),
    )
    names = {k for k in kept if k.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert names
    assert all(torch.equal(kept[k], before[k]) for k in names)
    assert not all(torch.equal(kept[k], before[k]) for k in kept.keys() - names)
    with pytest.raises(ValueError, match="keep_statistics: test_vit has no batch normalisation"):
        Student("test_vit", {}, 8).keep_statistics()


def test_gradients_with_kept_statistics_are_those_of_evaluation(start):
    """By hand: normalised by constants, a pass of one image gives the map that a pass of two gives it."""
    torch.manual_seed(0)
    student = Student("test_resnet", {}, 8, init=start).train()
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    assert not torch.allclose(student.levels(images)[-1][:1], student.levels(images[:1])[-1], atol=1e-4)
    student.keep_statistics()
    student.train()
    torch.testing.assert_close(student.levels(images)[-1][:1], student.levels(images[:1])[-1], rtol=1e-4, atol=1e-5)
