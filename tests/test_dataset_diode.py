"""DIODE: depth with its mask, normals turned to our axes, files that are missing or contradict each other."""

import numpy as np
import pytest
import torch
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.datasets.diode import PROTOCOLS
from polyteach.tasks import load_task
from polyteach.verbs.ingest import ingest

H, W = 12, 16
SPLITS = ("train/indoors", "train/outdoor", "val/indoors", "val/outdoor")

DEPTH = np.linspace(0.6, 120, H * W, dtype=np.float32).reshape(H, W, 1)
MASK = np.ones((H, W))
MASK[0], DEPTH[0] = 0, np.nan
DEPTH[1, :3, 0] = (0, np.nan, -1)  # without a return, whatever the mask says

FLOOR = 0.6, 0.8  # up and towards the camera, in right-up-towards
NORMAL = np.zeros((H, W, 3), np.float32)
NORMAL[2:6] = (0, 0, 1)
NORMAL[6:, :8] = (0, *FLOOR)
NORMAL[6:, 8:] = (0.6, 0, 0.8)
NORMAL[2, 0] = np.nan


def start(root, split, number=0):
    part, place = split.split("/")
    return root / part / place / "scene_00001/scan_00002" / f"00001_00002_{place}_{number:03d}_010"


def scan(root, split, number=0, normal=True):
    path = start(root, split, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(f"{path}.png")
    np.save(f"{path}_depth.npy", DEPTH)
    np.save(f"{path}_depth_mask.npy", MASK)
    if normal:
        np.save(f"{path}_normal.npy", NORMAL)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "diode"
    for split in SPLITS:
        scan(root, split, 0)
        scan(root, split, 10)
    return root


def refused(root, tmp_path, match):
    with pytest.raises(ValueError, match=match):
        ingest(f"diode:{root}", str(tmp_path / "strict"), progress=False)
    store = ingest(f"diode:{root}", str(tmp_path / "lax"), progress=False, skip_bad=True)
    ((id, _, reason),) = store.rejects()
    return id, reason


def test_reads_every_split(root, tmp_path):
    dataset = load_dataset(f"diode:{root}")
    assert set(dataset.spaces) == {"depth", "normals"}
    assert dataset.spaces["depth"].kind == "metric"
    assert dataset.names[0] == "train/indoors/scene_00001/scan_00002/00001_00002_indoors_000_010.png"
    assert [e.split for e in dataset.entries(0, 99)] == [s for s in SPLITS for _ in range(2)]
    store = ingest(f"diode:{root}", str(tmp_path / "store"), progress=False)
    assert not store.rejects()
    assert sum(len(list(store.images(part))) for part in store.parts()) == 8


def test_depth_is_known_where_the_mask_and_the_value_say_so(root):
    (entry,) = load_dataset(f"diode:{root}").entries(0, 1)
    target = entry.targets((H, W))["depth"]
    expected = np.ones((H, W), bool)
    expected[0] = expected[1, :3] = False
    assert np.array_equal(target.valid.numpy(), expected)
    assert np.array_equal(target.value.numpy(), np.where(expected, DEPTH[..., 0], 0))


@pytest.mark.parametrize("value", [1e300, np.inf, np.nan])
def test_depth_that_float32_cannot_hold_is_not_known(root, value):
    deep = DEPTH.astype(np.float64)
    deep[5] = value
    np.save(f"{start(root, SPLITS[0])}_depth.npy", deep)
    first, second = (e.targets((H, W))["depth"] for e in load_dataset(f"diode:{root}").entries(0, 2))
    assert not first.valid[5].any()
    assert not first.value[5].any()
    assert torch.equal(first.value[6:], second.value[6:])
    assert torch.equal(first.valid[6:], second.valid[6:])


def test_depth_without_a_channel_is_the_same(root):
    np.save(f"{start(root, SPLITS[0])}_depth.npy", DEPTH[..., 0])
    first, second = (e.targets((H, W))["depth"] for e in load_dataset(f"diode:{root}").entries(0, 2))
    assert torch.equal(first.value, second.value)


def test_normals_are_turned_to_y_down_and_z_away(root):
    dataset = load_dataset(f"diode:{root}")
    (entry,) = dataset.entries(0, 1)
    target = entry.targets((H, W))["normals"]
    valid = np.zeros((H, W), bool)
    valid[2:] = True
    valid[2, 0] = False
    assert np.array_equal(target.valid.numpy(), valid)
    assert target.normal[:, 3, 3].tolist() == [0, 0, -1]
    assert target.normal[:, 8, 2].tolist() == pytest.approx([0, -0.6, -0.8])  # a floor's normal points up: y < 0
    assert target.normal[:, 8, 12].tolist() == pytest.approx([0.6, 0, -0.8])
    assert target.normal[:, ~target.valid].abs().sum() == 0
    load_task("normals").check(target, (H, W), dataset.spaces["normals"])


def test_axes_can_be_said_to_be_ours(root):
    for split in SPLITS:
        for number in (0, 10):
            np.save(f"{start(root, split, number)}_normal.npy", NORMAL * (1, -1, -1))
    (entry,) = load_dataset(f"diode:{root}?axes=down").entries(0, 1)
    assert entry.targets((H, W))["normals"].normal[:, 8, 2].tolist() == pytest.approx([0, -0.6, -0.8])
    (entry,) = load_dataset(f"diode:{root}").entries(0, 1)
    with pytest.raises(ValueError, match=r"_normal\.npy: nearly every normal faces away"):
        entry.targets((H, W))


@pytest.mark.parametrize("pitch", [-20, 10, 20])
@pytest.mark.parametrize("up", [1, -1])
def test_ground_and_ceiling_of_a_pitched_camera_face_it(root, pitch, up):
    """Only what lies below (above) the horizon is ground (ceiling); of one that is seen, z may have any sign."""
    angle = np.deg2rad(pitch)
    slope = 384 / 927.06 * (1 - (2 * np.arange(H) + 1) / H)  # of the rays, upwards
    seen = up * (slope * np.cos(angle) + np.sin(angle)) < 0
    assert seen.any()
    normal = np.zeros((H, W, 3), np.float32)
    normal[seen] = np.array([0, np.cos(angle), -np.sin(angle)]) * up
    np.save(f"{start(root, SPLITS[0])}_normal.npy", normal)
    (entry,) = load_dataset(f"diode:{root}").entries(0, 1)
    target = entry.targets((H, W))["normals"]
    assert np.array_equal(target.valid.numpy(), np.repeat(seen[:, None], W, 1))
    assert target.normal[2][target.valid].mean() == pytest.approx(up * np.sin(angle), abs=1e-6)


def test_a_handful_of_wrong_normals_is_no_sign_of_other_axes(root):
    normal = np.zeros((200, 200, 3), np.float32)
    normal[100, 100:105] = (0, 0, -1)
    path = start(root, SPLITS[0])
    Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(f"{path}.png")
    for ending, value in (("_depth.npy", np.ones((200, 200))), ("_depth_mask.npy", np.ones((200, 200)))):
        np.save(f"{path}{ending}", value)
    np.save(f"{path}_normal.npy", normal)
    (entry,) = load_dataset(f"diode:{root}").entries(0, 1)
    assert entry.targets((200, 200))["normals"].valid.sum() == 5
    np.save(f"{path}_normal.npy", np.full((200, 200, 3), (0, 0, -1), np.float32))
    with pytest.raises(ValueError, match="faces away"):
        entry.targets((200, 200))


def test_without_normals_there_is_depth_only(tmp_path):
    scan(tmp_path, "val/outdoor", normal=False)
    dataset = load_dataset(f"diode:{tmp_path}")
    assert set(dataset.spaces) == {"depth"}
    (entry,) = dataset.entries(0, 1)
    assert set(entry.targets((H, W))) == {"depth"}


def test_normals_of_val_only(tmp_path):
    scan(tmp_path, "train/outdoor", normal=False)
    scan(tmp_path, "val/outdoor")
    train, val = load_dataset(f"diode:{tmp_path}").entries(0, 2)
    assert (set(train.targets((H, W))), set(val.targets((H, W)))) == ({"depth"}, {"depth", "normals"})


def test_normals_without_depth(tmp_path):
    scan(tmp_path, "val/outdoor")
    for file in tmp_path.glob("**/*_depth*.npy"):
        file.unlink()
    assert set(load_dataset(f"diode:{tmp_path}").spaces) == {"normals"}


def test_pictures_of_test_may_be_unlabelled(root):
    path = start(root, "test/outdoor")
    path.parent.mkdir(parents=True)
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(f"{path}.png")
    *_, last = load_dataset(f"diode:{root}").entries(0, 99)
    assert (last.split, last.problem, last.targets) == ("test/outdoor", None, None)


@pytest.mark.parametrize("ending", [".png", "_depth.npy", "_depth_mask.npy", "_normal.npy"])
def test_a_missing_file(root, tmp_path, ending):
    path = f"{start(root, 'val/outdoor', 10)}{ending}"
    (root.parent / path).unlink()
    id, reason = refused(root, tmp_path, "missing")
    assert id.endswith("00001_00002_outdoor_010_010.png")
    assert reason == f"{path}: missing"


@pytest.mark.parametrize(
    ("ending", "content", "match"),
    [
        ("_depth.npy", DEPTH[1:], r"_depth\.npy: is 11 x 16 .* but the image is 12 x 16"),
        ("_depth_mask.npy", MASK[:, 1:], r"_depth_mask\.npy: is 12 x 15"),
        ("_normal.npy", NORMAL[1:], r"_normal\.npy: is 11 x 16"),
        ("_normal.npy", NORMAL[..., :2], r"_normal\.npy: must be \(height, width, 3\); has shape \(12, 16, 2\)"),
        ("_normal.npy", NORMAL * 2, r"_normal\.npy: normals must have length 1.* got 2"),
        ("_depth.npy", np.array([{}], dtype=object), r"_depth\.npy: must be one array of numbers; it is of object"),
        ("_depth.npy", np.full((H, W, 1), "far"), r"_depth\.npy: must be one array of numbers"),
    ],
)
def test_a_wrong_file(root, tmp_path, ending, content, match):
    np.save(f"{start(root, 'val/outdoor', 10)}{ending}", content, allow_pickle=True)
    refused(root, tmp_path, match)


@pytest.mark.parametrize(
    ("dtype", "value", "got"),
    [
        (np.float32, 1e38, r"1\.73205e\+38"),  # squares, which float32 cannot hold
        (np.float32, -3e38, r"5\.19615e\+38"),
        (np.float64, 1e39, r"1\.73205e\+39"),  # nor this itself
        (np.float64, 1e300, r"1\.73205e\+300"),
        (np.float16, 6e4, r"103923"),
        (np.int64, 2**62, r"7\.98767e\+18"),
    ],
)
def test_normals_of_any_size_are_refused(root, tmp_path, dtype, value, got):
    normal = np.nan_to_num(NORMAL).astype(dtype)
    normal[3, 3] = value
    np.save(f"{start(root, 'val/outdoor', 10)}_normal.npy", normal)
    refused(root, tmp_path, rf"_normal\.npy: normals must have length 1, or 0 where invalid; got {got}\b")


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_normals_that_are_no_numbers_are_not_known(root, value):
    normal = NORMAL.copy()
    normal[3, 3, 1] = value
    np.save(f"{start(root, SPLITS[0])}_normal.npy", normal)
    (entry,) = load_dataset(f"diode:{root}").entries(0, 1)
    target = entry.targets((H, W))["normals"]
    assert not target.valid[3, 3]
    assert not target.normal[:, 3, 3].any()
    assert target.valid[3].sum() == W - 1


@pytest.mark.parametrize("kept", [0, 40, 300])
def test_a_cut_file(root, tmp_path, kept):
    path = start(root, "val/outdoor", 10)
    path = path.with_name(path.name + "_depth.npy")
    path.write_bytes(path.read_bytes()[:kept])
    refused(root, tmp_path, r"_depth\.npy: broken")


def test_strange_trees_and_options(root, tmp_path):
    (root / "train/indoors/notes.txt").write_text("x")
    assert load_dataset(f"diode:{root}").left_out.total() == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no images: expected ROOT/train/outdoor"):
        load_dataset(f"diode:{tmp_path / 'empty'}")
    with pytest.raises(ValueError, match="axes is one of up, down"):
        load_dataset(f"diode:{root}?axes=left")
    with pytest.raises(ValueError, match="there are: axes=up"):
        load_dataset(f"diode:{root}?axis=up")


def test_a_folder_above_the_tree_finds_it(root, tmp_path):
    dataset = load_dataset(f"diode:{tmp_path}")
    assert len(dataset.names) == 8
    assert dataset.notes == [f"{tmp_path} holds the tree in a folder below it: {root} was read"]


def test_protocol():
    protocol = PROTOCOLS["diode-normals"]
    assert (protocol.train, protocol.test, protocol.metric) == (("train/outdoor",), ("val/outdoor",), "within 11.25")


def head(shape, dtype="<f4"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (head("(1000000, 1000000, 1)"), r"_depth\.npy: is 1000000 x 1000000 .* but the image is 12 x 16"),
        (head("(12, 16, 9000000000)"), r"_depth\.npy: must be \(height, width, 1\); has shape"),
        (head("(12, 16)"), r"_depth\.npy: broken: its head says 768 bytes of numbers, and there are 0"),
        (head("(12, -16)"), r"_depth\.npy: must be one array of numbers"),
        (head("(" * 300 + ")" * 300), r"_depth\.npy: broken"),
        (head("(1, 'x"), r"_depth\.npy: broken"),
        (head("(12, 16)", "|V0"), r"_depth\.npy: must be one array of numbers"),
        (b"PK\x03\x04", r"_depth\.npy: broken"),  # an archive of arrays, which unpack to any size
    ],
)
def test_a_head_is_looked_at_before_memory_is_taken(root, tmp_path, content, match):
    path = start(root, "val/outdoor", 10)
    path.with_name(path.name + "_depth.npy").write_bytes(content)
    refused(root, tmp_path, match)
