"""The work behind `polyteach predict`: a student over images, into targets, a store of them, and drawings."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torchcodec.encoders import PngEncoder

from polyteach.ground.devices import find_device, warn_if_slow
from polyteach.ground.files import replacing, write_json
from polyteach.ground.images import BadImage, decode, extensions
from polyteach.ground.limits import Limits
from polyteach.ground.progress import track
from polyteach.ground.texts import say
from polyteach.ground.uris import read_file
from polyteach.labelling.lines import lines
from polyteach.labelling.options import Predicting, Telling
from polyteach.labelling.unreadable import complain
from polyteach.loading.stream import Decoded, Stream
from polyteach.store import ImageRow, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Target
from polyteach.teachers import load_teacher
from polyteach.teachers.contract import Teacher
from polyteach.version import __version__

THREADS = 2
"""That decode images ahead of the student."""


@dataclass
class Predictions:
    """answers: of each file, empty where it cannot be read. sizes: (height, width) of those that can. bad: reasons."""

    answers: dict[str, dict[str, Target]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)


def run(
    student: str,
    given: Sequence[str],
    out: str | Path | None,
    telling: Telling,
    predicting: Predicting,
    max_pixels: int,
    pictures: bool,
    progress: bool,
) -> list[dict[str, Target]]:
    """Answer the images, keep and draw the answers where `out` says, and print them.

    student: a run's folder. Returns one dictionary objective -> target per image, in order.

    Raises:
        ValueError: no image, no device of that name, no finished run.
        Unreadable: none of the images can be read.
    """
    files = files_of(given)
    if not files or all(os.path.isdir(f) for f in files):
        raise ValueError(f"no image in {', '.join(given)}")
    device = find_device(predicting.device)
    teacher = load_teacher(f"own:{student}", device, predicting.precision)
    warn_if_slow(torch.device(device).type, predicting.precision)
    drawn = Path(out) if out is not None and pictures else None
    try:
        found = predict_files(teacher, files, predicting.batch_size, Limits(max_pixels=max_pixels), drawn, progress)
    except KeyboardInterrupt as e:
        begins = "nothing is kept" if drawn is None else f"{drawn} has drawings and no answers: delete it first"
        raise KeyboardInterrupt(str(e), f"{begins}. The same command begins anew.") from e
    if out is not None:
        keep(Path(out) / "store", found, teacher)
        config = {"run": student, "images": list(given), "device": device, "precision": predicting.precision}
        rest = {"batch_size": predicting.batch_size, "max_pixels": max_pixels, "pictures": pictures}
        write_json(Path(out) / "predict.json", config | rest)
    answers = [found.answers[f] for f in files]
    if telling.show:
        for line in lines(files, answers, found.bad, teacher.objectives, telling):
            say(line, stream=sys.stdout)
    complain(files, found.bad)
    return answers


def predict_files(
    teacher: Teacher, files: Sequence[str], batch_size: int, limits: Limits, out: Path | None, progress: bool
) -> Predictions:
    """The teacher's answers to image files; drawn into the folder `out`, where there is one."""
    found = Predictions()
    stream = Stream(files, lambda file: Decoded(read_image(file, limits)), batch_size=batch_size, threads=THREADS)
    with track("predict", len(files), "images", progress) as bar:
        for batch in stream:
            good = [(f, x.image) for f, x in batch if isinstance(x.image, Tensor)]
            found.bad |= {f: x.image for f, x in batch if isinstance(x.image, str)}
            answers = dict(zip((f for f, _ in good), teacher([x for _, x in good]) if good else [], strict=True))
            found.answers |= {f: answers.get(f, {}) for f, _ in batch}
            found.sizes |= {f: (int(x.shape[1]), int(x.shape[2])) for f, x in good}
            if out is not None:
                draw(good, answers, teacher.objectives, out)
            bar.advance(len(batch))
    return found


def files_of(images: Sequence[str]) -> list[str]:
    """Image files and folders as files, each once: a folder's by their names, and what is not there too."""
    known = extensions()
    out: list[str] = []
    for given in images:
        found: list[str] = []
        if os.path.isdir(given):  # and not Path.is_dir, which raises for what is no path
            found = sorted(str(f) for f in Path(given).rglob("*") if f.suffix.lower() in known and _is_file(f))
        out += found or [given]  # what is not there, or empty, is told when its turn comes, so that others are answered
    return list(dict.fromkeys(out))


def _is_file(path: Path) -> bool:
    """Whether a file is to be answered: also one of which that cannot be known, as a link to itself."""
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.isdir(path))


def read_image(file: str, limits: Limits) -> Tensor | str:
    """The image, (3, H, W) uint8, or the reason why there is none."""
    try:
        return decode(read_file(file, limits), limits.max_pixels)
    except FileNotFoundError:
        return "no such image or folder"
    except OSError as e:
        return "a folder without an image" if os.path.isdir(file) else f"cannot be read: {e.strerror or e}"
    except MemoryError:
        return "there is not enough memory to decode it"
    except BadImage as e:
        return str(e)


def draw(
    images: Sequence[tuple[str, Tensor]],
    answers: Mapping[str, Mapping[str, Target]],
    objectives: Mapping[str, Objective],
    out: Path,
) -> None:
    """Write each image with each of its answers drawn on it, as PNG files in the folder `out`.

    Raises:
        ValueError: an objective's name leads out of the folder.
    """
    for file, image in images:
        for name, target in answers[file].items():
            objective = objectives[name]
            drawing = load_task(objective.task).draw(image, target, objective.space)
            path, n = out / f"{Path(file).stem}.{name}.png", 2
            while path.exists():  # two folders may hold the same file name
                path, n = out / f"{Path(file).stem}-{n}.{name}.png", n + 1
            if not path.resolve().is_relative_to(out.resolve()):  # of a teacher whose names nobody has looked at
                raise ValueError(f"objective {name!r} would be drawn outside of {out}")
            with replacing(path) as temporary:  # and not to_file, which takes no name that is no UTF-8
                temporary.write_bytes(PngEncoder(drawing).to_tensor().numpy().tobytes())


def keep(path: Path, found: Predictions, teacher: Teacher) -> None:
    """Write a new store of the answers: images by reference, one label set for each objective, rejects."""
    # Parquet's texts are UTF-8; a file's name need not be, and by another it would not be found
    nameless = "its name is no UTF-8: it is answered, but a store cannot refer to it"
    bad = found.bad | {f: nameless for f in found.sizes if _utf8(f) != f}
    files = [f for f in found.sizes if _utf8(f) == f]
    store = Store.create(path)
    about = {"spec": teacher.spec, "sha256": teacher.sha256}
    info = {"teacher": about, "polyteach": __version__}
    sets = {k: store.create_set(o.task, k, o.space, info) for k, o in teacher.objectives.items()}
    for part, start in enumerate(range(0, len(files), store.part_size)):
        here = files[start : start + store.part_size]
        store.write_images(part, [_row(f, *found.sizes[f]) for f in here])
        for name, labels in sets.items():
            labels.write(part, here, [found.answers[f][name] for f in here])
    store.write_rejects(0, [(_utf8(f), _utf8(os.path.abspath(f)), reason) for f, reason in bad.items()])


def _row(file: str, height: int, width: int) -> ImageRow:
    return ImageRow(id=file, height=height, width=width, uri=os.path.realpath(file))


def _utf8(text: str) -> str:
    """What cannot be written so, such as a file's name that is no UTF-8, as \\udcff; else it would be an error."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
