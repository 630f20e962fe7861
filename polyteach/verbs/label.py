"""store + teachers -> pseudo labels in the store"""

from collections.abc import Sequence
from pathlib import Path

import tyro

from polyteach.ground.limits import Limits
from polyteach.ground.options import grouped
from polyteach.labelling.options import Asking, Cluster, Teachers


@grouped
def label(
    store: tyro.conf.Positional[str | Path],
    *,
    teachers: Teachers,
    device: Sequence[str] = ("auto",),
    inference: Asking = Asking(),
    score: float = 0.5,
    limits: Limits = Limits(),
    cluster: Cluster = Cluster(),
    progress: bool = True,
) -> None:
    """Run every teacher over every image of a store and write one pseudo label set for each of its answers.

    Each image is decoded once for all teachers. Work goes part by part: what is written is whole, a run that was
    stopped goes on where it was when the same command is given again, and teachers can be added later. An image
    that cannot be read, or whose answer is unusable (NaN, an unknown class), is recorded with its reason and never
    stops the run. A device that fails does, and a teacher that answers not even a plain image; what is done is kept.
    Where people have labelled some of the images, it ends with how the labels hold against theirs.
    Scores and probabilities are kept, so thresholds are chosen when training.

    Args:
        store: the store's folder, or its URL (docs/guide/objects.md), made by `polyteach ingest`.
        teachers: name -> FAMILY:NAME of a teacher. The name becomes the label set's.
        device: where to run: auto, cpu, cuda:0, ... Several devices are given to the teachers in turn; NAME=DEVICE is
            for the teacher NAME alone. With auto, a teacher that runs on the CPU only does so, and that is said. On Ray
            they are the devices of every worker, which reserves as many GPUs.
        score: threshold of the statistics printed at the end; nothing is thrown away by it.
        progress: show a progress bar.

    Examples:
        polyteach label store --teacher boxes=torchvision:fasterrcnn_resnet50_fpn classes=timm:resnet50

        polyteach label store --teacher depth=transformers:./dpt-large --device cuda:0 --precision bf16

        polyteach label store --teacher boxes=onnx:boxes.onnx depth=transformers:./dpt-large --device boxes=cpu cuda:1

        polyteach label store --teacher boxes=transformers:./owlv2@prompts.yaml masks=sam:./sam+boxes=boxes

        polyteach label /shared/store --teacher depth=transformers:/shared/dpt-large --ray auto --ray-workers 64

    Raises:
        ValueError: no teacher, one called "people" or that cannot be loaded, a number out of range, a store without
            images or without one of `split`, an error of a device, a teacher that does not work; at the end, when a
            label set has no answer for any image.
    """
    from polyteach.labelling.start import start_label

    start_label(str(store), teachers, device, inference, score, limits, cluster, progress)
