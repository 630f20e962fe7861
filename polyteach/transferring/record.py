"""The files of a transfer as they lie on disk, each looked at before it is used; it imports no torch."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyteach.ground.fields import Fields, cost
from polyteach.ground.files import differences
from polyteach.ground.limits import MAX_PIXELS
from polyteach.loading.chosen import only_task
from polyteach.store.folder import StoreFolder
from polyteach.training.record import CONFIG, Kind, Record
from polyteach.transferring.options import OFF, Given
from polyteach.transferring.protocol import Setup, resolve

TRANSFER = Kind(
    "transfer",
    "transfer.json",
    # more seeds add to a transfer; see `changed_seeds`
    free=("out", "device", "workers", "progress", "seeds", "name", "grad_checkpointing", "allow_remote"),
    new={"max_pixels": MAX_PIXELS} | OFF,
    called="transfer",
)
_FIX = "It is not as `polyteach transfer` wrote it: take it away, or give another --out"


def prepare(given: Given) -> Setup:
    """The options, resolved, after everything has been refused that can be without torch.

    Raises:
        ValueError: an option, or what it names, is none; or the folder holds the same transfer, finished, or something
            that is no transfer.
    """
    setup = resolve(given)
    store = StoreFolder.open(setup.store, limits=given.limits)
    record = Record(setup.out, TRANSFER)
    began = record.options()
    if began is None:
        record.check_same({})
    elif record.done.exists():
        now = record.settings(setup.options(), None, {})["options"]
        then, now = (
            {k: v for k, v in (dict(TRANSFER.new) | o).items() if k not in TRANSFER.free} for o in (began.value, now)
        )
        if not differences(then, now):
            refuse_finished(record, setup)
    if setup.task is None and isinstance(store.path, Path):  # in object storage a listing costs requests
        only_task(store, setup.labels)
    return setup


def refuse_finished(record: Record, setup: Setup) -> None:
    """Refuse a transfer that is finished with all seeds that are wanted.

    Raises:
        ValueError: it is.
    """
    if record.done.exists() and not set(setup.seeds) - set(_seeds(_read(record.done))):
        raise ValueError(f"{setup.out} holds this transfer, finished; choose another folder, or further --seeds")


def changed_seeds(record: Record, new: dict[str, Any]) -> list[str]:
    """How the seeds are not those that were given before, and more; in words."""
    before = _seeds(_read(record.folder / CONFIG, "options").object("options"))
    if before[0] != new["seeds"][0]:
        return [f"the first seed, which sweeps, was {before[0]}"]
    lost = set(before) - set(new["seeds"])
    return [f"seeds {sorted(lost)} were asked for before; give them too"] if lost else []


def _read(file: Path, *objects: str) -> Fields:
    """What this verb wrote, in which these fields are objects."""
    about = Fields.read(file, _FIX)
    for key in objects:
        about.object(key)
    return about


def _seeds(about: Fields) -> list[int]:
    seeds: list[int] = about.get("seeds", (list,), "a list of whole numbers")
    if not seeds or not all(type(s) is int for s in seeds):
        raise about.error("seeds", "must be a list of whole numbers", seeds)
    return seeds


def read_spent(file: Path) -> dict[str, Any]:
    """A cell.json, of which images, seconds and flops are looked at.

    Raises:
        ValueError: one of them is not as this verb writes it; names it.
    """
    about = _read(file)
    about.count("images", low=0)
    about.number("seconds", low=0)
    about.number("flops", null=True)
    return about.value


def read_trained(file: Path) -> dict[str, Any]:
    """The cell.json of a network that was trained.

    Raises:
        ValueError: a field is not as this verb writes it; names it.
    """
    read_spent(file)
    about = _read(file)
    for key in ("lr", "steps"):
        about.number(key)
    about.number("validation", null=True)
    about.text("failed", null=True)
    about.get("curve", (list,), "a list")
    return about.value


def read_probe(file: Path, setting: float) -> dict[str, Any]:
    """The cell.json of a probe with this setting.

    Raises:
        ValueError: a field is not as this verb writes it; names it.
    """
    read_spent(file)
    about = _read(file)
    if type(about.value.get("validation")) not in (int, float):  # which may be NaN
        raise about.error("validation", "must be a number", about.value.get("validation"))
    if about.number("setting") != setting:
        raise about.error("setting", f"must be {setting!r}, as its folder says", about.value["setting"])
    return about.value


def read_test(file: Path, metric: str) -> dict[str, Any]:
    """The test.json of a network.

    Raises:
        ValueError: a field is not as this verb writes it; names it.
    """
    about = _read(file)
    about.object("scores").number(metric, null=True)
    for i, drawn in enumerate(about.get("resamples", (list,), "a list of numbers")):
        if drawn is not None and type(drawn) not in (int, float):
            raise about.error(f"resamples[{i}]", "must be a number", drawn)
    return about.value


def read_made(run: Path) -> dict[str, Any]:
    """What the representation's own run says of itself: seed, command, what it and its teachers have cost.

    Raises:
        ValueError: a field is not as `train` or `pretrain` writes it; names it.
    """
    fix = "Give a run as `polyteach train` or `polyteach pretrain` wrote it"
    about: dict[str, Any] = {}
    if (run / CONFIG).exists():
        config = Fields.read(run / CONFIG, fix)
        options = config.object("options")
        options.texts("stores")
        # steps were resolved from epochs, and only one of them may be given
        line = command(config.text("verb"), options.value | {"out": str(run)}, "stores", ["epochs"])
        about = {"seed": options.count("seed", null=True), "command": line}
    for name in ("train.json", "pretrain.json"):
        if (run / name).exists():
            compute = Fields.read(run / name, fix).object("compute", null=True)
            about["teachers"] = [cost(t) for t in compute.objects("teachers", null=True)]
            spent = {k: compute.number(k, null=True) for k in ("images", "flops", "seconds") if compute.value}
            about["compute"] = spent or None
    return about


def command(verb: str, options: dict[str, Any], positional: str, skipped: Sequence[str] = ()) -> str:
    """The command line that gives these options; those with no value are left out."""
    first = options[positional]
    words = ["polyteach", verb, *([first] if isinstance(first, str) else first)]
    for key, value in options.items():
        flag = f"--{key.replace('_', '-')}"
        if key == positional or key in skipped or value is None or value == [] or value == ():
            continue
        if isinstance(value, bool):
            words += [flag if value else f"--no-{flag[2:]}"]
        elif isinstance(value, dict):
            words += [flag, *(f"{k}={v}" for k, v in value.items())]
        elif isinstance(value, list | tuple):
            words += [flag, *map(str, value)]
        else:
            words += [flag, str(value)]
    return shlex.join(words)
