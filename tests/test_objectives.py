"""Which label sets share a head: by the names of their classes, whatever their order; what does not agree is told."""

import re
import unicodedata

import pytest
import torch
import yaml

from polyteach.loading.objectives import AS_THEY_ARE, apart, join, numbered, read_map
from polyteach.loading.plan import plan
from polyteach.store import Store
from polyteach.tasks import load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import PEOPLE, Policy, Space
from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget
from tests.test_batches import by_id, label, samples, store_of

VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
AS_COCO = {
    "aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle", "pottedplant": "potted plant",
    "sofa": "couch", "tvmonitor": "tv",
}  # fmt: skip
"""COCO's names of VOC's classes, where they differ."""


def sets_of(tmp_path, **spaces):
    """One store; label sets by name: (task, names, kind), made by people or by a teacher of that name."""
    store = Store.create(tmp_path / "s", 4)
    made = []
    for name, (task, names, kind) in spaces.items():
        info = {"teacher": PEOPLE if name == PEOPLE else {"sha256": name}}
        made.append(store.create_set(task, name, Space(tuple(names), kind), info))
    return made


def test_names_in_any_order_are_one_objective_with_the_names_of_people(tmp_path):
    sets = sets_of(
        tmp_path,
        boxes=("detection", ("cat", "dog", "cow"), "boxes"),
        people=("detection", ("cow", "cat", "dog"), "boxes and masks"),
        classes=("classification", ("cow", "cat", "dog"), ""),
        fewer=("detection", ("cat", "dog"), "boxes"),
    )
    boxes, classes, fewer = join(sets)
    assert boxes.objective.space == Space(("cow", "cat", "dog"), "boxes and masks")
    assert (boxes.members, boxes.first) == ([0, 1], 1)
    assert boxes.index == [(1, 2, 0), None]
    assert (classes.members, fewer.members) == ([2], [3])
    assert fewer.objective.space == Space(("cat", "dog"), "boxes")
    [note] = apart(sets, [boxes, classes, fewer])
    assert "detection/boxes, detection/people and detection/fewer are two heads" in note
    assert "1 of the first one's 3 classes (cow) is not labelled in the second" in note


def test_letters_that_unicode_composes_otherwise_are_the_same(tmp_path):
    names = ("Bär", "Käfer")
    other = tuple(unicodedata.normalize("NFD", n) for n in reversed(names))
    [joint] = join(sets_of(tmp_path, a=("classification", names, ""), b=("classification", other, "")))
    assert joint.index == [None, (1, 0)]


def test_what_is_measured_otherwise_is_apart_and_that_is_told(tmp_path):
    sets = sets_of(tmp_path, near=("depth", (), "relative inverse"), far=("depth", (), "metric"), n=("normals", (), ""))
    joints = join(sets)
    assert [j.members for j in joints] == [[0], [1], [2]]
    [note] = apart(sets, joints)
    assert note == ("depth/near and depth/far are two heads: the first is 'relative inverse', the second 'metric'")


@pytest.mark.parametrize(
    "names", [("0", "1"), ("LABEL_0", "LABEL_1"), ("class 1", "dog"), ("fine 0", "fine 1"), ("#3",)]
)
def test_numbers_are_no_names(tmp_path, names):
    assert any(numbered(names))
    sets = sets_of(tmp_path, people=("classification", names, ""), vit=("classification", names, ""))
    joints = join(sets)
    assert [j.members for j in joints] == [[0], [1]]
    [note] = apart(sets, joints)
    assert "classification/people and classification/vit are two heads: the classes of the first are numbers" in note
    (tmp_path / "map.yaml").write_text(note.partition("--map FILE:\n")[2])
    table = read_map(tmp_path / "map.yaml")
    assert table == {"classification/people": AS_THEY_ARE, "classification/vit": AS_THEY_ARE}
    [joint] = join(sets, table)
    assert joint.objective.space.names == names
    assert apart(sets, [joint], table) == []
    half = join(sets, {"classification/vit": AS_THEY_ARE})  # said of one, not of the other
    assert len(half) == 2


@pytest.mark.parametrize("names", [VOC, ("n01440764", "n01443537"), ("T1", "T2w"), ("dog", "cat 2"), ("no", "yes")])
def test_names_that_are_no_numbers(names):
    assert not any(numbered(names))


