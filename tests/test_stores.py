"""Looking after stores: flipped bits are found or harmless, repair takes out only what is broken, and merging."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import polyteach
from polyteach.__main__ import main
from polyteach.curation import merge as merging
from polyteach.curation.check import faults
from polyteach.curation.info import described
from polyteach.ground.scene import random_scene, render
from polyteach.store import ImageRow, Store, label_folder
from polyteach.tasks import load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import PEOPLE, Space
from polyteach.tasks.detection import DetectionTarget
from polyteach.verbs.store.check import check
from polyteach.verbs.store.drop_labels import drop_labels
from polyteach.verbs.store.info import info
from polyteach.verbs.store.merge import merge
from polyteach.verbs.store.repair import repair
from polyteach.verbs.store.split import split
from polyteach.verbs.train import train
from tests.worlds import options, png, seen_tasks, world


def content(path):
    """All that a store says, decoded."""
    store = Store.open(path)
    rows = [r for p in store.parts() for r in store.images(p)]
    said = {}
    for labels in store.sets():
        for part in labels.parts():
            for id, answer in zip(labels.ids(part), labels.read(part), strict=True):
                plain = answer if answer is None or isinstance(answer, str) else _plain(vars(answer))
                said[labels.task, labels.name, id] = plain
    return rows, said


def _plain(values):
    return {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in values.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = world(tmp_path_factory.mktemp("whole") / "store")
    return path, content(path)


def copied(whole, tmp_path, name="copy"):
    target = tmp_path / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(whole[0], target)
    return target


def test_a_whole_store_has_no_faults(whole, tmp_path, capsys):
    assert list(faults(Store.open(whole[0]), deep=True)) == []
    check(whole[0], deep=True, progress=False)
    assert "is whole" in capsys.readouterr().out
    path = copied(whole, tmp_path)
    repair(str(path), progress=False)
    assert "nothing was changed" in capsys.readouterr().out
    assert content(path) == whole[1]


@settings(deadline=None, max_examples=24, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_is_found_or_changes_nothing_and_repair_loses_no_other_image(whole, tmp_path, data):
    path = copied(whole, tmp_path)
    file = data.draw(st.sampled_from(sorted(path.rglob("part-*.parquet"))))
    bytes_ = bytearray(file.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(bytes_) - 1))
    bytes_[bit // 8] ^= 1 << bit % 8
    file.write_bytes(bytes_)
    found = list(faults(Store.open(path)))
    if not found:
        assert content(path) == whole[1]
        return
    assert {f.file for f in found} >= {str(file.relative_to(path))}
    repair(str(path), progress=False)
    assert list(faults(Store.open(path))) == []
    rows, said = content(path)
    assert all(r in whole[1][0] for r in rows)
    hurt = {k for k, v in said.items() if v != whole[1][1][k]}
    part = int(file.stem.removeprefix("part-"))
    mine = {r.id for r in whole[1][0][4 * part : 4 * part + 4]}
    if "images" in file.parts:
        assert [r for r in whole[1][0] if r.id not in mine] == [r for r in rows if r.id not in mine]
        assert not hurt
    else:
        assert len(rows) == len(whole[1][0])
        assert all(said[k] == "broken on the disk" for k in hurt)
        assert {(k[0], k[1]) for k in hurt} <= {(file.parts[-3], file.parts[-2])}
        gone = set(whole[1][1]) - set(said)
        assert {k[2] for k in gone | hurt} <= mine


def test_training_refuses_a_broken_part_and_goes_on_after_repair(whole, tmp_path):
    path = copied(whole, tmp_path)
    file = next(path.glob("labels/depth/*/part-00001.parquet"))
    bytes_ = bytearray(file.read_bytes())
    bytes_[len(bytes_) // 3] ^= 16
    file.write_bytes(bytes_)
    with pytest.raises(ValueError, match=r"part-00001\.parquet"):
        train([str(path)], out=str(tmp_path / "run"), **options(tasks=("depth",)))
    with pytest.raises(ValueError, match=r"1 faults in .*mend it with: polyteach store repair"):
        check(str(path), progress=False)
    repair(str(path), progress=False)
    assert (path / "broken" / file.relative_to(path)).read_bytes() == bytes(bytes_)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    train([str(path)], out=str(tmp_path / "run"), **options(tasks=("depth",)))


def test_what_check_says(whole, tmp_path):
    path = copied(whole, tmp_path)
    store = Store.open(path)
    [labels] = [s for s in store.sets() if s.task == "classification"]
    rows = store.images(0)
    labels.write(0, ["other", *[r.id for r in rows[1:]]], labels.read(0))
    store.write_images(1, [rows[0], *store.images(1)[1:]])
    (path / "labels/depth/oracle/set.json").write_text("{")
    shutil.copy(path / "labels/normals/oracle/part-00000.parquet", path / "labels/normals/oracle/part-00007.parquet")
    said = [str(f) for f in faults(store)]
    assert any(s.startswith("labels/depth/oracle/set.json: is broken") for s in said)
    assert "labels/classification/oracle/part-00000.parquet, row 0: is of image 'other', not of '0'" in said
    assert "images/part-00001.parquet, row 0: id '0' is in part 0 too" in said
    assert "labels/normals/oracle/part-00007.parquet: there are no images of that part" in said


@pytest.mark.parametrize(
    ("name", "advice"),
    [("oracle", "(`polyteach label` makes them again, with --retry)"), (PEOPLE, "(ingest people's labels again)")],
)
def test_a_target_outside_its_space_costs_only_its_image(whole, tmp_path, capsys, name, advice):
    path = copied(whole, tmp_path)
    (path / "labels/detection/oracle").rename(path / "labels/detection" / name)
    file = path / "labels/detection" / name / "set.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"name": name}))
    store = Store.open(path)
    [labels] = [s for s in store.sets() if s.task == "detection"]
    answers = labels.read(0)
    answers[2] = DetectionTarget(
        torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([99]), torch.ones(1), torch.zeros(1, dtype=torch.bool), None
    )
    labels.write(0, labels.ids(0), answers)
    [fault] = faults(store)
    assert fault.rows == (2,)
    assert "99" in fault.reason
    repair(str(path), progress=False)
    assert f"3 answers kept, 1 lost {advice}; the broken one" in capsys.readouterr().out
    states = labels.states(0)
    assert states == ["labelled", "labelled", "failed", "labelled"]


def test_deep_finds_pictures_that_are_none(whole, tmp_path):
    path = copied(whole, tmp_path)
    store = Store.open(path)
    rows = store.images(0)
    store.write_images(0, [rows[0], ImageRow(rows[1].id, 48, 64, b"no picture"), *rows[2:]])
    assert list(faults(store)) == []
    [fault] = faults(store, deep=True)
    assert fault.rows == (1,)
    repair(str(path), deep=True, progress=False)
    assert [r.id for r in store.images(0)] == ["0", "2", "3"]
    assert list(faults(store, deep=True)) == []
    assert store.sets()[0].ids(0) == ["0", "2", "3"]


# ---- info ----


def boxes(*categories, score=1.0):
    n = len(categories)
    box = torch.tensor([[0.0, 0, 4, 4]]).repeat(n, 1)
    return DetectionTarget(
        box, torch.tensor(categories, dtype=torch.long), torch.full((n,), score), torch.zeros(n, dtype=torch.bool), None
    )


def test_info_counts(tmp_path, capsys):
    store = Store.create(tmp_path / "store", 4)
    ids = [str(i) for i in range(6)]
    for part, at in ((0, ids[:4]), (1, ids[4:])):
        store.write_images(part, [ImageRow(i, 8, 8, b"x", split="train" if i < "3" else "val") for i in at])
    space = Space(("cat", "dog"), "boxes")
    people = store.create_set("detection", PEOPLE, space, {})
    people.write(0, ids[:4], [boxes(), boxes(), boxes(0), None])
    teacher = store.create_set("detection", "t", space, {"teacher": {"spec": "timm:x"}})
    teacher.write(0, ids[:4], [boxes(), boxes(1, score=0.9), boxes(0, 0, score=0.9), boxes(1, score=0.3)])
    teacher.write(1, ids[4:], ["teacher: no", boxes(0, score=0.8)])
    about = described(store)
    assert (about["images"], about["parts"], about["splits"]) == (6, 2, {"train": 3, "val": 3})
    one, two = about["sets"]
    assert [one[k] for k in ("set", "teacher", "labelled", "absent", "failed", "open")] == [
        "detection/people", "people", 3, 1, 0, 1
    ]  # fmt: skip
    assert one["classes"] == {"cat": 1, "dog": 0}
    assert [two[k] for k in ("set", "teacher", "labelled", "absent", "failed", "open")] == [
        "detection/t", "timm:x", 5, 0, 1, 0
    ]  # fmt: skip
    assert two["classes"] == {"cat": 2, "dog": 1}  # the one of 0.3 is below the threshold
    assert two["empties"] == {"of": 2, "left": 1}
    assert described(store, score=0.2)["sets"][1]["classes"] == {"cat": 2, "dog": 2}
    info(str(store.path), json=True)
    assert json.loads(capsys.readouterr().out) == about
    info(str(store.path))
    said = " ".join(capsys.readouterr().out.split())  # a line is broken where the folder's name is long
    assert "6 images in 2 parts" in said
    assert "in no image: dog" in said


def test_info_warns_of_labels_that_can_hardly_teach(tmp_path, capsys):
    store = Store.create(tmp_path / "store", 80)
    ids = [str(i) for i in range(72)]
    store.write_images(0, [ImageRow(i, 8, 8, b"x") for i in ids])
    space = Space(("cat", "dog"), "boxes")
    for name, answers in {
        "good": [boxes(i % 2, score=0.9) for i in range(72)],
        "random": [boxes(0, 1, score=0.1)] * 72,
    }.items():
        store.create_set("detection", name, space, {"teacher": {"spec": "x:y"}}).write(0, ids, answers)
    info(str(store.path))
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "WARNING: detection/random can teach hardly anything: images with no object: all 72 images that were looked at"
        in said
    )
    assert "WARNING: detection/random teaches detection_good nothing" in said
    assert said.count("WARNING") == 2
    assert [s["doubt"] for s in described(store)["sets"]] == [
        "", "images with no object: all 72 images that were looked at"
    ]  # fmt: skip
    assert [s["doubt"] for s in described(store, score=0.05)["sets"]] == [
        "", "images with the same answer: all 72 images that were looked at"
    ]  # fmt: skip


# ---- sets of a task that is not installed ----


def test_labels_of_a_task_that_is_not_installed_stay_and_stop_nothing(whole, tmp_path, capsys):
    path = copied(whole, tmp_path)
    shutil.copytree(path / "labels" / "depth", path / "labels" / "flow")
    about = path / "labels" / "flow" / "oracle" / "set.json"
    about.write_text(about.read_text().replace('"depth"', '"flow"'))
    before = {p: p.read_bytes() for p in (path / "labels" / "flow").rglob("*") if p.is_file()}
    label_folder._TOLD.clear()
    assert {s.task for s in Store.open(path).sets()} == {k[0] for k in whole[1][1]}
    assert (
        "label set flow/oracle is left out and stays as it is: no task 'flow' is installed" in capsys.readouterr().err
    )
    check(str(path))
    repair(str(path))
    assert {p: p.read_bytes() for p in (path / "labels" / "flow").rglob("*") if p.is_file()} == before
    with pytest.raises(ValueError, match="no label set given; say which to delete"):
        drop_labels(str(path), [], yes=True)
    drop_labels(str(path), ["flow/oracle"], yes=True)
    assert not (path / "labels" / "flow").exists()


# ---- drop-labels ----


def test_drop_labels(whole, tmp_path, capsys):
    path = copied(whole, tmp_path)
    with pytest.raises(ValueError, match="nothing was deleted; add --yes"):
        drop_labels(str(path), ["depth/oracle"])
    assert "depth/oracle: 2 parts" in capsys.readouterr().out
    assert content(path) == whole[1]
    drop_labels(str(path), ["depth/oracle"], yes=True)
    rows, said = content(path)
    assert rows == whole[1][0]
    assert said == {k: v for k, v in whole[1][1].items() if k[0] != "depth"}
    assert not (path / "labels" / "depth").exists()
    with pytest.raises(ValueError, match=r"unknown label set 'depth/oracle'; .* has classification/oracle, "):
        drop_labels(str(path), ["depth/oracle"], yes=True)
    drop_labels(str(path), ["oracle"], yes=True)
    assert Store.open(path).sets() == []


# ---- merge ----


def test_merge_of_different_images(tmp_path):
    a, b = world(tmp_path / "a", 6), world(tmp_path / "b", 5, tasks=("depth",), first=6)
    merge(str(tmp_path / "all"), [a, b], progress=False)
    rows, said = content(tmp_path / "all")
    (rows_a, said_a), (rows_b, said_b) = content(a), content(b)
    assert rows == rows_a + rows_b
    assert {k: v for k, v in said.items() if isinstance(v, dict)} == said_a | said_b
    assert list(faults(Store.open(tmp_path / "all"), deep=True)) == []
    with pytest.raises(ValueError, match="is finished already"):
        merge(str(tmp_path / "all"), [a, b], progress=False)


def test_merge_of_the_same_images_with_other_labels(tmp_path):
    """A has depth of the first part only, B other tasks, and depth of all: what A lacks comes from B."""
    a = world(tmp_path / "a", 8, tasks=("depth",))
    b = world(tmp_path / "b", 8, tasks=("depth", "normals"))
    (tmp_path / "a/labels/depth/oracle/part-00001.parquet").unlink()
    merge(str(tmp_path / "all"), [a, b], progress=False)
    rows, said = content(tmp_path / "all")
    assert rows == content(b)[0]
    assert said == content(b)[1]


def test_the_store_named_first_wins(tmp_path):
    space = Space(("a", "b"))
    for name, first in (("x", 0), ("y", 1)):
        store = Store.create(tmp_path / name, 4)
        store.write_images(0, [ImageRow("i", 8, 8, b"same"), ImageRow(f"only {name}", 8, 8, b"z")])
        labels = store.create_set("classification", PEOPLE, space, {})
        one = torch.eye(2)[first]
        labels.write(0, ["i", f"only {name}"], [ClassificationTarget(one), ClassificationTarget(one)])
    merge(str(tmp_path / "all"), [str(tmp_path / "y"), str(tmp_path / "x")], progress=False)
    rows, said = content(tmp_path / "all")
    assert [r.id for r in rows] == ["i", "only y", "only x"]
    assert [said["classification", PEOPLE, r.id]["probability"] for r in rows] == [[0, 1], [0, 1], [1, 0]]


def test_a_merge_goes_on(tmp_path, monkeypatch):
    a, b = world(tmp_path / "a", 8), world(tmp_path / "b", 8, first=8)
    merge(str(tmp_path / "undisturbed"), [a, b], progress=False)
    original, left = merging._merge_part, [2]

    def stops(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(merging, "_merge_part", stops)
        with pytest.raises(KeyboardInterrupt):
            merge(str(tmp_path / "all"), [a, b], progress=False)
    with pytest.raises(ValueError, match="is a merge of"):
        merge(str(tmp_path / "all"), [b, a], progress=False)
    merge(str(tmp_path / "all"), [a, b], progress=False)
    files = [
        {f.relative_to(tmp_path / n): f.read_bytes() for f in (tmp_path / n).rglob("*") if f.suffix == ".parquet"}
        for n in ("all", "undisturbed")
    ]
    assert files[0] == files[1]


def test_what_merge_refuses(tmp_path):
    a = world(tmp_path / "a", 4, tasks=("depth",))
    with pytest.raises(ValueError, match="at least two different stores"):
        merge(str(tmp_path / "all"), [a, a], progress=False)
    b = world(tmp_path / "b", 4, tasks=("depth",), size=(32, 64))
    with pytest.raises(ValueError, match="image '0' is not the same in"):
        merge(str(tmp_path / "all1"), [a, b], progress=False)
    c = world(tmp_path / "c", 4, tasks=("depth",), first=9, info={"teacher": {"spec": "another"}})
    with pytest.raises(ValueError, match="one name and different teachers"):
        merge(str(tmp_path / "all2"), [a, c], progress=False)
    other = Store.create(tmp_path / "d", 4)
    space = Space(("x",), load_task("segmentation").kinds[0])
    first = world(tmp_path / "e", 4, tasks=("segmentation",))
    other.create_set("segmentation", "oracle", space, Store.open(first).sets()[0].info)
    with pytest.raises(ValueError, match="one name and different classes or units"):
        merge(str(tmp_path / "all3"), [first, str(other.path)], progress=False)


def test_the_command_line(whole, tmp_path, capsys):
    path = copied(whole, tmp_path)
    assert main(["store", "check", str(path), "--no-progress"]) == 0
    assert main(["store", "info", str(path)]) == 0
    file = next(path.glob("images/part-00000.parquet"))
    file.write_bytes(file.read_bytes()[:-9])
    assert main(["store", "check", str(path), "--no-progress"]) == 2
    assert "polyteach store check: 1 faults" in capsys.readouterr().err
    assert main(["store", "repair", str(path), "--no-progress"]) == 0
    assert main(["store", "check", str(path), "--no-progress"]) == 0
    assert len(seen_tasks()) == len(Store.open(path).sets())


def test_paths_from_python(tmp_path, capsys):
    (tmp_path / "teacher.py").write_text(
        "from polyteach.tasks.classification import ClassificationTarget\n"
        "from polyteach.tasks.contract import Objective, Space\n"
        "import torch\n"
        "from polyteach.teachers import Teacher\n"
        "class Bright(Teacher):\n"
        "    objectives = {'classification': Objective('classification', Space(('dark', 'bright')))}\n"
        "    def __call__(self, images):\n"
        "        shares = [float(i.float().mean()) / 255 for i in images]\n"
        "        return [{'classification': ClassificationTarget(torch.tensor([1 - s, s]))} for s in shares]\n"
        "def bright(device, precision):\n"
        "    return Bright()\n"
    )
    store = tmp_path / "store"
    rows = [ImageRow(f"{i}", 32, 48, png(render(random_scene(i, (32, 48))).image)) for i in range(4)]
    Store.create(store, 4).write_images(0, rows)
    polyteach.label(store, teachers={"a": f"python:{tmp_path / 'teacher.py'}:bright"}, device="cpu", progress=False)
    split(store, fractions={"train": 0.5, "val": 0.5}, progress=False)
    check(store, progress=False)
    repair(store, progress=False)
    info(store)
    assert "classification/a" in capsys.readouterr().out
    drop_labels(store, ["a"], yes=True)
    assert not Store.open(store).sets()


def test_what_needs_no_torch_does_not_import_it(tmp_path):
    store = Store.create(tmp_path / "store", 4)
    store.write_images(0, [ImageRow("0", 8, 8, b"a")])
    bare = shutil.copytree(store.path, tmp_path / "bare")
    labels = store.create_set("classification", "a", Space(("x", "y")), {"teacher": {"spec": "a:b"}})
    labels.write(0, ["0"], [ClassificationTarget(torch.tensor([0.5, 0.5]))])
    lines = [
        *(["store", verb, str(tmp_path / "none")] for verb in ("check", "info", "repair")),
        ["store", "merge", str(tmp_path / "new"), str(tmp_path / "none"), str(bare)],
        ["store", "split", str(tmp_path / "none"), "--fractions", "train=1"],
        ["ingest", str(tmp_path / "none"), str(tmp_path / "new")],
        ["store", "info", str(bare)],
        ["store", "drop-labels", str(store.path), "a", "--yes"],
    ]
    code = (
        "import json, sys; from polyteach.__main__ import main; found = [main(x) for x in json.loads(sys.argv[1])];"
        "print(json.dumps([found, 'torch' in sys.modules]), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code, json.dumps(lines)], capture_output=True, text=True, check=True)
    assert json.loads(run.stderr.splitlines()[-1]) == [[2] * 6 + [0] * 2, False], run.stderr
    assert not store.sets()
