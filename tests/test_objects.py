"""Stores in object storage: the same bytes and weights as in a folder, whatever the storage does on the way.

The storage is a real S3 server on this machine, with a layer in front of it that fails on demand.
"""

import io
import json
import os
import random
import signal
import threading
import time
from functools import partial
from types import SimpleNamespace

import fsspec
import pytest
import torch
from s3fs import S3FileSystem

import polyteach
from benchmarks import objects
from polyteach.__main__ import main
from polyteach.curation.check import faults
from polyteach.ground import storage
from polyteach.ground.storage import ObjectPath, StorageError, reader, requests, to_path
from polyteach.loading.plan import plan
from polyteach.store import ImageRow, Index, Store
from polyteach.verbs.store.check import check
from polyteach.verbs.store.drop_labels import drop_labels
from polyteach.verbs.store.info import info
from polyteach.verbs.store.merge import merge
from polyteach.verbs.store.repair import repair
from tests import worlds
from tests.worlds import SMALL, answers_of, forked, noise, photographs_in, rows_of, teacher_in, weights_of

TRAINING = SMALL | {"size": 64, "steps": 2}


@pytest.fixture(scope="module")
def server():
    """An S3 server with the layer in front of it, and a client; made once, since a client takes a second to make."""
    with objects.server() as made:
        yield made


@pytest.fixture
def layer(server, tmp_path, monkeypatch):
    """The layer in front of an empty bucket, and a process that knows nothing of it yet."""
    monkeypatch.setenv("POLYTEACH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POLYTEACH_CACHE_GB", "0.1")
    monkeypatch.setattr(requests, "WAIT", (0.001, 0.01))
    forget(monkeypatch)
    torch.set_num_threads(1)
    server.reset()
    client = requests.client_of("s3://")
    client.mkdir("bucket")
    yield server
    settled()
    server.reset()
    client.rm("bucket", recursive=True)


def forget(monkeypatch):
    """As a new process knows nothing of what another has written."""
    requests.WRITTEN.clear()


def settled():
    """Wait for what is read ahead."""
    for thread in threading.enumerate():
        if thread.name == "ahead":
            thread.join()


def whole_method(photographs, teacher, store, run):
    """Ingest, label, train, check."""
    polyteach.ingest(str(photographs), store, embed=True, part_size=2, progress=False)
    polyteach.label(store, teachers={"a": teacher + "mean", "b": teacher + "nan"}, progress=False)
    polyteach.train([store], out=str(run), **TRAINING)
    check(store, progress=False)


def content(store):
    """Name -> bytes of a store's files, without what tells seconds, or when files were written."""
    path = to_path(store)
    files = {str(f).removeprefix(f"{path}/"): f for f in path.rglob("*.*")}
    return {name: f.read_bytes() for name, f in files.items() if f.name not in ("label.json", Index.NAME)}


def images(count=6):
    return rows_of(noise(count, seed=3))


store_of = partial(worlds.store_of, part_size=2)


# ---- the same as in a folder ----


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    """What the whole method makes in a folder."""
    folder, threads = tmp_path_factory.mktemp("near"), torch.get_num_threads()
    torch.set_num_threads(1)
    photographs, teacher = photographs_in(folder / "photographs"), teacher_in(folder)
    whole_method(photographs, teacher, str(folder / "store"), folder / "run")
    torch.set_num_threads(threads)
    return SimpleNamespace(
        method=partial(whole_method, photographs, teacher), photographs=photographs, store=str(folder / "store"),
        content=content(folder / "store"), weights=weights_of(folder / "run"),
    )  # fmt: skip


def test_the_whole_method_is_the_same_behind_a_url(layer, near, tmp_path, capsys):
    url = "s3://bucket/a/store"
    near.method(url, tmp_path / "far")
    assert content(url) == near.content
    assert weights_of(tmp_path / "far") == near.weights
    capsys.readouterr()
    said = []
    for store in (url, near.store):
        info(store, json=True)
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1]
    with pytest.raises(ValueError, match=f"{url} is a finished store"):
        polyteach.ingest(str(near.photographs), url, embed=True, part_size=2, progress=False)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_that_are_forked_read_it_too(layer, tmp_path, teacher):
    url = str(store_of("s3://bucket/store", images()).path)
    polyteach.label(url, teachers={"a": teacher + "mean"}, progress=False)
    runs = [tmp_path / "here", tmp_path / "workers"]
    for workers, run in zip((0, 2), runs, strict=True):
        polyteach.train([url], out=str(run), **TRAINING | {"workers": workers})
    assert weights_of(runs[0]) == weights_of(runs[1])


