"""Members of a family (tasks, teachers, datasets) by name: the package's own files, and other distributions' modules.

Our own are found by their file's name. Another distribution declares an entry point in the group that bears the
family's package's name; its value is a module which offers the same as one of our own files:

    [project.entry-points."polyteach.tasks"]     # a module with TASK
    edges = "my_package.edges"
    [project.entry-points."polyteach.teachers"]  # a module with load(name, device, precision) -> Teacher
    detectron2 = "my_package.detectron2_teachers"
    [project.entry-points."polyteach.datasets"]  # a module with load(path) -> Dataset
    kitti = "my_package.kitti"

https://packaging.python.org/en/latest/specifications/entry-points/
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any


@cache
def _declared(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Name -> the different entry points of that name, of all installed distributions."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=group):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def _origin(point: EntryPoint) -> str:
    dist = point.dist
    return f"{point.value} of {dist.name} {dist.version}" if dist is not None else point.value


@dataclass(frozen=True)
class Family:
    """A family of modules that offer the same.

    package: where our own are, such as "polyteach.tasks"; also the group of other distributions' entry points. what: a
    member is, as in "unknown task". offers: the name that every member's module must have, such as "TASK".
    """

    package: str
    what: str
    offers: str

    def names(self, own: Mapping[str, str]) -> list[str]:
        """All members' names, sorted. own: name -> module within `package`."""
        return sorted({*own, *_declared(self.package)})

    def module(self, own: Mapping[str, str], name: str) -> Any:
        """The module of the member `name`, one of `names(own)`.

        Raises:
            ValueError: several have that name, or another distribution's module cannot be imported or lacks what it
                must offer; says which module of which distribution.
        """
        points = _declared(self.package).get(name, ())
        if len(points) + (name in own) > 1:
            ours = ["polyteach's own"] if name in own else []
            several = " and ".join(ours + [_origin(p) for p in points])
            raise ValueError(f"there are several of the {self.what} {name!r}: {several}; uninstall all but one of them")
        if name in own:
            return importlib.import_module(f"{self.package}.{own[name]}")
        (point,) = points
        try:
            module = point.load()
        except Exception as e:  # whatever another's module does when it is imported
            raise ValueError(
                f"the {self.what} {name!r} cannot be loaded from {_origin(point)}: {type(e).__name__}: {e}"
            ) from e
        if not hasattr(module, self.offers):
            raise ValueError(
                f"the {self.what} {name!r} cannot be loaded from {_origin(point)}: it has no {self.offers!r}; the "
                f"entry point must name a module that has it"
            )
        return module
