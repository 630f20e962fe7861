"""NYU Depth V2: a MATLAB 7.3 file with the axes reversed, the official split, the crop, broken files."""

import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.datasets.nyu import PROTOCOLS
from polyteach.verbs.ingest import ingest

h5py = pytest.importorskip("h5py")
scipy_io = pytest.importorskip("scipy.io")

COUNT, H, W = 4, 480, 640
IGNORE = 65535
NAMES = ["book", "bottle", "cabinet"]

PICTURES = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 8, 3), np.uint8).repeat(80, 1).repeat(80, 2)
DEPTHS = (
    np.linspace(0.8, 9.5, H * W, dtype=np.float32).reshape(H, W)[None]
    - 0.1 * np.arange(COUNT, dtype=np.float32)[:, None, None]
)
DEPTHS[:, 100, 100:103] = (0, 10.5, np.nan)
RAW = DEPTHS.copy()
RAW[:, 200:300, 300:] = 0
LABELS = np.zeros((COUNT, H, W), np.uint16)
LABELS[:, 50:100] = 1
LABELS[:, 100:, 320:] = 3


def matlab(path, names=NAMES, **arrays):
    """As MATLAB's save(..., '-v7.3') writes: HDF5 behind 512 bytes, axes reversed, text as uint16 by reference."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            if array is not None:
                file.create_dataset(
                    name, data=array, chunks=(1, *array.shape[1:]), compression="gzip", compression_opts=1
                )
        references = np.empty((1, len(names)), dtype=h5py.ref_dtype)
        for i, text in enumerate(names):
            codes = np.array([[ord(c)] for c in text], np.uint16)
            references[0, i] = file.create_dataset(f"#refs#/{i}", data=codes).ref
        file.create_dataset("names", data=references, dtype=h5py.ref_dtype)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(508) + b"\x00\x02IM")


def reverse(array):
    """(N, H, W, ...) to what h5py sees."""
    return np.ascontiguousarray(array.transpose(0, *range(array.ndim - 1, 0, -1)))


ALL = {"images": PICTURES, "depths": DEPTHS, "rawDepths": RAW, "labels": LABELS}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("nyu")
    matlab(root / "nyu_depth_v2_labeled.mat", **{k: reverse(v) for k, v in ALL.items()})
    splits(root, [1, 4], [2, 3])
    return root


def splits(root, train, test):
    content = {"trainNdxs": np.array(train, np.float64)[:, None], "testNdxs": np.array(test, np.float64)[:, None]}
    scipy_io.savemat(root / "splits.mat", content)


def small(root, count=2, **change):
    """A file of 6 x 8 pixels."""
    arrays = {
        "images": np.zeros((count, 3, 8, 6), np.uint8),
        "depths": np.ones((count, 8, 6), np.float32),
        "rawDepths": np.ones((count, 8, 6), np.float32),
        "labels": np.zeros((count, 8, 6), np.uint16),
    }
    matlab(root / "nyu_depth_v2_labeled.mat", **(arrays | change))
    splits(root, [1], [2])
    return root


def entries(source):
    dataset = load_dataset(source)
    return dataset, list(dataset.entries(0, len(dataset.names)))


def window():
    """Rows 45..470 and columns 41..600."""
    rows, columns = np.arange(H)[:, None], np.arange(W)[None]
    return (rows >= 45) & (rows <= 470) & (columns >= 41) & (columns <= 600)


def test_a_folder_above_the_file_finds_it(tmp_path):
    (tmp_path / "nyu").mkdir()
    small(tmp_path / "nyu")
    dataset = load_dataset(f"nyu:{tmp_path}")
    assert list(dataset.names) == ["0001", "0002"]
    assert dataset.notes == [f"{tmp_path} holds the tree in a folder below it: {tmp_path}/nyu was read"]


def test_pictures_and_splits(made):
    dataset, found = entries(f"nyu:{made}")
    assert list(dataset.names) == ["0001", "0002", "0003", "0004"]
    assert [e.split for e in found] == ["train", "test", "test", "train"]
    assert set(dataset.spaces) == {"depth"}
    assert dataset.spaces["depth"].kind == "metric"
    for entry, expected in zip(found, PICTURES, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(entry.data))), expected)


@pytest.mark.parametrize(
    ("given", "values", "inside"),
    [
        ("", DEPTHS, window()),
        ("?depth=filled&crop=none", DEPTHS, np.ones((H, W), bool)),
        ("?depth=raw", RAW, window()),
    ],
)
def test_depth(made, given, values, inside):
    _, found = entries(f"nyu:{made}{given}")
    for entry, expected in zip(found, values, strict=True):
        target = entry.targets((H, W))["depth"]
        known = inside & (np.nan_to_num(expected) >= 1e-3) & (np.nan_to_num(expected) <= 10)
        assert np.array_equal(target.valid.numpy(), known)
        assert np.array_equal(target.value.numpy(), np.where(known, expected, 0))


def test_classes(made):
    dataset, found = entries(f"nyu:{made}?segmentation=894")
    assert dataset.spaces["segmentation"].names == tuple(NAMES)
    target = found[2].targets((H, W))["segmentation"]
    assert np.array_equal(target.category.numpy(), np.where(LABELS[2] == 0, IGNORE, LABELS[2].astype(np.int64) - 1))


def test_ingest(made, tmp_path):
    store = ingest(f"nyu:{made}?segmentation=894", str(tmp_path / "store"), progress=False, part_size=2)
    assert not store.rejects()
    rows = [row for part in store.parts() for row in store.images(part)]
    assert [(r.id, r.split, r.height, r.width, r.data is None) for r in rows] == [
        (f"{i:04d}", split, H, W, False) for i, split in enumerate(("train", "test", "test", "train"), 1)
    ]


def test_threads_read_the_same(made):
    _, found = entries(f"nyu:{made}")
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda e: e.targets((H, W))["depth"].value, found * 2))
    assert all(torch.equal(a, b.targets((H, W))["depth"].value) for a, b in zip(together, found * 2, strict=True))


def test_the_crop_of_another_size_is_in_proportion(tmp_path):
    _, found = entries(f"nyu:{small(tmp_path)}")
    valid = found[0].targets((6, 8))["depth"].valid
    # 45/480 and 471/480 of 6 rows, 41/640 and 601/640 of 8 columns
    assert valid[1:6, 1:8].all()
    assert valid.sum() == 35


@pytest.mark.parametrize("value", [1e300, -1e300, np.inf, np.nan])
def test_depth_that_float32_cannot_hold_is_not_known(tmp_path, value):
    deep = np.ones((2, 8, 6))
    deep[0, 4, 3] = value
    _, found = entries(f"nyu:{small(tmp_path, depths=deep)}?crop=none")
    valid = found[0].targets((6, 8))["depth"].valid
    assert (~valid).nonzero().tolist() == [[3, 4]]


def test_a_file_may_be_given(made):
    assert len(load_dataset(f"nyu:{made / 'nyu_depth_v2_labeled.mat'}").names) == COUNT


def test_splits_are_needed_unless_they_are_not(tmp_path):
    small(tmp_path)
    (tmp_path / "splits.mat").unlink()
    with pytest.raises(ValueError, match=r"splits\.mat is missing; .* or give \?split=none"):
        load_dataset(f"nyu:{tmp_path}")
    _, found = entries(f"nyu:{tmp_path}?split=none")
    assert [e.split for e in found] == [None, None]


@pytest.mark.parametrize(
    ("train", "test", "match"),
    [
        ([1], [3], r"testNdxs: 3\.\.3, but there are images 1\.\.2"),
        ([0], [2], r"trainNdxs: 0\.\.0"),
        ([1, 2], [2], r"testNdxs: image 2 is in train already"),
        ([1.5], [2], r"trainNdxs: missing, or no list of whole numbers"),
        ([], [2], r"trainNdxs: missing"),
    ],
)
def test_wrong_splits(tmp_path, train, test, match):
    small(tmp_path)
    splits(tmp_path, train, test)
    with pytest.raises(ValueError, match=rf"splits\.mat: {match}"):
        load_dataset(f"nyu:{tmp_path}")


def test_broken_files(tmp_path):
    small(tmp_path)
    path = tmp_path / "splits.mat"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"splits\.mat is broken"):
        load_dataset(f"nyu:{tmp_path}")
    file = tmp_path / "nyu_depth_v2_labeled.mat"
    whole = file.read_bytes()
    for kept in (0, 512, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"nyu_depth_v2_labeled\.mat is broken, cut short"):
            load_dataset(f"nyu:{tmp_path}")
    file.unlink()
    with pytest.raises(ValueError, match=r"nyu_depth_v2_labeled\.mat is missing; expected"):
        load_dataset(f"nyu:{tmp_path}")


@pytest.mark.parametrize(
    ("change", "given", "match"),
    [
        ({"depths": None}, "", r"depths: missing"),
        ({"rawDepths": None}, "?depth=raw", r"rawDepths: missing"),
        ({"depths": np.ones((1, 8, 6), np.float32)}, "", r"depths: has shape \(1, 8, 6\); images has \(2, 3, 8, 6\)"),
        ({"images": np.zeros((2, 3, 8, 6))}, "", r"images: must be uint8"),
        ({"images": np.zeros((2, 8, 6, 3), np.uint8)}, "", r"images: must be uint8 \(N, 3, width, height\)"),
    ],
)
def test_wrong_fields(tmp_path, change, given, match):
    small(tmp_path, **change)
    with pytest.raises(ValueError, match=rf"nyu_depth_v2_labeled\.mat: {match}"):
        load_dataset(f"nyu:{tmp_path}{given}")


def test_a_class_without_a_name(tmp_path):
    labels = np.zeros((2, 8, 6), np.uint16)
    labels[1, 3, 3] = 4
    source = f"nyu:{small(tmp_path, labels=labels)}?segmentation=894"
    with pytest.raises(ValueError, match=r"labels\[1\]: 4 is no class: names has 3"):
        ingest(source, str(tmp_path / "strict"), progress=False, min_side=4)
    store = ingest(source, str(tmp_path / "lax"), progress=False, min_side=4, skip_bad=True)
    assert [id for id, _, _ in store.rejects()] == ["0002"]


def test_a_damaged_picture_is_one_picture(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 6), np.uint8)
    file = small(tmp_path, images=noise) / "nyu_depth_v2_labeled.mat"
    with h5py.File(file) as content:
        chunk = content["images"].id.get_chunk_info(1)
    # HDF5 counts from behind the header
    data = bytearray(file.read_bytes())
    at = chunk.byte_offset if data[chunk.byte_offset] == 0x78 else chunk.byte_offset + 512
    data[at : at + chunk.size] = b"\xff" * chunk.size
    file.write_bytes(data)
    store = ingest(f"nyu:{tmp_path}", str(tmp_path / "store"), progress=False, min_side=4, skip_bad=True)
    ((id, _, reason),) = store.rejects()
    assert id == "0002"
    assert "images[1]: cannot be read" in reason


def in_other_ways(path, way, other):
    """The file with its images or names not in it: each way in which HDF5 reads other files."""
    with h5py.File(path, "r+") as content:
        shape = content["images"].shape
        if way == "reference":
            content.create_dataset("outer", (3, 1), "u1", external=[(str(other), 0, 3)])
            content["names"][0, 0] = content["outer"].ref
            return
        del content["images"]
        if way == "link":
            content["images"] = h5py.ExternalLink(str(other), "images")
        elif way == "soft link":
            content["kept"] = h5py.ExternalLink(str(other), "images")
            content["images"] = h5py.SoftLink("/kept")
        elif way == "raw":
            content.create_dataset("images", shape, "u1", external=[(str(other), 0, int(np.prod(shape)))])
        else:
            layout = h5py.VirtualLayout(shape, "u1")
            layout[:] = h5py.VirtualSource(str(other), "images", shape)
            content.create_virtual_dataset("images", layout)


@pytest.mark.parametrize("way", ["link", "soft link", "raw", "virtual", "reference"])
def test_no_other_file_is_opened(tmp_path, way):
    noise = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 6), np.uint8)
    folder = small(tmp_path, images=noise)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as content:
        content["images"] = noise
    in_other_ways(folder / "nyu_depth_v2_labeled.mat", way, other)
    field = "names" if way == "reference" else "images"
    with pytest.raises(ValueError, match=rf"labeled.mat: {field}: .*is a link, or made of other files"):
        load_dataset(f"nyu:{folder}?segmentation=894")


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "chunks", "said"),
    [
        ("images", (10**9, 3, 8, 6), "u1", (1, 3, 8, 6), "at most are 100,000 images"),
        ("images", (2, 3, 10**5, 10**5), "u1", (1, 1, 8, 6), "at most are .* of 100,000,000 pixels"),
        ("images", (2, 3, 8, 6), "u1", (2**28, 1, 8, 6), "blocks of 12,884,901,888 bytes"),
        ("depths", (2, 8, 6), "S4", None, "depths: must be numbers"),
        ("labels", (2, 8, 6), "f4", None, "labels: must be whole numbers"),
        ("names", (1, 10**9), h5py.ref_dtype, (1, 8), "names: must be references to text: there are 1,000,000,000"),
        ("names", (1, 2), "f4", None, "names: must be references to text"),
    ],
)
def test_sizes_that_a_file_claims_are_looked_at_before_anything_is_read(tmp_path, name, shape, dtype, chunks, said):
    folder = small(tmp_path)
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "r+") as content:
        del content[name]
        content.create_dataset(name, shape, dtype, chunks=chunks, maxshape=(None,) * len(shape) if chunks else None)
    with pytest.raises(ValueError, match=said):
        load_dataset(f"nyu:{folder}?segmentation=894")


@pytest.mark.parametrize(("at", "value", "said"), [(272, 255, "SciPy stopped at it"), (279, 255, "MemoryError")])
def test_splits_that_end_scipys_reader_are_an_error(tmp_path, at, value, said):
    """One changed byte ends the process that reads it by a signal, another one takes all memory."""
    folder = small(tmp_path)
    scipy_io.savemat(folder / "splits.mat", {"trainNdxs": [[1.0], [2.0]], "testNdxs": [[3.0]]})
    content = bytearray((folder / "splits.mat").read_bytes())
    content[at] = value
    (folder / "splits.mat").write_bytes(content)
    with pytest.raises(ValueError, match=f"splits.mat is broken, or no MATLAB file: .*{said}"):
        load_dataset(f"nyu:{folder}")


def test_splits_that_are_no_plain_numbers_are_not_read(tmp_path):
    folder = small(tmp_path)
    for value in (np.ones((1, 10**6)), "text", {"a": 1}):
        scipy_io.savemat(folder / "splits.mat", {"trainNdxs": value, "testNdxs": [[2]]}, do_compression=True)
        with pytest.raises(ValueError, match=r"splits.mat: trainNdxs: missing, or no list of whole numbers"):
            load_dataset(f"nyu:{folder}?split=file")
    (folder / "splits.mat").unlink()
    os.mkfifo(folder / "splits.mat")
    with pytest.raises(ValueError, match=r"splits.mat is missing"):
        load_dataset(f"nyu:{folder}?split=file")


def test_options(made):
    with pytest.raises(ValueError, match="depth is one of filled, raw"):
        load_dataset(f"nyu:{made}?depth=none")
    with pytest.raises(ValueError, match="there are: depth=filled, crop=eigen, segmentation=none, split=file"):
        load_dataset(f"nyu:{made}?size=3")


def test_without_h5py(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"needs h5py: pip install 'polyteach\[datasets\]'"):
        load_dataset(f"nyu:{made}")


def test_protocol():
    protocol = PROTOCOLS["nyu"]
    assert (protocol.train, protocol.test, protocol.metric) == (("train",), ("test",), "delta<1.25")
