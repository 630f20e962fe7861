"""Classes in Parquet: Hugging Face's files, columns of numbers and of names, splits by file name.

What Parquet does for pictures without labels is in test_ingest.py.
"""

import json
import os
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyteach.datasets import load_dataset
from polyteach.store import Store
from polyteach.verbs.ingest import ingest
from tests.classes import picture, seen, stored

IMAGE = {"_type": "Image"}


def feature(*names):
    return {"names": list(names), "_type": "ClassLabel"}


def write(file, columns, features=None, group=2):
    """A file with a picture column, as `Dataset.to_parquet` writes it where `features` are given."""
    rows = len(next(iter(columns.values())))
    image = [{"bytes": picture(i), "path": f"{file.stem}_{i}.png"} for i in range(rows)]
    table = pa.table({"image": image, **columns})
    if features is not None:
        about = {"info": {"features": {"image": IMAGE, **features}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=group)


def test_a_hugging_face_repository(tmp_path):
    root = tmp_path / "in"
    about = {"label": feature("tench", "eel", "crane", "crane")}
    write(root / "data/train-00000-of-00002.parquet", {"label": [1, 0, 3]}, about)
    write(root / "data/train-00001-of-00002.parquet", {"label": [2]}, about)
    write(root / "data/validation-00000-of-00001.parquet", {"label": [0]}, about)
    write(root / "data/test-00000-of-00001-0123456789abcdef.parquet", {"label": [-1, -1]}, about)
    (root / ".cache").mkdir()
    (root / ".cache" / "x.parquet").write_bytes(b"not for us")
    (root / "README.md").write_text("x")
    expected = {
        "test-00000-of-00001-0123456789abcdef_0.png": ("test", None),
        "test-00000-of-00001-0123456789abcdef_1.png": ("test", None),
        "train-00000-of-00002_0.png": ("train", "eel"),
        "train-00000-of-00002_1.png": ("train", "tench"),
        "train-00000-of-00002_2.png": ("train", "crane"),
        "train-00001-of-00002_0.png": ("train", "crane"),
        "validation-00000-of-00001_0.png": ("validation", "tench"),
    }
    assert stored(f"parquet:{root}", tmp_path / "store", part_size=3) == (expected, {})
    labels = Store.open(tmp_path / "store").sets()[0]
    assert labels.space.names == ("tench", "eel", "crane", "crane")
    answers = [a for part in labels.parts() for a in labels.read(part)]
    assert [None if a is None else int(a.probability.argmax()) for a in answers] == [None, None, 1, 0, 3, 2, 0]
    # one file of it is a dataset too
    found, _ = seen(f"{root / 'data/validation-00000-of-00001.parquet'}")
    assert found == {"validation-00000-of-00001_0.png": ("validation", "tench")}


def test_the_converted_branch(tmp_path):
    for split in ("train", "partial-test"):
        write(tmp_path / "default" / split / "0000.parquet", {"label": [0]}, {"label": feature("a")})
    # the same names in both, as Hugging Face's often are
    found, _ = stored(f"parquet:{tmp_path}", tmp_path / "store")
    assert found == {"0000_0.png": ("test", "a"), "0000_0.png#2": ("train", "a")}


def test_numbers_without_names(tmp_path):
    write(tmp_path / "train.parquet", {"label": pa.array([2, 0, None, -1], pa.int8())})
    write(tmp_path / "val.parquet", {"label": pa.array([1, 4, 0], pa.int8())})
    found, problems = seen(f"parquet:{tmp_path}")
    assert list(found.values()) == [
        *[("train", "2"), ("train", "0"), ("train", None), ("train", None)],
        *[("val", "1"), ("val", "4"), ("val", "0")],
    ]
    assert problems == {}
    assert load_dataset(f"parquet:{tmp_path}").spaces["classification"].names == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int16(), pa.string())])
def test_names(tmp_path, kind):
    for file, values in {"a": ["dog", "Cat"], "b": [None, "eel", "dog"]}.items():
        write(tmp_path / f"{file}.parquet", {"label": pa.array(values, kind)})
    found, problems = seen(f"parquet:{tmp_path}")
    assert [c for _, c in found.values()] == ["dog", "Cat", None, "eel", "dog"]
    assert problems == {}
    assert load_dataset(f"parquet:{tmp_path}").spaces["classification"].names == ("Cat", "dog", "eel")


