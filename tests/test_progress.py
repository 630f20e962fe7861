"""The progress bar in a terminal of 80 columns: how long still is always there, whatever stands beneath."""

import io
import time

import pytest
from rich.console import Console

from polyteach.ground import progress
from polyteach.ground.progress import Progress, duration, track

NOTE = "step 17/4000, 2.8 images/s, loss 12.34 (classification_classes 6.912, detection_boxes 3.1, segmentation_regions"
NOTE += " 2.226, depth_midas 0.1021, normals_omnidata 0.3)"


def at(monkeypatch, seconds):
    monkeypatch.setattr(time, "monotonic", lambda: seconds)


def screen(bar, width):
    """What a terminal of that width would show."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    for one in bar.bar.get_renderables():
        console.print(one, end="")
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize(
    ("done", "total", "unit"), [(1, 4000, "steps"), (1700, 4000, "steps"), (8_000_000, 10_000_000, "images")]
)
def test_the_remaining_time_stays_whatever_the_note(monkeypatch, width, done, total, unit):
    at(monkeypatch, 1000.0)
    bar = progress._Bar("train", total, unit)
    at(monkeypatch, 1000.0 + 100)
    bar.advance(done, note=NOTE)
    left = f"{duration(100 / done * (total - done))} left"
    lines = screen(bar, width)
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("train ")
    assert ("━" in lines[0]) == (done > 1)
    assert lines[0].endswith(left)
    assert f"{done:,}/{total:,}" in lines[0]
    assert " ".join(lines[1:]).split() == NOTE.split()  # whole words, all of them


def test_markup_and_escape_sequences_in_a_bar_are_text(capsys):
    name = "[red]a[/red] [/b]\x1b[2J\r\u202e"
    expected = r"[red]a[/red] [/b]\u001b[2J\r\u202e"
    bar = progress._Bar(name, 10, "steps")
    bar.advance(1, note=name)
    lines = screen(bar, 200)
    assert lines[0].startswith(f"{expected} ")
    assert lines[1] == expected
    bar.say()
    assert capsys.readouterr().err.startswith(f"{expected} 1/10 steps")


def test_slow_units_have_a_rate_too(monkeypatch):
    at(monkeypatch, 0.0)
    bar = Progress("train", 10, "steps")
    at(monkeypatch, 90.0)
    bar.advance(2)
    assert bar.line() == "train 2/10 steps, 45.0 s each, 6 min left"
    bar.advance(8)
    assert bar.left() == ""


def test_durations():
    assert [duration(s) for s in (0.4, 95, 720, 7200, 12_240, 216_000)] == [
        "0 s", "95 s", "12 min", "2.0 h", "3.4 h", "2.5 days"
    ]  # fmt: skip


def test_without_a_terminal_a_line_each_half_minute_and_at_the_end(monkeypatch, capsys):
    at(monkeypatch, 0.0)
    with track("label", 3, "images") as bar:
        bar.advance()
        at(monkeypatch, 40.0)
        bar.advance(note="1 rejected")
        bar.advance()
    assert capsys.readouterr().err.splitlines() == [
        "label 2/3 images, 20.0 s each, 20 s left, 1 rejected",
        "label 3/3 images, 13.3 s each, 1 rejected",
    ]
    with track("label", 3, "images", show=False) as bar:
        bar.advance()
    assert capsys.readouterr().err == ""
