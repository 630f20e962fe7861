"""Requests that object storage gets: `python benchmarks/traffic.py` counts them, at an S3 server on this machine.

A store of few parts and one of more are labelled and read; the difference is what a part costs, whatever the store's
size. Needs moto (in the dev extra). Prints a table, writes results/traffic.json.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, machine
from objects import Layer, server
from worlds import png

TEACHER = """
import torch
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space
from polyteach.teachers import Teacher

class Mean(Teacher):
    objectives = {"classification": Objective("classification", Space(("red", "green", "blue")))}
    def __call__(self, images):
        means = torch.stack([i.float().mean((1, 2)) for i in images])
        return [{"classification": ClassificationTarget(probability=p)} for p in (means / 20).softmax(-1)]

def mean(device, precision): return Mean()
"""
FEW, MANY, PART = 2, 12, 64


def counts(folder: Path, layer: Layer, parts: int) -> dict[str, Counter[str]]:
    """Requests of every verb, on a store of that many parts."""
    import polyteach

    pictures = folder / f"pictures-{parts}"
    pictures.mkdir()
    for i in range(parts * PART):
        picture = torch.full((3, 32, 32), i % 256, dtype=torch.uint8)
        (pictures / f"{i:05d}.png").write_bytes(png(picture))
    (folder / "teacher.py").write_text(TEACHER)
    store, teachers = f"s3://counted/store-{parts}", {"t": f"python:{folder / 'teacher.py'}:mean"}
    training: dict[str, Any] = {
        "backbone": "test_resnet", "channels": 8, "size": 32, "batch_size": PART, "epochs": 1, "device": "cpu",
        "workers": 0, "progress": False,
    }  # fmt: skip
    verbs: dict[str, Callable[[], Any]] = {
        "ingest --embed": lambda: polyteach.ingest(
            str(pictures), store, embed=True, part_size=PART, workers=1, progress=False
        ),
        "label, one teacher": lambda: polyteach.label(store, teachers=teachers, device=("cpu",), progress=False),
        "label again, nothing to do": lambda: polyteach.label(
            store, teachers=teachers, device=("cpu",), progress=False
        ),
        "train, one epoch": lambda: polyteach.train([store], out=str(folder / f"run-{parts}"), **training),
    }
    found = {}
    for name, verb in verbs.items():
        layer.reset()
        verb()
        found[name] = Counter("LIST" if "list-type=2" in query else method for method, _, query in layer.requests)
    return found


def main() -> int:
    """The command."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, server() as layer:
        from polyteach.ground.storage import requests

        requests.client_of("s3://").mkdir("counted")
        folder = Path(name)
        os.environ["POLYTEACH_CACHE"] = str(folder / "cache")
        with open(os.devnull, "w") as null, contextlib.redirect_stderr(null), contextlib.redirect_stdout(null):
            few, many = counts(folder, layer, FEW), counts(folder, layer, MANY)
    kinds = ("PUT", "GET", "HEAD", "LIST", "POST", "DELETE")
    rows = [
        {"verb": verb, "at_all": sum(few[verb].values())}
        | {k: (many[verb][k] - few[verb][k]) / (MANY - FEW) for k in kinds}
        for verb in few
    ]
    print(f"| verb | {' | '.join(kinds)} | whole store of {FEW} parts |")
    print("| --- " + "| ---: " * (len(kinds) + 1) + "|")
    for r in rows:
        print(f"| {r['verb']} | {' | '.join(f'{r[k]:.1f}' for k in kinds)} | {r['at_all']} |")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "traffic.json").write_text(json.dumps({"machine": machine(), "per_part": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
