"""Images beside maps of their pixels in one tree: which map is which image's, by folders and names."""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from polyteach.datasets import SPLITS, Entry, Labels, is_junk, printable, split_of, walk
from polyteach.ground.names import plain
from polyteach.tasks.contract import Target

_IMAGES = frozenset(
    ("images", "image", "imgs", "img", "imgdir", "jpegimages", "pngimages", "rgb", "rgbs", "photos", "pictures")
)
"""What folders of images are called, as `plain` leaves it."""
_IMAGE_END = re.compile(r"[-_](image|img|rgb|sat|colou?r|photo|leftImg8bit)$", re.IGNORECASE)


Read = Callable[[str, tuple[int, int]], Target]
"""The file of a map, and the (height, width) of its image -> what it says."""


@dataclass(frozen=True)
class Kind:
    """A kind of maps. what: one is called, several `whats`. folders: what their folders are called, as `plain` leaves
    it. end: how their names go on after the image's. option: that names their folder.
    """

    what: str
    whats: str
    folders: frozenset[str]
    end: re.Pattern[str]
    option: str
    images: frozenset[str] = frozenset()
    """What folders of images are called too."""
    ending: str = ""
    """Of the maps' files, where they are no images, such as ".xml"."""


@dataclass(frozen=True)
class Pair:
    """An image by its path within the tree, its map's path or None, and its split."""

    image: str
    map: str | None
    split: str | None
    problem: str | None = None


@dataclass
class Pairs:
    """By the images' paths. left_out and notes: as a dataset has them."""

    rows: list[Pair]
    left_out: Counter[str]
    notes: list[str]


class _Folders:
    """What a tree's folders say of the files in them."""

    def __init__(self, images: str, maps: str, kind: Kind) -> None:
        """images, maps: the folders' names, where they are given."""
        self._exact = {"image": images, "map": maps}
        self._words = {"image": _IMAGES | kind.images, "map": kind.folders}

    def read(self, folder: str) -> tuple[set[str], tuple[str, ...]]:
        """What files of a folder are, by the names of it and of those that it is in; and those names without that.

        "trainannot" and "train_masks" are the maps of "train".
        """
        said: set[str] = set()
        kept = []
        for part in folder.split("/") if folder else []:
            role, rest = self._part(part)
            said |= {role} - {""}
            kept += [rest] if rest else []
        return said, tuple(kept)

    def _part(self, part: str) -> tuple[str, str]:
        for role in ("map", "image"):
            exact = self._exact[role]
            if part == exact or (not exact and plain(part) in self._words[role]):
                return role, ""
            for split in sorted(SPLITS, key=len, reverse=True):
                low = part.lower()
                for rest in (low.removeprefix(split), low.removesuffix(split)):
                    word = plain(rest)
                    if len(rest) < len(part) and (word == plain(exact) if exact else word in self._words[role]):
                        return role, split
        return "", part


def paired(root: str, kind: Kind, images: str, maps: str) -> Pairs:
    """The images below `root`, each with its map. images, maps: names of their folders, or "" for the usual ones.

    Raises:
        ValueError: no image has a map.
    """
    found, left_out = walk(root)
    folders, known = _Folders(images, maps, kind), dict[str, tuple[set[str], tuple[str, ...]]]()
    by_role: dict[str, list[str]] = {"image": [], "map": [], "": []}
    for path in sorted(found):
        folder = posixpath.dirname(path.rstrip("/"))
        said, _ = known.setdefault(folder, folders.read(folder))
        mapped = "map" in said and not kind.ending
        by_role["map" if mapped else "image" if "image" in said else ""].append(path)
    if kind.ending:
        by_role["map"] = files_below(root, kind.ending)
        known |= {folder: folders.read(folder) for folder in map(posixpath.dirname, by_role["map"])}
        del left_out[kind.ending]
    taken, notes = _roles(by_role, kind, bool(images), bool(maps), left_out)
    own = {path: _key(path, known[posixpath.dirname(path.rstrip("/"))][1]) for path in (*taken["image"], *taken["map"])}
    at: dict[tuple[str, ...], list[str]] = {}
    for path in taken["image"]:
        at.setdefault(own[path], []).append(path)
    for path in taken["image"]:  # an image's own ending, where nothing is called so already
        *above, stem = own[path]
        if short := _IMAGE_END.sub("", stem):
            at.setdefault((*above, short), [path])
    of: dict[str, list[str]] = {}
    for path in taken["map"]:
        *above, stem = own[path]
        named = at.get(own[path]) or at.get((*above, kind.end.sub("", stem)), [])
        left_out[f"{kind.whats} without an image"] += not named
        for image in named:
            of.setdefault(image, []).append(path)
    if not of:
        raise ValueError(_nothing(root, kind, taken))
    rows = [
        _pair(root, path, of.get(path, []), known[posixpath.dirname(path.rstrip("/"))][1], found[path], kind)
        for path in taken["image"]
    ]
    if bare := sum(row.map is None and row.problem is None for row in rows):
        notes.append(f"{bare:,} images have no {kind.what}: they are unlabelled")
    if shared := sum(len(paths) > 1 for paths in at.values()):
        notes.append(f"{shared:,} {kind.whats} are each of several images, which differ in their ending alone")
    return Pairs(rows, +left_out, notes)


