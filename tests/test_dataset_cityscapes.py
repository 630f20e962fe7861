"""Cityscapes: classes and instances of pixels, groups, what is void, and what is refused."""

import re

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.datasets.cityscapes import _regions
from polyteach.tasks.detection import MASKS
from polyteach.verbs.ingest import ingest

ndimage = pytest.importorskip("scipy.ndimage")

IGNORE = 65535
H, W = 20, 30
PUBLISHED = {  # helpers/labels.py: id -> train id
    **{0: 255, 1: 255, 2: 255, 3: 255, 4: 255, 5: 255, 6: 255, 7: 0, 8: 1, 9: 255, 10: 255, 11: 2, 12: 3, 13: 4},
    **{14: 255, 15: 255, 16: 255, 17: 5, 18: 255, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14},
    **{28: 15, 29: 255, 30: 255, 31: 16, 32: 17, 33: 18},
}


def save(path, pixels, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype)).save(path)


def tree(root, split="train", labels="gtFine", number=0, **maps):
    start = f"{split}/bonn/bonn_{number:06d}_000019"
    save(root / f"leftImg8bit/{start}_leftImg8bit.png", np.full((H, W, 3), 90))
    for kind, pixels in maps.items():
        wide = np.uint16 if kind == "instanceIds" else np.uint8
        save(root / f"{labels}/{start}_{labels}_{kind}.png", pixels, wide)
    return f"cityscapes:{root}"


def filled(value, *parts):
    pixels = np.full((H, W), value)
    for rows, columns, other in parts:
        pixels[rows, columns] = other
    return pixels


def read(source, at=0):
    dataset = load_dataset(source)
    entry = next(dataset.entries(at, at + 1))
    assert entry.problem is None
    return entry.targets((H, W))


def test_every_id_is_its_published_class(tmp_path):
    ids = np.resize(np.arange(34), (H, W))
    expected = np.vectorize(PUBLISHED.get)(ids)
    source = tree(tmp_path, labelIds=ids)
    found = read(source)["segmentation"]
    np.testing.assert_array_equal(found.category.numpy(), np.where(expected == 255, IGNORE, expected))
    np.testing.assert_array_equal(found.probability.numpy(), expected != 255)
    names = load_dataset(source).spaces["segmentation"].names
    assert (len(names), names[0], names[13], names[18]) == (19, "road", "car", "bicycle")
    assert "detection" not in load_dataset(source).spaces
    again = read(tree(tmp_path / "b", labelTrainIds=expected))["segmentation"]
    np.testing.assert_array_equal(again.category.numpy(), found.category.numpy())


def test_instances_groups_and_what_is_not_counted(tmp_path):
    ids = filled(
        7, (slice(2, 6), slice(3, 9), 26), (slice(10, 14), slice(0, 4), 24), (slice(10, 14), slice(20, 24), 24)
    )
    ids[16:19, 10:20] = 30
    things = np.where(ids == 26, 26003, np.where(ids == 30, 30000, ids))
    source = tree(tmp_path, labelIds=ids, instanceIds=things)
    found = read(source)["detection"]
    names = load_dataset(source).spaces["detection"].names
    assert load_dataset(source).spaces["detection"].kind == MASKS
    rows = [(names[c], i, b) for c, i, b in zip(found.category, found.ignore.tolist(), found.box.tolist(), strict=True)]
    assert sorted(rows) == [
        ("car", False, [3, 2, 9, 6]),
        ("person", True, [0, 10, 4, 14]),
        ("person", True, [20, 10, 24, 14]),
        ("truck", True, [10, 16, 20, 19]),
    ]
    for mask, box in zip(found.mask.numpy(), found.box.int().tolist(), strict=True):
        expected = np.zeros((H, W), bool)
        expected[box[1] : box[3], box[0] : box[2]] = True
        np.testing.assert_array_equal(mask, expected)


def test_an_image_without_objects_is_labelled(tmp_path):
    found = read(tree(tmp_path, labelIds=filled(7), instanceIds=filled(7)))
    assert found["detection"].box.shape == (0, 4)
    assert found["detection"].mask.shape == (0, H, W)


@pytest.mark.parametrize("seed", range(8))
def test_regions_are_those_of_scipy(seed):
    chance = np.random.default_rng(seed)
    mask = chance.random((17, 23)) < (0.2 + 0.1 * seed)
    labelled, count = ndimage.label(mask)
    drawn = np.zeros_like(labelled)
    for k, (left, top, region) in enumerate(_regions("x", mask), 1):
        part = drawn[top : top + region.shape[0], left : left + region.shape[1]]
        assert not part[region].any()
        assert region.any(0).all() or region.any(0)[[0, -1]].all()
        part[region] = k
    assert drawn.max() == count
    assert len(np.unique(np.stack([drawn, labelled])[:, mask], axis=1).T) == count
    np.testing.assert_array_equal(drawn > 0, mask)