def test_numbers_of_one_origin_agree(tmp_path):
    """A teacher's in two stores; people's of one source; not those of another name, teacher or source."""
    made = []
    for i, (name, info) in enumerate(
        [
            ("vit", {"teacher": {"sha256": "a", "spec": "timm:x"}}),
            ("vit", {"teacher": {"sha256": "a", "spec": "timm:/elsewhere/x"}}),
            ("vit", {"teacher": {"sha256": "b", "spec": "timm:x"}}),
            ("other", {"teacher": {"sha256": "a", "spec": "timm:x"}}),
            ("people", {"teacher": PEOPLE, "images": {"source": "parquet:birds"}}),
            ("people", {"teacher": PEOPLE, "images": {"source": "parquet:birds"}}),
            ("people", {"teacher": PEOPLE, "images": {"source": "parquet:cars"}}),
        ]
    ):
        made.append(Store.create(tmp_path / str(i), 4).create_set("classification", name, Space(("0", "1")), info))
    assert [j.members for j in join(made)] == [[0, 1], [2], [3], [4, 5], [6]]


def test_names_that_come_twice_agree_in_the_same_order_alone(tmp_path):
    names = ("crane", "gull", "crane")
    sets = sets_of(
        tmp_path,
        a=("classification", names, ""),
        b=("classification", names, ""),
        c=("classification", ("gull", "crane", "crane"), ""),
    )
    joints = join(sets)
    assert [(j.members, j.index) for j in joints] == [([0, 1], [None, None]), ([2], [None])]
    [note] = apart(sets, joints)
    assert "are not told apart by their names (crane)" in note
    assert "--map" not in note  # no table could tell them apart


def test_near_matches_are_told_with_the_table_that_joins_them(tmp_path):
    theirs = [AS_COCO.get(n, n) for n in reversed(VOC)]
    sets = sets_of(tmp_path, people=("detection", VOC, "boxes"), detr=("detection", theirs, "boxes and masks"))
    joints = join(sets)
    assert [j.members for j in joints] == [[0], [1]]
    [note] = apart(sets, joints)
    (tmp_path / "map.yaml").write_text(note.partition("--map FILE:\n")[2])
    table = read_map(tmp_path / "map.yaml")
    assert table == {"detection/detr": {coco: voc for voc, coco in AS_COCO.items()}}
    [joint] = join(sets, table)
    assert joint.objective.space.names == VOC
    assert [VOC[i] for i in joint.index[1]] == [{c: v for v, c in AS_COCO.items()}.get(n, n) for n in theirs]
    [plain] = join(sets, AS_COCO)  # a table of names alone, of either of the two
    assert set(plain.objective.space.names) == set(theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("traffic light", "Traffic_Light"), ("horse", "horses"), ("bus", "buses"), ("colour chart", "color-chart"),
        ("strawberry", "strawberries"), ("café", "cafe"), ("skateboard", "skate board"), ("giraffe", "girafe"),
        ("wine glass", "wine glasses"), ("TV", "television"), ("grey seal", "gray seals"),
    ],
)  # fmt: skip
def test_one_name_in_two_spellings(tmp_path, ours, theirs):
    sets = sets_of(
        tmp_path, people=("classification", ("stone", ours), ""), t=("classification", (theirs, "stone"), "")
    )
    [note] = apart(sets, join(sets))
    assert yaml.safe_load(note.partition("--map FILE:\n")[2]) == {"classification/t": {theirs: ours}}


@pytest.mark.parametrize(("ours", "theirs"), [("cat", "car"), ("horse", "house"), ("train", "drain"), ("boat", "boot")])
def test_other_words_are_no_spellings(tmp_path, ours, theirs):
    sets = sets_of(tmp_path, people=("classification", ("a", ours), ""), t=("classification", ("a", theirs), ""))
    [note] = apart(sets, join(sets))
    assert "--map FILE:" not in note
    assert f"1 of the first one's 2 classes ({ours}) is not labelled in the second" in note


def test_a_vocabulary_within_another_cannot_be_joined_and_the_reason_is_told(tmp_path):
    coco = [AS_COCO.get(n, n) for n in VOC] + [f"{w} thing" for w in "abcdefghij"]
    sets = sets_of(tmp_path, detr=("detection", coco, "boxes"), people=("detection", VOC, "boxes"))
    joints = join(sets)
    assert len(joints) == 2
    [note] = apart(sets, joints)
    assert note.startswith("detection/people and detection/detr are two heads: they share 20 classes (")
    assert "airplane and aeroplane" in note
    assert "10 of the second one's 30 classes (a thing, b thing, c thing, d thing, e thing, ...)" in note
    assert "--map" not in note


