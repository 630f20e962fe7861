"""Train: stores and their label sets into one student; with one task and people's labels, into a teacher."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyteach.ground.devices import arithmetic, find_device
from polyteach.ground.fields import Fields
from polyteach.ground.files import sha256
from polyteach.ground.flops import COUNTED
from polyteach.ground.options import Policy
from polyteach.ground.texts import say
from polyteach.loading.plan import LOOK, Plan, members, plan
from polyteach.loading.reader import Reader
from polyteach.loading.sampler import Sampler
from polyteach.loading.samples import Samples
from polyteach.loading.thresholds import thresholds, with_thresholds
from polyteach.loading.views import Augment
from polyteach.model.provenance import PARTS
from polyteach.model.student import Student, describe_student
from polyteach.store import LabelSet, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Target
from polyteach.training import distributed, layers, ledger
from polyteach.training.briefing import check_learnable, check_meaningful, tell
from polyteach.training.mixture import Mixture
from polyteach.training.recomputation import check_recomputable, recomputed
from polyteach.training.request import TRAIN, TrainRequest
from polyteach.training.run import Passes, Run
from polyteach.training.settings import Settings, check
from polyteach.training.weights import loss_weights


@dataclass(frozen=True)
class _Job:
    """A training that can begin. weights, reasons: of every objective's loss, and where it comes from.

    policy: with the least scores by class, where they differ.
    """

    asked: TrainRequest
    run: Run
    plan: Plan
    settings: Settings
    weights: dict[str, float]
    reasons: dict[str, str]
    config: dict[str, Any]
    policy: Policy

    @property
    def batch(self) -> int:
        """Images of a step."""
        return self.asked.optimisation.batch_size * self.settings.accumulate


def train_student(asked: TrainRequest) -> str:
    """Train the student; see `polyteach.train`. asked: a request that was checked.

    Returns:
        The folder of the run.

    Raises:
        ValueError, BlockingIOError, KeyboardInterrupt: see `polyteach.train`.
    """
    job = _planned(asked)
    leads = distributed.rank() == 0
    if leads:  # the first process looks, and ends them all where it finds something wrong
        job.run.check_same(job.config, data=_data_differences)
        check_learnable(job.plan, job.policy)
        tell(job.plan, job.weights, job.reasons, job.settings, job.policy)
    student = _student(job)
    hardware, network, views = asked.hardware, asked.network, asked.views
    before = {k: v.clone() for k, v in student.named_parameters()}
    found = layers.found(student, (network.size, network.size), job.settings)
    if leads:
        for line in layers.told(found, job.settings):
            say(line)
        job.run.write_settings(job.config)  # after everything that can be refused
    size = (network.size, network.size)
    passes = Passes(
        asked.optimisation.batch_size,
        hardware.workers,
        # heads see what is labelled for them: not all processes run them
        "backbone" if hardware.sync_batch_norm or hardware.shard else "",
        student.blocks(size) if hardware.shard else [],
        student.amounts,
        found,
    )
    if hardware.compile:
        student.backbone.compile()
        student.pyramid.compile()
    seed = asked.optimisation.seed
    mixture = Mixture(job.weights, learned=asked.losses.weights == "learned", drop=asked.losses.drop, seed=seed)
    samples = Samples(job.plan, Augment(size, views.scale, views.mirror, views.augment), job.policy, seed)
    _prepare(student, job, seed)
    with recomputed(student.backbone, network.backbone) if hardware.grad_checkpointing else nullcontext():
        job.run.fit(student, mixture, samples, job.settings, passes)
    if leads:
        _finish(job, student, mixture, samples, _changed(student, before, job.config["options"]["init"]))
    return asked.out


def _planned(asked: TrainRequest) -> _Job:
    """What is to be done, and all that follows from the stores.

    Raises:
        ValueError: there is nothing to learn, or an option that does not fit what there is.
    """
    sets, optimisation = asked.sets, asked.optimisation
    stores = [Store.open(s, limits=asked.limits) for s in asked.stores]
    chosen = plan(stores, sets.tasks, sets.labels, sets.split, combine=sets.combine, table=asked.table)
    check_meaningful(chosen, asked.policy, asked.losses.drop)
    place = find_device(asked.hardware.device)
    settings = _settings(asked, len(chosen), distributed.own_device(place))
    check(settings)
    whole_batch = optimisation.batch_size * settings.accumulate
    values, reasons = loss_weights(chosen, asked.losses.weights, settings.lr, whole_batch, optimisation.optimizer)
    run = Run(asked.out, TRAIN)
    resolved = {k: getattr(settings, k) for k in ("steps", "lr", "weight_decay", "warmup")} | {"device": place}
    init = None if asked.network.init is None else str(asked.network.init)
    found = thresholds(chosen, asked.policy, run.thresholds())
    more: dict[str, Any] = {"loss_weights": values} | ({"thresholds": found} if found else {})
    config = run.settings(asked.options() | resolved, init, _data(asked.stores, chosen, asked.policy), **more)
    policy = with_thresholds(chosen, asked.policy, found)
    return _Job(asked, run, chosen, settings, values, reasons, config, policy)


def _settings(asked: TrainRequest, images: int, device: str) -> Settings:
    """How to optimise, with what follows from the number of images where nothing is said."""
    o, saving = asked.optimisation, asked.saving
    batch, adaptive = o.batch_size * asked.passes, o.optimizer == "adamw"
    steps = o.steps
    if steps is None:
        steps = max(1, -int(-(o.epochs or 10) * images // batch))
    return Settings(
        steps=steps,
        accumulate=asked.passes,
        optimizer=o.optimizer,
        lr=o.lr if o.lr is not None else 3e-4 if adaptive else 0.32 * batch / 256,
        nesterov=o.nesterov,
        weight_decay=o.weight_decay if o.weight_decay is not None else 0.05 if adaptive else 4e-5,
        warmup=o.warmup if o.warmup is not None else min(1000, steps // 10),
        clip=o.clip,
        ema=o.ema,
        seed=o.seed,
        device=device,
        precision=asked.hardware.precision,
        channels_last=asked.hardware.channels_last,
        save_every=saving.save_every,
        save_minutes=saving.save_minutes,
        keep=saving.keep,
        shard=asked.hardware.shard,
        layer_decay=asked.tuning.layer_decay,
        thaw=asked.tuning.thaw,
        recompute=asked.hardware.grad_checkpointing,
        progress=saving.progress,
    )


def _student(job: _Job) -> Student:
    """The network as it starts, with the layers that the processes need.

    Raises:
        ValueError: an unknown backbone, weights that do not fit, or one that processes cannot share as asked.
    """
    network, hardware = job.asked.network, job.asked.hardware
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.settings.seed)
        student = Student(
            network.backbone,
            job.plan.objectives,
            network.channels,
            job.config["options"]["init"],
            adapters=network.adapters,
            size=(network.size, network.size),
            drop_path=job.asked.tuning.drop_path,
        ).freeze(network.freeze)
    if job.asked.tuning.keep_statistics:
        student.keep_statistics()
    if hardware.sync_batch_norm and not distributed.synchronise(student.backbone, torch.device(job.settings.device)):
        raise ValueError(f"sync_batch_norm: {network.backbone} has no batch normalisation; leave it out")
    single = [k for k, p in student.named_parameters() if not p.ndim]
    if hardware.shard and single:
        raise ValueError(
            f"shard: {single[0]} of {network.backbone} is a single number, which FSDP cannot divide; leave it out"
        )
    if hardware.grad_checkpointing:
        check_recomputable(network.backbone, (network.size, network.size), student.config)
    return student


def _prepare(student: Student, job: _Job, seed: int) -> None:
    """Tell heads what they have to know of the data, from images in the order in which an epoch shows them.

    Every process does the same: it follows from the stores and the seed.
    """
    order = Sampler(job.plan.start, seed)

    def targets(name: str) -> Iterator[Target]:
        reader = Reader(job.plan, job.policy)
        for place in range(min(len(job.plan), LOOK)):
            target = reader.target(order.at(place)[1], name)
            if target is not None:
                yield target

    for name, objective in job.plan.objectives.items():
        load_task(objective.task).prepare(student.head(name), targets(name))


def _finish(job: _Job, student: Student, mixture: Mixture, samples: Samples, trained: list[str]) -> None:
    """Write the student and what the run has cost. trained: parts that were learned."""
    asked, settings = job.asked, job.settings
    licences = {_licence(s) for _, _, s, n in members(job.plan) if n} - {None}
    about = {
        "size": [asked.network.size, asked.network.size],
        "optimizer": settings.optimizer,
        "learning_rate": settings.lr,
        "batch_size": job.batch,
        "steps": settings.steps,
        "weights": mixture.effective(),
        "averaged": bool(settings.ema),
        "trained": trained,
        "licence": f"learned from labels under {', '.join(sorted(str(t) for t in licences))}" if licences else None,
        "data": job.config["data"],
    }
    job.run.save(student, about)
    last = job.run.last()
    each = ledger.flops_per_image(student, samples, min(COUNTED, asked.optimisation.batch_size))
    teachers = ledger.stood_on(job.config["options"]["init"], job.plan)
    job.run.finish(
        {
            "steps": settings.steps,
            "seconds": last.number("seconds"),
            "losses": last.object("losses").value,
            "computed": arithmetic(settings.device, settings.precision),
            "compute": job.run.spent(settings.steps * job.batch, each) | {"teachers": teachers},
        }
    )


def _licence(labels: LabelSet) -> Any:
    teacher = labels.info.get("teacher")
    return teacher.get("licence") if isinstance(teacher, dict) else labels.info.get("licence")


def _changed(student: Student, before: Mapping[str, Tensor], init: str | None) -> list[str]:
    """The parts that have been learned, here or in the run that this one started from: classes leave the pyramid."""
    known: Sequence[str] = ()
    if init:  # other weights than a run's are those of a backbone
        known = describe_student(init).get("trained", PARTS) if Path(init).is_dir() else PARTS[:1]
    moved = {k.partition(".")[0] for k, v in student.named_parameters() if not v.detach().cpu().equal(before[k])}
    return [p for p in PARTS if p in moved or p in known]


def _data(stores: Sequence[str], plan: Plan, policy: Policy) -> dict[str, Any]:
    """What is learned from, as config.json records it."""

    def calibration(labels: LabelSet) -> dict[str, Any]:
        found = labels.calibration() if policy.calibrated else None
        return {} if found is None else {"calibration": asdict(found)}

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
        | calibration(s)
        for name, i, s, n in members(plan)
    ]
    return {"images": len(plan), "unlabelled": plan.unlabelled, "labelled": plan.labelled, "sets": sets}


def _data_differences(recorded: Fields, data: dict[str, Any]) -> list[str]:
    """What was learned from otherwise, in words. recorded, data: what config.json says, and would say now."""
    before, known = recorded.value, {s.text("objective"): s.value for s in recorded.objects("sets")}
    if not any("images" in s for s in known.values()):  # of the first versions
        data = data | {"sets": [{k: v for k, v in s.items() if k != "images"} for s in data["sets"]]}
    if set(known) != {s["objective"] for s in data["sets"]}:
        return [
            "label sets shared heads otherwise: now those do whose classes have the same names, in any order, and are "
            "not just numbers"
        ]
    if before != data:
        changed = [k for k in data if before.get(k) != data[k]]
        return [f"the stores have changed since then ({', '.join(changed)})"]
    return []
