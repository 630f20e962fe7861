"""Pretrain: a store's images, without labels, into a backbone: the self-supervised rivals of a student.

Shapes: B images of a batch, D numbers of a projection.
"""

import importlib
import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.ops import MLP
from torchvision.transforms import v2

from polyteach.ground.devices import find_device
from polyteach.ground.flops import COUNTED
from polyteach.ground.options import Policy
from polyteach.loading.plan import Plan, all_images, digest
from polyteach.loading.samples import Reject, Sample, Samples
from polyteach.loading.views import Augment
from polyteach.model.student import Student
from polyteach.store import ImageRow, Store
from polyteach.training import ledger
from polyteach.training.mixture import Mixture
from polyteach.training.request import PRETRAIN, PretrainRequest
from polyteach.training.run import Passes, Run
from polyteach.training.settings import Settings, check

WEIGHT_DECAY = 1e-6
"""Where none is said."""


def pretrain_backbone(asked: PretrainRequest) -> str:
    """Train the backbone; see `polyteach.pretrain`. asked: a request that was checked.

    Returns:
        The folder of the run.

    Raises:
        ValueError, BlockingIOError, KeyboardInterrupt: see `polyteach.pretrain`.
    """
    network, contrast, batch_size = asked.network, asked.contrast, asked.optimisation.batch_size
    plan = all_images([Store.open(s, limits=asked.limits) for s in asked.stores], asked.split)
    if len(plan) < batch_size:
        raise ValueError(
            f"batch_size {batch_size} is more than the {len(plan)} images, so that every batch would compare images "
            "with themselves; give at most that many"
        )
    settings = _settings(asked, len(plan))
    check(settings)
    run, init = Run(asked.out, PRETRAIN), None if network.init is None else str(network.init)
    resolved = {k: getattr(settings, k) for k in ("steps", "lr", "warmup", "device")}
    data = {"images": len(plan), "sha256": digest(plan.ids())}
    config = run.settings(asked.options() | resolved, init, data)
    run.check_same(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        student = Student(network.backbone, {}, network.channels, init, size=(network.size, network.size))
        model = siamese(student, contrast.method, contrast.temperature)
    run.write_settings(config)
    samples = pairs(plan, settings.seed, network.size, contrast.crop, contrast.method)
    run.fit(model, Mixture({contrast.method: 1.0}), samples, settings, Passes(2 * batch_size, asked.hardware.workers))
    about = {
        "size": [network.size, network.size],
        "optimizer": settings.optimizer,
        "learning_rate": settings.lr,
        "batch_size": batch_size,
        "steps": settings.steps,
        "trained": ["backbone"],
        "method": contrast.method,
    }
    run.save(student, about)
    each = ledger.flops_per_image(model, samples, 2 * COUNTED)  # two views of each
    compute = run.spent(2 * batch_size * settings.steps, each) | {"teachers": ledger.stood_on(init)}
    run.finish({"steps": settings.steps, "seconds": compute["seconds"], "compute": compute})
    return asked.out


def _settings(asked: PretrainRequest, images: int) -> Settings:
    """How to optimise, with what follows from the number of images where nothing is said."""
    o, saving = asked.optimisation, asked.saving
    steps = o.steps
    if steps is None:
        steps = max(1, round((o.epochs or 100) * images / o.batch_size))
    return Settings(
        steps=steps,
        optimizer=o.optimizer,
        lr=o.lr if o.lr is not None else _rate(asked.contrast.method, o.optimizer, o.batch_size),
        weight_decay=o.weight_decay if o.weight_decay is not None else WEIGHT_DECAY,
        warmup=o.warmup if o.warmup is not None else min(1000, steps // 10),
        clip=o.clip,
        seed=o.seed,
        device=find_device(asked.hardware.device),
        precision=asked.hardware.precision,
        channels_last=asked.hardware.channels_last,
        save_every=saving.save_every,
        save_minutes=saving.save_minutes,
        keep=saving.keep,
        progress=saving.progress,
    )


def _rate(method: str, optimizer: str, batch_size: int) -> float:
    if optimizer == "adamw":
        return 1e-3
    return {"simclr": 0.3, "vicreg": 0.2}[method] * batch_size / 256


def nt_xent(one: Float[Tensor, "B D"], other: Float[Tensor, "B D"], temperature: float) -> Float[Tensor, ""]:
    """SimCLR's loss (Chen et al., ICML 2020, equation 1), averaged over the 2B views.

    torch's cross-entropy over cosine similarities: pytorch-metric-learning's needs memory in the cube of the batch.
    """
    z = F.normalize(torch.cat([one, other]).float(), dim=1)
    similar = (z @ z.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(one))
    return F.cross_entropy(similar, partner)


class Siamese(nn.Module):
    """A student's backbone and a projector, as (images (2B, 3, h, w), {}) -> {method: loss}; neighbours are one pair.

    compare: projections of the first and of the second views, both (B, D), -> their loss.
    """

    def __init__(
        self, student: Student, projector: nn.Module, method: str, compare: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.student = student
        self.projector = projector
        self.method = method
        self.compare = compare

    def forward(self, images: UInt8[Tensor, "_ 3 h w"], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """The loss of a batch in which places 2k and 2k + 1 are two views of one image."""
        z = self.projector(self.student.pooled(images)).float()
        one, other = z[0::2], z[1::2]
        # autocast would lower the products of the losses again: similarities, and covariances of a whole batch
        with torch.autocast(images.device.type, enabled=False):
            return {self.method: self.compare(one, other)}


def siamese(student: Student, method: str, temperature: float) -> Siamese:
    """The module that a method trains around the student's backbone.

    Projectors as in the papers: simclr one hidden layer and 128 outputs; vicreg three layers of 4 times the backbone's
    width, which for a ResNet-50 is the paper's 8,192.

    Raises:
        ValueError: the package of vicreg's loss is missing.
    """
    width = int(student.backbone.channels[-1])
    layers = [width, 128] if method == "simclr" else [4 * width] * 3
    compare = vicreg() if method == "vicreg" else lambda one, other: nt_xent(one, other, temperature)
    return Siamese(student, MLP(width, layers, norm_layer=nn.BatchNorm1d), method, compare)


def vicreg() -> Callable[[Tensor, Tensor], Tensor]:
    """VICReg's loss (Bardes et al., ICLR 2022) with the paper's weights, of two (B, D).

    Raises:
        ValueError: its package is missing.
    """
    try:
        losses = importlib.import_module("pytorch_metric_learning.losses")  # an extra
    except ImportError as e:
        raise ValueError("method vicreg needs pytorch-metric-learning: pip install 'polyteach[selfsup]'") from e
    criterion = losses.VICRegLoss(invariance_lambda=25, variance_mu=25, covariance_v=1)

    def compare(one: Tensor, other: Tensor) -> Tensor:
        loss: Tensor = criterion(one, ref_emb=other)
        return loss

    return compare


class Pairs(Samples):
    """A stream in which places 2k and 2k + 1 are two random views of the same image; see `distorted`."""

    def __init__(self, plan: Plan, seed: int, size: int, crop: tuple[float, float], method: str) -> None:
        super().__init__(plan, Augment((size, size)), Policy(), seed)
        self.size, self.crop, self.method = size, crop, method
        self._read: tuple[int, Any] = (-1, None)

    def __getitem__(self, place: int) -> Sample:
        epoch, image = self.at(place // 2)
        return self.drawn(epoch, image, f"-{place % 2}")

    def __getstate__(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("plan", "seed", "size", "crop", "method")}

    def image(self, image: int) -> tuple[ImageRow, Tensor | str]:
        """As of all samples. An image's second view follows at once, so it is read and decoded once."""
        if image != self._read[0]:
            self._read = (image, super().image(image))
        found: tuple[ImageRow, Tensor | str] = self._read[1]
        return found

    def sample(self, image: int, row: ImageRow, pixels: Tensor, draw: random.Random, rejects: list[Reject]) -> Sample:
        """A view as the method makes it, without targets."""
        return Sample(distorted(pixels, draw, self.size, self.crop, self.method), {}, row.id, rejects)


def pairs(plan: Plan, seed: int, size: int, crop: tuple[float, float], method: str) -> Pairs:
    """The stream of a plan's images in pairs of views of (size, size) pixels."""
    return Pairs(plan, seed, size, crop, method)


def distorted(
    pixels: UInt8[Tensor, "3 _ _"], draw: random.Random, size: int, crop: tuple[float, float], method: str
) -> UInt8[Tensor, "3 {size} {size}"]:
    """A view as the papers make it, by torchvision: crop, mirror, colour jitter, grey, blur; vicreg also solarises.

    simclr: jitter 0.8, 0.8, 0.8, 0.2, blur in half of the views. vicreg (as BYOL, averaged over its two views): jitter
    0.4, 0.4, 0.2, 0.1, blur in 0.55 and solarisation in 0.1 of them. Follows from `draw` alone.
    """
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
        # not torch.manual_seed, which formats a stack trace for every kind of device that is not in use, at every call
        torch.default_generator.manual_seed(draw.getrandbits(63))
        out: Tensor = view(pixels)
    return out
