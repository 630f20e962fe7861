"""What several tests share: a rendered store, and quiet, deterministic torch."""

import functools
import importlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from polyteach.scene import random_scene, render


@pytest.fixture(autouse=True, scope="session")
def _nothing_left_behind(tmp_path_factory):
    """Temporary files of what tests start and kill, such as torchrun's logs, end with the session."""
    tmp_path_factory.getbasetemp()  # pytest keeps its own, of failed tests too
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    folder = tempfile.mkdtemp(prefix="pt")  # short: names of sockets have at most 107 characters
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    yield
    tempfile.tempdir = before[1]
    if before[0] is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = before[0]
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _same_start():
    """Every test starts from the same state, in any order, and leaves torch's settings as they were."""
    torch.manual_seed(0)
    random.seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def png(pixels: torch.Tensor) -> bytes:
    """An image as PNG bytes; pixels (3, H, W) uint8."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).save(out, format="PNG")
    return out.getvalue()


def forked(work, said=os.devnull):
    """The process id of a fork that does `work`, with one thread: a new process would import for seconds.

    It ends with the number that `work` returns, else with 0; with 1 after an error, 130 when interrupted. What it says
    goes to the end of the file `said`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which wait here
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)  # threads do not live on in a fork
        signal.signal(signal.SIGINT, signal.default_int_handler)
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        # not those of pytest, which captures them
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
        code = int(answer) if isinstance(answer := work(), int) else 0
    except KeyboardInterrupt as e:
        print(e, file=sys.stderr)
        code = 130
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture
def photographs(tmp_path):
    """A folder of six small rendered pictures of different shapes."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(6):
        size = [(48, 64), (64, 48), (40, 40)][i % 3]
        (folder / f"{i}.png").write_bytes(png(render(random_scene(i, size)).image))
    return folder


@pytest.fixture
def verbs(monkeypatch):
    """Calls of the verbs as (name, options): the command line is read as ever, and nothing is done."""
    calls = []
    for name in ("ingest", "train", "pretrain", "label", "transfer", "report"):
        module = importlib.import_module(f"polyteach.{name}")

        def noted(*args, verb=name, **options):  # a verb may have an option "name"
            calls.append((verb, options))

        monkeypatch.setattr(module, name, functools.wraps(getattr(module, name))(noted))
    return calls


TEACHER = '''
import os, time
import torch
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space
from polyteach.teachers import Teacher

class Mean(Teacher):
    """Classes by the mean colour; slow on purpose where asked."""
    objectives = {"classification": Objective("classification", Space(("red", "green", "blue")))}
    calls = 0
    def __call__(self, images):
        time.sleep(float(os.environ.get("SLOW", 0)))
        Mean.calls += 1
        means = torch.stack([i.float().mean((1, 2)) for i in images])
        return [{"classification": ClassificationTarget(probability=p)} for p in (means / 20).softmax(-1)]

class Odd(Mean):
    """Answers badly for dark images."""
    bad = "nan"
    def __call__(self, images):
        out = super().__call__(images)
        for image, answer in zip(images, out):
            if image.float().mean() < 50:
                p = answer["classification"].probability
                if self.bad == "nan":
                    p = p * float("nan")
                elif self.bad == "size":
                    p = torch.cat([p, p]) / 2
                elif self.bad == "raise":
                    raise RuntimeError("no dark images")
                answer["classification"] = ClassificationTarget(probability=p)
        return out

class Greedy(Mean):
    """Has memory for three images."""
    def __call__(self, images):
        if len(images) > 3:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")
        return super().__call__(images)

def greedy(device, precision): return Greedy()
def mean(device, precision): return Mean()
def nan(device, precision): return Odd()
def size(device, precision):
    t = Odd(); t.bad = "size"; return t
def crash(device, precision):
    t = Odd(); t.bad = "raise"; return t
'''
"""Teachers for `python:FILE:NAME`."""


@pytest.fixture
def teacher(tmp_path, request):
    """`python:FILE:` of a file with TEACHER, and MORE of the test's module where it has that; a name comes after it."""
    file = tmp_path / "my_teacher.py"
    file.write_text(TEACHER + getattr(request.module, "MORE", ""))
    return f"python:{file}:"
