"""Arguments that Python gives otherwise than the command line: one text or path where there may be several."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from tyro.constructors import PrimitiveConstructorSpec


def listed(value: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """One text or path, or several, as texts."""
    several = (value,) if isinstance(value, str | Path) else value
    return tuple(str(v) for v in several)


Paths = Annotated[
    str | Path | Sequence[str | Path],
    tyro.conf.Positional,
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="PATH [PATH ...]",
        instance_from_str=tuple,
        is_instance=lambda x: isinstance(x, str | Path | Sequence),
        str_from_instance=lambda x: list(listed(x)),
    ),
]
"""Of a verb: folders or URLs. From Python one may come without a list."""
