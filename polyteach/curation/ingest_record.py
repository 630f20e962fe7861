"""What ingest.json says of a store that is being made: from what and how, and whether it is finished."""

import hashlib
from typing import Any

from polyteach.datasets import Dataset
from polyteach.ground.fields import Fields
from polyteach.ground.files import differences, sweep, write_json
from polyteach.ground.storage import AnyPath
from polyteach.store import Store
from polyteach.version import __version__

STATE = "ingest.json"
COMPARED = ("source", "licence", "embed", "part_size", "max_pixels", "min_side")
"""What two runs must agree on to fill one store. The number of threads changes nothing in it, and a run that stopped at
a bad label may go on without it."""


def refuse_finished(path: AnyPath, about: dict[str, Any]) -> None:
    """Whether `path` is free, or an unfinished ingest of the same; before the source is listed, which may take long."""
    if not (path / STATE).exists():
        return
    old = begun(path)
    if old["finished"]:
        raise ValueError(
            f"{path} is a finished store of {old['source']} ({old.get('images') or 0:,} images); ingest never "
            "overwrites one. "
            f"Label it: polyteach label {path} --teacher NAME=SPEC; or choose another folder, or delete this one"
        )
    if old["source"] != about["source"]:
        raise ValueError(_other(path, f"source was {old['source']}, is {about['source']}"))


def begun(path: AnyPath) -> dict[str, Any]:
    """What ingest.json of a store says.

    Raises:
        ValueError: it is broken; names the field.
    """
    about = Fields.read(path / STATE, f"Choose another folder, or delete {path}")
    if about.flag("finished"):
        if isinstance(about.value.get("source"), list):  # of a merge
            about.texts("source")
        else:
            about.text("source")
        about.count("images", null=True)
        return about.value
    for key in ("source", "names_sha256"):
        about.text(key)
    about.text("licence", null=True)
    about.flag("embed")
    for key in ("part_size", "max_pixels", "min_side", "entries"):
        about.count(key)
    return about.value


def _other(path: AnyPath, what: str) -> str:
    return f"{path} is an unfinished ingest: {what}. Give the first run's arguments to go on, or delete {path}"


def started(path: AnyPath, dataset: Dataset, about: dict[str, Any]) -> Store:
    """A new store, or an unfinished one of the same dataset and arguments."""
    names = hashlib.sha256("\0".join(dataset.names).encode()).hexdigest()
    entries = len(dataset.names)
    if not entries:
        raise ValueError(f"{about['source']} has no images{left_out(dataset)}")
    if (path / STATE).exists():
        old = begun(path)
        differs = differences({k: old[k] for k in COMPARED}, {k: about[k] for k in COMPARED})
        if differs:
            raise ValueError(_other(path, "; ".join(differs)))
        if (old["entries"], old["names_sha256"]) != (entries, names):
            change = f"{old['entries']:,} entries then, {entries:,} now"
            change = change if old["entries"] != entries else f"{entries:,} entries as then, but under other names"
            raise ValueError(
                f"{about['source']} has changed since this ingest into {path} began: {change}. "
                f"Restore it to go on, or delete {path} and begin anew"
            )
        return Store.open(path, limits=dataset.limits)
    sweep(path)
    if path.is_dir() and [p.name for p in path.iterdir()] == ["store.json"]:
        (path / "store.json").unlink()  # an ingest was killed between its first two files: nothing is in there
    try:
        store = Store.create(path, about["part_size"], dataset.limits)
        made = {"verb": "ingest", "polyteach": __version__} | about
        counts = {"entries": entries, "names_sha256": names, "left_out": dict(sorted(dataset.left_out.items()))}
        counts["read"] = dataset.notes
        write_json(path / STATE, made | counts | {"finished": False})
    except PermissionError as e:
        raise ValueError(f"{path} cannot be written: {e.strerror}") from e
    return store


def left_out(dataset: Dataset) -> str:
    """How many files of which kinds are no images, as the end of a sentence; "" where there are none."""
    if not dataset.left_out:
        return ""
    kinds = ", ".join(f"{n:,} {what}" for what, n in dataset.left_out.most_common(8))
    more = len(dataset.left_out) - 8
    return f"; {dataset.left_out.total():,} other files were left out: {kinds}{f' and {more} more' if more > 0 else ''}"
