"""Label Studio's JSON (labelstud.io/guide/tasks): a list of tasks, to be imported with images on local storage.

    OUT/tasks.json      OUT/images/train/a.jpg      OUT/label_config.xml, the project's labelling interface

People's labels are annotations; pseudo labels are predictions with their scores, which people then correct. Objects are
rectanglelabels or, with an outline, polygonlabels; a class of the image is choices. `data.image` is
/data/local-files/?d=images/train/a.jpg, below what LOCAL_FILES_DOCUMENT_ROOT names: OUT; of images that are left where
they lie (`--images none`) on a web server or in object storage, their address. Positions are per cent of the sides.
"""

import re
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from polyteach.tasks.classification import ClassificationTarget
from polyteach.tasks.detection import DetectionTarget
from polyteach.tasks.target import Target
from polyteach.writers import About, LabelWriter, Sample
from polyteach.writers._json_list import JsonList
from polyteach.writers._names import class_lines
from polyteach.writers._objects import Thing, outline_alone, things
from polyteach.writers._outlines import joined

_IGNORED = "ignored objects (crowds, difficult ones) were left out, which Label Studio has not"
_JOINED = "outlines of several parts, or with holes, are one polygon that goes to each along a line of no width"
_SOFT = "images have several probable classes, of which the likeliest is written"


class Writer(LabelWriter):
    """A list of tasks, one for each image."""

    tasks: ClassVar[tuple[str, ...]] = ("detection", "classification")

    def __init__(self, folder: Path, about: About) -> None:
        super().__init__(folder, about)
        self._list = JsonList(folder / "tasks.json", self.files)
        self._objects = about.task == "detection"
        (folder / "label_config.xml").write_text(self._interface(), encoding="utf-8")
        (folder / "classes.txt").write_text(class_lines(about.space.names), encoding="utf-8")
        classes = "?classes=classes.txt" * self._objects
        self.told.read = f"label-studio:{{}}{classes}" if about.people else ""
        if not about.people:
            self.told.notes.append("pseudo labels are predictions, which polyteach does not read again")

    def _interface(self) -> str:
        values = self.about.space.names
        tags = ("RectangleLabels", "PolygonLabels") if self._objects else ("Choices",)
        inner = "Label" if self._objects else "Choice"
        out = ['<View>\n  <Image name="image" value="$image"/>']
        for tag in tags:
            labels = "\n".join(f"    <{inner} value={quoteattr(v)}/>" for v in values)
            out.append(f'  <{tag} name="{tag.lower()}" toName="image">\n{labels}\n  </{tag}>')
        return "\n".join([*out, "</View>", ""])

    def add(self, sample: Sample, target: Target) -> None:
        if isinstance(target, DetectionTarget):
            found = list(things(sample, target, self.about, self.told, _IGNORED))
            results = [self._drawn(sample, thing) for thing in found]
            scores = [thing.score for thing in found]
        else:
            assert isinstance(target, ClassificationTarget)
            best = float(target.probability.max())
            self.told.lost[_SOFT] += best < 1 - 1e-3
            name = self.about.space.names[int(target.probability.argmax())]
            results, scores = [self._result("choices", {"choices": [name]}, sample)], [best]
        task: dict[str, Any] = {"id": sample.number, "data": {"image": self._address(sample)}}
        if self.about.people:
            task |= {"annotations": [{"id": sample.number, "result": results, "was_cancelled": False}]}
        else:
            results = [r | {"score": s} for r, s in zip(results, scores, strict=True)]
            mean = sum(scores) / len(scores) if scores else 0.0
            task |= {"predictions": [{"model_version": self.about.source, "score": mean, "result": results}]}
        self._list.add(task)

    def _address(self, sample: Sample) -> str:
        if self.about.images == "none" and sample.uri and re.match(r"(https?|s3|gs)://", sample.uri):
            return sample.uri
        return f"/data/local-files/?d={quote(sample.file)}"

    def _drawn(self, sample: Sample, thing: Thing) -> dict[str, Any]:
        height, width = sample.size
        outer, holes = thing.rings
        if outer:
            outline_alone(thing, self.told)
            self.told.lost[_JOINED] += len(outer) + len(holes) > 1
            points = [[100 * x / width, 100 * y / height] for x, y in joined(outer + holes)]
            value: dict[str, Any] = {"points": points, "closed": True, "polygonlabels": [thing.name]}
            return self._result("polygonlabels", value, sample, thing.place)
        x0, y0, x1, y1 = (100 * v / side for v, side in zip(thing.box, (width, height) * 2, strict=True))
        value = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0, "rectanglelabels": [thing.name]}
        return self._result("rectanglelabels", value, sample, thing.place)

    def _result(self, kind: str, value: dict[str, Any], sample: Sample, place: int = 0) -> dict[str, Any]:
        return {
            "id": f"{sample.number}-{place}",
            "type": kind,
            "from_name": kind,
            "to_name": "image",
            "original_width": sample.size[1],
            "original_height": sample.size[0],
            "image_rotation": 0,
            "value": value,
        }

    def finish(self) -> None:
        self._list.close()
