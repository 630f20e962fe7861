"""YOLO's text files: trees and lists, boxes and outlines in fractions, what is nothing, and what is refused."""

import json
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from polyteach.datasets import load_dataset
from polyteach.tasks.detection import BOXES, MASKS
from polyteach.verbs.ingest import ingest

H, W = 20, 30
BOX = "1 0.5 0.4 0.2 0.3"
TRIANGLE = "0 0.1 0.1 0.9 0.1 0.5 0.9"
DATA = "train: images/train\nval: images/val\nnc: 2\nnames: [cat, dog]\n"


def picture(path, size=(H, W)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def tree(root, labels, data=DATA):
    """Images of train/ and val/ by the content of their label file; None where there is none."""
    for name, content in labels.items():
        picture(root / f"images/{name}.png")
        if content is not None:
            text(root / f"labels/{name}.txt", content)
    if data:
        text(root / "data.yaml", data)
    return root


def answers(source):
    """By name: the split, and the boxes of an image, or None where it is unlabelled."""
    dataset = load_dataset(source)
    out = {}
    for name, entry in zip(dataset.names, dataset.entries(0, len(dataset.names)), strict=True):
        assert entry.problem is None
        with Image.open(entry.uri) as image:
            size = image.size[::-1]
        out[name] = entry.split, None if entry.targets is None else entry.targets(size)["detection"]
    return out


def notes(source):
    return "\n".join(load_dataset(source).notes)


def test_boxes_are_fractions_of_centre_and_size(tmp_path):
    root = tree(tmp_path, {"train/a": f"{BOX}\n0 0.25 0.25 0.5 0.5\n", "val/b": "0.0 0.5 0.5 1 1"})
    found = answers(f"yolo:{root}")
    split, a = found["images/train/a.png"]
    assert split == "train"
    # by hand: 30 wide, 20 high; centre (15, 8), 6 wide, 6 high
    np.testing.assert_allclose(a.box.numpy(), [[12, 5, 18, 11], [0, 0, 15, 10]], atol=1e-5)
    assert a.category.tolist() == [1, 0]
    assert a.mask is None
    assert found["images/val/b.png"][1].box.tolist() == [[0, 0, W, H]]
    space = load_dataset(f"yolo:{root}").spaces["detection"]
    assert (space.names, space.kind) == (("cat", "dog"), BOXES)


def test_outlines_have_the_box_around_them_and_a_mask(tmp_path):
    root = tree(tmp_path, {"train/a": TRIANGLE, "val/b": ""})
    a = answers(f"yolo:{root}")["images/train/a.png"][1]
    np.testing.assert_allclose(a.box.numpy(), [[3, 2, 27, 18]], atol=1e-5)
    drawn = Image.new("1", (W * 8, H * 8))
    ImageDraw.Draw(drawn).polygon([(3 * 8, 2 * 8), (27 * 8, 2 * 8), (15 * 8, 18 * 8)], fill=1)
    share = np.asarray(drawn).reshape(H, 8, W, 8).mean((1, 3))
    mask = a.mask[0].numpy()
    assert mask[share == 1].all()
    assert not mask[share == 0].any()
    assert load_dataset(f"yolo:{root}").spaces["detection"].kind == MASKS
    assert answers(f"yolo:{root}")["images/val/b.png"][1].mask.shape == (0, H, W)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0.01, 0.99) for _ in range(4)], st.integers(0, 4)), min_size=1, max_size=6))
def test_any_box_comes_back(tmp_path_factory, boxes):
    root = tmp_path_factory.mktemp("yolo")
    said = []
    for x0, y0, x1, y1, c in boxes:
        x0, x1, y0, y1 = min(x0, x1), max(x0, x1) + 0.01, min(y0, y1), max(y0, y1) + 0.01
        said.append((c, (x0 * W, y0 * H, x1 * W, y1 * H), f"{c} {(x0 + x1) / 2} {(y0 + y1) / 2} {x1 - x0} {y1 - y0}"))
    tree(
        root, {"train/a": "\n".join(dict.fromkeys(line for *_, line in said))}, "train: images\nnames: [a, b, c, d, e]"
    )
    distinct = {line: (c, box) for c, box, line in said}
    found = answers(f"yolo:{root}")["images/train/a.png"][1]
    assert found.category.tolist() == [c for c, _ in distinct.values()]
    np.testing.assert_allclose(found.box.numpy(), [box for _, box in distinct.values()], atol=1e-4)


