"""images -> backbone, without labels (SimCLR, VICReg): the rivals"""

from collections.abc import Sequence
from pathlib import Path

from polyteach.ground.limits import Limits
from polyteach.ground.options import Hardware, Paths, Saving, grouped, listed
from polyteach.training.options import BackboneNetwork, BackboneOptimisation, Contrast


@grouped
def pretrain(
    stores: Paths,
    *,
    out: str | Path,
    split: Sequence[str] = (),
    limits: Limits = Limits(),
    contrast: Contrast = Contrast(),
    network: BackboneNetwork = BackboneNetwork(),
    optimisation: BackboneOptimisation = BackboneOptimisation(),
    hardware: Hardware = Hardware(),
    saving: Saving = Saving(),
) -> str:
    """Train a backbone by comparing two views of each image, without any label.

    simclr (Chen et al., ICML 2020): each view has to find its image's other view among all views of the batch
    (NT-Xent). Likes large batches. vicreg (Bardes et al., ICLR 2022): the two views should agree, while every
    dimension keeps its variance and none repeats another; needs neither negatives nor large batches, which is why it
    is the second method here.

    The network, its optimisation, checkpoints and resume are those of `polyteach train`. Only the backbone is trained:
    `transfer` takes nothing else from such a run.

    Args:
        stores: folders or URLs (docs/guide/objects.md) made by `polyteach ingest`.
        out: folder of the run. A finished run is never overwritten, an unfinished one goes on.
        split: only images of these splits.

    Returns:
        The folder of the run.

    Raises:
        ValueError: what was given does not exist or does not fit, a loss is not finite, or `out` holds another run.
        BlockingIOError: another process trains in `out`.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint.

    Examples:
        polyteach pretrain store --out simclr --method simclr --epochs 200 --batch-size 1024 --precision bf16

        polyteach pretrain store --out vicreg --method vicreg --backbone resnet18 --size 96 --steps 5000
    """
    from polyteach.training.request import PretrainRequest, checked_pretrain

    groups = (limits, contrast, network, optimisation, hardware, saving)
    request = checked_pretrain(PretrainRequest(listed(stores), str(out), listed(split), *groups))
    from polyteach.training.pretrain import pretrain_backbone  # torch, when nothing is left that can be refused

    return pretrain_backbone(request)
