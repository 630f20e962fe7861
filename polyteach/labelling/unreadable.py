"""Images that cannot be read, and how that is told. Nothing here needs torch."""

from polyteach.ground.texts import say


class Unreadable(ValueError):
    """None of the images could be read."""

    status = 1
    """The command's exit status, as where some could not be."""


class Counted:
    """How many images were answered, and which could not be: each is told at once, with its reason.

    bad: id -> reason.
    """

    def __init__(self) -> None:
        self.answered = 0
        self.bad: dict[str, str] = {}

    def refuse(self, id: str, reason: str) -> None:
        """One that cannot be read."""
        self.bad[id] = reason
        say(f"polyteach predict: {id}: {reason}")

    def check(self) -> None:
        """Refuse to end well when nothing was answered.

        Raises:
            Unreadable: none of the images could be.
        """
        if self.bad and not self.answered:
            first, reason = next(iter(self.bad.items()))
            raise Unreadable(f"none of {len(self.bad)} images could be read; the first: {first}: {reason}")
