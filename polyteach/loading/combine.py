"""Combine: how the answers of several teachers of one objective to one image become one. It imports no torch."""

COMBINE = ("first", "best", "union", "fuse")
"""The ways; see `plan.plan`."""


def check_combine(combine: str) -> None:
    """Refuse what is no way to combine teachers.

    Raises:
        ValueError: it is none; says which there are.
    """
    if combine not in COMBINE:
        raise ValueError(f"combine must be {', '.join(COMBINE[:-1])} or {COMBINE[-1]}; got {combine!r}")
