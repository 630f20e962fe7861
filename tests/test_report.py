"""The report: what is pooled, paired, put on a scale and counted, and a page that stands alone."""

import base64
import copy
import html.parser
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from polyteach.ground.jackknife import interval
from polyteach.reporting import charts
from polyteach.reporting.blocks import Cell, Section, Table, Text
from polyteach.reporting.page import html as html_page
from polyteach.verbs.report import report

R = 400
TASKS = {
    "down-boxes": ("AP50", True, 30.0),
    "down-classes": ("top-1", True, 60.0),
    "down-distance": ("AbsRel", False, 0.30),
}
QUALITY = {"scratch": 0.0, "specialist-a": 4.0, "specialist-b": 3.0, "student": 6.0, "oracle": 10.0}


def transfer(name, column, *, seed=0, gain=None, seeds=(0,), parts=("backbone", "pyramid"), budget=None, **over):
    """One transfer.json. The scores of test image i depend on i for everybody alike, so that pairing matters."""
    metric, higher, base = TASKS[column]
    sign, size = (1, 1.0) if higher else (-1, 0.01)
    gain = QUALITY[name] if gain is None else gain
    shared = np.random.default_rng([7, len(column)]).normal(0, 3, R)
    budget = budget or {"shots": None, "fraction": None, "images": 500}
    results = []
    for part in parts:
        tests, sweep = [], []
        own = gain + (0.5 if part == "pyramid" else 0)
        for s in seeds:
            chance = np.random.default_rng([seed, s, len(name), len(part)])
            score = base + sign * size * (own + 0.2 * s + 0.1 * seed)
            drawn = score + size * (shared + chance.normal(0, 0.5, R))
            tests.append(
                {
                    "seed": s,
                    "scores": {metric: score, "other": score / 2},
                    "resamples": drawn.tolist(),
                    "left_out": [score - size, score, score + size],
                    "curve": [[k, 3.0 / (k + own + 1)] for k in range(1, 200, 10)],
                    "seconds": 12.5,
                    "images": 3200,
                }
            )
        for lr in (0.01, 0.1):
            for steps in (100, 200, 400):
                validation = base + sign * size * (own + steps / 200 - 5 * lr)
                about = {"lr": lr, "steps": steps, "seed": 0, "validation": validation, "seconds": 3.0, "images": 800}
                sweep.append(about | {"failed": None})
        results.append(
            {
                "parts": part,
                "chosen": {"lr": 0.01, "steps": 400},
                "sweep": sweep,
                "tests": tests,
                "mean": None,
                "spread": None,
                "interval": None,
            }
        )
    free = name == "scratch"
    found = {
        "verb": "transfer",
        "polyteach": "0.1.0",
        "date": "2026-11-24",
        "command": f"polyteach transfer {column} --init {name}",
        "machine": {"processor": "x86_64", "threads": 2, "device": "cpu"},
        "representation": {
            "name": name,
            "init": None if free else f"runs/{name}-{seed}",
            "backbone": "resnet18",
            "sha256": None if free else f"{name}{seed}",
            "pretraining_seed": None if free else seed,
        },
        "downstream": {
            "name": column,
            "store": f"stores/{column}",
            "task": "some",
            "objective": "some_people",
            "metric": metric,
            "higher_is_better": higher,
            "train_images": 500,
            "validation_images": 100,
            "test_images": 300,
            "classes": 10,
            "test_sha256": f"hash of {column}",
        },
        "budget": budget,
        "mode": "finetune",
        "results": results,
        "test_sha256": f"hash of {column}",
        "compute": {
            "transfer": {"images": 4800, "flops": 1e12, "seconds": 18.0},
            "representation": None if free else {"images": 100_000 + seed, "flops": 2e15, "seconds": 3600.5},
            "teachers": [{"name": "boxes", "images": 7000, "flops": 3e14, "seconds": 60.0}]
            if name == "student"
            else [],
        },
        "examples": [],
        "seeds": list(seeds),
    }
    return found | over


def write(root, *found):
    """Every transfer in a folder of its own; returns the folder above."""
    for x in found:
        folder = root / f"{len(list(root.glob('*'))) if root.exists() else 0:03d}"
        folder.mkdir(parents=True)
        (folder / "transfer.json").write_text(json.dumps(x), encoding="utf-8")
    return root


def everything(**options):
    return [transfer(n, c, **options) for n in QUALITY for c in TASKS]


def made(tmp_path, *found, **options):
    """The numbers of the report on these transfers."""
    root = write(tmp_path / "runs", *found)
    report([str(root)], out=str(tmp_path / "out"), **options)
    return json.loads((tmp_path / "out" / "report.json").read_text())


def table(numbers, parts, mode="finetune", budget="main"):
    (found,) = [t for t in numbers["tables"] if (t["mode"], t["budget"], t["parts"]) == (mode, budget, parts)]
    return found


def resamples(x, parts="backbone"):
    """(seeds, R) of one transfer."""
    (result,) = [r for r in x["results"] if r["parts"] == parts]
    return np.array([t["resamples"] for t in result["tests"]])


