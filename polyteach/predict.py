"""Predict: a student over images, into targets and pictures."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from polyteach.arguments import Paths, listed
from polyteach.limits import MAX_PIXELS, Limits
from polyteach.texts import say

if TYPE_CHECKING:
    from polyteach.tasks.contract import Target


def predict(
    run: tyro.conf.Positional[str | Path],
    images: Paths,
    *,
    out: str | Path | None = None,
    score: float = 0.5,
    json: bool = False,
    show: bool = True,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 16,
    max_pixels: int = MAX_PIXELS,
    pictures: bool = True,
    progress: bool = True,
) -> "list[dict[str, Target]]":
    """Answer every objective of a trained student for images, and print the answers.

    One line is printed for each image and objective. Into `out` go a label store of the answers (`out/store`, images
    by reference) and one picture per image and objective. An image that cannot be read, or is not there, is reported
    with its reason and does not stop the others; the command's exit status is 1 then.

    Args:
        run: the folder that `polyteach train` wrote.
        images: image files, or folders of them.
        out: where to write; nothing is written without it. Must not exist.
        score: least score of an object that is printed. The store keeps them all, and pictures show those of 0.3.
        json: print one JSON object a line for each image instead: {"image": ..., "answers": {OBJECTIVE: ...}}, or
            {"image": ..., "error": REASON}.
        show: print the answers.
        device: auto, cpu, cuda:0, ...
        precision: fp32, fp16 or bf16.
        batch_size: images per forward pass.
        max_pixels: refuse images with more pixels than this.
        pictures: draw the answers.
        progress: show a progress bar.

    Returns:
        One dictionary objective -> target per image, in the order given, a folder's by their names; a file that is
        given twice is answered once. Empty for an image that cannot be read.

    Raises:
        ValueError: no image, a number out of range, no finished run, or `out` exists.
        Unreadable: none of the images can be read; a ValueError too.

    Examples:
        polyteach predict run cat.jpg

        polyteach predict run cat.jpg dog.jpg --out pictures

        polyteach predict run photos/ --json > answers.jsonl

        polyteach predict run photos/ --out pictures --precision bf16
    """
    import torch

    from polyteach.devices import find_device, warn_if_slow
    from polyteach.files import write_json
    from polyteach.progress import track
    from polyteach.teachers import load_teacher

    given, run, limits = listed(images), str(run), Limits(max_pixels=max_pixels)
    files = _checked(given, out, score, batch_size)
    device = find_device(device)
    teacher = load_teacher(f"own:{run}", device, precision)
    warn_if_slow(torch.device(device).type, precision)
    answers: list[dict[str, Target]] = []
    kept: list[Any] = []
    bad: list[tuple[str, str]] = []
    with track("predict", len(files), "images", progress) as bar:
        for start in range(0, len(files), batch_size):
            batch = [(f, _decoded(f, limits)) for f in files[start : start + batch_size]]
            good = [(f, x) for f, x in batch if not isinstance(x, str)]
            bad += [(f, x) for f, x in batch if isinstance(x, str)]
            found = dict(zip((f for f, _ in good), teacher([x for _, x in good]) if good else [], strict=True))
            answers += [found.get(f, {}) for f, _ in batch]
            kept += [(f, tuple(x.shape[1:])) for f, x in good]
            if out is not None and pictures:
                _draw(good, found, teacher.objectives, Path(out))
            bar.advance(len(batch))
    if out is not None:
        rows = [(f, size, a) for (f, size), a in zip(kept, (a for a in answers if a), strict=True)]
        _keep(Path(out) / "store", rows, bad, teacher)
        config = {"run": run, "images": list(given), "device": device, "precision": precision}
        rest = {"batch_size": batch_size, "max_pixels": max_pixels, "pictures": pictures}
        write_json(Path(out) / "predict.json", config | rest)
    if show:
        for line in _told(files, answers, dict(bad), teacher.objectives, score, json):
            say(line, stream=sys.stdout)
    for file, reason in bad:
        say(f"polyteach predict: {file}: {reason}")
    if len(bad) == len(files):
        raise Unreadable(f"none of {len(files)} images could be read; the first: {bad[0][0]}: {bad[0][1]}")
    return answers


def _checked(given: Sequence[str], out: str | Path | None, score: float, batch_size: int) -> list[str]:
    """The files that are to be answered.

    Raises:
        ValueError: none, a number out of range, or `out` exists.
    """
    files = _files(given)
    if not files or all(os.path.isdir(f) for f in files):
        raise ValueError(f"no image in {', '.join(given)}" if given else "no image given")
    if not 0 <= score <= 1:
        raise ValueError(f"score must be 0 to 1; got {score}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    if out is not None and Path(out).exists():
        raise ValueError(f"{out} exists; predict does not overwrite, choose another --out")
    return files


class Unreadable(ValueError):
    """None of the images could be read."""

    status = 1
    """The command's exit status, as where some could not be."""


