"""Label sets as files of other tools: read back by polyteach's readers, by the formats' own libraries, and by hand."""

import csv
import errno
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from pycocotools.coco import COCO

from polyteach.__main__ import main
from polyteach.ground.files import write_json
from polyteach.store import ImageRow, Store
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Space
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.normals import NormalsTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget
from polyteach.verbs.export_labels import export_labels
from polyteach.verbs.ingest import ingest
from polyteach.writers import formats, load_writer
from polyteach.writers._names import FileNames, class_lines, class_names
from polyteach.writers._outlines import joined, rings

NAMES = ("a cat", 'x & <"y">', "ähre/kn")
SIZES = [(24, 33), (20, 20), (31, 18), (24, 24), (16, 40)]
SPLITS = ["train", "train", "val", "train", "val"]
OBJECTS = ("coco", "yolo", "labelme", "cvat", "label-studio")


def pixels(i):
    out = io.BytesIO()
    grey = torch.randint(0, 256, (*SIZES[i], 3), generator=torch.Generator().manual_seed(i), dtype=torch.uint8)
    Image.fromarray(grey.numpy()).save(out, format="PNG")
    return out.getvalue()


def shapes(size):
    """Outlines of three objects: two parts, a ring with a hole, and pixels that touch at corners alone."""
    mask = torch.zeros(3, *size, dtype=torch.bool)
    mask[0, 2:6, 3:9] = mask[0, 8:14, 5:12] = True
    mask[1, 1:12, 2:15] = True
    mask[1, 4:9, 5:11] = False
    mask[2, 3:9, 4:10] = torch.eye(6, dtype=torch.bool)
    return mask


def objects(size, ignored=False, outlines=True, scores=(1.0, 1.0, 1.0)):
    mask = shapes(size)
    box = torch.tensor([[3.3, 2.1, 11.7, 13.9], [2.1, 1.3, 14.6, 11.9], [4.2, 3.4, 9.9, 8.7]])
    return DetectionTarget(
        box=box,
        category=torch.tensor([2, 0, 1]),
        score=torch.tensor(scores),
        ignore=torch.tensor([False, False, ignored]),
        mask=mask if outlines else None,
    )


NONE = DetectionTarget(
    torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0), torch.zeros(0, dtype=torch.bool), None
)


def store_of(path, task, answers, space, name="people", ids=None, part_size=2):
    """Five images, embedded, with what is said of each."""
    store = Store.create(path, part_size)
    ids = ids or [f"{SPLITS[i]}/{i}.png" for i in range(5)]
    teacher = {"teacher": "people"} if name == "people" else {"teacher": {"spec": "timm:x", "licence": "MIT"}}
    labels = store.create_set(task, name, space, teacher)
    for part in range(3):
        here = range(part * 2, min(part * 2 + 2, 5))
        store.write_images(part, [ImageRow(ids[i], *SIZES[i], pixels(i), split=SPLITS[i]) for i in here])
        labels.write(part, [ids[i] for i in here], [answers[i] for i in here])
    return store


@pytest.fixture(params=[True, False], ids=["outlines", "boxes"])
def boxes(request, tmp_path):
    """A store of objects, of which the third is a crowd once; an image of nothing, and one that nobody labelled."""
    kind = "boxes and masks" if request.param else "boxes"
    empty = replace(NONE, mask=torch.zeros(0, *SIZES[3], dtype=torch.bool)) if request.param else NONE
    answers = [
        objects(SIZES[0], outlines=request.param),
        objects(SIZES[1], ignored=True, outlines=request.param),
        objects(SIZES[2], outlines=request.param),
        empty,
        None,
    ]
    return store_of(tmp_path / "store", "detection", answers, Space(NAMES, kind))


def export(store, out, format, **options):
    return Path(export_labels(store.path, out, format=format, progress=False, **options))


def answers_of(store, task):
    """Image's size -> target. The sizes differ."""
    [labels] = [s for s in store.sets() if s.task == task]
    found = {}
    for part in store.parts():
        for row, answer in zip(store.images(part), labels.read(part), strict=True):
            found[row.height, row.width] = (row, answer)
    return labels, found


def again(folder, home):
    """The folder, ingested as its README says."""
    line = next(line for line in (folder / "README.md").read_text().splitlines() if line.startswith("Read it again"))
    return ingest(line.split("'")[1], home, progress=False)


