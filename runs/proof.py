"""The jobs of the proof, and what each needs; runs/proof.sh is the way in."""

import argparse
import json
import os
import shlex
import statistics
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import intervals
from jobs import Job, Runner

TEACHERS = ("classes", "boxes", "regions", "depth")
WORLDS = {
    "boxes": "AP50",
    "regions": "mIoU",
    "parts": "mIoU",
    "depth": "delta<1.25",
    "normals": "within 22.5",
    "classes": "top-1",
}
"""Downstream sets, each with the score that decides."""
PEOPLE = " ".join(f"stores/teach-{t}" for t in TEACHERS)
OF_A_SESSION = ("normalised_average", "wins", "machine")
"""Of a proof.json, what is about the runs of one folder."""
SELF_SUPERVISED: dict[str, tuple[str, dict[str, Any]]] = {
    "simclr-lr0.0005": ("simclr", {"lr": 0.0005}),
    "simclr-lr0.006": ("simclr", {"lr": 0.006}),
    # a tenth of such a picture is often bare floor: a view without an object has nothing in common with one of it
    "simclr-crop0.3": ("simclr", {"options": "--crop 0.3 1"}),
    "simclr-crop0.3-warm": ("simclr", {"options": "--crop 0.3 1 --temperature 0.5"}),
    "simclr-crop0.3-small": ("simclr", {"options": "--crop 0.3 1", "larger": 1}),
    "vicreg-crop0.3": ("vicreg", {"options": "--crop 0.3 1"}),
}
"""Arms that tune self-supervision: the method, and what differs from the arms `simclr` and `vicreg`."""
TASKS = "classification,detection,segmentation,depth"
"""What teachers teach, and the oracle: no normals."""


@dataclass(frozen=True)
class Scale:
    """labels: images of the splits n1, n2 and n3 of every teacher; teachers learn from n1 and n2 unless the label curve
    says otherwise. pool: images of its splits a, b, c, d; students learn from a, b and c. A last split of 0 images is
    not there, nor are the arms that want it. steps, batch: of every pretraining. down: labelled images of every
    downstream task (boxes get twice as many to train on). tune: steps of every fine-tuning. seeds: of the pretrainings
    that decide the claims.
    """

    labels: tuple[int, int, int]
    pool: tuple[int, int, int, int]
    steps: int
    batch: int
    down: tuple[int, int, int]
    tune: int
    lrs: tuple[float, ...]
    seeds: tuple[int, ...]
    resamples: int


FULL = Scale(
    labels=(300, 700, 4000), pool=(3000, 7000, 10000, 30000), steps=4000, batch=16, down=(500, 200, 500), tune=600,
    lrs=(0.002,), seeds=(0, 1, 2), resamples=400,
)  # fmt: skip

SCALES = {
    "full": FULL,
    # a picture of a room takes ten times as long as one of solids
    "rooms": replace(FULL, labels=(300, 1200, 0), pool=(3000, 3500, 3500, 0)),
    "quick": Scale(
        labels=(40, 80, 120), pool=(100, 150, 250, 300), steps=40, batch=16, down=(80, 40, 80), tune=15,
        lrs=(0.004,), seeds=(0,), resamples=100,
    ),
}  # fmt: skip


