"""The corpus: what strangers may give, each made in a folder of its own, and what must be true of every verb that gets it.

Most cases mix good images with a bad one, and say how many good ones must still be there. `hostile.py` runs them.
"""
# ruff: noqa: E501  # tables of inputs, a line each

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ITEMS = {
    0: "Good input, for comparison",
    1: "Names and links: nothing outside of the folder that was given",
    2: "Uris of a store",
    3: "A bad entry costs itself alone",
    4: "Memory and time",
    5: "Training on what a check would refuse",
    6: "Stores that are broken",
    7: "Texts that are printed",
    8: "Files that a description names",
    9: "Weights, descriptions and settings",
    10: "Annotations of datasets",
}
SECRET = "the-secret-of-another-folder"
PICTURE = b""
"""A PNG; set at the end of this file."""
GOOD = 4
"""Good pictures in a folder, an archive or a list."""
BAD = "bad-one"
"""Id, or file name without its ending, of the bad image."""


@dataclass(frozen=True)
class Run:
    """A verb with one input.

    lines: command lines, one after another, in the folder `work`. may: what may change, relative to it. expect:
    "refused" (the last status is not 0), "clean" (it is 0) or "either". good: what is counted ("images" or "rejects" of a
    store, "labelled" in a label set, "answers" that are printed, "run": a student), where, and how many there must be.
    names: one of these must be told, in what is said or recorded. shows: texts that must be printed. hides: texts that no page may hold. asks: what the server may be asked for. quiet: what goes
    through need not name it. unread: nobody
    reads what it prints. seconds: another limit than the usual one.
    """

    verb: str
    lines: tuple[tuple[str, ...], ...]
    may: tuple[str, ...] = ()
    expect: str = "either"
    good: tuple[str, str, int] | None = None
    names: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    quiet: bool = False
    unread: bool = False
    seconds: float = 0


@dataclass(frozen=True)
class Case:
    """An input. what: in words, for the table. make: writes it below `place.work`."""

    name: str
    item: int
    what: str
    make: Callable[["Place"], Any]
    runs: tuple[Run, ...]


CASES: list[Case] = []


def case(name: str, item: int, what: str, make: Callable[["Place"], Any], *runs: Run) -> None:
    """Add one."""
    assert runs
    CASES.append(Case(name, item, what, make, runs))


# --- where a case lives


@dataclass(frozen=True)
class Place:
    """A case's folder: `work` is where the verb is called and has its input, `around` holds what is nobody's business."""

    root: Path
    seed: Path
    url: str

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def ran(self) -> Path:
        """A file that payloads make."""
        return self.root / "ran"

    @property
    def secret(self) -> Path:
        return self.root / "around" / "secret.txt"

    @property
    def precious(self) -> Path:
        """A folder of somebody's files."""
        return self.root / "around" / "precious"

    def filled(self, text: str) -> str:
        """With the folder's path for {root}, and so on."""
        filled = {"root": self.root, "secret": self.secret, "url": self.url, "host": self.url.removeprefix("http://")}
        for key, value in filled.items():
            text = text.replace("{" + key + "}", str(value))
        return text

    def copy(self, what: str, name: str = "") -> Path:
        """A thing of the seed into `work`."""
        target = self.work / (name or what)
        source = self.seed / what
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        return target


def place(root: Path, seed: Path, url: str) -> Place:
    """Make the folders and what is around."""
    here = Place(root, seed, url)
    for folder in (here.work, root / "home", root / "tmp", here.precious / "sub"):
        folder.mkdir(parents=True)
    here.secret.write_text(f"{SECRET}\nsecond line\nthird line\n")
    for file in ("keep.txt", "sub/keep.txt", "part-00000.parquet"):
        (here.precious / file).write_text(f"somebody's, not to be touched: {file}\n")
    return here


# --- what good input is made of


def _scenes(count: int) -> Any:
    from polyteach.ground.scene import random_scene, render

    return [render(random_scene(i, (40, 48))) for i in range(count)]


def _png(pixels: Any) -> bytes:
    import numpy as np
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).save(out, format="PNG")
    return out.getvalue()


NAMES = ("ball", "box", "cone")
NAMED = ("classification", "detection", "segmentation")
TASKS = ("classification", "depth", "detection", "normals", "segmentation")


def seed(folder: Path) -> None:
    """A small store with every task's labels, a network, an ONNX teacher and results of transfers, made once."""
    import torch

    from polyteach.model.student import Student, save_student
    from polyteach.store import ImageRow, Store
    from polyteach.tasks import load_task
    from polyteach.tasks.contract import Objective, Space

    torch.manual_seed(0)
    folder.mkdir()
    renders = _scenes(8)
    (folder / "pictures").mkdir()
    for i, r in enumerate(renders[:GOOD]):
        (folder / "pictures" / f"{i}.png").write_bytes(_png(r.image))
    store = Store.create(folder / "store", 4)
    spaces = {t: Space(NAMES if t in NAMED else (), load_task(t).kinds[0]) for t in TASKS}
    for part in (0, 1):
        splits = ("train", "train", "val", "test")
        at = range(4 * part, 4 * part + 4)
        store.write_images(part, [ImageRow(f"{i}", 40, 48, _png(renders[i].image), split=splits[i % 4]) for i in at])
        for task, space in spaces.items():
            labels = store.create_set(task, "people", space, {"teacher": "people"})
            labels.write(part, [f"{i}" for i in at], [load_task(task).truth(renders[i], space) for i in at])
    objectives = {t: Objective(t, s) for t, s in spaces.items()}
    save_student(Student("test_resnet", objectives, 8), folder / "run", {"size": [32, 32]})
    _onnx(folder / "teacher.onnx")
    (folder / "teacher.onnx.json").write_text(json.dumps({"task": "classification", "names": list(NAMES)}))
    _transfers(folder / "transfers")


def _onnx(file: Path, **more: Any) -> None:
    """Its logits are the means of the three channels."""
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node(
        more.get("op", "ReduceMean"), ["x"], ["y"], axes=[2, 3], keepdims=0, domain=more.get("domain")
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3])
    graph = helper.make_graph([node, *more.get("nodes", ())], "g", [x], [y], more.get("weights", ()))
    opsets = [helper.make_opsetid("", 13)]
    opsets += [helper.make_opsetid(more["domain"], 1)] if more.get("domain") else []
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)


def _transfers(folder: Path) -> None:
    from tests.test_report import transfer, write

    write(folder, *(transfer(n, "down-classes", parts=("backbone",)) for n in ("scratch", "student")))


def recorded(here: Place, run: Run) -> str:
    """What stores in the folders that may change say of images that were refused or failed."""
    import pyarrow.parquet as pq

    told = []
    for given in run.may:
        for folder in {f.parent for f in (here.work / given).rglob("store.json")}:
            files = [*folder.glob("rejects/part-*.parquet"), *folder.glob("labels/*/*/part-*.parquet")]
            for file in files:
                try:
                    table = pq.read_table(file, use_threads=False)
                except Exception:  # of broken ones nothing is recorded
                    continue
                kept = [c for c in ("id", "uri", "reason") if c in table.column_names]
                for row in table.select(kept).to_pylist():
                    if row.get("reason"):
                        told.append(" ".join(str(v) for v in row.values()))
    return "\n".join(told)


def counted(here: Place, run: Run, said: str) -> int:
    """How many of the good ones are there; read without polyteach."""
    import pyarrow.parquet as pq

    assert run.good is not None
    kind, where, _ = run.good
    folder = here.work / where
    if kind == "run":
        return int((folder / "student.json").is_file())
    if kind == "file":
        return int(folder.is_file())
    if kind == "answers":
        return sum('"answers"' in line for line in said.splitlines())
    count = 0
    for file in folder.glob("images/part-*.parquet" if kind == "images" else "part-*.parquet"):
        column = pq.ParquetFile(file).read(["id" if kind == "images" else "state"], use_threads=False).column(0)
        count += len(column) if kind == "images" else column.to_pylist().count("labelled")
    return count


# --- command lines

_SCRIPT = "<script>alert(1)</script>"

_QUICK = ("--device", "cpu", "--no-progress")
_SMALL = (
    "--backbone",
    "test_resnet",
    "--channels",
    "8",
    "--size",
    "32",
    "--batch-size",
    "4",
    "--workers",
    "0",
    *_QUICK,
)
_SET = "store/labels/classification/x"
_TRAIN = ("train", "store", "--out", "out", "--steps", "2", "--save-every", "2", *_SMALL)
_PRETRAIN = ("pretrain", "store", "--out", "out", "--steps", "2", "--save-every", "2", *_SMALL)
_TRANSFER = (
    "transfer", "store", "--out", "out", "--task", "classification", "--train-split", "train", "--validation-split",
    "val", "--test-split", "test", "--metric", "top-1", "--lrs", "0.01", "--steps", "1", "--seeds", "0", "--resamples",
    "10", "--examples", "1", *_SMALL,
)  # fmt: skip


def ingest(source: str, good: int = GOOD, *more: str, **about: Any) -> Run:
    """Into a store `out`, of which so many images must be."""
    words = ("ingest", source, "out", *more)
    kind, colon, _ = source.partition(":")
    return Run(
        f"ingest {kind}:" if colon else "ingest",
        (words,),
        ("out",),
        good=("images", "out", good) if good else None,
        **about,
    )


def label(good: int = 7, teacher: str = "onnx:teacher.onnx", *more: str, **about: Any) -> Run:
    """A store `store` by the ONNX teacher."""
    words = ("label", "store", "--teacher", f"x={teacher}", *_QUICK, *more)
    return Run("label", (words,), ("store",), good=("labelled", _SET, good) if good else None, **about)


def train(good: int = 0, **about: Any) -> Run:
    """On `store`. good: 1 where there must be a student at the end."""
    return Run("train", (_TRAIN,), ("out", "store"), good=("run", "out", 1) if good else None, **about)


def pretrain(good: int = 0, **about: Any) -> Run:
    return Run("pretrain", (_PRETRAIN,), ("out", "store"), good=("run", "out", 1) if good else None, **about)


def transfer(good: int = 0, **about: Any) -> Run:
    found = ("file", "out/transfer.json", 1) if good else None
    return Run("transfer", (_TRANSFER,), ("out", "store"), good=found, **about)


def predict(good: int = GOOD, **about: Any) -> Run:
    """By `run`, of the folder `pictures`."""
    words = ("predict", "run", "pictures", "--out", "out", "--json", *_QUICK)
    return Run("predict", (words,), ("out",), good=("answers", "", good) if good else None, **about)


def report(good: int = 0, **about: Any) -> Run:
    words = ("report", "transfers", "--out", "out")
    found = ("file", "out/report.html", 1) if good else None
    return Run("report", (words,), ("out",), good=found, hides=(_SCRIPT,), **about)


def store(verb: str, *more: str, **about: Any) -> Run:
    """A verb of `polyteach store`; check must change nothing at all."""
    bar = ("--no-progress",) if verb in ("check", "repair", "split", "merge") else ()
    first = ("all", "store", "good") if verb == "merge" else ("store",)
    may = {"check": (), "merge": ("all", "store", "good")}.get(verb, ("store",))
    name = f"store {verb}" + (" --deep" if "--deep" in more else "")
    return Run(name, (("store", verb, *first, *more, *bar),), may, **about)


def check(*more: str, **about: Any) -> Run:
    return store("check", *more, **({"expect": "refused"} | about))


def mended(**about: Any) -> Run:
    """What repair leaves must be whole for check."""
    lines = (("store", "repair", "store", "--no-progress"), ("store", "check", "store", "--no-progress"))
    return Run("store repair, check", lines, ("store",), **({"expect": "clean"} | about))


FRACTIONS = ("--fractions", "train=0.5", "test=0.5", "--overwrite")

# --- how a store is made a bad one


