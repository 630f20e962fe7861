"""The lines that `polyteach predict` prints of answers, for people or as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from json import dumps
from math import isfinite
from typing import Any

from polyteach.labelling.options import Telling
from polyteach.tasks import load_task
from polyteach.tasks.target import Objective, Policy, Target


def lines(
    files: Sequence[str],
    answers: Sequence[Mapping[str, Target]],
    bad: Mapping[str, str],
    objectives: Mapping[str, Objective],
    telling: Telling,
) -> Iterator[str]:
    """One line for each file and objective; as JSON one for each file, of those in `bad` too."""
    for file, answer in zip(files, answers, strict=True):
        said = {}
        for name, target in answer.items():
            about = objectives[name]
            text, said[name] = load_task(about.task).describe(target, about.space, Policy(score=telling.score))
            if not telling.json:
                yield f"{file}: {name}: {text}"
        if telling.json:
            rest = {"error": bad[file]} if file in bad else {"answers": said}
            yield dumps(_finite({"image": file} | rest), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have: NaN and infinity, as of a network that diverged."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not isfinite(value) else value
