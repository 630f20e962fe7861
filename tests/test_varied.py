"""Flips and scales at labelling: what does not depend on them stays, what does becomes the mean worked out by hand."""

import json
import math

import pytest
import torch

import polyteach
from polyteach.labelling.asking import Asker
from polyteach.labelling.options import Asking
from polyteach.labelling.varied import Varied, told, varied
from polyteach.store import Store
from polyteach.tasks import load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space
from polyteach.tasks.depth import METRIC, RELATIVE, DepthTarget
from polyteach.tasks.detection import BOXES, MASKS, DetectionTarget
from polyteach.tasks.normals import NormalsTarget
from polyteach.tasks.segmentation import SegmentationTarget
from polyteach.teachers.contract import Teacher
from tests.worlds import answers_of, noise, store_of, teacher_in

H, W = 24, 36


class Fake(Teacher):
    """Answers with what a function says of each image; notes the sizes that it was asked at."""

    def __init__(self, task, space, answer):
        self.objectives = {task: Objective(task, space)}
        self.answer, self.key, self.sizes = answer, task, []

    def __call__(self, images):
        self.sizes += [tuple(i.shape[1:]) for i in images]
        return [{self.key: self.answer(i.float())} for i in images]


def block_image():
    """Dark, with one bright block at rows 6 to 18 and columns 4 to 16, and green below."""
    image = torch.zeros(3, H, W, dtype=torch.uint8)
    image[0, 6:18, 4:16] = 250
    image[1, 18:] = 200
    return image


def red_box(image):
    red = image[0] > 125
    ys, xs = torch.where(red)
    box = torch.tensor([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]).float()
    return DetectionTarget(box, torch.tensor([0]), torch.tensor([0.75]), torch.tensor([False]), red[None])


def painted(image):
    category = torch.where(image[0] > 125, 1, 0)
    return SegmentationTarget(category, torch.where(image[1] > 100, 0.9, 0.7))


SPACES = {
    "classification": (Space(("r", "g", "b")), lambda i: ClassificationTarget((i.mean((1, 2)) / 60).softmax(0))),
    "detection": (Space(("x",), MASKS), red_box),
    "segmentation": (Space(("a", "b")), painted),
    "depth": (
        Space((), RELATIVE), lambda i: DepthTarget(i.sum(0) / 255, torch.ones(i.shape[1:], dtype=torch.bool))
    ),
    "normals": (
        Space(),
        lambda i: NormalsTarget(
            torch.stack([0 * i[0], torch.where(i[1] > 100, 0.6, 0.0), torch.where(i[1] > 100, -0.8, -1.0)]),
            torch.ones(i.shape[1:], dtype=torch.bool),
        ),
    ),
}  # fmt: skip


def asked(task, space, answer, image, scales=(1.0,), flip=False):
    teacher = Fake(task, space, answer)
    [one] = Varied(teacher, scales, flip)([image])
    return one[task], teacher


@pytest.mark.parametrize("task", SPACES)
@pytest.mark.parametrize(("scales", "flip"), [((1.0,), True), ((1.0, 2.0), False), ((0.5, 1.0, 2.0), True)])
def test_a_teacher_that_sees_the_same_in_all_views_says_the_same(task, scales, flip):
    """Edges of the image are blended where it is resized: no more than there may differ."""
    space, answer = SPACES[task]
    image = block_image()
    plain = answer(image.float())
    one, teacher = asked(task, space, answer, image, scales, flip)
    assert len(teacher.sizes) == len(scales) * (1 + flip)
    assert set(teacher.sizes) == {(int(H * s), int(W * s)) for s in scales}
    exact = scales == (1.0,)
    for name, value in vars(plain).items():
        other = getattr(one, name)
        if value is None:
            assert other is None
        elif value.dtype == torch.bool or name == "category":
            assert float((other != value).float().mean()) <= (0 if exact else 0.1), name
        else:
            off = (other - value).abs()
            assert float(off.max() if exact or value.numel() < 5 else off.median()) <= (1e-5 if exact else 0.1), name


