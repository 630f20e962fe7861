"""Runs the corpus of hostile and broken inputs (`hostile_cases.py`) against the verbs, and writes its table.

    python -m tests.hostile                        all of it, for its own sake: what is wrong is printed
    python -m tests.hostile --only uri --jobs 2    cases whose name holds that text, two at a time
    python -m tests.hostile --list
    python -m tests.hostile --save after           what was found, into docs/evidence/hostile.json
    python -m tests.hostile --table                write docs/evidence/hostile.md from docs/evidence/hostile.json

Every run is a verb's command line in a process of its own, forked from one that has imported everything, with a folder,
a home and a folder for temporary files of its own. Looked at afterwards:

- what it says and its exit status: no traceback, no signal, no control characters, no advice to load pickles;
- a snapshot of all files around, so that a change outside of the folder that was given is seen;
- a file that only a payload makes, and the requests that a server on 127.0.0.1 has noted;
- a secret that lies outside, and must not turn up in what was written or said;
- the most memory that it held, above what it had when it began, and the seconds that it took;
- how many of the good images are still there, and whether what is at fault is named.
"""

import argparse
import contextlib
import gc
import hashlib
import http.server
import importlib
import inspect
import json
import mmap
import os
import pkgutil
import re
import resource
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import polyteach
from polyteach.__main__ import main as call
from polyteach.verbs.label import label
from tests import hostile_cases as corpus
from tests.hostile_cases import Case, Place, Run

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "docs" / "evidence" / "hostile.json"
TABLE = ROOT / "docs" / "evidence" / "hostile.md"
GB = 1 << 30
ABOVE = 1.5 * GB
"""Memory that a run may hold above what its verb does with good input."""
STOPPED = 2.5 * GB
"""A run that holds more above its verb's own is killed: others share the machine."""
WALL = 8 * GB
"""Address space above what the process began with: beyond it allocations fail, as they would on a small machine."""
SECONDS = 20.0
"""Longest that a run may take; good input takes one or two."""
_PRELOADED = (
    "timm", "tyro", "typeguard", "tyro._backends._tyro_backend", "rich", "fsspec", "fsspec.implementations.local",
    "yaml", "h5py", "aiohttp", "onnx", "onnxruntime", "pandas", "pyarrow.pandas_compat", "pyarrow.csv",
    "torch.distributed", "torch.utils.flop_counter", "transformers.models.auto", "faulthandler",
    "multiprocessing.synchronize",
)  # fmt: skip
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ADVICE = re.compile(r"weights_only\W{0,4}(?:set )?(?:to)?\W{0,4}False|trust_remote_code=True")
"""What libraries say of files that could run code."""


@dataclass
class Result:
    """What became of one run. problems: empty where all is as it must be."""

    case: str
    item: int
    what: str
    verb: str
    outcome: str = ""
    problems: list[str] = field(default_factory=list)
    status: int | None = None
    said: str = ""
    seconds: float = 0.0
    peak_mb: int = 0

    def short(self) -> str:
        """For the table."""
        return "; ".join(self.problems) if self.problems else self.outcome


# --- the server that nobody should ask


class _Canary(http.server.BaseHTTPRequestHandler):
    """Notes every request in a file; paths end in what it does: a picture, a redirect, an endless or a slow body."""

    noted: Path

    def do_GET(self) -> None:
        with open(self.noted, "a") as file:
            file.write(self.path + "\n")
        case, _, what = self.path.lstrip("/").partition("/")
        if what.startswith("redirect"):
            self.send_response(302)
            self.send_header("Location", f"/{case}/redirected.png")
            self.end_headers()
            return
        self.send_response(200)
        data = b"" if what.startswith(("endless", "slow")) else corpus.PICTURE
        if data:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)
            while what.startswith("endless"):
                self.wfile.write(bytes(1 << 20))
            while what.startswith("slow"):
                self.wfile.write(b"\x89")
                self.wfile.flush()
                time.sleep(0.2)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def canary(folder: Path) -> Iterator[tuple[str, Path]]:
    """Its address, and the file in which it notes who asked what. Ends with this process, however that ends."""
    noted = folder / "requests.txt"
    noted.touch()
    _Canary.noted = noted
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Canary)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(writing)
        threading.Thread(target=lambda: (os.read(reading, 1), os._exit(0)), daemon=True).start()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        server.serve_forever()
    os.close(reading)
    server.socket.close()
    os.set_inheritable(writing, False)
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", noted
    finally:
        os.close(writing)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# --- one process for each run


