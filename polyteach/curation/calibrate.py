"""Calibrate a store's label sets against people's labels: fitted on one half of the images, reported on the other."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyteach.curation.temperature import Reliability, fitted, joined, reliability, surer
from polyteach.ground.files import write_json
from polyteach.ground.options import listed
from polyteach.ground.tables import table, width_of, wrapped
from polyteach.ground.texts import say
from polyteach.loading.chosen import check_chosen
from polyteach.loading.held import Both, mapped
from polyteach.loading.objectives import common
from polyteach.store import CALIBRATION, LabelSet, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Calibration, Evidence
from polyteach.version import __version__

IMAGES, ANSWERS, EITHER = 10, 50, 5
"""Each half needs so many images, so many answers in them, and so many of these that are right, and wrong."""
LARGEST = 2**24
"""Numbers of the evidence that are held at a time: 128 MB, and some copies of them."""


@dataclass(frozen=True)
class _Halves:
    """Images and evidence of the half that is fitted, and of the one on which it is reported."""

    images: list[int]
    evidence: list[Evidence]


def calibrate_sets(
    store: str | Path, labels: Sequence[str], split: Sequence[str], score: float, most: int, remove: bool
) -> None:
    """Calibrate the label sets that are named, or all that can be; or take their calibrations away.

    Raises:
        ValueError: unknown names; a set that is named and cannot be calibrated, or none that can be.
    """
    opened, labels = Store.open(store), listed(labels)
    every = opened.sets()
    check_chosen([(s.task, s.name) for s in every], (), labels)
    chosen = [s for s in every if not labels or s.name in labels or f"{s.task}/{s.name}" in labels]
    if remove:
        _remove(chosen)
        return
    refused = []
    for one in chosen:
        try:
            _calibrate(one, every, listed(split), score, most)
        except CannotBe as e:
            refused.append(f"{one.task}/{one.name}: {e}")
    if len(refused) == len(chosen) or (labels and refused):
        raise ValueError(f"not calibrated: {'; '.join(refused) or f'{store} has no label sets'}")
    for why in refused:
        say(f"not calibrated: {why}")


class CannotBe(ValueError):
    """Why a label set is not calibrated."""


def _remove(sets: Sequence[LabelSet]) -> None:
    gone = [s for s in sets if s.calibration_record() is not None]
    if not gone:
        raise ValueError("none of these label sets has a calibration; leave --remove out")
    for labels in gone:
        (labels.store.own("labels", labels.task, labels.name) / CALIBRATION).unlink(missing_ok=True)
        say(f"{labels.task}/{labels.name}: its probabilities are learned as they are kept again", stream=sys.stdout)


def _calibrate(labels: LabelSet, every: Sequence[LabelSet], split: Sequence[str], score: float, most: int) -> None:
    """Fit, tell and keep a set's calibration.

    Raises:
        CannotBe: says why it is not.
    """
    task = load_task(labels.task)
    if labels.by_people:
        raise CannotBe("it is people's")
    if not task.calibrates:
        raise CannotBe(f"answers of {task.name} have no probabilities")
    people = [s for s in every if s.by_people and s.task == labels.task]
    used, halves = _gathered(labels, people, split, score, most)
    if not used:
        raise CannotBe("people have labelled none of its images, or no class of its")
    _enough(halves)
    first, second = halves.evidence
    found = fitted(first, "shift" in task.calibrates)
    before, after = reliability(second), reliability(second, found)
    width = width_of(sys.stdout)
    say(*_told(labels, used, halves, found, before, after, width), stream=sys.stdout)
    if after.nll >= before.nll:
        raise CannotBe(
            f"on the other half it would make them worse (negative log-likelihood {before.nll:.4g}, then "
            f"{after.nll:.4g}); they are as good as these labels can tell"
        )
    write_json(
        labels.store.own("labels", labels.task, labels.name) / CALIBRATION,
        {
            "temperature": found.temperature,
            "shift": found.shift,
            "people": used,
            "split": list(split),
            "score": score,
            "images": halves.images[0],
            "answers": len(first.right),
            "held_out": {"images": halves.images[1], "answers": len(second.right)},
            "nll": {"before": before.nll, "after": after.nll},
            "ece": {"before": before.ece, "after": after.ece},
            "polyteach": __version__,
        },
    )


def _gathered(
    labels: LabelSet, people: Sequence[LabelSet], split: Sequence[str], score: float, most: int
) -> tuple[list[str], _Halves]:
    """Names of people's sets that say something of these labels, and the evidence of all of them, by half."""
    task, used, halves = load_task(labels.task), [], _Halves([0, 0], [])
    found: tuple[list[Evidence], list[Evidence]] = ([], [])
    most = min(most, LARGEST // max(len(labels.space.names), 2048))
    for one in people:
        shared = common(one, labels)
        if shared is None or not (shared.whole or task.compares_some):
            continue
        images = 0
        for id, answer, truth in Both(labels, one, split).pairs(most):
            half, images = second_half(id), images + 1
            said, true = mapped(answer, labels, shared, 1), mapped(truth, one, shared, 0)
            found[half].append(surer(task.evidence(said, true, len(shared.names)), score))
            halves.images[half] += 1
        used += [f"{one.task}/{one.name}"] if images else []
    halves.evidence.extend(joined(half) for half in found if half)
    return used, halves


def second_half(id: str) -> bool:
    """Whether an image is of the half on which a calibration is reported: it follows from its id alone."""
    return bool(hashlib.sha256(id.encode("utf-8", "backslashreplace")).digest()[0] & 1)


def _enough(halves: _Halves) -> None:
    """Raises:
    CannotBe: a half has too few images or answers, or hardly any that are right, or wrong.
    """
    counts = [(len(e.right), int((e.said == e.right).sum())) for e in halves.evidence]
    few = min(halves.images) < IMAGES or min(n for n, _ in counts) < ANSWERS
    if few or min(min(right, n - right) for n, right in counts) < EITHER:
        have = " and ".join(
            f"{i:,} with {n:,} answers, {right:,} of them right"
            for i, (n, right) in zip(halves.images, counts, strict=True)
        )
        raise CannotBe(
            f"people's labels are too few to tell: each half of the images must have {IMAGES} with {ANSWERS} answers, "
            f"{EITHER} of them right and {EITHER} wrong; there are {have}. Label more images, or take more with --most"
        )


def _told(
    labels: LabelSet, used: Sequence[str], halves: _Halves, found: Calibration, before: Reliability, after: Reliability,
    width: int,
) -> list[str]:  # fmt: skip
    """What was found, for a terminal of so many columns."""
    parameters = ", ".join(f"{k} {getattr(found, k):.3g}" for k in load_task(labels.task).calibrates)
    n, m = (len(e.right) for e in halves.evidence)
    lines = wrapped(
        f"{labels.task}/{labels.name}: {parameters}, fitted on {halves.images[0]:,} images ({n:,} answers) that "
        f"{', '.join(used)} labels too. On {halves.images[1]:,} others ({m:,} answers):",
        width,
    )
    scores = [
        ["expected calibration error", f"{100 * before.ece:.1f} %", f"{100 * after.ece:.1f} %"],
        ["negative log-likelihood", f"{before.nll:.4g}", f"{after.nll:.4g}"],
    ]
    lines += _set_in(table(("", "before", "after"), scores, width - 2))
    rows: list[Any] = []
    bins = [{b[0]: b[1:] for b in r.bins} for r in (before, after)]
    for k in sorted({*bins[0], *bins[1]}):
        cells = [[f"{b[k][0]:,}", *(f"{100 * v:.1f}" for v in b[k][1:])] if k in b else ["-"] * 3 for b in bins]
        rows.append([f"{k / 10:.1f} to {(k + 1) / 10:.1f}", *cells[0], *cells[1]])
    head = ("confidence", "answers before", "said %", "right %", "answers after", "said %", "right %")
    return [*lines, "", *_set_in(table(head, rows, width - 2))]


def _set_in(text: str) -> list[str]:
    return [f"  {line}" for line in text.split("\n")]
