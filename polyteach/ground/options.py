"""Options that verbs share, and what makes a verb of groups of them. It imports no torch: a mistake is told at once.

A group is a frozen dataclass that checks itself. A verb takes groups; whoever calls it from Python, the command line or
a file of options gives their fields one by one: `train("store", out="run", lr=0.1)`.
"""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar

import tyro
from docstring_parser import parse
from tyro.constructors import PrimitiveConstructorSpec

from polyteach.ground.names import check_device, did_you_mean, unknown_name

OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("fp32", "fp16", "bf16")
Result = TypeVar("Result")


def listed(value: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """One text or path, or several, as texts."""
    several = (value,) if isinstance(value, str | Path) else value
    return tuple(str(v) for v in several)


Paths = Annotated[
    str | Path | Sequence[str | Path],
    tyro.conf.Positional,
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="PATH [PATH ...]",
        instance_from_str=tuple,
        is_instance=lambda x: isinstance(x, str | Path | Sequence),
        str_from_instance=lambda x: list(listed(x)),
    ),
]
"""Of a verb: folders or URLs. From Python one may come without a list."""


MOST_SEED = 2**63 - 1
"""The largest seed that torch takes as it is."""


def at_least(low: float, **given: float | None) -> None:
    """Refuse numbers that are too small; None is no number.

    Raises:
        ValueError: names the first of them.
    """
    for name, value in given.items():
        if value is not None and value < low:
            raise ValueError(f"{name} must be at least {low}; got {value}")


def above(low: float, **given: float | None) -> None:
    """Refuse numbers that are not above `low`; None is no number.

    Raises:
        ValueError: names the first of them.
    """
    for name, value in given.items():
        if value is not None and not value > low:
            raise ValueError(f"{name} must be above {low}; got {value}")


def within(low: float, high: float, **given: float) -> None:
    """Refuse numbers outside of `low` to `high`.

    Raises:
        ValueError: names the first of them.
    """
    for name, value in given.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must be {low} to {high}; got {value}")


def one_of(allowed: Sequence[str], **given: str) -> None:
    """Refuse a name that is none of those allowed.

    Raises:
        ValueError: names it, and those that there are.
    """
    for name, value in given.items():
        if value not in allowed:
            raise unknown_name(name, value, allowed)


@dataclass(frozen=True)
class Views:
    """How images are seen in training.

    Args:
        scale: least and largest scale of the random views; 1 fits the whole image into the view.
        mirror: share of the views that are mirrored, 0 to 1.
        augment: magnitude of RandAugment's photometric operations, 0 (off) to 10; two per image.

    Raises:
        ValueError: a number is out of its range.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    mirror: float = 0.5
    augment: float = 0.0

    def __post_init__(self) -> None:
        within(0, 1, mirror=self.mirror)
        within(0, 10, augment=self.augment)
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be LOW HIGH with 0 < LOW <= HIGH; got {self.scale[0]} {self.scale[1]}")


@dataclass(frozen=True)
class Optimisation:
    """How the weights are learned.

    Args:
        steps: updates of the weights. Give this or `epochs`.
        epochs: passes over the union of the images, instead of `steps`.
        batch_size: images per forward pass.
        optimizer: sgd (momentum 0.9) or adamw.
        lr: peak learning rate, above 0; it follows from optimizer and batch without it.
        weight_decay: not on normalisation and biases.
        warmup: steps of linear warm-up before the cosine; without it a tenth of the steps, at most 1000.
        clip: largest norm of the gradient; 0 for no limit.
        seed: of the weights, the order of the images and their views.

    Raises:
        ValueError: a number is out of its range, or both `steps` and `epochs` are given.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 16
    optimizer: str = "sgd"
    lr: float | None = None
    weight_decay: float | None = None
    warmup: int | None = None
    clip: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"give steps or epochs, not both; got steps={self.steps} and epochs={self.epochs}")
        one_of(OPTIMIZERS, optimizer=self.optimizer)
        at_least(1, batch_size=self.batch_size, steps=self.steps)
        within(0, MOST_SEED, seed=self.seed)
        at_least(0, weight_decay=self.weight_decay, warmup=self.warmup, clip=self.clip)
        above(0, epochs=self.epochs, lr=self.lr)