def apart(work: Callable[[], Any]) -> Any:
    """What `work` returns, as JSON values; done in a fork, so that nothing of it stays in this process.

    Raises:
        RuntimeError: it raised; with its traceback.
    """
    with tempfile.TemporaryFile() as answer:
        pid = os.fork()
        if not pid:
            code = 0
            try:
                answer.write(json.dumps(work()).encode())
            except BaseException:
                answer.write(traceback.format_exc().encode(errors="backslashreplace"))
                code = 1
            finally:  # a fork must never go on with its parent's work
                answer.flush()
                os._exit(code)
        _, code = os.waitpid(pid, 0)
        answer.seek(0)
        text = answer.read().decode()
    if code:
        raise RuntimeError(text)
    return json.loads(text)


@dataclass
class Ended:
    """How a process ended. reason: why it was stopped, or ""."""

    status: int
    signal: int
    seconds: float
    peak: float
    said: str
    errors: str
    reason: str = ""


def command(words: tuple[str, ...], place: Place, seconds: float, memory: float, unread: bool = False) -> Ended:
    """A verb's command line in a fork, watched. memory: bytes above its beginning at which it is stopped."""
    files = [place.root / "said.txt", place.root / "errors.txt"]
    for file in files:
        file.write_bytes(b"")
    start = time.monotonic()
    begun = mmap.mmap(-1, 8)  # shared: what the fork holds at first, which is less than this process
    pid = os.fork()
    if not pid:
        begun[:] = struct.pack("<Q", int(_held(os.getpid())))
        _be(words, place, files, unread)
    reason = ""
    while True:
        ended, code, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        taken = time.monotonic() - start
        if taken > seconds:
            reason = f"still running after {seconds:g} s"
        elif (first := struct.unpack("<Q", begun[:])[0]) and _held(pid) - first > memory:
            reason = "memory"
        if reason:
            os.killpg(pid, signal.SIGKILL)
            _, code, usage = os.wait4(pid, 0)
            break
        time.sleep(0.005 if taken < 1 else 0.02)
    taken = time.monotonic() - start
    before = struct.unpack("<Q", begun[:])[0]
    begun.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it has started and left
    out, errors = (f.read_bytes().decode(errors="backslashreplace") for f in files)
    status = os.WEXITSTATUS(code) if os.WIFEXITED(code) else -1
    ended_by = os.WTERMSIG(code) if os.WIFSIGNALED(code) and not reason else 0
    return Ended(status, ended_by, taken, max(usage.ru_maxrss * 1024 - before, 0), out, errors, reason)


