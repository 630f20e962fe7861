"""Jobs, which are commands, and what runs them: several at once, none twice, in a folder.

A job a line, run in DIR; those after a line "wait" need all before it:

    echo "NAME polyteach VERB ..." | python runs/jobs.py DIR
"""

import argparse
import contextlib
import fcntl
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Job:
    """One command. words: of `polyteach`, or of a script in runs/ where the first ends in .py. store: which no other
    job may write at the same time. group: "core" decides the claims, "more" are ablations, controls and curves.
    arm, seed: of a transfer, what is tested and the seed of its pretraining.
    """

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    store: str = ""
    group: str = "more"
    arm: str = ""
    seed: int | None = None

    @property
    def command(self) -> str:
        """As a user would type it."""
        first = ("python", f"runs/{self.words[0]}") if self.words[0].endswith(".py") else ("polyteach", self.words[0])
        return shlex.join([*first, *self.words[1:]])


class Runner:
    """Runs jobs, several at once, each as soon as what it needs is done and a core is free.

    A job is a fork of this process, which has loaded polyteach: hundreds of short commands would spend most of their
    time on importing it.
    """

    def __init__(self, folder: Path, planned: dict[str, Job], wanted: set[str], cores: int) -> None:
        self.folder, self.jobs, self.wanted, self.cores = folder, planned, wanted, cores
        self.running: dict[int, tuple[Job, float]] = {}
        self.failed: set[str] = set()
        self.commit = commit()

    def done(self, name: str) -> bool:
        return (self.folder / "done" / f"{name}.json").exists()

    def go(self) -> bool:
        """Whether all that was wanted is done now. Raises BlockingIOError where another run works in the folder."""
        for name in ("logs", "done"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # jobs inherit the lock, so that what a killed run left behind has to end too
        alone = os.open(self.folder / "lock", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(f"another run works in {self.folder}: wait for it, or stop it") from None
            return self.work()
        finally:
            os.close(alone)

    def work(self) -> bool:
        """What go() does when it has the folder for itself."""
        for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell in the background has SIGINT ignored
            signal.signal(number, signal.default_int_handler)
        total, before = len(self.wanted), sum(map(self.done, self.wanted))
        began = time.monotonic()
        try:
            if self.next():
                load()  # before forking
            while True:
                while len(self.running) < self.cores and (job := self.next()):
                    self.start(job)
                if not self.running:
                    break
                job, seconds = self.finish()
                n = sum(map(self.done, self.wanted))
                left = (time.monotonic() - began) / max(n - before, 1) * (total - n)
                state = "FAILED" if job.name in self.failed else f"{seconds:.0f} s"
                print(f"[{n}/{total}, about {left / 60:.0f} min left] {job.name}: {state}", flush=True)
        except KeyboardInterrupt:
            for pid in self.running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            while self.running:
                self.finish()
            print("stopped; the same command goes on", file=sys.stderr)
            raise SystemExit(130) from None
        return all(map(self.done, self.wanted))

    def next(self) -> Job | None:
        busy = {job.store for job, _ in self.running.values() if job.store}
        names = {job.name for job, _ in self.running.values()}
        for name, job in self.jobs.items():
            if name not in self.wanted or name in names or name in self.failed or self.done(name):
                continue
            if all(map(self.done, job.needs)) and job.store not in busy:
                return job
        return None

    def start(self, job: Job) -> None:
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            self.running[pid] = (job, time.monotonic())
            return
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which passes it on
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            log = os.open(self.folder / "logs" / f"{job.name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(self.folder)
            if job.words[0].endswith(".py"):
                code = subprocess.call([sys.executable, str(HERE / job.words[0]), *job.words[1:]])
            else:
                from polyteach.__main__ import main

                code = main(list(job.words))
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def finish(self) -> tuple[Job, float]:
        pid, status = os.wait()
        while pid not in self.running:  # a child of the process that this one is a part of
            pid, status = os.wait()
        job, began = self.running.pop(pid)
        seconds = time.monotonic() - began
        if os.waitstatus_to_exitcode(status) == 0:
            said = {"command": job.command, "seconds": round(seconds, 1), "commit": self.commit, "group": job.group}
            path = self.folder / "done" / f"{job.name}.json"
            path.with_suffix(".new").write_text(json.dumps(said | {"date": time.strftime("%Y-%m-%d")}) + "\n")
            path.with_suffix(".new").replace(path)
        else:
            self.failed.add(job.name)
            text = (self.folder / "logs" / f"{job.name}.log").read_text(errors="replace")
            print(f"{job.command}\n{text[-2000:]}", file=sys.stderr, flush=True)
        return job, seconds


def commit() -> str:
    """Of the code that runs; -dirty where it is not that which was committed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def load() -> None:
    """What most commands import, also where they import it late."""
    import pyarrow

    import polyteach.__main__
    import polyteach.command
    import polyteach.curation.ingest
    import polyteach.labelling.label
    import polyteach.model.student
    import polyteach.tasks.detection
    import polyteach.training.pretrain
    import polyteach.training.train
    import polyteach.transferring.transfer  # noqa: F401
    from polyteach.tasks import all_tasks, load_task

    for task in all_tasks():
        load_task(task)
    importlib.import_module("polyteach.model.backbones.timm_models")  # whose networks the commands have
    pyarrow.schema([]).empty_table()  # imports pandas, where there is one, as the first table of every command would


def read(text: str) -> dict[str, Job]:
    """Jobs of lines "NAME polyteach WORDS", quoted as for a shell, or "wait". Raises ValueError for what is none."""
    found: dict[str, Job] = {}
    needs: tuple[str, ...] = ()
    for line in filter(str.strip, text.splitlines()):
        name, *words = shlex.split(line)
        if line.strip() == "wait":
            needs = tuple(found)
            continue
        if len(words) < 2 or words[0] != "polyteach" or name in found:
            raise ValueError(f"not NAME polyteach WORDS with a name of its own: {line}")
        found[name] = Job(name, tuple(words[1:]), needs)
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Runs the jobs that standard input names; one that is done stays done."
    )
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="at once; one a core")
    given = parser.parse_args()
    try:
        jobs = read(sys.stdin.read())
    except ValueError as e:
        parser.error(str(e))
    try:
        return 0 if Runner(given.folder.resolve(), jobs, set(jobs), max(given.jobs, 1)).go() else 1
    except BlockingIOError as e:
        parser.error(str(e))


if __name__ == "__main__":
    sys.exit(main())
