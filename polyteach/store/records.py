"""What the JSON files of a store say, checked field by field: they may be a stranger's."""

from typing import Any

from polyteach.ground.fields import Fields
from polyteach.ground.names import fit_name
from polyteach.ground.storage import AnyPath
from polyteach.store.rows import MOST_IMAGES
from polyteach.tasks.target import PEOPLE, Space

FORMAT = 1
DIVIDED = "split"
"""Key of store.json under which `polyteach store split` says how, and whether it is finished."""


def about_store(path: AnyPath) -> dict[str, Any]:
    """What the store.json of the store at `path` says: format, part_size, and under `DIVIDED` how it was divided.

    Raises:
        ValueError: it is broken, or of another format; names the field.
    """
    about = Fields.read(
        path / "store.json",
        f'It holds the format and the images per part, such as {{"format": {FORMAT}, "part_size": 1024}}',
    )
    if about.value.get("format") != FORMAT:
        said = about.value.get("format")
        raise ValueError(f"{path}/store.json says format {said!r:.80}; this polyteach reads {FORMAT}")
    about.count("part_size", low=1, high=MOST_IMAGES)
    if DIVIDED in about.value:
        asked = about.object(DIVIDED)
        asked.flag("finished")
        fractions = asked.object("fractions")
        for name in fractions.value:
            fractions.number(name)
        asked.count("seed")
        for key in ("group", "groups"):
            asked.text(key, null=True)
    return about.value


def space_of(about: Fields, task: str, name: str) -> Space:
    """What set.json says that the values mean, where it is the set of that task and name."""
    try:
        fit_name("label set name", name)
        fit_name("task", task)
    except ValueError as e:
        raise about.error("", f"lies in a folder of no label set: {e}") from None
    for key, value in (("task", task), ("name", name)):
        if about.text(key) != value:
            raise about.error(key, f"must be {value!r}, as the folder is called that it lies in", about.value[key])
    said = about.object("space")
    return Space(names=said.texts("names"), kind=said.text("kind"))


def info_of(about: Fields) -> dict[str, Any]:
    """What set.json says of who answered."""
    info = about.object("info")
    if info.value.get("teacher") not in (None, PEOPLE):
        teacher = info.object("teacher")
        for key in ("spec", "origin", "sha256", "licence", "optimizer"):
            teacher.text(key, null=True)
        teacher.number("learning_rate", null=True, low=0)
        teacher.count("batch_size", null=True, low=0)
    images = info.object("images", null=True)
    if isinstance(images.value.get("source"), list):
        images.texts("source")
    else:
        images.text("source", null=True)
    for fields_, key in ((images, "licence"), (info, "licence")):
        fields_.text(key, null=True)
    info.texts("split", null=True)
    views = info.object("views", null=True)
    if views.value:
        views.flag("flip")
        views.get("scales", (list,), "a list")
    return info.value


def as_json(value: Any) -> Any:
    """As JSON would give it back."""
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    return [as_json(v) for v in value] if isinstance(value, list | tuple) else value
