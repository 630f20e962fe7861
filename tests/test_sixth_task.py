"""Adding a task is adding one file: the contract, the store and the architecture's tests cover it, none edited."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_a_sixth_task_is_one_file_and_the_suite_covers_it(tmp_path):
    ours = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HERE.parent / "polyteach", tmp_path / "polyteach", ignore=ours)
    shutil.copy(HERE.parent / "pyproject.toml", tmp_path)
    (tmp_path / "tests").mkdir()
    suites = ["__init__.py", "conftest.py", "test_task_contract.py", "test_store.py", "test_architecture.py"]
    for name in suites:
        shutil.copy(HERE / name, tmp_path / "tests")
    shutil.copy(HERE / "focus.py", tmp_path / "polyteach" / "tasks")  # the whole addition

    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    chosen = "focus or no_stage or imports_go_down or found_by_their_file"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--hypothesis-profile", "ci", "-vv"]
    command += ["-k", chosen, "tests"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    covered = set(re.findall(r"::(test_\w+)\[[^\]]*focus", run.stdout))
    assert "test_answer_of_the_mirrored_world_is_the_mirrored_answer" in covered
    assert "test_targets_round_trip_through_parquet" in covered
    assert len(covered) > 20
    assert "test_tasks_are_found_by_their_file" in run.stdout
    assert "skipped" not in run.stdout.splitlines()[-1]
