"""Hostile and broken inputs: nothing runs, nothing outside is touched, memory and time are bounded, good images stay.

The corpus is in `hostile_cases.py`, what runs it in `hostile.py`. Here run those inputs that once did harm (`CHOSEN`),
and some of the others, drawn with a fixed seed: about a minute. With HOSTILE=all in the environment all of them run.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests import hostile
from tests import hostile_cases as corpus

ROOT = Path(__file__).parent.parent
CHOSEN = (
    ("objective up", "predict"), ("task folder is a link", "store drop-labels"), ("labels is a link", "label"),
    ("broken is a link", "store repair"), ("images is a link", "store split"), ("uri http", "label"),
    ("uri reference", "label"), ("uri simplecache", "label"), ("uri zip", "label"), ("uri file fifo", "label"),
    ("uri file zero", "label"), ("parquet path http", "ingest"), ("uri unknown protocol", "label"),
    ("uri unknown protocol", "train"), ("uri nul", "store check --deep"), ("uri nul", "label"),
    ("folder with self link", "ingest"), ("folder with sparse", "ingest"), ("tar self symlink", "ingest"),
    ("tar sparse", "ingest"), ("tar.gz of nothing", "ingest"), ("row claims", "label"),
    ("label depth map", "store check"), ("label mask", "store check"), ("label class map", "train"),
    ("many rows", "store check"), ("answer nan box", "train"), ("answer box class", "train"),
    ("answer odd probability", "train"), ("answer endless depth", "train"), ("answer depth text", "train"),
    ("store: null id", "store check"), ("store: part 7", "store check"), ("store: part x", "store repair, check"),
    ("store: text height", "store check"), ("store: set list", "store check"),
    ("store: set info", "store repair, check"), ("store: rows lie", "store check"),
    ("store: store list", "store info"), ("class background", "store info"), ("class closing", "store info"),
    ("class ansi", "store info"), ("onnx names passwd", "label"), ("onnx names absolute", "label"),
    ("nyu external", "ingest nyu:"), ("safetensors cut", "predict"), ("hugging face tar", "label"),
    ("student size huge", "predict"), ("student channels huge", "predict"), ("student backbone number", "predict"),
    ("onnx description multiple inf", "label"), ("student.json deep", "predict"), ("yaml description deep", "label"),
    ("nobody reads", "store info"), ("pickle pth", "label"), ("npy pickle", "ingest diode:"),
    ("part is a fifo", "store info"), ("many rows", "store repair"), ("zstd in a dataset", "ingest"),
    ("huggingface deep", "ingest"), ("hugging face code", "label"), ("uri null", "store check --deep"),
    ("cifar payload", "ingest cifar:"), ("coco up", "ingest coco:"),
)  # fmt: skip
DRAWN = 20
"""Of the others."""


def _runs():
    all_of_them = [(case, run) for case, run in corpus.every()]
    if os.environ.get("HOSTILE") == "all":
        return all_of_them
    chosen = [(c, r) for c, r in all_of_them if c.item == 0 or (c.name, r.verb) in CHOSEN]
    others = [(c, r) for c, r in all_of_them if (c, r) not in chosen and c.name not in corpus.SLOW]
    return [*chosen, *random.Random(0).sample(others, DRAWN)]


@pytest.fixture(scope="module")
def runner():
    """Asks a process that has imported everything, and no pytest, to run a case."""
    words = [sys.executable, "-W", "default", "-m", "tests.hostile", "--serve"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "ready\n"

        def ask(case, run):
            process.stdin.write(json.dumps([case.name, case.runs.index(run)]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.parametrize(("case", "said"), corpus.PROOFS, ids=[c.name for c, _ in corpus.PROOFS])
def test_the_runner_sees_what_no_verb_may_do(runner, case, said):
    found = runner(case, case.runs[0])["problems"]
    assert bool(found) == bool(said), found
    assert any(said in problem for problem in found) or not said, found


@pytest.mark.parametrize(("case", "run"), _runs(), ids=lambda x: x.name if isinstance(x, corpus.Case) else x.verb)
def test_hostile_input(runner, case, run):
    found = runner(case, run)
    assert not found["problems"], f"{case.what}: {'; '.join(found['problems'])}: {found['said']}"


def test_the_page_is_of_the_record():
    record = json.loads(hostile.RECORD.read_text(encoding="utf-8"))
    assert hostile.TABLE.read_text(encoding="utf-8") == hostile.table(record)


def test_names_of_cases_are_of_their_own():
    keys = [(case.name, run.verb) for case, run in corpus.every()]
    assert len(set(keys)) == len(keys)
    assert set(CHOSEN) <= set(keys)
    assert set(corpus.SLOW) <= {case.name for case in corpus.CASES}
