"""Batches: who wins, what is absent, every image once per epoch, the same stream whatever the workers."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as kernels

from polyteach.curation.check import faults
from polyteach.ground.geometry import random_view
from polyteach.ground.scene import random_scene, render
from polyteach.loading import plan as plan_module
from polyteach.loading import reader, transport
from polyteach.loading.plan import plan
from polyteach.loading.reader import unlearnable
from polyteach.loading.sampler import WINDOW, Sampler
from polyteach.loading.samples import Samples
from polyteach.loading.transport import batches
from polyteach.loading.views import PHOTOMETRIC, Augment, photometric
from polyteach.store import ImageRow, Store
from polyteach.tasks import all_tasks, load_task
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Policy, Space
from polyteach.tasks.detection import DetectionTarget, rows
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget
from polyteach.verbs.store.repair import repair
from tests import worlds
from tests.worlds import answer_to, png, rows_of

ABC = Space(("a", "b", "c"))
PLAIN = Augment((32, 32), (1.0, 1.0), 0.0)


def soft(*p):
    return ClassificationTarget(probability=torch.tensor(p, dtype=torch.float32))


def store_of(path, count, part_size=100, side=16, split=lambda i: None, prefix=""):
    """A store of `count` grey images whose brightness is their number."""
    greys = [torch.full((3, side, side), i % 256, dtype=torch.uint8) for i in range(count)]
    return worlds.store_of(path, rows_of(greys, split=split, prefix=prefix), part_size)


def label(store, name, answers, task="classification", space=ABC, info=None):
    labels = store.create_set(task, name, space, info or {})
    for part in store.parts():
        ids = [r.id for r in store.images(part, data=False)]
        labels.write(part, ids, answers[part * store.part_size :][: len(ids)])
    return labels


def samples(chosen, augment=PLAIN, policy=None, seed=0):
    return Samples(chosen, augment, policy or Policy(), seed)


def by_id(chosen, policy=None):
    """One epoch: id -> objective -> target."""
    s = samples(chosen, policy=policy)
    seen = [s[i] for i in range(len(chosen))]
    return {x.id: x.targets for x in seen}


def test_label_sets_of_one_space_share_an_objective_across_stores(tmp_path):
    one, two = store_of(tmp_path / "1", 2), store_of(tmp_path / "2", 2)
    label(one, "big", [soft(1, 0, 0)] * 2)
    label(two, "small.v2", [soft(0, 1, 0)] * 2)
    label(two, "other", [soft(0, 1)] * 2, space=Space(("a", "b")))
    label(two, "big", [soft(0, 1)] * 2, space=Space(("c", "d")))
    chosen = plan([one, two])
    assert {k: o.space.names for k, o in chosen.objectives.items()} == {
        "classification_big": ("a", "b", "c"),
        "classification_big_2": ("c", "d"),
        "classification_other": ("a", "b"),
    }
    assert [[s.name for s in mine] for mine in chosen.sets["classification_big"]] == [["big"], ["small.v2"]]
    assert chosen.labelled == {"classification_big": 4, "classification_big_2": 2, "classification_other": 2}
    assert "." not in next(iter(plan([two], labels=["small.v2"]).objectives))


def test_people_win_then_the_order_given_and_absent_adds_nothing(tmp_path):
    store = store_of(tmp_path / "s", 5)
    a, b, p = soft(0.75, 0.25, 0), soft(0.25, 0.5, 0.25), soft(0, 0, 1.0)
    label(store, "aaa", [a, a, None, "failed: blurry", None])
    label(store, "bbb", [b, b, b, b, None])
    label(store, "people", [p, None, "failed: no", None, None])
    chosen = plan([store])
    (name,) = chosen.objectives
    assert len(chosen) == 4  # the fifth has no label at all
    assert chosen.unlabelled == 1
    got = {k: t[name].probability.tolist() for k, t in by_id(chosen).items()}
    assert got == {"0": [0, 0, 1], "1": [0.75, 0.25, 0], "2": [0.25, 0.5, 0.25], "3": [0.25, 0.5, 0.25]}
    swapped = by_id(plan([store], labels=["bbb", "people", "classification/aaa"]))
    assert swapped["1"]["classification_bbb"].probability.tolist() == [0.25, 0.5, 0.25]
    assert swapped["0"]["classification_bbb"].probability.tolist() == [0, 0, 1]
    alone = plan([store], labels=["people"])
    assert (len(alone), alone.unlabelled) == (1, 4)


def test_the_policy_is_for_pseudo_labels_only(tmp_path):
    store = store_of(tmp_path / "s", 2)
    label(store, "teacher", [None, soft(0.25, 0.5, 0.25)])
    label(store, "people", [soft(0.5, 0.5, 0), None])
    got = by_id(plan([store]), Policy(soft=False))
    assert got["0"]["classification_people"].probability.tolist() == [0.5, 0.5, 0]
    assert got["1"]["classification_people"].probability.tolist() == [0, 1, 0]


def test_an_image_may_carry_some_objectives_only(tmp_path):
    store = store_of(tmp_path / "s", 2)
    label(store, "x", [soft(1, 0, 0), None])
    label(store, "y", [None, soft(1, 0)], space=Space(("a", "b")))
    got = by_id(plan([store]))
    assert {k: [n for n, t in ts.items() if t is not None] for k, ts in got.items()} == {
        "0": ["classification_x"],
        "1": ["classification_y"],
    }


def test_a_set_that_lacks_parts_is_absent_there(tmp_path):
    store = store_of(tmp_path / "s", 4, part_size=2)
    labels = store.create_set("classification", "x", ABC, {})
    labels.write(1, ["2", "3"], [soft(1, 0, 0)] * 2)
    assert set(by_id(plan([store]))) == {"2", "3"}


def test_splits(tmp_path):
    store = store_of(tmp_path / "s", 6, split=lambda i: "train" if i % 2 else "val")
    label(store, "x", [soft(1, 0, 0)] * 6)
    assert set(by_id(plan([store], split="train"))) == {"1", "3", "5"}
    assert set(by_id(plan([store], split=["train", "val"]))) == set("012345")
    assert set(by_id(plan([store], split=["train"], only={"0", "1"}))) == {"1"}
    with pytest.raises(ValueError, match="no image has split 'test'; there are train, val"):
        plan([store], split="test")


def test_errors_list_what_there_is(tmp_path):
    empty, store = store_of(tmp_path / "e", 1), store_of(tmp_path / "s", 1)
    label(store, "x", [soft(1, 0, 0)])
    label(store, "nothing", [None])
    with pytest.raises(ValueError, match="no label sets"):
        plan([store, empty])
    with pytest.raises(ValueError, match="unknown label set 'y'; the stores have nothing, x"):
        plan([store], labels=["y"])
    with pytest.raises(ValueError, match="unknown task 'seg'; the stores have classification"):
        plan([store], tasks=["seg"])
    with pytest.raises(ValueError, match="no image is labelled for classification_nothing"):
        plan([store], labels=["nothing"])
    begun = Store.create(tmp_path / "begun", 4)
    label(begun, "x", [])  # an ingest that was stopped before its first part
    with pytest.raises(ValueError, match=r"begun has no images; finish: polyteach ingest SOURCE"):
        plan([store, begun])
    label(empty, "z", [soft(1, 0, 0)])
    with pytest.raises(ValueError, match="has none of the label sets asked for; it has classification/z"):
        plan([store, empty], labels=["x"])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=90), st.integers(0, 2**40), st.integers(0, 3))
def test_every_image_once_per_epoch_by_random_access(sizes, seed, epoch):
    start = np.concatenate([[0], np.cumsum(sizes)])
    order, n = Sampler(start, seed), sum(sizes)
    seen = [order.at(epoch * n + i) for i in range(n)]
    assert {e for e, _ in seen} == {epoch}
    assert sorted(i for _, i in seen) == list(range(n))
    again = Sampler(start, seed)
    for i in random.Random(seed).sample(range(n), min(n, 10)):
        assert again.at(epoch * n + i) == seen[i]


def test_epochs_and_seeds_differ():
    start = np.array([0, 64, 128])
    one, other = Sampler(start, 0), Sampler(start, 1)
    streams = [[o.at(e * 128 + i)[1] for i in range(128)] for o in (one, other) for e in (0, 1)]
    assert len({tuple(s) for s in streams}) == 4


def test_epochs_order_row_groups_and_images_anew():
    start = 64 * np.arange(2 * WINDOW + 1)  # two windows
    order, n = Sampler(start, 0), int(start[-1])
    first, second = ([order.at(e * n + i)[1] for i in range(n // 2)] for e in (0, 1))
    assert {i // 64 for i in first} != {i // 64 for i in second}  # which row groups the first window has
    start = np.array([0, 64])  # one row group: only what is within it can change
    order = Sampler(start, 0)
    first, second = ([order.at(e * 64 + i)[1] for i in range(64)] for e in (0, 1))
    assert first != second


def test_every_epoch_has_another_view_of_an_image(tmp_path):
    store = store_of(tmp_path / "s", 1)
    task = load_task("segmentation")
    space = Space(("red", "green", "blue"))
    label(store, "people", [task.truth(render(random_scene(3, (16, 16))), space)], "segmentation", space)
    s = samples(plan([store]), Augment((32, 32)))
    views = [s[epoch].targets["segmentation_people"].category for epoch in range(4)]
    assert not any(torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])


def test_places_are_uniform():
    """Over many seeds each image comes first about equally often: chi-square against the uniform."""
    start = np.array([0, 3, 4, 9])  # row groups of unlike sizes
    first = np.bincount([Sampler(start, seed).at(0)[1] for seed in range(1800)], minlength=9)
    assert ((first - 200) ** 2 / 200).sum() < 26.1  # 99.9 % of chi-square with 8 degrees


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_is_the_same_for_any_workers_and_start(tmp_path, workers):
    one, two = store_of(tmp_path / "1", 70, part_size=66), store_of(tmp_path / "2", 9, prefix="b")
    label(one, "x", [soft(i / 128, 1 - i / 128, 0) for i in range(70)])
    label(two, "x", [soft(0, 0, 1)] * 9)
    s = samples(plan([one, two]), Augment((32, 32), (0.5, 2.0), 0.5, 5.0))
    whole = list(batches(s, 8, 0, 20))
    got = list(batches(s, 8, 3, 20, workers))
    for a, b in zip(whole[3:], got, strict=True):
        assert a.ids == b.ids
        assert torch.equal(a.images, b.images)
        for x, y in zip(a.targets["classification_x"], b.targets["classification_x"], strict=True):
            assert torch.equal(x.probability, y.probability)
    ids = [i for b in whole for i in b.ids]
    every = sorted([str(i) for i in range(70)] + [f"b{i}" for i in range(9)])
    assert sorted(ids[:79]) == sorted(ids[79:158]) == every
    assert ids[:79] != ids[79:158]


def test_what_a_worker_sends_is_what_it_made(tmp_path):
    """Bit for bit, of every task, with images without a target, with no boxes, and with text that is no ASCII."""
    store = store_of(tmp_path / "s", 6, side=32, prefix="ü")
    for task in all_tasks():
        space = Space(("cat", "dog", "sky"), load_task(task).kinds[0])
        answers = [answer_to(load_task(task), render(random_scene(i, (32, 32))), space) for i in range(6)]
        answers[3] = None
        if task == "detection":
            answers[2] = rows(answers[2], torch.zeros(len(answers[2].box), dtype=torch.bool))
        label(store, "x", answers, task, space)
    s = samples(plan([store]), Augment((16, 24), (0.5, 2.0)))
    made = [s[i] for i in range(6)]
    images, (targets, ids, rejects) = transport._gathered(made)
    sent_images, packed = transport._packed(made)
    sent, sent_ids, sent_rejects = transport._unpacked(packed)
    assert torch.equal(images, sent_images)
    assert (ids, rejects) == (sent_ids, sent_rejects)
    assert set(targets) == set(sent)
    for name, answers in targets.items():
        for a, b in zip(answers, sent[name], strict=True):
            assert type(a) is type(b)
            for key, value in vars(a).items() if a is not None else ():
                other = getattr(b, key)
                assert (value is None) == (other is None)
                if value is not None:
                    assert value.dtype == other.dtype
                    assert torch.equal(value, other)
                    other.zero_()  # it is the receiver's own


def test_torch_and_numpy_global_random_states_are_left_alone(tmp_path):
    store = store_of(tmp_path / "s", 4)
    label(store, "x", [soft(1, 0, 0)] * 4)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(batches(samples(plan([store]), Augment((32, 32), magnitude=9.0)), 2, 0, 4))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_a_small_cache_changes_nothing(tmp_path, monkeypatch):
    store = store_of(tmp_path / "s", 200, part_size=150)
    label(store, "x", [soft(i / 256, 1 - i / 256, 0) for i in range(200)])
    chosen = plan([store])
    expected = list(batches(samples(chosen), 10, 0, 20))
    monkeypatch.setattr(reader, "CACHE", 1)
    s = samples(chosen)
    for a, b in zip(expected, batches(s, 10, 0, 20), strict=True):
        assert a.ids == b.ids
        assert torch.equal(a.images, b.images)
    assert len(s._kept) == 1


@pytest.mark.parametrize(("room", "decodings"), [(2**20, 5), (5 * 16 * 16 * 3, 10), (0, 10)])
def test_what_fits_into_memory_is_decoded_once_and_the_samples_stay_the_same(tmp_path, monkeypatch, room, decodings):
    store = store_of(tmp_path / "s", 6)
    label(store, "people", [soft(1, 0, 0), None, *[soft(0, 1, 0)] * 4])
    wanted = [samples(plan([store]))[i] for i in range(10)]
    count, decoded = [0], Store.image

    def counted(self, row):
        count[0] += 1
        return decoded(self, row)

    monkeypatch.setattr(Store, "image", counted)
    monkeypatch.setattr(reader, "DECODED", room)
    s = samples(plan([store]))
    for i, sample in enumerate(wanted):
        again = s[i]
        assert again.id == sample.id
        assert torch.equal(again.image, sample.image)
        assert (again.targets["classification_people"] is None) == (sample.targets["classification_people"] is None)
    assert count[0] == decodings  # five with labels, two epochs


def test_a_picture_that_could_not_be_read_is_tried_again(tmp_path):
    file = tmp_path / "late.png"
    store = Store.create(tmp_path / "s", 4)
    store.write_images(0, [ImageRow("late", 16, 16, uri=str(file))])
    label(store, "people", [soft(1, 0, 0)])
    s = samples(plan([store]))
    assert isinstance(s.image(0)[1], str)
    file.write_bytes(png(torch.full((3, 16, 16), 7, dtype=torch.uint8)))
    assert torch.equal(s.image(0)[1], torch.full((3, 16, 16), 7, dtype=torch.uint8))


def test_unreadable_images_are_replaced_the_same_way(tmp_path):
    store = Store.create(tmp_path / "s", 10)
    fine = png(torch.zeros(3, 16, 16, dtype=torch.uint8))
    rows = [ImageRow(str(i), 16, 16, fine) for i in range(6)]
    rows[1] = ImageRow("1", 16, 16, b"junk")
    rows[2] = ImageRow("2", 16, 16, uri=str(tmp_path / "gone.jpg"))
    rows[3] = ImageRow("3", 16, 17, fine)
    store.write_images(0, rows)
    label(store, "x", [soft(1, 0, 0)] * 6)
    runs = [list(batches(samples(plan([store])), 3, 0, 2, workers)) for workers in (0, 1)]
    assert [b.ids for b in runs[0]] == [b.ids for b in runs[1]]
    rejects = [r for b in runs[0] for r in b.rejects]
    assert rejects == [r for b in runs[1] for r in b.rejects]
    reasons = {r["id"]: r["reason"] for r in rejects}
    assert set(reasons) == {"1", "2", "3"}
    assert "not an image" in reasons["1"]
    assert "gone.jpg" in reasons["2"]
    assert reasons["3"] == "is 16x16 now, was 17x16 when ingested"
    assert all(len(b.images) == 3 and {"1", "2", "3"}.isdisjoint(b.ids) for b in runs[0])


def test_nothing_readable_is_an_error(tmp_path):
    store = Store.create(tmp_path / "s", 10)
    store.write_images(0, [ImageRow("1", 16, 16, b"junk")])
    label(store, "x", [soft(1, 0, 0)])
    with pytest.raises(ValueError, match="100 images in a row could not be read"):
        samples(plan([store]))[0]


def test_image_and_targets_share_one_view(tmp_path):
    """The category map seen in a sample is the category map of the scene seen through that sample's view."""
    task = load_task("segmentation")
    world = render(random_scene(3, (48, 64)))
    space = Space(("red", "green", "blue"), task.kinds[0])
    truth = task.truth(world, space)
    store = Store.create(tmp_path / "s", 4)
    store.write_images(0, [ImageRow("0", 48, 64, png(world.image))])
    label(store, "people", [truth], "segmentation", space)
    s = samples(plan([store]), Augment((64, 64)), seed=5)
    mirrored = set()
    for place in range(6):
        view = random_view((48, 64), (64, 64), random.Random(f"5-{place}-0"))
        mirrored.add(view.mirrored)
        sample = s[place]
        assert torch.equal(sample.image, view.image(world.image))
        expected = task.view(truth, view)
        assert torch.equal(sample.targets["segmentation_people"].category, expected.category)
    assert mirrored == {True, False}


