"""Where weights to start from may lie: a hub's repository or a folder as timm writes it. Nothing here imports torch."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyteach.ground.fields import Fields
from polyteach.ground.names import closest

PRETRAINED, HUB, FOLDER = "pretrained", "hf-hub:", "local-dir:"
CONFIG = "config.json"
FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""What timm calls the weights, the first that is there."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_TARGET = frozenset(
    "num_classes global_pool img_size in_chans drop_rate drop_path_rate proj_drop_rate attn_drop_rate pos_drop_rate "  # noqa: SIM905
    "patch_drop_rate dynamic_img_size dynamic_img_pad strict_img_size features_only out_indices fc_norm".split()
)
"""Arguments of a model that a backbone's maps do not depend on, or that the images' size decides here."""


@dataclass(frozen=True)
class Described:
    """What config.json beside weights says of them.

    architecture: timm's name, without a tag. mean, std: of RGB from 0 to 1, by which images were normalised, None where
    it does not say.
    """

    architecture: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def is_elsewhere(init: str) -> bool:
    """Whether it names a repository or a folder of timm's, and no file or run."""
    return init.startswith((HUB, FOLDER))


def check_place(init: str) -> None:
    """Refuse what is no place of weights, without asking a hub.

    Raises:
        ValueError: there is no such file or folder, or it is not spelt as places are; says what was meant.
    """
    if init == PRETRAINED:
        return
    if init.startswith(HUB):
        if not _REPOSITORY.fullmatch(init.removeprefix(HUB)):
            raise ValueError(
                f"init {init!r} must be {HUB}ORG/NAME, with @REVISION behind it where it is not the newest"
            )
    elif init.startswith(FOLDER):
        files(Path(init.removeprefix(FOLDER)))
    elif not Path(init).exists():
        raise ValueError(
            f"init {init!r} is neither 'pretrained', a file, a run's folder, {HUB}ORG/NAME nor {FOLDER}FOLDER"
            f"{_meant(init)}"
        )


def _meant(init: str) -> str:
    scheme, colon, rest = init.partition(":")
    if colon and (close := closest(scheme, (HUB[:-1], FOLDER[:-1]), 1)):
        return f". Did you mean {close[0]}:{rest}?"
    if not colon and closest(init, (PRETRAINED,), 1) and "/" not in init:
        return f". Did you mean {PRETRAINED}?"
    return ""


def files(folder: Path) -> tuple[Path, Path]:
    """config.json and the file of weights in a folder as timm writes it.

    Raises:
        ValueError: one of them is not there.
    """
    if not folder.is_dir():
        raise ValueError(f"init {FOLDER}{folder}: there is no such folder")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"init {FOLDER}{folder}: it has no {CONFIG}, which says of which timm model it is")
    weights = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if weights is None:
        raise ValueError(f"init {FOLDER}{folder}: it has no weights, such as {FILES[0]} or {FILES[1]}")
    return folder / CONFIG, weights


def described(config: Path, backbone: str | None = None) -> Described:
    """What a config.json as timm writes it says. backbone: the name of what the weights are for, None for any.

    Raises:
        ValueError: it is not of timm, of another architecture, or of a model that was built otherwise than timm's
            default; or a field is wrong.
    """
    about = Fields.read(config)
    if "architecture" not in about:
        of = " (it is of transformers)" if "architectures" in about or "model_type" in about else ""
        raise about.error("architecture", f"is missing: it is no {CONFIG} of timm's{of}; give a file: --init FILE")
    architecture = about.text("architecture").partition(".")[0]
    said = about.object("pretrained_cfg") if "pretrained_cfg" in about else about  # as timm wrote it before 0.9
    wanted = None if backbone is None else backbone.removeprefix("timm:").partition(".")[0]
    if wanted not in (None, architecture):
        raise ValueError(f"{config} is of {architecture}, not {wanted}: give --backbone {architecture}")
    for key, value in about.object("model_args", null=True).value.items():
        if key not in _TARGET or (key == "in_chans" and value != 3):
            raise ValueError(
                f"{config}: model_args.{key} {value!r} makes another model than timm's {architecture}, which is what a "
                "backbone is; choose weights of that"
            )
    return Described(architecture, triple(said, "mean"), triple(said, "std"))


def triple(about: Fields, key: str) -> tuple[float, ...] | None:
    """Three numbers, of red, green and blue, from 0 to 1; a "std" above 0. None where the field is not there.

    Raises:
        ValueError: they are others.
    """
    if key not in about:
        return None
    value: Any = about.get(key, (list,), "a list")
    low = 1e-3 if key == "std" else 0.0
    if len(value) != 3 or any(type(x) not in (int, float) or not low <= x <= 1 for x in value):
        raise about.error(key, f"must be three numbers from {low:g} to 1 (red, green, blue)", value)
    return tuple(float(x) for x in value)
