"""CIFAR: pickles as Python 2 wrote them, read as torchvision reads them, and nothing that can run."""

import io
import os
import pickle
import struct
import tarfile
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets import cifar as reference

from polyteach.datasets import cifar, load_dataset
from polyteach.store import Store
from polyteach.tasks.classification import Classification, ClassificationTarget
from polyteach.tasks.contract import Space
from polyteach.verbs.ingest import ingest
from tests.classes import seen, stored

RNG = np.random.default_rng(0)
TEN = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
FINE, COARSE = [f"fine {i}".encode() for i in range(100)], [f"coarse {i}".encode() for i in range(20)]


def python2(value):
    """`value` as Python 2's pickle wrote it (protocol 2): its text are byte strings, its arrays numpy.core's."""

    def number(n):
        return b"K" + bytes([n]) if 0 <= n < 256 else b"J" + struct.pack("<i", n)

    def text(b):
        return b"U" + bytes([len(b)]) + b if len(b) < 256 else b"T" + struct.pack("<i", len(b)) + b

    def write(v):
        if isinstance(v, dict):
            return b"}(" + b"".join(write(k) + write(x) for k, x in v.items()) + b"u"
        if isinstance(v, list):
            return b"](" + b"".join(map(write, v)) + b"e"
        if isinstance(v, np.ndarray):
            kind = b"cnumpy\ndtype\n" + text(v.dtype.str[1:].encode()) + number(0) + number(1) + b"\x87R"
            kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
            made = (
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
            )
            shape = b"(" + b"".join(map(number, v.shape)) + b"t"
            return made + b"(" + number(1) + shape + kind + b"\x89" + text(v.tobytes()) + b"tb"
        return number(v) if isinstance(v, int) else text(v)

    return b"\x80\x02" + write(value) + b"."


