"""Models of transformers as teachers: every class of its Auto tables, against the library's own post-processing."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from polyteach.ground.files import sha256
from polyteach.ground.hub_models import closed_repository
from polyteach.tasks.contract import Space
from polyteach.teachers import check_teacher, load_teacher, map_size
from polyteach.verbs.label import label
from tests import tiny
from tests.test_teachers import COCO, checked
from tests.worlds import world

SHAPES = [(48, 64), (64, 40), (90, 120)]
PAGE = Path(__file__).parents[1] / "docs" / "guide" / "teachers.md"
SAID = {
    "Sapiens2ForNormalEstimation": "?axes=right,up,towards",
    "Tipsv2DptForNormalEstimation": "?axes=left,down,away",
    "CHMv2ForDepthEstimation": "?kind=relative",
}
REFUSED = {
    "ImageGPTForImageClassification": r"fails at every image.*makes input_ids of an image, not pixel_values \(1, 3, ",
    "ShieldGemma2ForImageClassification": r"fails at every image.*input_ids",
    "Siglip2ForImageClassification": r"fails at every image.*makes pixel_values \(1, 16, 768\) of an image, not",
    "PromptDepthAnythingForDepthEstimation": r"wants a map of depth .* larger where farther",
    "VideomtForUniversalSegmentation": r"gives no AutoImageProcessor: neither preprocessor_config.json nor",
} | {
    f"PPOCR{version}DetForObjectDetection": r"finds text as quadrilaterals, 4 points each"
    for version in ("V5Mobile", "V5Server", "V6Medium", "V6Small")
}
UNTESTED = {"DinatForImageClassification": "needs the package natten"}
CLASSES = list({name: (task, kind, name) for task, kind, name in tiny.architectures() if "zero" not in task}.values())


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Hubs are not asked."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def pictures():
    """Differently shaped images with some structure, so that models answer differently."""
    draw = torch.Generator().manual_seed(1)
    coarse = [torch.rand(1, 3, 3, 4, generator=draw) for _ in SHAPES]
    return [
        (F.interpolate(c, s, mode="bicubic").clamp(0, 1)[0] * 255).to(torch.uint8)
        for c, s in zip(coarse, SHAPES, strict=True)
    ]


def pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def rows():
    """Model -> verdict of the table on the page, and the version that it was made of."""
    text = PAGE.read_text(encoding="utf-8")
    version = re.search(r"^### transformers (\S+)$", text, re.M)[1]
    section = text.partition(f"### transformers {version}\n")[2].partition("\n### ")[0]
    return {
        cells[1]: cells[3]
        for cells in (re.split(r" ?\| ?", x) for x in section.splitlines())
        if len(cells) > 4 and cells[1] not in ("model", "---")
    }, version


# --- every class


@pytest.mark.parametrize(("task", "kind", "name"), CLASSES, ids=[name for _, _, name in CLASSES])
def test_every_class(task, kind, name, tmp_path, pictures):
    """A tiny model of each class, kept and loaded as a real one is, answers what the library makes of its outputs."""
    if name in UNTESTED:
        pytest.skip(UNTESTED[name])
    if PAGE.exists() and name not in rows()[0]:
        pytest.skip(f"{name} is new in transformers {transformers.__version__}: test_the_table_has_every_class")
    model, *parts = tiny.tiny(kind, name)
    spec = f"transformers:{tiny.kept(tmp_path, model, *parts)}{SAID.get(name, '')}"
    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name]) as e:
            load_teacher(spec)
        assert "\n" not in str(e.value)
        return
    teacher = load_teacher(spec)
    answers = checked(teacher, pictures)
    for image, answer in zip(pictures, answers, strict=True):
        HELD[task](teacher, model, parts, image, answer)


def asked(model, processor, image, **more):
    """What the model answers about an image of PIL's, with all that its processor gives."""
    made = processor(images=[pil(image)], return_tensors="pt", **more)
    taken = {k: v for k, v in made.items() if k in ("pixel_values", "pixel_mask")}
    if isinstance(model, tuple(MASKLESS)):
        taken.pop("pixel_mask", None)
    with torch.no_grad():
        return model(**taken), made["pixel_values"].shape[-2:]


MASKLESS = [transformers.YolosForObjectDetection]


