"""What of `sam:MODEL+boxes=NAME` can be refused before transformers is imported."""

from polyteach.ground.hub_names import folder_of, has_library
from polyteach.ground.names import fit_name
from polyteach.tasks import is_task

BOXES = "+boxes="


def parsed(name: str) -> tuple[str, str]:
    """The model, and whose boxes it is given.

    Raises:
        ValueError: it is not of that form.
    """
    model, plus, source = name.rpartition(BOXES)
    if not plus or not model or not source:
        raise ValueError(
            f"sam:{name} is not sam:MODEL{BOXES}NAME: MODEL is a folder that save_pretrained wrote, or OWNER/MODEL, "
            "and NAME another teacher of the command, or a label set of the store, whose boxes are to get outlines"
        )
    own = source.removeprefix("detection/")  # TASK/NAME, as label sets are called elsewhere too
    task, slash, _ = own.partition("/")
    if slash and is_task(task):
        raise ValueError(f"sam:{name}: label sets of {task} have no boxes to outline; name one of detection")
    return model, fit_name("label set name", own)


def needs(name: str) -> tuple[str, str]:
    """Task and name of the label set that it is asked with.

    Raises:
        ValueError: as `parsed`.
    """
    return "detection", parsed(name)[1]


def check(name: str) -> None:
    """Refuse what names no boxes, a folder that is not there, or any model without the library.

    Raises:
        ValueError: says which.
    """
    model, _ = parsed(name)
    has_library("teachers")
    folder_of(model)
