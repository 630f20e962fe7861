"""Depth as PNG of 8 and 16 bits: metres by scale and offset, relative depth, what is unknown, and what is refused."""

import re

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.tasks.depth import METRIC, RELATIVE
from polyteach.verbs.ingest import ingest
from tests.real import real

H, W = 20, 30
DEPTH = np.linspace(400, 9000, H * W).reshape(H, W).astype(np.uint16)
DEPTH[3:6, 4:9] = 0
DEPTH[10, 10] = 65535


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    depth(folder / "train/depth/a.png")
    picture(folder / "train/rgb/a.jpg")
    return folder


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(path)


def depth(path, pixels=DEPTH, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **how)


def read(source):
    dataset = load_dataset(source)
    (entry,) = dataset.entries(0, 1)
    return dataset, entry.targets((H, W))["depth"]


def test_millimetres_are_metres(root):
    dataset, found = read(f"depth-png:{root}?scale=0.001&unknown=0,65535")
    known = (DEPTH > 0) & (DEPTH < 65535)
    np.testing.assert_array_equal(found.valid.numpy(), known)
    np.testing.assert_allclose(found.value.numpy()[known], DEPTH[known] / 1000, rtol=1e-6)
    assert not found.value.numpy()[~known].any()
    assert dataset.spaces["depth"].kind == METRIC
    assert list(dataset.names) == ["train/rgb/a.jpg"]
    assert "metres are value * 0.001 + 0; 0, 65535 is unknown" in dataset.notes
    assert next(dataset.entries(0, 1)).split == "train"


def test_offset_near_and_far(root):
    _, found = read(f"depth-png:{root}?scale=0.001&offset=0.5&near=2&far=6&unknown=none")
    metres = DEPTH / 1000 + 0.5
    np.testing.assert_array_equal(found.valid.numpy(), (metres >= 2) & (metres <= 6))
    depth(root / "train/depth/a.png", np.full((H, W), 7, np.uint8))
    _, found = read(f"depth-png:{root}?scale=-0.1&offset=2")
    np.testing.assert_allclose(found.value.numpy(), 1.3, rtol=1e-6)


def test_relative_depth_keeps_its_values(root):
    dataset, found = read(f"depth-png:{root}?kind=relative")
    valid = (DEPTH > 0) & (DEPTH <= 65504)  # the largest float16
    np.testing.assert_array_equal(found.valid.numpy(), valid)
    np.testing.assert_array_equal(found.value.numpy()[valid], DEPTH[valid])
    assert dataset.spaces["depth"].kind == RELATIVE
    assert "relative inverse depth is value * 1 + 0: larger is nearer; 0 is unknown" in dataset.notes


def test_8_bits_and_grey_in_three_channels_are_read(root):
    grey = (DEPTH // 40).astype(np.uint8)
    for pixels in (grey, np.repeat(grey[..., None], 3, 2)):
        depth(root / "train/depth/a.png", pixels)
        _, found = read(f"depth-png:{root}?scale=0.04")
        np.testing.assert_allclose(found.value.numpy(), grey * 0.04, rtol=1e-6)


def test_the_store_keeps_what_was_read(root, tmp_path):
    store = ingest(f"depth-png:{root}?scale=0.001&far=50", str(tmp_path / "store"), progress=False)
    (labels,) = store.sets()
    (kept,) = labels.read(0)
    known = (DEPTH > 0) & (DEPTH < 65535)
    np.testing.assert_array_equal(kept.valid.numpy(), known)
    np.testing.assert_allclose(kept.value.numpy()[known], DEPTH[known] / 1000, rtol=1e-3)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("", r"how far is a value\? give \?scale=0.001 for millimetres"),
        ("scale=x", r"scale=x in depth-png:.*: must be a number"),
        ("scale=nan", r"scale=nan in depth-png:.*: must be a number"),
        ("scale=0", r"scale=0 in depth-png:.*: must be above 0"),
        ("kind=relative&scale=-1", r"scale=-1 in depth-png:.*: must be above 0"),
        ("kind=inverse", r"kind=inverse in depth-png:.*: is one of metric, relative"),
        ("kind=relative&far=3", r"near= and far= are metres, which relative depth has not"),
        ("scale=1&near=5&far=5", r"near=5&far=5 in depth-png:.*: must be 0 <= near < far"),
        ("scale=1&unknown=x", r"unknown=x in depth-png:.*: must be pixel values with commas, or none"),
        ("scale=1&depth=nowhere", r"no image has a depth map; found images in .*depth=NAME"),
        ("metres=1", r"'metres=1' in .* is no option of this format"),
    ],
)
def test_options_that_are_none(root, option, said):
    with pytest.raises(ValueError, match=said):
        load_dataset(f"depth-png:{root}" + (f"?{option}" if option else ""))


BAD = {
    "a drawing": (
        lambda p: depth(p, np.dstack([DEPTH % 256] * 2 + [DEPTH * 0]).astype(np.uint8)),
        r"a drawing of depth",
    ),
    "another size": (lambda p: depth(p, DEPTH.T.copy()), r"is 30 x 20 .* image is 20 x 30"),
    "nothing": (lambda p: depth(p, DEPTH * 0), r"depth is known nowhere: its values are 0..0, by"),
    "another unit": (lambda p: depth(p, DEPTH * 0 + 65535), r"depth is known nowhere"),
    "a palette": (
        lambda p: Image.fromarray((DEPTH % 200).astype(np.uint8)).convert("P").save(p),
        r"must be a grey PNG",
    ),
    "a JPEG": (lambda p: depth(p, (DEPTH // 40).astype(np.uint8), format="JPEG"), r"broken: no PNG"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_map_is_its_images(root, tmp_path, case):
    make, said = BAD[case]
    picture(root / "train/rgb/b.jpg")
    make(root / "train/depth/b.png")
    source = f"depth-png:{root}?scale=0.001&far=60"
    with pytest.raises(ValueError, match=rf"depth/b.png: .*{said}"):
        ingest(source, str(tmp_path / "strict"), progress=False)
    store = ingest(source, str(tmp_path / "store"), progress=False, skip_bad=True)
    ((id, _, why),) = store.rejects()
    assert id == "train/rgb/b.jpg"
    assert re.search(said, why)


def test_millimetres_that_are_taken_for_metres_are_refused(root):
    depth(root / "train/depth/a.png", DEPTH + 1001)
    with pytest.raises(
        ValueError, match=r"a.png: all depth is beyond 1,000 metres, from 1,00\d on: give another .scale="
    ):
        read(f"depth-png:{root}?scale=1&unknown=1000")


def test_nyu_is_read_as_its_files_say():
    folder = real("nyu")
    dataset = load_dataset(f"depth-png:{folder}?scale=0.0392156862745&offset=0.0196078431373&images=image&depth=depth8")
    assert len(dataset.names) == 795 + 454
    for entry in list(dataset.entries(0, len(dataset.names)))[::10]:
        with Image.open(entry.uri.replace("/image/", "/depth8/").rsplit(".", 1)[0] + ".png") as own:
            pixels = np.asarray(own)
        found = entry.targets(pixels.shape)["depth"]
        np.testing.assert_array_equal(found.valid.numpy(), pixels > 0)
        np.testing.assert_allclose(found.value.numpy(), np.where(pixels > 0, (pixels + 0.5) / 25.5, 0), rtol=1e-5)
        assert float(found.value.max()) < 10.05
