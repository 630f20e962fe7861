"""Changes of valid files, at random and to fit their kind: what strangers, broken disks and half-written exports do.

`change` takes one draw after another from a `random.Random`. Hypothesis gives one that it can shrink
(`strategies.randoms`), a longer run one of a number, with which a case comes again.
"""

import functools
import io
import json
import os
import pickle
import re
import reprlib
import struct
import tarfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RAW = "\N{SNOWMAN}RAW{}\N{SNOWMAN}"
RAWS = {
    "deep list": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"a":' * 30_000 + "1" + "}" * 30_000,
    "digits": "9" * 5_000,
    "exponent": "1e999999",
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "twice": '{"id": 1, "id": 2, "name": "x", "name": "y"}',
    "half a surrogate": '"\\ud800"',
    "word": "yes",
    "nothing": "",
}
"""What JSON's writer cannot write: put into the text as it stands."""
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 256, 1.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf"),
    2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 1_000_000_000,
    "", "x", "0", "1e9", "nan", "\0", "a\nb", "../../../../etc/passwd", "/etc/passwd", "/dev/zero", ".", "..", "C:\\x",
    "file:///dev/zero", "http://127.0.0.1:9/x.png", "memory://x", "[red]", "[/red]", "\x1b[31m", "e\u0301", "\u202e",
    "\ud800", "a" * 5_000, "train", "__class__", "depth", "people", [], {}, [[]], [0], {"": None}, [None] * 3,
    [1e308, -1e308, 1e308, 1e308], [0] * 5_000,
)  # fmt: skip
"""Values that a field may have instead of its own."""
LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">%s]><annotation><size><width>&z9;</width></size>
<object><name>&z9;</name></object></annotation>""" % b"".join(
    b'<!ENTITY z%d "%s">' % (i, (b"&z%d;" % (i - 1) if i else b"&a;") * 12) for i in range(10)
)
OUTSIDE = b"""<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/hostname">]><annotation><object><name>&a;
</name></object></annotation>"""


def change(rng: Random, file: Path, mark: Path) -> str:
    """Change a file in place, once to three times; says how. mark: what a pickle that runs code would make."""
    if rng.random() < 0.04:
        return _replaced(rng, file)
    said: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = _KINDS.get(_ending(file))
        again = kind is _pickle and said  # what has been made to run code is not opened here
        if kind is None or again or rng.random() < 0.25:
            said.append(_bytes(rng, file))
            continue
        try:
            said.append(kind(rng, file, mark))
        except Exception as e:  # the change before left nothing of that kind, or what was made up cannot be written
            said.append(f"{type(e).__name__} of {kind.__name__}, " + _bytes(rng, file))
    return ", ".join(said)


def _ending(file: Path) -> str:
    """Of CIFAR's files, which have none or another: that of pickles."""
    return ".pkl" if re.fullmatch(r".*batch.*|meta|train|test", file.name) else file.suffix.lower()


def _replaced(rng: Random, file: Path) -> str:
    """Something else than a file of content, as links and pipes in an archive unpack."""
    what = rng.choice(("gone", "empty", "folder", "link to itself", "pipe", "link to zeros", "sparse", "link to text"))
    file.unlink()
    if what == "empty":
        file.touch()
    elif what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "sparse":
        with open(file, "wb") as f:
            f.truncate(1 << 42)
    elif what != "gone":
        file.symlink_to(
            {"link to itself": file.name, "link to zeros": "/dev/zero", "link to text": "/etc/passwd"}[what]
        )
    return what


# ---------------------------------------------------------------- bytes


def _bytes(rng: Random, file: Path) -> str:
    data = bytearray(file.read_bytes())
    said = changed_bytes(rng, data)
    file.write_bytes(data)
    return said


def changed_bytes(rng: Random, data: bytearray) -> str:
    """Change bytes in place; says how."""
    at = rng.randrange(len(data) + 1)
    if rng.random() < 0.5:  # heads and ends say the most
        at = rng.choice((min(at, rng.randrange(64)), max(len(data) - rng.randrange(1, 200), 0)))
    ways = ("bit", "byte", "four", "eight", "cut", "insert", "delete", "again", "run")
    way = rng.choice(ways)
    if way == "bit" and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif way == "byte" and at < len(data):
        data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x5B, 0x22))
    elif way == "four":
        value = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00010000, 100_000))
        data[at : at + 4] = struct.pack(rng.choice("<>") + "I", value)
    elif way == "eight":
        data[at : at + 8] = struct.pack(rng.choice("<>") + "Q", rng.choice((0, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)))
    elif way == "cut":
        del data[at:]
    elif way == "insert":
        data[at:at] = rng.choice((b"\xff", b"\0" * 100, b"\xc3\x28", b"9" * 6000, b"\xef\xbb\xbf", b"\n", b'"', b"["))
    elif way == "delete":
        del data[at : at + rng.choice((1, 2, 8, 100))]
    elif way == "again":
        data[at:at] = data[at : at + rng.choice((8, 100, 1000))]
    else:
        data[at : at + 16] = bytes(rng.randrange(256) for _ in range(16))
    return f"{way} at {at}"


