"""A tar archive of images, plain or compressed, in the archive's order.

A member has no address that a store could refer to, so the bytes are always kept in the store, as with `--embed`.
Members whose ending is no image's (WebDataset's .json and .cls, say) are counted and left out. A link stands for the
member that it leads to.

Nothing is read before its size was looked at. An image whose file is larger than is allowed (4 bytes for every
pixel of --max-pixels, at least 256 MiB), a sparse file, a link to nothing or to itself is a reject. To skip what a
large one holds, a compressed archive has to be unpacked on, twice, which takes some seconds for each 10^9 bytes. An
archive that is cut, that unpacks to more than 8 GiB and 100 times its size, that has more than a million members and
one for each 32 of its bytes, or a name of more than 256 KiB, is refused. Where links would have more read again than
may be unpacked, those that are left are rejects.
"""

import lzma
import posixpath
import tarfile
import zlib
from array import array
from collections.abc import Iterator
from typing import ClassVar

from polyteach.datasets import Dataset, Entry, kind, printable
from polyteach.datasets._archive import Archive, is_file, members

_BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)
_CHAIN = 8
"""Links to links that are followed."""


class Tar(Dataset):
    """Members of an archive. It is read through twice: once for the names, once for the images."""

    embed: ClassVar[bool] = True

    def __init__(self, path: str) -> None:
        self._path = path
        self._starts, self._sizes = array("q"), array("q")
        self._problems: dict[int, str] = {}
        names: list[str] = []
        super().__init__(names)
        links: dict[int, tarfile.TarInfo] = {}
        try:
            with Archive(path) as archive:
                for member in members(archive):
                    if member.isdir():
                        continue
                    if why := kind(member.name):
                        self.left_out[why] += 1
                        continue
                    if member.islnk() or member.issym():
                        links[len(names)] = member
                    elif not is_file(member):
                        what = "a sparse file: pack it as it is" if member.issparse() else "not a regular file"
                        self._problems[len(names)] = what
                    names.append(printable(member.name.removeprefix("./")))
                    self._starts.append(member.offset_data)
                    self._sizes.append(member.size)
            if links:
                self._follow(links)
        except _BROKEN as e:
            raise ValueError(f"{path} cannot be read, is broken or no tar archive: {e}") from e

    def _follow(self, links: dict[int, tarfile.TarInfo]) -> None:
        """Give links the place of what they lead to, or a problem: to nothing, in a circle, or at too great a cost."""
        chains = {_normal(m.name): m for m in links.values()}
        wanted = {_target(m) for m in links.values()}
        found: dict[str, list[tuple[int, int]]] = {}
        with Archive(self._path) as archive:
            left, plain = archive.allowance, archive.plain
            for member in members(archive):
                name = _normal(member.name)
                if name in wanted and is_file(member):
                    found.setdefault(name, []).append((member.offset_data, member.size))
        for i, link in links.items():
            to, last = link, _target(link)
            for _ in range(_CHAIN):
                if last in found or last not in chains:
                    break
                to, last = chains[last], _target(chains[last])
            # a hard link leads to what was there when it was packed
            places = [p for p in found.get(last, ()) if to.issym() or p[0] < to.offset]
            if not places:
                self._problems[i] = f"a link to {printable(link.linkname)!r}, which is not in the archive"
                continue
            start, size = places[-1]
            left -= size if plain else start + size
            if left < 0:
                self._problems[i] = "a link, and too much would be read again for all of them: unpack the archive"
            self._starts[i], self._sizes[i] = start, size

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        most = self.limits.max_bytes
        try:
            with Archive(self._path) as archive:
                for i in range(start, min(stop, len(self.names))):
                    size, problem = self._sizes[i], self._problems.get(i)
                    if problem is None and size > most:
                        problem = f"{size:,} bytes, where an image's file has at most {most:,}"
                    if problem is not None:
                        yield Entry(problem=problem)
                        continue
                    archive.seek(self._starts[i])
                    data = archive.read(size)
                    if len(data) < size:
                        raise ValueError(f"{self._path} has become shorter: {self.names[i]} is cut")
                    yield Entry(data=data)
        except _BROKEN as e:
            raise ValueError(f"{self._path} is broken: {e}") from e


def _normal(name: str) -> str:
    return posixpath.normpath(name)


def _target(link: tarfile.TarInfo) -> str:
    """The name that a link leads to: a hard link's is as it stands, a symbolic one's begins in its folder."""
    return _normal(posixpath.join(posixpath.dirname(link.name), link.linkname) if link.issym() else link.linkname)


def load(path: str) -> Dataset:
    """The archive at `path`.

    Raises:
        ValueError: it cannot be read, is truncated or no tar archive, or unpacks to too much.
    """
    return Tar(path)
