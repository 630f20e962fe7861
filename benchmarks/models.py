"""Which models can be teachers: every class of transformers' Auto tables, family of torchvision and layout of ONNX.

    python benchmarks/models.py            # prints the tables
    python benchmarks/models.py --write    # puts them into docs/guide/teachers.md
    python benchmarks/models.py --only eomt depth

Of each class a tiny model with random weights is made (`tests/tiny.py`), kept as its library keeps it, loaded as a
teacher and asked about two images. That its answers are right is held by the test that its row names. A few minutes on
two CPU cores, without network.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torchvision  # noqa: E402
import transformers  # noqa: E402

from polyteach.tasks import load_task  # noqa: E402
from polyteach.teachers import load_teacher  # noqa: E402
from tests import tiny  # noqa: E402

PAGE = ROOT / "docs" / "guide" / "teachers.md"
BEGIN = "<!-- what follows is written by benchmarks/models.py --write -->\n"
END = "<!-- what went before is written by benchmarks/models.py --write -->\n"
SIZES = ((48, 64), (70, 50))
"""Height and width of the two images."""
SAID = {
    "Sapiens2ForNormalEstimation": "?axes=right,up,towards",
    "Tipsv2DptForNormalEstimation": "?axes=right,up,towards",
    "CHMv2ForDepthEstimation": "?kind=relative",
}
"""What has to be said of a model, as nothing in its folder does."""
_CLASSES, _BOXES = (
    "tests/test_prompts.py::test_one_prompt_a_class_is_the_librarys_answer",
    "tests/test_prompts.py::test_several_prompts_are_one_class_by_the_best_of_them",
)
_OTHERS = "tests/test_prompts.py::test_a_model_that_is_not_asked_as_clip_is_refused"
PROMPTED: dict[str, tuple[str, str]] = {
    "GroundingDinoForObjectDetection": ("works", f"{_BOXES}[grounding]"),
    "MMGroundingDinoForObjectDetection": ("works", f"{_BOXES}[mm_grounding]"),
    "OmDetTurboForObjectDetection": ("works", f"{_BOXES}[omdet]"),
    "Owlv2ForObjectDetection": ("works", f"{_BOXES}[owlv2]"),
    "OwlViTForObjectDetection": ("works", f"{_BOXES}[owlvit]"),
    "AlignModel": ("works", f"{_CLASSES}[align]"),
    "AltCLIPModel": ("works", f"{_CLASSES}[altclip]"),
    "BlipModel": ("works", f"{_CLASSES}[blip]"),
    "Blip2ForImageTextRetrieval": ("refused", _OTHERS),
    "ChineseCLIPModel": ("works", f"{_CLASSES}[chinese_clip]"),
    "CLIPModel": ("works", f"{_CLASSES}[clip]"),
    "CLIPSegModel": ("works", f"{_CLASSES}[clipseg]"),
    "MetaClip2Model": ("works", f"{_CLASSES}[metaclip]"),
    "SiglipModel": ("works", f"{_CLASSES}[siglip]"),
    "Siglip2Model": ("refused", _OTHERS),
    "VideoPrismClipModel": ("refused", _OTHERS),
}
"""Classes that are asked with prompts -> verdict and test; those that are not here are listed as untested."""
ONNX = {
    "yolov8 (Ultralytics' metadata)": "test_yolov8_by_its_own_metadata",
    "yolov5": "test_yolov5_multiplies_the_objects_probability",
    "end to end": "test_end_to_end_suppresses_nothing",
    "rt-detr rows (Ultralytics)": "test_ultralytics_rt_detr_answers_fractions_of_a_stretched_image",
    "rt-detr": "test_rt_detr_is_told_the_inputs_size",
    "detr": "test_detr_leaves_its_last_class_out",
    "fastestdet": "test_fastestdet_by_its_published_loop",
    "masks from prototypes": "test_masks_from_prototypes",
    "masks of the graph's own": "test_masks_that_a_graph_answers",
    "classes (Ultralytics)": "test_an_ultralytics_classifier",
    "classes that do not exclude each other": "test_classes_that_do_not_exclude_each_other_share_an_image",
    "maps of classes, channels last": "test_maps_with_channels_last_and_boxes_as_corner_and_size",
    "normals": "test_normals_with_their_axes",
}
"""Layouts of an ONNX file -> the test of tests/test_onnx_layouts.py that makes such a graph and asks it."""


@dataclass(frozen=True)
class Row:
    """One line of a table. verdict: works, refused or untested; why: what it needs, or the reason."""

    name: str
    answers: str
    verdict: str
    why: str
    test: str


def asked(spec: str) -> str:
    """What a teacher answers about two images: the names of its objectives.

    Raises:
        ValueError: it is refused; or an answer is none of its task's.
    """
    draw = torch.Generator().manual_seed(3)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=draw) for size in SIZES]
    teacher = load_teacher(spec)
    for answer, size in zip(teacher(images), SIZES, strict=True):
        for key, objective in teacher.objectives.items():
            load_task(objective.task).check(answer[key], size, objective.space)
    return ", ".join(o.space.kind if o.task == "detection" else o.task for o in teacher.objectives.values())


def tried(make: Callable[[Path], str], name: str, test: str, answers: str) -> Row:
    """The row of a model. make: keeps it in a folder and returns its spec; what it raises leaves the class untested."""
    folder = Path(tempfile.mkdtemp(prefix="models-"))
    try:
        try:
            spec = make(folder)
        except Exception as e:  # a class of another release wants sizes that are not known here
            return Row(name, answers, "untested", _short(f"{type(e).__name__}: {e}", folder), "")
        try:
            answers = asked(spec)
        except ValueError as e:
            return Row(name, answers, "refused", _short(str(e), folder), test)
        return Row(name, answers, "works", spec.partition("?")[2] and f"with ?{spec.partition('?')[2]}", test)
    finally:
        shutil.rmtree(folder)


def _short(text: str, folder: Path) -> str:
    """The first sentence or so of an error, without where the model lay."""
    line = " ".join(text.replace(str(folder), "FOLDER").replace("|", "/").split())
    line = line.removeprefix("FOLDER fails at every image, as when it was loaded and asked about noise: ")
    return line if len(line) <= 160 else f"{line[:160].rsplit(' ', 1)[0]} ..."


def of_transformers(only: Callable[..., bool]) -> Iterator[Row]:
    """A row for each row of the library's Auto tables."""
    seen: set[str] = set()
    for task, kind, name in tiny.architectures():
        if name in seen or not only(task, kind, name):
            continue
        seen.add(name)  # MaskFormer stands in two tables
        if task.startswith("zero-shot"):
            verdict, test = PROMPTED.get(name, ("untested", ""))
            yield Row(name, task, verdict, "with [prompts](prompts.md)" if verdict == "works" else "", test)
            continue

        def make(folder: Path, kind: str = kind, name: str = name) -> str:
            return f"transformers:{tiny.kept(folder, *tiny.tiny(kind, name))}{SAID.get(name, '')}"

        yield tried(make, name, f"tests/test_transformers.py::test_every_class[{name}]", task)