# ---------------------------------------------------------------- trees of values


def places(value: Any, limit: int = 20_000) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a tree of dictionaries and lists, by depth."""
    found: list[tuple[Any, Any]] = []
    level = [value]
    while level and len(found) < limit:
        own = [(c, k) for c in level for k in (list(c) if isinstance(c, dict) else range(len(c)))]
        found += own
        level = [c[k] for c, k in own if isinstance(c[k], dict | list)]
    return found


def changed_tree(rng: Random, tree: Any, odd: tuple[Any, ...] = ODD) -> tuple[Any, str]:
    """A tree with one thing changed, and how. What is given is changed too."""
    found = places(tree)
    if not found or rng.random() < 0.02:
        value = rng.choice(odd)
        return value, f"all is {_short(value)}"
    container, key = rng.choice(found)
    way = rng.choice(("odd", "odd", "odd", "drop", "again", "other", "name", "number", "wrap"))
    if isinstance(container[key], bytes) and container[key] and rng.random() < 0.7:
        data = bytearray(container[key])
        said = changed_bytes(rng, data)
        container[key] = bytes(data)
        return tree, said
    said = f"{way} at {_short(key)}"
    if way == "odd":
        container[key] = rng.choice(odd)
        said += f": {_short(container[key])}"
    elif way == "drop":
        del container[key]
    elif way == "again" and isinstance(container, list):
        container.insert(key, container[key])
    elif way == "other":
        there, name = rng.choice(found)
        container[key] = there[name] if there is not container[key] else None
    elif way == "name" and isinstance(container, dict):
        container[str(rng.choice(odd))[:50]] = container.pop(key)
    elif way == "number" and isinstance(container[key], int | float):
        container[key] = rng.choice((-container[key], container[key] + 1, container[key] * 1000, container[key] / 3))
    else:
        container[key] = [container[key]]
    return tree, said


def _short(value: Any) -> str:
    return reprlib.repr(value)[:60]


def changed_json(rng: Random, text: str) -> tuple[str, str]:
    """JSON with one thing changed, and how."""
    names = [*RAWS]
    raw = {RAW.format(i): RAWS[n] for i, n in enumerate(names)}
    tree, said = changed_tree(rng, json.loads(text), (*ODD, *raw, *raw))
    out = json.dumps(tree, allow_nan=True)
    for i, (mark, instead) in enumerate(raw.items()):
        if json.dumps(mark) in out:
            out, said = out.replace(json.dumps(mark), instead), f"{said}, {names[i]}"
    return out, said


def _json(rng: Random, file: Path, mark: Path) -> str:
    text, said = changed_json(rng, file.read_text(encoding="utf-8"))
    file.write_text(text, encoding="utf-8")
    return said


def _yaml(rng: Random, file: Path, mark: Path) -> str:
    if rng.random() < 0.2:
        lines = ["a: &a0 [x, x]", *(f"b{i}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(30)), "names: *a30"]
        key = rng.choice(("names", "task", "input", "output", "x"))
        odd = (
            "!!python/object/apply:os.system ['touch " + str(mark) + "']",
            "&a [*a]",
            "*a30",
            "{? [1] : 2}",
            "!!binary x",
        )
        lines = rng.choice((lines, [], lines))
        file.write_text("\n".join([*lines, f"{key}: {rng.choice(odd)}"]), encoding="utf-8")
        return "aliases and tags"
    return _json(rng, file, mark)  # JSON is YAML


# ---------------------------------------------------------------- text


def _lines(rng: Random, file: Path, mark: Path) -> str:
    lines = file.read_text(encoding="utf-8").split("\n")
    at = rng.randrange(len(lines))
    way = rng.choice(("odd word", "drop", "again", "swap", "blank"))
    words = re.split(r"(\s|,)", lines[at])
    if way == "odd word":
        words[rng.randrange(len(words))] = str(rng.choice(ODD)).encode("utf-8", "replace").decode()
        lines[at] = "".join(words)
    elif way == "drop":
        del lines[at]
    elif way == "again":
        lines.insert(at, lines[at])
    elif way == "swap":
        lines[at], lines[-1] = lines[-1], lines[at]
    else:
        lines.insert(at, "")
    file.write_text("\n".join(lines), encoding="utf-8")
    return f"{way} in line {at + 1}"


def _xml(rng: Random, file: Path, mark: Path) -> str:
    text = file.read_text(encoding="utf-8")
    way = rng.choice(("value", "value", "value", "laughs", "outside", "drop", "deep", "tag", "again", "utf-16"))
    tags = [*re.finditer(r"<(\w+)>([^<]*)</\1>", text)]
    one = rng.choice(tags)
    if way == "value":
        odd = str(rng.choice(ODD)).encode("utf-8", "replace").decode()
        text = text[: one.start(2)] + odd + text[one.end(2) :]
    elif way == "laughs":
        file.write_bytes(LAUGHS)
        return way
    elif way == "outside":
        file.write_bytes(OUTSIDE)
        return way
    elif way == "drop":
        text = text[: one.start()] + text[one.end() :]
    elif way == "deep":
        text = text.replace(one[0], "<x>" * 50_000 + "</x>" * 50_000 + one[0])
    elif way == "tag":
        text = text.replace(f"<{one[1]}>", f"<{rng.choice(tags)[1]}>", 1)
    elif way == "again":
        text = text[: one.start()] + one[0] * 3 + text[one.end() :]
    file.write_text(text, encoding="utf-16" if way == "utf-16" else "utf-8")
    return f"{way} at {one[1]}"


# ---------------------------------------------------------------- pictures


def _png(rng: Random, file: Path, mark: Path) -> str:
    """The size in a PNG's head, with a right checksum: the pixels stay as they are."""
    from zlib import crc32

    data = bytearray(file.read_bytes())
    if data[:4] != b"\x89PNG":
        return _bytes(rng, file)
    side = rng.choice((0, 1, 7, 19, 21, 1000, 20_000, 100_000, 0x7FFFFFFF))
    struct.pack_into(">I", data, rng.choice((16, 20)), side)
    if rng.random() < 0.3:
        data[rng.choice((24, 25))] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16))
    struct.pack_into(">I", data, 29, crc32(bytes(data[12:29])))
    file.write_bytes(data)
    return f"head says {struct.unpack_from('>IIBB', data, 16)}"


