"""No wait is without an end: what is waited for, and says nothing, becomes an error that says what to do."""

import fcntl
import socket
import threading
import time
from collections import deque
from types import SimpleNamespace
from urllib.request import urlopen

import pytest

from polyteach.ground import files, storage
from polyteach.ground.files import downloading
from polyteach.ground.storage import cache
from polyteach.labelling import cluster


def test_a_lock_that_another_process_holds_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PATIENCE", 0.3)
    blocks = cache.Cache(tmp_path, 10**6)
    with blocks.locked("size"):
        pass
    with open(tmp_path / "locks" / "size", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # of another open file, as another process has one
        with (
            pytest.raises(
                storage.StorageError, match=r"another process on this machine holds this lock .*POLYTEACH_CACHE"
            ),
            blocks.locked("size"),
        ):
            pass
        threading.Timer(0.1, lambda: fcntl.flock(other, fcntl.LOCK_UN)).start()
        with blocks.locked("size"):  # one that lets go of it is waited for
            pass


def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    """As torch.hub's downloads ask, without a limit of their own."""
    monkeypatch.setattr(files, "SILENCE", 0.3)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with downloading(), pytest.raises(OSError, match="timed out"):
            urlopen(f"http://127.0.0.1:{server.getsockname()[1]}/weights.pth")
    assert socket.getdefaulttimeout() is None
    socket.setdefaulttimeout(7)
    try:
        with downloading():
            assert socket.getdefaulttimeout() == 7  # whoever set one knows better
    finally:
        socket.setdefaulttimeout(None)


class Full:
    """A Ray whose cluster has no room, so that no worker ever starts."""

    exceptions = SimpleNamespace(RayActorError=KeyError, RayTaskError=IndexError)

    def __init__(self):
        self.killed = []

    def cluster_resources(self):
        return {"CPU": 4}

    def available_resources(self):
        return {}

    def remote(self, **options):
        def actor(make):
            return SimpleNamespace(ready=SimpleNamespace(remote=object))

        return lambda kind: SimpleNamespace(remote=actor)

    def wait(self, waiting, num_returns, timeout):
        time.sleep(0.01)
        return [], waiting

    def kill(self, actor):
        self.killed.append(actor)


def test_a_cluster_without_room_is_given_up(monkeypatch):
    monkeypatch.setattr(cluster, "STARTING", 0.2)
    ray = Full()
    pool = cluster._Pool(ray, lambda: lambda part: part, 2, 3, 0)
    with pytest.raises(ValueError, match=r"no worker could be started .*\(0 of 4 CPUs, 0 of 0 GPUs are free"):
        pool.go(deque([0, 1, 2]), lambda *_: None, lambda *_: None)
    assert len(ray.killed) == 2
    # while one works the others may wait
    pool.stuck([(None, time.monotonic() - 9), (0, time.monotonic())])


class Hung(Full):
    """A Ray whose first worker answers its first part and never another."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def remote(self, **options):
        def do(part):
            self.asked.append(part)
            return len(self.asked), part

        def actor(make):
            return SimpleNamespace(ready=SimpleNamespace(remote=object), do=SimpleNamespace(remote=do))

        return lambda kind: SimpleNamespace(remote=actor)

    def wait(self, waiting, num_returns, timeout):
        time.sleep(0.01)
        return [ref for ref in waiting if not isinstance(ref, tuple) or ref[0] == 1][:1], waiting

    def get(self, ref):
        return True


def test_a_part_that_hangs_on_a_cluster_is_given_up_though_no_limit_is_given(monkeypatch):
    monkeypatch.setattr(cluster, "LEAST", 0.3)
    ray, done, aside = Hung(), [], []
    pool = cluster._Pool(ray, lambda: lambda part: part, 1, 2, None)
    assert pool.limit == 24 * 60 * 60  # nothing is known yet of how long a part takes
    pool.go(deque([0, 1]), lambda part, _: done.append(part), lambda *what: aside.append(what))
    assert (done, ray.asked) == ([0], [0, 1, 1])
    assert 0.01 <= pool.longest < 5
    assert aside == [(1, f"took more than {pool.limit:g} s (2 times)")]
    pool.longest = 400.0
    assert pool.limit == 8000  # 20 times as long
    for given, limit in ((0, float("inf")), (7.5, 7.5)):
        assert cluster._Pool(ray, lambda: lambda part: part, 1, 2, given).limit == limit
