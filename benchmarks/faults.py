"""Faults injected into real runs: `python benchmarks/faults.py [--quick] [--only NAME ...] [--seed 0]`.

Every fault is injected at random moments into runs that are started again, with the same command, until they finish.
What they leave is compared with what an undisturbed run left: images that lack their label (lost), images that are
there twice (duplicates), and bytes of labels or weights that differ. All three should be 0. Prints a table, writes
results/faults.json; with --only, the rows of other faults stay in it as they were, with their dates. `--quick` injects
five of each fault instead of fifty.

A fault that cannot be injected here (a full disk needs root, killed workers need Ray) is listed as such.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from harness import RESULTS, machine, scratch
from objects import KINDS, server
from worlds import png

from polyteach.curation.check import faults as faults_of
from polyteach.ground.files import write_json
from polyteach.ground.scene import random_scene, render
from polyteach.ground.storage import requests, to_path
from polyteach.store import ImageRow, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Space
from polyteach.verbs.label import label
from polyteach.verbs.store.repair import repair
from polyteach.verbs.train import train

IMAGES, PART, SIZE = 48, 4, 64
TEACHER = '''
import os, time
import torch
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import Objective, Space
from polyteach.teachers import Teacher

class Slow(Teacher):
    """Classes by the mean colour. The environment says what is wrong with it today."""
    objectives = {"classification": Objective("classification", Space(("red", "green", "blue")))}
    def __call__(self, images):
        most = int(os.environ.get("FAULTS_MEMORY", 0))
        if most and len(images) > most:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")
        flag = os.environ.get("FAULTS_HANG")
        if flag and not os.path.exists(flag):
            open(flag, "w").close()
            time.sleep(600)
        time.sleep(0.01)
        means = torch.stack([i.float().mean((1, 2)) for i in images])
        return [{"classification": ClassificationTarget(probability=p)} for p in (means / 20).softmax(-1)]

def slow(device, precision): return Slow()
'''


@dataclass(frozen=True)
class Row:
    """One fault. injected: times. runs: that were hit, and finished in the end. The next three should be 0."""

    fault: str
    injected: int
    runs: int
    finished: int
    lost: int
    duplicates: int
    differ: int
    date: str = ""


class Missing(Exception):
    """The fault cannot be injected on this machine."""


# ---- what is done, and what it leaves ----


class Bench:
    """A folder with pictures, a teacher, and what undisturbed runs left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "teacher.py").write_text(TEACHER)
        self.pictures = folder / "pictures"
        store = Store.create(self.pictures, PART)
        scenes = [render(random_scene(i, (SIZE, SIZE))) for i in range(IMAGES)]
        sets = {}
        for name in ("classification", "depth"):
            space = Space(("red", "green", "blue"), load_task(name).kinds[0])
            sets[name] = store.create_set(name, "people", space, {})
        for part, start in enumerate(range(0, IMAGES, PART)):
            some = scenes[start : start + PART]
            rows = [ImageRow(f"{start + i}", SIZE, SIZE, png(s.image)) for i, s in enumerate(some)]
            store.write_images(part, rows)
            for name, labels in sets.items():
                labels.write(part, [r.id for r in rows], [load_task(name).truth(s, labels.space) for s in some])
        self.reference = self.copy("reference")
        self.weights = folder / "weights"
        # as all others, in children with one thread: weights depend on the number of threads
        assert ended(forked(lambda: self.label(self.reference)))
        assert ended(forked(lambda: self.train(self.weights)))

    def copy(self, name: str) -> Path:
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.pictures, target)
        return target

    def label(self, store: Path | str, **more: Any) -> None:
        teachers = {"t": f"python:{self.folder / 'teacher.py'}:slow"}
        label(str(store), teachers=teachers, device=("cpu",), batch_size=4, progress=False, **more)

    def train(self, out: Path, store: str = "") -> None:
        train(
            [store or str(self.pictures)], out=str(out), backbone="test_resnet", channels=8, size=SIZE, batch_size=2,
            steps=30, workers=0, device="cpu", progress=False, save_every=3, optimizer="adamw", lr=1e-3,
        )  # fmt: skip

    def labels_left(self, store: Path | str) -> tuple[int, int, int]:
        """Images lost, images twice, bytes that differ from the reference."""
        [mine] = [s for s in Store.open(store).sets() if s.name == "t"]
        [whole] = [s for s in Store.open(self.reference).sets() if s.name == "t"]
        labelled: Counter[str] = Counter()
        for part in mine.parts():
            labelled.update(i for i, s in zip(mine.ids(part), mine.states(part), strict=True) if s == "labelled")
        wanted = {i for p in whole.parts() for i in whole.ids(p)}
        twice = sum(n - 1 for n in labelled.values())
        differ = sum(different(mine.path / f.name, f) for f in sorted(whole.path.glob("part-*.parquet")))
        return len(wanted - set(labelled)), twice, differ

    def training_left(self, run: Path) -> tuple[int, int, int]:
        """Images of steps that the log lacks, of steps that it has twice, bytes of weights that differ."""
        mine, whole = ([json.loads(x) for x in (r / "log.jsonl").read_text().splitlines()] for r in (run, self.weights))
        seen = Counter(x["step"] for x in mine)
        lost = sum(x["images"] for x in whole if x["step"] not in seen)
        twice = sum(x["images"] * (seen[x["step"]] - 1) for x in whole if x["step"] in seen)
        return lost, twice, different(run / "student.safetensors", self.weights / "student.safetensors")


