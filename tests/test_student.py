"""The student: shapes of the pyramid, partial labels, saving and loading, starting from a checkpoint."""

import json
import math
import resource

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import polyteach
from polyteach.ground.scene import random_scene, render
from polyteach.model.student import Student, costs, describe_student, load_student, save_student
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Space
from tests.worlds import seen_tasks

SPACE = Space(("a", "b", "c"))


def objectives():
    return {f"{n}_x": Objective(n, Space(SPACE.names, load_task(n).kinds[0])) for n in seen_tasks()}


def test_pyramid_has_the_levels_of_the_method():
    student = Student("resnet18", objectives(), channels=16)
    levels = student.features(torch.zeros(2, 3, 128, 192, dtype=torch.uint8))
    assert {k: tuple(v.shape) for k, v in levels.items()} == {
        "c5": (2, 512, 4, 6),
        "p2": (2, 16, 32, 48),
        "p3": (2, 16, 16, 24),
        "p4": (2, 16, 8, 12),
        "p5": (2, 16, 4, 6),
        "p6": (2, 16, 2, 3),
        "p7": (2, 16, 1, 2),
        "image": (2, 0, 128, 192),  # which tells the size
    }


def test_channels_last_backbones_are_permuted():
    student = Student("swin_tiny_patch4_window7_224", {}, channels=8)
    assert student.features(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))["c5"].shape == (1, 768, 7, 7)


def test_absent_labels_reach_no_head_and_present_ones_only_their_own():
    names = objectives()
    student = Student("resnet18", names, channels=16)
    scenes = [render(random_scene(i, (64, 64))) for i in range(3)]
    for name, objective in names.items():
        student.zero_grad()
        truth = load_task(objective.task).truth(scenes[1], objective.space)
        targets = {k: [None, truth if k == name else None, None] for k in names}
        losses = student.losses(torch.stack([s.image for s in scenes]), targets)
        assert list(losses) == [name]
        losses[name].backward()
        touched = {
            k.split(".")[1] for k, p in student.named_parameters() if k.startswith("heads") and p.grad is not None
        }
        assert touched == {name}


def test_heads_share_nothing():
    student = Student("resnet18", objectives(), channels=16)
    seen = [id(p) for head in student.heads.values() for p in head.parameters()]
    assert len(seen) == len(set(seen))


def test_save_and_load_give_the_same_answers(tmp_path):
    student = Student("resnet18", objectives(), channels=16).eval()
    save_student(student, tmp_path / "run", {"size": [64, 64]})
    images = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for h, w in [(50, 80), (64, 30)]]
    again = load_student(tmp_path / "run")
    for a, b in zip(student.answer(images, (64, 64)), again.answer(images, (64, 64)), strict=True):
        assert a.keys() == b.keys() == objectives().keys()
        for k in a:
            for f in type(a[k]).__dataclass_fields__:
                torch.testing.assert_close(getattr(a[k], f), getattr(b[k], f), equal_nan=True)


def test_answers_are_in_pixels_of_each_image(tmp_path):
    student = Student("resnet18", objectives(), channels=16)
    images = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for h, w in [(50, 80), (120, 30)]]
    for image, answer in zip(images, student.answer(images, (64, 96)), strict=True):
        for name, objective in objectives().items():
            load_task(objective.task).check(answer[name], tuple(image.shape[1:]), objective.space)


def test_answers_do_not_depend_on_the_mode():
    """Normalisation is by what was learned, whatever stands beside a picture; and nothing is learned by answering."""
    student = Student("test_resnet", objectives(), channels=16).eval()
    images = [torch.randint(0, 256, (3, 50, 80), dtype=torch.uint8) // (i + 1) for i in range(3)]
    alone = student.answer(images[:1], (64, 64))[0]
    student.train()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    among = student.answer(images, (64, 64))[0]
    assert student.training
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
    assert alone.keys() == among.keys()
    for k in alone:
        for f in type(alone[k]).__dataclass_fields__:
            a, b = getattr(alone[k], f), getattr(among[k], f)
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3, msg=f"{k} {f}")


