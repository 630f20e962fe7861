"""student + images -> targets and drawings"""

from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from polyteach.ground.limits import MAX_PIXELS
from polyteach.ground.options import Paths, grouped, listed
from polyteach.labelling.options import Coming, Predicting, Telling
from polyteach.verbs import on_command_line

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
    coming: Coming = Coming(),
    max_pixels: int = MAX_PIXELS,
    pictures: bool = True,
    progress: bool = True,
) -> "list[dict[str, Target]]":
    """Answer every objective of a trained student for images, and print the answers.

    One line is printed for each image and objective, as they are answered. Into `out` go a label store of the answers
    (`out/store`, images by reference, frames of videos with their pixels) and one drawing per image and objective. An
    image that cannot be read, or is not there, is reported with its reason and does not stop the others; the command's
    exit status is 1 then. The command holds a batch at a time, however many images there are. A run with `out` that was
    stopped goes on where it was when the same command is given again; one without begins anew.

    Args:
        run: the folder that `polyteach train` wrote.
        images: image files, videos, folders of them, patterns such as 'photos/*.jpg', or lists: .txt files with one
            path a line, relative to them.
        out: where to write; nothing is written without it. Must not exist, but for a stopped run of the same command.
        max_pixels: refuse images with more pixels than this.
        pictures: draw the answers.
        progress: show a progress bar.

    Returns:
        One dictionary objective -> target per image, in the order given, a folder's by their names; a file that is
        given twice is answered once. Empty for an image that cannot be read.

    Raises:
        ValueError: no image, a number out of range, no finished run, or `out` exists and is no stopped run of this.
        Unreadable: none of the images can be read; a ValueError too.

    Examples:
        polyteach predict run cat.jpg

        polyteach predict run cat.jpg dog.jpg --out drawings

        polyteach predict run photos/ --json > answers.jsonl

        polyteach predict run photos/ --out drawings --precision bf16

        polyteach predict run film.mp4 --every 30 --json

        polyteach predict run incoming/ --watch --json >> answers.jsonl
    """
    from polyteach.labelling.start import start_predict

    keep = not on_command_line()
    given = listed(images)
    return start_predict(str(run), given, out, printing, inference, coming, max_pixels, pictures, progress, keep)


def status(unanswered: int) -> int:
    """The command's exit status: 1 where an image has no answer, since it could not be read."""
    return int(unanswered > 0)
