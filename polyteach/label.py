"""Label: all teachers over a store's images, into one pseudo label set each."""

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from polyteach.arguments import listed
from polyteach.cluster import Broken
from polyteach.limits import MAX_PIXELS, Limits
from polyteach.texts import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from polyteach.store import Answer, ImageRow, LabelSet, Store
    from polyteach.teachers import Teacher

BATCH_PIXELS = 2**27
"""Pixels of a batch of more than one image: two batches of three bytes each are in memory."""


def _pairs(words: list[str]) -> dict[str, str]:
    split = [w.partition("=") for w in words]
    wrong = [w for w, (name, _, spec) in zip(words, split, strict=True) if not name or not spec]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not NAME=SPEC")
    names = [name for name, _, _ in split]
    if len(set(names)) < len(names):
        raise ValueError(f"a teacher's name is given twice in {' '.join(names)}")
    return {name: spec for name, _, spec in split}


_Teachers = Annotated[
    dict[str, str],
    tyro.conf.arg(name="teacher"),
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=SPEC [NAME=SPEC ...]",
        instance_from_str=_pairs,
        is_instance=lambda x: isinstance(x, Mapping),
        str_from_instance=lambda x: [f"{k}={v}" for k, v in x.items()],
    ),
]


def label(
    store: tyro.conf.Positional[str | Path],
    *,
    teachers: _Teachers,
    device: Sequence[str] = ("auto",),
    precision: str = "fp32",
    batch_size: int = 16,
    threads: int = 2,
    score: float = 0.5,
    retry: bool = False,
    split: Sequence[str] = (),
    allow_remote: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    ray: str | None = None,
    ray_workers: int = 0,
    ray_tries: int = 3,
    ray_timeout: float | None = None,
    progress: bool = True,
) -> None:
    """Run every teacher over every image of a store and write one pseudo label set for each of its answers.

    Each image is decoded once for all teachers. Work goes part by part: what is written is whole, a run that was
    stopped goes on where it was when the same command is given again, and teachers can be added later. An image
    that cannot be read, or whose answer is unusable (NaN, an unknown class), is recorded with its reason and never
    stops the run. A device that fails does, and a teacher that answers not even a plain picture; what is done is kept.
    Scores and probabilities are kept, so thresholds are chosen when training.

    Args:
        store: the store's folder, or its URL (docs/objects.md), made by `polyteach ingest`.
        teachers: name -> FAMILY:NAME of a teacher. The name becomes the label set's.
        device: where to run: auto, cpu, cuda:0, ... Several devices are given to the teachers in turn; NAME=DEVICE is
            for the teacher NAME alone. With auto, a teacher that runs on the CPU only does so, and that is said. On Ray
            they are the devices of every worker, which reserves as many GPUs.
        precision: fp32, or fp16 or bf16: autocast, faster where the device has instructions for it, and some labels
            differ (docs/performance.md says how many, and what fp32 is on CUDA). ONNX files and models that are not
            torch's have fp32 alone.
        batch_size: images per forward pass.
        threads: that decode images ahead of the teachers.
        score: threshold of the statistics printed at the end; nothing is thrown away by it.
        retry: label again the images that failed before, and keep all other rows as they are.
        split: label only images of these splits; the others stay without an answer in these label sets.
        allow_remote: where else than from files of this machine and object storage images may be fetched: a protocol
            (http, https), or the beginning of URLs, also of servers in this machine's own network (docs/store.md).
        max_pixels: refuse images with more pixels than this, whatever the store says of them.
        ray: label on a Ray cluster: its address, "auto" for the one that this machine belongs to, or "local" to start
            one here (docs/cluster.md). The store has to lie where all machines see it.
        ray_workers: processes with all teachers each; 0 for one on each GPU, or, without any, on each CPU. More than
            there are GPUs share them.
        ray_tries: attempts at a part whose worker dies or raises; then its images are recorded as failed.
        ray_timeout: seconds after which a part's worker is taken for hung, and killed; 0 for no limit. Without it 20
            times as many as the slowest part that was done, at least an hour; a day before one is done.
        progress: show a progress bar.

    Examples:
        polyteach label store --teacher boxes=torchvision:fasterrcnn_resnet50_fpn classes=timm:resnet50

        polyteach label store --teacher depth=transformers:./dpt-large --device cuda:0 --precision bf16

        polyteach label store --teacher boxes=onnx:boxes.onnx depth=transformers:./dpt-large --device boxes=cpu cuda:1

        polyteach label /shared/store --teacher depth=transformers:/shared/dpt-large --ray auto --ray-workers 64

    Raises:
        ValueError: no teacher, one called "people" or that cannot be loaded, a number out of range, a store without
            images or without one of `split`, an error of a device, a teacher that does not work; at the end, when a
            label set has no answer for any image.
    """
    from polyteach.devices import find_device
    from polyteach.store import Store

    counts = {"batch_size": batch_size, "threads": threads, "ray_tries": ray_tries}
    _check(teachers, counts, {"ray_workers": ray_workers, "ray_timeout": ray_timeout or 0})
    limits = Limits(listed(allow_remote), max_pixels)
    opened = Store.open(store, limits=limits)
    if not opened.parts():
        raise ValueError(f"{store} has no images; finish: polyteach ingest SOURCE {store}")
    devices = _places(device, teachers)
    for place in devices.values() if ray is None else ():
        find_device(place)  # all of them before any teacher is loaded
    splits = listed(split)
    # on Ray the machine that deals out the work need not have the workers' devices
    places, works = (devices, True) if ray is None else (dict.fromkeys(teachers, "cpu"), False)
    run = _loaded(str(store), teachers, places, precision, batch_size, threads, retry, splits, limits, works)
    config = {
        "teacher": teachers,
        "device": devices,
        "precision": precision,
        "batch_size": batch_size,
        "threads": threads,
        "score": score,
        "retry": retry,
        "split": list(splits),
        "allow_remote": list(limits.allow_remote),
        "max_pixels": max_pixels,
        "ray": ray,
        "ray_workers": ray_workers,
        "ray_tries": ray_tries,
        "ray_timeout": ray_timeout,
    }
    run.note(config, works)
    if ray is None:
        run.go(progress)
    else:
        where, rest = str(opened.path.resolve()), (precision, batch_size, threads, retry, splits, limits)
        given = (where, dict(teachers), devices, *rest)
        gpus = len({d for d in devices.values() if d != "cpu"})
        run.go_on_ray(progress, ray, given, ray_workers, ray_tries, ray_timeout, gpus)
    run.report(score)


