"""The codec: a target's fields as the values that Parquet keeps, and back.

Shapes: K entries of a vector, M N cells of a map.
"""

from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from polyteach.ground.limits import MAX_PIXELS, Limits
from polyteach.store.feature_maps import decode_features, encode_features
from polyteach.store.maps import decode_map, encode_map
from polyteach.store.masks import decode_masks, encode_masks
from polyteach.tasks.target import MAP, Column, Target


def columns_of(target: type[Target]) -> dict[str, Column]:
    """How each field of a target is kept, of those that are."""
    kept = {f.name: f.metadata["column"] for f in fields(target)}
    return {name: how for name, how in kept.items() if how.kind != "none"}


def arrow_type(how: Column) -> pa.DataType:
    """The type of a column in Parquet."""
    if how.kind == "map":
        return pa.binary()
    if how.kind == "features":
        return pa.struct([("shape", pa.list_(pa.int32())), ("data", pa.binary())])
    if how.kind == "masks":
        return pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.list_(pa.binary()))])
    number = pa.bool_() if how.dtype == "bool" else pa.from_numpy_dtype(np.dtype(how.dtype))
    return pa.list_(pa.list_(number, how.width) if how.kind == "rows" else number)


def stored_value(scalar: pa.Scalar, how: Column) -> Any:
    """One field's value in Parquet: bytes, a dictionary, or an array of all its numbers."""
    if how.kind in ("map", "features", "masks"):
        return scalar.as_py()
    values = scalar.values
    numbers = values.flatten() if how.kind == "rows" else values
    if values.null_count or numbers.null_count:
        raise ValueError("an entry is missing")
    return numbers.to_numpy(zero_copy_only=False)


def encode(value: Tensor, how: Column) -> Any:
    """A field of a target as the Python value that Parquet keeps.

    Raises:
        ValueError: the value does not fit its dtype on disk.
    """
    array = _on_disk(value.detach().cpu().numpy(), how)
    if how.kind == "map":
        return encode_map(array)
    if how.kind == "features":
        return encode_features(array)
    if how.kind == "masks":
        return encode_masks(array)
    return list(array) if how.kind == "rows" else array


def decode(kept: Any, how: Column, most: int = MAX_PIXELS) -> Tensor:
    """The inverse of `encode`: float32 where the column is scaled or floating, int64 where integer, bool where bool.

    most: cells of a map, a feature map or a mask. It is looked at in the header, before anything is unpacked.

    Raises:
        ValueError: more cells than that; a map that cannot be decoded, or is not of the kind that the column keeps;
            runs of a mask that do not fill it, or masks of more than `MOST_VALUES` together.
    """
    if how.kind == "map":
        return _in_memory(decode_map(kept, how, most), how)
    if how.kind == "features":
        return _in_memory(decode_features(kept, how, most), how)
    if how.kind == "masks":
        return decode_masks(kept, most)
    array = np.asarray(kept, dtype=how.dtype)
    return _in_memory(array.reshape(-1, how.width) if how.kind == "rows" else array, how)


def room(size: tuple[int, int], limits: Limits) -> int:
    """Cells that a map of an image of (height, width) `size` may have: as many as it has pixels, or `MAP`."""
    return min(max(size[0] * size[1], MAP), limits.max_pixels)


def _on_disk(array: np.ndarray, how: Column) -> np.ndarray:
    dtype = np.dtype(how.dtype)
    if how.scale != 1:
        array = np.round(array.astype(np.float64) / how.scale)
    if dtype.kind in "iu" and array.size:
        low, high = array.min(), array.max()
        if not (np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max):
            raise ValueError(f"values {low}..{high} do not fit {how.dtype} (scale {how.scale:g})")
    if how.kind == "features" and dtype.kind == "f" and array.size and np.abs(array).max() > np.finfo(dtype).max:
        raise ValueError(f"values of up to {np.abs(array).max():g} do not fit {how.dtype}; scale them")
    return array.astype(dtype)


def _in_memory(array: np.ndarray, how: Column) -> Tensor:
    dtype = np.dtype(how.dtype)
    if how.scale != 1:
        if dtype.itemsize == 1:  # looked up, in a quarter of the time
            return torch.from_numpy(_levels(how).take(array.view(np.uint8)))
        return torch.from_numpy(_scaled(array, how))
    if dtype == np.float16:  # torch takes a fifth of numpy's time
        return torch.from_numpy(np.array(array)).float()
    memory = {"f": np.float32, "i": np.int64, "u": np.int64, "b": np.bool_}[dtype.kind]
    return torch.from_numpy(np.array(array, dtype=memory))


def _scaled(array: np.ndarray, how: Column) -> np.ndarray:
    # as a quotient where the scale is 1/n: 127 * (1 / 127) is not 1 in float32, 127 / 127 is
    return (array / np.float64(round(1 / how.scale))).astype(np.float32)


@lru_cache(maxsize=8)
def _levels(how: Column) -> np.ndarray:
    """The values of all bytes."""
    return _scaled(np.arange(256, dtype=np.uint8).view(how.dtype), how)
