"""Demo: the whole method on real photographs, with real pretrained models that come inside packages."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polyteach.texts import say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from polyteach.store import Answer, ImageRow, LabelSet, Store
    from polyteach.teachers import Teacher

TEACHERS = {
    "classes": "packaged:lite0_groups",
    "boxes": "packaged:ssd_groups",
    "salient": "packaged:u2netp",
    "regions": "packaged:composed_groups",
}
SHOWN = {"boxes": "AP50"}
"""Score of a label set that is shown; of the others the first of its metric."""
BACKBONE = "tf_efficientnet_lite0"
TRAINING: dict[str, Any] = {
    "channels": 64,
    "size": 128,
    "freeze": ("backbone",),
    "batch_size": 4,
    "optimizer": "adamw",
    "lr": 1.5e-3,
    "ema": 0.99,
    "scale": (0.8, 1.3),
    "weights": "equal",
}
"""How the student is trained; docs/demo.md says what else was tried."""
SECONDS = {"photograph": 0.06, "label": 0.35, "step": 0.26, "compare": 0.06}
"""About what a photograph, or a step of the training, takes on two idle cores, in seconds (docs/demo.md)."""
CELL = (210, 280)
"""(height, width) of a picture on the contact sheet, in pixels."""
PACKAGES = ("interior_photos", "foolbox", "skimage")
DEBIAN = "gcompris-qt-data"
SIDE = 384
"""Most pixels of a photograph's longer side: it is decoded again for every view, which would take longer than to learn
from it."""
HELD_OUT = 5
"""One photograph in so many is held out."""
SAME = 0.98
"""Correlation of two photographs, seen at 24x24, above which they are taken for one."""


def demo(
    *,
    out: str,
    photos: str | None = None,
    debian: bool = True,
    limit: int = 400,
    steps: int = 800,
    rows: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Label photographs with real pretrained teachers, train a small student on the labels, and show what it learned.

    Nothing is downloaded but packages: the models and some photographs come with `pip install 'polyteach[demo]'`; 278
    more photographs come from the Debian package gcompris-qt-data where `apt-get download` works (no root needed).
    A fifth of the photographs is held out: the student never sees them, and is compared on them with its teachers.
    On two cores it takes less than ten minutes, most of them for the training.

    Into `out` go photos/ (copies of at most 384 pixels a side), store/ and heldout/ (label stores), student/ (the run),
    sheet.png (photograph, each teacher's label and the student's prediction, side by side) and report.json, which is
    written last. A demo that was stopped goes on when the same command is given again.

    Args:
        out: where to write. A finished demo is not overwritten.
        photos: a folder of your own photographs instead of the packaged ones.
        debian: also take the photographs of the Debian package.
        limit: at most so many photographs, spread evenly over the sources.
        steps: of the student's training.
        rows: photographs on the contact sheet.
        seed: of the student.
        progress: show progress.

    Returns:
        What report.json says.

    Raises:
        ValueError: the demo is finished already, packages are missing, or there are too few photographs.

    Examples:
        polyteach demo --out demo

        polyteach demo --out mine --photos ~/pictures --steps 1600
    """
    from pathlib import Path

    import polyteach

    folder = Path(out)
    config = {"photos": photos, "debian": debian, "limit": limit, "steps": steps, "seed": seed}
    _begin(folder, config, rows)
    stage = _Stages(folder / "seconds.json")

    with stage("photographs", "find the photographs, and copy them small", SECONDS["photograph"] * limit):
        backbone = _backbone(folder)  # first: missing packages should be an error before any work
        counts = _photographs(folder, photos, debian, limit)
    count = sum(counts.values())
    with stage("label", f"{len(TEACHERS)} teachers label {count} photographs", SECONDS["label"] * count):
        for store in _STORES:
            if not _finished(folder / store / "ingest.json"):
                polyteach.ingest(str(folder / "photos" / _STORES[store]), str(folder / store), progress=progress)
            # the packaged models that OpenCV and ONNX Runtime run know no other device
            polyteach.label(str(folder / store), teachers=TEACHERS, device=["cpu"], progress=progress)
    with stage("train", f"one student learns all of it in {steps} steps", SECONDS["step"] * steps):
        _train(folder, backbone, steps, seed, progress)
    with stage("compare", "student and teachers on the held-out photographs", SECONDS["compare"] * count):
        held = _held_out(folder)
        scores = _scores(held)
        _sheet(held, rows, folder / "sheet.png")
    report = _report(folder, config, counts, scores, stage.seconds)
    say(*_summary(report, folder))
    return report


