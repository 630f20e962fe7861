"""A page of text, tables, charts and pictures, written twice: as one self-contained HTML file, and as Markdown.

All text is escaped here, where it is written and nowhere else: for HTML or Markdown, and what cannot be seen or turns
the direction of what follows, as `texts.shown`. Only a chart's SVG goes in as it is. The HTML is
well-formed XML too, runs no script, and its content security policy forbids every request to a network.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from polyteach.texts import in_html, shown

CSS = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --soft: #5c5c5c; --rule: #c8c8c8; --band: #f3f5f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181b; --soft: #a8a8a8; --rule: #444; --band: #212429; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem clamp(1rem, 3vw, 3rem); max-width: 110rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1, h2, h3, h4 { line-height: 1.2; margin: 1.6em 0 0.4em; } h1 { margin-top: 0; }
p { max-width: 64rem; } .points { columns: 30rem; column-gap: 3rem; padding-left: 1.2rem; }
.points li { break-inside: avoid; } nav ul { padding: 0; } nav li { display: inline-block; margin-right: 1rem; }
a { color: inherit; }
.wide { overflow-x: auto; margin: 0.8rem 0; } .wide:focus-visible { outline: 2px solid; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: 0.3rem; max-width: min(48rem, calc(100vw - 2rem)); }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top; }
th { font-weight: 600; } tbody th { position: sticky; left: 0; background: var(--paper); overflow-wrap: anywhere;
  min-width: 8rem; max-width: 16rem; }
tbody th, td.text, th.text { text-align: left; }
tbody tr:nth-child(even) :is(th, td) { background: var(--band); }
@media (min-width: 60rem) { tbody th { min-width: 13rem; } }
td { white-space: nowrap; } td.text { white-space: normal; } td.text.long { min-width: 18rem; overflow-wrap: anywhere; }
td small { display: block; color: var(--soft); }
.why { color: var(--soft); font-size: 0.9rem; }
figure { margin: 0; } figcaption { font-weight: 600; }
.charts, .pictures { display: grid; gap: 1rem;
  grid-template-columns: repeat(var(--fill, auto-fit), minmax(min(100%, var(--least, 21rem)), 1fr)); }
.beside { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start; } .beside > .wide { max-width: 100%; }
.beside > .charts { flex: 1 1 21rem; margin: 0.8rem 0; }
.pictures { --least: 15rem; --fill: auto-fill; }
.pictures + .pictures { margin-top: 1.5rem; } .pictures figcaption { font-weight: 400; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; max-width: none; }
.pictures img { width: 100%; height: auto; image-rendering: auto; } details { margin: 0.6rem 0; }
summary { cursor: pointer; font-weight: 600; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security policy: no script, no request."""


@dataclass(frozen=True)
class Cell:
    """One cell: its text, smaller lines below it, and a mark: "", "best" (bold) or "tie" (an equals sign)."""

    text: str = ""
    below: tuple[str, ...] = ()
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first entry of every row is its header. words: columns that hold text."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    words: tuple[int, ...] = ()


@dataclass(frozen=True)
class Text:
    """A paragraph; quiet for a remark below a table."""

    text: str
    quiet: bool = False


@dataclass(frozen=True)
class Points:
    """A list of remarks."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Charts:
    """Charts beside each other: (caption, svg) each, below one legend of (swatch svg, name)."""

    charts: tuple[tuple[str, str], ...]
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Pictures:
    """Pictures beside each other: (caption, text in place of the picture, media type, bytes)."""

    items: tuple[tuple[str, str, str, bytes], ...]


@dataclass(frozen=True)
class Beside:
    """Blocks side by side where there is room, else one below the other."""

    blocks: "tuple[Table | Text | Points | Charts | Pictures | Beside | Section, ...]"


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; folded sections open on a click."""

    heading: str
    blocks: "tuple[Table | Text | Points | Charts | Pictures | Beside | Section, ...]"
    folded: bool = False


Block = Table | Text | Points | Charts | Pictures | Beside | Section


