"""Objectives: which label sets share a head of the student, and for people why the others do not.

Label sets of one task share a head where their classes are the same by name, in any order: then people win over
teachers on the images that both have labelled. A name is taken literally (but for how Unicode composes it), so one
that is written otherwise makes another head; `apart` finds such pairs, and the table that joins them (`read_map`).

Names that only number the classes ("0", "LABEL_1", "class 2") mean nothing without what they were numbered in. They
agree within one origin alone (the same teacher's weights, or the same source of people's labels, under one name of the
label set), unless a table says that they count as they are. Names that come twice, and those of gaps ("N/A"), cannot
be told apart: sets that have them share a head if they list the same names in the same order.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import yaml

from polyteach.ground.files import Twice, once, read_text, yaml_value
from polyteach.store.label_folder import LabelFolder
from polyteach.tasks import load_task
from polyteach.tasks.target import PEOPLE, Objective, Space

AS_THEY_ARE = "as they are"
"""In a table, instead of names: that those of a label set count, also where they are numbers."""
NUMBERS = "numbers"
"""Of the keys of sets whose classes are only numbered."""
CLOSE = 0.85
"""Least similarity (difflib) of names of five letters and more that are told as one name in two spellings."""
LEFT = 200
"""Names up to which those that are left over are compared by their spelling: each with each."""
SHOWN = 5
"""Names of a sentence."""

Table = Mapping[str, str | Mapping[str, str]]
"""Of names: TASK/SET -> {their name: our name}, or {their name: our name} for all sets."""

_NUMBER = re.compile(
    r"(?:(?:label|class|classes|category|categories|cls|id|object|obj|type|item|target|group|cluster|index|unnamed"
    r"|unknown)[\s_:#-]*)?#?\d+",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"(.*?)[\s_:#-]*(\d+)")
_GAP = re.compile(r"\W*|n[/.]?a\.?|null|nan|unused|reserved|placeholder", re.IGNORECASE)
"""Names of no class, which fill gaps of a numbering."""
_SYNONYMS = {
    "motorbike": "motorcycle",  # Pascal VOC's names and COCO's
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",
    "automobile": "car",
    "bike": "bicycle",
    "lorry": "truck",
    "mobilephone": "cellphone",
}
_REST = {"background", "other", "others", "unknown", "unlabeled", "unlabelled", "void", "none", "nothing"}
"""Names of what is in no class, which many vocabularies have in common."""
_AMERICAN = {"aeroplane": "airplane", "grey": "gray", "tyre": "tire", "aluminium": "aluminum", "doughnut": "donut"}


@dataclass(frozen=True)
class Joint:
    """One objective and the label sets that teach it.

    members: their positions among those given to `join`. index: of each member, for each of its classes the index among
    the objective's; None where that changes nothing. first: position of the member whose names are the objective's.
    """

    objective: Objective
    members: list[int]
    index: list[tuple[int, ...] | None]
    first: int


@dataclass(frozen=True)
class _Named:
    """A label set's classes after a table: names, each once where the table makes several into one.

    to: of each of the set's own classes, its index among names. key: label sets of one task with one key are one
    objective, if their kinds are. why: what of the names cannot be compared; empty where all can.
    """

    names: tuple[str, ...]
    to: tuple[int, ...]
    key: Any
    why: str


@runtime_checkable
class Named(Protocol):
    """What has classes with names: a label set, or an objective of a model.

    info: of its maker; see `Store.create_set`. path: what tells one that has no maker from others.
    """

    @property
    def task(self) -> str:
        """Name of the task."""

    @property
    def name(self) -> str:
        """Its own name."""

    @property
    def space(self) -> Space:
        """Its classes and kind."""

    @property
    def info(self) -> Mapping[str, Any]:
        """Who made it."""

    @property
    def path(self) -> Any:
        """Where it lies."""


def by_people(labels: Named) -> bool:
    """Whether humans made this label set."""
    return labels.name == PEOPLE or labels.info.get("teacher") == PEOPLE


def join(sets: Sequence[LabelFolder], table: Table | None = None) -> list[Joint]:
    """The objectives of these label sets, in the order in which they come.

    An objective has the names of its first set of people, or else of its first set. table: see `read_map`.

    Raises:
        ValueError: the table names a label set or a class that is not there; lists those that are close.
    """
    given = _by_set(sets, table or {})
    named = [_named(labels, mine) for labels, mine in zip(sets, given, strict=True)]
    groups: dict[Any, list[list[int]]] = {}
    order: list[list[int]] = []
    for i, labels in enumerate(sets):
        task, alike = load_task(labels.task), groups.setdefault((labels.task, named[i].key), [])
        kinds = [{sets[m].space.kind for m in group} | {labels.space.kind} for group in alike]
        mine = next((g for g, k in zip(alike, kinds, strict=True) if task.joint_kind(k) is not None), None)
        if mine is None:
            alike.append(mine := [])
            order.append(mine)
        mine.append(i)
    return [_joint(sets, named, group) for group in order]


def _joint(sets: Sequence[LabelFolder], named: Sequence[_Named], group: list[int]) -> Joint:
    first = next((m for m in group if by_people(sets[m])), group[0])
    names, task = named[first].names, sets[first].task
    at = {_composed(name): i for i, name in enumerate(names)}
    index: list[tuple[int, ...] | None] = []
    for m in group:
        moved = named[m].to
        if isinstance(named[m].key, frozenset):
            moved = tuple(at[_composed(named[m].names[t])] for t in moved)
        index.append(None if moved == tuple(range(len(names))) else moved)
    kind = load_task(task).joint_kind({sets[m].space.kind for m in group})
    assert kind is not None
    return Joint(Objective(task, Space(names, kind)), group, index, first)


def _named(labels: Named, given: Mapping[str, str] | None) -> _Named:
    """given: the table's names of this set; None where it says nothing of it."""
    given = given or {}
    given_by_table = set(given.values())
    out: dict[str, int] = {}
    names: list[str] = []
    to = []
    for name in labels.space.names:
        ours = given.get(name, name)
        if ours not in out or ours not in given_by_table:  # what the table makes one becomes one; what is twice stays
            out[ours] = len(names)
            names.append(ours)
        to.append(out[ours])
    numbers = [n for n, is_one in zip(labels.space.names, numbered(labels.space.names), strict=True) if is_one]
    unsaid = [n for n in numbers if n not in given]
    composed = tuple(map(_composed, names))
    odd = [n for n, k in Counter(composed).items() if k > 1 or _GAP.fullmatch(n)]
    if unsaid:
        return _Named(tuple(names), tuple(to), (NUMBERS, _origin(labels), composed), f"are numbers ({_few(unsaid)})")
    if odd:
        why = f"are not told apart by their names ({_few(odd)})"
        return _Named(tuple(names), tuple(to), ("order", composed), why)
    return _Named(tuple(names), tuple(to), frozenset(composed), "")


