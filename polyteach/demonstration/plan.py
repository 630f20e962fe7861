"""What a demo was asked for; checked, and taken note of, before anything else is done or imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyteach.ground.files import differences, read_json, write_json


@dataclass(frozen=True)
class Plan:
    """The options of `polyteach demo`, which explains them.

    Raises:
        ValueError: a number out of range.
    """

    folder: Path
    photos: str | None
    debian: bool
    limit: int
    steps: int
    rows: int
    seed: int

    def __post_init__(self) -> None:
        for what, value, least in (("limit", self.limit, 10), ("steps", self.steps, 1), ("rows", self.rows, 1)):
            if value < least:
                raise ValueError(f"{what} must be at least {least}; got {value}")

    @property
    def config(self) -> dict[str, Any]:
        """What a demo that goes on must have in common with the one that was stopped."""
        return {name: getattr(self, name) for name in ("photos", "debian", "limit", "steps", "seed")}

    def begin(self) -> None:
        """Take note of it in its folder.

        Raises:
            ValueError: the folder holds a finished demo, one that was started otherwise, or something else.
        """
        folder = self.folder
        if (folder / "report.json").exists():
            raise ValueError(f"{folder} holds a finished demo (report.json); choose another folder")
        if (folder / "config.json").exists():
            differs = differences(read_json(folder / "config.json"), self.config)
            if differs:
                raise ValueError(f"{folder} was started otherwise: {'; '.join(differs)}. Choose another folder")
        elif folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} exists and is no demo; choose another folder")
        write_json(folder / "config.json", self.config)
