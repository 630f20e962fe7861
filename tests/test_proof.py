"""The proof: its jobs are commands that exist and needs that are met; its runner goes on; the shuffled control."""

import contextlib
import io
import itertools
import json
import runpy
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock
from urllib.parse import parse_qs
from xml.etree import ElementTree

import intervals
import numpy as np
import proof
import pytest
import torch
from jobs import Job, Runner

from polyteach.__main__ import main
from polyteach.store import Store
from tests.test_report import everything
from tests.worlds import world

RUNS = Path(__file__).parent.parent / "runs"


def script(name, *words):
    """What a script of runs/ prints, in this process: a new one imports for seconds. Raises SystemExit as it does."""
    said = io.StringIO()
    with mock.patch.object(sys, "argv", [name, *map(str, words)]), contextlib.redirect_stdout(said):
        runpy.run_path(str(RUNS / name), run_name="__main__")
    return said.getvalue()


def designs():
    made = [proof.jobs(scale, world, "") for scale in proof.SCALES.values() for world in ("shapes", "rooms")]
    return [*made, proof.jobs(proof.SCALES["full"], "shapes", "", ablated=2)]


def test_every_need_is_a_job_that_comes_before():
    for jobs in designs():
        seen = set()
        for name, job in jobs.items():
            assert name == job.name
            assert set(job.needs) <= set(jobs)
            seen.add(name)
        done: set[str] = set()
        while ready := {n for n, j in jobs.items() if n not in done and set(j.needs) <= done}:
            done |= ready
        assert done == set(jobs)  # no circle


def test_what_a_command_reads_is_what_it_needs():
    """Runs and stores that a command names are made by jobs that it waits for, however far back."""
    for jobs in designs():
        before: dict[str, set[str]] = {}

        def all_of(name, jobs=jobs, before=before):
            if name not in before:
                before[name] = {name}.union(*(all_of(n) for n in jobs[name].needs))
            return before[name]

        for name, job in jobs.items():
            words = job.command.replace("=own:", " own:").split()
            made = {f"runs/{n.removeprefix('train-')}" for n in all_of(name) if n.startswith("train-")}
            kept = {f"stores/{n.removeprefix('ingest-')}" for n in all_of(name) if n.startswith("ingest-")}
            kept |= {"stores/pool"} if "copy-pool" in all_of(name) else set()
            named = {w.removeprefix("own:") for w in words}
            assert {w for w in named if w.startswith("runs/") and not w.endswith(".py")} <= made
            assert {w for w in named if w.startswith("stores/")} <= kept


def test_a_split_that_a_command_names_is_in_a_store_that_it_reads():
    """Also where a scale has no pictures for the last split of a curve."""
    for jobs in designs():
        made = {n.removeprefix("ingest-"): j.words[1] for n, j in jobs.items() if n.startswith("ingest-")}
        made["pool"] = made["oracle"]
        count = {n: parse_qs(source.partition("?")[2])["count"][0] for n, source in made.items()}
        splits = {n: {x.split(":")[0] for x in c.split(",") if not x.endswith(":0")} for n, c in count.items()}
        assert all(len(c.split(",")) == len(splits[n]) for n, c in count.items())
        asked = 0
        for job in jobs.values():
            if "--split" in job.words:
                after = job.words[job.words.index("--split") + 1 :]
                named = set(itertools.takewhile(lambda w: not w.startswith("--"), after))
                stores = [w.removeprefix("stores/") for w in job.words if w.startswith("stores/")]
                assert named <= set().union(*(splits[s] for s in stores)), job.name
                asked += 1
        assert asked > 20


def test_a_student_learns_from_splits_that_its_teachers_labelled():
    """Whatever seed the ablations have: the last split of the pool is in a store of its own."""

    def splits(job):
        after = job.words[job.words.index("--split") + 1 :]
        return set(itertools.takewhile(lambda w: not w.startswith("--"), after))

    asked = 0
    for jobs in designs():
        for name, job in jobs.items():
            labels = [jobs[n] for n in job.needs if n.startswith("label-pool")]
            if name.startswith("train-") and labels:
                assert splits(job) & set("abcd") <= set().union(*map(splits, labels)), name
                asked += 1
    assert asked > 20