@dataclass(frozen=True)
class Common:
    """Classes that two label sets have in common.

    names: in the first one's order. index: of each set, for each of its classes the index among the names; len(names)
    of those that it has alone.
    """

    names: tuple[str, ...]
    index: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def whole(self) -> bool:
        """Whether neither has a class alone."""
        return all(i < len(self.names) for index in self.index for i in index)


def common(first: Named, second: Named) -> Common | None:
    """The classes of both, by the rule of `join`; of names that it can compare also where they have only some."""
    one, other = _named(first, None), _named(second, None)
    if one.key == other.key and not isinstance(one.key, frozenset):
        same = tuple(range(len(one.names)))
        return Common(one.names, (same, same))
    if one.why or other.why:
        return None
    theirs = set(map(_composed, other.names))
    names = tuple(n for n in one.names if _composed(n) in theirs)
    if not names and (one.names or other.names):
        return None
    at = {_composed(n): i for i, n in enumerate(names)}
    index = [tuple(at.get(_composed(n), len(names)) for n in named.names) for named in (one, other)]
    return Common(names, (index[0], index[1]))


def numbered(names: Sequence[str]) -> list[bool]:
    """Of each class name whether it only numbers the class: "0", "LABEL_1", "class 2".

    All are, where they are one word that is counted from 0 or 1 ("coarse 0", "coarse 1", ...).
    """
    found = [_COUNTED.fullmatch(n) for n in names]
    counts = sorted(int(m[2]) for m in found if m)
    if len(names) > 1 and all(found) and len({m[1] for m in found if m}) == 1:
        low = counts[0]
        if low in (0, 1) and counts == list(range(low, low + len(names))):
            return [True] * len(names)
    return [bool(_NUMBER.fullmatch(n.strip())) for n in names]