def test_photometric_operations(tmp_path):
    image = torch.randint(20, 200, (3, 32, 32), dtype=torch.uint8)
    draw = random.Random(0)
    assert torch.equal(photometric(image, 0.0, 2, draw), image)
    assert torch.equal(PHOTOMETRIC["solarize"](image, 0.5, draw), kernels.solarize(image, 127.5))
    assert torch.equal(PHOTOMETRIC["posterize"](image, 1.0, draw), image & 0xF0)
    for name, operation in PHOTOMETRIC.items():
        out = operation(image, 0.7, draw)
        assert out.dtype == torch.uint8, name
        assert out.shape == image.shape
        assert name == "identity" or not torch.equal(out, image)
    seen = {photometric(image, 9.0, 2, random.Random(i)).sum().item() for i in range(30)}
    assert len(seen) > 15
    assert torch.equal(photometric(image, 9.0, 2, random.Random(4)), photometric(image, 9.0, 2, random.Random(4)))


# ---- several teachers of one objective ----


def found(*boxes):
    """Detections: (x, category, score) of boxes of 8x8 at that place."""
    return DetectionTarget(
        box=torch.tensor([[x, 0, x + 8, 8] for x, _, _ in boxes], dtype=torch.float32).view(-1, 4),
        category=torch.tensor([c for _, c, _ in boxes], dtype=torch.long),
        score=torch.tensor([s for _, _, s in boxes], dtype=torch.float32),
        ignore=torch.zeros(len(boxes), dtype=torch.bool),
    )


