"""Class folders: torchvision's ImageFolder is the reference; splits, odd trees, and what is refused."""

import importlib
import os
import re
import tarfile
import unicodedata

import pytest
from torchvision.datasets import ImageFolder

from polyteach.datasets import formats, load_dataset, numbered, split_of
from polyteach.datasets._classes import of_class
from polyteach.verbs.ingest import ingest
from tests.classes import seen, stored, tree


def test_as_torchvision_reads_it(tmp_path):
    root = tmp_path / "in"
    tree(root, "b/2.png", "b/deep/er/1.png", "B/x.PNG", "a c/1.png", "ü/1.png", "10/1.png", "9/1.png")
    (root / "empty").mkdir()
    reference = ImageFolder(str(root), allow_empty=True)
    tree(root, "b/notes.txt", "b/.hidden.png", ".git/x.png", data=b"x")
    dataset = load_dataset(f"folder:{root}")
    assert list(dataset.spaces["classification"].names) == reference.classes
    assert dataset.left_out == {".txt": 1, "hidden": 2}
    expected = {os.path.relpath(p, root): (None, reference.classes[c]) for p, c in reference.samples}
    assert seen(f"folder:{root}") == (expected, {})
    assert list(dataset.names) == sorted(expected)
    assert stored(f"folder:{root}", tmp_path / "store") == (expected, {})


@pytest.mark.parametrize("words", [("train", "val"), ("Training", "TEST"), ("train", "valid", "test"), ("validation",)])
def test_splits_share_one_list_of_classes(tmp_path, words):
    for i, split in enumerate(words):
        tree(tmp_path, f"{split}/cat/{i}.png", f"{split}/only in {split}/{i}.png")
    (tmp_path / words[0] / "nobody").mkdir()
    (tmp_path / "logs").mkdir()  # without pictures, so no class and no doubt
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.spaces["classification"].names == tuple(sorted(["cat", "nobody", *(f"only in {s}" for s in words)]))
    expected = {f"{s}/{c}/{i}.png": (s, c) for i, s in enumerate(words) for c in ("cat", f"only in {s}")}
    assert seen(f"folder:{tmp_path}") == (expected, {})


def test_a_split_without_class_folders_is_unlabelled(tmp_path):
    root = tmp_path / "in"
    tree(root, "train/a/1.png", "train/b/2.png", "val/b/3.png", "test/4.png")
    expected = {
        "test/4.png": ("test", None),
        "train/a/1.png": ("train", "a"),
        "train/b/2.png": ("train", "b"),
        "val/b/3.png": ("val", "b"),
    }
    assert stored(f"folder:{root}", tmp_path / "store", part_size=3) == (expected, {})
    assert load_dataset(f"folder:{root}").notes == ["1 classes have images in one split only: a"]
    tree(tmp_path / "two", "train/a/1.png", "train/b/2.png", "test/4.png")
    assert load_dataset(f"folder:{tmp_path / 'two'}").notes == []


def test_a_class_may_be_called_train(tmp_path):
    tree(tmp_path, "bus/1.png", "train/1.png")
    assert seen(f"folder:{tmp_path}")[0] == {"bus/1.png": (None, "bus"), "train/1.png": (None, "train")}
    tree(tmp_path / "deep", "bus/1.png", "train/steam/1.png")
    with pytest.raises(ValueError, match=r"train look like splits \(class folders within\), bus do not.*\?splits=no"):
        load_dataset(f"folder:{tmp_path / 'deep'}")
    found, _ = seen(f"folder:{tmp_path / 'deep'}?splits=no")
    assert found == {"bus/1.png": (None, "bus"), "train/steam/1.png": (None, "train")}


def test_a_picture_beside_class_folders_is_a_problem_of_its_own(tmp_path):
    root = tmp_path / "in"
    tree(root, "train/a/1.png", "train/loose.png")
    problem = "train/loose.png: is in no class folder, but others of train are"
    assert seen(f"folder:{root}") == ({"train/a/1.png": ("train", "a")}, {"train/loose.png": problem})
    with pytest.raises(ValueError, match=problem):
        ingest(f"folder:{root}", str(tmp_path / "strict"), progress=False)
    found = stored(f"folder:{root}", tmp_path / "store", skip_bad=True)
    assert found == ({"train/a/1.png": ("train", "a")}, {"train/loose.png": problem})


