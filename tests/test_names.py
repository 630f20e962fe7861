"""Names that do not exist: the error says what there is, what was meant, and what to do."""

import pytest

from polyteach.ground.names import LISTED, LONGEST, closest, did_you_mean, fit_name, unknown_name


@pytest.mark.parametrize(
    ("given", "known", "first"),
    [
        ("resnet_50", ["resnet18", "resnet50", "resnet50c", "resnet_tiny"], "resnet50"),
        ("ResNet-50", ["resnet18", "resnet50"], "resnet50"),
        ("lable", ["label", "ledger"], "label"),
        ("trian", ["test", "train", "val"], "train"),
        ("efficientnet", ["tf_efficientnet_b0", "vit"], "tf_efficientnet_b0"),
        ("people", ["detection/people", "detection/boxes"], "detection/people"),
    ],
)
def test_what_was_meant_comes_first(given, known, first):
    assert closest(given, known)[0] == first
    assert f". Did you mean {first}" in did_you_mean(given, known)


def test_nothing_is_suggested_that_is_not_like_it():
    assert closest("qqq", ["train", "val"]) == []
    assert did_you_mean("qqq", ["train", "val"]) == ""


def test_the_error_lists_what_there_is_and_of_very_many_the_closest():
    said = str(unknown_name("verb", "lable", ["label", "train"], fix="See --help"))
    assert said == "unknown verb 'lable'; there are label, train. Did you mean label? See --help"
    assert str(unknown_name("verb", "qqq", ["label", "train"])) == "unknown verb 'qqq'; there are label, train"
    assert str(unknown_name("set", "x", [])) == "unknown set 'x'; there is none"
    many = [f"net{i}" for i in range(LISTED + 1)]
    assert "did you mean net7" in str(unknown_name("model", "net_7", many))
    assert "such as net0. Look" in str(unknown_name("model", "qqq", many, fix="Look"))


def test_the_backbone_that_was_meant_is_the_first():
    import timm

    from polyteach.model.student import Student

    for given, meant in (("resnet_50", "resnet50"), ("ResNet50", "resnet50"), ("convnext-tiny", "convnext_tiny")):
        assert meant in timm.list_models()
        with pytest.raises(ValueError, match=rf"unknown backbone '{given}'; did you mean {meant}[,?]"):
            Student(given, {})


@pytest.mark.parametrize("spec", ["yolo:x", "yolov8n.pt", "yolo:", ":x", "tim:resnet50", "timm", "timm:"])
def test_an_unknown_teacher_family_says_what_there_is_and_what_to_do(spec):
    from polyteach.teachers import load_teacher

    with pytest.raises(ValueError, match=r"onnx, own, .*A YOLO: .*onnx:FILE\. .*with FILE.json beside it") as e:
        load_teacher(spec)
    assert spec in str(e.value)
    assert ("Did you mean timm" in str(e.value)) == spec.startswith("tim")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("ultra:x", r"unknown dataset format 'ultra'; there are ade20k, .*COCO's JSON and give coco:ROOT"),
        ("image_net:x", r"unknown dataset format 'image_net'; .*Did you mean imagenet\?"),
        ("s3://bucket/photographs", r"does not exist, and there is no format 's3'; give a folder"),
        ("nowhere", r"does not exist; give a folder"),
    ],
)
def test_an_unknown_dataset_format_says_what_there_is_and_what_to_do(source, said):
    from polyteach.datasets import locate

    with pytest.raises(ValueError, match=said):
        locate(source)


def test_a_folder_whose_name_has_a_colon_is_a_folder(tmp_path, monkeypatch):
    from polyteach.datasets import locate

    monkeypatch.chdir(tmp_path)
    (tmp_path / "trip:rome").mkdir()
    assert locate("trip:rome") == ("pictures", str(tmp_path / "trip:rome"))


def test_splits_that_no_image_has():
    from polyteach.loading.plan import no_split

    assert str(no_split("trian", {"train", "val"})) == (
        "no image has split 'trian'; there are train, val. Did you mean train?"
    )
    assert "there are train, and images of none" in str(no_split("x", {"train", None}))
    assert "polyteach store split STORE --fractions" in str(no_split("train", {None}))


@pytest.mark.parametrize(
    ("device", "meant"),
    [("gpu", "cuda"), ("gpu:1", "cuda:1"), ("GPU0", "cuda:0"), ("CUDA", "cuda"), ("cdua:0", "cuda:0"), ("CPU", "cpu")],
)
def test_the_device_that_was_meant(device, meant):
    from polyteach.ground.devices import find_device

    with pytest.raises(ValueError, match=rf"device '{device}' is none: say auto, cpu.*Did you mean {meant}\?"):
        find_device(device)


def test_the_precision_and_the_optimizer_that_were_meant():
    from polyteach.teachers import load_teacher
    from polyteach.training.settings import Settings, check

    for wrong in (lambda: check(Settings(1, precision="bf_16")), lambda: load_teacher("timm:x", precision="bf_16")):
        with pytest.raises(ValueError, match=r"unknown precision 'bf_16'; .* fp32, fp16, bf16\. Did you mean bf16"):
            wrong()
    with pytest.raises(ValueError, match=r"unknown optimizer 'adam'; there are sgd, adamw\. Did you mean adamw\?"):
        check(Settings(1, optimizer="adam"))


@pytest.mark.parametrize("name", ["people", "v1.2_final-3", "9", "a" * LONGEST])
def test_names_that_may_become_a_files(name):
    assert fit_name("label set name", name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../x", "/x", "a/b", "a\\b", ".hidden", "-x", "_x", "a b", "a\n", "a\0b", "ä", "a:b", "~",
        "$HOME", "a*", "\x1b[2J", "\ud800", "/../../../escaped/pwn", 3, None, ["a"], "a" * (LONGEST + 1), "x/" * 10_000,
    ],
)  # fmt: skip
def test_names_that_may_not(name):
    with pytest.raises(ValueError, match=r"label set name .*(use letters, digits|characters; at most)") as e:
        fit_name("label set name", name)
    assert len(str(e.value)) < 400
    assert str(e.value).isprintable()
