"""Where `label` and `predict` begin: what can be refused without torch is refused before it is imported."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyteach.ground.fields import Fields
from polyteach.ground.files import differences
from polyteach.ground.limits import Limits
from polyteach.ground.options import within
from polyteach.ground.storage import to_path
from polyteach.ground.texts import say
from polyteach.labelling.chain import in_order
from polyteach.labelling.inputs import files_of
from polyteach.labelling.lines import lines
from polyteach.labelling.options import Asking, Cluster, Coming, Predicting, Telling, check_names, places
from polyteach.labelling.unreadable import Counted
from polyteach.store.folder import StoreFolder, check_images
from polyteach.store.label_folder import named_sets
from polyteach.teachers import check_teacher, needed


def start_label(
    store: str,
    teachers: Mapping[str, str | Path],
    device: Sequence[str],
    asking: Asking,
    score: float,
    limits: Limits,
    cluster: Cluster,
    progress: bool,
) -> None:
    """Label the store; see `labelling.label.run`.

    Raises:
        ValueError: no store there or none with images, a teacher or device that is none; or as `run`.
    """
    specs = {name: os.fspath(spec) for name, spec in teachers.items()}
    check_names(specs)
    within(0, 1, score=score)
    local = isinstance(to_path(store), Path)
    if local:  # one in object storage is opened once alone, as every request costs time
        check_images(StoreFolder.open(store, limits=limits), store)
    devices = places(device, specs)
    for spec in specs.values():
        check_teacher(spec, asking.precision)
    needs = {name: needed(spec) for name, spec in specs.items()}
    if local and any(needs.values()):
        in_order(needs, named_sets(StoreFolder.open(store, limits=limits)))
    from polyteach.labelling.label import run  # torch, from here on

    run(store, specs, devices, asking, score, limits, cluster, progress)


def start_predict(
    run: str,
    images: Sequence[str],
    out: str | Path | None,
    telling: Telling,
    predicting: Predicting,
    coming: Coming,
    max_pixels: int,
    pictures: bool,
    progress: bool,
    keep: bool,
) -> Any:
    """Answer the images; see `labelling.predict.run`.

    Raises:
        ValueError: no image, no finished run, or `out` exists and is no stopped run of the same command; or as `run`.
        Unreadable: none of the images is there.
    """
    if not images:
        raise ValueError("no image given; name files or folders: polyteach predict RUN cat.jpg photos/")
    if coming.watch and not any(map(os.path.isdir, images)):
        raise ValueError(f"--watch waits for files in folders, and {', '.join(images)} is none")
    check_teacher(f"own:{run}", predicting.precision)
    there = [file for one in images for file in (files_of([one]) if not os.path.lexists(one) else [one])]
    if out is None and not any(map(os.path.lexists, there)):
        counted = Counted()
        for one in dict.fromkeys(images):
            counted.refuse(one, "no such image or folder")
            for line in lines([one], [{}], counted.bad, {}, telling) if telling.show else ():
                say(line, stream=sys.stdout)
        counted.check()
    wish = (run, tuple(images), None if out is None else Path(out), telling, predicting, coming)
    from polyteach.labelling.predict import RECORD, Wish  # torch, from here on
    from polyteach.labelling.predict import run as work

    asked = Wish(*wish, max_pixels, pictures, progress, keep)
    if asked.out is not None and os.path.lexists(asked.out):
        _begun(asked.out, RECORD, asked.record())
    return work(asked)


def _begun(out: Path, record: str, asked: Mapping[str, Any]) -> None:
    """Refuse a folder that is there, unless it is of the same command, which was stopped.

    Raises:
        ValueError: it is something else.
    """
    file = out / record
    begun = Fields.read(file).value if file.is_file() else {"finished": True}
    if begun.get("finished", True) is not False:
        raise ValueError(f"{out} exists; predict does not overwrite, choose another --out")
    if other := differences({k: begun.get(k) for k in asked}, dict(asked)):
        raise ValueError(f"{out} was begun otherwise: {'; '.join(other)}. Say the same, or choose another --out")