@pytest.mark.parametrize("url", ["memory://test/store", "file://{}/store"])
def test_other_protocols(url, tmp_path, teacher, monkeypatch):
    monkeypatch.setenv("POLYTEACH_CACHE", str(tmp_path / "cache"))
    forget(monkeypatch)
    store = store_of(url.format(tmp_path), images())
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)
    assert len(answers_of(Store.open(url.format(tmp_path)), "a")) == 6
    check(str(store.path), progress=False)
    assert (tmp_path / "store").exists() == url.startswith("file")
    if url.startswith("memory"):
        fsspec.filesystem("memory").rm("/test", recursive=True)


def test_merge_drop_labels_and_repair(layer, tmp_path, teacher, capsys):
    rows, urls = images(), ["s3://bucket/one", "s3://bucket/two"]
    places = {"far": urls, "near": [str(tmp_path / "one"), str(tmp_path / "two")]}
    for stores in places.values():
        for at, store in enumerate(stores):
            store_of(store, rows[2 * at : 2 * at + 4])
            polyteach.label(store, teachers={"a": teacher + "mean"}, progress=False)
    merge("s3://bucket/all", urls, progress=False)
    merge(str(tmp_path / "all"), places["near"], progress=False)
    far, near = Store.open("s3://bucket/all"), Store.open(tmp_path / "all")
    assert [r for p in far.parts() for r in far.images(p)] == [r for p in near.parts() for r in near.images(p)] == rows
    assert len(answers_of(far, "a")) == 6
    check("s3://bucket/all", progress=False)

    one = Store.open(urls[0])
    before = content(one.path)
    part = one.path / "labels" / "classification" / "a" / "part-00001.parquet"
    broken = bytearray(part.read_bytes())
    broken[40:400] = bytes(360)
    (tmp_path / "broken").write_bytes(broken)
    part.put(tmp_path / "broken")
    with pytest.raises(ValueError, match="1 faults"):
        check(urls[0], progress=False)
    repair(urls[0], progress=False)
    aside = "broken/labels/classification/a/part-00001.parquet"
    assert content(one.path)[aside] == broken
    polyteach.label(urls[0], teachers={"a": teacher + "mean"}, retry=True, progress=False)
    check(urls[0], progress=False)
    assert content(one.path) == before | {aside: bytes(broken)}

    drop_labels("s3://bucket/all", ["a"], yes=True)
    assert far.sets() == []
    assert not (far.path / "labels").is_dir()
    assert "is whole" in capsys.readouterr().out


# ---- whatever the storage does ----


def test_fifty_faults_change_no_byte(layer, near, tmp_path, monkeypatch):
    monkeypatch.setattr(S3FileSystem, "_call_s3", layer.impatient(S3FileSystem._call_s3))
    url = "s3://bucket/store"
    layer.reset(left=50, seed=1)
    near.method(url, tmp_path / "far")
    settled()
    assert sum(layer.injected.values()) == 50
    assert min(layer.injected.values()) > 0, layer.injected
    assert content(url) == near.content
    assert weights_of(tmp_path / "far") == near.weights


def test_parts_that_a_listing_lacks_are_found(layer, monkeypatch):
    rows = images(10)
    store = store_of("s3://bucket/store", rows)
    (store.path / "images" / "part-00002.parquet").unlink()
    for known in (True, False):
        if not known:
            forget(monkeypatch)
        for left in range(5):  # newest first, until the listing is empty
            real = ObjectPath.names_below
            monkeypatch.setattr(ObjectPath, "names_below", lambda p, r=real, n=left: dict(list(r(p).items())[:n]))
            # past a gap and without a hint nobody can know of more
            assert Store.open("s3://bucket/store").parts() == ([0, 1, 3, 4] if left > 2 else [0, 1])
            monkeypatch.setattr(ObjectPath, "names_below", real)
    assert Store.open("s3://bucket/store").parts() == [0, 1, 3, 4]


