"""Which of timm's models can be a student's backbone: some names of every family, at two sizes of images.

    python benchmarks/backbones.py            # prints the table
    python benchmarks/backbones.py --most 0   # of every name
    python benchmarks/backbones.py --write    # puts it into docs/guide/backbones.md
    python benchmarks/backbones.py --only dla swin_transformer

Each is made without memory (torch's "meta" device) and shown an image: its maps have to be where their strides say.
That they also hold what they should, and a student learns from them, is held by tests/test_backbones.py for one name
of each kind. Some minutes on one CPU core, an hour with every name, without network.
"""

import argparse
import sys
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import timm  # noqa: E402

from polyteach.model.backbones import timm_list  # noqa: E402
from polyteach.model.backbones.timm_models import _maps  # noqa: E402

PAGE = ROOT / "docs" / "guide" / "backbones.md"
BEGIN = "<!-- what follows is written by benchmarks/backbones.py --write -->\n"
SIZES = (128, 224)


def verdict(name: str, size: int) -> str:
    """ "" where the model works at that size, else why not."""
    try:
        _maps(name, (size, size))
    except ValueError as e:
        return str(e)
    return ""


def kind(reason: str) -> str:
    """What is wrong, as a row of the table says it: models of a family say the same in other numbers."""
    if "a pyramid needs" in reason:
        return "no maps at strides 4, 8, 16 and 32"
    if "is wanted" in reason:
        return "maps are not where their strides say"
    if "gives no feature maps of images" in reason:
        return "takes no images of that size"
    return "gives no maps"


def some(names: list[str], most: int) -> list[str]:
    """At most so many of the names, from all over their list; all of them where `most` is 0."""
    return names if not most or len(names) <= most else [names[i * (len(names) - 1) // (most - 1)] for i in range(most)]


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
        example = next((n for size in SIZES for n in good[size]), names[0])
        total += Counter({size: len(good[size]) for size in SIZES} | {"names": len(every), "tried": len(names)})
        said = "; ".join(reasons)
        out.append(
            f"| {family} | {len(every)} | {len(names)} | {len(good[128])} | {len(good[224])} | `{example}` | {said} |"
        )
        print(out[-1], flush=True)
    head = [
        "| family | names | tried | work at 128 | work at 224 | such as | the others |",
        f"|{' --- |' * 7}",
    ]
    worked = f"{total[128]:,} work at 128x128, {total[224]:,} at 224x224."
    sums = f"{total['names']:,} names, of which {total['tried']:,} were tried: {worked}"
    return [f"timm {timm.__version__}, {sums}", "", *head, *out]


def main() -> None:
    """Print the table, or put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--most", type=int, default=3)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    found = rows(asked.only, asked.most)
    print(found[0])
    if asked.write:
        before = PAGE.read_text(encoding="utf-8").partition(BEGIN)[0]
        PAGE.write_text(before + BEGIN + "\n" + "\n".join(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
