"""Self-supervised learning: the losses as the papers write them, the views, and the same run however it was stopped."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss, VICRegLoss
from safetensors.torch import load_file

from polyteach.loading.plan import all_images
from polyteach.loading.transport import batches
from polyteach.model.student import Student
from polyteach.store import ImageRow, Store
from polyteach.teachers import load_teacher
from polyteach.training.pretrain import distorted, nt_xent, pairs, siamese
from polyteach.verbs.pretrain import pretrain
from tests.worlds import SMALL, png, rows_of, store_of

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(path, count=10, side=48):
    """A store of unlabelled pictures, each with a colour of its own."""
    draw = torch.Generator().manual_seed(3)
    images = [_picture(draw, side) for _ in range(count)]
    return str(store_of(path, rows_of(images, split=lambda i: "train" if i % 2 else "val")).path)


def _picture(draw, side=48):
    colour = torch.randint(256, (3, 1, 1), generator=draw)
    return (colour + torch.randint(-20, 20, (3, side, side), generator=draw)).clamp(0, 255).to(torch.uint8)


def options(**more):
    return SMALL | {"size": 32, "steps": 4, "save_every": 2} | more


# ---- losses ----


def test_nt_xent_is_equation_1_of_the_paper():
    draw = torch.Generator().manual_seed(0)
    one, other = torch.randn(5, 7, generator=draw), torch.randn(5, 7, generator=draw)
    z = np.concatenate([one.numpy(), other.numpy()]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(10):
        partner = (i + 5) % 10
        others = [k for k in range(10) if k != i]
        losses.append(-np.log(np.exp(z[i] @ z[partner] / 0.2) / sum(np.exp(z[i] @ z[k] / 0.2) for k in others)))
    assert float(nt_xent(one, other, 0.2)) == pytest.approx(np.mean(losses), abs=1e-5)
    library = SelfSupervisedLoss(NTXentLoss(temperature=0.2))(one, other)
    assert float(nt_xent(one, other, 0.2)) == pytest.approx(float(library), abs=1e-5)


def test_the_shapes_and_types_of_the_losses_are_checked():
    whole = torch.ones(4, 3, dtype=torch.int64)
    with pytest.raises(TypeCheckError):
        nt_xent(whole, whole, 0.1)
    with pytest.raises(TypeCheckError):
        nt_xent(torch.ones(4, 3), torch.ones(4, 2), 0.1)


def test_vicreg_is_the_paper_s_sum_over_neighbouring_pairs():
    torch.manual_seed(0)
    model = siamese(Student("test_resnet", {}, 8), "vicreg", 0.1).train()
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    found = float(model(images, {})["vicreg"].detach())
    with torch.no_grad():
        z = model.projector(model.student.pooled(images)).double().numpy()
    a, b = z[0::2], z[1::2]
    d = a.shape[1]
    assert d == 4 * model.student.backbone.feature_info.channels()[-1]
    same = ((a - b) ** 2).mean()
    spread = sum(np.maximum(0, 1 - np.sqrt(v.var(0, ddof=1) + 1e-4)).mean() for v in (a, b)) / 2
    covariances = [np.cov(v.T) for v in (a, b)]
    apart = sum((c**2).sum() - (np.diag(c) ** 2).sum() for c in covariances) / d
    assert found == pytest.approx(25 * same + 25 * spread + apart, rel=1e-3)


@pytest.mark.parametrize("method", ["simclr", "vicreg"])
def test_losses_are_computed_in_fp32_under_autocast(method):
    torch.manual_seed(0)
    model = siamese(Student("test_resnet", {}, 8), method, 0.1).train()
    seen = []
    model.projector.register_forward_hook(lambda module, given, z: seen.append(z.detach().float()))
    with torch.autocast("cpu", torch.bfloat16):
        found = float(model(torch.randint(256, (32, 3, 32, 32), dtype=torch.uint8), {})[method].detach())
    one, other = seen[0][0::2], seen[0][1::2]
    loss = VICRegLoss(invariance_lambda=25, variance_mu=25, covariance_v=1)
    assert found == float(nt_xent(one, other, 0.1) if method == "simclr" else loss(one, ref_emb=other))


# ---- views ----


def test_neighbours_are_two_views_of_one_image(tmp_path):
    plan = all_images([Store.open(pictures(tmp_path / "store"))])
    stream = list(batches(pairs(plan, 0, 32, (0.2, 1.0), "simclr"), 10, 0, 2))
    for batch in stream:
        assert batch.ids[0::2] == batch.ids[1::2]
        assert batch.images.shape == (10, 3, 32, 32)
        assert not any(torch.equal(a, b) for a, b in zip(batch.images[0::2], batch.images[1::2], strict=True))
    assert len({i for b in stream for i in b.ids}) == 10  # an epoch sees every image
    again = list(batches(pairs(plan, 0, 32, (0.2, 1.0), "simclr"), 10, 0, 2, workers=2))
    assert all(torch.equal(a.images, b.images) for a, b in zip(stream, again, strict=True))


def test_an_unreadable_image_is_replaced_by_one_image_not_by_two(tmp_path):
    draw = torch.Generator().manual_seed(3)
    store = Store.create(tmp_path / "store", 12)
    data = [b"broken" if i in (2, 7) else png(_picture(draw)) for i in range(12)]
    store.write_images(0, [ImageRow(f"{i}", 48, 48, d) for i, d in enumerate(data)])
    samples = pairs(all_images([Store.open(tmp_path / "store")]), 0, 32, (0.2, 1.0), "simclr")
    stream = list(batches(samples, 24, 0, 5))
    assert {r["id"] for b in stream for r in b.rejects} == {"2", "7"}
    for batch in stream:
        assert batch.ids[0::2] == batch.ids[1::2]
        assert not {"2", "7"} & set(batch.ids)


def test_a_pair_is_read_once(tmp_path, monkeypatch):
    plan = all_images([Store.open(pictures(tmp_path / "store"))])
    read, real = [], Store.image
    monkeypatch.setattr(Store, "image", lambda self, row: read.append(row.id) or real(self, row))
    ids = next(iter(batches(pairs(plan, 0, 32, (0.2, 1.0), "simclr"), 20, 0, 1))).ids
    assert read == ids[0::2]


def test_a_view_follows_from_its_draw_and_leaves_the_global_state_alone():
    pixels = _picture(torch.Generator().manual_seed(1))
    before = torch.get_rng_state()
    one = distorted(pixels, random.Random("a"), 32, (0.08, 1.0), "vicreg")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, distorted(pixels, random.Random("a"), 32, (0.08, 1.0), "vicreg"))
    assert not torch.equal(one, distorted(pixels, random.Random("b"), 32, (0.08, 1.0), "vicreg"))


# ---- the verb ----


@pytest.mark.parametrize("method", ["simclr", "vicreg"])
def test_a_run_trains_the_backbone_and_says_so(tmp_path, method):
    store = pictures(tmp_path / "store")
    given = Path(store) if method == "simclr" else [store]
    assert pretrain(given, out=tmp_path / "run", **options(method=method)) == str(tmp_path / "run")
    about = json.loads((tmp_path / "run" / "student.json").read_text())
    assert about["trained"] == ["backbone"]
    assert about["objectives"] == {}
    done = json.loads((tmp_path / "run" / "pretrain.json").read_text())
    assert done["compute"]["images"] == 2 * 4 * 4
    assert done["compute"]["flops"] > 0
    torch.manual_seed(0)
    fresh = Student("test_resnet", {}, 8).state_dict()
    weights = load_file(tmp_path / "run" / "student.safetensors")
    for k, v in weights.items():
        if v.ndim > 1:
            assert torch.equal(v, fresh[k]) != k.startswith("backbone"), k
    taken = Student("test_resnet", {}, 8, str(tmp_path / "run"), ("backbone",)).state_dict()
    assert all(torch.equal(taken[k], v) for k, v in weights.items() if k.startswith("backbone"))
    with pytest.raises(ValueError, match="holds a finished run"):
        pretrain(store, out=str(tmp_path / "run"), **options(method=method))


def test_loss_goes_down(tmp_path):
    pretrain(
        pictures(tmp_path / "store"),
        out=str(tmp_path / "run"),
        **options(steps=30, batch_size=10, optimizer="adamw", lr=2e-3, save_every=100),
    )
    losses = [json.loads(x)["loss"] for x in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert np.mean(losses[-6:]) < np.mean(losses[:6])


def test_a_run_that_was_stopped_ends_in_the_same_weights(tmp_path, monkeypatch):
    store = pictures(tmp_path / "store")
    pretrain(store, out=str(tmp_path / "whole"), **options(steps=6))
    import polyteach.training.loop as loop

    real, steps = loop._Loop.update, []

    def update(self, stream):
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(1)
        return real(self, stream)

    with monkeypatch.context() as m:
        m.setattr(loop._Loop, "update", update)
        with pytest.raises(KeyboardInterrupt):
            pretrain(store, out=str(tmp_path / "run"), **options(steps=6))
    with pytest.raises(ValueError, match=r"was started otherwise: .*method"):
        pretrain(store, out=str(tmp_path / "run"), **options(steps=6, method="vicreg"))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    for option in ("allow_remote", "max_pixels"):  # which earlier versions do not record
        del config["options"][option]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    pretrain(store, out=str(tmp_path / "run"), **options(steps=6, workers=2, allow_remote="https"))
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == (
        tmp_path / "whole" / "student.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"method": "magic"}, "unknown method 'magic'; there are simclr, vicreg"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"batch_size": 5}, "batch_size 5 is more than the 4 images"),
        ({"size": 40}, "size must be a multiple of 32"),
        ({"crop": (0.5, 1.5)}, "crop must be LOW HIGH"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"epochs": 2.0}, "give steps or epochs, not both"),
        ({"split": ("nope",)}, "no image has split 'nope'; there are train, val"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, wrong, why):
    store = pictures(tmp_path / "store", 4)
    with pytest.raises(ValueError, match=why):
        pretrain(store, out=str(tmp_path / "run"), **options(**wrong))
    assert not (tmp_path / "run").exists()


def test_a_run_without_heads_answers_nothing_and_says_so(tmp_path):
    run = str(tmp_path / "run")
    pretrain(pictures(tmp_path / "store"), out=run, **options(steps=1))
    with pytest.raises(ValueError, match="has no heads, only a backbone"):
        load_teacher(f"own:{run}", "cpu", "fp32")


# ---- what it is for ----


def texture(kind, draw):
    """A 32x32 pattern of class 0 to 3 in two colours and a place of its own; colour tells nothing of the class."""
    shift = torch.randint(16, (2, 1), generator=draw)
    across, down = ((torch.arange(32) + shift) // 4 % 2).bool()
    across, down = across.expand(32, 32), down[:, None].expand(32, 32)
    mask = (across, down, across ^ down, across & down)[kind]
    one, other = torch.randint(256, (2, 3, 1, 1), generator=draw)
    return torch.where(mask, one, other).to(torch.uint8)


def textures(count, seed):
    draw = torch.Generator().manual_seed(seed)
    kinds = torch.arange(count) % 4
    return torch.stack([texture(int(k), draw) for k in kinds]), kinds


def probe(student):
    """Accuracy of ridge regression on the backbone's pooled features: 32 labelled images, 256 others to test."""
    student.eval()
    (known, kinds), (new, truth) = textures(32, 1), textures(256, 2)
    with torch.no_grad():
        a, b = student.pooled(known), student.pooled(new)
    mean, std = a.mean(0), a.std(0) + 1e-6
    a, b = (torch.cat([(x - mean) / std, torch.ones(len(x), 1)], 1) for x in (a, b))
    onehot = torch.nn.functional.one_hot(kinds, 4).float()
    weights = torch.linalg.solve(a.T @ a + 10 * torch.eye(a.shape[1]), a.T @ onehot)
    return float(((b @ weights).argmax(1) == truth).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "vicreg"])
def test_classes_that_were_never_told_become_linearly_separable(tmp_path, method):
    """Measured, seeds 0, 1, 2: random weights 0.39, 0.45, 0.41; simclr 0.58, 0.59, 0.58; vicreg 0.52, 0.64, 0.68."""
    store_of(tmp_path / "store", textures(128, 0)[0], 128)
    longer = {"steps": 80, "batch_size": 32, "optimizer": "adamw", "lr": 3e-3, "temperature": 0.2, "crop": (0.5, 1.0)}
    run = str(tmp_path / "run")
    pretrain(str(tmp_path / "store"), out=run, **options(method=method, save_every=100, **longer))
    torch.manual_seed(0)
    fresh = Student("test_resnet", {}, 8)  # the weights that the run started from
    assert probe(Student("test_resnet", {}, 8, run, ("backbone",))) > probe(fresh) + 0.05
