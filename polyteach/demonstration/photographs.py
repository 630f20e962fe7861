"""The demo's photographs: where they come from, and small copies of them in two halves."""

import io
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import torch.nn.functional as F
from PIL.Image import Resampling
from torch import Tensor
from torchvision.transforms.v2.functional import resize, to_pil_image

from polyteach.demonstration.stages import note
from polyteach.ground.files import read_json, replacing, write_json
from polyteach.ground.images import BadImage, decode, extensions

PACKAGES = ("interior_photos", "foolbox", "skimage")
DEBIAN = "gcompris-qt-data"
SIDE = 384
"""Most pixels of a photograph's longer side: it is decoded again for every view, which would take longer than to learn
from it."""
HELD_OUT = 5
"""One photograph in so many is held out."""
SAME = 0.98
"""Correlation of two photographs, seen at 24x24, above which they are taken for one."""
_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "hubble_deep_field", "camera")
_BUNDLES = ("clickgame", "erase", "explore_farm_animals", "explore_monuments", "explore_world_animals")
_FOLDERS = ("renewable", "fishes", "monuments", "others")  # of the bundle "categorization"; the rest are drawings


def copied(folder: Path, own: str | None, debian: bool, limit: int) -> dict[str, int]:
    """Copies of the photographs in photos/train and photos/heldout; how many came from where."""
    done = folder / "photos" / "sources.json"
    if done.exists():
        return {str(k): int(v) for k, v in read_json(done).items()}
    found: list[tuple[str, str, bytes]] = []
    looks: list[Tensor] = []
    for source, name, data in _own(own, limit) if own else _packaged(folder, debian):
        try:
            pixels = decode(data)
        except BadImage:
            continue  # packages hold drawings in odd formats beside their photographs
        if min(pixels.shape[1:]) < 96:
            continue  # icons and thumbnails
        look = _look(pixels)
        # the same photograph at two sizes would be both learned from and held out
        if any(bool((look * other).sum() > SAME) for other in looks):
            continue
        looks.append(look)
        found.append((source, name, _shrunk(pixels)))
    if len(found) < 10:
        where = own or "the packages"
        raise ValueError(f"only {len(found)} photographs in {where}; the demo needs 10. pip install 'polyteach[demo]'")
    spread = [found[i * len(found) // min(limit, len(found))] for i in range(min(limit, len(found)))]
    # by a hash of the name: the same ones whatever the order, and no neighbours of one folder
    order = sorted(spread, key=lambda photo: sha256(f"{photo[0]}-{photo[1]}".encode()).digest())
    counts: dict[str, int] = {}
    for i, (source, name, data) in enumerate(order):
        half = "heldout" if i < len(order) // HELD_OUT else "train"
        with replacing(folder / "photos" / half / f"{source}-{name}.jpg") as temporary:
            temporary.write_bytes(data)
        counts[source] = counts.get(source, 0) + 1
    write_json(done, counts)
    return counts


def _shrunk(pixels: Tensor) -> bytes:
    """The photograph with a longer side of at most `SIDE`, as JPEG: what networks of 128 to 320 pixels can see."""
    image, out = to_pil_image(pixels), io.BytesIO()
    image.thumbnail((SIDE, SIDE), Resampling.BOX, reducing_gap=2)
    image.save(out, format="JPEG", quality=92)
    return out.getvalue()


def _look(pixels: Tensor) -> Tensor:
    """What the photograph looks like at 24x24: without mean, of unit length, so that a product is a correlation."""
    small = resize(pixels.float(), [24, 24], antialias=True).flatten()
    return F.normalize(small - small.mean(), dim=0)


def _own(folder: str, limit: int) -> Iterator[tuple[str, str, bytes]]:

    if not Path(folder).is_dir():
        raise ValueError(f"photos {folder} is not a folder")
    files = sorted(f for f in Path(folder).rglob("*") if f.suffix.lower() in extensions())
    # evenly spread before any is read, with some to spare for unusable ones: the folder may hold very many
    n = min(2 * limit, len(files))
    for i in (k * len(files) // n for k in range(n)):
        yield "own", f"{i:05d}-{files[i].name}", files[i].read_bytes()


def _packaged(folder: Path, debian: bool) -> Iterator[tuple[str, str, bytes]]:
    """Photographs that lie in installed packages, which are located and never imported, then Debian's."""
    kinds = (".jpg", ".jpeg", ".png", ".webp")
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"package {package} is not installed; pip install 'polyteach[demo]'")
        root = Path(next(iter(spec.submodule_search_locations)))
        for file in sorted(f for f in root.rglob("*") if f.suffix.lower() in kinds):
            if package == "foolbox" and not file.name.startswith("imagenet"):
                continue  # the others are 32 pixels wide
            if package == "skimage" and file.stem not in _PHOTOGRAPHS:
                continue
            yield package, file.name, file.read_bytes()
    if debian:
        yield from _debian(folder)


def _debian(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Photographs of animals, fish, monuments and tools of gcompris (GPL-3, see the package), where apt-get is."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        note("no apt-get here: going on with the photographs of the Python packages")
        return
    room = folder / "packages"
    room.mkdir(exist_ok=True)
    try:
        if not list(room.glob("*.deb")):
            subprocess.run(["apt-get", "download", DEBIAN], cwd=room, check=True, capture_output=True, timeout=120)
        subprocess.run(["dpkg-deb", "-x", next(room.glob("*.deb")).name, "."], cwd=room, check=True, timeout=120)
    except (subprocess.SubprocessError, StopIteration) as e:
        shutil.rmtree(room)  # half a download would be taken for a whole one the next time
        note(f"apt-get download {DEBIAN} did not work ({type(e).__name__}): going on without it")
        return
    for bundle in sorted(room.rglob("*.rcc")):
        for name, data in qt_resources(bundle):
            path = Path(name)
            photographic = bundle.stem in _BUNDLES or path.parent.name in _FOLDERS
            if photographic and path.suffix.lower() in (".webp", ".jpg", ".jpeg"):
                yield "gcompris", f"{bundle.stem}-{path.parent.name}-{path.name}", data
    shutil.rmtree(room)


def qt_resources(file: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file in a Qt resource bundle (.rcc, qt's qresource.cpp; zlib or stored entries)."""
    blob = file.read_bytes()
    magic, version, tree, data, names = struct.unpack(">4s4I", blob[:20])
    if magic != b"qres":
        return
    step = 22 if version >= 2 else 14

    def walk(node: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * step
        label, flags = struct.unpack(">IH", blob[at : at + 6])
        if node:
            (length,) = struct.unpack(">H", blob[names + label : names + label + 2])
            prefix += "/" + blob[names + label + 6 : names + label + 6 + 2 * length].decode("utf-16-be")
        if flags & 2:
            count, first = struct.unpack(">II", blob[at + 6 : at + 14])
            for child in range(first, first + count):
                yield from walk(child, prefix)
            return
        (offset,) = struct.unpack(">I", blob[at + 10 : at + 14])
        (size,) = struct.unpack(">I", blob[data + offset : data + offset + 4])
        content = blob[data + offset + 4 : data + offset + 4 + size]
        if not flags & 4:  # zstd: none of the photographs is
            yield prefix, zlib.decompress(content[4:]) if flags & 1 else content

    yield from walk(0, "")
