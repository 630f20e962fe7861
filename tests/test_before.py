"""What an earlier version made and took is read, ended and taken as it was: see before/make.py.

A store, a training that was killed, a `pretrain` and a `transfer` that were stopped; every option of every verb, by
the command line, by a file and from Python; and the imports that people have.
"""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import polyteach
from polyteach.__main__ import main
from tests import golden
from tests.before import commands, imports, make

KEPT = json.loads(make.OUTCOME.read_text(encoding="utf-8"))
VERBS = json.loads(commands.FILE.read_text(encoding="utf-8"))
ALONE = ("compile", "epochs", "fraction", "freeze", "held_out", "nesterov", "shard", "sync_batch_norm")
"""Options that another one forbids."""
BESIDE = {"--freeze": ["--init"]}
"""What an option has to be given with."""
SINCE = {
    "calibrated": True, "class_scores": {}, "best_share": None,  # options of train
    "layer_decay": 1.0, "thaw": 0, "drop_path": 0.0, "grad_checkpointing": False, "keep_statistics": False,
    "flip": False, "scales": [1.0],  # of label
    "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],  # of a run
    "calibration": None, "held": ...,  # what `store info` says more
}  # fmt: skip
"""Keys that are new since then, with what they have to say of what was made before; any value where it is `...`."""
SAME = 4
"""Line of the log up to which every processor gives the same numbers: that of the first step after the stop."""
LEAST = 1e-2
"""Numbers below it are compared as if they were of this size: sums in which nearly all cancels."""


# --- a store and runs ------------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A copy of what was made, as the present folder."""
    make.copy(tmp_path / "made")
    monkeypatch.chdir(tmp_path / "made")
    monkeypatch.setenv("COLUMNS", "80")
    if polyteach.__version__ != KEPT["versions"]["polyteach"]:  # an unfinished run goes on in its own version alone
        monkeypatch.setattr(polyteach, "__version__", KEPT["versions"]["polyteach"])
    torch.set_num_threads(1)


def tolerance(where):
    """How far a number may be off: what another processor rounds otherwise is as nothing in the first steps that are
    done again (`SAME`), and grows from step to step."""
    step = re.search(r"log\[(\d+)\]", where)
    if (step and int(step[1]) > SAME) or where.startswith(" train.json losses"):
        return 0.5 if "gradient_norm" in where else 0.03
    return golden.TOLERANCE


def different(new, old, where=""):
    """Where two outcomes differ, numbers by more than rounding on another processor."""
    if isinstance(new, dict) and isinstance(old, dict):
        gone = [f"{where} has no {k}" for k in old.keys() - new.keys()]
        added = {k for k in new.keys() & SINCE.keys() if SINCE[k] in (..., new[k])}
        more = [f"{where} has {k}" for k in new.keys() - old.keys() - added]
        return gone + more + [d for k in old if k in new for d in different(new[k], old[k], f"{where} {k}")]
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [d for i, (a, b) in enumerate(zip(new, old, strict=True)) for d in different(a, b, f"{where}[{i}]")]
    if type(new) is type(old) is float:
        near = abs(new - old) <= tolerance(where) * max(abs(new), abs(old), LEAST)
        return [] if near else [f"{where}: {new} was {old}"]
    return [] if type(new) is type(old) and new == old else [f"{where}: {new} was {old}"]


def without_digests(outcome):
    """What does not hang on the versions of the libraries that encode."""
    if isinstance(outcome, dict):
        return {k: without_digests(v) for k, v in outcome.items() if k != "parts"}
    return outcome


def without_comparisons(lines):
    """What `store info` prints but for how labels hold against people's: blocks after an empty line, new since then."""
    blocks = "\n".join(lines).split("\n\n")
    return "\n\n".join(b for b in blocks if not re.match(r"\w+/\w+ against \w+/people", b)).split("\n")


@pytest.mark.parametrize("name", make.OUTCOMES)
def test_what_was_made_before_is_taken_as_it_was(made, name):
    new, old = json.loads(json.dumps(make.OUTCOMES[name]())), KEPT[name]
    libraries = [{k: v for k, v in found.items() if k != "polyteach"} for found in (make.versions(), KEPT["versions"])]
    if libraries[0] != libraries[1]:
        new, old = without_digests(new), without_digests(old)
    if "text" in new:
        new["text"] = without_comparisons(new["text"])
    differ = different(new, old)
    assert not differ, "\n".join(differ[:20])


