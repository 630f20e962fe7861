"""Where `evaluate` begins: what its words mean, and what can be refused of them without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyteach.evaluation.options import Judging
from polyteach.ground.limits import Limits
from polyteach.ground.names import did_you_mean
from polyteach.ground.texts import say
from polyteach.labelling.options import Predicting
from polyteach.loading.chosen import check_chosen
from polyteach.store.folder import StoreFolder, check_images
from polyteach.store.label_folder import LabelFolder, named_sets
from polyteach.teachers import check_teacher, needed

Key = tuple[str, str]
"""Task and name of a label set."""


@dataclass(frozen=True)
class What:
    """given: the word. sets: the label sets that it names; else spec: the teacher that it names. kind: in words."""

    given: str
    kind: str
    sets: tuple[Key, ...] = ()
    spec: str = ""


@dataclass(frozen=True)
class Request:
    """What `evaluate` is asked for, of which is refused what can be without torch. truth: as `What.sets`."""

    what: tuple[What, ...]
    store: str
    truth: tuple[Key, ...]
    out: Path | None
    judging: Judging
    predicting: Predicting
    limits: Limits
    progress: bool


def start_evaluate(
    what: Sequence[str],
    store: str,
    out: str | Path | None,
    judging: Judging,
    predicting: Predicting,
    limits: Limits,
    progress: bool,
) -> dict[str, Any]:
    """Evaluate all of `what`; see `evaluation.run.run`.

    Raises:
        ValueError: what is neither a run, a label set nor a teacher, no store, nothing to hold it
            against, `out` exists; or as `run`.
    """
    for word in what:
        if what.count(word) > 1:
            raise ValueError(f"{word} is given twice")
    if out is not None and Path(out).exists():
        raise ValueError(f"{out} exists; evaluate does not overwrite, choose another --out")
    opened = StoreFolder.open(store, limits=limits)
    check_images(opened, store)
    there = named_sets(opened)
    truth = _truth(opened, there, judging.truth)
    found = tuple(_resolved(word, store, there, predicting.precision) for word in what)
    from polyteach.evaluation.run import run  # torch, from here on

    path = None if out is None else Path(out)
    return run(Request(found, store, truth, path, judging, predicting, limits, progress))


def _truth(store: StoreFolder, there: Sequence[Key], asked: Sequence[str]) -> tuple[Key, ...]:
    """The label sets that are taken for right.

    Raises:
        ValueError: an unknown name, or no label set of people's.
    """
    if asked:
        check_chosen(there, (), asked)
        return tuple(key for key in there if key[1] in asked or "/".join(key) in asked)
    people = tuple(key for key in there if LabelFolder(store, *key).by_people)
    if not people:
        has = f"it has {', '.join(map('/'.join, there))}" if there else "it has no label sets"
        raise ValueError(
            f"{store.path} has no labels by people; {has}. Hold answers against another label set with --truth "
            "TASK/NAME, or ingest people's labels"
        )
    return people


def _resolved(word: str, store: str, there: Sequence[Key], precision: str) -> What:
    """What a word means: a label set, else a run's folder, else a teacher.

    Raises:
        ValueError: none of these.
    """
    sets = tuple(key for key in there if word in (key[1], "/".join(key)))
    folder = Path(word).is_dir()
    if sets:
        if folder:
            say(f"{word} is taken for the label set of {store}; for the folder say ./{word}")
        return What(word, "label set", sets)
    if folder:
        check_teacher(f"own:{word}", precision)
        return What(word, "run", spec=f"own:{word}")
    if ":" in word:
        check_teacher(word, precision)
        if (need := needed(word)) is not None:
            raise ValueError(
                f"{word} is asked with the answers of {'/'.join(need)}: label the store first (polyteach label {store} "
                f"--teacher NAME={word}), then evaluate that label set"
            )
        return What(word, "teacher", spec=word)
    names = ["/".join(key) for key in there]
    raise ValueError(
        f"{word!r} is neither a run's folder, nor a teacher (FAMILY:NAME), nor a label set of {store}, which has "
        f"{', '.join(names) or 'none'}{did_you_mean(word, names)}"
    )
