"""How far reading goes for what a stranger may have made: where uris may lead, and what one image may cost."""

from dataclasses import dataclass

MAX_PIXELS = 100_000_000
"""Pixels of an image from which on it is refused, unless more are allowed."""


@dataclass(frozen=True)
class Limits:
    """What reading a store or a dataset may do. Whoever opens it says so; nothing that lies in it can widen them.

    allow_remote: protocols ("https") and beginnings of URLs ("http://10.0.0.5:8000/") that its uris may be fetched
    from, besides files of this machine and object storage. max_pixels: images of more pixels are refused, whatever
    size is claimed for them.

    Raises:
        ValueError: a limit that is none.
    """

    allow_remote: tuple[str, ...] = ()
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1; got {self.max_pixels}")
