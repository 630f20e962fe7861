"""What the label sets of a store say: counts, statistics, classes, and whether they can teach anything."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from polyteach.loading.held import held
from polyteach.loading.plan import idle_sets
from polyteach.store import ABSENT, FAILED, LABELLED, LabelSet, Store, StoreFolder
from polyteach.tasks import load_task
from polyteach.tasks.target import Policy


def described_sets(store: StoreFolder, parts: Sequence[int], score: float) -> list[dict[str, Any]]:
    """A dictionary for each label set, as `described` gives them, by task and name."""
    whole = Store(store.path, store.part_size, store.limits)
    policy, idle = Policy(score=score), idle_sets(whole)
    sets, every = [], whole.sets()
    nothing: dict[str, set[str]] = {}  # by task, images in which people found nothing
    for labels in sorted(every, key=lambda s: not s.by_people):
        people = labels.by_people
        states, shown, of, left = _counted(labels, policy, nothing.setdefault(labels.task, set()))
        sets.append(
            {
                "set": f"{labels.task}/{labels.name}",
                "teacher": "people" if people else str(labels.info.get("teacher", {}).get("spec", "unknown")),
                "labelled": states[LABELLED],
                "absent": states[ABSENT],
                "failed": states[FAILED],
                "open": len(set(parts) - set(labels.parts())),
                "statistics": labels.statistics(score)[2],
                "doubt": labels.doubt(policy),
                "idle": idle.get((labels.task, labels.name), ""),
                "classes": {name: shown[i] for i, name in enumerate(labels.space.names)},
                "empties": {"of": of, "left": left} if of else None,
                "calibration": labels.calibration_record(),
                "held": held(labels, every, score),
            }
        )
    return sets


def _counted(labels: LabelSet, policy: Policy, empty: set[str]) -> tuple[Counter[str], Counter[int], int, int]:
    """Images by state and by class that they show, of how many in which people found nothing there are answers, and
    how many of those are left empty.

    empty: ids of the images in which people found nothing; people's own sets add to it.
    """
    task, people = load_task(labels.task), labels.by_people
    states: Counter[str] = Counter()
    shown: Counter[int] = Counter()
    of = left = 0
    for part in labels.parts():
        table = labels.table(part)
        states.update(table["state"].to_pylist())
        images = labels.store.sizes(part)
        for image, found in zip(images, labels.fitted(table, images), strict=True):
            id, answer = image.id, labels.sound(part, image, found)
            if answer is None or isinstance(answer, str):
                continue
            classes = task.classes(answer if people else task.pseudo(labels.calibrated(answer, policy), policy))
            shown.update(set(classes))
            if labels.space.names and people and not classes:
                empty.add(id)
            elif id in empty:
                of, left = of + 1, left + (not classes)
    return states, shown, of, left
