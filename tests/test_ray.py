"""Labelling on Ray: the same bytes as by one process, whatever dies on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from polyteach.labelling.cluster import _Pool
from polyteach.store import Store
from polyteach.verbs.label import label
from tests.test_sam import MORE as BOXES
from tests.test_sam import sam
from tests.test_uris import serving
from tests.worlds import noise, store_of, teacher_in

MORE = """
import signal

class Deadly(Mean):
    '''Takes its process with it when it sees the white image; asks for patience at the black one.'''
    once = None
    def __call__(self, images):
        if any(i.min() == 255 for i in images) and (not self.once or not os.path.exists(self.once)):
            if self.once:
                open(self.once, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if any(i.max() == 0 for i in images):
            time.sleep(600)
        return super().__call__(images)

class Ill(Mean):
    '''Its device fails when it sees the white image, and then for good: the first time, or every time.'''
    once = None
    ill = False
    def __call__(self, images):
        if any(i.min() == 255 for i in images) and (not self.once or not os.path.exists(self.once)):
            if self.once:
                open(self.once, "w").close()
            self.ill = True
        if self.ill:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        return super().__call__(images)

def ill(device, precision): return Ill()
def ill_once(device, precision):
    t = Ill(); t.once = os.environ["POLYTEACH_TEST_ONCE"] + "-ill"
    return t
def deadly(device, precision): return Deadly()
def once(device, precision):
    t = Deadly(); t.once = os.environ["POLYTEACH_TEST_ONCE"]
    return t
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One small Ray for most tests; its folder's name is short, as sockets' names have to be."""
    folder = Path(tempfile.mkdtemp(prefix="r"))
    once = tmp_path_factory.mktemp("once") / "died"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("POLYTEACH_TEST_ONCE", str(once))
        yield from _started(folder, once)  # its workers have this environment
    shutil.rmtree(folder, ignore_errors=True)


def _started(folder, once):
    import ray

    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, _temp_dir=str(folder), log_to_driver=False,
        logging_level="error",
    )  # fmt: skip
    yield once
    ray.shutdown()


def pictures(count=22, **special):
    draw = torch.Generator().manual_seed(0)
    out = [torch.randint(1, 255, (3, 20, 24), generator=draw, dtype=torch.uint8) for _ in range(count)]
    for at, value in special.items():
        out[int(at[1:])] = torch.full((3, 20, 24), value, dtype=torch.uint8)
    return out


def parts(store):
    return {f.name: f.read_bytes() for f in Path(store.path).glob("labels/classification/*/part-*.parquet")}


def states(store):
    [labels] = store.sets()
    return {part: labels.states(part) for part in labels.parts()}


def test_the_same_bytes_as_one_process(cluster, teacher, tmp_path):
    one, two = store_of(tmp_path / "one", pictures()), store_of(tmp_path / "two", pictures())
    options = {"teachers": {"t": teacher + "mean"}, "device": ("cpu",), "batch_size": 3, "progress": False}
    label(str(one.path), **options)
    label(str(two.path), **options, ray="local", ray_workers=2)
    assert parts(one) == parts(two)
    assert len(parts(two)) == 6
    said = [json.loads(next(s.path.glob("labels/*/*/label.json")).read_text()) for s in (one, two)]
    assert [s["compute"]["images"] for s in said] == [22, 22]
    assert [(s["ray"], s["ray_workers"]) for s in said] == [(None, 0), ("local", 2)]


def test_a_chain_of_teachers_gives_the_same_bytes_too(cluster, tmp_path):
    """Each worker has all teachers, and asks for the masks in the boxes that it, or another one before, has found."""
    tiny, finder = sam(tmp_path / "sam", "sam"), teacher_in(tmp_path, BOXES)
    one, two = (store_of(tmp_path / name, noise(10, (40, 60), low=40, high=250)) for name in ("one", "two"))
    chain = {"masks": f"sam:{tiny}+boxes=found", "found": finder + "boxes"}
    options = {"device": ("cpu",), "batch_size": 3, "progress": False}
    label(str(one.path), teachers=chain, **options)
    label(str(two.path), teachers={"found": chain["found"]}, **options)
    (Path(two.path) / "labels/detection/found/part-00001.parquet").unlink()
    label(str(two.path), teachers=chain, **options, ray="local", ray_workers=2)
    found = [{f.name: f.read_bytes() for f in Path(s.path).glob("labels/detection/masks/part-*")} for s in (one, two)]
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_what_reading_may_do_is_said_to_the_workers(cluster, teacher, tmp_path):
    store = store_of(tmp_path / "store", pictures())
    rows = store.images(0)
    with serving() as (address, server):
        server.picture = rows[1].data
        far = [replace(r, data=None, uri=f"{address}{r.id}.png") if r.id == rows[1].id else r for r in rows]
        store.write_images(0, far)
        options = {"teachers": {"t": teacher + "mean"}, "device": ("cpu",), "progress": False, "ray": "local"}
        label(str(store.path), **options, ray_workers=1)
        assert [p.count("failed") for p in states(store).values()] == [1, 0, 0, 0, 0, 0]
        assert server.asked == []
        label(str(store.path), **options, ray_workers=1, allow_remote=address, retry=True)
        assert {s for part in states(store).values() for s in part} == {"labelled"}
        assert server.asked == [f"/{rows[1].id}.png"]
        with pytest.raises(ValueError, match="classification/u: all 22 images failed, the first with 'image: 24x20 is"):
            label(str(store.path), **options | {"teachers": {"u": teacher + "mean"}}, ray_workers=1, max_pixels=80)
    few = next(s for s in store.sets() if s.name == "u")
    assert "is more than max_pixels=80" in next(a for a in few.read(1) if isinstance(a, str))


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(cluster, teacher, tmp_path):
    cluster.unlink(missing_ok=True)
    one, two = (store_of(tmp_path / n, pictures(i9=255)) for n in ("one", "two"))
    options = {"device": ("cpu",), "progress": False}
    label(str(one.path), teachers={"t": teacher + "mean"}, **options)
    label(str(two.path), teachers={"t": teacher + "once"}, **options, ray="local", ray_workers=2)
    assert cluster.exists()
    assert parts(one) == parts(two)


LONE = {"device": ("cpu",), "batch_size": 3, "progress": False, "ray": "local", "ray_workers": 1}
"""One worker: each imports for seconds, and so does each that takes the place of another."""


def test_a_part_that_kills_its_workers_is_set_aside(cluster, teacher, tmp_path, capsys):
    store = store_of(tmp_path / "store", pictures(i9=255))
    label(str(store.path), teachers={"t": teacher + "deadly"}, **LONE, ray_tries=2)
    assert "1 parts were set aside" in capsys.readouterr().err
    assert states(store) == {p: ["failed" if p == 2 else "labelled"] * (2 if p == 5 else 4) for p in range(6)}
    assert store.sets()[0].read(2) == ["part set aside: its worker died (2 times)"] * 4


def test_a_worker_whose_device_failed_is_replaced_and_nothing_is_lost(cluster, teacher, tmp_path):
    store = store_of(tmp_path / "store", pictures(i9=255))
    label(str(store.path), teachers={"t": teacher + "ill_once"}, **LONE)
    assert {s for part in states(store).values() for s in part} == {"labelled"}


def test_a_part_that_breaks_devices_is_set_aside_and_no_other(cluster, teacher, tmp_path):
    store = store_of(tmp_path / "store", pictures(i9=255))
    label(str(store.path), teachers={"t": teacher + "ill"}, **LONE, ray_tries=2)
    assert [p for p, part in states(store).items() if "failed" in part] == [2]


def test_a_cluster_without_a_device_that_works_is_given_up(cluster, teacher, tmp_path):
    store = store_of(tmp_path / "store", pictures(16, **{f"i{i}": 255 for i in range(16)}))
    with pytest.raises(ValueError, match=r"2 workers broke in a row, the last with: .*device-side assert"):
        label(str(store.path), teachers={"t": teacher + "ill"}, **LONE, ray_tries=1)


def test_a_part_that_hangs_is_set_aside(cluster, teacher, tmp_path):
    store = store_of(tmp_path / "store", pictures(i0=0))
    options = {"teachers": {"t": teacher + "deadly"}, "device": ("cpu",), "progress": False}
    label(str(store.path), **options, ray="local", ray_workers=2, ray_tries=1, ray_timeout=4.0)
    assert store.sets()[0].read(0) == ["part set aside: took more than 4 s (1 times)"] * 4
    assert {s for p, found in states(store).items() for s in found if p} == {"labelled"}


def test_what_cannot_start_says_why(cluster, teacher, tmp_path):
    store = store_of(tmp_path / "store", pictures(4))
    with pytest.raises(ValueError, match=r"no worker can be started on Ray: .*torch sees no CUDA device"):
        label(str(store.path), teachers={"t": teacher + "mean"}, **LONE | {"device": ("cuda:0",)}, ray_tries=1)


def test_a_driver_that_is_killed_goes_on(tmp_path, teacher, request):
    """With a Ray of its own, in its own process group, which ends with it."""
    folder = tempfile.mkdtemp(prefix="r")
    request.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
    store = store_of(tmp_path / "store", pictures(40))
    whole = store_of(tmp_path / "whole", pictures(40))
    words = ["label", str(store.path), "--teacher", f"t={teacher}mean", "--device", "cpu", "--no-progress"]
    command = [sys.executable, "-m", "polyteach", *words, "--ray", "local", "--ray-workers", "1"]
    environment = os.environ | {"SLOW": "0.3", "RAY_TMPDIR": folder}
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(parts(store)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = parts(store)
    assert 2 <= len(done) < 10
    label(str(store.path), teachers={"t": teacher + "mean"}, device=("cpu",), progress=False)
    label(str(whole.path), teachers={"t": teacher + "mean"}, device=("cpu",), progress=False)
    assert parts(store) == parts(whole)
    assert all(parts(store)[k] == v for k, v in done.items())
    assert Store.open(store.path).count(0) == 4


@pytest.mark.parametrize(
    ("cluster", "workers", "gpus", "count", "each"),
    [
        ({"CPU": 6, "GPU": 2}, 0, 1, 2, 1),
        ({"CPU": 6, "GPU": 2}, 4, 1, 4, 0.5),
        ({"CPU": 6, "GPU": 2}, 1, 1, 1, 1),
        ({"CPU": 6, "GPU": 5}, 0, 2, 2, 2),
        ({"CPU": 6, "GPU": 5}, 9, 2, 9, 2),
        ({"CPU": 6, "GPU": 2}, 0, 0, 6, 0),
        ({"CPU": 6}, 0, 1, 6, 0),
        ({"CPU": 6}, 3, 2, 3, 2),
        ({}, 0, 1, 1, 0),
    ],
)
def test_how_many_workers_and_what_each_reserves(cluster, workers, gpus, count, each):
    asked = {}
    ray = SimpleNamespace(
        cluster_resources=lambda: cluster, remote=lambda **options: asked.update(options) or (lambda kind: kind)
    )
    pool = _Pool(ray, lambda: lambda part: part, workers, 3, 0, gpus)
    assert pool.count == count
    assert asked == {"num_cpus": 0.5, "num_gpus": each, "max_restarts": 0}


@pytest.mark.parametrize(
    ("devices", "teachers", "gpus"),
    [
        (("auto",), 2, 1),
        (("cpu",), 2, 0),
        (("cuda:0", "cuda:1"), 3, 2),
        (("cuda:0", "cuda:1"), 1, 1),
        (("cuda:0", "cpu"), 2, 1),
    ],
)
def test_workers_ask_for_the_devices_of_their_teachers(devices, teachers, gpus, teacher, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("polyteach.labelling.handout.work", lambda *given: asked.append(given[-1]))
    store = store_of(tmp_path / "store", pictures(4))
    names = {f"t{i}": teacher + "mean" for i in range(teachers)}
    label(str(store.path), teachers=names, device=devices, ray="local", progress=False)
    assert asked == [gpus]
