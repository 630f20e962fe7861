"""ImageNet in each of its layouts; the devkit as MATLAB wrote it, read as torchvision reads it."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from timm.data import ImageNetInfo
from torchvision.datasets import imagenet as reference

from polyteach.datasets import _matlab, load_dataset
from polyteach.verbs.ingest import ingest
from tests.classes import picture, seen, stored, tree

scipy_io = pytest.importorskip("scipy.io")

# the real devkit's first ones and two with the same word, in its own order, which is not that of the WordNet ids
SYNSETS = [
    (1, "n02119789", "kit fox, Vulpes macrotis", 0),
    (2, "n02100735", "English setter", 0),
    (134, "n02012849", "crane", 0),
    (361, "n01440764", "tench, Tinca tinca", 0),
    (595, "n03126707", "crane", 0),
    (1001, "n02084071", "dog, domestic dog, Canis familiaris", 15),
]
CLASSES = ["n01440764", "n02012849", "n02100735", "n02119789", "n03126707"]
WORDS = {wnid: words for _, wnid, words, _ in SYNSETS}


def meta_mat(file, synsets=SYNSETS):
    """A meta.mat with the fields of the published one."""
    kind = [
        *(("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object)),
        *(("num_children", object), ("children", object), ("wordnet_height", object), ("num_train_images", object)),
    ]
    rows = [
        (np.uint16(i), wnid, words, "a gloss", np.uint8(n), np.arange(n, dtype=np.float64), np.uint8(n > 0), 1300)
        for i, wnid, words, n in synsets
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    scipy_io.savemat(file, {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})


def devkit(root, ids, synsets=SYNSETS):
    data = root / "ILSVRC2012_devkit_t12" / "data"
    meta_mat(data / "meta.mat", synsets)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{i}\n" for i in ids))
    return data


def val(n, ending="JPEG"):
    return f"ILSVRC2012_val_{n:08d}.{ending}"


def test_class_folders(tmp_path):
    root = tmp_path / "in"
    tree(root, *(f"train/{c}/{c}_{i}.JPEG" for c in CLASSES[:3] for i in (10, 9)), data=picture(format="JPEG"))
    tree(root, f"val/{CLASSES[0]}/{val(1)}", f"val/{CLASSES[4]}/{val(2)}", data=picture(format="JPEG"))
    tree(root, "test/ILSVRC2012_test_00000001.JPEG", "test/ILSVRC2012_test_00000002.JPEG")
    tree(root, "train/n01440764/n02105855_2933.JPEG", data=picture(format="PNG"))
    tree(root, "train/n01440764/cmyk.JPEG", data=picture(format="JPEG", mode="CMYK"))
    tree(root, "train/n01440764/notes.txt", "elsewhere/x.JPEG")
    dataset = load_dataset(f"imagenet:{root}")
    there = [*CLASSES[:3], CLASSES[4]]
    # without a description of the classes: the words of timm, whose classifiers then share a head with people
    known = ImageNetInfo("imagenet-1k").label_descriptions(as_dict=True)
    names = [known[c] for c in there]
    assert dataset.spaces["classification"].names == tuple(names)
    assert names == [WORDS[c] for c in there]
    assert dataset.left_out == {".txt": 1}
    found, problems = stored(f"imagenet:{root}", tmp_path / "store")
    assert problems == {}
    expected = {f"train/{c}/{c}_{i}.JPEG": ("train", WORDS[c]) for c in CLASSES[:3] for i in (10, 9)}
    expected |= {f"train/n01440764/{f}.JPEG": ("train", WORDS["n01440764"]) for f in ("n02105855_2933", "cmyk")}
    expected |= {
        f"val/{CLASSES[0]}/{val(1)}": ("val", "tench, Tinca tinca"),
        f"val/{CLASSES[4]}/{val(2)}": ("val", "crane"),
    }
    expected |= {f"test/ILSVRC2012_test_0000000{i}.JPEG": ("test", None) for i in (1, 2)}
    assert found == expected


def indices(source):
    """Name -> class index, for classes that share their name."""
    dataset = load_dataset(source)
    entries = zip(dataset.names, dataset.entries(0, len(dataset.names)), strict=True)
    return {n: int(e.targets((9, 9))["classification"].probability.argmax()) for n, e in entries if e.targets}


def test_order_and_names_are_those_of_timm(tmp_path):
    """All 1,000 class folders: class i is timm's class i."""
    info = ImageNetInfo("imagenet-1k")
    tree(tmp_path, *(f"train/{c}/{c}_1.JPEG" for c in info.label_names()), data=b"")
    dataset = load_dataset(f"imagenet:{tmp_path}")
    assert list(dataset.spaces["classification"].names) == info.label_descriptions()
    assert indices(f"imagenet:{tmp_path}") == {f"train/{c}/{c}_1.JPEG": i for i, c in enumerate(info.label_names())}


