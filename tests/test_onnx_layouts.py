"""Detectors of known layouts: read as their authors decode them, recomputed here with numpy, one box at a time."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from polyteach.tasks import load_task
from polyteach.tasks.contract import Space
from polyteach.tasks.detection import BOXES, MASKS
from polyteach.teachers import check_teacher, load_teacher
from tests.graphs import constant, describe, graph

NAMES = ["cup", "hat", "dog"]
SIDE = 40
SEEN = {"names": str(dict(enumerate(NAMES))), "stride": "32", "task": "detect", "imgsz": f"[{SIDE}, {SIDE}]"}
"""What Ultralytics writes into a file."""
WIDE = torch.zeros(3, 20, 80, dtype=torch.uint8)
"""Fits 40x40 as 10x40, with 15 rows of grey above: half as large."""


def boxes_of(found):
    """(box, score, class) of each, the best first, rounded."""
    order = found.score.argsort(descending=True, stable=True)
    return [
        ([round(x, 3) for x in found.box[i].tolist()], round(float(found.score[i]), 4), int(found.category[i]))
        for i in order
    ]


def random_rows(seed, n=60, k=3):
    """Centres, sizes and probabilities of boxes in 40x40."""
    r = np.random.default_rng(seed)
    centre, side = r.uniform(5, 35, (n, 2)), r.uniform(2, 20, (n, 2))
    return np.concatenate([centre, side], 1).astype(np.float32), r.uniform(0, 1, (n, k)).astype(np.float32) ** 4


def overlap(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def suppressed(found, most):
    """Greedy suppression within a class; found: (x0 y0 x1 y1, score, class)."""
    kept = []
    for box, score, category in sorted(found, key=lambda x: -x[1]):
        if score >= 0.05 and all(c != category or overlap(box, b) <= most for b, _, c in kept):
            kept.append((box, score, category))
    return kept


def on_wide(box):
    """From 40x40 to the image of 20x80, clipped nowhere."""
    x0, y0, x1, y1 = box
    return [round(float(v), 3) for v in (2 * x0, 2 * (y0 - 15), 2 * x1, 2 * (y1 - 15))]


def corners(x, y, w, h):
    return (x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def expected(rows, scores, most):
    found = [(corners(*box), float(p.max()), int(p.argmax())) for box, p in zip(rows, scores, strict=True)]
    return [(on_wide(b), round(s, 4), c) for b, s, c in suppressed(found, most)]


def close(found, wanted):
    assert [c for *_, c in found] == [c for *_, c in wanted]
    assert np.allclose([s for _, s, _ in found], [s for _, s, _ in wanted], atol=2e-4)
    assert np.allclose([b for b, *_ in found], [b for b, *_ in wanted], atol=2e-2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("turned", [False, True])
def test_yolov8_by_its_own_metadata(tmp_path, seed, turned, capsys):
    """Boxes as columns, as it is exported; as rows, its description says so."""
    rows, scores = random_rows(seed)
    value = np.concatenate([rows, scores], 1)
    file = tmp_path / "yolo.onnx"
    if turned:
        spec = describe(constant(file, {"output0": value[None]}), layout="yolov8", names=NAMES)
    else:
        spec = f"onnx:{constant(file, {'output0': value.T[None]}, metadata=SEEN)}"
    check_teacher(spec)
    teacher = load_teacher(spec)
    said = capsys.readouterr().err
    assert turned or "by its own metadata: layout 'yolov8', 3 classes, images seen at 40x40" in said
    assert teacher.objectives["detection"].space == Space(tuple(NAMES), BOXES)
    wanted = expected(rows, scores, 0.7)
    assert 5 < len(wanted) < 60
    close(boxes_of(teacher([WIDE])[0]["detection"]), wanted)


@pytest.mark.parametrize("described", [False, True])
def test_yolov5_multiplies_the_objects_probability(tmp_path, described):
    rows, scores = random_rows(5)
    there = np.random.default_rng(1).uniform(0, 1, (len(rows), 1)).astype(np.float32)
    value = np.concatenate([rows, there, scores], 1)[None]
    about = {k: v for k, v in SEEN.items() if k in ("names", "stride")}  # it says no more
    file = constant(tmp_path / "v5.onnx", {"output": value}, metadata=None if described else about)
    spec = describe(file, layout="yolov5", names=NAMES) if described else f"onnx:{file}"
    close(boxes_of(load_teacher(spec)([WIDE])[0]["detection"]), expected(rows, scores * there, 0.45))


@pytest.mark.parametrize("metadata", [SEEN, SEEN | {"end2end": "True"}, SEEN | {"args": "{'nms': True}"}])
def test_end_to_end_suppresses_nothing(tmp_path, metadata):
    """Also two boxes in one place, and the padding of score 0."""
    value = np.array([[10, 16, 30, 24, 0.9, 2], [10, 16, 30, 24, 0.8, 2], [0, 0, 0, 0, 0, 0]], np.float32)
    file = constant(tmp_path / "v10.onnx", {"output0": value[None]}, metadata=metadata)
    found = boxes_of(load_teacher(f"onnx:{file}")([WIDE])[0]["detection"])
    assert found == [([20, 2, 60, 18], 0.9, 2), ([20, 2, 60, 18], 0.8, 2)]


def test_ultralytics_rt_detr_answers_fractions_of_a_stretched_image(tmp_path):
    value = np.array([[0.5, 0.5, 0.5, 0.2, 0.1, 0.7, 0.2]], np.float32)
    file = constant(tmp_path / "rtdetr.onnx", {"output0": np.tile(value, (8, 1))[None] * 1}, metadata=SEEN)
    teacher = load_teacher(f"onnx:{file}")
    assert teacher.prepare.resize == "stretch"
    found = boxes_of(teacher([WIDE])[0]["detection"])
    assert found == [([20, 8, 60, 12], 0.7, 1)] * 8


def test_rt_detr_is_told_the_inputs_size(tmp_path):
    """Its boxes are in pixels of what it is told: here width and height, times a fraction."""
    inputs = {"images": (TensorProto.FLOAT, [1, 3, 32, 64]), "orig_target_sizes": (TensorProto.INT64, [1, 2])}
    outputs = {
        "labels": (TensorProto.INT64, [1, 1]), "boxes": (TensorProto.FLOAT, [1, 1, 4]),
        "scores": (TensorProto.FLOAT, [1, 1]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["orig_target_sizes"], ["wh"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["wh", "wh"], ["whwh"], axis=1),
        helper.make_node("Mul", ["whwh", "part"], ["flat"]),
        helper.make_node("Unsqueeze", ["flat", "one"], ["boxes"]),
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "score"], ["scores"]),
        helper.make_node("Cast", ["scores"], ["labels"], to=TensorProto.INT64),
    ]
    part = np.array([[0.25, 0.5, 0.75, 1]], np.float32)
    constants = [
        ("part", part),
        ("one", np.array([1])),
        ("zero", np.float32(0)),
        ("score", np.array([[1.0]], np.float32)),
    ]
    spec = describe(graph(tmp_path / "rt.onnx", nodes, inputs, outputs, constants), layout="rt-detr", names=NAMES)
    (answer,) = load_teacher(spec)([WIDE])
    assert boxes_of(answer["detection"]) == [([20, 10, 60, 20], 1, 1)]


@pytest.mark.parametrize("mask", [{}, {"pixel_mask": (TensorProto.INT64, [1, 64, 64])}])
def test_detr_leaves_its_last_class_out(tmp_path, mask):
    """It means "no object": a box that is most probably none scores by what is left for the others."""
    logits = np.array([[[2.0, 0, 0, 1], [0, 0, 0, 9], [0, 3, 0, 0]]], np.float32)
    box = np.array([[[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 1, 1], [0.25, 0.5, 0.1, 0.2]]], np.float32)
    file = constant(tmp_path / "detr.onnx", {"logits": logits, "pred_boxes": box}, beside=mask)
    found = boxes_of(load_teacher(describe(file, layout="detr", names=NAMES))([WIDE])[0]["detection"])
    share = np.exp(logits[0]) / np.exp(logits[0]).sum(1, keepdims=True)
    assert [c for *_, c in found] == [1, 0]
    assert np.allclose([s for _, s, _ in found], [share[2, 1], share[0, 0]], atol=1e-4)
    assert np.allclose(found[1][0], [20, 5, 60, 15])
    with pytest.raises(ValueError, match=r"\(N, 5\), the last of them no object \(4 names\)"):
        load_teacher(describe(file, layout="detr", names=[*NAMES, "none"]))


def test_fastestdet_by_its_published_loop(tmp_path):
    r = np.random.default_rng(3)
    grid = r.normal(0, 1, (8, 4, 5)).astype(np.float32)
    grid[0] = r.uniform(0, 1, (4, 5))
    grid[5:] = r.uniform(0, 1, (3, 4, 5))
    file = constant(tmp_path / "fast.onnx", {"758": grid[None]})
    found = boxes_of(load_teacher(describe(file, layout="fastestdet", names=NAMES))([WIDE])[0]["detection"])
    wanted = []
    for row in range(4):
        for column in range(5):
            cell = grid[:, row, column]
            score = cell[0] ** 0.6 * cell[5:].max() ** 0.4
            x, y = (column + np.tanh(cell[1])) / 5, (row + np.tanh(cell[2])) / 4
            w, h = (1 / (1 + np.exp(-v)) for v in cell[3:5])
            wanted.append((corners(x * 80, y * 20, w * 80, h * 20), float(score), int(cell[5:].argmax())))
    kept = suppressed([(tuple(np.array(b) * 1), s, c) for b, s, c in wanted], 0.45)
    close(found, [([round(float(v), 3) for v in b], round(s, 4), c) for b, s, c in kept])


@pytest.mark.parametrize("layout", ["yolov8", "end to end"])
def test_masks_from_prototypes(tmp_path, layout):
    """Two prototypes, left and right half of the input; the first box takes one, the other less than both."""
    side = 10
    prototypes = np.full((2, side, side), -5, np.float32)
    prototypes[0, :, :5], prototypes[1, :, 5:] = 5, 5
    boxes = np.array([[20, 20, 40, 10], [20, 20, 20, 6]], np.float32)  # centre and size, within rows 15 to 25
    more = np.array([[1, 0], [0.2, 1]], np.float32)
    if layout == "yolov8":
        score = np.array([[0.9, 0, 0], [0, 0.8, 0]], np.float32)
        value = np.concatenate([boxes, score, more], 1).T
    else:
        corner = np.array([corners(*b) for b in boxes])
        value = np.concatenate([corner, [[0.9, 0], [0.8, 1]], more], 1)
    outputs = {"output0": value[None], "output1": prototypes[None]}
    file = constant(tmp_path / "seg.onnx", outputs, metadata=SEEN | {"task": "segment"})
    teacher = load_teacher(f"onnx:{file}")
    objective = teacher.objectives["detection"]
    assert objective.space.kind == MASKS
    target = load_task("detection").check(teacher([WIDE])[0]["detection"], (20, 80), objective.space)
    assert boxes_of(target) == [([0, 0, 80, 20], 0.9, 0), ([20, 4, 60, 16], 0.8, 1)]
    first, second = target.mask
    height, width = first.shape
    assert (height, width) == (10, 40)
    assert first[:, : width // 2 - 1].all()
    assert not first[:, width // 2 + 1 :].any()
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[2:8, 10:30] = True
    assert not second[~inside].any(), "what lies beyond the box is no part of it"
    assert second[2:8, 21:30].all()
    assert not second[2:8, 10:19].any()
    empty = describe(file, output={"least_score": 0.95})
    none = load_teacher(empty)([WIDE])[0]["detection"]
    assert none.mask.shape == (0, height, width)


@pytest.mark.parametrize("framed", [False, True])
def test_masks_that_a_graph_answers(tmp_path, framed):
    """Each over its box, as Mask R-CNN's, or over the whole input."""
    box = np.array([[10, 16, 30, 24]], np.float32)
    mask = np.zeros((1, 1, 8, 8), np.float32)
    if framed:
        mask[..., 4:] = 1  # the right half of the box
    else:
        mask = np.zeros((1, SIDE, SIDE), np.float32)
        mask[0, 16:24, 20:30] = 1
    outputs = {"boxes": box, "scores": np.array([[0, 0.9, 0]]), "masks": mask}
    file = constant(tmp_path / "rcnn.onnx", outputs)
    output = {"boxes": "boxes", "scores": "scores", "masks": "masks", "mask_frame": "box" if framed else "image"}
    about = {"task": "detection", "names": NAMES, "input": {"resize": "fit", "place": "centre"}}
    teacher = load_teacher(describe(file, **about, output=output))
    target = teacher([WIDE])[0]["detection"]
    assert teacher.objectives["detection"].space.kind == MASKS
    assert boxes_of(target) == [([20, 2, 60, 18], 0.9, 1)]
    (shown,) = target.mask
    assert shown.shape == (10, 40)
    assert shown[2:8, 21:29].all()
    assert not shown[:, :18].any()
    assert not shown[:, 31:].any()


