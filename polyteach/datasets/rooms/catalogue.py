"""Furniture catalogues of Sweet Home 3D: .sh3f files in, their pieces out.

A .sh3f file is a zip of `PluginFurnitureCatalog.properties` (`name#N`, `category#N`, `model#N`, `width#N`, `depth#N`,
`height#N` and `elevation#N` in centimetres, `modelRotation#N`), and of Wavefront OBJ and MTL files with their textures.
http://www.sweethome3d.com/importModels.jsp; Debian ships five of them as sweethome3d-furniture. In the OBJ files y
points up; that is kept here.
"""

import posixpath
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Piece:
    """One model as its catalogue describes it.

    id: the catalogue's, unique. size: width (x), height (y), depth (z) in metres. rotation: (3, 3) or None, applied to
    the model's own axes first. file: the .sh3f. model: path inside of it.
    """

    id: str
    name: str
    category: str
    creator: str
    licence: str
    size: tuple[float, float, float]
    elevation: float
    rotation: tuple[float, ...] | None
    file: str
    model: str


def properties(data: bytes) -> dict[str, str]:
    """The keys and values of a Java .properties file: ISO-8859-1, `\\uXXXX`, continued lines, # and ! comments.

    As java.util.Properties.load(InputStream) reads it.
    """
    found: dict[str, str] = {}
    for line in _logical(data.decode("latin-1")):
        match = re.match(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*", line, re.DOTALL)
        assert match is not None  # it matches the empty text
        found[_unescaped(match[1])] = _unescaped(line[match.end() :])
    return found


def _logical(text: str) -> Iterator[str]:
    """Lines without comments and blank ones; one that ends in an odd number of backslashes goes on in the next."""
    held: str | None = None
    for raw in re.split(r"\r\n|\n|\r", text):
        line = raw.lstrip(" \t\f")
        if held is None and (not line or line[0] in "#!"):
            continue
        line = (held or "") + line
        ending = len(line) - len(line.rstrip("\\"))
        held = line[:-1] if ending % 2 else None
        if held is None:
            yield line
    if held is not None:
        yield held


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) == 5:
            return chr(int(code[1:], 16))
        return {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(code, code)

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", one, text, flags=re.DOTALL)


def catalogue(folder: str) -> list[Piece]:
    """The pieces of all .sh3f files in a folder, by file and number; no doors and windows, and only OBJ models.

    Of pieces that share a model file (by its checksum) only the first counts: they would be the same thing twice.

    Raises:
        ValueError: no .sh3f file, one that is broken, or a piece whose fields are unusable; names file and field.
    """
    files = sorted(Path(folder).glob("*.sh3f"))
    if not files:
        raise ValueError(f"{folder} holds no .sh3f file")
    found: dict[tuple[int, int], Piece] = {}
    for file in files:
        try:
            with zipfile.ZipFile(file) as archive:
                fields = properties(archive.read("PluginFurnitureCatalog.properties"))
                members = {posixpath.normpath(i.filename).lower(): i for i in archive.infolist()}
        except (zipfile.BadZipFile, KeyError, OSError) as e:
            raise ValueError(f"{file} is no furniture catalogue: {e}") from e
        numbers = sorted(int(k[5:]) for k in fields if re.fullmatch(r"name#[0-9]+", k))
        for number in numbers:
            piece = _piece(str(file), number, fields)
            if piece is None or not piece.model.lower().endswith(".obj"):
                continue
            member = members.get(piece.model.lower())
            if member is None:
                raise ValueError(f"{file}: model#{number}: {piece.model} is not in it")
            found.setdefault((member.CRC, member.file_size), piece)
    return list(found.values())


def _piece(file: str, number: int, fields: dict[str, str]) -> Piece | None:
    def get(name: str) -> str:
        return fields.get(f"{name}#{number}", "").strip()

    def numbers(name: str, count: int) -> tuple[float, ...]:
        try:
            out = tuple(float(x) for x in get(name).split())
        except ValueError:
            out = ()
        if len(out) != count or not np.isfinite(out).all():
            raise ValueError(f"{file}: {name}#{number}: must be {count} numbers; got {get(name)!r}")
        return out

    if get("doorOrWindow").lower() == "true" or get("doorOrWindowCutOutShape"):
        return None
    width, depth, height = (numbers(n, 1)[0] / 100 for n in ("width", "depth", "height"))
    if min(width, depth, height) <= 0:
        raise ValueError(f"{file}: width#{number}, depth#{number}, height#{number}: must be above 0 cm")
    return Piece(
        id=get("id") or f"{Path(file).stem}#{get('model')}",
        name=get("name"),
        category=get("category"),
        creator=get("creator"),
        licence=fields.get("license", ""),
        size=(width, height, depth),
        elevation=numbers("elevation", 1)[0] / 100 if get("elevation") else 0.0,
        rotation=numbers("modelRotation", 9) if get("modelRotation") else None,
        file=file,
        model=posixpath.normpath(get("model").lstrip("/")),
    )
