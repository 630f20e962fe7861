"""COCO's tree as its archives unpack: boxes, outlines, panoptic and stuff maps, and what is refused."""

import contextlib
import io
import json
import re
import shutil
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from polyteach.datasets import _coco_outlines, _json_stream, load_dataset
from polyteach.tasks.contract import Space
from polyteach.verbs.ingest import ingest

IGNORE = 65535
H, W = 24, 32
PEOPLE, CAR = 1, 90
CATEGORIES = [  # ids with gaps, not in order
    {"id": CAR, "name": "car", "supercategory": "vehicle"},
    {"id": PEOPLE, "name": "person", "supercategory": "person"},
    {"id": 13, "name": "stop sign", "supercategory": "outdoor"},
]


def picture(path, size=(H, W)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)


def image(k, **more):
    return {"id": k, "file_name": f"{k:012}.jpg", "height": H, "width": W, "license": 4, "coco_url": "http://x"} | more


def annotation(k, of, category=PEOPLE, box=(2, 3, 10, 8), segmentation=None, **more):
    x, y, w, h = box
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {
        "id": k,
        "image_id": of,
        "category_id": category,
        "bbox": list(box),
        "segmentation": polygon if segmentation is None else segmentation,
        "area": w * h,
        "iscrowd": 0,
    } | more


def counts_of(mask):
    """Uncompressed run lengths, as COCO writes those of crowds."""
    flat = mask.T.ravel().astype(int)
    runs, value, length = [], 0, 0
    for pixel in flat:
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    return {"counts": [*runs, length], "size": list(mask.shape)}


def text_of(mask):
    code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"counts": code["counts"].decode(), "size": code["size"]}


def write(path, images, annotations=None, categories=CATEGORIES, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"info": {"year": 2017}, "licenses": [{"id": 4, "name": "Attribution License", "url": "http://by"}]}
    content |= {"images": images, "categories": categories}
    if annotations is not None:
        content["annotations"] = annotations
    path.write_text(json.dumps(content | more))


def bomb(path, side):
    """Let a PNG say that it is side x side, with the pixels that it has."""
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)


BLOB = np.zeros((H, W), dtype=bool)
BLOB[5:12, 3:9] = BLOB[10:14, 20:30] = True


@pytest.fixture
def root(tmp_path):
    """train2017 with the odd cases, val2017, test2017 by its image_info, unlabeled2017 without any JSON."""
    root = tmp_path / "coco"
    for k in (1, 2, 3, 4):
        picture(root / f"train2017/{k:012}.jpg")
    two = [[1, 1, 12.5, 1, 12.5, 9.25, 1, 9], [20.0, 10, 28, 10, 28, 20]]
    write(
        root / "annotations/instances_train2017.json",
        [image(3), image(1), image(2)],
        [
            annotation(11, 1, CAR, segmentation=two),
            annotation(900100000012, 1, PEOPLE, (3, 5, 27, 9), counts_of(BLOB), iscrowd=1),
            annotation(13, 3, 13, (3, 5, 27, 9), text_of(BLOB)),
            annotation(14, 1, PEOPLE, (0.5, 0.25, 3.75, 2)),
        ],
    )
    picture(root / "val2017/000000000009.jpg")
    write(root / "annotations/instances_val2017.json", [image(9)], [annotation(1, 9)])
    picture(root / "test2017/000000000020.jpg")
    write(root / "annotations/image_info_test2017.json", [image(20)])
    write(root / "annotations/image_info_test-dev2017.json", [image(20)])
    picture(root / "unlabeled2017/000000000030.jpg")
    write(root / "annotations/captions_train2017.json", [image(1)], [])
    return root


def panoptic(root, split, maps, images=None):
    """maps: picture id -> (segment ids as (H, W), segments_info)."""
    folder = root / f"annotations/panoptic_{split}"
    folder.mkdir(parents=True, exist_ok=True)
    for k, (ids, _) in maps.items():
        colour = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        Image.fromarray(colour).save(folder / f"{k:012}.png")
    annotations = [{"image_id": k, "file_name": f"{k:012}.png", "segments_info": s} for k, (_, s) in maps.items()]
    categories = [{"id": 1, "name": "person", "isthing": 1}, {"id": 200, "name": "rug-merged", "isthing": 0}]
    categories.insert(0, {"id": 92, "name": "banner", "isthing": 0})
    write(root / f"annotations/panoptic_{split}.json", images or [image(k) for k in maps], annotations, categories)


def answers(source, task):
    """name -> (split, target) by way of the reader alone, and name -> what is wrong."""
    dataset = load_dataset(source)
    found, wrong = {}, {}
    for name, entry in zip(dataset.names, dataset.entries(0, len(dataset.names)), strict=True):
        if entry.problem:
            wrong[name] = entry.problem
            continue
        try:
            found[name] = (entry.split, entry.targets((H, W)).get(task))
        except ValueError as e:
            wrong[name] = str(e)
    return found, wrong


def by_pycocotools(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own, with numpy 2
def test_boxes_and_outlines_as_pycocotools_reads_them(root):
    dataset = load_dataset(f"coco:{root}")
    assert dataset.spaces == {"detection": Space(("person", "stop sign", "car"), "boxes and masks")}
    found, wrong = answers(f"coco:{root}", "detection")
    assert not wrong
    for split, count in (("train2017", 3), ("val2017", 1)):
        api = by_pycocotools(root / f"annotations/instances_{split}.json")
        assert len(api.imgs) == count
        for k, about in api.imgs.items():
            seen, target = found[f"{split}/{about['file_name']}"]
            assert seen == split
            expected = api.imgToAnns[k]
            boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in expected)]
            assert target.box.tolist() == boxes
            order = [PEOPLE, 13, CAR]
            assert target.category.tolist() == [order.index(a["category_id"]) for a in expected]
            assert target.ignore.tolist() == [bool(a["iscrowd"]) for a in expected]
            assert target.score.tolist() == [1] * len(expected)
            assert target.mask.shape == (len(expected), H, W)
            for mask, a in zip(target.mask.numpy(), expected, strict=True):
                np.testing.assert_array_equal(mask, api.annToMask(a).astype(bool))
                assert 0 < mask.sum() < H * W


