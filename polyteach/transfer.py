"""Transfer: a representation and a downstream store into scores, by the same protocol for every representation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from polyteach.arguments import listed
from polyteach.limits import MAX_PIXELS, Limits
from polyteach.texts import say

if TYPE_CHECKING:
    from torch import Tensor

    from polyteach.batches import Plan, Samples
    from polyteach.evaluate import Scores
    from polyteach.fields import Fields
    from polyteach.loop import Settings
    from polyteach.student import Student

TRAINED = ("finetune", "frozen")
"""Modes that train a network; the others are probes that tasks offer."""
LRS = {"sgd": (0.003, 0.01, 0.03), "adamw": (1e-4, 3e-4, 1e-3)}
STEPS = (1000, 4000)
NEW: dict[str, Any] = {"max_pixels": MAX_PIXELS}
"""Options that transfers of earlier versions do not record, and what those did."""
FREE = ("out", "device", "workers", "progress", "seeds", "name", "allow_remote")
"""Options that an interrupted or finished transfer may change: more seeds add to it."""


def transfer(
    store: tyro.conf.Positional[str | Path],
    *,
    out: str | Path,
    name: str | None = None,
    init: str | Path | None = None,
    backbone: str | None = None,
    channels: int | None = None,
    protocol: str | None = None,
    downstream: str | None = None,
    task: str | None = None,
    labels: str = "people",
    train_split: Sequence[str] = (),
    validation_split: Sequence[str] = (),
    test_split: Sequence[str] = (),
    held_out: float | None = None,
    allow_remote: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    metric: str | None = None,
    mode: str = "finetune",
    parts: Sequence[str] = ("backbone", "pyramid"),
    lrs: Sequence[float] = (),
    steps: Sequence[int] = (),
    seeds: Sequence[int] = (0, 1, 2),
    shots: int | None = None,
    fraction: float | None = None,
    size: int | None = None,
    batch_size: int | None = None,
    optimizer: str = "sgd",
    weight_decay: float | None = None,
    clip: float = 10.0,
    scale: tuple[float, float] = (0.5, 2.0),
    mirror: float = 0.5,
    augment: float = 0.0,
    resamples: int = 1000,
    examples: int = 4,
    keep: bool = False,
    device: str = "auto",
    precision: str = "fp32",
    channels_last: bool = False,
    workers: int = 2,
    progress: bool = True,
) -> str:
    """Fine-tune a representation on one labelled downstream task, and score it on images it has not seen.

    Every representation gets the same network, images and sweep. With the first seed, each learning rate is tried
    with each number of steps; the best on validation is trained with the other seeds, and each of those is scored on
    the test images once. A representation is scored with its backbone alone, and with backbone and pyramid where its
    pyramid was trained; heads are always new.

    Into `out` go cells/ (one folder per trained network), examples/ (image, truth, prediction) and at last
    transfer.json, which `polyteach report` reads. A transfer that was stopped goes on when the same command is given
    again: no finished cell is trained twice. A finished one takes up further seeds.

    Args:
        store: the downstream store, a folder or a URL (docs/objects.md), with people's labels and splits.
        out: folder of the result.
        name: of the representation, in reports; without it the name of the run's folder, "scratch" without `init`.
        init: the representation: a run's folder, "pretrained" (timm's hub), a state dict of the backbone; none, to
            train from scratch.
        backbone: a timm model; without it the run's own, or resnet50.
        channels: of every pyramid level; without it the run's own, or 256.
        protocol: how the field measures on a known dataset: task, splits, metric, size, sweep; options given here
            win. NAME-few is its variant with few labels. An unknown name lists them.
        downstream: name of the downstream set, in reports; without it the protocol's, or the store's.
        task: what is learned, where the store has labels for several.
        labels: the label set to learn and to score by.
        train_split: splits to train on; "train" without it.
        validation_split: splits to choose on. Without it, a share of the training images.
        test_split: splits to score on; "test" without it.
        held_out: share of the training images that is held out for validation; 0.1 without it.
        allow_remote: where else than from files of this machine and object storage images may be fetched: a protocol
            (http, https), or the beginning of URLs, also of servers in this machine's own network (docs/store.md).
        max_pixels: refuse images with more pixels than this, whatever the store says of them.
        metric: the score that decides, by name; the task's first without it.
        mode: finetune (end to end), frozen (what comes from the representation stays as it is; for image classes
            this trains one linear layer), or, for image classes, knn (nearest neighbours) or linear (logistic
            regression on pooled features).
        parts: what is taken from the representation: backbone, pyramid (which means both).
        lrs: learning rates to sweep; by the optimiser without it.
        steps: numbers of steps to sweep.
        seeds: of heads, batches and, with a budget, of the choice of images; the first one sweeps.
        shots: train on about this many images per class.
        fraction: train on this share of the training images.
        size: side of the square views in pixels, a multiple of 32; 512 without it.
        batch_size: images per step; 16 without it.
        optimizer: sgd (momentum 0.9) or adamw.
        weight_decay: not on normalisation and biases; without it 4e-5 for sgd, 0.05 for adamw.
        clip: largest norm of the gradient; 0 for no limit.
        scale: least and largest scale of the random views.
        mirror: share of the views that are mirrored.
        augment: magnitude of RandAugment's photometric operations, 0 (off) to 10.
        resamples: draws of what each test's score may have been with other test images, by the jackknife, for
            intervals; 0 for none.
        examples: test images that are drawn.
        keep: keep the weights of the networks that were tested.
        device: auto (CUDA where there is one, else the CPU), cpu, cuda:0, ...
        precision: fp32, or bf16 or fp16 by autocast.
        channels_last: memory layout that is quicker for convolutions in bf16 and fp16.
        workers: processes that read and decode images.
        progress: show progress.

    Returns:
        The folder of the result.

    Raises:
        ValueError: what was given does not exist or does not fit, or `out` holds another transfer.
        BlockingIOError: another process works in `out`.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint.

    Examples:
        polyteach transfer voc --init run --protocol voc-detection --out scores/student-voc

        polyteach transfer voc --protocol voc-detection --out scores/scratch-voc

        polyteach transfer store --init run --out scores/few --shots 10 --seeds 0 1 2 3 4 --lrs 0.01 --steps 500 2000

        polyteach transfer store --init run --mode knn --out scores/knn
    """
    arguments = dict(locals())
    from polyteach.files import write_json

    # paths as the text that the record holds
    arguments |= {k: str(arguments[k]) for k in ("store", "out", "init") if arguments[k] is not None}
    arguments["allow_remote"] = Limits(listed(allow_remote), max_pixels).allow_remote
    folder = Path(out)
    given = _resolved(arguments)
    job = _Job(given)
    if given["mode"] not in TRAINED:
        _unused(arguments)
    job.check()
    config = job.config()
    if (folder / "config.json").exists():
        _same(_read(folder / "config.json", "options", "data"), config, folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{out} exists and is no transfer; choose another folder")
    done = folder / "transfer.json"
    if done.exists():
        missing = set(given["seeds"]) - set(_seeds(_read(done)))
        if not missing:
            raise ValueError(f"{out} holds this transfer, finished; choose another folder, or further --seeds")
    write_json(folder / "config.json", config)
    write_json(done, job.run())
    if progress:
        _say(_read(done).value, done)
    return str(out)


def _resolved(a: dict[str, Any]) -> dict[str, Any]:
    """The arguments with a protocol's values and defaults where none were given.

    Raises:
        ValueError: an unknown protocol or mode, or numbers out of range; says which are allowed.
    """
    from polyteach.datasets import protocols
    from polyteach.devices import PRECISIONS
    from polyteach.loop import OPTIMIZERS
    from polyteach.names import unknown_name
    from polyteach.storage import to_path
    from polyteach.student import DESCRIPTION, describe_student

    a = dict(a)
    for key in ("train_split", "validation_split", "test_split", "parts"):
        a[key] = (a[key],) if isinstance(a[key], str) else tuple(a[key])
    fallback: dict[str, Any] = {
        "train_split": ("train",),
        "test_split": ("test",),
        "size": 512,
        "batch_size": 16,
        "lrs": LRS.get(a["optimizer"], ()),
        "steps": STEPS,
        "weight_decay": 0.05 if a["optimizer"] == "adamw" else 4e-5,
        "downstream": to_path(a["store"]).resolve().name,
    }
    if a["protocol"] is not None:
        known = protocols()
        base = a["protocol"].removesuffix("-few")
        if base not in known:
            raise unknown_name("protocol", a["protocol"], sorted(known), "there are, each also as NAME-few,")
        p = known[base]
        fallback |= {k: getattr(p, k) for k in ("task", "metric", "size", "lrs", "steps", "batch_size")}
        if a["optimizer"] != "sgd":  # its learning rates are those of SGD
            fallback["lrs"] = LRS.get(a["optimizer"], ())
        fallback |= {"train_split": p.train, "test_split": p.test, "downstream": a["protocol"]}
        if isinstance(p.validation, tuple):
            if a["held_out"] is None:
                fallback["validation_split"] = p.validation
        elif not a["validation_split"]:
            fallback["held_out"] = p.validation
        if base != a["protocol"] and a["shots"] is None and a["fraction"] is None:
            fallback |= p.few
    for key, value in fallback.items():
        if a[key] is None or a[key] == ():
            a[key] = value
    if a["held_out"] is None and not a["validation_split"]:
        a["held_out"] = 0.1
    run = a["init"] if a["init"] and (Path(a["init"]) / DESCRIPTION).exists() else None
    about = describe_student(run) if run else {}
    a["backbone"] = a["backbone"] or about.get("backbone", "resnet50")
    a["channels"] = a["channels"] or about.get("channels", 256)
    a["name"] = a["name"] or ("scratch" if a["init"] is None else Path(a["init"]).resolve().name)
    if a["mode"] not in TRAINED:
        a["lrs"], a["steps"], a["parts"] = (), (), ("backbone",)
    for key in ("lrs", "steps", "seeds", "parts", "scale"):
        a[key] = list(a[key])
        if not a[key] and (key in ("seeds", "parts") or a["mode"] in TRAINED):
            raise ValueError(f"{key}: give at least one")
        if len(set(a[key])) < len(a[key]) and key != "scale":
            raise ValueError(f"{key}: {a[key]} has a value twice")
    if a["optimizer"] not in OPTIMIZERS:
        raise unknown_name("optimizer", a["optimizer"], OPTIMIZERS)
    if a["precision"] not in PRECISIONS:
        raise unknown_name("precision", a["precision"], PRECISIONS)
    checks: list[tuple[str, bool, str]] = [
        ("parts", set(a["parts"]) <= {"backbone", "pyramid"}, "backbone or pyramid"),
        ("size", a["size"] >= 32 and a["size"] % 32 == 0, "a multiple of 32"),
        ("lrs", all(x > 0 for x in a["lrs"]), "above 0"),
        ("steps", all(x > 0 for x in a["steps"]), "above 0"),
        ("seeds", all(x >= 0 for x in a["seeds"]), "0 or more"),
        ("shots", a["shots"] is None or a["shots"] > 0, "above 0"),
        ("fraction", a["fraction"] is None or 0 < a["fraction"] <= 1, "above 0 and at most 1"),
        ("shots", a["shots"] is None or a["fraction"] is None, "given without fraction: one budget at a time"),
        ("held_out", a["held_out"] is None or 0 < a["held_out"] < 1, "between 0 and 1"),
        ("held_out", a["held_out"] is None or not a["validation_split"], "given without validation_split"),
        ("batch_size", a["batch_size"] > 0, "above 0"),
        ("workers", a["workers"] >= 0, "0 or more"),
        ("mirror", 0 <= a["mirror"] <= 1, "0 to 1"),
        ("augment", 0 <= a["augment"] <= 10, "0 to 10"),
        ("scale", 0 < a["scale"][0] <= a["scale"][1], "LOW HIGH with 0 < LOW <= HIGH"),
        ("resamples", a["resamples"] >= 0, "0 or more"),
        ("examples", a["examples"] >= 0, "0 or more"),
    ]
    for key, fine, allowed in checks:
        if not fine:
            raise ValueError(f"{key} must be {allowed}; got {a[key]}")
    return a


def _unused(a: dict[str, Any]) -> None:
    """Raises:
    ValueError: a probe was given an option of training, which it would not look at.
    """
    import inspect

    defaults = {k: p.default for k, p in inspect.signature(transfer).parameters.items()}
    for key in ("parts", "lrs", "steps", "optimizer", "weight_decay", "clip", "scale", "mirror", "augment", "keep"):
        given = tuple(a[key]) if isinstance(a[key], list | tuple) else a[key]
        if given != defaults[key]:
            raise ValueError(
                f"{key} is for modes {' and '.join(TRAINED)}; mode {a['mode']} trains nothing: leave it out"
            )


class _Job:
    """One representation on one downstream set."""

    def __init__(self, given: dict[str, Any]) -> None:
        from polyteach.batches import plan
        from polyteach.devices import find_device
        from polyteach.evaluate import score_names
        from polyteach.names import unknown_name
        from polyteach.store import Store
        from polyteach.tasks import load_task

        self.given = given
        self.folder = Path(given["out"])
        self.device = find_device(given["device"])
        store = Store.open(given["store"], limits=Limits(tuple(given["allow_remote"]), given["max_pixels"]))
        self.task_name = given["task"] or _only_task(store, given["labels"])

        def chosen(splits: Sequence[str], ids: set[str] | None = None) -> "Plan":
            return plan([store], [self.task_name], [given["labels"]], splits, ids)

        whole = chosen(given["train_split"])
        if len(whole.objectives) > 1:
            raise ValueError(f"labels {given['labels']!r} have several objectives: {', '.join(whole.objectives)}")
        (self.objective,) = whole.objectives
        self.task = load_task(self.task_name)
        names = score_names(whole.objectives[self.objective])
        self.metric: str = given["metric"] or names[0]
        if self.metric not in names:
            raise unknown_name("metric", self.metric, names, f"{self.task_name} has")
        self.higher = self.metric not in self.task.lower_is_better
        if given["mode"] not in (*TRAINED, *self.task.probes):
            raise unknown_name("mode", given["mode"], (*TRAINED, *self.task.probes), f"{self.task_name} has")
        ids = whole.ids()
        if given["validation_split"]:
            self.validation = chosen(given["validation_split"])
        else:
            held = set(ranked(ids, "validation")[: max(1, round(given["held_out"] * len(ids)))])
            self.validation = chosen(given["train_split"], held)
            ids = [i for i in ids if i not in held]
        if not ids:
            raise ValueError(f"held_out {given['held_out']} of {len(whole)} training images leaves none to train on")
        self.test = chosen(given["test_split"])
        self.train_ids = ids
        for a, b, first, second in (
            ("training", "test", set(ids), set(self.test.ids())),
            ("validation", "test", set(self.validation.ids()), set(self.test.ids())),
            ("training", "validation", set(ids), set(self.validation.ids())),
        ):
            both = first & second
            if both:
                raise ValueError(f"{len(both)} images are in both the {a} and the {b} set, {min(both)!r} among them")
        self.chosen = chosen
        self._drawn: dict[int, Plan] = {}

    def train(self, seed: int) -> "Plan":
        """The training images within the budget; with one, each seed draws its own, a smaller one inside a larger."""
        g = self.given
        if g["shots"] is None and g["fraction"] is None:
            seed = -1
        if seed not in self._drawn:
            everything = self.chosen(g["train_split"], set(self.train_ids))
            ids = self.train_ids
            if g["fraction"] is not None:
                ids = ranked(ids, str(seed))[: max(1, round(g["fraction"] * len(ids)))]
            elif g["shots"] is not None:
                ids = self._per_class(everything, seed, g["shots"])
            self._drawn[seed] = self.chosen(g["train_split"], set(ids))
        return self._drawn[seed]

    def _per_class(self, plan: "Plan", seed: int, shots: int) -> list[str]:
        """Images in a random order, each taken if it shows a class that has fewer than `shots` images so far."""
        from polyteach.batches import Augment, Samples
        from polyteach.tasks.contract import Policy

        samples = Samples(plan, Augment((32, 32)), Policy(), 0)
        shown = {id: self.task.classes(samples.target(i, self.objective)) for i, id in enumerate(plan.ids())}
        if not any(shown.values()):
            raise ValueError(f"shots: {self.task_name} has no classes to count images of; give --fraction")
        counts: dict[int, int] = {}
        taken = []
        for id in ranked(list(shown), str(seed)):
            if any(counts.get(c, 0) < shots for c in shown[id]):
                taken.append(id)
                for c in shown[id]:
                    counts[c] = counts.get(c, 0) + 1
        return taken

    def config(self) -> dict[str, Any]:
        """Everything that made the scores, as JSON gives it back."""
        import json

        import polyteach
        from polyteach.batches import digest
        from polyteach.files import sha256
        from polyteach.student import WEIGHTS

        g = self.given
        init = Path(g["init"]) if g["init"] not in (None, "pretrained") else None
        file = init / WEIGHTS if init and init.is_dir() else init
        config = {
            "verb": "transfer",
            "polyteach": polyteach.__version__,
            "options": g,
            "init_sha256": sha256(file) if file and file.is_file() else None,
            "data": {
                "train": digest(self.train_ids),
                "validation": digest(self.validation.ids()),
                "test": digest(self.test.ids()),
                "classes": list(self.test.objectives[self.objective].space.names),
            },
        }
        plain: dict[str, Any] = json.loads(json.dumps(config))
        return plain

    def check(self) -> None:
        """Whatever would be refused later, before anything is written.

        Raises:
            ValueError: a representation that cannot be had or does not fit, or settings that cannot be met here.
        """
        g = self.given
        for lr in g["lrs"]:
            for steps in g["steps"]:
                self._settings(lr, steps, g["seeds"][0])
        for part in self.brought():
            self._student(part, g["seeds"][0])

    def brought(self) -> list[str]:
        """Which of the wanted parts the representation has been trained to bring."""
        from polyteach.student import PARTS, describe_student

        init = self.given["init"]
        trained = ("backbone",)
        if init is not None and Path(init).is_dir():
            trained = tuple(describe_student(init).get("trained", PARTS))
        wanted = [p for p in self.given["parts"] if p in trained]
        if "backbone" in wanted and not any(level.startswith("p") for level in self.task.reads):
            wanted = ["backbone"]  # the head reads no pyramid: with it the same network would be trained twice
        if not wanted:
            raise ValueError(f"parts: {init} has no trained {' or '.join(self.given['parts'])}; it has {trained}")
        return wanted

    def run(self) -> dict[str, Any]:
        """Train and score what is not done yet; returns what transfer.json says."""
        probe = self.given["mode"] not in TRAINED
        results = [self._probed() if probe else self._swept(p) for p in self.brought()]
        return self._summary(results)

    # --- training ---

    def _swept(self, part: str) -> dict[str, Any]:
        g = self.given
        grid = [(lr, n) for lr in g["lrs"] for n in g["steps"]]
        first, *others = g["seeds"]
        names = {(lr, n, s): f"{part}-lr{lr!r}-steps{n}-seed{s}" for lr, n in grid for s in g["seeds"]}
        total = len(grid) + len(others)
        sweep = []
        for i, (lr, n) in enumerate(grid, 1):
            sweep.append(self._cell(names[lr, n, first], part, lr, n, first, f"{i}/{total}"))
        able = [c for c in sweep if c["validation"] is not None]
        if not able:
            raise ValueError(f"every cell of the sweep failed; the first: {sweep[0]['failed']}")
        best = max(able, key=lambda c: c["validation"] if self.higher else -c["validation"])
        lr, n = best["lr"], best["steps"]
        for cell in sweep:
            if cell is not best:
                self._forget(names[cell["lr"], cell["steps"], first])
        tests = []
        for i, seed in enumerate(g["seeds"]):
            name = names[lr, n, seed]
            about = self._cell(name, part, lr, n, seed, f"{len(grid) + i}/{total}")
            if about["validation"] is None:  # another seed diverged: it is shown as failed, and no mean is given
                nothing = {
                    "seed": seed,
                    "scores": {self.metric: None},
                    "resamples": [],
                    "left_out": [],
                    "unreadable": [],
                }
                failed = {"failed": about["failed"]} | {k: about[k] for k in ("curve", "seconds", "images")}
                tests.append(nothing | failed)
            else:
                tests.append(self._tested(name, seed, about))
            if not g["keep"]:
                self._forget(name)
        return self._result(part, {"lr": lr, "steps": n}, sweep, tests)

    def _result(
        self, part: str, chosen: dict[str, Any], sweep: list[dict[str, Any]], tests: list[dict[str, Any]]
    ) -> dict[str, Any]:
        from statistics import fmean, stdev

        from polyteach.jackknife import interval

        values = [t["scores"][self.metric] for t in tests]
        usable = all(v is not None for v in values)
        # null where the metric is undefined: then there is no interval, and `report` says why; nor is there with a test
        # of an older version, whose resamples were drawn otherwise
        drawn = [v for t in tests for v in t["resamples"]]
        alike = len({("left_out" in t, len(t["resamples"])) for t in tests}) == 1
        paired = zip(*(t["resamples"] for t in tests), strict=True) if usable and alike and None not in drawn else ()
        means = [fmean(v) for v in paired]
        return {
            "parts": part,
            "chosen": chosen,
            "sweep": sweep,
            "tests": tests,
            "mean": fmean(values) if usable else None,
            "spread": stdev(values) if usable and len(values) > 1 else None,
            "interval": interval(means) if means else None,
        }

    def _cell(self, name: str, part: str, lr: float, steps: int, seed: int, count: str) -> dict[str, Any]:
        """Train one network and score it on validation, unless that is done; returns its cell.json."""
        import math
        import shutil

        from polyteach.files import write_json
        from polyteach.loop import NonFinite, logged
        from polyteach.student import save_student

        g, cell = self.given, self._place(name)
        if (cell / "cell.json").exists():
            shutil.rmtree(cell / "checkpoints", ignore_errors=True)  # of a run that was stopped just before it did so
            return _trained(cell / "cell.json")
        if g["progress"]:
            say(f"{g['name']} on {g['downstream']}, {count}: {name}")
        about: dict[str, Any] = {"lr": lr, "steps": steps, "seed": seed, "validation": None, "failed": None}
        about["unreadable"] = []
        student = self._student(part, seed)
        settings = self._settings(lr, steps, seed)
        samples = self._samples(seed)
        each = self._flops(student, samples)
        try:
            self._fit(student, samples, settings, cell)
            found = self._score(student, self.validation, 0)
            score, about["unreadable"] = found.scores[self.metric], [list(f) for f in found.failed]
            if math.isfinite(score):
                about["validation"] = score
            else:
                about["failed"] = f"{self.metric} is undefined on the validation images"
        except NonFinite as e:
            about["failed"] = str(e)
        # where already the first step's loss is not finite, there is none
        lines = logged(log) if (log := cell / "log.jsonl").exists() and log.stat().st_size else []
        about["seconds"] = lines[-1].number("seconds") if lines else 0.0
        about["images"] = sum(line.count("images", low=0) for line in lines)
        about["flops"] = None if each is None else each * about["images"]
        about["curve"] = _thinned([[line.count("step"), line.number("loss")] for line in lines])
        trained = {"optimizer": g["optimizer"], "learning_rate": lr, "batch_size": g["batch_size"]}
        save_student(student, cell, {"size": [g["size"]] * 2} | trained)
        write_json(cell / "cell.json", about)
        shutil.rmtree(cell / "checkpoints", ignore_errors=True)
        return about

    def _student(self, part: str, seed: int) -> "Student":
        """The network with new heads, and the representation's weights in `part`, drawn anew by the seed elsewhere."""
        import torch

        from polyteach.student import Student

        g = self.given
        taken = ("backbone", "pyramid") if part == "pyramid" else ("backbone",)
        objectives = {self.objective: self.test.objectives[self.objective]}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student = Student(g["backbone"], objectives, g["channels"], g["init"], taken)
        return student.freeze(taken) if g["mode"] == "frozen" else student

    def _settings(self, lr: float, steps: int, seed: int) -> "Settings":
        from polyteach.loop import Settings, check

        g = self.given
        settings = Settings(
            steps=steps,
            optimizer=g["optimizer"],
            lr=lr,
            weight_decay=g["weight_decay"],
            warmup=min(1000, steps // 10),
            clip=g["clip"],
            ema=0.0,
            seed=seed,
            device=self.device,
            precision=g["precision"],
            channels_last=g["channels_last"],
            progress=g["progress"],
        )
        check(settings)
        return settings

    def _samples(self, seed: int) -> "Samples":
        from polyteach.batches import Augment, Samples
        from polyteach.tasks.contract import Policy

        g = self.given
        augment = Augment((g["size"], g["size"]), (g["scale"][0], g["scale"][1]), g["mirror"], g["augment"])
        return Samples(self.train(seed), augment, Policy(), seed)

    def _flops(self, student: "Student", samples: "Samples") -> float | None:
        """Operations that training takes per image."""
        from polyteach.batches import batches
        from polyteach.compute import COUNTED, step_flops

        batch = next(iter(batches(samples, min(COUNTED, self.given["batch_size"]), 0, 1)))
        return step_flops(student, batch.images, batch.targets)

    def _fit(self, student: "Student", samples: "Samples", settings: "Settings", cell: "Path") -> None:
        from polyteach.batches import REJECTS, batches, explained, noted
        from polyteach.loop import Mixture, fit

        g = self.given
        cell.mkdir(parents=True, exist_ok=True)

        def stream(start: int) -> Any:
            pin = settings.device.startswith("cuda")
            found = batches(samples, g["batch_size"], start, settings.steps, g["workers"], pin)
            return noted(found, cell / REJECTS)

        with explained(g["workers"]):
            fit(student, Mixture({self.objective: 1.0}, learned=False), stream, settings, cell, amounts=student.amounts)

    # --- scoring ---

    def _score(self, student: "Student", plan: "Plan", resamples: int) -> "Scores":
        import torch

        from polyteach.devices import PRECISIONS
        from polyteach.evaluate import evaluate

        g = self.given
        kind = torch.device(self.device).type

        def answer(images: "list[Tensor]") -> list[Any]:
            with torch.autocast(kind, PRECISIONS[g["precision"]], enabled=g["precision"] != "fp32"):
                return [a[self.objective] for a in student.answer(images, (g["size"], g["size"]))]

        return evaluate(
            answer, plan, self.objective, metric=self.metric, resamples=resamples, batch_size=g["batch_size"]
        )

    def _tested(self, name: str, seed: int, about: dict[str, Any]) -> dict[str, Any]:
        """The chosen network's scores on the test images: made once, then read."""
        from polyteach.files import write_json
        from polyteach.student import load_student

        cell = self._place(name)
        if not (cell / "test.json").exists():
            student = load_student(cell, self.device)
            scores = self._score(student, self.test, self.given["resamples"])
            if seed == self.given["seeds"][0]:
                self._draw(student, name.partition("-")[0])
            write_json(cell / "test.json", _test(scores, seed))
        return _score_of(cell / "test.json", self.metric) | {k: about[k] for k in ("curve", "seconds", "images")}

    def _place(self, name: str) -> "Path":
        """The folder of a network, in which there is to be written: not behind a link."""
        from pathlib import Path

        from polyteach.storage import below

        return Path(str(below(self.folder, "cells", name)))

    def _forget(self, name: str) -> None:
        """The weights of a network that nothing reads any more; its numbers stay."""
        for file in self._place(name).glob("student.*"):
            file.unlink()

    def _draw(self, student: "Student", part: str) -> None:
        """Some test images: as they are, with the truth, and with the prediction."""
        import torch
        from torchvision.transforms.v2.functional import to_pil_image

        from polyteach.batches import Augment, Samples
        from polyteach.files import replacing
        from polyteach.storage import below
        from polyteach.tasks.contract import Policy

        n, wanted = len(self.test), min(self.given["examples"], len(self.test))
        samples = Samples(self.test, Augment((32, 32)), Policy(), 0)
        space = self.test.objectives[self.objective].space
        size = self.given["size"]
        for k in range(wanted):
            image = (2 * k + 1) * n // (2 * wanted)
            _, pixels = samples.picture(image)
            if isinstance(pixels, str):
                continue
            guess = student.answer([pixels], (size, size))[0][self.objective]
            views = [
                pixels,
                *(self.task.draw(pixels, t, space) for t in (samples.target(image, self.objective), guess)),
            ]
            with replacing(below(self.folder, "examples") / f"{part}-{k}.png") as temporary:
                to_pil_image(torch.cat(views, 2)).save(temporary, format="png")

    # --- probes ---

    def _probed(self) -> dict[str, Any]:
        """Nearest neighbours or a linear probe on pooled features; every setting is tried on validation."""
        import time

        from polyteach.files import write_json

        g, probe = self.given, self.task.probes[self.given["mode"]]
        student = self._student("backbone", g["seeds"][0]).to(self.device).eval()
        start = time.monotonic()
        known: dict[str, Any] = {}

        def answer(setting: int | float, seed: int) -> Any:
            key = f"{seed}" if g["shots"] or g["fraction"] else ""
            if key not in known:
                known[key] = self._features(student, self.train(seed))
            features, targets = known[key]
            fitted = probe.fit(features, targets, setting)
            return lambda images: fitted(self._pooled(student, images))

        first = g["seeds"][0]
        sweep = []
        for setting in probe.settings:
            cell = self._place(f"{g['mode']}-{setting!r}-seed{first}")
            if not (cell / "cell.json").exists():
                score = self._answered(answer(setting, first), self.validation, 0).scores[self.metric]
                about = {"setting": setting, "seed": first, "validation": score, "failed": None}
                write_json(cell / "cell.json", about | {"seconds": round(time.monotonic() - start, 3), "images": 0})
                start = time.monotonic()
            sweep.append(_probe(cell / "cell.json", setting))
        best = max(sweep, key=lambda c: c["validation"] if self.higher else -c["validation"])["setting"]
        tests = []
        for seed in g["seeds"] if g["shots"] or g["fraction"] else g["seeds"][:1]:
            file = self._place(f"{g['mode']}-{best!r}-seed{seed}") / "test.json"
            if not file.exists():
                scores = self._answered(answer(best, seed), self.test, g["resamples"])
                write_json(file, _test(scores, seed) | {"curve": [], "seconds": 0.0, "images": 0})
            tests.append(_score_of(file, self.metric))
        return self._result("backbone", {"setting": best}, sweep, tests)

    def _answered(self, answer: Any, plan: "Plan", resamples: int) -> "Scores":
        from polyteach.evaluate import evaluate

        return evaluate(
            answer,
            plan,
            self.objective,
            metric=self.metric,
            resamples=resamples,
            batch_size=self.given["batch_size"],
        )

    def _pooled(self, student: "Student", images: "list[Tensor]") -> "Tensor":
        """Features (N, C) of whole images: C5, averaged."""
        import torch

        from polyteach.devices import PRECISIONS
        from polyteach.geometry import fit

        g, kind = self.given, torch.device(self.device).type
        size = (g["size"], g["size"])
        views = [fit((i.shape[1], i.shape[2]), size).image(i) for i in images]
        with torch.inference_mode(), torch.autocast(kind, PRECISIONS[g["precision"]], enabled=g["precision"] != "fp32"):
            found = student.pooled(torch.stack(views).to(self.device))
        return found.cpu().clone()

    def _features(self, student: "Student", plan: "Plan") -> "tuple[Tensor, list[Any]]":
        import torch

        from polyteach.batches import Augment, Samples
        from polyteach.progress import track
        from polyteach.tasks.contract import Policy

        g = self.given
        samples = Samples(plan, Augment((32, 32)), Policy(), 0)
        features, targets = [], []
        with track("features", len(plan), "images", g["progress"]) as bar:
            for start in range(0, len(plan), g["batch_size"]):
                group = range(start, min(start + g["batch_size"], len(plan)))
                found = [(i, samples.picture(i)[1]) for i in group]
                good = [(i, x) for i, x in found if not isinstance(x, str)]
                if good:
                    features.append(self._pooled(student, [x for _, x in good]))
                    targets += [samples.target(i, self.objective) for i, _ in good]
                bar.advance(len(group))
        if not features:
            raise ValueError(f"none of {len(plan)} training images could be read")
        return torch.cat(features), targets

    # --- the result ---

    def _summary(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        import platform
        import time

        import torch

        import polyteach

        g, config = self.given, self.config()
        cells = [_spent(f) for f in sorted((self.folder / "cells").glob("*/cell.json"))]
        known = [c.get("flops") for c in cells]
        spent = {
            "images": sum(c["images"] for c in cells),
            "flops": sum(k or 0 for k in known) if known and all(k is not None for k in known) else None,
            "seconds": round(sum(c["seconds"] for c in cells), 1),
        }
        run = Path(g["init"]) if g["init"] and Path(g["init"]).is_dir() else None
        made = _made(run) if run else {}
        shown = sorted(str(f.relative_to(self.folder)) for f in (self.folder / "examples").glob("*.png"))
        objective = self.test.objectives[self.objective]
        return {
            "verb": "transfer",
            "polyteach": polyteach.__version__,
            "date": time.strftime("%Y-%m-%d"),
            "command": _command("transfer", g, "store", ["protocol"]),  # all that a protocol says is spelled out
            "machine": {
                "processor": platform.machine(),
                "threads": torch.get_num_threads(),
                "device": self.device,
                "torch": torch.__version__,
            },
            "representation": {
                "name": g["name"],
                "init": g["init"],
                "backbone": g["backbone"],
                "sha256": config["init_sha256"],
                "pretraining_seed": made.get("seed"),
                "command": made.get("command"),
            },
            "downstream": {
                "name": g["downstream"],
                "store": g["store"],
                "task": self.task_name,
                "objective": self.objective,
                "metric": self.metric,
                "higher_is_better": self.higher,
                "train_images": len(self.train_ids),
                "validation_images": len(self.validation),
                "test_images": len(self.test),
                "classes": len(objective.space.names),
                "test_sha256": config["data"]["test"],
            },
            "budget": {"shots": g["shots"], "fraction": g["fraction"], "images": len(self.train(g["seeds"][0]))},
            "mode": g["mode"],
            "results": results,
            "test_sha256": config["data"]["test"],
            "compute": {
                "transfer": spent,
                "representation": made.get("compute"),
                "teachers": made.get("teachers", []),
            },
            "examples": shown,
            "seeds": g["seeds"],
        }


def _test(scores: "Scores", seed: int) -> dict[str, Any]:
    import math

    plain = {k: v if math.isfinite(v) else None for k, v in scores.scores.items()}
    drawn, left = ([v if math.isfinite(v) else None for v in x] for x in (scores.resamples, scores.left_out))
    unreadable = [list(f) for f in scores.failed]
    return {"seed": seed, "scores": plain, "resamples": drawn, "left_out": left, "unreadable": unreadable}


def _read(file: "Path", *objects: str) -> "Fields":
    """What this verb wrote, in which these fields are objects.

    Raises:
        ValueError: somebody else did; names the field.
    """
    from polyteach.fields import Fields

    about = Fields.read(file, "It is not as `polyteach transfer` wrote it: take it away, or give another --out")
    for key in objects:
        about.object(key)
    return about


def _seeds(about: "Fields") -> list[int]:
    seeds: list[int] = about.get("seeds", (list,), "a list of whole numbers")
    if not seeds or not all(type(s) is int for s in seeds):
        raise about.error("seeds", "must be a list of whole numbers", seeds)
    return seeds


def _spent(file: "Path") -> dict[str, Any]:
    """What is known of a network that was trained: its cell.json."""
    about = _read(file)
    about.count("images", low=0)
    about.number("seconds", low=0)
    about.number("flops", null=True)
    return about.value


def _trained(file: "Path") -> dict[str, Any]:
    _spent(file)
    about = _read(file)
    for key in ("lr", "steps"):
        about.number(key)
    about.number("validation", null=True)
    about.text("failed", null=True)
    about.get("curve", (list,), "a list")
    return about.value


def _probe(file: "Path", setting: int | float) -> dict[str, Any]:
    _spent(file)
    about = _read(file)
    if type(about.value.get("validation")) not in (int, float):  # which may be NaN
        raise about.error("validation", "must be a number", about.value.get("validation"))
    if about.number("setting") != setting:
        raise about.error("setting", f"must be {setting!r}, as its folder says", about.value["setting"])
    return about.value


def _score_of(file: "Path", metric: str) -> dict[str, Any]:
    """The test.json of a network."""
    about = _read(file)
    about.object("scores").number(metric, null=True)
    for i, drawn in enumerate(about.get("resamples", (list,), "a list of numbers")):
        if drawn is not None and type(drawn) not in (int, float):
            raise about.error(f"resamples[{i}]", "must be a number", drawn)
    return about.value


def _made(run: "Path") -> dict[str, Any]:
    """What the representation's own run says of itself: seed, command, what it and its teachers have cost."""
    from polyteach.fields import Fields, cost

    fix = "Give a run as `polyteach train` or `polyteach pretrain` wrote it"
    about: dict[str, Any] = {}
    if (run / "config.json").exists():
        config = Fields.read(run / "config.json", fix)
        options = config.object("options")
        options.texts("stores")
        # steps were resolved from epochs, and only one of them may be given
        command = _command(config.text("verb"), options.value | {"out": str(run)}, "stores", ["epochs"])
        about = {"seed": options.count("seed", null=True), "command": command}
    for name in ("train.json", "pretrain.json"):
        if (run / name).exists():
            compute = Fields.read(run / name, fix).object("compute", null=True)
            about["teachers"] = [cost(t) for t in compute.objects("teachers", null=True)]
            spent = {k: compute.number(k, null=True) for k in ("images", "flops", "seconds") if compute.value}
            about["compute"] = spent or None
    return about


def _only_task(store: Any, labels: str) -> str:
    found = sorted({s.task for s in store.sets() if labels in (s.name, f"{s.task}/{s.name}")})
    if len(found) == 1:
        return str(found[0])
    if not found:
        from polyteach.names import unknown_name

        raise unknown_name("label set", labels, [f"{s.task}/{s.name}" for s in store.sets()], f"{store.path} has")
    raise ValueError(f"{store.path} has label set {labels!r} for {', '.join(found)}; choose one with --task")


def ranked(ids: Sequence[str], salt: str) -> list[str]:
    """The ids in a random order that follows from salt and id alone, so that a new image does not move the others."""
    import hashlib

    return sorted(ids, key=lambda i: hashlib.sha256(f"{salt}\0{i}".encode("utf-8", "backslashreplace")).digest())


def _thinned(points: list[list[Any]], most: int = 50) -> list[list[Any]]:
    """At most about `most` of the points: means over neighbours."""
    width = -(-len(points) // most)
    groups = [points[i : i + width] for i in range(0, len(points), max(width, 1))]
    return [[g[-1][0], round(sum(p[1] for p in g) / len(g), 5)] for g in groups]


def _command(verb: str, given: dict[str, Any], positional: str, skipped: Sequence[str] = ()) -> str:
    """The command line that gives these options; those with no value are left out."""
    import shlex

    first = given[positional]
    words = ["polyteach", verb, *([first] if isinstance(first, str) else first)]
    for key, value in given.items():
        flag = f"--{key.replace('_', '-')}"
        if key == positional or key in skipped or value is None or value == [] or value == ():
            continue
        if isinstance(value, bool):
            words += [flag if value else f"--no-{flag[2:]}"]
        elif isinstance(value, dict):
            words += [flag, *(f"{k}={v}" for k, v in value.items())]
        elif isinstance(value, list | tuple):
            words += [flag, *map(str, value)]
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def _same(began: "Fields", new: dict[str, Any], folder: "Path") -> None:
    """Raises:
    ValueError: what is in the folder was made otherwise; names what differs.
    """
    from polyteach.files import differences

    old, before = began.value, _seeds(began.object("options"))
    then, now = ({k: v for k, v in (NEW | c["options"]).items() if k not in FREE} for c in (old, new))
    differ = differences(then, now)
    if before[0] != new["options"]["seeds"][0]:
        differ.append(f"the first seed, which sweeps, was {before[0]}")
    elif lost := set(before) - set(new["options"]["seeds"]):
        differ.append(f"seeds {sorted(lost)} were asked for before; give them too")
    differ += differences(
        {k: old.get(k) for k in ("polyteach", "init_sha256", "data")},
        {k: new[k] for k in ("polyteach", "init_sha256", "data")},
    )
    if differ:
        raise ValueError(f"{folder} was started otherwise: {'; '.join(differ)}. Choose another --out")


def _say(found: dict[str, Any], file: "Path") -> None:
    about, lines = found["downstream"], []
    for r in found["results"]:
        chosen = ", ".join(f"{k} {v:g}" for k, v in r["chosen"].items())
        mean = "undefined" if r["mean"] is None else f"{r['mean']:.2f}"
        spread = "" if r["spread"] is None else f" +- {r['spread']:.2f} over {len(r['tests'])} seeds"
        low_high = "" if r["interval"] is None else f", 95 % interval {r['interval'][0]:.2f} to {r['interval'][1]:.2f}"
        lines.append(f"  {r['parts']}: {about['metric']} {mean}{spread}{low_high} ({chosen})")
    title = f"{found['representation']['name']} on {about['name']}, {about['test_images']:,} test images ({file}):"
    say(title, *lines)