def held_classes(teacher, model, parts, image, answer):
    with torch.no_grad():
        made = parts[0](pil(image), return_tensors="pt")
        found = model(pixel_values=made["pixel_values"])
    logits = found["logits"] if "logits" in found else found["last_hidden_state"]
    expected = logits.softmax(-1)[0]
    torch.testing.assert_close(answer["classification"].probability, expected, rtol=1e-3, atol=1e-3)


def held_boxes(teacher, model, parts, image, answer):
    found, _ = asked(model, parts[0], image)
    (expected,) = parts[0].post_process_object_detection(
        found, threshold=0.05, target_sizes=torch.tensor([image.shape[1:]])
    )
    target = answer["detection"]
    assert len(target.score) == len(expected["scores"]) > 0
    # of equal scores any order is right
    mine, theirs = target.score.sort(descending=True), expected["scores"].sort(descending=True)
    torch.testing.assert_close(mine.values, theirs.values, rtol=1e-3, atol=1e-3)
    together = [
        sorted((round(float(s), 2), int(c), *(round(float(x)) for x in b)) for s, c, b in zip(*three, strict=True))
        for three in (
            (target.score, target.category, target.box),
            (expected["scores"], expected["labels"], expected["boxes"]),
        )
    ]
    near = np.abs(np.array(together[0]) - np.array(together[1])).max(1) <= 1
    assert near.mean() > 0.7  # rounding sorts some otherwise


def held_regions(teacher, model, parts, image, answer):
    more = {"do_center_crop": False} if getattr(parts[0], "do_center_crop", False) else {}
    found, _ = asked(model, parts[0], image, **more)
    cells = tuple(answer["segmentation"].category.shape)
    (expected,) = parts[0].post_process_semantic_segmentation(found, target_sizes=[cells])
    assert (answer["segmentation"].category == expected).float().mean() > 0.98


def by_formula(found, image, shown=None):
    """MaskFormer's semantic inference at the image's size: sum over queries of p(class) * p(pixel in mask).

    shown: height and width of the image in the input, of all that the masks cover.
    """
    classes = found.get("class_queries_logits", found.get("logits"))[0].softmax(-1)[:, :-1]
    masks = found.get("masks_queries_logits", found.get("pred_masks"))
    if shown:
        (h, w), size = shown
        masks = F.interpolate(masks, size, mode="bilinear")[..., :h, :w]
    inside = F.interpolate(masks, image.shape[1:], mode="bilinear")[0].sigmoid()
    return torch.einsum("qk,qmn->kmn", classes, inside)


def held_universal(teacher, model, parts, image, answer):
    if "segmentation" not in answer:
        held_outlines(teacher, model, parts, image, answer)
        return
    made = parts[0](images=[pil(image)], return_tensors="pt")
    taken = {k: v for k, v in made.items() if k in ("pixel_values", "pixel_mask")}
    if model.config.model_type.startswith("eomt"):
        taken.pop("pixel_mask", None)
    if model.config.model_type == "oneformer":
        words = transformers.OneFormerProcessor(parts[0], parts[1], task_seq_length=model.config.task_seq_len)
        taken["task_inputs"] = words(pil(image), ["semantic"], return_tensors="pt")["task_inputs"]
    with torch.no_grad():
        found = model(**taken)
    shown = None
    if getattr(parts[0], "do_pad", False) and model.config.model_type.startswith("eomt"):
        h, w = image.shape[1:]  # the longer side becomes SIDE, the rest is padding
        scale = tiny.SIDE / max(h, w)
        shown = (int(h * scale), int(w * scale)), tuple(made["pixel_values"].shape[-2:])
    expected = by_formula(found, image, shown).max(0)
    target = answer["segmentation"]
    assert target.category.shape == image.shape[1:]
    assert (target.category == expected.indices).float().mean() > 0.97
    torch.testing.assert_close(target.probability, expected.values.clamp(max=1), rtol=0.05, atol=0.02)


def held_outlines(teacher, model, parts, image, answer):
    found, _ = asked(model, parts[0], image)
    size = tuple(image.shape[1:])
    (boxes,) = parts[0].post_process_object_detection(found, threshold=0.05, target_sizes=[size])
    (masks,) = parts[0].post_process_instance_segmentation(
        found, threshold=0.05, target_sizes=[size], return_binary_maps=True
    )
    target = answer["detection"]
    assert len(target.box) == len(boxes["boxes"]) == len(masks["segments_info"]) > 0
    torch.testing.assert_close(target.box, boxes["boxes"], rtol=1e-3, atol=0.05)
    torch.testing.assert_close(target.score, boxes["scores"], rtol=1e-3, atol=1e-3)
    assert torch.equal(target.category, boxes["labels"])
    assert (target.mask == masks["segmentation"].bool()).float().mean() > 0.98