class Reader(html.parser.HTMLParser):
    """What a browser would do with a page: tags in order, and everything that it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.fetched, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for key, value in attributes:
            if key in ("src", "href", "srcset", "xlink:href", "data", "action", "poster", "background"):
                self.fetched.append(value)
            assert not key.startswith("on"), f"{tag} has a handler {key}"

    def handle_data(self, data):
        self.text.append(data)


def cells_of(markdown, heading):
    """The rows of the first Markdown table below a heading."""
    below = markdown.split(f"# {heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", below, flags=re.M).group().splitlines()
    rows = [[c.strip() for c in re.split(r"(?<!\\)\|", x)[1:-1]] for x in lines]
    return {r[0]: r[1:] for r in rows[2:]}


# ------------------------------------------------------------------------------------------------------------ numbers


def test_seeds_and_pretrainings_are_pooled_and_the_interval_is_about_test_images(tmp_path):
    runs = [transfer("student", "down-boxes", seed=s, seeds=(0, 1, 2)) for s in (0, 1)]
    cell = table(made(tmp_path, *runs), "backbone")["cells"]["student"]["down-boxes"]
    values = [30 + 6 + 0.2 * s + 0.1 * p for p in (0, 1) for s in (0, 1, 2)]
    assert cell["tests"] == pytest.approx(values)
    assert cell["mean"] == pytest.approx(sum(values) / 6)
    assert cell["spread"] == pytest.approx(np.std(values, ddof=1))
    assert cell["pretrainings"] == 2
    everyone = np.sort(np.concatenate([resamples(r) for r in runs]).mean(0))
    # by hand: the percentile lies between two order statistics
    at = 0.025 * (R - 1)
    low = everyone[int(at)] + (at % 1) * (everyone[int(at) + 1] - everyone[int(at)])
    assert cell["interval"][0] == pytest.approx(low)
    assert cell["interval"][0] < cell["mean"] < cell["interval"][1]


def test_one_test_has_no_spread(tmp_path):
    cell = table(made(tmp_path, transfer("student", "down-boxes")), "backbone")["cells"]["student"]["down-boxes"]
    assert cell["spread"] is None


def test_normalised_scores_and_their_average(tmp_path):
    runs = everything()
    found = table(made(tmp_path, *runs), "backbone")
    by = {(r["representation"]["name"], r["downstream"]["name"]): resamples(r)[0] for r in runs}
    scaled = []
    for column in TASKS:
        x, low, high = (by[n, column] for n in ("student", "scratch", "oracle"))
        scaled.append((x - low) / (high - low))
        assert found["normalised"]["student"][column]["value"] == pytest.approx(0.6)
        assert found["normalised"]["student"][column]["interval"] == pytest.approx(
            np.percentile(scaled[-1], [2.5, 97.5])
        )
    whole = found["normalised_average"]
    assert whole["student"]["value"] == pytest.approx(0.6)
    assert whole["student"]["interval"] == pytest.approx(np.percentile(np.mean(scaled, 0), [2.5, 97.5]))
    assert (whole["scratch"]["value"], whole["oracle"]["value"]) == (0, 1)


def test_the_average_over_tasks_is_the_mean(tmp_path):
    """0.9, 0.2 and 0.1 of the way from scratch to the oracle."""
    gains = dict(zip(TASKS, (9.0, 2.0, 1.0), strict=True))
    runs = [transfer(n, c) for n in ("scratch", "oracle") for c in TASKS]
    runs += [transfer("student", c, gain=g) for c, g in gains.items()]
    found = table(made(tmp_path, *runs), "backbone")["normalised_average"]["student"]
    assert found["value"] == pytest.approx(0.4)


def test_an_average_is_blank_where_a_task_is_missing(tmp_path):
    runs = [
        r for r in everything() if (r["representation"]["name"], r["downstream"]["name"]) != ("student", "down-boxes")
    ]
    found = table(made(tmp_path, *runs), "backbone")
    assert found["cells"]["student"]["down-boxes"] is None
    assert found["normalised"]["student"]["down-boxes"]["value"] is None
    assert found["normalised_average"]["student"]["value"] is None
    assert "student was not measured on down-boxes" in found["normalised_average"]["student"]["why"]
    assert found["normalised_average"]["specialist-a"]["value"] == pytest.approx(0.4)
    rows = cells_of((tmp_path / "out" / "report.md").read_text(), "Fine-tuned end to end: backbone")
    assert rows["student"][0] == ""
    assert rows["student"][1] != ""


@pytest.mark.parametrize("gone", ["scratch", "oracle"])
def test_without_an_end_of_the_scale_there_is_no_scale(tmp_path, gone):
    numbers = made(tmp_path, *[r for r in everything() if r["representation"]["name"] != gone])
    found = table(numbers, "backbone")
    assert {x["value"] for row in found["normalised"].values() for x in row.values()} == {None}
    assert {x["value"] for x in found["normalised_average"].values()} == {None}
    assert any(gone in n for n in numbers["notes"])


def test_an_oracle_that_is_no_better_than_scratch_gives_no_scale_and_a_shorter_average_says_so(tmp_path):
    runs = [
        transfer("oracle", c, gain=-1.0 if c == "down-distance" else 10.0) if n == "oracle" else transfer(n, c)
        for n in QUALITY
        for c in TASKS
    ]
    found = table(made(tmp_path, *runs), "backbone")
    assert found["normalised"]["student"]["down-distance"]["value"] is None
    assert "not better than scratch" in found["normalised"]["student"]["down-distance"]["why"]
    assert found["normalised_average"]["student"]["value"] is None
    assert found["normalised_average_of_scored"]["tasks"] == ["down-boxes", "down-classes"]
    assert found["normalised_average_of_scored"]["student"]["value"] == pytest.approx(0.6)


def test_a_scale_that_a_resample_turns_round_has_no_interval(tmp_path):
    runs = everything()
    for r in runs:
        if r["representation"]["name"] == "oracle":
            r["results"][0]["tests"][0]["resamples"][3] = -100.0
    score = table(made(tmp_path, *runs), "backbone")["normalised"]["student"]["down-boxes"]
    assert score["value"] == pytest.approx(0.6)
    assert score["interval"] is None
    assert "every resample" in score["why"]


def test_wins_ties_and_losses_by_paired_differences(tmp_path):
    gains = {"down-boxes": 5.9, "down-classes": 9.0, "down-distance": 2.0}
    rivals = [transfer("specialist-a", c, gain=g) for c, g in gains.items()]
    ours = [transfer("student", c) for c in TASKS]
    (found,) = [m for m in table(made(tmp_path, *rivals, *ours), "backbone")["wins"] if m["against"] == "specialist-a"]
    assert (found["wins"], found["ties"], found["losses"], found["undecided"], found["of"]) == (1, 1, 1, 0, 3)
    for a, b, (column, (_, higher, _)) in zip(ours, rivals, TASKS.items(), strict=True):
        paired = (resamples(a)[0] - resamples(b)[0]) * (1 if higher else -1)
        said = found["differences"][column]
        assert said["interval"] == pytest.approx(np.percentile(paired, [2.5, 97.5]))
        assert said["verdict"] == {"down-boxes": "tie", "down-classes": "loss", "down-distance": "win"}[column]
    # the intervals of the two alone overlap by far: only pairing tells them apart
    cells = table(json.loads((tmp_path / "out" / "report.json").read_text()), "backbone")["cells"]
    assert cells["student"]["down-distance"]["interval"][1] > cells["specialist-a"]["down-distance"]["interval"][0]


def test_the_best_specialist_is_chosen_for_every_task(tmp_path):
    a = [transfer("specialist-a", c, gain=5.0 if c == "down-boxes" else 1.0) for c in TASKS]
    b = [transfer("specialist-b", c, gain=1.0 if c == "down-boxes" else 5.0) for c in TASKS]
    ours = [transfer("student", c) for c in TASKS]
    matches = table(made(tmp_path, *a, *b, *ours), "backbone")["wins"]
    (found,) = [m for m in matches if m["against"] == "the best specialist per task"]
    assert found["rivals"] == {
        "down-boxes": "specialist-a",
        "down-classes": "specialist-b",
        "down-distance": "specialist-b",
    }
    assert {c: round(d["value"], 6) for c, d in found["differences"].items()} == {
        "down-boxes": 1.0,
        "down-classes": 1.0,
        "down-distance": 0.01,
    }


def test_only_a_clear_best_is_bold(tmp_path):
    runs = [transfer("specialist-a", c, gain=5.95 if c == "down-boxes" else 1.0) for c in TASKS]
    runs += [transfer("student", c) for c in TASKS] + [transfer("oracle", c) for c in TASKS]
    best = table(made(tmp_path, *runs), "backbone")["best"]
    assert best["down-boxes"] == {"winner": None, "ties": ["student", "specialist-a"]}
    assert best["down-classes"] == {"winner": "student", "ties": []}  # the oracle does not compete
    assert best["down-distance"] == {"winner": "student", "ties": []}
    rows = cells_of((tmp_path / "out" / "report.md").read_text(), "Fine-tuned end to end: backbone")
    assert rows["student"][1].startswith("**66.00**")
    assert rows["student"][0].startswith("36.00 =")
    assert rows["specialist-a"][0].startswith("35.95 =")
    assert rows["oracle"][1].startswith("70.00 [")
    assert rows["student"][2].startswith("**0.240**")  # no percentage: three decimals


def test_the_better_parts_are_chosen_on_validation_not_on_test(tmp_path):
    run = transfer("student", "down-boxes")
    for result in run["results"]:  # the pyramid tests better, the backbone validates better
        for t in result["sweep"]:
            t["validation"] = 50.0 if result["parts"] == "backbone" else 40.0
    numbers = made(tmp_path, run)
    assert table(numbers, "better")["cells"]["student"]["down-boxes"]["parts"] == "backbone"
    assert table(numbers, "pyramid")["cells"]["student"]["down-boxes"]["mean"] > 36.1


def test_the_better_parts_of_an_error_are_those_with_less_of_it(tmp_path):
    numbers = made(tmp_path, transfer("student", "down-distance"))
    assert table(numbers, "better")["cells"]["student"]["down-distance"]["parts"] == "pyramid"


def test_the_better_parts_are_judged_by_the_cell_that_was_chosen(tmp_path):
    run = transfer("student", "down-boxes")
    for result in run["results"]:  # the pyramid's other cells validate better than all of the backbone's
        for t in result["sweep"]:
            best = {k: t[k] for k in ("lr", "steps")} == result["chosen"]
            t["validation"] = (50.0 if best else 10.0) if result["parts"] == "backbone" else (40.0 if best else 45.0)
    assert table(made(tmp_path, run), "better")["cells"]["student"]["down-boxes"]["parts"] == "backbone"


def test_label_budgets_and_modes_stay_apart(tmp_path):
    few = [
        transfer("student", "down-boxes", gain=g, budget={"shots": n, "fraction": None, "images": 10 * n})
        for n, g in ((1, 1.0), (5, 3.0))
    ]
    tenth = transfer("student", "down-classes", gain=2.0, budget={"shots": None, "fraction": 0.1, "images": 50})
    probe = transfer("student", "down-classes", parts=("backbone",), mode="knn")
    for t in (probe["results"][0], *probe["results"]):
        t["chosen"] = {"setting": 20}
        t["sweep"] = [{"setting": k, "seed": 0, "validation": 50.0 + k, "failed": None} for k in (10, 20)]
    numbers = made(tmp_path, transfer("student", "down-boxes"), *few, tenth, probe)
    main = table(numbers, "backbone")["cells"]["student"]
    assert main["down-boxes"]["mean"] == pytest.approx(36.0)  # all labels, where there are several budgets
    assert main["down-classes"]["mean"] == pytest.approx(62.0)  # the only budget
    assert table(numbers, "backbone", budget="5 shots")["cells"]["student"]["down-boxes"]["mean"] == pytest.approx(33.0)
    assert table(numbers, "backbone", mode="knn")["cells"]["student"]["down-classes"]["validation"] == 70.0
    (curve,) = [c for c in numbers["label_curves"] if c["parts"] == "backbone"]
    points = [(p["images"], round(p["mean"], 6)) for p in curve["curves"]["student"]]
    assert (curve["downstream"], points) == ("down-boxes", [(10, 31.0), (50, 33.0), (500, 36.0)])


def test_several_small_budgets_without_all_labels_leave_the_main_table_blank(tmp_path):
    few = [transfer("student", "down-boxes", budget={"shots": n, "fraction": None, "images": 10 * n}) for n in (1, 5)]
    found = table(made(tmp_path, *few, transfer("student", "down-classes")), "backbone")
    assert found["cells"]["student"]["down-boxes"] is None
    assert any("down-boxes: no run with all labels" in b for b in found["blanks"])


def test_validation_over_steps_is_that_of_the_chosen_rate(tmp_path):
    found = table(made(tmp_path, transfer("student", "down-boxes")), "backbone")["validation_by_steps"]
    want = [[s, 30 + 6 + s / 200 - 0.05] for s in (100, 200, 400)]
    assert np.array(found["student"]["down-boxes"]) == pytest.approx(np.array(want))


def test_compute_counts_shared_things_once_and_leaves_unknown_sums_blank(tmp_path):
    runs = [transfer("student", c, seed=s) for c in TASKS for s in (0, 1)]
    runs += [transfer("scratch", "down-boxes"), transfer("specialist-a", "down-boxes")]
    runs[-1]["compute"]["representation"] = None
    numbers = made(tmp_path, *runs)["compute"]
    lines = {x["name"]: x for x in numbers["student"]}
    assert (lines["pretraining 1"]["images"], lines["pretraining 2"]["images"]) == (100_000, 100_001)
    assert lines["teacher boxes"]["images"] == 7000
    assert lines["6 transfers"]["images"] == 6 * 4800
    assert lines["total"] == {
        "name": "total",
        "images": 100_000 + 100_001 + 7000 + 6 * 4800,
        "flops": pytest.approx(4e15 + 3e14 + 6e12),
        "seconds": pytest.approx(2 * 3600.5 + 60 + 6 * 18),
    }
    assert {x["name"]: x["images"] for x in numbers["scratch"]} == {"1 transfer": 4800, "total": 4800}
    unknown = {x["name"]: x["images"] for x in numbers["specialist-a"]}
    assert unknown == {"pretraining": None, "1 transfer": 4800, "total": None}
    rows = [x for x in (tmp_path / "out" / "report.md").read_text().splitlines() if x.startswith("| specialist-a | ")]
    assert "| specialist-a | pretraining |  |  |  |" in rows


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=60))
def test_an_interval_lies_within_its_samples(samples):
    low, high = interval(np.array(samples))
    assert min(samples) <= low <= high <= max(samples)


# ----------------------------------------------------------------------------------------- what a reader must be told


def test_unequal_conditions_are_said(tmp_path):
    runs = [transfer(n, "down-boxes") for n in ("scratch", "student", "oracle")]
    runs[1]["results"][0]["sweep"] = runs[1]["results"][0]["sweep"][3:]
    runs[2]["representation"]["backbone"] = "resnet50"
    runs[0]["budget"]["images"] = 400
    runs[0]["results"][1]["sweep"][0] |= {"failed": "the loss was nan at step 7", "validation": None}
    notes = "\n".join(made(tmp_path, *runs)["notes"])
    for said in ("resnet50: oracle", "not of equal size", "400: scratch", "1 cell of sweeps failed"):
        assert said in notes
    assert "the loss was nan at step 7" in (tmp_path / "out" / "report.md").read_text()


def test_what_cannot_be_paired_is_not_compared(tmp_path):
    ours, other = transfer("student", "down-boxes"), transfer("specialist-a", "down-boxes")
    other["results"][0]["tests"][0]["resamples"] = other["results"][0]["tests"][0]["resamples"][:200]
    other["results"][1]["tests"][0]["unreadable"] = [["a.png", "truncated"]]
    numbers = made(tmp_path, ours, other)
    for parts, why in (("backbone", "different numbers of resamples"), ("pyramid", "could not be read")):
        found = table(numbers, parts)
        assert found["wins"][0]["undecided"] == 1
        assert found["wins"][0]["differences"]["down-boxes"]["interval"] is None
        assert found["best"]["down-boxes"] == {"winner": None, "ties": []}
        assert any(why in b for b in found["blanks"])


def older(x):
    """As a version wrote it whose resamples were a bootstrap's."""
    for r in x["results"]:
        for t in r["tests"]:
            del t["left_out"]
    return x


