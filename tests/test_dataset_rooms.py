"""Rooms: made of a furniture catalogue that the tests write; truth against formulas, and who gets which models."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.datasets._raycast import Film
from polyteach.datasets.rooms import meshes, props
from polyteach.datasets.rooms.catalogue import catalogue, properties
from polyteach.datasets.rooms.domains import DOMAINS
from polyteach.datasets.rooms.kinds import kind
from polyteach.datasets.rooms.meshes import Model, models, simplified
from polyteach.datasets.rooms.props import shared
from polyteach.datasets.rooms.room import SURFACES, aimed
from polyteach.ground.scene import WALL
from polyteach.tasks import load_task
from tests.worlds import seen_tasks

BOX = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
SIDES = ("1 2 4 3", "5 7 8 6", "1 5 6 2", "3 4 8 7", "1 3 7 5", "2 6 8 4")


def obj(scale=(1, 1, 1), faces=SIDES, material="red"):
    """A box as a Wavefront OBJ file."""
    points = [f"v {x * scale[0]} {y * scale[1]} {z * scale[2]}" for x, y, z in BOX]
    corners = [f"vt {u} {v}" for u, v in ((0, 0), (1, 0), (1, 1), (0, 1))]
    quads = ["f " + " ".join(f"{v}/{k}" for k, v in enumerate(f.split(), 1)) for f in faces]
    return "\n".join(["mtllib box.mtl", *points, *corners, f"usemtl {material}", *quads]) + "\n"


MTL = (
    "newmtl red\nKd 0.8 0.1 0.2\nnewmtl glass\nKd 1 1 1\nd 0.05\nnewmtl printed\nKd 1 1 1\nmap_Kd -s 1 1 1 print.png\n"
)


def write(path, pieces, **more):
    """A .sh3f file. pieces: (name, (width, depth, height) in cm, OBJ text)."""
    lines = ["# a comment", "license=CC0"]
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(picture, format="png")
    with zipfile.ZipFile(path, "w") as archive:
        for i, (name, size, text) in enumerate(pieces, 1):
            lines += [f"name#{i}={name}", f"category#{i}=All", f"model#{i}=/m{i}/box.obj", f"creator#{i}=tests"]
            lines += [f"{field}#{i}={value}" for field, value in zip(("width", "depth", "height"), size, strict=True)]
            archive.writestr(f"m{i}/box.obj", text + f"# {i}\n")  # no two files are the same
            archive.writestr(f"m{i}/box.mtl", MTL)
            archive.writestr(f"m{i}/print.png", picture.getvalue())
        lines += [f"{key}={value}" for key, value in more.items()]
        archive.writestr("PluginFurnitureCatalog.properties", "\n".join(lines))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    props.pieces_of.cache_clear()
    props.stock.cache_clear()


@pytest.fixture(scope="module")
def furniture(tmp_path_factory, cache):
    """25 models of each of four kinds."""
    folder = tmp_path_factory.mktemp("furniture")
    draw = np.random.default_rng(0)
    pieces = [
        (f"{name} {i}", (40 + i + k, *draw.integers(40, 120, 2)), obj(material=("red", "printed")[i % 2]))
        for k, name in enumerate(("Chair", "Dinner table", "Floor lamp", "Bottle"))
        for i in range(25)
    ]
    write(folder / "tests.sh3f", pieces)
    return str(folder)


def source(name, folder, **more):
    given = {"count": "train:3", "size": "32", "furniture": folder} | more
    return f"rooms:{name}?" + "&".join(f"{k}={v}" for k, v in given.items())


# ---- catalogues and meshes ----


def test_properties_as_java_reads_them():
    """The examples of java.util.Properties.load's documentation, and the rules that it lists."""
    text = (
        b"Truth = Beauty\n Truth2:Beauty\nTruth3 \t:Beauty\n! no\n  # no\n\ncheeses\n"
        b"fruits  apple, banana, pear, \\\n      cantaloupe, \\\r\n   watermelon\n"
        b"a\\ key\\=\\:=v\\u00e9 \\\\ \\t.\nodd\\\\\\\n  on\neven=\\\\\nnext=1"
    )
    assert properties(text) == {
        "Truth": "Beauty", "Truth2": "Beauty", "Truth3": "Beauty", "cheeses": "",
        "fruits": "apple, banana, pear, cantaloupe, watermelon", "a key=:": "v\u00e9 \\ \t.",
        "odd\\on": "", "even": "\\", "next": "1",
    }  # fmt: skip


def read(folder):
    return models(catalogue(str(folder)))


