"""Ingest: every format, every kind of bad input, and stopping anywhere."""

import errno
import gzip
import hashlib
import importlib
import inspect
import io
import json
import lzma
import os
import random
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import polyteach.curation.look
import polyteach.datasets
import polyteach.store.folder
import polyteach.store.label_set
from polyteach.__main__ import main
from polyteach.curation.look import unique
from polyteach.datasets import Dataset, Entry, _archive, formats, load_dataset, locate
from polyteach.ground import images, limits
from polyteach.store import Store
from polyteach.tasks.classification import ClassificationTarget
from polyteach.verbs.ingest import ingest
from tests.worlds import forked

RNG = np.random.default_rng(0)


def test_paths_from_python(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(picture())
    made = ingest(tmp_path / "a", tmp_path / "store", progress=False)
    assert [row.id for row in made.images(0)] == ["x.png"]


def picture(format="PNG", size=(20, 16), colour=None, **options):
    """Bytes of a picture of (width, height) `size`."""
    noise = RNG.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    (Image.new("RGB", size, colour) if colour else Image.fromarray(noise)).save(out, format=format, **options)
    return out.getvalue()


def digest(path):
    """Every file of a store by its content."""
    files = sorted(p for p in Path(path).rglob("*") if p.is_file())
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rows(store):
    return [row for part in store.parts() for row in store.images(part)]


def state(store):
    return json.loads((Path(store) / "ingest.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    """Eleven good pictures, two bad ones and two files that are no pictures, in subfolders."""
    root = tmp_path / "photographs"
    for i in range(11):
        file = root / "abc"[i % 3] / f"{i:02d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture("JPEG", (20 + i, 16)))
    (root / "a" / "zero.png").write_bytes(b"")
    (root / "text.jpg").write_text("I am no picture")
    (root / "notes.txt").write_text("x")
    (root / ".DS_Store").write_bytes(b"x")
    return root


def toy_format(monkeypatch, tmp_path, code):
    """A dataset format `toy`, made by dropping a file beside the others."""
    home = tmp_path / "formats"
    home.mkdir()
    (home / "toy.py").write_text(textwrap.dedent(code))
    monkeypatch.setattr(polyteach.datasets, "__path__", [*polyteach.datasets.__path__, str(home)])
    monkeypatch.delitem(sys.modules, "polyteach.datasets.toy", raising=False)
    # an import also leaves an attribute on the package: both go when the test ends
    monkeypatch.setitem(sys.modules, "polyteach.datasets.toy", None)
    del sys.modules["polyteach.datasets.toy"]


# ---------------------------------------------------------------- formats


def test_folder(folder, tmp_path, capsys):
    store = ingest(str(folder), str(tmp_path / "store"))
    found = rows(store)
    expected = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("[01]?.jpg"))
    assert [r.id for r in found] == expected
    for row in found:
        assert row.data is None  # a local folder is not copied
        assert row.uri == str(folder / row.id)
        assert (row.height, row.width) == (16, 20 + int(row.id[2:4]))
        assert store.picture(row).shape == (3, row.height, row.width)
    assert store.rejects() == [
        ("a/zero.png", str(folder / "a/zero.png"), "empty file (0 bytes)"),
        ("text.jpg", str(folder / "text.jpg"), "not an image, or of an unknown format"),
    ]
    said = capsys.readouterr().err
    assert "11 images" in said
    assert "2 other files were left out: 1 " in said
    assert ".txt" in said
    assert "hidden" in said
    assert "2 rejected" in said
    assert "empty file (0 bytes) (a/zero.png)" in said


def test_the_resolved_configuration_is_in_the_store(folder, tmp_path):
    ingest(str(folder), str(tmp_path / "store"), licence="CC0-1.0", part_size=5, workers=3, progress=False)
    assert state(tmp_path / "store") == {
        "verb": "ingest",
        "polyteach": polyteach.__version__,
        "source": f"pictures:{folder}",
        "embed": False,
        "licence": "CC0-1.0",
        "part_size": 5,
        "max_pixels": 100_000_000,
        "min_side": 8,
        "allow_remote": [],
        "workers": 3,
        "entries": 13,
        "names_sha256": state(tmp_path / "store")["names_sha256"],
        "left_out": {".txt": 1, "hidden": 1},
        "read": [],
        "images": 11,
        "rejects": 2,
        "people": {},
        "notes": {},
        "skip_bad": False,
        "splits": {"none": 11},
        "finished": True,
    }
    assert {r.licence for r in rows(Store.open(tmp_path / "store"))} == {"CC0-1.0"}


def test_embedded_images_need_their_files_no_longer(folder, tmp_path):
    before = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.jpg")}
    store = ingest(str(folder), str(tmp_path / "store"), embed=True, progress=False)
    for file in folder.rglob("*.jpg"):
        file.unlink()
    for row in rows(store):
        assert row.uri is None
        assert store.read(row) == before[row.id]
        assert store.picture(row).shape == (3, row.height, row.width)


def test_folder_follows_links_but_not_in_circles(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_bytes(picture())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    store = ingest(str(tmp_path / "in"), str(tmp_path / "store"), progress=False)
    assert [r.id for r in rows(store)] == ["linked/x.png"]
    assert [(id, why) for id, _, why in store.rejects()] == [("gone.png", "cannot be read: No such file or directory")]
    assert state(tmp_path / "store")["left_out"] == {"links in a circle": 1}


def test_a_subfolder_that_cannot_be_listed_is_a_reject(folder, tmp_path, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("/b"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may list everything, so mode 000 would not do
    store = ingest(str(folder), str(tmp_path / "store"), progress=False)
    assert len(rows(store)) == 7
    assert ("b/", f"{folder}/b/", "folder cannot be listed: Permission denied") in store.rejects()


def test_list(folder, tmp_path):
    file = tmp_path / "list.txt"
    lines = ["# a comment", "", f"{folder}/a/00.jpg", "photographs/b/01.jpg", "  photographs/../photographs/c/02.jpg\r"]
    lines += ["photographs/a/00.jpg", "photographs/missing.jpg", "photographs/a", "photographs/notes.txt"]
    file.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    store = ingest(str(file), str(tmp_path / "store"), progress=False)
    assert [r.id for r in rows(store)] == [
        f"{folder}/a/00.jpg",
        "photographs/b/01.jpg",
        "photographs/c/02.jpg",
        "photographs/a/00.jpg",
    ]
    assert all(Path(r.uri).is_absolute() and store.picture(r).shape[1] == 16 for r in rows(store))
    assert [(id, why) for id, _, why in store.rejects()] == [
        ("photographs/missing.jpg", "cannot be read: No such file or directory"),
        ("photographs/a", "cannot be read: a folder"),
        ("photographs/notes.txt", "not an image, or of an unknown format"),
    ]


def test_list_of_urls(tmp_path):
    import fsspec

    with fsspec.open("memory://ingest/x.png", "wb") as f:
        f.write(picture())
    (tmp_path / "list.txt").write_text("memory://ingest/x.png\nmemory://ingest/y.png\nnosuch://z.png\n")
    store = ingest(str(tmp_path / "list.txt"), str(tmp_path / "store"), progress=False)
    assert [store.picture(r).shape for r in rows(store)] == [(3, 16, 20)]
    assert [id for id, _, _ in store.rejects()] == ["memory://ingest/y.png", "nosuch://z.png"]
    fsspec.filesystem("memory").rm("/ingest", recursive=True)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_tar(tmp_path, ending, capsys):
    data = {f"./d/{i}.png": picture(size=(20 + i, 16)) for i in (3, 1, 2)}
    with tarfile.open(
        tmp_path / f"x{ending}", "w:" + ending.rpartition(".")[2].replace("tgz", "gz").replace("tar", "")
    ) as t:
        for name, content in {**data, "d/broken.jpg": b"no", "d/3.json": b"{}"}.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            t.addfile(about, io.BytesIO(content))
        for name, target, kind in (("l.png", "d/1.png", tarfile.SYMTYPE), ("m.png", "gone.png", tarfile.SYMTYPE)):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, target
            t.addfile(about)
    store = ingest(str(tmp_path / f"x{ending}"), str(tmp_path / "store"), part_size=2)
    assert [r.id for r in rows(store)] == ["d/3.png", "d/1.png", "d/2.png", "l.png"]  # the archive's order
    assert [store.read(r) for r in rows(store)] == [*data.values(), data["./d/1.png"]]
    assert [(id, why) for id, _, why in store.rejects()] == [
        ("d/broken.jpg", "not an image, or of an unknown format"),
        ("m.png", "a link to 'gone.png', which is not in the archive"),
    ]
    assert state(tmp_path / "store")["embed"] is True
    said = capsys.readouterr().err
    assert "1 .json" in said
    assert "bytes are in the store: tar" in said


def test_broken_tar(tmp_path):
    good = tmp_path / "good.tar"
    with tarfile.open(good, "w") as t:
        for i in range(3):
            about = tarfile.TarInfo(f"{i}.png")
            about.size = 5000
            t.addfile(about, io.BytesIO(bytes(5000)))
    for name, data in {"cut.tar": good.read_bytes()[:8000], "no.tar": b"x" * 2000, "zero.tar.gz": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} cannot be read, is broken or no tar archive"):
            ingest(str(tmp_path / name), str(tmp_path / "store"), progress=False)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", ["bytes", "struct"])
def test_parquet(tmp_path, kind):
    data = [picture(size=(20 + i, 16)) for i in range(10)]
    struct = [{"bytes": d, "path": f"p{i}.png"} for i, d in enumerate(data)]
    column = pa.array(data) if kind == "bytes" else pa.array(struct)
    table = pa.table({"label": list(range(10)), "image": column, "split": ["train"] * 8 + ["val"] * 2})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=4)
    store = ingest(str(tmp_path / "x.parquet"), str(tmp_path / "store"), part_size=3, progress=False)
    names = [f"p{i}.png" for i in range(10)] if kind == "struct" else [f"x/{i:08d}" for i in range(10)]
    assert [r.id for r in rows(store)] == names
    assert [store.read(r) for r in rows(store)] == data
    assert [r.split for r in rows(store)] == ["train"] * 8 + ["val"] * 2


@pytest.mark.parametrize("start", range(0, 10, 3))
@pytest.mark.parametrize("stop", [1, 5, 10])
def test_parquet_from_the_middle(tmp_path, start, stop):
    data = [picture() for _ in range(10)]
    (tmp_path / "d").mkdir()
    for i in (0, 1):
        pq.write_table(pa.table({"jpg": data[i * 5 : i * 5 + 5]}), tmp_path / "d" / f"{i}.parquet", row_group_size=2)
    dataset = load_dataset(f"parquet:{tmp_path / 'd'}")
    assert list(dataset.names[4:6]) == ["0/00000004", "1/00000000"]
    assert [e.data for e in dataset.entries(start, stop)] == data[start:stop]


def test_parquet_names_rows_and_choice_of_column(tmp_path):
    data = [picture(), picture()]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": data, "b": data[::-1], "id": [7, 7]}), path)
    with pytest.raises(ValueError, match=r"several columns of bytes; choose one: parquet:.*\?image=a"):
        load_dataset(str(path))
    store = ingest(f"parquet:{path}?image=b", str(tmp_path / "store"), progress=False)
    assert [(r.id, store.read(r)) for r in rows(store)] == [("7", data[1]), ("7#2", data[0])]
    errors = {"image=c": "no column 'c' of bytes; it has a, b", "column=a": "is no option of this format"}
    for option, error in errors.items():
        with pytest.raises(ValueError, match=error):
            load_dataset(f"parquet:{path}?{option}")


def test_parquet_struct_without_bytes_reads_its_path(tmp_path):
    good = picture()
    (tmp_path / "here.png").write_bytes(good)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    found = [{"bytes": None, "path": "here.png"}, {"bytes": None, "path": "gone.png"}, None]
    pq.write_table(pa.table({"image": pa.array(found, kind)}), tmp_path / "x.parquet")
    store = ingest(str(tmp_path / "x.parquet"), str(tmp_path / "store"), progress=False)
    assert [store.read(r) for r in rows(store)] == [good]
    (id1, _, why1), (id2, _, why2) = store.rejects()
    assert (id1, id2, why2) == ("gone.png", "x/00000002", "no bytes in its row")
    assert "its path 'gone.png' cannot be read" in why1


def test_broken_parquet(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "numbers.parquet")
    (tmp_path / "text.parquet").write_text("no")
    (tmp_path / "empty").mkdir()
    for name, error in {
        "numbers.parquet": "no column of bytes or {bytes, path}; its columns: x",
        "text.parquet": "broken or no Parquet file",
        "empty": "has no .parquet files",
        "missing": "cannot be read",
    }.items():
        with pytest.raises(ValueError, match=error):
            load_dataset(f"parquet:{tmp_path / name}")


def test_locate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, format in {"a.txt": "list", "a.TAR": "tar", "a.tar.gz": "tar", "a.parquet": "parquet"}.items():
        assert locate(name) == (format, str(tmp_path / name))
    (tmp_path / "dir.tar").mkdir()
    (tmp_path / "odd:name").mkdir()
    assert locate("dir.tar") == ("pictures", str(tmp_path / "dir.tar"))
    assert locate("odd:name") == ("pictures", str(tmp_path / "odd:name"))
    assert locate("list:a.csv") == ("list", str(tmp_path / "a.csv"))
    assert formats() == sorted(formats())
    assert {"folder", "list", "parquet", "pictures", "tar"} <= set(formats())
    (tmp_path / "a.zip").write_bytes(b"")
    for source, error in {
        "a.zip": "of no format that its name tells",
        "nowhere": "does not exist; give a folder, a file ending in .*FORMAT one of .*folder, .*list, .*parquet, .*tar",
        "flder:x": r"unknown dataset format 'flder'; there are .*, folder, .* Did you mean folder\? Labels of another",
        "/no:where": r"'/no:where' does not exist; give",
        "tar:": "names a format and no path",
    }.items():
        with pytest.raises(ValueError, match=error):
            locate(source)


@pytest.mark.parametrize("source", ["list:gone.txt", "pictures:gone", "gone.tar", "gone.parquet", "gone.txt"])
def test_a_missing_source_is_an_error_and_leaves_nothing(tmp_path, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="gone"):
        ingest(source, "store", progress=False)
    assert not list(tmp_path.iterdir())


def test_no_images_is_an_error_that_says_what_was_found(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"has no images; 1 other files were left out: 1 \.heic"):
        ingest(str(tmp_path / "in"), str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_binary_file_is_no_list(tmp_path):
    (tmp_path / "a.txt").write_bytes(picture())
    with pytest.raises(ValueError, match="is no text file"):
        ingest(str(tmp_path / "a.txt"), str(tmp_path / "store"))


# ---------------------------------------------------------------- bad input


def bad_pictures():
    """Name -> bytes, and for each what is expected: its (height, width), or a part of the reason."""
    noise = RNG.integers(0, 255, (16, 20, 3), dtype=np.uint8)
    rgb, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6
    huge = io.BytesIO()
    Image.new("1", (20000, 20000)).save(huge, format="PNG", compress_level=1)

    def of(p, format="PNG", **options):
        out = io.BytesIO()
        p.save(out, format=format, **options)
        return out.getvalue()

    frames = {"save_all": True, "append_images": [rgb.rotate(90)]}
    good = {
        "palette.png": of(rgb.quantize(8)),
        "transparent.png": of(rgb.quantize(8), transparency=0),
        "grey.jpg": of(rgb.convert("L"), "JPEG"),
        "grey_alpha.png": of(rgb.convert("LA")),
        "sixteen.png": of(Image.fromarray(noise[..., 0].astype(np.uint16) * 257)),
        "one_bit.png": of(rgb.convert("1")),
        "cmyk.jpg": of(rgb.convert("CMYK"), "JPEG"),
        "animated.gif": of(rgb, "GIF", **frames),
        "animated.webp": of(rgb, "WEBP", **frames),
        "mpo.jpg": of(rgb, "MPO"),
        "junk.jpg": of(rgb, "JPEG") + b"junk" * 99,
        "broken_exif.jpg": of(rgb, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
        "wrong_ending.png": of(rgb, "JPEG"),
        "UPPER.JPG": of(rgb, "JPEG"),
        "日本語 ü.jpg": of(rgb, "JPEG"),
    }
    turned = {"turned.jpg": of(rgb, "JPEG", exif=exif), "turned.tif": of(rgb, "TIFF", exif=exif)}
    bad = {
        "empty.jpg": (b"", "empty file"),
        "cut.jpg": (of(rgb, "JPEG")[:-200], "truncated"),
        "cut.png": (of(rgb)[:-200], "truncated"),
        "text.jpg": (b"<html>404</html>", "not an image"),
        "tiny.png": (of(Image.new("RGB", (1, 1))), "1x1 has a side below min_side=8"),
        "huge.png": (huge.getvalue(), "max_pixels=100000000"),
    }
    data = {**good, **turned, **{k: v for k, (v, _) in bad.items()}}
    expected = {
        **dict.fromkeys(good, (16, 20)),
        **dict.fromkeys(turned, (20, 16)),
        **{k: w for k, (_, w) in bad.items()},
    }
    return data, expected


def test_bad_pictures_are_rejected_with_their_reason_and_odd_ones_are_used(tmp_path):
    data, expected = bad_pictures()
    (tmp_path / "in").mkdir()
    for name, content in data.items():
        (tmp_path / "in" / name).write_bytes(content)
    os.mkfifo(tmp_path / "in" / "pipe.jpg")  # reading it would wait for ever
    store = ingest(str(tmp_path / "in"), str(tmp_path / "store"), part_size=4, progress=False)
    found = {r.id: (r.height, r.width) for r in rows(store)}
    reasons = {id: why for id, _, why in store.rejects()}
    assert reasons.pop("pipe.jpg") == "cannot be read: not a regular file"
    assert found.keys() | reasons.keys() == expected.keys()
    for name, what in expected.items():
        if isinstance(what, str):
            assert what in reasons[name], name
        else:
            assert found[name] == what, name
    for row in rows(store):
        assert store.picture(row).shape == (3, row.height, row.width)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_upright_picture(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jpg").write_bytes(picture("JPEG", (200, 100), exif=exif))
    row = rows(ingest(str(tmp_path / "in"), str(tmp_path / "store"), progress=False))[0]
    assert (row.height, row.width) == ((200, 100) if orientation >= 5 else (100, 200))


def test_unreadable_file(folder, tmp_path, monkeypatch):
    real = os.open

    def opened(path, *rest, **options):
        if str(path).endswith("05.jpg"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", opened)  # root may read everything, so mode 000 would not do
    store = ingest(str(folder), str(tmp_path / "store"), progress=False)
    assert len(rows(store)) == 10
    assert ("c/05.jpg", str(folder / "c/05.jpg"), "cannot be read: Permission denied") in store.rejects()


def test_duplicate_names_in_a_list(folder, tmp_path):
    (tmp_path / "list.txt").write_text("photographs/a/00.jpg\n" * 3)
    store = ingest(str(tmp_path / "list.txt"), str(tmp_path / "store"), part_size=2, progress=False)
    assert [r.id for r in rows(store)] == [f"photographs/a/00.jpg{x}" for x in ("", "#2", "#3")]


@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#3", "a#2#2", "b#2"])))
def test_unique_names(names):
    found = unique(names)
    assert len(set(found)) == len(found) == len(names)
    first = {names.index(n) for n in names}
    assert all(found[i] == names[i] for i in first)
    assert all(f.startswith(n + "#") for i, (f, n) in enumerate(zip(found, names, strict=True)) if i not in first)


def test_a_name_that_is_not_utf8(tmp_path):
    root = os.fsencode(tmp_path) + b"/in"
    os.mkdir(root)
    try:
        with open(root + b"/caf\xe9.png", "wb") as f:
            f.write(picture())
    except OSError:
        pytest.skip("this file system refuses such names")
    (tmp_path / "in" / "z.png").write_bytes(picture())
    store = ingest(str(tmp_path / "in"), str(tmp_path / "store"), progress=False)
    assert [r.id for r in rows(store)] == ["z.png"]
    ((id, _, why),) = store.rejects()
    assert id == r"caf\udce9.png"
    assert "not UTF-8" in why
    store = ingest(str(tmp_path / "in"), str(tmp_path / "embedded"), embed=True, progress=False)
    assert [r.id for r in rows(store)] == [r"caf\udce9.png", "z.png"]


def test_limits_are_kept_by_whoever_decodes_later(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture(size=(2, 3)))
    (tmp_path / "in" / "b.png").write_bytes(picture(size=(30, 30)))
    store = ingest(str(tmp_path / "in"), str(tmp_path / "store"), min_side=1, max_pixels=800, progress=False)
    assert [store.picture(r).shape for r in rows(store)] == [(3, 3, 2)]
    assert store.rejects()[0][2] == "30x30 is more than max_pixels=800"


def test_all_rejected(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(5):
        (tmp_path / "in" / f"{i}.jpg").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"all 5 images were refused, the first \(0\.jpg\) as not an image.*delete"):
        ingest(str(tmp_path / "in"), str(tmp_path / "store"), part_size=2)
    assert len(Store.open(str(tmp_path / "store")).rejects()) == 5


@pytest.mark.parametrize("option", ["part_size", "max_pixels", "min_side", "workers"])
def test_numbers_out_of_range(folder, tmp_path, option):
    with pytest.raises(ValueError, match=f"{option} must be at least . got -1".replace(". got", ".; got")):
        ingest(str(folder), str(tmp_path / "store"), **{option: -1})
    assert not (tmp_path / "store").exists()


def test_defaults_are_those_of_decoding():
    parameters = inspect.signature(ingest).parameters
    assert parameters["max_pixels"].default == images.MAX_PIXELS
    assert parameters["min_side"].default == images.MIN_SIDE


# ---------------------------------------------------------------- stopping, going on, never overwriting


@pytest.mark.parametrize("embed", [False, True])
def test_threads_and_parts_do_not_change_what_is_written(folder, tmp_path, embed):
    found = []
    for i, workers in enumerate((1, 7)):
        ingest(str(folder), str(tmp_path / f"s{i}"), part_size=4, workers=workers, embed=embed, progress=False)
        found.append(digest(tmp_path / f"s{i}"))
        found[-1].pop("ingest.json")  # tells how many threads
    assert found[0] == found[1]
    assert {k for k in found[0] if k.startswith("images")} == {f"images/part-{i:05d}.parquet" for i in range(4)}


def test_a_finished_store_is_not_overwritten(folder, tmp_path):
    ingest(str(folder), str(tmp_path / "store"), progress=False)
    before = digest(tmp_path / "store")
    with pytest.raises(ValueError, match=r"is a finished store of .* \(11 images\).*never overwrites"):
        ingest(str(folder), str(tmp_path / "store"), progress=False)
    assert digest(tmp_path / "store") == before


def test_other_folders_are_not_touched(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    Store.create(tmp_path / "by hand").write_images(0, [])
    before = digest(tmp_path)
    for name, error in {"mine": "no empty folder", "file": "no empty folder", "by hand": "is a store already"}.items():
        with pytest.raises(ValueError, match=error):
            ingest(str(folder), str(tmp_path / name), progress=False)
    assert digest(tmp_path) == before


def interrupt_after(monkeypatch, writes, error):
    """The store's writer fails with `error` at the `writes`-th part that it is to write."""
    real, left = polyteach.store.folder.write_part, [writes]

    def write(path, *args, **kwargs):
        if not left[0]:
            raise error
        left[0] -= 1
        return real(path, *args, **kwargs)

    for module in (polyteach.store.folder, polyteach.store.label_set):
        monkeypatch.setattr(module, "write_part", write)


@pytest.mark.parametrize("writes", range(6))
@pytest.mark.parametrize("source", ["folder", "tar", "parquet"])
def test_ctrl_c_anywhere_then_going_on(folder, tmp_path, monkeypatch, writes, source, capsys):
    if source == "tar":
        with tarfile.open(tmp_path / "x.tar", "w") as t:
            t.add(folder, arcname=".")
        path = tmp_path / "x.tar"
    elif source == "parquet":
        path = tmp_path / "x.parquet"
        data = [p.read_bytes() for p in sorted(folder.rglob("*.jpg"))]
        pq.write_table(pa.table({"image": data}), path, row_group_size=5)
    else:
        path = folder
    whole = tmp_path / "whole"
    ingest(str(path), str(whole), part_size=4, progress=False)
    command = ["ingest", str(path), str(tmp_path / "store"), "--part-size", "4", "--no-progress"]
    with monkeypatch.context() as m:
        interrupt_after(m, writes, KeyboardInterrupt())
        assert main(command) in (130, 0)
    assert not list((tmp_path / "store").rglob("*.tmp"))
    if state(tmp_path / "store")["finished"]:
        return  # there were fewer files to write
    assert "The same command goes on" in capsys.readouterr().err
    kept = Store.open(tmp_path / "store").parts()
    looked = Counter()
    real = images.measure
    monkeypatch.setattr("polyteach.curation.look.measure", lambda *a: looked.update(["x"]) or real(*a))
    assert main(command) == 0
    assert looked["x"] <= state(whole)["entries"] - 4 * len(kept)  # nothing is decoded twice
    assert digest(tmp_path / "store") == digest(whole)


def test_a_full_disk_says_where_and_how_to_go_on(folder, tmp_path, monkeypatch, capsys):
    command = ["ingest", str(folder), str(tmp_path / "store"), "--part-size", "4", "--no-progress"]
    with monkeypatch.context() as m:
        interrupt_after(m, 3, OSError(errno.ENOSPC, "No space left on device"))
        assert main(command) == 1
        assert f"the disk is full at {tmp_path / 'store'}" in capsys.readouterr().err
    assert not list((tmp_path / "store").rglob("*.tmp"))
    with monkeypatch.context() as m:
        interrupt_after(m, 0, OSError(errno.EDQUOT, "Disk quota exceeded"))
        with pytest.raises(
            OSError, match=r"quota exceeded; \d whole parts are kept, and the same command goes on"
        ) as e:
            ingest(str(folder), str(tmp_path / "store"), part_size=4, progress=False)
        assert e.value.filename == str(tmp_path / "store")
    assert main(command) == 0
    ingest(str(folder), str(tmp_path / "whole"), part_size=4, progress=False)
    assert digest(tmp_path / "store") == digest(tmp_path / "whole")


def test_going_on_needs_the_same_arguments_and_source(folder, tmp_path, monkeypatch):
    store = str(tmp_path / "store")
    with monkeypatch.context() as m:
        interrupt_after(m, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            ingest(str(folder), store, part_size=4, progress=False)
    with pytest.raises(ValueError, match="unfinished ingest: part_size was 4, is 5; min_side was 8, is 9"):
        ingest(str(folder), store, part_size=5, min_side=9, progress=False)
    with pytest.raises(ValueError, match="unfinished ingest: source was"):
        ingest(str(folder / "a"), store, part_size=4, progress=False)
    (folder / "new.jpg").write_bytes(picture("JPEG"))
    with pytest.raises(ValueError, match=r"has changed since .* began: 13 entries then, 14 now"):
        ingest(str(folder), store, part_size=4, progress=False)
    (folder / "text.jpg").unlink()
    with pytest.raises(ValueError, match="13 entries as then, but under other names"):
        ingest(str(folder), store, part_size=4, progress=False)


def test_a_missing_part_in_the_middle_is_made_again(folder, tmp_path):
    store = tmp_path / "store"
    ingest(str(folder), str(store), part_size=2, progress=False)
    before = digest(store)
    for part in (0, 2, 3, 6):
        (store / "images" / f"part-{part:05d}.parquet").unlink()
    unfinished = state(store) | {"finished": False}
    (store / "ingest.json").write_text(json.dumps(unfinished))
    ingest(str(folder), str(store), part_size=2, progress=False)
    assert digest(store) == before


def test_killed_before_the_state_was_written(folder, tmp_path):
    """Between the first two files: store.json alone, or not even that but its temporary file."""
    Store.create(tmp_path / "store", 7)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owner = polyteach.ground.files._OWNER
    (tmp_path / "store" / f".ingest.json.{owner}.{dead.pid}.abcdef01.tmp").write_text("{")
    store = ingest(str(folder), str(tmp_path / "store"), part_size=4, progress=False)
    assert store.part_size == 4
    ingest(str(folder), str(tmp_path / "whole"), part_size=4, progress=False)
    assert digest(tmp_path / "store") == digest(tmp_path / "whole")


def test_rejects_of_a_part_that_was_not_finished_do_not_stay(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    with monkeypatch.context() as m:
        interrupt_after(m, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            ingest(str(tmp_path / "in"), str(tmp_path / "store"), progress=False)
    (tmp_path / "in" / "a.png").write_bytes(picture())
    store = ingest(str(tmp_path / "in"), str(tmp_path / "store"), progress=False)
    assert len(rows(store)) == 1
    assert store.rejects() == []


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """SIGKILL, again and again: the store is, byte for byte, that of an undisturbed run."""
    (tmp_path / "in").mkdir()
    for i in range(160):
        (tmp_path / "in" / f"{i:03d}.png").write_bytes(picture(size=(64 + i, 64)) if i % 7 else b"bad")
    ingest(str(tmp_path / "in"), str(tmp_path / "whole"), part_size=2, workers=2, progress=False)
    words = ["ingest", str(tmp_path / "in"), str(tmp_path / "store"), "--part-size", "2", "--workers", "2"]
    measure, parts = polyteach.curation.look.measure, tmp_path / "store" / "images"

    def slowly():
        polyteach.curation.look.measure = lambda *a: time.sleep(0.1) or measure(*a)  # the process is a fork
        return main(words)

    def written():
        return len(list(parts.iterdir())) if parts.exists() else 0

    draw, moments, kills = random.Random(0), set(), 0
    while True:
        # every second fork or so is waited for until it has written a part: on a busy machine it may not come so far in
        # any fixed time
        enough, ended = written() + draw.randrange(2), (0, 0)
        child = forked(slowly if kills < 20 else lambda: main(words), tmp_path / "said")
        if kills < 20:
            while written() < enough and not ended[0]:
                time.sleep(0.005)
                ended = os.waitpid(child, os.WNOHANG)
            if not ended[0]:
                time.sleep(draw.uniform(0, 0.2))
                os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(ended[1] if ended[0] else os.waitpid(child, 0)[1])
        if status != -signal.SIGKILL:
            assert (status, kills) == (0, 20), (tmp_path / "said").read_text()
            break
        kills += 1
        moments.add(written())
    assert len(moments) >= 3  # the kills came at different moments of the work
    assert digest(tmp_path / "store") == digest(tmp_path / "whole")


def test_memory_is_bounded_however_slow_the_first_picture_is(folder, tmp_path, monkeypatch):
    """Entries are not read far ahead of the one that is waited for."""
    asked = []

    def entries(self, start, stop):
        for i in range(start, stop):
            asked.append(i)
            yield polyteach.datasets.Entry(data=picture())

    class Many(polyteach.datasets.Dataset):
        pass

    Many.entries = entries
    Many.__abstractmethods__ = frozenset()
    monkeypatch.setattr("polyteach.curation.ingest.load_dataset", lambda _: Many([str(i) for i in range(200)]))
    real, most = images.measure, []

    def measure(data, *limits):
        if not most:
            most.append(0)
            time.sleep(0.5)
            most[0] = len(asked)
        return real(data, *limits)

    monkeypatch.setattr("polyteach.curation.look.measure", measure)
    store = ingest(str(folder), str(tmp_path / "store"), workers=2, progress=False, embed=True)
    assert len(rows(store)) == 200
    assert most[0] <= 12


# ---------------------------------------------------------------- people's labels

TOY = """
    from functools import partial

    import torch

    from polyteach.datasets import Dataset, Entry
    from polyteach.tasks.classification import ClassificationTarget
    from polyteach.tasks.contract import Space


    class Toy(Dataset):
        licence = "CC-BY-4.0"

        def __init__(self, path):
            super().__init__([f"{i}.png" for i in range(7)])
            self.path = path
            self.spaces = {"classification": Space(("cat", "dog"))}

        def entries(self, start, stop):
            for i in range(start, stop):
                uri = f"{self.path}/{i}.png"
                yield Entry(uri=uri, split="train" if i < 4 else "val", targets=partial(self.answer, i) if i else None)

        def answer(self, i, size):
            assert size == (16, 20)
            if i == 1:
                return {}
            if i == 2:
                raise ValueError("line 3 of the labels: no number")
            if i == 6:
                return {"classification": ClassificationTarget(torch.tensor([0.1, 0.2, 0.7]))}
            return {"classification": ClassificationTarget(torch.tensor([0.0, 1.0]))}


    def load(path):
        return Toy(path)
"""


@pytest.fixture
def toy(monkeypatch, tmp_path):
    toy_format(monkeypatch, tmp_path, TOY)
    (tmp_path / "toy").mkdir()
    for i in range(7):
        (tmp_path / "toy" / f"{i}.png").write_bytes(picture() if i != 3 else b"broken")
    return f"toy:{tmp_path / 'toy'}"


def test_a_dataset_is_added_by_one_file_and_its_labels_become_people(toy, tmp_path, capsys):
    assert "toy" in formats()
    store = ingest(toy, str(tmp_path / "store"), part_size=4, skip_bad=True)
    (labels,) = store.sets()
    assert (labels.task, labels.name, labels.space.names) == ("classification", "people", ("cat", "dog"))
    assert labels.info == {
        "teacher": "people",
        "images": {"source": toy, "licence": "CC-BY-4.0"},
        "licence": "CC-BY-4.0",
        "polyteach": polyteach.__version__,
    }
    answers = [a for part in store.parts() for a in labels.read(part)]
    assert [r.id for r in rows(store)] == ["0.png", "1.png", "4.png", "5.png"]
    assert [r.split for r in rows(store)] == ["train"] * 2 + ["val"] * 2
    assert answers[:2] == [None, None]  # absent is not empty
    for answer in answers[2:]:
        assert isinstance(answer, ClassificationTarget)
        assert torch.equal(answer.probability, torch.tensor([0.0, 1.0]))
    assert [(id, reason) for id, _, reason in store.rejects()] == [
        ("2.png", "line 3 of the labels: no number"),
        ("3.png", "not an image, or of an unknown format"),
        ("6.png", "classification: probability has shape (3,); the space has 2 classes"),
    ]
    assert state(tmp_path / "store")["people"] == {"classification": {"absent": 2, "labelled": 2}}
    assert state(tmp_path / "store")["splits"] == {"train": 2, "val": 2}
    said = capsys.readouterr().err
    assert "people's labels, classification: 2 absent, 2 labelled" in said
    assert "splits: train 2, val 2" in said


OBJECTS = """
    import torch

    from polyteach.datasets import Dataset, Drawn, Entry
    from polyteach.tasks.contract import Space
    from polyteach.tasks.detection import DetectionTarget


    class Toy(Dataset):
        def __init__(self, path):
            super().__init__(["0.png", "1.png"])
            self.path = path
            self.spaces = {"detection": Space(("cat",), "boxes")}
            self.notes = ["read upside down"]

        def entries(self, start, stop):
            for i in range(start, stop):
                yield Entry(uri=f"{self.path}/{i}.png", targets=[self.plain, self.named][i])

        def plain(self, size):
            box = torch.tensor([[1.0, 2, 9, 9], [3, 4, 21, 9]])
            zeros = torch.zeros(2)
            return {"detection": DetectionTarget(box, zeros.long(), zeros + 1, zeros.bool())}

        def named(self, size):
            labels = Drawn(self.plain(size))
            labels["detection"].box[1] = torch.tensor([90.0, 90, 99, 99])
            labels.where["detection"] = ["line 1", "line 2"]
            labels.hint = ". Look at the manual"
            return labels


    def load(path):
        return Toy(path)
"""


def test_people_are_taken_at_their_word_whatever_the_format(tmp_path, monkeypatch, capsys):
    """A reader that names its objects gets errors that name them; what is mended is told, and in the store."""
    toy_format(monkeypatch, tmp_path, OBJECTS)
    (tmp_path / "toy").mkdir()
    for i in range(2):
        (tmp_path / "toy" / f"{i}.png").write_bytes(picture())
    with pytest.raises(
        ValueError, match=r"1.png: detection: line 2 lies outside of the im.*\. Look at the manual\. Mend"
    ):
        ingest(f"toy:{tmp_path / 'toy'}", str(tmp_path / "strict"), progress=False)
    store = ingest(f"toy:{tmp_path / 'toy'}", str(tmp_path / "store"), skip_bad=True)
    (labels,) = store.sets()
    assert labels.read(0)[0].box.tolist() == [[1, 2, 9, 9], [3, 4, 20, 9]]
    assert [id for id, _, _ in store.rejects()] == ["1.png"]
    found = state(tmp_path / "store")
    assert found["read"] == ["read upside down"]
    assert found["notes"] == {
        "detection": {"objects": 2, "reached a little beyond the image and were clipped": 1},
    }
    said = capsys.readouterr().err
    assert "\nread upside down\n" in said
    assert "\n  1 of 2 objects reached a little beyond the image and were clipped\n" in said


def test_pictures_that_use_little_of_their_16_bits_are_told(tmp_path, capsys):
    """Thermal cameras' 12 bits in 16: black to every model, but no broken pictures."""
    (tmp_path / "in").mkdir()
    for i, top in enumerate((4096, 1024, 65536)):
        values = RNG.integers(0, top, (16, 16)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "in" / f"{i}.png")
    (tmp_path / "in" / "black.png").write_bytes(picture(colour=(0, 0, 0)))
    store = ingest(str(tmp_path / "in"), str(tmp_path / "store"))
    assert len(rows(store)) == 4
    assert "2 images are of 16 bits a channel and use less than an eighth of their range" in capsys.readouterr().err


def test_folders_that_may_be_classes_are_told(tmp_path, capsys):
    for name in ("cat/1", "cat/2", "dog/1"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / f"{name}.png").write_bytes(picture())
    ingest(str(tmp_path / "in"), str(tmp_path / "store"))
    said = capsys.readouterr().err
    assert "all images lie in 2 folders (cat, dog, ...): if these are classes, they were not read; give folder:" in said
    (tmp_path / "in" / "top.png").write_bytes(picture())
    ingest(str(tmp_path / "in"), str(tmp_path / "mixed"))
    assert "classes" not in capsys.readouterr().err


def test_a_broken_label_stops_the_ingest_unless_it_is_to_be_skipped(toy, tmp_path):
    with pytest.raises(ValueError, match=r"2\.png: line 3 of the labels: no number\. Mend it .*--skip-bad"):
        ingest(toy, str(tmp_path / "store"), part_size=2, progress=False)
    ingest(toy, str(tmp_path / "store"), part_size=2, progress=False, skip_bad=True)  # goes on where it stopped
    ingest(toy, str(tmp_path / "other"), part_size=2, progress=False, skip_bad=True)
    assert digest(tmp_path / "store") == digest(tmp_path / "other")


def test_a_missing_picture_of_a_labelled_dataset_is_an_error(toy, tmp_path):
    (tmp_path / "toy" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"0\.png: cannot be read: No such file"):
        ingest(toy, str(tmp_path / "store"), progress=False)


@pytest.mark.parametrize("writes", range(5))
def test_labels_survive_an_interruption(toy, tmp_path, monkeypatch, writes):
    ingest(toy, str(tmp_path / "whole"), part_size=4, progress=False, skip_bad=True)
    with monkeypatch.context() as m:
        interrupt_after(m, writes, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            ingest(toy, str(tmp_path / "store"), part_size=4, progress=False, skip_bad=True)
    ingest(toy, str(tmp_path / "store"), part_size=4, progress=False, skip_bad=True)
    assert digest(tmp_path / "store") == digest(tmp_path / "whole")


def test_a_dataset_that_labels_an_unknown_task_is_an_error(tmp_path, monkeypatch):
    toy_format(monkeypatch, tmp_path, TOY.replace('{"classification": Space', '{"depth": Space'))
    (tmp_path / "toy").mkdir()
    for i in range(7):
        (tmp_path / "toy" / f"{i}.png").write_bytes(picture())
    with pytest.raises(TypeError, match=r"is labelled for \['classification'\]; the dataset's spaces are \['depth'\]"):
        ingest(f"toy:{tmp_path / 'toy'}", str(tmp_path / "store"), progress=False, skip_bad=True)


def test_a_bug_in_a_dataset_names_the_image(tmp_path, monkeypatch):
    toy_format(monkeypatch, tmp_path, TOY.replace('ValueError("line 3 of the labels: no number")', "KeyError(5)"))
    (tmp_path / "toy").mkdir()
    for i in range(7):
        (tmp_path / "toy" / f"{i}.png").write_bytes(picture())
    with pytest.raises(KeyError) as e:
        ingest(f"toy:{tmp_path / 'toy'}", str(tmp_path / "store"), progress=False)
    assert e.value.__notes__ == ["in the people's labels of '2.png'"]


def test_a_dataset_that_ends_early_is_an_error(tmp_path, monkeypatch):
    toy_format(monkeypatch, tmp_path, TOY.replace("range(start, stop)", "range(start, 3)"))
    (tmp_path / "toy").mkdir()
    for i in range(7):
        (tmp_path / "toy" / f"{i}.png").write_bytes(picture())
    with pytest.raises(ValueError, match="ended at entry 3 of 7: it has changed"):
        ingest(f"toy:{tmp_path / 'toy'}", str(tmp_path / "store"), progress=False)


# ---------------------------------------------------------------- what is broken costs only itself


def packed(name, content=b"", size=None, **about):
    """A member of a tar, with a head that may claim anything."""
    member = tarfile.TarInfo(name)
    member.size = len(content) if size is None else size
    for key, value in about.items():
        setattr(member, key, value)
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def linked(name, to, kind=tarfile.LNKTYPE):
    return packed(name, type=kind, linkname=to)


def sparse(name, size):
    """A member of GNU's old form for sparse files: all of it is a hole."""
    head = bytearray(packed(name, type=tarfile.GNUTYPE_SPARSE))
    head[483:495] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    head[386:482] = bytes(96)
    head[148:156] = b"%06o\0 " % sum(head[:148] + b" " * 8 + head[156:512])
    return bytes(head)


def test_a_folder_whose_entries_are_broken(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for i in range(3):
        (root / f"good{i}.png").write_bytes(picture())
    (root / "a\nb.png").write_bytes(picture())
    (root / "folder.png").mkdir()
    (root / "folder.png" / "in.png").write_bytes(picture())
    (root / "itself.png").symlink_to("itself.png")
    (root / "one.png").symlink_to("two.png")
    (root / "two.png").symlink_to("one.png")
    (root / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(root / "pipe.png")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "huge.png").touch()
    os.truncate(root / "huge.png", 8 * 10**12)
    os.mkdir(os.fsencode(root / "f") + b"\xe9")
    with open(os.fsencode(root / "n") + b"\xe9.png", "wb") as f:
        f.write(picture())
    store = ingest(root, tmp_path / "store", progress=False)
    good = ["a\nb.png", "folder.png/in.png", "good0.png", "good1.png", "good2.png"]
    assert [r.id for r in rows(store)] == good
    reasons = {id: why for id, _, why in store.rejects()}
    loop = "cannot be read: Too many levels of symbolic links"
    assert reasons == {
        "gone.png": "cannot be read: No such file or directory",
        "huge.png": "cannot be read: 8,000,000,000,000 bytes, where an image's file has at most 400,000,000 "
        "(4 for each of --max-pixels)",
        "itself.png": loop,
        "n\\udce9.png": "its path is not UTF-8, so a store cannot name it: rename it, or use embed",
        "one.png": loop,
        "pipe.png": "cannot be read: not a regular file",
        "two.png": loop,
        "zero.png": "cannot be read: not a regular file",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_picture_that_may_not_be_read(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(picture())
    (tmp_path / "in" / "a.png").chmod(0)
    store = ingest(tmp_path / "in", tmp_path / "store", progress=False)
    assert [(id, why) for id, _, why in store.rejects()] == [("a.png", "cannot be read: Permission denied")]


def test_a_tree_that_is_too_deep(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.png").write_bytes(picture())
    here = os.getcwd()
    try:
        os.chdir(tmp_path / "in")
        for _ in range(250):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    store = ingest(tmp_path / "in", tmp_path / "store", progress=False)
    assert [r.id for r in rows(store)] == ["good.png"]
    assert [why for _, _, why in store.rejects()] == ["folder is not read: it lies 201 folders deep"]


def test_a_list_whose_lines_are_broken(tmp_path):
    (tmp_path / "good.png").write_bytes(picture())
    bad = ["x\0y.png", "n" * 5000, "http://127.0.0.1:1/a.png", "zip://a.png::b.zip", "wat://x", "http://a\x01/"]
    lines = ["good.png", *bad, f"file://{tmp_path}/good.png", "./good.png", "././good.png", "good.png"]
    (tmp_path / "list.txt").write_bytes("\n".join(lines).encode() + b"\nn\xe9.png\n")
    store = ingest(tmp_path / "list.txt", tmp_path / "store", progress=False)
    assert len(rows(store)) == 5
    reasons = [why for _, _, why in store.rejects()]
    assert reasons == [
        "a NUL is in its path",
        "cannot be read: File name too long",
        "cannot be read: http://127.0.0.1:1/ is not asked: allow it with --allow-remote http or, also where it is in "
        "this machine's own network, --allow-remote http://127.0.0.1:1/",
        "cannot be read: a chain of URLs, none of which is followed: unpack the archive, and ingest what is in it",
        reasons[4],
        "cannot be read: a URL with control characters",
        "cannot be read: No such file or directory",
    ]
    assert "'wat' is no protocol that is read" in reasons[4]
    (tmp_path / "list.txt").write_text("a.png\n", encoding="utf-16")
    with pytest.raises(ValueError, match="is no text file"):
        ingest(tmp_path / "list.txt", tmp_path / "other", progress=False)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.xz"])
def test_a_tar_whose_members_are_broken(tmp_path, ending):
    good = picture()
    members = [
        packed("first.png", good),
        linked("itself.png", "itself.png"),
        linked("itself-too.png", "itself-too.png", tarfile.SYMTYPE),
        linked("one.png", "two.png", tarfile.SYMTYPE),
        linked("two.png", "one.png", tarfile.SYMTYPE),
        linked("later.png", "last.png"),
        linked("later-too.png", "d/../last.png", tarfile.SYMTYPE),
        linked("gone.png", "nowhere.png"),
        linked("out.png", "/etc/passwd", tarfile.SYMTYPE),
        linked("up.png", "../../../etc/passwd", tarfile.SYMTYPE),
        linked("chain.png", "later-too.png", tarfile.SYMTYPE),
        linked("again.png", "first.png"),
        linked("same.png", "a\nb"),
        packed("pipe.png", type=tarfile.FIFOTYPE),
        packed("device.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        sparse("sparse.png", 8 * 2**30),
        sparse("sparser.png", 8 * 10**12),
        packed("n" * 5000 + ".png", good),
        packed("a\nb.png", good),
        packed("../../up.png", good),
        packed("/root.png", good),
        packed("first.png", good),
        packed("last.png", good),
        packed("folder.png/", type=tarfile.DIRTYPE),
    ]
    pack = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.xz": lzma.compress}[ending]
    (tmp_path / f"x{ending}").write_bytes(pack(b"".join(members) + bytes(1024)))
    store = ingest(tmp_path / f"x{ending}", tmp_path / "store", progress=False)
    assert [r.id for r in rows(store)] == [
        "first.png", "later-too.png", "chain.png", "again.png", "n" * 5000 + ".png", "a\nb.png", "../../up.png",
        "/root.png", "first.png#2", "last.png",
    ]  # fmt: skip
    assert all(store.read(r) == good for r in rows(store))
    none = "a link to {!r}, which is not in the archive"
    links = {"itself.png": "itself.png", "itself-too.png": "itself-too.png", "one.png": "two.png", "two.png": "one.png"}
    links |= {"later.png": "last.png", "gone.png": "nowhere.png", "out.png": "/etc/passwd", "same.png": "a\nb"}
    links |= {"up.png": "../../../etc/passwd"}
    others = dict.fromkeys(("pipe.png", "device.png"), "not a regular file")
    others |= dict.fromkeys(("sparse.png", "sparser.png"), "a sparse file: pack it as it is")
    assert {id: why for id, _, why in store.rejects()} == {k: none.format(v) for k, v in links.items()} | others


def test_a_tar_member_that_is_too_large_is_skipped(tmp_path, monkeypatch):
    """In a compressed archive what it holds is unpacked piece by piece, and never kept."""
    monkeypatch.setattr(limits, "BYTES", (2**20, 0))
    big, good = 2**25, picture()
    with gzip.open(tmp_path / "x.tar.gz", "wb") as f:
        f.write(packed("first.png", good) + packed("big.png", size=big) + bytes(big) + packed("last.png", good))
        f.write(bytes(1024))
    tracemalloc.start()
    try:
        store = ingest(tmp_path / "x.tar.gz", tmp_path / "store", progress=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**23
    assert [r.id for r in rows(store)] == ["first.png", "last.png"]
    assert store.rejects() == [("big.png", None, "33,554,432 bytes, where an image's file has at most 1,048,576")]


def longest(digits=b"1" * 400_000):
    return packed("x", digits, type=tarfile.XHDTYPE) + packed("a.png", picture())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (packed("x", size=8 * 2**30, type=tarfile.XHDTYPE), "a head of 8,589,935,104 bytes"),
        (packed("x", size=8 * 10**12, type=tarfile.GNUTYPE_LONGNAME), "a head of 8,000,000,000,512 bytes"),
        (longest(), "a head of 400,"),
        (longest(b"1" * 100_000), "a number of more than 100 digits"),
        (longest(b"16 path=b\0c.png\n") * 3, ""),
        (packed("x", bytes(1000), type=tarfile.GNUTYPE_LONGNAME) * 1000, "a head of"),
        (packed("a.png", size=-512) * 2, "a member of -512 bytes"),
        (packed("a.png", size=2**62), "(it is truncated|unpacks to more)"),
        (packed("a.png", picture()) + b"x" * 512, "the head of a member at byte"),
        (packed("a.png", picture()) + packed("b.png")[:300], "the head of a member at byte"),
        (longest(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"), "ValueError"),
        (
            packed("x", b"".join(b"13 %05d=001\n" % i for i in range(1001)), type=tarfile.XGLTYPE) + longest(b""),
            "1,000",
        ),
    ],
)
def test_a_tar_whose_heads_are_broken_is_refused(tmp_path, content, reason):
    for name, data in {"x.tar": content, "x.tar.gz": gzip.compress(content)}.items():
        (tmp_path / name).write_bytes(data)
        start = time.monotonic()
        tracemalloc.start()
        try:
            if reason:
                with pytest.raises(ValueError, match=f"{name} cannot be read, is broken or no tar archive: .*{reason}"):
                    load_dataset(str(tmp_path / name))
            else:
                assert load_dataset(str(tmp_path / name)).names
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2**24
        assert time.monotonic() - start < 5


def test_a_tar_that_is_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_archive, "UNPACKED", 2**22)
    good = packed("a.png", picture())
    bomb = gzip.compress(good + packed("b.png", size=2**24) + bytes(2**24) + good)
    (tmp_path / "x.tar.gz").write_bytes(bomb)
    with pytest.raises(ValueError, match=r"it unpacks to more than 4,194,304 bytes. If that is right, unpack it"):
        load_dataset(str(tmp_path / "x.tar.gz"))
    monkeypatch.setattr(_archive, "RATIO", 2000)
    assert len(load_dataset(str(tmp_path / "x.tar.gz")).names) == 3
    monkeypatch.setattr(_archive, "MEMBERS", 100)
    (tmp_path / "y.tar.gz").write_bytes(gzip.compress(b"".join(packed(f"{i}") for i in range(2000))))
    with pytest.raises(ValueError, match=r"it has more than \d+ members, which no archive of images of its size has"):
        load_dataset(str(tmp_path / "y.tar.gz"))
    # LZMA's dictionary may be of 4 GiB
    monkeypatch.setattr(_archive, "MEMORY", 2**20)
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**21}]
    (tmp_path / "z.tar.xz").write_bytes(lzma.compress(good, filters=filters))
    with pytest.raises(ValueError, match="Memory usage limit"):
        load_dataset(str(tmp_path / "z.tar.xz"))


def test_links_in_a_tar_are_followed_within_a_budget(tmp_path, monkeypatch):
    good = picture()
    links = [linked(f"{i}.png", "a.png") for i in range(10)]
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(b"".join([packed("a.png", good), *links]) + bytes(1024)))
    monkeypatch.setattr(_archive, "RATIO", 0)
    monkeypatch.setattr(_archive, "UNPACKED", 3 * (512 + len(good)) + 6000)
    store = ingest(tmp_path / "x.tar.gz", tmp_path / "store", progress=False)
    assert 4 <= len(rows(store)) < 11
    assert all("too much would be read again" in why for _, _, why in store.rejects())
    assert len(rows(store)) + len(store.rejects()) == 11


@pytest.mark.parametrize("pack", [lzma.compress, lambda x: lzma.compress(x, lzma.FORMAT_ALONE)])
def test_a_tar_in_streams_of_lzma(tmp_path, pack):
    """Several streams after one another, with zeros between, as `xz` allows; and the older form."""
    data = packed("a.png", picture()) + packed("b.png", picture(size=(300, 200))) + bytes(1024)
    if pack is lzma.compress:
        (tmp_path / "x.tar.xz").write_bytes(pack(data[:700]) + bytes(8) + pack(data[700:]))
    else:
        (tmp_path / "x.tar.xz").write_bytes(pack(data))
    store = ingest(tmp_path / "x.tar.xz", tmp_path / "store", progress=False)
    assert [r.width for r in rows(store)] == [20, 300]
    (tmp_path / "x.tar.xz").write_bytes(pack(data)[:-40])
    with pytest.raises(ValueError, match="cannot be read, is broken"):
        load_dataset(str(tmp_path / "x.tar.xz"))


def test_pictures_that_wait_are_bounded_in_bytes(tmp_path, monkeypatch):
    module = importlib.import_module("polyteach.curation.ingest")
    looker = importlib.import_module("polyteach.curation.look").Looker
    held, most = 0, 0
    one = looker.look

    def slow(self, id, entry):
        nonlocal held, most
        most = max(most, held)
        found = one(self, id, entry)
        held -= len(entry.data)
        return found

    class Toy(Dataset):
        embed = True

        def entries(self, start, stop):
            nonlocal held
            for _ in range(start, stop):
                data = picture() + bytes(10**5)
                held += len(data)
                yield Entry(data=data)

    monkeypatch.setattr(module, "_AHEAD", (4, 3 * 10**5))
    monkeypatch.setattr(looker, "look", slow)
    monkeypatch.setattr(module, "load_dataset", lambda *_: Toy([str(i) for i in range(40)]))
    for home in (module, importlib.import_module("polyteach.datasets")):
        monkeypatch.setattr(home, "locate", lambda s: ("toy", s))
    ingest("x", tmp_path / "store", workers=8, progress=False)
    assert most < 6 * 10**5
