"""Pretrain: a store's images, without labels, into a backbone: the self-supervised rivals of a student."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyteach.arguments import Paths, listed
from polyteach.limits import MAX_PIXELS, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float, UInt8
    from torch import Tensor, nn

    from polyteach.batches import Batch, Plan, Samples
    from polyteach.student import Student

METHODS = ("simclr", "vicreg")
NEW: dict[str, Any] = {"max_pixels": MAX_PIXELS}
"""Options that runs of earlier versions do not record, and what those did."""
FREE = ("workers", "progress", "save_every", "save_minutes", "keep", "out", "allow_remote")
"""Options that change nothing of the result, so a resumed run may change them."""


def pretrain(
    stores: Paths,
    *,
    out: str | Path,
    method: str = "simclr",
    split: Sequence[str] = (),
    allow_remote: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    backbone: str = "resnet50",
    init: str | Path | None = None,
    channels: int = 256,
    size: int = 224,
    crop: tuple[float, float] = (0.08, 1.0),
    temperature: float = 0.1,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int = 256,
    optimizer: str = "sgd",
    lr: float | None = None,
    weight_decay: float = 1e-6,
    warmup: int | None = None,
    clip: float = 10.0,
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    channels_last: bool = False,
    workers: int = 2,
    save_every: int = 1000,
    save_minutes: float = 10.0,
    keep: int = 2,
    progress: bool = True,
) -> str:
    """Train a backbone by comparing two views of each image, without any label.

    simclr (Chen et al., ICML 2020): each view has to find its image's other view among all views of the batch
    (NT-Xent). Likes large batches. vicreg (Bardes et al., ICLR 2022): the two views should agree, while every
    dimension keeps its variance and none repeats another; needs neither negatives nor large batches, which is why it
    is the second method here.

    The network, its optimisation, checkpoints and resume are those of `polyteach train`. Only the backbone is trained:
    `transfer` takes nothing else from such a run.

    Args:
        stores: folders or URLs (docs/objects.md) made by `polyteach ingest`.
        out: folder of the run. A finished run is never overwritten, an unfinished one goes on.
        method: simclr or vicreg.
        split: only images of these splits.
        allow_remote: where else than from files of this machine and object storage images may be fetched: a protocol
            (http, https), or the beginning of URLs, also of servers in this machine's own network (docs/store.md).
        max_pixels: refuse images with more pixels than this, whatever the store says of them.
        backbone: a timm model with features at strides 4, 8, 16 and 32.
        init: weights to start from: "pretrained" (timm's hub), a state dict of the backbone, or a run's folder.
        channels: of the (untrained) pyramid, so that `train --init` and `transfer` find a student of the same kind.
        size: side of the square views in pixels, a multiple of 32.
        crop: least and largest share of the image's area that a view shows.
        temperature: of simclr's similarities.
        steps: updates of the weights. Give this or `epochs`.
        epochs: passes over the images; 100 when neither is given.
        batch_size: images per step; each is seen twice.
        optimizer: sgd (momentum 0.9) or adamw. The papers use LARS, which matters from batches of about 1,000 on.
        lr: peak learning rate; without it 0.3 x batch / 256 for simclr, 0.2 x batch / 256 for vicreg, 0.001 for adamw.
        weight_decay: not on normalisation and biases.
        warmup: steps of linear warm-up before the cosine; without it a tenth of the steps, at most 1000.
        clip: largest norm of the gradient; 0 for no limit.
        seed: of the weights, the order of the images and their views.
        device: auto (CUDA where there is one, else the CPU), cpu, cuda:0, ...
        precision: fp32, or bf16 or fp16 by autocast.
        channels_last: memory layout that is quicker for convolutions in bf16 and fp16.
        workers: processes that read and decode images; 0 does it in this one. Changes nothing of the result.
        save_every: steps between checkpoints.
        save_minutes: minutes between checkpoints.
        keep: checkpoints that stay; older ones are removed.
        progress: show progress, loss and speed.

    Returns:
        The folder of the run.

    Raises:
        ValueError: what was given does not exist or does not fit, a loss is not finite, or `out` holds another run.
        BlockingIOError: another process trains in `out`.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint.

    Examples:
        polyteach pretrain store --out simclr --method simclr --epochs 200 --batch-size 1024 --precision bf16

        polyteach pretrain store --out vicreg --method vicreg --backbone resnet18 --size 96 --steps 5000
    """
    arguments = dict(locals())

    import torch

    from polyteach.batches import REJECTS, all_images, batches, explained, noted
    from polyteach.compute import COUNTED, step_flops
    from polyteach.devices import find_device
    from polyteach.files import sweep, write_json
    from polyteach.loop import Mixture, Settings, check, fit, logged
    from polyteach.store import Store
    from polyteach.student import Student, costs_before, save_student

    given, init = listed(stores), None if init is None else str(init)
    limits = Limits(listed(allow_remote), max_pixels)
    arguments |= {"allow_remote": limits.allow_remote} | {"init": init, "out": str(out)}
    run = Path(out)
    if (run / "pretrain.json").exists():
        raise ValueError(f"{out} holds a finished run; choose another folder")
    _sane(arguments)
    plan = all_images([Store.open(s, limits=limits) for s in given], split)
    if len(plan) < batch_size:
        raise ValueError(
            f"batch_size {batch_size} is more than the {len(plan)} images, so that every batch would compare images "
            "with themselves; give at most that many"
        )
    if steps is None:
        steps = max(1, round((epochs or 100) * len(plan) / batch_size))
    settings = Settings(
        steps=steps,
        optimizer=optimizer,
        lr=lr if lr is not None else _rate(method, optimizer, batch_size),
        weight_decay=weight_decay,
        warmup=warmup if warmup is not None else min(1000, steps // 10),
        clip=clip,
        seed=seed,
        device=find_device(device),
        precision=precision,
        channels_last=channels_last,
        save_every=save_every,
        save_minutes=save_minutes,
        keep=keep,
        progress=progress,
    )
    check(settings)
    config = _config(arguments | {"stores": given}, settings, plan)
    sweep(run)
    _same(run, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Student(backbone, {}, channels, init)
        model = siamese(student, method, temperature)
    write_json(run / "config.json", config)
    samples = pairs(plan, seed, size, crop, method)

    def stream(start: int) -> "Iterator[Batch]":
        pin = settings.device.startswith("cuda")
        return noted(batches(samples, 2 * batch_size, start, settings.steps, workers, pin), run / REJECTS)

    with explained(workers):
        fit(model, Mixture({method: 1.0}), stream, settings, run)
    about = {
        "size": [size, size],
        "optimizer": optimizer,
        "learning_rate": settings.lr,
        "batch_size": batch_size,
        "steps": settings.steps,
        "trained": ["backbone"],
        "method": method,
    }
    save_student(student, run, about)
    batch = next(iter(batches(samples, 2 * COUNTED, 0, 1)))  # two views of each
    each, views = step_flops(model.cpu(), batch.images, {}), 2 * batch_size * settings.steps
    seconds = float(logged(run / "log.jsonl")[-1].number("seconds"))
    flops = None if each is None else each * views
    compute: dict[str, Any] = {"images": views, "flops": flops, "seconds": seconds, "teachers": costs_before(init)}
    write_json(run / "pretrain.json", {"steps": settings.steps, "seconds": seconds, "compute": compute})
    return str(out)


def _rate(method: str, optimizer: str, batch_size: int) -> float:
    if optimizer == "adamw":
        return 1e-3
    return {"simclr": 0.3, "vicreg": 0.2}[method] * batch_size / 256


def _sane(a: dict[str, Any]) -> None:
    if a["method"] not in METHODS:
        from polyteach.names import unknown_name

        raise unknown_name("method", a["method"], METHODS)
    for name, low in {"batch_size": 2, "channels": 1, "workers": 0, "seed": 0}.items():
        if a[name] < low:
            raise ValueError(f"{name} must be at least {low}; got {a[name]}")
    if a["size"] < 32 or a["size"] % 32:
        raise ValueError(f"size must be a multiple of 32; got {a['size']}")
    if not 0 < a["crop"][0] <= a["crop"][1] <= 1:
        raise ValueError(f"crop must be LOW HIGH with 0 < LOW <= HIGH <= 1; got {a['crop'][0]} {a['crop'][1]}")
    if not a["temperature"] > 0:
        raise ValueError(f"temperature must be above 0; got {a['temperature']}")
    if a["steps"] is not None and a["epochs"] is not None:
        raise ValueError(f"give steps or epochs, not both; got steps={a['steps']} and epochs={a['epochs']}")
    if a["epochs"] is not None and not a["epochs"] > 0:
        raise ValueError(f"epochs must be above 0; got {a['epochs']}")


def _config(arguments: dict[str, Any], settings: Any, plan: "Plan") -> dict[str, Any]:
    import json

    import polyteach
    from polyteach.batches import digest
    from polyteach.files import sha256
    from polyteach.student import WEIGHTS

    resolved = {k: getattr(settings, k) for k in ("steps", "lr", "warmup", "device")}
    init = Path(arguments["init"]) if arguments["init"] not in (None, "pretrained") else None
    file = init / WEIGHTS if init and init.is_dir() else init
    config = {
        "verb": "pretrain",
        "polyteach": polyteach.__version__,
        "options": arguments | {"stores": list(arguments["stores"])} | resolved,
        "init_sha256": sha256(file) if file and file.is_file() else None,
        "data": {"images": len(plan), "sha256": digest(plan.ids())},
    }
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


def _same(run: Any, config: dict[str, Any]) -> None:
    """Raises:
    ValueError: the folder holds something else, or an unfinished run that was started otherwise; names what differs.
    """
    from polyteach.fields import Fields
    from polyteach.files import differences

    if not (run / "config.json").exists():
        if run.exists() and (not run.is_dir() or any(run.iterdir())):
            raise ValueError(f"{run} exists and is no run of polyteach; choose another folder")
        return

    def compared(c: dict[str, Any]) -> dict[str, Any]:
        rest = {k: v for k, v in c.items() if k != "options"}
        return rest | {k: v for k, v in (NEW | (c.get("options") or {})).items() if k not in FREE}

    began = Fields.read(run / "config.json", "Give another --out")
    began.object("options", null=True)
    differ = differences(compared(began.value), compared(config))
    if differ:
        raise ValueError(
            f"{run} was started otherwise: {'; '.join(differ)}. Give the same command to go on, or another --out"
        )


def nt_xent(one: "Float[Tensor, 'B D']", other: "Float[Tensor, 'B D']", temperature: float) -> "Float[Tensor, '']":
    """SimCLR's loss (Chen et al., ICML 2020, equation 1), averaged over the 2B views.

    torch's cross-entropy over cosine similarities: pytorch-metric-learning's needs memory in the cube of the batch.
    """
    import torch
    import torch.nn.functional as F

    z = F.normalize(torch.cat([one, other]).float(), dim=1)
    similar = (z @ z.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(one))
    return F.cross_entropy(similar, partner)


def siamese(student: "Student", method: str, temperature: float) -> "nn.Module":
    """A module (images (2B, 3, h, w), {}) -> {method: loss} around the student's backbone; neighbours are one pair.

    Projectors as in the papers: simclr one hidden layer and 128 outputs; vicreg three layers of 4 times the backbone's
    width, which for a ResNet-50 is the paper's 8,192.

    Raises:
        ValueError: the package of vicreg's loss is missing.
    """
    import torch
    from torch import nn
    from torchvision.ops import MLP

    width = int(student.backbone.feature_info.channels()[-1])
    layers = [width, 128] if method == "simclr" else [4 * width] * 3
    criterion: Any = None
    if method == "vicreg":
        try:
            from pytorch_metric_learning.losses import VICRegLoss
        except ImportError as e:
            raise ValueError("method vicreg needs pytorch-metric-learning: pip install 'polyteach[selfsup]'") from e
        criterion = VICRegLoss(invariance_lambda=25, variance_mu=25, covariance_v=1)

    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = student
            self.projector = MLP(width, layers, norm_layer=nn.BatchNorm1d)

        def forward(self, images: "Tensor", targets: dict[str, Any]) -> "dict[str, Tensor]":
            z = self.projector(self.student.pooled(images)).float()
            one, other = z[0::2], z[1::2]
            # autocast would lower the products of the losses again: similarities, and covariances of a whole batch
            with torch.autocast(images.device.type, enabled=False):
                loss = nt_xent(one, other, temperature) if criterion is None else criterion(one, ref_emb=other)
            return {method: loss}

    return Siamese()


def pairs(plan: "Plan", seed: int, size: int, crop: tuple[float, float], method: str) -> "Samples":
    """A stream in which places 2k and 2k + 1 are two random views of the same image."""
    from polyteach.batches import Augment, Sample, Samples
    from polyteach.tasks.contract import Policy

    class Pairs(Samples):
        last: tuple[int, Any] = (-1, None)

        def __getitem__(self, place: int) -> Sample:
            epoch, image = self.at(place // 2)
            return self.drawn(epoch, image, f"-{place % 2}")

        def picture(self, image: int) -> Any:
            if image != self.last[0]:  # its second view follows at once: read and decode it once
                self.last = (image, super().picture(image))
            return self.last[1]

        def __reduce__(self) -> Any:
            return pairs, (self.plan, self.seed, size, crop, method)

        def sample(self, image: int, row: Any, pixels: "Tensor", draw: random.Random, rejects: Any) -> Sample:
            return Sample(distorted(pixels, draw, size, crop, method), {}, row.id, rejects)

    return Pairs(plan, Augment((size, size)), Policy(), seed)


def distorted(
    pixels: "UInt8[Tensor, '3 _ _']", draw: random.Random, size: int, crop: tuple[float, float], method: str
) -> "UInt8[Tensor, '3 size size']":
    """A view as the papers make it, by torchvision: crop, mirror, colour jitter, grey, blur; vicreg also solarises.

    simclr: jitter 0.8, 0.8, 0.8, 0.2, blur in half of the views. vicreg (as BYOL, averaged over its two views): jitter
    0.4, 0.4, 0.2, 0.1, blur in 0.55 and solarisation in 0.1 of them. Follows from `draw` alone.
    """
    import torch
    from torchvision.transforms import v2

    strong = method == "simclr"
    jitter = v2.ColorJitter(0.8, 0.8, 0.8, 0.2) if strong else v2.ColorJitter(0.4, 0.4, 0.2, 0.1)
    width = max(3, size // 10 | 1)
    view = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=crop, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([jitter], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(width, (0.1, 2.0))], 0.5 if strong else 0.55),
            v2.RandomSolarize(128, 0.0 if strong else 0.1),
        ]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw.getrandbits(63))
        out: torch.Tensor = view(pixels)
    return out
