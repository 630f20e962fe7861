"""WebDataset shards: grouping by webdataset's own rule, classes, names, splits, and broken archives."""

import io
import itertools
import json
import os
import subprocess
import tarfile
import tempfile
import tracemalloc
import unicodedata
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polyteach.datasets import load_dataset, webdataset
from polyteach.store import Store
from polyteach.verbs.ingest import ingest
from tests.classes import picture, seen, stored

GREY = iter(itertools.cycle(range(256)))


def shard(file, *members, format=tarfile.GNU_FORMAT):
    """A tar of (name, content), in that order; pictures of different greys where the content is None."""
    file.parent.mkdir(parents=True, exist_ok=True)
    contents = [picture(next(GREY)) if data is None else data for _, data in members]
    with tarfile.open(file, "w", format=format) as t:
        for (name, _), data in zip(members, contents, strict=True):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            t.addfile(about, io.BytesIO(data))
    return contents


def samples(*pairs, ending="png"):
    """Members of samples of a picture and a class each."""
    return [m for key, label in pairs for m in ((f"{key}.{ending}", None), (f"{key}.cls", str(label).encode()))]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_shards_in_folders_of_splits(tmp_path, format):
    root = tmp_path / "in"
    long = "d" * 90 + "/" + "ü" * 40
    one = shard(root / "train/000000.tar", *samples(("a/1", 2), (long, 0)), format=format)
    two = shard(root / "train/000001.tar", *samples(("./a/1", "1\n"), ending="PNG"), format=format)
    three = shard(root / "val/000000.tar", *samples(("x", 3)), ("y.png", None), format=format)
    expected = {
        "train/000000/a/1.png": ("train", "2"),
        f"train/000000/{long}.png": ("train", "0"),
        "train/000001/a/1.PNG": ("train", "1"),
        "val/000000/x.png": ("val", "3"),
        "val/000000/y.png": ("val", None),
    }
    assert stored(f"webdataset:{root}", tmp_path / "store", part_size=2) == (expected, {})
    store = Store.open(tmp_path / "store")
    rows = [row for part in store.parts() for row in store.images(part)]
    assert [row.id for row in rows] == list(expected)
    assert [store.read(row) for row in rows] == [one[0], one[2], two[0], three[0], three[2]]
    assert store.sets()[0].space.names == ("0", "1", "2", "3")


def test_shards_with_the_split_in_their_name(tmp_path):
    for name in ("imagenet1k-train-0000", "imagenet1k-train-0001", "imagenet1k-validation-00", "more"):
        shard(tmp_path / f"{name}.tar", *samples(("x", 0)))
    (tmp_path / "classnames.txt").write_text("cat\n")
    (tmp_path / "nshards.txt").write_text("4\n")
    found, _ = seen(f"webdataset:{tmp_path}")
    assert list(found.values()) == [("train", "cat"), ("train", "cat"), ("validation", "cat"), (None, "cat")]
    assert seen(f"webdataset:{tmp_path}/imagenet1k-{{train-0001,validation-00}}.tar")[0] == {
        "imagenet1k-train-0001/x.png": ("train", "cat"),
        "imagenet1k-validation-00/x.png": ("validation", "cat"),
    }
    assert seen(f"webdataset:{tmp_path / 'more.tar'}")[0] == {"more/x.png": (None, "cat")}
    with pytest.raises(ValueError, match=r"train-0002.tar is missing \(1 of the 3 shards that"):
        load_dataset(f"webdataset:{tmp_path}/imagenet1k-train-{{0000..0002}}.tar")


@pytest.mark.parametrize(
    "pattern",
    [
        "a{000000..000012}.tar",
        "{8..11}",
        "{11..8}",
        "{08..11}",
        "{a,b}-{0..2}",
        "{x,}y",
        "{0,{1,2}}",
        "{a,b{1..3}}",
        "p",
    ],
)
def test_braces_as_bash_expands_them(pattern):
    shell = subprocess.run(["bash", "-c", f"echo {pattern}"], capture_output=True, text=True, check=True)
    assert sorted(set(webdataset._expand(pattern))) == sorted(set(shell.stdout.split()))


def test_braces_of_no_kind():
    with pytest.raises(ValueError, match=r"a\{b\}.tar: \{b\} is neither \{first..last\} nor \{a,b\}"):
        webdataset._expand("a{b}.tar")


NAMES = st.text("aB._/", min_size=1, max_size=8).filter(lambda s: not s.startswith("/") and not s.endswith("/"))