def test_names_are_compared_in_one_form_and_splits_without_a_common_one_are_told(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write(tmp_path / "train.parquet", {"label": [nfc, nfd, "tea"]})
    write(tmp_path / "test.parquet", {"label": ["unknown", None]})
    dataset = load_dataset(f"parquet:{tmp_path}")
    assert dataset.spaces["classification"].names == (nfc, "tea", "unknown")
    said = f"the split test has no class in common with the others: unknown here, {nfc}, tea there"
    assert dataset.notes == [said]


def test_a_column_split_wins_over_the_files_name(tmp_path):
    write(tmp_path / "train.parquet", {"label": [0, 0], "split": ["val", None]})
    assert [s for s, _ in seen(f"{tmp_path / 'train.parquet'}")[0].values()] == ["val", None]


def test_choice_of_column(tmp_path):
    about = {"fine": feature("a", "b"), "coarse": feature("c")}
    write(tmp_path / "x.parquet", {"fine": [1], "coarse": [0], "size": [7]}, about)
    file = f"parquet:{tmp_path / 'x.parquet'}"
    with pytest.raises(ValueError, match=r"several columns of classes; choose one: .*\?label=fine or .*\?label=none"):
        load_dataset(file)
    for column, name in {"fine": "b", "coarse": "c", "size": "7", "none": None}.items():
        assert seen(f"{file}?label={column}&image=image")[0] == {"x_0.png": (None, name)}
    assert load_dataset(f"{file}?label=none").spaces == {}
    with pytest.raises(ValueError, match="has no column 'gone'; it has image, fine, coarse, size"):
        load_dataset(f"{file}?label=gone")
    write(tmp_path / "one.parquet", {"kind": [1], "size": [7]}, {"kind": feature("a", "b")})
    assert seen(f"{tmp_path / 'one.parquet'}")[0] == {"one_0.png": (None, "b")}
    write(tmp_path / "label.parquet", {"label": [0], "other": [1]}, {"label": feature("a"), "other": feature("b", "c")})
    assert seen(f"{tmp_path / 'label.parquet'}")[0] == {"label_0.png": (None, "a")}


def test_no_labels_at_all(tmp_path):
    for values in (pa.array([-1, -1]), pa.nulls(2)):
        write(tmp_path / "x.parquet", {"label": values})
        assert load_dataset(f"{tmp_path / 'x.parquet'}").spaces == {}
        assert [c for _, c in seen(f"{tmp_path / 'x.parquet'}")[0].values()] == [None, None]
    write(tmp_path / "x.parquet", {"label": pa.array([-1])}, {"label": feature("a")})
    assert load_dataset(f"{tmp_path / 'x.parquet'}").spaces["classification"].names == ("a",)


def test_a_label_out_of_range_is_a_problem_of_its_picture(tmp_path):
    file = tmp_path / "in" / "x.parquet"
    write(file, {"label": [0, 2, -2]}, {"label": feature("a", "b")})
    with pytest.raises(ValueError, match=r"x_1.png: column 'label': class index 2 is out of range.*--skip-bad"):
        ingest(str(file), str(tmp_path / "strict"), progress=False)
    found, problems = stored(str(file), tmp_path / "store", skip_bad=True)
    assert found == {"x_0.png": (None, "a")}
    where = "column 'label': class index"
    assert problems == {
        "x_1.png": f"x_1.png: {where} 2 is out of range; there are 2 classes, 0..1",
        "x_2.png": f"x_2.png: {where} -2 is out of range; there are 2 classes, 0..1",
    }


@pytest.mark.parametrize("start", range(0, 12, 3))
@pytest.mark.parametrize("stop", [2, 7, 12])
def test_labels_from_the_middle(tmp_path, start, stop):
    values = [3, 1, 0, 2, 4, 1, 1, 0, 3, 2, 2, 4]
    write(tmp_path / "a.parquet", {"label": values[:5]})
    write(tmp_path / "b.parquet", {"label": values[5:]}, group=3)
    entries = list(load_dataset(f"parquet:{tmp_path}").entries(start, stop))
    found = [int(e.targets((12, 10))["classification"].probability.argmax()) for e in entries]
    assert found == values[start:stop]
    assert [e.data for e in entries] == [picture(i) for i in [*range(5), *range(7)][start:stop]]


def test_what_is_refused(tmp_path):
    for name, values, error in (
        ("lists", [[1], [2]], "column 'label' is list<.*>, neither whole numbers nor text.*?label=none"),
        ("floats", [0.5, 1.0], "column 'label' is double, neither"),
        ("bools", [True, False], "column 'label' is bool, neither"),
        ("ids", [2012001], "column 'label': label 2012001 is no class index"),
    ):
        write(tmp_path / f"{name}.parquet", {"label": values})
        with pytest.raises(ValueError, match=f"{name}.parquet: {error}"):
            load_dataset(f"{tmp_path / f'{name}.parquet'}")
        assert load_dataset(f"parquet:{tmp_path / f'{name}.parquet'}?label=none").spaces == {}
    with pytest.raises(ValueError, match=r"'labels=x' .* is no option of this format; there are: image=..., label=..."):
        load_dataset(f"parquet:{tmp_path / 'ids.parquet'}?labels=x")
    write(tmp_path / "two" / "a.parquet", {"label": [0]}, {"label": feature("a")})
    write(tmp_path / "two" / "b.parquet", {"label": [0]}, {"label": feature("b")})
    with pytest.raises(ValueError, match=r"b.parquet: column 'label' has other class names than in .*a.parquet"):
        load_dataset(f"parquet:{tmp_path / 'two'}")
    write(tmp_path / "kinds" / "a.parquet", {"label": [0]})
    write(tmp_path / "kinds" / "b.parquet", {"label": ["a"]})
    with pytest.raises(ValueError, match=r"column 'label' is text in some of .* and numbers in others"):
        load_dataset(f"parquet:{tmp_path / 'kinds'}")
    table = pq.read_table(tmp_path / "ids.parquet").replace_schema_metadata({"huggingface": "{"})
    pq.write_table(table, tmp_path / "metadata.parquet")
    table = pq.read_table(tmp_path / "ids.parquet")
    for name in ("label", table.column_names[0]):
        pq.write_table(table.append_column(name, table.column(name)), tmp_path / "twice.parquet")
        with pytest.raises(ValueError, match=rf"twice.parquet has several columns called '{name}'"):
            load_dataset(f"parquet:{tmp_path / 'twice.parquet'}")
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(ValueError, match=r"pipe.parquet cannot be read, .*: it is no regular file"):
        load_dataset(f"parquet:{tmp_path / 'pipe.parquet'}")
    with pytest.raises(ValueError, match=r"metadata.parquet: the schema's metadata 'huggingface' are broken"):
        load_dataset(f"{tmp_path / 'metadata.parquet'}")
