"""CVAT's XML for images: shapes of every kind, parts of one object, large files, and what is refused."""

import re
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageDraw

from polyteach.datasets import load_dataset
from polyteach.tasks.detection import BOXES, MASKS
from polyteach.verbs.ingest import ingest

H, W = 20, 30
BOX = (
    '<box label="cat" source="manual" occluded="0" xtl="2" ytl="3" xbr="12.5" ybr="9" z_order="0">'
    '<attribute name="x">1</attribute></box>'
)
TRIANGLE = '<polygon label="dog" source="manual" points="3,2;27,2;15.0,18"/>'


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(path)


def image(name, *shapes, size=(H, W), more=""):
    return f'<image id="0" name="{name}" {more} width="{size[1]}" height="{size[0]}">{"".join(shapes)}</image>'


def write(path, *images, labels=("cat", "dog")):
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = "".join(
        f"<label><name>{n}</name><color>#ff0000</color><attributes><attribute><name>x</name></attribute></attributes></label>"
        for n in labels
    )
    meta = f"<version>1.1</version><meta><task><id>1</id><name>task</name><labels>{listed}</labels></task></meta>"
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}{"".join(images)}</annotations>')


@pytest.fixture
def root(tmp_path):
    picture(tmp_path / "data/images/a.png")
    return tmp_path / "data"


def read(source):
    dataset = load_dataset(source)
    entry = next(dataset.entries(0, 1))
    assert entry.problem is None, entry.problem
    return entry.targets((H, W))["detection"]


def test_boxes(root):
    write(root / "annotations.xml", image("a.png", BOX))
    found = read(f"cvat:{root}")
    assert found.box.tolist() == [[2, 3, 12.5, 9]]
    assert found.category.tolist() == [0]
    space = load_dataset(f"cvat:{root}").spaces["detection"]
    assert (space.names, space.kind) == (("cat", "dog"), BOXES)
    assert read(f"cvat:{root}/annotations.xml").box.tolist() == [[2, 3, 12.5, 9]]


def test_outlines_of_every_kind(root):
    part = np.array([[0, 0, 0, 1], [1, 1, 1, 0], [0, 0, 0, 1]], bool)  # runs of 3, 4, 4, 1
    write(
        root / "annotations.xml",
        image(
            "a.png",
            TRIANGLE,
            '<mask label="cat" rle="3, 4, 4, 1" left="5" top="6" width="4" height="3"/>',
            '<ellipse label="cat" cx="15" cy="10" rx="6" ry="3" rotation="90"/>',
            '<box label="cat" xtl="10" ytl="8" xbr="20" ybr="12" rotation="90.0"/>',
            '<polyline label="cat" points="1,1;2,2"/><points label="cat" points="1,1"/><tag label="dog"/><cuboid/>',
        ),
    )
    found = read(f"cvat:{root}")
    dataset = load_dataset(f"cvat:{root}")
    assert dataset.spaces["detection"].kind == MASKS
    assert "4 shapes of other kinds were not read: 1 cuboid, 1 points, 1 polyline, 1 tag" in dataset.notes
    np.testing.assert_allclose(
        found.box.numpy(), [[3, 2, 27, 18], [5, 6, 9, 9], [12, 4, 18, 16], [13, 5, 17, 15]], atol=1e-4
    )
    masks = found.mask.numpy()
    drawn = Image.new("1", (W * 8, H * 8))
    ImageDraw.Draw(drawn).polygon([(24, 16), (216, 16), (120, 144)], fill=1)
    share = np.asarray(drawn).reshape(H, 8, W, 8).mean((1, 3))
    assert masks[0][share == 1].all()
    assert not masks[0][share == 0].any()
    expected = np.zeros((H, W), bool)
    expected[6:9, 5:9] = part
    np.testing.assert_array_equal(masks[1], expected)
    assert masks[2][5:15, 14:16].all()
    assert masks[3].sum() == 40


