"""Names of models of transformers, a folder or OWNER/MODEL, and files that they name. Nothing here needs torch."""

import importlib.util
import os
from pathlib import Path


def folder_of(name: str) -> Path | None:
    """The folder that is named; None where it is a model of the hub.

    Raises:
        ValueError: it is written as a folder is, and is not there.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        raise ValueError(f"no folder {folder}; transformers: takes a folder that save_pretrained wrote, or OWNER/MODEL")
    return folder if folder.is_dir() else None


def has_library(whose: str) -> None:
    """Refuse to go on without the library. whose: begins the error.

    Raises:
        ValueError: it is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ValueError(f"{whose} of transformers: need the package: pip install 'polyteach[transformers]'")


def inside(anchor: Path, name: str, what: str) -> Path:
    """The file `name` in the folder of `anchor`: both may be a stranger's, so links are followed.

    Where `anchor` is a link, it may lie beside what that leads to, as in the hub's cache, whose files are all links.
    what: begins the error.

    Raises:
        ValueError: it lies elsewhere, or is no file.
    """
    folder = anchor.parent
    try:
        path = (folder / name).resolve()
        homes = folder.resolve(), anchor.resolve().parent
        own = not os.path.isabs(name) and ".." not in Path(name).parts and any(map(path.is_relative_to, homes))
        file = own and path.is_file()
    except (OSError, ValueError, RuntimeError):  # no name of a file; a circle of links
        own, file = True, False
    if not own:
        raise ValueError(f"{what}: the file {name!r} lies outside {folder}; put the file itself there")
    if not file:
        raise ValueError(f"{what}: there is no file {name!r} in {folder}")
    return path
