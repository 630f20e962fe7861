"""What labelling has cost, and what computed it, over all runs; written beside each label set in its label.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from polyteach.ground.files import write_json
from polyteach.store import LabelSet

NOTHING: dict[str, Any] = {"images": 0, "flops": 0.0, "seconds": 0.0}
"""What nothing has cost."""


class Ledger:
    """One label set's account.

    spent: images, flops (None where they are not known) and seconds. computed: what computed the labels
    (`devices.arithmetic`): one entry, or more where that changed on the way.
    """

    def __init__(self, labels: LabelSet, computed: Sequence[dict[str, str]]) -> None:
        self.labels = labels
        self.spent = dict(NOTHING)
        self.computed = list(computed)

    def open(self, config: dict[str, Any], teachers_compute: Any, works: bool) -> None:
        """Go on from what the set's record says, and write the run's resolved options into it.

        works: labels are computed in this process, so that what computes them is known.
        """
        old = self.labels.record()
        self.spent = NOTHING | (old.get("compute") or {})
        mine, self.computed = self.computed, old.get("computed") or []
        if works:
            self.computed_by(mine)
        about = {"computed": self.computed, "compute": self.spent, "teachers_compute": teachers_compute}
        write_json(self.labels.path / "label.json", config | about)

    def clear(self) -> None:
        """Count from nothing, as for one part."""
        self.spent = dict(NOTHING)

    def computed_by(self, what: Sequence[dict[str, str]]) -> None:
        """Add what else has computed labels of the set."""
        self.computed += [w for w in what if w not in self.computed]

    def charge(self, images: int, seconds: float, flops: float | None) -> None:
        """Add the cost of labelling `images`; flops: of all of them."""
        self.spent["images"] += images
        self.spent["seconds"] = round(self.spent["seconds"] + seconds, 3)
        known = flops is not None and self.spent["flops"] is not None
        self.spent["flops"] = self.spent["flops"] + flops if known else None

    def add(self, other: Mapping[str, Any]) -> None:
        """Add what another process has spent on the set; see `total`."""
        self.computed_by(other["computed"])
        self.charge(other["images"], other["seconds"], other["flops"])

    def total(self) -> dict[str, Any]:
        """As JSON values."""
        return self.spent | {"computed": self.computed}

    def write(self) -> None:
        """Write what the labelling has cost so far."""
        new = {"compute": self.spent, "computed": self.computed}
        write_json(self.labels.path / "label.json", self.labels.record() | new)
