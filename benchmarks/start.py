"""How long the command line and the import take to start."""

import subprocess
import sys
import time
from pathlib import Path

from harness import Row, alone, interleaved, medians


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def start(folder: Path, quick: bool) -> list[Row]:
    """`polyteach --help` and `import polyteach`, against a Python that does nothing."""
    python = sys.executable
    ways = {
        "nothing": lambda: seconds(python, "-c", ""),
        "help": lambda: seconds(python, "-m", "polyteach", "--help"),
        "import": lambda: seconds(python, "-c", "import polyteach, sys; assert 'torch' not in sys.modules"),
        "label --help": lambda: seconds(python, "-m", "polyteach", "label", "--help"),
    }
    m = medians(interleaved(ways, 3 if quick else 9))
    return [
        Row("start", "polyteach --help", m["help"], None, "s", 0.5, False),
        Row("start", "import polyteach (no torch)", m["import"], None, "s", 0.3, False),
        Row("start", "polyteach label --help, against python -c ''", m["label --help"], m["nothing"], "s", None, False),
    ]


if __name__ == "__main__":
    alone(start, "start")
