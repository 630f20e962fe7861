"""Shapes: rendered truth against formulas, and what must not follow from what."""

import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polyteach.datasets import load_dataset, shapes
from polyteach.datasets._raycast import Film, stream
from polyteach.datasets.shapes import scenes, truth
from polyteach.datasets.shapes.domains import DOMAINS
from polyteach.datasets.shapes.scenes import view
from polyteach.datasets.shapes.solids import COMPOUNDS, PRIMITIVES, named
from polyteach.datasets.shapes.textures import TEXTURES, Skin
from polyteach.datasets.shapes.world import Light, World, plane, solid
from polyteach.ground.scene import WALL
from polyteach.store import Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Space
from polyteach.verbs.ingest import ingest
from tests.worlds import seen_tasks

SIZE, ANGLE = 64, 50
FOCAL = SIZE / 2 / np.tan(np.radians(ANGLE / 2))
DARK = Light(np.zeros((0, 3)), np.zeros((0, 3)), 0.5, False)
AWAY = np.array([0.0, 0, -1])


def skin(colour=(0.5, 0.5, 0.5), texture="plain"):
    colour = np.array(colour)
    return Skin(texture, colour, colour, np.eye(3), np.zeros(3))


def wall(z=9.0):
    return plane(np.array([0, 0, z]), AWAY, skin())


def see(*things, light=DARK, film=None):
    return World(things).see(SIZE, ANGLE, light, film or Film(), np.random.default_rng(0))


def directions():
    """Through the pixels' centres, (h, w, 3), z = 1: by the pinhole camera's definition."""
    x = (np.arange(SIZE) + 0.5 - SIZE / 2) / FOCAL
    return np.stack([*np.meshgrid(x, x), np.ones((SIZE, SIZE))], -1)


def test_a_ball_is_where_the_formula_says():
    at, radius = np.array([0.4, -0.3, 5.0]), 1.2
    r = see(solid("ball", 3, np.eye(3), radius, at, skin()), wall()).render
    d = directions()
    a, b, c = (d**2).sum(-1), d @ at, at @ at - radius**2  # |t d - at| = radius
    root = b**2 - a * c
    inside = root > 0
    assert ((r.instance.numpy() == 0) != inside).mean() < 0.01  # a mesh is a little smaller than its ball
    safe = root > 0.1 * root.max()
    z = (b - np.sqrt(root.clip(0))) / a
    assert np.abs(r.depth.numpy() - z)[safe].max() < 0.03
    normal = (d * z[..., None] - at) / radius
    cosine = (r.normal.numpy().transpose(1, 2, 0) * normal).sum(-1)[safe]
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 6  # faces are about 8 degrees wide
    assert r.depth[0, 0] == pytest.approx(9)
    assert r.category.tolist() == [3]


def test_a_cube_seen_straight_on():
    r = see(solid("cube", 1, np.eye(3), 1, np.array([0.0, 0, 5]), skin()), wall()).render
    on = r.instance == 0
    half = 0.8 / 4.2 * FOCAL  # its front is at 5 - 0.8
    low, high = np.ceil(SIZE / 2 - half - 0.5), np.floor(SIZE / 2 + half - 0.5) + 1
    box = load_task("detection").truth(r, Space(("a", "b"), "boxes")).box
    assert box.tolist() == [[low, low, high, high]]
    assert torch.allclose(r.depth[on], torch.tensor(4.2))
    assert torch.allclose(r.depth[~on], torch.tensor(9.0))
    assert torch.allclose(r.normal, torch.tensor([0.0, 0, -1])[:, None, None].expand(3, SIZE, SIZE), atol=1e-6)


def test_a_slanted_plane():
    normal = np.array([0.4, -0.5, -0.8]) / np.linalg.norm([0.4, -0.5, -0.8])
    point = np.array([0.0, 0, 6])
    r = see(plane(point, normal, skin()), wall(1e3)).render
    assert np.allclose(r.depth, (normal @ point) / (directions() @ normal), rtol=1e-4)
    assert np.allclose(r.normal.numpy().transpose(1, 2, 0), normal, atol=1e-5)
    assert (r.instance == WALL).all()


