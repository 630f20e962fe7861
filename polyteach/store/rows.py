"""What one row of a part says: of an image, of an image that was refused, and of how a label set answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from polyteach.tasks.target import Target

ROW_GROUP = 64
"""Rows of a part that are read and unpacked together."""
MOST_IMAGES = 2**18
"""Images of a part, at most, whatever a store says of itself: their rows take about 300 MB."""
LABELLED, ABSENT, FAILED = "labelled", "absent", "failed"
"""What the column `state` says of an image."""
Answer = Target | str | None
"""What a label set says of an image: a target, the reason of a failure, or nothing."""

IMAGES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("bytes", pa.binary()),
        ("uri", pa.string()),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        ("split", pa.string()),
        ("licence", pa.string()),
    ]
)
REJECTS = pa.schema([("id", pa.string()), ("uri", pa.string()), ("reason", pa.string())])


class Unfit(ValueError):
    """Why what a label set keeps of an image is no target of it."""


@dataclass(frozen=True)
class ImageRow:
    """One image: its bytes as they were found (`data`), or where they lie (`uri`, a path or a URL: `read_uri`).

    height, width: pixels after EXIF orientation. id: unique in the store.
    """

    id: str
    height: int
    width: int
    data: bytes | None = None
    uri: str | None = None
    split: str | None = None
    licence: str | None = None


def wrong_row(row: Mapping[str, Any]) -> str:
    """Why the fields of an `ImageRow` make none, such as one without an id; "" where they make one."""
    for name in ("id", "height", "width"):
        if row[name] is None:
            return f"an image has no {name}"
    if row["height"] < 1 or row["width"] < 1:
        return "an image has no pixels"
    return "an image has neither bytes nor uri" if row["data"] is None and row["uri"] is None else ""