def test_resamples_of_an_older_version_are_not_paired_with_newer_ones(tmp_path):
    ours, other = transfer("student", "down-boxes"), older(transfer("specialist-a", "down-boxes"))
    numbers = made(tmp_path, ours, other)
    found = table(numbers, "backbone")
    assert found["wins"][0]["undecided"] == 1
    assert any("bootstrap of an older version" in b for b in found["blanks"])
    assert any("specialist-a are by the bootstrap" in n for n in numbers["notes"])
    assert found["cells"]["specialist-a"]["down-boxes"]["interval"] is not None
    assert numbers["runs"][1]["results"][0]["tests"][0]["drawn"] == "bootstrap"
    # two old ones still are
    both = [older(transfer(n, "down-boxes")) for n in ("student", "specialist-a")]
    found = table(made(tmp_path / "old", *both), "backbone")
    assert found["wins"][0]["wins"] == 1
    # and a seed that was added to an old one is pooled, without an interval
    mixed = transfer("student", "down-boxes", seeds=(0, 1), parts=("backbone",))
    del mixed["results"][0]["tests"][0]["left_out"]
    found = table(made(tmp_path / "mixed", mixed, transfer("scratch", "down-boxes")), "backbone")
    assert found["cells"]["student"]["down-boxes"]["mean"] == pytest.approx(36.1)
    assert found["cells"]["student"]["down-boxes"]["interval"] is None
    assert any("others by the jackknife" in b for b in found["blanks"])