def test_what_this_process_wrote_is_in_a_stale_listing(layer, tmp_path, teacher, monkeypatch):
    """Also label sets, which have no numbers to ask for."""
    client = requests.client_of("s3://")
    monkeypatch.setattr(type(client), "find", lambda *_, **__: {})
    store = store_of("s3://bucket/store", images())
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)
    assert [s.name for s in store.sets()] == ["a"]
    layer.reset()
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)
    assert not [x for x in layer.requests if x[0] == "PUT" and "part-" in x[1]], "nothing is done again"


def test_a_training_that_was_here_before_opens_no_part_to_know_what_it_holds(layer, teacher, monkeypatch):
    store = store_of("s3://bucket/store", images(10))
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)
    plans = []
    for _ in range(3):
        layer.reset()
        plans.append(plan([Store.open(store.path)]))
        parts = [x for x in layer.requests if "part-" in x[1] and not x[1].endswith("part-00005.parquet")]
        kept = [x for x in layer.requests if x[0] == "PUT"]
        # what this process wrote itself, a listing may be wrong about; what another did, is known the second time
        assert (len(parts) > 0, len(kept)) == [(True, 0), (True, 2), (False, 0)][len(plans) - 1]
        forget(monkeypatch)
    assert plans[0].labelled == plans[1].labelled == plans[2].labelled == {"classification_a": 10}
    assert all((p.start == plans[0].start).all() and (p.row == plans[0].row).all() for p in plans)


def test_a_storage_that_is_away_stops_a_run_and_breaks_nothing(layer, teacher, capsys):
    store = store_of("s3://bucket/store", images())
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)
    before = content(store.path)
    layer.reset(left=10**6)
    layer.kind = lambda *_: "500"
    try:
        for command in (["store", "repair"], ["store", "check"], ["label"]):
            words = ["--teacher", f"b={teacher}mean"] if command == ["label"] else []
            assert main([*command, str(store.path), *words, "--no-progress"]) == 1
            said = capsys.readouterr().err
            assert f"{requests.TRIES} times" in said
            assert "s3://bucket/store" in said
        with pytest.raises(StorageError):
            list(faults(store))
    finally:
        del layer.kind
    assert content(store.path) == before


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_label_goes_on(layer, tmp_path, teacher, monkeypatch):
    rows = images(12)
    store = store_of("s3://bucket/store", rows)
    calm = store_of(tmp_path / "calm", rows)
    run = {"teachers": {"a": teacher + "mean"}, "progress": False, "batch_size": 1}
    errors = tmp_path / "errors"

    def slowly():
        os.environ["SLOW"] = "0.3"
        polyteach.label(str(store.path), **run)

    for _ in range(2):
        done = len(list((store.path / "labels").rglob("part-*.parquet")))
        pid = forked(slowly, errors)
        begun = time.monotonic()
        while time.monotonic() < begun + 120:
            if len(list((store.path / "labels").rglob("part-*.parquet"))) > done:
                break
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), errors.read_text()
    some = list((store.path / "labels").rglob("part-*.parquet"))
    assert 2 <= len(some) < 6
    (storage.spool()).mkdir(exist_ok=True)
    left = storage.spool() / f".part-00003.parquet.{polyteach.ground.files._OWNER}.{pid}.12345678.tmp"
    left.write_bytes(b"of one that was killed")
    polyteach.label(str(store.path), **run)
    assert not list(storage.spool().iterdir())
    polyteach.label(str(calm.path), **run)
    assert content(store.path) == content(calm.path)


# ---- the cache ----


def blocks(tmp_path):
    return list((tmp_path / "cache" / "blocks").iterdir())


