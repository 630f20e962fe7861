"""Files of a dataset that are none, or are larger than such files are: no reader waits for them or fills the memory."""

import os

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import _files

KINDS = {
    "gone": (lambda p: None, "missing"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "pipe": (os.mkfifo, "is no regular file"),
    "link to zeros": (lambda p: p.symlink_to("/dev/zero"), "is no regular file"),
    "link to itself": (lambda p: p.symlink_to(p.name), "cannot be read: Too many levels of symbolic links"),
    "terabytes of nothing": (lambda p: (p.touch(), os.truncate(p, 1 << 42)), "has more than 67,108,864 bytes"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_no_reader_waits_or_fills_the_memory(tmp_path, kind):
    make, said = KINDS[kind]
    path = tmp_path / "x.png"
    make(path)
    for read in (
        _files.contents,
        _files.lines,
        _files.xml,
        lambda p: _files.class_map(p, (20, 30), ("L",), "grey"),
    ):
        with pytest.raises(ValueError, match=f"^{path}: {said}"):
            read(str(path))


def test_a_name_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: embedded null byte"):
        _files.contents(f"{tmp_path}/a\0b")


def test_maps_are_pngs_of_the_pictures_size(tmp_path):
    path = tmp_path / "x.png"
    pixels = np.arange(600, dtype=np.uint8).reshape(20, 30) % 21
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(_files.class_map(str(path), (20, 30), ("L",), "grey"), pixels)
    with pytest.raises(ValueError, match="must be in colour; it is L"):
        _files.class_map(str(path), (20, 30), ("RGB",), "in colour")
    with pytest.raises(ValueError, match=r"is 20 x 30 \(height x width\), but the image is 30 x 20"):
        _files.class_map(str(path), (30, 20), ("L",), "grey")
    Image.fromarray(pixels).save(path, format="BMP")
    with pytest.raises(ValueError, match="broken: no PNG"):
        _files.class_map(str(path), (20, 30), ("L",), "grey")


def test_values_are_shown_in_a_short_time():
    laugh = ["ha"]
    for _ in range(100):
        laugh = [laugh, laugh]
    assert _files.shown(laugh) == "list of 2"
    assert _files.shown({"a": laugh}) == "dict of 1"
    assert _files.shown(10**5_000) == "a number of 16,610 bits"
    assert _files.shown("a" * 10**7) == "'" + "a" * 59
    assert _files.shown(1.5) == "1.5"
    assert _files.shown(None) == "None"
