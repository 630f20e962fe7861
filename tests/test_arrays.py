"""NumPy's files, as datasets read them."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from polyteach.datasets._arrays import read_arrays


class Slow:
    """In a cycle; its end takes so long that the interpreter turns to another thread."""

    def __init__(self):
        self.me = self

    def __del__(self):
        for _ in range(1000):
            pass


@pytest.fixture
def restless():
    """The interpreter turns to another thread all the time, in the middle of an allocation too."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(10)
    yield
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


def test_threads_read_at_once(tmp_path, restless):
    """np.load alone fails a few times in 3,200 here: https://github.com/python/cpython/issues/106905."""
    path = tmp_path / "a.npy"
    expected = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(path, expected)

    def whole(_):
        Slow()
        return np.array_equal(read_arrays(path), expected)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(whole, range(3200)))


def test_several_arrays(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", one=np.ones(3), two=np.zeros((2, 2), bool))
    found = read_arrays(tmp_path / "a.npz")
    assert set(found) == {"one", "two"}
    assert found["one"].tolist() == [1, 1, 1]
    assert found["two"].tolist() == [[False, False], [False, False]]


def test_broken_files(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, one=np.arange(1000))
    whole = path.read_bytes()
    for broken in (whole[:200], whole[:60] + b"\xff" * 40 + whole[100:], b"PK\x03\x04", b"nothing"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"zip|invalid|allow_pickle|CRC"):
            read_arrays(path)
    path.write_bytes(b"")
    with pytest.raises(EOFError):
        read_arrays(path)
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(tmp_path / "o.npy")