def test_a_turn_is_clockwise_as_it_is_seen(root):
    write(
        root / "annotations.xml", image("a.png", '<box label="cat" xtl="5" ytl="9" xbr="25" ybr="11" rotation="30"/>')
    )
    mask = read(f"cvat:{root}").mask[0].numpy()
    y, x = np.nonzero(mask)
    assert np.polyfit(x, y, 1)[0] == pytest.approx(np.tan(np.deg2rad(30)), abs=0.1)  # y grows downwards


def test_groups_are_objects(root):
    parts = [
        f'<polygon label="dog" group_id="{g}" points="{p}"/>'
        for g, p in ((1, "1,1;5,1;5,6"), (1, "20,10;28,10;28,18"), (0, "1,1;5,1;5,6"), (0, "1,1;5,1;5,6"))
    ]
    write(root / "annotations.xml", image("a.png", *parts))
    assert read(f"cvat:{root}").box.tolist() == [[1, 1, 28, 18], [1, 1, 5, 6], [1, 1, 5, 6]]


@pytest.mark.parametrize(
    ("file", "called", "split"),
    [
        ("images/a.png", "a.png", None),
        ("images/train/a.png", "train/a.png", "train"),
        ("images/train/a.png", "train\\a.png", "train"),
        ("a.png", "/data/cvat/share/a.png", None),
        ("images/a.png", "sub/a.png", None),
    ],
)
def test_where_images_are(tmp_path, file, called, split):
    picture(tmp_path / "d" / file)
    write(tmp_path / "d/annotations.xml", image(called, BOX))
    dataset = load_dataset(f"cvat:{tmp_path}/d")
    assert list(dataset.names) == [file]
    assert next(dataset.entries(0, 1)).split == split
    write(tmp_path / "d/annotations.xml", image(called, BOX, more='subset="Validation"'))
    assert next(load_dataset(f"cvat:{tmp_path}/d").entries(0, 1)).split == "Validation"


def test_nothing_outside_of_the_tree_is_read(root, tmp_path):
    picture(tmp_path / "secret.png")
    for called in ("../secret.png", "../../secret.png", str(tmp_path / "secret.png")):
        write(root / "annotations.xml", image(called, BOX))
        assert "is not below" in next(load_dataset(f"cvat:{root}").entries(0, 1)).problem


def test_images_without_shapes(root, tmp_path, capsys):
    picture(root / "images/b.png")
    picture(root / "images/c.png")
    write(root / "annotations.xml", image("a.png"), image("b.png", BOX))
    store = ingest(f"cvat:{root}", str(tmp_path / "store"))
    said = capsys.readouterr().err
    assert "1 images have no shape that is read: they are labelled, with nothing in them (?empty=unlabelled)" in said
    assert "1 images that no XML file names" in said
    assert [len(t.box) for t in next(iter(store.sets())).read(0)] == [0, 1]
    other = load_dataset(f"cvat:{root}?empty=unlabelled")
    assert [e.targets is None for e in other.entries(0, 2)] == [True, False]


def test_several_files(root):
    picture(root / "images/b.png")
    write(root / "1.xml", image("a.png", BOX))
    write(root / "2.xml", image("b.png", BOX))
    (root / "other.xml").write_text("<html><p/></html>")
    assert list(load_dataset(f"cvat:{root}").names) == ["images/a.png", "images/b.png"]
    write(root / "2.xml", image("a.png", BOX))
    assert all("'a.png': is there twice" in e.problem for e in load_dataset(f"cvat:{root}").entries(0, 2))
    write(root / "2.xml", image("b.png", BOX), labels=("dog", "cat"))
    with pytest.raises(ValueError, match=r"2.xml: has other labels than .*1.xml: give \?classes=a,b,c"):
        load_dataset(f"cvat:{root}")
    assert load_dataset(f"cvat:{root}?classes=dog,cat").spaces["detection"].names == ("dog", "cat")


