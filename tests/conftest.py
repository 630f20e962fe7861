"""Fixtures of several tests, and quiet, deterministic torch."""

import functools
import importlib
import os
import random
import shutil
import tempfile

import pytest
import torch

from polyteach.training import ledger
from polyteach.verbs.train import train
from tests.worlds import options, photographs_in, teacher_in, world


def pytest_collection_modifyitems(items):
    """Modules with slow tests come first: at the end no process is left alone with one of them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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


@pytest.fixture
def one_thread(_same_start):
    """With another number of threads sums have another order; and with one, forks are safe."""
    torch.set_num_threads(1)


@pytest.fixture
def photographs(tmp_path):
    return photographs_in(tmp_path / "photographs")


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """Two: one with depth alone, one with classes and boxes, so that many passes lack an objective."""
    folder = tmp_path_factory.mktemp("stores")
    one = world(folder / "one", 6, tasks=("depth",))
    return [one, world(folder / "two", 6, tasks=("classification", "detection"), first=6)]


@pytest.fixture(scope="session")
def _trained_once(stores, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "PASSES", 1)
        train(stores, out=str(tmp_path_factory.mktemp("once") / "run"), **options(steps=1, ema=0.9))


@pytest.fixture
def ready_forks(_trained_once, one_thread, monkeypatch):
    """Forks that train find imported what a training imports, and count the operations of one pass alone at its end:
    seconds each, which every fork would need."""
    monkeypatch.setattr(ledger, "PASSES", 1)


@pytest.fixture
def verbs(monkeypatch):
    """Calls of the verbs as (name, options): the command line is read as ever, and nothing is done."""
    calls = []
    for name in ("ingest", "train", "pretrain", "label", "transfer", "report"):
        module = importlib.import_module(f"polyteach.verbs.{name}")

        def noted(*args, verb=name, **options):  # a verb may have an option "name"
            calls.append((verb, options))

        monkeypatch.setattr(module, name, functools.wraps(getattr(module, name))(noted))
    return calls


@pytest.fixture
def teacher(tmp_path, request):
    """Of `worlds.TEACHER`, and of MORE of the test's module where it has that."""
    return teacher_in(tmp_path, getattr(request.module, "MORE", ""))
