"""VOC's files with classes of one's own: which classes, which images, from where boxes are counted, and class maps."""

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.datasets.voc import CLASSES
from polyteach.verbs.ingest import ingest
from tests.real import real
from tests.test_dataset_voc import H, W, lists, thing

IGNORE = 65535
MAP = np.zeros((H, W), np.uint8)
MAP[4:10, 3:12] = 1
MAP[12:, 20:] = 2
MAP[0, 0] = 255
KNOWN = np.where(MAP == 255, IGNORE, MAP.astype(np.int64))


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(path)


def xml(path, *things, size=(H, W)):
    path.parent.mkdir(parents=True, exist_ok=True)
    about = "" if size is None else f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    path.write_text(f"<annotation><filename>x</filename>{about}{''.join(things)}</annotation>")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "data"
    for name, about in (("a", thing("owl")), ("b", thing("cat") + thing("owl", (1, 1, 30, 20))), ("c", "")):
        picture(root / f"JPEGImages/{name}.jpg")
        xml(root / f"Annotations/{name}.xml", about)
    return root


def read(source):
    """By name: split, and the targets; and the dataset."""
    dataset = load_dataset(source)
    out = {}
    for name, entry in zip(dataset.names, dataset.entries(0, len(dataset.names)), strict=True):
        assert entry.problem is None
        out[name] = entry.split, {} if entry.targets is None else entry.targets((H, W))
    return out, dataset


def test_classes_are_those_that_the_files_name(root):
    found, dataset = read(f"voc:{root}")
    assert dataset.spaces["detection"].names == ("cat", "owl")
    assert [t["detection"].category.tolist() for _, t in found.values()] == [[1], [0, 1], []]
    assert found["JPEGImages/b.jpg"][1]["detection"].box.tolist() == [[4, 5, 10, 12], [0, 0, 30, 20]]
    assert "the classes are the 2 that the XML files name: cat, owl" in dataset.notes


def test_classes_are_those_that_are_given(root, tmp_path):
    for given in ("owl,dog,cat", "names.txt", str(tmp_path / "names.txt")):
        (root / "names.txt").write_text("owl\ndog\ncat\n")
        (tmp_path / "names.txt").write_text("owl\ndog\ncat\n")
        found, dataset = read(f"voc:{root}?classes={given}")
        assert dataset.spaces["detection"].names == ("owl", "dog", "cat")
        assert found["JPEGImages/b.jpg"][1]["detection"].category.tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"b.xml: object\[0\].name: 'cat' is none of the classes owl, dog"):
        read(f"voc:{root}?classes=owl,dog")
    with pytest.raises(ValueError, match=r"\?classes=owl: is no file, and no names"):
        load_dataset(f"voc:{root}?classes=owl")


def test_a_tree_that_names_vocs_classes_alone_has_vocs(root):
    xml(root / "Annotations/a.xml", thing("person"))
    xml(root / "Annotations/b.xml", thing("car"))
    dataset = load_dataset(f"voc:{root}")
    assert dataset.spaces["detection"].names == CLASSES
    assert "the classes are VOC's twenty: no other is named (?classes=own takes those that are)" in dataset.notes
    assert load_dataset(f"voc:{root}?classes=own").spaces["detection"].names == ("car", "person")


def test_a_tree_of_a_year_has_other_classes_where_that_is_asked(root):
    year = root / "VOC2012"
    year.mkdir()
    for name in ("JPEGImages", "Annotations"):
        (root / name).rename(year / name)
    lists(root, 2012, "Main", train=["a"], val=["b"], test=["c"], owl_train=["a 1"])
    with pytest.raises(
        ValueError, match=r"'owl' is none of VOC's classes: .*; for classes of your own give \?classes=own"
    ):
        read(f"voc:{root}")
    found, dataset = read(f"voc:{root}?classes=own")
    assert [s for s, _ in found.values()] == ["2012/train", "2012/val", "2012/test"]
    assert dataset.spaces["detection"].names == ("cat", "owl")
    with pytest.raises(ValueError, match=r"\?first= is for classes of your own"):
        load_dataset(f"voc:{root}?first=1")


@pytest.mark.parametrize(
    ("image", "about", "split"),
    [
        ("train/a.jpg", "train/a.xml", "train"),
        ("images/a.png", "annotations/a.xml", None),
        ("images/val/a.jpg", "annotations/val/a.xml", "val"),
        ("test/images/a.jpg", "test/Annotations/a.xml", "test"),
        ("JPEGImages/a.jpg", "Annotations/xmls/a.xml", None),
    ],
)
def test_trees_of_other_tools(tmp_path, image, about, split):
    picture(tmp_path / "d" / image)
    xml(tmp_path / "d" / about, thing("owl"))
    found, _ = read(f"voc:{tmp_path}/d?classes=own")
    assert list(found) == [image]
    assert found[image][0] == split
    assert found[image][1]["detection"].box.tolist() == [[4, 5, 10, 12]]


def test_images_without_xml_are_unlabelled_and_told(root, tmp_path, capsys):
    picture(root / "JPEGImages/d.jpg")
    xml(root / "Annotations/gone.xml", thing("cat"))
    ingest(f"voc:{root}", str(tmp_path / "store"))
    said = capsys.readouterr().err
    assert "1 images have no XML file: they are unlabelled" in said
    assert "1 XML files without an image" in said
    assert "1 absent, 3 labelled" in said


