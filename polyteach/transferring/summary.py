"""transfer.json: what was found, what it cost, and everything that it came from."""

import math
import platform
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from polyteach.ground.jackknife import interval
from polyteach.ground.texts import say
from polyteach.transferring.job import Job
from polyteach.transferring.options import OFF
from polyteach.transferring.record import command, read_made, read_spent
from polyteach.transferring.scoring import Scores
from polyteach.version import __version__

Values = dict[str, Any]


def as_json(scores: Scores, seed: int) -> Values:
    """test.json: the scores of one network; null for a number that is not finite."""
    plain = {k: v if math.isfinite(v) else None for k, v in scores.scores.items()}
    drawn, left = ([v if math.isfinite(v) else None for v in x] for x in (scores.resamples, scores.left_out))
    unreadable = [list(f) for f in scores.failed]
    return {"seed": seed, "scores": plain, "resamples": drawn, "left_out": left, "unreadable": unreadable}


def result(part: str, chosen: Values, sweep: list[Values], tests: list[Values], metric: str) -> Values:
    """What one kind of parts came to: the sweep, what it chose, and every test with mean, spread and interval."""
    values = [t["scores"][metric] for t in tests]
    usable = all(v is not None for v in values)
    # null where the metric is undefined: then there is no interval, and `report` says why; nor is there with a test
    # of an older version, whose resamples were drawn otherwise
    drawn = [v for t in tests for v in t["resamples"]]
    alike = len({("left_out" in t, len(t["resamples"])) for t in tests}) == 1
    paired = zip(*(t["resamples"] for t in tests), strict=True) if usable and alike and None not in drawn else ()
    means = [fmean(v) for v in paired]
    return {
        "parts": part,
        "chosen": chosen,
        "sweep": sweep,
        "tests": tests,
        "mean": fmean(values) if usable else None,
        "spread": stdev(values) if usable and len(values) > 1 else None,
        "interval": interval(means) if means else None,
    }


def summary(job: Job, results: list[Values], config: Values) -> Values:
    """transfer.json. config: what config.json says."""
    s, d = job.setup, job.downstream
    off = [k for k, v in OFF.items() if s.options()[k] == v]
    run = Path(s.init) if s.init and Path(s.init).is_dir() else None
    made = read_made(run) if run else {}
    return {
        "verb": "transfer",
        "polyteach": __version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": command(
            "transfer", s.options(), "store", ["protocol", *off]
        ),  # all that a protocol says is spelled out
        "machine": {
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": job.device,
            "torch": torch.__version__,
        },
        "representation": {
            "name": s.name,
            "init": s.init,
            "backbone": s.backbone,
            "sha256": config["init_sha256"],
            "pretraining_seed": made.get("seed"),
            "command": made.get("command"),
        },
        "downstream": {
            "name": s.downstream,
            "store": s.store,
            "task": d.task.name,
            "objective": d.name,
            "metric": d.metric,
            "higher_is_better": d.higher,
            "train_images": len(d.images.train),
            "validation_images": len(d.images.validation),
            "test_images": len(d.images.test),
            "classes": len(d.objective.space.names),
            "test_sha256": config["data"]["test"],
        },
        "budget": {"shots": s.shots, "fraction": s.fraction, "images": len(job.train(s.seeds[0]))},
        "mode": s.mode,
        "results": results,
        "test_sha256": config["data"]["test"],
        "compute": {
            "transfer": _spent(job.folder),
            "representation": made.get("compute"),
            "teachers": made.get("teachers", []),
        },
        "examples": sorted(str(f.relative_to(job.folder)) for f in (job.folder / "examples").glob("*.png")),
        "seeds": list(s.seeds),
    }


def _spent(folder: Path) -> Values:
    """What all networks of the transfer have cost."""
    cells = [read_spent(f) for f in sorted((folder / "cells").glob("*/cell.json"))]
    known = [c.get("flops") for c in cells]
    return {
        "images": sum(c["images"] for c in cells),
        "flops": sum(k or 0 for k in known) if known and all(k is not None for k in known) else None,
        "seconds": round(sum(c["seconds"] for c in cells), 1),
    }


def tell(found: Values, file: Path) -> None:
    """Print what transfer.json says."""
    about, lines = found["downstream"], []
    for r in found["results"]:
        chosen = ", ".join(f"{k} {v:g}" for k, v in r["chosen"].items())
        mean = "undefined" if r["mean"] is None else f"{r['mean']:.2f}"
        spread = "" if r["spread"] is None else f" +- {r['spread']:.2f} over {len(r['tests'])} seeds"
        low_high = "" if r["interval"] is None else f", 95 % interval {r['interval'][0]:.2f} to {r['interval'][1]:.2f}"
        lines.append(f"  {r['parts']}: {about['metric']} {mean}{spread}{low_high} ({chosen})")
    title = f"{found['representation']['name']} on {about['name']}, {about['test_images']:,} test images ({file}):"
    say(title, *lines)
