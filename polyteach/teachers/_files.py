"""What lies beside a teacher's weights: class names, and other files that it names. Nothing here needs torch."""

from pathlib import Path

from polyteach.ground.files import read_json, read_text
from polyteach.ground.hub_names import inside as inside


def at_file(name: str) -> tuple[str, Path | None]:
    """NAME or NAME@FILE as the name and the file.

    Raises:
        ValueError: no such file.
    """
    name, at, file = name.partition("@")
    path = Path(file).expanduser()
    if at and not path.is_file():
        raise ValueError(f"no weights file {path}; NAME@FILE takes a .safetensors or .pth state dict")
    return name, path if at else None


def class_names(file: Path, count: int) -> tuple[str, ...] | None:
    """The `count` class names beside a weights file, or None where there is no such file.

    Looked for: FILE.json or FILE.classes.txt beside FILE, with or without its ending, then classes.json and
    classes.txt in its folder. JSON is a list of names, or index -> name; text has one name per line.

    Raises:
        ValueError: it does not have `count` names, or is no such list.
    """
    found = next((p for p in _name_files(file) if p.exists()), None)
    if found is None:
        return None
    inside(file, found.name, f"{file}: class names")
    if found.suffix == ".json":
        content = read_json(found)
        if isinstance(content, dict):
            if set(content) != {str(i) for i in range(len(content))}:
                raise ValueError(f"{found}: keys must be the class indices 0..{len(content) - 1}")
            content = [content[str(i)] for i in range(len(content))]
        if not isinstance(content, list) or not all(isinstance(n, str) for n in content):
            raise ValueError(f"{found} must hold a list of class names, or an object index -> name")
    else:
        content = [line.strip() for line in read_text(found).splitlines() if line.strip()]
    if len(content) != count:
        raise ValueError(f"{found} has {len(content)} class names; the weights in {file} have {count} classes")
    return tuple(content)


def _name_files(file: Path) -> list[Path]:
    stems = (file, file.with_suffix(""))
    own = [Path(f"{stem}{end}") for stem in stems for end in (".json", ".classes.txt", ".txt")]
    return [*own, file.parent / "classes.json", file.parent / "classes.txt"]


def no_names(file: Path, count: int) -> ValueError:
    """The error for weights whose classes nobody names; says how to make the class file."""
    return ValueError(
        f"{file} has {count} classes and nothing says their names: write {file}.classes.txt with {count} lines, one"
        " class name per line in the order of the model's outputs (or a list of names as .json)"
    )
