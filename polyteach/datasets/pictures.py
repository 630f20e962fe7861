"""A folder of unlabelled images, with its subfolders: every file whose ending is an image's, sorted by path.

Labels that lie among them are not read; those of known forms are told, with the way to read them, and so are images
that are likely class maps.
"""

import os
import re
from collections.abc import Iterator, Sequence

from polyteach.datasets import Dataset, Entry, is_folder, printable, walk

_MAPS = re.compile(r"annot|mask|segment|label|ground.?truth|(^|[^a-z])gt([^a-z]|$)", re.IGNORECASE)
"""What folders of class maps are called in the usual data sets."""


class Pictures(Dataset):
    """Files of a folder and of all below it, links followed; named by their path within it, with '/'.

    Files with other endings, and hidden ones, are counted in `left_out`. A subfolder that cannot be listed is an
    entry of its own, with its problem.
    """

    def __init__(self, path: str) -> None:
        found, left_out = walk(path)
        files = sorted(found)
        super().__init__([printable(f) for f in files])
        self.left_out = left_out
        self.notes += _labels(path, files)
        self._files = [(os.path.join(path, f), found[f]) for f in files]

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for uri, problem in self._files[start:stop]:
            yield Entry(uri=uri, problem=problem)


def _labels(path: str, images: Sequence[str]) -> list[str]:
    """What to say of labels that lie in a folder in the forms of other readers, or as images among the images."""
    folders = [path, *(f.path for f in os.scandir(path) if is_folder(f) and os.access(f.path, os.R_OK | os.X_OK))]

    def there(*names: str) -> bool:
        return any(os.path.exists(os.path.join(folder, name)) for folder in folders for name in names)

    listed = [f for f in folders if os.path.basename(f) == "annotations"]
    notes = []
    if there("_annotations.coco.json") or any(n.endswith(".json") for f in listed for n in os.listdir(f)):
        notes.append(f"COCO's annotations lie in {path} and were not read: give coco:{path}")
    if there("ImageSets", "VOC2007", "VOC2012"):
        notes.append(f"Pascal VOC's annotations lie in {path} and were not read: give voc:{path}")
    if there("data.yaml") or (there("labels") and there("images")):
        notes.append(
            f"{path} looks like a data set of YOLO's (text files of labels), which were not read: give yolo:{path}"
        )
    return (notes + _maps(images)) or _classes(path, images)


def _classes(path: str, images: Sequence[str]) -> list[str]:
    """What to say where all images lie in several folders, as those of classes do."""
    folders = {p.split("/")[0] for p in images}
    if len(folders) < 2 or any(p.count("/") != 1 for p in images):
        return []
    shown = ", ".join(sorted(map(printable, folders))[:3])
    return [
        f"all images lie in {len(folders):,} folders ({shown}, ...): if these are classes, they were not read; give "
        f"folder:{path}"
    ]


def _maps(images: Sequence[str]) -> list[str]:
    """What to say of images that are likely labels: their folder's name says so, and others have their names."""
    folders = dict.fromkeys(os.path.dirname(p) for p in images)
    named = {folder for folder in folders if _MAPS.search(folder)}
    if not named:
        return []
    inside = [p for p in images if os.path.dirname(p) in named]
    others = {_stem(p) for p in images if os.path.dirname(p) not in named}
    alike = [p for p in inside if _stem(p) in others]
    if not alike:
        return []
    shown = ", ".join(sorted({printable(os.path.dirname(p)) for p in alike})[:5])
    return [
        f"{len(alike):,} images in {shown} are called as others are: if they are masks of classes, and no "
        "photographs, give masks:PATH?names=FILE, or a folder without them"
    ]


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def load(path: str) -> Dataset:
    """The folder at `path`.

    Raises:
        ValueError: it is none, or cannot be listed.
    """
    return Pictures(path)
