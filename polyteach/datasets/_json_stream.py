"""A JSON file of any size, read as a stream: what lies in it, piece by piece, with its place in the file."""

import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

_CHUNK = 1 << 22
_TOKEN = 1 << 24
"""More bytes than any one string or number: a JSON error that far before the end of what was read is a real one."""
_LONGEST = 1 << 28
"""Bytes of one value, such as an image or an annotation of COCO."""
_BLANK = re.compile(r"[ \t\n\r]*")


class JsonStream:
    """The values of a JSON object, and the elements of the arrays in it, one by one with their place in the file.

    The bytes are read as Latin-1, so that places in the text are places in the file; all of JSON's marks are ASCII.
    """

    def __init__(self, path: str, file: IO[bytes] | io.BytesIO) -> None:
        self._path, self._file = path, file
        self._text, self._at, self._start = "", 0, 0
        self._decoder = json.JSONDecoder()
        self._more()
        if self._text.startswith("\xef\xbb\xbf"):
            self._at = 3

    def fields(self, arrays: frozenset[str]) -> Iterator[tuple[str, int, Any, int, int]]:
        """(field, index, value, first byte, bytes); the index is -1 where a value is whole.

        arrays: the fields that are given element by element; an empty array gives (field, -1, [], ...).

        Raises:
            ValueError: not a JSON object; names the file and the byte.
        """
        self._take("{")
        more = self._peek() != "}" or self._take("}") != "}"
        while more:
            if self._peek() != '"':
                raise self._error("a field's name", self._at)
            field = str(self._value()[0])
            self._take(":")
            if field in arrays:
                yield from self._elements(field)
            else:
                yield field, -1, *self._value()
            more = self._take(",}") == ","
        if self._peek():
            raise self._error("the end of the file", self._at)

    def items(self) -> Iterator[tuple[int, Any, int, int]]:
        """(index, value, first byte, bytes) of each element of a file that is one array.

        Raises:
            ValueError: it is none; names the file and the byte.
        """
        for _, index, value, begin, length in self._elements(""):
            if index >= 0:
                yield index, value, begin, length
        if self._peek():
            raise self._error("the end of the file", self._at)

    def _elements(self, field: str) -> Iterator[tuple[str, int, Any, int, int]]:
        self._take("[")
        yield field, -1, [], 0, 0
        more = self._peek() != "]" or self._take("]") != "]"
        index = 0
        while more:
            yield field, index, *self._value()
            more = self._take(",]") == ","
            index += 1

    def _more(self) -> bool:
        """Read on, as much again as is at hand; False at the end of the file, and then all places stay."""
        block = self._file.read(max(_CHUNK, len(self._text) - self._at))
        if block:
            self._text = self._text[self._at :] + block.decode("latin-1")
            self._start, self._at = self._start + self._at, 0
        return bool(block)

    def _peek(self) -> str:
        while True:
            match = _BLANK.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _take(self, allowed: str) -> str:
        mark = self._peek()
        if not mark or mark not in allowed:
            raise self._error(" or ".join(allowed), self._at)
        self._at += 1
        return mark

    def _value(self) -> tuple[Any, int, int]:
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as e:
                wrong = self._error(e.msg, e.pos)
                if len(self._text) - e.pos > _TOKEN or not self._more():
                    raise wrong from e
                continue
            except RecursionError as e:
                raise self._error("less deeply nested values", self._at) from e
            except ValueError as e:  # a number of more digits than Python reads
                raise self._error(str(e), self._at) from e
            if end + 2 >= len(self._text) and self._more():
                continue  # a number may go on: 12 of 12.5 or of 12e+3
            begin, length = self._start + self._at, end - self._at
            if length > _LONGEST:
                raise self._error(f"values of at most {_LONGEST:,} bytes", self._at)
            if length and not (raw := self._text[self._at : end]).isascii():
                try:
                    value = json.loads(raw.encode("latin-1").decode("utf-8"))
                except UnicodeDecodeError as e:
                    raise self._error("UTF-8", self._at) from e
                except RecursionError as e:
                    raise self._error("less deeply nested values", self._at) from e
            self._at = end
            return value, begin, length

    def _error(self, wanted: str, at: int) -> ValueError:
        if not wanted.startswith("Expecting"):  # as JSON's own errors do
            wanted = f"Expecting {wanted}" if len(wanted) < 30 else wanted
        return ValueError(f"{self._path} is broken or no JSON object: {wanted} at byte {self._start + at:,}")
