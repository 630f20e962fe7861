"""Groups of options: given one by one or whole, from Python, the command line and files of options."""

import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
import pytest
import torch
import tyro
from tyro.constructors import PrimitiveConstructorSpec

from polyteach import __main__ as command
from polyteach.ground.options import Hardware, Optimisation, Paths, Views, explained, from_file, grouped, listed


@dataclass(frozen=True)
class Longer(Optimisation):
    """How longer.

    Args:
        ema: decay of the
            average.
    """

    batch_size: int = 256
    ema: float = 0.9


@grouped
def brew(
    stores: Paths,
    *,
    out: str | Path,
    split: Sequence[str] = (),
    optimisation: Longer = Longer(seed=3),
    hardware: Hardware = Hardware(),
    title: str = "none",
) -> tuple:
    """Brew it.

    Args:
        stores: of what.
        out: where to.
        split: of which.
        title: how it is called.

    Returns:
        What was given.
    """
    return listed(stores), str(out), tuple(split), optimisation, hardware, title


@pytest.fixture
def said(monkeypatch, capsys):
    """Run `polyteach brew WORDS`; gives (status, what brew returned, what was said)."""
    door = ModuleType("polyteach.verbs.brew")
    answers = []

    def kept(*args, **given):
        answers.append(brew(*args, **given))
        return answers[-1]

    kept.__wrapped__ = brew.__wrapped__
    door.brew = kept
    monkeypatch.setitem(sys.modules, "polyteach.verbs.brew", door)
    monkeypatch.setattr(command, "verbs", lambda group="": {"brew": "brew"})

    def run(*words):
        answers.clear()
        try:
            status = command.main(["brew", *map(str, words)])
        except SystemExit as e:
            status = e.code
        out = capsys.readouterr()
        return status, answers[0] if answers else None, out.out + out.err

    return run


def test_options_come_one_by_one_or_in_their_group():
    one = brew("a", out="b", lr=0.1, seed=5, precision="bf16")
    assert one[3] == Longer(lr=0.1, seed=5)
    assert one[4] == Hardware(precision="bf16")
    assert brew("a", out="b")[3] == Longer(seed=3)
    assert brew("a", out="b", optimisation=Longer(steps=4), lr=0.1)[3] == Longer(steps=4, lr=0.1)
    shorter = brew("a", out="b", optimisation=Optimisation(steps=4), lr=0.1)[3]  # of the group that this one extends
    assert shorter == Longer(steps=4, lr=0.1, batch_size=16)
    with pytest.raises(TypeError, match="hardware must be a Hardware; got dict"):
        brew("a", out="b", hardware={"device": "cpu"})
    with pytest.raises(TypeError, match="unexpected keyword argument 'lrr'"):
        brew("a", out="b", lrr=0.1)
    with pytest.raises(ValueError, match=r"batch_size must be at least 1; got 0"):
        brew("a", out="b", batch_size=0)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("steps", 2.5, r"steps must be int \| None; got 2\.5"),
        ("lr", "fast", r"lr must be float \| None; got 'fast'"),
        ("batch_size", True, "batch_size must be int; got True"),
        ("channels_last", "yes", "channels_last must be bool; got 'yes'"),
        ("precision", None, "precision must be str; got None"),
        ("title", ["a"], r"title must be str; got \['a'\]"),
    ],
)
def test_a_value_from_python_is_of_its_options_type(option, value, said):
    with pytest.raises(ValueError, match=said):
        brew("a", out="b", **{option: value})
    with pytest.raises(ValueError, match="out must be str"):
        brew("a", out=None)


def test_numbers_of_numpy_and_devices_of_torch_are_values():
    answer = brew("a", out="b", seed=np.int64(5), lr=np.float32(0.5), device=torch.device("cpu"), split=["x"])
    assert answer == (("a",), "b", ("x",), Longer(seed=5, lr=0.5), Hardware(device="cpu"), "none")
    assert type(answer[3].seed) is int
    assert type(answer[4].device) is str


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:3", "mps", "xpu:1", "meta"])
def test_names_of_devices(name):
    assert Hardware(device=name).device == name


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "", "0", "cpu:0:1"])
def test_what_is_no_device(name):
    with pytest.raises(ValueError, match=f"device {re.escape(repr(name))} is none"):
        Hardware(device=name)


def test_a_kind_of_device_that_another_distribution_brings(monkeypatch):
    """Only torch knows whether there is one of that name."""
    monkeypatch.setattr("polyteach.ground.names.entry_points", lambda group: [group])
    assert Hardware(device="npu:0").device == "npu:0"
    with pytest.raises(ValueError, match="device 'npu:' is none"):
        Hardware(device="npu:")


