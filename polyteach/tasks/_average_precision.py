"""Average precision of ranked answers, by COCO's rules and by Pascal VOC's, apart from what is being ranked.

The dear half, judging each image's answers against its truth, is done once; the cheap half, the curve over all images,
can then be repeated for any choice of images with repetition, as the jackknife does.

Shapes: D answers, G true objects, N images, T rules (COCO's thresholds of the overlap), C classes, P recalls.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

MOST = 100
"""Answers per image and class that COCO looks at, the best."""


@dataclass(frozen=True)
class Judged:
    """One image's answers, the best first. hit: found an object. counted: hit or false, by each of T rules.

    known: the classes of the true objects that count.
    """

    category: Int[np.ndarray, " D"]
    score: Float[np.ndarray, " D"]
    hit: Bool[np.ndarray, "T D"]
    counted: Bool[np.ndarray, "T D"]
    known: Int[np.ndarray, " G"]


def overlap(
    box: Float[np.ndarray, "D 4"], true: Float[np.ndarray, "G 4"], crowd: Bool[np.ndarray, " G"]
) -> Float[np.ndarray, "D G"]:
    """Intersection over union of boxes x0, y0, x1, y1; over the answer's own area where the true box is a crowd's.

    The boxes are continuous. The VOC kit counts whole pixels, xmax - xmin + 1 to a side: the same for boxes that run
    from xmin - 1 to xmax, as VOC's are kept here.
    """
    low, high = np.maximum(box[:, None, :2], true[:, :2]), np.minimum(box[:, None, 2:], true[:, 2:])
    shared = (high - low).clip(min=0).prod(-1)
    area = (box[:, 2:] - box[:, :2]).prod(-1)[:, None]
    union = np.where(crowd, area, area + (true[:, 2:] - true[:, :2]).prod(-1) - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def judge_coco(
    overlap: Float[np.ndarray, "D G"],
    category: Int[np.ndarray, " D"],
    score: Float[np.ndarray, " D"],
    true: Int[np.ndarray, " G"],
    crowd: Bool[np.ndarray, " G"],
    area: Float[np.ndarray, " D"],
    thresholds: Sequence[float],
    size: tuple[Float[np.ndarray, " G"], float, float] | None = None,
) -> Judged:
    """As pycocotools' `COCOeval.evaluateImg`, over objects of all sizes, or of some.

    The best answer chooses first: of the objects of its class that are free and overlap by the threshold, the one
    that it overlaps most. A crowd is never used up; an answer that finds no other object but a crowd counts neither
    way, and neither do those beyond the 100 best, nor those turned inside out, whose area is negative.

    Of a size alone: an object of another one counts neither way, nor does an answer that finds it (it is used up by
    that), nor one of another size that finds nothing.

    overlap: by crowd's rule where `crowd`. category, score, area: of answers in any order. true: the objects' classes.
    size: the objects' areas, and the least and the largest that count.
    """
    order = np.argsort(-score, kind="stable")
    category, score, overlap = category[order], score[order], np.where(category[order, None] == true, overlap[order], 0)
    fits, ignored = np.ones(len(score), dtype=bool), crowd
    if size is not None:
        areas, low, high = size
        fits = (area[order] >= low) & (area[order] <= high)
        ignored = crowd | (areas < low) | (areas > high)
    known = true[~ignored]
    last = np.argsort(ignored, kind="stable")[::-1]  # those first; of equals the later, as there
    overlap, crowded, ignored = overlap[:, last], crowd[last], ignored[last]
    least = np.minimum(np.asarray(thresholds), 1 - 1e-10)[:, None]
    hit = np.zeros((len(least), len(score)), dtype=bool)
    counted = np.ones_like(hit) & (_rank(category) < MOST) & (area[order] >= 0)
    free = np.ones((len(least), len(true)), dtype=bool)
    for d in np.nonzero((overlap >= least[0]).any(1) & counted[0])[0] if len(true) else ():
        able = free & (overlap[d] >= least)
        real = able & ~ignored
        found, any_found = real.any(1), able.any(1)
        chosen = np.where(np.where(found[:, None], real, able), overlap[d], -1).argmax(1)
        hit[:, d] = found
        used = any_found & ~crowded[chosen]
        free[used, chosen[used]] = False
        counted[:, d] = found | ~any_found
    counted &= hit | fits
    return Judged(category, score, hit, counted, known)


def confused(
    overlap: Float[np.ndarray, "D G"],
    category: Int[np.ndarray, " D"],
    score: Float[np.ndarray, " D"],
    true: Int[np.ndarray, " G"],
    crowd: Bool[np.ndarray, " G"],
    least: float = 0.5,
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Of every object its class and that of the answer that finds it, and of every other answer its class; -1: none.

    The best answer chooses first, of the free objects that overlap by `least` the one that it overlaps most: first all
    answers among objects of their class, as in `judge_coco`, then those that are left among all others. A crowd is
    never used up: an answer that finds no other object of its class but a crowd counts neither way.
    """
    order = np.argsort(-score, kind="stable")
    alike = category[:, None] == true
    free, found = ~crowd, np.full(len(score), -1)
    for able in (alike, ~alike):
        for d in order:
            near = able[d] & free & (overlap[d] >= least)
            if found[d] < 0 and near.any():
                found[d] = len(true) - 1 - np.where(near, overlap[d], -1)[::-1].argmax()
                free[found[d]] = False
        # of a crowd of its class: no mistake of another class either
        found[(found < 0) & (alike & crowd & (overlap >= least)).any(1)] = len(true)
    hits, false = (found >= 0) & (found < len(true)), found < 0
    nothing = np.full(int(false.sum()), -1)
    missed = true[free]
    return (
        np.concatenate([true[found[hits]], nothing, missed]),
        np.concatenate([category[hits], category[false], np.full(len(missed), -1)]),
    )