@given(st.lists(NAMES, max_size=12))
@example(["BB.", "./BB."])
def test_grouping_is_webdatasets_own(names):
    reference = pytest.importorskip("webdataset.tariterators")
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as t:
        for name in names:
            t.addfile(tarfile.TarInfo(name))
    file.seek(0)
    members = ({**m, "__url__": "x"} for m in reference.tar_file_iterator(file))
    try:
        # a part of every sample that is twice there stops it; ours becomes a problem
        expected = [
            (s.pop("__key__").removeprefix("./"), [k for k in s if not k.startswith("__url")])
            for s in reference.group_by_keys(members)
        ]
    except ValueError as e:
        if "duplicate file name" not in str(e):
            raise
        expected = None
    with tempfile.NamedTemporaryFile(suffix=".tar") as f:
        f.write(file.getvalue())
        f.flush()
        found = [(key, [p.extension for p in parts]) for key, parts in webdataset._samples(f.name, "cls", Counter())]
    if expected is None:
        assert any(len(set(extensions)) < len(extensions) for _, extensions in found)
    else:
        assert found == expected


def test_several_parts_and_odd_members(tmp_path):
    shard(
        tmp_path / "x.tar",
        *(("__meta__", b"x"), ("__folder__/a.png", b"x"), ("README", b"x"), (".hidden.png", b"x")),
        *(("1.jpg.png", None), ("1.txt", b"a caption")),  # the extension is jpg.png
        *(("2.json", b"{}"), ("2.seg.png", None), ("2.png", None), ("2.cls", b" 1\n")),
        *(("3.png", None), ("3.jpg", None), ("3.cls", b"0")),
        *(("4.png", None), ("4.cls", b"0"), ("4.CLS", b"1")),
        *(("5.png", None), ("6.png", None), ("5.cls", b"0")),  # apart, so no sample
        *(("7.png", None), ("7.cls", b"cat")),
        *(("8.png", None), ("8.cls", b"-1")),
    )
    dataset = load_dataset(f"webdataset:{tmp_path}")
    assert dataset.left_out == {"no part of a sample": 4, ".txt": 1, ".json": 1, ".jpg.png": 1, ".seg.png": 1}
    assert dataset.spaces["classification"].names == ("0", "1")
    found, problems = stored(f"webdataset:{tmp_path}", tmp_path / "store", skip_bad=True)
    assert found == {"x/2.png": (None, "1"), "x/5.png": (None, None), "x/6.png": (None, None)}
    where = f"{tmp_path}/x.tar: "
    assert problems == {
        "x/3.png": f"{where}3: has several parts of a kind: 3.png, 3.jpg",
        "x/4.png": f"{where}4: has several parts of a kind: 4.cls, 4.CLS",
        "x/5.cls": f"{where}5: has .cls and no image",
        "x/7.png": f"{where}7.cls: b'cat' is no class index",
        "x/8.png": f"{where}8.cls: b'-1' is no class index",
    }
    with pytest.raises(ValueError, match="several parts of a kind"):
        ingest(f"webdataset:{tmp_path}", str(tmp_path / "strict"), progress=False)
    assert list(load_dataset(f"webdataset:{tmp_path}?image=seg.png").names) == [
        *("x/2.seg.png", "x/3.cls", "x/4.cls", "x/5.cls", "x/7.cls", "x/8.cls")
    ]
    with pytest.raises(ValueError, match=r"no samples with an image.*\.jpg\.png, .*\?image=EXTENSION chooses one"):
        load_dataset(f"webdataset:{tmp_path}?image=ppm")


