"""Open Images: rows wherever they stand, groups, classes, what is not said of classes, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.tasks.detection import BOXES
from polyteach.verbs.ingest import ingest

H, W = 20, 40
HEAD = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
NAMES = "/m/0k4j,Car\n/m/01yrx,Cat\n"
LAID = {
    "plain": ("train/{}.jpg", "train-annotations-bbox.csv", "class-descriptions-boxable.csv"),
    "version 7": (
        "images/train/{}.jpg",
        "annotations/oidv6-train-annotations-bbox.csv",
        "annotations/oidv7-class-descriptions-boxable.csv",
    ),
    "fiftyone's": ("train/data/{}.jpg", "train/labels/detections.csv", "train/metadata/classes.csv"),
    "cvat's": ("images/train/{}.jpg", "annotations/train-annotations-bbox.csv", "annotations/class-descriptions.csv"),
}


def row(id="a", label="/m/0k4j", box=(0.25, 0.5, 0.1, 0.9), confidence=1, group=0):
    return f"{id},xclick,{label},{confidence},{','.join(map(str, box))},0,0,{group},0,0"


def tree(root, *rows, images=("a",), head=HEAD, names=NAMES, laid="plain"):
    image, boxes, classes = LAID[laid]
    for id in images:
        path = root / image.format(id)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(path)
    for path, content in ((boxes, "\n".join([head, *rows, ""])), (classes, names)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return f"openimages:{root}?unlabelled=background"


def read(source, at=0):
    dataset = load_dataset(source)
    entry = next(dataset.entries(at, at + 1))
    assert entry.problem is None
    return entry.targets((H, W))


@pytest.mark.parametrize("laid", LAID)
def test_boxes_are_fractions_by_side(tmp_path, laid):
    source = tree(tmp_path, row(), row(label="/m/01yrx", box=(0, 1, 0, 1), group=1), laid=laid)
    dataset = load_dataset(source)
    assert list(dataset.names) == [LAID[laid][0].format("a")]
    assert dataset.spaces["detection"].names == ("Car", "Cat")
    assert dataset.spaces["detection"].kind == BOXES
    labels = read(source)
    np.testing.assert_allclose(labels["detection"].box.numpy(), [[10, 2, 20, 18], [0, 0, 40, 20]], atol=1e-5)
    assert labels["detection"].category.tolist() == [0, 1]
    assert labels["detection"].ignore.tolist() == [False, True]
    assert labels.notes["detection"] == {"are groups of objects (IsGroupOf: 1), of which no single one is learned": 1}


def test_rows_of_an_image_may_stand_apart(tmp_path):
    """Each row's left side tells which it is: what comes back is what was written, for every image."""
    chance = np.random.default_rng(0)
    ids = [chr(97 + i) for i in range(6)]
    order = chance.integers(0, 8, 60)  # of which two are not there
    rows = [row("abcdefgh"[k], box=(i / 100, 0.9, 0.1, 0.9)) for i, k in enumerate(order)]
    source = tree(tmp_path, *rows, images=ids)
    dataset = load_dataset(source)
    for k, entry in enumerate(dataset.entries(0, 6)):
        found = entry.targets((H, W))["detection"].box[:, 0].numpy() / W * 100
        np.testing.assert_allclose(found, np.flatnonzero(order == k), atol=1e-4)
    assert dataset.left_out == {"rows of boxes of images that are not there": int((order > 5).sum())}


def test_columns_are_found_by_name(tmp_path):
    head = "LabelName,XMin,YMin,XMax,YMax,ImageID"
    source = tree(tmp_path, "/m/01yrx,0.25,0.1,0.5,0.9,a", head="\ufeff" + head)
    found = read(source)["detection"]
    np.testing.assert_allclose(found.box.numpy(), [[10, 2, 20, 18]], atol=1e-5)
    assert found.category.tolist() == [1]