def _begin(folder: "Path", config: dict[str, Any], rows: int) -> None:
    """Take note of what was asked for.

    Raises:
        ValueError: a number out of range, a demo that is finished, or one that was started otherwise.
    """
    from polyteach.files import differences, read_json, write_json

    if (folder / "report.json").exists():
        raise ValueError(f"{folder} holds a finished demo (report.json); choose another folder")
    for what, value, least in (("limit", config["limit"], 10), ("steps", config["steps"], 1), ("rows", rows, 1)):
        if value < least:
            raise ValueError(f"{what} must be at least {least}; got {value}")
    if (folder / "config.json").exists():
        differs = differences(read_json(folder / "config.json"), config)
        if differs:
            raise ValueError(f"{folder} was started otherwise: {'; '.join(differs)}. Choose another folder")
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} exists and is no demo; choose another folder")
    write_json(folder / "config.json", config)


def _train(folder: "Path", backbone: "Path", steps: int, seed: int, progress: bool) -> None:
    import polyteach
    from polyteach.devices import find_device, quick_precision

    if (folder / "student" / "train.json").exists():
        return
    place = find_device("auto")
    # with a frozen backbone and small views bf16 is no quicker on a CPU, also where it has the instructions for it
    precision = "fp32" if place == "cpu" else quick_precision(place)
    polyteach.train(
        [str(folder / "store")],
        out=str(folder / "student"),
        backbone=BACKBONE,
        init=str(backbone),
        steps=steps,
        seed=seed,
        precision=precision,
        channels_last=precision != "fp32",
        workers=0,
        save_every=100,
        progress=progress,
        **TRAINING,
    )


def _report(
    folder: "Path", config: dict[str, Any], counts: dict[str, int], scores: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """Write report.json, and return what it says."""
    import platform
    import time

    import torch

    import polyteach
    from polyteach.files import write_json

    report = {
        "polyteach": polyteach.__version__,
        "torch": torch.__version__,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "system": platform.platform()},
        "date": time.strftime("%Y-%m-%d"),
        "photographs": counts,
        "tasks": scores,
        "seconds": seconds,
        "total_seconds": round(sum(seconds.values()), 1),
        "config": config,
    }
    write_json(folder / "report.json", report)
    return report


_STORES = {"store": "train", "heldout": "heldout"}
"""Label store -> the half of the photographs that it holds."""


class _Stages:
    """Says what is done now and about how long it will take; keeps the seconds of each, added up over restarts."""

    def __init__(self, file: "Path") -> None:
        from polyteach.files import read_json

        self.file = file
        self.seconds: dict[str, float] = read_json(file) if file.exists() else {}
        self.number = 0
        self.pace = 1.0
        """How long the last stage took, as a multiple of what it was thought to take; for the stages after it."""

    @contextmanager
    def __call__(self, name: str, what: str, expected: int | float) -> "Iterator[None]":
        """expected: seconds on two cores."""
        import time

        from polyteach.files import write_json

        self.number += 1
        before = f", {self.seconds[name]:.0f} s of it done before" if name in self.seconds else ""
        _note(f"{self.number} of 4: {what}; about {_minutes(expected * self.pace)}{before}")
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 1)
            write_json(self.file, self.seconds)
        if not before and expected >= 30:  # too short a stage tells nothing of the machine
            self.pace = spent / expected


def _minutes(seconds: int | float) -> str:
    """For people: whole seconds below two minutes, else minutes and their half."""
    return f"{max(round(seconds), 1)} s" if seconds < 120 else f"{round(seconds / 30) / 2:g} min"


def _finished(file: "Path") -> bool:
    from polyteach.files import read_json

    return file.exists() and bool(read_json(file).get("finished"))


