"""images (a folder, a list, a tar, a Parquet file) -> store"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from polyteach.ground.limits import Limits
from polyteach.ground.options import at_least, grouped

if TYPE_CHECKING:
    from polyteach.store import Store


@dataclass(frozen=True)
class SourceLimits(Limits):
    """What images are taken.

    Args:
        max_pixels: refuse images with more pixels than this.
        allow_remote: where else than from files of this machine and object storage images may be fetched: a protocol
            (http, https), or the beginning of URLs, also of servers in this machine's own network
            (docs/guide/store.md).
    """


@grouped
def ingest(
    source: Positional[str | Path],
    store: Positional[str | Path],
    *,
    embed: bool = False,
    part_size: int = 1024,
    limits: Limits = SourceLimits(),
    min_side: int = 8,
    workers: int = 0,
    licence: str | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> "Store":
    """Make a store of a dataset's images, and of people's labels where the dataset has them.

    Every image is decoded once, so that the store holds none that cannot be used, and its height and width are
    recorded as a person sees it (EXIF orientation applied). An image that cannot be decoded goes to the store's
    rejects with the reason, and never stops the run. A labelled dataset that contradicts itself does (an image that is
    missing, a broken label, a box outside of its image), unless `skip_bad` is on. What was mended in people's
    labels, and what of them is of no use, is counted, told at the end and kept in the store's ingest.json. All splits
    go into one store. The images' order is the source's (a folder's: by path), and the same source makes the same
    store byte for byte.

    Work goes part by part: what is written is whole, and a run that was stopped goes on where it was when the same
    command is given again. A finished store is never overwritten.

    Args:
        source: a folder, a .txt list (one path a line), a .tar, a .parquet, or FORMAT:PATH, where FORMAT is a file of
            polyteach/datasets, such as coco, imagenet, folder (class folders), voc.
        store: folder of the store to make, or its URL (docs/guide/objects.md).
        embed: keep the images' bytes in the store, else only where they lie. Archives (tar, Parquet) are always kept.
        part_size: images per part. Parts are the unit of resume and of work; embedded, one is held in memory.
        min_side: refuse images with a side of fewer pixels than this.
        workers: threads that read and decode; 0 is one per core.
        licence: of the images, kept with each.
        skip_bad: leave out images whose labels are broken, and labelled images that are missing, and record them in
            the rejects; else the first of them is an error.
        progress: show a progress bar and the summary.

    Returns:
        The store, opened.

    Raises:
        ValueError: no such source, or none with images; a label is broken, and `skip_bad` is off; the store exists,
            or is an unfinished one of other arguments or of a source that has changed since.
        OSError: the disk is full; whole parts stay.

    Examples:
        polyteach ingest photographs/ store

        polyteach ingest shards.tar store --licence CC-BY-4.0

        polyteach ingest coco:/data/coco store --skip-bad

        polyteach ingest folder:/data/flowers store

        polyteach ingest 'parquet:train-00000.parquet?image=photo' store
    """
    at_least(1, part_size=part_size, min_side=min_side)
    at_least(0, workers=workers)
    from polyteach.datasets import locate

    locate(str(source))  # a wrong source is told before torch is imported

    from polyteach.curation.ingest import fill_store

    return fill_store(str(source), store, embed, part_size, limits, min_side, workers, licence, skip_bad, progress)
