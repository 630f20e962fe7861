"""The store: images and targets on disk, as Parquet parts that anything can read.

::

    store.json                               format version, images per part; how it was divided into splits
    images/part-00000.parquet                id, bytes or uri, height, width, split, licence
    images/_overview.parquet                 the splits of all parts, in short; kept for speed, see `Overview`
    labels/<task>/<name>/set.json            space, columns, and info: teacher, licence, version
    labels/<task>/<name>/part-00000.parquet  one row per image of that part: state, reason, the target's columns
    labels/<task>/<name>/_overview.parquet   the states of all parts
    rejects/part-00000.parquet               id, uri, reason

The folder is a local one or a URL (`polyteach/storage.py`). A part is the unit of work and of resume: written under a
temporary name, synced and renamed (or put, in object storage), so that it exists means that it is whole. A new label
set adds a folder and never rewrites images or another's labels. Row groups are small (64 images), and bytes that are
compressed already (JPEG, PNG) are not compressed again.

The folder may be a stranger's. What it says in JSON is checked where it is read (`about_store`, `LabelSet`), and
nothing below it is written or removed through a symbolic link (`storage.below`); parts are read through one.

Shapes: N images of a part, K entries of a vector, M N cells of a map.
"""

import contextlib
import hashlib
import io
import os
import re
import shlex
import shutil
import stat
import struct
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import MISSING, asdict, dataclass, fields
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from faster_coco_eval.core import mask as run_length
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_png, decode_webp

from polyteach.fields import Fields, cost
from polyteach.files import differences, replacing, sweep, write_json
from polyteach.images import BadImage
from polyteach.images import decode as decode_image
from polyteach.limits import MAX_PIXELS, Limits
from polyteach.names import fit_name
from polyteach.storage import AnyPath, ObjectPath, Reader, StorageError, below, stamps, to_path
from polyteach.tasks import load_task
from polyteach.tasks.contract import MAP, MOST_VALUES, PEOPLE, Column, Objective, Policy, Space, Target
from polyteach.uris import read_uri

_T = TypeVar("_T")
_Given = TypeVar("_Given")
_Found = TypeVar("_Found")

FORMAT = 1
ROW_GROUP = 64
MOST_PARTS = 10_000_000
"""Numbers of parts are below it."""
WEBP_SIDE = 16383
"""The format's longest side, in pixels."""
LOOKING = 16
"""Parts that are looked at together, when a labelling ends and a training starts."""
SMALL = 512
"""Bytes of an encoded map up to which its pixels are remembered, because the next image's is likely to be the same."""
SAME = 2**20
"""Pixels of a map up to which some of those few bytes are remembered; of larger ones two, whatever they are."""
MOST_IMAGES = 2**18
"""Images of a part, at most, whatever a store says of itself: their rows take about 300 MB."""
UNPACKED = 512 * 2**20
"""Bytes that what is read of a part may take unpacked, if they are more than `RATIO` times as many as it has packed."""
RATIO = 20
LOOKED_AT = 2
"""Times as many rows as a part may have, of which `salvaged` looks for those that can be kept."""
FEW = 8
"""Images from which on it is odd that all have one answer or one class."""
DIVIDED = "split"
"""Key of store.json under which `polyteach store split` says how, and whether it is finished."""
LABELLED, ABSENT, FAILED = "labelled", "absent", "failed"
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


