"""COCO's JSON (https://cocodataset.org/#format-data): boxes and outlines, one file for each split.

    OUT/annotations/instances_SPLIT.json        images of no split: instances_all.json
    OUT/images/SPLIT/a.jpg

A box is x, y, width, height. An outline is run lengths, or polygons (`--polygons`; those of one object are united).
`iscrowd` is 1 of objects that are ignored, whose outlines are always run lengths. `score` is a pseudo label's. An
image's `id` is its place in the store, and an annotation's follows from that and from its own place there, whatever
else is written: both stay the same under another `--split` or `--score`. Categories count from 1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from polyteach.store.masks import encode_masks
from polyteach.tasks.detection import MOST_OBJECTS, DetectionTarget
from polyteach.tasks.target import Target
from polyteach.writers import About, LabelWriter, Sample
from polyteach.writers._json_list import JsonList, dumps
from polyteach.writers._objects import Thing, things
from polyteach.writers._outlines import joined

_CUT = "outlines have holes: written as one polygon that goes to them along a line of no width"


class Writer(LabelWriter):
    """Images are streamed into the file, annotations into one beside it, which is then put behind them."""

    tasks: ClassVar[tuple[str, ...]] = ("detection",)
    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {"polygons": ("detection",)}
    unsplit: ClassVar[str] = "all"

    def __init__(self, folder: Path, about: About) -> None:
        super().__init__(folder, about)
        self._files = {split: self._begin(split or self.unsplit) for split in about.splits}
        self._licences: dict[str, int] = {}
        self.told.read = "coco:{}"
        if "" in about.splits:
            self.told.notes.append("images of no split are in instances_all.json")

    def _begin(self, name: str) -> tuple[JsonList, JsonList]:
        place = self.folder / "annotations"
        names = self.about.space.names
        categories = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(names, 1)]
        info = {"description": f"{self.about.task}/{self.about.name}, of {self.about.source}", "version": "1.0"}
        head = f'{{"info": {dumps(info)},\n"categories": {dumps(categories)},\n"images": ['
        images = JsonList(place / f"instances_{name}.json", self.files, head, "]}\n")
        return images, JsonList(place / f".{name}.annotations", self.files, "", "")

    def add(self, sample: Sample, target: Target) -> None:
        assert isinstance(target, DetectionTarget)
        images, annotations = self._files[sample.split]
        height, width = sample.size
        within = sample.file.removeprefix(self.place(sample.split) + "/")
        record: dict[str, Any] = {"id": sample.number, "file_name": within, "height": height, "width": width}
        if sample.licence:
            record["license"] = self._licences.setdefault(sample.licence, len(self._licences) + 1)
        images.add(record | ({"coco_url": sample.uri} if sample.uri else {}))
        for thing in things(sample, target, self.about, self.told):
            annotations.add(self._annotation(sample, thing))

    def _annotation(self, sample: Sample, thing: Thing) -> dict[str, Any]:
        x0, y0, x1, y1 = thing.box
        area = (x1 - x0) * (y1 - y0) if thing.mask is None else float(thing.mask.sum())
        out = {
            "id": (sample.number - 1) * MOST_OBJECTS + thing.place + 1,
            "image_id": sample.number,
            "category_id": thing.category + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": area,
            "iscrowd": int(thing.ignore),
            "segmentation": self._segmentation(thing),
        }
        return out if self.about.people else out | {"score": thing.score}

    def _segmentation(self, thing: Thing) -> Any:
        if thing.mask is None:
            return []
        if not self.about.polygons or thing.ignore:
            kept = encode_masks(thing.mask[None])
            return {"size": kept["size"], "counts": kept["counts"][0].decode("ascii")}
        outer, holes = thing.rings
        self.told.lost[_CUT] += bool(holes)
        return [[v for point in ring for v in point] for ring in ([joined(outer + holes)] if holes else outer)]

    def finish(self) -> None:
        licences = [{"id": i, "name": name, "url": ""} for name, i in self._licences.items()]
        for images, annotations in self._files.values():
            annotations.close()
            images.write(f'],\n"licenses": {dumps(licences)},\n"annotations": [')
            images.copy(annotations.path)
            images.close()
            annotations.path.unlink()
