"""A progress bar with rate and remaining time; plain lines where there is no terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from polyteach.ground.texts import say, shown


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

    def rate(self) -> str:
        """How many units a second, or, of slow ones, how many seconds each took."""
        spent = max(time.monotonic() - self.start, 1e-9)
        rate = self.done / spent
        return f"{rate:,.1f} {self.unit}/s" if rate >= 1 or not self.done else f"{1 / rate:,.1f} s each"

    def left(self) -> str:
        """How long still, by the mean so far; empty where that is not known, or all is done."""
        if not self.done or self.done >= self.total:
            return ""
        return f"{duration((time.monotonic() - self.start) / self.done * (self.total - self.done))} left"

    def line(self) -> str:
        """One line: how many, how fast, how long still."""
        parts = [f"{self.title} {self.done:,}/{self.total:,} {self.unit}", self.rate(), self.left(), self.note]
        return ", ".join(p for p in parts if p)

    def say(self) -> None:
        """Print the line on stderr."""
        say(self.line())


def duration(seconds: float) -> str:
    """A span of time in the unit that people would say it in: "95 s", "12 min", "3.4 h", "2.5 days"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 120 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


class _Bar(Progress):
    """On a terminal. What changes its length stands beneath the bar, so that it never pushes the time out of sight."""

    def __init__(self, title: str, total: int, unit: str, console: Any = None) -> None:
        from rich import progress
        from rich.console import Console
        from rich.table import Column
        from rich.text import Text

        super().__init__(title, total, unit)
        own = self

        class Bar(progress.Progress):
            def get_renderables(self) -> Iterable[Any]:
                yield self.make_tasks_table(self.tasks)
                if own.note:
                    yield Text(shown(own.note), no_wrap=False)

        self.bar = Bar(
            progress.TextColumn("{task.description}", markup=False),
            # the one column that gives way
            progress.BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
            progress.TextColumn("{task.fields[text]}", markup=False),
            console=console or Console(stderr=True),
            transient=True,
            expand=True,
            # a table that is redirected to a file while the bar is shown has to get there, not to the terminal
            redirect_stdout=sys.stdout.isatty(),
        )
        self.task = self.bar.add_task(shown(title), total=total, text=self.text())

    def text(self) -> str:
        """Behind the bar."""
        return "  ".join(
            p for p in (f"{self.done:,}/{self.total:,}", self.rate() if self.done else "", self.left()) if p
        )

    def advance(self, n: int = 1, note: str | None = None) -> None:
        self.done += n
        self.note = self.note if note is None else note
        self.bar.update(self.task, advance=n, text=self.text())


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
