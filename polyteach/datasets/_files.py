"""Files of a dataset that are read whole: regular ones, of a size that such files have, checked before they are read.

An archive may unpack to links that lead to /dev/zero or to themselves, to pipes that nobody writes into, and to sparse
files of terabytes; and a file of annotations may claim any size. What a label costs is bounded by its image, and what
a description costs by `MOST` bytes of it.
"""

import io
import json
import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

MOST = 2**26
"""Bytes of a file of annotations, of a list or of a class map: the largest of those published have 20 MB."""
_PNG = b"\x89PNG\r\n\x1a\n"
_LONG = 60
"""Letters of a value that an error shows."""


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """A regular file, to be read.

    Raises:
        ValueError: it is missing, cannot be read, or is no regular file; names it.
    """
    try:
        mode = os.stat(path).st_mode
        # not before it is known: to open a named pipe would be to wait for ever
        file = open(path, "rb") if stat.S_ISREG(mode) else None  # noqa: SIM115
    except FileNotFoundError as e:
        raise ValueError(f"{path}: missing") from e
    except (OSError, ValueError) as e:  # the latter of a name that has a NUL
        raise ValueError(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}") from e
    if file is None:
        raise ValueError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}")
    with file:
        yield file


def contents(path: str, most: int = MOST) -> bytes:
    """The bytes of a regular file.

    Raises:
        ValueError: it is missing, cannot be read, is no regular file, or has more than `most` bytes; names it.
    """
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise ValueError(f"{path}: has more than {most:,} bytes, the most that is read of such a file")
        try:
            return file.read(most)
        except OSError as e:
            raise ValueError(f"{path}: cannot be read: {e.strerror}") from e


def decoded(path: str, data: bytes, encoding: str = "utf-8") -> str:
    """The text of a file's bytes.

    Raises:
        ValueError: they are no such text; names the file.
    """
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}: is no UTF-8 text: {e}") from e


def lines(path: str, most: int = MOST) -> list[str]:
    """The lines of a text file of at most `most` bytes, without their ends.

    Raises:
        ValueError: as `contents` and `decoded`; names the file.
    """
    return [line.rstrip("\n") for line in io.StringIO(decoded(path, contents(path, most)), newline=None)]


def shown(value: Any) -> str:
    """What an error shows of a value of a file: short, and made in a short time whatever it holds."""
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, dict | list | tuple | set | frozenset):  # a pickle's may hold itself many times over
        return f"{kind} of {len(value):,}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"a number of {value.bit_length():,} bits"  # Python writes none of more than 4,300 digits
    if isinstance(value, str | bytes):
        value = value[:_LONG]
    return f"{value!r:.{_LONG}}"


def json_of(path: str, text: str) -> Any:
    """What JSON text says.

    Raises:
        ValueError: it is none, or is nested too deeply; names the file.
    """
    try:
        return json.loads(text)
    except RecursionError as e:
        raise ValueError(f"{path}: is no JSON that is read: it is nested too deeply") from e
    except ValueError as e:  # a number of thousands of digits is one too
        raise ValueError(f"{path}: is no JSON: {e}") from e


def xml(path: str) -> ElementTree.Element:
    """The root of an XML file of annotations, which has neither a document type nor entities.

    Raises:
        ValueError: as `contents`; or it is broken, or has one of these.
    """
    data = contents(path)
    if b"<!" in re.sub(rb"<!--.*?-->", b"", data, flags=re.DOTALL) or b"\0" in data:
        # an entity may stand for gigabytes, or for another file
        raise ValueError(f"{path}: has a document type, entities or is not UTF-8, which annotations have not")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as e:  # the last of an encoding that is none
        raise ValueError(f"{path}: broken XML: {e}") from e


def class_map(path: str, size: tuple[int, int], modes: Sequence[str], what: str) -> np.ndarray:
    """The pixels (H, W) or (H, W, channels) of a PNG that belongs to an image of (height, width) `size`.

    modes: Pillow's, that it may have; `what` it must be otherwise. Its size is compared before anything is unpacked.

    Raises:
        ValueError: as `contents`; or it is broken, no PNG, or of another mode or size.
    """
    return png(path, size, modes, what)[0]


def png(
    path: str, size: tuple[int, int], modes: Sequence[str], what: str
) -> tuple[np.ndarray, list[tuple[int, ...]] | None]:
    """As `class_map`; and, where its mode is "P", the (red, green, blue) of each index that its palette has."""
    data = contents(path)
    if not data.startswith(_PNG) or len(data) < 24:
        raise ValueError(f"{path}: broken: no PNG")
    width, height = struct.unpack(">II", data[16:24])
    if (height, width) != size:
        raise ValueError(f"{path}: is {height} x {width} (height x width), but the image is {size[0]} x {size[1]}")
    pixels = palette = None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            mode = image.mode
            if image.size == (width, height) and mode in modes:  # a file may have several heads
                pixels = np.asarray(image)
                colours = (image.getpalette("RGB") or []) if mode == "P" else None
                palette = None if colours is None else [*zip(*[iter(colours)] * 3, strict=True)]
    except MemoryError:
        raise
    except Exception as e:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ... of broken files
        raise ValueError(f"{path}: broken: {e}") from e
    if pixels is None or pixels.shape[:2] != size:
        raise ValueError(f"{path}: must be {what}; it is {mode}" if mode not in modes else f"{path}: broken: two sizes")
    return pixels, palette