def _held(pid: int) -> float:
    """Bytes in memory."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _be(words: tuple[str, ...], place: Place, files: list[Path], unread: bool) -> None:
    """Become the command, and never return."""
    code = 1
    try:
        try:
            _prepared(place, files, unread)
            code = _called(words)
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 1
            if isinstance(e.code, str):
                print(e.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        threading._shutdown()  # type: ignore[attr-defined]  # threads that wait for ever keep a program from ending
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:  # a fork must never go on with its parent's work
        os._exit(code)


def _prepared(place: Place, files: list[Path], unread: bool) -> None:
    """A session, folders and limits of its own; what it says goes into files."""
    os.setsid()
    os.chdir(place.work)
    os.environ |= {"HOME": str(place.root / "home"), "TMPDIR": str(place.root / "tmp"), "COLUMNS": "160"}
    tempfile.tempdir = None
    for at, file in enumerate([os.devnull, *files]):
        os.dup2(os.open(file, os.O_RDWR | os.O_APPEND), at)
    if unread:
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.close(writing)
        os.close(reading)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sizes = Path("/proc/self/statm").read_text().split()
    space = int(int(sizes[0]) * resource.getpagesize() + WALL)
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * GB, 4 * GB))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _called(words: tuple[str, ...]) -> int:
    torch.set_num_threads(1)
    if words[0] == "python":  # proves the detectors
        exec(words[1], {"place": Path.cwd().parent, "Payload": corpus.Payload})
        return 0
    sys.argv = ["polyteach", *words]
    return call(_known(words))


def _known(words: tuple[str, ...]) -> list[str]:
    """Without the permission to fetch, where the verb knows none: before there was one, all was fetched."""
    if "--allow-remote" not in words or "allow_remote" in inspect.signature(label).parameters:
        return list(words)
    at = words.index("--allow-remote")
    return [*words[:at], *words[at + 2 :]]


# --- what has become of the files


def snapshot(root: Path, but: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """What is in every file below `root`, links not followed; without what lies in `but`, relative to it."""
    found: dict[str, tuple[Any, ...]] = {}
    left = [root]
    while left:
        for item in os.scandir(left.pop()):
            name = os.path.relpath(item.path, root)
            if name in but:
                continue
            about = item.stat(follow_symlinks=False)
            kind = stat.S_IFMT(about.st_mode)
            if item.is_symlink():
                found[name] = (kind, os.readlink(item.path))
            elif item.is_dir():
                found[name] = (kind,)
                left.append(Path(item.path))
            elif stat.S_ISREG(kind) and about.st_size < 8 << 20:
                found[name] = (kind, hashlib.sha256(Path(item.path).read_bytes()).hexdigest())
            else:
                found[name] = (kind, about.st_size, about.st_mtime_ns)
    return found


def changes(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> list[str]:
    """In words."""
    made = [f"made {n}" for n in sorted(after.keys() - before.keys())]
    gone = [f"deleted {n}" for n in sorted(before.keys() - after.keys())]
    return made + gone + [f"changed {n}" for n in sorted(before.keys() & after.keys()) if before[n] != after[n]]


def _leaks(place: Place, run: Run) -> bool:
    """Whether the secret that lies outside is in what was written."""
    for given in run.may:
        for file in [place.work / given, *(place.work / given).rglob("*")]:
            plain = file.is_file() and not file.is_symlink() and file.stat().st_size < 64 << 20
            if plain and corpus.SECRET.encode() in file.read_bytes():
                return True
    return False


# --- one run


class Runner:
    """Makes cases in folders below `folder` and runs them. Loads everything that verbs import, once."""

    def __init__(self, folder: Path, url: str, noted: Path, seconds: float = SECONDS) -> None:
        self.folder, self.url, self.noted, self.seconds = folder, url, noted, seconds
        self._own: dict[str, float] = {}
        _preload()
        self.seed = folder / "seed"
        apart(lambda: corpus.seed(self.seed))

    def own(self, verb: str) -> float:
        """Bytes that the verb holds with good input, above its beginning."""
        good = {r.verb: (c, r) for c in corpus.CASES for r in c.runs if c.item == 0}
        name = verb if verb in good else verb.split()[0]
        if name not in self._own and name in good:
            case, run = good[name]
            place = self._place(case, run)
            _made(case, place)
            self._own[name] = max(command(w, place, 60, STOPPED).peak for w in run.lines)
            shutil.rmtree(place.root)
        return self._own.get(name, 0.1 * GB)

    def _place(self, case: Case, run: Run) -> Place:
        name = re.sub(r"[^a-z0-9]+", "-", f"{case.name}-{case.runs.index(run)}".lower())
        return corpus.place(self.folder / name, self.seed, f"{self.url}/{name}")

    def run(self, case: Case, run: Run, keep: bool = False) -> Result:
        """Make it, run it, look at it. What goes wrong in that is a problem of its own."""
        try:
            return self._run(case, run, keep)
        except Exception as e:
            return Result(case.name, case.item, case.what, run.verb, problems=[f"THE CORPUS: {e}"])

    def _run(self, case: Case, run: Run, keep: bool) -> Result:
        own = 0.1 * GB if case.item == 0 else self.own(run.verb)
        place = self._place(case, run)
        result = Result(case.name, case.item, case.what, run.verb)
        _made(case, place)
        but = ("home", "tmp", "said.txt", "errors.txt", *(f"work/{m}" for m in run.may))
        before = snapshot(place.root, but)
        ended = []
        for words in run.lines:
            words = tuple(place.filled(w) for w in words)
            ended.append(command(words, place, run.seconds or self.seconds, own + STOPPED, run.unread))
        result.status = ended[-1].status
        if case.item == 0 and run.verb != "python":
            self._own[run.verb] = max(e.peak for e in ended)
        result.seconds = round(sum(e.seconds for e in ended), 1)
        result.peak_mb = round(max(e.peak for e in ended) / (1 << 20))
        told = "\n".join(e.said + e.errors for e in ended)
        if case.item == 8 or (run.names and not _named(place, run, told)):
            with contextlib.suppress(RuntimeError):
                told += "\n" + apart(lambda: corpus.recorded(place, run))
        result.problems = [
            *(p for e in ended for p in _process(e, own)),
            *_around(place, run, changes(before, snapshot(place.root, but)), told, self.noted),
            *_promises(place, run, ended[-1], told),
        ]
        result.problems = list(dict.fromkeys(result.problems))
        result.said = _last(ended[-1])
        result.outcome = _outcome(ended[-1], run, place, result.said)
        if not keep:
            shutil.rmtree(place.root, ignore_errors=True)
        return result


def _made(case: Case, place: Place) -> None:
    def work() -> None:
        case.make(place)

    apart(work)


def _process(ended: Ended, own: float) -> list[str]:
    """What is wrong with how a process ended and what it said."""
    said = ended.said + ended.errors
    found = []
    if ended.reason == "memory":
        found.append(f"memory: stopped at {ended.peak / GB:.1f} GB")
    elif ended.peak - own > ABOVE:
        found.append(f"memory: {ended.peak / GB:.1f} GB")
    if ended.reason and ended.reason != "memory":
        found.append(ended.reason)
    if ended.signal:
        found.append(f"killed by {signal.Signals(ended.signal).name}")
    if "Traceback (most recent call last)" in said:
        kinds = re.findall(r"^([\w.]+(?:Error|Exception|Interrupt|Exit|Warning|Image|Bomb\w*)?)(?::.*)?$", said, re.M)
        found.append(f"traceback: {kinds[-1].rpartition('.')[2] if kinds else '?'}")
    if odd := _CONTROLS.search(said):
        found.append(f"prints the control character {odd[0]!r}")
    if advice := _ADVICE.search(said):
        found.append(f"advises {advice[0]}")
    return found


def _around(place: Place, run: Run, changed: list[str], told: str, noted: Path) -> list[str]:
    """What is wrong outside of the folder that was given."""
    found = []
    ran = [c for c in changed if c == f"made {place.ran.name}"]
    if ran or place.ran.exists():
        found.append("THE PAYLOAD RAN")
    other = [c for c in changed if c not in ran]
    if other:
        more = f" and {len(other) - 2} more" if len(other) > 2 else ""
        found.append(f"outside: {', '.join(other[:2])}{more}"[:200])
    mine = urllib.parse.urlparse(place.url).path + "/"
    asked = [line.removeprefix(mine) for line in noted.read_text().splitlines() if line.startswith(mine)]
    if asked := [a for a in dict.fromkeys(asked) if a not in run.asks]:
        found.append(f"asked the server ({', '.join(asked)})"[:120])
    if corpus.SECRET in told or _leaks(place, run):
        found.append("tells a secret of another folder")
    return found


def _promises(place: Place, run: Run, ended: Ended, told: str) -> list[str]:
    """What the case says must be true, and is not."""
    found = []
    if run.expect == "refused" and ended.status == 0:
        found.append("not refused")
    if run.expect == "clean" and ended.status != 0 and not ended.reason:
        found.append(f"status {ended.status}")
    if run.unread and ended.status not in (0, 141):
        found.append(f"status {ended.status}, not 141")
    if run.good is not None:
        try:
            plain = run.good[0] in ("run", "file", "answers")
            have = (corpus.counted if plain else _counted)(place, run, ended.said)
        except RuntimeError as e:
            have = 0
            found.append(f"cannot be read: {str(e).splitlines()[-1]}"[:100])
        if have < run.good[2]:
            found.append(f"{have} of {run.good[2]} good ones")
    needless = run.quiet and ended.status == 0
    if run.names and not ended.reason and not needless and not _named(place, run, told):
        found.append(f"does not name {run.names[0]!r}"[:80])
    pages = [f for m in run.may for f in [place.work / m, *(place.work / m).rglob("*.html")] if f.is_file()]
    found += [f"a page with {t}" for t in run.hides if any(t.encode() in f.read_bytes() for f in pages)]
    found += [f"does not show {text!r}"[:80] for text in run.shows if text not in ended.said + ended.errors]
    return found


def _counted(place: Place, run: Run, said: str) -> int:
    found: int = apart(lambda: corpus.counted(place, run, said))
    return found


def _named(place: Place, run: Run, told: str) -> bool:
    return any(place.filled(n) in told for n in run.names)


def _last(ended: Ended) -> str:
    """The line that says how it ended."""
    lines = [x for x in ended.errors.splitlines() if x.strip()] or [x for x in ended.said.splitlines() if x.strip()]
    # tyro's errors stand in a box; what a library warns of comes before
    lines = [x for x in lines if not re.fullmatch(r"[\s─╭╮╰╯│]*", x)]
    return lines[-1][:300] if lines else ""


def _outcome(ended: Ended, run: Run, place: Place, said: str) -> str:
    if ended.status == 0:
        return "goes through" if run.good is None else f"the {run.good[2]} good ones are there"
    if run.good is not None and ended.status == 1 and not ended.signal:
        return f"the {run.good[2]} good ones are there, the bad one is told"
    text = said.replace(f"{place.root}/", "")
    return f"refused: {re.sub(r'^polyteach [a-z -]+: ', '', text)}"[:100]


def _preload() -> None:
    """Import what verbs import, so that a fork has it at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = [m.name for m in pkgutil.walk_packages(polyteach.__path__, "polyteach.") if not m.name.endswith(".demo")]
        for name in (*_PRELOADED, *own):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    Image.init()
    gc.collect()
    gc.freeze()  # so that forks do not copy what they only look at


