"""Labelling: nothing is lost, one bad image or answer stops nothing, a kill costs at most the part in hand."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import polyteach
from polyteach.__main__ import main
from polyteach.loading import stream
from polyteach.loading.stream import Decoded, Stream
from polyteach.store import ImageRow, LabelSet, Store
from polyteach.tasks import load_task
from polyteach.verbs.store.info import info
from tests.worlds import answers_of, forked, png, store_of

MORE = """
import pathlib
from polyteach.tasks.detection import DetectionTarget

class Quads(Teacher):
    objectives = {"detection": Objective("detection", Space(("thing",), "boxes"))}
    def answer(self, image):
        target = DetectionTarget(
            torch.tensor([[1.0, 1, 6, 6]]), torch.tensor([0]), torch.tensor([0.9]), torch.tensor([False])
        )
        if image.float().mean() < 50:  # four corners each, as some processors answer; tests' checks of types look away
            object.__setattr__(target, "box", torch.zeros(1, 4, 2))
        return target
    def __call__(self, images):
        return [{"detection": self.answer(i)} for i in images]

class Few(Mean):
    def __call__(self, images):
        return [] if images[0].float().mean() < 50 else super().__call__(images)[:1]

class Ill(Mean):
    # while the file "ill" is beside this one: fails in the way that it names, once it has seen so many pictures
    seen = 0
    def __call__(self, images):
        file = pathlib.Path(__file__).with_name("ill")
        kind, after = file.read_text().split() if file.exists() else ("well", 0)
        self.seen += len(images)
        if kind == "device" and self.seen > int(after):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if kind == "server" and self.seen > int(after):
            raise OSError("nobody is at home")
        return super().__call__(images)

class Choosy(Mean):
    # has no answer for dark pictures, nor for any without what it looks for, as a finder of faces
    def __call__(self, images):
        if any(i.float().mean() < 50 or i.shape[1] > 100 for i in images):
            raise ValueError("no face")
        return super().__call__(images)

