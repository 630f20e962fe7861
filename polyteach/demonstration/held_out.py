"""Student and teachers on the photographs that the student never saw: scores, and the contact sheet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2.functional import to_pil_image

from polyteach.ground.files import read_json, replacing
from polyteach.ground.geometry import whole
from polyteach.store import Answer, ImageRow, LabelSet, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Policy, Target
from polyteach.teachers import Teacher, load_teacher

SHOWN = {"boxes": "AP50"}
"""Score of a label set that is shown; of the others the first of its metric."""
CELL = (210, 280)
"""(height, width) of an image on the contact sheet, in pixels."""
STORES = {"store": "train", "heldout": "heldout"}
"""Label store -> the half of the photographs that it holds."""


@dataclass(frozen=True)
class HeldOut:
    """The photographs that the student never saw. sets, answers: by objective; answers follow the order of rows."""

    store: Store
    rows: list[ImageRow]
    sets: dict[str, LabelSet]
    answers: dict[str, list[Answer]]
    student: Teacher
    folder: Path


def held_out(folder: Path) -> HeldOut:
    """The images that the student of a demo has not seen, what its teachers say of them, and the student."""
    store = Store.open(folder / "heldout")
    rows = [r for part in store.parts() for r in store.images(part, data=False)]
    sets = {f"{s.task}_{s.name}": s for s in store.sets()}
    answers = {k: [a for part in s.parts() for a in s.read(part)] for k, s in sets.items()}
    return HeldOut(store, rows, sets, answers, load_teacher(f"own:{folder / 'student'}"), folder)


def scores(held: HeldOut) -> dict[str, Any]:
    """The student against each teacher on the photographs that it never saw, by the task's own metric."""
    rows = held.rows
    guesses: list[dict[str, Target]] = []
    for start in range(0, len(rows), 8):
        guesses += held.student([held.store.image(r) for r in rows[start : start + 8]])
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


def _spent(task: str, name: str, folder: Path) -> float:
    """Seconds that the teacher of a label set took; without those of a network that another one had asked already."""
    spent = [read_json(folder / store / "labels" / task / name / "label.json")["compute"] for store in STORES]
    return round(sum(s["seconds"] for s in spent), 1)


def _rounded(value: float) -> float | None:
    return round(value, 2) if value == value else None  # NaN is no JSON


def write_sheet(held: HeldOut, rows: int, file: Path) -> None:
    """The contact sheet: a row per held-out photograph; a column for it, two per teacher: its label, the student's."""
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
        image = held.store.image(images[i])
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
