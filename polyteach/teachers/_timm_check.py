"""What of `timm:NAME` can be refused before timm is imported."""

import sys
from typing import Any

from polyteach.ground.names import unknown_name
from polyteach.model.backbones import timm_former_names, timm_list, timm_names
from polyteach.teachers._files import at_file

ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")
"""What a NAME begins with that is no model's name but a location."""


def check(name: str) -> None:
    """Refuse an unknown model, or weights that are not there.

    Raises:
        ValueError: there is no such model; names the closest. Or no such file.
    """
    arch, _ = at_file(name)
    if not arch.startswith(ELSEWHERE) and not _is_known(arch):
        raise unknown_name("timm model", arch, timm_list())


def _is_known(arch: str) -> bool:
    """Whether timm has that model, with a tag such as ".a1_in1k" or without."""
    timm: Any = sys.modules.get("timm")  # where a program has imported it, it may have given it models of its own
    return bool(timm.is_model(arch)) if timm else arch.partition(".")[0] in timm_names() | timm_former_names()
