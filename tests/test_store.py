"""The store: round trips are exact to the stated dtype, parts are whole or absent, anything can read it."""

import contextlib
import io
import os
from dataclasses import fields, replace
from unittest import mock

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polyteach.ground import images
from polyteach.ground.files import replacing
from polyteach.ground.scene import random_scene, render
from polyteach.store import ImageRow, Index, Store, decode, encode, index, maps, masks, parts, rows
from polyteach.tasks import all_tasks, load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Column, Policy, Space
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import DetectionTarget
from tests.worlds import answer_to, apart, store_of

SIDES = st.integers(1, 9)


def store_with(tmp_path, images=5, part_size=3):
    rows = [ImageRow(id=f"ü/{i}.png", height=32, width=48, data=bytes([i]) * i, split="a") for i in range(images)]
    return store_of(tmp_path / "store", rows, part_size), rows


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(["uint8", "uint16", "int8", "float16", "bool"]), SIDES, SIDES)
def test_map_round_trip_is_exact(data, dtype, height, width):
    shape = (3, height, width) if dtype == "int8" else (height, width)
    low, high = {"uint8": (0, 255), "uint16": (0, 65535), "int8": (-127, 127), "bool": (0, 1)}.get(dtype, (0, 0))
    seed = data.draw(st.integers(0, 2**31))
    r = np.random.default_rng(seed)
    if dtype == "float16":
        value = torch.from_numpy(r.normal(0, 1000, shape).astype(np.float16).astype(np.float32))
    else:
        value = torch.from_numpy(r.integers(low, high + 1, shape))
        value = value.bool() if dtype == "bool" else value
    how = Column("map", dtype)
    assert torch.equal(decode(encode(value, how), how), value)


@settings(deadline=None)
@given(st.lists(st.integers(-127, 127), min_size=3, max_size=3))
def test_scaled_integers_come_back_exactly(levels):
    how = Column("map", "int8", scale=1 / 127)
    value = (torch.tensor(levels, dtype=torch.float64) / 127).float().view(3, 1, 1)
    assert torch.equal(decode(encode(value, how), how), value)


@settings(deadline=None)
@given(st.integers(0, 5), SIDES, SIDES, st.integers(0, 2**31))
def test_masks_round_trip(n, height, width, seed):
    masks = torch.from_numpy(np.random.default_rng(seed).random((n, height, width)) > 0.5)
    how = Column("masks", "bool")
    assert torch.equal(decode(encode(masks, how), how), masks)


@settings(deadline=None)
@given(st.integers(1, 9), SIDES, SIDES, st.integers(0, 2**31))
def test_features_round_trip_at_a_resolution_of_their_own(channels, height, width, seed):
    values = np.random.default_rng(seed).standard_normal((channels, height, width)).astype(np.float16)
    how = Column("features", "float16")
    kept = encode(torch.from_numpy(values).float(), how)
    assert len(kept["data"]) == 2 * values.size
    found = decode(kept, how)
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(values).float())
    quantised = Column("features", "int8", scale=1 / 127)
    levels = torch.from_numpy(np.random.default_rng(seed).integers(-127, 128, values.shape)) / 127
    torch.testing.assert_close(decode(encode(levels, quantised), quantised), levels.float())


def test_features_that_are_not_what_they_say_are_errors():
    how = Column("features", "float16")
    kept = encode(torch.zeros(2, 3, 4), how)
    with pytest.raises(ValueError, match=r"is 3x4 \(height x width\), more than the 11 cells allowed here"):
        decode(kept, how, 11)
    with pytest.raises(ValueError, match=r"has 48 bytes; shape \[2, 3, 5\] of float16 takes 60"):
        decode(kept | {"shape": [2, 3, 5]}, how)
    with pytest.raises(ValueError, match=r"has 1,073,741,825 numbers; at most"):
        decode({"shape": [2**30 + 1, 1, 1], "data": b""}, how)
    for shape in ([2, 12], [2, -3, -4], None, [2, 3, None]):
        with pytest.raises(ValueError, match="must be channels, height and width"):
            decode(kept | {"shape": shape}, how)
    with pytest.raises(ValueError, match=r"features have shape \(3, 4\); they are \(channels, M, N\)"):
        encode(torch.zeros(3, 4), how)
    with pytest.raises(ValueError, match="do not fit float16"):
        encode(torch.full((1, 1, 1), 7e4), how)


