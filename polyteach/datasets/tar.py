"""A tar archive of pictures, plain or compressed, in the archive's order.

A member has no address that a store could refer to, so the bytes are always kept in the store, as with `--embed`.
Members whose ending is no image's (WebDataset's .json and .cls, say) are counted and left out.
"""

import tarfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from typing import ClassVar

from polyteach.datasets import Dataset, Entry, kind, printable

_BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, LZMAError)


class Tar(Dataset):
    """Members of an archive. It is read through twice: once for the names, once for the pictures."""

    embed: ClassVar[bool] = True

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            with tarfile.open(path) as archive:
                members = archive.getmembers()
        except _BROKEN as e:
            raise ValueError(f"{path} cannot be read, is broken or no tar archive: {e}") from e
        files = [(m, kind(m.name)) for m in members if not m.isdir()]
        self._members = [m for m, why in files if why is None]
        super().__init__([printable(m.name.removeprefix("./")) for m in self._members])
        self.left_out.update(why for _, why in files if why is not None)

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        try:
            with tarfile.open(self._path) as archive:
                for member in self._members[start:stop]:
                    yield _entry(archive, member)
        except _BROKEN as e:
            raise ValueError(f"{self._path} is broken: {e}") from e


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    try:
        content = archive.extractfile(member)
    except KeyError:
        return Entry(problem=f"a link to {printable(member.linkname)!r}, which is not in the archive")
    if content is None:
        return Entry(problem="not a regular file")
    with content:
        return Entry(data=content.read())


def load(path: str) -> Dataset:
    """The archive at `path`.

    Raises:
        ValueError: it cannot be read, is truncated or no tar archive.
    """
    return Tar(path)
