"""Text that others wrote (names, paths, reasons), as it may be printed: nothing in it steers a terminal or a reader.

Data keeps such text as it is; it is escaped where people read it, by `shown`, and everything is printed by `say`.
"""

import re
import sys
from html import escape
from typing import Any

_UNSEEN = re.compile(
    "(\U0001f3f4[\U000e0061-\U000e007a\U000e0030-\U000e0039]+\U000e007f"  # a region's flag: its letters are tags
    # joins letters of Persian and of Indian scripts, and parts of emoji; in ASCII it hides
    "|(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f]))"
    "|[\x00-\x1f\x7f-\x9f"  # controls: escape sequences, line ends, backspaces
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of what follows
    "\xad\u180e\u200b-\u200d\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # have no width
    "\u2028\u2029\ud800-\udfff\ufffe\uffff]"  # line ends again; bytes of a file's name that are no UTF-8; no XML
)
"""What is escaped, but for what the first group finds."""


def shown(text: str) -> str:
    """The text with what cannot be seen, or moves what can, as JSON escapes it: ESC is \\u001b, a line's end \\n.

    Letters of all scripts and emoji stay as they are. Escapes of JSON, so that printed JSON still means the same.
    """
    if text.isprintable():  # nearly all are; the rest has at most spaces of other widths that may stay
        return text
    return _UNSEEN.sub(lambda m: m[1] or _escaped(m[0]), text)


def _escaped(character: str) -> str:
    if named := {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character):
        return named
    code = ord(character)
    if code > 0xFFFF:
        return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


def in_html(text: str) -> str:
    """The text, as `shown`, for HTML and XML, wherever it stands there; line ends and tabs are space."""
    return escape(re.sub("[^\n\t]+", lambda m: shown(m[0]), text))


def say(*lines: str, stream: Any = None) -> None:
    """Print each of the lines, as `shown`: it stays one line. stream: stderr without it.

    What the stream's encoding does not have is escaped too.
    """
    stream = stream or sys.stderr
    text = "\n".join(map(shown, lines))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = "".join(c if c.encode(encoding, "ignore") else _escaped(c) for c in text)
    print(text, file=stream, flush=True)
