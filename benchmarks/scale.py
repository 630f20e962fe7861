"""What hundreds of millions of images ask of the coordinator: the real scheduler over simulated machines that die.

    python benchmarks/scale.py [--quick]

`labelling/cluster.py` hands out the parts as it does on Ray; only Ray and the clock are simulated. Parts take a random
time, workers die at random and take a while to be replaced, some parts kill whoever takes them. Printed per size of
cluster: how long it took against the ideal, how much was done twice, and the seconds that the scheduler itself needed
(real time, on this machine) per part. Writes results/scale.json.
"""

import argparse
import heapq
import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from harness import RESULTS, machine

from polyteach.labelling import cluster


@dataclass(frozen=True)
class Machines:
    """A cluster. seconds: that a part takes, on average. start: seconds until a new worker is ready. life: mean hours
    until a worker dies. poison: parts that kill whoever takes them.
    """

    workers: int
    parts: int
    seconds: float = 120.0
    start: float = 60.0
    life: float = 24.0
    poison: int = 5


class Died(Exception):
    """A worker's death, as Ray reports it."""


class Raised(Exception):
    """What a part raised; nothing here does."""


class Simulation:
    """As much of Ray as `cluster` uses, and the clock. Everything that will happen is on one heap."""

    def __init__(self, machines: Machines, seed: int) -> None:
        self.m, self.draw, self.now = machines, random.Random(seed), 0.0
        self.events: list[tuple[float, int, BaseException | None]] = []
        self.outcome: dict[int, BaseException | None] = {}
        self.poison = set(self.draw.sample(range(machines.parts), machines.poison))
        self.count = self.deaths = self.given = 0
        self.busy = 0.0
        self.exceptions = SimpleNamespace(RayActorError=Died, RayTaskError=Raised)

    # ---- what `cluster` calls ----

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": self.m.workers, "CPU": 8 * self.m.workers}

    def remote(self, **reserved: Any) -> Callable[[type], Any]:
        return lambda kind: SimpleNamespace(remote=lambda make: _Actor(self))

    def wait(self, refs: list[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        until = self.now + timeout
        if not self.events or self.events[0][0] > until:
            self.now = until
            return [], refs
        self.now, ref, self.outcome[ref] = heapq.heappop(self.events)
        return [ref], refs

    def get(self, ref: int) -> None:
        error = self.outcome.pop(ref)
        if error is not None:
            raise error

    def kill(self, actor: Any) -> None:
        pass

    # ---- what happens ----

    def task(self, actor: "_Actor", seconds: float, deadly: bool = False) -> int:
        """Its number; it ends after that many seconds, or when its worker dies."""
        self.count += 1
        end = self.now + seconds
        if deadly or actor.dies < end:
            at = min(actor.dies, self.now + seconds * self.draw.random()) if deadly else max(actor.dies, self.now)
            self.deaths += 1
            heapq.heappush(self.events, (at, self.count, Died("the worker died")))
        else:
            heapq.heappush(self.events, (end, self.count, None))
        return self.count


class _Actor:
    def __init__(self, world: Simulation) -> None:
        self.dies = world.now + world.draw.expovariate(1 / (3600 * world.m.life))

        def do(part: int) -> int:
            seconds = world.m.seconds * world.draw.uniform(0.5, 1.5)
            world.given += 1
            world.busy += seconds
            return world.task(self, seconds, part in world.poison)

        self.do = SimpleNamespace(remote=do)
        self.ready = SimpleNamespace(remote=lambda: world.task(self, world.m.start * world.draw.uniform(0.5, 2)))


def simulate(machines: Machines, seed: int = 0, tries: int = 3) -> dict[str, Any]:
    """One labelling: what came out, by the simulated clock and by the real one."""
    world = Simulation(machines, seed)
    done: list[int] = []
    aside: list[int] = []
    with mock.patch.object(cluster, "time", SimpleNamespace(monotonic=lambda: world.now)):
        pool = cluster._Pool(world, lambda: lambda part: part, 0, tries, 0)
        began = time.perf_counter()
        pool.go(
            deque(range(machines.parts)), lambda part, value: done.append(part), lambda part, why: aside.append(part)
        )
        real = time.perf_counter() - began
    ideal = machines.parts * machines.seconds / machines.workers
    return asdict(machines) | {
        "done": len(set(done)),
        "twice": len(done) - len(set(done)),
        "aside": len(aside),
        "innocent": len(set(aside) - world.poison),
        "deaths": world.deaths,
        "given_again": world.given - machines.parts,
        "hours": world.now / 3600,
        "against_ideal": world.now / ideal,
        "coordinator_ms_per_part": 1000 * real / machines.parts,
        "coordinator_busy": real / world.now,
    }


def main() -> int:
    """The command; 1 where a part was lost or done twice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller clusters")
    given = parser.parse_args()
    sizes = [(8, 2_000), (64, 20_000)] if given.quick else [(8, 5_000), (64, 50_000), (256, 100_000), (1024, 300_000)]
    rows = [simulate(Machines(workers, parts)) for workers, parts in sizes]
    rows += [simulate(Machines(*s, life=1.0)) for s in sizes[1::2]]  # machines that are taken away every hour
    columns = (
        "workers", "parts", "a worker lives", "deaths", "parts given again", "set aside", "of them innocent", "lost",
        "twice", "time against ideal", "scheduler, ms a part", "scheduler busy",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print("| ---: " * len(columns) + "|")
    for r in rows:
        lost = r["parts"] - r["done"] - r["aside"]
        print(
            f"| {r['workers']} | {r['parts']:,} | {r['life']:g} h | {r['deaths']} | {r['given_again']} | "
            f"{r['aside']} | {r['innocent']} | {lost} | {r['twice']} | {r['against_ideal']:.3f} | "
            f"{r['coordinator_ms_per_part']:.2f} | {r['coordinator_busy']:.1%} |"
        )
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "scale.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return int(any(r["done"] + r["aside"] < r["parts"] or r["twice"] for r in rows))


if __name__ == "__main__":
    sys.exit(main())