def test_it_has_to_be_said_what_absence_means(tmp_path, capsys):
    source = tree(tmp_path, row(), images=("a", "b"))
    with pytest.raises(
        ValueError, match=r"says nothing of most others; a store cannot .*\?unlabelled=background takes"
    ):
        ingest(source.partition("?")[0], str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()
    ingest(source, str(tmp_path / "store"))
    said = capsys.readouterr().err
    assert "says nothing of most others: what has no box is taken for background" in said
    assert "1 images have no box in any file: they are unlabelled" in said
    assert "1 absent, 1 labelled" in said


def test_names_of_classes(tmp_path):
    names = 'LabelName,DisplayName\n/m/1,Bat\n/m/0k4j,"Bat"\n/m/3,"Salt, ""sea"""\n'
    dataset = load_dataset(tree(tmp_path, row(), names=names))
    assert dataset.spaces["detection"].names == ("Bat (/m/1)", "Bat (/m/0k4j)", 'Salt, "sea"')
    assert "classes of one name have their label added: Bat" in dataset.notes


def test_splits(tmp_path):
    source = tree(tmp_path, row())
    (tmp_path / "test").mkdir()
    (tmp_path / "train/a.jpg").rename(tmp_path / "test/b.jpg")
    tree(tmp_path, row(), images=("a",))
    (tmp_path / "validation-annotations-bbox.csv").write_text(HEAD)
    dataset = load_dataset(source)
    assert [(e.split, e.targets is None) for e in dataset.entries(0, 2)] == [("train", False), ("test", True)]
    assert dataset.left_out == {"CSV of splits without images": 1}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (row(box=("nan", 1, 0, 1)), "line 3: XMin: must be a number; got 'nan'"),
        (row(box=(0, "inf", 0, 1)), "line 3: XMax: must be a number; got 'inf'"),
        (row(box=(0, 1, 0, 1.02)), "line 3: YMax: '1.02' must be in 0..1, a fraction"),
        (row(box=(0, 640, 0, 1)), "line 3: XMax: '640' must be in 0..1"),
        (row(box=(0.5, 0.5, 0, 1)), "line 3: box of Car: .* has no area"),
        (row(confidence=0.8), "line 3: Confidence: is '0.8': a detector's box"),
        (row(group=2), "line 3: IsGroupOf: must be 0, 1 or -1; got '2'"),
        (row(label="/m/x"), "line 3: LabelName: '/m/x' is none of the 2 described classes"),
        ("a,xclick", "line 3: has 2 cells, fewer than its first line says"),
        ("a,\xff\x00", "line 3: has 2 cells"),
        ("\n".join([row()] * 16_400), "line 16386: an image may have at most 16,384 objects"),
    ],
)
def test_a_broken_row_spoils_its_image_alone(tmp_path, bad, said):
    source = tree(tmp_path, row(), bad, row("b"), images=("a", "b"))
    with pytest.raises(ValueError, match=said):
        read(source)
    assert len(read(source, 1)["detection"].box) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head": "ImageID,XMin,XMax"}, "bbox.csv: column LabelName: missing in the first line; it has 'ImageID,"),
        ({"images": ("b",)}, "no image that is there has a box"),
        ({"names": ""}, "class-descriptions-boxable.csv: names no class"),
        ({"names": "Car\n"}, "line 1: must be a label and a name, as /m/0k4j,Car; got 'Car'"),
        ({"names": NAMES + "/m/0k4j,Bus\n"}, "line 3: '/m/0k4j' is 'Car' already"),
        ({"rows": ["x" * 10_000]}, "line 2: is longer than 4,096 bytes"),
    ],
)
def test_what_is_broken_throughout_is_named(tmp_path, change, said):
    rows = change.pop("rows", [row()])
    with pytest.raises(ValueError, match=said):
        load_dataset(tree(tmp_path, *rows, **change))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("openimages:{}/none", "is no folder: expected"),
        ("openimages:{}?unlabelled=background", "has no class-descriptions-boxable.csv: expected"),
        ("openimages:{}?unlabelled=x", "unlabelled=x in openimages:.*: there is background"),
    ],
)
def test_what_is_no_tree(tmp_path, source, said):
    with pytest.raises(ValueError, match=said):
        load_dataset(source.format(tmp_path))


def test_two_files_of_a_split(tmp_path):
    source = tree(tmp_path, row())
    (tmp_path / "oidv6-train-annotations-bbox.csv").write_text(HEAD)
    with pytest.raises(ValueError, match="both have the boxes of train: keep one of them"):
        load_dataset(source)