def test_an_older_interval_that_excludes_its_own_score_is_not_shown(tmp_path):
    run = older(transfer("student", "down-boxes", parts=("backbone",)))
    (test,) = run["results"][0]["tests"]
    test["scores"]["AP50"], test["resamples"] = 5.20, np.linspace(5.25, 10.6, 41).tolist()
    found = table(made(tmp_path, run, transfer("scratch", "down-boxes")), "backbone")
    assert found["cells"]["student"]["down-boxes"]["mean"] == 5.20
    assert found["cells"]["student"]["down-boxes"]["interval"] is None
    assert any("excludes the score itself" in b and "[5.38, 10.47]" in b for b in found["blanks"])


@pytest.mark.parametrize("change", ["null score", "no test", "no resamples", "nan resample"])
def test_what_was_not_measured_is_blank(tmp_path, change):
    run = transfer("student", "down-boxes", parts=("backbone",))
    (result,) = run["results"]
    if change == "null score":
        result["tests"][0]["scores"]["AP50"] = None
    elif change == "no test":
        result |= {"tests": [], "chosen": None, "sweep": [t | {"failed": "nan"} for t in result["sweep"]]}
    else:
        result["tests"][0]["resamples"] = [] if change == "no resamples" else [30.0, None, 31.0]
    found = table(made(tmp_path, run, transfer("scratch", "down-boxes")), "backbone")
    cell = found["cells"].get("student", {}).get("down-boxes")
    if change in ("null score", "no test"):
        assert cell is None
    else:
        assert cell["mean"] == 36.0
        assert cell["interval"] is None
    assert any("student on down-boxes" in b for b in found["blanks"])


