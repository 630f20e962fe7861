"""Request: what a training was asked for, and what of it can be refused before torch is imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from polyteach.ground.limits import MAX_PIXELS, Limits
from polyteach.ground.options import Hardware, Policy, Saving, Views
from polyteach.loading.chosen import check_chosen
from polyteach.loading.objectives import Table, read_map
from polyteach.model.backbones import check_name
from polyteach.model.provenance import check_init
from polyteach.store.folder import StoreFolder
from polyteach.store.label_folder import named_sets
from polyteach.training import processes
from polyteach.training.options import (
    BackboneNetwork,
    BackboneOptimisation,
    Contrast,
    FineTuning,
    Labels,
    Losses,
    Network,
    StudentHardware,
    StudentNetwork,
    StudentOptimisation,
    check_tuning,
)
from polyteach.training.record import Kind, Record
from polyteach.training.settings import check_processes

TRAIN = Kind(
    "train",
    "train.json",
    free=("workers", "progress", "save_every", "save_minutes", "keep", "shard", "grad_checkpointing", "allow_remote"),
    new={"combine": "first", "map": None, "freeze": [], "max_pixels": MAX_PIXELS}
    | {"calibrated": True, "class_scores": {}, "best_share": None}
    | {"layer_decay": 1.0, "thaw": 0, "drop_path": 0.0, "keep_statistics": False},
)
PRETRAIN = Kind(
    "pretrain",
    "pretrain.json",
    free=("workers", "progress", "save_every", "save_minutes", "keep", "out", "allow_remote"),
    new={"max_pixels": MAX_PIXELS},
)


@dataclass(frozen=True)
class TrainRequest:
    """What `polyteach train` was asked for; see its groups of options. table: what the file `sets.map` holds."""

    stores: Sequence[str]
    out: str
    limits: Limits = Limits()
    sets: Labels = Labels()
    network: StudentNetwork = StudentNetwork()
    views: Views = Views()
    policy: Policy = Policy()
    optimisation: StudentOptimisation = StudentOptimisation()
    losses: Losses = Losses()
    hardware: StudentHardware = StudentHardware()
    saving: Saving = Saving()
    tuning: FineTuning = FineTuning()
    table: Table | None = field(default=None, compare=False)

    @property
    def passes(self) -> int:
        """Forward passes per step, of a request that was checked."""
        assert self.optimisation.accumulate is not None
        return self.optimisation.accumulate

    def options(self) -> dict[str, Any]:
        """All options by their names, as config.json records them."""
        return {"stores": list(self.stores)} | _flat(self) | {"map": self.table}


@dataclass(frozen=True)
class PretrainRequest:
    """What `polyteach pretrain` was asked for; see its groups of options."""

    stores: Sequence[str]
    out: str
    split: Sequence[str] = ()
    limits: Limits = Limits()
    contrast: Contrast = Contrast()
    network: BackboneNetwork = BackboneNetwork()
    optimisation: BackboneOptimisation = BackboneOptimisation()
    hardware: Hardware = Hardware()
    saving: Saving = Saving()

    def options(self) -> dict[str, Any]:
        """All options by their names, as config.json records them."""
        return {"stores": list(self.stores), "out": self.out, "split": self.split} | _flat(self)


def checked_train(asked: TrainRequest) -> TrainRequest:
    """The request with its number of passes and its table of names, after all that can be refused without torch.

    Raises:
        ValueError: what was given does not exist or does not fit, or `out` holds a finished run.
    """
    record = Record(asked.out, TRAIN)
    if processes.rank() == 0:
        record.check_open()
    twice = {s for s in asked.stores if asked.stores.count(s) > 1}
    if twice:
        raise ValueError(f"store {min(twice)} is given twice; every image should count once")
    opened = _check_stores(asked.stores, asked.limits)
    if (asked.sets.tasks or asked.sets.labels) and all(isinstance(s.path, Path) for s in opened):
        # in object storage every listing costs a request: there they are looked at once, with the rest
        check_chosen([one for s in opened for one in named_sets(s)], asked.sets.tasks, asked.sets.labels)
    accumulate = asked.optimisation.accumulate
    if accumulate is None:
        began = record.options()
        accumulate = (began.count("accumulate", null=True) if began else None) or processes.size()
    _check_network(asked.network)
    hardware = asked.hardware
    if hardware.sync_batch_norm and processes.size() == 1:
        raise ValueError(
            "sync_batch_norm: there is one process, which normalises its whole batch as it is; start several with "
            "torchrun, or leave it out"
        )
    check_processes(hardware.shard, hardware.precision, hardware.channels_last, accumulate)
    check_frozen(asked.network.freeze, hardware)
    init = None if asked.network.init is None else str(asked.network.init)
    check_tuning(asked.tuning, hardware.grad_checkpointing, "freeze" if asked.network.freeze else "", init)
    if asked.tuning.thaw and hardware.compile:
        raise ValueError("thaw and compile: it would be compiled anew for every unit that begins to learn; give one")
    if asked.tuning.keep_statistics and hardware.sync_batch_norm:
        raise ValueError("keep_statistics and sync_batch_norm: no statistics are made that could be shared; give one")
    table = None if asked.sets.map is None else read_map(asked.sets.map)
    return replace(asked, optimisation=replace(asked.optimisation, accumulate=accumulate), table=table)


def checked_pretrain(asked: PretrainRequest) -> PretrainRequest:
    """The request itself, after all that can be refused without torch.

    Raises:
        ValueError: what was given does not exist or does not fit, or `out` holds a finished run.
    """
    Record(asked.out, PRETRAIN).check_open()
    _check_stores(asked.stores, asked.limits)
    _check_network(asked.network)
    return asked


def check_frozen(freeze: Sequence[str], hardware: StudentHardware) -> None:
    """Refuse to share gradients between processes that frozen parts have none of.

    Raises:
        ValueError: names the option that does not go with them.
    """
    for name in ("sync_batch_norm", "shard") if freeze else ():
        if getattr(hardware, name):
            raise ValueError(f"{name} and freeze: there is no gradient in the backbone to share; give one of them")


def _check_stores(stores: Sequence[str], limits: Limits) -> list[StoreFolder]:
    if not stores:
        raise ValueError("no store given; name one or more that polyteach ingest made: polyteach train STORE --out RUN")
    return [StoreFolder.open(store, limits=limits) for store in stores]


def _check_network(network: Network) -> None:
    init = None if network.init is None else str(network.init)
    check_name(network.backbone, init)
    check_init(init, network.backbone)


def _flat(request: TrainRequest | PretrainRequest) -> dict[str, Any]:
    """The fields of all groups of a request."""
    groups = [getattr(request, f.name) for f in fields(request)]
    return {f.name: getattr(g, f.name) for g in groups if hasattr(g, "__dataclass_fields__") for f in fields(g)}
