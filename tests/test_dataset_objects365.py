"""Objects365 version 2's patches in the ways that tools unpack them; odd boxes, missing pictures, memory."""

import json

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.tasks.contract import Space
from polyteach.verbs.ingest import ingest

H, W = 20, 30
NAMES = [f"thing {i}" for i in range(1, 366)]


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(path)


def image(k, file):
    return {"height": H, "id": k, "license": 5, "width": W, "file_name": file, "url": "http://x"}


def annotation(k, of, box, category=1, **more):
    flags = {"iscrowd": 0, "isfake": 0, "isreflected": 0}
    return {"id": k, "area": 9.0, "bbox": box, "image_id": of, "category_id": category} | flags | more


TRAIN = [
    image(420917, "images/v1/patch8/objects365_v1_00420917.jpg"),
    image(900001, "images/v2/patch23/objects365_v2_00900001.jpg"),
    image(900002, "images/v2/patch23/objects365_v2_00900002.jpg"),
]
BOXES = [
    annotation(1, 900001, [1.5, 2.25, 10.5, 8.0], 365),
    annotation(2, 420917, [20.0, 10.0, 25.0, 30.0], 1, isfake=1),
    annotation(3, 420917, [0.0, 0.0, 5.0, 5.0], 7, iscrowd=1),
    annotation(4, 420917, [1, 2, 3, 4], 7, isreflected=1),
]
VAL = [image(1, "images/v1/patch0/objects365_v1_00000001.jpg")]


def write(path, images, annotations, names=NAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"name": n, "id": i + 1} for i, n in reversed(list(enumerate(names)))]
    licenses = [{"name": "CC BY", "id": 5, "url": "http://by"}]
    content = {"images": images, "annotations": annotations, "categories": categories, "licenses": licenses}
    path.write_text(json.dumps(content))


PLACES = {
    "MMDetection": ("{split}/{patch}", "annotations"),
    "archives": ("{split}/images/{version}/{patch}", "{split}"),
    "OpenDataLab": ("{split}/{version}/{patch}", "."),
    "patches under images": ("images/{split}/{patch}", "annotations"),
    "as the JSON says": ("images/{version}/{patch}", "annotations"),
    "Ultralytics": ("images/{split}", "."),
    "flat": ("{split}", "annotations"),
}


def tree(root, pictures="{split}/{patch}", files="annotations"):
    for split, images, annotations in (("train", TRAIN, BOXES), ("val", VAL, [annotation(1, 1, [1, 1, 2, 2], 2)])):
        for one in images:
            _, version, patch, base = one["file_name"].split("/")
            picture(root / pictures.format(split=split, version=version, patch=patch) / base)
        write(root / files.format(split=split) / f"zhiyuan_objv2_{split}.json", images, annotations)
    return root


@pytest.mark.parametrize("place", PLACES)
def test_every_way_of_unpacking(tmp_path, place):
    pictures, files = PLACES[place]
    root = tree(tmp_path / "in", pictures, files)
    store = ingest(f"objects365:{root}", str(tmp_path / "store"), progress=False)
    rows = list(store.images(0))
    expected = []
    for split, images in (("train", TRAIN), ("val", VAL)):
        for one in images:
            _, version, patch, base = one["file_name"].split("/")
            expected.append((pictures.format(split=split, version=version, patch=patch) + f"/{base}", split))
    assert [(r.id, r.split) for r in rows] == expected
    assert all(r.uri == str(root / r.id) and r.licence == "CC BY http://by" for r in rows)
    (labels,) = store.sets()
    assert labels.space == Space(tuple(NAMES), "boxes")
    first, second, third, last = labels.read(0)
    assert first.box.tolist() == [[20, 10, 30, 20], [0, 0, 5, 5], [1, 2, 4, 6]]  # the first is clipped
    assert first.category.tolist() == [0, 6, 6]
    assert first.ignore.tolist() == [False, True, False]
    assert first.mask is None
    assert second.box.tolist() == [[1.5, 2.25, 12, 10.25]]
    assert second.category.tolist() == [364]
    assert len(third.box) == 0
    assert last.category.tolist() == [1]


def test_one_split_is_enough_and_the_other_is_counted(tmp_path):
    root = tree(tmp_path)
    for file in (root / "train").rglob("*.jpg"):
        file.unlink()
    for folder in ("train/patch8", "train/patch23", "train"):
        (root / folder).rmdir()
    dataset = load_dataset(f"objects365:{root}")
    assert list(dataset.names) == ["val/patch0/objects365_v1_00000001.jpg"]
    assert dataset.left_out == {"JSON of splits without a folder of images": 1}


def test_boxes_far_beyond_the_picture_are_clipped_and_counted_and_those_outside_refused(tmp_path, capsys):
    root = tree(tmp_path / "in")
    ingest(f"objects365:{root}", str(tmp_path / "store"))
    assert "1 of 5 objects reached beyond the image and were clipped" in capsys.readouterr().err
    write(root / "annotations/zhiyuan_objv2_val.json", VAL, [annotation(8, 1, [30, 2, 9, 9])])
    with pytest.raises(ValueError, match=r"annotations\[0\].bbox of id 8: \[30, 2, 9, 9\] lies outside of the image"):
        ingest(f"objects365:{root}", str(tmp_path / "strict"), progress=False)