def test_boxes_that_only_one_view_has_are_worth_half():
    """Always at the left: mirrored back it is at the right. Two that are the same object are averaged by score."""
    left = DetectionTarget(
        torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0]), torch.tensor([0.8]), torch.tensor([False])
    )
    image = torch.zeros(3, H, W, dtype=torch.uint8)
    one, _ = asked("detection", Space(("x",), BOXES), lambda _: left, image, flip=True)
    assert sorted(one.box.tolist()) == [[0, 0, 10, 10], [W - 10, 0, W, 10]]
    assert one.score.tolist() == pytest.approx([0.4, 0.4])

    def nearly(seen):
        """In the middle; two pixels farther to the left, and surer, where the image is mirrored."""
        mirrored = bool(seen[0, 0, 0] < 9)
        box = torch.tensor([[8.0, 0, 28, 20]]) - (2 if mirrored else 0) * torch.tensor([1.0, 0, 1, 0])
        return DetectionTarget(box, torch.tensor([0]), torch.tensor([0.9 if mirrored else 0.6]), torch.tensor([False]))

    image[0, 0, 0] = 20
    one, _ = asked("detection", Space(("x",), BOXES), nearly, image, flip=True)
    x0, x1 = (0.6 * 8 + 0.9 * (W - 26)) / 1.5, (0.6 * 28 + 0.9 * (W - 6)) / 1.5
    assert one.box.tolist() == [pytest.approx([x0, 0, x1, 20])]
    assert one.score.tolist() == pytest.approx([0.75])


def test_boxes_at_another_size_are_brought_back():
    """Always 20 pixels long: half as long at twice the size, so not the same object (0.25 of the area)."""
    box = DetectionTarget(
        torch.tensor([[0.0, 0, 20, 20]]), torch.tensor([0]), torch.tensor([0.8]), torch.tensor([False])
    )
    one, _ = asked("detection", Space(("x",), BOXES), lambda _: box, block_image(), (1.0, 2.0))
    assert sorted(one.box.tolist()) == [[0, 0, 10, 10], [0, 0, 20, 20]]


