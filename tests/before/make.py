"""A store and runs of an earlier version, and what that version makes of them: `made/` and `outcome.json`.

Made with polyteach 0.2.0 (commit 0555531), and not to be made again: `tests/test_before.py` holds the present code
against them. How they were made, in a checkout of that commit into which this folder was copied:

    git worktree add /tmp/old 0555531 && cp -r tests/before /tmp/old/tests/
    cd /tmp/old && OMP_NUM_THREADS=1 python -m tests.before.make
    cp -r tests/before/made tests/before/outcome.json ../where/this/lies

made/store      two parts of images, as bytes and by relative uris; rejects; splits; labels of people and of a teacher
                for every task, some absent and some failed; the label set "late", of which a part is missing
made/run        a finished training
made/stopped    a training that was killed after its checkpoint: its log has lines of steps that are to be done again
made/contrast   a `pretrain` that was stopped by a signal
made/scores     a `transfer` of which the first cell is done, and the second was stopped by a signal

All paths that are read again are relative to `made/`: what goes on does so in a `copy` of it. `teacher.py` and
`tiny.py` are what a user would have written. All is made by the command line and by names that the docs tell.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import torch
from PIL import Image, features

import polyteach
from polyteach.__main__ import main
from polyteach.store import ImageRow, Store
from tests.before import tiny
from tests.before.teacher import OBJECTIVES, answer

HERE = Path(__file__).resolve().parent
MADE, OUTCOME = HERE / "made", HERE / "outcome.json"
ROOT = HERE.parents[1]

SIZES = ((40, 56), (56, 40), (48, 48))
EMBEDDED, REFERRED = 8, 6
PART = 8
COMMON = [
    "--backbone", tiny.BACKBONE, "--channels", "8", "--size", "64", "--workers", "0", "--device", "cpu",
]  # fmt: skip
FEW = ["--save-every", "4", "--keep", "1"]
TRAIN = [
    "train", "store", "--labels", "people", "guess", "--split", "train", "val", *COMMON, "--batch-size", "4", "--lr",
    "0.005", "--warmup", "2", "--ema", "0.5", "--scale", "0.7", "1.4", "--seed", "3", *FEW,
]  # fmt: skip
COMMANDS = {
    "first": [*TRAIN, "--out", "first", "--steps", "500", "--augment", "1", "--optimizer", "adamw"],
    "run": [*TRAIN, "--out", "run", "--init", "first", "--steps", "20", "--optimizer", "adamw"],
    "stopped": [*TRAIN, "--out", "stopped", "--steps", "9", "--accumulate", "2", "--weights", "learned"],
    "contrast": [
        "pretrain", "store", "--out", "contrast", *COMMON, "--batch-size", "6", "--steps", "24", "--lr", "0.02", *FEW,
    ],
    "scores": [
        "transfer", "store", "--out", "scores", "--init", "run", "--task", "depth", "--parts", "pyramid", "--metric",
        "AbsRel", "--validation-split", "val", "--lrs", "0.1", "0.02", "--steps", "12", "--seeds", "0", "1", "--size",
        "64", "--batch-size", "4", "--resamples", "20", "--examples", "1", "--workers", "0", "--device", "cpu",
    ],
}  # fmt: skip
"""What was trained, "first" to start "run" from. Those that were stopped go on when they are given again."""
TEACHERS = {"guess": "python:teacher.py:everything", "late": "python:teacher.py:classes"}
PICTURES = ["images/referred/1.png", "images/referred/2.jpg"]

VOLATILE = {"seconds", "images_per_second", "date", "machine", "computed", "polyteach"}
"""What of a record hangs on the machine, on the version or on when it was written."""


# --- how it was made -------------------------------------------------------------------------------------------------


def _pixels(i):
    """A wall that grows brighter from left to right, and before it up to three figures of the classes' colours."""
    rng = np.random.default_rng(i)
    h, w = SIZES[i % 3]
    y, x = np.mgrid[:h, :w]
    wall = 40 + 100 * x // w + (y // 8 % 2) * 12 - (130 if i == 4 else 0)
    out = np.repeat(wall[:, :, None].clip(0, 255), 3, 2).astype(np.uint8)
    for c in range(1 + i % 3):
        cy, cx, r = rng.integers(8, h - 8), rng.integers(8, w - 8), rng.integers(9, 14)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < r * r if i % 2 else (abs(y - cy) < r) & (abs(x - cx) < r)
        colour = np.full(3, 30)
        colour[(i + c) % 3] = 200
        out[inside] = colour
    return out


