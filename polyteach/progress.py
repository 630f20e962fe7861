"""A progress bar with rate and remaining time; plain lines where there is no terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Counts finished units and shows them; see `track`."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self.note = ""
        self.start = self.said = time.monotonic()

    def advance(self, n: int = 1, note: str | None = None) -> None:
        """`n` more units are done; `note` is shown behind the bar."""
        self.done += n
        self.note = self.note if note is None else note
        now = time.monotonic()
        if now - self.said >= 30:
            self.said = now
            self.say()

    def line(self) -> str:
        """One line: how many, how fast, how long still."""
        spent = max(time.monotonic() - self.start, 1e-9)
        rate = self.done / spent
        left = f"{(self.total - self.done) / rate:,.0f} s left" if rate and self.done < self.total else ""
        parts = [
            f"{self.title} {self.done:,}/{self.total:,} {self.unit}",
            f"{rate:,.1f} {self.unit}/s",
            left,
            self.note,
        ]
        return ", ".join(p for p in parts if p)

    def say(self) -> None:
        """Print the line on stderr."""
        print(self.line(), file=sys.stderr, flush=True)


class _Bar(Progress):
    def __init__(self, title: str, total: int, unit: str) -> None:
        from rich import progress
        from rich.console import Console

        super().__init__(title, total, unit)
        rate = progress.TextColumn("{task.fields[rate]}")
        self.bar = progress.Progress(
            progress.TextColumn(title),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            rate,
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.bar.add_task(title, total=total, rate="", note="")

    def advance(self, n: int = 1, note: str | None = None) -> None:
        self.done += n
        self.note = self.note if note is None else note
        rate = self.done / max(time.monotonic() - self.start, 1e-9)
        self.bar.update(self.task, advance=n, rate=f"{rate:,.1f} {self.unit}/s", note=self.note)


@contextmanager
def track(title: str, total: int, unit: str, show: bool = True) -> Iterator[Progress]:
    """Progress of `total` units on stderr: a bar on a terminal, a line every half minute elsewhere, a closing line.

    show: False says nothing at all.
    """
    if show and total and sys.stderr.isatty():
        bar = _Bar(title, total, unit)
        with bar.bar:
            yield bar
        bar.say()
        return
    plain = Progress(title, total, unit)
    if not show:
        plain.say = lambda: None  # type: ignore[method-assign]
    yield plain
    if total:
        plain.say()