def images(here: Place, change: Callable[[list[dict[str, Any]]], Any], part: int = 0, **types: Any) -> None:
    """Write an image part anew. change: of its rows, in place. types: of columns, others than the usual ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = here.work / "store" / "images" / f"part-{part:05d}.parquet"
    table = pq.read_table(file, use_threads=False)
    rows = table.to_pylist()
    change(rows)
    fields = [pa.field(f.name, types.get(f.name, f.type)) for f in table.schema if types.get(f.name, 0) is not None]
    rows = [{f.name: row.get(f.name) for f in fields} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), file, row_group_size=64)


def bad_row(here: Place, **values: Any) -> None:
    """The store, of which image 3 is now called `BAD` and has other values; its labels follow."""
    from polyteach.store import Store

    opened = Store.open(here.copy("store"))
    kept = [(labels, labels.read(0)) for labels in opened.sets()]
    images(here, lambda rows: rows[3].update({"id": BAD} | values))
    for labels, found in kept:
        labels.write(0, ["0", "1", "2", BAD], found)


def with_uri(uri: str | None) -> Callable[[Place], None]:
    """The store, whose bad image lies at a uri. {root} and {url} are filled in."""

    def make(here: Place) -> None:
        here.copy("teacher.onnx")
        here.copy("teacher.onnx.json")
        (here.work / "one.png").write_bytes(PICTURE)
        os.mkfifo(here.work / "fifo")
        bad_row(here, bytes=None, uri=None if uri is None else here.filled(uri))

    return make


def answers(task: str, change: Callable[[dict[str, Any]], Any], row: int = 3, part: int = 0) -> Callable[[Place], None]:
    """The store, of which one encoded answer is changed."""

    def make(here: Place) -> None:
        from polyteach.store import LabelSet, Store

        here.copy("store")
        labels = LabelSet(Store.open(here.work / "store"), task, "people")
        rows = [labels.encode(a) for a in labels.read(part)]
        change(rows[row])
        labels.write_encoded(part, labels.ids(part), rows)

    return make


def broken(path: str, change: Callable[[Any], Any]) -> Callable[[Place], None]:
    """The store, of which a JSON file says something else. change: of its content, or what is written instead."""

    def make(here: Place) -> None:
        here.copy("store")
        file = here.work / "store" / path
        content = json.loads(file.read_text()) if file.exists() else {}
        found = change(content)
        content = content if found is None else found
        file.write_text(content if isinstance(content, str) else json.dumps(content))

    return make


def deep(how: str = "[", depth: int = 200_000) -> str:
    """JSON or YAML in so many levels."""
    return '{"a":' * depth + "1" + "}" * depth if how == "{" else "[" * depth + "]" * depth


# --- how pictures are made bad ones


def pictures(here: Place) -> Path:
    """The folder of good ones."""
    return here.copy("pictures")


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(count: int) -> bytes:
    """A zlib stream of so many zero bytes, made at once: compressed blocks do not know of each other."""
    block = bytes(1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(block)
    packer.flush(zlib.Z_FULL_FLUSH)
    one = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(count % len(block))) + packer.flush()
    total = 1 | (count % 65521) << 16  # Adler's checksum: of zeros the one half counts them
    return b"\x78\xda" + one * (count // len(block)) + rest + struct.pack(">I", total)


def png(
    width: int, height: int, data: bytes | None = None, bits: int = 8, colour: int = 0, extra: bytes = b""
) -> bytes:
    """One that claims a size. data: of its pixels, compressed; a few rows without."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(bytes(1000)) if data is None else data
    parts = [chunk(b"IHDR", head), extra, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def black(side: int, bits: int = 8) -> bytes:
    """A whole PNG of so many pixels a side, all 0."""
    return png(side, side, zeros(side * (side * bits // 8 + 1)), bits)


def webp(width: int, height: int) -> bytes:
    """A lossless WebP of one colour, in some thirty bytes, whatever its size."""
    bits = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (0, 1), (0, 3), (0, 1), (0, 1), (0, 1)]
    bits += [b for _ in range(5) for b in ((1, 1), (0, 1), (0, 1), (0, 1))]  # codes of one symbol, 0, take no bits
    value = at = 0
    for number, width_ in bits:
        value |= number << at
        at += width_
    data = value.to_bytes((at + 7) // 8 + 8, "little")
    data += b"\0" * (len(data) % 2)
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(width: int, height: int) -> bytes:
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + image + b"\x3b"


def jpeg(width: int, height: int) -> bytes:
    """A small one whose header claims another size."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG")
    data = bytearray(out.getvalue())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff(width: int, height: int, **tags: int) -> bytes:
    """An uncompressed one whose only strip is elsewhere than it says."""
    entries = {
        256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: height, 279: width * height % 2**32,
    } | {int(k[1:]): v for k, v in tags.items()}  # fmt: skip
    body = b"".join(struct.pack("<HHII", k, 4, 1, v) for k, v in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(500)


def bmp(width: int, height: int) -> bytes:
    """Run-length encoded: two bytes for 255 pixels."""
    body = b"\xff\x00" * 1000 + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(body), 0, 0, 54 + 1024) + head + bytes(1024) + body


def frames(count: int) -> bytes:
    """An animated GIF of so many frames of 2,000 x 2,000."""
    one = b"\x2c" + struct.pack("<HHHHB", 0, 0, 2000, 2000, 0) + b"\x02\x02\x4c\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 2000, 2000, 0x80, 0, 0) + bytes(6) + one * count + b"\x3b"


def bad_picture(data: bytes | Callable[[], bytes], name: str = f"{BAD}.png") -> Callable[[Place], None]:
    """A folder of good pictures and one bad file; a run and a store beside it."""

    def make(here: Place) -> None:
        (pictures(here) / name).write_bytes(data() if callable(data) else data)
        here.copy("run")

    return make


def bad_entry(make_bad: Callable[[Path, Place], Any]) -> Callable[[Place], None]:
    """A folder of good pictures and something that is no file. make_bad: at a path."""

    def make(here: Place) -> None:
        make_bad(pictures(here) / f"{BAD}.png", here)
        here.copy("run")

    return make


# --- archives


def _member(name: str, data: bytes = b"", **about: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in about.items():
        setattr(info, key, value)
    return info, data


def archive(*bad: tuple[tarfile.TarInfo, bytes], raw: bytes = b"", name: str = "a.tar") -> Callable[[Place], None]:
    """Good pictures, then bad members; or, raw, blocks as they are. For `tar:` and, with their classes, `webdataset:`."""

    def make(here: Place) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for i in range(GOOD):
                data = (here.seed / "pictures" / f"{i}.png").read_bytes()
                for info, content in (_member(f"{i}.png", data), _member(f"{i}.cls", b"0")):
                    tar.addfile(info, io.BytesIO(content))
            for info, content in bad:
                tar.addfile(info, io.BytesIO(content) if content else None)
            end = tar.offset
        data = out.getvalue()[:end] + raw + bytes(1024)
        (here.work / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)

    return make


def sparse_member(size: int) -> bytes:
    """An old GNU sparse member of which 512 bytes are there."""
    head = bytearray(tarfile.TarInfo(f"{BAD}.png").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"%011o\0" % 512
    head[156:157] = b"S"
    head[386:410] = b"%011o\0%011o\0" % (0, 512)
    head[483:495] = b"%011o\0" % size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + PICTURE[:512].ljust(512, b"\0")


def pax_sparse(size: int) -> tuple[tarfile.TarInfo, bytes]:
    headers = {"GNU.sparse.map": "0,512", "GNU.sparse.size": str(size), "GNU.sparse.name": f"{BAD}.png"}
    return _member(f"{BAD}.png", bytes(512), pax_headers=headers)


def header(name: str, size: int, kind: bytes) -> bytes:
    """Of a member that says it has so many bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def compressed(name: str, head: bytes, size: int) -> Callable[[Place], None]:
    """A header and then `size` zero bytes, compressed by the name's ending; made of copies of one piece."""

    def make(here: Place) -> None:
        quick = partial(lzma.compress, preset=0)
        pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": quick}[name.rpartition(".")[2]]
        piece = 16 << 20
        (here.work / name).write_bytes(pack(head) + pack(bytes(piece)) * (size // piece) + pack(bytes(1024)))

    return make


# --- pickles and weights


class Payload:
    """Unpickled, it makes the file that nothing else makes."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self) -> Any:
        return exec, (f"open({self.file!r}, 'w').close()",)


def pickled(name: str, how: str = "pickle") -> Callable[[Place], None]:
    """A payload in a weights file. how: a plain pickle, torch's zip, a tar as torch once wrote."""

    def make(here: Place) -> None:
        import torch

        here.copy("store")
        here.copy("run")
        pictures(here)
        file = here.work / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if how == "torch":
            torch.save({"weight": torch.zeros(2), "evil": Payload(here.ran)}, file)
            return
        data = pickle.dumps({"evil": Payload(here.ran)}, 2)
        if how == "tar":
            with tarfile.open(file, "w") as tar:
                for part in ("storages", "tensors", "pickle"):
                    info, content = _member(part, data)
                    tar.addfile(info, io.BytesIO(content))
            return
        file.write_bytes(data)

    return make


def weights(change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    """A run whose safetensors are other bytes."""

    def make(here: Place) -> None:
        here.copy("store")
        here.copy("run")
        pictures(here)
        file = here.work / "run" / "student.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return make


def safetensors(head: Any, data: bytes = b"") -> bytes:
    """With a header as it is given."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def student(change: Callable[[dict[str, Any]], Any]) -> Callable[[Place], None]:
    """A run whose student.json says something else; or is the text that `change` gives."""

    def make(here: Place) -> None:
        here.copy("store")
        here.copy("run")
        pictures(here)
        file = here.work / "run" / "student.json"
        about = json.loads(file.read_text())
        found = change(about)
        about = about if found is None else found
        file.write_text(about if isinstance(about, str) else json.dumps(about))

    return make


def objective(name: str) -> Callable[[Place], None]:
    """A run that calls its first objective something else, in its weights too."""

    def make(here: Place) -> None:
        from safetensors.torch import load_file, save_file

        filled = here.filled(name)

        def change(about: dict[str, Any]) -> None:
            about["objectives"][filled] = about["objectives"].pop("classification")

        student(change)(here)
        file = here.work / "run" / "student.safetensors"
        old, new = "heads.classification.", f"heads.{filled.replace('.', '-')}."
        with suppress(ValueError):  # of a lone surrogate; the name itself is what is looked at
            save_file({k.replace(old, new): v for k, v in load_file(file).items()}, file)

    return make


def teacher(about: Any, yaml: bool = False, **more: Any) -> Callable[[Place], None]:
    """A store and an ONNX teacher with another description: a dictionary's changes, or a text."""

    def make(here: Place) -> None:
        here.copy("store")
        _onnx(here.work / "teacher.onnx", **more)
        text = about if isinstance(about, str) else json.dumps({"task": "classification", "names": list(NAMES)} | about)
        (here.work / f"teacher.onnx.{'yaml' if yaml else 'json'}").write_text(here.filled(text))

    return make


# --- 0: good input


def _good(here: Place) -> None:
    for what in ("store", "run", "transfers", "teacher.onnx", "teacher.onnx.json"):
        here.copy(what)
    here.copy("store", "good")
    pictures(here)


def _good_archive(here: Place) -> None:
    archive()(here)


case("good", 0, "a store, a run, pictures", _good,
     ingest("pictures", expect="clean"), label(8, expect="clean"), train(1, expect="clean"),
     pretrain(1, expect="clean"), transfer(1, expect="clean"), predict(expect="clean"), report(1, expect="clean"),
     check(expect="clean"), check("--deep", expect="clean"), store("info", expect="clean", shows=("8 images",)),
     store("split", *FRACTIONS, expect="clean"), store("merge", expect="clean"),
     store("drop-labels", "depth/people", "--yes", expect="clean"), store("repair", expect="clean"),
     mended())  # fmt: skip
case("good archive", 0, "a tar, and the same as WebDataset", _good_archive,
     ingest("a.tar", expect="clean"), ingest("webdataset:a.tar", expect="clean"))  # fmt: skip

# --- 1: names and links

_NAMES = {
    "up": "/../../../escaped/pwn",
    "up 2": "../../escaped",
    "absolute": "{root}/escaped",
    "slash": "a/b",
    "dots": "..",
    "empty": "",
    "nul": "a\0b",
    "newline": "a\nb",
    "ansi": "\x1b[31mred\x1b[0m",
    "long": "n" * 5000,
    "hidden": ".hidden",
    "surrogate": "\ud800",
    "right to left": "\u202egnp.exe",
}
for _k, _name in _NAMES.items():
    _spared = {
        "up": "a path upwards",
        "up 2": "a path upwards, without a slash before it",
        "absolute": "an absolute path",
    }
    _what = f"a run with an objective named {_spared.get(_k, repr(_name[:20]))}"
    case(f"objective {_k}", 1, _what, objective(_name), predict(0, names=("student.json",), expect="refused"))
for _k in ("up", "nul", "long"):
    case(f"objective of a teacher {_k}", 1, f"the same run as a teacher ({_k})", objective(_NAMES[_k]),
         label(0, "own:run", names=("student.json",), expect="refused"))  # fmt: skip


def _linked(what: str, target: str = "") -> Callable[[Place], None]:
    """A store of which a folder is a link to one of somebody else."""

    def make(here: Place) -> None:
        _good(here)
        path = here.work / "store" / what
        if not target:  # what was there, elsewhere
            outside = here.root / "around" / "elsewhere"
            if path.exists():
                path.rename(outside)
            else:
                outside.mkdir()
            (outside / "somebody.txt").write_text("somebody's")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(outside)
            return
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(here.filled(target))

    return make


def _linked_and_broken(here: Place) -> None:
    _linked("broken", "{root}/around/precious")(here)
    _cut(here, "store/labels/depth/people/part-00000.parquet")


def _linked_deeper(here: Place) -> None:
    _good(here)
    (here.work / "store" / "broken").mkdir()
    (here.work / "store" / "broken" / "labels").symlink_to(here.precious)
    _cut(here, "store/labels/depth/people/part-00000.parquet")


def _cut(here: Place, file: str) -> None:
    path = here.work / file
    path.write_bytes(path.read_bytes()[:-20])


_DROP = store("drop-labels", "classification/people", "--yes")
case("task folder is a link", 1, "labels/classification is a link to another folder",
     _linked("labels/classification"), _DROP, label(0), store("repair"), train(), store("merge"))  # fmt: skip
case("set folder is a link", 1, "labels/classification/people is a link to another folder",
     _linked("labels/classification/people"), _DROP, store("repair"), check(expect="either"))  # fmt: skip
case("labels is a link", 1, "labels is a link to another folder", _linked("labels"), label(0), _DROP)
case("images is a link", 1, "images is a link to another folder", _linked("images"),
     store("split", *FRACTIONS), store("info"), train())  # fmt: skip
case("rejects is a link", 1, "rejects is a link to somebody's folder", _linked("rejects", "{root}/around/precious"),
     store("info"), label(0))  # fmt: skip
case("broken is a link", 1, "broken is a link to somebody's folder, and a part is cut", _linked_and_broken,
     store("repair"))  # fmt: skip
case("a folder of broken is a link", 1, "broken/labels is a link to somebody's folder, and a part is cut",
     _linked_deeper, store("repair"))  # fmt: skip


def _swept(here: Place) -> None:
    """A temporary file of a dead process of this machine, in a folder that is not the store's."""
    from polyteach.ground.files import _OWNER

    _linked("images")(here)
    (here.root / "around" / "elsewhere" / f".x.{_OWNER}.999999.abcdef01.tmp").write_text("somebody's")


case("a link to leftovers", 1, "images is a link to a folder with a temporary file", _swept, store("info"))
case("store.json is a link", 1, "store.json is a link to a secret", _linked("store.json", "{secret}"),
     store("info", expect="refused"), check())  # fmt: skip
case("set.json is a link", 1, "a set.json is a link to a secret",
     _linked("labels/depth/people/set.json", "{secret}"), store("info"), check(), label(0))  # fmt: skip
case("part is a link", 1, "a part is a link to a file of another folder",
     _linked("labels/depth/people/part-00000.parquet", "{root}/around/precious/part-00000.parquet"),
     check(names=("part-00000",)), store("repair"), train(names=("part-00000",)))  # fmt: skip
case("overview is a link", 1, "_overview.parquet is a link to somebody's file",
     _linked("images/_overview.parquet", "{root}/around/precious/keep.txt"), train(), store("info"))  # fmt: skip
case("part is a fifo", 1, "a part is a named pipe",
     lambda here: (_good(here), (here.work / "store/images/part-00001.parquet").unlink(),
                   os.mkfifo(here.work / "store/images/part-00001.parquet")),
     check(names=("part-00001",)), store("info"), train())  # fmt: skip
case("store.json is a fifo", 1, "store.json is a named pipe",
     lambda here: (_good(here), (here.work / "store/store.json").unlink(), os.mkfifo(here.work / "store/store.json")),
     store("info", expect="refused"))  # fmt: skip


def _checkpoints(here: Place) -> None:
    _good(here)
    (here.work / "out").mkdir()
    (here.precious / ".x.tmp").mkdir()
    (here.precious / "step-000000001").mkdir()
    (here.work / "out" / "checkpoints").symlink_to(here.precious)


case(
    "checkpoints is a link", 1, "checkpoints of an unfinished run is a link to somebody's folder", _checkpoints, train()
)
case("student.json is a link", 1, "a run's student.json is a link to a secret",
     lambda here: (_good(here), (here.work / "run/student.json").unlink(),
                   (here.work / "run/student.json").symlink_to(here.secret)), predict(0, expect="refused"))  # fmt: skip


def _task_folder(name: str) -> Callable[[Place], None]:
    def make(here: Place) -> None:
        _good(here)
        shutil.copytree(here.work / "store/labels/depth", here.work / "store/labels" / name)

    return make


for _name in ("contract", "__init__", "os", "unknown", "de pth", "[red]"):
    case(f"task {_name}", 1, f"labels of a task that is none: {_name!r}", _task_folder(_name),
         store("info"), check(names=(_name,)), train(), label(0))  # fmt: skip
for _name in ("contract", "../../x", "os.path", "", 5, None):
    case(f"objective's task {_name}", 1, f"a run with an objective of the task {_name!r}",
         student(lambda about, name=_name: about["objectives"]["depth"].update(task=name)),
         predict(0, expect="refused", names=("student.json",)))  # fmt: skip


def _transfer_json(change: Callable[[dict[str, Any]], Any], number: str = "001") -> Callable[[Place], None]:
    def make(here: Place) -> None:
        here.copy("transfers")
        file = here.work / "transfers" / number / "transfer.json"
        about = json.loads(file.read_text())
        found = change(about)
        about = about if found is None else found
        file.write_text(here.filled(about if isinstance(about, str) else json.dumps(about)))
        shutil.copy(here.seed / "pictures" / "0.png", here.root / "around" / "private.png")

    return make


for _k, _change in {
    "name": lambda t: t["representation"].update(name=_SCRIPT),
    "task": lambda t: t["downstream"].update(name=_SCRIPT),
    "objective": lambda t: t["downstream"].update(objective=_SCRIPT),
    "command": lambda t: t.update(command=_SCRIPT),
    "machine": lambda t: t.update(machine={"processor": _SCRIPT}),
}.items():
    case(f"script in {_k}", 1, f"a transfer.json with a script as its {_k}", _transfer_json(_change), report())
for _k, _examples in {
    "up": ["../../../around/private.png"],
    "absolute": ["{root}/around/private.png"],
    "secret": ["../../../around/secret.txt"],
    "number": [5],
    "nul": ["a\0b.png"],
    "fifo": ["/dev/zero"],
}.items():
    case(f"examples {_k}", 8, f"a transfer.json with an example {_examples[0]!r}",
         _transfer_json(lambda t, examples=_examples: t.update(examples=examples)), report())  # fmt: skip

# --- 2: uris

_URIS = {
    "http": "{url}/one.png",
    "redirect": "{url}/redirect",
    "endless": "{url}/endless",
    "slow": "{url}/slow",
    "HTTP": "HTTP://{host}/one.png",
    "reference": "reference://x::{url}/one.png",
    "simplecache": "simplecache::{url}/one.png",
    "filecache": "filecache::{url}/one.png",
    "blockcache": "blockcache::{url}/one.png",
    "zip": "zip://one.png::{url}/a.zip",
    "tar": "tar://one.png::{url}/a.tar",
    "dir": "dir://x::{url}/one.png",
    "user": "http://user:word@{host}/one.png",
    "file fifo": "file://{root}/work/fifo",
    "local fifo": "local://{root}/work/fifo",
    "fifo": "{root}/work/fifo",
    "file zero": "file:///dev/zero",
    "zero": "/dev/zero",
    "tty": "/dev/tty",
    "stdin": "/dev/stdin",
    "file folder": "file://{root}/work",
    "folder": "{root}/work",
    "file missing": "file://{root}/work/none.png",
    "missing": "{root}/work/none.png",
    "file secret": "file://{secret}",
    "secret": "{secret}",
    "environment": "/proc/self/environ",
    "memory of the process": "/proc/self/mem",
    "unknown protocol": "nosuch://x/one.png",
    "uninstalled protocol": "adl://x/one.png",
    "memory": "memory://one.png",
    "ftp": "ftp://127.0.0.1:1/one.png",
    "sftp": "sftp://127.0.0.1:1/one.png",
    "github": "github://a:b@c/one.png",
    "git": "git://{root}/one.png",
    "data": "data:image/png;base64,AAAA",
    "data protocol": "data://image/png;base64,AAAA",
    "arrow": "hdfs://127.0.0.1:1/one.png",
    "smb": "smb://127.0.0.1:1/one.png",
    "nul": "a\0b.png",
    "nul in file": "file:///a\0b.png",
    "nul in http": "{url}/a\0b",
    "newline": "a\nb.png",
    "newline in http": "{url}/a\r\nX: y",
    "bad address": "http://[::1/one.png",
    "empty": "",
    "no path": "http://",
    "colons": "::::",
    "long": "/" + "n" * 5000,
    "long file": "file:///" + "n" * 5000,
    "glob": "file://{root}/work/*.png",
    "relative": "../around/secret.txt",
    "home": "~/x.png",
    "surrogate": "file:///\\udc80",
    "ansi": "/\x1b[31mx.png",
    "markup": "/[/red].png",
    "null": None,
}
for _k, _uri in _URIS.items():
    _runs = [label(7, names=(BAD,))]
    if _k in ("http", "unknown protocol", "nul", "file fifo", "bad address", "null"):
        _runs += [check("--deep", names=(BAD,)), train(names=(BAD,), seconds=12, quiet=True)]
    if _k in ("http", "nul", "file zero"):
        _runs += [pretrain(names=(BAD,), quiet=True), transfer(names=(BAD,), quiet=True)]
    case(f"uri {_k}", 2, f"a store with an image at {(_uri or 'no place at all')[:60]!r}", with_uri(_uri), *_runs)


for _k, _uri, _allowed, _asks, _seconds in (
    ("it", "{url}/one.png", "{url}/", ("one.png",), 0),
    ("it, endless", "{url}/endless", "{url}/", ("endless",), 0),
    ("it, slow", "{url}/slow", "{url}/", ("slow",), 100),
    ("it, redirect", "{url}/redirect", "{url}/redirect", ("redirect",), 0),
    ("another folder", "{url}/b/one.png", "{url}/a/", (), 0),
    ("upwards", "{url}/a/../one.png", "{url}/a/", (), 0),
    ("https", "{url}/one.png", "https", (), 0),
    ("http", "{url}/one.png", "http", (), 0),
    ("http, chained", "simplecache::{url}/one.png", "http", (), 0),
):  # fmt: skip
    case(f"uri allowed {_k}", 2, f"the store of {_uri} where --allow-remote {_allowed} is given", with_uri(_uri),
         label(8 if _k == "it" else 7, "onnx:teacher.onnx", "--allow-remote", _allowed, asks=_asks,
               names=() if _k == "it" else (BAD,), seconds=_seconds))  # fmt: skip


def _rows(values: Sequence[Any], key: str = "path") -> Callable[[Place], None]:
    """A Parquet file of pictures, Hugging Face's way, of which the last has no bytes and a path."""

    def make(here: Place) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        good = [(here.seed / "pictures" / f"{i}.png").read_bytes() for i in range(GOOD)]
        os.mkfifo(here.work / "fifo")
        (here.root / "around" / "private.png").write_bytes(PICTURE)
        rows = [{"bytes": b, "path": f"{i}.png"} for i, b in enumerate(good)]
        rows += [{"bytes": None, "path": here.filled(v)} for v in values]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        pq.write_table(pa.table({"image": pa.array(rows, kind), "label": [0] * len(rows)}), here.work / "p.parquet")

    return make


for _k in (
    "http",
    "simplecache",
    "file fifo",
    "fifo",
    "file zero",
    "zero",
    "unknown protocol",
    "nul",
    "bad address",
    "long",
):
    case(f"parquet path {_k}", 2, f"a Parquet dataset whose row lies at {str(_URIS[_k])[:60]!r}", _rows([str(_URIS[_k])]),
         ingest("p.parquet", 4, "--skip-bad"))  # fmt: skip
case("parquet path up", 8, "a Parquet dataset whose row lies at '../around/private.png'",
     _rows(["../around/private.png"]), ingest("p.parquet", 4, "--skip-bad"))  # fmt: skip


def _list(line: bytes) -> Callable[[Place], None]:
    def make(here: Place) -> None:
        folder = pictures(here)
        os.mkfifo(here.work / "fifo")
        (folder / "loop.png").symlink_to("loop.png")
        good = "".join(f"pictures/{i}.png\n" for i in range(GOOD)).encode()
        (here.work / "list.txt").write_bytes(good + here.filled(line.decode("latin-1")).encode("latin-1") + b"\n")

    return make


for _k, _line in {
    "http": b"{url}/one.png", "simplecache": b"simplecache::{url}/one.png", "fifo": b"fifo", "zero": b"/dev/zero",
    "file zero": b"file:///dev/zero", "file fifo": b"file://{root}/work/fifo", "unknown": b"nosuch://one.png",
    "loop": b"pictures/loop.png", "nul": b"a\0b.png", "long": b"n" * 5000, "ansi": b"\x1b[31m.png", "latin": b"\xe9.png",
    "folder": b"pictures", "address": b"http://[::1/", "markup": b"[/red].png", "carriage return": b"a\rb.png",
}.items():  # fmt: skip
    case(f"list {_k}", 2 if b"://" in _line else 3, f"a list with the line {_line[:40]!r}", _list(_line),
         ingest("list.txt", 0 if _k == "nul" else GOOD))  # fmt: skip

# --- 3: entries


def _socket(path: Path, here: Place) -> None:
    old = os.getcwd()
    os.chdir(path.parent)  # a socket's name has at most 107 characters
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(old)


def _sparse(path: Path, here: Place) -> None:
    with open(path, "wb") as file:
        file.truncate(8 << 40)


_ENTRIES: dict[str, tuple[str, Callable[[Path, Place], Any]]] = {
    "self link": ("a picture that is a link to itself", lambda p, h: p.symlink_to(p.name)),
    "dangling": ("a link to nothing", lambda p, h: p.symlink_to("nothing")),
    "fifo": ("a named pipe called .png", lambda p, h: os.mkfifo(p)),
    "zero": ("a link to /dev/zero", lambda p, h: p.symlink_to("/dev/zero")),
    "socket": ("a socket called .png", _socket),
    "folder": ("a folder called .png", lambda p, h: p.mkdir()),
    "circle": ("a folder that holds itself", lambda p, h: (p.parent / "a").symlink_to(".")),
    "sparse": ("a sparse file of 8 TB", _sparse),
    "empty": ("an empty file", lambda p, h: p.touch()),
    "text": ("a text", lambda p, h: p.write_text("no picture")),
    "html": ("a page", lambda p, h: p.write_text(_SCRIPT)),
    "svg": ("an SVG with a script", lambda p, h: p.write_text(f"<svg xmlns='http://www.w3.org/2000/svg'>{_SCRIPT}</svg>")),
    "zip": ("a zip", lambda p, h: zipfile.ZipFile(p, "w").writestr("a", "b")),
    "pickle": ("a pickle with a payload", lambda p, h: p.write_bytes(pickle.dumps(Payload(h.ran)))),
    "postscript": ("PostScript", lambda p, h: p.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%ls) run")),
    "newline": ("a name with a new line and ANSI", lambda p, h: shutil.copy(p.parent / "0.png", p.parent / "a\n\x1b[31mb.png")),
    "no utf-8": ("a name that is no UTF-8", lambda p, h: shutil.copy(
        os.fsencode(p.parent / "0.png"), os.fsencode(p.parent) + b"/\xff.png")),
    "markup": ("a name that is markup", lambda p, h: shutil.copy(p.parent / "0.png", p.parent / "[bold]x[red].png")),
    "option": ("a name that is an option", lambda p, h: shutil.copy(p.parent / "0.png", p.parent / "--help.png")),
}  # fmt: skip
for _k, (_what, _make) in _ENTRIES.items():
    case(f"folder with {_k}", 3, f"a folder with {_what}", bad_entry(_make), ingest("pictures"), predict())

# --- 3 and 4: archives

_LINKS = {
    "self link": _member(f"{BAD}.png", type=tarfile.LNKTYPE, linkname=f"{BAD}.png"),
    "self symlink": _member(f"{BAD}.png", type=tarfile.SYMTYPE, linkname=f"{BAD}.png"),
    "link outside": _member(f"{BAD}.png", type=tarfile.SYMTYPE, linkname="../../around/secret.txt"),
    "absolute link": _member(f"{BAD}.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link outside": _member(f"{BAD}.png", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "device": _member(f"{BAD}.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "fifo": _member(f"{BAD}.png", type=tarfile.FIFOTYPE),
    "folder": _member(f"{BAD}.png", type=tarfile.DIRTYPE),
    "odd type": _member(f"{BAD}.png", b"x" * 10, type=b"9"),
    "absolute name": _member("/escaped.png", b"no picture"),
    "name upwards": _member("../../escaped.png", b"no picture"),
    "name with nul": _member("a\0b.png", b"no picture"),
    "name with ansi": _member("\x1b[31ma.png", b"no picture"),
    "long name": _member("n" * 5000 + ".png", b"no picture"),
    "surrogate name": _member("\udcff.png", b"no picture"),
    "empty member": _member(f"{BAD}.png"),
    "text": _member(f"{BAD}.png", b"no picture"),
}
for _k, _bad in _LINKS.items():
    case(f"tar {_k}", 3, f"a tar with a member: {_k}", archive(_bad),
         ingest("a.tar"), ingest("webdataset:a.tar", GOOD, "--skip-bad"))  # fmt: skip


def _circle(here: Place) -> None:
    archive(_member(f"{BAD}.png", type=tarfile.SYMTYPE, linkname="b.png"),
            _member("b.png", type=tarfile.SYMTYPE, linkname=f"{BAD}.png"))(here)  # fmt: skip


case("tar circle", 3, "a tar with two links to each other", _circle, ingest("a.tar"))
case("tar sparse", 4, "a tar of 10 KB with a sparse member of 8 GB", archive(raw=sparse_member(8 * (1 << 30) - 1)),
     ingest("a.tar"), ingest("webdataset:a.tar"))  # fmt: skip
case("tar pax sparse", 4, "the same by PAX headers", archive(pax_sparse(1 << 33)), ingest("a.tar"))
case("tar negative", 4, "a tar member of a negative size",
     archive(raw=bytearray(header(f"{BAD}.png", 0, b"0")).replace(b"00000000000\0", b"-0000000777\0", 1)),
     ingest("a.tar", 0))  # fmt: skip
case("tar too large", 4, "a tar member that says it has 8 GB", archive(raw=header(f"{BAD}.png", (1 << 33) - 1, b"0")),
     ingest("a.tar", 0, names=("a.tar",)), ingest("webdataset:a.tar", 0, names=("a.tar",)))  # fmt: skip
case("tar cut", 4, "a tar that is cut short",
     lambda here: (archive()(here), _cut(here, "a.tar"), os.truncate(here.work / "a.tar", 3000)),
     ingest("a.tar", 0, expect="refused", names=("a.tar",)),
     ingest("webdataset:a.tar", 0, expect="refused", names=("a.tar",)))  # fmt: skip
case("tar pax bomb", 4, "a tar with 20,000 PAX headers",
     archive(_member(f"{BAD}.png", b"x", pax_headers={f"k{i}": "v" * 50 for i in range(20_000)})),
     ingest("a.tar", 0, expect="refused", names=("a.tar",)))  # fmt: skip
case("tar pax odd", 4, "a tar with PAX headers that are no numbers",
     archive(_member(f"{BAD}.png", b"x", pax_headers={"mtime": "x", "size": "-1", "uid": "nan"})),
     ingest("a.tar", 0))  # fmt: skip
for _end in ("gz", "bz2", "xz"):
    case(f"tar.{_end} of zeros", 4, f"a .tar.{_end} of 4 GB of zeros in one member",
         compressed(f"a.tar.{_end}", header(f"{BAD}.png", (4 << 30), b"0"), 4 << 30),
         ingest(f"a.tar.{_end}", 0, names=("a.tar", "bad-one"), seconds=240))  # fmt: skip
    case(f"tar.{_end} with a long name", 4, f"a .tar.{_end} whose member's name has 2 GB",
         compressed(f"a.tar.{_end}", header("././@LongLink", (2 << 30), b"L"), 2 << 30),
         ingest(f"a.tar.{_end}", 0, names=("a.tar",), seconds=240))  # fmt: skip
case("tar.gz of nothing", 4, "a .tar.gz of 8 GB of zeros and nothing else", compressed("a.tar.gz", b"", 8 << 30),
     ingest("a.tar.gz", 0))  # fmt: skip
case("tar.gz cut", 4, "a .tar.gz that is cut short",
     lambda here: (archive(name="a.tar.gz")(here), os.truncate(here.work / "a.tar.gz", 1500)),
     ingest("a.tar.gz", 0, expect="refused", names=("a.tar.gz",)))  # fmt: skip
case("tar.gz checksum", 4, "a .tar.gz with a wrong checksum",
     lambda here: (archive(name="a.tar.gz")(here), (here.work / "a.tar.gz").write_bytes(
         (here.work / "a.tar.gz").read_bytes()[:-8] + b"\0" * 8)),
     ingest("a.tar.gz", 0))  # fmt: skip
case("webdataset json", 9, "a WebDataset sample whose JSON is 200,000 levels deep",
     archive(_member(f"{BAD}.png", b"x"), _member(f"{BAD}.json", deep().encode())),
     ingest("webdataset:a.tar?label=a", 0, "--skip-bad"))  # fmt: skip
case("webdataset class", 10, "a WebDataset sample with a class of 10,000 digits",
     archive(_member(f"{BAD}.png", b"x"), _member(f"{BAD}.cls", b"9" * 10_000)),
     ingest("webdataset:a.tar", 4, "--skip-bad"))  # fmt: skip
case("webdataset large class", 10, "a WebDataset sample of class 99,999,999",
     archive(_member(f"{BAD}.png", b"x"), _member(f"{BAD}.cls", b"99999999")),
     ingest("webdataset:a.tar", 0, "--skip-bad"))  # fmt: skip

# --- 4: pictures

_PICTURES: dict[str, tuple[str, Any, str]] = {
    "png claim": ("a PNG that claims 60,000 x 60,000", lambda: png(60_000, 60_000), "png"),
    "png largest": ("a PNG that claims 2,147,483,647 x 2,147,483,647", lambda: png(2**31 - 1, 2**31 - 1), "png"),
    "png of zeros": ("a PNG of 20,000 x 20,000 in 439 KB", lambda: black(20_000), "png"),
    "png rows": ("a PNG that ends before its rows", lambda: png(5000, 5000), "png"),
    "png text bomb": ("a PNG with 2 GB of compressed text", lambda: png(
        9, 9, extra=chunk(b"zTXt", b"a\0\0" + zeros(2 << 30))), "png"),
    "png texts": ("a PNG with 1,500 compressed texts of 1 MB", lambda: png(
        9, 9, extra=chunk(b"zTXt", b"a\0\0" + zeros(1 << 20)) * 1500), "png"),
    "png profile bomb": ("a PNG with a colour profile of 2 GB", lambda: png(
        9, 9, extra=chunk(b"iCCP", b"a\0\0" + zeros(2 << 30))), "png"),
    "png chunk": ("a PNG with a chunk of 4 GB that is not there", lambda: b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0)) + b"\xff\xff\xff\xffIDATxx", "png"),
    "png no pixels": ("a PNG of 0 x 9", lambda: png(0, 9), "png"),
    "png palette": ("a PNG with a palette that is missing", lambda: png(9, 9, colour=3), "png"),
    "png exif": ("a PNG with broken EXIF", lambda: png(9, 9, zlib.compress(bytes(90)), extra=chunk(b"eXIf", b"II*\0" + b"\xff" * 50)), "png"),
    "webp": ("a WebP of 16,384 x 16,384 in 40 bytes", lambda: webp(16_384, 16_384), "webp"),
    "webp cut": ("a WebP that is cut", lambda: webp(99, 99)[:-9], "webp"),
    "gif claim": ("a GIF that claims 65,535 x 65,535", lambda: gif(65_535, 65_535), "gif"),
    "gif frames": ("a GIF of 50,000 frames", lambda: frames(50_000), "gif"),
    "jpeg claim": ("a JPEG that claims 65,500 x 65,500", lambda: jpeg(65_500, 65_500), "jpg"),
    "jpeg below": ("a JPEG that claims 9,999 x 9,999 (below the limit) and is 16 x 16", lambda: jpeg(9_999, 9_999), "jpg"),
    "jpeg tall": ("a JPEG that claims 8 x 65,500", lambda: jpeg(8, 65_500), "jpg"),
    "tiff claim": ("a TIFF that claims 200,000 x 200,000", lambda: tiff(200_000, 200_000), "tif"),
    "tiff strip": ("a TIFF whose strip has 4 GB", lambda: tiff(9_000, 9_000, t279=2**32 - 1), "tif"),
    "tiff samples": ("a TIFF with 65,535 samples a pixel", lambda: tiff(99, 99, t277=65_535), "tif"),
    "tiff circle": ("a TIFF whose next directory is itself", lambda: tiff(99, 99)[:8] + struct.pack("<H", 0) + struct.pack("<I", 8), "tif"),
    "bmp claim": ("a BMP that claims 100,000 x 100,000, run-length encoded", lambda: bmp(100_000, 100_000), "bmp"),
    "bmp below": ("a BMP of 9,999 x 9,999 in 3 KB", lambda: bmp(9_999, 9_999), "bmp"),
    "ppm claim": ("a PPM that claims 99,999 x 99,999", lambda: b"P6 99999 99999 255\n" + bytes(99), "ppm"),
    "ppm digits": ("a PPM whose width has 10,000 digits", lambda: b"P6 " + b"9" * 10_000 + b" 9 255\n", "ppm"),
    "ico": ("an ICO that holds a PNG of 60,000 x 60,000", lambda: b"\0\0\1\0\1\0" + struct.pack(
        "<BBBBHHII", 0, 0, 0, 0, 1, 32, len(png(60_000, 60_000)), 22) + png(60_000, 60_000), "ico"),
    "icns": ("an ICNS with a block of 4 GB", lambda: b"icns\xff\xff\xff\xffic07\xff\xff\xff\xff" + bytes(99), "icns"),
    "psd": ("a PSD that claims 300,000 x 300,000", lambda: b"8BPS\0\1" + bytes(6) + struct.pack(
        ">HIIHH", 3, 300_000, 300_000, 8, 3) + bytes(99), "psd"),
    "fits": ("a FITS that claims 99,999 x 99,999", lambda: b"".join(x.ljust(80) for x in (
        b"SIMPLE  =                    T", b"BITPIX  =                    8", b"NAXIS   =                    2",
        b"NAXIS1  =                99999", b"NAXIS2  =                99999", b"END")).ljust(2880), "fits"),
    "xbm": ("an XBM that claims 99,999 x 99,999", lambda: b"#define a_width 99999\n#define a_height 99999\nstatic char a_bits[] = {\n0x00};", "xbm"),
    "sgi": ("an SGI that claims 65,535 x 65,535, run-length encoded", lambda: struct.pack(
        ">HBBHHHH", 474, 1, 1, 3, 65_535, 65_535, 3).ljust(512, b"\0"), "sgi"),
    "tga": ("a TGA that claims 65,535 x 65,535", lambda: bytes([0, 0, 10]) + bytes(9) + struct.pack("<HHBB", 65_535, 65_535, 24, 0) + bytes(99), "tga"),
    "jpeg 2000": ("a JPEG 2000 that claims 2 billion pixels", lambda: b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(
        ">IIIIIIIIH", 50_000, 50_000, 0, 0, 50_000, 50_000, 0, 0, 1) + b"\x07\1\1\xff\x93" + bytes(99), "j2k"),
    "dds": ("a DDS that claims 60,000 x 60,000", lambda: b"DDS " + struct.pack("<IIII", 124, 0x1007, 60_000, 60_000) + bytes(120), "dds"),
    "mpo": ("a JPEG cut in the middle", lambda: jpeg(16, 16)[:300], "jpg"),
}  # fmt: skip
for _k, (_what, _data, _end) in _PICTURES.items():
    _spec = (
        {"names": (BAD,)}
        if _k
        not in (
            "gif frames",
            "png exif",
            "png texts",
            "png text bomb",
            "png profile bomb",
            "png palette",
            "jpeg below",
            "jpeg tall",
        )
        else {}
    )
    case(f"picture {_k}", 4, f"a folder with {_what}", bad_picture(_data, f"{BAD}.{_end}"),
         ingest("pictures", **_spec), *([predict(**_spec)] if _k in (
             "png claim", "png of zeros", "png text bomb", "webp", "gif claim", "jpeg below", "tiff strip", "bmp claim") else []))  # fmt: skip


def _claimed(here: Place) -> None:
    here.copy("teacher.onnx")
    here.copy("teacher.onnx.json")
    bad_row(here, bytes=black(20_000), height=20_000, width=20_000)


case("row claims", 4, "a store with a row of 20,000 x 20,000 and its PNG of 439 KB", _claimed,
     label(7, names=(BAD,)), check("--deep", names=(BAD,)), train(names=(BAD,), quiet=True), pretrain(names=(BAD,), quiet=True))  # fmt: skip
for _k, _size in {
    "negative": (-1, -1),
    "nothing": (0, 0),
    "largest": (2**31 - 1, 2**31 - 1),
    "thin": (1, 2**31 - 1),
}.items():
    case(f"row {_k}", 4, f"a store with a row of {_size[0]} x {_size[1]}",
         lambda here, size=_size: (here.copy("teacher.onnx"), here.copy("teacher.onnx.json"),
                                   bad_row(here, height=size[0], width=size[1])),
         label(7, names=(BAD,)), check("--deep", names=(BAD, "part-00000")), train())  # fmt: skip


def run_length(counts: Sequence[int]) -> bytes:
    """COCO's compressed text of runs."""
    out = bytearray()
    for i, count in enumerate(counts):
        x = count - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            out.append((c | 0x20 if more else c) + 48)
    return bytes(out)


def _mask(size: list[int], counts: bytes) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        import numpy as np

        row |= {"box": [np.array([1, 1, 9, 9], np.float32)], "category": [0], "score": [1.0], "ignore": [False],
                "mask": {"size": size, "counts": [counts]}}  # fmt: skip

    return change


_BIG = lambda: black(20_000, 16)  # noqa: E731
_LARGE: dict[str, tuple[str, str, Callable[[dict[str, Any]], Any]]] = {
    "depth map": ("a depth map of 20,000 x 20,000", "depth", lambda r: r.update(value=_BIG())),
    "valid map": (
        "a map of where depth is valid of 60,000 x 60,000",
        "depth",
        lambda r: r.update(valid=png(60_000, 60_000, zeros(60_000 * 7_501), 1)),
    ),
    "class map": (
        "a map of classes of 16,384 x 16,384 in 40 bytes",
        "segmentation",
        lambda r: r.update(category=webp(16_384, 16_384), probability=webp(16_384, 16_384)),
    ),
    "normal map": (
        "a map of normals of 16,384 x 16,384 in 40 bytes",
        "normals",
        lambda r: r.update(normal=webp(16_384, 16_384)),
    ),
    "mask": (
        "a mask of 100,000 x 100,000 in a few bytes",
        "detection",
        _mask([100_000, 100_000], run_length([10**10])),
    ),
    "mask runs": ("a mask whose runs are longer than it", "detection", _mask([40, 48], run_length([2**31, 2**31]))),
    "mask negative": ("a mask of a negative size", "detection", _mask([-40, 48], run_length([5]))),
    "mask text": ("a mask whose runs are no text of COCO's", "detection", _mask([40, 48], b"\xff\x00~~")),
    "mask one number": ("a mask whose size is one number", "detection", _mask([40], run_length([40 * 48]))),
}
for _k, (_what, _task, _change) in _LARGE.items():
    case(f"label {_k}", 4, _what, answers(_task, _change),
         check(names=("part-00000",)), train(names=("part-00000", "3")), store("info"), mended())  # fmt: skip


def _many_rows(here: Place) -> None:
    """8 million rows in a few kilobytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    _good(here)
    count = 8_000_000
    table = pa.table({
        "id": pa.DictionaryArray.from_arrays(pa.array([0] * 1, pa.int32()).take(pa.repeat(0, count)), pa.array(["a"])),
        "bytes": pa.nulls(count, pa.binary()), "uri": pa.nulls(count, pa.string()),
        "height": pa.repeat(pa.scalar(9, pa.int32()), count), "width": pa.repeat(pa.scalar(9, pa.int32()), count),
        "split": pa.nulls(count, pa.string()), "licence": pa.nulls(count, pa.string()),
    })  # fmt: skip
    file = here.work / "store/images/part-00001.parquet"
    pq.write_table(table, file, compression="zstd", store_schema=False, write_statistics=False, row_group_size=1 << 20)


case("many rows", 4, "a store with 8 million rows in one part", _many_rows,
     check(names=("part-00001",)), label(0, names=("part-00001",)), train(names=("part-00001",)), store("info"),
     store("repair"))  # fmt: skip


def _repeated(here: Place, file: Path, schema_of: Any, columns: dict[str, Any], count: int, size: int) -> None:
    """A Parquet file in which one value of `size` bytes is told `count` times, in a few kilobytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = pa.DictionaryArray.from_arrays(
        pa.repeat(pa.scalar(0, pa.int32()), count), pa.array([bytes(size)], pa.binary())
    )
    table = pa.table(columns | {schema_of: values})
    pq.write_table(table, file, compression="zstd", store_schema=False, row_group_size=64, write_statistics=False,
                   dictionary_pagesize_limit=1 << 30)  # fmt: skip


def _zstd_store(here: Place) -> None:
    _good(here)
    columns = {"id": [f"{i}" for i in range(60)], "uri": [None] * 60, "height": [9] * 60, "width": [9] * 60,
               "split": [None] * 60, "licence": [None] * 60}  # fmt: skip
    import pyarrow as pa

    types = {"height": pa.int32(), "width": pa.int32()}
    arrays = {k: pa.array(v, types.get(k, pa.string())) for k, v in columns.items()}
    _repeated(here, here.work / "store/images/part-00001.parquet", "bytes", arrays, 60, 64 << 20)


def _zstd_dataset(here: Place) -> None:
    _repeated(here, here.work / "p.parquet", "image", {}, 60, 64 << 20)


case("zstd in a store", 4, "a store with a part of 4 GB in a few KB", _zstd_store,
     check(names=("part-00001",)), label(0), train(names=("part-00001",)))  # fmt: skip
case("zstd in a dataset", 4, "a Parquet dataset of 4 GB in a few KB", _zstd_dataset, ingest("p.parquet", 0))

# --- 5: what a check would refuse


def _half(*values: float) -> Any:
    import numpy as np

    return np.array(values, np.float16)


def _boxes(*corners: float, category: int = 0, score: float = 1.0) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        import numpy as np

        row |= {"box": [np.array(corners, np.float32)], "category": [category], "score": [score], "ignore": [False],
                "mask": None}  # fmt: skip

    return change


def _map_of(*values: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        import numpy as np

        from polyteach.store.maps import encode_map

        return encode_map(np.array(values[0], values[1]))

    return make


def _filled(value: Any, kind: str, shape: tuple[int, ...] = (40, 48)) -> bytes:
    import numpy as np

    from polyteach.store.maps import encode_map

    return encode_map(np.full(shape, value, kind))


_NAN, _INF = float("nan"), float("inf")
_UNFIT: dict[str, tuple[str, str, Callable[[dict[str, Any]], Any]]] = {
    "nan box": ("a box of NaN", "detection", _boxes(_NAN, 1, 9, 9)),
    "endless box": ("a box that ends at infinity", "detection", _boxes(1, 1, _INF, 9)),
    "backward box": ("a box that ends before it begins", "detection", _boxes(9, 9, 1, 1)),
    "box outside": ("a box outside of its image", "detection", _boxes(500, 500, 900, 900)),
    "box class": ("a box of a class that there is not", "detection", _boxes(1, 1, 9, 9, category=60_000)),
    "box score": ("a box with a score of NaN", "detection", _boxes(1, 1, 9, 9, score=_NAN)),
    "box score 2": ("a box with a score of 2", "detection", _boxes(1, 1, 9, 9, score=2)),
    "box counts": ("more classes than boxes", "detection", lambda r: r.update(category=[0, 1, 2, 3, 4])),
    "box none": ("a labelled image whose boxes are null", "detection", lambda r: r.update(box=None, category=None)),
    "odd probability": (
        "a vector of probabilities [50, -49]",
        "classification",
        lambda r: r.update(probability=_half(50, -49, *[0] * (len(r["probability"]) - 2))),
    ),
    "nan probability": (
        "probabilities of NaN",
        "classification",
        lambda r: r.update(probability=_half(*[_NAN] * len(r["probability"]))),
    ),
    "short probability": ("too few probabilities", "classification", lambda r: r.update(probability=_half(1))),
    "long probability": (
        "too many probabilities",
        "classification",
        lambda r: r.update(probability=_half(*[0.001] * 999)),
    ),
    "no probability": ("no probabilities", "classification", lambda r: r.update(probability=_half())),
    "endless depth": ("infinite depth", "depth", lambda r: r.update(value=_filled(_INF, "float16"))),
    "nan depth": ("depth of NaN", "depth", lambda r: r.update(value=_filled(_NAN, "float16"))),
    "negative depth": ("negative depth", "depth", lambda r: r.update(value=_filled(-5, "float16"))),
    "depth sizes": (
        "depth and where it is valid of other sizes",
        "depth",
        lambda r: r.update(value=_filled(1, "float16", (40, 48)), valid=_filled(True, "bool", (20, 24))),
    ),
    "depth jpeg": ("depth that is a JPEG", "depth", lambda r: r.update(value=jpeg(16, 16))),
    "depth text": ("depth that is no picture", "depth", lambda r: r.update(value=b"no picture")),
    "depth nothing": ("depth of no bytes", "depth", lambda r: r.update(value=b"")),
    "depth null": ("a labelled image whose depth is null", "depth", lambda r: r.update(value=None)),
    "depth grey": ("depth as a PNG of 8 bits", "depth", lambda r: r.update(value=PICTURE)),
    "valid text": ("where depth is valid is no picture", "depth", lambda r: r.update(valid=b"RIFFxxxx")),
    "class map": (
        "a map of classes that there are not",
        "segmentation",
        lambda r: r.update(category=_filled(60_000, "uint16")),
    ),
    "class map text": ("a map of classes that is no picture", "segmentation", lambda r: r.update(category=b"x" * 600)),
    "class map sizes": (
        "a map of classes and their probability of other sizes",
        "segmentation",
        lambda r: r.update(probability=_filled(9, "uint8", (7, 9))),
    ),
    "normals": ("normals without a length", "normals", lambda r: r.update(normal=_filled(0, "int8", (3, 40, 48)))),
    "normals text": ("normals that are no picture", "normals", lambda r: r.update(normal=b"\x89PNG\r\n\x1a\n")),
    "state": ("a state that there is not", "depth", lambda r: r.update(state="maybe")),
    "state null": ("a state that is null", "depth", lambda r: r.update(state=None)),
}
for _k, (_what, _task, _change) in _UNFIT.items():
    _more = (
        [store("info"), mended()]
        if _k in ("nan box", "box class", "odd probability", "depth text", "state", "depth null")
        else []
    )
    _more += [transfer(names=("part-00000", "3"))] if _task == "classification" else []
    _odd = _k not in ("backward box", "box outside", "negative depth")  # what a teacher may say
    case(f"answer {_k}", 5, _what, answers(_task, _change),
         check(names=("part-00000",)) if _odd else check(expect="either"), train(names=("part-00000",) if _odd else ()),
         *_more)  # fmt: skip
case("answer of another image", 5, "labels that are of other images",
     lambda here: (here.copy("store"), _moved(here)), check(names=("part-00000",)), train(names=("part-00000",)))  # fmt: skip


def _moved(here: Place) -> None:
    from polyteach.store import LabelSet, Store

    labels = LabelSet(Store.open(here.work / "store"), "depth", "people")
    labels.write(0, ["3", "2", "1", "0"], labels.read(0))


# --- 6: stores


def _footer(here: Place) -> None:
    """num_rows of a part lies: one row more than there are."""
    here.copy("store")
    file = here.work / "store/images/part-00001.parquet"
    data = bytearray(file.read_bytes())
    size = struct.unpack("<I", data[-8:-4])[0]
    start = len(data) - 8 - size
    at = data.index(b"\x16\x08", start)  # thrift: field 3 of FileMetaData, the number 4 in zigzag
    data[at + 1] = 0x7E
    file.write_bytes(data)


def _file(
    path: str, content: bytes | str | None = None, like: str = "", folder: bool = False
) -> Callable[[Place], None]:
    """The store with another file: a content, a copy of another, or a folder."""

    def make(here: Place) -> None:
        _good(here)
        target = here.work / "store" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file():
            target.unlink()
        if folder:
            target.mkdir()
        elif like:
            shutil.copy(here.work / "store" / like, target)
        else:
            target.write_bytes(content.encode() if isinstance(content, str) else content or b"")

    return make


def _column(part: int, **types: Any) -> Callable[[Place], None]:
    def make(here: Place) -> None:
        import pyarrow as pa

        _good(here)
        names = {"text": pa.string(), "none": None, "float": pa.float64(), "list": pa.list_(pa.int32())}

        def change(rows: list[dict[str, Any]]) -> None:
            for row in rows:
                for k, v in types.items():
                    row[k] = {"text": "x", "float": _NAN, "list": [1], "none": None}[v]

        images(here, change, part, **{k: names[v] for k, v in types.items()})

    return make


def _ids(*ids: str | None) -> Callable[[Place], None]:
    def make(here: Place) -> None:
        _good(here)
        images(here, lambda rows: [row.update(id=i) for row, i in zip(rows, ids, strict=False)])

    return make


_FIRST, _SECOND = "images/part-00000.parquet", "images/part-00001.parquet"
_DEPTH = "labels/depth/people/"
_STORES: dict[str, tuple[str, Callable[[Place], None], tuple[str, ...]]] = {
    "null id": ("an id that is null", _ids(None), ("part-00000",)),
    "null ids": ("ids that are all null", _ids(None, None, None, None), ("part-00000",)),
    "id twice": ("an id that is there twice", _ids("1", "1", "2", "3"), ("part-00000",)),
    "empty id": ("an id without a letter", _ids(""), ("part-00000",)),
    "part 7": ("a part called part-7.parquet", _file("images/part-7.parquet", like=_FIRST), ("part-7.parquet",)),
    "part 0": ("a part called part-0.parquet beside part-00000", _file("images/part-0.parquet", like=_FIRST), ("part-0.parquet",)),
    "part x": ("a part called part-x.parquet", _file("images/part-x.parquet", like=_FIRST), ("part-x.parquet",)),
    "part minus": ("a part called part--1.parquet", _file("images/part--1.parquet", like=_FIRST), ("part--1",)),
    "part of labels x": ("labels in a part called part-x.parquet", _file(f"{_DEPTH}part-x.parquet", b"x"), ("part-x.parquet",)),
    "large part": ("a part called part-99999999999999999999", _file("images/part-99999999999999999999.parquet", like=_FIRST), ("part-9999",)),
    "part of text": ("a part that is text", _file(_SECOND, "no part"), ("part-00001",)),
    "empty part": ("a part of no bytes", _file(_SECOND, b""), ("part-00001",)),
    "part is a folder": ("a part that is a folder", _file(_SECOND, folder=True), ("part-00001",)),
    "labels part is a folder": ("labels in a part that is a folder", _file(f"{_DEPTH}part-00001.parquet", folder=True), ("part-00001",)),
    "rows lie": ("a footer that says other rows than there are", _footer, ("part-00001",)),
    "text height": ("a height that is text", _column(0, height="text"), ("part-00000",)),
    "float width": ("a width of NaN", _column(0, width="float"), ("part-00000",)),
    "list id": ("ids that are lists", _column(0, id="list"), ("part-00000",)),
    "no width": ("a part without widths", _column(0, width="none"), ("part-00000",)),
    "no bytes": ("a part without bytes and uris", _column(0, bytes="none", uri="none"), ("part-00000",)),
    "set list": ("a set.json that is a list", broken(f"{_DEPTH}set.json", lambda a: [1]), ("depth/people",)),
    "set null": ("a set.json that is null", broken(f"{_DEPTH}set.json", lambda a: "null"), ("depth/people",)),
    "set empty": ("a set.json of no bytes", broken(f"{_DEPTH}set.json", lambda a: ""), ("depth/people",)),
    "set info": ("a set.json with info null", broken(f"{_DEPTH}set.json", lambda a: a.update(info=None)), ("depth/people",)),
    "set info list": ("a set.json whose info is a list", broken(f"{_DEPTH}set.json", lambda a: a.update(info=[1])), ("depth/people",)),
    "set teacher": ("a set.json whose teacher is a number", broken(f"{_DEPTH}set.json", lambda a: a.update(info={"teacher": 5})), ("depth/people",)),
    "set names": ("a set.json whose class names are numbers", broken("labels/detection/people/set.json", lambda a: a["space"].update(names=[1, None])), ("detection/people",)),
    "set names text": ("a set.json whose class names are a text", broken("labels/detection/people/set.json", lambda a: a["space"].update(names="abc")), ("detection/people",)),
    "set kind": ("a set.json of an unknown kind", broken(f"{_DEPTH}set.json", lambda a: a["space"].update(kind=["x"])), ("depth/people",)),
    "set columns": ("a set.json without columns", broken(f"{_DEPTH}set.json", lambda a: a.pop("columns") and None), ("depth/people",)),
    "set deep": ("a set.json of 200,000 levels", broken(f"{_DEPTH}set.json", lambda a: deep()), ("depth/people",)),
    "set info deep": ("a set.json whose info has 900 levels", broken(f"{_DEPTH}set.json", lambda a: json.dumps(a).replace('"info": {', f'"info": {{"a": {deep("[", 900)}, ')), ("depth/people", "whole")),
    "set folder": ("a set.json that is a folder", _file(f"{_DEPTH}set.json", folder=True), ("depth/people",)),
    "set latin": ("a set.json that is no UTF-8", _file(f"{_DEPTH}set.json", b"{\"a\": \"\xff\"}"), ("depth/people",)),
    "set digits": ("a set.json with a number of 10,000 digits", broken(f"{_DEPTH}set.json", lambda a: '{"a": ' + "9" * 10_000 + "}"), ("depth/people",)),
    "store list": ("a store.json that is a list", broken("store.json", lambda a: [1]), ("store.json",)),
    "store null": ("a store.json that is null", broken("store.json", lambda a: "null"), ("store.json",)),
    "store empty": ("a store.json of no bytes", broken("store.json", lambda a: ""), ("store.json",)),
    "store deep": ("a store.json of 200,000 levels", broken("store.json", lambda a: deep("{")), ("store.json",)),
    "store part size text": ("a part_size that is text", broken("store.json", lambda a: a.update(part_size="x")), ("store.json",)),
    "store part size none": ("no part_size", broken("store.json", lambda a: a.pop("part_size") and None), ("store.json",)),
    "store part size 0": ("a part_size of -1", broken("store.json", lambda a: a.update(part_size=-1)), ("store.json", "part_size")),
    "store part size inf": ("a part_size of infinity", broken("store.json", lambda a: a.update(part_size=_INF)), ("store.json",)),
    "store part size list": ("a part_size that is a list", broken("store.json", lambda a: a.update(part_size=[1])), ("store.json",)),
    "store divided": ("a store.json whose split is a number", broken("store.json", lambda a: a.update(split=5)), ("store.json",)),
    "store divided half": ("a store.json that is half divided, and does not say how", broken("store.json", lambda a: a.update(split={"finished": False})), ("store.json", "divided")),
    "store divided odd": ("a store.json that is divided into a list", broken("store.json", lambda a: a.update(split={"finished": False, "fractions": [1]})), ("store.json", "divided")),
    "store format": ("a store.json of another format", broken("store.json", lambda a: a.update(format={"a": 1})), ("store.json",)),
}  # fmt: skip
for _k, (_what, _make, _told) in _STORES.items():
    _sure = _k not in ("set info deep", "set teacher", "no bytes")
    _runs = [check(names=_told) if _sure else check(expect="either"), store("info"), label(0)]
    _runs += [] if _k.startswith("store ") else [mended()]
    _runs += [store("repair", names=_told, expect="refused")] if _k.startswith("store ") else []
    if _k in (
        "null id",
        "part x",
        "part 7",
        "text height",
        "rows lie",
        "set list",
        "set info",
        "store list",
        "id twice",
    ):
        _runs += [train(), store("merge"), store("split", *FRACTIONS), store("drop-labels", "depth/people", "--yes")]
    if _k in ("null id", "part x", "set info"):
        _runs += [pretrain(), transfer()]
    case(f"store: {_k}", 6, f"a store with {_what}",
         lambda here, make=_make: (here.copy("teacher.onnx"), here.copy("teacher.onnx.json"), make(here))
         if not (here.work / "teacher.onnx").exists() else None, *_runs)  # fmt: skip


def _everywhere(path: str, content: str | bytes) -> Callable[[Place], None]:
    return _file(path, content)


for _k, (_path, _content) in {
    "ingest list": ("ingest.json", "[1]"),
    "ingest null": ("ingest.json", "null"),
    "ingest deep": ("ingest.json", deep()),
    "merge list": ("merge.json", "[1]"),
    "merge text": ("merge.json", "x"),
    "overview": ("images/_overview.parquet", "x"),
    "overview of labels": (f"{_DEPTH}_overview.parquet", b"PAR1" + bytes(20) + b"PAR1"),
    "rejects": ("rejects/part-00000.parquet", "x"),
    "rejects x": ("rejects/part-x.parquet", "x"),
    "label list": (f"{_DEPTH}label.json", "[1]"),
    "calibration list": (f"{_DEPTH}calibration.json", "[1]"),
    "calibration 0": (f"{_DEPTH}calibration.json", '{"temperature": 0, "shift": 0}'),
    "calibration of depth": (
        f"{_DEPTH}calibration.json",
        '{"temperature": 2, "shift": 0, "people": [], "images": 1, "answers": 1, "nll": {"before": 1, "after": 1},'
        ' "ece": {"before": 1, "after": 1}}',
    ),
    "stray": ("images/.part-00000.parquet.tmp", "x"),
    "odd leftover": ("images/.x.HOST.y.z.tmp", "x"),
}.items():
    case(f"store file: {_k}", 6, f"a store whose {_path} is {str(_content)[:20]!r}", _everywhere(_path, _content),
         store("info"), train(), mended(), *([store("merge")] if "json" in _path else []))  # fmt: skip


def _odd_overview(here: Place) -> None:
    """An overview that is whole and lies: of 2 billion rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from polyteach.ground.storage import stamps
    from polyteach.store.index import Index, digest

    _good(here)
    folder = here.work / "store" / "images"
    stamp = stamps(folder)["part-00000.parquet"]
    table = pa.table(
        {"part": [0], "stamp": [stamp], "values": [["train"]], "lengths": [[2_000_000_000]]}, schema=Index.SCHEMA
    )
    pq.write_table(table.replace_schema_metadata({"sha256": digest(table)}), folder / Index.NAME)


case("store file: overview lies", 6, "an overview that says that a part has 2 billion rows", _odd_overview,
     train(), store("info"))  # fmt: skip


def _pandas(here: Place) -> None:
    """Metadata of pandas' and Hugging Face's that name a pickle and deep JSON."""
    import pyarrow.parquet as pq

    _good(here)
    file = here.work / "store/images/part-00000.parquet"
    table = pq.read_table(file, use_threads=False)
    evil = {b"pandas": b'{"columns": [{"pandas_type": "object", "numpy_type": "object", "metadata": "evil"}]}',
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": pickle.dumps(Payload(here.ran), 0)}  # fmt: skip
    fields = [f.with_metadata(evil) for f in table.schema]
    import pyarrow as pa

    table = pa.Table.from_arrays(table.columns, schema=pa.schema(fields, metadata=evil))
    pq.write_table(table, file)


case("parquet extension", 9, "a part whose metadata hold a pickle", _pandas,
     check(expect="either"), store("info"), train(), label(0))  # fmt: skip


def _huggingface(text: str) -> Callable[[Place], None]:
    def make(here: Place) -> None:
        import pyarrow.parquet as pq

        _rows([])(here)
        file = here.work / "p.parquet"
        table = pq.read_table(file, use_threads=False)
        pq.write_table(table.replace_schema_metadata({b"huggingface": text.encode()}), file)

    return make


for _k, _text in {
    "deep": deep(), "list": "[1]", "info": '{"info": 5}', "features": '{"info": {"features": [1]}}',
    "names": '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 5}}}}',
    "names null": '{"info": {"features": {"label": {"_type": "ClassLabel", "names": [null, "\\u001b[31m"]}}}}',
    "text": "x",
}.items():  # fmt: skip
    case(f"huggingface {_k}", 10, f"a Parquet dataset with metadata {_text[:60]!r}", _huggingface(_text),
         ingest("p.parquet", 0, names=()))  # fmt: skip
for _k, _content in {
    "text": b"no parquet", "magic": b"PAR1PAR1", "footer": b"PAR1" + bytes(8) + b"\xff\xff\xff\x7fPAR1",
    "thrift": b"PAR1" + b"\x15" * 100 + struct.pack("<I", 100) + b"PAR1", "empty": b"",
}.items():  # fmt: skip
    case(f"parquet dataset {_k}", 10, f"a Parquet dataset that is broken: {_k}",
         lambda here, content=_content: (here.work / "p.parquet").write_bytes(content),
         ingest("p.parquet", 0, expect="refused", names=("p.parquet",)))  # fmt: skip

# --- 7: texts


def _classes(names: list[Any]) -> Callable[[Place], None]:
    """The store, of which the classes of one label set have other names."""

    def make(here: Place) -> None:
        def change(about: dict[str, Any]) -> None:
            old = about["space"]["names"]
            about["space"]["names"] = [*names, *old[len(names) :]]

        broken("labels/detection/people/set.json", change)(here)
        here.copy("store", "good")
        here.copy("teacher.onnx")
        here.copy("teacher.onnx.json")

    return make


for _k, (_name, _shows) in {
    "background": ("[background]", ("[background]",)),
    "closing": ("[/red]", ("[/red]",)),
    "bold": ("[bold]x", ("[bold]x",)),
    "link": ("[link=http://x]y", ("[link=http://x]y",)),
    "ansi": ("\x1b[31mred", ("31mred",)),
    "bell": ("a\x07b", ()),
    "nul": ("a\0b", ()),
    "newline": ("a\nb", ("a\\nb",)),
    "clear": ("\x1b]0;title\x07\x1b[2J", ()),
    "right to left": ("\u202etxt", ()),
    "c1": ("a\x9b31mb", ()),
    "emoji": (":smile:", (":smile:",)),
    "script": (_SCRIPT, (_SCRIPT,)),
    "long": ("n" * 5000, ()),
    "surrogate": ("\ud800", ()),
    "slash": ("../../x", ("../../x",)),
    "brace": ("{a}%s", ("{a}%s",)),
    "backslash": ("a\\[b]", ("a\\[b]",)),
}.items():
    case(f"class {_k}", 7, f"a store with a class named {_name[:30]!r}", _classes([_name]),
         store("info", shows=_shows), *([store("split", *FRACTIONS, shows=_shows)] if _k != "long" else []), *([train(), store("merge"), check(expect="either")] if _k in ("ansi", "surrogate") else []))  # fmt: skip
case("class many", 7, "a store with 60,000 classes", _classes([f"class {i}" for i in range(60_000)]),
     store("info"), check(expect="either"))  # fmt: skip


def _taught(name: str) -> Callable[[Place], None]:
    """A label set whose teacher has a name."""

    def make(here: Place) -> None:
        _set_named("taught")(here)
        file = here.work / "store/labels/depth/taught/set.json"
        info = {"teacher": {"spec": name}, "licence": name}
        about = json.loads(file.read_text()) | {"name": "taught", "info": info}
        file.write_text(json.dumps(about))

    return make


def _set_named(name: str) -> Callable[[Place], None]:
    """A label set whose folder has a name."""

    def make(here: Place) -> None:
        _good(here)
        folder = here.work / "store/labels/depth"
        shutil.copytree(folder / "people", folder / name)

    return make


for _k, _name in {
    "markup": "[red]x", "ansi": "\x1b[31mx", "newline": "a\nb", "no utf-8": "\udcff", "space": " ", "dash": "--yes",
    "tilde": "~", "glob": "*", "long": "n" * 250,
}.items():  # fmt: skip
    case(f"set named {_k}", 7, f"a label set named {_name[:30]!r}", _set_named(_name),
         store("info", shows=("[red]x",) if _k == "markup" else ()), *([check(expect="either"), train(), store("merge")] if _k in ("ansi", "no utf-8") else []))  # fmt: skip
for _k, _name in {
    "markup": "[/red]",
    "ansi": "\x1b[31mred",
    "newline": "a\nb",
    "nul": "a\0b",
    "long": "n" * 5000,
    "slash": "../../x",
}.items():
    case(f"split {_k}", 7, f"a store with a split named {_name[:30]!r}",
         lambda here, name=_name: (_good(here), images(here, lambda rows: rows[3].update(split=name))),
         store("info"), *([train()] if _k == "ansi" else []))  # fmt: skip
    case(f"id {_k}", 7, f"a store with an image called {_name[:30]!r} that cannot be decoded",
         lambda here, name=_name: (_good(here), images(here, lambda rows: rows[3].update(id=name, bytes=b"x"))),
         check("--deep"), label(7))  # fmt: skip
    case(f"teacher {_k}", 7, f"a label set of a teacher called {_name[:30]!r}", _taught(_name),
         store("info", shows=("[/red]",) if _k == "markup" else ()))  # fmt: skip

# --- 8: files that are named


def _in_folder(here: Place) -> None:
    teacher({"names": "names.txt"})(here)
    (here.work / "names.txt").symlink_to(here.secret)


for _k, _file_name in {
    "absolute": "{secret}", "up": "../around/secret.txt", "passwd": "/etc/passwd", "zero": "/dev/zero", "nul": "a\0b",
    "folder": ".", "uri": "file://{secret}", "long": "n" * 5000, "empty": "",
}.items():  # fmt: skip
    case(f"onnx names {_k}", 8, f"an ONNX description with names: {_file_name[:30]!r}", teacher({"names": _file_name}),
         label(0, expect="refused", names=("teacher.onnx.json",)))  # fmt: skip
case(
    "onnx names link",
    8,
    "an ONNX description whose names are a link to a secret",
    _in_folder,
    label(0, names=("teacher.onnx",)),
)


def _fifo_names(here: Place) -> None:
    teacher({"names": "names.txt"})(here)
    os.mkfifo(here.work / "names.txt")


case("onnx names fifo", 8, "an ONNX description whose names are a named pipe", _fifo_names, label(0, expect="refused"))


def _external(location: str, **more: str) -> Callable[[Place], None]:
    def make(here: Place) -> None:
        import numpy as np
        from onnx import StringStringEntryProto, TensorProto, helper, numpy_helper

        tensor = numpy_helper.from_array(np.zeros((3, 3), np.float32), "w")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for k, v in ({"location": here.filled(location), "offset": "0", "length": "36"} | more).items():
            tensor.external_data.append(StringStringEntryProto(key=k, value=v))
        node = helper.make_node("MatMul", ["m", "w"], ["z"])
        teacher({}, weights=[tensor], nodes=[helper.make_node("Identity", ["y"], ["m"]), node])(here)
        (here.work / "few.bin").write_bytes(bytes(8))

    return make


for _k, _location in {
    "up": "../around/secret.txt", "absolute": "{secret}", "zero": "/dev/zero", "missing": "none.bin", "nul": "a\0b",
    "url": "{url}/w.bin", "short": "few.bin",
}.items():  # fmt: skip
    case(f"onnx data {_k}", 8, f"an ONNX file with weights in {_location[:30]!r}", _external(_location),
         label(0, expect="refused", names=("teacher.onnx",)))  # fmt: skip
case("onnx data long", 8, "an ONNX file with weights of 1 TB in a file of 8 bytes",
     _external("few.bin", length=str(1 << 40)), label(0, expect="refused", names=("teacher.onnx",)))  # fmt: skip
case("onnx operator", 8, "an ONNX file with an operator of its own", teacher({}, op="Evil", domain="com.evil"),
     label(0, expect="refused", names=("teacher.onnx",)))  # fmt: skip


def _onnx_bytes(data: bytes) -> Callable[[Place], None]:
    return lambda here: (teacher({})(here), (here.work / "teacher.onnx").write_bytes(data))


def _onnx_metadata(here: Place) -> None:
    import onnx

    teacher({})(here)
    model = onnx.load(here.work / "teacher.onnx")
    for k, v in {
        "names": f"{here.secret}",
        "classes": repr(pickle.dumps(Payload(here.ran))),
        "pickle": "cos\nsystem\n",
    }.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = k, v
    model.doc_string = _SCRIPT * 1000
    onnx.save(model, here.work / "teacher.onnx")


case("onnx metadata", 8, "an ONNX file with pickles in its metadata", _onnx_metadata, label(8))
for _k, _data in {
    "text": b"no graph",
    "empty": b"",
    "zeros": bytes(1000),
    "varint": b"\xff" * 100,
    "pickle": pickle.dumps([1]),
}.items():
    case(f"onnx {_k}", 9, f"an ONNX file that is none: {_k}", _onnx_bytes(_data),
         label(0, expect="refused", names=("teacher.onnx",)))  # fmt: skip


def _onnx_output(shape: str) -> Callable[[Place], None]:
    """A graph that answers NaN, or takes terabytes."""

    def make(here: Place) -> None:
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        here.copy("store")
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 8, 8])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        if shape == "loop":
            condition = numpy_helper.from_array(np.array(True), "c")
            trips = numpy_helper.from_array(np.array(2**62, np.int64), "n")
            inner = helper.make_graph(
                [helper.make_node("Identity", ["c0"], ["c1"]), helper.make_node("Identity", ["v0"], ["v1"])], "body",
                [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c0", TensorProto.BOOL, []),
                 helper.make_tensor_value_info("v0", TensorProto.FLOAT, None)],
                [helper.make_tensor_value_info("c1", TensorProto.BOOL, []), helper.make_tensor_value_info("v1", TensorProto.FLOAT, None)])  # fmt: skip
            nodes, held = [helper.make_node("Loop", ["n", "c", "x"], ["y"], body=inner)], [condition, trips]
        else:
            size = numpy_helper.from_array(np.array([100_000] * 3, np.int64), "s")
            mean = helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0)
            nodes, held = [mean, helper.make_node("Expand", ["m", "s"], ["y"])], [size]
        body = helper.make_graph(nodes, "g", [x], [y], held)
        onnx.save(
            helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
            here.work / "teacher.onnx",
        )
        here.copy("teacher.onnx.json")

    return make


case("onnx large", 4, "an ONNX file that answers 4 PB", _onnx_output("expand"), label(0, names=("teacher.onnx", "x")))


def _nyu(how: str) -> Callable[[Place], None]:
    """An HDF5 file of NYU's shape with a link."""

    def make(here: Place) -> None:
        import h5py
        import numpy as np

        from tests.test_dataset_nyu import matlab

        folder = here.work / "nyu"
        folder.mkdir()
        arrays = {"images": np.zeros((2, 3, 8, 8), np.uint8), "depths": np.ones((2, 8, 8), np.float32),
                  "rawDepths": np.ones((2, 8, 8), np.float32), "labels": np.zeros((2, 8, 8), np.uint16)}  # fmt: skip
        file = folder / "nyu_depth_v2_labeled.mat"
        matlab(file, **arrays)
        outside = here.root / "around" / "private.h5"
        with h5py.File(outside, "w") as other:
            other["secret"] = np.full((2, 3, 8, 8), 7, np.uint8)
        (here.root / "around" / "raw.bin").write_bytes(bytes(2 * 3 * 64))
        with h5py.File(file, "r+") as opened:
            del opened["images"]
            if how == "external":
                opened["images"] = h5py.ExternalLink(str(outside), "secret")
            elif how == "loop":
                opened["images"] = h5py.SoftLink("/images")
            elif how == "raw":
                opened.create_dataset(
                    "images", (2, 3, 8, 8), "u1", external=[(str(here.root / "around/raw.bin"), 0, 384)]
                )
            elif how == "virtual":
                layout = h5py.VirtualLayout((2, 3, 8, 8), "u1")
                layout[:] = h5py.VirtualSource(str(outside), "secret", (2, 3, 8, 8))
                opened.create_virtual_dataset("images", layout)
            elif how == "bomb":
                opened.create_dataset(
                    "images", (2, 3, 60_000, 60_000), "u1", chunks=(1, 1, 1000, 1000), compression="gzip"
                )
            elif how == "chunk":
                opened.create_dataset(
                    "images", (2, 3, 20_000, 20_000), "u1", chunks=(1, 3, 20_000, 20_000), compression="gzip"
                )
            elif how == "group":
                opened.create_group("images")

    return make


for _k, _what in {
    "external": "a link to another file", "loop": "a link to itself", "raw": "pixels in another file",
    "virtual": "a virtual dataset of another file", "bomb": "pictures of 60,000 x 60,000", "group": "a group for pictures",
    "chunk": "chunks of 1.2 GB",
}.items():  # fmt: skip
    _sure: dict[str, Any] = {"expect": "refused"} if _k in ("external", "loop", "raw", "virtual", "group") else {}
    case(
        f"nyu {_k}",
        8,
        f"an HDF5 file with {_what}",
        _nyu(_k),
        ingest("nyu:nyu?split=none", 0, names=("nyu_depth",), **_sure),
    )

# --- 9: weights and descriptions

for _k, (_file_name, _how, _run) in {
    "pth": ("evil.pth", "torch", "timm:test_resnet@evil.pth"),
    "plain pth": ("evil.pth", "pickle", "timm:test_resnet@evil.pth"),
    "tar pth": ("evil.pth", "tar", "timm:test_resnet@evil.pth"),
    "bin": ("evil.bin", "pickle", "timm:test_resnet@evil.bin"),
    "safetensors": ("evil.safetensors", "pickle", "timm:test_resnet@evil.safetensors"),
    "torchvision": ("evil.pth", "torch", "torchvision:resnet18@evil.pth"),
    "run": ("run/student.safetensors", "pickle", "own:run"),
}.items():
    case(f"pickle {_k}", 9, f"weights {_file_name} that are a pickle with a payload ({_how}), for {_run.partition(':')[0]}:",
         pickled(_file_name, _how), label(0, _run, expect="refused", names=(_file_name.rpartition("/")[2],)))  # fmt: skip
_INIT = Run("train --init", ((*_TRAIN, "--init", "evil.pth"),), ("out", "store"), "refused", names=("evil.pth",))
for _how in ("torch", "pickle", "tar"):
    case(f"init {_how}", 9, f"--init with a pickle with a payload ({_how})", pickled("evil.pth", _how), _INIT,
         Run("transfer --init", ((*_TRANSFER, "--init", "evil.pth"),), ("out", "store"), "refused", names=("evil.pth",)))  # fmt: skip

_VIT = {
    "architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32, "patch_size": 16, "num_labels": 3,
}  # fmt: skip


def _vit(name: str, how: str, **config: Any) -> Callable[[Place], None]:
    """A Hugging Face folder with a payload."""

    def make(here: Place) -> None:
        pickled(f"vit/{name}", how)(here)
        folder = here.work / "vit"
        filled = json.loads(here.filled(json.dumps(_VIT | config)))
        (folder / "config.json").write_text(json.dumps(filled))
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}})
        )
        (folder / "evil.py").write_text(f"open({str(here.ran)!r}, 'w').close()\nclass Evil: pass\n")

    return make


for _how in ("pickle", "torch", "tar"):
    case(f"hugging face {_how}", 9, f"a Hugging Face folder with a pickled pytorch_model.bin ({_how})",
         _vit("pytorch_model.bin", _how), label(0, "transformers:vit", expect="refused", names=("vit",)))  # fmt: skip
case("hugging face code", 9, "a Hugging Face folder with code of its own",
     _vit("model.safetensors", "pickle", auto_map={"AutoConfig": "evil.Evil", "AutoModelForImageClassification": "evil.Evil"}, model_type="evil"),
     label(0, "transformers:vit", expect="refused", names=("vit",)))  # fmt: skip
case("hugging face safetensors", 9, "a Hugging Face folder with safetensors that are a pickle", _vit("model.safetensors", "pickle"),
     label(0, "transformers:vit", expect="refused", names=("vit",)))  # fmt: skip
case("hugging face index", 9, "a Hugging Face folder whose index names a file of another folder",
     lambda here: (_vit("pytorch_model.bin", "pickle")(here), (here.work / "vit/pytorch_model.bin").unlink(),
                   (here.work / "vit/model.safetensors.index.json").write_text(json.dumps(
                       {"metadata": {}, "weight_map": {"a": "../../around/secret.txt"}}))),
     label(0, "transformers:vit", expect="refused", names=("vit",)))  # fmt: skip
for _k, _config in {
    "deep": deep(),
    "list": "[1]",
    "sizes": json.dumps(_VIT | {"hidden_size": 10**9}),
    "text": "x",
}.items():
    case(f"hugging face config {_k}", 9, f"a Hugging Face folder whose config.json is odd: {_k}",
         lambda here, config=_config: (_vit("model.safetensors", "pickle")(here), (here.work / "vit/config.json").write_text(config)),
         label(0, "transformers:vit", expect="refused", names=("vit",)))  # fmt: skip

_HALF = lambda data: data[: len(data) // 2]  # noqa: E731
for _k, (_what, _bytes) in {
    "cut": ("that are cut short", _HALF),
    "header": ("whose header is cut", lambda d: d[:100]),
    "empty": ("of no bytes", lambda d: b""),
    "length": ("whose header has 16 EB", lambda d: b"\xff" * 8 + d[8:]),
    "large": ("whose header has 90 MB of spaces", lambda d: safetensors(b"{" + b" " * (90 << 20) + b"}")),
    "deep": ("whose header has 200,000 levels", lambda d: safetensors(deep().encode())),
    "overlap": ("whose tensors lie over each other", lambda d: safetensors(
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}, bytes(24))),
    "shape": ("of a tensor of 4 EB", lambda d: safetensors({"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 16]}}, bytes(16))),
    "overflow": ("of a tensor whose size overflows", lambda d: safetensors({"a": {"dtype": "F32", "shape": [2**63, 4], "data_offsets": [0, 16]}}, bytes(16))),
    "dtype": ("of an unknown type", lambda d: safetensors({"a": {"dtype": "EVIL", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))),
    "name": ("with other names", lambda d: d.replace(b"backbone", b"backb\\u0000", 1) if False else safetensors(
        {"a\x1b[31m\nb": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))),
    "shorter": ("with fewer tensors", lambda d: safetensors({}, b"")),
}.items():  # fmt: skip
    case(f"safetensors {_k}", 9, f"a run with safetensors {_what}", weights(_bytes),
         predict(0, expect="refused", names=("student.safetensors",)),
         *([label(0, "own:run", expect="refused", names=("student.safetensors",)),
            Run("train --init", ((*_TRAIN, "--init", "run"),), ("out", "store"), "refused", names=("student.safetensors", "run"))]
           if _k in ("cut", "header") else []))  # fmt: skip
for _k, _about in {
    "size text": {"size": "x"}, "size null": {"size": None}, "size one": {"size": [32]}, "size 0": {"size": [0, 0]},
    "size negative": {"size": [-32, -32]}, "size odd": {"size": [33, 33]}, "size huge": {"size": [10**6 * 32, 10**6 * 32]},
    "size float": {"size": [32.5, 32]}, "size infinite": {"size": [_INF, 32]}, "size texts": {"size": ["a", "b"]},
    "size large": {"size": [16384, 16384]},
    "channels 0": {"channels": 0}, "channels text": {"channels": "x"}, "channels float": {"channels": 8.5},
    "channels negative": {"channels": -8}, "channels huge": {"channels": 10**9}, "channels large": {"channels": 40_000},
    "channels null": {"channels": None}, "channels list": {"channels": [8]},
    "backbone unknown": {"backbone": "x"}, "backbone number": {"backbone": 5}, "backbone hub": {"backbone": "hf-hub:a/b"},
    "backbone path": {"backbone": "local-dir:../x"}, "backbone null": {"backbone": None}, "backbone long": {"backbone": "n" * 5000},
    "backbone large": {"backbone": "resnet152"}, "backbone flat": {"backbone": "vit_tiny_patch16_224"},
    "backbone ansi": {"backbone": "\x1b[31m"}, "backbone huge": {"backbone": "vit_giant_patch14_dinov2"},
    "adapters text": {"adapters": "x"}, "adapters negative": {"adapters": -1}, "adapters huge": {"adapters": 10**9},
    "objectives list": {"objectives": [1]}, "objectives null": {"objectives": None}, "objectives none": {"objectives": {}},
    "objective text": {"objectives": {"depth": "x"}}, "space null": {"objectives": {"depth": {"task": "depth", "space": None}}},
    "names numbers": {"objectives": {"classification": {"task": "classification", "space": {"names": [1, None], "kind": ""}}}},
    "names text": {"objectives": {"classification": {"task": "classification", "space": {"names": "ab", "kind": ""}}}},
    "names many": {"objectives": {"classification": {"task": "classification", "space": {"names": ["a"] * 3_000_000, "kind": ""}}}},
    "names none": {"objectives": {"classification": {"task": "classification", "space": {"names": [], "kind": ""}}}},
    "kind odd": {"objectives": {"depth": {"task": "depth", "space": {"names": [], "kind": "evil"}}}},
    "licence odd": {"licence": {"a": [1]}}, "learning rate odd": {"learning_rate": "x"},
}.items():  # fmt: skip
    _spec = (
        {}
        if _k in ("licence odd", "learning rate odd")
        else {"expect": "refused", "names": ("student.json", "has no heads")}
    )
    case(f"student {_k}", 9, f"a run whose student.json says {json.dumps(_about)[:60]}",
         student(lambda about, changes=_about: about.update(changes)), predict(0, **_spec),
         *([Run("transfer --init", ((*_TRANSFER, "--init", "run"),), ("out", "store"))] if "huge" in _k or "text" in _k else []))  # fmt: skip
for _k, _text in {
    "deep": deep("{"),
    "list": "[1]",
    "null": "null",
    "empty": "",
    "text": "x",
    "nan": "NaN",
    "digits": "9" * 10_000,
}.items():
    case(f"student.json {_k}", 9, f"a run whose student.json is odd: {_k}", student(lambda about, text=_text: text),
         predict(0, expect="refused", names=("student.json",)), label(0, "own:run", expect="refused", names=("student.json",)))  # fmt: skip
for _k, (_file_name, _text) in {
    "train list": ("train.json", "[1]"),
    "train deep": ("train.json", deep()),
    "train compute": ("train.json", '{"compute": 5}'),
    "config list": ("config.json", "[1]"),
}.items():
    case(f"run {_k}", 9, f"a run whose {_file_name} is {_text[:20]!r}",
         lambda here, name=_file_name, text=_text: (_good(here), (here.work / "run" / name).write_text(text)),
         predict(0), label(0, "own:run"))  # fmt: skip
for _k, _about in {
    "multiple inf": '{"task": "classification", "names": ["a", "b", "c"], "input": {"multiple": Infinity}}',
    "multiple nan": '{"task": "classification", "names": ["a", "b", "c"], "input": {"longest": NaN}}',
    "size inf": '{"task": "classification", "names": ["a", "b", "c"], "input": {"size": [1e400, 8]}}',
    "size huge": '{"task": "classification", "names": ["a", "b", "c"], "input": {"size": [100000000, 100000000]}}',
    "range inf": '{"task": "classification", "names": ["a", "b", "c"], "input": {"range": [0, Infinity]}}',
    "std 0": '{"task": "classification", "names": ["a", "b", "c"], "input": {"std": 0}}',
    "mean nan": '{"task": "classification", "names": ["a", "b", "c"], "input": {"mean": NaN}}',
    "digits": '{"task": "classification", "names": ["a", "b", "c"], "input": {"multiple": ' + "9" * 5000 + "}}",
    "deep": deep("{"), "list": "[1]", "null": "null", "text": "x", "empty": "",
    "task": '{"task": ["x"]}', "key": '{"\\u001b[31m": 1}', "names numbers": '{"task": "classification", "names": [1, 2, 3]}',
    "licence": '{"task": "classification", "names": ["a", "b", "c"], "licence": {"a": 1}}',
}.items():  # fmt: skip
    _sure = {} if _k in ("licence",) else {"expect": "refused", "names": ("teacher.onnx.json",)}
    case(
        f"onnx description {_k}",
        9,
        f"an ONNX description {_about[:20] if len(_about) < 9 else _about[-60:]!r}",
        teacher(_about),
        label(0, **_sure),
    )
_ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
_YAML = {
    "tag": "!!python/object/apply:builtins.exec [\"open('{root}/ran', 'w').close()\"]",
    "new": "task: !!python/object/new:os.system [touch {root}/ran]",
    "name": "task: !!python/name:os.system",
    "module": "task: !!python/module:os",
    "deep": deep("[", 50_000),
    "block": "".join("  " * i + "a:\n" for i in range(3000)),
    "aliases": _ALIASES,
    "self": "a: &a [*a]",
    "control": "a: \x00",
    "list": "- 1",
    "number": "5",
    "colon": "a: b: c",
    "tag unknown": "a: !evil x",
    "timestamp": "a: 2020-13-45",
    "merge": "<<: 5",
    "key": "? [a, b]\n: 1",
    "null key": "~: 1",
}
for _k, _text in _YAML.items():
    case(f"yaml description {_k}", 9, f"an ONNX description in YAML: {_text[:30]!r}", teacher(_text, yaml=True),
         label(0, expect="refused", names=("teacher.onnx.yaml",)))  # fmt: skip

    def _prompts(here: Place, text: str = _text) -> None:
        _vit("model.safetensors", "pickle")(here)
        (here.work / "prompts.yaml").write_text(here.filled(text))

    case(f"yaml prompts {_k}", 9, f"prompts in YAML: {_text[:30]!r}", _prompts,
         label(0, "transformers:vit@prompts.yaml", expect="refused", names=("prompts.yaml", "vit")))  # fmt: skip

    def _settings(here: Place, text: str = _text) -> None:
        _good(here)
        (here.work / "settings.yaml").write_text(here.filled(text))

    case(f"yaml settings {_k}", 9, f"--config and --map in YAML: {_text[:30]!r}", _settings,
         Run("train --config", ((*_TRAIN, "--config", "settings.yaml"),), ("out", "store"), "refused", names=("settings.yaml", "unknown key", "--config")),
         Run("train --map", ((*_TRAIN, "--map", "settings.yaml"),), ("out", "store"), "refused", names=("settings.yaml", "map")))  # fmt: skip
for _k, _change in {
    "deep": lambda t: deep(), "list": lambda t: [1], "null": lambda t: "null", "digits": lambda t: '{"a": ' + "9" * 10_000 + "}",
    "results": lambda t: t.update(results=5), "scores": lambda t: t["results"][0]["tests"][0].update(scores=None),
    "nan": lambda t: t["results"][0]["tests"][0]["scores"].update({"top-1": _NAN}), "compute": lambda t: t.update(compute=[1]),
    "resamples": lambda t: t["results"][0]["tests"][0].update(resamples="x"), "name": lambda t: t["representation"].update(name={"a": 1}),
}.items():  # fmt: skip
    case(
        f"transfer.json {_k}",
        9,
        f"a transfer.json that is odd: {_k}",
        _transfer_json(_change),
        report(names=("transfer.json",)),
    )
for _k, _name in {
    "ansi": "\x1b[31m",
    "nul": "\0",
    "markup": "[/red]",
    "long": "n" * 5000,
    "surrogate": "\ud800",
    "slash": "../../x",
}.items():
    case(f"representation {_k}", 7, f"a transfer.json of a representation named {_name[:20]!r}",
         _transfer_json(lambda t, name=_name: t["representation"].update(name=name)), report())  # fmt: skip
case("nobody reads", 9, "what is printed goes to a pipe that is closed", _good,
     Run("store info", (("store", "info", "store"),), ("store",), unread=True),
     Run("predict", (("predict", "run", "pictures", *_QUICK),), unread=True),
     Run("store check", (("store", "check", "store", "--no-progress"),), unread=True),
     Run("--help", (("label", "--help"),), unread=True))  # fmt: skip

# --- 10: annotations


def _coco(change: Callable[[dict[str, Any]], Any]) -> Callable[[Place], None]:
    """COCO's tree: good pictures, and then something else in its JSON."""

    def make(here: Place) -> None:
        folder = here.work / "coco"
        (folder / "annotations").mkdir(parents=True)
        shutil.copytree(here.seed / "pictures", folder / "train")
        (here.root / "around" / "private.png").write_bytes(PICTURE)
        os.mkfifo(folder / "train" / "fifo.png")
        about = {
            "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 48} for i in range(GOOD)],
            "categories": [{"id": 1, "name": "cup"}],
            "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [2, 2, 9, 9], "area": 81, "iscrowd": 0} for i in range(GOOD)],
        }  # fmt: skip
        found = change(about)
        about = about if found is None else found
        file = folder / "annotations" / "instances_train.json"
        file.write_text(here.filled(about if isinstance(about, str) else json.dumps(about)))

    return make


def _picture_at(name: Any) -> Callable[[dict[str, Any]], None]:
    return lambda a: a["images"].append({"id": 9, "file_name": name, "height": 40, "width": 48})


def _annotation(**more: Any) -> Callable[[dict[str, Any]], None]:
    return lambda a: a["annotations"].append(
        {"id": 9, "image_id": 3, "category_id": 1, "bbox": [2, 2, 9, 9], "area": 81, "iscrowd": 0} | more
    )


_COCO: dict[str, tuple[str, Callable[[dict[str, Any]], Any], int]] = {
    "up": ("a picture at ../../../around/private.png", _picture_at("../../../around/private.png"), 4),
    "absolute": ("a picture at an absolute path", _picture_at("{root}/around/private.png"), 4),
    "url": ("a picture at a url", _picture_at("{url}/one.png"), 4),
    "fifo": ("a picture that is a named pipe", _picture_at("fifo.png"), 4),
    "nul": ("a picture whose name has a NUL", _picture_at("a\0b.png"), 4),
    "number": ("a picture whose name is a number", _picture_at(5), 0),
    "ansi": ("a picture whose name has ANSI", _picture_at("\x1b[31m.png"), 4),
    "long": ("a picture whose name has 5,000 characters", _picture_at("n" * 5000 + ".png"), 4),
    "images null": ("images: null", lambda a: a.update(images=None), 0),
    "images numbers": ("images: [1, 2]", lambda a: a.update(images=[1, 2]), 0),
    "categories text": ("categories: a text", lambda a: a.update(categories="x"), 0),
    "category name": ("a category whose name is a list", lambda a: a.update(categories=[{"id": 1, "name": ["x"]}]), 0),
    "category id": ("a category whose id is a list", lambda a: a.update(categories=[{"id": [1], "name": "x"}]), 0),
    "annotation text": ("an annotation that is a text", lambda a: a["annotations"].append("x"), 0),
    "bbox text": ("a box of texts", _annotation(bbox=["a", "b", "c", "d"]), 3),
    "bbox nan": ("a box of NaN", _annotation(bbox=[_NAN, 1, 2, 3]), 3),
    "bbox inf": ("a box of 1e400", _annotation(bbox=[1, 1, _INF, 3]), 3),
    "bbox digits": ("a box with a number of 400 digits", _annotation(bbox=[1, 1, 10**400, 3]), 3),
    "bbox null": ("a box that is null", _annotation(bbox=None), 3),
    "image id": ("an annotation of an image that is a list", _annotation(image_id=[1]), 0),
    "category": ("an annotation of a category that is a dictionary", _annotation(category_id={"a": 1}), 0),
    "rle": (
        "an outline of 100,000 x 100,000 run lengths",
        _annotation(segmentation={"size": [100_000, 100_000], "counts": [10**10]}),
        3,
    ),
    "rle text": (
        "an outline whose runs are odd text",
        _annotation(segmentation={"size": [40, 48], "counts": "\x7f~~\0"}),
        3,
    ),
    "rle long": (
        "an outline of longer runs than its picture",
        _annotation(segmentation={"size": [40, 48], "counts": [2**40]}),
        3,
    ),
    "rle negative": (
        "an outline of negative runs",
        _annotation(segmentation={"size": [40, 48], "counts": [-5, 1925]}),
        3,
    ),
    "polygon huge": ("a polygon of corners at 1e30", _annotation(segmentation=[[1, 1, 1e30, 1, 1e30, 1e30]]), 3),
    "polygon nan": ("a polygon of NaN", _annotation(segmentation=[[_NAN] * 6]), 3),
    "polygon text": ("a polygon of texts", _annotation(segmentation=[["a"] * 6]), 3),
    "polygon many": ("a polygon of 300,000 corners", _annotation(segmentation=[[i % 40 for i in range(600_000)]]), 3),
    "size": ("a picture that claims 1e9 x 1e9", lambda a: a["images"][3].update(height=10**9, width=10**9), 3),
    "size text": ("a picture whose height is text", lambda a: a["images"][3].update(height="x"), 0),
    "deep": ("200,000 levels", lambda a: deep(), 0),
    "list": ("a list", lambda a: [1], 0),
    "cut": ("half of its text", lambda a: json.dumps(a)[:-50], 0),
    "digits": ("a number of 10,000 digits", lambda a: '{"images": ' + "9" * 10_000 + "}", 0),
}
for _k, (_what, _change, _count) in _COCO.items():
    case(f"coco {_k}", 10, f"COCO's JSON with {_what}", _coco(_change),
         ingest("coco:coco", _count, "--skip-bad", names=() if _count else ("instances_train.json",)))  # fmt: skip


def _voc(text: str, ids: Sequence[str] = ()) -> Callable[[Place], None]:
    """Pascal VOC's tree with another annotation for the last picture."""

    def make(here: Place) -> None:
        root = here.work / "voc" / "VOC2012"
        for folder in ("Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        shutil.copytree(here.seed / "pictures", root / "JPEGImages")
        shutil.copy(here.seed / "pictures" / "0.png", here.root / "around" / "private.jpg")
        for i in range(GOOD):
            from PIL import Image

            Image.open(root / "JPEGImages" / f"{i}.png").save(root / "JPEGImages" / f"{i}.jpg")
            thing = "<object><name>bottle</name><bndbox><xmin>5</xmin><ymin>9</ymin><xmax>24</xmax><ymax>38</ymax></bndbox></object>"
            about = f"<annotation><filename>{i}.jpg</filename><size><width>48</width><height>40</height><depth>3</depth></size>{thing}</annotation>"
            (root / "Annotations" / f"{i}.xml").write_text(here.filled(text) if text and i == 3 else about)
        (root / "ImageSets/Main/train.txt").write_bytes(
            "".join(f"{i}\n" for i in [*range(GOOD), *map(here.filled, ids)]).encode()
        )

    return make


_LAUGHS = (
    '<!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    + "]>"
)
for _k, _text in {
    "laughs": f"{_LAUGHS}<annotation>&j;</annotation>",
    "entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]><annotation><filename>&x;</filename></annotation>',
    "remote": '<!DOCTYPE a SYSTEM "{url}/a.dtd"><annotation/>',
    "deep": "<a>" * 100_000 + "</a>" * 100_000,
    "cut": "<annotation><object>",
    "numbers": "<annotation><size><width>nan</width><height>1e400</height></size></annotation>",
    "digits": f"<annotation><filename>3.jpg</filename><size><width>{'9' * 5000}</width><height>40</height></size></annotation>",
    "class": "<annotation><filename>3.jpg</filename><size><width>48</width><height>40</height></size><object><name>\u202e[/red]</name><bndbox><xmin>5</xmin><ymin>9</ymin><xmax>24</xmax><ymax>38</ymax></bndbox></object></annotation>",
    "empty": " ",
}.items():  # fmt: skip
    case(
        f"voc {_k}",
        10,
        f"Pascal VOC's XML: {_text[:40]!r}",
        _voc(_text),
        ingest("voc:voc", 3, "--skip-bad", names=("3.xml", "3.jpg")),
    )
for _k, _id in {
    "up": "../../../../around/private",
    "absolute": "{root}/around/private",
    "nul": "a\0b",
    "long": "n" * 5000,
    "ansi": "\x1b[31m",
}.items():
    case(
        f"voc id {_k}",
        10,
        f"Pascal VOC's list with {_id[:30]!r}",
        _voc("", [_id]),
        ingest("voc:voc", 0 if _k in ("up", "absolute") else 4, "--skip-bad"),
    )


def _cifar(evil: str) -> Callable[[Place], None]:
    def make(here: Place) -> None:
        import numpy as np

        folder = here.work / "cifar" / "cifar-10-batches-py"
        folder.mkdir(parents=True)
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            content: Any = {
                b"data": np.zeros((2, 3072), np.uint8),
                b"labels": [0, 1],
                b"filenames": [b"a.png", b"b.png"],
            }
            if name == "test_batch":
                content = {
                    "payload": Payload(here.ran),
                    "deep": [],
                    "object": content | {b"labels": [Payload(here.ran)]},
                }[evil]
            (folder / name).write_bytes(pickle.dumps(content, 2))
        (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a", b"b"]}, 2))
        if evil == "deep":
            (folder / "test_batch").write_bytes(b"(" * 2_000_000 + b"l" * 2_000_000 + b".")

    return make


for _k in ("payload", "object", "deep"):
    case(
        f"cifar {_k}",
        10,
        f"CIFAR's pickle with a payload ({_k})",
        _cifar(_k),
        ingest("cifar:cifar", 0, expect="refused", names=("test_batch",)),
    )


def _diode(how: str) -> Callable[[Place], None]:
    def make(here: Place) -> None:
        import numpy as np

        folder = here.work / "diode" / "train" / "indoors" / "scene_00000" / "scan_00000"
        folder.mkdir(parents=True)
        for i in range(2):
            start = folder / f"00000_00000_indoors_{i:03d}_000"
            shutil.copy(here.seed / "pictures" / "0.png", f"{start}.png")
            np.save(f"{start}_depth.npy", np.ones((40, 48, 1), np.float32))
            np.save(f"{start}_depth_mask.npy", np.ones((40, 48), np.float32))
        file = Path(f"{start}_depth.npy")
        if how == "pickle":
            np.save(file, np.array([Payload(here.ran)], object), allow_pickle=True)
        elif how == "plain":
            file.write_bytes(pickle.dumps(Payload(here.ran)))
        elif how == "huge":
            text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 100000, 100), }".ljust(117) + b"\n"
            file.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(99))
        elif how == "header":
            text = ("{'descr': " + "(" * 3000 + "'<f4'" + ")" * 3000 + "}").encode()
            file.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text)
        elif how == "zip":
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
                packed.writestr("depth.npy", bytes(1 << 20))
        elif how == "fifo":
            file.unlink()
            os.mkfifo(file)
        elif how == "objects":
            np.save(file, np.zeros((40, 48, 1), [("a", "f4"), ("b", "U5")]))

    return make


for _k in ("pickle", "plain", "huge", "header", "zip", "fifo", "objects"):
    case(f"npy {_k}", 10, f"DIODE's .npy that is odd: {_k}", _diode(_k), ingest("diode:diode", 1, "--skip-bad"))


def _ade(here: Place) -> None:
    root = here.work / "ade" / "ADE20K_2021_17_01"
    folder = root / "images" / "ADE" / "training" / "urban" / "street"
    folder.mkdir(parents=True)
    from PIL import Image

    for name in ("ADE_train_00000001.jpg", "ADE_train_00000001_seg.png"):
        Image.new("RGB", (48, 40)).save(folder / name)
    (root / "index_ade20k.pkl").write_bytes(pickle.dumps({"objectnames": [Payload(here.ran)]}))


case(
    "ade20k pickle",
    10,
    "ADE20K's index that is a pickle with a payload",
    _ade,
    ingest("ade20k:ade", 0, expect="refused", names=("index_ade20k.pkl",)),
)


def _class_folders(*names: bytes) -> Callable[[Place], None]:
    def make(here: Place) -> None:
        for name in (b"good", *names):
            folder = os.fsencode(here.work / "folders") + b"/" + name
            os.makedirs(folder)
            for i in range(2):
                shutil.copy(os.fsencode(here.seed / "pictures" / f"{i}.png"), folder + b"/%d.png" % i)

    return make


for _k, _names in {
    "markup": [b"[/red]"], "ansi": [b"\x1b[31m"], "newline": [b"a\nb"], "no utf-8": [b"\xff"], "script": [b"<script>alert(1)<"],
    "long": [b"n" * 250], "dash": [b"--yes"],
}.items():  # fmt: skip
    case(
        f"class folder {_k}",
        7,
        f"class folders named {_names[0][:20]!r}",
        _class_folders(*_names),
        ingest("folder:folders", 2, "--skip-bad"),
    )


def _circle_folder(here: Place) -> None:
    _class_folders(b"other")(here)
    (here.work / "folders" / "loop").symlink_to(".")
    (here.work / "folders" / "good" / "loop.png").symlink_to("loop.png")
    (here.work / "folders" / "etc").symlink_to(here.precious)


case(
    "class folder links",
    3,
    "class folders with links in a circle",
    _circle_folder,
    ingest("folder:folders", 4, "--skip-bad"),
)


def _csv(text: bytes) -> Callable[[Place], None]:
    return lambda here: (_good(here), (here.work / "groups.csv").write_bytes(text))


for _k, _text in {
    "binary": bytes(range(256)), "columns": b"a,b\n1,2\n", "short": b"id,group\n0\n", "empty": b"", "nul": b"id,group\n0\0,1\n",
    "quote": b'id,group\n"' + b"x" * 200_000, "field": b"id,group\n0," + b"x" * 200_000 + b"\n", "latin": b"id,group\n\xff,1\n",
}.items():  # fmt: skip
    case(f"csv {_k}", 10, f"groups in a CSV file that is odd: {_k}", _csv(_text),
         store("split", *FRACTIONS, "--groups", "groups.csv", expect="refused", names=("groups.csv",)))  # fmt: skip


def _picture() -> bytes:
    """A PNG of the size that the store's images have."""
    return png(48, 40, zlib.compress(bytes(40 * 49)))


PICTURE = _picture()


SLOW = (
    "uri allowed it, slow",
    "tar.gz of zeros",
    *(f"tar.{end} {what}" for end in ("bz2", "xz") for what in ("of zeros", "with a long name")),
)
"""Cases that take long even where all is right."""

# --- what the runner must see

PROOFS: list[tuple[Case, str]] = []
"""Code that does what no verb may, and what must be said of it."""


def _proof(name: str, code: str, said: str, **about: Any) -> None:
    run = Run("python", (("python", code),), ("out",), **about)
    PROOFS.append((Case(f"proof {name}", 0, name, lambda here: None, (run,)), said))


_proof("writes outside", "open('../escaped', 'w')", "outside: made escaped")
_proof("writes into another folder", "(place / 'around/precious/new').touch()", "outside: made around/precious/new")
_proof("deletes", "(place / 'around/precious/keep.txt').unlink()", "outside: deleted around/precious/keep.txt")
_proof("changes", "(place / 'around/precious/keep.txt').write_text('x')", "outside: changed around/precious/keep.txt")
_proof("changes its input", "open('new', 'w')", "outside: made work/new")
_proof("writes where it may", "open('out', 'w')", "")
_proof("takes 2 GB", "b'x' * (2 << 30)", "memory: 2.0 GB")
_proof("takes 9 GB", "b'x' * (9 << 30)", "traceback: MemoryError")
_proof("takes 5 GB", "b'x' * (5 << 30)", "memory: stopped")
_proof("raises", "raise KeyError('a')", "traceback: KeyError")
_proof("sleeps", "import time; time.sleep(60)", "still running after 1 s", seconds=1)
_proof("does not end", "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()",
       "still running after 1 s", seconds=1)  # fmt: skip
_proof("is killed", "import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV")
_proof("asks", "import urllib.request; urllib.request.urlopen('{url}/x.png')", "asked the server (x.png)")
_proof("runs a payload", "import pickle; pickle.loads(pickle.dumps(Payload(place / 'ran')))", "THE PAYLOAD RAN")
_proof("tells a secret", "print(open('../around/secret.txt').read())", "tells a secret")
_proof("keeps a secret", "import shutil; shutil.copy('../around/secret.txt', 'out')", "tells a secret")
_proof("prints ANSI", "print('\x1b[31mred')", "prints the control character")
_proof("gives bad advice", "print('set weights_only=False')", "advises weights_only=False")
_proof("goes through", "pass", "not refused", expect="refused")
_proof("makes a page with a script", "open('out', 'w').write('<script>alert(1)</script>')", "a page with",
       hides=(_SCRIPT,))  # fmt: skip
_proof("loses images", "pass", "0 of 4 good ones", good=("images", "out", 4))
_proof("does not say who", "print('an image is bad')", "does not name 'bad-one'", names=(BAD,))
_proof("refuses what is good", "raise SystemExit('no')", "status 1", expect="clean")


def every() -> Iterator[tuple[Case, Run]]:
    """All runs."""
    for one in CASES:
        for run in one.runs:
            yield one, run
