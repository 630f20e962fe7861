"""Train: stores and their label sets into one student; with one task and people's labels, into a teacher."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec

from polyteach.arguments import Paths, listed
from polyteach.limits import MAX_PIXELS, Limits
from polyteach.texts import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from polyteach.batches import Batch, Plan, Samples
    from polyteach.loop import Settings
    from polyteach.store import LabelSet
    from polyteach.student import Student
    from polyteach.tasks.contract import Policy

RULES = ("rule", "equal", "learned")
NEW: dict[str, Any] = {"combine": "first", "map": None, "freeze": [], "max_pixels": MAX_PIXELS}
"""Options that runs of earlier versions do not record, and what those did."""
BEGUN = "It is not as `polyteach train` wrote it: give another --out"
"""What to do about a config.json that cannot be compared with."""
PASSES = 8
"""Passes of two images whose operations are counted, where not every image has every label."""
FREE = ("workers", "progress", "save_every", "save_minutes", "keep", "shard", "allow_remote")
"""Options that change nothing of the result, so a resumed run may change them."""


def _pairs(words: "Sequence[str]") -> str | dict[str, float]:
    """`rule`, `equal`, `learned`, or NAME=VALUE pairs apart or with commas."""
    parts = [p for w in words for p in w.split(",") if p]
    if len(parts) == 1 and "=" not in parts[0]:
        return parts[0]
    out = {}
    for part in parts:
        name, equals, value = part.rpartition("=")
        try:
            out[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ValueError(f"weights: {part!r} is neither one of {', '.join(RULES)} nor NAME=NUMBER")
    return out


_Weights = Annotated[
    str | Mapping[str, float],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="{rule,equal,learned}|NAME=VALUE ...",
        instance_from_str=_pairs,
        is_instance=lambda x: isinstance(x, str | Mapping),
        str_from_instance=lambda x: [x] if isinstance(x, str) else [f"{k}={v}" for k, v in x.items()],
    ),
]


def train(
    stores: Paths,
    *,
    out: str | Path,
    tasks: Sequence[str] = (),
    labels: Sequence[str] = (),
    split: Sequence[str] = (),
    allow_remote: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    combine: str = "first",
    map: str | Path | None = None,
    backbone: str = "resnet50",
    init: str | Path | None = None,
    freeze: Sequence[str] = (),
    channels: int = 256,
    size: int = 512,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int = 16,
    accumulate: int | None = None,
    optimizer: str = "sgd",
    lr: float | None = None,
    nesterov: bool = False,
    weight_decay: float | None = None,
    warmup: int | None = None,
    clip: float = 10.0,
    ema: float = 0.999,
    scale: tuple[float, float] = (0.5, 2.0),
    mirror: float = 0.5,
    augment: float = 0.0,
    soft: bool = True,
    score: float = 0.5,
    confidence: bool = False,
    weights: _Weights = "rule",
    drop: float = 0.0,
    adapters: int = 0,
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    channels_last: bool = False,
    compile: bool = False,
    sync_batch_norm: bool = False,
    shard: bool = False,
    workers: int = 2,
    save_every: int = 1000,
    save_minutes: float = 10.0,
    keep: int = 2,
    progress: bool = True,
) -> str:
    """Train one student on the label sets of one or several stores.

    The student has one head per objective (a task with a space of classes or units). Label sets whose classes have the
    same names, in any order, share the head; numbers are no names ("0", "LABEL_1"). Where people and teachers label the
    same image, people win. An image without a label for an objective adds nothing to that objective's loss. Images are
    drawn uniformly from the union of the stores. Before it starts it says how many images each label set teaches, which
    of them teach none, and which sets look alike and have a head each.

    A run that was stopped, in whatever way, goes on from its last checkpoint when the same command is given again,
    and ends in the same weights as an undisturbed one (byte for byte on the CPU).

    Under `torchrun` several processes train one student, on one machine or on many (docs/torchrun.md). A run that was
    stopped goes on with another number of processes too, and no image is seen twice or left out.

    Into `out` go student.safetensors and student.json (averaged weights where `ema` is on), config.json, log.jsonl
    (one line per step), rejects.jsonl (images that could not be read), checkpoints/, and at last train.json.

    Args:
        stores: folders or URLs (docs/objects.md) made by `polyteach ingest` and filled by `polyteach label`.
        out: folder of the run. A finished run is never overwritten, an unfinished one goes on.
        tasks: only label sets of these tasks.
        labels: only these label sets, by NAME or TASK/NAME; the first that labels an image wins (after people's).
        split: only images of these splits.
        allow_remote: where else than from files of this machine and object storage images may be fetched: a protocol
            (http, https), or the beginning of URLs, also of servers in this machine's own network (docs/store.md).
        max_pixels: refuse images with more pixels than this, whatever the store says of them.
        combine: of several teachers' answers to one image, for one head: first (in the order of `labels`, else by
            name), best (the one that its teacher is surest of), union (boxes less those that overlap a better one of
            their class, the mean of classes' probabilities, of each pixel the more probable class).
        map: file with a table of class names, YAML or JSON: TASK/SET: {their name: our name, ...}, or just the names,
            for label sets that name the same classes otherwise; "as they are" instead of names for sets whose classes
            are numbers that mean the same. (docs/labels.md)
        backbone: a timm model with features at strides 4, 8, 16 and 32.
        init: weights to start from: "pretrained" (timm's hub), a state dict of the backbone (.safetensors, .pth), or
            the folder of another run; random without it.
        freeze: backbone, or backbone and pyramid: they stay as `init` gave them, and a step costs less. For few images.
        channels: of every pyramid level.
        size: side of the square views in pixels, a multiple of 32.
        steps: updates of the weights. Give this or `epochs`.
        epochs: passes over the union of the images; 10 when neither is given.
        batch_size: images per forward pass.
        accumulate: forward passes per step, over all processes of torchrun, which share them; without it one for each
            process. The batch of the optimiser is batch_size x accumulate. A process holds its batches of a step in
            the host's memory, since what each label counts depends on the others.
        optimizer: sgd (momentum 0.9) or adamw.
        lr: peak learning rate, above 0; without it 0.32 x batch / 256 for sgd, 0.0003 for adamw.
        nesterov: Nesterov momentum, for sgd.
        weight_decay: not on normalisation and biases; without it 4e-5 for sgd, 0.05 for adamw.
        warmup: steps of linear warm-up before the cosine; without it a tenth of the steps, at most 1000.
        clip: largest norm of the gradient; 0 for no limit.
        ema: decay per step of the averaged weights, below 1; 0 for none.
        scale: least and largest scale of the random views; 1 fits the whole image into the view.
        mirror: share of the views that are mirrored, 0 to 1.
        augment: magnitude of RandAugment's photometric operations, 0 (off) to 10; two per image.
        soft: learn the teachers' class probabilities; --no-soft learns only the most probable class.
        score: least score of a pseudo box, least probability of a pseudo label's pixel, 0 to 1.
        confidence: let every pseudo label count by how probable its teacher found it (a box's score, the probability
            of a pixel's class or of the picture's likeliest class); people's labels count fully.
        weights: of the losses. rule: (b * lr_teacher) / (b_teacher * lr) from what the teacher recorded, 1 where it
            recorded nothing or was trained with another optimizer; with adamw divided by their mean, as only ratios
            matter. equal: 1. learned: by uncertainty (Kendall et al. 2018). Or NAME=VALUE pairs by objective; those
            not named follow the rule.
        drop: teacher dropping (UNIC, ECCV 2024): in every forward pass the objective that has learned the least is
            kept, every other one is left out with this probability (0.5 in UNIC).
        adapters: channels of a bottleneck of its own before every head, against interference between tasks (SAK, ICLR
            2025); 0 for none. The heads keep them; `transfer` and `--init` of another network take what they share.
        seed: of the weights, the order of the images and their views.
        device: auto (CUDA where there is one, else the CPU), cpu, cuda:0, ...
        precision: fp32, or bf16 or fp16 by autocast.
        channels_last: memory layout that is quicker for convolutions in bf16 and fp16.
        compile: torch.compile of backbone and pyramid.
        sync_batch_norm: under torchrun, normalise the passes that the processes compute at the same time as one batch:
            for batches that are small on each. What is learned then depends on the number of processes.
        shard: under torchrun, every process keeps its part alone of weights, gradients and optimiser state (FSDP2), for
            models that are large for one GPU. Changes nothing of the result but the order of sums.
        workers: processes that read and decode images; 0 does it in this one. Changes nothing of the result.
        save_every: steps between checkpoints.
        save_minutes: minutes between checkpoints, above 0.
        keep: checkpoints that stay; older ones are removed.
        progress: show progress, losses and speed.

    Returns:
        The folder of the run.

    Raises:
        ValueError: what was given does not exist or does not fit, a loss is not finite, or `out` holds another run.
        BlockingIOError: another process trains in `out`.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint.

    Examples:
        polyteach train store --out run

        polyteach train store1 store2 --out run --init pretrained --epochs 20 --batch-size 32 --precision bf16

        polyteach train store --out run --labels people midas --weights learned

        torchrun --standalone --nproc-per-node 8 -m polyteach train store --out run --precision bf16

        polyteach train store --out run --optimizer adamw --size 256 --steps 5000 --augment 5
    """
    arguments = dict(locals())
    from polyteach import processes
    from polyteach.fields import Fields
    from polyteach.files import sweep, write_json

    run, leads = Path(out), processes.rank() == 0
    if leads and (run / "train.json").exists():
        raise ValueError(f"{out} holds a finished run; choose another folder")
    given = listed(stores)
    tasks, labels, split, freeze, allow_remote = (listed(x) for x in (tasks, labels, split, freeze, allow_remote))
    limits = Limits(allow_remote, max_pixels)
    init = None if init is None else str(init)
    arguments |= {"out": str(out), "tasks": tasks, "labels": labels, "split": split, "freeze": freeze, "init": init}
    arguments["allow_remote"] = allow_remote
    if not given:
        raise ValueError("no store given")
    twice = {s for s in given if given.count(s) > 1}
    if twice:
        raise ValueError(f"store {min(twice)} is given twice; every image should count once")
    if accumulate is None:
        began = Fields.read(run / "config.json", BEGUN).object("options") if (run / "config.json").exists() else None
        accumulate = (began.count("accumulate", null=True) if began else None) or processes.size()
    arguments["accumulate"] = accumulate
    _sane(arguments)

    import torch

    from polyteach.batches import REJECTS, Augment, Samples, batches, explained, members, noted, plan
    from polyteach.devices import arithmetic, find_device
    from polyteach.loop import Mixture, check, fit, logged
    from polyteach.objectives import read_map
    from polyteach.store import Store
    from polyteach.student import Student, costs_before, save_student
    from polyteach.tasks.contract import Policy

    policy = Policy(soft=soft, score=score, confidence=confidence)
    arguments["map"] = table = None if map is None else read_map(map)
    chosen = plan([Store.open(s, limits=limits) for s in given], tasks, labels, split, combine=combine, table=table)
    _meaningful(chosen, confidence, drop)
    whole_batch, place = batch_size * accumulate, find_device(device)
    settings = _settings(arguments, len(chosen), processes.own_device(place))
    check(settings)
    _processes(sync_batch_norm, shard, compile)
    _frozen(freeze, init, sync_batch_norm, shard)
    values, reasons = loss_weights(chosen, weights, settings.lr, whole_batch, optimizer)
    config = _config(arguments, given, settings, chosen, values)
    config["options"]["device"] = place
    if leads:  # the first process looks, and ends them all where it finds something wrong
        sweep(run)
        _same(run, config)
        _learnable(chosen, policy)
        _tell(chosen, values, reasons, settings, policy)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Student(backbone, chosen.objectives, channels, init, adapters=adapters).freeze(freeze)
    if sync_batch_norm and not processes.synchronise(student.backbone, torch.device(settings.device)):
        raise ValueError(f"sync_batch_norm: {backbone} has no batch normalisation; leave it out")
    single = [k for k, p in student.named_parameters() if not p.ndim]
    if shard and single:
        raise ValueError(f"shard: {single[0]} of {backbone} is a single number, which FSDP cannot divide; leave it out")
    # heads see what is labelled for them: not all processes run them
    trunk, blocks = "backbone" if sync_batch_norm or shard else "", student.blocks((size, size)) if shard else []
    before = {k: v.clone() for k, v in student.named_parameters()}
    if leads:
        write_json(run / "config.json", config)  # after everything that can be refused
    if compile:
        student.backbone.compile()
        student.pyramid.compile()
    mixture = Mixture(values, learned=weights == "learned", drop=drop, seed=seed)
    samples = Samples(chosen, Augment((size, size), scale, mirror, augment), policy, seed)

    def stream(start: int) -> "Iterator[Batch]":
        pin = settings.device.startswith("cuda")
        first, stop = start + processes.rank(), settings.steps * settings.accumulate
        mine = batches(samples, batch_size, first, stop, workers, pin, processes.size())
        return noted(mine, run / (REJECTS if leads else REJECTS.replace(".", f"-{processes.rank()}.")))

    with explained(workers):
        fit(student, mixture, stream, settings, run, trunk, blocks, student.amounts)
    if not leads:
        return str(out)
    teachers = {_licence(s) for _, _, s, n in members(chosen) if n} - {None}
    about = {
        "size": [size, size],
        "optimizer": optimizer,
        "learning_rate": settings.lr,
        "batch_size": whole_batch,
        "steps": settings.steps,
        "weights": mixture.effective(),
        "averaged": bool(ema),
        "trained": _changed(student, before, init),
        "licence": f"learned from labels under {', '.join(sorted(str(t) for t in teachers))}" if teachers else None,
        "data": config["data"],
    }
    save_student(student, run, about)
    last = logged(run / "log.jsonl")[-1]
    seconds, losses = last.number("seconds"), last.object("losses").value
    each = _flops(student, samples, batch_size)
    seen = settings.steps * whole_batch
    compute = {"images": seen, "flops": None if each is None else each * seen, "seconds": seconds}
    ready = {"steps": settings.steps, "seconds": seconds, "losses": losses}
    ready["computed"] = arithmetic(settings.device, settings.precision)
    stood_on = {cost["of"]: cost for cost in [*_teachers(chosen), *costs_before(init)]}
    write_json(run / "train.json", ready | {"compute": compute | {"teachers": list(stood_on.values())}})
    return str(out)


def _settings(a: dict[str, Any], images: int, device: str) -> "Settings":
    """How to optimise, with what follows from the number of images where nothing is said."""
    from polyteach.loop import Settings

    batch, adaptive = a["batch_size"] * a["accumulate"], a["optimizer"] == "adamw"
    steps = a["steps"]
    if steps is None:
        steps = max(1, -int(-(a["epochs"] or 10) * images // batch))
    rest = (
        "accumulate", "optimizer", "nesterov", "clip", "ema", "seed", "precision", "channels_last", "save_every",
        "save_minutes", "keep", "shard", "progress",
    )  # fmt: skip
    return Settings(
        steps=steps,
        lr=a["lr"] if a["lr"] is not None else 3e-4 if adaptive else 0.32 * batch / 256,
        weight_decay=a["weight_decay"] if a["weight_decay"] is not None else 0.05 if adaptive else 4e-5,
        warmup=a["warmup"] if a["warmup"] is not None else min(1000, steps // 10),
        device=device,
        **{k: a[k] for k in rest},
    )


def _flops(student: "Student", samples: "Samples", batch_size: int) -> float | None:
    """Operations of training per image, of a few images. On the CPU: what is counted does not depend on the device.

    A head's cost is that of the images with its labels: where not all have them, so many are counted, two at a time,
    that their share shows.
    """
    from statistics import fmean

    from polyteach.batches import batches
    from polyteach.compute import COUNTED, step_flops

    sparse = any(n < len(samples.plan) for n in samples.plan.labelled.values())
    passes = batches(samples, min(COUNTED, batch_size), 0, PASSES if sparse else 1)
    student = student.cpu()
    found = [step_flops(student, batch.images, batch.targets) for batch in passes]
    known = [x for x in found if x is not None]
    return fmean(known) if len(known) == len(found) else None


def _sane(a: dict[str, Any]) -> None:
    for name, low in {"batch_size": 1, "accumulate": 1, "channels": 1, "workers": 0, "seed": 0, "adapters": 0}.items():
        if a[name] < low:
            raise ValueError(f"{name} must be at least {low}; got {a[name]}")
    for name, low, high in (("mirror", 0, 1), ("augment", 0, 10), ("score", 0, 1), ("drop", 0, 1)):
        if not low <= a[name] <= high:
            raise ValueError(f"{name} must be {low} to {high}; got {a[name]}")
    if a["size"] < 32 or a["size"] % 32:
        raise ValueError(f"size must be a multiple of 32; got {a['size']}")
    if not 0 < a["scale"][0] <= a["scale"][1]:
        raise ValueError(f"scale must be LOW HIGH with 0 < LOW <= HIGH; got {a['scale'][0]} {a['scale'][1]}")
    if a["steps"] is not None and a["epochs"] is not None:
        raise ValueError(f"give steps or epochs, not both; got steps={a['steps']} and epochs={a['epochs']}")
    if a["epochs"] is not None and not a["epochs"] > 0:
        raise ValueError(f"epochs must be above 0; got {a['epochs']}")
    if a["nesterov"] and a["optimizer"] != "sgd":
        raise ValueError(f"nesterov is for optimizer sgd; got {a['optimizer']}")


def _meaningful(plan: "Plan", confidence: bool, drop: float) -> None:
    """Raises:
    ValueError: an option that is on could change nothing for these label sets.
    """
    from polyteach.batches import by_people
    from polyteach.tasks import load_task

    sets = [s for mine in plan.sets.values() for by_store in mine for s in by_store]
    if confidence and not any(load_task(s.task).confidence and not by_people(s) for s in sets):
        given = ", ".join(sorted({f"{s.task}/{s.name}" for s in sets}))
        raise ValueError(
            f"confidence=True weighs teachers' labels, and none of the label sets ({given}) has a teacher that says "
            "how sure it is; leave it out, or choose other label sets"
        )
    if drop and len(plan.objectives) < 2:
        raise ValueError(
            f"drop={drop:g} leaves objectives out, and there is one ({', '.join(plan.objectives)}); leave it out, or "
            "choose label sets with several spaces"
        )


def _processes(sync_batch_norm: bool, shard: bool, compile: bool) -> None:
    """Raises:
    ValueError: an option for several processes that could change nothing, or that another one forbids.
    """
    from polyteach import processes

    if sync_batch_norm and processes.size() == 1:
        raise ValueError(
            "sync_batch_norm: there is one process, which normalises its whole batch as it is; start several with "
            "torchrun, or leave it out"
        )
    if (sync_batch_norm or shard) and compile:
        name = "sync_batch_norm" if sync_batch_norm else "shard"
        raise ValueError(f"{name} and compile: layers that wait for other processes are not compiled; give one")


def _frozen(freeze: tuple[str, ...], init: str | Path | None, sync_batch_norm: bool, shard: bool) -> None:
    """Raises:
    ValueError: parts that cannot be frozen, or that nothing has taught; or an option that frozen parts forbid.
    """
    from pathlib import Path

    if not freeze:
        return
    if sorted(set(freeze)) not in (["backbone"], ["backbone", "pyramid"]):
        raise ValueError(f"freeze takes backbone, or backbone and pyramid; got {' '.join(freeze)}")
    if init is None:
        raise ValueError("freeze keeps what was learned before, and without --init nothing was; give --init")
    if "pyramid" in freeze and not Path(init).is_dir():
        raise ValueError(f"freeze pyramid: init {init} has weights of a backbone alone; give the folder of a run")
    for name, on in (("sync_batch_norm", sync_batch_norm), ("shard", shard)):
        if on:
            raise ValueError(f"{name} and freeze: there is no gradient in the backbone to share; give one of them")


def loss_weights(
    plan: "Plan", weights: str | Mapping[str, float], learning_rate: float, batch_size: int, optimizer: str
) -> tuple[dict[str, float], dict[str, str]]:
    """The weight of every objective's loss, and where it comes from.

    MuST's rule is w_i = (b_s * lr_i) / (b_i * lr_s): each objective is stepped with its own teacher's learning rate,
    rescaled to the student's batch. That compares learning rates, so it speaks only of teachers that were trained with
    the student's own optimiser (AdamW's rates are about a hundredth of SGD's); what it does not speak of weighs 1.

    Exact for SGD. AdamW steps alike whatever all losses are multiplied with, so that only ratios matter: there the
    weights that the rule gives are divided by their mean, and what it does not speak of weighs as they do on average.

    weights: "rule", "equal", "learned", or weights by objective. learning_rate, batch_size, optimizer: the student's;
    images of a whole step.

    Raises:
        ValueError: an unknown rule or objective, or a weight that is negative or not finite.
    """
    import math

    if isinstance(weights, str) and weights not in RULES:
        weights = _pairs([weights])
    if isinstance(weights, str):
        if weights not in RULES:
            raise ValueError(f"weights {weights!r} is neither one of {', '.join(RULES)} nor NAME=VALUE")
    else:
        from polyteach.names import unknown_name

        for name in sorted(set(weights) - set(plan.objectives)):
            raise unknown_name("objective", name, plan.objectives, "weights of this training are for")
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    ruled: dict[str, float] = {}
    for name in plan.objectives:
        if isinstance(weights, Mapping) and name in weights:
            values[name], reasons[name] = float(weights[name]), "given"
        elif weights in ("equal", "learned"):
            values[name], reasons[name] = 1.0, str(weights)
        else:
            value, reasons[name] = _rule(name, plan, learning_rate, batch_size, optimizer)
            values[name] = 1.0 if value is None else value
            ruled |= {} if value is None else {name: value}
    if optimizer == "adamw" and ruled:
        mean = sum(ruled.values()) / len(ruled)
        values |= {name: value / mean for name, value in ruled.items()}
        reasons |= {name: f"{reasons[name]}; divided by the mean of the rule's, {mean:.4g}" for name in ruled}
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"weights: {name}={value} must be finite and 0 or more")
    return values, reasons


def _rule(name: str, plan: "Plan", learning_rate: float, batch_size: int, optimizer: str) -> tuple[float | None, str]:
    """What the rule says of an objective, None where it says nothing; and why."""
    from polyteach.batches import by_people, members

    # a teacher whose answers count for no image says nothing of how to step
    teachers = [s for objective, _, s, n in members(plan) if objective == name and n and not by_people(s)]
    sweep = f"sweep it with --weights {name}=..."
    if not teachers:
        return None, f"people's labels, no teacher; {sweep}"
    known = [(s.name, trained) for s in teachers if (trained := _trained(s)) is not None]
    if not known:
        return None, f"teacher records no lr and batch size; {sweep}"
    alike = [(teacher, lr, b) for teacher, (lr, b, by) in known if by == optimizer]
    if not alike:
        teacher, (lr, _, by) = known[0]
        other = f"has lr {lr:g} of {by}" if by else f"has lr {lr:g} of an optimizer that it does not record"
        return None, f"teacher {teacher} {other}, which says nothing of {optimizer}'s; {sweep}"
    teacher, lr, b = alike[0]
    others = ", the first of several that differ" if len({t for _, t in known}) > 1 else ""
    return batch_size * lr / (b * learning_rate), f"rule: teacher {teacher} has lr {lr:g}, batch {b:g}{others}"


def _trained(labels: "LabelSet") -> tuple[float, float, str | None] | None:
    """Learning rate, batch size and optimiser of the teacher, None where it does not record the first two."""
    teacher = labels.info.get("teacher")
    if not isinstance(teacher, dict) or not teacher.get("learning_rate") or not teacher.get("batch_size"):
        return None
    return float(teacher["learning_rate"]), float(teacher["batch_size"]), teacher.get("optimizer")


def _licence(labels: "LabelSet") -> Any:
    teacher = labels.info.get("teacher")
    return teacher.get("licence") if isinstance(teacher, dict) else labels.info.get("licence")


def _changed(student: "Student", before: "dict[str, Tensor]", init: str | None) -> list[str]:
    """The parts that have been learned, here or in the run that this one started from: classes leave the pyramid."""
    from polyteach.student import PARTS, describe_student

    known: Sequence[str] = ()
    if init:  # other weights than a run's are those of a backbone
        known = describe_student(init).get("trained", PARTS) if Path(init).is_dir() else PARTS[:1]
    moved = {k.partition(".")[0] for k, v in student.named_parameters() if not v.detach().cpu().equal(before[k])}
    return [p for p in PARTS if p in moved or p in known]


def _teachers(plan: "Plan") -> list[dict[str, Any]]:
    """What the teachers of the chosen label sets have cost, as far as it is known: their training and the labelling.

    Not of those whose answers count for no image.
    A teacher that labelled several stores was trained once.
    """
    from polyteach.batches import by_people, members

    spent: dict[str, dict[str, Any]] = {}
    for labels in (s for _, _, s, n in members(plan) if n and not by_people(s)):
        about = labels.record()
        for cost in about.get("teachers_compute") or ():
            spent.setdefault(cost["of"], cost)
        if about.get("compute"):
            spent[str(labels.path)] = {"of": str(labels.path), "name": f"{labels.name}: labelling"} | about["compute"]
    return list(spent.values())


def _config(
    arguments: dict[str, Any],
    stores: "Sequence[str]",
    settings: "Settings",
    plan: "Plan",
    weights: dict[str, float],
) -> dict[str, Any]:
    """Everything that made the run, as JSON gives it back."""
    import json

    import polyteach
    from polyteach.batches import members
    from polyteach.files import sha256
    from polyteach.student import WEIGHTS

    resolved = {k: getattr(settings, k) for k in ("steps", "lr", "weight_decay", "warmup", "device")}
    init = Path(arguments["init"]) if arguments["init"] not in (None, "pretrained") else None
    file = init / WEIGHTS if init and init.is_dir() else init
    sets = [
        {
            "objective": name,
            "store": stores[i],
            "task": s.task,
            "name": s.name,
            "sha256": sha256(s.path / "set.json"),
            "teacher": s.info.get("teacher"),
            "images": n,
        }
        for name, i, s, n in members(plan)
    ]
    options = {k: v for k, v in arguments.items() if k != "out"} | {"stores": list(stores)} | resolved
    config = {
        "verb": "train",
        "polyteach": polyteach.__version__,
        "options": options,
        "init_sha256": sha256(file) if file and file.is_file() else None,
        "loss_weights": weights,
        "data": {"images": len(plan), "unlabelled": plan.unlabelled, "labelled": plan.labelled, "sets": sets},
    }
    plain: dict[str, Any] = json.loads(json.dumps(config, default=dict))
    return plain


def _same(run: "Path", new: dict[str, Any]) -> None:
    """Raises:
    ValueError: the folder holds something else, or an unfinished run that was started otherwise; names what differs.
    """

    from polyteach.fields import Fields
    from polyteach.files import differences

    if not (run / "config.json").exists():
        if run.exists() and (not run.is_dir() or any(run.iterdir())):
            raise ValueError(f"{run} exists and is no run of polyteach; choose another folder")
        return
    began = Fields.read(run / "config.json", BEGUN)
    old = began.value | {"options": began.object("options").value}
    known = {s.text("objective"): s.value for s in began.object("data").objects("sets")}
    then, now = ({k: v for k, v in (NEW | c["options"]).items() if k not in FREE} for c in (old, new))
    differ = differences(then, now)
    if not differ:  # the same command; then something that it reads has changed
        then, now = ({k: v for k, v in c.items() if k not in ("options", "data")} for c in (old, new))
        differ = differences(then, now)
        before, data = old["data"], new["data"]
        if not any("images" in s for s in known.values()):  # of the first versions
            data = data | {"sets": [{k: v for k, v in s.items() if k != "images"} for s in data["sets"]]}
        if set(known) != {s["objective"] for s in data["sets"]}:
            differ.append(
                "label sets shared heads otherwise: now those do whose classes have the same names, in any order, and "
                "are not just numbers"
            )
        elif before != data:
            changed = [k for k in data if before.get(k) != data[k]]
            differ.append(f"the stores have changed since then ({', '.join(changed)})")
    if differ:
        raise ValueError(
            f"{run} was started otherwise: {'; '.join(differ)}. Give the same command to go on, or another --out"
        )


def _learnable(plan: "Plan", policy: "Policy") -> None:
    """Raises:
    ValueError: an objective of which no image has anything to be learned.
    """
    import sys

    from polyteach.batches import unlearnable
    from polyteach.tables import fitted

    known, likely = unlearnable(plan, policy)
    if known:
        raise ValueError(
            f"there is nothing to be learned for {'; '.join(known.values())}. Mend these labels, lower --score, or "
            "choose others with --labels"
        )
    warnings = [f"WARNING: nothing to be learned was found for {text}" for text in likely.values()]
    if warnings:
        say(*fitted(warnings, sys.stderr))


def _tell(
    plan: "Plan", weights: dict[str, float], reasons: dict[str, str], settings: "Settings", policy: "Policy"
) -> None:
    import sys

    from polyteach.batches import by_people, members
    from polyteach.tables import fitted
    from polyteach.texts import say

    lines = [f"{len(plan):,} images, {settings.steps:,} steps, lr {settings.lr:g}, {settings.device}; loss weights:"]
    if plan.unlabelled:
        lines.append(f"  ({plan.unlabelled:,} images that no chosen label set labels are left out)")
    for name, value in weights.items():
        lines.append(f"  {name}: {value:.4g} ({reasons[name]}); {plan.labelled[name]:,} images")
        for _, i, labels, n in (m for m in members(plan) if m[0] == name):
            together = "" if plan.combine == "first" or by_people(labels) else f" ({plan.combine} of its teachers)"
            lines.append(f"    {n:,} by {_where(plan, i, labels)}{together}")
    for warning in _warnings(plan, policy):
        text, mark, table = warning.partition("--map FILE:\n")  # a table is YAML, in which names keep to their lines
        lines += [f"WARNING: {text}{mark.rstrip()}", *(table.split("\n") if mark else [])]
    say(*fitted(lines, sys.stderr))


def _where(plan: "Plan", store: int, labels: "LabelSet") -> str:
    """What a label set is called: with its store, where there are several."""
    return f"{labels.task}/{labels.name}" + (f" of {plan.stores[store].path}" if len(plan.stores) > 1 else "")


def _warnings(plan: "Plan", policy: "Policy") -> list[str]:
    """What of the label sets is likely not what was meant: it teaches nothing, or hardly anything, or not together."""
    from polyteach.batches import idle, members

    out, reasons = [], idle(plan)
    for name, i, labels, _ in members(plan):
        where = _where(plan, i, labels)
        why = reasons.get((i, labels.task, labels.name))
        if why:
            out.append(f"{where} {why}")
        doubt = labels.doubt(policy)
        if doubt:
            out.append(f"{where} can teach {name} hardly anything: {doubt}")
    return out + plan.apart
