"""A folder of pictures, with its subfolders: every file whose ending is an image's, sorted by path."""

import os
from collections import Counter
from collections.abc import Iterator

from polyteach.datasets import Dataset, Entry, kind, printable


class Folder(Dataset):
    """Files of a folder and of all below it, links followed; named by their path within it, with '/'.

    Files with other endings, and hidden ones, are counted in `left_out`. A subfolder that cannot be listed is an
    entry of its own, with its problem.
    """

    def __init__(self, path: str) -> None:
        found: dict[str, str | None] = {}
        left_out: Counter[str] = Counter()
        _walk(path, "", (), found, left_out)
        files = sorted(found)
        super().__init__([printable(f) for f in files])
        self.left_out = left_out
        self._files = [(os.path.join(path, f), found[f]) for f in files]

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for uri, problem in self._files[start:stop]:
            yield Entry(uri=uri, problem=problem)


def _walk(
    path: str,
    within: str,
    above: tuple[tuple[int, int], ...],
    found: dict[str, str | None],
    left_out: Counter[str],
) -> None:
    try:
        about = os.stat(path)
        if (about.st_dev, about.st_ino) in above:  # a link to a folder that we are in
            left_out["links in a circle"] += 1
            return
        items = list(os.scandir(path))
    except OSError as e:
        found[within] = f"folder cannot be listed: {e.strerror}"
        return
    for item in items:
        name = within + item.name
        if item.name.startswith("."):
            left_out["hidden"] += 1
        elif item.is_dir():
            _walk(item.path, name + "/", (*above, (about.st_dev, about.st_ino)), found, left_out)
        elif why := kind(name):
            left_out[why] += 1
        else:
            found[name] = None


def load(path: str) -> Dataset:
    """The folder at `path`.

    Raises:
        ValueError: it is none, or cannot be listed.
    """
    if not os.path.isdir(path):
        raise ValueError(f"{path} is no folder")
    if not os.access(path, os.R_OK | os.X_OK):
        raise ValueError(f"{path} cannot be listed: permission denied")
    return Folder(path)
