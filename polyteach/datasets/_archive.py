"""Tar archives of which nothing is known: what lies in them, with every size looked at before it is read.

What an archive may cost is bounded, in memory and in time:

- a member's heads (long names, PAX records, maps of sparse files) have at most `HEAD` bytes together;
- an archive has at most `MEMBERS` members, or one for each 32 of its bytes, whichever is more;
- a compressed one is unpacked up to `UNPACKED` bytes, or `RATIO` times its size, whichever is more. What of it is not
  wanted is unpacked too, to reach what lies behind it, which takes some
  seconds for each 10^9 bytes, twice. LZMA may ask for `MEMORY` bytes.
"""

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

HEAD = 2**18
MEMBERS = 1_000_000
UNPACKED = 8 * 2**30
RATIO = 100
MEMORY = 2**28
DIGITS = 100
"""Digits in a row of a head: `tarfile` looks for numbers in the square of their time (CVE-2024-6232)."""
RECORDS = 1000
"""Records of a PAX head that stay for all members behind it, which `tarfile` copies for each."""
_STEP = 2**20


class Archive:
    """The bytes of a tar archive, plain or unpacked, to be read mostly forwards. A context manager."""

    def __init__(self, path: str, plain: bool = False) -> None:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is no regular file")  # opening a pipe that nobody writes into would never end
        file = open(path, "rb")  # noqa: SIM115
        head = b"" if plain else file.read(6)
        file.seek(0)
        self.packed = os.fstat(file.fileno()).st_size
        self.plain = False
        self._raw, self._file = file, cast(IO[bytes], file)
        if head[:2] == b"\x1f\x8b":
            self._file = cast(IO[bytes], gzip.GzipFile(fileobj=file))
        elif head[:3] == b"BZh":
            self._file = cast(IO[bytes], bz2.BZ2File(file))
        elif head == b"\xfd7zXZ\0" or (head[:3] == b"]\0\0" and head[3:] != bytes(3)):  # .xz, or .lzma
            self._file = cast(Any, _Lzma(file))
        else:
            self.plain = True

    @property
    def allowance(self) -> int:
        """Bytes that may be unpacked of it in one go."""
        return max(UNPACKED, RATIO * self.packed)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._raw.close()

    def tell(self) -> int:
        """The place."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from the start; backwards, a compressed one is unpacked anew."""
        if self.plain:
            if offset > self.packed:
                raise tarfile.ReadError(f"it ends before byte {offset:,}: it is truncated")
            return self._file.seek(offset)
        if offset > self.allowance:
            raise tarfile.ReadError(
                f"it unpacks to more than {self.allowance:,} bytes. If that is right, unpack it and give the folder"
            )
        at = self.tell()
        if offset < at:
            at = self._file.seek(0)
        while at < offset and (block := self._file.read(min(_STEP, offset - at))):  # its own seek takes small steps
            at += len(block)
        return at

    def read(self, size: int) -> bytes:
        """The next `size` bytes, all of them but at the end."""
        return self._file.read(size)


class _Lzma:
    """As `lzma.LZMAFile`, which has no bound of memory; to be read forwards, or again from the start."""

    def __init__(self, file: IO[bytes]) -> None:
        self._packed = file
        self.close = file.close
        self.seek(0)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int) -> int:
        """Go back to the start."""
        self._at = self._packed.seek(0)
        self._decoder = lzma.LZMADecompressor(memlimit=MEMORY)
        return 0

    def read(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size:
            if self._decoder.eof:  # another stream may follow, after zeros
                rest = self._decoder.unused_data.lstrip(b"\0")
                while not rest and (block := self._packed.read(_STEP)):
                    rest = block.lstrip(b"\0")
                if not rest:
                    break
                self._decoder = lzma.LZMADecompressor(memlimit=MEMORY)
                out += self._decoder.decompress(rest, size - len(out))
                continue
            block = self._packed.read(_STEP) if self._decoder.needs_input else b""
            if not block and self._decoder.needs_input:
                raise EOFError("compressed data ended before their end mark")
            out += self._decoder.decompress(block, size - len(out))
        self._at += len(out)
        return bytes(out)


class _Heads:
    """An archive as `tarfile` sees it, which reads heads alone: no more of them than a member may have."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.tell, self.seek = archive.tell, archive.seek
        self.read_so_far = 0
        self.last = b""

    def read(self, size: int) -> bytes:
        self.read_so_far += size
        if size < 0 or self.read_so_far > HEAD:
            raise tarfile.ReadError(f"a head of {self.read_so_far:,} bytes, where a member has at most {HEAD:,}")
        data = self.last = self.archive.read(size)
        if size > tarfile.BLOCKSIZE and max(map(len, re.findall(rb"\d+", data)), default=0) > DIGITS:
            raise tarfile.ReadError(f"a head with a number of more than {DIGITS} digits")
        return data


def members(archive: Archive, marked: bool = False) -> Iterator[tarfile.TarInfo]:
    """The members of an archive, one by one; none is kept. It must not be read from between them.

    marked: an archive without its end mark is an error, as is one that is cut elsewhere.

    Raises:
        tarfile.ReadError: it is broken, truncated, no tar archive, or beyond what an archive may cost; says what.
        OSError: it cannot be read.
    """
    most = max(MEMBERS, archive.packed // 32)
    heads = _Heads(archive)
    try:
        with tarfile.open(fileobj=cast(Any, heads), mode="r:") as tar:
            before = -1
            for count in range(most + 1):
                member = tar.next()
                tar.members = []  # type: ignore[attr-defined]  # or it would keep every one
                if member is None:
                    break
                if member.size < 0 or tar.offset <= before:
                    raise tarfile.ReadError(f"a member of {member.size:,} bytes")
                if len(tar.pax_headers) > RECORDS or count == most:
                    what = f"{RECORDS:,} records for all of its members" if count < most else f"{most:,} members"
                    raise tarfile.ReadError(f"it has more than {what}, which no archive of images of its size has")
                before, heads.read_so_far = tar.offset, 0
                yield member
            _ended(heads.last, tar.offset, marked)
    except (tarfile.TarError, OSError, GeneratorExit):
        raise
    except Exception as e:  # of odd numbers, of heads within heads, and of each way to pack
        raise tarfile.ReadError(f"{type(e).__name__}: {e}") from e


def _ended(block: bytes, offset: int, marked: bool) -> None:
    """Whether the block that `tarfile` takes for the end is one: it takes a broken head for it too."""
    if block.strip(b"\0"):
        raise tarfile.ReadError(f"the head of a member at byte {offset:,} is broken")
    if marked and len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it ends at byte {offset:,} without a tar's end mark: it is truncated")


def unpacked(path: str, wanted: Callable[[str], bool], most: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files of an archive whose name, without ./ before it, is `wanted`.

    Raises:
        tarfile.ReadError: as `members`; or one of them has more than `most` bytes.
        OSError: it cannot be read.
    """
    with Archive(path) as archive:
        places = {
            name: (member.offset_data, member.size)  # the last of a name is what would be unpacked
            for member in members(archive)
            if wanted(name := member.name.removeprefix("./")) and is_file(member)
        }
        for name, (start, size) in sorted(places.items(), key=lambda found: found[1]):
            if size > most:
                raise tarfile.ReadError(f"{name} has {size:,} bytes, where {most:,} are the most")
            archive.seek(start)
            yield name, archive.read(size)


def is_file(member: tarfile.TarInfo) -> bool:
    """Whether it has content of its own that lies in one piece."""
    return (member.isreg() or member.type not in tarfile.SUPPORTED_TYPES) and not member.issparse()