def _origin(labels: Named) -> Any:
    """Where the numbers of a set's classes come from: sets of one origin number them alike."""
    teacher = labels.info.get("teacher")
    if isinstance(teacher, dict) and teacher.get("sha256"):
        return labels.name, teacher["sha256"]
    source = (labels.info.get("images") or {}).get("source") if by_people(labels) else None
    return labels.name, str(source or labels.path)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


# --- tables of names ---


def read_map(file: str | Path) -> dict[str, str | dict[str, str]]:
    """A table of names, of a YAML or JSON file.

    Either TASK/SET: {their name: our name, ...} for some label sets (STORE/TASK/SET where several stores have one of
    that name, STORE being the last of the store's path or more of it), or {their name: our name, ...} for all. Several
    names may become one. "as they are" instead of names says that those of the set count, also where they are numbers.

    Raises:
        ValueError: it cannot be read, or holds something else; says what.
    """
    try:
        # as texts: of YAML's own, `no` would be false and 1 a number
        text = read_text(file)
    except OSError as e:
        raise ValueError(f"map {file}: {e.strerror}") from e
    except ValueError as e:
        raise ValueError(f"map {e}") from e
    try:
        found = yaml_value(text, once(yaml.BaseLoader))
    except ValueError as e:
        wrong = ":" if isinstance(e.__cause__, Twice) else " is neither YAML nor JSON:"
        raise ValueError(f"map {file}{wrong} {e}") from e
    if not isinstance(found, dict) or not found:
        raise ValueError(f"map {file} must hold TASK/SET: {{their name: our name}}, or their name: our name")
    for key, value in found.items():
        for their, ours in value.items() if isinstance(value, dict) else [(key, value)]:
            if not isinstance(their, str) or not isinstance(ours, str) or not their or not ours:
                pair = f"{_brief(their)}: {_brief(ours)}"
                raise ValueError(f"map {file}: {_brief(key)}: {pair} is not a name and the name that it gets")
    return found


def _brief(value: Any) -> str:
    """A value of a table in an error: YAML's aliases may repeat a list more often than can be written."""
    return repr(value) if isinstance(value, str) else f"a {type(value).__name__}"


def _by_set(sets: Sequence[LabelFolder], table: Table) -> list[dict[str, str] | None]:
    """What the table says of each label set, None where it says nothing."""
    out: list[dict[str, str] | None] = [None] * len(sets)
    plain = {k: v for k, v in table.items() if isinstance(v, str) and v != AS_THEY_ARE}
    if plain and len(plain) < len(table):
        odd = next(iter(plain))
        raise ValueError(f"map: {odd!r}: {plain[odd]!r} stands beside label sets; name the set: TASK/SET: {{...}}")
    for key, value in {"": plain}.items() if plain else table.items():
        about = [i for i, s in enumerate(sets) if not key or f"/{_full(s)}".endswith(f"/{key}")]
        if not about:
            known = dict.fromkeys(f"{s.task}/{s.name}" for s in sets)
            raise ValueError(f"map: {key!r} is none of the label sets, which are {', '.join(known)}")
        if isinstance(value, str):
            value = {n: n for i in about for n in sets[i].space.names}
        there = {n for i in about for n in sets[i].space.names}
        for their in value:
            if their not in there:
                close = ", ".join(difflib.get_close_matches(their, there, 3, 0.5)) or _few(sorted(there))
                raise ValueError(f"map: {key or 'all sets'}: no class is called {their!r}; there are {close}")
        for i in about:
            own = set(sets[i].space.names)
            mine = {k: v for k, v in value.items() if k in own}
            out[i] = (out[i] or {}) | mine if mine else out[i]
    _misspelt(sets, out)
    return out