def test_classes_are_the_mean():
    """By the left half alone, of which the mirrored image has the other."""

    def left(seen):
        return ClassificationTarget((seen[:, :, : W // 2].mean((1, 2)) / 50).softmax(0))

    image = torch.zeros(3, H, W, dtype=torch.uint8)
    image[0, :, : W // 2], image[1, :, W // 2 :] = 100, 200
    one, _ = asked("classification", Space(("r", "g", "b")), left, image, flip=True)
    a, b = (torch.tensor(v).softmax(0) for v in ([2.0, 0, 0], [0, 4.0, 0]))
    torch.testing.assert_close(one.probability, (a + b) / 2)


def test_pixels_vote_depth_has_its_median_and_normals_their_mean():
    image = torch.zeros(3, 1, 4, dtype=torch.uint8)
    said = SegmentationTarget(torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0.9, 0.5, 0.7, 0.6]]))
    one, _ = asked("segmentation", Space(("a", "b")), lambda _: said, image, flip=True)
    # mirrored back: classes 1 0 0 0 of 0.6 0.7 0.5 0.9
    assert one.category.tolist() == [[0, 0, 0, 0]]
    assert one.probability.tolist() == [pytest.approx([0.45, 0.6, 0.6, 0.45])]
    far = DepthTarget(torch.tensor([[1.0, 2.0, 2.5, 8.0]]), torch.ones(1, 4, dtype=torch.bool))
    one, _ = asked("depth", Space((), METRIC), lambda _: far, image, flip=True)
    # mirrored back: 8 2.5 2 1; of 1 and 8 the middle is 4.5, from which both are farther than a quarter
    assert one.valid.tolist() == [[False, True, True, False]]
    assert one.value.tolist() == [[0, 2.25, 2.25, 0]]
    slant = NormalsTarget(torch.tensor([0.28, 0, -0.96])[:, None, None].expand(3, 1, 4), torch.ones(1, 4).bool())
    one, _ = asked("normals", Space(), lambda _: slant, image, flip=True)
    assert one.normal[:, 0, 0].tolist() == pytest.approx([0, 0, -1])


def test_a_map_of_a_resolution_of_its_own_keeps_it():
    def small(_):
        return DepthTarget(torch.arange(6.0).reshape(2, 3) + 1, torch.ones(2, 3, dtype=torch.bool))

    one, _ = asked("depth", Space((), METRIC), small, block_image(), (1.0, 1.5))
    assert one.value.tolist() == [[1, 2, 3], [4, 5, 6]]
    one, _ = asked("depth", Space((), METRIC), small, block_image(), flip=True)
    assert one.value.shape == (2, 3)
    whole, _ = asked("depth", *SPACES["depth"], block_image(), (2.0,))  # as large as what was seen: as the image, then
    assert whole.value.shape == (H, W)


def test_an_answer_that_is_unfit_in_one_view_is_no_answer():
    """A median would hide NaN."""

    def bad(seen):
        value = torch.ones(seen.shape[1:]) * (math.nan if seen[0, 0, 0] < 9 else 1)
        return DepthTarget(value, torch.ones(seen.shape[1:], dtype=torch.bool))

    image = torch.zeros(3, H, W, dtype=torch.uint8)
    image[0, 0, 0] = 20
    with pytest.raises(ValueError, match="value is NaN or infinite"):
        asked("depth", Space((), METRIC), bad, image, flip=True)


def test_few_images_are_held_at_a_time_and_all_are_answered(monkeypatch):
    monkeypatch.setattr("polyteach.labelling.varied.HELD", 2.5 * 2 * H * W)
    batches = []

    class Counted(Fake):
        def __call__(self, images):
            batches.append(len(images))
            return super().__call__(images)

    teacher = Counted("classification", *SPACES["classification"])
    images = noise(5, (H, W))
    answers = Varied(teacher, (1.0,), True)(images)
    assert batches == [2, 2, 2, 2, 1, 1]
    for image, answer in zip(images, answers, strict=True):
        torch.testing.assert_close(
            answer["classification"].probability, SPACES["classification"][1](image.float()).probability
        )


MORE = """
class Left(Mean):
    # by the left half alone
    def __call__(self, images):
        return super().__call__([i[:, :, : i.shape[2] // 2] for i in images])

def left(device, precision): return Left()
"""


def test_a_store_is_labelled_so_and_says_so(tmp_path, capsys):
    spec = teacher_in(tmp_path, MORE)
    images = noise(6, (H, W))
    store = store_of(tmp_path / "s", images)
    given = {"teachers": {"a": spec + "left"}, "flip": True, "progress": False}
    polyteach.label(str(store.path), **given)
    told_ = capsys.readouterr().err
    assert (
        "a is asked 2 times about each image (as it is and mirrored, at its own size), 2 times as many pixels" in told_
    )
    for image, answer in zip(images, answers_of(store, "a"), strict=True):
        halves = [image[:, :, : W // 2], image[:, :, W // 2 :]]
        mean = sum((h.float().mean((1, 2)) / 20).softmax(0) for h in halves) / 2
        torch.testing.assert_close(answer.probability, mean, atol=1e-3, rtol=0)
    [labels] = Store.open(store.path).sets()
    assert labels.info["views"] == {"flip": True, "scales": [1.0]}
    record = json.loads((labels.path / "label.json").read_text())
    assert (record["flip"], record["scales"]) == (True, [1.0])
    polyteach.label(str(store.path), **given)  # the same again
    with pytest.raises(
        ValueError, match=r"was made otherwise: info\.views was .*'flip': True.*, is None\. Use another name"
    ):
        polyteach.label(str(store.path), **given | {"flip": False})
    with pytest.raises(ValueError, match=r"was made otherwise: info\.views\.scales was \[1\.0\], is \[1\.0, 1\.5\]"):
        polyteach.label(str(store.path), **given | {"scales": (1.0, 1.5)})
    polyteach.label(str(store.path), teachers={"b": spec + "left"}, progress=False)
    assert "views" not in next(s for s in Store.open(store.path).sets() if s.name == "b").info


def test_operations_of_all_views_are_counted():
    class Networked(Fake):
        network = None

        def __call__(self, images):
            self.network(images[0].float()[None])
            return super().__call__(images)

    teacher = Networked("classification", *SPACES["classification"])
    teacher.network = torch.nn.Conv2d(3, 5, 1)
    flops = []
    for one in (teacher, Varied(teacher, (1.0, 2.0), True)):
        asker = Asker(one, {}, "cpu")
        asker.timed(noise(2, (H, W)))
        flops.append(asker.flops)
    assert flops == [2 * 3 * 5 * H * W, 2 * 3 * 5 * H * W * 2 * (1 + 4)]


def test_what_is_refused(monkeypatch):
    for bad in ((), (1.0, 1.0), (0.0,), (5.0,), (float("nan"),)):
        with pytest.raises(ValueError, match=r"scales must be different numbers from 0\.1 to 4"):
            Asking(scales=bad)
    plain = Fake("classification", *SPACES["classification"])
    assert varied(plain, "a", Asking()) is plain
    monkeypatch.setattr(type(load_task("classification")), "combines", frozenset({"best"}))
    with pytest.raises(
        ValueError, match=r"a: flip and scales put several answers .* those of classification cannot be"
    ):
        varied(plain, "a", Asking(flip=True))
    assert told("a", Asking(scales=(0.5, 1.0), flip=True)) == (
        "a is asked 4 times about each image (as it is and mirrored, at 0.5, 1 times its size), 2.5 times as many "
        "pixels in all"
    )