def test_unlabelled(tmp_path):
    data = shard(tmp_path / "x.tar", ("1.png", None), ("1.json", b'{"url": "x"}'), ("2.png", None))
    dataset = load_dataset(f"webdataset:{tmp_path}")
    assert dataset.spaces == {}
    assert [(e.data, e.targets) for e in dataset.entries(0, 2)] == [(data[0], None), (data[2], None)]
    with pytest.raises(ValueError, match=r"field 'label' is missing"):
        load_dataset(f"webdataset:{tmp_path}?label=label")
    (tmp_path / "names.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"has no labels, so names=names.txt is of no use"):
        load_dataset(f"webdataset:{tmp_path}?names=names.txt")


def described(*values):
    return [m for i, v in enumerate(values) for m in ((f"{i}.png", None), (f"{i}.json", json.dumps(v).encode()))]


def test_labels_in_json(tmp_path):
    values = [{"y": 2}, {"y": None}, {"y": True}, {"x": 1}, [1], {"y": -1}, {"y": 1.5}]
    shard(tmp_path / "x.tar", *described(*values), ("7.png", None), ("7.json", b"{"), ("7.cls", b"0"))
    found, problems = seen(f"webdataset:{tmp_path}?label=y")
    assert found == {"x/0.png": (None, "2"), "x/1.png": (None, None)}
    assert {n: p.partition(".json: ")[2].partition(":")[0] for n, p in problems.items()} == {
        "x/2.png": "field 'y' is True, neither a class index nor a name",
        "x/3.png": "field 'y' is missing",
        "x/4.png": "field 'y' is missing",
        "x/5.png": "field 'y' is -1, neither a class index nor a name",
        "x/6.png": "field 'y' is 1.5, neither a class index nor a name",
        "x/7.png": "is not valid JSON",
    }
    assert seen(f"webdataset:{tmp_path}") == ({f"x/{i}.png": (None, "0" if i == 7 else None) for i in range(8)}, {})


def test_names_in_json(tmp_path):
    shard(tmp_path / "in" / "x.tar", *described({"y": "dog"}, {"y": "cat"}, {"y": "dog"}))
    found, _ = seen(f"webdataset:{tmp_path / 'in'}?label=y")
    assert [c for _, c in found.values()] == ["dog", "cat", "dog"]
    assert load_dataset(f"webdataset:{tmp_path / 'in'}?label=y").spaces["classification"].names == ("cat", "dog")
    (tmp_path / "names").write_text("\ufeffeel\r\ndog\n\n", encoding="utf-8")
    source = f"webdataset:{tmp_path / 'in' / 'x.tar'}?label=y&names={tmp_path / 'names'}"
    assert load_dataset(source).spaces["classification"].names == ("eel", "dog")
    found, problems = stored(source, tmp_path / "store", skip_bad=True)
    assert found == {"x/0.png": (None, "dog"), "x/2.png": (None, "dog")}
    assert problems == {"x/1.png": f"x/1.png: field 'y': 'cat' is none of the names in {tmp_path / 'names'}"}
    shard(tmp_path / "mixed.tar", *described({"y": "dog"}, {"y": 1}))
    with pytest.raises(ValueError, match=r"field 'y' is a number in some samples and 'dog' in others"):
        load_dataset(f"webdataset:{tmp_path / 'mixed.tar'}?label=y")


def test_names_in_json_are_compared_in_one_form_and_splits_without_a_common_one_are_told(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    shard(tmp_path / "in" / "train.tar", *described({"y": nfc}, {"y": nfd}, {"y": "tea"}))
    shard(tmp_path / "in" / "val.tar", *described({"y": "unknown"}))
    dataset = load_dataset(f"webdataset:{tmp_path / 'in'}?label=y")
    assert dataset.spaces["classification"].names == (nfc, "tea", "unknown")
    said = f"the split val has no class in common with the others: unknown here, {nfc}, tea there"
    assert dataset.notes == [said]


def test_class_names(tmp_path):
    shard(tmp_path / "x.tar", *samples((1, 0), (2, 2)))
    file = tmp_path / "classes.txt"
    file.write_text("a cat\na dog\n")
    found, problems = seen(f"webdataset:{tmp_path}")
    assert found == {"x/1.png": (None, "a cat")}
    assert problems == {"x/2.png": "x/2.png: class index 2 is out of range; there are 2 classes, 0..1"}
    (tmp_path / "classnames.txt").write_text("x\ny\nz\n")
    with pytest.raises(ValueError, match=r"classes.txt and .*classnames.txt both name classes; choose one: \?names="):
        load_dataset(f"webdataset:{tmp_path}")
    assert seen(f"webdataset:{tmp_path}?names=classnames.txt")[0] == {"x/1.png": (None, "x"), "x/2.png": (None, "z")}
    file.write_text("a\n\nb\n")
    for name, error in {"classes.txt": "line 2 is empty; it must name class 1", "gone.txt": "cannot be read"}.items():
        with pytest.raises(ValueError, match=f"{name}.*{error}"):
            load_dataset(f"webdataset:{tmp_path}?names={name}")
    shard(tmp_path / "large" / "x.tar", *samples((1, 10**9)))
    with pytest.raises(ValueError, match="label 1000000000 is no class index"):
        load_dataset(f"webdataset:{tmp_path / 'large'}")


@pytest.mark.parametrize("start", range(8))
@pytest.mark.parametrize("stop", [3, 5, 8, 99])
def test_from_the_middle(tmp_path, start, stop):
    contents = []
    for i, n in enumerate((3, 0, 1, 4)):
        contents += shard(tmp_path / f"{i}.tar", *samples(*((k, k) for k in range(n))))[::2]
    dataset = load_dataset(f"webdataset:{tmp_path}")
    assert len(dataset.names) == 8
    assert [e.data for e in dataset.entries(start, stop)] == contents[start:stop]


def test_a_shard_that_is_cut_anywhere_is_an_error(tmp_path):
    """At every block, the members' boundaries among them, up to the end mark."""
    shard(tmp_path / "whole.tar", *samples((1, 0), (2, 0)))
    whole = (tmp_path / "whole.tar").read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    assert end >= 4 * 1024
    for size in [*range(0, end + 1, 512), 100, end - 3]:
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut.tar .*truncated"):
            load_dataset(f"webdataset:{tmp_path / 'cut.tar'}")
    broken = bytearray(whole)
    broken[1024:1034] = b"x" * 10  # the second header, which tarfile alone would take for the end
    (tmp_path / "cut.tar").write_bytes(broken)
    with pytest.raises(ValueError, match=r"cut.tar .*truncated"):
        load_dataset(f"webdataset:{tmp_path / 'cut.tar'}")


def test_a_shard_that_became_shorter(tmp_path):
    shard(tmp_path / "x.tar", *samples((1, 0), (2, 0)))
    dataset = load_dataset(f"webdataset:{tmp_path}")
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:2100])
    with pytest.raises(ValueError, match=r"x.tar has become shorter: x/2.png is cut"):
        list(dataset.entries(0, 2))


