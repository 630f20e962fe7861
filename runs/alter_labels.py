"""Label sets made of others, for controls and ablations.

    python runs/alter_labels.py STORE shuffled FROM [FROM ...] [--seed 0]
    python runs/alter_labels.py STORE coarse FROM [FROM ...] [--bits 6]

Every label set called FROM, of whatever task, is copied as FROM-shuffled or FROM-coarse. A set that is there already is
left alone where it is whole.

shuffled: the answers are permuted within each part. What they say on the whole stays the same (how often a class is
named, how many boxes there are, which depths); only what they have to do with the picture is gone.

coarse: all numbers but the corners of boxes are rounded to that many bits of their fraction, where the store keeps ten
(seven or eight of a probability of a region): with six, by up to 0.8 % of the value.
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyteach.store import Store

CORNERS = "box"


def rounded(value: Tensor, bits: int) -> Tensor:
    """To the nearest number with that many bits after the first."""
    fraction, exponent = torch.frexp(value)  # 0.5 <= |fraction| < 1: its first bit is the one that is not kept
    return torch.ldexp((fraction * 2 ** (bits + 1)).round() / 2 ** (bits + 1), exponent)


def coarse(answer: Any, bits: int) -> Any:
    """A target with rounded numbers; what is none (a reason, or nothing) as it is."""
    if answer is None or isinstance(answer, str):
        return answer
    values = {f.name: getattr(answer, f.name) for f in fields(answer) if f.name != CORNERS}
    real = {k: v for k, v in values.items() if isinstance(v, Tensor) and v.is_floating_point()}
    return replace(answer, **{k: rounded(v, bits) for k, v in real.items()})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("how", choices=("shuffled", "coarse"))
    parser.add_argument("source", metavar="FROM", nargs="+")
    parser.add_argument("--seed", type=int, default=0, help="of the permutations")
    parser.add_argument("--bits", type=int, default=6, help="of the fractions")
    given = parser.parse_args()
    store = Store.open(given.store)
    chosen = [s for s in store.sets() if s.name in given.source]
    missing = set(given.source) - {s.name for s in chosen}
    if missing:
        parser.error(f"{given.store} has no label set {sorted(missing)[0]}; it has {[s.name for s in store.sets()]}")
    there = {(s.task, s.name): s for s in store.sets()}

    def altered(answers: Sequence[Any], part: int) -> list[Any]:
        if given.how == "coarse":
            return [coarse(a, given.bits) for a in answers]
        order = np.random.default_rng([given.seed, part]).permutation(len(answers))
        return [answers[i] for i in order]

    option = {"seed": given.seed} if given.how == "shuffled" else {"bits": given.bits}
    for labels in chosen:
        name = f"{labels.name}-{given.how}"
        copy = there.get((labels.task, name)) or store.create_set(
            labels.task, name, labels.space, labels.info | {given.how: {"of": labels.name} | option}
        )
        for part in labels.parts():
            if not copy.has(part):
                copy.write(part, labels.ids(part), altered(labels.read(part), part))
        print(f"{labels.task}/{name}: {len(labels.parts())} parts")


if __name__ == "__main__":
    main()
