"""JSON from strangers: every error names the file, the field and what is allowed, and nothing hangs or grows."""

import json
import os

import pytest

from polyteach.ground import fields
from polyteach.ground.fields import Fields


def read(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Fields.read(path, "Mend it")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 200_000, "is nested too deeply"),
        ('{"a":' * 200_000, "is nested too deeply"),
        ("{", "is not valid JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        ("[]", "the file must be an object; it is a list of 0"),
        ("null", "the file must be an object; it is None"),
        ('{"a": "\\ud800"}', "has text that UTF-8 cannot hold"),
        ('{"a": ' + "9" * 5000 + "}", "is not valid JSON: Exceeds the limit"),
    ],
)
def test_what_is_no_description(tmp_path, text, said):
    with pytest.raises(ValueError, match=r"about\.json.*Mend it$") as e:
        read(tmp_path / "about.json", text)
    assert said in str(e.value)


def test_what_is_no_file(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, said in (("pipe", "is a pipe or a device"), ("folder", "is a folder"), ("none", "No such file")):
        with pytest.raises(ValueError, match=rf"{name} .*{said}"):
            Fields.read(tmp_path / name)
    monkeypatch.setattr(fields, "LARGEST", 4)
    with pytest.raises(ValueError, match=r" has 10 bytes, and at most 4 are read\. Mend it"):
        read(tmp_path / "about.json", " " * 10)


@pytest.mark.parametrize(
    ("ask", "value", "said"),
    [
        (lambda f: f.text("x"), 3, "a.x must be text; it is 3"),
        (lambda f: f.count("x"), True, "a.x must be a whole number; it is True"),
        (lambda f: f.count("x"), 1.5, "a.x must be a whole number"),
        (lambda f: f.count("x", low=1, high=9), 10**30, "a.x must be 1 to 9; it is a number of more than 20 digits"),
        (lambda f: f.count("x", low=1), 0, "a.x must be at least 1; it is 0"),
        (lambda f: f.number("x"), float("inf"), "a.x must be finite"),
        (lambda f: f.number("x"), float("nan"), "a.x must be finite"),
        (lambda f: f.number("x"), "1", "a.x must be a number; it is '1'"),
        (lambda f: f.flag("x"), 1, "a.x must be true or false; it is 1"),
        (lambda f: f.texts("x"), ["y", 3], "a.x[1] must be text; it is 3"),
        (lambda f: f.texts("x"), "yz", "a.x must be a list of texts"),
        (lambda f: f.object("x"), None, "a.x must be an object; it is None"),
        (lambda f: f.objects("x")[1].text("y"), [{}, {"y": []}], "a.x[1].y must be text; it is a list of 0"),
        (lambda f: f.objects("x"), [{}, 3], "a.x[1] must be an object; it is 3"),
        (lambda f: f.one_of("x", ("p", "q")), "r", "a.x must be one of p, q; it is 'r'"),
        (lambda f: f.text("z"), 3, "a.z is missing"),
    ],
)
def test_a_field_that_is_not_what_it_should_be(ask, value, said):
    with pytest.raises(ValueError, match=r"^about\.json: ") as e:
        ask(Fields("about.json", {"a": {"x": value}}).object("a"))
    assert said in str(e.value)


def test_what_may_be_null_may_be_missing_unless_all_must_be_there():
    loose, whole = (Fields("f", {"x": None}, whole=w) for w in (False, True))
    assert [loose.text("x", null=True), loose.text("y", null=True), whole.text("x", null=True)] == [None] * 3
    assert (loose.objects("x", null=True), loose.texts("y", null=True), loose.object("y", null=True).value) == (
        [],
        (),
        {},
    )
    with pytest.raises(ValueError, match="f: y is missing"):
        whole.text("y", null=True)
    with pytest.raises(ValueError, match="f: x must be text; it is None"):
        loose.text("x")
    assert "x" not in loose
    assert json.dumps(loose.value) == '{"x": null}'