def of_torchvision(only: Callable[..., bool]) -> Iterator[Row]:
    """A row for each file of models of torchvision's, by the smallest model in it."""
    found: dict[str, list[str]] = {}
    for name in torchvision.models.list_models():
        home = torchvision.models.get_model_builder(name).__module__.removeprefix("torchvision.models.")
        if home.partition(".")[0] not in ("quantization", "video", "optical_flow"):
            found.setdefault(home, []).append(name)
    tests = {"detection": "test_torchvision_boxes", "segmentation": "test_torchvision_maps"}
    for home, known in sorted(found.items()):
        name = min(known, key=lambda n: torchvision.models.get_model_weights(n).DEFAULT.meta["num_params"])
        kind = home.partition(".")[0] if "." in home else "classification"
        if not only("torchvision", home, name):
            continue

        def make(folder: Path, name: str = name, kind: str = kind) -> str:
            more = {} if kind == "classification" else {"weights_backbone": None}
            count = 2 if "keypoint" in name else 3
            model = torchvision.models.get_model(name, weights=None, num_classes=count, **more)
            torch.save(model.state_dict(), folder / "net.pth")
            (folder / "net.classes.txt").write_text("\n".join(["__background__", "a", "b"][:count]))
            return f"torchvision:{name}@{folder / 'net.pth'}"

        test = tests.get(kind, "test_torchvision_classes")
        yield tried(make, f"{home.rpartition('.')[2]} ({name})", f"tests/test_teachers.py::{test}", kind)


def of_onnx(only: Callable[..., bool]) -> Iterator[Row]:
    """A row for each layout: its test makes such a graph."""
    chosen = {layout: test for layout, test in ONNX.items() if only("onnx", layout, test)}
    if not chosen:
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        tests = [f"tests/test_onnx_layouts.py::{test}" for test in chosen.values()]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        cases = list(ElementTree.parse(report).iter("testcase"))
    for layout, test in chosen.items():
        mine = [c for c in cases if (c.get("name") or "").partition("[")[0] == test]
        broken = [c for c in mine if c.find("failure") is not None or c.find("error") is not None]
        verdict = "untested" if not mine else "fails" if broken else "works"
        yield Row(layout, "", verdict, "", f"tests/test_onnx_layouts.py::{test}")


def table(title: str, rows: list[Row]) -> str:
    """A section of the page."""
    count = {v: sum(r.verdict == v for r in rows) for v in dict.fromkeys(r.verdict for r in rows)}
    lines = [f"### {title}", "", f"{len(rows)} in all: {', '.join(f'{n} {v}' for v, n in count.items())}.", ""]
    lines += ["| model | answers | verdict | held by |", "| --- | --- | --- | --- |"]
    for r in rows:
        test = f"`{r.test.rpartition('::')[2]}`" if r.test and r.verdict != "untested" else ""
        lines.append(f"| {r.name} | {r.answers} | {r.verdict}{': ' + r.why if r.why else ''} | {test} |")
    return "\n".join(lines) + "\n"


def page(before: str, tables: str) -> str:
    """The guide's page with the tables between the marks, at its end where there are none yet."""
    head, mark, rest = before.partition(BEGIN)
    tail = rest.partition(END)[2] if mark else ""
    return f"{head.rstrip()}\n\n{BEGIN}\n{tables}\n{END}{tail}"


def main() -> int:
    """The command; 1 where a model fails that is neither refused nor untested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=(), help="models with one of these words; writes nothing")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/guide/teachers.md")
    given = parser.parse_args()
    if given.write and given.only:
        parser.error("--write takes all models; leave --only out")
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    began = time.monotonic()

    def only(*words: str) -> bool:
        return not given.only or any(o.lower() in w.lower() for o in given.only for w in words)

    parts = {
        f"transformers {transformers.__version__}": list(of_transformers(only)),
        f"torchvision {torchvision.__version__.partition('+')[0]}": list(of_torchvision(only)),
        "ONNX": list(of_onnx(only)),
    }
    tables = "\n".join(table(title, rows) for title, rows in parts.items() if rows)
    print(tables)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if given.write:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
    return int(any(r.verdict == "fails" for rows in parts.values() for r in rows))


if __name__ == "__main__":
    sys.exit(main())
