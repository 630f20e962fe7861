"""The VOCdevkit tree: boxes counted from 1, difficult objects, palette maps with void, two kinds of lists."""

import json

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.datasets.voc import CLASSES, PROTOCOLS
from polyteach.tasks import load_task
from polyteach.tasks.contract import Space
from polyteach.verbs.ingest import ingest

H, W = 20, 30
IGNORE = 65535
CAR, PERSON = "car", "person"


def thing(name=CAR, box=(5, 6, 10, 12), difficult="0", parts=""):
    sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    mark = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    pose = "<pose>Left</pose><truncated>1</truncated>"
    return f"<object>\n\t<name>{name}</name>{pose}{mark}<bndbox>{sides}</bndbox>{parts}</object>"


def xml(root, year, id, *things, size=(H, W)):
    path = root / f"VOC{year}/Annotations/{id}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    text = f"<annotation>\n<folder>VOC{year}</folder><filename>{id}.jpg</filename>{about}<segmented>0</segmented>"
    path.write_text(text + "".join(things) + "</annotation>\n")


def picture(root, year, id, size=(H, W)):
    path = root / f"VOC{year}/JPEGImages/{id}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)


def lists(root, year, kind, **splits):
    folder = root / f"VOC{year}/ImageSets/{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    for split, ids in splits.items():
        (folder / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))


def palette(root, year, id, indices, mode="P"):
    path = root / f"VOC{year}/SegmentationClass/{id}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices.astype(np.uint8), mode="L")
    if mode == "P":
        image = image.convert("L")
        image.putpalette([v for i in range(256) for v in (i * 37 % 256, i * 91 % 256, i * 53 % 256)])
    image.convert(mode).save(path)


MAP = np.zeros((H, W), dtype=np.int64)
MAP[4:10, 3:12] = 7
MAP[4:10, 12] = 255
MAP[12:, 20:] = 20


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "VOCdevkit"
    for id in ("000001", "000002", "000003", "000004"):
        picture(root, 2007, id)
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    xml(root, 2007, "000001", thing(), thing(PERSON, (1, 1, 30, 20), "1", part), thing("tvmonitor", (2, 2, 4, 4), None))
    xml(root, 2007, "000002", thing("aeroplane", ("15.70000076293945", "3.5", "20", "9"), "0"))
    xml(root, 2007, "000003")
    xml(root, 2007, "000004", thing("dog"))
    lists(root, 2007, "Main", train=["000001"], val=["000002"], trainval=["000001", "000002"], test=["000003"])
    lists(root, 2007, "Main", car_train=["000001  1"], car_val=["000002 -1"])
    for id in ("2008_000001", "2008_000002", "2008_000003", "2008_000004"):
        picture(root, 2012, id)
        xml(root, 2012, id, thing(PERSON, difficult=None))
    lists(root, 2012, "Main", train=["2008_000001", "2008_000002"], val=["2008_000003"], test=["2008_000004"])
    lists(root, 2012, "Segmentation", train=["2008_000001"], val=["2008_000002"], test=["2008_000004"])
    for id in ("2008_000001", "2008_000002"):
        palette(root, 2012, id, MAP)
    return root


def answers(root):
    """[(name, split, boxes, map)] in order; None where absent."""
    dataset = load_dataset(f"voc:{root}")
    out = []
    for name, entry in zip(dataset.names, dataset.entries(0, len(dataset.names)), strict=True):
        labels = entry.targets((H, W))
        out.append((name, entry.split, labels.get("detection"), labels.get("segmentation")))
    return out


def test_classes_are_the_kits():
    assert len(CLASSES) == 20
    assert list(CLASSES) == sorted(CLASSES)
    assert (CLASSES[0], CLASSES[6], CLASSES[14], CLASSES[19]) == ("aeroplane", "car", "person", "tvmonitor")


