"""stores -> student (or, from people's labels, a teacher)"""

from pathlib import Path

from polyteach.ground.limits import Limits
from polyteach.ground.options import Paths, Policy, Saving, Views, grouped, listed
from polyteach.training.options import FineTuning, Labels, Losses, StudentHardware, StudentNetwork, StudentOptimisation


@grouped
def train(
    stores: Paths,
    *,
    out: str | Path,
    label_sets: Labels = Labels(),
    limits: Limits = Limits(),
    network: StudentNetwork = StudentNetwork(),
    optimisation: StudentOptimisation = StudentOptimisation(),
    tuning: FineTuning = FineTuning(),
    views: Views = Views(),
    policy: Policy = Policy(),
    losses: Losses = Losses(),
    hardware: StudentHardware = StudentHardware(),
    saving: Saving = Saving(),
) -> str:
    """Train one student on the label sets of one or several stores.

    The student has one head per objective (a task with a space of classes or units). Label sets whose classes have the
    same names, in any order, share the head; numbers are no names ("0", "LABEL_1"). Where people and teachers label the
    same image, people win. An image without a label for an objective adds nothing to that objective's loss. Images are
    drawn uniformly from the union of the stores. Before it starts it says how many images each label set teaches, which
    of them teach none, and which sets look alike and have a head each.

    A run that was stopped, in whatever way, goes on from its last checkpoint when the same command is given again,
    and ends in the same weights as an undisturbed one (byte for byte on the CPU).

    Under `torchrun` several processes train one student, on one machine or on many (docs/guide/torchrun.md). A run that
    was stopped goes on with another number of processes too, and no image is seen twice or left out.

    Into `out` go student.safetensors and student.json (averaged weights where `ema` is on), config.json, log.jsonl
    (one line per step), rejects.jsonl (images that could not be read), checkpoints/, and at last train.json.

    Args:
        stores: folders or URLs (docs/guide/objects.md) made by `polyteach ingest` and filled by `polyteach label`.
        out: folder of the run. A finished run is never overwritten, an unfinished one goes on.

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
    from polyteach.training.request import TrainRequest, checked_train

    groups = (limits, label_sets, network, views, policy, optimisation, losses, hardware, saving, tuning)
    request = checked_train(TrainRequest(listed(stores), str(out), *groups))
    from polyteach.training.train import train_student  # torch, when nothing is left that can be refused without it

    return train_student(request)