@pytest.mark.parametrize("theirs", [("rain", "snow"), ("background", "snow")])
def test_nothing_is_told_of_sets_that_have_nothing_in_common(tmp_path, theirs):
    a = ("segmentation", ("background", "elm", "oak"), "")
    sets = sets_of(tmp_path, a=a, b=("segmentation", theirs, ""))
    assert apart(sets, join(sets)) == []


# --- tables ---


def test_a_table_makes_several_names_one(tmp_path):
    sets = sets_of(
        tmp_path,
        people=("detection", ("vehicle", "dog"), "boxes"),
        t=("detection", ("car", "dog", "truck"), "boxes"),
    )
    [joint] = join(sets, {"detection/t": {"car": "vehicle", "truck": "vehicle"}})
    assert joint.objective.space.names == ("vehicle", "dog")
    assert joint.index == [None, (0, 1, 0)]
    [alone] = join(sets[1:], {"car": "vehicle", "truck": "vehicle"})
    assert alone.objective.space.names == ("vehicle", "dog")
    assert alone.index == [(0, 1, 0)]


def test_a_table_names_one_of_the_sets_that_are_called_alike(tmp_path):
    stores = [Store.create(tmp_path / n, 4) for n in ("voc", "coco")]
    info = {"teacher": PEOPLE}
    sets = [
        s.create_set("detection", PEOPLE, Space(names, "boxes"), info)
        for s, names in zip(stores, (("aeroplane", "dog"), ("dog", "airplane")), strict=True)
    ]
    [note] = apart(sets, join(sets))
    table = yaml.safe_load(note.partition("--map FILE:\n")[2])
    assert table == {"coco/detection/people": {"airplane": "aeroplane"}}
    [joint] = join(sets, table)
    assert joint.index == [None, (1, 0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1", "neither YAML nor JSON"),
        ("[" * 5_000 + "]" * 5_000, "neither YAML nor JSON"),
        ("a: \x01", "neither YAML nor JSON"),
        (
            "\n".join(["a: &a0 [x]", *(f"b{i}: &a{i + 1} [*a{i}, *a{i}]" for i in range(60))]),
            "more than 200,000 values",
        ),
        ("- a", "must hold TASK/SET"),
        ("", "must hold TASK/SET"),
        ("a:", "is not a name and the name that it gets"),
        ("detection/t: {cat: [1]}", "is not a name and the name that it gets"),
        ("detection/x: {cat: dog}", "'detection/x' is none of the label sets, which are detection/people, detection/t"),
        ("detection/t: {catt: dog}", "detection/t: no class is called 'catt'; there are cat"),
        ("catt: dog", "all sets: no class is called 'catt'; there are cat"),
        ("{detection/t: {cat: dog}, cow: dog}", "'cow': 'dog' stands beside label sets"),
        (
            "detection/t: {cat: coww}",
            "detection/t: 'cat': 'coww': no other label set has a class of that name; did you mean 'cow'?",
        ),
    ],
)
def test_a_table_that_is_wrong_says_where(tmp_path, text, said):
    (tmp_path / "map.yaml").write_text(text)
    sets = sets_of(tmp_path, people=("detection", ("cat", "cow"), "boxes"), t=("detection", ("cat", "cow"), "boxes"))
    with pytest.raises(ValueError, match=re.escape(said)):
        join(sets, read_map(tmp_path / "map.yaml"))


def test_where_words_are_left_over_on_both_sides_the_table_is_named(tmp_path):
    sets = sets_of(
        tmp_path, people=("detection", ("dog", "human"), "boxes"), t=("detection", ("dog", "person"), "boxes")
    )
    [note] = apart(sets, join(sets))
    assert "1 of the first one's 2 classes (human) is not labelled in the second" in note
    assert note.endswith("If some of these mean the same, --map FILE gives them one name (docs/guide/labels.md)")
    [joint] = join(sets, {"detection/t": {"person": "human"}})
    assert joint.objective.space.names == ("dog", "human")


def test_names_of_a_table_are_texts(tmp_path):
    """`no` and 1 are names of classes, not YAML's false and a number; JSON is read too."""
    (tmp_path / "a.yaml").write_text("no: 1\n")
    assert read_map(tmp_path / "a.yaml") == {"no": "1"}
    (tmp_path / "a.json").write_text('{"classification/t": {"0": "oak"}}')
    assert read_map(tmp_path / "a.json") == {"classification/t": {"0": "oak"}}
    with pytest.raises(ValueError, match="No such file"):
        read_map(tmp_path / "none")


