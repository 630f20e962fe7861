"""The work behind `polyteach evaluate`: everybody is asked about the same images, and counted as the answers come."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchcodec.encoders import PngEncoder

from polyteach.evaluation.account import Account, Contest, Worst
from polyteach.evaluation.answering import Answerer, Seen, answerers
from polyteach.evaluation.images import Chosen, choose
from polyteach.evaluation.matching import questions
from polyteach.evaluation.page import blocks, terminal
from polyteach.evaluation.result import values
from polyteach.evaluation.start import Request
from polyteach.ground.files import replacing, write_json
from polyteach.ground.progress import track
from polyteach.ground.tables import width_of
from polyteach.ground.texts import say
from polyteach.labelling.part import read_image
from polyteach.loading.held import spaced
from polyteach.loading.stream import Decoded, Stream
from polyteach.reporting.markdown import markdown
from polyteach.store import LabelSet, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import Target

THREADS = 2
"""That decode images ahead."""
CONSTANT = 200
"""Images, at most, from whose answers the constant answer is taken."""
GAP = 8
"""Pixels between the pictures of an image."""


def run(request: Request) -> dict[str, Any]:
    """Evaluate, print the result, and write it where `out` says.

    Returns:
        What evaluate.json holds.

    Raises:
        ValueError: a teacher or label set cannot be used, nothing to compare, no image, no answer at all.
        KeyboardInterrupt: Ctrl-C or SIGTERM; says what is lost.
    """
    try:
        return _evaluated(request)
    except KeyboardInterrupt as e:
        raise KeyboardInterrupt(str(e), _begins_anew(request)) from e


def _evaluated(request: Request) -> dict[str, Any]:
    judging = request.judging
    store = Store.open(request.store, limits=request.limits)
    who = answerers(request, store)
    found, notes = questions([LabelSet(store, *key) for key in request.truth], who, judging.score)
    truths = list({q.name: q.truth for q in found}.values())
    chosen = choose(store, truths, judging)
    if len(chosen) < chosen.of:
        notes.append(f"{len(chosen):,} of the {chosen.of:,} images, drawn at random (seed {judging.seed})")
    say(*notes) if notes else None
    numbers = [truths.index(q.truth) for q in found]
    contests = [
        Contest(q, n, chosen.count(n), judging.score, judging.worst)
        for q, n in zip(found, numbers, strict=True) if chosen.count(n)
    ]  # fmt: skip
    for contest in contests:
        contest.fit_constant(_some(chosen, contest))
    _ask(request, store, truths, who, contests, chosen)
    _check_answered(contests, who)
    result = values(request, store, truths, who, contests, chosen, notes)
    if request.out is not None:
        _write(request.out, result, contests, store)
    if judging.json:
        say(json.dumps(result, ensure_ascii=False), stream=sys.stdout)
    else:
        width = width_of(sys.stdout)
        say(*terminal(blocks(result, whole=False), width), stream=sys.stdout)
    for warning in result["warnings"]:
        say(f"WARNING: {warning}")
    return result


def _begins_anew(request: Request) -> str:
    if request.out is not None and request.out.exists():
        return f"{request.out} is not whole: delete it first. The same command begins anew"
    said = "nothing is kept; the same command begins anew"
    if any(what.spec for what in request.what):
        said += f". To keep answers: polyteach label {request.store} first, and evaluate the label set"
    return said


def _some(chosen: Chosen, contest: Contest) -> Iterator[Target]:
    """What is right of at most `CONSTANT` of the images, taken evenly."""
    wanted = set(spaced(chosen.count(contest.number), CONSTANT).tolist())
    first = 0
    for part, rows, labelled in chosen.groups():
        mine = [row for row, known in zip(rows, labelled[contest.number], strict=True) if known]
        few = [row for i, row in enumerate(mine, first) if i in wanted]
        first += len(mine)
        for target in contest.question.truth.read(part, few) if few else ():
            assert isinstance(target, Target)
            yield target


def _ask(
    request: Request, store: Store, truths: Sequence[LabelSet], who: Sequence[Answerer], contests: Sequence[Contest],
    chosen: Chosen,
) -> None:  # fmt: skip
    looks = any(answerer.looks for answerer in who)
    with track("evaluate", len(chosen), "images", request.progress) as bar:
        for part, rows, labelled in chosen.groups():
            true: list[dict[int, Target]] = [{} for _ in truths]
            for number, labels in enumerate(truths):
                mine = [row for row, known in zip(rows, labelled[number], strict=True) if known]
                read = labels.read(part, mine) if mine else []
                true[number] = {row: t for row, t in zip(mine, read, strict=True) if isinstance(t, Target)}
            for batch in _batches(request, store, part, rows, looks):
                said = [answerer.answers(batch) for answerer in who]
                for i, seen in enumerate(batch):
                    for contest in contests:
                        target = true[contest.number].get(seen.row)
                        if target is not None:
                            answers = [said[r.who][i].get(r.key) for r in contest.question.rivals]
                            contest.see(seen, target, answers)
                bar.advance(len(batch))


def _batches(request: Request, store: Store, part: int, rows: list[int], looks: bool) -> Iterator[list[Seen]]:
    """The images of a part at those positions; with their pixels where somebody looks at them."""
    if not looks:
        yield [Seen(x.id, part, row, (x.height, x.width)) for row, x in zip(rows, store.sizes(part, rows), strict=True)]
        return
    images = store.images(part, rows=rows)
    stream = Stream(
        range(len(rows)),
        lambda i: Decoded(read_image(store, images[i])),
        batch_size=request.predicting.batch_size,
        threads=THREADS,
        pixels=lambda i: images[i].height * images[i].width,
    )
    for batch in stream:
        yield [
            Seen(images[i].id, part, rows[i], (images[i].height, images[i].width), _without_reason(decoded.image))
            for i, decoded in batch
        ]


def _without_reason(image: Tensor | str) -> Tensor | str:
    return image.removeprefix("image: ") if isinstance(image, str) else image


def _check_answered(contests: Sequence[Contest], who: Sequence[Answerer]) -> None:
    """Raises:
    ValueError: somebody answered no image at all; gives the first reason.
    """
    for contest in contests:
        for account in contest.accounts:
            if account.tally.ids:
                continue
            given = who[account.rival.who].what.given
            if contest.skipped and not account.failed and not account.without:
                why = f"all {contest.skipped:,} images are of classes that only what is right has"
            elif account.failed:
                reason, n = account.failed.most_common(1)[0]
                why = f"{n:,} failed with {reason!r}, the first is {account.first[reason]}"
            else:
                why = f"it has no label of the {account.without:,} images"
            raise ValueError(f"{given} has no answer that could be held against {contest.question.name}: {why}")


def _write(out: Path, result: dict[str, Any], contests: Sequence[Contest], store: Store) -> None:
    """evaluate.json, evaluate.md and the worst images, into a new folder."""
    out.mkdir(parents=True)
    accounts = [account for contest in contests for account in contest.accounts]
    for account, answers in zip(accounts, (a for q in result["questions"] for a in q["answers"]), strict=True):
        for worst, about in zip(account.worst(), answers["worst"], strict=True):
            picture = _picture(account, worst, store)
            if picture is None:
                about["picture"] = None
                continue
            path = out / about["picture"]
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(PngEncoder(picture).to_tensor().numpy().tobytes())
    text = markdown("Evaluation", blocks(result, whole=True))
    (out / "evaluate.md").write_text(text, encoding="utf-8")
    write_json(out / "evaluate.json", result)


def _picture(account: Account, worst: Worst, store: Store) -> Tensor | None:
    """The image, what is right, and what was answered, beside each other; None where it cannot be read."""
    [row] = store.images(worst.seen.part, rows=[worst.seen.row])
    image = read_image(store, row)
    if isinstance(image, str):
        return None
    task = load_task(account.question.truth.task)
    gap = torch.full((3, image.shape[1], GAP), 255, dtype=torch.uint8)
    right, said = (task.draw(image, target, account.space) for target in (worst.true, worst.guess))
    return torch.cat([image, gap, right, gap, said], 2)
