"""Weights to start from as they are published: other names, other networks beside them, heads, decoders, towers.

The names are those of the models' own code: facebookresearch/ConvNeXt(-V2), mae, dinov2, dinov3, openai/CLIP, apple/
ml-aim, mlfoundations/open_clip. ConvNeXt is computed as its code does it, and compared by its maps.
"""

import argparse
import itertools
import re

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from polyteach.model.backbones import _timm_checkpoint as checkpoint
from polyteach.model.backbones import load_backbone
from polyteach.model.backbones._timm_checkpoint import weights_of
from polyteach.model.backbones._timm_recipe import recipe

VIT = {"features_only": True, "out_indices": (1,), "embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture(autouse=True)
def each_line_again():
    checkpoint._say.cache_clear()  # it says a line once a process


def saved(content, file):
    save_file(content, file) if file.suffix == ".safetensors" else torch.save(content, file)
    return file


def drawn(shapes):
    generator = torch.Generator().manual_seed(len(shapes))
    return {k: torch.randn(s, generator=generator) for k, s in shapes.items()}


class Norm(nn.LayerNorm):
    """Over channels, which come first."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Response(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.randn(1, 1, 1, dim)) for _ in range(2))

    def forward(self, x):
        size = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (size / (size.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + x


class Block(nn.Module):
    def __init__(self, dim, second):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        if second:
            self.grn = Response(4 * dim)
        else:
            self.gamma = nn.Parameter(torch.rand(dim))

    def forward(self, x):
        y = F.gelu(self.pwconv1(self.norm(self.dwconv(x).permute(0, 2, 3, 1))))
        y = self.pwconv2(self.grn(y) if hasattr(self, "grn") else y)
        return x + (self.gamma * y if hasattr(self, "gamma") else y).permute(0, 3, 1, 2)


class Meta(nn.Module):
    """ConvNeXt and ConvNeXt V2 as Meta's code names and computes them."""

    def __init__(self, second, depths=(2, 2, 6, 2), dims=(40, 80, 160, 320)):
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), Norm(dims[0], eps=1e-6))
        down = [nn.Sequential(Norm(a, eps=1e-6), nn.Conv2d(a, b, 2, stride=2)) for a, b in itertools.pairwise(dims)]
        self.downsample_layers = nn.ModuleList([stem, *down])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(c, second) for _ in range(n))) for c, n in zip(dims, depths, strict=True)
        )
        self.norm, self.head = nn.LayerNorm(dims[-1]), nn.Linear(dims[-1], 7)

    def forward(self, x):
        out = []
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
            out.append(x)
        return out


@pytest.mark.parametrize(("name", "second"), [("convnext_atto", False), ("convnextv2_atto", True)])
def test_metas_convnext_gives_the_maps_that_its_own_code_gives(name, second, tmp_path, capsys):
    torch.manual_seed(0)
    own = Meta(second).eval()
    file = saved({"model": own.state_dict(), "epoch": 3, "args": argparse.Namespace(lr=1.0)}, tmp_path / "meta.pt")
    backbone = load_backbone(name, str(file), (64, 96)).eval()
    image = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        for a, b in zip(backbone(image), own(image), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert capsys.readouterr().err == f"{file}: 4 tensors left out, such as norm.weight\n"


def block(dim, hidden, norms=("norm1", "norm2"), scale=()):
    """Shapes of a block of a vision transformer, as Facebook's code names them."""
    out = {f"{n}.{p}": (dim,) for n in norms for p in ("weight", "bias")} | {f"{s}.gamma": (dim,) for s in scale}
    layers = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (hidden, dim), "mlp.fc2": (dim, hidden)}
    return out | {f"{k}.weight": s for k, s in layers.items()} | {f"{k}.bias": s[:1] for k, s in layers.items()}