def test_every_command_is_one_that_the_cli_takes(verbs):
    jobs = proof.jobs(proof.SCALES["quick"], "shapes", "")
    commands = [shlex.split(j.command) for j in jobs.values() if j.command.startswith("polyteach ")]
    # one transfer is like the others
    chosen = [c[1:] for c in commands if c[1] != "transfer"] + [c[1:] for c in commands if c[1] == "transfer"][:12]
    for words in chosen:
        assert main(words) == 0
    assert len(verbs) == len(chosen)
    assert any(o.get("drop") == 0.5 for _, o in verbs)


def test_the_runner_goes_on_after_a_failure_and_does_nothing_twice(tmp_path, capfd):
    jobs = {
        "a": Job("a", ("--version",)),
        "bad": Job("bad", ("nonsense",), ("a",)),
        "after": Job("after", ("--version",), ("bad",)),
        "other": Job("other", ("--version",), ("a",), "store"),
        "same": Job("same", ("--version",), (), "store"),
    }
    assert not Runner(tmp_path, jobs, set(jobs), 2).go()
    done = {p.stem for p in (tmp_path / "done").iterdir()}
    assert done == {"a", "other", "same"}
    assert "nonsense" in capfd.readouterr().err
    assert json.loads((tmp_path / "done" / "a.json").read_text())["command"] == "polyteach --version"
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "done").iterdir()}
    jobs["bad"] = Job("bad", ("--version",), ("a",))
    assert Runner(tmp_path, jobs, set(jobs), 2).go()
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items())
    assert {p.stem for p in (tmp_path / "done").iterdir()} == set(jobs)


def test_a_folder_has_one_run_at_a_time(tmp_path, monkeypatch, capsys):
    code = (
        "import fcntl, os, sys\n"
        "fcntl.flock(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), fcntl.LOCK_EX)\n"
        "print('mine', flush=True)\n"
        "sys.stdin.read()\n"
    )
    monkeypatch.setattr(sys, "argv", ["proof", str(tmp_path), "--quick", "--arms", "scratch"])
    other = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(SystemExit):
            proof.main()
        process.stdin.close()
    assert "another run works in" in capsys.readouterr().err
    assert not list((tmp_path / "done").iterdir())
    assert Runner(tmp_path, {}, set(), 1).go()  # it has ended


def test_shuffled_labels_are_the_same_labels_on_other_images(tmp_path, capsys):
    store = world(tmp_path / "store", count=8, tasks=("depth", "classification"))
    for _ in range(2):  # the second time there is nothing left to do
        script("alter_labels.py", store, "shuffled", "oracle")
    sets = {(s.task, s.name): s for s in Store.open(store).sets()}
    assert set(sets) == {(t, n) for t in ("depth", "classification") for n in ("oracle", "oracle-shuffled")}
    before, after = sets["depth", "oracle"], sets["depth", "oracle-shuffled"]
    assert before.objective == after.objective
    moved = 0
    for part in before.parts():
        assert before.ids(part) == after.ids(part)
        old, new = before.read(part), after.read(part)
        where = [next(i for i, a in enumerate(old) if torch.equal(a.value, b.value)) for b in new]
        assert sorted(where) == list(range(len(old)))
        moved += sum(i != k for k, i in enumerate(where))
    assert moved > 0
    with pytest.raises(SystemExit) as wrong:
        script("alter_labels.py", store, "shuffled", "nobody")
    assert wrong.value.code == 2
    assert "has no label set nobody" in capsys.readouterr().err