def _check(teachers: Mapping[str, str], counts: Mapping[str, int], others: Mapping[str, int | float]) -> None:
    """Raises:
    ValueError: no teacher, one called "people", a count below 1, or another number below 0.
    """
    from polyteach.tasks.contract import PEOPLE

    if not teachers:
        raise ValueError("no teacher given; say --teacher NAME=FAMILY:MODEL [NAME=FAMILY:MODEL ...]")
    for what, count in counts.items():
        if count < 1:
            raise ValueError(f"{what} must be at least 1; got {count}")
    for what, number in others.items():
        if number < 0:
            raise ValueError(f"{what} must be 0 or more; got {number}")
    if PEOPLE in teachers:
        raise ValueError(
            f"a teacher cannot be called {PEOPLE!r}: labels of that name are people's, and win over every teacher's. "
            f"Choose another: --teacher NAME={teachers[PEOPLE]}"
        )


def _places(device: Sequence[str], teachers: Mapping[str, str]) -> dict[str, str]:
    """Device by teacher. device: DEVICE, for the teachers in turn, or NAME=DEVICE, for one."""
    shared: list[str] = []
    own: dict[str, str] = {}
    for word in listed(device):
        name, equals, place = word.partition("=")
        if not equals:
            shared.append(word)
        elif name not in teachers:
            raise ValueError(f"device {word!r}: there is no teacher {name!r}; there are {', '.join(teachers)}")
        elif name in own:
            raise ValueError(f"teacher {name!r} is given two devices, {own[name]} and {place}")
        else:
            own[name] = place
    others = [name for name in teachers if name not in own]
    if len(shared) > len(others):
        say(f"no teacher is left for device {', '.join(shared[len(others) :])}")
    shared = shared or ["auto"]
    return {n: own[n] if n in own else shared[others.index(n) % len(shared)] for n in teachers}


