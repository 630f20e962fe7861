"""Does multi-task self-training still improve a strong checkpoint? The same checkpoint as it is, continued otherwise at
about the cost of the student's training, and continued by MuST; then probed and fine-tuned with people's labels.

    python benchmarks/strong.py --data ROOT --work DIR      # results/strong.json and .md: about an hour of one core
    python benchmarks/strong.py --data ROOT --work DIR --page     # the page alone, of what is finished in DIR
    python benchmarks/strong.py --data ROOT --work DIR --quick    # that it runs: figures of no worth, nothing written

ROOT has photographs with people's labels that are no part of this repository (`strong_data.py` says which, and in what
folders); pip install 'polyteach[demo,selfsup]' ai-edge-litert. A run that was stopped goes on in DIR.

Two checkpoints: EfficientNet-Lite0, which learned 1.3 million labelled photographs of ImageNet; and a small ResNet that
learned by SimCLR, here, from the pool alone. Each goes five ways:

as it is: nothing is done to it.
longer: nothing either, but each fine-tuning has more steps.
self-supervised: SimCLR on the pool, from the checkpoint, with as many images as the student sees.
must: a student of three teachers' labels of the pool (boxes by FastestDet, regions by DeepLab, classes by Lite0).
must and features: the same, and it learns Lite0's features too.

All that is learned downstream starts from the backbone alone. Fine-tuning has one learning rate per set, chosen on
validation images for "as it is", which is where the others may only lose by it. The rates of "self-supervised" and
"must" are chosen by a linear probe on validation images, with the first seed; "must and features" takes that of "must".
Seeds: of the continued training, and of the heads, batches and few-shot choice of what follows it, the same for every
arm; so differences are paired by seed.
"""

import argparse
import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, Said, machine
from safetensors.torch import save_file
from strong_data import copy_networks, fill_camvid, fill_nyu, take_pool
from strong_statistics import backbone_of, backbone_state, completed, measure, mixed, whole_views
from strong_summary import Found, costs, rate_lines, tables
from torch import Tensor

import polyteach
from polyteach.model.student import Student
from polyteach.store import Store
from polyteach.teachers.packaged_models import efficientnet_lite0_state