def test_what_is_refused(tmp_path):
    trees = {
        "flat": (("1.png", "2.png"), r"flat/1.png is in no class folder \(2 such images\).*without 'folder:'"),
        "mixed": (("a/1.png", "2.png"), r"mixed/2.png is in no class folder"),
        "bare": (("train/1.png", "val/2.png"), "folders train, val, which name splits, but no class folders in them"),
        "empty": ((), r"has no images in class folders; expected ROOT/CLASS/x.jpg or ROOT/SPLIT/CLASS/x.jpg"),
        "others": (("train/a/1.png", "val/a/1.png", "x/y/1.png"), "train, val look like splits .* x do not"),
    }
    for name, (files, error) in trees.items():
        (tmp_path / name).mkdir()
        tree(tmp_path / name, *files)
        with pytest.raises(ValueError, match=error):
            load_dataset(f"folder:{tmp_path / name}")
    with pytest.raises(ValueError, match="gone is no folder"):
        load_dataset(f"folder:{tmp_path / 'gone'}")
    with pytest.raises(ValueError, match=r"'split=no' .* no option .*splits=auto"):
        load_dataset(f"folder:{tmp_path / 'flat'}?split=no")
    with pytest.raises(ValueError, match=r"splits=yes in folder:.*: there are auto and no"):
        load_dataset(f"folder:{tmp_path / 'flat'}?splits=yes")


def test_a_class_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    tree(tmp_path, "a/1.png", "b/1.png")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may list everything, so mode 000 would not do
    found, problems = seen(f"folder:{tmp_path}")
    assert found == {"a/1.png": (None, "a")}
    assert problems == {"b/": "b/: folder cannot be listed: Permission denied"}


# ---------------------------------------------------------------- folders that name no class


def test_what_systems_leave_behind_is_no_class(tmp_path):
    root = tmp_path / "in"
    tree(root, "train/a/1.png", "train/b/1.png", "val/a/1.png")
    tree(root, "__MACOSX/train/a/x.png", "train/__MACOSX/y.png", "train/a/@eaDir/SYNOPHOTO_THUMB_M.png", "val/.x/1.png")
    tree(root, ".DS_Store", "train/.DS_Store", "train/a/._1.png", "val/a/.DS_Store", data=b"x")
    dataset = load_dataset(f"folder:{root}")
    assert dataset.spaces["classification"].names == ("a", "b")
    assert sorted(dataset.names) == ["train/a/1.png", "train/b/1.png", "val/a/1.png"]
    assert dataset.left_out == {"folder __MACOSX": 2, "folder @eaDir": 1, "hidden": 5}
    assert "__MACOSX" not in load_dataset(f"folder:{root}/train").spaces["classification"].names
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(root, arcname=".")
    packed = load_dataset(f"tar:{tmp_path / 'x.tar'}")
    assert not any("__MACOSX" in n or "@eaDir" in n for n in packed.names)


