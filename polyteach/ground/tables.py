"""Tables on a terminal in which no name is cut and no word is broken, however narrow it is.

What stands in them is text, as `texts.shown`: it neither steers the terminal nor ends a line.
"""

import os
import shutil
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len

from polyteach.ground.texts import shown

Cell = str | Sequence[str]
"""A text, or items that are listed with commas and stay whole."""
BETWEEN = "  "
"""Columns stand this far apart."""
INDENT = "    "
"""What stands beneath a row is set in by this."""
LINE = "─"


def width_of(stream: Any) -> int:
    """Columns of the terminal that `stream`, such as sys.stdout, writes to; 80 where it is none.

    COLUMNS of the environment wins.
    """
    if "COLUMNS" in os.environ:
        return shutil.get_terminal_size((80, 24)).columns
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # no terminal, or no file at all
        return 80


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> str:
    """The table as lines of at most `width` columns, unless one word alone is longer.

    Columns stand beside each other as long as they fit; those that do not stand beneath their row, each with its head.
    Numbers are flush right.

    head: names of the columns. rows: as many cells each.
    """
    head = [shown(name) for name in head]
    texts = [[_text(cell) for cell in row] for row in rows]
    columns = [[name, *(row[i] for row in texts)] for i, name in enumerate(head)]
    widths = [max(map(cell_len, column)) for column in columns]
    beside = 1
    while beside < len(head) and sum(widths[: beside + 1]) + len(BETWEEN) * beside <= width:
        beside += 1
    right = [all(_number(text) for text in column[1:]) for column in columns]
    lines = [_line(head[:beside], widths, right)]
    lines.append(LINE * min(max(cell_len(lines[0]), sum(widths[:beside]) + len(BETWEEN) * (beside - 1)), width))
    for row, text in zip(rows, texts, strict=True):
        lines.append(_line(text[:beside], widths, right))
        for name, cell in zip(head[beside:], row[beside:], strict=True):
            if _text(cell):
                lines += wrapped(cell, width, INDENT, f"{name}: ")
    return "\n".join(lines)


def wrapped(cell: Cell, width: int, indent: str = "", lead: str = "", hanging: str | None = None) -> list[str]:
    """A text, or a list's items with commas, as lines of at most `width` columns that break between words, or items.

    indent: before every line. hanging: after it, before those that go on; the indent once more without it. lead: before
    the text.
    """
    if isinstance(cell, str):
        words = [shown(word) for word in cell.split()]
    else:
        words = [f"{shown(x)}{',' if i < len(cell) else ''}" for i, x in enumerate(cell, 1)]
    lines: list[str] = []
    now = indent + shown(lead)
    fresh = True
    for word in words:
        between = "" if fresh else " "
        if not fresh and cell_len(now + between + word) > width:
            lines.append(now)
            now, between = indent + (indent if hanging is None else hanging), ""
        now, fresh = now + between + word, False
    return [*lines, now.rstrip()]


def fitted(lines: Sequence[str], stream: Any) -> list[str]:
    """Lines for `stream`: where it is a terminal, they break between words, and what goes on is set in further.

    Elsewhere as they are, so that a log can be searched for a whole sentence.
    """
    if not stream.isatty():
        return list(lines)
    out, width = [], width_of(stream)
    for line in map(shown, lines):
        indent = line[: len(line) - len(line.lstrip())]
        out += wrapped(line, width, indent, hanging=BETWEEN) if cell_len(line) > width else [line]
    return out


def _text(cell: Cell) -> str:
    return shown(cell) if isinstance(cell, str) else ", ".join(map(shown, cell))


def _number(text: str) -> bool:
    return text in ("", "-") or text.replace(",", "").replace(".", "").replace("-", "").replace("%", "").isdigit()


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    out = []
    for cell, width, flush in zip(cells, widths, right, strict=False):
        space = " " * (width - cell_len(cell))
        out.append(space + cell if flush else cell + space)
    return BETWEEN.join(out).rstrip()
