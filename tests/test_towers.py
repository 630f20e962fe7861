"""Vision towers of transformers as backbones, on tiny random ones, against what transformers itself answers."""

import copy
import inspect
import json
import shutil
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from polyteach.ground.hub_models import check_counts
from polyteach.model.backbones import load_backbone
from polyteach.model.backbones._plain import taken
from polyteach.model.backbones._transformers_towers import fitted
from polyteach.model.student import Student, describe_student, load_student, save_student
from polyteach.model.units import units_of
from polyteach.store import Store
from polyteach.tasks.contract import Objective, Space
from polyteach.training import loop
from polyteach.training.recomputation import check_recomputable, recomputed
from polyteach.verbs.label import label
from polyteach.verbs.train import train
from polyteach.verbs.transfer import transfer
from tests import tiny
from tests.test_transfer import downstream, options
from tests.worlds import NAMES, SMALL, weights_of, world

OTHER = (96, 128)
"""Another size (height, width) than the configured 64x64, and no square."""
PLAIN = {
    "clip": (1, True), "siglip": (0, False), "vit": (1, True), "deit": (2, True), "dinov2": (1, True),
    "dinov2_with_registers": (5, True), "dinov3_vit": (3, True), "beit": (1, True), "data2vec-vision": (1, True),
    "vit_mae": (1, True), "ijepa": (0, False), "vit_msn": (1, True), "metaclip_2": (1, True), "dpt": (1, True),
    "siglip_vision_model": (0, False), "internvl_vision": (1, True), "aimv2_vision_model": (0, False),
}  # fmt: skip
"""model_type -> tokens before those of the patches, and whether the first is of the class."""
LAST = ("convnext", "convnextv2", "dinov3_convnext", "resnet", "pvt_v2", "regnet", "bit", "segformer", "poolformer")
"""Whose hidden states are the maps of their stages, the last of each stride."""
STAGES = {"swin": "layers", "swinv2": "layers", "focalnet": "stages"}
"""model_type -> the encoder's stages, whose last block says a stage's map."""
MORE = {
    "swin": {"depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]},
    "focalnet": {"patch_size": 4},
    "dinov3_vit": {"num_register_tokens": 2},
}  # fmt: skip
DEEP = {"num_hidden_layers": 6}
"""Of plain ones, so that the four depths are four layers."""


def config_of(kind):
    made = CONFIG_MAPPING[kind]
    fields = set(getattr(made, "__dataclass_fields__", {})) | set(inspect.signature(made.__init__).parameters)
    general = {k: v for k, v in tiny.GENERAL.items() if k in fields} | tiny.OWN.get(kind, {}) | MORE.get(kind, {})
    general = copy.deepcopy(general)
    if kind in PLAIN:
        general.get("vision_config", general).update(DEEP)
    general |= {k: 6 for k in ("num_hidden_layers",) if kind == "beit"}
    return made(**general)


def folder_of(kind, folder, **more):
    """A folder with a tiny model, and its image processor's file."""
    torch.manual_seed(0)
    model = tiny.lively(transformers.AutoModel.from_config(config_of(kind)))
    for name, p in model.named_parameters():  # so that no table of positions is flat
        if "position" in name or "token" in name:
            torch.nn.init.normal_(p, std=0.5)
    model.save_pretrained(folder)
    said = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(said | more))
    return f"transformers:{folder}"


def sees(name):
    """transformers' own model of the folder, or its vision part."""
    model = transformers.AutoModel.from_pretrained(name.removeprefix("transformers:")).eval()
    return getattr(model, "vision_model", model)


def answered(model, x):
    """What transformers answers."""
    more = {}
    if "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
        more["interpolate_pos_encoding"] = True
    if model.config.model_type == "vit_mae":
        model.config.mask_ratio = 0.0
        more["noise"] = torch.linspace(0, 1, x.shape[2] * x.shape[3] // 256).repeat(len(x), 1)
    return model(x, output_hidden_states=True, **more)


def pictures(size, count=2):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(3))


