"""A file of prompts: the classes that an open-vocabulary teacher is to look for, and how each is described to it.

YAML: a list of class names, each of which is its own prompt, or `name: prompt` or `name: [prompt, prompt, ...]`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from polyteach.ground.files import Twice, once, read_text, yaml_value

MOST = 10_000
"""Prompts of a file, at most."""
_FORM = "a list of class names, or CLASS: prompt, or CLASS: [prompt, prompt]"


@dataclass(frozen=True)
class Prompts:
    """What a file of prompts says. names: the classes, in its order. texts: the prompts of each, stripped."""

    file: Path
    names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]

    @property
    def flat(self) -> list[str]:
        """All prompts, in order."""
        return [text for texts in self.texts for text in texts]

    @property
    def owners(self) -> list[int]:
        """Of each prompt in `flat` the index of its class."""
        return [i for i, texts in enumerate(self.texts) for _ in texts]

    def wrong(self, prompt: int, why: str) -> ValueError:
        """The error for one of the prompts, counted in `flat`."""
        return ValueError(f"{self.file}: class {self.names[self.owners[prompt]]!r}: prompt {self.flat[prompt]!r} {why}")


def split(name: str) -> tuple[str, Path | None]:
    """MODEL or MODEL@FILE as the model and the file; a folder that has an @ in its name is a model."""
    model, at, file = name.rpartition("@")
    if not at or not model or Path(name).expanduser().is_dir():
        return name, None
    return model, Path(file).expanduser()


def read_prompts(file: Path) -> Prompts:
    """The classes and prompts in a file.

    Raises:
        ValueError: there is no such file; it is no YAML, has no class, one twice, or one without a prompt; names the
            file and the class.
    """
    try:
        found = yaml_value(read_text(file), once(yaml.BaseLoader))  # which takes `no` and 7 for the texts that they are
    except OSError as e:
        raise ValueError(f"no file of prompts {file}; MODEL@FILE takes {_FORM}, as YAML") from e
    except ValueError as e:
        if isinstance(e.__cause__, Twice):
            raise ValueError(f"{file}: {e}; give all prompts of a class as one list") from e
        why = " ".join(str(e).split())
        raise ValueError(f"{file} is no file of prompts, {_FORM}: {why}") from e
    if not isinstance(found, dict | list):
        raise ValueError(f"{file} must hold {_FORM}")
    pairs = list(found.items()) if isinstance(found, dict) else [(name, name) for name in found]
    if not pairs:
        raise ValueError(f"{file} names no class; it must hold {_FORM}")
    out: dict[str, tuple[str, ...]] = {}
    for number, (key, value) in enumerate(pairs, 1):
        if not isinstance(key, str):
            raise ValueError(f"{file}: entry {number} of the list is no class name; it must hold {_FORM}")
        name = key.strip()
        if not name:
            raise ValueError(f"{file}: class {number} has an empty name")
        if name in out:
            raise ValueError(f"{file}: class {name!r} is there twice; give all its prompts as one list")
        out[name] = _texts(file, name, value)
    many = sum(map(len, out.values()))
    if many > MOST:
        raise ValueError(f"{file} has {many:,} prompts, of at most {MOST:,}")
    return Prompts(file, tuple(out), tuple(out.values()))


def _texts(file: Path, name: str, value: Any) -> tuple[str, ...]:
    """The prompts of one class."""
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{file}: class {name!r}: its prompts must be one text, or a list of texts")
    stripped = tuple(text.strip() for text in texts)
    if not stripped or not all(stripped):
        raise ValueError(f"{file}: class {name!r} has {'an empty prompt' if stripped else 'no prompt'}")
    if twice := next((text for i, text in enumerate(stripped) if text in stripped[:i]), None):
        raise ValueError(f"{file}: class {name!r}: prompt {twice!r} is there twice")
    return stripped
