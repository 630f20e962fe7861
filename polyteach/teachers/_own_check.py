"""What of `own:RUN` can be refused before the network is built."""

from polyteach.model.provenance import description


def check(name: str) -> None:
    """Refuse a folder without a finished student.

    Raises:
        ValueError: it says of no student.
    """
    description(name)
