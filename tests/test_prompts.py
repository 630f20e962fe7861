"""Open-vocabulary teachers: classes by prompts, answers as the library's, several prompts as worked out by hand."""

import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import polyteach
from polyteach.__main__ import main
from polyteach.tasks.contract import Space
from polyteach.teachers import load_teacher
from polyteach.teachers._prompts_file import Prompts, read_prompts, split
from polyteach.teachers._transformers_prompts import PromptedClassifier
from tests.test_sam import sam
from tests.worlds import answers_of, noise, store_of

WORDS = ["a", "photo", "of", "the", "cat", "kitten", "dog", "bird", "red", "car", "small", "detect", ",", "two", "big"]


def tokenizer(folder, begin, end, first=0, length=16, last=False, dividers=False):
    """A tokenizer of whole words. first: the number of the first word. last: begin and end come last, as CLIP's."""
    vocab = {"[PAD]": 0, "[UNK]": 1}
    marks = [begin, end]
    if dividers:  # at BERT's places
        vocab |= {f"[unused{i}]": i for i in range(2, 1030)} | {begin: 101, end: 102, ".": 1012, "?": 1029}
        vocab = {k: v for k, v in vocab.items() if k not in {f"[unused{i}]" for i in (101, 102, 1012, 1029)}}
        words = [*WORDS]
    else:
        words = [*WORDS, ".", *marks] if last else [*marks, *WORDS, "."]
    top = max(vocab.values()) + 1
    vocab |= {word: top + i for i, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, vocab[begin]), (end, vocab[end])]
    )
    named = {"cls_token": begin, "sep_token": end} if dividers else {"bos_token": begin, "eos_token": end}
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", model_max_length=length, **named,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    fast.save_pretrained(folder)
    return len(vocab), vocab


TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIGHT = TEXT | {"image_size": 32, "patch_size": 8}


