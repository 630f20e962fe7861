"""A page as Markdown: the same text and tables as in HTML; of charts and images it says that they are there."""

import re
from collections.abc import Sequence

from polyteach.ground.texts import shown
from polyteach.reporting.blocks import Beside, Block, Cell, Charts, Images, Points, Section, Table, Text


def markdown(title: str, blocks: Sequence[Block]) -> str:
    """The whole page, under its title."""
    return f"# {_md(title)}\n\n" + "\n\n".join(t for b in blocks if (t := _markdown(b, 2))) + "\n"


def _markdown(block: Block, level: int) -> str:
    if isinstance(block, Section):
        inner = [t for b in block.blocks if (t := _markdown(b, min(level + 1, 6)))]
        return "\n\n".join([f"{'#' * level} {_md(block.heading)}", *inner])
    if isinstance(block, Beside):
        return "\n\n".join(_markdown(b, level) for b in block.blocks)
    if isinstance(block, Text):
        return _md(block.text)
    if isinstance(block, Points):
        return "\n".join(f"- {_md(i)}" for i in block.items)
    if isinstance(block, Charts):
        return "\n".join(f"- Chart in report.html: {_md(caption)}" for caption, _ in block.charts)
    if isinstance(block, Images):
        return "\n".join(f"- Drawing in report.html: {_md(text)}" for _, text, _, _ in block.items)
    if not isinstance(block, Table):
        raise TypeError(f"a page has no {type(block).__name__}")
    return _markdown_table(block)


def _markdown_table(table: Table) -> str:
    align = ["---" if i in (0, *table.words) else "---:" for i in range(len(table.columns))]
    rows = [map(_md, table.columns), *([_md(name), *map(_md_cell, cells)] for name, cells in table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([_md(table.caption), "", lines[0], f"| {' | '.join(align)} |", *lines[1:]])


def _md_cell(cell: Cell) -> str:
    text = _md(cell.text)
    text = f"**{text}**" if cell.mark == "best" and text else f"{text} =" if cell.mark == "tie" else text
    return f"{text} {', '.join(map(_md, cell.below))}".strip()


def _md(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no cell or line that ends early."""
    text = " ".join(map(shown, text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|~])", r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    text = re.sub(r"\](?=[(\[:])", r"\\]", text)  # a link needs ]( or ][
    return re.sub(r"^(\d*)([-+.)]|#+)(?=\s|$)", r"\1\\\2", text)  # no list and no heading
