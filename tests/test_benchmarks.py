"""The benchmarks' statistics, on figures made up; and that the scripts measure what they say, on next to nothing."""

import gc
import json
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parents[1] / "benchmarks"


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # WebDataset leaves its files open
def test_readers_read_the_same_pictures(tmp_path):
    from reading import bare, ours, shards, webdataset
    from worlds import rendered

    store = rendered(tmp_path / "store", 32, 32)
    pictures = [r.data for p in store.parts() for r in store.images(p)]
    path = shards(store, tmp_path)
    assert min(bare(pictures), ours(store, 32, (), 32), webdataset(path, 32, 32)) > 0
    import webdataset as library

    read = list(library.WebDataset(path, shardshuffle=False, empty_check=False))
    gc.collect()  # so that its warnings are of this test
    assert [s["jpg"] for s in read] == pictures


@pytest.mark.slow
def test_faults_are_injected_survived_and_would_be_seen(tmp_path):
    """Once each of those that need neither root nor Ray; and a harm that is done on purpose is counted."""
    import random

    from faults import Bench, label_killed, memory, rotten, skewed, together, train_killed

    from polyteach.store import Store

    bench = Bench(tmp_path)
    for fault in (label_killed, train_killed, memory, rotten, together, skewed):
        row = fault(bench, random.Random(0), 1)
        assert (row.injected, row.finished) == (1, row.runs), fault.__name__
        assert (row.lost, row.duplicates, row.differ) == (0, 0, 0), fault.__name__
    [labels] = [s for s in Store.open(bench.reference).sets() if s.name == "t"]
    harmed = bench.copy("harmed")
    bench.label(harmed)
    [mine] = [s for s in Store.open(harmed).sets() if s.name == "t"]
    (mine.path / "part-00001.parquet").write_bytes((mine.path / "part-00000.parquet").read_bytes())
    (mine.path / "part-00002.parquet").unlink()
    lost, twice, differ = bench.labels_left(harmed)
    assert (lost, twice) == (8, 4)
    assert differ >= (labels.path / "part-00002.parquet").stat().st_size


@pytest.mark.parametrize("life", [24.0, 0.5])
def test_the_scheduler_does_every_part_once_on_machines_that_die(life):
    from scale import Machines, simulate

    for seed in range(3):
        r = simulate(Machines(workers=200, parts=3000, life=life, poison=3), seed)
        assert (r["done"] + r["aside"], r["twice"]) == (3000, 0)
        assert r["aside"] - r["innocent"] == 3
        assert r["deaths"] >= (9 if life > 1 else 200)
        assert r["innocent"] <= (0 if life > 1 else 20)