def different(a: Any, b: Path) -> int:
    """Bytes in which two files differ; all of the second where there is no first one."""
    if not a.exists():
        return b.stat().st_size
    one, two = a.read_bytes(), b.read_bytes()
    return abs(len(one) - len(two)) + sum(x != y for x, y in zip(one, two, strict=False))


# ---- how it is disturbed ----


class Fork:
    """A child of this process, with what is used here of Popen's."""

    def __init__(self, pid: int) -> None:
        self.pid, self._code = pid, None

    def poll(self) -> int | None:
        if self._code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if done else None
        return self._code

    def wait(self, within: float = 600) -> int:
        deadline = time.monotonic() + within
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(0.005)
        return code

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def forked(work: Callable[[], Any]) -> Fork:
    """A silent child that does `work`, in a group of its own; it ends with 0 if that went well."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads, which wait here
        pid = os.fork()
    if pid:
        return Fork(pid)
    code = 1
    try:
        os.setpgid(0, 0)
        torch.set_num_threads(1)  # the threads of OpenMP do not live on in a fork
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        work()
        code = 0
    except BaseException as e:
        with contextlib.suppress(OSError):
            Path(os.environ.get("FAULTS_SAID", os.devnull)).write_text(f"{type(e).__name__}: {e}")
    finally:
        os._exit(code)


def ended(process: Fork) -> bool:
    """Wait for a child; whether it succeeded."""
    return process.wait() == 0


def kill(process: Any) -> bool:
    """The whole process."""
    process.kill()
    return True


def killed(
    draw: random.Random,
    times: int,
    fresh: Callable[[int], Path],
    start: Callable[[Path], Any],
    left: Callable[[Path], tuple[int, int, int]],
    spared: float = 0.0,
    strike: Callable[[Any], bool] = kill,
    unable: type[Exception] = AssertionError,
) -> Row:
    """Strike a process at a random moment of its run, start it again, and so on until it has finished; and the next.

    start: a process, as a Popen, that works on a folder of `fresh`. spared: share of a run, at its start, in which
    nothing is struck. strike: whether it found something to kill. unable: raised where a run that is let alone fails.
    """
    began = time.monotonic()
    if start(fresh(0)).wait() != 0:
        raise unable("what is to be killed does not run here")
    whole = time.monotonic() - began
    injected = runs = finished = 0
    sums = (0, 0, 0)
    while injected < times:
        target, runs = fresh(runs + 1), runs + 1
        while True:
            process = start(target)
            if injected < times:  # else the last run is let alone
                time.sleep(draw.uniform(spared * whole, whole))
            if injected == times or process.poll() is not None or not strike(process):
                finished += process.wait() == 0
                break
            injected += 1
            process.wait()
            if (target / "train.json").exists():  # written last: it was over already, and will not be done again
                finished += 1
                break
        sums = added(sums, left(target))
    return Row("", injected, runs, finished, *sums)


def added(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def label_killed(bench: Bench, draw: random.Random, times: int) -> Row:
    """SIGKILL of `label`"""
    return killed(
        draw, times, lambda n: bench.copy(f"killed-{n}"), lambda to: forked(lambda: bench.label(to)), bench.labels_left
    )


def train_killed(bench: Bench, draw: random.Random, times: int) -> Row:
    """SIGKILL of `train`"""

    def fresh(n: int) -> Path:
        return bench.folder / f"trained-{n}"

    return killed(draw, times, fresh, lambda to: forked(lambda: bench.train(to)), bench.training_left)


def rank_killed(bench: Bench, draw: random.Random, times: int) -> Row:
    """SIGKILL of a process of `torchrun ... train`"""
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "polyteach"),
        *("train", str(bench.pictures), "--backbone", "test_resnet", "--channels", "8", "--size", str(SIZE)),
        *("--batch-size", "2", "--steps", "30", "--workers", "0", "--device", "cpu", "--no-progress"),
        *("--save-every", "3", "--optimizer", "adamw", "--lr", "0.001"),
    ]

    def start(out: Path) -> subprocess.Popen[bytes]:
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([*words, "--out", str(out)], env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet)

    def strike(process: subprocess.Popen[bytes]) -> bool:
        below = children(process.pid)
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(draw.choice(below), signal.SIGKILL)
            return True
        return False

    mine, bench.weights = bench.weights, bench.folder / "ranks-0"
    try:  # in the first third of a run the processes are not there yet
        return killed(
            draw, times, lambda n: bench.folder / f"ranks-{n}", start, bench.training_left, 1 / 3, strike, Missing
        )
    finally:
        bench.weights = mine


def children(pid: int) -> list[int]:
    """Process ids of the direct children."""
    said = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(x) for x in said.stdout.split()]


@contextlib.contextmanager
def ray_here() -> Iterator[str]:
    """The address of a Ray of two workers, in a folder with a short name."""
    try:
        import ray
    except ImportError as e:
        raise Missing("needs Ray") from e
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    folder = tempfile.mkdtemp(prefix="r")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False}
    names = {k: v for k, v in os.environ.items() if k.startswith("FAULTS_")}
    here = ray.init(
        num_cpus=2, object_store_memory=80_000_000, _temp_dir=folder, runtime_env={"env_vars": names}, **quiet
    )
    try:
        yield here.address_info["gcs_address"]
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def driver_killed(bench: Bench, draw: random.Random, times: int) -> Row:
    """SIGKILL of the driver of `label --ray`, whose cluster lives on"""
    with ray_here() as address:
        teacher = f"t=python:{bench.folder / 'teacher.py'}:slow"
        rest = ["--device", "cpu", "--batch-size", "4", "--no-progress", "--ray", address, "--ray-workers", "2"]

        def start(store: Path) -> subprocess.Popen[bytes]:
            words = [sys.executable, "-m", "polyteach", "label", str(store), "--teacher", teacher, *rest]
            return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        # in the first third of a run it has not begun
        return killed(draw, times, lambda n: bench.copy(f"driver-{n}"), start, bench.labels_left, 1 / 3)


def worker_killed(bench: Bench, draw: random.Random, times: int) -> Row:
    """SIGKILL of a worker of `label --ray`"""
    injected = runs = finished = 0
    sums = (0, 0, 0)
    with ray_here():
        while injected < times:
            runs += 1
            store = bench.copy(f"ray-{runs}")
            stop = threading.Event()
            hits: list[int] = []

            def strike(stop: threading.Event = stop, hits: list[int] = hits, most: int = times - injected) -> None:
                while not stop.wait(draw.uniform(0.2, 1.5)):
                    if len(hits) < most and (pids := actors()):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(draw.choice(pids), signal.SIGKILL)
                            hits.append(1)

            thread = threading.Thread(target=strike, daemon=True)
            thread.start()
            try:
                bench.label(store, ray="local", ray_workers=2, ray_tries=1000)
                finished += 1
            finally:
                stop.set()
                thread.join()
            injected += len(hits)
            sums = added(sums, bench.labels_left(store))
    return Row("", injected, runs, finished, *sums)


def actors() -> list[int]:
    """Process ids of Ray's workers that hold teachers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::_Worker"):
                found.append(int(path.parent.name))
    return found