def test_splits_unlabelled_pictures_and_what_is_left_out(root, tmp_path):
    store = ingest(f"coco:{root}", str(tmp_path / "store"), progress=False)
    rows = {r.id: r for part in store.parts() for r in store.images(part)}
    assert {i: r.split for i, r in rows.items()} == {
        "test2017/000000000020.jpg": "test2017",
        "train2017/000000000003.jpg": "train2017",
        "train2017/000000000001.jpg": "train2017",
        "train2017/000000000002.jpg": "train2017",
        "unlabeled2017/000000000030.jpg": "unlabeled2017",
        "val2017/000000000009.jpg": "val2017",
    }
    assert rows["train2017/000000000001.jpg"].licence == "Attribution License http://by"
    (labels,) = store.sets()
    found = dict(zip(labels.ids(0), labels.read(0), strict=True))
    assert found["test2017/000000000020.jpg"] is None
    assert found["unlabeled2017/000000000030.jpg"] is None
    assert len(found["train2017/000000000002.jpg"].box) == 0  # no annotations: labelled, and nothing there
    assert len(found["train2017/000000000001.jpg"].box) == 3
    assert load_dataset(f"coco:{root}").left_out == {
        ".json": 1,
        "JSON of splits without a folder of images": 1,  # test-dev2017
        "images that their split's JSON does not list": 1,  # train2017/000000000004.jpg
    }


def test_panoptic_maps(root):
    ids = np.zeros((H, W), dtype=np.int64)
    ids[:, 8:] = 5
    ids[10:, 10:20] = 256 * 7 + 3
    ids[:4, :4] = 65536 * 200 + 256 * 100 + 50
    segments = [
        {"id": 5, "category_id": 200, "iscrowd": 0},
        {"id": 256 * 7 + 3, "category_id": 1, "iscrowd": 1},
        {"id": 65536 * 200 + 256 * 100 + 50, "category_id": 92, "iscrowd": 0},
    ]
    panoptic(root, "train2017", {1: (ids, segments)}, [image(1), image(2), image(77)])
    picture(root / "train2017/000000000077.jpg")
    dataset = load_dataset(f"coco:{root}")
    assert dataset.spaces["segmentation"] == Space(("person", "banner", "rug-merged"))
    found, wrong = answers(f"coco:{root}", "segmentation")
    assert not wrong
    target = found["train2017/000000000001.jpg"][1]
    expected = np.select([ids == 0, ids == 5, ids == 256 * 7 + 3], [IGNORE, 2, 0], 1)
    np.testing.assert_array_equal(target.category.numpy(), expected)
    np.testing.assert_array_equal(target.probability.numpy(), (ids != 0).astype(np.float32))
    for absent in ("train2017/000000000002.jpg", "train2017/000000000003.jpg", "val2017/000000000009.jpg"):
        assert found[absent][1] is None
    boxes, _ = answers(f"coco:{root}", "detection")
    assert boxes["train2017/000000000077.jpg"][1] is None  # only the panoptic file lists it
    assert len(boxes["train2017/000000000001.jpg"][1].box) == 3
    without = load_dataset(f"coco:{root}?segmentation=none")
    assert list(without.spaces) == ["detection"]
    assert without.left_out["panoptic JSON (?segmentation=panoptic)"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda ids, s: ids.__setitem__((0, 0), 4),
            r"000000000009.png: shows segment 4, which .*annotations\[0\].segm",
        ),
        (lambda ids, s: s[0].update(category_id=7), r"segments_info\[0\].category_id: 7 is none of the file's 3"),
        (lambda ids, s: s.append(dict(s[0])), r"segments_info\[1\].id: must be in 1..16777215, and once"),
        (lambda ids, s: s[0].pop("id"), r"segments_info\[0\].id: .* got None"),
    ],
)
def test_broken_panoptic_annotations(root, change, said):
    ids, segments = np.full((H, W), 5), [{"id": 5, "category_id": 1, "iscrowd": 0}]
    change(ids, segments)
    panoptic(root, "val2017", {9: (ids, segments)})
    with pytest.raises(ValueError, match=said):
        next(e for e in load_dataset(f"coco:{root}").entries(5, 6)).targets((H, W))


def test_panoptic_maps_that_are_missing_or_no_map(root, tmp_path):
    ids, segments = np.full((H, W), 5), [{"id": 5, "category_id": 1, "iscrowd": 0}]
    panoptic(root, "val2017", {9: (ids, segments)})
    file = root / "annotations/panoptic_val2017/000000000009.png"
    for make, said in (
        (lambda: Image.fromarray(np.full((H, W), 5, np.uint8)).save(file), "must be an RGB image; it is L"),
        (lambda: Image.fromarray(np.zeros((H, W + 1, 3), np.uint8)).save(file), "is 24 x 33 .* image is 24 x 32"),
        (lambda: bomb(file, 30_000), "is 30000 x 30000 .* image is 24 x 32"),
        (lambda: file.write_bytes(b"no picture"), "000000000009.png: broken"),
        (file.unlink, "000000000009.png: missing"),
    ):
        make()
        with pytest.raises(ValueError, match=said):
            ingest(f"coco:{root}", str(tmp_path / "store"), progress=False)
    store = ingest(f"coco:{root}", str(tmp_path / "skipped"), progress=False, skip_bad=True)
    assert [i for i, _, _ in store.rejects()] == ["val2017/000000000009.jpg"]
    file.parent.rmdir()
    with pytest.raises(ValueError, match=r"unpack .*panoptic_val2017.zip there, or .*segmentation=none"):
        load_dataset(f"coco:{root}")