def test_the_pool_has_the_oracles_pictures_and_no_labels(tmp_path, capsys):
    labelled = Store.open(world(tmp_path / "oracle", count=8, tasks=("depth", "classification")))
    for _ in range(2):  # the second time there is nothing left to do
        script("unlabelled.py", tmp_path / "oracle", tmp_path / "pool")
        bare = Store.open(str(tmp_path / "pool"))
        assert labelled.sets()
        assert not bare.sets()
        assert [(r.id, r.data) for r in bare.images(0)] == [(r.id, r.data) for r in labelled.images(0)]
        assert main(["store", "check", str(tmp_path / "pool"), "--deep", "--no-progress"]) == 0
    with pytest.raises(SystemExit) as wrong:
        script("unlabelled.py", tmp_path, tmp_path / "other")
    assert wrong.value.code == 2
    assert "it has no store.json" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_coarse_labels_are_rounded_by_no_more_than_they_say(tmp_path):
    store = world(tmp_path / "store", count=4, tasks=("depth", "detection"))
    script("alter_labels.py", store, "coarse", "oracle", "--bits", "4")
    sets = {(s.task, s.name): s for s in Store.open(store).sets()}
    kept = set()
    for a, b in zip(*(sets["depth", n].read(0) for n in ("oracle", "oracle-coarse")), strict=True):
        apart = (a.value - b.value).abs() / a.value.abs().clamp_min(1e-9)
        assert 1e-4 < apart.max() <= 2**-5
        kept |= set(torch.frexp(b.value).mantissa.abs().unique().tolist())
    assert kept <= {n / 32 for n in range(16, 32)} | {0.0}
    for a, b in zip(*(sets["detection", n].read(0) for n in ("oracle", "oracle-coarse")), strict=True):
        assert torch.equal(a.box, b.box)


def test_labels_lie_apart_by_what_was_done_to_them(tmp_path):
    """Depth times 1.01, classes in another order, and half of the boxes moved."""
    store = Store.open(world(tmp_path / "store", count=4, tasks=("depth", "detection", "classification")))
    boxes = 0
    for labels in store.sets():
        copy = store.create_set(labels.task, f"{labels.name}-x", labels.space, labels.info)
        for part in labels.parts():
            answers = labels.read(part)
            if labels.task == "depth":
                answers = [replace(a, value=a.value * 1.01) for a in answers]
            elif labels.task == "detection":
                boxes += sum(len(a.box) for a in answers)
                answers = [replace(a, box=a.box + (0 if i % 2 else 100)) for i, a in enumerate(answers)]
                lost = sum(len(a.box) for a in answers[::2])
            else:
                answers = [replace(a, probability=a.probability.flip(0)) for a in answers]
            copy.write(part, labels.ids(part), answers)
    found = {line.split(",")[0]: line for line in script("labels_apart.py", store.path, "x").splitlines()}
    assert float(found["depth"].split()[-1]) == pytest.approx(0.01, rel=0.1)
    assert found["detection"].split(", ")[2].endswith(f"{lost / boxes:.4g}")
    assert f"of {0.5} or more {boxes}" in found["detection"]
    assert float(found["classification"].split()[-1]) > 0


@pytest.mark.parametrize("flag", ["--list", "--quick"])
def test_the_way_in_lists_what_there_is_to_do(tmp_path, flag):
    words = [
        "bash",
        str(RUNS / "proof.sh"),
        "--list",
        *(["--quick"] if flag == "--quick" else []),
        str(tmp_path / "dir"),
    ]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    assert any("train-student-s0: polyteach train stores/pool" in line for line in said)
    assert len(said) > 200
    assert not (tmp_path / "dir").exists()


def test_the_pages_table_has_means_over_seeds_in_order_of_the_average(tmp_path):
    def row(arm, task, score):
        return {"arm": arm, "task": task, "score": score}

    found = {
        "scores": [
            row("oracle", "classes", 60.0), row("scratch", "classes", 10.0), row("scratch", "classes", 20.0),
            row("scratch", "depth", 45.0), row("student", "classes", 40.0), row("student", "depth", None),
        ],
        "normalised_average": {
            "scratch": {"value": 0.0, "interval": [0.0, 0.0]}, "oracle": {"value": 1.0, "interval": [1.0, 1.0]},
            "student": {"value": 0.5551, "interval": [0.4, 0.704]},
        },
    }  # fmt: skip
    (tmp_path / "proof.json").write_text(json.dumps(found))
    lines = proof.table(tmp_path).splitlines()
    at = [c.strip() for c in lines[0].split("|")].index("classes, top-1")
    assert [[c.strip() for c in line.split("|")][at] for line in lines[2:]] == ["15.0", "40.0", "60.0"]
    assert lines[2].startswith("| scratch |")
    assert lines[2].endswith("| 0.00 |")
    assert lines[3].endswith("| 40.0 | 0.56 [0.40, 0.70] |")