def same(got, want):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), OTHER])
@pytest.mark.parametrize("kind", PLAIN)
@torch.inference_mode()
def test_plain_towers_say_what_transformers_says(kind, size, tmp_path):
    if kind == "aimv2_vision_model" and size == OTHER:
        pytest.skip("its positions are a table for squares; see below")
    prefix, has_class = PLAIN[kind]
    name = folder_of(kind, tmp_path)
    tower, x = load_backbone(name, "pretrained", size).eval(), pictures(size)
    maps, found = tower(x), answered(sees(name), x)
    h, w = size[0] // 16, size[1] // 16
    assert (tower.multiple, set(tower.strides)) == (16, {16})
    assert [m.shape for m in maps] == [(2, c, h, w) for c in tower.channels]
    layers = len(found.hidden_states) - 1
    tokens = [found.hidden_states[k + 1] for k in taken(layers)[:3]] + [found.last_hidden_state]
    assert len({t.sum().item() for t in tokens}) == 4
    for got, want in zip(maps, tokens, strict=False):
        for i, j in ((0, 0), (0, w - 1), (h - 1, 0), (1, 2)):
            same(got[:, :, i, j], want[:, prefix + i * w + j])
    same(maps[4][:, :16], maps[3])
    if has_class:
        same(maps[4][:, 16:, 1, 2], tokens[-1][:, 0])
    assert tower.channels[-1] == (32 if has_class else 16)


@pytest.mark.parametrize("kind", PLAIN)
@torch.inference_mode()
def test_cells_lie_where_the_image_changes(kind, tmp_path):
    """In a layer's first map the cell of a changed patch changes most: rows are rows, and no token is shifted."""
    size = (64, 64) if kind == "aimv2_vision_model" else OTHER
    tower = load_backbone(folder_of(kind, tmp_path), "pretrained", size).eval()
    x = pictures(size, 1)
    for i, j in ((0, 0), (1, 3), (3, 2)):
        changed = x.clone()
        changed[:, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16] += 3 * pictures((16, 16), 1)
        where = (tower(changed)[0] - tower(x)[0]).square().sum(1)[0]
        assert divmod(int(where.argmax()), where.shape[1]) == (i, j)


