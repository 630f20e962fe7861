"""Stores, a teacher, options and runs that the tests of several modules share, and forks to do work in."""

import io
import json
import os
import signal
import sys
import traceback
import warnings

import numpy as np
import torch
from PIL import Image

from polyteach.ground.scene import random_scene, render
from polyteach.store import ImageRow, Store
from polyteach.tasks import all_tasks, load_task
from polyteach.tasks.contract import Space

NAMES = ("red", "green", "blue")

# ---- stores ----


def png(pixels):
    """An image as PNG bytes; pixels (3, H, W) uint8."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).save(out, format="PNG")
    return out.getvalue()


def rows_of(images, first=0, split=lambda i: None, prefix=""):
    """A row for each image of pixels (3, H, W), named by its number, from `first` on. split: of a number."""
    return [
        ImageRow(f"{prefix}{i}", *image.shape[1:], png(image), split=split(i)) for i, image in enumerate(images, first)
    ]


def store_of(path, images, part_size=4):
    """A store of images without labels; images: pixels (3, H, W), or rows."""
    store = Store.create(path, part_size)
    rows = images if isinstance(next(iter(images), None), ImageRow) else rows_of(images)
    for part, start in enumerate(range(0, len(rows), part_size)):
        store.write_images(part, rows[start : start + part_size])
    return store


def photographs_in(folder):
    """A new folder of six small rendered pictures of different shapes."""
    folder.mkdir()
    for i in range(6):
        size = [(48, 64), (64, 48), (40, 40)][i % 3]
        (folder / f"{i}.png").write_bytes(png(render(random_scene(i, size)).image))
    return folder


def noise(count, size=(24, 24), seed=0, low=0, high=256):
    """Images of random pixels."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(low, high, (3, *size), generator=draw, dtype=torch.uint8) for _ in range(count)]


TRAINED = {"learning_rate": 0.1, "batch_size": 32, "optimizer": "sgd"}
INFO = {"teacher": {"spec": "x:y", "licence": "CC0"} | TRAINED}


def seen_tasks():
    """Names of the tasks to which a rendered scene has an exact answer."""
    return [name for name in all_tasks() if load_task(name).has_truth]


def answer_to(task, seen, space):
    """The exact answer to a rendered scene; of a task that has none, what a head of random weights says."""
    if task.has_truth:
        return task.truth(seen, space)
    sides = {f"p{k}": [-(-s // 2**k) for s in seen.image.shape[1:]] for k in range(2, 8)}
    sides["c5"] = sides["p5"]
    with torch.random.fork_rng():
        torch.manual_seed(int(seen.image.sum()))
        head = task.head(dict.fromkeys(sides, 8), space).eval()
        return task.decode(head({k: torch.randn(1, 8, *s) for k, s in sides.items()}))[0]


def world(path, count=8, tasks=None, size=(48, 64), first=0, info=INFO, name="oracle"):
    """A store of rendered scenes with exact labels of every task; its path."""
    renders = [render(random_scene(first + i, size)) for i in range(count)]
    store = store_of(path, rows_of([r.image for r in renders], first))
    label_truly(store, renders, tasks, name, info)
    return str(path)


def label_truly(store, renders, tasks=None, name="oracle", info=INFO, kind=lambda task: task.kinds[0]):
    """Exact labels of a store's images, of which `renders` are what the camera sees. kind: of a task, of its space."""
    for task in map(load_task, seen_tasks() if tasks is None else tasks):
        space = Space(NAMES, kind(task))
        labels = store.create_set(task.name, name, space, info)
        for part in store.parts():
            mine = renders[store.part_size * part : store.part_size * (part + 1)]
            labels.write(part, store.ids(part), [task.truth(r, space) for r in mine])


def answers_of(store, name):
    """All answers of a label set, in the order of the images."""
    (found,) = [s for s in store.sets() if s.name == name]
    return [a for p in found.parts() for a in found.read(p)]


# ---- runs ----


SMALL = {
    "backbone": "test_resnet",
    "channels": 8,
    "batch_size": 4,
    "workers": 0,
    "device": "cpu",
    "progress": False,
}
"""Options of every training that takes a second."""


def options(**more):
    """Of such a training that saves on its way."""
    return SMALL | {"size": 64, "steps": 6, "save_every": 2} | more


def weights_of(run):
    return (run / "student.safetensors").read_bytes()


def log_of(run):
    """The log without its timings."""
    lines = [json.loads(x) for x in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in x.items() if k not in ("seconds", "images_per_second")} for x in lines]


# ---- processes ----


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


def apart(work, said):
    """The status with which a fork that does `work` ends, and what it said: for peaks of memory, limits and exits.

    said: a file that is not there yet.
    """
    status = os.waitstatus_to_exitcode(os.waitpid(forked(work, said), 0)[1])
    return status, said.read_text()


# ---- a teacher ----


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


def teacher_in(folder, more=""):
    """`python:FILE:` of a file with TEACHER and `more`; a function's name comes after it."""
    file = folder / "my_teacher.py"
    file.write_text(TEACHER + more)
    return f"python:{file}:"
