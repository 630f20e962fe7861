"""All benchmarks: `python benchmarks/run.py [--quick]` prints every ratio and writes results/latest.json.

What is compared with has to be installed: `pip install -r benchmarks/requirements.txt`. What is not is listed as not
measured.
"""

import argparse
import sys
import time

from growth import growth
from harness import RESULTS, machine, save, scratch, table
from labelling import labelling
from processes import processes
from reading import reading
from sizes import sizes
from start import start
from training import training

ALL = (start, sizes, reading, labelling, training, growth, processes)


def main() -> int:
    """The command; 0 also where targets are missed: the table says which."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under 15 minutes")
    parser.add_argument("--only", nargs="*", choices=[b.__name__ for b in ALL], help="these alone")
    given = parser.parse_args()
    rows = []
    for benchmark in ALL:
        if given.only and benchmark.__name__ not in given.only:
            continue
        began = time.monotonic()
        with scratch() as folder:
            rows += benchmark(folder, given.quick)
        print(f"{benchmark.__name__}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        save(rows, RESULTS / "latest.json")  # so that one that is stopped has measured something
    print(table(rows))
    unmeasured = sorted({f"{r.question}: {r.unmeasured}" for r in rows if r.unmeasured})
    print("\n".join(unmeasured) or "all peers were measured")
    print({k: v for k, v in machine().items() if k != "versions"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