def entries(rows: Sequence[Pair], root: str, task: str, read: Read) -> Iterator[Entry]:
    """Of each pair the image, and what `read` makes of its map and the image's (height, width)."""
    for row in rows:
        targets = None if row.map is None else partial(_targets, read, os.path.join(root, row.map), task)
        yield Entry(uri=os.path.join(root, row.image), problem=row.problem, split=row.split, targets=targets)


def _targets(read: Read, file: str, task: str, size: tuple[int, int]) -> Labels:
    return {task: read(file, size)}


def _roles(
    found: dict[str, list[str]], kind: Kind, images: bool, maps: bool, left_out: Counter[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Which files are images and which are maps; images, maps: whether their folder was named."""
    taken, rest = {"image": found["image"], "map": found["map"]}, found[""]
    if not taken["map"] and not maps and not kind.ending:
        pool = [*taken["image"], *rest]
        stems = {_IMAGE_END.sub("", os.path.splitext(p)[0]) for p in pool}
        ends = [p for p in pool if kind.end.search(s := os.path.splitext(p)[0]) and kind.end.sub("", s) in stems]
        photographs = {os.path.splitext(p)[0] for p in pool if not p.lower().endswith(".png")}
        alike = [p for p in pool if p.lower().endswith(".png") and os.path.splitext(p)[0] in photographs]
        own = set(ends or alike)
        taken = {"map": sorted(own), "image": [p for p in pool if p not in own]}
        said = f"{len(own):,} files lie beside images, called as these are: read as {kind.whats}"
        return taken, [said] if own else []
    if not taken["image"] and not images:
        taken["image"] = rest
    else:
        left_out[f"images in other folders than those of images and {kind.whats}"] += len(rest)
    return taken, []


def files_below(root: str, ending: str) -> list[str]:
    """The files below `root` that end so, by their paths within it, sorted; not those of folders that systems make."""
    found: list[str] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(f for f in folders if not is_junk(f))
        if real in seen:  # links in a circle, or two to one folder
            continue
        seen.add(real)
        within = os.path.relpath(folder, root).replace(os.sep, "/")
        names = (f for f in files if f.lower().endswith(ending) and not f.startswith("."))
        found += [f if within == "." else f"{within}/{f}" for f in names]
    return sorted(found)


def _key(path: str, above: tuple[str, ...]) -> tuple[str, ...]:
    return (*(part.casefold() for part in above), os.path.splitext(posixpath.basename(path))[0])


def _pair(root: str, path: str, maps: list[str], above: tuple[str, ...], problem: str | None, kind: Kind) -> Pair:
    split = split_of("/".join(above))
    if len(maps) > 1 and problem is None:
        both = " and ".join(os.path.join(root, m) for m in maps[:2])
        problem = f"{os.path.join(root, path)}: has two {kind.whats}, {both}: name their folder with ?{kind.option}="
    elif problem is not None:
        problem = f"{os.path.join(root, path)}: {problem}"
    return Pair(
        path, maps[0] if maps and problem is None else None, None if split is None else printable(split), problem
    )


def _nothing(root: str, kind: Kind, taken: dict[str, list[str]]) -> str:
    said = []
    for role, called in (("image", "images"), ("map", kind.whats)):
        folders = sorted({posixpath.dirname(p) or "." for p in taken[role]})
        said.append(f"{called} in {', '.join(map(printable, folders[:4])) if folders else 'no folder'}")
    return (
        f"{root}: no image has a {kind.what}; found {' and '.join(said)}. Name the folders with "
        f"?images=NAME&{kind.option}=NAME; files belong together by name and by the folders above"
    )