def _misspelt(sets: Sequence[LabelFolder], given: Sequence[Mapping[str, str] | None]) -> None:
    """Raises:
    ValueError: a name that a table gives is nobody's else, and nearly another set's.
    """
    for i, mine in enumerate(g or {} for g in given):
        same = [j for j, s in enumerate(sets) if j != i and s.task == sets[i].task]
        theirs = {(given[j] or {}).get(n, n) for j in same for n in sets[j].space.names}
        own, given_to = set(sets[i].space.names), Counter(mine.values())
        for their, ours in mine.items():
            alone = ours not in theirs and ours not in own and given_to[ours] == 1
            close = difflib.get_close_matches(ours, theirs, 1, 0.75) if alone else []
            if close:
                raise ValueError(
                    f"map: {sets[i].task}/{sets[i].name}: {their!r}: {ours!r}: no other label set has a class of that "
                    f"name; did you mean {close[0]!r}?"
                )


def _full(labels: LabelFolder) -> str:
    return f"{labels.store.path}/{labels.task}/{labels.name}"


# --- what is not one objective, and why ---


def apart(sets: Sequence[LabelFolder], joints: Sequence[Joint], table: Table | None = None) -> list[str]:
    """Sentences about objectives of one task that look alike and are not one: why, and the table that would join them.

    People's come first in each. Nothing is said of those that have no class in common, or the background alone.
    """
    named = [_named(s, mine) for s, mine in zip(sets, _by_set(sets, table or {}), strict=True)]
    out = []
    for pair in combinations(joints, 2):
        a, b = sorted(pair, key=lambda j: not by_people(sets[j.first]))
        if a.objective.task == b.objective.task:
            why = _why(sets, named, a, b)
            out += [f"{_listed(sets, a)} and {_listed(sets, b)} are two heads: {why}"] if why else []
    return out


def _why(sets: Sequence[LabelFolder], named: Sequence[_Named], a: Joint, b: Joint) -> str:
    one, other = named[a.first], named[b.first]
    kinds = (a.objective.space.kind, b.objective.space.kind)
    task = load_task(a.objective.task)
    if task.joint_kind(set(kinds)) is None:
        if not {*kinds} <= {*task.kinds}:  # they name what they are of, and nobody would take them for one
            return ""
        same = set(map(_composed, one.names)) == set(map(_composed, other.names))
        return f"the first is {kinds[0]!r}, the second {kinds[1]!r}" if same else ""
    if one.why or other.why:
        return _incomparable(sets, named, a, b)
    match = _matched(one.names, other.names)
    if not match.keys() - _REST:
        return ""
    spelled = {their: ours for their, ours in match.items() if _composed(their) != _composed(ours)}
    if len(match) == len(one.names) == len(other.names):
        return (
            "their classes are the same but for spelling, so neither wins over the other. If they mean the same, save "
            f"this table and give it with --map FILE:\n{_table(sets, named, b, spelled)}"
        )
    ours = set(match.values())
    lacks = [n for n in one.names if n not in ours], [n for n in other.names if n not in match]
    unlabelled = [
        f"{len(rest)} of the {first} one's {size} classes ({_few(rest)}) {'are' if len(rest) > 1 else 'is'} not "
        f"labelled in the {second}"
        for rest, first, size, second in (
            (lacks[0], "first", len(one.names), "second"),
            (lacks[1], "second", len(other.names), "first"),
        )
        if rest
    ]
    more = f" ({_few([f'{k} and {v}' for k, v in spelled.items()])} taken for the same)" if spelled else ""
    # a word that no rule knows may mean the same as one that is left over in the other
    advice = ". If some of these mean the same, --map FILE gives them one name (docs/guide/labels.md)"
    table = advice if all(lacks) else ""
    return f"they share {len(match)} class{'es' if len(match) > 1 else ''}{more}, but {' and '.join(unlabelled)}{table}"