@dataclass
class Plan:
    """All jobs, in the order in which they are wanted."""

    scale: Scale
    world: str
    extra: str = ""
    precision: str = "fp32"
    jobs: dict[str, Job] = field(default_factory=dict)
    group: str = "core"

    def add(
        self, name: str, words: str, needs: tuple[str, ...] = (), store: str = "", arm: str = "",
        seed: int | None = None,
    ) -> str:  # fmt: skip
        """The job's name; added once."""
        job = Job(name, tuple(shlex.split(words)), needs, store, self.group, arm, seed)
        if self.jobs.setdefault(name, job).words != job.words:
            raise ValueError(f"two jobs are called {name}")
        return name

    # ---- stages ----

    def ingest(self, name: str, domain: str, count: str, tasks: str = "own") -> str:
        source = f"{self.world}:{domain}?count={count}&tasks={tasks}{self.extra}"
        return self.add(f"ingest-{name}", f"ingest '{source}' stores/{name} --workers 1", store=name)

    def oracle(self) -> str:
        """The pool's pictures with exact labels."""
        count = ",".join(f"{s}:{n}" for s, n in zip("abc", self.scale.pool[:3], strict=True))
        return self.ingest("oracle", "pool", count, TASKS)

    def pool(self) -> str:
        """The same without any: rendered once, since that takes longer than a training."""
        return self.add("copy-pool", "unlabelled.py stores/oracle stores/pool", (self.oracle(),), "pool")

    def rest(self) -> str:
        """The pool's last split: in a store of its own, since only the curve's last point wants it."""
        return self.ingest("pool-d", "pool", f"d:{self.scale.pool[-1]}", "none")

    def source(self, teacher: str) -> str:
        count = ",".join(f"n{i}:{n}" for i, n in enumerate(self.scale.labels, 1) if n)
        return self.ingest(f"teach-{teacher}", f"teach-{teacher}", count)

    @property
    def net(self) -> str:
        return (
            f"--backbone test_resnet --size 64 --device cpu --precision {self.precision} --channels-last --workers 0 "
            "--no-progress"
        )

    def learn(self, seed: int, lr: float, steps: int) -> str:
        s = self.scale
        return (
            f"--steps {steps or s.steps} --batch-size {s.batch} --optimizer adamw --lr {lr} --ema 0.99 --scale 0.7 1.5 "
            f"--augment 5 --seed {seed} --channels 32 {self.net}"
        )

    def train(
        self, name: str, stores: str, options: str, seed: int, needs: tuple[str, ...], lr: float = 0.002, steps: int = 0
    ) -> str:
        words = f"train {stores} --out runs/{name} {options} {self.learn(seed, lr, steps)}"
        return self.add(f"train-{name}", words, needs)

    def pretrain(
        self, name: str, method: str, seed: int, lr: float = 0.002, init: str = "", options: str = "", larger: int = 4
    ) -> str:
        """larger: how many times the others' batch, and how many times fewer steps, so that it sees as many pictures.
        Four times, since both methods compare the pictures of a batch.
        """
        s = self.scale
        words = (
            f"pretrain stores/pool --method {method} --out runs/{name} --split a b c --steps {s.steps // larger} "
            f"--batch-size {larger * s.batch} --optimizer adamw --lr {lr} {options} --seed {seed} {self.net}"
        )
        needs = (self.pool(), *([f"train-{init}"] if init else []))
        return self.add(f"train-{name}", words + (f" --init runs/{init}" if init else ""), needs)

    def specialist(self, teacher: str, seed: int, splits: str = "n1 n2", tag: str = "") -> str:
        """`tag` tells it from the one that learned from the usual labels; "-untrained" learns nothing in one step."""
        name, words = f"specialist-{teacher}{tag}-s{seed}", f"--labels people --split {splits}"
        store, needs = f"stores/teach-{teacher}", (self.source(teacher),)
        if tag == "-untrained":
            return self.train(name, store, words, seed, needs, lr=1e-9, steps=1)
        return self.train(name, store, words, seed, needs)

    def label(
        self, teachers: tuple[str, ...], seed: int, tag: str = "", store: str = "pool", splits: str = "a b c",
        precision: str = "",
    ) -> str:  # fmt: skip
        """Pseudo labels of a store's images, in sets called TEACHER[TAG]-sSEED, or TEACHER[TAG]-sSEED-PRECISION."""
        end, how = (f"-{precision}", f" --precision {precision}") if precision else ("", "")
        spec = " ".join(f"{t}{tag}-s{seed}{end}=own:runs/specialist-{t}{tag}-s{seed}" for t in teachers)
        needs = tuple(f"train-specialist-{t}{tag}-s{seed}" for t in teachers)
        if store == "pool":
            made = self.pool()
        elif store == "pool-d":
            made = self.rest()
        else:
            made = self.source(store.removeprefix("teach-"))
        words = (
            f"label stores/{store} --teacher {spec} --split {splits}{how} --device cpu --batch-size 32 --no-progress"
        )
        return self.add(f"label-{store}{tag}-s{seed}{end}", words, (*needs, made), store)

    def student(
        self, name: str, teachers: tuple[str, ...], seed: int, options: str = "", tag: str = "", splits: str = "a b c",
        needs: tuple[str, ...] = (), altered: str = "", labelled: str = "", stores: str = "stores/pool",
    ) -> str:  # fmt: skip
        sets = " ".join(f"{t}{tag}-s{seed}{altered}" for t in teachers)
        words = f"--labels {sets} --split {splits} {options}"
        return self.train(f"{name}-s{seed}", stores, words, seed, (labelled or f"label-pool{tag}-s{seed}", *needs))

    def alter(self, how: str, seed: int) -> None:
        """Sets called TEACHER-sSEED-HOW of the pool's images, made of the teachers' labels."""
        words = f"alter_labels.py stores/pool {how} {' '.join(f'{t}-s{seed}' for t in TEACHERS)}"
        self.add(f"alter-{how}-s{seed}", words, (f"label-pool-s{seed}",), "pool")

    def transfer(self, arm: str, seed: int, more: bool = False) -> None:
        """Fine-tune what is in runs/ARM-sSEED on the six tasks. more: from scratch with all seeds, after the first."""
        s, scratch = self.scale, arm == "scratch"
        for world, metric in WORLDS.items():
            n = s.down[0] * (2 if world == "boxes" else 1)
            made = self.ingest(f"down-{world}", f"down-{world}", f"train:{n},val:{s.down[1]},test:{s.down[2]}")
            init = "" if scratch else f"--init runs/{arm}-s{seed}"
            seeds = " ".join(map(str, s.seeds)) if more else "0"
            words = (
                f"transfer stores/down-{world} --downstream {world} --name {arm} {init} "
                f"--out transfer/{arm}-s{seed}/{world} --metric {shlex.quote(metric)} "
                f"--validation-split val --parts backbone "
                f"--lrs {' '.join(map(str, s.lrs))} --steps {s.tune} --seeds {seeds} --batch-size {s.batch} "
                f"--optimizer adamw --scale 0.7 1.5 --resamples {s.resamples} --channels 32 {self.net}"
            )
            name, first = f"transfer-{arm}-s{seed}-{world}", () if scratch else (f"train-{arm}-s{seed}",)
            full, needs = (f"{name}-more", (made, name)) if more else (name, (made, *first))
            self.add(full, words, needs, arm=arm, seed=seed)