def test_keypoints_are_not_read_and_that_is_said(tmp_path, capsys):
    rows, scores = random_rows(2, k=1)
    value = np.concatenate([rows, scores, np.full((len(rows), 51), 3)], 1).T[None]
    pose = SEEN | {"task": "pose", "names": "{0: 'person'}", "kpt_shape": "[17, 3]"}
    teacher = load_teacher(f"onnx:{constant(tmp_path / 'pose.onnx', {'output0': value}, metadata=pose)}")
    assert "keypoints are not read; its boxes are" in capsys.readouterr().err
    close(boxes_of(teacher([WIDE])[0]["detection"]), expected(rows, scores, 0.7))


def test_an_ultralytics_classifier(tmp_path):
    """Its probabilities are the means of red, green and blue of the middle, from 0 to 1."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    x, y = (TensorProto.FLOAT, [1, 3, 8, 8]), (TensorProto.FLOAT, [1, 3])
    metadata = SEEN | {"task": "classify", "imgsz": "[8, 8]"}
    file = graph(tmp_path / "cls.onnx", nodes, {"x": x}, {"y": y}, metadata=metadata)
    image = torch.zeros(3, 16, 48, dtype=torch.uint8)
    image[0, :, 16:32], image[1, :, 16:32] = 51, 204
    (answer,) = load_teacher(f"onnx:{file}")([image])
    assert np.allclose(answer["classification"].probability, [0.2, 0.8, 0], atol=0.03)


def test_what_stands_beside_the_file_adds_to_its_metadata_and_wins(tmp_path):
    rows, scores = random_rows(7)
    file = constant(tmp_path / "y.onnx", {"output0": np.concatenate([rows, scores], 1).T[None]}, metadata=SEEN)
    spec = describe(file, names=["a", "b", "c"], licence="mine", output={"least_score": 0.5, "overlap": 1})
    teacher = load_teacher(spec)
    assert teacher.objectives["detection"].space.names == ("a", "b", "c")
    assert teacher.licence == "mine"
    assert len(teacher([WIDE])[0]["detection"].box) == int((scores.max(1) >= 0.5).sum())
    # one that names a task is complete, as it was before metadata were read
    output = {"boxes": "output0", "scores": "output0"}
    with pytest.raises(ValueError, match=r"boxes are \(N, 4\) or \(batch, N, 4\). .* have a `layout`"):
        load_teacher(describe(file, task="detection", names=NAMES, output=output))


@pytest.mark.parametrize(("resize", "longest"), [("fit", 64), ("stretch", 64)])
def test_graphs_of_any_size_are_fitted_too(tmp_path, resize, longest):
    """20x80 becomes 16x64 in 32x64 of grey; without fitting it becomes 32x64 itself."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1)]
    x, y = (TensorProto.FLOAT, ["b", 3, "h", "w"]), (TensorProto.FLOAT, ["b", 1, "h", "w"])
    file = graph(tmp_path / "any.onnx", nodes, {"x": x}, {"y": y})
    given = {"resize": resize, "longest": longest} | ({"place": "centre", "fill": 255} if resize == "fit" else {})
    teacher = load_teacher(describe(file, task="depth", input=given))
    pixels, place = teacher.prepare(WIDE)
    assert pixels.shape == (3, 32, 64)
    assert (place.top, place.tall, place.wide) == ((8, 16, 64) if resize == "fit" else (0, 32, 64))
    assert float(pixels.mean()) == (0.5 if resize == "fit" else 0)
    assert not teacher([WIDE])[0]["depth"].value.any()  # grey is no part of the answer


