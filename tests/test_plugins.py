"""Tasks, teacher families and datasets that another distribution brings, found by its entry points."""

import shutil
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from polyteach.datasets import formats, load_dataset
from polyteach.ground import plugins
from polyteach.model.student import load_student
from polyteach.store import Store
from polyteach.tasks import all_tasks, load_task
from polyteach.teachers import families, load_teacher
from polyteach.verbs.ingest import ingest
from polyteach.verbs.label import label
from polyteach.verbs.store.check import check
from polyteach.verbs.train import train

FOCUS = Path(__file__).parent / "focus.py"
ENTRY_POINTS = """
    [polyteach.tasks]
    focus = outside.focus
    [polyteach.teachers]
    bright = outside.bright
    [polyteach.datasets]
    points = outside.points
"""
BRIGHT = '''
    """bright:CHANNEL points at the pixel that has most of a colour."""
    import torch
    from outside.focus import FocusTarget
    from polyteach.tasks.contract import Objective, Space
    from polyteach.teachers import Teacher

    class Bright(Teacher):
        def __init__(self, channel):
            self.channel, self.objectives = channel, {"focus": Objective("focus", Space())}

        def __call__(self, images):
            at = [divmod(int(i[self.channel].argmax()), i.shape[2]) for i in images]
            return [{"focus": FocusTarget(torch.tensor([[x + 0.5, y + 0.5]]))} for y, x in at]

    def load(name, device, precision):
        return Bright(["red", "green", "blue"].index(name))
'''
POINTS = '''
    """points:ROOT has FILE X Y on each line of ROOT/points.txt."""
    import torch
    from outside.focus import FocusTarget
    from polyteach.datasets import Dataset, Entry
    from polyteach.tasks.contract import Space

    class Points(Dataset):
        def __init__(self, root):
            self.root = root
            with open(f"{root}/points.txt") as file:
                self.lines = [line.split() for line in file]
            super().__init__([name for name, *_ in self.lines])
            self.spaces = {"focus": Space()}

        def entries(self, start, stop):
            for name, *at in self.lines[start:stop]:
                point = FocusTarget(torch.tensor([[float(n) for n in at]]))
                yield Entry(uri=f"{self.root}/{name}", targets=lambda size, point=point: {"focus": point})

    def load(path):
        return Points(path)
'''