def test_the_same_as_supervision_reads(tmp_path):
    sv = pytest.importorskip("supervision")
    rng = np.random.default_rng(3)
    labels = {}
    for i in range(12):
        rows = [
            f"{rng.integers(2)} " + " ".join(f"{v:.5f}" for v in (*rng.uniform(0.3, 0.7, 2), *rng.uniform(0.1, 0.5, 2)))
            for _ in range(i % 4)
        ]
        rows += [f"0 {' '.join(f'{v:.5f}' for v in rng.uniform(0.05, 0.95, 10))}"] * (i % 2)
        labels[f"train/{i}"] = "\n".join(rows)
    root = tree(tmp_path, labels)
    theirs = sv.DetectionDataset.from_yolo(f"{root}/images/train", f"{root}/labels/train", f"{root}/data.yaml")
    found = answers(f"yolo:{root}")
    assert tuple(theirs.classes) == load_dataset(f"yolo:{root}").spaces["detection"].names
    for path, _, detections in theirs:
        mine = found[f"images/train/{path.rsplit('/', 1)[1]}"][1]
        assert mine.category.tolist() == detections.class_id.tolist()
        # supervision takes whole pixels of outlines' corners
        np.testing.assert_allclose(mine.box.numpy().reshape(-1, 4), detections.xyxy.reshape(-1, 4), atol=1.01)


# ---------------------------------------------------------------- trees


def test_the_ways_to_lay_a_tree_out(tmp_path):
    usual = tree(tmp_path / "usual", {"train/a": BOX, "val/b": BOX}, None)
    text(usual / "classes.txt", "cat\ndog\n")
    turned = tmp_path / "turned"
    for split in ("train", "valid"):
        picture(turned / f"{split}/images/a.png")
        text(turned / f"{split}/labels/a.txt", BOX)
    text(
        turned / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: ['cat', 'dog']\n",
    )
    lists = tmp_path / "lists"
    for i in range(3):
        picture(lists / f"obj_train_data/{i}.png")
        text(lists / f"obj_train_data/{i}.txt", BOX)
    text(lists / "obj.names", "cat\ndog\n")
    text(lists / "train.txt", "data/obj_train_data/0.png\n\n./obj_train_data/1.png\n")
    text(lists / "val.txt", "/home/me/obj_train_data/2.png")
    flat = tmp_path / "flat"
    picture(flat / "a.png")
    text(flat / "a.txt", BOX)
    text(flat / "classes.txt", "cat\ndog\n")
    expected = {
        usual: {"images/train/a.png": "train", "images/val/b.png": "val"},
        turned: {"train/images/a.png": "train", "valid/images/a.png": "val"},
        lists: {f"obj_train_data/{i}.png": "val" if i == 2 else "train" for i in range(3)},
        flat: {"a.png": None},
    }
    for root, splits in expected.items():
        found = answers(f"yolo:{root}")
        assert {name: split for name, (split, _) in found.items()} == splits
        assert all(target.category.tolist() == [1] for _, target in found.values())
        assert load_dataset(f"yolo:{root}").spaces["detection"].names == ("cat", "dog")
    assert "test: '../test/images' is not below" in notes(f"yolo:{turned}")
    assert "2 file names are relative to a folder of elsewhere" not in notes(f"yolo:{lists}")
    assert "1 file names are relative to a folder of elsewhere: found in ROOT" in notes(f"yolo:{lists}")
    assert f"the classes are those of {lists / 'obj.names'}" in notes(f"yolo:{lists}")


