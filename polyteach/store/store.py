"""The store: a folder of images, which it decodes, and of label sets."""

from dataclasses import asdict
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from polyteach.ground.fields import Fields
from polyteach.ground.files import differences, sweep, write_json
from polyteach.ground.images import BadImage
from polyteach.ground.images import decode as decode_image
from polyteach.ground.names import fit_name
from polyteach.store.codec import columns_of
from polyteach.store.folder import StoreFolder
from polyteach.store.label_folder import named_sets
from polyteach.store.label_set import LabelSet
from polyteach.store.records import as_json
from polyteach.store.rows import ImageRow
from polyteach.tasks import load_task
from polyteach.tasks.target import Space


class Store(StoreFolder):
    """A folder of images and label sets. Make one with `create`, open one with `open`."""

    def image(self, row: ImageRow) -> UInt8[Tensor, "3 H W"]:
        """The image as RGB pixels, EXIF orientation applied: the same for every teacher and for training.

        Raises:
            OSError: its file is gone or cannot be read.
            BadImage: it cannot be decoded, has more pixels than the store's limits allow, or another size than its row
                says, which is seen before it is unpacked.
        """
        try:
            data = self.read(row)
        except MemoryError as e:
            raise BadImage("memory is not enough to read it") from e
        return decode_image(data, self.limits.max_pixels, min_side=1, size=(row.height, row.width))

    def picture(self, row: ImageRow) -> UInt8[Tensor, "3 H W"]:
        """As `image`, which was called so up to version 0.2."""
        return self.image(row)

    def create_set(self, task: str, name: str, space: Space, info: dict[str, Any]) -> LabelSet:
        """The label set `labels/<task>/<name>`, made or, when it says the same, opened.

        info: JSON values; who answered and how (teacher, policy, licence, version).

        Raises:
            ValueError: a set of that name with another space or info; names what differs. An unfit name. More classes
                than the task's column can keep apart.
        """
        fit_name("label set name", name)
        most = load_task(task).most_classes
        if most is not None and len(space.names) > most:
            teacher, images = info.get("teacher"), info.get("images") or {}
            who = teacher.get("spec") if isinstance(teacher, dict) else images.get("source")
            raise ValueError(
                f"{who or name} has {len(space.names):,} classes; a label set of {task} ({task}/{name}) keeps at most "
                f"{most:,} apart. Take fewer, or merge some"
            )
        columns = {k: asdict(c) for k, c in columns_of(load_task(task).target).items()}
        about = {"task": task, "name": name, "space": asdict(space), "columns": columns, "info": info}
        folder = self.own("labels", task, name)
        sweep(folder)
        if (folder / "set.json").exists():
            differs = differences(Fields.read(folder / "set.json").value, as_json(about))
            if differs:
                raise ValueError(
                    f"{folder} was made otherwise: {'; '.join(differs)}. Use another name, or delete that folder"
                )
        else:
            write_json(folder / "set.json", about)
        return LabelSet(self, task, name)

    def sets(self) -> list[LabelSet]:
        """Every label set, sorted by task and name; none of hidden folders, which are no task's."""
        return [LabelSet(self, task, name) for task, name in named_sets(self)]