@pytest.mark.parametrize("last", [False, True])
def test_normals_with_their_axes(tmp_path, last):
    """x right, y up, z towards the camera, as most publish them; ours are right, down and away."""
    field = np.zeros((3, 4, 4), np.float32)
    field[0, :, :2], field[1, :, 2:], field[2] = 0.6, 3, 0.8
    field[:, 3] = 0  # of no length: not known
    value = field.transpose(1, 2, 0) if last else field
    file = constant(tmp_path / "n.onnx", {"map": value[None]})
    output = {"axes": "right up towards", "channels": "last" if last else "first"}
    teacher = load_teacher(describe(file, task="normals", output=output))
    target = load_task("normals").check(
        teacher([torch.zeros(3, 4, 4, dtype=torch.uint8)])[0]["normals"], (4, 4), Space()
    )
    long = (9 + 0.64) ** 0.5
    assert torch.allclose(target.normal[:, 0, 0], torch.tensor([0.6, 0, -0.8]), atol=1e-5)
    assert torch.allclose(target.normal[:, 0, 3], torch.tensor([0, -3 / long, -0.8 / long]), atol=1e-5)
    assert target.valid.all(1).tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match=r"axes says where x, y and z point.*got 'right up up'"):
        load_teacher(describe(file, task="normals", output=output | {"axes": "right up up"}))