def _incomparable(sets: Sequence[LabelFolder], named: Sequence[_Named], a: Joint, b: Joint) -> str:
    one, other = named[a.first], named[b.first]
    common = set(map(_composed, one.names)) & set(map(_composed, other.names))
    if not common or len(one.names) != len(other.names):
        return ""
    why = f"the classes of the {'first' if one.why else 'second'} {one.why or other.why}"
    numbers = any(n.why and n.key[0] == NUMBERS for n in (one, other))
    if not numbers or set(one.names) != set(other.names) or len(set(one.names)) < len(one.names):
        return why
    keys = dict.fromkeys(_key(sets, j, m) for j in (a, b) for m in j.members)
    text = yaml.safe_dump(dict.fromkeys(keys, AS_THEY_ARE), allow_unicode=True, sort_keys=False, width=1000)
    return (
        f"{why}, and a number of one need not mean what it means in the other. If it does, save this table and give it "
        f"with --map FILE:\n{_indented(text)}"
    )


def _matched(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, str]:
    """Their name -> our name: the same; else the same but for spelling, number or a known synonym; else alike."""
    match: dict[str, str] = {}
    for form in (_composed, _plain):
        taken = set(match.values())
        shape = _unique([o for o in ours if o not in taken], form)
        match |= {t: shape[k] for k, t in _unique([t for t in theirs if t not in match], form).items() if k in shape}
    taken = set(match.values())
    left, right = [o for o in ours if o not in taken], [t for t in theirs if t not in match]
    if max(len(left), len(right)) > LEFT:
        return match
    for their in right:
        long = [o for o in left if len(o) >= 5 and o not in match.values()]
        close = difflib.get_close_matches(their, long, 1, CLOSE) if len(their) >= 5 else []
        match |= {their: close[0]} if close else {}
    return match


def _unique(names: Sequence[str], form: Callable[[str], str]) -> dict[str, str]:
    """By form the name; those that have one form are left out."""
    forms = [form(n) for n in names]
    count = Counter(forms)
    return {f: n for f, n in zip(forms, names, strict=True) if f and count[f] == 1}


def _plain(name: str) -> str:
    """A name without case, accents, spaces, plurals and British spelling; a synonym's by the other's name."""
    letters = unicodedata.normalize("NFKD", name).casefold()
    words = re.findall(r"[^\W_]+", "".join(c for c in letters if not unicodedata.combining(c)))
    whole = "".join(_singular(_AMERICAN.get(w, re.sub(r"(?<=\w{2})our$", "or", w))) for w in words)
    return _singular(_SYNONYMS.get("".join(words), whole))


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word  # buses is buse, and horses horse


def _table(sets: Sequence[LabelFolder], named: Sequence[_Named], joint: Joint, names: Mapping[str, str]) -> str:
    """The lines that give the classes of `joint` other names."""
    lines: dict[str, dict[str, str]] = {}
    for m in joint.members:
        now = [named[m].names[t] for t in named[m].to]
        mine = {n: names[ours] for n, ours in zip(sets[m].space.names, now, strict=True) if ours in names}
        lines.setdefault(_key(sets, joint, m), {}).update(mine)
    text = yaml.safe_dump({k: v for k, v in lines.items() if v}, allow_unicode=True, sort_keys=False, width=1000)
    return _indented(text)


def _key(sets: Sequence[LabelFolder], joint: Joint, member: int) -> str:
    """What a table calls a label set: the shortest that means no other objective's."""
    whole = _full(sets[member])
    words = whole.split("/")
    for n in range(2, len(words)):
        key = "/".join(words[-n:])
        if all(i in joint.members for i, s in enumerate(sets) if f"/{_full(s)}".endswith(f"/{key}")):
            return key
    return whole


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _listed(sets: Sequence[LabelFolder], joint: Joint) -> str:
    return ", ".join(dict.fromkeys(_key(sets, joint, m) for m in joint.members))


def _few(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:SHOWN])
    return f"{shown}, ..." if len(names) > SHOWN else shown
