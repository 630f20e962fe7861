"""Record: the folder of a training as it lies on disk. It needs no torch, so that what is wrong is said at once."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polyteach.ground.fields import Fields
from polyteach.ground.files import differences, sweep, write_json
from polyteach.model.provenance import backbone_sha256, init_sha256
from polyteach.training.log import LOG, logged
from polyteach.version import __version__

CONFIG = "config.json"
"""File of a run with everything that made it."""

Compared = Callable[[Fields, dict[str, Any]], Sequence[str]]
"""A comparison of what was recorded with what would be now; returns what differs, in words."""


@dataclass(frozen=True)
class Kind:
    """How the verbs that train differ in the folders that they fill.

    verb: its name. done: the file that is written last. free: options that change nothing of the result, so that a run
    that goes on may change them. new: options that runs of earlier versions do not record, and what those did. called:
    what such a folder is, in messages.
    """

    verb: str
    done: str
    free: Collection[str] = ()
    new: Mapping[str, Any] = field(default_factory=dict)
    called: str = "run of polyteach"


class Record:
    """A folder, what made it (config.json), and whether it is complete.

    folder: it need not exist yet.
    """

    def __init__(self, folder: str | Path, kind: Kind) -> None:
        self.folder = Path(folder)
        self.kind = kind

    @property
    def done(self) -> Path:
        """The file that is written last."""
        return self.folder / self.kind.done

    def check_open(self) -> None:
        """Say so where nothing is left to be done, or what the folder holds is none of ours.

        Raises:
            ValueError: the folder holds a finished run, or something else.
        """
        if self.done.exists():
            raise ValueError(f"{self.folder} holds a finished run; choose another folder")
        if not (self.folder / CONFIG).exists():
            self._refuse_other()

    def _refuse_other(self) -> None:
        sweep(self.folder)
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ValueError(f"{self.folder} exists and is no {self.kind.called}; choose another folder")

    def options(self) -> Fields | None:
        """The options with which the run in the folder was begun, None where there is none.

        Raises:
            ValueError: config.json is not as the verb wrote it.
        """
        began = self._began()
        return None if began is None else began.object("options")

    def thresholds(self) -> dict[str, dict[str, float]] | None:
        """The least scores by objective and class with which the run in the folder was begun, None where it has none.

        Raises:
            ValueError: config.json is not as the verb wrote it.
        """
        began = self._began()
        if began is None or "thresholds" not in began:
            return None
        found = began.object("thresholds")
        each = {name: found.object(name) for name in found.value}
        return {name: {k: one.number(k, low=0, high=1) for k in one.value} for name, one in each.items()}

    def settings(
        self, options: Mapping[str, Any], init: str | None, data: Mapping[str, Any], **more: Any
    ) -> dict[str, Any]:
        """Everything that makes the run, as JSON gives it back: what config.json will say.

        options: all of them, resolved. init: the weights that it starts from. data: what it learns from.
        """
        config = {"verb": self.kind.verb, "polyteach": __version__, "options": options}
        tower = backbone_sha256(str(options.get("backbone")), init)
        config |= (
            {"init_sha256": init_sha256(init)} | ({"backbone_sha256": tower} if tower else {}) | more | {"data": data}
        )
        plain: dict[str, Any] = json.loads(json.dumps(config, default=dict))
        return plain

    def check_same(
        self, config: dict[str, Any], options: Compared = lambda old, new: (), data: Compared | None = None
    ) -> None:
        """Sweep the folder, and see that what is in it was begun with the same settings, or that nothing is.

        config: see `settings`. options, data: compare further what the options say, and what was learned from.

        Raises:
            ValueError: the folder holds something else, or a run that was started otherwise; names what differs.
        """
        began = self._began()
        if began is None:
            self._refuse_other()
            return
        sweep(self.folder)
        said = began.object("options")
        old = began.value | {"options": said.value}
        then, now = (
            {k: v for k, v in (dict(self.kind.new) | c["options"]).items() if k not in self.kind.free}
            for c in (old, config)
        )
        differ = [*differences(then, now), *options(said, config["options"])]
        if not differ:  # the same command; then something that it reads has changed
            then, now = ({k: v for k, v in c.items() if k not in ("options", "data")} for c in (old, config))
            differ = differences(then, now)
            if data is None:
                differ += differences(old.get("data"), config["data"], "data")
            else:
                differ += data(began.object("data"), config["data"])
        if differ:
            raise ValueError(
                f"{self.folder} was started otherwise: {'; '.join(differ)}. Give the same command to go on, or "
                "another --out"
            )

    def write_settings(self, config: dict[str, Any]) -> None:
        """Record what makes the run, after everything that can be refused."""
        write_json(self.folder / CONFIG, config)

    def last(self) -> Fields:
        """The last line of the log of a training that has ended.

        Raises:
            ValueError: there is none, or a line is not as it was written.
        """
        return logged(self.folder / LOG)[-1]

    def finish(self, about: dict[str, Any]) -> None:
        """Write the file that says that the run is complete."""
        write_json(self.done, about)

    def _began(self) -> Fields | None:
        file = self.folder / CONFIG
        fix = f"It is not as `polyteach {self.kind.verb}` wrote it: give another --out"
        return Fields.read(file, fix) if file.exists() else None