def held_depth(teacher, model, parts, image, answer):
    found, seen = asked(model, parts[0], image)
    cells = tuple(answer["depth"].value.shape)
    pads = model.config.model_type == "chmv2" and tuple(seen) != tuple(image.shape[1:])
    if pads:  # around the image, and leaves it to others to take that off
        h, w = image.shape[1:]
        top, left = (seen[0] - h) // 2, (seen[1] - w) // 2
        whole = F.interpolate(found.predicted_depth[:, None], seen, mode="bicubic")
        expected = F.interpolate(whole[..., top : top + h, left : left + w], cells, mode="bicubic")[0, 0]
        torch.testing.assert_close(answer["depth"].value, expected, rtol=1e-3, atol=1e-3)
        return
    more = {"source_sizes": [tuple(image.shape[1:])]} if model.config.model_type == "zoedepth" else {}
    (expected,) = parts[0].post_process_depth_estimation(found, target_sizes=[cells], **more)
    value = answer["depth"].value
    torch.testing.assert_close(value, expected["predicted_depth"].reshape(value.shape), rtol=0.05, atol=2e-2)
    metric = model.config.model_type in ("depth_pro", "glpn", "tipsv2_dpt", "zoedepth")
    assert teacher.objectives["depth"].space.kind == ("metric" if metric else "relative inverse")


def held_normals(teacher, model, parts, image, answer):
    found, _ = asked(model, parts[0], image)
    cells = tuple(answer["normals"].valid.shape)
    (made,) = parts[0].post_process_normal_estimation(found, target_sizes=[cells])
    x, y, z = F.normalize(made["normals"], dim=0)
    # ours are right, down, away: of "right up towards", and of "left down away"
    expected = torch.stack([x, -y, -z] if model.config.model_type == "sapiens2" else [-x, y, z])
    got = answer["normals"].normal
    assert (got * expected).sum(0).quantile(0.05) > 0.98
    assert got.flatten(1).std(1).min() > 0.01


HELD = {
    "image classification": held_classes,
    "object detection": held_boxes,
    "semantic segmentation": held_regions,
    "universal segmentation": held_universal,
    "instance segmentation": held_universal,
    "depth estimation": held_depth,
    "normal estimation": held_normals,
}


# --- the table


def test_the_table_has_every_class():
    """A class of the installed release is in the table; one of a newer release is untested until it is made anew."""
    told, version = rows()
    there = {name for _, _, name in tiny.architectures()}
    missing = sorted(there - set(told))
    if transformers.__version__ == version:
        assert not missing, f"write the table anew: python benchmarks/models.py --write ({', '.join(missing)})"
        assert not set(told) - there
    elif missing:
        pytest.skip(f"new since transformers {version}, untested: {', '.join(missing)}")


def test_the_table_says_what_the_tests_say():
    told, version = rows()
    if transformers.__version__ != version:
        pytest.skip(f"the table is of transformers {version}")
    for _, _, name in CLASSES:
        wanted = "untested" if name in UNTESTED else "refused" if name in REFUSED else "works"
        assert told[name].startswith(wanted), name
        assert ("with ?" in told[name]) == (name in SAID), name


# --- what is said of a model


def kept(folder, kind, name, **more):
    model, *parts = tiny.tiny(kind, name, **more)
    return model, parts, tiny.kept(folder, model, *parts)


def test_what_depth_means_is_said_where_the_files_do_not_say_it(tmp_path):
    _, _, chm = kept(tmp_path / "chm", "chmv2", "CHMv2ForDepthEstimation")
    with pytest.raises(ValueError, match=r"nothing says what the depth of .*chm means: a chmv2 answers heights") as e:
        load_teacher(f"transformers:{chm}")
    assert "kind=metric" not in str(e.value)
    with pytest.raises(ValueError, match=r"kind=metric is said of .*chm, but a chmv2 answers heights .*kind=relative"):
        load_teacher(f"transformers:{chm}?kind=metric")
    teacher = load_teacher(f"transformers:{chm}?kind=relative")
    assert teacher.objectives["depth"].space == Space((), "relative inverse")
    assert teacher.spec == f"transformers:{chm}?kind=relative"  # kept with the labels
    _, _, dpt = kept(tmp_path / "dpt", "dpt", "DPTForDepthEstimation")
    kinds = [load_teacher(f"transformers:{dpt}{x}").objectives["depth"].space.kind for x in ("", "?kind=metric")]
    assert kinds == ["relative inverse", "metric"]