def test_stuff(root):
    other = np.zeros((H, W), dtype=bool)
    other[:, 30:] = True
    categories = [{"id": i, "name": n} for i, n in ((183, "other"), (92, "banner"), (106, "clouds"))]
    crowd = annotation(4, 1, 92, segmentation=text_of(np.ones((H, W), bool)), iscrowd=1)
    write(
        root / "annotations/stuff_train2017.json",
        [image(1)],
        [annotation(1, 1, 106, segmentation=text_of(BLOB)), annotation(2, 1, 183, segmentation=text_of(other)), crowd],
        categories,
    )
    (root / "annotations/stuff_train2017_pixelmaps").mkdir()
    dataset = load_dataset(f"coco:{root}")
    assert dataset.spaces["segmentation"].names == ("banner", "clouds", "other")
    found, wrong = answers(f"coco:{root}", "segmentation")
    assert not wrong
    expected = np.where(BLOB, 1, np.where(other, 2, IGNORE))
    np.testing.assert_array_equal(found["train2017/000000000001.jpg"][1].category.numpy(), expected)
    write(
        root / "annotations/stuff_train2017.json",
        [image(1)],
        [annotation(i, 1, 92 + 14 * i, segmentation=text_of(BLOB)) for i in (0, 1)],
        categories,
    )
    _, wrong = answers(f"coco:{root}", "segmentation")
    assert "annotations[1].segmentation: covers pixels that another" in wrong["train2017/000000000001.jpg"]


def test_panoptic_wins_over_stuff_unless_chosen(root):
    ids, segments = np.full((H, W), 5), [{"id": 5, "category_id": 1, "iscrowd": 0}]
    panoptic(root, "val2017", {9: (ids, segments)})
    write(root / "annotations/stuff_val2017.json", [image(9)], [], [{"id": 92, "name": "banner"}])
    assert len(load_dataset(f"coco:{root}").spaces["segmentation"].names) == 3
    assert load_dataset(f"coco:{root}?segmentation=stuff").spaces["segmentation"].names == ("banner",)
    with pytest.raises(ValueError, match="segmentation=all: is one of panoptic, stuff, none"):
        load_dataset(f"coco:{root}?segmentation=all")
    with pytest.raises(ValueError, match=r"'pixels=stuff' .* is no option"):
        load_dataset(f"coco:{root}?pixels=stuff")


