"""KITTI: boxes and what is not cared for, difficulty, depth and its images, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.tasks import load_task
from polyteach.tasks.detection import BOXES, DetectionTarget
from polyteach.verbs.ingest import ingest

H, W = 60, 90
DRIVE = "2011_09_26_drive_0001_sync"
DEPTH = np.zeros((H, W), np.uint16)
DEPTH[10:20, 5:50] = 2560
DEPTH[30, 30] = 65535


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def picture(path):
    save(path, np.full((H, W, 3), 90, np.uint8))


def line(type="Car", box=(5, 10, 30, 50.5), truncated=0.0, occluded=0, more=""):
    rest = "1.65 1.67 3.64 -0.65 1.71 46.70 -1.59"
    return f"{type} {truncated} {occluded} -1.58 {' '.join(map(str, box))} {rest}{more}\n"


def tree(root, *lines, name="000000"):
    picture(root / f"training/image_2/{name}.png")
    path = root / f"training/label_2/{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    return f"kitti:{root}"


def read(source, at=0):
    dataset = load_dataset(source)
    entry = next(dataset.entries(at, at + 1))
    assert entry.problem is None
    return entry.targets((H, W))


def test_boxes(tmp_path):
    source = tree(tmp_path, line(), line("Misc", (0, 0, 4, 5)), "\n")
    picture(tmp_path / "testing/image_2/000000.png")
    found = read(source, 1)["detection"]
    assert found.box.tolist() == [[5, 10, 30, 50.5], [0, 0, 4, 5]]
    assert found.category.tolist() == [0, 7]
    assert not found.ignore.any()
    dataset = load_dataset(source)
    assert list(dataset.names) == ["testing/image_2/000000.png", "training/image_2/000000.png"]
    assert [(e.split, e.targets is None) for e in dataset.entries(0, 2)] == [("testing", True), ("training", False)]
    assert dataset.spaces["detection"].kind == BOXES
    assert len(dataset.spaces["detection"].names) == 8
    assert set(dataset.spaces) == {"detection"}


def test_an_empty_file_is_labelled_and_a_missing_one_is_not(tmp_path, capsys):
    tree(tmp_path, line())
    tree(tmp_path, name="000001")
    picture(tmp_path / "training/image_2/000002.png")
    (tmp_path / "training/label_2/000009.txt").write_text(line())
    ingest(f"kitti:{tmp_path}", str(tmp_path / "store"))
    said = capsys.readouterr().err
    assert "1 images have neither a label file nor a depth map: they are unlabelled" in said
    assert "1 label files without an image" in said
    assert "1 absent, 2 labelled" in said


def test_what_nobody_cares_for_counts_neither_way(tmp_path):
    """A detection of any class in such a region is no false positive, by this tool's own metric."""
    source = tree(tmp_path, line(), line("DontCare", (60, 10, 80, 50), -1, -1))
    labels = read(source)
    known = labels["detection"]
    assert known.ignore.tolist() == [False] + [True] * 8
    assert known.category.tolist() == [0, *range(8)]
    assert labels.notes["detection"]["are regions of DontCare, ignored for every class"] == 1
    space, task = load_dataset(source).spaces["detection"], load_task("detection")
    for stray in (0, 3):
        said = DetectionTarget(
            box=torch.tensor([[60.0, 10, 80, 50], [5, 10, 30, 50.5]]),
            category=torch.tensor([stray, 0]),
            score=torch.tensor([0.9, 0.8]),
            ignore=torch.zeros(2, dtype=torch.bool),
        )
        metric = task.metric(space)
        metric.update([said], [known])
        assert metric.compute()["AP50"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("change", "easiest"),
    [
        ({}, "easy"),
        ({"box": (0, 0, 30, 39.9)}, "moderate"),
        ({"box": (0, 0, 30, 24.9)}, "all"),
        ({"occluded": 1}, "moderate"),
        ({"occluded": 2}, "hard"),
        ({"occluded": 3}, "all"),
        ({"truncated": 0.16}, "moderate"),
        ({"truncated": 0.31}, "hard"),
        ({"truncated": 0.51}, "all"),
    ],
)
def test_difficulty(tmp_path, change, easiest):
    source, levels = tree(tmp_path, line(**change)), ["easy", "moderate", "hard", "all"]
    learned = [not read(f"{source}?difficulty={d}")["detection"].ignore[0] for d in levels]
    assert learned == [k >= levels.index(easiest) for k in range(4)]


