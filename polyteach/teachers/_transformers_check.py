"""What of `transformers:NAME` can be refused before transformers is imported."""

import importlib.util
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


def check(name: str) -> None:
    """Refuse a folder that is not there, or any model without the library.

    Raises:
        ValueError: says which.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ValueError("teachers of transformers: need the package: pip install 'polyteach[transformers]'")
    folder_of(name)
