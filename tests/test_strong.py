"""benchmarks/strong.py: its arithmetic on made-up figures, by hand; and photographs' labels, read as they are."""

import io
import json
import math
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

HERE = Path(__file__).resolve().parents[1] / "benchmarks"
T2 = 4.302652729911275
"""The 97.5th percentile of Student's t with 2 degrees of freedom, from a printed table (4.303), to more digits."""


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def test_the_interval_over_seeds_by_hand():
    from strong_summary import over_seeds

    found = over_seeds([1.0, 2.0, 3.0])  # standard deviation 1
    assert (found.mean, found.count) == (2.0, 3)
    assert found.high - 2 == pytest.approx(T2 / math.sqrt(3))
    assert 2 - found.low == pytest.approx(T2 / math.sqrt(3))
    one = over_seeds([7.0])
    assert one.mean == 7
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    with pytest.raises(ValueError, match="no values"):
        over_seeds([])


def test_differences_are_paired_by_seed():
    from strong_summary import paired

    # what seeds share, 0, 10 and 20, cancels: each pair differs by 1, 2 and 0
    first, second = {2: 29.0, 0: 5.0, 1: 17.0}, {0: 4.0, 1: 15.0, 2: 29.0}
    found = paired(first, second)
    assert found.mean == pytest.approx(1)
    assert found.high == pytest.approx(1 + T2 / math.sqrt(3))
    assert paired(second, first).mean == pytest.approx(-1)
    only = paired({0: 5.0, 7: 100.0}, {0: 4.0, 8: -100.0})
    assert (only.mean, only.count) == (1.0, 1)
    assert paired({0: 1.0}, {1: 1.0}) is None


def made_up(missing=()):
    """Scores of one checkpoint, one test for each seed, arm and set: arm k is k points above the first."""
    from strong import ARMS, TRANSFERS
    from strong_summary import Found

    return [
        Found("imagenet", arm, seed, f"{how}", 50.0 + k + 10 * seed + 5 * (how.mode == "linear"))
        for k, arm in enumerate(ARMS)
        for seed in (0, 1, 2)
        for how in TRANSFERS
        if not (arm == "longer" and how.mode == "linear") and (arm, seed) not in missing
    ]


def test_scores_by_seed_and_their_average():
    from strong import TRANSFERS
    from strong_summary import average, scores

    found, [camvid, nyu] = made_up(), [f"{how}" for how in TRANSFERS[1:3]]
    assert scores(found, "imagenet", "must", nyu) == {0: 53, 1: 63, 2: 73}
    assert scores(found, "simclr", "must", nyu) == {}
    higher = [replace(f, score=f.score + 4) if f.test == camvid else f for f in found if (f.test, f.seed) != (nyu, 2)]
    assert average(higher, "imagenet", "must", [camvid, nyu]) == {0: 55, 1: 65}  # of seed 2 there is one test alone
    with pytest.raises(ValueError, match=r"two scores of imagenet, must, .*, seed 1"):
        scores([*found, found[[f.arm for f in found].index("must") + 4]], "imagenet", "must", f"{TRANSFERS[0]}")


def test_the_tables_say_what_was_found():
    from strong import CHECKPOINTS, section

    lines = [*section(made_up(), CHECKPOINTS[0])]
    reach = 10 * T2 / math.sqrt(3)
    mean = f"{60.0:.1f} [{60 - reach:.1f}, {60 + reach:.1f}]"
    probe = f"{65.0:.1f} [{65 - reach:.1f}, {65 + reach:.1f}]"
    assert f"| as it is | {probe} | {mean} | {mean} | {mean} | {mean} |" in lines
    same = "+3.0 [+3.0, +3.0]"
    assert f"| must - as it is | {' | '.join([same] * 5)} |" in lines
    assert "| longer - as it is | - | " + " | ".join(["+1.0 [+1.0, +1.0]"] * 4) + " |" in lines
    fewer = [*section(made_up(missing=[("must", 1), ("must", 2)]), CHECKPOINTS[0])]
    assert [*section(made_up(), CHECKPOINTS[1])][2] == "Nothing is finished."
    assert f"| must - as it is | {' | '.join(['+3.0 (one seed)'] * 5)} |" in fewer