# ------------------------------------------------------------------------------------------------------------ who won


def test_who_won_is_said_in_sentences(tmp_path):
    gains = {"down-boxes": 5.9, "down-classes": 9.0, "down-distance": 2.0}
    runs = [transfer("specialist-a", c, gain=g, parts=("backbone",)) for c, g in gains.items()]
    runs += [transfer(n, c, parts=("backbone",)) for n in ("student", "oracle") for c in TASKS]
    numbers = made(tmp_path, *runs)
    said = numbers["in_short"]
    assert "Against specialist-a, student wins in 1, ties in 1 and loses in 1 of 3 tasks." in said
    assert "Against oracle, student loses in 3 of 3 tasks." in said
    (boxes,) = [x for x in said if x.startswith("down-boxes")]
    assert boxes == "down-boxes: student is at AP50 36.00; the test images cannot tell it from specialist-a: a tie."
    (classes,) = [x for x in said if x.startswith("down-classes")]
    a, b = (resamples(next(r for r in runs if of(r) == (n, "down-classes"))) for n in ("specialist-a", "student"))
    low, high = np.percentile(a[0] - b[0], [2.5, 97.5])
    assert classes == (
        "down-classes: specialist-a is at top-1 69.00 and wins: it is better than the second, student, by 3.00 "
        f"[{low:.2f}, {high:.2f}]."
    )
    (distance,) = [x for x in said if x.startswith("down-distance")]
    assert "student is at AbsRel 0.240 and wins: it is better than the second, specialist-a, by 0.040 [0.0" in distance
    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert all(x in text for x in said)
        assert text.index(said[1]) < text.index("Mean of the tests")


def of(run):
    return run["representation"]["name"], run["downstream"]["name"]


def test_without_a_student_the_one_that_leads_is_compared_with_all(tmp_path):
    """So that there is always the interval of a difference."""
    gains = {"scratch": (0.0, 0.0), "mine": (5.0, 1.0), "other": (1.0, 1.4), "third": (3.0, 0.0), "oracle": (9.0, 9.0)}
    names = ("scratch", "specialist-a", "specialist-b", "student", "oracle")
    runs = []
    for name, (boxes, classes) in gains.items():
        for column, gain in (("down-boxes", boxes), ("down-classes", classes)):
            x = transfer(names[list(gains).index(name)], column, gain=gain, parts=("backbone",))
            x["representation"] |= {"name": name, "sha256": None if name == "scratch" else name}
            runs.append(x)
    found = table(made(tmp_path, *runs), "backbone")
    assert found["ours"] == "mine"  # the first of the two that lead in one task each
    assert [m["against"] for m in found["wins"]] == ["scratch", "other", "third", "oracle"]
    for m in found["wins"]:
        for d in m["differences"].values():
            assert d["interval"][0] <= d["value"] <= d["interval"][1]
    written = (tmp_path / "out" / "report.md").read_text()
    assert "mine is the best in the most tasks, chosen with hindsight; --ours compares another" in written
    assert re.search(r"^\| third \|.*\| \+2\.00 win \[\d", written, flags=re.M)
    found = table(made(tmp_path / "given", *runs, ours="third"), "backbone")
    assert found["ours"] == "third"
    assert "--ours compares another" not in (tmp_path / "given" / "out" / "report.md").read_text()


