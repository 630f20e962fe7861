"""SceneParse150 and the full release of ADE20K: indices and colours, classes by name, what is missing."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.datasets.ade20k import PROTOCOLS
from polyteach.tasks import load_task
from polyteach.verbs.ingest import ingest

H, W = 12, 16
IGNORE = 65535
NAMES = ["wall", "building, edifice", "sky", *(f"class {i}" for i in range(4, 151))]


def picture(path, size=(H, W)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)


def png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


MAP = np.zeros((H, W), dtype=np.int64)
MAP[2:5] = 1
MAP[5:8] = 2
MAP[8:] = 150


@pytest.fixture
def challenge(tmp_path):
    base = tmp_path / "ADEChallengeData2016"
    for split, part, count in (("training", "train", 2), ("validation", "val", 1)):
        for i in range(1, count + 1):
            picture(base / f"images/{split}/ADE_{part}_{i:08d}.jpg")
            png(base / f"annotations/{split}/ADE_{part}_{i:08d}.png", MAP)
    lines = ["Idx\tRatio\tTrain\tVal\tName"]
    # as published, with its stray spaces
    lines += [f"{i}{' ' * (i == 22)}\t0.1576\t11664\t1172\t{n}{' ' * (i == 8)}" for i, n in enumerate(NAMES, 1)]
    (base / "objectInfo150.txt").write_text("\n".join(lines) + "\n")
    (base / "sceneCategories.txt").write_text("ADE_train_00000001 airport_terminal\n")
    return tmp_path


def problems(store):
    return [reason for _, _, reason in store.rejects()]


def refused(tmp_path, source, match):
    """The picture's problem stops an ingest, and is recorded where bad ones are skipped."""
    with pytest.raises(ValueError, match=match):
        ingest(source, str(tmp_path / "strict"), progress=False)
    store = ingest(source, str(tmp_path / "lax"), progress=False, skip_bad=True)
    assert len(problems(store)) == 1
    return problems(store)[0]


class TestSceneParse150:
    @pytest.mark.parametrize("inner", ["", "ADEChallengeData2016"])
    def test_reads_every_split(self, challenge, tmp_path, inner):
        source = f"ade20k:{challenge / inner}"
        space = load_dataset(source).spaces["segmentation"]
        assert list(space.names) == NAMES
        store = ingest(source, str(tmp_path / "store"), progress=False)
        rows = [row for part in store.parts() for row in store.images(part)]
        assert [(r.id.rpartition("/")[2], r.split) for r in rows] == [
            ("ADE_train_00000001.jpg", "training"),
            ("ADE_train_00000002.jpg", "training"),
            ("ADE_val_00000001.jpg", "validation"),
        ]
        expected = np.where(MAP == 0, IGNORE, MAP - 1)
        for entry in load_dataset(source).entries(0, 3):
            target = entry.targets((H, W))["segmentation"]
            assert np.array_equal(target.category.numpy(), expected)
            assert np.array_equal(target.probability.numpy(), (MAP > 0).astype(np.float32))

    def test_test_pictures_are_unlabelled(self, challenge, tmp_path):
        picture(challenge / "release_test/testing/ADE_test_00000001.jpg")
        dataset = load_dataset(f"ade20k:{challenge}")
        assert dataset.names[-1] == "release_test/testing/ADE_test_00000001.jpg"
        (last,) = dataset.entries(3, 4)
        assert (last.split, last.targets) == ("test", None)
        assert load_dataset(f"ade20k:{challenge / 'ADEChallengeData2016'}").names[-1].startswith("../release_test")

    def test_one_split_is_enough(self, challenge):
        base = challenge / "ADEChallengeData2016"
        for file in [*base.glob("images/training/*"), *base.glob("annotations/training/*")]:
            file.unlink()
        assert [e.split for e in load_dataset(f"ade20k:{challenge}").entries(0, 9)] == ["validation"]

    def test_a_missing_annotation(self, challenge, tmp_path):
        (challenge / "ADEChallengeData2016/annotations/training/ADE_train_00000002.png").unlink()
        refused(tmp_path, f"ade20k:{challenge}", r"annotations/training/ADE_train_00000002\.png: missing")

    def test_a_missing_picture(self, challenge, tmp_path):
        (challenge / "ADEChallengeData2016/images/training/ADE_train_00000002.jpg").unlink()
        refused(tmp_path, f"ade20k:{challenge}", r"images/training/ADE_train_00000002\.jpg: missing; .*annotates it")

    @pytest.mark.parametrize(
        ("pixels", "match"),
        [
            (np.full((H, W), 151), "class 151 is out of range"),
            (np.zeros((H, W + 1)), "is 12 x 17 .* but the image is 12 x 16"),
            (np.zeros((H, W, 3)), "8-bit indices; it is RGB"),
        ],
    )
    def test_a_wrong_annotation(self, challenge, tmp_path, pixels, match):
        png(challenge / "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png", pixels)
        reason = refused(tmp_path, f"ade20k:{challenge}", match)
        assert "ADE_val_00000001.png" in reason

    def test_a_cut_annotation(self, challenge, tmp_path):
        path = challenge / "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png"
        path.write_bytes(path.read_bytes()[:40])
        refused(tmp_path, f"ade20k:{challenge}", r"ADE_val_00000001\.png: broken")

    def test_a_list_of_classes_with_a_column_more(self, challenge):
        lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
        lines += [f"{i}\t0.1\t9\t9\t1\t{n}" for i, n in enumerate(NAMES, 1)]
        (challenge / "ADEChallengeData2016/objectInfo150.txt").write_text("\n".join(lines))
        assert list(load_dataset(f"ade20k:{challenge}").spaces["segmentation"].names) == NAMES

    def test_class_names_are_needed(self, challenge):
        info = challenge / "ADEChallengeData2016/objectInfo150.txt"
        for text, match in [
            ("1\t0.1\t1\t1\twall\n3\t0.1\t1\t1\tsky\n", r"line 3: must be Idx Ratio Train Val Name, with Idx 2"),
            ("1\t0.1\t1\t1\twall\n2\t0.1\t1\tsky\n", "line 3: must be Idx Ratio Train Val Name"),
            ("", "names no class"),
        ]:
            info.write_text("Idx\tRatio\tTrain\tVal\tName\n" + text)
            with pytest.raises(ValueError, match=rf"objectInfo150\.txt: {match}"):
                load_dataset(f"ade20k:{challenge}")
        for text in ("", "1\t0.1576\t11664\t1172\twall\n"):
            info.write_text(text)
            with pytest.raises(ValueError, match=r"objectInfo150\.txt: line 1: must name the columns"):
                load_dataset(f"ade20k:{challenge}")
        info.unlink()
        with pytest.raises(ValueError, match=r"objectInfo150\.txt: missing; it names the classes"):
            load_dataset(f"ade20k:{challenge}")


