"""Weights of a hub and of folders as timm writes them: of which model, what pixels are normalised by, errors."""

import json
import re
import subprocess
import sys
import time

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import errors
from timm.models._hub import save_for_hf

from polyteach.ground.hub import impatient, unavailable
from polyteach.model.provenance import check_init, init_sha256
from polyteach.model.student import Student, load_student, save_student

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def folder(place, mean=MEAN, std=STD, safe=True, name="test_convnext", **args):
    """As timm itself writes it."""
    model = timm.create_model(name, num_classes=3, **args)
    model.pretrained_cfg = dict(model.pretrained_cfg) | {"mean": mean, "std": std}
    save_for_hf(model, place, safe_serialization=safe)
    return model


def changed(place, change):
    about = json.loads((place / "config.json").read_text())
    change(about)
    (place / "config.json").write_text(json.dumps(about))


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_of_timms_gives_weights_and_what_pixels_are_normalised_by(safe, tmp_path):
    model = folder(tmp_path / "w", safe=safe)
    init = f"local-dir:{tmp_path / 'w'}"
    check_init(init, "test_convnext")
    student = Student("test_convnext", {}, 8, init)
    assert torch.equal(student.backbone.stages_2.blocks[0].conv_dw.weight, model.stages[2].blocks[0].conv_dw.weight)
    assert torch.allclose(student.mean.flatten(), torch.tensor(MEAN) * 255)
    image = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        pixels = (image / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        wanted = model.eval().forward_intermediates(pixels, intermediates_only=True)[-1]
        torch.testing.assert_close(student.eval().levels(image)[-1], wanted, rtol=1e-3, atol=1e-4)
    save_student(student, tmp_path / "run", {"trained": ["backbone"]})
    about = json.loads((tmp_path / "run" / "student.json").read_text())
    assert (about["mean"], about["std"]) == (list(MEAN), list(STD))
    for again in (load_student(tmp_path / "run"), Student("test_convnext", {}, 8, str(tmp_path / "run"))):
        assert torch.equal(again.mean, student.mean)
        assert torch.equal(again.std, student.std)
    heads_alone = Student("test_convnext", {}, 8, str(tmp_path / "run"), parts=("heads",))
    assert not torch.equal(heads_alone.mean, student.mean)
    before = init_sha256(init)
    config = tmp_path / "w" / "config.json"
    config.write_text(config.read_text() + "\n")  # what pixels are normalised by is in it
    assert init_sha256(init) != before


def test_an_older_run_says_nothing_of_it_and_is_read_as_before(tmp_path):
    student = Student("resnet18", {}, 8)
    save_student(student, tmp_path, {})
    file = tmp_path / "student.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in about.items() if k not in ("mean", "std")}))
    assert torch.equal(load_student(tmp_path).mean, student.mean)
    for wrong in ({"mean": [0.5, 0.5]}, {"mean": [124, 116, 104]}, {"std": [0.2, 0.2, 0]}, {"std": "0.2"}):
        file.write_text(json.dumps(about | wrong))
        with pytest.raises(ValueError, match=rf"student\.json: {next(iter(wrong))} must be"):
            load_student(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.update(architecture="resnet18"), r"is of resnet18, not test_convnext: give --backbone resnet18"),
        (lambda a: a.pop("architecture"), r"architecture is missing: it is no config\.json of timm's; give a file"),
        (lambda a: (a.pop("architecture"), a.update(architectures=["ViTModel"])), r"\(it is of transformers\)"),
        (lambda a: a.update(model_args={"act_layer": "relu"}), r"model_args\.act_layer 'relu' makes another model"),
        (lambda a: a.update(model_args={"in_chans": 1}), r"model_args\.in_chans 1 makes another model"),
        (lambda a: a["pretrained_cfg"].update(mean=[0.5]), r"pretrained_cfg\.mean must be three numbers from 0 to 1"),
        (lambda a: a["pretrained_cfg"].update(std=[0.1, 0.2, True]), r"pretrained_cfg\.std must be three numbers"),
        (lambda a: a.update(pretrained_cfg=[]), r"pretrained_cfg must be an object"),
    ],
)
def test_a_wrong_config_is_refused(change, said, tmp_path):
    folder(tmp_path)
    changed(tmp_path, change)
    for ask in (check_init, lambda init, backbone: Student(backbone, {}, 8, init)):
        with pytest.raises(ValueError, match=said):
            ask(f"local-dir:{tmp_path}", "test_convnext")


