"""The work behind `polyteach label`: all teachers over a store's images, part by part, into one label set each."""

from collections.abc import Mapping
from typing import Any

from polyteach.ground.devices import find_device
from polyteach.ground.limits import Limits
from polyteach.ground.progress import track
from polyteach.ground.texts import say
from polyteach.labelling.handout import hand_out
from polyteach.labelling.options import Asking, Cluster
from polyteach.labelling.part import Team
from polyteach.labelling.summary import summarise
from polyteach.labelling.team import load_team
from polyteach.labelling.varied import told
from polyteach.store import Store
from polyteach.store.folder import check_images


def run(
    store: str,
    teachers: Mapping[str, str],
    devices: Mapping[str, str],
    asking: Asking,
    score: float,
    limits: Limits,
    cluster: Cluster,
    progress: bool,
) -> None:
    """Label what of the store is not labelled, and tell of it.

    devices: by teacher. score: the least that the statistics at the end count.

    Raises:
        ValueError: a teacher that cannot be loaded or works no longer, a device that is none; at the end, when a label
            set has no answer for any image.
    """
    opened = Store.open(store, limits=limits)
    check_images(opened, store)
    local = cluster.ray is None
    for place in devices.values() if local else ():
        find_device(place)  # all of them before any teacher is loaded
    # on Ray the machine that deals out the work need not have the workers' devices
    team = load_team(opened, teachers, devices if local else dict.fromkeys(teachers, "cpu"), asking, works=local)
    _note(team, _record(teachers, devices, asking, score, limits, cluster), local)
    for asker in team.askers if asking.views else ():
        names = ", ".join(dict.fromkeys(labels.name for labels in asker.sets.values()))
        once = f"{names} is asked once about each image, with the answers of {asker.source and asker.source.name}"
        say(told(names, asking) if asker.source is None else once)
    if local:
        label_here(team, progress)
    else:
        hand_out(team, teachers, devices, limits, cluster, progress)
    summarise(team, score)


def label_here(team: Team, progress: bool) -> None:
    """Fill what is missing in this process; each part of each set is written once it is complete."""
    store = team.store
    todo = [(p, work) for p in store.parts() if (work := team.owed(p))]
    with track("label", sum(store.count(p) for p, _ in todo), "images", progress) as bar:
        for n, (part, work) in enumerate(todo):
            for ahead, _ in todo[n + 1 : n + 2]:
                store.prefetch(ahead)
            team.fill(part, work, bar)
            for ledger in team.ledgers.values():
                ledger.write()


def _record(
    teachers: Mapping[str, str],
    devices: Mapping[str, str],
    asking: Asking,
    score: float,
    limits: Limits,
    cluster: Cluster,
) -> dict[str, Any]:
    """The resolved options, as label.json keeps them."""
    return {
        "teacher": teachers,
        "device": devices,
        "precision": asking.precision,
        "batch_size": asking.batch_size,
        "threads": asking.threads,
        "score": score,
        "retry": asking.retry,
        "split": list(asking.split),
        "flip": asking.flip,
        "scales": list(asking.scales),
        "allow_remote": list(limits.allow_remote),
        "max_pixels": limits.max_pixels,
        "ray": cluster.ray,
        "ray_workers": cluster.ray_workers,
        "ray_tries": cluster.ray_tries,
        "ray_timeout": cluster.ray_timeout,
    }


def _note(team: Team, config: dict[str, Any], works: bool) -> None:
    """Write the options of this run beside every label set that it fills."""
    for asker in team.askers:
        for labels in asker.sets.values():
            team.ledger(labels).open(config, asker.teacher.compute(labels.name), works)