# name_ndx and name as the release has them; 2978 needs red, 312 both colours
OBJECTS = {312: "building, edifice", 2855: "tree", 2978: "wall", 64: "ashcan"}


def seg(classes, instance=7):
    """Written as the toolkit reads it: class = R // 10 * 256 + G; what is left of R, and B, are of no class."""
    red, green = classes // 256 * 10 + 3 * (classes > 0), classes % 256
    return np.stack([red, green, np.full_like(classes, instance)], -1)


def about(*numbers, level=0):
    things = [
        {"id": i, "name": OBJECTS[n], "name_ndx": n, "raw_name": "x", "parts": {"part_level": level}}
        for i, n in enumerate(numbers)
    ]
    return {"annotation": {"filename": "a.jpg", "scene": ["urban", "street"], "object": things}}


SCENE = np.zeros((H, W), dtype=np.int64)
SCENE[2:5] = 312
SCENE[5:9, 3:] = 2855
SCENE[9:] = 2978


@pytest.fixture
def full(tmp_path):
    places = ("training/urban/street/ADE_train_00016869", "validation/home_or_hotel/bedroom/ADE_val_00000001")
    for place in places:
        start = tmp_path / "ADE20K_2021_17_01/images/ADE" / place
        picture(start.with_suffix(".jpg"))
        png(start.with_name(start.name + "_seg.png"), seg(SCENE))
        png(start.with_name(start.name + "_parts_1.png"), seg(SCENE))
        png(start / f"instance_000_{start.name}.png", np.full((H, W), 255))
        numbers = (2978, 312, 2855) if "train" in place else (2978, 2855, 64, 312)
        start.with_suffix(".json").write_text(json.dumps(about(*numbers)))
    return tmp_path


