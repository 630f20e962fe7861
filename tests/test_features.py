"""Encoders as teachers of features: what they answer is what the library's own model says of the same pixels."""

import json

import pytest
import torch
import torch.nn.functional as F

from polyteach import label
from polyteach.store import Store
from polyteach.store.codec import encode
from polyteach.tasks import load_task
from polyteach.teachers import check_teacher, load_teacher
from tests.worlds import noise, rows_of, store_of

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def saved(model, folder, size, **more):
    import transformers

    for parameter in model.parameters():  # some begin so small that every answer is 0
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(folder)
    transformers.ViTImageProcessor(
        size={"height": size, "width": size},
        image_mean=MEAN.flatten().tolist(),
        image_std=STD.flatten().tolist(),
        **more,
    ).save_pretrained(folder)
    return model


def dinov2(folder):
    import transformers

    config = transformers.Dinov2WithRegistersConfig(image_size=56, patch_size=14, num_register_tokens=3, **SMALL)
    return saved(transformers.Dinov2WithRegistersModel(config), folder, 56)


def clip(folder):
    import transformers

    parts = {"vision_config": {"image_size": 64, "patch_size": 16, **SMALL}, "text_config": SMALL}
    return saved(transformers.CLIPModel(transformers.CLIPConfig(**parts)), folder, 64).vision_model


def siglip(folder):
    import transformers

    config = transformers.SiglipVisionConfig(image_size=64, patch_size=16, **SMALL)
    return saved(transformers.SiglipVisionModel(config), folder, 64)


def sam(folder):
    import transformers

    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64, "image_size": 128,
              "patch_size": 16, "output_channels": 16, "window_size": 4, "global_attn_indexes": [1]}  # fmt: skip
    decoder = {"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
               "iou_head_hidden_dim": 16}  # fmt: skip
    prompts = {"hidden_size": 16, "image_size": 128}
    config = transformers.SamConfig(vision_config=vision, mask_decoder_config=decoder, prompt_encoder_config=prompts)
    return saved(transformers.SamModel(config), folder, 128).vision_encoder


@pytest.mark.parametrize(
    ("make", "side", "patch", "prefix"),
    [(dinov2, 56, 14, 4), (clip, 64, 16, 1), (siglip, 64, 16, 0), (sam, 128, 16, 0)],
)
def test_an_image_of_the_models_size_has_the_models_tokens(tmp_path, make, side, patch, prefix):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = make(tmp_path)
    teacher = load_teacher(f"features:transformers:{tmp_path}")
    (image,) = noise(1, (side, side))
    (answer,) = teacher([image])
    with torch.inference_mode():
        found = model(pixel_values=((image / 255 - MEAN) / STD)[None])
    tokens = found.last_hidden_state[0]
    assert tokens.std() > 0.01
    cells = side // patch
    for i in range(cells):
        for j in range(cells):
            expected = tokens[:, i, j] if make is sam else tokens[prefix + i * cells + j]
            torch.testing.assert_close(answer["dense"].feature[:, i, j], expected, atol=1e-4, rtol=1e-4)
    vector = tokens.mean((1, 2)) if make is sam else found.pooler_output[0]
    torch.testing.assert_close(answer["global"].feature[:, 0, 0], vector, atol=1e-4, rtol=1e-4)
    assert ("frame" in teacher.origin) == (make is sam)
    name = f"{tmp_path.name} {teacher.sha256[:8]}"
    assert teacher.objectives["dense"].space.kind == f"dense, {len(tokens) if make is sam else 32} channels, of {name}"