@contextlib.contextmanager
def ready(seconds: float = SECONDS) -> Iterator[Runner]:
    """A runner with its server and a folder that is gone afterwards."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ.pop(name, None)
    folder = Path(tempfile.mkdtemp(prefix="hostile"))
    try:
        with canary(folder) as (url, noted):
            yield Runner(folder, url, noted, seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- the command line


def chosen(only: str = "") -> list[tuple[Case, Run]]:
    """Runs whose case's name, or whose verb, holds a text; in the order of the corpus."""
    return [(c, r) for c in corpus.CASES for r in c.runs if only in f"{c.item} {c.name} {r.verb}"]


def serve() -> None:
    """Runs what it is asked for, a line of JSON each, [case, number of the run]; answers with its result."""
    with ready() as runner:
        print("ready", flush=True)
        by_name = {c.name: c for c in (*corpus.CASES, *(c for c, _ in corpus.PROOFS))}
        for line in sys.stdin:
            name, number = json.loads(line)
            case = by_name[name]
            print(json.dumps(asdict(runner.run(case, case.runs[number]))), flush=True)


def _several(runner: Runner, work: list[tuple[Case, Run]], jobs: int, keep: bool) -> Iterator[Result]:
    """Results as they come; each job is a fork that takes every so manieth run."""
    for verb in dict.fromkeys(r.verb for _, r in work):
        runner.own(verb)
    streams = []
    for job in range(jobs):
        here, there = socket.socketpair()
        pid = os.fork()
        if not pid:
            here.close()
            with there.makefile("w") as out:
                try:
                    for case, run in work[job::jobs]:
                        out.write(json.dumps(asdict(runner.run(case, run, keep))) + "\n")
                        out.flush()
                finally:  # a fork must never go on with its parent's work
                    os._exit(0)
        there.close()
        streams.append((pid, here.makefile("r")))
    left = [s for _, s in streams]
    while left:
        for stream in select.select(left, [], [])[0]:
            # a line is written at once and read whole; what else is in the buffer is read too
            line = stream.readline()
            if line:
                yield Result(**json.loads(line))
            else:
                left.remove(stream)
    for pid, _ in streams:
        os.waitpid(pid, 0)


