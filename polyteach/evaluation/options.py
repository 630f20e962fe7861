"""Options of `evaluate`, and what can be refused of them before torch is imported."""

from collections.abc import Sequence
from dataclasses import dataclass

from polyteach.ground.options import MOST_SEED, at_least, listed, within


@dataclass(frozen=True)
class Judging:
    """What answers are held against, and over which images.

    Args:
        truth: label sets that are taken for right, as NAME or TASK/NAME; people's without it. Of a teacher's, what a
            training would learn with `score`.
        split: only images of these splits.
        limit: at most so many of the images, drawn at random, always the same ones for one seed.
        seed: of that draw.
        score: least score of an object that counts as said: for recall, precision, confusion and the worst images.
            Average precision is of all.
        worst: how many of the worst images are told, and drawn.
        json: print the result as JSON on stdout, and nothing else there.

    Raises:
        ValueError: a number is out of its range.
    """

    truth: Sequence[str] = ()
    split: Sequence[str] = ()
    limit: int | None = None
    seed: int = 0
    score: float = 0.5
    worst: int = 12
    json: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "truth", listed(self.truth))
        object.__setattr__(self, "split", listed(self.split))
        at_least(1, limit=self.limit)
        at_least(0, worst=self.worst)
        within(0, MOST_SEED, seed=self.seed)
        within(0, 1, score=self.score)
