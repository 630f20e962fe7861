"""Splits: a store's images divided into training, validation and test by a hash of their names.

What split an image is in follows from its id (or its group), the fractions and the seed alone: images that come later
never move those that are there, and the same images in two stores are in the same split. Near duplicates, such as the
frames of one video, have to be in one group: else what is tested on was as good as trained on.
"""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

import polyteach
from polyteach.fields import Fields
from polyteach.files import differences, write_json
from polyteach.limits import WEB, Limits
from polyteach.progress import track
from polyteach.store import DIVIDED, Store, about_store
from polyteach.tasks import load_task
from polyteach.tasks.contract import PEOPLE, Target
from polyteach.uris import read_uri

Group = Callable[[str], str]
"""From an image's id to what is kept together with it."""


def drawn(key: str, fractions: Mapping[str, int | float], seed: int) -> str:
    """The split of an image or group called `key`: SHA-256 of the seed and the key as a number in 0..1, which falls
    into one of the fractions, laid end to end in their order.
    """
    digest = hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "backslashreplace")).digest()
    at = int.from_bytes(digest[:8], "big") / 2**64
    end = 0.0
    for name, fraction in fractions.items():
        end += fraction
        if at < end:
            return name
    return list(fractions)[-1]  # where rounding leaves the sum a little below 1


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


def divide(
    path: str,
    fractions: Mapping[str, int | float],
    seed: int = 0,
    pattern: str | None = None,
    file: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Store:
    """Write the split of every image of the store at `path`, a folder or URL; see `drawn` and `grouping`.

    It is the column `split` of the image parts, which are written anew one by one, with the bytes where those are
    embedded. Until all are, store.json says so, and no verb takes the store for a whole one; the same call goes on.

    overwrite: replace the splits that there are.

    Raises:
        ValueError: fractions that do not add up to 1, a split that would get no image, an image of no group, splits
            that exist, an ingest or merge that is not finished.
    """
    _check(fractions)
    store = Store.open(path, divided=False)
    asked = {"fractions": dict(fractions), "seed": seed, "group": pattern, "groups": file}
    store.own("images")  # whatever refuses the images does so before store.json says that they are being divided
    about = about_store(store.path)
    begun = about.get(DIVIDED, {"finished": True})
    differs = [] if begun["finished"] else differences({k: begun[k] for k in asked}, asked)
    if differs and not overwrite:
        raise ValueError(f"{path} is half divided, otherwise: {'; '.join(differs)}. Finish that, or give --overwrite")
    for name in ("ingest.json", "merge.json"):
        if (store.path / name).exists() and not Fields.read(store.path / name).flag("finished", null=True):
            raise ValueError(f"{path} is not finished ({name}); give that command again first")
    group = grouping(pattern, file)
    there: Counter[str | None] = Counter()
    counts: Counter[str] = Counter(dict.fromkeys(fractions, 0))
    for part in store.parts():
        for row in store.images(part, data=False):
            there[row.split] += 1
            counts[drawn(group(row.id), fractions, seed)] += 1
    if set(there) - {None} and begun["finished"] and not overwrite:
        has = ", ".join(f"{k or 'none'} {n:,}" for k, n in sorted(there.items(), key=lambda x: x[0] or ""))
        raise ValueError(f"{path} has splits already: {has}. Give --overwrite to replace them; they are lost then")
    if empty := [name for name, n in counts.items() if not n]:
        raise ValueError(
            f"no image of {path} would be in {' nor in '.join(empty)}: {there.total():,} images"
            f"{', in their groups,' if pattern or file else ''} are too few for these fractions; give larger ones, or "
            "another --seed"
        )
    record = {"polyteach": polyteach.__version__, **asked, "images": dict(counts)}
    write_json(store.path / "store.json", about | {DIVIDED: record | {"finished": False}})
    _write(store, lambda id: drawn(group(id), fractions, seed), progress)
    write_json(store.path / "store.json", about | {DIVIDED: record | {"finished": True}})
    return Store.open(path)


def _check(fractions: Mapping[str, int | float]) -> None:
    if not fractions:
        raise ValueError("no fractions; give them as train=0.8 val=0.1 test=0.1")
    for name, value in fractions.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", name):
            raise ValueError(f"split name {name!r}: use letters, digits, '.', '_', '/' and '-'")
        if not 0 < value <= 1:
            raise ValueError(f"fraction {name}={value:g} must be above 0 and at most 1")
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"fractions must add up to 1; they add up to {sum(fractions.values()):g}")


def _write(store: Store, split: Callable[[str], str], progress: bool) -> None:
    parts = store.parts()
    with track("split", len(parts), "parts", progress) as bar:
        for part in parts:
            if any(row.split != split(row.id) for row in store.images(part, data=False)):
                store.write_images(part, [replace(row, split=split(row.id)) for row in store.images(part)])
            bar.advance()
    overview = store.splits()
    for part in parts:
        overview.values(part)
    overview.save()


def images_by_split(store: Store) -> dict[str, int]:
    """How many images each split has; "" for none."""
    found = Counter(r.split or "" for p in store.parts() for r in store.images(p, data=False))
    return dict(sorted(found.items()))


def classes_by_split(store: Store) -> Iterator[tuple[str, dict[str, Counter[str]]]]:
    """For each label set of people's that is cheap to read: its name, and by class the images of each split.

    Cheap is what keeps no picture an image, such as a class a pixel; outlines are not unpacked.
    """
    for labels in store.sets():
        if labels.name != PEOPLE and labels.info.get("teacher") != PEOPLE:
            continue
        kinds = labels.kinds()
        if not labels.space.names or "map" in kinds.values():
            continue
        found: dict[str, Counter[str]] = {name: Counter() for name in labels.space.names}
        for part in labels.parts():
            table = labels.table(part)
            for i, name in enumerate(table.column_names):
                if kinds.get(name) == "masks":
                    table = table.set_column(i, table.schema.field(i), pa.nulls(len(table), table.schema.field(i).type))
            rows = store.images(part, data=False)
            for row, answer in zip(rows, labels.fitted(table, rows), strict=True):
                target = labels.sound(part, row, answer)
                if isinstance(target, Target):
                    for c in load_task(labels.task).classes(target):
                        found[labels.space.names[c]][row.split or ""] += 1
        yield f"{labels.task}/{labels.name}", found
