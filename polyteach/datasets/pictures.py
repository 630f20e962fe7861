"""A folder of unlabelled pictures, with its subfolders: every file whose ending is an image's, sorted by path."""

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
        self._files = [(os.path.join(path, f), found[f]) for f in files]

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        for uri, problem in self._files[start:stop]:
            yield Entry(uri=uri, problem=problem)


def load(path: str) -> Dataset:
    """The folder at `path`.

    Raises:
        ValueError: it is none, or cannot be listed.
    """
    return Pictures(path)