def two_detectors(path):
    """The first by name finds nothing that is sure, the second does; people labelled the first image."""
    store = store_of(path, 4)
    space = Space(("a", "b", "c"), "boxes")
    label(store, "aaa", [found((0, 0, 0.1))] * 3 + [found((0, 0, 0.6), (8, 2, 0.9))], "detection", space)
    other = Space(("c", "b", "a"), "boxes")
    label(store, "good", [found((0, 2, 0.8), (4, 1, 0.7))] * 3 + [found((1, 2, 0.7), (1, 1, 0.6))], "detection", other)
    label(store, "people", [found((2, 1, 1.0)), None, None, None], "detection", space)
    return store


def said(target):
    """As `found` takes them, in order."""
    values = zip(target.box[:, 0].tolist(), target.category.tolist(), target.score.tolist(), strict=True)
    return sorted((round(x), c, round(p, 2)) for x, c, p in values)


@pytest.mark.parametrize(
    ("combine", "shares", "second", "fourth"),
    [
        ("first", [1, 3, 0], [], [(0, 0, 0.6), (8, 2, 0.9)]),
        ("best", [1, 3, 3], [(0, 0, 0.8), (4, 1, 0.7)], [(0, 0, 0.6), (8, 2, 0.9)]),
        # x = 1 overlaps x = 0 by 7/9 of class 0, whose better box stays; of another class it stays beside it
        ("union", [1, 3, 3], [(0, 0, 0.8), (4, 1, 0.7)], [(1, 0, 0.7), (1, 1, 0.6), (8, 2, 0.9)]),
        # what one of the two did not find, or hardly, scores half or less; x = 0.54 of both
        ("fuse", [1, 3, 3], [], [(1, 0, 0.65)]),
    ],
)
def test_teachers_are_combined_as_asked(tmp_path, combine, shares, second, fourth):
    chosen = plan([two_detectors(tmp_path / "s")], combine=combine)
    (name,) = chosen.objectives
    assert chosen.shares[name] == [shares]
    seen = samples(chosen, policy=Policy(confidence=True))
    got = {id: seen.target(i, name) for i, id in enumerate(chosen.ids())}
    assert said(got["0"]) == [(2, 1, 1.0)]  # people's, alone
    assert said(got["1"]) == second
    assert said(got["3"]) == fourth