LEARNED = ("boxes", "regions", "classes")
FEATURES = ("seen-dense", "seen-global")
ARMS = ("as it is", "longer", "self-supervised", "must", "must and features")
CONTINUED = ARMS[2:]
BASE = ARMS[0]
MIXED = ("must with the checkpoint's statistics", "the checkpoint with must's statistics")
"""Of batch normalisation, with the smallest rate and the first seed."""
ANEW = " (statistics measured anew)"
"""Of batch normalisation, on whole images of the pool: of every arm."""
LEFT_OUT = ("caltech",)
"""Folders of the pool that share a source with a downstream set."""
NET = ("--size", "96", "--workers", "0", "--device", "cpu", "--channels-last", "--channels", "32", "--no-progress")
FILE = "transfer.json"
COMPARED = (
    *((arm, BASE) for arm in ARMS[1:]), *((arm, other) for arm in ARMS[3:] for other in ARMS[1:3]),
    ("must and features", "must"),
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """pool: photographs. batch, steps: of the student. contrast, first: images per step of SimCLR, and its steps where
    it makes the second checkpoint. tune, longer: steps of a fine-tuning. rates: of what is continued; tune_rates: of
    fine-tuning. measured: photographs of the pool on which statistics are measured."""

    pool: int = 2400
    batch: int = 16
    steps: int = 150
    contrast: int = 64
    first: int = 400
    tune: int = 60
    longer: int = 140
    measured: int = 512
    rates: tuple[float, ...] = (0.00003, 0.0002, 0.001)
    tune_rates: tuple[float, ...] = (0.001, 0.003)
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def contrasts(self) -> int:
        """Steps of SimCLR that see as many images as the student does."""
        return max(1, self.steps * self.batch // self.contrast)


QUICK = Scale(pool=48, batch=4, steps=2, contrast=8, first=1, tune=1, longer=2, tune_rates=(0.003,), seeds=(0,))


@dataclass(frozen=True)
class Transfer:
    """A downstream store, how it is learned, the score that decides, and options."""

    store: str
    mode: str
    metric: str
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.store}, {'linear probe' if self.mode == 'linear' else 'fine-tuned'}: {self.metric}"


TRANSFERS = (
    Transfer("caltech", "linear", "top-1", ("--shots", "10")),
    Transfer("camvid", "finetune", "mIoU", ("--validation-split", "val")),
    Transfer("nyu", "finetune", "delta<1.25"),
    Transfer("caltech", "finetune", "top-1", ("--shots", "10")),
)
"""In order of importance: where time runs out, the last are not there."""
PROBE = TRANSFERS[0]


@dataclass(frozen=True)
class Checkpoint:
    """name: in the tables. backbone: timm's. init: what training starts from."""

    name: str
    backbone: str
    init: str


CHECKPOINTS = (
    Checkpoint("imagenet", "tf_efficientnet_lite0", "lite0.safetensors"),
    Checkpoint("simclr", "test_resnet", "runs/simclr-checkpoint"),
)


# ------------------------------------------------------------------------------------------- the run


def run_of(checkpoint: Checkpoint, arm: str, rate: float | None, seed: int) -> str:
    """What a continued training is called, or, without a rate, a test of the checkpoint."""
    return "-".join([checkpoint.name, arm.replace(" ", "-"), *([] if rate is None else [f"{rate}"]), f"s{seed}"])


def test_of(checkpoint: Checkpoint, arm: str, rate: float | None, seed: int, how: Transfer) -> Path:
    """Where a transfer is kept."""
    return Path("transfer", run_of(checkpoint, arm, rate, seed), f"{how.store}-{how.mode}")


def on_validation(file: Path) -> float:
    """The best score on validation images that a transfer.json tells."""
    return max(float(cell["validation"]) for cell in json.loads(file.read_text())["results"][0]["sweep"])


def tried_rates(folder: Path, checkpoint: Checkpoint, arm: str, much: Scale) -> dict[float, float]:
    """Of a continued training, rate -> score of the linear probe on validation images, with the first seed; ascending,
    and only those that were tried already."""
    arm = "must" if arm == "must and features" else arm
    files = {r: folder / test_of(checkpoint, arm, r, much.seeds[0], PROBE) / FILE for r in sorted(much.rates)}
    return {r: on_validation(file) for r, file in files.items() if file.exists()}


def continued_rate(folder: Path, checkpoint: Checkpoint, arm: str, much: Scale) -> float | None:
    """The best of the rates that were tried, of equal ones the smallest; None before all were tried."""
    found = tried_rates(folder, checkpoint, arm, much)
    return max(found, key=lambda r: found[r]) if len(found) == len(much.rates) else None


def prepare(said: Said, much: Scale, data: Path) -> None:
    """Stores, teachers' files, labels of the pool, and the checkpoints."""
    said.step("take the pool", lambda: take_pool(data / "pool.tar", Path("pool"), much.pool, LEFT_OUT))
    said.step("take the networks", lambda: copy_networks(data / "networks", Path()))
    state = {k: v.contiguous() for k, v in efficientnet_lite0_state().items()}
    said.step("take Lite0", lambda: save_file(state, "lite0.safetensors"))
    said.step("store the pool", lambda: polyteach.ingest("pool", "stores/pool", embed=True, progress=False))
    caltech = f"folder:{data / 'caltech101'}"
    said.step("store caltech", lambda: polyteach.ingest(caltech, "stores/caltech", embed=True, progress=False))
    said.step("store camvid", lambda: fill_camvid(data / "camvid", Path("stores/camvid")))
    said.step("store nyu", lambda: fill_nyu(data / "nyu", Path("stores/nyu")))
    teachers = {
        "boxes": "onnx:FastestDet.onnx",
        "regions": f"python:{Path(__file__).with_name('strong_data.py')}:deeplab",
        "classes": "packaged:efficientnet_lite0",
        "seen": "features:timm:tf_efficientnet_lite0@lite0.safetensors",
    }
    for name, spec in teachers.items():  # one by one: what each costs
        words = ("--teacher", f"{name}={spec}", "--device", "cpu", "--no-progress")
        said.command(f"label: {name}", "label", "stores/pool", *words)
    for labels in Store.open("stores/pool").sets():
        _, failed, _ = labels.statistics()
        if failed:
            raise RuntimeError(f"{labels.path}: {failed} photographs failed; said.json has why")


class Way:
    """One checkpoint's trainings and transfers, in the current folder."""

    def __init__(self, said: Said, much: Scale, checkpoint: Checkpoint) -> None:
        self.said, self.much, self.checkpoint = said, much, checkpoint

    def begin(self) -> None:
        """Make the checkpoint, where it is not there yet."""
        if Path(self.checkpoint.init).suffix != ".safetensors":
            words = ("--steps", f"{self.much.first}", "--lr", "0.001", "--seed", "0")
            self._contrast(f"{self.checkpoint.name}: the checkpoint", self.checkpoint.init, words)

    def _contrast(self, what: str, out: str, words: Sequence[str]) -> None:
        self.said.command(
            what, "pretrain", "stores/pool", "--out", out, "--method", "simclr", "--crop", "0.3", "1", "--backbone",
            self.checkpoint.backbone, "--batch-size", f"{self.much.contrast}", "--optimizer", "adamw", *words, *NET,
        )  # fmt: skip

    def learn(self, arm: str, rate: float, seed: int) -> str:
        """Continue the checkpoint; the run's folder."""
        out = f"runs/{run_of(self.checkpoint, arm, rate, seed)}"
        what = f"{self.checkpoint.name}: {arm}: train, rate {rate}, seed {seed}"
        init = ("--init", self.checkpoint.init, "--lr", f"{rate}", "--seed", f"{seed}")
        if arm == "self-supervised":
            self._contrast(what, out, (*init, "--steps", f"{self.much.contrasts}"))
            return out
        sets = LEARNED + (FEATURES if arm == "must and features" else ())
        self.said.command(
            what, "train", "stores/pool", "--out", out, "--labels", *sets, *init, "--backbone",
            self.checkpoint.backbone, "--steps", f"{self.much.steps}", "--batch-size", f"{self.much.batch}",
            "--optimizer", "adamw", "--ema", "0.99", "--scale", "0.8", "1.3", "--weights", "equal", "--score", "0.4",
            *NET,
        )  # fmt: skip
        return out

    def transfer(self, arm: str, rate: float | None, seed: int, how: Transfer, sweep: Sequence[float] = ()) -> None:
        """Probe or fine-tune what `learn` made, or, without a rate, the checkpoint. sweep: rates to choose from."""
        init = self.checkpoint.init if rate is None else self.learn(arm, rate, seed)
        self.transfer_file(init, arm, rate, seed, how, sweep)

    def transfer_file(
        self, init: str, arm: str, rate: float | None, seed: int, how: Transfer, sweep: Sequence[float] = ()
    ) -> None:
        """The same of any weights: a state dict, or a run's folder."""
        place, m = test_of(self.checkpoint, arm, rate, seed, how), self.much
        of_file = ("--backbone", self.checkpoint.backbone) if Path(init).suffix == ".safetensors" else ()
        trained: tuple[str, ...] = ()
        if how.mode == "finetune":
            steps = m.longer if arm == "longer" else m.tune
            lrs = [f"{r}" for r in sweep or [self.tune_rate(how)]]
            trained = ("--parts", "backbone", "--optimizer", "adamw", "--scale", "0.8", "1.3", "--steps", f"{steps}")
            trained += ("--lrs", *lrs)
        tried = "" if rate is None else f", rate {rate}"
        self.said.command(
            f"{self.checkpoint.name}: {arm}: {how.mode} {how.store}{tried}, seed {seed}", "transfer",
            f"stores/{how.store}", "--downstream", how.store, "--name", arm, "--init", init, *of_file, "--out",
            f"{place}", "--mode", how.mode, "--metric", how.metric, "--seeds", f"{seed}", "--batch-size", "16",
            "--resamples", "0", "--examples", "0", *how.options, *trained, *NET,
        )  # fmt: skip

    def tune_rate(self, how: Transfer) -> float:
        """Of every fine-tuning on a set: the one that is best for the checkpoint as it is, on validation images."""
        first = self.much.seeds[0]
        self.transfer(BASE, None, first, how, self.much.tune_rates)
        file = test_of(self.checkpoint, BASE, None, first, how) / FILE
        rate: float = json.loads(file.read_text())["results"][0]["chosen"]["lr"]
        return rate

    def go(self, transfers: Sequence[Transfer]) -> None:
        """All arms and seeds on these sets."""
        first, *others = self.much.seeds
        for how in transfers:
            self.transfer(BASE, None, first, how, self.much.tune_rates if how.mode == "finetune" else ())
            for seed in others:
                self.transfer(BASE, None, seed, how)
        for arm in CONTINUED[:2]:
            for rate in self.much.rates:
                self.transfer(arm, rate, first, PROBE)
        for seed in self.much.seeds:
            for arm in CONTINUED:
                for how in transfers:
                    self.transfer(arm, continued_rate(Path(), self.checkpoint, arm, self.much), seed, how)
            for how in transfers:
                if how.mode == "finetune":
                    self.transfer("longer", None, seed, how)

    def explain(self) -> None:
        """Probe with normalisation's statistics apart from what was learned: of one checkpoint that is a file."""
        Path("mixed").mkdir(exist_ok=True)
        first, least = self.much.seeds[0], min(self.much.rates)
        asked, run = self.checkpoint, self.learn("must", least, self.much.seeds[0])

        def of(init: str) -> Student:
            return backbone_of(asked.backbone, init, 96)

        def both(swapped: bool) -> dict[str, Tensor]:
            states = [backbone_state(of(init)) for init in (run, asked.init)]
            return mixed(*(states[::-1] if swapped else states))

        for arm, swapped in ((MIXED[0], False), (MIXED[1], True)):
            self.probe_state(arm, least, first, lambda s=swapped: both(s))  # type: ignore[misc]
        store = Store.open("stores/pool")
        for seed in self.much.seeds:
            for arm in (BASE, *CONTINUED):
                rate = continued_rate(Path(), asked, arm, self.much) if arm in CONTINUED else None
                init = asked.init if rate is None else self.learn(arm, rate, seed)
                views = self.much.measured
                self.probe_state(
                    f"{arm}{ANEW}", rate, seed,
                    lambda i=init, n=views: backbone_state(measure(of(i), whole_views(store, n, 96))),  # type: ignore[misc]
                )  # fmt: skip

    def probe_state(self, arm: str, rate: float | None, seed: int, make: Callable[[], dict[str, Tensor]]) -> None:
        """Write a backbone's state, and probe it."""
        file = f"mixed/{run_of(self.checkpoint, arm, rate, seed)}.safetensors"
        what = f"{self.checkpoint.name}: {arm}: write, seed {seed}"
        self.said.step(what, lambda: save_file(completed(make(), Path(self.checkpoint.init)), file))
        self.transfer_file(file, arm, rate, seed, PROBE)


def everything(said: Said, much: Scale, data: Path) -> None:
    """The whole grid; the sets that matter least come last, with all seeds."""
    prepare(said, much, data)
    for transfers in (TRANSFERS[:2], TRANSFERS[2:3], TRANSFERS[3:]):
        for checkpoint in CHECKPOINTS:
            way = Way(said, much, checkpoint)
            way.begin()
            way.go(transfers)
            if transfers[0] == PROBE and Path(checkpoint.init).suffix == ".safetensors":
                way.explain()


# ------------------------------------------------------------------------------------------- what came of it


def read(folder: Path, much: Scale) -> list[Found]:
    """All that is finished in a folder."""
    found = []
    for c in CHECKPOINTS:
        for arm in (*ARMS, *MIXED, *(f"{a}{ANEW}" for a in ARMS if a != "longer")):
            plain = arm.removesuffix(ANEW)
            rate = continued_rate(folder, c, plain, much) if plain in CONTINUED else None
            if plain in CONTINUED and rate is None:
                continue
            if arm in MIXED:
                rate = min(much.rates)
            for how in TRANSFERS:
                for seed in much.seeds:
                    file = folder / test_of(c, arm, rate, seed, how) / FILE
                    if file.exists():
                        [result] = json.loads(file.read_text())["results"]
                        found.append(Found(c.name, arm, seed, f"{how}", result["mean"]))
    return found


def bf16() -> bool | None:
    """Whether the processor has AVX512-BF16; None where that cannot be known."""
    file = Path("/proc/cpuinfo")
    return "avx512_bf16" in file.read_text() if file.exists() else None


def rates(folder: Path, much: Scale) -> dict[str, dict[str, Any]]:
    """By what is trained: the learning rates that were tried, each with its score on validation images, and which one
    was chosen; for the probe also the score of the checkpoint as it is."""
    out: dict[str, dict[str, Any]] = {}
    for c in CHECKPOINTS:
        for how in TRANSFERS:
            file = folder / test_of(c, BASE, None, much.seeds[0], how) / FILE
            if how.mode == "finetune" and file.exists():
                result = json.loads(file.read_text())["results"][0]
                tried = {f"{cell['lr']:g}": cell["validation"] for cell in result["sweep"]}
                out[f"{c.name}: {how}"] = {"tried": tried, "chosen": result["chosen"]["lr"]}
        file = folder / test_of(c, BASE, None, much.seeds[0], PROBE) / FILE
        for arm in CONTINUED[:2]:
            if found := tried_rates(folder, c, arm, much):
                chosen = continued_rate(folder, c, arm, much)
                about = {"tried": {f"{r:g}": v for r, v in found.items()}, "chosen": chosen, BASE: on_validation(file)}
                out[f"{c.name}: {arm}: training"] = about
    return out


def section(found: Sequence[Found], c: Checkpoint) -> Iterator[str]:
    """Lines of Markdown about one checkpoint."""
    yield from (f"## {c.name}: `{c.backbone}`", "")
    lines = [*tables(found, c.name, [f"{how}" for how in TRANSFERS], ARMS, COMPARED)]
    yield from lines or ("Nothing is finished.", "")
    anew = [f"{a}{ANEW}" for a in (BASE, *CONTINUED)]
    apart = [(a, b) for a, b in zip(anew, (BASE, *CONTINUED), strict=True)]
    apart += [(a, anew[0]) for a in anew[1:]] + [(a, anew[1]) for a in anew[2:]]
    others = (BASE, *CONTINUED, *MIXED, *anew)
    if any(f.arm in (*MIXED, *anew) for f in found if f.checkpoint == c.name):
        yield from ("### Normalisation's statistics apart from the weights", "")
        yield from tables(found, c.name, [f"{PROBE}"], others, apart)


def page(folder: Path, much: Scale, seconds: dict[str, float]) -> tuple[dict[str, Any], str]:
    """What goes into strong.json, and strong.md, of what is finished."""
    found = read(folder, much)
    about = {
        "code": (folder / "code.txt").read_text().splitlines(),
        "machine": machine() | {"avx512_bf16": bf16(), "threads": torch.get_num_threads()},
        "scale": asdict(much),
        "rates": rates(folder, much),
        "scores": [asdict(f) for f in found],
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
    }
    cpu = about["machine"]
    wanted = len(much.seeds) * sum(
        len([a for a in ARMS if a != "longer" or how.mode == "finetune"]) for how in TRANSFERS for _ in CHECKPOINTS
    )
    lines = [
        "By `python benchmarks/strong.py`, whose head says what the arms are.",
        "",
        f"{len([f for f in found if f.arm in ARMS])} of {wanted} tests of the grid are finished.",
        "",
        f"{cpu['cpu']} (AVX512-BF16: {cpu['avx512_bf16']}), one thread, "
        f"fp32, torch {torch.__version__}; {cpu['date']}. Run in turn by these commits (git's names of files):",
        "",
        *(f"- {line}" for line in about["code"]),
        "",
        f"{asdict(much)}",
        "",
        f"Seeds {', '.join(map(str, much.seeds))}. A mean over seeds, and in brackets the 95 % interval of Student's t "
        "about it; differences are paired by seed. Scores are in percent. Not corrected for the number of comparisons.",
        "",
        *(line for c in CHECKPOINTS for line in section(found, c)),
        "## Learning rates",
        "",
        *rate_lines(about["rates"], BASE),
        "",
        "## What it has cost, in seconds of one core",
        "",
        *costs(seconds, ARMS),
    ]
    return about, "\n".join(lines) + "\n"


def note_code(folder: Path) -> None:
    """Add a line to code.txt, where it is not its last one: the commit that runs, and git's names of the two files that
    decide what is computed, which a rebase leaves as they are (`git log --find-object NAME`)."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    blobs = [git("hash-object", name)[:12] for name in ("strong.py", "strong_data.py")]
    line = f"{git('rev-parse', '--short=12', 'HEAD')}: strong.py {blobs[0]}, strong_data.py {blobs[1]}\n"
    file = folder / "code.txt"
    known = file.read_text() if file.exists() else ""
    if not known.endswith(line):
        file.write_text(known + line)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--work", type=Path, required=True, help="keep all there, and go on with what is there")
    parser.add_argument("--page", action="store_true", help="run nothing: write the page of what is finished")
    parser.add_argument("--quick", action="store_true", help="that it runs; writes nothing")
    given = parser.parse_args()
    much, data, work = QUICK if given.quick else Scale(), given.data.resolve(), given.work.resolve()
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(work):
        said = Said(json.loads(json.dumps(asdict(much))))
        if not given.page:
            note_code(work)
            start = time.monotonic()
            everything(said, much, data)
            print(f"{time.monotonic() - start:.0f} s by the clock")
        about, text = page(work, much, said.seconds)
    print(text)
    if not given.quick:
        (RESULTS / "strong.json").write_text(json.dumps(about, indent=1) + "\n")
        (RESULTS / "strong.md").write_text(text)


if __name__ == "__main__":
    main()
