"""Parts: the Parquet files of a folder, written whole or not at all, and read by columns and row groups.

A part may be a stranger's: its footer is looked at before anything of it is unpacked.
"""

import io
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from polyteach.ground.files import replacing
from polyteach.ground.storage import AnyPath, ObjectPath, Reader, StorageError, below
from polyteach.store.rows import MOST_IMAGES, ROW_GROUP

_T = TypeVar("_T")

MOST_PARTS = 10_000_000
"""Numbers of parts are below it."""
UNPACKED = 512 * 2**20
"""Bytes that what is read of a part may take unpacked, if they are more than `RATIO` times as many as it has packed."""
RATIO = 20


def is_linked(root: AnyPath, *names: str) -> bool:
    """Whether the folder below the store is a symbolic link or lies behind one."""
    try:
        below(root, *names)
    except ValueError:
        return True
    return False


def part_name(part: int) -> str:
    """File of a part, of images and of labels alike."""
    return f"part-{part:05d}.parquet"


def list_parts(folder: AnyPath, dense: bool = False) -> list[int]:
    """Numbers of the parts there are. dense: with few gaps, so that what a listing lacks is asked for.

    What is called otherwise than `part_name` says, or is no regular file, is no part; see `strays`.
    """
    found = sorted(n for name, n in _called_parts(folder) if n is not None)
    if not dense or not isinstance(folder, ObjectPath) or (found and found[-1] > 1000 + 2 * len(found)):
        return found
    return folder.confirmed(found, part_name)


def strays(folder: AnyPath) -> list[str]:
    """Names in a folder that begin like a part's and are none, sorted: "part-7.parquet", or a folder of such a name."""
    return sorted(name for name, n in _called_parts(folder) if n is None)


def _called_parts(folder: AnyPath) -> list[tuple[str, int | None]]:
    """(name, number of the part) of what is called like a part; None where it is none."""
    if isinstance(folder, ObjectPath):
        files = [(file.name, True) for file in folder.glob("part-*.parquet")]
    else:
        try:
            with os.scandir(folder) as entries:  # which knows without asking of each whether it is a file
                files = [(e.name, _regular(e)) for e in entries if fnmatchcase(e.name, "part-*.parquet")]
        except (FileNotFoundError, NotADirectoryError):
            return []
    return [(name, _number(name) if regular else None) for name, regular in files]  # reading a pipe would never end


def _regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # of a link that leads to itself
        return False


def _number(name: str) -> int | None:
    digits = name.removeprefix("part-").removesuffix(".parquet")
    number = int(digits) if re.fullmatch("[0-9]{5,8}", digits) else MOST_PARTS
    return number if number < MOST_PARTS and part_name(number) == name else None


@lru_cache(maxsize=64)
def _leaves(schema: pa.Schema) -> tuple[str, ...]:
    """Dotted paths of the primitive columns, which is what Parquet's per-column settings go by."""
    out = io.BytesIO()
    pq.write_table(schema.empty_table(), out)
    parquet = pq.read_metadata(out).schema
    return tuple(parquet.column(i).path for i in range(len(parquet)))


def write_part(path: AnyPath, table: pa.Table, raw: Sequence[str] = ()) -> None:
    """Write a part, whole or not at all. raw: columns whose bytes are compressed already, such as JPEG and PNG.

    Raises:
        OSError: the disk is full, or the folder or storage cannot be written.
    """
    compression = {leaf: "none" if leaf.split(".")[0] in raw else "zstd" for leaf in _leaves(table.schema)}
    with replacing(path) as temporary:
        pq.write_table(
            table,
            temporary,
            row_group_size=ROW_GROUP,
            compression=compression,
            use_dictionary=[leaf for leaf in _leaves(table.schema) if leaf in ("state", "reason", "split", "licence")],
            write_page_checksum=True,
        )


def with_part(path: AnyPath, use: Callable[[pq.ParquetFile], _T]) -> _T:
    """What `use` makes of a part's file; what is wrong with it becomes a ValueError that names it.

    Raises:
        ValueError: the part is missing or broken.
        StorageError: it cannot be known, since the object storage cannot be asked.
    """
    try:
        if isinstance(path, ObjectPath):
            return _using_object(path, use)
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open a named pipe would wait for ever
            raise ValueError(f"{path} is broken: it is no regular file")
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return use(file)
    except FileNotFoundError as e:
        raise ValueError(f"{path} is missing") from e
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"{path} is broken: {e}") from e


def _using_object(path: ObjectPath, use: Callable[[pq.ParquetFile], _T]) -> _T:
    for fresh in (False, True):  # what is broken may have been so on the way, or be rewritten just now
        try:
            with path.open(fresh) as raw, pq.ParquetFile(raw, page_checksum_verification=True) as file:
                return use(file)
        except (StorageError, FileNotFoundError):
            raise
        except (pa.ArrowException, OSError):
            if fresh:
                raise
    raise AssertionError("the second attempt returns or raises")


