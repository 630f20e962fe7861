"""Ledger: what a training costs in images, operations and seconds, with all that it stood on."""

from statistics import fmean
from typing import Any

from torch import nn

from polyteach.ground import flops
from polyteach.loading.objectives import by_people
from polyteach.loading.plan import Plan, members
from polyteach.loading.samples import Samples
from polyteach.loading.transport import batches
from polyteach.model.provenance import costs_before

PASSES = 8
"""Passes of a few images whose operations are counted, where not every image has every label."""


def flops_per_image(model: nn.Module, samples: Samples, images: int = flops.COUNTED) -> float | None:
    """Operations of training per image, counted on a few; None where torch counts none.

    On the CPU: what is counted does not depend on the device. A head's cost is that of the images with its labels:
    where not all have them, so many are counted, that their share shows.

    model: called as model(images, targets) -> losses by objective. images: counted at a time.
    """
    sparse = any(n < len(samples.plan) for n in samples.plan.labelled.values())
    model = model.cpu()
    passes = batches(samples, images, 0, PASSES if sparse else 1)
    found = [flops.step_flops(model, batch.images, batch.targets) for batch in passes]
    known = [x for x in found if x is not None]
    return fmean(known) if len(known) == len(found) else None


def spent(images: int, each: float | None, seconds: float) -> dict[str, Any]:
    """What a training has cost, as its files keep it. each: operations per image, see `flops_per_image`."""
    return {"images": images, "flops": None if each is None else each * images, "seconds": seconds}


def stood_on(init: str | None, plan: Plan | None = None) -> list[dict[str, Any]]:
    """What had to be done before: the training of the teachers, their labelling, and the weights that it starts from.

    Each once: a teacher that labelled several stores was trained once. Those whose answers count for no image are left
    out. plan: what is learned, None where it is no label.
    """
    before: dict[str, dict[str, Any]] = {}
    for labels in (s for _, _, s, n in members(plan) if n and not by_people(s)) if plan else ():
        about = labels.record()
        for cost in about.get("teachers_compute") or ():
            before.setdefault(cost["of"], cost)
        if about.get("compute"):
            before[str(labels.path)] = {"of": str(labels.path), "name": f"{labels.name}: labelling"} | about["compute"]
    return list({cost["of"]: cost for cost in [*before.values(), *costs_before(init)]}.values())