@pytest.mark.parametrize("path", [".", "../datasets/mine", "/data/mine", "C:\\\\data\\\\mine", "mine"])
def test_a_path_of_elsewhere_is_taken_for_the_folder_that_is_there(tmp_path, path):
    root = tree(tmp_path / "mine", {"train/a": BOX}, f'path: "{path}"\n' + DATA)
    assert list(answers(f"yolo:{root}")) == ["images/train/a.png"]
    assert list(answers(f"yolo:{root}/data.yaml")) == ["images/train/a.png"]
    assert ("was taken for" in notes(f"yolo:{root}")) == (path != ".")


def test_a_data_file_that_lies_elsewhere(tmp_path):
    root = tree(tmp_path / "mine", {"train/a": BOX}, None)
    text(tmp_path / "cfg/mine.yaml", f"path: {tmp_path / 'other'}\n" + DATA)
    assert list(answers(f"yolo:{root}?data={tmp_path}/cfg/mine.yaml")) == ["images/train/a.png"]
    with pytest.raises(
        ValueError, match=r"mine.yaml: nothing of train: 'images/train', .* give yolo:THEIR_FOLDER.data="
    ):
        load_dataset(f"yolo:{tmp_path}/cfg/mine.yaml")


def test_a_split_is_never_taken_from_a_shorter_path(tmp_path):
    """val/images is missing; images/ is another split's."""
    root = tree(tmp_path, {"train/a": BOX}, "train: images/train\nval: val/images\nnames: [cat, dog]\n")
    assert {s for s, _ in answers(f"yolo:{root}").values()} == {"train"}
    assert "val: 'val/images' is not below" in notes(f"yolo:{root}")


def test_splits_that_are_lists_of_folders_and_of_lists(tmp_path):
    root = tree(tmp_path, {"one/a": BOX, "two/b": BOX, "three/c": BOX}, None)
    text(root / "c.txt", "./images/three/c.png\n")
    text(root / "data.yaml", "train: [images/one, images/two]\nval: c.txt\nnames: {0: cat, 1: dog}\n")
    assert {n: s for n, (s, _) in answers(f"yolo:{root}").items()} == {
        "images/one/a.png": "train", "images/two/b.png": "train", "images/three/c.png": "val",
    }  # fmt: skip


def test_validation_stands_for_val(tmp_path):
    """As in Ultralytics' check_det_dataset; where both are there, val it is."""
    root = tree(tmp_path, {"train/a": BOX, "val/b": BOX}, DATA.replace("val:", "validation:"))
    assert [split for split, _ in answers(f"yolo:{root}").values()] == ["train", "val"]
    assert f"{root}/data.yaml: validation: was taken for val" in notes(f"yolo:{root}")
    text(root / "data.yaml", DATA + "validation: images/train\n")
    assert list(answers(f"yolo:{root}")) == ["images/train/a.png", "images/val/b.png"]
    assert "taken for val" not in notes(f"yolo:{root}")


def test_nothing_outside_of_the_tree_is_read(tmp_path):
    picture(tmp_path / "secret/images/x.png")
    text(tmp_path / "secret/labels/x.txt", BOX)
    for value in ("../secret/images", str(tmp_path / "secret/images"), "images/../../secret/images"):
        root = tree(tmp_path / "mine", {"train/a": BOX}, f"train: images/train\nval: {value}\nnames: [cat, dog]\n")
        assert list(answers(f"yolo:{root}")) == ["images/train/a.png"]
    text(tmp_path / "mine/val.txt", f"../secret/images/x.png\n{tmp_path}/secret/images/x.png\nimages/train/a.png\n")
    text(tmp_path / "mine/data.yaml", "val: val.txt\nnames: [cat, dog]\n")
    dataset = load_dataset(f"yolo:{tmp_path}/mine")
    problems = [e.problem for e in dataset.entries(0, 3)]
    assert [bool(p) for p in problems] == [True, True, False]
    assert re.search(r"val.txt: line 1: '../secret/images/x.png' is not below .*/mine", problems[0])


# ---------------------------------------------------------------- what is said