def test_a_mesh_has_the_size_that_its_catalogue_says(tmp_path, cache):
    write(tmp_path / "a.sh3f", [("Chair", (50, 70, 90), obj((3, 9, 2)))])
    [model] = read(tmp_path)
    assert model.vertices.min(0).tolist() == pytest.approx([-0.25, 0, -0.35])
    assert model.vertices.max(0).tolist() == pytest.approx([0.25, 0.9, 0.35])
    assert len(model.faces) == 12
    corner = model.vertices[model.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1).sum() / 2
    assert area == pytest.approx(2 * (0.5 * 0.7 + 0.5 * 0.9 + 0.7 * 0.9))
    assert model.colour[model.material].tolist() == [pytest.approx([0.8, 0.1, 0.2])] * 12


def test_a_rotation_comes_before_the_size(tmp_path, cache):
    """A quarter turn about x takes y to z: the box's long axis lies."""
    long = obj((1, 5, 1))
    turn = "1 0 0 0 0 -1 0 1 0"
    write(tmp_path / "a.sh3f", [("Sofa", (10, 50, 10), long)], **{"modelRotation#1": turn})
    [model] = read(tmp_path)
    assert np.ptp(model.vertices, axis=0).tolist() == pytest.approx([0.1, 0.1, 0.5])


def test_glass_is_left_out_and_negative_indices_count_back(tmp_path, cache):
    text = obj(faces=SIDES[:3]) + "usemtl glass\nf -8 -7 -5\nusemtl printed\nf -4/-4 -2/-3 -1/-2\n"
    write(tmp_path / "a.sh3f", [("Chair", (10, 10, 10), text)])
    [model] = read(tmp_path)
    assert len(model.faces) == 7
    assert model.texture[model.material].tolist() == [-1] * 6 + [0]
    assert model.uv[6].tolist() == [[0, 0], [1, 0], [1, 1]]
    assert model.textures.shape == (1, 128, 128, 4)


def test_simplified_keeps_the_shape():
    side = 120
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    points = np.stack([x.ravel(), 0.1 * np.sin(6 * x.ravel()), y.ravel()], 1).astype(np.float32)
    at = np.arange(side * side).reshape(side, side)
    a, b, c, d = (at[i : side - 1 + i, j : side - 1 + j].ravel() for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]).astype(np.int32)
    n = len(faces)
    empty = np.zeros((0, 128, 128, 4), np.uint8)
    model = Model(points, faces, np.zeros((n, 3, 2), np.float32), np.zeros(n, np.int32),
                  np.ones((1, 3), np.float32), np.full(1, -1, np.int32), empty)  # fmt: skip
    out = simplified(model)
    assert 500 < len(out.faces) <= 2500 < n
    assert np.abs(out.vertices[:, 1] - 0.1 * np.sin(6 * out.vertices[:, 0])).max() < 0.01
    corner = out.vertices[out.faces]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1).sum() / 2
    slope = np.sqrt(1 + (0.6 * np.cos(6 * np.linspace(0, 1, 1001))) ** 2).mean()  # arc length of the sine
    assert area == pytest.approx(slope, rel=0.05)


def test_the_cache_spares_reading_and_a_broken_entry_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "a.sh3f", [("Chair", (50, 70, 90), obj())])
    [first] = read(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(meshes, "parse", None)  # would fail if it were called
        [again] = read(tmp_path)
    assert np.array_equal(first.vertices, again.vertices)
    [kept] = (tmp_path / "cache").rglob("*.npz")
    kept.write_bytes(b"broken")
    [third] = read(tmp_path)
    assert np.array_equal(first.vertices, third.vertices)
    assert kept.stat().st_size > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width#1": "wide"}, r"a\.sh3f: width#1: must be 1 numbers; got 'wide'"),
        ({"height#1": "0"}, r"a\.sh3f: .*height#1: must be above 0 cm"),
        ({"modelRotation#1": "1 2 3"}, r"modelRotation#1: must be 9 numbers"),
        ({"model#1": "m1/other.obj"}, r"a\.sh3f: model#1: m1/other\.obj is not in it"),
    ],
)
def test_broken_catalogues(tmp_path, change, message):
    write(tmp_path / "a.sh3f", [("Chair", (50, 70, 90), obj())], **change)
    with pytest.raises(ValueError, match=message):
        catalogue(str(tmp_path))


def test_broken_files(tmp_path, cache):
    with pytest.raises(ValueError, match=r"holds no \.sh3f file"):
        catalogue(str(tmp_path))
    (tmp_path / "a.sh3f").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"a\.sh3f is no furniture catalogue"):
        catalogue(str(tmp_path))
    write(tmp_path / "a.sh3f", [("Chair", (50, 70, 90), obj() + "f 1 2 99\n")])
    with pytest.raises(ValueError, match=r"m1/box\.obj, line 2\d: 'f 1 2 99': there is no vertex 99"):
        read(tmp_path)


