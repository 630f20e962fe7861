"""What of `torchvision:NAME` can be refused before torchvision is imported."""

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path

from polyteach.ground.names import unknown_name
from polyteach.teachers._files import at_file

KINDS = ("classification", "detection", "segmentation")
"""What models of torchvision are teachers; video, optical flow and quantised ones are none."""
_REGISTERED = re.compile(r"^@register_model\(\)\n(?:@.*\n(?:[^\n@]*\n)*?)*def (\w+)\(", re.MULTILINE)


def check(name: str) -> None:
    """Refuse an unknown model, or weights that are not there.

    Raises:
        ValueError: there is no such model; names the closest. Or no such file.
    """
    arch, _ = at_file(name)
    # where a program has imported torchvision, it may have given it models of its own
    if arch not in torchvision_names() and "torchvision" not in sys.modules:
        raise unknown_name("torchvision model", arch, torchvision_names())


@cache
def torchvision_names() -> list[str]:
    """Names of torchvision's models that can be teachers, from the text of its files: to import it takes seconds."""
    spec = importlib.util.find_spec("torchvision")  # of a top-level name: finds, and runs nothing
    folders = [Path(f) / "models" for f in (spec and spec.submodule_search_locations) or ()]
    files = [f for d in folders for f in (*d.glob("*.py"), *(g for k in KINDS for g in (d / k).glob("*.py")))]
    return sorted(n for f in files for n in _REGISTERED.findall(f.read_text(encoding="utf-8")))
