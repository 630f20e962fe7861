"""Splits: a store's images divided into training, validation and test by a hash of their names.

What split an image is in follows from its id (or its group), the fractions and the seed alone: images that come later
never move those that are there, and the same images in two stores are in the same split. Near duplicates, such as the
frames of one video, have to be in one group: else what is tested on was as good as trained on.
"""

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from polyteach.curation.grouping import grouping
from polyteach.curation.info import first_ten
from polyteach.ground.fields import Fields
from polyteach.ground.files import differences, write_json
from polyteach.ground.progress import track
from polyteach.ground.tables import table, width_of, wrapped
from polyteach.ground.texts import say
from polyteach.store import DIVIDED, Store, about_store
from polyteach.tasks import load_task
from polyteach.tasks.target import Target
from polyteach.version import __version__


def drawn(key: str, fractions: Mapping[str, float], seed: int) -> str:
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


def divide(
    path: str,
    fractions: Mapping[str, float],
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
    record = {"polyteach": __version__, **asked, "images": dict(counts)}
    write_json(store.path / "store.json", about | {DIVIDED: record | {"finished": False}})
    _write(store, lambda id: drawn(group(id), fractions, seed), progress)
    write_json(store.path / "store.json", about | {DIVIDED: record | {"finished": True}})
    return Store.open(path)


def _check(fractions: Mapping[str, float]) -> None:
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
    index = store.splits()
    for part in parts:
        index.values(part)
    index.save()


def images_by_split(store: Store) -> dict[str, int]:
    """How many images each split has; "" for none."""
    found = Counter(r.split or "" for p in store.parts() for r in store.images(p, data=False))
    return dict(sorted(found.items()))


def classes_by_split(store: Store) -> Iterator[tuple[str, dict[str, Counter[str]]]]:
    """For each label set of people's that is cheap to read: its name, and by class the images of each split.

    Cheap is what keeps no map an image, such as a class a pixel; outlines are not unpacked.
    """
    for labels in store.sets():
        if not labels.by_people:
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


def divide_and_tell(
    store: str | Path,
    fractions: Mapping[str, float],
    seed: int,
    pattern: str | None,
    file: str | None,
    overwrite: bool,
    progress: bool,
) -> dict[str, int]:
    """`divide`, and print how many images, and of people's classes how many each, a split has. Images by split."""
    opened = divide(str(store), fractions, seed, pattern, file, overwrite, progress)
    counts = images_by_split(opened)
    lines = _divided(counts, list(classes_by_split(opened)), width_of(sys.stdout))
    old = [f"{s.task}/{s.name}" for s in opened.sets() if s.info.get("split")]
    if old:
        lines.append(f"made for splits as they were before, so look at them or drop them: {', '.join(old)}")
    say(*lines, stream=sys.stdout)
    return counts


def _divided(counts: dict[str, int], classes: list[tuple[str, Any]], width: int) -> list[str]:
    """What a division has come to, as lines: images by split, and of people's classes the images in each."""
    whole = sum(counts.values())
    rows = [[name, f"{n:,}", f"{n / whole:.1%}"] for name, n in counts.items()]
    lines = table(("split", "images", "share"), rows, width).split("\n")
    for name, found in classes:
        rare = sorted((c for c in found if found[c].total()), key=lambda c: found[c].total())
        most = 20
        lines += ["", f"{name}, images by class{f': the {most} rarest of {len(rare)}' if len(rare) > most else ''}"]
        rows = [[c, *(f"{found[c][s]:,}" for s in counts)] for c in rare[:most]]
        lines += table(("class", *counts), rows, width).split("\n")
        for where in counts:
            if lacks := [c for c in rare if not found[c][where]]:
                lines += wrapped(first_ten(lacks), width, "", f"no image in {where}: ")
    return lines