def test_splits_and_tasks_follow_the_lists(root):
    dataset = load_dataset(f"voc:{root}")
    assert dataset.spaces == {
        "detection": Space(CLASSES, "boxes"),
        "segmentation": Space(("background", *CLASSES)),
    }
    seen = [(n.removesuffix(".jpg"), s, b is not None, m is not None) for n, s, b, m in answers(root)]
    assert seen == [
        ("VOC2007/JPEGImages/000001", "2007/train", True, False),
        ("VOC2007/JPEGImages/000002", "2007/val", True, False),
        ("VOC2007/JPEGImages/000003", "2007/test", True, False),
        ("VOC2012/JPEGImages/2008_000001", "2012/train", True, True),
        ("VOC2012/JPEGImages/2008_000002", "2012/train", True, False),
        ("VOC2012/JPEGImages/2008_000003", "2012/val", True, False),
        ("VOC2012/JPEGImages/2008_000002", "2012/val", False, True),  # of another split for its pixels
        ("VOC2012/JPEGImages/2008_000004", "2012/test", False, False),  # whose labels are not public
    ]
    assert dataset.left_out == {"images in no list of ImageSets": 1}


def test_boxes(root):
    found = {n[-10:-4]: b for n, _, b, _ in answers(root)[:3]}
    first = found["000001"]
    assert first.box.tolist() == [[4, 5, 10, 12], [0, 0, 30, 20], [1, 1, 4, 4]]
    assert first.category.tolist() == [CLASSES.index(n) for n in (CAR, PERSON, "tvmonitor")]
    assert first.ignore.tolist() == [False, True, False]
    assert first.score.tolist() == [1, 1, 1]
    assert found["000002"].box[0].tolist() == pytest.approx([14.70000076293945, 2.5, 20, 9])
    assert found["000003"].box.shape == (0, 4)


def test_maps_are_indices_of_the_palette(root):
    (target,) = [m for n, s, _, m in answers(root) if s == "2012/train" and m is not None]
    np.testing.assert_array_equal(target.category.numpy(), np.where(MAP == 255, IGNORE, MAP))
    np.testing.assert_array_equal(target.probability.numpy(), (MAP != 255).astype(np.float32))
    palette(root, 2012, "2008_000001", MAP, "L")  # without a palette, as tools write them
    (again,) = [m for n, s, _, m in answers(root) if s == "2012/train" and m is not None]
    assert (again.category == target.category).all()


def test_the_store_has_all_splits(root, tmp_path):
    store = ingest(f"voc:{root}", str(tmp_path / "store"), progress=False)
    rows = store.images(0)
    assert [r.split for r in rows][-3:] == ["2012/val", "2012/val", "2012/test"]
    assert len({r.id for r in rows}) == 8
    sets = {s.task: dict(zip(s.ids(0), s.read(0), strict=True)) for s in store.sets()}
    assert sets["detection"]["VOC2007/JPEGImages/000001.jpg"].ignore.tolist() == [False, True, False]
    assert len(sets["detection"]["VOC2007/JPEGImages/000003.jpg"].box) == 0
    known = sets["segmentation"]["VOC2012/JPEGImages/2008_000002.jpg#2"].category
    np.testing.assert_array_equal(known.numpy(), np.where(MAP == 255, IGNORE, MAP))


def test_one_year_alone(root, tmp_path):
    names = [n for n, *_ in answers(root / "VOC2012")]
    assert names[0] == "JPEGImages/2008_000001.jpg"
    assert {s for _, s, *_ in answers(root / "VOC2012")} == {"2012/train", "2012/val", "2012/test"}
    (root / "VOC2012").rename(tmp_path / "mine")
    mine = load_dataset(f"voc:{tmp_path / 'mine'}")  # as one with classes of its own, which are VOC's
    assert {e.split for e in mine.entries(0, len(mine.names))} == {"train", "val", "test"}
    assert mine.spaces["detection"].names == CLASSES


def test_trainval_alone(root):
    folder = root / "VOC2007/ImageSets/Main"
    (folder / "train.txt").unlink()
    (folder / "val.txt").unlink()
    assert [s for _, s, *_ in answers(root)][:3] == ["2007/trainval", "2007/trainval", "2007/test"]


