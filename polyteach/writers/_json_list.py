"""A JSON list that is written item by item, and never held as a whole."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any


class JsonList:
    """Items with commas between them, in a file. head, tail: of the text around them."""

    def __init__(self, path: Path, files: ExitStack, head: str = "[", tail: str = "]\n") -> None:
        """files: closes the file after an error."""
        self.path, self._tail, self._first = path, tail, True
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = files.enter_context(path.open("w", encoding="utf-8"))
        self._file.write(head)

    def add(self, item: Any) -> None:
        """One more item."""
        self._file.write(("" if self._first else ",") + "\n" + dumps(item))
        self._first = False

    def copy(self, path: Path) -> None:
        """All text of a file, as it is, in the place of an item."""
        with open(path, encoding="utf-8") as file:
            while block := file.read(1 << 20):
                self._file.write(block)

    def write(self, text: str) -> None:
        """Text between items."""
        self._file.write(text)

    def close(self) -> None:
        """End the list."""
        self._file.write(self._tail)
        self._file.close()


def dumps(value: Any) -> str:
    """The value as JSON on one line.

    Raises:
        ValueError: it has NaN or infinity, which JSON has not.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