def test_the_mirrored_world():
    """The world, its light and its picture, built anew with x negated."""

    def world(sign):
        flip = np.diag([sign, 1, 1])
        ball = solid("ball", 0, np.eye(3), 1, np.array([sign * 0.7, 0.2, 4]), skin((0.9, 0.2, 0.1)))
        cube = solid("cube", 1, np.eye(3), 1, np.array([sign * -0.9, 0.5, 5]), skin((0.1, 0.9, 0.1)))
        slant = plane(np.array([0, 0, 6.0]), flip @ np.array([0.28, 0, -0.96]), skin())
        light = Light((flip @ np.array([0.48, 0.6, -0.64]))[None], np.ones((1, 3)), 0.1, True)
        return see(ball, cube, slant, wall(20.0), light=light)

    here, there = world(1).render, world(-1).render
    assert (here.instance == there.instance.flip(1)).float().mean() > 0.995
    assert torch.allclose(here.depth.median(), there.depth.median(), rtol=1e-4)
    mirrored = there.normal.flip(2) * torch.tensor([-1.0, 1, 1])[:, None, None]
    assert (here.normal - mirrored).abs().sum(0).median() < 1e-5
    # the ball's mesh is not the same from both sides, so single pixels may differ
    assert (here.image.int() - there.image.flip(2).int()).abs().float().mean() < 1