def test_a_changed_outcome_is_seen():
    old = KEPT["trained"]
    new = json.loads(json.dumps(old))
    assert different(new, old) == []
    loss = next(iter(new["log"][-1]["losses"]))
    new["log"][-1]["losses"][loss] *= 1.1
    new["log"][SAME]["losses"][loss] *= 1 + 3 * golden.TOLERANCE
    new["said"][0] += "."
    del new["train.json"]["compute"]["images"]
    assert len(different(new, old)) == 4
    assert different({"a": 1}, {"a": True, "b": 2}) == [" has no b", " a: 1 was True"]


def test_what_was_made_before_is_small_and_was_stopped():
    files = [f for f in make.HERE.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    assert sum(f.stat().st_size for f in files) < 1_500_000
    lines = {run: make._lines(make.MADE / run) for run in ("stopped", "contrast")}
    steps = {run: int(next((make.MADE / run / "checkpoints").iterdir()).name[5:]) for run in lines}
    assert steps["stopped"] < lines["stopped"] < len(KEPT["trained"]["log"])  # killed: steps are done again
    assert steps["contrast"] == lines["contrast"] < len(KEPT["pretrained"]["log"])


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(tmp_path):
    """Puts paths into what options.json has: of nothing that is there, but for an image and a file."""
    missing, new, file, image = (tmp_path / n for n in ("missing", "new", "a.yaml", "a.png"))
    file.write_text("depth/a: {cat: kitten}\n", encoding="utf-8")
    image.write_bytes(next((make.MADE / "images" / "referred").glob("*.png")).read_bytes())
    paths = {"{missing}": missing, "{new}": new, "{file}": file, "{image}": image}

    def fill(value):
        if isinstance(value, dict):
            return {k: fill(v) for k, v in value.items()}
        if isinstance(value, list):
            return [fill(v) for v in value]
        for name, path in paths.items() if isinstance(value, str) else ():
            value = value.replace(name, str(path))
        return value

    return fill


@pytest.fixture(params=VERBS)
def verb(request, tmp_path):
    """A verb, and its entry. What it cannot find is, for the demo, a folder that is none of a demo."""
    if request.param == "demo":
        (tmp_path / "missing").mkdir()
        (tmp_path / "missing" / "notes.txt").write_text("mine", encoding="utf-8")
    yield request.param, VERBS[request.param]
    assert not (tmp_path / "new").exists(), "something was written"


def command(verb, about, options):
    """The words of a command of that verb, with those options besides what it needs."""
    needed = about["stopped"]
    words = [verb.split()]
    for name in about["positional"]:
        words.append(needed[name] if isinstance(needed[name], list) else [needed[name]])
    for option, one in about["options"].items():
        if one["keyword"] in needed and option not in options:
            words.append(commands.words(option, needed[one["keyword"]]))
    return [w for group in [*words, *options.values()] for w in group]


def complaint(words, capsys):
    """What a command says that cannot do its work."""
    try:
        status = main(words)
    except SystemExit as e:
        status = e.code
    said = capsys.readouterr()
    assert status == 2, f"{words} ended with {status}"
    return said.out + said.err


def together(options):
    """Options in groups that can be given at once: first all, but for those that another one forbids."""
    alone = [k for k, one in options.items() if one["keyword"] in ALONE]
    return [[k for k in options if k not in alone], *([k, *BESIDE.get(k, ())] for k in alone)]


def each(options, refused):
    """What `refused(names)` says of some options at once; where it says something of many, of each of them."""
    wrong = []
    for group in together(options):
        said = refused(group)
        if said and len(group) > 2:
            said = [w for k in group for w in refused([k, *BESIDE.get(k, ())])]
        wrong += said
    return wrong


def test_every_option_is_taken_on_the_command_line(verb, filled, capsys):
    name, about = verb
    missing, options = filled("{missing}"), about["options"]

    def refused(chosen):
        said = complaint(filled(command(name, about, chosen)), capsys)
        return [] if missing in said else [f"{' '.join(map(str, chosen.values()))}: {said}"]

    wrong = each(options, lambda group: refused({k: options[k]["words"] for k in group}))
    switches = [k for k, one in options.items() if isinstance(one["value"], bool)]
    wrong += refused({k: [f"--no-{k[2:]}"] for k in switches})
    wrong += refused({k: [k] for k in switches if options[k]["keyword"] not in ALONE})
    for option, one in options.items():
        if one["takes"].removeprefix("{None}|") in ("INT", "FLOAT"):
            said = complaint(filled(command(name, about, {option: [option, "many"]})), capsys)
            wrong += [] if "many" in said and "is not a store" not in said else [f"{option} many: {said}"]
    assert not wrong, "\n".join(wrong)


def test_every_option_is_taken_from_a_file(verb, filled, tmp_path, capsys):
    name, about = verb
    missing, options, file = filled("{missing}"), about["options"], tmp_path / "options.yaml"
    needed = {one["keyword"]: k[2:] for k, one in options.items()}
    given = {needed.get(k, k): v for k, v in about["stopped"].items()}

    def refused(chosen, dash):
        told = filled(given | {k[2:].replace("-", dash): options[k]["value"] for k in chosen})
        file.write_text(json.dumps(told), encoding="utf-8")  # which is YAML
        said = complaint([*name.split(), "--config", str(file)], capsys)
        return [] if missing in said else [f"{', '.join(chosen)}: {said}"]

    wrong = [w for dash in "-_" for w in each(options, partial(refused, dash=dash))]
    assert not wrong, "\n".join(wrong)


def test_every_option_is_taken_in_python(verb, filled):
    name, about = verb
    module = importlib.import_module(about["module"])
    function = getattr(polyteach, name) if name in polyteach.__all__ else getattr(module, about["function"])
    wrong, missing, needed, options = [], filled("{missing}"), filled(about["stopped"]), about["options"]
    for option, one in options.items():
        several = [options[k] for k in (option, *BESIDE.get(option, ()))]
        values = {x["keyword"]: filled(x["value"]) for x in several}
        try:
            function(**(needed | {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}))
        except ValueError as e:
            wrong += [] if missing in str(e) else [f"{one['keyword']}: {e}"]
        except TypeError as e:
            wrong.append(f"{one['keyword']}: {e}")
    first = [needed.pop(k) for k in about["positional"]]
    with pytest.raises(ValueError, match="missing"):
        function(*first, **needed)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("verb", VERBS)
def test_defaults_are_those_of_before(verb):
    about, helped = VERBS[verb], commands.shown(verb)
    function = getattr(importlib.import_module(about["module"]), about["function"])
    parameters, wrong = inspect.signature(function).parameters, []
    for option, one in about["options"].items():
        now = one.get("now", option)
        found, kept = helped.get(now, {"shown": "that there is none"})["shown"], one["shown"]
        if found != kept and not (kept == "" and found is not None and now in helped):
            wrong.append(f"{now} shows {found}, and showed {kept}")
        if one["keyword"] in parameters and not one["required"]:
            default = json.loads(json.dumps(parameters[one["keyword"]].default))
            wrong += [] if default == one["default"] else [f"{one['keyword']} is {default}, and was {one['default']}"]
    assert not wrong, "\n".join(wrong)


def test_no_option_is_forgotten_here():
    """All that the help shows now is in options.json, or is new."""
    assert sum(len(about["options"]) for about in VERBS.values()) == 178
    assert set(commands.STOPPED) == set(VERBS)


# --- imports ---------------------------------------------------------------------------------------------------------


def test_imports_that_people_have_still_work():
    wanted = json.loads(imports.FILE.read_text(encoding="utf-8"))["used"]
    assert "polyteach.store:Store" in wanted
    code = (
        "import json, sys, polyteach\n"
        "from tests.before import imports\n"
        "print(*imports.gone(json.loads(sys.argv[1])), sep='\\n')\n"
        "print(*(n for n in polyteach.__all__ if not callable(getattr(polyteach, n))), sep='\\n')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(imports.ROOT)}
    command = [sys.executable, "-W", "error", "-c", code, json.dumps(wanted)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not run.stdout.strip(), run.stdout


def test_a_lost_import_is_seen():
    lost = ["polyteach.store:Stor", "polyteach.shop", "polyteach.tasks:norms"]
    assert [one.split(" ")[0] for one in imports.gone(["polyteach.store:Store", *lost])] == lost
    text = "import polyteach.store as s\nfrom polyteach import tasks, train\ns.Store\ntasks.load_task\nprint(train)"
    found = {"polyteach.store", "polyteach.store:Store", "polyteach.tasks", "polyteach.tasks:load_task"}
    assert found <= imports.imported(text)
    assert Path(imports.__file__).with_suffix(".json") == imports.FILE