def _loaded(
    store: str,
    teachers: Mapping[str, str],
    device: Mapping[str, str],
    precision: str,
    batch_size: int,
    threads: int,
    retry: bool,
    split: tuple[str, ...],
    limits: Limits,
    works: bool = True,
) -> "_Run":
    """All teachers, loaded, with their label sets. device: by teacher. works: they will be asked here."""
    import torch

    from polyteach.devices import NoDevice, find_device, warn_if_slow
    from polyteach.store import Store
    from polyteach.teachers import load_teacher

    run = _Run(Store.open(store, limits=limits), batch_size, threads, retry, split)
    for name, spec in teachers.items():
        place = find_device(device[name])
        try:
            teacher = load_teacher(spec, place, precision)
        except NoDevice as e:
            if device[name] != "auto":
                raise ValueError(f"{name}: {e}. For this teacher say --device {name}=cpu") from e
            say(f"{name}: {e}; it runs on the CPU")
            place = "cpu"
            teacher = load_teacher(spec, place, precision)
        run.add(name, teacher, precision, place)
        if works:
            warn_if_slow(torch.device(place).type, precision)
    return run


def _worker(*given: Any) -> "Callable[[int], dict[str, Any]]":
    """In a worker on Ray: what labels a part, and returns what that has cost. given: as to `_loaded`."""
    return _loaded(*given).do


NOTHING: dict[str, Any] = {"images": 0, "flops": 0.0, "seconds": 0.0}
"""An account of costs that is still empty."""
ENCODING = 2
"""Batches whose answers may still be being encoded while the next one is asked about."""
SUSPECT = 8
"""Images in a row for which a teacher failed, after which it is asked about a plain picture."""
ACCOUNT = 10
"""Seconds between two records of what a labelling by a cluster has cost: one a part would keep the driver busy."""


def _batches(rows: "list[ImageRow]", chosen: list[int], batch_size: int) -> list[list[int]]:
    """Positions by batch: at most `batch_size` images and, of more than one, `BATCH_PIXELS` together."""
    batches: list[list[int]] = []
    held = 0
    for i in chosen:
        pixels = rows[i].height * rows[i].width
        if not batches or len(batches[-1]) == batch_size or held + pixels > BATCH_PIXELS:
            batches.append([])
            held = 0
        batches[-1].append(i)
        held += pixels
    return batches


