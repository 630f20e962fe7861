"""Maps as lossless WebP or PNG, whose header is looked at before anything is unpacked.

Shapes: M N cells of a map.
"""

import io
import struct
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torchcodec.decoders import decode_png, decode_webp

from polyteach.tasks.target import Column

WEBP_SIDE = 16383
"""The format's longest side, in pixels."""
SMALL = 512
"""Bytes of an encoded map up to which its pixels are remembered, because the next image's is likely to be the same."""
SAME = 2**20
"""Pixels of a map up to which some of those few bytes are remembered; of larger ones two, whatever they are."""


def encode_map(array: np.ndarray) -> bytes:
    """A lossless WebP, else a PNG: of bools, in one bit a pixel; of what has more than 16,383 pixels on a side; and of
    integers in other shapes than those that the tasks have.

    Against PNG: two thirds of the bytes for depth, a third for normals and classes, and quicker to unpack. Two bytes of
    a number go to red and blue: WebP predicts each from its neighbours, and subtracts green from both.
    """
    if max(array.shape[-2:]) <= WEBP_SIDE and array.size:
        if array.ndim == 2 and array.dtype in (np.uint16, np.float16):
            bits = array.view(np.uint16)
            # fewer bytes by more effort: of classes a third, of depth none at four times the time
            return _webp(np.stack([bits >> 8, np.zeros_like(bits), bits & 255], -1), array.dtype == np.uint16)
        if array.ndim == 2 and array.dtype == np.uint8:
            return _webp(np.stack([array] * 3, -1), True)
        if array.ndim == 3 and array.dtype == np.int8:  # to 1..255 so that a viewer shows them
            return _webp((array.astype(np.int16) + 128).transpose(1, 2, 0), True)
    if array.dtype == np.float16:
        array = array.view(np.uint16)
    if array.dtype == np.int8:
        array = (array.astype(np.int16) + 128).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)) if array.ndim == 3 else array)
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=3)
    return out.getvalue()


def _webp(rgb: np.ndarray, effort: bool) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(rgb.astype(np.uint8)))
    image.save(out, format="WEBP", lossless=True, exact=True, quality=0, method=int(effort))
    return out.getvalue()


_MAPS = {
    "bool": ("1-bit grey PNG",),
    "uint8": ("WebP", "8-bit grey PNG", "8-bit RGB PNG"),
    "int8": ("WebP", "8-bit grey PNG", "8-bit RGB PNG"),
    "uint16": ("WebP", "16-bit grey PNG"),
    "float16": ("WebP", "16-bit grey PNG"),
}
"""By dtype, the images that `encode_map` makes: others hold other numbers than it keeps."""


def _header(kept: bytes) -> tuple[int, int, str]:
    """Height, width and kind of an encoded map; nothing of it is unpacked.

    Raises:
        ValueError: neither a PNG nor a lossless WebP of one opaque image.
    """
    if kept[:8] == b"\x89PNG\r\n\x1a\n" and kept[12:16] == b"IHDR" and len(kept) > 26:
        width, height, bits, colour = struct.unpack(">IIBB", kept[16:26])
        return height, width, f"{bits}-bit {({0: 'grey', 2: 'RGB'}).get(colour, f'colour type {colour}')} PNG"
    if kept[:4] == b"RIFF" and kept[8:16] == b"WEBPVP8L" and len(kept) > 25:
        [bits] = struct.unpack("<I", kept[21:25])
        return (bits >> 14 & 16383) + 1, (bits & 16383) + 1, "WebP with transparency" if bits >> 28 & 1 else "WebP"
    raise ValueError("a map is neither a PNG nor a lossless WebP of one image")


def decode_map(kept: bytes, how: Column, most: int) -> np.ndarray:
    """The inverse of `encode_map`, of a map that a column keeps: (M, N), or (3, M, N).

    most: cells that it may have. A PNG of one bit a pixel gives 0 and not 0.

    Raises:
        ValueError: more cells than that, another kind of image than the column keeps, or one that cannot be decoded.
    """
    height, width, kind = _header(kept)
    if height * width > most:
        raise ValueError(f"is {height}x{width} (height x width), more than the {most:,} cells allowed here")
    if kind not in _MAPS.get(how.dtype, (kind,)):
        raise ValueError(f"is a {kind}; {how.dtype} is kept as {' or '.join(_MAPS[how.dtype])}")
    again = _same_again if height * width <= SAME else _same_large
    array = again(kept) if len(kept) <= SMALL else _unpacked(kept)
    if kept[:4] == b"RIFF" and how.dtype != "int8":  # WebP, three channels always
        array = array[0] if how.dtype == "uint8" else _two_bytes(array)
    if how.dtype == "int8":
        return (array ^ 128).view(np.int8)  # less 128
    if how.dtype == "float16":
        return array.astype(np.uint16, copy=False).view(np.float16)
    return array


def _two_bytes(array: np.ndarray) -> np.ndarray:
    """(M, N) uint16, of which red is the higher byte and blue the lower."""
    out = np.empty((*array.shape[1:], 2), np.uint8)
    out[..., 0], out[..., 1] = array[2], array[0]
    return out.view("<u2")[..., 0]


def _unpacked(kept: bytes) -> np.ndarray:
    """(M, N), or (3, M, N); of one bit a pixel, 0 and not 0."""
    raw = torch.frombuffer(bytearray(kept), dtype=torch.uint8)
    try:  # about twice as fast as Pillow where there is little to unpack
        unpack = decode_webp if kept[:4] == b"RIFF" else decode_png
        # "auto": a PNG of 16 bits would lose the lower half of them
        found = unpack(raw, mode="UNCHANGED", output_dtype="auto").numpy()
    except RuntimeError:  # no image, which Pillow will say
        try:
            with Image.open(io.BytesIO(kept), formats=["PNG", "WEBP"]) as image:
                array = np.asarray(image)
        except Exception as e:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ... on broken bytes
            raise ValueError(f"cannot be decoded: {type(e).__name__}: {e}") from e
        return array.transpose(2, 0, 1) if array.ndim == 3 else array
    return found[0] if len(found) == 1 else found


_same_again = lru_cache(maxsize=32)(_unpacked)
"""For maps that hold one value only, such as "all is valid": those of most images are the same few bytes."""
_same_large = lru_cache(maxsize=2)(_unpacked)