def test_one_name_in_two_forms_of_unicode_is_one_class(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    tree(tmp_path, f"train/{nfc}/1.png", "train/tea/1.png", f"val/{nfd}/2.png", "val/tea/2.png", f"val/{nfc}/3.png")
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.spaces["classification"].names == (nfc, "tea")
    assert dataset.notes == ["1 class folders have the name of another in another form of Unicode: taken as one class"]
    found, problems = seen(f"folder:{tmp_path}")
    assert not problems
    assert {n: c for n, (_, c) in found.items() if "tea" not in n} == {
        f"train/{nfc}/1.png": nfc,
        f"val/{nfd}/2.png": nfc,
        f"val/{nfc}/3.png": nfc,
    }


def test_names_that_differ_in_capitals_are_told(tmp_path):
    tree(tmp_path, "train/Cat/1.png", "train/dog/1.png", "val/cat/2.png", "val/dog/1.png")
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.notes == [
        "the class folders 'Cat' and 'cat' differ in capitals or spaces only: several classes",
        "2 classes have images in one split only: Cat, cat",
    ]


def test_a_split_whose_folders_name_no_classes_is_refused(tmp_path):
    """Tiny ImageNet: val/images/ has all pictures of val, and a text file says their classes."""
    root = tmp_path / "tiny"
    tree(
        root, *(f"train/n0{k}/images/n0{k}_0.png" for k in range(1, 6)), "val/images/val_0.png", "val/images/val_1.png"
    )
    said = (
        r"the split val has no class in common with the others: images here, n01, n02, n03, ... 5 in all there\. So "
        r"the folders of one of them name no classes: .*disjoint=yes"
    )
    with pytest.raises(ValueError, match=said):
        load_dataset(f"folder:{root}")
    with pytest.raises(ValueError, match=said):
        ingest(f"folder:{root}", str(tmp_path / "store"), progress=False, skip_bad=True)
    assert not (tmp_path / "store").exists()
    few = load_dataset(f"folder:{root}?disjoint=yes")
    assert few.spaces["classification"].names[0] == "images"
    tree(root, "test/images/test_0.png")  # two that are wrong do not vouch for each other
    with pytest.raises(ValueError, match="the split train has no class in common with the others"):
        load_dataset(f"folder:{root}")
    with pytest.raises(ValueError, match=r"disjoint=maybe in folder:.*: there are yes and no"):
        load_dataset(f"folder:{root}?disjoint=maybe")


@pytest.mark.parametrize("inner", ["{c}/1.png", "train/{c}/1.png"])
def test_a_folder_above_the_tree_is_no_class(tmp_path, inner):
    tree(tmp_path, *("flowers/" + inner.format(c=c) for c in ("rose", "lily")))
    with pytest.raises(ValueError, match=r"has one class folder only, flowers, and folders in it .*give folder:.*/fl"):
        load_dataset(f"folder:{tmp_path}")
    assert load_dataset(f"folder:{tmp_path}/flowers").spaces["classification"].names == ("lily", "rose")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("images/train/a.png", "labels/train/a.txt", "data.yaml"), "looks like a data set of YOLO's .* give yolo:"),
        (("train/a.png", "train/_annotations.coco.json"), "COCO's annotations lie in .* give coco:"),
        (("train2017/a.png", "annotations/instances_train2017.json"), "COCO's annotations lie in .* give coco:"),
        (("VOC2012/JPEGImages/a.png", "VOC2012/ImageSets/Main/train.txt"), "Pascal VOC's annotations .* give voc:"),
        (("a.png", "b/c.png"), None),
        (("train/a.png", "trainannot/a.png", "trainannot/b.png"), "^1 images in trainannot are called as others are"),
        (("images/val/a.jpg", "annotations/val/a.png"), "^1 images in annotations/val are called as others are"),
        (
            ("left/a.png", "right/a.png", "weights/b.png", "labelled/c.png"),
            "^all images lie in 4 folders .labelled, left, right, ....: if these are classes, they were not read",
        ),
        (("left/a.png", "right/a.png", "weights/b.png", "labelled/2/c.png"), None),
    ],
)
def test_labels_among_pictures_without_a_reader_are_told(tmp_path, files, said):
    tree(tmp_path, *(f for f in files if f.endswith((".png", ".jpg"))))
    tree(tmp_path, *(f for f in files if not f.endswith((".png", ".jpg"))), data=b"{}")
    notes = load_dataset(str(tmp_path)).notes
    assert len(notes) == (said is not None)
    assert said is None or re.search(said, notes[0])


def test_other_formats_do_not_get_in_the_way(tmp_path):
    """A format's module becomes a name of the package, datasets/list.py too."""
    for name in formats():
        importlib.import_module(f"polyteach.datasets.{name.replace('-', '_')}")
    tree(tmp_path, "a/1.png")
    assert seen(f"folder:{tmp_path}")[0] == {"a/1.png": (None, "a")}


# ---------------------------------------------------------------- what the readers of classes share


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/unsupervised-00000-of-00001-0123456789abcdef.parquet", "unsupervised"),
        ("plain_text/data/test.v2-00000-of-00001.parquet", "test.v2"),
        ("fold-00000-of-00001.parquet", None),  # any word names a split in data/ only
        ("default/partial-train/0000.parquet", "train"),
        ("train/0000.parquet", "train"),
        ("imagenet1k-train-0000.tar", "train"),
        ("imagenet1k-validation-63.tar", "validation"),
        ("val_000.tar", "val"),
        ("Test 1.tar", "Test"),
        ("train/test.parquet", "test"),
        ("trainer/testing-ground.parquet", "testing"),
        ("trainer/contest/0.tar", None),
        ("0000.parquet", None),
    ],
)
def test_split_of(path, split):
    assert split_of(path) == split


def test_of_class_and_numbered():
    assert of_class(1, 3, "x")["classification"].probability.tolist() == [0, 1, 0]
    for index in (-1, 3):
        with pytest.raises(ValueError, match=rf"here: class index {index} is out of range; there are 3 classes, 0..2"):
            of_class(index, 3, "here")
    assert numbered([0, 2, -1], "x") == ("0", "1", "2")
    assert numbered([-1], "x") == ()
    with pytest.raises(ValueError, match="here: label 2012001 is no class index"):
        numbered([0, 2012001], "here")
