"""WebDataset: tar shards in which files with one basename, one after another, are one sample.

    ROOT/train/00000.tar ...           or ROOT/train-00000.tar, ROOT/imagenet1k-val-00.tar: the split is in the path
        n01440764_10026.jpg            the image: a part whose extension is an image's
        n01440764_10026.cls            its class: a number in ASCII
        n01440764_10026.json           or in a field of this: `?label=FIELD`; a number, or a name

ROOT is a folder of .tar files, one of them, or a brace pattern: ROOT/train-{00000..00009}.tar, ROOT/{train,val}.tar.
Source: the WebDataset format, https://github.com/webdataset/webdataset (tariterators.py: `base_plus_ext`,
`group_by_keys`): the basename ends at the first dot of the file's name, folders belong to it, and what follows the dot
is the extension, in any case; files without one, and __meta__ files, are no part of a sample.

Class names: `?names=FILE`, one a line, within ROOT or absolute; else ROOT/classes.txt or ROOT/classnames.txt (as
CLIP_benchmark's shards have it). Without, classes are called by their numbers up to the largest, or, where the field is
text, by the names that are there, sorted. `?image=seg.png` takes images of another extension; & joins options.

Odd cases: a sample without a class is unlabelled; one with a class and no image, with two images, with a part
twice, or with a class that is no number (or none of the names) is an entry with a problem. A dot in a basename
(photo.v2.jpg) makes another extension (v2.jpg), as everywhere in WebDataset: such images are counted and left out.
Shards must be plain .tar, so that every image can be read by itself; a tar without its end mark is an error. The
bytes are always kept in the store, as with `--embed`. For an archive of unlabelled images: `tar:`, whose bounds hold
here too: an image whose file is larger than is allowed, or a label of more than 1 MiB, is an entry with a problem.
"""

import json
import os
import re
import tarfile
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

from polyteach.datasets import (
    Dataset,
    Entry,
    Labels,
    composed,
    numbered,
    options,
    printable,
    split_of,
    unshared,
)
from polyteach.datasets._archive import Archive, members
from polyteach.datasets._classes import of_class
from polyteach.ground.images import extensions
from polyteach.tasks.contract import Space

_BASE = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_META = re.compile(r"__[^/]*__($|/)")
_NAMES = ("classes.txt", "classnames.txt")
_LONGEST = 2**20
"""Bytes of a label."""
_PARTS = 64
"""Parts of a sample whose content is kept; a file with more of one base name than that is no sample."""
_NONE = -1


class _Part(NamedTuple):
    """A member: its name and extension, where its bytes start and how many they are; those themselves of a label."""

    name: str
    extension: str
    start: int
    size: int
    content: bytes


