"""Where the axes of a map of normals point, as a person says it: "right down away". Nothing here needs torch."""

AXES = {"right": (0, 1), "left": (0, -1), "down": (1, 1), "up": (1, -1), "away": (2, 1), "towards": (2, -1)}
"""Where an axis of a map of normals may point -> which of ours (right, down, away) that is, and its sign."""


def axes_of(said: object, what: str) -> tuple[list[int], list[int]]:
    """For each of our axes, right, down and away, which of the map's own that is, and its sign (1 or -1).

    said: where x, y and z of the map point, in words with spaces or commas between them. what: begins the error.

    Raises:
        ValueError: those are not three words, one for each direction.
    """
    words = str(said).replace(",", " ").split()
    found = [AXES.get(word, (-1, 0)) for word in words]
    if sorted(axis for axis, _ in found) != [0, 1, 2]:
        shown = said if len(str(said)) <= 100 else f"{str(said)[:100]}..."
        raise ValueError(
            f"{what} says where x, y and z point, as in 'right up towards', each one of {', '.join(AXES)}; got "
            f"{shown!r}"
        )
    order = [[axis for axis, _ in found].index(ours) for ours in range(3)]
    return order, [found[i][1] for i in order]