def choosy(device, precision): return Choosy()
def quads(device, precision): return Quads()
def few(device, precision): return Few()
def ill(device, precision): return Ill()
"""


def pictures(n, dark=()):
    g = torch.Generator().manual_seed(1)
    return [
        (torch.rand(3, 8 + i % 3, 10, generator=g) * (30 if i in dark else 255) + (0 if i in dark else 60))
        .clamp(max=255)
        .to(torch.uint8)
        for i in range(n)
    ]


def digest(store):
    files = sorted((store.path / "labels").rglob("part-*.parquet"))
    return {str(f.relative_to(store.path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_every_image_gets_the_teachers_answer(tmp_path, teacher):
    images = pictures(10)
    store = store_of(tmp_path / "s", images)
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, batch_size=3, progress=False)
    for answer, image in zip(answers_of(store, "a"), images, strict=True):
        expected = (image.float().mean((1, 2)) / 20).softmax(-1)
        torch.testing.assert_close(answer.probability, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("nan", "finite"),
        ("size", "6"),
        ("crash", "no dark images"),
        ("quads", "box has shape (1, 4, 2), not (K, 4)"),
        ("few", "0 answers for 1 images"),
    ],
)
def test_bad_answers_are_recorded_and_cost_no_other_image(tmp_path, teacher, bad, reason):
    store = store_of(tmp_path / "s", pictures(10, dark=(3, 7)))
    polyteach.label(str(store.path), teachers={"a": teacher + bad, "b": teacher + "mean"}, progress=False)
    answers = answers_of(store, "a")
    failed = [i for i, a in enumerate(answers) if isinstance(a, str)]
    assert failed == [3, 7]
    assert reason in answers[3]
    assert not [a for a in answers_of(store, "b") if isinstance(a, str)]


def test_what_was_labelled_is_counted_and_known_to_who_comes_next(tmp_path, teacher, monkeypatch):
    store = store_of(tmp_path / "s", pictures(10, dark=(3, 7)))
    polyteach.label(str(store.path), teachers={"a": teacher + "nan"}, progress=False)
    [labels] = store.sets()
    right = [a.probability.max() for a in answers_of(store, "a") if not isinstance(a, str)]
    done, failed, means = labels.statistics(sample=5)
    assert (done, failed) == (8, 2)
    assert means["top probability"] == pytest.approx(float(sum(right[:5]) / 5), abs=1e-3)
    opened = []
    read = polyteach.store.index.read_part
    monkeypatch.setattr(
        polyteach.store.index, "read_part", lambda path, *a, **k: opened.append(path.name) or read(path, *a, **k)
    )
    states = labels.every_state()
    assert [i for p in range(3) for i in 4 * p + states.among(p, ("failed",)).nonzero()[0]] == [3, 7]
    assert opened == ["_overview.parquet"]


def test_what_is_reported_is_about_the_threshold_that_was_asked_for(tmp_path, teacher, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    store = store_of(tmp_path / "s", pictures(10))
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, score=0.9, progress=False)
    top = [float(a.probability.max()) for a in answers_of(store, "a")]
    assert f"top probability >= 0.9 {sum(t >= 0.9 for t in top) / 10:.3g}" in " ".join(capsys.readouterr().err.split())


def test_an_image_that_is_gone_is_recorded_and_retried(tmp_path, teacher):
    images = pictures(6)
    folder = tmp_path / "files"
    folder.mkdir()
    store = Store.create(tmp_path / "s", 4)
    rows = []
    for i, p in enumerate(images):
        (folder / f"{i}.png").write_bytes(png(p))
        rows.append(ImageRow(id=str(i), height=p.shape[1], width=p.shape[2], uri=str(folder / f"{i}.png")))
    store.write_images(0, rows[:4])
    store.write_images(1, rows[4:])
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])
    (folder / "5.png").unlink()
    run = {"teachers": {"a": teacher + "mean"}, "progress": False}
    polyteach.label(str(store.path), **run)
    answers = answers_of(store, "a")
    assert [i for i, a in enumerate(answers) if isinstance(a, str)] == [2, 5]
    assert "truncated" in answers[2]
    (folder / "2.png").write_bytes(whole)
    before = digest(store)
    polyteach.label(str(store.path), **run)
    assert digest(store) == before
    polyteach.label(str(store.path), **run, retry=True)
    again = answers_of(store, "a")
    assert [i for i, a in enumerate(again) if isinstance(a, str)] == [5]
    assert all(torch.equal(a.probability, b.probability) for a, b in zip(answers[:2], again[:2], strict=True))


def test_a_retry_asks_each_teacher_only_for_what_it_owes(tmp_path, monkeypatch):
    """Two teachers that failed for different images of one part are not asked for each other's."""
    from polyteach.tasks.classification import ClassificationTarget
    from polyteach.tasks.contract import Objective, Space
    from polyteach.teachers import Teacher

    store = store_of(tmp_path / "s", pictures(4))
    asked = {"a": [], "b": []}

    class Moody(Teacher):
        objectives = {"classification": Objective("classification", Space(("x", "y")))}  # noqa: RUF012

        def __init__(self, name):
            self.name, self.spec = name, name

        def __call__(self, images):
            asked[self.name].append(len(images))
            good = ClassificationTarget(probability=torch.tensor([0.5, 0.5]))
            bad = ClassificationTarget(probability=torch.tensor([0.5, float("nan")]))
            at = {"a": 0, "b": 3}[self.name]
            return [{"classification": bad if len(images) == 4 and i == at else good} for i in range(len(images))]

    monkeypatch.setattr("polyteach.labelling.start.check_teacher", lambda *_: None)
    monkeypatch.setattr("polyteach.labelling.team.load_teacher", lambda spec, *_: Moody(spec))
    polyteach.label(str(store.path), teachers={"a": "a", "b": "b"}, progress=False)
    assert [isinstance(x, str) for x in answers_of(store, "a")] == [True, False, False, False]
    polyteach.label(str(store.path), teachers={"a": "a", "b": "b"}, progress=False, retry=True)
    assert asked == {"a": [4, 1], "b": [4, 1]}
    assert not [x for name in "ab" for x in answers_of(store, name) if isinstance(x, str)]


