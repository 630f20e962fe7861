"""The card of an exported backbone: what it is, what it was taught by and under which licences, and how to load it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyteach.ground.fields import Fields
from polyteach.ground.texts import shown
from polyteach.model.provenance import DONE, FIX
from polyteach.version import __version__


def card(run: Path, about: Mapping[str, Any], arch: str, name: str, rest: Sequence[str]) -> str:
    """Markdown for README.md. about: of student.json. name: of the folder. rest: tensors that are not the run's."""
    size = f" of {about['size'][0]}x{about['size'][1]} pixels (height x width)" if about.get("size") else ""
    objectives = ", ".join(_plain(k) for k in about.get("objectives", {})) or "none (learned without labels)"
    lines = [
        *("---", "library_name: timm", "tags:", "- image-feature-extraction", "- timm", "- polyteach", "---", ""),
        *(f"# {_plain(name)}", ""),
        f"The backbone of a student that polyteach {_plain(about.get('polyteach', __version__))} trained: timm's "
        f"`{arch}`, for images{size}. Its heads, which answered {objectives}, are not part of it.",
        *("", "## How to load it", ""),
        *("```python", "import timm", ""),
        f'model = timm.create_model("local-dir:{name}", pretrained=True, num_classes=0).eval()',
        f'maps = timm.create_model("local-dir:{name}", pretrained=True, features_only=True).eval()',
        *("```", ""),
        "Pixels are RGB from 0 to 1, less the mean and by the standard deviation of `pretrained_cfg` in config.json.",
        *(_not_learned(rest) if rest else ()),
        *("", "## What it learned from", ""),
        *_learned(about),
        *("", "## How it was trained", ""),
        *_trained(run, about),
    ]
    return "\n".join(lines) + "\n"


def _not_learned(rest: Sequence[str]) -> list[str]:
    names = ", ".join(f"`{n}`" for n in rest[:6]) + (f" and {len(rest) - 6} more" if len(rest) > 6 else "")
    return ["", f"Not learned, and as timm makes them: {names}. Take maps (`features_only`, `forward_intermediates`)."]


def _learned(about: Mapping[str, Any]) -> list[str]:
    data = about.get("data")
    sets = data.get("sets") if isinstance(data, dict) else None
    rows = [_row(s) for s in sets if isinstance(s, dict)] if isinstance(sets, list) else []
    out = [f"Licence: {_plain(about['licence']) if about.get('licence') else 'not recorded'}."]
    if isinstance(data, dict) and isinstance(data.get("images"), int):
        out += ["", f"{data['images']:,} images."]
    if not rows:
        return [*out, "", "The run records no label sets."]
    head = ("labels", "images", "store", "made by", "weights from", "licence")
    return [*out, "", _cells(head), _cells(["---"] * len(head)), *map(_cells, rows)]


def _row(labels: Mapping[str, Any]) -> list[str]:
    teacher = labels.get("teacher")
    made = teacher if isinstance(teacher, dict) else {}
    by = made.get("spec") or (teacher if isinstance(teacher, str) else None)
    first = f"{labels.get('task')}/{labels.get('name')}"
    said = (labels.get("images"), labels.get("store"), by, made.get("origin"), made.get("licence"))
    return [first, *("not recorded" if x is None else str(x) for x in said)]


def _trained(run: Path, about: Mapping[str, Any]) -> list[str]:
    """Steps and how, as student.json and the file that training wrote last say it."""
    out = [
        f"- {label}: {_plain(about[key])}"
        for key, label in (
            ("method", "method"),
            ("steps", "steps"),
            ("batch_size", "batch size"),
            ("optimizer", "optimiser"),
            ("learning_rate", "peak learning rate"),
        )
        if about.get(key) is not None
    ]
    config = run / "config.json"
    options = Fields.read(config, FIX).value.get("options") if config.is_file() else None
    if isinstance(options, dict):
        out.append(f"- started from: {_plain(options.get('init') or 'random weights')}")
    done = next((run / name for name in DONE if (run / name).is_file()), None)
    spent = Fields.read(done, FIX).value.get("compute") if done else None
    if isinstance(spent, dict):
        known = {"images": "images seen", "flops": "operations", "seconds": "seconds"}
        out += [f"- {said}: {spent[k]:,.6g}" for k, said in known.items() if type(spent.get(k)) in (int, float)]
    return out or ["Not recorded."]


def _cells(values: Sequence[str]) -> str:
    return "| " + " | ".join(v if v == "---" else _plain(v) for v in values) + " |"


def _plain(text: object) -> str:
    """Text that others wrote, so that Markdown and HTML make nothing of it."""
    return re.sub(r"([\\`*_{}\[\]<>|#!~])", r"\\\1", shown(str(text)))