BAD = {
    "zero width": (annotation(5, 9, box=(1, 2, 0, 5)), r"bbox: width and height must be above 0"),
    "negative height": (annotation(5, 9, box=(1, 2, 3, -5)), r"bbox: width and height must be"),
    "not finite": (annotation(5, 9, segmentation=[], bbox=[1, 2, float("nan"), 5]), r"bbox: must be 4 finite numbers"),
    "three numbers": (annotation(5, 9, bbox=[1, 2, 3]), r"bbox: must be 4 finite numbers"),
    "text": (annotation(5, 9, bbox=["1", 2, 3, 4]), r"bbox: must be 4 finite numbers"),
    "no box": ({"id": 5, "image_id": 9, "category_id": 1}, r"bbox: .*got None"),
    "unknown class": (annotation(5, 9, category=2), r"category_id: 2 is none of the file's 3"),
    "class as text": (annotation(5, 9, category="1"), r"category_id: '1' is none of"),
    "crowd": (annotation(5, 9, iscrowd=2), r"iscrowd: must be 0 or 1; got 2"),
    "odd polygon": (annotation(5, 9, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), r"segmentation: must be polygons"),
    "flat polygon": (annotation(5, 9, segmentation=[1, 2, 3, 4, 5, 6]), r"segmentation: must be polygons"),
    "far polygon": (
        annotation(5, 9, segmentation=[[1, 2, 1e9, 4, 5, 6]]),
        r"segmentation: a polygon reaches far beyond",
    ),
    "code of another size": (
        annotation(5, 9, segmentation={"counts": [768], "size": [W, H]}),
        r"segmentation.size: \[32",
    ),
    "code too short": (
        annotation(5, 9, segmentation={"counts": [700], "size": [H, W]}),
        r"segmentation.counts: the runs must",
    ),
    "code negative": (
        annotation(5, 9, segmentation={"counts": [-8, 776], "size": [H, W]}),
        r"segmentation.counts: the runs must",
    ),
    "code cut off": (
        annotation(5, 9, segmentation=text_of(BLOB) | {"counts": text_of(BLOB)["counts"][:-2]}),
        r"segmentation.counts: the runs must",
    ),
    "not its letters": (
        annotation(5, 9, segmentation={"counts": "é~", "size": [H, W]}),
        r"segmentation.counts: the runs must",
    ),
    "a box beyond numbers": (annotation(5, 9, bbox=[1, 2, 1e308, 1e308]), r"bbox: lies far beyond any image"),
    "a number that never ends": (
        annotation(5, 9, segmentation={"counts": "o" * 300_000, "size": [H, W]}),
        r"segmentation.counts: the runs must",
    ),
    "edges without end": (
        annotation(5, 9, segmentation=[[0, 0, W, H] * 40_000]),
        r"segmentation: the edges of its polygons are more than 4,000,000 pixels long",
    ),
    "deep nesting": (annotation(5, 9, iscrowd=json.loads("[" * 500 + "]" * 500)), r"iscrowd: must be 0 or 1; got list"),
    "id twice": (annotation(1, 9), r"id: 1 is also the id of annotations\[0\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_annotation_spoils_its_image_only(root, tmp_path, case):
    bad, said = BAD[case]
    picture(root / "val2017/000000000010.jpg")
    annotations = [annotation(1, 9), bad, annotation(2, 10)]
    write(root / "annotations/instances_val2017.json", [image(9), image(10)], annotations)
    where = r"val2017/000000000009.jpg: instances_val2017.json: annotations\[1\]."
    with pytest.raises(ValueError, match=where + said):
        ingest(f"coco:{root}", str(tmp_path / "strict"), progress=False)
    store = ingest(f"coco:{root}", str(tmp_path / "store"), progress=False, skip_bad=True)
    assert [i for i, _, _ in store.rejects()] == ["val2017/000000000009.jpg"]
    assert sum(store.count(p) for p in store.parts()) == 6


def test_annotations_of_no_image_and_broken_records_are_entries_of_their_own(root):
    images = [image(9), {"id": 10}, "x", image(9, file_name="again.jpg"), image(12, file_name="../../etc/passwd.jpg")]
    images += [image(0, id="13", file_name="x13.jpg"), image(14, height=-3), image(15, file_name="/tmp/x.jpg")]
    annotations = [annotation(1, 9), annotation(2, 999), annotation(3, None), "no object"]
    write(root / "annotations/instances_val2017.json", images, annotations)
    _, wrong = answers(f"coco:{root}", "detection")
    short = {
        k.replace("instances_val2017.json", "F"): v.replace("instances_val2017.json", "F") for k, v in wrong.items()
    }
    assert short == {
        "val2017: F: images[1]": "F: images[1].file_name: must name a file; got None",
        "val2017: F: images[2]": "F: images[2]: is no object but 'x'",
        "val2017/again.jpg": "F: images[3].id: 9 is also the id of 000000000009.jpg",
        "../etc/passwd.jpg": "F: images[4].file_name: '../../etc/passwd.jpg' lies outside of the dataset",
        "val2017/x13.jpg": "F: images[5].id: must be a whole number; got '13'",
        "val2017/000000000014.jpg": "F: images[6]: height, width: must be pixels; got -3, 32",
        "/tmp/x.jpg": "F: images[7].file_name: '/tmp/x.jpg' lies outside of the dataset",
        "val2017: F: annotations[1]": "F: annotations[1].image_id: 999 is the id of no image",
        "val2017: F: annotations[2]": "F: annotations[2].image_id: None is the id of no image",
        "val2017: F: annotations[3]": "F: annotations[3]: is no object but 'no object'",
    }


def test_a_picture_of_another_size_and_a_missing_one(root, tmp_path):
    picture(root / "val2017/000000000009.jpg", (W, H))
    said = r"instances_val2017.json: images, 000000000009.jpg: height, width: 24 x 32, but the image is 32 x 24"
    with pytest.raises(ValueError, match=said + r" \(turned"):
        ingest(f"coco:{root}", str(tmp_path / "a"), progress=False)
    (root / "val2017/000000000009.jpg").unlink()
    with pytest.raises(ValueError, match=r"val2017/000000000009.jpg: cannot be read: No such file"):
        ingest(f"coco:{root}", str(tmp_path / "b"), progress=False)
    store = ingest(f"coco:{root}", str(tmp_path / "c"), progress=False, skip_bad=True)
    assert [i for i, _, _ in store.rejects()] == ["val2017/000000000009.jpg"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"instances_val2017.json is broken or no JSON object: Expecting \{ at byte 0"),
        ("[]", r"Expecting \{ at byte 0"),
        ('{"images": [], "annotations": []}', r"instances_val2017.json: categories: missing; the fields are 'annot"),
        ('{"images": 3, "annotations": [], "categories": []}', r"Expecting \[ at byte 11"),
        ('{"images": [{"id": 1}, {"id" 2}]}', r"Expecting ':' delimiter at byte 29"),
        ('{"images": [{"id": 1},]}', r"Expecting value at byte 22"),
        ('{"images": [{"id": 1}', r"Expecting , or \] at byte 21"),
        ('{"images": [], 3: 4}', r"Expecting a field's name at byte 15"),
        ('{"images": []} x', r"Expecting the end of the file at byte 15"),
        ('{"images": [' + "[" * 100_000, r"is broken or no JSON object"),
        ('{"images": [' + "[" * 100_000 + "]" * 100_000 + "]}", r"less deeply nested values at byte 12"),
        ('{"images": [{"id": ' + "9" * 5_000 + "}]}", r"is broken or no JSON object.* at byte 12"),
        ('{"images": [], "annotations": [], "categories": [], "images": []}', r"images: is there twice"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', r"categories\[0\]: must have a whole number"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            r"categories\[1\].id: 1 is also the id of 'a'",
        ),
    ],
)
def test_a_broken_file_is_named(root, text, said):
    (root / "annotations/instances_val2017.json").write_text(text)
    with pytest.raises(ValueError, match=said) as e:
        load_dataset(f"coco:{root}")
    assert "instances_val2017.json" in str(e.value)


def test_other_categories_in_another_split(root):
    write(root / "annotations/instances_val2017.json", [image(9)], [], CATEGORIES[:2])
    with pytest.raises(ValueError, match=r"instances_val2017.json: categories: are others than in .*train2017"):
        load_dataset(f"coco:{root}")


def test_trees_that_are_none(tmp_path, root):
    with pytest.raises(ValueError, match=r"is no folder: expected ROOT/annotations/instances_SPLIT.json"):
        load_dataset(f"coco:{tmp_path / 'nothing'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no split with images: expected ROOT/annotations"):
        load_dataset(f"coco:{tmp_path / 'empty'}")
    (root / "annotations/instances_val2017.json").unlink()
    with pytest.raises(ValueError, match=r"val2017 has images, and there is no annotations/instances_val2017.json"):
        load_dataset(f"coco:{root}")