def encoder(dim=32, depth=2, patch=16, grid=14, scale=(), hidden=4):
    out = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + grid * grid, dim), "norm.weight": (dim,), "norm.bias": (dim,)}
    out |= {"patch_embed.proj.weight": (dim, 3, patch, patch), "patch_embed.proj.bias": (dim,)}
    return out | {f"blocks.{i}.{k}": s for i in range(depth) for k, s in block(dim, hidden * dim, scale=scale).items()}


def test_mae_is_read_without_its_decoder(tmp_path, capsys):
    decoder = {"mask_token": (1, 1, 16), "decoder_embed.weight": (16, 32), "decoder_pos_embed": (1, 197, 16)}
    decoder |= {f"decoder_blocks.0.{k}": s for k, s in block(16, 64).items()} | {"decoder_norm.weight": (16,)}
    state = drawn(encoder() | decoder)
    file = saved({"model": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}, tmp_path / "mae.pth")
    made = recipe("vit_base_patch16_224", VIT)
    found = weights_of(file, made)
    assert set(made.names.values()) == {k for k in encoder() if not k.startswith("norm.")}  # maps come before it
    assert found.keys() == made.names.keys()
    assert all(torch.equal(v, state[made.names[k]]) for k, v in found.items())
    assert capsys.readouterr().err == f"{file}: {len(decoder)} tensors left out, such as mask_token\n"


def test_dinov2_with_registers_and_its_training_files(tmp_path, capsys):
    shapes = encoder(scale=("ls1", "ls2"), grid=7, patch=32) | {"mask_token": (1, 32), "register_tokens": (1, 4, 32)}
    state = drawn(shapes)
    made = recipe("vit_base_patch32_224", VIT | {"init_values": 1.0, "reg_tokens": 4, "no_embed_class": True})

    def right(found):
        timms = {made.names[k]: v for k, v in found.items()}
        assert torch.equal(timms["reg_token"], state["register_tokens"])
        assert torch.equal(timms["cls_token"][:, 0], state["cls_token"][:, 0] + state["pos_embed"][:, 0])
        assert torch.equal(timms["pos_embed"], state["pos_embed"][:, 1:])
        assert torch.equal(timms["blocks.1.ls2.gamma"], state["blocks.1.ls2.gamma"])

    file = saved(state, tmp_path / "dinov2_reg4_pretrain.pth")
    right(weights_of(file, made))
    assert not capsys.readouterr().err
    # of a training: blocks in chunks, for FSDP, and a head beside them; the student was one step ahead
    chunked = {re.sub(r"^blocks\.(\d)", r"blocks.0.\1", k): v for k, v in state.items()}
    teacher = {f"backbone.{k}": v for k, v in chunked.items()} | {"dino_head.last_layer.weight": torch.ones(3, 3)}
    student = {f"module.backbone.{k}": v + 1 for k, v in chunked.items()}
    file = saved({"student": student, "teacher": teacher}, tmp_path / "teacher_checkpoint.pth")
    right(weights_of(file, made))
    said = capsys.readouterr().err
    assert f"{file}: 'teacher' 'backbone.*' is taken, not 'student' 'module.backbone.*'; 1 tensor left out" in said
    assert "such as dino_head.last_layer.weight" in said


def test_registers_that_a_model_does_not_have_are_no_head(tmp_path):
    state = drawn(encoder(scale=("ls1", "ls2")) | {"mask_token": (1, 32), "register_tokens": (1, 4, 32)})
    with pytest.raises(ValueError, match=r"has unknown \['register_tokens'\]"):
        weights_of(saved(state, tmp_path / "reg.pth"), recipe("vit_base_patch16_224", VIT | {"init_values": 1.0}))


