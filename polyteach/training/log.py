"""Log: one line of JSON per step."""

import json
from pathlib import Path
from typing import Any

from polyteach.ground.fields import Fields
from polyteach.ground.files import replacing

LOG = "log.jsonl"
"""File of a run with a line per step."""


def summary(line: dict[str, Any], steps: int) -> str:
    """What the progress bar says of a step's line."""
    parts = ", ".join(f"{k} {v:.4g}" for k, v in line["losses"].items())
    return f"step {line['step']}/{steps}, {line['images_per_second']:.1f} images/s, loss {line['loss']:.4g} ({parts})"


def truncate(log: Path, step: int) -> None:
    """Forget what was logged after step number `step`, and a torn last line: those steps are done again."""
    if not log.exists():
        return
    kept = []
    for text in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = Fields(log, json.loads(text))
            if line.count("step") <= step:
                kept.append(text + "\n")
        except (ValueError, RecursionError):
            continue
    with replacing(log) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def logged(log: Path) -> list[Fields]:
    """Lines of the log of a training that has ended, in their order; of each the step and the seconds are looked at.

    Raises:
        ValueError: there are none, or one is not as `fit` writes it; names it.
    """
    fix = "Give another --out, or remove this one's checkpoints, and the same command begins anew"
    lines = []
    for number, text in enumerate(log.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise ValueError(f"{log}: line {number} is no JSON. {fix}") from e
        line = Fields(log, value, f"line {number}", fix)
        line.count("step", low=1)
        line.number("seconds", low=0)
        lines.append(line)
    if not lines:
        raise ValueError(f"{log} is empty: what the steps cost is not known any more. {fix}")
    return lines
