"""Adding a task is adding one file: the contract, the store and the architecture's tests cover it, none edited.

Of two toys, one answers with a point, the other with a feature map, to which a rendered world has no answer.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_a_sixth_and_a_seventh_task_are_a_file_each_and_the_suite_covers_them(tmp_path):
    ours = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HERE.parent / "polyteach", tmp_path / "polyteach", ignore=ours)
    shutil.copy(HERE.parent / "pyproject.toml", tmp_path)
    (tmp_path / "tests").mkdir()
    suites = ["test_task_contract.py", "test_store.py", "test_architecture.py"]
    for name in ("__init__.py", "conftest.py", "worlds.py", *suites):
        shutil.copy(HERE / name, tmp_path / "tests")
    for name in ("focus.py", "patches.py"):  # the whole addition
        shutil.copy(HERE / name, tmp_path / "polyteach" / "tasks")

    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    chosen = "focus or (patches and contract) or no_stage or imports_go_down or found_by_their_file"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--hypothesis-profile", "ci", "-vv"]
    command += ["-k", chosen, "tests"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    covered = set(re.findall(r"::(test_\w+)\[[^\]]*focus", run.stdout))
    assert "test_answer_of_the_mirrored_world_is_the_mirrored_answer" in covered
    assert "test_targets_round_trip_through_parquet" in covered
    assert len(covered) > 20
    assert "test_tasks_are_found_by_their_file" in run.stdout
    # a rendered world has no answer to the seventh, which is seen at a stride: that alone is not asked, and it is said
    assert set(re.findall(r"::(test_\w+)\[[^\]]*patches[^\]]*\] SKIPPED", run.stdout)) == {
        "test_answer_of_the_mirrored_world_is_the_mirrored_answer",
        "test_what_a_view_saw_can_be_put_back_and_seen_again",
    }
    learned = set(re.findall(r"::(test_\w+)\[[^\]]*patches[^\]]*\] PASSED", run.stdout))
    assert "focus" not in "".join(re.findall(r"::(\S+) SKIPPED", run.stdout))
    assert {"test_loss_falls_and_reaches_every_parameter_of_the_head", "test_check_keeps_the_truth"} <= learned