def test_value_out_of_range_is_an_error():
    with pytest.raises(ValueError, match="do not fit uint16"):
        encode(torch.tensor([70000]), Column("vector", "uint16"))


@pytest.mark.parametrize("name", all_tasks())
def test_targets_round_trip_through_parquet(name, tmp_path):
    task = load_task(name)
    space = Space(("cat", "dog", "sky"), task.kinds[-1])
    truth = [answer_to(task, render(random_scene(s, (32, 48))), space) for s in range(3)]
    store, rows = store_with(tmp_path)
    labels = store.create_set(name, "t", space, {})
    labels.write(0, [r.id for r in rows[:3]], [truth[0], "broken: why", truth[2]])
    labels.write(1, [r.id for r in rows[3:]], [None, truth[1]])
    first, second = labels.read(0), labels.read(1)
    assert first[1] == "broken: why"
    assert second[0] is None
    assert labels.states(0) == ["labelled", "failed", "labelled"]
    for kept, true in ((first[0], truth[0]), (first[2], truth[2]), (second[1], truth[1])):
        for f in fields(true):
            a, b = getattr(kept, f.name), getattr(true, f.name)
            how = f.metadata["column"]
            if a is None or b is None:
                assert a is b
            elif how.dtype == "float16":
                assert torch.equal(a, b.half().float())
            elif how.scale != 1:
                torch.testing.assert_close(a, b, atol=how.scale / 2 + 1e-6, rtol=0)
            else:
                assert torch.equal(a, b)
    assert [type(a) for a in labels.read(0, [2, 1])] == [task.target, str]


@pytest.mark.parametrize("name", all_tasks())
def test_answers_are_what_decoding_each_value_by_itself_gives(name, tmp_path):
    """Bit for bit: columns are read without Python's lists, and small maps are remembered."""
    task = load_task(name)
    space = Space(("cat", "dog", "sky"), task.kinds[-1])
    truth = [answer_to(task, render(random_scene(s, (32, 48))), space) for s in range(3)]
    store, rows = store_with(tmp_path, images=5, part_size=5)
    labels = store.create_set(name, "t", space, {})
    labels.write(0, [r.id for r in rows], [truth[0], None, truth[1], "why", truth[2]])
    columns = {f.name: f.metadata["column"] for f in fields(task.target) if f.metadata["column"].kind != "none"}
    table = labels.table(0)
    for part, kept in ((table, table.to_pylist()), (table.slice(2, 3), table.to_pylist()[2:])):
        for answer, row in zip(labels.answers(part), kept, strict=True):
            if row["state"] != "labelled":
                assert answer == row["reason"]
                continue
            for key, how in columns.items():
                mine, value = getattr(answer, key), row[key]
                if value is None:
                    assert mine is None
                    continue
                expected = decode(value, how)
                assert mine.dtype == expected.dtype
                assert torch.equal(mine, expected)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["uint8", "uint16", "int8", "float16", "bool"]), SIDES, SIDES, st.integers(0, 2**31))
def test_maps_are_unpacked_as_pillow_does_it(dtype, height, width, seed):
    how = Column("map", dtype)
    shape = (3, height, width) if dtype == "int8" else (height, width)
    value = torch.from_numpy(np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 127, shape))
    kept = encode(value.float() if dtype == "float16" else value, how)
    assert kept[:4] == (b"\x89PNG" if dtype == "bool" else b"RIFF")
    quick = decode(kept, how)
    maps._same_again.cache_clear()
    without = RuntimeError("built without it")
    with (
        mock.patch.object(maps, "decode_png", side_effect=without),
        mock.patch.object(maps, "decode_webp", side_effect=without),
    ):
        assert torch.equal(decode(kept, how), quick)
    maps._same_again.cache_clear()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "float16"])
