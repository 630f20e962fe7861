"""What of `features:LIBRARY:NAME` can be refused without torch."""

import importlib
from dataclasses import dataclass

from polyteach.ground.names import did_you_mean
from polyteach.teachers._options import options_of

LIBRARIES = ("timm", "transformers")
EXAMPLES = {"grid": "12", "only": "dense"}
GRID, MOST_GRID = 24, 128
"""Cells along the longer side of a map where nothing is said, and at most."""
PARTS = ("dense", "global")


@dataclass(frozen=True)
class Asked:
    """library: one of `LIBRARIES`. name: the model's, as that family of teachers takes it. grid: cells along the longer
    side of a map, at most. parts: of `PARTS`, which features are wanted."""

    library: str
    name: str
    grid: int = GRID
    parts: tuple[str, ...] = PARTS


def asked(name: str) -> Asked:
    """LIBRARY:NAME?grid=N&only=dense apart.

    Raises:
        ValueError: another library, or an option that is none.
    """
    where, options = options_of("features", name, EXAMPLES)
    library, colon, model = where.partition(":")
    if library not in LIBRARIES or not colon or not model:
        raise ValueError(
            f"features:{name}: say whose model it is, features:timm:NAME[@FILE] or features:transformers:FOLDER"
            f"{did_you_mean(library, LIBRARIES)}"
        )
    grid = options.get("grid", str(GRID))
    if not grid.isdecimal() or not 1 <= int(grid) <= MOST_GRID:
        raise ValueError(f"features:{name}: grid must be a number of cells from 1 to {MOST_GRID}; got {grid}")
    only = options.get("only")
    if only is not None and only not in PARTS:
        raise ValueError(f"features:{name}: only must be {' or '.join(PARTS)}; got {only}")
    return Asked(library, model, int(grid), PARTS if only is None else (only,))


def check(name: str) -> None:
    """Refuse what is no such teacher, and a model that there is not.

    Raises:
        ValueError: says which.
    """
    what = asked(name)
    importlib.import_module(f"{__package__}._{what.library}_check").check(what.name)
