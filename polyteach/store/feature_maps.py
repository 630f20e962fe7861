"""Feature maps, such as a foundation model's features of an image's patches, as their shape and their bytes.

The first bytes of all numbers come before the second ones: so Parquet's zstd, which packs the column, finds the sign
and exponent bits of float16, which are alike, beside one another.

Shapes: C channels, M N cells, at any resolution.
"""

import math
from typing import Any

import numpy as np

from polyteach.tasks.target import MOST_VALUES, Column


def encode_features(array: np.ndarray) -> dict[str, Any]:
    """A field (C, M, N) as a dictionary of its shape and its bytes.

    Raises:
        ValueError: it has another number of axes.
    """
    if array.ndim != 3:
        raise ValueError(f"features have shape {array.shape}; they are (channels, M, N)")
    planes = np.ascontiguousarray(array).view(np.uint8).reshape(-1, array.itemsize).T
    return {"shape": list(array.shape), "data": planes.tobytes()}


def decode_features(kept: dict[str, Any], how: Column, most: int) -> np.ndarray:
    """The inverse of `encode_features`: (C, M, N) of the column's dtype.

    most: cells M x N that it may have.

    Raises:
        ValueError: more cells than that, more than `MOST_VALUES` numbers, or not as many bytes as the shape says.
    """
    shape, data, item = kept["shape"], kept["data"], np.dtype(how.dtype).itemsize
    if not isinstance(shape, list) or len(shape) != 3 or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"features have the shape {shape}; it must be channels, height and width")
    if shape[1] * shape[2] > most:
        raise ValueError(f"is {shape[1]}x{shape[2]} (height x width), more than the {most:,} cells allowed here")
    count = math.prod(shape)
    if count > MOST_VALUES:
        raise ValueError(f"has {count:,} numbers; at most {MOST_VALUES:,} are allowed")
    if data is None or len(data) != count * item:
        raise ValueError(f"has {len(data or b''):,} bytes; shape {shape} of {how.dtype} takes {count * item:,}")
    planes = np.frombuffer(data, np.uint8).reshape(item, count)
    return np.ascontiguousarray(planes.T).view(how.dtype).reshape(shape)
