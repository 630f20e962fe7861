"""Images beside masks that show the class of each pixel: CamVid, and what most tools export.

    ROOT/images/train/a.jpg         ROOT/masks/train/a.png      or annotations/, labels/, gt/, SegmentationClass/, ...
    ROOT/train/images/a.jpg         ROOT/train/masks/a.png
    ROOT/train/a.png                ROOT/trainannot/a.png       CamVid's; or train_labels/, train_masks/
    ROOT/a.jpg                      ROOT/a_mask.png             or a_label, a_seg, a_gt, a_L; or a.png beside a.jpg

An image and its mask have one name, save for such an ending of the mask's, below folders that differ only in what they
call images and masks. `images=NAME&masks=NAME` are the names of the folders where they are called otherwise: with
ROOT/train/image/3.png and ROOT/train/labels40/3.png, masks=labels40. A split is a folder that is called so.

A mask is a PNG of the image's size: of indices (grey of 1, 8 or 16 bits, or with a palette), or of colours. What they
mean is in a file of names, `names=FILE` or one of these in ROOT: classes.txt, labels.txt, names.txt, labelmap.txt,
label_colors.txt, class_dict.csv, classes.csv, labels.csv, classes.json, labels.json, names.json, classes.yaml. It has
a name on each line, the first of index 0, or one of these forms:

    0: road                         the index of each (also "0 road", and CSV index,name)
    64 0 128 Car                    the colour of each (CamVid's); or car:64,0,128:: (CVAT's labelmap.txt)
    name,r,g,b                      CSV, with such a first line or without
    ["road", "car"]                 JSON or YAML; also {"0": "road"}, {"road": 0}, {"road": [128, 64, 128]}, a list of
                                    objects with name, id, color; or one of these in a field names, classes, labels

`classes=12` stands for a file without names: they are called 0..11. More options, joined by &:

- first=1: the first name is of index 1, and index 0 is unknown. values=0,255: the pixel value of each class.
- void=255,7 or void=NAME or void=#000000: these are unknown, neither learned nor counted. Without it, 255 is where no
  class has it, and so are classes called void, unlabelled, ignore, unknown or undefined, which is told. void=none:
  nothing is.
- by=index or by=colour. Without it, masks are read by colour where the file of names has colours (those of a mask with
  a palette are its palette's), else by index.

Odd cases:

- An index or a colour that is no class is an error, which lists what the mask holds.
- A mask of two classes that holds 0 and 255 alone may mean either 255 = the second class or 255 = unknown: an error
  that asks for values=0,255 or void=255.
- A colour mask that is grey throughout is read by index where classes have no colours. One with transparent pixels is
  an error, and so is a JPEG: its colours are not those that were drawn.
- An image without a mask is unlabelled; these, and masks without an image, are counted.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator

from polyteach.datasets import Dataset, Entry, options, printable
from polyteach.datasets._class_lists import MOST, ClassList, read_classes
from polyteach.datasets._class_maps import map_reader
from polyteach.datasets._pairs import Kind, entries, paired
from polyteach.tasks.contract import Space

_MASKS = Kind(
    what="mask",
    whats="masks",
    folders=frozenset(
        (
            *("masks", "mask", "annotations", "annotation", "annots", "annot", "ann", "anndir", "labels", "label"),
            *("gt", "gts", "groundtruth", "groundtruths", "segmentation", "segmentations", "segmentationclass"),
            *("segmentationmasks", "semantic", "seg", "segmasks", "labelids"),
        )
    ),
    end=re.compile(r"[-_](masks?|labels?|seg|segmentation|gt|annotation|ann|L)$", re.IGNORECASE),
    option="masks",
)
_NAMES = (
    *("classes.txt", "labels.txt", "names.txt", "labelmap.txt", "label_colors.txt", "class_dict.csv", "classes.csv"),
    *("labels.csv", "classes.json", "labels.json", "names.json", "classes.yaml", "classes.yml"),
)
_OPTIONS = {
    "names": "", "classes": "", "first": "", "values": "", "void": "auto", "by": "auto", "images": "", "masks": "",
}  # fmt: skip


class Masks(Dataset):
    """Sorted by the images' paths."""

    def __init__(self, root: str, values: dict[str, str]) -> None:
        classes = _classes(root, values)
        pairs = paired(root, _MASKS, values["images"], values["masks"])
        first = _number("first", values["first"] or "0")
        self._reader, notes = map_reader(classes, values["void"], first, values["values"], values["by"])
        self._root, self._rows = root, pairs.rows
        super().__init__([printable(row.image) for row in pairs.rows])
        self.spaces = {"segmentation": Space(self._reader.names)}
        # a file of names is among those that are no images
        own = Counter(os.path.splitext(n)[1] for n in _NAMES if os.path.isfile(os.path.join(root, n)))
        self.left_out = pairs.left_out - own
        self.notes += [*pairs.notes, *classes.notes, *notes]

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        return entries(self._rows[start:stop], self._root, "segmentation", self._reader.read)


def _number(option: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < MOST):
        raise ValueError(f"?{option}={text}: must be a whole number below {MOST}")
    return int(text)


def _classes(root: str, values: dict[str, str]) -> ClassList:
    """The classes of the file that the options name, or of the one that lies in `root`."""
    if values["classes"]:
        if values["names"]:
            raise ValueError(f"masks:{root}: names= and classes= both say what the classes are: give one")
        count = _number("classes", values["classes"])
        return ClassList(f"?classes={count}", {i: str(i) for i in range(count)})
    if values["names"]:
        given = os.path.expanduser(values["names"])
        inside = os.path.join(root, given)  # `given` itself where it is absolute
        return read_classes(inside if os.path.isfile(inside) else os.path.abspath(given))
    there = [read_classes(p) for n in _NAMES if os.path.isfile(p := os.path.join(root, n))]
    for other in there[1:]:
        if (other.names, other.colours) != (there[0].names, there[0].colours):
            raise ValueError(f"{other.path} and {there[0].path} name different classes: choose one with ?names=FILE")
    if not there:
        raise ValueError(
            f"masks:{root}: no file names the classes: give ?names=FILE (a name on each line), or ?classes=N for "
            "numbers as names"
        )
    there[0].notes.insert(0, f"the classes are those of {there[0].path}")
    return there[0]


def load(path: str) -> Dataset:
    """The tree at `path`, with the options above.

    Raises:
        ValueError: no such tree, no image with a mask, no names, or an option that is wrong; says which.
    """
    root, values = options(path, _OPTIONS)
    if not os.path.isdir(root):
        raise ValueError(f"masks:{root} is no folder; expected ROOT/images/ and ROOT/masks/ with files of equal names")
    if values["by"] not in ("auto", "index", "colour"):
        raise ValueError(f"?by={values['by']}: is one of auto, index, colour")
    return Masks(root, values)