@pytest.mark.parametrize(
    ("kind", "name", "is_", "said"),
    [
        ("glpn", "GLPNForDepthEstimation", "metric", "relative"),
        ("tipsv2_dpt", "Tipsv2DptForDepthEstimation", "metric", "relative"),
        ("depth_anything", "DepthAnythingForDepthEstimation", "relative inverse", "metric"),
    ],
)
def test_what_is_said_may_not_contradict_the_model(kind, name, is_, said, tmp_path):
    _, _, folder = kept(tmp_path, kind, name)
    with pytest.raises(ValueError, match=rf"kind={said} is said of .*, whose depth is {is_}: "):
        load_teacher(f"transformers:{folder}?kind={said}")
    same = is_.split()[0]
    assert load_teacher(f"transformers:{folder}?kind={same}").objectives["depth"].space.kind == is_


def test_a_model_that_wants_a_prompt_of_depth_is_asked_where_it_answers_metres(tmp_path):
    metres = {"depth_estimation_type": "metric", "max_depth": 20}
    _, _, folder = kept(tmp_path, "prompt_depth_anything", "PromptDepthAnythingForDepthEstimation", **metres)
    assert load_teacher(f"transformers:{folder}").objectives["depth"].space.kind == "metric"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("?knd=metric", r"'knd=metric' is no option of such a teacher; it takes \?axes=right,up,towards or "
                        r"\?kind=metric. Did you mean kind\?"),
        ("?kind", "'kind' is no option"),
        ("?kind=", "'kind=' is no option"),
        ("?kind=metres", r"unknown kind of depth 'metres'; there are metric, relative, relative inverse"),
        ("?kind=metric&kind=metric", "kind is said twice"),
        ("?axes=right,right,up", r"axes says where x, y and z point.*got 'right,right,up'"),
    ],
)  # fmt: skip
def test_options_that_there_are_not_are_told_before_the_model_is_read(said, error, tmp_path):
    with pytest.raises(ValueError, match=error):
        check_teacher(f"transformers:{tmp_path}{said}")
    with pytest.raises(ValueError, match=error):
        load_teacher(f"transformers:{tmp_path}{said}")


def test_options_of_another_kind_of_model(tmp_path):
    _, _, folder = kept(tmp_path, "vit", "ViTForImageClassification")
    with pytest.raises(ValueError, match=r"kind is said of .*, a ViTForImageClassification; it is for .* depth"):
        load_teacher(f"transformers:{folder}?kind=metric")
    with pytest.raises(ValueError, match=r"axes is said of .*; it is for estimators of normals"):
        load_teacher(f"transformers:{folder}?axes=right,up,towards")


def test_a_folder_with_a_question_mark_is_a_folder(tmp_path):
    _, _, folder = kept(tmp_path / "a?kind=metric", "vit", "ViTForImageClassification")
    assert set(load_teacher(f"transformers:{folder}").objectives) == {"classification"}


def test_axes_have_to_be_said(tmp_path):
    _, _, folder = kept(tmp_path, "sapiens2", "Sapiens2ForNormalEstimation")
    with pytest.raises(ValueError, match=r"nothing says where x, y and z of the normals .* point; .*\?axes=right,up,"):
        load_teacher(f"transformers:{folder}")
    spaces, commas = (load_teacher(f"transformers:{folder}?axes={x}") for x in ("right up towards", "right,up,towards"))
    assert spaces.axes == commas.axes == ([0, 1, 2], [1, -1, -1])


def test_normals_without_the_padding(tmp_path, pictures):
    """Sapiens2 fits an image into a canvas, in its middle; the map is of the image alone."""
    model, parts, _ = kept(tmp_path, "sapiens2", "Sapiens2ForNormalEstimation")
    processor = type(parts[0])(size={"height": 64, "width": 64}, do_pad=True)
    tiny.kept(tmp_path, model, processor)
    teacher = load_teacher(f"transformers:{tmp_path}?axes=right,down,away")
    for image, answer in zip(pictures, checked(teacher, pictures), strict=True):
        found, _ = asked(model, processor, image)
        cells, size = tuple(answer["normals"].valid.shape), tuple(image.shape[1:])
        (made,) = processor.post_process_normal_estimation(found, source_sizes=[size], target_sizes=[cells])
        expected = F.normalize(made["normals"], dim=0)
        assert (answer["normals"].normal * expected).sum(0).quantile(0.1) > 0.97


