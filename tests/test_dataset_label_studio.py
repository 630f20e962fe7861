"""Label Studio's JSON export: results of every kind, which annotation, where images are, and what is refused."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.tasks.detection import BOXES, MASKS
from polyteach.verbs.ingest import ingest

H, W = 20, 30


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(path)


def result(kind="rectanglelabels", label="cat", size=(H, W), **value):
    value = value or {"x": 10, "y": 20, "width": 50, "height": 30, "rotation": 0}
    about = {"original_width": size[1], "original_height": size[0], "id": "x", "from_name": "a", "to_name": "image"}
    return about | {"type": kind, "value": value | {kind: [label] if isinstance(label, str) else label}}


def polygon(label="dog", points=((10, 10), (90, 10), (50, 90))):
    return result("polygonlabels", label, points=[list(p) for p in points], closed=True)


def choice(*names):
    return result("choices", list(names), any=1)


def task(*results, image="/data/local-files/?d=images/a.png", **more):
    return {
        "id": 7,
        "data": {"image": image},
        "annotations": [{"result": list(results), "was_cancelled": False} | more],
    }


@pytest.fixture
def root(tmp_path):
    picture(tmp_path / "data/images/a.png")
    return tmp_path / "data"


def write(root, *tasks):
    (root / "project.json").write_text(json.dumps(list(tasks)))
    return f"label-studio:{root}"


def read(source, at=0):
    dataset = load_dataset(source)
    entry = next(dataset.entries(at, at + 1))
    assert entry.problem is None, entry.problem
    return entry.targets((H, W))


def test_positions_are_per_cent(root):
    source = write(root, task(result(), result(label="dog", x=0, y=0, width=100, height=100)))
    found = read(source)["detection"]
    np.testing.assert_allclose(found.box.numpy(), [[3, 4, 18, 10], [0, 0, 30, 20]], atol=1e-5)
    assert found.category.tolist() == [0, 1]
    assert load_dataset(source).spaces["detection"].kind == BOXES
    assert load_dataset(f"label-studio:{root}/project.json").spaces["detection"].names == ("cat", "dog")


def test_outlines(root):
    turned = result(x=50, y=50, width=20, height=10, rotation=90)  # 6 by 2 pixels, about (15, 10)
    oval = result("ellipselabels", x=50, y=50, radiusX=20, radiusY=20, rotation=0)
    source = write(root, task(polygon(), turned, oval, result("brushlabels", rle=[1]), result("keypointlabels", x=1)))
    found = read(source)["detection"]
    np.testing.assert_allclose(found.box.numpy(), [[3, 2, 27, 18], [13, 10, 15, 16], [9, 6, 21, 14]], atol=1e-4)
    masks = found.mask.numpy()
    assert masks[1].sum() == 12
    assert masks[1][10:16, 13:15].all()
    y, x = np.mgrid[:H, :W] + 0.5
    assert masks[2][((x - 15) / 6) ** 2 + ((y - 10) / 4) ** 2 < 0.6].all()
    dataset = load_dataset(source)
    assert dataset.spaces["detection"].kind == MASKS
    assert "2 results of other kinds were not read: 1 brushlabels, 1 keypointlabels" in dataset.notes


def test_choices_are_classes(root):
    for name in "bc":
        picture(root / f"images/{name}.png")
    image = "/data/local-files/?d=images/{}.png"
    tasks = [
        task(choice("day")),
        task(choice("night", "day"), image=image.format("b")),
        task(choice("night"), image=image.format("c")),
    ]
    source = write(root, *tasks)
    assert load_dataset(source).spaces["classification"].names == ("day", "night")
    assert set(load_dataset(source).spaces) == {"classification"}
    assert read(source)["classification"].probability.tolist() == [1, 0]
    assert read(source, 1) == {}
    assert read(source, 2)["classification"].probability.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("file", "called"),
    [
        ("images/a.png", "/data/local-files/?d=images/a.png"),
        ("images/a b.png", "/data/local-files/?d=my%20root/images/a%20b.png"),
        ("1a2b3c4d-a.png", "/data/upload/3/1a2b3c4d-a.png"),
        ("a.png", "/data/upload/3/1a2b3c4d-a.png"),
        ("images/a.png", "images/a.png"),
        ("images/a.png", "https://host:8080/static/images/a.png?token=x"),
        ("images/a.png", "s3://bucket/images/a.png"),
        ("images/a.png", "images\\a.png"),
    ],
)
def test_where_images_are(tmp_path, file, called):
    picture(tmp_path / "d" / file)
    assert list(load_dataset(write(tmp_path / "d", task(result(), image=called))).names) == [file]


def test_an_address_stays_one_and_a_file_elsewhere_is_refused(root, tmp_path):
    picture(tmp_path / "secret.png")
    for called in ("http://host/gone.png", "s3://bucket/gone.png"):
        entry = next(load_dataset(write(root, task(result(), image=called))).entries(0, 1))
        assert (entry.uri, entry.problem) == (called, None)
    for called in (
        f"file://{tmp_path}/secret.png",
        "/data/local-files/?d=../secret.png",
        str(tmp_path / "secret.png"),
        "http://[x",
        "ftp://h/gone.png",
    ):
        entry = next(load_dataset(write(root, task(result(), image=called))).entries(0, 1))
        assert "is not below" in entry.problem


def test_which_annotation_is_read(root, tmp_path, capsys):
    for name in "bcd":
        picture(root / f"images/{name}.png")
    several = task(result(label="dog"))
    several["annotations"] += [{"result": [result()], "ground_truth": True}, {"result": [result()] * 2}]
    tasks = [
        several,
        task(result(), was_cancelled=True, image="images/b.png"),
        task(image="images/c.png"),
        {"data": {"image": "images/d.png"}, "predictions": [{"result": [result()]}]},
    ]
    store = ingest(write(root, *tasks), str(tmp_path / "store"))
    said = capsys.readouterr().err
    assert "1 tasks have several annotations: that of the ground truth was read, or the first" in said
    assert "2 tasks have no annotation: their images are unlabelled" in said
    assert "1 annotations are empty: there is nothing in their images" in said
    assert "2 absent, 2 labelled" in said
    first, _, third, _ = next(iter(store.sets())).read(0)
    assert first.category.tolist() == [0]
    assert len(third.box) == 0


BAD = {
    "two labels": (lambda: result(label=["cat", "dog"]), r"result\[0\].rectanglelabels: must be one of the 2 labels"),
    "no label": (lambda: result(label=[]), r"result\[0\].rectanglelabels: must be one of the 2 labels; got \[\]"),
    "text": (lambda: result(x="1", y=1, width=1, height=1), r"result\[0\].value: x, y, width, height: must be numbers"),
    "missing": (lambda: result(x=1, y=1, width=1), r"result\[0\].value: x, y, width, height: must be numbers"),
    "nan": (lambda: result(x=float("nan"), y=1, width=1, height=1), r"must be numbers"),
    "no area": (lambda: result(x=1, y=1, width=0, height=1), r"result\[0\]: box of 'cat': .* has no area"),
    "pixels": (lambda: result(x=250, y=10, width=50, height=50), r"lies outside of the image"),
    "two points": (lambda: polygon(points=((1, 1), (2, 2))), r"result\[0\].value.points: must be 3 or more x, y"),
    "not upright": (lambda: result(size=(W, H)), r"result\[0\]: original_height, original_width: 30 x 20, .*20 x 30"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_result_is_its_images(root, tmp_path, case):
    make, said = BAD[case]
    picture(root / "images/b.png")
    source = write(root, task(make()), task(result(), polygon(), image="images/b.png"))
    with pytest.raises(ValueError, match=rf"project.json: \[0\].*{said}"):
        ingest(source, str(tmp_path / "strict"), progress=False)
    store = ingest(source, str(tmp_path / "store"), progress=False, skip_bad=True)
    assert [i for i, *_ in store.rejects()] == ["images/a.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"image": "a.png", "label": []}]', r"project.json: \[0\]: has no `data`: export the project as \"JSON\""),
        ("[]", r"project.json: has no task"),
        ("{}", r"project.json is broken or no JSON object: Expecting \["),
        ("[{]", r"project.json is broken"),
        ("[1]", r"project.json: \[0\]: has no `data`"),
        ("[] x", r"project.json is broken .*end of the file"),
        ('[{"data": {"image": "images/a.png"}}]', r"no annotation has a box, an outline or a choice"),
    ],
)
def test_files_that_are_none(root, text, said):
    (root / "project.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        load_dataset(f"label-studio:{root}")


def test_trees_that_are_none(root, tmp_path):
    with pytest.raises(ValueError, match=r"has no JSON file: expected ROOT/NAME.json"):
        load_dataset(f"label-studio:{root}")
    with pytest.raises(ValueError, match=r"gone is no folder"):
        load_dataset(f"label-studio:{tmp_path}/gone")
    source = write(root, task(result()))
    (root / "b.json").write_text("[]")
    with pytest.raises(ValueError, match=r"has several JSON files, b.json, project.json: give one"):
        load_dataset(source)
    with pytest.raises(ValueError, match=r"unknown dataset format 'label_studio'; .* Did you mean label-studio\?"):
        load_dataset(f"label_studio:{root}")
    problem = next(
        load_dataset(f"{write(root, task(result()) | {'data': {'n': 3}})}/project.json").entries(0, 1)
    ).problem
    assert re.search(r"\[0\].data: names no image", problem)
