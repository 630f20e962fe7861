"""What the demo says of what it does now, and of how long that will take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polyteach.ground.files import read_json, write_json
from polyteach.ground.texts import say


class Stages:
    """Says what is done now and about how long it will take; keeps the seconds of each, added up over restarts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seconds: dict[str, float] = read_json(file) if file.exists() else {}
        self.number = 0
        self.pace = 1.0
        """How long the last stage took, as a multiple of what it was thought to take; for the stages after it."""

    @contextmanager
    def __call__(self, name: str, what: str, expected: float) -> Iterator[None]:
        """expected: seconds on two cores."""
        self.number += 1
        before = f", {self.seconds[name]:.0f} s of it done before" if name in self.seconds else ""
        note(f"{self.number} of 4: {what}; about {minutes(expected * self.pace)}{before}")
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 1)
            write_json(self.file, self.seconds)
        if not before and expected >= 30:  # too short a stage tells nothing of the machine
            self.pace = spent / expected


def minutes(seconds: float) -> str:
    """For people: whole seconds below two minutes, else minutes and their half."""
    return f"{max(round(seconds), 1)} s" if seconds < 120 else f"{round(seconds / 30) / 2:g} min"


def note(line: str) -> None:
    """Say one line, as the demo's."""
    say(f"polyteach demo: {line}")