def batch(n, classes=10, first=0):
    """A batch of CIFAR-10, or with `classes` 100 of CIFAR-100."""
    data = RNG.integers(0, 256, (n, 3072), dtype=np.uint8)
    labels = [int(x) for x in RNG.integers(0, classes, n)]
    content = {
        b"data": data,
        b"batch_label": b"a batch",
        b"filenames": [b"x_s_%06d.png" % (first + i) for i in range(n)],
    }
    if classes == 10:
        return content | {b"labels": labels}
    return content | {b"fine_labels": labels, b"coarse_labels": [x // 5 for x in labels]}


def ten(root, write=python2, n=3, **changes):
    """cifar-10-batches-py in `root`; `changes`: other content of a file."""
    files = {f"data_batch_{i}": batch(n, first=i * n) for i in range(1, 6)}
    files |= {"test_batch": batch(n), "batches.meta": {b"num_vis": 3072, b"label_names": TEN}} | changes
    return save(root / "cifar-10-batches-py", files, write)


def hundred(root, write=python2, n=4):
    meta = {b"fine_label_names": FINE, b"coarse_label_names": COARSE}
    files = {"train": batch(n, 100), "test": batch(n, 100, first=n), "meta": meta}
    return save(root / "cifar-100-python", files, write)


def save(folder, files, write=python2):
    folder.mkdir(parents=True)
    (folder / "readme.html").write_text("<html>")
    for name, content in files.items():
        (folder / name).write_bytes(write(content))
    return files


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_as_torchvision_reads_it(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(reference, "check_integrity", lambda *a: True)  # it would want the real ones' checksums
    files = (ten if kind is CIFAR10 else hundred)(tmp_path / "in")
    names = [n.decode() for f in files.values() for n in f.get(b"filenames", [])]
    store = ingest(f"cifar:{tmp_path / 'in'}", str(tmp_path / "store"), part_size=7, progress=False)
    rows = [row for part in store.parts() for row in store.images(part)]
    answers = [answer for part in store.parts() for answer in store.sets()[0].read(part)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of the old pickles
        parts = {s: kind(str(tmp_path / "in"), train=s == "train") for s in ("train", "test")}
    assert list(store.sets()[0].space.names) == parts["train"].classes
    expected = [(s, np.array(image), label) for s, part in parts.items() for image, label in part]
    assert [r.id for r in rows] == [f"{s}/{n}" for (s, _, _), n in zip(expected, names, strict=True)]
    assert [r.split for r in rows] == [s for s, _, _ in expected]
    for row, answer, (_, image, label) in zip(rows, answers, expected, strict=True):
        assert torch.equal(store.picture(row), torch.from_numpy(image).permute(2, 0, 1))
        assert int(answer.probability.argmax()) == label
        assert answer.probability.sum() == answer.probability.max() == 1


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_python_3(tmp_path, protocol):
    """A copy that somebody made again: text keys, NumPy 2's module names, protocols 0 to 5."""

    def write(content):
        text = {k.decode(): v for k, v in content.items()}
        return pickle.dumps(text, protocol=protocol)

    files = hundred(tmp_path, write)
    assert load_dataset(f"cifar:{tmp_path}").spaces["classification"].names == tuple(f"fine {i}" for i in range(100))
    found, problems = seen(f"cifar:{tmp_path}")
    labels = [*files["train"][b"fine_labels"], *files["test"][b"fine_labels"]]
    assert problems == {}
    assert [c for _, c in found.values()] == [f"fine {i}" for i in labels]
    data = [np.asarray(Image.open(io.BytesIO(e.data))) for e in load_dataset(f"cifar:{tmp_path}").entries(0, 4)]
    assert np.array_equal(np.stack(data).transpose(0, 3, 1, 2).reshape(4, 3072), files["train"][b"data"])


def test_coarse_labels(tmp_path):
    files = hundred(tmp_path / "in")
    found, problems = stored(f"cifar:{tmp_path / 'in'}?labels=coarse", tmp_path / "store")
    labels = [*files["train"][b"coarse_labels"], *files["test"][b"coarse_labels"]]
    assert problems == {}
    assert [c for _, c in found.values()] == [f"coarse {i}" for i in labels]
    assert Store.open(tmp_path / "store").sets()[0].space.names == tuple(f"coarse {i}" for i in range(20))
    ten(tmp_path / "ten")
    with pytest.raises(ValueError, match=r"labels=coarse in cifar:.*: cifar-10-batches-py has fine labels only"):
        load_dataset(f"cifar:{tmp_path / 'ten'}?labels=coarse")
    with pytest.raises(ValueError, match=r"labels=corse in cifar:.*: there are fine and coarse"):
        load_dataset(f"cifar:{tmp_path / 'in'}?labels=corse")


@pytest.mark.parametrize("start", range(0, 18, 5))
@pytest.mark.parametrize("stop", [4, 11, 18])
def test_from_the_middle(tmp_path, start, stop):
    ten(tmp_path)
    dataset = load_dataset(f"cifar:{tmp_path}")
    whole = [(e.data, e.split) for e in dataset.entries(0, 18)]
    assert len({d for d, _ in whole}) == 18
    assert [(e.data, e.split) for e in dataset.entries(start, stop)] == whole[start:stop]


def test_where_it_may_lie(tmp_path):
    ten(tmp_path / "x")
    folder = tmp_path / "x" / "cifar-10-batches-py"
    expected = seen(f"cifar:{tmp_path / 'x'}")
    assert len(expected[0]) == 18
    assert seen(f"cifar:{folder}") == expected
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as t:
        t.add(folder, "cifar-10-batches-py")
    assert seen(f"cifar:{tmp_path / 'cifar-10-python.tar.gz'}") == expected
    assert seen(f"cifar:{tmp_path}") == expected
    with tarfile.open(tmp_path / "x" / "cifar-10-python.tar.gz", "w:gz"):
        assert seen(f"cifar:{tmp_path / 'x'}") == expected  # unpacked already
    folder.rename(tmp_path / "renamed")
    assert seen(f"cifar:{tmp_path / 'renamed'}") == expected
    hundred(tmp_path)
    with pytest.raises(
        ValueError, match=r"holds cifar-100-python and cifar-10-python.tar.gz; give one, such as cifar:"
    ):
        load_dataset(f"cifar:{tmp_path}")
    assert len(seen(f"cifar:{tmp_path / 'cifar-100-python'}")[0]) == 8


def test_one_split_is_enough_but_not_half_of_one(tmp_path):
    ten(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    (folder / "test_batch").unlink()
    assert {s for s, _ in seen(f"cifar:{tmp_path}")[0].values()} == {"train"}
    (folder / "data_batch_3").unlink()
    with pytest.raises(ValueError, match=r"data_batch_3 is missing; train is data_batch_1, .*data_batch_5"):
        load_dataset(f"cifar:{tmp_path}")
    for i in (1, 2, 4, 5):
        (folder / f"data_batch_{i}").unlink()
    with pytest.raises(ValueError, match="has neither data_batch_1 nor test_batch"):
        load_dataset(f"cifar:{tmp_path}")
    (folder / "batches.meta").unlink()
    with pytest.raises(ValueError, match=r"batches.meta is missing; it names the classes"):
        load_dataset(f"cifar:{tmp_path}")
    with pytest.raises(ValueError, match=r"gone is no folder"):
        load_dataset(f"cifar:{tmp_path / 'gone'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds none of cifar-10-batches-py, cifar-100-python, .*tar.gz; give"):
        load_dataset(f"cifar:{tmp_path / 'empty'}")


def test_a_label_out_of_range_is_a_problem_of_its_picture(tmp_path):
    files = ten(tmp_path / "in", test_batch=batch(3) | {b"labels": [9, 10, -1]})
    found, problems = stored(f"cifar:{tmp_path / 'in'}", tmp_path / "store", skip_bad=True)
    assert len(found) == 16
    where = f"{tmp_path}/in/cifar-10-batches-py/test_batch: labels: class index"
    names = [f"test/{n.decode()}" for n in files["test_batch"][b"filenames"]]
    assert found[names[0]] == ("test", "truck")
    assert problems == {
        name: f"{where} {i} is out of range; there are 10 classes, 0..9"
        for name, i in zip(names[1:], (10, -1), strict=True)
    }


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({b"data": np.zeros((3, 3071), np.uint8)}, r"data is uint8 \(3, 3071\), not uint8 \(N, 3072\)"),
        ({b"data": np.zeros((3, 3072), np.int8)}, r"data is int8 \(3, 3072\), not uint8"),
        ({b"data": [1, 2, 3]}, r"data is list, not uint8"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, "2 data, 3 labels and 3 filenames"),
        ({b"labels": [1, 2]}, "3 data, 2 labels and 3 filenames"),
        ({b"labels": [1, 2, b"cat"]}, r"labels has b'cat', which is no whole number"),
        ({b"labels": 3}, r"field 'labels' is missing or no list; there are: data, batch_label, filenames, labels"),
        ({b"filenames": [1, 2, 3]}, "filenames has 1, which is no text"),
    ],
)
def test_broken_fields(tmp_path, change, error):
    ten(tmp_path, data_batch_2=batch(3) | change)
    with pytest.raises(ValueError, match=f"cifar-10-batches-py/data_batch_2: {error}"):
        load_dataset(f"cifar:{tmp_path}")


# ---------------------------------------------------------------- pickles that would do something


def global_(name):
    return b"c" + name.encode() + b"\n"


RUN = {
    "posix.system": global_("posix\nsystem") + b"(S'touch pwned'\ntR.",
    "builtins.eval": global_("builtins\neval") + b'(S\'open("pwned", "w")\'\ntR.',
    "__builtin__.getattr": global_("__builtin__\ngetattr") + b".",
    "numpy.load": global_("numpy\nload") + b"(S'x'\ntR.",
    # by what is allowed: an array of Python objects, a subclass, an array made directly, a function's own attributes
    "dtype object": global_("numpy\ndtype") + b"(S'O8'\nI0\nI1\ntR.",
    "numpy.ndarray is refused": global_("numpy\nndarray") + b"((I9\ntS'u1'\ntR.",
    "array of kind": global_("numpy.core.multiarray\n_reconstruct") + b"(S'x'\n(I0\ntS'b'\ntR.",
    "state of a function": global_("_codecs\nencode") + b"}S'__defaults__'\n(S'x'\ntsb.",
    "encoding 'zip'": global_("_codecs\nencode") + b"(Vx\nVzip\ntR.",
}


@pytest.mark.parametrize("what", RUN)
def test_a_pickle_that_would_run_is_refused(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    ten(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").write_bytes(b"\x80\x02" + RUN[what])
    with pytest.raises(ValueError, match=rf"data_batch_4 is broken or no CIFAR file.*{what}"):
        load_dataset(f"cifar:{tmp_path}")
    assert not (tmp_path / "pwned").exists()
    pickle.loads(python2(b"x"), encoding="bytes")  # and pickle itself is as it was
    assert cifar._encode.__defaults__ is None


def test_a_broken_pickle(tmp_path):
    ten(tmp_path)
    file = tmp_path / "cifar-10-batches-py" / "test_batch"
    whole = file.read_bytes()
    for data in (b"", whole[:-300], b"<html>404</html>", whole[:50] + b"\xff" + whole[51:], b"\x80\x02I1\n."):
        file.write_bytes(data)
        with pytest.raises(ValueError, match="cifar-10-batches-py/test_batch"):
            load_dataset(f"cifar:{tmp_path}")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "LONG_BINPUT at byte 3 numbers what it keeps"),  # a table of 32 GB
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".", "expected 1099511627776 bytes"),
        (b"P0\n.", "PERSID at byte 0 is refused"),
    ],
)
def test_a_pickle_takes_no_more_memory_than_it_has_bytes(tmp_path, content, match):
    ten(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(content)
    with pytest.raises(ValueError, match=rf"batches.meta.*{match}"):
        load_dataset(f"cifar:{tmp_path}")


def test_lists_that_hold_themselves_many_times_over_are_not_written_out(tmp_path):
    ten(tmp_path)
    laugh = [b"ha"]
    for _ in range(60):
        laugh = [laugh, laugh]
    for key, what in ((b"labels", "no whole number"), (b"filenames", "no text")):
        content = batch(2) | {key: [laugh, laugh]}
        (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(ValueError, match=f"test_batch: {key.decode()} has list of 2, which is {what}"):
            load_dataset(f"cifar:{tmp_path}")


def test_a_broken_archive(tmp_path):
    ten(tmp_path / "x")
    file = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(file, "w:gz") as t:
        t.add(tmp_path / "x" / "cifar-10-batches-py", "cifar-10-batches-py")
    whole = file.read_bytes()
    for data in (b"", b"no archive", whole[: len(whole) // 2]):
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz is broken or no archive of CIFAR"):
            load_dataset(f"cifar:{file}")
    with tarfile.open(file, "w:gz") as t:
        t.add(os.devnull, "x")
    with pytest.raises(ValueError, match="holds no CIFAR folder"):
        load_dataset(f"cifar:{file}")


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.dtype(">i4"), np.dtype("<i8"), np.float32, np.bool_, np.uint16]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements={"allow_nan": False},
    ),
    st.integers(0, 5),
    st.booleans(),
)
def test_any_array_of_numbers_is_read_as_it_was_written(array, protocol, fortran):
    array = np.asfortranarray(array) if fortran else array
    read = cifar._unpickled("x", pickle.dumps([array, b"", b"\xff\0", "ü"], protocol=protocol))
    assert np.array_equal(read[0].array, array)
    assert read[0].array.dtype == array.dtype
    assert read[0].array.shape == array.shape
    assert read[1:] == [b"", b"\xff\0", "ü"]


def test_protocol(tmp_path):
    """What it names is there: the task's metric, the splits of the store, classes enough for the shots."""
    protocol = cifar.PROTOCOLS["cifar100"]
    hundred(tmp_path)
    splits = {e.split for e in load_dataset(f"cifar:{tmp_path}").entries(0, 8)}
    assert {*protocol.train, *protocol.test} == splits
    assert protocol.task in load_dataset(f"cifar:{tmp_path}").spaces
    metric, target = Classification().metric(Space(("a", "b"))), ClassificationTarget(torch.tensor([1.0, 0.0]))
    metric.update([target], [target])
    assert protocol.metric in metric.compute()
    assert 0 < protocol.validation < 1
    assert protocol.few["shots"] * 100 < 50_000 * (1 - protocol.validation)
