"""Numbered parts of work on the actors of a Ray cluster: what dies is done again elsewhere, what kills is set aside."""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

CPUS = 0.5
"""What a worker reserves: with all CPUs reserved Ray's own tasks would wait for ever (ray-project/ray#44687)."""

STARTING = 1800
"""Seconds that no worker at all may be ready before it is given up: the cluster has no room, or never will."""

SLOWER, LEAST, FIRST = 20, 3600, 86_400
"""A worker is taken for hung when its part has lasted so many times as long as the slowest that was done, and at least
so many seconds; so many before one is done."""


class Broken(ValueError):
    """Raised by what does a part: nothing more can be done in its process, such as after an error of its device."""


def work(
    address: str,
    make: Callable[[], Callable[[int], Any]],
    parts: Sequence[int],
    done: Callable[[int, Any], None],
    aside: Callable[[int, str], None],
    workers: int = 0,
    tries: int = 3,
    timeout: float | None = None,
    gpus: int = 1,
) -> None:
    """Do every part once, on several workers at a time.

    A worker that dies is replaced, wherever the cluster has room, and its part is tried again, `tries` times in all;
    so is a part that raises, or that takes longer than `timeout` seconds (0 for no limit; None by how long others took,
    see `SLOWER`), whose worker is killed. A worker that raises `Broken` is replaced too.

    address: of a Ray cluster; "local" starts one here, for as long as this lasts. make: called once in every worker,
    with pickle's means; returns what does a part and returns what is to be sent back. done: called here with a part
    and what came back, in any order. aside: called here with a part that failed too often, and why. workers: how many;
    0 for as many as the GPUs of the cluster are enough for, or, where there is none, one on each CPU. gpus: that a
    worker uses: 0 leaves them alone, 1 takes one where there are any, or a share of one where more workers are asked
    for than there are, more reserves so many on one machine.

    Raises:
        ValueError: Ray is not installed, no cluster is at that address, it has fewer GPUs than a worker needs and the
            number of workers is not said, no worker can be made, or none within `STARTING` seconds, or more workers in
            a row were broken than one part explains; says why.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
    # the rule that Ray will have anyway; else it warns
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as e:
        raise ValueError("--ray needs Ray: pip install 'polyteach[ray]'") from e
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, address)
    try:
        _Pool(ray, make, workers, tries, timeout, gpus).go(deque(parts), done, aside)
    finally:
        if mine:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address == "local":
            # targets go to the store by the workers' own hands: next to nothing passes through Ray
            ray.init(include_dashboard=False, object_store_memory=100_000_000, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as e:
        raise ValueError(f"--ray {address}: {str(e).splitlines()[0]}") from e


class _Worker:
    """What becomes an actor; in this module by name, so that only the name travels."""

    def __init__(self, make: Callable[[], Callable[[int], Any]]) -> None:
        self.part = make()

    def ready(self) -> bool:
        return True

    def do(self, part: int) -> Any:
        return self.part(part)


class _Pool:
    def __init__(
        self,
        ray: Any,
        make: Callable[[], Callable[[int], Any]],
        workers: int,
        tries: int,
        timeout: float | None,
        gpus: int = 1,
    ) -> None:
        self.ray, self.make, self.tries, self.timeout = ray, make, tries, timeout
        there = ray.cluster_resources()
        have = int(there.get("GPU", 0)) if gpus else 0
        if gpus > max(have, 1) and not workers:
            raise ValueError(
                f"every worker needs {gpus} GPUs, but the cluster has {have}; name fewer devices, or, if the cluster "
                "will grow, say how many workers it is to have"
            )
        self.count = workers or have // max(gpus, 1) or max(int(there.get("CPU", 1)), 1)
        # several workers share a GPU where more are asked for than there are
        self.share = gpus if gpus > 1 else min(1.0, have / self.count)
        self.longest = 0.0
        """Seconds that the slowest part took."""
        self.failures = 0
        """Workers in a row that died before they could work."""
        self.broken = 0
        """Workers that broke since the last part that was done."""

        self.kind = ray.remote(num_cpus=CPUS, num_gpus=self.share, max_restarts=0)(_Worker)

    def go(self, todo: deque[int], done: Callable[[int, Any], None], aside: Callable[[int, str], None]) -> None:
        """As `work`."""
        shift = _Shift(self, todo, done, aside)
        try:
            shift.staff()
            while shift.waiting:
                ready, _ = self.ray.wait(list(shift.waiting), num_returns=1, timeout=1)
                for ref in ready:
                    shift.receive(ref)
                for part in self.overdue(shift.waiting):
                    shift.fail(part, f"took more than {self.limit:g} s")
                self.stuck([(part, since) for _, part, since in shift.waiting.values()])
                shift.staff()  # instead of those that died, and for parts that came back
        finally:
            for actor, _, _ in shift.waiting.values():
                self.ray.kill(actor)

    @property
    def limit(self) -> float:
        """Seconds that a part may take."""
        if self.timeout is not None:
            return self.timeout or math.inf
        return max(SLOWER * self.longest, LEAST) if self.longest else FIRST

    def overdue(self, waiting: dict[Any, tuple[Any, int | None, float]]) -> list[int]:
        """Parts that took longer than there is time for; their workers are killed, and no longer waited for."""
        out = []
        now = time.monotonic()
        for ref, (actor, part, since) in list(waiting.items()):
            if part is not None and now - since > self.limit:
                del waiting[ref]
                self.ray.kill(actor)
                out.append(part)
        return out

    def stuck(self, waiting: Sequence[tuple[int | None, float]]) -> None:
        """Raise where all workers, of which each has a part or none yet, since a time, only wait for being started."""
        idle = [since for part, since in waiting if part is None]
        if idle and len(idle) == len(waiting) and time.monotonic() - max(idle) > STARTING:
            there, free = self.ray.cluster_resources(), self.ray.available_resources()
            of = ", ".join(f"{free.get(k, 0):g} of {there.get(k, 0):g} {k}s" for k in ("CPU", "GPU"))
            raise ValueError(
                f"no worker could be started on Ray within {STARTING / 60:g} minutes ({of} are free; each takes {CPUS} "
                f"CPUs and {self.share:g} GPUs); end what holds them, or ask for fewer workers"
            )

    def lost(self, error: Exception) -> None:
        """A worker died before it could work: a machine that went, or an error that all others will have too.

        Of a large cluster that starts some always die; it is given up when as many died in a row as there should be.
        """
        self.failures += 1
        if self.failures >= max(self.tries, self.count):
            text = str(error).strip()
            last = [line.strip() for line in text.splitlines() if line.strip()][-1:]
            raise ValueError(f"no worker can be started on Ray: {last[0] if last else type(error).__name__}")

    def broke(self, error: Exception) -> None:
        """A worker broke. One part may do that to as many as it has tries; more in a row are the cluster's fault."""
        self.broken += 1
        if self.broken > max(self.tries, self.count):
            raise ValueError(f"{self.broken} workers broke in a row, the last with: {error}")