def test_two_records_of_one_picture_are_refused(tmp_path):
    root = tree(tmp_path)
    write(root / "annotations/zhiyuan_objv2_val.json", [*VAL, VAL[0] | {"id": 2}], [annotation(8, 2, [3, 2, 9, 9])])
    entries = [*load_dataset(f"objects365:{root}").entries(3, 5)]
    said = "zhiyuan_objv2_val.json: images[1].file_name: val/patch0/objects365_v1_00000001.jpg is also that of "
    assert [e.problem for e in entries] == [f"{said}zhiyuan_objv2_val.json: images[0]"] * 2


def test_a_folder_above_the_tree_finds_it(tmp_path):
    tree(tmp_path / "Objects365")
    dataset = load_dataset(f"objects365:{tmp_path}")
    assert len(dataset.names) == 4
    assert dataset.notes == [f"{tmp_path} holds the tree in a folder below it: {tmp_path}/Objects365 was read"]


def test_missing_pictures_and_patches_go_to_the_rejects(tmp_path):
    root = tree(tmp_path / "in")
    gone = root / "train/patch23/objects365_v2_00900001.jpg"
    gone.unlink()
    with pytest.raises(ValueError, match=r"train/patch23/objects365_v2_00900001.jpg: cannot be read: No such file"):
        ingest(f"objects365:{root}", str(tmp_path / "strict"), progress=False)
    (root / "train/patch8/objects365_v1_00420917.jpg").unlink()
    (root / "train/patch8").rmdir()
    store = ingest(f"objects365:{root}", str(tmp_path / "store"), progress=False, skip_bad=True)
    assert [i for i, _, _ in store.rejects()] == [
        "train/patch8/objects365_v1_00420917.jpg",
        "train/patch23/objects365_v2_00900001.jpg",
    ]
    assert [r.id for r in store.images(0)] == [
        "train/patch23/objects365_v2_00900002.jpg",
        "val/patch0/objects365_v1_00000001.jpg",
    ]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (
            annotation(9, 1, [1, 2, 0, 4]),
            r"val/patch0/.*zhiyuan_objv2_val.json: annotations\[0\].bbox: width and height",
        ),
        (annotation(9, 1, [1, 2, 3, 4], 366), r"annotations\[0\].category_id: 366 is none of the file's 365"),
        (annotation(9, 5, [1, 2, 3, 4]), r"val: zhiyuan_objv2_val.json: annotations\[0\].*image_id: 5 is the id of no"),
    ],
)
def test_broken_annotations(tmp_path, bad, said):
    root = tree(tmp_path / "in")
    write(root / "annotations/zhiyuan_objv2_val.json", VAL, [bad])
    with pytest.raises(ValueError, match=said):
        ingest(f"objects365:{root}", str(tmp_path / "strict"), progress=False)
    store = ingest(f"objects365:{root}", str(tmp_path / "store"), progress=False, skip_bad=True)
    (reject,) = store.rejects()
    assert reject[2] in said or "annotations[0]" in reject[2]


def test_trees_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"is no folder: expected ROOT/annotations/zhiyuan_objv2_train.json"):
        load_dataset(f"objects365:{tmp_path / 'nothing'}")
    with pytest.raises(ValueError, match=r"no split with images: expected ROOT/annotations"):
        load_dataset(f"objects365:{tmp_path}")
    root = tree(tmp_path)
    with pytest.raises(ValueError, match=r"'a=b' in .* is no option"):
        load_dataset(f"objects365:{root}?a=b")
    write(root / "annotations/zhiyuan_objv2_val.json", VAL, [], NAMES[:3])
    with pytest.raises(ValueError, match=r"objv2_val.json: categories: are others than in .*objv2_train.json"):
        load_dataset(f"objects365:{root}")
    (root / "annotations/zhiyuan_objv2_val.json").unlink()
    with pytest.raises(ValueError, match=r"val has images, and there is no zhiyuan_objv2_val.json"):
        load_dataset(f"objects365:{root}")


def test_annotations_are_found_whatever_their_order(tmp_path):
    """Many annotations, shuffled over the images: each image gets its own, in the file's order."""
    r = np.random.default_rng(0)
    owners = r.integers(0, 40, 3000)
    images = [image(1000 - k, f"images/v1/patch0/objects365_v1_{k:08}.jpg") for k in range(40)]
    boxes = [annotation(k, 1000 - int(o), [0.5, 0.5, 1 + k / 8, 3], 1 + k % 365) for k, o in enumerate(owners)]
    (tmp_path / "val/patch0").mkdir(parents=True)
    write(tmp_path / "zhiyuan_objv2_val.json", images, boxes)
    dataset = load_dataset(f"objects365:{tmp_path}")
    for k, entry in enumerate(dataset.entries(0, 40)):
        target = entry.targets((H, W))["detection"]
        mine = np.nonzero(owners == k)[0]
        assert target.category.tolist() == [int(i) % 365 for i in mine]
        assert target.box[:, 2].tolist() == [min(1.5 + int(i) / 8, W) for i in mine]


@pytest.mark.parametrize("name", ["../../secret.jpg", "../secret.jpg", "/secret.jpg", "x/../../../secret.jpg"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    root = tmp_path / "in" / "root"
    picture(root / "images/patch0/a.jpg")
    picture(tmp_path / "in/secret.jpg")
    picture(tmp_path / "secret.jpg")
    write(root / "annotations/zhiyuan_objv2_train.json", [image(1, name)], [annotation(1, 1, [1, 2, 3, 4])])
    [entry] = load_dataset(f"objects365:{root}").entries(0, 9)
    assert entry.uri.startswith(f"{root}/")
    assert ".." not in entry.uri
