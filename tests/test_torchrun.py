"""Training by several processes: what they do together is what one does alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from polyteach.__main__ import main
from polyteach.loading.plan import all_images, plan
from polyteach.loading.samples import Samples
from polyteach.loading.transport import batches
from polyteach.loading.views import Augment
from polyteach.store import Store
from polyteach.tasks.contract import Policy
from polyteach.verbs.train import train
from tests.worlds import forked, log_of, options

OPTIONS = [
    "--backbone",
    "test_resnet",
    "--channels",
    "8",
    "--size",
    "64",
    "--batch-size",
    "2",
    "--workers",
    "0",
    "--device",
    "cpu",
    "--no-progress",
    "--save-every",
    "2",
    "--optimizer",
    "sgd",  # AdamW makes much of the smallest differences where a gradient is next to nothing
    "--lr",
    "0.02",
    "--seed",
    "3",
]

pytestmark = pytest.mark.usefixtures("ready_forks")


def until(condition):
    """Waits; what comes next fails where it was in vain."""
    deadline = time.monotonic() + 200
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def start(count, *words, where):
    """torchrun as on the command line: a process of its own, which starts others, all of which import for seconds."""
    command = [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", str(count)]
    return subprocess.Popen(
        [*command, "--max-restarts", "0", "-m", "polyteach", "train", *map(str, words), *OPTIONS],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def ended(process, code=0):
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


class Forks:
    """torchrun's own agent in a fork of this process, and forks of that as its workers.

    All that torchrun does is done, with its agent, its rendezvous and its restarts: but for imports.
    """

    def __init__(self, folder, count, *words, restarts=0, nodes=1, endpoint="localhost:0", name=""):
        folder.mkdir(exist_ok=True)
        self.folder, self.said = folder, folder / "said"
        config = LaunchConfig(
            nodes, nodes, count, DefaultLogsSpecs(str(folder / "logs")), name or uuid.uuid4().hex, rdzv_backend="c10d",
            rdzv_endpoint=endpoint, max_restarts=restarts, start_method="fork",
        )  # fmt: skip
        command = ["train", *map(str, words), *OPTIONS]

        def work():
            (folder / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
            if code := main(command):
                raise SystemExit(code)

        self.pid = forked(lambda: elastic_launch(config, work)() and None, self.said)

    def ended(self, well=True):
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert (status == 0) == well, self.said.read_text()
        return self.said.read_text()

    def kill(self, rank, number=signal.SIGKILL):
        """The worker of that rank, once it has begun."""
        os.kill(int((self.folder / f"pid-{rank}").read_text()), number)


def same(a, b):
    """Logs and weights, but for the order of sums."""
    mine, theirs = log_of(Path(a)), log_of(Path(b))
    assert len(mine) == len(theirs)
    for x, y in zip(mine, theirs, strict=True):
        assert (x["step"], x["images"], sorted(x["losses"])) == (y["step"], y["images"], sorted(y["losses"]))
        for k, loss in x["losses"].items():
            assert loss == pytest.approx(y["losses"][k], rel=2e-3, abs=1e-5), (x["step"], k)
        # which anchors a detector learns from is a choice that rounding can turn: it moves the norm, hardly the loss
        rel = 1e-2 if x["step"] == 1 else 0.1
        assert x["gradient_norm"] == pytest.approx(y["gradient_norm"], rel=rel), x["step"]
    one, two = (load_file(Path(f) / "student.safetensors") for f in (a, b))
    assert set(one) == set(two)
    for k, v in one.items():
        if "running" in k or "num_batches" in k:  # of one pass each, instead of all in turn
            continue
        torch.testing.assert_close(v, two[k], rtol=1e-2, atol=2e-3, msg=k)


def test_the_shares_of_the_processes_are_the_whole_stream(stores):
    samples = Samples(all_images([Store.open(s) for s in stores]), Augment((32, 32)), Policy(), 5)
    whole = [b.ids for b in batches(samples, 3, 0, 12)]
    for size in (1, 2, 3, 4):
        shares = [[b.ids for b in batches(samples, 3, rank, 12, every=size)] for rank in range(size)]
        assert [b for group in zip(*shares, strict=True) for b in group] == whole
    # 12 images in 4 batches: every epoch has each image once, whoever sees it
    for epoch in range(3):
        seen = [i for ids in whole[4 * epoch : 4 * epoch + 4] for i in ids]
        assert sorted(seen) == sorted({i for ids in whole for i in ids})


def taught(stores, count):
    """The objectives that each of the first passes of a run with OPTIONS has a label for."""
    samples = Samples(plan([Store.open(s) for s in stores]), Augment((64, 64)), Policy(), 3)
    return [{k for k, ts in b.targets.items() if any(t is not None for t in ts)} for b in batches(samples, 2, 0, count)]


@pytest.mark.slow
@pytest.mark.parametrize("shard", [(), ("--shard",)])
@pytest.mark.parametrize("more", [(), ("--weights", "learned", "--drop", "0.5", "--ema", "0.9")])
def test_two_processes_are_one(stores, tmp_path, more, shard):
    command = ["train", *stores, "--out", str(tmp_path / "one"), "--steps", "6", "--accumulate", "2", *more, *OPTIONS]
    assert main(command) == 0  # first, so that the forks have imported all
    Forks(tmp_path / "forks", 2, *stores, "--out", tmp_path / "two", "--steps", 6, *more, *shard).ended()
    same(tmp_path / "one", tmp_path / "two")
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert config["options"]["accumulate"] == 2
    passes = taught(stores, 12)
    assert any(passes[i] != passes[i + 1] for i in range(0, 12, 2))  # one process lacks what the other one has
    log = log_of(tmp_path / "two")
    assert [set(x["losses"]) for x in log] == [passes[i] | passes[i + 1] for i in range(0, 12, 2)]


@pytest.mark.slow
def test_two_nodes_are_one(stores, tmp_path):
    """A torchrun on each of two machines, which are this one: one by its command line, and one in a fork."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    endpoint = f"127.0.0.1:{port}"
    where = ("--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "7")
    words = (*stores, "--out", tmp_path / "two", "--steps", 4)
    node = start(1, *words, where=where)
    fork = Forks(tmp_path / "fork", 1, *words, nodes=2, endpoint=endpoint, name="7")
    ended(node)
    fork.ended()
    assert main(["train", *stores, "--out", str(tmp_path / "one"), "--steps", "4", "--accumulate", "2", *OPTIONS]) == 0
    same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(stores, tmp_path):
    """Two processes, told to stop; then one; then two again."""
    words = (*stores, "--out", tmp_path / "run", "--steps", 20)
    forks = Forks(tmp_path / "forks", 2, *words)
    log = tmp_path / "run" / "log.jsonl"
    until(lambda: log.exists() and len(log.read_text().splitlines()) >= 4)
    os.kill(forks.pid, signal.SIGTERM)
    said = forks.ended(well=False)
    kept = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    done = int(kept[-1].name.removeprefix("step-"))
    assert 4 <= done < 20, said
    assert not (tmp_path / "run" / "train.json").exists()
    Forks(tmp_path / "forks", 1, *words).ended()  # takes the number of passes from the run
    command = ["train", *stores, "--out", str(tmp_path / "one"), "--steps", "20", "--accumulate", "2", *OPTIONS]
    assert main(command) == 0
    mine, theirs = log_of(tmp_path / "run"), log_of(tmp_path / "one")
    assert [x["step"] for x in mine] == list(range(1, 21))
    assert [x["images"] for x in mine] == [x["images"] for x in theirs]
    first, last = (
        np.array([[x["loss"] for x in y[part]] for y in (mine, theirs)]) for part in (slice(5), slice(-5, 20))
    )
    assert np.allclose(first[0], first[1], rtol=5e-3)
    assert np.allclose(last[0], last[1], rtol=0.1)  # a discrete choice of regions may differ after a while


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_it_goes_on(stores, tmp_path):
    words = (*stores, "--out", tmp_path / "run", "--steps", 12)
    forks = Forks(tmp_path / "forks", 2, *words)
    checkpoints = tmp_path / "run" / "checkpoints"
    until(lambda: list(checkpoints.glob("step-*")))
    forks.kill(1)
    forks.ended(well=False)
    Forks(tmp_path / "forks", 2, *words).ended()
    assert [x["step"] for x in log_of(tmp_path / "run")] == list(range(1, 13))
    undisturbed = tmp_path / "undisturbed"
    Forks(tmp_path / "forks", 2, *stores, "--out", undisturbed, "--steps", 12).ended()
    assert log_of(tmp_path / "run") == log_of(undisturbed)
    files = [(f / "student.safetensors").read_bytes() for f in (tmp_path / "run", undisturbed)]
    assert files[0] == files[1]


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "more"), [(0, ()), (1, ("--shard",))])
def test_a_killed_process_is_started_again_and_the_run_finishes_by_itself(stores, tmp_path, rank, more):
    words = (*stores, "--steps", 10, "--ema", "0.9", *more)
    forks = Forks(tmp_path / "forks", 2, *words, "--out", tmp_path / "run", restarts=1)
    checkpoints = tmp_path / "run" / "checkpoints"
    until(lambda: list(checkpoints.glob("step-*")))
    forks.kill(rank)
    assert not (tmp_path / "run" / "train.json").exists()
    forks.ended()
    Forks(tmp_path / "forks", 2, *words, "--out", tmp_path / "undisturbed").ended()
    assert [x["step"] for x in log_of(tmp_path / "run")] == list(range(1, 11))
    assert log_of(tmp_path / "run") == log_of(tmp_path / "undisturbed")
    files = [(tmp_path / f / "student.safetensors").read_bytes() for f in ("run", "undisturbed")]
    assert files[0] == files[1]
    assert not list(checkpoints.glob(".*.tmp"))


def test_what_cannot_be_shared_is_refused(stores, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="accumulate: 4 forward passes per step cannot be shared by 3 processes"):
        train(stores, out=str(tmp_path / "run"), **options(accumulate=4))
    assert not (tmp_path / "run").exists()
    assert main(["label", str(stores[0])]) == 2
    assert "polyteach label: is one process's work; start it without torchrun" in capsys.readouterr().err
