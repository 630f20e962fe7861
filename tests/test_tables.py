"""Tables at any width: no name is cut, no word broken, and nothing is wider than the terminal if it can be helped."""

import os
import pty
import struct
import sys
import termios
from fcntl import ioctl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import polyteach
from polyteach.ground.tables import table, width_of, wrapped
from polyteach.verbs.store.info import info

WORDS = st.text(st.characters(codec="ascii", categories=("L", "N")) | st.sampled_from("猫犬"), min_size=1, max_size=12)
TEXTS = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(
    st.lists(TEXTS, min_size=n, max_size=n),
    st.lists(st.lists(TEXTS | st.lists(WORDS, min_size=1, max_size=5), min_size=n, max_size=n), min_size=1, max_size=4),
)), st.integers(30, 120))  # fmt: skip
def test_every_word_is_there_whole_and_no_line_is_wider_than_it_must_be(given, width):
    head, rows = given
    said = table(head, rows, width)
    found = said.replace(",", " ").replace(":", " ").split()
    for name, column in zip(head, zip(*rows, strict=True), strict=True):
        for text in (name, *column):
            for word in text.split() if isinstance(text, str) else text:
                assert word in found
    alone = max(cell_len(x) for x in [head[0], *(r[0] if isinstance(r[0], str) else ", ".join(r[0]) for r in rows)])
    word = max(cell_len(f"{name}: {text if isinstance(text, str) else max(text, key=cell_len)}")
               for name, column in zip(head, zip(*rows, strict=True), strict=True) for text in column)  # fmt: skip
    assert max(map(cell_len, said.splitlines())) <= max(width, alone, 9 + word)


def test_what_fits_stands_beside_and_the_rest_beneath():
    head = ("set", "n", "of", "means")
    rows = [("boxes", "1,200", "torchvision:x", ["a 1", "b c 2"]), ("a", "7", "timm:y", [])]
    assert table(head, rows, 80).splitlines() == [
        "set        n  of             means",
        "───────────────────────────────────────",
        "boxes  1,200  torchvision:x  a 1, b c 2",
        "a          7  timm:y",
    ]
    assert table(head, rows, 24).splitlines() == [
        "set        n",
        "────────────",
        "boxes  1,200",
        "    of: torchvision:x",
        "    means: a 1, b c 2",
        "a          7",
        "    of: timm:y",
    ]


def test_items_stay_whole():
    assert wrapped(["top probability 0.9", "pixels ignored 0.25"], 30, "  ") == [
        "  top probability 0.9,",
        "    pixels ignored 0.25",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
def test_the_width_is_that_of_the_terminal_that_is_written_to(monkeypatch, tmp_path):
    monkeypatch.delenv("COLUMNS", raising=False)
    ours, theirs = pty.openpty()
    try:
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 93, 0, 0))
        with os.fdopen(os.dup(theirs), "w") as stream:
            assert width_of(stream) == 93
    finally:
        os.close(ours)
        os.close(theirs)
    with open(tmp_path / "file", "w") as stream:
        assert width_of(stream) == 80
    monkeypatch.setenv("COLUMNS", "50")
    assert width_of(sys.stdout) == 50


def test_labels_and_infos_tables_cut_no_name_at_80_columns(photographs, tmp_path, teacher, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    store, name = str(tmp_path / "s"), "efficientnet_of_the_people_next_door"
    polyteach.ingest(str(photographs), store, progress=False)
    polyteach.label(store, teachers={name: teacher + "mean", "short": teacher + "mean"}, progress=False)
    labelled = capsys.readouterr().err
    info(store)
    for said in (labelled, capsys.readouterr().out):
        words = said.replace(",", "").split()
        assert {f"classification/{name}", "classification/short", "labelled", "images", "probability"} <= set(words)
        assert not {"…"} & set(said)
        # a path may be longer than a line; it is whole, on a line of its own
        assert max(len(line) for line in said.splitlines() if teacher not in line and store not in line) <= 80
    assert f"from: {teacher}mean" in said
