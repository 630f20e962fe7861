"""Learn it, then score it: every task, on pictures that are not square and that carry only some of the labels."""

from dataclasses import fields, replace

import pytest

from polyteach.ground.geometry import whole
from polyteach.ground.scene import random_scene, render
from polyteach.loading.plan import plan
from polyteach.store import ImageRow, Store
from polyteach.tasks import load_task
from polyteach.tasks.contract import PEOPLE, Space
from polyteach.teachers import load_teacher
from polyteach.transferring.scoring import evaluate
from polyteach.verbs.predict import predict
from polyteach.verbs.train import train
from tests.worlds import NAMES, png, seen_tasks

SIZES = ((40, 72), (72, 40), (64, 48))
COUNT = 9
STEPS = {"detection": 150, "normals": 110}
USUAL_STEPS = 60
SHARE = {"normals": 0.12}
"""Where it is another: 11.25 degrees are few pixels of a small ball, finer than a map of 16x16 can say."""
USUAL_SHARE = 0.4
"""Of the way from the score of the best blind answer to that of the truth, the least that is learned. Measured, seeds 0
to 3, which differ by more than the rounding of other CPUs: detection 0.52 to 0.64 (after 110 steps 0.36 to 0.46),
classification 1, segmentation 0.89 to 0.97, depth 0.78 to 0.82."""

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def seen_by(seed, size):
    """Two balls that fill the most of what is seen."""
    scene = random_scene(seed, size, objects=2)
    return render(replace(scene, radius=2.5 * scene.radius))


def scenes():
    """Ids and what the camera sees; the shapes change within a batch."""
    return {f"{i}": seen_by(40 + i, SIZES[i // 3 % 3]) for i in range(COUNT)}


def learned(number):
    """Two thirds of the pictures carry the task that is learned; which of them is no rule by place in a batch."""
    return number % 3 != 0


def school(path, task, other, seen):
    """A store for one task and another one, each labelled on two thirds of the pictures.

    Of the task, people label picture 1, 4, 7 and a teacher 2, 5, 8. The teacher also answers for people's pictures,
    and wrongly: what it sees is the next picture, so people have to win.
    """
    store = Store.create(path, 4)
    ids = list(seen)
    for part, start in enumerate(range(0, COUNT, 4)):
        here = ids[start : start + 4]
        rows = [ImageRow(i, *seen[i].image.shape[1:], png(seen[i].image)) for i in here]
        store.write_images(part, rows)
        for name, set_name, answer in (
            (task, PEOPLE, lambda i: seen[i] if int(i) % 3 == 1 else None),
            (task, "teacher", lambda i: seen[i] if int(i) % 3 == 2 else resized(seen, i) if learned(int(i)) else None),
            (other, "teacher", lambda i: seen[i] if int(i) % 3 != 1 else None),
        ):
            about = load_task(name)
            space = Space(NAMES, about.kinds[0])
            info = {"teacher": PEOPLE if set_name == PEOPLE else {"spec": "x:y"}}
            labels = store.create_set(name, set_name, space, info)
            labels.write(part, here, [None if (r := answer(i)) is None else about.truth(r, space) for i in here])
    return str(path)


def resized(seen, id):
    """Another world, seen by a camera of this picture's shape."""
    return seen_by(400 + int(id), tuple(seen[id].image.shape[1:]))


def exam(path, task, seen):
    """Those pictures with the exact answers, as the store keeps them."""
    store = Store.create(path, COUNT)
    chosen = [i for i in seen if learned(int(i))]
    store.write_images(0, [ImageRow(i, *seen[i].image.shape[1:], png(seen[i].image)) for i in chosen])
    space = Space(NAMES, load_task(task).kinds[0])
    labels = store.create_set(task, PEOPLE, space, {"teacher": PEOPLE})
    labels.write(0, chosen, [load_task(task).truth(seen[i], space) for i in chosen])
    return plan([store]), labels.read(0)


def scored(task, space, predicted, true):
    metric = load_task(task).metric(space)
    for p, t in zip(predicted, true, strict=True):
        metric.update([p], [t])
    return metric.compute()


@pytest.mark.parametrize("task", seen_tasks())
def test_what_is_taught_in_part_is_learned_and_scored_in_each_pictures_own_pixels(tmp_path, task):
    seen, other = scenes(), next(t for t in seen_tasks() if t != task)
    store = school(tmp_path / "store", task, other, seen)
    run = str(tmp_path / "run")
    train(
        [store], out=run, backbone="test_resnet", channels=16, size=64, batch_size=COUNT, lr=4e-3, optimizer="adamw",
        steps=STEPS.get(task, USUAL_STEPS), warmup=5, ema=0.0, scale=(1.0, 1.0), mirror=0.0, weights="equal", workers=0,
        device="cpu", progress=False,
    )  # fmt: skip
    papers, truths = exam(tmp_path / "exam", task, seen)
    (objective,) = papers.objectives
    space = papers.objectives[objective].space
    teacher = load_teacher(f"own:{run}", "cpu", "fp32")
    (mine,) = (k for k, o in teacher.objectives.items() if o == papers.objectives[objective])
    found = evaluate(lambda images: [a[mine] for a in teacher(images)], papers, objective, batch_size=4)
    assert not found.failed

    # the same by `predict`, which has files for pictures
    files = [tmp_path / f"{i}.png" for i in papers.ids()]
    for file in files:
        file.write_bytes(png(seen[file.stem].image))
    answers = [a[mine] for a in predict(run, [str(f) for f in files], batch_size=4, device="cpu", progress=False)]
    again = scored(task, space, answers, truths)
    assert again == pytest.approx(found.scores, abs=1e-6)
    for answer, file in zip(answers, files, strict=True):
        height, width = seen[file.stem].image.shape[1:]
        load_task(task).check(answer, (height, width), space)
        for f in fields(answer):
            if f.metadata["column"].kind == "map":
                assert tuple(getattr(answer, f.name).shape[-2:]) == (height, width)

    name = next(iter(found.scores))
    perfect = scored(task, space, truths, truths)[name]
    # the best that can be said without looking: the same answer for every picture, stretched to it
    sizes = [tuple(seen[i].image.shape[1:]) for i in papers.ids()]
    blind = max(
        scored(task, space, [load_task(task).view(one, whole(size, s)) for s in sizes], truths)[name]
        for one, size in zip(truths, sizes, strict=True)
    )
    assert found.scores[name] > blind + SHARE.get(task, USUAL_SHARE) * (perfect - blind)
