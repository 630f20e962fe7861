"""Images in a column of Parquet files, as bytes or as Hugging Face's struct {bytes, path}, with their classes.

    ROOT/data/train-00000-of-00002.parquet      a Hugging Face repository
    ROOT/train/0000.parquet                     its converted branch
    FILE.parquet                                any other

PATH is a file, or a folder of .parquet files and folders of them (taken in the order of their paths); `?image=COLUMN`
names the column where several could be meant. A row is named by the column `id`, else by the struct's path, else by its
number. The split is a string column `split`, else what the file's path tells (`split_of`). The bytes are always kept in
the store, as with `--embed`.

Classes are in the column `label`, or `?label=COLUMN`, or the one column that Hugging Face's metadata call a ClassLabel;
`?label=none` takes none. Whole numbers are class indices, called by the ClassLabel's names (in the schema's metadata,
key "huggingface": info.features.COLUMN.names, as the `datasets` library writes them), or else by themselves; text is
the class's name, and the names that are there, sorted, are the classes. A null, and the -1 that Hugging Face writes
where a test set has no labels, mean no label.
"""

import json
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from polyteach.datasets import (
    Dataset,
    Entry,
    Labels,
    numbered,
    options,
    printable,
    split_of,
    unshared,
)
from polyteach.datasets._classes import of_class
from polyteach.ground.uris import read_uri
from polyteach.tasks.contract import Space

_BATCH = 32
_UNPACKED, _RATIO = 2**28, 20
_NONE = -1


class Parquet(Dataset):
    """Rows of one or more Parquet files, read a few at a time."""

    embed: ClassVar[bool] = True

    def __init__(self, path: str, column: str | None, label: str) -> None:
        self._files = _files(path)
        root = path if os.path.isdir(path) else os.path.dirname(path)
        schema = _schema(self._files[0])
        for file in self._files[1:]:
            if _schema(file).names != schema.names:
                raise ValueError(f"{file} has other columns than {self._files[0]}; give the folder of one dataset")
        self._column = _image_column(schema, column, path)
        kind = schema.field(self._column).type
        self._struct = pa.types.is_struct(kind)
        has_path = self._struct and kind.get_field_index("path") >= 0
        identity = schema.field("id").type if "id" in schema.names else pa.null()
        self._extra = ["split"] if "split" in schema.names and _is_text(schema.field("split").type) else []
        by_id = _is_text(identity) or pa.types.is_integer(identity)
        name = "id" if by_id else f"{self._column}.path" if has_path else None
        within = [os.path.relpath(f, root).replace(os.sep, "/") for f in self._files]
        self._splits = [split_of(f) for f in within]
        names: list[str] = []
        self._rows: list[int] = []
        for file, stem in zip(self._files, within, strict=True):
            found = _names(file, os.path.splitext(stem)[0], name)
            names += found
            self._rows.append(len(found))
        super().__init__(names)
        self._label = _label_column(schema, label, path)
        self._labels: array[int] = array("q")
        classes: tuple[str, ...] = ()
        if self._label:
            self._labels, classes = _labels(self._files, self._label)
        if classes:
            self.spaces = {"classification": Space(classes)}
        if classes and not self._extra and (said := unshared(self._seen(classes))):
            self.notes.append(said)

    def _seen(self, classes: tuple[str, ...]) -> dict[str, set[str]]:
        """The classes that each split has."""
        seen: dict[str, set[str]] = {}
        first = 0
        for split, rows in zip(self._splits, self._rows, strict=True):
            if split:
                labels = frozenset(self._labels[first : first + rows])
                seen.setdefault(split, set()).update(classes[i] for i in labels if 0 <= i < len(classes))
            first += rows
        return seen

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        first = 0
        for file, rows, split in zip(self._files, self._rows, self._splits, strict=True):
            low, high = max(start - first, 0), min(stop - first, rows)
            if low < high:
                for i, entry in enumerate(self._of_file(file, low, high), first + low):
                    yield replace(entry, split=entry.split if self._extra else split, targets=self._targets(i))
            first += rows

    def _targets(self, i: int) -> Callable[[tuple[int, int]], Labels] | None:
        if not self.spaces or self._labels[i] == _NONE:
            return None
        classes = len(self.spaces["classification"].names)
        return partial(_class, self._labels[i], classes, f"{self.names[i]}: column {self._label!r}")

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
                size = _batch(path, file.metadata, groups, wanted)
                for batch in file.iter_batches(batch_size=size, row_groups=groups, columns=wanted):
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
                data = read_uri(where if "://" in where else os.path.join(os.path.dirname(path), where), self.limits)
            except OSError as e:
                return Entry(problem=f"no bytes, and its path {where!r} cannot be read: {e}", split=split)
        if data is None:
            return Entry(problem="no bytes in its row", split=split)
        return Entry(data=data, split=split)


