"""Stores that a stranger made or a disk broke: check names it, repair ends it, and nothing outside is touched."""

import json
import os
import shutil
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from polyteach.__main__ import main
from polyteach.curation.check import faults
from polyteach.store import ImageRow, Index, Store
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import PEOPLE, Space
from polyteach.verbs.store.drop_labels import drop_labels
from polyteach.verbs.store.repair import repair
from polyteach.verbs.store.split import split
from tests.classes import picture

IMAGES, SET = "images/part-00000.parquet", "labels/classification/people"
LABELS, REJECTS = f"{SET}/part-00000.parquet", "rejects/part-00000.parquet"
ROWS = 70


def made(path):
    """Two parts of 70 images, with people's classes and a reject."""
    store = Store.create(path, ROWS)
    for part in (0, 1):
        ids = [f"{part}-{i}" for i in range(ROWS)]
        store.write_images(part, [ImageRow(i, 8, 8, b"x") for i in ids])
        labels = store.create_set("classification", PEOPLE, Space(("a", "b")), {"teacher": PEOPLE})
        labels.write(part, ids, [ClassificationTarget(torch.eye(2)[0])] * ROWS)
    store.write_rejects(0, [("r", None, "why")])
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made(tmp_path_factory.mktemp("whole") / "store")


@pytest.fixture
def path(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "store"))


def rewritten(file, change, group=64):
    table = pq.read_table(file)
    pq.write_table(change(table), file, row_group_size=group)


def column(name, values, kind=None):
    """The table with other values in a column."""

    def change(table):
        at = table.schema.get_field_index(name)
        return table.set_column(at, name, pa.array(values(table[name].to_pylist()), kind))

    return change


def described(file, **more):
    file.write_text(json.dumps({k: v for k, v in (json.loads(file.read_text()) | more).items() if v != "MISSING"}))


def calibrated(folder, **more):
    twice = {"before": 1.0, "after": 0.5}
    about = {"temperature": 2.0, "shift": 0.0, "people": [], "images": 9, "answers": 9, "nll": twice, "ece": twice}
    (folder / "calibration.json").write_text(json.dumps(about | more))


def lying(file):
    """The footer says one row more than there are: `num_rows` is a varint that stands before the row groups."""
    data = file.read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - size : -8]
    was, now = bytes([0x16, *varint(2 * ROWS)]), bytes([0x16, *varint(2 * (ROWS + 1))])
    assert was in footer
    file.write_bytes(data[: -8 - size] + footer.replace(was, now, 1) + data[-8:])


def varint(n):
    out = []
    while n > 127:
        out.append(n % 128 + 128)
        n //= 128
    return [*out, n]