@dataclass(frozen=True)
class Hardware:
    """Where it is computed, and how precisely.

    Args:
        device: auto (CUDA where there is one, else the CPU), cpu, cuda:0, ...
        precision: fp32, or bf16 or fp16 by autocast.
        channels_last: memory layout that is quicker for convolutions in bf16 and fp16.
        workers: processes that read and decode images; 0 does it in this one. Changes nothing of the result.

    Raises:
        ValueError: an unknown device or precision, or fewer than 0 workers.
    """

    device: str = "auto"
    precision: str = "fp32"
    channels_last: bool = False
    workers: int = 2

    def __post_init__(self) -> None:
        check_device(self.device)
        one_of(PRECISIONS, precision=self.precision)
        at_least(0, workers=self.workers)


@dataclass(frozen=True)
class Saving:
    """What is kept while it is computed, and told.

    Args:
        save_every: steps between checkpoints.
        save_minutes: minutes between checkpoints, above 0.
        keep: checkpoints that stay; older ones are removed.
        progress: show progress, losses and speed.

    Raises:
        ValueError: a number is out of its range.
    """

    save_every: int = 1000
    save_minutes: float = 10.0
    keep: int = 2
    progress: bool = True

    def __post_init__(self) -> None:
        at_least(1, save_every=self.save_every, keep=self.keep)
        above(0, save_minutes=self.save_minutes)


def by_name(read: Callable[[list[str]], Any], metavar: str) -> Any:
    """How the command line reads an option that is a mapping, of NAME=VALUE words. read: the words -> the mapping."""
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda x: isinstance(x, Mapping),
        str_from_instance=lambda x: [f"{k}={v}" for k, v in x.items()],
    )


def numbers_by_name(words: Sequence[str], pair: str, twice: str) -> dict[str, float]:
    """The numbers of NAME=NUMBER words. pair, twice: begin and end what is said of a word that is none.

    Raises:
        ValueError: one of them is no pair, or a name comes twice.
    """
    out: dict[str, float] = {}
    for word in words:
        name, equals, value = word.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            equals, number = "", 0.0
        if not equals or not name:
            raise ValueError(pair.format(word=repr(word)))
        if name in out:
            raise ValueError(twice.format(name=repr(name)))
        out[name] = number
    return out


def scores_by_class(words: Sequence[str]) -> dict[str, float]:
    """CLASS=SCORE pairs.

    Raises:
        ValueError: one of them is no pair, or a class comes twice.
    """
    return numbers_by_name(words, "class_scores: {word} is not CLASS=SCORE", "class_scores: {name} is there twice")


ClassScores = Annotated[Mapping[str, float], by_name(scores_by_class, "CLASS=SCORE ...")]


@dataclass(frozen=True)
class Policy:
    """How a teacher's answer becomes a pseudo label; applied when training, so that it can change later.

    Where a label counts by its teacher's confidence, a box does so by its score, a pixel by the probability of its
    class, an image by that of its most probable class: 0 to 1. Otherwise, and for people's labels always, by 1; a
    teacher that says only a value (of depth, of normals) counts by 1 too. SoftMatch (Chen et al., ICLR 2023) calls this
    the sample weight, of which a threshold is the special case 0 or 1.

    Of a class vector the confidence is the largest probability and not 1 - entropy / log(classes) (Iscen et al., CVPR
    2019): it is the same quantity as a box's score and a pixel's probability, it does not depend on how many classes
    the vocabulary has, and it is what the labelling reports.

    The weighted losses are means: divided by the sum of the weights, not by the number of labels. So a weight of 0 is
    the same as a label that is ignored, which is what a threshold does; and an unsure teacher's loss keeps its size:
    confidence decides between the labels of one objective, and leaves the balance of the objectives to their weights.

    Args:
        soft: learn the teachers' class probabilities; --no-soft learns only the most probable class.
        score: least score of a pseudo box, least probability of a pseudo label's pixel, 0 to 1.
        confidence: let every pseudo label count by how probable its teacher found it (a box's score, the probability
            of a pixel's class or of the image's likeliest class); people's labels count fully.
        calibrated: take probabilities and scores as `polyteach store calibrate` found that they should be, of label
            sets that it was given; --no-calibrated takes them as the teacher said them.
        class_scores: least scores of single classes, by the names that the heads have; `score` is for all others.
            Images whose likeliest class is below its own are not learned either. On the command line CLASS=SCORE pairs,
            in a file of options a mapping.
        best_share: instead of `score`, learn of each class this share of the pseudo labels (boxes, pixels, images by
            their likeliest class), those of the highest scores: the least scores follow from the stores when the run
            begins, and are kept in its config.json.

    Raises:
        ValueError: a score outside of 0 to 1, or options that forbid each other.
    """

    soft: bool = True
    score: float = 0.5
    confidence: bool = False
    calibrated: bool = True
    class_scores: ClassScores = field(default_factory=dict)
    best_share: float | None = None

    def __post_init__(self) -> None:
        within(0, 1, score=self.score)
        for name, score in self.class_scores.items():
            if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
                raise ValueError(f"class_scores: {name}: {score!r} must be a number from 0 to 1")
        if self.best_share is None:
            return
        if not 0 < self.best_share <= 1:
            raise ValueError(f"best_share must be above 0 and at most 1; got {self.best_share}")
        if self.class_scores:
            raise ValueError("best_share and class_scores: both say from which score on a class is learned; give one")
        if self.score != Policy.score:
            raise ValueError(f"best_share finds the least scores itself, and score is {self.score:g}; give one of them")

    def of(self, objective: str) -> "Policy":
        """The policy of one objective: the same of all, unless a training has found least scores by class."""
        return self


