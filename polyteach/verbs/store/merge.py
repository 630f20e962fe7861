"""several stores into a new one"""

from collections.abc import Sequence

from tyro.conf import Positional

from polyteach.ground.options import grouped


@grouped
def merge(out: Positional[str], stores: Positional[Sequence[str]], *, progress: bool = True) -> None:
    """Write the images and label sets of several stores into a new one.

    An image that several stores have (the same id and the same bytes or place) comes once, with the labels of all of
    them; where two have an answer to the same question, the store that is named first wins. Sets of the same task and
    name become one. A merge that was stopped goes on when the same command is given again.

    Args:
        out: folder or URL of the new store.
        stores: folders or URLs of the others, which stay as they are.
        progress: show a progress bar.

    Raises:
        ValueError: two stores have different images under one id, or label sets of one name from different teachers or
            with different classes.

    Examples:
        polyteach store merge all store1 store2 store3
    """
    from polyteach.store.folder import StoreFolder

    for store in stores:  # a wrong folder is told before torch is imported
        StoreFolder.open(store)
    from polyteach.curation.merge import merge_stores

    merge_stores(out, stores, progress)