def table(record: dict[str, Any]) -> str:
    """The record as a page: a table of what was wrong in any column, and of the rest what it was."""
    known = {(c.name, r.verb): c for c, r in chosen()}
    runs = [(known[r["case"], r["verb"]], r) for r in record["runs"] if (r["case"], r["verb"]) in known]
    columns = [w for w in ("before", "after") if w in record]
    lines = [
        "# Hostile and broken inputs",
        "",
        "Written by `python -m tests.hostile --table` from hostile.json: what each verb did with each input of the",
        "corpus in tests/hostile_cases.py. **Bold** is what must not be: a traceback, a change outside of the folder",
        "that was given, a request, or good images that are lost. So are more than 1.5 GB above what the verb takes",
        "with good input, and a message that does not name what is at fault. Stopped is what took too long, or 2.5 GB",
        "more.",
        "",
    ]
    for column in columns:
        about, these = record[column], [r[column] for _, r in runs if column in r]
        wrong = sum(bool(r["problems"]) for r in these)
        lines.append(
            f"- {column}: {about['commit']}, {about['date']}: {wrong} of {len(these)} runs are wrong; most memory "
            f"{max(r['peak_mb'] for r in these):,} MB, longest {max(r['seconds'] for r in these):g} s"
        )
    for item in sorted({c.item for c, _ in runs}):
        mine = [(c, r) for c, r in runs if c.item == item]
        bad = [(c, r) for c, r in mine if any(r[w]["problems"] for w in columns if w in r)]
        head = ["input", "verb", *columns]
        lines += ["", f"## {corpus.ITEMS[item]}"]
        if bad:
            lines += ["", f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
        for c, r in bad:
            cells = [_cell(r[w]) if w in r else "" for w in columns]
            lines.append(f"| {_text(c.what)} | {_text(r['verb'])} | {' | '.join(cells)} |")
        right: dict[str, list[str]] = {}
        for c, r in mine:
            if (c, r) not in bad:
                right.setdefault(c.what, []).append(r["verb"])
        if right:
            lines += ["", f"Right {' and '.join(columns)}:", ""]
            lines += [f"- {_text(what)} ({', '.join(verbs)})" for what, verbs in right.items()]
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, Any]) -> str:
    text = _text("; ".join(found["problems"]) or found["outcome"])
    return f"**{text}**" if found["problems"] else text