def test_lists_are_splits(root):
    folder = root / "ImageSets/Main"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("c\na\n")
    found, dataset = read(f"voc:{root}")
    assert {n: s for n, (s, _) in found.items()} == {"JPEGImages/c.jpg": "mine", "JPEGImages/a.jpg": "mine"}
    assert dataset.left_out == {"images in no list of ImageSets": 1}
    (folder / "other.txt").write_text("a\n")
    problems = [e.problem for e in load_dataset(f"voc:{root}").entries(0, 3)]
    assert problems[-1].endswith("Main/other.txt: a: is in " + str(folder / "mine.txt") + " already")
    (folder / "other.txt").write_text("../../a\n")
    with pytest.raises(ValueError, match=r"other.txt: '../../a' is no name of an image"):
        load_dataset(f"voc:{root}")


def test_boxes_that_are_counted_from_0(root):
    xml(root / "Annotations/a.xml", thing("owl", (0.0, 2.5, 10, 12)))
    found, dataset = read(f"voc:{root}")
    assert found["JPEGImages/a.jpg"][1]["detection"].box.tolist() == [[0, 2.5, 10, 12]]
    assert found["JPEGImages/b.jpg"][1]["detection"].box.tolist()[0] == [5, 6, 10, 12]
    assert "boxes begin at 0: all are counted from 0, not from 1 as VOC's (?first=1)" in dataset.notes
    found, _ = read(f"voc:{root}?first=1")
    assert found["JPEGImages/b.jpg"][1]["detection"].box.tolist()[0] == [4, 5, 10, 12]
    with pytest.raises(ValueError, match=r"\?first=2: is one of 0, 1"):
        load_dataset(f"voc:{root}?first=2")


def test_files_that_say_no_size(root, tmp_path, capsys):
    xml(root / "Annotations/a.xml", thing("owl"), size=None)
    xml(root / "Annotations/b.xml", thing("owl"), size=(0, 0))
    ingest(f"voc:{root}", str(tmp_path / "store"))
    assert "2 of 2 objects are in files that say no size of their image" in capsys.readouterr().err
    xml(root / "Annotations/b.xml", thing("owl"), size=(H, W + 1))
    with pytest.raises(ValueError, match=r"b.xml: size: 20 x 31"):
        read(f"voc:{root}")


def test_polygons_are_told(root, tmp_path, capsys):
    xml(root / "Annotations/a.xml", thing("owl").replace("</object>", "<polygon><x1>5</x1></polygon></object>"))
    ingest(f"voc:{root}", str(tmp_path / "store"))
    assert "1 of 3 objects have an outline (polygon) too, of which the box alone is read" in capsys.readouterr().err


def maps(root, pixels=MAP):
    (root / "SegmentationClass").mkdir()
    for name in ("a", "b"):
        Image.fromarray(pixels).save(root / f"SegmentationClass/{name}.png")


def test_class_maps_by_a_list(root):
    maps(root)
    _, dataset = read(f"voc:{root}")
    assert set(dataset.spaces) == {"detection"}
    assert any("SegmentationClass was not read: give the classes in the order" in n for n in dataset.notes)
    for given in ("cat,owl", "background,cat,owl"):
        found, dataset = read(f"voc:{root}?classes={given}")
        assert dataset.spaces["segmentation"].names == ("background", "cat", "owl")
        assert dataset.spaces["detection"].names == ("cat", "owl")
        np.testing.assert_array_equal(found["JPEGImages/a.jpg"][1]["segmentation"].category.numpy(), KNOWN)
        assert "segmentation" not in found["JPEGImages/c.jpg"][1]


def test_class_maps_by_cvats_colours(root):
    table = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)
    maps(root, table[np.where(MAP == 255, 0, MAP)])
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\nowl:0,128,0::\n"
    )
    found, dataset = read(f"voc:{root}")
    assert dataset.spaces["segmentation"].names == ("background", "cat", "owl")
    np.testing.assert_array_equal(
        found["JPEGImages/a.jpg"][1]["segmentation"].category.numpy(), np.where(MAP == 255, 0, MAP)
    )
    assert found["JPEGImages/b.jpg"][1]["detection"].category.tolist() == [0, 1]


def test_vocs_own_files_are_read_the_same_with_their_classes_given(tmp_path):
    folder = real("voc") / "VOCdevkit"
    given = tmp_path / "names.txt"
    given.write_text("\n".join(("background", *CLASSES)))
    plain, own = load_dataset(f"voc:{folder}"), load_dataset(f"voc:{folder}?classes={given}&first=1")
    assert set(plain.names) == set(own.names)
    assert plain.spaces == own.spaces
    where = {(n, e.split): e for n, e in zip(own.names, own.entries(0, len(own.names)), strict=True)}
    compared = 0
    for name, entry in zip(plain.names, plain.entries(0, len(plain.names)), strict=True):
        with Image.open(entry.uri) as image:
            size = image.size[::-1]
        a, b = entry.targets(size), where[name, entry.split].targets(size)
        for task in a:
            assert all(
                np.array_equal(vars(a[task])[f], vars(b[task])[f])
                for f in vars(a[task])
                if vars(a[task])[f] is not None
            )
            compared += 1
    assert compared > 100
