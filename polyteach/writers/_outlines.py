"""Masks as polygons along the edges of their pixels, from which readers draw the very same mask again.

Shapes: H W pixels.
"""

import numpy as np
from jaxtyping import Bool, Int64

Ring = list[tuple[int, int]]
"""Corners x, y of a closed line, each once."""


def rings(mask: Bool[np.ndarray, "H W"]) -> tuple[list[Ring], list[Ring]]:
    """The outer edges of a mask's parts, and those of its holes, in order from the top.

    Pixels that touch at a corner alone are of different parts. Every corner of the edges ends a horizontal and a
    vertical run of them: sorted by rows, and by columns, corners follow each other in pairs that are such runs.
    """
    x, y, level, upright, on = _corners(mask)
    across, down = np.empty(len(x), np.int64), np.empty(len(x), np.int64)
    for order, link in ((np.lexsort((level, x, y)), across), (np.lexsort((upright, y, x)), down)):
        link[order[0::2]], link[order[1::2]] = order[1::2], order[0::2]
    place = list(zip(x.tolist(), y.tolist(), strict=True))
    links = (across.tolist(), down.tolist())
    outer, holes, seen = list[Ring](), list[Ring](), bytearray(len(place))
    for start in np.lexsort((level, x, y)).tolist():
        if seen[start]:
            continue
        ring, at, turn = Ring(), start, 0
        while not seen[at]:
            seen[at] = 1
            ring.append(place[at])
            at = links[turn % 2][at]
            turn += 1
        (outer if on[start] else holes).append(ring)
    return outer, holes


def _corners(
    mask: Bool[np.ndarray, "H W"],
) -> tuple[
    Int64[np.ndarray, " C"], Int64[np.ndarray, " C"], Int64[np.ndarray, " C"], Int64[np.ndarray, " C"],
    Bool[np.ndarray, " C"],
]:  # fmt: skip
    """x, y of every corner, a corner of two parts twice; the order of these two in their row, and in their column; and
    whether the pixel below and to the right is of the mask.
    """
    wide = np.pad(mask, 1)
    a, b, c, d = wide[:-1, :-1], wide[:-1, 1:], wide[1:, :-1], wide[1:, 1:]
    odd = a ^ b ^ c ^ d
    falling = a & d & ~b & ~c
    rising = b & c & ~a & ~d
    found = [(np.nonzero(odd), 0, 0)]
    # where the line falls, the part to the left is the one above; where it rises, the part to the left is below
    found += [(np.nonzero(falling), 0, 0), (np.nonzero(falling), 1, 1)]
    found += [(np.nonzero(rising), 0, 1), (np.nonzero(rising), 1, 0)]
    y, x = (np.concatenate([where[i] for where, _, _ in found]) for i in (0, 1))
    level, upright = (np.concatenate([np.full(len(one[0][0]), one[i]) for one in found]) for i in (1, 2))
    return x, y, level, upright, d[y, x]


def joined(parts: list[Ring]) -> Ring:
    """Several rings as one, which goes to each from the first one's first corner and back along the same line.

    By the even-odd rule, by which COCO's and OpenCV's drawing go, it covers what the rings cover, less the holes.
    """
    whole = list(parts[0])
    for ring in parts[1:]:
        whole += [parts[0][0], *ring, ring[0]]
    return whole