def test_a_file_that_gives_an_option_twice_is_refused(said, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("stores: a\nout: c\nlr: 1\nlr: 2\n")
    status, answer, text = said("--config", file)
    assert (status, answer) == (2, None)
    assert text == f"polyteach brew: --config {file}: line 4: 'lr' is there twice\n"


def test_signature_and_help_tell_every_option():
    names = list(inspect.signature(brew).parameters)
    assert names[:5] == ["stores", "out", "split", "steps", "epochs"]
    assert {"ema", "workers", "title"} <= set(names)
    assert inspect.signature(brew).parameters["batch_size"].default == 256
    text = inspect.getdoc(brew)
    assert "    ema: decay of the\n        average." in text
    assert "    workers: processes" in text
    assert text.index("    title:") < text.index("Returns:")
    assert set(explained(Longer)) == set(Longer.__dataclass_fields__)


def test_two_options_of_one_name_are_refused():
    def twice(*, seed: int = 0, optimisation: Optimisation = Optimisation()) -> None:
        """Nothing."""

    with pytest.raises(TypeError, match="option seed of optimisation is there already"):
        grouped(twice)


def test_the_command_line_gives_the_fields_of_groups(said):
    status, answer, _ = said("a", "b", "--out", "c", "--lr", "1e-3", "--channels-last", "--workers=0")
    assert status == 0
    assert answer == (("a", "b"), "c", (), Longer(seed=3, lr=0.001), Hardware(channels_last=True, workers=0), "none")


def test_what_a_group_refuses_is_said_in_one_line(said):
    status, answer, text = said("a", "--out", "c", "--workers", "-1")
    assert (status, answer) == (2, None)
    assert text == "polyteach brew: workers must be at least 0; got -1\n"
    assert "unknown option '--worker'; there are --out, --split, --steps" in said("a", "--out", "c", "--worker", "1")[2]


def test_help_shows_groups_and_their_defaults(said):
    text = said("--help")[2]
    assert "How longer." in text
    assert "of what. (required)" in " ".join(text.replace("│", " ").split())
    assert "(default: 256)" in text
    assert "decay of the average. (default: 0.9)" in " ".join(text.replace("│", " ").split())


def test_a_file_gives_the_same_options_and_the_command_line_wins(said, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("stores: [a, b]\nout: c\nlr: 1e-3\nsteps: 7\nsplit: train\nchannels-last: true\ntitle: 5\nema: 0\n")
    expected = (
        ("a", "b"),
        "c",
        ("train",),
        Longer(seed=3, lr=0.001, steps=7, ema=0),
        Hardware(channels_last=True),
        "5",
    )
    assert said("--config", file)[1] == expected
    _, answer, _ = said("--config", file, "--steps", "8", "--no-channels-last", "--split", "x", "y")
    assert answer[2:] == (("x", "y"), Longer(seed=3, lr=0.001, steps=8, ema=0), Hardware(), "5")
    file.write_text("stores: a\nout: c\nsteps: many\n")
    status, _, text = said("--config", file)
    assert status == 2
    assert f"--config {file}: steps: must be int | None; got 'many'" in text


SPEC = Annotated[
    str | dict,
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="X",
        instance_from_str=lambda words: dict(w.split("=") for w in words),
        is_instance=lambda x: isinstance(x, str | dict),
        str_from_instance=lambda x: [],
    ),
]


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        ("1e-3", float, 0.001),
        (3, float, 3),
        (3, str, "3"),
        (None, int | None, None),
        ("7", int | None, 7),
        ("a", Sequence[str], ("a",)),
        ({"a": "cpu"}, Sequence[str], ("a=cpu",)),
        ([1, "2"], tuple[float, float], (1, 2.0)),
        ([1, 2, 3], tuple[int, ...], (1, 2, 3)),
        (True, bool, True),
        ("x", tyro.conf.Positional[str | Path], "x"),
        ({"a": "b"}, SPEC, {"a": "b"}),
        (["a=b"], SPEC, {"a": "b"}),
        ("rule", SPEC, "rule"),
    ],
)
def test_values_of_files(value, hint, expected):
    assert from_file(value, hint) == expected


@pytest.mark.parametrize(
    ("value", "hint"),
    [("x", int), (True, int), (True, float), (1, bool), ([1], tuple[int, int]), (None, str), (1.5, int), ([1], str)],
)
def test_values_of_files_that_do_not_fit(value, hint):
    with pytest.raises(ValueError, match=r"must be|could not convert|invalid literal"):
        from_file(value, hint)


def test_views_check_themselves():
    with pytest.raises(ValueError, match="scale must be LOW HIGH"):
        Views(scale=(2.0, 1.0))
    with pytest.raises(ValueError, match="mirror must be 0 to 1; got 2"):
        Views(mirror=2)


@pytest.mark.parametrize(("name", "said"), [("batchsize", r"Did you mean batch_size\?"), ("x", r"help\(\) lists them")])
def test_an_option_that_there_is_not_is_told_with_the_one_that_was_meant(name, said):
    with pytest.raises(TypeError, match=rf"brew\(\) got an unexpected keyword argument '{name}'.*{said}"):
        brew(["a"], out="b", **{name: 1})