def test_a_teacher_that_fails_everywhere_is_an_error(tmp_path, teacher):
    store = store_of(tmp_path / "s", pictures(5, dark=range(5)))
    with pytest.raises(ValueError, match="all 5 images failed, the first with 'teacher: RuntimeError: no dark"):
        polyteach.label(str(store.path), teachers={"a": teacher + "crash"}, progress=False)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("device", "on cpu: the device failed, AcceleratorError: CUDA error: an illegal memory access"),
        (
            "server",
            r"for the last images \(6 in a row\) and for one that it had answered, of 8x10: teacher: OSError: nobody",
        ),
    ],
)
def test_a_teacher_that_works_no_longer_stops_the_run_and_what_is_done_is_kept(tmp_path, teacher, kind, reason):
    """Not one image of the many that it can no longer be asked about is recorded as one that failed."""
    store = store_of(tmp_path / "s", pictures(40), part_size=10)
    ill = tmp_path / "ill"
    ill.write_text(f"{kind} 25")
    run = {"teachers": {"a": teacher + "ill"}, "batch_size": 4, "device": "cpu", "progress": False}
    with pytest.raises(ValueError, match=reason) as caught:
        polyteach.label(str(store.path), **run)
    assert "What was labelled before is kept" in str(caught.value)
    [labels] = store.sets()
    done = list(labels.parts())
    assert done == [0, 1]
    assert not [a for p in done for a in labels.read(p) if isinstance(a, str)]
    before = digest(store)
    ill.unlink()
    polyteach.label(str(store.path), **run)
    assert not [a for a in answers_of(store, "a") if isinstance(a, str)]
    assert before.items() <= digest(store).items()


def test_a_teacher_that_works_no_longer_is_found_out_after_a_few_images_of_a_long_part(tmp_path, teacher):
    store = store_of(tmp_path / "s", pictures(40), part_size=40)
    (tmp_path / "ill").write_text("server 4")
    with pytest.raises(ValueError, match=r"failed for the last images \(8 in a row\)"):
        polyteach.label(str(store.path), teachers={"a": teacher + "ill"}, batch_size=4, device="cpu", progress=False)


def test_many_bad_images_in_a_row_are_no_broken_teacher(tmp_path, teacher):
    store = store_of(tmp_path / "s", pictures(40, dark=range(5, 35)), part_size=20)
    polyteach.label(str(store.path), teachers={"a": teacher + "crash"}, batch_size=4, progress=False)
    assert [i for i, a in enumerate(answers_of(store, "a")) if isinstance(a, str)] == list(range(5, 35))


def test_a_teacher_that_refuses_pictures_of_a_kind_is_not_broken(tmp_path, teacher):
    """Nor where a plain picture is of that kind: it still answers what it has answered before."""
    store = store_of(tmp_path / "s", pictures(40, dark=range(5, 35)), part_size=20)
    polyteach.label(str(store.path), teachers={"a": teacher + "choosy"}, batch_size=4, progress=False)
    assert [i for i, a in enumerate(answers_of(store, "a")) if isinstance(a, str)] == list(range(5, 35))


def test_a_teacher_that_never_worked_is_found_out_by_a_plain_picture(tmp_path, teacher):
    store = store_of(tmp_path / "s", pictures(40, dark=range(40)), part_size=20)
    with pytest.raises(
        ValueError, match=r"8 in a row\) and for a plain image of 256x256: teacher: ValueError: no face"
    ):
        polyteach.label(str(store.path), teachers={"a": teacher + "choosy"}, batch_size=4, progress=False)


def test_adding_a_teacher_later_rewrites_nothing(tmp_path, teacher):
    store = store_of(tmp_path / "s", pictures(6))
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)
    stamps = {f: f.stat().st_mtime_ns for f in store.path.rglob("part-*.parquet")}
    polyteach.label(str(store.path), teachers={"a": teacher + "mean", "b": teacher + "mean"}, progress=False)
    assert {f: f.stat().st_mtime_ns for f in stamps} == stamps
    assert len(answers_of(store, "b")) == 6


def test_typos_are_errors_with_a_hint(tmp_path, teacher):
    store = store_of(tmp_path / "s", pictures(1))
    with pytest.raises(ValueError, match="FAMILY one of"):
        polyteach.label(str(store.path), teachers={"a": "tim:resnet18"})
    with pytest.raises(ValueError, match="precision"):
        polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, precision="fp8")
    with pytest.raises(ValueError, match="no teacher"):
        polyteach.label(str(store.path), teachers={})
    with pytest.raises(ValueError, match="not a store"):
        polyteach.label(str(tmp_path / "none"), teachers={"a": teacher + "mean"})


def test_a_full_disk_is_said_clearly_and_leaves_whole_parts(tmp_path, teacher, monkeypatch, capsys):
    store = store_of(tmp_path / "s", pictures(10))
    command = ["label", str(store.path), "--teacher", f"a={teacher}mean", "--no-progress"]
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 6:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(command) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert not list(store.path.rglob("*.tmp"))
    assert main(command) == 0
    assert len(answers_of(store, "a")) == 10