def _photographs():
    """Files of several formats: what is ingested, of which one is broken, and what is kept by reference."""
    for folder in ("embedded", "referred"):
        Path("images", folder).mkdir(parents=True)
    for i in range(EMBEDDED):
        image, file = Image.fromarray(_pixels(i)), f"images/embedded/{i}"
        if i == 1:
            turned = Image.Exif()
            turned[0x0112] = 6
            image.save(f"{file}.jpg", quality=95, subsampling=0, exif=turned)
        elif i == 2:
            image.save(f"{file}.webp", lossless=True)
        else:
            image.save(f"{file}.png")
    Path("images/embedded/5-broken.png").write_bytes(Path("images/embedded/5.png").read_bytes()[:200])
    for i in range(REFERRED):
        file = f"images/referred/{i}.{'jpg' if i == 2 else 'png'}"
        Image.fromarray(_pixels(EMBEDDED + i)).save(file, **({"quality": 95} if i == 2 else {}))


def _people(store):
    """People's labels: of every task, of three images of four."""
    for n, (task, objective) in enumerate(OBJECTIVES.items()):
        labels = store.create_set(task, "people", objective.space, {"teacher": "people", "licence": "CC0-1.0"})
        for part in store.parts():
            rows = store.images(part)
            known = [answer(store.picture(row), 1.0)[task] if (i + n) % 4 else None for i, row in enumerate(rows)]
            labels.write(part, [row.id for row in rows], known)


def _store():
    _photographs()
    _run(["ingest", "images/embedded", "store", "--embed", "--part-size", f"{PART}", "--workers", "1", "--licence",
          "CC0-1.0"])  # fmt: skip
    store = Store.open("store")
    files = [f"images/referred/{i}.{'jpg' if i == 2 else 'png'}" for i in range(REFERRED)]
    rows = [ImageRow(f, *SIZES[(EMBEDDED + i) % 3], uri=f, licence="CC0-1.0") for i, f in enumerate(files)]
    store.write_images(len(store.parts()), rows)
    _run(["store", "split", "store", "--fractions", "train=0.5", "val=0.2", "test=0.3", "--seed", "5"])
    _people(store)
    _run(["label", "store", "--teacher", *(f"{k}={v}" for k, v in TEACHERS.items()), "--device", "cpu"])
    late = next(s for s in Store.open("store").sets() if s.name == "late")
    for part in late.parts()[1:]:  # as a labelling leaves it that was stopped
        (late.path / f"part-{part:05d}.parquet").unlink()
    (late.path / "_overview.parquet").unlink(missing_ok=True)


def _run(words, stream="stdout"):
    """What a command prints there."""
    said = {"stdout": io.StringIO(), "stderr": io.StringIO()}
    quiet = [] if words[:2] in (["store", "info"], ["store", "drop-labels"]) else ["--no-progress"]
    with contextlib.redirect_stdout(said["stdout"]), contextlib.redirect_stderr(said["stderr"]):
        status = main([*words, *quiet])
    assert status == 0, f"{words} ended with {status}: {said['stderr'].getvalue()}"
    return said[stream].getvalue()