def html(title: str, blocks: Sequence[Block], css: str, generator: str) -> str:
    """The whole page; css: what the charts need besides the page's own."""
    names = [(f"s{i}", b.heading) for i, b in enumerate(blocks) if isinstance(b, Section)]
    contents = "".join(f'<li><a href="#{key}">{in_html(name)}</a></li>' for key, name in names)
    body = "".join(_html(b, 2, f"s{i}") for i, b in enumerate(blocks))
    return (
        '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f'<meta name="generator" content="{in_html(generator)}"/><title>{in_html(title)}</title>'
        f"<style>{CSS}{css}</style></head>\n<body><header><h1>{in_html(title)}</h1>"
        f'<nav aria-label="contents"><ul>{contents}</ul></nav></header>\n<main>{body}</main></body></html>\n'
    )


def _html(block: Block, level: int, key: str) -> str:
    if isinstance(block, Section):
        inner = "\n".join(_html(b, min(level + 1, 6), f"{key}-{i}") for i, b in enumerate(block.blocks))
        if block.folded:
            return f'<details id="{key}"><summary>{in_html(block.heading)}</summary>{inner}</details>'
        return f'<section id="{key}"><h{level}>{in_html(block.heading)}</h{level}>\n{inner}</section>'
    if isinstance(block, Beside):
        return f'<div class="beside">{"".join(_html(b, level, f"{key}-{i}") for i, b in enumerate(block.blocks))}</div>'
    if isinstance(block, Text):
        return f"<p{_class('why' if block.quiet else '')}>{in_html(block.text)}</p>"
    if isinstance(block, Points):
        return f"<ul{_class('points')}>{''.join(f'<li>{in_html(i)}</li>' for i in block.items)}</ul>"
    if isinstance(block, Charts):
        legend = "".join(f"<li>{svg} {in_html(name)}</li>" for svg, name in block.legend)
        figures = "".join(f"<figure><figcaption>{in_html(t)}</figcaption>{svg}</figure>" for t, svg in block.charts)
        legend = f'<ul class="legend">{legend}</ul>' if legend else ""
        return f'{legend}<div class="charts">{figures}</div>'
    if isinstance(block, Pictures):
        return f'<div class="pictures">{"".join(_picture(*i) for i in block.items)}</div>'
    return _html_table(block)


def _picture(caption: str, alternative: str, kind: str, data: bytes) -> str:
    uri = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f'<figure><img alt="{in_html(alternative)}" src="{uri}"/><figcaption>{in_html(caption)}</figcaption></figure>'
    )


def _html_table(table: Table) -> str:
    classes = [_class(_words(table, i)) for i in range(len(table.columns))]
    head = "".join(f'<th scope="col"{c}>{in_html(t)}</th>' for t, c in zip(table.columns, classes, strict=True))
    rows = []
    for name, cells in table.rows:
        inner = "".join(_html_cell(cell, c) for cell, c in zip(cells, classes[1:], strict=True))
        rows.append(f'<tr><th scope="row">{in_html(name)}</th>{inner}</tr>')
    caption = in_html(table.caption)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _words(table: Table, column: int) -> str:
    """The class of a column: nothing for numbers."""
    if column == 0:
        return "text"
    long = any(len(cells[column - 1].text) > 40 for _, cells in table.rows)
    return "" if column not in table.words else "text long" if long else "text"


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _html_cell(cell: Cell, classes: str) -> str:
    text = in_html(cell.text)
    text = f"<strong>{text}</strong>" if cell.mark == "best" else f"{text} =" if cell.mark == "tie" else text
    below = "".join(f"<small>{in_html(line)}</small>" for line in cell.below)
    return f"<td{classes}>{text}{below}</td>"


def markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same text and tables; of charts and pictures it says that they are in the HTML."""
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
    if isinstance(block, Pictures):
        return "\n".join(f"- Picture in report.html: {_md(text)}" for _, text, _, _ in block.items)
    align = ["---" if i in (0, *block.words) else "---:" for i in range(len(block.columns))]
    rows = [map(_md, block.columns), *([_md(name), *map(_md_cell, cells)] for name, cells in block.rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([_md(block.caption), "", lines[0], f"| {' | '.join(align)} |", *lines[1:]])


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