@pytest.mark.slow
def test_kills_and_restarts_end_with_the_same_bytes(tmp_path, teacher, monkeypatch):
    images = pictures(30)
    calm, shaken = store_of(tmp_path / "calm", images, 2), store_of(tmp_path / "shaken", images, 2)

    def words(store):
        teachers = [f"a={teacher}mean", f"b={teacher}nan"]
        return ["label", str(store.path), "--teacher", *teachers, "--batch-size", "2"]

    assert main(words(calm)) == 0
    monkeypatch.setenv("SLOW", "0.1")
    draw = random.Random(0)
    kills = 0
    for _ in range(200):
        run = forked(lambda: main(words(shaken)))
        # until the labels start to come nothing interesting can be hit
        seen, begun = len(digest(shaken)), time.monotonic()
        while len(digest(shaken)) == seen and not (ended := os.waitpid(run, os.WNOHANG)[0]):
            assert time.monotonic() < begun + 60
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.4))
        if ended or os.waitpid(run, os.WNOHANG)[0]:
            break
        os.kill(run, signal.SIGKILL)
        os.waitpid(run, 0)
        kills += 1
        if kills == 8:
            break
    assert main(words(shaken)) == 0
    assert digest(shaken) == digest(calm)
    assert len(digest(calm)) == 30
    assert kills >= 6


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_say_how_to_go_on(tmp_path, teacher, monkeypatch, number, status):
    store = store_of(tmp_path / "s", pictures(40), 2)
    words = ["label", str(store.path), "--teacher", f"a={teacher}mean"]
    monkeypatch.setenv("SLOW", "0.2")
    run = forked(lambda: main(words), tmp_path / "said")
    begun = time.monotonic()
    while not digest(store) and time.monotonic() < begun + 60:
        time.sleep(0.05)
    os.kill(run, number)
    assert os.waitstatus_to_exitcode(os.waitpid(run, 0)[1]) == status
    said = (tmp_path / "said").read_text()
    assert "The same command goes on" in said
    assert "Traceback" not in said
    assert 0 < len(answers_of(store, "a")) < 40
    monkeypatch.setenv("SLOW", "0")
    assert main(words) == 0
    assert len(answers_of(store, "a")) == 40


def test_only_the_images_of_a_split_are_labelled(tmp_path, teacher):
    store = Store.create(tmp_path / "s", 3)
    seen = pictures(5)
    for part, numbers in enumerate(((0, 1, 2), (3, 4))):
        rows = [ImageRow(f"{i}", *seen[i].shape[1:], png(seen[i]), split="train" if i % 2 else "val") for i in numbers]
        store.write_images(part, rows)
    with pytest.raises(ValueError, match="no image has split 'test'; there are train, val"):
        polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, split=("test",), progress=False)
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, split=("train",), progress=False)
    assert [a is None for a in answers_of(store, "a")] == [True, False, True, False, True]
    with pytest.raises(ValueError, match=r"was made otherwise: .*split"):
        polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)


def test_what_labelling_costs_adds_up_over_restarts(tmp_path, teacher):
    store = store_of(tmp_path / "s", pictures(5))
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)
    file = store.path / "labels" / "classification" / "a" / "label.json"
    first = json.loads(file.read_text())["compute"]
    assert first["images"] == 5
    assert first["flops"] is None  # torch saw no product: unknown, not nothing
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)  # nothing is left to do
    assert json.loads(file.read_text())["compute"] == first


def test_a_batch_that_memory_is_not_enough_for_is_halved_and_remembered(tmp_path, teacher, capsys):
    draw = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 8, 8), generator=draw, dtype=torch.uint8) for _ in range(16)]
    one, two = (store_of(tmp_path / n, images, part_size=8) for n in ("one", "two"))
    options = {"device": ("cpu",), "batch_size": 8, "progress": False}
    polyteach.label(str(one.path), teachers={"t": teacher + "mean"}, **options)
    capsys.readouterr()
    polyteach.label(str(two.path), teachers={"t": teacher + "greedy"}, **options)
    said = capsys.readouterr().err
    assert [said.count(f"memory is not enough for {n} images; {n // 2} from now on") for n in (8, 4, 2)] == [1, 1, 0]
    assert [s.read(p) for s in one.sets() for p in s.parts()]
    for a, b in zip(one.sets(), two.sets(), strict=True):
        for part in a.parts():
            pairs = zip(a.read(part), b.read(part), strict=True)
            assert all(torch.equal(x.probability, y.probability) for x, y in pairs)