def test_backbone_starts_from_a_local_checkpoint(tmp_path):
    model = timm.create_model("resnet18")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    for file in ("w.safetensors", "w.pth"):
        student = Student("resnet18", {}, 8, init=str(tmp_path / file))
        assert torch.equal(student.backbone.layer4[1].conv2.weight, model.layer4[1].conv2.weight)
    with pytest.raises(ValueError, match=r"does not fit resnet34"):
        Student("resnet34", {}, 8, init=str(tmp_path / "w.pth"))
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"broken\.pth"):
        Student("resnet18", {}, 8, init=str(tmp_path / "broken.pth"))
    weights = dict(model.state_dict())
    del weights["layer1.0.conv1.weight"]
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"lacks \['layer1.0.conv1.weight'\]"):
        Student("resnet18", {}, 8, init=str(tmp_path / "part.pth"))


def test_starts_from_a_run(tmp_path):
    first = Student("resnet18", objectives(), 16)
    save_student(first, tmp_path / "run", {})
    name = next(iter(objectives()))
    other = Student("resnet18", {name: objectives()[name]}, 16, init=str(tmp_path / "run"))
    for key, value in other.state_dict().items():
        assert torch.equal(value, first.state_dict()[key])
    with pytest.raises(ValueError, match=r"\(16, .*network's pyramid.*--channels 16, or leave the pyramid out"):
        Student("resnet18", {}, 8, init=str(tmp_path / "run"))
    narrow = Student("resnet18", {}, 8, init=str(tmp_path / "run"), parts=("backbone",))
    assert torch.equal(narrow.backbone.conv1.weight, first.backbone.conv1.weight)
    save_student(first, tmp_path / "selfsup", {"trained": ["backbone"]})  # its pyramid is as it was at the start
    Student("resnet18", {}, 8, init=str(tmp_path / "selfsup"))
    weights = load_file(tmp_path / "run" / "student.safetensors")
    del weights["backbone.conv1.weight"]
    save_file(weights, tmp_path / "run" / "student.safetensors")
    with pytest.raises(ValueError, match=r"comes without it, this network's backbone\.conv1\.weight"):
        Student("resnet18", {}, 16, init=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="has backbone resnet18, not resnet34"):
        Student("resnet34", {}, 16, init=str(tmp_path / "run"))


def test_errors_name_the_fix(tmp_path):
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet81'.*resnet"):
        Student("resnet81", {})
    with pytest.raises(ValueError, match="strides"):
        Student("levit_128", {})
    with pytest.raises(ValueError, match="polyteach train"):
        load_student(tmp_path)
    with pytest.raises(ValueError, match="neither 'pretrained', a file"):
        Student("resnet18", {}, init=str(tmp_path / "none.pth"))