def test_an_old_config_and_a_tag_are_known(tmp_path):
    folder(tmp_path)
    changed(tmp_path, lambda a: a.update(a.pop("pretrained_cfg"), architecture="test_convnext.r160_in1k"))
    assert Student("test_convnext.r160_in1k", {}, 8, f"local-dir:{tmp_path}").normalisation["std"] == list(STD)


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ("pretraind", "Did you mean pretrained"),
        ("hf_hub:timm/resnet18", "Did you mean hf-hub:timm/resnet18"),
        ("hfhub:timm/resnet18", "Did you mean hf-hub:timm/resnet18"),
        ("localdir:w", "Did you mean local-dir:w"),
        ("hf-hub:resnet18", "must be hf-hub:ORG/NAME"),
        ("hf-hub:a/../b", "must be hf-hub:ORG/NAME"),
        ("hf-hub:", "must be hf-hub:ORG/NAME"),
        ("local-dir:nowhere", "there is no such folder"),
        ("local-dir:empty", "it has no config.json"),
        ("local-dir:bare", "it has no weights"),
        ("bare", "of a folder as timm writes it say local-dir:"),
        ("nowhere", "neither 'pretrained', a file, a run's folder, hf-hub:ORG/NAME nor local-dir:FOLDER"),
    ],
)
def test_wrong_places_are_refused_before_torch_is_imported(init, said, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text('{"architecture": "resnet18"}')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(said)):
        check_init(init, "resnet18")


def test_looking_at_them_imports_no_torch(tmp_path):
    folder(tmp_path)
    code = "import sys; from polyteach.model.provenance import check_init; check_init(sys.argv[1], 'test_convnext')"
    subprocess.run(
        [sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules", f"local-dir:{tmp_path}"], check=True
    )


def answer(kind, status):
    response = httpx_response(status)
    return kind("first line\nadvice", response=response)


def httpx_response(status):
    library = sys.modules[errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0]]
    return library.Response(status, request=library.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            lambda: answer(errors.GatedRepoError, 403),
            r"org/name is gated: accept its terms at https://huggingface\.co/org/name",
        ),
        (lambda: answer(errors.RepositoryNotFoundError, 404), "there is no org/name on the hub, or it is private"),
        (lambda: answer(errors.RevisionNotFoundError, 404), "org/name has no such revision"),
        (lambda: answer(errors.RemoteEntryNotFoundError, 404), "org/name has no such file: first line"),
        (lambda: errors.LocalEntryNotFoundError("x"), "is not in this machine's cache"),
        (lambda: errors.OfflineModeIsEnabled("x"), "is not in this machine's cache"),
        (lambda: ConnectionError("refused"), r"the hub cannot be reached \(refused\)"),
        (lambda: TimeoutError("slow"), r"the hub cannot be reached \(slow\)"),
        (lambda: ValueError("odd\nmore"), "org/name: odd. To train|odd"),
    ],
)
def test_what_a_hub_says_becomes_one_line(raised, said, monkeypatch):
    def refuse(*_, **__):
        raise raised()

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", refuse)
    for init in ("hf-hub:org/name", "pretrained"):
        with pytest.raises(ValueError, match=f"^init '?{init}") as e:
            Student("resnet18", {}, 8, init)
        wanted = said if init != "pretrained" else said.replace("org/name", "timm/resnet18.a1_in1k")
        assert re.search(wanted, str(e.value)), str(e.value)
        assert "--init FILE" in str(e.value)
        assert "\n" not in str(e.value)


def test_a_repository_is_read_by_its_config_and_the_first_of_its_files(tmp_path, monkeypatch):
    folder(tmp_path / "w", safe=False)
    asked = []

    def have(repository, name, revision=None):
        asked.append((repository, name, revision))
        if not (tmp_path / "w" / name).is_file():
            raise errors.LocalEntryNotFoundError("not there")
        return str(tmp_path / "w" / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", have)
    check_init("hf-hub:org/name@v1.0", "test_convnext")
    assert not asked  # nothing is asked before the training begins
    student = Student("test_convnext", {}, 8, "hf-hub:org/name@v1.0")
    assert student.normalisation["mean"] == list(MEAN)
    names = ["config.json", "model.safetensors", "pytorch_model.bin"]
    assert asked == [("org/name", name, "v1.0") for name in names]
    asked.clear()
    with pytest.raises(ValueError, match="is of test_convnext, not resnet18: give --backbone test_convnext"):
        Student("resnet18", {}, 8, "hf-hub:org/name")
    assert [name for _, name, _ in asked] == ["config.json"]  # and no weights of another model


def test_a_folder_whose_weights_hold_code_is_not_run(tmp_path):
    folder(tmp_path, safe=False)
    torch.save(timm.create_model("test_convnext"), tmp_path / "pytorch_model.bin")  # a pickled module
    with pytest.raises(ValueError, match=r"pytorch_model\.bin holds more than tensors"):
        Student("test_convnext", {}, 8, f"local-dir:{tmp_path}")


def test_a_hub_out_of_reach_is_given_up_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    hooks = list(huggingface_hub.get_session().event_hooks["request"])
    began = time.monotonic()
    with impatient(), pytest.raises(errors.LocalEntryNotFoundError) as e:
        huggingface_hub.hf_hub_download("a/b", "c", endpoint="http://127.0.0.1:9", cache_dir=tmp_path)
    assert time.monotonic() - began < 5  # by itself it waits for more than 20
    assert "cannot be asked" in unavailable(e.value, "a/b")
    assert huggingface_hub.get_session().event_hooks["request"] == hooks


def test_shared_weights_are_saved(tmp_path):
    student = Student("coat_tiny", {}, 8, size=(64, 64))
    save_student(student, tmp_path, {"size": [64, 64]})
    again = load_student(tmp_path)
    for (name, a), b in zip(student.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
