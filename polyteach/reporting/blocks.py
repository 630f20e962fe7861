"""What a page is made of: text, tables, charts and images, which `page` writes as HTML and `markdown` as Markdown."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Block:
    """A part of a page. macro: the one of templates/page.html that writes it."""

    macro: ClassVar[str]


@dataclass(frozen=True)
class Cell:
    """One cell: its text, smaller lines below it, and a mark: "", "best" (bold) or "tie" (an equals sign)."""

    text: str = ""
    below: tuple[str, ...] = ()
    mark: str = ""


@dataclass(frozen=True)
class Table(Block):
    """A table with a caption; the first entry of every row is its header. words: columns that hold text."""

    macro = "table"
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    words: tuple[int, ...] = ()

    @property
    def styles(self) -> tuple[str, ...]:
        """The style sheet's class of every column: of row headers and of words, with more room where one is long."""
        long = {i for i in self.words if any(len(cells[i - 1].text) > 40 for _, cells in self.rows)}
        words = {0: "text"} | {i: "text long" if i in long else "text" for i in self.words}
        return tuple(words.get(i, "") for i in range(len(self.columns)))


@dataclass(frozen=True)
class Text(Block):
    """A paragraph; quiet for a remark below a table."""

    macro = "paragraph"
    text: str
    quiet: bool = False


@dataclass(frozen=True)
class Points(Block):
    """A list of remarks."""

    macro = "points"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Charts(Block):
    """Charts beside each other: (caption, svg) each, below one legend of (swatch svg, name)."""

    macro = "charts"
    charts: tuple[tuple[str, str], ...]
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Images(Block):
    """Images beside each other: (caption, text in place of the image, media type, bytes) each."""

    macro = "images"
    items: tuple[tuple[str, str, str, bytes], ...]


@dataclass(frozen=True)
class Beside(Block):
    """Blocks side by side where there is room, else one below the other."""

    macro = "beside"
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section(Block):
    """A heading and what stands below it; folded sections open on a click."""

    macro = "section"
    heading: str
    blocks: tuple[Block, ...]
    folded: bool = False