def test_arms_alone_and_what_they_need(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["proof", str(tmp_path), "--quick", "--list", "--arms", "simclr"])
    assert proof.main() == 0
    names = [line.split(":")[0].split()[-1] for line in capsys.readouterr().out.splitlines()]
    worlds = list(proof.WORLDS)
    wanted = [f"transfer-simclr-s0-{w}" for w in worlds] + [f"ingest-down-{w}" for w in worlds]
    assert sorted(names) == sorted([*wanted, "train-simclr-s0", "ingest-oracle", "copy-pool"])
    monkeypatch.setattr(sys, "argv", ["proof", str(tmp_path), "--quick", "--list", "--arms", "student"])
    assert proof.main() == 0
    found = capsys.readouterr().out
    assert "transfer-student-s0-boxes:" in found
    assert "score0.3" not in found  # whose name begins with "student-s" too
    monkeypatch.setattr(sys, "argv", ["proof", str(tmp_path), "--arms", "simclr", "nothing"])
    with pytest.raises(SystemExit):
        proof.main()
    assert "no arm is called nothing; there are control-shuffled" in capsys.readouterr().err
    # trained, to label with, but never transferred
    monkeypatch.setattr(sys, "argv", ["proof", str(tmp_path), "--arms", "specialist-classes-few"])
    with pytest.raises(SystemExit):
        proof.main()
    assert "no arm is called specialist-classes-few" in capsys.readouterr().err


def test_no_average_where_in_one_task_the_oracle_is_not_above_scratch():
    """As in a quick run, where nobody learned to find a box."""
    scores = {"scratch": dict.fromkeys(proof.WORLDS, 10.0), "oracle": dict.fromkeys(proof.WORLDS, 20.0)}
    rows = [
        {"arm": arm, "task": task, "pretraining_seed": 0, "seed": 0, "score": score}
        for arm, of in scores.items()
        for task, score in of.items()
    ]
    assert proof.by_seed(rows)["oracle"]["values"] == {"0": 1.0}
    for row in rows:
        if row["task"] == "boxes":
            row["score"] = 0.0
    assert proof.by_seed(rows) == {}


