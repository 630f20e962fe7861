"""Splits: who is where follows from ids alone, groups stay together, and a store is never half divided in silence."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from polyteach.__main__ import main
from polyteach.curation import grouping as groups
from polyteach.curation.check import faults
from polyteach.curation.info import described
from polyteach.curation.split import drawn
from polyteach.store import DIVIDED, ImageRow, Index, Store
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import PEOPLE, Space
from polyteach.tasks.detection import DetectionTarget
from polyteach.verbs.store.merge import merge
from polyteach.verbs.store.split import split

THREE = {"train": 0.8, "val": 0.1, "test": 0.1}


def made(path, ids, part_size=16, embed=True):
    """A store with a class for each image, by people, and boxes with outlines."""
    store = Store.create(path, part_size)
    classes = store.create_set("classification", PEOPLE, Space(("a", "b")), {"teacher": PEOPLE})
    outlined = store.create_set("detection", PEOPLE, Space(("a", "b"), "masks"), {"teacher": PEOPLE})
    for part, start in enumerate(range(0, len(ids), part_size)):
        mine = ids[start : start + part_size]
        rows = [ImageRow(i, 8, 8, f"bytes of {i}".encode(), licence="CC0") for i in mine]
        store.write_images(part, rows if embed else [replace(r, data=None, uri=f"/x/{r.id}") for r in rows])
        which = [sum(map(ord, i)) % 2 for i in mine]
        classes.write(part, mine, [ClassificationTarget(torch.eye(2)[k]) for k in which])
        mask = torch.zeros(1, 8, 8, dtype=torch.bool)
        mask[0, :4, :4] = True
        box, one, none = torch.tensor([[0.0, 0, 4, 4]]), torch.ones(1), torch.zeros(1, dtype=torch.bool)
        outlined.write(part, mine, [DetectionTarget(box, torch.tensor([k]), one, none, mask) for k in which])
    return str(path)


def where(path):
    store = Store.open(path)
    return {r.id: r.split for p in store.parts() for r in store.images(p, data=False)}


IDS = [f"photographs/{i}.jpg" for i in range(200)]


@given(st.text(max_size=20), st.integers(0, 5))
def test_an_image_is_drawn_by_its_name_alone(key, seed):
    assert drawn(key, THREE, seed) in THREE
    assert drawn(key, {"all": 1.0}, seed) == "all"
    # a larger first fraction only takes images, and gives none away
    if drawn(key, {"train": 0.5, "test": 0.5}, seed) == "train":
        assert drawn(key, {"train": 0.6, "test": 0.4}, seed) == "train"


def test_fractions_are_met_as_by_chance():
    n = 20_000
    found = [drawn(str(i), THREE, 0) for i in range(n)]
    for name, share in THREE.items():
        spread = (n * share * (1 - share)) ** 0.5
        assert abs(found.count(name) - n * share) < 4 * spread
    other = [drawn(str(i), THREE, 1) for i in range(n)]
    both = sum(a == b for a, b in zip(found, other, strict=True)) / n
    assert both == pytest.approx(0.8**2 + 2 * 0.1**2, abs=0.02)  # another seed knows nothing of the first


@pytest.mark.parametrize("embed", [True, False])
@pytest.mark.parametrize("place", ["folder", "memory"])
def test_all_readers_see_it_and_nothing_else_changes(tmp_path, embed, place):
    ids = IDS[:72]
    path = made(tmp_path / "store" if place == "folder" else f"memory://splits-{embed}/store", ids, embed=embed)
    before = Store.open(path)
    rows = {r.id: r for p in before.parts() for r in before.images(p)}
    told = {s.task: [s.read(p) for p in s.parts()] for s in before.sets()}
    assert before.splits().values(0) == {None}
    counts = split(path, fractions=THREE, progress=False)
    assert set(counts) == set(THREE)
    store = Store.open(path)
    now = {r.id: r for p in store.parts() for r in store.images(p)}
    assert {k: replace(r, split=None) for k, r in now.items()} == rows
    assert {k: r.split for k, r in now.items()} == {i: drawn(i, THREE, 0) for i in ids}
    assert counts == described(store)["splits"] == {k: list(where(path).values()).count(k) for k in sorted(THREE)}
    assert store.splits().values(0) <= set(THREE)
    assert (store.path / "images" / Index.NAME).exists() or place == "memory"
    assert [str(s.read(p)) for s in store.sets() for p in s.parts()] == [str(x) for v in told.values() for x in v]
    assert list(faults(store)) == []
    if place == "folder":
        table = ds.dataset(f"{path}/images", format="parquet").to_table(["id", "split"])
        assert dict(zip(*table.to_pydict().values(), strict=True)) == where(path)


def test_more_images_never_move_those_that_are_there(tmp_path):
    few, many = made(tmp_path / "few", IDS[:100]), made(tmp_path / "many", sorted(IDS, reverse=True), part_size=7)
    split(few, fractions=THREE, progress=False)
    split(many, fractions=THREE, progress=False)
    assert where(few).items() <= where(many).items()
    merge(str(tmp_path / "all"), [few, many], progress=False)
    assert where(tmp_path / "all") == where(many)


@pytest.mark.parametrize("how", ["pattern", "csv", "parquet"])
def test_groups_stay_together(tmp_path, how):
    ids = [f"{site}/video{v:02}_{f}.png" for site in "xy" for v in range(30) for f in range(4)]
    path = made(tmp_path / "store", ids)
    group = {i: i.rpartition("_")[0] for i in ids}
    if how == "pattern":
        words = {"group": r"(.*)_\d+"}
    else:
        table = pa.table({"id": [*ids, "of/another.png"], "more": [1.5] * 241, "group": [*group.values(), "z"]})
        words = {"groups": str(tmp_path / f"groups.{how}")}
        if how == "csv":
            pa.csv.write_csv(table, words["groups"])
        else:
            pq.write_table(table, words["groups"])
    split(path, fractions=THREE, progress=False, **words)
    found = {}
    for id, name in where(path).items():
        assert found.setdefault(group[id], name) == name
    assert set(found.values()) == set(THREE)


def test_numbers_as_ids_and_groups_are_texts(tmp_path):
    path = made(tmp_path / "store", ["007", "008", "NA"])
    (tmp_path / "g.csv").write_text("id,group\n007,1\n008,1\nNA,1\n")
    split(path, fractions={"train": 1.0}, groups=str(tmp_path / "g.csv"), progress=False)
    assert where(path) == {"007": "train", "008": "train", "NA": "train"}


def test_one_that_was_stopped_is_refused_by_all_and_goes_on(tmp_path, monkeypatch, capsys):
    path = made(tmp_path / "store", IDS)
    real = Store.write_images

    def dies(self, part, rows):
        if part == 3:
            raise KeyboardInterrupt
        real(self, part, rows)

    monkeypatch.setattr(Store, "write_images", dies)
    with pytest.raises(KeyboardInterrupt):
        split(path, fractions=THREE, progress=False)
    for verb in (["store", "info", path], ["train", path, "--out", str(tmp_path / "run")], ["store", "check", path]):
        assert main(verb) == 2
        assert "half divided into splits; finish it" in capsys.readouterr().err
    about = tmp_path / "store" / "store.json"
    begun = about.read_text()
    about.write_text(begun.replace('"seed": 0', '"seed": 7').replace('"group": null', '"group": "(a|b)_"'))
    assert main(["store", "info", path]) == 2
    assert "test=0.1 --seed 7 --group '(a|b)_'\n" in capsys.readouterr().err
    about.write_text(begun)
    with pytest.raises(ValueError, match=r"half divided, otherwise: seed was 0, is 1"):
        split(path, fractions=THREE, seed=1, progress=False)
    written = []
    monkeypatch.setattr(Store, "write_images", lambda self, part, rows: (written.append(part), real(self, part, rows)))
    split(path, fractions=THREE, progress=False)
    assert min(written) == 3  # what was done is not done again
    assert where(path) == {i: drawn(i, THREE, 0) for i in IDS}
    assert json.loads((tmp_path / "store" / "store.json").read_text())["split"]["finished"]


def test_splits_that_exist_are_kept_unless_told(tmp_path):
    path = made(tmp_path / "store", IDS)
    split(path, fractions=THREE, progress=False)
    before = where(path)
    with pytest.raises(ValueError, match=r"has splits already: test \d+, train \d+, val \d+. Give --overwrite"):
        split(path, fractions={"a": 0.5, "b": 0.5}, progress=False)
    assert where(path) == before
    split(path, fractions={"a": 0.5, "b": 0.5}, overwrite=True, progress=False)
    assert set(where(path).values()) == {"a", "b"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"fractions": {"train": 0.8, "test": 0.1}}, "must add up to 1; they add up to 0.9"),
        ({"fractions": {}}, "no fractions"),
        ({"fractions": {"train": 1.2, "test": -0.2}}, "train=1.2 must be above 0 and at most 1"),
        ({"fractions": {"a b": 1.0}}, "split name 'a b'"),
        ({"fractions": {"a": 0.999, "b": 0.001}}, "no image of .* would be in b: 20 images are too few"),
        ({"fractions": {"a": 0.5, "b": 0.5}, "group": "photographs"}, "in their groups, are too few"),
        ({"fractions": {"a": 1.0}, "group": "("}, "is no regular expression"),
        ({"fractions": {"a": 1.0}, "group": "cats"}, "does not match image 'photographs/0.jpg'"),
        ({"fractions": {"a": 1.0}, "group": "x", "groups": "y"}, "not both"),
        ({"fractions": {"a": 1.0}, "groups": "nowhere.csv"}, "groups nowhere.csv cannot be read: No such file"),
    ],
)
def test_what_does_not_fit_is_an_error_and_nothing_is_written(tmp_path, options, why):
    path = made(tmp_path / "store", IDS[:20])
    with pytest.raises(ValueError, match=why):
        split(path, progress=False, **options)
    assert set(where(path).values()) == {None}
    assert DIVIDED not in json.loads((tmp_path / "store" / "store.json").read_text())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("id,set\na,1\n", "has no column 'group'; it has id, set"),
        ("id,group\nphotographs/0.jpg,1\n", "no line for image 'photographs/1.jpg'"),
        ("id,group\nx,1\nx,2\n", "gives image 'x' two groups, '1' and '2'"),
        ("id,group\nx,1\ny,\n", "gives image 'y' no group"),  # all that were left blank would be one group
    ],
)
def test_a_file_of_groups_that_does_not_fit(tmp_path, text, why):
    path = made(tmp_path / "store", IDS[:20])
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(ValueError, match=why):
        split(path, fractions={"a": 1.0}, groups=str(tmp_path / "g.csv"), progress=False)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ([("id", ["x"]), ("group", [["a"]])], r"g.parquet: id and group must be text or numbers"),
        ([("id", ["x"]), ("group", [b"\xff"])], r"g.parquet: id and group must be text or numbers"),
        ([("id", ["x"]), ("group", ["a"]), ("group", ["b"])], r"g.parquet (cannot be read: Multiple|has several)"),
    ],
)
def test_a_parquet_file_of_groups_that_does_not_fit(tmp_path, columns, why):
    table = pa.Table.from_arrays([pa.array(v) for _, v in columns], names=[n for n, _ in columns])
    pq.write_table(table, tmp_path / "g.parquet")
    with pytest.raises(ValueError, match=why):
        groups.grouping(file=str(tmp_path / "g.parquet"))


def test_what_is_printed_counts_the_classes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path = made(tmp_path / "store", IDS)
    assert main(["store", "split", path, "--fractions", "train=0.8", "val=0.1", "test=0.1", "--no-progress"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    for task in ("classification", "detection"):
        block = said.split(f"{task}/people, images by class")[1].split("\n\n")[0]
        for k, name in enumerate("ab"):
            line = next(x for x in block.splitlines() if x.startswith(f"{name} "))
            shows = [s for i, s in where(path).items() if sum(map(ord, i)) % 2 == k]
            assert line.split()[1:] == [str(shows.count(s)) for s in ("test", "train", "val")]
    with pytest.raises(SystemExit):
        main(["store", "split", path, "--fractions", "train"])
    assert "NAME=FRACTION" in capsys.readouterr().err


def test_a_class_without_an_image_in_a_split_is_told(tmp_path, capsys):
    path = made(tmp_path / "store", ["b", "d", *(chr(97 + 2 * i) for i in range(12))])  # few of one class
    rare = sum(map(ord, "b")) % 2
    for seed in range(50):
        lacks = [s for s in ("test", "train") if not any(
            drawn(i, {"train": 0.5, "test": 0.5}, seed) == s for i in ("b", "d"))]  # fmt: skip
        if lacks:
            break
    split(path, fractions={"train": 0.5, "test": 0.5}, seed=seed, progress=False)
    assert f"no image in {lacks[0]}: {'ab'[rare]}" in capsys.readouterr().out


@pytest.mark.slow
def test_anybodys_class_folders_become_a_transfer(tmp_path):
    """folder: -> store -> splits -> transfer, by the command line alone."""
    for kind, colour in (("red", (200, 40, 30)), ("blue", (20, 60, 190))):
        (tmp_path / "mine" / kind).mkdir(parents=True)
        for i in range(30):
            shade = tuple(min(255, c + i) for c in colour)
            Image.new("RGB", (40, 32), shade).save(tmp_path / "mine" / kind / f"{kind}_{i}.png")
    store, out = str(tmp_path / "store"), str(tmp_path / "scores")
    assert main(["ingest", f"folder:{tmp_path / 'mine'}", store, "--no-progress"]) == 0
    words = ["--lrs", "0.01", "--steps", "2", "--seeds", "0", "--size", "32", "--batch-size", "4", "--workers", "0"]
    words += ["--backbone", "resnet18", "--channels", "16", "--resamples", "4", "--examples", "0", "--no-progress"]
    assert main(["transfer", store, "--out", out, *words]) == 2  # there are no splits yet
    assert main(["store", "split", store, "--fractions", "train=0.6", "val=0.2", "test=0.2", "--no-progress"]) == 0
    assert main(["transfer", store, "--out", out, "--validation-split", "val", *words]) == 0
    found = json.loads((tmp_path / "scores" / "transfer.json").read_text())
    counts = {k: list(where(store).values()).count(k) for k in ("train", "val", "test")}
    for name, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert found["downstream"][f"{name}_images"] == counts[key] > 0