# --- masks by queries


def pieces(folder):
    """An EoMT that sees an image in pieces along its longer side."""
    model, parts, _ = kept(folder, "eomt", "EomtForUniversalSegmentation")
    said = {"size": {"shortest_edge": tiny.SIDE, "longest_edge": None}, "do_split_image": True, "do_pad": False}
    processor = type(parts[0])(**said)
    return model, processor, tiny.kept(folder, model, processor)


def test_eomt_in_pieces_is_put_together(tmp_path, pictures):
    """The mean of the pieces' sums of p(class) * p(pixel in mask), where they overlap."""
    model, processor, folder = pieces(tmp_path)
    teacher = load_teacher(f"transformers:{folder}")
    assert set(teacher.objectives) == {"segmentation"}
    for image, answer in zip(pictures, checked(teacher, pictures), strict=True):
        made = processor(images=[pil(image)], return_tensors="pt")
        count = len(made["pixel_values"])
        assert count > 1
        with torch.no_grad():
            found = model(pixel_values=made["pixel_values"])
        tall = image.shape[1] > image.shape[2]
        longer = int(tiny.SIDE * max(image.shape[1:]) / min(image.shape[1:]))
        total, seen = torch.zeros(3, longer, tiny.SIDE), torch.zeros(longer, 1)
        for i in range(count):
            start = int(i * (tiny.SIDE - (count * tiny.SIDE - longer) / (count - 1)))
            part = by_formula({k: v[i : i + 1] for k, v in found.items() if "queries" in k}, torch.zeros(3, 64, 64))
            total[:, start : start + tiny.SIDE] += part if tall else part.mT
            seen[start : start + tiny.SIDE] += 1
        whole = total / seen
        shape = tuple(answer["segmentation"].category.shape)
        expected = F.interpolate((whole if tall else whole.mT)[None], shape, mode="bilinear")[0].max(0)
        assert shape == map_size(tuple(image.shape[1:]), (longer, 64) if tall else (64, longer))
        assert (answer["segmentation"].category == expected.indices).float().mean() > 0.98
        torch.testing.assert_close(
            answer["segmentation"].probability, expected.values.clamp(max=1), rtol=0.02, atol=0.02
        )


def test_eomt_without_padding_is_refused_when_it_is_loaded(tmp_path):
    model, parts, _ = kept(tmp_path, "eomt", "EomtForUniversalSegmentation")
    tiny.kept(tmp_path, model, type(parts[0])(size={"shortest_edge": 64, "longest_edge": 64}, do_pad=False))
    with pytest.raises(ValueError, match=r"fails at every image"):
        load_teacher(f"transformers:{tmp_path}")