CASES = {
    "null id": (lambda p: rewritten(p / IMAGES, column("id", lambda v: [None, *v[1:]])), IMAGES, "no id", 69),
    "text height": (
        lambda p: rewritten(p / IMAGES, column("height", lambda v: ["tall", *map(str, v[1:])])),
        IMAGES, "column 'height' is string, not int32", 69,
    ),
    "null height": (
        lambda p: rewritten(p / IMAGES, column("height", lambda v: [None, *v[1:]], pa.int32())), IMAGES, "no height", 69
    ),
    "neither bytes nor uri": (
        lambda p: rewritten(p / IMAGES, column("bytes", lambda v: [None, *v[1:]], pa.binary())), IMAGES, "neither", 69
    ),
    "no split column": (lambda p: rewritten(p / IMAGES, lambda t: t.drop(["split"])), IMAGES, "no column 'split'", 70),
    "no id column": (lambda p: rewritten(p / IMAGES, lambda t: t.drop(["id"])), IMAGES, "no column 'id'", 0),
    "other row groups": (lambda p: rewritten(p / IMAGES, lambda t: t, 1000), IMAGES, "and lie in groups of 70", 70),
    "num_rows that lies": (lambda p: lying(p / IMAGES), IMAGES, "71 rows, and its row groups have 70", 70),
    "an empty file": (lambda p: (p / IMAGES).write_bytes(b""), IMAGES, "is broken", 0),
    "more than a part": (lambda p: described(p / "store.json", part_size=64), IMAGES, "has 70 rows; a part", 64),
    "a part twice": (
        lambda p: shutil.copy(p / IMAGES, p / "images/part-00002.parquet"),
        "images/part-00002.parquet", "id '0-0' is in part 0 too", 70,
    ),
    "labels of other row groups": (lambda p: rewritten(p / LABELS, lambda t: t, 10), LABELS, "in groups of 10, 10", 70),
    "labels of a wrong type": (
        lambda p: rewritten(p / LABELS, column("probability", lambda v: ["x"] * ROWS)), LABELS, "is string", 70
    ),
    "labels without a column": (
        lambda p: rewritten(p / LABELS, lambda t: t.drop(["probability"])), LABELS, "no column", 70
    ),
    "labels without a state": (
        lambda p: rewritten(p / LABELS, column("state", lambda v: [None, *v[1:]])), LABELS, "state None is none of", 70
    ),
    "labels that are too few": (lambda p: rewritten(p / LABELS, lambda t: t.slice(0, 3)), LABELS, "has 3 rows", 70),
    "labels of no images": (
        lambda p: shutil.copy(p / LABELS, p / SET / "part-00009.parquet"),
        f"{SET}/part-00009.parquet", "there are no images", 70,
    ),
    "rejects that are broken": (lambda p: (p / REJECTS).write_bytes(b"junk"), REJECTS, "is broken", 70),
    "rejects without reasons": (
        lambda p: rewritten(p / REJECTS, lambda t: t.drop(["reason"])), REJECTS, "no column 'reason'", 70
    ),
    "part-7": (
        lambda p: shutil.copy(p / IMAGES, p / "images/part-7.parquet"), "images/part-7.parquet", "is no part", 70
    ),
    "part-x": (lambda p: (p / SET / "part-x.parquet").touch(), f"{SET}/part-x.parquet", "is no part", 70),
    "a huge part": (
        lambda p: shutil.copy(p / LABELS, p / SET / "part-99999999999.parquet"),
        f"{SET}/part-99999999999.parquet", "is no part", 70,
    ),
    "a pipe": (
        lambda p: os.mkfifo(p / "images/part-00002.parquet"), "images/part-00002.parquet", "regular files", 70
    ),
    "a link to itself": (
        lambda p: (p / "images/part-00002.parquet").symlink_to("part-00002.parquet"),
        "images/part-00002.parquet", "regular files", 70,
    ),
    "rejects that are a file": (
        lambda p: (shutil.rmtree(p / "rejects"), (p / "rejects").touch()), "rejects", "is no folder", 70
    ),
    "set.json: a list": (lambda p: (p / SET / "set.json").write_text("[]"), f"{SET}/set.json", "an object", 70),
    "set.json: deep": (
        lambda p: (p / SET / "set.json").write_text("[" * 10**5), f"{SET}/set.json", "nested too deeply", 70
    ),
    "set.json: a pipe": (
        lambda p: ((p / SET / "set.json").unlink(), os.mkfifo(p / SET / "set.json")),
        f"{SET}/set.json", "not a regular file", 70,
    ),
    "set.json: gone": (lambda p: (p / SET / "set.json").unlink(), f"{SET}/set.json", "No such file", 70),
    "an unfit name": (
        lambda p: shutil.copytree(p / SET, p / "labels/classification/a b"),
        "labels/classification/a b/set.json", "label set name 'a b': use letters", 70,
    ),
    "ingest.json: a list": (lambda p: (p / "ingest.json").write_text("[3]"), "ingest.json", "must be an object", 70),
    "ingest.json: a source": (
        lambda p: (p / "ingest.json").write_text('{"source": 3}'), "ingest.json", "source must be text or null", 70
    ),
    "merge.json": (lambda p: (p / "merge.json").write_text('{"stores": 3}'), "merge.json", "stores must be", 70),
    "label.json": (
        lambda p: (p / SET / "label.json").write_text('{"compute": [1]}'), f"{SET}/label.json", "compute must be", 70
    ),
    "calibration.json: a list": (
        lambda p: (p / SET / "calibration.json").write_text("[1]"), f"{SET}/calibration.json", "must be an object", 70
    ),
    "calibration.json: not finite": (
        lambda p: (p / SET / "calibration.json").write_text('{"temperature": 1e999}'),
        f"{SET}/calibration.json", "temperature must be finite", 70,
    ),
    "calibration.json: a shift": (
        lambda p: calibrated(p / SET, shift=1), f"{SET}/calibration.json",
        "temperature alone of classification can be calibrated", 70,
    ),
}  # fmt: skip
for key, value, why in (
    ("info", None, "info must be an object; it is None"),
    ("info", {"teacher": [3]}, "info.teacher must be an object"),
    ("info", {"teacher": {"spec": 3}}, "info.teacher.spec must be text"),
    ("info", {"teacher": {"learning_rate": "high"}}, "info.teacher.learning_rate must be a number"),
    ("info", {"images": "x"}, "info.images must be an object"),
    ("info", {"split": "train"}, "info.split must be a list of texts"),
    ("info", {"views": [1]}, "info.views must be an object"),
    ("info", {"views": {"flip": 1}}, "info.views.flip must be true or false"),
    ("space", "MISSING", "space is missing"),
    ("space", {"names": "ab", "kind": ""}, "space.names must be a list of texts"),
    ("space", {"names": ["a", None], "kind": ""}, "space.names[1] must be text"),
    ("space", {"names": [], "kind": 3}, "space.kind must be text"),
    ("columns", 3, "columns must be an object"),
    ("columns", {}, "columns must be those of this polyteach"),
    ("task", "depth", "task must be 'classification', as the folder is called"),
    ("name", "../../escaped", "name must be 'people', as the folder is called"),
):
    CASES[f"set.json: {why}"] = (
        lambda p, key=key, value=value: described(p / SET / "set.json", **{key: value}), f"{SET}/set.json", why, 70
    )  # fmt: skip