@pytest.mark.parametrize("size", [(64, 64), OTHER])
@pytest.mark.parametrize("kind", [*LAST, *STAGES, "hiera"])
@torch.inference_mode()
def test_pyramids_say_what_transformers_says(kind, size, tmp_path):
    name = folder_of(kind, tmp_path)
    tower, x = load_backbone(name, "pretrained", size).eval(), pictures(size)
    maps, model = tower(x), sees(name)
    assert (tower.strides, tower.multiple) == ((4, 8, 16, 32), 32)
    assert [m.shape for m in maps] == [
        (2, c, size[0] // s, size[1] // s) for c, s in zip(tower.channels, tower.strides, strict=True)
    ]
    if kind == "hiera":
        if size == OTHER:  # its layers are laid out for one size
            model = transformers.HieraModel(transformers.HieraConfig(**{**model.config.to_dict(), "image_size": size}))
            model.load_state_dict({k: v.clone() for k, v in tower.model.state_dict().items()})
        wanted = model.eval()(x, output_hidden_states=True).reshaped_hidden_states[1:]
        for got, want in zip(maps, wanted, strict=True):
            same(got, want.permute(0, 3, 1, 2))
        return
    said = []
    for stage in getattr(model.encoder, STAGES[kind]) if kind in STAGES else ():
        block = (stage.blocks if hasattr(stage, "blocks") else stage.layers)[-1]
        block.register_forward_hook(lambda module, given, out: said.append(out[0] if isinstance(out, tuple) else out))
    found = model(x, output_hidden_states=True, always_partition=True) if kind == "swin" else answered(model, x)
    last = found.last_hidden_state
    if kind in STAGES:
        for got, want in zip(maps[:3], said, strict=False):
            same(got.flatten(2).transpose(1, 2), want)
    else:
        for got in maps[:3]:
            same(got, [t for t in found.hidden_states if t.shape == got.shape][-1])
    cells = maps[3].shape[2] * maps[3].shape[3]
    same(maps[3].flatten(2).transpose(1, 2), last[:, -cells:] if last.ndim == 3 else last.flatten(2).transpose(1, 2))


@torch.inference_mode()
def test_tables_of_positions_are_interpolated_where_the_library_does_not(tmp_path):
    name = folder_of("aimv2_vision_model", tmp_path)
    tower = load_backbone(name, "pretrained", (96, 96))
    key = "embeddings.position_embedding.weight"
    was = sees(name).state_dict()[key]
    square = was.T.reshape(1, 16, 4, 4)
    want = torch.nn.functional.interpolate(square, (6, 6), mode="bicubic").flatten(2)[0].T
    torch.testing.assert_close(tower.model.state_dict()[key], want)
    maps = tower.eval()(pictures((96, 96)))
    assert maps[0].shape == (2, 16, 6, 6)
    back = tower.resized({"model." + key: was})
    torch.testing.assert_close(back["model." + key], want)
    flat = torch.full((16, 3), 2.0)
    wide = fitted({"position": flat}, {"position": torch.zeros(24, 3)}, (64, 96))
    torch.testing.assert_close(wide["position"], torch.full((24, 3), 2.0))


# ---- runs ----

OBJECTIVES = {"classification_x": Objective("classification", Space(NAMES))}


@pytest.fixture
def store(tmp_path):
    return world(tmp_path / "store", count=6, tasks=["classification", "depth", "detection"])


def run_of(kind, tmp_path, size=64):
    """A run with random weights, and the folder that its backbone was made from."""
    name = folder_of(kind, tmp_path / "folder")
    torch.manual_seed(1)
    student = Student(name, OBJECTIVES, 8, "pretrained", size=(size, size))
    save_student(student, tmp_path / "run", {"size": [size, size], "trained": ["backbone", "pyramid", "heads"]})
    return student.eval(), tmp_path / "run"


def answers(student, size=64):
    images = [torch.randint(0, 256, (3, 50, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))]
    return [a["classification_x"].probability for a in student.answer(images, (size, size))]


@pytest.mark.parametrize(
    ("kind", "size"),
    [("clip", 64), ("vit_mae", 96), ("hiera", 96), ("aimv2_vision_model", 96), ("swin", 64), ("metaclip_2", 64)],
)
def test_a_run_is_loaded_without_what_its_backbone_was_made_from(kind, size, tmp_path):
    student, run = run_of(kind, tmp_path, size)
    wanted = answers(student, size)
    shutil.rmtree(tmp_path / "folder")
    about = describe_student(run)
    assert about["backbone"] == f"transformers:{tmp_path / 'folder'}"
    assert about["backbone_config"]["mean"] == [0.5] * 3
    again = load_student(run)
    assert [torch.equal(a, b) for a, b in zip(wanted, answers(again, size), strict=True)] == [True]
    same(again.std.flatten() / 255, torch.full((3,), 0.25))
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in student.state_dict().items())
    other = Student(about["backbone"], OBJECTIVES, 8, str(run), size=(128, 128))
    assert other.backbone(torch.zeros(1, 3, 128, 128))[-1].shape[0] == 1
    save_student(other, run.parent / "other", {"size": [128, 128]})
    assert load_student(run.parent / "other").backbone.config == about["backbone_config"]


@pytest.mark.parametrize("kind", ["dinov2", "convnextv2"])
def test_it_is_trained_resumed_transferred_and_teaches(kind, tmp_path, store, monkeypatch):
    name = folder_of(kind, tmp_path / "folder")
    more = SMALL | {"backbone": name, "size": 64, "save_every": 1}
    whole, parted = str(tmp_path / "whole"), str(tmp_path / "parted")
    train(store, out=whole, init="pretrained", steps=2, **more)
    interrupted = {"done": 0}
    real = torch.optim.Optimizer.zero_grad

    def twice(self, *given, **named):
        interrupted["done"] += 1
        if interrupted["done"] == 2:
            raise KeyboardInterrupt
        return real(self, *given, **named)

    with monkeypatch.context() as m:
        m.setattr(torch.optim.SGD, "zero_grad", twice)
        with pytest.raises(KeyboardInterrupt):
            train(store, out=parted, init="pretrained", steps=2, **more)
    assert not (tmp_path / "parted" / "student.json").exists()
    train(store, out=parted, init="pretrained", steps=2, **more)
    assert weights_of(tmp_path / "whole") == weights_of(tmp_path / "parted")
    shutil.rmtree(tmp_path / "folder")
    was, now = Student(name, {}, 8, whole).state_dict(), load_student(whole).state_dict()
    assert all(torch.equal(v, now[k]) for k, v in was.items())
    train(store, out=str(tmp_path / "next"), init=whole, steps=1, freeze=("backbone",), **more)
    frozen = load_student(tmp_path / "next").state_dict()
    assert all(torch.equal(v, frozen[k]) for k, v in now.items() if k.startswith("backbone"))
    label(store, teachers={"again": f"own:{whole}"}, progress=False)
    assert {s.name for s in Store.open(store).sets()} >= {"oracle", "again"}
    target = downstream(tmp_path / "target", tasks=["classification"])
    small = options(steps=(1,), lrs=(0.01,), seeds=(0,), backbone=None, channels=None)
    transfer(target, out=str(tmp_path / "out"), init=whole, **small)
    found = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert found["representation"]["backbone"] == name