def test_dinov3(tmp_path, capsys):
    shapes = encoder(scale=("ls1", "ls2"))
    del shapes["pos_embed"]
    shapes |= {"storage_tokens": (1, 4, 32), "mask_token": (1, 32), "rope_embed.periods": (8,)}
    shapes |= {f"blocks.{i}.attn.qkv.bias_mask": (96,) for i in range(2)}
    state = drawn(shapes)
    made = recipe("vit_small_patch16_dinov3", VIT)
    timms = {made.names[k]: v for k, v in weights_of(saved(state, tmp_path / "dinov3_vits16.pth"), made).items()}
    assert torch.equal(timms["reg_token"], state["storage_tokens"])
    assert torch.equal(timms["blocks.1.gamma_2"], state["blocks.1.ls2.gamma"])
    assert torch.equal(timms["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"])
    streams = capsys.readouterr()
    assert "tensors left out" in streams.err
    assert not streams.out  # where timm's filter prints what it tries


def test_openai_and_open_clip_towers(tmp_path, capsys):
    dim, tower = 32, {}
    for prefix, width in (("visual.transformer", dim), ("transformer", 16)):
        for i in range(2):
            names = {"attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,)}
            names |= {f"{k}.{p}": (width,) for k in ("ln_1", "ln_2") for p in ("weight", "bias")}
            for k, s in (
                ("attn.out_proj", (width, width)),
                ("mlp.c_fc", (4 * width, width)),
                ("mlp.c_proj", (width, 4 * width)),
            ):
                names |= {f"{k}.weight": s, f"{k}.bias": s[:1]}
            tower |= {f"{prefix}.resblocks.{i}.{k}": s for k, s in names.items()}
    tower |= {f"visual.{k}.{p}": (dim,) for k in ("ln_pre", "ln_post") for p in ("weight", "bias")}
    tower |= {"visual.class_embedding": (dim,), "visual.positional_embedding": (50, dim), "visual.proj": (dim, 8)}
    tower |= {
        "visual.conv1.weight": (dim, 3, 32, 32),
        "positional_embedding": (77, 16),
        "token_embedding.weight": (99, 16),
    }
    tower |= {"logit_scale": (), "text_projection": (16, 8), "ln_final.weight": (16,), "ln_final.bias": (16,)}
    state = drawn(tower)
    made = recipe("vit_base_patch32_clip_224", VIT)
    for file in (
        saved(state, tmp_path / "open_clip_model.safetensors"),
        saved({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 1}, tmp_path / "epoch_1.pt"),
    ):
        timms = {made.names[k]: v for k, v in weights_of(file, made).items()}
        assert torch.equal(
            timms["blocks.1.attn.qkv.weight"], state["visual.transformer.resblocks.1.attn.in_proj_weight"]
        )
        assert torch.equal(timms["cls_token"].flatten(), state["visual.class_embedding"])
        assert torch.equal(timms["norm_pre.bias"], state["visual.ln_pre.bias"])
        text = [k for k in state if not k.startswith("visual.")]
        said = capsys.readouterr().err
        assert f"{len(text) + 3} tensors left out" in said  # the norm behind the maps (2) and the projection
    # the tower of one that stands on timm
    trunk = timm.create_model("test_convnext", num_classes=0).state_dict()
    state = {f"visual.trunk.{k}": v for k, v in trunk.items()} | {"visual.head.proj.weight": torch.ones(8, 64)}
    file = saved(state | {"text.token_embedding.weight": torch.ones(9, 4)}, tmp_path / "open_clip_pytorch_model.bin")
    backbone = load_backbone("test_convnext", str(file), (64, 64))
    assert torch.equal(backbone.stages_3.blocks[1].mlp.fc2.weight, trunk["stages.3.blocks.1.mlp.fc2.weight"])
    assert "4 tensors left out, such as visual.trunk.head.norm.weight" in capsys.readouterr().err


def test_microsofts_swin_has_its_downsampling_a_stage_earlier(tmp_path, capsys):
    timms = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3).state_dict()
    own = {re.sub(r"^layers\.(\d)\.down", lambda m: f"layers.{int(m[1]) - 1}.down", k): v for k, v in timms.items()}
    own = {k.replace("head.fc.", "head."): v for k, v in own.items()}
    own |= {f"layers.{i}.blocks.0.attn.relative_position_index": torch.zeros(49, 49).long() for i in range(4)}
    file = saved({"model": own | {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}}, tmp_path / "swin_tiny.pth")
    backbone = load_backbone("swin_tiny_patch4_window7_224", str(file), (224, 224))
    assert torch.equal(backbone.layers_1.downsample.reduction.weight, timms["layers.1.downsample.reduction.weight"])
    assert "resampled" not in capsys.readouterr().err


