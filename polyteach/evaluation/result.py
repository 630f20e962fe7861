"""What was counted, as the JSON values of evaluate.json. A number of nothing is null."""

import math
import shlex
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from polyteach.evaluation.account import Account, Contest
from polyteach.evaluation.answering import Answerer, label_set_about
from polyteach.evaluation.images import Chosen
from polyteach.evaluation.start import Request
from polyteach.ground.jackknife import draws, interval
from polyteach.store import LabelSet, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import ScoredByClass, ScoredBySize
from polyteach.transferring.scoring import Tally
from polyteach.version import __version__

DRAWS = 4000
"""Of what a score may have been with other images, from which its interval is taken."""
WHOLE = 40
"""Classes up to which the whole matrix of confusion is kept; of more the most confused pairs."""
PAIRS = 20
"""Of these, how many."""


def values(
    request: Request, store: Store, truths: Sequence[LabelSet], who: Sequence[Answerer], contests: Sequence[Contest],
    chosen: Chosen, notes: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """All that evaluate.json holds."""
    judging, parts = request.judging, sorted(chosen.rows)
    asked = [_question(i, contest, who) for i, contest in enumerate(contests)]
    return {
        "polyteach": __version__,
        "command": _command(request),
        "store": str(store.path),
        "source": store.ingested().get("source"),
        "images": len(chosen),
        "of": chosen.of,
        "split": list(judging.split),
        "limit": judging.limit,
        "seed": judging.seed,
        "score": judging.score,
        "answerers": [answerer.about(parts) for answerer in who],
        "truth": [label_set_about(labels, parts) for labels in truths],
        "notes": list(notes),
        "warnings": [f"{a['what']} against {q['truth']}: {w}" for q in asked for a in q["answers"]
                     for w in a["warnings"]],
        "questions": asked,
    }  # fmt: skip


def _command(request: Request) -> str:
    """The command that does this again."""
    judging, predicting = request.judging, request.predicting
    first, *rivals = [w.given for w in request.what]
    words = ["polyteach", "evaluate", first, request.store]
    given: list[tuple[str, Any, Any]] = [
        ("rivals", rivals, []),
        ("truth", list(judging.truth), []), ("split", list(judging.split), []), ("limit", judging.limit, None),
        ("seed", judging.seed, 0), ("score", judging.score, 0.5), ("worst", judging.worst, 12),
        ("device", predicting.device, "auto"), ("precision", predicting.precision, "fp32"),
        ("batch-size", predicting.batch_size, 16), ("out", request.out, None),
    ]  # fmt: skip
    for name, value, default in given:
        if value != default:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _question(number: int, contest: Contest, who: Sequence[Answerer]) -> dict[str, Any]:
    question, constant = contest.question, contest.constant()
    names = [_called(who, account) for account in contest.accounts]
    left: dict[int, list[dict[str, float]]] = {}
    return {
        "truth": question.name,
        "task": question.truth.task,
        "kind": question.space.kind,
        "classes": list(question.space.names),
        "lower_is_better": sorted(load_task(question.truth.task).lower_is_better),
        "images": contest.images,
        "skipped": contest.skipped,
        "constant": None if constant is None else _known(constant),
        "answers": [
            {"what": name} | _answers(account, constant, left, f"worst/{number + 1}-{i + 1}")
            for i, (name, account) in enumerate(zip(names, contest.accounts, strict=True))
        ],
        "differences": [
            {"first": names[a], "second": names[b]} | _difference(contest.accounts[a], contest.accounts[b], left)
            for a, b in combinations(range(len(names)), 2)
        ],
    }


def _called(who: Sequence[Answerer], account: Account) -> str:
    answerer = who[account.rival.who]
    alone = sum(side.task == account.question.truth.task for side in answerer.sides.values()) == 1
    return answerer.what.given if alone else f"{answerer.what.given} ({account.rival.key})"


def _answers(
    account: Account, constant: dict[str, float] | None, left: dict[int, list[dict[str, float]]], pictures: str
) -> dict[str, Any]:
    tally = account.tally
    scores = tally.scores()
    metric = tally.metric
    return {
        "objective": account.rival.key,
        "images": len(tally.ids),
        "failed": [
            {"reason": why, "images": n, "first": account.first[why]} for why, n in account.failed.most_common()
        ],
        "without": account.without,
        "scores": {
            name: {"value": _number(value)} | _span(value, [s[name] for s in _left(tally, left)], tally.seed)
            for name, value in scores.items()
        },
        "classes": _classes(account),
        "sizes": {k: _known(v) for k, v in metric.by_size().items()} if isinstance(metric, ScoredBySize) else {},
        "reliability": _reliability(account),
        "confusion": _confusion(account),
        "worst": [
            {"id": w.seen.id, "off": w.off, "what": w.words, "picture": f"{pictures}-{i:02}.png"}
            for i, w in enumerate(account.worst(), 1)
        ],
        "warnings": account.doubts(constant),
    }


def _left(tally: Tally, known: dict[int, list[dict[str, float]]]) -> list[dict[str, float]]:
    """The scores without each group, computed once: of many boxes it takes a while."""
    if id(tally) not in known:
        known[id(tally)] = tally.left_out()
    return known[id(tally)]


def _span(score: float, left: Sequence[float], seed: int) -> dict[str, float | None]:
    """The 95 % interval; null of a single image, or where a score is not defined."""
    if not np.isfinite([score, *left]).all() or len(left) < 2:
        return {"low": None, "high": None}
    low, high = interval(draws(score, left, DRAWS, seed))
    return {"low": low, "high": high}


def _difference(first: Account, second: Account, left: dict[int, list[dict[str, float]]]) -> dict[str, Any]:
    """The first's scores less the second's, on the images that all answered: paired, group by group."""
    a, b = first.paired, second.paired
    if not a.ids:
        return {"images": 0, "scores": {}}
    one, other = a.scores(), b.scores()
    out = {}
    for name in [n for n in one if n in other]:
        apart = [x[name] - y[name] for x, y in zip(_left(a, left), _left(b, left), strict=True)]
        out[name] = {"value": _number(one[name] - other[name])} | _span(one[name] - other[name], apart, a.seed)
    return {"images": len(a.ids), "scores": out}


def _classes(account: Account) -> dict[str, dict[str, float | None]]:
    """By name: how many things are of the class, recall and precision in percent, and what the metric says of it."""
    names, metric = account.space.names, account.tally.metric
    k = len(names)
    out: dict[int, dict[str, float]] = {}
    if account.confusion is not None:
        true, said, right = (np.zeros(k + 1) for _ in range(3))
        for key, n in account.confusion.items():
            t, s = divmod(key, k + 1)
            true[t] += n
            said[s] += n
            right[t] += n * (t == s)
        for i in range(k):
            if true[i] or said[i]:
                out[i] = {"count": int(true[i]), "recall": _percent(right[i], true[i])}
                out[i]["precision"] = _percent(right[i], said[i])
    for i, scores in metric.by_class().items() if isinstance(metric, ScoredByClass) else ():
        out.setdefault(i, {}).update(scores)
    return {names[i]: _known(out[i]) for i in sorted(out)}


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else math.nan


def _confusion(account: Account) -> dict[str, Any] | None:
    """names: the classes, and "(none)". matrix: rows are what is right, columns what was said; null for many classes.

    pairs: the most confused, as [right, said, how many, share of all that is right and of that class].
    """
    if account.confusion is None or not account.space.names:
        return None
    names = [*account.space.names, "(none)"]
    k = len(names)
    matrix = np.zeros((k, k), dtype=np.int64) if k <= WHOLE + 1 else None
    of = np.zeros(k, dtype=np.int64)
    for key, n in account.confusion.items():
        of[key // k] += n
        if matrix is not None:
            matrix[divmod(key, k)] = n
    wrong = sorted(((n, -key) for key, n in account.confusion.items() if key // k != key % k), reverse=True)[:PAIRS]
    pairs = [[names[-key // k], names[-key % k], n, n / int(of[-key // k])] for n, key in wrong]
    return {"names": names, "matrix": None if matrix is None else matrix.tolist(), "pairs": pairs}


def _reliability(account: Account) -> dict[str, Any] | None:
    """How far confidence is from how often it is right: the expected calibration error, and by bin of confidence."""
    n, sure, right = account.bins.T
    total = n.sum()
    if not total:
        return None
    rows = [
        {"low": k / len(n), "high": (k + 1) / len(n), "answers": int(n[k]), "confidence": sure[k] / n[k],
         "right": right[k] / n[k]}
        for k in range(len(n)) if n[k]
    ]  # fmt: skip
    return {"answers": int(total), "ece": float(np.abs(sure - right).sum() / total), "bins": rows}


def _known(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {k: _number(v) for k, v in scores.items()}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