def test_normalisation_is_that_of_the_folder(tmp_path, capsys):
    name = folder_of("vit", tmp_path, image_mean=[0.1, 0.2, 0.3], rescale_factor=1 / 127.5)
    student = Student(name, {}, 8)
    same(student.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]) * 127.5)
    same(student.std.flatten(), torch.full((3,), 0.25 * 127.5))
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"image_processor_type": "ViTImageProcessor", "do_normalize": False}))
    plain = Student(name, {}, 8)
    same(plain.std.flatten(), torch.full((3,), 255.0))
    same(plain.mean.flatten(), torch.zeros(3))
    file.unlink()
    capsys.readouterr()
    same(Student(name, {}, 8).mean.flatten(), torch.tensor([0.485, 0.456, 0.406]) * 255)
    assert "has no preprocessor_config.json: images are normalised by ImageNet's" in capsys.readouterr().err


def test_which_weights_a_tower_starts_from(tmp_path):
    name = folder_of("vit", tmp_path / "folder")
    there = sees(name).state_dict()
    given = load_backbone(name, "pretrained").model.state_dict()
    assert all(torch.equal(v, given[k]) for k, v in there.items())
    key = next(k for k in there if k.endswith("weight") and "layer" in k and there[k].ndim == 2)
    torch.manual_seed(5)
    first = load_backbone(name, None).model.state_dict()[key]
    torch.manual_seed(5)
    assert torch.equal(first, load_backbone(name, None).model.state_dict()[key])
    assert not torch.equal(first, there[key])
    torch.save(there, tmp_path / "w.pth")
    assert torch.equal(load_backbone(name, str(tmp_path / "w.pth")).model.state_dict()[key], there[key])
    torch.save({k: v for k, v in there.items() if k != key}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=rf"part.pth does not fit transformers:.*: lacks \['{key}'\]"):
        load_backbone(name, str(tmp_path / "part.pth"))
    with pytest.raises(ValueError, match="neither 'pretrained', a file, nor a run's folder"):
        load_backbone(name, str(tmp_path / "none.pth"))
    model = transformers.AutoModel.from_pretrained(tmp_path / "folder")
    lacking = {k: v for k, v in model.state_dict().items() if k != key}
    model.save_pretrained(tmp_path / "folder", state_dict=lacking)
    with pytest.raises(ValueError, match=rf"has no weights for {key}: the features would be random"):
        load_backbone(name, "pretrained")
    lacking = {k: v for k, v in model.state_dict().items() if "pooler" not in k}
    model.save_pretrained(tmp_path / "folder", state_dict=lacking)
    assert load_backbone(name, "pretrained") is not None  # no map depends on it


def test_every_parameter_that_learns_gets_a_gradient(tmp_path):
    tower = load_backbone(folder_of("clip", tmp_path), "pretrained", (64, 64))
    sum(m.square().sum() for m in tower(pictures((64, 64)))).backward()
    learns = {k: p.grad for k, p in tower.named_parameters() if p.requires_grad}
    assert all(g is not None for g in learns.values())
    assert len(learns) > 50
    assert not any("post_layernorm" in k for k in learns)


@pytest.mark.parametrize(
    ("kind", "size", "said"),
    [
        ("vit", (100, 64), "its patches have 16 pixels, and sides have to be multiples of that; it was made for 64x64"),
        ("siglip2", (64, 64), r"it takes patches of any number instead of images of one size \(NaFlex\)"),
        ("yolos", (64, 64), "it answers with 25 tokens, of which 16 are those of its patches and 1 known ones"),
        ("swinv2", (48, 64), r"are not at the strides \(4, 8, 16, 32\)"),
        ("cvt", (64, 64), r"are not at the strides \(4, 8, 16, 32\)"),
        ("levit", (64, 64), "its layers answer with the shapes"),
        ("pixtral", (64, 64), "it does not give the hidden states of its layers, image by image"),
    ],
)
def test_what_is_neither_is_refused_in_one_line(kind, size, said, tmp_path):
    model = transformers.AutoModel.from_config(config_of(kind))
    model.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=rf"backbone 'transformers:.*' gives no feature maps of images of .*{said}"
    ) as e:
        load_backbone(f"transformers:{tmp_path}", None, size)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 500


