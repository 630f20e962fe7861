"""PASCAL-Context: 59, 60 or 459 classes, names that differ between the lists, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset

scipy_io = pytest.importorskip("scipy.io")

IGNORE = 65535
H, W = 4, 6
EVERY = "1: accordion\n2: aeroplane\n3: bed clothes\n4: cloth\n5: table\n6: wood\n"
SOME = "1: aeroplane\n2: diningtable\n3: bedcloth\n4: clothes\n"
MAP = np.resize(np.arange(7), (H, W)).astype(np.uint16)


def tree(root, maps=None, every=EVERY, some=SOME, voc="VOC2010", variable="LabelMap"):
    (root / "trainval").mkdir()
    for id, pixels in ({"2008_000002": MAP} if maps is None else maps).items():
        scipy_io.savemat(root / f"trainval/{id}.mat", {variable: pixels})
    (root / "labels.txt").write_text(every)
    (root / "59_labels.txt").write_text(some)
    for split, ids in (("train", ["2008_000002", "2008_000003"]), ("val", ["2008_000007"])):
        path = root / voc / f"ImageSets/Main/{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{id}\n" for id in ids))
        for id in ids:
            image = root / voc / f"JPEGImages/{id}.jpg"
            image.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(image)
    return f"pascal-context:{root}"


def read(source, at=0):
    return next(load_dataset(source).entries(at, at + 1)).targets((H, W))["segmentation"]


@pytest.mark.parametrize("voc", ["VOC2010", "VOCdevkit/VOC2010", "."])
def test_classes(tmp_path, voc):
    """Translated as FCN's layer does: by the names' places in labels.txt, three of which have another name there."""
    source = tree(tmp_path, voc=voc)
    expected = {"59": [None, None, 0, 2, 3, 1, None], "60": [0, 0, 1, 3, 4, 2, 0], "459": [None, 0, 1, 2, 3, 4, 5]}
    for classes, values in expected.items():
        table = np.array([IGNORE if v is None else v for v in values])
        found = read(f"{source}?classes={classes}")
        np.testing.assert_array_equal(found.category.numpy(), table[MAP])
        np.testing.assert_array_equal(found.probability.numpy(), table[MAP] != IGNORE)
    names = ("aeroplane", "diningtable", "bedcloth", "clothes")
    assert load_dataset(source).spaces["segmentation"].names == names
    assert load_dataset(source + "?classes=60").spaces["segmentation"].names == ("background", *names)
    assert len(load_dataset(source + "?classes=459").spaces["segmentation"].names) == 6


def test_two_values_of_one_name_are_one_class(tmp_path):
    source = tree(tmp_path, every=EVERY.replace("wood", "table"))
    assert load_dataset(source + "?classes=459").spaces["segmentation"].names[-1] == "table"
    assert read(source + "?classes=459").category[MAP == 6].tolist() == [4, 4, 4]
    assert read(source).category[MAP == 6].tolist() == [1, 1, 1]


def test_splits_and_what_has_no_partner(tmp_path):
    dataset = load_dataset(tree(tmp_path, {"2008_000002": MAP, "2008_000007": MAP, "2009_000001": MAP}))
    assert list(dataset.names) == [f"VOC2010/JPEGImages/2008_00000{i}.jpg" for i in (2, 7)]
    assert [e.split for e in dataset.entries(0, 2)] == ["train", "val"]
    assert dataset.left_out == {"images of VOC without a map": 1, "maps in no list": 1}


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (MAP.T, r"000002.mat: LabelMap is \[6, 4\] \(height, width\), but the image is 4 x 6"),
        (MAP + 1, r"LabelMap holds values that are none of 0\.\.6"),
        (MAP - 1.0, r"LabelMap holds values that are none of"),
        (MAP + 0.5, r"LabelMap holds values that are none of"),
        (MAP * np.nan, r"000002.mat"),
        ("text", r"has no variable LabelMap of numbers"),
        (np.zeros((0, 0)), r"LabelMap is \[0\] \(height, width\)"),
    ],
)
def test_a_broken_map_is_named(tmp_path, pixels, said):
    with pytest.raises(ValueError, match=said):
        read(tree(tmp_path, {"2008_000002": pixels}))


def test_a_map_of_another_variable_and_one_that_is_no_file(tmp_path):
    source = tree(tmp_path, variable="Other")
    with pytest.raises(ValueError, match=r"000002.mat: has no variable LabelMap"):
        read(source)
    (tmp_path / "trainval/2008_000002.mat").write_bytes(b"MATLAB" * 100)
    with pytest.raises(ValueError, match=r"000002.mat is broken, or no MATLAB file"):
        read(source)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"every": "accordion\n"}, "labels.txt: line 1: must be a value and a name, as 1: aeroplane; got 'accordion'"),
        ({"every": EVERY + "6: x\n"}, "labels.txt: line 7: 6 is 'wood' already"),
        ({"every": "0: none\n"}, "labels.txt: names no class"),
        ({"some": "1: dragon\n"}, "59_labels.txt: 'dragon' is none of the 6 classes of labels.txt"),
        ({"maps": {}}, "no image of ImageSets/Main/ has a map in trainval/"),
    ],
)
def test_what_is_broken_throughout_is_named(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        load_dataset(tree(tmp_path, **change))


def test_a_list_that_leads_out(tmp_path):
    source = tree(tmp_path)
    (tmp_path / "VOC2010/ImageSets/Main/val.txt").write_text("../../../etc/passwd\n")
    with pytest.raises(ValueError, match=r"val.txt: '../../../etc/passwd' is no name of an image"):
        load_dataset(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("pascal-context:{}/none", "is no folder: expected"),
        ("pascal-context:{}", "has no folder trainval: expected"),
        ("pascal-context:{}?classes=58", "classes=58 in pascal-context:.*: there are 59, 60 and 459"),
    ],
)
def test_what_is_no_tree(tmp_path, source, said):
    with pytest.raises(ValueError, match=said):
        load_dataset(source.format(tmp_path))