def worker_hangs(bench: Bench, draw: random.Random, times: int) -> Row:
    """a teacher that hangs, in `label --ray`"""
    flag = bench.folder / "hangs-now"

    def once() -> tuple[bool, tuple[int, int, int]]:
        flag.unlink(missing_ok=True)
        store = bench.copy("hung")
        bench.label(store, ray="local", ray_workers=2, ray_timeout=5)
        return flag.exists(), bench.labels_left(store)

    os.environ["FAULTS_HANG"] = str(flag)
    try:
        with ray_here():
            return repeated(times, once)
    finally:
        del os.environ["FAULTS_HANG"]


def repeated(times: int, once: Callable[[], tuple[bool, tuple[int, int, int]]]) -> Row:
    """One fault a run; once: whether it finished, and what it left."""
    said = [once() for _ in range(times)]
    sums = (0, 0, 0)
    for _, left in said:
        sums = added(sums, left)
    return Row("", times, times, sum(fine for fine, _ in said), *sums)


def memory(bench: Bench, draw: random.Random, times: int) -> Row:
    """a teacher whose memory is not enough for a batch"""

    def once() -> tuple[bool, tuple[int, int, int]]:
        os.environ["FAULTS_MEMORY"] = str(draw.randint(1, 3))
        store = bench.copy("memory")
        fine = ended(forked(lambda: bench.label(store)))
        del os.environ["FAULTS_MEMORY"]
        return fine, bench.labels_left(store)

    return repeated(times, once)


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of that size."""
    folder = Path(tempfile.mkdtemp(prefix="disk"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        raise Missing("needs root, to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def filled(
    folder: Path, draw: random.Random, times: int, fresh: Callable[[Path], Any], work: Callable[[], Any],
    left: Callable[[], tuple[int, int, int]], need: int,
) -> Row:  # fmt: skip
    """Let `work` run on a disk that gets full at a random moment, then with room again. need: bytes that it writes."""
    finished = injected = runs = 0
    sums = (0, 0, 0)
    said = Path(tempfile.gettempdir()) / f"said-{os.getpid()}"
    os.environ["FAULTS_SAID"] = str(said)
    while injected < times:
        fresh(folder)
        runs += 1
        said.unlink(missing_ok=True)
        ballast = folder / "ballast"
        room = shutil.disk_usage(folder).free - int(draw.uniform(0, need))
        with open(ballast, "wb") as f:
            for _ in range(room // 4096):
                f.write(b"\0" * 4096)
        if not ended(forked(work)):
            injected += 1
            if "No space left on device" not in said.read_text():
                raise AssertionError(f"a full disk was reported as {said.read_text()!r}")
        ballast.unlink()
        finished += ended(forked(work))
        sums = added(sums, left())
    del os.environ["FAULTS_SAID"]
    said.unlink(missing_ok=True)
    return Row("", injected, runs, finished, *sums)


def label_full(bench: Bench, draw: random.Random, times: int) -> Row:
    """a disk that fills up under `label`"""
    with small_disk(8) as disk:
        store = disk / "store"

        def fresh(folder: Path) -> None:
            shutil.rmtree(store, ignore_errors=True)
            shutil.copytree(bench.pictures, store)

        def left() -> tuple[int, int, int]:
            return bench.labels_left(store)

        return filled(disk, draw, times, fresh, lambda: bench.label(store), left, 12 * 8192)


def train_full(bench: Bench, draw: random.Random, times: int) -> Row:
    """a disk that fills up under `train`"""
    with small_disk(64) as disk:
        run = disk / "run"
        size = sum(f.stat().st_size for f in bench.weights.rglob("*") if f.is_file())

        def left() -> tuple[int, int, int]:
            return bench.training_left(run)

        def fresh(folder: Path) -> None:
            shutil.rmtree(run, ignore_errors=True)

        return filled(disk, draw, times, fresh, lambda: bench.train(run), left, size)


def rotten(bench: Bench, draw: random.Random, times: int) -> Row:
    """a bit of a part of labels that flips: found by `store check`, taken out by `store repair`, labelled again"""

    def once() -> tuple[bool, tuple[int, int, int]]:
        store = bench.folder / "rotten"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(bench.reference, store)
        [labels] = [s for s in Store.open(store).sets() if s.name == "t"]
        file = draw.choice(sorted(labels.path.glob("part-*.parquet")))
        rotted = bytearray(file.read_bytes())
        bit = draw.randrange(8 * len(rotted))
        rotted[bit // 8] ^= 1 << bit % 8
        file.write_bytes(rotted)
        if not list(faults_of(Store.open(store))):  # not found: then nothing that is read may have changed
            return True, as_read(store, bench.reference)
        ended(forked(lambda: repair(str(store), progress=False)))
        return ended(forked(lambda: bench.label(store, retry=True))), bench.labels_left(store)

    return repeated(times, once)


def as_read(store: Path, reference: Path) -> tuple[int, int, int]:
    """As `labels_left`, of what is read instead of the files' bytes."""
    mine, whole = (next(s for s in Store.open(p).sets() if s.name == "t") for p in (store, reference))
    lost = differ = 0
    for part in whole.parts():
        lost += len(set(whole.ids(part)) - set(mine.ids(part)))
        for a, b in zip(mine.read(part), whole.read(part), strict=True):
            differ += int((a.probability != b.probability).sum())  # type: ignore[union-attr]
    return lost, 0, differ