def test_maps_with_channels_last_and_boxes_as_corner_and_size(tmp_path):
    value = np.zeros((1, 4, 4, 3), np.float32)
    value[..., :2, 1], value[..., 2:, 2] = 5, 5
    spec = describe(
        constant(tmp_path / "m.onnx", {"map": value}), task="segmentation", names=NAMES, output={"channels": "last"}
    )
    category = load_teacher(spec)([torch.zeros(3, 4, 4, dtype=torch.uint8)])[0]["segmentation"].category
    assert category.tolist() == [[1, 1, 2, 2]] * 4
    outputs = {"boxes": np.array([[4.0, 8, 10, 20]]), "scores": np.array([[0, 1.0, 0]])}
    output = {"boxes": "boxes", "scores": "scores", "format": "xywh"}
    spec = describe(constant(tmp_path / "b.onnx", outputs), task="detection", names=NAMES, output=output)
    found = load_teacher(spec)([torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)])[0]["detection"]
    assert found.box.tolist() == [[4, 8, 14, 28]]


def test_classes_that_do_not_exclude_each_other_share_an_image(tmp_path):
    file = constant(tmp_path / "c.onnx", {"y": np.array([[0.0, 100, -100]])})
    spec = describe(file, task="classification", names=NAMES, output={"values": "sigmoid"})
    (answer,) = load_teacher(spec)([WIDE])
    assert np.allclose(answer["classification"].probability, [1 / 3, 2 / 3, 0], atol=1e-6)


