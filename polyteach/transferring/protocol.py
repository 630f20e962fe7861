"""What a transfer does, once a protocol and the defaults have filled in what nobody gave; it imports no torch."""

from dataclasses import dataclass, fields
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from polyteach.ground.names import unknown_name
from polyteach.ground.protocols import Protocol, stated_protocols
from polyteach.ground.storage import to_path
from polyteach.model.backbones import check_name, check_size, multiple_of
from polyteach.model.provenance import description
from polyteach.model.starts import FOLDER, PRETRAINED, check_place, described, files
from polyteach.training.options import check_tuning
from polyteach.transferring.options import TRAINED, Downstream, Given, Representation, texts

LRS = {"sgd": (0.003, 0.01, 0.03), "adamw": (1e-4, 3e-4, 1e-3)}
STEPS = (1000, 4000)
WEIGHT_DECAY = {"sgd": 4e-5, "adamw": 0.05}
DATASETS = "polyteach.datasets"
"""Also the group of entry points by which other distributions bring formats."""


@dataclass(frozen=True)
class Setup:
    """Every option of a transfer, none of them open, in the order in which config.json records them.

    backbone, channels: those of the network. lrs, steps: empty for a probe. validation_split: empty where a share of
    the training images is `held_out`.
    """

    store: str
    out: str
    name: str
    init: str | None
    backbone: str
    channels: int
    protocol: str | None
    downstream: str
    task: str | None
    labels: str
    train_split: tuple[str, ...]
    validation_split: tuple[str, ...]
    test_split: tuple[str, ...]
    held_out: float | None
    allow_remote: tuple[str, ...]
    max_pixels: int
    metric: str | None
    mode: str
    parts: tuple[str, ...]
    lrs: tuple[float, ...]
    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    shots: int | None
    fraction: float | None
    size: int
    batch_size: int
    optimizer: str
    weight_decay: float
    clip: float
    layer_decay: float
    thaw: int
    drop_path: float
    keep_statistics: bool
    scale: tuple[float, float]
    mirror: float
    augment: float
    resamples: int
    examples: int
    keep: bool
    device: str
    precision: str
    channels_last: bool
    grad_checkpointing: bool
    workers: int
    progress: bool

    @property
    def trains(self) -> bool:
        """Whether networks are trained; else features are probed."""
        return self.mode in TRAINED

    @property
    def budgeted(self) -> bool:
        """Whether there are fewer labelled images than the store has."""
        return self.shots is not None or self.fraction is not None

    def options(self) -> dict[str, Any]:
        """Name -> value, as config.json records them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def resolve(given: Given) -> Setup:
    """The options with a protocol's values and defaults where none were given.

    Raises:
        ValueError: an unknown protocol or backbone, a representation that does not exist, or a size that its backbone
            cannot take; says what there is.
    """
    d, s, t = given.downstream, given.sweep, given.training
    protocol = known_protocol(d.protocol)
    trains = s.mode in TRAINED
    lrs, steps = s.lrs or LRS[t.optimizer], s.steps or STEPS
    if protocol is not None:
        lrs = s.lrs or (protocol.lrs if t.optimizer == "sgd" else LRS[t.optimizer])  # its rates are those of SGD
        steps = s.steps or protocol.steps
    options: dict[str, Any] = {"store": given.store, "out": given.out}
    for group in (d, s, given.budget, t, given.tuning, given.views, given.scoring, given.hardware):
        options |= {f.name: getattr(group, f.name) for f in fields(group)}
    options |= _network(given.representation)
    options |= _data(given.store, d, protocol)
    options |= {"allow_remote": tuple(given.limits.allow_remote), "max_pixels": given.limits.max_pixels}
    options |= {
        "lrs": tuple(lrs) if trains else (),
        "steps": tuple(steps) if trains else (),
        "parts": texts(s.parts) if trains else ("backbone",),
        "seeds": tuple(s.seeds),
        "scale": (given.views.scale[0], given.views.scale[1]),
        "size": t.size if t.size is not None else protocol.size if protocol else 512,
        "batch_size": t.batch_size or (protocol.batch_size if protocol else 16),
        "weight_decay": WEIGHT_DECAY[t.optimizer] if t.weight_decay is None else t.weight_decay,
        "progress": given.progress,
    }
    if protocol and d.protocol != _base(d.protocol) and given.budget.shots is None and given.budget.fraction is None:
        options |= protocol.few
    check_name(options["backbone"], options["init"])
    check_size(options["size"], multiple_of(options["backbone"]))
    frozen = "" if s.mode == "finetune" else f"mode {s.mode}"
    check_tuning(given.tuning, given.hardware.grad_checkpointing, frozen, options["init"])
    return Setup(**options)


def known_protocol(name: str | None) -> Protocol | None:
    """The protocol of that name, or of which it is the variant with few labels.

    Raises:
        ValueError: there is none; lists those that there are.
    """
    if name is None:
        return None
    known = stated_protocols(Path(__file__).parent.parent / "datasets")
    if _base(name) not in known and entry_points(group=DATASETS):
        known = import_module(DATASETS).protocols()  # those of other distributions too, which are imported for it
    if _base(name) not in known:
        raise unknown_name("protocol", name, sorted(known), "there are, each also as NAME-few,")
    return known[str(_base(name))]


def _base(name: str | None) -> str | None:
    return None if name is None else name.removesuffix("-few")


def _data(store: str, d: Downstream, protocol: Protocol | None) -> dict[str, Any]:
    """What is measured, and on which images."""
    validation, held_out = texts(d.validation_split), d.held_out
    if protocol is not None and isinstance(protocol.validation, tuple):
        if held_out is None:
            validation = validation or protocol.validation
    elif protocol is not None and isinstance(protocol.validation, float) and not validation and held_out is None:
        held_out = protocol.validation
    if held_out is None and not validation:
        held_out = 0.1
    return {
        "downstream": d.downstream or d.protocol or to_path(store).resolve().name,
        "task": d.task or (protocol.task if protocol else None),
        "metric": d.metric or (protocol.metric if protocol else None),
        "train_split": texts(d.train_split) or (protocol.train if protocol else ("train",)),
        "test_split": texts(d.test_split) or (protocol.test if protocol else ("test",)),
        "validation_split": validation,
        "held_out": held_out,
    }


def _network(r: Representation) -> dict[str, Any]:
    """The network and its name, by what a run says of itself where that is not given."""
    init = None if r.init is None else str(r.init)
    backbone, channels = r.backbone, r.channels
    if init is not None:
        check_place(init)
        if init.startswith(FOLDER):
            about = described(files(Path(init.removeprefix(FOLDER)))[0], backbone)
            backbone = backbone or about.architecture
        elif init != PRETRAINED and Path(init).is_dir():
            run = description(init)
            backbone = backbone or run.text("backbone")
            channels = channels or run.count("channels", low=1)
    name = r.name or ("scratch" if init is None else Path(init).resolve().name)
    return {"name": name, "init": init, "backbone": backbone or "resnet50", "channels": channels or 256}