def test_what_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "x.tar.gz", "w:gz"):
        pass
    os.mkfifo(tmp_path / "pipe.tar")  # opening it would wait for ever
    (tmp_path / "renamed.tar").write_bytes((tmp_path / "packed" / "x.tar.gz").read_bytes())
    for name, error in {
        "gone": "gone does not exist; expected a folder of .tar shards, one, or a pattern",
        "empty": "empty has no .tar files; expected shards such as train-000000.tar",
        "packed": r"packed has no .tar files; unpack .*x.tar.gz and its like to plain .tar",
        "renamed.tar": "renamed.tar cannot be read, is truncated, or no plain tar archive",
        "pipe.tar": "pipe.tar cannot be read, .*: it is no regular file",
        "empty?field=x": "'field=x' .* is no option of this format; there are: label=..., names=..., image=...",
    }.items():
        with pytest.raises(ValueError, match=error):
            load_dataset(f"webdataset:{tmp_path / name}")


def test_what_is_too_large_costs_only_itself(tmp_path, monkeypatch):
    """Holes on the disk: members of 8 TB, and labels of 1 MiB and more."""
    good = shard(tmp_path / "x.tar", *samples((1, 0)))[0]
    whole = (tmp_path / "x.tar").read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    with open(tmp_path / "x.tar", "r+b") as file:
        file.seek(end)
        for name, size in (("huge.png", 8 * 10**12), ("2.png", len(good)), ("2.cls", 2**20 + 1), ("3.png", len(good))):
            about = tarfile.TarInfo(name)
            about.size = size
            file.write(about.tobuf(tarfile.GNU_FORMAT))
            at = file.tell()
            if name.endswith(".png"):
                file.write(good)
            file.seek(at + -(-size // 512) * 512)
        file.truncate(file.tell() + 1024)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"x/huge.png: 8,000,000,000,000 bytes, where an image's file has at most"):
            ingest(f"webdataset:{tmp_path}", tmp_path / "strict", progress=False)
        store = ingest(f"webdataset:{tmp_path}", tmp_path / "store", skip_bad=True, progress=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**26
    assert [r.id for r in store.images(0)] == ["x/1.png", "x/3.png"]
    assert {id: why.partition(": ")[2] for id, _, why in store.rejects()} == {
        "x/huge.png": "8,000,000,000,000 bytes, where an image's file has at most 400,000,000",
        "x/2.png": "2.cls: has more than 1,048,576 bytes",
    }


def test_a_shard_whose_heads_are_broken_is_refused(tmp_path):
    head = tarfile.TarInfo("x")
    head.type, head.size = tarfile.XHDTYPE, 8 * 2**30
    (tmp_path / "x.tar").write_bytes(head.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(ValueError, match=r"x.tar cannot be read, .*: a head of 8,589,935,104 bytes"):
        load_dataset(f"webdataset:{tmp_path}")