def _batch(path: str, footer: pq.FileMetaData, groups: list[int], wanted: list[str]) -> int:
    """Rows that are read at once: fewer than `_BATCH` where these might take more than `_UNPACKED` bytes.

    A dictionary's values are stored once, and unpacked once for each row that refers to them.

    Raises:
        ValueError: a row group may take more than that, and is packed more than images can be.
    """
    size = _BATCH
    for column in (footer.row_group(g).column(i) for g in groups for i in range(footer.num_columns)):
        if column.path_in_schema.split(".")[0] not in wanted:
            continue
        packed, unpacked = column.total_compressed_size, column.total_uncompressed_size
        most = unpacked * (column.num_values if column.has_dictionary_page else 1)
        if most > _UNPACKED and unpacked > _RATIO * packed:
            raise ValueError(f"{path} is broken: {packed:,} bytes of its images would become up to {most:,}")
        if column.has_dictionary_page:
            size = max(min(size, _UNPACKED // max(unpacked, 1)), 1)
    return size


def _class(label: int, classes: int, where: str, size: tuple[int, int]) -> Labels:
    return of_class(label, classes, where)


def _files(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    files = []
    for at, folders, inside in os.walk(path, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith(".")]
        files += [os.path.join(at, f) for f in inside if f.endswith(".parquet") and not f.startswith(".")]
    if not files:
        raise ValueError(f"{path} has no .parquet files")
    return sorted(files)


def _class_labels(path: str) -> dict[str, tuple[str, ...] | None]:
    """The columns that Hugging Face's metadata call ClassLabel, and their names where they have any."""
    try:
        info = json.loads((_schema(path).metadata or {}).get(b"huggingface", b"{}"))
        features = info.get("info", {}).get("features", {})
        kinds = {c: f for c, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
        return {c: tuple(map(str, f["names"])) if f.get("names") else None for c, f in kinds.items()}
    except (ValueError, AttributeError, TypeError) as e:  # a number of thousands of digits is a ValueError too
        raise ValueError(f"{path}: the schema's metadata 'huggingface' are broken: {e}") from e
    except RecursionError as e:
        raise ValueError(f"{path}: the schema's metadata 'huggingface' are nested too deeply") from e


def _label_column(schema: pa.Schema, wanted: str, path: str) -> str | None:
    """The column of classes that was asked for, or that is there; None where there is none."""
    if wanted == "none":
        return None
    if wanted:
        if wanted not in schema.names:
            raise ValueError(f"{path} has no column {wanted!r}; it has {', '.join(schema.names)}")
        return wanted
    if "label" in schema.names:
        return "label"
    able = [c for c in _class_labels(_files(path)[0]) if c in schema.names]
    if len(able) > 1:
        ways = " or ".join(f"parquet:{path}?label={c}" for c in (*able, "none"))
        raise ValueError(f"{path} has several columns of classes; choose one: {ways}")
    return able[0] if able else None


def _labels(files: list[str], column: str) -> tuple[array, tuple[str, ...]]:
    """The class index of each row, or -1, and the classes' names."""
    known = _class_labels(files[0]).get(column)
    found: list[pa.ChunkedArray] = []
    for file in files:
        if (names := _class_labels(file).get(column)) != known:
            raise ValueError(f"{file}: column {column!r} has other class names than in {files[0]}: {names}")
        try:
            with pq.ParquetFile(file) as opened:
                values = opened.read(columns=[column]).column(column)
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f"{file} is broken: {e}") from e
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        if not (pa.types.is_integer(kind) or _is_text(kind) or pa.types.is_null(kind)):
            raise ValueError(
                f"{file}: column {column!r} is {kind}, neither whole numbers nor text; another column of classes: "
                "?label=COLUMN; none: ?label=none"
            )
        found.append(values.cast(pa.large_string() if _is_text(kind) else pa.int64()))
    kinds = {v.type for v in found if v.null_count < len(v)}
    if len(kinds) > 1:
        raise ValueError(f"column {column!r} is text in some of {files[0]}, ... and numbers in others")
    if kinds == {pa.large_string()}:
        texts = [pc.utf8_normalize(values.cast(pa.large_string()), form="NFC") for values in found]
        known = tuple(sorted({v for values in texts for v in values.unique().to_pylist() if v is not None}))
        lookup = pa.array(known, pa.large_string())
        found = [pc.index_in(values, value_set=lookup).cast(pa.int64()) for values in texts]
    labels = array("q")
    for values in found:
        labels.extend(values.cast(pa.int64()).fill_null(_NONE).to_numpy().tolist())
    if known is None:
        known = numbered(labels, f"{files[0]}: column {column!r}")
    return labels, tuple(printable(name) for name in known)


def _names(path: str, stem: str, column: str | None) -> list[str]:
    """A name for each row of a file."""
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=[] if column is None else [column])
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"{path} is broken: {e}") from e
    values: list[Any] = [None] * table.num_rows
    if column is not None:
        values = table.flatten().column(0).to_pylist() if "." in column else table.column(0).to_pylist()
    return [printable(f"{stem}/{i:08d}" if v in (None, "") else str(v)) for i, v in enumerate(values)]


def _schema(path: str) -> pa.Schema:
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("it is no regular file")  # opening a pipe that nobody writes into would never end
        schema = pq.read_schema(path)
        names = schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as e:  # the last of a column's name
        raise ValueError(f"{path} cannot be read, is broken or no Parquet file: {e}") from e
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"{path} has several columns called {twice[0]!r:.60}; give each a name of its own")
    return schema


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
    """The Parquet file or folder at `path`, which may end in ?image=COLUMN&label=COLUMN.

    Raises:
        ValueError: it cannot be read, is broken, or has no such column, or it is unclear which is meant.
    """
    where, option = options(path, {"image": "", "label": ""})
    return Parquet(where, option["image"] or None, option["label"])
