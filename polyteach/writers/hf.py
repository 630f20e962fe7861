"""Parquet files as Hugging Face's `datasets` reads and writes them, with images in them.

    OUT/data/train-00000-of-00002.parquet       images of no split: train

Columns: image (bytes and path), id (the store's), image_id, width, height; and of objects the struct `objects` of lists
id, bbox (x, y, width, height), category, area, iscrowd and, of pseudo labels, score; of classes `label` and, of pseudo
labels, `probability` (of each class). Class names are in the schema's metadata, as ClassLabel. `--images none` keeps
the images' addresses alone.
"""

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.target import Target
from polyteach.writers import About, LabelWriter, Sample
from polyteach.writers._objects import things

_ROWS, _BYTES, _FILE = 64, 2**26, 2**29
"""Rows, and bytes of images, that are held and then written together; bytes of images of a file, from which on another
one is begun."""
_MASKS = "objects have outlines, which the column of objects has not"
_HEAD = {"image_id": "int64", "width": "int32", "height": "int32"}


class Writer(LabelWriter):
    """Row groups of at most 64 images, in files of about half a gigabyte."""

    tasks: ClassVar[tuple[str, ...]] = ("detection", "classification")
    holds: ClassVar[bool] = True
    unsplit: ClassVar[str] = "train"

    def __init__(self, folder: Path, about: About) -> None:
        super().__init__(folder, about)
        self._schema, self._shards = _schema(about), dict[str, _Shards]()
        if about.task == "classification":
            self.told.read = "parquet:{}"
        if "" in about.splits:
            self.told.notes.append("images of no split are in train")

    def place(self, split: str) -> str:
        return "images"

    def add(self, sample: Sample, target: Target) -> None:
        name = re.sub(r"\W", "_", sample.split or self.unsplit)
        if name not in self._shards:
            self._shards[name] = _Shards(self.folder / "data", name, self._schema, self.files)
        if sample.data is None and sample.uri is None:
            raise ValueError(f"image {sample.id!r} lies in the store alone: give --images copy")
        path = sample.uri if sample.data is None else sample.file.rpartition("/")[2]
        row: dict[str, Any] = {
            "image": {"bytes": sample.data, "path": path}, "id": sample.id, "image_id": sample.number,
            "width": sample.size[1], "height": sample.size[0],
        }  # fmt: skip
        if isinstance(target, DetectionTarget):
            row["objects"] = self._objects(sample, target)
        else:
            assert isinstance(target, ClassificationTarget)
            row["label"] = int(target.probability.argmax())
            if not self.about.people:
                row["probability"] = target.probability.tolist()
        self._shards[name].add(row, len(sample.data or b""))

    def _objects(self, sample: Sample, target: DetectionTarget) -> dict[str, list[Any]]:
        found = list(things(sample, target, self.about, self.told))
        self.told.lost[_MASKS] += sum(thing.mask is not None for thing in found)
        boxes = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in (thing.box for thing in found)]
        out: dict[str, list[Any]] = {
            "id": [thing.place for thing in found],
            "bbox": boxes,
            "category": [thing.category for thing in found],
            "area": [w * h for _, _, w, h in boxes],
            "iscrowd": [thing.ignore for thing in found],
        }
        return out if self.about.people else out | {"score": [thing.score for thing in found]}

    def finish(self) -> None:
        files = {name: shards.close() for name, shards in self._shards.items()}
        splits = "".join(f"  - split: {name}\n    path: data/{name}-*\n" for name in files)
        self.told.head = f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n\n"


class _Shards:
    """The files of one split."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema, files: ExitStack) -> None:
        self._folder, self._name, self._schema, self._files = folder, name, schema, files
        self._rows: list[dict[str, Any]] = []
        self._held = self._written = 0
        self._file: pq.ParquetWriter | None = None
        self._paths: list[Path] = []

    def add(self, row: dict[str, Any], size: int) -> None:
        """One more image, of so many bytes."""
        self._rows.append(row)
        self._held += size
        if len(self._rows) >= _ROWS or self._held >= _BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._file is None:
            self._folder.mkdir(exist_ok=True)
            self._paths.append(self._folder / f"{self._name}-{len(self._paths):05d}.unfinished")
            self._file = self._files.enter_context(pq.ParquetWriter(self._paths[-1], self._schema))
        self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._written += self._held
        self._rows, self._held = [], 0
        if self._written >= _FILE:
            self._end()

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file, self._written = None, 0

    def close(self) -> list[Path]:
        """Give the files the names that say how many they are."""
        self._flush()
        self._end()
        count = len(self._paths)
        return [p.rename(p.parent / f"{p.stem}-of-{count:05d}.parquet") for p in self._paths]


def _schema(about: About) -> pa.Schema:
    """The columns, with what `datasets` writes of them in the metadata."""
    label = {"names": list(about.space.names), "_type": "ClassLabel"}
    kept: list[tuple[str, pa.DataType]] = [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("id", pa.string()),
        *((name, pa.type_for_alias(kind)) for name, kind in _HEAD.items()),
    ]  # fmt: skip
    said: dict[str, Any] = {"image": {"_type": "Image"}, "id": _value("string")}
    said |= {name: _value(kind) for name, kind in _HEAD.items()}
    if about.task == "detection":
        kinds = {"id": "int64", "bbox": "", "category": "int64", "area": "float32", "iscrowd": "bool"}
        kinds |= {} if about.people else {"score": "float32"}
        arrow = {k: pa.type_for_alias(v) if v else pa.list_(pa.float32(), 4) for k, v in kinds.items()}
        kept.append(("objects", pa.struct([(k, pa.list_(v)) for k, v in arrow.items()])))
        four = {"feature": _value("float32"), "length": 4, "_type": "Sequence"}
        inner = {k: four if k == "bbox" else label if k == "category" else _value(v) for k, v in kinds.items()}
        said["objects"] = {k: {"feature": v, "_type": "Sequence"} for k, v in inner.items()}
    else:
        kept.append(("label", pa.int64()))
        said["label"] = label
        if not about.people:
            kept.append(("probability", pa.list_(pa.float32())))
            said["probability"] = {"feature": _value("float32"), "_type": "Sequence"}
    text = json.dumps({"info": {"features": said}}, ensure_ascii=False)
    return pa.schema(kept, metadata={"huggingface": text})


def _value(kind: str) -> dict[str, str]:
    return {"dtype": kind, "_type": "Value"}