def kept(target):
    """What formats that have no ignored objects keep."""
    return [i for i, ignore in enumerate(target.ignore.tolist()) if not ignore]


FORMS = [("coco", False), ("coco", True), ("yolo", False), ("labelme", False), ("labelme", True), ("cvat", False),
         ("cvat", True), ("label-studio", False)]  # fmt: skip


@pytest.mark.parametrize(("format", "polygons"), FORMS)
def test_what_is_written_is_read_again(boxes, tmp_path, format, polygons, capsys):
    options = {"polygons": True} if polygons else {}
    folder = export(boxes, tmp_path / "out", format, **options)
    said = capsys.readouterr().err
    assert "1 images have no answer in the label set and were left out" in said
    back = again(folder, tmp_path / "back")
    (labels, old), (other, new) = answers_of(boxes, "detection"), answers_of(back, "detection")
    assert other.space == labels.space
    assert set(new) == set(SIZES[:4])
    filled = polygons and format in ("labelme", "cvat")  # their polygons have no holes
    assert ("have holes" in said) == (labels.space.kind != "boxes" and (filled or (format == "coco" and polygons)))
    for size, (row, target) in new.items():
        source, true = old[size]
        assert back.read(row) == source.data
        assert row.split == source.split
        rows = list(range(len(true.box))) if format in ("coco", "labelme") else kept(true)
        assert target.ignore.tolist() == true.ignore[rows].tolist()
        learned = ~true.ignore[rows]
        assert target.category[learned].tolist() == true.category[rows][learned].tolist()
        exact = true.mask is None or format == "coco"
        off = (
            1.0 if not exact else 2e-5 if format in ("yolo", "label-studio") else 0.0
        )  # an outline's own box; decimals
        assert torch.allclose(target.box, true.box[rows], rtol=0, atol=off)
        if true.mask is not None and len(rows):
            expected = true.mask[rows].clone()
            if filled and len(rows) > 1:
                expected[1, 4:9, 5:11] = True
            assert torch.equal(target.mask, expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools
@pytest.mark.parametrize("polygons", [False, True])
def test_coco_is_what_pycocotools_reads(boxes, tmp_path, polygons, capsys):
    folder = export(boxes, tmp_path / "out", "coco", polygons=polygons)
    _, old = answers_of(boxes, "detection")
    seen = 0
    for split in ("train", "val"):
        read = COCO(str(folder / f"annotations/instances_{split}.json"))
        assert [read.cats[k]["name"] for k in sorted(read.cats)] == list(NAMES)
        for image in read.loadImgs(read.getImgIds()):
            row, target = old[image["height"], image["width"]]
            assert (folder / "images" / split / image["file_name"]).read_bytes() == row.data
            found = read.loadAnns(read.getAnnIds(image["id"]))
            assert len(found) == len(target.box)
            for i, one in enumerate(found):
                x, y, w, h = one["bbox"]
                assert np.float32([x, y, x + w, y + h]).tolist() == target.box[i].tolist()
                assert (one["iscrowd"], one["category_id"] - 1) == (int(target.ignore[i]), int(target.category[i]))
                assert "score" not in one
                if target.mask is not None:
                    assert (read.annToMask(one) == target.mask[i].numpy()).all()
                    assert one["area"] == target.mask[i].sum()
                    assert isinstance(one["segmentation"], list) == (polygons and not one["iscrowd"])
                else:
                    assert one["segmentation"] == []
                    assert one["area"] == pytest.approx(w * h)
            seen += 1
    assert seen == 4


def pseudo(tmp_path):
    answers = [objects(SIZES[i], outlines=False, scores=(0.2, 0.9, 0.55)) for i in range(4)] + ["failed"]
    return store_of(tmp_path / "pseudo", "detection", answers, Space(NAMES, "boxes"), name="boxes")


def coco_of(folder):
    """File name and annotation ids -> the rest of an annotation, of all splits."""
    out = {}
    for file in folder.glob("annotations/*.json"):
        about = json.loads(file.read_text())
        names = {i["id"]: i["file_name"] for i in about["images"]}
        out |= {(names[a["image_id"]], a["image_id"], a["id"]): a for a in about["annotations"]}
    return out


def test_ids_stay_and_scores_are_kept(tmp_path, capsys):
    store = pseudo(tmp_path)
    everything = coco_of(export(store, tmp_path / "all", "coco", score=0.0))
    assert len(everything) == 12
    assert sorted({a["score"] for a in everything.values()}) == [0.2, 0.55, 0.9]
    capsys.readouterr()
    usual = coco_of(export(store, tmp_path / "usual", "coco"))
    said = capsys.readouterr().err
    assert "4 boxes have a score below 0.5 and were left out" in said
    assert "--score 0 takes all" in said
    assert {a["score"] for a in usual.values()} == {0.55, 0.9}
    some = coco_of(export(store, tmp_path / "val", "coco", score=0.6, split=["val"]))
    assert {a["score"] for a in some.values()} == {0.9}
    for few in (usual, some):
        assert few.items() <= everything.items()
    assert len(some) == 1


def test_scores_are_calibrated_as_in_training(tmp_path, capsys):
    store = pseudo(tmp_path)
    about = {"temperature": 2.0, "shift": 0.0, "people": ["detection/people"], "images": 1, "answers": 1,
             "nll": {"before": 1.0, "after": 0.5}, "ece": {"before": 1.0, "after": 0.5}}  # fmt: skip
    write_json(store.path / "labels/detection/boxes/calibration.json", about)
    found = coco_of(export(store, tmp_path / "out", "coco", score=0.0))
    expected = {1 / (1 + ((1 - p) / p) ** 0.5) for p in (0.2, 0.55, 0.9)}
    assert sorted({a["score"] for a in found.values()}) == pytest.approx(sorted(expected), abs=1e-5)
    assert "are calibrated" in capsys.readouterr().err


def test_yolo_by_hand(boxes, tmp_path, capsys):
    folder = export(boxes, tmp_path / "out", "yolo")
    about = yaml.safe_load((folder / "data.yaml").read_text())
    assert about == {"path": ".", "train": "images/train", "val": "images/val", "names": dict(enumerate(NAMES))}
    images = {p.relative_to(folder / "images").with_suffix("") for p in (folder / "images").rglob("*.png")}
    files = {p.relative_to(folder / "labels").with_suffix("") for p in (folder / "labels").rglob("*.txt")}
    assert images == files == {Path(SPLITS[i]) / str(i) for i in range(4)}
    assert (folder / "labels/train/3.txt").read_text() == ""
    lines = [line.split() for line in (folder / "labels/train/1.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["2", "0"]  # the third is ignored
    assert "1 ignored objects (crowds, difficult ones) were left out" in capsys.readouterr().err
    numbers = np.array([float(v) for v in lines[1][1:]])
    if len(numbers) == 4:
        x, y, w, h = numbers * [20, 20, 20, 20]
        assert [x - w / 2, y - h / 2, x + w / 2, y + h / 2] == pytest.approx([2.1, 1.3, 14.6, 11.9], abs=1e-5)
    else:
        assert numbers.min() * 20 == pytest.approx(1)
        assert numbers.max() * 20 == pytest.approx(15)


def test_splits_of_yolo_are_told(tmp_path, capsys):
    store = Store.create(tmp_path / "store", 8)
    splits = ["train2017", "validation", None, "holdout"]
    store.write_images(0, [ImageRow(f"{i}.png", *SIZES[i], pixels(i), split=s) for i, s in enumerate(splits)])
    labels = store.create_set("detection", "people", Space(NAMES, "boxes"), {"teacher": "people"})
    labels.write(0, store.ids(0), [objects(SIZES[i], outlines=False) for i in range(4)])
    folder = export(store, tmp_path / "out", "yolo")
    about = yaml.safe_load((folder / "data.yaml").read_text())
    assert about["train"] == ["images/train", "images/holdout", "images/train2017"]
    assert about["val"] == "images/validation"
    assert "images of no split, holdout: taken for training" in capsys.readouterr().err
    export(store, tmp_path / "one", "yolo", split=["train2017"])
    assert "data.yaml has no val" in capsys.readouterr().err


def test_cvat_and_label_studio_say_what_they_should(tmp_path, capsys):
    store = pseudo(tmp_path)
    root = ElementTree.parse(export(store, tmp_path / "cvat", "cvat") / "annotations.xml").getroot()
    assert [e.text for e in root.findall("meta/task/labels/label/name")] == list(NAMES)
    assert [(i.get("subset"), len(i)) for i in root.findall("image")] == [
        ("train", 2), ("train", 2), ("val", 2), ("train", 2)
    ]  # fmt: skip
    assert {b.get("source") for b in root.iter("box")} == {"auto"}
    assert "8 objects had a score, which CVAT's format has not" in capsys.readouterr().err
    folder = export(store, tmp_path / "studio", "label-studio")
    tasks = json.loads((folder / "tasks.json").read_text())
    assert tasks[0]["data"] == {"image": "/data/local-files/?d=images/train/0.png"}
    assert "annotations" not in tasks[0]
    [prediction] = tasks[0]["predictions"]
    assert [r["score"] for r in prediction["result"]] == [0.9, 0.55]
    assert prediction["score"] == pytest.approx((0.9 + 0.55) / 2)
    value = prediction["result"][0]["value"]
    assert value["x"] * SIZES[0][1] / 100 == pytest.approx(2.1, abs=1e-5)
    assert value["height"] * SIZES[0][0] / 100 == pytest.approx(11.9 - 1.3, abs=1e-5)
    view = ElementTree.parse(folder / "label_config.xml").getroot()
    assert [e.get("value") for e in view.findall("RectangleLabels/Label")] == list(NAMES)


def regions(size, classes, seed=0, cells=None):
    draw = torch.Generator().manual_seed(seed)
    category = torch.randint(0, classes, cells or size, generator=draw)
    category[0, :3] = IGNORE
    return SegmentationTarget(category, (category != IGNORE).float())


@pytest.mark.parametrize("classes", [2, 40, 255, 256, 300])
def test_masks_of_any_number_of_classes(tmp_path, classes):
    names = tuple(f"{i} {chr(97 + i % 26)}:b" for i in range(classes))
    store = store_of(tmp_path / "s", "segmentation", [regions(s, classes) for s in SIZES], Space(names))
    folder = export(store, tmp_path / "out", "masks")
    _, old = answers_of(store, "segmentation")
    for size, (row, target) in old.items():
        with Image.open(folder / "masks" / row.split / f"{Path(row.id).stem}.png") as image:
            assert image.mode == ("P" if classes <= 255 else "I;16")
            found = np.asarray(image).astype(np.int64)
        true = target.category.numpy().copy()
        true[true == IGNORE] = 255 if classes <= 255 else 65535
        assert (found == true).all(), size
    other, new = answers_of(again(folder, tmp_path / "back"), "segmentation")
    assert other.space.names == names
    assert all(torch.equal(new[size][1].category, old[size][1].category) for size in old)


def test_pixels_below_the_score_are_unknown_and_maps_get_their_images_size(tmp_path, capsys):
    def answer(size):
        category = torch.arange(4).view(2, 2) % 3
        return SegmentationTarget(category, torch.tensor([[0.9, 0.4], [0.7, 0.6]]))

    sizes = [(24, 24)] * 5
    store = Store.create(tmp_path / "s", 8)
    row = ImageRow("a.png", 24, 24, pixels(3))
    store.write_images(0, [row])
    store.create_set("segmentation", "x", Space(NAMES), {}).write(0, ["a.png"], [answer(sizes[0])])
    folder = export(store, tmp_path / "out", "masks")
    found = np.asarray(Image.open(folder / "masks/a.png"))
    assert (found == np.kron([[0, 255], [2, 0]], np.ones((12, 12)))).all()
    said = capsys.readouterr().err
    assert "1 pixels have a probability below 0.5" in said
    assert "1 maps were of another size than their images" in said
    assert "1 maps had probabilities" in said


def test_depth_in_steps_and_relative_by_rank(tmp_path, capsys):
    def answer(i):
        draw = torch.Generator().manual_seed(i)
        value = torch.rand(SIZES[i], generator=draw) * 20 + 1
        value[0, 0], value[0, 1], value[0, 2] = 100.0, 0.0004, 5.0
        valid = torch.ones(SIZES[i], dtype=torch.bool)
        valid[1, 1] = False
        return DepthTarget(value.masked_fill(~valid, 0).half().float(), valid)

    store = store_of(tmp_path / "m", "depth", [answer(i) for i in range(5)], Space((), "metric"))
    folder = export(store, tmp_path / "out", "masks", depth_scale=0.002 / 2)
    said = capsys.readouterr().err
    assert "5 pixels are farther than the 65.535 metres" in said
    assert "5 pixels are nearer than the 0.001 metres" in said
    _, old = answers_of(store, "depth")
    for row, target in old.values():
        found = np.asarray(Image.open(folder / "depth" / row.split / f"{Path(row.id).stem}.png"))
        assert found.dtype == np.uint16
        assert found[0, :2].tolist() == [0, 0]
        assert found[1, 1] == 0
        assert found[0, 2] == 5000
        known = found > 0
        assert np.abs(found[known] * 0.001 - target.value.numpy()[known]).max() <= 0.0005 + 1e-9
        assert known.sum() == target.value.numel() - 3
    other, new = answers_of(again(folder, tmp_path / "back"), "depth")
    assert other.space.kind == "metric"
    assert all((new[s][1].value - old[s][1].value)[new[s][1].valid].abs().max() < 0.01 for s in old)  # float16 too

    relative = [replace(answer(i), value=-answer(i).value) for i in range(5)]
    store = store_of(tmp_path / "r", "depth", relative, Space((), "relative inverse"))
    folder = export(store, tmp_path / "near", "masks")
    assert "larger is nearer" in capsys.readouterr().err
    _, new = answers_of(again(folder, tmp_path / "back2"), "depth")
    for size, (_, target) in answers_of(store, "depth")[1].items():
        found = new[size][1]
        assert torch.equal(found.valid, target.valid)
        a, b = target.value[target.valid].double(), found.value[target.valid].double()
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.9999
        assert b.argmax() == a.argmax()
    with pytest.raises(ValueError, match="is relative and has none"):
        export(store, tmp_path / "none", "masks", depth_scale=0.5)
    assert not (tmp_path / "none").exists()


def test_normals_as_colours(tmp_path):
    normal = torch.tensor([[0.0, 0, -1], [0, -1, 0], [1, 0, 0]]).T.reshape(3, 1, 3)  # the camera, up, right
    target = NormalsTarget(normal.repeat(1, 8, 8), torch.ones(8, 24, dtype=torch.bool))
    target.valid[7] = False
    store = Store.create(tmp_path / "s", 8)
    out = io.BytesIO()
    Image.new("RGB", (24, 8)).save(out, format="PNG")
    store.write_images(0, [ImageRow("a.png", 8, 24, out.getvalue())])
    store.create_set("normals", "x", Space(), {}).write(0, ["a.png"], [target])
    found = np.asarray(Image.open(export(store, tmp_path / "out", "masks") / "normals/a.png"))
    assert found[0, :3].tolist() == [[128, 128, 255], [128, 255, 128], [255, 128, 128]]
    assert (found[7] == 128).all()


def vectors(*probabilities):
    return [ClassificationTarget(torch.tensor(p)) for p in probabilities]


def test_classes_in_parquet_and_in_label_studio(tmp_path, capsys):
    hard = vectors(*([float(k == i % 3) for k in range(3)] for i in range(5)))
    store = store_of(tmp_path / "s", "classification", hard, Space(NAMES))
    folder = export(store, tmp_path / "out", "hf")
    assert sorted(p.name for p in (folder / "data").iterdir()) == [
        "train-00000-of-00001.parquet",
        "val-00000-of-00001.parquet",
    ]
    back = again(folder, tmp_path / "back")
    labels, new = answers_of(back, "classification")
    assert labels.space.names == NAMES
    for size, (row, target) in answers_of(store, "classification")[1].items():
        other = new[size][0]
        assert (other.id, other.split, other.data) == (row.id, row.split, row.data)
        assert torch.equal(new[size][1].probability, target.probability)
    studio = again(export(store, tmp_path / "studio", "label-studio"), tmp_path / "back2")
    labels, new = answers_of(studio, "classification")
    for size, (_, target) in answers_of(store, "classification")[1].items():
        name = NAMES[int(target.probability.argmax())]
        assert labels.space.names[int(new[size][1].probability.argmax())] == name

    soft = store_of(tmp_path / "p", "classification", vectors(*[[0.25, 0.5, 0.25]] * 5), Space(NAMES), name="x")
    capsys.readouterr()
    table = pq.read_table(export(soft, tmp_path / "soft", "hf") / "data/train-00000-of-00001.parquet")
    assert table["label"].to_pylist() == [1] * 3
    assert table["probability"].to_pylist() == [[0.25, 0.5, 0.25]] * 3
    assert capsys.readouterr().err.count("\n") == 1
    export(soft, tmp_path / "hard", "label-studio")
    assert "5 images have several probable classes, of which the likeliest is written" in capsys.readouterr().err


def test_objects_in_parquet(boxes, tmp_path, capsys):
    folder = export(boxes, tmp_path / "out", "hf")
    rows = [r for f in sorted((folder / "data").iterdir()) for r in pq.read_table(f).to_pylist()]
    labels, old = answers_of(boxes, "detection")
    assert len(rows) == 4
    for row in rows:
        source, target = old[row["height"], row["width"]]
        assert row["image"]["bytes"] == source.data
        found = row["objects"]
        assert found["category"] == target.category.tolist()
        assert found["iscrowd"] == target.ignore.tolist()
        xywh = np.float64(found["bbox"]).reshape(-1, 4)
        assert np.allclose(xywh[:, :2] + xywh[:, 2:], target.box[:, 2:].numpy(), atol=1e-5)
    meta = json.loads(pq.read_schema(folder / "data/train-00000-of-00001.parquet").metadata[b"huggingface"])
    assert meta["info"]["features"]["objects"]["category"]["feature"]["names"] == list(NAMES)
    assert ("9 objects have outlines" in capsys.readouterr().err) == (labels.space.kind != "boxes")


IDS = ["../../up.png", "a/b.png", "A_B.PNG", "images/ä\n.png", "v.mp4#7"]


@pytest.mark.parametrize("format", OBJECTS)
@pytest.mark.parametrize("ids", [IDS, ["x_mask.png", "x.png", ".x.png", "x" * 300 + ".png", "con:?*|.png"]])
def test_any_name_of_an_image_becomes_a_file_of_its_own(tmp_path, format, ids):
    answers = [objects(s, outlines=False) for s in SIZES]
    for i, one in enumerate(answers):
        one.box[0, 0] = i / 8
    store = store_of(tmp_path / "s", "detection", answers, Space(NAMES, "boxes"), ids=ids)
    folder = export(store, tmp_path / "deep/out", format)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "s"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
    found = [p for p in folder.rglob("*") if p.is_file()]
    assert len({str(p).casefold() for p in found}) == len(found)
    assert all(len(p.name.encode()) < 200 and not p.name.startswith(".") for p in found)
    _, new = answers_of(again(folder, tmp_path / "back"), "detection")
    assert len(new) == 5
    for size, (row, target) in answers_of(store, "detection")[1].items():
        assert torch.allclose(new[size][1].box, target.box, atol=1e-4), row.id


def test_masks_of_images_that_are_called_like_masks(tmp_path):
    ids = ["x_mask.png", "x.png", "x_label.png", "depth.png", "masks.png"]
    store = store_of(tmp_path / "s", "segmentation", [regions(s, 3) for s in SIZES], Space(NAMES), ids=ids)
    _, new = answers_of(again(export(store, tmp_path / "out", "masks"), tmp_path / "back"), "segmentation")
    for size, (_, target) in answers_of(store, "segmentation")[1].items():
        assert torch.equal(new[size][1].category, target.category)


def test_names_of_files_and_classes():
    names = FileNames()
    given = ["a.png", "A.jpg", "a.png", "train/a.gif", "/x/y/z.png", "..", "", "ab. ", "a?b.png", "plain"]
    found = [names.name(id, "train") for id in given]
    assert [stem for stem, _ in found] == ["a", "A-2", "a-3", "a-4", "z", "image", "image-2", "ab", "a_b", "plain"]
    assert [ending for _, ending in found][:5] == [".png", ".jpg", ".png", ".gif", ".png"]
    assert names.name("a.png", "val") == ("a", ".png")
    assert class_names(("crane", "crane", "", "a\nb ", "crane (1)", "ok"))[0] == (
        "crane", "crane (1)'", "class 2", "a b", "crane (1)", "ok"
    )  # fmt: skip
    assert class_names(("a", "b"))[1] == {}
    assert class_lines(("a", "2 b")) == "a\n2 b\n"
    assert class_lines(("1 a", "2 b")) == "0: 1 a\n1: 2 b\n"


@pytest.mark.parametrize("format", OBJECTS)
def test_classes_of_one_name_or_of_none(tmp_path, format, capsys):
    space = Space(("crane", "crane", "  "), "boxes")
    store = store_of(tmp_path / "s", "detection", [objects(s, outlines=False) for s in SIZES], space)
    folder = export(store, tmp_path / "out", format)
    assert "2 classes are called otherwise, as files need it: 'crane' is 'crane (1)'" in capsys.readouterr().err
    labels, new = answers_of(again(folder, tmp_path / "back"), "detection")
    assert labels.space.names == ("crane", "crane (1)", "class 2")
    assert all(target.category.tolist() == [2, 0, 1] for _, target in new.values())


def test_outlines_are_drawn_again_by_the_even_odd_rule():
    from faster_coco_eval.core import mask as run_length

    draw = np.random.default_rng(0)
    for trial in range(200):
        h, w = draw.integers(1, 20, 2)
        mask = draw.random((h, w)) < draw.random()
        if not mask.any():
            assert rings(mask) == ([], [])
            continue
        outer, holes = rings(mask)
        [code] = run_length.frPyObjects([[float(v) for p in joined(outer + holes) for v in p]], int(h), int(w))
        assert (run_length.decode(code) == mask).all(), trial
        area = sum(abs(_area(r)) for r in outer) - sum(abs(_area(r)) for r in holes)
        assert area == mask.sum()
    for diagonal in (np.eye(6, dtype=bool), np.eye(6, dtype=bool)[::-1]):  # pixels that touch at a corner alone
        outer, holes = rings(diagonal)
        assert sorted(map(len, outer)) == [4] * 6
        assert holes == []


def _area(ring):
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True)) / 2


def test_which_label_set_is_meant(boxes, tmp_path):
    out = tmp_path / "out"
    for name in ("one", "two"):
        boxes.create_set("detection", name, Space(NAMES, "boxes"), {}).write(0, boxes.ids(0), [NONE] * 2)
    assert export(boxes, out, "coco").joinpath("README.md").read_text().startswith("# detection/people")
    for name in ("x", "y"):
        boxes.create_set("segmentation", name, Space(NAMES), {}).write(0, boxes.ids(0), [None] * 2)
    for options, said in [
        ({"format": "masks"}, r"has segmentation/x, segmentation/y: choose one with --labels"),
        ({"format": "hf", "labels": "detection/ones"}, r"unknown label set 'detection/ones'.*Did you mean detection/o"),
        ({"format": "coco", "labels": "segmentation/x"}, r"takes label sets of detection; segmentation/x is none"),
        ({"format": "masks", "labels": "segmentation/x"}, r"has no answer for any image that is asked for"),
        ({"format": "coco-panoptic"}, r"no panoptic segments; write them with --format coco"),
        ({"format": "cocoo"}, r"unknown label format 'cocoo'; there are coco, cvat, .*Did you mean coco"),
        ({"format": "coco", "split": ["vall"]}, r"unknown split 'vall'; there are train, val. Did you mean val"),
        ({"format": "coco", "score": 0.5}, r"--score 0.5: people's labels have no score"),
        ({"format": "coco", "score": 1.5}, r"score must be .*1.5"),
        ({"format": "yolo", "polygons": True}, r"--polygons says nothing of detection as yolo"),
        ({"format": "coco", "depth_scale": 0.1}, r"--depth-scale says nothing of detection as coco"),
        ({"format": "masks", "depth_scale": 0.0}, r"depth_scale must be above 0"),
        ({"format": "hf", "images": "link", "labels": "detection/people"}, r"hf holds images in its files"),
        ({"format": "coco", "images": "link"}, r"no file of this machine that could be linked: give --images copy"),
        ({"format": "coco", "images": "move"}, r"images .*copy, link, none"),
    ]:
        with pytest.raises(ValueError, match=said):
            export_labels(boxes.path, tmp_path / "new", progress=False, **options)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "store"]
    with pytest.raises(ValueError, match="exists; choose another folder"):
        export(boxes, out, "yolo")
    empty = store_of(tmp_path / "empty", "depth", [None] * 5, Space((), "metric"))
    with pytest.raises(ValueError, match="has depth/people: there is nothing to write"):
        export(empty, tmp_path / "new", "coco")


