"""What of `python:MODULE:FUNCTION` can be refused before anything of it is run."""

from pathlib import Path


def parsed(name: str) -> tuple[str, str]:
    """Module, or file, and function.

    Raises:
        ValueError: it is not of that form.
    """
    module, colon, function = name.rpartition(":")
    if not colon or not module or not function:
        raise ValueError(f"python:{name} is not python:MODULE:FUNCTION or python:FILE.py:FUNCTION")
    return module, function


def python_file(module: str) -> Path | None:
    """The file that is named; None where a module is.

    Raises:
        ValueError: there is no such file.
    """
    if not module.endswith(".py"):
        return None
    file = Path(module).expanduser().resolve()
    if not file.is_file():
        raise ValueError(f"no file {file}")
    return file


def check(name: str) -> None:
    """Refuse what names no function, or one of a file that is not there.

    Raises:
        ValueError: says which.
    """
    python_file(parsed(name)[0])
