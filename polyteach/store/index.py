"""The index of a folder of parts: which text each of their rows has in one column, such as its split or its state."""

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from polyteach.ground.storage import AnyPath, stamps
from polyteach.store.parts import MOST_PARTS, part_name, read_part, write_part
from polyteach.store.rows import MOST_IMAGES

_Given = TypeVar("_Given")
_Found = TypeVar("_Found")

LOOKING = 16
"""Parts that are looked at together, when a labelling ends and a training starts."""


class Index:
    """A column of texts of which there are few, such as splits or states, of all parts of a folder, in one file.

    Opening every part takes a training that starts a millisecond each, and several round trips in object storage. What
    the file says of a part counts as long as that part's file is still the same (`stamps`); the others are read, and
    `save` makes the file anew, unless told not to `keep` any. It holds nothing of its own: it may be deleted at any
    time, and one that is broken is not believed. Safe to ask from several threads.

    columns of the file, one row for each part: part, stamp, and the texts as runs: values and lengths.
    """

    NAME = "_overview.parquet"
    """Readers of folders of Parquet files leave out what starts like that."""
    SCHEMA = pa.schema(
        [
            ("part", pa.int32()),
            ("stamp", pa.string()),
            ("values", pa.list_(pa.string())),
            ("lengths", pa.list_(pa.int32())),
        ]
    )

    def __init__(self, folder: AnyPath, column: str, most: int = MOST_IMAGES, keep: bool = True) -> None:
        """most: rows that a part may have. keep: whether what was read may be written beside the parts."""
        self.folder, self.column, self.most, self.keep = folder, column, most, keep
        self._stamps = stamps(folder)
        self._read: dict[int, tuple[list[str | None], list[int]]] = {}
        self._known = self.SCHEMA.empty_table()
        if self.NAME in self._stamps:
            with contextlib.suppress(ValueError, TypeError, KeyError, pa.ArrowException):  # broken: every part is read
                found = read_part(folder / self.NAME, most=MOST_PARTS)
                table = found.replace_schema_metadata(None).cast(self.SCHEMA)
                if _coherent(table) and digest(table) == (found.schema.metadata or {}).get(b"sha256"):
                    self._known = table
        codes = pc.list_flatten(self._known["values"]).combine_chunks().dictionary_encode()
        self._texts: list[str | None] = codes.dictionary.to_pylist()
        self._codes = np.array(codes.indices.fill_null(-1))  # None is no word of a dictionary
        self._lengths = np.array(pc.list_flatten(self._known["lengths"]))
        self._ends = np.cumsum(np.array(pc.list_value_length(self._known["lengths"])))
        self._row = {part: row for row, part in enumerate(self._known["part"].to_pylist())}
        self._then = self._known["stamp"].combine_chunks()

    def __contains__(self, part: int) -> bool:
        name = part_name(part)
        return name in self._stamps or (self.folder / name).is_file()  # a listing may lack what is new

    def among(self, part: int, texts: Collection[str | None]) -> Bool[np.ndarray, " N"]:
        """Per row of a part whether it is one of these texts.

        Raises:
            ValueError: the part is missing or broken; names the file.
        """
        values, lengths = self._runs(part)
        return np.repeat(np.array([v in texts for v in values], dtype=bool), lengths)

    def values(self, part: int) -> set[str | None]:
        """The texts that a part has.

        Raises:
            ValueError: as `among`.
        """
        return set(self._runs(part)[0])

    def _runs(self, part: int) -> tuple[list[str | None], list[int]]:
        if part in self._read:
            return self._read[part]
        row = self._row.get(part)
        if row is not None and self._same(part, row):
            at = slice(self._ends[row - 1] if row else 0, self._ends[row])
            lengths = self._lengths[at].tolist()
            if min(lengths, default=0) >= 0 and sum(lengths) <= self.most:  # else it tells of no part that there can be
                return [None if c < 0 else self._texts[c] for c in self._codes[at]], lengths
        like = pa.schema([(self.column, pa.string())])
        table = read_part(self.folder / part_name(part), [self.column], None, self.most, like)
        runs = pc.run_end_encode(table[self.column].combine_chunks())
        ends = np.array(runs.run_ends)
        self._read[part] = found = runs.values.to_pylist(), np.diff(ends, prepend=0).tolist()
        return found

    def _same(self, part: int, row: int) -> bool:
        """Whether a part's file is the one that this row of the overview tells of."""
        stamp = self._stamps.get(part_name(part))
        return stamp is not None and bool(self._then[row].as_py() == stamp)

    def save(self) -> None:
        """Keep what had to be read for who comes next, where it can be kept."""
        now = {part: self._stamps[part_name(part)] for part in self._read if part_name(part) in self._stamps}
        if not now or not self.keep:
            return
        same = [row for part, row in self._row.items() if part not in now and self._same(part, row)]
        fresh = {
            "part": list(now), "stamp": list(now.values()),
            "values": [self._read[part][0] for part in now], "lengths": [self._read[part][1] for part in now],
        }  # fmt: skip
        whole = pa.concat_tables([self._known.take(pa.array(same, pa.int64())), pa.table(fresh, schema=self.SCHEMA)])
        whole = whole.sort_by("part").combine_chunks()
        # in a store that may only be read, or on a full disk, the next start is slower, and that is all
        with contextlib.suppress(OSError):
            write_part(self.folder / self.NAME, whole.replace_schema_metadata({"sha256": digest(whole)}))


def several(look: Callable[[_Given], _Found], given: Iterable[_Given]) -> Iterator[_Found]:
    """What `look` finds of each of `given`, in their order; some are looked at together, by threads."""
    waiting: deque[Future[_Found]] = deque()
    with ThreadPoolExecutor(LOOKING) as pool:
        for one in given:
            waiting.append(pool.submit(look, one))
            if len(waiting) == 2 * LOOKING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _coherent(table: pa.Table) -> bool:
    """Whether an overview could be one: as many lengths as values, none below 0, and nothing is lacking but texts."""
    values, lengths = table["values"], table["lengths"]
    whole = not any(table[name].null_count for name in Index.SCHEMA.names)
    flat = pc.list_flatten(lengths)
    alike = whole and pc.list_value_length(values).equals(pc.list_value_length(lengths))
    return alike and not flat.null_count and (not len(flat) or pc.min(flat).as_py() >= 0)


def digest(table: pa.Table) -> bytes:
    """Of the content, however it is laid out. The pages of a Parquet file have checksums, its footer has none."""
    digest = hashlib.sha256()
    for name in Index.SCHEMA.names:
        column = table[name]
        if pa.types.is_list(column.type):
            digest.update(np.array(pc.list_value_length(column), dtype=np.int32).tobytes())
            column = pc.list_flatten(column)
        if pa.types.is_string(column.type):
            digest.update("\0".join("\1" if v is None else v for v in column.to_pylist()).encode())
        else:
            digest.update(np.array(column, dtype=np.int32).tobytes())
    return digest.hexdigest().encode()
