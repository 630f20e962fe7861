"""Which tensors of a published checkpoint are the backbone's, by what fits it: names are never just cut off.

A file may hold several networks (a student and a teacher, the last weights and their average, towers for images and for
text), each under a prefix of its own and with heads beside it. Every prefix is tried that enough names have, through
timm's filter for that model, and what comes out is held against the model's own names and shapes.
"""

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from polyteach.ground.texts import say
from polyteach.ground.weights import AVERAGED, parts
from polyteach.model.backbones import timm_names
from polyteach.model.backbones._timm_recipe import NOT_WEIGHTS, Recipe, recipe

AVERAGES = (*AVERAGED, "ema_state_dict", "ema_model", "ema", "averaged", "teacher", "target_encoder")
"""Words for the average of the weights over the steps, which is what such files are published for."""
LESS = ("student", "momentum_encoder", "encoder_k", "target", "discriminator")
"""Words for what is taken last: contrastive methods publish the encoder that is trained, not the one that follows."""
TOKENS = ("reg_token", "register_tokens", "storage_tokens", "cls_token", "dist_token", "pos_embed", "norm_pre")
"""Of a transformer's trunk: without one that a file has, its features would be others."""
_DEEP, _SHARE = 6, 4
"""Levels of a prefix; a prefix is tried when this part (1/4) of the model's tensors may be under it."""
_SIZES = tuple(
    "zepto atto femto pico nano micro mini xxtiny xtiny tiny small medium base large xlarge xxlarge huge giant "  # noqa: SIM905
    "gigantic enormous so150m so400m s m l xl xxs xs t n b h g".split()
)


@dataclass
class _Fit:
    """What the names under one prefix of one part of a file are to a model.

    given: the tensors under the prefix, without it. weights: those by timm's names. missing, wrong, unknown: why it
    does not fit.
    """

    part: str
    prefix: str
    given: dict[str, Tensor]
    weights: dict[str, Tensor]
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        return not (self.missing or self.wrong or self.unknown)

    @property
    def where(self) -> str:
        """As people would write it."""
        return " ".join(repr(x) for x in (self.part, self.prefix and f"{self.prefix}*") if x)

    def rank(self) -> tuple[int, int, int]:
        """The least is taken: averages before the last weights, then what is less deep."""
        words = set(re.split(r"[.\s]", f"{self.part}.{self.prefix}"))
        kind = 0 if words & set(AVERAGES) else 2 if words & set(LESS) else 1
        return kind, self.prefix.count("."), len(self.part)


def weights_of(file: Path, made: Recipe) -> dict[str, Tensor]:
    """The tensors of a model, by the names that it keeps itself, from a file as it was published.

    What was chosen, left out or resampled is said in one line on stderr; nothing is said of a file with timm's own
    names, whose classifier and later layers may be more than the model needs.

    Raises:
        ValueError: the file cannot be read, or nothing in it fits: says the first names and shapes that do not, and
            where it is sure which model they are of.
    """
    found = parts(file)
    tried = [fit for part, tensors in found.items() for fit in _fits(part, tensors, made)]
    fitting = sorted((f for f in tried if f.fits), key=_Fit.rank)
    if not fitting:
        raise _misfit(file, tried, found, made)
    taken = fitting[0]
    one = next(iter(made.needed))
    mark = taken.weights[one].data_ptr()
    others = list({f.weights[one].data_ptr(): f for f in fitting if f.weights[one].data_ptr() != mark}.values())
    _sure(file, taken, others, made)
    if line := _told(file, taken, others, found[taken.part], made):
        _say(line)
    counters = {k: t for k, t in taken.given.items() if k.endswith("num_batches_tracked")}
    return {k: (taken.weights | counters)[o] for k, o in made.names.items() if o in taken.weights or o in counters}


def _sure(file: Path, taken: _Fit, others: Sequence[_Fit], made: Recipe) -> None:
    """Raises:
    ValueError: nothing tells which of several networks is meant; or the tensors are no numbers of a network.
    """
    same = [o for o in others if o.rank()[0] == taken.rank()[0] and not _alike(o, taken, made)]
    if same:
        named = ", ".join(o.where or "the names without a prefix" for o in [taken, *same][:4])
        raise ValueError(
            f"{file} has {len(same) + 1} networks that fit {made.name} ({named}), and nothing says which is meant; "
            "save that one in a file of its own"
        )
    odd = next((k for k in made.needed if not taken.weights[k].is_floating_point()), None)
    if odd is not None:
        kind = str(taken.weights[odd].dtype).removeprefix("torch.")
        raise ValueError(f"{file}: {odd} is of {kind}, which is no weight of {made.name}; save the weights as float32")