def spread(model):
    """Random weights that make answers differ, as those that a model begins with hardly do."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, 0.3)
    return model.eval()


def clip(folder):
    torch.manual_seed(0)
    count, vocab = tokenizer(folder, "<s>", "</s>", last=True)
    text = TEXT | {"vocab_size": count, "max_position_embeddings": 16, "bos_token_id": vocab["<s>"],
                   "eos_token_id": vocab["</s>"], "projection_dim": 16}  # fmt: skip
    config = hf.CLIPConfig(text_config=text, vision_config=SIGHT | {"projection_dim": 16}, projection_dim=16)
    spread(hf.CLIPModel(config)).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)


def siglip(folder):
    torch.manual_seed(0)
    count, _ = tokenizer(folder, "<s>", "</s>")
    text = TEXT | {"vocab_size": count, "max_position_embeddings": 16, "projection_size": 16}
    spread(hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=SIGHT))).save_pretrained(folder)
    hf.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def kin(folder, kind):
    """Those that are asked as CLIP is."""
    torch.manual_seed(0)
    berts = kind == "chinese_clip"
    count, vocab = tokenizer(folder, *(("[CLS]", "[SEP]") if berts else ("<s>", "</s>")), last=True, dividers=berts)
    text = TEXT | {"vocab_size": 1100 if berts else count, "max_position_embeddings": 32 if kind == "altclip" else 16}
    if kind == "altclip":
        text |= {"project_dim": 16, "pad_token_id": 0, "bos_token_id": vocab["<s>"], "eos_token_id": vocab["</s>"]}
    if kind == "metaclip":
        text |= {"projection_dim": 16, "bos_token_id": vocab["<s>"], "eos_token_id": vocab["</s>"]}
    config, model = {
        "chinese_clip": (hf.ChineseCLIPConfig, hf.ChineseCLIPModel),
        "altclip": (hf.AltCLIPConfig, hf.AltCLIPModel),
        "metaclip": (hf.MetaClip2Config, hf.MetaClip2Model),
    }[kind]
    made = config(text_config=text, vision_config=SIGHT | {"projection_dim": 16}, projection_dim=16)
    spread(model(made)).save_pretrained(folder)
    hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def align(folder):
    torch.manual_seed(0)
    count, _ = tokenizer(folder, "<s>", "</s>")
    text = TEXT | {"vocab_size": count, "max_position_embeddings": 16}
    sight = {
        "image_size": 32,
        "width_coefficient": 0.1,
        "depth_coefficient": 0.1,
        "hidden_dim": 16,
        "depthwise_padding": [],
    }
    spread(hf.AlignModel(hf.AlignConfig(text_config=text, vision_config=sight, projection_dim=32))).save_pretrained(
        folder
    )
    hf.EfficientNetImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def blip(folder):
    torch.manual_seed(0)
    count, _ = tokenizer(folder, "<s>", "</s>")
    text = TEXT | {"vocab_size": count, "max_position_embeddings": 16, "encoder_hidden_size": 16}
    spread(hf.BlipModel(hf.BlipConfig(text_config=text, vision_config=SIGHT, projection_dim=16))).save_pretrained(
        folder
    )
    hf.BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def clipseg(folder):
    torch.manual_seed(0)
    count, vocab = tokenizer(folder, "<s>", "</s>", last=True)
    text = TEXT | {"vocab_size": count, "max_position_embeddings": 16, "eos_token_id": vocab["</s>"]}
    spread(hf.CLIPSegModel(hf.CLIPSegConfig(text_config=text, vision_config=SIGHT, projection_dim=16))).save_pretrained(
        folder
    )
    hf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def owl(folder, new=True):
    torch.manual_seed(0)
    count, _ = tokenizer(folder, "<s>", "</s>", last=True)
    text = TEXT | {"vocab_size": count, "max_position_embeddings": 16}
    config, model = (
        (hf.Owlv2Config, hf.Owlv2ForObjectDetection) if new else (hf.OwlViTConfig, hf.OwlViTForObjectDetection)
    )
    spread(model(config(text_config=text, vision_config=SIGHT, projection_dim=16))).save_pretrained(folder)
    processor = hf.Owlv2ImageProcessor if new else hf.OwlViTImageProcessor
    processor(size={"height": 32, "width": 32}).save_pretrained(folder)


SWIN = {"model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2],
        "window_size": 2, "out_features": ["stage2", "stage3", "stage4"], "out_indices": [2, 3, 4]}  # fmt: skip


def grounding(folder, mm=False):
    torch.manual_seed(0)
    tokenizer(folder, "[CLS]", "[SEP]", dividers=True, length=512)
    bert = TEXT | {"model_type": "bert", "vocab_size": 1100, "max_position_embeddings": 32}
    config, model = (
        (hf.MMGroundingDinoConfig, hf.MMGroundingDinoForObjectDetection) if mm
        else (hf.GroundingDinoConfig, hf.GroundingDinoForObjectDetection)
    )  # fmt: skip
    made = config(
        backbone_config=SWIN, text_config=bert, d_model=32, num_queries=12, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2, max_text_len=16,
        num_feature_levels=4,
    )  # fmt: skip
    model(made).eval().save_pretrained(folder)
    hf.GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}).save_pretrained(folder)


def omdet(folder):
    torch.manual_seed(0)
    count, vocab = tokenizer(folder, "<s>", "</s>", last=True)
    text = TEXT | {"model_type": "clip_text_model", "vocab_size": count, "max_position_embeddings": 16,
                   "projection_dim": 16, "eos_token_id": vocab["</s>"]}  # fmt: skip
    made = hf.OmDetTurboConfig(
        text_config=text, backbone_config=SWIN, image_size=64, text_projection_in_dim=16, text_projection_out_dim=16,
        task_encoder_hidden_dim=32, class_embed_dim=16, num_queries=12, encoder_hidden_dim=32, decoder_hidden_dim=32,
        vision_features_channels=[32, 32, 32], encoder_in_channels=[16, 32, 64], encoder_dim_feedforward=32,
        encoder_attention_heads=2, decoder_num_heads=2, decoder_num_layers=2, decoder_dim_feedforward=32,
        apply_layernorm_after_vision_backbone=False,  # which is for the layout of timm
    )  # fmt: skip
    hf.OmDetTurboForObjectDetection(made).eval().save_pretrained(folder)
    hf.DetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


MAKE = {
    "clip": clip, "siglip": siglip, "owlv2": owl, "owlvit": lambda folder: owl(folder, new=False),
    "grounding": grounding, "mm_grounding": lambda folder: grounding(folder, mm=True), "omdet": omdet,
}  # fmt: skip
MAKE |= {kind: partial(kin, kind=kind) for kind in ("altclip", "chinese_clip", "metaclip")}
MAKE |= {"align": align, "blip": blip, "clipseg": clipseg}
KIN = ["altclip", "chinese_clip", "metaclip", "align", "blip", "clipseg"]

ONE = {"cat": ["a cat"], "dog": ["a dog"], "bird": ["a red bird"]}
SEVERAL = {"cat": ["a cat", "a photo of a kitten"], "dog": ["a dog"], "bird": ["a red bird", "bird", "the small bird"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each kind's folder, made when it is asked for."""

    class Made(dict):
        def __missing__(self, kind):
            self[kind] = tmp_path_factory.mktemp(kind) / "model"
            MAKE[kind](self[kind])
            return self[kind]

    return Made()