def test_what_has_no_labels_is_nothing_and_a_split_without_any_is_unlabelled(tmp_path, capsys):
    root = tree(tmp_path / "data", {"train/a": BOX, "train/b": "", "train/c": None, "val/d": None})
    text(root / "labels/train/gone.txt", BOX)
    store = ingest(f"yolo:{root}", str(tmp_path / "store"))
    (labels,) = store.sets()
    assert [None if t is None or isinstance(t, str) else len(t.box) for t in labels.read(0)][:3] == [1, 0, 0]
    said = capsys.readouterr().err
    assert "1 images have no label file: labelled, with nothing in them, as Ultralytics does" in said
    assert "val: none has a label file: 1 images are unlabelled" in said
    assert "1 label files without an image" in said
    assert "people's labels, detection: 1 absent, 3 labelled" in said


def test_a_line_that_comes_twice_is_one_object_and_told(tmp_path, capsys):
    root = tree(tmp_path / "data", {"train/a": f"{BOX}\n{BOX}\n\n1 0.50 0.4 0.2 0.3\n0 0.5 0.4 0.2 0.3\n"})
    store = ingest(f"yolo:{root}", str(tmp_path / "store"))
    assert next(iter(store.sets())).read(0)[0].category.tolist() == [1, 0]
    assert "2 of 2 objects are on a second line of their file that is the same: read once" in capsys.readouterr().err


def test_boxes_among_outlines_are_boxes(tmp_path, capsys):
    root = tree(tmp_path / "data", {"train/a": f"{BOX}\n{TRIANGLE}", "train/b": TRIANGLE})
    store = ingest(f"yolo:{root}", str(tmp_path / "store"))
    a, b = next(iter(store.sets())).read(0)
    assert a.mask is None
    assert b.mask.sum() > 0
    np.testing.assert_allclose(a.box.numpy(), [[12, 5, 18, 11], [3, 2, 27, 18]], atol=1e-5)
    assert "2 of 3 objects have no outline, or are in an image with one that has none" in capsys.readouterr().err


def test_classes_without_names_are_numbers(tmp_path):
    root = tree(tmp_path, {"train/a": "3 0.5 0.5 0.1 0.1"}, None)
    assert load_dataset(f"yolo:{root}").spaces["detection"].names == ("0", "1", "2", "3")
    assert "no file names the classes" in notes(f"yolo:{root}")
    text(root / "data.yaml", "train: images/train\nnc: 7\n")
    assert load_dataset(f"yolo:{root}").spaces["detection"].names == tuple("0123456")


def test_four_points_may_be_an_oriented_box(tmp_path):
    root = tree(tmp_path, {"train/a": "0 0.1 0.1 0.9 0.1 0.9 0.8 0.1 0.8"})
    assert "all 1 outlines have 4 points: oriented boxes (OBB) are read so too" in notes(f"yolo:{root}")
    tree(root, {"train/b": TRIANGLE})
    assert "4 points" not in notes(f"yolo:{root}")


def test_accents_in_two_forms(tmp_path):
    name = "caf\u00e9"
    picture(tmp_path / f"images/train/{name}.png")
    text(tmp_path / f"labels/train/{unicodedata.normalize('NFD', name)}.txt", BOX)
    text(tmp_path / "data.yaml", DATA)
    assert [len(t.box) for _, t in answers(f"yolo:{tmp_path}").values()] == [1]
    (tmp_path / f"images/train/{name}.png").rename(tmp_path / f"images/train/{unicodedata.normalize('NFD', name)}.png")
    (tmp_path / f"labels/train/{unicodedata.normalize('NFD', name)}.txt").rename(tmp_path / f"labels/train/{name}.txt")
    assert [len(t.box) for _, t in answers(f"yolo:{tmp_path}").values()] == [1]


# ---------------------------------------------------------------- what is refused