def test_maps_of_earlier_versions_and_very_long_ones_are_png(dtype):
    """As 0.1 wrote them: the bits of halves in 16-bit grey, signed bytes with 128 added."""
    how = Column("map", dtype)
    r = np.random.default_rng(1)
    array = r.integers(0, 127, (3, 5, 7) if dtype == "int8" else (5, 7)).astype(dtype)
    bits = {"int8": lambda a: (a.astype(int) + 128).astype(np.uint8).transpose(1, 2, 0), "float16": _bits}
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(bits.get(dtype, np.asarray)(array))).save(out, format="PNG")
    assert torch.equal(decode(out.getvalue(), how).double(), torch.from_numpy(array.astype(np.float64)))
    long = torch.zeros(*array.shape[:-2], 1, maps.WEBP_SIDE + 1)
    long[..., 5] = 3
    kept = encode(long, how)
    assert kept[:4] == b"\x89PNG"
    assert torch.equal(decode(kept, how).float(), long)


def _bits(halves):
    return halves.view(np.uint16)


def test_a_map_that_is_remembered_is_not_shared():
    how = Column("map", "bool")
    kept = encode(torch.ones(4, 5, dtype=torch.bool), how)
    decode(kept, how).zero_()
    assert decode(kept, how).all()


def test_rows_are_read_alone_and_in_the_order_asked(tmp_path):
    store = Store.create(tmp_path / "s", 200)
    store.write_images(0, [ImageRow(id=str(i), height=1, width=1, data=b"%d" % i) for i in range(200)])
    assert [r.id for r in store.images(0, rows=[199, 3, 70, 3])] == ["199", "3", "70", "3"]
    assert [r.data for r in store.images(0, rows=[150])] == [b"150"]
    assert store.images(0, data=False, rows=[5])[0].data is None


def test_images_are_counted_without_reading_them(tmp_path):
    store, _ = store_with(tmp_path)
    assert [store.count(p) for p in store.parts()] == [3, 2]
    with pytest.raises(ValueError, match=r"part-00007\.parquet is missing"):
        store.count(7)


def test_row_groups_are_small_and_bytes_are_not_compressed_again(tmp_path):
    store = Store.create(tmp_path / "s", 200)
    store.write_images(0, [ImageRow(id=str(i), height=1, width=1, data=bytes(100)) for i in range(200)])
    meta = pq.read_metadata(store.path / "images" / "part-00000.parquet")
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [64, 64, 64, 8]
    columns = {meta.row_group(0).column(i).path_in_schema: meta.row_group(0).column(i) for i in range(7)}
    assert columns["bytes"].compression == "UNCOMPRESSED"
    assert "RLE_DICTIONARY" not in columns["bytes"].encodings


def test_other_tools_read_it(tmp_path):
    store, rows = store_with(tmp_path)
    task = load_task("classification")
    space = Space(("cat", "dog", "sky"))
    labels = store.create_set("classification", "t", space, {})
    labels.write(0, [r.id for r in rows[:3]], [task.truth(render(random_scene(0)), space)] * 3)
    folder = str(store.path / "images")
    assert pyarrow.dataset.dataset(folder, format="parquet").count_rows() == 5
    assert pd.read_parquet(folder)["id"].tolist() == [r.id for r in rows]
    glob = str(labels.path / "*.parquet")
    query = f"select i.id, list_max(l.probability) from '{folder}/*.parquet' i join '{glob}' l using (id)"
    assert len(duckdb.sql(query).fetchall()) == 3


def test_a_set_made_otherwise_is_not_mixed(tmp_path):
    store, _ = store_with(tmp_path)
    store.create_set("classification", "t", Space(("a",)), {"teacher": {"sha256": "1"}})
    store.create_set("classification", "t", Space(("a",)), {"teacher": {"sha256": "1"}})
    with pytest.raises(ValueError, match=r"info\.teacher\.sha256 was '1', is '2'"):
        store.create_set("classification", "t", Space(("a",)), {"teacher": {"sha256": "2"}})
    with pytest.raises(ValueError, match=r"space\.names"):
        store.create_set("classification", "t", Space(("b",)), {"teacher": {"sha256": "1"}})
    with pytest.raises(ValueError, match="letters"):
        store.create_set("classification", "../t", Space(("b",)), {})