def test_one_representation_has_nobody_to_win_against(tmp_path):
    numbers = made(tmp_path, transfer("student", "down-boxes", parts=("backbone",)))
    assert "Only student was tested, so there is nothing to compare with." in numbers["in_short"]
    assert table(numbers, "backbone")["ours"] is None


def test_two_scores_without_intervals_are_not_called_a_win(tmp_path):
    runs = [transfer(n, "down-boxes", parts=("backbone",)) for n in ("student", "scratch")]
    for r in runs:
        r["results"][0]["tests"][0] |= {"resamples": [], "left_out": []}
    said = made(tmp_path, *runs)["in_short"]
    assert "Against scratch, student is undecided (no interval) in 1 of 1 task." in said
    assert said[-1] == (
        "down-boxes: student is at AP50 36.00, better than scratch by 6.00; whether that is chance cannot be said "
        "without an interval."
    )


def test_without_an_oracle_there_is_no_empty_table(tmp_path):
    runs = [r for r in everything() if r["representation"]["name"] != "oracle"]
    made(tmp_path, *runs)
    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "Normalised score:" not in text
        assert "normalised average" not in text.lower().replace("no normalised average", "")
        assert "No normalised scores: no oracle in this table" in text
    page_ = ET.fromstring((tmp_path / "out" / "report.html").read_text())
    for t in page_.iter("{http://www.w3.org/1999/xhtml}table"):
        cells = ["".join(x.itertext()) for x in t.iter("{http://www.w3.org/1999/xhtml}td")]
        assert any(cells)


# ----------------------------------------------------------------------------------------------------------- the page


