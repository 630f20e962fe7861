"""A text file with one image a line: a path, absolute or relative to the file, or a URL.

file:// and object storage (s3://...) are read; http:// and https:// where --allow-remote says so (docs/guide/store.md).

Empty lines and those that begin with # are skipped (write ./#1.jpg for a file of such a name). Every file named is
tried, whatever its ending; one that is missing goes to the rejects.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from polyteach.datasets import Dataset, Entry, printable

_BINARY = re.compile(r"[\x00-\x08\x0a-\x1f]")
"""What no line of a text has; where most have it, it is none."""


class Listed(Dataset):
    """The lines of a text file, named as they are written."""

    def __init__(self, path: str) -> None:
        try:
            # surrogateescape: a name need not be UTF-8
            text = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        except OSError as e:
            raise ValueError(f"{path} cannot be read: {e.strerror}") from e
        lines = [line.strip() for line in text.split("\n")]
        self._lines = [line for line in lines if line and not line.startswith("#")]
        if sum(map(bool, map(_BINARY.search, self._lines))) * 2 > len(self._lines):
            raise ValueError(f"{path} is no text file: a list has one path a line")
        self._home = os.path.dirname(path)
        super().__init__([printable(_tidy(line)) for line in self._lines])

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for line in self._lines[start:stop]:
            if "\0" in line:
                yield Entry(problem="a NUL is in its path")
                continue
            yield Entry(uri=line if "://" in line else os.path.abspath(os.path.join(self._home, line)))


def _tidy(line: str) -> str:
    return line if "://" in line else os.path.normpath(line)


def load(path: str) -> Dataset:
    """The list at `path`.

    Raises:
        ValueError: it cannot be read, or is no text.
    """
    return Listed(path)