def forget():
    """As at the start of a process."""
    plugins._declared.cache_clear()
    load_task.cache_clear()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a distribution of these entry points and modules of the package `outside`: as pip would lay them out."""

    def install(name, entries, **modules):
        home = tmp_path / "site" / name
        info = home / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entries))
        (home / "outside").mkdir()
        for module, code in modules.items():
            (home / "outside" / f"{module}.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(home)
        forget()
        return home / "outside"

    yield install
    monkeypatch.undo()
    for module in [m for m in sys.modules if m == "outside" or m.startswith("outside.")]:
        del sys.modules[module]
    forget()


@pytest.fixture
def outside(installed):
    shutil.copy(FOCUS, installed("outside-points", ENTRY_POINTS, bright=BRIGHT, points=POINTS))


def test_a_store_is_made_labelled_and_learned_with_what_a_distribution_brings(outside, photographs, tmp_path):
    assert {"focus", "depth"} <= set(all_tasks())
    assert {"bright", "timm"} <= set(families())
    assert {"points", "coco"} <= set(formats())
    lines = [f"{i}.png {10 + i} {20 - i}" for i in range(6)]
    (photographs / "points.txt").write_text("\n".join(lines))
    path = ingest(f"points:{photographs}", str(tmp_path / "store")).path
    label(str(path), teachers={"red": "bright:red"}, device=["cpu"], progress=False)
    store = Store.open(path)
    people, red = (next(s for s in store.sets() if s.name == name) for name in ("people", "red"))
    assert {people.task, red.task} == {"focus"}
    points = torch.cat([a.point for part in store.parts() for a in people.read(part)])
    assert points.tolist() == [[10 + i, 20 - i] for i in range(6)]
    assert red.info["teacher"]["spec"] == "bright:red"
    run = tmp_path / "run"
    train(str(path), out=str(run), backbone="test_resnet", channels=8, size=64, batch_size=2, steps=2, workers=0,
          device="cpu", progress=False)  # fmt: skip
    student = load_student(str(run))
    assert {o.task for o in student.objectives.values()} == {"focus"}


PATCHES = '''
    """patches:STRIDE answers with the mean colours of squares of pixels and of their neighbours."""
    import torch
    import torch.nn.functional as F
    from outside.patches import CHANNELS, PatchesTarget
    from polyteach.tasks.contract import Objective, Space
    from polyteach.teachers import Teacher

    class Squares(Teacher):
        def __init__(self, stride):
            self.stride, self.objectives = stride, {"patches": Objective("patches", Space())}

        def __call__(self, images):
            out = []
            for image in images:
                mean = F.avg_pool2d(image.float()[None] / 255, self.stride, ceil_mode=True)[0]
                out.append({"patches": PatchesTarget(torch.cat([mean, mean.roll(1, 1), mean.roll(1, 2)])[:CHANNELS])})
            return out

    def load(name, device, precision):
        return Squares(int(name))
'''


def test_a_feature_map_is_labelled_kept_checked_and_learned(installed, photographs, tmp_path):
    home = installed("squares", """
        [polyteach.tasks]
        patches = outside.patches
        [polyteach.teachers]
        squares = outside.squares
    """, squares=PATCHES)  # fmt: skip
    shutil.copy(FOCUS.with_name("patches.py"), home)
    path = str(tmp_path / "store")
    ingest(str(photographs), path, part_size=4)
    label(path, teachers={"mean": "squares:8"}, device=["cpu"], progress=False)
    check(path)  # raises where a label is unfit
    [labels] = Store.open(path).sets()
    answers = [a for part in labels.parts() for a in labels.read(part)]
    assert [tuple(a.feature.shape) for a in answers] == [(8, 6, 8), (8, 8, 6), (8, 5, 5)] * 2
    assert labels.kinds() == {"feature": "features"}
    first = load_teacher("squares:8")([Store.open(path).picture(row) for row in Store.open(path).images(0)][:1])[0]
    assert torch.equal(answers[0].feature, first["patches"].feature.half().float())
    run = tmp_path / "run"
    train(path, out=str(run), backbone="test_resnet", channels=8, size=64, batch_size=2, steps=2, workers=0,
          device="cpu", progress=False)  # fmt: skip
    student = load_student(str(run))
    assert [o.task for o in student.objectives.values()] == ["patches"]
    with pytest.raises(ValueError, match=r"tasks must be own, all, none or names of classification, .*got 'patches'"):
        load_dataset("shapes:pool?count=1&tasks=patches")
    assert "patches" not in load_dataset("shapes:pool?count=1&tasks=all").spaces


def test_an_unknown_name_lists_those_too(outside):
    with pytest.raises(ValueError, match=r"unknown task 'focos'; there are .*focus.*Did you mean focus"):
        load_task("focos")
    with pytest.raises(ValueError, match=r"unknown family 'brigt'.* one of bright, .*Did you mean bright"):
        load_teacher("brigt:red")
    with pytest.raises(ValueError, match=r"unknown dataset format 'pointz'; there are .*points.*Did you mean points"):
        load_dataset("pointz:somewhere")


def test_a_broken_one_is_an_error_that_says_whose_it_is(installed):
    installed("broken", """
        [polyteach.tasks]
        odd = outside.odd
        other = outside.other
        [polyteach.teachers]
        missing = outside.missing
        [polyteach.datasets]
        empty = outside.empty
    """, odd="1 / 0", other="TASK = 'none'", empty="")  # fmt: skip
    with pytest.raises(ValueError, match=r"the task 'odd' cannot be loaded from outside.odd of broken 1.2: ZeroDiv"):
        load_task("odd")
    with pytest.raises(ValueError, match=r"TASK of the task 'other' must be a Task whose name is 'other'; it is 'none"):
        load_task("other")
    with pytest.raises(ValueError, match=r"the teacher family 'missing' .* of broken 1.2: ModuleNotFoundError"):
        load_teacher("missing:x")
    with pytest.raises(ValueError, match=r"the dataset format 'empty' .* of broken 1.2: it has no 'load'"):
        load_dataset("empty:x")
    assert load_task("depth").name == "depth"  # the others are not affected


def test_a_name_of_two_is_an_error_that_names_both(installed):
    installed("first", "[polyteach.tasks]\ndepth = outside.depth\n[polyteach.teachers]\ntwice = outside.a")
    installed("second", "[polyteach.teachers]\ntwice = outside.b")
    with pytest.raises(ValueError, match=r"several of the task 'depth': polyteach's own and outside.depth of first 1"):
        load_task("depth")
    with pytest.raises(ValueError, match=r"'twice': outside.. of \w+ 1.2 and outside.. of \w+ 1.2; uninstall all but"):
        load_teacher("twice:x")