def together(bench: Bench, draw: random.Random, times: int) -> Row:
    """two `label` runs on one store at once"""

    def once() -> tuple[bool, tuple[int, int, int]]:
        store = bench.copy("together")
        first = forked(lambda: bench.label(store))
        time.sleep(draw.uniform(0, 0.3))
        second = forked(lambda: bench.label(store))
        both = [ended(first), ended(second)]
        return all(both), bench.labels_left(store)

    return repeated(times, once)


def skewed(bench: Bench, draw: random.Random, times: int) -> Row:
    """a clock that jumps by up to a day, and files from the future, with a kill"""

    def once() -> tuple[bool, tuple[int, int, int]]:
        store, seed = bench.copy("skewed"), draw.random()

        def work() -> None:
            jump, real = random.Random(seed), time.time
            time.time = lambda: real() + jump.uniform(-86400, 86400)  # type: ignore[assignment]
            bench.label(store)

        process = forked(work)
        time.sleep(draw.uniform(0, 0.5))
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        for file in store.rglob("*"):
            when = time.time() + draw.uniform(-86400, 86400)
            os.utime(file, (when, when))
        return ended(forked(work)), bench.labels_left(store)

    return repeated(times, once)


def storms(bench: Bench, draw: random.Random, times: int) -> Row:
    """object storage that answers late, wrongly, in part or not at all, under `label` and `train`"""
    try:
        import moto.server  # noqa: F401
        from s3fs import S3FileSystem
    except ImportError as e:
        raise Missing("needs s3fs and moto") from e
    injected, runs = Counter[str](), 0
    sums = (0, 0, 0)
    with (
        server() as layer,
        mock.patch.object(S3FileSystem, "_call_s3", layer.impatient(S3FileSystem._call_s3)),
        mock.patch.object(requests, "WAIT", (0.001, 0.01)),  # between two tries: a storm passes sooner here
        mock.patch.dict(os.environ, {"POLYTEACH_CACHE_GB": "0.1"}),
    ):
        requests.client_of("s3://").mkdir("bucket")
        while min(injected[k] for k in KINDS) < times:
            runs += 1
            url, out = f"s3://bucket/{runs}", bench.folder / f"stormy-{runs}"
            os.environ["POLYTEACH_CACHE"] = str(bench.folder / f"cache-{runs}")
            for file in (f for f in bench.pictures.rglob("*") if f.is_file()):
                (to_path(url) / str(file.relative_to(bench.pictures))).put(file)
            layer.reset(left=10**9, seed=draw.randrange(10**9), often=0.1)
            bench.label(url)
            bench.train(out, url)
            injected.update(layer.injected)
            layer.reset()
            sums = added(sums, added(bench.labels_left(url), bench.training_left(out)))
    return Row("", sum(injected.values()), runs, runs, *sums)


