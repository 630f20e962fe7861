"""Textured meshes of a known size in metres, of a catalogue's Wavefront OBJ and MTL files.

Reading an OBJ file takes about a tenth of a second, so what became of it is kept in a cache folder.

Shapes: V vertices, F faces, M materials, T textures.
"""

import hashlib
import io
import os
import posixpath
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from polyteach.datasets._arrays import read_arrays
from polyteach.datasets.rooms.catalogue import Piece

FORMAT = 2
"""Version of the cached arrays; goes up when `Model` or how it is made changes."""

TEXTURE = 128
"""Side of a texture in pixels."""

HEAVIEST = 60_000
"""Faces above which a model is left out; 29 of the 787 in Debian's package are, or are no OBJ, or are empty."""

FACES = 2_500
"""Faces to which a model is simplified, about: at 64 pixels no more can be seen."""


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


@dataclass
class _Material:
    colour: tuple[float, ...] = (0.7, 0.7, 0.7)
    opacity: float = 1.0
    texture: str = ""


@dataclass
class _Obj:
    """What an OBJ file says, so far.

    vertices: points. corners: of textures; the first is for corners of faces without any. faces: triangles, of each the
    vertices, the textures' corners, and the material as an index into `order`.
    """

    vertices: list[list[float]] = field(default_factory=list)
    corners: list[list[float]] = field(default_factory=lambda: [[0.0, 0.0]])
    faces: list[tuple[int, ...]] = field(default_factory=list)
    materials: dict[str, _Material] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=lambda: {"": 0})
    current: int = 0

    def add(self, word: str, rest: str, library: Callable[[str], str | None]) -> None:
        """One line of the file. library: the text of a file of materials, or None where there is no such file.

        Raises:
            ValueError, IndexError: the line is broken.
        """
        if word == "v":
            self.vertices.append([float(x) for x in rest.split()[:3]])
        elif word == "vt":
            self.corners.append([float(x) for x in rest.split()[:2]])
        elif word == "f":
            at = [_corner(c, len(self.vertices), len(self.corners)) for c in rest.split()]
            self.faces += [
                (at[0][0], at[k][0], at[k + 1][0], at[0][1], at[k][1], at[k + 1][1], self.current)
                for k in range(1, len(at) - 1)
            ]
        elif word == "usemtl":
            self.current = self.order.setdefault(rest.strip(), len(self.order))
        elif word == "mtllib" and (text := library(rest.strip())) is not None:
            self.materials |= _materials(text)


def parse(piece: Piece, archive: zipfile.ZipFile) -> Model | None:
    """The mesh of a piece, in its size; None where it has no faces, or more than HEAVIEST.

    Raises:
        ValueError: the OBJ file is broken; says where.
    """
    members = {posixpath.normpath(n).lower(): n for n in archive.namelist()}
    folder = posixpath.dirname(piece.model)

    def read(path: str) -> bytes:
        # names differ in case from what the files say; some are written on Windows
        return archive.read(members[posixpath.normpath(path.replace("\\", "/")).lower()])

    def library(name: str) -> str | None:
        path = posixpath.join(folder, name)
        return read(path).decode("latin-1") if posixpath.normpath(path).lower() in members else None

    text = read(piece.model)
    if not 0 < text.count(b"\nf ") + text.startswith(b"f ") <= HEAVIEST:
        return None
    obj = _Obj()
    for number, line in enumerate(text.decode("latin-1").replace("\\\r\n", " ").replace("\\\n", " ").splitlines(), 1):
        word, _, rest = line.strip().partition(" ")
        try:
            obj.add(word, rest, library)
        except (ValueError, IndexError) as e:
            raise ValueError(f"{piece.file}: {piece.model}, line {number}: {line.strip()[:60]!r}: {e}") from e
    if not 0 < len(obj.faces) <= HEAVIEST:
        return None
    skins = [obj.materials.get(name, _Material()) for name in obj.order]
    textures, images = _textures(skins, lambda name: read(posixpath.join(folder, name)))
    table = np.array(obj.faces, dtype=np.int64)
    points = np.array(obj.vertices, dtype=np.float64)
    coordinates = np.array([c + [0.0] * (2 - len(c)) for c in obj.corners], dtype=np.float64)
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
            textures=np.stack(images) if images else np.zeros((0, TEXTURE, TEXTURE, 4), np.uint8),
        )
    )


def _textures(skins: Sequence[_Material], read: Callable[[str], bytes]) -> tuple[dict[str, int], list[np.ndarray]]:
    """The textures that the materials name: index by name, and each (TEXTURE, TEXTURE, 4) uint8."""
    found: dict[str, int] = {}
    images: list[np.ndarray] = []
    for skin in skins:
        if skin.texture and skin.texture not in found:
            try:
                images.append(_image(read(skin.texture)))
            except (KeyError, OSError, ValueError):
                continue  # the colour stands in
            found[skin.texture] = len(images) - 1
    return found, images


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


def _image(data: bytes) -> np.ndarray:
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