class _Run:
    """Which parts of which label sets are missing, and the work of filling them."""

    def __init__(self, store: "Store", batch_size: int, threads: int, retry: bool, split: tuple[str, ...] = ()) -> None:
        self.store = store
        self.batch_size = batch_size
        self.threads = threads
        self.retry = retry
        self.split = split
        splits = {r.split for p in store.parts() for r in store.images(p, data=False)} if split else set()
        missing = [s for s in split if s not in splits]
        if missing:
            from polyteach.batches import no_split

            raise no_split(missing[0], splits)
        self.spent: dict[int, dict[str, Any]] = {}
        self.flops: dict[int, float | None] = {}
        self.fits: dict[int, int] = {}
        """By teacher, the most images that its memory was seen to be enough for, where it was not for a batch."""
        self.teachers: list[tuple[Teacher, dict[str, LabelSet]]] = []
        self.computed: dict[int, list[dict[str, str]]] = {}
        """By label set, what computed it (`devices.arithmetic`): one entry, or more where that changed on the way."""
        self.places: dict[int, str] = {}
        self.failed: dict[int, int] = {}
        """By teacher, how many images in a row it has failed for."""
        self.answered: dict[int, Tensor] = {}
        """By teacher, the smallest image that it has answered."""

    def add(self, name: str, teacher: "Teacher", precision: str, place: str) -> None:
        """Make or open the teacher's label sets: NAME, or NAME-OBJECTIVE where one task comes twice.

        place: the device that the teacher is on.
        """
        import polyteach
        from polyteach.devices import arithmetic

        source = self.store.ingested()
        images = {"source": source.get("source"), "licence": source.get("licence")}
        answered = [o.task for o in teacher.objectives.values()]
        about = {
            "spec": teacher.spec,
            "origin": teacher.origin,
            "sha256": teacher.sha256,
            "licence": teacher.licence,
            "learning_rate": teacher.learning_rate,
            "batch_size": teacher.batch_size,
        }
        if teacher.optimizer is not None:
            about["optimizer"] = teacher.optimizer
        sets = {}
        for key, objective in teacher.objectives.items():
            unique = name if answered.count(objective.task) == 1 else f"{name}-{key}"
            info = {
                "teacher": about,
                "precision": precision,
                "images": images,
                "polyteach": polyteach.__version__,
            }
            if self.split:  # another split under the same name would be half a label set
                info["split"] = list(self.split)
            sets[key] = self.store.create_set(objective.task, unique, objective.space, info)
            self.computed[id(sets[key])] = [arithmetic(place, precision)]
        self.teachers.append((teacher, sets))
        self.places[id(teacher)] = place

    def note(self, config: dict[str, Any], works: bool) -> None:
        """Write the resolved configuration of this run beside every label set that it fills.

        works: teachers are asked here, so that what computes is known.
        """
        from polyteach.files import write_json

        for teacher, sets in self.teachers:
            for labels in sets.values():
                file, old = labels.path / "label.json", labels.record()
                self.spent[id(labels)] = NOTHING | (old.get("compute") or {})
                mine, self.computed[id(labels)] = self.computed[id(labels)], old.get("computed") or []
                if works:
                    self.computed_by(labels, mine)
                costs = {"compute": self.spent[id(labels)], "teachers_compute": teacher.compute(labels.name)}
                write_json(file, config | {"computed": self.computed[id(labels)]} | costs)

    def computed_by(self, labels: "LabelSet", what: list[dict[str, str]]) -> None:
        """Add what else has computed labels of that set."""
        known = self.computed[id(labels)]
        known += [w for w in what if w not in known]

    def do(self, part: int) -> dict[str, Any]:
        """Fill what is missing of one part; returns what it has cost, by path of the label set."""
        from polyteach.progress import track

        mine = [labels for _, sets in self.teachers for labels in sets.values()]
        self.spent = {id(labels): dict(NOTHING) for labels in mine}
        with track("label", 0, "images", False) as bar:
            self._part(part, self.owed(part), bar)
        return {str(s.path): self.spent[id(s)] | {"computed": self.computed[id(s)]} for s in mine}

    def go_on_ray(
        self,
        progress: bool,
        address: str,
        given: tuple[Any, ...],
        workers: int,
        tries: int,
        timeout: int | float | None,
        gpus: int,
    ) -> None:
        """As `go`, by workers on Ray. given: arguments of `_loaded`. The others: of `cluster.work`."""
        import time
        from functools import partial

        from polyteach.cluster import work
        from polyteach.progress import track

        sets = {str(s.path.resolve()): s for _, mine in self.teachers for s in mine.values()}
        todo = [p for p in self.store.parts() if self.owed(p)]
        set_aside: list[int] = []
        told = time.monotonic()

        def done(part: int, costs: dict[str, Any]) -> None:
            nonlocal told
            for path, cost in costs.items():
                self.computed_by(sets[path], cost["computed"])
                account = self.spent[id(sets[path])]
                account["images"] += cost["images"]
                account["seconds"] = round(account["seconds"] + cost["seconds"], 3)
                known = account["flops"] is not None and cost["flops"] is not None
                account["flops"] = account["flops"] + cost["flops"] if known else None
            if time.monotonic() - told > ACCOUNT:
                self.account()
                told = time.monotonic()
            bar.advance(self.store.count(part), f"{len(set_aside)} parts set aside" if set_aside else None)

        def aside(part: int, reason: str) -> None:
            rows = self.store.images(part, data=False)
            chosen = [not self.split or r.split in self.split for r in rows]
            for labels in sets.values():
                if not labels.has(part):
                    labels.write(
                        part, [r.id for r in rows], [f"part set aside: {reason}" if c else None for c in chosen]
                    )
            set_aside.append(part)
            bar.advance(len(rows), f"{len(set_aside)} parts set aside")

        try:
            with track("label", sum(map(self.store.count, todo)), "images", progress) as bar:
                work(address, partial(_worker, *given), todo, done, aside, workers, tries, timeout, gpus)
        finally:
            self.account()
        if set_aside:
            say(
                f"{len(set_aside)} parts were set aside, their images are recorded as failed: "
                f"{', '.join(map(str, set_aside[:20]))}. Mend the cause, then run again with --retry"
            )

    def account(self) -> None:
        """Write what the labelling has cost so far, over all runs, beside the label sets."""
        from polyteach.files import write_json

        for _, sets in self.teachers:
            for labels in sets.values():
                new = {"compute": self.spent[id(labels)], "computed": self.computed[id(labels)]}
                write_json(labels.path / "label.json", labels.record() | new)

    def wants(self, labels: "LabelSet", part: int) -> bool:
        """Whether the part has to be (re)written for this set."""
        if not labels.has(part):
            return True
        return self.retry and "failed" in labels.states(part)

    def owed(self, part: int) -> "list[tuple[Teacher, dict[str, LabelSet]]]":
        """The teachers whose label sets want that part, with those sets."""
        work = [(t, {k: s for k, s in sets.items() if self.wants(s, part)}) for t, sets in self.teachers]
        return [(t, sets) for t, sets in work if sets]

    def go(self, progress: bool) -> None:
        """Fill what is missing, part by part; each part of each set is written once it is complete."""
        from polyteach.progress import track

        todo = [(p, work) for p in self.store.parts() if (work := self.owed(p))]
        with track("label", sum(self.store.count(p) for p, _ in todo), "images", progress) as bar:
            for n, (part, work) in enumerate(todo):
                for ahead, _ in todo[n + 1 : n + 2]:
                    self.store.soon(ahead)
                self._part(part, work, bar)
                self.account()

    def _part(self, part: int, work: "list[tuple[Teacher, dict[str, LabelSet]]]", bar: Any) -> None:
        """Ask the teachers about a part's images, and write it. Answers are encoded by threads as they come.

        So a device does not wait for the encoding, and no more than a few batches are held as they were answered: a
        picture's maps in float32 are a hundred times what is kept of them.
        """
        from concurrent.futures import Future, ThreadPoolExecutor

        rows = self.store.images(part)
        answers: dict[int, list[Answer | Future[dict[str, Any]]]] = {}
        wanted: list[bool] = [False] * len(rows)
        for _, sets in work:
            for labels in sets.values():
                fresh = [None if self.split and r.split not in self.split else "not done" for r in rows]
                old: list[Any] = _told(labels, part, rows) if labels.has(part) else list(fresh)
                answers[id(labels)] = old
                wanted = [w or isinstance(a, str) for w, a in zip(wanted, old, strict=True)]
        chosen = [i for i, w in enumerate(wanted) if w]
        encoding: deque[list[Future[dict[str, Any]]]] = deque()
        with ThreadPoolExecutor(self.threads, "encode") as pool:
            for batch in self._decoded(rows, chosen):
                encoding.append([])
                good = [(i, image) for i, image in batch if not isinstance(image, str)]
                for teacher, sets in work:
                    # a retry keeps what was answered, and asks a teacher only for what it owes
                    owed = {i for i, _ in batch if any(isinstance(answers[id(s)][i], str) for s in sets.values())}
                    asked = [(i, image) for i, image in good if i in owed]
                    given = self._timed(teacher, sets, [x for _, x in asked])
                    found = dict(zip((i for i, _ in asked), given, strict=True))
                    for i, image in batch:
                        refused = []
                        for key, labels in sets.items():
                            if not isinstance(answers[id(labels)][i], str):
                                continue
                            size = (rows[i].height, rows[i].width)
                            answer = image if isinstance(image, str) else _checked(found[i], key, size, labels)
                            refused.append(isinstance(answer, str))
                            if isinstance(answer, str):
                                answers[id(labels)][i] = answer
                            else:
                                answers[id(labels)][i] = future = pool.submit(_encoded, labels, answer)
                                encoding[-1].append(future)
                        if i in found:
                            self._count(teacher, sets, image, all(refused))
                if len(encoding) > ENCODING:
                    for future in encoding.popleft():
                        future.result()
                bar.advance(len(batch))
            bar.advance(len(rows) - len(chosen))
            for teacher, sets in work:
                self._works(teacher, sets)  # before failures are written that are not the images'
            for _, sets in work:
                for labels in sets.values():
                    kept = [a.result() if isinstance(a, Future) else labels.encode(a) for a in answers[id(labels)]]
                    labels.write_encoded(part, [r.id for r in rows], kept)

    def _count(self, teacher: "Teacher", sets: "dict[str, LabelSet]", image: Any, failed: bool) -> None:
        """Note that an image failed, or did not; after many in a row see whether the teacher works at all."""
        self.failed[id(teacher)] = self.failed.get(id(teacher), 0) + 1 if failed else 0
        if self.failed[id(teacher)] >= SUSPECT:
            self._works(teacher, sets)
        elif not failed and self._smaller(teacher, image):
            self.answered[id(teacher)] = image

    def _smaller(self, teacher: "Teacher", image: "Tensor") -> bool:
        known = self.answered.get(id(teacher))
        return known is None or image.numel() < known.numel()

    def _works(self, teacher: "Teacher", sets: "dict[str, LabelSet]") -> None:
        """Tell images that a teacher fails for from a teacher that works no longer, or never did.

        It is asked about an image that it has answered: a teacher may refuse pictures of a kind, such as those without
        a face. Before the first of those there is but a plain picture.

        Raises:
            Broken: it failed for the last images, and does for that one.
        """
        many = self.failed.get(id(teacher), 0)
        if many < 2:  # one image is one image
            return
        self.failed[id(teacher)] = 0
        known = self.answered.get(id(teacher))
        picture = _plain() if known is None else known
        [answer] = self._asked(teacher, [picture])
        size = (int(picture.shape[1]), int(picture.shape[2]))
        said = [_checked(answer, key, size, labels) for key, labels in sets.items()]
        reasons = [reason for reason in said if isinstance(reason, str)]
        if len(reasons) == len(said):
            raise Broken(
                f"{teacher.spec} on {self.places[id(teacher)]} failed for the last images ({many} in a row) and for "
                f"{'a plain picture' if known is None else 'one that it had answered,'} of {size[0]}x{size[1]}: "
                f"{reasons[0]}. {KEPT}"
            )

    def _timed(self, teacher: "Teacher", sets: "dict[str, LabelSet]", images: "list[Tensor]") -> list[Any]:
        """The teacher's answers; seconds and operations are added to the account of the sets, in equal shares."""
        import time

        from torch.nn import Module

        from polyteach.compute import counted

        if not images:
            return []
        accounts = [self.spent[id(s)] for s in sets.values()]
        start = time.monotonic()
        answers = self._asked(teacher, images)
        seconds = time.monotonic() - start
        if id(teacher) not in self.flops and not isinstance(answers[0], str):
            # the first image stands for all, and is asked about again: while torch counts it computes some operations
            # otherwise, so that answers would differ in their last bits between a run and one that goes on
            networks = any(isinstance(held, Module) for held in vars(teacher).values())
            self.flops[id(teacher)] = (
                counted(lambda: _ask(teacher, images[:1], self.places[id(teacher)]))[1] if networks else None
            )
        each = self.flops.get(id(teacher))
        for account in accounts:
            account["images"] += len(images)
            account["seconds"] = round(account["seconds"] + seconds / len(accounts), 3)
            if each is None or account["flops"] is None:
                account["flops"] = None
            else:
                account["flops"] += each * len(images) / len(accounts)
        return answers

    def _asked(self, teacher: "Teacher", images: "list[Tensor]") -> list[Any]:
        """The teacher's answers, in batches that its memory is enough for: halved where it is not, and remembered."""
        out: list[Any] = []
        while len(out) < len(images):
            most = self.fits.get(id(teacher), len(images))
            batch = images[len(out) : len(out) + most]
            answers = _ask(teacher, batch, self.places[id(teacher)])
            if answers is None:
                self.fits[id(teacher)] = most = max(len(batch) // 2, 1)
                say(f"{teacher.spec}: memory is not enough for {len(batch)} images; {most} from now on")
                continue
            out += answers
        return out

    def _decoded(self, rows: "list[ImageRow]", chosen: list[int]) -> "Iterator[list[tuple[int, Tensor | str]]]":
        """Batches of (position, image or the reason why there is none), decoded one batch ahead."""
        from concurrent.futures import ThreadPoolExecutor

        batches = _batches(rows, chosen, self.batch_size)
        pool = ThreadPoolExecutor(self.threads)
        try:
            ahead = [[pool.submit(self._image, rows[i]) for i in b] for b in batches[:1]]
            for n, batch in enumerate(batches):
                if n + 1 < len(batches):
                    ahead.append([pool.submit(self._image, rows[i]) for i in batches[n + 1]])
                yield list(zip(batch, (f.result() for f in ahead.pop(0)), strict=True))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _image(self, row: "ImageRow") -> "Tensor | str":
        from polyteach.images import BadImage

        try:
            return self.store.picture(row)
        except (OSError, BadImage) as e:
            return f"image: {e}"

    def report(self, score: float) -> None:
        """Per label set: how much was labelled, and whether it is worth training on."""
        from polyteach.batches import idle_sets
        from polyteach.tables import table, width_of, wrapped
        from polyteach.tasks.contract import Policy

        width = width_of(sys.stderr)
        empty = []
        rows: list[list[str | list[str]]] = []
        for _, sets in self.teachers:
            for labels in sets.values():
                n, failed, means = labels.statistics(score)
                if failed and not n:
                    reason = next(a for p in labels.parts() for a in labels.read(p) if isinstance(a, str))
                    empty.append(f"{labels.task}/{labels.name}: all {failed} images failed, the first with {reason!r}")
                text = [f"{k} {v:.3g}" for k, v in means.items()]
                rows.append([f"{labels.task}/{labels.name}", str(n), str(failed), text])
        head = ("label set", "images", "failed", "mean over labelled images")
        say(*table(head, rows, width).split("\n"))
        try:
            idle = idle_sets(self.store)
        except ValueError as e:  # another set of the store, which is not this labelling's business
            idle = {}
            say(f"which of the store's labels would be learned cannot be told: {e}")
        for labels in (s for _, sets in self.teachers for s in sets.values()):
            name, lines = f"WARNING: {labels.task}/{labels.name}", []
            if why := idle.get((labels.task, labels.name)):
                lines += wrapped(f"{name} {why}", width)
            if doubt := labels.doubt(Policy(score=score)):
                lines += wrapped(f"{name} can teach hardly anything: {doubt}", width)
            if lines:
                say(*lines)
        if empty:
            raise ValueError("; ".join(empty) + ". Mend the cause, then run again with --retry")


KEPT = "What was labelled before is kept: mend the cause, then give the same command again"


def _ask(teacher: "Teacher", images: "Sequence[Tensor]", place: str) -> list[Any] | None:
    """The teacher's answers; when a batch fails, image by image, so that one bad image costs no other its label.

    None where memory is not enough for that many.

    Raises:
        Broken: the device at `place` answers no more.
    """
    try:
        answers = list(teacher(images))
        if len(answers) != len(images):
            raise ValueError(f"{len(answers)} answers for {len(images)} images")
        return answers
    except Exception as e:
        memory = _memory(e)
        if not memory and _dead(e, place):
            raise Broken(f"{teacher.spec} on {place}: the device failed, {_said(e)}. {KEPT}") from e
        if len(images) == 1:
            return [f"teacher: {_said(e)}"]
        if memory:
            return None
    return [answer for image in images for answer in _ask(teacher, [image], place) or []]


def _said(error: Exception) -> str:
    """Kind and message, no longer than a person reads: some libraries' are pages."""
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= 500 else f"{text[:500]} ..."


def _dead(error: Exception, place: str) -> bool:
    """Whether the device is of no more use to this process, rather than one image having been too much for it.

    After some errors every call of CUDA fails until the process ends; after others it works on.
    """
    import re

    import torch

    kind = torch.device(place).type
    if kind == "cuda" and torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize(torch.device(place))
        except RuntimeError:
            return True
        return False
    said = re.search(r"(CUDA|HIP) (error|failure)|device-side assert", str(error))
    return isinstance(error, torch.AcceleratorError) or said is not None


def _memory(error: Exception) -> bool:
    """Whether it says that memory was not enough, on a GPU or here."""
    import gc
    import re

    import torch

    found = isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(
        # torch on the CPU, CUDA's own, cuBLAS, ONNX Runtime
        re.search("not enough memory|out of memory|STATUS_ALLOC_FAILED|Failed to allocate memory", str(error))
    )
    if found:
        error.__traceback__ = None  # it holds what was computed so far
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return found


def _plain() -> "Tensor":
    """A picture that no teacher has a reason to refuse: coloured squares, (3, 256, 256) uint8."""
    import torch

    squares = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return squares.repeat_interleave(32, 1).repeat_interleave(32, 2)


def _checked(answer: Any, key: str, size: tuple[int, int], labels: "LabelSet") -> "Answer":
    """The answer made tidy for an image of (height, width) `size`, or why it cannot be used."""
    from polyteach.tasks import load_task

    if isinstance(answer, str):
        return answer
    try:
        if key not in answer:
            return None
        target: Answer = load_task(labels.task).check(answer[key], size, labels.space)
    except ValueError as e:
        return f"teacher: {e}"
    except Exception as e:  # an answer of another shape or type than a target's makes any operation fail
        return f"teacher: {_said(e)}"
    return target


def _told(labels: "LabelSet", part: int, rows: "list[ImageRow]") -> "list[Answer]":
    """What a part says of its images already; where that is broken, a reason, so that it is asked for again."""
    from polyteach.store import Unfit

    found = labels.fitted(labels.table(part), rows)
    return [f"broken on the disk: {answer}" if isinstance(answer, Unfit) else answer for answer in found]


def _encoded(labels: "LabelSet", answer: "Answer") -> dict[str, Any]:
    """The answer as the store keeps it, or the reason why it cannot."""
    try:
        return labels.encode(answer)
    except Exception as e:
        return labels.encode(f"teacher: its answer cannot be kept: {_said(e)}")
