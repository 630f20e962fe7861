"""A folder of unlabelled pictures, with its subfolders: every file whose ending is an image's, sorted by path.

Labels that lie among them are not read; those of known forms are told, with the way to read them.
"""

import os
from collections.abc import Iterator

from polyteach.datasets import Dataset, Entry, printable, walk


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
        self.notes += _labels(path)
        self._files = [(os.path.join(path, f), found[f]) for f in files]

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for uri, problem in self._files[start:stop]:
            yield Entry(uri=uri, problem=problem)


def _labels(path: str) -> list[str]:
    """What to say of labels that lie in a folder in the forms of other readers."""
    files: set[tuple[str, str]] = set()
    for folder in [path, *(f.path for f in os.scandir(path) if f.is_dir())]:
        if os.access(folder, os.R_OK | os.X_OK):
            files |= {(os.path.basename(folder), name) for name in os.listdir(folder)}
    names = {name for _, name in files}
    notes = []
    if "_annotations.coco.json" in names or any(f == "annotations" and n.endswith(".json") for f, n in files):
        notes.append(f"COCO's annotations lie in {path} and were not read: give coco:{path}")
    if "ImageSets" in names or any(name in ("VOC2007", "VOC2012") for name in names):
        notes.append(f"Pascal VOC's annotations lie in {path} and were not read: give voc:{path}")
    if "data.yaml" in names or ("labels" in names and "images" in names):
        notes.append(
            f"{path} looks like a data set of YOLO's (text files of labels), which were not read: no reader of them is "
            "there; convert them to COCO's JSON and give coco:PATH"
        )
    return notes


def load(path: str) -> Dataset:
    """The folder at `path`.

    Raises:
        ValueError: it is none, or cannot be listed.
    """
    return Pictures(path)
