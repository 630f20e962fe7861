"""Outlines by promptable models in another teacher's boxes: as the library's own, and chained through any stop."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import polyteach
from polyteach.__main__ import main
from polyteach.labelling.chain import in_order
from polyteach.store import Store
from polyteach.tasks.contract import Objective, Space
from polyteach.tasks.detection import DetectionTarget
from polyteach.teachers import load_teacher, sam_models
from polyteach.teachers._sam_check import parsed
from tests.worlds import answers_of, forked, noise, store_of

KINDS = ("sam", "sam_hq", "sam2", "edgetam", "sam3")
PROCESSORS = {"sam": hf.SamProcessor, "sam_hq": hf.SamHQProcessor, "sam3": hf.Sam3TrackerProcessor}

MORE = """
from polyteach.tasks.detection import DetectionTarget

class Boxes(Teacher):
    # boxes that the image says: none where it is dark, an error where its first pixel is white
    objectives = {"detection": Objective("detection", Space(("cat", "dog"), "boxes"))}
    dies = True
    def __call__(self, images):
        if os.environ.get("SLOW"):
            time.sleep(float(os.environ["SLOW"]))
        return [self.one(i) for i in images]
    def one(self, image):
        if self.dies and image[:, 0, 0].min() == 255 and not os.path.exists(os.environ.get("CURED", "")):
            raise ValueError("white")
        if image[0, 0, 0] == 7:
            return {}
        n = 0 if image.max() < 30 else int(image[0, 1, 1]) % 3 + 1
        h, w = image.shape[1:]
        box = torch.tensor([[1.25 + i, 2, w / 2 + i, h / 2 + 3] for i in range(n)]).reshape(-1, 4)
        return {"detection": DetectionTarget(
            box, torch.arange(n) % 2, torch.linspace(0.3, 0.9, n), torch.arange(n) == 1)}

def boxes(device, precision): return Boxes()
"""


def sam(folder, kind):
    """A tiny model of the kind, with random weights, and its image processor."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    decoder = small | {"iou_head_hidden_dim": 16} | ({"vit_dim": 16} if kind == "sam_hq" else {})
    side, patch = (56, 14) if kind == "sam3" else (64, 8 if kind in ("sam", "sam_hq") else 16)
    prompt = {"hidden_size": 16, "image_size": side, "patch_size": patch, "mask_input_channels": 4}
    config, model, vision = {
        "sam": (hf.SamConfig, hf.SamModel, small),
        "sam_hq": (hf.SamHQConfig, hf.SamHQModel, small),
        "sam2": (hf.Sam2Config, hf.Sam2Model, HIERA),
        "edgetam": (hf.EdgeTamConfig, hf.EdgeTamModel, REPVIT),
        "sam3": (hf.Sam3TrackerConfig, hf.Sam3TrackerModel, VIT),
    }[kind]
    if kind in ("sam", "sam_hq"):
        vision |= {"output_channels": 16, "image_size": 64, "patch_size": 8, "window_size": 4}
        vision |= {"global_attn_indexes": [1], "num_pos_feats": 8}
    else:
        vision = vision | {"fpn_hidden_size": 16, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}
    made = config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    model(made).save_pretrained(folder)
    size = {"height": side, "width": side}
    if kind in ("sam", "sam_hq"):
        hf.SamImageProcessor(size={"longest_edge": 64}, pad_size=size).save_pretrained(folder)
    else:
        (hf.Sam3ImageProcessor if kind == "sam3" else hf.Sam2ImageProcessor)(size=size).save_pretrained(folder)
    return str(folder)