def test_repair_takes_pictures_that_do_not_decode_out_of_a_part_that_could_not_be_read(tmp_path):
    """Another type of a column hides what is wrong with the rows."""
    store = Store.create(tmp_path / "store", ROWS)
    pictures = [picture(0), b"no picture", picture(1)]
    store.write_images(0, [ImageRow(str(i), 12, 10, data) for i, data in enumerate(pictures)])
    rewritten(tmp_path / "store" / IMAGES, column("licence", lambda v: [None] * len(v), pa.int64()))
    store = Store.open(tmp_path / "store")
    assert len(list(faults(store, deep=True))) == 1
    repair(tmp_path / "store", deep=True, progress=False)
    assert [row.id for row in store.images(0)] == ["0", "2"]
    assert list(faults(store, deep=True)) == []


@pytest.mark.parametrize("name", CASES)
def test_check_names_what_is_wrong_and_repair_ends_it(path, capsys, name):
    broken, file, said, images = CASES[name]
    broken(path)
    kept = {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("part-00001.parquet")}
    found = list(faults(Store.open(path)))
    assert found[0].file == file
    assert said in found[0].reason
    assert file not in found[0].reason
    assert main(["store", "check", str(path), "--no-progress"]) == 2
    repair(path, progress=False)
    assert main(["store", "check", str(path), "--no-progress"]) == 0
    assert f"{path} is whole" in capsys.readouterr().out
    store = Store.open(path)
    assert store.parts() == ([0, 1] if images else [1])
    assert len(store.images(0) if images else ()) == images
    store.rejects()
    for labels in store.sets():
        for part in labels.parts():
            assert labels.ids(part) == store.ids(part)
    if "more than" not in name:  # what was right is as it was, where it is or in broken/
        assert {f: (path / f).read_bytes() for f in kept if (path / f).exists()}.items() <= kept.items()
    if images == 69:
        assert len([a for a in store.sets()[0].read(0) if isinstance(a, ClassificationTarget)]) == 69
    if file == f"{SET}/set.json":
        assert (path / "broken" / SET / "part-00000.parquet").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "the file must be an object"),
        ("{}", "says format None"),
        ('{"format": 1}', "part_size is missing"),
        ('{"format": 1, "part_size": "4"}', "part_size must be a whole number; it is '4'"),
        ('{"format": 1, "part_size": 0}', "part_size must be 1 to 262,144; it is 0"),
        ('{"format": 1, "part_size": -3}', "part_size must be 1 to 262,144; it is -3"),
        ('{"format": 1, "part_size": 100000000000000000000000}', "part_size must be 1 to 262,144"),
        ('{"format": 1, "part_size": 4, "split": []}', "split must be an object"),
        ('{"format": 1, "part_size": 4, "split": {"finished": false}}', "split.fractions is missing"),
        ('{"format": 1, "part_size": 4, "split": {"finished": false, "fractions": {"a": "b"}}}', "fractions.a"),
        ("[" * 10**5, "nested too deeply"),
    ],
)  # fmt: skip
def test_a_broken_store_json_is_a_sentence_in_every_verb(path, capsys, text, said):
    (path / "store.json").write_text(text)
    before = snapshot(path)
    for words in (
        ["store", "check"], ["store", "repair"], ["store", "info"], ["store", "drop-labels", "x"],
        ["store", "split", "--fractions", "a=1"], ["label", "--teacher", "a=python:x.py:f"], ["train", "--out", "run"],
    ):  # fmt: skip
        verb, rest = (words[:2], words[2:]) if words[0] == "store" else (words[:1], words[1:])
        assert main([*verb, str(path), *rest]) == 2, words
        error = capsys.readouterr().err
        assert "store.json" in error
        assert said in error
    assert snapshot(path) == before


