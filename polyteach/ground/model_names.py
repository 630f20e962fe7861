"""Names of the models of timm and torchvision, read from those libraries' sources: importing them takes seconds."""

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path

LEAST = 50
"""Fewer names than these are not all: a source that is written otherwise than those that are known."""


@cache
def timm_models() -> list[str]:
    """What `timm.list_models()` lists; none where timm is not installed, or its source is not understood."""
    text = _sources("timm", "models/*.py")
    names = set(re.findall(r"^@register_model\s*\ndef (\w+)\(", "\n".join(text.values()), re.MULTILINE))
    return sorted(names) if len(names) >= LEAST else []


@cache
def _renamed_timm_models() -> frozenset[str]:
    """Names of earlier versions that timm still takes."""
    text = "\n".join(_sources("timm", "models/*.py").values())
    tables = re.findall(r"^register_model_deprecations\(__name__, \{(.*?)^\}\)", text, re.MULTILINE | re.DOTALL)
    return frozenset(re.findall(r"^\s*['\"]([\w.-]+)['\"]\s*:", "\n".join(tables), re.MULTILINE))


def may_be_timm_model(name: str) -> bool:
    """Whether timm may have a model of that name, with a tag such as ".a1_in1k" or without: False only where not.

    A process that has imported timm may have registered models of its own.
    """
    arch = name.partition(".")[0]
    known = timm_models()
    return "timm" in sys.modules or not known or arch in known or arch in _renamed_timm_models()


@cache
def torchvision_models() -> dict[str, str]:
    """Name -> kind (classification, detection, segmentation) of `torchvision.models.list_models()`, but for the rest.

    Video, optical flow and quantised models are left out. Empty where the source is not understood.
    """
    found = {}
    for path, text in _sources("torchvision", "models/**/*.py").items():
        kind = path.parent.name if path.parent.name != "models" else "classification"
        for name in re.findall(r"^@register_model\(\)\n(?:@.*\n(?:[^\n@]*\n)*?)*def (\w+)\(", text, re.MULTILINE):
            found[name] = kind
    kept = {n: k for n, k in found.items() if k in ("classification", "detection", "segmentation")}
    return dict(sorted(kept.items())) if len(kept) >= LEAST else {}


def may_be_torchvision_model(name: str) -> bool:
    """Whether torchvision may have such a model: False only where it has not."""
    known = torchvision_models()
    return "torchvision" in sys.modules or not known or name in known


@cache
def _sources(package: str, pattern: str) -> dict[Path, str]:
    spec = importlib.util.find_spec(package)  # of a top-level name: finds, and runs nothing
    folders = [Path(f) for f in (spec and spec.submodule_search_locations) or ()]
    return {f: f.read_text(encoding="utf-8", errors="replace") for d in folders for f in d.glob(pattern)}