def test_what_is_there_is_not_overwritten(tmp_path):
    store_with(tmp_path)
    with pytest.raises(ValueError, match="is a store already"):
        Store.create(tmp_path / "store")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ValueError, match="no empty folder"):
        Store.create(tmp_path / "full")
    with pytest.raises(ValueError, match="polyteach ingest"):
        Store.open(tmp_path / "nowhere")


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    store, _ = store_with(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    before = sorted(p.name for p in (store.path / "images").iterdir())
    with pytest.raises(OSError, match="No space"):
        store.write_images(7, [ImageRow(id="x", height=1, width=1)])
    assert sorted(p.name for p in (store.path / "images").iterdir()) == before


def test_a_killed_writer_leaves_a_temporary_file_that_the_next_run_removes(tmp_path):
    store, _ = store_with(tmp_path)
    folder = store.path / "images"
    part = str(folder / "part-00009.parquet")

    def killed():
        with replacing(part) as half:
            half.write_bytes(b"half")
            os._exit(9)

    assert apart(killed, tmp_path / "said")[0] == 9
    assert len(list(folder.glob(".*.tmp"))) == 1
    assert Store.open(store.path).parts() == [0, 1]
    assert not list(folder.glob(".*.tmp"))


def test_flipped_bits_are_an_error_that_names_the_file(tmp_path):
    store, _ = store_with(tmp_path)
    store = Store.create(tmp_path / "s2", 300)
    store.write_images(0, [ImageRow(id=str(i), height=1, width=1, data=bytes(range(256))) for i in range(64)])
    file = store.path / "images" / "part-00000.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"part-00000\.parquet is broken"):
        store.images(0)


# ---- the overview of all parts ----

WORDS = st.lists(st.sampled_from(["train", "val", "", "\1", None]), min_size=1, max_size=9)


def with_splits(store, part, splits):
    rows = [ImageRow(id=f"{part}-{i}", height=4, width=6, data=b"x", split=s) for i, s in enumerate(splits)]
    store.write_images(part, rows)


@settings(deadline=None, max_examples=40)
@given(st.lists(WORDS, min_size=1, max_size=4), st.data())
def test_the_overview_says_what_the_parts_say_whatever_happens_to_them(tmp_path_factory, parts, data):
    store = Store.create(tmp_path_factory.mktemp("overview") / "store", 9)
    for part, splits in enumerate(parts):
        with_splits(store, part, splits)
    for _ in range(3):
        found = store.splits()
        assert [0 in found, len(parts) in found] == [bool(parts[0]), False]
        for part, splits in enumerate(parts):
            assert found.values(part) == set(splits)
            for asked in ([], ["train"], ["val", ""], ["\1", None]):
                assert found.among(part, asked).tolist() == [s in asked for s in splits]
        found.save()
        which = data.draw(st.integers(0, len(parts) - 1))
        parts[which] = data.draw(WORDS)  # often as long as before
        with_splits(store, which, parts[which])


def test_parts_are_not_opened_again_once_there_is_an_overview(tmp_path, monkeypatch):
    store, rows = store_with(tmp_path, 9)
    first = store.splits()
    assert [first.values(p) for p in range(3)] == [{"a"}] * 3
    first.save()
    opened = []
    read = index.read_part
    monkeypatch.setattr(index, "read_part", lambda path, *a, **k: opened.append(path.name) or read(path, *a, **k))
    again = store.splits()
    assert [again.among(p, ["a"]).tolist() for p in range(3)] == [[True] * 3] * 3
    again.save()
    assert opened == ["_overview.parquet"]
    store.write_images(1, rows[3:6])  # the same content, but who can know
    (store.path / "images" / "part-00002.parquet").unlink()
    third = store.splits()
    assert third.values(0) | third.values(1) == {"a"}
    assert 2 not in third
    with pytest.raises(ValueError, match=r"part-00002.parquet is missing"):
        third.values(2)
    third.save()
    assert opened[1:] == ["_overview.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert pq.read_table(store.path / "images" / "_overview.parquet")["part"].to_pylist() == [0, 1]
    # and it is no part of the images for who reads the folder
    assert pyarrow.dataset.dataset(store.path / "images", format="parquet").count_rows() == 6


def test_a_broken_overview_is_not_believed(tmp_path):
    store = Store.create(tmp_path / "store", 64)
    truth = [["train"] * 40 + ["val"] * 20, ["val", None] * 30, ["test"] * 7]
    for part, splits in enumerate(truth):
        with_splits(store, part, splits)
    first = store.splits()
    for part in range(3):
        first.values(part)
    first.save()
    file = store.path / "images" / Index.NAME
    whole = file.read_bytes()
    draw = np.random.default_rng(5)
    believed = 0
    for bit in draw.choice(8 * len(whole), 400, replace=False):
        rotted = bytearray(whole)
        rotted[bit // 8] ^= 1 << bit % 8
        file.write_bytes(rotted)
        found = store.splits()
        believed += len(found._row)
        for part, splits in enumerate(truth):
            assert found.among(part, ["val", None]).tolist() == [s in ("val", None) for s in splits]
    assert believed < 3 * 400
    file.write_bytes(b"")
    assert store.splits().values(2) == {"test"}


def test_a_store_that_may_only_be_read_has_no_overview_and_no_error(tmp_path, monkeypatch):
    store, _ = store_with(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index, "write_part", full)
    found = store.splits()
    assert found.values(0) == {"a"}
    found.save()
    assert not (store.path / "images" / Index.NAME).exists()


# ---- what labels are worth ----


@pytest.mark.parametrize(("task", "most"), [("segmentation", 65535), ("detection", 65536), ("classification", None)])
def test_no_more_classes_than_the_column_keeps_apart(tmp_path, task, most):
    """Segmentation's 65,535 is "ignore"; a set of more classes is refused before anything is labelled."""
    store = Store.create(tmp_path / "s", 4)
    kind = load_task(task).kinds[0]
    info = {"teacher": {"spec": "timm:huge"}}
    store.create_set(task, "fits", Space(tuple(map(str, range(most or 70000))), kind), info)
    if most is None:
        return
    more = Space(tuple(map(str, range(most + 1))), kind)
    with pytest.raises(ValueError, match=rf"timm:huge has {most + 1:,} classes; .*{task}/t.* at most {most:,} apart"):
        store.create_set(task, "t", more, info)
    with pytest.raises(ValueError, match=r"imagenet:/data has"):
        store.create_set(task, "people", more, {"teacher": "people", "images": {"source": "imagenet:/data"}})
    assert [s.name for s in store.sets()] == ["fits"]


def answered(tmp_path, answers, task="classification", names=("a", "b", "c"), part_size=1000):
    store = Store.create(tmp_path / f"s{len(list(tmp_path.iterdir()))}", part_size)
    labels = store.create_set(task, "t", Space(names, load_task(task).kinds[0]), {})
    for part, start in enumerate(range(0, len(answers), part_size)):
        mine = answers[start : start + part_size]
        rows = [ImageRow(id=str(start + i), height=64, width=64, data=b"x") for i in range(len(mine))]
        store.write_images(part, rows)
        labels.write(part, [row.id for row in rows], mine)
    return labels


def one_hot(i):
    return ClassificationTarget(torch.eye(3)[i])


def boxes(*scores):
    return DetectionTarget(
        box=torch.tensor([[i, i, i + 5, i + 5] for i in range(len(scores))], dtype=torch.float32).view(-1, 4),
        category=torch.arange(len(scores)) % 3,
        score=torch.tensor(scores, dtype=torch.float32),
        ignore=torch.zeros(len(scores), dtype=torch.bool),
    )


def test_labels_that_can_hardly_teach_are_doubted(tmp_path):
    def doubt(*given, **more):
        return answered(tmp_path, *given, **more).doubt(Policy())

    assert doubt([boxes(0.3), boxes()] * 36, "detection") == "images with no object: all 72 images that were looked at"
    assert doubt([boxes(0.3), boxes()] * 36 + [boxes(0.9, 0.8)], "detection") == ""
    assert doubt([one_hot(1), None, "failed"] * 9) == "images with the same answer: all 9 images that were looked at"
    varied = [ClassificationTarget(torch.tensor([0.5 + i / 100, 0.5 - i / 100, 0.0])) for i in range(9)]
    assert doubt(varied) == "images that show 'a' alone: all 9 images that were looked at"
    assert doubt([one_hot(i % 2) for i in range(9)]) == ""
    assert doubt([one_hot(1)] * 7) == ""  # of few it may well be so
    single = [ClassificationTarget(torch.ones(1))] * 20
    assert doubt(single, names=("a",)).startswith("images with the same answer")
    flat = [DepthTarget(torch.full((4, 4 + i % 2), 0.5), torch.ones(4, 4 + i % 2, dtype=torch.bool)) for i in range(9)]
    assert doubt(flat, "depth", names=()).startswith("images with the same answer")
    ramp = [DepthTarget(torch.rand(4, 4), torch.ones(4, 4, dtype=torch.bool)) for _ in range(9)]
    assert doubt(ramp, "depth", names=()) == ""
    fine = [DepthTarget(1e-4 * t.value, t.valid) for t in ramp]  # relative depth has no unit
    assert doubt(fine, "depth", names=()) == ""
    unseen = [DepthTarget(torch.zeros(4, 4), torch.zeros(4, 4, dtype=torch.bool))] * 2
    assert doubt(unseen, "depth", names=()) == "images with no valid pixel: all 2 images that were looked at"
    assert doubt([None, "failed"]) == ""  # no labels are another fault


def test_a_set_that_is_sorted_by_class_is_not_taken_for_one_of_one_class(tmp_path):
    """Looked at are images from all over the set, and few of them where they vary."""
    labels = answered(tmp_path, [one_hot(i // 400) for i in range(1200)], part_size=300)
    assert labels.doubt(Policy(), most=256) == ""
    seen = list(labels.spread(256))
    assert len(seen) == 256
    assert {int(t.probability.argmax()) for t in seen} == {0, 1, 2}
    assert len(list(labels.spread(5000))) == 1200
    with mock.patch.object(labels, "table", wraps=labels.table) as read:
        assert labels.doubt(Policy()) == ""
        assert read.call_count < 8


def webp(bits):
    """The start of a lossless WebP whose header says so."""
    return b"RIFF\x20\0\0\0WEBPVP8L\x14\0\0\0\x2f" + bits.to_bytes(4, "little") + bytes(16)


def saved(picture, format="PNG", **options):
    out = io.BytesIO()
    picture.save(out, format=format, **options)
    return out.getvalue()


GREY = Image.new("L", (6, 4), 7)


@pytest.mark.parametrize(
    ("dtype", "kept", "reason"),
    [
        ("uint8", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + bytes.fromhex("00004e2000004e200800000000"), "20000x20000"),
        ("uint16", webp(16382 | 16382 << 14), "16383x16383"),
        ("bool", saved(GREY), "is a 8-bit grey PNG; bool is kept as 1-bit grey PNG"),
        ("uint16", saved(GREY), "8-bit grey PNG"),
        ("uint8", saved(GREY.convert("I;16")), "16-bit grey PNG"),
        ("uint8", saved(GREY.quantize(4)), "colour type 3 PNG"),
        ("uint8", saved(GREY, "WEBP", quality=50), "neither a PNG nor a lossless WebP of one image"),
        (
            "uint8",
            saved(GREY, "WEBP", lossless=True, save_all=True, append_images=[GREY.point(lambda x: 9)]),
            "neither",
        ),
        ("uint16", saved(GREY.convert("RGBA").point(lambda x: 9), "WEBP", lossless=True), "WebP with transparency"),
        ("uint8", saved(GREY, "TIFF"), "neither"),
        ("uint8", b"junk", "neither"),
        ("uint8", saved(GREY)[:40], "cannot be decoded"),
    ],
)
def test_a_map_is_looked_at_before_it_is_unpacked(dtype, kept, reason):
    with pytest.raises(ValueError, match=reason):
        decode(kept, Column("map", dtype), most=1000)


def runs(*numbers):
    """COCO's compressed run lengths of these numbers, as its library writes them."""
    out = bytearray()
    for i, n in enumerate(numbers):
        x = n - (numbers[i - 2] if i > 2 else 0)
        more = True
        while more:
            digit, x = x & 31, x >> 5
            more = x != (-1 if digit & 16 else 0)
            out.append(48 + (digit | 32 * more))
    return bytes(out)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2000), min_size=1, max_size=30))
def test_runs_that_make_up_a_mask_are_let_through(numbers):
    cells = sum(numbers)
    if cells:
        masks.check_runs([runs(*numbers), runs(cells)], cells)
        with pytest.raises(ValueError, match="do not make up"):
            masks.check_runs([runs(*numbers)], cells + 1)


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        ({"size": [100_000, 100_000], "counts": [runs(10**10)]}, "more than the 100,000,000 cells"),
        ({"size": [9000, 9000], "counts": [runs(81_000_000)] * 20}, "20 masks of 9000x9000"),
        ({"size": [4, 6], "counts": [runs(30)]}, "do not make up its 24 cells"),
        ({"size": [4, 6], "counts": [runs(12, 12), runs(10, 4, 4)]}, "do not make up"),
        ({"size": [4, 6], "counts": [runs(30, 4, -10)]}, "do not make up"),
        ({"size": [4, 6], "counts": [runs(20, -6, 10)]}, "do not make up"),
        ({"size": [4, 6], "counts": [runs(24)[:-1] + b"\xe9"]}, "bytes that are none"),
        ({"size": [4, 6], "counts": [b"\x10"]}, "bytes that are none"),
        ({"size": [4, 6], "counts": [b"oooooooo0"]}, "longer than any image"),
        ({"size": [4, 6], "counts": [runs(24) + b"P"]}, "cut short"),
        ({"size": [4, 6], "counts": [b""]}, "no runs"),
        ({"size": [4, 6], "counts": [None]}, "no runs"),
        ({"size": [0, 6], "counts": [runs(0)]}, "no runs"),
        ({"size": [-4, -6], "counts": [runs(24)]}, "which is none"),
        ({"size": [24], "counts": [runs(24)]}, "which is none"),
    ],
)
def test_masks_are_looked_at_before_they_are_drawn(kept, reason):
    with pytest.raises(ValueError, match=reason):
        decode(kept, Column("masks", "bool"))


def rewritten(path, change=lambda table: table, **options):
    """A part as a stranger may write it."""
    table = change(pq.read_table(path))
    pq.write_table(table, path, **({"row_group_size": 64} | options))


def test_a_part_of_more_images_than_the_store_says_is_not_read(tmp_path):
    store, _ = store_with(tmp_path)
    part = store.path / "images" / "part-00000.parquet"
    rewritten(part, lambda t: pa.concat_tables([t] * 2000))
    for look in (store.count, store.images, store.ids, store.sizes, lambda p: store.splits().values(p)):
        with pytest.raises(ValueError, match=r"part-00000.parquet has 6,000 rows; a part of this store has at most 3"):
            look(0)
    with pytest.raises(ValueError, match="at most 262,144"):
        Store.create(tmp_path / "huge", 10**12)
    assert Store(store.path, 10**12).most == rows.MOST_IMAGES  # as a stranger's store.json may say


def test_rows_that_would_be_looked_for_in_the_wrong_place_are_not_read(tmp_path):
    store = Store.create(tmp_path / "s", 200)
    store.write_images(0, [ImageRow(id=str(i), height=1, width=1, data=b"x") for i in range(200)])
    rewritten(store.path / "images" / "part-00000.parquet", row_group_size=50)
    with pytest.raises(ValueError, match=r"should lie in groups of 64, and lie in groups of 50, 50, 50, 50"):
        store.images(0, rows=[60])


def test_columns_are_what_they_have_to_be(tmp_path):
    store, rows = store_with(tmp_path)
    labels = store.create_set("classification", "t", Space(("a",)), {})
    labels.write(0, [r.id for r in rows[:3]], [ClassificationTarget(torch.ones(1))] * 3)
    part = store.path / "images" / "part-00000.parquet"
    whole = part.read_bytes()
    rewritten(part, lambda t: t.set_column(3, "height", pa.array(["32"] * 3)))
    with pytest.raises(ValueError, match=r"part-00000.parquet is broken: its column 'height' is string, not int32"):
        store.images(0)
    part.write_bytes(whole)
    rewritten(part, lambda t: t.set_column(0, "id", pa.array(["a", None, "c"])))
    with pytest.raises(ValueError, match="an image has no id"):
        store.images(0)
    rewritten(labels.path / "part-00000.parquet", lambda t: t.drop_columns(["probability"]))
    with pytest.raises(ValueError, match="its column 'probability' is missing, not list"):
        labels.read(0)


def test_what_unpacks_to_far_more_than_it_has_bytes_is_not_unpacked(tmp_path, monkeypatch):
    store, rows = store_with(tmp_path)
    labels = store.create_set("classification", "t", Space(("a",)), {})
    labels.write(0, [r.id for r in rows[:3]], [ClassificationTarget(torch.ones(1))] * 3)
    part = labels.path / "part-00000.parquet"
    monkeypatch.setattr(parts, "UNPACKED", 2**20)
    assert len(labels.read(0)) == 3
    long = pa.array(["x" * 30_000] * 3)  # a dictionary of one text, for which every row stands
    rewritten(part, lambda t: t.set_column(2, "reason", long), compression="zstd")
    with pytest.raises(ValueError, match=r"part-00000.parquet would take [0-9,]+ bytes of memory"):
        labels.read(0)
    zeros = pa.array([np.zeros(10**6, np.float16)] * 3, pa.list_(pa.float16()))
    rewritten(
        part,
        lambda t: t.set_column(3, "probability", zeros).set_column(2, "reason", pa.nulls(3, pa.string())),
        compression="zstd",
        use_dictionary=False,
    )
    with pytest.raises(ValueError, match=r"would take [0-9,]+ bytes of memory"):
        labels.read(0)
    assert labels.states(0) == ["labelled"] * 3  # which take little


def test_an_overview_that_tells_of_more_images_than_there_can_be_is_not_believed(tmp_path):
    store, _ = store_with(tmp_path)
    first = store.splits()
    assert first.values(0) == {"a"}
    first._read[0] = ["a"], [2**31 - 1]
    first.save()
    assert store.splits().among(0, ["a"]).tolist() == [True] * 3


@pytest.mark.parametrize("name", all_tasks())
def test_validate_refuses_what_check_refuses(name):
    """On truth that was changed at one place; both by the same words."""
    task = load_task(name)
    space = Space(("cat", "dog", "sky"), task.kinds[-1])
    truth = answer_to(task, render(random_scene(1, (32, 48))), space)
    task.validate(truth, (32, 48), space)
    refused = 0
    for f in fields(truth):
        value = getattr(truth, f.name)
        if value is None:
            continue
        for bad in (float("nan"), float("inf"), -50.0, 50.0):
            if not value.is_floating_point() and not bad.is_integer():
                continue
            if value.dtype == torch.bool or not value.numel():
                continue
            changed = value.clone()
            changed.view(-1)[value.numel() // 2] = bad
            other = replace(truth, **{f.name: changed})
            said = []
            for look in (task.check, task.validate):
                try:
                    look(other, (32, 48), space)
                    said.append("")
                except ValueError as e:
                    said.append(str(e))
            assert said[0] == said[1]
            refused += bool(said[0])
    assert refused


def peaks():
    """Bytes for each pixel that reading takes above what the process had, a line each."""
    side = 6000
    out, grey = io.BytesIO(), io.BytesIO()
    Image.new("RGBA", (side, side), (9, 200, 30, 100)).save(out, "PNG", compress_level=1)
    Image.new("1", (side, side)).save(grey, "PNG")

    def peak():
        with open("/proc/self/status") as file:  # the system's own count begins at that of the process that started it
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024

    for name, work in {
        "map": lambda: decode(grey.getvalue(), Column("map", "bool"), 10**6),
        "mask": lambda: decode({"size": [side, side], "counts": [b"0"] * 99}, Column("masks", "bool"), 10**6),
        "size": lambda: images.decode(out.getvalue(), size=(480, 640)),
        "picture": lambda: images.decode(out.getvalue(), size=(side, side)),
    }.items():
        before = peak()
        with contextlib.suppress(images.BadImage, ValueError):
            work()
        print(name, (peak() - before) / side**2)


def test_memory_of_one_picture_is_bounded(tmp_path):
    """Bytes for each pixel above what the process had; in a fork, as a peak never falls."""
    Image.init()
    status, said = apart(peaks, tmp_path / "said")
    assert status == 0, said
    found = {name: float(share) for name, share in (line.split() for line in said.splitlines())}
    assert max(found["map"], found["mask"], found["size"]) < 1
    assert 3 < found["picture"] < 13  # of 100 million pixels 1.3 GB