class Store:
    """A folder of images and label sets. Make one with `create`, open one with `open`."""

    def __init__(self, path: AnyPath, part_size: int, limits: Limits | None = None) -> None:
        self.path = path
        self.part_size = part_size
        self.limits = limits or Limits()

    @staticmethod
    def create(path: str | AnyPath, part_size: int = 1024, limits: Limits | None = None) -> "Store":
        """A new, empty store in a folder or behind a URL. limits: of reading its images later.

        Raises:
            ValueError: `path` is a store already, or a folder with other things in it; part_size out of range.
            OSError: it cannot be written.
        """
        path = to_path(path)
        if not 1 <= part_size <= MOST_IMAGES:
            raise ValueError(f"part_size must be at least 1 and at most {MOST_IMAGES:,}; got {part_size}")
        if (path / "store.json").exists():
            raise ValueError(f"{path} is a store already; choose another path or delete it")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path} exists and is no empty folder; choose another path")
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "store.json", {"format": FORMAT, "part_size": part_size})
        return Store(path, part_size, limits)

    @staticmethod
    def open(path: str | AnyPath, divided: bool = True, limits: Limits | None = None) -> "Store":
        """The store at `path`.

        divided: refuse one that is only half divided into splits. limits: of reading its images; those of `Limits()`
        without.

        Raises:
            ValueError: no store there, one of a newer format, one whose store.json is broken, or a half divided one.
            StorageError: the object storage cannot be reached.
        """
        path = to_path(path)
        if not (path / "store.json").is_file():
            if (path / "images").is_dir():
                raise ValueError(
                    f"{path} has images, and its store.json is missing. It holds the format and the images per part, "
                    f'such as {{"format": {FORMAT}, "part_size": 1024}}; ingest.json says how many they were'
                )
            raise ValueError(f"{path} is not a store (no store.json); make one with: polyteach ingest SOURCE {path}")
        about = about_store(path)
        for folder in (path, path / "images", path / "rejects"):
            if folder is path or not _linked(path, folder.name):
                sweep(folder)
        if divided and not about.get(DIVIDED, {"finished": True})["finished"]:
            asked = about[DIVIDED]
            fractions = " ".join(f"{k}={v:g}" for k, v in asked["fractions"].items())
            more = "".join(f" --{k} {shlex.quote(str(asked[k]))}" for k in ("seed", "group", "groups") if asked.get(k))
            raise ValueError(
                f"{path} is only half divided into splits; finish it with the same command: polyteach store split "
                f"{path} --fractions {fractions}{more}"
            )
        return Store(path, int(about["part_size"]), limits)

    @property
    def remote(self) -> bool:
        """Whether it lies in object storage, where reading ahead is worth something."""
        return isinstance(self.path, ObjectPath)

    def own(self, *names: str) -> AnyPath:
        """The folder `names` below the store, to write or remove something in it.

        Raises:
            ValueError: it is a symbolic link, or lies behind one; see `storage.below`.
        """
        return below(self.path, *names)

    def ingested(self) -> dict[str, Any]:
        """What ingest.json says of where the images are from: source, licence and more; empty where there is none.

        Raises:
            ValueError: it is broken; names the field.
        """
        if not (self.path / "ingest.json").exists():
            return {}
        about = Fields.read(self.path / "ingest.json")
        if isinstance(about.value.get("source"), list):
            about.texts("source")
        else:
            about.text("source", null=True)
        about.text("licence", null=True)
        about.flag("finished", null=True)
        return about.value

    def parts(self) -> list[int]:
        """Numbers of the image parts there are, ascending."""
        return _parts(self.path / "images", dense=True)

    def count(self, part: int) -> int:
        """How many images a part holds, from its footer alone.

        Raises:
            ValueError: the part is missing or broken; names the file.
        """
        return height(self.path / "images" / part_name(part), self.most)

    @property
    def most(self) -> int:
        """Images that a part may hold, whatever its file and store.json say."""
        return min(self.part_size, MOST_IMAGES)

    def write_images(self, part: int, rows: Sequence[ImageRow]) -> None:
        """Write a whole part of images, at most `part_size`, atomically."""
        if len(rows) > self.part_size:
            raise ValueError(f"part {part} has {len(rows)} images; the store's part_size is {self.part_size}")
        names = {"bytes": "data"}
        columns = {f.name: [getattr(r, names.get(f.name, f.name)) for r in rows] for f in IMAGES}
        _write(self.own("images") / part_name(part), pa.table(columns, schema=IMAGES), raw=("bytes",))

    def images(self, part: int, data: bool = True, rows: Sequence[int] | None = None) -> list[ImageRow]:
        """The images of a part in order, or those at positions `rows`; without their bytes when not `data`.

        Raises:
            ValueError: the part is missing or broken; names the file.
        """
        return self._rows(part, [f.name for f in IMAGES if data or f.name != "bytes"], rows)

    def sizes(self, part: int, rows: Sequence[int] | None = None) -> list[ImageRow]:
        """As `images`, of their ids and sizes alone: what it takes to tell whether a target is of an image."""
        return self._rows(part, ["id", "height", "width"], rows)

    def _rows(self, part: int, columns: list[str], rows: Sequence[int] | None) -> list[ImageRow]:
        path = self.path / "images" / part_name(part)
        table = _read(path, columns, rows, self.most, IMAGES)
        for field in IMAGES:
            if not field.nullable and table[field.name].null_count:
                raise ValueError(f"{path} is broken: an image has no {field.name}")
        return [ImageRow(**{"data" if k == "bytes" else k: v for k, v in row.items()}) for row in table.to_pylist()]

    def salvaged(self, part: int) -> Iterator[tuple[int, ImageRow]]:
        """(position, row) of the images of a part that can still be read, whatever is wrong with the others."""
        for i, row in salvaged(self.path / "images" / part_name(part), IMAGES, LOOKED_AT * self.part_size):
            plain = {"data" if k == "bytes" else k: v[0].as_py() for k, v in row.items()}
            if not wrong_row(plain):
                yield i, ImageRow(**plain)

    def ids(self, part: int) -> list[str]:
        """Ids of a part's images."""
        path = self.path / "images" / part_name(part)
        ids: list[str] = _read(path, ["id"], None, self.most, IMAGES)["id"].to_pylist()
        return ids

    def splits(self) -> "Overview":
        """The split of every image, or None."""
        return Overview(self.path / "images", "split", self.most, keep=not _linked(self.path, "images"))

    def soon(self, part: int, rows: Sequence[int] | None = None) -> bool:
        """Say that a part's images, or those at positions `rows`, will be read: object storage is read ahead then.

        Returns:
            False where too much is being read ahead already, and nothing was done.
        """
        return _soon(self.path / "images" / part_name(part), rows)

    def read(self, row: ImageRow) -> bytes:
        """The encoded bytes of an image.

        Raises:
            OSError: its file is gone or cannot be read.
        """
        if row.data is not None:
            return row.data
        if row.uri is None:
            raise OSError(f"image {row.id!r} has neither bytes nor uri")
        return read_uri(row.uri, self.limits)

    def picture(self, row: ImageRow) -> UInt8[Tensor, "3 H W"]:
        """The image as RGB pixels, EXIF orientation applied: the same for every teacher and for training.

        Raises:
            OSError: its file is gone or cannot be read.
            BadImage: it cannot be decoded, has more pixels than the store's limits allow, or another size than its row
                says, which is seen before it is unpacked.
        """
        try:
            data = self.read(row)
        except MemoryError as e:
            raise BadImage("memory is not enough to read it") from e
        return decode_image(data, self.limits.max_pixels, min_side=1, size=(row.height, row.width))

    def write_rejects(self, part: int, rejects: Iterable[tuple[str, str | None, str]]) -> None:
        """Record images of a part's slice of the source that were refused: (id, uri, reason)."""
        rows = list(rejects)
        if rows:
            columns = {f.name: [r[i] for r in rows] for i, f in enumerate(REJECTS)}
            _write(self.own("rejects") / part_name(part), pa.table(columns, schema=REJECTS))
        else:  # of a run that was killed before its images were written
            (self.own("rejects") / part_name(part)).unlink(missing_ok=True)

    def reject_parts(self) -> list[int]:
        """Numbers of the parts of rejects there are, ascending."""
        return _parts(self.path / "rejects")

    def rejects(self, parts: Iterable[int] | None = None) -> list[tuple[str, str | None, str]]:
        """Every refused image, or those of some parts: (id, uri, reason).

        Raises:
            ValueError: a part is broken; names the file.
        """
        folder = self.path / "rejects"
        numbers = self.reject_parts() if parts is None else parts
        tables = [_read(folder / part_name(p), None, None, self.most, REJECTS) for p in numbers]
        return [(r["id"], r["uri"], r["reason"]) for t in tables for r in t.to_pylist()]

    def create_set(self, task: str, name: str, space: Space, info: dict[str, Any]) -> "LabelSet":
        """The label set `labels/<task>/<name>`, made or, when it says the same, opened.

        info: JSON values; who answered and how (teacher, policy, licence, version).

        Raises:
            ValueError: a set of that name with another space or info; names what differs. An unfit name. More classes
                than the task's column can keep apart.
        """
        fit_name("label set name", name)
        most = load_task(task).most_classes
        if most is not None and len(space.names) > most:
            teacher, images = info.get("teacher"), info.get("images") or {}
            who = teacher.get("spec") if isinstance(teacher, dict) else images.get("source")
            raise ValueError(
                f"{who or name} has {len(space.names):,} classes; a label set of {task} ({task}/{name}) keeps at most "
                f"{most:,} apart. Take fewer, or merge some"
            )
        columns = {k: asdict(c) for k, c in _columns(load_task(task).target).items()}
        about = {"task": task, "name": name, "space": asdict(space), "columns": columns, "info": info}
        folder = self.own("labels", task, name)
        sweep(folder)
        if (folder / "set.json").exists():
            differs = differences(Fields.read(folder / "set.json").value, _plain(about))
            if differs:
                raise ValueError(
                    f"{folder} was made otherwise: {'; '.join(differs)}. Use another name, or delete that folder"
                )
        else:
            write_json(folder / "set.json", about)
        return LabelSet(self, task, name)

    def sets(self) -> list["LabelSet"]:
        """Every label set, sorted by task and name; none of hidden folders, which are no task's."""
        found = sorted((f.parent.parent.name, f.parent.name) for f in (self.path / "labels").glob("*/*/set.json"))
        return [LabelSet(self, task, name) for task, name in found if not task.startswith(".")]


