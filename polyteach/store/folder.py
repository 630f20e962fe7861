"""A store's folder: its images, its rejects and what its records say; nothing here unpacks an image or a target."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from polyteach.ground.fields import Fields
from polyteach.ground.files import sweep, write_json
from polyteach.ground.limits import Limits
from polyteach.ground.storage import AnyPath, ObjectPath, below, to_path
from polyteach.ground.uris import read_uri
from polyteach.store.index import Index
from polyteach.store.parts import count_rows, is_linked, list_parts, part_name, prefetch_part, read_part, write_part
from polyteach.store.records import DIVIDED, FORMAT, about_store
from polyteach.store.rows import IMAGES, MOST_IMAGES, REJECTS, ImageRow, wrong_row
from polyteach.store.salvage import LOOKED_AT, salvaged

_S = TypeVar("_S", bound="StoreFolder")


class StoreFolder:
    """A folder of images and label sets, of which no image and no target is unpacked; see `Store`.

    Make one with `create`, open one with `open`.
    """

    def __init__(self, path: AnyPath, part_size: int, limits: Limits | None = None) -> None:
        self.path = path
        self.part_size = part_size
        self.limits = limits or Limits()

    @classmethod
    def create(cls: type[_S], path: str | AnyPath, part_size: int = 1024, limits: Limits | None = None) -> _S:
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
        return cls(path, part_size, limits)

    @classmethod
    def open(cls: type[_S], path: str | AnyPath, divided: bool = True, limits: Limits | None = None) -> _S:
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
            if folder is path or not is_linked(path, folder.name):
                sweep(folder)
        if divided and not about.get(DIVIDED, {"finished": True})["finished"]:
            asked = about[DIVIDED]
            fractions = " ".join(f"{k}={v:g}" for k, v in asked["fractions"].items())
            more = "".join(f" --{k} {shlex.quote(str(asked[k]))}" for k in ("seed", "group", "groups") if asked.get(k))
            raise ValueError(
                f"{path} is only half divided into splits; finish it with the same command: polyteach store split "
                f"{path} --fractions {fractions}{more}"
            )
        return cls(path, int(about["part_size"]), limits)

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
        return list_parts(self.path / "images", dense=True)

    def count(self, part: int) -> int:
        """How many images a part holds, from its footer alone.

        Raises:
            ValueError: the part is missing or broken; names the file.
        """
        return count_rows(self.path / "images" / part_name(part), self.most)

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
        write_part(self.own("images") / part_name(part), pa.table(columns, schema=IMAGES), raw=("bytes",))

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
        table = read_part(path, columns, rows, self.most, IMAGES)
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
        ids: list[str] = read_part(path, ["id"], None, self.most, IMAGES)["id"].to_pylist()
        return ids

    def splits(self) -> Index:
        """The split of every image, or None."""
        return Index(self.path / "images", "split", self.most, keep=not is_linked(self.path, "images"))

    def prefetch(self, part: int, rows: Sequence[int] | None = None) -> bool:
        """Begin to fetch a part's images, or those at positions `rows`, where they lie in object storage.

        Returns:
            False where too much is being read ahead already, and nothing was done.
        """
        return prefetch_part(self.path / "images" / part_name(part), rows)

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

    def write_rejects(self, part: int, rejects: Iterable[tuple[str, str | None, str]]) -> None:
        """Record images of a part's slice of the source that were refused: (id, uri, reason)."""
        rows = list(rejects)
        if rows:
            columns = {f.name: [r[i] for r in rows] for i, f in enumerate(REJECTS)}
            write_part(self.own("rejects") / part_name(part), pa.table(columns, schema=REJECTS))
        else:  # of a run that was killed before its images were written
            (self.own("rejects") / part_name(part)).unlink(missing_ok=True)

    def reject_parts(self) -> list[int]:
        """Numbers of the parts of rejects there are, ascending."""
        return list_parts(self.path / "rejects")

    def rejects(self, parts: Iterable[int] | None = None) -> list[tuple[str, str | None, str]]:
        """Every refused image, or those of some parts: (id, uri, reason).

        Raises:
            ValueError: a part is broken; names the file.
        """
        folder = self.path / "rejects"
        numbers = self.reject_parts() if parts is None else parts
        tables = [read_part(folder / part_name(p), None, None, self.most, REJECTS) for p in numbers]
        return [(r["id"], r["uri"], r["reason"]) for t in tables for r in t.to_pylist()]


def check_images(store: StoreFolder, given: str) -> None:
    """Refuse a store, called as it was given, without a single image.

    Raises:
        ValueError: it has no images.
    """
    if not store.parts():
        raise ValueError(f"{given} has no images; finish: polyteach ingest SOURCE {given}")
