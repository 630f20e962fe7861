"""All at once: teachers of five kinds label one store, and one student learns from all that they say.

    python benchmarks/together.py              # results/together.md and .jpg: 23 minutes of one core
    python benchmarks/together.py --folder F   # in F, which stays; a run that was stopped goes on there
    python benchmarks/together.py --quick      # that it runs: half a minute, figures of no worth, nothing written

What comes from where: a YOLO as an ONNX file (boxes), a SAM that is given those boxes (outlines), an OWL-ViT that is
asked by a file of prompts (boxes of other names), a GLPN (depth in metres), and an ImageNet network (features). No
pretrained weights of the first four can be had without internet. So `small_teachers.py` trains a small one of each on
other rendered shapes, and saves it as its library does: what is shown is that all kinds work together, and not how good
models of these kinds are. Only the labels on disk pass between the steps, which are commands that anybody can give.

Expect that each teacher's labels of the held-out images are better than chance, the YOLO's and the SAM's by far, the
OWL-ViT's and the GLPN's, which learn slowly from nothing, by less; and that the student, which has seen nobody's labels
but theirs, comes near to them. Half of the time is the student's. One run, one seed.
"""

import argparse
import contextlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import small_teachers
import torch
import transformers as hf
from harness import RESULTS, Said, machine, scratch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from small_teachers import COARSE, SIZE, TEXTS, lessons
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

import polyteach
from polyteach.ground.geometry import whole
from polyteach.store import LabelSet, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Policy, Target
from polyteach.tasks.target import PEOPLE
from polyteach.teachers.packaged_models import efficientnet_lite0_state

PROMPTS = {name: [form.format(name) for form in TEXTS] for name in COARSE}
"""What the OWL-ViT is asked, in coarser words than the YOLO's names, each in several forms."""
TEACHERS = {
    "boxes": "onnx:yolo.onnx",
    "outlines": "sam:sam+boxes=boxes",
    "named": "transformers:owlvit@prompts.yaml",
    "far": "transformers:glpn?kind=metric",
    "seen": "features:timm:tf_efficientnet_lite0@lite0.safetensors",
}
LEARNED = ("outlines", "named", "far", "seen-dense", "seen-global")
"""Label sets that the student learns. The outlines are the YOLO's boxes with outlines: `boxes` would add nothing."""
KINDS = {"boxes": "YOLO", "outlines": "SAM", "named": "OWL-ViT", "far": "GLPN", "seen": "EfficientNet-Lite0"}
MADE = {
    "yolo": small_teachers.yolo,
    "sam": small_teachers.sam,
    "owlvit": small_teachers.open_vocabulary,
    "glpn": small_teachers.depth,
}
ROWS = 5
"""Images on the contact sheet."""
CELL = 132
"""Side of an image on the contact sheet, in pixels."""


@dataclass(frozen=True)
class Scale:
    """How much of everything: images to teach the teachers with, to label, and to hold out; steps of each network.

    score: least score of a box that the student learns.
    """

    lessons: int = 1600
    train: int = 500
    test: int = 150
    steps: dict[str, int] = field(
        default_factory=lambda: {"yolo": 1200, "sam": 600, "owlvit": 1200, "glpn": 800, "student": 700}
    )
    score: float = 0.4


QUICK = Scale(24, 16, 8, {"yolo": 30, "sam": 2, "owlvit": 30, "glpn": 2, "student": 3}, 0.05)


# ------------------------------------------------------------------------------------------- the steps


def make_teachers(said: Said, much: Scale) -> None:
    """Small models, trained on shapes that nobody labels later, in the files of their libraries."""
    about = f"shapes:teach-boxes?count=lesson:{much.lessons}&size={SIZE}&seed=1&tasks=detection,depth&outlines=yes"
    said.step("render what the teachers learn from", lambda: polyteach.ingest(about, "lessons", progress=False))
    data = lessons(Store.open("lessons"))
    for kind, make in MADE.items():
        file = Path("yolo.onnx" if kind == "yolo" else kind)
        said.step(f"train the teacher: {kind}", lambda m=make, f=file, k=kind: m(data, f, much.steps[k]))  # type: ignore[misc]
    Path("prompts.yaml").write_text("".join(f"{name}: [{', '.join(texts)}]\n" for name, texts in PROMPTS.items()))
    save_file({k: v.contiguous() for k, v in efficientnet_lite0_state().items()}, "lite0.safetensors")


