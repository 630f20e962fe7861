"""Furniture catalogues of Sweet Home 3D: .sh3f files in, textured meshes of a known size in metres out.

A .sh3f file is a zip of `PluginFurnitureCatalog.properties` (`name#N`, `category#N`, `model#N`, `width#N`, `depth#N`,
`height#N` and `elevation#N` in centimetres, `modelRotation#N`), and of Wavefront OBJ and MTL files with their textures.
http://www.sweethome3d.com/importModels.jsp; Debian ships five of them as sweethome3d-furniture. In the OBJ files y
points up; that is kept here.

Reading an OBJ file takes about a tenth of a second, so what became of it is kept in a cache folder.

Shapes: V vertices, F faces, M materials, T textures.
"""

import hashlib
import io
import os
import posixpath
import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from polyteach.datasets._arrays import read_arrays

FORMAT = 2
"""Version of the cached arrays; goes up when `Model` or how it is made changes."""

TEXTURE = 128
"""Side of a texture in pixels."""

HEAVIEST = 60_000
"""Faces above which a model is left out; 29 of the 787 in Debian's package are, or are no OBJ, or are empty."""

FACES = 2_500
"""Faces to which a model is simplified, about: at 64 pixels no more can be seen."""


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


@dataclass(frozen=True)
class Model:
    """A mesh that stands on y = 0, centred in x and z, of the piece's size.

    vertices: (V, 3) float32 metres. faces: (F, 3) int32. uv: (F, 3, 2) float32 of the corners, v upwards. material:
    (F,) int32. colour: (M, 3) float32, 0..1 as displays show them. texture: (M,) int32 index, -1 for none. textures:
    (T, TEXTURE, TEXTURE, 4) uint8, the last channel is 255 where it can be seen; the first row is v = 1.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    textures: np.ndarray


_FIELDS = ("vertices", "faces", "uv", "material", "colour", "texture", "textures")


# ---------------------------------------------------------------------------------------------------------------------
# The catalogue


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


# ---------------------------------------------------------------------------------------------------------------------
# OBJ


@dataclass
class _Material:
    colour: tuple[float, ...] = (0.7, 0.7, 0.7)
    opacity: float = 1.0
    texture: str = ""


def parse(piece: Piece, archive: zipfile.ZipFile) -> Model | None:
    """The mesh of a piece, in its size; None where it has no faces, or more than HEAVIEST.

    Raises:
        ValueError: the OBJ file is broken; says where.
    """
    members = {posixpath.normpath(n).lower(): n for n in archive.namelist()}

    def read(path: str) -> bytes:
        # names differ in case from what the files say; some are written on Windows
        return archive.read(members[posixpath.normpath(path.replace("\\", "/")).lower()])

    folder = posixpath.dirname(piece.model)
    text = read(piece.model)
    if not 0 < text.count(b"\nf ") + text.startswith(b"f ") <= HEAVIEST:
        return None
    vertices: list[list[float]] = []
    corners: list[list[float]] = [[0.0, 0.0]]  # the first is for corners without any
    faces: list[tuple[int, ...]] = []
    materials: dict[str, _Material] = {}
    order: dict[str, int] = {}
    current = order.setdefault("", 0)
    for number, line in enumerate(text.decode("latin-1").replace("\\\r\n", " ").replace("\\\n", " ").splitlines(), 1):
        word, _, rest = line.strip().partition(" ")
        try:
            if word == "v":
                vertices.append([float(x) for x in rest.split()[:3]])
            elif word == "vt":
                corners.append([float(x) for x in rest.split()[:2]])
            elif word == "f":
                at = [_corner(c, len(vertices), len(corners)) for c in rest.split()]
                faces += [
                    (at[0][0], at[k][0], at[k + 1][0], at[0][1], at[k][1], at[k + 1][1], current)
                    for k in range(1, len(at) - 1)
                ]
            elif word == "usemtl":
                current = order.setdefault(rest.strip(), len(order))
            elif word == "mtllib" and posixpath.normpath(posixpath.join(folder, rest.strip())).lower() in members:
                materials |= _materials(read(posixpath.join(folder, rest.strip())).decode("latin-1"))
        except (ValueError, IndexError) as e:
            raise ValueError(f"{piece.file}: {piece.model}, line {number}: {line.strip()[:60]!r}: {e}") from e
    if not 0 < len(faces) <= HEAVIEST:
        return None
    skins = [materials.get(name, _Material()) for name in order]
    textures: dict[str, int] = {}
    pictures: list[np.ndarray] = []
    for skin in skins:
        if skin.texture and skin.texture not in textures:
            try:
                pictures.append(_picture(read(posixpath.join(folder, skin.texture))))
            except (KeyError, OSError, ValueError):
                continue  # the colour stands in
            textures[skin.texture] = len(pictures) - 1
    table = np.array(faces, dtype=np.int64)
    points = np.array(vertices, dtype=np.float64)
    coordinates = np.array([c + [0.0] * (2 - len(c)) for c in corners], dtype=np.float64)
    shown = np.array([skin.opacity > 0.1 for skin in skins])[table[:, 6]]
    if not shown.any() or table[:, :3].max() >= len(points) or table.min() < 0:
        return None
    return simplified(
        Model(
            vertices=_fitted(points, table[:, :3], piece).astype(np.float32),
            faces=table[shown, :3].astype(np.int32),
            uv=np.nan_to_num(coordinates[table[shown, 3:6]]).astype(np.float32),
            material=table[shown, 6].astype(np.int32),
            colour=np.array([skin.colour for skin in skins], dtype=np.float32).clip(0, 1),
            texture=np.array([textures.get(skin.texture, -1) for skin in skins], dtype=np.int32),
            textures=np.stack(pictures) if pictures else np.zeros((0, TEXTURE, TEXTURE, 4), np.uint8),
        )
    )


def _corner(text: str, vertices: int, corners: int) -> tuple[int, int]:
    """Vertex and texture corner of `v`, `v/vt`, `v//vn` or `v/vt/vn`; from 1, or negative from the last one back."""
    parts = text.split("/")
    v = int(parts[0])
    t = int(parts[1]) if len(parts) > 1 and parts[1] else 0
    v, t = v - 1 if v > 0 else vertices + v, t if t >= 0 else corners + t
    if not 0 <= v < vertices:
        raise ValueError(f"there is no vertex {parts[0]}")
    return v, t if 0 <= t < corners else 0


def _materials(text: str) -> dict[str, _Material]:
    found: dict[str, _Material] = {}
    current = _Material()
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if word == "newmtl":
            current = found.setdefault(rest, _Material())
        elif word == "Kd":
            current.colour = tuple(float(x) for x in rest.split()[:3])
        elif word == "d":
            current.opacity = float(rest.split()[-1])
        elif word == "map_Kd":
            current.texture = rest.split()[-1] if rest.startswith("-") else rest  # options stand before the name
    return found


def _picture(data: bytes) -> np.ndarray:
    """(TEXTURE, TEXTURE, 4) uint8."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA").resize((TEXTURE, TEXTURE), Image.Resampling.BOX))