def test_things_in_pieces_are_refused(tmp_path):
    coco = {"id2label": dict(enumerate(COCO)), "label2id": {n: i for i, n in enumerate(COCO)}}
    model, processor = tiny.tiny("eomt", "EomtForUniversalSegmentation", **coco)
    pieces(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    tiny.kept(tmp_path, model, processor)
    with pytest.raises(ValueError, match=r"cuts an image into pieces, and things with it, .*do_split_image to false"):
        load_teacher(f"transformers:{tmp_path}")


ADE = {
    "0": {"name": "class 0", "isthing": 0},
    "1": {"name": "class 1", "isthing": 1},
    "2": {"name": "class 2", "isthing": 1},
}


def oneformer(folder, info=None, repo_path=None, content=ADE):
    model, *parts = tiny.tiny("oneformer", "OneFormerForUniversalSegmentation")
    with torch.no_grad():
        model.model.transformer_module.decoder.class_embed.weight.mul_(3)  # else it is sure of nothing
        model.model.transformer_module.decoder.class_embed.bias.copy_(torch.tensor([0, 2.0, 2, 0]))
    tiny.kept(folder, model, *parts)
    file = folder / "preprocessor_config.json"
    said = json.loads(file.read_text()) | {"class_info_file": info, "repo_path": repo_path}
    file.write_text(json.dumps(said))
    if info and "/" not in info and content is not None:
        (folder / info).write_text(json.dumps(content))
    return model, parts, f"transformers:{folder}"


def test_oneformer_is_told_its_task_for_each_answer(tmp_path, pictures):
    """Things with the token of "instance", as its class file says which they are; the map with that of "semantic"."""
    model, parts, spec = oneformer(tmp_path, "ade.json", "shi-labs/oneformer_demo")
    teacher = load_teacher(spec)
    assert teacher.objectives["detection"].space == Space(("class 1", "class 2"), "boxes and masks")
    words = transformers.OneFormerProcessor(parts[0], parts[1], task_seq_length=model.config.task_seq_len)
    seen = 0
    for image, answer in zip(pictures, checked(teacher, pictures), strict=True):
        made = words(pil(image), ["instance"], return_tensors="pt")
        assert torch.equal(teacher.tokens["detection"], made["task_inputs"].float())
        with torch.no_grad():
            found = model(**{k: made[k] for k in ("pixel_values", "pixel_mask", "task_inputs")})
        probability, category = found.class_queries_logits[0].softmax(-1)[:, :-1].max(-1)
        inside = F.interpolate(found.masks_queries_logits, image.shape[1:], mode="bilinear")[0].sigmoid()
        mask = inside > 0.5
        score = probability * (inside * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
        real = (score >= 0.05) & (category > 0) & mask.any(2).any(1)
        target = answer["detection"]
        torch.testing.assert_close(target.score, score[real], rtol=0.02, atol=0.01)
        assert torch.equal(target.category, category[real] - 1)
        assert target.mask.shape == mask[real].shape
        assert (target.mask != mask[real]).float().sum() <= 0.02 * mask[real].numel()
        seen += len(target.score)
    assert seen
    assert not torch.equal(teacher.tokens["detection"], teacher.tokens["segmentation"])


@pytest.mark.parametrize(
    ("info", "repo_path", "said"),
    [
        ("../classes.json", None, "lies outside"),
        ("/etc/passwd", None, "lies outside"),
        ("link.json", None, "lies outside"),
        ("classes.json", "/etc", r"repo_path '/etc' lies outside"),
        ("classes.json", "../other", r"repo_path '../other' lies outside"),
        (["classes.json"], None, "class_info_file and repo_path must be names"),
    ],
)
def test_oneformers_class_file_stays_in_its_folder(info, repo_path, said, tmp_path):
    outside = tmp_path / "classes.json"
    outside.write_text(json.dumps(ADE))
    folder = tmp_path / "net"
    _, _, spec = oneformer(folder, info if isinstance(info, str) else None, repo_path, None)
    if not isinstance(info, str):
        file = folder / "preprocessor_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"class_info_file": info}))
    (folder / "link.json").symlink_to(outside)
    with pytest.raises(ValueError, match=said):
        load_teacher(spec)


def test_oneformers_class_file_is_about_its_classes(tmp_path):
    wrong = ADE | {"2": {"name": "lamp", "isthing": 1}}
    _, _, spec = oneformer(tmp_path, "ade.json", None, wrong)
    with pytest.raises(ValueError, match=r"ade.json names other classes than id2label"):
        load_teacher(spec)
    for content in ({"0": {"name": "class 0"}}, [ADE], {"0": "class 0"}, 3):
        (tmp_path / "ade.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"must say name and isthing of each class"):
            load_teacher(spec)
    (tmp_path / "ade.json").write_bytes(b"[" * 100_000)
    with pytest.raises(ValueError, match=r"ade.json .*nested too deeply"):
        load_teacher(spec)
    (tmp_path / "ade.json").unlink()  # then no hub is asked for it, and only names tell what can be counted
    assert set(load_teacher(spec).objectives) == {"segmentation"}
    for name in ("tokenizer.json", "vocab.json"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"has no tokenizer.json or vocab.json, by which OneFormer is told its task"):
        load_teacher(spec)


def test_a_class_without_an_object_is_left_out_with_its_mask(tmp_path, pictures):
    labels = {"id2label": {0: "cup", 1: "N/A", 2: "hat"}, "label2id": {"cup": 0, "N/A": 1, "hat": 2}}
    _, _, folder = kept(tmp_path, "rf_detr", "RfDetrForInstanceSegmentation", **labels)
    teacher = load_teacher(f"transformers:{folder}")
    assert teacher.objectives["detection"].space.names == ("cup", "hat")
    for answer in checked(teacher, pictures):
        target = answer["detection"]
        assert len(target.mask) == len(target.box)
        assert set(target.category.tolist()) <= {0, 1}


BOXES = [(kind, name) for task, kind, name in CLASSES if task in ("object detection", "instance segmentation")]


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, n in BOXES if n not in REFUSED and "MaskFormer" not in n])
def test_boxes_keep_their_precision(kind, name, tmp_path, pictures):
    """In bfloat16 a fraction of a side has steps of 2^-8: what makes boxes stays in float32, what comes before not."""
    _, _, folder = kept(tmp_path, kind, name)
    exact, low = (load_teacher(f"transformers:{folder}", precision=x) for x in ("fp32", "bf16"))
    with torch.inference_mode():
        fine, coarse = (t.outputs(t.inputs(pictures[0])[None])["pred_boxes"] for t in (exact, low))
    assert coarse.dtype == torch.float32
    assert (coarse == coarse.bfloat16().float()).float().mean() < 0.2
    assert (fine - coarse).abs().max() > 1e-4  # another layout in memory alone gives 1e-6
    if "masks" in low.objectives["detection"].space.kind:
        checked(low, pictures[:1])


def without(folder, *starts):
    """The folder's weights without those whose names begin so."""
    file = Path(folder) / "model.safetensors"
    state = load_file(file)
    left = {k: v for k, v in state.items() if not k.startswith(starts)}
    assert len(left) < len(state)
    save_file(left, file, metadata={"format": "pt"})


def test_models_of_masks_are_never_random(tmp_path, pictures):
    """Also those that are told more than an image, or asked in pieces."""
    _, _, spec = oneformer(tmp_path / "one", None)
    without(tmp_path / "one", "model.task_encoder")
    with pytest.raises(ValueError, match=r"no weights for model.task_encoder.*random"):
        load_teacher(spec)
    _, _, folder = pieces(tmp_path / "pieces")
    without(folder, "mask_head")
    with pytest.raises(ValueError, match=r"no weights for mask_head.*random"):
        load_teacher(f"transformers:{folder}")


def test_labels_keep_what_was_said(tmp_path):
    """From a folder to a store: normals with their axes, and the spec with the labels."""
    _, _, folder = kept(tmp_path / "net", "sapiens2", "Sapiens2ForNormalEstimation")
    store = world(tmp_path / "store", tasks=("classification",))
    spec = f"transformers:{folder}?axes=right up towards"
    label(store, teachers={"up": spec}, device=("cpu",), progress=False)
    about = json.loads((Path(store) / "labels" / "normals" / "up" / "set.json").read_text())
    assert about["info"]["teacher"]["spec"] == spec
    assert re.fullmatch("[0-9a-f]{64}", about["info"]["teacher"]["sha256"])


# --- malformed answers


def test_answers_that_are_no_boxes_cost_an_image_and_no_more(tmp_path, pictures, monkeypatch):
    _, _, folder = kept(tmp_path, "yolos", "YolosForObjectDetection")
    teacher = load_teacher(f"transformers:{folder}")
    corners = {"boxes": torch.zeros(2, 4, 2), "labels": torch.zeros(2, dtype=torch.long), "scores": torch.ones(2)}
    monkeypatch.setattr(teacher.processor, "post_process_object_detection", lambda *_, **__: [corners], raising=False)
    with pytest.raises(ValueError, match=r"boxes of \(2, 4, 2\), quadrilaterals of 4 points each, not \(K, 4\)"):
        teacher(pictures[:1])


def test_quadrilaterals_are_refused_when_the_model_is_loaded(tmp_path, monkeypatch):
    """Also of a class that is not known to answer them."""
    _, _, folder = kept(tmp_path, "yolos", "YolosForObjectDetection")
    corners = {"boxes": torch.zeros(2, 4, 2), "labels": torch.zeros(2, dtype=torch.long), "scores": torch.ones(2)}
    made = transformers.YolosImageProcessor
    monkeypatch.setattr(made, "post_process_object_detection", lambda *_, **__: [corners])
    with pytest.raises(ValueError, match=r"fails at every image.*quadrilaterals of 4 points each, not \(K, 4\)"):
        load_teacher(f"transformers:{folder}")


def test_a_model_that_fails_at_one_size_alone_is_a_teacher(tmp_path, monkeypatch):
    """One image may be lost: the model is refused where it fails at each."""
    _, _, folder = kept(tmp_path, "vit", "ViTForImageClassification")
    inner, asked_about = transformers.ViTImageProcessor.__call__, []

    def picky(self, images, **more):
        asked_about.append(tuple(images[0].shape))
        if len(set(asked_about)) == 1:
            raise KeyError("this size")
        return inner(self, images, **more)

    monkeypatch.setattr(transformers.ViTImageProcessor, "__call__", picky)
    load_teacher(f"transformers:{folder}")
    assert len(set(asked_about)) == 2
    assert all(h != w for _, h, w in asked_about)
    asked_about.clear()
    monkeypatch.setattr(transformers.ViTImageProcessor, "__call__", lambda *_, **__: {"pixel_values": None})
    with pytest.raises(ValueError, match=r"fails at every image.*ViTImageProcessor of .* makes pixel_values of"):
        load_teacher(f"transformers:{folder}")


def test_answers_that_are_none_are_refused_when_the_model_is_loaded(tmp_path):
    model, _, folder = kept(tmp_path, "vit", "ViTForImageClassification")
    with torch.no_grad():
        model.classifier.bias.fill_(torch.nan)
    tiny.kept(tmp_path, model)
    with pytest.raises(ValueError, match=r"fails at every image.*answers NaN \(logits\)"):
        load_teacher(f"transformers:{folder}")


def test_what_the_machine_lacks_is_no_fault_of_the_model(tmp_path, monkeypatch):
    _, _, folder = kept(tmp_path, "vit", "ViTForImageClassification")

    def large(*_, **__):
        raise torch.OutOfMemoryError("of the device")

    monkeypatch.setattr(transformers.ViTForImageClassification, "forward", large)
    with pytest.raises(torch.OutOfMemoryError):
        load_teacher(f"transformers:{folder}")


# --- where a model comes from


def test_the_hash_is_of_all_that_determines_the_answer(tmp_path):
    _, parts, folder = kept(tmp_path / "a", "vit", "ViTForImageClassification")
    model, _, _ = kept(tmp_path / "b", "vit", "ViTForImageClassification")
    spec = f"transformers:{folder}"
    first = load_teacher(spec).sha256
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert load_teacher(f"transformers:{tmp_path / 'b'}").sha256 == first  # wherever it lies
    shutil.rmtree(tmp_path / "b")
    model.save_pretrained(tmp_path / "b", max_shard_size="20KB")  # in several files it is the same
    tiny.kept(tmp_path / "b", parts[0])
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 1
    assert load_teacher(f"transformers:{tmp_path / 'b'}").sha256 == first
    found = {first}
    for name, key, value in (
        ("preprocessor_config.json", "image_mean", [0.1, 0.2, 0.3]),
        ("config.json", "layer_norm_eps", 1e-3),
    ):
        file = tmp_path / "b" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
        found.add(load_teacher(f"transformers:{tmp_path / 'b'}").sha256)
    with torch.no_grad():
        model.classifier.bias[0] += 1
    model.save_pretrained(tmp_path / "a")
    found.add(load_teacher(spec).sha256)
    assert len(found) == 4
    assert first != sha256(tmp_path / "a" / "model.safetensors")


def test_the_hash_of_oneformer_is_of_its_classes_and_words_too(tmp_path):
    _, _, spec = oneformer(tmp_path, "ade.json")
    found = {load_teacher(spec).sha256}
    (tmp_path / "ade.json").write_text(json.dumps(ADE | {"2": {"name": "class 2", "isthing": 0}}))
    found.add(load_teacher(spec).sha256)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text() + "\n")
    found.add(load_teacher(spec).sha256)
    assert len(found) == 3


def hub_error(kind, status):
    from huggingface_hub.utils import httpx  # whichever it brings

    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/owner/model"))
    return kind(f"{status} Client Error.\n\nCannot access it.\nPlease log in.", response=response)


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        (GatedRepoError, 403, r"owner/model is gated: accept its licence on https://huggingface.co/owner/model, then "
                              r"log in here with `hf auth login`"),
        (RepositoryNotFoundError, 401, r"there is no https://huggingface.co/owner/model, or it is private: .*auth"),
    ],
)  # fmt: skip
def test_a_closed_repository_is_told_with_its_remedy(kind, status, said, monkeypatch):
    def closed(*_, **__):
        raise hub_error(kind, status)

    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", closed)
    monkeypatch.setattr("transformers.utils.hub.snapshot_download", closed)
    with pytest.raises(ValueError, match=said) as e:
        load_teacher("transformers:owner/model")
    assert "\n" not in str(e.value)
    assert closed_repository(OSError("no such thing"), "owner/model") is None
