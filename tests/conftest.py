"""What several tests share: a rendered store, and quiet, deterministic torch."""

import functools
import importlib
import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from polyteach.scene import random_scene, render


@pytest.fixture(autouse=True)
def _same_start():
    """Every test starts from the same state, in any order, and leaves torch's settings as they were."""
    torch.manual_seed(0)
    random.seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def png(pixels: torch.Tensor) -> bytes:
    """An image as PNG bytes; pixels (3, H, W) uint8."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).save(out, format="PNG")
    return out.getvalue()


@pytest.fixture
def photographs(tmp_path):
    """A folder of six small rendered pictures of different shapes."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(6):
        size = [(48, 64), (64, 48), (40, 40)][i % 3]
        (folder / f"{i}.png").write_bytes(png(render(random_scene(i, size)).image))
    return folder


@pytest.fixture
def verbs(monkeypatch):
    """Calls of the verbs as (name, options): the command line is read as ever, and nothing is done."""
    calls = []
    for name in ("ingest", "train", "pretrain", "label", "transfer", "report"):
        module = importlib.import_module(f"polyteach.{name}")

        def noted(*args, verb=name, **options):  # a verb may have an option "name"
            calls.append((verb, options))

        monkeypatch.setattr(module, name, functools.wraps(getattr(module, name))(noted))
    return calls