def test_a_map_that_shows_void_alone_says_nothing(tmp_path, capsys):
    """As all published ones of test do."""
    tree(tmp_path, "test", labelIds=filled(1, (slice(0, 3), slice(0, 3), 3)), instanceIds=filled(1))
    tree(tmp_path, "train", labelIds=filled(7), instanceIds=filled(26000))
    store = ingest(f"cityscapes:{tmp_path}", str(tmp_path / "store"))
    assert capsys.readouterr().err.count("1 absent, 1 labelled") == 2
    assert {row.split for row in store.images(0)} == {"train", "test"}


def test_what_has_no_partner_is_counted(tmp_path):
    tree(tmp_path, labelIds=filled(7), instanceIds=filled(7))
    tree(tmp_path, number=1, labelIds=filled(7))
    tree(tmp_path, "train_extra")
    save(tmp_path / "gtFine/val/x/x_gtFine_labelIds.png", filled(7))
    save(tmp_path / "leftImg8bit/train/bonn/other.png", np.zeros((H, W, 3)))
    dataset = load_dataset(f"cityscapes:{tmp_path}")
    assert [e.split for e in dataset.entries(0, 3)] == ["train", "train", "train_extra"]
    assert [e.targets is None for e in dataset.entries(0, 3)] == [False, False, True]
    assert dataset.notes == [
        "1 images have no map of classes: they are unlabelled",
        "1 images have no map of instances: they have classes of pixels alone",
    ]
    assert dataset.left_out == {"maps without an image": 1, "images that are not called *_leftImg8bit.png": 1}


def test_coarse_labels_have_no_objects(tmp_path):
    source = tree(tmp_path, "train_extra", "gtCoarse", labelIds=filled(0, (2, 3, 26)), instanceIds=filled(26000))
    with pytest.raises(ValueError, match="no image has a map in gtFine/"):
        load_dataset(source)
    assert set(load_dataset(source + "?labels=coarse").spaces) == {"segmentation"}
    found = read(source + "?labels=coarse")
    assert set(found) == {"segmentation"}
    assert (found["segmentation"].category != IGNORE).sum() == 1


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        ({"labelIds": filled(7, (0, 0, 34))}, "labelIds.png: value 34 is no class of labelIds, which are 0..33"),
        ({"labelTrainIds": filled(0, (0, 0, 19))}, "value 19 is no class of labelTrainIds, which are 0..18 and 255"),
        ({"labelIds": filled(7)[:5]}, "labelIds.png: is 5 x 30 .* but the image is 20 x 30"),
        ({"labelIds": filled(7), "instanceIds": filled(7001)}, "value 7001 is of class 7, which has no instances"),
        ({"labelIds": filled(7), "instanceIds": filled(999)}, "value 999 is of class 999, which has no instances"),
        ({"labelIds": filled(7), "instanceIds": filled(65535)}, "holds values from 65535 to 65535; an instance is"),
        ({"labelIds": filled(7), "instanceIds": filled(26)[:, :9]}, "instanceIds.png: is 20 x 9"),
        ({"labelIds": np.zeros((H, W, 3))}, "labelIds.png: must be a PNG of 8-bit indices; it is RGB"),
    ],
)
def test_what_is_broken_is_named(tmp_path, maps, said):
    with pytest.raises(ValueError, match=said):
        read(tree(tmp_path, **maps))


def test_hostile_maps_cost_little():
    noise = np.indices((600, 600)).sum(0) % 2 == 0
    with pytest.raises(ValueError, match=re.escape("x: has a group in 180,000 pieces, which nobody draws")):
        list(_regions("x", noise))


def test_too_many_instances(tmp_path, monkeypatch):
    monkeypatch.setattr("polyteach.datasets.cityscapes.MOST_VALUES", 3 * H * W)
    things = np.arange(H * W).reshape(H, W) % 4 + 26000
    with pytest.raises(ValueError, match="shows 4 instances, more than are kept of an image of its size"):
        read(tree(tmp_path, labelIds=filled(26), instanceIds=things))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("cityscapes:{}/none", "is no folder: expected"),
        ("cityscapes:{}", "has no folder leftImg8bit: expected"),
        ("cityscapes:{}?labels=x", "labels=x in cityscapes:.*: there are fine and coarse"),
    ],
)
def test_what_is_no_tree(tmp_path, source, said):
    with pytest.raises(ValueError, match=said):
        load_dataset(source.format(tmp_path))
