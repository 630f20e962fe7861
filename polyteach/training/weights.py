"""Weights: how much the loss of every objective counts, by MuST's rule or as it is said."""

from collections.abc import Mapping

from polyteach.ground.names import unknown_name
from polyteach.loading.objectives import by_people
from polyteach.loading.plan import Plan, members
from polyteach.store import LabelSet
from polyteach.training.options import check_weight, known_weights


def loss_weights(
    plan: Plan, weights: str | Mapping[str, float], learning_rate: float, batch_size: int, optimizer: str
) -> tuple[dict[str, float], dict[str, str]]:
    """The weight of every objective's loss, and where it comes from.

    MuST's rule is w_i = (b_s * lr_i) / (b_i * lr_s): each objective is stepped with its own teacher's learning rate,
    rescaled to the student's batch. That compares learning rates, so it speaks only of teachers that were trained with
    the student's own optimiser (AdamW's rates are about a hundredth of SGD's); what it does not speak of weighs 1.

    Exact for SGD. AdamW steps alike whatever all losses are multiplied with, so that only ratios matter: there the
    weights that the rule gives are divided by their mean, and what it does not speak of weighs as they do on average.

    weights: "rule", "equal", "learned", or weights by objective. learning_rate, batch_size, optimizer: the student's;
    images of a whole step.

    Raises:
        ValueError: an unknown rule or objective, or a weight that is negative or not finite.
    """

    weights = known_weights(weights)
    if isinstance(weights, Mapping):
        for name in sorted(set(weights) - set(plan.objectives)):
            raise unknown_name("objective", name, plan.objectives, "weights of this training are for")
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    ruled: dict[str, float] = {}
    for name in plan.objectives:
        if isinstance(weights, Mapping) and name in weights:
            values[name], reasons[name] = float(weights[name]), "given"
        elif weights in ("equal", "learned"):
            values[name], reasons[name] = 1.0, str(weights)
        else:
            value, reasons[name] = _rule(name, plan, learning_rate, batch_size, optimizer)
            values[name] = 1.0 if value is None else value
            ruled |= {} if value is None else {name: value}
    if optimizer == "adamw" and ruled:
        mean = sum(ruled.values()) / len(ruled)
        values |= {name: value / mean for name, value in ruled.items()}
        reasons |= {name: f"{reasons[name]}; divided by the mean of the rule's, {mean:.4g}" for name in ruled}
    for name, value in values.items():
        check_weight(name, value)
    return values, reasons


def _rule(name: str, plan: Plan, learning_rate: float, batch_size: int, optimizer: str) -> tuple[float | None, str]:
    """What the rule says of an objective, None where it says nothing; and why."""

    # a teacher whose answers count for no image says nothing of how to step
    teachers = [s for objective, _, s, n in members(plan) if objective == name and n and not by_people(s)]
    sweep = f"sweep it with --weights {name}=..."
    if not teachers:
        return None, f"people's labels, no teacher; {sweep}"
    known = [(s.name, trained) for s in teachers if (trained := _trained(s)) is not None]
    if not known:
        return None, f"teacher records no lr and batch size; {sweep}"
    alike = [(teacher, lr, b) for teacher, (lr, b, by) in known if by == optimizer]
    if not alike:
        teacher, (lr, _, by) = known[0]
        other = f"has lr {lr:g} of {by}" if by else f"has lr {lr:g} of an optimizer that it does not record"
        return None, f"teacher {teacher} {other}, which says nothing of {optimizer}'s; {sweep}"
    teacher, lr, b = alike[0]
    others = ", the first of several that differ" if len({t for _, t in known}) > 1 else ""
    return batch_size * lr / (b * learning_rate), f"rule: teacher {teacher} has lr {lr:g}, batch {b:g}{others}"


def _trained(labels: LabelSet) -> tuple[float, float, str | None] | None:
    """Learning rate, batch size and optimiser of the teacher, None where it does not record the first two."""
    teacher = labels.info.get("teacher")
    if not isinstance(teacher, dict) or not teacher.get("learning_rate") or not teacher.get("batch_size"):
        return None
    return float(teacher["learning_rate"]), float(teacher["batch_size"]), teacher.get("optimizer")
