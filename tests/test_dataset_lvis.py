"""LVIS: which images a file means, what is said of classes that nobody looked for, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.tasks.detection import MASKS
from polyteach.verbs.ingest import ingest

H, W = 20, 30
TRAIN, VAL = (f"http://images.cocodataset.org/{f}/000000000009.jpg" for f in ("train2017", "val2017"))


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(path)


def image(id=1, url=TRAIN, absent=(), partial=(), **more):
    about = {"id": id, "coco_url": url, "height": H, "width": W}
    return about | {"neg_category_ids": list(absent), "not_exhaustive_category_ids": list(partial)} | more


def annotation(id=1, image=1, category=3, box=(2, 3, 10, 5)):
    x, y, w, h = box
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {"id": id, "image_id": image, "category_id": category, "bbox": [x, y, w, h], "segmentation": outline}


def write(root, images, annotations=(), name="annotations/lvis_v1_train.json"):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"id": i, "name": n, "frequency": "r"} for i, n in ((1, "ant"), (3, "bow_(tie)"), (4, "cup"))]
    about = {"images": list(images), "categories": categories}
    path.write_text(json.dumps(about | ({} if annotations is None else {"annotations": list(annotations)})))
    return f"lvis:{root}?unlabelled=background"


@pytest.fixture
def root(tmp_path):
    for folder in ("train2017", "val2017"):
        picture(tmp_path / f"data/{folder}/000000000009.jpg")
    return tmp_path / "data"


def entries(source):
    dataset = load_dataset(source)
    return list(dataset.entries(0, len(dataset.names)))


def targets(entry):
    if entry.problem:
        raise ValueError(entry.problem)
    return entry.targets((H, W))


def test_boxes_and_outlines(root):
    source = write(root, [image(absent=[1])], [annotation()])
    dataset = load_dataset(source)
    assert list(dataset.names) == ["train2017/000000000009.jpg"]
    assert dataset.spaces["detection"].names == ("ant", "bow_(tie)", "cup")
    assert dataset.spaces["detection"].kind == MASKS
    [entry] = entries(source)
    assert entry.split == "train"
    found = entry.targets((H, W))["detection"]
    assert found.box.tolist() == [[2, 3, 12, 8]]
    assert found.category.tolist() == [1]
    expected = np.zeros((H, W), bool)
    expected[3:8, 2:12] = True
    np.testing.assert_array_equal(found.mask[0].numpy(), expected)


def test_what_is_not_said_of_classes_stops_until_it_is_decided(root, tmp_path, capsys):
    """Counted by hand: 2 images, of which the first excludes two classes and the second has objects not drawn."""
    picture(root / "train2017/000000000010.jpg")
    images = [image(absent=[1, 4]), image(2, TRAIN.replace("09.", "10."), partial=[3])]
    source = write(root, images, [annotation(), annotation(2, 2)])
    said = r"each of the 2 images says of few of the 3 classes .* and 1\.0 others .* of 1 it is known that objects are"
    with pytest.raises(ValueError, match=said + r" not drawn; a store cannot .*\?unlabelled=background takes"):
        ingest(f"lvis:{root}", str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()
    assert [e.targets is None for e in entries(source)] == [False, False]
    assert [e.targets is None for e in entries(source + "&inexhaustive=absent")] == [False, True]
    store = ingest(source + "&inexhaustive=absent", str(tmp_path / "store"))
    err = capsys.readouterr().err
    assert "the latter are unlabelled here, and what is not drawn in the others is taken for background" in err
    assert "1 absent, 1 labelled" in err
    assert len(store.images(0)) == 2


@pytest.mark.parametrize(
    ("file", "about"),
    [
        ("val2017/000000000009.jpg", {"coco_url": VAL}),
        ("images/val2017/000000000009.jpg", {"coco_url": VAL}),
        ("val2017/000000000009.jpg", {"coco_url": None, "file_name": "COCO_val2014_000000000009.jpg"}),
        ("val2017/000000000009.jpg", {"coco_url": VAL, "file_name": "COCO_train2014_000000000010.jpg"}),
    ],
)
def test_where_images_are(tmp_path, file, about):
    picture(tmp_path / file)
    source = write(tmp_path, [image() | about], [annotation()], "lvis_v1_val.json")
    assert list(load_dataset(source).names) == [file]
    assert entries(source)[0].split == "val"


def test_a_test_file_without_annotations_needs_no_decision(root):
    picture(root / "test2017/000000000009.jpg")
    bare = {k: v for k, v in image(url=TRAIN.replace("train", "test")).items() if "category" not in k}
    write(root, [bare], None, "annotations/lvis_v1_image_info_test_dev.json")
    [entry] = entries(f"lvis:{root}")
    assert (entry.split, entry.targets) == ("test_dev", None)
    assert not load_dataset(f"lvis:{root}").spaces


def test_splits_without_images_are_counted_and_missing_images_are_errors(root):
    gone = TRAIN.replace("09.", "11.")
    write(root, [image(), image(2, gone)], [annotation()])
    source = write(root, [image(url=gone)], [annotation()], "annotations/lvis_v1_val.json")
    dataset = load_dataset(source)
    assert dataset.left_out == {"JSON of splits without images": 1}
    problems = [e.problem for e in dataset.entries(0, 2)]
    assert problems[0] is None
    assert "images[1]: 'train2017/000000000011.jpg' is not below" in problems[1]


@pytest.mark.parametrize(
    "hostile",
    [
        image(2, "http://x/../../../../etc/passwd"),
        image(2, "http://x/../000000000009.jpg"),
        image(2, "http://[x/a/b.jpg", file_name="/etc/passwd"),
        image(2, 7),
        image(2, TRAIN.replace("09.", "10."), absent=[1.5]),
        image(2, TRAIN.replace("09.", "10."), neg_category_ids={"1": 1}),
        image(2, TRAIN.replace("09.", "10."), not_exhaustive_category_ids=[10**400, "x"]),
    ],
)
def test_a_hostile_record_spoils_its_image_alone(root, hostile):
    picture(root / "train2017/000000000010.jpg")
    source = write(root, [image(), hostile], [annotation(), annotation(2, 2)])
    good, *bad = entries(source)
    assert good.problem is None
    assert len(good.targets((H, W))["detection"].box) == 1
    assert bad
    assert all("lvis_v1_train.json: images[1]" in e.problem or "annotations[1]" in e.problem for e in bad)


@pytest.mark.parametrize(
    ("images", "annotations", "said"),
    [
        ([image(absent=[3])], [annotation()], r"annotations\[0\].category_id: 3 is in neg_category_ids"),
        ([image()], [annotation(box=(2, 3, 1e300, 5))], r"annotations\[0\].bbox: lies far beyond"),
        ([image()], [annotation(box=(2, 3, float("nan"), 5))], r"annotations\[0\].bbox: must be 4 finite numbers"),
        ([image()], [annotation(category=2)], r"category_id: 2 is none of the file's 3 categories"),
        ([image(), image(2)], [annotation()], r"images\[1\]: .* is also the image of .*images\[0\]"),
    ],
)
def test_what_is_broken_is_named(root, images, annotations, said):
    first = entries(write(root, images, annotations))[0]
    with pytest.raises(ValueError, match=said):
        targets(first)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("lvis:{}/none", "is no folder: expected"),
        ("lvis:{}", "has no lvis_v1_.*json: expected"),
        ("lvis:{}?unlabelled=ignored", "unlabelled=ignored in lvis:.*: there is background"),
        ("lvis:{}?inexhaustive=x", "inexhaustive=x in lvis:.*: there are learned and absent"),
    ],
)
def test_what_is_no_tree(root, source, said):
    with pytest.raises(ValueError, match=said):
        load_dataset(source.format(root))


def test_two_versions_of_a_split(root):
    write(root, [image()], name="annotations/lvis_v0.5_train.json")
    with pytest.raises(ValueError, match=r"lvis_v1_train.json and .*lvis_v0.5_train.json are both of the split train"):
        load_dataset(write(root, [image()]))