def _fitted(points: np.ndarray, faces: np.ndarray, piece: Piece) -> np.ndarray:
    """Turned by the piece's rotation, stretched to its size, put on y = 0."""
    if piece.rotation is not None:
        points = points @ np.reshape(piece.rotation, (3, 3)).T
    used = points[np.unique(faces)]
    low, high = used.min(0), used.max(0)
    out = (points - (low + high) / 2) / np.maximum(high - low, 1e-9) * piece.size
    out[:, 1] += piece.size[1] / 2
    return out


def simplified(model: Model) -> Model:
    """The model with about FACES faces at most: vertices in one cell of a grid become their mean.

    Rossignac and Borrel, "Multi-resolution 3D approximations for rendering complex scenes", 1993.
    """
    side = float(np.ptp(model.vertices, axis=0).max())
    cells = 160
    out = model
    while len(out.faces) > FACES and cells > 16:
        out = _clustered(model, side / cells)
        cells = int(cells * 0.8)
    return _compact(out)


def _clustered(model: Model, cell: float) -> Model:
    key = np.floor(model.vertices / cell).astype(np.int64)
    _, cluster, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    cluster = cluster.reshape(-1)
    mean = np.stack([np.bincount(cluster, model.vertices[:, k]) / count for k in range(3)], 1)
    faces = cluster[model.faces].astype(np.int32)
    flat = (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])
    _, first = np.unique(np.sort(faces, 1), axis=0, return_index=True)
    keep = np.zeros(len(faces), bool)
    keep[first] = True
    keep &= ~flat
    return Model(
        mean.astype(np.float32), faces[keep], model.uv[keep], model.material[keep],
        model.colour, model.texture, model.textures,
    )  # fmt: skip


def _compact(model: Model) -> Model:
    """Without vertices that no face uses, and faces without an area."""
    corner = model.vertices[model.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    keep = area > 1e-10
    used, faces = np.unique(model.faces[keep], return_inverse=True)
    return Model(
        model.vertices[used], faces.reshape(-1, 3).astype(np.int32), model.uv[keep], model.material[keep],
        model.colour, model.texture, model.textures,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# The cache


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/polyteach/rooms, or ~/.cache/polyteach/rooms."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polyteach" / "rooms"


@cache
def _digest(file: str, size: int, changed: int) -> str:
    """Of a file's bytes; read once while its size and time stay."""
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()[:16]


def models(pieces: list[Piece]) -> list[Model | None]:
    """The meshes of pieces, from the cache, or read and then kept there; None where one is unusable.

    Raises:
        ValueError: a broken model file. OSError: the cache cannot be written.
    """
    archives: dict[str, zipfile.ZipFile] = {}
    out: list[Model | None] = []
    try:
        for piece in pieces:
            about = os.stat(piece.file)
            name = hashlib.sha256(repr(piece.id).encode()).hexdigest()[:24]
            path = cache_folder() / f"{_digest(piece.file, about.st_size, about.st_mtime_ns)}-{FORMAT}" / f"{name}.npz"
            found = _kept(path)
            if found is False:
                if piece.file not in archives:
                    archives[piece.file] = zipfile.ZipFile(piece.file)
                found = parse(piece, archives[piece.file])
                _keep(path, found)
            out.append(found)
    finally:
        for archive in archives.values():
            archive.close()
    return out


def _kept(path: Path) -> Any:
    """A model, None for one that is unusable, or False where there is none to be had."""
    try:
        file = read_arrays(path)
        return Model(**{field: file[field] for field in _FIELDS}) if "faces" in file else None
    except (FileNotFoundError, ValueError, KeyError, EOFError):
        return False  # none, or a broken one, which is then replaced


def _keep(path: Path, model: Model | None) -> None:
    """Written under another name and renamed: that it exists means that it is whole, whoever else writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {} if model is None else {field: getattr(model, field) for field in _FIELDS}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **(fields or {"unusable": np.ones(1, bool)}))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
