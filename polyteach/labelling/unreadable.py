"""Images that cannot be read, and how that is told. Nothing here needs torch."""

from collections.abc import Mapping, Sequence

from polyteach.ground.texts import say


class Unreadable(ValueError):
    """None of the images could be read."""

    status = 1
    """The command's exit status, as where some could not be."""


def complain(files: Sequence[str], bad: Mapping[str, str]) -> None:
    """Say of each file that could not be read why. bad: file -> reason.

    Raises:
        Unreadable: it is all of them.
    """
    for file, reason in bad.items():
        say(f"polyteach predict: {file}: {reason}")
    if len(bad) == len(files):
        first, reason = next(iter(bad.items()))
        raise Unreadable(f"none of {len(files)} images could be read; the first: {first}: {reason}")
