"""What a report is about: runs, the tables that they make, and whom it compares with whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from polyteach.ground.names import unknown_name
from polyteach.reporting.compare import Analysis, analyse, grids
from polyteach.reporting.results import Downstream, Run


@dataclass(frozen=True)
class Findings:
    """Runs and the tables that they make.

    scratch, oracle: the ends of the scale of normalised scores. ours: who is compared with all others; None where every
    table chooses.
    """

    runs: tuple[Run, ...]
    tables: tuple[Analysis, ...]
    scratch: str
    oracle: str
    ours: str | None

    @cached_property
    def names(self) -> list[str]:
        """The representations, in the order of the tables."""
        return list(dict.fromkeys(n for t in self.tables for n in t.grid.rows))

    @cached_property
    def columns(self) -> list[Downstream]:
        """The downstream tasks, in the order of the tables."""
        return list({c.name: c for t in self.tables for c in t.grid.columns}.values())

    @cached_property
    def index(self) -> dict[str, int]:
        """The colour, dash and marker of every representation; `ours` has the first."""
        first = [n for n in self.names if n == self.ours]
        return {n: i for i, n in enumerate([*first, *(n for n in self.names if n not in first)])}

    @cached_property
    def decimals(self) -> dict[str, int]:
        """By downstream task. A share of one or an error in metres needs three; per cent and degrees need two."""
        cells = [(c, abs(x.mean)) for t in self.tables for (_, c), x in t.grid.cells.items()]
        return {c.name: 2 if any(v > 1.5 for n, v in cells if n == c.name) else 3 for c in self.columns}

    @property
    def main(self) -> list[Analysis]:
        """The tables that the page begins with: fine-tuned end to end, with each task's main label budget."""
        return [t for t in self.tables if t.grid.mode == "finetune" and not t.grid.budget]

    def column(self, name: str) -> Downstream:
        """The downstream task of that name."""
        return next(c for c in self.columns if c.name == name)


def find(runs: Sequence[Run], scratch: str, oracle: str, ours: str | None) -> Findings:
    """Every table that the runs make.

    ours: "student" without it, where there is one.

    Raises:
        ValueError: a name that was given is none of the runs', or there is no result in them.
    """
    ours = _chosen(runs, scratch, oracle, ours)
    made = grids(runs, scratch, [n for n in (ours, oracle) if n])
    if not made:
        raise ValueError(f"no result in any of {len(runs)} transfer.json, the first: {runs[0].file}: results is empty")
    return Findings(tuple(runs), tuple(analyse(g, scratch, oracle, ours) for g in made), scratch, oracle, ours)


def _chosen(runs: Sequence[Run], scratch: str, oracle: str, ours: str | None) -> str | None:
    names = list(dict.fromkeys(r.name for r in runs))
    for option, name, default in (("scratch", scratch, "scratch"), ("oracle", oracle, "oracle"), ("ours", ours, None)):
        if name and name != default and name not in names:
            raise unknown_name(f"representation --{option}", name, names)
    if scratch == oracle:
        raise ValueError(f"--scratch and --oracle are both {scratch!r}; a scale needs two different ends")
    if ours is None:
        return "student" if "student" in names else None
    return ours