def test_aimv2(tmp_path):
    made = recipe("aimv2_large_patch14_224", VIT)
    state = {}
    for k, shape in made.needed.items():  # as apple/ml-aim names them: three layers in the MLP, norm_1, a trunk
        k = re.sub(r"^patch_embed\.", "preprocessor.patchifier.", k)
        k = re.sub(r"^pos_embed$", "preprocessor.pos_embed", re.sub(r"^norm\.", "trunk.post_trunk_norm.", k))
        k = re.sub(r"^(blocks\.)", r"trunk.\1", re.sub(r"norm([12])\.", r"norm_\1.", k))
        state[k.replace("fc1_g", "fc1").replace("fc1_x", "fc3")] = torch.randn(shape)
    state.setdefault("trunk.post_trunk_norm.weight", torch.ones(32))
    found = weights_of(saved(state, tmp_path / "aimv2.safetensors"), made)
    timms = {made.names[k]: v for k, v in found.items()}
    assert torch.equal(timms["blocks.0.mlp.fc1_x.weight"], state["trunk.blocks.0.mlp.fc3.weight"])
    assert torch.equal(timms["pos_embed"], state["preprocessor.pos_embed"])


RESNET = timm.create_model("resnet18", num_classes=5).state_dict()


def ahead(state, by=1.0):
    return {k: v + by if v.is_floating_point() else v.clone() for k, v in state.items()}


def under(prefix, state):
    return {f"{prefix}{k}": v for k, v in state.items()}


@pytest.mark.parametrize(
    ("content", "ending", "said"),
    [
        (RESNET, "pth", ""),
        ({"state_dict": under("module._orig_mod.", RESNET)}, "pth.tar", r"'module\._orig_mod\.\*' is taken"),
        (
            {"state_dict": under("model.", RESNET), "pytorch-lightning_version": "2", "loops": {}},
            "ckpt",
            r"'model\.\*' is",
        ),
        (
            {"state_dict": under("backbone.", RESNET) | {"decode_head.conv.weight": torch.ones(1)}},
            "pth",
            r"'state_dict' 'backbone\.\*' is taken; 1 tensor left out, such as decode_head\.conv\.weight",
        ),
        (
            {"net": under("encoder.", RESNET), "projector": {"0.weight": torch.ones(2, 2)}},
            "bin",
            r"'net' 'encoder\.\*' is",
        ),
        (
            {"model": ahead(RESNET), "model_ema": under("module.", RESNET) | {"n_averaged": torch.ones(1)}},
            "pth",
            r"'model_ema' 'module\.\*' is taken, not 'model'",
        ),
        (
            {"state_dict": ahead(RESNET), "state_dict_ema": RESNET},
            "pth",
            r"'state_dict_ema' is taken, not 'state_dict'",
        ),
        (
            {"student": under("module.backbone.", ahead(RESNET)), "teacher": under("backbone.", RESNET)},
            "pth",
            r"'teacher' 'backbone\.\*' is taken, not 'student' 'module\.backbone\.\*'",
        ),
        (
            {**under("backbone.", ahead(RESNET)), **under("teacher.backbone.", RESNET)},
            "pt",
            r"'teacher\.backbone\.\*' is taken, not 'backbone\.\*'",
        ),
        (
            under("encoder_q.", RESNET) | under("encoder_k.", ahead(RESNET)),
            "pth",
            r"'encoder_q\.\*' is taken, not 'encoder_k\.\*'",
        ),
        (
            under("ema.model.", RESNET) | under("model.", ahead(RESNET)),
            "safetensors",
            r"'ema\.model\.\*' is taken, not 'model",
        ),
    ],
)
def test_what_fits_is_taken_and_said(content, ending, said, tmp_path, capsys):
    file = saved(content, tmp_path / f"w.{ending}")
    backbone = load_backbone("resnet18", str(file))
    for k, v in backbone.state_dict().items():
        assert torch.equal(v, RESNET[k]), k
    lines = capsys.readouterr().err
    assert (re.search(said, lines) and lines.count("\n") == 1) if said else not lines, lines