LINES = {
    "class": ("2 0.5 0.5 0.1 0.1", r"line 2: class '2' must be in 0..1, of 2 classes"),
    "negative class": ("-1 0.5 0.5 0.1 0.1", r"line 2: class '-1' must be in 0..1"),
    "half a class": ("0.5 0.5 0.5 0.1 0.1", r"line 2: class '0.5' must be in 0..1"),
    "pixels": ("0 15 8 6 6", r"line 2: '15' must be in 0..1, a fraction"),
    "beyond": ("0 0.5 0.5 0.1 1.02", r"line 2: '1.02' must be in 0..1"),
    "below": ("0 -0.02 0.5 0.1 0.1", r"line 2: '-0.02' must be in 0..1"),
    "nan": ("0 nan 0.5 0.1 0.1", r"line 2: 'nan' must be in 0..1"),
    "infinite": ("0 0.5 inf 0.1 0.1", r"line 2: 'inf' must be in 0..1"),
    "infinite class": ("inf 0.5 0.5 0.1 0.1", r"line 2: class 'inf' must be in 0..1"),
    "words": ("cat 0.5 0.5 0.1 0.1", r"line 2: must be numbers with spaces between them; got 'cat 0.5"),
    "commas": ("0,0.5,0.5,0.1,0.1", r"line 2: must be numbers with spaces"),
    "too few": ("0 0.5 0.5 0.1", r"line 2: must be a class and the 4 numbers .* has 4 numbers$"),
    "a score": ("0 0.5 0.5 0.1 0.1 0.9", r"line 2: .* has 6 numbers; a box with a score, as predictions have"),
    "a pose": ("0 0.5 0.5 0.1 0.1 0.4 0.4 2", r"line 2: .* has 8 numbers; keypoints of poses are not read"),
    "no width": ("0 0.5 0.5 0 0.1", r"line 2: the box's width and height must be above 0; got 0, 0.1"),
    "a flat outline": ("0 0.1 0.1 0.1 0.5 0.1 0.9", r"line 2: box 3, 2, 3, 18 has no area"),
    "far beyond": ("0 0.9 0.5 0.6 0.1", r"line 2: box .* reaches .* far beyond the image"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_broken_line_is_its_images_and_named(tmp_path, case):
    line, said = LINES[case]
    root = tree(tmp_path / "data", {"train/a": f"{BOX}\n{line}\n", "train/b": BOX})
    with pytest.raises(ValueError, match=rf"labels/train/a.txt: {said}".replace("$", "")):
        ingest(f"yolo:{root}", str(tmp_path / "strict"), progress=False)
    store = ingest(f"yolo:{root}", str(tmp_path / "store"), progress=False, skip_bad=True)
    ((name, _, why),) = store.rejects()
    assert name == "images/train/a.png"
    assert re.search(said, why)


def test_a_hundredth_beyond_is_clipped_and_counted(tmp_path, capsys):
    root = tree(tmp_path / "data", {"train/a": "0 0.5 0.5 1.01 1.0\n1 -0.005 0.1 0.9 0.1 0.5 1.009"})
    store = ingest(f"yolo:{root}", str(tmp_path / "store"))
    assert next(iter(store.sets())).read(0)[0].box.tolist() == [[0, 0, W, H], [0, 2, 27, H]]
    assert "1 of 2 objects reached a little beyond the image and were clipped" in capsys.readouterr().err


DATA_FILES = {
    "poses": (DATA + "kpt_shape: [17, 3]\n", r"data.yaml: kpt_shape: describes keypoints"),
    "a count": (DATA.replace("nc: 2", "nc: 3"), r"data.yaml: nc is 3, and names has 2"),
    "no count": (DATA.replace("nc: 2", "nc: many"), r"data.yaml: nc: must be the number of classes; got 'many'"),
    "a gap": ("train: images/train\nnames: {0: cat, 2: dog}\n", r"data.yaml: index 1 of 0..2 has no name"),
    "twice": ("train: images/train\nnames: [cat, cat]\n", r"data.yaml: names\[1\]: a class is called 'cat' already"),
    "yes": ("train: images/train\nnames: [yes, no]\n", r"names\[0\]: a class's name must be text; got True: quote it"),
    "blank": ("train: images/train\nnames: ['', dog]\n", r"names\[0\]: a class has no name"),
    "text": ("train: images/train\nnames: cat\n", r"names: must be a list of names, or index: name; got 'cat'"),
    "no mapping": ("- train\n- val\n", r"data.yaml: must have fields such as train, val and names; it is list of 2"),
    "no YAML": ("train: [images\n", r"data.yaml: is no YAML that is read: .*line 2"),
    "twice a key": (DATA + "train: images/val\n", r"data.yaml: is no YAML that is read: .*'train' is there twice"),
    "a number": ("train: 7\nnames: [cat, dog]\n", r"data.yaml: train: must be a folder, a .txt list, .* got 7"),
    "a path": ("path: [1]\n" + DATA, r"data.yaml: path: must be a folder; got list of 1"),
    "aliases": (
        "a: &b0 [x, x]\n" + "".join(f"b{i}: &b{i + 1} [*b{i}, *b{i}]\n" for i in range(20)),
        r"data.yaml: is no YAML that is read: .*more than",
    ),
    "nothing": ("", r"data.yaml: must have fields such as train, val and names; it is None"),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA_FILES)
def test_a_broken_data_file_is_named(tmp_path, case):
    data, said = DATA_FILES[case]
    root = tree(tmp_path, {"train/a": BOX}, None)
    text(root / "data.yaml", data)
    with pytest.raises(ValueError, match=said):
        load_dataset(f"yolo:{root}")


def test_a_label_file_without_end_is_refused(tmp_path):
    root = tree(
        tmp_path, {"train/a": BOX, "train/b": "".join(f"0 0.5 0.5 0.1 {i / 20_000 + 0.001}\n" for i in range(17_000))}
    )
    _, b = load_dataset(f"yolo:{root}").entries(0, 2)
    with pytest.raises(ValueError, match=r"b.txt: line 16385: an image may have at most 16,384 objects"):
        b.targets((H, W))
    text(root / "labels/train/b.txt", BOX + "\n" * 17_000_000)
    with pytest.raises(ValueError, match=r"b.txt: has more than 16,777,216 bytes"):
        b.targets((H, W))


def test_trees_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"is no folder: expected ROOT/data.yaml"):
        load_dataset(f"yolo:{tmp_path}/gone")
    tree(tmp_path, {"train/a": None}, None)
    with pytest.raises(ValueError, match=r"no image has a label file, such as labels/train/a.txt"):
        load_dataset(f"yolo:{tmp_path}")
    text(tmp_path / "labels/train/a.txt", "")
    with pytest.raises(ValueError, match=r"no file names a class, and no label file has an object"):
        load_dataset(f"yolo:{tmp_path}")
    with pytest.raises(ValueError, match=r"'names=x' in .* is no option of this format; there are: data=..."):
        load_dataset(f"yolo:{tmp_path}?names=x")
    text(tmp_path / "labels/train/a.txt", "123456789 0.5 0.5 0.1 0.1")
    with pytest.raises(ValueError, match=r"label 123456789 is no class index"):
        load_dataset(f"yolo:{tmp_path}")
    for name in ("classes.txt", "obj.names"):
        text(tmp_path / name, f"{name}\n")
    with pytest.raises(ValueError, match=r"obj.names: names other classes than .*classes.txt: keep one"):
        load_dataset(f"yolo:{tmp_path}")


def test_one_label_file_of_two_images_is_told(tmp_path):
    root = tree(tmp_path, {"train/a": BOX})
    picture(root / "images/train/a.jpg")
    assert "2 images differ in their ending alone and share a label file" in notes(f"yolo:{root}")


def test_the_notes_are_kept(tmp_path):
    root = tree(tmp_path / "data", {"train/a": f"{BOX}\n{BOX}"})
    ingest(f"yolo:{root}", str(tmp_path / "store"), progress=False)
    kept = json.loads((tmp_path / "store/ingest.json").read_text())
    assert kept["notes"]["detection"]["objects"] == 1
