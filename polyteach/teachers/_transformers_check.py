"""What of `transformers:NAME` can be refused before transformers is imported: the folder, and what is said of it."""

from polyteach.ground.hub_names import folder_of, has_library
from polyteach.ground.names import unknown_name
from polyteach.teachers._axes import axes_of
from polyteach.teachers._options import options_of
from polyteach.teachers._prompts_file import read_prompts, split

KINDS = {"metric": "metric", "relative": "relative inverse", "relative inverse": "relative inverse"}
"""How a person says what depth means -> the kind of the space."""
OPTIONS = {"axes": "right,up,towards", "kind": "metric"}
"""What can be said of a model where its files do not say it, with an example of each."""


def asked(name: str) -> tuple[str, dict[str, str]]:
    """`NAME?key=value&key=value` apart: the folder or the name on the hub, and what is said of it.

    Raises:
        ValueError: an option that there is not, twice the same, or one whose value is none of its own.
    """
    where, options = options_of("transformers", name, OPTIONS)
    if options.get("kind", "metric") not in KINDS:
        raise unknown_name("kind of depth", options["kind"], list(KINDS))
    if "axes" in options:
        axes_of(options["axes"], f"transformers:{name}: axes")
    return where, options


def check(name: str) -> None:
    """Refuse a folder that is not there, options that there are not, prompts that are none, or all without the library.

    Raises:
        ValueError: says which.
    """
    has_library("teachers")
    model, prompts = split(name)
    folder_of(asked(model)[0])
    if prompts is not None:
        read_prompts(prompts)
