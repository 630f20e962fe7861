"""Task adapters: they begin as nothing, learn, are kept, and belong to the heads."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from polyteach.ground.layers import Adapter
from polyteach.ground.scene import random_scene, render
from polyteach.model.student import Student, describe_student, load_student
from polyteach.tasks import all_tasks, load_task
from polyteach.tasks.contract import Objective, Space
from polyteach.verbs.train import train
from tests.worlds import answer_to, options, weights_of, world

TWO = {
    "kinds": Objective("classification", Space(("a", "b"))),
    "far": Objective("depth", Space((), "metric")),
}


def made(adapters, **more):
    torch.manual_seed(0)
    return Student("test_resnet", TWO, 16, adapters=adapters, **more).eval()


def test_by_hand():
    adapter = Adapter(2, 1)
    x = torch.tensor([3.0, -1.0]).view(1, 2, 1, 1)
    assert torch.equal(adapter(x), x)
    for layer, weight, bias in ((adapter.down, [[1.0, 2.0]], [0.0]), (adapter.up, [[4.0], [-1.0]], [0.5, 0.0])):
        layer.weight.data = torch.tensor(weight)[..., None, None]
        layer.bias.data = torch.tensor(bias)
    gelu = 0.8413447  # of 1: 1 times the normal distribution below 1
    assert adapter(x).flatten().tolist() == pytest.approx([3 + 4 * gelu + 0.5, -1 - gelu], rel=1e-5)


@pytest.mark.parametrize("name", all_tasks())
def test_a_head_reads_exactly_what_its_task_says(name):
    task = load_task(name)
    space = Space(("a", "b", "c"), task.kinds[0])
    widths = {"c5": 24} | {f"p{k}": 16 for k in range(2, 8)}
    sides = {"c5": 2, "p2": 16, "p3": 8, "p4": 4, "p5": 2, "p6": 1, "p7": 1}
    torch.manual_seed(0)
    maps = {k: torch.randn(1, widths[k], s, s, requires_grad=True) for k, s in sides.items() if k in task.reads}
    assert set(maps) == set(task.reads)
    said = task.head(widths, space)(dict(maps))  # and no others
    task.loss(said, [answer_to(task, render(random_scene(1, (64, 64))), space)]).backward()
    assert [k for k, m in maps.items() if m.grad is None] == []


def test_they_begin_as_the_identity_and_change_no_other_weight():
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    without, having = made(0), made(4)
    for name, value in without.state_dict().items():
        assert torch.equal(value, having.state_dict()[name]), name
    with torch.no_grad():
        for name, answer in without(images).items():
            torch.testing.assert_close(having(images)[name], answer)
    more = set(having.state_dict()) - set(without.state_dict())
    assert {n.rpartition(".")[0] for n in more} == {
        f"heads.{k}.adapter.{m}.{layer}" for k, m in (("kinds", "c5"), ("far", "pyramid")) for layer in ("down", "up")
    }


def test_each_objective_has_its_own():
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    student = made(4)
    before = student(images)
    student.heads["far"].adapter["pyramid"].up.bias.data += 1
    after = student(images)
    assert torch.equal(before["kinds"], after["kinds"])
    depth = [load_task("depth").decode(said["far"])[0].value for said in (before, after)]
    assert not torch.equal(*depth)


def test_trained_saved_loaded_and_taken_on(tmp_path):
    store = world(tmp_path / "store", tasks=("classification", "depth"))
    plain = train([store], out=str(tmp_path / "plain"), **options())
    run = train([store], out=str(tmp_path / "run"), **options(adapters=4))
    assert "adapters" not in describe_student(plain)
    assert describe_student(run)["adapters"] == 4
    weights = load_file(Path(run) / "student.safetensors")
    ups = [v for k, v in weights.items() if ".adapter." in k and ".up." in k]
    assert len(ups) == 4
    assert all(v.abs().max() > 0 for v in ups)
    student = load_student(run)
    assert all(torch.equal(v, weights[k]) for k, v in student.state_dict().items())
    # from a run without, and to one without
    onwards = train([store], out=str(tmp_path / "onwards"), **options(adapters=4, init=plain))
    assert describe_student(onwards)["adapters"] == 4
    back = train([store], out=str(tmp_path / "back"), **options(init=run))
    assert not any(".adapter." in k for k in load_file(Path(back) / "student.safetensors"))
    assert weights_of(Path(plain)) != weights_of(Path(back))


def test_refused(tmp_path):
    store = world(tmp_path / "store", tasks=("depth",))
    with pytest.raises(ValueError, match="adapters must be at least 0; got -1"):
        train([store], out=str(tmp_path / "run"), **options(adapters=-1))