def test_seeds_of_another_session_count_beside_those_of_a_folder(tmp_path):
    def row(arm, task, seed, score):
        return {"arm": arm, "task": task, "pretraining_seed": seed, "seed": 0, "score": score}

    def rows(arm, seed, *scores):
        return [row(arm, task, seed, x) for task, x in zip(proof.WORLDS, scores, strict=True)]

    earlier = rows("scratch", None, *[10.0] * 6) + rows("oracle", 0, *[28.0] * 6) + rows("student", 0, *[40.0] * 6)
    (tmp_path / "earlier.json").write_text(
        json.dumps({"wins": ["of before"], "scores": [*earlier, row("student", "depth", 1, 0.0)]})
    )
    # the folder's own student of seed 1 is taken, not that of the file; its oracle makes the mean 30
    own = rows("oracle", 1, *[32.0] * 6) + rows("student", 1, 30.0, 30.0, 30.0, 30.0, 30.0, 60.0)
    folder = tmp_path / "dir"
    (folder / "report").mkdir(parents=True)
    report = {"tables": [{"normalised": {}, "normalised_average": {}, "wins": []}], "runs": [{"machine": {}}]}
    (folder / "report" / "report.json").write_text(json.dumps(report))
    for number, x in enumerate([*own, row("student-drop", "depth", 0, 20.0)]):
        path = folder / "transfer" / f"{x['arm']}-s{x['pretraining_seed']}" / f"{number}" / "transfer.json"
        path.parent.mkdir(parents=True)
        test = {"seed": 0, "scores": {proof.WORLDS[x["task"]]: x["score"]}}
        said = {
            "representation": {"name": x["arm"], "pretraining_seed": x["pretraining_seed"]},
            "downstream": {
                "name": x["task"],
                "metric": proof.WORLDS[x["task"]],
                "higher_is_better": True,
                "test_sha256": "",
            },
            "results": [
                {"chosen": {}, "tests": [test], "sweep": [{"validation": x["score"] + 1}, {"validation": None}]}
            ],
        }
        path.write_text(json.dumps(said))
    proof.gather(folder, tmp_path / "earlier.json")
    found = json.loads((folder / "proof.json").read_text())
    assert len(found["scores"]) == len(earlier) + len(own) + 1
    assert [e["wins"] for e in found["earlier"]] == [["of before"]]
    by_seed = found["by_seed"]
    assert set(by_seed) == {"scratch", "oracle", "student"}  # one task is no average
    assert by_seed["student"]["values"] == pytest.approx({"0": 1.5, "1": 1.25})
    assert by_seed["student"]["mean"] == pytest.approx(1.375)
    assert by_seed["student"]["spread"] == pytest.approx(0.125 * 2**0.5)
    assert by_seed["oracle"]["values"] == pytest.approx({"0": 0.9, "1": 1.1})
    assert by_seed["scratch"]["values"] == pytest.approx({"-1": 0.0})
    lines = proof.seeds_table(folder).splitlines()
    assert lines[2] == "| oracle | 0.90 | 1.10 | 1.00 | 0.14 | 0.60, 0.15 |"
    assert lines[3] == "| student | 1.50 | 1.25 | 1.38 | 0.18 |  |"
    said = ElementTree.fromstring(proof.seeds_chart(folder)).findtext("{*}desc") or ""
    assert "scratch 0, oracle 0.9 [0.9, 1.1], oracle 1.1, student 1.5 [1.25, 1.5], student 1.25" in said
    # a table of this folder's scores, as its averages are; the student of seed 0 got 40 in each
    assert "| student | 30.0 | 30.0 | 30.0 | 30.0 | 30.0 | 60.0 |  |" in proof.table(folder)
    assert "scratch" not in proof.table(folder)
    proof.gather(folder)
    found = json.loads((folder / "proof.json").read_text())
    assert found["by_seed"] == {}  # no scratch here
    assert {r["validation"] - r["score"] for r in found["scores"]} == {1}
    assert proof.validation_table(folder) == ""
    assert len(proof.seeds_table(folder).splitlines()) == 2


def test_intervals_are_made_again_from_the_file_of_resamples(tmp_path, monkeypatch, capsys):
    """Of real reports on made-up transfers: averages and differences with their intervals, from the file alone."""
    folder = tmp_path / "dir"
    (folder / "transfer").mkdir(parents=True)
    runs = everything(parts=("backbone",), seeds=(0, 1))
    for n, x in enumerate(runs):
        path = folder / "transfer" / f"{x['representation']['name']}-s0" / f"{n}" / "transfer.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(x))
    assert main(["report", str(folder / "transfer"), "--out", str(folder / "report")]) == 0
    proof.gather(folder)
    (said,) = json.loads((folder / "report" / "report.json").read_text())["tables"]
    rows = intervals.read(folder / "proof-resamples.parquet")
    assert len(rows) == 2 * len(runs)
    tests = intervals.Tests(rows)
    for arm, of in said["normalised_average"].items():
        value, drawn = tests.average(arm)
        assert value == pytest.approx(of["value"])
        assert intervals.interval(drawn) == pytest.approx(of["interval"], abs=1e-5)
    compared = 0
    for match in said["wins"]:
        for task, of in match["differences"].items():
            if match["against"] in tests.arms:
                value, drawn = tests.difference("student", match["against"], task)
                assert value == pytest.approx(of["value"])
                assert intervals.interval(drawn) == pytest.approx(of["interval"], abs=1e-4)
                compared += 1
    assert compared == 12
    # the draws' own source is there too
    given = {(x["representation"]["name"], x["downstream"]["name"]): x["results"][0]["tests"] for x in runs}
    for row in rows:
        (test,) = [t for t in given[row["arm"], row["task"]] if t["seed"] == row["seed"]]
        assert row["left_out"] == pytest.approx(test["left_out"])
    words = ["intervals", str(folder / "proof-resamples.parquet"), "--ours", "student"]
    monkeypatch.setattr(sys, "argv", words)
    assert intervals.main() == 0
    lines = capsys.readouterr().out.splitlines()
    whole = said["normalised_average"]["specialist-a"]
    assert f"| specialist-a | {whole['value']:.3f} [{whole['interval'][0]:.3f}" in "\n".join(lines)
    # another session's go along
    (tmp_path / "earlier.json").write_bytes((folder / "proof.json").read_bytes())
    (tmp_path / "earlier-resamples.parquet").write_bytes((folder / "proof-resamples.parquet").read_bytes())
    for path in (folder / "transfer").glob("student-s0/*/transfer.json"):
        path.unlink()
    proof.gather(folder, tmp_path / "earlier.json")
    assert sorted(map(str, intervals.read(folder / "proof-resamples.parquet"))) == sorted(map(str, rows))


