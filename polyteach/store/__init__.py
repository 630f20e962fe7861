"""The store: images and targets on disk, as Parquet parts that anything can read.

::

    store.json                               format version, images per part; how it was divided into splits
    images/part-00000.parquet                id, bytes or uri, height, width, split, licence
    images/_overview.parquet                 the splits of all parts, in short; kept for speed, see `Index`
    labels/<task>/<name>/set.json            space, columns, and info: teacher, licence, version
    labels/<task>/<name>/calibration.json    what makes its probabilities true when they are learned, where measured
    labels/<task>/<name>/part-00000.parquet  one row per image of that part: state, reason, the target's columns
    labels/<task>/<name>/_overview.parquet   the states of all parts
    rejects/part-00000.parquet               id, uri, reason

The folder is a local one or a URL (`ground/storage.py`). A part is the unit of work and of resume: written under a
temporary name, synced and renamed (or put, in object storage), so that it exists means that it is whole. A new label
set adds a folder and never rewrites images or another's labels. Row groups are small (64 images), and bytes that are
compressed already (JPEG, PNG) are not compressed again.

The folder may be a stranger's. What it says in JSON is checked where it is read (`records`), and
nothing below it is written or removed through a symbolic link (`storage.below`); parts are read through one.

torch is imported by what unpacks images or targets alone: `StoreFolder` and `LabelFolder` do without.
"""

import importlib
from typing import TYPE_CHECKING, Any

from polyteach._moved import RENAMED

if TYPE_CHECKING:
    from polyteach.store.codec import decode, encode, room
    from polyteach.store.folder import StoreFolder
    from polyteach.store.index import Index, several
    from polyteach.store.label_folder import CALIBRATION, SPAN, LabelFolder, named_sets, remedy
    from polyteach.store.label_set import LabelSet
    from polyteach.store.parts import MOST_PARTS, RATIO, UNPACKED, count_rows, part_name, strays
    from polyteach.store.records import DIVIDED, FORMAT, about_store
    from polyteach.store.rows import (
        ABSENT,
        FAILED,
        IMAGES,
        LABELLED,
        MOST_IMAGES,
        REJECTS,
        ROW_GROUP,
        Answer,
        ImageRow,
        Unfit,
        wrong_row,
    )
    from polyteach.store.salvage import salvaged, shaped
    from polyteach.store.store import Store

__all__ = [
    "ABSENT", "CALIBRATION", "DIVIDED", "FAILED", "FORMAT", "IMAGES", "LABELLED", "MOST_IMAGES", "MOST_PARTS", "RATIO",
    "REJECTS", "ROW_GROUP", "SPAN", "UNPACKED", "Answer", "ImageRow", "Index", "LabelFolder", "LabelSet", "Store",
    "StoreFolder", "Unfit", "about_store", "count_rows", "decode", "encode", "named_sets", "part_name", "remedy",
    "room", "salvaged", "several", "shaped", "strays", "wrong_row",
]  # fmt: skip  # fmt: skip

_HOMES = {
    "codec": ("decode", "encode", "room"),
    "folder": ("StoreFolder",),
    "index": ("Index", "several"),
    "label_folder": ("CALIBRATION", "SPAN", "LabelFolder", "named_sets", "remedy"),
    "label_set": ("LabelSet",),
    "parts": ("MOST_PARTS", "RATIO", "UNPACKED", "count_rows", "part_name", "strays"),
    "records": ("DIVIDED", "FORMAT", "about_store"),
    "rows": (
        "ABSENT", "FAILED", "IMAGES", "LABELLED", "MOST_IMAGES", "REJECTS", "ROW_GROUP", "Answer", "ImageRow",
        "Unfit", "wrong_row",
    ),
    "salvage": ("salvaged", "shaped"),
    "store": ("Store",),
}  # fmt: skip  # fmt: skip
"""Module -> the names that it gives. Imported when they are asked for, since some of them need torch."""


def __getattr__(name: str) -> Any:
    now = RENAMED.get(("store", name), name)
    for home, names in _HOMES.items():
        if now in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), now)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
