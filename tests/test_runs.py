"""The whole method by its own script, next to nothing of it: every step works, and stopping costs nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jobs import read

from polyteach.__main__ import main
from polyteach.reporting.compare import is_specialist

RUNS = Path(__file__).parent.parent / "runs"


@pytest.mark.parametrize("script", sorted(RUNS.glob("*.sh")), ids=lambda f: f.name)
def test_a_script_is_bash(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_papers_commands_are_ones_that_the_cli_takes(tmp_path, verbs):
    """The script runs, with a `polyteach` that only notes what it is asked."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "polyteach"
    fake.write_text('#!/bin/bash\nprintf "%s\\0" "$@" >> "$ASKED"; printf "\\n" >> "$ASKED"\n')
    fake.chmod(0o755)
    more = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "ASKED": str(tmp_path / "asked")}
    more |= {"DATA": "/data", "WORK": str(tmp_path / "work")}
    subprocess.run(["bash", str(RUNS / "paper.sh")], check=True, env=os.environ | more)
    asked = [line.split("\0")[:-1] for line in (tmp_path / "asked").read_text().splitlines()]
    for words in asked:
        assert main(words) == 0
    assert len(verbs) == len(asked) > 60
    made = {o["out"] for verb, o in verbs if verb in ("train", "pretrain")}
    used = {o["init"] for verb, o in verbs if verb == "transfer" and o.get("init")}
    assert used == made
    assert {o["name"] for verb, o in verbs if verb == "transfer" and is_specialist(o["name"])} == {
        "specialist-classes",
        "specialist-boxes",
        "specialist-regions",
    }
    learned = {"train", "train2017"}
    assert all(set(o["split"]) <= learned and o["split"] for v, o in verbs if v in ("train", "pretrain", "label"))


def test_an_unknown_scale_is_an_error(tmp_path):
    run = subprocess.run(["bash", str(RUNS / "toy.sh"), str(tmp_path), "huge"], capture_output=True, text=True)
    assert run.returncode == 2
    assert "unknown scale 'huge'; there are small and tiny" in run.stderr


@pytest.mark.parametrize("line", ["name", "name polyteach", "name python -c pass", "one polyteach --help"])
def test_a_line_that_is_no_job_is_an_error_and_nothing_is_run(tmp_path, line):
    run = subprocess.run(
        [sys.executable, str(RUNS / "jobs.py"), str(tmp_path)],
        input=f"one polyteach --version\n{line}\n", capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2
    assert f"not NAME polyteach WORDS with a name of its own: {line}" in run.stderr
    assert not list(tmp_path.iterdir())


def test_what_comes_after_wait_needs_all_before_it():
    jobs = read("a polyteach x\nb polyteach y\nwait\nc polyteach z\nwait\nd polyteach z\n")
    assert {name: job.needs for name, job in jobs.items()} == {"a": (), "b": (), "c": ("a", "b"), "d": ("a", "b", "c")}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_toy_from_nothing_to_the_report(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(RUNS / "toy.sh"), str(tmp_path), "tiny"]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert run.returncode == 0, run.stderr[-3000:]
    assert "] transfer-student-boxes: " in run.stdout
    found = sorted(tmp_path.glob("transfer/*/*/transfer.json"))
    assert len(found) == 5 * 6
    arms = {json.loads(f.read_text())["representation"]["name"] for f in found}
    assert arms == {"student", "oracle", "specialist-boxes", "simclr", "scratch"}
    scores = json.loads((tmp_path / "report.json").read_text())
    shown = json.dumps(scores)
    for name in (*arms, "classes", "boxes", "regions", "parts", "depth", "normals"):
        assert f'"{name}"' in shown
    page = (tmp_path / "report.html").read_text()
    assert 'src="http' not in page
    student = json.loads((tmp_path / "transfer/student/boxes/transfer.json").read_text())
    names = {t["name"] for t in student["compute"]["teachers"]}
    assert names == {
        f"{t}: {what}" for t in ("classes", "boxes", "regions", "depth") for what in ("training", "labelling")
    }
    # once more: nothing is left to do but the report
    again = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert again.returncode == 0, again.stderr[-3000:]
    assert "] " not in again.stdout