def remedy(store: Store) -> str:
    """What to do about a label set that cannot be opened."""
    return f"Mend it, or take the set out: polyteach store repair {store.path}"


class LabelSet:
    """One teacher's, or people's, answers to one task over the store's images.

    Raises:
        ValueError: its set.json is broken, or is of another set than its folder says; names the field.
    """

    def __init__(self, store: Store, task: str, name: str) -> None:
        self.store = store
        self.task = task
        self.name = name
        self.path = store.path / "labels" / task / name
        about = Fields.read(self.path / "set.json", remedy(store))
        self.space = _space(about, task, name)
        self.info = _info(about)
        self._target = load_task(task).target
        self._needed = {f.name for f in fields(self._target) if f.default is MISSING}
        self._columns = _columns(self._target)
        kept = {k: asdict(c) for k, c in self._columns.items()}
        if about.object("columns").value != _plain(kept):
            raise about.error("columns", f"must be those of this polyteach ({', '.join(kept)})", about.value["columns"])

    @property
    def objective(self) -> Objective:
        """What a head that learns this set answers."""
        return Objective(self.task, self.space)

    @cached_property
    def schema(self) -> pa.Schema:
        """Arrow schema of the parts; units and scales are in the fields' metadata."""
        head = [("id", pa.string()), ("state", pa.string()), ("reason", pa.string())]
        own = [
            pa.field(
                k,
                _arrow(c),
                metadata={"kind": c.kind, "dtype": c.dtype, "scale": repr(c.scale), "unit": c.unit},
            )
            for k, c in self._columns.items()
        ]
        return pa.schema([*head, *own])

    def parts(self) -> list[int]:
        """Numbers of the parts that are labelled, ascending."""
        return _parts(self.path, dense=True)

    def has(self, part: int) -> bool:
        """Whether that part is labelled."""
        return (self.path / part_name(part)).is_file()

    def soon(self, part: int, rows: Sequence[int] | None = None) -> bool:
        """As `Store.soon`, of the answers."""
        return _soon(self.path / part_name(part), rows)

    def kinds(self) -> dict[str, str]:
        """How each column of the target is kept; see `Column`."""
        return {name: how.kind for name, how in self._columns.items()}

    def delete(self) -> None:
        """Delete the set, and its task's folder where it was the last one.

        Killed on the way, it leaves no set, or, in object storage, one of which parts are not labelled.

        Raises:
            ValueError: it lies behind a symbolic link.
        """
        folder = self.store.own("labels", self.task, self.name)
        if isinstance(folder, ObjectPath):
            about = folder / "set.json"
            # by name too: a part that the listing lacks would be taken for one of the next set of this name
            for file in {*folder.rglob("*"), *(folder / part_name(p) for p in self.parts())} - {about}:
                file.unlink(missing_ok=True)
            about.unlink(missing_ok=True)
            return
        gone = folder.parent.parent / f".{self.task}-{self.name}.deleted"
        if gone.is_symlink():
            gone.unlink()
        elif gone.exists():  # of one that was killed here
            shutil.rmtree(gone)
        folder.rename(gone)  # at once, so that no half-deleted set is ever seen
        shutil.rmtree(gone)  # which removes a link below, and not what that leads to
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()

    def write(self, part: int, ids: Sequence[str], answers: Sequence[Answer]) -> None:
        """Write a whole part atomically: for each image a target, the reason of its failure, or None where absent.

        Raises:
            ValueError: another number of answers than ids; an answer of another type or outside its dtype's range.
        """
        self.write_encoded(part, ids, [self.encode(a) for a in answers])

    def encode(self, answer: Answer) -> dict[str, Any]:
        """A row of the part as `write_encoded` takes it, compressed: a small share of what the target holds.

        Raises:
            ValueError: an answer of another type or outside its dtype's range.
        """
        if answer is not None and not isinstance(answer, str) and type(answer) is not self._target:
            raise ValueError(
                f"label set {self.task}/{self.name} keeps {self._target.__name__}, not {type(answer).__name__}"
            )
        state = LABELLED if isinstance(answer, Target) else FAILED if isinstance(answer, str) else ABSENT
        row: dict[str, Any] = {"state": state, "reason": answer if isinstance(answer, str) else None}
        for name, how in self._columns.items():
            value = getattr(answer, name) if isinstance(answer, Target) else None
            row[name] = None if value is None else encode(value, how)
        return row

    def write_encoded(self, part: int, ids: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
        """As `write`, of what `encode` made of the answers.

        Raises:
            ValueError: another number of rows than ids.
        """
        if len(ids) != len(rows):
            raise ValueError(f"{len(rows)} answers for {len(ids)} images in {self.path / part_name(part)}")
        columns: dict[str, Any] = {"id": list(ids)}
        for name in ("state", "reason", *self._columns):
            columns[name] = [row[name] for row in rows]
        raw = [k for k, c in self._columns.items() if c.kind == "map"]
        folder = self.store.own("labels", self.task, self.name)
        _write(folder / part_name(part), pa.table(columns, schema=self.schema), raw=raw)

    def read(self, part: int, rows: Sequence[int] | None = None) -> list[Answer]:
        """The answers of a part in the images' order, or those at positions `rows`.

        Raises:
            ValueError: the part is missing or broken, or a target is unfit (`fitted`); names the file.
        """
        table, images = self.table(part, rows), self.store.sizes(part, rows)
        return [self.sound(part, image, a) for image, a in zip(images, self.fitted(table, images), strict=True)]

    def sound(self, part: int, image: ImageRow, answer: "Answer | Unfit") -> Answer:
        """What `fitted` gave, of an image of that part, where it is fit.

        Raises:
            ValueError: it is not; names the file and the image, and says what to do.
        """
        if isinstance(answer, Unfit):
            raise ValueError(
                f"{self.path / part_name(part)}: target of {image.id!r}: {answer}. Nothing is learned from what is "
                f"broken. See all of it with: polyteach store check {self.store.path}, and take it out with: polyteach "
                f"store repair {self.store.path}"
            ) from answer
        return answer

    def table(self, part: int, rows: Sequence[int] | None = None) -> pa.Table:
        """The answers of a part, or those at positions `rows`, still encoded: small enough to be kept in memory.

        Raises:
            ValueError: the part is missing or broken; names the file.
        """
        return _read(self.path / part_name(part), None, rows, self.store.most, self.schema)

    def answers(self, table: pa.Table) -> list[Answer]:
        """Decode rows of `table`, whatever images they are of.

        Raises:
            ValueError: a target that cannot be decoded, or has a map of more cells than images may have pixels.
        """
        columns = _chunks(table)
        return [self._answer(columns, i, self.store.limits.max_pixels) for i in range(table.num_rows)]

    def fitted(self, table: pa.Table, images: Sequence[ImageRow]) -> "Iterator[Answer | Unfit]":
        """Decode rows of `table`, each of which is of one of `images`: by the one rule of `store check` and of all that
        learns from labels.

        A target that is none of its image is an `Unfit` that says why: it is of another image, it cannot be decoded,
        its maps are larger than `room` allows, or it is not what `Task.validate` asks for.

        Raises:
            ValueError: another number of images than rows.
        """
        if table.num_rows != len(images):
            raise ValueError(f"{self.path} has a part of {table.num_rows} rows for {len(images)} images")
        columns = _chunks(table)
        task = load_task(self.task)
        ids = columns["id"].to_pylist()
        for i, image in enumerate(images):
            size = (image.height, image.width)
            try:
                if ids[i] != image.id:
                    raise ValueError(f"it is of image {ids[i]!r}")
                answer = self._answer(columns, i, room(size, self.store.limits))
                if isinstance(answer, Target):
                    task.validate(answer, size, self.space)
            except MemoryError:
                yield Unfit("memory is not enough to decode it")
            except Exception as e:  # whatever a stranger's bytes make the decoders raise
                yield Unfit(f"{e}" or type(e).__name__)
            else:
                yield answer

    def ids(self, part: int) -> list[str]:
        """Ids of a part's images."""
        return self._texts(part, "id")

    def states(self, part: int) -> list[str]:
        """Per image "labelled", "absent" or "failed"."""
        return self._texts(part, "state")

    def _texts(self, part: int, column: str) -> list[str]:
        table = _read(self.path / part_name(part), [column], None, self.store.most, self.schema)
        texts: list[str] = table[column].to_pylist()
        return texts

    def every_state(self) -> "Overview":
        """The states of every image."""
        keep = not _linked(self.store.path, "labels", self.task, self.name)
        return Overview(self.path, "state", self.store.most, keep)

    def record(self) -> dict[str, Any]:
        """What label.json says of how the set was made and what that cost; empty where there is none.

        compute: images, flops, seconds. teachers_compute: as `student.costs`. computed: what it was computed with.

        Raises:
            ValueError: it is broken; names the field.
        """
        if not (self.path / "label.json").exists():
            return {}
        about = Fields.read(self.path / "label.json", "Take it away: what the labels have cost is not known then")
        spent = about.object("compute", null=True)
        for key in spent.value:
            spent.number(key, null=key == "flops")
        for one in about.objects("teachers_compute", null=True):
            cost(one)
        for one in about.objects("computed", null=True):
            for key in one.value:
                one.text(key, null=True)
        return about.value

    def statistics(self, score: float | int = 0.5, sample: int = 4096) -> tuple[int, int, dict[str, float]]:
        """Images labelled, images failed, and the task's statistics averaged over the first `sample` labelled images.

        score: the threshold that the statistics are about.
        """
        task, policy = load_task(self.task), Policy(score=score)
        total = failed = seen = 0
        sums: dict[str, float] = {}
        states = self.every_state()
        parts = self.parts()

        def look(part: int) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
            return states.among(part, (LABELLED,)), states.among(part, (FAILED,))

        for part, (good, bad) in zip(parts, several(look, parts), strict=True):
            total += int(good.sum())
            failed += int(bad.sum())
            chosen = np.flatnonzero(good)[: max(sample - seen, 0)].tolist()
            for target in self.read(part, chosen) if chosen else ():
                assert isinstance(target, Target)
                seen += 1
                for key, value in task.statistics(target, policy).items():
                    sums[key] = sums.get(key, 0.0) + value
        states.save()
        return total, failed, {k: v / seen for k, v in sums.items()}

    def spread(self, most: int = 4096) -> Iterator[Target]:
        """At most `most` of the targets, by row groups from all over the set in an order that is always the same.

        One row group of every part, then another of every part, and so on; a target is decoded when it is asked for.
        """
        states, left = self.every_state(), most
        parts: list[int] = np.random.default_rng(0).permutation(self.parts()).tolist()
        turn = 0
        while parts:
            for part in list(parts):
                at = np.flatnonzero(states.among(part, (LABELLED,)))
                groups = np.random.default_rng(part).permutation(np.unique(at // ROW_GROUP))
                if turn + 1 >= len(groups):
                    parts.remove(part)
                if not len(groups):
                    continue
                rows = at[at // ROW_GROUP == groups[turn]][:left].tolist()
                images = self.store.sizes(part, rows)
                for image, found in zip(images, self.fitted(self.table(part, rows), images), strict=True):
                    answer = self.sound(part, image, found)
                    if isinstance(answer, Target):
                        yield answer
                left -= len(rows)
                if not left:
                    return
            turn += 1

    def doubt(self, policy: Policy, most: int = 4096) -> str:
        """Why these labels can hardly teach anything: all are empty, or the same, or of one class; "" where they vary.

        At most `most` images are looked at, and no more than it takes to see that they vary.
        """
        task = load_task(self.task)
        reasons: Counter[str] = Counter()
        classes: set[int] = set()
        first: Target | None = None
        seen, same = 0, True
        for target in self.spread(most):
            answer = task.pseudo(target, policy)
            seen += 1
            reason = task.nothing(answer, self.space)
            reasons[reason] += 1
            same = same and (first is None or _alike(first, answer))
            first = answer if first is None else first
            classes.update(task.classes(answer))
            one = len(self.space.names) > 1 and len(classes) == 1
            if reasons[""] and not same and not one:
                return ""
        all_of = f"all {seen:,} images that were looked at"
        if seen and not reasons[""]:
            return f"images with {reasons.most_common(1)[0][0]}: {all_of}"
        if seen >= FEW and same:
            return f"images with the same answer: {all_of}"
        if seen >= FEW and len(self.space.names) > 1 and len(classes) == 1:
            return f"images that show {self.space.names[min(classes)]!r} alone: {all_of}"
        return ""

    def salvaged(self, part: int) -> Iterator[tuple[str, Answer]]:
        """(id, answer) of the rows of a part that can still be read and decoded, whatever is wrong with the others."""
        for _, row in salvaged(self.path / part_name(part), self.schema, LOOKED_AT * self.store.part_size):
            try:
                id, state = row["id"][0].as_py(), row["state"][0].as_py()
                answer = self._answer(row, 0, self.store.limits.max_pixels)
            except Exception:  # whatever broken bytes make a decoder raise
                continue
            if id is not None and state in (LABELLED, ABSENT, FAILED):
                yield id, answer

    def _answer(self, columns: dict[str, pa.Array], row: int, most: int) -> Answer:
        state = columns["state"][row].as_py()
        if state == FAILED:
            return str(columns["reason"][row].as_py())
        if state == ABSENT:
            return None
        if state != LABELLED:
            raise ValueError(f"state {state!r} is none of {LABELLED}, {ABSENT}, {FAILED}")
        values: dict[str, Tensor | None] = {}
        for name, how in self._columns.items():
            kept = columns[name][row]
            try:
                values[name] = decode(_kept(kept, how), how, most) if kept.is_valid else None
            except ValueError as e:
                raise ValueError(f"{name}: {e}") from e
            if values[name] is None and name in self._needed:
                raise ValueError(f"{name} is missing")
        return self._target(**values)


def _chunks(table: pa.Table) -> dict[str, pa.Array]:
    """Columns by name, each in one piece: never through Python's lists, which would cost more than all the rest."""
    found = dict(zip(table.column_names, table.itercolumns(), strict=True))
    return {k: c.chunk(0) if c.num_chunks == 1 else c.combine_chunks() for k, c in found.items()}


class Overview:
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
                found = _read(folder / self.NAME, most=MOST_PARTS)
                table = found.replace_schema_metadata(None).cast(self.SCHEMA)
                if _coherent(table) and _digest(table) == (found.schema.metadata or {}).get(b"sha256"):
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
        table = _read(self.folder / part_name(part), [self.column], None, self.most, like)
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
            _write(self.folder / self.NAME, whole.replace_schema_metadata({"sha256": _digest(whole)}))


def _alike(a: Target, b: Target) -> bool:
    """Whether two answers say the same: numbers to a thousandth of the largest.

    Maps that hold one value are compared whatever their sizes.
    """
    for x, y in ((getattr(a, f.name), getattr(b, f.name)) for f in fields(a)):
        if x is None and y is None:
            continue
        if x is None or y is None or x.ndim != y.ndim:
            return False
        if x.shape != y.shape:
            if x.ndim < 2 or x.shape[:-2] != y.shape[:-2] or not x.numel() or not y.numel():
                return False
            one, other = x[..., :1, :1], y[..., :1, :1]
            if not bool((x == one).all() and (y == other).all()):
                return False
            x, y = one, other
        if not x.is_floating_point():
            if not torch.equal(x, y):
                return False
            continue
        # of the largest value: depth has no unit, and among many classes every probability is small
        most = max(float(v.nan_to_num(0, 0, 0).abs().max()) if v.numel() else 0.0 for v in (x.float(), y.float()))
        if not torch.allclose(x.float(), y.float(), rtol=0, atol=1e-3 * most, equal_nan=True):
            return False
    return True


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
    whole = not any(table[name].null_count for name in Overview.SCHEMA.names)
    flat = pc.list_flatten(lengths)
    alike = whole and pc.list_value_length(values).equals(pc.list_value_length(lengths))
    return alike and not flat.null_count and (not len(flat) or pc.min(flat).as_py() >= 0)


def _digest(table: pa.Table) -> bytes:
    """Of the content, however it is laid out. The pages of a Parquet file have checksums, its footer has none."""
    digest = hashlib.sha256()
    for name in Overview.SCHEMA.names:
        column = table[name]
        if pa.types.is_list(column.type):
            digest.update(np.array(pc.list_value_length(column), dtype=np.int32).tobytes())
            column = pc.list_flatten(column)
        if pa.types.is_string(column.type):
            digest.update("\0".join("\1" if v is None else v for v in column.to_pylist()).encode())
        else:
            digest.update(np.array(column, dtype=np.int32).tobytes())
    return digest.hexdigest().encode()


def _kept(scalar: pa.Scalar, how: Column) -> Any:
    """One field's value in Parquet: bytes, a dictionary, or an array of all its numbers."""
    if how.kind in ("map", "masks"):
        return scalar.as_py()
    values = scalar.values
    numbers = values.flatten() if how.kind == "rows" else values
    if values.null_count or numbers.null_count:
        raise ValueError("an entry is missing")
    return numbers.to_numpy(zero_copy_only=False)


def encode(value: Tensor, how: Column) -> Any:
    """A field of a target as the Python value that Parquet keeps.

    Raises:
        ValueError: the value does not fit its dtype on disk.
    """
    array = _on_disk(value.detach().cpu().numpy(), how)
    if how.kind == "map":
        return _map(array)
    if how.kind == "masks":
        counts = run_length.encode(np.asfortranarray(array.transpose(1, 2, 0).astype(np.uint8))) if len(array) else []
        return {"size": list(array.shape[1:]), "counts": [c["counts"] for c in counts]}
    return list(array) if how.kind == "rows" else array


def decode(kept: Any, how: Column, most: int = MAX_PIXELS) -> Tensor:
    """The inverse of `encode`: float32 where the column is scaled or floating, int64 where integer, bool where bool.

    most: cells of a map, or of a mask. It is looked at in the header, before anything is unpacked.

    Raises:
        ValueError: more cells than that; a map that cannot be decoded, or is not of the kind that the column keeps;
            runs of a mask that do not fill it, or masks of more than `MOST_VALUES` together.
    """
    if how.kind == "map":
        return _in_memory(_pixels(kept, how, most), how)
    if how.kind == "masks":
        return _masks(kept, most)
    array = np.asarray(kept, dtype=how.dtype)
    return _in_memory(array.reshape(-1, how.width) if how.kind == "rows" else array, how)


def room(size: tuple[int, int], limits: Limits) -> int:
    """Cells that a map of an image of (height, width) `size` may have: as many as it has pixels, or `MAP`."""
    return min(max(size[0] * size[1], MAP), limits.max_pixels)


def _masks(kept: dict[str, Any], most: int) -> Bool[Tensor, "K M N"]:
    size, counts = kept["size"], kept["counts"]
    if size is None or counts is None or None in counts or None in size or len(size) != 2 or min(size) < 0:
        raise ValueError(f"masks have the size {size}, which is none, or one has no runs")
    cells = size[0] * size[1]
    if cells > most:
        raise ValueError(f"masks are {size[0]}x{size[1]} (height x width), more than the {most:,} cells allowed here")
    if cells * len(counts) > MOST_VALUES:
        raise ValueError(f"{len(counts):,} masks of {size[0]}x{size[1]} are more than {MOST_VALUES:,} cells together")
    out = torch.zeros(len(counts), *size, dtype=torch.bool)
    if not len(counts):
        return out
    _check_runs(counts, cells)
    step = max(SAME // cells, 1)  # so that they are never all there twice
    for start in range(0, len(counts), step):
        masks = run_length.decode([{"size": size, "counts": c} for c in counts[start : start + step]])
        out.numpy().view(np.uint8)[start : start + step] = masks.transpose(2, 0, 1)
    return out


def _check_runs(counts: Sequence[bytes], cells: int) -> None:
    """Refuse what the decoder, which is in C++, would trust: runs are looked at, none of them is drawn.

    COCO's compressed run lengths: digits of 5 bits in bytes from 48 on, of which bit 5 says that more follow, the
    lowest first, the last one's bit 4 the sign; from the fourth number on each is the difference to the one before the
    last.

    Raises:
        ValueError: other bytes, a run below 0, or runs that do not make up `cells`.
    """
    digits = np.frombuffer(b"".join(counts), np.uint8) - np.uint8(48)
    if not cells or not all(counts) or digits.max() > 63:
        raise ValueError("a mask has no runs, or bytes that are none")
    last = digits < 32
    ends = np.flatnonzero(last)
    stops = np.cumsum([len(c) for c in counts])
    if not last[stops - 1].all():
        raise ValueError("a mask's runs are cut short")
    starts = np.concatenate([[0], ends[:-1] + 1])
    length = ends - starts + 1
    if length.max() > 7:
        raise ValueError("a mask has a run that is longer than any picture")
    place = np.arange(len(digits)) - np.repeat(starts, length)
    numbers = np.add.reduceat((digits & 31).astype(np.int64) << (5 * place), starts)
    numbers -= np.where(digits[ends] & 16, np.int64(1) << (5 * length), 0)
    first = 0
    for stop in (np.searchsorted(ends, stops - 1) + 1).tolist():
        mine = numbers[first:stop]
        odd, even = mine[1::2].cumsum(), mine[2::2].cumsum()
        least = min(int(mine[0]), int(odd.min(initial=0)), int(even.min(initial=0)))
        if least < 0 or int(mine[0] + odd.sum() + even.sum()) != cells:
            raise ValueError(f"a mask's runs do not make up its {cells:,} cells")
        first = stop


def _on_disk(array: np.ndarray, how: Column) -> np.ndarray:
    dtype = np.dtype(how.dtype)
    if how.scale != 1:
        array = np.round(array.astype(np.float64) / how.scale)
    if dtype.kind in "iu" and array.size:
        low, high = array.min(), array.max()
        if not (np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max):
            raise ValueError(f"values {low}..{high} do not fit {how.dtype} (scale {how.scale:g})")
    return array.astype(dtype)


def _in_memory(array: np.ndarray, how: Column) -> Tensor:
    dtype = np.dtype(how.dtype)
    if how.scale != 1:
        if dtype.itemsize == 1:  # looked up, in a quarter of the time
            return torch.from_numpy(_levels(how).take(array.view(np.uint8)))
        return torch.from_numpy(_scaled(array, how))
    if dtype == np.float16:  # torch takes a fifth of numpy's time
        return torch.from_numpy(np.array(array)).float()
    memory = {"f": np.float32, "i": np.int64, "u": np.int64, "b": np.bool_}[dtype.kind]
    return torch.from_numpy(np.array(array, dtype=memory))


def _scaled(array: np.ndarray, how: Column) -> np.ndarray:
    # as a quotient where the scale is 1/n: 127 * (1 / 127) is not 1 in float32, 127 / 127 is
    return (array / np.float64(round(1 / how.scale))).astype(np.float32)


@lru_cache(maxsize=8)
def _levels(how: Column) -> np.ndarray:
    """The values of all bytes."""
    return _scaled(np.arange(256, dtype=np.uint8).view(how.dtype), how)


def _map(array: np.ndarray) -> bytes:
    """A lossless WebP, else a PNG: of bools, in one bit a pixel; of what has more than 16,383 pixels on a side; and of
    integers in other shapes than those that the tasks have.

    Against PNG: two thirds of the bytes for depth, a third for normals and classes, and quicker to unpack. Two bytes of
    a number go to red and blue: WebP predicts each from its neighbours, and subtracts green from both.
    """
    if max(array.shape[-2:]) <= WEBP_SIDE and array.size:
        if array.ndim == 2 and array.dtype in (np.uint16, np.float16):
            bits = array.view(np.uint16)
            # fewer bytes by more effort: of classes a third, of depth none at four times the time
            return _webp(np.stack([bits >> 8, np.zeros_like(bits), bits & 255], -1), array.dtype == np.uint16)
        if array.ndim == 2 and array.dtype == np.uint8:
            return _webp(np.stack([array] * 3, -1), True)
        if array.ndim == 3 and array.dtype == np.int8:  # to 1..255 so that a viewer shows them
            return _webp((array.astype(np.int16) + 128).transpose(1, 2, 0), True)
    if array.dtype == np.float16:
        array = array.view(np.uint16)
    if array.dtype == np.int8:
        array = (array.astype(np.int16) + 128).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)) if array.ndim == 3 else array)
    out = io.BytesIO()
    picture.save(out, format="PNG", compress_level=3)
    return out.getvalue()


def _webp(rgb: np.ndarray, effort: bool) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(rgb.astype(np.uint8)))
    picture.save(out, format="WEBP", lossless=True, exact=True, quality=0, method=int(effort))
    return out.getvalue()


_MAPS = {
    "bool": ("1-bit grey PNG",),
    "uint8": ("WebP", "8-bit grey PNG", "8-bit RGB PNG"),
    "int8": ("WebP", "8-bit grey PNG", "8-bit RGB PNG"),
    "uint16": ("WebP", "16-bit grey PNG"),
    "float16": ("WebP", "16-bit grey PNG"),
}
"""By dtype, the pictures that `_map` makes: others hold other numbers than it keeps."""


def _header(kept: bytes) -> tuple[int, int, str]:
    """Height, width and kind of an encoded map; nothing of it is unpacked.

    Raises:
        ValueError: neither a PNG nor a lossless WebP of one opaque picture.
    """
    if kept[:8] == b"\x89PNG\r\n\x1a\n" and kept[12:16] == b"IHDR" and len(kept) > 26:
        width, height, bits, colour = struct.unpack(">IIBB", kept[16:26])
        return height, width, f"{bits}-bit {({0: 'grey', 2: 'RGB'}).get(colour, f'colour type {colour}')} PNG"
    if kept[:4] == b"RIFF" and kept[8:16] == b"WEBPVP8L" and len(kept) > 25:
        [bits] = struct.unpack("<I", kept[21:25])
        return (bits >> 14 & 16383) + 1, (bits & 16383) + 1, "WebP with transparency" if bits >> 28 & 1 else "WebP"
    raise ValueError("a map is neither a PNG nor a lossless WebP of one picture")


def _pixels(kept: bytes, how: Column, most: int) -> np.ndarray:
    height, width, kind = _header(kept)
    if height * width > most:
        raise ValueError(f"is {height}x{width} (height x width), more than the {most:,} cells allowed here")
    if kind not in _MAPS.get(how.dtype, (kind,)):
        raise ValueError(f"is a {kind}; {how.dtype} is kept as {' or '.join(_MAPS[how.dtype])}")
    again = _same_again if height * width <= SAME else _same_large
    array = again(kept) if len(kept) <= SMALL else _unpacked(kept)
    if kept[:4] == b"RIFF" and how.dtype != "int8":  # WebP, three channels always
        array = array[0] if how.dtype == "uint8" else _two_bytes(array)
    if how.dtype == "int8":
        return (array ^ 128).view(np.int8)  # less 128
    if how.dtype == "float16":
        return array.astype(np.uint16, copy=False).view(np.float16)
    return array


def _two_bytes(array: np.ndarray) -> np.ndarray:
    """(M, N) uint16, of which red is the higher byte and blue the lower."""
    out = np.empty((*array.shape[1:], 2), np.uint8)
    out[..., 0], out[..., 1] = array[2], array[0]
    return out.view("<u2")[..., 0]


def _unpacked(kept: bytes) -> np.ndarray:
    """(M, N), or (3, M, N); of one bit a pixel, 0 and not 0."""
    raw = torch.frombuffer(bytearray(kept), dtype=torch.uint8)
    try:  # about twice as fast as Pillow where there is little to unpack
        found = (decode_webp(raw) if kept[:4] == b"RIFF" else decode_png(raw, ImageReadMode.UNCHANGED)).numpy()
    except RuntimeError:  # a torchvision that was built without the library; or no picture, which Pillow will say
        try:
            with Image.open(io.BytesIO(kept), formats=["PNG", "WEBP"]) as picture:
                array = np.asarray(picture)
        except Exception as e:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ... on broken bytes
            raise ValueError(f"cannot be decoded: {type(e).__name__}: {e}") from e
        return array.transpose(2, 0, 1) if array.ndim == 3 else array
    return found[0] if len(found) == 1 else found


_same_again = lru_cache(maxsize=32)(_unpacked)
"""For maps that hold one value only, such as "all is valid": those of most images are the same few bytes."""
_same_large = lru_cache(maxsize=2)(_unpacked)


def _columns(target: type[Target]) -> dict[str, Column]:
    kept = {f.name: f.metadata["column"] for f in fields(target)}
    return {name: how for name, how in kept.items() if how.kind != "none"}


def _arrow(how: Column) -> pa.DataType:
    if how.kind == "map":
        return pa.binary()
    if how.kind == "masks":
        return pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.list_(pa.binary()))])
    number = pa.bool_() if how.dtype == "bool" else pa.from_numpy_dtype(np.dtype(how.dtype))
    return pa.list_(pa.list_(number, how.width) if how.kind == "rows" else number)