class _Shift:
    """One hand-out of parts to a pool's workers.

    todo: parts that nobody has. waiting: what is being computed -> its actor, its part (None while the actor starts),
    and since when.
    """

    def __init__(
        self, pool: _Pool, todo: deque[int], done: Callable[[int, Any], None], aside: Callable[[int, str], None]
    ) -> None:
        self.pool, self.todo, self.done, self.aside = pool, todo, done, aside
        self.waiting: dict[Any, tuple[Any, int | None, float]] = {}
        self._failed: dict[int, int] = {}

    def staff(self) -> None:
        """Start as many workers as there may be, but none without a part to be done."""
        starting = sum(part is None for _, part, _ in self.waiting.values())
        for _ in range(min(self.pool.count - len(self.waiting), len(self.todo) - starting)):
            actor = self.pool.kind.remote(self.pool.make)
            self.waiting[actor.ready.remote()] = (actor, None, time.monotonic())

    def give(self, actor: Any) -> None:
        """Give a worker its next part, or let it go."""
        if self.todo:
            part = self.todo.popleft()
            self.waiting[actor.do.remote(part)] = (actor, part, time.monotonic())
        else:
            self.pool.ray.kill(actor)

    def fail(self, part: int, reason: str) -> None:
        """Have a part tried again, or set aside where it failed too often."""
        self._failed[part] = self._failed.get(part, 0) + 1
        if self._failed[part] < self.pool.tries:
            self.todo.append(part)
        else:
            self.aside(part, f"{reason} ({self.pool.tries} times)")

    def receive(self, ref: Any) -> None:
        """Take what a worker has computed, or why it did not.

        Raises:
            ValueError: too many workers died, or were broken.
        """
        pool = self.pool
        actor, part, since = self.waiting.pop(ref)
        try:
            value = pool.ray.get(ref)
        except pool.ray.exceptions.RayActorError as e:
            if part is None:
                pool.lost(e)
            else:
                self.fail(part, "its worker died")
            return
        except pool.ray.exceptions.RayTaskError as e:
            assert part is not None
            self.fail(part, str(e.cause).splitlines()[0] if str(e.cause) else type(e.cause).__name__)
            if isinstance(e.cause, Broken):
                pool.ray.kill(actor)  # it would fail at every other part; `staff` hires another
                pool.broke(e.cause)
                return
        else:
            pool.failures = 0
            if part is not None:
                pool.broken = 0
                pool.longest = max(pool.longest, time.monotonic() - since)
                self.done(part, value)
        self.give(actor)
