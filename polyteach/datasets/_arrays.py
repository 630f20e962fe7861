"""Arrays in NumPy's files."""

import io
import math
import os
import threading
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

from polyteach.datasets._files import opened

# NumPy parses a file's head with `ast`, which until Python 3.12 may raise SystemError ("AST constructor recursion depth
# mismatch") where two threads do so at once: https://github.com/python/cpython/issues/106905
_PARSING = threading.Lock()
_HEADS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""By version. The third differs in names of fields alone, which arrays of numbers have not."""


def read_array(path: str, check: Callable[[tuple[int, ...], np.dtype], None]) -> np.ndarray:
    """The array of an .npy file that anyone may have made. Threads may read at once; nothing is unpickled.

    check: called with the shape and the dtype, before memory is taken for what the file says that it holds; what it
    raises ends the reading. What is returned may not be written into.

    Raises:
        ValueError: it is missing, broken, cut short or no .npy file; names it.
    """
    with opened(path) as file:
        try:
            version = np.lib.format.read_magic(file)
            with _PARSING:
                shape, fortran, dtype = _HEADS[version](file)
        except Exception as e:  # of a head that is no literal: SyntaxError, RecursionError, KeyError, ...
            raise ValueError(f"{path}: broken: {str(e) or type(e).__name__}") from e
        if dtype.hasobject or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"{path}: must be one array of numbers; it is of {dtype}, {shape}")
        check(shape, dtype)
        size = math.prod(shape) * dtype.itemsize
        left = os.fstat(file.fileno()).st_size - file.tell()
        if size > left:
            raise ValueError(f"{path}: broken: its head says {size:,} bytes of numbers, and there are {left:,}")
        data = file.read(size)
    if len(data) < size:
        raise ValueError(f"{path}: broken: it has become shorter")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def read_arrays(path: str | os.PathLike[str]) -> np.ndarray | dict[str, np.ndarray]:
    """What is in an .npy file, or by name what is in an .npz file, of our own making: it is as large as it says.

    Threads may read at once; nothing is unpickled.

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