def jobs(scale: Scale, world: str, extra: str, ablated: int | None = None, precision: str = "fp32") -> dict[str, Job]:
    """The whole design. The order is that in which jobs start when what they need is there.

    ablated: the seed of pretraining that controls and ablations have; else the first. precision: of every training and
    fine-tuning.
    """
    p = Plan(scale, world, extra, precision)
    seed = scale.seeds[0] if ablated is None else ablated
    decide(p, scale.seeds[0])
    controls(p, seed)
    for other in scale.seeds[1:]:
        decide(p, other)
    more(p, seed)
    return p.jobs


def decide(p: Plan, seed: int) -> None:
    """The arms that decide the claims, with one seed of pretraining."""
    p.group, first = "core", seed == p.scale.seeds[0]
    for t in TEACHERS:
        p.specialist(t, seed)
    p.label(TEACHERS, seed)
    p.student("student", TEACHERS, seed)
    p.train(f"oracle-s{seed}", "stores/oracle", "--labels people --split a b c", seed, (p.oracle(),))
    sources = tuple(p.source(t) for t in TEACHERS)
    p.train(f"supervised-s{seed}", PEOPLE, "--labels people --split n1 n2", seed, sources)
    if first:
        p.transfer("scratch", seed)
    for arm in ("student", "supervised", "oracle"):
        p.transfer(arm, seed)
    for t in TEACHERS:
        p.transfer(f"specialist-{t}", seed)
    for method in ("simclr", "vicreg"):
        p.pretrain(f"{method}-s{seed}", method, seed)
        p.transfer(method, seed)
    filled = tuple(p.label(TEACHERS, seed, store=f"teach-{t}", splits="n1 n2") for t in TEACHERS)
    sets = " ".join(f"{t}-s{seed}" for t in TEACHERS)
    words = f"--labels people {sets} --split a b c n1 n2"
    p.train(f"student-union-s{seed}", f"stores/pool {PEOPLE}", words, seed, (f"label-pool-s{seed}", *filled))
    p.transfer("student-union", seed)
    if first and len(p.scale.seeds) > 1:
        p.transfer("scratch", seed, more=True)


