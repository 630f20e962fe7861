"""verify every part, and say what is broken"""

from pathlib import Path

from tyro.conf import Positional

from polyteach.ground.limits import Limits
from polyteach.ground.options import grouped


@grouped
def check(
    store: Positional[str | Path], *, deep: bool = False, limits: Limits = Limits(), progress: bool = True
) -> None:
    """Verify every part of a store, and say what is broken.

    Checked are the checksums of all pages, row counts, that ids are unique and that labels stand beside the images
    that they are of, that every target can be decoded and fits its image and its set's space.

    Args:
        store: the store's folder, or its URL (docs/guide/objects.md).
        deep: decode every image too, those kept by reference from where they lie.
        progress: show a progress bar.

    Raises:
        ValueError: something is broken; every fault is printed.

    Examples:
        polyteach store check store

        polyteach store check store --deep
    """
    from polyteach.store.folder import StoreFolder

    StoreFolder.open(store)  # a wrong folder is told before torch is imported

    from polyteach.curation.check import report_faults

    report_faults(store, deep, limits, progress)