def test_the_surest_detector_is_the_one_that_expects_to_have_found_the_most_objects():
    task, policy = load_task("detection"), Policy(score=0.5)
    assert task.sureness(found((0, 0, 0.6), (8, 0, 0.7)), policy) == pytest.approx(1.3)
    assert task.sureness(found((0, 0, 0.9), (8, 0, 0.4)), policy) == pytest.approx(0.9)  # what is learned of it
    assert task.sureness(found(), policy) == 0


def test_the_order_of_the_labels_decides_who_is_first(tmp_path):
    chosen = plan([two_detectors(tmp_path / "s")], labels=["good", "aaa", "people"])
    (name,) = chosen.objectives
    assert [s.name for s in chosen.sets[name][0]] == ["people", "good", "aaa"]
    assert chosen.shares[name] == [[1, 3, 0]]


def test_what_cannot_be_combined_is_refused(tmp_path):
    store = two_detectors(tmp_path / "s")
    with pytest.raises(ValueError, match="combine must be first, best, union or fuse; got 'mean'"):
        plan([store], combine="mean")
    with pytest.raises(ValueError, match="combine=best changes nothing: no objective has two teachers"):
        plan([store], labels=["aaa", "people"], combine="best")
    task = load_task("depth")
    truth = task.truth(render(random_scene(0, (16, 16))), Space(("a",), "metric"))
    for name in ("one", "two"):
        label(store, name, [truth] * 4, "depth", Space((), "metric"))
    with pytest.raises(ValueError, match=r"answers of depth \(depth_one: depth/one, depth/two\) cannot be combined"):
        plan([store], combine="union")
    assert plan([store], labels=["aaa", "good", "one"], combine="union").combine == "union"


