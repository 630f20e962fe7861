"""Arrays in NumPy's files."""

import io
import os
import threading
import zipfile
import zlib

import numpy as np

# NumPy parses a file's head with `ast`, which until Python 3.12 may raise SystemError ("AST constructor recursion depth
# mismatch") where two threads do so at once: https://github.com/python/cpython/issues/106905
_PARSING = threading.Lock()


def read_arrays(path: str | os.PathLike[str]) -> np.ndarray | dict[str, np.ndarray]:
    """What is in an .npy file, or by name what is in an .npz file. Threads may read at once; nothing is unpickled.

    Raises:
        OSError: It can't be read.
        ValueError, EOFError: It is broken, or has Python objects.
    """
    with open(path, "rb") as file:
        content = io.BytesIO(file.read())
    with _PARSING:
        try:
            found = np.load(content, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else dict(found)
        except (zipfile.BadZipFile, zlib.error) as e:
            raise ValueError(str(e)) from e
