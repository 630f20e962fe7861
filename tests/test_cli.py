"""The command line: help with examples, configuration files, errors that say the fix."""

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from polyteach.__main__ import main
from polyteach.store import ImageRow, Store
from polyteach.verbs import is_group, load_verb, verbs
from tests.worlds import png

VERBS = verbs()
GROUPS = [v for v in VERBS if is_group(v)]
WORDS = [v for v in VERBS if v not in GROUPS] + [f"{g} {v}" for g in GROUPS for v in verbs(g)]


@pytest.mark.parametrize("verb", WORDS)
def test_every_verb_has_help_with_examples(verb, capsys):
    with pytest.raises(SystemExit) as e:
        main([*verb.split(), "--help"])
    assert e.value.code == 0
    said = capsys.readouterr().out
    assert "Examples:" in said
    assert f"polyteach {verb}" in said
    assert "--config FILE.yaml" in said
    assert "(default: )" not in " ".join(said.replace("│", " ").split())


@pytest.mark.parametrize("verb", WORDS)
def test_help_breaks_no_word_at_80_columns(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    lines = capsys.readouterr().out.splitlines()
    # what is to be copied is not broken by us
    assert max(len(line) for line in lines if not line.startswith(("    ", "usage: "))) <= 80


@pytest.mark.parametrize("verb", WORDS)
def test_every_option_is_explained(verb, capsys):
    import inspect

    *group, name = verb.split()
    function, _ = load_verb(name, *group)
    arguments = (inspect.getdoc(function) or "").partition("Args:")[2]
    for name in inspect.signature(function).parameters:
        assert f"\n    {name}: " in arguments, f"{verb} does not explain {name}"


def test_top_level(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in VERBS)
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert main(["lable"]) == 2
    assert "Did you mean label?" in capsys.readouterr().err


@pytest.mark.parametrize("group", GROUPS)
def test_verbs_of_verbs(group, capsys):
    assert main([group, "--help"]) == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in verbs(group))
    assert main([group]) == 2
    assert main([group, "mend"]) == 2
    assert "unknown verb 'mend'" in capsys.readouterr().err


