"""What images are kept together when a store is divided: near duplicates, such as the frames of one video."""

import io
import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from polyteach.ground.limits import WEB, Limits
from polyteach.ground.uris import read_uri

Group = Callable[[str], str]
"""From an image's id to what is kept together with it."""


def grouping(pattern: str | None = None, file: str | None = None) -> Group:
    """What images are kept together: all of one group are in one split. Each alone, without either argument.

    pattern: a regular expression that is searched in the id; its groups, or the whole of it, name the group. file: a
    CSV or Parquet file (path or fsspec URL) with the columns id and group.

    Raises:
        ValueError: both were given, a broken pattern or file. The returned function raises it for an id of no group.
    """
    if pattern is not None and file is not None:
        raise ValueError("give a pattern or a file of groups, not both")
    if pattern is not None:
        return _by_pattern(pattern)
    return _by_file(file) if file is not None else lambda id: id


def _by_pattern(pattern: str) -> Group:
    try:
        find = re.compile(pattern)
    except re.error as e:
        raise ValueError(f"group {pattern!r} is no regular expression: {e}") from e

    def group(id: str) -> str:
        found = find.search(id)
        if found is None:
            raise ValueError(f"group {pattern!r} does not match image {id!r}; it has to match every id")
        return "\0".join(x or "" for x in found.groups()) if found.groups() else found[0]

    return group


def _by_file(file: str) -> Group:
    text = pa.string()
    # whoever gives the command wrote this one, so that it may lead anywhere
    web = file.partition("://")[0].lower() in WEB
    try:
        data = read_uri(file, Limits((*WEB, file.partition("?")[0])) if web else None)
        if file.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data))
        else:
            options = pa.csv.ConvertOptions(column_types={"id": text, "group": text}, strings_can_be_null=False)
            table = pa.csv.read_csv(io.BytesIO(data), convert_options=options)
        names = table.column_names
    except (OSError, ValueError) as e:  # ArrowInvalid is one of them, and names that are no UTF-8 are another
        raise ValueError(f"groups {file} cannot be read: {getattr(e, 'strerror', None) or e}") from e
    if lacks := [name for name in ("id", "group") if names.count(name) != 1]:
        count = "several columns" if lacks[0] in names else "no column"
        there = ", ".join(names)
        raise ValueError(f"groups {file} has {count} {lacks[0]!r}; it has {there}. Name them id and group")
    try:
        ids, groups = (pc.cast(table[name], text).to_pylist() for name in ("id", "group"))
    except (pa.ArrowException, ValueError) as e:  # a list or a structure; bytes that are no text
        raise ValueError(f"groups {file}: id and group must be text or numbers: {e}") from e
    known: dict[str, str] = {}
    for id, name in zip(ids, groups, strict=True):
        if not name or known.setdefault(id, name) != name:  # all that are left blank would be one group
            what = "no group" if not name else f"two groups, {known[id]!r} and {name!r}"
            raise ValueError(f"groups {file} gives image {id!r} {what}")

    def group(id: str) -> str:
        if id not in known:
            raise ValueError(f"groups {file} has no line for image {id!r}; every image needs its group")
        return known[id]

    return group
