"""What is counted while answers come: scores, who is taken for what, how sure they were, the worst images, doubts."""

import copy
import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from polyteach.curation.temperature import BINS, reliability
from polyteach.evaluation.answering import Seen
from polyteach.evaluation.matching import Question, Rival
from polyteach.ground.jackknife import groups
from polyteach.store import LabelSet
from polyteach.store.codec import columns_of
from polyteach.store.statistics import FEW, Variety
from polyteach.tasks import load_task
from polyteach.tasks.contract import Objective, Policy, Target
from polyteach.transferring.scoring import Tally

MOSTLY = 0.9
"""Share of the images from which on something is said of nearly all."""

FEW_CLASSES = 1000
"""Below so many a number for each pair of classes is no more than some megabytes."""


@dataclass(frozen=True)
class Worst:
    """An image with a bad answer. off: how far, larger is worse. words: what is wrong. guess, true: as compared."""

    off: float
    words: str
    seen: Seen
    guess: Target
    true: Target


class Account:
    """Of one answerer to one question.

    tally: of all images that it answered. paired: of those that all its rivals answered too. failed: why there is no
    answer, with how often and the first image. without: images that it has not been asked about.
    """

    def __init__(self, question: Question, rival: Rival, score: float, worst: int) -> None:
        self.question, self.rival = question, rival
        self.task, self.space = load_task(question.truth.task), question.space
        self.policy, self._most = Policy(score=score), worst
        self.tally = self.paired = Tally(Objective(self.task.name, self.space))
        self.failed: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.without = 0
        self.confusion: Counter[int] | None = Counter()
        self.bins = np.zeros((BINS, 3))
        """By confidence: answers, the sum of their confidence, and how many are right."""
        self._judged = bool(self.task.calibrates) and not (isinstance(rival.side, LabelSet) and rival.side.by_people)
        self._single = Tally(Objective(self.task.name, self.space), False).metric
        self._worst: list[tuple[float, int, Worst]] = []
        self.variety = Variety(self.task.name, self.space, self.policy)
        self.flat = 0
        self.scores: tuple[float, float] | None = None
        """The lowest and the highest score that was given."""

    def part(self) -> None:
        """From now on images may come that only some of the rivals answered."""
        if self.paired is self.tally:
            self.paired = copy.deepcopy(self.tally)

    def fail(self, id: str, why: str | None) -> None:
        """There is no answer to that image. why: None where nobody asked."""
        if why is None:
            self.without += 1
            return
        self.failed[why] += 1
        self.first.setdefault(why, id)

    def see(self, seen: Seen, target: Target, true: Target, group: int, by_all: bool) -> None:
        """Count an answer. group: of images that are left out together. by_all: all rivals answered."""
        said, guess = self.question.said(self.rival, target)
        for tally in {id(t): t for t in ((self.tally, self.paired) if by_all else (self.tally,))}.values():
            tally.update(seen.id, guess, true, group)
        self._confuse(guess, true)
        if self._judged:
            self._weigh(said, true)
        self._rank(seen, guess, true)
        self._doubt(guess, true)

    def _confuse(self, guess: Target, true: Target) -> None:
        classes = len(self.space.names)
        pairs = self.task.confusion(guess, true, classes, self.policy)
        if pairs is None:
            self.confusion = None
            return
        assert self.confusion is not None
        keys = pairs[0] * (classes + 1) + pairs[1]
        if classes < FEW_CLASSES:  # many pixels are counted sooner than sorted
            every = keys.bincount(minlength=1)
            keys, counts = every.nonzero()[:, 0], every[every > 0]
        else:
            keys, counts = keys.unique(return_counts=True)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            self.confusion[key] += count

    def _weigh(self, said: Target, true: Target) -> None:
        evidence = self.task.evidence(said, true, len(self.space.names))
        if len(evidence.right):
            for k, n, sure, share in reliability(evidence).bins:
                self.bins[k] += (n, n * sure, n * share)

    def _rank(self, seen: Seen, guess: Target, true: Target) -> None:
        found = self.task.mistakes(guess, true, self.space, self.policy) if self._most else (0.0, "")
        found = self._by_metric(guess, true) if found is None else found
        if not found[0] > 0:  # nor where it is not defined
            return
        order = -len(self.tally.ids)  # of equals the first
        item = (found[0], order, Worst(*found, replace(seen, image=None), guess, true))
        (heapq.heappush if len(self._worst) < self._most else heapq.heappushpop)(self._worst, item)

    def _by_metric(self, guess: Target, true: Target) -> tuple[float, str]:
        """By how much the metric's first score of this image is worse than what is right itself would have."""
        name, score, best = "", 0.0, 0.0
        for target in (guess, true):
            self._single.reset()
            self._single.update([target], [true])
            name, best = next(iter(self._single.compute().items()))
            score = best if target is guess else score
        return abs(best - score), f"{name} {score:.3g}"

    def worst(self) -> list[Worst]:
        """The worst images, the worst first."""
        return [worst for _, _, worst in sorted(self._worst, key=lambda x: x[:2], reverse=True)]

    def _doubt(self, guess: Target, true: Target) -> None:
        self.variety.see(guess)
        self.flat += _flat(guess, self.task.confidence) and not _flat(true, self.task.confidence)
        if self.task.has_scores:
            given = self.task.scored(guess)[1]
            if len(given):
                low, high = float(given.min()), float(given.max())
                before = self.scores or (low, high)
                self.scores = min(low, before[0]), max(high, before[1])

    def doubts(self, constant: dict[str, float] | None) -> list[str]:
        """Why the answers look broken, a sentence each. constant: what a constant answer would have scored."""
        seen, missing = len(self.tally.ids), sum(self.failed.values()) + self.without
        out = []
        if missing >= max(MOSTLY * (seen + missing), 1):
            out.append(f"no answer to {missing:,} of {seen + missing:,} images")
        if why := self.variety.why():
            out.append(why)
        elif seen >= FEW and self.flat >= MOSTLY * seen:
            out.append(f"maps that hold one value each, where what is right varies: {self.flat:,} of {seen:,} images")
        if seen >= FEW and self.scores is not None and self._judged and self.scores[1] - self.scores[0] < 1e-6:
            out.append(
                f"all scores are {self.scores[0]:.3g}: they tell nothing of how sure the answers are, and rank nothing"
            )
        if constant and seen >= FEW:
            name, least = next(iter(constant.items()))
            value = self.tally.scores()[name]
            worse = value > least if name in self.task.lower_is_better else value < least
            if worse:
                out.append(f"{name} {value:.3g} is worse than a constant answer's, {least:.3g}")
        return out


