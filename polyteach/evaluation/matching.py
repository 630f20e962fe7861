"""What can be held against what: by task, kind and the names of classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from polyteach.evaluation.answering import Answerer
from polyteach.loading.held import mapped
from polyteach.loading.objectives import Common, Named, common
from polyteach.store import LabelSet
from polyteach.tasks import load_task
from polyteach.tasks.contract import Policy, Space, Target

SHOWN = 8
"""Names of a sentence."""


@dataclass(frozen=True)
class Rival:
    """One answer to a question. who: its position among the answerers. key: of the answerer's side."""

    who: int
    key: str
    side: Named
    shared: Common


@dataclass(frozen=True)
class Question:
    """A label set that is taken for right, the classes over which it is, and all that answer it over the same ones.

    space: the classes that are compared, and the kind of the answers (`_joined`). score: the least of what counts of a
    truth that a teacher gave, as in training.
    """

    truth: LabelSet
    space: Space
    score: float
    rivals: list[Rival] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the label set."""
        return f"{self.truth.task}/{self.truth.name}"

    def true(self, target: Target) -> Target | None:
        """What is right of an image, in the space that is compared; None where it says nothing of these classes."""
        task, shared = load_task(self.truth.task), self.rivals[0].shared
        if not self.truth.by_people:
            policy = Policy(score=self.score)
            target = task.pseudo(self.truth.calibrated(target, policy), policy)
        if task.joint_kind({self.space.kind, self.truth.space.kind}) is None:
            likened = task.likened(target, self.truth.space, self.space.kind)
            assert likened is not None
            target = likened
        target = mapped(target, self.truth, shared, 0)
        return target if shared.whole else task.limited(target, len(shared.names), True)

    def said(self, rival: Rival, target: Target) -> tuple[Target, Target]:
        """An answer with the classes that are compared, once with all others as one more class, once without those."""
        task = load_task(self.truth.task)
        moved = mapped(target, rival.side, rival.shared, 1)
        if rival.shared.whole:
            return moved, moved
        limited = task.limited(moved, len(rival.shared.names), False)
        assert limited is not None
        return moved, limited


def questions(truths: Sequence[LabelSet], who: Sequence[Answerer], score: float) -> tuple[list[Question], list[str]]:
    """Everything that can be compared, and what there is to say of it: classes that only one side has, and why not.

    Raises:
        ValueError: nothing can be; lists both sides.
    """
    found: list[Question] = []
    notes: list[str] = []
    refused: list[str] = []
    for truth in truths:
        for number, answerer in enumerate(who):
            for key, side in answerer.sides.items():
                if side.task != truth.task:
                    continue
                shared, note = _shared(truth, side)
                pair = f"{_named(answerer, key)} against {truth.task}/{truth.name}"
                if shared is None:
                    refused.append(f"{pair}: {note}")
                    continue
                if isinstance(side, LabelSet) and side.path == truth.path:
                    note = "it is held against itself, which says nothing"
                notes += [f"{pair}: {note}"] if note else []
                _joined(found, truth, side, score, shared).rivals.append(Rival(number, key, side, shared))
    if not found:
        have = "; ".join(f"{a.what.given} answers {', '.join(map(_about, a.sides.values()))}" for a in who)
        why = f". {'; '.join(refused)}" if refused else ""
        raise ValueError(f"nothing to compare: {have}; what is right is {', '.join(map(_about, truths))}{why}")
    answered = {(r.who, r.key) for q in found for r in q.rivals}
    for number, answerer in enumerate(who):
        alone = [k for k in answerer.sides if (number, k) not in answered]
        if alone and len(alone) < len(answerer.sides):
            notes.append(f"{answerer.what.given}: {', '.join(alone)} is held against nothing")
        elif alone:
            refused.append(f"{answerer.what.given} is held against nothing: it answers "
                           f"{', '.join(map(_about, answerer.sides.values()))}")  # fmt: skip
    return found, [*notes, *refused]


def _joined(found: list[Question], truth: LabelSet, side: Named, score: float, shared: Common) -> Question:
    """The question of that label set over these classes, made where there is none yet.

    Answers of two kinds that one head could learn are compared by what both have, such as boxes with outlines and
    without: as the kind that is not the joint one.
    """
    for i, question in enumerate(found):
        kinds = {question.space.kind, side.space.kind}
        joint = load_task(truth.task).joint_kind(kinds)
        if question.truth is truth and question.space.names == shared.names and joint is not None:
            least = next(iter(kinds - {joint}), joint)
            found[i] = replace(question, space=Space(shared.names, least))
            return found[i]
    found.append(Question(truth, Space(shared.names, side.space.kind), score))
    return found[-1]


def _shared(truth: LabelSet, side: Named) -> tuple[Common | None, str]:
    """The classes of both, and what there is to say of them; or None, and why there are none."""
    task, names = load_task(truth.task), truth.space.names
    if task.joint_kind({truth.space.kind, side.space.kind}) is None:
        first = next(truth.spread(1), None)
        if first is None or task.likened(first, truth.space, side.space.kind) is None:
            return None, f"{side.space.kind!r} cannot be held against {truth.space.kind!r}"
    shared = common(truth, side)
    if shared is None and names == side.space.names:
        same = tuple(range(len(names)))
        return Common(names, (same, same)), (
            f"the classes are no names that could be compared ({_few(names)}): both list the same, and are taken to "
            "mean the same by them"
        )
    if shared is None:
        return None, f"no class in common ({_few(names)}; {_few(side.space.names)})"
    if not shared.whole and not task.compares_some:
        return None, f"the classes differ ({_few(names)}; {_few(side.space.names)})"
    alone = [[n for n, i in zip(of.space.names, index, strict=True) if i == len(shared.names)]
             for of, index in zip((truth, side), shared.index, strict=True)]  # fmt: skip
    told = [f"only {whose} {len(rest)} more ({_few(rest)})"
            for whose, rest in zip(("what is right has", "the answers have"), alone, strict=True) if rest]  # fmt: skip
    if not told:
        return shared, ""
    return shared, f"{len(shared.names)} classes in common; {', '.join(told)}, which are left out"


def _named(answerer: Answerer, key: str) -> str:
    return answerer.what.given if len(answerer.sides) == 1 else f"{answerer.what.given} ({key})"


def _about(side: Named) -> str:
    names = f" ({_few(side.space.names)})" if side.space.names else ""
    return f"{side.task}{'' if side.name == side.task else f'/{side.name}'}{names}"


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