def grouped(verb: Callable[..., Result]) -> Callable[..., Result]:
    """The verb, whose groups may also be given field by field.

    A parameter whose default is one of our dataclasses is a group. The signature and the docstring of what is returned
    tell every field, as `inspect` and `help` show them. A value that is not of its option's type is a ValueError of the
    verb that is returned, which names the option.

    Raises:
        TypeError: two groups of the verb, or a group and the verb itself, have an option of one name.
    """
    homes = option_groups(verb)
    defaults = {name: inspect.signature(verb).parameters[name].default for name in {*homes.values()}}
    flat = inspect.signature(verb).replace(parameters=_flat(verb))
    hints = {p.name: p.annotation for p in flat.parameters.values() if p.annotation is not inspect.Parameter.empty}

    @wraps(verb)
    def call(*args: Any, **given: Any) -> Result:
        unknown = next((name for name in given if name not in flat.parameters and name not in defaults), None)
        if unknown is not None:
            close = did_you_mean(unknown, list(flat.parameters))
            raise TypeError(
                f"{verb.__name__}() got an unexpected keyword argument {unknown!r}{close or '; help() lists them'}"
            )
        given = {name: typed(name, value, hints[name]) if name in hints else value for name, value in given.items()}
        words = [typed(n, v, hints[n]) for n, v in zip(flat.parameters, args, strict=False)]
        loose: dict[str, dict[str, Any]] = {}
        for name in [n for n in given if n in homes]:
            loose.setdefault(homes[name], {})[name] = given.pop(name)
        for group in {*homes.values()} & {*loose, *given}:
            given[group] = replace(_whole(defaults[group], given.get(group), group), **loose.get(group, {}))
        return verb(*words, *args[len(words) :], **given)

    call.__signature__ = flat  # type: ignore[attr-defined]
    call.__doc__ = _told(verb)
    return call


def typed(name: str, value: Any, hint: Any) -> Any:
    """The value of an option that was given from Python, where it is of the option's type.

    A number of numpy is one of Python's, a sequence a tuple, and `torch.device("cpu")` is "cpu".

    Raises:
        ValueError: it is of another type; names the option, the type and the value.
    """
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if type(value).__name__ == "device":
        value = str(value)
    try:
        return from_file(value, hint)
    except (ValueError, TypeError) as e:
        raise ValueError(f"{name} {e}; got {value!r}") from None


def _whole(default: Any, given: Any, name: str) -> Any:
    """A group as the verb takes it; of a group that it extends, the rest is as ever.

    Raises:
        TypeError: it is no such group.
    """
    if given is None or isinstance(given, type(default)):
        return default if given is None else given
    kind: Any = type(given)
    if issubclass(type(default), kind) and is_dataclass(kind):
        return replace(default, **{f.name: getattr(given, f.name) for f in fields(kind)})
    raise TypeError(f"{name} must be a {type(default).__name__}; got {type(given).__name__}")