def about_store(path: AnyPath) -> dict[str, Any]:
    """What the store.json of the store at `path` says: format, part_size, and under `DIVIDED` how it was divided.

    Raises:
        ValueError: it is broken, or of another format; names the field.
    """
    about = Fields.read(
        path / "store.json",
        f'It holds the format and the images per part, such as {{"format": {FORMAT}, "part_size": 1024}}',
    )
    if about.value.get("format") != FORMAT:
        said = about.value.get("format")
        raise ValueError(f"{path}/store.json says format {said!r:.80}; this polyteach reads {FORMAT}")
    about.count("part_size", low=1, high=MOST_IMAGES)
    if DIVIDED in about.value:
        asked = about.object(DIVIDED)
        asked.flag("finished")
        fractions = asked.object("fractions")
        for name in fractions.value:
            fractions.number(name)
        asked.count("seed")
        for key in ("group", "groups"):
            asked.text(key, null=True)
    return about.value


def _space(about: Fields, task: str, name: str) -> Space:
    """What set.json says that the values mean, where it is the set of that task and name."""
    try:
        fit_name("label set name", name)
        known = load_task(task)
    except ValueError as e:
        raise about.error("", f"lies in a folder of no label set: {e}") from None
    for key, value in (("task", task), ("name", name)):
        if about.text(key) != value:
            raise about.error(key, f"must be {value!r}, as the folder is called that it lies in", about.value[key])
    said = about.object("space")
    space = Space(names=said.texts("names"), kind=said.text("kind"))
    if known.most_classes is not None and len(space.names) > known.most_classes:
        raise said.error("names", f"must be at most {known.most_classes:,} classes for {task}", list(space.names))
    return space


