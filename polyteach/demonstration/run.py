"""The demo: the whole method on real photographs, with real pretrained models that come inside packages."""

import platform
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import polyteach
from polyteach.demonstration.held_out import STORES, held_out, scores, write_sheet
from polyteach.demonstration.photographs import copied
from polyteach.demonstration.plan import Plan
from polyteach.demonstration.stages import Stages, minutes
from polyteach.ground.devices import find_device, quick_precision
from polyteach.ground.files import read_json, replacing, write_json
from polyteach.ground.texts import say
from polyteach.teachers.packaged_models import efficientnet_lite0_state

TEACHERS = {
    "classes": "packaged:lite0_groups",
    "boxes": "packaged:ssd_groups",
    "salient": "packaged:u2netp",
    "regions": "packaged:composed_groups",
}
BACKBONE = "tf_efficientnet_lite0"
TRAINING: dict[str, Any] = {
    "channels": 64,
    "size": 128,
    "freeze": ("backbone",),
    "batch_size": 4,
    "optimizer": "adamw",
    "lr": 1.5e-3,
    "ema": 0.99,
    "scale": (0.8, 1.3),
    "weights": "equal",
}
"""How the student is trained; docs/evidence/demo.md says what else was tried."""
SECONDS = {"photograph": 0.06, "label": 0.35, "step": 0.26, "compare": 0.06}
"""About what a photograph, or a step of the training, takes on two idle cores, in seconds (docs/evidence/demo.md)."""


def run(plan: Plan, progress: bool) -> dict[str, Any]:
    """The demo in four stages, in the folder of a plan that has begun; returns what report.json says.

    Raises:
        ValueError: packages are missing, or there are too few photographs.
    """
    folder, steps = plan.folder, plan.steps
    stage = Stages(folder / "seconds.json")

    with stage("photographs", "find the photographs, and copy them small", SECONDS["photograph"] * plan.limit):
        backbone = _backbone(folder)  # first: missing packages should be an error before any work
        counts = copied(folder, plan.photos, plan.debian, plan.limit)
    count = sum(counts.values())
    with stage("label", f"{len(TEACHERS)} teachers label {count} photographs", SECONDS["label"] * count):
        for store in STORES:
            if not _finished(folder / store / "ingest.json"):
                polyteach.ingest(str(folder / "photos" / STORES[store]), str(folder / store), progress=progress)
            # the packaged models that OpenCV and ONNX Runtime run know no other device
            polyteach.label(str(folder / store), teachers=TEACHERS, device=["cpu"], progress=progress)
    with stage("train", f"one student learns all of it in {steps} steps", SECONDS["step"] * steps):
        _train(folder, backbone, steps, plan.seed, progress)
    with stage("compare", "student and teachers on the held-out photographs", SECONDS["compare"] * count):
        held = held_out(folder)
        found = scores(held)
        write_sheet(held, plan.rows, folder / "sheet.png")
    report = _report(folder, plan.config, counts, found, stage.seconds)
    say(*_summary(report, folder))
    return report


def _finished(file: Path) -> bool:
    return file.exists() and bool(read_json(file).get("finished"))


def _backbone(folder: Path) -> Path:
    """The packaged classifier's weights under timm's names: the student starts from an already strong checkpoint."""
    file = folder / "backbone.safetensors"
    if not file.exists():
        with replacing(file) as temporary:
            save_file({k: v.contiguous() for k, v in efficientnet_lite0_state().items()}, temporary)
    return file


def _train(folder: Path, backbone: Path, steps: int, seed: int, progress: bool) -> None:
    if (folder / "student" / "train.json").exists():
        return
    place = find_device("auto")
    # with a frozen backbone and small views bf16 is no quicker on a CPU, also where it has the instructions for it
    precision = "fp32" if place == "cpu" else quick_precision(place)
    polyteach.train(
        [str(folder / "store")],
        out=str(folder / "student"),
        backbone=BACKBONE,
        init=str(backbone),
        steps=steps,
        seed=seed,
        precision=precision,
        channels_last=precision != "fp32",
        workers=0,
        save_every=100,
        progress=progress,
        **TRAINING,
    )


def _report(
    folder: Path, config: dict[str, Any], counts: dict[str, int], scores: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """Write report.json, and return what it says."""
    report = {
        "polyteach": polyteach.__version__,
        "torch": torch.__version__,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "system": platform.platform()},
        "date": time.strftime("%Y-%m-%d"),
        "photographs": counts,
        "tasks": scores,
        "seconds": seconds,
        "total_seconds": round(sum(seconds.values()), 1),
        "config": config,
    }
    write_json(folder / "report.json", report)
    return report


def _summary(report: dict[str, Any], folder: Path) -> list[str]:
    """What was reached, where to look, and what to try next; lines of less than 80 columns, but for long paths."""
    held = max(s["images"] for s in report["tasks"].values())
    lines = [
        "",
        f"On {held} photographs that the student has not seen, against its teachers' labels.",
        "By chance: what the labels of another photograph would score.",
        "",
        f"{'label set':<12}{'score':<10}{'student':>8}{'by chance':>11}   teacher",
    ]
    for name, s in report["tasks"].items():
        student, chance = ("-" if v is None else f"{v:.1f}" for v in (s["student"], s["chance"]))
        lines.append(f"{name:<12}{s['metric']:<10}{student:>8}{chance:>11}   {s['teacher']}")
    took = ", ".join(f"{k} {v:.0f} s" for k, v in report["seconds"].items())
    return [
        *lines,
        "",
        f"Time: {took}; {minutes(report['total_seconds'])} in all.",
        f"Look at: {folder / 'sheet.png'}",
        "Ask the student about a photograph of your own:",
        f"  polyteach predict {folder / 'student'} PHOTO.jpg --out answers",
        "All of it again, with a folder of your own photographs:",
        f"  polyteach demo --out {folder}-mine --photos FOLDER",
    ]
