"""student + images -> targets and drawings"""

from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from polyteach.ground.limits import MAX_PIXELS
from polyteach.ground.options import Paths, grouped, listed
from polyteach.labelling.options import Predicting, Telling

if TYPE_CHECKING:
    from polyteach.tasks.contract import Target


@grouped
def predict(
    run: tyro.conf.Positional[str | Path],
    images: Paths,
    *,
    out: str | Path | None = None,
    printing: Telling = Telling(),
    inference: Predicting = Predicting(),
    max_pixels: int = MAX_PIXELS,
    pictures: bool = True,
    progress: bool = True,
) -> "list[dict[str, Target]]":
    """Answer every objective of a trained student for images, and print the answers.

    One line is printed for each image and objective. Into `out` go a label store of the answers (`out/store`, images
    by reference) and one drawing per image and objective. An image that cannot be read, or is not there, is reported
    with its reason and does not stop the others; the command's exit status is 1 then.

    Args:
        run: the folder that `polyteach train` wrote.
        images: image files, or folders of them.
        out: where to write; nothing is written without it. Must not exist.
        max_pixels: refuse images with more pixels than this.
        pictures: draw the answers.
        progress: show a progress bar.

    Returns:
        One dictionary objective -> target per image, in the order given, a folder's by their names; a file that is
        given twice is answered once. Empty for an image that cannot be read.

    Raises:
        ValueError: no image, a number out of range, no finished run, or `out` exists.
        Unreadable: none of the images can be read; a ValueError too.

    Examples:
        polyteach predict run cat.jpg

        polyteach predict run cat.jpg dog.jpg --out drawings

        polyteach predict run photos/ --json > answers.jsonl

        polyteach predict run photos/ --out drawings --precision bf16
    """
    from polyteach.labelling.start import start_predict

    return start_predict(str(run), listed(images), out, printing, inference, max_pixels, pictures, progress)


def status(answers: "list[dict[str, Target]]") -> int:
    """The command's exit status: 1 where an image has no answer, since it could not be read."""
    return int(not all(answers))