@pytest.mark.parametrize(
    ("name", "state", "said"),
    [
        (
            "resnet18",
            {k: v for k, v in RESNET.items() if "layer4" not in k},
            r"lacks \['layer4\.0\.bn1\.bias', .* more$",
        ),
        ("resnet34", RESNET, r"does not fit resnet34: lacks .*It fits resnet18: did you mean --backbone resnet18\?"),
        ("resnet10t", RESNET, "does not fit resnet10t: "),
        (
            "resnet18",
            under("backbone.", ahead(RESNET)) | {"backbone.layer1.9.conv1.weight": torch.ones(1)},
            r"\('backbone\.\*'\) does not fit resnet18: has unknown \['layer1\.9\.conv1\.weight'\]",
        ),
        (
            "resnet18",
            RESNET | {"conv1.weight": torch.ones(64, 1, 7, 7)},
            r"conv1\.weight is \(64, 1, 7, 7\), not \(64, 3, 7, 7\)",
        ),
        ("convnext_femto", timm.create_model("convnext_atto").state_dict(), "did you mean --backbone convnext_atto"),
        ("convnext_femto", Meta(False).state_dict(), "did you mean --backbone convnext_atto"),
        ("resnet18", timm.create_model("test_convnext").state_dict(), "none of its names is one of that model's"),
        ("resnet18", {"a": torch.ones(1)}, "none of its names is one of that model's"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(name, state, said, tmp_path):
    with pytest.raises(ValueError, match=said) as e:
        load_backbone(name, str(saved(state, tmp_path / "w.pth")))
    assert str(e.value).startswith(str(tmp_path / "w.pth"))
    assert "\n" not in str(e.value)


def test_files_that_are_not_read(tmp_path):
    for name in ("siglip.npz", "w.onnx", "w.msgpack"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ValueError, match=r"JAX \(big_vision|weights are \.safetensors"):
            load_backbone("resnet18", str(tmp_path / name))
    knot = {"conv1.weight": torch.ones(1)}
    knot["self"] = knot["again"] = knot  # itself, at every level
    with pytest.raises(ValueError, match="does not fit"):
        load_backbone("resnet18", str(saved(knot, tmp_path / "knot.pth")))
    deep = {".".join(["a"] * 400) + str(i): torch.ones(1) for i in range(50)}
    with pytest.raises(ValueError, match="none of its names"):
        load_backbone("resnet18", str(saved(deep, tmp_path / "deep.pth")))


def test_tables_of_positions_are_resampled_and_that_is_said(tmp_path, capsys):
    state = drawn(encoder())
    made = recipe("vit_base_patch16_224", VIT | {"img_size": (64, 96)})
    file = saved(state, tmp_path / "w.pth")
    timms = {made.names[k]: v for k, v in weights_of(file, made).items()}
    grid = state["pos_embed"][:, 1:].reshape(1, 14, 14, 32).permute(0, 3, 1, 2)
    wanted = F.interpolate(grid, (4, 6), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(timms["pos_embed"][:, 1:], wanted.flatten(2).transpose(1, 2))
    assert capsys.readouterr().err == f"{file}: pos_embed resampled from (1, 197, 32) to (1, 25, 32)\n"