class WebDataset(Dataset):
    """Samples in the order of the shards, named SHARD/MEMBER. Scanned once when loaded; then read by position."""

    embed: ClassVar[bool] = True

    def __init__(self, path: str, image: str, label: str, names: str) -> None:
        root, self._shards = _shards(path)
        self._endings = frozenset([image.lower()] if image else [e[1:] for e in extensions()])
        self._field, self._label = label, "json" if label else "cls"
        self._known = self._endings | {self._label}
        self._names: list[str] = []
        super().__init__(self._names)
        self._firsts = array("q")  # of each shard, its first entry
        self._starts, self._sizes, self._labels = array("q"), array("q"), array("q")
        self._problems: dict[int, str] = {}
        self._broken: str | None = None  # the first bad label
        self._images = 0
        texts: dict[int, str] = {}  # classes that are names, by entry
        for shard in self._shards:
            self._firsts.append(len(self._names))
            within = os.path.relpath(shard, root).removesuffix(".tar")
            for key, parts in _samples(shard, self._label, self.left_out):
                self._add(f"{shard}: {printable(key)}", within, parts, texts)
        if not self._images:
            raise ValueError(
                f"{path} has no samples with an image. An extension starts at the first dot of a file's name; those "
                f"found are {', '.join(sorted(self.left_out)) or 'none'}; ?image=EXTENSION chooses one"
            )
        classes = self._classes(path, root, names, texts)
        if classes is not None:
            self.spaces = {"classification": Space(classes)}
        self._splits = [split_of(os.path.relpath(s, root).replace(os.sep, "/")) for s in self._shards]
        seen: dict[str, set[str]] = {}
        for i, text in texts.items():
            if split := self._splits[bisect_right(self._firsts, i) - 1]:
                seen.setdefault(split, set()).add(text)
        if said := unshared(seen):
            self.notes.append(said)

    def _add(self, sample: str, within: str, parts: list[_Part], texts: dict[int, str]) -> None:
        images = [p for p in parts if p.extension in self._endings]
        labels = [p for p in parts if p.extension == self._label]
        self.left_out.update(f".{p.extension}" for p in parts if p.extension not in self._known)
        if not images and not labels:
            return
        self._images += len(images)
        i, label = len(self._names), _NONE
        several = images if len(images) > 1 else labels if len(labels) > 1 else []
        if several:
            self._problems[i] = (
                f"{sample}: has several parts of a kind: {', '.join(printable(p.name) for p in several)}"
            )
        elif not images:
            self._problems[i] = f"{sample}: has .{labels[0].extension} and no image"
        elif labels:
            try:
                value = self._class(labels[0].content)
            except ValueError as e:
                self._problems[i] = f"{sample}.{labels[0].extension}: {e}"
                self._broken = self._broken or self._problems[i]
            else:
                if isinstance(value, str):
                    texts[i] = composed(value)
                elif value is not None:
                    label = value
        first = images[0] if images else labels[0]
        self._names.append(printable(f"{within}/{first.name}"))
        self._starts.append(first.start)
        self._sizes.append(first.size)
        self._labels.append(label)

    def _class(self, content: bytes) -> int | str | None:
        """What a .cls, or the field of a .json, says: an index, a name, or nothing."""
        if len(content) > _LONGEST:
            raise ValueError(f"has more than {_LONGEST:,} bytes")
        if not self._field:
            if not re.fullmatch(rb"\s*\d{1,18}\s*", content):
                raise ValueError(f"{content[:30]!r} is no class index")
            return int(content)
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as e:
            raise ValueError(f"is not valid JSON: {e}") from e
        if not isinstance(value, dict) or self._field not in value:
            raise ValueError(f"field {self._field!r} is missing")
        found = value[self._field]
        if isinstance(found, bool) or not isinstance(found, int | str | None) or (isinstance(found, int) and found < 0):
            raise ValueError(f"field {self._field!r} is {found!r}, neither a class index nor a name")
        return found

    def _classes(self, path: str, root: str, names: str, texts: dict[int, str]) -> tuple[str, ...] | None:
        """The class names; turns the labels that are names into numbers. None where nothing is labelled."""
        indexed = max(self._labels) > _NONE
        if not indexed and not texts:
            if self._broken:
                raise ValueError(self._broken)
            if names or self._field:
                given = f"label={self._field}" if self._field else f"names={names}"
                raise ValueError(f"{path} has no labels, so {given} is of no use")
            return None
        file, known = _named(root, names)
        if not known:
            if indexed and texts:
                i = next(iter(texts))
                raise ValueError(
                    f"{path}: field {self._field!r} is a number in some samples and {texts[i]!r} in others"
                )
            known = tuple(sorted(set(texts.values()))) if texts else numbered(self._labels, path)
        index = {name: i for i, name in enumerate(known)}
        for i, text in texts.items():
            if text in index:
                self._labels[i] = index[text]
            else:
                self._problems[i] = f"{self.names[i]}: field {self._field!r}: {text!r} is none of the names in {file}"
        return known

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        classes = len(self.spaces["classification"].names) if self.spaces else 0
        most = self.limits.max_bytes
        stop = min(stop, len(self._names))
        while start < stop:
            shard = bisect_right(self._firsts, start) - 1
            end = min(stop, self._firsts[shard + 1] if shard + 1 < len(self._firsts) else stop)
            with open(self._shards[shard], "rb") as file:
                for i in range(start, end):
                    if self._sizes[i] > most:
                        size = f"{self._sizes[i]:,} bytes, where an image's file has at most {most:,}"
                        yield Entry(problem=self._problems.get(i, f"{self.names[i]}: {size}"))
                        continue
                    file.seek(self._starts[i])
                    data = file.read(self._sizes[i])
                    if len(data) < self._sizes[i]:
                        raise ValueError(f"{self._shards[shard]} has become shorter: {self._names[i]} is cut")
                    label = self._labels[i]
                    yield Entry(
                        data=data,
                        problem=self._problems.get(i),
                        split=self._splits[shard],
                        targets=None if label == _NONE else partial(_targets, label, classes, self._names[i]),
                    )
            start = end


def _samples(shard: str, label: str, left_out: Counter[str]) -> Iterator[tuple[str, list[_Part]]]:
    """Base name and parts of each sample of a shard: neighbours that share it."""
    key, parts = "", list[_Part]()
    for own, part in _parts(shard, label, left_out):
        if own != key and parts:
            yield key.removeprefix("./"), parts
            parts = []
        key = own
        parts.append(part if len(parts) < _PARTS else part._replace(content=b""))
    if parts:
        yield key.removeprefix("./"), parts


