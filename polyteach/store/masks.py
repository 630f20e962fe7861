"""Masks as COCO's run lengths, whose runs are checked before they are drawn.

Shapes: K masks of M N cells.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from faster_coco_eval.core import mask as run_length
from jaxtyping import Bool
from torch import Tensor

from polyteach.tasks.target import MOST_VALUES

STEP = 2**20
"""Cells of masks that are drawn together: so they are never all there twice, as bytes and as bools."""


def encode_masks(array: np.ndarray) -> dict[str, Any]:
    """(K, M, N) masks as Parquet keeps them: their size, and COCO's run lengths of each."""
    counts = run_length.encode(np.asfortranarray(array.transpose(1, 2, 0).astype(np.uint8))) if len(array) else []
    return {"size": list(array.shape[1:]), "counts": [c["counts"] for c in counts]}


def decode_masks(kept: dict[str, Any], most: int) -> Bool[Tensor, "K M N"]:
    """The inverse of `encode_masks`. most: cells of one mask.

    Raises:
        ValueError: no size, more cells than allowed, or runs that do not fill a mask.
    """
    size, counts = kept["size"], kept["counts"]
    if size is None or counts is None or None in counts or None in size or len(size) != 2 or min(size) < 0:
        raise ValueError(f"masks have the size {size}, which is none, or one has no runs")
    cells = size[0] * size[1]
    if cells > most:
        raise ValueError(f"masks are {size[0]}x{size[1]} (height x width), more than the {most:,} cells allowed here")
    if cells * len(counts) > MOST_VALUES:
        raise ValueError(f"{len(counts):,} masks of {size[0]}x{size[1]} are more than {MOST_VALUES:,} cells together")
    out = torch.zeros(len(counts), *size, dtype=torch.bool)
    if not len(counts):
        return out
    check_runs(counts, cells)
    step = max(STEP // cells, 1)
    for start in range(0, len(counts), step):
        masks = run_length.decode([{"size": size, "counts": c} for c in counts[start : start + step]])
        out.numpy().view(np.uint8)[start : start + step] = masks.transpose(2, 0, 1)
    return out


def check_runs(counts: Sequence[bytes], cells: int) -> None:
    """Refuse what the decoder, which is in C++, would trust: runs are looked at, none of them is drawn.

    COCO's compressed run lengths: digits of 5 bits in bytes from 48 on, of which bit 5 says that more follow, the
    lowest first, the last one's bit 4 the sign; from the fourth number on each is the difference to the one before the
    last.

    Raises:
        ValueError: other bytes, a run below 0, or runs that do not make up `cells`.
    """
    digits = np.frombuffer(b"".join(counts), np.uint8) - np.uint8(48)
    if not cells or not all(counts) or digits.max() > 63:
        raise ValueError("a mask has no runs, or bytes that are none")
    last = digits < 32
    ends = np.flatnonzero(last)
    stops = np.cumsum([len(c) for c in counts])
    if not last[stops - 1].all():
        raise ValueError("a mask's runs are cut short")
    starts = np.concatenate([[0], ends[:-1] + 1])
    length = ends - starts + 1
    if length.max() > 7:
        raise ValueError("a mask has a run that is longer than any image")
    place = np.arange(len(digits)) - np.repeat(starts, length)
    numbers = np.add.reduceat((digits & 31).astype(np.int64) << (5 * place), starts)
    numbers -= np.where(digits[ends] & 16, np.int64(1) << (5 * length), 0)
    first = 0
    for stop in (np.searchsorted(ends, stops - 1) + 1).tolist():
        mine = numbers[first:stop]
        odd, even = mine[1::2].cumsum(), mine[2::2].cumsum()
        least = min(int(mine[0]), int(odd.min(initial=0)), int(even.min(initial=0)))
        if least < 0 or int(mine[0] + odd.sum() + even.sum()) != cells:
            raise ValueError(f"a mask's runs do not make up its {cells:,} cells")
        first = stop
