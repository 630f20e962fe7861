"""Briefing: what is said and refused of the label sets before a training starts."""

import sys
from dataclasses import replace

from polyteach.ground.options import Policy
from polyteach.ground.tables import fitted
from polyteach.ground.texts import say
from polyteach.loading.objectives import by_people
from polyteach.loading.plan import Plan, idle, members
from polyteach.loading.reader import unlearnable
from polyteach.store import LabelSet
from polyteach.tasks import load_task
from polyteach.tasks.target import ByClass
from polyteach.training.settings import Settings

FEW = 5
"""Least scores that are told, of the lowest and of the highest."""


def check_meaningful(plan: Plan, policy: Policy, drop: float) -> None:
    """Refuse options that could change nothing for these label sets.

    Raises:
        ValueError: names the option, and why.
    """

    sets = [s for mine in plan.sets.values() for by_store in mine for s in by_store]
    if policy.confidence and not any(load_task(s.task).confidence and not by_people(s) for s in sets):
        given = ", ".join(sorted({f"{s.task}/{s.name}" for s in sets}))
        raise ValueError(
            f"confidence=True weighs teachers' labels, and none of the label sets ({given}) has a teacher that says "
            "how sure it is; leave it out, or choose other label sets"
        )
    if not policy.calibrated and not any(s.calibration() for s in sets):
        raise ValueError(
            "calibrated=False leaves calibrations out, and none of the label sets has one; leave it out, or make one "
            "first: polyteach store calibrate STORE"
        )
    if drop and len(plan.objectives) < 2:
        raise ValueError(
            f"drop={drop:g} leaves objectives out, and there is one ({', '.join(plan.objectives)}); leave it out, or "
            "choose label sets with several spaces"
        )


def check_learnable(plan: Plan, policy: Policy) -> None:
    """See that there is something to be learned for every objective; warn where it is only likely that there is none.

    Raises:
        ValueError: an objective of which no image has anything to be learned.
    """

    known, likely = unlearnable(plan, policy)
    if known:
        raise ValueError(
            f"there is nothing to be learned for {'; '.join(known.values())}. Mend these labels, lower --score, or "
            "choose others with --labels"
        )
    warnings = [f"WARNING: nothing to be learned was found for {text}" for text in likely.values()]
    if warnings:
        say(*fitted(warnings, sys.stderr))


def tell(plan: Plan, weights: dict[str, float], reasons: dict[str, str], settings: Settings, policy: Policy) -> None:
    """Say before it starts what is trained on what: images, steps, weights, and who labels how many of them."""

    lines = [f"{len(plan):,} images, {settings.steps:,} steps, lr {settings.lr:g}, {settings.device}; loss weights:"]
    if plan.unlabelled:
        lines.append(f"  ({plan.unlabelled:,} images that no chosen label set labels are left out)")
    for name, value in weights.items():
        lines.append(f"  {name}: {value:.4g} ({reasons[name]}); {plan.labelled[name]:,} images")
        lines += _least(plan, policy, name)
        for _, i, labels, n in (m for m in members(plan) if m[0] == name):
            together = "" if plan.combine == "first" or by_people(labels) else f" ({plan.combine} of its teachers)"
            found = labels.calibration() if policy.calibrated else None
            how = f", calibrated (temperature {found.temperature:.3g}, shift {found.shift:.3g})" if found else ""
            lines.append(f"    {n:,} by {_where(plan, i, labels)}{together}{how}")
    for warning in _warnings(plan, policy):
        text, mark, table = warning.partition("--map FILE:\n")  # a table is YAML, in which names keep to their lines
        lines += [f"WARNING: {text}{mark.rstrip()}", *(table.split("\n") if mark else [])]
    say(*fitted(lines, sys.stderr))


def _least(plan: Plan, policy: Policy, name: str) -> list[str]:
    """From which score on each class is learned, where they differ."""
    mine = policy.of(name)
    if not isinstance(mine, ByClass):
        return []
    pairs = sorted(zip(plan.objectives[name].space.names, mine.least, strict=True), key=lambda x: x[1])
    shown = [f"{n} {s:.3g}" for n, s in (pairs if len(pairs) <= 2 * FEW else [*pairs[:FEW], *pairs[-FEW:]])]
    if len(pairs) > 2 * FEW:
        shown.insert(FEW, "...")
    return [f"    least scores: {', '.join(shown)}"]


def _own(plan: Plan, policy: Policy, name: str, store: int, labels: LabelSet) -> Policy:
    """The policy of an objective, by the indices that a label set of it has for the classes."""
    mine, index = policy.of(name), plan.moved.get((store, labels.task, labels.name))
    if not isinstance(mine, ByClass) or index is None:
        return mine
    return replace(mine, least=tuple(mine.least[i] for i in index.tolist()))


def _where(plan: Plan, store: int, labels: LabelSet) -> str:
    """What a label set is called: with its store, where there are several."""
    return f"{labels.task}/{labels.name}" + (f" of {plan.stores[store].path}" if len(plan.stores) > 1 else "")


def _warnings(plan: Plan, policy: Policy) -> list[str]:
    """What of the label sets is likely not what was meant: it teaches nothing, or hardly anything, or not together."""

    out, reasons = [], idle(plan)
    for name, i, labels, _ in members(plan):
        where = _where(plan, i, labels)
        why = reasons.get((i, labels.task, labels.name))
        if why:
            out.append(f"{where} {why}")
        doubt = labels.doubt(_own(plan, policy, name, i, labels))
        if doubt:
            out.append(f"{where} can teach {name} hardly anything: {doubt}")
    return out + plan.apart