@pytest.mark.parametrize("packed", [False, True])
def test_flat_validation_with_the_devkit_as_torchvision_reads_it(tmp_path, packed, monkeypatch):
    root = tmp_path / "in"
    ids = [595, 1, 361, 134, 2, 361]
    devkit(root, ids)
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as t:
        t.add(root / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    monkeypatch.setattr(reference, "_verify_archive", lambda *a: None)  # it would want the real one's checksum
    reference.parse_devkit_archive(str(root))
    words, wnids = reference.load_meta_file(str(root))
    if packed:
        for file in (root / "ILSVRC2012_devkit_t12" / "data").iterdir():
            file.unlink()
    tree(root, *(f"val/{val(n)}" for n in range(1, 7)), f"train/{CLASSES[2]}/1.JPEG")
    dataset = load_dataset(f"imagenet:{root}")
    assert dataset.spaces["classification"].names == tuple(", ".join(words[w]) for w in sorted(words))
    assert sorted(words) == CLASSES
    expected = {f"val/{val(n)}": CLASSES.index(w) for n, w in enumerate(wnids, 1)}
    assert indices(f"imagenet:{root}") == {f"train/{CLASSES[2]}/1.JPEG": 2, **expected}
    found, problems = stored(f"imagenet:{root}", tmp_path / "store")
    assert problems == {}
    assert [found[f"val/{val(n)}"] for n in range(1, 7)] == [("val", WORDS[w]) for w in wnids]


def test_the_devkit_counts_by_the_pictures_number_not_its_place(tmp_path):
    devkit(tmp_path, [1, 2, 1500, 361, 1001])
    tree(tmp_path, f"val/{val(4)}", f"val/{val(3)}", f"val/{val(5)}", f"val/{val(9)}", f"val/n02119789/{val(1)}")
    found, problems = seen(f"imagenet:{tmp_path}")
    assert found == {
        f"val/{val(4)}": ("val", "tench, Tinca tinca"),
        f"val/n02119789/{val(1)}": ("val", "kit fox, Vulpes macrotis"),
    }
    truth = f"{tmp_path}/ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    meta = "ILSVRC2012_devkit_t12/data/meta.mat"
    assert problems == {
        f"val/{val(2)}": f"val/{val(2)}: is missing; {truth} lists it",
        f"val/{val(3)}": f"val/{val(3)}: {truth}: line 3: ILSVRC2012_ID 1500 is no class of {meta}",
        f"val/{val(5)}": f"val/{val(5)}: {truth}: line 5: ILSVRC2012_ID 1001 is no class of {meta}",  # a parent
        f"val/{val(9)}": f"val/{val(9)}: {truth}: has no such image",
    }


def kaggle(root):
    home = root / "ILSVRC" / "Data" / "CLS-LOC"
    tree(home, "train/n01440764/n01440764_1.JPEG", "train/n02119789/n02119789_1.JPEG")
    tree(home, *(f"val/{val(n)}" for n in (1, 2)), "test/ILSVRC2012_test_00000001.JPEG")
    for part, lines in {
        "train_cls": ("n01440764/n01440764_1 1", "n02119789/n02119789_1 2"),
        "val": (f"{val(1)[:-5]} 1", f"{val(2)[:-5]} 2"),
        "test": ("ILSVRC2012_test_00000001 1",),
    }.items():
        tree(root, f"ILSVRC/ImageSets/CLS-LOC/{part}.txt", data="".join(f"{x}\n" for x in lines).encode())
    for n, name in ((1, "n03126707"), (2, "n01440764")):
        xml = "".join(f"<object><name>{name}</name><bndbox><xmin>1</xmin></bndbox></object>" for _ in range(n))
        data = f"<annotation><folder>val</folder>{xml}</annotation>".encode()
        tree(root, f"ILSVRC/Annotations/CLS-LOC/val/{val(n, 'xml')}", data=data)
    mapping = [f"{c} {WORDS[c]}" for c in reversed(CLASSES)]
    (root / "LOC_synset_mapping.txt").write_text("\n".join(mapping) + "\n")
    (root / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00000002,n01440764 85 1 499 272 n01440764 0 0 10 10 \n"
        "ILSVRC2012_val_00000001,n03126707 131 0 499 254 \n"
    )


EXPECTED = {
    "test/ILSVRC2012_test_00000001.JPEG": ("test", None),
    "train/n01440764/n01440764_1.JPEG": ("train", "tench, Tinca tinca"),
    "train/n02119789/n02119789_1.JPEG": ("train", "kit fox, Vulpes macrotis"),
    f"val/{val(1)}": ("val", "crane"),
    f"val/{val(2)}": ("val", "tench, Tinca tinca"),
}


@pytest.mark.parametrize("within", ["", "ILSVRC", "ILSVRC/Data/CLS-LOC"])
def test_kaggle(tmp_path, within):
    root = tmp_path / "in"
    kaggle(root)
    assert load_dataset(f"imagenet:{root / within}").spaces["classification"].names == tuple(WORDS[c] for c in CLASSES)
    assert stored(f"imagenet:{root / within}", tmp_path / "store") == (EXPECTED, {})
    assert indices(f"imagenet:{root / within}")[f"val/{val(1)}"] == 4  # the second crane


def test_ilsvrc_without_kaggles_files_reads_the_annotations(tmp_path):
    root = tmp_path / "in"
    kaggle(root)
    (root / "LOC_val_solution.csv").unlink()
    assert seen(f"imagenet:{root}") == (EXPECTED, {})
    tree(root, f"ILSVRC/Data/CLS-LOC/val/{val(3)}", f"ILSVRC/Data/CLS-LOC/val/{val(4)}")
    home = root / "ILSVRC" / "Annotations" / "CLS-LOC" / "val"
    (home / val(4, "xml")).write_text("<annotation><object><name>n00000001</name></object>")
    (home / val(2, "xml")).write_text("<annotation><object><name>n00000001</name></object></annotation>")
    found, problems = seen(f"imagenet:{root}")
    assert found == {k: v for k, v in EXPECTED.items() if k != f"val/{val(2)}"}
    assert problems.keys() == {f"val/{val(n)}" for n in (2, 3, 4)}
    assert problems[f"val/{val(2)}"].endswith("_00000002.xml: object/name: 'n00000001' is none of the 5 classes")
    assert problems[f"val/{val(3)}"].endswith("_00000003.xml: missing")
    assert "_00000004.xml: broken XML: " in problems[f"val/{val(4)}"]
    # and with neither mapping nor class folders, the classes are those of ILSVRC
    for folder in ("n01440764", "n02119789"):
        (root / "ILSVRC/Data/CLS-LOC/train" / folder / f"{folder}_1.JPEG").unlink()
    (root / "LOC_synset_mapping.txt").unlink()
    names = load_dataset(f"imagenet:{root}").spaces["classification"].names
    assert names == tuple(ImageNetInfo("imagenet-1k").label_descriptions())


def test_a_listed_picture_that_is_missing(tmp_path):
    root = tmp_path / "in"
    kaggle(root)
    home = root / "ILSVRC" / "Data" / "CLS-LOC"
    for name in ("train/n02119789/n02119789_1.JPEG", f"val/{val(1)}"):
        (home / name).unlink()
    with open(root / "LOC_val_solution.csv", "a") as f:
        f.write("ILSVRC2012_val_00000007,n01440764 1 1 2 2 n02119789 1 1 2 2\n")
    tree(root, f"ILSVRC/Data/CLS-LOC/val/{val(7)}", "ILSVRC/Data/CLS-LOC/train/n04254680/1.JPEG")
    with pytest.raises(ValueError, match=r"n04254680/1.JPEG: n04254680 is none of the 5 classes.*--skip-bad"):
        ingest(f"imagenet:{root}", str(tmp_path / "strict"), progress=False)
    found, problems = stored(f"imagenet:{root}", tmp_path / "store", skip_bad=True)
    assert found == {k: EXPECTED[k] for k in sorted(EXPECTED)[:2]} | {f"val/{val(2)}": EXPECTED[f"val/{val(2)}"]}
    lists = f"{root}/ILSVRC/ImageSets/CLS-LOC"
    csv = f"{root}/LOC_val_solution.csv"
    file, gone = "train/n04254680/1.JPEG", "train/n02119789/n02119789_1.JPEG"
    assert problems == {
        gone: f"{gone}: is missing; {lists}/train_cls.txt lists it",
        file: f"{file}: n04254680 is none of the 5 classes",
        f"val/{val(1)}": f"val/{val(1)}: is missing; {lists}/val.txt lists it",
        f"val/{val(7)}": f"val/{val(7)}: {csv}: line 4: PredictionString names 2 classes, not one",
    }


def test_odd_trees(tmp_path):
    tree(tmp_path / "21k", "n00004475/a.JPEG", "n99999999/deep/b.JPEG", "stray/c.JPEG")
    found, problems = seen(f"imagenet:{tmp_path / '21k'}")
    assert found == {"n00004475/a.JPEG": (None, "organism, being"), "n99999999/deep/b.JPEG": (None, "n99999999")}
    assert problems == {"stray/c.JPEG": "stray/c.JPEG: is in no class folder named by a WordNet id (n01440764)"}
    tree(tmp_path / "loose", "train/n01440764/a.JPEG", "train/tench/a.JPEG", "val/a.JPEG", "test/n01440764/a.JPEG")
    found, problems = seen(f"imagenet:{tmp_path / 'loose'}")
    assert found == {f"{s}/n01440764/a.JPEG": (s, "tench, Tinca tinca") for s in ("train", "test")}
    assert problems.keys() == {"train/tench/a.JPEG", "val/a.JPEG"}


def test_a_folder_above_the_tree_finds_it_and_splits_of_two_data_sets_are_refused(tmp_path):
    tree(tmp_path / "a" / "imagenet", "train/n01440764/a.JPEG", "val/n01440764/a.JPEG")
    dataset = load_dataset(f"imagenet:{tmp_path / 'a'}")
    assert list(dataset.names) == ["train/n01440764/a.JPEG", "val/n01440764/a.JPEG"]
    assert dataset.notes == [f"{tmp_path / 'a'} holds the tree in a folder below it: {tmp_path}/a/imagenet was read"]
    tree(tmp_path / "b", "train/n01440764/a.JPEG", "val/n00004475/a.JPEG")
    with pytest.raises(ValueError, match="the split train has no class in common with the others: n01440764 here"):
        load_dataset(f"imagenet:{tmp_path / 'b'}")
    tree(tmp_path / "tiny", "train/n01440764/images/a.JPEG", "val/images/val_0.JPEG")
    with pytest.raises(ValueError, match=r"val/images/val_0\.JPEG: is in no class folder named by a WordNet id"):
        ingest(f"imagenet:{tmp_path / 'tiny'}", str(tmp_path / "store"), progress=False)


def test_what_is_refused(tmp_path):
    flat = tmp_path / "flat"
    tree(flat, f"val/{val(1)}", "train/n01440764/1.JPEG")
    tree(tmp_path / "words", "train/tench/1.JPEG")
    tree(tmp_path / "tars", "train/n01440764.tar", data=b"")
    for name, error in {
        "gone": "gone is no folder",
        "words": r"words has no class folders named by WordNet ids.*expected ROOT/train/nXXXXXXXX",
        "tars": r"tars has no images of ImageNet \(but 1 .tar\); expected ROOT/train/nXXXXXXXX",
        "flat": r"_00000001: no class folder, and nothing says its class: put .*ground_truth.txt and ",
    }.items():
        with pytest.raises(ValueError, match=error):
            load_dataset(f"imagenet:{tmp_path / name}")
    data = devkit(flat, ["1", "x"])
    with pytest.raises(ValueError, match=r"ground_truth.txt: line 2: 'x' is no ILSVRC2012_ID"):
        load_dataset(f"imagenet:{flat}")
    (data / "meta.mat").write_bytes(b"no MATLAB")
    with pytest.raises(ValueError, match=r"meta.mat is broken, or no MATLAB file"):
        load_dataset(f"imagenet:{flat}")
    meta_mat(data / "meta.mat", SYNSETS[-1:])
    with pytest.raises(ValueError, match="synsets: none is without children"):
        load_dataset(f"imagenet:{flat}")
    (data / "meta.mat").unlink()
    with pytest.raises(ValueError, match=r"counts by ILSVRC2012_ID, which .*meta.mat explains, and that is missing"):
        load_dataset(f"imagenet:{flat}")
    (flat / "LOC_val_solution.csv").write_text("id,class\n1,2\n")
    with pytest.raises(ValueError, match=r"the columns are 'id, class', not ImageId,PredictionString"):
        load_dataset(f"imagenet:{flat}")
    (flat / "LOC_synset_mapping.txt").write_text("tench n01440764\n")
    with pytest.raises(ValueError, match=r"LOC_synset_mapping.txt: line 1: 'tench' is no WordNet id"):
        load_dataset(f"imagenet:{flat}")
    for data in (b"no archive", b"\x1f\x8b\x08\0\0\0\0\0\0\3cut"):
        tree(tmp_path / "packed", f"val/{val(1)}")
        (tmp_path / "packed" / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(data)
        with pytest.raises(ValueError, match=r"devkit_t12.tar.gz cannot be read"):
            load_dataset(f"imagenet:{tmp_path / 'packed'}")


def test_matlab_files_that_would_end_or_fill_the_process_are_errors(tmp_path, monkeypatch):
    """SciPy's reader is compiled and trusts what it reads: one byte, and signal 11 ends it."""
    path = tmp_path / "meta.mat"
    meta_mat(path)
    whole = path.read_bytes()
    found = _matlab.read_matlab("meta.mat", whole, ["synsets", "others"])
    assert list(found) == ["synsets"]
    fields = zip(*SYNSETS, strict=True)
    for name, values in zip(("ILSVRC2012_ID", "WNID", "words", "num_children"), fields, strict=True):
        assert found["synsets"][name] == list(values)
    for at, byte in ((512, 255), (889, 8)):
        broken = whole[:at] + bytes([byte]) + whole[at + 1 :]
        with pytest.raises(ValueError, match=r"^meta.mat is broken, or no MATLAB file: "):
            _matlab.read_matlab("meta.mat", broken, ["synsets"])
    scipy_io.savemat(path, {"synsets": np.zeros(1 << 28, np.uint8)}, do_compression=True)
    monkeypatch.setattr(_matlab, "__file__", str(small(tmp_path)))
    with pytest.raises(ValueError, match=r"^meta.mat is broken, or no MATLAB file: .*(Memory|memory)"):
        _matlab.read_matlab("meta.mat", path.read_bytes(), ["synsets"])


def small(folder):
    """The other process, with a twentieth of the memory."""
    text = Path(_matlab.__file__).read_text()
    file = folder / "reader.py"
    file.write_text(text.replace("MEMORY = 2**30", "MEMORY = 2**30 // 20"))
    return file