BAD = {
    "size": (lambda r: xml(r, 2007, "000001", thing(), size=(W, H)), r"000001.xml: size: 30 x 20 .*image is 20 x 30"),
    "no size": (
        lambda r: (r / "VOC2007/Annotations/000001.xml").write_text("<annotation/>"),
        r"000001.xml: size.height: must be a number; it is missing",
    ),
    "class": (
        lambda r: xml(r, 2007, "000001", thing(), thing("unicorn")),
        r"000001.xml: object\[1\].name: 'unicorn' is",
    ),
    "turned": (
        lambda r: xml(r, 2007, "000001", thing(box=(9, 2, 5, 4))),
        r"object\[0\].bndbox: must end after it begins",
    ),
    "no height": (lambda r: xml(r, 2007, "000001", thing(box=(1, 2, 5, 2))), r"object\[0\].bndbox: must end after"),
    "not finite": (
        lambda r: xml(r, 2007, "000001", thing(box=("nan", 2, 5, 4))),
        r"object\[0\]: bndbox.xmin: must be a number; got 'nan'",
    ),
    "no box": (
        lambda r: xml(r, 2007, "000001", "<object><name>car</name></object>"),
        r"object\[0\]: bndbox.xmin: must be a number; it is missing",
    ),
    "difficult": (
        lambda r: xml(r, 2007, "000001", thing(difficult="2")),
        r"object\[0\].difficult: must be 0 or 1; got '2'",
    ),
    "cut off": (
        lambda r: (r / "VOC2007/Annotations/000001.xml").write_text("<annotation><size>"),
        r"000001.xml: broken XML: no element found",
    ),
    "entities": (
        lambda r: (r / "VOC2007/Annotations/000001.xml").write_text(
            '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><annotation>&d;</annotation>'
        ),
        r"000001.xml: has a document type, entities or is not UTF-8",
    ),
    "no file": (lambda r: (r / "VOC2007/Annotations/000001.xml").unlink(), r"Annotations/000001.xml: missing"),
    "no picture": (
        lambda r: (r / "VOC2007/JPEGImages/000001.jpg").unlink(),
        r"cannot be read: No such file",
    ),
    "twice": (
        lambda r: lists(r, 2007, "Main", val=["000002", "000001"]),
        r"val.txt: 000001: is in .*Main/train.txt already",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_broken_annotations(root, tmp_path, case):
    make, said = BAD[case]
    make(root)
    with pytest.raises(ValueError, match=rf"VOC2007/JPEGImages/000001.jpg.*{said}"):
        ingest(f"voc:{root}", str(tmp_path / "strict"), progress=False)
    store = ingest(f"voc:{root}", str(tmp_path / "store"), progress=False, skip_bad=True)
    assert [i.removesuffix("#2") for i, _, _ in store.rejects()] == ["VOC2007/JPEGImages/000001.jpg"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda r: palette(r, 2012, "2008_000001", MAP + 21 * (MAP == 20)), r"2008_000001.png: index 41 is no class"),
        (lambda r: palette(r, 2012, "2008_000001", MAP.T), r"2008_000001.png: is 30 x 20 .* image is 20 x 30"),
        (lambda r: palette(r, 2012, "2008_000001", MAP, "RGB"), r"must be a palette PNG, .* it is RGB"),
        (lambda r: (r / "VOC2012/SegmentationClass/2008_000001.png").unlink(), r"2008_000001.png: missing"),
        (lambda r: (r / "VOC2012/SegmentationClass/2008_000001.png").write_bytes(b"x"), r"2008_000001.png: broken"),
    ],
)
def test_broken_maps(root, tmp_path, make, said):
    make(root)
    with pytest.raises(ValueError, match=said):
        ingest(f"voc:{root}", str(tmp_path / "strict"), progress=False)
    store = ingest(f"voc:{root}", str(tmp_path / "store"), progress=False, skip_bad=True)
    assert [i for i, _, _ in store.rejects()] == ["VOC2012/JPEGImages/2008_000001.jpg"]


def test_comments_are_no_document_types(root):
    file = root / "VOC2007/Annotations/000001.xml"
    file.write_text('<?xml version="1.0" encoding="UTF-8"?>\n<!-- made\nby hand -->' + file.read_text())
    assert len(answers(root)[0][2].box) == 3