def _text(text: str) -> str:
    text = _CONTROLS.sub(lambda m: repr(m[0])[1:-1], text)
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def _saved(column: str, results: list[Result]) -> None:
    """Put what was found into the record, from which cases that there are no more go."""
    old = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {"runs": []}
    by_key = {(r["case"], r["verb"]): r for r in old["runs"]}
    for result in results:
        about = by_key.setdefault((result.case, result.verb), {"case": result.case, "verb": result.verb})
        about[column] = {k: getattr(result, k) for k in ("problems", "outcome", "seconds", "peak_mb")}
    order = {(c.name, r.verb): i for i, (c, r) in enumerate(chosen())}
    runs = sorted((r for k, r in by_key.items() if k in order), key=lambda r: order[r["case"], r["verb"]])
    git = ["git", "-C", str(ROOT), "log", "-1", "--format=%h", "--", "polyteach"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    record = old | {column: {"commit": commit, "date": time.strftime("%Y-%m-%d")}, "runs": runs}
    text = json.dumps({k: v for k, v in record.items() if k != "runs"}, ensure_ascii=True)[:-1]
    lines = ",\n".join(json.dumps(r, ensure_ascii=True) for r in runs)
    RECORD.write_text(f'{text}, "runs": [\n{lines}\n]}}\n', encoding="utf-8")


def main() -> int:
    """The command line; the status is 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description="the corpus of hostile inputs")
    parser.add_argument("--only", default="", help="cases whose item, name or verb holds this text")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--first", action="store_true", help="of each case the first run alone")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="longest of one run")
    parser.add_argument("--save", choices=("before", "after"))
    parser.add_argument("--go-on", action="store_true", help="leave out what --save has kept already")
    parser.add_argument("--table", action="store_true", help="write docs/evidence/hostile.md from its JSON")
    parser.add_argument("--keep", action="store_true", help="leave the folders, and say where they are")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve()
        return 0
    if asked.table:
        TABLE.write_text(table(json.loads(RECORD.read_text(encoding="utf-8"))), encoding="utf-8")
        return 0
    work = [(c, r) for c, r in chosen(asked.only) if not asked.first or r is c.runs[0]]
    if asked.go_on and RECORD.exists():
        have = json.loads(RECORD.read_text(encoding="utf-8"))["runs"]
        done = {(r["case"], r["verb"]) for r in have if asked.save in r}
        work = [(c, r) for c, r in work if (c.name, r.verb) not in done]
    if asked.list:
        print("\n".join(f"{c.item:2} {c.name:40} {r.verb:20} {c.what}" for c, r in work))
        return 0
    start = time.monotonic()
    results: list[Result] = []
    with ready(asked.seconds) as runner, contextlib.suppress(KeyboardInterrupt):
        for result in _several(runner, work, asked.jobs, asked.keep):
            results.append(result)
            mark = "WRONG" if result.problems else "ok"
            about = f"{mark:5} {result.item:2} {result.case:36} {result.verb:12} {result.seconds:5.1f} s"
            print(f"{about} {result.peak_mb:6,} MB  {_CONTROLS.sub('?', result.short())}", flush=True)
            if result.problems and result.said:
                print(f"{'':62} says: {_CONTROLS.sub('?', result.said)}", flush=True)
        if asked.keep:
            kept = Path(tempfile.mkdtemp(prefix="hostile-kept"))
            shutil.copytree(runner.folder, kept, symlinks=True, dirs_exist_ok=True)
            print(f"kept in {kept}")
    wrong = [r for r in results if r.problems]
    print(f"{len(results)} runs, {len(wrong)} wrong, {time.monotonic() - start:.0f} s, most memory "
          f"{max((r.peak_mb for r in results), default=0):,} MB")  # fmt: skip
    if asked.save:
        _saved(asked.save, results)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
