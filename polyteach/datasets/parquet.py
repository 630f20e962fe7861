"""Pictures in a column of Parquet files, as bytes or as Hugging Face's struct {bytes, path}.

PATH is a file, or a folder of .parquet files (taken in the order of their names); `PATH?image=COLUMN` names the column
where several could be meant. A row is named by the column `id`, else by the struct's path, else by its number. A
string column `split` is kept. The bytes are always kept in the store, as with `--embed`.
"""

import os
from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from polyteach.datasets import Dataset, Entry, printable
from polyteach.files import read_uri

_BATCH = 32


class Parquet(Dataset):
    """Rows of one or more Parquet files, read a few at a time."""

    embed: ClassVar[bool] = True

    def __init__(self, path: str, column: str | None) -> None:
        if os.path.isdir(path):
            self._files = sorted(os.path.join(path, f) for f in os.listdir(path) if f.endswith(".parquet"))
        else:
            self._files = [path]
        if not self._files:
            raise ValueError(f"{path} has no .parquet files")
        schema = _schema(self._files[0])
        for file in self._files[1:]:
            if _schema(file).names != schema.names:
                raise ValueError(f"{file} has other columns than {self._files[0]}")
        self._column = _image_column(schema, column, path)
        kind = schema.field(self._column).type
        self._struct = pa.types.is_struct(kind)
        has_path = self._struct and kind.get_field_index("path") >= 0
        identity = schema.field("id").type if "id" in schema.names else pa.null()
        self._extra = ["split"] if "split" in schema.names and _is_text(schema.field("split").type) else []
        by_id = _is_text(identity) or pa.types.is_integer(identity)
        name = "id" if by_id else f"{self._column}.path" if has_path else None
        names: list[str] = []
        self._rows: list[int] = []
        for file in self._files:
            found = _names(file, name)
            names += found
            self._rows.append(len(found))
        super().__init__(names)

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        first = 0
        for file, rows in zip(self._files, self._rows, strict=True):
            low, high = max(start - first, 0), min(stop - first, rows)
            if low < high:
                yield from self._of_file(file, low, high)
            first += rows

    def _of_file(self, path: str, low: int, high: int) -> Iterator[Entry]:
        try:
            with pq.ParquetFile(path) as file:
                groups, first = [], 0
                skip = low
                for i in range(file.num_row_groups):
                    rows = file.metadata.row_group(i).num_rows
                    if first + rows <= low:
                        skip -= rows
                    elif first < high:
                        groups.append(i)
                    first += rows
                left = high - low
                wanted = [self._column, *self._extra]
                for batch in file.iter_batches(batch_size=_BATCH, row_groups=groups, columns=wanted):
                    part = batch.slice(skip, left) if skip < len(batch) else batch.slice(0, 0)
                    skip = max(skip - len(batch), 0)
                    left -= len(part)
                    for row in part.to_pylist():
                        yield self._entry(row, path)
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f"{path} is broken: {e}") from e

    def _entry(self, row: dict[str, Any], path: str) -> Entry:
        value, split = row[self._column], row.get("split")
        if self._struct:
            value = value or {}
            data, where = value.get("bytes"), value.get("path")
        else:
            data, where = value, None
        if data is None and where:
            try:
                data = read_uri(where if "://" in where else os.path.join(os.path.dirname(path), where))
            except (OSError, ValueError) as e:
                return Entry(problem=f"no bytes, and its path {where!r} cannot be read: {e}", split=split)
        if data is None:
            return Entry(problem="no bytes in its row", split=split)
        return Entry(data=data, split=split)


def _names(path: str, column: str | None) -> list[str]:
    """A name for each row of a file."""
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=[] if column is None else [column])
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"{path} is broken: {e}") from e
    stem = os.path.splitext(os.path.basename(path))[0]
    values: list[Any] = [None] * table.num_rows
    if column is not None:
        values = table.flatten().column(0).to_pylist() if "." in column else table.column(0).to_pylist()
    return [printable(f"{stem}/{i:08d}" if v in (None, "") else str(v)) for i, v in enumerate(values)]


def _schema(path: str) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"{path} cannot be read, is broken or no Parquet file: {e}") from e


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _holds_bytes(kind.field(at).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _image_column(schema: pa.Schema, wanted: str | None, path: str) -> str:
    able = [f.name for f in schema if _holds_bytes(f.type)]
    if wanted is not None:
        if wanted not in able:
            raise ValueError(f"{path} has no column {wanted!r} of bytes; it has {', '.join(able) or 'none'}")
        return wanted
    if not able:
        raise ValueError(f"{path} has no column of bytes or {{bytes, path}}; its columns: {', '.join(schema.names)}")
    if len(able) > 1 and "image" not in able:
        raise ValueError(f"{path} has several columns of bytes; choose one: parquet:{path}?image={able[0]} ({able})")
    return "image" if "image" in able else able[0]


def load(path: str) -> Dataset:
    """The Parquet file or folder at `path`, which may end in ?image=COLUMN.

    Raises:
        ValueError: it cannot be read, is broken, or has no such column, or it is unclear which is meant.
    """
    where, question, option = path.partition("?")
    key, equals, column = option.partition("=")
    if question and not os.path.exists(path):
        if key != "image" or not equals or not column:
            raise ValueError(f"unknown option {option!r} in parquet:{path}; there is ?image=COLUMN")
        return Parquet(where, column)
    return Parquet(path, None)