def run(said: Said, much: Scale) -> None:
    """All of it, in the current folder: the store is labelled, a student is trained, and asked about other images."""
    make_teachers(said, much)
    about = f"shapes:teach-boxes?count=train:{much.train},test:{much.test}&size={SIZE}&tasks=all&outlines=yes"
    quiet = ("--no-progress", "--device", "cpu")
    said.command("render what is labelled", "ingest", about, "store", "--no-progress")
    said.command("label", "label", "store", "--teacher", *(f"{k}={v}" for k, v in TEACHERS.items()), *quiet)
    said.command(
        "train the student", "train", "store", "--out", "student", "--split", "train", "--labels", *LEARNED,
        "--backbone", "tf_efficientnet_lite0", "--init", "lite0.safetensors", "--channels", "64", "--size", str(SIZE),
        "--steps", str(much.steps["student"]), "--batch-size", "8", "--optimizer", "adamw", "--lr", "0.0015",
        "--ema", "0.99", "--scale", "0.8", "1.3", "--weights", "equal",
        "--score", str(much.score), "--workers", "0", *quiet,
    )  # fmt: skip
    store, held = Store.open("store"), Path("heldout")
    held.mkdir(exist_ok=True)
    rows = [row for part in store.parts() for row in store.images(part) if row.split == "test"]
    for i, row in enumerate(rows):
        assert row.data is not None
        (held / f"{i:05d}.png").write_bytes(row.data)
    said.command("ask the student", "predict", "student", "heldout", "--out", "answers", "--no-pictures", *quiet)


# ------------------------------------------------------------------------------------------- what came of it


@dataclass(frozen=True)
class Held:
    """The held-out images, in one order. truth: by task. labels: by label set. student: by objective."""

    images: list[Tensor]
    truth: dict[str, list[Any]]
    labels: dict[str, list[Any]]
    student: dict[str, list[Any]]
    sets: dict[str, LabelSet]
    names: tuple[str, ...]
    """Of the true boxes' classes."""
    usual: float
    """Median depth of the images that are not held out, in metres."""


def held_out(store: Store) -> Held:
    """Everybody's answers about the images of the split "test"."""
    rows = [(part, i, row) for part in store.parts() for i, row in enumerate(store.images(part)) if row.split == "test"]

    def answers(labels: LabelSet) -> list[Any]:
        parts = {part: labels.read(part) for part in labels.parts()}
        return [parts[part][i] for part, i, _ in rows]

    sets = {s.name: s for s in store.sets() if s.name != PEOPLE}
    truth = {s.task: answers(s) for s in store.sets() if s.name == PEOPLE}
    said = Store.open("answers/store")
    student = {s.name: [a for part in s.parts() for a in s.read(part)] for s in said.sets()}
    labels = {k: answers(s) for k, s in sets.items()}
    [names] = [s.space.names for s in store.sets() if s.by_people and s.task == "detection"]
    return Held([store.image(r) for *_, r in rows], truth, labels, student, sets, names, _usual_depth(store))


def _usual_depth(store: Store) -> float:
    [people] = [s for s in store.sets() if s.by_people and s.task == "depth"]
    values = []
    for part in store.parts():
        both = zip(store.images(part, data=False), people.read(part), strict=True)
        values += [answer.value.flatten()[::16] for row, answer in both if row.split != "test"]
    return float(torch.cat(values).median())


@dataclass(frozen=True)
class Score:
    """One row of the table. chance: what says nothing of the image scores. student: None where it has no answer."""

    name: str
    kind: str
    what: str
    metric: str
    teacher: float
    student: float | None
    chance: float
    of_teacher: float | None
    """The student held against the teacher's labels."""


METRICS = {
    "boxes": ("boxes of 5 shapes", "AP50"), "outlines": ("outlines of 5 shapes", "mask AP50"),
    "named": ("boxes of 2 kinds of shapes", "AP50"), "far": ("depth, pixels within 25 %", "delta<1.25"),
}  # fmt: skip


def scores(held: Held, least: float) -> list[Score]:
    """Teachers and student against the exact labels of the held-out images; least: score of a box that was learned."""
    found = []
    for name, (what, metric) in METRICS.items():
        labels = held.sets[name]
        answers, learned = ([_scored(labels, a, x) for a in held.labels[name]] for x in (0.0, least))
        truth = [_truth(held, labels, i) for i in range(len(held.images))]
        mine = of_student(held, name)
        half = len(answers) // 2
        chance = truth[half:] + truth[:half]
        if labels.task == "depth":
            chance = [replace(t, value=torch.full_like(t.value, held.usual)) for t in truth]
        found.append(
            Score(
                name, KINDS[name], what, metric, _score(labels, answers, truth, metric),
                None if mine is None else _score(labels, mine, truth, metric),
                _score(labels, chance, truth, metric),
                None if mine is None else _score(labels, mine, learned, metric),
            )
        )  # fmt: skip
    return found


