"""From the teachers that were named to those that can be asked: loaded on their devices, with their label sets."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from polyteach.ground.devices import NoDevice, arithmetic, find_device, warn_if_slow
from polyteach.ground.texts import say
from polyteach.labelling.asking import Asker
from polyteach.labelling.chain import Key, check_whole, in_order
from polyteach.labelling.costs import Ledger
from polyteach.labelling.options import Asking
from polyteach.labelling.part import Team
from polyteach.labelling.varied import varied
from polyteach.loading.plan import no_split
from polyteach.store import LabelSet, Store
from polyteach.store.label_folder import named_sets
from polyteach.teachers import load_teacher
from polyteach.teachers.contract import Chained, Teacher
from polyteach.version import __version__


def load_team(
    store: Store, teachers: Mapping[str, str], device: Mapping[str, str], asking: Asking, works: bool = True
) -> Team:
    """All teachers, loaded, with their label sets in the store.

    device: by teacher. works: they will be asked in this process.

    Raises:
        ValueError: no image has one of the splits that are asked for; a teacher cannot be loaded, or not on its device;
            it needs answers that nobody gives.
    """
    _check_splits(store, asking)
    askers: list[Asker] = []
    ledgers = {}
    loaded = {name: _loaded(name, spec, device[name], asking.precision) for name, spec in teachers.items()}
    needs = {name: teacher.needs if isinstance(teacher, Chained) else None for name, (teacher, _) in loaded.items()}
    made: dict[Key, LabelSet] = {}
    for name, maker in in_order(needs, named_sets(store)).items():
        teacher, place = loaded[name]
        if not isinstance(teacher, Chained):  # which is asked once, as its boxes are one answer already
            teacher = varied(teacher, name, asking)
        if teacher.bulk and works:
            say(_bulk(name, teacher, store))
        source = _followed(store, name, teacher, maker, made) if isinstance(teacher, Chained) else None
        sets = _label_sets(store, name, teacher, asking, source)
        made |= {(labels.task, labels.name): labels for labels in sets.values()}
        for labels in sets.values():
            ledgers[str(labels.path)] = Ledger(labels, [arithmetic(place, asking.precision)])
        askers.append(Asker(teacher, sets, place, source))
        if works:
            warn_if_slow(torch.device(place).type, asking.precision)
    return Team(store, asking, askers, ledgers)


def _bulk(name: str, teacher: Teacher, store: Store) -> str:
    """What the answers of a teacher will take on the disk, before they do."""
    images = sum(store.count(p) for p in store.parts())
    total = teacher.bulk * images
    said = f"{total / 1e9:,.1f} GB" if total >= 1e9 else f"{total / 1e6:,.1f} MB"
    return f"{name}: its answers take about {teacher.bulk / 1e3:,.0f} kB an image, {said} for {images:,} images"


def _check_splits(store: Store, asking: Asking) -> None:
    if asking.split:
        splits = {r.split for p in store.parts() for r in store.images(p, data=False)}
        for split in asking.split:
            if split not in splits:
                raise no_split(split, splits)


def _loaded(name: str, spec: str, device: str, precision: str) -> tuple[Teacher, str]:
    """The teacher, and the device that it is on: with "auto" the CPU where it runs on nothing else."""
    place = find_device(device)
    try:
        return load_teacher(spec, place, precision), place
    except NoDevice as e:
        if device != "auto":
            raise ValueError(f"{name}: {e}. For this teacher say --device {name}=cpu") from e
        say(f"{name}: {e}; it runs on the CPU")
        return load_teacher(spec, "cpu", precision), "cpu"


def _followed(store: Store, name: str, teacher: Chained, maker: str | None, made: Mapping[Key, LabelSet]) -> LabelSet:
    """The label set whose answers the teacher `name` is asked with, which it has been told of.

    maker: the teacher that fills it, if one of this command does. made: label sets of this command.
    """
    task, source = teacher.needs
    if maker is None:
        labels = LabelSet(store, task, source)
        check_whole(name, labels, store)
    elif (task, source) in made:
        labels = made[task, source]
    else:
        # any of them may be of `maker`, whose sets may bear the names of its objectives too
        there = ", ".join(f"{t}/{n}" for t, n in made if n == maker or n.startswith(f"{maker}-"))
        raise ValueError(f"teacher {name!r} is to be given {task}/{source}, but {maker!r} answers {there}")
    teacher.follow(labels.objective)
    return labels


def _label_sets(
    store: Store, name: str, teacher: Teacher, asking: Asking, given: LabelSet | None
) -> dict[str, LabelSet]:
    """Make or open the teacher's label sets: NAME, or NAME-OBJECTIVE where one task comes twice.

    given: whose answers it is asked with. Answers with other ones would be other answers, so it is recorded.
    """
    source = store.ingested()
    about = _provenance(teacher)
    if given is not None:
        about["given"] = {"task": given.task, "name": given.name, "teacher": given.info.get("teacher")}
    info: dict[str, Any] = {
        "teacher": about,
        "precision": asking.precision,
        "images": {"source": source.get("source"), "licence": source.get("licence")},
        "polyteach": __version__,
    }
    if asking.split:  # another split under the same name would be half a label set
        info["split"] = list(asking.split)
    if asking.views and given is None:  # answers to other questions are others
        info["views"] = asking.views
    tasks = Counter(o.task for o in teacher.objectives.values())
    sets = {}
    for key, objective in teacher.objectives.items():
        unique = name if tasks[objective.task] == 1 else f"{name}-{key}"
        sets[key] = store.create_set(objective.task, unique, objective.space, dict(info))
    return sets


def _provenance(teacher: Teacher) -> dict[str, Any]:
    about = {
        "spec": teacher.spec,
        "origin": teacher.origin,
        "sha256": teacher.sha256,
        "licence": teacher.licence,
        "learning_rate": teacher.learning_rate,
        "batch_size": teacher.batch_size,
    }
    if teacher.optimizer is not None:
        about["optimizer"] = teacher.optimizer
    return about