@pytest.mark.parametrize("where", ["custom", "images/custom", "images", "."])
def test_exports_of_other_tools(tmp_path, where):
    """No outlines, so a space of boxes; `ignore` as other tools mark crowds; names with folders; no sizes."""
    root = tmp_path / "in"
    picture(root / where / "sub/ü 1.jpg")
    picture(root / where / "2.jpg")
    images = [{"id": 0, "file_name": "sub/ü 1.jpg"}, {"id": 7, "file_name": "2.jpg"}]
    mark = [
        annotation(1, 0, segmentation=[], ignore=1),
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]},
    ]
    path = root / "annotations/instances_custom.json"
    write(path, images, mark)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    assert load_dataset(f"coco:{root}").spaces["detection"].kind == "boxes"
    found, wrong = answers(f"coco:{root}", "detection")
    assert not wrong
    (_, first), (_, second) = found.values()
    assert first.ignore.tolist() == [True]
    assert first.mask is None
    assert second.box.tolist() == [[1, 2, 4, 6]]
    store = ingest(f"coco:{root}", str(tmp_path / "store"), progress=False)
    ids = [r.id for p in store.parts() for r in store.images(p)]
    prefix = "" if where == "." else where + "/"
    assert ids == [f"{prefix}sub/ü 1.jpg", f"{prefix}2.jpg"]


def test_file_names_that_say_their_folder_themselves(tmp_path):
    root = tmp_path / "in"
    picture(root / "train2017/1.jpg")
    write(root / "annotations/instances_train2017.json", [image(1, file_name="train2017/1.jpg")], [annotation(1, 1)])
    store = ingest(f"coco:{root}", str(tmp_path / "store"), progress=False)
    (row,) = store.images(0)
    assert row.uri == str(root / "train2017/1.jpg")


def test_roboflow(tmp_path):
    root = tmp_path / "in"
    for split in ("train", "valid"):
        picture(root / split / "a_jpg.rf.0.jpg")
        file = root / split / "_annotations.coco.json"
        write(file, [image(0, file_name="a_jpg.rf.0.jpg")], [annotation(0, 0)])
    found, wrong = answers(f"coco:{root}", "detection")
    assert not wrong
    assert {n: s for n, (s, _) in found.items()} == {"train/a_jpg.rf.0.jpg": "train", "valid/a_jpg.rf.0.jpg": "valid"}


def test_one_object_without_outline_leaves_the_image_without(root):
    for extra, known in (([], True), ([annotation(2, 9, segmentation=[])], False)):
        write(root / "annotations/instances_val2017.json", [image(9)], [annotation(1, 9), *extra])
        target = answers(f"coco:{root}", "detection")[0]["val2017/000000000009.jpg"][1]
        assert (target.mask is not None) == known
        assert len(target.box) == 1 + len(extra)
        assert not target.ignore.any()


@pytest.mark.parametrize("field", ["iscrowd", "ignore"])
def test_a_crowd_without_outline_costs_no_other_object_its_own(root, field):
    """It is not learned, so that nobody needs its outline; where it may be, its box says."""
    crowd = annotation(2, 9, box=(2, 3, 5, 4), segmentation=[], **{field: 1})
    val(root, [annotation(1, 9), crowd])
    target = answers(f"coco:{root}", "detection")[0]["val2017/000000000009.jpg"][1]
    assert target.ignore.tolist() == [False, True]
    expected = np.zeros((2, H, W), dtype=bool)
    expected[0, 3:11, 2:12] = True
    expected[1, 3:7, 2:7] = True
    np.testing.assert_array_equal(target.mask.numpy(), expected)
    val(root, [crowd])
    target = answers(f"coco:{root}", "detection")[0]["val2017/000000000009.jpg"][1]
    assert (target.mask, target.ignore.tolist()) == (None, [True])