@pytest.mark.parametrize(
    "text", ["classification/t:\n  a: b\n  c: d\n  a: e", "x: {a: b}\ny: {b: c}\nx: {c: d}", '{"a": "b",\n\n"a": "c"}']
)
def test_a_key_of_a_table_that_comes_twice_is_refused(tmp_path, text):
    """Of two lines about one class the last would win in silence."""
    (tmp_path / "a.yaml").write_text(text)
    line = text.count("\n") + 1
    with pytest.raises(ValueError, match=rf"map .*a.yaml: line {line}: '[ax]' is there twice"):
        read_map(tmp_path / "a.yaml")


# --- what is learned then ---


def boxes(*categories, score=1.0, masks=False):
    n = len(categories)
    box = torch.tensor([[4.0 * i, 0, 4 * i + 4, 8] for i in range(n)]).view(-1, 4)
    return DetectionTarget(
        box=box,
        category=torch.tensor(categories, dtype=torch.long),
        score=torch.full((n,), score),
        ignore=torch.zeros(n, dtype=torch.bool),
        mask=torch.ones(n, 16, 16, dtype=torch.bool) if masks else None,
    )


def test_people_win_over_a_teacher_without_outlines_and_with_another_order(tmp_path):
    store = store_of(tmp_path / "s", 3)
    label(store, "boxes", [boxes(0, 1, 2)] * 3, "detection", Space(("cat", "dog", "cow"), "boxes"))
    outlined = [boxes(0, masks=True), None, None]
    label(store, "people", outlined, "detection", Space(("cow", "cat", "dog"), "boxes and masks"))
    chosen = plan([store])
    assert list(chosen.objectives) == ["detection_boxes"]
    assert chosen.objectives["detection_boxes"].space == Space(("cow", "cat", "dog"), "boxes and masks")
    assert chosen.shares == {"detection_boxes": [[1, 2]]}  # people's first
    got = {k: t["detection_boxes"] for k, t in by_id(chosen).items()}
    assert got["0"].category.tolist() == [0]
    assert got["0"].mask is not None
    assert got["1"].category.tolist() == [1, 2, 0]
    assert got["1"].mask is None
    space = chosen.objectives["detection_boxes"].space
    head = load_task("detection").head(dict.fromkeys(("p3", "p4", "p5", "p6", "p7"), 8), space)
    features = {f"p{k}": torch.randn(2, 8, 32 // 2**k or 1, 32 // 2**k or 1) for k in range(3, 8)}
    loss = load_task("detection").loss(head(features), [got["0"], got["1"]])
    assert loss.isfinite()


def test_probabilities_and_maps_follow_the_names(tmp_path):
    store = store_of(tmp_path / "s", 2)
    people, teacher = Space(("a", "b", "c")), Space(("c", "a", "b"))
    label(store, "people", [ClassificationTarget(torch.tensor([1.0, 0, 0])), None], space=people)
    label(store, "t", [ClassificationTarget(torch.tensor([0.5, 0.25, 0.25]))] * 2, space=teacher)
    got = by_id(plan([store]))
    assert got["0"]["classification_people"].probability.tolist() == [1, 0, 0]
    assert got["1"]["classification_people"].probability.tolist() == [0.25, 0.25, 0.5]
    merged = plan([store], labels=["t"], table={"a": "x", "c": "x"})
    assert merged.objectives["classification_t"].space.names == ("x", "b")
    assert by_id(merged)["1"]["classification_t"].probability.tolist() == [0.75, 0.25]
    assert samples(merged).target(0, "classification_t").probability.tolist() == [0.75, 0.25]


def test_pixels_that_are_ignored_stay_so_where_names_are_mapped(tmp_path):
    store = store_of(tmp_path / "s", 1)
    row, sure = torch.tensor([[0, IGNORE, 1, 2]]), torch.tensor([[1.0, 0, 1, 1]])
    seen = SegmentationTarget(row.repeat(4, 1), sure.repeat(4, 1))
    label(store, "t", [seen], "segmentation", Space(("c", "a", "b")))
    label(store, "people", [None], "segmentation", Space(("a", "b", "c")))
    every = Policy(score=0.0)  # else what is ignored, whose probability is 0, would be ignored again
    assert (
        samples(plan([store]), policy=every).target(0, "segmentation_people").category.tolist()
        == [[2, IGNORE, 0, 1]] * 4
    )


def test_a_table_that_changes_nothing_is_refused(tmp_path):
    store = store_of(tmp_path / "s", 1)
    label(store, "t", [ClassificationTarget(torch.tensor([0.5, 0.25, 0.25]))])
    with pytest.raises(ValueError, match="map changes nothing"):
        plan([store], table={"a": "a"})
    with pytest.raises(ValueError, match="map changes nothing"):
        plan([store], table={"classification/t": AS_THEY_ARE})