@functools.cache
def bomb(side: int) -> bytes:
    """A PNG of side x side in few bytes."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("1", (side, side)).save(out, format="PNG")
    return out.getvalue()


def _picture(rng: Random, file: Path, mark: Path) -> str:
    if rng.random() < 0.1:
        file.write_bytes(bomb(6_000))
        return "a large picture in few bytes"
    return _png(rng, file, mark)


# ---------------------------------------------------------------- arrays, pickles, MATLAB's and HDF5 files

HEADS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 1), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (20, 30, 3000000000), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (20, 30), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (1099511627776,), }",
    "{'descr': '|S0', 'fortran_order': False, 'shape': (20, 1099511627776), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 30, 1), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (20, 30, 1), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (20, 30), }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (20, 30), }",
    "{'descr': '<c16', 'fortran_order': False, 'shape': (20, 30), }",
    "(" * 400 + ")" * 400,
    "9" * 5000,
    "__import__('os').system('true')",
)


def _npy(rng: Random, file: Path, mark: Path) -> str:
    array = np.load(file)
    way = rng.choice(("head", "dtype", "shape", "values", "objects"))
    if way == "head":
        head = rng.choice(HEADS).encode()
        file.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n" + array.tobytes())
        return f"{way} {head[:60]!r}"
    with np.errstate(all="ignore"):
        if way == "dtype":
            array = array.astype(rng.choice(("<f8", ">f4", "<f2", "u1", "<i8", "<c8", "?", "<U4", "<u8")))
        elif way == "shape":
            array = rng.choice((array.ravel(), array[None], array[1:], array[..., None], array[:0], array.T))
        elif way == "objects":
            array = np.array([{"a": 1}], dtype=object)
        elif array.size:
            flat = array.reshape(-1)
            flat[rng.randrange(flat.size) :] = (
                rng.choice((np.nan, np.inf, -1, 1e38, 0, 255)) if flat.dtype.kind == "f" else 2
            )
            array = flat.reshape(array.shape)
    np.save(file, array)
    return f"{way} {array.dtype} {array.shape}"


class _Runs:
    """A pickle of this calls a function."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.call = call, args

    def __reduce__(self) -> Any:
        return self.call


def _laughs(depth: int = 40) -> list[Any]:
    laugh: list[Any] = ["ha"]
    for _ in range(depth):
        laugh = [laugh, laugh, laugh]
    return laugh


