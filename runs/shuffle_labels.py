"""Control: the labels of a set, given to other images of the same part.

    python runs/shuffle_labels.py STORE FROM [FROM ...] [--suffix -shuffled] [--seed 0]

Every label set called FROM, of whatever task, is copied as FROM-shuffled with its answers permuted within each part.
What they say on the whole stays the same (how often a class is named, how many boxes there are, which depths); only
what they have to do with the picture is gone. A set that is there already is left alone where it is whole.
"""

import argparse

import numpy as np

from polyteach.store import Store


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("source", metavar="FROM", nargs="+")
    parser.add_argument("--suffix", default="-shuffled", help="what the new sets are called: FROM and this")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    store = Store.open(given.store)
    chosen = [s for s in store.sets() if s.name in given.source]
    missing = set(given.source) - {s.name for s in chosen}
    if missing:
        parser.error(f"{given.store} has no label set {sorted(missing)[0]}; it has {[s.name for s in store.sets()]}")
    there = {(s.task, s.name): s for s in store.sets()}
    for labels in chosen:
        name = labels.name + given.suffix
        copy = there.get((labels.task, name)) or store.create_set(
            labels.task, name, labels.space, labels.info | {"shuffled": {"of": labels.name, "seed": given.seed}}
        )
        for part in labels.parts():
            if copy.has(part):
                continue
            answers = labels.read(part)
            order = np.random.default_rng([given.seed, part]).permutation(len(answers))
            copy.write(part, labels.ids(part), [answers[i] for i in order])
        print(f"{labels.task}/{name}: {len(labels.parts())} parts")


if __name__ == "__main__":
    main()