def _stopped(words, ready, how):
    """Start a command, and end it when `ready()`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.before.make", *words, "--no-progress"]
    with subprocess.Popen(command, env=environment) as process:
        while not ready():
            assert process.poll() is None, f"{words} ended before it was stopped"
            time.sleep(0.005)
        process.send_signal(how)
    assert process.returncode, f"{words} ended before it was stopped"


def _lines(run):
    log = Path(run) / "log.jsonl"
    return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0


def build():
    """All of `made/`, in the present folder."""
    _store()
    _run(COMMANDS["first"])
    _run(COMMANDS["run"])
    for folder in ("first", "run/checkpoints"):  # they would be half of all bytes here, and nothing reads them any more
        shutil.rmtree(folder)
    whole = Path("stopped/checkpoints/step-000000004")
    _stopped(COMMANDS["stopped"], lambda: whole.exists() and _lines("stopped") > 5, signal.SIGKILL)
    _stopped(COMMANDS["contrast"], lambda: _lines("contrast") > 8, signal.SIGTERM)
    cells = Path("scores/cells")

    def second():
        first = list(cells.glob("*/cell.json"))
        return first and any(_lines(c) > 3 for c in cells.glob("*") if c != first[0].parent)

    _stopped(COMMANDS["scores"], second, signal.SIGTERM)
    assert len(list(cells.glob("*/checkpoints/step-*"))) == len(list(cells.glob("*/cell.json"))) == 1


# --- what is made of it ----------------------------------------------------------------------------------------------


def content(file):
    """A digest of what a Parquet file says: fields with their metadata, row groups, and every value as it is kept."""
    found = pq.ParquetFile(file)
    fields = [(f.name, str(f.type), f.nullable, sorted((f.metadata or {}).items())) for f in found.schema_arrow]
    groups = [found.metadata.row_group(i).num_rows for i in range(found.metadata.num_row_groups)]
    rows = found.read().to_pylist()
    return hashlib.sha256(repr((fields, groups, rows)).encode()).hexdigest()


def parts(folder):
    """Per part below a folder its content's digest and its file's, which hangs on the version of pyarrow too."""
    files = sorted(Path(folder).rglob("part-*.parquet"))
    return {f.relative_to(folder).as_posix(): [content(f), hashlib.sha256(f.read_bytes()).hexdigest()] for f in files}


def record(file):
    """A record without what is volatile."""
    return _steady(json.loads(Path(file).read_text(encoding="utf-8")))


def _steady(value):
    if isinstance(value, dict):
        return {k: _steady(v) for k, v in value.items() if k not in VOLATILE}
    return [_steady(v) for v in value] if isinstance(value, list) else value


def encoded():
    """The store read and written anew, part by part: images, labels, rejects."""
    old = Store.open("store")
    new = Store.create("again", old.part_size)
    for part in old.parts():
        new.write_images(part, old.images(part))
        new.write_rejects(part, old.rejects([part]) if part in old.reject_parts() else [])
    read = {}
    for labels in old.sets():
        kept = new.create_set(labels.task, labels.name, labels.space, labels.info)
        for part in labels.parts():
            answers = labels.read(part)
            read[f"{labels.task}/{labels.name}/{part}"] = [_digest(a) for a in answers]
            kept.write(part, labels.ids(part), answers)
    sets = {f"{s.task}/{s.name}": record(s.path / "set.json") for s in new.sets()}
    return {"read": read, "sets": sets, "rejects": old.rejects(), "parts": parts("again")}


def _digest(answer):
    """Of every bit of a target; a failure's reason as it is."""
    if answer is None or isinstance(answer, str):
        return answer
    said = hashlib.sha256()
    for name, value in vars(answer).items():
        if value is not None:
            said.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode() + value.contiguous().numpy().tobytes())
    return said.hexdigest()


def _info(store):
    return json.loads(_run(["store", "info", store, "--json"]))


def described():
    """What `store info` says of it, to a program and to a person, and that it is whole."""
    found = {"json": _info("store"), "text": _run(["store", "info", "store"]).splitlines()}
    return found | {"check": _run(["store", "check", "store", "--deep"]).splitlines()}


def labelled():
    """The unfinished label set is finished, and the same and another teacher label everything anew."""
    given = TEACHERS | {"anew": TEACHERS["guess"], "student": "own:run"}
    _run(["label", "store", "--teacher", *(f"{k}={v}" for k, v in given.items()), "--device", "cpu"])
    store, found = Store.open("store"), {}
    for labels in store.sets():
        name = f"{labels.task}/{labels.name}"
        about = {"set": record(labels.path / "set.json"), "states": [labels.states(p) for p in labels.parts()]}
        if (labels.path / "label.json").exists():
            about["made"] = record(labels.path / "label.json")
        if labels.name == "student":  # computed in floating point
            about["values"] = [[_values(a) for a in labels.read(p)] for p in labels.parts()]
        else:
            about["parts"] = parts(labels.path)
        found[name] = about
    return found