def _info(about: Fields) -> dict[str, Any]:
    """What set.json says of who answered."""
    info = about.object("info")
    if info.value.get("teacher") not in (None, PEOPLE):
        teacher = info.object("teacher")
        for key in ("spec", "origin", "sha256", "licence", "optimizer"):
            teacher.text(key, null=True)
        teacher.number("learning_rate", null=True, low=0)
        teacher.count("batch_size", null=True, low=0)
    images = info.object("images", null=True)
    if isinstance(images.value.get("source"), list):
        images.texts("source")
    else:
        images.text("source", null=True)
    for fields_, key in ((images, "licence"), (info, "licence")):
        fields_.text(key, null=True)
    info.texts("split", null=True)
    return info.value


def _linked(root: AnyPath, *names: str) -> bool:
    """Whether the folder below the store is a symbolic link or lies behind one."""
    try:
        below(root, *names)
    except ValueError:
        return True
    return False


def part_name(part: int) -> str:
    """File of a part, of images and of labels alike."""
    return f"part-{part:05d}.parquet"


def _parts(folder: AnyPath, dense: bool = False) -> list[int]:
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


def _regular(entry: "os.DirEntry[str]") -> bool:
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


def _write(path: AnyPath, table: pa.Table, raw: Sequence[str] = ()) -> None:
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


