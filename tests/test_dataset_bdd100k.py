"""BDD100K: boxes of both years, what is ignored, maps of two kinds, pictures in two folders, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.tasks.detection import BOXES
from polyteach.verbs.ingest import ingest

IGNORE = 65535
H, W = 20, 30


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def picture(root, name="a", split="train", folder="100k"):
    save(root / f"images/{folder}/{split}/{name}.jpg", np.full((H, W, 3), 90))
    return root


def box(category="car", at=(2, 3, 11, 8), **attributes):
    sides = dict(zip(("x1", "y1", "x2", "y2"), at, strict=True))
    return {"id": "0", "category": category, "attributes": attributes, "box2d": sides}


def frame(*labels, name="a.jpg"):
    return {"name": name, "attributes": {"weather": "clear"}, "timestamp": 10000, "labels": list(labels)}


def write(root, *frames, file="det_20/det_train", whole=False):
    path = root / f"labels/{file}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"config": None, "frames": list(frames)} if whole else list(frames)))
    return f"bdd100k:{root}"


def read(source, at=0):
    dataset = load_dataset(source)
    entry = next(dataset.entries(at, at + 1))
    if entry.problem:
        raise ValueError(entry.problem)
    return entry.targets((H, W))


@pytest.mark.parametrize("whole", [False, True])
def test_the_last_pixel_is_inside(tmp_path, whole):
    """As scalabel's box2d_to_bbox has it: the width is x2 - x1 + 1."""
    source = write(picture(tmp_path), frame(box(), box("traffic sign", (0, 0, 0, 0))), whole=whole)
    found = read(source)["detection"]
    assert found.box.tolist() == [[2, 3, 12, 9], [0, 0, 1, 1]]
    assert found.category.tolist() == [2, 9]
    assert load_dataset(source).spaces["detection"].kind == BOXES


@pytest.mark.parametrize(
    ("label", "name", "ignored"),
    [
        (box("person"), "pedestrian", False),
        (box("bike"), "bicycle", False),
        (box("motor"), "motorcycle", False),
        (box("van"), "car", False),
        (box("other person"), "pedestrian", True),
        (box("other vehicle"), "car", True),
        (box("trailer"), "truck", True),
        (box("rider", crowd=True), "rider", True),
        (box("rider", ignored=True), "rider", True),
        (box("rider", occluded=True, truncated=True, crowd=False), "rider", False),
    ],
)
def test_categories_are_those_of_det_toml(tmp_path, label, name, ignored):
    source = write(picture(tmp_path), frame(label))
    labels = read(source)
    assert load_dataset(source).spaces["detection"].names[labels["detection"].category[0]] == name
    assert labels["detection"].ignore.tolist() == [ignored]
    assert sum(labels.notes["detection"].values()) == ignored


def test_2018_is_read_where_2020_is_not(tmp_path):
    lane = {"category": "lane", "poly2d": [], "attributes": {"laneStyle": "solid"}}
    old = "bdd100k_labels_images_train"
    source = write(
        picture(tmp_path), frame(box("person"), lane, {"category": "drivable area", "box2d": None}), file=old
    )
    assert read(source)["detection"].category.tolist() == [0]
    notes = load_dataset(source).notes
    assert f"boxes are those of {tmp_path}/labels/{old}.json" in notes
    assert "2 labels have no box2d and were not read: 1 'drivable area', 1 'lane'" in notes
    write(tmp_path, frame(box("bus")))
    assert read(source)["detection"].category.tolist() == [4]
    assert read(source + "?det=2018")["detection"].category.tolist() == [0]


def test_without_labels_and_without_a_frame(tmp_path, capsys):
    picture(picture(tmp_path), "b")
    picture(tmp_path, split="test")
    source = write(tmp_path, {"name": "a.jpg", "labels": None})
    write(tmp_path, frame(box()), file="det_20/det_val")
    ingest(source, str(tmp_path / "store"))
    said = capsys.readouterr().err
    assert "2 images have neither a frame nor a map: they are unlabelled" in said
    assert "1 JSON of splits without a folder of images" in said
    assert "2 absent, 1 labelled" in said
    assert read(source)["detection"].box.shape == (0, 4)


def test_maps_of_both_kinds(tmp_path):
    picture(picture(tmp_path), "b", folder="10k")
    pixels = np.resize(np.arange(20), (H, W))
    pixels[pixels == 19] = 255
    save(tmp_path / "labels/sem_seg/masks/train/b.png", pixels)
    save(tmp_path / "labels/drivable/masks/train/a.png", np.where(pixels == 255, 255, pixels % 3))
    source = f"bdd100k:{tmp_path}"
    dataset = load_dataset(source)
    assert list(dataset.names) == ["images/100k/train/a.jpg", "images/10k/train/b.jpg"]
    assert dataset.notes[0] == "labels/drivable/ was not read: ?segmentation=drivable does"
    names = dataset.spaces["segmentation"].names
    assert (len(names), names[13], names[18]) == (19, "car", "bicycle")
    found = read(source, 1)["segmentation"]
    np.testing.assert_array_equal(found.category.numpy(), np.where(pixels == 255, IGNORE, pixels))
    np.testing.assert_array_equal(found.probability.numpy(), pixels != 255)
    other = f"{source}?segmentation=drivable&images=100k"
    assert load_dataset(other).spaces["segmentation"].names == ("direct", "alternative", "background")
    assert len(load_dataset(other).names) == 1
    assert set(np.unique(read(other)["segmentation"].category)) == {0, 1, 2, IGNORE}