def controls(p: Plan, seed: int) -> None:
    """Labels of teachers that learned nothing, and labels of other pictures."""
    p.group = "more"
    for t in TEACHERS:
        p.specialist(t, seed, tag="-untrained")
    p.label(TEACHERS, seed, tag="-untrained")
    p.student("control-untrained", TEACHERS, seed, tag="-untrained", options="--score 0")
    p.transfer("control-untrained", seed)
    p.alter("shuffled", seed)
    p.student("control-shuffled", TEACHERS, seed, altered="-shuffled", needs=(f"alter-shuffled-s{seed}",))
    p.transfer("control-shuffled", seed)


def more(p: Plan, seed: int) -> None:
    """Curves and ablations."""
    p.group = "more"

    def arm(name: str, teachers: tuple[str, ...] = TEACHERS, **more: Any) -> None:
        p.student(name, teachers, seed, **more)
        p.transfer(name, seed)

    for t in TEACHERS:
        arm(f"self-{t}", (t,))
    # beyond the paper
    arm("student-confidence", options="--confidence")
    arm("student-drop", options="--drop 0.5")
    arm("student-adapters", options="--adapters 8")
    teacher = f"--teacher round2=own:runs/student-s{seed}"
    again = f"label stores/pool {teacher} --split a b c --device cpu --batch-size 32 --no-progress"
    p.add("label-round2", again, (f"train-student-s{seed}", f"label-pool-s{seed}"), "pool")
    p.train(f"student-round2-s{seed}", "stores/pool", "--labels round2 --split a b c", seed, ("label-round2",))
    p.transfer("student-round2", seed)
    # how many labels and images it takes
    for tag, splits in (("-few", "n1"), *([("-many", "n1 n2 n3")] if p.scale.labels[-1] else [])):
        for t in TEACHERS:
            p.specialist(t, seed, splits, tag)
        p.label(TEACHERS, seed, tag)
        arm(f"student{tag}", tag=tag)
        p.train(
            f"supervised{tag}-s{seed}",
            PEOPLE,
            f"--labels people --split {splits}",
            seed,
            tuple(map(p.source, TEACHERS)),
        )
        p.transfer(f"supervised{tag}", seed)
    arm("student-pool-a", splits="a")
    arm("student-pool-ab", splits="a b")
    if p.scale.pool[-1]:
        last = p.label(TEACHERS, seed, store="pool-d", splits="d")
        arm("student-pool-abcd", splits="a b c d", needs=(last,), stores="stores/pool stores/pool-d")
    # which teachers
    for t in TEACHERS:
        arm(f"student-without-{t}", tuple(x for x in TEACHERS if x != t))
    arm("student-classes-boxes", ("classes", "boxes"))
    arm("student-regions-depth", ("regions", "depth"))
    # a strong checkpoint, with and without
    arm("simclr-then-student", options=f"--init runs/simclr-s{seed}", needs=(f"train-simclr-s{seed}",))
    p.pretrain(f"simclr-then-simclr-s{seed}", "simclr", seed, init=f"simclr-s{seed}")
    p.transfer("simclr-then-simclr", seed)
    # how labels are used
    arm("student-hard", options="--no-soft")
    arm("student-score0.3", options="--score 0.3")
    arm("student-score0.7", options="--score 0.7")
    arm("student-learned", options="--weights learned")
    # how precise they are
    p.alter("coarse", seed)
    arm("student-coarse", altered="-coarse", needs=(f"alter-coarse-s{seed}",))
    arm("student-bf16", altered="-bf16", labelled=p.label(TEACHERS, seed, precision="bf16"))
    # self-supervision tuned: by the downstream tasks' validation scores
    for name, (method, how) in SELF_SUPERVISED.items():
        p.pretrain(f"{name}-s{seed}", method, seed, **how)
        p.transfer(name, seed)