def referred(tmp_path, turned=False):
    """A store whose images are files."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    rows = []
    for i in range(2):
        image = Image.open(io.BytesIO(pixels(i)))
        exif = image.getexif()
        if turned:
            exif[274] = 6
        image.save(folder / f"{i}.jpg", exif=exif)
        height, width = SIZES[i]
        rows.append(ImageRow(f"{i}.jpg", *((width, height) if turned else SIZES[i]), uri=str(folder / f"{i}.jpg")))
    store = Store.create(tmp_path / "store", 8)
    store.write_images(0, rows)
    labels = store.create_set("detection", "people", Space(NAMES, "boxes"), {"teacher": "people"})
    labels.write(0, store.ids(0), [objects((r.height, r.width), outlines=False) for r in rows])
    return store, folder


def test_images_are_linked_or_left_where_they_are(tmp_path, capsys):
    store, folder = referred(tmp_path)
    linked = export(store, tmp_path / "link", "yolo", images="link") / "images/train/0.jpg"
    assert os.readlink(linked) == str(folder / "0.jpg")
    assert len(answers_of(again(tmp_path / "link", tmp_path / "back"), "detection")[1]) == 2
    capsys.readouterr()
    bare = export(store, tmp_path / "none", "yolo", images="none")
    assert "images are not in it: images.csv says where each lies" in capsys.readouterr().err
    assert not (bare / "images").exists()
    assert "Read it again" not in (bare / "README.md").read_text()
    rows = list(csv.reader((bare / "images.csv").read_text().splitlines()))
    assert rows[1] == ["images/train/0.jpg", "0.jpg", str(folder / "0.jpg")]
    assert len(rows) == 3
    assert (bare / "labels/train/0.txt").read_text().count("\n") == 3
    table = pq.read_table(export(store, tmp_path / "hf", "hf", images="none") / "data").to_pylist()
    assert [r["image"] for r in table] == [{"bytes": None, "path": str(folder / f"{i}.jpg")} for i in range(2)]
    for change, said in [
        (lambda: (folder / "1.jpg").write_bytes((folder / "0.jpg").read_bytes()), r"is 33x24 now, was 20x20"),
        (lambda: (folder / "1.jpg").unlink(), r"'1.jpg' cannot be read: .*Put it back where it lay"),
    ]:
        change()
        with pytest.raises(ValueError, match=said):
            export(store, tmp_path / "gone", "coco")
        assert not (tmp_path / "gone").exists()
    export(store, tmp_path / "still", "coco", images="none")


def test_images_that_lie_turned_are_told(tmp_path, capsys):
    store, _ = referred(tmp_path, turned=True)
    folder = export(store, tmp_path / "out", "coco")
    assert "2 images lie turned in their files" in capsys.readouterr().err
    _, new = answers_of(again(folder, tmp_path / "back"), "detection")
    assert set(new) == {(33, 24), (20, 20)}


@pytest.mark.parametrize("where", ["image", "label", "end"])
@pytest.mark.parametrize("format", formats())
def test_a_full_disk_leaves_nothing(tmp_path, format, where, monkeypatch):
    made = {
        "masks": ("segmentation", [regions(s, 3) for s in SIZES], Space(NAMES)),
    }.get(format, ("detection", [objects(s, outlines=False) for s in SIZES], Space(NAMES, "boxes")))
    store = store_of(tmp_path / "store", *made)
    count = 0

    def full(*args, **more):
        nonlocal count
        count += 1
        if count > (0 if where == "end" else 2):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **more)

    kind = load_writer(format)
    owner, name = {"image": (Path, "write_bytes"), "label": (kind, "add"), "end": (kind, "finish")}[where]
    if (where == "image" and kind.holds) or (where == "end" and "finish" not in vars(kind)):
        return
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(OSError, match="No space left"):
        export(store, tmp_path / "out", format)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_the_command(boxes, tmp_path, capsys):
    words = ["export-labels", str(boxes.path), str(tmp_path / "out"), "--format", "coco", "--no-progress"]
    assert main(words) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"{tmp_path / 'out'}: 4 images with detection/people as coco"
    assert main(words) == 2
    assert "exists; choose another folder" in capsys.readouterr().err
    assert main([*words[:2], str(tmp_path / "x"), "--format", "voc"]) == 2
    assert "unknown label format 'voc'" in capsys.readouterr().err


def test_the_same_store_is_written_the_same(boxes, tmp_path):
    for format in formats():
        if format != "masks":
            a, b = (export(boxes, tmp_path / f"{format}{i}", format) for i in range(2))
            one, two = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (a, b))
            one.pop(Path("README.md")), two.pop(Path("README.md"))
            assert one == two