def _photographs(folder: "Path", own: str | None, debian: bool, limit: int) -> dict[str, int]:
    """Copies of the photographs in photos/train and photos/heldout; how many came from where."""
    from hashlib import sha256

    from polyteach.files import read_json, replacing, write_json
    from polyteach.images import BadImage, decode

    done = folder / "photos" / "sources.json"
    if done.exists():
        return {str(k): int(v) for k, v in read_json(done).items()}
    found: list[tuple[str, str, bytes]] = []
    looks: list[Tensor] = []
    for source, name, data in _own(own, limit) if own else _packaged(folder, debian):
        try:
            pixels = decode(data)
        except BadImage:
            continue  # packages hold drawings in odd formats beside their photographs
        if min(pixels.shape[1:]) < 96:
            continue  # icons and thumbnails
        look = _look(pixels)
        # the same photograph at two sizes would be both learned from and held out
        if any(bool((look * other).sum() > SAME) for other in looks):
            continue
        looks.append(look)
        found.append((source, name, _shrunk(pixels)))
    if len(found) < 10:
        where = own or "the packages"
        raise ValueError(f"only {len(found)} photographs in {where}; the demo needs 10. pip install 'polyteach[demo]'")
    spread = [found[i * len(found) // min(limit, len(found))] for i in range(min(limit, len(found)))]
    # by a hash of the name: the same ones whatever the order, and no neighbours of one folder
    order = sorted(spread, key=lambda photo: sha256(f"{photo[0]}-{photo[1]}".encode()).digest())
    counts: dict[str, int] = {}
    for i, (source, name, data) in enumerate(order):
        half = "heldout" if i < len(order) // HELD_OUT else "train"
        with replacing(folder / "photos" / half / f"{source}-{name}.jpg") as temporary:
            temporary.write_bytes(data)
        counts[source] = counts.get(source, 0) + 1
    write_json(done, counts)
    return counts


def _shrunk(pixels: "Tensor") -> bytes:
    """The photograph with a longer side of at most `SIDE`, as JPEG: what networks of 128 to 320 pixels can see."""
    import io

    from PIL.Image import Resampling
    from torchvision.transforms.v2.functional import to_pil_image

    picture, out = to_pil_image(pixels), io.BytesIO()
    picture.thumbnail((SIDE, SIDE), Resampling.BOX, reducing_gap=2)
    picture.save(out, format="JPEG", quality=92)
    return out.getvalue()


def _look(pixels: "Tensor") -> "Tensor":
    """What the photograph looks like at 24x24: without mean, of unit length, so that a product is a correlation."""
    import torch.nn.functional as F
    from torchvision.transforms.v2.functional import resize

    small = resize(pixels.float(), [24, 24], antialias=True).flatten()
    return F.normalize(small - small.mean(), dim=0)


def _own(folder: str, limit: int) -> "Iterator[tuple[str, str, bytes]]":
    from pathlib import Path

    from polyteach.images import extensions

    if not Path(folder).is_dir():
        raise ValueError(f"photos {folder} is not a folder")
    files = sorted(f for f in Path(folder).rglob("*") if f.suffix.lower() in extensions())
    # evenly spread before any is read, with some to spare for unusable ones: the folder may hold very many
    n = min(2 * limit, len(files))
    for i in (k * len(files) // n for k in range(n)):
        yield "own", f"{i:05d}-{files[i].name}", files[i].read_bytes()


def _packaged(folder: "Path", debian: bool) -> "Iterator[tuple[str, str, bytes]]":
    """Photographs that lie in installed packages, which are located and never imported, then Debian's."""
    from importlib.util import find_spec
    from pathlib import Path

    kinds = (".jpg", ".jpeg", ".png", ".webp")
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"package {package} is not installed; pip install 'polyteach[demo]'")
        root = Path(next(iter(spec.submodule_search_locations)))
        for file in sorted(f for f in root.rglob("*") if f.suffix.lower() in kinds):
            if package == "foolbox" and not file.name.startswith("imagenet"):
                continue  # the others are 32 pixels wide
            if package == "skimage" and file.stem not in _PHOTOGRAPHS:
                continue
            yield package, file.name, file.read_bytes()
    if debian:
        yield from _debian(folder)


_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "hubble_deep_field", "camera")


_BUNDLES = ("clickgame", "erase", "explore_farm_animals", "explore_monuments", "explore_world_animals")
_FOLDERS = ("renewable", "fishes", "monuments", "others")  # of the bundle "categorization"; the rest are drawings


def _debian(folder: "Path") -> "Iterator[tuple[str, str, bytes]]":
    """Photographs of animals, fish, monuments and tools of gcompris (GPL-3, see the package), where apt-get is."""
    import shutil
    import subprocess
    from pathlib import Path

    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        _note("no apt-get here: going on with the photographs of the Python packages")
        return
    room = folder / "packages"
    room.mkdir(exist_ok=True)
    try:
        if not list(room.glob("*.deb")):
            subprocess.run(["apt-get", "download", DEBIAN], cwd=room, check=True, capture_output=True, timeout=120)
        subprocess.run(["dpkg-deb", "-x", next(room.glob("*.deb")).name, "."], cwd=room, check=True, timeout=120)
    except (subprocess.SubprocessError, StopIteration) as e:
        shutil.rmtree(room)  # half a download would be taken for a whole one the next time
        _note(f"apt-get download {DEBIAN} did not work ({type(e).__name__}): going on without it")
        return
    for bundle in sorted(room.rglob("*.rcc")):
        for name, data in qt_resources(bundle):
            path = Path(name)
            photographic = bundle.stem in _BUNDLES or path.parent.name in _FOLDERS
            if photographic and path.suffix.lower() in (".webp", ".jpg", ".jpeg"):
                yield "gcompris", f"{bundle.stem}-{path.parent.name}-{path.name}", data
    shutil.rmtree(room)


def qt_resources(file: "Path") -> "Iterator[tuple[str, bytes]]":
    """Name and content of every file in a Qt resource bundle (.rcc, qt's qresource.cpp; zlib or stored entries)."""
    import struct
    import zlib

    blob = file.read_bytes()
    magic, version, tree, data, names = struct.unpack(">4s4I", blob[:20])
    if magic != b"qres":
        return
    step = 22 if version >= 2 else 14

    def walk(node: int, prefix: str) -> "Iterator[tuple[str, bytes]]":
        at = tree + node * step
        label, flags = struct.unpack(">IH", blob[at : at + 6])
        if node:
            (length,) = struct.unpack(">H", blob[names + label : names + label + 2])
            prefix += "/" + blob[names + label + 6 : names + label + 6 + 2 * length].decode("utf-16-be")
        if flags & 2:
            count, first = struct.unpack(">II", blob[at + 6 : at + 14])
            for child in range(first, first + count):
                yield from walk(child, prefix)
            return
        (offset,) = struct.unpack(">I", blob[at + 10 : at + 14])
        (size,) = struct.unpack(">I", blob[data + offset : data + offset + 4])
        content = blob[data + offset + 4 : data + offset + 4 + size]
        if not flags & 4:  # zstd: none of the photographs is
            yield prefix, zlib.decompress(content[4:]) if flags & 1 else content

    yield from walk(0, "")


def _backbone(folder: "Path") -> "Path":
    """The packaged classifier's weights under timm's names: the student starts from an already strong checkpoint."""
    from safetensors.torch import save_file

    from polyteach.files import replacing
    from polyteach.teachers.packaged_models import efficientnet_lite0_state

    file = folder / "backbone.safetensors"
    if not file.exists():
        with replacing(file) as temporary:
            save_file({k: v.contiguous() for k, v in efficientnet_lite0_state().items()}, temporary)
    return file


@dataclass(frozen=True)
class _HeldOut:
    """The photographs that the student never saw. sets, answers: by objective; answers follow the order of rows."""

    store: "Store"
    rows: "list[ImageRow]"
    sets: "dict[str, LabelSet]"
    answers: "dict[str, list[Answer]]"
    student: "Teacher"
    folder: "Path"


def _held_out(folder: "Path") -> _HeldOut:
    from polyteach.store import Store
    from polyteach.teachers import load_teacher

    store = Store.open(folder / "heldout")
    rows = [r for part in store.parts() for r in store.images(part, data=False)]
    sets = {f"{s.task}_{s.name}": s for s in store.sets()}
    answers = {k: [a for part in s.parts() for a in s.read(part)] for k, s in sets.items()}
    return _HeldOut(store, rows, sets, answers, load_teacher(f"own:{folder / 'student'}"), folder)


def _scores(held: _HeldOut) -> dict[str, Any]:
    """The student against each teacher on the photographs that it never saw, by the task's own metric."""
    from polyteach.geometry import whole
    from polyteach.tasks import load_task
    from polyteach.tasks.contract import Policy, Target

    rows = held.rows
    guesses: list[dict[str, Target]] = []
    for start in range(0, len(rows), 8):
        guesses += held.student([held.store.picture(r) for r in rows[start : start + 8]])
    out = {}
    for name, labels in held.sets.items():
        task = load_task(labels.task)
        metric = task.metric(labels.space)
        answers = held.answers[name]
        both = [
            (g[name], task.pseudo(a, Policy())) for g, a in zip(guesses, answers, strict=True) if isinstance(a, Target)
        ]
        metric.update([g for g, _ in both], [a for _, a in both])
        values = metric.compute()
        best = SHOWN.get(labels.name, next(iter(values)))
        # what a label that has nothing to do with the photograph would get: another's, stretched to fit. From the other
        # half of the list, which is in the order of names: neighbours come from one folder, and show the same
        chance = task.metric(labels.space)
        sizes = [(r.height, r.width) for r, a in zip(rows, answers, strict=True) if isinstance(a, Target)]
        away = max(len(both) // 2, 1)
        moved = [task.view(both[i - away][1], whole(sizes[i - away], sizes[i])) for i in range(len(both))]
        chance.update(moved, [a for _, a in both])
        out[labels.name] = {
            "task": labels.task,
            "teacher": labels.info["teacher"]["spec"],
            "metric": best,
            "student": _rounded(values[best]),
            "chance": _rounded(chance.compute()[best]),
            "all": {k: _rounded(v) for k, v in values.items()},
            "images": len(both),
            "seconds": _spent(labels.task, labels.name, held.folder),
        }
    return out


def _spent(task: str, name: str, folder: "Path") -> float:
    """Seconds that the teacher of a label set took; without those of a network that another one had asked already."""
    from polyteach.files import read_json

    spent = [read_json(folder / store / "labels" / task / name / "label.json")["compute"] for store in _STORES]
    return round(sum(s["seconds"] for s in spent), 1)


def _rounded(value: float) -> float | None:
    return round(value, 2) if value == value else None  # NaN is no JSON


def _sheet(held: _HeldOut, rows: int, file: "Path") -> None:
    """The contact sheet: a row per held-out photograph; a column for it, two per teacher: its label, the student's."""
    from PIL import Image, ImageDraw, ImageFont
    from torchvision.transforms.v2.functional import to_pil_image

    from polyteach.files import replacing
    from polyteach.geometry import whole
    from polyteach.tasks import load_task
    from polyteach.tasks.contract import Policy, Target

    images, sets = held.rows, held.sets
    chosen = [i * len(images) // min(rows, len(images)) for i in range(min(rows, len(images)))]
    height, width = CELL
    gap, top = 6, 58
    sheet = Image.new("RGB", ((width + gap) * (1 + 2 * len(sets)) + gap, top + (height + gap) * len(chosen)), "white")
    pen = ImageDraw.Draw(sheet)
    heads = [("photograph", "not seen in training")]
    for labels in sets.values():
        spec = labels.info["teacher"]["spec"]
        heads += [(f"{labels.name}: teacher", spec), (f"{labels.name}: student", labels.task)]
    for column, (first, second) in enumerate(heads):
        at = gap + column * (width + gap)
        pen.text((at, 6), first, font=ImageFont.load_default(20), fill=(0, 0, 0))
        pen.text((at, 33), second, font=ImageFont.load_default(14), fill=(90, 90, 90))
    for row, i in enumerate(chosen):
        image = held.store.picture(images[i])
        guess = held.student([image])[0]
        size = (int(image.shape[1]), int(image.shape[2]))
        scale = min(height / size[0], width / size[1])
        view = whole(size, (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)))
        small = view.image(image)
        cells = [small]
        for name, labels in sets.items():
            task = load_task(labels.task)
            label = held.answers[name][i]
            # with the teacher's scores, which are drawn
            pseudo = task.pseudo(label, Policy(confidence=True)) if isinstance(label, Target) else None
            for target in (pseudo, guess[name]):
                cells.append(small if target is None else task.draw(small, task.view(target, view), labels.space))
        for column, cell in enumerate(cells):
            sheet.paste(to_pil_image(cell), (gap + column * (width + gap), top + row * (height + gap)))
    with replacing(file) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _note(line: str) -> None:
    say(f"polyteach demo: {line}")


def _summary(report: dict[str, Any], folder: "Path") -> list[str]:
    """What was reached, where to look, and what to try next; lines of less than 80 columns, but for long paths."""
    held = max(s["images"] for s in report["tasks"].values())
    lines = [
        "",
        f"On {held} photographs that the student has not seen, against its teachers' labels.",
        "By chance: what the labels of another photograph would score.",
        "",
        f"{'label set':<12}{'score':<10}{'student':>8}{'by chance':>11}   teacher",
    ]
    for name, s in report["tasks"].items():
        student, chance = ("-" if v is None else f"{v:.1f}" for v in (s["student"], s["chance"]))
        lines.append(f"{name:<12}{s['metric']:<10}{student:>8}{chance:>11}   {s['teacher']}")
    took = ", ".join(f"{k} {v:.0f} s" for k, v in report["seconds"].items())
    return [
        *lines,
        "",
        f"Time: {took}; {_minutes(report['total_seconds'])} in all.",
        f"Look at: {folder / 'sheet.png'}",
        "Ask the student about a photograph of your own:",
        f"  polyteach predict {folder / 'student'} PHOTO.jpg --out answers",
        "All of it again, with a folder of your own photographs:",
        f"  polyteach demo --out {folder}-mine --photos FOLDER",
    ]