def test_trees_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"is no folder: expected ROOT/VOC2007"):
        load_dataset(f"voc:{tmp_path / 'nothing'}")
    (tmp_path / "VOC2012/JPEGImages").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no lists of images: expected ROOT/VOC2007"):
        load_dataset(f"voc:{tmp_path}")
    lists(tmp_path, 2012, "Main", train=["../../etc/passwd"])
    with pytest.raises(ValueError, match=r"Main/train.txt: '../../etc/passwd' is no name of an image"):
        load_dataset(f"voc:{tmp_path}")


def test_protocols_name_what_there_is(root):
    splits = {e.split for e in load_dataset(f"voc:{root}").entries(0, 8)}
    assert set(PROTOCOLS) == {"voc-detection", "voc-segmentation"}
    for about in PROTOCOLS.values():
        assert {*about.train, *about.test} <= splits
        assert not {*about.train} & {*about.test}
        space = load_dataset(f"voc:{root}").spaces[about.task]
        metric = load_task(about.task).metric(space)
        metric.update([], [])
        assert about.metric in metric.compute()
        assert 0 < about.validation < 1


# ---------------------------------------------------------------- what people drew


@pytest.mark.parametrize(
    ("box", "said"),
    [
        (
            (100, 100, 140, 120),
            r"object\[0\].bndbox of 'car': 100, 100, 140, 120 lies outside of the image of 20",
        ),
        ((5, 5, 45, 12), r"object\[0\].bndbox of 'car': 5, 5, 45, 12 reaches from 4 to 45, far beyond the image"),
        ((0.1, 0.2, 0.5, 0.9), r"object\[0\].bndbox of 'car': .* all boxes of the file are within a pixel"),
    ],
)
def test_boxes_of_another_picture_or_form_are_refused(root, tmp_path, box, said):
    xml(root, 2007, "000001", thing(box=box))
    with pytest.raises(ValueError, match=r"VOC2007/Annotations/000001.xml: " + said):
        ingest(f"voc:{root}", str(tmp_path / "strict"), progress=False)
    store = ingest(f"voc:{root}", str(tmp_path / "store"), progress=False, skip_bad=True)
    ((id, _, reason),) = store.rejects()
    assert id == "VOC2007/JPEGImages/000001.jpg"
    assert "object[0].bndbox" in reason


def test_a_file_that_counts_from_0_is_clipped_and_counted(root, tmp_path, capsys):
    xml(root, 2007, "000001", thing(box=(0, 0, 12, 9)), thing(PERSON, (1, 1, 30, 20), "1"), thing("dog", (3, 3, 32, 9)))
    store = ingest(f"voc:{root}", str(tmp_path / "store"))
    labels = next(s for s in store.sets() if s.task == "detection")
    first = labels.read(0)[0]
    assert first.box.tolist() == [[0, 0, 12, 9], [0, 0, 30, 20], [2, 2, 30, 9]]
    said = capsys.readouterr().err
    assert "2 of 7 objects reached a little beyond the image and were clipped" in said
    assert "1 of 7 objects are difficult, and not learned" in said
    notes = json.loads((tmp_path / "store/ingest.json").read_text())["notes"]["detection"]
    assert notes == {
        "objects": 7,
        "reached a little beyond the image and were clipped": 2,
        "are difficult, and not learned": 1,
    }


def test_a_folder_above_the_tree_finds_it_and_says_so(root, tmp_path, capsys):
    store = ingest(f"voc:{tmp_path}", str(tmp_path / "store"))
    assert "VOC2007/JPEGImages/000001.jpg" in [r.id for r in store.images(0)]
    assert f"{root} was read" in capsys.readouterr().err
    deeper = tmp_path / "a" / "b"
    deeper.mkdir(parents=True)
    root.rename(deeper / "VOCdevkit")
    assert len(load_dataset(f"voc:{tmp_path / 'a'}").names) == 8
    with pytest.raises(ValueError, match="has no lists of images: expected ROOT/VOC2007"):
        load_dataset(f"voc:{tmp_path}")  # three levels
    (tmp_path / "a" / "again" / "VOC2012" / "ImageSets").mkdir(parents=True)
    (tmp_path / "a" / "b" / "VOC2007").mkdir()
    with pytest.raises(ValueError, match=r"has several such trees below it; give one of .*a/again, .*a/b"):
        load_dataset(f"voc:{tmp_path / 'a'}")
