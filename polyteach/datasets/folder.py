"""Class folders: the folder that an image is in names its class.

    ROOT/CLASS/**/x.jpg                 as torchvision's ImageFolder reads them (torchvision/datasets/folder.py)
    ROOT/SPLIT/CLASS/**/x.jpg           SPLIT: train, val, valid, validation, test, ... (`polyteach.datasets.SPLITS`)

The tree has splits where every folder of ROOT that holds images bears a split's name (`folder:ROOT?splits=no`: they
are classes all the same). The classes are the names of the class folders of all splits, sorted, as ImageFolder numbers
them; a class that only one split has is a class, and so is an empty folder. A split whose images lie in no class
folders at all (a challenge's test set) is unlabelled. One that shares no class with the other splits is an error: its
folders name something else, as val/images/ of Tiny ImageNet does; where classes differ on purpose (few-shot sets),
`folder:ROOT?disjoint=yes`; & joins options.

Odd cases: files that are no images, and hidden ones, are counted and left out, and so are folders that systems make
(__MACOSX, @eaDir); folders whose names differ only in their form of Unicode (NFC, NFD) are one class, named in NFC;
links are followed; an image in a split's folder beside class folders is that image's problem; images in ROOT
itself are an error, and so is a single class folder with folders in it: then ROOT is one level too high.
"""

import os
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import partial

from polyteach.datasets import (
    SPLITS,
    Dataset,
    Entry,
    Labels,
    composed,
    is_folder,
    is_junk,
    options,
    printable,
    unshared,
    walk,
)
from polyteach.datasets._classes import of_class
from polyteach.tasks.contract import Space

_NONE = -1


class Folder(Dataset):
    """Images in class folders, sorted by path."""

    def __init__(self, path: str, may_have_splits: bool, may_be_disjoint: bool = False) -> None:
        found, left_out = walk(path)
        files = sorted(found)
        loose = [f for f in files if "/" not in f]
        if loose:
            raise ValueError(
                f"{os.path.join(path, loose[0])} is in no class folder ({len(loose):,} such images); for images "
                f"without labels give {path} without 'folder:'"
            )
        splits = _splits(path, files) if may_have_splits else []
        classes = {c for s in splits or [""] for c in _folders(os.path.join(path, s))}
        depth = 1 if splits else 0
        labelled = {f.split("/")[0] for f in files if f.count("/") > depth}  # splits with class folders
        if not any(f.count("/") > depth for f in files):
            raise ValueError(
                f"{path} has no images in class folders; expected ROOT/CLASS/x.jpg or ROOT/SPLIT/CLASS/x.jpg with "
                f"SPLIT one of {', '.join(sorted(SPLITS))}"
            )
        names = sorted({composed(c) for c in classes})
        index = {c: i for i, c in enumerate(names)}
        super().__init__([printable(f) for f in files])
        self.spaces = {"classification": Space(tuple(printable(c) for c in names))}
        self.left_out = left_out
        self._note(classes, names)
        _check_level(path, files, names, depth)
        if splits and not may_be_disjoint:
            self._compare(path, files)
        self._path, self._files = path, files
        self._depth = depth
        self._labels = array("i")
        self._problems: dict[int, str] = {}
        for i, file in enumerate(files):
            parts = file.split("/")
            own = parts[depth] if len(parts) > depth + 1 else None
            self._labels.append(_NONE if own is None else index[composed(own)])
            if found[file] is not None:
                self._problems[i] = f"{file}: {found[file]}"
            elif own is None and parts[0] in labelled:
                self._problems[i] = f"{file}: is in no class folder, but others of {parts[0]} are"

    def _compare(self, path: str, files: list[str]) -> None:
        """Refuse splits without a common class, and say which classes only one split has."""
        seen: dict[str, set[str]] = {}
        for split, *above in (f.split("/", 2)[:-1] for f in files):
            if above:  # else the image is in no class folder
                seen.setdefault(split, set()).add(composed(above[0]))
        if said := unshared(seen):
            raise ValueError(
                f"{path}: {said}. So the folders of one of them name no classes: sort its images into folders "
                f"called as the others', or move unlabelled ones into the split's folder itself; where splits differ "
                f"on purpose, give folder:{path}?disjoint=yes"
            )
        every = Counter(c for own in seen.values() for c in own)
        alone = sorted(c for c, n in every.items() if n == 1)
        if len(seen) > 1 and alone:
            shown = ", ".join(map(printable, alone[:5])) + (", ..." if len(alone) > 5 else "")
            self.notes.append(f"{len(alone):,} classes have images in one split only: {shown}")

    def _note(self, folders: set[str], names: list[str]) -> None:
        """Say where several folders are one class, or classes are nearly called alike."""
        if len(names) < len(folders):
            self.notes.append(
                f"{len(folders) - len(names):,} class folders have the name of another in another form of Unicode: "
                "taken as one class"
            )
        alike: dict[str, list[str]] = {}
        for name in names:
            alike.setdefault(" ".join(name.casefold().split()), []).append(name)
        self.notes += [
            f"the class folders {' and '.join(map(repr, same))} differ in capitals or spaces only: several classes"
            for same in alike.values()
            if len(same) > 1
        ]

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        classes = len(self.spaces["classification"].names)
        for i in range(start, min(stop, len(self._files))):
            file, label = self._files[i], self._labels[i]
            yield Entry(
                uri=os.path.join(self._path, file),
                problem=self._problems.get(i),
                split=printable(file.split("/")[0]) if self._depth else None,
                targets=None if label == _NONE else partial(_targets, label, classes, file),
            )


