"""take out what is broken, and nothing else"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from polyteach.ground.limits import Limits
from polyteach.ground.options import grouped


@dataclass(frozen=True)
class RepairLimits(Limits):
    """What reading a store may do when it is mended.

    Args:
        allow_remote: fetch images from the web that the store keeps by reference: protocols (http, https), or the
            beginning of URLs, also of servers in this machine's own network (docs/guide/store.md).
        max_pixels: as `store check` was given it: images and maps with more pixels are taken out.
    """


@grouped
def repair(
    store: Positional[str | Path], *, deep: bool = False, limits: Limits = RepairLimits(), progress: bool = True
) -> None:
    """Take what is broken out of a store, and say what.

    A part that cannot be read is rebuilt from what can be read of it (in groups of 64 rows), and its broken file is
    kept in broken/. Labels that are lost become "failed", so that `polyteach label --retry` makes them again (a part of
    which nothing can be read is missing then, and made again without --retry); those of people have to be ingested
    again. Images that are lost go with their labels.

    Args:
        store: the store's folder, or its URL (docs/guide/objects.md).
        deep: take out images that cannot be decoded, too. Those that cannot be read from here (a disk that is not
            there, a web server that may not be asked) stay, and are named.
        progress: show a progress bar.

    Examples:
        polyteach store repair store && polyteach label store --teacher boxes=... --retry
    """
    from polyteach.store.folder import StoreFolder

    StoreFolder.open(store)  # a wrong folder is told before torch is imported

    from polyteach.curation.repair import mend_store

    mend_store(store, deep, limits, progress)
