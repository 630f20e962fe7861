"""Which of timm's models can be a student's backbone: names of every family, at two sizes of images.

    python benchmarks/backbones.py            # prints the table
    python benchmarks/backbones.py --most 0   # of every name
    python benchmarks/backbones.py --write    # puts it into docs/guide/backbones.md
    python benchmarks/backbones.py --only dla swin_transformer

Each is made without memory (torch's "meta" device) and shown an image: its maps have to be where their strides say. One
name of each family, the smallest that works, is then made with random weights: a student of classes, boxes and regions
over it makes one step at 128 px, in which its backbone's parameters have to get finite gradients, and its passes are
timed on one thread at 224 px, in CPU time, which what else the machine does changes less. That maps also hold what they
should is held by tests/test_backbones.py and tests/test_plain.py. Some minutes on one CPU core, an hour with every
name, without network.
"""

import argparse
import platform
import sys
import time
import warnings
from collections import Counter
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import timm  # noqa: E402
import torch  # noqa: E402

from polyteach.ground.scene import random_scene, render  # noqa: E402
from polyteach.model.backbones import load_backbone, timm_list  # noqa: E402
from polyteach.model.backbones._timm_plain import look  # noqa: E402
from polyteach.model.backbones.timm_models import _maps, _one_resolution  # noqa: E402
from polyteach.model.student import Student  # noqa: E402
from polyteach.tasks import load_task  # noqa: E402
from polyteach.tasks.contract import Objective, Space  # noqa: E402

PAGE = ROOT / "docs" / "guide" / "backbones.md"
BEGIN = "<!-- what follows is written by benchmarks/backbones.py --write -->\n"
SIZES = (128, 224)
TASKS = ("classification", "detection", "segmentation")
CLASSES = ("red", "green", "blue")
MOST_PARAMETERS = 100e6
"""Of a backbone that is made with weights."""


def fitting(name: str, size: int) -> int:
    """The size itself, or the multiple of a plain backbone's patch that is nearest below it."""
    if not _one_resolution(name):
        return size
    try:
        patch = look(name, None).patch
    except ValueError:
        return size
    return size // patch * patch


def verdict(name: str, size: int) -> str:
    """ "" where the model works at that size, else why not."""
    try:
        side = fitting(name, size)
        if _one_resolution(name):
            look(name, (side, side))
        else:
            _maps(name, (side, side))
    except ValueError as e:
        return str(e)
    return ""


def parameters(name: str, size: int) -> int:
    """Of the backbone, as it is made for images of that size."""
    side = fitting(name, size)
    with torch.device("meta"):
        return sum(p.numel() for p in load_backbone(name, None, (side, side)).parameters())


def step(name: str, size: int) -> str:
    """What one step of a student over it does: which share of the backbone's parameters get a gradient."""
    side = fitting(name, size)
    scenes = [render(random_scene(i, (side, side))) for i in range(2)]
    objectives = {t: Objective(t, Space(CLASSES, load_task(t).kinds[0])) for t in TASKS}
    student = Student(name, objectives, 32, size=(side, side)).train()
    targets = {t: [load_task(t).truth(s, o.space) for s in scenes] for t, o in objectives.items()}
    sum(student.losses(torch.stack([s.image for s in scenes]), targets).values()).backward()
    grads = [(p.numel(), p.grad) for p in student.backbone.parameters()]
    if not all(g.isfinite().all() for _, g in grads if g is not None):
        return "**not finite**"
    reached = sum(n for n, g in grads if g is not None) / sum(n for n, _ in grads)
    return f"{100 * reached:.0f} %"


def speed(name: str, size: int) -> float:
    """Images per second of CPU time of the backbone's forward pass, of batches of 4, on one thread."""
    side = fitting(name, size)
    backbone, images = load_backbone(name, None, (side, side)).eval(), torch.randn(4, 3, side, side)
    with torch.inference_mode():
        backbone(images)
        start, count = time.process_time(), 0
        while time.process_time() - start < 1.5:
            backbone(images)
            count += len(images)
    return count / (time.process_time() - start)


def kind(reason: str) -> str:
    """What is wrong, as a row of the table says it: models of a family say the same in other numbers."""
    if "a pyramid needs" in reason:
        return "no maps at strides 4, 8, 16 and 32"
    if "is wanted" in reason:
        return "maps are not where their strides say"
    if "NaFlex" in reason:
        return "takes patches, not images"
    if "at no one stride" in reason:
        return "maps are at no one stride"
    if "gives no feature maps of images" in reason:
        return "takes no images of that size"
    return "gives no maps"


def some(names: list[str], most: int) -> list[str]:
    """At most so many of the names, from all over their list; all of them where `most` is 0."""
    return names if not most or len(names) <= most else [names[i * (len(names) - 1) // (most - 1)] for i in range(most)]


def tried(name: str) -> str:
    """The cells of one name: parameters, what a step did, speed."""
    count = parameters(name, SIZES[1])
    if count > MOST_PARAMETERS:
        return f"{count / 1e6:.0f} | not made | not made"
    torch.manual_seed(0)
    return f"{count / 1e6:.1f} | {step(name, SIZES[0])} | {speed(name, SIZES[1]):.1f}"


def rows(only: list[str], most: int) -> list[str]:
    """The table: a family, timm's module, a row."""
    families: dict[str, list[str]] = {}
    for name in timm_list():
        family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
        if not only or family in only:
            families.setdefault(family, []).append(name)
    out, total = [], Counter()
    for family, every in sorted(families.items()):
        names = some(every, most)
        found = {size: {name: verdict(name, size) for name in names} for size in SIZES}
        good = {size: [n for n, why in found[size].items() if not why] for size in SIZES}
        reasons = Counter(kind(why) for size in SIZES for why in found[size].values() if why)
        both = [n for n in good[SIZES[1]] if n in good[SIZES[0]]]
        example = min(both, key=lambda n: parameters(n, SIZES[1]), default=names[0])
        total += Counter({size: len(good[size]) for size in SIZES} | {"names": len(every), "tried": len(names)})
        cells = tried(example) if both else " |  | "
        out.append(
            f"| {family} | {len(every)} | {len(names)} | {len(good[128])} | {len(good[224])} | `{example}` | {cells} | "
            f"{'; '.join(reasons)} |"
        )
        print(out[-1], flush=True)
    head = [
        "| family | names | tried | work at 128 | at 224 | such as | million parameters | of them in a step "
        "| images/s of CPU | the others |",
        f"|{' --- |' * 10}",
    ]
    worked = f"{total[128]:,} work at 128x128, {total[224]:,} at 224x224."
    sums = f"{total['names']:,} names, of which {total['tried']:,} were tried: {worked}"
    when = f"{date.today()}, one thread of {processor()}"
    return [f"timm {timm.__version__}, {sums} ({when})", "", *head, *out]


def processor() -> str:
    """What Linux calls it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((x.partition(": ")[2] for x in lines if x.startswith("model name")), platform.machine())


def main() -> None:
    """Print the table, or put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--most", type=int, default=3)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    found = rows(asked.only, asked.most)
    print(found[0])
    if asked.write:
        before = PAGE.read_text(encoding="utf-8").partition(BEGIN)[0]
        PAGE.write_text(before + BEGIN + "\n" + "\n".join(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
