"""What is printed is text: names of strangers neither steer a terminal nor pass for lines of ours."""

import io
import json
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyteach.__main__ import main
from polyteach.ground.tables import fitted, table, wrapped
from polyteach.ground.texts import in_html, say, shown
from polyteach.store import ImageRow, Store
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Space
from tests.worlds import png

FORGED = "a\x1b[2J\x1b]8;;http://evil\x07\nstore is whole\r\x08\x9b31m\u202etxt\u200b"
"""Clears the screen, links, begins a line, goes back, colours, turns what follows around, and is of no width."""
ORDINARY = (
    "[background]", "[/red]", "[red]bold[/]", ":smile:", "C:\\new\\table", "é e\u0301", "日本語 한국어", "100 %",
    "क्\u200dष",  # two letters of Devanagari
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian
    "\u05e9\u05dc\u05d5\u05dd",  # Hebrew
    "👩\u200d💻 ❤\ufe0f", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "a\xa0b\u3000c",
)  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_of_any_script_stays_as_it_is(text):
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", r"\u001b[31mred\u001b[0m"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x9b1m\x85", r"\u009b1m\u0085"),
        ("safe\u202egnp.exe\u2066\u200f", r"safe\u202egnp.exe\u2066\u200f"),
        ("c\u200bat c\u200dat \ufeffcat \xadcat", r"c\u200bat c\u200dat \ufeffcat \u00adcat"),
        ("one\u2028two\u2029", r"one\u2028two\u2029"),
        ("\udce9.jpg", r"\udce9.jpg"),  # a byte that is no UTF-8
        ("hidden \U000e0061", r"hidden \udb40\udc61"),  # a letter that nothing shows, without the flag before it
    ],
)
def test_what_is_not_seen_is_escaped_as_in_json(text, expected):
    assert shown(text) == expected
    assert json.loads(f'"{shown(text)}"') == text


@given(st.text(st.characters(exclude_characters='\\"')))
def test_any_text_is_one_line_without_controls_and_nothing_of_it_is_lost(text):
    said = shown(text)
    assert json.loads(f'"{said}"') == text
    assert not {unicodedata.category(c) for c in said} & {"Cc", "Zl", "Zp", "Cs"}
    assert not [c for c in said if unicodedata.bidirectional(c) in {"LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI"}]
    assert "<" not in in_html(text)
    assert '"' not in in_html(f'{text}"')


def test_lines_stay_lines_and_an_encoding_is_no_obstacle():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say(FORGED, "é 日本", stream=stream)
    lines = stream.buffer.getvalue().decode("ascii").splitlines()
    assert lines == [shown(FORGED), r"\u00e9 \u65e5\u672c"]


def harmless(text):
    return not [c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"}]


@pytest.mark.parametrize("width", [30, 200])
def test_tables_hold_text_alone(width):
    rows = [[FORGED, "1", [FORGED, "[/red]"]], ["[background]", "2", "[red]x[/red]"]]
    said = table(("set", "n", FORGED), rows, width)
    assert harmless(said)
    assert all(word in said for word in ("[background]", "[/red]", "[red]x[/red]", shown("a\x1b[2J")))
    assert not [line for line in said.splitlines() if line.startswith("store is whole")]
    assert harmless("".join(wrapped(FORGED, width, lead=FORGED)))
    assert wrapped([FORGED], 200) == [shown(FORGED)]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


def test_lines_for_a_terminal_are_measured_as_they_will_be_seen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = fitted(["short", "\x1b " * 20], Terminal())
    assert lines[0] == "short"
    assert max(map(len, lines)) <= 40
    assert " ".join(lines[1:]).split() == [r"\u001b"] * 20


def test_classes_that_look_like_markup_are_in_the_stores_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = ("[background]", "[/red]", "\x1b[31mred")
    store = Store.create(tmp_path / "store")
    rows = [ImageRow(str(i), 16, 16, png(torch.zeros(3, 16, 16, dtype=torch.uint8)), split=FORGED) for i in range(3)]
    store.write_images(0, rows)
    labels = store.create_set("classification", "people", Space(names), {})
    labels.write(0, [r.id for r in rows], [ClassificationTarget(probability=p) for p in torch.eye(3)])
    for words in (["info"], ["info", "--json"], ["check"]):
        assert main(["store", *words, str(store.path)]) == 0
        said = capsys.readouterr()
        assert harmless(said.out + said.err)
        if words == ["info"]:
            assert "[background] 1, [/red] 1, " + shown(names[2]) + " 1" in said.out
        if words == ["info", "--json"]:
            assert json.loads(said.out)["sets"][0]["classes"] == dict.fromkeys(names, 1)


@pytest.mark.parametrize("words", [["store", "check", FORGED], ["label", "x", "--teacher", f"a={FORGED}"],
                                   ["store", "check", "x", FORGED], ["ingest", FORGED, "x"],
                                   ["predict", FORGED, FORGED], [FORGED], ["ingest", "x", "y", "--config", FORGED],
                                   ["ingest", "x", "y", f"--{FORGED}"]])  # fmt: skip
def test_errors_quote_what_was_given_as_text(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr()
    assert harmless(said.out + said.err)
    assert not [line for line in said.err.splitlines()[1:] if not line.startswith("  ")]
