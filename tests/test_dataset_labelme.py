"""LabelMe's JSON files: shapes of every kind, parts of one object, where the image is, and what is refused."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from polyteach.datasets import load_dataset
from polyteach.tasks.detection import BOXES, MASKS
from polyteach.verbs.ingest import ingest

H, W = 20, 30
TRIANGLE = [[3, 2], [27, 2], [15, 18]]


def shape(label="cat", kind="polygon", points=TRIANGLE, group=None, **more):
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}} | more


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(np.full((H, W, 3), 90, np.uint8)))


def write(path, *shapes, image="a.png", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": image, "imageData": None}
    path.write_text(json.dumps(about | {"imageHeight": H, "imageWidth": W} | more))


@pytest.fixture
def root(tmp_path):
    picture(tmp_path / "data/a.png")
    return tmp_path / "data"


def read(root, at=0):
    dataset = load_dataset(f"labelme:{root}")
    entry = next(dataset.entries(at, at + 1))
    assert entry.problem is None, entry.problem
    return entry.targets((H, W))["detection"]


def test_shapes_are_objects(root):
    part = np.zeros((6, 8), bool)
    part[1:5, 2:] = True
    held = base64.b64encode(png(part)).decode()
    write(
        root / "a.json",
        shape(),
        shape("dog", "circle", [[10, 10], [10, 14]]),
        shape("cat", "mask", [[4, 5], [11, 10]], mask=held),
        shape("pole", "line", [[1, 1], [2, 2]]),
        shape("spot", "point", [[1, 1]]),
        shape("spot", ["point"], [[1, 1]]),
    )
    found = read(root)
    dataset = load_dataset(f"labelme:{root}")
    assert dataset.spaces["detection"].names == ("cat", "dog")
    assert dataset.spaces["detection"].kind == MASKS
    assert found.category.tolist() == [0, 1, 0]
    np.testing.assert_allclose(found.box.numpy(), [[3, 2, 27, 18], [6, 6, 14, 14], [6, 6, 12, 10]], atol=1e-4)
    drawn = Image.new("1", (W * 8, H * 8))
    ImageDraw.Draw(drawn).polygon([(x * 8, y * 8) for x, y in TRIANGLE], fill=1)
    share = np.asarray(drawn).reshape(H, 8, W, 8).mean((1, 3))
    masks = found.mask.numpy()
    assert masks[0][share == 1].all()
    assert not masks[0][share == 0].any()
    y, x = np.mgrid[:H, :W] + 0.5
    away = np.hypot(x - 10, y - 10)
    assert masks[1][away < 3].all()
    assert not masks[1][away > 5].any()
    expected = np.zeros((H, W), bool)
    expected[5:11, 4:12] = part
    np.testing.assert_array_equal(masks[2], expected)
    assert "3 shapes of other kinds were not read: 1 line, 1 list of 1, 1 point" in dataset.notes


def test_rectangles_are_boxes_by_any_two_corners(root):
    write(root / "a.json", shape(kind="rectangle", points=[[20, 15], [5, 3.5]]))
    assert read(root).box.tolist() == [[5, 3.5, 20, 15]]
    assert load_dataset(f"labelme:{root}").spaces["detection"].kind == BOXES
    write(root / "a.json", shape(kind="rectangle", points=[[5, 3], [20, 15]]), shape())
    found = read(root)
    assert found.mask is None
    assert len(found.box) == 2


def test_a_group_is_one_object(root):
    left, right = [[1, 1], [5, 1], [5, 6]], [[20, 10], [28, 10], [28, 18]]
    write(
        root / "a.json", shape(points=left, group=1), shape(group=1, points=right), shape("dog", points=left, group=1)
    )
    found = read(root)
    assert found.box.tolist() == [[1, 1, 28, 18], [1, 1, 5, 6]]
    assert found.category.tolist() == [0, 1]
    one, two = found.mask.numpy()
    assert two.sum() < one.sum()
    assert one[two].all()
    write(root / "a.json", shape(points=left, group=0), shape(points=left, group=None), shape(points=right, group=0))
    assert read(root).box.tolist() == [[1, 1, 28, 18], [1, 1, 5, 6]]


def test_what_is_to_be_ignored_is_no_class(root):
    write(root / "a.json", shape("__ignore__"), shape("dog"))
    found = read(root)
    assert found.ignore.tolist() == [True, False]
    assert load_dataset(f"labelme:{root}").spaces["detection"].names == ("dog",)


@pytest.mark.parametrize(
    ("file", "image", "called"),
    [
        ("a.json", "a.png", "a.png"),
        ("labels/train/a.json", "images/train/a.png", "..\\..\\images\\train\\a.png"),
        ("labels/a.json", "images/a.png", "../images/a.png"),
        ("a.json", "sub/a.png", "C:\\Users\\me\\sub\\a.png"),
        ("a.json", "a.png", "/home/me/photos/a.png"),
        ("deep/a.json", "deep/a.png", "../../elsewhere/a.png"),
    ],
)
def test_the_image_is_found_by_what_the_file_calls_it(tmp_path, file, image, called):
    picture(tmp_path / "d" / image)
    write(tmp_path / "d" / file, shape(), image=called)
    dataset = load_dataset(f"labelme:{tmp_path / 'd'}")
    assert list(dataset.names) == [image]
    assert next(dataset.entries(0, 1)).split == ("train" if "train" in image else None)


def test_the_image_may_be_in_the_file(root, tmp_path, capsys):
    held = png(np.full((H, W, 3), 33, np.uint8))
    write(root / "b.json", shape(), image="gone.png", imageData=base64.b64encode(held).decode())
    write(root / "a.json", shape())
    store = ingest(f"labelme:{root}", str(tmp_path / "store"))
    said = capsys.readouterr().err
    assert "1 images are not there: taken from the imageData of their JSON files" in said
    (row,) = (r for r in store.images(0) if r.id == "b.json")
    assert int(store.picture(row).float().mean()) == 33
    write(root / "b.json", shape(), image="gone.png", imageData="???")
    problems = [e.problem for e in load_dataset(f"labelme:{root}").entries(0, 2)]
    assert re.search(r"b.json: imageData: is no base64", problems[1])


def test_nothing_outside_of_the_tree_is_read(root, tmp_path):
    picture(tmp_path / "secret.png")
    for called in ("../secret.png", str(tmp_path / "secret.png"), "x/../../secret.png"):
        write(root / "a.json", shape(), image=called)
        assert "is not below" in next(load_dataset(f"labelme:{root}").entries(0, 1)).problem


def test_what_is_not_labelled_is_told(root, tmp_path, capsys):
    write(root / "a.json")
    picture(root / "b.png")
    picture(root / "c.png")
    write(root / "c.json", shape(), image="c.png")
    (root / "other.json").write_text("{}")
    store = ingest(f"labelme:{root}", str(tmp_path / "store"))
    said = capsys.readouterr().err
    assert "1 images have no JSON file: they are unlabelled" in said
    assert "1 JSON files that are none of LabelMe's" in said
    assert "1 absent, 2 labelled" in said
    assert [len(t.box) for t in next(iter(store.sets())).read(0) if hasattr(t, "box")] == [0, 1]


BAD = {
    "label": (lambda: shape(""), r"shapes\[0\].label: '' is none of the 2 classes"),
    "another label": (lambda: shape("cow"), r"shapes\[0\].label: 'cow' is none of the 2 classes"),
    "two points": (lambda: shape(points=TRIANGLE[:2]), r"shapes\[0\].points: a polygon has at least 3 points; got 2"),
    "one corner": (lambda: shape(kind="rectangle", points=[[1, 1]]), r"a rectangle has 2 points; got 1"),
    "three corners": (lambda: shape(kind="rectangle"), r"a rectangle has 2 points; got 3"),
    "no numbers": (lambda: shape(points=[["1", 2]] * 3), r"points: must be a list of x, y"),
    "nan": (lambda: shape(points=[[float("nan"), 2], [3, 4], [5, 6]]), r"points: must be a list of x, y"),
    "no shape": (lambda: 7, r"shapes\[0\]: must be an object; got 7"),
    "no label": (lambda: shape(label=["cat"]), r"shapes\[0\].label: list of 1 is none of the 2 classes"),
    "flat": (lambda: shape(kind="rectangle", points=[[1, 1], [1, 9]]), r"shapes\[0\]: box of 'cat': .* has no area"),
    "elsewhere": (lambda: shape(points=[[90, 90], [95, 90], [95, 99]]), r"shapes\[0\]"),
    "no mask": (lambda: shape(kind="mask", points=[[1, 1], [2, 2]]), r"shapes\[0\].mask: must be text in base64"),
    "a mask beyond": (lambda: shape(kind="mask", points=[[25, 1], [40, 2]], mask=""), r"the mask lies beyond"),
    "a small mask": (
        lambda: shape(kind="mask", points=[[1, 1], [9, 9]], mask=base64.b64encode(png(np.ones((3, 3), bool))).decode()),
        r"shapes\[0\].mask: must be a PNG of 9 x 9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_broken_shape_is_its_images(root, tmp_path, case):
    make, said = BAD[case]
    write(root / "a.json", make())
    picture(root / "b.png")
    write(root / "b.json", shape(), image="b.png")
    source = f"labelme:{root}?classes=cat,dog"
    with pytest.raises(ValueError, match=rf"a.json: .*{said}"):
        ingest(source, str(tmp_path / "strict"), progress=False)
    store = ingest(source, str(tmp_path / "store"), progress=False, skip_bad=True)
    assert [i for i, *_ in store.rejects()] == ["a.png"]


def test_files_that_contradict_their_image_or_one_another(root):
    write(root / "a.json", shape(), imageHeight=W, imageWidth=H)
    with pytest.raises(ValueError, match=r"a.json: imageHeight, imageWidth: 30 x 20, but the image is 20 x 30"):
        read(root)
    write(root / "a.json", shape())
    write(root / "again.json", shape())
    problems = [e.problem for e in load_dataset(f"labelme:{root}").entries(0, 2)]
    assert problems[0] == "a.json: imagePath: a.png is that of another file too"
    (root / "again.json").write_text("{")
    problems = [e.problem for e in load_dataset(f"labelme:{root}").entries(0, 2)]
    assert problems[0] is None
    assert re.search(r"again.json: is no JSON", problems[1])


def test_trees_that_are_none(root, tmp_path):
    with pytest.raises(ValueError, match=r"has no JSON file of LabelMe's"):
        load_dataset(f"labelme:{root}")
    with pytest.raises(ValueError, match=r"gone is no folder"):
        load_dataset(f"labelme:{tmp_path / 'gone'}")
    write(root / "a.json", shape(kind="line"))
    with pytest.raises(ValueError, match=r"no file has a polygon, a rectangle"):
        load_dataset(f"labelme:{root}")
    with pytest.raises(ValueError, match=r"\?classes=cat: is no file, and no names"):
        load_dataset(f"labelme:{root}?classes=cat")