def _parts(shard: str, label: str, left_out: Counter[str]) -> Iterator[tuple[str, _Part]]:
    """Base name, "./" included, and part of each member, with the content of those whose extension is `label`."""
    try:
        with Archive(shard, plain=True) as archive, open(shard, "rb") as file:
            for member in members(archive, marked=True):
                if member.isdir():
                    continue
                name = member.name.removeprefix("./")
                match = _BASE.fullmatch(name)
                if not match or _META.match(name) or not member.isreg() or member.issparse():
                    left_out["no part of a sample"] += 1
                    continue
                content = b""
                if match[2].lower() == label:
                    file.seek(member.offset_data)
                    content = file.read(min(member.size, _LONGEST + 1))
                dot = member.name[: len(member.name) - len(name)]
                yield dot + match[1], _Part(name, match[2].lower(), member.offset_data, member.size, content)
    except (tarfile.TarError, OSError, EOFError) as e:
        raise ValueError(f"{shard} cannot be read, is truncated, or no plain tar archive: {e}") from e


def _targets(label: int, classes: int, where: str, size: tuple[int, int]) -> Labels:
    return of_class(label, classes, where)


def _named(root: str, names: str) -> tuple[str, tuple[str, ...]]:
    """The file of class names and what is in it; nothing where there is none."""
    files = [os.path.join(root, n) for n in ([names] if names else _NAMES)]
    there = [f for f in files if names or os.path.isfile(f)]
    if not there:
        return "", ()
    if len(there) > 1:
        raise ValueError(f"{' and '.join(there)} both name classes; choose one: ?names={_NAMES[0]}")
    try:
        found = [composed(line.strip()) for line in Path(there[0]).read_text(encoding="utf-8-sig").rstrip().split("\n")]
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{there[0]}, of class names, cannot be read: {e}") from e
    if "" in found:
        raise ValueError(f"{there[0]}: line {found.index('') + 1} is empty; it must name class {found.index('')}")
    return there[0], tuple(found)


def _shards(path: str) -> tuple[str, list[str]]:
    """The folder that shards are named within, and the shards in order."""
    if os.path.isdir(path):
        found = sorted(os.path.join(at, f) for at, _, files in os.walk(path, followlinks=True) for f in files)
        shards = [f for f in found if f.endswith(".tar") and "/." not in f.removeprefix(path)]
        if not shards:
            packed = [f for f in found if re.search(r"\.(tar\.\w+|tgz)$", f)]
            hint = f"; unpack {packed[0]} and its like to plain .tar" if packed else ""
            raise ValueError(f"{path} has no .tar files{hint}; expected shards such as train-000000.tar")
        return path, shards
    if os.path.exists(path):
        return os.path.dirname(path), [path]
    if "{" not in path:
        raise ValueError(f"{path} does not exist; expected a folder of .tar shards, one, or a pattern {{000..009}}.tar")
    shards = list(dict.fromkeys(_expand(path)))
    missing = [s for s in shards if not os.path.isfile(s)]
    if missing:
        raise ValueError(f"{missing[0]} is missing ({len(missing)} of the {len(shards)} shards that {path} names)")
    return os.path.dirname(path.partition("{")[0]), shards


def _expand(pattern: str) -> list[str]:
    """What a shell makes of braces: {000..009} and {a,b}."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if not braces:
        return [pattern]
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", braces[1]):
        first, last = int(numbers[1]), int(numbers[2])
        width = (
            max(len(n) for n in numbers.groups()) if any(n[0] == "0" and len(n) > 1 for n in numbers.groups()) else 1
        )
        step = 1 if first <= last else -1
        ways = [f"{n:0{width}d}" for n in range(first, last + step, step)]
    elif "," in braces[1]:
        ways = braces[1].split(",")
    else:
        raise ValueError(f"{pattern}: {braces[0]} is neither {{first..last}} nor {{a,b}}")
    return [s for way in ways for s in _expand(pattern[: braces.start()] + way + pattern[braces.end() :])]


def load(path: str) -> Dataset:
    """The shards at `path`, which may end in ?label=FIELD&names=FILE&image=EXTENSION.

    Raises:
        ValueError: no shards, or one is missing, truncated or no tar; no images; no such names or labels.
    """
    where, option = options(path, {"label": "", "names": "", "image": ""})
    return WebDataset(where, option["image"], option["label"], option["names"])
