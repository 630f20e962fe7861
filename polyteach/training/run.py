"""Run: what `train`, `pretrain` and `transfer` make in a folder, from the check that it can go on to its last file.

run = Run(out, Kind("train", "train.json", free=("workers",)))
run.check_open()
config = run.settings(options, init, data)
run.check_same(config)                                    # "was started otherwise: ..."
run.write_settings(config)                                # config.json
run.fit(model, mixture, samples, settings, Passes(16))    # log.jsonl, checkpoints/, rejects.jsonl, lock
run.save(student, about)                                  # student.safetensors, student.json
run.finish({"compute": run.spent(images, flops_per_image(student, samples))})
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from polyteach.loading.samples import Samples
from polyteach.loading.transport import REJECTS, Batch, batches, explained, noted
from polyteach.model.student import Student, save_student
from polyteach.model.units import Units
from polyteach.training import distributed, ledger
from polyteach.training.loop import fit
from polyteach.training.mixture import Amounts, Mixture, labelled
from polyteach.training.record import Record
from polyteach.training.settings import Settings


@dataclass(frozen=True)
class Passes:
    """How batches come and what a forward pass consists of.

    batch_size: samples in a pass. workers: processes that read and decode ahead; 0 does it in this one. trunk, blocks,
    amounts, units: see `loop.fit`.
    """

    batch_size: int
    workers: int = 0
    trunk: str = ""
    blocks: Sequence[str] = ()
    amounts: Callable[[Mapping[str, Sequence[Any]]], Amounts] = labelled
    units: Units = ()


class Run(Record):
    """A folder in which something is trained; see the module for the order of what is done there."""

    def stream(self, samples: Samples, settings: Settings, passes: Passes, start: int) -> Iterator[Batch]:
        """This process's batches from number `start` on to the end of the training.

        Images that could not be read are noted in the folder, by each process in a file of its own.
        """
        rank = distributed.rank()
        pin = settings.device.startswith("cuda")
        stop, every = settings.steps * settings.accumulate, distributed.size()
        mine = batches(samples, passes.batch_size, start + rank, stop, passes.workers, pin, every)
        return noted(mine, self.folder / (REJECTS.replace(".", f"-{rank}.") if rank else REJECTS))

    def fit(self, model: nn.Module, mixture: Mixture, samples: Samples, settings: Settings, passes: Passes) -> None:
        """Train `model` in place, going on from the last checkpoint in the folder; see `loop.fit`.

        Raises:
            ValueError: a data worker failed, and what can be done about it; or as `loop.fit`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with explained(passes.workers):
            fit(
                model,
                mixture,
                lambda start: self.stream(samples, settings, passes, start),
                settings,
                self.folder,
                passes.trunk,
                passes.blocks,
                passes.amounts,
                passes.units,
            )

    def save(self, student: Student, about: dict[str, Any]) -> None:
        """Write the trained network and its description; about: what is known of it beside its shape."""
        save_student(student, self.folder, about)

    def spent(self, images: int, each: float | None) -> dict[str, Any]:
        """What the training has cost: images, flops, and the seconds that its log tells.

        each: operations per image, see `ledger.flops_per_image`.
        """
        return ledger.spent(images, each, self.last().number("seconds"))
