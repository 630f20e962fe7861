"""What is wrong with a broken part, and what can still be read of it."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from polyteach.ground.storage import AnyPath, StorageError
from polyteach.store.parts import check_footer, with_part
from polyteach.store.rows import ROW_GROUP

LOOKED_AT = 2
"""Times as many rows as a part may have, of which `salvaged` looks for those that can be kept."""


def shaped(path: AnyPath, schema: pa.Schema, most: int) -> None:
    """Refuse what is no part by its footer: other columns than in `schema`, or other row groups than are written.

    Further columns do no harm. most: rows that it may have.

    Raises:
        ValueError: it is missing, broken or otherwise; names the file.
    """

    def look(file: pq.ParquetFile) -> str:
        about, there = file.metadata, file.schema_arrow
        held = sum(about.row_group(i).num_rows for i in range(about.num_row_groups))
        if about.num_rows != held:
            return f"its footer says {about.num_rows:,} rows, and its row groups have {held:,}"
        check_footer(path, about, most)
        for field in schema:
            if there.get_field_index(field.name) < 0:
                return f"has no column {field.name!r}, or two"
            if there.field(field.name).type != field.type:
                return f"column {field.name!r} is {there.field(field.name).type}, not {field.type}"
        return ""

    if wrong := with_part(path, look):
        raise ValueError(f"{path} {wrong}")


def salvaged(path: AnyPath, schema: pa.Schema, most: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(position, row) of what can still be read of a part, some rows at a time, whatever its row groups are.

    most: rows that are looked at, of however many there are.

    A row is by column of `schema` an Arrow array of its one value, null where the column is missing or of another type.

    Raises:
        StorageError: the object storage cannot be asked.
    """

    def groups(file: pq.ParquetFile) -> list[int]:
        return [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]

    try:
        sizes = with_part(path, groups)
    except StorageError:
        raise
    except Exception:
        return
    start = 0
    for group, size in enumerate(sizes):
        left = most - start
        if left <= 0:
            return
        try:
            yield from enumerate(with_part(path, partial(_rows, group=group, schema=schema, most=left)), start)
        except StorageError:
            raise
        except Exception:
            pass  # of a group that cannot be read
        start += size


def _rows(file: pq.ParquetFile, group: int, schema: pa.Schema, most: int) -> list[dict[str, Any]]:
    names = [n for n in schema.names if file.schema_arrow.get_field_index(n) >= 0]
    out: list[dict[str, Any]] = []
    for batch in file.iter_batches(ROW_GROUP, row_groups=[group], columns=names):
        if len(out) >= most:
            break
        columns = {}
        for field in schema:
            at = batch.schema.get_field_index(field.name)
            columns[field.name] = _as(batch.column(at), field.type) if at >= 0 else pa.nulls(len(batch), field.type)
        out += [{k: v.slice(i, 1) for k, v in columns.items()} for i in range(len(batch))]
    return out


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column as another type, null where it cannot be made so."""
    try:
        return column.cast(kind)
    except (pa.ArrowException, ValueError):
        if len(column) == 1:
            return pa.nulls(1, kind)
        return pa.concat_arrays([_as(column.slice(i, 1), kind) for i in range(len(column))])
