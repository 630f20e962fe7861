"""Small models of real kinds, trained for a minute or two each on rendered shapes, and saved as their libraries do.

Nobody's pretrained weights are at hand where there is no internet. What is small here is the model: its class, its
files and its processor are the library's, so that polyteach reads it by the code that reads the large ones.

Shapes: N images, B of a batch, S pixels a side, M objects of an image at most, Q places that a box comes from, P texts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou_loss, sigmoid_focal_loss

from polyteach.store import Store
from polyteach.tasks.depth import DepthTarget
from polyteach.tasks.detection import DetectionTarget

SIZE = 96
"""Side of an image, in pixels."""
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
STRIDE = 8
BATCH = 16


@dataclass(frozen=True)
class Lessons:
    """Labelled images. image: uint8 (N, 3, S, S). box: (N, M, 4), x0 y0 x1 y1 in pixels. category: (N, M), -1 for none.

    mask: bool (N, M, S, S). depth: (N, S, S), metres. names: of the categories.
    """

    image: Tensor
    box: Tensor
    category: Tensor
    mask: Tensor
    depth: Tensor
    names: tuple[str, ...]

    def batch(self, draw: torch.Generator) -> "Lessons":
        """Some of them at random, half of these batches mirrored."""
        rows = torch.randint(len(self.image), (BATCH,), generator=draw)
        image, box, mask, depth = self.image[rows], self.box[rows], self.mask[rows], self.depth[rows]
        if torch.rand(1, generator=draw) < 0.5:
            image, mask, depth = image.flip(-1), mask.flip(-1), depth.flip(-1)
            box = torch.stack([SIZE - box[..., 2], box[..., 1], SIZE - box[..., 0], box[..., 3]], -1)
        return Lessons(image, box, self.category[rows], mask, depth, self.names)


def lessons(store: Store) -> Lessons:
    """All of a store that people labelled for detection, with outlines, and depth."""
    sets = {s.task: s for s in store.sets() if s.by_people}
    images, found, depths = [], [], []
    for part in store.parts():
        images += [store.image(row) for row in store.images(part)]
        found += [a for a in sets["detection"].read(part) if isinstance(a, DetectionTarget)]
        depths += [a.value for a in sets["depth"].read(part) if isinstance(a, DepthTarget)]
    most = max(len(t.box) for t in found)
    box, category = torch.zeros(len(found), most, 4), torch.full((len(found), most), -1)
    mask = torch.zeros(len(found), most, SIZE, SIZE, dtype=torch.bool)
    for i, target in enumerate(found):
        keep = ~target.ignore
        k = int(keep.sum())
        assert target.mask is not None
        box[i, :k], category[i, :k], mask[i, :k] = target.box[keep], target.category[keep], target.mask[keep]
    names = sets["detection"].space.names
    return Lessons(torch.stack(images), box, category, mask, torch.stack(depths).float(), names)


def fit(
    model: nn.Module, loss: Callable[[Lessons], Tensor], data: Lessons, steps: int, lr: float = 1e-3
) -> list[float]:
    """Train; returns the loss of every step."""
    draw = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=min(0.1, 50 / steps))
    told = []
    model.train()
    for _ in range(steps):
        found = loss(data.batch(draw))
        optimiser.zero_grad()
        found.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        told.append(found.item())
    model.eval()
    return told


def normalised(image: Tensor) -> Tensor:
    return (image.float() / 255 - MEAN[0]) / STD[0]


# ------------------------------------------------------------------------------------ detectors: a box at each place


def owned(data: Lessons, place: Tensor, radius: float) -> Tensor:
    """Which object each place answers for: (B, Q) indices, -1 where none.

    The nearest of those whose centre is less than `radius` pixels away; an object's nearest place always is its.
    place: (Q, 2), x y in pixels.
    """
    centre = (data.box[..., :2] + data.box[..., 2:]) / 2
    far = (centre[:, :, None] - place).norm(dim=-1).masked_fill((data.category < 0)[..., None], math.inf)  # B M Q
    near = far == far.amin(-1, keepdim=True)
    far = far.masked_fill((far >= radius) & ~(near & far.isfinite()), math.inf)
    least, which = far.min(1)
    return which.masked_fill(least.isinf(), -1)


def detection_loss(
    data: Lessons, logit: Tensor, box: Tensor, place: Tensor, radius: float, fits: Tensor | None = None
) -> Tensor:
    """logit: (B, Q, K). box: (B, Q, 4), x0 y0 x1 y1 in pixels. Focal loss of classes, generalised IoU of boxes.

    fits: (categories, K), 1 where a class of the logits is right for a category; the identity without it.
    """
    which = owned(data, place, radius)
    mine = which >= 0
    true = torch.zeros_like(logit)
    category = data.category.gather(1, which.clamp(min=0))
    fits = torch.eye(logit.shape[-1]) if fits is None else fits
    true[mine] = fits[category[mine]]
    count = mine.sum().clamp(min=1)
    named = sigmoid_focal_loss(logit, true, alpha=0.5, gamma=1.5, reduction="sum") / count
    wanted = data.box.gather(1, which.clamp(min=0)[..., None].expand(-1, -1, 4))
    off = generalized_box_iou_loss(box[mine], wanted[mine], reduction="sum") / count
    near = (box[mine] - wanted[mine]).abs().sum() / SIZE / count
    return named + 2 * off + near


def _conv(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.SiLU())


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.a(x))


class Yolo(nn.Module):
    """One level of a YOLO, and a coarser one that tells it what is around. Answers (B, 4 + K, Q), as YOLOv8 does."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(_conv(3, 16, 2), _conv(16, 32, 2), _Residual(32), _conv(32, 64, 2), _Residual(64))
        self.coarse = nn.Sequential(_conv(64, 96, 2), _Residual(96), _Residual(96), _conv(96, 64))
        self.joint = nn.Sequential(_conv(128, 64), _Residual(64))
        self.named, self.sides = nn.Conv2d(64, classes, 1), nn.Conv2d(64, 4, 1)
        nn.init.constant_(self.named.bias, -4)
        y, x = torch.meshgrid(*[torch.arange(SIZE // STRIDE)] * 2, indexing="ij")
        self.register_buffer("place", (torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * STRIDE)

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, Q, K) and boxes (B, Q, 4), x0 y0 x1 y1 in pixels; x: 0..1."""
        fine = self.fine(x)
        seen = self.joint(torch.cat([fine, F.interpolate(self.coarse(fine), scale_factor=2.0)], 1))
        sides = F.softplus(self.sides(seen).flatten(2).transpose(1, 2)) * STRIDE
        box = torch.cat([self.place - sides[..., :2], self.place + sides[..., 2:]], -1)
        return self.named(seen).flatten(2).transpose(1, 2), box

    def forward(self, x: Tensor) -> Tensor:
        logit, box = self.raw(x)
        low, high = box[..., :2], box[..., 2:]
        return torch.cat([(low + high) / 2, high - low, logit.sigmoid()], -1).transpose(1, 2)


def yolo(data: Lessons, file: Path, steps: int) -> list[float]:
    """An ONNX file with the metadata that Ultralytics writes, which says names, size and task."""
    torch.manual_seed(0)
    model = Yolo(len(data.names))

    def loss(some: Lessons) -> Tensor:
        return detection_loss(some, *model.raw(some.image.float() / 255), model.place, STRIDE)

    told = fit(model, loss, data, steps, 3e-3)
    example = torch.zeros(1, 3, SIZE, SIZE)
    torch.onnx.export(model, (example,), str(file), input_names=["images"], output_names=["output0"], dynamo=False)
    graph = onnx.load(str(file))
    said = {"description": "A small YOLO of rendered shapes", "task": "detect", "stride": str(STRIDE), "batch": "1",
            "imgsz": str([SIZE, SIZE]), "names": str(dict(enumerate(data.names)))}  # fmt: skip
    onnx.helper.set_model_props(graph, said)
    onnx.save(graph, str(file))
    return told


TEXTS = ("a {}", "a photo of a {}", "the {}")
COARSE = {"round thing": ("cone", "torus", "capsule"), "edged thing": ("cube", "corner")}
"""Words of the open vocabulary beside the shapes' names, and what they are said of."""


def tokenizer(names: Sequence[str], folder: Path) -> hf.PreTrainedTokenizerFast:
    """Whole words, with begin and end as CLIP has them: the two last of the vocabulary."""
    vocab = {
        w: i
        for i, w in enumerate(
            ["[PAD]", "[UNK]", *dict.fromkeys(" ".join([*TEXTS, *names]).replace("{}", "").split()), "<s>", "</s>"]
        )
    }
    made = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(e, vocab[e]) for e in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", bos_token="<s>", eos_token="</s>",
        model_max_length=16, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    fast.save_pretrained(folder)
    return fast


def _owl(words: hf.PreTrainedTokenizerFast, folder: Path) -> hf.OwlViTForObjectDetection:
    text = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": len(words), "max_position_embeddings": 16, "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id}  # fmt: skip
    sight = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4,
             "image_size": SIZE, "patch_size": STRIDE}  # fmt: skip
    hf.OwlViTImageProcessor(
        size={"height": SIZE, "width": SIZE}, image_mean=MEAN, image_std=STD, do_center_crop=False
    ).save_pretrained(folder)
    model = hf.OwlViTForObjectDetection(hf.OwlViTConfig(text_config=text, vision_config=sight, projection_dim=48))
    head = model.class_head
    for layer, bias in ((head.logit_shift, -1.5), (head.logit_scale, 2.0)):
        nn.init.zeros_(
            layer.weight
        )  # at first nothing is found, whatever the cell: wild scales would fall to 0, and stay
        nn.init.constant_(layer.bias, bias)
    _awake(model)
    return model


def _awake(model: hf.OwlViTForObjectDetection) -> None:
    """Weights that a narrow network learns from in some hundred steps.

    Those of the class are for wide ones and millions of images. Here they are larger; places are told by waves; patches
    by what changes within them, since plain colour drowns it; and the class token, by which every place is multiplied,
    begins with as much in each channel, so that it extinguishes none.
    """
    sight = model.owlvit.vision_model
    for layer in sight.encoder.layers:
        attention = layer.self_attn
        for part in (attention.q_proj, attention.k_proj, attention.v_proj, layer.mlp.fc1):
            nn.init.xavier_uniform_(part.weight)
        for part in (attention.out_proj, layer.mlp.fc2):
            nn.init.xavier_uniform_(part.weight, 0.5)
    for part in (model.box_head.dense0, model.box_head.dense1, model.class_head.dense0):
        nn.init.xavier_uniform_(part.weight)
    last = model.box_head.dense2  # boxes begin as large as objects are, lest all places first learn the same of that
    nn.init.normal_(last.weight, std=0.02)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([0.0, 0.0, 1.6, 1.6]))
    seen = sight.embeddings
    place = model.normalize_grid_corner_coordinates(SIZE // STRIDE, SIZE // STRIDE)
    table, patch = seen.position_embedding.weight, seen.patch_embedding.weight
    waves = 2 * math.pi * place @ torch.randn(2, table.shape[1] // 2)
    with torch.no_grad():
        patch.copy_(patch - 0.8 * patch.mean((2, 3), keepdim=True)).mul_(2)
        table[0] = 0
        table[1:] = 0.3 * torch.cat([waves.sin(), waves.cos()], 1)
        seen.class_embedding.copy_(torch.tensor([1.0, -1.0]).repeat(table.shape[1] // 2))


def open_vocabulary(data: Lessons, folder: Path, steps: int) -> list[float]:
    """An OWL-ViT: each place says a box, and how well each of some texts fits it. Texts are drawn anew each step."""
    torch.manual_seed(0)
    said = [*data.names, *COARSE]
    fits = torch.tensor([[float(n == t or n in COARSE.get(t, ())) for t in said] for n in data.names])
    words = tokenizer(said, folder)
    model = _owl(words, folder)
    n = SIZE // STRIDE
    place = model.normalize_grid_corner_coordinates(n, n) * SIZE
    draw = torch.Generator().manual_seed(1)

    def loss(some: Lessons) -> Tensor:
        form = TEXTS[int(torch.randint(len(TEXTS), (), generator=draw))]
        tokens = words([form.format(t) for t in said], padding="max_length", max_length=16, return_tensors="pt")
        texts = model.owlvit.get_text_features(**tokens).pooler_output
        field = model.image_embedder(normalised(some.image))[0]
        cells = field.flatten(1, 2)
        logit = model.class_predictor(cells, texts.expand(len(cells), -1, -1))[0]
        box = box_convert(model.box_predictor(cells, field), "cxcywh", "xyxy") * SIZE
        return detection_loss(some, logit, box, place, 1.25 * STRIDE, fits)

    told = fit(model, loss, data, steps, 1e-3)
    model.save_pretrained(folder)
    return told


# ------------------------------------------------------------------------------------------- outlines, depth


def _sam(folder: Path) -> hf.SamModel:
    vision = {"hidden_size": 96, "mlp_dim": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": SIZE,
              "patch_size": STRIDE, "output_channels": 64, "window_size": 0, "global_attn_indexes": [0, 1, 2, 3],
              "num_pos_feats": 32, "initializer_range": 0.1}  # fmt: skip
    prompt = {"hidden_size": 64, "image_size": SIZE, "patch_size": STRIDE, "mask_input_channels": 4}
    decoder = {"hidden_size": 64, "mlp_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
               "iou_head_hidden_dim": 32}  # fmt: skip
    side = {"height": SIZE, "width": SIZE}
    hf.SamImageProcessor(size={"longest_edge": SIZE}, pad_size=side, image_mean=MEAN, image_std=STD).save_pretrained(
        folder
    )
    model = hf.SamModel(
        hf.SamConfig(
            vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder, initializer_range=0.1
        )
    )
    # a place is told by waves: long ones, by which neighbours are alike. Those that the class begins with are so short
    # that nothing is near anything, and in some hundred steps such a model does not learn what a box is
    with torch.no_grad():
        waves = model.shared_image_embedding.positional_embedding
        waves.mul_(0.25 / model.config.vision_config.scale)
        model.vision_encoder.pos_embed[..., : prompt["hidden_size"]] = model.get_image_wide_positional_embeddings()[
            0
        ].permute(1, 2, 0)
    return model


def sam(data: Lessons, folder: Path, steps: int) -> list[float]:
    """A SAM that is shown boxes, a little wrong as a detector's are, and learns the pixels of the object in each."""
    torch.manual_seed(0)
    model = _sam(folder)
    draw = torch.Generator().manual_seed(1)

    def loss(some: Lessons) -> Tensor:
        there = (some.category >= 0).float()
        pick = torch.multinomial(there + 1e-9 * (there.sum(1, keepdim=True) == 0), 3, True, generator=draw)
        box = some.box.gather(1, pick[..., None].expand(-1, -1, 4))
        side = (box[..., 2:] - box[..., :2]).repeat(1, 1, 2)
        box = box + side * 0.08 * (2 * torch.rand(box.shape, generator=draw) - 1)
        mask = some.mask[torch.arange(len(pick))[:, None], pick].float()
        found = model(pixel_values=normalised(some.image), input_boxes=box, multimask_output=False).pred_masks[:, :, 0]
        true = F.interpolate(mask, found.shape[-2:], mode="area")
        sure = found.sigmoid()
        both, either = (sure * true).sum((2, 3)), (sure + true).sum((2, 3))
        return F.binary_cross_entropy_with_logits(found, true) * 5 + (1 - (2 * both + 1) / (either + 1)).mean()

    told = fit(model, loss, data, steps, 2e-3)
    model.save_pretrained(folder)
    return told


def depth(data: Lessons, folder: Path, steps: int) -> list[float]:
    """A GLPN, which answers metres."""
    torch.manual_seed(0)
    config = hf.GLPNConfig(
        depths=[1, 1, 2, 1], hidden_sizes=[16, 32, 64, 96], num_attention_heads=[1, 1, 2, 4], mlp_ratios=[2, 2, 2, 2],
        decoder_hidden_size=16, max_depth=20, drop_path_rate=0.0,
    )  # fmt: skip
    model = hf.GLPNForDepthEstimation(config)
    for part in model.modules():  # larger weights than those that the class begins with, for so narrow a network
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="linear")
    hf.GLPNImageProcessor(size_divisor=32).save_pretrained(folder)

    def loss(some: Lessons) -> Tensor:
        found = model(pixel_values=some.image.float() / 255).predicted_depth
        return (found.clamp(min=1e-3).log() - some.depth.clamp(min=1e-3).log()).abs().mean()

    told = fit(model, loss, data, steps, 3e-3)
    model.save_pretrained(folder)
    return told
