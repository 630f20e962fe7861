"""The embedding task: features of another network, standardised, learned, and dropped with their heads."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import polyteach
from polyteach import train, transfer
from polyteach.model.student import describe_student
from polyteach.store import Store
from polyteach.tasks.contract import Space
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.embedding import TASK, EmbeddingPrediction, EmbeddingTarget, of_equal_variance, standardised
from polyteach.training.checkpoints import latest
from tests.worlds import log_of, noise, options, png, rows_of, store_of, weights_of


def skewed(channels, count, seed=0):
    """Vectors whose channels differ in scale a thousandfold, hang together and lie far from 0; (channels, count)."""
    r = np.random.default_rng(seed)
    mix = r.standard_normal((channels, channels)) * np.geomspace(0.01, 10, channels)[:, None]
    return mix @ r.standard_normal((channels, count)) + r.standard_normal((channels, 1)) * 30


@pytest.mark.parametrize("channels", [1, 2, 3, 12, 37, 128])
def test_a_rotation_gives_every_channel_the_mean_variance(channels):
    covariance = np.atleast_2d(np.cov(skewed(channels, 500)))
    r = of_equal_variance(torch.from_numpy(covariance)).numpy()
    np.testing.assert_allclose(r @ r.T, np.eye(channels), atol=1e-9)
    turned = np.diag(r @ covariance @ r.T)
    np.testing.assert_allclose(turned, np.full(channels, np.trace(covariance) / channels), rtol=1e-6)


def test_standardised_features_have_no_mean_and_variance_one_in_every_channel_and_come_back():
    vectors = torch.from_numpy(skewed(12, 24 * 5)).float().view(12, 24, 5).movedim(1, 0)
    targets = [EmbeddingTarget(v.reshape(12, 1, 5)) for v in vectors]
    head = TASK.head({f"p{k}": 8 for k in range(2, 8)}, Space((), "dense, 12 channels"))
    TASK.prepare(head, targets)
    how = EmbeddingPrediction(torch.zeros(24, 12, 1, 5), head.mean, head.rotation, head.scale)
    found = standardised(torch.stack([t.feature for t in targets]), how)
    flat = found.movedim(1, 0).reshape(12, -1).double().numpy()
    np.testing.assert_allclose(flat.mean(1), 0, atol=1e-3)
    np.testing.assert_allclose(flat.var(1), 1, rtol=1e-3)
    # one scale and a rotation: distances keep their proportions (isotropic, PHI-S)
    a, b, c = found[0, :, 0, 0], found[3, :, 0, 2], found[9, :, 0, 4]
    x, y, z = targets[0].feature[:, 0, 0], targets[3].feature[:, 0, 2], targets[9].feature[:, 0, 4]
    assert float((a - b).norm() / (a - c).norm()) == pytest.approx(float((x - y).norm() / (x - z).norm()), rel=1e-3)
    for back, t in zip(TASK.decode(how._replace(output=found)), targets, strict=True):
        torch.testing.assert_close(back.feature, t.feature, rtol=1e-3, atol=1e-2)


def test_cells_of_zeros_are_not_counted_in_the_standardisation():
    head, other = (TASK.head({f"p{k}": 8 for k in range(2, 8)}, Space((), "dense, 4 channels")) for _ in range(2))
    known = torch.randn(4, 2, 6) + 5
    TASK.prepare(head, [EmbeddingTarget(known)])
    TASK.prepare(other, [EmbeddingTarget(torch.cat([known, torch.zeros(4, 3, 6)], 1))])
    torch.testing.assert_close(head.mean, other.mean)
    torch.testing.assert_close(head.scale, other.scale)


def test_the_loss_is_the_papers_formula():
    g = torch.Generator().manual_seed(0)
    output, raw = torch.randn(2, 6, 3, 4, generator=g), torch.randn(2, 6, 3, 4, generator=g) * 3
    raw[1, :, 2] = 0
    mean, scale = torch.randn(6, generator=g), torch.tensor(0.5)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=g))[0]
    loss = TASK.loss(EmbeddingPrediction(output, mean, rotation, scale), [EmbeddingTarget(f) for f in raw])
    total, cells = 0.0, 0
    for b in range(2):
        for i in range(3):
            for j in range(4):
                if (raw[b, :, i, j] == 0).all():
                    continue
                p = output[b, :, i, j].numpy().astype(np.float64)
                t = rotation.numpy().astype(np.float64) @ (raw[b, :, i, j] - mean).numpy() * 0.5
                d = np.abs(p - t)
                cosine = 1 - p @ t / (np.linalg.norm(p) * np.linalg.norm(t))
                total += 0.9 * cosine + 0.1 * np.where(d < 1, d * d / 2, d - 0.5).mean()
                cells += 1
    assert cells == 20
    assert float(loss) == pytest.approx(total / cells, rel=1e-5)


def test_the_metric_is_cosine_and_explained_variance():
    g = torch.Generator().manual_seed(1)
    true, said = torch.randn(5, 4, 6, generator=g) + 3, torch.randn(5, 4, 6, generator=g) + 3
    metric = TASK.metric(Space((), "dense, 5 channels"))
    metric.update([EmbeddingTarget(said[:, :2])], [EmbeddingTarget(true[:, :2])])
    metric.update([EmbeddingTarget(said[:, 2:])], [EmbeddingTarget(true[:, 2:])])
    t, p = (x.flatten(1).T.double().numpy() for x in (true, said))
    cosine = (t * p).sum(1) / np.linalg.norm(t, axis=1) / np.linalg.norm(p, axis=1)
    explained = 1 - ((t - p) ** 2).sum() / ((t - t.mean(0)) ** 2).sum()
    assert metric.compute() == pytest.approx({"cosine": 100 * cosine.mean(), "explained": 100 * explained}, rel=1e-6)
    mean = TASK.metric(Space((), "dense, 5 channels"))
    mean.update(
        [EmbeddingTarget(torch.from_numpy(t.mean(0)).float()[:, None, None].expand(5, 4, 6))], [EmbeddingTarget(true)]
    )
    assert mean.compute()["explained"] == pytest.approx(0, abs=1e-3)
    assert mean.compute()["cosine"] > 90  # which is why it is not the only score


@pytest.mark.parametrize("kind", ["dense", "dense, 0 channels", "local, 8 channels", "dense, 8 channels of x", ""])
def test_a_kind_that_says_nothing_is_refused(kind):
    with pytest.raises(ValueError, match="the space's kind is"):
        TASK.head({f"p{k}": 8 for k in range(2, 8)}, Space((), kind))


def school(folder, sets):
    """A store of noise of several shapes, labelled; sets: name -> (kind, (channels, rows, columns))."""
    store = store_of(folder, rows_of(noise(6, (48, 64))))
    for n, (name, (kind, shape)) in enumerate(sets.items()):
        labels = store.create_set("embedding", name, Space((), kind), {"teacher": {"spec": "x:y"}})
        g = torch.Generator().manual_seed(n)
        for part in store.parts():
            ids = store.ids(part)
            labels.write(part, ids, [EmbeddingTarget(torch.randn(shape, generator=g) * 4 + 7) for _ in ids])
    return str(store.path)


SETS = {
    "a": ("dense, 6 channels, of net 01234567", (6, 6, 8)),
    "b": ("dense, 6 channels, of other 89abcdef", (6, 3, 4)),
    "c": ("global, 10 channels, of net 01234567", (10, 1, 1)),
}


def test_features_of_two_networks_are_two_heads_and_none_is_in_the_student(tmp_path, capsys):
    store = Store.open(school(tmp_path / "store", SETS))
    labels = store.create_set("depth", "far", Space((), "metric"), {"teacher": {"spec": "x:y"}})
    for part in store.parts():
        far = DepthTarget(torch.ones(48, 64), torch.ones(48, 64, dtype=torch.bool))
        labels.write(part, store.ids(part), [far] * store.count(part))
    run = train(str(store.path), out=str(tmp_path / "run"), **options(steps=3))
    assert "two heads" not in capsys.readouterr().err
    names = [k for k in log_of(tmp_path / "run")[0]["losses"] if k.startswith("embedding")]
    assert sorted(names) == ["embedding_a", "embedding_b", "embedding_c"]
    assert list(describe_student(run)["objectives"]) == ["depth_far"]
    assert not [k for k in load_file(tmp_path / "run" / "student.safetensors") if "embedding" in k]
    (tmp_path / "x.png").write_bytes(png(noise(1, (40, 60))[0]))
    (answer,) = polyteach.predict(run, [str(tmp_path / "x.png")], device="cpu", progress=False)
    assert list(answer) == ["depth_far"]


def test_a_stopped_training_goes_on_with_what_its_heads_were_told(tmp_path):
    store = school(tmp_path / "store", SETS)
    train(store, out=str(tmp_path / "a"), **options(steps=6))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    newest = latest(tmp_path / "b" / "checkpoints")
    shutil.rmtree(newest)
    for name in ("train.json", "student.json", "student.safetensors"):
        (tmp_path / "b" / name).unlink()
    kept = load_file(latest(tmp_path / "b" / "checkpoints") / "model.safetensors")
    assert float(kept["heads.embedding_a.scale"]) == pytest.approx(1 / 4, rel=0.05)  # of a deviation of 4
    torch.testing.assert_close(kept["heads.embedding_a.mean"], torch.full((6,), 7.0), atol=1.0, rtol=0)
    train(store, out=str(tmp_path / "b"), **options(steps=6))
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")


def test_features_are_no_task_to_transfer_to(tmp_path):
    store = school(tmp_path / "store", {"a": SETS["a"]})
    with pytest.raises(ValueError, match="serves training alone"):
        transfer(store, out=str(tmp_path / "out"), labels="a", train_split=(), test_split="test", device="cpu")


def test_a_training_learns_features(tmp_path):
    """Constant features of two kinds of images are learned from the images' colour."""
    dark, light = (torch.full((3, 64, 64), v, dtype=torch.uint8) for v in (30, 220))
    store = store_of(tmp_path / "store", rows_of([dark, light] * 4))
    labels = store.create_set("embedding", "x", Space((), "dense, 8 channels, of toy"), {"teacher": {"spec": "x:y"}})
    g = torch.Generator().manual_seed(0)
    means = torch.randn(2, 8, 1, 1, generator=g) * 5 + 20
    for part in store.parts():
        ids = store.ids(part)
        answers = [EmbeddingTarget(means[i % 2] + torch.randn(8, 4, 4, generator=g) * 0.01) for i in range(len(ids))]
        labels.write(part, ids, answers)
    run = tmp_path / "run"
    train(str(store.path), out=str(run), **options(steps=60, lr=0.01, optimizer="adamw", save_every=60))
    losses = [line["losses"]["embedding_x"] for line in log_of(run)]
    assert losses[0] > 0.5
    assert losses[-1] < 0.1
    assert describe_student(str(run))["objectives"] == {}