SHAPES = {
    "label": (BOX.replace("cat", "cow"), r"box 0: label: 'cow' is none of the 2 classes"),
    "no number": (BOX.replace('"2"', '"x"'), r"box 0: xtl: must be a number; got 'x'"),
    "nan": (BOX.replace('"2"', '"nan"'), r"box 0: xtl: must be a number; got 'nan'"),
    "no field": (BOX.replace("xtl", "left"), r"box 0: xtl: must be a number; got ''"),
    "turned": (BOX.replace('"12.5"', '"1"'), r"box 0: box of 'cat': 2, 3, 1, 9 has no area"),
    "points": (TRIANGLE.replace("3,2;", ""), r"polygon 0: points: must be 3 or more"),
    "half a point": (TRIANGLE.replace("3,2;", "3;"), r"polygon 0: points: must be 3 or more"),
    "infinite": (TRIANGLE.replace("3,2;", "inf,2;"), r"polygon 0: points: must be 3 or more"),
    "runs": ('<mask label="cat" rle="3, 4" left="0" top="0" width="4" height="3"/>', r"mask 0: rle: must be runs"),
    "no runs": ('<mask label="cat" left="0" top="0" width="4" height="3"/>', r"mask 0: rle: must be runs"),
    "nothing": ('<mask label="cat" rle="12" left="0" top="0" width="4" height="3"/>', r"mask 0: rle: covers no pixel"),
    "beyond": ('<mask label="cat" rle="12" left="28" top="0" width="4" height="3"/>', r"mask 0: the mask lies beyond"),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_a_broken_shape_is_its_images(root, tmp_path, case):
    shape, said = SHAPES[case]
    picture(root / "images/b.png")
    write(root / "annotations.xml", image("a.png", shape), image("b.png", BOX))
    with pytest.raises(ValueError, match=rf"annotations.xml: 'a.png': {said}"):
        ingest(f"cvat:{root}", str(tmp_path / "strict"), progress=False)
    store = ingest(f"cvat:{root}", str(tmp_path / "store"), progress=False, skip_bad=True)
    assert [i for i, *_ in store.rejects()] == ["images/a.png"]


def test_another_size_is_refused(root):
    write(root / "annotations.xml", image("a.png", BOX, size=(W, H)))
    with pytest.raises(ValueError, match=r"'a.png': height, width: 30 x 20, but the image is 20 x 30"):
        read(f"cvat:{root}")


ENTITY = '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]>'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("<annotations>", ENTITY + "<annotations>"), r"has a document type"),
        (lambda t: t.replace("<version>", "&b;<version>"), r"broken XML: undefined entity"),
        (lambda t: t[:-40], r"broken XML: no element found"),
        (lambda t: t.replace("utf-8", "latin-1"), r"is 'latin-1', not UTF-8"),
        (lambda t: t.replace("utf-8", "utf-16").encode("utf-16").decode("latin-1"), r"UTF-8|broken XML"),
        (lambda t: t.replace("<image ", '<track id="0" label="cat"/><image '), r"is of CVAT for video \(tracks\)"),
        (lambda t: t.replace("<version>", "<a>" * 99 + "</a>" * 99 + "<version>"), r"is nested too deeply"),
        (lambda t: t.replace("annotations>", "annotation>"), r"has no XML file of CVAT's"),
        (lambda t: t.replace("<name>dog", "<name>cat"), r"meta: labels: a class is called 'cat' already"),
        (lambda t: re.sub("<labels>.*</labels>", "", t), r"meta: names no label; give \?classes=a,b,c"),
        (lambda t: "", r"broken XML: no element found"),
    ],
)
def test_broken_files_are_named(root, change, said):
    file = root / "annotations.xml"
    write(file, image("a.png", BOX))
    file.write_bytes(change(file.read_text()).encode("latin-1"))
    with pytest.raises(ValueError, match=said) as error:
        load_dataset(f"cvat:{root}")
    assert str(root) in str(error.value)


def test_a_large_file_costs_what_an_image_of_it_costs(root):
    """Fifty thousand shapes of two hundred images: 6 MB of text."""
    for i in range(2):
        picture(root / f"images/{i}.png")
    many = [BOX] * 250
    write(root / "annotations.xml", *(image(f"{i}.png", *many) for i in range(200)))
    size = (root / "annotations.xml").stat().st_size
    assert size > 6_000_000
    tracemalloc.start()
    dataset = load_dataset(f"cvat:{root}")
    found = next(dataset.entries(1, 2)).targets((H, W))["detection"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.box) == 250
    assert peak < size / 2