def test_predict_writes_a_store_and_pictures(tmp_path, photographs, capsys):
    save_student(Student("resnet18", objectives(), 16), tmp_path / "run", {"size": [64, 64]})
    (photographs / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    answers = polyteach.predict(str(tmp_path / "run"), [str(photographs)], out=str(out), batch_size=4, progress=False)
    assert len(answers) == 7
    assert answers[-1] == {}
    assert "broken.jpg: not an image" in capsys.readouterr().err
    assert len(list(out.glob("*.png"))) == 6 * len(objectives())
    store = polyteach.store.Store.open(out / "store")
    assert len(store.images(0)) == 6
    assert [r[2] for r in store.rejects()] == ["not an image, or of an unknown format"]
    assert {s.name for s in store.sets()} == set(objectives())
    with pytest.raises(ValueError, match="exists"):
        polyteach.predict(str(tmp_path / "run"), [str(photographs)], out=str(out))
    with pytest.raises(ValueError, match="no such image"):
        polyteach.predict(str(tmp_path / "run"), [str(photographs / "x.jpg")])


def test_own_students_teach(tmp_path, photographs):
    from polyteach.ground.images import decode
    from polyteach.teachers import load_teacher

    save_student(
        Student("resnet18", objectives(), 16),
        tmp_path / "run",
        {"size": [64, 64], "learning_rate": 0.1, "batch_size": 8},
    )
    for precision in ("fp32", "bf16"):
        teacher = load_teacher(f"own:{tmp_path / 'run'}", "cpu", precision)
        assert (teacher.learning_rate, teacher.batch_size) == (0.1, 8)
        images = [decode(f.read_bytes()) for f in sorted(photographs.iterdir())]
        for image, answer in zip(images, teacher(images), strict=True):
            for name, objective in teacher.objectives.items():
                load_task(objective.task).check(answer[name], tuple(image.shape[1:]), objective.space)


def test_own_students_answer_at_the_size_of_their_training(tmp_path):
    from polyteach.teachers import load_teacher

    student = Student("test_resnet", objectives(), 16)
    save_student(student, tmp_path / "run", {"size": [64, 96]})
    image = render(random_scene(0, (64, 96))).image
    (answer,) = load_teacher(f"own:{tmp_path / 'run'}", "cpu", "fp32")([image])
    (expected,) = student.answer([image], (64, 96))
    for k in expected:
        for f in type(expected[k]).__dataclass_fields__:
            torch.testing.assert_close(getattr(answer[k], f), getattr(expected[k], f), msg=f"{k} {f}")


def test_gradients_in_bf16_of_maps_of_one_pixel_are_those_in_fp32():
    """oneDNN's are not, of a strided convolution over one pixel; seen on P6 and P7 of views of 32 and 64 pixels."""
    torch.manual_seed(0)
    student = Student("test_resnet", {}, channels=16).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    found = []
    for lower in (False, True):
        student.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            levels = student.features(images)
        sum(levels[k].float().square().mean() for k in ("p6", "p7")).backward()
        found.append([p.grad for p in student.pyramid.parameters() if p.grad is not None])
    for exact, low in zip(*found, strict=True):
        torch.testing.assert_close(low, exact, rtol=0.05, atol=0.02 * float(exact.abs().max()) + 1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's folder and its description."""
    run = tmp_path_factory.mktemp("trained") / "run"
    save_student(Student("test_resnet", {"detection_x": Objective("detection", Space(("a",), "boxes"))}, 8), run, {
        "size": [64, 64], "learning_rate": 0.1, "batch_size": 8, "optimizer": "sgd", "trained": ["backbone"],
    })  # fmt: skip
    return run, json.loads((run / "student.json").read_text())


def changed(trained, tmp_path, path, value):
    """The run with another value at a path of its description ("." between keys); None removes it."""
    run, about = trained[0], json.loads(json.dumps(trained[1]))
    *outer, last = path.split(".")
    inner = about
    for key in outer:
        inner = inner[key]
    inner.pop(last, None)
    if value is not None:
        inner[last] = value
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "student.safetensors").write_bytes((run / "student.safetensors").read_bytes())
    (tmp_path / "run" / "student.json").write_text(json.dumps(about))
    return tmp_path / "run"


ONE = {"task": "detection", "space": {"names": ["a"], "kind": "boxes"}}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("objectives", {"/../../../escaped/pwn": ONE}, "objective '/../../../escaped/pwn': use letters, digits"),
        ("objectives", {"..": ONE}, "objective '..': use letters, digits"),
        ("objectives", {"training": ONE}, "objective 'training': torch keeps that name"),
        ("objectives", {"a.b": ONE, "a-b": ONE}, "differ only in dots"),
        ("objectives", [ONE], "objectives must be an object; it is a list of 1"),
        ("objectives", None, "objectives is missing"),
        ("objectives.detection_x", 3, "objectives.detection_x must be an object; it is 3"),
        ("objectives.detection_x.task", "../store", "unknown task '../store'; there are classification, "),
        ("objectives.detection_x.task", ["detection"], "task must be text"),
        ("objectives.detection_x.space", "boxes", "objectives.detection_x.space must be an object"),
        (
            "objectives.detection_x.space.kind",
            "cubes",
            "student.json: detection of kind 'cubes'; the space's kind is one of boxes,",
        ),
        ("objectives.detection_x.space.names", ["a", 3], "space.names[1] must be text; it is 3"),
        ("objectives.detection_x.space.names", "abc", "space.names must be a list of texts"),
        ("objectives.detection_x.space.names", ["a"] * 60_000, "does not fit student.json"),
        ("objectives.detection_x.space.names", ["a"] * 1_000_000, "names must be at most 65,536 classes"),
        ("backbone", 3, "backbone must be text"),
        ("backbone", "resnet81", "student.json: unknown backbone 'resnet81'; did you mean"),
        ("backbone", "levit_128", "student.json: backbone 'levit_128'"),
        ("backbone", "resnet18", "student.safetensors does not fit student.json"),
        ("backbone", "hf-hub:timm/resnet18", "unknown backbone"),
        ("channels", "8", "channels must be a whole number; it is '8'"),
        ("channels", 0, "channels must be 1 to 8,192; it is 0"),
        ("channels", 10**9, "channels must be 1 to 8,192"),
        ("channels", 8192, "student.safetensors does not fit student.json"),
        ("channels", math.inf, "channels must be a whole number"),
        ("channels", None, "channels is missing"),
        ("adapters", -1, "adapters must be 0 to 8,192"),
        ("adapters", 8192, "it lacks heads.detection_x.adapter"),
        ("size", [64], "size must be height and width, multiples of 32 up to 8,192; it is a list of 1"),
        ("size", [64, 65], "size must be height and width"),
        ("size", ["64", "64"], "size must be height and width"),
        ("size", [10**9, 10**9], "size must be height and width"),
        ("size", [True, True], "size must be height and width"),
        ("size", None, "student.json has no size"),
        ("trained", ["all"], "trained must be a list of backbone, pyramid, heads; it is 'all'"),
        ("trained", 3, "trained must be a list of texts"),
        ("learning_rate", "high", "learning_rate must be a number or null"),
        ("batch_size", [8], "batch_size must be a whole number or null"),
        ("licence", {"a": 1}, "licence must be text or null"),
    ],
)
def test_a_description_that_is_wrong_is_a_sentence_and_costs_nothing(trained, tmp_path, path, value, said):
    from polyteach.teachers import load_teacher

    run = changed(trained, tmp_path, path, value)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"student\.(json|safetensors)") as e:
        load_teacher(f"own:{run}")
    assert said in str(e.value)
    assert len(str(e.value)) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB; 8,192 channels would take 5 GB