# ---- links ----


def snapshot(folder):
    """Every file below: its bytes, or where it leads."""
    return {
        str(f.relative_to(folder)): os.readlink(f) if f.is_symlink() else f.read_bytes() if f.is_file() else None
        for f in sorted(folder.rglob("*"))
    }


@pytest.fixture
def linked(path, tmp_path):
    """Moves a folder of the store elsewhere, with a file of somebody else's, and leaves a link."""

    def move(name):
        outside = tmp_path / "outside" / "taken"
        outside.parent.mkdir()
        if (path / name).exists():
            (path / name).rename(outside)
        else:
            outside.mkdir()
        (outside / "somebody's.txt").write_text("precious")
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).symlink_to(outside)
        return outside.parent

    return move


@pytest.mark.parametrize("name", ["labels", "labels/classification", SET])
def test_labels_are_dropped_through_no_link(path, linked, name):
    outside = linked(name)
    before, inside = snapshot(outside), snapshot(path)
    with pytest.raises(ValueError, match=r"is a link to another place: nothing is written or removed.*rm "):
        drop_labels(path, [PEOPLE], yes=True)
    assert snapshot(outside) == before
    assert snapshot(path) == inside
    assert Store.open(path).sets()[0].states(0)  # reading goes on


def test_a_link_within_a_label_set_goes_alone(path, linked):
    outside = linked(f"{SET}/more")
    before = snapshot(outside)
    drop_labels(path, [PEOPLE], yes=True)
    assert snapshot(outside) == before
    assert Store.open(path).sets() == []


