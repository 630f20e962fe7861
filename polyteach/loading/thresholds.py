"""Thresholds: from which score on each class is learned, where classes differ: as said, or by the share to be kept."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from polyteach.ground.names import unknown_name
from polyteach.loading.held import spaced
from polyteach.loading.objectives import by_people
from polyteach.loading.plan import Plan
from polyteach.loading.reader import Reader
from polyteach.tasks import load_task
from polyteach.tasks.target import ByClass, ByObjective, Policy

LOOKED_AT = 20_000
"""Images, at most, from whose scores it follows which are the best; of more, runs spread over all."""

Thresholds = Mapping[str, Mapping[str, float]]
"""Least score by objective and name of its class."""


def thresholds(plan: Plan, policy: Policy, known: Thresholds | None = None) -> Thresholds:
    """The least score of every class of the objectives in which they differ; none where the policy has one for all.

    known: those with which this training began, which stay.

    Raises:
        ValueError: a class that no objective with scores has; that there is none; a store that cannot be read.
    """
    if not policy.class_scores and policy.best_share is None:
        return {}
    option = "class_scores" if policy.class_scores else "best_share"
    scored = [
        name
        for name, objective in plan.objectives.items()
        if load_task(objective.task).has_scores and not all(by_people(s) for sets in plan.sets[name] for s in sets)
    ]
    if not scored:
        raise ValueError(
            f"{option} chooses among teachers' labels by their scores, and no label set ({', '.join(plan.objectives)}) "
            "has a teacher's that have any; leave it out, or choose other label sets"
        )
    if policy.class_scores:
        return _said(plan, policy, scored, policy.class_scores)
    assert policy.best_share is not None
    if known is not None and {k: set(v) for k, v in known.items()} == {
        name: set(plan.objectives[name].space.names) for name in scored
    }:
        return known
    return {name: _kept(plan, policy, name, policy.best_share) for name in scored}


def _said(plan: Plan, policy: Policy, scored: list[str], given: Mapping[str, float]) -> Thresholds:
    names = dict.fromkeys(n for name in scored for n in plan.objectives[name].space.names)
    for name in given:
        if name not in names:
            raise unknown_name("class in class_scores", name, list(names), "the heads have")
    out = {}
    for name in scored:
        objective = plan.objectives[name]
        if any(n in given for n in objective.space.names):
            least = policy.score if load_task(objective.task).by_score else 0.0
            out[name] = {n: float(given.get(n, least)) for n in objective.space.names}
    return out


def _kept(plan: Plan, policy: Policy, name: str, share: float) -> dict[str, float]:
    """The score that the best `share` of each class's labels have, at least; ties are kept too.

    The policy's own score for classes of which nothing was seen.
    """
    objective, reader = plan.objectives[name], Reader(plan, policy)
    task = load_task(objective.task)
    seen: dict[int, list[Any]] = {}
    for image in spaced(len(plan), LOOKED_AT).tolist():
        answer, people = reader.answer(image, name)
        if answer is None or people:
            continue
        category, score = (x.numpy() for x in task.scored(answer))
        for c in np.unique(category).tolist():
            seen.setdefault(c, []).append(np.unique(score[category == c], return_counts=True))
            if len(seen[c]) == 256:
                seen[c] = [_together(seen[c])]
    least = {}
    for i, n in enumerate(objective.space.names):
        least[n] = _least(*_together(seen[i]), share) if i in seen else policy.score
    return least


def _together(counted: list[Any]) -> tuple[Float[np.ndarray, " V"], Int[np.ndarray, " V"]]:
    """Values, each once and ascending, and how often each came."""
    values, at = np.unique(np.concatenate([v for v, _ in counted]), return_inverse=True)
    return values, np.bincount(at, np.concatenate([c for _, c in counted])).astype(np.int64)


def _least(values: Float[np.ndarray, " V"], counts: Int[np.ndarray, " V"], share: float) -> float:
    """The largest value that at least that share of all is not below."""
    above = counts[::-1].cumsum()[::-1]
    return float(values[np.flatnonzero(above >= share * above[0] - 1e-9)[-1]])


def with_thresholds(plan: Plan, policy: Policy, found: Thresholds) -> Policy:
    """The policy that applies them."""
    if not found:
        return policy
    base = {f.name: getattr(policy, f.name) for f in fields(Policy)}
    names = {name: plan.objectives[name].space.names for name in found}
    each = {name: ByClass(**base, least=tuple(found[name][n] for n in names[name])) for name in found}
    return ByObjective(**base, each=each)