def test_resamples_that_cannot_be_paired_are_refused():
    row = {"arm": "a", "task": "t", "metric": "m", "higher_is_better": True, "pretraining_seed": 0, "seed": 0}
    row |= {"test_sha256": "x", "unreadable": [], "score": 1.0, "resamples": [1.0, 2.0], "left_out": [1.0]}
    for change in ({"test_sha256": "y"}, {"unreadable": ["7"]}, {"resamples": [1.0]}, {"left_out": None}):
        with pytest.raises(ValueError, match="tests of t cannot be paired"):
            intervals.Tests([row, {**row, "arm": "b", "pretraining_seed": 1, **change}])
        assert intervals.Tests([row, {**row, "pretraining_seed": 1, **change}], [0]).arms == ["a"]
    with pytest.raises(ValueError, match=r"nothing was pretrained with seed 7; there are \[0\]"):
        intervals.Tests([row, {**row, "arm": "scratch", "pretraining_seed": None}], [0, 7])
    with pytest.raises(ValueError, match="kept no resamples"):
        intervals.Tests([{**row, "resamples": []}])
    both = intervals.Tests([row, {**row, "seed": 1, "score": 3.0, "resamples": [3.0, None]}])
    assert both.score["a", "t"] == 2
    np.testing.assert_array_equal(both.drawn["a", "t"], [2, np.nan])


def test_self_supervision_is_chosen_by_validation_scores(tmp_path):
    """On the scale of scratch's and the oracle's; a row without all tasks, or of another session, is none."""
    kept = {"scratch": [10.0] * 6, "simclr": [15.0] * 5 + [25.0], "oracle": [20.0] * 6, "student": [19.0] * 6}
    rows = [
        {"arm": a, "task": t, "pretraining_seed": 1, "seed": 0, "validation": x}
        for a, of in kept.items()
        for t, x in zip(proof.WORLDS, of, strict=True)
    ]
    rows += [{"arm": "vicreg", "task": "boxes", "pretraining_seed": 1, "seed": 0, "validation": 50.0}]
    rows += [{**r, "validation": 90.0, "earlier": True} for r in rows]
    rows += [{"arm": "simclr", "task": "boxes", "validation": None, "earlier": True}]
    (tmp_path / "proof.json").write_text(json.dumps({"scores": rows}))
    lines = proof.validation_table(tmp_path).splitlines()
    # five tasks half way and one half as far again as the oracle: (5 x 0.5 + 1.5) / 6
    assert [line.rsplit("|", 2)[1].strip() for line in lines[2:]] == ["0.00", "0.67", "1.00"]
    assert lines[3].startswith("| simclr | 15.0 | ")
    assert len(lines) == 5