def _alike(one: _Fit, other: _Fit, made: Recipe) -> bool:
    return all(torch.equal(one.weights[k], other.weights[k]) for k in made.needed)


def _fits(part: str, tensors: Mapping[str, Tensor], made: Recipe) -> list[_Fit]:
    """Every prefix under which the model may be, and how it fits."""
    counts: Counter[str] = Counter([""] * len(tensors))
    for name in tensors:
        pieces = name.split(".", _DEEP)
        counts.update(".".join(pieces[:n]) + "." for n in range(1, len(pieces)))
    least = max(1, len(made.needed) // _SHARE)
    prefixes = [p for p, n in counts.items() if n >= least or not p]
    return [_fit(part, p, {k[len(p) :]: v for k, v in tensors.items() if k.startswith(p)}, made) for p in prefixes]


def _fit(part: str, prefix: str, given: dict[str, Tensor], made: Recipe) -> _Fit:
    given = _unchunked(given, made)
    ways = [given]
    # a filter meets names that it was not written for; as they are, they may still fit
    with contextlib.suppress(Exception):
        ways.insert(0, made.converted(given))
    fits = [_compared(_Fit(part, prefix, given, weights), made) for weights in ways]
    return min(fits, key=lambda f: (not f.fits, len(f.missing) + len(f.wrong)))  # the filter's where both are as good


def _compared(fit: _Fit, made: Recipe) -> _Fit:
    needed, weights = made.needed, fit.weights
    fit.missing = [k for k in needed if k not in weights]
    fit.wrong = [k for k in needed if k in weights and tuple(weights[k].shape) != needed[k]]
    own = {k.partition(".")[0] for k in needed}
    fit.unknown = [
        k
        for k in weights
        if k not in made.shapes and not k.endswith(NOT_WEIGHTS) and (k.partition(".")[0] in own or k in TOKENS)
    ]
    return fit


def _unchunked(given: dict[str, Tensor], made: Recipe) -> dict[str, Tensor]:
    """Without the groups ("chunks") into which DINOv2's training puts blocks: blocks.1.7 is the block 7."""
    block = re.compile(r"blocks\.\d+\.(\d+\.)")
    blocks = [k for k in given if k.startswith("blocks.")]
    if not blocks or not all(block.match(k) for k in blocks) or any(block.match(k) for k in made.needed):
        return given
    return {block.sub(r"blocks.\1", k) if k.startswith("blocks.") else k: v for k, v in given.items()}


def _told(file: Path, taken: _Fit, others: Sequence[_Fit], part: Mapping[str, Tensor], made: Recipe) -> str:
    """What there is to say of a file that fits; "" where there is nothing."""
    said = []
    if others:
        listed = ", ".join(o.where or "the names without a prefix" for o in others[:3])
        said.append(f"{taken.where or 'the names without a prefix'} is taken, not {listed}")
    elif taken.part not in ("", "state_dict", "model") or taken.prefix not in ("", "module."):
        said.append(f"{taken.where} is taken")
    start, whole = len(taken.prefix), _whole(made)
    left = [k for k in _left_out(taken, part, made) if not (k.startswith(taken.prefix) and k[start:].startswith(whole))]
    if left:
        said.append(f"{len(left)} tensor{'s' * (len(left) != 1)} left out, such as {left[0]}")
    if fitted := _resampled(taken, made):
        said.append(fitted)
    return f"{file}: {'; '.join(said)}" if said else ""


@functools.lru_cache(maxsize=8)
def _whole(made: Recipe) -> tuple[str, ...]:
    """How names of timm's own files of that model begin, with the layers that its maps do not need."""
    names = (*made.shapes, *made.classifier)
    with contextlib.suppress(Exception):  # not every model is made on a device without memory
        names += tuple(recipe(made.name, {}).shapes)
    return names


def _left_out(taken: _Fit, part: Mapping[str, Tensor], made: Recipe) -> list[str]:
    """Names of the part's tensors that nothing in the model came from.

    A tensor that the filter passed on keeps its place in memory. Of those that it made anew (resampled, put together)
    it is told by leaving them out: the result then lacks something.
    """
    used = {taken.weights[k].data_ptr() for k in made.needed}
    rest: dict[str, list[str]] = {}
    for k, v in taken.given.items():
        if v.data_ptr() not in used and not k.endswith((*NOT_WEIGHTS, "n_averaged")):
            rest.setdefault(k.partition(".")[0], []).append(k)
    unused = []
    for names in rest.values():
        fewer = {k: v for k, v in taken.given.items() if k not in names}
        if _fit("", "", fewer, made).fits:
            unused += [f"{taken.prefix}{k}" for k in names]
    ends = (*NOT_WEIGHTS, "n_averaged")
    return unused + [k for k in part if not k.startswith(taken.prefix) and not k.endswith(ends)]


def _resampled(taken: _Fit, made: Recipe) -> str:
    """What timm has fitted to images or patches of another size than the file is for."""
    memory = {v.untyped_storage().data_ptr() for v in taken.given.values()}
    new = [
        k
        for k in made.needed
        if ("pos" in k or "patch_embed" in k) and taken.weights[k].untyped_storage().data_ptr() not in memory
    ]
    if not new:
        return ""
    before = next((f"{tuple(v.shape)} to " for k, v in taken.given.items() if k == new[0]), "")
    more = f" and {len(new) - 1} more" if len(new) > 1 else ""
    return f"{new[0]}{more} resampled from {before or 'another size to '}{made.needed[new[0]]}"


def _misfit(file: Path, tried: Sequence[_Fit], found: Mapping[str, Mapping[str, Tensor]], made: Recipe) -> ValueError:
    """Why the best of what a file has does not fit."""
    best = min(tried, key=lambda f: (len(f.missing), len(f.wrong), len(f.unknown), f.rank()))
    if len(best.missing) == len(made.needed):
        names = max((list(tensors) for tensors in found.values()), key=len)
        return ValueError(
            f"{file} does not fit {made.name}: none of its names is one of that model's; it has {names[:3]}, the model "
            f"has {list(made.needed)[:3]}{_meant(tried, made)}"
        )
    said = []
    if best.missing:
        said.append(f"lacks {best.missing[:3]}{_more(best.missing)}")
    if best.wrong:
        shapes = [f"{k} is {tuple(best.weights[k].shape)}, not {made.needed[k]}" for k in best.wrong[:3]]
        said.append(f"has other shapes: {', '.join(shapes)}{_more(best.wrong)}")
    if best.unknown:
        said.append(f"has unknown {best.unknown[:3]}{_more(best.unknown)}")
    place = f" ({best.where})" if best.where else ""
    return ValueError(f"{file}{place} does not fit {made.name}: {', '.join(said)}{_meant(tried, made)}")


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""


def _meant(tried: Sequence[_Fit], made: Recipe) -> str:
    """The name of the family into which all of the file fits, tried out; "" where there is none."""
    options = {"features_only": True} if hasattr(made.built, "feature_info") and made.built is not made.whole else {}
    for name in _siblings(made.name):
        try:
            other = recipe(name, options)
        except Exception:  # one that has no such features, in timm's words
            continue
        if any(_fit(f.part, f.prefix, f.given, other).fits for f in tried):
            return f". It fits {name}: did you mean --backbone {name}?"
    return ""


def _siblings(name: str) -> list[str]:
    """Names that differ from this one in one word of size, or in one number, the likeliest first."""
    arch = name.partition(".")[0]
    words = arch.split("_")
    known = timm_names() - {arch}
    out = ["_".join([*words[:i], s, *words[i + 1 :]]) for i, w in enumerate(words) if w in _SIZES for s in _SIZES]
    first = re.fullmatch(r"([a-z]+)(\d+)", words[0])
    if first:
        same = re.compile(rf"{first[1]}\d+{re.escape(arch[len(words[0]) :])}")
        out += sorted((n for n in known if same.fullmatch(n)), key=lambda n: (len(n), n))
    return [n for n in dict.fromkeys(out) if n in known][:12]


@functools.cache  # once a process, which may read a file for each of several trainings
def _say(line: str) -> None:
    say(line)