class TestFullRelease:
    @pytest.mark.parametrize("inner", ["", "ADE20K_2021_17_01"])
    def test_classes_of_the_json_files(self, full, tmp_path, inner):
        dataset = load_dataset(f"ade20k:{full / inner}")
        assert dataset.spaces["segmentation"].names == ("ashcan", "building, edifice", "tree", "wall")
        assert [e.split for e in dataset.entries(0, 9)] == ["training", "validation"]
        assert dataset.names[0].endswith("images/ADE/training/urban/street/ADE_train_00016869.jpg")
        assert not dataset.left_out
        order = {0: IGNORE, 312: 1, 2855: 2, 2978: 3}
        expected = np.vectorize(order.__getitem__)(SCENE)
        store = ingest(f"ade20k:{full / inner}", str(tmp_path / "store"), progress=False)
        assert not problems(store)
        for entry in dataset.entries(0, 2):
            target = entry.targets((H, W))["segmentation"]
            assert np.array_equal(target.category.numpy(), expected)
            load_task("segmentation").check(target, (H, W), dataset.spaces["segmentation"])

    def test_classes_of_the_index(self, full):
        names = [OBJECTS.get(i, f"thing {i}") for i in range(1, 3001)]
        index = {"objectnames": names, "filename": ["a"], "objectPresence": np.ones((3, 2), np.uint8), "n": np.int64(3)}
        (full / "ADE20K_2021_17_01/index_ade20k.pkl").write_bytes(pickle.dumps(index))
        for path in full.glob("**/*.json"):
            path.unlink()
        dataset = load_dataset(f"ade20k:{full}")
        assert dataset.spaces["segmentation"].names == tuple(names)
        (entry,) = dataset.entries(0, 1)
        category = entry.targets((H, W))["segmentation"].category.numpy()
        assert np.array_equal(category, np.where(SCENE == 0, IGNORE, SCENE - 1))

    def test_the_index_cannot_run_code(self, full):
        class Evil:
            def __reduce__(self):
                return (open, (str(full / "made"), "w"))

        content = pickle.dumps({"objectnames": ["a"], "x": Evil()})
        (full / "ADE20K_2021_17_01/index_ade20k.pkl").write_bytes(content)
        with pytest.raises(ValueError, match=r"index_ade20k\.pkl is broken.* is refused"):
            load_dataset(f"ade20k:{full}")
        assert not (full / "made").exists()

    def test_the_index_takes_no_more_memory_than_it_has_bytes(self, full):
        (full / "ADE20K_2021_17_01/index_ade20k.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
        with pytest.raises(ValueError, match=r"index_ade20k\.pkl is broken.*LONG_BINPUT at byte 3"):
            load_dataset(f"ade20k:{full}")

    def test_json_that_is_not_utf8(self, full):
        path = next(full.glob("**/ADE_train_00016869.json"))
        path.write_bytes(json.dumps(about(2978, 312, 2855)).replace('"x"', '"caf\xe9"').encode("latin-1"))
        assert all(e.problem is None for e in load_dataset(f"ade20k:{full}").entries(0, 2))

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"{", r"\.json: is no JSON"),
            (b'{"annotation": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", r"\.json: .*nested too deeply"),
            (b'{"annotation": ' + b"9" * 5_000 + b"}", r"\.json: is no JSON"),
            (b'{"annotation": {}}', r"\.json: annotation\.object: missing"),
            (json.dumps(about(2978)).replace("2978", "-1").encode(), r"object\[0\]\.name_ndx: .* got -1"),
            (json.dumps(about(2978)).replace("2978", "312").encode(), r"object\[0\]\.name: 312 is"),
        ],
    )
    def test_a_broken_json(self, full, tmp_path, content, match):
        # the second picture, so that the first has told the classes
        next(full.glob("**/ADE_val_00000001.json")).write_bytes(content)
        refused(tmp_path, f"ade20k:{full}", match)

    @pytest.mark.parametrize("ending", [".jpg", ".json", "_seg.png"])
    def test_a_missing_file(self, full, tmp_path, ending):
        next(full.glob(f"**/ADE_val_00000001{ending}")).unlink()
        refused(tmp_path, f"ade20k:{full}", f"ADE_val_00000001{ending}: missing")

    def test_a_pixel_of_no_class(self, full, tmp_path):
        png(next(full.glob("**/ADE_val_00000001_seg.png")), seg(np.full((H, W), 300)))
        refused(tmp_path, f"ade20k:{full}", "class 300 is out of range")

    def test_another_size(self, full, tmp_path):
        png(next(full.glob("**/ADE_val_00000001_seg.png")), seg(SCENE[1:]))
        refused(tmp_path, f"ade20k:{full}", "is 11 x 16 .* but the image is 12 x 16")


def test_neither_or_both_releases(challenge, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds neither release: expected ROOT/ADEChallengeData2016"):
        load_dataset(f"ade20k:{tmp_path / 'empty'}")
    (challenge / "ADE20K_2021_17_01/images/ADE").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds both releases"):
        load_dataset(f"ade20k:{challenge}")
    with pytest.raises(ValueError, match="is no folder"):
        load_dataset(f"ade20k:{tmp_path / 'none'}")


def test_a_folder_above_the_tree_finds_it(challenge, tmp_path):
    (tmp_path / "up" / "data").mkdir(parents=True)
    (challenge / "ADEChallengeData2016").rename(tmp_path / "up" / "data" / "ADEChallengeData2016")
    dataset = load_dataset(f"ade20k:{tmp_path / 'up'}")
    assert len(dataset.names) == 3
    assert dataset.notes == [f"{tmp_path / 'up'} holds the tree in a folder below it: {tmp_path}/up/data was read"]


def test_protocol():
    protocol = PROTOCOLS["ade20k"]
    assert (protocol.train, protocol.test, protocol.metric) == (("training",), ("validation",), "mIoU")
