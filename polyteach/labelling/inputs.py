"""What `polyteach predict` is given, as files: images, videos, folders and patterns of them, and lists.

Nothing here needs torch, so that what is not there is told at once.
"""

import glob
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from polyteach.ground.endings import extensions

VIDEOS = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".mts", ".m2ts"))
"""Endings of files whose frames are answered, in small letters."""
_LIST = ".txt"
_SETTLED = 1.0
"""Seconds that a new file has to stay as it is before it is taken to be whole."""


def is_video(file: str) -> bool:
    """Whether a file of that name is taken for a video."""
    return os.path.splitext(file)[1].lower() in VIDEOS


def files_of(given: Sequence[str]) -> list[str]:
    """All files that are meant, each once, in the order given: what is not there too, to be told in its turn.

    A folder stands for the images and videos in it and below, by their names; a pattern such as "photos/*.jpg" for what
    it matches, by name (a file that is called so is that file); a .txt file for the paths in it, one a line, which are
    relative to it. Empty lines and those that begin with # are skipped. An empty folder, and a pattern that nothing
    matches, stand for themselves.

    Raises:
        ValueError: a list that is no text.
        OSError: a list that cannot be read.
    """
    out: dict[str, None] = {}
    for one in given:
        out.update(dict.fromkeys(_expanded(one)))
    return list(out)


def _expanded(given: str) -> list[str]:
    if os.path.isdir(given):  # and not Path.is_dir, which raises for what is no path
        return files_in(given) or [given]
    if given.lower().endswith(_LIST) and os.path.isfile(given):
        return _listed(given)
    if "\0" not in given and glob.has_magic(given) and not os.path.lexists(given):
        found = sorted(glob.glob(given, recursive=True))
        return [file for one in found for file in (files_in(one) if os.path.isdir(one) else [one])] or [given]
    return [given]


def files_in(folder: str) -> list[str]:
    """The images and videos in a folder and below, by their names."""
    known = extensions() | VIDEOS
    return sorted(str(f) for f in Path(folder).rglob("*") if f.suffix.lower() in known and _is_file(f))


def _is_file(path: Path) -> bool:
    """Whether a file is to be answered: also one of which that cannot be known, as a link to itself."""
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.isdir(path))


def _listed(path: str) -> list[str]:
    data = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    if b"\0" in data:
        raise ValueError(f"{path} is no text file: a list has one path a line")
    lines = [line.strip() for line in os.fsdecode(data).split("\n")]
    home = os.path.dirname(path)
    return [os.path.join(home, line) for line in lines if line and not line.startswith("#")]


def arriving(folders: Sequence[str], seen: set[str], wait: float = 1.0) -> Iterator[list[str]]:
    """New files of the folders, without end: each once, when it has stayed as it is for a second, so that it is whole.

    seen: files that are not new; those that are given are added. Gives an empty list where there are none, so that
    whoever asks is asked back every `wait` seconds.
    """
    waiting: dict[str, tuple[int, int]] = {}
    while True:
        ready = []
        for file in dict.fromkeys(f for folder in folders for f in files_in(folder)):
            if file in seen:
                continue
            try:
                about = os.stat(file)
            except OSError:  # gone again, or a link to nothing yet
                continue
            now = (about.st_size, about.st_mtime_ns)
            if stat.S_ISREG(about.st_mode) and waiting.get(file) == now and time.time() - about.st_mtime > _SETTLED:
                ready.append(file)
                seen.add(file)
                del waiting[file]
            else:
                waiting[file] = now
        yield ready
        time.sleep(wait)
