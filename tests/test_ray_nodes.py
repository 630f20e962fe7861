"""Labelling on a Ray of several nodes, which are processes of this machine.

In a module of its own: a process belongs to one Ray at a time, and the tests of test_ray.py share theirs.
"""

import os
import shutil
import tempfile
import threading
import time
from types import SimpleNamespace

import pytest

from polyteach.labelling.cluster import work
from polyteach.verbs.label import label
from tests.test_ray import parts, pictures
from tests.worlds import store_of

MORE = """
import glob

class Patient(Mean):
    '''Leaves half of the parts for later: however slow a machine is, there is work when nodes come and go.'''
    def __call__(self, images):
        while os.path.exists(os.environ["WEATHER"]) and len(glob.glob(os.environ["PARTS"])) >= 8:
            time.sleep(0.05)
        return super().__call__(images)

def patient(device, precision): return Patient()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # on a machine with other work, starting Ray's nodes takes most of five minutes
]


@pytest.fixture
def machines(monkeypatch, tmp_path):
    """A Ray of several nodes, which are processes here, each with what a machine would have."""
    folder = tempfile.mkdtemp(prefix="r")
    os.mkdir(f"{folder}/ray")
    for name, value in {
        "RAY_TMPDIR": folder,  # also where Ray notes which cluster is this machine's: not this one
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "WEATHER": f"{tmp_path}/weather",  # what workers see, who start with Ray
        "PARTS": f"{tmp_path}/far/labels/*/*/part-*.parquet",
    }.items():
        monkeypatch.setenv(name, value)
    import ray
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small}, shutdown_at_exit=False)
    more = lambda **what: made.add_node(**what, object_store_memory=80_000_000)  # noqa: E731
    nodes = SimpleNamespace(add=more, remove=lambda node: made.remove_node(node, allow_graceful=False))
    try:
        nodes.first = more(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False, logging_level="error")
        yield nodes
    finally:
        ray.shutdown()
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def test_nodes_that_join_work_and_those_that_vanish_lose_nothing(machines, teacher, tmp_path):
    far, near = store_of(tmp_path / "far", pictures(64)), store_of(tmp_path / "near", pictures(64))
    seen, coming = [], tmp_path / "weather"
    coming.touch()

    def wait(count):
        deadline = time.monotonic() + 600
        while len(parts(far)) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        seen.append(len(parts(far)))

    def weather():
        try:
            wait(2)
            machines.add(num_cpus=1, num_gpus=4)
            wait(5)
            machines.remove(machines.first)  # with what its two workers were at
            seen.append(len(parts(far)))
        finally:
            coming.unlink()

    change = threading.Thread(target=weather, daemon=True)
    change.start()
    options = {"teachers": {"t": teacher + "patient"}, "device": ("cpu",), "progress": False}
    label(str(far.path), **options, ray="local", ray_workers=4)
    change.join()
    assert 2 <= seen[0] < seen[1] <= seen[2] < 16
    label(str(near.path), **options)
    assert parts(far) == parts(near)
    assert len(parts(far)) == 16

    def gpus_seen():
        """In a worker. It waits for another with other devices, who may be slow to start: a second later all is done.

        Within the test, so that it travels whole, and workers do not import this module for seconds.
        """
        mine, both = os.environ["CUDA_VISIBLE_DEVICES"], f"{os.environ['WEATHER']}-gpus"

        def part(number):
            os.makedirs(f"{both}/{mine}", exist_ok=True)
            deadline = time.monotonic() + 120
            while len(os.listdir(both)) < 2 and time.monotonic() < deadline:
                time.sleep(0.02)
            return mine

        return part

    # a worker that uses two devices has two GPUs of one node to itself
    found, aside = {}, []
    given = ("local", gpus_seen, range(6), found.__setitem__, lambda *part: aside.append(part))
    with pytest.raises(ValueError, match="every worker needs 5 GPUs, but the cluster has 4"):
        work(*given, gpus=5)
    work(*given, gpus=2)
    assert set(found.values()) == {"0,1", "2,3"}
    assert len(found) == 6
    assert not aside
