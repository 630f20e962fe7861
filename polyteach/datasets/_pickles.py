"""Pickles that may hold lists, text and numbers: looked through before they are opened, since opening one runs it.

Which functions a pickle may name is for its reader to say (`pickle.Unpickler.find_class`); what it may cost is said
here.
"""

import mmap
import pickle
import pickletools
from collections.abc import Callable
from typing import IO, Any

_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_REFUSED = frozenset(("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"))


def unpickled(unpickler: Callable[[Any], pickle.Unpickler], file: IO[bytes]) -> Any:
    """What a regular file holds, by an unpickler that is made for it.

    Raises:
        ValueError, or whatever a broken pickle makes the unpickler raise.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        check(data)
        data.seek(0)
        return unpickler(data).load()


def check(data: Any) -> None:
    """Refuse a pickle that takes more memory than it has bytes. data: bytes, or a file.

    Five bytes can number a place of the memo for which C's unpickler makes a table of 32 GB; a length of bytes that are
    not there is allocated before it is read.

    Raises:
        ValueError: it is one, it is cut short, or none; says at which byte.
    """
    for operation, argument, at in pickletools.genops(data):
        if operation.name in _REFUSED:
            raise ValueError(f"{operation.name} at byte {at:,} is refused")
        number = int(argument or 0) if operation.name in _PUTS else 0
        if number > (at or 0):
            raise ValueError(f"{operation.name} at byte {at:,} numbers what it keeps {number:,}: it is broken")