# ---- names, and who gets what ----


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Armchair", "armchair"), ("Office chair", "chair"), ("Coffee table", "coffee table"), ("Desk lamp", "lamp"),
        ("Ceiling lamp", "hanging lamp"), ("Toilet brush", "tool"), ("Table football", "game"), ("Laptop", "screen"),
        ("Wall socket", ""), ("Something else", "thing"),
    ],
)  # fmt: skip
def test_kinds(name, what):
    assert kind(name) == what


def test_no_model_is_in_two_groups_and_none_is_left_over(furniture):
    pieces = catalogue(furniture)
    groups = shared(pieces)
    dealt = [i for held in groups.values() for i in held]
    assert sorted(dealt) == list(range(len(pieces))) == list(range(100))
    assert all(groups.values())
    assert shared(pieces) == groups
    down = sum(len(v) for k, v in groups.items() if k.startswith("down/"))
    assert 30 <= down <= 42  # 9 of 25


def test_the_same_thing_in_other_colours_stays_together(tmp_path):
    same = [(f"Chair {c}", (50, 60, 90), obj()) for c in "abcdefgh"]
    write(tmp_path / "a.sh3f", [*same, *((f"Chair {i}", (60 + i, 60, 90), obj()) for i in range(20))])
    pieces = catalogue(str(tmp_path))
    twins = {i for i, p in enumerate(pieces) if p.size[0] == 0.5}
    assert len(twins) == 8
    assert [set(held) & twins for held in shared(pieces).values() if set(held) & twins] == [twins]


def test_models_on_pictures_are_the_groups_own(furniture):
    pieces, groups = props.pieces_of(furniture)
    for name, split in (("down-boxes", "train"), ("down-boxes", "test"), ("pool", "a"), ("teach-boxes", "n1")):
        data = load_dataset(source(name, furniture, count=f"{split}:1"))
        room = next(r for r in (data._room(split, 0, k) for k in range(20)) if r is not None)
        group = f"down/{split}" if name.startswith("down") else name
        assert {p.prop.id for p in room.placed} <= {pieces[i].id for i in groups[group]}


# ---- pictures ----


@pytest.mark.parametrize("name", list(DOMAINS))
def test_labels_agree_with_each_other(furniture, name):
    data = load_dataset(source(name, furniture, tasks="all", outlines="yes", size=48))
    assert sorted(data.spaces) == seen_tasks()
    for entry in data.entries(0, 3):
        image = Image.open(io.BytesIO(entry.data))
        assert (image.size, image.mode, entry.split) == ((48, 48), "RGB", "train")
        answers = {t: load_task(t).check(a, (48, 48), data.spaces[t]) for t, a in entry.targets((48, 48)).items() if a}
        boxes, regions = answers["detection"], answers["segmentation"].category
        assert not boxes.mask.sum(0).gt(1).any()
        for box, mask, ignore in zip(boxes.box, boxes.mask, boxes.ignore, strict=True):
            y, x = mask.nonzero().T
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert ignore == (mask.sum() < 48 * 48 / 400)
        if DOMAINS[name].by_part:
            assert boxes.mask.any(0).logical_and(regions == 0).sum() == 0  # the first part is what is no object
        else:
            assert not boxes.mask.any(0).logical_and(regions < len(SURFACES)).any()
        depth, normals = answers["depth"], answers["normals"]
        assert depth.valid.all()
        assert 0.05 < depth.value.min() <= depth.value.max() < 20
        assert torch.allclose(normals.normal.norm(dim=0), torch.ones(48, 48), atol=1e-4)


def test_normals_are_those_of_the_depth(furniture):
    """By differences between neighbours' points, where these lie on one face: independent of the meshes' normals."""
    data = load_dataset(source("down-normals", furniture))
    room = next(r for r in (data._room("train", 0, k) for k in range(20)) if r is not None)
    w, _, d = room.box
    camera = aimed(np.array([0.3 * w, 1.5, 0.3 * d]), np.array([-0.3 * w, 0.3, -0.3 * d]), 10, 60)
    seen = room.see(camera, 96, Film(), np.random.default_rng(0)).render
    x = ((np.arange(96) + 0.5) / 96 * 2 - 1) * np.tan(np.radians(30))
    rays = np.stack([*np.meshgrid(x, x), np.ones((96, 96))])
    point = rays * seen.depth.numpy()
    across, down = point[:, 1:-1, 2:] - point[:, 1:-1, :-2], point[:, 2:, 1:-1] - point[:, :-2, 1:-1]
    normal = np.cross(across, down, axis=0)
    normal /= np.linalg.norm(normal, axis=0)
    normal *= -np.sign((normal * rays[:, 1:-1, 1:-1]).sum(0))
    true = seen.normal.numpy()
    same = np.ones((94, 94), bool)  # the neighbours have the same normal and the same object
    for i, j in ((0, 1), (2, 1), (1, 0), (1, 2)):
        same &= (np.abs(true[:, i : 94 + i, j : 94 + j] - true[:, 1:-1, 1:-1]) < 1e-3).all(0)
        same &= (seen.instance[i : 94 + i, j : 94 + j] == seen.instance[1:-1, 1:-1]).numpy()
    cosine = (normal * true[:, 1:-1, 1:-1]).sum(0)[same]
    assert same.mean() > 0.4
    assert np.median(cosine) > 0.9999
    assert (cosine > 0.99).mean() > 0.95
    # and the room is a box: the farthest that can be seen is its diagonal
    assert np.linalg.norm(point, axis=0).max() <= 1.01 * np.linalg.norm(room.box)