@pytest.mark.parametrize("name", ["broken", "broken/images", "images", "labels", "labels/classification", SET])
def test_repair_writes_through_no_link_and_does_nothing_then(path, linked, name):
    (path / IMAGES).write_bytes(b"junk")
    outside = linked(name)
    before, inside = snapshot(outside), snapshot(path)
    with pytest.raises(ValueError, match="is a link to another place"):
        repair(path, progress=False)
    assert snapshot(outside) == before
    assert snapshot(path) == inside


@pytest.mark.parametrize("name", ["images", "rejects", "labels", "labels/classification", SET])
def test_nothing_is_written_through_a_link(path, linked, name):
    outside = linked(name)
    leftover = outside / "taken" / f".x.{os.uname().nodename.replace('.', '-')}.999999999.abcdefgh.tmp"
    leftover.touch()  # as of a process that was killed; swept up in a folder that is ours
    before = snapshot(outside)
    store = Store.open(path)
    for write in (
        lambda: store.write_images(0, store.images(0)),
        lambda: store.write_rejects(0, [("r", None, "why")]),
        lambda: store.write_rejects(0, []),
        lambda: store.create_set("classification", PEOPLE, Space(("a", "b")), {"teacher": PEOPLE}),
        lambda: store.create_set("classification", "new", Space(("a",)), {}),
        lambda: store.sets()[0].write(0, store.ids(0), [None] * ROWS),
        lambda: split(path, fractions={"train": 0.5, "val": 0.5}, progress=False),
    ):
        try:
            write()
        except (ValueError, OSError):
            continue
    store.splits().save()
    overviews = [(store.splits(), store.parts())] + [(s.every_state(), s.parts()) for s in store.sets()]
    for overview, parts in overviews:
        for part in parts:
            overview.values(part)
        overview.save()
    assert snapshot(outside) == before


def test_a_link_in_a_files_place_is_replaced_and_not_written_through(path, tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes((path / IMAGES).read_bytes())
    (path / IMAGES).unlink()
    (path / IMAGES).symlink_to(precious)
    for name in (Index.NAME, "part-7.parquet"):
        (path / "images" / name).symlink_to(precious)
    before = precious.read_bytes()
    store = Store.open(path)
    store.write_images(0, store.images(0)[:9])
    overview = store.splits()
    overview.values(0)
    overview.save()
    repair(path, progress=False)
    assert precious.read_bytes() == before
    assert not (path / IMAGES).is_symlink()


def test_a_store_that_is_a_link_itself_is_as_any_other(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    (path / IMAGES).write_bytes(b"junk")
    repair(tmp_path / "link", progress=False)
    assert list(faults(Store.open(path))) == []
    drop_labels(tmp_path / "link", [PEOPLE], yes=True)
    assert not Store.open(path).sets()


def test_what_a_hostile_overview_says_is_not_believed(path):
    from polyteach.store.index import digest, write_part

    store = Store.open(path)
    overview = store.splits()
    overview.values(0)
    overview.save()
    file = path / "images" / Index.NAME
    good = pq.read_table(file).replace_schema_metadata(None)
    for change in (
        {"lengths": [[-5]]}, {"lengths": [[]]}, {"lengths": [None]}, {"lengths": [[None]]}, {"values": [None]},
    ):  # fmt: skip
        odd = pa.table({k: change.get(k, good[k].to_pylist()) for k in good.column_names}, schema=Index.SCHEMA)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of what is null as a number
            try:
                digest = digest(odd)
            except (TypeError, ValueError):
                continue  # nobody can seal it
        write_part(file, odd.replace_schema_metadata({"sha256": digest}))
        assert store.splits().among(0, (None,)).tolist() == [True] * ROWS


def test_a_hidden_folder_of_labels_is_nobodys(path):
    before = [labels.task for labels in Store.open(path).sets()]
    (path / "labels/.x/y").mkdir(parents=True)
    (path / "labels/.x/y/set.json").write_text("{}")
    store = Store.open(path)
    assert list(faults(store)) == []
    assert [labels.task for labels in store.sets()] == before != []