def _using(path: AnyPath, use: Callable[[pq.ParquetFile], _T]) -> _T:
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


def height(path: AnyPath, most: int = MOST_IMAGES) -> int:
    """Rows of a part, from its footer alone.

    Raises:
        ValueError: it is missing or broken, or has more rows than `most`; names the file.
    """

    def rows(file: pq.ParquetFile) -> int:
        _sound(path, file.metadata, most)
        return int(file.metadata.num_rows)

    return _using(path, rows)


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
        _sound(path, about, most)
        for field in schema:
            if there.get_field_index(field.name) < 0:
                return f"has no column {field.name!r}, or two"
            if there.field(field.name).type != field.type:
                return f"column {field.name!r} is {there.field(field.name).type}, not {field.type}"
        return ""

    if wrong := _using(path, look):
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
        sizes = _using(path, groups)
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
            yield from enumerate(_using(path, partial(_rows, group=group, schema=schema, most=left)), start)
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


def _sound(path: AnyPath, footer: pq.FileMetaData, most: int) -> None:
    """Raises:
    ValueError: more rows than `most`; row groups that are not `ROW_GROUP` rows each, but for the last, so that rows
        would be looked for in the wrong place.
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


def _read(
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
        _sound(path, file.metadata, most)
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

    table = _using(path, read)
    for field in like or ():
        if columns is None or field.name in columns:
            kind = table.schema.field(field.name).type if field.name in table.column_names else "missing"
            if kind != field.type:
                raise ValueError(f"{path} is broken: its column {field.name!r} is {kind}, not {field.type}")
    return table


def _soon(path: AnyPath, rows: Sequence[int] | None) -> bool:
    if not isinstance(path, ObjectPath):
        return True

    def span(raw: Reader) -> tuple[int, int]:
        """The bytes of the row groups that `rows` are in."""
        groups = [pq.read_metadata(raw).row_group(group) for group in sorted({row // ROW_GROUP for row in rows or ()})]
        columns = [group.column(i) for group in groups for i in range(group.num_columns)]
        first = [c.dictionary_page_offset or c.data_page_offset for c in columns]
        return min(first), max(a + c.total_compressed_size for a, c in zip(first, columns, strict=True))

    return path.ahead(None if rows is None else span)


def _plain(value: Any) -> Any:
    """As JSON would give it back."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
