"""What the tests of datasets of classes share: small pictures and trees of them, and what a reader makes of a tree."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from polyteach.datasets import load_dataset
from polyteach.verbs.ingest import ingest


def picture(value=0, format="PNG", mode="RGB"):
    """Bytes of a grey picture, 12 high and 10 wide."""
    out = io.BytesIO()
    Image.fromarray(np.full((12, 10, 3), value, np.uint8)).convert(mode).save(out, format=format)
    return out.getvalue()


def tree(root, *names, data=None):
    """Files of `data`, or of a picture each, within `root`."""
    for i, name in enumerate(names):
        file = Path(root) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(i) if data is None else data)


def class_of(target, names):
    """The one class that a target is sure of."""
    assert target.probability.shape == (len(names),)
    assert sorted(target.probability.tolist()) == [0] * (len(names) - 1) + [1]
    return names[int(target.probability.argmax())]


def seen(source):
    """Of a dataset, name -> (split, class or None), and name -> problem of the entries with one."""
    dataset = load_dataset(source)
    space = dataset.spaces.get("classification")
    found, problems = {}, {}
    for name, entry in zip(dataset.names, dataset.entries(0, len(dataset.names)), strict=True):
        try:
            if entry.problem:
                raise ValueError(entry.problem)
            target = entry.targets((12, 10))["classification"] if entry.targets else None
        except ValueError as e:
            problems[name] = str(e)
        else:
            found[name] = (entry.split, None if target is None else class_of(target, space.names))
    return found, problems


def stored(source, store, **options):
    """The same by way of a store: id -> (split, class or None), and id -> reason of the rejects."""
    store = ingest(source, str(store), progress=False, **options)
    (labels,) = store.sets()
    assert (labels.task, labels.name) == ("classification", "people")
    found = {}
    for part in store.parts():
        assert labels.ids(part) == [row.id for row in store.images(part)]
        for row, answer in zip(store.images(part), labels.read(part), strict=True):
            assert store.picture(row).shape == (3, row.height, row.width)
            found[row.id] = (row.split, None if answer is None else class_of(answer, labels.space.names))
    return found, {id: reason for id, _, reason in store.rejects()}