def test_two_runs_at_once_lose_nothing_and_differ_in_nothing(tmp_path, teacher, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 8, 8), generator=draw, dtype=torch.uint8) for _ in range(24)]
    one, two = (store_of(tmp_path / n, images) for n in ("one", "two"))
    polyteach.label(str(one.path), teachers={"t": teacher + "mean"}, device=("cpu",), progress=False)
    words = ["label", str(two.path), "--teacher", f"t={teacher}mean", "--device", "cpu", "--no-progress"]
    monkeypatch.setenv("SLOW", "0.1")
    both = [forked(lambda: main(words)) for _ in range(2)]
    assert [os.waitpid(pid, 0)[1] for pid in both] == [0, 0]
    files = [{f.name: f.read_bytes() for f in s.path.glob("labels/*/*/part-*")} for s in (one, two)]
    assert files[0] == files[1]
    assert not list(two.path.rglob("*.tmp"))


def test_a_network_gives_the_same_bytes_to_a_run_that_goes_on(tmp_path):
    """Its first batch is like any other: counting operations once changed the last bits of depth and normals."""
    from polyteach.model.student import Student, save_student
    from polyteach.tasks.contract import Objective, Space

    torch.manual_seed(0)
    heads = {"depth": Objective("depth", Space(kind="metric")), "normals": Objective("normals", Space())}
    save_student(Student("test_resnet", heads, 32), tmp_path / "run", {"size": [64, 64]})
    store = store_of(tmp_path / "s", [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(32)], 16)
    options = {"teachers": {"t": f"own:{tmp_path / 'run'}"}, "device": ("cpu",), "batch_size": 16, "progress": False}
    polyteach.label(str(store.path), **options)
    parts = sorted(store.path.glob("labels/*/*/part-00001.parquet"))
    before = [p.read_bytes() for p in parts]
    for part in parts:
        part.unlink()
    polyteach.label(str(store.path), **options)
    assert len(parts) == 2
    assert [p.read_bytes() for p in parts] == before


def test_a_teacher_cannot_be_called_people(tmp_path, teacher):
    store = store_of(tmp_path / "s", pictures(2))
    with pytest.raises(ValueError, match="a teacher cannot be called 'people'"):
        polyteach.label(str(store.path), teachers={"people": teacher + "mean"}, progress=False)
    assert not (store.path / "labels").exists()


def test_a_teacher_that_says_the_same_of_every_image_is_told(tmp_path, teacher, capsys):
    grey = [torch.full((3, 8, 8), 128, dtype=torch.uint8)] * 9
    store = store_of(tmp_path / "s", grey)
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "WARNING: classification/a can teach hardly anything: images with the same answer: all 9 images" in said
    varied = store_of(tmp_path / "t", pictures(9))
    polyteach.label(str(varied.path), teachers={"a": teacher + "mean"}, progress=False)
    assert "WARNING" not in capsys.readouterr().err


def test_more_classes_than_can_be_kept_are_refused_before_any_image(tmp_path, teacher):
    file = tmp_path / "huge.py"
    file.write_text(
        "from polyteach.tasks.contract import Objective, Space\n"
        "from polyteach.teachers import Teacher\n"
        "class Huge(Teacher):\n"
        "    objectives = {'m': Objective('segmentation', Space(tuple(f'c{i}' for i in range(65536))))}\n"
        "    def __call__(self, images): raise AssertionError\n"
        "def huge(device, precision): return Huge()\n"
    )
    store = store_of(tmp_path / "s", pictures(2))
    spec = f"python:{file}:huge"
    with pytest.raises(ValueError, match=r"huge\.py:huge has 65,536 classes.*\(segmentation/maps\).*at most 65,535"):
        polyteach.label(str(store.path), teachers={"maps": spec}, progress=False)
    assert store.sets() == []