def test_classes_and_pixels_of_two_teachers(tmp_path):
    """The mean of the probabilities; of every pixel the more probable class, maps of any resolution."""
    store = store_of(tmp_path / "s", 1)
    label(store, "x", [soft(0.5, 0.25, 0.25)])
    label(store, "y", [soft(0, 0.75, 0.25)])
    small = SegmentationTarget(category=torch.tensor([[0, IGNORE]] * 2), probability=torch.tensor([[0.6, 0.0]] * 2))
    large = SegmentationTarget(
        category=torch.tensor([[1, 1, 1, 2]] * 4), probability=torch.tensor([[0.8, 0.2, 0.2, 1.0]] * 4)
    )
    label(store, "x", [small], "segmentation")
    label(store, "y", [large], "segmentation")
    union = samples(plan([store], combine="union"), policy=Policy(score=0.0))
    assert union.target(0, "classification_x").probability.tolist() == [0.25, 0.5, 0.25]
    seen = union.target(0, "segmentation_x").category
    assert seen.tolist() == [[1, 0, 1, 2]] * 4
    best = samples(plan([store], combine="best"), policy=Policy(score=0.5, confidence=True))
    assert best.target(0, "classification_x").probability.tolist() == [0, 0.75, 0.25]
    # mean probability of what is above the threshold: 0.3 against 0.45
    assert best.target(0, "segmentation_x").category.tolist() == [[1, IGNORE, IGNORE, 2]] * 4