def of_student(held: Held, name: str) -> list[Any] | None:
    """The student's answers with the classes of a label set."""
    return held.student.get(f"{held.sets[name].task}_{'outlines' if name == 'boxes' else name}")


def _scored(labels: LabelSet, answer: Any, least: float) -> Any:
    """A teacher's answer with its scores, as a metric takes it, less boxes of a lower score."""
    return load_task(labels.task).pseudo(answer, Policy(confidence=True, score=least))


def _truth(held: Held, labels: LabelSet, i: int) -> Any:
    """The exact answer about an image, in the classes of a label set."""
    true = held.truth[labels.task][i]
    if labels.task != "detection":
        return true
    mine = labels.space.names
    coarse = {fine: name for name, several in COARSE.items() for fine in several}
    index = torch.tensor([mine.index(n if n in mine else coarse[n]) for n in held.names])
    return load_task("detection").mapped(true, index, len(mine))


def _score(labels: LabelSet, said: list[Any], truth: list[Any], metric: str) -> float:
    measure = load_task(labels.task).metric(labels.space)
    measure.update(said, truth)
    return measure.compute()[metric]


def probe(store: Store) -> tuple[float, float]:
    """Percent of the held-out images whose class (the largest object's) a linear classifier reads off the features that
    the store holds, taught by people's labels of the others; and by always saying the commonest class."""
    [seen] = [s for s in store.sets() if s.name == "seen-global"]
    [people] = [s for s in store.sets() if s.by_people and s.task == "classification"]
    x, y, test = [], [], []
    for part in store.parts():
        x += [a.feature.flatten().float() for a in seen.read(part)]
        y += [int(a.probability.argmax()) for a in people.read(part)]
        test += [row.split == "test" for row in store.images(part, data=False)]
    held, label, features = torch.tensor(test), torch.tensor(y), torch.stack(x)
    features = (features - features[~held].mean(0)) / features[~held].std(0).clamp(min=1e-6)
    true = torch.nn.functional.one_hot(label, len(people.space.names)).float()
    mean, known = true[~held].mean(0), features[~held]
    ridge = known.T @ known + len(known) * torch.eye(known.shape[1])
    weight = torch.linalg.solve(ridge, known.T @ (true[~held] - mean))
    right = (features[held] @ weight + mean).argmax(1) == label[held]
    return 100 * float(right.float().mean()), 100 * float((label[held] == mean.argmax()).float().mean())