NOTHING = {
    "two points": [[1, 1, 5, 5]],
    "run lengths of no pixel": {"size": [H, W], "counts": [H * W]},
    "the same as text": text_of(np.zeros((H, W), dtype=bool)),
    "beside all pixel centres": [[2.1, 3.1, 2.2, 3.1, 2.2, 3.2]],
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("case", NOTHING)
def test_an_outline_without_a_pixel_costs_its_object_alone(root, tmp_path, case, capsys):
    """What is there is not known, so the object is neither learned nor background; the others keep their outlines."""
    blank = annotation(2, 9, CAR, (2, 3, 5, 4), NOTHING[case])
    write(root / "annotations/instances_val2017.json", [image(9)], [annotation(1, 9), blank])
    store = ingest(f"coco:{root}", str(tmp_path / "store"))
    (labels,) = store.sets()
    target = dict(zip(labels.ids(0), labels.read(0), strict=True))["val2017/000000000009.jpg"]
    assert target.ignore.tolist() == [False, True]
    expected = np.zeros((2, H, W), dtype=bool)
    expected[0, 3:11, 2:12] = True
    expected[1, 3:7, 2:7] = True  # where it is ignored, in the score of masks too
    np.testing.assert_array_equal(target.mask.numpy(), expected)
    assert "1 of 6 objects have an outline that covers no pixel" in capsys.readouterr().err
    # where no outline of an image covers anything, or of a file, there is nothing to keep: the boxes are learned
    write(root / "annotations/instances_val2017.json", [image(9)], [blank])
    target = answers(f"coco:{root}", "detection")[0]["val2017/000000000009.jpg"][1]
    assert (target.mask, target.ignore.tolist(), len(target.box)) == (None, [False], 1)


def test_two_points_as_corners_of_boxes_are_no_outlines(tmp_path):
    root = tmp_path / "in"
    picture(root / "images/1.jpg")
    write(
        root / "annotations/instances_all.json",
        [image(1, file_name="1.jpg")],
        [annotation(1, 1, segmentation=[[2, 3, 12, 11]])],
    )
    assert load_dataset(f"coco:{root}").spaces["detection"].kind == "boxes"
    target = answers(f"coco:{root}", "detection")[0]["images/1.jpg"][1]
    assert target.ignore.tolist() == [False]


# ---------------------------------------------------------------- what people drew


def val(root, annotations, images=None, categories=CATEGORIES):
    write(root / "annotations/instances_val2017.json", images or [image(9)], annotations, categories)


def box(k, xywh, of=9, **more):
    return annotation(k, of, box=xywh, **({"segmentation": []} | more))


WRONG = {
    "outside": ([box(7, (40, 30, 5, 5))], r"annotations\[0\].bbox of id 7: \[40, 30, 5, 5\] lies outside of the im"),
    "above": ([box(7, (2, -9, 5, 8))], r"\[2, -9, 5, 8\] lies outside of the image of 24 x 32 \(height x width\)"),
    "touching from outside": ([box(7, (32, 2, 5, 5))], r"lies outside of the image"),
    "far beyond": ([box(7, (20, 10, 15, 5))], r"reaches from 20 to 35, far beyond the image of 24 x 32"),
    "corners": ([box(6, (1, 2, 9, 9)), box(7, (10, 8, 31, 20))], r"far beyond.*All boxes of the file could be corners"),
    "fractions": ([box(7, (0.1, 0.2, 0.3, 0.4)), box(8, (0.5, 0.5, 0.5, 0.5))], r"all 2 boxes of the file are under a"),
    "under a pixel": (
        [box(7, (10, 20, 0.3, 0.4)), box(8, (5, 5, 0.9, 0.5))],
        r"all 2 boxes of the file are under a",
    ),
    "corners by their area": (
        [box(6, (1, 2, 9, 9), area=56), box(7, (3, 3, 8, 10), area=35)],
        r"id 6: .*`area` says of all 2 boxes of the file that they are x0, y0, x1, y1; bbox is x, y, width",
    ),
    "outline elsewhere": (
        [annotation(7, 9, box=(2, 14, 5, 5), segmentation=[[20, 2, 30, 2, 30, 9, 20, 9]])],
        r"id 7: \[2, 14, 5, 5\] and its outline have nothing in common",
    ),
    "mask elsewhere": ([annotation(7, 9, box=(2, 16, 5, 5), segmentation=text_of(BLOB))], r"have nothing in common"),
    "outline beside the picture": (
        [annotation(7, 9, box=(2, 14, 5, 5), segmentation=[[40, 2, 45, 2, 45, 9]])],
        r"id 7: \[2, 14, 5, 5\] and its outline have nothing in common",
    ),
    "a crowd outside": ([box(7, (40, 30, 5, 5), iscrowd=1)], r"lies outside of the image"),
}


@pytest.mark.parametrize("case", WRONG)
def test_boxes_of_another_picture_or_form_are_refused(root, tmp_path, case):
    wrong, said = WRONG[case]
    val(root, wrong)
    with pytest.raises(ValueError, match=r"val2017/000000000009.jpg: .*instances_val2017.json: annot") as e:
        ingest(f"coco:{root}", str(tmp_path / "strict"), progress=False)
    assert re.search(said, str(e.value))
    store = ingest(f"coco:{root}", str(tmp_path / "store"), progress=False, skip_bad=True)
    ((id, _, reason),) = store.rejects()
    assert id == "val2017/000000000009.jpg"
    assert re.search(said, reason)


@pytest.mark.parametrize(
    ("first", "n", "told"),
    [((1, 2, 9, 9), 10, True), ((1, 2, 9, 9), 9, False), ((12, 2, 9, 9), 10, False), ((0, 0, 9, 9), 10, False)],
)
def test_many_boxes_that_may_all_be_corners_are_told(root, first, n, told):
    """Without `area`, and where none happens to end beyond the picture; from the corner both ways say the same."""
    val(root, [box(7 + i, first if not i else (0, 0, 5 + i, 6)) for i in range(n)])
    notes = [note for note in load_dataset(f"coco:{root}").notes if "would be one as x0, y0, x1, y1 too" in note]
    assert bool(notes) == told


def test_a_small_overhang_is_clipped_and_counted_also_after_a_stop(root, tmp_path, capsys, monkeypatch):
    """2 pixels or 1 % of the side; what is less than rounding is not worth a word."""
    small = [(-1.5, 3, 8, 4), (20, 20, 14, 6), (3, 3, 29.004, 5), (4.25, 5, 0.5, 6)]
    val(root, [box(i + 1, b) for i, b in enumerate(small)])
    store = tmp_path / "store"
    found = ingest(f"coco:{root}", str(store), part_size=2)
    (labels,) = found.sets()
    target = {i: t for p in labels.parts() for i, t in zip(labels.ids(p), labels.read(p), strict=True)}
    boxes = target["val2017/000000000009.jpg"].box
    expected = [[0, 3, 6.5, 7], [20, 20, 32, 24], [3, 3, 32, 8], [4.25, 5, 4.75, 11]]
    np.testing.assert_allclose(boxes.numpy(), expected, atol=1e-5)
    expected = {
        "objects": 8,
        "are crowds (iscrowd: 1), of which no single object is learned": 1,
        "are under a pixel high or wide: too small to be learned": 1,
        "have no outline, or are in an image with one that has none: only their boxes are learned": 4,
        "reached a little beyond the image and were clipped": 2,
    }
    state = json.loads((store / "ingest.json").read_text())
    assert state["notes"] == {"detection": expected}
    said = capsys.readouterr().err
    assert "  2 of 8 objects reached a little beyond the image and were clipped" in said
    (store / "images/part-00001.parquet").unlink()
    (store / "ingest.json").write_text(json.dumps(state | {"finished": False, "notes": {}}))
    ingest(f"coco:{root}", str(store), part_size=2)
    assert json.loads((store / "ingest.json").read_text())["notes"] == {"detection": expected}


def test_nothing_but_crowds_is_said(tmp_path, capsys):
    """CVAT writes every mask as a crowd."""
    root = tmp_path / "in"
    picture(root / "images/1.jpg")
    crowds = [annotation(i, 1, box=(3, 5, 27, 9), segmentation=counts_of(BLOB), iscrowd=1) for i in range(3)]
    write(root / "annotations/instances_all.json", [image(1, file_name="1.jpg")], crowds)
    ingest(f"coco:{root}", str(tmp_path / "store"))
    assert "3 of 3 objects are crowds (iscrowd: 1), of which no single object is learned" in capsys.readouterr().err


@pytest.mark.parametrize("second", [{}, {"height": None, "width": None}])
def test_two_records_of_one_file_are_one_picture(root, tmp_path, second, capsys):
    images = [image(9), image(10, file_name="000000000009.jpg", **second), image(11, file_name="./000000000009.jpg")]
    val(root, [box(1, (1, 1, 9, 9)), box(2, (4, 5, 6, 7), 10), box(3, (1, 1, 9, 9), 10)], images)
    store = ingest(f"coco:{root}", str(tmp_path / "store"))
    ids = [r.id for r in store.images(0)]
    assert ids.count("val2017/000000000009.jpg") == 1
    assert not any("#" in i for i in ids)
    (labels,) = store.sets()
    target = dict(zip(labels.ids(0), labels.read(0), strict=True))["val2017/000000000009.jpg"]
    assert target.box.tolist() == [[1, 1, 10, 10], [4, 5, 10, 12]]
    said = capsys.readouterr().err
    assert "2 image records name a file that another one names: their objects were put together" in said
    assert "1 of 6 objects are in two image records of one file, and were taken once" in said


def test_two_records_of_one_file_that_disagree_are_an_error(root):
    val(root, [box(1, (1, 1, 9, 9))], [image(9), image(10, file_name="000000000009.jpg", width=W + 1)])
    _, wrong = answers(f"coco:{root}", "detection")
    assert wrong["val2017/000000000009.jpg"] == (
        "instances_val2017.json: images[1].file_name: 000000000009.jpg is also that of instances_val2017.json: "
        "images[0], which says that it is 24 x 32 (height x width), and not 24 x 33"
    )
    val(root, [box(1, (1, 1, 9, 9)), box(1, (4, 4, 9, 9), 10)], [image(9), image(10, file_name="000000000009.jpg")])
    _, wrong = answers(f"coco:{root}", "detection")
    assert "annotations[1].id: 1 is also the id of annotations[0]" in wrong["val2017/000000000009.jpg"]


def test_two_categories_of_one_name(root):
    def categories(*above):
        return [{"id": i, "name": "cup"} | ({"supercategory": a} if a else {}) for i, a in enumerate(above, 1)]

    for path in ("train2017", "test2017", "unlabeled2017"):  # one file is enough
        for file in (root / "annotations").glob(f"*{path.removesuffix('2017')}*.json"):
            file.unlink()
        shutil.rmtree(root / path)
    both = [box(1, (1, 1, 9, 9), category=1), box(2, (4, 5, 6, 7), category=2)]
    for above, used in ((("kitchen", "kitchen"), both), (("kitchen", None), both), (("none", "cup"), both[1:])):
        val(root, used, categories=[*categories(*above), {"id": 9, "name": "hat"}])
        dataset = load_dataset(f"coco:{root}")
        assert dataset.spaces["detection"].names == ("cup", "hat")
        assert any("ids 1 and 2 are both called 'cup': taken as one class" in note for note in dataset.notes)
        target = answers(f"coco:{root}", "detection")[0]["val2017/000000000009.jpg"][1]
        assert target.category.tolist() == [0] * len(used)
    val(root, both, categories=categories("kitchen", "sport"))
    with pytest.raises(ValueError, match=r"'cup' is the name of id 1 \(of supercategory 'kitchen'\) and of id 2"):
        load_dataset(f"coco:{root}")


NFD = unicodedata.normalize("NFD", "café.jpg")


@pytest.mark.parametrize(
    ("name", "on_disk", "said"),
    [
        ("sub\\a.jpg", "images/sub/a.jpg", "1 file names have backslashes: read as folders"),
        ("{root}/images/sub/a.jpg", "images/sub/a.jpg", "1 file names are absolute paths into ROOT"),
        ("/home/of/another/images/sub/a.jpg", "images/sub/a.jpg", "absolute paths of elsewhere: found in ROOT by thei"),
        ("C:\\Users\\me\\set\\sub\\a.jpg", "images/sub/a.jpg", "absolute paths of elsewhere: found in ROOT by thei"),
        ("D:/x/a.jpg", "images/a.jpg", "absolute paths of elsewhere: found in ROOT by their ends"),
        ("images/a.jpg", "images/a.jpg", None),
        ("sub/../a.jpg", "images/a.jpg", None),
        ("café.jpg", f"images/{NFD}", "1 file names have their accents in another form of Unicode than the files"),
        ("café.jpg", "images/café.jpg", None),
        ("a\\b.jpg", "images/a\\b.jpg", None),  # a file may be called so
    ],
)
def test_file_names_as_other_systems_write_them(tmp_path, name, on_disk, said, capsys):
    root = tmp_path / "in"
    picture(root / on_disk)
    picture(root / "images/other.jpg")
    images = [image(1, file_name=name.format(root=root)), image(2, file_name="other.jpg")]
    write(root / "annotations/instances_all.json", images, [annotation(1, 1)])
    store = ingest(f"coco:{root}", str(tmp_path / "store"))
    rows = list(store.images(0))
    assert [r.uri for r in rows] == [str(root / on_disk), str(root / "images/other.jpg")]
    assert rows[0].id == on_disk
    printed = capsys.readouterr().err
    assert said in printed if said else "file names" not in printed


def test_two_absolute_paths_of_elsewhere_are_never_one_file_by_their_ends(tmp_path):
    root = tmp_path / "in"
    picture(root / "images/a.jpg")
    images = [image(1, file_name="/one/a.jpg"), image(2, file_name="/two/a.jpg")]
    write(root / "annotations/instances_all.json", images, [annotation(1, 1), annotation(2, 2)])
    _, wrong = answers(f"coco:{root}", "detection")
    assert wrong == {
        "images/a.jpg": "instances_all.json: images[1].file_name: '/two/a.jpg' and '/one/a.jpg' are both found as "
        "images/a.jpg"
    }


def test_a_folder_above_the_tree_finds_it_and_says_so(root, tmp_path):
    (tmp_path / "above").mkdir()
    root.rename(tmp_path / "above" / "coco")
    dataset = load_dataset(f"coco:{tmp_path / 'above'}")
    assert "val2017/000000000009.jpg" in dataset.names
    assert any(note.endswith("above/coco was read") for note in dataset.notes)


def test_a_picture_in_two_splits_is_told(tmp_path):
    root = tmp_path / "in"
    picture(root / "images/a.jpg")
    for split in ("train", "val"):
        write(root / f"annotations/instances_{split}.json", [image(1, file_name="a.jpg")], [annotation(1, 1)])
    assert load_dataset(f"coco:{root}").notes == ["1 images are in several splits: once in each"]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5), st.one_of(st.integers(), st.floats(allow_nan=False), st.text()), max_size=4
        ),
        max_size=6,
    ),
    st.booleans(),
    st.sampled_from([1, 2, 7, 64]),
    st.sampled_from([None, 1]),
)
def test_the_stream_gives_what_json_gives_and_where_it_stands(values, ascii_only, chunk, indent):
    text = json.dumps(
        {"a": 12.5e3, "images": values, "é": [1], "z": -7}, ensure_ascii=ascii_only, indent=indent
    ).encode()
    before = _json_stream._CHUNK
    _json_stream._CHUNK = chunk
    try:
        stream = _json_stream.JsonStream("x", io.BytesIO(text))
        found = [(f, i, v, text[b : b + n]) for f, i, v, b, n in stream.fields(frozenset({"images"}))]
    finally:
        _json_stream._CHUNK = before
    assert [(f, v) for f, i, v, _ in found if f != "images"] == [("a", 12.5e3), ("é", [1]), ("z", -7)]
    assert [v for f, i, v, _ in found if i >= 0] == values
    assert all(json.loads(raw) == v for _, i, v, raw in found if i >= 0)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40))