def test_light_and_shadow():
    """Lambert: ambient + cosine; where a ball is in the way of the light, ambient alone."""
    towards = np.array([0.6, 0, -0.8])
    ball = solid("ball", 0, np.eye(3), 0.5, np.array([0.0, 0, 6]), skin())
    for shadows in (False, True):
        light = Light(towards[None], np.full((1, 3), 0.5), 0.3, shadows)
        image = see(ball, wall(), light=light).render.image
        bright, dark = (round(255 * (0.5 * b) ** (1 / 1.8)) for b in (0.3 + 0.5 * 0.8, 0.3))
        assert image[0, 5, 5] == pytest.approx(bright, abs=1)
        # the ball's shadow on the wall: 3 m behind it, along the light
        x = -0.6 / 0.8 * 3 / 9 * FOCAL + SIZE / 2
        assert image[0, SIZE // 2, int(x)] == pytest.approx(dark if shadows else bright, abs=1)


def test_film():
    """Exposure scales light; blur moves it to neighbours and keeps its sum; noise has the spread that it says."""
    striped = replace(wall(), skin=Skin("stripes", np.zeros(3), np.ones(3), np.eye(3), np.zeros(3)))

    def linear(**film):
        return (see(striped, film=Film(**film)).render.image[0].double() / 255) ** 1.8

    plain = linear()
    assert torch.allclose(linear(exposure=0.5), plain / 2, atol=0.02)
    blurred = linear(blur=0.5)
    assert blurred.diff(dim=1).abs().max() < 0.6 * plain.diff(dim=1).abs().max()
    assert blurred.mean() == pytest.approx(float(plain.mean()), abs=0.01)
    noisy = see(wall(), film=Film(noise=5)).render.image.double()
    assert noisy.std() == pytest.approx(5, rel=0.05)


def test_every_solid_has_a_size_and_a_texture_a_range():
    points = np.random.default_rng(0).uniform(-9, 9, (4000, 3)).astype(np.float32)
    for name, texture in TEXTURES.items():
        share = np.asarray(texture(points), dtype=float)
        assert share.shape == (4000,), name
        assert ((share >= 0) & (share <= 1)).all(), name
        assert name == "plain" or share.std() > 0.1, name
    for name in PRIMITIVES | COMPOUNDS:
        mesh = named(name)
        low, high = mesh.vertices.min(0), mesh.vertices.max(0)
        assert 1.5 < (high - low).max() < 3, name
        assert np.allclose(low, -high), name
        assert len(mesh.part) == len(mesh.faces), name
        assert mesh.faces.max() == len(mesh.vertices) - 1, name


def test_a_world_without_a_wall():
    with pytest.raises(ValueError, match="rays leave the world: put a plane behind it"):
        see(solid("ball", 0, np.eye(3), 1, np.array([0.0, 0, 5]), skin()))


def test_what_is_put_down_touches():
    ground, normal = np.array([0.2, 1.0, 6.0]), np.array([0.0, -0.8, -0.6])
    table = solid("table", 0, np.eye(3), 0.8, np.array([0.5, 0.1, 4.0]), skin())
    down = scenes._put_down(table, None, ground, normal)
    assert min((down.vertices - ground) @ normal) == pytest.approx(0, abs=1e-9)
    assert np.allclose(down.at / down.at[2], table.at / table.at[2])  # it stays where it is in the picture
    ball = scenes._put_down(solid("ball", 0, np.eye(3), 0.5, table.at, skin()), down, ground, normal)
    assert min(ball.vertices @ normal) == pytest.approx(max(down.vertices @ normal), abs=1e-9)
    assert np.allclose(ball.vertices.mean(0), ball.at, atol=1e-3)


@pytest.mark.parametrize("name", list(DOMAINS))
def test_labels_agree_with_each_other(name):
    data = load_dataset(f"shapes:{name}?count=3&tasks=all&outlines=yes&size=48")
    assert sorted(data.spaces) == seen_tasks()
    for entry in data.entries(0, 3):
        image = Image.open(io.BytesIO(entry.data))
        assert (image.size, image.mode, entry.split) == ((48, 48), "RGB", "train")
        answers = {t: load_task(t).check(a, (48, 48), data.spaces[t]) for t, a in entry.targets((48, 48)).items()}
        boxes, regions = answers["detection"], answers["segmentation"].category
        assert 0 < len(boxes.box) == len(boxes.mask)
        assert not boxes.mask.sum(0).gt(1).any()
        assert torch.equal(boxes.mask.any(0), regions > 0)
        for box, mask, category, ignore in zip(boxes.box, boxes.mask, boxes.category, boxes.ignore, strict=True):
            y, x = mask.nonzero().T
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert ignore == (mask.sum() < 48 * 48 / 400)
            if not DOMAINS[name].by_part:
                assert (regions[mask] == category + 1).all()
        largest = boxes.category[boxes.mask.flatten(1).sum(1).argmax()]
        assert answers["classification"].probability[largest] == 1
        depth, normals = answers["depth"], answers["normals"]
        assert depth.valid.all()
        assert 1 < depth.value.min() <= depth.value.max() < 60
        assert normals.valid.all()
        assert torch.allclose(normals.normal.norm(dim=0), torch.ones(48, 48), atol=1e-5)


def test_normals_face_the_ray_that_sees_them():
    """All shapes, so also the inside of a tube and the back of a plane."""
    for shapes_of in (PRIMITIVES, COMPOUNDS):
        domain = replace(DOMAINS["pool"], shapes=tuple(shapes_of))
        up = np.array([0, -0.8, -0.6])
        things = scenes._things(
            domain, stream("pool", 0, "train", 0), list(range(len(shapes_of))), False, 0.5, up, True
        )
        face, depth, normal = World(things).truth(48, 2 * np.degrees(np.arctan(0.5)))
        x = (np.arange(48) + 0.5) / 48 - 0.5
        d = np.stack([*np.meshgrid(x, x), np.ones((48, 48))], -1)
        assert len(np.unique(face)) > 20
        assert ((normal * d).sum(-1) <= 1e-6).all()
        assert (depth > 0).all()


def test_a_sliver_is_ignored():
    domain = replace(DOMAINS["teach-boxes"], shapes=("ball",))
    things = [
        solid("ball", 0, np.eye(3), r, np.array([x, 0, 5]), skin()) for r, x in ((0.8, -1.0), (0.08, 1.0), (0.3, 60.0))
    ]
    answer = truth("detection", see(*things, wall()), domain, shapes.space("detection", domain))
    assert answer.ignore.tolist() == [False, True]  # the third is out of the picture: no box at all


def test_regions_by_part_are_another_space():
    """A mug is a rod and a ring; the same picture's shapes say "mug"."""
    mug = solid("mug", 2, np.eye(3), 1, np.array([0.0, 0, 4]), skin())
    seen = see(mug, wall())
    domain = DOMAINS["down-parts"]
    parts = truth("segmentation", seen, domain, shapes.space("segmentation", domain)).category
    names = shapes.space("segmentation", domain).names
    assert {names[i] for i in parts.unique().tolist()} == {"background", "rod", "ring"}
    assert torch.equal(parts == 0, seen.render.instance == WALL)
    right = torch.nonzero(parts == names.index("ring"))[:, 1].float().mean()
    assert right > torch.nonzero(parts == names.index("rod"))[:, 1].float().mean()  # its handle is on the right
    other = DOMAINS["down-regions"]
    whole = truth("segmentation", seen, other, shapes.space("segmentation", other)).category
    assert whole.unique().tolist() == [0, 3]


def test_vocabularies_and_looks_differ():
    teachers = [d for name, d in DOMAINS.items() if name.startswith("teach-")]
    downstream = [d for name, d in DOMAINS.items() if name.startswith("down-")]
    assert [d.task for d in teachers] == ["classification", "detection", "segmentation", "depth"]
    assert "normals" in {d.task for d in downstream}
    for a, b in itertools.combinations(teachers, 2):
        assert set(a.shapes) != set(b.shapes)
        assert set(a.shapes) & set(b.shapes)
        assert set(a.textures) != set(b.textures)
    for a, b in itertools.product(teachers, downstream):
        assert not set(a.shapes) & set(b.shapes)
        assert not set(a.textures) & set(b.textures)
    assert set().union(*(d.shapes for d in teachers)) == set(DOMAINS["pool"].shapes)
    assert not set(DOMAINS["pool"].shapes) & set(COMPOUNDS)
    assert load_dataset("shapes:pool?tasks=all").spaces["classification"].names == tuple(PRIMITIVES)


def test_an_image_follows_from_domain_seed_split_and_number():
    def pictures(source, start=0, stop=2):
        return [e.data for e in load_dataset(f"shapes:{source}&size=24").entries(start, stop)]

    first = pictures("pool?count=train:2,test:2", 0, 4)
    assert pictures("pool?count=train:90&tasks=all") == first[:2]  # more images and labels change nothing
    assert pictures("pool?count=test:5,train:2", 1, 2) == first[3:]  # nor does the order, nor where one starts
    others = pictures("pool?count=train:2&seed=1") + pictures("teach-depth?count=train:2")
    assert len(set(first + others)) == 8
    draws = [
        stream(name, seed, split, i).integers(2**62)
        for name in DOMAINS
        for seed, split, i in itertools.product((0, 1), ("train", "val", "test"), (0, 1, 2))
    ]
    assert len(set(draws)) == len(draws)


def test_splits_and_own_tasks():
    data = load_dataset("shapes:down-depth?count=train:2,val:1&size=16")
    assert data.names == [f"down-depth-0/{at}.png" for at in ("train/000000", "train/000001", "val/000000")]
    assert [e.split for e in data.entries(0, 3)] == ["train", "train", "val"]
    assert data.spaces == {"depth": Space((), "metric")}
    assert list(load_dataset("shapes:down-depth?count=7").names)[-1] == "down-depth-0/train/000006.png"
    assert load_dataset("shapes:pool?tasks=none").spaces == {}
    assert list(load_dataset("shapes:pool?tasks=normals,depth").spaces) == ["normals", "depth"]
    assert load_dataset("shapes:teach-boxes").spaces["detection"].kind == "boxes"
    [entry] = load_dataset("shapes:pool?tasks=none&count=1&size=16").entries(0, 1)
    assert entry.targets((16, 16)) == {}


def test_an_interrupted_ingest_goes_on_to_the_same_store(tmp_path, monkeypatch):
    source = "shapes:down-classes?count=train:3,val:2&size=24&tasks=all"

    def files(path):
        return {f.relative_to(path): f.read_bytes() for f in sorted(Path(path).rglob("*.parquet"))}

    ingest(source, str(tmp_path / "whole"), part_size=2, progress=False)
    original = shapes.view

    def stops(domain, draw, size, left=[3]):  # noqa: B006
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(domain, draw, size)

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "view", stops)
        with pytest.raises(KeyboardInterrupt):
            ingest(source, str(tmp_path / "broken"), part_size=2, workers=1, progress=False)
    ingest(source, str(tmp_path / "broken"), part_size=2, progress=False)
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    store = Store.open(tmp_path / "whole")
    rows = [row for part in store.parts() for row in store.images(part)]
    assert [row.split for row in rows] == ["train"] * 3 + ["val"] * 2
    assert {row.licence for row in rows} == {"none: rendered from a seed"}
    assert {(row.height, row.width) for row in rows} == {(24, 24)}