def test_pictures_in_both_folders_are_told(tmp_path):
    for folder, split, name in (*(("100k", "train", n) for n in "abc"), ("10k", "train", "a"), ("10k", "val", "b")):
        picture(tmp_path, name, split, folder)
    source = write(tmp_path, frame(box()))
    [note] = [n for n in load_dataset(source).notes if "10k" in n]
    assert note.startswith("2 images of 10k are called as images of 100k, 1 of them in another split: do not train")
    assert not [n for n in load_dataset(source + "?images=100k").notes if "10k" in n]


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([frame(box("dog"))], r"\[0\].labels\[0\].category: 'dog' is none of pedestrian"),
        ([frame(box(["car"]))], r"\[0\].labels\[0\].category: list of 1 is none of"),
        ([frame(box(at=(1, 2, float("nan"), 4)))], r"box2d: must have finite numbers x1, y1, x2, y2"),
        ([frame(box(at=(1, 2, 10**400, 4)))], r"box2d: must have finite numbers x1, y1, x2, y2"),
        ([frame({"category": "car", "box2d": [1, 2, 3, 4]})], r"box2d: must have finite numbers x1, y1, x2, y2"),
        ([frame(box(at=(5, 2, 3, 4)))], r"labels\[0\]: box of 'car': 5, 2, 4, 5 has no area"),
        ([frame(box(at=(5, 2, 1e300, 4)))], r"lies far beyond any image"),
        ([frame(7)], r"\[0\].labels\[0\]: must be an object; got 7"),
        ([{"name": "a.jpg", "labels": {"x": 1}}], r"\[0\].labels: must be a list; got dict of 1"),
        ([frame(*[box()] * 16_385)], r"labels\[16384\]: an image may have at most 16,384 objects"),
        ([frame(box()), frame(box())], r"several frames are of 'a.jpg'"),
        ([{"labels": []}], r"det_train.json: \[0\].name: must name an image; got None"),
        ([7], r"det_train.json: \[0\].name: must name an image"),
        ([], r"det_train.json: has no frame"),
    ],
)
def test_what_is_broken_is_named(tmp_path, frames, said):
    source = write(picture(tmp_path), *frames)
    with pytest.raises(ValueError, match=said):
        read(source)


@pytest.mark.parametrize("name", ["../../../labels/x.jpg", "/etc/passwd", "b.jpg", "a.jpg\0", "x" * 10_000])
def test_a_frame_without_its_image_is_an_error_of_its_own(tmp_path, name):
    picture(tmp_path)
    save(tmp_path / "labels/x.jpg", np.zeros((H, W, 3)))
    source = write(tmp_path, frame(box()), frame(box(), name=name))
    good, bad = load_dataset(source).entries(0, 2)
    assert good.problem is None
    assert "[1].name: " in bad.problem
    assert "is no image of" in bad.problem
    assert len(bad.problem) < 500


def test_maps_that_are_broken(tmp_path):
    picture(tmp_path, folder="10k")
    path = tmp_path / "labels/sem_seg/masks/train/a.png"
    for pixels, said in (
        (np.full((H, W), 19), "value 19 is no class; they are 0..18, and 255 is unknown"),
        (np.zeros((H, 9)), "is 20 x 9"),
        (np.zeros((H, W, 3)), "must be a PNG of 8-bit indices; it is RGB"),
    ):
        save(path, pixels)
        with pytest.raises(ValueError, match=said):
            read(f"bdd100k:{tmp_path}")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("bdd100k:{}/none", "is no folder: expected"),
        ("bdd100k:{}", "no image has labels: expected"),
        ("bdd100k:{}?images=10k", "has no image: expected"),
        ("bdd100k:{}?det=2019", "det=2019 in bdd100k:.*: there are 2020, 2018, none"),
        ("bdd100k:{}?det=2018", r"\?det=2018: there is no labels/bdd100k_labels_images_train.json"),
        ("bdd100k:{}?segmentation=drivable", r"\?segmentation=drivable: there is no labels/drivable/masks/"),
    ],
)
def test_what_is_no_tree(tmp_path, source, said):
    picture(tmp_path)
    with pytest.raises(ValueError, match=said):
        load_dataset(source.format(tmp_path))