HIERA = {
    "backbone_channel_list": [64, 32, 16, 8],
    "backbone_config": {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1] * 4,
        "window_size_per_stage": [4, 4, 4, 2], "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [2, 2],
    },
}  # fmt: skip
REPVIT = {
    "backbone_channel_list": [384, 192, 96, 48],
    "backbone_config": hf.TimmWrapperConfig(
        architecture="repvit_m0_9.dist_450e_in1k",
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    ).to_dict(),
}
VIT = {
    "backbone_config": {
        "model_type": "sam3_vit_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 56, "patch_size": 14, "window_size": 2, "global_attn_indexes": [1],
        "pretrain_image_size": 56,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each kind's folder, made when it is asked for."""

    class Made(dict):
        def __missing__(self, kind):
            self[kind] = sam(tmp_path_factory.mktemp("models") / kind, kind)
            return self[kind]

    return Made()


def boxes(*box, score=0.5):
    n = len(box)
    return DetectionTarget(
        torch.tensor(box).reshape(-1, 4).float(),
        torch.arange(n) % 2,
        torch.full((n,), score),
        torch.zeros(n, dtype=torch.bool),
    )


def asked(folder, images, given, precision="fp32"):
    teacher = load_teacher(f"sam:{folder}+boxes=people", precision=precision)
    teacher.follow(Objective("detection", Space(("a", "b"), "boxes")))
    assert teacher.objectives["detection"].space == Space(("a", "b"), "boxes and masks")
    return [answer["detection"] for answer in teacher(images, given)]


def by_library(folder, kind, image, box, cells=None):
    """Masks of one image by the library's model, processor and post-processing, all boxes in one call.

    cells: their height and width, where that is not the image's.
    """
    whole = PROCESSORS.get(kind, hf.Sam2Processor)
    processor = whole(hf.AutoImageProcessor.from_pretrained(folder))
    model = hf.AutoModelForMaskGeneration.from_pretrained(folder).eval()
    made = dict(processor(images=image, input_boxes=[box.tolist()], return_tensors="pt"))
    sizes = [made.pop(k) for k in ("original_sizes", "reshaped_input_sizes") if k in made]
    sizes[0] = sizes[0] if cells is None else [cells]
    made = {k: v.float() for k, v in made.items()}
    with torch.no_grad():
        found = model(**made, multimask_output=False)
    return processor.post_process_masks(found.pred_masks, *sizes)[0][:, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_those_of_the_library(folders, kind, monkeypatch):
    monkeypatch.setattr(sam_models, "CHUNK", 2)  # so that three boxes are two calls
    images = [*noise(2, (40, 60)), *noise(1, (60, 40)), *noise(1, (40, 60), seed=3)]
    given = [
        boxes([3, 4, 30, 30], [1, 1, 20, 39], [5.5, 6, 59, 20], score=0.25),
        boxes([0, 0, 60, 40]),
        boxes([2, 3, 20, 50], [10, 10, 30, 30]),
        boxes(),
    ]
    found = asked(folders[kind], images, given)
    for image, target, answer in zip(images, given, found, strict=True):
        assert torch.equal(answer.box, target.box)
        assert torch.equal(answer.category, target.category)
        assert torch.equal(answer.score, target.score)
        if len(target.box):
            assert torch.equal(answer.mask, by_library(folders[kind], kind, image, target.box))
            assert 0 < float(answer.mask.float().mean()) < 1
    assert found[3].mask.shape == (0, 40, 60)


def test_masks_of_large_images_and_of_many_boxes_are_coarser_and_cover_the_image(folders, monkeypatch):
    monkeypatch.setattr(sam_models, "LARGEST", 30)
    [image], [fine] = noise(1, (40, 60)), asked(folders["sam"], noise(1, (40, 60)), [boxes([3, 4, 30, 30])])
    assert fine.mask.shape == (1, 20, 30)
    assert torch.equal(fine.mask, by_library(folders["sam"], "sam", image, fine.box, (20, 30)))
    assert torch.equal(fine.box, boxes([3, 4, 30, 30]).box)  # in pixels of the image all the same
    monkeypatch.undo()
    monkeypatch.setattr(sam_models, "MOST_CELLS", 1200)
    assert sam_models.mask_size((40, 60), 2) == (20, 30)
    assert sam_models.mask_size((40, 60), 0) == (28, 42)  # as of one box
    assert sam_models.mask_size((1, 9000), 1) == (1, 1024)


def test_a_box_in_which_nothing_is_marked_is_ignored(folders, monkeypatch):
    def nothing(self, masks, original_sizes, **rest):
        return [torch.arange(len(masks[0])).view(-1, 1, 1, 1).bool().expand(-1, 1, *original_sizes[0])]

    monkeypatch.setattr(hf.SamImageProcessor, "post_process_masks", nothing)
    [answer] = asked(folders["sam"], noise(1), [boxes([1, 1, 9, 9], [2, 2, 9, 9])])
    assert answer.ignore.tolist() == [True, False]


def test_half_precision_changes_only_the_encoder(folders):
    [image], target = noise(1, (40, 60)), boxes([3, 4, 30, 30])
    [full], [half] = asked(folders["sam"], [image], [target]), asked(folders["sam"], [image], [target], "bf16")
    assert torch.equal(full.box, half.box)
    assert float((full.mask == half.mask).float().mean()) > 0.9


def pictures():
    """Eight: one without objects, one that the boxes' teacher fails for, one that it has no answer for."""
    images = noise(10, (40, 60), low=40, high=250)
    images[2] //= 10
    images[5][:, 0, 0] = 255
    images[7][:, 0, 0] = 7
    return images


def label(store, *teachers, **more):
    polyteach.label(str(store.path), teachers=dict(teachers), progress=False, **more)


def digest(store):
    files = sorted((store.path / "labels").rglob("part-*.parquet"))
    return {str(f.relative_to(store.path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_a_chain_labels_after_its_source_whatever_the_order(tmp_path, teacher, folders):
    images = pictures()
    store = store_of(tmp_path / "s", images)
    spec = f"sam:{folders['sam']}+boxes=found"
    label(store, ("masks", spec), ("found", teacher + "boxes"), batch_size=3)
    found, masks = answers_of(store, "found"), answers_of(store, "masks")
    for i, (box, mask) in enumerate(zip(found, masks, strict=True)):
        if i == 5:
            assert "white" in box
            assert mask == f"detection/found: {box}"
        elif i == 7:
            assert box is None
            assert mask is None
        else:
            assert torch.equal(box.box, mask.box)
            assert torch.equal(box.score, mask.score)
            assert torch.equal(box.ignore, mask.ignore)
            assert len(box.box) == (0 if i == 2 else int(images[i][0, 1, 1]) % 3 + 1)
            if len(box.box):
                assert torch.equal(mask.mask, by_library(folders["sam"], "sam", images[i], box.box))
    about = json.loads((store.path / "labels/detection/masks/set.json").read_text())["info"]["teacher"]
    assert about["spec"] == spec
    assert about["sha256"] == load_teacher(spec).sha256
    assert about["sha256"] != load_teacher(f"sam:{folders['sam2']}+boxes=found").sha256
    assert about["given"]["name"] == "found"
    assert about["given"]["teacher"]["spec"] == teacher + "boxes"


def test_a_chain_can_come_later_and_by_parts(tmp_path, teacher, folders):
    """What was written before is read from the store: the same bytes as in one go."""
    once, later = (store_of(tmp_path / name, pictures()) for name in ("once", "later"))
    masks, found = ("masks", f"sam:{folders['sam2']}+boxes=found"), ("found", teacher + "boxes")
    label(once, masks, found)
    label(later, found)
    label(later, masks)
    assert digest(later) == digest(once)
    for part in (0, 2):
        (later.path / f"labels/detection/masks/part-0000{part}.parquet").unlink()
    (later.path / "labels/detection/found/part-00002.parquet").unlink()
    label(later, masks, found)
    assert digest(later) == digest(once)


def test_a_retry_asks_both(tmp_path, teacher, folders, monkeypatch):
    store = store_of(tmp_path / "s", pictures())
    chain = ("found", teacher + "boxes"), ("masks", f"sam:{folders['sam']}+boxes=found")
    label(store, *chain)
    before = answers_of(store, "masks")
    (tmp_path / "cure").touch()
    monkeypatch.setenv("CURED", str(tmp_path / "cure"))
    label(store, *chain, retry=True)
    after = answers_of(store, "masks")
    assert [isinstance(a, str) for a in before] == [i == 5 for i in range(10)]
    assert torch.equal(after[5].box, answers_of(store, "found")[5].box)
    assert after[5].mask.shape[1:] == (40, 60)
    assert torch.equal(after[0].mask, before[0].mask)


def test_a_chain_of_chains_and_peoples_boxes(tmp_path, folders):
    store = store_of(tmp_path / "s", noise(4, (40, 60)), 4)
    people = store.create_set("detection", "people", Space(("cat", "dog"), "boxes"), {"teacher": "people"})
    truth = [boxes([3, 4, 30, 30], score=1.0), boxes(), None, boxes([1, 1, 59, 39], [2, 3, 20, 20], score=1.0)]
    people.write(0, store.ids(0), truth)
    label(store, ("again", f"sam:{folders['sam2']}+boxes=masks"), ("masks", f"sam:{folders['sam']}+boxes=people"))
    for name in ("masks", "again"):
        answers = answers_of(store, name)
        assert [None if a is None else len(a.box) for a in answers] == [1, 0, None, 2]
        assert answers[3].score.tolist() == [1, 1]
    assert not next(s for s in store.sets() if s.name == "masks").by_people
    assert not torch.equal(answers_of(store, "masks")[3].mask, answers_of(store, "again")[3].mask)


def test_with_a_split_only_its_images_are_asked_about(tmp_path, teacher, folders):
    store = Store.create(tmp_path / "s", 4)
    other = store_of(tmp_path / "o", noise(4, (40, 60), low=40, high=250))
    store.write_images(0, [replace(r, split="train" if i % 2 else "val") for i, r in enumerate(other.images(0))])
    label(store, ("found", teacher + "boxes"), ("masks", f"sam:{folders['sam']}+boxes=found"), split=("train",))
    assert [a is None for a in answers_of(store, "masks")] == [True, False, True, False]


@pytest.mark.slow
def test_kills_and_restarts_of_a_chain_end_with_the_same_bytes(tmp_path, teacher, folders, monkeypatch):
    images = pictures()
    calm, shaken = store_of(tmp_path / "calm", images, 2), store_of(tmp_path / "shaken", images, 2)

    def words(store):
        chain = [f"masks=sam:{folders['sam']}+boxes=found", f"found={teacher}boxes"]
        return ["label", str(store.path), "--teacher", *chain, "--batch-size", "1"]

    assert main(words(calm)) == 0
    monkeypatch.setenv("SLOW", "0.1")
    kills = 0
    while kills < 3:
        run = forked(lambda: main(words(shaken)))
        seen, begun = len(digest(shaken)), time.monotonic()
        while len(digest(shaken)) == seen:
            assert time.monotonic() < begun + 60
            assert not os.waitpid(run, os.WNOHANG)[0]
            time.sleep(0.005)
        os.kill(run, signal.SIGKILL)
        os.waitpid(run, 0)
        kills += 1
    assert 0 < len(digest(shaken)) < len(digest(calm))
    assert main(words(shaken)) == 0
    assert digest(shaken) == digest(calm)


def test_a_model_that_works_no_longer_stops_the_run(tmp_path, teacher, folders, monkeypatch):
    """Images without objects are answered without it, and do not hide that."""
    images = noise(12, (40, 60), low=40, high=250)
    for i in range(0, 12, 4):
        images[i] //= 10
    store = store_of(tmp_path / "s", images, 12)

    works, inner = [True], hf.SamModel.forward

    def broken(*args, **kwargs):
        if works:  # for as long as it takes to be loaded
            works.pop()
            return inner(*args, **kwargs)
        raise ValueError("nobody is at home")

    monkeypatch.setattr(hf.SamModel, "forward", broken)
    with pytest.raises(ValueError, match=r"failed for the last images .*nobody is at home"):
        label(store, ("found", teacher + "boxes"), ("masks", f"sam:{folders['sam']}+boxes=found"), batch_size=2)


def test_a_model_that_outlines_nothing_is_refused_when_it_is_loaded(tmp_path, folders, monkeypatch):
    def broken(*_, **__):
        raise ValueError("nobody is at home")

    weights = load_file(f"{folders['sam']}/model.safetensors")
    shutil.copytree(folders["sam"], tmp_path / "nan")
    save_file({k: torch.full_like(v, float("nan")) for k, v in weights.items()}, tmp_path / "nan" / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    with pytest.raises(ValueError, match=r"nan outlines nothing, .*answers NaN"):
        load_teacher(f"sam:{tmp_path / 'nan'}+boxes=people")
    monkeypatch.setattr(hf.SamModel, "forward", broken)
    with pytest.raises(ValueError, match=r"outlines nothing, as when it was loaded .*nobody is at home"):
        load_teacher(f"sam:{folders['sam']}+boxes=people")


def test_a_source_may_be_called_by_its_task_too():
    assert parsed("m+boxes=detection/people") == ("m", "people")
    with pytest.raises(ValueError, match="label sets of depth have no boxes to outline"):
        parsed("m+boxes=depth/far")


def test_the_order_of_a_chain():
    def order(needs, kept=()):
        return list(in_order({n: s and ("t", s) for n, s in needs.items()}, kept))

    assert order({"a": None, "b": None, "c": None}) == ["a", "b", "c"]
    assert order({"a": "b", "b": "c", "c": None, "d": None}) == ["c", "d", "b", "a"]
    assert in_order({"a": ("t", "kept")}, [("t", "kept")]) == {"a": None}
    # a teacher's own sets may be called by its objectives; one of the store's of just that name comes first
    assert in_order({"a": ("t", "b-x"), "b": None}, []) == {"b": None, "a": "b"}
    assert in_order({"a": ("t", "b-x"), "b": None}, [("t", "b-x")]) == {"a": None, "b": None}
    for circle in ({"a": "a"}, {"a": "b", "b": "a", "c": None}):
        with pytest.raises(ValueError, match="wait for one another's answers: a needs"):
            order(circle)


@pytest.fixture
def small(tmp_path, teacher):
    store = store_of(tmp_path / "s", noise(6, (40, 60)), 4)
    label(store, ("classes", teacher + "mean"))
    people = store.create_set("detection", "people", Space(("cat",), "boxes"), {"teacher": "people"})
    people.write(0, store.ids(0), [boxes()] * 4)
    return store


def test_what_cannot_be_a_chain_is_told_before_torch_is_imported(small, folders):
    model = folders["sam"]
    wrong = {
        (f"m=sam:{model}",): "is not sam:MODEL+boxes=NAME",
        ("m=sam:+boxes=people",): "is not sam:MODEL+boxes=NAME",
        (f"m=sam:{model}+boxes=",): "is not sam:MODEL+boxes=NAME",
        (f"m=sam:{model}+boxes=../x",): "label set name '../x': use letters",
        ("m=sam:./none+boxes=people",): "no folder none",
        (f"m=sam:{model}+boxes=peple",): "unknown source of teacher 'm': 'peple'; teachers of this command and label "
        "sets of detection are people. Did you mean people?",
        (f"m=sam:{model}+boxes=n", f"n=sam:{model}+boxes=m"): "wait for one another's answers: m needs n; n needs m",
        (f"m=sam:{model}+boxes=m",): "wait for one another's answers: m needs m",
        (f"m=sam:{model}+boxes=classes",): "the detection of 'classes', which is a label set of classification",
    }
    code = (
        "import json, sys; from polyteach.__main__ import main\n"
        "for argv in json.loads(sys.argv[1]): assert main(argv) == 2; print('---', file=sys.stderr)\n"
        "sys.exit('torch' in sys.modules)"
    )
    commands = [["label", str(small.path), "--teacher", *teachers] for teachers in wrong]
    run = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    for said, wanted in zip(run.stderr.split("---\n"), wrong.values(), strict=False):
        assert wanted in " ".join(said.split())


def test_what_cannot_be_a_chain_is_told_before_an_image_is_asked_about(small, teacher, folders):
    with pytest.raises(ValueError, match="'m' is to be given detection/people, which lacks 1 of the store's 2 parts"):
        label(small, ("m", f"sam:{folders['sam']}+boxes=people"))
    with pytest.raises(ValueError, match="'m' is to be given detection/c, but 'c' answers classification/c"):
        label(small, ("m", f"sam:{folders['sam']}+boxes=c"), ("c", teacher + "mean"))
    assert not (small.path / "labels/detection/m").exists()


def test_models_that_are_none_are_refused(tmp_path, folders):
    hf.ViTConfig(hidden_size=8, num_attention_heads=2).save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match=r"vit is a vit model; outlines in boxes are made by .*sam_hq"):
        load_teacher(f"sam:{tmp_path}/vit+boxes=x")
    shutil.copytree(folders["sam"], tmp_path / "part")
    weights = load_file(tmp_path / "part/model.safetensors")
    gone = [k for k in weights if k.startswith("mask_decoder.iou_prediction_head")]
    assert gone
    save_file(
        {k: v for k, v in weights.items() if k not in gone}, tmp_path / "part/model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"has no weights for mask_decoder.iou_prediction_head.*would be random"):
        load_teacher(f"sam:{tmp_path}/part+boxes=x")
    (tmp_path / "part/model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="has no usable weights"):
        load_teacher(f"sam:{tmp_path}/part+boxes=x")


def test_another_source_is_another_label_set(tmp_path, teacher, folders):
    store = store_of(tmp_path / "s", pictures())
    label(store, ("found", teacher + "boxes"), ("other", teacher + "boxes"))
    label(store, ("masks", f"sam:{folders['sam']}+boxes=found"))
    with pytest.raises(ValueError, match="was made otherwise"):
        label(store, ("masks", f"sam:{folders['sam']}+boxes=other"))


def test_what_a_chain_costs_is_counted(tmp_path, teacher, folders):
    """Of an image with a box, also where the first of the store has none."""
    images = noise(2, (40, 60), low=40, high=250)
    images[0] //= 10
    store = store_of(tmp_path / "s", images)
    label(store, ("found", teacher + "boxes"), ("masks", f"sam:{folders['sam']}+boxes=found"))
    spent = json.loads((store.path / "labels/detection/masks/label.json").read_text())["compute"]
    assert spent["images"] == 2
    assert np.isfinite(spent["flops"])
    assert spent["flops"] > 1e6