def test_models_of_one_shape_see_the_whole_image_in_a_frame(tmp_path):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = sam(tmp_path)
    teacher = load_teacher(f"features:transformers:{tmp_path}?only=dense")
    (image,) = noise(1, (96, 128))
    (answer,) = teacher([image])
    assert list(answer) == ["dense"]
    framed = F.pad((image / 255 - MEAN) / STD, (0, 0, 0, 32))
    with torch.inference_mode():
        whole = model(pixel_values=framed[None]).last_hidden_state[0]
    assert whole.flatten(1).std(1).min() > 0.01
    torch.testing.assert_close(answer["dense"].feature, whole[:, :6], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arch", ["test_vit", "test_resnet"])
def test_timms_models_see_images_with_their_aspect(tmp_path, arch):
    import timm

    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=5).eval()
    torch.save(model.state_dict(), tmp_path / "net.pth")
    teacher = load_teacher(f"features:timm:{arch}@{tmp_path / 'net.pth'}")
    side, stride = teacher.encoder.size[0], teacher.stride
    assert teacher.any_shape
    (image,) = noise(1, (side, side))
    (answer,) = teacher([image])
    mean, std = (torch.tensor(v)[:, None, None] for v in (teacher.encoder.mean, teacher.encoder.std))
    with torch.inference_mode():
        last = model.forward_features(((image / 255 - mean) / std)[None])
        vector = model.forward_head(last, pre_logits=True)[0]
    dense = last[0, 1:].T.reshape(-1, side // stride, side // stride) if arch == "test_vit" else last[0]
    torch.testing.assert_close(answer["dense"].feature, dense, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(answer["global"].feature[:, 0, 0], vector, atol=1e-4, rtol=1e-4)
    for size in ((100, 200), (333, 111), (40, 41)):
        tall, wide = teacher.seen(size)
        assert tall % stride == wide % stride == 0
        assert abs(tall * wide / side**2 - 1) < 0.35  # as many pixels as in its training
        assert abs(tall - wide * size[0] / size[1]) <= stride
        (other,) = teacher(noise(1, size))
        load_task("embedding").check(other["dense"], size, teacher.objectives["dense"].space)


def test_a_grid_is_an_average_and_its_budget_is_what_is_stored(tmp_path, capsys):
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "net.pth")
    spec = f"features:timm:test_vit@{tmp_path / 'net.pth'}"
    fine, coarse = load_teacher(spec), load_teacher(f"{spec}?grid=5&only=dense")
    (image,) = noise(1, fine.encoder.size)
    (all_of_it,), (some) = fine([image]), coarse([image])
    m = all_of_it["dense"].feature.shape[1]
    assert m % 5 == 0
    k = m // 5
    first = all_of_it["dense"].feature[:, :k, k : 2 * k].mean((1, 2))
    torch.testing.assert_close(some[0]["dense"].feature[:, 0, 1], first, atol=1e-5, rtol=1e-5)
    assert fine.objectives["dense"] == coarse.objectives["dense"]  # one head may learn from both
    for teacher, answer in ((fine, all_of_it), (coarse, some[0])):
        how = load_task("embedding").target.__dataclass_fields__["feature"].metadata["column"]
        assert teacher.bulk == sum(len(encode(t.feature, how)["data"]) for t in answer.values())

    store = store_of(tmp_path / "store", rows_of(noise(3, (40, 60))))
    label(store.path, teachers={"x": spec}, device="cpu", progress=False)
    said = capsys.readouterr().err
    assert f"x: its answers take about {fine.bulk / 1e3:,.0f} kB an image" in said
    assert sorted((s.task, s.name) for s in store.sets()) == [("embedding", "x-dense"), ("embedding", "x-global")]
    about = json.loads((store.path / "labels" / "embedding" / "x-dense" / "set.json").read_text())
    assert about["space"]["kind"] == fine.objectives["dense"].space.kind
    assert Store.open(store.path).sets()[0].space.kind.startswith("dense")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:test_vit?grid=0", "grid must be a number of cells from 1 to 128; got 0"),
        ("timm:test_vit?grid=many", "grid must be"),
        ("timm:test_vit?only=both", "only must be dense or global; got both"),
        ("timm:test_vit?gird=3", "Did you mean grid"),
        ("timm:test_vit?grid=3&grid=4", "grid is said twice"),
        ("test_vit", "say whose model it is"),
        ("tim:test_vit", "Did you mean timm"),
        ("timm:test_vitt", "unknown timm model"),
        ("timm:test_vit@missing.pth", "no weights file missing.pth"),
        ("transformers:./missing", "no folder missing"),
    ],
)
def test_what_is_no_encoder_is_told_before_torch(name, said):
    with pytest.raises(ValueError, match=said):
        check_teacher(f"features:{name}")


def test_no_bar_is_shown_of_what_is_read_from_a_folder(tmp_path, capfd):
    pytest.importorskip("transformers")
    from transformers.utils import logging

    dinov2(tmp_path)
    capfd.readouterr()
    load_teacher(f"features:transformers:{tmp_path}")
    assert "Loading" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()


def test_weights_that_are_missing_are_refused(tmp_path):
    pytest.importorskip("transformers")
    from safetensors.torch import load_file, save_file

    dinov2(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(k for k in weights if "layer" in k and k.endswith("weight"))
    save_file({k: v for k, v in weights.items() if k != gone}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="the features would be random"):
        load_teacher(f"features:transformers:{tmp_path}")
