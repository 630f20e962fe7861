"""The XML files of Pascal VOC's layout: the objects of an image."""

from collections import Counter
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
import torch

from polyteach.datasets import Drawn, composed, printable
from polyteach.datasets._files import shown, xml
from polyteach.tasks.detection import DetectionTarget

_FAR = 1e9


@dataclass(frozen=True)
class Reading:
    """How files are read. index: of each class by name. whose: the classes are, as an error says it. first: the number
    of the first pixel. sized: a file has to say the size of its image.
    """

    index: dict[str, int]
    whose: str
    first: int = 1
    sized: bool = True


def name_of(thing: Element) -> str:
    """The class's name of an object."""
    return printable(composed((thing.findtext("name") or "").strip()))


def objects(path: str, size: tuple[int, int], how: Reading) -> Drawn:
    """The objects of the XML file of an image of (height, width) `size`.

    Raises:
        ValueError: the file is missing or broken, or of an image of another size; names the field.
    """
    tree = xml(path)
    notes: Counter[str] = Counter()
    sides = _sides(path, tree, how.sized)
    if sides == (0, 0):
        notes["are in files that say no size of their image"] += len(tree.findall("object"))
    elif sides != size:
        raise ValueError(
            f"{path}: size: {sides[0]} x {sides[1]} (height x width), but the image is {size[0]} x {size[1]}"
        )
    box, category, ignore, names = [], [], [], []
    for i, thing in enumerate(tree.findall("object")):
        where = f"{path}: object[{i}]"
        name = name_of(thing)
        if name not in how.index:
            raise ValueError(f"{where}.name: {shown(name)} is none of {how.whose}")
        x0, y0, x1, y1 = (number(where, thing, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
        if x1 <= x0 or y1 <= y0:
            raise ValueError(f"{where}.bndbox: must end after it begins; got {x0:g}, {y0:g}, {x1:g}, {y1:g}")
        difficult = (thing.findtext("difficult") or "0").strip()
        if difficult not in ("0", "1"):
            raise ValueError(f"{where}.difficult: must be 0 or 1; got {shown(difficult)}")
        if max(map(abs, (x0, y0, x1, y1))) > _FAR:
            raise ValueError(f"{where}.bndbox: lies far beyond any image; got {x0:g}, {y0:g}, {x1:g}, {y1:g}")
        names.append(f"{where}.bndbox of {name!r}: {x0:g}, {y0:g}, {x1:g}, {y1:g}")
        box.append([x0 - how.first, y0 - how.first, x1, y1])
        category.append(how.index[name])
        ignore.append(difficult == "1")
        notes["have an outline (polygon) too, of which the box alone is read"] += thing.find("polygon") is not None
    if box and all(max(corners) <= 1 for corners in box):
        raise ValueError(f"{names[0]}: all boxes of the file are within a pixel: they are counted in pixels from 1")
    target = DetectionTarget(
        box=torch.tensor(box, dtype=torch.float32).view(-1, 4),
        category=torch.tensor(category, dtype=torch.int64),
        score=torch.ones(len(box)),
        ignore=torch.tensor(ignore, dtype=torch.bool),
    )
    notes["are difficult, and not learned"] += sum(ignore)
    labels = Drawn({"detection": target})
    labels.where["detection"], labels.notes["detection"] = names, +notes
    return labels


def _sides(path: str, tree: Element, sized: bool) -> tuple[int, int]:
    """The (height, width) that a file says; 0 and 0 where it need not say it and does not."""
    if not sized and all(float_of(tree.findtext(f"size/{side}")) in (None, 0) for side in ("height", "width")):
        return 0, 0
    height, width = (int(number(path, tree, f"size/{side}")) for side in ("height", "width"))
    return height, width


def float_of(text: str | None) -> float | None:
    """The finite number that a text says, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def number(where: str, above: Element, field: str) -> float:
    """The number in a field below an element.

    Raises:
        ValueError: there is none; says `where` it should be.
    """
    text = above.findtext(field)
    value = float_of(text)
    if value is None:
        got = "it is missing" if text is None else f"got {text!r:.40}"
        raise ValueError(f"{where}: {field.replace('/', '.')}: must be a number; {got}")
    return value