def status(answers: "list[dict[str, Target]]") -> int:
    """The command's exit status: 1 where an image has no answer, since it could not be read."""
    return int(not all(answers))


def _told(
    files: list[str],
    answers: "list[dict[str, Target]]",
    bad: dict[str, str],
    objectives: dict[str, Any],
    score: float,
    json: bool,
) -> Iterator[str]:
    """The lines that are printed of the answers."""
    from json import dumps

    from polyteach.tasks import load_task
    from polyteach.tasks.contract import Policy

    for file, answer in zip(files, answers, strict=True):
        said = {}
        for name, target in answer.items():
            about = objectives[name]
            text, said[name] = load_task(about.task).describe(target, about.space, Policy(score=score))
            if not json:
                yield f"{file}: {name}: {text}"
        if json:
            rest = {"error": bad[file]} if file in bad else {"answers": said}
            yield dumps(_finite({"image": file} | rest), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have: NaN and infinity, as of a network that diverged."""
    from math import isfinite

    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _files(images: Sequence[str]) -> list[str]:
    from polyteach.images import extensions

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


def _decoded(file: str, limits: Limits) -> Any:
    from polyteach.images import BadImage, decode
    from polyteach.uris import read_file

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


def _draw(good: list[Any], found: dict[str, Any], objectives: dict[str, Any], out: Any) -> None:
    from torchvision.io import encode_png

    from polyteach.files import replacing
    from polyteach.tasks import load_task

    for file, image in good:
        for name, target in found[file].items():
            objective = objectives[name]
            picture = load_task(objective.task).draw(image, target, objective.space)
            path, n = out / f"{Path(file).stem}.{name}.png", 2
            while path.exists():  # two folders may hold the same file name
                path, n = out / f"{Path(file).stem}-{n}.{name}.png", n + 1
            if not path.resolve().is_relative_to(out.resolve()):  # of a teacher whose names nobody has looked at
                raise ValueError(f"objective {name!r} would be drawn outside of {out}")
            with replacing(path) as temporary:  # and not write_png, which takes no name that is no UTF-8
                temporary.write_bytes(encode_png(picture).numpy().tobytes())


def _keep(path: Any, rows: list[Any], bad: list[tuple[str, str]], teacher: Any) -> None:
    import polyteach
    from polyteach.store import ImageRow, Store

    # Parquet's texts are UTF-8; a file's name need not be, and by another it would not be found
    nameless = "its name is no UTF-8: it is answered, but a store cannot refer to it"
    bad = [*bad, *((f, nameless) for f, _, _ in rows if _shown(f) != f)]
    rows = [row for row in rows if _shown(row[0]) == row[0]]
    store = Store.create(path)
    about = {"spec": teacher.spec, "sha256": teacher.sha256}
    info = {"teacher": about, "polyteach": polyteach.__version__}
    sets = {k: store.create_set(o.task, k, o.space, info) for k, o in teacher.objectives.items()}
    for part, start in enumerate(range(0, len(rows), store.part_size)):
        here = rows[start : start + store.part_size]
        images = [ImageRow(id=f, height=s[0], width=s[1], uri=os.path.realpath(f)) for f, s, _ in here]
        store.write_images(part, images)
        for name, labels in sets.items():
            labels.write(part, [f for f, _, _ in here], [a[name] for _, _, a in here])
    store.write_rejects(0, [(_shown(f), _shown(os.path.abspath(f)), reason) for f, reason in bad])


def _shown(text: str, encoding: str = "utf-8") -> str:
    """What cannot be written so, such as a file's name that is no UTF-8, as \\udcff; else it would be an error."""
    return text.encode(encoding, "backslashreplace").decode(encoding)
