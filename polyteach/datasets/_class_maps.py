"""Maps of the class of each pixel: PNG files of indices, with a palette or without, and of colours."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64

from polyteach.datasets._class_lists import ClassList, Colour, as_colour
from polyteach.datasets._files import png
from polyteach.ground.names import plain
from polyteach.tasks.segmentation import IGNORE, SegmentationTarget

_INDEXED = ("1", "L", "P", "I;16", "I")
_COLOURED = ("RGB", "RGBA")
_VOID_NAMES = frozenset(
    ("void", "unlabeled", "unlabelled", "ignore", "ignored", "ignoreregion", "unknown", "undefined", "dontcare")
)
"""Names, as `plain` leaves them, of what is no class: pixels that nobody named."""
_VOID = 255
"""The index that most data sets leave for it."""
_NONE = -1
_LARGEST = 1 << 16


@dataclass(frozen=True)
class MapReader:
    """How the maps of one data set are read.

    names: of the classes, in the order of their index. by_index: the category of each pixel value, IGNORE, or -1 for
    what is none. by_colour: that of each colour, where there is a table of them. colours_first: they are read by
    colour, not by index.
    """

    names: tuple[str, ...]
    by_index: Int64[np.ndarray, " 65536"]
    by_colour: dict[Colour, int]
    colours_first: bool
    binary: bool
    """Two classes, of which nobody said which values they have: a map of 0 and 255 could be read in two ways."""

    def read(self, path: str, size: tuple[int, int]) -> SegmentationTarget:
        """The map at `path` of an image of (height, width) `size`.

        Raises:
            ValueError: it is missing, broken, no PNG, of another size, or shows what is no class: lists that.
        """
        what = "a PNG of indices or of colours"
        pixels, palette = png(path, size, (*_INDEXED, *_COLOURED), what)
        if palette is not None and self.colours_first:
            used = np.unique(pixels)
            if used[-1] >= len(palette):
                raise ValueError(f"{path}: index {used[-1]} has no colour in its palette of {len(palette)}")
            category = self._colours(path, np.array(palette, dtype=np.uint8)[pixels])
        elif pixels.ndim == 2 and not self.colours_first:
            category = self._indices(path, pixels)
        elif pixels.ndim == 2:
            if pixels.dtype != np.uint8:
                raise ValueError(f"{path}: must be of 8 bits, to be read by colour; it is {pixels.dtype}")
            category = self._colours(path, np.repeat(pixels[..., None], 3, axis=2))
        else:
            category = self._channels(path, pixels)
        known = torch.from_numpy(category)
        return SegmentationTarget(category=known, probability=(known != IGNORE).float())

    def _channels(self, path: str, pixels: np.ndarray) -> Int64[np.ndarray, "H W"]:
        if pixels.shape[2] == 4 and (pixels[..., 3] != 255).any():
            raise ValueError(f"{path}: has transparent pixels, of which it is not known what they show")
        if self.by_colour:
            return self._colours(path, pixels[..., :3])
        if (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all():
            return self._indices(path, pixels[..., 0])
        raise ValueError(
            f"{path}: is of colours, and the classes have none: give a file that says which class has which colour, "
            "as CSV name,r,g,b or lines of R G B name, with ?names=FILE"
        )

    def _indices(self, path: str, pixels: np.ndarray) -> Int64[np.ndarray, "H W"]:
        pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
        low, high = int(pixels.min()), int(pixels.max())
        if low < 0 or high >= _LARGEST:
            raise ValueError(f"{path}: holds indices from {low} to {high}, of at most {_LARGEST - 1}")
        counts = np.bincount(pixels.reshape(-1))
        found = np.flatnonzero(counts)
        if self.binary and set(found.tolist()) == {0, _VOID}:
            raise ValueError(
                f"{path}: holds 0 and 255 alone: give ?values=0,255 where 255 is {self.names[1]!r}, or ?void=255 where "
                "it is unknown"
            )
        if (self.by_index[found] == _NONE).any():
            strange = ", ".join(f"{i} ({counts[i]:,} pixels)" for i in found if self.by_index[i] == _NONE)
            raise ValueError(
                f"{path}: {strange[:200]} is no class; it holds {_ranges(found)}, and the {len(self.names):,} classes "
                f"are {_ranges(np.flatnonzero((self.by_index >= 0) & (self.by_index != IGNORE)))}, unknown is "
                f"{_ranges(np.flatnonzero(self.by_index == IGNORE))}: correct the names, or give ?void= or ?first="
            )
        return self.by_index[pixels]

    def _colours(self, path: str, pixels: np.ndarray) -> Int64[np.ndarray, "H W"]:
        codes = (pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)).reshape(-1)
        table = np.array(sorted((r << 16 | g << 8 | b, i) for (r, g, b), i in self.by_colour.items()), dtype=np.int64)
        place = np.searchsorted(table[:, 0], codes).clip(max=len(table) - 1)
        strange = table[place, 0] != codes
        if strange.any():
            other, counts = np.unique(codes[strange], return_counts=True)
            most = [int(other[i]) for i in np.argsort(-counts, kind="stable")[:5]]
            said = ", ".join(f"{c >> 16},{c >> 8 & 255},{c & 255}" for c in most)
            raise ValueError(
                f"{path}: {int(strange.sum()):,} pixels are of {len(other):,} colours of no class, such as {said}; "
                "?by=index reads indices, and many colours between those of classes come of resizing or JPEG"
            )
        return table[place, 1].reshape(pixels.shape[:2])


def _ranges(numbers: Int64[np.ndarray, " n"]) -> str:
    """Sorted numbers as 0..3, 7; the first of many."""
    runs: list[list[int]] = []
    for n in numbers.tolist():
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    said = [str(a) if a == b else f"{a}..{b}" for a, b in runs[:20]]
    return ", ".join(said) + (", ..." if len(runs) > 20 else "") if said else "nothing"


def map_reader(
    classes: ClassList, void: str = "auto", first: int = 0, values: str = "", by: str = "auto"
) -> tuple[MapReader, list[str]]:
    """How maps are read whose classes are `classes`, and what to say of it.

    void: what is neither learned nor counted: indices, names or #rrggbb with commas between them; "none"; or "auto":
    classes with a name like void, and 255 where it is no class. first: the index of the first class. values: the pixel
    values of the classes, in their order. by: "index", "colour", or "auto": by colour where `classes` has colours (of
    palette images that of the palette), else by index.

    Raises:
        ValueError: these contradict one another, or fewer than two classes are left.
    """
    moved = _moved(classes, first, values)
    notes: list[str] = []
    ignored, colours = _void(moved, void, notes)
    learned = [i for i in sorted(moved.names) if i not in ignored]
    if len(learned) < 2:
        raise ValueError(
            f"{classes.path}: {len(learned)} classes are left to tell apart, of at least 2: name what is "
            "elsewhere too, as background"
        )
    by_index = np.full(_LARGEST, _NONE, dtype=np.int64)
    by_index[learned] = range(len(learned))
    by_index[sorted(ignored)] = IGNORE
    if by == "colour" and not moved.colours:
        raise ValueError(f"{classes.path}: has no colours, which ?by=colour needs")
    table = {c: int(by_index[i]) for c, i in moved.colours.items()} | dict.fromkeys(colours, IGNORE)
    table = {} if by == "index" else table
    binary = len(learned) == 2 and void == "auto" and not values and _VOID not in moved.names
    names = tuple(moved.names[i] for i in learned)
    return MapReader(names, by_index, table, by != "index" and bool(moved.colours), binary), notes


def _moved(classes: ClassList, first: int, values: str) -> ClassList:
    """The classes by their pixel values."""
    if not first and not values:
        return classes
    order = sorted(classes.names)
    if values:
        words = values.split(",")
        if not all(w.strip().isascii() and w.strip().isdigit() for w in words) or len(words) != len(order):
            raise ValueError(
                f"?values={values}: must be {len(order)} pixel values with commas, one for each class of {classes.path}"
            )
        new = dict(zip(order, map(int, words), strict=True))
    else:
        new = {i: i + first for i in order}
    if len(set(new.values())) < len(new) or max(new.values()) >= _LARGEST:
        raise ValueError(f"?values={values}: must be different ones below {_LARGEST}")
    return replace(
        classes,
        names={new[i]: n for i, n in classes.names.items()},
        colours={c: new[i] for c, i in classes.colours.items()},
    )


def _void(classes: ClassList, void: str, notes: list[str]) -> tuple[set[int], set[Colour]]:
    """The pixel values and the colours that are neither learned nor counted."""
    if void == "none":
        return set(), set()
    if void == "auto":
        named = {i for i, n in classes.names.items() if plain(n) in _VOID_NAMES}
        for i in sorted(named):
            notes.append(
                f"{classes.names[i]!r} ({i}) is taken for what nobody named, and not learned; ?void=none learns it"
            )
        below = {0} if classes.names and min(classes.names) == 1 else set[int]()
        notes += ["index 0 has no name: not learned"] * bool(below)
        return named | below | ({_VOID} if _VOID not in classes.names else set()), set()
    indices: set[int] = set()
    colours: set[Colour] = set()
    called = {n: i for i, n in classes.names.items()}
    for word in (w.strip() for w in void.split(",")):
        if word in called:
            indices.add(called[word])
        elif word.isascii() and word.isdigit() and int(word) < _LARGEST:
            indices.add(int(word))
        elif word.startswith("#"):
            colours.add(as_colour(f"?void={void}", word))
        else:
            raise ValueError(
                f"?void={void}: {word!r} is no index, no #rrggbb, and none of the classes of {classes.path}"
            )
    return indices | {classes.colours[c] for c in colours if c in classes.colours}, colours
