"""A page as one self-contained HTML file, which needs neither network nor script: templates/page.html, filled in.

All text is escaped there, for HTML, and what cannot be seen or turns the direction of what follows, as `texts.shown`.
Only a chart's SVG goes in as it is. The page is well-formed XML too, and its content security policy forbids every
request to a network.
"""

import base64
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from polyteach.ground.texts import in_html
from polyteach.reporting.blocks import Block, Section

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security policy: no script, no request."""


def html(title: str, blocks: Sequence[Block], css: str, generator: str) -> str:
    """The whole page; css: what the charts need besides the page's own."""
    contents = [(f"s{i}", b.heading) for i, b in enumerate(blocks) if isinstance(b, Section)]
    return _PAGES.get_template("page.html").render(
        title=title, blocks=blocks, contents=contents, css=css, generator=generator, policy=POLICY
    )


def _safe(value: Any) -> Any:
    """A value of the template, escaped: `autoescape` alone knows nothing of what cannot be seen."""
    return Markup(in_html(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


_PAGES = Environment(
    loader=PackageLoader("polyteach.reporting"),
    autoescape=True,
    finalize=_safe,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_PAGES.filters["data_uri"] = _data_uri
