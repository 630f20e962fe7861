"""How numbers, intervals and names are written on the page."""

import re
from typing import Any

from polyteach.reporting.blocks import Cell
from polyteach.reporting.compare import Difference, Interval, Normalised
from polyteach.reporting.results import MODES, Downstream


def mode_name(mode: str) -> str:
    """A mode in words."""
    return MODES.get(mode, mode)


def head(c: Downstream) -> str:
    """The head of a task's column: its name, its metric, and an arrow to where better is."""
    return f"{c.name}, {c.metric}\u00a0{'↑' if c.higher_is_better else '↓'}"


def rounded(value: float, decimals: int) -> str:
    """The number with these decimals; zero has no sign."""
    return f"{value:z.{decimals}f}"


def interval_text(found: Interval | None, decimals: int) -> tuple[str, ...]:
    """[low, high], or nothing."""
    return () if found is None else (f"[{rounded(found[0], decimals)}, {rounded(found[1], decimals)}]",)


def normalised_cell(x: Normalised) -> Cell:
    """A normalised score and its interval."""
    return Cell() if x.value is None else Cell(rounded(x.value, 3), interval_text(x.interval, 3))


def difference_cell(x: Difference | None, decimals: int) -> Cell:
    """A difference with its sign, its verdict and its interval."""
    if x is None:
        return Cell()
    said = " ".join((f"{x.value:+z.{decimals}f}", *([x.verdict] if x.verdict else [])))
    return Cell(said, interval_text(x.interval, decimals))


def amount(value: float | None) -> str:
    """How many or how much; nothing where it is not known."""
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def plain(value: Any) -> str:
    """A setting; nothing where there is none."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def counted(count: int, what: str) -> str:
    """1 task, 2 tasks."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def natural(name: str) -> list[Any]:
    """A key that sorts 2.png before 10.png."""
    return [(int(x), "") if x.isdigit() else (-1, x) for x in re.split(r"(\d+)", name)]
