"""Growth: memory, start-up and throughput as a store grows."""

import json
import subprocess
import sys
from pathlib import Path

from harness import Row, alone
from worlds import rendered

from polyteach.store import ImageRow, Store
from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.contract import PEOPLE, Space

READ = """
import json, resource, sys, time
start = time.perf_counter()
from polyteach.store import Store
from polyteach.loading.plan import plan
from polyteach.loading.samples import Samples
from polyteach.loading.transport import batches
from polyteach.loading.views import Augment
from polyteach.tasks.contract import Policy
imported = time.perf_counter()
chosen = plan([Store.open(sys.argv[1])], (), (), ())
samples = Samples(chosen, Augment((64, 64)), Policy(), 0)
stream = batches(samples, 32, 0, 32)
next(stream)
first = time.perf_counter()
for _ in stream: pass
last = time.perf_counter()
try:  # not getrusage: its highest is the parent's, where that was higher when it forked
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    memory = int(status["VmHWM"].split()[0]) / 1024
except OSError:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([memory, first - imported, 31 * 32 / (last - first)]))
"""


def store_of(folder: Path, count: int, data: list[bytes]) -> Store:
    """`count` rows of the same few pictures, each with a class."""
    import torch

    store = Store.create(folder / f"growth-{count}", 1024)
    labels = store.create_set("classification", PEOPLE, Space(("a", "b")), {})
    answers = [ClassificationTarget(row) for row in torch.eye(2)]
    for part, start in enumerate(range(0, count, 1024)):
        ids = [f"{i:08d}" for i in range(start, min(start + 1024, count))]
        store.write_images(part, [ImageRow(i, 64, 64, data[k % len(data)]) for k, i in enumerate(ids)])
        labels.write(part, ids, [answers[k % 2] for k in range(len(ids))])
    return store


def growth(folder: Path, quick: bool) -> list[Row]:
    """Resident memory, seconds to the first batch, and images a second of training's reader, as the store grows."""
    small = rendered(folder / "pictures", 64, 64, "none")
    data = [r.data or b"" for r in small.images(0)]
    counts = (10_000, 50_000 if quick else 1_000_000)
    found = {}
    for count in counts:
        store = store_of(folder, count, data)
        command = [sys.executable, "-c", READ, str(store.path)]
        said = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
        runs = [json.loads(text) for text in said]
        found[count] = [sorted(r[k] for r in runs)[1] for k in range(3)]
    low, high = counts
    name = f"growth, {high:,} rows against {low:,}"
    (memory, first, speed), (memory0, first0, speed0) = found[high], found[low]
    return [
        Row(name, "resident memory", memory, memory0, "MiB", 1.1, False),
        Row(name, "seconds to the first batch", first, first0, "s", 1.1, False),
        Row(name, "reading", speed, speed0, "images/s", 0.95),
    ]


if __name__ == "__main__":
    alone(growth, "growth")