def _targets(label: int, classes: int, file: str, size: tuple[int, int]) -> Labels:
    return of_class(label, classes, file)


def _check_level(path: str, files: list[str], names: list[str], depth: int) -> None:
    """Refuse one class whose images lie in several folders of its own: those are the classes, or the splits."""
    if len(names) > 1:
        return
    below = sorted({f.split("/")[depth + 1] for f in files if f.count("/") > depth + 1})
    if below:
        top = os.path.join(path, files[0].split("/")[0])
        raise ValueError(
            f"{path} has one class folder only, {names[0]}, and folders in it ({', '.join(below[:3])}): if the tree is "
            f"one level below, give folder:{top}"
        )


def _splits(path: str, files: list[str]) -> list[str]:
    """The folders that are splits, or none where ROOT has class folders."""
    tops = {f.split("/")[0] for f in files}
    nested = {f.split("/")[0] for f in files if f.count("/") > 1}  # hold images in folders of their own
    loose = {f.split("/")[0] for f in files if f.count("/") == 1}
    named = sorted(t for t in tops if t.lower() in SPLITS)
    others = sorted(tops.difference(named))
    if named and not others:
        if not nested:
            raise ValueError(
                f"{path} has folders {', '.join(named)}, which name splits, but no class folders in them; expected "
                f"ROOT/SPLIT/CLASS/x.jpg. For images without labels give {path} without 'folder:'"
            )
        return named
    doubtful = [t for t in named if t in nested and t not in loose]
    if doubtful:
        raise ValueError(
            f"{path}: {', '.join(doubtful)} look like splits (class folders within), {', '.join(others[:5])} do not; "
            f"either all folders of ROOT that hold images are splits (move the others away), or they are classes "
            f"(give folder:{path}?splits=no)"
        )
    return []


def _folders(path: str) -> list[str]:
    try:
        return [f.name for f in os.scandir(path) if is_folder(f) and not is_junk(f.name)]
    except OSError:  # `walk` made it an entry with its problem
        return []


def load(path: str) -> Dataset:
    """The tree at `path`, which may end in ?splits=no&disjoint=yes.

    Raises:
        ValueError: it is no folder, its images are in no class folders, or a split's folders name something else.
    """
    where, option = options(path, {"splits": "auto", "disjoint": "no"})
    for name, known in (("splits", ("auto", "no")), ("disjoint", ("yes", "no"))):
        if option[name] not in known:
            raise ValueError(f"{name}={option[name]} in folder:{path}: there are {' and '.join(known)}")
    return Folder(where, option["splits"] == "auto", option["disjoint"] == "yes")