def _rank(category: Int[np.ndarray, " D"]) -> Int[np.ndarray, " D"]:
    """How many before each are of its class."""
    order = np.argsort(category, kind="stable")
    grouped = category[order]
    first = np.searchsorted(grouped, grouped)
    rank = np.empty(len(category), dtype=np.int64)
    rank[order] = np.arange(len(category)) - first
    return rank


def judge_voc(
    overlap: Float[np.ndarray, "D G"],
    category: Int[np.ndarray, " D"],
    score: Float[np.ndarray, " D"],
    true: Int[np.ndarray, " G"],
    difficult: Bool[np.ndarray, " G"],
) -> Judged:
    """As the VOC development kit's VOCevaldet.m.

    Each answer is held against the object of its class that it overlaps most, used up or not. Below one half it is
    false. Where that object is difficult it counts neither way; else the best answer hits and the others are false.

    overlap: intersection over union, also of difficult objects.
    """
    order = np.argsort(-score, kind="stable")
    category, score, overlap = category[order], score[order], np.where(category[order, None] == true, overlap[order], 0)
    hit, counted = np.zeros((1, len(score)), dtype=bool), np.ones((1, len(score)), dtype=bool)
    if len(true) and len(score):
        nearest = overlap.argmax(1)
        near = overlap.max(1) >= 0.5
        counted[0] = ~(near & difficult[nearest])
        able = np.nonzero(near & ~difficult[nearest])[0]
        hit[0, able[np.unique(nearest[able], return_index=True)[1]]] = True
    return Judged(category, score, hit, counted, true[~difficult])


class Ranking:
    """The judged answers of N images, ranked: what a curve is drawn from, for any counts of the images."""

    def __init__(self, images: Sequence[Judged], rules: int) -> None:
        """images: each judged by as many rules."""
        nothing = np.zeros((rules, 0), dtype=bool)
        images = images or [Judged(np.zeros(0, np.int64), np.zeros(0), nothing, nothing, np.zeros(0, np.int64))]
        category = np.concatenate([j.category for j in images])
        score = np.concatenate([j.score for j in images])
        order = np.lexsort((-score, category))  # stable: ties stay in the order of images
        category = category[order]
        image = np.repeat(np.arange(len(images)), [len(j.score) for j in images])
        self._image = image[order]
        self._hit = np.concatenate([j.hit for j in images], 1)[:, order]
        self._counted = np.concatenate([j.counted for j in images], 1)[:, order]
        self._known = np.concatenate([j.known for j in images])
        self._of = np.repeat(np.arange(len(images)), [len(j.known) for j in images])
        self.classes = np.unique(self._known)
        """Those with an object that counts."""
        self._span = np.searchsorted(category, [self.classes, self.classes + 1]).T

    def _curves(
        self, counts: Int[np.ndarray, " N"]
    ) -> list[tuple[Int[np.ndarray, "T D"], Int[np.ndarray, "T D"], int] | None]:
        """By class: hits and answers so far, down the ranking, and how many objects there are; None without any."""
        objects = np.bincount(np.searchsorted(self.classes, self._known), counts[self._of], len(self.classes))
        curves: list[tuple[Int[np.ndarray, "T D"], Int[np.ndarray, "T D"], int] | None] = []
        for (start, stop), there in zip(self._span, objects, strict=True):
            weight = counts[self._image[start:stop]]
            seen = weight > 0
            counted = self._counted[:, start:stop][:, seen] * weight[seen]
            hits = (self._hit[:, start:stop][:, seen] * counted).cumsum(1)
            curves.append((hits, counted.cumsum(1), int(there)) if there else None)
        return curves

    def coco(self, counts: Int[np.ndarray, " N"], recalls: Float[np.ndarray, " P"]) -> Float[np.ndarray, "T C"]:
        """The mean over `recalls` of the best precision at that recall or a higher one; 0..1, NaN without objects.

        As pycocotools' `COCOeval.accumulate`. counts: how often each image is taken.
        """
        out = np.full((len(self._hit), len(self.classes)), np.nan)
        for c, curve in enumerate(self._curves(counts)):
            if curve is None:
                continue
            hits, answers, objects = curve
            best = _envelope(hits / (answers + np.spacing(1)))
            recall = hits / objects
            for t in range(len(out)):
                at = np.searchsorted(recall[t], recalls, side="left")
                out[t, c] = np.append(best[t], 0.0)[at].mean()
        return out

    def voc(self, counts: Int[np.ndarray, " N"]) -> Float[np.ndarray, "2 C"]:
        """VOC 2007's and VOC 2010's average precision by the first rule; 0..1, NaN without objects.

        2007: the mean of the best precision at recalls of at least 0, 0.1, ... 1, which are compared in whole numbers,
        so that 3 of 10 are at least 0.3. 2010: the area under that curve, at every recall.
        """
        out = np.full((2, len(self.classes)), np.nan)
        for c, curve in enumerate(self._curves(counts)):
            if curve is None:
                continue
            hits, answers, objects = curve[0][0], curve[1][0], curve[2]
            best = _envelope(hits / np.maximum(answers, 1))
            at = np.searchsorted(10 * hits, np.arange(11) * objects, side="left")
            out[0, c] = np.append(best, 0.0)[at].mean()
            out[1, c] = (np.diff(hits, prepend=0) * best).sum() / objects
        return out


def _envelope(precision: Float[np.ndarray, "*rules D"]) -> Float[np.ndarray, "*rules D"]:
    """The best precision from each answer on."""
    best: Float[np.ndarray, "*rules D"] = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return best
