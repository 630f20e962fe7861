"""Transfer: a representation and a downstream store into scores, by the same protocol for every representation."""

from collections.abc import Sequence

from polyteach.model.backbones import check_size
from polyteach.training.recomputation import check_recomputable
from polyteach.training.record import Record
from polyteach.transferring.job import Job, open_job
from polyteach.transferring.options import TRAINED
from polyteach.transferring.probes import probed
from polyteach.transferring.protocol import Setup
from polyteach.transferring.record import TRANSFER, changed_seeds, refuse_finished
from polyteach.transferring.summary import summary, tell
from polyteach.transferring.sweep import swept


def run(setup: Setup, of_training: Sequence[str] = ()) -> str:
    """Do what is not done yet of a transfer; see `verbs.transfer`.

    of_training: options that were given and that a probe would not look at.

    Returns:
        The folder of the result.

    Raises:
        ValueError: what was given does not exist or does not fit, or the folder holds another transfer.
    """
    job = open_job(setup)
    if not setup.trains and of_training:
        raise ValueError(
            f"{of_training[0]} is for modes {' and '.join(TRAINED)}; mode {setup.mode} trains nothing: leave it out"
        )
    _check(job)
    record = Record(job.folder, TRANSFER)
    config = record.settings(setup.options(), setup.init, job.downstream.digests())
    record.check_same(config, lambda old, new: changed_seeds(record, new))
    refuse_finished(record, setup)
    record.write_settings(config)
    results = [swept(job, part) if setup.trains else probed(job) for part in job.brought()]
    found = summary(job, results, config)
    record.finish(found)
    if setup.progress:
        tell(found, record.done)
    return setup.out


def _check(job: Job) -> None:
    """Whatever would be refused later, before anything is written."""
    setup = job.setup
    for lr in setup.lrs:
        for steps in setup.steps:
            job.settings(lr, steps, setup.seeds[0])
    for part in job.brought():
        network = job.network(part, setup.seeds[0])
        check_size(setup.size, network.backbone.multiple)
    if setup.grad_checkpointing:
        check_recomputable(setup.backbone, (setup.size, setup.size), network.config)