def picture(path, colour, size=(60, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


NASTY = "<script>alert(1)</script>\"'&|`\x00\ud800](http://x.y){{ 7 * 191 }}{% if %}"


def test_the_page_stands_alone_and_is_well_formed(tmp_path):
    few = {"shots": 5, "fraction": None, "images": 50}
    runs = [*everything(seeds=(0, 1)), transfer("student", "down-boxes", gain=1, budget=few)]
    runs[-1]["command"] = "polyteach transfer --init https://example.org/weights"
    runs[0]["examples"] = ["examples/pyramid-0.png"]
    root = write(tmp_path / "runs", *runs)
    picture(root / "000" / "examples" / "pyramid-0.png", "red")
    report([str(root)], out=str(tmp_path / "out"))
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    ET.fromstring(text)  # every tag is closed, every attribute quoted, every entity known
    found = Reader(text)
    assert all(x.startswith(("#", "data:image/")) for x in found.fetched), found.fetched
    assert any(x.startswith("data:image/png") for x in found.fetched)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(found.tags)
    assert not re.search(r"url\(|@import", text)
    targets = [x[1:] for x in found.fetched if x.startswith("#")]
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert set(targets) <= set(ids)
    assert found.tags.count("table") == found.tags.count("caption") > 5
    drawn = [x for x in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}svg") if x.get("role") == "img"]
    assert len(drawn) > 10
    for svg in drawn:
        kinds = [x.tag.rpartition("}")[2] for x in svg[:2]]
        assert kinds == ["title", "desc"]
        assert svg[0].get("id") in svg.get("aria-labelledby")


def test_nothing_from_a_file_becomes_markup(tmp_path):
    runs = [transfer("student", "down-boxes"), transfer("scratch", "down-boxes")]
    for r in runs[:1]:
        r["representation"]["name"] = r["command"] = r["representation"]["init"] = r["date"] = NASTY
        r["machine"] = {NASTY: NASTY}
        r["results"][0]["sweep"][0] |= {"failed": NASTY}
        r["results"][0]["tests"][0]["scores"][NASTY] = 3.0
        r["compute"]["teachers"] = [{"name": NASTY, "images": 1, "flops": None, "seconds": 1}]
    for r in runs:
        r["downstream"] |= dict.fromkeys(("name", "store", "task", "objective"), NASTY)
    numbers = made(tmp_path, *runs, title=NASTY, ours=NASTY)
    assert NASTY in numbers["representations"]  # JSON keeps it as it is
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    ET.fromstring(text)
    found = Reader(text)
    assert "script" not in found.tags
    assert not [x for x in found.fetched if not x.startswith("#")]
    assert any("<script>alert(1)</script>" in x for x in found.text)
    assert "{{ 7 * 191 }}{% if %}" in text  # nor is it an instruction of the template
    assert "1337" not in text
    written = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "<script" not in written
    assert "](http" not in written.replace("\\](http", "")
    for block in re.findall(r"(?:^\|.*\n)+", written, flags=re.M):  # no cell ends early
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_pictures_of_one_test_image_stand_together(tmp_path):
    runs = [transfer(n, "down-boxes") for n in ("scratch", "student")]
    for r in runs:
        r["examples"] = [f"examples/{p}-{k}.png" for p in ("backbone", "pyramid") for k in (0, 1, 10)]
    root = write(tmp_path / "runs", *runs)
    for n in (0, 1):
        for p in ("backbone", "pyramid"):
            for k in (0, 1, 10):
                if (n, k) != (1, 1):
                    picture(root / f"{n:03d}/examples/{p}-{k}.png", (100 * n, 10 * k, len(p)), (2000, 30))
    report([str(root)], out=str(tmp_path / "out"), examples=2)
    text = (tmp_path / "out" / "report.html").read_text()
    assert re.findall(r'<img alt="([^"]*)"', text) == [
        "scratch, down-boxes, 0.png",
        "student, down-boxes, 0.png",
        "scratch, down-boxes, 1.png",
    ]
    assert "not there" in text
    assert "001/examples" in text
    for data in re.findall(r'src="data:image/\w+;base64,([^"]*)"', text):
        shown = Image.open(io.BytesIO(base64.b64decode(data)))
        assert shown.width <= 960
        # the pyramid validates better here; its pictures have more blue in them than the backbone's
        assert abs(shown.convert("RGB").getpixel((5, 5))[2] - len("pyramid")) <= 3


def test_the_same_runs_give_the_same_bytes_also_over_an_older_report(tmp_path):
    root = write(tmp_path / "runs", *everything())
    first = {}
    for out in ("a", "a", "b"):
        report([str(root)], out=str(tmp_path / out))
        now = {f.name: f.read_bytes() for f in sorted((tmp_path / out).iterdir())}
        assert set(now) == {"report.html", "report.md", "report.json"}
        first = first or now
        assert now == first


def test_a_folder_with_other_things_keeps_them_and_another_verbs_folder_is_refused(tmp_path):
    root = write(tmp_path / "runs", transfer("student", "down-boxes"))
    report([str(root)], out=str(root))  # runs below, the report beside them
    report([str(root)], out=str(root))
    with pytest.raises(ValueError, match=r"holds transfer\.json.*another --out"):
        report([str(root)], out=str(root / "000"))
    assert sorted(f.name for f in (root / "000").iterdir()) == ["transfer.json"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.html").write_text("my own")
    with pytest.raises(ValueError, match=r"report\.html that `polyteach report` did not write"):
        report([str(root)], out=str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "report.html").read_text() == "my own"
    with pytest.raises(ValueError, match="is a file"):
        report([str(root)], out=str(tmp_path / "mine" / "report.html"))


def test_from_the_command_line(tmp_path):
    root = write(tmp_path / "runs", transfer("student", "down-boxes"), transfer("scratch", "down-boxes"))
    command = [
        sys.executable,
        "-m",
        "polyteach",
        "report",
        str(root),
        "--out",
        str(tmp_path / "out"),
        "--ours",
        "student",
    ]
    subprocess.run(command, check=True, capture_output=True)
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert numbers["ours"] == "student"
    (root / "000" / "transfer.json").write_text("{")
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 2
    assert "000/transfer.json is not valid JSON" in again.stderr
    assert numbers == json.loads((tmp_path / "out" / "report.json").read_text())  # the older report is whole


# ---------------------------------------------------------------------------------------------------------- bad input


def test_paths_from_python(tmp_path):
    root = write(tmp_path / "runs", *everything())
    file = report(root, out=tmp_path / "one")
    assert file == str(tmp_path / "one" / "report.html")
    report([root], out=str(tmp_path / "two"))
    one, two = ((tmp_path / n / "report.md").read_text() for n in ("one", "two"))
    assert one == two


def test_nothing_to_report_on(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        report([str(tmp_path / "none")], out=str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"no transfer\.json below"):
        report([str(tmp_path)], out=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="no folder given"):
        report([], out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def without(x, path):
    """A deep copy that lacks one field."""
    x = copy.deepcopy(x)
    at = x
    *above, last = path.split(".")
    for key in above:
        at = at[int(key) if key.isdigit() else key]
    del at[last]
    return x


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("verb", "verb is missing"),
        ("representation.name", "representation.name is missing"),
        ("downstream.metric", "downstream.metric is missing"),
        ("downstream.higher_is_better", "downstream.higher_is_better is missing"),
        ("budget.images", "budget.images is missing"),
        ("results", "results is missing"),
        ("results.1.parts", r"results\[1\].parts is missing"),
        ("results.0.tests.0.scores.AP50", r"results\[0\].tests\[0\].scores.AP50 is missing"),
        ("results.0.tests.0.resamples", r"results\[0\].tests\[0\].resamples is missing"),
        ("results.0.sweep.2.lr", r"results\[0\].sweep\[2\].lr is missing"),
        ("compute.transfer.flops", "compute.transfer.flops is missing"),
        ("command", "command is missing"),
    ],
)
def test_a_missing_field_is_an_error_that_names_file_and_field(tmp_path, path, said):
    root = write(tmp_path / "runs", without(transfer("student", "down-boxes"), path))
    with pytest.raises(ValueError, match=rf"000/transfer.json: {said}.*[Mm]ake it again"):
        report([str(root)], out=str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verb": "train"}, "verb must be one of transfer"),
        ({"representation": []}, "representation must be an object"),
        ({"results": {}}, "results must be a list"),
        ({"command": 3}, "command must be text"),
        ({"budget": {"shots": True, "fraction": None, "images": 3}}, "budget.shots must be a whole number or null"),
        ({"budget": {"shots": None, "fraction": float("nan"), "images": 3}}, "budget.fraction must be finite"),
        ({"examples": ["../../secret.png"]}, r"examples\[0\] must lie in the folder"),
        ({"examples": ["/etc/passwd"]}, r"examples\[0\] must lie in the folder"),
        ({"test_sha256": "another"}, "test_sha256 differs"),
    ],
)
def test_a_field_of_the_wrong_kind_is_an_error_that_names_it(tmp_path, change, said):
    root = write(tmp_path / "runs", transfer("student", "down-boxes") | change)
    with pytest.raises(ValueError, match=rf"000/transfer.json: {said}"):
        report([str(root)], out=str(tmp_path / "out"))


def test_a_list_is_no_transfer(tmp_path):
    root = write(tmp_path / "runs", [])
    with pytest.raises(ValueError, match=r"000/transfer.json: the file must be an object"):
        report([str(root)], out=str(tmp_path / "out"))


def test_an_example_that_is_no_picture_is_an_error(tmp_path):
    root = write(tmp_path / "runs", transfer("student", "down-boxes") | {"examples": ["0.png"]})
    (root / "000" / "0.png").write_text("<svg/>")
    with pytest.raises(ValueError, match=r"000/0\.png .*is not a PNG, JPEG or WebP"):
        report([str(root)], out=str(tmp_path / "out"))


def test_different_test_sets_are_not_compared(tmp_path):
    one, other = transfer("student", "down-boxes"), transfer("scratch", "down-boxes")
    other["test_sha256"] = other["downstream"]["test_sha256"] = "others"
    root = write(tmp_path / "runs", one, other)
    with pytest.raises(
        ValueError, match=r"test_sha256 of 'down-boxes'.*000/transfer\.json.*others in .*001/transfer\.json"
    ):
        report([str(root)], out=str(tmp_path / "out"))


def test_different_metrics_and_networks_of_one_name_are_errors(tmp_path):
    one, other = transfer("student", "down-boxes"), transfer("student", "down-classes")
    other["representation"]["backbone"] = "resnet50"
    with pytest.raises(ValueError, match=r"representation\.backbone of 'student'"):
        report([str(write(tmp_path / "a", one, other))], out=str(tmp_path / "out"))
    other = transfer("scratch", "down-classes")
    other["downstream"]["name"] = "down-boxes"
    with pytest.raises(ValueError, match=r"test_sha256 of 'down-boxes'"):
        report([str(write(tmp_path / "b", one, other))], out=str(tmp_path / "out"))
    other["test_sha256"] = other["downstream"]["test_sha256"] = one["test_sha256"]
    with pytest.raises(ValueError, match=r"downstream\.metric of 'down-boxes'"):
        report([str(write(tmp_path / "c", one, other))], out=str(tmp_path / "out"))


def test_the_same_test_twice_is_an_error_but_the_same_file_twice_is_not(tmp_path):
    run = transfer("student", "down-boxes")
    root = write(tmp_path / "runs", run)
    report([str(root), str(root / "000"), str(root / "000" / "transfer.json")], out=str(tmp_path / "out"))
    assert len(json.loads((tmp_path / "out" / "report.json").read_text())["runs"]) == 1
    write(root, run)
    with pytest.raises(ValueError, match=r"001/transfer\.json and .*000/transfer\.json hold the same test twice"):
        report([str(root)], out=str(tmp_path / "out"))


@pytest.mark.parametrize("option", ["scratch", "oracle", "ours"])
def test_an_unknown_representation_is_an_error_that_lists_them(tmp_path, option):
    root = write(tmp_path / "runs", transfer("student", "down-boxes"))
    with pytest.raises(ValueError, match=rf"unknown representation --{option} 'studnet'; there are student"):
        report([str(root)], out=str(tmp_path / "out"), **{option: "studnet"})
    with pytest.raises(ValueError, match="two different ends"):
        report([str(root)], out=str(tmp_path / "out"), scratch="student", oracle="student")


# ------------------------------------------------------------------------------------------------------------- charts


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=12, unique_by=lambda p: p[0]),
    st.booleans(),
    st.booleans(),
)
def test_every_point_of_a_chart_is_inside_it(points, log_x, log_y):
    series = [charts.Series("a < b", 3, tuple(charts.Point(x, y, y - 1, y + 1) for x, y in sorted(points)))]
    svg = ET.fromstring(charts.lines("t", series, "x", "y", "k", log_x, log_y))
    line = svg.find(".//{*}polyline").get("points").split()
    places = [tuple(map(float, p.split(","))) for p in line]
    assert len(places) == len(points)
    assert all(charts.LEFT <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT - charts.BOTTOM + 0.1 for x, y in places)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    by_y = sorted(range(len(points)), key=lambda i: sorted(points)[i][1])
    heights = [places[i][1] for i in by_y]
    assert heights == sorted(heights, reverse=True)  # up is more
    labels = list(svg.iter("{http://www.w3.org/2000/svg}text"))
    assert len(labels) >= 3