def test_where_nothing_can_be_learned_is_found_by_looking_at_few(tmp_path, monkeypatch):
    store = store_of(tmp_path / "s", 6, part_size=2)
    space = Space(("a", "b"), "boxes")
    crowd = replace(found((0, 0, 1.0)), ignore=torch.tensor([True]))
    label(store, "people", [crowd, crowd, None, found(), crowd, None], "detection", space)
    unknown = SegmentationTarget(category=torch.full((2, 2), IGNORE), probability=torch.zeros(2, 2))
    one = SegmentationTarget(category=torch.tensor([[IGNORE, 1]]), probability=torch.ones(1, 2))
    label(store, "people", [unknown] * 5 + [one], "segmentation")
    chosen = plan([store])
    known, likely = unlearnable(chosen, Policy())
    assert likely == {}
    assert known == {
        "detection_people": "detection_people (of detection/people): 3 images with nothing but crowds and other "
        "ignored objects, 1 images with no object"
    }
    monkeypatch.setattr(plan_module, "LOOK", 3)
    known, likely = unlearnable(plan([store]), Policy())
    assert known == {}
    assert "segmentation_people (of segmentation/people): 3 images with nothing but ignored pixels" in likely.values()
    assert sorted(likely) == ["detection_people", "segmentation_people"]