def test_other_classes(tmp_path):
    source = tree(tmp_path, line("forklift"), line("DontCare"))
    assert read(source + "?classes=person,forklift")["detection"].category.tolist() == [1, 0, 1]
    (tmp_path / "names.txt").write_text("forklift\nperson\n")
    assert read(source + "?classes=names.txt")["detection"].category.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("image", "depth", "split"),
    [
        (f"2011_09_26/{DRIVE}/image_02/data/5.png", f"train/{DRIVE}/proj_depth/groundtruth/image_02/5.png", "train"),
        (
            f"raw/2011_09_26/{DRIVE}/image_03/data/5.jpg",
            f"data_depth_annotated/val/{DRIVE}/proj_depth/groundtruth/image_03/5.png",
            "val",
        ),
        (f"val/{DRIVE}/image_02/data/5.png", f"val/{DRIVE}/proj_depth/groundtruth/image_02/5.png", "val"),
        (
            f"depth_selection/val_selection_cropped/image/{DRIVE}_image_0000000005_image_02.png",
            f"depth_selection/val_selection_cropped/groundtruth_depth/{DRIVE}_groundtruth_depth_0000000005_image_02.png",
            "val_selection_cropped",
        ),
    ],
)
def test_depth(tmp_path, image, depth, split):
    picture(tmp_path / image)
    save(tmp_path / depth, DEPTH)
    dataset = load_dataset(f"kitti:{tmp_path}")
    assert list(dataset.names) == [image]
    assert set(dataset.spaces) == {"depth"}
    assert next(dataset.entries(0, 1)).split == split
    found = read(f"kitti:{tmp_path}")["depth"]
    np.testing.assert_array_equal(found.valid.numpy(), DEPTH > 0)
    np.testing.assert_array_equal(found.value.numpy(), DEPTH / np.float32(256))


def test_both_halves_and_depth_without_an_image(tmp_path):
    tree(tmp_path, line())
    picture(tmp_path / f"2011_09_26/{DRIVE}/image_02/data/5.png")
    for name in (5, 6):
        save(tmp_path / f"train/{DRIVE}/proj_depth/groundtruth/image_02/{name}.png", DEPTH)
    dataset = load_dataset(f"kitti:{tmp_path}")
    assert set(dataset.spaces) == {"detection", "depth"}
    assert dataset.left_out == {"depth maps without an image": 1}
    assert [set(e.targets((H, W))) for e in dataset.entries(0, 2)] == [{"detection"}, {"depth"}]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line(more=" 0.9")], "line 1: must have 15 fields .*; has 16: the last is a score"),
        (["Car 0 0\n"], "line 1: must have 15 fields with spaces between them; has 3$"),
        ([line(), line("Dog")], "line 2: type 'Dog' is none of Car, Van"),
        ([line(box=(5, 10, "nan", 50))], "line 1: must be finite numbers"),
        ([line(box=(5, 10, "1e400", 50))], "line 1: must be finite numbers"),
        ([line(box=(5, 10, 1e300, 50))], "line 1: box of Car: .* lies far beyond any image"),
        ([line(box=(5, 10, 5, 50))], "line 1: box of Car: .* has no area"),
        ([line(box=(5, 10, "x", 50))], "line 1: must be numbers after the type"),
        ([line("DontCare")] * 20_000, "line 16385: an image may have at most 16,384 objects"),
    ],
)
def test_what_is_broken_is_named(tmp_path, lines, said):
    source = tree(tmp_path, *lines)
    with pytest.raises(ValueError, match=said):
        read(source)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (DEPTH * 0, "depth is known nowhere: it is 0 throughout"),
        (DEPTH.astype(np.uint8), "must be a grey PNG of 16 bits; it is L"),
        (DEPTH[:9], "is 9 x 90 .* but the image is 60 x 90"),
    ],
)
def test_depth_that_is_none(tmp_path, pixels, said):
    picture(tmp_path / f"2011_09_26/{DRIVE}/image_02/data/5.png")
    save(tmp_path / f"train/{DRIVE}/proj_depth/groundtruth/image_02/5.png", pixels)
    with pytest.raises(ValueError, match=said):
        read(f"kitti:{tmp_path}")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("kitti:{}/none", "is no folder: expected"),
        ("kitti:{}", "has no image with a label file or a depth map: expected"),
        ("kitti:{}?difficulty=x", "difficulty=x in kitti:.*: there are easy, moderate, hard, all"),
        ("kitti:{}?classes=a,DontCare", "DontCare is no class: leave it out"),
    ],
)
def test_what_is_no_tree(tmp_path, source, said):
    with pytest.raises(ValueError, match=said):
        load_dataset(source.format(tmp_path))