def gather(folder: Path, earlier: Path | None = None) -> None:
    """proof.json: per arm, task and seed the score, beside what made it; and proof-resamples.parquet, from which every
    interval can be made again, and others (intervals.py).

    earlier: another such file. Its scores are added, marked so, where this folder has none of that arm, task and seeds,
    and count in "by_seed", but not in the averages with intervals, for which the answers to every test picture are
    needed: its own averages are kept under "earlier". Its resamples, where it has them, are taken over too.
    """
    numbers = json.loads((folder / "report" / "report.json").read_text())
    table = numbers["tables"][0]
    rows, kept = [], []
    for path in sorted((folder / "transfer").glob("*/*/transfer.json")):
        said = json.loads(path.read_text())
        arm, world = said["representation"]["name"], said["downstream"]["name"]
        run, metric = path.parts[-3], said["downstream"]["metric"]
        made, tuned = (folder / "done" / f"{n}.json" for n in (f"train-{run}", f"transfer-{run}-{world}"))
        before = json.loads(made.read_text()) if made.exists() else {}
        after = json.loads(tuned.read_text()) if tuned.exists() else {}
        for test in said["results"][0]["tests"]:
            kept.append(_resamples(said, test))
            rows.append(
                {
                    "arm": arm,
                    "task": world,
                    "pretraining_seed": said["representation"]["pretraining_seed"],
                    "seed": test["seed"],
                    "metric": metric,
                    "score": None if test["scores"] is None else test["scores"][metric],
                    "chosen": said["results"][0]["chosen"],
                    "validation": max(
                        (x for c in said["results"][0]["sweep"] if (x := c["validation"]) is not None), default=None
                    ),
                    "normalised_of_arm": table["normalised"].get(arm, {}).get(world),
                    "pretraining": before,
                    "transfer": after,
                }
            )
    sessions: list[dict[str, Any]] = []
    if earlier:
        before = json.loads(earlier.read_text())
        mine = {_which(row) for row in rows}
        rows += [{**row, "earlier": True} for row in before["scores"] if _which(row) not in mine]
        rows.sort(key=_which)
        sessions = [*before.get("earlier", []), {k: before.get(k) for k in OF_A_SESSION}]
        beside = earlier.with_name(f"{earlier.stem}-resamples.parquet")
        if beside.is_file():
            kept += [row for row in intervals.read(beside) if _which(row) not in mine]
    averages = table["normalised_average"]
    out = {
        "scores": rows,
        "by_seed": by_seed(rows),
        "normalised_average": averages,
        "wins": table["wins"],
        "machine": numbers["runs"][0]["machine"],
        "earlier": sessions,
    }
    (folder / "proof.json").write_text(json.dumps(out, indent=1) + "\n")
    intervals.write(folder / "proof-resamples.parquet", kept)


def _resamples(said: dict[str, Any], test: dict[str, Any]) -> dict[str, Any]:
    """A row of proof-resamples.parquet: one test of a transfer.json."""
    down = said["downstream"]
    return {
        "arm": said["representation"]["name"],
        "task": down["name"],
        "metric": down["metric"],
        "higher_is_better": down["higher_is_better"],
        "pretraining_seed": said["representation"]["pretraining_seed"],
        "seed": test["seed"],
        "test_sha256": down["test_sha256"],
        "score": None if test["scores"] is None else test["scores"][down["metric"]],
        "unreadable": sorted(id for id, _ in test.get("unreadable", ())),
        "resamples": test.get("resamples"),
        "left_out": test.get("left_out"),
    }


def _which(row: dict[str, Any]) -> tuple[str, str, int, int]:
    # pictures of a network that nobody pretrained have no such seed
    return row["arm"], row["task"], -1 if row["pretraining_seed"] is None else row["pretraining_seed"], row["seed"]