def test_the_cache_stays_under_its_bound_and_the_latest_stay_in_it(layer, tmp_path, monkeypatch):
    limit = 6 * 2**20
    monkeypatch.setenv("POLYTEACH_CACHE_GB", str(limit / 1e9))
    draw = random.Random(0)
    rows = [ImageRow(str(i), 8, 8, draw.randbytes(2**20 * 3 // 4)) for i in range(16)]
    store = store_of("s3://bucket/store", rows)
    most = 0
    for part in [*range(8), 7]:
        layer.reset()
        assert store.images(part) == rows[2 * part : 2 * part + 2]
        most = max(most, sum(f.stat().st_size for f in blocks(tmp_path)))
        assert most <= limit
    assert most > limit / 2
    assert not [x for x in layer.requests if x[0] == "GET"], "part 7 was read just now"


def test_without_a_cache_nothing_is_kept(layer, tmp_path, monkeypatch):
    monkeypatch.setenv("POLYTEACH_CACHE_GB", "0")
    rows = images()
    store = store_of("s3://bucket/store", rows)
    assert [r for p in store.parts() for r in store.images(p)] == rows
    assert store.prefetch(0)
    assert [f.name for f in (tmp_path / "cache").iterdir()] == ["spool"]
    monkeypatch.setenv("POLYTEACH_CACHE_GB", "much")
    with pytest.raises(ValueError, match=r"POLYTEACH_CACHE_GB must be a number.*'much'"):
        store.images(0)


def test_a_block_that_the_disk_spoiled_is_fetched_again(layer, tmp_path):
    rows = images()
    store = store_of("s3://bucket/store", rows)
    for spoil in (lambda b: b[:-1], lambda b: b"", lambda b: b[:90] + bytes([b[90] ^ 1]) + b[91:]):
        store.images(0)
        (block,) = blocks(tmp_path)
        block.write_bytes(spoil(block.read_bytes()))
        assert store.images(0) == rows[:2]


def test_a_part_that_was_rewritten_is_read_anew(layer):
    rows = images()
    store = store_of("s3://bucket/store", rows)
    assert store.images(0) == rows[:2]
    store.write_images(0, rows[2:4])
    assert store.images(0) == rows[2:4]


def test_what_will_be_read_is_fetched_before(layer, tmp_path, teacher):
    rows = images()
    store = store_of("s3://bucket/store", rows)
    assert store.prefetch(1)
    settled()
    layer.reset()
    assert store.images(1) == rows[2:4]
    assert not [x for x in layer.requests if x[0] == "GET"]
    polyteach.label(str(store.path), teachers={"a": teacher + "mean"}, progress=False)
    labels = store.sets()[0]
    assert labels.prefetch(2, [0])
    settled()
    layer.reset()
    assert len(labels.read(2, [1])) == 1
    assert not [x for x in layer.requests if x[0] == "GET"]


def test_a_file_in_blocks_is_that_file(layer, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "BLOCK", 1000)
    monkeypatch.setattr(reader, "RUN", 3)
    data = random.Random(0).randbytes(20_500)
    (tmp_path / "data").write_bytes(data)
    path = to_path("s3://bucket/data")
    path.put(tmp_path / "data")
    draw = random.Random(1)
    near = io.BytesIO(data)
    with path.open() as far:
        for _ in range(200):
            at, n = draw.randrange(21_000), draw.randrange(9000)
            assert far.seek(at) == near.seek(at)
            assert far.read(n) == near.read(n)
        assert far.seek(-5, io.SEEK_END) == 20_495
        assert far.read() == data[-5:]
    layer.reset()
    assert path.open().read() == data
    assert not [x for x in layer.requests if x[0] == "GET"]


# ---- errors ----


def test_a_missing_client_says_what_to_install(layer, monkeypatch):
    monkeypatch.setattr(requests, "_clients", {})

    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(ValueError, match=r"s3://bucket/store.* needs a client .*pip install 'polyteach\[s3\]'"):
        Store.open("s3://bucket/store")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/store", "cannot be kept behind ftp://, only behind s3://"),
        ("simplecache::s3://bucket/store", "cannot be kept behind simplecache::s3://"),
        ("s3://", "say in which bucket"),
        ("s3://bucket/none", "s3://bucket/none is not a store .*polyteach ingest SOURCE s3://bucket/none"),
    ],
)
def test_urls_that_are_no_store_are_refused(layer, url, said):
    with pytest.raises(ValueError, match=said):
        Store.open(url)


def test_refusals_are_not_tried_again(layer, monkeypatch):
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/s/store\.json cannot be written: .*bucket"):
        Store.create("s3://no-such-bucket/s")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(requests, "_clients", {})
    layer.reset()
    with pytest.raises(StorageError, match=r"was refused .*NoCredentialsError.*Look after the credentials"):
        Store.open("s3://bucket/store")
    assert not layer.requests