def test_series_are_told_apart_without_colour():
    drawn = {re.sub(r'class="c\d"', "", charts.swatch(i)) for i in range(5)}
    assert len(drawn) == 5
    assert len({charts.swatch(i) for i in range(30)}) == 30


def test_the_colours_have_contrast_in_light_and_dark():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    papers = re.findall(r"--paper: (#\w{6})", html_page("", [], "", ""))
    colours = re.findall(r"--c\d: (#\w{6})", charts.STYLE)
    assert len(papers) == 2
    assert len(colours) == 2 * charts.COLOURS
    for i, colour in enumerate(colours):
        light, dark = sorted((luminance(colour), luminance(papers[i // charts.COLOURS])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3  # WCAG 2.2, 1.4.11


@given(st.text(st.characters(exclude_characters="\\"), max_size=30))
def test_any_text_survives_on_a_page(text):
    block = Table(text, (text, "n"), ((text, (Cell(text, (text,), "best"),)),))
    made = html_page(text, [Section(text, (block, Text(text)))], "", "test")
    root = ET.fromstring(made)
    found = "".join(root.find(".//{*}td/{*}strong").itertext()) if text else ""
    # what cannot be seen is escaped as in JSON
    assert json.loads(json.dumps(found).replace("\\\\u", "\\u").replace("\\\\r", "\\r")) == text
