"""Masks beside images: which belongs to which, what their values mean, and what is refused."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.datasets._class_lists import read_classes
from polyteach.verbs.ingest import ingest
from tests.real import real

IGNORE = 65535
H, W = 20, 30
MAP = np.zeros((H, W), np.uint8)
MAP[4:10, 3:12] = 1
MAP[4:10, 12] = 255
MAP[12:, 20:] = 2
KNOWN = np.where(MAP == 255, IGNORE, MAP.astype(np.int64))
COLOURS = np.array([(0, 0, 0), (128, 64, 128), (64, 0, 128)], np.uint8)
CAMVID = (
    *("sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist"),
    "void",
)


def picture(path, size=(H, W)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)


def mask(path, pixels=MAP, palette=None, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette([int(v) for v in np.asarray(palette).reshape(-1)])
    image.save(path, **how)


def coloured(pixels=MAP):
    return COLOURS[np.where(pixels == 255, 0, pixels)]


@pytest.fixture
def root(tmp_path):
    """A tree of one image, whose mask is to be made."""
    picture(tmp_path / "data/images/a.jpg")
    (tmp_path / "data/classes.txt").write_text("sky\nroad\ncar\n")
    return tmp_path / "data"


def category(source, at=0):
    dataset = load_dataset(source)
    entry = next(dataset.entries(at, at + 1))
    assert entry.problem is None
    return entry.targets((H, W))["segmentation"].category.numpy()


# ---------------------------------------------------------------- which belongs to which

TREES = {
    "folders, then splits": ("images/train/a.jpg", "masks/train/a.png", "train"),
    "splits, then folders": ("valid/images/a.jpg", "valid/annotations/a.png", "valid"),
    "camvid's": ("train/a.png", "trainannot/a.png", "train"),
    "kaggle's": ("test/a.png", "test_labels/a_L.png", "test"),
    "both with splits": ("train_images/a.jpg", "train_masks/a_mask.png", "train"),
    "deeper": ("images/city/train/b/a.jpg", "labels/city/train/b/a.png", "train"),
    "mmsegmentation's": ("img_dir/val/a.jpg", "ann_dir/val/a.png", "val"),
    "voc's": ("JPEGImages/a.jpg", "SegmentationClass/a.png", None),
    "an ending": ("a.jpg", "a_mask.png", None),
    "two endings": ("x/a_sat.jpg", "x/a_mask.png", None),
    "beside": ("train/a.jpg", "train/a.png", "train"),
    "capitals": ("Images/Train/a.jpg", "Masks/train/a.png", "Train"),
}


@pytest.mark.parametrize("case", TREES)
def test_an_image_finds_its_mask(tmp_path, case):
    image, label, split = TREES[case]
    picture(tmp_path / image)
    mask(tmp_path / label)
    (tmp_path / "names.txt").write_text("sky\nroad\ncar\n")
    dataset = load_dataset(f"masks:{tmp_path}")
    assert list(dataset.names) == [image]
    assert next(dataset.entries(0, 1)).split == split
    np.testing.assert_array_equal(category(f"masks:{tmp_path}"), KNOWN)
    assert dataset.spaces["segmentation"].names == ("sky", "road", "car")
    assert not dataset.left_out


def test_folders_of_other_names_are_named(tmp_path):
    for name in ("photo", "labels40", "depth8"):
        (picture if name == "photo" else mask)(tmp_path / f"train/{name}/3.png")
    source = f"masks:{tmp_path}?classes=3"
    with pytest.raises(ValueError, match=r"no image has a mask; found images in train/depth8, .*masks=NAME"):
        load_dataset(source)
    dataset = load_dataset(f"{source}&images=photo&masks=labels40")
    assert list(dataset.names) == ["train/photo/3.png"]
    assert dataset.left_out == {"images in other folders than those of images and masks": 1}
    assert dataset.spaces["segmentation"].names == ("0", "1", "2")
    assert category(f"{source}&images=photo&masks=labels40")[5, 5] == 1


def test_what_has_no_partner_is_counted(root, capsys, tmp_path):
    mask(root / "masks/a.png")
    mask(root / "masks/gone.png")
    picture(root / "images/b.jpg")
    store = ingest(f"masks:{root}", str(tmp_path / "store"))
    said = capsys.readouterr().err
    assert "1 images have no mask: they are unlabelled" in said
    assert "1 masks without an image" in said
    assert f"the classes are those of {root / 'classes.txt'}" in said
    assert "1 absent, 1 labelled" in said
    assert len(store.images(0)) == 2


def test_two_masks_of_an_image_are_its_problem(root):
    mask(root / "masks/a.png")
    mask(root / "labels/a.png")
    entry = next(load_dataset(f"masks:{root}").entries(0, 1))
    assert re.search(r"images/a.jpg: has two masks, .*/labels/a.png and .*/masks/a.png: name .*masks=", entry.problem)
    np.testing.assert_array_equal(category(f"masks:{root}?masks=masks"), KNOWN)


# ---------------------------------------------------------------- what values mean


def test_masks_of_every_form_say_the_same(root):
    table = root.parent / "table.csv"
    table.write_text("name,r,g,b\nsky,0,0,0\nroad,128,64,128\ncar,64,0,128\n")
    low = np.where(MAP == 255, 0, MAP)
    forms = {
        "grey": (MAP, None, "", KNOWN),
        "palette": (MAP, np.arange(768) % 256, "", KNOWN),
        "16 bits": (MAP.astype(np.uint16), None, "", KNOWN),
        "grey in three channels": (np.repeat(MAP[..., None], 3, 2), None, "", KNOWN),
        "opaque": (np.dstack([MAP, MAP, MAP, np.full((H, W), 255, np.uint8)]), None, "", KNOWN),
        "colours": (coloured(), None, f"?names={table}", low),
        "a palette of colours in another order": (2 - low, COLOURS[::-1], f"?names={table}", low),
        "indices all the same": (low, None, f"?names={table}&by=index", low),
    }  # fmt: skip
    for name, (pixels, palette, option, expected) in forms.items():
        mask(root / "masks/a.png", pixels, palette)
        np.testing.assert_array_equal(category(f"masks:{root}{option}"), expected, err_msg=name)


def test_a_mask_of_one_bit(root):
    (root / "classes.txt").write_text("sky\nroad\n")
    mask(root / "masks/a.png", MAP == 1)
    np.testing.assert_array_equal(category(f"masks:{root}"), MAP == 1)


def test_values_that_are_void(root):
    mask(root / "masks/a.png")
    (root / "classes.txt").write_text("Void\nroad\ncar\n")
    assert load_dataset(f"masks:{root}").spaces["segmentation"].names == ("road", "car")
    np.testing.assert_array_equal(category(f"masks:{root}"), np.select([MAP == 1, MAP == 2], [0, 1], IGNORE))
    assert "'Void' (0) is taken for what nobody named, and not learned" in " ".join(load_dataset(f"masks:{root}").notes)
    with pytest.raises(ValueError, match=r"a.png: 255 \(6 pixels\) is no class; it holds 0..2, 255"):
        category(f"masks:{root}?void=none")
    np.testing.assert_array_equal(category(f"masks:{root}?void=255"), KNOWN)
    np.testing.assert_array_equal(category(f"masks:{root}?void=255,car"), np.where(MAP == 2, IGNORE, KNOWN))


def test_a_void_colour(root):
    (root / "classes.txt").write_text("128 64 128 road\n64 0 128\tcar\n")
    mask(root / "masks/a.png", coloured())
    with pytest.raises(ValueError, match=r"a.png: \d+ pixels are of 1 colours of no class, such as 0,0,0"):
        category(f"masks:{root}")
    expected = np.select([MAP == 1, MAP == 2], [0, 1], IGNORE)
    np.testing.assert_array_equal(category(f"masks:{root}?void=%23000000".replace("%23", "#")), expected)


def test_where_the_first_class_is(root):
    (root / "classes.txt").write_text("road\ncar\n")
    mask(root / "masks/a.png", np.where(MAP == 255, 0, MAP))
    expected = np.select([MAP == 1, MAP == 2], [0, 1], IGNORE)
    with pytest.raises(ValueError, match=r"2 \(80 pixels\) is no class; it holds 0..2, .*\?first="):
        category(f"masks:{root}")
    np.testing.assert_array_equal(category(f"masks:{root}?first=1&void=0"), expected)
    (root / "classes.txt").write_text("1: road\n2: car\n")
    np.testing.assert_array_equal(category(f"masks:{root}"), expected)
    assert "index 0 has no name: not learned" in load_dataset(f"masks:{root}").notes


def test_0_and_255_are_asked_about(root):
    (root / "classes.txt").write_text("ground\nroad\n")
    mask(root / "masks/a.png", np.where(MAP == 1, 255, 0).astype(np.uint8))
    with pytest.raises(ValueError, match=r"holds 0 and 255 alone: give \?values=0,255 where 255 is 'road', or \?void="):
        category(f"masks:{root}")
    np.testing.assert_array_equal(category(f"masks:{root}?values=0,255"), MAP == 1)
    np.testing.assert_array_equal(category(f"masks:{root}?void=255"), np.where(MAP == 1, IGNORE, 0))


# ---------------------------------------------------------------- what is refused

BAD = {
    "size": (lambda r: mask(r / "masks/a.png", MAP.T.copy()), r"a.png: is 30 x 20 .* image is 20 x 30"),
    "index": (
        lambda r: mask(r / "masks/a.png", np.where(MAP == 2, 5, MAP).astype(np.uint8)),
        r"a.png: 5 \(80 pixels\) is no class; it holds 0..1, 5, 255, and the 3 classes are 0..2, unknown is 255",
    ),
    "no table": (lambda r: mask(r / "masks/a.png", coloured()), r"a.png: is of colours, and the classes have none"),
    "transparent": (
        lambda r: mask(r / "masks/a.png", np.repeat(MAP[..., None], 4, 2)),
        r"a.png: has transparent pixels",
    ),
    "no PNG": (lambda r: mask(r / "masks/a.png", MAP, format="BMP"), r"a.png: broken: no PNG"),
    "cut": (
        lambda r: (mask(r / "masks/a.png"), (r / "masks/a.png").write_bytes((r / "masks/a.png").read_bytes()[:60])),
        r"a.png: broken",
    ),
    "a JPEG": (lambda r: mask(r / "masks/a.jpg"), r"a.jpg: broken: no PNG"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_mask_is_its_images(root, tmp_path, case):
    make, said = BAD[case]
    make(root)
    picture(root / "images/b.jpg")
    mask(root / "masks/b.png")
    with pytest.raises(ValueError, match=said):
        ingest(f"masks:{root}", str(tmp_path / "strict"), progress=False)
    store = ingest(f"masks:{root}", str(tmp_path / "store"), progress=False, skip_bad=True)
    assert [i for i, *_ in store.rejects()] == ["images/a.jpg"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("classes=x", r"\?classes=x: must be a whole number"),
        ("classes=1", r"1 classes are left to tell apart, of at least 2"),
        ("classes=3&names=x", r"names= and classes= both say"),
        ("names=gone.txt", r"gone.txt: missing"),
        ("by=hand", r"\?by=hand: is one of auto, index, colour"),
        ("by=colour", r"classes.txt: has no colours, which \?by=colour needs"),
        ("void=lorry", r"\?void=lorry: 'lorry' is no index, no #rrggbb, and none of the classes"),
        ("void=#12345", r"\?void=#12345: a colour must be"),
        ("values=0,1", r"\?values=0,1: must be 3 pixel values with commas"),
        ("values=0,1,1", r"must be different ones"),
        ("first=-1", r"\?first=-1: must be a whole number"),
        ("mask=labels", r"'mask=labels' in .* is no option .*Did you mean masks"),
        ("images=nowhere", r"no image has a mask; found images in no folder and masks in masks"),
    ],
)
def test_options_that_are_none(root, option, said):
    mask(root / "masks/a.png")
    with pytest.raises(ValueError, match=said):
        load_dataset(f"masks:{root}?{option}")


def test_names_that_contradict_one_another(root):
    mask(root / "masks/a.png")
    (root / "labels.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"labels.txt and .*classes.txt name different classes: choose one with"):
        load_dataset(f"masks:{root}")
    assert load_dataset(f"masks:{root}?names=labels.txt").spaces["segmentation"].names == ("a", "b")
    for name in ("labels.txt", "classes.txt"):
        (root / name).unlink()
    with pytest.raises(ValueError, match=r"no file names the classes: give \?names=FILE"):
        load_dataset(f"masks:{root}")


# ---------------------------------------------------------------- files of names

FORMS = {
    "n.txt": "road\ncar\n\n",
    "bom.txt": "\ufeffroad\r\ncar\r\n",
    "numbered.txt": "0: road\n1: car\n",
    "spaced.names": "0 road\n1 car\n",
    "cvat.txt": "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:64,0,128::\n",
    "camvid.txt": "128 64 128 road\n64 0 128\t\tcar\n",
    "a.csv": "name,r,g,b\nroad,128,64,128\ncar, 64, 0, 128\n",
    "bare.csv": "road,128,64,128\ncar,64,0,128\n",
    "index.csv": "id,label\n1,car\n0,road\n",
    "one.csv": "road\ncar\n",
    "a.json": '["road", "car"]',
    "b.json": '{"1": "car", "0": "road"}',
    "c.json": '{"car": 1, "road": 0}',
    "d.json": '{"road": [128, 64, 128], "car": [64, 0, 128]}',
    "e.json": '{"categories": [{"id": 0, "name": "road", "color": [128, 64, 128]},'
    ' {"id": 1, "name": "car", "color": "#400080"}]}',
    "f.yaml": "nc: 2\nnames:\n  0: road\n  1: car\n",
    "g.yml": "- road\n- car\n",
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_names_in_every_form(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name].encode())
    found = read_classes(str(tmp_path / name))
    assert dict(sorted(found.names.items())) == {0: "road", 1: "car"}
    if "128" in FORMS[name]:
        assert found.colours == {(128, 64, 128): 0, (64, 0, 128): 1}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "road\nroad\n", r"line 2: a class is called 'road' already"),
        ("a.txt", "road\n\ncar\n", r"line 2: a class has no name"),
        ("a.txt", "", r"names no class"),
        ("a.txt", "1 2 3 road\n1 2 3 car\n", r"line 2: colour \(1, 2, 3\) is that of 'road' already"),
        ("a.txt", "1 2 300 road\n", r"line 1: a colour must be red, green, blue in 0..255"),
        ("a.csv", "name,r,g,b\nroad,1,2\n", r"line 2: has 3 fields, fewer"),
        ("a.csv", "name,r,g,b\nroad,1,2,x\n", r"line 2: a colour must be"),
        ("a.csv", "id,name\nx,road\n", r"line 2: the index of a class must be a whole number; got 'x'"),
        ("a.json", "{", r"is no JSON"),
        ("a.json", "7", r"must be a list of names, or index: name; got 7"),
        ("a.json", '{"road": "x"}', r"\['road'\]: the index of a class must be a whole number; got 'x'"),
        ("a.json", '[{"id": 3}]', r"\[0\]: a class's name must be text; got None"),
        ("a.json", '{"99999999": "x"}', r"index 99999999 of 'x' must be in 0..65534"),
        ("a.yaml", "names: [on, off]", r"names\[0\]: a class's name must be text; got True: quote it"),
        ("a.yaml", "a: [", r"a.yaml: is no YAML that is read"),
        ("a.txt", "\x00\xff", r"a.txt"),
    ],
)
def test_names_that_are_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{name}.*" if content.startswith("\x00") else said):
        read_classes(str(tmp_path / name))


# ---------------------------------------------------------------- published masks


def test_camvid_is_read_as_its_files_say(tmp_path):
    folder = real("camvid")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(CAMVID))
    dataset = load_dataset(f"masks:{folder}?names={names}")
    assert len(dataset.names) == 701
    assert dataset.spaces["segmentation"].names == tuple(CAMVID[:11])
    splits = {"train": 0, "val": 0, "test": 0}
    for entry in dataset.entries(0, 701):
        splits[entry.split] += 1
        found = entry.targets((180, 240))["segmentation"].category.numpy()
        with Image.open(entry.uri.replace(f"/{entry.split}/", f"/{entry.split}annot/").replace(".jpg", ".png")) as own:
            np.testing.assert_array_equal(found, np.where(np.asarray(own) == 11, IGNORE, np.asarray(own, np.int64)))
    assert splits == {"train": 367, "val": 101, "test": 233}


def test_the_labels_of_nyu_are_read_as_their_files_say():
    folder = real("nyu")
    dataset = load_dataset(f"masks:{folder}?images=image&masks=labels40&names=names40.json&first=1&void=0")
    assert len(dataset.names) == 795 + 454
    assert list(dataset.spaces["segmentation"].names) == json.loads((folder / "names40.json").read_text())
    for entry in list(dataset.entries(0, 1249))[::10]:
        with Image.open(entry.uri.replace("/image/", "/labels40/").rsplit(".", 1)[0] + ".png") as own:
            pixels = np.asarray(own).astype(np.int64)
        found = entry.targets(pixels.shape)["segmentation"].category.numpy()
        np.testing.assert_array_equal(found, np.where(pixels == 0, IGNORE, pixels - 1))