def by_seed(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per arm the normalised average of every pretraining seed that has all six tasks.

    0 is the mean of all tests from scratch, 1 that of all seeds of the oracle, so that the oracle's own seeds differ
    too. Nothing where either is missing, or where in some task the oracle is no better, as in a quick run.
    """
    scores: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in rows:
        if row["score"] is not None:
            arm, task, seed, _ = _which(row)
            scores.setdefault((arm, seed), {}).setdefault(task, []).append(row["score"])

    def end(arm: str) -> dict[str, float]:
        all_of = [of[1] for of in scores.items() if of[0][0] == arm]
        return {t: statistics.fmean(x for of in all_of for x in of.get(t, [])) for t in set().union(*all_of)}

    low, high = end("scratch"), end("oracle")
    if set(low) & set(high) != set(WORLDS) or any(high[t] <= low[t] for t in WORLDS):
        return {}
    out: dict[str, dict[str, Any]] = {}
    for (arm, seed), of in sorted(scores.items()):
        if set(of) == set(WORLDS):
            each = [(statistics.fmean(of[t]) - low[t]) / (high[t] - low[t]) for t in WORLDS]
            out.setdefault(arm, {"values": {}})["values"][str(seed)] = statistics.fmean(each)
    for found in out.values():
        values = list(found["values"].values())
        found |= {"mean": statistics.fmean(values), "spread": statistics.stdev(values) if len(values) > 1 else None}
    return out


def seeds_table(folder: Path, ours: str = "student") -> str:
    """The page's table of seeds: those arms that have more than one. Markdown."""
    found = json.loads((folder / "proof.json").read_text())["by_seed"]
    several = {arm: x for arm, x in found.items() if len(x["values"]) > 1}
    seeds = sorted({s for x in several.values() for s in x["values"]}, key=int)
    columns = [*(f"seed {s}" for s in seeds), "mean", "standard deviation", f"{ours} minus it, each seed"]
    lines = [
        f"| pretraining | {' | '.join(columns)} |",
        "| --- " + "| ---: " * (len(seeds) + 3) + "|",
    ]
    mine = found.get(ours, {"values": {}})["values"]
    for arm, x in sorted(several.items(), key=lambda of: of[1]["mean"]):
        each = [f"{x['values'][s]:.2f}" if s in x["values"] else "" for s in seeds]
        less = [f"{mine[s] - x['values'][s]:.2f}" for s in seeds if arm != ours and s in mine and s in x["values"]]
        lines.append(f"| {arm} | {' | '.join(each)} | {x['mean']:.2f} | {x['spread']:.2f} | {', '.join(less)} |")
    return "\n".join(lines)


def seeds_chart(folder: Path) -> str:
    """The page's picture: a point for every seed of every arm, on one scale, and a line between them. SVG."""
    from polyteach.reporting import charts

    found = json.loads((folder / "proof.json").read_text())["by_seed"]
    rows = []
    for arm, x in sorted(found.items(), key=lambda of: of[1]["mean"]):
        values = list(x["values"].values())
        low, high = (min(values), max(values)) if len(values) > 1 else (None, None)
        of_seeds = [charts.Point(0, v) for v in values[1:]]
        rows.append(
            charts.Series(arm, 0 if arm == "student" else 5, (charts.Point(0, values[0], low, high), *of_seeds))
        )
    label = "normalised average: 0 from scratch, 1 oracle"
    return charts.standalone(charts.intervals("Normalised average, by seed", rows, label, "seeds", (0, 1)))


def own_means(rows: list[dict[str, Any]], key: str) -> dict[str, dict[str, float]]:
    """Per arm and task the mean of a folder's own rows that have the key, not of those of another session."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row.get(key) is not None and not row.get("earlier"):
            found.setdefault(row["arm"], {}).setdefault(row["task"], []).append(row[key])
    return {arm: {task: statistics.fmean(x) for task, x in of.items()} for arm, of in found.items()}


def table_line(first: str, means: dict[str, float], last: str) -> str:
    """A line of a table of arms, with an empty cell for a task that has no mean."""
    return f"| {first} | {' | '.join(f'{means[t]:.1f}' if t in means else '' for t in WORLDS)} | {last} |"


def table_head(first: str) -> list[str]:
    """The first two lines of such a table."""
    return [
        f"| {first} | {' | '.join(f'{task}, {metric}' for task, metric in WORLDS.items())} | normalised average |",
        "| --- " + "| ---: " * (len(WORLDS) + 1) + "|",
    ]


def table(folder: Path) -> str:
    """The page's table: a mean over seeds for every arm and task, in order of the normalised average. Markdown.

    Of this folder's own scores: so are the averages, and both have to speak of the same seeds.
    """
    found = json.loads((folder / "proof.json").read_text())
    means, average = own_means(found["scores"], "score"), found["normalised_average"]
    lines = table_head("pretraining")
    for arm in sorted(means, key=lambda a: (average.get(a) or {}).get("value") or 0.0):
        at = average.get(arm) or {}
        whole = "" if at.get("value") is None else f"{at['value']:.2f}"
        if whole and at["interval"] is not None and at["interval"][0] != at["interval"][1]:
            whole += f" [{at['interval'][0]:.2f}, {at['interval'][1]:.2f}]"
        lines.append(table_line(arm, means[arm], whole))
    return "\n".join(lines)


def validation_table(folder: Path) -> str:
    """What self-supervision is tuned on: validation scores of its arms, and their mean on the scale on which scratch's
    validation is 0 and the oracle's 1. Of this folder's own; empty where by_seed() is. Markdown.
    """
    rows = json.loads((folder / "proof.json").read_text())["scores"]
    means = own_means(rows, "validation")
    average = by_seed([{**row, "score": row.get("validation")} for row in rows if not row.get("earlier")])
    arms = [a for a in ("scratch", "simclr", "vicreg", *SELF_SUPERVISED, "oracle") if a in average]
    if not arms:
        return ""
    arms.sort(key=lambda a: average[a]["mean"])
    return "\n".join([*table_head("validation"), *(table_line(a, means[a], f"{average[a]['mean']:.2f}") for a in arms)])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="bash runs/proof.sh", description="see the head of runs/proof.sh and docs/evidence/proof.md"
    )
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--quick", action="store_true", help="small, to see that it all runs")
    parser.add_argument("--world", choices=("rooms", "shapes"), default="shapes")
    parser.add_argument("--only", choices=("core", "more"), help="core: the arms that decide the claims")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="these alone, and what they need: student simclr ...")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="S", help="only what was pretrained with these seeds")
    parser.add_argument(
        "--earlier", type=Path, metavar="FILE", help="a proof.json of other seeds: its scores count beside those of DIR"
    )
    parser.add_argument("--ablate-seed", type=int, metavar="S", help="of controls and ablations; else the first")
    parser.add_argument("--extra", default="", help="more options of the world's reader, as &furniture=DIR")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="at once; one a core")
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"),
        help="of every training; else bf16 where the processor has instructions for it, which take half the time there "
        "and six times as long elsewhere; a folder keeps to one",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="say what there is to do, and do nothing")
    given = parser.parse_args()
    scale = SCALES["quick" if given.quick else "rooms" if given.world == "rooms" else "full"]
    if given.ablate_seed is not None and given.ablate_seed not in scale.seeds:
        parser.error(f"--ablate-seed has to be one of {', '.join(map(str, scale.seeds))}: of those there are teachers")
    from polyteach.ground.devices import quick_precision

    precision = given.precision or quick_precision("cpu")
    planned = jobs(scale, given.world, given.extra, given.ablate_seed, precision)
    wanted = {n for n, j in planned.items() if given.only in (None, j.group)}
    if given.arms:
        known = {job.arm for job in planned.values() if job.arm}
        if wrong := set(given.arms) - known:
            parser.error(f"no arm is called {min(wrong)}; there are {', '.join(sorted(known))}")
        wanted = {n for n in wanted if planned[n].arm in given.arms}
    if given.seeds is not None:
        # what is from scratch has no such seed
        wanted = {n for n in wanted if planned[n].arm == "scratch" or planned[n].seed in given.seeds}
    grown = True
    while grown:  # and what those need
        more = {need for n in wanted for need in planned[n].needs} - wanted
        wanted, grown = wanted | more, bool(more)
    folder = given.folder.resolve()
    if given.earlier and not given.earlier.is_file():
        parser.error(f"--earlier: there is no file {given.earlier}")
    runner = Runner(folder, planned, wanted, max(given.jobs, 1))
    if given.list:
        for name in planned:
            if name in wanted:
                print(f"{'done' if runner.done(name) else '    '} {name}: {planned[name].command}")
        return 0
    try:
        whole = runner.go()
    except BlockingIOError as e:
        parser.error(str(e))
    if any((folder / "transfer").glob("*/*/transfer.json")):
        from polyteach.__main__ import main as polyteach

        title = f"The proof ({'quick' if given.quick else 'full'}, {given.world})"
        words = ["report", str(folder / "transfer"), "--out", str(folder / "report"), "--title", title]
        if any((folder / "transfer").glob("student-s[0-9]*/*/transfer.json")):
            words += ["--ours", "student"]
        if polyteach(words):
            return 1
        gather(folder, given.earlier)
        (folder / "report" / "seeds.svg").write_text(seeds_chart(folder) + "\n")
        (folder / "report" / "table.md").write_text(
            f"{table(folder)}\n\n{seeds_table(folder)}\n\n{validation_table(folder)}\n"
        )
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