def option_groups(verb: Callable[..., Any]) -> dict[str, str]:
    """Option -> the parameter of the verb that is its group."""
    homes: dict[str, str] = {}
    parameters = inspect.signature(verb).parameters
    for name, parameter in parameters.items():
        for f in fields(parameter.default) if _is_group(parameter) else ():
            if f.name in homes or f.name in parameters:
                raise TypeError(f"{verb.__name__}: option {f.name} of {name} is there already")
            homes[f.name] = name
    return homes


def explained(group: type) -> dict[str, str]:
    """Option -> its help, of a group and the groups that it extends."""
    told: dict[str, str] = {}
    for kind in reversed(group.__mro__):
        told |= {p.arg_name: p.description or "" for p in parse(kind.__doc__ or "").params}
    return {f.name: told[f.name] for f in fields(group) if f.name in told}


def _is_group(parameter: inspect.Parameter) -> bool:
    return is_dataclass(parameter.default) and not isinstance(parameter.default, type)


def _flat(verb: Callable[..., Any]) -> list[inspect.Parameter]:
    out = []
    for parameter in inspect.signature(verb).parameters.values():
        if not _is_group(parameter):
            out.append(parameter)
            continue
        kind = inspect.Parameter.KEYWORD_ONLY
        for f in fields(parameter.default):
            default = getattr(parameter.default, f.name)
            out.append(inspect.Parameter(f.name, kind, default=default, annotation=f.type))
    return out


def _told(verb: Callable[..., Any]) -> str:
    """The verb's docstring with the options of its groups among its arguments."""
    text = inspect.getdoc(verb) or ""
    before, mark, after = text.partition("\nArgs:\n")
    own, gap, rest = after.partition("\n\n")
    lines = [own] if own else []
    for parameter in inspect.signature(verb).parameters.values():
        if _is_group(parameter):
            for name, told in explained(type(parameter.default)).items():
                lines.append("    " + f"{name}: {told}".replace("\n", "\n        "))
    return before + (mark or "\n\nArgs:\n") + "\n".join(lines) + gap + rest


def from_file(value: Any, hint: Any) -> Any:
    """A value of a YAML or JSON file as an option of that type; texts of numbers are numbers, as on the command line.

    Raises:
        ValueError: it is none; says what is wanted.
    """
    metadata = getattr(hint, "__metadata__", ())
    spec = next((m for m in metadata if isinstance(m, PrimitiveConstructorSpec)), None)
    if spec is not None:
        return value if spec.is_instance(value) else spec.instance_from_str(_words(value))
    if metadata:
        return from_file(value, typing.get_args(hint)[0])
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return _first_that_fits(value, inner, hint)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _several(value, inner)
    if hint in (int, float) and isinstance(value, str):  # YAML takes 1e-3 for a text
        try:
            return hint(value)
        except ValueError:
            raise ValueError(f"must be {hint.__name__}") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if hint in (NoneType, None) and value is None:
        return None
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"must be {'None' if hint in (NoneType, None) else hint.__name__}")


def _first_that_fits(value: Any, hints: Sequence[Any], union: Any) -> Any:
    exact = [h for h in hints if h is type(value)]
    for hint in [*exact, *hints]:
        try:
            return from_file(value, hint)
        except (ValueError, TypeError):
            continue
    raise ValueError(f"must be {union}".replace("typing.", "").replace("collections.abc.", ""))


def _several(value: Any, inner: Sequence[Any]) -> tuple[Any, ...]:
    given = value if isinstance(value, list | tuple) else _words(value) if isinstance(value, Mapping) else [value]
    if (len(inner) == 2 and inner[1] is Ellipsis) or len(inner) == 1:
        return tuple(from_file(v, inner[0]) for v in given)
    if len(given) != len(inner):
        raise ValueError(f"must be {len(inner)} values")
    return tuple(from_file(v, hint) for v, hint in zip(given, inner, strict=True))


def _words(value: Any) -> list[str]:
    """As they would stand on the command line."""
    if isinstance(value, Mapping):
        return [f"{k}={v}" for k, v in value.items()]
    return [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]