class Contest:
    """A question, the accounts of all who answer it, and what a constant answer would have scored.

    images: how many will come. skipped: those whose answer is of a class that only what is right has.
    """

    def __init__(self, question: Question, number: int, images: int, score: float, worst: int) -> None:
        self.question, self.number, self.images = question, number, images
        self.accounts = [Account(question, r, score, worst) for r in question.rivals]
        self.skipped = 0
        self._groups = iter(groups(images).tolist())
        self._constant: Target | None = None
        self._baseline = Tally(Objective(question.truth.task, question.space), False)

    def fit_constant(self, targets: Iterable[Target]) -> None:
        """Take the best constant answer from people's answers to some of the images."""
        known = (t for target in targets if (t := self.question.true(target)) is not None)
        self._constant = load_task(self.question.truth.task).constant(known, self.question.space)

    def see(self, seen: Seen, truth: Target, answers: list[Any]) -> None:
        """Count an image. truth: as it is in the store. answers: of each account a target, or why there is none."""
        group, true = next(self._groups), self.question.true(truth)
        if true is None:
            self.skipped += 1
            return
        by_all = all(isinstance(answer, Target) for answer in answers)
        if not by_all:
            for account in self.accounts if len(answers) > 1 else ():
                account.part()
        for account, answer in zip(self.accounts, answers, strict=True):
            if isinstance(answer, Target):
                account.see(seen, answer, true, group, by_all)
            else:
                account.fail(seen.id, answer)
        if self._constant is not None:
            self._baseline.update(seen.id, self._constant, true, group)

    def constant(self) -> dict[str, float] | None:
        """What the constant answer scored; None where there is none."""
        return self._baseline.scores() if self._baseline.ids else None


def _flat(target: Target, confidence: str) -> bool:
    """Whether a target of maps holds one value everywhere; what is known, and how sure, set aside."""
    maps = [k for k, how in columns_of(type(target)).items() if how.kind == "map" and how.dtype != "bool"]
    values = [getattr(target, k) for k in maps if k != confidence]
    if not values or any(v.numel() < 2 for v in values):
        return False
    return all(bool((v == v[..., :1, :1]).all()) for v in values if isinstance(v, Tensor))