def test_a_second_teacher_of_the_same_classes_is_told_that_it_would_not_be_used(tmp_path, teacher, capsys):
    store = store_of(tmp_path / "s", pictures(9))
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)
    assert "WARNING" not in capsys.readouterr().err
    polyteach.label(str(store.path), teachers={"b": teacher + "mean"}, progress=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "WARNING: classification/b teaches classification_a nothing" in said
    assert "(classification/a). Leave it out with --labels, put it first in --labels, or combine" in said
    info(str(store.path))
    said = " ".join(capsys.readouterr().out.split())
    assert "WARNING: classification/b teaches classification_a nothing" in said
    assert "WARNING: classification/a" not in said


def test_a_retry_asks_again_where_what_is_kept_is_no_target(tmp_path, teacher):
    """As where the disk or a stranger has changed it; the rest stays as it is."""
    store = store_of(tmp_path / "s", pictures(4, dark=(3,)))
    polyteach.label(str(store.path), teachers={"a": teacher + "nan"}, progress=False)
    [labels] = store.sets()
    rows = [labels.encode(a) for a in labels.read(0)]
    rows[1]["probability"] = np.array([50, -49, 0], np.float16)
    labels.write_encoded(0, list("0123"), rows)
    with pytest.raises(ValueError, match="target of '1': probability must be finite and >= 0"):
        labels.read(0)
    polyteach.label(str(store.path), teachers={"a": teacher + "nan"}, retry=True, progress=False)
    assert labels.states(0) == ["labelled"] * 3 + ["failed"]


def test_large_images_come_in_smaller_batches(monkeypatch):
    monkeypatch.setattr(stream, "BATCH_PIXELS", 100)
    widths = (1, 1, 1, 8, 2, 3, 200, 1)
    batches = Stream(
        range(8), lambda i: Decoded(f"no image {i}"), batch_size=3, threads=2, pixels=lambda i: 10 * widths[i]
    )
    assert [[i for i, _ in batch] for batch in batches] == [[0, 1, 2], [3, 4], [5], [6], [7]]


@pytest.mark.parametrize("where", ["check", "encode", "picture"])
def test_memory_that_is_not_enough_for_one_image_costs_that_image_alone(tmp_path, teacher, monkeypatch, where):
    store = store_of(tmp_path / "s", pictures(6))
    owner = {"check": type(load_task("classification")), "encode": LabelSet, "picture": Store}[where]
    work, calls = getattr(owner, "read" if where == "picture" else where), []

    def third(self, *given):
        calls.append(given)
        if len(calls) == 3:
            raise MemoryError("2 bytes")
        return work(self, *given)

    monkeypatch.setattr(owner, "read" if where == "picture" else where, third)
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, threads=1, progress=False)
    monkeypatch.undo()
    [labels] = store.sets()
    failed = [a for p in labels.parts() for a in labels.read(p) if isinstance(a, str)]
    assert len(failed) == 1
    assert "emory" in failed[0]


def test_a_mistake_is_told_before_torch_is_imported(tmp_path):
    """In the words of before, and a second at most, of which the interpreter takes most."""
    store = str(store_of(tmp_path / "s", pictures(1)).path)
    mistakes = {
        ("label", f"{tmp_path}/none", "--teacher", "a=timm:resnet18"): "none is not a store (no store.json)",
        ("label", store, "--teacher", "a=tim:resnet18"): "unknown family 'tim'",
        ("label", store, "--teacher", "a=timm:resnet_18"): "unknown timm model 'resnet_18'; did you mean resnet18",
        ("label", store, "--teacher", "a=torchvision:resnet_18"): "unknown torchvision model 'resnet_18'; did you mean",
        ("label", store, "--teacher", "a=timm:resnet18@none.pth"): "no weights file none.pth",
        ("label", store, "--teacher", "a=onnx:none.onnx"): "no ONNX file none.onnx",
        ("label", store, "--teacher", "a=own:none"): "none holds no finished student (no student.json)",
        ("label", store, "--teacher", "a=python:none.py:f"): "none.py",
        ("label", store, "--teacher", "a=transformers:./none"): "no folder none",
        ("label", store, "--teacher", "a=timm:resnet18", "--precision", "fp8"): "unknown precision 'fp8'",
        ("label", store, "--teacher", "a=timm:resnet18", "--threads", "0"): "threads must be at least 1; got 0",
        ("predict", f"{tmp_path}/none", "x.jpg"): "none holds no finished student (no student.json)",
    }
    code = (
        "import json, sys; from polyteach.__main__ import main\n"
        "for argv in json.loads(sys.argv[1]): assert main(argv) == 2; print('---', file=sys.stderr)\n"
        "sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, json.dumps(list(mistakes))]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for said, wanted in zip(run.stderr.split("---\n"), mistakes.values(), strict=False):
        assert wanted in said
