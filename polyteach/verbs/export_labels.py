"""a label set of a store -> files of another tool's format"""

from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from polyteach.ground.options import above, grouped, listed, one_of, within


@grouped
def export_labels(
    store: Positional[str | Path],
    out: Positional[str | Path],
    *,
    format: str,
    labels: str | None = None,
    split: Sequence[str] = (),
    score: float | None = None,
    images: str = "copy",
    polygons: bool = False,
    depth_scale: float | None = None,
    progress: bool = True,
) -> str:
    """Write one label set of a store in the format of another tool.

    Images without an answer are left out, and never written as images in which there is nothing. What the format does
    not carry is told at the end, with how many things it is true of, and kept in OUT/README.md. A folder appears under
    its name when all of it is written; after an error there is none.

    Args:
        store: the store's folder, or its URL (docs/guide/objects.md).
        out: the new folder; must not exist.
        format: coco, yolo, cvat, label-studio or labelme of objects; masks of classes of pixels, depth and normals; hf,
            Parquet files of Hugging Face's datasets, of objects and of classes (docs/guide/export-labels.md).
        labels: the label set, TASK/NAME. Without it people's, or the only one that the format takes.
        split: write only images of these splits.
        score: least score of pseudo labels (boxes, pixels); 0.5 without it, as in training. People's have none.
        images: copy (their bytes as they are), link (symbolic links to where they lie), or none: images.csv says where
            each lies then.
        polygons: write outlines as polygons where the format has another form that keeps more.
        depth_scale: metres of one step of the 16-bit depth maps; 0.001 without it, which reaches 65 metres.
        progress: show a progress bar.

    Returns:
        The path of `out`.

    Raises:
        ValueError: `out` exists; no such format, label set or split, or several label sets that could be meant; an
            option that says nothing of the label set; no labelled image, or one that cannot be had.
        OSError: the disk is full; nothing is left.

    Examples:
        polyteach export-labels store coco --format coco

        polyteach export-labels store yolo --format yolo --labels detection/boxes --score 0.6

        polyteach export-labels store masks --format masks --labels depth/depth --images link
    """
    from polyteach.writers import check_format

    check_format(format)
    one_of(("copy", "link", "none"), images=images)
    if score is not None:
        within(0, 1, score=score)
    if depth_scale is not None:
        above(0, depth_scale=depth_scale)
    from polyteach.store.folder import StoreFolder, check_images

    check_images(StoreFolder.open(store), str(store))  # a wrong folder is told before torch is imported

    from polyteach.curation.export_labels import Wish, write_labels

    wish = Wish(format, labels, listed(split), score, images, polygons, depth_scale)
    return write_labels(store, out, wish, progress)