def test_an_unfinished_set_is_in_no_average():
    from strong import ARMS, TRANSFERS
    from strong_summary import columns

    nyu = f"{TRANSFERS[2]}"
    found = [f for f in made_up() if not (f.test == nyu and f.arm == "must")]
    found = [replace(f, score=0.0) if f.test == nyu else f for f in found]
    by_test = columns(found, "imagenet", [f"{how}" for how in TRANSFERS], ARMS)
    assert by_test[nyu]["must"] == {}
    assert by_test["mean of what is fine-tuned"]["must"] == {0: 53, 1: 63, 2: 73}


def test_the_rate_is_the_best_on_validation_images_and_of_equal_ones_the_smaller(tmp_path):
    from strong import CHECKPOINTS, FILE, PROBE, Scale, continued_rate, rates, test_of
    from strong_summary import rate_lines

    much, checkpoint = Scale(rates=(0.1, 0.01), seeds=(4,)), CHECKPOINTS[0]

    def tried(rate, *validation):
        folder = tmp_path / test_of(checkpoint, "must", rate, 4, PROBE)
        folder.mkdir(parents=True, exist_ok=True)
        sweep = [{"validation": v} for v in validation]
        (folder / FILE).write_text(json.dumps({"results": [{"sweep": sweep, "mean": 0.0}]}))

    tried(0.1, 40.0, 60.0)
    assert continued_rate(tmp_path, checkpoint, "must", much) is None
    tried(0.01, 60.0, 59.0)
    assert continued_rate(tmp_path, checkpoint, "must", much) == 0.01
    tried(0.1, 40.0, 60.5)
    assert continued_rate(tmp_path, checkpoint, "must", much) == 0.1
    assert continued_rate(tmp_path, checkpoint, "must and features", much) == 0.1
    assert continued_rate(tmp_path, checkpoint, "self-supervised", much) is None
    folder = tmp_path / test_of(checkpoint, "as it is", None, 4, PROBE)
    folder.mkdir(parents=True)
    (folder / FILE).write_text(json.dumps({"results": [{"sweep": [{"validation": 62.0}], "mean": 0.0}]}))
    lines = [*rate_lines(rates(tmp_path, much), "as it is")]
    assert lines[2:] == ["| imagenet: must: training | 0.01: 60.0, 0.1: 60.5 | 0.1 | 62.0 |"]


def test_self_supervision_sees_as_many_images_as_the_student():
    from strong import Scale

    much = Scale()
    assert abs(much.contrasts * much.contrast - much.steps * much.batch) < much.contrast
    assert much.steps * much.batch <= much.pool  # no image is seen twice


def test_costs_are_means_over_seeds():
    from strong_summary import costs

    lines = [
        *costs({
            "imagenet: must: train, rate 0.1, seed 0": 10.0, "imagenet: must: train, rate 0.1, seed 1": 20.0,
            "imagenet: must: finetune nyu, rate 0.1, seed 0": 7.0, "imagenet: as it is: finetune nyu, seed 0": 5.0,
            "label: boxes": 3.0, "imagenet: another: write, seed 0": 1.0, "imagenet: another: write, seed 1": 2.0,
        }, ("as it is", "must"))
    ]  # fmt: skip
    assert lines[0] == "| checkpoint | arm | train | finetune nyu |"
    assert lines[2:4] == ["| imagenet | must | 15 | 7 |", "| imagenet | as it is | - | 5 |"]
    assert lines[-3:] == ["| label: boxes | 3 |", "| imagenet: another: write | 3 |", "| all of this page | 48 |"]


def photograph(file, size=(32, 24)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 99, 199)).save(file)


def number_map(file, values):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=np.uint8)).save(file)


def test_classes_of_pixels_and_metres(tmp_path):
    from strong_data import ROADS, fill_camvid, fill_nyu

    from polyteach.store import Store
    from polyteach.tasks.segmentation import IGNORE

    values = np.zeros((24, 32))
    values[:12] = 8
    values[12:, :8] = 11
    for split in ("train", "val", "test"):
        photograph(tmp_path / f"camvid/{split}/a.png")
        number_map(tmp_path / f"camvid/{split}annot/a.png", values)
    fill_camvid(tmp_path / "camvid", tmp_path / "roads")
    [labels] = Store.open(tmp_path / "roads").sets()
    answers = labels.read(0)
    assert [r.split for r in labels.store.images(0)] == ["train", "val", "test"]
    assert labels.space.names == ROADS
    assert ROADS[8] == "car"
    for answer in answers:
        assert answer.category[0].tolist() == [8] * 32
        assert answer.category[20].tolist() == [IGNORE] * 8 + [0] * 24
        assert answer.probability[20].tolist() == [0] * 8 + [1] * 24

    for split in ("train", "test"):
        photograph(tmp_path / f"nyu/{split}/image/0001.png", (288, 24))
        number_map(tmp_path / f"nyu/{split}/depth8/0001.png", np.tile([[0], [25]], (12, 288)))
    fill_nyu(tmp_path / "nyu", tmp_path / "rooms")
    [labels] = Store.open(tmp_path / "rooms").sets()
    assert [(r.height, r.width) for r in labels.store.images(0)] == [(12, 144)] * 2
    for answer in labels.read(0):
        known = answer.value[answer.valid]
        torch.testing.assert_close(known, torch.full_like(known, 1.0), atol=1e-3, rtol=0)
        assert not answer.value[~answer.valid].any()