def _pickle(rng: Random, file: Path, mark: Path) -> str:
    content = pickle.loads(file.read_bytes(), encoding="bytes")  # ours, or it was changed and this is its own problem
    command = f"touch {mark}"
    gadgets = (
        _Runs(os.system, command), _Runs(eval, f"__import__('os').system({command!r})"), _Runs(getattr, os, "system"),
        _Runs(open, str(mark), "w"), _Runs(bytearray, 1 << 40), _Runs(np.zeros, 1 << 40), _Runs(np.dtype, "V999999999"),
        np.zeros(3, object), np.zeros((0, 3072), np.uint8), np.zeros((2, 5), np.uint8), np.zeros(2),
        np.datetime64(0, "s"), np.array(["a"]), _laughs(), {1: 2}, set(), b"\xff", 10**5000, 1j, ..., Path("x"),
        frozenset([1]),
    )  # fmt: skip
    if rng.random() < 0.15:
        file.write_bytes(rng.choice(_OPCODES))
        return "opcodes"
    content, said = changed_tree(rng, content, (*ODD, *gadgets, *gadgets))
    file.write_bytes(pickle.dumps(content, protocol=rng.choice((0, 2, 2, 3, 5))))
    return said


_OPCODES = (
    b"\x80\x02}r\xff\xff\xff\x0f.",  # memo's index: a table of so many places
    b"\x80\x02}r\xff\xff\xff\x7f.",
    b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",  # BINBYTES8
    b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",  # BYTEARRAY8
    b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"}.",  # FRAME
    b"\x80\x02\x8b" + struct.pack("<I", 0x7FFFFFFF) + b".",  # LONG4
    b"(" * 1_000_000 + b".",
    b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",  # nested lists
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x80\x02cbuiltins\nbytes\n)R}b.",
    b"\x80\x02cnumpy\nndarray\n(K\x01K\x02tR.",
    b"I" + b"9" * 6_000 + b"\n.",
    b"P0\n.",  # a persistent id
    b"\x82\x01.",  # an extension
    b"}}}sss.",
    b"",
)


def _mat(rng: Random, file: Path, mark: Path) -> str:
    from scipy.io import loadmat, savemat

    content = {k: v for k, v in loadmat(file).items() if not k.startswith("__")}
    key = rng.choice(sorted(content))
    value = rng.choice(
        (0, -1, np.nan, 1e300, "text", "", np.zeros((0, 0)), np.array([[1.5, 2**53]]), {"a": 1}, [[1], "x"])
    )
    if content[key].dtype.names and rng.random() < 0.8:
        field = rng.choice(content[key].dtype.names)
        content[key][field][rng.randrange(len(content[key])), 0] = value
        key = f"{key}.{field}"
    elif rng.random() < 0.3:
        del content[key]
    else:
        content[key] = value
    savemat(file, content, do_compression=rng.random() < 0.5)
    return f"{key}: {_short(value)}"


def _hdf5(rng: Random, file: Path, mark: Path) -> str:
    import h5py

    with h5py.File(file, "r+", locking=False) as f:
        name = rng.choice(("images", "depths", "rawDepths", "labels", "names"))
        old = f[name]
        shape, dtype = old.shape, old.dtype
        del f[name]
        way = rng.choice(("huge", "dtype", "shape", "outside", "soft", "group", "text", "names"))
        if way == "huge":
            f.create_dataset(name, (2, 3, 1 << 18, 1 << 18)[: len(shape)], dtype=dtype, chunks=True)
        elif way == "dtype":
            f.create_dataset(name, shape, dtype=rng.choice(("f8", "i8", "u1", "S10", "f2")))
        elif way == "shape":
            f.create_dataset(name, rng.choice(((), (1,), (2, 3), (2, 3, 0, 0), (0, 3, 8, 6), (2, 8, 6))), dtype="u1")
        elif way == "outside":
            f[name] = h5py.ExternalLink("/etc/hostname", "/x")
        elif way == "soft":
            f[name] = h5py.SoftLink(f"/{name}")
        elif way == "group":
            f.create_group(name)
        elif way == "text":
            f.create_dataset(name, data="text")
        else:
            refs = np.empty((1, 3), dtype=h5py.ref_dtype)
            numbers = rng.choice(([0x110000], [-1], [1.5], [0xD800], [], [10**6] * 3))
            refs[0, 0] = f.create_dataset(f"#refs#/odd{rng.randrange(1 << 30)}", data=np.array(numbers)).ref
            f.create_dataset(name, data=refs, dtype=h5py.ref_dtype)
    return f"{way} {name}"