def test_importing_and_helping_need_no_torch():
    code = "import sys, polyteach, polyteach.__main__ as m; m.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    code = "import sys, polyteach.label, polyteach.train, polyteach.ingest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_config_file_gives_options_and_the_command_line_wins(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("store: /nowhere/a\nteacher:\n  x: timm:resnet18\nbatch_size: 0\n")
    assert main(["label", "--config", str(file)]) == 2
    assert "batch_size must be at least 1; got 0" in capsys.readouterr().err
    assert main(["label", "--config", str(file), "--batch-size", "4"]) == 2
    assert "/nowhere/a is not a store" in capsys.readouterr().err
    assert main(["label", "/nowhere/b", "--config", str(file), "--batch-size=4"]) == 2
    assert "/nowhere/b is not a store" in capsys.readouterr().err


def test_config_file_errors(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    for text, said in [
        ("store: a\nteachr: {}\n", "unknown key of --config 'teachr'"),
        ("verb: label\noptions: {store: a}\n", "is the record of a run, and not a file of options"),
        ("[1, 2", "not valid YAML"),
        ("- 1\n", "NAME: VALUE"),
        ("", "is empty; it must be NAME: VALUE lines"),
        ("store: a\nbatch-size: 1\nbatch_size: 2\n", "batch-size is given twice, with - and with _"),
    ]:
        file.write_text(text)
        assert main(["label", "--config", str(file)]) == 2
        assert said in capsys.readouterr().err
    assert main(["label", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "No such file" in capsys.readouterr().err
    for twice in (["--config", str(file), f"--config={file}"], [f"--config={file}", "--config", str(file)]):
        assert main(["label", *twice]) == 2
        assert "--config is given twice" in capsys.readouterr().err
    file.write_text("store: a\nteacher: {x: y}\nbatch_size: many\n")
    assert main(["label", "--config", str(file)]) == 2
    assert f"--config {file}: batch_size: must be int; got 'many'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"store: \xff", "is not UTF-8"),
        (b"store: a\nscore: " + b"1" * 5000, "Exceeds the limit"),
        (b"store: " + b"[" * 100_000, "is not valid YAML"),
        (b"l0: &l0 [x]\n" + b"".join(b"l%d: &l%d [%s]\n" % (i, i, b", ".join([b"*l%d" % (i - 1)] * 9))
                                     for i in range(1, 12)), "more than 200,000 values"),
        (b"a: &a [*a]", "stands for nothing, or for itself"),
        (b"store: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        (None, "is a pipe or a device, not a regular file"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_none_is_refused_in_one_line(content, said, tmp_path, capsys):
    file = tmp_path / "c.yaml"
    os.mkfifo(file) if content is None else file.write_bytes(content)
    assert main(["label", "--config", str(file)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"polyteach label: --config {file}")
    assert said in " ".join(lines)
    assert all(line.startswith("  ") for line in lines[1:])
    assert main(["label", "--config", str(tmp_path)]) == 2
    assert f"--config {tmp_path} is a folder, not a regular file" in capsys.readouterr().err


def test_words_that_a_verb_has_no_place_for_are_quoted(capsys):
    assert main(["train", "a", "--out", "b", "c\x1b[31m", "-x"]) == 2
    assert "2 words are too many: 'c\\x1b[31m' '-x'" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["train --help", "store info {store}"])
def test_who_stops_reading_gets_no_traceback(words, tmp_path):
    """As `polyteach VERB --help | head` does: the reader is gone before anything is said."""
    store = Store.create(tmp_path / "store", 4)
    store.write_images(0, [ImageRow("0", 16, 16, png(torch.zeros(3, 16, 16, dtype=torch.uint8)))])
    command = [sys.executable, "-m", "polyteach", *words.format(store=store.path).split()]
    read, write = os.pipe()
    os.close(read)
    for streams in ({"stdout": write, "stderr": subprocess.PIPE}, {"stdout": write, "stderr": write}):
        ended = subprocess.run(command, check=False, timeout=100, **streams)
        assert ended.returncode in (1, 141)  # 1 is rich's, which notices first where it prints
        assert not ended.stderr
    os.close(write)


def test_another_broken_pipe_is_no_end(monkeypatch):
    """As of a connection to a server, while somebody reads what is said."""
    module = importlib.import_module("polyteach.verbs.train")

    @functools.wraps(module.train)
    def broken(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(module, "train", broken)
    with pytest.raises(BrokenPipeError):
        main(["train", "store", "--out", "/runs/a"])


def test_a_typo_in_an_option_is_an_error(capsys):
    meant_by = {"--batchsize": "--batch-size", "--techer=a=b:c": "--teacher", "--no-progres": "--progress"}
    for given, meant in meant_by.items():
        assert main(["label", "store", "--teacher", "a=b:c", given, "3"]) == 2
        said = capsys.readouterr().err
        assert f"unknown option '{given.split('=')[0]}'; there are --teacher, --device" in said
        assert f"Did you mean {meant}" in said


def test_what_stands_behind_two_dashes_is_no_option(verbs):
    assert main(["report", "--out", "page", "--", "a", "--odd-name"]) == 0
    ((name, options),) = verbs
    assert (name, options["runs"]) == ("report", ("a", "--odd-name"))


def test_teachers_are_name_equals_spec(capsys):
    with pytest.raises(SystemExit):
        main(["label", "store", "--teacher", "timm:resnet18"])
    assert "NAME=SPEC" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/runs/a"), "/runs/a: Permission denied"),
        (PermissionError("not allowed"), "not allowed"),
        (
            FileNotFoundError(2, "No such file or directory", b"/runs/\xff\n"),
            "/runs/\\udcff\\n: No such file or directory",
        ),
        (IsADirectoryError(21, "Is a directory", Path("/runs")), "/runs: Is a directory"),
        (FileExistsError(17, "File exists", "/a", None, "/b"), "/a -> /b: File exists"),
        (OSError(40, "Too many levels of symbolic links", "/a"), "/a: Too many levels of symbolic links"),
        (BlockingIOError("/runs/a: process 1 trains there"), "/runs/a: process 1 trains there"),
        (TimeoutError("of 2 processes, number 1 did not come"), "of 2 processes, number 1 did not come"),
    ],
)
def test_what_the_system_refuses_is_said_in_one_line(error, said, monkeypatch, capsys):
    fails(error, monkeypatch)
    assert main(["train", "store", "--out", "/runs/a"]) == 1
    assert capsys.readouterr().err == f"polyteach train: {said}\n"


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "/runs/a"), FileNotFoundError("of no path")])
def test_an_error_that_is_of_no_path_is_not_hidden(error, monkeypatch):
    fails(error, monkeypatch)
    with pytest.raises(OSError, match=r"error|of no path"):
        main(["train", "store", "--out", "/runs/a"])


def fails(error, monkeypatch):
    """Let `polyteach train` raise it."""
    module = importlib.import_module("polyteach.verbs.train")  # the package's `train` is the verb

    @functools.wraps(module.train)
    def refused(*_, **__):
        raise error

    monkeypatch.setattr(module, "train", refused)


def test_who_counts_labels_waits_for_no_torchvision():
    """It, timm and torchmetrics take as long to be imported as torch does."""
    code = (
        "import sys, polyteach.curation.label_info\nfrom polyteach.tasks import all_tasks, load_task\n"
        "assert len([load_task(t) for t in all_tasks()]) >= 5\n"
        "assert not {'torchvision', 'timm', 'torchmetrics', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


MISTAKES = [
    (["train", "{store}", "--out", "{run}", "--backbone", "resnet81"], "unknown backbone 'resnet81'; did you mean"),
    (["train", "{store}", "--out", "{run}", "--size", "100"], "size must be a multiple of 32; got 100"),
    (["train", "{store}", "--out", "{run}", "--init", "/nowhere"], "init '/nowhere' is neither 'pretrained', a file"),
    (["train", "/nowhere", "--out", "{run}"], "/nowhere is not a store (no store.json)"),
    (["train", "{store}", "--out", "{run}", "--weights", "best"], "weights 'best' is neither one of rule"),
    (["train", "{store}", "--out", "{run}", "--map", "/nowhere"], "map /nowhere: No such file"),
    (["train", "{store}", "--out", "{done}"], "holds a finished run; choose another folder"),
    (["train", "{store}", "--out", "{store}"], "exists and is no run of polyteach; choose another folder"),
    (["train", "{store}", "--out", "{run}", "--shard"], "shard: there is one process"),
    (["train", "{store}", "--out", "{run}", "--device", "gpu"], "device 'gpu' is none: say auto, cpu"),
    (
        ["train", "{store}", "--out", "{run}", "--labels", "poeple"],
        "unknown label set 'poeple'; the stores have people. Did you mean people?",
    ),
    (["train", "{store}", "--out", "{run}", "--tasks", "depth"], "unknown task 'depth'; the stores have detection"),
    (
        ["pretrain", "{store}", "--out", "{run}", "--method", "magic"],
        "unknown method 'magic'; there are simclr, vicreg",
    ),
    (["pretrain", "{store}", "--out", "{run}", "--optimizer", "lion"], "unknown optimizer 'lion'"),
    (["pretrain", "{store}", "--out", "{done}"], "holds a finished run; choose another folder"),
]


def test_what_a_training_cannot_do_is_said_before_torch_is_imported(tmp_path):
    """Of every mistake the message, in one process that has no torch at its end."""
    store, done = tmp_path / "store", tmp_path / "done"
    (store / "images").mkdir(parents=True)
    (store / "store.json").write_text('{"format": 1, "part_size": 4}')
    (store / "labels" / "detection" / "people").mkdir(parents=True)
    (store / "labels" / "detection" / "people" / "set.json").write_text("{}")
    done.mkdir()
    for name in ("train.json", "pretrain.json"):
        (done / name).write_text("{}")
    places = {"store": store, "run": tmp_path / "run", "done": done}
    words = [[w.format(**places) for w in given] for given, _ in MISTAKES]
    code = (
        "import sys, json\nfrom polyteach.__main__ import main\n"
        f"for words in {words!r}:\n    print(main(words), 'torch' in sys.modules, file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    for _, message in MISTAKES:
        assert message in " ".join(said.split()), said
    assert said.count("2 False\n") == len(MISTAKES), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["label", "s", "--teacher", "a=timm:resnet18", "--score", "2"], "score must be 0 to 1; got 2.0"),
        (["label", "s", "--teacher", "a/b=timm:resnet18"], "use letters, digits"),
        (["train", "s", "--out", "r", "--seed", "1" + "0" * 26], f"seed must be 0 to {2**63 - 1}"),
        (["transfer", "s", "--out", "r", "--seeds", "1" + "0" * 26], f"seeds must be 0 to {2**63 - 1}"),
        (["predict", "r"], "name files or folders"),
    ],
)
def test_what_no_verb_can_use_is_refused(words, said, tmp_path, capsys):
    assert main(words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
