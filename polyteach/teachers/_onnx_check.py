"""What of `onnx:FILE` can be refused before ONNX Runtime and torch are imported."""

import importlib.util
from pathlib import Path

from polyteach.teachers._onnx_description import describe


def onnx_file(name: str) -> Path:
    """The file.

    Raises:
        ValueError: there is none.
    """
    file = Path(name).expanduser()
    if not file.is_file():
        raise ValueError(f"no ONNX file {file}")
    return file


def check(name: str) -> None:
    """Refuse a file that is not there, or has no description beside it, or any without the package.

    Raises:
        ValueError: says which.
    """
    if any(importlib.util.find_spec(package) is None for package in ("onnxruntime", "onnx")):
        raise ValueError("teachers of onnx: need the package: pip install 'polyteach[onnx]'")
    describe(onnx_file(name))