def feature_losses() -> str:
    """Of the student's objectives of features, the mean loss of the first and the last tenth of its steps."""
    lines = [json.loads(line) for line in Path("student/log.jsonl").read_text().splitlines()]
    tenth = max(len(lines) // 10, 1)

    def mean(some: list[Any], name: str) -> float:
        return sum(line["losses"][name] for line in some) / len(some)

    names = [k for k in lines[0]["losses"] if k.startswith("embedding")]
    return ", ".join(f"`{n}` {mean(lines[:tenth], n):.2f} and {mean(lines[-tenth:], n):.2f}" for n in names)


# ------------------------------------------------------------------------------------------- the sheet and the page


def sheet(held: Held, least: float, file: Path) -> None:
    """A row per image; columns: the image, the truth, each teacher's label and the student's answers, of both the
    boxes of a score of `least`."""
    view = whole((SIZE, SIZE), (CELL, CELL))
    detection, depth = load_task("detection"), load_task("depth")
    rows = [i * len(held.images) // ROWS for i in range(min(ROWS, len(held.images)))]
    heads = ["image", "truth", *(f"{KINDS[n]}: {n}" for n in ("boxes", "outlines", "named")), "student: outlines"]
    heads += ["student: named", "depth: truth", "GLPN: far", "student: far", "Lite0: seen"]
    gap, top = 4, 20
    page = Image.new("RGB", ((CELL + gap) * len(heads) + gap, top + (CELL + gap) * len(rows)), "white")
    pen = ImageDraw.Draw(page)
    for column, head in enumerate(heads):
        pen.text((gap + column * (CELL + gap), 3), head, font=ImageFont.load_default(12), fill=(0, 0, 0))
    for row, i in enumerate(rows):
        small = view.image(held.images[i])

        def drawn(name: str, target: Target | None, small: Tensor = small) -> Tensor:
            labels = held.sets[name]
            task = load_task(labels.task)
            return small if target is None else task.draw(small, task.view(target, view), labels.space)

        whose = {n: None if (a := of_student(held, n)) is None else a[i] for n in ("outlines", "named", "far")}
        cells = [small, drawn("outlines", _truth(held, held.sets["outlines"], i))]
        cells += [
            drawn(n, detection.pseudo(held.labels[n][i], Policy(confidence=True, score=least)))
            for n in METRICS
            if n != "far"
        ]
        cells += [
            drawn(n, None if (t := whose[n]) is None else detection.pseudo(t, Policy(confidence=True, score=least)))
            for n in ("outlines", "named")
        ]
        cells += [drawn("far", depth.pseudo(t, Policy())) for t in (held.truth["depth"][i], held.labels["far"][i])]
        cells += [drawn("far", whose["far"]), drawn("seen-dense", held.labels["seen-dense"][i])]
        for column, cell in enumerate(cells):
            page.paste(to_pil_image(cell), (gap + column * (CELL + gap), top + row * (CELL + gap)))
    page.save(file, format="JPEG", quality=85)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def markdown(said: Said, much: Scale, rows: list[Score], probed: tuple[float, float]) -> str:
    """The page of results."""
    about = {k: v for k, v in machine().items() if k not in ("versions", "load")}
    lines = [
        "By `python benchmarks/together.py`, whose head says what is done. One run, one seed.",
        "",
        f"{about} torch {torch.__version__}, one thread.",
        "",
        f"{much.lessons} images to teach the teachers; the store has {much.train} to learn from and {much.test} held "
        "out. Scores are of the held-out images against the exact labels, in percent. By chance: the true labels of "
        "another image; of depth, the median depth everywhere; of the features, the commonest class.",
        "",
        "| label set | teacher | what | score | teacher | student | by chance | student against the teacher |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
        *(
            f"| `{r.name}` | {r.kind}, `{TEACHERS[r.name]}` | {r.what} | {r.metric} | {_figure(r.teacher)} | "
            f"{_figure(r.student)} | {_figure(r.chance)} | {_figure(r.of_teacher)} |"
            for r in rows
        ),
        f"| `seen-dense`, `seen-global` | {KINDS['seen']}, `{TEACHERS['seen']}` | class of the image, by a linear "
        f"classifier on `seen-global` | top-1 | {probed[0]:.1f} | - | {probed[1]:.1f} | - |",
        "",
        "The student's heads of features serve training alone, and are dropped. Their losses, of the first and the "
        f"last tenth of the steps: {feature_losses()}.",
        "",
        "![held-out images](together.jpg)",
        "",
        "| step | seconds of one core |",
        "| --- | ---: |",
        *(f"| {step} | {seconds:.0f} |" for step, seconds in said.seconds.items()),
        f"| all | {sum(said.seconds.values()):.0f} |",
        "",
        "## The commands",
        "",
        "```bash",
        *said.commands.values(),
        "```",
        "",
        "## What `label` printed",
        "",
        "```text",
        *said.printed["label"].rstrip().splitlines(),
        "```",
        "",
        "## What `train` printed",
        "",
        "```text",
        *said.printed["train the student"].rstrip().splitlines(),
        "```",
        "",
        "## `prompts.yaml`",
        "",
        "```yaml",
        *Path("prompts.yaml").read_text().splitlines(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def together(folder: Path, much: Scale) -> tuple[str, bytes]:
    """All of it in an empty folder: the page, and the contact sheet as JPEG."""
    torch.set_num_threads(1)
    with contextlib.chdir(folder):
        said = Said(asdict(much))
        run(said, much)
        store = Store.open("store")
        held = held_out(store)
        rows, probed = scores(held, much.score), probe(store)
        sheet(held, much.score, Path("together.jpg"))
        return markdown(said, much, rows, probed), Path("together.jpg").read_bytes()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="that it runs, with hardly trained models; writes nothing")
    parser.add_argument("--folder", type=Path, help="keep all there, and go on with what is there")
    given = parser.parse_args()
    hf.utils.logging.disable_progress_bar()  # of weights that are read, in the midst of what commands print
    with scratch() as folder:
        room = folder if given.folder is None else given.folder
        room.mkdir(parents=True, exist_ok=True)
        page, picture = together(room.resolve(), QUICK if given.quick else Scale())
    print(page)
    if not given.quick:
        (RESULTS / "together.md").write_text(page)
        (RESULTS / "together.jpg").write_bytes(picture)


if __name__ == "__main__":
    main()