def test_weights_that_are_cut_short_or_missing_are_a_sentence(trained, tmp_path):
    run = changed(trained, tmp_path, "licence", "CC0")
    whole = (run / "student.safetensors").read_bytes()
    for data in (whole[:-9], whole[:100], b"", b"\xff" * 64):
        (run / "student.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match=r"student\.safetensors cannot be read as weights: .*train it again"):
            load_student(run)
        with pytest.raises(ValueError, match=r"student\.safetensors cannot be read as weights"):
            Student("test_resnet", {}, 8, init=str(run))
    (run / "student.safetensors").unlink()
    with pytest.raises(ValueError, match=r"student\.safetensors cannot be read as weights"):
        load_student(run)


def test_a_run_of_an_older_version_loads(trained, tmp_path):
    """What was added since is optional, and what a later version adds is no error."""
    run, about = tmp_path / "run", dict(trained[1])
    run.mkdir()
    (run / "student.safetensors").write_bytes((trained[0] / "student.safetensors").read_bytes())
    kept = {k: about[k] for k in ("backbone", "channels", "objectives")} | {"new": [{}], "learning_rate": None}
    (run / "student.json").write_text(json.dumps(kept))
    for a, b in zip(load_student(run).parameters(), load_student(trained[0]).parameters(), strict=True):
        assert torch.equal(a, b)
    assert describe_student(run) == kept


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ([], "the file must be an object"),
        ({"compute": 3}, "compute must be an object"),
        ({"compute": {"images": "many"}}, "compute.images must be a number or null; it is 'many'"),
        ({"compute": {"teachers": [3]}}, r"compute.teachers\[0\] must be an object"),
        ({"compute": {"teachers": [{"of": "x"}]}}, r"compute.teachers\[0\].name is missing"),
    ],
)
def test_costs_of_a_run_that_are_none(trained, tmp_path, about, said):
    run = changed(trained, tmp_path, "licence", None)
    (run / "train.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=rf"train\.json: {said}"):
        costs(run, "x")


def test_an_objective_that_no_file_can_be_called():
    with pytest.raises(ValueError, match=r"objective 'a/b': use letters"):
        Student("test_resnet", {"a/b": Objective("depth", Space((), "metric"))})


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 64, 64, dtype=torch.uint8), torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)]
)
def test_what_is_no_batch_of_images_is_refused(images):
    student = Student("test_resnet", {}, 8)
    with pytest.raises(ValueError, match=r"must be a batch \(B, 3, H, W\) of uint8"):
        student.levels.__wrapped__(student, images) if hasattr(student.levels, "__wrapped__") else student.levels(
            images
        )