WRONG = [
    (SEEN | {"task": "obb"}, (1, 7, 60), r"answers rotated boxes, which no reader here takes; export one that"),
    (SEEN | {"task": "depth"}, (1, 7, 60), r"answers the task 'depth'"),
    (SEEN | {"names": "{1: 'cup'}"}, (1, 7, 60), r"do not number classes from 0"),
    (SEEN | {"names": "__import__('os')"}, (1, 7, 60), r"names in its metadata cannot be read"),
    (SEEN | {"imgsz": "[0]"}, (1, 7, 60), r"imgsz in its metadata is no size: '\[0\]'"),
    (SEEN, (1, 9, 60), r"its boxes are \[1, 9, 60\], and its metadata names 3 classes: no layout"),
    (
        SEEN,
        (1, 3, 40, 40),
        r"its metadata says detect, of which the outputs are boxes .*; it has output0 \[1, 3, 40, 40\]",
    ),
    (SEEN | {"task": "segment"}, (1, 39, 60), r"says segment, of which the outputs are boxes .* and prototypes"),
]


@pytest.mark.parametrize(("metadata", "shape", "said"), WRONG)
def test_metadata_that_cannot_be_read_are_refused_before_torch(tmp_path, metadata, shape, said):
    file = constant(tmp_path / "y.onnx", {"output0": np.zeros(shape)}, metadata=metadata)
    with pytest.raises(ValueError, match=said):
        check_teacher(f"onnx:{file}")


@pytest.mark.parametrize(
    ("about", "shape", "said"),
    [
        (
            {"layout": "yolov8"},
            (1, 6, 60),
            r"\(1?,? ?6, 60\) for an image, not layout 'yolov8' with 3 names is \(7, N\)",
        ),
        ({"layout": "yolov5"}, (1, 60, 7), r"not layout 'yolov5' with 3 names is \(N, 8\) for an image"),
        ({"layout": "end to end"}, (1, 60, 7), r"not layout 'end to end' with 3 names is \(N, 6\)"),
        ({"layout": "fastestdet"}, (1, 7, 4, 4), r"not layout 'fastestdet' with 3 names is \(8, rows, columns\)"),
        ({"layout": "yolov8"}, (1, 1, 7, 60), r"has shape \[1, 1, 7, 60\]; layout 'yolov8' with 3 names is \(7, N\)"),
        ({"layout": "yolov9"}, (1, 7, 60), r"layout is 'yolov9'; allowed are yolov8, yolov5, end to end"),
        ({"layout": "yolov8", "task": "depth"}, (1, 7, 60), r"layout is for detection, not for 'depth'"),
        ({"layout": "yolov8", "output": {"boxes": "y"}}, (1, 7, 60), r"output: boxes is not for layout 'yolov8'"),
        ({"layout": "detr"}, (1, 7, 60), r"output: scores must name one of the outputs y|output: boxes must name"),
    ],
)
def test_a_layout_that_is_not_the_graphs_is_told_when_it_is_loaded(tmp_path, about, shape, said):
    file = constant(tmp_path / "y.onnx", {"y": np.zeros(shape)})
    with pytest.raises(ValueError, match=said):
        load_teacher(describe(file, **{"names": NAMES} | about))
