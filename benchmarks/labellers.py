"""Tools that people label with instead, each asked to label a folder of pictures with teachers of polyteach.

So the models, their preprocessing and their answers are the same, and what differs is the loop around them. Models are
loaded once and kept, which is in no figure: in a run over many pictures it would not count.
"""

import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import rate
from PIL import Image

from polyteach.teachers import Teacher, load_teacher

loaded = lru_cache(maxsize=32)(load_teacher)


def files(folder: str) -> list[str]:
    """The pictures in a folder."""
    return sorted(str(f) for f in Path(folder).glob("*.jpg"))


def tensor(path: str) -> torch.Tensor:
    """A picture's (3, h, w) bytes."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


def plain(answers: Sequence[dict[str, Any]]) -> bytes:
    """Answers as bytes to be kept."""
    return pickle.dumps([{k: dict(vars(t)) for k, t in a.items()} for a in answers])


@contextmanager
def room() -> Iterator[Path]:
    """A folder for the answers, which are thrown away; what is printed is too."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield Path(folder)


def one_at_a_time(folder: str, specs: dict[str, str], precision: str, batch: int) -> float:
    """As scripts do it: for each model, decode each picture, ask for one at a time, keep with torch.save."""
    with room() as out:

        def go() -> None:
            for name, spec in specs.items():
                teacher = loaded(spec, "cpu", precision)
                for i, path in enumerate(files(folder)):
                    [answer] = teacher([tensor(path)])
                    torch.save({k: vars(v) for k, v in answer.items()}, out / f"{name}-{i}.pt")

        return rate(len(files(folder)), go)


class _Pictures(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        return tensor(self.paths[i])


def dataloader(folder: str, specs: dict[str, str], precision: str, batch: int) -> float:
    """A loop over torch's DataLoader, one worker, for each model; one file of answers a batch."""
    with room() as out:

        def go() -> None:
            for name, spec in specs.items():
                teacher = loaded(spec, "cpu", precision)
                loader = torch.utils.data.DataLoader(
                    _Pictures(files(folder)), batch_size=batch, num_workers=1, collate_fn=list
                )
                for i, images in enumerate(loader):
                    (out / f"{name}-{i}.pkl").write_bytes(plain(teacher(images)))

        return rate(len(files(folder)), go)


@lru_cache(maxsize=8)
def _pipeline(task: str, folder: str, precision: str) -> Any:
    import transformers

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    return transformers.pipeline(task, model=folder, device="cpu", dtype=dtype)


def pipeline(folder: str, specs: dict[str, str], precision: str, batch: int) -> float:
    """transformers' `pipeline` over the files, one model after the other. specs: task -> transformers:FOLDER."""
    from teams import PIPELINES

    with room() as out:

        def go() -> None:
            for task, spec in specs.items():
                ask = _pipeline(PIPELINES[task], spec.partition(":")[2], precision)
                for i, answer in enumerate(ask(files(folder), batch_size=batch)):
                    (out / f"{task}-{i}.pkl").write_bytes(pickle.dumps(answer))

        return rate(len(files(folder)), go)


class _Asked:
    """In Ray's actor: all teachers, over one batch of pictures, which were decoded for all of them once."""

    def __init__(self, specs: dict[str, str], precision: str, out: str, threads: int) -> None:
        torch.set_num_threads(threads)  # Ray gives an actor one
        self.teachers = {k: load_teacher(v, "cpu", precision) for k, v in specs.items()}
        self.out = out

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        images = [torch.from_numpy(np.array(x)).permute(2, 0, 1).contiguous() for x in batch["image"]]
        for name, teacher in self.teachers.items():
            with open(f"{self.out}/{name}-{time.time_ns()}.pkl", "wb") as file:
                file.write(plain(teacher(images)))
        return {"count": np.array([len(images)]), "done": np.array([time.time()])}


def _opened(batch: dict[str, Any]) -> dict[str, Any]:
    pictures = np.empty(len(batch["bytes"]), dtype=object)
    for i, data in enumerate(batch["bytes"]):
        pictures[i] = np.array(Image.open(BytesIO(data)).convert("RGB"))
    return {"image": pictures}


def ray_data(folder: str, specs: dict[str, str], precision: str, batch: int) -> float:
    """Ray Data: tasks read files, an actor decodes them (Ray joins the two steps) and asks all models about them.

    Starting it and loading the models takes many seconds and counts for little in a long run, so the clock starts when
    the first batch is done; what was decoded ahead until then is to Ray's advantage.
    """
    import ray

    if not ray.is_initialized():
        here = str(Path(__file__).resolve().parent)
        paths = os.pathsep.join([here, str(Path(here).parent)])
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False,
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
        )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    with room() as out:
        data = ray.data.read_binary_files(files(folder)).map_batches(_opened, batch_size=batch)
        asked = data.map_batches(
            _Asked, fn_constructor_args=(specs, precision, str(out), torch.get_num_threads()),
            batch_size=batch, num_cpus=1, compute=ray.data.ActorPoolStrategy(size=1),
        )  # fmt: skip
        rows = sorted(asked.take_all(), key=lambda r: r["done"])
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} batches of Ray Data are too few to be timed: give it more pictures")
    return float(sum(r["count"] for r in rows[1:]) / (rows[-1]["done"] - rows[0]["done"]))


def autodistill(folder: str, specs: dict[str, str], precision: str, batch: int) -> float:
    """autodistill's `label()`, one model after the other; of an answer without boxes it gets one around the picture."""
    import supervision
    from autodistill.detection import CaptionOntology, DetectionBaseModel

    class Asked(DetectionBaseModel):  # type: ignore[misc]
        def __init__(self, teacher: Teacher) -> None:
            [objective] = teacher.objectives.values()
            names = objective.space.names or ("all",)
            super().__init__(CaptionOntology({f"{n} {i}": f"{n} {i}" for i, n in enumerate(names)}))
            self.teacher = teacher

        def predict(self, input: Any) -> Any:
            image = torch.from_numpy(np.ascontiguousarray(input[:, :, ::-1])).permute(2, 0, 1).contiguous()
            [[target]] = [list(answer.values()) for answer in self.teacher([image])]
            if hasattr(target, "box"):
                box, category, score = target.box, target.category, target.score
            else:
                box = torch.tensor([[0.0, 0.0, image.shape[2], image.shape[1]]])
                known = getattr(target, "probability", torch.ones(1))
                category, score = (
                    (known.argmax()[None] if known.ndim == 1 else torch.zeros(1).long()),
                    known.max()[None],
                )
            return supervision.Detections(
                xyxy=box.numpy(), class_id=category.numpy(), confidence=score.numpy().astype(np.float32)
            )

    with room() as out:

        def go() -> None:
            for name, spec in specs.items():
                Asked(loaded(spec, "cpu", precision)).label(folder, extension=".jpg", output_folder=str(out / name))
                shutil.rmtree(out / name)

        return rate(len(files(folder)), go)