ALL = (
    label_killed, train_killed, rank_killed, driver_killed, worker_killed, worker_hangs, memory, label_full, train_full,
    rotten, together, skewed, storms,
)  # fmt: skip


def table(rows: list[Row], missing: dict[str, str]) -> str:
    """Markdown."""
    lines = [
        "| fault | injected | runs | finished | images lost | duplicates | bytes that differ |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r.fault} | {r.injected} | {r.runs} | {r.finished} | {r.lost} | {r.duplicates} | {r.differ} |" for r in rows
    ]
    lines += [f"| {fault} | not injected: {why} | | | | | |" for fault, why in missing.items()]
    return "\n".join(lines)


def main() -> int:
    """The command; 1 where anything was lost, doubled or changed, or a run did not finish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="five of each instead of fifty")
    parser.add_argument("--times", type=int, help="of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=[f.__name__ for f in ALL], help="these alone")
    given = parser.parse_args()
    times = given.times or (5 if given.quick else 50)
    torch.set_num_threads(1)  # children are forks of this process
    file = RESULTS / "faults.json"
    before = json.loads(file.read_text())["rows"] if given.only and file.exists() else []
    kept = {r["fault"]: Row(**r) for r in before}
    names = {f: " ".join((f.__doc__ or "").split()) for f in ALL}
    missing: dict[str, str] = {}
    bad = False
    with (
        scratch() as folder,
        open(os.devnull, "w") as null,
        contextlib.redirect_stderr(null),  # what `label` and `train` say of themselves
    ):
        bench = Bench(folder)
        for fault, name in names.items():
            if given.only and fault.__name__ not in given.only:
                continue
            began = time.monotonic()
            try:
                r = fault(bench, random.Random(f"{given.seed}-{fault.__name__}"), times)
                kept[name] = Row(**(asdict(r) | {"fault": name, "date": time.strftime("%Y-%m-%d")}))
                bad |= bool(r.lost or r.duplicates or r.differ or r.finished < r.runs)
            except Missing as e:
                missing[name] = str(e)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.__stderr__, flush=True)
            rows = [kept[n] for n in names.values() if n in kept]
            about = {"machine": machine(), "seed": given.seed, "rows": [asdict(r) for r in rows], "missing": missing}
            write_json(file, about)  # at once: all of them take hours
    print(table(rows, missing))
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
