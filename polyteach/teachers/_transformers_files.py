"""What a teacher of transformers keeps of a folder or a repository of the hub, and what only such teachers read there.

`ground.hub` looks at it first.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from transformers.utils import cached_file

from polyteach.ground.fields import short
from polyteach.ground.files import read_json, sha256, yaml_value
from polyteach.ground.hub_models import QUIET, READ, beside, processor_config
from polyteach.teachers._weights import digest

_CARD = 100_000
"""Letters of a model card that are looked at; its head is at the beginning."""


def class_info(place: str, names: Sequence[str]) -> tuple[set[int] | None, str | None]:
    """Which of the classes `names` are things, by the file that OneFormer's processor names, and that file's name.

    None where there is none.

    That file is looked for beside config.json alone: the library would open any file of this machine that a
    configuration names, or ask the hub for it.

    Raises:
        ValueError: it lies elsewhere, is no such file, or is about other classes.
    """
    configured = processor_config(place)
    file, folder = configured.get("class_info_file"), configured.get("repo_path")
    if file is None:
        return None, None
    what = f"{place}/preprocessor_config.json"
    if not isinstance(file, str) or not isinstance(folder, str | None):
        raise ValueError(f"{what}: class_info_file and repo_path must be names; got {short(file)} and {short(folder)}")
    if folder and (folder.startswith(("/", "~", "\\")) or ".." in Path(folder).parts):
        raise ValueError(
            f"{what}: repo_path {folder!r} lies outside {place}; put {Path(file).name} itself there and "
            "take the line out"
        )
    path = beside(place, file)
    if path is None:
        return None, None
    info = read_json(path)
    if not isinstance(info, dict) or not all(
        isinstance(x, dict) and {"name", "isthing"} <= set(x) for x in info.values()
    ):
        raise ValueError(f"{path} must say name and isthing of each class, by its number")
    if [info.get(str(i), {}).get("name") for i in range(len(info))] != list(names):
        raise ValueError(f"{path} names other classes than id2label of {place}/config.json; take out the wrong one")
    return {i for i in range(len(names)) if info[str(i)]["isthing"]}, file


def provenance(place: str, state: Mapping[str, Tensor], more: Sequence[str] = ()) -> str:
    """SHA-256 of all that determines the answer: the weights, in however many files, and what is said beside them.

    more: names of files that the teacher reads besides config.json and those of the image processor.
    """
    lines = [f"weights {digest(state)}"]
    for name in sorted({*READ, *more}):
        file = beside(place, name)
        if file is not None:
            lines.append(f"{name} {sha256(file)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def licence_of(place: str) -> str | None:
    """What the model card says, if there is one at hand."""
    card = cached_file(place, "README.md", **QUIET)
    if not card or not Path(card).is_file():
        return None
    with open(card, encoding="utf-8", errors="replace") as f:
        text = f.read(_CARD)
    if not text.startswith("---"):
        return None
    try:
        head = yaml_value(text.split("---")[1])
    except ValueError:
        return None
    licence = head.get("license") if isinstance(head, dict) else None
    return str(licence) if licence else None
