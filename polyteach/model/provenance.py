"""Provenance: what a run's files say of the training that made them, read without torch."""

import hashlib
from pathlib import Path
from typing import Any

from polyteach.ground.fields import Fields, cost
from polyteach.ground.files import sha256
from polyteach.model.starts import CONFIG, FOLDER, HUB, PRETRAINED, check_place, described, files, is_elsewhere

WEIGHTS, DESCRIPTION = "student.safetensors", "student.json"
DONE = ("train.json", "pretrain.json")
"""Files that a training writes last; they say what it has cost."""
PARTS = ("backbone", "pyramid", "heads")
"""The modules of a student. A run's student.json lists under "trained" which of them were learned, all without it."""
FIX = "Take the run as `polyteach train` wrote it, or train it again"
"""What to do about a run whose files are not as they should be."""
TOWERS = "transformers:"
"""How names of backbones begin whose configuration is in a folder."""


def description(run: str | Path) -> Fields:
    """A run's student.json, of which nothing is looked at yet.

    Raises:
        ValueError: the run holds no finished student, or its file is no JSON object.
    """
    file = Path(run) / DESCRIPTION
    if not file.exists():
        raise ValueError(f"{run} holds no finished student (no {DESCRIPTION}); train one with: polyteach train")
    return Fields.read(file, FIX)


def check_init(init: str | None, backbone: str) -> None:
    """Refuse weights that are not there, or a run of another backbone.

    Raises:
        ValueError: they are neither a name, a file nor a finished run's folder, or of another backbone.
    """
    if init is None:
        return
    check_place(str(init))
    if str(init).startswith(FOLDER):
        described(files(Path(str(init).removeprefix(FOLDER)))[0], backbone)
    place = Path(str(init))
    if init != PRETRAINED and not is_elsewhere(str(init)) and place.is_dir():
        there = (place / DESCRIPTION).exists()
        has = Fields.read(place / DESCRIPTION, FIX).text("backbone") if there else None
        if has != backbone:
            what = f"has backbone {has}, not {backbone}" if there else f"is no finished run{_timms(place)}"
            raise ValueError(f"init {init} {what}")


def _timms(folder: Path) -> str:
    return f"; of a folder as timm writes it say {FOLDER}{folder}" if (folder / CONFIG).is_file() else ""


def init_sha256(init: str | None) -> str | None:
    """The hash of the weights that a training starts from: of a run's, or of a file; None where they are no file."""
    if init is None or init == PRETRAINED or init.startswith(HUB):
        return None
    if init.startswith(FOLDER):  # its config.json says by what pixels are normalised
        both = "".join(sha256(file) for file in files(Path(init.removeprefix(FOLDER))))
        return hashlib.sha256(both.encode()).hexdigest()
    place = Path(init)
    file = place / WEIGHTS if place.is_dir() else place
    return sha256(file) if file.is_file() else None


def backbone_sha256(name: str, init: str | None) -> str | None:
    """The hash of the files that say what a backbone of a folder is and how its images are normalised.

    None where a run brings that, or the name is of no folder.
    """
    folder = Path(name.removeprefix(TOWERS))
    if not name.startswith(TOWERS) or not folder.is_dir() or (init is not None and Path(init).is_dir()):
        return None
    found = "".join(f"{f.name} {sha256(f)}\n" for f in sorted(folder.glob("*config.json")) if f.is_file())
    return hashlib.sha256(found.encode()).hexdigest()


def costs(run: str | Path, name: str) -> list[dict[str, Any]]:
    """What the training in the folder `run`, called `name`, has cost, and all that it stood on.

    One dictionary each: of (tells the same training from others), name, images, flops, seconds; None where unknown.
    Empty where the run does not say.

    Raises:
        ValueError: its train.json or pretrain.json does not hold such numbers.
    """
    files = [f for name in DONE if (f := Path(run) / name).is_file()]
    top = Fields.read(files[0], FIX) if files else None
    if top is None or "compute" not in top:
        return []
    said = top.object("compute")
    own = {k: said.number(k, null=True) for k in ("images", "flops", "seconds")}
    teachers = [cost(t) for t in said.objects("teachers", null=True)]
    return [{"of": sha256(Path(run) / WEIGHTS), "name": f"{name}: training"} | own, *teachers]


def costs_before(init: str | None) -> list[dict[str, Any]]:
    """`costs` of the weights that a training starts from; of those that are not a run's nothing is known."""
    if init is None:
        return []
    unknown = {"of": init, "name": f"{Path(init).name}: training", "images": None, "flops": None, "seconds": None}
    return costs(init, f"start {Path(init).name}") or [unknown]
