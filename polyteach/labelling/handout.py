"""The parts of a store handed out to workers on a Ray cluster, which label them where they are."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from polyteach.ground.limits import Limits
from polyteach.ground.progress import Progress, track
from polyteach.ground.texts import say
from polyteach.labelling.cluster import work
from polyteach.labelling.options import Asking, Cluster
from polyteach.labelling.part import Team
from polyteach.labelling.team import load_team
from polyteach.store import Store

ACCOUNT = 10
"""Seconds between two records of what a labelling by a cluster has cost: one a part would keep the driver busy."""


def worker(
    store: str, teachers: Mapping[str, str], device: Mapping[str, str], asking: Asking, limits: Limits
) -> Callable[[int], dict[str, Any]]:
    """In a worker on Ray: what labels a part, and returns what that has cost."""
    return load_team(Store.open(store, limits=limits), teachers, device, asking).do


def hand_out(
    team: Team, teachers: Mapping[str, str], device: Mapping[str, str], limits: Limits, cluster: Cluster, progress: bool
) -> None:
    """Fill what is missing of all label sets, by workers on the cluster, each with all teachers.

    team: whose label sets they are; its teachers are asked nothing. device: by teacher, on every worker.

    Raises:
        ValueError: as `cluster.work`.
    """
    store = str(team.store.path.resolve())
    make = partial(worker, store, dict(teachers), dict(device), team.asking, limits)
    gpus = len({d for d in device.values() if d != "cpu"})
    todo = [p for p in team.store.parts() if team.owed(p)]
    with track("label", sum(map(team.store.count, todo)), "images", progress) as bar:
        desk = _Desk(team, bar)
        ways = (cluster.ray_workers, cluster.ray_tries, cluster.ray_timeout, gpus)
        try:
            work(cluster.ray or "", make, todo, desk.done, desk.aside, *ways)
        finally:
            desk.account()
    if desk.set_aside:
        say(
            f"{len(desk.set_aside)} parts were set aside, their images are recorded as failed: "
            f"{', '.join(map(str, desk.set_aside[:20]))}. Mend the cause, then run again with --retry"
        )


class _Desk:
    """Where it is noted what came back of the parts."""

    def __init__(self, team: Team, bar: Progress) -> None:
        self.team, self.bar = team, bar
        self.set_aside: list[int] = []
        self._told = time.monotonic()
        self._ledgers = {str(s.path.resolve()): team.ledger(s) for s in team.sets}

    def done(self, part: int, costs: dict[str, Any]) -> None:
        """A part is labelled. costs: of `Team.do`."""
        for path, cost in costs.items():
            self._ledgers[path].add(cost)
        if time.monotonic() - self._told > ACCOUNT:
            self.account()
            self._told = time.monotonic()
        self.bar.advance(self.team.store.count(part), self._note() if self.set_aside else None)

    def aside(self, part: int, reason: str) -> None:
        """A part failed too often: its images are recorded as failed."""
        rows = self.team.store.images(part, data=False)
        answers = [f"part set aside: {reason}" if self.team.chosen(r) else None for r in rows]
        for labels in self.team.sets:
            if not labels.has(part):
                labels.write(part, [r.id for r in rows], answers)
        self.set_aside.append(part)
        self.bar.advance(len(rows), self._note())

    def account(self) -> None:
        """Write what it has cost so far."""
        for ledger in self.team.ledgers.values():
            ledger.write()

    def _note(self) -> str:
        return f"{len(self.set_aside)} parts set aside"
