"""MATLAB's files up to version 7, read by SciPy in a process of its own.

SciPy's reader is compiled, and trusts what it reads: a few changed bytes end the process, and a few kilobytes stand for
gigabytes. Here that ends the other process, whose memory and time are limited, and becomes an error.
"""

import json
import os
import subprocess
import sys
from typing import Any

MEMORY = 2**30
"""Bytes that reading a file may take."""
SECONDS = 60


def read_matlab(path: str, data: bytes, names: list[str]) -> dict[str, Any]:
    """These variables of a file, those that are there, by name.

    path: for errors. An array is the list of its numbers, row by row, and its shape, without sides of 1, is beside it
    as "NAME.shape"; a text is a text; an array of structures is a dictionary of lists, with None for what is neither a
    number nor a text.

    Raises:
        ValueError: it is broken, takes too much, or SciPy is not installed; names the file.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-W", "ignore", __file__, *names]
    try:
        found = subprocess.run(command, input=data, capture_output=True, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired as e:
        raise ValueError(f"{path} is broken, or no MATLAB file: reading it took more than {SECONDS} seconds") from e
    if found.returncode == 3:
        raise ValueError(f"{path} is a MATLAB file, and reading it needs SciPy: pip install 'polyteach[datasets]'")
    if found.returncode:
        said = found.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(f"{path} is broken, or no MATLAB file: {said[-1][:200] if said else 'SciPy stopped at it'}")
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


def _plain(value: Any) -> Any:
    import numpy as np

    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.names:
        return {name: [_one(v) for v in array[name].reshape(-1)] for name in array.dtype.names}
    if array.dtype.kind in "iuf":
        return array.reshape(-1).tolist()
    return [_one(v) for v in array.reshape(-1)]


def _one(value: Any) -> float | str | None:
    """A number or a text, as it is or alone in an array."""
    value = value.item() if getattr(value, "size", 0) == 1 else value
    return value if isinstance(value, int | float | str) else None


def _main(names: list[str]) -> int:
    import io
    import resource

    try:
        from scipy.io import loadmat
    except ImportError:
        return 3
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    content = loadmat(io.BytesIO(sys.stdin.buffer.read()), squeeze_me=True, variable_names=names)
    there = [name for name in names if name in content]
    numeric = (n for n in there if getattr(getattr(content[n], "dtype", None), "kind", " ") in "iuf")
    shapes = {f"{n}.shape": content[n].shape for n in numeric}
    sys.stdout.write(json.dumps(shapes | {name: _plain(content[name]) for name in there}))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
