"""a finished run -> its backbone as a folder that timm loads"""

from pathlib import Path

import tyro

from polyteach.ground.options import grouped, one_of


@grouped
def export(
    run: tyro.conf.Positional[str | Path], out: tyro.conf.Positional[str | Path], *, format: str = "timm"
) -> str:
    """Write the backbone of a finished run for other programs.

    Into `out` go model.safetensors with timm's own names, config.json with the architecture and what pixels are
    normalised by, and README.md, which says what it is, what it was taught by and under which licences, and how to load
    it. Pyramid and heads stay in the run. Layers of timm's model that give no feature maps (a classifier, a last
    convolution) were not learned: they are as timm makes them, and stderr is told which.

    Args:
        run: the folder that `polyteach train` or `pretrain` wrote.
        out: the new folder; must not exist.
        format: timm, as `timm.create_model("local-dir:OUT", pretrained=True, num_classes=0)` takes it, and a repository
            of the Hugging Face hub.

    Returns:
        The path of `out`.

    Raises:
        ValueError: no finished run, a backbone that is not timm's, another format, or `out` exists.

    Examples:
        polyteach export run backbone

        polyteach export runs/student export/student --format timm
    """
    one_of(("timm",), format=format)
    from polyteach.model.export import export_timm

    return export_timm(Path(run), out)