def test_labels_that_are_none_are_refused(tmp_path):
    from strong_data import fill_camvid, fill_nyu

    for split in ("train", "val", "test"):
        photograph(tmp_path / f"{split}/a.png")
        number_map(tmp_path / f"{split}annot/a.png", np.full((24, 32), 12))
    with pytest.raises(ValueError, match="12 is no class of CamVid's"):
        fill_camvid(tmp_path, tmp_path / "store")
    for split in ("train", "test"):
        (tmp_path / f"rooms/{split}/image").mkdir(parents=True)
    with pytest.raises(ValueError, match="no photographs for the split train"):
        fill_nyu(tmp_path / "rooms", tmp_path / "store")


def test_the_pool_has_nothing_of_a_downstream_source_and_is_the_same_in_any_order(tmp_path):
    from strong_data import take_pool

    names = [f"{folder}/{i}.jpg" for folder in ("caltech", "coco", "clothing") for i in range(20)]

    def packed(name, order):
        with tarfile.open(tmp_path / name, "w") as tar:
            for member in order:
                about = tarfile.TarInfo(member)
                about.size = len(member)
                tar.addfile(about, io.BytesIO(member.encode()))
        return tmp_path / name

    def taken(archive, count):
        folder = tmp_path / f"from-{archive.name}-{count}"
        take_pool(archive, folder, count, ("caltech",))
        return {f"{f.relative_to(folder)}" for f in folder.rglob("*.jpg")}

    first = taken(packed("a.tar", names), 10)
    assert len(first) == 10
    assert taken(packed("b.tar", names[::-1]), 10) == first
    every = taken(tmp_path / "a.tar", 40)
    assert first < every
    assert {n.partition("/")[0] for n in every} == {"coco", "clothing"}
    with pytest.raises(ValueError, match="has 40 photographs, and 41 are wanted"):
        taken(tmp_path / "a.tar", 41)


def test_statistics_of_one_network_with_the_weights_of_another():
    from strong_statistics import mixed

    mine = {"conv.weight": torch.tensor(1.0), "bn.running_mean": torch.tensor(2.0), "bn.weight": torch.tensor(3.0)}
    theirs = {k: v + 10 for k, v in mine.items()}
    found = mixed(mine, theirs)
    assert {k: float(v) for k, v in found.items()} == {"conv.weight": 1, "bn.running_mean": 12, "bn.weight": 3}
    with pytest.raises(ValueError, match=r"two networks: bn\.weight"):
        mixed(mine, {k: v for k, v in theirs.items() if k != "bn.weight"})


def test_statistics_are_measured_on_all_batches_alike_and_weights_stay(tmp_path):
    from strong_statistics import backbone_of, backbone_state, measure

    student = backbone_of("test_resnet", None, 32)
    before = {k: v.clone() for k, v in backbone_state(student).items()}
    batches = torch.randint(0, 255, (2, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    module = next(m for m in student.modules() if isinstance(m, torch.nn.BatchNorm2d))
    [name] = [k for k, m in student.backbone.named_modules() if m is module]
    seen = []
    hook = module.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    measure(student, batches)
    hook.remove()
    after = backbone_state(student)
    mean = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variance = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen]).mean(0)
    torch.testing.assert_close(after[f"{name}.running_mean"], mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after[f"{name}.running_var"], variance, atol=1e-5, rtol=1e-4)
    for key, value in before.items():
        assert "running_" in key or "num_batches" in key or torch.equal(after[key], value), key
    assert module.momentum == 0.1
    assert not student.backbone.training