@pytest.fixture(scope="module")
def seen():
    """48 pictures of "teach-classes", the object-centric world: render and class."""
    domain = DOMAINS["teach-classes"]
    views = [view(domain, stream("teach-classes", 0, "train", i), 32) for i in range(48)]
    space = shapes.space("classification", domain)
    return views, np.array([int(truth("classification", v, domain, space).probability.argmax()) for v in views])


def test_classes_are_balanced_and_of_the_object_in_the_middle(seen):
    views, labels = seen
    assert np.bincount(labels, minlength=8).max() <= 12  # 6 expected of each
    assert len(set(labels)) == 8
    for v, label in zip(views, labels, strict=True):
        assert v.render.category[0] == label
        y, x = torch.nonzero(v.render.instance == 0).double().mean(0)
        assert abs(x - 16) < 8
        assert abs(y - 16) < 8


def test_colour_does_not_tell_the_class(seen):
    """The class of the picture whose main object has the most similar colour is right about once in eight."""
    views, labels = seen
    colours = torch.stack([v.render.image[:, v.render.instance == 0].float().mean(1) for v in views])
    distance = torch.cdist(colours, colours).fill_diagonal_(torch.inf)
    assert (labels[distance.argmin(1)] == labels).mean() < 0.3


def test_height_in_the_picture_does_not_tell_the_depth(seen):
    """As many pictures get farther downwards as upwards; and they do get farther, the mean does not."""
    views, _ = seen
    rows = torch.arange(32.0) - 15.5
    slopes = torch.stack([(v.render.depth.log().mean(1) * rows).sum() for v in views])
    assert slopes.mean().abs() < 0.4 * slopes.abs().mean()
    assert 0.25 < (slopes > 0).double().mean() < 0.75


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("shapes:rooms", r"unknown domain of shapes 'rooms'; there are teach-classes, teach-boxes, .*down-normals"),
        ("shapes:pool?sise=3", r"'sise=3' in .* is no option of this format; there are: count=train:1000, seed=0"),
        ("shapes:pool?size=8", r"size must be a whole number of at least 16; got '8'"),
        ("shapes:pool?seed=-1", r"seed must be a whole number of at least 0; got '-1'"),
        ("shapes:pool?count=many", r"count of train must be a whole number of at least 1; got 'many'"),
        ("shapes:pool?count=train:2,train:3", r"count must be SPLIT:NUMBER,SPLIT:NUMBER with different splits"),
        ("shapes:pool?count=train:2,3", r"count of 3 must be a whole number of at least 1; got ''"),
        ("shapes:pool?tasks=edges", r"tasks must be own, all, none or names of classification, .*got 'edges'"),
        ("shapes:pool?tasks=depth,all", r"tasks must be own, .*got 'all'"),
        ("shapes:pool?outlines=maybe", r"outlines must be yes or no; got 'maybe'"),
        ("shapes:teach-depth?outlines=yes", r"outlines=yes goes with boxes, and tasks has no detection"),
    ],
)
def test_what_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(source)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "embreex" else object())
    with pytest.raises(ValueError, match=r"needs embreex: pip install 'polyteach\[worlds\]'"):
        load_dataset("shapes:pool")