# ---------------------------------------------------------------- tables and archives


def _parquet(rng: Random, file: Path, mark: Path) -> str:
    table = pq.read_table(file)
    at = rng.randrange(table.num_columns)
    name, kind = table.column_names[at], table.schema.field(at).type
    way = rng.choice(("value", "value", "value", "value", "drop", "name", "rows", "type", "twice", "metadata", "null"))
    metadata = table.schema.metadata
    if way == "value":
        tree, said = changed_tree(
            rng, table.column(at).to_pylist(), (*ODD, b"", b"\xff", b"\x89PNG\r\n\x1a\n", bomb(6_000))
        )
        try:
            array = pa.array(tree, type=kind)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            array = pa.array(tree)
        n = min(len(array), table.num_rows)
        table = table.slice(0, n).set_column(at, name, array[:n])
        way = said
    elif way == "drop":
        table = table.remove_column(at)
    elif way == "name":
        names = list(table.column_names)
        names[at] = rng.choice(("", "id", "label", "x", "a.b", "\x1b[31m", names[0]))
        table = table.rename_columns(names)
    elif way == "rows":
        table = rng.choice((table.slice(0, 0), table.slice(1), pa.concat_tables([table, table]), table.slice(0, 1)))
    elif way == "type":
        table = table.set_column(at, name, pa.array([str(v) for v in table.column(at).to_pylist()]))
    elif way == "twice":
        table = table.append_column(name, table.column(at))
    elif way == "null":
        table = table.set_column(at, name, pa.nulls(table.num_rows))
    if way == "metadata" and metadata:
        key = rng.choice(sorted(metadata))
        text, way = changed_json(rng, metadata[key].decode())
        metadata = {**metadata, key: text.encode("utf-8", "replace")}
    pq.write_table(table.replace_schema_metadata(metadata), file, row_group_size=rng.choice((1, 64)))
    return f"{way} in column {name}"


def _tar(rng: Random, file: Path, mark: Path) -> str:
    with tarfile.open(file) as archive:
        small = [m for m in archive.getmembers() if m.isreg() and m.size < 1 << 20]  # others were made up before
        members = [(m, archive.extractfile(m).read()) for m in small]  # type: ignore[union-attr]
    at = rng.randrange(len(members))
    member, content = members[at]
    way = rng.choice(("name", "type", "link", "content", "large", "again", "sparse", "pax"))
    if way == "name":
        member.name = str(rng.choice(ODD)).replace("\0", "").encode("utf-8", "replace").decode() or "x"
    elif way == "type":
        member.type = rng.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, b"Z")
        )
        content = b""
    elif way == "link":
        member.type, content = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE)), b""
        member.linkname = rng.choice((member.name, "/etc/passwd", members[0][0].name, members[-1][0].name, "no"))
    elif way == "content":
        data = bytearray(content)
        changed_bytes(rng, data)
        content = bytes(data)
    elif way == "again":
        members.insert(at, (member, content))
    elif way == "pax":
        member.pax_headers = {rng.choice(("size", "path", "mtime", "GNU.sparse.realsize", "GNU.sparse.map")): "9" * 12}
    members[at] = member, content
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT if way == "pax" else tarfile.GNU_FORMAT
    ) as archive:
        for m, data in members:
            m.size = len(data)
            archive.addfile(m, io.BytesIO(data))
    raw = bytearray(out.getvalue())
    if way in ("large", "sparse"):  # heads whose content is not there
        head = tarfile.TarInfo("large.png")
        head.size = 1 << 33
        buffer = bytearray(head.tobuf(tarfile.GNU_FORMAT))
        if way == "sparse":
            buffer[124:136] = b"%011o\0" % 512
            buffer[156:157] = tarfile.GNUTYPE_SPARSE
            buffer[386:398] = buffer[398:410] = b"%011o\0" % 0
            buffer[483:495] = b"%011o\0" % ((1 << 33) - 1)
            buffer[148:156] = b"%06o\0 " % (256 + sum(buffer[:148]) + sum(buffer[156:512]))
            buffer += bytes(512)
        raw[:0] = buffer
    file.write_bytes(raw)
    return f"{way} of {member.name!r:.40}"


_KINDS = {
    ".json": _json, ".yaml": _yaml, ".txt": _lines, ".csv": _lines, ".xml": _xml, ".npy": _npy, ".pkl": _pickle,
    ".parquet": _parquet, ".tar": _tar, ".png": _picture, ".jpg": _picture, ".jpeg": _picture,
    ".mat": lambda rng, file, mark: (_hdf5 if "nyu" in file.name else _mat)(rng, file, mark),
}  # fmt: skip
