"""Every option of every verb, as it was: `options.json`.

    python -m tests.before.commands --write      of the present code

Kept is what polyteach 0.2.0 (commit 0555531) had. An option that has another name by now keeps its entry, with
`"now": "--its-name"`: the old name has to be taken still, and the help shows the new one.

By verb: where it is called from in Python, its arguments in order, a whole command that is stopped by something that
is not there, and by the option's name what it is called in Python, its default, what `--help` shows of it, and a value
of it, as words of a command line and as Python and YAML have it.
"""

import contextlib
import importlib
import inspect
import io
import json
import os
import re
import sys
from pathlib import Path

from polyteach.__main__ import main

FILE = Path(__file__).with_name("options.json")
STOPPED = {
    "ingest": {"source": "{missing}", "store": "{new}"},
    "label": {"store": "{missing}", "teachers": {"a": "timm:resnet18"}},
    "train": {"stores": ["{missing}"], "out": "{new}"},
    "pretrain": {"stores": ["{missing}"], "out": "{new}"},
    "transfer": {"store": "{missing}", "out": "{new}"},
    "predict": {"run": "{missing}", "images": ["{image}"]},
    "report": {"runs": ["{missing}"], "out": "{new}"},
    "demo": {"out": "{missing}"},
    "store check": {"store": "{missing}"},
    "store info": {"store": "{missing}"},
    "store split": {"store": "{missing}", "fractions": {"train": 0.5, "test": 0.5}},
    "store merge": {"out": "{new}", "stores": ["{missing}", "{new}2"]},
    "store drop-labels": {"store": "{missing}", "sets": ["a"]},
    "store repair": {"store": "{missing}"},
}
"""Arguments with which each verb can only complain that {missing} is not there, or, of the demo, is no demo."""
VALUES = {
    "allow_remote": ["https"], "backbone": "resnet18", "combine": "union", "device": "cpu", "epochs": 2.5,
    "downstream": "birds", "fraction": 0.5, "freeze": ["backbone"], "group": "(.*)_", "groups": "{file}",
    "held_out": 0.25, "init": "pretrained", "labels": ["a", "b"], "licence": "CC0-1.0", "lr": 0.5, "map": "{file}",
    "method": "vicreg", "metric": "AbsRel", "mode": "frozen", "name": "ours", "optimizer": "adamw", "oracle": "best",
    "ours": "student", "out": "{new}", "parts": ["backbone"], "photos": "{missing}", "precision": "bf16",
    "protocol": "voc-detection", "ray": "local", "ray_timeout": 60.0, "scale": [0.75, 1.5], "scratch": "none",
    "seeds": [3, 4], "shots": 5, "size": 64, "split": ["train", "val"], "steps": 50, "task": "depth",
    "tasks": ["depth", "normals"], "test_split": ["a", "b"], "title": "Of birds", "train_split": ["a"],
    "validation_split": ["a"], "warmup": 3, "weight_decay": 0.125, "weights": {"depth": 2.0}, "lrs": [0.5, 0.25],
    "crop": [0.25, 0.75], "sets": ["a"], "channels": 8, "ema": 0.5, "clip": 1.5, "drop": 0.25, "mirror": 0.25,
    "augment": 2.0, "score": 0.25, "temperature": 0.25, "save_minutes": 1.5, "accumulate": 2, "batch_size": 4,
}  # fmt: skip
"""A value of each option that is no switch and no count; of counts it is one more than the default."""
OTHERS = {
    "label": {"labels": "a", "device": ["cpu", "a=cpu"]},
    "transfer": {"labels": "a", "steps": [50, 60]},
}
"""What another value is wanted for by some verb."""


def where(verb):
    """(module, function) of a verb in Python."""
    first, *more = verb.split()
    return (f"polyteach.{first}", first) if not more else ("polyteach.stores", more[0].replace("-", "_"))


def words(option, value):
    """An option with its value, as it is written on a command line."""
    if isinstance(value, bool):
        return [option if value else f"--no-{option[2:]}"]
    if isinstance(value, dict):
        return [option, *(f"{k}={v}" for k, v in value.items())]
    return [option, *(map(str, value) if isinstance(value, list) else [str(value)])]


def shown(verb):
    """What `--help` shows: per option its names, what it takes, and its default, or None where it is required."""
    said = io.StringIO()
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"  # in a wider one groups stand beside one another
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([*verb.split(), "--help"])
    finally:
        if width is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = width
    found, inside = {}, None
    for whole in said.getvalue().splitlines():
        line = whole.strip(" │|")
        if named := re.match(r"[│|]? {0,2}(?:-h, )?(--[a-z][a-z0-9-]*)(?=[ ,]|$)", whole):  # not what is set in
            inside = named[1]
            found[inside] = [line]
        elif inside and line and not line.startswith(("╰", "╭", "─")):
            found[inside].append(line)
        else:
            inside = None
    return {name: _about(name, text) for name, text in found.items() if name not in ("--help", "--config")}


def _about(name, lines):
    default = re.search(r"[\[(](?:default[:=] ?(?P<default>.*?)|required)[\])]$", " ".join(lines))
    takes = lines[0].removeprefix(name).split("  ")[0].strip(" ,")
    return {"takes": takes, "shown": default["default"] if default else None}


def _plain(value):
    return json.loads(json.dumps(value))


def described(verb):
    """The entry of a verb in options.json."""
    module, name = where(verb)
    function = getattr(importlib.import_module(module), name)
    helped, positional, options = shown(verb), [], {}
    for keyword, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            positional.append(keyword)
            continue
        named = [getattr(m, "name", None) for m in getattr(parameter.annotation, "__metadata__", ())]
        key = next((n for n in named if n), keyword)
        option, needed = f"--{key.replace('_', '-')}", parameter.default is inspect.Parameter.empty
        default = None if needed else parameter.default
        value = OTHERS.get(verb, {}).get(keyword, VALUES.get(keyword))
        if keyword in STOPPED[verb]:
            value = STOPPED[verb][keyword]
        elif isinstance(default, bool):
            value = not default
        elif value is None:
            value = default + 1
        about = {"keyword": keyword, "required": needed} | ({} if needed else {"default": _plain(default)})
        if not hasattr(parameter.annotation, "__metadata__"):
            about["type"] = inspect.formatannotation(parameter.annotation)
        options[option] = about | helped[option] | {"value": value, "words": words(option, value)}
    assert set(options) == set(helped), f"{verb}: {set(options) ^ set(helped)}"
    return {"module": module, "function": name, "positional": positional, "stopped": STOPPED[verb], "options": options}


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit(__doc__)
    made = {verb: described(verb) for verb in STOPPED}
    FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