def test_run_lengths_as_pycocotools_decodes_them(seed, height, width):
    r = np.random.default_rng(seed)
    mask = np.repeat(r.random((height, width)) < r.random(), 3, axis=0)
    for code in (text_of(mask), counts_of(mask)):
        np.testing.assert_array_equal(_coco_outlines.outline("x", {"segmentation": code}, mask.shape), mask)


def test_outlines_that_memory_cannot_hold_are_refused(root, tmp_path, monkeypatch):
    monkeypatch.setattr(_coco_outlines, "_CELLS", 2 * H * W)
    write(root / "annotations/instances_val2017.json", [image(9)], [annotation(k, 9) for k in (1, 2, 3)])
    with pytest.raises(ValueError, match=r"3 outlines in an image of 24 x 32 .* have more than 1,536 pixels together"):
        ingest(f"coco:{root}", str(tmp_path / "store"), progress=False)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_an_object_of_many_polygons_is_all_of_them():
    """They are united a few at a time."""
    corners = np.random.default_rng(0).uniform(0, (W - 3, H - 3), (150, 2))
    many = [[x, y, x + 2, y, x + 2, y + 2, x, y + 1.5] for x, y in corners.tolist()]
    one = annotation(1, 9, box=(0, 0, W, H), segmentation=many)
    expected = rle.decode(rle.merge(rle.frPyObjects(many, H, W))).astype(bool)
    assert 200 < expected.sum() < H * W
    np.testing.assert_array_equal(_coco_outlines.outline("x", one, (H, W)), expected)


@pytest.mark.parametrize("licence", ["by\udfff", {"a": "b"}])
def test_texts_that_no_file_can_hold_are_escaped(root, tmp_path, licence):
    """Half of a surrogate pair, which JSON may have and UTF-8 may not; a licence that is no text."""
    (root / "annotations/instances_train2017.json").unlink()
    shutil.rmtree(root / "train2017")
    categories = [{"id": PEOPLE, "name": "per\ud800son"}, {"id": 2, "name": "x", "supercategory": [[]]}]
    licences = [{"id": 4, "name": licence}]
    write(root / "annotations/instances_val2017.json", [image(9)], [annotation(1, 9)], categories, licenses=licences)
    store = ingest(f"coco:{root}", str(tmp_path / "store"), progress=False)
    assert store.sets()[0].space.names == ("per\\ud800son", "x")
    kept = {r.licence for p in store.parts() for r in store.images(p) if r.split == "val2017"}
    assert kept == {"by\\udfff" if isinstance(licence, str) else None}