def test_an_image_follows_from_domain_seed_split_and_number(furniture):
    def pictures(name, start=0, stop=2, **more):
        return [e.data for e in load_dataset(source(name, furniture, **more)).entries(start, stop)]

    first = pictures("pool", 0, 4, count="a:2,b:2")
    assert pictures("pool", count="a:9", tasks="all") == first[:2]
    assert pictures("pool", 1, 2, count="b:5,a:2") == first[3:]
    others = pictures("pool", count="a:2", seed=1) + pictures("teach-depth", count="a:2")
    assert len(set(first + others)) == 8


def test_views_are_of_one_room(furniture):
    data = load_dataset(source("pool", furniture, views=2))
    assert data._room("train", 0, 0) is data._room("train", 0, 0)
    seen = [data.view("train", i) for i in range(2)]
    assert seen[0].kinds == seen[1].kinds
    assert not torch.equal(seen[0].render.image, seen[1].render.image)


def test_a_centric_picture_is_about_what_stands_in_its_middle(furniture):
    data = load_dataset(source("down-classes", furniture, count="train:12"))
    names = data.spaces["classification"].names
    assert len(names) >= 2
    for i in range(12):
        shot = data.view("train", i)
        assert shot.main is not None
        target = data.truth("classification", shot)
        kinds = data._named["classification"][names[int(target.probability.argmax())]]
        assert shot.kinds[shot.main] in kinds
        y, x = torch.nonzero(shot.render.instance == shot.main).double().mean(0)
        assert max(abs(x - 16), abs(y - 16)) < 9


def test_height_in_the_picture_explains_little_of_the_depth(furniture):
    """Of the logarithm's variance, over pictures: a row's mean explains less than half."""
    data = load_dataset(source("down-depth", furniture, count="train:16"))
    depth = torch.stack([data.view("train", i).render.depth for i in range(16)]).log().double()
    rest = depth - depth.mean((0, 2), keepdim=True)
    assert 1 - rest.square().mean() / (depth - depth.mean()).square().mean() < 0.5


def test_pool_oracle_and_teachers_share_their_spaces(furniture):
    pool = load_dataset(source("pool", furniture, tasks="all")).spaces
    for name in ("teach-classes", "teach-boxes", "teach-regions", "teach-depth"):
        [(task, space)] = load_dataset(source(name, furniture)).spaces.items()
        assert pool[task] == space


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("cellar", {}, r"unknown domain of rooms 'cellar'; there are teach-classes, .*down-normals"),
        ("pool", {"sise": 3}, r"'sise=3' in .* is no option of this format"),
        ("pool", {"views": 0}, r"views must be a whole number of at least 1; got '0'"),
        ("down-boxes", {"count": "train:2,few:3"}, r"models are divided among train, val and test; got split 'few'"),
        ("pool", {"tasks": "edges"}, r"tasks must be own, all, none or names of .*got 'edges'"),
        ("pool", {"furniture": "/no/where"}, r"furniture: /no/where is no folder. Get it with `apt-get install"),
    ],
)
def test_what_is_refused(furniture, name, more, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(source(name, furniture, **more))


def test_too_little_furniture(tmp_path, cache):
    write(tmp_path / "a.sh3f", [(f"Chair {i}", (50 + i, 60, 90), obj()) for i in range(4)])
    few = r"has fewer than 6 models of each of to sit or lie on, surface, .*use Debian's whole"
    with pytest.raises(ValueError, match=few):
        load_dataset(f"rooms:down-boxes?furniture={tmp_path}")


def test_walls_are_no_objects(furniture):
    data = load_dataset(source("pool", furniture))
    shot = data.view("train", 0)
    assert ((shot.render.instance == WALL).numpy() == (shot.surface < len(SURFACES))).all()
    assert Path(furniture).is_dir()