def _values(answer):
    """Each field of a target by its shape, mean, spread and some of its numbers; a failure's reason as it is.

    Of boxes those that are likely: which of two that are as good stays is decided by the last bit of a score.
    """
    if answer is None or isinstance(answer, str):
        return answer
    out = {}
    likely = answer.score >= 0.5 if hasattr(answer, "score") else slice(None)
    for name, value in vars(answer).items():
        if value is not None:
            value = value[likely]
            v = value.double().flatten()
            some = v[:: max(1, len(v) // 5)][:5].tolist()
            out[name] = [list(value.shape), *([float(v.mean()), float(v.std(correction=0)), *some] if len(v) else [])]
    return out


def ended(run, *records):
    """The log of a run whose command is given again, and its records."""
    said = _run(COMMANDS[run], "stderr").splitlines()
    lines = [json.loads(line) for line in (Path(run) / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {"said": said, "log": _steady(lines)} | {name: record(Path(run) / name) for name in records}


def trained():
    """The rest of the training that was killed."""
    return ended("stopped", "student.json", "train.json", "config.json")


def pretrained():
    """The rest of the training without labels."""
    return ended("contrast", "student.json", "pretrain.json", "config.json")


def transferred():
    """The transfer, ended: its scores, and those of its cells."""
    _run(COMMANDS["scores"])
    cells = {f.parent.name: record(f) for f in sorted(Path("scores/cells").glob("*/cell.json"))}
    files = sorted(str(f) for f in Path("scores").rglob("*") if f.is_file())
    return {"transfer": record("scores/transfer.json"), "cells": cells, "files": files}


def predicted():
    """What the finished run sees in two images: in the program, printed, and written."""
    answers = polyteach.predict("run", PICTURES, out="seen", device="cpu", show=False, progress=False)
    printed = _run(["predict", "run", *PICTURES, "--json", "--device", "cpu"])
    told = _run(["predict", "run", *PICTURES, "--device", "cpu"])
    return {
        "answers": [{k: _values(t) for k, t in one.items()} for one in answers],
        "json": [json.loads(line) for line in printed.splitlines()],
        "text": told.splitlines(),
        "files": sorted(str(f) for f in Path("seen").rglob("*") if f.is_file()),
    }


OUTCOMES = {f.__name__: f for f in (encoded, described, labelled, trained, pretrained, transferred, predicted)}


def versions():
    """What the digests of files hang on beside polyteach, which comes first."""
    others = {"pyarrow": pyarrow.__version__, "webp": features.version("webp"), "zlib": features.version("zlib")}
    return {"polyteach": polyteach.__version__} | others


def copy(folder):
    """`made/` and the teacher's file in a new folder, in which the work is done."""
    shutil.copytree(MADE, folder)
    shutil.copy(HERE / "teacher.py", folder)


def make():
    """`made/` anew."""
    where = Path(tempfile.gettempdir(), "before")  # which the store tells: where what was refused had been
    where.mkdir()
    shutil.copy(HERE / "teacher.py", where)
    with contextlib.chdir(where):
        build()
    (where / "teacher.py").unlink()
    shutil.rmtree(MADE, ignore_errors=True)
    shutil.move(where, MADE)


def note():
    """`outcome.json` anew."""
    found = {"versions": versions()}
    for name, work in OUTCOMES.items():
        with tempfile.TemporaryDirectory() as folder:
            copy(f"{folder}/made")
            with contextlib.chdir(f"{folder}/made"):
                found[name] = json.loads(json.dumps(work()))
    lines = [
        f' "{name}": {{\n' + ",\n".join(f'  "{k}": {json.dumps(v, allow_nan=False)}' for k, v in one.items()) + "\n }"
        for name, one in found.items()
    ]
    OUTCOME.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["COLUMNS"] = "80"
    if sys.argv[1:] and sys.argv[1] != "note":
        sys.exit(main(sys.argv[1:]))
    if not sys.argv[1:]:
        make()
    note()
