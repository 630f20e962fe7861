"""what is in it: images, label sets, their statistics and classes"""

from pathlib import Path

from tyro.conf import Positional

from polyteach.ground.options import grouped


@grouped
def info(store: Positional[str | Path], *, score: float = 0.5, json: bool = False) -> None:
    """Say what is in a store: images by split, and what each label set says of them.

    Of every set: how many images are labelled, without an answer and failed; its statistics; how many images show each
    of its classes; and, where people labelled images with the same task, how many of those in which they found nothing
    the teacher leaves empty too, and how its labels hold against theirs (docs/guide/care.md). A warning where all
    labels are empty, the same or of one class, and where a training would use none of them, as people's or another
    teacher's win on every image.

    Args:
        store: the store's folder, or its URL (docs/guide/objects.md).
        score: threshold of a teacher's answers.
        json: print JSON instead of tables.

    Examples:
        polyteach store info store

        polyteach store info store --json > about.json
    """
    from polyteach.curation.info import tell

    tell(store, score, json)
