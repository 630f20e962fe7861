"""Loops that people train with instead: one head of classes on the same backbone, over a folder by class."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from polyteach.store import Store

WARM = 2
"""Steps before the clock starts."""
BACKBONE = "resnet18"


@contextmanager
def steps_noted() -> Iterator[list[float]]:
    """When each step of any optimiser was done: it is the same moment in every loop."""
    times: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: times.append(time.perf_counter()))
    try:
        yield times
    finally:
        hook.remove()


def per_second(times: list[float], batch: int) -> float:
    """Images a second of the steps after the first `WARM`."""
    if len(times) < WARM + 1:
        raise ValueError(f"{len(times)} steps are too few to be timed: there have to be more than {WARM}")
    return batch * (len(times) - WARM) / (times[-1] - times[WARM - 1])


def by_class(store: Store, folder: Path) -> Path:
    """The store's pictures as files in a folder of each class, made if it is not there."""
    if not folder.exists():
        [labels] = [s for s in store.sets() if s.task == "classification"]
        for part in store.parts():
            for row, answer in zip(store.images(part), labels.read(part), strict=True):
                number = int(answer.probability.argmax())  # type: ignore[union-attr]
                place = folder / f"{number:04d}"
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{row.id.replace('/', '-')}.jpg").write_bytes(row.data or b"")
    return folder


def reference(folder: str, size: int, batch: int, steps: int) -> float:
    """As torchvision's reference trains classifiers: its folder and transforms, torch's DataLoader, a plain step."""
    import timm
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    seen = [v2.PILToTensor(), v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
    scaled = [v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    data = ImageFolder(folder, v2.Compose([*seen, *scaled]))
    loader = torch.utils.data.DataLoader(
        data, batch, shuffle=True, num_workers=1, drop_last=True, persistent_workers=True
    )
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = timm.create_model(BACKBONE, num_classes=len(data.classes)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    loss_of = torch.nn.CrossEntropyLoss()
    epochs = itertools.chain.from_iterable(loader for _ in itertools.count())
    with steps_noted() as times:
        for images, classes in itertools.islice(epochs, steps):
            loss = loss_of(model(images), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    del epochs
    return per_second(times, batch)


def lightly(folder: str, size: int, batch: int, steps: int) -> float:
    """lightly-train's training of a classifier, on the CPU in fp32."""
    import lightly_train

    torch.set_num_threads(1)
    names = {i: f.name for i, f in enumerate(sorted(Path(folder).iterdir()))}
    silent = redirect_stdout(StringIO()), redirect_stderr(StringIO())
    with tempfile.TemporaryDirectory() as out, silent[0], silent[1], steps_noted() as times:
        lightly_train.train_image_classification(
            out=f"{out}/run", data={"train": folder, "val": folder, "classes": names}, model=f"timm/{BACKBONE}",
            steps=steps, batch_size=batch, num_workers=1, accelerator="cpu", devices=1, precision="32-true",
            transform_args={"image_size": (size, size)}, logger_args={"val_every_num_steps": 10**6},
        )  # fmt: skip
    return per_second(times, batch)


LOOPS: dict[str, tuple[str, Callable[..., float]]] = {
    "torchvision's reference loop": ("torchvision", reference),
    "lightly-train": ("lightly_train", lightly),
}
"""The tool's name -> its package, and what measures it."""