@pytest.fixture
def load(tmp_path, folders):
    """(kind, classes) -> the teacher. classes: as JSON, which is YAML."""

    def loaded(kind, classes, precision="fp32"):
        file = tmp_path / "prompts.yaml"
        file.write_text(json.dumps(classes))
        return load_teacher(f"transformers:{folders.get(kind) or folders[kind]}@{file}", precision=precision)

    return loaded


def flat(classes):
    return [text for texts in classes.values() for text in texts]


def images():
    return [*noise(1, (40, 60)), *noise(1, (60, 40), seed=1), *noise(1, (48, 48), seed=2)]


# ---- classes ----


def by_library(folder, image, texts):
    """logits_per_image of the library's own model."""
    model = hf.AutoModelForZeroShotImageClassification.from_pretrained(folder).eval()
    tokens = hf.AutoTokenizer.from_pretrained(folder)
    way = {"padding": "max_length", "max_length": 16} if "siglip" in model.config.model_type else {"padding": True}
    seen = hf.AutoImageProcessor.from_pretrained(folder)(images=image, return_tensors="pt")
    with torch.no_grad():
        return model(**seen, **tokens(texts, return_tensors="pt", **way)).logits_per_image[0].double().numpy()


@pytest.mark.parametrize("kind", ["clip", "siglip", *KIN])
def test_one_prompt_a_class_is_the_librarys_answer(load, folders, kind):
    teacher = load(kind, ONE)
    assert teacher.objectives["classification"].space == Space(("cat", "dog", "bird"))
    for image, answer in zip(images(), teacher(images()), strict=True):
        logits = by_library(folders[kind], image, flat(ONE))
        wanted = np.exp(logits - logits.max())
        if kind == "siglip":  # of each text by itself, given that exactly one is right
            p = 1 / (1 + np.exp(-logits))
            wanted = [p[k] * np.prod(np.delete(1 - p, k)) for k in range(3)]
        np.testing.assert_allclose(answer["classification"].probability, wanted / np.sum(wanted), atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_several_prompts_are_the_mean_of_their_embeddings(load, folders, kind):
    answers = load(kind, SEVERAL)(images())
    model = hf.AutoModelForZeroShotImageClassification.from_pretrained(folders[kind]).eval()
    tokens = hf.AutoTokenizer.from_pretrained(folders[kind])
    processor = hf.AutoImageProcessor.from_pretrained(folders[kind])
    way = {"padding": "max_length", "max_length": 16} if kind == "siglip" else {}

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    means = []
    with torch.no_grad():
        for texts in SEVERAL.values():
            each = [model.get_text_features(**tokens(t, return_tensors="pt", **way)).pooler_output[0] for t in texts]
            means.append(unit(unit(np.stack(each).astype(np.float64)).mean(0)))
        for image, answer in zip(images(), answers, strict=True):
            seen = model.get_image_features(**processor(images=image, return_tensors="pt")).pooler_output[0]
            logits = np.stack(means) @ unit(seen.double().numpy()) * float(model.logit_scale.exp())
            wanted = np.exp(logits) / np.exp(logits).sum()
            np.testing.assert_allclose(answer["classification"].probability, wanted, atol=1e-5)


# ---- boxes ----

PROCESSORS = {
    "owlvit": hf.OwlViTProcessor,
    "owlv2": hf.Owlv2Processor,
    "grounding": hf.GroundingDinoProcessor,
    "mm_grounding": hf.GroundingDinoProcessor,
    "omdet": hf.OmDetTurboProcessor,
}


def overlap(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (both - width * height)


def suppressed(rows):
    """Boxes as (score, class, box), the best first, without those that a better one of their class overlaps by half."""
    out = []
    for row in sorted(rows, key=lambda r: -r[0]):
        if all(row[1] != kept[1] or overlap(row[2], kept[2]) <= 0.5 for kept in out):
            out.append(row)
    return out


def rows_of(target):
    return list(zip(target.score.tolist(), target.category.tolist(), target.box.tolist(), strict=True))


def same(target, rows):
    mine = sorted(rows_of(target), key=lambda r: (-r[0], r[1]))
    rows = sorted(rows, key=lambda r: (-r[0], r[1]))
    assert [r[1] for r in mine] == [r[1] for r in rows]
    np.testing.assert_allclose([r[0] for r in mine], [r[0] for r in rows], atol=1e-5)
    np.testing.assert_allclose([r[2] for r in mine], [r[2] for r in rows], atol=1e-2)
    assert mine


def library(kind, folder, image, texts):
    """The library's own answer about prompts: its outputs, and what its own processor makes boxes of."""
    model = hf.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor, tokens = hf.AutoImageProcessor.from_pretrained(folder), hf.AutoTokenizer.from_pretrained(folder)
    whole = PROCESSORS[kind](processor, tokens)
    said = {"owlvit": [texts], "owlv2": [texts]}.get(kind, texts)
    more = {} if "grounding" in kind else {"padding": "max_length", "max_length": 16}
    with torch.no_grad():
        made = whole(images=[image], text=[said] if "grounding" in kind else said, return_tensors="pt", **more)
        return model(**made), whole


@pytest.mark.parametrize("kind", ["owlvit", "owlv2", "omdet"])
def test_one_prompt_a_class_finds_the_librarys_boxes(load, folders, kind):
    for image, answer in zip(images(), load(kind, ONE)(images()), strict=True):
        found, processor = library(kind, folders[kind], image, flat(ONE))
        size = [tuple(image.shape[1:])]
        more = {"nms_threshold": 1.0} if kind == "omdet" else {}
        [made] = processor.post_process_grounded_object_detection(found, threshold=0.05, target_sizes=size, **more)
        rows = zip(*(made[k].tolist() for k in ("scores", "labels", "boxes")), strict=True)
        if kind == "omdet":  # the library clips them
            box = answer["detection"].box
            limit = torch.tensor([image.shape[2], image.shape[1]] * 2)
            object.__setattr__(answer["detection"], "box", box.clamp(min=0).minimum(limit))
        same(answer["detection"], suppressed(rows))


def fractions(box, width, height):
    x, y, w, h = box
    return [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]


def spans(kind, folder, texts):
    """Where each prompt's tokens are in the text that the library makes of all, found by its full stops."""
    ids = hf.AutoTokenizer.from_pretrained(folder)(". ".join(texts) + ".")["input_ids"]
    ends = [i for i, n in enumerate(ids) if n == 1012]
    return [list(range(a + 1, b)) for a, b in zip([0, *ends], ends, strict=False)]


def rows_by_hand(kind, folder, image, classes, texts):
    """From the raw outputs of the library's model about some prompts: (score, class, box) of what is above 0.05."""
    owner = [list(classes).index(name) for text in texts for name, mine in classes.items() if text in mine]
    found, _ = library(kind, folder, image, texts)
    if kind == "omdet":
        logits, boxes = found.decoder_class_logits, found.decoder_coord_logits
    else:
        logits, boxes = found.logits, found.pred_boxes
    probability = (1 / (1 + np.exp(-logits[0].double().numpy()))).tolist()
    if "grounding" in kind:
        where = spans(kind, folder, texts)
        probability = [[max(p[t] for t in tokens) for tokens in where] for p in probability]
    height, width = image.shape[1:] if kind != "owlv2" else [max(image.shape[1:])] * 2
    rows = []
    for p, box in zip(probability, boxes[0].tolist(), strict=True):
        best = {k: max(x for x, of in zip(p, owner, strict=True) if of == k) for k in set(owner)}
        if kind != "omdet":  # where a query is of several classes
            best = {k: x for k, x in best.items() if x == max(best.values())}
        rows += [(x, k, fractions(box, width, height)) for k, x in best.items()]
    return [row for row in sorted(rows, key=lambda r: -r[0])[: len(boxes[0])] if row[0] > 0.05]


@pytest.mark.parametrize("kind", sorted(PROCESSORS))
def test_several_prompts_are_one_class_by_the_best_of_them(load, folders, kind):
    classes = SEVERAL if "owl" in kind else {"cat": ["a cat", "kitten"], "dog": ["a dog"], "bird": ["a red bird"]}
    if kind == "omdet":
        classes = {"dog": ["a dog"], "cat": ["a cat", "the cat"]}
    answers = [answer["detection"] for answer in load(kind, classes)(images())]
    for image, answer in zip(images(), answers, strict=True):
        same(answer, suppressed(rows_by_hand(kind, folders[kind], image, classes, flat(classes))))
    assert len({c for answer in answers for c in answer.category.tolist()}) > 1


@pytest.mark.parametrize("kind", ["mm_grounding", "omdet"])
def test_prompts_that_do_not_fit_together_are_asked_about_in_turn(load, folders, kind):
    """A class may have prompts in both; its boxes are one object's where they overlap, whichever found them."""
    classes = {
        "cat": ["a cat", "kitten"],
        "dog": ["a red dog"],
        "bird": ["a red bird", "the small bird"],
        "car": ["car"],
    }
    teacher = load(kind, classes)
    one, two = (flat(classes)[which] for which in teacher.chunks)
    assert one + two == flat(classes)
    text = ". ".join([*one, two[0]]) + "." if "grounding" in kind else f"Detect {', '.join([*one, two[0]])}."
    assert len(teacher.tokenizer(text)["input_ids"]) > 16  # not a prompt more
    for image, answer in zip(images(), teacher(images()), strict=True):
        rows = [row for texts in (one, two) for row in rows_by_hand(kind, folders[kind], image, classes, texts)]
        same(answer["detection"], suppressed(rows))


@pytest.mark.parametrize("kind", sorted(MAKE))
def test_an_answer_does_not_depend_on_its_batch_nor_much_on_the_precision(load, kind):
    teacher, alike = load(kind, SEVERAL if kind in ("clip", "owlv2") else ONE), noise(2, (40, 60))
    together, alone = teacher(alike), [teacher([image])[0] for image in alike]
    low = load(kind, SEVERAL if kind in ("clip", "owlv2") else ONE, "bf16")(alike)
    for a, b, c in zip(together, alone, low, strict=True):
        for name, target in a.items():
            if name == "classification":
                torch.testing.assert_close(target.probability, b[name].probability, atol=1e-5, rtol=0)
                assert float((target.probability - c[name].probability).abs().max()) < 0.2
            else:
                same(target, rows_of(b[name]))
                assert c[name].box.dtype == torch.float32
                assert len(c[name].box)


@pytest.mark.parametrize("kind", ["owlvit", "owlv2", "grounding", "omdet"])
def test_a_detector_that_answers_nan_finds_not_nothing(load, folders, tmp_path, kind):
    shutil.copytree(folders[kind], tmp_path / "nan")
    for file in (tmp_path / "nan").glob("*.safetensors"):
        weights = {k: torch.full_like(v, float("nan")) if v.is_floating_point() else v
                   for k, v in load_file(file).items()}  # fmt: skip
        save_file(weights, file, {"format": "pt"})
    (tmp_path / "p.yaml").write_text("cat: cat\ndog: dog\n")
    with pytest.raises(ValueError, match=r"fails at every image.*answers NaN"):
        load_teacher(f"transformers:{tmp_path / 'nan'}@{tmp_path / 'p.yaml'}")


def test_the_commands_of_the_page_run(tmp_path, folders, monkeypatch):
    page = (Path(__file__).parent.parent / "docs/guide/prompts.md").read_text()
    (prompts,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    commands = re.findall(r"```bash\n(.*?)```", page, re.S)
    for name in ("owlv2", "clip"):
        shutil.copytree(folders[name], tmp_path / name)
    for name in ("sam", "sam2"):
        sam(tmp_path / name, name)
    store = store_of(tmp_path / "store", noise(4, (40, 60)))
    people = store.create_set("detection", "people", Space(("cat",), "boxes"), {"teacher": "people"})
    people.write(0, store.ids(0), [None] * 4)
    monkeypatch.chdir(tmp_path)
    Path("prompts.yaml").write_text(prompts)
    assert len(commands) == 3
    for command in commands[:2]:
        assert main([*shlex.split(command)[1:], "--no-progress"]) == 0
    assert main([*shlex.split(commands[2])[1:], "--no-progress"]) == 0
    assert {f"{s.task}/{s.name}" for s in store.sets()} == {
        "classification/kind", "detection/found", "detection/boxes", "detection/masks", "detection/people",
        "detection/outlined",
    }  # fmt: skip
    for boxes, masks in zip(answers_of(store, "boxes"), answers_of(store, "masks"), strict=True):
        assert len(masks.mask) == len(boxes.box) > 0


# ---- what is refused ----


WRONG = {
    "": "must hold a list of class names",
    "[]": "names no class",
    "{}": "names no class",
    "just a text": "must hold a list of class names",
    "cat: [": "is no file of prompts",
    "cat: a cat\ncat: the cat": "'cat' is there twice; give all prompts of a class as one list",
    "[cat, dog, ' cat ']": "class 'cat' is there twice",
    "cat: [a cat, a cat]": "class 'cat': prompt 'a cat' is there twice",
    "cat: []": "class 'cat' has no prompt",
    "cat:": "class 'cat' has an empty prompt",
    "cat: [a cat, '  ']": "class 'cat' has an empty prompt",
    "'': a cat": "class 1 has an empty name",
    "cat: {dog: x}": "class 'cat': its prompts must be one text, or a list of texts",
    "cat: [[a cat]]": "class 'cat': its prompts must be one text, or a list of texts",
    "[cat, [dog]]": "entry 2 of the list is no class name",
    "[{cat: a cat}]": "entry 1 of the list is no class name",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_file_that_names_no_classes_is_refused(tmp_path, text):
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"p\.yaml") as told:
        read_prompts(file)
    assert WRONG[text] in str(told.value)
    assert str(told.value).startswith(str(file))


def test_what_a_file_of_prompts_says(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("no: [a sign that says no, ' no ']\n7: seven\n")
    assert read_prompts(file) == Prompts(file, ("no", "7"), (("a sign that says no", "no"), ("seven",)))
    assert read_prompts(file).owners == [0, 0, 1]
    file.write_text("- cat\n- dog\n")
    assert read_prompts(file).flat == ["cat", "dog"]
    (tmp_path / "a@b").mkdir()
    assert split(f"{tmp_path}/a@b") == (f"{tmp_path}/a@b", None)
    assert split(f"{tmp_path}/a@b@{file}") == (f"{tmp_path}/a@b", file)
    with pytest.raises(ValueError, match=r"no file of prompts none.yaml"):
        read_prompts(split("x@none.yaml")[1])


def test_bad_prompts_are_told_before_torch_is_imported(tmp_path, folders):
    store = str(store_of(tmp_path / "s", noise(1)).path)
    (tmp_path / "p.yaml").write_text("cat: []")
    wrong = {
        f"{folders['clip']}@{tmp_path}/p.yaml": "p.yaml: class 'cat' has no prompt",
        f"{folders['clip']}@{tmp_path}/q.yaml": "q.yaml; MODEL@FILE takes a list of class names",
        f"./none@{tmp_path}/p.yaml": "no folder none",
    }
    code = (
        "import json, sys; from polyteach.__main__ import main\n"
        "for argv in json.loads(sys.argv[1]): assert main(argv) == 2; print('---', file=sys.stderr)\n"
        "sys.exit('torch' in sys.modules)"
    )
    commands = [["label", store, "--teacher", f"a=transformers:{name}"] for name in wrong]
    command = [sys.executable, "-c", code, json.dumps(commands)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for said, wanted in zip(run.stderr.split("---\n"), wrong.values(), strict=False):
        assert wanted in " ".join(said.split())


@pytest.mark.parametrize(
    ("kind", "classes", "why"),
    [
        ("clip", {"cat": "a cat"}, "prompts.yaml names one class; probabilities of a single class would be 1"),
        ("clip", {"cat": "a cat", "x": "zyx"}, "class 'x': prompt 'zyx' has no word that the model's text encoder"),
        ("clip", {"cat": "a cat", "dog": "a " * 15}, "class 'dog': prompt .* has 17 tokens, .* takes 16; shorten it"),
        ("siglip", {"cat": "cat", "x": "Cat"}, "class 'x': prompt 'Cat' .* the same text as 'cat' of class 'cat'"),
        ("owlv2", {"cat": ["cat", "CAT"]}, "class 'cat': prompt 'CAT' .* the same text as 'cat' of class 'cat'"),
        ("owlv2", {"dog": "a " * 15}, "has 17 tokens, and the model's text encoder takes 16"),
        ("grounding", {"cat": "a cat."}, "class 'cat': prompt 'a cat.' has a full stop or a question mark"),
        ("grounding", {"cat": "cat? dog"}, "prompt 'cat[?] dog' has a full stop or a question mark"),
        ("grounding", {"cat": "a " * 14}, "has 16 tokens, and the model's text encoder takes 15"),
        ("omdet", {"cat": "a " * 14}, "makes a task of more than the 16 tokens that there may be"),
    ],
)  # fmt: skip
def test_prompts_that_the_model_cannot_tell_apart_are_refused(load, kind, classes, why):
    with pytest.raises(ValueError, match=why):
        load(kind, classes)


def test_who_takes_prompts_and_who_does_not(tmp_path, folders):
    vit = hf.ViTForImageClassification(hf.ViTConfig(**SIGHT, num_labels=3))
    vit.save_pretrained(tmp_path / "vit")
    hf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    (tmp_path / "p.yaml").write_text("[cat, dog]")
    with pytest.raises(
        ValueError, match=r"ViTForImageClassification, which has classes of its own; leave @.*p.yaml out"
    ):
        load_teacher(f"transformers:{tmp_path}/vit@{tmp_path}/p.yaml")
    for kind in ("clip", "owlv2"):
        with pytest.raises(ValueError, match=r"which looks for classes that it is told: say transformers:.*@FILE.yaml"):
            load_teacher(f"transformers:{folders[kind]}")


def test_a_model_that_is_not_asked_as_clip_is_refused(load, folders, monkeypatch, tmp_path):
    prompts = Prompts(tmp_path, ("cat", "dog"), (("cat",), ("dog",)))
    for config, model, lacks in (
        (hf.Blip2Config, hf.Blip2ForImageTextRetrieval, r".*logit_scale"),
        (hf.VideoPrismConfig, hf.VideoPrismClipModel, r".*get_image_features"),
    ):
        with torch.device("meta"):
            other = model(config())
        with pytest.raises(
            ValueError, match=rf"is a {model.__name__}, which is not asked as CLIP is: it has no {lacks}"
        ):
            PromptedClassifier(other, None, "cpu", "fp32", prompts)
    naflex = tmp_path / "naflex"
    tokenizer(naflex, "<s>", "</s>")
    text = TEXT | {"vocab_size": 32, "max_position_embeddings": 16, "projection_size": 16}
    hf.Siglip2Model(hf.Siglip2Config(text_config=text, vision_config=TEXT | {"patch_size": 8})).save_pretrained(naflex)
    hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(naflex)
    (tmp_path / "p.yaml").write_text("[cat, dog]")
    with pytest.raises(ValueError, match=r"Siglip2ImageProcessor of .* makes pixel_values \(1, 16, 192\) of an image"):
        load_teacher(f"transformers:{naflex}@{tmp_path}/p.yaml")
    own = hf.CLIPModel.forward

    def louder(self, **given):
        found = own(self, **given)
        found.logits_per_image = found.logits_per_image * 1.1
        return found

    louder.__signature__ = inspect.signature(own)
    monkeypatch.setattr(hf.CLIPModel, "forward", louder)
    with pytest.raises(ValueError, match="whose logits are not the scaled cosines of image and texts"):
        load("clip", ONE)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("clip", "text_model.final_layer_norm.weight"),
        ("owlv2", "owlv2.text_projection.weight"),
        ("grounding", "model.text_projection.weight"),
        ("omdet", "language_backbone.text_projection"),
    ],
)
def test_weights_that_lack_what_reads_texts_are_refused(tmp_path, folders, load, kind, part):
    shutil.copytree(folders[kind], tmp_path / kind)
    weights = load_file(tmp_path / kind / "model.safetensors")
    weights.pop(part)
    save_file(weights, tmp_path / kind / "model.safetensors", {"format": "pt"})
    (tmp_path / "p.yaml").write_text("cat: a cat\ndog: a dog")
    with pytest.raises(ValueError, match=r"has no weights for .*the answers would be random"):
        load_teacher(f"transformers:{tmp_path}/{kind}@{tmp_path}/p.yaml")


def test_padding_of_another_kind_is_refused(tmp_path, folders):
    (tmp_path / "p.yaml").write_text("cat: a cat\ndog: a dog")
    shutil.copytree(folders["grounding"], tmp_path / "padded")
    size = {"shortest_edge": 64, "longest_edge": 96}
    hf.GroundingDinoImageProcessor(size=size, pad_size={"height": 128, "width": 128}).save_pretrained(
        tmp_path / "padded"
    )
    with pytest.raises(ValueError, match="pads images otherwise than at the right or below to a square"):
        load_teacher(f"transformers:{tmp_path}/padded@{tmp_path}/p.yaml")
    shutil.copytree(folders["owlv2"], tmp_path / "whole")
    hf.Owlv2ImageProcessor(size={"height": 32, "width": 32}, do_pad=False).save_pretrained(tmp_path / "whole")
    assert not load_teacher(f"transformers:{tmp_path}/whole@{tmp_path}/p.yaml").square


def test_a_tokenizer_that_is_none_of_berts_is_refused(tmp_path, folders):
    shutil.copytree(folders["grounding"], tmp_path / "model")
    tokenizer(tmp_path / "model", "<s>", "</s>")
    (tmp_path / "p.yaml").write_text("cat: a cat\ndog: a dog")
    with pytest.raises(ValueError, match=r"the model tells phrases apart by \(101, 102, 1012\), those of BERT"):
        load_teacher(f"transformers:{tmp_path}/model@{tmp_path}/p.yaml")


def test_what_the_answers_come_from_is_recorded(tmp_path, folders):
    store = store_of(tmp_path / "s", noise(3, (40, 60)))
    file = tmp_path / "p.yaml"
    file.write_text("cat: [a cat, kitten]\ndog: a dog\n")
    spec = f"transformers:{folders['owlv2']}@{file}"
    polyteach.label(str(store.path), teachers={"found": spec}, progress=False)
    [labels] = store.sets()
    assert labels.space == Space(("cat", "dog"), "boxes")
    first = labels.info["teacher"]["sha256"]
    assert first == load_teacher(spec).sha256
    assert all(len(a.box) for a in answers_of(store, "found"))
    file.write_text("cat: [a cat, the kitten]\ndog: a dog\n")
    assert load_teacher(spec).sha256 != first
    with pytest.raises(ValueError, match=r"was made otherwise: .*sha256"):
        polyteach.label(str(store.path), teachers={"found": spec}, progress=False)
