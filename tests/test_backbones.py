"""Backbones: names are known without torch; one that is no model of timm's states what a network has to know of it."""

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from polyteach.model import backbones
from polyteach.model.student import Student, load_student, save_student
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Space
from tests.worlds import seen_tasks


def test_names_are_those_that_timm_lists_and_takes():
    own = [n for n in timm.list_models() if timm.model_entrypoint(n).__module__.startswith("timm.")]
    assert backbones.timm_list() == own  # tests register others
    former = set(timm.models._registry._deprecated_models)
    assert backbones.timm_former_names() == former
    for name in ("resnet50", "resnet50.a1_in1k", min(former)):
        backbones.check_name(name)
        assert timm.is_model(name)
    with pytest.raises(
        ValueError, match=r"unknown backbone 'resnet_50'; did you mean resnet50, .* polyteach takes timm"
    ):
        backbones.check_name("resnet_50")


def test_a_wrong_name_is_known_without_torch():
    code = (
        "import sys\nfrom polyteach.model.backbones import check_name\n"
        "try:\n    check_name('resnet81')\nexcept ValueError as e:\n    print(e)\n"
        "print('torch' in sys.modules, 'timm' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "unknown backbone 'resnet81'; did you mean resnet" in found
    assert found.endswith("False False\n")


class Patches(nn.Module):
    """As a plain ViT: one map at a stride of 16, from which a finer and coarser ones are made."""

    channels = (8, 8, 8, 8)
    strides = (4, 8, 16, 32)
    multiple = 16

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 16, stride=16)

    def forward(self, images):
        tokens = self.embed(images)
        finer = [nn.functional.interpolate(tokens, scale_factor=k) for k in (4.0, 2.0)]
        return [*finer, tokens, nn.functional.max_pool2d(tokens, 2, ceil_mode=True)]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A family that is one file, beside those of the package."""
    file = tmp_path / "families" / "toy_models.py"
    file.parent.mkdir()
    file.write_text("from tests.test_backbones import Patches\n\ndef load(name, init, size):\n    return Patches()\n")
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(file.parent)])
    yield "toy:patches"
    sys.modules.pop("polyteach.model.backbones.toy_models", None)


def test_a_backbone_says_which_sides_it_takes(toy, tmp_path):
    space = {n: Space(("a", "b", "c"), load_task(n).kinds[0]) for n in seen_tasks()}
    objectives = {f"{n}_x": Objective(n, s) for n, s in space.items()}
    student = Student(toy, objectives, channels=8)
    images = torch.randint(256, (2, 3, 48, 80), dtype=torch.uint8)  # neither is a multiple of 32
    assert [tuple(x.shape[-2:]) for x in student.levels(images)] == [(12, 20), (6, 10), (3, 5), (2, 3)]
    answers = student.answer(list(images), (48, 80))
    assert set(answers[0]) == set(objectives)
    with pytest.raises(ValueError, match=r"images must have sides that 16 divides; got \(40, 80\)"):
        student.levels(images[..., :40, :])
    save_student(student, tmp_path, {"size": [48, 80]})
    again = load_student(tmp_path)
    assert torch.equal(again.levels(images)[0], student.levels(images)[0])


def test_a_family_that_is_not_there_is_an_unknown_backbone():
    with pytest.raises(ValueError, match="unknown backbone 'nowhere:resnet50'"):
        backbones.check_name("nowhere:resnet50")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("dla34", (64, 96)),  # whose stages timm numbers from another start than their places
        ("tresnet_m", (64, 64)),
        ("vgg11", (64, 64)),
        ("nasnetalarge", (64, 64)),
        ("swin_tiny_patch4_window7_224", (64, 96)),
        ("swinv2_tiny_window8_256", (64, 64)),
        ("maxvit_nano_rw_256", (64, 64)),
        ("coatnet_nano_rw_224", (64, 64)),
        ("hiera_tiny_224", (64, 64)),
        ("gcvit_xxtiny", (64, 64)),
        ("coat_tiny", (64, 64)),
    ],
)
def test_maps_are_of_the_strides_that_are_said_whatever_timm_says_of_them(name, size):
    backbone = backbones.load_backbone(name, None, size).eval()
    seen = []
    with torch.inference_mode():
        for moved in (0, 1):  # what is in the last corner changes the last cell of each map
            image = torch.ones(1, 3, *size)
            image[..., -16:, -16:] -= 2.0 * moved
            seen.append(backbone(image))
    for stride, channels, plain, other in zip((4, 8, 16, 32), backbone.channels, *seen, strict=True):
        assert tuple(plain.shape) == (1, channels, size[0] // stride, size[1] // stride)
        change = (other - plain).abs().sum(1)[0]
        assert change[-1, -1] > 0
    assert backbone.strides == (4, 8, 16, 32)


def test_channels_that_come_last_are_told_from_a_map_that_is_as_large():
    """Of 384 pixels the first map of a Swin is 96 x 96, and it has 96 channels."""
    backbone = backbones.load_backbone("swin_tiny_patch4_window7_224", None, (384, 384)).eval()
    with torch.inference_mode():
        first = backbone(torch.randn(1, 3, 384, 384))[0]
    assert first.shape == (1, 96, 96, 96)
    with torch.inference_mode():
        flat = backbone(torch.zeros(1, 3, 384, 384))[0]
    # of an image without anything on it cells are alike but for the edges, and channels are not
    assert flat.std(1).mean() > 10 * flat.std((2, 3)).mean()


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("inception_v3", (224, 224), r"of images of 224x224: its map of stride 4 is 52x52 .*, where 56x56 is wanted"),
        ("efficientformer_l1", (128, 128), r"of images of 128x128: RuntimeError: .*it was made for 224x224"),
        ("levit_128", (224, 224), r"has features at strides \[16, 32, 64\]; a pyramid needs"),
    ],
)
def test_what_has_no_such_maps_is_refused_when_it_is_built(name, size, said):
    with pytest.raises(ValueError, match=said):
        backbones.load_backbone(name, None, size)


def test_a_student_that_was_made_for_a_size_is_read_for_it(tmp_path):
    space = Space((), "metric")
    student = Student("swinv2_tiny_window8_256", {"far": Objective("depth", space)}, 8, size=(64, 64)).eval()
    save_student(student, tmp_path, {"size": [64, 64]})
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(load_student(tmp_path)(images)["far"].output, student(images)["far"].output)