def test_a_threshold_that_leaves_nothing_leaves_nothing_to_learn(tmp_path):
    store = store_of(tmp_path / "s", 2)
    label(store, "t", [found((0, 0, 0.4))] * 2, "detection", Space(("a", "b"), "boxes"))
    assert list(unlearnable(plan([store]), Policy(score=0.5))[0]) == ["detection_t"]
    assert unlearnable(plan([store]), Policy(score=0.3)) == ({}, {})


UNFIT = {
    "detection": ("box is not finite", {"box": torch.tensor([[0, float("nan"), 9, 9]])}),
    "classification": ("probability must be finite and >= 0", {"probability": torch.tensor([50.0, -49.0, 0.0])}),
    "depth": ("value is NaN or infinite at 2 valid pixels", {"value": torch.tensor([[1.0, float("inf")]] * 2)}),
    "segmentation": ("category 7 is not in the space", {"category": torch.tensor([[0, 7]] * 2)}),
    "normals": ("normal must have length 1", {"normal": torch.full((3, 2, 2), 0.1)}),
}


def kept(task):
    """A label set's row of a fit target of a square picture."""
    sure = torch.ones(2, 2)
    whole = {
        "detection": {
            "box": torch.tensor([[0, 0, 9, 9.0]]), "category": torch.tensor([1]), "score": torch.ones(1),
            "ignore": torch.zeros(1, dtype=torch.bool),
        },
        "classification": {"probability": torch.tensor([1.0, 0, 0])},
        "depth": {"value": sure, "valid": sure.bool()},
        "segmentation": {"category": torch.zeros(2, 2, dtype=torch.long), "probability": sure},
        "normals": {"normal": torch.tensor([0, 0, 1.0])[:, None, None].expand(3, 2, 2), "valid": sure.bool()},
    }  # fmt: skip
    return whole[task]


@pytest.mark.parametrize("task", UNFIT)
def test_nothing_is_learned_from_what_check_refuses(task, tmp_path):
    """The training stops, and says where the label is and what to do; `check` says the same, and `repair` mends it."""
    store, kind = store_of(tmp_path / "s", 4), load_task(task)
    space = Space(() if task in ("depth", "normals") else ABC.names, kind.kinds[-1])
    target, (reason, wrong) = kind.target, UNFIT[task]
    answers = [target(**kept(task)) for _ in range(4)]
    labels = label(store, "x", answers, task, space)
    assert len(by_id(plan([store]))) == 4
    answers[2] = target(**kept(task) | wrong)
    labels.write(0, list("0123"), answers)
    [fault] = faults(store)
    assert reason in str(fault)
    with pytest.raises(ValueError, match=f"part-00000.parquet: target of '2': {reason}.*polyteach store check .*/s, "):
        by_id(plan([store]))
    with pytest.raises(ValueError, match=f"target of '2': {reason}"):
        labels.read(0)
    repair(store.path, progress=False)
    assert sorted(by_id(plan([store]))) == ["0", "1", "3"]


def test_a_map_that_cannot_be_decoded_is_named_by_a_worker_without_its_traceback(tmp_path):
    store, task = store_of(tmp_path / "s", 2), load_task("segmentation")
    labels = label(store, "x", [task.target(**kept("segmentation"))] * 2, "segmentation")
    rows = [labels.encode(a) for a in labels.read(0)]
    rows[1]["category"] = b"no picture"
    labels.write_encoded(0, ["0", "1"], rows)
    with pytest.raises(ValueError, match="target of '1': category: a map is neither") as e:
        list(batches(samples(plan([store])), 2, 0, 1, workers=1))
    assert "Traceback" not in str(e.value)


def test_an_answer_of_another_image_is_not_learned(tmp_path):
    store = store_of(tmp_path / "s", 2)
    labels = store.create_set("classification", "x", ABC, {})
    labels.write(0, ["1", "0"], [soft(1, 0, 0)] * 2)
    with pytest.raises(ValueError, match=r"target of '[01]': it is of image '[01]'"):
        by_id(plan([store]))