def count_rows(path: AnyPath, most: int = MOST_IMAGES) -> int:
    """Rows of a part, from its footer alone.

    Raises:
        ValueError: it is missing or broken, or has more rows than `most`; names the file.
    """

    def rows(file: pq.ParquetFile) -> int:
        check_footer(path, file.metadata, most)
        return int(file.metadata.num_rows)

    return with_part(path, rows)


def check_footer(path: AnyPath, footer: pq.FileMetaData, most: int) -> None:
    """Refuse a part of too many rows, or of other row groups than are written: rows would be looked for elsewhere.

    Raises:
        ValueError: more rows than `most`; row groups that are not `ROW_GROUP` rows each, but for the last.
    """
    rows, groups = footer.num_rows, footer.num_row_groups
    if rows > most:
        raise ValueError(f"{path} has {rows:,} rows; a part of this store has at most {most:,}")
    found = [footer.row_group(i).num_rows for i in range(groups)] if groups <= rows else []
    if [n for n in found if n] != [ROW_GROUP] * (rows // ROW_GROUP) + [rows % ROW_GROUP] * (rows % ROW_GROUP > 0):
        raise ValueError(
            f"{path} is broken: its {rows:,} rows should lie in groups of {ROW_GROUP}, and lie in groups of "
            f"{', '.join(map(str, found[:5]))}{', ...' if len(found) > 5 else ''}"
        )


def _unpacks(path: AnyPath, footer: pq.FileMetaData, groups: Iterable[int], columns: Collection[str] | None) -> None:
    """Refuse by the footer what would take far more memory than it has bytes.

    Raises:
        ValueError: more than `UNPACKED` bytes, and more than `RATIO` times what is on the disk.
    """
    chosen = [footer.row_group(i) for i in groups]
    # that much is little even if each row has a dictionary's longest text
    if sum(group.total_byte_size for group in chosen) * ROW_GROUP <= UNPACKED:
        return
    first = chosen[0]
    names = [first.column(i).path_in_schema.split(".")[0] for i in range(first.num_columns)]
    at = [i for i, name in enumerate(names) if columns is None or name in columns]
    unpacked = packed = 0
    for column in (group.column(i) for group in chosen for i in at):
        times = ROW_GROUP if column.has_dictionary_page else 1
        unpacked += max(column.total_uncompressed_size * times, column.num_values)
        packed += column.total_compressed_size
    if unpacked > max(UNPACKED, RATIO * packed):
        share = unpacked // max(packed, 1)
        raise ValueError(f"{path} would take {unpacked:,} bytes of memory, {share:,} for each that is kept")


def read_part(
    path: AnyPath,
    columns: list[str] | None = None,
    rows: Sequence[int] | None = None,
    most: int = MOST_IMAGES,
    like: pa.Schema | None = None,
) -> pa.Table:
    """Columns and rows of a part. most: rows that it may have. like: what its columns have to be.

    Raises:
        ValueError: the part is missing or broken, or not what it may be, which is seen before it is read; names the
            file.
    """

    def read(file: pq.ParquetFile) -> pa.Table:
        check_footer(path, file.metadata, most)
        if rows is not None and max(rows, default=-1) >= file.metadata.num_rows:
            raise ValueError(f"{path} has {file.metadata.num_rows} rows, and none at position {max(rows)}")
        groups = range(file.metadata.num_row_groups) if rows is None else sorted({row // ROW_GROUP for row in rows})
        _unpacks(path, file.metadata, groups, columns)
        # where columns are named they are small, and threads would cost more than they save
        if rows is None:
            return file.read(columns=columns, use_threads=columns is None)
        start = {group: ROW_GROUP * i for i, group in enumerate(groups)}
        table = file.read_row_groups(groups, columns=columns)
        at = [start[row // ROW_GROUP] + row % ROW_GROUP for row in rows]
        return table.take(pa.array(at, type=pa.int64()))

    table = with_part(path, read)
    for field in like or ():
        if columns is None or field.name in columns:
            kind = table.schema.field(field.name).type if field.name in table.column_names else "missing"
            if kind != field.type:
                raise ValueError(f"{path} is broken: its column {field.name!r} is {kind}, not {field.type}")
    return table


def prefetch_part(path: AnyPath, rows: Sequence[int] | None) -> bool:
    """Begin to fetch a part, or the row groups that `rows` are in, where it lies in object storage.

    Returns:
        False where too much is being fetched already, and nothing was done.
    """
    if not isinstance(path, ObjectPath):
        return True

    def span(raw: Reader) -> tuple[int, int]:
        """The bytes of the row groups that `rows` are in."""
        groups = [pq.read_metadata(raw).row_group(group) for group in sorted({row // ROW_GROUP for row in rows or ()})]
        columns = [group.column(i) for group in groups for i in range(group.num_columns)]
        first = [c.dictionary_page_offset or c.data_page_offset for c in columns]
        return min(first), max(a + c.total_compressed_size for a, c in zip(first, columns, strict=True))

    return path.ahead(None if rows is None else span)