def test_channels_of_stages_are_no_number_of_them():
    """HGNetV2 of RT-DETR and D-FINE has stages of 1,024 channels and more."""
    check_counts({"stage_in_channels": [48, 128, 512, 1024], "stage_num_blocks": [1, 1, 3, 1]}, "here")
    with pytest.raises(ValueError, match=r"here/config\.json: stage_num_blocks is"):
        check_counts({"backbone_config": {"stage_num_blocks": [1, 1, 3000, 1]}}, "here")


def test_names_are_refused_before_torch_is_imported(tmp_path):
    code = (
        "import sys\nfrom polyteach.model.backbones import check_name\n"
        "for name in ('transformers:/no/where', 'transformers:'):\n"
        "    try:\n        check_name(name)\n    except ValueError as e:\n        print(e)\n"
        "check_name('transformers:facebook/dinov2-base')\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.startswith("no folder /no/where; transformers: takes a folder that save_pretrained wrote")
    assert "backbone 'transformers:' names no model" in found
    assert found.endswith("False False\n")


def test_folders_that_are_none_are_one_line(tmp_path):
    for name in ("nobody/nothing", str(tmp_path)):
        with pytest.raises(ValueError, match=rf"transformers:{name} \(.*\) gives no AutoConfig") as e:
            load_backbone(f"transformers:{name}", "pretrained")
        assert "\n" not in str(e.value)
    name = folder_of("vit", tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    for more, said in (
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, of at most 1,000"),
        ({"image_size": 10**7}, "has the image_size 10000000; numbers there are at most 8,192"),
        ({"hidden_act": "../../x"}, "has the hidden_act '../../x', which is no word of a configuration"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(about | more))
        with pytest.raises(ValueError, match=r"config\.json") as e:
            load_backbone(name, None)
        assert said in str(e.value)


HOSTILE = [
    ("model.auto_map", {"AutoModel": "evil--x.Y"}, "has 'auto_map', by which the library looks for code"),
    ("model.backbone", "resnet50", "has 'backbone', by which the library looks for code or for another model"),
    ("model.hidden_act", "/etc/passwd", "has the hidden_act '/etc/passwd', which is no word"),
    ("model.model_type", "timm_wrapper", "is of a model of timm's: give timm's own name"),
    ("model.model_type", "nonesuch", "unknown model_type 'nonesuch'"),
    ("model.model_type", "bert", "gives no feature maps of images of 64x64: "),
    ("model.model_type", None, "must say the model_type"),
    ("model.model_type", ["vit"], "must say the model_type"),
    ("model.hidden_size", 10**12, "has the hidden_size 1000000000000; numbers there are at most"),
    ("model.hidden_size", 10**6, "does not fit student.json"),
    ("model.hidden_size", "wide", "is no configuration of vit"),
    ("model.image_size", 10**6, "has the image_size 1000000; numbers there are at most 8,192"),
    ("model.num_hidden_layers", 10**5, "num_hidden_layers is 100000, of at most 1,000"),
    ("model.depths", [900] * 900, "has depths of more than 1,000 layers together"),
    ("model.num_attention_heads", 0, "is none of a model: ZeroDivisionError"),
    ("model.more", [[[[[[[[1]]]]]]]], "lists more than 6 deep"),
    ("model", [1], "backbone_config must have model, an object, mean and std"),
    ("mean", [0.5] * 4, "backbone_config.mean must be three numbers"),
    ("std", [0.0] * 3, "backbone_config.std must be three numbers"),
    ("mean", ["a"] * 3, "backbone_config.mean must be three numbers"),
    ("path", "/etc", "backbone_config must have model"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    run_of("vit", folder)
    shutil.rmtree(folder / "folder")
    return folder / "run"


@pytest.mark.parametrize(("path", "value", "said"), HOSTILE)
def test_a_strangers_configuration_is_one_line(path, value, said, made, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(made, run)
    about = json.loads((run / "student.json").read_text())
    *outer, last = path.split(".")
    inner = about["backbone_config"]
    for key in outer:
        inner = inner[key]
    inner[last] = value
    (run / "student.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"student\.(json|safetensors)") as e:
        load_student(run)
    assert said in str(e.value)
    assert len(str(e.value)) < 600
    assert "\n" not in str(e.value)


def test_a_run_reads_no_folder_that_a_stranger_names(made, tmp_path):
    """Without the configuration the name would be looked for, on this machine or on the hub."""
    folder_of("vit", tmp_path / "folder")
    for backbone, config, said in (
        (f"transformers:{tmp_path / 'folder'}", None, "backbone_config is missing"),
        (f"transformers:{tmp_path / 'folder'}", 3, "backbone_config must be an object; it is 3"),
        ("test_vit", {}, "backbone_config is of no use to backbone 'test_vit'; take it out"),
    ):
        run = tmp_path / f"run {said[-3:]}"
        shutil.copytree(made, run)
        about = json.loads((run / "student.json").read_text()) | {"backbone": backbone, "backbone_config": config}
        if config is None:
            del about["backbone_config"]
        (run / "student.json").write_text(json.dumps(about))
        with pytest.raises(ValueError, match=r"student\.json: ") as e:
            load_student(run)
        assert said in str(e.value)


def test_stochastic_depth_is_what_is_asked_for(tmp_path):
    """BEiT's own configuration has it at 0.1."""
    name, x = folder_of("beit", tmp_path / "beit"), pictures((64, 64))
    for drop_path in (0.0, 0.9):
        tower = load_backbone(name, "pretrained", (64, 64), drop_path).train()
        assert tower.config["model"]["drop_path_rate"] == 0.0
        torch.manual_seed(0)
        once, again = tower(x)[-1], tower(x)[-1]
        assert torch.equal(once, again) == (not drop_path)
    with pytest.raises(ValueError, match=r"drop_path: backbone 'transformers:.*' has no stochastic depth"):
        load_backbone(folder_of("clip", tmp_path / "clip"), None, (64, 64), 0.1)


def test_layers_are_units(tmp_path):
    """A stem and six layers each, whatever else the model has: a pooler or a head is no unit."""
    for kind in ("siglip", "dinov2", "vit"):
        found = units_of(folder_of(kind, tmp_path / kind), (64, 64), "backbone")
        assert len(found) == 7, (kind, found)
    found = units_of(folder_of("convnextv2", tmp_path / "convnextv2"), (64, 64), "backbone")
    assert len(found) == 5


@pytest.mark.parametrize("kind", ["dinov2", "siglip", "swin"])
def test_activations_that_are_computed_again_change_no_gradient(kind, tmp_path):
    name = folder_of(kind, tmp_path / kind)
    check_recomputable(name, (64, 64))  # it keeps fewer of them
    backbone = load_backbone(name, "pretrained", (64, 64)).train()
    images, grads = pictures((64, 64)), []
    for again in (False, True):
        backbone.zero_grad()
        with recomputed(backbone, name) if again else nullcontext():
            sum(m.square().mean() for m in backbone(images)).backward()
        grads.append({k: p.grad.clone() for k, p in backbone.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for k, v in grads[0].items():
        torch.testing.assert_close(grads[1][k], v, msg=k)


def test_a_model_that_cannot_compute_its_activations_again_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot compute its activations again"):
        check_recomputable(folder_of("convnextv2", tmp_path), (64, 64))


def test_the_stochastic_depth_that_a_configuration_has_is_taken_where_it_is_asked_for(tmp_path):
    name = folder_of("swin", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"drop_path_rate": 0.1}))
    load_backbone(name, None, (64, 64), drop_path=0.1)


def test_a_run_goes_on_with_the_normalisation_that_it_began_with(tmp_path, store, monkeypatch):
    name = folder_of("dinov2", tmp_path / "tower")
    more = SMALL | {"size": 64, "steps": 4, "save_every": 2, "backbone": name, "init": "pretrained"}
    real = loop._Loop.update

    def stops(self, stream):
        if self.step == 2:
            raise KeyboardInterrupt
        return real(self, stream)

    with monkeypatch.context() as m:
        m.setattr(loop._Loop, "update", stops)
        with pytest.raises(KeyboardInterrupt):
            train(store, out=str(tmp_path / "run"), **more)
    file = tmp_path / "tower" / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    with pytest.raises(ValueError, match="was started otherwise: backbone_sha256"):
        train(store, out=str(tmp_path / "run"), **more)
